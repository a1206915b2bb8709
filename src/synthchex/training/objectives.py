"""What a step minimises, and all that is random about one film in one step. Knows no pipeline beyond its family.

Everything random is drawn from (seed, number of the film in the run): not from the process, the batch or what was drawn
before, so a run can be cut anywhere and split over any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.data import records
from synthchex.training.families import Family
from synthchex.training.recipe import Recipe

if TYPE_CHECKING:
    import torch


class Draw(NamedTuple):
    """Random numbers of one film in one step: three uniform ones, and normal ones in the latents' shape."""

    drop: float
    flip: float
    time: float
    sample: torch.Tensor
    noise: torch.Tensor


def row_of(seed: int, number: int, films: int) -> int:
    """Which film is the `number`-th of a run: every epoch is a permutation, and batches run on over its end."""
    epoch, place = divmod(number, films)
    return int(_order(seed, epoch, films)[place])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, films: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(films)


def draw(seed: int, stream: str, number: int, shape: Sequence[int], *, offset: float = 0.0) -> Draw:
    """The draws of the `number`-th film of a stream ("train" or "validation").

    Args:
        shape: of the latents, (C, H, W).
        offset: strength of a common offset per channel in the noise.
    """
    import torch

    dice = torch.Generator().manual_seed(records.row_seed(seed, stream, number))
    drop, flip, time = torch.rand(3, generator=dice, dtype=torch.float64).tolist()
    sample, noise = torch.randn(2, *shape, generator=dice)
    if offset:
        noise = noise + offset * torch.randn(shape[0], 1, 1, generator=dice)
    return Draw(drop, flip, time, sample, noise)


def flow_sigmas(uniform: torch.Tensor, recipe: Recipe, shift: float) -> torch.Tensor:
    """Noise levels in (0, 1) from uniform numbers, by the density of the recipe, shifted towards noise.

    Source: Esser et al. 2024 (SD3), sections 3.1 and 5.3.2; as diffusers' `compute_density_for_timestep_sampling`.
    """
    import torch

    if recipe.weighting_scheme == "logit_normal":
        normal = recipe.logit_mean + recipe.logit_std * torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7))
        levels = torch.sigmoid(normal)
    elif recipe.weighting_scheme == "mode":
        bend = torch.cos(math.pi * uniform / 2) ** 2 - 1 + uniform
        levels = 1 - uniform - recipe.mode_scale * bend
    else:
        levels = uniform
    levels = levels.clamp(1e-3, 1)  # the first of diffusers' 1000 steps
    return shift * levels / (1 + (shift - 1) * levels)


def flow_weights(sigmas: torch.Tensor, scheme: str) -> torch.Tensor:
    """Weight of each loss; 1 but for "sigma_sqrt" and "cosmap". Source: Esser et al. 2024, section 3.1."""
    import torch

    if scheme == "sigma_sqrt":
        return sigmas**-2
    if scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    return torch.ones_like(sigmas)


def snr_weights(alphas: torch.Tensor, prediction_type: str, gamma: float | None) -> torch.Tensor:
    """Min-SNR weights: of the noise min(SNR, gamma) / SNR, of the velocity min(SNR, gamma) / (SNR + 1).

    Args:
        alphas: cumulated products, share of the film in the variance, in [0, 1].
        prediction_type: "epsilon", "v_prediction" or "sample".
        gamma: the largest SNR that counts in full; None weights everything by 1.

    Source: Hang et al. 2023, section 3.4; without division by an SNR of 0 (zero terminal SNR).
    """
    import torch

    if gamma is None:
        return torch.ones_like(alphas)
    snr = alphas / (1 - alphas)
    least = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1)
    return least / (snr + 1) if prediction_type == "v_prediction" else least


def shift_of(scheduler: Any, recipe: Recipe) -> float:
    """How far noise levels are shifted: the recipe's, or a static shift of the scheduler that the base comes with."""
    if recipe.shift is not None:
        return recipe.shift
    dynamic = scheduler.config.get("use_dynamic_shifting", False)
    return 1.0 if dynamic else float(scheduler.config.get("shift", 1.0))


def noising(scheduler: Any) -> Any:
    """The noising that a sampling scheduler undoes, as diffusers' training scripts take it."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(scheduler.config)


def check(family: Family, scheduler: Any, recipe: Recipe) -> None:
    """Refuse settings that mean nothing for this model.

    Raises:
        ValueError: naming the setting.
    """
    if family.flow and (recipe.snr_gamma is not None or recipe.noise_offset):
        raise ValueError(
            f"recipe {recipe.name}: snr_gamma and noise_offset are for epsilon and velocity models, got a "
            "flow-matching one; use weighting_scheme"
        )
    if not family.flow and (recipe.weighting_scheme != "none" or recipe.shift is not None):
        raise ValueError(
            f"recipe {recipe.name}: weighting_scheme and shift are for flow matching, got a model that predicts "
            f"{noising(scheduler).config.prediction_type}; use snr_gamma"
        )


class Denoise(NamedTuple):
    """A network that is asked: ready for several processes, with its configuration, family, what noises films
    (`noising(...)`; for flow matching the pipeline's own scheduler), and the dtype of its frozen weights.
    """

    model: Any
    config: Any
    family: Family
    scheduler: Any
    dtype: torch.dtype


def losses(
    denoise: Denoise, recipe: Recipe, clean: torch.Tensor, draws: Sequence[Draw], states: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Weighted squared error of each film, float32 (N,), before any mean.

    Args:
        clean: latents, float32 (N, C, H, W).
        draws: one per film.
        states: what the denoiser is told of the prompts.
    """
    import torch

    noise = torch.stack([one.noise for one in draws]).to(clean)
    uniform = torch.tensor([one.time for one in draws], dtype=torch.float64, device=clean.device)
    noised = _flow if denoise.family.flow else _diffusion
    noisy, time, target, weights = noised(denoise.scheduler, recipe, clean, noise, uniform)
    found = denoise.family.predict(
        denoise.model, denoise.config, noisy.to(denoise.dtype), time, states, recipe.guidance_scale
    )
    return weights * (found.float() - target).square().mean((1, 2, 3))


def _flow(scheduler: Any, recipe: Recipe, clean: Any, noise: Any, uniform: Any) -> tuple[Any, Any, Any, Any]:
    """On the straight line from film to noise; its direction is the target."""
    time = flow_sigmas(uniform, recipe, shift_of(scheduler, recipe)).float()
    level = time[:, None, None, None]
    noisy = (1 - level) * clean + level * noise
    return noisy, time, noise - clean, flow_weights(time, recipe.weighting_scheme)


def _diffusion(scheduler: Any, recipe: Recipe, clean: Any, noise: Any, uniform: Any) -> tuple[Any, Any, Any, Any]:
    """At a discrete time, the noise, the velocity or the film is the target."""
    time = (uniform * scheduler.config.num_train_timesteps).long()
    kind = scheduler.config.prediction_type
    weights = snr_weights(scheduler.alphas_cumprod.to(clean)[time], kind, recipe.snr_gamma)
    if kind == "v_prediction":
        target = scheduler.get_velocity(clean, noise, time)
    else:
        target = noise if kind == "epsilon" else clean
    return scheduler.add_noise(clean, noise, time), time, target, weights
