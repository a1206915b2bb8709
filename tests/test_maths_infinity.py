"""Extrapolated Fréchet distance: the bias goes, whole patients stay together, the interval covers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synthchex.maths import frechet, infinity


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Real and synthetic (1500, 30), true distance 0.3."""
    rng = np.random.default_rng(8)
    return rng.normal(size=(1500, 30)), rng.normal(size=(1500, 30)) + 0.1


def test_the_bias_of_both_sides_goes(sets: Any) -> None:
    biased = frechet.frechet_distance(*sets)
    found = infinity.fid_infinity(*sets, seed=1)
    assert biased > 0.5
    assert found.value == pytest.approx(0.3, abs=0.12)
    assert found.slope > 0
    assert infinity.fid_infinity(*sets, seed=1).value == found.value != infinity.fid_infinity(*sets, seed=2).value
    known = infinity.fid_infinity(frechet.moments(sets[0]), sets[1], seed=1)
    assert known.value == pytest.approx((biased + 0.3) / 2, abs=0.12)


def test_points_are_nested_parts_from_both_ends(sets: Any) -> None:
    real, fake = sets
    found = infinity.fid_infinity(real, fake, points=5, seed=3)
    assert found.sizes.tolist() == [750, 1125, 1500, 750, 1125]
    left, right = np.random.default_rng(4).permutation(1500), np.random.default_rng(3).permutation(1500)
    expected = [frechet.frechet_distance(real[left[:n]], fake[right[:n]]) for n in (750, 1125, 1500)]
    expected += [frechet.frechet_distance(real[left[-n:]], fake[right[-n:]]) for n in (750, 1125)]
    np.testing.assert_allclose(found.distances, expected, rtol=1e-9)
    assert found.value == pytest.approx(np.polyfit(1 / found.sizes, expected, 1)[1], rel=1e-9)


@pytest.mark.parametrize(("real", "fake"), [(4, 4), (5, 7), (4, 60), (61, 5)])
def test_a_handful_of_rows(real: int, fake: int) -> None:
    rng = np.random.default_rng(9)
    sides = rng.normal(size=(real, 1)), rng.normal(size=(fake, 1)) + 1
    for first in (sides[0], frechet.moments(sides[0])):
        found = infinity.fid_infinity(first, sides[1])
        assert len(found.sizes) == len(found.distances) == 15
        assert found.sizes.min() >= 2
        assert found.distances[7] == pytest.approx(frechet.frechet_distance(*sides), rel=1e-9)


@pytest.mark.parametrize("dead", [False, True])
def test_parts_against_fixed_moments(sets: Any, dead: bool) -> None:
    real, fake = (side.copy() for side in sets)
    if dead:  # a factor that is not square, and a mean outside of its range
        real[:, 3] = 1
    known, order = frechet.moments(real[:601]), np.random.default_rng(3).permutation(1001)
    found = infinity.fid_infinity(known, fake[:1001], points=5, seed=3)
    parts = [order[:500], order[:751], order, order[500:], order[250:]]
    assert found.sizes.tolist() == [len(part) for part in parts]
    expected = [frechet.frechet_distance(known, fake[part]) for part in parts]
    np.testing.assert_allclose(found.distances, expected, rtol=1e-9)


def test_steep_spectra_keep_their_digits_against_fixed_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked = []
    values = torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda matrix: asked.append(matrix.shape) or values(matrix))
    rng = np.random.default_rng(7)
    mix = np.linalg.qr(rng.normal(size=(40, 40)))[0] * np.arange(1.0, 41) ** -4
    real, fake = (rng.normal(size=(200, 40)) @ mix.T for _ in range(2))
    found = infinity.fid_infinity(frechet.moments(real), fake, points=3)
    assert found.distances[1] == pytest.approx(frechet.frechet_distance(real, fake), rel=1e-8)
    assert len(asked) == 4


def test_sides_of_unequal_counts_are_cut_in_proportion(sets: Any) -> None:
    found = infinity.fid_infinity(sets[0], sets[1][:600], points=3)
    assert found.sizes.tolist() == [300, 600, 300]
    assert found.distances[1] == pytest.approx(frechet.frechet_distance(sets[0], sets[1][:600]), rel=1e-10)


def test_both_ends_spread_less_than_one() -> None:
    rng = np.random.default_rng(5)
    both, one = [], []
    for _ in range(60):
        real, fake = rng.normal(size=(80, 4)), 1.3 * rng.normal(size=(80, 4)) + 0.3
        found = infinity.fid_infinity(real, fake)
        both.append(found.value)
        one.append(np.polyfit(1 / found.sizes[:8], found.distances[:8], 1)[1])
    assert np.std(both) < 0.85 * np.std(one)


def test_patients_stay_together() -> None:
    # Four copies of each row: the bias is that of 200 patients. Rows dealt freely would hide it from the line.
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(2000, 10)), np.repeat(rng.normal(size=(200, 10)), 4, axis=0)
    patients = np.repeat(np.arange(200), 4)
    free = infinity.fid_infinity(frechet.moments(real), fake).value
    kept = infinity.fid_infinity(frechet.moments(real), fake, fake_clusters=patients).value
    assert abs(kept) < 0.5 * free
    wide = infinity.infinity_interval(frechet.moments(real), fake, fake_clusters=patients)
    narrow = infinity.infinity_interval(frechet.moments(real), fake)
    assert wide.standard_error > 1.3 * narrow.standard_error


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (74, {}, r"fake: expected at least 2.5 rows per feature \(75 for width 30\).* got 74; pass more images"),
        (90, {"points": 4}, "points must be odd and at least 3, got 4; 15 is usual"),
        (90, {"fake_clusters": [1, 2]}, "expected 90 ids, one per row, got 2"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(sets: Any, rows: int, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infinity.fid_infinity(sets[0], sets[1][:rows], **options)


def test_widths_are_compared(sets: Any) -> None:
    with pytest.raises(ValueError, match="expected features of one width, got 29 for real and 30 for fake"):
        infinity.fid_infinity(frechet.moments(sets[0][:, :29]), sets[1])


def test_few_references_are_named(sets: Any) -> None:
    with pytest.raises(ValueError, match=r"real: expected at least 2.5 rows per feature.* got 70"):
        infinity.fid_infinity(frechet.moments(sets[0][:70]), sets[1])


def test_interval_is_seeded_and_refuses_what_it_cannot_do(sets: Any) -> None:
    found = infinity.infinity_interval(*sets, seed=2)
    assert found == infinity.infinity_interval(*sets, seed=2)
    assert (found.low + found.high) / 2 == pytest.approx(infinity.fid_infinity(*sets, seed=2).value)
    assert infinity.infinity_interval(*sets, seed=2, confidence=0.99).high > found.high
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        infinity.infinity_interval(*sets, confidence=95)
    with pytest.raises(ValueError, match="fake: expected at least 5 clusters to leave out in turn, got 4"):
        infinity.infinity_interval(*sets, fake_clusters=np.arange(1500) % 4)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.15, 1.1), (0.4, 1.3)])
def test_interval_covers_the_distance_of_the_distributions(shift: float, scale: float) -> None:
    rng = np.random.default_rng(13)
    spread = np.arange(1.0, 9) ** -0.5
    truth = 8 * shift**2 + float((((scale - 1) * spread) ** 2).sum())
    covered = 0
    for trial in range(300):
        real, fake = rng.normal(size=(160, 8)) * spread, rng.normal(size=(160, 8)) * spread * scale + shift
        found = infinity.infinity_interval(real, fake, seed=trial)
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.92
