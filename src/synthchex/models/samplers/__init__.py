"""Prompts to films. Knows pipelines; knows neither files nor processes.

A sampler is made from a `Recipe` and answers `sample(prompts, seeds)`: one uint8 film per seed, which depends on its
own prompt and seed, up to the rounding of sums over a batch. What is kept beside each film to say how it was made is in
`provenance`.
"""

from __future__ import annotations

from collections.abc import Callable

from synthchex.models.samplers.diffusion import DiffusersSampler
from synthchex.models.samplers.noise import NoiseSampler
from synthchex.models.samplers.pipelines import load_pipeline, model_path
from synthchex.models.samplers.recipe import EXTERNAL, Recipe, Sample, Sampler, provenance, versions

__all__ = [
    "EXTERNAL",
    "SAMPLERS",
    "Recipe",
    "Sample",
    "Sampler",
    "load_pipeline",
    "load_sampler",
    "model_path",
    "provenance",
    "versions",
]
SAMPLERS: dict[str, Callable[[Recipe, str | None], Sampler]] = {"diffusers": DiffusersSampler, "noise": NoiseSampler}


def load_sampler(recipe: Recipe, *, device: str | None = None) -> Sampler:
    """The sampler that a recipe names, ready on `device`.

    Raises:
        ValueError: nothing can be loaded by that recipe, or its films are made elsewhere.
    """
    if recipe.sampler == EXTERNAL:
        raise ValueError(f"recipe {recipe.name} is of films made elsewhere, which are brought in with --images DIR")
    return SAMPLERS[recipe.sampler](recipe, device)
