"""What to train on what: the options of a utility study, checked. Loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from synthchex.data.importers.policies import POLICIES
from synthchex.data.training import Policy
from synthchex.models import encoders
from synthchex.scores.request import among, at_least

ARMS = ("trtr", "tstr", "trts", "mix", "pretrain")
PRESETS: dict[str, tuple[str, ...]] = {"chexgenbench": ("all_original", "all_synthetic", "mixed", "augmented")}
PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


@dataclass(frozen=True)
class Training:
    """How a backbone is fine-tuned; rates and sizes as transformers names them. `patience` is in epochs."""

    num_train_epochs: int = 20
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_ratio: float = 0.05
    train_batch_size: int = 32
    patience: int = 3
    bf16: bool = False
    image_size: int | None = None
    rotation: float = 7.0
    translation: float = 0.04
    exposure: float = 0.15
    report_to: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name in ("num_train_epochs", "train_batch_size", "patience"):
            at_least(name, getattr(self, name), 1)
        if self.learning_rate <= 0 or not 0 <= self.warmup_ratio < 1:
            raise ValueError(
                f"learning_rate must be above 0 and warmup_ratio between 0 and 1, got {self.learning_rate} and "
                f"{self.warmup_ratio}"
            )
        if not 0 <= self.rotation <= 30 or not 0 <= self.translation <= 0.2 or not 0 <= self.exposure < 1:
            raise ValueError(
                "rotation must lie between 0 and 30 degrees, translation between 0 and 0.2 of a side, exposure between "
                f"0 and 1, got {self.rotation}, {self.translation} and {self.exposure}"
            )


@dataclass(frozen=True)
class Request:
    """What to train on what.

    `mix` are synthetic films per real one; `seeds` how often everything is repeated; `max_real` keeps that many real
    training films at most; `backbone` None is a linear probe on `encoder`. A label is scored on a test set that has
    `min_rows` films with it and as many without.
    """

    arms: tuple[str, ...] = ARMS
    preset: str | None = None
    mix: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    seeds: int = 3
    seed: int = 0
    encoder: str = encoders.DEFAULT
    backbone: str | None = None
    training: Training = Training()
    penalties: tuple[float, ...] = PENALTIES
    test_share: float = 0.3
    validation_share: float = 0.2
    max_real: int | None = None
    uncertain: Policy = "ignore"
    not_mentioned: Policy = "ignore"
    min_rows: int = 10
    resamples: int = 500
    confidence_level: float = 0.95
    alpha: float = 0.05
    age_bands: tuple[float, ...] = (40, 60, 80)
    batch_size: int = 32
    num_workers: int = 2
    device: str | None = None
    source_policy: str = "unknown"
    domain: str = "radiographs"

    def __post_init__(self) -> None:
        """Refuse what cannot be measured before anything is loaded."""
        among("arms", self.arms, ARMS)
        among("preset", [self.preset] if self.preset else [], PRESETS)
        among("uncertain and not_mentioned", [self.uncertain, self.not_mentioned], get_args(Policy))
        among("source policy", [self.source_policy], POLICIES)
        for name, least in (("seeds", 1), ("min_rows", 2), ("resamples", 100), ("batch_size", 1), ("num_workers", 1)):
            at_least(name, getattr(self, name), least)
        if self.max_real is not None:
            at_least("max_real", self.max_real, 10)
        if not self.mix or min(self.mix) < 0 or not self.penalties or min(self.penalties) <= 0:
            raise ValueError(
                "expected one or more ratios of mix, 0 or above, and penalties above 0, got "
                f"{list(self.mix)} and {list(self.penalties)}"
            )
        if not self.age_bands or list(self.age_bands) != sorted(set(self.age_bands)):
            raise ValueError(f"age_bands must be one or more edges that rise, got {list(self.age_bands)}")
        shares = (self.test_share, self.validation_share, self.confidence_level, self.alpha)
        if not all(0 < share < 1 for share in shares):
            raise ValueError(
                "test_share, validation_share, confidence_level and alpha must lie between 0 and 1, got "
                f"{', '.join(map(str, shares))}"
            )
