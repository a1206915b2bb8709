"""LoRA weights into a pipeline: the layouts of diffusers, peft and kohya, and the keys of 2023. Never silently none.

diffusers says nothing when a file's keys fit no layer, or fit some of them: what was put in is counted here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADAPTER = "synthchex"
PEFT_FILE = "adapter_config.json"
# Of what is trained, one weight per layer and layout ends so: peft, diffusers, kohya, attention processors of 2023.
DOWN = ("lora_A.weight", "lora.down.weight", "lora_down.weight", "_lora.down.weight")
UP = ("lora_B.weight", "lora.up.weight", "lora_up.weight", "_lora.up.weight")


def add_lora(pipeline: Any, lora: str, *, file: str | None = None, scale: float = 1.0) -> None:
    """Put a LoRA into a pipeline.

    Args:
        pipeline: loaded, on the CPU.
        lora: Hub id, folder or file. A folder with adapter_config.json is in peft's layout and is merged into the
            network, which is the only way for pipelines without a LoRA loader (PixArt).
        file: which file of a folder with several.
        scale: weight; 0 is the pipeline without it.

    Raises:
        ValueError: some weights fit no layer, all are zero, or the pipeline takes only peft's layout.
    """
    if not Path(lora).exists() and (Path(lora).is_absolute() or lora.startswith(".") or lora.count("/") != 1):
        raise ValueError(f"expected a LoRA as a folder, file or Hub id, got {lora}, which is not there; check the path")
    if file is None and _is_peft(lora):
        _merge_peft(pipeline, lora, scale)
        return
    name = type(pipeline).__name__
    if not hasattr(pipeline, "load_lora_weights"):
        raise ValueError(f"{name} takes a LoRA in peft's layout only, a folder with {PEFT_FILE}; {lora} has none")
    if Path(lora).is_file():
        lora, file = str(Path(lora).parent), Path(lora).name
    weights = _state(pipeline, lora, file)
    network = "unet" if hasattr(pipeline, "unet") else "transformer"
    legacy = ".processor." in next(iter(weights), "") and not next(iter(weights)).startswith(network)
    try:
        if legacy:
            # The attention processors of 2023 were saved without the name of the network.
            pipeline.load_lora_weights(
                {f"{network}.{key}": value for key, value in weights.items()}, adapter_name=ADAPTER
            )
        else:
            pipeline.load_lora_weights(lora, weight_name=file, adapter_name=ADAPTER)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{lora} is no LoRA for {name}: {error}; convert the file") from error
    _check(pipeline, weights, lora)
    pipeline.set_adapters([ADAPTER], [scale])


def _state(pipeline: Any, lora: str, file: str | None) -> dict[str, Any]:
    """Weights as diffusers reads them; kohya's have been renamed."""
    try:
        found = pipeline.lora_state_dict(lora, weight_name=file)
    except OSError as error:
        raise ValueError(
            f"{lora} cannot be loaded ({str(error).splitlines()[0]}); give a folder or Hub id, and lora_file"
        ) from error
    return dict(found[0] if isinstance(found, tuple) else found)


def _check(pipeline: Any, weights: Mapping[str, Any], lora: str) -> None:
    """As many layers have an adapter as the file has weights for, and some adapter does something."""
    name = type(pipeline).__name__
    expected = sum(key.endswith(DOWN) for key in weights)
    layers = [layer for part in _networks(pipeline) for layer in _adapted(part)]
    if not layers:
        raise ValueError(
            f"{lora} added no weights to {name}: its keys are not those of this pipeline; convert the file"
        )
    if len(layers) < expected:
        raise ValueError(
            f"{lora} has weights for {expected} layers, {name} took {len(layers)}; it is for another model"
        )
    _check_moved(weights, lora)


def _check_moved(weights: Mapping[str, Any], lora: str) -> None:
    """An adapter whose second weights are all zero was never trained."""
    if not any(bool(value.any()) for key, value in weights.items() if key.endswith(UP)):
        raise ValueError(f"{lora} changes nothing: its up weights are all zero; was it saved before training?")


def _networks(pipeline: Any) -> list[Any]:
    import torch

    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def _adapted(network: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [m for m in network.modules() if isinstance(m, BaseTunerLayer) and ADAPTER in m.active_adapters]


def _is_peft(lora: str) -> bool:
    """Whether a folder or repository is in peft's layout."""
    if Path(lora).exists():
        return (Path(lora) / PEFT_FILE).is_file()
    from huggingface_hub import constants, file_exists, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(lora, PEFT_FILE), str | os.PathLike):
        return True
    return not constants.HF_HUB_OFFLINE and file_exists(lora, PEFT_FILE)


def _merge_peft(pipeline: Any, lora: str, scale: float) -> None:
    """A LoRA in peft's layout, added to the weights of the network."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    network = getattr(pipeline, name)
    config = PeftConfig.from_pretrained(lora)
    config.inference_mode = True
    try:
        model = get_peft_model(network, config, adapter_name=ADAPTER)
    except ValueError as error:
        raise ValueError(f"{lora} is no LoRA for {type(network).__name__}: {error}") from error
    weights = load_peft_weights(lora, device="cpu")
    told: Any = set_peft_model_state_dict(model, weights, adapter_name=ADAPTER)
    lacking = [key for key in told.missing_keys if "lora_" in key]
    if told.unexpected_keys or lacking:
        raise ValueError(
            f"{lora} fits {type(network).__name__} badly: {len(told.unexpected_keys)} weights without a layer, "
            f"{len(lacking)} layers without a weight; it is for another model"
        )
    _check_moved(weights, lora)
    for layer in _adapted(model):
        layer.set_scale(ADAPTER, scale)
    setattr(pipeline, name, model.merge_and_unload())
