"""The ms_ssim module as its users call it: pixels, no encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import synthchex
from synthchex.maths import ssim as maths


@pytest.fixture(scope="module")
def ms_ssim() -> Any:
    return synthchex.load("ms_ssim")


def test_all_pairs_of_a_small_set(ms_ssim: Any, films: np.ndarray) -> None:
    result = ms_ssim.compute(predictions=films, scales=2, confidence_level=0.95)
    pairs = np.array([(i, j) for j in range(8) for i in range(j)])
    values = maths.pair_similarities(list(films), pairs, scales=2)
    assert result["ms_ssim"] == pytest.approx(values.mean())
    assert result["ms_ssim_standard_error"] == pytest.approx(maths.mean_of_pairs(values, pairs).standard_error)
    assert (result["n_pairs"], result["n_predictions"], result["encoder"]) == (28, 8, "pixels")
    assert 0 <= result["ms_ssim_low"] < result["ms_ssim"] < result["ms_ssim_high"] <= 1
    some = [ms_ssim.compute(predictions=films, scales=2, n_pairs=5, seed=seed) for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2]
    assert some[0]["n_pairs"] == 5


def test_every_form_of_images_and_collapse(ms_ssim: Any, films: np.ndarray, tmp_path: Any) -> None:
    for number, film in enumerate(films):
        Image.fromarray(film).save(tmp_path / f"{number}.png")
    forms = (films, list(films), [Image.fromarray(film).convert("RGB") for film in films], str(tmp_path))
    found = [ms_ssim.compute(predictions=form, scales=2)["ms_ssim"] for form in forms]
    assert found == pytest.approx([found[0]] * 4)
    collapsed = ms_ssim.compute(predictions=films[[0] * 6], references=films, scales=2)
    assert collapsed["ms_ssim"] == 1
    assert collapsed["ms_ssim_references"] == pytest.approx(found[0])
    ms_ssim.add_batch(predictions=films[:5])
    ms_ssim.add_batch(predictions=films[5:])
    assert ms_ssim.compute(scales=2)["ms_ssim"] == pytest.approx(found[0])


def test_pairs_stay_within_a_prompt(ms_ssim: Any, films: np.ndarray) -> None:
    prompts = ["edema", "edema", "clear", "clear", "clear", "mass", "edema", "clear"]
    repeated = films.copy()
    repeated[1] = repeated[6] = repeated[0]
    result = ms_ssim.compute(predictions=repeated, prompts=prompts, scales=2, confidence_level=0.9)
    clear = maths.pair_similarities(list(films), np.array([(2, 3), (2, 4), (3, 4), (2, 7), (3, 7), (4, 7)]), scales=2)
    assert result["ms_ssim"] == pytest.approx((1 + clear.mean()) / 2)
    assert (result["ms_ssim_highest"], result["ms_ssim_highest_prompt"], result["n_prompts"]) == (1, "edema", 2)
    assert result["n_pairs"] == 9
    alone = ms_ssim.compute(predictions=films, prompts=list("abcdefgh"), scales=2)
    assert alone["ms_ssim"] is None
    assert "insufficient n: expected 2 images of one prompt, got one image a prompt" in alone["warnings"]
    with pytest.raises(ValueError, match="prompts: expected 8 for predictions, one per image, got 3"):
        ms_ssim.compute(predictions=films, prompts=["a", "b", "c"], scales=2)
    both = ms_ssim.compute(predictions=films, references=films, prompts=(prompts, prompts), scales=2)
    assert both["ms_ssim"] == both["ms_ssim_references"]


def test_labels(ms_ssim: Any, films: np.ndarray) -> None:
    masks = {"Edema": np.arange(8) < 3, "Fracture": np.arange(8) < 1}
    labels = ms_ssim.compute(predictions=films, groups=masks, scales=2, prompts=["a"] * 8)["labels"]
    pairs = np.array([(0, 1), (0, 2), (1, 2)])
    assert labels["Edema"]["ms_ssim"] == pytest.approx(maths.pair_similarities(list(films), pairs, scales=2).mean())
    assert labels["Fracture"]["ms_ssim"] is None
    assert "insufficient n: expected at least 2 rows" in labels["Fracture"]["warnings"][0]


def test_small_unequal_and_other_inputs(ms_ssim: Any, films: np.ndarray, tmp_path: Any) -> None:
    with pytest.raises(
        ValueError, match="sides of at least 161 pixels for 5 scales, got 32 x 32; pass scales=2 or larger"
    ):
        ms_ssim.compute(predictions=films)
    mixed = [films[0], films[1][:24, :24]]
    with pytest.raises(ValueError, match=r"expected images of one size, got \(32, 32\) for image 0 and \(24, 24\)"):
        ms_ssim.compute(predictions=mixed, scales=1)
    assert 0 <= ms_ssim.compute(predictions=mixed, scales=2, size=24)["ms_ssim"] <= 1
    with pytest.raises(ValueError, match="predictions: expected images, got features; ms_ssim compares pixels"):
        ms_ssim.compute(predictions=np.zeros((4, 6)))
    with pytest.raises(ValueError, match=r"predictions: image 0 cannot be read .missing."):
        ms_ssim.compute(predictions=[tmp_path / "no.png", tmp_path / "none.png"])
    sizes = ms_ssim.compute(predictions=films, references=films[:, :24, :24], scales=2)["warnings"]
    assert any("sizes differ" in text for text in sizes)
