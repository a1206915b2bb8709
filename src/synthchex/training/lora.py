"""Adapters: added to a denoiser, started from a file, saved in the pipeline's own format. Knows no training.

Pipelines whose class loads LoRA files get one (`pytorch_lora_weights.safetensors`, with rank and alpha in its header);
PixArt, whose class does not, gets peft's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthchex.extras import require
from synthchex.models.samplers.lora import ADAPTER, add_lora
from synthchex.training.families import Family
from synthchex.training.recipe import Recipe


def prepare(pipeline: Any, family: Family, recipe: Recipe) -> dict[str, Any]:
    """Make the weights to be trained trainable, in float32, and freeze all others.

    Returns:
        The trained parameters by name, in a fixed order.

    Raises:
        ValueError: unknown target modules; an adapter that fits nothing, or has another rank than the recipe.
    """
    denoiser = getattr(pipeline, family.denoiser)
    denoiser.requires_grad_(recipe.full)
    if recipe.lora:
        start(pipeline, family, recipe.lora, rank=recipe.rank)
    elif not recipe.full:
        add(denoiser, family, recipe)
    trained = {name: one for name, one in denoiser.named_parameters() if recipe.full or ".lora_" in name}
    if not trained:
        raise ValueError(f"expected trainable weights in {type(denoiser).__name__}, got none; see target_modules")
    for one in trained.values():
        one.data = one.data.float()
        one.requires_grad_(True)
    return trained


def add(denoiser: Any, family: Family, recipe: Recipe) -> None:
    """A new adapter; the same one for the same seed. It changes nothing until it is trained."""
    import torch

    peft = require("peft", extra="generate")
    targets = list(recipe.target_modules or family.targets)
    check_targets(denoiser, recipe.target_modules)
    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank if recipe.lora_alpha is None else recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        init_lora_weights="gaussian",
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if hasattr(denoiser, "add_adapter"):
            denoiser.add_adapter(config, ADAPTER)
        else:  # PixArt: layers are put into the network itself
            denoiser.peft_model = [peft.get_peft_model(denoiser, config)]  # in a list: no submodule of itself


def check_targets(denoiser: Any, targets: Sequence[str]) -> None:
    """Refuse names that no layer has: peft says nothing as long as one of them fits.

    Raises:
        ValueError: naming them and the layers there are.
    """
    import torch

    layers = [name for name, one in denoiser.named_modules() if isinstance(one, torch.nn.Linear | torch.nn.Conv2d)]
    unknown = [word for word in targets if not any(name == word or name.endswith(f".{word}") for name in layers)]
    if unknown:
        ends = {
            ".".join(name.split(".")[-2:] if name.split(".")[-1].isdigit() else name.split(".")[-1:]) for name in layers
        }
        raise ValueError(
            f"target_modules must be layers of {type(denoiser).__name__}, got {unknown}; it has {sorted(ends)}"
        )


def start(pipeline: Any, family: Family, lora: str, *, rank: int) -> None:
    """Go on from an adapter: a folder, a file or a Hub id; files with diffusers' keys of 2023 too."""
    denoiser = getattr(pipeline, family.denoiser)
    if hasattr(denoiser, "add_adapter"):
        add_lora(pipeline, lora)
    else:
        peft = require("peft", extra="generate")
        try:
            denoiser.peft_model = [peft.PeftModel.from_pretrained(denoiser, lora, is_trainable=True)]
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{lora} is no LoRA for {type(pipeline).__name__}: {str(error).splitlines()[0]}"
            ) from error
    ranks = {one.shape[0] for name, one in denoiser.named_parameters() if ".lora_A." in name}
    if ranks != {rank}:
        raise ValueError(f"{lora} has rank {sorted(ranks)}, the recipe {rank}; set rank to that of the adapter")


def save(pipeline: Any, family: Family, folder: Path) -> None:
    """Write the adapter as `load_lora_weights`, or peft for PixArt, reads it.

    Raises:
        ValueError: all of it is zero: it would change nothing.
    """
    peft = require("peft", extra="generate")
    denoiser = getattr(pipeline, family.denoiser)
    if not any(one.abs().max() > 0 for name, one in denoiser.named_parameters() if ".lora_B." in name):
        raise ValueError("expected a trained adapter, got one whose weights are all zero; train for more steps")
    folder.mkdir(parents=True, exist_ok=True)
    if not hasattr(denoiser, "add_adapter"):
        denoiser.peft_model[0].save_pretrained(folder)
        return
    state = peft.utils.get_peft_model_state_dict(denoiser, adapter_name=ADAPTER)
    # With peft's keys: diffusers' `convert_state_dict_to_diffusers` renames those of attention only, and of such a file
    # a part is loaded. Without the configuration in the header, alpha would be taken for the rank.
    pipeline.save_lora_weights(
        folder,
        **{
            f"{family.denoiser}_lora_layers": state,
            f"{family.denoiser}_lora_adapter_metadata": denoiser.peft_config[ADAPTER].to_dict(),
        },
    )
