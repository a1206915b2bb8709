"""Prompts to films. Knows pipelines; knows neither files nor processes.

A sampler is made from a `Recipe` and answers `sample(prompts, seeds) -> list of uint8 arrays`, one seed per film, so
that a film depends on its own prompt and seed. What is kept beside each film to say how it was made is in `provenance`.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synthchex.extras import require
from synthchex.models.encoders import ASSETS, loading, pick_device

EMBEDDED = "embedded:"


@dataclass(frozen=True)
class Recipe:
    """How a model is loaded and called; one YAML in `generation/configs/`. Sizes in pixels.

    `model` is a Hub id, a folder, or "embedded:<name>" for one that ships with the package. `lora` is a Hub id or
    folder. `load` and `call` are passed on to `from_pretrained` and to the pipeline as they are.
    """

    name: str
    model: str = ""
    sampler: str = "diffusers"
    revision: str | None = None
    dtype: str = "float32"
    scheduler: str | None = None
    steps: int = 50
    guidance_scale: float = 7.5
    height: int = 512
    width: int = 512
    lora: str | None = None
    lora_scale: float = 1.0
    load: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"recipe {self.name}: sampler must be one of {list(SAMPLERS)}, got {self.sampler!r}")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"recipe {self.name}: dtype must be float32, float16 or bfloat16, got {self.dtype!r}")
        if min(self.steps, self.height, self.width) < 1:
            raise ValueError(
                f"recipe {self.name}: steps, height and width must be at "
                f"least 1, got {self.steps}, {self.height}, {self.width}"
            )

    def hashed(self) -> dict[str, Any]:
        """What decides the pixels: everything but the prose."""
        return {key: value for key, value in asdict(self).items() if key != "source"}


class Sampler(Protocol):
    """Prompts and seeds to films."""

    provenance: dict[str, Any]

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        """One uint8 film, (H, W) or (H, W, 3), per prompt."""
        ...


def load_sampler(recipe: Recipe, *, device: str | None = None) -> Sampler:
    """The sampler that a recipe names, ready on `device`."""
    return SAMPLERS[recipe.sampler](recipe, device)


class DiffusersSampler:
    """Any text-to-image pipeline that `AutoPipelineForText2Image` or `DiffusionPipeline` knows."""

    def __init__(self, recipe: Recipe, device: str | None) -> None:
        self.recipe = recipe
        self.pipeline = _load_pipeline(recipe).to(pick_device(device))
        self.pipeline.set_progress_bar_config(disable=True)
        self.provenance = provenance(
            recipe, revision=_revision(self.pipeline, recipe), scheduler=type(self.pipeline.scheduler).__name__
        )

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        """Films of one batch; the noise comes from CPU generators, so a seed means the same on every device."""
        import torch

        call = dict(self.recipe.call)
        output = self.pipeline(
            prompt=list(prompts),
            num_inference_steps=self.recipe.steps,
            guidance_scale=self.recipe.guidance_scale,
            height=self.recipe.height,
            width=self.recipe.width,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="pil",
            **call,
        )
        return [np.asarray(image) for image in output.images]

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Prompts longer than the first text encoder reads; 0 where the pipeline has no tokenizer of known length."""
        tokenizer = getattr(self.pipeline, "tokenizer", None)
        limit = getattr(tokenizer, "model_max_length", 10**9)
        if tokenizer is None or limit > 10**6:
            return 0
        return sum(len(ids) > limit for ids in tokenizer(list(prompts), verbose=False)["input_ids"])


class NoiseSampler:
    """Grey noise from the seed: the dry run of everything around a model, and a test double."""

    def __init__(self, recipe: Recipe, device: str | None) -> None:
        self.recipe, self.provenance = recipe, provenance(recipe, revision="", scheduler="")

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        """Uniform noise, one generator per seed."""
        shape = (self.recipe.height, self.recipe.width)
        return [np.random.default_rng(seed).integers(0, 256, shape, np.uint8) for seed in seeds]


SAMPLERS: dict[str, Callable[[Recipe, str | None], Sampler]] = {"diffusers": DiffusersSampler, "noise": NoiseSampler}


def provenance(recipe: Recipe, *, revision: str, scheduler: str) -> dict[str, Any]:
    """The columns that say how a film was made; see `records.PROVENANCE_COLUMNS`."""
    return {
        "model": recipe.model if recipe.lora is None else f"{recipe.model} + {recipe.lora}",
        "revision": revision,
        "scheduler": scheduler,
        "steps": recipe.steps,
        "guidance_scale": recipe.guidance_scale,
        "height": recipe.height,
        "width": recipe.width,
        "dtype": recipe.dtype,
        "versions": versions(),
    }


def versions() -> str:
    """Versions that decide pixels, as JSON."""
    packages = ("synthchex", "diffusers", "transformers", "torch", "numpy", "pillow")
    return json.dumps({name: importlib.metadata.version(name) for name in packages})


def model_path(model: str) -> str:
    """A Hub id or folder as it is; "embedded:<name>" as the folder in the package."""
    if not model.startswith(EMBEDDED):
        return model
    folder = ASSETS / model.removeprefix(EMBEDDED)
    if not folder.is_dir():
        raise ValueError(
            "expected an embedded model of "
            f"{sorted(str(p.relative_to(ASSETS)) for p in ASSETS.glob('*/*'))}, got {model!r}"
        )
    return str(folder)


def _load_pipeline(recipe: Recipe) -> Any:
    diffusers = require("diffusers", extra="generate")
    import torch

    path = model_path(recipe.model)
    if not path:
        raise ValueError(f"recipe {recipe.name} names no model; set `model:` to a Hub id or folder")
    diffusers.utils.logging.disable_progress_bar()
    try:
        with loading(path):
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                path, revision=recipe.revision, dtype=getattr(torch, recipe.dtype), **recipe.load
            )
    except OSError as error:
        raise ValueError(
            f"{recipe.model} cannot be loaded ({str(error).splitlines()[0]}); "
            "give a Hub id you have access to, or a local folder"
        ) from error
    if recipe.scheduler is not None:
        if not hasattr(diffusers, recipe.scheduler):
            raise ValueError(
                f"recipe {recipe.name}: diffusers has no scheduler {recipe.scheduler!r}, e.g. DDIMScheduler"
            )
        pipeline.scheduler = getattr(diffusers, recipe.scheduler).from_config(pipeline.scheduler.config)
    if recipe.lora is not None:
        _add_lora(pipeline, recipe.lora, recipe.lora_scale)
    return pipeline


def _add_lora(pipeline: Any, lora: str, scale: float) -> None:
    """Load a LoRA and make sure that something was loaded: files with legacy keys load nothing, without an error."""
    pipeline.load_lora_weights(lora, adapter_name="synthchex")
    if not any(pipeline.get_list_adapters().values()):
        raise ValueError(
            f"{lora} added no weights to {type(pipeline).__name__}: "
            "its keys are not those of this pipeline; convert the file"
        )
    pipeline.set_adapters(["synthchex"], [scale])


def _revision(pipeline: Any, recipe: Recipe) -> str:
    """Commit of a Hub model where diffusers tells it, the revision asked for otherwise."""
    snapshot = Path(str(getattr(pipeline.config, "_name_or_path", "")))
    return snapshot.name if snapshot.parent.name == "snapshots" else recipe.revision or ""
