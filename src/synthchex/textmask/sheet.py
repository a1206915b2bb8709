"""Films before and after, side by side, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from synthchex.data import images

SIDE, GAP = 256, 4
COLUMNS = 3  # pairs in a row
COLOURS = {"removed": (255, 140, 0), "kept": (0, 200, 90), "left": (255, 0, 80)}

Pair = tuple[np.ndarray, np.ndarray, Sequence[dict[str, Any]]]


def contact_sheet(pairs: Sequence[Pair], path: Path) -> None:
    """A picture of (before, after, boxes): removed texts are framed in orange, kept ones in green, left ones in red."""
    rows = -(-len(pairs) // COLUMNS)
    across, down = 2 * SIDE + 3 * GAP, SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * across, rows * down))
    for number, (before, after, boxes) in enumerate(pairs):
        left, top = number % COLUMNS * across, number // COLUMNS * down
        sheet.paste(_framed(before, boxes), (left, top))
        sheet.paste(_framed(after, []), (left + SIDE + GAP, top))
    sheet.save(path, format="PNG")


def _framed(pixels: np.ndarray, boxes: Sequence[dict[str, Any]]) -> Image.Image:
    scale = SIDE / max(pixels.shape[:2])
    picture = Image.fromarray(images.to_rgb(pixels))
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    for found in boxes:
        left, top, right, bottom = (value * scale for value in found["box"])
        ImageDraw.Draw(picture).rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=COLOURS[found["fate"]])
    return picture
