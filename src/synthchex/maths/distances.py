"""Which pairs of rows are how far apart: cheap products with a proven error band, and exact distances of single pairs.

Rows are centred on a common point, scaled by a power of two, ordered by norm and rounded to a cheap format once. The
products of a tile then give -d^2/2 of every pair; with A, B the centred rows and a, b the rounded ones

    |A.B - a.b|       <= e_a |B| + (|A| + e_a) e_b            rounding of the rows, e_a = |A - a| is measured
    |fl(a.b) - a.b|   <= D u / (1 - D u) |a| |b|              any order of accumulation; none for integers
    everything after  <= 16 u (|A|^2 + |B|^2)                 float32 steps after the product, u = 2^-24

`upper` adds the band, split into a part of the row and a part of the column, so that its values are never below the
truth. Whatever stays open goes to `closer`, differences in float32, and then to `direct`, differences in float64. The
order by norm keeps the norms inside a tile alike, so one outlier does not widen the band of all others.

The int8 format keeps seven bits of each value under a step of the row's own. Its products are exact integers, four
times as fast as float32 on processors with VNNI; its band is about 1 % of the squared norms, `nearest.crowded` tells
whether that decides enough. Knows distances and order; `nearest` and `neighbors` know what they mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features

if TYPE_CHECKING:
    import torch

Format = Literal["int8", "float32"]
Filter = Literal["auto", "int8", "float32"]
UNIT = 2.0**-24  # rounding of one float32 step
STEPS = 16  # float32 steps after the product, with norms and halves: see the third line of the band
FLUSHED = 2.0**-100  # what underflow may lose, in scaled units: the longest row has a norm of at most 1
WIDEST = 2**31 // 127**2  # columns above which an int8 product could overflow
LARGEST = 1e37  # float32 features beyond this are taken as float64: their differences could overflow
CENTRE_ROWS = 1024  # the centre need only be near the mean
IN_FLIGHT, IN_FLIGHT_DEVICE = 1 << 16, 1 << 24  # values of a chunk of pairs: a core's cache, an accelerator


class Centred(NamedTuple):
    """A feature set made ready for tiles; rows are in `order`, lengths in units of 1 / scale."""

    features: torch.Tensor  # as given, (N, D)
    order: torch.Tensor  # (N,) int64, row of `features` at each place
    centre: torch.Tensor  # (D,) in the type of the features
    scale: float  # power of two
    low: torch.Tensor  # (N, D) float32, or int8 with columns of zeros up to a multiple of 64
    step: torch.Tensor  # (N,) float32; a rounded row is step * low
    half: torch.Tensor  # (N,) |A|^2 / 2, float64
    norm: torch.Tensor  # (N,) |A|, float64, ascending
    error: torch.Tensor  # (N,) bound on |A - a|, float64

    @property
    def format(self) -> Format:
        """Name of the cheap format."""
        return "float32" if self.low.is_floating_point() else "int8"

    def doubles(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Centred rows in float64, not scaled."""
        return self.features[self.order[places]].double() - self.centre.double()


class Tile(NamedTuple):
    """-d^2/2 of pairs from above: truth <= values <= truth + 2 (rows + columns)."""

    values: torch.Tensor  # (I, J) float32
    rows: torch.Tensor  # (I,) float64
    columns: torch.Tensor  # (J,) float64


def on_cpu(values: torch.Tensor) -> bool:
    """Whether NumPy may look at them without a copy."""
    return values.device.type == "cpu"


def fastest(features: torch.Tensor) -> Format:
    """int8 where the processor multiplies it exactly and faster, else float32."""
    import torch

    vnni = getattr(torch.cpu, "_is_vnni_supported", None)
    fast = on_cpu(features) and features.shape[1] <= WIDEST and vnni is not None and vnni()
    return "int8" if fast and _int8_is_exact() else "float32"


@lru_cache(maxsize=1)
def _int8_is_exact() -> bool:
    """Whether int8 products exist here and do not saturate, as they do on processors that add pairs in 16 bits."""
    import torch

    one = torch.full((64, 320), 127, dtype=torch.int8)
    two = torch.where(torch.arange(64 * 320) % 7 == 0, -127, 127).to(torch.int8).view(64, 320)
    try:
        found = torch._int_mm(one, two.T)
    except (AttributeError, RuntimeError):
        return False
    return bool((found == (one.long() @ two.long().T)).all())


def centre_pair(real: Features, fake: Features, kind: Format) -> tuple[Centred, Centred]:
    """Both sets centred on about their pooled mean and scaled alike.

    Raises:
        ValueError: int8 where its products are missing or inexact; features whose squares overflow.
    """
    import torch

    first, second = arrays.to_tensor(real), arrays.to_tensor(fake)
    check_format(kind, first)
    sides = [first] if first is second or real is fake else [first, second]
    if first.dtype is torch.float32 and max(largest(side) for side in sides) > LARGEST:
        sides = [side.double() for side in sides]
    few = torch.cat([side[:: len(side) // CENTRE_ROWS + 1] for side in sides])
    centre = few.mean(dim=0, dtype=torch.float64).to(few.dtype)
    lengths = [norms(side, centre) for side in sides]
    longest = max(float(length.max()) for length in lengths)
    if not np.isfinite(longest):
        raise ValueError(
            "expected features whose squares are finite in float64, got larger ones; scale both sides down"
        )
    scale = scale_of(longest)
    ready = [centred(side, centre, length, scale, kind) for side, length in zip(sides, lengths, strict=True)]
    return ready[0], ready[-1]


def check_format(kind: Format, features: torch.Tensor) -> None:
    """Refuse int8 where it cannot be exact.

    Args:
        kind: the format that is asked for.
        features: (..., D), on the device where products would run.

    Raises:
        ValueError: int8 where its products are missing or inexact.
    """
    width = features.shape[-1]
    if kind == "int8" and (not on_cpu(features) or width > WIDEST or not _int8_is_exact()):
        raise ValueError(
            f"low='int8': expected a processor with exact int8 products and at most {WIDEST} columns, got "
            f"{features.device.type} and {width} columns; use low='auto' or low='float32'"
        )


def scale_of(longest: float) -> float:
    """The power of two that brings the longest centred row to a norm of at most 1."""
    return float(2.0 ** -np.ceil(np.log2(longest))) if longest > 0 else 1.0


def upper(left: Centred, i: slice, right: Centred, j: slice) -> Tile:
    """-d^2/2 (scaled) of all pairs of a tile, from above."""
    import torch

    if left.format == "int8":
        values = torch._int_mm(left.low[i], right.low[j].T).float()
        values.mul_(right.step[j]).mul_(left.step[i][:, None])
    else:
        with arrays.products("float32"):
            values = torch.mm(left.low[i], right.low[j].T)
    rows, columns = _band(left, i, right, j)
    values.add_((columns - right.half[j]).float()).add_((rows - left.half[i]).float()[:, None])
    return Tile(values, rows, columns)


def _band(left: Centred, i: slice, right: Centred, j: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Band of every pair of the tile as a part of its row plus a part of its column; 2 |A| |B| <= |A|^2 + |B|^2."""
    width = left.features.shape[1]
    summed = 0.0 if left.format == "int8" else width * UNIT / (1.0 - width * UNIT)
    shares = (summed / 2.0 + STEPS * UNIT) * (1.0 + 4.0 * UNIT)
    longest_left, longest_right = left.norm[i].max() + left.error[i].max(), right.norm[j].max()
    rows = left.error[i] * longest_right + shares * (left.norm[i] + left.error[i]).square_()
    columns = right.error[j] * longest_left + shares * (right.norm[j] + right.error[j]).square_()
    return rows.mul_(1.0001).add_(FLUSHED), columns.mul_(1.0001).add_(FLUSHED)


def open_pairs(values: torch.Tensor, least: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of the entries of a tile that reach `least`, a float64 bound per row (I, 1) or column."""
    import torch

    # The bound is rounded to the type of the values: never upwards.
    least = torch.nextafter(least.to(values.dtype), torch.tensor(-torch.inf, dtype=values.dtype, device=least.device))
    if on_cpu(values):  # NumPy compares and searches several times faster than torch
        table = values.numpy()
        flat = np.flatnonzero(np.greater_equal(table, least.numpy()))
        rows = flat // table.shape[1]
        return rows, flat - rows * table.shape[1], table.ravel()[flat]
    i, j = torch.nonzero(values >= least, as_tuple=True)
    return i.cpu().numpy(), j.cpu().numpy(), values[i, j].cpu().numpy()


def closer(left: Centred, i: np.ndarray, right: Centred, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest squared distance (scaled) of pairs of places, from float32 differences of the features.

    Every term is positive and each float32 step is relative, so the error is at most about D u of the distance itself.
    Features in float64, and float32 ones near the ends of their range, are compared by `direct`.
    """
    import torch

    width = left.features.shape[1]
    if left.features.dtype is not torch.float32 or not 2.0**-50 < left.scale < 2.0**50:
        squares = direct(left, i, right, j) * left.scale**2
        return squares, squares
    squares = _squares(left, i, right, j, torch.float32).astype(np.float64) * left.scale**2
    error, lost = (width + 8) * UNIT, width * 2.0**-125 * left.scale**2
    return squares * (1.0 - error) - lost, squares * (1.0 + 2.0 * error) + lost


def direct(left: Centred, i: np.ndarray, right: Centred, j: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of places, from the features as given: float64 differences."""
    import torch

    return _squares(left, i, right, j, torch.float64)


def _squares(left: Centred, i: np.ndarray, right: Centred, j: np.ndarray, kind: torch.dtype) -> np.ndarray:
    """Squared distances of pairs of places by differences in the type `kind`, on the device of the features.

    Chunks always have the same shape, filled up where they are short, so that the order of summation, and with it the
    distance of a pair, is the same in every call: a neighbour at exactly the radius must not fall inside the ball.
    """
    import torch

    count, device = len(i), left.features.device
    chunk = max(1, (IN_FLIGHT if on_cpu(left.features) else IN_FLIGHT_DEVICE) // left.features.shape[1])
    one, two = (
        rows.order[torch.from_numpy(np.pad(places, (0, -count % chunk), mode="edge" if count else "empty")).to(device)]
        for rows, places in ((left, i), (right, j))
    )
    found = torch.empty(len(one), dtype=kind, device=device)
    if on_cpu(left.features):  # NumPy's calls cost less, and there are many
        _fill_squares(left.features.numpy(), one.numpy(), right.features.numpy(), two.numpy(), found.numpy(), chunk)
        return found.numpy()[:count]
    for start in range(0, count, chunk):
        some = slice(start, start + chunk)
        steps = left.features.index_select(0, one[some]).to(kind)
        steps -= right.features.index_select(0, two[some])
        torch.sum(steps.square_(), dim=1, out=found[some])
    return found[:count].cpu().numpy()


def _fill_squares(
    left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray, found: np.ndarray, chunk: int
) -> None:
    for start in range(0, len(i), chunk):
        some = slice(start, start + chunk)
        steps = np.subtract(left.take(i[some], axis=0), right.take(j[some], axis=0), dtype=found.dtype)
        np.einsum("ij,ij->i", steps, steps, out=found[some])


def squared_distances(left: Centred, i: torch.Tensor | slice, right: Centred, j: torch.Tensor | slice) -> torch.Tensor:
    """Squared distances of a tile in float64 products: right to about D 2^-53 of the squared norms (not scaled)."""
    a, b = left.doubles(i), right.doubles(j)
    products = (a @ b.T).mul_(-2.0).add_(a.square().sum(dim=1)[:, None]).add_(b.square().sum(dim=1))
    return products.clamp_min_(0.0)


def largest(features: torch.Tensor) -> float:
    """Largest absolute value."""
    low, high = features.aminmax()
    return max(-float(low), float(high))


def norms(features: torch.Tensor, centre: torch.Tensor, chunk: int = 512) -> torch.Tensor:
    """Norms of the centred rows, in float64."""
    import torch

    parts = [torch.linalg.vector_norm(part - centre, dim=1, dtype=torch.float64) for part in features.split(chunk)]
    return torch.cat(parts)


def centred(
    features: torch.Tensor, centre: torch.Tensor, norm: torch.Tensor, scale: float, kind: Format, chunk: int = 512
) -> Centred:
    """Rows made ready for tiles.

    Args:
        features: (N, D).
        centre: (D,) in the type of the features, on their device.
        norm: (N,) of the centred rows, float64, see `norms`.
        scale: power of two that is common to all that is compared, see `scale_of`.
        kind: the cheap format.
        chunk: rows that are rounded at a time.
    """
    import torch

    order = torch.argsort(norm, stable=True)
    norm = norm[order] * scale
    width = features.shape[1]
    # Products of a single column are wrong in torch 2.13, and blocks of 64 are what the hardware takes.
    padded = width if kind == "float32" else -(-width // 64) * 64
    low = torch.zeros((len(features), padded), dtype=getattr(torch, kind), device=features.device)
    step = torch.ones(len(features), device=features.device)
    error = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    for start in range(0, len(features), chunk):
        some = slice(start, start + chunk)
        rows = features[order[some]].sub_(centre).mul_(scale).float()
        if kind == "int8":
            step[some] = torch.maximum(rows.amax(dim=1), -rows.amin(dim=1)).div_(127.0).clamp_min_(2.0**-60)
            low[some, :width] = rounded = torch.round(rows / step[some, None])
            left_over = torch.addcmul(rows, rounded, step[some, None], value=-1.0)
            error[some] = torch.linalg.vector_norm(left_over, dim=1)
        else:
            low[some] = rows
    # Four float32 roundings: the difference from the centre, the product that is taken away, and what is left.
    error = error * (1.0 + width * UNIT) + 4.0 * UNIT * norm + FLUSHED
    return Centred(features, order, centre, scale, low, step, norm.square() / 2.0, norm, error)
