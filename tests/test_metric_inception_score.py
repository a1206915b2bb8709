"""The inception_score module as its users call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import synthchex
from synthchex.maths import inception as maths


@pytest.fixture(scope="module")
def score() -> Any:
    return synthchex.load("inception_score")


@pytest.fixture
def logits() -> np.ndarray:
    """(120, 1008) float32."""
    return (4 * np.random.default_rng(0).normal(size=(120, 1008))).astype(np.float32)


class Classifier:
    """An encoder with features and logits."""

    name, key = "classifier", "classifier-1"

    def encode(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
        raise AssertionError("features are not asked for")

    def logits(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
        """(N, 1008) float32."""
        return np.array([np.resize(film.astype(np.float32), 1008) / 32 for film in films])


def test_values_are_those_of_the_maths(score: Any, logits: np.ndarray) -> None:
    result = score.compute(predictions=logits)
    each = maths.inception_scores(logits)
    assert (result["inception_score"], result["inception_score_std"]) == (each.mean(), each.std())
    assert (result["n_predictions"], result["n_references"]) == (120, 0)
    assert any("12 rows per split for 1008 classes" in text for text in result["warnings"])
    whole = score.compute(predictions=logits, splits=1, references=logits[:90], confidence_level=0.9)
    assert whole["inception_score_references"] == maths.inception_scores(logits[:90], splits=1)[0]
    assert 1 <= whole["inception_score_low"] < whole["inception_score"] < whole["inception_score_high"]
    plain = score.compute(predictions=logits, shuffle=False, seed=5)
    assert plain["inception_score"] == maths.inception_scores(logits, shuffle=False).mean()
    assert score.compute(predictions=logits, seed=1) != score.compute(predictions=logits, seed=2)


def test_films_go_through_an_encoder_with_logits(score: Any, films: np.ndarray) -> None:
    result = score.compute(predictions=films, references=films[:4], encoder=Classifier(), splits=2)
    expected = maths.inception_scores(Classifier().logits(films), splits=2).mean()
    assert result["inception_score"] == pytest.approx(expected)
    assert result["inception_score_references"] is not None
    assert result["encoder"] == "classifier"

    class Plain:
        name = "plain"

    with pytest.raises(ValueError, match=r"expected an encoder with `.logits`, got 'plain', which has features only"):
        score.compute(predictions=films, encoder=Plain())


def test_what_are_not_logits_is_refused(score: Any, logits: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"expected logits of shape \(N, 1008\), got \(N, 2048\): these are Inception's"
    ):
        score.compute(predictions=np.zeros((20, 2048), np.float32))
    with pytest.raises(
        ValueError, match="predictions: expected logits of 1008 classes, got 1000; pass 'logits_unbiased'"
    ):
        score.compute(predictions=logits[:, :1000])
    with pytest.raises(ValueError, match="splits must be at least 1 and at most the 5 rows, got 10"):
        score.compute(predictions=logits[:5])
    other = score.compute(predictions=logits[:, :14], classes=14)
    assert "14 classes: not comparable with published scores, which are of 1008" in other["warnings"]


def test_labels_and_patients(score: Any, logits: np.ndarray) -> None:
    masks = {"Edema": np.arange(120) < 60, "Fracture": np.arange(120) < 9}
    ids = np.arange(120) // 20
    result = score.compute(predictions=logits, groups=masks, patients=(ids, None), confidence_level=0.95)
    edema = result["labels"]["Edema"]
    assert edema["inception_score"] == maths.inception_scores(logits[:60]).mean()
    assert any("no interval: predictions: expected at least 5 clusters" in text for text in edema["warnings"])
    assert result["labels"]["Fracture"]["inception_score"] is None
    assert "insufficient n: expected at least 10 rows" in result["labels"]["Fracture"]["warnings"][0]
    rows = score.compute(predictions=logits, confidence_level=0.95)["inception_score_standard_error"]
    assert rows != result["inception_score_standard_error"]
