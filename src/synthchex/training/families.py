"""What each class of pipeline wants: how it reads a prompt, how its denoiser is called, what that predicts.

Time is in [0, 1000) for epsilon and velocity models, sigma in [0, 1] for flow matching, where every `predict` here
answers with the velocity from film to noise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out", *(f"attn.{n}" for n in ATTENTION))
States = Mapping[str, "torch.Tensor"]
Predict = Callable[[Any, Any, "torch.Tensor", "torch.Tensor", States, float], "torch.Tensor"]


@dataclass(frozen=True)
class Family:
    """A class of pipelines.

    `denoiser` is the part that is trained. `states` says which outputs of `encode_prompt` the denoiser takes under
    which name: (place of the prompt's, of the empty prompt's). `predict(model, config, noisy, time, states, guidance)`.
    """

    denoiser: str
    flow: bool
    states: Mapping[str, tuple[int, int]]
    predict: Predict
    targets: tuple[str, ...] = ATTENTION


def _unet(model: Any, config: Any, noisy: Any, time: Any, states: States, guidance: float) -> Any:
    return model(noisy, time, **states).sample


def _sd3(model: Any, config: Any, noisy: Any, time: Any, states: States, guidance: float) -> Any:
    return model(hidden_states=noisy, timestep=1000 * time, **states).sample


def _sana(model: Any, config: Any, noisy: Any, time: Any, states: States, guidance: float) -> Any:
    return model(noisy, timestep=1000 * time * config.timestep_scale, **states).sample


def _pixart(model: Any, config: Any, noisy: Any, time: Any, states: States, guidance: float) -> Any:
    sizes = {"resolution": None, "aspect_ratio": None}
    found = model(noisy, timestep=time, added_cond_kwargs=sizes, **states).sample
    return found.chunk(2, 1)[0] if found.shape[1] == 2 * noisy.shape[1] else found  # the rest is a learned variance


def _lumina(model: Any, config: Any, noisy: Any, time: Any, states: States, guidance: float) -> Any:
    # Its time runs from noise to film, and so does its velocity.
    return -model(hidden_states=noisy, timestep=1 - time, **states).sample


def _flux(model: Any, config: Any, noisy: Any, time: Any, states: States, guidance: float) -> Any:
    """The latents as a row of 2 x 2 patches; places and prompts have their coordinates with them."""
    import torch

    count, channels, height, width = noisy.shape
    patches = noisy.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).to(noisy)
    found = model(
        hidden_states=patches.reshape(count, -1, 4 * channels),
        timestep=time,
        guidance=torch.full_like(time, guidance) if config.guidance_embeds else None,
        img_ids=places,
        txt_ids=noisy.new_zeros(states["encoder_hidden_states"].shape[1], 3),
        **states,
    ).sample
    found = found.reshape(count, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return found.reshape(noisy.shape)


TEXT, MASK, POOLED = "encoder_hidden_states", "encoder_attention_mask", "pooled_projections"
MASKED = {TEXT: (0, 2), MASK: (1, 3)}
FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family("unet", False, {TEXT: (0, 1)}, _unet),
    "StableDiffusion3Pipeline": Family("transformer", True, {TEXT: (0, 1), POOLED: (2, 3)}, _sd3, JOINT),
    "PixArtSigmaPipeline": Family("transformer", False, MASKED, _pixart),
    "SanaPipeline": Family("transformer", True, MASKED, _sana, ATTENTION[:3]),
    "FluxPipeline": Family("transformer", True, {TEXT: (0, 0), POOLED: (1, 1)}, _flux, JOINT),
    "Lumina2Pipeline": Family("transformer", True, MASKED, _lumina),
}


def family_of(pipeline: Any) -> Family:
    """The entry of a pipeline's class, or of one that it is made from.

    Raises:
        ValueError: there is none.
    """
    for kind in type(pipeline).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    raise ValueError(f"fine-tuning knows {list(FAMILIES)}, got {type(pipeline).__name__}; choose another base")


def encode_prompts(pipeline: Any, prompts: Sequence[str], call: Mapping[str, Any], device: str) -> dict[str, Any]:
    """What the denoiser is told of prompts, (N, ...) by name.

    "" is what guidance calls the empty prompt, which some pipelines encode unlike others (Sana: without its
    instruction). Other options of the call (length, instruction) are those of generation: `call`, else the class's own.
    """
    import torch

    family, empty = family_of(pipeline), [not prompt for prompt in prompts]
    if any(empty) and not all(empty):
        raise ValueError("expected prompts or empty prompts, got both in one batch")
    reads = inspect.signature(pipeline.encode_prompt).parameters
    usual = {name: one.default for name, one in inspect.signature(pipeline.__call__).parameters.items()}
    options = {name: call.get(name, usual[name]) for name in reads if name in usual and not _is_prompt(name)}
    options |= {name: None for name in ("prompt_2", "prompt_3") if name in reads}
    if "do_classifier_free_guidance" in reads:
        options["do_classifier_free_guidance"] = all(empty)
    options |= {"prompt": list(prompts), "num_images_per_prompt": 1, "device": device}
    with torch.inference_mode():
        found = pipeline.encode_prompt(**options)
    places = {name: pair[all(empty)] for name, pair in family.states.items()}
    return {name: found[place].detach().cpu() for name, place in places.items()}


def _is_prompt(name: str) -> bool:
    return "prompt" in name or name.endswith(("_embeds", "_mask"))


def side_step(pipeline: Any) -> int:
    """What a film's side must be a multiple of, in pixels."""
    config = getattr(pipeline, family_of(pipeline).denoiser).config
    if hasattr(config, "down_block_types"):
        patch = 2 ** (len(config.down_block_types) - 1)
    else:
        patch = 2 if type(pipeline).__name__ == "FluxPipeline" else int(config.patch_size or 1)
    return patch * int(pipeline.vae_scale_factor)
