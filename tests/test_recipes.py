"""Every recipe that ships, on tiny networks of its class, loaded and called by the code of the real one."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny_pipelines as tiny

from synthchex import room
from synthchex.data import recipes
from synthchex.models import samplers
from synthchex.models.samplers import lora, texts

CONFIGS = sorted((room("generation") / "configs").glob("*.yaml"))
SIZES = {"sana": 32, "lumina-2": 32}
OTHERS = (
    "stable-diffusion-1-4",
    "stable-diffusion-1-5",
    "stable-diffusion-2",
    "roentgen-v2",
    "this-xray-does-not-exist",
)
SAME_CLASS = dict.fromkeys(OTHERS, "stable-diffusion-2-1")
CALLED = [*tiny.MAKERS, *SAME_CLASS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: make(tmp_path_factory.mktemp(name) / "pipeline") for name, make in tiny.MAKERS.items()}
    return made | {name: made[other] for name, other in SAME_CLASS.items()}


def shipped(name: str, folder: Path, **changes: object) -> samplers.Recipe:
    """The recipe as it ships, but for the model, two steps and a small size."""
    recipe = recipes.read(room("generation") / "configs" / f"{name}.yaml", samplers.Recipe)
    size = SIZES.get(name, 16)
    small = {"model": str(folder), "revision": None, "dtype": "float32", "steps": 2, "height": size, "width": size}
    return replace(recipe, **{**small, **changes})


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_complete_and_says_where_its_numbers_come_from(path: Path) -> None:
    found = recipes.read(path, samplers.Recipe)
    assert found.name == path.stem
    assert found.sampler != "diffusers" or (found.model and found.source)
    assert path.stem in {*CALLED, "radedit", "phantom", "noise", "external"}, "a recipe that no test calls"


@pytest.mark.parametrize("name", CALLED)
def test_a_recipe_makes_films_by_prompt_and_seed(name: str, folders: dict[str, Path]) -> None:
    recipe = shipped(name, folders[name])
    sampler = samplers.load_sampler(recipe)
    films = sampler.sample(["edema", "lungs clear", "edema"], [1, 2, 1])
    assert all(film is not None and film.shape == (recipe.height, recipe.width, 3) for film in films)
    assert (films[0] == films[2]).all()
    assert (films[0] != films[1]).any()
    assert sampler.provenance["scheduler"]


@pytest.mark.parametrize("name", ["stable-diffusion-2-1", "stable-diffusion-3-5-medium", "sana", "lumina-2"])
def test_a_batch_of_repeats_is_read_once_and_makes_the_same_films(name: str, folders: dict[str, Path]) -> None:
    prompts, seeds = ["edema", "edema", "lungs clear", "edema"], [1, 2, 3, 4]
    shared = samplers.load_sampler(shipped(name, folders[name]))
    plain = samplers.load_sampler(shipped(name, folders[name], share_prompts=False))
    read = [0, 0]
    for place, sampler in enumerate((shared, plain)):

        def count(module: object, rows: tuple[torch.Tensor, ...], place: int = place) -> None:
            read[place] += len(rows[0])

        inner = sampler.pipeline.text_encoder.get_input_embeddings()  # type: ignore[attr-defined]
        inner.register_forward_pre_hook(count)
    for one, other in zip(shared.sample(prompts, seeds), plain.sample(prompts, seeds), strict=True):
        assert mean_difference(one, other) <= 0.5
    assert read[1] >= 2 * read[0], "two prompts of four, and one negative prompt of four, are left"


def test_what_a_text_encoder_gives_back_is_spread_at_any_depth() -> None:
    from transformers.modeling_outputs import BaseModelOutput

    found = BaseModelOutput(last_hidden_state=torch.arange(2.0)[:, None], hidden_states=(torch.arange(2.0),))
    spread = texts._spread(found, torch.tensor([1, 0, 1]), 2)
    assert spread.last_hidden_state[:, 0].tolist() == spread.hidden_states[0].tolist() == [1.0, 0.0, 1.0]


def test_radedit_is_assembled_from_three_repositories(tmp_path: Path) -> None:
    folder = tiny.radedit(tmp_path)
    recipe = shipped("radedit", folder / "radedit")
    parts = {name: dict(said) for name, said in recipe.parts.items()}
    for name, place in (("unet", "radedit"), ("vae", "vae"), ("text_encoder", "text"), ("tokenizer", "text")):
        parts[name]["model"] = str(folder / place)
    parts["tokenizer"]["class"] = "PreTrainedTokenizerFast"
    sampler = samplers.load_sampler(replace(recipe, parts=parts))
    film = sampler.sample(["edema"], [0])[0]
    assert film is not None
    assert film.shape == (16, 16, 3)
    assert sampler.provenance["scheduler"] == "DDIMScheduler"
    assert sampler.count_truncated(["edema " * 200, "edema"]) == (1, 128)
    config = sampler.pipeline.scheduler.config  # type: ignore[attr-defined]
    assert (config.beta_schedule, config.timestep_spacing, config.steps_offset) == ("linear", "trailing", 1)
    assert type(sampler.pipeline.text_encoder).__name__ == "BertModel"  # type: ignore[attr-defined]


def test_a_piece_with_weights_missing_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.radedit(tmp_path)
    path = folder / "text" / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "attention" not in k}, path, metadata={"format": "pt"})
    said = {"text_encoder": {"class": "BertModel", "model": str(folder / "text"), "add_pooling_layer": False}}
    recipe = samplers.Recipe("x", model="radedit", pipeline="StableDiffusionPipeline", parts=said)
    with pytest.raises(ValueError, match=r"lacks \d+ weights of BertModel for the text_encoder, e.g. .*random"):
        samplers.load_sampler(recipe)
    with pytest.raises(ValueError, match="StableDiffusionPipeline cannot be made of"):
        samplers.load_sampler(replace(recipe, parts={}))
    with pytest.raises(ValueError, match="diffusers has no class 'Bart'"):
        samplers.load_sampler(replace(recipe, parts={"unet": {"class": "Bart"}}))


def test_prompts_that_are_too_long_are_counted_by_the_encoder_that_reads_most(folders: dict[str, Path]) -> None:
    long = ["edema", "edema " * 100, "edema " * 300, "edema " * 600]
    for name, expected in (
        ("stable-diffusion-2-1", (3, 16)),
        ("stable-diffusion-3-5-medium", (1, 512)),
        ("sana", (2, 300)),
        ("lumina-2", (2, 256)),
    ):
        assert samplers.load_sampler(shipped(name, folders[name])).count_truncated(long) == expected, name


def test_pieces_may_have_types_of_their_own(folders: dict[str, Path]) -> None:
    recipe = shipped("sana", folders["sana"])
    assert recipe.dtypes == {"text_encoder": "bfloat16", "vae": "float32"}
    pipeline = samplers.load_pipeline(recipe)
    assert (pipeline.text_encoder.dtype, pipeline.vae.dtype) == (torch.bfloat16, torch.float32)
    assert samplers.load_sampler(recipe).provenance["dtype"] == "float32, text_encoder bfloat16, vae float32"


def test_films_of_another_size_than_the_recipe_says_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="expected films of height x width 18 x 16, got 16 x 16 from FluxPipeline"):
        samplers.load_sampler(shipped("flux-1-dev", folders["flux-1-dev"], height=18)).sample(["a"], [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"call": {"negative": "x"}},
            r"StableDiffusionPipeline takes no \['negative'\] in `call`; it takes \['prompt'",
        ),
        ({"attention": "native"}, "the attention of UNet2DConditionModel takes no backend"),
        ({"scheduler": "Eulerish"}, "diffusers has no scheduler 'Eulerish'"),
        ({"offload": "model"}, "offload 'model' is for a GPU, got the CPU"),
    ],
)
def test_what_a_pipeline_cannot_do_is_said_when_it_is_loaded(
    folders: dict[str, Path], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        samplers.load_sampler(shipped("stable-diffusion-2-1", folders["stable-diffusion-2-1"], **changes), device="cpu")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("stable-diffusion-2-1", {"channels_last": True, "vae_slicing": True, "vae_tiling": True}),
        ("flux-1-dev", {"attention": "native"}),
    ],
)
def test_faster_ways_make_nearly_the_same_films(
    folders: dict[str, Path], name: str, changes: dict[str, object]
) -> None:
    plain, fast = shipped(name, folders[name]), shipped(name, folders[name], **changes)
    one, other = (samplers.load_sampler(recipe).sample(["edema"], [3])[0] for recipe in (plain, fast))
    assert mean_difference(one, other) < 0.5
    assert plain.hashed() != fast.hashed()
    assert replace(plain, offload="model", source="x").hashed() == plain.hashed()


def test_compile_takes_the_arguments_of_torch(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: asked.append((type(module), options)))
    pipeline = samplers.load_pipeline(
        shipped("sana", folders["sana"], compile={"mode": "max-autotune", "fullgraph": True})
    )
    assert asked == [(type(pipeline.transformer), {"mode": "max-autotune", "fullgraph": True})]


TARGETS = ["to_q", "to_v"]


def adapter(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(1)
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=TARGETS))  # type: ignore[operator]
    return dict(convert_state_dict_to_diffusers(get_peft_model_state_dict(network)))


def saved(recipe: samplers.Recipe, folder: Path) -> Path:
    """A LoRA as diffusers saves it."""
    pipeline = samplers.load_pipeline(recipe)
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    layers = adapter(getattr(pipeline, name))
    type(pipeline).save_lora_weights(folder, **{f"{name}_lora_layers": layers})
    return folder


WITH_LORA = ["stable-diffusion-2-1", "stable-diffusion-3-5-medium", "sana", "flux-1-dev", "lumina-2"]


@pytest.mark.parametrize("name", WITH_LORA)
def test_a_lora_makes_a_round_trip_and_its_scale_counts(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    base = shipped(name, folders[name])
    path = saved(base, tmp_path / "lora")
    file = next(path.glob("*.safetensors"))
    made = [
        samplers.load_sampler(replace(base, **change)).sample(["edema"], [3])[0]
        for change in ({}, {"lora": str(path)}, {"lora": str(path), "lora_scale": 0.0}, {"lora": str(file)})
    ]
    assert mean_difference(made[0], made[1]) > 0
    assert mean_difference(made[0], made[2]) <= 0.1
    assert (made[1] == made[3]).all()


def test_a_lora_with_the_keys_of_2023_is_the_one_of_today(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = shipped("stable-diffusion-2-1", folders["stable-diffusion-2-1"])
    new = saved(base, tmp_path / "new")
    weights = load_file(new / "pytorch_lora_weights.safetensors")
    ends = {"lora_A": "down", "lora_B": "up", "lora.down": "down", "lora.up": "up"}
    layer = re.compile(r"\.(to_[qv])\.(lora_A|lora_B|lora\.down|lora\.up)\.")
    old = {
        layer.sub(lambda m: f".processor.{m[1]}_lora.{ends[m[2]]}.", key).removeprefix("unet."): value
        for key, value in weights.items()
    }
    assert all("processor.to_" in key and key.endswith(("_lora.down.weight", "_lora.up.weight")) for key in old)
    (tmp_path / "old").mkdir()
    save_file(old, tmp_path / "old" / "pytorch_lora_weights.safetensors")
    torch.save(old, tmp_path / "old.bin")
    films = [
        samplers.load_sampler(replace(base, lora=str(path))).sample(["edema"], [3])[0]
        for path in (new, tmp_path / "old", tmp_path / "old.bin")
    ]
    assert (films[0] == films[1]).all()
    assert (films[0] == films[2]).all()


def test_a_lora_of_kohya_is_read(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = shipped("stable-diffusion-2-1", folders["stable-diffusion-2-1"])
    weights = load_file(saved(base, tmp_path / "new") / "pytorch_lora_weights.safetensors")
    kohya: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        layer, end = key.removeprefix("unet.").rsplit(".lora", 1)
        kind = "lora_down" if end.startswith(("_A", ".down")) else "lora_up"
        stem = "lora_unet_" + layer.replace(".", "_")
        kohya |= {f"{stem}.{kind}.weight": value, f"{stem}.alpha": torch.tensor(2.0)}
    save_file(kohya, tmp_path / "kohya.safetensors")
    films = [
        samplers.load_sampler(replace(base, lora=str(path))).sample(["edema"], [3])[0]
        for path in (tmp_path / "new", tmp_path / "kohya.safetensors")
    ]
    assert mean_difference(*films) <= 0.1


def test_a_lora_that_does_not_fit_or_does_nothing_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = shipped("stable-diffusion-2-1", folders["stable-diffusion-2-1"])
    path = saved(base, tmp_path / "lora") / "pytorch_lora_weights.safetensors"
    weights = load_file(path)
    cases = {
        "strange": ({f"other.{key}": value for key, value in weights.items()}, "added no weights to|no LoRA for"),
        "zero": (
            {k: v * (0 if k.endswith(lora.UP) else 1) for k, v in weights.items()},
            "changes nothing: its up weights are all zero",
        ),
        "other": (
            {**weights, **{k.replace("mid_block", "mid_blocks"): v for k, v in weights.items()}}, "no LoRA for|took",
        ),
    }  # fmt: skip
    for name, (changed, message) in cases.items():
        save_file({key: value.clone() for key, value in changed.items()}, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=message):
            samplers.load_sampler(replace(base, lora=str(tmp_path / f"{name}.safetensors")))
    with pytest.raises(
        ValueError, match=r"expected a LoRA as a folder, file or Hub id, got .*nowhere, which is not there"
    ):
        samplers.load_sampler(replace(base, lora=str(tmp_path / "nowhere")))


def test_pixart_takes_a_lora_in_pefts_layout_only(folders: dict[str, Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = shipped("pixart-sigma", folders["pixart-sigma"])
    pipeline = samplers.load_pipeline(base)
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=TARGETS)
    get_peft_model(pipeline.transformer, config).save_pretrained(tmp_path / "peft")
    made = [
        samplers.load_sampler(replace(base, **change)).sample(["edema"], [3])[0]
        for change in ({}, {"lora": str(tmp_path / "peft")}, {"lora": str(tmp_path / "peft"), "lora_scale": 0.0})
    ]
    assert mean_difference(made[0], made[1]) > 0
    assert mean_difference(made[0], made[2]) <= 0.1
    (tmp_path / "peft" / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="PixArtSigmaPipeline takes a LoRA in peft's layout only"):
        samplers.load_sampler(replace(base, lora=str(tmp_path / "peft")))
    sd = shipped("stable-diffusion-2-1", folders["stable-diffusion-2-1"])
    get_peft_model(samplers.load_pipeline(base).transformer, config).save_pretrained(tmp_path / "again")
    with pytest.raises(ValueError, match=r"badly|no LoRA for"):
        samplers.load_sampler(replace(sd, lora=str(tmp_path / "again")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "gan"}, r"sampler must be one of \['diffusers', 'noise', 'external'\], got 'gan'"),
        ({"dtype": "float8"}, "dtype must be float32, float16 or bfloat16, got 'float8'"),
        ({"dtypes": {"vae": "half"}}, "dtype must be float32, float16 or bfloat16, got 'half'"),
        ({"steps": 0}, "steps, height and width must be at least 1"),
        ({"offload": "disk"}, r"offload must be one of \[None, 'model', 'sequential'\], got 'disk'"),
    ],
)
def test_a_recipe_refuses_what_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samplers.Recipe(**{"name": "x", "model": "m", **changes})


def test_a_model_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="org/absent cannot be loaded"):
        samplers.load_sampler(samplers.Recipe("x", model="org/absent"))
    with pytest.raises(ValueError, match="recipe x names no model"):
        samplers.load_sampler(samplers.Recipe("x"))
    with pytest.raises(ValueError, match="is of films made elsewhere, which are brought in with --images"):
        samplers.load_sampler(samplers.Recipe("x", sampler="external"))
