"""Whether a film is turned left to right, by an encoder's features of the film and of its mirror image.

A ridge regression on real films learns the direction in which a film differs from its mirror image; a film whose
difference points the other way is mirrored, or has its heart on the right. Knows features, no films.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from synthchex.screens.layout import FOLDS

SHRINKAGE = 0.1  # of the mean squared length of the differences
FITTED = 20_000  # real films that the direction is learned from


def direction(differences: np.ndarray) -> np.ndarray:
    """The direction along which differences between films and their mirror images, (N, D), are about 1."""
    rows = np.asarray(differences[:FITTED], np.float64)
    products = rows.T @ rows
    ridge = SHRINKAGE * np.trace(products) / len(rows) + 1e-12
    return np.asarray(linalg.solve(products + ridge * np.eye(len(products)), rows.sum(axis=0), assume_a="pos"))


def scores(differences: np.ndarray, real: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How upright films are, about 1 for a film as it should be and -1 for its mirror image; and real ones.

    Args:
        differences: features of films minus those of their mirror images, (N, D).
        real: the same of real films, (M, D).
        owners: (M,) patient numbers; a real film's score comes from patients of other folds.

    Raises:
        ValueError: fewer patients than folds.
    """
    if int(owners.max()) + 1 < FOLDS:
        raise ValueError(
            f"expected real films of at least {FOLDS} patients, got {int(owners.max()) + 1}; give more real films"
        )
    fold, null = owners % FOLDS, np.empty(len(real))
    for number in range(FOLDS):
        null[fold == number] = real[fold == number] @ direction(real[fold != number])
    return differences @ direction(real), null
