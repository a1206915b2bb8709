"""The sampler of every pipeline that diffusers knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthchex.models.samplers import texts
from synthchex.models.samplers.pipelines import load_pipeline, revision_of
from synthchex.models.samplers.recipe import Recipe, Sample, provenance


class DiffusersSampler:
    """A pipeline with a recipe's arguments."""

    def __init__(self, recipe: Recipe, device: str | None) -> None:
        self.recipe = recipe
        self.pipeline = load_pipeline(recipe, device=device)
        self.provenance = provenance(
            recipe, revision=revision_of(self.pipeline, recipe), scheduler=type(self.pipeline.scheduler).__name__
        )

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Sample]:
        """Films of one batch; the noise comes from CPU generators, so a seed means the same on every device.

        Raises:
            ValueError: the pipeline makes films of another size than the recipe says.
            torch.OutOfMemoryError: the batch does not fit.
        """
        import torch

        call: dict[str, Any] = dict(self.recipe.call)
        output = self.pipeline(
            prompt=list(prompts),
            num_inference_steps=self.recipe.steps,
            guidance_scale=self.recipe.guidance_scale,
            height=self.recipe.height,
            width=self.recipe.width,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",  # float32 in [0, 1], (N, H, W, 3): PIL images would hide what is not finite
            **call,
        )
        images, asked = output.images, (self.recipe.height, self.recipe.width)
        if images.shape[1:3] != asked:
            raise ValueError(
                f"recipe {self.recipe.name}: expected films of height x width {asked[0]} x {asked[1]}, got "
                f"{images.shape[1]} x {images.shape[2]} from {type(self.pipeline).__name__}; set sizes it can make"
            )
        return [_film(values) for values in images]

    def count_truncated(self, prompts: Sequence[str]) -> tuple[int, int]:
        """See `texts.count_truncated`."""
        return texts.count_truncated(self.pipeline, self.recipe.call, prompts)


def _film(values: np.ndarray) -> Sample:
    """uint8 as diffusers makes PIL images, or None."""
    if not np.isfinite(values).all():
        return None
    pixels = (values * 255).round().astype(np.uint8)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
