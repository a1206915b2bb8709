"""The alignment module as its users call it: every number is that of the maths on the same embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import synthchex
from synthchex.maths import alignment as maths
from synthchex.maths import intervals


@pytest.fixture(scope="module")
def alignment() -> Any:
    return synthchex.load("alignment")


@pytest.fixture
def pairs() -> dict[str, np.ndarray]:
    """Embeddings (60, 8) of images, prompts, negated prompts, real images and their reports."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(60, 8))
    images = texts + rng.normal(size=(60, 8))
    return {
        "images": images,
        "texts": texts,
        "rivals": texts + 0.5 * rng.normal(size=(60, 8)),
        "real_images": texts[:40] + 0.2 * rng.normal(size=(40, 8)),
        "real_prompts": texts[:40],
    }


def test_every_number_is_that_of_the_maths(alignment: Any, pairs: dict[str, np.ndarray]) -> None:
    images, texts = pairs["images"], pairs["texts"]
    extra = {name: pairs[name] for name in ("rivals", "real_images", "real_prompts")}
    result = alignment.compute(predictions=images, references=texts, per_sample=True, shuffles=49, seed=3, **extra)
    each, null = maths.cosines(images, texts), maths.shuffled_null(images, texts)
    assert result["alignment"] == each.mean()
    assert result["alignment_per_sample"] == each.tolist()
    found = tuple(result[f"alignment_{name}"] for name in ("shuffled_mean", "shuffled_std", "z"))
    assert found == null
    assert result["alignment_shuffled_p"] == maths.shuffled_p(images, texts, shuffles=49, seed=3)
    to_text, to_image = maths.retrieval_ranks(images, texts)
    for k in (1, 5, 10):
        assert result[f"alignment_image_to_text_r{k}"] == maths.recall_at(to_text, k)
        assert result[f"alignment_text_to_image_r{k}"] == maths.recall_at(to_image, k)
    assert result["alignment_win_rate"] == maths.win_rate(images, texts, pairs["rivals"]) > 0.5
    ceiling = maths.cosines(pairs["real_images"], pairs["real_prompts"]).mean()
    assert result["alignment_ceiling"] == ceiling > result["alignment"]
    assert (result["n_distinct_prompts"], result["n_predictions"], result["n_references"]) == (60, 60, 60)
    assert "alignment_truncated" not in result  # embeddings do not tell


def test_labels_take_their_pairs_and_rivals(alignment: Any, pairs: dict[str, np.ndarray]) -> None:
    images, texts, rivals = pairs["images"], pairs["texts"], pairs["rivals"]
    mask = np.arange(60) % 3 == 0
    extra = {name: pairs[name] for name in ("rivals", "real_images", "real_prompts")}
    part = alignment.compute(predictions=images, references=texts, groups={"a": mask}, **extra)["labels"]["a"]
    assert part["alignment"] == maths.cosines(images[mask], texts[mask]).mean()
    assert part["alignment_win_rate"] == maths.win_rate(images[mask], texts[mask], rivals[mask])
    assert "alignment_ceiling" not in part


def test_interval_resamples_patients(alignment: Any, pairs: dict[str, np.ndarray]) -> None:
    ids = np.arange(60) // 6
    asked = {"predictions": pairs["images"], "references": pairs["texts"], "confidence_level": 0.8, "seed": 2}
    result = alignment.compute(**asked, patients=(None, ids), n_resamples=500)
    each = maths.cosines(pairs["images"], pairs["texts"])
    expected = intervals.of_mean(each, clusters=ids, confidence=0.8, resamples=500, seed=2)
    assert tuple(result[f"alignment_{end}"] for end in ("low", "high", "standard_error")) == expected
    assert alignment.compute(**asked)["alignment_low"] != result["alignment_low"]


def test_statistics_are_refused(alignment: Any, pairs: dict[str, np.ndarray], tmp_path: Any) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(8), sigma=np.eye(8))
    with pytest.raises(ValueError, match="alignment: expected images and prompts or their embeddings, got statistics"):
        alignment.compute(predictions=tmp_path / "s.npz", references=pairs["texts"])
