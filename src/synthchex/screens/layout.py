"""How usual the layout of a film is among real ones: where it is dark and light, from its thumbnail alone.

Layout is the 63 lowest cosine components of a thumbnail of grey-level ranks, so exposure and sharpness leave it alone;
its distance is Mahalanobis's, with a covariance shrunk to its diagonal. Turned, cropped and negative films are far off
though an encoder may not mind. Knows signatures, not encoders.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft, linalg

from synthchex.gate import signatures

COMPONENTS = 8  # each way
FOLDS = 5
COMPARED = 1024  # real films that a film is correlated with


class Usual(NamedTuple):
    """Mean layout of real films, and the inverse of its covariance."""

    mean: np.ndarray
    precision: np.ndarray


def layouts(thumbs: np.ndarray) -> np.ndarray:
    """Layouts of thumbnails, uint8 (N, S, S), as float64 (N, 63)."""
    waves = fft.dctn(signatures.ranks(thumbs), axes=(1, 2), norm="ortho")[:, :COMPONENTS, :COMPONENTS]
    return np.asarray(waves.reshape(len(thumbs), -1)[:, 1:], np.float64)


def fit(rows: np.ndarray) -> Usual:
    """What is usual among layouts, (N, 63); the fewer films, the more their covariance is shrunk."""
    mean = rows.mean(axis=0)
    covariance = np.cov(rows - mean, rowvar=False, bias=True)
    weight = rows.shape[1] / (rows.shape[1] + len(rows))
    floor = 1e-6 * np.trace(covariance) / len(covariance) + 1e-12
    shrunk = (1 - weight) * covariance + weight * np.diag(np.diag(covariance)) + floor * np.eye(len(covariance))
    return Usual(mean, linalg.inv(shrunk))


def distance(rows: np.ndarray, usual: Usual) -> np.ndarray:
    """Mahalanobis distance of layouts, (N,), 0 for the mean layout."""
    gaps = rows - usual.mean
    return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", gaps, usual.precision, gaps)))


def distances(rows: np.ndarray, real: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of layouts from what is usual among real ones, and of the real ones from what is usual among others.

    Args:
        rows: (N, 63).
        real: (M, 63).
        owners: (M,) patient numbers; a real film is measured by patients of other folds.

    Raises:
        ValueError: fewer patients than folds.
    """
    if int(owners.max()) + 1 < FOLDS:
        raise ValueError(
            f"expected real films of at least {FOLDS} patients, got {int(owners.max()) + 1}; give more real films"
        )
    fold, null = owners % FOLDS, np.empty(len(real))
    for number in range(FOLDS):
        null[fold == number] = distance(real[fold == number], fit(real[fold != number]))
    return distance(rows, fit(real)), null


def resemblance(
    thumbs: np.ndarray, real: np.ndarray, *, owners: np.ndarray | None = None, real_owners: np.ndarray | None = None
) -> np.ndarray:
    """Highest correlation of each thumbnail's ranks with those of a real film of another patient, (N,), -1 to 1.

    Args:
        thumbs: uint8 (N, S, S).
        real: uint8 (M, S, S); the first COMPARED are looked at, so give them in random order.
        owners: (N,) patient numbers whose own films do not count; None counts all.
        real_owners: (M,) patient numbers.
    """
    known = _standard(real[:COMPARED])
    out = np.empty(len(thumbs))
    for start in range(0, len(thumbs), COMPARED):
        rows = slice(start, start + COMPARED)
        alike = _standard(thumbs[rows]) @ known.T
        if owners is not None and real_owners is not None:
            alike[owners[rows][:, None] == real_owners[:COMPARED]] = -1
        out[rows] = alike.max(axis=1)
    return out


def _standard(thumbs: np.ndarray) -> np.ndarray:
    flat = signatures.ranks(thumbs).reshape(len(thumbs), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
