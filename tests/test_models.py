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


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.stable_diffusion(tmp_path_factory.mktemp("sd") / "pipeline")


def recipe(pipeline: Path, **changes: object) -> samplers.Recipe:
    return samplers.Recipe(**{"name": "tiny", "model": str(pipeline), "steps": 2, "height": 16, "width": 16, **changes})


def test_a_film_depends_on_its_prompt_and_seed_alone(pipeline: Path) -> None:
    sampler = samplers.load_sampler(recipe(pipeline))
    three = sampler.sample(["a", "b", "c"], [1, 2, 3])
    again = sampler.sample(["c", "a", "b"], [3, 1, 2])
    assert [film.shape for film in three] == [(16, 16, 3)] * 3
    for film, same in zip(three, [again[1], again[2], again[0]], strict=True):
        assert np.abs(film.astype(int) - same).max() <= 1
    assert (three[0] != sampler.sample(["a", "b", "c"], [4, 2, 3])[0]).any()
    assert sampler.provenance["scheduler"] == "DDIMScheduler"


def test_a_recipe_can_change_scheduler_and_call(pipeline: Path) -> None:
    sampler = samplers.load_sampler(
        recipe(pipeline, scheduler="EulerDiscreteScheduler", call={"negative_prompt": ["x"]})
    )
    assert sampler.provenance["scheduler"] == "EulerDiscreteScheduler"
    assert sampler.sample(["a"], [0])[0].shape == (16, 16, 3)
    with pytest.raises(ValueError, match="diffusers has no scheduler 'Eulerish'"):
        samplers.load_sampler(recipe(pipeline, scheduler="Eulerish"))


def test_long_prompts_are_counted(pipeline: Path) -> None:
    sampler = samplers.load_sampler(recipe(pipeline))
    assert sampler.count_truncated(["short", "a report that is much too long"]) == 1  # type: ignore[attr-defined]


def lora(pipeline: Path, folder: Path, *, legacy: bool) -> Path:
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict
    from safetensors.torch import save_file

    unet = StableDiffusionPipeline.from_pretrained(pipeline).unet
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    folder.mkdir()
    if legacy:
        weights = {key.replace("to_q.lora", "processor.to_q_lora"): value for key, value in weights.items()}
        save_file(
            {key: value.contiguous() for key, value in weights.items()}, folder / "pytorch_lora_weights.safetensors"
        )
    else:
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights)
    return folder


def test_a_lora_changes_films_and_its_scale_counts(pipeline: Path, tmp_path: Path) -> None:
    path = lora(pipeline, tmp_path / "lora", legacy=False)
    base = samplers.load_sampler(recipe(pipeline)).sample(["a"], [0])[0]
    full = samplers.load_sampler(recipe(pipeline, lora=str(path))).sample(["a"], [0])[0]
    none = samplers.load_sampler(recipe(pipeline, lora=str(path), lora_scale=0.0)).sample(["a"], [0])[0]
    assert (full != base).any()
    assert np.abs(none.astype(int) - base).max() <= 1


def test_a_lora_that_loads_nothing_is_an_error(pipeline: Path, tmp_path: Path) -> None:
    path = lora(pipeline, tmp_path / "lora", legacy=True)
    with pytest.raises(ValueError, match="added no weights to StableDiffusionPipeline"):
        samplers.load_sampler(recipe(pipeline, lora=str(path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "gan"}, r"sampler must be one of \['diffusers', 'noise'\], got 'gan'"),
        ({"dtype": "float8"}, "dtype must be float32, float16 or bfloat16, got 'float8'"),
        ({"steps": 0}, "steps, height and width must be at least 1"),
    ],
)
def test_a_recipe_refuses_what_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samplers.Recipe(**{"name": "x", "model": "m", **changes})


def test_png_bytes_are_lossless_and_equal(films: np.ndarray) -> None:
    assert images.to_png(films[0]) == images.to_png(films[0].copy())


@pytest.mark.parametrize("path", sorted((room("generation") / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_complete(path: Path) -> None:
    found = recipes.read(path, samplers.Recipe)
    assert found.name == path.stem
    assert found.sampler == "noise" or (found.model and found.source), (
        "a model needs an id and a source for its numbers"
    )


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
