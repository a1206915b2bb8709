"""Count, mean and scatter of a feature set: gathered in one pass over batches of any size, merged, and taken apart.

Float64. Rows wait in a buffer, shifted by the mean of the first block, until a block is full; moments of disjoint sets
are joined by Chan's rule. One pass, a thousand batches or eight processes give the same moments to about 1e-13, however
far from zero the features are. O(D^2) memory; ten million rows are moments of shards, added up with `merge`. Rows on an
accelerator stay there, and so do their moments.
Source: Chan, Golub, LeVeque 1983, Algorithms for computing the sample variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features

if TYPE_CHECKING:
    import torch

BLOCK = 5000
BAND = 256  # columns per product where only a triangle is needed
TILE = 64  # rows that are shifted while they are in the cache
GramPrecision = Literal["float64", "float32"]


class Factor(NamedTuple):
    """`matrix` (D, r) whose product with its transpose is a scatter; `triangular` says it is lower triangular."""

    matrix: torch.Tensor
    triangular: bool

    def through(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows times the matrix, (n, r)."""
        if not self.triangular:
            return rows @ self.matrix
        found = rows.new_empty(rows.shape)
        for start in range(0, len(self.matrix), BAND):
            found[:, start : start + BAND] = rows[:, start:] @ self.matrix[start:, start : start + BAND]
        return found


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of a feature set: everything the Fréchet distance needs of it.

    `mean` is (D,) float64; `scatter` (D, D) float64 is the sum of outer products of the centred rows. NumPy arrays, or
    tensors where the rows were on an accelerator.
    """

    count: int
    mean: Features
    scatter: Features

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.mean)

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(self.scatter.trace()) / (self.count - 1)

    def covariance(self) -> Features:
        """Unbiased covariance, (D, D)."""
        return self.scatter / (self.count - 1)

    @cached_property
    def factor(self) -> Factor:
        """Factor of the scatter, computed once and kept: many sets are measured against one for half the price."""
        return _factor(self.tensor)

    @property
    def tensor(self) -> torch.Tensor:
        """The scatter as a tensor, sharing memory."""
        return arrays.to_tensor(self.scatter).double()


class MomentStream:
    """Gathers moments from batches of any size. Rows wait in a buffer so that each update is one large product.

    Args:
        block: rows per covariance update; more costs memory, far fewer costs time.
        precision: of the rows and their products inside a block. `float32` is a fast mode: it loses about 1e-7 of the
            distance, and 1e-6 where a direction is constant (LayerNorm leaves one), as square roots amplify rounding.
    """

    def __init__(self, *, block: int = BLOCK, precision: GramPrecision = "float64") -> None:
        if block < 2:
            raise ValueError(f"block must be at least 2 rows, got {block}; leave it at {BLOCK}")
        self._block, self._precision = block, precision
        self._count, self._waiting = 0, 0
        self._buffer: torch.Tensor | None = None
        self._shift: torch.Tensor | None = None  # what has been taken off the rows in the buffer, and in the sums
        self._sums: torch.Tensor
        self._upper: torch.Tensor

    def add(self, features: Features) -> None:
        """Take in (n, D) rows.

        Raises:
            ValueError: not a finite float (n, D), or another width than before.
        """
        rows = arrays.check(features, "features", rows=0 if len(features) == 0 else 1)
        if self._buffer is not None and rows.shape[1] != self._buffer.shape[1]:
            raise ValueError(
                f"expected features of width {self._buffer.shape[1]}, got {rows.shape[1]}; use one encoder for the set"
            )
        self._take(rows)

    def moments(self) -> Moments:
        """Moments of all rows so far; more may be added afterwards.

        Raises:
            ValueError: nothing was added.
        """
        return self._moments(keep=True)

    def _moments(self, *, keep: bool) -> Moments:
        self._flush()
        if self._shift is None:
            raise ValueError("expected at least 1 row, got 0; add features before asking for their moments")
        step = self._sums / self._count
        upper = self._upper.clone() if keep else self._upper
        scatter = _mirror(upper.addr_(step, step, alpha=-self._count))
        return Moments(self._count, _native(self._shift + step), _native(scatter))

    def _take(self, rows: Features) -> None:
        start = 0
        while start < len(rows):
            taken = arrays.to_tensor(rows[start : start + self._block - self._waiting])
            if self._buffer is None:
                self._buffer = taken.new_empty((self._block, taken.shape[1]), dtype=_dtype(self._precision))
            stop = self._waiting + len(taken)
            self._fill(self._buffer[self._waiting : stop], taken)
            self._waiting, start = stop, start + len(taken)
            if self._waiting == self._block:
                self._flush()

    def _fill(self, place: torch.Tensor, rows: torch.Tensor) -> None:
        tile = TILE if in_host_memory(place) else len(place)
        for start in range(0, len(place), tile):
            part = place[start : start + tile]
            part[:] = rows[start : start + tile]
            if self._shift is not None:
                part -= self._shift
                self._sums += part.sum(0)

    def _flush(self) -> None:
        if self._buffer is None or not self._waiting:
            return
        rows = self._buffer[: self._waiting]
        if self._shift is None:
            self._shift = rows.mean(0)
            rows -= self._shift
            self._sums = rows.sum(0).double()
            self._upper = self._sums.new_zeros((rows.shape[1], rows.shape[1]))
        add_products(rows, self._upper)
        self._count, self._waiting = self._count + self._waiting, 0


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
    return of_checked(arrays.check(features, "features"), block=block, precision=precision)


def of_checked(rows: Features, *, block: int = BLOCK, precision: GramPrecision = "float64") -> Moments:
    """`moments` of rows that `arrays.check` has seen already."""
    # Equal blocks: a last block of a few rows would cost a full update.
    blocks = max(1, round(len(rows) / block))
    stream = MomentStream(block=max(2, -(-len(rows) // blocks)), precision=precision)
    stream._take(rows)
    return stream._moments(keep=False)


def merge(parts: Sequence[Moments]) -> Moments:
    """Moments of the union of disjoint sets (Chan's rule), in the order given.

    Raises:
        ValueError: no part, or widths differ.
    """
    if not parts or len({part.width for part in parts}) != 1:
        raise ValueError(f"expected moments of one width, got widths {[part.width for part in parts]}")
    count, mean, scatter = parts[0].count, *(value.clone() for value in _tensors(parts[0]))
    for part in parts[1:]:
        other_mean, other_scatter = _tensors(part)
        step, share = other_mean - mean, part.count / (count + part.count)
        scatter += other_scatter
        scatter.addr_(step, step, alpha=count * share)
        mean += step * share
        count += part.count
    return Moments(count, _native(mean), _native(scatter))


def without(whole: Moments, part: Moments) -> Moments:
    """Moments of `whole` less a subset of it, the inverse of `merge`.

    Raises:
        ValueError: nothing would be left.
    """
    count = whole.count - part.count
    if count < 1:
        raise ValueError(f"expected a part of fewer than {whole.count} rows, got {part.count}")
    (mean, scatter), (part_mean, part_scatter) = _tensors(whole), _tensors(part)
    step = (mean - part_mean) * (whole.count / count)
    rest = (scatter - part_scatter).addr_(step, step, alpha=-count * part.count / whole.count)
    return Moments(count, _native(part_mean + step), _native(rest))


def add_products(rows: torch.Tensor, upper: torch.Tensor) -> None:
    """Add rows' rows, (D, D), to the upper triangle of a float64 matrix in place; the rest of it is undefined."""
    if rows.dtype == upper.dtype and in_host_memory(rows):
        from scipy.linalg import blas

        # BLAS sees C-ordered memory transposed: its lower triangle is our upper one.
        blas.dsyrk(1.0, rows.numpy().T, beta=1.0, c=upper.numpy().T, lower=1, overwrite_c=1)
        return
    with arrays.products("float32"):
        for start in range(0, rows.shape[1], BAND):
            upper[start : start + BAND, start:] += rows[:, start : start + BAND].T @ rows[:, start:]


def in_host_memory(values: torch.Tensor) -> bool:
    """Whether LAPACK can work on this memory."""
    return values.device.type == "cpu"


def _factor(scatter: torch.Tensor) -> Factor:
    """Lower Cholesky factor, or a rank-revealing one when the scatter is singular, be it only up to rounding."""
    import torch

    least = len(scatter) * torch.finfo(scatter.dtype).eps * float(scatter.diagonal().max())
    lower, failed = torch.linalg.cholesky_ex(scatter)
    if not int(failed) and float(lower.diagonal().min()) ** 2 > least:
        return Factor(lower, True)
    if in_host_memory(scatter):
        from scipy.linalg import lapack

        packed, pivots, rank, _ = lapack.dpstrf(scatter.numpy().T, lower=1)
        factor = np.zeros((len(scatter), rank))
        factor[pivots - 1] = np.tril(packed)[:, :rank]
        return Factor(torch.from_numpy(factor), False)
    values, vectors = torch.linalg.eigh(scatter)
    kept = values > least
    return Factor(vectors[:, kept] * values[kept].sqrt(), False)


def _mirror(upper: torch.Tensor) -> torch.Tensor:
    """The upper triangle copied onto the lower one; by bands, as a transposed pass over all would miss the cache."""
    for start in range(0, len(upper), BAND):
        tile = upper[start : start + BAND, start : start + BAND]
        tile.copy_(tile.triu() + tile.triu(1).T)
        upper[start + BAND :, start : start + BAND] = upper[start : start + BAND, start + BAND :].T
    return upper


def _tensors(known: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    return arrays.to_tensor(known.mean).double(), known.tensor


def _native(values: torch.Tensor) -> Features:
    return values.numpy() if in_host_memory(values) else values


def _dtype(precision: GramPrecision) -> torch.dtype:
    import torch

    return torch.float32 if precision == "float32" else torch.float64
