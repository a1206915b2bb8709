"""Films made small for a page: decoded when they are shown, kept in a bounded cache, read a few rows at a time."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from synthchex.ahead import default_workers
from synthchex.data import images, tables
from synthchex.data.parquet import Rows
from synthchex.data.sources import ImageSet
from synthchex.studio.index import parquet_rows

SIDE, LARGE = 144, 1024  # pixels of the longer side: on a page, and of one film
CACHE_BYTES = 256 * 2**20
QUALITY = 85  # of the JPEG of a thumbnail


class Thumb(NamedTuple):
    """A small JPEG, or why there is none."""

    encoded: bytes | None
    reason: str = ""


class Reader:
    """Cells of the image column of a set: whole Parquet row groups of that one column, each read once for a page."""

    def __init__(self, films: ImageSet) -> None:
        self.films, self.lock = films, threading.Lock()
        self.rows, self.column = _cells(films)

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """What `images.read` takes, for each row."""
        with self.lock:
            if self.rows is None:
                return [self.films.fetch(row) for row in rows]
            return self.rows.cells(self.column, rows)


def _cells(films: ImageSet) -> tuple[Rows | None, str]:
    """The Parquet rows of a set whose images are cells, and the name of their column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = parquet_rows(films)
    if rows is None:
        return None, ""
    kinds = pq.read_schema(rows.files[0])
    columns = [name for name in tables.ALIASES["image"] if name in kinds.names]
    cells = [name for name in columns if pa.types.is_struct(kinds.field(name).type)]
    return (rows, cells[0]) if cells == columns[:1] else (None, "")


class Thumbs:
    """Thumbnails of a set by row; `folder` None keeps them in memory, as films that are not open should be."""

    def __init__(self, films: ImageSet, folder: Path | None, *, limit: int = CACHE_BYTES, side: int = SIDE) -> None:
        self.reader, self.folder, self.limit, self.side = Reader(films), folder, limit, side
        self.kept: OrderedDict[int, int | Thumb] = OrderedDict()
        self.bytes, self.lock = 0, threading.Lock()
        self.pool = ThreadPoolExecutor(default_workers(), thread_name_prefix="synthchex-thumbs")
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, rows: Sequence[int]) -> list[Thumb]:
        """One thumbnail per row."""
        found = {row: self._kept(row) for row in rows}
        new = [row for row, thumb in found.items() if thumb is None]
        if new:
            made = self.pool.map(self._make, self.reader.fetch(new))
            for row, thumb in zip(new, made, strict=True):
                self._keep(row, thumb)
                found[row] = thumb
        return [thumb for row in rows for thumb in [found[row]] if thumb is not None]

    def ahead(self, rows: Sequence[int]) -> None:
        """Make thumbnails that may be asked for next, in the background."""
        threading.Thread(target=self.get, args=(list(rows),), daemon=True).start()

    def _make(self, source: Any) -> Thumb:
        try:
            return Thumb(small(images.read(source).pixels, self.side))
        except images.UnreadableImage as error:
            return Thumb(None, error.reason)

    def _path(self, row: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{row}.jpg"

    def _kept(self, row: int) -> Thumb | None:
        with self.lock:
            one = self.kept.get(row)
            if one is None:
                return None
            self.kept.move_to_end(row)
            return one if isinstance(one, Thumb) else Thumb(self._path(row).read_bytes())

    def _keep(self, row: int, thumb: Thumb) -> None:
        """Keep one, and drop those that were not shown for longest until all fit."""
        size = len(thumb.encoded or b"")
        with self.lock:
            if row in self.kept:
                return
            on_disk = self.folder is not None and thumb.encoded is not None
            if on_disk:
                self._path(row).write_bytes(thumb.encoded or b"")
            self.kept[row] = size if on_disk else thumb
            self.bytes += size
            while self.bytes > self.limit and len(self.kept) > 1:
                old, one = self.kept.popitem(last=False)
                self.bytes -= one if isinstance(one, int) else len(one.encoded or b"")
                if isinstance(one, int):
                    self._path(old).unlink(missing_ok=True)


def small(pixels: np.ndarray, side: int) -> bytes:
    """A JPEG of at most `side` pixels a side; smaller films stay as they are."""
    buffer = io.BytesIO()
    _shrunk(pixels, side).save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def large(pixels: np.ndarray, side: int = LARGE) -> bytes:
    """A PNG of at most `side` pixels a side."""
    return images.to_png(np.asarray(_shrunk(pixels, side)))


def _shrunk(pixels: np.ndarray, side: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
