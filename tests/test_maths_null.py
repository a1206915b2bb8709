"""P-values of kernel distances: by brute force, uniform where nothing differs, small where something does."""

from __future__ import annotations

import numpy as np
import pytest

from synthchex.maths import cmmd, kernel, null


def gram(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The default kernel, float64."""
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def drawn_sets(seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (18, 4) and (13, 4)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(18, 4)), rng.normal(size=(13, 4)) + shift


def p_of(real: np.ndarray, fake: np.ndarray, **options: object) -> float:
    found = kernel.compare(real, fake, precision="float64", **options).p_value  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exchanged_rows_by_brute_force(seed: int) -> None:
    real, fake = drawn_sets(seed, shift=0.3)
    rows, draws = np.r_[real, fake], null.draw((18, 13), (None, None), 50, seed)
    now_real = np.r_[draws.real, draws.fake].astype(bool)
    assert (now_real.sum(axis=0) == 18).all()
    observed = kernel.kernel_distance(real, fake, precision="float64").value
    values = [kernel.kernel_distance(rows[mask], rows[~mask], precision="float64").value for mask in now_real.T]
    expected = (1 + (np.array(values) >= observed).sum()) / 51
    assert p_of(real, fake, permutations=50, seed=seed) == pytest.approx(expected)
    assert p_of(real, fake, permutations=50, seed=seed, block=5) == pytest.approx(expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_signs_by_brute_force(seed: int) -> None:
    real, fake = drawn_sets(seed, shift=0.3)
    patients = np.arange(18) // 3
    draws = null.draw((18, 13), (patients, None), 50, seed)
    assert draws.signs
    assert all((draws.real[patients == p] == draws.real[patients == p][0]).all() for p in range(6))

    def inner(rows: np.ndarray, signs: np.ndarray) -> float:
        centring = np.eye(len(rows)) - 1 / len(rows)
        centred = centring @ gram(rows, rows) @ centring
        return float((signs @ centred @ signs - np.trace(centred)) / (len(rows) * (len(rows) - 1)))

    values = []
    for left, right in zip(draws.real.T.astype(float), draws.fake.T.astype(float), strict=True):
        cross = (left - left.mean()) @ gram(real, fake) @ (right - right.mean()) / (18 * 13)
        values.append(inner(real, left) + inner(fake, right) - 2 * cross)
    observed = kernel.kernel_distance(real, fake, precision="float64").value
    expected = (1 + (np.array(values) >= observed).sum()) / 51
    assert p_of(real, fake, permutations=50, seed=seed, clusters=(patients, None)) == pytest.approx(expected)


def test_one_pass_gives_everything_that_separate_ones_give() -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(90, 6)), rng.normal(size=(70, 6)) + 0.2
    columns = rng.random((90, 3)) < 0.5, rng.random((70, 3)) < 0.5
    subsets = [(rng.permutation(90)[:30], rng.permutation(70)[:20]) for _ in range(4)]
    ids = np.arange(90) // 2, np.arange(70) // 5
    together = kernel.compare(
        real, fake, columns, subsets=subsets, permutations=30, clusters=ids, precision="float64", block=32
    )
    assert together.p_value == p_of(real, fake, permutations=30, clusters=ids)
    assert together.whole == pytest.approx(kernel.compare(real, fake, clusters=ids, precision="float64").whole)
    each = [kernel.kernel_distance(real[a], fake[b], precision="float64").value for a, b in subsets]
    assert together.subsets == pytest.approx(each, rel=1e-9)
    for found, a, b in zip(together.selections, *(side.T for side in columns), strict=True):
        alone = kernel.kernel_distance(
            real[a], fake[b], precision="float64", real_clusters=ids[0][a], fake_clusters=ids[1][b]
        )
        assert found == pytest.approx(alone, rel=1e-9)


def test_uniform_where_nothing_differs_and_never_below_one_over_all_draws() -> None:
    found = np.array([p_of(*drawn_sets(seed), permutations=19, seed=seed) for seed in range(400)])
    assert found.min() == pytest.approx(1 / 20)
    shares = np.histogram(found, np.linspace(0.025, 1.025, 21))[0] / 400
    assert abs(found.mean() - 0.525) < 3 * 0.288 / 20
    assert shares.max() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_small_where_means_or_spreads_differ() -> None:
    assert p_of(*drawn_sets(0, shift=1.5), permutations=999) == pytest.approx(0.001)
    rng = np.random.default_rng(1)
    wide = p_of(rng.normal(size=(150, 4)), 1.6 * rng.normal(size=(150, 4)), permutations=199)
    assert wide == pytest.approx(1 / 200)
    x, y = (rng.normal(size=(60, 8)) + shift for shift in (1.0, 0.5))
    assert cmmd.compare(x, y, sigma=3, permutations=199).p_value == pytest.approx(1 / 200)


def test_ties_count_against_a_difference() -> None:
    same = np.ones((6, 3), np.float32)
    assert kernel.compare(same, same, permutations=20).p_value == 1.0
    real, _ = drawn_sets(4)
    twice = np.r_[real, real]
    assert p_of(twice, twice, permutations=99) > 0.9


def test_films_of_few_patients_prove_little() -> None:
    # Eight patients a side, twenty films each that hardly differ: rows as independent would reject nearly always.
    rejected = {"rows": 0, "patients": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sides = [rng.normal(size=(8, 4))[np.arange(160) // 20] + 0.1 * rng.normal(size=(160, 4)) for _ in range(2)]
        ids = (np.arange(160) // 20,) * 2
        rejected["rows"] += p_of(*sides, permutations=39) <= 0.05
        rejected["patients"] += p_of(*sides, permutations=39, clusters=ids) <= 0.05
    assert rejected["rows"] >= 18
    assert rejected["patients"] <= 4


def test_what_has_no_null_distribution_is_refused() -> None:
    real, fake = drawn_sets(0)
    with pytest.raises(ValueError, match="real_clusters: expected at least 5 clusters for a p-value, got 3; leave out"):
        kernel.compare(real, fake, permutations=9, clusters=(np.arange(18) // 6, None))
    with pytest.raises(ValueError, match="permutations must be at least 1, got -1; 1000 is usual"):
        kernel.compare(real, fake, permutations=-1)


@pytest.mark.slow
@pytest.mark.parametrize("films", [(3, 3), (3, 1), (1, 4)])
def test_the_error_rate_with_patients_is_the_stated_one(films: tuple[int, int]) -> None:
    rejected = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        sides, ids = [], []
        for count in films:
            own = np.repeat(np.arange(30), count)
            sides.append(0.8 * rng.normal(size=(30, 6))[own] + 0.6 * rng.normal(size=(len(own), 6)))
            ids.append(own)
        rejected += p_of(sides[0], sides[1], permutations=99, seed=seed, clusters=(ids[0], ids[1])) <= 0.05
    assert 0.025 <= rejected / 500 <= 0.085
