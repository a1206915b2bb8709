"""A built dataset in other forms: a folder of image files that one can browse, and tar shards that trainers stream.

Both are made a shard at a time: the files first, then the shard's rows in `.build`, so that an interrupted export goes
on with the next shard. Films are named by their row; `filename` says what they were called.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthchex.data import feeds, images, layout, shards

if TYPE_CHECKING:
    import pyarrow

WORK = ".build"
METADATA = "metadata.parquet"
TAR = ".tar"


def imagefolder(out: Path, plan: shards.Plan, shape: layout.Layout, feed: feeds.Feed, *, quiet: bool) -> None:
    """Write SPLIT/00000/00000012.png and SPLIT/metadata.parquet, which `load_dataset` reads with all types."""
    _fill(out, plan, shape, feed, _write_folder, quiet=quiet)
    for split in dict.fromkeys(part.split for part in shape.parts):
        names = [f"{part.name}-" for part in shape.parts if part.split == split]
        pieces = [path for path in built(out) if path.name.startswith(tuple(names))]
        shards.write_tables(out / split / METADATA, _tables(pieces), _row_schema(shape, "file_name"))


def webdataset(out: Path, plan: shards.Plan, shape: layout.Layout, feed: feeds.Feed, *, quiet: bool) -> None:
    """Write data/SPLIT-00000-of-00004.tar with a .png and a .json of every film."""
    (out / "data").mkdir(parents=True, exist_ok=True)
    _fill(out, plan, shape, feed, _write_tar, quiet=quiet)


def built(out: Path) -> list[Path]:
    """Rows of an export, without their films."""
    return shards.parquet_files(out / WORK)


def folder_configs(shape: layout.Layout) -> dict[str, Any]:
    """The `configs` of an image folder's card."""
    return {"default": {"data_files": [{"split": split, "path": f"{split}/**"} for split in shape.splits]}}


def tar_header(shape: layout.Layout) -> dict[str, Any]:
    """`configs` and `dataset_info` of a card of tar shards.

    Without types, `datasets` guesses those of JSON from the first films and fails where a label is null in all of
    them.
    """
    from datasets import Features, Image, Value

    row = {name: kind for name, kind in shape.features().items() if name != "image"}
    types = Features({"__key__": Value("string"), "__url__": Value("string"), "png": Image(), "json": row})
    return layout.card_header(layout.configs(shape, suffix=TAR), lambda _: types)


def _fill(out: Path, plan: shards.Plan, shape: layout.Layout, feed: feeds.Feed, keep: Any, *, quiet: bool) -> None:
    from datasets import Features

    shards.begin(out / WORK, plan)
    (out / layout.LOST).mkdir(exist_ok=True)
    rows, splits = (
        shape.rows,
        [part.split for part in shape.parts for _ in range(-(-len(part.rows) // plan.shard_rows))],
    )

    def tables(shard: int) -> Iterator[pyarrow.Table]:
        lost: list[feeds.Lost] = []
        batches = feed.films(rows[plan.span(shard)], shape.columns)
        yield from keep(out, plan, shard, splits[shard], _noting(batches, lost))
        layout.note_lost(out, plan, shard, lost)

    features = Features.from_arrow_schema(_row_schema(shape, "file_name"))
    shards.fill_tables(out / WORK, plan, tables, features, unit="films", quiet=quiet)


def _noting(batches: Iterator[feeds.Batch], lost: list[feeds.Lost]) -> Iterator[pyarrow.Table]:
    for batch in batches:
        lost += batch.lost
        yield batch.table


def _write_folder(
    out: Path, plan: shards.Plan, shard: int, split: str, tables: Iterator[pyarrow.Table]
) -> Iterator[pyarrow.Table]:
    """Files of a shard in a folder that gets its name when all are there; the Hub takes at most 10,000 per folder."""
    name = f"{shard:05d}"
    temporary, final, number = out / split / f".{name}.tmp", out / split / name, plan.span(shard).start
    for leftover in (temporary, final):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    for table in tables:
        files = []
        for film in table["image"].to_pylist():
            files.append(f"{number:08d}{Path(film['path']).suffix}")
            (temporary / files[-1]).write_bytes(film["bytes"])
            number += 1
        yield _without_films(table, [f"{name}/{file}" for file in files])
    temporary.rename(final)


def _write_tar(
    out: Path, plan: shards.Plan, shard: int, split: str, tables: Iterator[pyarrow.Table]
) -> Iterator[pyarrow.Table]:
    path, number = out / "data" / plan.files[shard].name.replace(".parquet", TAR), plan.span(shard).start
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink()
    with shards.whole(path) as handle, tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for table in tables:
            keys = []
            for row in table.to_pylist():
                keys.append(f"{number:08d}")
                film = row.pop("image")
                _add(tar, f"{keys[-1]}.png", _as_png(film))
                _add(tar, f"{keys[-1]}.json", json.dumps(row).encode())
                number += 1
            yield _without_films(table, keys)


def _as_png(film: Mapping[str, Any]) -> bytes:
    """One kind of file in all shards, so that readers see the same columns in each."""
    content = bytes(film["bytes"])
    return content if Path(film["path"]).suffix == ".png" else images.to_png(images.read(content).pixels)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file without time or owner, so that equal rows give equal bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _row_schema(shape: layout.Layout, key: str) -> pyarrow.Schema:
    import pyarrow as pa

    fields = [field for field in feeds.schema(shape.columns).remove_metadata() if field.name != "image"]
    return pa.schema([pa.field(key, pa.string()), *fields])


def _without_films(table: pyarrow.Table, keys: list[str]) -> pyarrow.Table:
    import pyarrow as pa

    return table.replace_schema_metadata(None).drop_columns(["image"]).add_column(0, "file_name", pa.array(keys))


def _tables(pieces: list[Path]) -> Iterator[pyarrow.Table]:
    import pyarrow.parquet as pq

    for path in pieces:
        yield pq.read_table(path).replace_schema_metadata(None)
