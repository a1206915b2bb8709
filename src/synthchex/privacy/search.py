"""Nearest training films, searched by any number of processes and kept on disk as it goes on.

`<folder>/<fingerprint of the question>/block-00003-of-00016.safetensors` holds the neighbours of some queries, written
whole. Killed and started again, or started twice, a search goes on where it is: blocks are claimed one at a time, and a
block is the same whoever makes it. Another set, another encoder or another k is another folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import records, shards
from synthchex.maths import search
from synthchex.maths.search import Nearest, Owners
from synthchex.options import Progress

ROWS = 16384  # queries of a file: each reads all references once
HASHED = 8192  # rows that are hashed at a time


def nearest(
    queries: np.ndarray,
    references: np.ndarray,
    k: int,
    *,
    owners: Owners | None = None,
    folder: Path | None = None,
    rows: int = ROWS,
    quiet: bool = True,
) -> Nearest:
    """`maths.search.nearest`, from `folder` where it has been found before.

    Args:
        queries: float, (M, D); may be mapped from a file.
        references: float, (N, D); may be mapped from a file.
        k: how many.
        owners: as in `maths.search.nearest`.
        folder: where results are kept; None searches in this process and keeps nothing.
        rows: queries of a file.
        quiet: without a bar.

    Returns:
        The same whatever the folder, the processes and `rows`.

    Raises:
        ValueError: as `maths.search.nearest`.
    """
    if folder is None:
        return search.nearest(queries, references, k, owners=owners)
    spans = [slice(start, min(start + rows, len(queries))) for start in range(0, len(queries), rows)]
    place = folder / _question(queries, references, k, owners)
    paths = [place / f"block-{number:05d}-of-{len(spans):05d}.safetensors" for number in range(len(spans))]
    place.mkdir(parents=True, exist_ok=True)
    with Progress("nearest films", len(queries), done=_done(spans, paths), unit="films", quiet=quiet) as progress:
        for number in shards.claim_paths(paths):
            span = spans[number]
            own = None if owners is None else (np.asarray(owners[0])[span], owners[1])
            _write(paths[number], search.nearest(queries[span], references, k, owners=own))
            progress.advance(_done(spans, paths))
        progress.advance(len(queries))
    parts = [_read(path) for path in paths]
    return Nearest(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _done(spans: list[slice], paths: list[Path]) -> int:
    return sum(span.stop - span.start for span, path in zip(spans, paths, strict=True) if path.exists())


def _question(queries: np.ndarray, references: np.ndarray, k: int, owners: Owners | None) -> str:
    """Hash of all that decides the answer."""
    ids = None if owners is None else [np.asarray(side).tolist() for side in owners]
    return records.fingerprint_long([_hash(queries), _hash(references), str(k), ids])


def _hash(rows: np.ndarray) -> str:
    """Hash of an array, a block at a time."""
    total = hashlib.sha256(f"{rows.shape} {rows.dtype}".encode())
    for start in range(0, len(rows), HASHED):
        total.update(np.ascontiguousarray(rows[start : start + HASHED]).data)
    return total.hexdigest()


def _write(path: Path, found: Nearest) -> None:
    from safetensors.numpy import save

    arrays: dict[str, Any] = {name: np.ascontiguousarray(values) for name, values in found._asdict().items()}
    shards.write_whole(path, save(arrays))


def _read(path: Path) -> Nearest:
    from safetensors.numpy import load_file

    return Nearest(**load_file(path))
