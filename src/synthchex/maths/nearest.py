"""The k-th nearest neighbour of every row of a set: exact, from tiles of pairs whose distances are known from above.

Each tile above the diagonal serves its rows and its columns. The best lower bounds of groups of pairs bound the k-th
nearest; a pair that may still beat the bound becomes a candidate; candidates that survive the final bounds are
settled by differences, in float32 and then in float64. Rows with very many candidates (copies, ties) go by float64
products. Knows one set and its distances (`distances`); `neighbors` knows what radii mean.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from synthchex.maths import distances
from synthchex.maths.distances import Centred, Tile

if TYPE_CHECKING:
    import torch

GROUPS = 32  # a tile's pairs of a row are bounded by the best of each of this many groups, at least 4 k
PROBED, PROBED_AMONG = 96, 16384  # rows, and their possible neighbours, that tell whether a format decides enough
CHUNK = 4096  # rows that are settled at a time


def kth_nearest(rows: Centred, k: int, block: int) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, (N,) float64 in the order of `rows.features`.

    Args:
        rows: N rows, more than k.
        k: which neighbour, from 1.
        block: rows of a tile.
    """
    count = len(rows.low)
    pool = _Pool(rows, k)
    for strip, i in enumerate(range(0, count, block)):
        one = slice(i, min(i + block, count))
        others = [slice(j, min(j + 2 * block, count)) for j in range(one.stop, count, 2 * block)]
        for number, two in enumerate([one, *others]):
            tile = distances.upper(rows, one, rows, two)
            if number == 0:
                tile.values.fill_diagonal_(-np.inf)
            else:
                pool.add(tile, one, two, by_rows=False, tightens=_is_early(strip))
            pool.add(tile, one, two, by_rows=True, tightens=_is_early(number))
        if _is_early(strip):
            pool.prune()
    pool.prune()
    places = np.full(count, np.nan)
    pool.settle(places)
    _by_float64(rows, np.flatnonzero(np.isnan(places)), k, places)
    squares = np.empty(count)
    squares[rows.order.cpu().numpy()] = places
    return squares


def crowded(rows: Centred, k: int) -> bool:
    """Whether the format leaves so many candidates open that a finer one would be faster; from a sample of rows."""
    import torch

    places = torch.arange(0, len(rows.low), len(rows.low) // PROBED_AMONG + 1, device=rows.low.device)
    count = len(places)
    some = torch.linspace(0, count - 1, min(PROBED, count), device=places.device).long()
    sample, others = _part(rows, places[some]), _part(rows, places)
    tile = distances.upper(sample, slice(0, len(some)), others, slice(0, count))
    tile.values[torch.arange(len(some)), some] = -torch.inf
    least = (tile.values - 2.0 * tile.columns).topk(min(k, count - 1), dim=1).values[:, -1] - 2.0 * tile.rows
    opened = distances.open_pairs(tile.values, least[:, None])[0]
    # An open pair costs as much as about 100 pairs of a float32 product; more than the limit of a row is not kept.
    return len(opened) / len(some) > k + min(count / 200, _most(count, k) / 2)


def _is_early(number: int) -> bool:
    """Whether it is 0, 1, 2, 4, 8 ...: the more a row has seen, the less its bound moves."""
    return number & (number - 1) == 0


def _most(count: int, k: int) -> int:
    """Candidates of a row beyond which a float64 row is cheaper than differences."""
    return 8 * k + 64 + min(count // 64, 512)


def _part(rows: Centred, places: torch.Tensor) -> Centred:
    """Some of the rows, in the order given."""
    names = ("order", "low", "step", "half", "norm", "error")
    return rows._replace(**{name: getattr(rows, name)[places] for name in names})


class _Pool:
    """Pairs that may be among the k nearest of their row: row, column, and the range that -d^2/2 of each lies in."""

    def __init__(self, rows: Centred, k: int) -> None:
        import torch

        self._rows, self._k = rows, k
        self._best = torch.full((len(rows.low), k), -torch.inf, dtype=torch.float64, device=rows.low.device)
        self._parts = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float32))]

    def add(self, tile: Tile, one: slice, two: slice, *, by_rows: bool, tightens: bool) -> None:
        """Take the pairs that may be near their row (or column), after tightening its bound if wanted."""
        side = one if by_rows else two
        if tightens:
            self._best[side] = _best_of(self._best[side], tile, by_rows=by_rows)
        least = self._best[side, -1]
        i, j, high = distances.open_pairs(tile.values, least[:, None] if by_rows else least)
        low = high - 2.0 * (tile.rows.cpu().numpy()[i] + tile.columns.cpu().numpy()[j])
        low = np.nextafter(low.astype(np.float32), np.float32(-np.inf))
        i, j = (i + one.start).astype(np.int32), (j + two.start).astype(np.int32)
        self._parts.append((*((i, j) if by_rows else (j, i)), low, high))

    def prune(self) -> None:
        """Drop what can no longer be near, and all pairs of rows that have too many, by an infinite bound for them."""
        import torch

        row, column, low, high = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        kept = high >= self._best[:, -1].cpu().numpy()[row]
        crowd = np.bincount(row[kept], minlength=len(self._best)) > _most(len(self._best), self._k)
        if crowd.any():
            self._best[torch.from_numpy(crowd).to(self._best.device)] = torch.inf
            kept &= ~crowd[row]
        self._parts = [(row[kept], column[kept], low[kept], high[kept])]

    def settle(self, places: np.ndarray) -> None:
        """k-th nearest of every row that has candidates."""
        (parts,) = self._parts
        order = np.argsort(parts[0], kind="stable")
        row, column, low, high = (part[order] for part in parts)
        edges = np.searchsorted(row, np.arange(0, len(places) + CHUNK, CHUNK))
        for start, stop in itertools.pairwise(edges):
            some = slice(start, stop)
            _settle(self._rows, row[some], column[some], low[some], high[some], self._k, places)


def _best_of(table: torch.Tensor, tile: Tile, *, by_rows: bool) -> torch.Tensor:
    """The k best lower bounds of the rows (or columns) of a tile, with those already known."""
    import torch

    k = table.shape[1]
    if by_rows:
        best = _group_best(tile.values - 2.0 * tile.columns.float(), max(GROUPS, 4 * k), 1) - 2.0 * tile.rows[:, None]
    else:
        best = _group_best(tile.values - 2.0 * tile.rows.float()[:, None], max(GROUPS, 4 * k), 0).T
        best = best - 2.0 * tile.columns[:, None]
    return torch.cat([table, best.topk(min(k, best.shape[1]), dim=1).values], dim=1).topk(k, dim=1).values


def _group_best(values: torch.Tensor, groups: int, dim: int) -> torch.Tensor:
    """Best value of disjoint groups along `dim`; each value by itself where there are few."""
    import torch

    size = values.shape[dim] // groups
    if size < 2:
        return values
    main, rest = values.narrow(dim, 0, groups * size), values.narrow(dim, groups * size, values.shape[dim] % groups)
    # Groups are strided, so that the reduction runs along contiguous memory.
    best = main.unflatten(dim, (size, groups)).amax(dim=dim)
    return torch.cat([best, rest.amax(dim=dim, keepdim=True)], dim=dim) if rest.shape[dim] else best


def _settle(
    rows: Centred, row: np.ndarray, column: np.ndarray, low: np.ndarray, high: np.ndarray, k: int, places: np.ndarray
) -> None:
    """k-th nearest of the rows named in `row` (sorted); only pairs whose range may hold it are computed."""
    present, start, count = np.unique(row, return_index=True, return_counts=True)
    present, start, count = present[count >= k], start[count >= k], count[count >= k]
    if not len(present):
        return
    inside = np.arange(count.max()) < count[:, None]
    pairs = np.where(inside, start[:, None] + np.arange(count.max()), 0)
    lows, highs = (np.where(inside, part[pairs].astype(np.float64), -np.inf) for part in (low, high))
    # The k pairs that look nearest first: what they turn out to be bounds all others.
    likely = highs >= np.partition(highs, -k, axis=1)[:, -k, None]
    for some in (likely, ~likely):
        open_ = some & _open(lows, highs, inside, k)[1]
        least, most = distances.closer(rows, row[pairs[open_]], rows, column[pairs[open_]])
        lows[open_], highs[open_] = -most / 2.0, -least / 2.0
    nearer, open_ = _open(lows, highs, inside, k)
    squares = np.full(open_.shape, np.inf)
    squares[open_] = distances.direct(rows, row[pairs[open_]], rows, column[pairs[open_]])
    squares.sort(axis=1)
    places[present] = np.take_along_axis(squares, k - 1 - nearer.sum(axis=1, keepdims=True), axis=1)[:, 0]


def _open(lows: np.ndarray, highs: np.ndarray, inside: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs are certainly nearer than the k-th (counted, not computed), and which may be the k-th."""
    least, most = (np.partition(part, -k, axis=1)[:, -k, None] for part in (lows, highs))
    nearer = lows > most
    return nearer, inside & ~nearer & (highs >= least)


def _by_float64(rows: Centred, wanted: np.ndarray, k: int, places: np.ndarray, chunk: int = 512) -> None:
    """Whole rows by float64 products; the nearest few, ties included up to a limit, again by `direct`."""
    import torch

    take = min(len(rows.low) - 1, 2 * k + 16)
    for start in range(0, len(wanted), chunk):
        some = torch.from_numpy(wanted[start : start + chunk]).to(rows.low.device)
        squares = torch.cat(
            [distances.squared_distances(rows, some, rows, slice(j, j + 4096)) for j in range(0, len(rows.low), 4096)],
            dim=1,
        )
        squares[torch.arange(len(some)), some] = torch.inf
        near = squares.topk(take, dim=1, largest=False).indices.cpu().numpy()
        exact = distances.direct(rows, np.repeat(some.cpu().numpy(), take), rows, near.ravel()).reshape(-1, take)
        places[wanted[start : start + chunk]] = np.partition(exact, k - 1, axis=1)[:, k - 1]
