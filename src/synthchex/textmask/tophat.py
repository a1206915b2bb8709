"""Burned-in text by its strokes, without weights: thin, of one brightness, shaped like letters, in a line.

A top-hat keeps what is narrower than a letter's stroke, bright or dark; connected pieces are compared with letters of
open fonts (`letters`); pieces that stand in a line make a text (`lines`). Wires, ribs and catheters are thin too, but
look like no letter.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from synthchex.data import images
from synthchex.textmask import letters, lines
from synthchex.textmask.lines import Glyph
from synthchex.textmask.texts import Text, clipped, near_border

SMALLEST, LARGEST = 512, 1280  # pixels of the longer side on which strokes are looked for
STROKE = 0.02  # widest stroke, of the longer side
LEAST_STROKE = 3  # pixels of the film: a line of one pixel is two wide after antialiasing
HEIGHT = (0.009, 0.16)  # of a letter, of the longer side
LEAST_HEIGHT = 4  # pixels of the film
WIDEST = 6  # heights; of letters that touch each other
CONTRAST = 6.0  # least grey levels between ink and what is around it
GRAIN = 4.0  # least contrast, of what half of the film's pixels exceed
LEVELS = (0.35, 0.5, 0.65)  # of the highest contrast nearby: where the edge of a stroke may be
COARSE = 5.0  # scale from which letters have so few pixels that they are less alike


class TopHat:
    """The weight-free detector."""

    name = "tophat"

    def detect(self, pixels: np.ndarray) -> list[Text]:
        """Texts of one film, uint8 (H, W) or (H, W, 3), from top to bottom."""
        grey = images.to_grey(pixels)
        work, scale = working(grey)
        extremes = dict(zip((1, -1), np.percentile(work, (99.9, 0.1)), strict=True))
        found = [
            text._replace(bright=sign > 0)
            for sign in (1, -1)
            for text in lines.texts(pieces(work, sign, scale), coarse=scale >= COARSE, extreme=extremes[sign])
        ]
        kept = [text for text in lines.distinct(found) if len(text.says or "") > 1 or near_border(text.box, work.shape)]
        boxes = [clipped([value / scale for value in text.box], grey.shape) for text in kept]
        return sorted((t._replace(box=b) for t, b in zip(kept, boxes, strict=True)), key=lambda t: t.box[1::-1])


def working(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """The film at a size where letters have enough pixels and strokes few, float32, and its scale."""
    side = max(grey.shape)
    scale = SMALLEST / side if side < SMALLEST else min(2.0, LARGEST / side)
    size = [max(1, round(length * scale)) for length in reversed(grey.shape)]
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(grey).resize((size[0], size[1]), how), np.float32), scale


def strokes(work: np.ndarray, sign: int, scale: float) -> np.ndarray:
    """Contrast of thin structures, (H, W), 0 where there are none.

    Args:
        work: film, float32.
        sign: 1 for bright strokes, -1 for dark ones.
        scale: of `work` to the film.
    """
    bright = work if sign > 0 else 255 - work
    size = int(max(STROKE * max(work.shape), LEAST_STROKE * scale, 5)) | 1
    return np.asarray(bright - ndimage.grey_opening(bright, size=(size, size)))


def pieces(work: np.ndarray, sign: int, scale: float) -> list[Glyph]:
    """Pieces of strokes that are as high as letters, at several levels, each with the letter it looks like."""
    thin, side = strokes(work, sign, scale), max(work.shape)
    highest = ndimage.maximum_filter(thin, size=int(0.03 * side) | 1)
    least = max(CONTRAST, GRAIN * float(np.median(thin)))
    found = []
    for level in LEVELS:
        numbers, _ = ndimage.label(thin > np.maximum(least, level * highest), np.ones((3, 3)))
        found += _read(work, thin, numbers, sign, scale)
    return found


def _read(work: np.ndarray, thin: np.ndarray, numbers: np.ndarray, sign: int, scale: float) -> list[Glyph]:
    """The numbered pieces that have a letter's height."""
    side = max(work.shape)
    least = max(HEIGHT[0] * side, LEAST_HEIGHT * scale)
    boxes, patches, tones = [], [], []
    for number, place in enumerate(ndimage.find_objects(numbers), 1):
        height, width = (part.stop - part.start for part in place)
        if not (least <= height <= HEIGHT[1] * side and width <= WIDEST * height):
            continue
        own = numbers[place] == number
        contrast = float(np.percentile(thin[place][own], 85))
        near = ndimage.binary_dilation(own, iterations=max(1, round(scale * 0.75)))
        patches.append(np.clip(thin[place] / contrast, 0, 1) * near)
        boxes.append((place[1].start, place[0].start, place[1].stop, place[0].stop))
        tones.append((float(np.percentile(work[place][own], 90 if sign > 0 else 10)), contrast))
    read = zip(boxes, letters.read(patches), tones, strict=True)
    return [Glyph(box, *said, *tone) for box, said, tone in read]
