"""Burned-in text by its strokes, without weights: thin, of one brightness, shaped like letters, in a line.

A top-hat keeps what is narrower than a letter's stroke, bright or dark; connected pieces are compared with letters of
open fonts (`letters`); pieces that stand in a line and have one height and one ink make a text. A letter alone counts
if it is clearly an L or an R. Wires, ribs and catheters are thin too, but look like no letter; a thin upright stroke
alone is never a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage, sparse

from synthchex.data import images
from synthchex.textmask import letters
from synthchex.textmask.texts import SIDES, Box, Text, clipped

SMALLEST, LARGEST = 512, 1280  # pixels of the longer side on which strokes are looked for
STROKE = 0.02  # widest stroke, of the longer side
LEAST_STROKE = 3  # pixels of the film: a line of one pixel is two wide after antialiasing
HEIGHT = (0.009, 0.16)  # of a letter, of the longer side
LEAST_HEIGHT = 4  # pixels of the film
CONTRAST = 6.0  # least grey levels between ink and what is around it
GRAIN = 4.0  # least contrast, of what half of the film's pixels exceed
LEVELS = (0.35, 0.5, 0.65)  # of the highest contrast nearby: where the edge of a stroke may be
LIKELY = 0.50  # likeness to a letter, of a part of a text
CLEAR, ALONE = 0.80, 0.88  # of a sure one, of one by itself
COARSE = 5.0  # scale from which letters have so few pixels that they are less alike ...
LENIENT = 0.1  # ... by this much
THIN = 0.42  # width over height of I, l, 1 and of all scratches
SAME_INK = 6.0  # grey levels; such letters are of one text on any background
PLAIN = "Il1ijtfrJT7Yy4vVxXcC"  # lines and bends, of which ribs, vessels and wires have many


class Glyph(NamedTuple):
    """A connected piece of strokes: its box in working pixels, what it reads, ink and contrast in grey levels."""

    box: Box
    letter: str
    score: float
    ink: float
    contrast: float

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.box[3] - self.box[1]

    @property
    def plain(self) -> bool:
        """Whether it could be a line or a bend as well as a letter."""
        return self.letter in PLAIN or self.box[2] - self.box[0] < THIN * self.height


class TopHat:
    """The weight-free detector."""

    name = "tophat"

    def detect(self, pixels: np.ndarray) -> list[Text]:
        """Texts of one film, uint8 (H, W) or (H, W, 3), from top to bottom."""
        grey = images.to_grey(pixels)
        work, scale = working(grey)
        found = [
            text._replace(bright=sign > 0) for sign in (1, -1) for text in _texts(glyphs(work, sign, scale), scale)
        ]
        kept = _distinct(found)
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


def glyphs(work: np.ndarray, sign: int, scale: float) -> list[Glyph]:
    """Pieces of strokes that are as large as letters and look like one; of those that overlap, the best."""
    thin, side = strokes(work, sign, scale), max(work.shape)
    highest = ndimage.maximum_filter(thin, size=int(0.03 * side) | 1)
    least = max(CONTRAST, GRAIN * float(np.median(thin)))
    found = []
    for level in LEVELS:
        numbers, _ = ndimage.label(thin > np.maximum(least, level * highest), np.ones((3, 3)))
        found += _read(work, thin, numbers, sign, scale)
    return _best(found)


def _read(work: np.ndarray, thin: np.ndarray, numbers: np.ndarray, sign: int, scale: float) -> list[Glyph]:
    """The numbered pieces that have a letter's size and likeness."""
    side = max(work.shape)
    least = max(HEIGHT[0] * side, LEAST_HEIGHT * scale)
    boxes, patches, tones = [], [], []
    for number, place in enumerate(ndimage.find_objects(numbers), 1):
        height, width = (part.stop - part.start for part in place)
        if not (least <= height <= HEIGHT[1] * side and width <= 2 * height):
            continue
        own = numbers[place] == number
        contrast = float(np.percentile(thin[place][own], 85))
        near = ndimage.binary_dilation(own, iterations=max(1, round(scale * 0.75)))
        patches.append(np.clip(thin[place] / contrast, 0, 1) * near)
        boxes.append((place[1].start, place[0].start, place[1].stop, place[0].stop))
        tones.append((float(np.percentile(work[place][own], 90 if sign > 0 else 10)), contrast))
    read = zip(boxes, letters.read(patches), tones, strict=True)
    return [Glyph(box, *said, *tone) for box, said, tone in read if said[1] >= LIKELY]


def _best(found: Sequence[Glyph]) -> list[Glyph]:
    """Of glyphs that overlap the most alike; a plain one gives way to any other."""
    kept: list[Glyph] = []
    for glyph in sorted(found, key=lambda glyph: (glyph.plain, -glyph.score)):
        if all(_shared(glyph.box, other.box) < 0.3 for other in kept):
            kept.append(glyph)
    return kept


def _texts(found: Sequence[Glyph], scale: float) -> list[Text]:
    """Lines of letters, in working pixels."""
    less = LENIENT if scale >= COARSE else 0.0
    return [text for line in _lines(found) if (text := _text(line, less)) is not None]


def _text(line: Sequence[Glyph], less: float) -> Text | None:
    """A line as a text, or None where it is none."""
    sure = [glyph for glyph in line if glyph.score >= CLEAR - less and not glyph.plain]
    score = float(np.mean([glyph.score for glyph in line]))
    side = line[0].letter in SIDES
    alone = len(line) == 1 and (side or less > 0) and score >= ALONE - (less if side else 0)
    if not sure or not (alone or len(sure) > 1 or (len(line) > 1 and score >= CLEAR - less)):
        return None
    boxes = np.array([glyph.box for glyph in line])
    left, top, right, bottom = (int(value) for value in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
    said = "".join(glyph.letter for glyph in sorted(line, key=lambda glyph: glyph.box[0]))
    return Text((left, top, right, bottom), score, said)


def _lines(found: Sequence[Glyph]) -> list[list[Glyph]]:
    """Glyphs that follow each other in one line and one ink, as groups."""
    if not found:
        return []
    linked = np.array([[_follows(one, other) for other in found] for one in found])
    count, group = sparse.csgraph.connected_components(sparse.csr_matrix(linked), directed=False)
    return [[found[int(place)] for place in np.flatnonzero(group == number)] for number in range(count)]


def _follows(one: Glyph, other: Glyph) -> bool:
    """Whether two glyphs can be of one text: heights, line, gap and ink agree."""
    low, high = sorted((one.height, other.height))
    overlap = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    gap = max(one.box[0], other.box[0]) - min(one.box[2], other.box[2])
    weak, apart = min(one.contrast, other.contrast), abs(one.ink - other.ink)
    return (
        high <= 2 * low
        and overlap >= 0.7 * low
        and gap <= 0.7 * high
        and (apart <= SAME_INK or max(one.contrast, other.contrast) <= 2.5 * weak)
        and apart <= max(20.0, 0.4 * weak)
    )


def _distinct(found: Sequence[Text]) -> list[Text]:
    """Of texts that overlap, bright and dark, the surer."""
    kept: list[Text] = []
    for text in sorted(found, key=lambda text: -text.score * len(text.says or "")):
        if all(_shared(text.box, other.box) < 0.3 for other in kept):
            kept.append(text)
    return kept


def _shared(one: Box, other: Box) -> float:
    """Area in common over the smaller area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)
