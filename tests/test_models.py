"""Encoders, samplers and the feature store, on tiny networks of the real classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex import judges, room
from synthchex.data import images, recipes, sources
from synthchex.models import encoders, samplers, store


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return tiny.vit_classifier(tmp_path / "vit", ["a", "b"])


def test_an_encoder_is_its_network_and_processor(vit: Path, films: np.ndarray) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    encoder = encoders.load_encoder(str(vit))
    found = encoder.encode(list(films), batch_size=3)
    model, processor = AutoModel.from_pretrained(vit).eval(), AutoImageProcessor.from_pretrained(vit)
    with torch.inference_mode():
        inputs = processor([Image.fromarray(film).convert("RGB") for film in films], return_tensors="pt")
        expected = model(**inputs).last_hidden_state[:, 0].numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_weights_that_are_missing_are_never_made_up(vit: Path, films: np.ndarray) -> None:
    from safetensors.torch import load_file, save_file

    first, second = (encoders.load_encoder(str(vit)).encode(list(films)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    weights = load_file(vit / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layernorm" not in k}, vit / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"lacks \d+ weights of ViTModel, e.g. .*, which would be random"):
        encoders.load_encoder(str(vit))


def test_the_key_changes_with_weights_and_preprocessing(vit: Path, tmp_path: Path) -> None:
    key = encoders.load_encoder(str(vit)).key
    assert key == encoders.load_encoder(str(vit)).key
    assert key != encoders.load_encoder(str(tiny.vit_classifier(tmp_path / "other", ["a", "b"], seed=1))).key
    assert key != encoders.load_encoder(str(vit), dtype="bfloat16").key
    config = json.loads((vit / "preprocessor_config.json").read_text())
    (vit / "preprocessor_config.json").write_text(json.dumps({**config, "image_mean": [0.1, 0.1, 0.1]}))
    assert key != encoders.load_encoder(str(vit)).key


def test_an_image_text_encoder_gives_unit_vectors_and_counts_cut_reports(tmp_path: Path, films: np.ndarray) -> None:
    encoder = encoders.load_image_text(str(tiny.clip(tmp_path / "clip")))
    vectors, texts = encoder.encode_images(list(films)), encoder.encode_texts(["edema", "a very long report indeed"])
    assert vectors.shape == (8, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    assert encoder.max_tokens == 16
    assert encoder.count_truncated(["edema", "a very long report indeed"]) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rad-dyno", r"expected one of \['phantom', 'rad-dino'.* got 'rad-dyno'"),
        ("org/absent", "org/absent cannot be loaded"),
    ],
)
def test_an_unknown_encoder_is_said_with_a_way_out(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoders.load_encoder(name)


def test_an_encoder_without_text_cannot_align(vit: Path) -> None:
    with pytest.raises(ValueError, match="expected an image-text model"):
        encoders.load_image_text(str(vit))


def as_set(films: list[np.ndarray | bytes]) -> sources.ImageSet:
    return sources.ImageSet("memory", [str(i) for i in range(len(films))], films.__getitem__)


def test_the_store_encodes_each_film_once_and_never_serves_a_changed_one(
    vit: Path, films: np.ndarray, tmp_path: Path
) -> None:
    encoder = encoders.load_encoder(str(vit))
    first = store.encode(as_set([*films, films[0]]), [encoder], tmp_path / "store", quiet=True)
    assert first.computed == 8, "the repeat must not be computed twice"
    np.testing.assert_array_equal(first.features[0][0], first.features[0][8])
    again = store.encode(as_set(list(films)), [encoder], tmp_path / "store", quiet=True)
    assert again.computed == 0
    np.testing.assert_array_equal(again.features[0], first.features[0][:8])
    changed = films.copy()
    changed[2, 0, 0] ^= 1
    third = store.encode(as_set(list(changed)), [encoder], tmp_path / "store", quiet=True)
    assert third.computed == 1
    assert (third.features[0][2] != first.features[0][2]).any()


def test_the_store_counts_what_it_skips(vit: Path, films: np.ndarray) -> None:
    found = store.encode(
        as_set([films[0], b"junk", b"", films[1]]), [encoders.load_encoder(str(vit))], None, quiet=True
    )
    assert found.kept.tolist() == [0, 3]
    assert found.skipped == {"not-an-image": 1, "empty": 1}
    with pytest.raises(ValueError, match=r"expected readable films in memory, got none of 1: \{'empty': 1\}"):
        store.encode(as_set([b""]), [encoders.load_encoder(str(vit))], None, quiet=True)


def test_png_bytes_are_lossless_and_equal(films: np.ndarray) -> None:
    assert images.to_png(films[0]) == images.to_png(films[0].copy())


@pytest.mark.parametrize("path", sorted((room("filtering") / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_judge_that_ships_is_complete(path: Path) -> None:
    found = recipes.read(path, judges.JudgeRecipe)
    assert found.judge == "fixed" or (found.model and found.source)
    if found.judge == "vlm":
        assert "{prompt}" in judges.read_rubric(found.rubric, room("filtering") / "prompts")


def test_the_phantom_configs_are_what_was_measured() -> None:
    assets = encoders.ASSETS / "phantom"
    figures = json.loads((assets / "figures.json").read_text())
    recipe_used = recipes.read(room("generation") / "configs" / "phantom.yaml", samplers.Recipe)
    assert recipe_used.steps == figures["generator"]["sampling"]["steps"]
    assert recipe_used.guidance_scale == figures["generator"]["sampling"]["guidance_scale"]
    judge = recipes.read(room("filtering") / "configs" / "phantom.yaml", judges.JudgeRecipe)
    measured = json.loads((assets / "judge" / "judge.json").read_text())
    assert judge.agreement == measured["label_agreement_threshold"]
