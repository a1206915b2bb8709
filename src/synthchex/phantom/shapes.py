"""Small vectorised shapes shared by the phantom's modules: soft steps, bumps, chords, and per-row random draws."""

import numpy as np

DRAWS = 256


class Dice:
    """Uniform draws for a block of phantoms: the k-th draw of a row depends on nothing but that row's own table."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.column = 0

    def __call__(self, low: float, high: float) -> np.ndarray:
        """The next draw of every row between low and high, float32 (N, 1, 1)."""
        values = self.table[:, self.column]
        self.column += 1
        return (low + (high - low) * values).astype(np.float32)[:, None, None]


def grid(values: np.ndarray) -> np.ndarray:
    """One number for each row, ready to multiply pictures: float32 (N, 1, 1)."""
    return np.asarray(values, np.float32)[:, None, None]


def step(distance: np.ndarray) -> np.ndarray:
    """0 below -1, 1 above +1, smooth between."""
    t = np.clip(distance * 0.5 + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def bump(distance: np.ndarray) -> np.ndarray:
    """1 at 0, smoothly 0 beyond -1 and +1."""
    t = np.maximum(1 - distance * distance, 0)
    return t * t


def chord(radius_squared: np.ndarray) -> np.ndarray:
    """Length of the line through a unit ball at a squared distance from its axis, between 0 and 1."""
    return np.sqrt(np.maximum(1 - radius_squared, 0))
