"""Whether synthetic films are nearer to training films than films of patients that were never trained on.

All of it starts from the distances of films to their nearest training films, see `search`: of synthetic ones, and of
real ones that stand for "no copy" (the null): held-out films, or training films beside those of the other patients.
    DCR    distance to the closest training film
    NNDR   that over the distance to the second closest; near 0 where one film stands out
The null says what a distance is worth: a generator that learnt only what films look like comes as near to a training
film as a new patient does, as often.

AuthPct and C_T are here as diagnostics; `CAVEAT` says what they miss. Not known here: images, encoders, files.
Cost: sorts of the distances; k-means of at most `FITTED` rows of at most `COMPONENTS` columns for C_T.
Ten million films: the search is the cost, nothing here is.
Source: the privacy measures of Platzer and Reutterer 2021 (holdout-based DCR); Zhao et al. 2021 (NNDR).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from synthchex.maths import intervals, limits
from synthchex.maths.intervals import Clusters
from synthchex.maths.search import Nearest

ALPHA = 0.01  # chance that any film of a set without copies is called certain
SHARES = (0.0, 0.01, 0.05)  # quantiles of the null that synthetic films are counted below; 0 is its nearest film
CELLS, LEAST_IN_CELL = 5, 20
FITTED, COMPONENTS = 20_000, 64
CAVEAT = (
    "AuthPct and C_T say little alone: Stein et al. 2023 (NeurIPS, 'Exposing flaws of generative model evaluation') "
    "found that neither tells memorisation from mere closeness; read the shares below the null's quantiles instead."
)


class Below(NamedTuple):
    """Synthetic films strictly nearer than a distance, beside how many are expected of films of new patients.

    `low` and `high` end the exact (Clopper-Pearson) interval of the share, `at_most` is its one-sided upper bound.
    `p_value`, one-sided, is the chance of so many where synthetic films were films of new patients; it knows that the
    distance was estimated. With clusters all of these count independent facts instead of films.
    """

    distance: float
    hits: int
    films: int
    low: float
    high: float
    at_most: float
    expected: float
    p_value: float

    @property
    def share(self) -> float:
        """Hits per film."""
        return self.hits / self.films

    @property
    def excess(self) -> float:
        """Share of films that would have to be copies for so many hits, the others being as films of new patients."""
        return (self.share - self.expected) / (1.0 - self.expected)


class Ratio(NamedTuple):
    """A ratio of two medians and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Copying:
    """What distances to the training films say of a synthetic set.

    `dcr`, `nndr` (M,): of each synthetic film; `nndr` is 0 for an exact copy and NaN where there is no second film.
    `ratio`: median DCR of synthetic films over that of the null; 1 as for new patients, lower is nearer. `below`: films
    below quantiles of the null, by share; at 0 those nearer than every film of the null. `limit`: films below what a
    new patient passes with at most `false_alarms`, patients counted. `certain`: films below what any of so many films
    of new patients passes with at most the chance `ALPHA`; the tail of the null is drawn out for it. `copies`:
    synthetic films at distance 0.
    `repeats`: films of the null at distance 0, which are training films themselves and were left out of it.
    """

    false_alarms: float
    dcr: np.ndarray = field(repr=False)
    nndr: np.ndarray = field(repr=False)
    null_dcr: np.ndarray = field(repr=False)
    null_nndr: np.ndarray = field(repr=False)
    ratio: Ratio
    below: Mapping[float, Below]
    limit: Below
    certain: Below
    copies: int
    repeats: int
    patients: int

    @property
    def memorization(self) -> Below:
        """Films below the quantile of the null that has the share `false_alarms`."""
        return self.below[self.false_alarms]

    @property
    def p_value(self) -> float:
        """Chance of so many films below any of the quantiles, where films were those of new patients (Bonferroni).

        Few copies are many beside the nearest film of the null, many half-copies beside its 5 % quantile.
        """
        return min(1.0, len(self.below) * min(part.p_value for part in self.below.values()))


def compare(
    fake: Nearest,
    real: Nearest,
    *,
    fake_clusters: Clusters = None,
    real_clusters: Clusters = None,
    false_alarms: float = 0.01,
    confidence: float = 0.95,
) -> Copying:
    """Synthetic films beside real ones that are no copies, by their distances to the same training films.

    Args:
        fake: the two nearest training films of each synthetic film; the NNDR divides by the last where there are more.
        real: the same of each film of the null.
        fake_clusters: what makes synthetic films alike, for example the prompt of each; None: independent.
        real_clusters: patient of each film of the null; None: each film is a patient.
        false_alarms: share of new patients' films that may be called too near.
        confidence: of the intervals.

    Raises:
        ValueError: shares not between 0 and 1; a film without a training film; fewer than two films of the null that
            are no training films; wrong number of ids.

    >>> fake = Nearest(np.array([[0.0, 2.0], [2.0, 4.0]]), np.array([[0, 1], [1, 0]]))
    >>> real = Nearest(np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 4.0]]), np.array([[0, 1], [1, 0], [1, 0]]))
    >>> found = compare(fake, real)
    >>> found.ratio.value, found.copies, found.below[0.05].hits, found.below[0.05].expected
    (0.5, 1, 1, 0.25)
    """
    check_shares(false_alarms, confidence)
    owners = _ids(real_clusters, len(real.distances), "real_clusters")
    prompts = _ids(fake_clusters, len(fake.distances), "fake_clusters")
    dcr, null = _closest(fake, "synthetic"), _closest(real, "null")
    repeated = null == 0
    if (~repeated).sum() < 2:
        raise ValueError(
            f"expected at least 2 films of the null that are no training films, got {int((~repeated).sum())} of "
            f"{len(null)}; give real films of patients that the generator was not trained on"
        )
    null, owners = null[~repeated], owners[~repeated]
    below = {share: _below(dcr, null, share, prompts, owners, confidence) for share in sorted({*SHARES, false_alarms})}
    return Copying(
        false_alarms=false_alarms,
        dcr=dcr,
        nndr=second_ratio(fake),
        null_dcr=null,
        null_nndr=second_ratio(real)[~repeated],
        ratio=ratio_of_medians(dcr, null, clusters=(prompts, owners), confidence=confidence),
        below=below,
        limit=_beyond_limit(dcr, null, false_alarms, prompts, owners, confidence),
        certain=_beyond_limit(dcr, null, ALPHA / len(dcr), prompts, owners, confidence),
        copies=int((dcr == 0).sum()),
        repeats=int(repeated.sum()),
        patients=len(np.unique(owners)),
    )


def second_ratio(near: Nearest) -> np.ndarray:
    """NNDR of each film: nearest over the last distance, (M,) in 0 to 1; 0 for a copy, NaN where there is no last.

    Raises:
        ValueError: fewer than two neighbours were asked for.
    """
    if near.distances.shape[1] < 2:
        raise ValueError(f"expected 2 neighbours of each film, got {near.distances.shape[1]}; search with k=2")
    first, second = near.distances[:, 0], near.distances[:, -1]
    ratio = np.divide(first, second, out=np.zeros_like(first), where=(first > 0) & np.isfinite(second))
    return np.where(np.isfinite(second), ratio, np.nan)


def ratio_of_medians(
    fake: np.ndarray, real: np.ndarray, *, clusters: tuple[Clusters, Clusters] = (None, None), confidence: float = 0.95
) -> Ratio:
    """Median of one set over that of another, with an interval that knows clusters of both.

    Args:
        fake: (M,) float, 0 or more.
        real: (N,) float, above 0.
        clusters: of both sides; None: independent.
        confidence: of the interval.

    Source: Woodruff 1952 (interval of a quantile from that of its share); Donner and Zou 2012 (MOVER, on logarithms).
    """
    top, bottom = (_median(side, ids, confidence) for side, ids in zip((fake, real), clusters, strict=True))
    if min(bottom) <= 0:
        raise ValueError("expected distances above 0 in the null, got 0; leave out films that are training films")
    value = top.value / bottom.value
    if top.low <= 0:  # half of the films may be copies: a logarithm has no lower end there
        return Ratio(value, 0.0, top.high / bottom.low)
    low = math.hypot(math.log(top.value / top.low), math.log(bottom.high / bottom.value))
    high = math.hypot(math.log(top.high / top.value), math.log(bottom.value / bottom.low))
    return Ratio(value, value * math.exp(-low), value * math.exp(high))


def authenticity(near: Nearest, radii: np.ndarray) -> np.ndarray:
    """Which films are authentic: farther from their nearest training film than that is from its own nearest one.

    Args:
        near: nearest training films of each film.
        radii: (M,) distance of each film's nearest training film to the nearest other one.

    Returns:
        (M,) bool; the mean is AuthPct, higher is better. About a half for films of new patients, see `CAVEAT`.

    Source: Alaa et al. 2022 (arXiv:2102.08921), section 4.3.
    """
    return np.asarray(near.distances[:, 0] > radii)


def cells(references: np.ndarray, sets: Sequence[np.ndarray], *, count: int = CELLS) -> list[np.ndarray]:
    """Cell of each row of some sets: k-means of the references' first principal components.

    The start is along the first component, so that nothing is random: neither turning the features nor another order
    of at most `FITTED` rows changes the cells.

    Args:
        references: training features, (N, D); at most `FITTED` rows, evenly spread, are fitted.
        sets: features, (M, D) each.
        count: cells, at most; fewer where some stay empty.

    Returns:
        Cell of each row, int (M,), for each set.
    """
    from scipy.cluster import vq

    places = np.linspace(0, len(references) - 1, min(len(references), FITTED)).astype(int)
    rows = np.asarray(references[places], np.float64)
    centre = rows.mean(axis=0)
    rows -= centre
    axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :COMPONENTS]
    rows = rows @ axes
    parts = np.array_split(rows[np.argsort(rows[:, 0], kind="stable")], min(count, len(rows)))
    book = vq.kmeans(rows, np.stack([part.mean(axis=0) for part in parts]))[0]
    return [
        np.concatenate([vq.vq((part - centre) @ axes, book)[0] for part in np.array_split(rows, len(rows) // 8192 + 1)])
        for rows in sets
    ]


def copying_statistic(
    fake: np.ndarray, real: np.ndarray, fake_cells: np.ndarray, real_cells: np.ndarray, *, least: int = LEAST_IN_CELL
) -> float:
    """C_T: whether synthetic films are nearer to training films than held-out ones are, cell by cell.

    Args:
        fake: (M,) distances to the closest training film.
        real: (N,) the same of films of the null.
        fake_cells: (M,) cell of each.
        real_cells: (N,) cell of each.
        least: films of each side that a cell needs.

    Returns:
        Mean of the Mann-Whitney z of the cells, weighted by real films: about 0 for films of new patients, far below 0
        for copies, above 0 where films are far off; NaN where no cell has enough films. See `CAVEAT`.

    Source: Meehan, Chaudhuri and Dasgupta 2020 (arXiv:2004.05675), section 3; distances here are to the whole training
    set, not to its part in the cell.
    """
    total, weight = 0.0, 0
    for cell in np.unique(real_cells):
        one, two = fake[fake_cells == cell], real[real_cells == cell]
        if min(len(one), len(two)) >= least:
            total, weight = total + len(two) * _rank_sum_z(one, two), weight + len(two)
    return total / weight if weight else math.nan


def _rank_sum_z(one: np.ndarray, two: np.ndarray) -> float:
    """Mann-Whitney z, corrected for ties: positive where `one` is larger; 0 where all values are equal."""
    from scipy.stats import rankdata, tiecorrect

    m, n = len(one), len(two)
    ranks = rankdata(np.concatenate([one, two]))
    spread = math.sqrt(tiecorrect(ranks) * m * n * (m + n + 1) / 12.0)
    return (float(ranks[:m].sum()) - m * (m + n + 1) / 2.0) / spread if spread else 0.0


def _below(
    fake: np.ndarray, real: np.ndarray, share: float, prompts: np.ndarray, owners: np.ndarray, confidence: float
) -> Below:
    """Films below the quantile of the null, which is its k-th least: a new one is below it with chance k / (n + 1)."""
    count = len(real)
    k = max(1, math.floor(share * (count + 1)))
    limit = float(np.partition(real, k - 1)[k - 1])
    known = _effective(real <= limit, owners) + 1.0
    return _counted(fake, limit, k / (count + 1), known, prompts, confidence)


def _beyond_limit(
    fake: np.ndarray, real: np.ndarray, chance: float, prompts: np.ndarray, owners: np.ndarray, confidence: float
) -> Below:
    """Films below what a new patient passes with that chance; of 1 or 2 patients with no less than 1 / 2 or 1 / 3."""
    least = limits.least_of_each(np.log(real), owners)
    if len(least) < limits.LEAST_DRAWN:
        chance = max(chance, 1 / (len(least) + 1))
    counted = limits.enough(len(least), chance)
    expected = math.floor(chance * (len(least) + 1)) / (len(least) + 1) if counted else chance
    known = len(least) + 1.0 if counted else math.inf
    return _counted(fake, math.exp(limits.lower_limit(least, chance)), expected, known, prompts, confidence)


def _counted(
    fake: np.ndarray, limit: float, expected: float, known: float, prompts: np.ndarray, confidence: float
) -> Below:
    """Films below a limit that was set on `known` - 1 independent films; infinite: that was not estimated."""
    from scipy.stats import beta

    hits = fake < limit
    films = _effective(hits, prompts)
    some, tail = float(hits.mean()) * films, (1.0 - confidence) / 2.0
    low = float(beta.ppf(tail, some, films - some + 1.0)) if hits.any() else 0.0
    high, at_most = (
        1.0 if hits.all() else float(beta.ppf(1.0 - part, some + 1.0, films - some)) for part in (tail, 2.0 * tail)
    )
    chance = chance_of(math.floor(some + 1e-9), max(1, math.floor(films)), expected, known)
    return Below(limit, int(hits.sum()), len(fake), low, high, at_most, expected, chance)


def chance_of(hits: int, films: int, expected: float, known: float) -> float:
    """Chance of at least so many hits: the limit is an order statistic of the null, so they are beta-binomial."""
    from scipy.stats import betabinom, binom

    if math.isinf(known):
        return float(binom.sf(hits - 1, films, expected))
    spread = betabinom(films, expected * known, (1.0 - expected) * known)
    return float(min(1.0, np.exp(spread.logpmf(np.arange(hits, films + 1))).sum()))


def _effective(hits: np.ndarray, clusters: np.ndarray) -> float:
    """Independent facts that clustered ones are worth, see `intervals.of_share`; their number where none is alike."""
    count, units = len(hits), len(np.unique(clusters))
    if units == count:
        return float(count)
    share = float(hits.mean())
    error = intervals.of_share(hits, clusters=clusters).standard_error if units > 1 else 0.0
    if not 0 < share < 1 or error == 0:
        return float(units)
    return min(float(count), share * (1.0 - share) / error**2)


def _median(values: np.ndarray, clusters: Clusters, confidence: float) -> Ratio:
    """Median and its interval: the quantiles at the ends of the interval of the share below it."""
    from scipy.special import stdtrit

    ordered, count = np.sort(values), len(values)
    middle = float(np.median(ordered))
    ids = _ids(clusters, count, "clusters")
    units = len(np.unique(ids))
    facts = _effective(values <= middle, ids)
    reach = float(stdtrit(max(units - 1, 1), 0.5 + confidence / 2.0)) * 0.5 / math.sqrt(facts)
    low, high = np.quantile(ordered, np.clip([0.5 - reach, 0.5 + reach], 0.0, 1.0))
    return Ratio(middle, float(low), float(high))


def _closest(near: Nearest, name: str) -> np.ndarray:
    closest = near.distances[:, 0]
    alone = int((~np.isfinite(closest)).sum())
    if alone or not len(closest):
        raise ValueError(
            f"{name}: expected a training film of another patient for each of {len(closest)} films, got none for "
            f"{alone}; give training films of more patients"
        )
    return closest


def _ids(clusters: Clusters, count: int, name: str) -> np.ndarray:
    """Whole numbers of clusters; each row its own where they are unknown."""
    if clusters is None:
        return np.arange(count)
    if len(clusters) != count:
        raise ValueError(f"{name}: expected {count} ids, one per film, got {len(clusters)}")
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def check_shares(false_alarms: float, confidence: float) -> None:
    """Refuse what is no share."""
    for name, value in (("false_alarms", false_alarms), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}; 0.01 and 0.95 are usual")
