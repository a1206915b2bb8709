"""The nearest films by features, of another patient where patients are known; and which films repeat others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK = 2048


class Nearest(NamedTuple):
    """Distances to the k nearest, ascending, (N, k), infinite where there are fewer, and their rows; -1: none."""

    distance: np.ndarray
    row: np.ndarray


def nearest(
    features: np.ndarray,
    others: np.ndarray,
    k: int,
    *,
    owners: np.ndarray | None = None,
    other_owners: np.ndarray | None = None,
) -> Nearest:
    """The k nearest of other rows to each row, in blocks.

    Args:
        features: (N, D), may be mapped from a file.
        others: (M, D).
        k: how many.
        owners: (N,) patient number of each row, whose own films do not count; None counts all.
        other_owners: (M,) patient numbers of the others.
    """
    import torch

    centre = torch.as_tensor(np.asarray(others[:BLOCK], np.float64).mean(axis=0), dtype=torch.float32)
    out = Nearest(np.full((len(features), k), np.inf), np.full((len(features), k), -1))
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        one = torch.from_numpy(np.array(features[rows], np.float32)) - centre
        best, places = torch.full((len(one), k), torch.inf), torch.full((len(one), k), -1)
        for first in range(0, len(others), BLOCK):
            two = torch.from_numpy(np.array(others[first : first + BLOCK], np.float32)) - centre
            # The rows' own squares are left out: the order is the same.
            squares = torch.addmm((two * two).sum(1), one, two.T, alpha=-2)
            if owners is not None and other_owners is not None:
                own = owners[rows][:, None] == other_owners[first : first + BLOCK]
                squares[torch.from_numpy(own)] = torch.inf
            some = squares.topk(min(k, squares.shape[1]), dim=1, largest=False)
            best = torch.cat([best, some.values], 1)
            places = torch.cat([places, torch.where(some.values.isinf(), -1, some.indices + first)], 1)
            order = best.topk(k, dim=1, largest=False).indices
            best, places = best.gather(1, order), places.gather(1, order)
        _settle(out, start, features, others, places.numpy())
    return out


def _settle(out: Nearest, start: int, features: np.ndarray, others: np.ndarray, places: np.ndarray) -> None:
    """Distances by differences, which near-copies need: products of large features lose the small ones."""
    for number, found in enumerate(places):
        known = found[found >= 0]
        gaps = np.asarray(others[np.sort(known)], np.float64) - features[start + number]
        apart = np.linalg.norm(gaps, axis=1)
        order = np.argsort(apart, kind="stable")
        out.distance[start + number, : len(known)] = apart[order]
        out.row[start + number, : len(known)] = np.sort(known)[order]


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
