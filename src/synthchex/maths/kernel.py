"""Kernel distance (squared maximum mean discrepancy) between two feature sets, KID when the features are Inception's.

    K(x, y) = (gamma x.y + coef0)^degree,  gamma = 1/D by default
    MMD^2   = mean_{i!=j} K(x_i, x_j) + mean_{i!=j} K(y_i, y_j) - 2 mean_{ij} K(x_i, y_j)

The whole sample is used, so the value has no random part. One pass over the kernel (`tiles`) serves everything that is
a weighting of rows: labels, the jackknife's standard errors, random subsets, and the null distribution of a test.

Not known here: images, encoders, files.
Cost: (N + M)^2 D flops, O(block^2) memory over the inputs; measured, time grows as N^2 from 2 to 50 thousand rows.
Ten million rows: `subset_distances`, whose cost does not grow with N, or the exact value of a stated random part of k
rows a side, whose standard error (returned) falls as 1 / sqrt(k); per-label values are parts of that kind already.
Source: Gretton et al. 2012 (JMLR 13); Binkowski et al. 2018 (arXiv:1801.01401).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from synthchex.maths import arrays, null, selections, tiles
from synthchex.maths.arrays import Features, Precision
from synthchex.maths.selections import Draws
from synthchex.maths.tiles import Kernel, Sums, Weights

if TYPE_CHECKING:
    import torch

Ids = Sequence[object] | np.ndarray | None
Columns = tuple[np.ndarray, np.ndarray]


class Polynomial(NamedTuple):
    """Kernel (gamma x.y + coef0)^degree; `gamma` None means one over the width."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def part(self, rows: torch.Tensor, kind: torch.dtype) -> tiles.Part:
        """The rows as they are."""
        return rows.to(kind), None

    def finish(self, products: torch.Tensor, left: torch.Tensor | None, right: torch.Tensor | None) -> None:
        """(gamma x.y + coef0)^degree, in place."""
        products.mul_(self._scale()).add_(self.coef0).pow_(self.degree)

    def diagonal(self, rows: torch.Tensor) -> torch.Tensor:
        """Kernel of each row with itself, float64."""
        import torch

        squares = torch.cat([part.double().square().sum(dim=1) for part in rows.split(tiles.BLOCK)])
        return (squares * self._scale() + self.coef0) ** self.degree

    def for_width(self, width: int) -> Polynomial:
        """The same with `gamma` as a number."""
        return self if self.gamma is not None else self._replace(gamma=1.0 / width)

    def _scale(self) -> float:
        if self.gamma is None:
            raise ValueError("expected a polynomial kernel with gamma, got None; call for_width(D) first")
        return self.gamma


class Estimate(NamedTuple):
    """A value and the standard error of it over repeated samples of both sets."""

    value: float
    standard_error: float


class _Side(NamedTuple):
    """What estimates need to know of one side; every row is the first selection."""

    columns: np.ndarray  # bool (N, 1 + B)
    ids: np.ndarray | None  # cluster numbers
    inside: np.ndarray  # (clusters, 1 + B), kernel sums between different rows of each cluster
    diagonal: np.ndarray  # (N,), zeros where nothing asks for it


class Comparison(NamedTuple):
    """All that one pass tells."""

    whole: Estimate  # of all rows
    selections: list[Estimate]
    subsets: np.ndarray  # (subsets,) values of random subsets
    p_value: float | None  # of the hypothesis that both sets have one distribution


def kernel_distance(
    real: Features,
    fake: Features,
    *,
    kernel: Kernel = Polynomial(),  # noqa: B008 - immutable
    precision: Precision = "float32",
    real_clusters: Ids = None,
    fake_clusters: Ids = None,
) -> Estimate:
    """Exact unbiased kernel distance of two whole feature sets, with its standard error.

    Args:
        real: features of real images, float, (N, D), N at least 2.
        fake: features of synthetic images, float, (M, D), M at least 2.
        kernel: `Polynomial`, or anything with its methods.
        precision: of the products. `float32` is right to about 1e-7 of the kernel's mean; `bfloat16` is a fast mode on
            CPUs with bf16 matrix units and on GPUs (2.5e-5 of the value on features like Inception's), `float64` for
            features far from zero.
        real_clusters: patient of each real row; rows of one patient are left out together in the standard error.
        fake_clusters: the same for the synthetic rows, for example the prompt.

    Returns:
        Squared MMD and its standard error: no unit, lower is better, unbiased for independent rows, so slightly
        negative values are right when the sets are alike. The jackknife error is conservative (up to 1.4 times too
        wide) there. Pairs of rows of one cluster count like others; `resampling` has a distance without them.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats, wrong number of cluster ids.

    Source: Gretton et al. 2012, eq. 3; Efron and Stein 1981 for the jackknife.

    >>> import numpy as np
    >>> kernel_distance(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])).value
    7.0
    """
    clusters = real_clusters, fake_clusters
    return compare(real, fake, kernel=kernel, precision=precision, clusters=clusters).whole


def compare(
    real: Features,
    fake: Features,
    columns: Columns | None = None,
    *,
    kernel: Kernel = Polynomial(),  # noqa: B008 - immutable
    precision: Precision = "float32",
    block: int | None = None,
    clusters: tuple[Ids, Ids] = (None, None),
    subsets: Sequence[Draws] = (),
    permutations: int = 0,
    seed: int = 0,
    biased: bool = False,
) -> Comparison:
    """Kernel distances of selections, of subsets and a test, of two feature sets, from one pass over the kernel.

    Args:
        real, fake, kernel, precision: as in `kernel_distance`.
        columns: which real rows and which synthetic rows belong to each selection, bool (N, B) and (M, B).
        block: rows of a tile; None for a usual one.
        clusters: patient or prompt of each real and of each synthetic row.
        subsets: (real rows, synthetic rows) of each, from `selections.subset_rows`.
        permutations: draws from the null distribution for a p-value of the whole sets; each costs as much as one more
            feature. 0 for none.
        seed: of those draws.
        biased: values pair each row with itself too (a V-statistic, never negative, too high by about 1 / N). Standard
            errors, subsets and the test are of the unbiased form all the same.

    Returns:
        Estimates of the whole sets and of the selections in the order of the columns, values of the subsets, and the
        p-value when there are permutations (see `null`): exact by exchanging rows where rows are independent, by random
        signs of clusters where they are not.

    Raises:
        ValueError: as `kernel_distance`; columns of another shape; a selection of fewer than 2 rows; fewer than 5
            clusters on a side of a test.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    sizes = len(real), len(fake)
    if isinstance(kernel, Polynomial):
        kernel = kernel.for_width(real.shape[1])
    chosen = selections.paired_columns(columns, *sizes)
    ids = [
        selections.clusters(given, size, f"{name}_clusters")
        for given, size, name in zip(clusters, sizes, ("real", "fake"), strict=True)
    ]
    drawn = null.draw(sizes, ids, permutations, seed) if permutations else None
    weights = _weights(chosen, subsets, drawn)
    sums = tiles.kernel_sums(real, fake, kernel, weights, precision=precision, block=block)
    with_diagonal = biased or (drawn is not None and drawn.signs)
    sides = [_side(*side, kernel, precision, with_diagonal) for side in zip((real, fake), chosen, ids, strict=True)]
    whole, *rest = (_estimate(sums, sides, b, biased) for b in range(1 + chosen[0].shape[1]))
    p_value = None if drawn is None else null.p_value(sums, len(subsets), drawn, [side.diagonal for side in sides])
    return Comparison(whole, rest, _subset_values(sums, subsets), p_value)


def subset_distances(
    real: Features,
    fake: Features,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    kernel: Kernel = Polynomial(),  # noqa: B008 - immutable
    precision: Precision = "float32",
) -> np.ndarray:
    """Kernel distances of random subsets, drawn as torch-fidelity draws them (input1 = fake, input2 = real).

    For sets so large that `compare`, which gives the same values beside the exact one, is out of reach.

    Args:
        real, fake, kernel, precision: as in `kernel_distance`.
        subsets: how many.
        subset_size: rows of each side, without replacement, at most min(N, M).
        seed: of `numpy.random.RandomState`; 2020 is torch-fidelity's.

    Returns:
        (subsets,) float64. Their mean and `std()` are what torch-fidelity reports; the spread says how much one subset
        varies, which is not a confidence interval of the mean.

    Raises:
        ValueError: as `kernel_distance`, or subset_size out of range.

    Source: Binkowski et al. 2018; checked against torch-fidelity metric_kid.py.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    draws = selections.subset_rows(len(real), len(fake), subsets=subsets, subset_size=subset_size, seed=seed)
    parts = ((real[left], fake[right]) for left, right in draws)
    return np.array([kernel_distance(*part, kernel=kernel, precision=precision).value for part in parts])


def _side(
    features: Features,
    columns: np.ndarray,
    ids: np.ndarray | None,
    kernel: Kernel,
    precision: Precision,
    with_diagonal: bool,
) -> _Side:
    columns = np.c_[np.ones(len(columns), bool), columns]
    inside = np.zeros((1, columns.shape[1]))
    if ids is not None:
        inside = tiles.own_sums(features, ids, columns, kernel, precision=precision)
    diagonal = kernel.diagonal(arrays.to_tensor(features)).cpu().numpy() if with_diagonal else np.zeros(len(columns))
    return _Side(columns, ids, inside, diagonal)


def _weights(columns: Columns, subsets: Sequence[Draws], drawn: null.Drawn | None) -> tuple[Weights, Weights]:
    """Columns of both sides for the pass."""
    found = []
    for side, chosen in enumerate(columns):
        marks = np.zeros((len(chosen), len(subsets)), np.int8)
        for column, pair in enumerate(subsets):
            marks[pair[side], column] = 1
        found.append(Weights(chosen, marks if drawn is None else np.hstack([marks, drawn[side]])))
    return found[0], found[1]


def _subset_values(sums: Sums, subsets: Sequence[Draws]) -> np.ndarray:
    """Unbiased distance of each subset from its quadratic forms."""
    real, fake, across = sums.forms[:, : len(subsets)]
    n, m = np.array([[len(rows) for rows in pair] for pair in subsets], float).reshape(-1, 2).T
    return real / (n * (n - 1)) + fake / (m * (m - 1)) - 2.0 * across / (n * m)


def _estimate(sums: Sums, sides: Sequence[_Side], b: int, biased: bool) -> Estimate:
    """Value and jackknife error of the whole sets (b = 0) or of a selection."""
    rows = [side.columns[:, b] for side in sides]
    n, m = (int(chosen.sum()) for chosen in rows)
    within = sums.within_real[rows[0], b], sums.within_fake[rows[1], b]
    across = sums.real_to_fake[rows[0], b], sums.fake_to_real[rows[1], b]
    value, variance = -2.0 * across[0].sum() / (n * m), 0.0
    for own, cross, side, chosen, other in zip(within, across, sides, rows, (m, n), strict=True):
        count = len(own)
        value += (own.sum() + side.diagonal[chosen].sum()) / count**2 if biased else own.sum() / (count * (count - 1))
        ids = None if side.ids is None else side.ids[chosen]
        variance += _jackknife_variance(own, cross, other, ids, side.inside[:, b])
    return Estimate(float(value), float(np.sqrt(variance)))


def _jackknife_variance(
    rows: np.ndarray, cross: np.ndarray, other: int, ids: np.ndarray | None, inside: np.ndarray
) -> float:
    """Variance of the value when each cluster of one side is left out in turn (the other side's mean is a constant).

    Args:
        rows: sums within the side, (n,).
        cross: sums against the other side, (n,).
        other: rows of the other side.
        ids: cluster number of each row; None when every row is its own.
        inside: for each cluster number, the kernel sum between different rows of it.
    """
    total, total_cross = rows.sum(), cross.sum()
    sizes, gone = np.ones(len(rows)), np.zeros(len(rows))
    if ids is not None:
        present, compact = np.unique(ids, return_inverse=True)
        sizes, gone = np.bincount(compact).astype(float), inside[present]
        rows, cross = np.bincount(compact, rows), np.bincount(compact, cross)
    left = sizes.sum() - sizes
    if len(sizes) < 2 or left.min() < 2:
        return float("nan")
    values = (total - 2.0 * rows + gone) / (left * (left - 1.0)) - 2.0 * (total_cross - cross) / (left * other)
    return float((len(values) - 1) / len(values) * np.square(values - values.mean()).sum())
