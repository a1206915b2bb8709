"""Fréchet distance between two feature sets as if each were Gaussian (FID when the features are Inception's).

    FD = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

Float64 throughout. Moments are gathered in blocks, each centred on itself, and merged by Chan's rule, so one pass, a
thousand batches or eight processes give the same moments. The trace needs no matrix square root: with S1 = L L', the
eigenvalues of S1 S2 are those of the symmetric L' S2 L. Sets smaller than the width never form a D x D matrix at all:
the trace is the nuclear norm of the product of the two centred sets.

Not known here: images, encoders, files. Not offered: intervals by bootstrap (see `intervals`).
Cost: 2 N D^2 flops per set with symmetry halving them, O(D^3) for the trace, O(D^2) memory whatever N is. Ten million
rows are moments of shards, added up with `merge`.
Source: Heusel et al. 2017 (arXiv:1706.08500); Chan, Golub, LeVeque 1983; Chong and Forsyth 2020 (arXiv:1911.07023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features

BLOCK = 5000
SMALL = 0.8  # below this many rows per column the nuclear norm is cheaper than two covariances (measured)
ROWS_PER_COLUMN = 2.5  # below it FD is mostly sample-size bias and its extrapolation is not to be trusted
GramPrecision = Literal["float64", "float32"]


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of a feature set: everything the Fréchet distance needs of it.

    `mean` is (D,) float64; `scatter` (D, D) float64 is the sum of outer products of the centred rows.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.mean)

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.trace(self.scatter)) / (self.count - 1)

    def covariance(self) -> np.ndarray:
        """Unbiased covariance, (D, D)."""
        return self.scatter / (self.count - 1)


@dataclass(frozen=True)
class Reference:
    """Moments with a factor of their covariance, so that many sets are measured against one for half the price.

    `factor` is (D, r) with `factor @ factor.T` the covariance; `triangular` says it is a lower Cholesky factor.
    """

    moments: Moments
    factor: np.ndarray
    triangular: bool


class MomentStream:
    """Gathers moments from batches of any size. Rows wait in a buffer so that each update is one large product.

    Args:
        block: rows per covariance update; more costs memory, far fewer costs time.
        precision: of the products inside a block. `float32` is a fast mode: it loses about 3e-8 of the distance, and
            1e-6 where a direction is constant (LayerNorm leaves one), as the square root amplifies rounding.
    """

    def __init__(self, *, block: int = BLOCK, precision: GramPrecision = "float64") -> None:
        if block < 2:
            raise ValueError(f"block must be at least 2 rows, got {block}; leave it at {BLOCK}")
        self._block, self._precision = block, precision
        self._waiting: list[np.ndarray] = []
        self._waiting_rows = 0
        self._total: Moments | None = None

    def add(self, features: Features) -> None:
        """Take in (n, D) rows.

        Raises:
            ValueError: not a finite float (n, D), or another width than before.
        """
        rows = arrays.to_numpy(arrays.check(features, "features", rows=0 if len(features) == 0 else 1))
        width = self._total.width if self._total else (self._waiting[0].shape[1] if self._waiting else rows.shape[1])
        if rows.shape[1] != width:
            raise ValueError(f"expected features of width {width}, got {rows.shape[1]}; use one encoder for the set")
        while len(rows):
            taken = rows[: self._block - self._waiting_rows]
            # A caller may reuse its batch array: keep a copy unless the block is consumed at once.
            self._waiting.append(taken if len(taken) == self._block else taken.copy())
            self._waiting_rows += len(taken)
            rows = rows[len(taken) :]
            if self._waiting_rows == self._block:
                self._flush()

    def moments(self) -> Moments:
        """Moments of all rows so far; more may be added afterwards.

        Raises:
            ValueError: nothing was added.
        """
        self._flush()
        if self._total is None:
            raise ValueError("expected at least 1 row, got 0; add features before asking for their moments")
        return Moments(self._total.count, self._total.mean.copy(), _mirrored(self._total.scatter))

    def _flush(self) -> None:
        if not self._waiting_rows:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        self._total = _add_block(self._total, rows, self._precision)


def moments(features: Features, *, block: int = BLOCK, precision: GramPrecision = "float64") -> Moments:
    """Moments of a feature set in one pass and O(D^2) memory.

    Args:
        features: float, (N, D), N at least 1.
        block: rows per update.
        precision: see `MomentStream`.

    Returns:
        Count, mean and scatter, float64.

    Raises:
        ValueError: not a finite float (N, D).
    """
    # Equal blocks: a last block of a few rows would cost a full update.
    blocks = max(1, round(len(features) / block))
    stream = MomentStream(block=max(2, -(-len(features) // blocks)), precision=precision)
    stream.add(arrays.check(features, "features"))
    return stream.moments()


def merge(parts: Sequence[Moments]) -> Moments:
    """Moments of the union of disjoint sets (Chan's rule), in the order given.

    Raises:
        ValueError: no part, or widths differ.
    """
    if not parts or len({part.width for part in parts}) != 1:
        raise ValueError(f"expected moments of one width, got widths {[part.width for part in parts]}")
    return reduce(_merge_two, parts)


def without(whole: Moments, part: Moments) -> Moments:
    """Moments of `whole` less a subset of it, the inverse of `merge`.

    Raises:
        ValueError: nothing would be left.
    """
    count = whole.count - part.count
    if count < 1:
        raise ValueError(f"expected a part of fewer than {whole.count} rows, got {part.count}")
    mean = whole.mean + (whole.mean - part.mean) * (part.count / count)
    step = part.mean - mean
    scatter = whole.scatter - part.scatter
    scatter -= np.outer(step, step) * (count * part.count / whole.count)
    return Moments(count, mean, scatter)


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

    Source: Heusel et al. 2017; checked against scipy.linalg.sqrtm and analytic cases.

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


def _add_block(total: Moments | None, rows: np.ndarray, precision: GramPrecision) -> Moments:
    """Merge a block into the upper triangle of `total.scatter`, in place; `_mirrored` makes it whole."""
    from scipy.linalg import blas

    mean = rows.mean(axis=0, dtype=np.float64)
    centred = np.subtract(rows, mean, dtype=np.float64).astype(precision, copy=False)
    rank_k = blas.dsyrk if precision == "float64" else blas.ssyrk
    if total is None:
        # BLAS sees the C-ordered block transposed, (D, n) in Fortran order: its lower triangle is our upper one.
        return Moments(len(rows), mean, rank_k(1.0, centred.T, lower=1).T.astype(np.float64, copy=False))
    count = total.count + len(rows)
    if precision == "float64":
        scatter = blas.dsyrk(1.0, centred.T, beta=1.0, c=total.scatter.T, lower=1, overwrite_c=1).T
    else:
        scatter = total.scatter
        scatter += rank_k(1.0, centred.T, lower=1).T
    step = mean - total.mean
    scatter = blas.dsyr(total.count * len(rows) / count, step, a=scatter.T, lower=1, overwrite_a=1).T
    return Moments(count, total.mean + step * (len(rows) / count), scatter)


def _mirrored(upper: np.ndarray) -> np.ndarray:
    """Symmetric matrix from its upper triangle."""
    whole = np.triu(upper)
    whole += np.triu(whole, 1).T
    return whole


def _merge_two(left: Moments, right: Moments) -> Moments:
    count = left.count + right.count
    step = right.mean - left.mean
    scatter = left.scatter + right.scatter
    scatter += np.outer(step, step) * (left.count * right.count / count)
    return Moments(count, left.mean + step * (right.count / count), scatter)
