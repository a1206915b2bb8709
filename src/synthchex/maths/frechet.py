"""Fréchet distance between two feature sets as if each were Gaussian (FID when the features are Inception's).

    FD = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

Float64 throughout. The trace needs no matrix square root: with S1 = L L', the eigenvalues of S1 S2 are those of the
symmetric L' S2 L. Sets smaller than the width never form a D x D matrix: there the trace is the nuclear norm of the
product of the two centred sets.

Not known here: images, encoders, files. Not offered: intervals by bootstrap (see `intervals`).
Cost: N D^2 flops per set, O(D^3) for the trace, O(D^2) memory whatever N is.
Source: Heusel et al. 2017 (arXiv:1706.08500); Chong and Forsyth 2020 (arXiv:1911.07023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features
from synthchex.maths.moments import GramPrecision, Moments, MomentStream, merge, moments, without

__all__ = [
    "ROWS_PER_COLUMN",
    "SMALL",
    "Extrapolation",
    "MomentStream",
    "Moments",
    "Reference",
    "fid_infinity",
    "frechet_distance",
    "merge",
    "moments",
    "reference",
    "without",
]

SMALL = 0.8  # below this many rows per column the nuclear norm is cheaper than two covariances (measured)
ROWS_PER_COLUMN = 2.5  # below it the bias is not linear in 1/N and extrapolation overshoots (measured)


class Extrapolation(NamedTuple):
    """Fréchet distance at infinitely many samples, and the points of the fit."""

    value: float
    slope: float
    sizes: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Reference:
    """Moments with a factor of their covariance, so that many sets are measured against one for half the price.

    `factor` is (D, r) with `factor @ factor.T` the covariance; `triangular` says it is a lower Cholesky factor.
    """

    moments: Moments
    factor: np.ndarray
    triangular: bool


def reference(real: Features | Moments) -> Reference:
    """Factor a real set once, to measure many sets against it.

    Raises:
        ValueError: fewer than 2 rows, or not a finite float (N, D).
    """
    known = real if isinstance(real, Moments) else moments(real)
    if known.count < 2:
        raise ValueError(f"real: expected at least 2 rows, got {known.count}; a covariance needs two")
    return Reference(known, *_factor(known.covariance()))


def frechet_distance(
    real: Features | Moments | Reference,
    fake: Features | Moments,
    *,
    precision: GramPrecision = "float64",
) -> float:
    """Fréchet distance between two sets of features, as if each were Gaussian.

    Args:
        real: features of real images, float, (N, D); or their moments; or a factored `reference`.
        fake: features of synthetic images, float, (M, D); or their moments.
        precision: of the covariance products; `float32` is a fast mode (see `MomentStream`), never the default.

    Returns:
        Squared distance in units of the features squared; 0 or more, lower is better. Biased upwards by about c / N:
        compare only at equal N and M, or use `fid_infinity`.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats.

    Source: Heusel et al. 2017.

    >>> import numpy as np
    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    if not isinstance(real, Moments | Reference) and not isinstance(fake, Moments):
        real, fake = arrays.check_pair(real, fake, rows=2)
        if max(len(real), len(fake)) < SMALL * real.shape[1]:
            return _small_distance(arrays.to_numpy(real), arrays.to_numpy(fake))
    first = _known(real, "real", precision)
    second = _known(fake, "fake", precision)
    return _distance(first if isinstance(first, Reference) else reference(first), _plain(second))


def fid_infinity(
    real: Features | Moments | Reference, fake: Features, *, points: int = 15, seed: int = 0
) -> Extrapolation:
    """Fréchet distance extrapolated to infinitely many samples: a straight line in 1/M through nested random prefixes.

    Prefixes run from M/2 to M. Where `real` are features it is cut in proportion, which removes the bias of both
    sides; where it is moments, only that of the synthetic side.

    Args:
        real: features of real images, float, (N, D), N at least 2.5 D; or moments, or a `reference`.
        fake: features of synthetic images, float, (M, D), M at least 2.5 D.
        points: prefixes, at least 3.
        seed: of the order of rows.

    Returns:
        Intercept and slope of the fit with its points. The intercept may be slightly negative for equal distributions.

    Raises:
        ValueError: a side has fewer than 2.5 D rows (below that the line overshoots), or as `frechet_distance`.

    Source: Chong and Forsyth 2020, with the grid [M/2, M] instead of [M/10, M], whose small end is not linear.
    """
    if points < 3:
        raise ValueError(f"points must be at least 3, got {points}; 15 is usual")
    fake = arrays.check(fake, "fake", rows=2)
    least = math.ceil(ROWS_PER_COLUMN * fake.shape[1])
    if isinstance(real, Moments | Reference):
        counts = {"real": _plain(real).count, "fake": len(fake)}
    else:
        real, fake = arrays.check_pair(real, fake, rows=2)
        counts = {"real": len(real), "fake": len(fake)}
    for name, count in counts.items():
        if count < least:
            raise ValueError(
                f"{name}: expected at least {ROWS_PER_COLUMN} rows per feature ({least} for width {fake.shape[1]}) to "
                f"extrapolate, got {count}; pass more images, or compare at equal counts"
            )
    sizes = np.unique(np.linspace(len(fake) / 2, len(fake), points).round().astype(int))
    random = np.random.default_rng(seed)
    fakes = _prefixes(arrays.to_numpy(fake), sizes, random)
    if isinstance(real, Moments | Reference):
        whole = real if isinstance(real, Reference) else reference(real)
        found = [_distance(whole, part) for part in fakes]
    else:
        real_sizes = np.maximum(2, (sizes * (len(real) / len(fake))).round().astype(int))
        reals = _prefixes(arrays.to_numpy(real), real_sizes, random)
        found = [_distance(reference(left), right) for left, right in zip(reals, fakes, strict=True)]
    slope, value = np.polyfit(1.0 / sizes, found, 1)
    return Extrapolation(float(value), float(slope), sizes, np.array(found))


def _prefixes(rows: np.ndarray, sizes: np.ndarray, random: np.random.Generator) -> Iterator[Moments]:
    """Moments of growing prefixes of a random order of rows; each adds only its new rows."""
    order, total, start = random.permutation(len(rows)), None, 0
    for stop in sizes:
        if stop > start:
            part = moments(rows[order[start:stop]])
            total, start = part if total is None else merge([total, part]), int(stop)
        assert total is not None
        yield total


def _known(side: Features | Moments | Reference, name: str, precision: GramPrecision) -> Moments | Reference:
    if isinstance(side, Moments | Reference):
        return side
    return moments(arrays.check(side, name, rows=2), precision=precision)


def _plain(side: Moments | Reference) -> Moments:
    return side.moments if isinstance(side, Reference) else side


def _distance(real: Reference, fake: Moments) -> float:
    base = real.moments
    if base.width != fake.width:
        raise ValueError(
            f"expected features of one width, got {base.width} for real and {fake.width} for fake; "
            "encode both sides with the same encoder"
        )
    if fake.count < 2:
        raise ValueError(f"fake: expected at least 2 rows, got {fake.count}; a covariance needs two")
    step = base.mean - fake.mean
    rank = min(base.count - 1, fake.count - 1, base.width)
    root = _trace_root(real, fake.covariance(), rank)
    return max(0.0, float(step @ step) + base.trace + fake.trace - 2.0 * root)


def _trace_root(real: Reference, covariance: np.ndarray, rank: int) -> float:
    """tr((S1 S2)^(1/2)) as the sum of square roots of the eigenvalues of L' S2 L."""
    import torch
    from scipy.linalg import blas

    if real.triangular:
        half = blas.dtrmm(1.0, real.factor, covariance.T, side=0, lower=1, trans_a=1)
        inner = blas.dtrmm(1.0, real.factor, half, side=1, lower=1, overwrite_b=1)
    else:
        inner = real.factor.T @ (covariance @ real.factor)
    values = torch.linalg.eigvalsh(torch.from_numpy(np.ascontiguousarray(inner.T)))
    # Beyond the rank of the smaller set eigenvalues are rounding noise, and a square root makes noise large.
    return float(values[-rank:].clamp_min_(0.0).sqrt_().sum()) if rank else 0.0


def _factor(covariance: np.ndarray) -> tuple[np.ndarray, bool]:
    """L with L L' = covariance: lower Cholesky, or rank-revealing pivoted Cholesky when it is singular."""
    from scipy.linalg import lapack

    lower, failed = lapack.dpotrf(covariance.T, lower=1, clean=1)
    if not failed:
        return lower, True
    packed, pivots, rank, _ = lapack.dpstrf(covariance.T, lower=1)
    factor = np.zeros((len(covariance), rank))
    factor[pivots - 1] = np.tril(packed)[:, :rank]
    return factor, False


def _small_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Both sets smaller than the width: tr((S1 S2)^(1/2)) = nuclear norm of A B', no D x D matrix, no rank noise."""
    import torch

    (left, left_mean), (right, right_mean) = _scaled(real), _scaled(fake)
    step = left_mean - right_mean
    root = float(torch.linalg.svdvals(torch.from_numpy(left @ right.T)).sum())
    spread = float(np.einsum("ij,ij->", left, left) + np.einsum("ij,ij->", right, right))
    return max(0.0, float(step @ step) + spread - 2.0 * root)


def _scaled(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred rows over sqrt(n - 1), and their mean, float64."""
    mean = features.mean(axis=0, dtype=np.float64)
    return (features - mean) / math.sqrt(len(features) - 1), mean
