"""Films with prompts that can be trained on, and those held out. Knows no network.

What cannot be read or has no prompt is left out and counted by reason.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthchex.ahead import in_order
from synthchex.data import images, splits
from synthchex.data.sources import ImageSet


@dataclass(frozen=True)
class Side:
    """Films of one side, content hash of each, and what was left out (or is smaller than is trained on) by reason."""

    films: ImageSet
    digests: Sequence[str]
    notes: Counter[str]

    @property
    def prompts(self) -> Sequence[str]:
        """One per film."""
        return self.films.prompts or ()

    def __len__(self) -> int:
        return len(self.films)


def usable(films: ImageSet, side: int, *, num_workers: int) -> Side:
    """The films that can be read and have a prompt; those smaller than `side` pixels are counted as enlarged."""

    lock = threading.Lock()

    def look(row: int) -> tuple[str, str]:
        if not (films.prompts or ())[row].strip():
            return "", "prompt-empty"
        try:
            with lock:  # tables are read by one thread at a time
                source = films.fetch(row)
            smallest = min(images.read(source).pixels.shape[:2])
            return images.content_hash(source), "enlarged" if smallest < side else ""
        except images.UnreadableImage as error:
            return "", error.reason

    found = list(in_order(look, len(films), num_workers=num_workers, ahead=64))
    kept = [row for row, (digest, _) in enumerate(found) if digest]
    notes = Counter(note for _, note in found if note)
    return Side(films.take(kept), [found[row][0] for row in kept], notes)


def split(films: ImageSet, share: float) -> tuple[ImageSet, ImageSet | None]:
    """Training and held-out films: by patient where patients are known, else by prompt, so that neither is in both.

    Which side a film goes to depends on its own patient or prompt alone.

    Raises:
        ValueError: a share above 0 leaves fewer than 2 films on a side.
    """
    if not share:
        return films, None
    owners = films.patients if films.patients is not None else [splits.normalised(text) for text in films.prompts or ()]
    side = splits.assign(splits.keys(owners), {"train": 1 - share, "held-out": share})
    train, held_out = films.take(np.flatnonzero(side == 0)), films.take(np.flatnonzero(side == 1))
    if min(len(train), len(held_out)) < 2:
        raise ValueError(
            f"expected at least 2 films on each side of a held-out share of {share}, got {len(train)} and "
            f"{len(held_out)} of {len(films)}; give more films, another validation_share (0 for none), "
            "or --validation-data"
        )
    return train, held_out
