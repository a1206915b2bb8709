"""What a kernel distance would be if both sets had one distribution: p-values from weight columns of one pass.

Independent rows: rows are exchanged between the sides (a permutation test). Exact: a p-value below a is as rare as a.

Clusters (films of a patient, images of a prompt): exchanging whole clusters is wrong as soon as they are larger on one
side than on the other, which is the rule (simulated error rates of a 5 % test ran from 0.5 to 7.5 %). There each
cluster gets a random sign instead, and the sums of signed, centred kernel values stand for the null (the wild
bootstrap). Its error rate is right for many clusters, and was 4 to 7 % from 10 clusters a side on.

Knows sums of kernel values; knows no kernel, no features.
Source: Gretton et al. 2012, section 5; Chwialkowski, Sejdinovic and Gretton 2014 (arXiv:1408.5404) for signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synthchex.maths.tiles import Sums

FEWEST_CLUSTERS = 5
ROUNDING = 1e-7  # of the kernel's means: values so near are ties, and ties count against a difference


class Drawn(NamedTuple):
    """Random weights of both sides, int8 (N, P) and (M, P): 1 for "now real" and 0, or signs."""

    real: np.ndarray
    fake: np.ndarray
    signs: bool


def draw(sizes: tuple[int, int], ids: Sequence[np.ndarray | None], count: int, seed: int) -> Drawn:
    """Draw the weights.

    Args:
        sizes: rows of the real and the synthetic side.
        ids: cluster numbers of the rows of both sides; None where rows are independent.
        count: columns.
        seed: of the generator.

    Raises:
        ValueError: fewer than 5 clusters on a side, where ids are given; count below 1.
    """
    if count < 1:
        raise ValueError(f"permutations must be at least 1, got {count}; 1000 is usual")
    random = np.random.default_rng(seed)
    if all(own is None for own in ids):
        exchanged = np.zeros((count, sum(sizes)), np.int8)
        for row in exchanged:
            row[random.permutation(sum(sizes))[: sizes[0]]] = 1
        weights = np.ascontiguousarray(exchanged.T)
        return Drawn(weights[: sizes[0]], weights[sizes[0] :], signs=False)
    sides = []
    for own, size, name in zip(ids, sizes, ("real", "fake"), strict=True):
        numbers = np.arange(size) if own is None else own
        clusters = int(numbers.max()) + 1
        if clusters < FEWEST_CLUSTERS:
            raise ValueError(
                f"{name}_clusters: expected at least {FEWEST_CLUSTERS} clusters for a p-value, got {clusters}; "
                "leave out permutations, or gather more patients"
            )
        sides.append((2 * random.integers(0, 2, (clusters, count), np.int8) - 1)[numbers])
    return Drawn(sides[0], sides[1], signs=True)


def p_value(sums: Sums, first: int, drawn: Drawn, diagonals: Sequence[np.ndarray]) -> float:
    """Share of values under the null, the observed one counted, that are at least the observed one.

    Args:
        sums: of a pass whose forms from column `first` on are `drawn`.
        first: see `sums`.
        drawn: the weights.
        diagonals: kernel of each row with itself, (N,) and (M,).

    Returns:
        1 / (count + 1) to 1.
    """
    rows = [part[:, 0] for part in sums[:4]]
    n, m = len(rows[0]), len(rows[1])
    means = rows[0].sum() / (n * (n - 1)), rows[1].sum() / (m * (m - 1)), rows[2].sum() / (n * m)
    observed = means[0] + means[1] - 2.0 * means[2]
    forms = sums.forms[:, first:]
    values = _signed(forms, rows, drawn, diagonals) if drawn.signs else _exchanged(forms, rows, drawn)
    ties = ROUNDING * (abs(means[0]) + abs(means[1]) + 2.0 * abs(means[2]))
    return float(1 + (values >= observed - ties).sum()) / (1 + len(values))


def _exchanged(forms: np.ndarray, rows: Sequence[np.ndarray], drawn: Drawn) -> np.ndarray:
    """Unbiased distances of the sides as exchanged; K without its diagonal."""
    n, m = len(rows[0]), len(rows[1])
    every = rows[0] + rows[2], rows[1] + rows[3]
    total = every[0].sum() + every[1].sum()
    real = forms[0] + forms[1] + 2.0 * forms[2]  # a'Ka for a that marks the new real rows
    both = _against(every[0], drawn.real) + _against(every[1], drawn.fake)  # a'K1
    fake = total - 2.0 * both + real
    return real / (n * (n - 1)) + fake / (m * (m - 1)) - 2.0 * (both - real) / (n * m)


def _signed(forms: np.ndarray, rows: Sequence[np.ndarray], drawn: Drawn, diagonals: Sequence[np.ndarray]) -> np.ndarray:
    """Unbiased distances of signed rows under the kernel centred within each side."""
    values, means = np.zeros(forms.shape[1]), []
    for form, own, signs, diagonal in zip(forms, rows, drawn[:2], diagonals, strict=False):
        count, full = len(own), own + diagonal
        mean = signs.mean(axis=0)
        # (s - mean)'K(s - mean) less the diagonal of the centred kernel, K with its diagonal
        inner = form + full.sum() / count - 2.0 * mean * _against(full, signs) + mean**2 * full.sum()
        values += inner / (count * (count - 1))
        means.append(mean)
    left, right = means
    across = forms[2] - right * _against(rows[2], drawn.real) - left * _against(rows[3], drawn.fake)
    across += left * right * rows[2].sum()
    return values - 2.0 * across / (len(rows[0]) * len(rows[1]))


def _against(sums: np.ndarray, weights: np.ndarray, block: int = 4096) -> np.ndarray:
    """Row sums against each column of weights, float64 (P,)."""
    parts = range(0, len(sums), block)
    return np.sum([sums[i : i + block] @ weights[i : i + block].astype(float) for i in parts], axis=0)
