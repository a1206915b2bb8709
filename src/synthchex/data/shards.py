"""Rows on disk: a manifest and Parquet shards, each written whole or not at all. Knows nothing of what a stage
computes.

A stage's folder is
    manifest.json                      what is to be made: stage, recipe, number of rows, rows per shard
    data/train-00003-of-00016.parquet  finished shards; `load_dataset(folder)` reads them
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthchex.options import Progress

if TYPE_CHECKING:
    import pyarrow
    from datasets import Features

MANIFEST = "manifest.json"
ROW_GROUP_ROWS = 100
WAIT_S = 0.2


@dataclass(frozen=True)
class Plan:
    """What a stage is to make: `rows` rows in shards of `shard_rows`, by `recipe` from the input named by `source`."""

    stage: str
    source: str
    rows: int
    shard_rows: int
    recipe: Mapping[str, Any]

    @property
    def shards(self) -> int:
        """Number of shards; the last may be short."""
        return -(-self.rows // self.shard_rows)

    def span(self, shard: int) -> range:
        """Row numbers of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """Where a shard lies, in the naming that `load_dataset` knows."""
    return folder / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet"


def begin(folder: Path, plan: Plan) -> int:
    """Write the manifest, or check that the one there is the same; return the number of rows already finished.

    Raises:
        ValueError: no rows, or the folder holds a run with another recipe or input; the message names the difference.
        PermissionError: the folder cannot be written.
    """
    if plan.rows == 0:
        raise ValueError(f"{plan.stage} expects at least 1 row, got 0; check the input and its filters")
    manifest = folder / MANIFEST
    wanted = json.loads(json.dumps(asdict(plan), default=str))
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
    found = json.loads(manifest.read_text())
    if found != wanted:
        raise ValueError(
            f"{folder} holds another run ({_difference(found, wanted)}); "
            "choose another --out, or delete it to start anew"
        )
    return finished_rows(folder, plan)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    flat_found, flat_wanted = ({**m, **{f"recipe.{k}": v for k, v in m["recipe"].items()}} for m in (found, wanted))
    keys = sorted(k for k in {*flat_found, *flat_wanted} - {"recipe"} if flat_found.get(k) != flat_wanted.get(k))
    return ", ".join(f"{key}: {flat_found.get(key)!r} there, {flat_wanted.get(key)!r} now" for key in keys)


def finished_rows(folder: Path, plan: Plan) -> int:
    """Rows in finished shards."""
    there = set(os.listdir(folder / "data"))
    return sum(len(plan.span(s)) for s in range(plan.shards) if shard_path(folder, s, plan.shards).name in there)


def claim(folder: Path, plan: Plan) -> Iterator[int]:
    """Shards that nobody has finished, one at a time, until all are; see `claim_paths`."""
    return claim_paths([shard_path(folder, shard, plan.shards) for shard in range(plan.shards)], folder / ".locks")


def claim_paths(paths: Sequence[Path], locks: Path | None = None) -> Iterator[int]:
    """Numbers of the files that are not there yet, one at a time, until all are; each is held until the next is asked
    for. While the last ones are being made elsewhere this waits, and takes over those of a process that died.
    """
    elsewhere = True
    while elsewhere:
        elsewhere = False
        for number, path in enumerate(paths):
            if path.exists():
                continue
            with _lock((locks or path.parent) / f"{number:05d}") as held:
                # Another process may have finished it between the two looks.
                if held and not path.exists():
                    yield number
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
    path = shard_path(folder, shard, plan.shards)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink()
    try:
        write_table(path, pa.Table.from_pylist([dict(row) for row in rows], schema=features.arrow_schema))
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
    return path


def write_table(path: Path, table: pyarrow.Table) -> None:
    """One Parquet file, whole or not at all; row groups are short so that viewers can page through images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROW_GROUP_ROWS)
    write_whole(path, sink.getvalue().to_pybytes())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a machine that dies, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def parquet_files(folder: Path) -> list[Path]:
    """Finished shards of a folder, in row order.

    Raises:
        ValueError: shards are missing, or there are none.
    """
    files = sorted((folder / "data").glob("*.parquet")) or sorted(folder.glob("*.parquet"))
    manifest = folder / MANIFEST
    if manifest.exists():
        found = json.loads(manifest.read_text())
        expected = -(-found["rows"] // found["shard_rows"])
        if len(files) != expected:
            raise ValueError(
                f"{folder} is not finished: {len(files)} of {expected} "
                f"shards are there; run the {found['stage']} command again"
            )
    if not files:
        raise ValueError(f"expected Parquet shards in {folder}, found none")
    return files


class Rows:
    """Rows of Parquet files by number, read a row group at a time; only the columns asked for are in memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self.files = list(files)
        self.starts: list[tuple[int, int, int]] = []
        count = 0
        for number, path in enumerate(self.files):
            meta = pq.ParquetFile(path).metadata
            for group in range(meta.num_row_groups):
                self.starts.append((count, number, group))
                count += meta.row_group(group).num_rows
        self.count = count
        self.columns: list[str] = pq.ParquetFile(self.files[0]).schema_arrow.names
        self._group = lru_cache(maxsize=2)(self._read_group)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        import bisect

        if not 0 <= index < self.count:
            raise IndexError(index)
        place = bisect.bisect_right(self.starts, (index, len(self.files), 0)) - 1
        start, number, group = self.starts[place]
        return self._group(number, group).slice(index - start, 1).to_pylist()[0]

    def _read_group(self, number: int, group: int) -> pyarrow.Table:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.files[number]).read_row_group(group)

    def column(self, name: str) -> list[Any]:
        """One whole column, without the images beside it."""
        import pyarrow.parquet as pq

        return [value for path in self.files for value in pq.read_table(path, columns=[name]).column(name).to_pylist()]
