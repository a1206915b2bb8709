"""Readers' answers: exact ends, d', readers and cases, equivalence, numbers of reads; against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from synthchex.maths import ranking, readers


@pytest.mark.parametrize(
    ("hits", "trials", "wilson", "exact"),
    [
        (81, 100, (0.722, 0.875), (0.719, 0.882)),
        (43, 50, (0.738, 0.930), (0.733, 0.942)),
        (38, 50, (0.626, 0.857), (0.618, 0.869)),
        (7, 50, (0.070, 0.262), (0.058, 0.267)),
    ],
)
def test_the_published_counts_have_the_published_intervals(
    hits: int, trials: int, wilson: tuple[float, float], exact: tuple[float, float]
) -> None:
    found = readers.proportion(hits, trials)
    assert found.value == hits / trials
    assert found.wilson == pytest.approx(wilson, abs=5e-4)
    assert found.exact == pytest.approx(exact, abs=5e-4)


def test_d_prime_of_the_published_reader() -> None:
    found = readers.detection(43, 50, 12, 50)
    assert round(found.d_prime, 2) == 1.79
    assert round(found.criterion, 2) == -0.19
    assert found.low < 1.79 < found.high
    swapped = readers.detection(12, 50, 43, 50)
    assert swapped.d_prime == pytest.approx(-found.d_prime)
    assert swapped.criterion == pytest.approx(found.criterion)


def test_d_prime_of_rates_of_zero_and_one_is_finite_and_of_equal_rates_zero() -> None:
    assert math.isfinite(readers.detection(50, 50, 0, 50).d_prime)
    assert readers.detection(20, 50, 20, 50).d_prime == pytest.approx(0)
    assert readers.detection(50, 50, 50, 50).d_prime == pytest.approx(0)


def test_d_prime_intervals_hold_their_level() -> None:
    rng, truth = np.random.default_rng(0), 1.2
    hits, alarms = rng.binomial(60, ndtr(0.6 + truth / 2 - 0.6), 400), rng.binomial(60, ndtr(-truth / 2), 400)
    found = [readers.detection(int(one), 60, int(two), 60) for one, two in zip(hits, alarms, strict=True)]
    assert 0.92 < np.mean([one.low <= truth <= one.high for one in found]) < 0.98


def test_the_power_table_of_reads() -> None:
    assert [readers.reads_needed(share) for share in (0.55, 0.60, 0.65, 0.70)] == [820, 210, 97, 54]
    assert readers.reads_needed(0.4) == 210
    assert readers.reads_needed(0.6, power=0.9) > 210
    with pytest.raises(ValueError, match="too near chance"):
        readers.reads_needed(0.502)
    with pytest.raises(ValueError, match=r"not be 0\.5"):
        readers.reads_needed(0.5)


def test_reads_needed_are_enough_and_one_fewer_is_not() -> None:
    from scipy.stats import binom, binomtest

    def power(reads: int) -> float:
        kept = [hits for hits in range(reads + 1) if binomtest(hits, reads, 0.5).pvalue <= 0.05]
        return float(binom.pmf(kept, reads, 0.7).sum())

    count = readers.reads_needed(0.7)
    assert power(count - 1) < 0.8 <= power(count)


def test_reads_for_equivalence_reach_their_power() -> None:
    count = readers.reads_for_equivalence(0.1)
    assert count == pytest.approx(210, rel=0.05)
    assert readers.reads_for_equivalence(0.05) == pytest.approx(860, rel=0.05)
    right = np.random.default_rng(1).random((600, count)) < 0.5
    found = [readers.equivalence(readers.crossed(row[None].astype(float)), centre=0.5, margin=0.1) for row in right]
    assert np.mean([one.equivalent for one in found]) == pytest.approx(0.8, abs=0.06)


def test_not_different_is_not_equivalent() -> None:
    few = readers.crossed(np.array([[1.0, 0.0] * 10]))
    assert readers.differs(few, 0.5) == 1
    found = readers.equivalence(few, centre=0.5, margin=0.1)
    assert not found.equivalent
    assert found.p_value > 0.05
    with pytest.raises(ValueError, match="margin must be above 0"):
        readers.equivalence(few, centre=0.5, margin=0)


def test_a_mean_over_readers_and_cases_by_hand() -> None:
    values = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    found = readers.crossed(values)
    # Means: readers 2/3 and 1, cases 1, .5, 1, all 5/6.
    of_readers = 3 * ((2 / 3 - 5 / 6) ** 2 + (1 - 5 / 6) ** 2)
    of_cases = 2 * (2 * (1 - 5 / 6) ** 2 + (0.5 - 5 / 6) ** 2) / 2
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + 5 / 6
    left = (rest**2).sum() / 2
    assert found.value == pytest.approx(5 / 6)
    assert found.standard_error == pytest.approx(math.sqrt(max(of_readers + max(0, of_cases - left), left) / 6))


def test_readers_who_agree_by_chance_in_their_means_still_leave_doubt() -> None:
    found = readers.crossed(np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]))
    assert found.standard_error > 0.1
    assert readers.differs(found, 0.5) == 1


@pytest.mark.parametrize(("count", "cases", "least"), [(1, 100, 0.92), (3, 80, 0.90), (6, 80, 0.92)])
def test_intervals_over_readers_and_cases_hold_their_level(count: int, cases: int, least: float) -> None:
    rng, spread, hard, draws = np.random.default_rng(count), 0.25, 0.6, 400
    if count == 1:
        spread = 0.0  # of that reader
    truth = float(ndtr(0.4 / math.sqrt(1 + spread**2 + hard**2)))
    latent = 0.4 + rng.normal(0, spread, (draws, count, 1)) + rng.normal(0, hard, (draws, 1, cases))
    right = (latent + rng.normal(0, 1, (draws, count, cases)) > 0).astype(float)
    found = [readers.crossed(one) for one in right]
    assert least < np.mean([one.low <= truth <= one.high for one in found]) < 0.99


def test_pooling_answers_as_if_independent_would_be_too_sure() -> None:
    rng, truth = np.random.default_rng(3), float(ndtr(0.4 / math.sqrt(1 + 0.5**2 + 0.6**2)))
    latent = 0.4 + rng.normal(0, 0.5, (300, 4, 1)) + rng.normal(0, 0.6, (300, 1, 60))
    right = latent + rng.normal(0, 1, (*latent.shape[:1], 4, 60)) > 0
    pooled = [readers.proportion(int(one.sum()), one.size).wilson for one in right]
    assert np.mean([low <= truth <= high for low, high in pooled]) < 0.75


def test_pseudovalues_are_the_jackknife_of_the_area() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(30) < 0.4
    scores = np.round(rng.normal(0, 1, 30) + truth, 1)
    found = readers.pseudovalues(scores, truth)

    def area(rows: np.ndarray) -> float:
        pairs = scores[rows & truth][:, None], scores[rows & ~truth]
        return float(((pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])).mean())

    whole = area(np.ones(30, bool))
    for case in range(30):
        without = np.ones(30, bool)
        without[case] = False
        assert found[case] == pytest.approx(30 * whole - 29 * area(without))
    delong = ranking.auroc(scores, truth, ~truth)
    assert found.std(ddof=1) / math.sqrt(30) == pytest.approx(delong.standard_error, rel=0.1)


def test_fleiss_of_the_published_example() -> None:
    # Fleiss 1971 as in the standard worked example: 10 cases, 14 raters, 5 answers.
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert readers.fleiss(np.array(counts)) == pytest.approx(0.210, abs=5e-4)
    assert readers.fleiss(np.array([[3, 0], [3, 0]])) is None
    with pytest.raises(ValueError, match="as many for every case"):
        readers.fleiss(np.array([[3, 0], [2, 0]]))
