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

from synthchex.maths import arrays, distances, nearest
from synthchex.maths.arrays import Features
from synthchex.maths.distances import Centred, Filter, Tile

BLOCK = 1024


@dataclass(frozen=True)
class Overlap:
    """The four numbers and the per-sample facts they are means of.

    `inside_real` (M,) int: real balls around each synthetic row. `covered` (N,) bool: the ball of the real row holds a
    synthetic one. `reached` (N,) bool: the real row is inside a synthetic ball. `real_radii` (N,), `fake_radii` (M,).
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
    left, right = _ready(real, fake, nearest_k, low)
    real_squares = nearest.kth_nearest(left, nearest_k, block)
    fake_squares = nearest.kth_nearest(right, nearest_k, block)
    balls = _Balls(left, right, real_squares, fake_squares)
    balls.count(block)
    return Overlap(
        nearest_k,
        inside_real=_in_order(balls.around, right),
        rarity=_in_order(np.where(balls.around > 0, np.sqrt(balls.smallest), np.nan), right),
        covered=_in_order(balls.covered, left),
        reached=_in_order(balls.reached, left),
        real_radii=np.sqrt(real_squares),
        fake_radii=np.sqrt(fake_squares),
    )


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
    centred, _ = _ready(features, features, nearest_k, low)
    return np.sqrt(nearest.kth_nearest(centred, nearest_k, block))


def realism(real: Features, fake: Features, *, nearest_k: int = 5, block: int = 4 * BLOCK) -> np.ndarray:
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
    left, right = _ready(real, fake, nearest_k, "auto")
    squared = nearest.kth_nearest(left, nearest_k, BLOCK)[left.order.cpu().numpy()]
    # A ball of radius zero vouches for nothing.
    trusted = torch.from_numpy(np.flatnonzero((squared <= np.median(squared)) & (squared > 0))).to(left.low.device)
    reach = torch.from_numpy(squared).to(left.low.device)
    values = torch.zeros(len(fake), dtype=torch.float64, device=left.low.device)
    for j in range(0, len(fake), block):
        for rows in trusted.split(block):
            found = distances.squared_distances(left, rows, right, slice(j, j + block))
            best = found.reciprocal_().mul_(reach[rows, None]).amax(dim=0)
            torch.maximum(values[j : j + block], best, out=values[j : j + block])
    return _in_order(values.sqrt_().cpu().numpy(), right)


def _ready(real: Features, fake: Features, k: int, low: Filter) -> tuple[Centred, Centred]:
    """Both sides in the format that is asked for; `auto` tries the fastest one on a sample."""
    kind = distances.fastest(arrays.to_tensor(real)) if low == "auto" else low
    left, right = distances.centre_pair(real, fake, kind)
    if low == "auto" and kind == "int8" and any(nearest.crowded(side, k) for side in (left, right)):
        return distances.centre_pair(real, fake, "float32")
    return left, right


def _in_order(values: np.ndarray, rows: Centred) -> np.ndarray:
    """Values of places as values of the rows as given."""
    whole = np.empty_like(values)
    whole[rows.order.cpu().numpy()] = values
    return whole


class _Balls:
    """Which synthetic rows lie in which real balls, and the other way round, collected tile by tile."""

    def __init__(self, left: Centred, right: Centred, real_squares: np.ndarray, fake_squares: np.ndarray) -> None:
        self._left, self._right = left, right
        self._real, self._fake = real_squares[left.order.cpu().numpy()], fake_squares[right.order.cpu().numpy()]
        self.around = np.zeros(len(self._fake), int)
        self.smallest = np.full(len(self._fake), np.inf)
        self.covered, self.reached = np.zeros(len(self._real), bool), np.zeros(len(self._real), bool)

    def count(self, block: int) -> None:
        """All tiles of the real by the synthetic rows."""
        for i in range(0, len(self._real), block):
            one = slice(i, min(i + block, len(self._real)))
            unsure: list[list[np.ndarray]] = [[], [], [], []]
            for j in range(0, len(self._fake), 2 * block):
                two = slice(j, min(j + 2 * block, len(self._fake)))
                tile = distances.upper(self._left, one, self._right, two)
                for places, found in zip(unsure, self._sort_out(tile, one, two), strict=True):
                    places.append(found)
            real_i, real_j, fake_i, fake_j = (np.concatenate(places) for places in unsure)
            hit = self._nearer(real_i, real_j, self._real[real_i])
            self._hold(real_i[hit], real_j[hit])
            rest = ~self.reached[fake_i]
            fake_i, fake_j = fake_i[rest], fake_j[rest]
            self.reached[fake_i[self._nearer(fake_i, fake_j, self._fake[fake_j])]] = True

    def _sort_out(self, tile: Tile, one: slice, two: slice) -> tuple[np.ndarray, ...]:
        """Count what is certain; places (real, fake) of what is not, for the real and for the synthetic balls."""
        import torch

        unsure: list[np.ndarray] = []
        for by_rows, squares in ((True, self._real[one]), (False, self._fake[two])):
            # Inside: d^2 < r^2. A ball of radius zero is empty, whatever the band says.
            level = np.where(squares > 0, -squares * (self._left.scale**2 / 2.0), np.inf)
            least = torch.from_numpy(level).to(tile.rows.device)
            i, j, high = distances.open_pairs(tile.values, least[:, None] if by_rows else least)
            low = high - 2.0 * (tile.rows.cpu().numpy()[i] + tile.columns.cpu().numpy()[j])
            sure = low > level[i if by_rows else j]
            i, j = i + one.start, j + two.start
            if by_rows:
                self._hold(i[sure], j[sure])
            else:
                self.reached[i[sure]] = True
            unsure += [i[~sure], j[~sure]]
        return tuple(unsure)

    def _hold(self, i: np.ndarray, j: np.ndarray) -> None:
        """Real balls i hold synthetic rows j."""
        self.covered[i] = True
        np.add.at(self.around, j, 1)
        np.minimum.at(self.smallest, j, self._real[i])

    def _nearer(self, i: np.ndarray, j: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Whether pairs are strictly nearer than a squared distance."""
        limit = squares * self._left.scale**2
        least, most = distances.closer(self._left, i, self._right, j)
        nearer, open_ = most < limit, (least < limit) & (most >= limit)
        nearer[open_] = distances.direct(self._left, i[open_], self._right, j[open_]) < squares[open_]
        return nearer


def _check_counts(nearest_k: int, **counts: int) -> None:
    if nearest_k < 1:
        raise ValueError(f"nearest_k must be at least 1, got {nearest_k}; 5 is usual")
    for name, count in counts.items():
        if count <= nearest_k:
            raise ValueError(
                f"{name}: expected more rows than nearest_k={nearest_k}, got {count}; "
                "pass more images or a smaller nearest_k"
            )
