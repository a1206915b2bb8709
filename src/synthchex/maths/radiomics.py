"""Fréchet radiomics distance between two tables of radiomic features.

    FRD = log d  with  d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

of features scaled by the mean and deviation of the real set. The paper's Eq. 3 is log d; the package `frd-score` prints
log d^2, twice as much. Both are returned, so that a number can be compared with either.

Not known here: images, masks, how features are extracted.
Cost: that of `frechet`. With 464 features a covariance needs 1,160 images a side; below that the bias rules.
Ten million rows: the scaling is linear, so moments of the raw tables (`moments.moments`, merged over blocks) are
enough: scale them by the real deviation afterwards and take the distance of the moments.
Source: Konz, Osuala et al. 2026 (arXiv:2412.01496); checked against frd-score 1.0.1 frd.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from synthchex.maths import arrays, frechet
from synthchex.maths.arrays import Features
from synthchex.maths.intervals import Interval, jackknife


class Radiomics(NamedTuple):
    """The distance in both conventions, what it is of, and what was left out."""

    squared_distance: float
    log_d: float
    log_d2: float
    features: int
    dropped: tuple[int, ...]


def radiomics_distance(real: Features, fake: Features) -> Radiomics:
    """Fréchet distance of two feature tables, scaled by the real one.

    Args:
        real: radiomic features of real images, float, (N, D), N at least 2.
        fake: of synthetic images, float, (M, D), the same columns.

    Returns:
        `log_d` (the paper's), `log_d2` (frd-score's), lower is better; -inf when the tables are equal. `dropped` are
        the columns that are constant in the real set, which have no scale.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats, all columns constant.

    >>> import numpy as np
    >>> found = radiomics_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    >>> found.squared_distance, round(found.log_d, 6)  # means 3 apart, deviation 1
    (9.0, 1.098612)
    """
    scaled_real, scaled_fake, dropped = standardised(real, fake)
    # Cancellation leaves some 1e-15 of the traces where the tables are equal.
    squared = frechet.frechet_distance(scaled_real, scaled_fake)
    log_d2 = math.log(squared) if squared > 0 else -math.inf
    return Radiomics(squared, log_d2 / 2.0, log_d2, scaled_real.shape[1], dropped)


def radiomics_interval(
    real: Features,
    fake: Features,
    real_blocks: np.ndarray,
    fake_blocks: np.ndarray,
    *,
    value: float,
    confidence: float = 0.95,
) -> Interval:
    """Interval of log d, leaving out one block of both sides in turn; the scaling is that of the rows that are left.

    Args:
        real: as in `radiomics_distance`.
        fake: as in `radiomics_distance`.
        real_blocks: (N,) block number of each row, from 0, each number on both sides.
        fake_blocks: (M,) the same.
        value: log d, the centre.
        confidence: share of repeated samples whose interval holds the expectation at this N and M.

    Returns:
        Ends and standard error of log d; twice these are of log d^2. The bias of small sets is in the value and the
        interval keeps it.

    Raises:
        ValueError: as `radiomics_distance`, equal tables, fewer than 5 blocks, confidence not between 0 and 1.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    left_out = [
        radiomics_distance(real[real_blocks != block], fake[fake_blocks != block]).log_d
        for block in range(int(real_blocks.max()) + 1)
    ]
    return jackknife(value, np.array(left_out), confidence=confidence)


def standardised(real: Features, fake: Features) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Both tables less the real mean, over the real deviation (divisor N), without the columns that have none.

    Raises:
        ValueError: as `radiomics_distance`.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    left, right = (arrays.to_numpy(side).astype(np.float64) for side in (real, fake))
    mean, deviation = left.mean(axis=0), left.std(axis=0)
    # A constant column of 1e8 has a deviation of rounding, not of zero.
    kept = deviation > 1e-12 * np.abs(mean)
    if not kept.any():
        raise ValueError(f"real: expected features that vary, got {len(kept)} constant columns; pass more images")
    scaled = [(side[:, kept] - mean[kept]) / deviation[kept] for side in (left, right)]
    return scaled[0], scaled[1], tuple(int(column) for column in np.flatnonzero(~kept))
