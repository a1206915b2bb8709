"""What every importer gives: a list of films with what is known of them. Decodes nothing, writes nothing.

Cells stay as published: a view named `LATERAL` in one set and `L` in another keeps its name, and what a set does not
say is None.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from synthchex.data import records, tables

Unlisted = Literal["blank", "absent"]
# name: the film's file, relative to --image-dir; the others are texts or None.
COLUMNS = ("name", "id", "patient", "study", "view", "split", "findings", "impression", "report")


@dataclass(frozen=True)
class Given:
    """What the user gave: where the set is, and which of its tables are meant.

    `tables` is the folder of the CSV files where `source` has none; `labels` names one of the set's label tables,
    "none" for no labels; `unlisted` is what a finding means that a set of positive findings does not list.
    """

    name: str
    source: Path
    tables: Path | None = None
    image_dir: Path | None = None
    annotations: Path | None = None
    reports: Path | None = None
    labels: str | None = None
    unlisted: Unlisted = "blank"
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The films of a set, in the order of its tables.

    `labels` is float32 (N, 14): 1, 0, -1, NaN not mentioned; None where the set has none. `findings` says for each
    finding of the set's own vocabulary in how many films it is present and which labels it became. `remarks` are
    sentences, `left_out` counts rows, for the summary. `flat`: names are looked for by stem anywhere below the folder.
    `fetch` gives films that are not files.
    """

    columns: Mapping[str, Sequence[str | None]]
    labels: np.ndarray | None = None
    labels_from: str | None = None
    findings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    flat: bool = False
    fetch: Callable[[int], Any] | None = None

    def __len__(self) -> int:
        return len(self.columns["id"])


def listed(columns: Mapping[str, Iterable[Any]], **known: Any) -> Listing:
    """A listing from columns of cells, whose empty cells become None.

    Raises:
        ValueError: a set without films, or an id that stands twice.
    """
    cells = {name: [_cell(value) for value in values] for name, values in columns.items()}
    count = len(cells["id"])
    if not count:
        raise ValueError("expected films in the tables of the set, got 0 rows; check --source and --tables")
    repeated = tables.repeats([str(value) for value in cells["id"]])
    if repeated:
        raise ValueError(
            f"expected every film once, got {len(repeated)} that stand twice, e.g. {repeated[:3]}; "
            "drop the repeated rows"
        )
    return Listing({name: cells.get(name, [None] * count) for name in COLUMNS}, **known)


def _cell(value: Any) -> str | None:
    text = "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()
    return text or None


def find(given: Given, *names: str) -> Path | None:
    """The first of these files, plain or .gz, in the folder of the tables or one folder below it; None without one."""
    folder = given.tables or given.source
    for name in names:
        for pattern in (name, f"{name}.gz", f"*/{name}", f"*/{name}.gz"):
            for path in sorted(folder.glob(pattern)):
                return path
    return None


def need(given: Given, *names: str) -> Path:
    """As `find`, where the set cannot be read without.

    Raises:
        ValueError: none of them is there; the message says what is.
    """
    path = find(given, *names)
    if path is None:
        folder = given.tables or given.source
        there = sorted(entry.name for entry in folder.iterdir())[:5] if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{given.name} expects {' or '.join(names)} in {folder}, found {there}; "
            "give the folder that has it with --source, or with --tables where the films lie elsewhere"
        )
    return path


def read(path: Path, *, needs: Sequence[str] = (), only: Sequence[str] | None = None) -> pd.DataFrame:
    """A CSV file, plain or .gz, every cell as the text that is written there.

    Args:
        path: the file.
        needs: columns it must have.
        only: columns to keep in memory; all by default.

    Raises:
        ValueError: it has no header, or lacks a column.
    """
    try:
        frame = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            usecols=None if only is None else lambda name: name in only,
        )
    except ValueError as error:
        raise ValueError(f"expected a table with a header, got {path}: {error}; check the file") from error
    lost = [name for name in needs if name not in frame.columns]
    if lost:
        raise ValueError(
            f"{path} lacks the columns {lost}: expected {list(needs)}, its columns are {list(frame.columns)[:20]}; "
            "check that it is the published file"
        )
    return frame


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, in order; folders that are links are followed, as large sets are often linked."""
    return sorted(Path(at) / name for at, _, names in os.walk(folder, followlinks=True) for name in names)


def label_states(frame: pd.DataFrame, path: Path) -> np.ndarray:
    """States of a table with one column per CheXpert label, float32 (N, 14).

    Raises:
        ValueError: it has none of the 14 labels, or a cell that is no state.
    """
    table = tables.Table(
        str(path), list(frame.columns), len(frame), lambda n: frame[n].tolist(), lambda n, i: frame[n].iloc[i]
    )
    states = tables.label_states(table, None)
    if states is None:
        raise ValueError(
            f"expected columns named as the CheXpert labels in {path}, got {list(frame.columns)[:20]}; "
            "check that it is the published file, or pass --labels none"
        )
    return states


def take(states: np.ndarray, keys: Sequence[Any], wanted: Sequence[Any]) -> np.ndarray:
    """Rows of `states`, known by `keys`, for each of `wanted`; NaN where there is none."""
    rows = pd.Index(keys).get_indexer(pd.Index(wanted))
    found = np.full((len(wanted), len(records.LABELS)), np.nan, np.float32)
    found[rows >= 0] = states[rows[rows >= 0]]
    return found


def lookup(keys: Sequence[Any], values: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """For each of `wanted` the value that stands with it, None where there is none."""
    known = dict(zip(keys, values, strict=True))
    return [known.get(key) for key in wanted]
