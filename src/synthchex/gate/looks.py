"""Which real film a candidate looks like: hashes find the nearest, `registration` lays them over it.

A candidate is looked for as it is, mirrored, and turned a little both ways, without flat borders; real films lie there
as windows, so that crops are found too, and as negatives. The hash only picks whom to compare with; the correlation of
films laid over each other decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from synthchex.ahead import in_order
from synthchex.gate import registration, signatures

if TYPE_CHECKING:
    import torch

SHORTLIST = 8  # real films that are laid over a candidate
STARTS = 2  # places to begin from, per real film
FINISHES = 2  # best of them that go on at full size
TURN = 6.0  # degrees
TRIM = 0.06  # share of a side: what a turn moves in from outside
COARSE_SIDE = 32
BLOCK = 2048  # real films whose hashes are compared at a time
BARRED = 255


class Looks(NamedTuple):
    """Of each candidate: best correlation, 0 to 1, and the real row it is with (-1: none)."""

    correlation: np.ndarray
    laid: np.ndarray


class Query(NamedTuple):
    """Candidates in one of the ways they are looked for: thumbnails (B, S, S), the window that counts, (B, 4)."""

    thumbs: np.ndarray
    boxes: np.ndarray


class Start(NamedTuple):
    """One comparison: candidate, real row, query and window to begin from, and whether as a negative."""

    candidate: int
    real: int
    query: int
    window: int
    negative: bool


def window_hashes(rows: np.ndarray) -> np.ndarray:
    """Hashes of the windows of real films, from their signatures; uint64 (N, V)."""
    return signatures.hashes(signatures.thumbnails(rows), signatures.windows(rows))


def compare(
    thumbs: np.ndarray,
    real: np.ndarray,
    hashes: np.ndarray,
    *,
    foreign: Callable[[int], np.ndarray],
    besides: np.ndarray,
    num_workers: int,
) -> Looks:
    """How much candidates look like real films.

    Args:
        thumbs: of the candidates, uint8 (B, S, S).
        real: signatures of the real films, (N, WIDTH); only those compared are read.
        hashes: `window_hashes` of the real films.
        foreign: which real films count for the candidate at a place, bool (N,).
        besides: real rows to lay over each candidate beside those that hashes find, (B, k); -1 for none.
        num_workers: threads.
    """
    asked = queries(thumbs)
    prints = np.stack([signatures.hashes(query.thumbs, query.boxes[:, None])[:, 0] for query in asked], axis=1)

    def apart(place: int) -> np.ndarray:
        bits = _bits(prints[place], hashes)
        bits[~foreign(place)] = BARRED
        return bits

    starts = list[Start]()
    for place, bits in enumerate(in_order(apart, len(thumbs), num_workers=num_workers, ahead=8)):
        order = np.argsort(bits, kind="stable")[:SHORTLIST]
        rows = dict.fromkeys([*besides[place], *order[bits[order] < BARRED]])
        for row in [int(row) for row in rows if row >= 0][:SHORTLIST]:
            starts += _starts(place, row, prints[place], hashes[row])
    return _lay(asked, starts, real, len(thumbs))


def queries(thumbs: np.ndarray) -> list[Query]:
    """The ways in which candidates are looked for."""
    found = []
    for mirrored in (False, True):
        films = np.ascontiguousarray(thumbs[:, :, ::-1]) if mirrored else thumbs
        boxes = signatures.content(films)
        across, down = (boxes[:, 2] - boxes[:, 0]) * TRIM, (boxes[:, 3] - boxes[:, 1]) * TRIM
        inner = boxes + np.stack([across, down, -across, -down], axis=1)
        found += [Query(films, boxes), Query(_turned(films, TURN), inner), Query(_turned(films, -TURN), inner)]
    return found


def _turned(films: np.ndarray, degrees: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(film).rotate(degrees, Image.Resampling.BILINEAR)) for film in films])


def _bits(prints: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Least distance of any hash of a candidate, or its negative, to any window of each real film, uint8 (N,)."""
    parts = []
    for start in range(0, len(hashes), BLOCK):
        apart = np.bitwise_count(prints[:, None, None] ^ hashes[start : start + BLOCK])
        parts.append(np.minimum(apart, 64 - apart).min(axis=(0, 2)))
    return np.concatenate(parts)


def _starts(candidate: int, row: int, prints: np.ndarray, hashes: np.ndarray) -> list[Start]:
    """The pairs of query and window whose hashes are nearest."""
    apart = np.bitwise_count(prints[:, None] ^ hashes).ravel()
    order = np.argsort(np.minimum(apart, 64 - apart), kind="stable")[:STARTS]
    return [Start(candidate, row, *divmod(int(place), len(hashes)), bool(apart[place] > 32)) for place in order]


def _lay(asked: list[Query], starts: list[Start], real: np.ndarray, count: int) -> Looks:
    """Best correlation of each candidate and the real row it is with; all starts at half size, the best at full."""
    best, laid = np.zeros(count), np.full(count, -1, np.int64)
    if not starts:
        return Looks(best, laid)
    candidate, row, query, window, negative = np.array(starts, np.int64).T
    rows, places = np.unique(row, return_inverse=True)
    signed = np.asarray(real[rows])
    onto = signatures.windows(signed)[places, window]
    begun = registration.begin(np.stack([one.boxes for one in asked])[query, candidate], onto)
    films, thumbs = signatures.thumbnails(signed)[places], np.stack([one.thumbs for one in asked])[query, candidate]
    thumbs[negative > 0] = 255 - thumbs[negative > 0]
    coarse = _laid(thumbs, films, begun, COARSE_SIDE)
    order = np.lexsort((-coarse.correlation.numpy(), candidate))
    first = np.searchsorted(candidate[order], candidate[order])
    chosen = order[np.arange(len(order)) - first < FINISHES]
    fine = _laid(thumbs[chosen], films[chosen], coarse.maps[chosen], signatures.SIDE)
    values = fine.correlation.numpy()
    for place in np.argsort(values, kind="stable"):
        best[candidate[chosen[place]]], laid[candidate[chosen[place]]] = values[place], row[chosen[place]]
    return Looks(best, laid)


def _laid(thumbs: np.ndarray, films: np.ndarray, maps: torch.Tensor, side: int) -> registration.Laid:
    """Thumbnails laid over real ones at `side` pixels."""
    return registration.lay(registration.contrast(thumbs, side), registration.contrast(films, side), maps)
