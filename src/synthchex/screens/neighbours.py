"""How alike the thumbnails of neighbours are, and which films repeat others. Neighbours are found by `maths.search`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def correlations(thumbs: np.ndarray, others: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pearson correlation of thumbnails, -1 to 1.

    Args:
        thumbs: uint8 (N, S, S).
        others: uint8 (M, S, S).
        rows: (N, k) rows of others to compare each with; -1 gives -1.
    """
    out = np.full(rows.shape, -1.0)
    for number, found in enumerate(rows):
        known = found >= 0
        one = _standard(thumbs[number : number + 1])
        out[number, known] = _standard(others[found[known]]) @ one[0]
    return out


def _standard(thumbs: np.ndarray) -> np.ndarray:
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def repeats(keys: Sequence[Sequence[bytes | str]], near: np.ndarray, close: np.ndarray) -> np.ndarray:
    """The earlier film that each film repeats, by row; -1 where it is kept.

    Films are taken in order: one that repeats a film that was kept is left out, so that of every group one stays and
    whoever is left out is near one that stays.

    Args:
        keys: lists of N keys; films that share one are the same.
        near: (N, k) neighbours of each film, -1 for none.
        close: bool (N, k), which of them are so near that one of the two is enough.
    """
    linked: list[list[int]] = [[] for _ in near]
    for row, place in zip(*np.nonzero(close & (near >= 0)), strict=True):
        one, two = sorted((int(row), int(near[row, place])))
        linked[two].append(one)
    out, known = np.full(len(near), -1), [dict[bytes | str, int]() for _ in keys]
    for row, earlier in enumerate(linked):
        same = [seen[key[row]] for seen, key in zip(known, keys, strict=True) if key[row] in seen]
        kept = [other for other in [*same, *earlier] if out[other] < 0]
        out[row] = min(kept, default=-1)
        for seen, key in zip(known, keys, strict=True):
            seen.setdefault(key[row], row if out[row] < 0 else int(out[row]))
    return out
