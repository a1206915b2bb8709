"""Films that were made elsewhere, by models that are no pipeline of diffusers, as rows beside their prompts."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synthchex.data import images, records, tables
from synthchex.data.defects import defect
from synthchex.data.prompts import Wanted


def find(wanted: Wanted, folder: Path) -> list[Path]:
    """The file of every row: by the table's column of image names, else by id, with or without a suffix.

    Raises:
        ValueError: no folder, rows without exactly one file, or a table with neither names nor ids.
    """
    prompts = wanted.prompts
    if not folder.is_dir():
        raise ValueError(f"expected a folder of films, got {folder}, which is not there; check --images")
    if prompts.names is None and prompts.numbered:
        raise ValueError(
            f"expected ids or image names in {prompts.source} to find films by, got neither; add a column `filename`"
        )
    names = prompts.names if prompts.names is not None else list(prompts.ids)
    return list(tables.find_films([names[pick] for pick in wanted.picks.tolist()], folder, source=prompts.source)[0])


def state(files: Sequence[Path]) -> str:
    """Hash of sizes and times of files; 16 hex digits."""
    return records.fingerprint([(path.name, (s := path.stat()).st_size, s.st_mtime_ns) for path in files])


def reader(
    wanted: Wanted, files: Sequence[Path], *, model: str, revision: str | None
) -> Callable[[range], list[dict[str, Any]]]:
    """Rows of a span of row numbers. Films keep their bytes; how they were made is what the caller knows: no seed."""
    versions = json.dumps({"synthchex": importlib.metadata.version("synthchex")})

    def rows(span: range) -> list[dict[str, Any]]:
        return [
            {**wanted.row(number), **_film(files[number]), "model": model, "revision": revision, "versions": versions}
            for number in span
        ]

    return rows


def _film(path: Path) -> dict[str, Any]:
    """Image, size and drop reason of a file; without a seed."""
    known = {"seed": None, "filename": path.name, "retries": None}
    try:
        pixels = images.read(path).pixels
    except images.UnreadableImage as error:
        return known | {"image": None, "drop_reason": f"unreadable-{error.reason}"}
    image = {"bytes": images.encoded(path), "path": path.name}
    return known | {
        "image": image,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "drop_reason": defect(pixels),
    }
