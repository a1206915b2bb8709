"""Films that show nothing: a network's output that is not finite, black films, films of one grey value."""

from __future__ import annotations

import numpy as np

BLACK = 8  # no pixel of a black film is brighter: what a decoder or JPEG leaves of zeros
CONSTANT = 2  # grey values between the darkest and the brightest pixel of a film of one value


def defect(pixels: np.ndarray | None) -> str | None:
    """Why a film shows nothing, as a drop reason, or None.

    Args:
        pixels: uint8, any shape; None for an output that was not finite.

    Returns:
        "failed-nan", "failed-black", "failed-constant", or None.
    """
    if pixels is None:
        return "failed-nan"
    low, high = int(pixels.min()), int(pixels.max())
    if high <= BLACK:
        return "failed-black"
    return "failed-constant" if high - low <= CONSTANT else None
