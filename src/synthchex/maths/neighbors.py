"""Precision, recall, density and coverage: how two feature sets overlap, by k-nearest-neighbour balls.

With r_k(x) the distance from x to its k-th nearest neighbour in its own set, itself left out:

    precision  share of synthetic rows inside at least one real ball        (is each image plausible?)
    recall     share of real rows inside at least one synthetic ball        (is each real image reachable?)
    density    mean over synthetic rows of (real balls around the row) / k  (how plausible; may exceed 1)
    coverage   share of real balls that hold at least one synthetic row     (is the real set covered?)

"Inside" is strictly nearer than the radius, as in the package `prdc` (Kynkäänniemi et al. use "or equal"): copies of
one image give a radius of zero, and a ball of radius zero holds nothing.

Exact although most of the work is cheap: products in int8 or float32 decide all pairs whose error band excludes the
other answer, the rest are decided by differences in float32 and float64. The band is proven, not measured: see
`distances`. Not known here: images, encoders, files.
Cost: 4 N^2 D operations; memory O(N D) for a rounded copy plus O(N k + block^2), never N x N.
Ten million rows: measure against a random part of the real set of stated size; radii grow as (N/n)^(1/D).
Source: Naeem et al. 2020 (arXiv:2002.09797); Kynkäänniemi et al. 2019 (arXiv:1904.06991);
Han et al. 2023 (arXiv:2206.08549).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from synthchex.maths import arrays, distances, nearest
from synthchex.maths.arrays import Features
from synthchex.maths.distances import Centred, Filter, Tile

WORTH_INT8 = 1000  # rows below which products cost little beside everything else
BLOCK, BLOCK_DEVICE = 768, 4096  # rows of a tile: a core's cache, an accelerator


@dataclass(frozen=True)
class Overlap:
    """The four numbers and the per-sample facts they are means of.

    `inside_real` (M,) int: real balls around each synthetic row. `rarity` (M,): least radius of those balls, high in
    sparse parts of the real set, NaN outside all of them (Han et al. 2023, eq. 2). `covered` (N,) bool: the ball of the
    real row holds a synthetic one. `reached` (N,) bool: the real row is inside a synthetic ball. `real_radii` (N,),
    `fake_radii` (M,). Radii and rarity are in units of the features.
    """

    nearest_k: int
    inside_real: np.ndarray = field(repr=False)
    rarity: np.ndarray = field(repr=False)
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


def overlap(
    real: Features, fake: Features, *, nearest_k: int = 5, low: Filter = "auto", block: int | None = None
) -> Overlap:
    """Precision, recall, density and coverage of a synthetic set, with the per-sample facts.

    Args:
        real: features of real images, float, (N, D), N above nearest_k.
        fake: features of synthetic images, float, (M, D), M above nearest_k.
        nearest_k: which neighbour sets the radius of a ball.
        low: format of the filter; changes the time, not the result. `auto` is int8 where the processor multiplies it in
            hardware and a sample shows that it decides most pairs, else float32.
        block: rows of a tile; None for what suits the device.

    Returns:
        The four numbers and what they are means of. They depend on N, M and k: compare at equal counts.

    Raises:
        ValueError: nearest_k below 1, N or M not above it, widths differ, not finite floats, int8 asked for without
            exact int8 products.

    Source: Naeem et al. 2020, eqs. 1-6; equal to the package `prdc` in exact arithmetic.

    >>> import numpy as np
    >>> found = overlap(np.array([[0.0], [1.0], [4.0]]), np.array([[0.5], [9.0], [9.5]]), nearest_k=1)
    >>> found.precision, found.recall, found.density, found.coverage
    (0.3333333333333333, 1.0, 0.6666666666666666, 0.6666666666666666)
    """
    real, fake = arrays.check_pair(real, fake)
    _check_counts(nearest_k, real=len(real), fake=len(fake))
    left, right = _ready(real, fake, nearest_k, low)
    block = block or _block(left)
    real_squares = nearest.kth_nearest(left, nearest_k, block)
    fake_squares = nearest.kth_nearest(right, nearest_k, block)
    balls = _Balls(left, right, real_squares, fake_squares)
    balls.count(block)
    return Overlap(
        nearest_k,
        inside_real=_in_order(balls.around, right),
        rarity=_in_order(np.where(balls.around > 0, np.sqrt(balls.least), np.nan), right),
        covered=_in_order(balls.covered, left),
        reached=_in_order(balls.reached, left),
        real_radii=np.sqrt(real_squares),
        fake_radii=np.sqrt(fake_squares),
    )


def radii(features: Features, *, nearest_k: int = 5, low: Filter = "auto", block: int | None = None) -> np.ndarray:
    """Distance of each row to its k-th nearest neighbour in the same set, itself left out.

    Args:
        features: float, (N, D), N above nearest_k.
        nearest_k: which neighbour.
        low: as in `overlap`.
        block: rows of a tile; None for what suits the device.

    Returns:
        (N,) float64, in units of the features.

    Raises:
        ValueError: as `overlap`.
    """
    features = arrays.check(features, "features")
    _check_counts(nearest_k, features=len(features))
    centred, _ = _ready(features, features, nearest_k, low)
    return np.sqrt(nearest.kth_nearest(centred, nearest_k, block or _block(centred)))


def realism(
    real: Features,
    fake: Features,
    *,
    nearest_k: int = 5,
    real_radii: np.ndarray | None = None,
    block: int | None = None,
) -> np.ndarray:
    """How typical of the real set each synthetic row is: the largest radius-to-distance ratio over trusted real balls.

    Only balls with a radius below the median are trusted, as in the paper: an outlier vouches for nothing.

    Args:
        real: features of real images, float, (N, D), N above nearest_k.
        fake: features of synthetic images, float, (M, D).
        nearest_k: which neighbour sets the radius.
        real_radii: (N,) radii of the real rows where they are known.
        block: rows of a tile; None for what suits the device.

    Returns:
        (M,) float64, 0 or more, higher is more typical; above 1 inside a trusted ball; NaN where no ball is trusted
        because all radii are alike.

    Raises:
        ValueError: as `overlap`.

    Source: Kynkäänniemi et al. 2019, eq. 3. Distances here are float64 products, right to about 1e-12.
    """
    import torch

    real, fake = arrays.check_pair(real, fake)
    _check_counts(nearest_k, real=len(real))
    left, right = distances.centre_pair(real, fake, "float32")
    block = block or _block(left)
    if real_radii is None:
        real_radii = np.sqrt(nearest.kth_nearest(left, nearest_k, block))
    # A ball of radius zero vouches for nothing.
    trusted = (real_radii < np.median(real_radii)) & (real_radii > 0)
    if not trusted.any():
        return np.full(len(fake), np.nan)
    order = left.order.cpu().numpy()
    places = torch.from_numpy(np.flatnonzero(trusted[order])).to(left.low.device)
    reach = torch.from_numpy(np.square(real_radii)[order]).to(left.low.device)
    best = torch.zeros(len(fake), dtype=torch.float64, device=reach.device)
    for rows in places.split(block):
        for j in range(0, len(fake), block):
            some = slice(j, j + block)
            ratios = distances.squared_distances(left, rows, right, some).reciprocal_().mul_(reach[rows, None])
            best[some] = torch.maximum(best[some], ratios.amax(dim=0))
    return _in_order(best.sqrt_().cpu().numpy(), right)


def _ready(real: Features, fake: Features, k: int, low: Filter) -> tuple[Centred, Centred]:
    """Both sides in the format that is asked for; `auto` tries int8 on a sample where there are rows enough to gain."""
    if low != "auto":
        return distances.centre_pair(real, fake, low)
    if min(len(real), len(fake)) >= WORTH_INT8 and distances.fastest(arrays.to_tensor(real)) == "int8":
        sides = distances.centre_pair(real, fake, "int8")
        if not any(nearest.crowded(side, k) for side in sides):
            return sides
    return distances.centre_pair(real, fake, "float32")


def _block(rows: Centred) -> int:
    return BLOCK if distances.on_cpu(rows.low) else BLOCK_DEVICE


def _in_order(values: np.ndarray, rows: Centred) -> np.ndarray:
    """Values of places as values of the rows as given."""
    whole = np.empty_like(values)
    whole[rows.order.cpu().numpy()] = values
    return whole


class _Balls:
    """Which synthetic rows lie in which real balls, and the other way round, collected tile by tile; by places."""

    def __init__(self, left: Centred, right: Centred, real_squares: np.ndarray, fake_squares: np.ndarray) -> None:
        self._left, self._right = left, right
        self._real, self._fake = real_squares[left.order.cpu().numpy()], fake_squares[right.order.cpu().numpy()]
        self.around, self.least = np.zeros(len(self._fake), int), np.full(len(self._fake), np.inf)
        self.covered, self.reached = np.zeros(len(self._real), bool), np.zeros(len(self._real), bool)

    def count(self, block: int) -> None:
        """All tiles of the real by the synthetic rows."""
        for i in range(0, len(self._real), block):
            one = slice(i, min(i + block, len(self._real)))
            for j in range(0, len(self._fake), 2 * block):
                two = slice(j, min(j + 2 * block, len(self._fake)))
                tile = distances.upper(self._left, one, self._right, two)
                self._hold(*self._inside(tile, one, two, by_rows=True))
                self.reached[self._inside(tile, one, two, by_rows=False)[0]] = True

    def _inside(self, tile: Tile, one: slice, two: slice, *, by_rows: bool) -> tuple[np.ndarray, np.ndarray]:
        """Places (real, fake) with the fake row inside the real ball, or the other way round."""
        import torch

        squares = self._real[one] if by_rows else self._fake[two]
        # Inside: d^2 < r^2. A ball of radius zero is empty, whatever the band says.
        level = np.where(squares > 0, -squares * (self._left.scale**2 / 2.0), np.inf)
        bound = torch.from_numpy(level).to(tile.rows.device)
        i, j, high = distances.open_pairs(tile.values, bound[:, None] if by_rows else bound)
        if not by_rows:  # that a real row is reached once more is no news
            i, j, high = (part[~self.reached[i + one.start]] for part in (i, j, high))
        inside = high - 2.0 * (tile.rows.cpu().numpy()[i] + tile.columns.cpu().numpy()[j]) > level[i if by_rows else j]
        radii, i, j = squares[i if by_rows else j], i + one.start, j + two.start
        inside[~inside] = self._nearer(i[~inside], j[~inside], radii[~inside])
        return i[inside], j[inside]

    def _nearer(self, i: np.ndarray, j: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Whether pairs are strictly nearer than a squared distance."""
        limit = squares * self._left.scale**2
        least, most = distances.closer(self._left, i, self._right, j)
        nearer, open_ = most < limit, (least < limit) & (most >= limit)
        nearer[open_] = distances.direct(self._left, i[open_], self._right, j[open_]) < squares[open_]
        return nearer

    def _hold(self, i: np.ndarray, j: np.ndarray) -> None:
        """Real balls i hold synthetic rows j."""
        self.covered[i] = True
        np.add.at(self.around, j, 1)
        np.minimum.at(self.least, j, self._real[i])


def _check_counts(nearest_k: int, **counts: int) -> None:
    if nearest_k < 1:
        raise ValueError(f"nearest_k must be at least 1, got {nearest_k}; 5 is usual")
    for name, count in counts.items():
        if count <= nearest_k:
            raise ValueError(
                f"{name}: expected more rows than nearest_k={nearest_k}, got {count}; "
                "pass more images or a smaller nearest_k"
            )
