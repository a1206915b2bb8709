"""Both sets after encoding, and the two parts of the real one that the floor is measured between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data import sources
from synthchex.measure.sides import check_read_alike
from synthchex.models import classifiers, encoders, store
from synthchex.scores.groups import states
from synthchex.scores.request import Request


class Networks(NamedTuple):
    """What the films go through, each once: {name: network} by what they are for."""

    images: dict[str, encoders.Encoder]
    image_text: encoders.ImageTextEncoder | None
    classifiers: dict[str, classifiers.Classifier]

    @property
    def all(self) -> list[Any]:
        """Every network, in a fixed order."""
        return [*self.images.values(), *([self.image_text] if self.image_text else []), *self.classifiers.values()]


@dataclass(frozen=True)
class Side:
    """One set after encoding, readable films only.

    `features` {encoder: (N, width)}; `vectors` and `texts` unit vectors (N, width) or None; `probabilities`
    {classifier: (N, 14)}; `labels` (N, 14) states; `truncated` a sentence when prompts were cut.
    """

    images: sources.ImageSet
    encoded: store.Encoded
    features: dict[str, np.ndarray]
    vectors: np.ndarray | None
    texts: np.ndarray | None
    truncated: str | None
    probabilities: dict[str, np.ndarray]
    prompts: list[str] | None
    labels: np.ndarray | None
    patients: list[str] | None

    def __len__(self) -> int:
        return len(self.encoded.kept)

    @property
    def ways(self) -> list[str]:
        """How the films became 8 bits, as in `images.Film`: what an import wrote down, else what reading did."""
        wrote = self.images.preprocessing or []
        return sorted({str(wrote[row]) for row in self.encoded.kept if wrote and wrote[row]} or self.encoded.ways)

    def describe(self, policy: str) -> dict[str, Any]:
        """Source and counts, as they go into results.json."""
        hashes = self.encoded.hashes
        return {
            "source": self.images.source,
            "n": len(hashes),
            "skipped": self.encoded.skipped,
            "notes": {**self.images.notes, **self.encoded.notes},
            "preprocessing": self.ways,
            "repeats": len(hashes) - len(set(hashes)),
            "patients": None if self.patients is None else len(set(self.patients)),
            "policy": policy,
            "states": None if self.labels is None else states(self.labels),
        }


def check_reading(real: Side, synthetic: Side) -> list[str]:
    """Refuse sets whose grey values were made in two ways; return what is doubtful.

    8-bit films beside deep ones are doubtful only: a generator gives 8 bits, whatever its own films were made from.

    Raises:
        ValueError: deep films that became 8 bits by different policies, now or when they were imported.
    """
    check_read_alike(*([way for way in side.ways if way != "u8"] for side in (synthetic, real)))
    if synthetic.ways == real.ways:
        return []
    return [
        f"films come from different depths: real {real.ways}, synthetic {synthetic.ways}; a part of what lies between "
        "them may be the scaling"
    ]


def load_networks(request: Request) -> Networks:
    """The networks of a request."""
    protocol = None if request.protocol == "default" else request.protocol
    options: dict[str, Any] = {"device": request.device, "protocol": protocol}
    images = {name: encoders.load_encoder(name, **options) for name in request.encoders}
    image_text = encoders.load_image_text(request.image_text, device=request.device) if request.image_text else None
    judges = {name: classifiers.load_classifier(name, device=request.device) for name in request.classifiers}
    return Networks(images, image_text, judges)


def encode(images: sources.ImageSet, networks: Networks, kept: Path | None, request: Request, quiet: bool) -> Side:
    """Features of one set, and the columns of the films that could be read."""
    encoded = store.encode(
        images, networks.all, kept, batch_size=request.batch_size, num_workers=request.num_workers, quiet=quiet
    )
    rows, found = encoded.kept, iter(encoded.features)
    prompts = None if images.prompts is None else [images.prompts[i] for i in rows]
    features = {name: next(found) for name in networks.images}
    image_text = networks.image_text
    return Side(
        images,
        encoded,
        features,
        vectors=next(found) if image_text is not None else None,
        texts=image_text.encode_texts(prompts) if image_text is not None and prompts is not None else None,
        truncated=_cut(prompts, image_text) if image_text is not None and prompts is not None else None,
        probabilities={name: next(found) for name in networks.classifiers},
        prompts=prompts,
        labels=None if images.labels is None else images.labels[rows],
        patients=None if images.patients is None else [images.patients[i] for i in rows],
    )


def _cut(prompts: list[str], image_text: encoders.ImageTextEncoder) -> str | None:
    cut, limit = image_text.count_truncated(prompts), image_text.max_tokens
    return f"{cut} of {len(prompts)} prompts are longer than the text tower reads ({limit} tokens)" if cut else None


def halves(patients: list[str] | np.ndarray | None, rows: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of two disjoint parts of the real set, no patient in both, of one size: `count` films, or half of the
    set where that is less. Whole patients go to one part or the other; what is too much is left out at random.
    """
    rng = np.random.default_rng(seed)
    owners = np.arange(rows) if patients is None else np.unique(patients, return_inverse=True)[1]
    order = rng.permutation(owners.max() + 1)
    films_before = np.cumsum(np.bincount(owners)[order])
    chosen = order[: max(1, int(np.searchsorted(films_before, rows // 2, side="right")))]
    inside = np.isin(owners, chosen)
    parts = [rng.permutation(np.flatnonzero(mask)) for mask in (inside, ~inside)]
    size = min(count, len(parts[0]), len(parts[1]))
    return np.sort(parts[0][:size]), np.sort(parts[1][:size])
