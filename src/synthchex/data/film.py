"""What a reader gives: a film, or the reason why there is none; and how deep grey values become 8 bits.

Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np

Deep = Literal["minmax", "percentile"]
DEEP: tuple[Deep, ...] = ("minmax", "percentile")
MAX_PIXELS = 178_956_970  # where Pillow speaks of a decompression bomb; a radiograph has 4 to 20 million
PERCENTILES = (0.5, 99.5)
BLOCK = 1 << 15  # pixels that are scaled at a time: their float64 values stay in the processor's cache


class UnreadableImage(ValueError):
    """A film that cannot be read; `reason` is a slug to count by, one of docs/formats.md."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Film(NamedTuple):
    """A read image. `pixels` is uint8, (H, W) or (H, W, 3); `notes` are slugs of what was done to it."""

    pixels: np.ndarray
    preprocessing: str
    notes: tuple[str, ...]


@contextmanager
def defects_named(name: str) -> Iterator[None]:
    """Whatever a decoder raises, as an unreadable film: truncated or damaged.

    Decoders raise anything on bytes that were made to break them, so all of it is caught; a missing package and want of
    memory are no fault of the film.
    """
    try:
        yield
    except (UnreadableImage, ImportError, MemoryError):
        raise
    except Exception as error:
        early = isinstance(error, EOFError) or any(sign in str(error) for sign in ("truncated", "less than expected"))
        reason, what = ("truncated", "ends early") if early else ("damaged", "makes no sense")
        raise UnreadableImage(
            reason, f"expected a whole image, got {name}, which {what} ({error}); get the file again"
        ) from error


def check_policy(deep: str) -> None:
    """Refuse what is no policy for deep films.

    Raises:
        ValueError: it is none of `DEEP`.
    """
    if deep not in DEEP:
        raise ValueError(f"deep must be one of {list(DEEP)}, got {deep!r}")


def check_size(width: int, height: int, name: str) -> None:
    """Refuse an image without pixels, or with too many, before it is decoded.

    Raises:
        UnreadableImage: empty or too-large.
    """
    if width < 1 or height < 1:
        raise UnreadableImage("empty", f"expected pixels, got {width} x {height} in {name}")
    if width * height > MAX_PIXELS:
        raise UnreadableImage("too-large", f"expected at most {MAX_PIXELS} pixels, got {width} x {height} in {name}")


def grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """(H, W) where the three channels of (H, W, 3) are one, else the same pixels. Colour is seen in a few rows."""
    if pixels.ndim == 2:
        return pixels
    for rows in (pixels[:: max(1, len(pixels) // 8)], pixels):
        first = rows[..., 0]
        if not (np.array_equal(first, rows[..., 1]) and np.array_equal(first, rows[..., 2])):
            return pixels
    return np.ascontiguousarray(pixels[..., 0])


def limits(values: np.ndarray, deep: Deep) -> tuple[float, float]:
    """The values that become black and white: the least and greatest, or the 0.5th and 99.5th percentile.

    Args:
        values: any shape, finite; without values both limits are 0.
        deep: policy.
    """
    if not values.size:
        return 0.0, 0.0
    if deep == "minmax":
        return float(values.min()), float(values.max())
    low, high = np.percentile(values, PERCENTILES, method="inverted_cdf")  # values that are there, none in between
    return float(low), float(high)


def eight_bits(values: np.ndarray, low: float, high: float, *, inverse: bool = False) -> np.ndarray:
    """uint8 of the same shape: `low` and below is 0, `high` and above 255, or the other way round. Not finite is 0."""
    flat = np.ascontiguousarray(values).reshape(-1)
    pixels = np.zeros(flat.shape, np.uint8)
    whole = values.dtype.kind in "iu" and values.size > 0 and low <= values.min() and values.max() <= high
    if high > low:
        for start in range(0, len(flat), BLOCK):
            block = flat[start : start + BLOCK].astype(np.float64)
            # From the other end instead of 255 - pixel, so that a negative and its positive round alike.
            block = high - block if inverse else block - low
            block /= high - low
            block *= 255
            if not whole:
                np.clip(block, 0, 255, out=block)
                block[np.isnan(block)] = 0
            pixels[start : start + BLOCK] = np.rint(block, out=block)
    return pixels.reshape(values.shape)


def scaled(values: np.ndarray, deep: Deep, *, inverse: bool = False, hidden: np.ndarray | None = None) -> Film:
    """A film from deep values, by the limits of what is seen; a constant one becomes black and says so.

    Args:
        values: integers or floats, (H, W) or (H, W, 3).
        deep: policy; its name becomes the preprocessing, "minmax16" or "percentile".
        inverse: the greatest value is black.
        hidden: bool (H, W), pixels that are background: no part in the limits, black in the film.
    """
    notes = ["16-bit-scaled"]
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        notes.append("non-finite-as-black")
        hidden = ~finite if hidden is None else hidden | ~finite
    low, high = limits(values if hidden is None else values[~hidden], deep)
    pixels = eight_bits(values, low, high, inverse=inverse)
    if hidden is not None:
        pixels[hidden] = 0
    if high <= low:
        notes.append("constant")
    return Film(grey_if_equal(pixels), "minmax16" if deep == "minmax" else "percentile", tuple(notes))
