"""How a model is loaded and called, as one YAML says it, and what of that is kept beside its films. Loads nothing."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

EXTERNAL = "external"
KINDS = ("diffusers", "noise", EXTERNAL)
DTYPES = ("float32", "float16", "bfloat16")
OFFLOADS = (None, "model", "sequential")
UNHASHED = ("source", "offload")  # prose, and where weights wait: neither decides a pixel
Sample = np.ndarray | None


@dataclass(frozen=True)
class Recipe:
    """How a model is loaded and called; one YAML in `generation/configs/`. Sizes in pixels.

    Args:
        model: a Hub id, a folder, or "embedded:<name>" for one that ships with the package; of an external recipe, the
            name of what made the films.
        sampler: "diffusers", "noise", or "external" for films that were made elsewhere.
        pipeline: class of diffusers, where no repository holds the whole pipeline and `parts` name each piece of it.
        parts: pieces of the pipeline that come from elsewhere: {"unet": {"class": a class of diffusers or transformers,
            "model": Hub id or folder, and arguments of its `from_pretrained`}}; without "model", of its constructor.
        dtype, dtypes: of all weights, and of pieces that need another one, e.g. {"vae": "float32"}.
        scheduler, scheduler_config: class, and changes to its configuration.
        lora, lora_file, lora_scale: Hub id, folder or file; name of the file where a folder has several; weight.
        load, call: passed on to `from_pretrained` and to the pipeline as they are.
        share_prompts: a text encoder reads each distinct prompt of a batch once.
        channels_last, attention, compile, vae_slicing, vae_tiling: speed and memory. `attention` is a backend of
            diffusers, e.g. native, flash; `compile` holds arguments of `torch.nn.Module.compile`. Each may change the
            last bits of a film, so each is part of the recipe's hash.
        offload: keep weights on the CPU between uses: "model" (a piece at a time) or "sequential" (a layer at a time).
        source: where the numbers come from.
    """

    name: str
    model: str = ""
    sampler: str = "diffusers"
    pipeline: str | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    revision: str | None = None
    dtype: str = "float32"
    dtypes: dict[str, str] = field(default_factory=dict)
    scheduler: str | None = None
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    steps: int = 50
    guidance_scale: float = 7.5
    height: int = 512
    width: int = 512
    lora: str | None = None
    lora_file: str | None = None
    lora_scale: float = 1.0
    load: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    share_prompts: bool = True
    channels_last: bool = False
    attention: str | None = None
    compile: dict[str, Any] | None = None
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.sampler not in KINDS:
            raise ValueError(f"recipe {self.name}: sampler must be one of {list(KINDS)}, got {self.sampler!r}")
        for dtype in (self.dtype, *self.dtypes.values()):
            if dtype not in DTYPES:
                raise ValueError(f"recipe {self.name}: dtype must be float32, float16 or bfloat16, got {dtype!r}")
        if min(self.steps, self.height, self.width) < 1:
            raise ValueError(
                f"recipe {self.name}: steps, height and width must be at "
                f"least 1, got {self.steps}, {self.height}, {self.width}"
            )
        if self.offload not in OFFLOADS:
            raise ValueError(f"recipe {self.name}: offload must be one of {list(OFFLOADS)}, got {self.offload!r}")

    def hashed(self) -> dict[str, Any]:
        """What decides the pixels: everything but the prose."""
        return {key: value for key, value in asdict(self).items() if key not in UNHASHED}


class Sampler(Protocol):
    """Prompts and seeds to films."""

    provenance: dict[str, Any]

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Sample]:
        """One uint8 film, (H, W) or (H, W, 3), per prompt; None where the network's output is not finite."""
        ...

    def count_truncated(self, prompts: Sequence[str]) -> tuple[int, int]:
        """Prompts that are longer than every text encoder reads, and how many tokens the most patient one reads; (0, 0)
        where there is no such limit.
        """
        ...


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
        "dtype": ", ".join([recipe.dtype, *(f"{part} {dtype}" for part, dtype in sorted(recipe.dtypes.items()))]),
        "versions": versions(),
    }


def versions() -> str:
    """Versions that decide pixels, as JSON."""
    packages = ("synthchex", "diffusers", "transformers", "torch", "numpy", "pillow")
    return json.dumps({name: importlib.metadata.version(name) for name in packages})
