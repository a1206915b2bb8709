"""Letters to lines of text: what follows each other, in one height and one ink. Knows no film.

A line needs letters that lines and bends of a chest do not look like. A letter alone counts if it is clearly an L or an
R (and near the border, which `tophat` knows). Once a line is sure, pieces of its ink that touch it belong to it, read
or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from synthchex.textmask.texts import SIDES, Box, Text

LIKELY = 0.50  # likeness to a letter, of a part of a text
CLEAR, ALONE = 0.80, 0.88  # of a sure one, of one by itself
LENIENT = 0.1  # less of both where letters have few pixels
THIN = 0.42  # width over height of I, l, 1 and of all scratches
SAME_INK = 6.0  # grey levels; such letters are of one text on any background
PLAIN = "Il1ijtfrJT7Yy4vVxXcC"  # lines and bends, of which ribs, vessels and wires have many
RINGS = "OoQ0"  # what a ring around a side marker is read as
FULL_INK = 15.0  # grey levels from the brightest, or darkest, of a film: of two letters, which chance makes too


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
    def thin(self) -> bool:
        """Whether it is as narrow as an I."""
        return self.box[2] - self.box[0] < THIN * self.height

    @property
    def plain(self) -> bool:
        """Whether it could be a line or a bend as well as a letter."""
        return self.letter in PLAIN or self.thin


def texts(pieces: Sequence[Glyph], *, coarse: bool, extreme: float) -> list[Text]:
    """Lines of letters.

    Args:
        pieces: of strokes, all with letters they look like, however little; they may overlap.
        coarse: letters have few pixels, so that less likeness must do.
        extreme: the film's brightest grey level, or its darkest for dark texts.
    """
    less, found = LENIENT if coarse else 0.0, []
    for line in _lines(_best([piece for piece in pieces if piece.score >= LIKELY])):
        line = _without_edge(line)
        if _is_text(line, less, extreme):
            found.append(_text(_grown(line, pieces) if len(line) > 1 else line))
    return found


def _best(found: Sequence[Glyph]) -> list[Glyph]:
    """Of glyphs that overlap the most alike; a plain one gives way to any other, a ring to what is in it."""
    kept: list[Glyph] = []
    for glyph in sorted(found, key=lambda glyph: (glyph.plain, -glyph.score)):
        ring = glyph.letter in RINGS and any(_within(other.box, glyph.box) for other in found)
        if not ring and all(shared(glyph.box, other.box) < 0.3 for other in kept):
            kept.append(glyph)
    return kept


def _within(inner: Box, outer: Box) -> bool:
    """Whether a box lies in another and is between a third and three quarters as high."""
    inside = inner[0] > outer[0] and inner[1] > outer[1] and inner[2] < outer[2] and inner[3] < outer[3]
    return inside and 0.33 <= (inner[3] - inner[1]) / (outer[3] - outer[1]) <= 0.75


def _without_edge(line: list[Glyph]) -> list[Glyph]:
    """A side marker without the edge of its plate, which looks like an I."""
    sides = [glyph for glyph in line if glyph.letter in SIDES]
    return sides if len(line) == 2 and len(sides) == 1 and any(glyph.thin for glyph in line) else line


def _is_text(line: Sequence[Glyph], less: float, extreme: float) -> bool:
    """Whether a line is a text."""
    sure = [glyph for glyph in line if glyph.score >= CLEAR - less and not glyph.plain]
    score = float(np.mean([glyph.score for glyph in line]))
    if not sure:
        return False
    if len(line) == 1:
        side = line[0].letter in SIDES
        return (side or less > 0) and score >= ALONE - (less if side else 0)
    if len(line) == 2 and not less:
        return score >= CLEAR and all(abs(glyph.ink - extreme) <= FULL_INK for glyph in line)
    return len(sure) > 1 or score >= CLEAR - less


def _text(line: Sequence[Glyph]) -> Text:
    """A line as a text; what was not read is not in what it says."""
    boxes = np.array([glyph.box for glyph in line])
    left, top, right, bottom = (int(value) for value in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
    read = [glyph for glyph in sorted(line, key=lambda glyph: glyph.box[0]) if glyph.score >= LIKELY]
    score = float(np.mean([glyph.score for glyph in read]))
    return Text((left, top, right, bottom), score, "".join(glyph.letter for glyph in read))


def _grown(line: list[Glyph], pieces: Sequence[Glyph]) -> list[Glyph]:
    """A line with the pieces of its ink that continue it: letters that touch each other are read as nothing."""
    height = int(np.median([glyph.height for glyph in line]))
    ink, contrast = (float(np.median([getattr(glyph, name) for glyph in line])) for name in ("ink", "contrast"))
    near = max(2 * SAME_INK, 0.2 * contrast)
    alike = [piece for piece in pieces if abs(piece.ink - ink) <= near and 0.3 <= piece.height / height <= 1.5]
    grown, new = list(line), list(line)
    while new:
        box = _text(grown).box
        beside = [piece for piece in alike if _continues(piece, box, height)]
        # One at a time: several readings of the same pixels are one piece.
        new = [piece for piece in beside if all(shared(piece.box, glyph.box) < 0.3 for glyph in grown)][:1]
        grown += new
    return grown


def _continues(piece: Glyph, box: Box, height: int) -> bool:
    """Whether a piece stands in the line of a box, beside or in it."""
    overlap = min(piece.box[3], box[3]) - max(piece.box[1], box[1])
    gap = max(piece.box[0], box[0]) - min(piece.box[2], box[2])
    return overlap >= 0.7 * piece.height and gap <= 0.5 * height


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


def distinct(found: Sequence[Text]) -> list[Text]:
    """Of texts that overlap, bright and dark, the one with more letters and likelier ones."""
    kept: list[Text] = []
    for text in sorted(found, key=lambda text: (LIKELY - text.score) * len(text.says or "")):
        if all(shared(text.box, other.box) < 0.3 for other in kept):
            kept.append(text)
    return kept


def shared(one: Box, other: Box) -> float:
    """Area in common over the smaller area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)
