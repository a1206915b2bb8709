"""Precision, recall, density and coverage: how two feature sets overlap, by k-nearest-neighbour balls.

With r_k(x) the distance from x to its k-th nearest neighbour in its own set, itself left out:

    precision  share of synthetic rows inside at least one real ball        (is each image plausible?)
    recall     share of real rows inside at least one synthetic ball        (is each real image reachable?)
    density    mean over synthetic rows of (real balls around the row) / k  (how plausible; may exceed 1)
    coverage   share of real balls that hold at least one synthetic row     (is the real set covered?)

"Inside" is strictly nearer than the radius, as in the package `prdc` (Kynkäänniemi et al. use "or equal"): copies of
one image give a radius of zero, and a ball of radius zero holds nothing.

Exact although most of the work is low-precision: products in bfloat16 or float32 decide all pairs whose error band
excludes the other answer, the rest are recomputed in float64 by direct differences. The band is proven, not measured:
see `distances`. Not known here: images, encoders, files.
Cost: 4 N^2 D flops; memory O(N D) for a centred copy plus O(N k + block^2), never N x N.
Ten million rows: measure against a random part of the real set of stated size; radii grow as (N/n)^(1/D).
Source: Naeem et al. 2020 (arXiv:2002.09797); Kynkäänniemi et al. 2019 (arXiv:1904.06991).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from synthchex.maths import arrays, distances
from synthchex.maths.arrays import Features
from synthchex.maths.distances import Centred, Filter

BLOCK = 512


@dataclass(frozen=True)
class Overlap:
    """The four numbers and the per-sample facts they are means of.

    `inside_real` (M,) int: real balls around each synthetic row. `covered` (N,) bool: the ball of the real row holds a
    synthetic one. `reached` (N,) bool: the real row is inside a synthetic ball. `real_radii` (N,), `fake_radii` (M,).
    """

    nearest_k: int
    inside_real: np.ndarray = field(repr=False)
    covered: np.ndarray = field(repr=False)
    reached: np.ndarray = field(repr=False)
    real_radii: np.ndarray = field(repr=False)
    fake_radii: np.ndarray = field(repr=False)

    @property
    def precise(self) -> np.ndarray:
        """(M,) bool: the synthetic row is inside at least one real ball."""
        return self.inside_real > 0

    @property
    def precision(self) -> float:
        """Share of synthetic rows inside a real ball; 0 to 1, higher is better."""
        return float(self.precise.mean())

    @property
    def recall(self) -> float:
        """Share of real rows inside a synthetic ball; 0 to 1, higher is better."""
        return float(self.reached.mean())

    @property
    def density(self) -> float:
        """Mean number of real balls around a synthetic row over k; 0 or more, higher is better."""
        return float(self.inside_real.mean()) / self.nearest_k

    @property
    def coverage(self) -> float:
        """Share of real balls with a synthetic row inside; 0 to 1, higher is better."""
        return float(self.covered.mean())


def overlap(real: Features, fake: Features, *, nearest_k: int = 5, low: Filter = "auto", block: int = BLOCK) -> Overlap:
    """Precision, recall, density and coverage of a synthetic set, with the per-sample facts.

    Args:
        real: features of real images, float, (N, D), N above nearest_k.
        fake: features of synthetic images, float, (M, D), M above nearest_k.
        nearest_k: which neighbour sets the radius of a ball.
        low: precision of the filter; changes the time, not the result. `auto` is bfloat16 where the processor
            multiplies it in hardware, else float32.
        block: rows of a tile.

    Returns:
        The four numbers and what they are means of. They depend on N, M and k: compare at equal counts.

    Raises:
        ValueError: nearest_k below 1, N or M not above it, widths differ, not finite floats.

    Source: Naeem et al. 2020, eqs. 1-6; equal to the package `prdc` in exact arithmetic.

    >>> import numpy as np
    >>> found = overlap(np.array([[0.0], [1.0], [4.0]]), np.array([[0.5], [9.0], [9.5]]), nearest_k=1)
    >>> found.precision, found.recall, found.density, found.coverage
    (0.3333333333333333, 1.0, 0.6666666666666666, 0.6666666666666666)
    """
    real, fake = arrays.check_pair(real, fake)
    _check_counts(nearest_k, real=len(real), fake=len(fake))
    left, right = distances.centre_pair(real, fake, low)
    real_radii = distances.kth_nearest(left, nearest_k, block)
    fake_radii = distances.kth_nearest(right, nearest_k, block)
    inside_real, covered, reached = _cross(left, right, real_radii, fake_radii, block)
    return Overlap(nearest_k, inside_real, covered, reached, np.sqrt(real_radii), np.sqrt(fake_radii))


def radii(features: Features, *, nearest_k: int = 5, low: Filter = "auto", block: int = BLOCK) -> np.ndarray:
    """Distance of each row to its k-th nearest neighbour in the same set, itself left out.

    Args:
        features: float, (N, D), N above nearest_k.
        nearest_k: which neighbour.
        low: as in `overlap`.
        block: rows of a tile.

    Returns:
        (N,) float64, in units of the features.

    Raises:
        ValueError: as `overlap`.
    """
    features = arrays.check(features, "features")
    _check_counts(nearest_k, features=len(features))
    centred, _ = distances.centre_pair(features, features, low)
    return np.sqrt(distances.kth_nearest(centred, nearest_k, block))


def realism(real: Features, fake: Features, *, nearest_k: int = 5, block: int = BLOCK) -> np.ndarray:
    """How typical of the real set each synthetic row is: the largest radius-to-distance ratio over trusted real balls.

    Balls with a radius above the median are ignored, as in the paper, so that an outlier does not vouch for anything.

    Args:
        real: features of real images, float, (N, D), N above nearest_k.
        fake: features of synthetic images, float, (M, D).
        nearest_k: which neighbour sets the radius.
        block: rows of a tile.

    Returns:
        (M,) float64, 0 or more, higher is more typical; above 1 inside a trusted ball; inf on top of a real row.

    Raises:
        ValueError: as `overlap`.

    Source: Kynkäänniemi et al. 2019, eq. 3. Distances here are float64 products, right to about 1e-12.
    """
    import torch

    real, fake = arrays.check_pair(real, fake)
    _check_counts(nearest_k, real=len(real))
    left, right = distances.centre_pair(real, fake, "float32")
    squared = distances.kth_nearest(left, nearest_k, block)[left.order.cpu().numpy()]
    trusted = np.flatnonzero(squared <= np.median(squared))
    best = np.zeros(len(fake))
    for start in range(0, len(trusted), block):
        rows = trusted[start : start + block]
        for j in range(0, len(fake), block):
            places = slice(j, min(j + block, len(fake)))
            found = distances.squared_distances(left, torch.from_numpy(rows).to(left.low.device), right, places)
            best[places] = np.maximum(best[places], _ratios(squared[rows], found.cpu().numpy()).max(axis=0))
    values = np.empty(len(fake))
    values[right.order.cpu().numpy()] = np.sqrt(best)
    return values


def _ratios(radii: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Squared radius over squared distance; a ball of radius zero vouches for nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(radii[:, None] > 0, radii[:, None] / squares, 0.0)


def _cross(
    left: Centred, right: Centred, real_squares: np.ndarray, fake_squares: np.ndarray, block: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real balls around each synthetic row, real balls that hold one, real rows inside a synthetic ball."""
    left_order, right_order = left.order.cpu().numpy(), right.order.cpu().numpy()
    real_squares, fake_squares = real_squares[left_order], fake_squares[right_order]
    around, holds, reached = np.zeros(len(right.low), int), np.zeros(len(left.low), bool), np.zeros(len(left.low), bool)
    for i in range(0, len(left.low), block):
        for j in range(0, len(right.low), block):
            one, two = slice(i, min(i + block, len(left.low))), slice(j, min(j + block, len(right.low)))
            rows, columns = _inside(left, one, right, two, real_squares, fake_squares, reached)
            holds[rows] = True
            around += np.bincount(columns, minlength=len(around))
    found = tuple(np.empty_like(part) for part in (around, holds, reached))
    for whole, part, order in zip(found, (around, holds, reached), (right_order, left_order, left_order), strict=True):
        whole[order] = part
    return found[0], found[1], found[2]


def _inside(
    left: Centred,
    one: slice,
    right: Centred,
    two: slice,
    real_squares: np.ndarray,
    fake_squares: np.ndarray,
    reached: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Places (real, fake) with the fake row inside the real ball, for a tile; marks the real rows that are reached."""
    import torch

    squared_scale = left.scale**2
    real_half, fake_half = (real_squares[one] * squared_scale / 2, fake_squares[two] * squared_scale / 2)
    unit = distances.UNIT[left.format]
    error = distances.band(left, one, right, two) + 6 * unit * float(real_half.max() + fake_half.max())
    half = left.half[one].cpu().numpy()
    values = distances.tile(left, one, right, two)
    kind, device = values.dtype, values.device
    values.sub_(right.half[two].to(kind))

    # Inside a real ball: d^2 < r_i^2, that is a.b - |b|^2/2 > |a|^2/2 - r_i^2/2.
    level = torch.from_numpy(half - real_half).to(device)[:, None]
    rows, columns = distances.open_pairs(values > (level - error).to(kind))
    level_rows = (half - real_half)[rows]
    sure = values.cpu().numpy()[rows, columns] > level_rows + error
    sure[~sure] = _nearer(left, rows[~sure] + one.start, right, columns[~sure] + two.start, real_squares, None)

    # Inside a fake ball: the same with r_j of the column; only rows not yet reached matter.
    values.add_(torch.from_numpy(fake_half).to(device, kind))
    best = values.amax(dim=1).cpu().numpy().astype(np.float64)
    reached[one] |= best > half + error
    maybe = np.flatnonzero((best > half - error) & ~reached[one])
    if len(maybe):
        open_values = values.cpu().numpy()[maybe] > (half[maybe] - error)[:, None]
        r, c = np.nonzero(open_values)
        i, j = maybe[r] + one.start, c + two.start
        hit = _nearer(left, i, right, j, None, fake_squares)
        reached[i[hit]] = True
    return rows[sure] + one.start, columns[sure] + two.start


def _nearer(
    left: Centred,
    i: np.ndarray,
    right: Centred,
    j: np.ndarray,
    real_squares: np.ndarray | None,
    fake_squares: np.ndarray | None,
) -> np.ndarray:
    """Whether pairs are strictly nearer than the radius of the real row, or of the fake row, by direct differences."""
    limit = real_squares[i] if real_squares is not None else fake_squares[j]  # type: ignore[index]
    return distances.direct(left, i, right, j) < limit


def _check_counts(nearest_k: int, **counts: int) -> None:
    if nearest_k < 1:
        raise ValueError(f"nearest_k must be at least 1, got {nearest_k}; 5 is usual")
    for name, count in counts.items():
        if count <= nearest_k:
            raise ValueError(
                f"{name}: expected more rows than nearest_k={nearest_k}, got {count}; "
                "pass more images or a smaller nearest_k"
            )
