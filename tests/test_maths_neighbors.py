"""Precision, recall, density, coverage: by hand, bitwise against float64 brute force, ties, copies, outliers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthchex.maths import distances, intervals, neighbors

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "prdc.json").read_text())
FORMATS = ("int8", "float32") if distances.fastest(torch.zeros(1, 1)) == "int8" else ("float32",)


def by_brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Inside (real, fake), reached, and squared radii, by differences in float64."""

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        rows = [b.astype(np.float64) - row.astype(np.float64) for row in a]
        return np.stack([np.einsum("ij,ij->i", step, step) for step in rows])

    def radii(rows: np.ndarray) -> np.ndarray:
        own = squares(rows, rows)
        np.fill_diagonal(own, np.inf)
        return np.sort(own, axis=1)[:, k - 1]

    across, real_radii, fake_radii = squares(real, fake), radii(real), radii(fake)
    return across < real_radii[:, None], (across < fake_radii).any(1), real_radii, fake_radii


def assert_exact(real: np.ndarray, fake: np.ndarray, k: int, low: str, block: int = 64) -> neighbors.Overlap:
    found = neighbors.overlap(real, fake, nearest_k=k, low=low, block=block)  # type: ignore[arg-type]
    inside, reached, real_radii, fake_radii = by_brute_force(real, fake, k)
    around, covered = inside.sum(axis=0), inside.any(axis=1)
    np.testing.assert_array_equal(found.inside_real, around)
    np.testing.assert_array_equal(found.covered, covered)
    np.testing.assert_array_equal(found.reached, reached)
    least = np.where(inside, np.sqrt(real_radii)[:, None], np.inf).min(axis=0)
    np.testing.assert_allclose(found.rarity, np.where(around > 0, least, np.nan), rtol=1e-12)
    np.testing.assert_allclose(found.real_radii**2, real_radii, rtol=1e-12)
    np.testing.assert_allclose(found.fake_radii**2, fake_radii, rtol=1e-12)
    return found


def test_a_line_of_integers_by_hand() -> None:
    # Real 0 1 2 10, k=1: radii 1 1 1 8. Fake 1.5 5 20 20.5: radii 3.5 3.5 0.5 0.5.
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[1.5], [5], [20], [20.5]])
    found = neighbors.overlap(real, fake, nearest_k=1)
    assert found.inside_real.tolist() == [2, 1, 0, 0]  # 1.5 is 8.5 from 10; 5 is 5 from 10; 20 is 10 from 10
    assert (found.precision, found.density) == (0.5, 0.75)
    assert found.covered.tolist() == [False, True, True, True]
    assert found.reached.tolist() == [True, True, True, False]


@pytest.mark.parametrize("low", FORMATS)
@pytest.mark.parametrize(("n", "m", "width", "offset"), [(200, 150, 16, 0), (150, 220, 64, 300), (190, 130, 6, 3000)])
def test_bitwise_equal_to_brute_force(low: str, n: int, m: int, width: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    real = (rng.normal(size=(n, width)) + offset).astype(np.float32)
    fake = (1.05 * rng.normal(size=(m, width)) + offset).astype(np.float32)
    assert_exact(real, fake, 5, low)


@pytest.mark.parametrize("low", FORMATS)
def test_exact_with_copies_outliers_and_clusters(low: str) -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(180, 8)).astype(np.float32), rng.normal(size=(170, 8)).astype(np.float32)
    real[3] *= 1e4
    real[20:40] = fake[7]
    fake[50:90] = fake[7]
    fake[100:120] = 1e-3 * fake[100:120] + 5
    assert_exact(real, fake, 3, low)


@pytest.mark.parametrize("low", FORMATS)
def test_exact_when_every_distance_ties(low: str) -> None:
    corners = np.eye(60, dtype=np.float32)
    found = assert_exact(corners, corners[:40] * np.float32(1), 5, low, block=16)
    assert found.precision == 1.0  # each is inside its own copy's ball, at distance zero
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2).astype(np.float32)
    assert_exact(grid, grid + 1, 4, low)


@pytest.mark.parametrize("low", FORMATS)
def test_exact_far_from_the_origin_with_small_spread(low: str) -> None:
    rng = np.random.default_rng(12)
    real, fake = rng.normal(size=(150, 40)), 1.1 * rng.normal(size=(160, 40))
    assert_exact((1e4 + 0.1 * real).astype(np.float32), (1e4 + 0.1 * fake).astype(np.float32), 5, low)


@pytest.mark.parametrize("low", FORMATS)
def test_exact_when_radii_tie_across_the_sets(low: str) -> None:
    rng = np.random.default_rng(13)
    real = rng.normal(size=(120, 30)).astype(np.float32)
    # Each synthetic row is a real one: many lie exactly on the surface of a ball, which is outside.
    found = assert_exact(real, real[::-1][:80].copy(), 4, low)
    assert found.inside_real.min() >= 1


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-35, 1e-30, 1e-12, 1e12, 1e30, 1e37])
@pytest.mark.parametrize("low", FORMATS)
def test_any_scale_of_features(scale: float, kind: str, low: distances.Format) -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(90, 10)), rng.normal(size=(80, 10))
    one = neighbors.overlap(real, fake)
    other = neighbors.overlap((real * scale).astype(kind), (fake * scale).astype(kind), low=low)
    assert (one.precision, one.recall, one.density, one.coverage) == (
        other.precision,
        other.recall,
        other.density,
        other.coverage,
    )


def recorded_features(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The features that the packages were given, (N, D) and (M, D); the legacy generator's stream is frozen."""
    random, width = np.random.RandomState(case["seed"]), case["width"]
    real, fake = random.standard_normal((case["real"], width)), random.standard_normal((case["fake"], width))
    return real, case["spread"] * fake + case["shift"]


@pytest.mark.parametrize("package", RECORDED["packages"])
@pytest.mark.parametrize("case", RECORDED["cases"])
@pytest.mark.parametrize("low", FORMATS)
def test_equal_to_what_other_packages_gave(package: str, case: str, low: distances.Format) -> None:
    real, fake = recorded_features(RECORDED["cases"][case])
    k = RECORDED["cases"][case]["nearest_k"]
    found = neighbors.overlap(real, fake, nearest_k=k, low=low)
    means = {
        "realism": lambda: neighbors.realism(real, fake, nearest_k=k).mean(),
        "rarity": lambda: np.nanmean(found.rarity),
        "inside": lambda: np.isfinite(found.rarity).sum(),
    }
    for name, expected in RECORDED["packages"][package]["values"][case].items():
        value = means[name]() if name in means else getattr(found, name)
        # torch-fidelity and piq return float32
        assert value == pytest.approx(expected, rel=1e-7 if package in ("torch-fidelity", "piq") else 1e-12)


def test_prdc_itself_where_it_is_installed() -> None:
    prdc = pytest.importorskip("prdc")
    for case in RECORDED["cases"].values():
        real, fake = recorded_features(case)
        found = neighbors.overlap(real, fake, nearest_k=case["nearest_k"])
        for name, expected in prdc.compute_prdc(real, fake, nearest_k=case["nearest_k"]).items():
            assert getattr(found, name) == pytest.approx(expected, rel=1e-12)


def test_identical_and_distant_sets() -> None:
    rng = np.random.default_rng(4)
    real = rng.normal(size=(100, 6))
    same = neighbors.overlap(real, real)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    far = neighbors.overlap(real, real + 1000)
    assert (far.precision, far.recall, far.density, far.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_density_may_exceed_one() -> None:
    rng = np.random.default_rng(5)
    real = rng.normal(size=(200, 4))
    assert neighbors.overlap(real, 0.05 * rng.normal(size=(100, 4))).density > 1


def test_copies_alone_have_empty_balls() -> None:
    copies = np.ones((20, 3))
    found = neighbors.overlap(copies, copies)
    assert (found.precision, found.recall, found.density, found.coverage) == (0.0, 0.0, 0.0, 0.0)
    assert not found.real_radii.any()


def test_swapping_the_sides_swaps_precision_and_recall() -> None:
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(120, 5)), rng.normal(size=(90, 5)) + 0.5
    one, other = neighbors.overlap(real, fake), neighbors.overlap(fake, real)
    assert (one.precision, one.recall) == (other.recall, other.precision)


@pytest.mark.parametrize("block", [5, 33, 4096])
def test_tiles_do_not_matter(block: int) -> None:
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(130, 9)).astype(np.float32), rng.normal(size=(101, 9)).astype(np.float32)
    assert_exact(real, fake, 5, "float32", block=block)


@pytest.mark.parametrize("low", FORMATS)
@pytest.mark.parametrize("width", [1, 3, 300, 2048])
def test_the_band_holds_for_every_pair(low: str, width: int) -> None:
    rng = np.random.default_rng(8)
    rows = (rng.normal(size=(96, width)) * np.geomspace(1, 1e3, 96)[:, None] + 100).astype(np.float32)
    one, _ = distances.centre_pair(rows, rows, low)  # type: ignore[arg-type]
    everything = slice(0, 96)
    tile = distances.upper(one, everything, one, everything)
    steps = one.doubles(everything)[:, None] - one.doubles(everything)
    above = tile.values.double() + steps.square().sum(-1) * one.scale**2 / 2
    assert (above >= 0).all()
    assert (above <= 2 * (tile.rows[:, None] + tile.columns)).all()


@pytest.mark.parametrize(("n", "m"), [(5, 50), (50, 5), (1, 50)])
def test_as_few_rows_as_neighbours_are_refused(n: int, m: int) -> None:
    rng = np.random.default_rng(9)
    with pytest.raises(
        ValueError, match=r"expected more rows than nearest_k=5, got [15]; pass more images or a smaller"
    ):
        neighbors.overlap(rng.normal(size=(n, 3)), rng.normal(size=(m, 3)))


def test_one_row_more_than_neighbours_is_enough() -> None:
    rng = np.random.default_rng(10)
    assert_exact(rng.normal(size=(6, 3)), rng.normal(size=(7, 3)), 5, "float32")


@pytest.mark.parametrize("low", FORMATS)
@pytest.mark.parametrize("n", [2, 3])
def test_two_or_three_rows(n: int, low: str) -> None:
    rng = np.random.default_rng(14)
    assert_exact(rng.normal(size=(n, 5)), rng.normal(size=(5 - n, 5)), 1, low)


def test_other_refusals() -> None:
    rows = np.zeros((9, 3))
    with pytest.raises(ValueError, match="nearest_k must be at least 1, got 0"):
        neighbors.overlap(rows, rows, nearest_k=0)
    with pytest.raises(ValueError, match="expected features of one width, got 3 for real and 2 for fake"):
        neighbors.overlap(rows, rows[:, :2])
    with pytest.raises(ValueError, match="expected features whose squares are finite in float64, got larger ones"):
        neighbors.overlap(rows + np.arange(9)[:, None] * 1e200, rows)


def test_int8_is_refused_where_its_products_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        first, second = one.int()[:, :, None] + 128, two.int()  # unsigned by signed, two products in 16 bits
        pairs = first[:, ::2] * second[::2] + first[:, 1::2] * second[1::2]
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(1) - 128 * second.sum(0)).int()

    distances._int8_is_exact.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", saturating)
    rows = np.random.default_rng(15).normal(size=(20, 3))
    assert distances.fastest(torch.zeros(1, 1)) == "float32"
    with pytest.raises(ValueError, match="low='int8': expected a processor with exact int8 products"):
        neighbors.overlap(rows, rows, low="int8")
    assert neighbors.overlap(rows, rows).precision == 1.0
    distances._int8_is_exact.cache_clear()


@pytest.mark.skipif("int8" not in FORMATS, reason="no fast int8 products here")
def test_the_filter_is_int8_only_where_it_decides_enough() -> None:
    rng = np.random.default_rng(16)
    near = rng.normal(size=(3000, 6)) @ rng.normal(size=(6, 64))
    alike = rng.normal(size=(3000, 500))  # all distances within a few per cent
    picked = [neighbors._ready(rows, rows, 5, "auto")[0].format for rows in (near, alike)]
    assert picked == ["int8", "float32"]


@pytest.mark.parametrize("low", FORMATS)
def test_tensors_give_the_same_and_features_stay_on_their_device(low: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(17)
    real, fake = rng.normal(size=(150, 48)).astype(np.float32), rng.normal(size=(140, 48)).astype(np.float32)
    real[:30] = real[30:60]
    expected = assert_exact(real, fake, 5, low)
    realism = neighbors.realism(real, fake)
    brought = []

    def to_host(tensor: torch.Tensor) -> np.ndarray:
        brought.append(tuple(tensor.shape))
        return np.asarray(tensor)

    sides = torch.from_numpy(real), torch.from_numpy(fake)
    if low == "float32":  # as on a GPU: NumPy may not look at a tensor that has not been brought over
        monkeypatch.setattr(distances, "on_cpu", lambda values: False)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (brought.append(tuple(tensor.shape)), tensor)[1])
    monkeypatch.setattr("synthchex.maths.arrays.to_numpy", to_host)
    found = neighbors.overlap(*sides, low=low)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.inside_real, expected.inside_real)
    np.testing.assert_array_equal(found.reached, expected.reached)
    np.testing.assert_allclose(found.real_radii, expected.real_radii, rtol=1e-14)
    np.testing.assert_allclose(neighbors.realism(*sides), realism, rtol=1e-12)
    assert brought
    assert not [shape for shape in brought if len(shape) > 1]


def test_realism_by_hand() -> None:
    # Radii 1 1 2 5; the median is 1.5, so the balls around 3 and 8 are not trusted. Fake 1.5: radius 1, distance 0.5.
    real, fake = np.array([[0.0], [1], [3], [8]]), np.array([[1.5], [4], [1], [-4]])
    assert neighbors.realism(real, fake, nearest_k=1).tolist() == pytest.approx([2.0, 1 / 3, np.inf, 0.25])
    known = neighbors.realism(real, fake, nearest_k=1, real_radii=np.array([1.0, 1, 2, 5]))
    assert known.tolist() == neighbors.realism(real, fake, nearest_k=1).tolist()
    alike = neighbors.realism(np.arange(6.0)[:, None], fake, nearest_k=1)
    assert np.isnan(alike).all()


def test_rarity_by_hand() -> None:
    # Real 0 1 2 10, k=1: radii 1 1 1 8. 1.5 is in the balls of 1, 2 and 10; 5 in that of 10 alone; 30 in none.
    found = neighbors.overlap(np.array([[0.0], [1], [2], [10]]), np.array([[1.5], [5], [30]]), nearest_k=1)
    assert found.rarity[:2].tolist() == [1.0, 8.0]
    assert np.isnan(found.rarity[2])


def test_radii_by_hand() -> None:
    assert neighbors.radii(np.array([[0.0], [1], [3], [7]]), nearest_k=2).tolist() == [3, 2, 3, 6]


def test_share_interval_is_wilsons() -> None:
    found = intervals.of_share(np.arange(10) < 2)
    assert (found.low, found.high) == pytest.approx((0.0567, 0.5098), abs=2e-3)
    none = intervals.of_share(np.zeros(50, bool))
    assert none.low == 0.0
    assert none.high == pytest.approx(0.0713, abs=1e-3)


def test_patients_widen_the_share_interval() -> None:
    hits = np.repeat(np.arange(20) % 2 == 0, 10)
    alone, together = intervals.of_share(hits), intervals.of_share(hits, clusters=np.repeat(np.arange(20), 10))
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_counts_interval_is_not_below_zero() -> None:
    found = intervals.of_counts(np.array([0.0] * 30 + [3.0]))
    assert found.low == 0.0
    assert found.high > 3 / 31


def test_intervals_refuse_what_means_nothing() -> None:
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        intervals.of_share(np.ones(5, bool), confidence=95)
    with pytest.raises(ValueError, match="clusters: expected at least 2, got 1"):
        intervals.of_share(np.ones(5, bool), clusters=["a"] * 5)
    with pytest.raises(ValueError, match="clusters: expected 5 ids, one per row, got 2"):
        intervals.of_share(np.ones(5, bool), clusters=["a", "b"])


@pytest.mark.slow
def test_share_interval_covers_with_patients() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(1000):
        chance = rng.beta(3, 2, size=60)  # truth 0.6
        facts = rng.random((60, 4)) < chance[:, None]
        found = intervals.of_share(facts.ravel(), clusters=np.repeat(np.arange(60), 4))
        hits += found.low <= 0.6 <= found.high
    assert 0.93 <= hits / 1000 <= 0.975
