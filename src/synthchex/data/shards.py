"""Rows on disk: a manifest and Parquet shards, each written whole or not at all. Knows nothing of what a stage
computes.

A stage's folder is
    manifest.json                      what is to be made: stage, recipe, number of rows, rows per shard
    data/train-00003-of-00016.parquet  finished shards; `load_dataset(folder)` reads them
    data/test-high-00000-of-00002.parquet  ... and those of other parts, where a plan has several
    .locks/00003                       held by the process that is making shard 3, freed by the kernel when it dies

Any number of processes may work on one folder, started together or not. A shard is made by one process from a fixed
range of rows, so its bytes depend neither on how many processes there are nor on which of them made it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from synthchex.data.parquet import MAX_ROW_BYTES as MAX_ROW_BYTES
from synthchex.data.parquet import ROW_GROUP_BYTES as ROW_GROUP_BYTES
from synthchex.data.parquet import ROW_GROUP_ROWS as ROW_GROUP_ROWS
from synthchex.data.parquet import Rows as Rows
from synthchex.data.parquet import row_groups as row_groups
from synthchex.data.parquet import whole as whole
from synthchex.data.parquet import write_table as write_table
from synthchex.data.parquet import write_tables as write_tables
from synthchex.data.parquet import write_whole as write_whole
from synthchex.data.parquet import writing as writing
from synthchex.options import Progress

if TYPE_CHECKING:
    import pyarrow
    from datasets import Features

MANIFEST = "manifest.json"
WAIT_S = 0.2


class Shard(NamedTuple):
    """A file of a plan and its row numbers."""

    name: str
    span: range


@dataclass(frozen=True)
class Plan:
    """What a stage is to make: `rows` rows in shards of `shard_rows`, by `recipe` from the input named by `source`.

    `parts` are (prefix of the file names, rows), in row order and in that of their names; none is one part, "train".
    """

    stage: str
    source: str
    rows: int
    shard_rows: int
    recipe: Mapping[str, Any]
    parts: tuple[tuple[str, int], ...] = ()

    @cached_property
    def files(self) -> list[Shard]:
        """Every shard; the last one of a part may be short."""
        found, first = [], 0
        for name, rows in self.parts or (("train", self.rows),):
            count = -(-rows // self.shard_rows)
            for number in range(count):
                start = first + number * self.shard_rows
                span = range(start, min(start + self.shard_rows, first + rows))
                found.append(Shard(shard_name(name, number, count), span))
            first += rows
        return found

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.files)

    def span(self, shard: int) -> range:
        """Row numbers of a shard."""
        return self.files[shard].span

    def path(self, folder: Path, shard: int) -> Path:
        """Where a shard lies."""
        return folder / "data" / self.files[shard].name


def shard_name(part: str, shard: int, shards: int) -> str:
    """Name of a shard, as `load_dataset` knows them."""
    return f"{part}-{shard:05d}-of-{shards:05d}.parquet"


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """Where a shard of a plan with one part lies."""
    return folder / "data" / shard_name("train", shard, shards)


def begin(folder: Path, plan: Plan) -> int:
    """Write the manifest, or check that the one there is the same; return the number of rows already finished.

    Raises:
        ValueError: no rows, or the folder holds a run with another recipe or input; the message names the difference.
        PermissionError: the folder cannot be written.
    """
    if plan.rows == 0:
        raise ValueError(f"{plan.stage} expects at least 1 row, got 0; check the input and its filters")
    manifest = folder / MANIFEST
    wanted = _described(plan)
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / ".locks").mkdir(exist_ok=True)
        if not manifest.exists():
            write_whole(manifest, json.dumps(wanted, indent=2, sort_keys=True).encode() + b"\n")
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise PermissionError(
            f"expected a folder that can be written, got {folder}: {error.strerror}; choose another --out"
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise PermissionError(
                f"expected a folder that can be written, got {folder}: {error.strerror}; choose another --out"
            ) from error
        raise
    return look(folder, plan)


def look(folder: Path, plan: Plan) -> int:
    """Rows of a plan that a folder has finished, 0 where no run was begun; nothing is written.

    Raises:
        ValueError: the folder holds a run with another recipe or input; the message names the difference.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return 0
    found, wanted = json.loads(manifest.read_text()), _described(plan)
    if found != wanted:
        raise ValueError(
            f"{folder} holds another run ({_difference(found, wanted)}); "
            "choose another --out, or delete it to start anew"
        )
    return finished_rows(folder, plan)


def _described(plan: Plan) -> dict[str, Any]:
    """What the manifest of a plan says."""
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(plan), default=str))
    if not plan.parts:
        del wanted["parts"]
    return wanted


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    flat_found, flat_wanted = ({**m, **{f"recipe.{k}": v for k, v in m["recipe"].items()}} for m in (found, wanted))
    keys = sorted(k for k in {*flat_found, *flat_wanted} - {"recipe"} if flat_found.get(k) != flat_wanted.get(k))
    return ", ".join(f"{key}: {flat_found.get(key)!r} there, {flat_wanted.get(key)!r} now" for key in keys)


def finished_rows(folder: Path, plan: Plan) -> int:
    """Rows in finished shards."""
    there = set(os.listdir(folder / "data"))
    return sum(len(shard.span) for shard in plan.files if shard.name in there)


def missing(folder: Path, plan: Plan) -> list[int]:
    """Shards that are not finished."""
    there = set(os.listdir(folder / "data"))
    return [number for number, shard in enumerate(plan.files) if shard.name not in there]


def claim(folder: Path, plan: Plan, among: Sequence[int] | None = None) -> Iterator[int]:
    """Shards that nobody has finished, of all or `among` some, one at a time, until all are; see `claim_paths`."""
    numbers = range(plan.shards) if among is None else among
    return claim_paths({number: plan.path(folder, number) for number in numbers}, folder / ".locks")


def claim_paths(paths: Sequence[Path] | Mapping[int, Path], locks: Path | None = None) -> Iterator[int]:
    """Numbers of the files that are not there yet, one at a time, until all are; each is held until the next is asked
    for. While the last ones are being made elsewhere this waits, and takes over those of a process that died.
    """
    numbered = paths if isinstance(paths, Mapping) else dict(enumerate(paths))
    return claim_together({number: [path] for number, path in numbered.items()}, locks)


def claim_together(paths: Mapping[int, Sequence[Path]], locks: Path | None = None) -> Iterator[int]:
    """`claim_paths` of files that one process makes together; those of them that are there stay as they are."""
    for number, held in _held_paths(paths, locks):
        with held:
            yield number


def _held_paths(paths: Mapping[int, Sequence[Path]], locks: Path | None) -> Iterator[tuple[int, ExitStack]]:
    """`claim_together`, with what holds each; who takes it lets go."""
    elsewhere = True
    while elsewhere:
        elsewhere = False
        for number, together in paths.items():
            if all(path.exists() for path in together):
                continue
            with ExitStack() as stack:
                held = stack.enter_context(_lock((locks or together[0].parent) / f"{number:05d}"))
                # Another process may have finished it between the two looks.
                if held and not all(path.exists() for path in together):
                    yield number, stack.pop_all()
                elsewhere |= not held
        if elsewhere:
            time.sleep(WAIT_S)


def fill(
    folder: Path,
    plan: Plan,
    rows: Callable[[range], Sequence[Mapping[str, Any]]],
    features: Features,
    *,
    unit: str,
    quiet: bool,
) -> None:
    """Make every shard that is missing: `rows` gives the records of a span of row numbers."""
    with Progress(plan.stage, plan.rows, done=finished_rows(folder, plan), unit=unit, quiet=quiet) as progress:
        for shard in claim(folder, plan):
            write_shard(folder, plan, shard, rows(plan.span(shard)), features)
            progress.advance(finished_rows(folder, plan))
        progress.advance(plan.rows)


def fill_behind(
    folder: Path,
    plan: Plan,
    begin_rows: Callable[[range], Callable[[], Sequence[Mapping[str, Any]]]],
    features: Features,
    *,
    unit: str,
    quiet: bool,
) -> None:
    """`fill` with the end of a shard beside the beginning of the next one.

    Args:
        begin_rows: does what must be done one after the other, such as sampling, and returns what a thread does
            meanwhile, such as encoding: that gives the records, which the same thread writes.
    """

    def finish(shard: int, rows: Callable[[], Sequence[Mapping[str, Any]]], held: ExitStack) -> None:
        with held:
            write_shard(folder, plan, shard, rows(), features)

    claimed = _held_paths({number: [plan.path(folder, number)] for number in missing(folder, plan)}, folder / ".locks")
    writing: Future[None] | None = None
    with (
        Progress(plan.stage, plan.rows, done=finished_rows(folder, plan), unit=unit, quiet=quiet) as progress,
        ThreadPoolExecutor(1, thread_name_prefix="synthchex-shards") as pool,
    ):
        for shard, held in claimed:
            with ExitStack() as safe:
                safe.enter_context(held)
                rows = begin_rows(plan.span(shard))
                if writing is not None:
                    writing.result()
                writing = pool.submit(finish, shard, rows, safe.pop_all())
            progress.advance(finished_rows(folder, plan))
        if writing is not None:
            writing.result()
        progress.advance(plan.rows)


def fill_tables(
    folder: Path,
    plan: Plan,
    tables: Callable[[int], Iterable[pyarrow.Table]],
    features: Features,
    *,
    unit: str,
    quiet: bool,
) -> None:
    """`fill` for rows that are in Arrow: `tables` gives those of a shard a few at a time, so no shard is in memory.

    A shard may have fewer rows than its span: who gives the tables says which rows it left out.
    """
    with Progress(plan.stage, plan.rows, done=finished_rows(folder, plan), unit=unit, quiet=quiet) as progress:
        for shard in claim(folder, plan):
            _write_shard(folder, plan, shard, tables(shard), features)
            progress.advance(finished_rows(folder, plan))
        progress.advance(plan.rows)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def write_shard(folder: Path, plan: Plan, shard: int, rows: Sequence[Mapping[str, Any]], features: Features) -> Path:
    """Write one shard whole: temporary file, fsync, rename.

    Raises:
        ValueError: the number of rows is not that of the shard.
        OSError: the disk is full or fails; the message says how many rows are safe. Nothing partial is left.
    """
    import pyarrow as pa

    if len(rows) != len(plan.span(shard)):
        raise ValueError(f"shard {shard} of {plan.stage} expects {len(plan.span(shard))} rows, got {len(rows)}")
    return _write_shard(
        folder, plan, shard, [pa.Table.from_pylist([dict(row) for row in rows], features.arrow_schema)], features
    )


def _write_shard(folder: Path, plan: Plan, shard: int, tables: Iterable[pyarrow.Table], features: Features) -> Path:
    path = plan.path(folder, shard)
    with explained(folder, plan, path), opened(path, features) as write:
        for table in tables:
            write(table)
    return path


@contextmanager
def opened(path: Path, features: Features) -> Iterator[Callable[[pyarrow.Table], None]]:
    """`writing` a shard, without what processes that died have left of it."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink()
    with writing(path, features.arrow_schema) as write:
        yield write


@contextmanager
def explained(folder: Path, plan: Plan, path: Path) -> Iterator[None]:
    """Errors of the disk while `path` is written say how many rows are safe and what to do."""
    try:
        yield
    except OSError as error:
        safe = finished_rows(folder, plan)
        hint = (
            "free some space and run the same command again"
            if error.errno == errno.ENOSPC
            else "mend the cause and run the same command again"
        )
        raise OSError(
            error.errno, f"{error.strerror} while writing {path}; {safe} of {plan.rows} rows are safe, {hint}"
        ) from error


def parquet_files(folder: Path) -> list[Path]:
    """Finished shards of a folder, in row order.

    Raises:
        ValueError: shards are missing, or there are none.
    """
    files = sorted((folder / "data").glob("*.parquet")) or sorted(folder.glob("*.parquet"))
    manifest = folder / MANIFEST
    if manifest.exists():
        found = json.loads(manifest.read_text())
        parts = [rows for _, rows in found.get("parts") or [("train", found["rows"])]]
        expected = sum(-(-rows // found["shard_rows"]) for rows in parts)
        if len(files) != expected:
            raise ValueError(
                f"{folder} is not finished: {len(files)} of {expected} "
                f"shards are there; run the {found['stage']} command again"
            )
    if not files:
        raise ValueError(f"expected Parquet shards in {folder}, found none")
    return files
