"""Which letter a patch of strokes looks like, by correlation with letters of open fonts. Knows no film.

The fonts are those that come with Pillow and matplotlib: upright, bold and slanted sans-serif, as consoles and film
markers have them.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

ALPHABET = string.ascii_letters + string.digits
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf")
SIZES = (7, 9, 12, 64)  # small letters are mostly antialiasing, so they have templates of their own
ROWS, COLUMNS = 20, 14
ASPECT_PENALTY = 0.5  # of correlation, for each natural logarithm of width over height beyond FREE_ASPECT
FREE_ASPECT = 0.1
EXPECTED = {"L": 0.1, "R": 0.1}  # in favour of side markers: at a few pixels an R is nearly a P


class Templates(NamedTuple):
    """Letters as unit vectors, float32 (T, ROWS * COLUMNS), what they are, their width over height, and what is added
    to their likeness, (T,)."""

    vectors: np.ndarray
    letters: tuple[str, ...]
    aspects: np.ndarray
    expected: np.ndarray


def read(patches: Sequence[np.ndarray]) -> list[tuple[str, float]]:
    """The most alike letter of each patch and how alike it is, at most 1 (L and R: 1.1).

    Args:
        patches: strokes, float32 (h, w), 0 background to 1 ink, cropped to the strokes.
    """
    if not patches:
        return []
    known = templates()
    aspects = np.log([patch.shape[1] / patch.shape[0] for patch in patches])
    off = np.abs(aspects[:, None] - np.log(known.aspects)[None])
    scores = np.stack([_vector(patch) for patch in patches]) @ known.vectors.T
    scores -= ASPECT_PENALTY * np.maximum(off - FREE_ASPECT, 0)
    best = (scores + known.expected).argmax(axis=1)
    return [(known.letters[one], float(row[one])) for one, row in zip(best, scores, strict=True)]


@lru_cache(maxsize=1)
def templates() -> Templates:
    """Every letter of every font and size."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    vectors, letters, aspects = [], [], []
    for size in SIZES:
        fonts = [ImageFont.load_default(size), *(ImageFont.truetype(str(folder / name), size) for name in FONTS)]
        for font in fonts:
            for letter in ALPHABET:
                drawn = _draw(letter, font, size)
                vectors.append(_vector(drawn))
                letters.append(letter)
                aspects.append(drawn.shape[1] / drawn.shape[0])
    expected = np.array([EXPECTED.get(letter, 0.0) for letter in letters])
    return Templates(np.stack(vectors), tuple(letters), np.array(aspects), expected)


def _draw(letter: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, size: int) -> np.ndarray:
    picture = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(picture).text((size, size), letter, fill=255, font=font)
    return np.asarray(picture.crop(picture.getbbox()), np.float32) / 255


def _vector(patch: np.ndarray) -> np.ndarray:
    """A patch as a unit vector of zero mean, slightly blurred so that strokes need not match to the pixel."""
    shrinks = patch.shape[0] >= ROWS
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    sized = np.asarray(Image.fromarray(np.asarray(patch, np.float32)).resize((COLUMNS, ROWS), how))
    blurred = ndimage.gaussian_filter(sized, 1.0, mode="constant")
    centred = blurred - blurred.mean()
    return np.asarray(centred.ravel() / max(float(np.linalg.norm(centred)), 1e-6), np.float32)
