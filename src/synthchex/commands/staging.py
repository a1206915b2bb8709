"""A dataset made ready to leave, in a folder beside it that only its owner can open.

    secret        random key of the opaque names, made once; who has it could tell which film was which
    names.csv     opaque name, name in the dataset: stays here
    staged.json   what the shards were made from
    data/...      shards as they will be uploaded

Run again after an interruption, it makes what is missing; made from the same rows and terms it is the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthchex.data import records, shards
from synthchex.gate.release import Terms, features, namer, release
from synthchex.options import Progress

if TYPE_CHECKING:
    from datasets import Features

VERSION = 1  # of what a staged shard is, so that older ones are made anew
SECRET, NAMES, STATE = "secret", "names.csv", "staged.json"


@dataclass(frozen=True)
class Staged:
    """Files to upload by their path in the repository, their rows, and the types of their columns."""

    files: Mapping[str, Path]
    rows: int
    features: Features


def stage(dataset: Path, folder: Path, terms: Terms, dropped: Sequence[int], *, quiet: bool) -> Staged:
    """Write the shards that may leave.

    Args:
        dataset: folder of Parquet shards.
        folder: private folder to write in.
        terms: what the source allows.
        dropped: rows that stay behind, numbered over the files.
        quiet: no progress on stderr.

    Raises:
        ValueError: no row is left.
        PermissionError: the folder cannot be written.
    """
    import pyarrow.parquet as pq
    from datasets import Features

    sources = shards.parquet_files(dataset)
    rows = shards.Rows(sources)
    if len(set(dropped)) >= len(rows):
        raise ValueError(f"expected rows to publish, got {len(rows)} rows of which {len(set(dropped))} are left out")
    key = private_key(folder)
    opaque = names(rows, key)
    allowed = features(Features.from_arrow_schema(pq.read_schema(sources[0])), terms)
    state = [VERSION, asdict(terms), sorted(dropped), records.fingerprint(key.hex())]
    state += [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sources]
    _begin(folder, records.fingerprint(state))
    _write(folder / NAMES, _csv(opaque, rows))
    staged, left, first = dict[str, Path](), set(dropped), 0
    with Progress("stage", len(rows), quiet=quiet, unit="films") as progress:
        for path in sources:
            target = folder / path.relative_to(dataset)
            count = pq.ParquetFile(path).metadata.num_rows
            kept = [row for row in range(first, first + count) if row not in left]
            if kept and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _stage_shard(rows, kept, opaque, terms, allowed, target)
            staged |= {path.relative_to(dataset).as_posix(): target} if kept else {}
            first += count
            progress.advance(first)
    return Staged(staged, len(rows) - len(left), allowed)


def private_key(folder: Path) -> bytes:
    """The secret of a folder, made with the folder; both are its owner's only."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        path = folder / SECRET
        if not path.exists():
            _write(path, secrets.token_hex(32).encode())
        return path.read_bytes()
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise PermissionError(
            f"expected a private folder that can be written, got {folder}: {error.strerror}; choose another --work-dir"
        ) from error


def names(rows: shards.Rows, key: bytes) -> list[str]:
    """Opaque name of every row: of its file name where it has one, else of its number."""
    opaque = namer(key)
    given = rows.column("filename") if "filename" in rows.columns else [None] * len(rows)
    return [opaque(str(name or number)) for number, name in enumerate(given)]


def _begin(folder: Path, state: str) -> None:
    """Keep staged shards that were made from the same, throw away others."""
    path = folder / STATE
    if not path.exists() or json.loads(path.read_text()) != state:
        path.unlink(missing_ok=True)
        shutil.rmtree(folder / "data", ignore_errors=True)
        for leftover in folder.glob("*.parquet"):
            leftover.unlink()
        shards.write_whole(path, json.dumps(state).encode())


def _stage_shard(
    rows: shards.Rows, kept: Sequence[int], opaque: Sequence[str], terms: Terms, allowed: Features, target: Path
) -> None:
    import pyarrow as pa

    made: list[dict[str, Any]] = []
    for row in kept:
        released = release(rows[row], opaque[row], terms)
        # A film that cannot be read cannot be cleaned, so it stays here whatever was allowed.
        made.append(released.row if released.lost is None else {**released.row, "image": None})
    shards.write_table(target, pa.Table.from_pylist(made, schema=allowed.arrow_schema))


def _csv(opaque: Sequence[str], rows: shards.Rows) -> bytes:
    text = io.StringIO()
    given = rows.column("filename") if "filename" in rows.columns else range(len(rows))
    csv.writer(text).writerows([("published", "here"), *zip(opaque, given, strict=True)])
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
