"""Multi-scale structural similarity of pairs of grey images, and its mean within a set: high where images repeat.

At each of five scales means, variances and the covariance are taken under a Gaussian window (11 x 11, sigma 1.5), only
where the window is whole; the next scale is the mean of 2 x 2 pixels, a last odd row or column being repeated:

    l = (2 mx my + C1) / (mx^2 + my^2 + C1),   cs = (2 sxy + C2) / (sx^2 + sy^2 + C2)
    MS-SSIM = mean(l cs)_5^w5  prod_{i<5} mean(cs)_i^wi,   C1 = (0.01 L)^2, C2 = (0.03 L)^2, L = 255

Negative means count as 0, so that powers exist. Everything that belongs to one image is computed once, whatever the
number of its pairs: a pair costs one filtered product per scale, a fifth of the plain formula.

Not known here: files, prompts, labels.
Cost: about 60 flops per pixel and pair; memory a fixed number of images (`KEPT_BYTES`).
Ten million images: the mean is over a number of pairs that does not grow with the set, with their standard error.
Source: Wang, Simoncelli and Bovik 2003; the odd-size rule is that of tf.image.ssim_multiscale.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA, K1, K2, RANGE = 11, 1.5, 0.01, 0.03, 255.0
KEPT_BYTES = 400_000_000
AT_ONCE = 16  # small images that fit a core's cache together


class Mean(NamedTuple):
    """Mean over pairs and its standard error, which knows that pairs share images."""

    value: float
    standard_error: float


class _Scale(NamedTuple):
    """One image at one scale: pixels less the middle of the range, their local means, and local variances."""

    pixels: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor


def smallest_side(scales: int) -> int:
    """Shortest side that still holds a whole window at the last scale: 161 for five."""
    return (WINDOW - 1) * 2 ** (scales - 1) + 1


def ms_ssim(first: np.ndarray, second: np.ndarray, *, scales: int = 5) -> float:
    """Multi-scale structural similarity of two grey images of one size.

    Args:
        first: uint8 or float in 0..255, (H, W).
        second: the same.
        scales: 5 as published; fewer for small images, with the first weights scaled to sum 1. 1 is plain SSIM.

    Returns:
        0 to 1, 1 for equal images; symmetric.

    Raises:
        ValueError: shapes differ or are not (H, W), a side too short, scales not 1 to 5.

    Source: Wang et al. 2003; checked against pytorch-msssim and piq. torchmetrics keeps a reflected border at the last
    scale and is up to 0.006 off.

    >>> import numpy as np
    >>> ms_ssim(np.zeros((161, 170), np.uint8), np.zeros((161, 170), np.uint8))
    1.0
    """
    return float(pair_similarities([first, second], np.array([[0, 1]]), scales=scales)[0])


def pair_similarities(images: Sequence[np.ndarray], pairs: np.ndarray, *, scales: int = 5) -> np.ndarray:
    """MS-SSIM of chosen pairs of a set of images.

    Args:
        images: grey, uint8 or float in 0..255, (H, W) each; both of a pair of one size.
        pairs: int, (P, 2): places in `images`.
        scales: as in `ms_ssim`.

    Returns:
        (P,) float64 in the order of the pairs.

    Raises:
        ValueError: as `ms_ssim`.
    """
    pairs = np.asarray(pairs)
    for place in np.unique(pairs):
        check_image(images[place], int(place), scales)
    prepared = _kept(lambda place: _pyramid(images[place], scales), images, pairs)
    values = np.empty(len(pairs))
    # Sorted pairs share their first image with the pair before.
    for row in np.lexsort((pairs[:, 1], pairs[:, 0])):
        i, j = (int(place) for place in pairs[row])
        if images[i].shape != images[j].shape:
            raise ValueError(
                f"expected images of one size, got {images[i].shape} for image {i} and {images[j].shape} for image "
                f"{j}; resize them, or pass size="
            )
        values[row] = _compare(prepared(i), prepared(j), scales)
    return values


def thumbnail_similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Plain SSIM of many pairs of small images at once.

    Args:
        first: grey, uint8 or float in 0..255, (P, H, W), sides of at least 11.
        second: the same.

    Returns:
        (P,) float64, 0 to 1, 1 for equal images; `ms_ssim` of each pair at one scale.

    Raises:
        ValueError: shapes differ, or sides are too short.
    """
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"expected pairs of images of one shape (P, H, W), got {first.shape} and {second.shape}")
    values = np.empty(len(first))
    for start in range(0, len(first), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        check_image(first[start], start, 1)
        one, two = (_pyramid(side[some], 1)[0] for side in (first, second))
        values[some] = _local(one, two, luminance=True).mean(dim=(-2, -1)).clamp(0.0, 1.0).double().numpy()
    return values


def draw_pairs(count: int, pairs: int, random: np.random.Generator) -> np.ndarray:
    """Different unordered pairs of `count` images, (P, 2) with i < j: all of them when there are not more than asked.

    Raises:
        ValueError: fewer than 2 images, or no pair asked for.
    """
    if count < 2 or pairs < 1:
        raise ValueError(f"expected at least 2 images and 1 pair, got {count} and {pairs}")
    every = count * (count - 1) // 2
    numbers = np.arange(every) if every <= pairs else _different(every, pairs, random)
    # Number n is the pair (i, j): j (j - 1) / 2 + i with i < j.
    later = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) // 2).astype(np.int64)
    later -= later * (later - 1) // 2 > numbers
    later += later * (later + 1) // 2 <= numbers
    return np.stack([numbers - later * (later - 1) // 2, later], axis=1)


def mean_of_pairs(values: np.ndarray, pairs: np.ndarray, clusters: np.ndarray | None = None) -> Mean:
    """Mean over pairs; in its standard error pairs that share an image, or a patient, are not taken for independent.

    Args:
        values: (P,) float.
        pairs: int, (P, 2).
        clusters: whole numbers, one per image that `pairs` points to, for example its patient; None: each image alone.

    Returns:
        The mean, and a standard error that is NaN where there is one pair or one cluster.

    Source: dyadic-robust variance, Fafchamps and Gubert 2007; Aronow, Samii and Assenova 2015.
    """
    ends = np.sort(pairs if clusters is None else clusters[pairs], axis=1)
    if len(values) < 2 or (ends == ends[0, 0]).all():
        return Mean(float(values.mean()), math.nan)
    rest = values - values.mean()
    apart = ends[:, 0] != ends[:, 1]
    shared = np.bincount(ends[:, 0], rest, ends.max() + 1) + np.bincount(ends[apart, 1], rest[apart], ends.max() + 1)
    # Pairs between the same two units are in the sums of both: their square is taken off once.
    _, twice = np.unique(ends[apart], axis=0, return_inverse=True)
    both = np.bincount(twice.ravel(), rest[apart]) if apart.any() else np.zeros(1)
    variance = float(np.square(shared).sum() - np.square(both).sum()) / len(values) ** 2
    floor = float(np.square(rest).sum()) / (len(values) * (len(values) - 1))
    return Mean(float(values.mean()), math.sqrt(max(variance, floor)))


def check_image(image: np.ndarray, place: int, scales: int) -> None:
    """Refuse what has no MS-SSIM.

    Raises:
        ValueError: not (H, W), a side too short for the scales, scales not 1 to 5.
    """
    if not 1 <= scales <= len(WEIGHTS):
        raise ValueError(f"scales must be 1 to {len(WEIGHTS)}, got {scales}; 5 is the published number")
    if image.ndim != 2:
        raise ValueError(f"image {place}: expected grey pixels (H, W), got shape {image.shape}")
    least = smallest_side(scales)
    if min(image.shape) < least:
        fits = sum(min(image.shape) >= smallest_side(fewer) for fewer in range(1, scales))
        advice = f"pass scales={fits} or larger images" if fits else "pass larger images"
        raise ValueError(
            f"image {place}: expected sides of at least {least} pixels for {scales} scales, got {image.shape[0]} x "
            f"{image.shape[1]}; {advice}"
        )


def _pyramid(image: np.ndarray, scales: int) -> list[_Scale]:
    import torch

    pixels = torch.from_numpy(np.asarray(image, np.float32)) - RANGE / 2  # small numbers keep float32's digits
    levels = []
    for level in range(scales):
        if level:
            pixels = torch.nn.functional.avg_pool2d(pixels[None], 2, ceil_mode=True, count_include_pad=False)[0]
        mean = _window(pixels)
        levels.append(_Scale(pixels, mean, _window(pixels * pixels) - mean * mean))
    return levels


def _compare(one: list[_Scale], two: list[_Scale], scales: int) -> float:
    # The published weights sum to 1.0001 and stay as they are; a part of them is scaled to sum 1.
    whole = 1.0 if scales == len(WEIGHTS) else sum(WEIGHTS[:scales])
    weights, value = np.array(WEIGHTS[:scales]) / whole, 1.0
    for level, (a, b) in enumerate(zip(one, two, strict=True)):
        local = _local(a, b, luminance=level == scales - 1)
        value *= max(0.0, float(local.mean())) ** float(weights[level])
    return min(value, 1.0)


def _local(a: _Scale, b: _Scale, *, luminance: bool) -> torch.Tensor:
    """Similarity under each window, (..., H, W)."""
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    covariance = _window(a.pixels * b.pixels) - a.mean * b.mean
    local = (2 * covariance + c2) / (a.variance + b.variance + c2)
    if luminance:
        left, right = a.mean + RANGE / 2, b.mean + RANGE / 2
        local = local * (2 * left * right + c1) / (left * left + right * right + c1)
    return local


def _window(pixels: torch.Tensor) -> torch.Tensor:
    """Weighted sums under the Gaussian window, whole windows only: eleven shifted copies a direction beat conv2d."""
    taps = _taps()
    for direction in (-1, -2):
        length = pixels.shape[direction] - WINDOW + 1
        total = pixels.narrow(direction, WINDOW // 2, length) * taps[WINDOW // 2]
        for k in range(WINDOW // 2):
            total.add_(pixels.narrow(direction, k, length), alpha=taps[k])
            total.add_(pixels.narrow(direction, WINDOW - 1 - k, length), alpha=taps[k])
        pixels = total
    return pixels


def _taps() -> list[float]:
    offsets = np.arange(WINDOW) - WINDOW // 2
    taps = np.exp(-np.square(offsets) / (2 * SIGMA**2))
    return [float(tap) for tap in taps / taps.sum()]


def _kept(
    make: Callable[[int], list[_Scale]], images: Sequence[np.ndarray], pairs: np.ndarray
) -> Callable[[int], list[_Scale]]:
    """`make` with the latest results kept, as many as fit `KEPT_BYTES`."""
    largest = max((images[place].size for place in np.unique(pairs)), default=1)
    room = max(2, KEPT_BYTES // (16 * largest))  # three float32 arrays and a third more for the smaller scales
    kept: OrderedDict[int, list[_Scale]] = OrderedDict()

    def prepared(place: int) -> list[_Scale]:
        if place in kept:
            kept.move_to_end(place)
        else:
            kept[place] = make(place)
            if len(kept) > room:
                kept.popitem(last=False)
        return kept[place]

    return prepared


def _different(every: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` different numbers below `every`, sorted, without listing all of them."""
    chosen: set[int] = set()
    while len(chosen) < count:
        chosen.update(int(number) for number in random.integers(0, every, count - len(chosen)))
    return np.array(sorted(chosen))
