"""The k nearest rows of a large set to each row of another: exact, in blocks, in bounded memory.

Products in int8 (where the processor multiplies it in hardware) or float32 bound every distance from both sides, see
`distances`; pairs that may be among the k nearest are then measured by float64 differences of the rows as given. A copy
has distance 0, large norms lose no small distance, and the result depends neither on the format nor on the blocks.

Both sides may be arrays mapped from a file. Rows are taken `SPAN` queries and `BLOCK` references at a time. Held are,
for width D, about (SPAN + BLOCK) x 9 D bytes, `OPEN` candidates of 24 bytes, a few tiles of 5 MB and the results, 16
bytes per query and neighbour: about 0.3 GB for 100,000 x 400,000 x 768, k = 2, the files not counted.
Cost: 2 M N D operations; each span of queries reads the references once more.
Ten million references: the time grows in proportion, the memory does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.maths import arrays, distances
from synthchex.maths.arrays import Features
from synthchex.maths.distances import Centred, Filter, Format, Tile

if TYPE_CHECKING:
    import torch

SPAN, BLOCK = 32768, 8192  # queries and references in memory at a time
TILE, TILE_DEVICE = 768, 4096  # rows of a tile: a core's cache, an accelerator
OPEN = 1 << 21  # candidates that are held at a time
WORTH_INT8 = 1000  # rows below which products cost little beside everything else
PROBED, PROBED_AMONG = 96, 16384  # queries and references that tell whether int8 decides enough
GROUPS = 32  # a tile's columns are bounded by the best of each of this many groups, at least 4 k
SLACK = 1e-12  # relative rounding of a float64 squared distance, generously

Owners = tuple[Sequence[Any] | np.ndarray, Sequence[Any] | np.ndarray]


class Nearest(NamedTuple):
    """The k nearest references of each query, nearest first; of equal distances the lower row first.

    `distances` (M, k) float64, in units of the features, infinite where there are fewer than k; `rows` (M, k) int64, -1
    there.
    """

    distances: np.ndarray
    rows: np.ndarray


def nearest(
    queries: Features,
    references: Features,
    k: int = 2,
    *,
    owners: Owners | None = None,
    low: Filter = "auto",
    span: int = SPAN,
    block: int = BLOCK,
) -> Nearest:
    """The k nearest references of each query by Euclidean distance.

    Args:
        queries: float, (M, D), for example features of synthetic films; may be mapped from a file.
        references: float, (N, D), for example of training films; may be mapped from a file.
        k: how many.
        owners: (id of each query, id of each reference), for example patients: references with the query's own id are
            left out. For a set beside itself pass its patients twice, or its row numbers where they are unknown.
        low: format of the products; changes the time, not the result. `auto` is int8 where the processor has it and a
            sample shows that it decides most pairs, else float32.
        span: queries in memory at a time.
        block: references in memory at a time.

    Returns:
        Distances and rows; lower is nearer. Results are NumPy arrays; tensors are searched on their device.

    Raises:
        ValueError: k, span or block below 1, widths differ, no rows, not finite floats, owners of another length, int8
            asked for without exact int8 products.

    >>> import numpy as np
    >>> found = nearest(np.array([[0.0], [5.0]]), np.array([[1.0], [5.0], [9.0]]), k=2)
    >>> found.rows.tolist(), found.distances.tolist()
    ([[0, 1], [1, 0]], [[1.0, 5.0], [0.0, 4.0]])
    """
    if min(k, span, block) < 1:
        raise ValueError(f"k, span and block must be at least 1, got {k}, {span} and {block}")
    one, two = _Side.of(queries, "queries"), _Side.of(references, "references")
    ids = _numbered(owners, len(one), len(two))
    frame = _frame(one, two, block)
    kind = _format(one, two, frame, k) if low == "auto" else low
    distances.check_format(kind, frame.centre)
    out = Nearest(np.full((len(one), k), np.inf), np.full((len(one), k), -1, np.int64))
    for rows in _slices(len(one), span):
        search = _Search(frame.ready(one, rows, kind), k, None if ids is None else ids[0][rows])
        for number, places in enumerate(_slices(len(two), block)):
            search.add(frame.ready(two, places, kind), places.start, None if ids is None else ids[1][places], number)
        out.distances[rows], out.rows[rows] = search.result()
    return out


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class _Side(NamedTuple):
    """Rows that are read a block at a time."""

    rows: Any
    name: str

    @classmethod
    def of(cls, rows: Features, name: str) -> _Side:
        """A side, looked at but not read."""
        rows = rows if arrays.is_tensor(rows) else np.asarray(rows)
        arrays.check(rows[:1], name)
        return cls(rows, name)

    def __len__(self) -> int:
        return len(self.rows)

    def checked(self, part: slice) -> torch.Tensor:
        """Some rows, float32 or float64, or an error that says where they are wrong."""
        rows = self.rows[part] if arrays.is_tensor(self.rows) else np.array(self.rows[part])
        return arrays.to_tensor(arrays.check(rows, f"{self.name}[{part.start}:{part.stop}]"))


class _Frame(NamedTuple):
    """What both sides are measured in: a common centre, whose type and device are theirs, and a scale."""

    centre: torch.Tensor
    scale: float

    def ready(self, side: _Side, part: slice, kind: Format) -> Centred:
        """Some rows of a side, ready for tiles."""
        rows = side.checked(part).to(self.centre)
        return distances.centred(rows, self.centre, distances.norms(rows, self.centre), self.scale, kind)


def _frame(one: _Side, two: _Side, block: int) -> _Frame:
    """Centre from some rows of the references; scale and type from all rows of both sides, each read once."""
    import torch

    sample = two.checked(slice(0, min(block, len(two))))
    widths = one.rows.shape[1], two.rows.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(
            f"expected features of one width, got {widths[0]} for queries and {widths[1]} for references; "
            "encode both with the same encoder"
        )
    tensors = [side.rows for side in (one, two) if isinstance(side.rows, torch.Tensor)]
    device = tensors[0].device if tensors else sample.device
    centre = sample.mean(dim=0, dtype=torch.float64).to(device)
    parts = [(side, part) for side in (one, two) for part in _slices(len(side), block)]
    norm, size, double = 0.0, 0.0, False
    for side, part in parts:
        rows = side.checked(part).to(device)
        norm = max(norm, float(distances.norms(rows, centre.to(rows.dtype)).max()))
        size, double = max(size, distances.largest(rows)), double or rows.dtype is torch.float64
    if not np.isfinite(norm):
        raise ValueError("expected features whose squares are finite in float64, got larger ones; scale both down")
    kind = torch.float64 if double or size > distances.LARGEST else torch.float32
    return _Frame(centre.to(kind), distances.scale_of(norm))


def _numbered(owners: Owners | None, *counts: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Whole numbers for the ids of both sides, equal for equal ids."""
    if owners is None:
        return None
    ids = [np.asarray(side) for side in owners]
    if tuple(len(side) for side in ids) != counts:
        raise ValueError(
            f"owners: expected {counts[0]} ids for queries and {counts[1]} for references, got {len(ids[0])} and "
            f"{len(ids[1])}; pass one for each row"
        )
    numbers = np.unique(np.concatenate(ids), return_inverse=True)[1]
    return numbers[: counts[0]], numbers[counts[0] :]


def _format(one: _Side, two: _Side, frame: _Frame, k: int) -> Format:
    """int8 where a sample of pairs says that it leaves few of them open."""
    import torch

    if min(len(one), len(two)) < WORTH_INT8 or distances.fastest(frame.centre[None]) != "int8":
        return "float32"
    left, right = (
        frame.ready(_Side(_sample(side.rows, most), side.name), slice(0, min(most, len(side))), "int8")
        for side, most in ((one, PROBED), (two, PROBED_AMONG))
    )
    tile = distances.upper(left, slice(None), right, slice(None))
    least = _lower(tile).topk(min(k, len(right.low)), dim=1).values[:, -1:]
    opened = int((tile.values >= least.to(torch.float64)).sum()) / len(left.low)
    # An open pair costs as much as about 100 pairs of a float32 product.
    return "int8" if opened <= k + len(right.low) / 200 else "float32"


def _sample(rows: Any, most: int) -> Any:
    """At most so many rows, spread over all of them."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)
    return rows[places]


def _lower(tile: Tile) -> torch.Tensor:
    """-d^2/2 of all pairs of a tile, from below; float64."""
    return tile.values.double() - 2.0 * (tile.rows[:, None] + tile.columns)


class _Search:
    """The nearest references found so far of a span of queries, by place."""

    def __init__(self, queries: Centred, k: int, owners: np.ndarray | None) -> None:
        order = queries.order.cpu().numpy()
        self._queries, self._k, self._order = queries, k, order
        self._owners = None if owners is None else owners[order]
        self._squares = np.full((len(order), k), np.inf)
        self._rows = np.full((len(order), k), -1, np.int64)
        self._bound = np.full(len(order), -np.inf)  # what -d^2/2 (scaled) of a new neighbour reaches at least
        self._open: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows in the order of the queries."""
        found = np.empty_like(self._squares), np.empty_like(self._rows)
        found[0][self._order], found[1][self._order] = np.sqrt(self._squares), self._rows
        return found

    def add(self, references: Centred, first: int, owners: np.ndarray | None, number: int) -> None:
        """Look through a block of references, the `number`-th, whose rows begin at `first`."""
        owners = None if owners is None else owners[references.order.cpu().numpy()]
        size = TILE if distances.on_cpu(references.low) else TILE_DEVICE
        for one in _slices(len(self._order), size):
            for tile_number, two in enumerate(_slices(len(references.low), 2 * size)):
                tile = distances.upper(self._queries, one, references, two)
                # What is settled bounds later blocks; in the first one the tiles must do that themselves.
                if number == 0 and tile_number & (tile_number - 1) == 0:
                    self._tighten(tile, one, None if owners is None else owners[two])
                self._collect(tile, one, two, owners)
            if sum(len(part[0]) for part in self._open) > OPEN:
                self._settle(references, first)
        self._settle(references, first)

    def _tighten(self, tile: Tile, one: slice, owners: np.ndarray | None) -> None:
        """Raise the bounds of some queries to the k-th best lower bound in a tile, their own references left out."""
        import torch

        values = tile.values - 2.0 * tile.columns.float()
        if owners is not None and self._owners is not None:
            own = self._owners[one][:, None] == owners
            values[torch.from_numpy(own).to(values.device)] = -torch.inf
        best = _group_best(values, max(GROUPS, 4 * self._k))
        if best.shape[1] < self._k:
            return
        least = best.topk(self._k, dim=1).values[:, -1].double()
        # The difference above is rounded to float32.
        least -= 2.0**-20 * (least.abs() + tile.columns.max()) + 2.0 * tile.rows
        self._bound[one] = np.maximum(self._bound[one], least.cpu().numpy())

    def _collect(self, tile: Tile, one: slice, two: slice, owners: np.ndarray | None) -> None:
        """Keep the pairs of a tile that may be among the nearest."""
        import torch

        least = torch.from_numpy(self._bound[one]).to(tile.rows.device)
        i, j, high = distances.open_pairs(tile.values, least[:, None])
        i, j = i + one.start, j + two.start
        if owners is not None and self._owners is not None:
            foreign = self._owners[i] != owners[j]
            i, j, high = i[foreign], j[foreign], high[foreign]
        self._open.append((i, j, high))

    def _settle(self, references: Centred, first: int) -> None:
        """Measure the open pairs and keep the k nearest; those that look nearest go first and spare the others."""
        i, j, high = (np.concatenate(parts) for parts in zip(*self._open, strict=True))
        self._open = [(i[:0], j[:0], high[:0])]
        order = np.lexsort((-high, i))
        i, j, high = i[order], j[order], high[order]
        likely = _rank(i) < self._k
        for some in (likely, ~likely):
            open_ = some & (high >= self._bound[i])
            squares = distances.direct(self._queries, i[open_], references, j[open_])
            self._merge(i[open_], squares, references.order.cpu().numpy()[j[open_]] + first)

    def _merge(self, i: np.ndarray, squares: np.ndarray, rows: np.ndarray) -> None:
        """Take measured pairs into the table; the bounds follow it."""
        touched = np.unique(i)
        i = np.concatenate([np.repeat(touched, self._k), i])
        squares = np.concatenate([self._squares[touched].ravel(), squares])
        rows = np.concatenate([self._rows[touched].ravel(), rows])
        order = np.lexsort((rows, squares, i))
        rank = _rank(i[order])
        kept, rank = order[rank < self._k], rank[rank < self._k]
        self._squares[i[kept], rank], self._rows[i[kept], rank] = squares[kept], rows[kept]
        least = -self._squares[touched, -1] * (self._queries.scale**2 / 2.0) * (1.0 + SLACK)
        self._bound[touched] = np.maximum(self._bound[touched], least)


def _rank(sorted_ids: np.ndarray) -> np.ndarray:
    """Place of each entry among those of its id; ids are sorted."""
    starts = np.flatnonzero(np.r_[True, sorted_ids[1:] != sorted_ids[:-1]]) if len(sorted_ids) else np.empty(0, int)
    return np.arange(len(sorted_ids)) - np.repeat(starts, np.diff(np.r_[starts, len(sorted_ids)]))


def _group_best(values: torch.Tensor, groups: int) -> torch.Tensor:
    """Best value of disjoint groups of columns; each value by itself where there are few."""
    size = values.shape[1] // groups
    if size < 2:
        return values
    return values[:, : groups * size].unflatten(1, (size, groups)).amax(dim=1)
