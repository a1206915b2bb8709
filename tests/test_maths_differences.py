"""Differences of two synthetic sets: by hand, by brute force, and honest under no difference."""

from __future__ import annotations

import numpy as np
import pytest

from synthchex.maths import differences, frechet, kernel


def draw(rows: int, shift: float, seed: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (rows, width))


def test_a_paired_mean_by_hand() -> None:
    first, second = np.array([3.0, 5.0, 4.0]), np.array([1.0, 2.0, 3.0])
    found = differences.of_means(first, second, paired=True, permutations=4000)
    assert found.value == pytest.approx(2.0)
    assert found.p_value == pytest.approx(2 / 8, abs=0.03), "of 8 sign patterns, all + and all - are as far from zero"


def test_kernel_difference_is_that_of_two_kernel_distances() -> None:
    first, second, real = draw(60, 0.3, 0), draw(60, 0.0, 1), draw(80, 0.0, 2)
    expected = kernel.kernel_distance(real, first).value - kernel.kernel_distance(real, second).value
    for paired in (True, False):
        found = differences.of_kernel(first, second, real, paired=paired, permutations=99)
        assert found.value == pytest.approx(expected, rel=1e-4, abs=1e-6)
    back = differences.of_kernel(second, first, real, paired=True, permutations=99)
    assert back.value == pytest.approx(-expected, rel=1e-4, abs=1e-6)


def test_exchanging_pairs_is_what_the_p_value_counts() -> None:
    rng = np.random.default_rng(3)
    first, second, real = draw(6, 0.5, 4), draw(6, 0.0, 5), draw(9, 0.0, 6)

    def gap(a: np.ndarray, b: np.ndarray) -> float:
        return kernel.kernel_distance(real, a).value - kernel.kernel_distance(real, b).value

    seen = abs(gap(first, second))
    every = [np.array([(code >> bit) & 1 for bit in range(6)], bool)[:, None] for code in range(64)]
    exact = np.mean(
        [abs(gap(np.where(s, first, second), np.where(s, second, first))) >= seen * (1 - 1e-6) for s in every]
    )
    found = differences.of_kernel(first, second, real, paired=True, permutations=20000, seed=int(rng.integers(99)))
    assert found.p_value == pytest.approx(exact, abs=0.02)


def test_leaving_out_clusters_is_brute_force() -> None:
    first, second, real = draw(12, 0.5, 7), draw(12, 0.0, 8), draw(10, 0.0, 9)
    prompts, patients = np.repeat(np.arange(4), 3), np.repeat(np.arange(5), 2)
    found = differences.of_kernel(
        first, second, real, paired=True, clusters=(prompts, prompts), real_clusters=patients, permutations=19
    )

    def gap(keep: np.ndarray, stay: np.ndarray) -> float:
        pair = [kernel.kernel_distance(real[stay], side[keep], precision="float64").value for side in (first, second)]
        return pair[0] - pair[1]

    everything = np.ones(12, bool), np.ones(10, bool)
    by_prompt = np.array([gap(prompts != c, everything[1]) for c in range(4)])
    by_patient = np.array([gap(everything[0], patients != c) for c in range(5)])
    variance = sum((len(v) - 1) / len(v) * np.square(v - v.mean()).sum() for v in (by_prompt, by_patient))
    assert found.standard_error == pytest.approx(np.sqrt(variance), rel=1e-3)


def test_frechet_difference_sees_the_nearer_set() -> None:
    first, second, real = draw(300, 0.5, 10), draw(300, 0.1, 11), draw(400, 0.0, 12)
    found = differences.of_frechet(first, second, real, paired=True)
    expected = frechet.frechet_distance(real, first) - frechet.frechet_distance(real, second)
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.low > 0
    assert found.p_value < 1e-4
    same = differences.of_frechet(first, first, real, paired=True)
    assert (same.value, same.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("paired", [True, False])
def test_no_difference_is_rarely_called_one(paired: bool) -> None:
    """60 pairs of equal models; at 10 % no more than binomial noise allows (99.9 %: 14 of 60)."""
    real = draw(100, 0.0, 13)
    small = [
        differences.of_kernel(
            draw(80, 0.2, 100 + i), draw(80, 0.2, 500 + i), real, paired=paired, permutations=199, seed=i
        ).p_value
        < 0.1
        for i in range(60)
    ]
    assert sum(small) <= 14
    assert np.mean(small) < 0.25


def test_unequal_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs, got 5 and 6 rows; pass paired=False"):
        differences.of_means(np.zeros(5), np.zeros(6), paired=True)
