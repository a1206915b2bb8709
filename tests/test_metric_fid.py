"""The fid module: extrapolation and floor with intervals, patients kept together, saved statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest

from synthchex.maths import frechet, infinity, moments

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def fid() -> Any:
    return evaluate.load(str(ROOT / "metrics" / "fid"))


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Synthetic (90, 6) and real (80, 6) features."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 6)) + 0.5, rng.normal(size=(80, 6))


def test_extrapolation_gets_an_interval_of_its_own(fid: Any, sets: Any) -> None:
    fake, real = sets
    result = fid.compute(predictions=fake, references=real, infinity=True, confidence_level=0.9, seed=3)
    found = infinity.infinity_interval(real, fake, confidence=0.9, seed=3)
    assert (result["fid_infinity_low"], result["fid_infinity_high"]) == pytest.approx(found[:2])
    assert result["fid_infinity_low"] < result["fid_infinity"] < result["fid_infinity_high"]
    assert result["fid_infinity_standard_error"] == pytest.approx(found.standard_error)
    assert result["fid_low"] < result["fid"] < result["fid_high"]
    assert not {"fid_infinity", "fid_infinity_low"} & set(fid.compute(predictions=fake, references=real))


def test_patients_reach_the_extrapolation_and_its_interval(fid: Any, sets: Any) -> None:
    fake, real = sets
    patients = np.arange(80) // 4
    options = {"infinity": True, "confidence_level": 0.9, "patients": (None, patients)}
    result = fid.compute(predictions=fake, references=real, **options)
    assert result["fid_infinity"] == infinity.fid_infinity(real, fake, real_clusters=patients).value
    expected = infinity.infinity_interval(real, fake, confidence=0.9, real_clusters=patients)
    assert result["fid_infinity_standard_error"] == pytest.approx(expected.standard_error)


def test_no_patient_is_in_both_halves_of_the_floor(fid: Any) -> None:
    # Two films of each patient, all but equal: rows dealt freely would put them on both sides of the floor.
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(40), 2)
    real = rng.normal(size=(40, 30))[patients] + 1e-3 * rng.normal(size=(80, 30))
    fake = rng.normal(size=(60, 30))
    ask = lambda ids: fid.compute(predictions=fake, references=real, floor=True, patients=(None, ids))  # noqa: E731
    kept, free = ask(patients), ask(None)
    assert kept["fid_floor"] > 1.15 * free["fid_floor"]
    assert kept["n_floor"] == 40
    odd = ask(np.minimum(np.arange(80) // 3, 20))
    assert 2 <= odd["n_floor"] <= 40
    alone = ask(np.zeros(80, int))
    assert (alone["fid_floor"], alone["n_floor"]) == (None, 0)


def test_saved_statistics_extrapolate_the_synthetic_side(fid: Any, sets: Any) -> None:
    fake, real = sets
    known = moments.moments(real)
    result = fid.compute(predictions=fake, references=known, infinity=True)
    assert result["fid_infinity"] == pytest.approx(infinity.fid_infinity(known, fake).value)
    both = fid.compute(predictions=moments.moments(fake), references=known)
    assert both["fid"] == pytest.approx(frechet.frechet_distance(real, fake), rel=1e-9)
    with pytest.raises(ValueError, match="expected features or images for infinity, got statistics; pass the features"):
        fid.compute(predictions=moments.moments(fake), references=known, infinity=True)


def test_labels_get_what_they_have_rows_for(fid: Any, sets: Any) -> None:
    fake, real = sets
    groups = {"half": (np.arange(90) < 45, np.arange(80) < 40), "three": (np.arange(90) < 3, np.arange(80) < 3)}
    result = fid.compute(predictions=fake, references=real, groups=groups, infinity=True, confidence_level=0.9)
    half, three = result["labels"]["half"], result["labels"]["three"]
    assert half["fid"] == pytest.approx(frechet.frechet_distance(real[:40], fake[:45]), rel=1e-9)
    assert half["fid_infinity_low"] < half["fid_infinity_high"]
    assert three["fid"] == pytest.approx(frechet.frechet_distance(real[:3], fake[:3]), rel=1e-9)
    assert three["fid_infinity"] is None
    assert any("expected at least 2.5 rows per feature" in warning for warning in three["warnings"])
    assert any(warning.startswith("no interval: ") for warning in three["warnings"])
