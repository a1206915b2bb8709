"""How much of a film is burned-in text, by the detector that needs no weights. Knows one film at a time, no limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthchex import textmask
from synthchex.textmask import Text


class Writing:
    """Films to the share of their area in boxes of text; has what `models.store.encode` asks of an encoder."""

    key = f"screen-text-{textmask.METHOD}"

    def __init__(self) -> None:
        self.detector = textmask.load_detector("tophat")

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Shares of uint8 films, float32 (N, 1)."""
        return np.array([[share(self.detector.detect(film), film.shape)] for film in pixels], np.float32)


def share(texts: Sequence[Text], shape: tuple[int, ...]) -> float:
    """Share of a film's area in boxes of text, 0 to 1; side markers, which belong on a film, do not count."""
    covered = np.zeros(shape[:2], bool)
    for text in texts:
        if not textmask.is_side_marker(text, shape):
            left, top, right, bottom = text.box
            covered[top:bottom, left:right] = True
    return float(covered.mean())
