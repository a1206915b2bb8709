"""Limits that real films set: how far a film may be from what is usual before it is dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Limits(NamedTuple):
    """A film is kept between `low` and `high`, both included; an infinite end has no limit."""

    low: float = -math.inf
    high: float = math.inf

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which values are not between the ends, bool; NaN (not measured) never is outside."""
        return (values < self.low) | (values > self.high)


def below(values: np.ndarray, false_drops: float) -> Limits:
    """The lower limit that a new real film falls below with at most this chance; the least film where films are few.

    Args:
        values: of real films, (N,); NaN are left out.
        false_drops: chance, between 0 and 1.

    Raises:
        ValueError: no values.
    """
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        raise ValueError("expected values of real films to set a limit by, got none; see the reference's columns")
    # A new film falls below the k-th least of n exchangeable ones with chance k / (n + 1).
    return Limits(low=float(known[max(0, math.floor(false_drops * (len(known) + 1)) - 1)]))


def above(values: np.ndarray, false_drops: float) -> Limits:
    """As `below`, at the other end."""
    return Limits(high=-below(-values, false_drops).low)


def between(values: np.ndarray, false_drops: float) -> Limits:
    """Both limits, half of the chance for each."""
    return Limits(below(values, false_drops / 2).low, above(values, false_drops / 2).high)


def few(count: int, false_drops: float) -> str | None:
    """A sentence where real films are too few for that chance."""
    if math.floor(false_drops / 2 * (count + 1)) >= 1:
        return None
    return (
        f"{count} real films are too few for limits at {false_drops:.2%}: the most extreme film is the limit; "
        f"{math.ceil(2 / false_drops)} would do"
    )


def as_dict(limits: Mapping[str, Limits]) -> dict[str, list[float | None]]:
    """Limits as JSON can hold them."""
    return {name: [None if math.isinf(end) else end for end in limit] for name, limit in limits.items()}
