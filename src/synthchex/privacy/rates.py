"""Counts of films with exact bounds, limits that a stated share passes, gaps between two counts. Knows no score.

Sources: Clopper and Pearson 1934; Korn and Graubard 1998 (exact interval with an effective count); Zou and Donner 2008
(difference of two shares from the ends of their intervals).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
Ids = Sequence[object] | np.ndarray | None


def counted(hits: np.ndarray, *, clusters: Ids = None, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """A count with its share and exact binomial bounds.

    Args:
        hits: bool, (N,), N at least 1.
        clusters: patient or prompt of each film; the bounds then use the effective number of independent films: at most
            N, and the number of clusters where all or none are hits.
        confidence: of the two-sided interval and of the one-sided bound.

    Returns:
        {"hits", "films", "share", "low", "high": ends of the two-sided interval, "upper": the one-sided bound (0 of
        2,000 independent films: at most 0.0015), "effective_films"}.

    Raises:
        ValueError: no films, wrong number of ids, confidence not between 0 and 1.
    """
    hits = np.asarray(hits, bool)
    ids = None if clusters is None else numbers(clusters, len(hits), "clusters")
    if not len(hits):
        raise ValueError("expected at least 1 film to count, got 0")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    effective = float(len(hits)) if ids is None else _effective(hits, ids, confidence)
    share = float(hits.mean())
    found, tail = share * effective, (1 - confidence) / 2
    return {
        "hits": int(hits.sum()),
        "films": len(hits),
        "share": share,
        "low": _end(found, effective - found + 1, tail),
        "high": _end(found + 1, effective - found, 1 - tail),
        "upper": _end(found + 1, effective - found, confidence),
        "effective_films": effective,
    }


def numbers(ids: Sequence[object] | np.ndarray, rows: int, name: str) -> np.ndarray:
    """Number of each row's id, int64 (rows,), from 0 in the order of first occurrence; texts may be long.

    Raises:
        ValueError: another number of ids than rows.
    """
    if len(ids) != rows:
        raise ValueError(f"{name}: expected {rows} ids, one per row, got {len(ids)}")
    seen: dict[object, int] = {}
    return np.fromiter((seen.setdefault(one, len(seen)) for one in ids), np.int64, rows)


def limit_of(values: np.ndarray, rate: float) -> float | None:
    """The value that a new one of this kind passes with at most this chance: the k-th highest of n, k = rate (n + 1).

    Returns:
        None where so small a rate cannot be set by n values; 1 / (n + 1) is the smallest.
    """
    place = setting(len(values), rate)
    return float(np.partition(values, -place)[-place]) if place else None


def setting(count: int, rate: float) -> int:
    """How many of `count` values reach the limit of this rate; 0 where it cannot be set."""
    return min(count, math.floor(rate * (count + 1) * (1 + 1e-12)))


def gap(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """Share of `one` less that of `other`, of two sets of films, from `counted`: {"value", "low", "high"}."""
    value = one["share"] - other["share"]
    low = math.hypot(one["share"] - one["low"], other["high"] - other["share"])
    high = math.hypot(one["high"] - one["share"], other["share"] - other["low"])
    return {"value": value, "low": max(-1.0, value - low), "high": min(1.0, value + high)}


def _effective(hits: np.ndarray, ids: np.ndarray, confidence: float) -> float:
    """Independent films that would know the share as well as these do; fewer where few clusters tell how well."""
    from scipy.special import stdtrit

    share, count, films = float(hits.mean()), int(ids.max()) + 1, len(hits)
    sums = np.bincount(ids, hits - share)
    variance = count / max(1, count - 1) * float(sums @ sums) / films**2
    if variance <= 0:
        return float(count)
    reach = stdtrit([films - 1, count - 1], 0.5 + confidence / 2)
    return min(float(films), share * (1 - share) / variance * float(reach[0] / reach[1]) ** 2)


def _end(found: float, other: float, chance: float) -> float:
    """Quantile of a beta distribution; at its edges where a count is 0."""
    from scipy.special import betaincinv

    if found <= 0 or other <= 0:
        return 0.0 if found <= 0 else 1.0
    return float(betaincinv(found, other, chance))
