"""What the screens decided of every row of a set, on disk: made once, by one of several processes, read by all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import shards
from synthchex.data.sources import ImageSet
from synthchex.models import store
from synthchex.screens import NEEDS, Means, Screened, check, screen
from synthchex.screens.means import networks

TABLE, SUMMARY = "screens.parquet", "screens.json"


@dataclass(frozen=True)
class Decisions:
    """Of every row, why it is dropped (None where it is not), and what was measured: {measure: (N,)}, NaN for none."""

    reasons: Sequence[str | None]
    values: dict[str, np.ndarray]

    def measured(self, row: int) -> dict[str, float]:
        """What was measured of one film."""
        found = ((name, float(values[row])) for name, values in self.values.items())
        return {name: round(value, 5) for name, value in found if np.isfinite(value)}


def decide(folder: Path, films: ImageSet, asked: Sequence[str], means: Means, *, together: bool) -> Decisions:
    """Decisions on a set, from `folder` where they are there.

    Args:
        folder: where they are kept: a table with a row per film, and a summary with limits and counts.
        films: the set.
        asked: screens.
        means: what they measure with; its store must be a folder.
        together: other processes do the same now: films are shared out among them.

    Raises:
        ValueError: see `screens.check`.
    """
    check(asked, means)
    path = folder / TABLE
    if together and not path.exists():
        _share(films, asked, means)
    locks = folder / ".locks" / "screens"
    locks.mkdir(parents=True, exist_ok=True)
    for _ in shards.claim_paths([path], locks):
        found = screen(films, asked, means)
        shards.write_whole(folder / SUMMARY, json.dumps(found.as_dict(), indent=2).encode() + b"\n")
        shards.write_table(path, _table(found))
    return _read(path)


def summary(folder: Path) -> dict[str, Any] | None:
    """Limits and counts of the decisions in a folder; None where there are none."""
    path = folder / SUMMARY
    return json.loads(path.read_text()) if path.is_file() else None


def _share(films: ImageSet, asked: Sequence[str], means: Means) -> None:
    if means.store is None:
        raise ValueError("expected a folder to keep features in, got none; several processes meet there")
    referred = any("reference" in NEEDS[name] for name in asked)
    for images in (films, means.reference if referred else None):
        if images is not None:
            used = list(networks(asked, means).values())
            store.share(images, used, means.store, batch_size=means.batch_size, num_workers=means.num_workers)


def _table(found: Screened) -> Any:
    import pyarrow as pa

    columns = {name: pa.array(np.asarray(values, np.float64)) for name, values in found.values.items()}
    return pa.table({"reason": pa.array(found.reasons, pa.string()), **columns})


def _read(path: Path) -> Decisions:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    values = {name: table[name].to_numpy() for name in table.column_names if name != "reason"}
    return Decisions(table["reason"].to_pylist(), values)
