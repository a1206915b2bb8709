"""What to measure with what: the options of an evaluation, checked. Loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from synthchex.data.importers.policies import POLICIES
from synthchex.maths.resampling import Adjustment
from synthchex.models import encoders
from synthchex.scores.groups import Uncertain

METRICS = ("fid", "kid", "prdc", "cmmd", "vendi", "alignment", "inception_score", "ms_ssim", "frd")
USUAL = METRICS[:-1]  # frd takes seconds of a core per film, so it is measured on request
PROTOCOLS = ("default", "chexgenbench")


@dataclass(frozen=True)
class Request:
    """What to measure with what. `image_text` None measures neither alignment nor CMMD; labels with fewer than
    `min_rows` films on a side are not scored; `match_size` None is the largest size that all scored labels can fill.
    """

    encoders: tuple[str, ...] = (encoders.DEFAULT,)
    image_text: str | None = None
    classifiers: tuple[str, ...] = ()
    metrics: tuple[str, ...] = USUAL
    protocol: str = "default"
    nearest_k: int = 5
    min_rows: int = 30
    uncertain: Uncertain = "ignore"
    adjustment: Adjustment = "holm"
    alpha: float = 0.05
    draws: int = 20
    permutations: int = 999
    match_size: int | None = None
    confidence_level: float = 0.95
    seed: int = 0
    domain: str = "radiographs"
    source_policy: str = "unknown"
    batch_size: int = 32
    num_workers: int = 2
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured before anything is loaded."""
        among("metrics", self.metrics, METRICS)
        among("protocol", [self.protocol], PROTOCOLS)
        among("uncertain", [self.uncertain], get_args(Uncertain))
        among("adjustment", [self.adjustment], ("holm", "bh"))
        among("source policy", [self.source_policy], POLICIES)
        at_least("nearest_k", self.nearest_k, 1)
        at_least("min_rows", self.min_rows, 2)
        at_least("draws", self.draws, 1)
        at_least("permutations", self.permutations, 19)
        at_least("batch_size", self.batch_size, 1)
        at_least("num_workers", self.num_workers, 1)
        if not 0 < self.confidence_level < 1 or not 0 < self.alpha < 1:
            raise ValueError(
                f"confidence_level and alpha must lie between 0 and 1, got {self.confidence_level} and {self.alpha}"
            )
        if not self.encoders or len(set(self.encoders)) < len(self.encoders):
            raise ValueError(f"expected one or more different encoders, got {list(self.encoders)}")


def among(name: str, given: Any, known: Any) -> None:
    """Refuse values that are not known."""
    unknown = [value for value in given if value not in known]
    if unknown:
        raise ValueError(f"{name} must be among {list(known)}, got {unknown}")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below the least one."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
