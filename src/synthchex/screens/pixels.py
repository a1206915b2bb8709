"""What the pixels of a film say of it: how dark, flat, sharp and grainy it is. Knows one film at a time, no limits.

Films are brought to 256 pixels on their shorter side first, so that films of different sizes can be compared: a small
film beside large ones is blurred, and measured so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from synthchex.data import images

SIDE = 256
MEASURES = ("mean", "contrast", "dark", "bright", "levels", "sharpness", "grain")
LONGEST = 4 * SIDE  # of a strip
TINY = 1e-3  # grey levels; keeps logarithms finite


class Measures:
    """Films to `MEASURES`; has what `models.store.encode` asks of an encoder."""

    key = "screen-measures-1"

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Measures of uint8 films, float32 (N, 7)."""
        return np.stack([measures(film) for film in pixels])


def measures(pixels: np.ndarray) -> np.ndarray:
    """One film's measures.

    Args:
        pixels: uint8, (H, W) or (H, W, 3).

    Returns:
        float32 (7,): mean grey level, 0 to 255; contrast, the standard deviation in grey levels; shares of pixels at
        0 to 2 and at 253 to 255; grey levels between the 1st and the 99th percentile; sharpness, the natural
        logarithm of the share of variance that a Laplacian sees; grain, the logarithm of the noise's standard
        deviation.

    Source: sharpness is the variance of the Laplacian (Pech-Pacheco 2000) over the film's own variance; grain is
        Immerkaer 1996, a Laplacian difference that edges and slopes do not excite, by its median.
    """
    grey = images.to_grey(pixels)
    low, high = np.percentile(grey, (1, 99))
    fixed = [grey.mean(), grey.std(), np.mean(grey <= 2), np.mean(grey >= 253), high - low]
    small = _sized(grey).astype(np.float32)
    edges = ndimage.laplace(small)
    sharpness = np.log((edges.std() + TINY) / (small.std() + TINY))
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    grain = np.median(np.abs(ndimage.convolve(small, mask))) / (6 * 0.6745)
    return np.array([*fixed, sharpness, np.log(grain + TINY)], np.float32)


def _sized(grey: np.ndarray) -> np.ndarray:
    """The film with SIDE pixels on its shorter side, at most LONGEST on the other."""
    scale = SIDE / min(grey.shape)
    size = [min(LONGEST, max(1, round(side * scale))) for side in reversed(grey.shape)]
    return np.asarray(Image.fromarray(grey).resize((size[0], size[1]), Image.Resampling.LANCZOS))
