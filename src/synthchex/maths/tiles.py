"""Sums of a kernel matrix that is never held whole: tile by tile, each tile made once, against weight columns.

Knows kernels as objects that finish a tile of inner products, and sums; knows no metric. Features stay on their device.
Beside plain sums of its rows, one pass serves two kinds of columns:

    rows    bool (N, B): sums of each kernel row over every selection, which values and jackknife errors need
    forms   int8 (N, Q): the quadratic form w'Kw alone, which subsets, permutations and random signs need

Cost: (N + M)^2 (D + 2 B + Q) flops; O(block^2 + (N + M) B) memory over features and columns, and a copy of the features
where the kernel moves or casts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features, Precision

if TYPE_CHECKING:
    import torch

    Part = tuple[torch.Tensor, torch.Tensor | None]
    Block = tuple[torch.Tensor, torch.Tensor]

BLOCK = 1024  # tiles of the diagonal are made whole, so a large block wastes products; a small one is slow
DEVICE_BLOCK = 8192  # an accelerator wants fewer, larger tiles


class Kernel(Protocol):
    """A kernel as a function of inner products. It may be less by a constant: distances do not see one."""

    def part(self, rows: torch.Tensor, kind: torch.dtype) -> Part:
        """A block of features as it enters products, of type `kind`, and what `finish` needs to know of its rows."""

    def finish(self, products: torch.Tensor, left: torch.Tensor | None, right: torch.Tensor | None) -> None:
        """Turn inner products (n, m) into kernel values, in place."""

    def diagonal(self, rows: torch.Tensor) -> torch.Tensor:
        """Kernel of each row with itself, float64 (n,)."""


class Weights(NamedTuple):
    """Columns of one side."""

    rows: np.ndarray
    forms: np.ndarray


class Sums(NamedTuple):
    """Sums over the pass, float64, those of all rows first; pairs of a row with itself are left out."""

    within_real: np.ndarray  # (N, 1 + B)
    within_fake: np.ndarray  # (M, 1 + B)
    real_to_fake: np.ndarray  # (N, 1 + B)
    fake_to_real: np.ndarray  # (M, 1 + B)
    forms: np.ndarray  # (3, Q): within real, within fake, across


def kernel_sums(
    real: Features,
    fake: Features,
    kernel: Kernel,
    weights: tuple[Weights, Weights],
    *,
    precision: Precision = "float32",
    block: int | None = None,
) -> Sums:
    """All sums of the kernel of two checked feature sets against the columns of both.

    Args:
        real, fake: float, (N, D) and (M, D), on one device.
        kernel: see `Kernel`.
        weights: columns of the real and of the synthetic rows.
        precision: of the inner products; weights and sums are never in low precision.
        block: rows of a tile.
    """
    sides = arrays.to_tensor(real), arrays.to_tensor(fake)
    block = block or (BLOCK if sides[0].device.type == "cpu" else DEVICE_BLOCK)
    x, y = ([kernel.part(rows, _kind(precision)) for rows in side.split(block)] for side in sides)
    v, w = (_blocks(side, part[0][0], block) for side, part in zip(weights, (x, y), strict=True))
    within_real, _, form_real = _pass(x, x, v, v, kernel, precision)
    within_fake, _, form_fake = _pass(y, y, w, w, kernel, precision)
    to_fake, to_real, across = _pass(x, y, v, w, kernel, precision)
    return Sums(within_real, within_fake, to_fake, to_real, np.stack([form_real, form_fake, across]))


def own_sums(
    features: Features, ids: np.ndarray, columns: np.ndarray, kernel: Kernel, *, precision: Precision, block: int = 256
) -> np.ndarray:
    """Kernel sums between different rows of each cluster, within each selection.

    Args:
        features: float, (N, D).
        ids: (N,) cluster numbers from 0.
        columns: bool (N, B).
        kernel: see `Kernel`.
        precision: as in `kernel_sums`.
        block: rows of a tile; it holds whole clusters, so a larger cluster makes a larger tile.

    Returns:
        (clusters, B) float64.
    """
    import torch

    rows, order = arrays.to_tensor(features), np.argsort(ids, kind="stable")
    ends = np.cumsum(np.bincount(ids))
    totals, start = np.zeros((len(ends), columns.shape[1])), 0
    while start < len(order):
        fitting = ends[(ends > start) & (ends <= start + block)]
        stop = int(fitting[-1] if len(fitting) else ends[ends > start][0])
        members = order[start:stop]
        part = kernel.part(rows[torch.from_numpy(members).to(rows.device)], _kind(precision))
        own, chosen = ids[members], torch.from_numpy(columns[members]).to(rows.device).to(part[0].dtype)
        tile = _tile(part, part, kernel, precision, None).fill_diagonal_(0.0)
        same = torch.from_numpy(own).to(rows.device)
        sums = ((tile * (same[:, None] == same)) @ chosen * chosen).double().cpu().numpy()
        np.add.at(totals, own, sums)
        start = stop
    return totals


def _pass(
    x: Sequence[Part],
    y: Sequence[Part],
    v: Sequence[Block],
    w: Sequence[Block],
    kernel: Kernel,
    precision: Precision,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K w by rows of x, K' v by rows of y, and v'K w; for x is y without tiles below the diagonal, and the diagonal."""
    import torch

    same, like = x is y, x[0][0]
    rows, columns = ([_zeros(like, len(part), 1 + v[0][0].shape[1]) for part, _ in side] for side in (x, y))
    columns = rows if same else columns
    forms = _zeros(like, v[0][1].shape[1])
    buffer = like.new_empty(len(x[0][0]) * len(y[0][0]))
    for i, left in enumerate(x):
        for j in range(i if same else 0, len(y)):
            tile = _tile(left, y[j], kernel, precision, buffer)
            if same and i == j:
                tile.fill_diagonal_(0.0)
            rows[i] += _row_sums(tile, w[j][0])
            if not (same and i == j):
                columns[j] += _row_sums(tile.T, v[i][0])
            if len(forms):
                forms += (2.0 if same and i != j else 1.0) * _forms(tile, v[i][1], w[j][1])
    return torch.cat(rows).cpu().numpy(), torch.cat(columns).cpu().numpy(), forms.cpu().numpy()


def _row_sums(tile: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Plain sums of rows, then those against each column; float64 (n, 1 + B)."""
    import torch

    plain = tile.sum(dim=1, keepdim=True)
    if not weights.shape[1]:
        return plain.double()
    with arrays.products("float32"):
        return torch.cat([plain, tile @ weights], dim=1).double()


def _forms(tile: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left' K right, column by column; float64 (Q,)."""
    import torch

    with arrays.products("float32"):
        return (tile @ right.to(tile.dtype)).mul_(left).sum(dim=0, dtype=torch.float64)


def _tile(left: Part, right: Part, kernel: Kernel, precision: Precision, buffer: torch.Tensor | None) -> torch.Tensor:
    """Kernel of all pairs of two parts, in the buffer when there is one."""
    import torch

    (x, x_facts), (y, y_facts) = left, right
    size = (len(x), len(y))
    out = x.new_empty(size) if buffer is None else buffer[: size[0] * size[1]].view(size)
    if x is y and x.device.type == "cpu" and precision != "bfloat16":
        rows = x.numpy()
        np.matmul(rows, rows.T, out=out.numpy())  # NumPy sees the symmetry and does half the work
    else:
        with arrays.products(precision):
            torch.mm(x, y.T, out=out)
    kernel.finish(out, x_facts, y_facts)
    return out


def _kind(precision: Precision) -> torch.dtype:
    import torch

    return torch.float64 if precision == "float64" else torch.float32


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    import torch

    return like.new_zeros(shape, dtype=torch.float64)


def _blocks(weights: Weights, like: torch.Tensor, block: int) -> list[Block]:
    """Columns on the features' device, in blocks of rows: those for row sums as floats, forms as they are."""
    import torch

    rows, forms = (torch.from_numpy(np.ascontiguousarray(side)).to(like.device) for side in weights)
    return list(zip(rows.to(like.dtype).split(block), forms.split(block), strict=True))
