"""AUROC and average precision: by hand, against other implementations, and intervals that hold what they promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from synthchex.maths import ranking


def drawn(
    rng: np.random.Generator, positive: int, negative: int, area: float, *, films: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, presence and patient of normal films with a true AUROC; patients of `films` alike films each."""
    present = np.repeat(np.arange((positive + negative) // films) < positive // films, films)
    owners = np.repeat(np.arange(len(present) // films), films)
    own = rng.normal(size=len(present)) if films == 1 else 0.5 * rng.normal(size=len(present))
    scores = own + (0 if films == 1 else math.sqrt(0.75)) * rng.normal(size=len(present))[owners * films]
    return scores + present * stats.norm.ppf(area) * math.sqrt(2), present, owners


def obuchowski(scores: np.ndarray, present: np.ndarray, owners: np.ndarray) -> float:
    """Standard error by the sums of the paper, one film at a time."""
    x, y = scores[present], scores[~present]
    above = np.array([np.mean((one > y) + 0.5 * (one == y)) for one in x])
    below = np.array([np.mean((x > one) + 0.5 * (x == one)) for one in y])
    area, m, n, every = above.mean(), len(x), len(y), len(set(owners))
    first, second, both = 0.0, 0.0, 0.0
    for owner in set(owners):
        a = (above[owners[present] == owner] - area).sum()
        b = (below[owners[~present] == owner] - area).sum()
        first, second, both = first + a * a, second + b * b, both + a * b
    with_label, without = len(set(owners[present])), len(set(owners[~present]))
    first *= with_label / ((with_label - 1) * m)
    second *= without / ((without - 1) * n)
    both *= every / (every - 1)
    return math.sqrt(first / m + second / n + 2 * both / (m * n))


def test_auroc_by_hand_counts_a_tie_as_half() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    present = np.array([True, True, False, False])
    # Pairs: (0.9, 0.5) 1, (0.9, 0.1) 1, (0.5, 0.5) a half, (0.5, 0.1) 1.
    found = ranking.auroc(scores, present, ~present)
    assert found.value == pytest.approx(3.5 / 4)
    # Components 1 and 0.75 with the label, 0.75 and 1 without: each side's variance is 1 / 32, of two films.
    assert found.standard_error == pytest.approx(math.sqrt(2 * (1 / 32) / 2))


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    present = np.array([True, False, True, False])
    assert ranking.average_precision(scores, present, ~present) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert ranking.average_precision(np.zeros(4), present, ~present) == pytest.approx(0.5)


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_scipy_and_scikit_learn(ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, present, _ = drawn(np.random.default_rng(0), 40, 160, 0.8)
    scores = np.round(scores) if ties else scores
    found = ranking.auroc(scores, present, ~present).value
    assert found == pytest.approx(stats.mannwhitneyu(scores[present], scores[~present]).statistic / (40 * 160))
    assert found == pytest.approx(metrics.roc_auc_score(present, scores))
    precision = ranking.average_precision(scores, present, ~present)
    assert precision == pytest.approx(metrics.average_precision_score(present, scores))


@pytest.mark.parametrize("films", [1, 4])
def test_the_standard_error_is_that_of_delong_and_obuchowski(films: int) -> None:
    scores, present, owners = drawn(np.random.default_rng(1), 60, 180, 0.8, films=films)
    present = present & (np.random.default_rng(2).random(240) < 0.7)  # patients with and without the label
    clusters = None if films == 1 else [f"patient {owner}" for owner in owners]
    found = ranking.auroc(scores, present, ~present, clusters=clusters)
    expected = obuchowski(scores, present, owners)
    assert found.standard_error == pytest.approx(expected, rel=1e-12 if films == 1 else 0.01)
    assert found.standard_error == pytest.approx(math.sqrt(np.square(found.influence).sum()))


def test_films_of_one_patient_count_once() -> None:
    scores, present, owners = drawn(np.random.default_rng(3), 30, 90, 0.8)
    once = ranking.auroc(scores, present, ~present)
    copies = [np.repeat(part, 5) for part in (scores, present, ~present, owners)]
    copied = ranking.auroc(*copies[:3], clusters=copies[3])
    assert copied.value == pytest.approx(once.value)
    assert copied.standard_error == pytest.approx(once.standard_error)
    assert ranking.auroc(*copies[:3]).standard_error < once.standard_error / 2
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.1)


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_pairs_of_films_count_for_both_patients(spread: float) -> None:
    """Pairs of each two of 24 patients beside one pair of each: the error is that of new patients, or above it."""
    rng, two, found = np.random.default_rng(0), np.triu_indices(24, 1), []
    first, second = np.concatenate([np.arange(24), two[0]]), np.concatenate([np.arange(24), two[1]])
    present = np.arange(len(first)) < 24
    for _ in range(300):
        own = spread * rng.normal(size=24)
        scores = own[first] + own[second] + rng.normal(size=len(first)) + 1.5 * present
        found.append(ranking.auroc(scores, present, ~present, clusters=first, partners=second))
    true = np.std([one.value for one in found])
    told = np.mean([one.standard_error for one in found])
    assert 0.9 * true < told < 1.35 * true
    one_sided = ranking.auroc(scores, present, ~present, clusters=first).standard_error
    assert ranking.auroc(scores, present, ~present, clusters=first, partners=second).standard_error != one_sided
    with pytest.raises(ValueError, match="expected 300 clusters and partners, got 300 and 299"):
        ranking.auroc(scores, present, ~present, clusters=first, partners=second[1:])


def test_films_in_neither_group_are_left_out() -> None:
    scores, present, owners = drawn(np.random.default_rng(4), 30, 90, 0.8)
    doubtful = np.arange(120) % 5 == 0
    found = ranking.auroc(scores, present & ~doubtful, ~present & ~doubtful, clusters=owners)
    rest = ranking.auroc(scores[~doubtful], present[~doubtful], ~present[~doubtful])
    assert found[:4] == pytest.approx(rest[:4])
    assert len(found.influence) == 120


@pytest.mark.parametrize(("area", "films"), [(0.75, 1), (0.97, 1), (0.97, 3), (0.99, 3)])
def test_the_interval_holds_what_it_promises(area: float, films: int) -> None:
    rng, held, apart = np.random.default_rng(5), 0, 0
    for _ in range(200):
        scores, present, owners = drawn(rng, 45, 300, area, films=films)
        one = ranking.auroc(scores, present, ~present, clusters=owners)
        scores, present, owners = drawn(rng, 90, 300, area)
        gap = ranking.difference(one, ranking.auroc(scores, present, ~present))
        held += one.low <= area <= one.high
        apart += not gap.low <= 0 <= gap.high
    assert held >= 0.91 * 200
    assert apart <= 0.09 * 200


def test_perfect_order_has_an_interval_that_shrinks_with_independent_films() -> None:
    def found(count: int, films: int) -> ranking.Auroc:
        present = np.arange(2 * count) < count
        return ranking.auroc(present.astype(float), present, ~present, clusters=np.arange(2 * count) // films)

    one, more, clustered = found(30, 1), found(300, 1), found(300, 10)
    assert one.value == one.high == more.high == 1
    assert 0.9 < one.low < more.low < 1
    assert clustered.low == pytest.approx(one.low)
    present = np.arange(60) < 30
    worst = ranking.auroc(-present.astype(float), present, ~present)
    assert (worst.value, worst.low, worst.high) == (0, 0, pytest.approx(1 - one.low))


def test_scores_that_say_nothing_are_chance_with_a_wide_interval() -> None:
    present = np.arange(90) < 30
    found = ranking.auroc(np.full(90, 0.5), present, ~present)
    assert found.value == 0.5
    assert found.low < 0.4
    assert found.high > 0.6


def test_the_mean_knows_how_labels_go_together() -> None:
    rng = np.random.default_rng(6)
    present = np.arange(200) < 60
    alike = [ranking.auroc(rng.normal(size=200) + present, present, ~present)] * 4
    apart = [ranking.auroc(rng.normal(size=200) + present, present, ~present) for _ in range(4)]
    same, mean = ranking.mean_auroc(alike), ranking.mean_auroc(apart)
    assert same[:4] == pytest.approx(alike[0][:4])
    assert mean.value == pytest.approx(np.mean([one.value for one in apart]))
    assert mean.high - mean.low < 0.7 * (apart[0].high - apart[0].low)
    certain = ranking.auroc(present.astype(float), present, ~present)
    assert ranking.mean_auroc([certain] * 4).low < 1


def test_the_difference_of_two_sets() -> None:
    none = np.zeros(3)
    one, other = ranking.Auroc(0.8, 0.1, 0.7, 0.85, none), ranking.Auroc(0.9, 0.1, 0.86, 0.93, none)
    gap = ranking.difference(one, other)
    assert gap == pytest.approx((-0.1, -0.1 - math.hypot(0.1, 0.03), -0.1 + math.hypot(0.05, 0.04)))
    assert ranking.difference(other, one) == pytest.approx((-gap.value, -gap.high, -gap.low))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"present": np.zeros(8, bool)}, "expected films with the label and films without it, got 0 and 4"),
        ({"absent": np.zeros(8, bool)}, "expected films with the label and films without it, got 4 and 0"),
        ({"absent": np.ones(8, bool)}, "expected films with the label or without it, got 4 in both"),
        ({"scores": np.full(8, np.nan)}, "expected finite scores, got NaN or infinity; leave out labels without a"),
        ({"scores": np.zeros(7)}, r"of one shape \(N,\), got \(7,\), \(8,\) and \(8,\)"),
        ({"clusters": [0, 0, 0, 0, 1, 2, 3, 4]}, "at least 2 clusters with the label and 2 without, got 1 and 4"),
        ({"clusters": [0, 1]}, "clusters: expected 8 ids, one per row, got 2"),
        ({"confidence": 95.0}, "confidence must be between 0 and 1, got 95.0"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change: dict[str, Any], message: str) -> None:
    present = np.arange(8) < 4
    given = {"scores": np.arange(8.0), "present": present, "absent": ~present} | change
    with pytest.raises(ValueError, match=message):
        ranking.auroc(**given)


def test_a_mean_is_over_one_set() -> None:
    with pytest.raises(ValueError, match="expected AUROCs of one set, got 0 with"):
        ranking.mean_auroc([])
    parts = [ranking.Auroc(0.5, 0.1, 0.4, 0.6, np.zeros(size)) for size in (3, 4)]
    with pytest.raises(ValueError, match=r"expected AUROCs of one set, got 2 with \[3, 4\]"):
        ranking.mean_auroc(parts)
