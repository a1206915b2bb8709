"""Count, mean and scatter of a feature set: gathered in one pass over batches of any size, merged, and taken apart.

Float64. Rows wait in a buffer until a block is full, each block is centred on itself and merged by Chan's rule, so one
pass, a thousand batches or eight processes give the same moments to about 1e-13, whatever the offset of the features.
O(D^2) memory; ten million rows are moments of shards, added up with `merge`.
Source: Chan, Golub, LeVeque 1983, Algorithms for computing the sample variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features

BLOCK = 5000
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


def _add_block(total: Moments | None, rows: np.ndarray, precision: GramPrecision) -> Moments:
    """Merge a block into the upper triangle of `total.scatter`, in place; `_mirrored` makes it whole."""
    from scipy.linalg import blas

    mean = rows.mean(axis=0, dtype=np.float64)
    scatter = _scatter(rows, mean, precision, None if total is None else total.scatter)
    if total is None:
        return Moments(len(rows), mean, scatter)
    count = total.count + len(rows)
    step = mean - total.mean
    scatter = blas.dsyr(total.count * len(rows) / count, step, a=scatter.T, lower=1, overwrite_a=1).T
    return Moments(count, total.mean + step * (len(rows) / count), scatter)


def _scatter(rows: np.ndarray, mean: np.ndarray, precision: GramPrecision, onto: np.ndarray | None) -> np.ndarray:
    """Upper triangle of the scatter of a block about its mean, added onto another one, in place."""
    from scipy.linalg import blas

    # BLAS sees the C-ordered block transposed, (D, n) in Fortran order: its lower triangle is our upper one.
    if precision == "float64":
        centred = np.subtract(rows, mean, dtype=np.float64)
        if onto is None:
            return blas.dsyrk(1.0, centred.T, lower=1).T
        return blas.dsyrk(1.0, centred.T, beta=1.0, c=onto.T, lower=1, overwrite_c=1).T
    near = mean.astype(np.float32)
    centred = np.subtract(rows, near).astype(np.float32, copy=False)
    found = blas.ssyrk(1.0, centred.T, lower=1).astype(np.float64)
    found = blas.dsyr(-float(len(rows)), mean - near, a=found, lower=1, overwrite_a=1).T
    return found if onto is None else np.add(onto, found, out=onto)


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
