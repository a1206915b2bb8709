"""A piece of text on a film: where it is, how sure that is, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Box = tuple[int, int, int, int]

SIDES = ("L", "R")
BORDER = 0.25  # of a film's side: where side markers stand


class Text(NamedTuple):
    """A text: `box` is (left, top, right, bottom) in pixels, right and bottom excluded; `says` is None where unread,
    `bright`, of the ink against its surroundings, where the detector does not know."""

    box: Box
    score: float
    says: str | None = None
    bright: bool | None = None


def is_side_marker(text: Text, shape: tuple[int, ...]) -> bool:
    """Whether a text is a side marker: one letter, L or R, with its centre in the outer quarter of the film.

    A detector that reads nothing (`says` is None) finds no side markers. A marker that stands further in, or one that
    says LEFT or has the technician's initials beside it, is text like any other.
    """
    if text.says is None or text.says.strip().upper() not in SIDES:
        return False
    return near_border(text.box, shape)


def near_border(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether the centre of a box lies in the outer quarter of the film."""
    left, top, right, bottom = box
    across, down = (left + right) / 2 / shape[1], (top + bottom) / 2 / shape[0]
    return min(across, 1 - across, down, 1 - down) <= BORDER


def clipped(box: Sequence[float], shape: tuple[int, ...]) -> Box:
    """A box in whole pixels that lies within the film and has at least one pixel."""
    height, width = shape[:2]
    left, top = (min(max(int(np.floor(box[i])), 0), end - 1) for i, end in ((0, width), (1, height)))
    return left, top, min(max(int(np.ceil(box[2])), left + 1), width), min(max(int(np.ceil(box[3])), top + 1), height)


def grown(box: Box, by: int, shape: tuple[int, ...]) -> Box:
    """A box with a margin, within the film."""
    return clipped((box[0] - by, box[1] - by, box[2] + by, box[3] + by), shape)
