"""Parquet files whose films are nested lists of numbers (`Array2D`, `Array3D`, `List`), as feeds of films.

A few rows are read at a time: one film of 1024 x 1024 x 3 bytes takes more than twice that as nested lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import feeds, images, records, shards, tables

if TYPE_CHECKING:
    import pyarrow

ROWS = 8
BUFFER = 1 << 20
NAMES = ("filename", "image_filename", "file_name")


def open_pixels(folder: Path, columns: Mapping[str, str] | None = None) -> feeds.Feed | None:
    """A feed of Parquet files with films as nested lists; None where their films are something else.

    Raises:
        ValueError: a column is missing or ambiguous, or labels cannot be read.
    """
    import pyarrow.parquet as pq

    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        return None
    files = shards.parquet_files(folder)
    found = pq.read_schema(files[0])
    table = tables.open_table(folder)
    roles = tables.resolve(table, columns, needed=("image",), optional=("prompt", "labels", "patient"))
    if not _is_list(found.field(roles["image"]).type):
        return None
    texts: dict[str, Sequence[Any]] = {
        role: table.column(roles[role]) for role in ("prompt", "patient") if role in roles
    }
    extras = [name for name in (*records.VERDICT_COLUMNS, "source_policy") if name in table.columns]
    texts |= {name: table.column(name) for name in extras}
    states = tables.label_states(table, roles.get("labels") or _mapped(table))
    named = next((table.column(name) for name in NAMES if name in table.columns), None)

    def record(row: int) -> dict[str, Any]:
        name = named[row] if named and named[row] else f"{row:08d}"
        labels = None if states is None else dict(zip(records.LABELS, states[row], strict=True))
        return {
            "filename": f"{tables.film_stem(str(name)).replace('/', '_')}.png",
            "labels_dict": records.labels_dict(labels),
            **{name: values[row] for name, values in texts.items()},
        }

    sizes = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    known = ["image", "filename", "labels_dict", *texts]
    fingerprint = records.fingerprint([sizes, dict(columns or {})])
    rows = feeds.from_rows(str(folder), table.count, fingerprint, known[2:], record, lambda row: None, {})
    films = partial(_films, files, roles["image"], record)
    return feeds.Feed(str(folder), table.count, fingerprint, known, rows.facts, films, {}, scanned=True)


def film(values: pyarrow.Array) -> np.ndarray:
    """One film from a nested list.

    Returns:
        (H, W) or (H, W, C), of the type of its values; whole numbers of another type in 0..255 as uint8.

    Raises:
        UnreadableImage: empty, ragged, with missing values, or no film's shape.
    """
    import pyarrow.compute as pc

    shape, level = list[int](), values
    while _is_list(level.type):
        lengths = pc.unique(pc.list_value_length(level)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise images.UnreadableImage("ragged", f"expected rows of equal length, got {lengths[:5]}")
        shape, level = [*shape, lengths[0]], level.flatten()
    if level.null_count or not len(level):
        raise images.UnreadableImage("empty", f"expected pixels, got {level.null_count} missing of {len(level)}")
    pixels = level.to_numpy(zero_copy_only=False).reshape(shape)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise images.UnreadableImage("not-an-image", f"expected (H, W) or (H, W, 3), got {pixels.shape}")
    if pixels.dtype != np.uint8 and pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "iu":
        raise images.UnreadableImage("float-pixels", f"expected whole numbers, got {pixels.dtype} of unknown scale")
    return np.ascontiguousarray(pixels)


def _films(
    files: Sequence[Path], column: str, record: Any, rows: np.ndarray, columns: Sequence[str]
) -> Iterator[feeds.Batch]:
    wanted = feeds.schema(columns)
    for numbers, values in _chosen(files, column, rows):
        cells = {row: values.slice(place, 1) for place, row in enumerate(numbers)}
        yield from feeds.batches(np.array(numbers), partial(_with, record, cells), wanted, read=_png)


def _chosen(files: Sequence[Path], column: str, rows: np.ndarray) -> Iterator[tuple[list[int], pyarrow.Array]]:
    """Numbers and cells of chosen rows, a few at a time; row groups without any are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 0
    for path in files:
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                inside = rows[(rows >= first) & (rows < first + count)] - first
                place = 0
                for batch in file.iter_batches(ROWS, row_groups=[group], columns=[column]) if len(inside) else ():
                    here = inside[(inside >= place) & (inside < place + len(batch))] - place
                    cells = batch.column(0)
                    cells = cells.storage if isinstance(cells, pa.ExtensionArray) else cells
                    if len(here):
                        yield [int(first + place + row) for row in here], cells.take(pa.array(here))
                    place += len(batch)
                    if place > inside[-1]:
                        break
                first += count


def _with(record: Any, cells: Mapping[int, pyarrow.Array], row: int) -> tuple[dict[str, Any], pyarrow.Array]:
    return record(row), cells[row]


def _png(values: pyarrow.Array) -> tuple[bytes, str]:
    if values.null_count:
        raise images.UnreadableImage("missing", "expected a film, got an empty cell")
    return images.to_png(images.read(film(values)).pixels), ".png"


@lru_cache
def _list_types() -> tuple[Any, ...]:
    import pyarrow as pa

    return (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def _is_list(kind: Any) -> bool:
    kind = getattr(kind, "storage_type", kind)
    return any(check(kind) for check in _list_types())


def _mapped(table: tables.Table) -> str | None:
    """`label`, where it holds mappings of labels and not their name or the prompt."""
    if "label" not in table.columns:
        return None
    first = next((str(cell) for cell in table.column("label") if cell), "")
    try:
        return "label" if isinstance(json.loads(first.replace("'", '"').replace("nan", "null")), dict) else None
    except ValueError:
        return None
