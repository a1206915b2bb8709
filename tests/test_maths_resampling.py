"""Distances between clusters: by their definition, unbiased where patients have several films, tests, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from synthchex.maths import kernel, resampling

Sides = tuple[np.ndarray, np.ndarray, np.ndarray]
SIZES = [1, 1, 2, 3, 5, 1, 4, 2, 1, 3]


def clustered(
    rng: np.random.Generator, sizes: list[int], count: int, *, width: int = 24, shift: float = 0.0, alike: float = 0.6
) -> Sides:
    """Real rows in clusters that share the part `alike` of their variance, independent fake rows, ids of the real."""
    ids = np.repeat(np.arange(len(sizes)), sizes)
    own, shared = rng.normal(size=(len(ids), width)), rng.normal(size=(len(sizes), width))[ids]
    real = 0.5 + np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
    return real.astype(np.float32), (0.5 + shift + rng.normal(size=(count, width))).astype(np.float32), ids


def none(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No selections beside the one of every row."""
    return np.zeros((len(real), 0), bool), np.zeros((len(fake), 0), bool)


def by_definition(
    rows: np.ndarray, ids: np.ndarray, masks: tuple[np.ndarray, np.ndarray], weights: np.ndarray
) -> float:
    """Mean of the centred kernel between rows of different clusters, pair by pair."""
    k = (rows @ rows.T / rows.shape[1] + 1) ** 3
    mean = k @ weights
    k = k - mean[:, None] - mean[None] + weights @ mean
    found = [k[i, j] for i in np.flatnonzero(masks[0]) for j in np.flatnonzero(masks[1]) if ids[i] != ids[j]]
    return float(np.mean(found))


@pytest.mark.parametrize("block", [7, 4096])
def test_means_and_left_out_means_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("synthchex.maths.tiles.BLOCK", block)
    rng = np.random.default_rng(0)
    real, fake, ids = clustered(rng, SIZES, 18)
    real, fake = real.astype(float), fake.astype(float)
    others = np.repeat(np.arange(9), 2)
    columns = rng.random((len(real), 2)) < 0.7, rng.random((18, 2)) < 0.7
    pairs = resampling.between_clusters(real, fake, (ids, others), columns)
    rows, every = np.r_[real, fake], np.r_[ids, others + 10]
    counts = resampling.effective(ids), resampling.effective(others)
    share = np.r_[np.full(len(real), counts[0] / len(real)), np.full(18, counts[1] / 18)] / sum(counts)
    for left, right in ((pairs.real, pairs.real), (pairs.real, pairs.fake), (pairs.fake, pairs.fake)):
        found = resampling.means(left, right, pairs.starts)
        assert found.shape == (20, 2)
        masks = left.rows[:, 0], right.rows[:, 1]
        found = resampling.means(left.take(slice(0, 1)), right.take(slice(1, 2)), pairs.starts)[:, 0]
        assert found[0] == pytest.approx(by_definition(rows, every, masks, share), rel=1e-9)
        for cluster in (0, 4, 9, 10, 18):
            rest = masks[0] & (every != cluster), masks[1] & (every != cluster)
            assert found[1 + cluster] == pytest.approx(by_definition(rows, every, rest, share), rel=1e-9)


def test_rows_of_their_own_cluster_give_the_usual_distance_and_its_error() -> None:
    real, fake, _ = clustered(np.random.default_rng(1), [1] * 40, 30, shift=0.2)
    pairs = resampling.between_clusters(real, fake, (np.arange(40), np.arange(30)), none(real, fake))
    usual = kernel.kernel_distance(real, fake, precision="float64")
    assert pairs.distance[0] == pytest.approx(usual.value, rel=1e-4)
    found = resampling.jackknife(pairs.distance, pairs.patients)
    assert found.standard_error == pytest.approx(usual.standard_error, rel=1e-4)


def test_permutations_of_single_rows_are_exact_and_those_of_the_kernel() -> None:
    real, fake, _ = clustered(np.random.default_rng(2), [1] * 40, 30, shift=0.1)
    columns = none(real, fake)
    pairs = resampling.between_clusters(real, fake, (np.arange(40), np.arange(30)), columns, permutations=199, seed=3)
    usual = kernel.compare(real, fake, permutations=199, seed=3)
    assert pairs.p_value == usual.p_value
    assert 1 / 200 <= float(pairs.p_value or 0) < 0.5


def test_no_bias_where_films_of_one_patient_are_alike() -> None:
    rng = np.random.default_rng(3)
    ours, usual = [], []
    for _ in range(60):
        real, fake, ids = clustered(rng, [3] * 12, 40)
        ours.append(resampling.between_clusters(real, fake, (ids, np.arange(40)), none(real, fake)).distance[0])
        usual.append(kernel.kernel_distance(real, fake).value)
    error = np.std(ours, ddof=1) / np.sqrt(60)
    assert abs(np.mean(ours)) < 3 * error
    assert np.mean(usual) > 10 * error


def test_an_offset_of_all_features_does_not_leak_through_unequal_clusters() -> None:
    rng = np.random.default_rng(4)
    centred, plain = [], []
    for _ in range(40):
        real, fake, ids = clustered(rng, [1] * 10 + [10, 6], 25)
        real, fake = real + 1.5, fake + 1.5
        centred.append(resampling.between_clusters(real, fake, (ids, np.arange(25)), none(real, fake)).distance[0])
        rows, every = np.r_[real, fake], np.r_[ids, 12 + np.arange(25)]
        same, nothing = np.arange(len(rows)) < len(real), np.zeros(len(rows))
        parts = [by_definition(rows, every, masks, nothing) for masks in ((same, same), (~same, ~same), (same, ~same))]
        plain.append(parts[0] + parts[1] - 2 * parts[2])
    assert np.std(centred) < 0.8 * np.std(plain)


@pytest.mark.parametrize("sizes", [[3] * 12, SIZES + SIZES, [1] * 36], ids=["even", "uneven", "single"])
def test_p_values_are_as_rare_as_they_say(sizes: list[int]) -> None:
    rng = np.random.default_rng(5)
    found = []
    for seed in range(150):
        real, fake, ids = clustered(rng, sizes, 60)
        ids_of = ids, np.arange(60)
        found.append(
            resampling.between_clusters(real, fake, ids_of, none(real, fake), permutations=99, seed=seed).p_value
        )
    for level in (0.05, 0.2):
        hits = int((np.array(found, float) <= level).sum())
        assert hits <= stats.binom.ppf(0.999, 150, level)
    assert stats.binom.ppf(0.001, 150, 0.2) <= hits  # and not so rare that nothing could be found


def test_a_shift_is_found_with_few_patients() -> None:
    real, fake, ids = clustered(np.random.default_rng(6), [3] * 12, 60, shift=0.5)
    pairs = resampling.between_clusters(real, fake, (ids, np.arange(60)), none(real, fake), permutations=199)
    assert pairs.p_value == 1 / 200


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(7).normal(size=25)
    left_out = np.r_[values.mean(), (values.sum() - values) / 24, np.full(5, values.mean())]
    found = resampling.jackknife(left_out, 25, confidence=0.9)
    error = values.std(ddof=1) / 5
    assert found.standard_error == pytest.approx(error)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.95, 24) * error)


def test_jackknife_that_is_not_defined_says_so() -> None:
    assert np.isnan(resampling.jackknife(np.array([1.0, 2.0, np.nan, 1.0]), 2).standard_error)
    assert resampling.jackknife(np.ones(6), 3) == (1.0, 1.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1] * 36, [3] * 12, [5] * 8, SIZES + SIZES], ids=["single", "12", "8", "uneven"])
@pytest.mark.parametrize("shift", [0.0, 0.35])
def test_intervals_cover_the_truth(sizes: list[int], shift: float) -> None:
    rng = np.random.default_rng(8)
    large = [kernel.kernel_distance(*clustered(rng, [1] * 3000, 3000, shift=shift)[:2]).value for _ in range(4)]
    truth, hits = float(np.mean(large)) if shift else 0.0, 0
    for _ in range(300):
        real, fake, ids = clustered(rng, sizes, 40, shift=shift)
        pairs = resampling.between_clusters(real, fake, (ids, np.arange(40)), none(real, fake))
        found = resampling.jackknife(pairs.distance, pairs.patients)
        hits += found.low <= truth <= found.high
    assert stats.binom.ppf(0.001, 300, 0.95) <= hits


def test_parts_share_no_patient_and_are_even() -> None:
    rng = np.random.default_rng(9)
    ids = np.repeat(np.arange(10), SIZES)
    dealt = np.stack([resampling.deal(ids, rng) for _ in range(50)])
    for first in dealt:
        assert not set(ids[first]) & set(ids[~first])
        assert abs(int(first.sum()) - int((~first).sum())) <= 3
    assert len({first.tobytes() for first in dealt}) > 20
    assert dealt.mean(axis=0) == pytest.approx(0.5, abs=0.25)


def test_one_large_patient_stands_against_all_others() -> None:
    ids = np.r_[np.zeros(20, int), np.arange(1, 21)]
    first = resampling.deal(ids, np.random.default_rng(10))
    assert first.sum() == 20
    assert len(set(ids[first == first[0]])) == 1


def test_effective_clusters_by_hand() -> None:
    assert resampling.effective(np.arange(7)) == pytest.approx(7)
    assert resampling.effective(np.repeat([0, 1], 9)) == pytest.approx(2)
    assert resampling.effective(np.array([0, 0, 0, 1])) == pytest.approx(16 / 10)


def test_adjusted_by_hand() -> None:
    assert resampling.adjusted([0.01, 0.04, 0.03], "holm").tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert resampling.adjusted([0.01, 0.04, 0.03], "bh").tolist() == pytest.approx([0.03, 0.04, 0.04])
    assert resampling.adjusted([0.9, 0.5]).tolist() == [1.0, 1.0]
    assert resampling.adjusted([], "holm").tolist() == resampling.adjusted([], "bh").tolist() == []


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adjustment must be one of \('holm', 'bh'\), got 'none'"):
        resampling.adjusted([0.1], "none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected p values between 0 and 1, got 0\.1 to 1\.5"):
        resampling.adjusted([0.1, 1.5])
    rows = np.random.default_rng(11).normal(size=(6, 3))
    with pytest.raises(ValueError, match="real: expected cluster numbers that ascend from 0 one by one; sort the rows"):
        resampling.between_clusters(rows, rows, (np.array([0, 1, 0, 1, 2, 2]), np.arange(6)), none(rows, rows))
    with pytest.raises(ValueError, match="fake: expected cluster numbers that ascend"):
        resampling.between_clusters(rows, rows, (np.arange(6), np.array([0, 0, 1, 1, 3, 3])), none(rows, rows))
    with pytest.raises(ValueError, match="real_clusters: expected at least 5 clusters for a p-value, got 2"):
        resampling.between_clusters(rows, rows, (np.repeat([0, 1], 3), np.arange(6)), none(rows, rows), permutations=9)
    with pytest.raises(ValueError, match="expected the facts of both parts, got None"):
        resampling.Apart(kernel.Polynomial()).finish(None, None, None)  # type: ignore[arg-type]
