"""Vendi score: how many different images a set holds, as the effective number of eigenvalues of its similarity matrix.

With unit rows X (n, D) and K = X X' / n, whose eigenvalues w sum to 1:

    VS_q = exp(log(sum w^q) / (1 - q));   q = 1: exp(-sum w log w);   q = inf: 1 / max w

1 when all rows are parallel, n when all are orthogonal; never above min(n, D). Small q counts rare kinds, large q
common ones only. X'X / n has the same eigenvalues and is D x D, so the work for n > D is one product and one small
decomposition, in one pass and O(D^2) memory, and products of parts add up. q = 2 is 1 / |K|_F^2, without eigenvalues.

Not known here: images, encoders, labels.
Cost: n D^2 flops and O(D^3), or n^2 D and O(n^3) where n < D; memory O(D^2 + block D).
Ten million rows: X'X of blocks or processes add up, so one pass over them and one decomposition, exact; a random part
of the rows gives a lower score, since the score grows with n.
Source: Friedman and Dieng 2023 (arXiv:2210.02410); orders q: Pasarkar and Dieng 2024 (arXiv:2310.12952).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features
from synthchex.maths.intervals import Interval, jackknife

BLOCK = 8192
ORDERS = (1.0,)


def vendi_score(features: Features, *, order: float = 1.0, precision: str = "float32") -> float:
    """Vendi score of one set under the cosine kernel; see `vendi_scores`.

    >>> import numpy as np
    >>> round(vendi_score(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])), 4)  # eigenvalues 1/3 and 2/3
    1.8899
    """
    return vendi_scores(features, orders=[order], precision=precision)[0]


def vendi_scores(features: Features, *, orders: Sequence[float] = ORDERS, precision: str = "float32") -> list[float]:
    """Vendi scores of one set under the cosine kernel, all orders from one decomposition.

    Args:
        features: float, (N, D), N at least 1; rows are scaled to unit length.
        orders: q of each score, 0 or more, `math.inf` included. 0 counts eigenvalues above rounding: the rank.
        precision: of products and, for orders from 1, of the decomposition: `float32` (within 2e-6 of the score, 2e-5
            where rows are nearly parallel or of low rank), or `float64`. Orders below 1, which weigh small
            eigenvalues, are always decomposed in float64; of float32 products they keep some 3 digits.

    Returns:
        One score per order, 1 to min(N, D), higher is more diverse. Grows with N until the set is known well: compare
        at equal N.

    Raises:
        ValueError: not finite floats (N, D), a row of zeros, a negative or NaN order.
    """
    features = _checked(features, orders, precision)
    return _scores(similarity(features, precision=precision), orders, precision)


def vendi_intervals(
    features: Features,
    blocks: np.ndarray,
    values: Sequence[float],
    *,
    orders: Sequence[float] = ORDERS,
    precision: str = "float32",
    confidence: float = 0.95,
) -> list[Interval]:
    """Intervals of the scores, leaving out one block of rows in turn, on the scale of the logarithm.

    Args:
        features: as in `vendi_scores`.
        blocks: (N,) block number of each row, from 0; rows that depend on one another share a block.
        values: the scores, one per order.
        orders: as in `vendi_scores`.
        precision: as in `vendi_scores`.
        confidence: share of repeated samples whose interval holds the expectation at this N.

    Returns:
        One interval per order, never below 1. The score's growth with N is in the value and the interval keeps it.
        Rows are left out, never drawn twice: copies are not diverse.

    Raises:
        ValueError: as `vendi_scores`, fewer than 5 blocks, confidence not between 0 and 1.

    Cost: one more pass over the features and a decomposition per block.
    """
    features = _checked(features, orders, precision)
    rest = _without(features, blocks, precision)
    left_out = np.array([_scores(rest(block), orders, precision) for block in range(int(blocks.max()) + 1)])
    return [
        jackknife(value, column, confidence=confidence, log=True, least=1.0)
        for value, column in zip(values, left_out.T, strict=True)
    ]


def score_of(weights: np.ndarray, order: float) -> float:
    """Effective number of `weights` (non-negative, sum 1) at an order: Hill's number."""
    weights = weights[weights > 0]
    if math.isinf(order):
        return 1.0 / float(weights.max())
    if order == 1:
        return math.exp(-float(weights @ np.log(weights)))
    if order == 0:
        return float((weights > len(weights) * 2.0**-22 * weights.max()).sum())
    # Powers of weights over the largest one cannot underflow all together.
    top = float(weights.max())
    log_sum = math.log(float(((weights / top) ** order).sum())) + order * math.log(top)
    return math.exp(log_sum / (1.0 - order))


def similarity(features: Features, *, precision: str = "float32") -> np.ndarray:
    """X'X / n, or X X' / n where that is smaller, of the rows at unit length; float64.

    Raises:
        ValueError: a row of zeros.
    """
    count, width = features.shape
    if count >= width:
        return _products(features, precision) / count
    rows = _unit(features, 0, count, precision)
    return np.matmul(rows, rows.T).astype(np.float64) / count


def eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues of a similarity matrix, float64, negatives (rounding) as zeros, scaled to sum 1."""
    import torch

    values = torch.linalg.eigvalsh(torch.from_numpy(matrix)).double().clamp_min_(0.0).numpy()
    return np.asarray(values / values.sum())


def _checked(features: Features, orders: Sequence[float], precision: str) -> Features:
    for order in orders:
        if not order >= 0:
            raise ValueError(f"order must be at least 0, got {order}; 1 is the usual one, math.inf is allowed")
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision must be float32 or float64, got {precision!r}")
    return arrays.check(features, "features")


def _scores(matrix: np.ndarray, orders: Sequence[float], precision: str) -> list[float]:
    if all(order == 2 for order in orders):
        return [1.0 / float(np.square(matrix).sum()) for _ in orders]
    fine = min(orders) < 1
    weights = eigenvalues(matrix if fine else matrix.astype(precision, copy=False))
    return [score_of(weights, order) for order in orders]


def _products(features: Features, precision: str) -> np.ndarray:
    """X'X of the rows at unit length, float64."""
    count, width = features.shape
    total = np.zeros((width, width))
    # Equal blocks: a last one of a few rows would cost a whole product.
    step = -(-count // max(1, round(count / BLOCK)))
    for start in range(0, count, step):
        rows = _unit(features, start, min(count, start + step), precision)
        np.add(total, np.matmul(rows.T, rows), out=total)  # NumPy does half the work when both factors are one array
    return total


def _without(features: Features, blocks: np.ndarray, precision: str) -> Callable[[int], np.ndarray]:
    """A function of a block number: the similarity matrix of the other rows."""
    count, width = features.shape
    whole = similarity(features, precision=precision) * count

    def rest(block: int) -> np.ndarray:
        out = np.flatnonzero(blocks == block)
        if count >= width:
            return (whole - _products(features[out], precision)) / (count - len(out))
        kept = np.flatnonzero(blocks != block)
        return np.ascontiguousarray(whole[np.ix_(kept, kept)]) / len(kept)

    return rest


def _unit(features: Features, start: int, stop: int, precision: str) -> np.ndarray:
    rows = arrays.to_numpy(features[start:stop]).astype(precision, copy=False)
    squares = np.einsum("ij,ij->i", rows, rows)
    if squares.min() < 1e-30 or squares.max() > 1e30:  # zeros, or squares that leave float32
        peaks = np.abs(rows).max(axis=1)
        if not peaks.all():
            raise ValueError(
                f"features: expected rows of some length, got zeros in row {start + int(np.argmin(peaks))}; "
                "a cosine with them means nothing"
            )
        rows = rows / peaks[:, None]
        squares = np.einsum("ij,ij->i", rows, rows)
    return rows / np.sqrt(squares)[:, None]
