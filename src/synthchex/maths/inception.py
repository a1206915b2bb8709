"""Inception score: how sure a classifier is of each image, and how many classes it finds in all of them.

    IS = exp(mean_x KL(p(y|x) || p(y)))

over each of `splits` parts of the shuffled set, then mean and standard deviation over the parts, as published. From
logits, in float64. 1 when all images look alike to the classifier; at most the number of classes. Small parts inflate
it: the logarithm is too high by about (classes in use - 1) / 2n for parts of n rows.

Not known here: networks, images.
Cost: O(N C) time, O(block C) memory.
Ten million rows: a part is two sums (of p log p, and of p per class), which add up over blocks and processes, so logits
need not be kept: 10 splits are 10 pairs of sums, whatever the count.
Source: Salimans et al. 2016 (arXiv:1606.03498); Barratt and Sharma 2018 (arXiv:1801.01973) for its limits.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features
from synthchex.maths.intervals import Interval, jackknife

BLOCK = 4096
CLASSES = 1008
POOLED = 2048


def inception_scores(logits: Features, *, splits: int = 10, shuffle: bool = True, seed: int = 2020) -> np.ndarray:
    """Inception score of each part of a set.

    Args:
        logits: class scores before softmax, float, (N, C), N at least `splits`.
        splits: parts of equal size, to within one row.
        shuffle: put rows in random order first, with torch-fidelity's generator.
        seed: of the order; 2020 is torch-fidelity's.

    Returns:
        (splits,) float64, each 1 to C, higher is better. Report `mean()` and `std()`.

    Raises:
        ValueError: pooled features or probabilities instead of logits, fewer rows than splits, not finite floats.

    Source: Salimans et al. 2016; checked against torch-fidelity metric_isc.py.

    >>> import numpy as np
    >>> inception_scores(np.array([[50.0, 0.0], [0.0, 50.0]]), splits=1).round(6).tolist()
    [2.0]
    """
    logits = check_logits(logits)
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"splits must be at least 1 and at most the {count} rows, got {splits}; 10 is usual")
    order = np.random.RandomState(seed).permutation(count) if shuffle else np.arange(count)
    ends = [part * count // splits for part in range(splits + 1)]
    return np.array([_score(*_sums(logits, order[a:b])) for a, b in itertools.pairwise(ends)])


def inception_interval(logits: Features, blocks: np.ndarray, *, value: float, confidence: float = 0.95) -> Interval:
    """Interval of the score, leaving out one block of rows in turn, on the scale of its logarithm.

    Args:
        logits: as in `inception_scores`.
        blocks: (N,) block number of each row, from 0; rows that depend on one another share a block.
        value: centre, for example the mean over splits.
        confidence: share of repeated samples whose interval holds the expectation at this count.

    Returns:
        Ends (Student's t on the logarithm, so never below 1) and the standard error.

    Raises:
        ValueError: as `inception_scores`, fewer than 5 blocks, confidence not between 0 and 1.

    Source: Efron and Stein 1981 (jackknife); Shao and Wu 1989 (groups).
    """
    logits = check_logits(logits)
    parts = [_sums(logits, np.flatnonzero(blocks == block)) for block in range(int(blocks.max()) + 1)]
    count, inner = len(logits), math.fsum(part[1] for part in parts)
    marginal = np.sum([part[2] for part in parts], axis=0)
    left_out = np.array([_score(count - n, inner - e, marginal - p) for n, e, p in parts])
    return jackknife(value, left_out, confidence=confidence, log=True, least=1.0)


def check_logits(logits: Features) -> Features:
    """The same logits, or an error that says what they seem to be.

    Raises:
        ValueError: 2048 columns (pooled features), rows that are probabilities, not finite floats (N, C), C below 2.
    """
    logits = arrays.check(logits, "logits")
    width = logits.shape[1]
    if width == POOLED:
        raise ValueError(
            f"expected logits of shape (N, {CLASSES}), got (N, {width}): these are Inception's pooled features, as FID "
            "uses them; take the output 'logits_unbiased' instead"
        )
    if width < 2:
        raise ValueError(f"expected logits of at least 2 classes, got {width}")
    head = arrays.to_numpy(logits[:64]).astype(np.float64)
    if head.min() >= 0 and np.allclose(head.sum(axis=1), 1.0, atol=1e-3):
        raise ValueError("expected logits, got rows that sum to 1, which are probabilities; pass their logarithm")
    return logits


def _sums(logits: Features, rows: np.ndarray) -> tuple[int, float, np.ndarray]:
    """Count, sum of p log p over rows and classes, and sum of p over rows."""
    inner, marginal = 0.0, np.zeros(logits.shape[1])
    for start in range(0, len(rows), BLOCK):
        values = arrays.to_numpy(logits[rows[start : start + BLOCK]]).astype(np.float64)
        values -= values.max(axis=1, keepdims=True)
        powers = np.exp(values)
        norms = powers.sum(axis=1, keepdims=True)
        powers /= norms
        # sum p log p = sum p v - log(norm) with v the shifted logits: no logarithm of a zero.
        inner += float(np.einsum("ij,ij->", powers, values) - np.log(norms).sum())
        marginal += powers.sum(axis=0)
    return len(rows), inner, marginal


def _score(count: int, inner: float, marginal: np.ndarray) -> float:
    """exp of the mean divergence from the marginal; rounding below 1 is 1."""
    mean = marginal / count
    used = mean[mean > 0]
    return math.exp(max(0.0, inner / count - float(used @ np.log(used))))
