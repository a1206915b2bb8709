"""Defects that are planted in good films and captions, each with what a judge should answer. Knows one film at a time.

Severities are 1 to 3. Sizes are shares of the film's shorter side, so a defect is as bad on a small film as on a large
one. A defect with three severities gets worse step by step: a judge should never prefer the worse film.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from synthchex.data.records import LABELS

Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
NEUTRAL = "clean"


@dataclass(frozen=True)
class Defect:
    """What is done to a film, at which severities; `relevant` is false where what is left is no chest film."""

    change: Change
    severities: tuple[int, ...] = (1, 2, 3)
    relevant: bool = True


def blur(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, sigma 1, 2 and 4 % of the side."""
    radius = (0.01, 0.02, 0.04)[severity - 1] * min(film.shape)
    return np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(radius)))


def noise(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, standard deviation 15, 40 and 80 grey levels."""
    return _bytes(film + rng.normal(0, (15, 40, 80)[severity - 1], film.shape))


def underexposed(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Grey levels to the power 2, 4 and 8."""
    return _bytes(255 * (film / 255) ** (2, 4, 8)[severity - 1])


def overexposed(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Grey levels to the power 1/2, 1/4 and 1/8."""
    return _bytes(255 * (film / 255) ** (1 / (2, 4, 8)[severity - 1]))


def low_contrast(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Contrast reduced to 50, 25 and 10 %."""
    return _bytes(128 + (film - film.mean()) * (0.5, 0.25, 0.1)[severity - 1])


def pixelated(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """As if it had 48, 24 and 12 pixels on a side."""
    count = (48, 24, 12)[severity - 1]
    small = Image.fromarray(film).resize((count, count), Image.Resampling.BOX)
    return np.asarray(small.resize(film.shape[::-1], Image.Resampling.NEAREST))


def occluded(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A flat square over 20, 40 and 60 % of the side, at a random place."""
    side = round((0.2, 0.4, 0.6)[severity - 1] * min(film.shape))
    top, left = (int(rng.integers(0, size - side + 1)) for size in film.shape)
    spoiled = film.copy()
    spoiled[top : top + side, left : left + side] = rng.choice([0, 128, 255])
    return spoiled


def cropped(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of 70, 50 and 25 % of each side, brought back to size."""
    share = (0.7, 0.5, 0.25)[severity - 1]
    size = [max(2, round(side * share)) for side in film.shape]
    top, left = (int(rng.integers(0, side - kept + 1)) for side, kept in zip(film.shape, size, strict=True))
    part = Image.fromarray(np.ascontiguousarray(film[top : top + size[0], left : left + size[1]]))
    return np.asarray(part.resize(film.shape[::-1], Image.Resampling.BICUBIC))


def stitched(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Two halves of the film in one picture, one above the other and squeezed."""
    height, width = film.shape
    half = Image.fromarray(film).resize((width, max(1, height // 2)), Image.Resampling.LANCZOS)
    pair = np.concatenate([np.asarray(half), np.asarray(half)])
    return np.asarray(Image.fromarray(pair).resize((width, height), Image.Resampling.NEAREST))


def scrambled(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Sixteen tiles in another order."""
    rows = [np.array_split(strip, 4, axis=1) for strip in np.array_split(film, 4, axis=0)]
    tiles = [np.asarray(Image.fromarray(np.ascontiguousarray(tile))) for row in rows for tile in row]
    size = tiles[0].shape
    even = [np.asarray(Image.fromarray(tile).resize(size[::-1], Image.Resampling.BILINEAR)) for tile in tiles]
    mixed = [even[place] for place in rng.permutation(16)]
    whole = np.concatenate([np.concatenate(mixed[4 * row : 4 * row + 4], axis=1) for row in range(4)])
    return np.asarray(Image.fromarray(whole).resize(film.shape[::-1], Image.Resampling.BILINEAR))


def mirrored(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged."""
    return np.ascontiguousarray(film[:, ::-1])


def upside_down(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Turned by 180 degrees."""
    return np.ascontiguousarray(film[::-1, ::-1])


def negative(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Dark and light exchanged."""
    return 255 - film


def static(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Noise alone."""
    return rng.integers(0, 256, film.shape, np.uint8)


def gradient(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth slope."""
    down, across = (np.linspace(-1, 1, side) for side in film.shape)
    slope = rng.normal(0, 90, 2)
    return _bytes(128 + slope[0] * down[:, None] + slope[1] * across)


def clouds(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of several scales, as of fur, leaves or soft tissue without anatomy."""
    total = np.zeros(film.shape)
    for count in (4, 8, 16, 32):
        coarse = Image.fromarray(rng.normal(0, 1, (count, count)).astype(np.float32))
        total += np.asarray(coarse.resize(film.shape[::-1], Image.Resampling.BICUBIC)) / np.sqrt(count)
    return _bytes(128 + 60 * total / total.std())


def page(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A page of text."""
    picture = Image.new("L", (film.shape[1], film.shape[0]), 240)
    draw, size = ImageDraw.Draw(picture), max(8, min(film.shape) // 12)
    font = ImageFont.load_default(size)
    for top in range(0, film.shape[0], size + 2):
        draw.text((2, top), "".join(rng.choice(list("abcdefghijklmno prstuvwxyz"), 40)), fill=10, font=font)
    return np.asarray(picture)


def shapes(film: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Discs and boxes."""
    picture = Image.new("L", (film.shape[1], film.shape[0]), int(rng.integers(256)))
    draw, side = ImageDraw.Draw(picture), min(film.shape)
    for _ in range(6):
        left, top = (int(rng.uniform(-0.1, 0.8) * side) for _ in range(2))
        box = (left, top, left + int(rng.uniform(0.1, 0.5) * side) + 1, top + int(rng.uniform(0.1, 0.5) * side) + 1)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=int(rng.integers(256)))
    return np.asarray(picture)


DEFECTS: dict[str, Defect] = {
    "blur": Defect(blur),
    "noise": Defect(noise),
    "underexposed": Defect(underexposed),
    "overexposed": Defect(overexposed),
    "low_contrast": Defect(low_contrast),
    "pixelated": Defect(pixelated),
    "occluded": Defect(occluded),
    "cropped": Defect(cropped),
    "stitched": Defect(stitched, (3,)),
    "scrambled": Defect(scrambled, (3,)),
    "mirrored": Defect(mirrored, (3,)),
    "upside_down": Defect(upside_down, (3,)),
    "negative": Defect(negative, (3,)),
    "static": Defect(static, (3,), relevant=False),
    "gradient": Defect(gradient, (3,), relevant=False),
    "clouds": Defect(clouds, (3,), relevant=False),
    "page": Defect(page, (3,), relevant=False),
    "shapes": Defect(shapes, (3,), relevant=False),
}


def stated(labels: Sequence[float]) -> str:
    """A caption that says of each label that is stated whether it is there; its negation differs in nothing else.

    Args:
        labels: states of the 14, in order; NaN, None and -1 are not said.
    """
    said = [
        f"{label} is {'present' if state == 1 else 'absent'}."
        for label, state in zip(LABELS, labels, strict=True)
        if state in (0, 1)
    ]
    return " ".join(said)


def negated(labels: Sequence[float]) -> list[float]:
    """The states with present and absent exchanged."""
    return [1 - state if state in (0, 1) else state for state in labels]


def strangers(labels: np.ndarray, prompts: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """For each film another whose caption is as unlike its own as there is, by labels; (N,) row numbers, -1 for none.

    Args:
        labels: (N, 14) states; rows of NaN have no labels.
        prompts: N captions; equal ones are never exchanged.
    """
    out = np.full(len(prompts), -1)
    for row in range(len(prompts)):
        both = np.isin(labels, (0, 1)) & np.isin(labels[row], (0, 1))
        unlike = ((labels != labels[row]) & both).sum(axis=1).astype(float)
        unlike[[prompt == prompts[row] for prompt in prompts]] = -1
        best = np.flatnonzero(unlike == unlike.max())
        if unlike.max() >= 0:
            out[row] = int(rng.choice(best))
    return out


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
