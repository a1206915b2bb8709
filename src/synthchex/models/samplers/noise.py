"""Grey noise in place of a model: the dry run of everything around one, and a test double."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthchex.models.samplers.recipe import Recipe, Sample, provenance


class NoiseSampler:
    """Uniform noise from the seed."""

    def __init__(self, recipe: Recipe, device: str | None) -> None:
        self.recipe, self.provenance = recipe, provenance(recipe, revision="", scheduler="")

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Sample]:
        """One generator per seed."""
        shape = (self.recipe.height, self.recipe.width)
        return [np.random.default_rng(seed).integers(0, 256, shape, np.uint8) for seed in seeds]

    def count_truncated(self, prompts: Sequence[str]) -> tuple[int, int]:
        """It reads no prompt."""
        return 0, 0
