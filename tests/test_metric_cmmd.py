"""The cmmd module as its users call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import synthchex
from synthchex import measure
from synthchex.maths import cmmd as maths


@pytest.fixture(scope="module")
def cmmd() -> Any:
    return synthchex.load("cmmd")


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings, synthetic (80, 16) and real (100, 16)."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(count, 16)) + shift for count, shift in ((80, 0.6), (100, 1.0))]
    fake, real = ((r / np.linalg.norm(r, axis=1, keepdims=True)).astype(np.float32) for r in rows)
    return fake, real


def test_values_are_those_of_the_maths(cmmd: Any, sets: Any) -> None:
    fake, real = sets
    result = cmmd.compute(predictions=fake, references=real, confidence_level=0.95)
    expected = maths.cmmd(real, fake)
    assert (result["cmmd"], result["cmmd_standard_error"]) == expected
    assert result["cmmd_low"] < result["cmmd"] < result["cmmd_high"]
    assert result["warnings"] == []
    assert (result["n_predictions"], result["n_references"], result["cmmd_biased"]) == (80, 100, False)
    assert all(type(value) in (float, int, str, list, bool) for value in result.values())
    biased = cmmd.compute(predictions=fake, references=real, biased=True)
    assert biased["cmmd"] == maths.cmmd(real, fake, biased=True).value > result["cmmd"]
    assert cmmd.compute(predictions=fake, references=real, scale=1)["cmmd"] == pytest.approx(result["cmmd"] / 1000)


def test_the_series_returns_its_bound_and_no_interval(cmmd: Any, sets: Any) -> None:
    fake, real = sets
    result = cmmd.compute(predictions=fake, references=real, method="series")
    exact = cmmd.compute(predictions=fake, references=real)["cmmd"]
    assert abs(result["cmmd"] - exact) <= result["cmmd_error_bound"] < 0.01 * exact
    with pytest.raises(ValueError, match="expected method='exact' for confidence_level, got 'series'"):
        cmmd.compute(predictions=fake, references=real, method="series", confidence_level=0.9)
    with pytest.raises(ValueError, match="expected embeddings of unit length for the series, got lengths 2 to 2"):
        cmmd.compute(predictions=fake, references=2 * real, method="series")
    with pytest.raises(ValueError, match=r"method must be one of \['exact', 'series'\], got 'fast'"):
        cmmd.compute(predictions=fake, references=real, method="fast")


def test_rows_that_are_not_unit_are_scored_and_said(cmmd: Any, sets: Any) -> None:
    result = cmmd.compute(predictions=sets[0], references=3 * sets[1])
    assert result["warnings"] == ["references: rows have lengths 3 to 3; published values are of unit embeddings"]


def test_labels_patients_and_batches(cmmd: Any, sets: Any) -> None:
    fake, real = sets
    masks = {"Edema": (np.arange(80) < 30, np.arange(100) < 40), "Fracture": (np.arange(80) < 1, np.arange(100) < 9)}
    patients = (None, np.arange(100) // 4)
    result = cmmd.compute(predictions=fake, references=real, groups=masks, patients=patients)
    part = maths.cmmd(real[:40], fake[:30], real_clusters=np.arange(40) // 4)
    edema = result["labels"]["Edema"]
    assert (edema["cmmd"], edema["cmmd_standard_error"]) == pytest.approx(part, rel=1e-5)
    assert (edema["n_predictions"], edema["n_references"], edema["cmmd_biased"]) == (30, 40, False)
    assert result["labels"]["Fracture"]["cmmd"] is None
    assert "insufficient n: expected at least 2 rows, got 1 predictions" in result["labels"]["Fracture"]["warnings"]
    cmmd.add_batch(predictions=fake[:50], references=real)
    cmmd.add_batch(predictions=fake[50:])
    assert cmmd.compute(patients=patients)["cmmd"] == result["cmmd"]


def test_labels_and_all_rows_come_from_one_pass(cmmd: Any, sets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthchex.maths import tiles

    fake, real = sets
    passes, plain = [], tiles.kernel_sums
    monkeypatch.setattr(tiles, "kernel_sums", lambda *given, **options: passes.append(1) or plain(*given, **options))
    masks = {"Edema": (np.arange(80) < 30, np.arange(100) < 40), "Mass": (np.arange(80) > 30, np.arange(100) > 40)}
    exact = cmmd.compute(predictions=fake, references=real, groups=masks, biased=True)
    assert len(passes) == 1
    assert exact["labels"]["Mass"]["cmmd"] == pytest.approx(
        maths.cmmd(real[41:], fake[31:], biased=True).value, rel=1e-5
    )
    series = cmmd.compute(predictions=fake, references=real, groups=masks, biased=True, method="series")
    for label, found in series["labels"].items():
        assert abs(found["cmmd"] - exact["labels"][label]["cmmd"]) <= found["cmmd_error_bound"]


def test_p_value(cmmd: Any, sets: Any) -> None:
    fake, real = sets
    assert cmmd.compute(predictions=fake, references=real, permutations=99)["cmmd_p_value"] == pytest.approx(0.01)
    assert cmmd.compute(predictions=real[:50], references=real[50:], permutations=99)["cmmd_p_value"] > 0.05
    with pytest.raises(ValueError, match="expected method='exact' for permutations, got 'series'"):
        cmmd.compute(predictions=fake, references=real, method="series", permutations=99)


def test_films_go_through_the_published_encoder_unless_another_is_asked_for(
    cmmd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthchex.models import encoders

    loaded = []

    class Corner:
        """The first 16 pixels."""

        key = "corner"

        def encode(self, films: Any, **_: Any) -> np.ndarray:
            rows = np.array([film.ravel()[:16] for film in films], np.float32) + 1
            return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    monkeypatch.setattr(encoders, "load_image_text", lambda name, **_: loaded.append(name) or Corner())
    films = np.random.default_rng(0).integers(0, 256, (9, 8, 8), np.uint8)
    assert cmmd.compute(predictions=films[:4], references=films[4:])["encoder"] == "clip-large-336"
    cmmd.compute(predictions=films[:4], references=films[4:], encoder="medsiglip")
    measure.forget()
    assert (loaded[0], loaded[-1]) == ("clip-large-336", "medsiglip")
    assert encoders.IMAGE_TEXT["clip-large-336"].model == "openai/clip-vit-large-patch14-336"


def test_statistics_are_refused(cmmd: Any, sets: Any, tmp_path: Any) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(16), sigma=np.eye(16))
    with pytest.raises(ValueError, match="cmmd: expected images or features, got statistics; a kernel distance needs"):
        cmmd.compute(predictions=sets[0], references=tmp_path / "s.npz")


def test_combined_with_another_metric(sets: Any) -> None:
    import evaluate

    both = evaluate.combine([synthchex.load("cmmd"), synthchex.load("kid")])
    result = both.compute(predictions=sets[0], references=sets[1], method="series")
    assert {"cmmd", "cmmd_error_bound", "kid"} <= set(result)
