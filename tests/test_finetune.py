"""Fine-tuning: every class learns, every draw follows from the seed, nothing is taken silently."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import synthchex
from synthchex.data import images, recipes, sources
from synthchex.models import samplers
from synthchex.training import card, checkpoints, families, films, latents, lora, objectives
from synthchex.training.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parent))
import tiny
import tiny_pipelines

ROOM = synthchex.room("generation")
SCRIPT = ROOM / "finetune_lora.py"
SIDE = 32
Run = Callable[..., "list[dict[str, Any]]"]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny pipeline by name, made once."""
    folder = tmp_path_factory.mktemp("pipelines")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            if name == "velocity":
                from diffusers import DDIMScheduler, StableDiffusionPipeline

                pipeline = StableDiffusionPipeline.from_pretrained(tiny.stable_diffusion(path))
                pipeline.scheduler = DDIMScheduler.from_config(
                    pipeline.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True
                )
                pipeline.save_pretrained(path)
            else:
                tiny_pipelines.MAKERS[name](path)
        return path

    return make


@pytest.fixture(scope="module")
def films_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films of 40 x 32 px with prompts and patients."""
    folder = tmp_path_factory.mktemp("films")
    rng, rows = np.random.default_rng(0), ["image,prompt,patient_id"]
    for row in range(8):
        coarse = rng.integers(0, 256, (5, 4), np.uint8)
        Image.fromarray(np.kron(coarse, np.ones((8, 8), np.uint8))).save(folder / f"{row}.png")
        rows.append(f"{row}.png,{'abcdefgh'[row]} lungs clear,p{row // 2}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return folder / "films.csv"


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps its state in the class: a test with another precision would be refused."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    """The script's entry."""
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def plain(main: Any, pipelines: Any, films_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with the least recipe wrote, beside its recipes; do not change it."""
    folder = tmp_path_factory.mktemp("plain")
    recipe = write_recipes(folder, pipelines("stable-diffusion-2-1"))
    words = ["--train-data", films_csv, "--recipe", recipe, "--out", folder / "out", "--quiet"]
    assert main([*map(str, words), "--source-policy", "credentialed"]) == 0
    return folder


@pytest.fixture
def finetune(main: Any, pipelines: Callable[[str], Path], films_csv: Path, tmp_path: Path) -> Run:
    """Run the script in this process on a tiny pipeline; the lines of its log."""

    def run(
        *words: object, model: str = "stable-diffusion-2-1", out: str = "out", **changes: Any
    ) -> list[dict[str, Any]]:
        recipe = write_recipes(tmp_path, pipelines(model), **changes)
        arguments = ["--train-data", films_csv, "--recipe", recipe, "--out", tmp_path / out, "--quiet", *words]
        assert main([str(word) for word in arguments]) == 0
        return checkpoints.read_log(tmp_path / out)

    return run


def write_recipes(folder: Path, model: Path, **changes: Any) -> Path:
    base = {"name": "base", "model": str(model), "steps": 2, "guidance_scale": 2.0, "height": SIDE, "width": SIDE}
    if model.name == "pixart-sigma":
        base["call"] = {"clean_caption": False, "use_resolution_binning": False}
    if model.name == "sana":
        base["call"] = {"use_resolution_binning": False, "complex_human_instruction": None}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    said = {
        "name": "tiny", "base": str(folder / "base.yaml"), "resolution": SIDE, "train_batch_size": 2, "rank": 2,
        "max_train_steps": 3, "validation_share": 0.0, "learning_rate": 1e-2, "seed": 0,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(said | changes))
    return folder / "recipe.yaml"


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in log if "validation" not in row]


MODELS = ["velocity", *tiny_pipelines.MAKERS]


@pytest.mark.parametrize("model", MODELS)
def test_every_class_learns_two_films_and_its_adapter_changes_what_is_generated(
    finetune: Run, films_csv: Path, tmp_path: Path, model: str
) -> None:
    two = tmp_path / "two.csv"
    two.write_text("\n".join(films_csv.read_text().splitlines()[:3]) + "\n")
    changes = {"max_train_steps": 12, "latents": "mean", "learning_rate": 3e-2, "lora_alpha": 6}
    more = ["--train-data", two, "--validation-data", two, "--image-dir", films_csv.parent]
    log = finetune(*more, model=model, **changes)
    before, after = (row["loss"] for row in log if "validation" in row)
    assert after < before - 0.005, "the same films with the same noise"
    tuned = recipes.read(tmp_path / "out" / "recipe.yaml", samplers.Recipe)
    base = recipes.read(tmp_path / "base.yaml", samplers.Recipe)
    made = [samplers.load_sampler(one, device="cpu").sample(["a lungs clear"], [1])[0] for one in (base, tuned)]
    assert (made[0] != made[1]).any()


def test_the_adapter_that_is_loaded_is_the_one_that_was_trained_alpha_included(finetune: Run, tmp_path: Path) -> None:
    finetune(lora_alpha=7.0, target_modules=["to_q", "to_out.0", "conv1", "proj_in"])
    tuned = recipes.read(tmp_path / "out" / "recipe.yaml", samplers.Recipe)
    unet = samplers.load_sampler(tuned, device="cpu").pipeline.unet
    state = checkpoints.load(tmp_path / "out", 3)["weights"]
    loaded = {name: one for name, one in unet.named_parameters() if ".lora_" in name}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    layer = unet.get_submodule(next(iter(state)).split(".lora_")[0])
    assert list(layer.scaling.values()) == [7.0 / 2]


def test_full_training_writes_a_pipeline_that_generates(finetune: Run, tmp_path: Path) -> None:
    finetune(full=True, learning_rate=1e-3, ema_decay=0.9)
    tuned = recipes.read(tmp_path / "out" / "recipe.yaml", samplers.Recipe)
    assert tuned.lora is None
    assert Path(tuned.model).name == "pipeline"
    assert samplers.load_sampler(tuned, device="cpu").sample(["a"], [1])[0] is not None


def test_a_run_goes_on_where_it_stopped_with_the_losses_of_one_that_did_not(finetune: Run, tmp_path: Path) -> None:
    same = {
        "ema_decay": 0.9,
        "empty_prompt_share": 0.5,
        "lora_dropout": 0.3,
        "noise_offset": 0.1,
        "checkpointing_steps": 2,
    }
    whole = finetune(out="whole", max_train_steps=7, **same)
    finetune(out="cut", max_train_steps=4, **same)
    cut = finetune(out="cut", max_train_steps=7, **same)
    assert losses(cut) == losses(whole)
    states = [checkpoints.load(tmp_path / name, 7) for name in ("whole", "cut")]
    for part in ("weights", "ema"):
        flat = [torch.cat([one.flatten() for one in tensors(state[part])]) for state in states]
        assert torch.equal(*flat)


def tensors(part: dict[str, Any]) -> list[torch.Tensor]:
    return list(part["shadow_params"] if "shadow_params" in part else part.values())


def command(arguments: list[object]) -> list[str]:
    return [sys.executable, "-m", "synthchex.cli", *map(str, arguments)]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_same_losses(
    pipelines: Callable[[str], Path], films_csv: Path, tmp_path: Path, synthchex: Any
) -> None:
    recipe = write_recipes(tmp_path, pipelines("velocity"), max_train_steps=100, checkpointing_steps=5)
    arguments = ["finetune", "--train-data", films_csv, "--recipe", recipe]
    with subprocess.Popen(command([*arguments, "--out", tmp_path / "killed"]), stderr=subprocess.DEVNULL) as process:
        while len(checkpoints.read_log(tmp_path / "killed")) < 12 and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    reached = len(checkpoints.read_log(tmp_path / "killed"))
    assert 12 <= reached < 100, "the run must be killed in its middle"
    for name in ("killed", "whole"):
        done = synthchex(*arguments, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert losses(checkpoints.read_log(tmp_path / "killed")) == losses(checkpoints.read_log(tmp_path / "whole"))


@pytest.mark.slow
def test_two_processes_lose_what_one_does(
    pipelines: Callable[[str], Path], films_csv: Path, tmp_path: Path, synthchex: Any
) -> None:
    recipe = write_recipes(tmp_path, pipelines("stable-diffusion-3-5-medium"), train_batch_size=4, max_train_steps=6)
    arguments = ["finetune", "--train-data", films_csv, "--recipe", recipe, "--validation-data", films_csv]
    one = synthchex(*arguments, "--out", tmp_path / "one")
    two = synthchex("launch", "--num-processes", 2, *arguments, "--out", tmp_path / "two")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    logs = [checkpoints.read_log(tmp_path / name) for name in ("one", "two")]
    assert np.allclose(*(losses(log) for log in logs), rtol=1e-5)
    assert np.allclose(*([row["loss"] for row in log if "validation" in row] for log in logs), rtol=1e-5)


def test_accumulation_is_one_big_batch(finetune: Run) -> None:
    changes = {"train_batch_size": 4, "snr_gamma": 5.0}
    one = finetune(out="one", **changes)
    four = finetune("--gradient-accumulation-steps", 4, "--gradient-checkpointing", out="four", **changes)
    assert np.allclose(losses(one), losses(four), rtol=1e-5)
    assert np.allclose([row["grad_norm"] for row in one], [row["grad_norm"] for row in four], rtol=1e-4)


def test_bf16_trains_beside_float32(finetune: Run, plain: Path) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    exact, rough = checkpoints.read_log(plain / "out"), finetune(mixed_precision="bf16")
    assert np.allclose(losses(exact), losses(rough), rtol=0.05)
    assert losses(exact) != losses(rough)


def test_latents_and_prompts_of_the_cache_are_those_of_the_pipeline(
    pipelines: Callable[[str], Path], films_csv: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(pipelines("stable-diffusion-3-5-medium"))
    side = films.usable(sources.open_images(films_csv), SIDE, num_workers=0)
    recipe = Recipe("tiny", "base", resolution=SIDE, fit="resize")
    for _ in range(2):  # made, then found
        store = latents.films_store(tmp_path, pipeline.vae, side, recipe, shifted=True, batch_size=3)
        told = latents.prompts_store(tmp_path, pipeline, side.prompts, {}, device="cpu", batch_size=3)
    pixels = images.read(side.films.fetch(5)).pixels
    picture = np.asarray(Image.fromarray(pixels).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    values = pipeline.image_processor.preprocess(Image.fromarray(picture))
    with torch.no_grad():
        code = pipeline.vae.encode(values).latent_dist
        positive, _, pooled, _ = pipeline.encode_prompt("f lungs clear", None, None, do_classifier_free_guidance=False)
        _, negative, _, _ = pipeline.encode_prompt("f", None, None, do_classifier_free_guidance=True)
    found = store[side.digests[5]]
    assert torch.allclose(found["mean"], (code.mean[0] - 0.06) * 1.5, atol=1e-5)
    assert torch.allclose(found["std"], code.std[0] * 1.5, atol=1e-5)
    states = told[latents.prompt_hash("f lungs clear")]
    assert torch.allclose(states["encoder_hidden_states"], positive[0], atol=1e-5)
    assert torch.allclose(states["pooled_projections"], pooled[0], atol=1e-5)
    assert torch.allclose(told[latents.prompt_hash("")]["encoder_hidden_states"], negative[0], atol=1e-5)


@pytest.mark.parametrize("model", ["stable-diffusion-3-5-medium", "flux-1-dev", "lumina-2", "sana", "pixart-sigma"])
def test_the_network_is_asked_as_its_pipeline_asks_it(pipelines: Callable[[str], Path], model: str) -> None:
    """The denoiser's first call in a real sampling run, repeated through `predict`, answers the same."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(pipelines(model))
    pipeline.set_progress_bar_config(disable=True)
    family, seen = families.family_of(pipeline), []
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda found, t, noisy, **rest: (
        seen.append((found, t, noisy)),
        step(found, t, noisy, **rest),
    )[1]
    call: dict[str, Any] = {"height": SIDE, "width": SIDE, "num_inference_steps": 1, "guidance_scale": 1.0}
    call |= {"use_resolution_binning": False} if model in ("sana", "pixart-sigma") else {}
    call |= {"clean_caption": False} if model == "pixart-sigma" else {}
    pipeline("a lungs clear", generator=torch.Generator().manual_seed(0), output_type="latent", **call)
    found, t, noisy = seen[0]
    options = {name: call[name] for name in ("clean_caption",) if name in call}
    states = families.encode_prompts(pipeline, ["a lungs clear"], options, "cpu")
    if model == "flux-1-dev":
        unpack = lambda rows: pipeline._unpack_latents(rows, SIDE, SIDE, pipeline.vae_scale_factor)  # noqa: E731
        found, noisy = unpack(found), unpack(noisy)
    time_of = t[None] / 1000 if family.flow else t[None]
    with torch.no_grad():
        again = family.predict(pipeline.transformer, pipeline.transformer.config, noisy, time_of, states, 1.0)
    assert torch.allclose(again, found, atol=1e-5)


def test_min_snr_weights_by_hand() -> None:
    alphas = torch.tensor([0.9, 0.5, 0.0])  # SNR 9, 1, 0
    assert torch.allclose(objectives.snr_weights(alphas, "epsilon", 5.0), torch.tensor([5 / 9, 1.0, 1.0]))
    assert torch.allclose(objectives.snr_weights(alphas, "v_prediction", 5.0), torch.tensor([0.5, 0.5, 0.0]))
    assert objectives.snr_weights(alphas, "epsilon", None).tolist() == [1, 1, 1]


def test_the_flow_target_is_noise_minus_latents_at_a_shifted_level() -> None:
    asked = []

    def predict(model: Any, config: Any, noisy: Any, level: Any, states: Any, guidance: float) -> torch.Tensor:
        asked.append((noisy, level))
        return torch.zeros_like(noisy)

    scheduler = type("Scheduler", (), {"config": {"shift": 3.0}})()
    denoise = objectives.Denoise(
        None, None, families.Family("transformer", True, {}, predict), scheduler, torch.float32
    )
    clean, noise = torch.full((1, 1, 2, 2), 2.0), torch.full((1, 2, 2), 5.0)
    draws = [objectives.Draw(1, 1, 0.25, noise, noise)]
    found = objectives.losses(denoise, Recipe("r", "b"), clean, draws, {})
    assert asked[0][1].item() == pytest.approx(0.5)  # 3 x 0.25 / (1 + 2 x 0.25)
    assert asked[0][0].unique().item() == pytest.approx(0.5 * 2 + 0.5 * 5)
    assert found.tolist() == [pytest.approx((5.0 - 2.0) ** 2)]


def test_velocity_and_noise_are_the_targets_of_their_models(pipelines: Callable[[str], Path]) -> None:
    from diffusers import DDPMScheduler

    clean, noise = torch.full((1, 1, 2, 2), 2.0), torch.full((1, 2, 2), 5.0)
    draws = [objectives.Draw(1, 1, 0.5, noise, noise)]
    family = families.Family("unet", False, {}, lambda m, c, noisy, t, s, g: torch.zeros_like(noisy))
    for kind in ("epsilon", "v_prediction", "sample"):
        scheduler = DDPMScheduler(prediction_type=kind)
        denoise = objectives.Denoise(None, None, family, scheduler, torch.float32)
        share = float(scheduler.alphas_cumprod[500])
        target = {"epsilon": 5.0, "sample": 2.0, "v_prediction": share**0.5 * 5 - (1 - share) ** 0.5 * 2}[kind]
        found = objectives.losses(denoise, Recipe("r", "b"), clean, draws, {})
        assert found.tolist() == [pytest.approx(target**2, rel=1e-4)]


@pytest.mark.parametrize("scheme", ["none", "logit_normal", "mode"])
def test_noise_levels_have_the_density_of_diffusers(scheme: str) -> None:
    from diffusers.training_utils import compute_density_for_timestep_sampling

    uniform = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    ours = objectives.flow_sigmas(uniform, Recipe("r", "b", weighting_scheme=scheme), 1.0)  # type: ignore[arg-type]
    dice = torch.Generator().manual_seed(0)
    theirs = compute_density_for_timestep_sampling(scheme, 20000, 0.0, 1.0, 1.29, generator=dice)
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    assert torch.allclose(ours.quantile(at), theirs.double().quantile(at), atol=0.015)


def test_draws_follow_from_seed_and_number_and_epochs_hold_every_film_once() -> None:
    one, again, other = (objectives.draw(0, "train", number, (2, 4, 4)) for number in (3, 3, 4))
    assert torch.equal(one.noise, again.noise)
    assert one.time == again.time != other.time
    rows = [objectives.row_of(0, number, 5) for number in range(10)]
    assert sorted(rows[:5]) == sorted(rows[5:]) == [0, 1, 2, 3, 4]
    assert rows[:5] != rows[5:]


def test_patients_are_on_one_side_of_the_split(films_csv: Path) -> None:
    train, held_out = films.split(sources.open_images(films_csv), 0.5)
    assert held_out is not None
    assert not set(train.patients or ()) & set(held_out.patients or ())
    assert len(train) + len(held_out) == 8


def test_films_that_cannot_be_used_are_counted(films_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = tmp_path / "films.csv"
    table.write_text(
        f"image,prompt\n{films_csv.parent / '0.png'},lungs\nbroken.png,lungs\n{films_csv.parent / '1.png'},\n"
    )
    side = films.usable(sources.open_images(table), 64, num_workers=0)
    assert side.notes == {"enlarged": 1, "prompt-empty": 1, "not-an-image": 1}
    assert len(side) == 1


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_films_become_squares_without_a_flip(fit: str) -> None:
    film = np.zeros((8, 16), np.uint8)
    film[:, 8:] = 255  # left half black, right half white
    found = latents.square(film, 8, fit, channels=1)[..., 0]
    assert found.shape == (8, 8)
    assert found[4, 0] == 0
    assert found[4, -1] == 255
    assert (found[0, -1] == 255) == (fit != "pad")


def test_an_adapter_with_the_keys_of_2023_is_gone_on_from_and_a_foreign_one_refused(
    finetune: Run, plain: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(plain / "out" / "lora" / "pytorch_lora_weights.safetensors")
    legacy = {}
    for key, value in state.items():
        layer, _, end = key.removeprefix("unet.").partition(".lora_")
        block, _, name = layer.replace("to_out.0", "to_out").rpartition(".")
        legacy[f"{block}.processor.{name}_lora.{'down' if end.startswith('A') else 'up'}.weight"] = value
    save_file(legacy, tmp_path / "old.safetensors")
    finetune(out="further", lora=str(tmp_path / "old.safetensors"), learning_rate=1e-12)
    found = load_file(tmp_path / "further" / "lora" / "pytorch_lora_weights.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.allclose(found[key], state[key], atol=1e-6) for key in state)
    save_file({f"{key}.nothing": value for key, value in legacy.items()}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"no LoRA|added no weights|changes nothing"):
        finetune(out="foreign", lora=str(tmp_path / "foreign.safetensors"))
    with pytest.raises(ValueError, match=r"has rank \[2\], the recipe 3; set rank"):
        finetune(out="rank", lora=str(plain / "out" / "lora"), rank=3)


def test_pixart_goes_on_from_its_own_adapter(finetune: Run, tmp_path: Path) -> None:
    finetune(model="pixart-sigma")
    first = checkpoints.load(tmp_path / "out", 3)["weights"]
    finetune(model="pixart-sigma", out="further", lora=str(tmp_path / "out" / "lora"), learning_rate=1e-12)
    then = checkpoints.load(tmp_path / "further", 3)["weights"]
    assert all(torch.allclose(first[name], then[name], atol=1e-6) for name in first)


def test_an_adapter_that_changes_nothing_is_not_saved(pipelines: Callable[[str], Path], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(pipelines("stable-diffusion-2-1"))
    family = families.family_of(pipeline)
    lora.prepare(pipeline, family, Recipe("r", "b"))
    with pytest.raises(ValueError, match="expected a trained adapter, got one whose weights are all zero"):
        lora.save(pipeline, family, tmp_path / "lora")


def test_validation_writes_a_grid_and_distances_and_stops_early(finetune: Run, films_csv: Path, tmp_path: Path) -> None:
    log = finetune(
        "--validation-data", films_csv, max_train_steps=30, validation_steps=1, kid_samples=4,
        kid_encoder=str(tiny.dino(tmp_path / "dino")),
        validation_prompts=["a lungs", "edema"], num_validation_images=3, early_stopping_patience=2,
        early_stopping_metric="loss", learning_rate=1e-30, validation_batch_size=4, checkpoints_total_limit=1,
    )  # fmt: skip
    rows = [row for row in log if "validation" in row]
    assert {"kid", "kid_standard_error", "fid", "loss"} <= rows[0].keys()
    assert [row["step"] for row in rows] == [0, 1, 2, 3], "nothing is learned, so the first is the best"
    assert checkpoints.steps(tmp_path / "out") == [1, 3], "the best and the last"
    with Image.open(tmp_path / "out" / "validation" / "step-000003.png") as sheet:
        assert sheet.size == (3 * SIDE, 2 * SIDE)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "out" / "lora" / "pytorch_lora_weights.safetensors")
    kept = checkpoints.load(tmp_path / "out", 1)["weights"]
    assert sorted(float(one.sum()) for one in saved.values()) == sorted(float(one.sum()) for one in kept.values())


def test_the_flip_is_off_and_trains_on_flipped_films_when_on(finetune: Run, plain: Path) -> None:
    assert losses(finetune(horizontal_flip=True)) != losses(checkpoints.read_log(plain / "out"))


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ([], {"resolution": 30}, "resolution must be a multiple of 4"),
        ([], {"target_modules": ["to_q", "to_z"]}, r"must be layers of UNet2DConditionModel, got \['to_z'\]; it has"),
        ([], {"train_batch_size": 9}, "expected at least train_batch_size = 9 films to train on, got 8"),
        (["--gradient-accumulation-steps", 3], {}, "must be a multiple of processes x accumulation, got 2 and 1 x 3"),
        ([], {"rank": 0}, "rank must be at least 1, got 0"),
        ([], {"ranks": 1}, r"unknown keys \['ranks'\]; the valid ones are \['name', 'base'"),
        ([], {"fit": "stretch"}, r"fit must be one of \('crop', 'pad', 'resize'\), got 'stretch'"),
        ([], {"learning_rate": "fast"}, "learning_rate must be float, got 'fast'"),
        ([], {"weighting_scheme": "cosmap"}, "are for flow matching, got a model that predicts epsilon; use snr_gamma"),
        ([], {"mixed_precision": "fp16"}, "fp16 is for GPUs, got the CPU"),
        ([], {"kid_samples": 4}, "validation needs held-out films, got none"),
        ([], {"validation_share": 0.01}, "expected at least 2 films on each side of a held-out share of 0.01"),
        ([], {"early_stopping_patience": 2}, "early stopping needs validation_steps above 0"),
        (["--prompt-column", "words"], {}, "has no column 'words' for the prompt"),
        ([], {"base": "noise"}, r"base must be a recipe of a diffusers pipeline, got noise \(noise\)"),
    ],
)  # fmt: skip
def test_bad_input_is_said_early(finetune: Run, words: list[Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(*words, **changes)


def test_a_flow_model_refuses_what_is_for_epsilon_models(finetune: Run) -> None:
    with pytest.raises(ValueError, match="snr_gamma and noise_offset are for epsilon and velocity models"):
        finetune(model="sana", snr_gamma=5.0)


def test_films_without_prompts_are_refused(finetune: Run, films_csv: Path) -> None:
    with pytest.raises(ValueError, match=r"expected films with prompts in .*, got none"):
        finetune("--train-data", films_csv.parent)


def test_optional_packages_are_named(finetune: Run) -> None:
    with pytest.raises(ImportError, match="adamw-8bit needs bitsandbytes: pip install bitsandbytes"):
        finetune(optimizer="adamw-8bit")


def test_another_recipe_into_the_same_folder_is_refused_and_a_later_end_is_not(
    finetune: Run, plain: Path, tmp_path: Path
) -> None:
    shutil.copytree(plain / "out", tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds another run \(recipe.learning_rate: 0.01 there, 0.02 now\)"):
        finetune(learning_rate=2e-2)
    assert len(losses(finetune(max_train_steps=5))) == 5


def test_the_card_says_where_the_films_come_from_and_such_models_stay_private(
    main: Any, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (plain / "out" / "README.md").read_text()
    assert "**The source of the training images is credentialed.**" in text
    assert "learning_rate: 0.01" in text
    words = ["--train-data", "x", "--recipe", plain / "recipe.yaml", "--out", tmp_path, "--push", "a/b", "--public"]
    assert main([str(word) for word in words]) == 3
    assert "the training films are unknown, so the model may be pushed as private only" in capsys.readouterr().err
    assert card.refusal("credentialed", public=True, reason="consent given") is None
    assert card.refusal("credentialed", public=False, reason=None) is None


@pytest.mark.parametrize("path", sorted((ROOM / "configs" / "finetune").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_whole_and_says_where_its_numbers_come_from(path: Path) -> None:
    recipe = recipes.read(path, Recipe)
    assert recipe.name == path.stem
    assert recipe.source
    base = recipes.read(recipes.find(recipe.base, ROOM / "configs"), samplers.Recipe)
    assert base.sampler == "diffusers"


def test_the_seed_recipe_is_that_of_this_xray_does_not_exist() -> None:
    recipe = recipes.read(ROOM / "configs" / "finetune" / "this-xray-does-not-exist-lora.yaml", Recipe)
    assert (recipe.rank, recipe.learning_rate, recipe.lr_scheduler, recipe.num_train_epochs) == (
        4,
        1e-4,
        "constant",
        10,
    )
    assert (recipe.resolution, recipe.train_batch_size, recipe.seed, recipe.snr_gamma) == (512, 5, 42, None)
    assert recipe.steps(32532) == 65064


def test_push_sends_adapter_card_and_a_recipe_that_names_the_repository(plain: Path) -> None:
    import localhub

    base = recipes.read(plain / "base.yaml", samplers.Recipe)
    recipe = card.generation_recipe(recipes.read(plain / "recipe.yaml", Recipe), base, "clinic/tuned")
    code = (
        "import sys, pathlib; from synthchex.training import card; "
        "print(card.push(pathlib.Path(sys.argv[1]), 'clinic/tuned', sys.argv[2], public=False))"
    )
    with localhub.serve() as hub:
        places = {"HF_ENDPOINT": hub.url, "HF_TOKEN": localhub.WRITER, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        words = [sys.executable, "-c", code, str(plain / "out"), recipe]
        done = subprocess.run(words, env={**os.environ, **places}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        sent = hub.repositories["models", "clinic/tuned"]
    assert sent.private
    expected = {"README.md", "recipe.yaml", "log.jsonl", "pytorch_lora_weights.safetensors"}
    assert set(sent.files) - {".gitattributes"} == expected
    assert "lora: clinic/tuned" in sent.files["recipe.yaml"].decode()
    assert json.loads(sent.files["log.jsonl"].splitlines()[0])["step"] == 1
