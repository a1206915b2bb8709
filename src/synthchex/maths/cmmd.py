"""Squared maximum mean discrepancy under a Gaussian kernel, CMMD when the features are unit embeddings of CLIP.

    K(x, y) = exp(-|x - y|^2 / (2 sigma^2)),  sigma = 10
    CMMD    = 1000 (mean K(x_i, x_j) + mean K(y_i, y_j) - 2 mean K(x_i, y_j))

`biased=True` takes both inner means over all pairs, a row with itself included, as the published code does;
the default leaves those out and is unbiased, so values of sets of different size may be compared.

Unit embeddings are at most 2 apart and sigma is 10, so K is all but flat: values of 1 - K are below 0.02. Here K - 1 is
summed, by `expm1` on centred rows, because sums of K itself lose four of float32's seven digits. The same flatness
makes `cmmd_series` possible: K = w(x) w(y) exp(x.y / sigma^2) with w(x) = exp(-|x|^2 / (2 sigma^2)), and the
exponential series needs only moments: three orders are exact in O(N D^2), and the rest is bounded.

Not known here: images, encoders, files.
Cost: exact 4 N^2 D flops, a centred copy of the features and O(block^2) memory; measured, time grows as N^2.
Series O(N D^2) and O(D^2) memory, one pass: ten million rows are its moments, with the error bound that it returns.
Source: Jayasumana et al. 2024 (arXiv:2401.09603); Gretton et al. 2012 (JMLR 13).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.maths import arrays, kernel
from synthchex.maths.arrays import Features, Precision
from synthchex.maths.kernel import Columns, Comparison, Estimate, Ids

if TYPE_CHECKING:
    import torch

    from synthchex.maths.tiles import Part

SIGMA = 10.0
SCALE = 1000.0
UNIT_SLACK = 1e-2  # |x| of half-precision embeddings is off by 1e-3; a forgotten normalisation by far more


class Series(NamedTuple):
    """A value and the largest amount by which it can differ from the exact one."""

    value: float
    error_bound: float


class _Moments(NamedTuple):
    """Weighted moments of centred rows, float64: E w, E w x, E w x x', and E w |x|^3 with the largest |x|."""

    zeroth: float
    first: np.ndarray
    second: np.ndarray
    third: float
    longest: float


class Gaussian(NamedTuple):
    """Kernel exp(-gamma |x - y|^2) less 1, in units where small differences keep their digits."""

    gamma: float
    centre: torch.Tensor

    def part(self, rows: torch.Tensor, kind: torch.dtype) -> Part:
        """Rows less the centre (K sees differences only), times the square root of 2 gamma; halves of their squares."""
        import torch

        wide = rows if rows.dtype == torch.float64 else rows.to(kind)
        near = (wide - self.centre.to(wide.dtype)).to(kind).mul_(math.sqrt(2.0 * self.gamma))
        return near, torch.linalg.vecdot(near, near).mul_(0.5)

    def finish(self, products: torch.Tensor, left: torch.Tensor | None, right: torch.Tensor | None) -> None:
        """exp(-gamma |x - y|^2) - 1, in place."""
        if left is None or right is None:
            raise ValueError("expected halves of the squared lengths of both parts, got none; use `part`")
        products.sub_(left[:, None]).sub_(right).expm1_()

    def diagonal(self, rows: torch.Tensor) -> torch.Tensor:
        """Zeros."""
        import torch

        return rows.new_zeros(len(rows), dtype=torch.float64)


def cmmd(
    real: Features,
    fake: Features,
    *,
    biased: bool = False,
    sigma: float = SIGMA,
    scale: float = SCALE,
    precision: Precision = "float32",
    real_clusters: Ids = None,
    fake_clusters: Ids = None,
) -> Estimate:
    """Exact discrepancy of two whole feature sets under a Gaussian kernel, with its standard error.

    Args:
        real, fake: embeddings, float, (N, D) and (M, D), N and M at least 2.
        biased: as published, each row paired with itself too: never negative, too high by about 1 / N.
        sigma: width of the kernel, in units of the features.
        scale: factor of the result; 1000 is the published one.
        precision: of the products; `bfloat16` is a fast mode, never the default.
        real_clusters, fake_clusters: patient or prompt of each row; left out together in the standard error.

    Returns:
        `scale` times the squared MMD, and its standard error (delete-one jackknife of the U-statistic): no unit, lower
        is better. The unbiased value is slightly negative about half the time when the sets are alike.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats, sigma not positive, wrong number of
            cluster ids.

    Source: Gretton et al. 2012, eqs. 3 and 5; checked against cmmd-pytorch distance.py.

    >>> import numpy as np
    >>> x, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    >>> round(cmmd(x, y).value, 3)  # 2000 (1 - exp(-2 / 200))
    19.9
    """
    clusters = real_clusters, fake_clusters
    return compare(real, fake, biased=biased, sigma=sigma, scale=scale, precision=precision, clusters=clusters).whole


def compare(
    real: Features,
    fake: Features,
    columns: Columns | None = None,
    *,
    sigma: float = SIGMA,
    scale: float = SCALE,
    **options: Any,
) -> Comparison:
    """Discrepancies of selections, and a test, of two feature sets, from one pass over the kernel.

    Args:
        real, fake, sigma, scale: as in `cmmd`.
        columns, options: as in `kernel.compare`.

    Returns:
        As `kernel.compare`, `scale` times.

    Raises:
        ValueError: as `cmmd` and `kernel.compare`.
    """
    _, _, centre = _with_centre(real, fake)
    found = kernel.compare(real, fake, columns, kernel=Gaussian(_gamma(sigma), centre), **options)
    whole, *rest = (Estimate(scale * value, scale * error) for value, error in (found.whole, *found.selections))
    return Comparison(whole, rest, scale * found.subsets, found.p_value)


def cmmd_series(
    real: Features,
    fake: Features,
    *,
    biased: bool = False,
    sigma: float = SIGMA,
    scale: float = SCALE,
    remainder_rows: int = 500,
    seed: int = 0,
) -> Series:
    """Discrepancy under a Gaussian kernel from moments, for unit embeddings only, with a proven error bound.

    Orders 0 to 2 of the exponential series are exact. What is left is estimated on `remainder_rows` random rows of each
    side; it cannot be negative and cannot exceed a bound from the lengths of the centred rows, so the error is bounded
    whatever rows were drawn.

    Args:
        real, fake: unit embeddings, float, (N, D) and (M, D), N and M at least 2.
        biased, sigma, scale: as in `cmmd`.
        remainder_rows: rows of each side for the remainder.
        seed: of their choice.

    Returns:
        Value, and the largest possible difference from that of `cmmd`, a margin for float32 products included.

    Raises:
        ValueError: rows that are not of unit length, and as `cmmd`.
    """
    for rows, name in ((arrays.check(real, "real"), "real"), (arrays.check(fake, "fake"), "fake")):
        shortest, longest = lengths(rows)
        if shortest < 1 - UNIT_SLACK or longest > 1 + UNIT_SLACK:
            raise ValueError(
                f"{name}: expected embeddings of unit length for the series, got lengths {shortest:.4g} to "
                f"{longest:.4g}; divide each row by its length, or use the exact method"
            )
    if remainder_rows < 2:
        raise ValueError(f"remainder_rows must be at least 2, got {remainder_rows}; 500 is usual")
    x, y, centre = _with_centre(real, fake)
    gamma = _gamma(sigma)
    one, two = _moments(x, centre, gamma), _moments(y, centre, gamma)
    value, inner = _orders(one, two, gamma)
    # Remainder of the biased form: a squared distance between means of x^(3), x^(4), ..., so within [0, bound].
    bound = _tail(one, two, gamma)
    drawn = _remainder(x, y, centre, gamma, remainder_rows, seed)
    rest = min(max(drawn, 0.0), bound)
    error = max(rest, bound - rest) + _rounding(one, two, gamma)
    value += rest
    if not biased:
        # n/(n-1) times the biased inner mean of K - 1; the tails of the inner means are part of the bound.
        tails = _tail(one, None, gamma), _tail(two, None, gamma)
        for (mean, count), tail in zip(zip(inner, (len(x), len(y)), strict=True), tails, strict=True):
            value += (mean + tail / 2) / (count - 1)
            error += tail / 2 / (count - 1)
    return Series(scale * value, scale * error)


def lengths(features: Features) -> tuple[float, float]:
    """Shortest and longest row."""
    import torch

    norms = torch.linalg.vector_norm(arrays.to_tensor(features), dim=1)
    return float(norms.min()), float(norms.max())


def are_unit(features: Features) -> bool:
    """Whether all rows have length 1, to the accuracy of half-precision embeddings."""
    shortest, longest = lengths(features)
    return shortest > 1 - UNIT_SLACK and longest < 1 + UNIT_SLACK


def _gamma(sigma: float) -> float:
    if not sigma > 0 or not math.isfinite(sigma):
        raise ValueError(f"sigma must be positive, got {sigma}; 10 is the published one")
    return 1.0 / (2.0 * sigma**2)


def _with_centre(real: Features, fake: Features) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both sides, and a point near their mean, float64. Any centre is right: float32 sums of blocks will do."""
    x, y = (arrays.to_tensor(side) for side in arrays.check_pair(real, fake, rows=2))
    means = [sum(part.sum(dim=0).double() for part in side.split(1024)) / len(side) for side in (x, y)]
    return x, y, (means[0] + means[1]) / 2


def _moments(x: torch.Tensor, centre: torch.Tensor, gamma: float, block: int = 4096) -> _Moments:
    """Moments of one side in one pass and one buffer; products float32, sums of blocks float64."""
    import torch

    width = x.shape[1]
    zeroth = third = longest = 0.0
    first = torch.zeros(width, dtype=torch.float64, device=x.device)
    second = torch.zeros(width, width, dtype=torch.float64, device=x.device)
    buffer = torch.empty(min(block, len(x)), width, dtype=torch.float32, device=x.device)
    for part in x.split(block):
        rows = buffer[: len(part)].copy_(part - centre) if part.dtype == torch.float64 else buffer[: len(part)]
        if part.dtype != torch.float64:
            torch.sub(part, centre.to(part.dtype), out=rows)
        square = torch.linalg.vector_norm(rows, dim=1).double().square()
        weight = torch.exp(-gamma * square)
        zeroth += float(torch.expm1(-gamma * square).sum())
        third += float((weight * square**1.5).sum())
        longest = max(longest, float(square.max()) ** 0.5)
        root = weight.sqrt().to(rows.dtype)
        rows.mul_(root[:, None])
        first += (root @ rows).double()
        second += _gram(rows)
    count = len(x)
    # The zeroth moment is kept less one: only differences and small products of it matter.
    return _Moments(
        zeroth / count, (first / count).cpu().numpy(), (second / count).cpu().numpy(), third / count, longest
    )


def _gram(rows: torch.Tensor) -> torch.Tensor:
    """X'X in float64; on a CPU by NumPy, which knows that it is symmetric and does half the work."""
    import torch

    if rows.device.type == "cpu":
        plain = rows.numpy()
        return torch.from_numpy(np.matmul(plain.T, plain)).double()
    with arrays.products("float32"):
        return (rows.T @ rows).double()


def _orders(one: _Moments, two: _Moments, gamma: float) -> tuple[float, tuple[float, float]]:
    """Orders 0 to 2: the biased discrepancy, and each side's inner mean of K - 1."""
    t = 2.0 * gamma
    value = (one.zeroth - two.zeroth) ** 2 + t * float(np.square(one.first - two.first).sum())
    value += t**2 / 2 * float(np.square(one.second - two.second).sum())
    sizes = [(t * np.square(side.first).sum(), t**2 / 2 * np.square(side.second).sum()) for side in (one, two)]
    inner = [float(side.zeroth * (2.0 + side.zeroth) + sum(size)) for side, size in zip((one, two), sizes, strict=True)]
    return value, (inner[0], inner[1])


def _tail(one: _Moments, two: _Moments | None, gamma: float) -> float:
    """Bound of the sum over k >= 3 of t^k / k! |E w x^(k) - E w y^(k)|^2 (of |E w x^(k)|^2 without a second side).
    |E w x^(k)| <= E w |x|^k <= R^(k-3) E w |x|^3; the factorials beyond 3! are at least 6 4^(k-3).
    """
    t = 2.0 * gamma
    longest = max(one.longest, 0.0 if two is None else two.longest)
    third = one.third + (0.0 if two is None else two.third)
    ratio = t * longest**2 / 4.0
    if ratio >= 1:
        least, got = longest / 1.9, 1 / math.sqrt(t)
        raise ValueError(
            f"expected sigma of at least {least:.3g}, got {got:.3g}: the series converges slowly; use the exact method"
        )
    return t**3 / 6.0 * third**2 / (1.0 - ratio)


def _rounding(one: _Moments, two: _Moments, gamma: float) -> float:
    """Margin for float32 rounding of the moments: relative 2^-21 of each order's size, on a difference."""
    t, unit = 2.0 * gamma, 2.0**-21
    margin = 2 * abs(one.zeroth - two.zeroth) * unit * (abs(one.zeroth) + abs(two.zeroth))
    for weight, a, b in ((t, one.first, two.first), (t**2 / 2, one.second, two.second)):
        size = float(np.linalg.norm(a)) + float(np.linalg.norm(b))
        margin += weight * (2 * float(np.linalg.norm(a - b)) * unit * size + (unit * size) ** 2)
    return margin


def _remainder(x: torch.Tensor, y: torch.Tensor, centre: torch.Tensor, gamma: float, count: int, seed: int) -> float:
    """Orders 3 and above of the biased discrepancy, on random rows, each row paired with itself too."""
    import torch

    random = np.random.default_rng(seed)
    t = 2.0 * gamma
    sides = []
    for side in (x, y):
        rows = np.arange(len(side)) if len(side) <= count else random.choice(len(side), count, replace=False)
        drawn = (side[torch.from_numpy(np.sort(rows)).to(side.device)] - centre.to(side.dtype)).float()
        sides.append((drawn, torch.exp(-gamma * drawn.square().sum(dim=1))))
    total = 0.0
    for (a, wa), (b, wb), sign in ((sides[0],) * 2 + (1,), (sides[1],) * 2 + (1,), (sides[0], sides[1], -2)):
        u = (a @ b.T).mul_(t)
        # exp(u) - 1 - u - u^2/2 by its own series: the difference would cancel.
        rest = u * u * u * (1.0 + u / 4.0 * (1.0 + u / 5.0 * (1.0 + u / 6.0))) / 6.0
        total += sign * float((wa @ rest).double() @ wb.double()) / (len(a) * len(b))
    return total
