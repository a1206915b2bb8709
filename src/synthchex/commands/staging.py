"""A dataset made ready to leave, in a folder beside it that only its owner can open.

    secret        random key of the opaque names, made once; who has it could tell which film was which
    names.csv     opaque name, name in the dataset: stays here
    staged.json   what the shards were made from
    data/...      shards as they will be uploaded

Run again after an interruption, it makes what is missing; made from the same rows and terms it is the same bytes.
Processes that stage the same dataset at the same time share its shards. Memory is bounded by `HELD`, not by a shard.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from synthchex.ahead import in_order
from synthchex.data import parquet, records, shards
from synthchex.gate.release import Terms, features, namer, release
from synthchex.options import Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

VERSION = 2  # of what a staged shard is, so that older ones are made anew
SECRET, NAMES, STATE = "secret", "names.csv", "staged.json"
HELD = 2**27  # bytes of films in memory at once

ByRay = Callable[[Sequence[int], Callable[[], Callable[[int], None]]], Iterable[int]]


@dataclass(frozen=True)
class Staged:
    """Files to upload by their path in the repository, their rows, and the types of their columns."""

    files: Mapping[str, Path]
    rows: int
    features: Features


class Ready(NamedTuple):
    """All that a staged shard is made from: its rows, numbered over all files, by shard, and what a row leaves as."""

    staged: Staged
    rows: Sequence[Sequence[int]]
    film: Callable[[int], dict[str, Any]]
    mixed: bool
    locks: Path
    num_workers: int


def stage(
    dataset: Path,
    folder: Path,
    terms: Terms,
    dropped: Sequence[int],
    *,
    quiet: bool,
    num_workers: int = 0,
    by_ray: ByRay | None = None,
) -> Staged:
    """Write the shards that may leave.

    Args:
        dataset: folder of Parquet shards.
        folder: private folder to write in.
        terms: what the source allows. The films of a source that is not open change places within a shard, as the
            order of a list of reports would tell which was which.
        dropped: rows that stay behind, numbered over the files.
        quiet: no progress on stderr.
        num_workers: threads that clean films.
        by_ray: makes the shards of some numbers elsewhere; see `engines.finished`. None makes them here.

    Raises:
        ValueError: no row is left.
        PermissionError: the folder cannot be written, or was not made by this.
    """
    ready = prepare(dataset, folder, terms, dropped, num_workers)
    sizes = [len(kept) for kept in ready.rows]
    paths = list(ready.staged.files.values())
    make = partial(maker, dataset.absolute(), folder.absolute(), terms, dropped, num_workers)
    left = [number for number, path in enumerate(paths) if not path.exists()]
    numbers = by_ray(left, make) if by_ray else _made(ready)
    with Progress("stage", sum(sizes), quiet=quiet, unit="films") as progress:
        for _ in numbers:
            progress.advance(sum(size for size, path in zip(sizes, paths, strict=True) if path.exists()))
    return ready.staged


def maker(dataset: Path, folder: Path, terms: Terms, dropped: Sequence[int], num_workers: int) -> Callable[[int], None]:
    """What makes the staged shard of a number, unless it is there or until another process has made it."""
    ready = prepare(dataset, folder, terms, dropped, num_workers)

    def make(number: int) -> None:
        for _ in _made(ready, among=(number,)):
            pass

    return make


def prepare(dataset: Path, folder: Path, terms: Terms, dropped: Sequence[int], num_workers: int) -> Ready:
    """All but the shards: key, names, types, and which rows go where; what was staged from the same is kept."""
    import pyarrow.parquet as pq
    from datasets import Features

    sources = shards.parquet_files(dataset)
    rows, left = shards.Rows(sources), set(dropped)
    if len(left) >= len(rows):
        raise ValueError(f"expected rows to publish, got {len(rows)} rows of which {len(left)} are left out")
    key = private_key(folder)
    opaque = names(rows, key)
    allowed = features(Features.from_arrow_schema(pq.read_schema(sources[0])), terms)
    state = [VERSION, asdict(terms), sorted(left), records.fingerprint(key.hex())]
    state += [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sources]
    locks = _begin(folder, records.fingerprint(state))
    _write(folder / NAMES, _csv(opaque, rows))
    places = {path.relative_to(dataset).as_posix(): kept for path, kept in _kept(sources, left) if kept}
    staged = Staged({name: folder / name for name in places}, len(rows) - len(left), allowed)

    def film(row: int) -> dict[str, Any]:
        released = release(rows[row], opaque[row], terms)
        # A film that cannot be read cannot be cleaned, so it stays here whatever was allowed.
        return released.row if released.lost is None else {**released.row, "image": None}

    return Ready(staged, list(places.values()), film, terms.policy != "open", locks, num_workers)


def _made(ready: Ready, among: Sequence[int] | None = None) -> Iterator[int]:
    """Make the shards that are not there, of all or `among` some; the number of each as it is made."""
    allowed, paths = ready.staged.features, list(ready.staged.files.values())
    for number in shards.claim_paths(
        {n: paths[n] for n in (range(len(paths)) if among is None else among)}, ready.locks
    ):
        kept = ready.rows[number]
        released = in_order(
            lambda place, kept=kept: ready.film(kept[place]),  # type: ignore[misc]
            len(kept),
            num_workers=ready.num_workers,
            ahead=4 * ready.num_workers,
        )
        for leftover in paths[number].parent.glob(f".{paths[number].name}.*.tmp"):
            leftover.unlink()
        tables = _tables(_mixed(released, mix=ready.mixed), allowed)
        parquet.write_tables(paths[number], tables, allowed.arrow_schema)
        yield number


def _kept(sources: Sequence[Path], left: set[int]) -> Iterator[tuple[Path, list[int]]]:
    """Each file, and the rows of it that leave, numbered over all files."""
    import pyarrow.parquet as pq

    first = 0
    for path in sources:
        count = pq.ParquetFile(path).metadata.num_rows
        yield path, [row for row in range(first, first + count) if row not in left]
        first += count


def private_key(folder: Path) -> bytes:
    """The secret of a folder, made with the folder; both are its owner's only.

    Raises:
        PermissionError: it cannot be written, or holds files of somebody else, which staging would throw away.
    """
    path = folder / SECRET
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        foreign = not path.exists() and any(not held.name.startswith(".") for held in folder.iterdir())
        if not foreign:
            _write(path, secrets.token_hex(32).encode(), anew=False)
            folder.chmod(0o700)
            return path.read_bytes()
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise PermissionError(
            f"expected a private folder that can be written, got {folder}: {error.strerror}; choose another --work-dir"
        ) from error
    raise PermissionError(
        f"expected an empty folder, or one that publish made, got {folder}; choose another --work-dir"
    )


def names(rows: shards.Rows, key: bytes) -> list[str]:
    """Opaque name of every row: of its file name where it has one, else of its number."""
    opaque = namer(key)
    given = rows.column("filename") if "filename" in rows.columns else [None] * len(rows)
    return [opaque(str(name or number)) for number, name in enumerate(given)]


def _begin(folder: Path, state: str) -> Path:
    """Keep staged shards that were made from the same, throw away others; the folder of their locks."""
    locks, path = folder / ".locks", folder / STATE
    locks.mkdir(mode=0o700, exist_ok=True)
    with open(locks / "begin", "w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not path.exists() or json.loads(path.read_text()) != state:
            path.unlink(missing_ok=True)
            shutil.rmtree(folder / "data", ignore_errors=True)
            for leftover in folder.glob("*.parquet"):
                leftover.unlink()
            (folder / "data").mkdir(mode=0o700)
            shards.write_whole(path, json.dumps(state).encode())
    return locks


def _mixed(rows: Iterable[dict[str, Any]], *, mix: bool) -> Iterator[dict[str, Any]]:
    """Rows in the order of their random names, as many at a time as memory allows; or as they come."""
    held, size = list[dict[str, Any]](), 0
    for row in rows:
        if not mix:
            yield row
            continue
        held.append(row)
        size += len((row["image"] or {"bytes": b""})["bytes"])
        if size > HELD:
            yield from sorted(held, key=_name)
            held, size = [], 0
    yield from sorted(held, key=_name)


def _name(row: Mapping[str, Any]) -> str:
    return str(row["filename"])


def _tables(rows: Iterator[dict[str, Any]], allowed: Features) -> Iterator[pa.Table]:
    """Rows as tables of a row group each."""
    import pyarrow as pa

    while group := list(islice(rows, parquet.ROW_GROUP_ROWS)):
        yield pa.Table.from_pylist(group, schema=allowed.arrow_schema)


def _csv(opaque: Sequence[str], rows: shards.Rows) -> bytes:
    text = io.StringIO()
    given = rows.column("filename") if "filename" in rows.columns else range(len(rows))
    csv.writer(text).writerows([("published", "here"), *zip(opaque, given, strict=True)])
    return text.getvalue().encode()


def _write(path: Path, content: bytes, *, anew: bool = True) -> None:
    """Write a file that only its owner can read, from its first moment on; not `anew`: unless it is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    if anew:
        os.replace(temporary, path)
        return
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
