"""Kernel distance (squared maximum mean discrepancy) between two feature sets, KID when the features are Inception's.

    K(x, y) = (gamma x.y + coef0)^degree,  gamma = 1/D by default
    MMD^2   = mean_{i!=j} K(x_i, x_j) + mean_{i!=j} K(y_i, y_j) - 2 mean_{ij} K(x_i, y_j)

The whole sample is used, so the value has no random part: K is formed once, tile by tile, only above the diagonal for
the symmetric halves, and each tile is multiplied by *weight columns*. A column that marks the images of a label gives
that label's distance; columns that mark random subsets give the subset estimates of torch-fidelity; all in one pass.
The sums along the rows of K are at the same time what the delete-one jackknife needs, so the standard error is free.

Not known here: images, encoders, files.
Cost: 4 N^2 D flops, O(block^2 + N B) memory over the inputs. Above some 50 thousand rows use `subset_distances`, whose
cost does not grow with N; ten million rows are that, or the exact value on a stated random part.
Source: Gretton et al. 2012 (JMLR 13); Binkowski et al. 2018 (arXiv:1801.01401).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from synthchex.maths import arrays, selections
from synthchex.maths.arrays import Features, Precision

if TYPE_CHECKING:
    import torch

BLOCK = 2048


class Polynomial(NamedTuple):
    """Kernel (gamma x.y + coef0)^degree; `gamma` None means one over the width."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0


class Estimate(NamedTuple):
    """A value and the standard error of it over repeated samples of both sets."""

    value: float
    standard_error: float


class _Sums(NamedTuple):
    """Sums of kernel rows against weight columns; the diagonals of the symmetric parts are left out."""

    within_real: np.ndarray  # (N, B)
    within_fake: np.ndarray  # (M, B)
    real_to_fake: np.ndarray  # (N, B)
    fake_to_real: np.ndarray  # (M, B)


def kernel_distance(
    real: Features,
    fake: Features,
    *,
    kernel: Polynomial = Polynomial(),  # noqa: B008 - immutable
    precision: Precision = "float32",
    real_clusters: Sequence[object] | np.ndarray | None = None,
    fake_clusters: Sequence[object] | np.ndarray | None = None,
) -> Estimate:
    """Exact unbiased kernel distance of two whole feature sets, with its standard error.

    Args:
        real: features of real images, float, (N, D), N at least 2.
        fake: features of synthetic images, float, (M, D), M at least 2.
        kernel: polynomial kernel.
        precision: of the products. `float32` is right to about 1e-7 of the kernel's mean; `bfloat16` is a fast mode
            (2.5e-5 of the value on features like Inception's), `float64` for features far from zero.
        real_clusters: patient of each real row; rows of one patient are left out together in the standard error.
        fake_clusters: the same for the synthetic rows, for example the prompt.

    Returns:
        Squared MMD and its standard error: no unit, lower is better, unbiased, so slightly negative values are right
        when the sets are alike. The jackknife error is conservative (up to 1.4 times too wide) there.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats, wrong number of cluster ids.

    Source: Gretton et al. 2012, eq. 3; Efron and Stein 1981 for the jackknife.

    >>> import numpy as np
    >>> kernel_distance(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])).value
    7.0
    """
    return kernel_distances(
        real,
        fake,
        np.ones((len(real), 1), bool),
        np.ones((len(fake), 1), bool),
        kernel=kernel,
        precision=precision,
        real_clusters=real_clusters,
        fake_clusters=fake_clusters,
    )[0]


def kernel_distances(
    real: Features,
    fake: Features,
    real_columns: np.ndarray,
    fake_columns: np.ndarray,
    *,
    kernel: Polynomial = Polynomial(),  # noqa: B008 - immutable
    precision: Precision = "float32",
    block: int = BLOCK,
    real_clusters: Sequence[object] | np.ndarray | None = None,
    fake_clusters: Sequence[object] | np.ndarray | None = None,
) -> list[Estimate]:
    """Kernel distances of many selections of the same two sets, from one pass over the kernel.

    Args:
        real: as in `kernel_distance`.
        fake: as in `kernel_distance`.
        real_columns: bool, (N, B): which real rows belong to selection b.
        fake_columns: bool, (M, B): which synthetic rows do.
        kernel: polynomial kernel.
        precision: as in `kernel_distance`.
        block: rows of a tile.
        real_clusters: as in `kernel_distance`.
        fake_clusters: as in `kernel_distance`.

    Returns:
        One estimate per selection, in order.

    Raises:
        ValueError: as `kernel_distance`; columns of another shape; a selection of fewer than 2 rows.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    real_columns, fake_columns = (
        selections.columns(real_columns, len(real), "real"),
        selections.columns(fake_columns, len(fake), "fake"),
    )
    if real_columns.shape[1] != fake_columns.shape[1]:
        raise ValueError(
            f"expected as many real as fake columns, got {real_columns.shape[1]} and {fake_columns.shape[1]}"
        )
    left = selections.clusters(real_clusters, len(real), "real_clusters")
    right = selections.clusters(fake_clusters, len(fake), "fake_clusters")
    sums = _kernel_sums(real, fake, real_columns, fake_columns, kernel, precision, block)
    inside_left = _cluster_sums(real, left, real_columns, kernel)
    inside_right = _cluster_sums(fake, right, fake_columns, kernel)
    return [
        _estimate(sums, b, real_columns[:, b], fake_columns[:, b], (left, inside_left), (right, inside_right))
        for b in range(real_columns.shape[1])
    ]


def subset_distances(
    real: Features,
    fake: Features,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    kernel: Polynomial = Polynomial(),  # noqa: B008 - immutable
    precision: Precision = "float32",
) -> np.ndarray:
    """Kernel distances of random subsets, drawn as torch-fidelity draws them (input1 = fake, input2 = real).

    Args:
        real: as in `kernel_distance`.
        fake: as in `kernel_distance`.
        subsets: how many.
        subset_size: rows of each side, without replacement, at most min(N, M).
        seed: of `numpy.random.RandomState`; 2020 is torch-fidelity's.
        kernel: polynomial kernel.
        precision: as in `kernel_distance`.

    Returns:
        (subsets,) float64. Their mean and `std()` are what torch-fidelity reports; the spread says how much one subset
        varies, which is not a confidence interval of the mean.

    Raises:
        ValueError: as `kernel_distance`, or subset_size out of range.

    Source: Binkowski et al. 2018; checked against torch-fidelity metric_kid.py.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    draws = selections.subset_rows(len(real), len(fake), subsets=subsets, subset_size=subset_size, seed=seed)
    left, right = arrays.to_tensor(real), arrays.to_tensor(fake)
    return np.array([_subset_distance(left[a], right[b], kernel, precision) for a, b in draws])


def _estimate(
    sums: _Sums,
    b: int,
    real: np.ndarray,
    fake: np.ndarray,
    left: tuple[np.ndarray | None, np.ndarray],
    right: tuple[np.ndarray | None, np.ndarray],
) -> Estimate:
    """Value and jackknife error of one selection from its row sums."""
    within_real, to_fake = sums.within_real[real, b], sums.real_to_fake[real, b]
    within_fake, to_real = sums.within_fake[fake, b], sums.fake_to_real[fake, b]
    n, m = len(within_real), len(within_fake)
    mean_real, mean_fake = within_real.sum() / (n * (n - 1)), within_fake.sum() / (m * (m - 1))
    value = mean_real + mean_fake - 2.0 * to_fake.sum() / (n * m)
    variance = 0.0
    for rows, cross, other, (ids, inside), chosen in (
        (within_real, to_fake, m, left, real),
        (within_fake, to_real, n, right, fake),
    ):
        variance += _jackknife_variance(rows, cross, other, None if ids is None else ids[chosen], inside[:, b])
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
    sizes = np.ones(len(rows))
    gone = np.zeros(len(rows))
    if ids is not None:
        present, compact = np.unique(ids, return_inverse=True)
        sizes, gone = np.bincount(compact).astype(float), inside[present]
        rows, cross = np.bincount(compact, rows), np.bincount(compact, cross)
    left = sizes.sum() - sizes
    if len(sizes) < 2 or left.min() < 2:
        return float("nan")
    values = (total - 2.0 * rows + gone) / (left * (left - 1.0)) - 2.0 * (total_cross - cross) / (left * other)
    return float((len(values) - 1) / len(values) * np.square(values - values.mean()).sum())


def _kernel_sums(
    real: Features,
    fake: Features,
    real_columns: np.ndarray,
    fake_columns: np.ndarray,
    kernel: Polynomial,
    precision: Precision,
    block: int,
) -> _Sums:
    x, y = arrays.to_tensor(real), arrays.to_tensor(fake)
    v, w = _weights(real_columns, x, precision), _weights(fake_columns, y, precision)
    within_real, _ = _tiles(x, x, v, v, kernel, precision, block)
    within_fake, _ = _tiles(y, y, w, w, kernel, precision, block)
    to_fake, to_real = _tiles(x, y, v, w, kernel, precision, block)
    return _Sums(*(part.cpu().numpy() for part in (within_real, within_fake, to_fake, to_real)))


def _tiles(
    x: torch.Tensor,
    y: torch.Tensor,
    v: torch.Tensor | None,
    w: torch.Tensor | None,
    kernel: Polynomial,
    precision: Precision,
    block: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """K w by rows of x and K' v by rows of y; for x is y the tiles below the diagonal and the diagonal are left out."""
    import torch

    same = x is y
    width = 1 if v is None else v.shape[1]
    rows = torch.zeros(len(x), width, dtype=torch.float64, device=x.device)
    columns = rows if same else torch.zeros(len(y), width, dtype=torch.float64, device=y.device)
    for i in range(0, len(x), block):
        for j in range(i if same else 0, len(y), block):
            tile = _tile(x[i : i + block], y[j : j + block], kernel, precision)
            if same and i == j:
                tile.fill_diagonal_(0.0)
            rows[i : i + block] += _row_sums(tile, None if w is None else w[j : j + block])
            if not same or i != j:
                columns[j : j + block] += _row_sums(tile.T, None if v is None else v[i : i + block])
    return rows, columns


def _tile(x: torch.Tensor, y: torch.Tensor, kernel: Polynomial, precision: Precision) -> torch.Tensor:
    import torch

    kind = torch.float64 if precision == "float64" else torch.float32
    gamma = 1.0 / x.shape[1] if kernel.gamma is None else kernel.gamma
    same = x.data_ptr() == y.data_ptr() and x.shape == y.shape
    if same and not x.is_cuda and precision != "bfloat16":
        rows = x.to(kind).numpy()
        product = torch.from_numpy(np.matmul(rows, rows.T))  # NumPy sees the symmetry and does half the work
    else:
        with arrays.products(precision):
            product = torch.mm(x.to(kind), y.to(kind).T)
    return product.mul_(gamma).add_(kernel.coef0).pow_(kernel.degree)


def _row_sums(tile: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Float64 (rows, B): sums over the tile's columns, plain or against weights (never in low precision)."""
    if weights is None:
        return tile.sum(dim=1, keepdim=True).double()
    with arrays.products("float32"):
        return (tile @ weights).double()


def _subset_distance(x: torch.Tensor, y: torch.Tensor, kernel: Polynomial, precision: Precision) -> float:
    n, m = len(x), len(y)
    sums = []
    for left, right in ((x, x), (y, y), (x, y)):
        tile = _tile(left, right, kernel, precision)
        if left is right:
            tile.fill_diagonal_(0.0)
        sums.append(float(tile.sum(dim=1).double().sum()))
    return sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2.0 * sums[2] / (n * m)


def _cluster_sums(features: Features, ids: np.ndarray | None, columns: np.ndarray, kernel: Polynomial) -> np.ndarray:
    """(clusters, B): kernel sum between different rows of each cluster, within each selection."""
    if ids is None:
        return np.zeros((1, columns.shape[1]))
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(ids[order]) > 0])
    sums = np.zeros((len(starts), columns.shape[1]))
    for cluster, members in enumerate(np.split(order, starts[1:])):
        if len(members) > 1:
            rows = arrays.to_tensor(features)[members]
            tile = _tile(rows, rows, kernel, "float64").fill_diagonal_(0.0).cpu().numpy()
            chosen = columns[members].astype(float)
            sums[cluster] = np.einsum("ib,ij,jb->b", chosen, tile, chosen, optimize=True)
    return sums


def _weights(columns: np.ndarray, like: torch.Tensor, precision: Precision) -> torch.Tensor | None:
    """Columns as a float matrix on the features' device; None when there is one column and it takes every row."""
    import torch

    if columns.shape[1] == 1 and columns.all():
        return None
    kind = torch.float64 if precision == "float64" else torch.float32
    return torch.from_numpy(columns).to(like.device, kind)
