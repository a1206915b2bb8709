"""Which rows are near which: exact answers from low-precision products with a proven error band.

Rows are centred on a common point, scaled by a power of two, ordered by norm and rounded to a cheap format once. For a
tile of pairs the product gives -d^2/2 with an error below `band`, a number that holds for every pair of the tile:

    |A.B - a.b|       <= e_a |b| + (|a| + e_a) e_b            rounding of the rows, measured in float64
    |fl(A.B) - A.B|   <= (D u / (1 - D u) + v) |A| |B|        any order of accumulation; v for a bfloat16 result
    norms, differences <= 6 u (|a| + |b|)^2 / 2               float32 steps after the product

Whatever the band leaves open is settled by `direct`, the sum of squared differences in float64. The order by norm keeps
the norms inside a tile alike, so one outlier does not widen the band of all others.

Knows distances and order; `neighbors` knows what they mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features

if TYPE_CHECKING:
    import torch

Filter = Literal["auto", "bfloat16", "float32", "float64"]
UNIT = {"bfloat16": 2.0**-24, "float32": 2.0**-24, "float64": 2.0**-53}  # of the accumulator
RESULT_UNIT = {"bfloat16": 2.0**-9, "float32": 0.0, "float64": 0.0}  # extra rounding of the product's result
FLUSHED = 2.0**-120  # what denormal products may lose on units that flush them to zero; rows are scaled to norm 1
GROUP = 32  # pairs whose best value stands for all of them when a radius is bounded
SPARE = 64  # candidates of a row, over 8 k, beyond which a float64 row is cheaper than direct differences
DIRECT_VALUES = 1 << 21  # values in flight in `direct`
CROWDED = 1 / 32  # share of open pairs in a tile above which the tile is redone in float64


class Centred(NamedTuple):
    """A feature set made ready for tiles; rows are in `order`."""

    features: torch.Tensor  # as given, (N, D)
    order: torch.Tensor  # (N,) int64, row of `features` at each place
    centre: torch.Tensor  # (D,) float64
    scale: float  # power of two; everything below is in scaled units
    low: torch.Tensor  # (N, D) rounded rows
    half: torch.Tensor  # (N,) |a|^2 / 2, float64
    norm: np.ndarray  # (N,) |a|, float64, ascending
    error: np.ndarray  # (N,) |A - a|, float64

    @property
    def format(self) -> str:
        """Name of the cheap format."""
        return str(self.low.dtype).rpartition(".")[2]

    def doubles(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Centred and scaled rows in float64."""
        return (self.features[self.order[places]].double() - self.centre) * self.scale


def hardware_format() -> Literal["bfloat16", "float32"]:
    """bfloat16 where this processor multiplies it in matrix units, else float32."""
    import torch

    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return "bfloat16" if supported is not None and supported() else "float32"


def centre_pair(real: Features, fake: Features, low: Filter) -> tuple[Centred, Centred]:
    """Both sets centred on their pooled mean and scaled alike."""
    import torch

    first, second = arrays.to_tensor(real), arrays.to_tensor(fake)
    sides = [first] if first is second or real is fake else [first, second]
    rows = sum(len(side) for side in sides)
    centre = torch.stack([_sum(side) for side in sides]).sum(dim=0) / rows
    norms = [_norms(side, centre) for side in sides]
    largest = max(float(norm.max()) for norm in norms)
    scale = 2.0 ** -np.ceil(np.log2(largest)) if largest > 0 else 1.0
    kind = hardware_format() if low == "auto" else low
    ready = [_centred(side, centre, norm, float(scale), kind) for side, norm in zip(sides, norms, strict=True)]
    return ready[0], ready[-1]


def direct(left: Centred, i: np.ndarray, right: Centred, j: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of places, from the features as given: float64 differences, one order of summation."""
    import torch

    squares = np.empty(len(i))
    chunk = max(1, DIRECT_VALUES // left.features.shape[1])
    for start in range(0, len(i), chunk):
        a = left.features[left.order[torch.from_numpy(i[start : start + chunk])]].double()
        a -= right.features[right.order[torch.from_numpy(j[start : start + chunk])]]
        step = arrays.to_numpy(a)
        squares[start : start + chunk] = np.einsum("ij,ij->i", step, step)
    return squares


def band(left: Centred, i: slice, right: Centred, j: slice) -> float:
    """Bound on the error of -d^2/2 (scaled) for every pair of the tile, in the format of `left`."""
    width, kind = left.low.shape[1], left.format
    unit = UNIT[kind]
    a, b = left.norm[i].max(), right.norm[j].max()
    error_a, error_b = left.error[i].max(), right.error[j].max()
    accumulated = width * unit / (1.0 - width * unit) + RESULT_UNIT[kind] * (1.0 + width * unit)
    rounded = error_a * b + (a + error_a) * error_b
    return float(1.001 * (rounded + accumulated * (a + error_a) * (b + error_b) + 3.0 * unit * (a + b) ** 2) + FLUSHED)


def tile(left: Centred, i: slice, right: Centred, j: slice) -> torch.Tensor:
    """Products of a tile of pairs, float32 (float64 for the float64 format), within `band` of a.b."""
    import torch

    with arrays.products("float32"):
        product = torch.mm(left.low[i], right.low[j].T)
    return product.float() if product.dtype is torch.bfloat16 else product


def squared_distances(left: Centred, i: torch.Tensor | slice, right: Centred, j: torch.Tensor | slice) -> torch.Tensor:
    """Squared distances of a tile in float64 products: right to about D 2^-53 of the squared norms (unscaled)."""
    a, b = left.doubles(i), right.doubles(j)
    products = (a @ b.T).mul_(-2.0).add_(a.square().sum(dim=1)[:, None]).add_(b.square().sum(dim=1))
    return products.clamp_min_(0.0).div_(left.scale**2)


def kth_nearest(rows: Centred, k: int, block: int) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, in the order of `features`.

    Each tile above the diagonal serves its rows and its columns. The best value of each group of pairs, less the band,
    bounds the k-th nearest from below; a pair that may still beat the bound becomes a candidate; candidates that
    survive the final bounds are settled by `direct`. Rows with very many candidates (copies, ties) go by float64.
    """
    import torch

    count = len(rows.low)
    bounds = torch.full((count, k), -torch.inf, dtype=torch.float64, device=rows.low.device)
    pool = _Candidates(k)
    for i in range(0, count, block):
        for j in range(i, count, block):
            one, two = slice(i, min(i + block, count)), slice(j, min(j + block, count))
            values = tile(rows, one, rows, two)
            values.sub_(rows.half[two].to(values.dtype)).sub_(rows.half[one].to(values.dtype)[:, None])
            if i == j:
                values.fill_diagonal_(-torch.inf)
            error = band(rows, one, rows, two)
            pool.add(values, one, two, bounds, error, by_rows=True)
            if i != j:
                pool.add(values, one, two, bounds, error, by_rows=False)
        pool.prune(bounds)
    places = np.full(count, np.nan)
    _settle(rows, *pool.remaining(), k, places)
    _by_float64(rows, np.flatnonzero(np.isnan(places)), k, places)
    squares = np.empty(count)
    squares[rows.order.cpu().numpy()] = places
    return squares


def open_pairs(mask: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Row and column numbers of the true entries of a tile."""
    flat = np.flatnonzero(mask.cpu().numpy())
    rows = flat // mask.shape[1]
    return rows, flat - rows * mask.shape[1]


class _Candidates:
    """Pairs that may be among the k nearest of their row: row, column, and the range that -d^2/2 of each lies in."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))]

    def add(
        self, values: torch.Tensor, one: slice, two: slice, bounds: torch.Tensor, error: float, *, by_rows: bool
    ) -> None:
        """Tighten the bounds of the tile's rows (or columns), then take the pairs that may still beat them."""
        side = one if by_rows else two
        best = _group_best(values, self._k, 1 if by_rows else 0)
        best = (best if by_rows else best.T).double().sub_(error)
        bounds[side] = _top(bounds[side], best, self._k)
        least = (bounds[side].amin(dim=1) - error).to(values.dtype)
        least = least - least.abs() * 2.0**-23  # the bound itself was rounded: never upwards
        i, j = open_pairs(values >= (least[:, None] if by_rows else least))
        found = values.cpu().numpy()[i, j].astype(np.float64)
        i, j = i + one.start, j + two.start
        self._parts.append((*((i, j) if by_rows else (j, i)), found - error, found + error))

    def prune(self, bounds: torch.Tensor) -> None:
        """Drop what can no longer be near, and all pairs of rows that have too many, by an infinite bound for them."""
        row, column, low, high = self.remaining()
        row, column, low, high = _kept(high >= bounds.amin(dim=1).cpu().numpy()[row], row, column, low, high)
        crowd = np.bincount(row, minlength=len(bounds)) > 8 * self._k + SPARE
        if crowd.any():
            bounds[torch_mask(crowd, bounds)] = float("inf")
            row, column, low, high = _kept(~crowd[row], row, column, low, high)
        self._parts = [(row, column, low, high)]

    def remaining(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row, column, lowest and highest of all pairs."""
        row, column, low, high = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return row, column, low, high


def torch_mask(mask: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """A NumPy mask as an index on the device of `like`."""
    import torch

    return torch.from_numpy(mask).to(like.device)


def _kept(mask: np.ndarray, *parts: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(part[mask] for part in parts)


def _group_best(values: torch.Tensor, k: int, dim: int) -> torch.Tensor:
    """Best value of disjoint groups along `dim`, at least 4 k groups where there are so many pairs."""
    import torch

    length = values.shape[dim]
    size = max(1, min(GROUP, length // (4 * k)))
    groups = length // size
    main, rest = values.narrow(dim, 0, groups * size), values.narrow(dim, groups * size, length - groups * size)
    # Groups are strided, so that the reduction runs along contiguous memory.
    best = main.unflatten(dim, (size, groups)).amax(dim=dim)
    return torch.cat([best, rest.amax(dim=dim, keepdim=True)], dim=dim) if rest.shape[dim] else best


def _top(table: torch.Tensor, found: torch.Tensor, k: int) -> torch.Tensor:
    import torch

    best = found.topk(min(k, found.shape[1]), dim=1).values
    return torch.cat([table, best], dim=1).topk(k, dim=1).values


def _settle(
    rows: Centred, row: np.ndarray, column: np.ndarray, low: np.ndarray, high: np.ndarray, k: int, places: np.ndarray
) -> None:
    """k-th nearest of every row that has candidates; only pairs whose range may hold it are computed."""
    order = np.argsort(row, kind="stable")
    row, column, low, high = _kept(order, row, column, low, high)
    present, start, count = np.unique(row, return_index=True, return_counts=True)
    present, start, count = _kept(count >= k, present, start, count)
    if not len(present):
        return
    inside = np.arange(count.max()) < count[:, None]
    pairs = np.where(inside, start[:, None] + np.arange(count.max()), 0)
    lows, highs = np.where(inside, low[pairs], -np.inf), np.where(inside, high[pairs], -np.inf)
    least, most = (np.partition(part, -k, axis=1)[:, -k, None] for part in (lows, highs))
    nearer = lows > most  # certainly nearer than the k-th: counted, not computed
    open_ = inside & ~nearer & (highs >= least)
    squares = np.full(open_.shape, np.inf)
    squares[open_] = direct(rows, row[pairs[open_]], rows, column[pairs[open_]])
    squares.sort(axis=1)
    places[present] = np.take_along_axis(squares, k - 1 - nearer.sum(axis=1, keepdims=True), axis=1)[:, 0]


def _by_float64(rows: Centred, wanted: np.ndarray, k: int, places: np.ndarray, chunk: int = 256) -> None:
    """Whole rows by float64 products; the nearest few, ties included up to a limit, again by `direct`."""
    import torch

    take = min(len(rows.low) - 1, 2 * k + 16)
    for start in range(0, len(wanted), chunk):
        some = torch.from_numpy(wanted[start : start + chunk]).to(rows.low.device)
        squares = torch.cat(
            [squared_distances(rows, some, rows, slice(j, j + 4096)) for j in range(0, len(rows.low), 4096)], dim=1
        )
        squares[torch.arange(len(some)), some] = torch.inf
        near = squares.topk(take, dim=1, largest=False).indices.cpu().numpy()
        exact = direct(rows, np.repeat(some.cpu().numpy(), take), rows, near.ravel()).reshape(len(some), take)
        places[wanted[start : start + chunk]] = np.partition(exact, k - 1, axis=1)[:, k - 1]


def _sum(features: torch.Tensor, chunk: int = 4096) -> torch.Tensor:
    import torch

    return torch.stack([part.sum(dim=0, dtype=torch.float64) for part in features.split(chunk)]).sum(dim=0)


def _norms(features: torch.Tensor, centre: torch.Tensor, chunk: int = 1024) -> torch.Tensor:
    import torch

    return torch.cat([torch.linalg.vector_norm(part.double() - centre, dim=1) for part in features.split(chunk)])


def _centred(
    features: torch.Tensor, centre: torch.Tensor, norm: torch.Tensor, scale: float, kind: str, chunk: int = 1024
) -> Centred:
    import torch

    order = torch.argsort(norm, stable=True)
    low = torch.empty(features.shape, dtype=getattr(torch, kind), device=features.device)
    error = torch.empty(len(features), dtype=torch.float64, device=features.device)
    for start in range(0, len(features), chunk):
        rows = (features[order[start : start + chunk]].double() - centre) * scale
        low[start : start + chunk] = rows
        error[start : start + chunk] = torch.linalg.vector_norm(rows - low[start : start + chunk], dim=1)
    norm = norm[order] * scale
    # The float64 difference from the centre is itself rounded: one unit of the larger operand, bounded through norms.
    slack = (norm + float(torch.linalg.vector_norm(centre)) * scale) * 2.0**-52
    half = norm.square() / 2.0
    return Centred(features, order, centre, scale, low, half, norm.cpu().numpy(), (error + slack).cpu().numpy())
