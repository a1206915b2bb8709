"""Nearness to training films beside a null: by hand, invariances, coverage, false alarms, planted copies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from synthchex.maths import copying, limits, memorization, search
from synthchex.maths.search import Nearest

TRAIN = np.random.default_rng(0).normal(size=(600, 16))


def near(closest: Any, second: float = 1e9) -> Nearest:
    """Films with these distances to their closest training film."""
    closest = np.asarray(closest, float)
    return Nearest(np.stack([closest, np.maximum(closest, second)], 1), np.tile([0, 1], (len(closest), 1)))


# By hand -------------------------------------------------------------------------------------------------------------


def test_distances_and_ratios_by_hand() -> None:
    fake = Nearest(np.array([[0.0, 0.0], [1.0, 4.0], [2.0, 2.0]]), np.zeros((3, 2), int))
    found = copying.compare(fake, near([2.0, 4.0, 6.0], second=8.0))
    assert found.dcr.tolist() == [0, 1, 2]
    assert found.nndr.tolist() == [0, 0.25, 1]  # a copy of a film that is there twice is a copy
    assert found.null_nndr.tolist() == [0.25, 0.5, 0.75]
    assert found.ratio.value == 1 / 4
    assert (found.copies, found.repeats, found.patients) == (1, 0, 3)
    assert np.isnan(copying.second_ratio(Nearest(np.array([[1.0, np.inf]]), np.array([[0, -1]])))).all()


def test_shares_below_the_null_by_hand() -> None:
    found = copying.compare(near([0.5, 1.5, 2.5, 50.0]), near(np.arange(1, 200)))
    low, five = found.below[0.01], found.below[0.05]
    # Of 199 films the 2nd least is passed by a new one with chance 2 / 200, the 10th with 10 / 200.
    assert (low.distance, low.hits, low.expected) == (2.0, 2, 0.01)
    assert (five.distance, five.hits, five.expected) == (10.0, 3, 0.05)
    assert found.memorization is low
    assert low.share == 0.5
    assert low.excess == pytest.approx((0.5 - 0.01) / 0.99)
    assert found.limit.distance == pytest.approx(2.0)


def test_the_chance_of_so_many_hits_by_counting() -> None:
    # One of two new films below the least of three: 1 - (3 * 4) / (4 * 5), the ranks of five films being equal.
    found = copying.compare(near([0.5, 9.0]), near([1.0, 2.0, 3.0]))
    assert found.below[0.01].expected == 0.25
    assert found.below[0.01].p_value == pytest.approx(1 - 3 / 5)
    both = copying.compare(near([0.5, 0.6]), near([1.0, 2.0, 3.0]))
    assert both.below[0.01].p_value == pytest.approx(2 / (4 * 5))


def test_no_hits_in_two_thousand_films_are_at_most_one_in_667() -> None:
    found = copying.compare(near(np.full(2000, 5.0)), near(np.linspace(1, 9, 500)))
    assert (found.memorization.hits, found.memorization.low) == (0, 0.0)
    assert found.memorization.p_value == pytest.approx(1)
    assert found.memorization.at_most == pytest.approx(1 - 0.05 ** (1 / 2000))
    assert found.memorization.high == pytest.approx(1 - 0.025 ** (1 / 2000))
    assert round(100 * found.memorization.at_most, 2) == 0.15


def test_exact_intervals_are_those_of_scipy() -> None:
    from scipy.stats import binomtest

    found = copying.compare(near([0.5] * 7 + [9.0] * 33), near(np.arange(1, 100))).memorization
    ends = binomtest(7, 40).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_films_of_the_null_that_are_training_films_are_left_out_and_counted() -> None:
    found = copying.compare(near([1.0, 2.0]), near([0.0, 0.0, 3.0, 4.0]), real_clusters=["a", "b", "c", "d"])
    assert (found.repeats, found.patients, found.null_dcr.tolist()) == (2, 2, [3.0, 4.0])
    with pytest.raises(
        ValueError, match="expected at least 2 films of the null that are no training films, got 1 of 2"
    ):
        copying.compare(near([1.0]), near([0.0, 1.0]))


def test_authenticity_by_hand() -> None:
    train = np.array([[0.0], [1.0], [10.0]])
    fake = search.nearest(np.array([[0.4], [5.0], [-3.0]]), train)
    itself = search.nearest(train, train, 1, owners=(range(3), range(3))).distances[:, 0]
    assert itself.tolist() == [1, 1, 9]
    assert copying.authenticity(fake, itself[fake.rows[:, 0]]).tolist() == [False, True, True]


def test_copying_statistic_by_hand_and_beside_scipy() -> None:
    from scipy.stats import mannwhitneyu

    one = np.zeros(3, int)
    # U = 0 of 9, mean 4.5, variance 9 * 7 / 12.
    z = copying.copying_statistic(np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), one, one, least=3)
    assert z == pytest.approx(-4.5 / math.sqrt(5.25))
    rng = np.random.default_rng(1)
    fake, real = np.round(rng.normal(size=200), 1), np.round(rng.normal(size=300), 1)  # with ties
    places, others = rng.integers(0, 3, 200), rng.integers(0, 3, 300)
    total = 0.0
    for cell in range(3):
        a, b = fake[places == cell], real[others == cell]
        p = mannwhitneyu(a, b, use_continuity=False, method="asymptotic", alternative="less").pvalue
        from scipy.special import ndtri

        total += len(b) * float(ndtri(p))
    assert copying.copying_statistic(fake, real, places, others) == pytest.approx(total / 300)
    assert math.isnan(copying.copying_statistic(fake[:5], real, places[:5], others))
    assert copying.copying_statistic(np.ones(30), np.ones(30), np.zeros(30), np.zeros(30)) == 0


def test_cells_are_clusters_whatever_the_order_or_the_axes() -> None:
    rng = np.random.default_rng(2)
    centres = 20 * rng.normal(size=(3, 6))
    rows, others = (
        centres[truth] + rng.normal(size=(len(truth), 6)) for truth in (np.arange(300) % 3, np.arange(60) % 3)
    )
    (found,) = copying.cells(rows, [others], count=3)
    assert [len(set(found[np.arange(60) % 3 == place])) for place in range(3)] == [1, 1, 1]
    assert len(set(found)) == 3
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    (turned,) = copying.cells((rows @ turn)[rng.permutation(300)], [others @ turn], count=3)
    assert len(set(zip(found, turned, strict=True))) == 3
    assert copying.cells(np.zeros((4, 2)), [np.zeros((2, 2))])[0].tolist() == [0, 0]


@pytest.mark.parametrize("count", [5, 40, 700])
def test_a_limit_is_passed_as_often_as_it_says(count: int) -> None:
    random = np.random.default_rng(3)
    draws = np.log(random.exponential(size=(2000, count + 1)))
    passed = [row[0] < limits.lower_limit(np.sort(row[1:]), 0.02) for row in draws]
    assert 0.005 < np.mean(passed) < 0.04
    assert limits.least_of_each(np.array([3.0, 1, 2]), np.array(["a", "a", "b"])).tolist() == [1, 2]
    with pytest.raises(ValueError, match="expected values of real films to set a limit by, got none"):
        limits.lower_limit(np.empty(0), 0.1)


# Invariances ---------------------------------------------------------------------------------------------------------


def numbers(train: np.ndarray, held: np.ndarray, fake: np.ndarray) -> list[float]:
    """What comes out for three sets of features."""
    beside = [search.nearest(side, train) for side in (fake, held)]
    found = copying.compare(*beside)
    places = copying.cells(train, [fake, held], count=3)
    ct = copying.copying_statistic(beside[0].distances[:, 0], beside[1].distances[:, 0], *places)
    shares = [part.p_value for part in found.below.values()] + [part.share for part in found.below.values()]
    return [*found.ratio, float(np.median(found.nndr)), ct, found.limit.share, found.memorization.excess, *shares]


def test_neither_scale_nor_turning_nor_moving_nor_order_matters() -> None:
    rng = np.random.default_rng(4)
    held, fake = rng.normal(size=(150, 16)), 0.8 * rng.normal(size=(120, 16))
    expected = numbers(TRAIN, held, fake)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert numbers(5 * TRAIN @ turn + 3, 5 * held @ turn + 3, 5 * fake @ turn + 3) == pytest.approx(expected, rel=1e-6)
    shuffled = (side[rng.permutation(len(side))] for side in (TRAIN, held, fake))
    assert numbers(*shuffled) == pytest.approx(expected, rel=1e-6)


# Simulation ----------------------------------------------------------------------------------------------------------


def patients_distances(
    rng: np.random.Generator, patients: int, each: int, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distances whose logarithm is normal, those of one patient alike; and the patients."""
    own = np.repeat(rng.normal(size=patients), each) * math.sqrt(alike)
    return np.exp(0.3 * (own + math.sqrt(1 - alike) * rng.normal(size=patients * each))), np.repeat(
        range(patients), each
    )


@pytest.mark.parametrize(("each", "alike"), [(1, 0.0), (4, 0.8)])
def test_the_interval_of_the_ratio_covers_as_often_as_it_says(each: int, alike: float) -> None:
    rng, hits, naive = np.random.default_rng(5), 0, 0
    for _ in range(400):
        fake, prompts = patients_distances(rng, 60, each, alike)
        real, owners = patients_distances(rng, 50, each, alike)
        low, high = copying.ratio_of_medians(0.9 * fake, real, clusters=(prompts, owners))[1:]
        hits += low <= 0.9 <= high
        low, high = copying.ratio_of_medians(0.9 * fake, real)[1:]
        naive += low <= 0.9 <= high
    assert 0.925 <= hits / 400 <= 0.985
    assert (naive / 400 < 0.88) == (each > 1)  # films of one patient counted as independent


@pytest.mark.parametrize(("each", "alike", "held"), [(1, 0.0, 120), (1, 0.0, 900), (3, 0.7, 150)])
def test_new_patients_films_are_called_copies_as_rarely_as_stated(each: int, alike: float, held: int) -> None:
    rng, alarms, five, limit, least, shares, trials = np.random.default_rng(6), 0, 0, 0, 0, [], 500
    for _ in range(trials):
        fake, prompts = patients_distances(rng, 300, each, alike)
        real, owners = patients_distances(rng, held, each, alike)
        found = copying.compare(near(fake), near(real), fake_clusters=prompts, real_clusters=owners)
        alarms, five = alarms + (found.memorization.p_value <= 0.05), five + (found.below[0.05].p_value <= 0.05)
        limit, least = limit + (found.limit.p_value <= 0.05), least + (found.p_value <= 0.05)
        shares.append(found.memorization.excess)
    assert max(alarms, five, limit, least) / trials <= 0.075
    assert abs(np.mean(shares)) < 0.003  # unbiased


def test_one_copy_in_a_hundred_is_detected() -> None:
    rng, detected, estimates = np.random.default_rng(7), 0, []
    for _ in range(40):
        train, held, fake = (rng.normal(size=(count, 16)) for count in (600, 1000, 2000))
        fake[:20] = train[:20] + 0.05 * rng.normal(size=(20, 16))
        found = copying.compare(search.nearest(fake, train), search.nearest(held, train))
        detected += found.p_value <= 0.01
        assert found.limit.hits >= 20
        estimates.append(found.below[0.0].excess)
    assert detected == 40
    assert np.mean(estimates) == pytest.approx(0.01, abs=0.002)


def test_a_null_of_training_films_beside_other_patients_tells_the_same() -> None:
    rng = np.random.default_rng(8)
    ids = np.arange(600) // 2
    own = search.nearest(TRAIN, TRAIN, 2, owners=(ids, ids))
    fresh = copying.compare(search.nearest(rng.normal(size=(400, 16)), TRAIN), own, real_clusters=ids)
    assert fresh.memorization.p_value > 0.05
    assert fresh.ratio.low < 1 < fresh.ratio.high
    copies = copying.compare(search.nearest(TRAIN[:400] + 0.01, TRAIN), own, real_clusters=ids)
    assert copies.ratio.value < 0.05
    assert copies.memorization.excess > 0.99
    assert copies.memorization.p_value < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"false_alarms": 0.0}, "false_alarms must be between 0 and 1, got 0.0"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
        ({"real_clusters": [1]}, "real_clusters: expected 3 ids, one per film, got 1"),
        (
            {"fake": near([1.0, np.inf])},
            "synthetic: expected a training film of another patient for each of 2 films, got",
        ),
        ({"fake": Nearest(np.ones((2, 1)), np.zeros((2, 1), int))}, "expected 2 neighbours of each film, got 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"fake": near([1.0, 2.0]), "real": near([1.0, 2.0, 3.0]), **change}
    with pytest.raises(ValueError, match=message):
        copying.compare(asked.pop("fake"), asked.pop("real"), **asked)


def test_one_near_copy_among_many_films_is_certain_and_new_films_are_not() -> None:
    rng, calls = np.random.default_rng(0), 0
    for _ in range(40):
        train, held_out, fake = (rng.normal(size=(count, 32)) for count in (300, 150, 500))
        clean = memorization.measure(fake, train, held_out).copying.certain
        calls += clean.hits > 0
        assert clean.expected == pytest.approx(copying.ALPHA / 500)
        fake[7] = train[3] + 0.3 * rng.normal(size=32)
        found = memorization.measure(fake, train, held_out).copying
        assert found.dcr[7] < found.certain.distance
        assert found.certain.p_value < 0.02
    assert calls <= 3, "at the stated chance of 1 % of sets"


@pytest.mark.parametrize("people", [1, 2])
def test_one_or_two_patients_set_no_certain_limit(people: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        null, films = (np.exp(rng.normal(0, 0.3, count)) for count in (40, 200))
        near = [Nearest(np.stack([side, side * 1.1], 1), np.zeros((len(side), 2), int)) for side in (films, null)]
        found = copying.compare(*near, real_clusters=np.arange(40) % people)
        assert found.certain.expected == found.limit.expected == pytest.approx(1 / (people + 1))
        assert found.certain.p_value > 0.01
