"""Letters burned into a film: side markers and notes of the technician, with the boxes that hold them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Box = tuple[int, int, int, int]

_SIDES = ("L", "R")
_NOTES = ("PORTABLE", "AP ERECT", "SUPINE", "PA", "AP", "SITTING")


def burn(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[Box, ...]]:
    """Write a side marker and, on most films, a note.

    Args:
        image: film, uint8 (H, W).
        rng: the film's own generator.

    Returns:
        A marked copy, and the boxes as (left, top, right, bottom), right and bottom excluded.
    """
    picture = Image.fromarray(image)
    side, size = int(rng.integers(2)), image.shape[0]
    boxes = [_write(picture, _SIDES[side], 0.14, (0.80, 0.06) if side == 0 else (0.06, 0.06), rng)]
    if rng.random() < 0.7:
        note = _NOTES[int(rng.integers(len(_NOTES)))]
        boxes.append(_write(picture, note, 0.115, (0.06, 0.84) if rng.random() < 0.5 else (0.24, 0.02), rng))
    return np.asarray(picture), tuple((max(a, 0), max(b, 0), min(c, size), min(d, size)) for a, b, c, d in boxes)


def _write(
    picture: Image.Image, text: str, height: float, corner: tuple[float, float], rng: np.random.Generator
) -> Box:
    """Draw white text near a corner given as fractions of the side, and return its box."""
    size = picture.size[0]
    jitter = rng.uniform(-0.03, 0.03, 2)
    place = (int((corner[0] + jitter[0]) * size), int((corner[1] + abs(jitter[1])) * size))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(8.0, height * size))
    draw.text(place, text, fill=255, font=font)
    left, top, right, bottom = draw.textbbox(place, text, font=font)
    return int(np.floor(left)), int(np.floor(top)), int(np.ceil(right)), int(np.ceil(bottom))
