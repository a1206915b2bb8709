"""Fréchet distance between two feature sets as if each were Gaussian (FID when the features are Inception's).

    FD = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

Float64 throughout. With S1 = F F' and S2 = G G', the last trace is the sum of the singular values of G' F, that is of
the square roots of the eigenvalues of the symmetric F' S2 F. F is a Cholesky factor, or the centred rows themselves
where a set has fewer rows than columns; then no matrix of the width is factored. Eigenvalues are several times
cheaper than singular values, but their square roots magnify rounding: where that could show, singular values it is.

Not known here: images, encoders, files. Not offered: intervals by bootstrap (see `intervals`), extrapolation (see
`infinity`). NumPy arrays and tensors; what is on an accelerator stays there.
Cost: N D^2 flops per set, O(D^3) for the trace, O(D^2) memory whatever N is.
Source: Heusel et al. 2017 (arXiv:1706.08500).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from synthchex.maths import arrays
from synthchex.maths.arrays import Features
from synthchex.maths.moments import (
    BAND,
    Factor,
    GramPrecision,
    Moments,
    MomentStream,
    add_products,
    merge,
    moments,
    of_checked,
    without,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "SMALL",
    "MomentStream",
    "Moments",
    "frechet_distance",
    "in_one_place",
    "merge",
    "moments",
    "trace_root",
    "without",
]

SMALL = 1.0  # below this many rows per column the rows are a cheaper factor than Cholesky's (measured)
ROUNDING = 1e-9  # of the total variance: more doubt than this in the square roots, and singular values are taken


class _Part(NamedTuple):
    """A set small enough to be its own factor: centred rows over sqrt(n - 1), their mean, the trace."""

    rows: torch.Tensor
    mean: torch.Tensor
    trace: float


def frechet_distance(
    real: Features | Moments, fake: Features | Moments, *, precision: GramPrecision = "float64"
) -> float:
    """Fréchet distance between two sets of features, as if each were Gaussian.

    Args:
        real: features of real images, float, (N, D); or their moments, whose factor is computed once and kept.
        fake: features of synthetic images, float, (M, D); or their moments.
        precision: of the covariance products; `float32` is a fast mode (see `MomentStream`), never the default. Sets
            with fewer rows than columns are always measured in float64.

    Returns:
        Squared distance in units of the features squared; 0 or more, lower is better. Biased upwards by about c / N:
        compare only at equal N and M, or use `infinity.fid_infinity`.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats.

    Source: Heusel et al. 2017.

    >>> import numpy as np
    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    real, fake = in_one_place(_checked(real, "real"), _checked(fake, "fake"))
    few = [side for side in (real, fake) if not isinstance(side, Moments) and len(side) < SMALL * _width(side)]
    if few:
        smaller = min(few, key=len)
        return _from_rows(smaller, fake if smaller is real else real, precision)
    return _from_moments(_known(real, precision), _known(fake, precision))


def in_one_place(*sides: Features | Moments) -> list[Features | Moments]:
    """Checked features or moments, all on the accelerator that one of them is on, if any.

    Raises:
        ValueError: widths differ.
    """
    import torch

    widths = [_width(side) for side in sides]
    if len(set(widths)) > 1:
        raise ValueError(
            f"expected features of one width, got {widths[0]} for real and {widths[1]} for fake; "
            "encode both sides with the same encoder"
        )
    places = [getattr(side.mean if isinstance(side, Moments) else side, "device", None) for side in sides]
    device = next((place for place in places if isinstance(place, torch.device) and place.type != "cpu"), None)
    if device is None or places[0] == places[1]:
        return list(sides)
    move: Callable[[Features], torch.Tensor] = lambda values: torch.as_tensor(values, device=device)  # noqa: E731
    return [
        side if place == device
        else Moments(side.count, move(side.mean), move(side.scatter)) if isinstance(side, Moments)
        else move(side)
        for side, place in zip(sides, places, strict=True)
    ]  # fmt: skip


def trace_root(inner: torch.Tensor, rank: int, spread: float, product: Callable[[], torch.Tensor]) -> float:
    """Sum of the square roots of the eigenvalues of a symmetric matrix that is product()' product().

    Args:
        inner: the matrix, float64, (r, r); only its upper triangle is read.
        rank: that of the smaller set; beyond it eigenvalues are rounding noise, and a square root makes noise large.
        spread: what the sum will be compared with, in its units; rounding above 1e-9 of it is not accepted.
        product: the root of `inner`, (s, r), for the rare case that rounding could show.
    """
    import torch

    if min(rank, len(inner)) < 1:
        return 0.0
    values = torch.linalg.eigvalsh(inner, UPLO="U")[-rank:].clamp_(min=0)
    roots = values.sqrt()
    # Rounding moves each eigenvalue by about eps of the largest one; to first order, what that does to the sum.
    noise = torch.finfo(values.dtype).eps * float(values[-1])
    doubt = float((noise / (2 * roots).clamp_(min=math.sqrt(noise))).sum()) if noise else 0.0
    if doubt > ROUNDING * spread:
        return float(torch.linalg.svdvals(product()).sum())
    return float(roots.sum())


def _checked(side: Features | Moments, name: str) -> Features | Moments:
    if not isinstance(side, Moments):
        return arrays.check(side, name, rows=2)
    if side.count < 2:
        raise ValueError(f"{name}: expected at least 2 rows, got {side.count}; a covariance needs two")
    return side


def _width(side: Features | Moments) -> int:
    return side.width if isinstance(side, Moments) else int(side.shape[1])


def _known(side: Features | Moments, precision: GramPrecision) -> Moments:
    return side if isinstance(side, Moments) else of_checked(side, precision=precision)


def _from_moments(real: Moments, fake: Moments) -> float:
    rank = min(real.count - 1, fake.count - 1)
    scale = 1 / math.sqrt((real.count - 1) * (fake.count - 1))
    spread = real.trace + fake.trace
    inner = _inner(real.factor, fake.tensor)
    root = trace_root(inner, rank, spread / scale, lambda: fake.factor.matrix.T @ real.factor.matrix)
    return _sum(real.mean, fake.mean, spread, scale * root)


def _from_rows(rows: Features, other: Features | Moments, precision: GramPrecision) -> float:
    """One set with fewer rows than columns against any other: no factor of width D, and no rounding of its rank."""
    small = _part(rows)
    rank = len(small.rows) - 1
    if isinstance(other, Moments) or len(other) > 2 * _width(other):
        known = _known(other, precision)
        scale = 1 / math.sqrt(known.count - 1)
        inner = small.rows @ known.tensor @ small.rows.T
        spread, mean = small.trace + known.trace, known.mean
        product: Callable[[], torch.Tensor] = lambda: small.rows @ known.factor.matrix  # noqa: E731
        rank = min(rank, known.count - 1)
    else:
        large, scale = _part(other), 1.0
        across = large.rows @ small.rows.T
        inner = across.new_zeros((len(small.rows), len(small.rows)))
        add_products(across, inner)
        spread, mean = small.trace + large.trace, large.mean
        product = lambda: across  # noqa: E731
    return _sum(small.mean, mean, spread, scale * trace_root(inner, rank, spread / scale, product))


def _sum(one: Features, two: Features, spread: float, root: float) -> float:
    step = arrays.to_tensor(one) - arrays.to_tensor(two)
    return max(0.0, float(step @ step) + spread - 2.0 * root)


def _inner(factor: Factor, scatter: torch.Tensor) -> torch.Tensor:
    """Upper triangle of F' S F; a triangular F costs a quarter of the products."""
    lower = factor.matrix
    if not factor.triangular:
        return lower.T @ (scatter @ lower)
    half, inner = scatter.new_zeros(scatter.shape), scatter.new_zeros(scatter.shape)
    for start in range(0, len(lower), BAND):
        stop = start + BAND
        half[start:stop, start:] = lower[start:, start:stop].T @ scatter[start:, start:]
    for start in range(0, len(lower), BAND):
        stop = start + BAND
        inner[:stop, start:stop] = half[:stop, start:] @ lower[start:, start:stop]
    return inner


def _part(rows: Features) -> _Part:
    values = arrays.to_tensor(rows).double()
    mean = values.mean(0)
    centred = (values - mean) / math.sqrt(len(values) - 1)
    return _Part(centred, mean, float((centred * centred).sum()))
