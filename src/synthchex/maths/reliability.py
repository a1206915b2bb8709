"""How far a yes-or-no score can be believed: calibration curve, threshold for a precision, agreement of ratings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """A calibration curve: mean score, share of yes and films in each bin; and the expected calibration error."""

    score: np.ndarray
    share: np.ndarray
    films: np.ndarray
    error: float


class Threshold(NamedTuple):
    """A score from which on films are kept, and what that gives: precision, recall and films kept of those given."""

    value: float
    precision: float
    recall: float
    kept: int


def curve(scores: np.ndarray, truth: np.ndarray, *, bins: int = 10) -> Curve:
    """Share of yes among films of similar score, in bins of equal width.

    Args:
        scores: (N,) in [0, 1].
        truth: (N,) bool.
        bins: how many; those without films are left out.

    Returns:
        `error` is the mean distance between score and share, weighted by films: 0 is best, at most 1.

    Source: Guo et al. 2017, expected calibration error.
    """
    if len(scores) != len(truth) or not len(scores):
        raise ValueError(f"expected as many scores as truths, and some, got {len(scores)} and {len(truth)}")
    place = np.clip((np.asarray(scores) * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    score = np.bincount(place, scores, bins)[used] / count[used]
    share = np.bincount(place, truth, bins)[used] / count[used]
    error = float((np.abs(score - share) * count[used]).sum() / len(scores))
    return Curve(score, share, count[used], error)


def threshold(scores: np.ndarray, truth: np.ndarray, precision: float) -> Threshold | None:
    """The lowest score that keeps a precision: of films at or above it, that share are yes; None where none does.

    Args:
        scores: (N,), higher for yes.
        truth: (N,) bool.
        precision: between 0 and 1. It holds for the mix of films that is given, not for another.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision must be above 0 and at most 1, got {precision}")
    order = np.argsort(-np.asarray(scores), kind="stable")
    sorted_scores, hits = np.asarray(scores)[order], np.cumsum(np.asarray(truth)[order])
    last = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True))  # ties are kept together
    reached = hits[last] / (last + 1)
    good = np.flatnonzero(reached >= precision)
    if not len(good):
        return None
    place = int(last[good[-1]])
    total = int(hits[-1])
    return Threshold(
        float(sorted_scores[place]), float(hits[place] / (place + 1)), float(hits[place] / total), place + 1
    )


def weighted_kappa(one: np.ndarray, two: np.ndarray, levels: int) -> float | None:
    """Cohen's kappa with quadratic weights of two ratings on an ordered scale; None where it is not defined.

    Args:
        one, two: (N,) integers from 0 to `levels` - 1.

    Returns:
        1 is perfect, 0 is chance, at least -1.

    Source: Cohen 1968; checked against scikit-learn's `cohen_kappa_score(weights="quadratic")`.
    """
    counts = np.zeros((levels, levels))
    np.add.at(counts, (np.asarray(one), np.asarray(two)), 1)
    place = np.arange(levels)
    weights = (place[:, None] - place) ** 2
    chance = np.outer(counts.sum(1), counts.sum(0)) / max(1.0, counts.sum())
    expected = float((weights * chance).sum())
    return None if expected == 0 else 1 - float((weights * counts).sum()) / expected


def kappa_interval(
    one: np.ndarray, two: np.ndarray, levels: int, *, seed: int, draws: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of `weighted_kappa` over films; draws without a value are left out."""
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, len(one), len(one)) for _ in range(draws))
    found = [weighted_kappa(np.asarray(one)[row], np.asarray(two)[row], levels) for row in rows]
    known = [value for value in found if value is not None]
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if known else (np.nan, np.nan)
    return float(low), float(high)
