"""What screens measure with, and what each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data import records
from synthchex.data.sources import ImageSet
from synthchex.gate import signatures
from synthchex.models import store
from synthchex.screens import pixels, writing

NEEDS: dict[str, tuple[str, ...]] = {
    "pixels": (),
    "text": (),
    "exposure": ("reference",),
    "blur": ("reference",),
    "noise": ("reference",),
    "chest": ("reference",),
    "mirrored": ("reference", "encoder"),
    "duplicate": ("reference", "encoder"),
    "copy": ("reference", "encoder"),
    "labels": ("reference", "classifier"),
    "view": ("view_classifier", "views"),
}
# Screens that set their limits by real films where there are some, and have a fixed one where there are none.
TAKE_REFERENCE = frozenset({"text"})
# In the order in which a film that several screens would drop gets its reason.
REASONS: dict[str, str] = {
    "constant": "pixels",
    "black": "pixels",
    "white": "pixels",
    "saturated": "pixels",
    "burned_in_text": "text",
    "exposure": "exposure",
    "blurred": "blur",
    "noisy": "noise",
    "not_a_chest_film": "chest",
    "mirrored": "mirrored",
    "wrong_view": "view",
    "label_mismatch": "labels",
    "copy_of_real": "copy",
    "near_duplicate": "duplicate",
}


@dataclass(frozen=True)
class Means:
    """What screens measure with: networks, the real films that set limits, and views that may stay.

    `encoder`, `classifier` and `view_classifier` as `load_encoder`, `load_classifier` and `load_logits` give them.
    """

    reference: ImageSet | None = None
    encoder: Any = None
    classifier: Any = None
    view_classifier: Any = None
    views: tuple[str, ...] = ()
    false_drops: float = 0.01
    store: Path | None = None
    batch_size: int = 32
    num_workers: int = 2
    quiet: bool = True


class Seen(NamedTuple):
    """A set after its networks: readable rows, their content hashes and features by network."""

    films: ImageSet
    kept: np.ndarray
    contents: list[str]
    features: dict[str, np.ndarray]


class Mirrored:
    """An encoder's features of films turned left to right."""

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.key = encoder, records.fingerprint(["mirrored", encoder.key])

    def prepare(self, films: Sequence[np.ndarray]) -> Any:
        """As the encoder's, of the mirrored films."""
        return self.encoder.prepare([np.ascontiguousarray(film[:, ::-1]) for film in films])

    def forward(self, inputs: Any) -> np.ndarray:
        """As the encoder's."""
        features: np.ndarray = self.encoder.forward(inputs)
        return features


def check(asked: Sequence[str], means: Means) -> None:
    """Refuse what cannot be screened before a film is read.

    Raises:
        ValueError: an unknown screen, one whose means are missing, or a share that is none.
    """
    unknown = sorted(set(asked) - set(NEEDS))
    if unknown:
        raise ValueError(f"expected screens among {list(NEEDS)}, got {unknown}")
    if not 0 < means.false_drops < 0.5:
        raise ValueError(f"false_drops must be a share between 0 and 0.5, got {means.false_drops}; 0.01 is usual")
    for name in asked:
        missing = [need for need in NEEDS[name] if not getattr(means, need)]
        if missing:
            raise ValueError(f"the screen {name!r} needs {' and '.join(missing)}; give them, or leave the screen out")
    if "labels" in asked and means.reference is not None and means.reference.labels is None:
        raise ValueError(f"the screen 'labels' sets its limit by real labels, got none in {means.reference.source}")
    wrong = [view for view in means.views if view not in means.view_classifier.heads] if "view" in asked else []
    if wrong:
        raise ValueError(f"views must be among {means.view_classifier.heads}, got {wrong}")


def networks(asked: Sequence[str], means: Means) -> dict[str, Any]:
    """What every film passes through for these screens."""
    used: dict[str, Any] = {"measures": pixels.Measures()}
    if {"chest", "duplicate", "copy"} & set(asked):
        used["signatures"] = signatures.Signer()
    if "text" in asked:
        used["text"] = writing.Writing()
    if means.encoder is not None and {"chest", "mirrored", "duplicate", "copy"} & set(asked):
        used["encoder"] = means.encoder
    if "mirrored" in asked:
        used["mirrored"] = Mirrored(means.encoder)
    if "labels" in asked:
        used["classifier"] = means.classifier
    if "view" in asked:
        used["view"] = means.view_classifier
    return used


def see(films: ImageSet, asked: Sequence[str], means: Means) -> Seen:
    """A set through the networks of the screens, from the store where it has them."""
    used = networks(asked, means)
    seen = store.encode(
        films,
        list(used.values()),
        means.store,
        batch_size=means.batch_size,
        num_workers=means.num_workers,
        quiet=means.quiet,
    )
    return Seen(films, seen.kept, seen.hashes, dict(zip(used, seen.features, strict=True)))
