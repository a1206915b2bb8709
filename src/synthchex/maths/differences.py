"""Is one synthetic set better than another, measured against the same real one? Differences, with interval and p value.

Where both sets were made from the same prompts, rows are pairs: under the null hypothesis the two films of a prompt may
be exchanged, so the test flips pairs at random (all films of a prompt, or patient, together). Otherwise the two sets
are independent samples and the standard error of the difference decides.

    means       of per-film facts (cosines, inside a real ball, …), or of facts about the real films
    kernel      KID of each set to the real one; its null distribution costs nothing beyond one pass over the kernel
    Fréchet     by leaving out groups of pairs; the bias of the two distances is alike at equal counts, so it cancels

Not known here: images, encoders, files, names of models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from synthchex.maths import arrays, frechet, intervals, kernel, tiles
from synthchex.maths.arrays import Features
from synthchex.maths.intervals import Clusters

CHUNK = 64  # permutations at a time


class Difference(NamedTuple):
    """First less second, the ends of its interval, its standard error, and the p value of no difference."""

    value: float
    low: float
    high: float
    standard_error: float
    p_value: float


def of_means(
    first: np.ndarray,
    second: np.ndarray,
    *,
    paired: bool,
    clusters: tuple[Clusters, Clusters] = (None, None),
    confidence: float = 0.95,
    permutations: int = 999,
    seed: int = 0,
) -> Difference:
    """Difference of the means of per-film values.

    Args:
        first, second: float, (N,) and (M,); row i of both is one pair when `paired`.
        paired: test by exchanging the values of pairs, whole clusters together; else by the normal distribution.
        clusters: prompt or patient of each value; of pairs, the first counts.
        confidence: of the interval.
        permutations: random exchanges.
        seed: of them, and of the bootstrap behind the interval.

    Returns:
        In units of the values.

    Raises:
        ValueError: pairs of unequal number, fewer than 2 clusters.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if not paired:
        parts = [
            intervals.of_mean(values, clusters=ids, confidence=confidence, seed=seed).standard_error
            for values, ids in zip((first, second), clusters, strict=True)
        ]
        return _normal(float(first.mean() - second.mean()), math.hypot(*parts), confidence)
    _check_pairs(first, second)
    gaps = first - second
    low, high, error = intervals.of_mean(gaps, clusters=clusters[0], confidence=confidence, seed=seed)
    p_value = _flipped(gaps / len(gaps), clusters[0], permutations, seed)
    return Difference(float(gaps.mean()), low, high, error, p_value)


def of_kernel(
    first: Features,
    second: Features,
    real: Features,
    *,
    paired: bool,
    clusters: tuple[Clusters, Clusters] = (None, None),
    real_clusters: Clusters = None,
    confidence: float = 0.95,
    permutations: int = 999,
    seed: int = 0,
) -> Difference:
    """KID of the first set less KID of the second, to the same real set.

    The sums within the real set cancel. With u = 1 on rows of the first set and -1 on the second, exchanging pairs
    changes u alone, and the difference is linear in u when both sets have one size:
    sum_i u_i (k_i / (n (n - 1)) - 2 r_i / (n m)), k_i the kernel's sum over all other synthetic rows, r_i over the real
    ones. So permutations need row sums only.

    Args:
        first, second, real: features, float, (N, D), (M, D), (R, D).
        paired, clusters, confidence, permutations, seed: as in `of_means`.
        real_clusters: patient of each real row.

    Returns:
        Squared MMD; negative when the first set is nearer to the real one. The interval is from the jackknife over
        pairs (or rows of either set) and over real patients.

    Raises:
        ValueError: pairs of unequal number, fewer than 3 rows on a side, widths differ.
    """
    if paired:
        _check_pairs(first, second)
    both, real = arrays.check_pair(np.concatenate([arrays.to_numpy(first), arrays.to_numpy(second)]), real, rows=3)
    n, m, r = len(first), len(second), len(real)
    belongs = np.zeros((n + m, 2), bool)
    belongs[:n, 0] = belongs[n:, 1] = True
    every = (
        tiles.Weights(belongs, np.zeros((n + m, 0), np.int8)),
        tiles.Weights(np.zeros((r, 2), bool), np.zeros((r, 0), np.int8)),
    )
    shape = kernel.Polynomial().for_width(both.shape[1])
    own, across, columns = _sums(both, real, shape, every)
    spans, ids = (slice(0, n), slice(n, n + m)), (clusters[0], clusters[0] if paired else clusters[1])
    sides = [
        _leave_out(both[span], own[span, side], across[span], r, ids[side], shape) for side, span in enumerate(spans)
    ]
    value = sides[0].value - sides[1].value
    if paired:
        moved = sides[0].without - sides[1].without
        variance = _jackknife(moved)
    else:
        variance = _jackknife(sides[0].without) + _jackknife(sides[1].without)
    variance += _jackknife(_without_real(columns, (n, m), real_clusters))
    found = _normal(value, math.sqrt(variance), confidence)
    if not paired:
        return found
    terms = own.sum(axis=1) / (n * (n - 1)) - 2.0 * across / (n * r)
    return found._replace(p_value=_flipped(terms[:n] - terms[n:], clusters[0], permutations, seed))


def of_frechet(
    first: Features,
    second: Features,
    real: Features,
    *,
    paired: bool,
    clusters: tuple[Clusters, Clusters] = (None, None),
    confidence: float = 0.95,
    blocks: int = intervals.BLOCKS,
    seed: int = 0,
) -> Difference:
    """Fréchet distance of the first set less that of the second, to the same real set.

    Groups of pairs (or of rows of either set) are left out in turn; the real set is held fixed. Sets of unequal size
    have unequal bias: cut the larger one first.

    Args:
        first, second, real: features, float, (N, D), (M, D), (R, D).
        paired, clusters, confidence: as in `of_means`.
        blocks: groups.
        seed: of the grouping.

    Returns:
        Negative when the first set is nearer to the real one; p value of Student's t, blocks - 1 degrees of freedom.

    Raises:
        ValueError: pairs of unequal number, fewer than 5 clusters.
    """
    from scipy.special import stdtr, stdtrit

    if paired:
        _check_pairs(first, second)
    sides, seeds = (arrays.to_numpy(first), arrays.to_numpy(second)), (seed, seed if paired else seed + 1)
    ids = (clusters[0], clusters[0]) if paired else clusters
    dealt = [
        intervals.assign_blocks(len(side), own, blocks=min(blocks, len(side)), seed=number, name="films")
        for side, own, number in zip(sides, ids, seeds, strict=True)
    ]
    groups = min(int(part.max()) + 1 for part in dealt)
    values, left = [], []
    for side, part in zip(sides, dealt, strict=True):
        values.append(frechet.frechet_distance(real, side))
        left.append(_groups_left_out(real, side, part, groups))
    gaps = left[0] - left[1]
    variance = (
        (groups - 1) / groups * np.square(gaps - gaps.mean()).sum()
        if paired
        else sum((groups - 1) / groups * np.square(part - part.mean()).sum() for part in left)
    )
    value, error = values[0] - values[1], math.sqrt(float(variance))
    reach = float(stdtrit(groups - 1, 0.5 + confidence / 2)) * error
    p_value = 1.0 if error == 0 and value == 0 else 2.0 * float(stdtr(groups - 1, -abs(value) / max(error, 1e-300)))
    return Difference(value, value - reach, value + reach, error, p_value)


class _LeftOut(NamedTuple):
    """A kernel distance less its part within the real set, and the same without each cluster in turn."""

    value: float
    without: np.ndarray


def _sums(
    both: Features, real: Features, shape: kernel.Polynomial, every: tuple[tiles.Weights, tiles.Weights]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel sums of each synthetic row over either set (itself left out) and over the real rows; of each real row over
    either set.
    """
    sums = tiles.kernel_sums(both, real, shape, every)
    return sums.within_real[:, 1:], sums.real_to_fake[:, 0], sums.fake_to_real[:, 1:]


def _leave_out(
    rows: Features, own: np.ndarray, across: np.ndarray, real: int, clusters: Clusters, shape: kernel.Polynomial
) -> _LeftOut:
    """`own` are sums of each row over the others of its set, `across` over the real ones."""
    n = len(own)
    ids = _numbers(n, clusters)
    sizes, within, to_real = np.bincount(ids), np.bincount(ids, own), np.bincount(ids, across)
    inside = np.zeros(len(sizes))  # pairs inside a cluster leave once, not twice
    if len(sizes) < n:
        inside = tiles.own_sums(rows, ids, np.ones((n, 1), bool), shape, precision="float32")[:, 0]
    left = n - sizes
    value = own.sum() / (n * (n - 1)) - 2.0 * across.sum() / (n * real)
    without = (own.sum() - 2.0 * within + inside) / (left * (left - 1.0))
    return _LeftOut(float(value), without - 2.0 * (across.sum() - to_real) / (left * real))


def _without_real(columns: np.ndarray, sizes: tuple[int, int], clusters: Clusters) -> np.ndarray:
    """The difference without each real cluster in turn, less what does not change."""
    count = len(columns)
    each = 2.0 * (columns[:, 1] / sizes[1] - columns[:, 0] / sizes[0])
    ids = _numbers(count, clusters)
    return np.asarray((each.sum() - np.bincount(ids, each)) / (count - np.bincount(ids)))


def _groups_left_out(real: Features, side: np.ndarray, dealt: np.ndarray, groups: int) -> np.ndarray:
    """The Fréchet distance without each group of synthetic rows in turn."""
    if len(side) < side.shape[1]:
        return np.array([frechet.frechet_distance(real, side[dealt != group]) for group in range(groups)])
    fixed, whole = frechet.moments(real), frechet.moments(side)
    parts = (frechet.moments(side[dealt == group]) for group in range(groups))
    return np.array([frechet.frechet_distance(fixed, frechet.without(whole, part)) for part in parts])


def _numbers(rows: int, clusters: Clusters) -> np.ndarray:
    return np.arange(rows) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]


def _jackknife(values: np.ndarray) -> float:
    count = len(values)
    return float((count - 1) / count * np.square(values - values.mean()).sum())


def _flipped(gaps: np.ndarray, clusters: Clusters, permutations: int, seed: int) -> float:
    """Two-sided p value of the sum of the gaps when the sign of each cluster's is random."""
    ids = _numbers(len(gaps), clusters)
    totals, random = np.bincount(ids, gaps), np.random.default_rng(seed)
    seen, beyond = abs(totals.sum()) * (1 - 1e-12), 0
    for start in range(0, permutations, CHUNK):
        signs = random.integers(0, 2, (min(CHUNK, permutations - start), len(totals))) * 2.0 - 1.0
        beyond += int((np.abs(signs @ totals) >= seen).sum())
    return (1 + beyond) / (1 + permutations)


def _normal(value: float, error: float, confidence: float) -> Difference:
    from scipy.special import ndtr

    low, high, _ = intervals.normal(value, error, confidence=confidence)
    p_value = 2.0 * float(ndtr(-abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(value, low, high, error, p_value)


def _check_pairs(first: Features, second: Features) -> None:
    if len(first) != len(second):
        raise ValueError(f"expected pairs, got {len(first)} and {len(second)} rows; pass paired=False")
