"""A procedural chest film: findings are drawn, a body is exposed, a report is written. Numbers of this domain say
whether a pipeline works; they say nothing about real radiographs.

    >>> films = make(4, size=64, seed=0)
    >>> films.images.shape, films.labels.shape, len(films.reports)
    ((4, 64, 64), (4, 14), 4)

A row depends on (seed, index, size) alone: never on `count`, on other rows, or on `markers` under the letters.
"""

from typing import NamedTuple

import numpy as np

from synthchex.data.records import LABELS
from synthchex.phantom.film import render
from synthchex.phantom.findings import Chart, draw_row, labels_of, stack
from synthchex.phantom.markers import Box, burn
from synthchex.phantom.reports import vocabulary, write_report
from synthchex.phantom.shapes import DRAWS

__all__ = ["LABELS", "Phantoms", "draw_charts", "make", "vocabulary", "write_reports"]

# Films are always exposed in whole blocks: numpy's vector loops may differ by one rounding at the end of an array.
_BLOCK = 16


class Phantoms(NamedTuple):
    """Films with what is true of them.

    Attributes:
        images: uint8 (N, H, W), bone white, the patient's right on the left.
        labels: int8 (N, 14), 0 or 1, in the order of `LABELS`.
        reports: one short text for each film.
        boxes: for each film the (left, top, right, bottom) of every text burned in; empty without markers.
    """

    images: np.ndarray
    labels: np.ndarray
    reports: list[str]
    boxes: list[tuple[Box, ...]]


def make(count: int, *, size: int = 64, seed: int = 0, markers: bool = False) -> Phantoms:
    """Make `count` films of `size` pixels a side with their labels and reports.

    Raises:
        ValueError: count is negative or size below 32.
    """
    _check(count)
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    images = np.empty((count, size, size), np.uint8)
    for first in range(0, count, _BLOCK):
        films = _expose_block(first, size, seed)
        images[first : first + _BLOCK] = films[: count - first]
    reports, labels = write_reports(count, seed=seed)
    boxes: list[tuple[Box, ...]] = [()] * count
    if markers:
        for row in range(count):
            images[row], boxes[row] = burn(images[row], _generator(seed, row, stream=2))
    return Phantoms(images, labels, reports, boxes)


def write_reports(count: int, *, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Reports and labels (int8, (N, 14)) of the films that `make` would draw with the same seed, without drawing."""
    chart = draw_charts(count, seed=seed)
    reports = [write_report(chart, row, _generator(seed, row, stream=1)) for row in range(count)]
    return reports, labels_of(chart)


def draw_charts(count: int, *, seed: int = 0, first: int = 0) -> Chart:
    """Findings of the rows `first` to `first + count`, as tables."""
    _check(count)
    rows = range(first, first + max(count, 1))
    chart = stack([draw_row(_generator(seed, row, stream=0)) for row in rows])
    return Chart(*(part[:count] for part in chart))


def _expose_block(first: int, size: int, seed: int) -> np.ndarray:
    """The films of one whole block of rows."""
    generators = [_generator(seed, row, stream=3) for row in range(first, first + _BLOCK)]
    draws = np.stack([rng.random(DRAWS) for rng in generators])
    grain = np.stack([rng.standard_normal((size, size), dtype=np.float32) for rng in generators])
    return render(size, draw_charts(_BLOCK, seed=seed, first=first), draws, grain)


def _generator(seed: int, row: int, *, stream: int) -> np.random.Generator:
    """The generator of one row for one purpose: 0 findings, 1 words, 2 letters, 3 body and film."""
    return np.random.default_rng((seed, row, stream))


def _check(count: int) -> None:
    """Refuse a negative number of phantoms."""
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
