"""Films of any source as Arrow tables, a few at a time: what is known of them in one pass, their bytes when asked for.

Shards of our own record go from file to file without becoming Python objects, and films that are encoded already are
not decoded. Nothing is held but what the caller keeps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.ahead import default_workers, in_order
from synthchex.data import images, records, shards, sources, tables

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 100
FACT_ROWS = 5_000
# How files begin that every reader of `datasets` and every browser knows.
SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff"}
RECORD = ("image", "filename", "prompt", "labels_dict")


class Lost(NamedTuple):
    """A row whose film cannot be read: its number in the source, its name, and why (a slug)."""

    row: int
    name: str
    reason: str


class Batch(NamedTuple):
    """Rows with their films, and those that were left out."""

    table: pyarrow.Table
    lost: list[Lost]


@dataclass(frozen=True)
class Feed:
    """A source of films.

    `facts(columns)` gives these columns of all rows, in order; `films(rows, columns)` gives chosen rows (ascending) as
    the four columns of a record and the further `columns`. `columns` are those that can be asked for. `notes` counts
    what was done while opening. `scanned`: films lie in row groups, so one of them is read with those around it.
    """

    source: str
    count: int
    fingerprint: str
    columns: Sequence[str]
    facts: Callable[[Sequence[str]], Iterator[pyarrow.Table]]
    films: Callable[[np.ndarray, Sequence[str]], Iterator[Batch]]
    notes: Mapping[str, int]
    scanned: bool = False


def open_feed(
    source: str | Path, *, columns: Mapping[str, str] | None = None, image_dir: str | Path | None = None
) -> Feed:
    """Open what `sources.open_images` opens; shards of our own record are never read whole.

    Raises:
        ValueError: nothing readable there, no films, no prompts.
    """
    path = Path(source)
    if path.is_dir() and tables.is_dataset_folder(path) and not columns and is_record(path):
        return from_shards(path)
    return from_set(sources.open_images(source, columns=columns, image_dir=image_dir, missing="count", whole=True))


def from_shards(folder: Path, files: Sequence[Path] | None = None) -> Feed:
    """Shards whose columns are those of a record: all of a folder, or some of its files."""
    import pyarrow.parquet as pq

    files = shards.parquet_files(folder) if files is None else files
    sizes = [(path.name, path.stat().st_size) for path in files]
    manifest = folder / shards.MANIFEST
    counts = [pq.ParquetFile(path).metadata.num_rows for path in files]
    # Sizes tell a cut file, the manifest tells what was made; a set without one is told by its times.
    state: Any = manifest.read_text() if manifest.exists() else [path.stat().st_mtime_ns for path in files]
    return Feed(
        source=str(folder),
        count=sum(counts),
        fingerprint=records.fingerprint([sizes, state]),
        columns=pq.read_schema(files[0]).names,
        facts=partial(_shard_facts, files),
        films=partial(_shard_films, files, np.cumsum([0, *counts])),
        notes={},
        scanned=True,
    )


def from_set(films: sources.ImageSet) -> Feed:
    """Any other set, whose names and texts are in memory."""
    known = {**films.provenance, "patient": films.patients, "view": films.views}
    extras = [name for name, values in known.items() if values is not None]
    given = [] if films.prompts is None else ["prompt"]
    return Feed(
        source=films.source,
        count=len(films),
        fingerprint=films.fingerprint(),
        columns=["id", "image", "filename", *given, "labels_dict", *extras],
        facts=partial(_set_facts, films),
        films=partial(_set_films, films),
        notes=films.notes,
    )


def from_rows(
    source: str,
    count: int,
    fingerprint: str,
    columns: Sequence[str],
    record: Callable[[int], dict[str, Any]],
    film: Callable[[int], Any],
    notes: Mapping[str, int],
) -> Feed:
    """Rows that are made one at a time.

    Args:
        source: what to call it.
        count: number of rows.
        fingerprint: of the content.
        columns: that `record` has beyond `filename`.
        record: of a row, without its image.
        film: of a row, what `stored` takes; called by threads.
        notes: what was done while opening, counts of 0 left out.
    """
    import pyarrow as pa

    def facts(names: Sequence[str]) -> Iterator[pyarrow.Table]:
        types = schema([name for name in names if name not in RECORD])
        chosen = pa.schema([types.field(name) for name in names])
        for first in range(0, count, FACT_ROWS):
            yield pa.Table.from_pylist([record(row) for row in range(first, min(first + FACT_ROWS, count))], chosen)

    def films(rows: np.ndarray, names: Sequence[str]) -> Iterator[Batch]:
        # The film is fetched where it is checked, as a damaged one is known only then.
        yield from batches(rows, lambda row: (record(row), row), schema(names), read=lambda row: stored(film(row)))

    seen = {note: number for note, number in notes.items() if number}
    return Feed(source, count, fingerprint, ["image", "filename", *columns], facts, films, seen)


def stored(source: Any) -> tuple[bytes, str]:
    """A film as it is stored, and its suffix: PNG and JPEG as they are, anything else as PNG of what would be read.

    Raises:
        UnreadableImage: missing, empty, or not an image.
    """
    if isinstance(source, dict):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if source is None or isinstance(source, (str, Path, bytes, bytearray, memoryview)):
        content = images.read_bytes(source)
        for suffix, signature in SIGNATURES.items():
            if content.startswith(signature):
                return content, suffix
        source = source if isinstance(source, (str, Path)) else content
    return images.to_png(images.read(source).pixels), ".png"


def batches(
    rows: np.ndarray,
    record: Callable[[int], tuple[dict[str, Any], Any]],
    schema: pyarrow.Schema,
    *,
    read: Callable[[Any], tuple[bytes, str]] = stored,
) -> Iterator[Batch]:
    """Rows of any kind as batches, their films read by threads.

    Args:
        rows: numbers of the rows.
        record: row number to a record without its image, and what `read` reads its film from.
        schema: of the tables.
        read: the film's bytes and suffix, or `UnreadableImage`.
    """
    import pyarrow as pa

    def made(place: int) -> dict[str, Any] | Lost:
        row, film = record(int(rows[place]))
        try:
            content, suffix = read(film)
        except images.UnreadableImage as error:
            return Lost(int(rows[place]), str(row["filename"]), error.reason)
        row["filename"] = tables.film_stem(row["filename"]) + suffix
        return {**row, "image": {"bytes": content, "path": row["filename"]}}

    kept: list[dict[str, Any]] = []
    lost: list[Lost] = []
    for one in in_order(made, len(rows), num_workers=default_workers(), ahead=16):
        (lost if isinstance(one, Lost) else kept).append(one)  # type: ignore[arg-type]
        if len(kept) + len(lost) == BATCH_ROWS:
            yield Batch(pa.Table.from_pylist(kept, schema), lost)
            kept, lost = [], []
    if kept or lost:
        yield Batch(pa.Table.from_pylist(kept, schema), lost)


def schema(columns: Sequence[str]) -> pyarrow.Schema:
    """Arrow schema of a record with further columns, which are text unless they are known."""
    from datasets import Features, Value

    known = {**records.PROVENANCE_COLUMNS, **records.VERDICT_COLUMNS}
    extras = {name: Value(known.get(name, "string")) for name in columns}
    return Features({**records.features(provenance=False), **extras}).arrow_schema


def is_record(folder: Path) -> bool:
    """Whether a folder holds shards that have a film as bytes, a prompt and the 14 labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        return False
    found = pq.read_schema(shards.parquet_files(folder)[0])
    wanted = schema(())
    names = {"filename", "id"} & set(found.names)
    same = all(name in found.names and found.field(name).type == wanted.field(name).type for name in RECORD[2:])
    return bool(names) and same and "image" in found.names and pa.types.is_struct(found.field("image").type)


def _shard_facts(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pyarrow.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(FACT_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _shard_films(
    files: Sequence[Path], starts: np.ndarray, rows: np.ndarray, columns: Sequence[str]
) -> Iterator[Batch]:
    """Chosen rows, row group by row group; files and groups without any are not opened.

    `starts` are the numbers of each file's first row, and of all rows.
    """
    import pyarrow.parquet as pq

    wanted, ends = schema(columns), np.searchsorted(rows, starts)
    for place in map(int, np.flatnonzero(np.diff(ends))):
        with pq.ParquetFile(files[place]) as file:
            names = [name for name in dict.fromkeys((*RECORD, "id", *columns)) if name in file.schema_arrow.names]
            first = int(starts[place])
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, [first, first + count])
                if low < high:
                    for inside, chosen in _inside(file, group, names, rows[low:high] - first):
                        yield _checked(chosen, inside + first, wanted)
                first += count


def _inside(file: Any, group: int, names: list[str], rows: np.ndarray) -> Iterator[tuple[np.ndarray, pyarrow.Table]]:
    """Chosen rows of a row group, at most `BATCH_ROWS` at a time, and their numbers in the group."""
    import pyarrow as pa

    first = 0
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=names):
        low, high = np.searchsorted(rows, [first, first + len(batch)])
        if low < high:
            chosen = pa.Table.from_batches([batch])
            here = rows[low:high]
            yield here, chosen if len(here) == len(batch) else chosen.take(here - first)
        first += len(batch)


def _checked(table: pyarrow.Table, rows: np.ndarray, wanted: pyarrow.Schema) -> Batch:
    """Rows of shards as they are written: films that are no PNG or JPEG are read and encoded, empty ones left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "filename" not in table.column_names:
        table = table.append_column("filename", [f"{name.replace('/', '_')}.png" for name in table["id"].to_pylist()])
    for name in set(wanted.names) - set(table.column_names):
        table = table.append_column(name, pa.nulls(len(table), wanted.field(name).type))
    table = table.select(wanted.names)
    content = pc.struct_field(table["image"], "bytes")
    known = pc.fill_null(pc.starts_with(content, SIGNATURES[".png"]), False)
    names = pc.fill_null(pc.ends_with(table["filename"], ".png"), False)
    if pc.all(pc.and_(known, names)).as_py() is not False:
        return Batch(table.cast(wanted), [])
    found = table.to_pylist()
    made = list(batches(np.arange(len(found)), lambda place: (found[place], found[place]["image"]), wanted))
    lost = [lost._replace(row=int(rows[lost.row])) for batch in made for lost in batch.lost]
    return Batch(pa.concat_tables([batch.table for batch in made]), lost)


def _set_facts(films: sources.ImageSet, columns: Sequence[str]) -> Iterator[pyarrow.Table]:
    import pyarrow as pa

    wanted = [name for name in columns if name not in ("patient", "view")]
    others = {"patient": films.patients, "view": films.views}
    types = schema([name for name in columns if name not in RECORD])
    for first in range(0, len(films), FACT_ROWS):
        numbers = range(first, min(first + FACT_ROWS, len(films)))
        rows = [films.row(index) for index in numbers]
        found = {name: pa.array([row[name] for row in rows], types.field(name).type) for name in wanted}
        for name in set(columns) - set(wanted):
            found[name] = pa.array([(others[name] or [])[index] for index in numbers], pa.string())
        yield pa.table({name: found[name] for name in columns})


def _set_films(films: sources.ImageSet, rows: np.ndarray, columns: Sequence[str]) -> Iterator[Batch]:
    def record(index: int) -> tuple[dict[str, Any], Any]:
        row = films.row(index)
        return {name: row.get(name) for name in (*RECORD[1:], *columns)}, films.fetch(index)

    yield from batches(rows, record, schema(columns))


def lost_lines(lost: Sequence[Lost]) -> str:
    """Rows that were left out, as JSON."""
    return json.dumps([one._asdict() for one in lost])
