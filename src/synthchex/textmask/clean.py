"""One film: texts are found, segmented, filled and looked for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from synthchex.textmask.fill import Fill
from synthchex.textmask.texts import Text, is_side_marker

Segment = Callable[[np.ndarray, Sequence[Text]], np.ndarray]


class Detector(Protocol):
    """What finds texts."""

    name: str

    def detect(self, pixels: np.ndarray) -> list[Text]:
        """Texts of one film, uint8 (H, W) or (H, W, 3)."""
        ...


@dataclass(frozen=True)
class Tools:
    """What a film is cleaned with."""

    detector: Detector
    segment: Segment
    fill: Fill
    remove_side_markers: bool = False


@dataclass(frozen=True)
class Cleaned:
    """A film after its texts; `pixels` are those given, and `mask` None, where nothing was removed.

    `reason` is None without text, else "kept-side-marker" (nothing but that), "removed" or "text-left".
    """

    pixels: np.ndarray
    mask: np.ndarray | None
    found: list[Text]
    kept: list[Text]
    left: list[Text]
    reason: str | None

    def boxes(self) -> str:
        """What was found, as JSON: box, score, what it says, and whether it was removed, kept or left."""
        fates = [(text, "kept" if text in self.kept else "removed") for text in self.found]
        fates += [(text, "left") for text in self.left]
        return json.dumps(
            [{"box": list(t.box), "score": round(t.score, 3), "says": t.says, "fate": fate} for t, fate in fates]
        )


def clean(pixels: np.ndarray, tools: Tools, seed: int) -> Cleaned:
    """A film without its texts.

    Args:
        pixels: uint8, (H, W) or (H, W, 3); never changed.
        tools: detector, segmenter and inpainter.
        seed: of the inpainter.
    """
    found = tools.detector.detect(pixels)
    kept = [] if tools.remove_side_markers else [text for text in found if is_side_marker(text, pixels.shape)]
    return erase(pixels, found, kept, tools, seed)


def erase(pixels: np.ndarray, found: list[Text], kept: list[Text], tools: Tools, seed: int) -> Cleaned:
    """A film without those of its texts that are not kept.

    Args:
        pixels: uint8, (H, W) or (H, W, 3); never changed.
        found: its texts.
        kept: those of them that stay.
        tools: detector, segmenter and inpainter.
        seed: of the inpainter.
    """
    removed = [text for text in found if text not in kept]
    if not removed:
        return Cleaned(pixels, None, found, kept, [], "kept-side-marker" if kept else None)
    mask = tools.segment(pixels, removed)
    for text in kept:
        left, top, right, bottom = text.box
        mask[top:bottom, left:right] = False
    if not mask.any():
        return Cleaned(pixels, None, found, kept, removed, "text-left")
    filled = tools.fill(pixels, mask, seed)
    left_over = [text for text in tools.detector.detect(filled) if not _among(text, kept)]
    return Cleaned(filled, mask, found, kept, left_over, "text-left" if left_over else "removed")


def _among(text: Text, others: Sequence[Text]) -> bool:
    """Whether the centre of a text lies in one of the others."""
    across, down = (text.box[0] + text.box[2]) / 2, (text.box[1] + text.box[3]) / 2
    return any(o.box[0] <= across < o.box[2] and o.box[1] <= down < o.box[3] for o in others)
