"""Parquet files of rows: written whole or not at all, in short row groups; read a row group at a time. Knows nothing of
plans or stages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP_ROWS = 100
ROW_GROUP_BYTES = 100 * 2**20
BATCH_ROWS = 65_536
OPEN_FILES = 32  # whose footers stay in memory: reading that of a long file takes longer than a row group
MAX_ROW_BYTES = 286 * 2**20  # a longer row group is not shown by the Hub's viewer


def write_table(path: Path, table: pyarrow.Table) -> None:
    """One Parquet file of a table in memory; see `write_tables`."""
    write_tables(path, [table], table.schema)


def write_tables(path: Path, tables: Iterable[pyarrow.Table], schema: pyarrow.Schema) -> None:
    """One Parquet file, whole or not at all; see `writing`."""
    with writing(path, schema) as write:
        for table in tables:
            write(table)


@contextmanager
def writing(path: Path, schema: pyarrow.Schema) -> Iterator[Callable[[pyarrow.Table], None]]:
    """A Parquet file that takes tables one at a time and is there, whole, at the end; row groups are short so that
    viewers can page through images.

    Encoded films are stored as they are: neither compression nor a dictionary makes them smaller. At most a row group
    waits in memory.

    Raises:
        ValueError: one row has more than `MAX_ROW_BYTES` bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    films, rest = _leaves(schema)
    compression = {**dict.fromkeys(films, "NONE"), **dict.fromkeys(rest, "SNAPPY")}
    held, sizes = list[pa.Table](), list[tuple[int, int]]()
    # By its name and not by the handle, through which every page would become a Python object.
    with (
        whole(path) as handle,
        pq.ParquetWriter(handle.name, schema, compression=compression or "SNAPPY", use_dictionary=rest) as writer,
    ):

        def flush(rows: int) -> None:
            joined = pa.concat_tables(held)
            for group in row_groups(joined.slice(0, rows)):
                writer.write_table(group, row_group_size=max(len(group), 1))
            held.clear()
            if len(joined) > rows:
                held.append(joined.slice(rows))
            sizes[:] = [(len(one), one.nbytes) for one in held]

        def write(table: pyarrow.Table) -> None:
            held.append(table)
            sizes.append((len(table), table.nbytes))
            rows, size = map(sum, zip(*sizes, strict=True))
            if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
                flush(max(rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS, ROW_GROUP_ROWS))

        yield write
        if held:
            flush(sum(map(len, held)))


def row_groups(table: pyarrow.Table) -> Iterator[pyarrow.Table]:
    """A table in slices of at most `ROW_GROUP_ROWS` rows and, but for a single row, `ROW_GROUP_BYTES` bytes."""
    if table.num_rows > ROW_GROUP_ROWS:
        for first in range(0, table.num_rows, ROW_GROUP_ROWS):
            yield from row_groups(table.slice(first, ROW_GROUP_ROWS))
    elif table.nbytes <= ROW_GROUP_BYTES or table.num_rows == 1:
        if table.nbytes > MAX_ROW_BYTES:
            raise ValueError(f"a row must have at most {MAX_ROW_BYTES} bytes, got {table.nbytes}; store a smaller film")
        yield table
    else:
        half = table.num_rows // 2
        yield from row_groups(table.slice(0, half))
        yield from row_groups(table.slice(half))


def _leaves(schema: pyarrow.Schema) -> tuple[list[str], list[str]]:
    """Paths of the columns of bytes and of all others, as Parquet names them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    found = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    columns = [found.column(place) for place in range(len(found))]
    films = {c.path for c in columns if c.physical_type == "BYTE_ARRAY" and c.logical_type.type == "NONE"}
    return sorted(films), [column.path for column in columns if column.path not in films]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a machine that dies, sees the old content or the new, never a part."""
    with whole(path) as handle:
        handle.write(content)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name when all of it is on the disk, and leaves nothing if that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
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
        self._opened = lru_cache(maxsize=OPEN_FILES)(lambda number: pq.ParquetFile(self.files[number]))

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

    def cells(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Cells of one column; of each row group that holds some of them that column is read, once."""
        import bisect

        places: dict[int, dict[int, list[int]]] = {}
        for index in set(rows):
            if not 0 <= index < self.count:
                raise IndexError(index)
            place = bisect.bisect_right(self.starts, (index, len(self.files), 0)) - 1
            places.setdefault(self.starts[place][1], {}).setdefault(place, []).append(index)
        found: dict[int, Any] = {}
        for number, groups in places.items():
            for place, some in groups.items():
                start, _, group = self.starts[place]
                column = self._opened(number).read_row_group(group, columns=[name]).column(0)
                found |= {index: column[index - start].as_py() for index in some}
        return [found[index] for index in rows]

    def column(self, name: str) -> list[Any]:
        """One whole column, without the images beside it."""
        return [value for part in self._parts(name) for value in _values(part)]

    def arrow(self, name: str) -> pyarrow.ChunkedArray:
        """One whole column in Arrow; read a little at a time, as a file of many row groups takes GB at once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kind = pq.read_schema(self.files[0]).field(name).type
        return pa.chunked_array(list(self._parts(name)), kind)

    def _parts(self, name: str) -> Iterator[pyarrow.Array]:
        import pyarrow.parquet as pq

        for path in self.files:
            for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=[name]):
                yield batch.column(0)


def _values(column: pyarrow.Array) -> list[Any]:
    """Some of a column as Python values; equal texts of one that repeats itself, as provenance does, are one object."""
    import pyarrow as pa

    if pa.types.is_string(column.type):
        encoded = column.dictionary_encode()
        if 2 * len(encoded.dictionary) <= len(encoded):
            words = encoded.dictionary.to_pylist()
            return [None if place is None else words[place] for place in encoded.indices.to_pylist()]
    found: list[Any] = column.to_pylist()
    return found
