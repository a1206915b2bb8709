"""Shards whose rows lie among each other in the source, made from one reading of it.

A split or a quality is spread over the whole source. Shards that begin in the same stretch of it are a section: one
process reads the stretch once and hands each row to the file that it belongs to. What a file holds does not depend on
the others of its section, so those that an interrupted run has finished are left as they are and nothing is read for
them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from synthchex.ahead import one_ahead
from synthchex.data import shards
from synthchex.data.feeds import Batch, Feed, Lost
from synthchex.options import Progress

if TYPE_CHECKING:
    import pyarrow
    from datasets import Features

Note = Callable[[int, Sequence[Lost]], None]


class _Piece(NamedTuple):
    """Rows of one shard: those that could be read, and those that could not."""

    shard: int
    table: pyarrow.Table
    lost: list[Lost]


class _Open(NamedTuple):
    """A shard that is being written."""

    held: ExitStack
    write: Callable[[pyarrow.Table], None]
    lost: list[Lost]


def arrange(plan: shards.Plan, rows: np.ndarray, *, scanned: bool) -> list[list[int]]:
    """Shards that are made together, in the order of the source.

    A stretch is as long as the shard that reaches farthest. So a row is read once, or twice where a shard goes on
    behind its stretch, however many parts there are; where all rows are in one part, each shard is made alone.

    Args:
        plan: the shards.
        rows: row of the source of every row of the plan, int (N,), ascending within a shard.
        scanned: see `Feed`; if not, each shard is made alone.
    """
    if not scanned:
        return [[shard] for shard in range(plan.shards)]
    first = rows[[shard.span[0] for shard in plan.files]]
    length = 1 + int((rows[[shard.span[-1] for shard in plan.files]] - first).max())
    found: dict[int, list[int]] = {}
    for shard in np.argsort(first, kind="stable").tolist():
        found.setdefault(int(first[shard]) // length, []).append(shard)
    return list(found.values())


def fill(
    folder: Path,
    plan: shards.Plan,
    feed: Feed,
    rows: np.ndarray,
    columns: Sequence[str],
    features: Features,
    note: Note,
    *,
    quiet: bool,
) -> None:
    """Make every shard that is missing.

    Args:
        folder: of the plan, which is begun.
        plan: the shards.
        feed: the source.
        rows: row of the source of every row of the plan, int (N,).
        columns: beyond those of a record.
        features: types of all columns.
        note: told of each shard which rows it lacks, before the shard is there.
        quiet: no progress on stderr.
    """
    sections = arrange(plan, rows, scanned=feed.scanned)
    paths = {number: [plan.path(folder, shard) for shard in section] for number, section in enumerate(sections)}
    done = shards.finished_rows(folder, plan)
    with Progress(plan.stage, plan.rows, done=done, unit="films", quiet=quiet) as progress:
        for number in shards.claim_together(paths, folder / ".locks"):
            todo = [shard for shard in sections[number] if not plan.path(folder, shard).exists()]
            source = np.concatenate([rows[plan.span(shard)] for shard in todo])
            owner = np.repeat(todo, [len(plan.span(shard)) for shard in todo])
            order = np.argsort(source)
            pieces = _pieces(one_ahead(feed.films(source[order], columns)), source[order], owner[order])
            with shards.explained(folder, plan, folder / "data"):
                for _ in _written(folder, plan, pieces, features, note):
                    progress.advance(shards.finished_rows(folder, plan))
        progress.advance(plan.rows)


def _pieces(batches: Iterator[Batch], rows: np.ndarray, owner: np.ndarray) -> Iterator[_Piece]:
    """Rows of batches by the shard that they belong to; `owner` is that of each of the `rows` that were asked for."""
    first = 0
    for batch in batches:
        here = slice(first, first + len(batch.table) + len(batch.lost))
        first = here.stop
        lost = {one.row: one for one in batch.lost}
        gone = np.isin(rows[here], np.array(list(lost), rows.dtype))
        read = owner[here][~gone]
        for shard in sorted(set(owner[here].tolist())):
            mine = np.flatnonzero(read == shard)
            table = batch.table if len(mine) == len(read) else batch.table.take(mine)
            yield _Piece(shard, table, [lost[row] for row in rows[here][gone & (owner[here] == shard)].tolist()])


def _written(
    folder: Path, plan: shards.Plan, pieces: Iterator[_Piece], features: Features, note: Note
) -> Iterator[int]:
    """Write the shards of a section side by side; each when it is there."""
    left = dict[int, int]()
    opened = dict[int, _Open]()
    with ExitStack() as files:
        for shard, table, lost in pieces:
            if shard not in opened:
                held = files.enter_context(ExitStack())
                write = held.enter_context(shards.opened(plan.path(folder, shard), features))
                opened[shard], left[shard] = _Open(held, write, []), len(plan.span(shard))
            opened[shard].write(table)
            opened[shard].lost.extend(lost)
            left[shard] -= len(table) + len(lost)
            if not left[shard]:
                done = opened.pop(shard)
                note(shard, done.lost)
                done.held.close()
                yield shard
