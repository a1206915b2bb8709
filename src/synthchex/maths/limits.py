"""Limits that exchangeable values set for a new one, and shares with exact intervals. Knows no films.

Patients are counted, not films: films of one patient come near to others together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

LEAST_TAIL = 5  # patients that the tail of distances is drawn from
LEAST_DRAWN = 3  # patients without whom no tail can be drawn out
CONFIDENCE = 0.95


class Share(NamedTuple):
    """Hits among trials, and the ends of the exact binomial interval of their share."""

    hits: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Hits per trial."""
        return self.hits / self.trials


def share(hits: np.ndarray) -> Share:
    """Share of true values with its exact (Clopper-Pearson) interval."""
    from scipy.stats import binomtest

    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, "exact")
    return Share(int(hits.sum()), len(hits), float(ends.low), float(ends.high))


def least_of_each(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The least value of each owner, ascending.

    Args:
        values: (N,) float.
        owners: (N,) ids, for example of patients.
    """
    people, places = np.unique(owners, return_inverse=True)
    least = np.full(len(people), np.inf)
    np.minimum.at(least, places, values)
    return np.sort(least)


def enough(count: int, chance: float) -> bool:
    """Whether so many values know a limit of that chance by counting; else its tail is drawn out."""
    return chance * (count + 1) >= 1


def lower_limit(values: np.ndarray, chance: float) -> float:
    """What a new value falls below with this chance.

    The k-th least of n exchangeable values is passed with chance k / (n + 1). Where there are too few for so small a
    chance, the tail of the least ones is drawn out as an exponential: give logarithms of distances.

    Args:
        values: (N,) float, ascending, of as many patients.
        chance: between 0 and 1.

    Raises:
        ValueError: no values.

    Source: the exponential tail estimator of Breiman, Stone and Kooperberg 1990.
    """
    count = len(values)
    if not count:
        raise ValueError("expected values of real films to set a limit by, got none; give more real films")
    if enough(count, chance) or count < 2:
        return float(values[max(0, math.floor(chance * (count + 1)) - 1)])
    tail = min(count - 1, max(LEAST_TAIL, count // 10))
    scale = float((values[tail] - values[:tail]).mean())
    return float(values[tail]) - scale * math.log(tail / (chance * (count + 1)))
