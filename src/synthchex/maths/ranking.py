"""How well a score tells films with a label from films without it: AUROC with intervals, average precision.

The standard error comes from DeLong's structural components, summed within clusters (patients), so that films of one
patient do not count as independent. The interval is a score interval (Newcombe's method 5), widened to that standard
error and never narrower than for independent films of equal counts. Simulated at 0.7 to 0.99 with 30 or 100 films with
the label, 1 or 4 films per patient, it held 92 to 99 % for 95 %; an interval on the logit scale with the same standard
error held 68 to 95 % from 0.97 on, and has no width at 1. Means and differences keep the shape of their parts'
intervals (MOVER).

Sources: DeLong et al. 1988; Obuchowski 1997 (clusters); Hanley and McNeil 1982, Newcombe 2006 (interval); Zou and
Donner 2008 (MOVER).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synthchex.maths.selections import clusters as numbered


class Auroc(NamedTuple):
    """An AUROC or a mean of some: value, standard error, ends of the interval, all in [0, 1] but the error.

    `influence` is how far each cluster of the set moves the value, (clusters,); the sum of its squares is the variance.
    """

    value: float
    standard_error: float
    low: float
    high: float
    influence: np.ndarray


class Difference(NamedTuple):
    """The first AUROC less the second, and the ends of its interval, in [-1, 1]."""

    value: float
    low: float
    high: float


def auroc(
    scores: np.ndarray,
    present: np.ndarray,
    absent: np.ndarray,
    *,
    clusters: Sequence[object] | np.ndarray | None = None,
    partners: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
) -> Auroc:
    """Chance that a film with the label scores higher than one without it; ties count half.

    Args:
        scores: float, (N,); higher for films that look more like it.
        present, absent: bool, (N,); a film in neither is left out.
        clusters: patient of each film; None when films are independent.
        partners: where each row is a pair of films, the second one's patient, `clusters` being the first one's; what a
            pair adds counts for both, so the error is rather too large than too small.
        confidence: of the interval.

    Returns:
        0.5 is chance, 1 is best. Without clusters the standard error is DeLong's. With them it is Obuchowski's but for
        the factor of the covariance term, of order 1 / clusters. The interval uses Student's t with as many degrees of
        freedom as there are clusters on the rarer side, less one.

    Raises:
        ValueError: fewer than 2 clusters with the label, or without it; films in both; scores that are not finite;
            partners without clusters.
    """
    ids, others = _owners(clusters, partners, len(scores))
    positive, negative = _split(scores, present, absent)
    value, higher, lower = _components(positive, negative)
    sizes = [len(np.union1d(ids[mask], others[mask])) for mask in (present, absent)]
    if min(sizes) < 2:
        raise ValueError(
            f"expected at least 2 clusters with the label and 2 without, got {sizes[0]} and {sizes[1]}; an interval "
            "needs independent samples"
        )
    influence = np.zeros(int(max(ids.max(), others.max())) + 1)
    for mask, part, size in zip((present, absent), (higher, lower), sizes, strict=True):
        summed = np.bincount(ids[mask], part - value, len(influence)) / len(part)
        summed += np.bincount(others[mask], (part - value) * (others != ids)[mask], len(influence)) / len(part)
        influence += math.sqrt(size / (size - 1)) * summed
    variance = float(np.square(influence).sum())
    low, high = _interval(value, variance, (len(positive), len(negative)), sizes, confidence)
    return Auroc(value, math.sqrt(variance), low, high, influence)


def area(scores: np.ndarray, present: np.ndarray, absent: np.ndarray) -> float:
    """The value of `auroc` alone, for films of any patients; arguments as there."""
    return _components(*_split(scores, present, absent))[0]


def mean_auroc(found: Sequence[Auroc]) -> Auroc:
    """Mean over labels scored on the same films.

    How the labels' errors go together is read from their influences; each end is as far from the mean as the ends of
    the labels' intervals, combined with that correlation, are from theirs.

    Raises:
        ValueError: none, or influences of different sets.
    """
    if not found or len({len(one.influence) for one in found}) > 1:
        raise ValueError(f"expected AUROCs of one set, got {len(found)} with {[len(one.influence) for one in found]}")
    influences = np.stack([one.influence for one in found])
    products = influences @ influences.T
    scale = np.sqrt(np.diag(products))
    correlation = np.divide(products, np.outer(scale, scale), out=np.eye(len(found)), where=np.outer(scale, scale) > 0)
    value = float(np.mean([one.value for one in found]))
    below = np.array([one.value - one.low for one in found]) / len(found)
    above = np.array([one.high - one.value for one in found]) / len(found)
    influence = influences.mean(0)
    return Auroc(
        value,
        float(np.sqrt(np.square(influence).sum())),
        max(0.0, value - math.sqrt(max(0.0, below @ correlation @ below))),
        min(1.0, value + math.sqrt(max(0.0, above @ correlation @ above))),
        influence,
    )


def difference(one: Auroc, other: Auroc) -> Difference:
    """`one` less `other`, of two independent sets."""
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Difference(value, max(-1.0, low), min(1.0, high))


def average_precision(scores: np.ndarray, present: np.ndarray, absent: np.ndarray) -> float:
    """Precision averaged over the films with the label, in the order of their scores; arguments as in `auroc`.

    Returns:
        In (0, 1], higher is better; chance is the share of films with the label. Films of one score enter together, so
        the value does not depend on their order; checked against scikit-learn's `average_precision_score`.

    Raises:
        ValueError: no film with the label, or none without it; films in both; scores that are not finite.
    """
    positive, negative = _split(scores, present, absent)
    steps, counts = np.unique(positive, return_counts=True)
    found = len(positive) - np.searchsorted(np.sort(positive), steps)
    wrong = len(negative) - np.searchsorted(np.sort(negative), steps)
    return float((counts * found / (found + wrong)).sum() / len(positive))


def _owners(
    clusters: Sequence[object] | np.ndarray | None, partners: Sequence[object] | np.ndarray | None, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of each row's cluster, and of its partner's, which is the same one without partners."""
    if partners is None:
        numbers = numbered(clusters, rows, "clusters")
        ids = np.arange(rows) if numbers is None else numbers
        return ids, ids
    given = 0 if clusters is None else len(clusters)
    if clusters is None or not given == len(partners) == rows:
        raise ValueError(f"expected {rows} clusters and partners, got {given} and {len(partners)}")
    both = np.unique(np.concatenate([np.asarray(clusters), np.asarray(partners)]), return_inverse=True)[1]
    return both[:rows], both[rows:]


def _split(scores: np.ndarray, present: np.ndarray, absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of films with and without the label, both float64."""
    if not scores.shape == present.shape == absent.shape or scores.ndim != 1:
        raise ValueError(
            "expected scores, present and absent of one shape (N,), got "
            f"{scores.shape}, {present.shape} and {absent.shape}"
        )
    if (present & absent).any():
        raise ValueError(f"expected films with the label or without it, got {int((present & absent).sum())} in both")
    positive, negative = (np.asarray(scores[mask], np.float64) for mask in (present, absent))
    if not len(positive) or not len(negative):
        raise ValueError(
            f"expected films with the label and films without it, got {len(positive)} and {len(negative)}; leave that "
            "label out"
        )
    if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
        raise ValueError("expected finite scores, got NaN or infinity; leave out labels without a head")
    return positive, negative


def _components(positive: np.ndarray, negative: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """AUROC, share of negatives below each positive, share of positives above each negative; ties count half."""
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    higher = (ranks[:m] - rankdata(positive)) / n
    lower = 1 - (ranks[m:] - rankdata(negative)) / m
    return float(higher.mean()), higher, lower


def _interval(
    value: float, variance: float, films: tuple[int, int], sizes: Sequence[int], confidence: float
) -> tuple[float, float]:
    """Where (value - t)**2 is below the squared quantile times the variance that films at AUROC t would have."""
    from scipy.special import stdtrit

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    # All films in order, or all of one score: nothing to be learnt about clusters, so a patient counts once.
    design = 1.0
    if variance > 0:
        design = max(1.0, variance / _variance(value, *films))
    else:
        films = (sizes[0], sizes[1])
    reach = float(stdtrit(min(sizes) - 1, 0.5 + confidence / 2)) ** 2 * design
    return _lower(value, reach, films), 1 - _lower(1 - value, reach, films)


def _lower(value: float, reach: float, films: tuple[int, int]) -> float:
    from scipy.optimize import brentq

    if value <= 0:
        return 0.0
    # Just below the value, which is a root of its own where it is 1.
    return float(brentq(lambda t: (value - t) ** 2 - reach * _variance(t, *films), 0.0, value * (1 - 1e-9)))


def _variance(area: float, positive: int, negative: int) -> float:
    """Of an AUROC, by Hanley and McNeil's model, with Newcombe's half of all films in place of either number."""
    half = (positive + negative) / 2 - 1
    spread = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
    return area * (1 - area) * spread / (positive * negative)
