"""Evaluations that are there to be read: their folders, their pages, their numbers beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthchex.report import leaderboard
from synthchex.report.leaderboard import Table
from synthchex.scores import comparison

RESULTS, PAGE = "results.json", "report.html"
MAX_PAGE_BYTES = 64 * 2**20
DEPTH = 2  # folders below one that was named


def evaluations(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders with results or a report, by a name that stands once: those named, and those up to two levels below.

    Raises:
        FileNotFoundError: a folder is not there.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"expected a folder of evaluations, got {folder}, which is not there")
        patterns = ["/".join(["*"] * depth) for depth in range(1, DEPTH + 1)]
        below = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]
        found += [path for path in (folder, *below) if any((path / name).is_file() for name in (RESULTS, PAGE))]
    names: dict[str, Path] = {}
    for path in dict.fromkeys(path.resolve() for path in found):
        longer = ("/".join(path.parts[-parts:]) for parts in range(1, len(path.parts) + 1))
        names[next((name for name in longer if name not in names), str(path))] = path
    return names


def page(folder: Path) -> str:
    """The report of an evaluation as HTML text.

    Raises:
        ValueError: there is none, or it is too long to show.
    """
    path = folder / PAGE
    if not path.is_file():
        raise ValueError(f"expected {PAGE} in {folder.name}, found none; synthchex evaluate writes one")
    if path.stat().st_size > MAX_PAGE_BYTES:
        raise ValueError(f"expected a page of at most {MAX_PAGE_BYTES:,} bytes, got {path.stat().st_size:,}; open it")
    return path.read_text(encoding="utf-8")


def side_by_side(folders: Mapping[str, Path]) -> Table:
    """The overall scores of evaluations, one row per score and one column per evaluation, as each stands.

    Raises:
        ValueError: an evaluation has no results.
    """
    results = {name: _results(name, folder) for name, folder in folders.items()}
    cells: dict[tuple[str, str], dict[str, str]] = {("Synthetic films", ""): {}, ("Real films", ""): {}}
    for name, found in results.items():
        for side, key in (("Synthetic films", "synthetic"), ("Real films", "real")):
            cells[(side, "")][name] = f"{found.get('sets', {}).get(key, {}).get('n', '')}"
        for row in found.get("overall") or []:
            arrow = leaderboard.ARROWS.get(row.get("better") or "", "")
            key_of = (f"{row['label']} {arrow}".strip(), row.get("encoder") or "")
            cells.setdefault(key_of, {})[name] = _value(row)
    rows = [
        [score, encoder, *(by_name.get(name, "—") for name in results)] for (score, encoder), by_name in cells.items()
    ]
    return Table(["Score", "Encoder", *results], rows)


def compared(folders: Mapping[str, Path], kept: Path | None = None) -> tuple[Table, Table]:
    """Standings and tests of two or more evaluations against the same real set, as `synthchex compare` makes them.

    Raises:
        ValueError: fewer than two, or they cannot be compared: other real films, encoders, or features that are gone.
    """
    if len(folders) < 2:
        raise ValueError(f"expected two or more evaluations to compare, got {len(folders)}; choose another one")
    models = [comparison.read(folder, name, kept) for name, folder in folders.items()]
    found = comparison.compare(models, comparison.Options())
    return leaderboard.standings(found), leaderboard.tests(found)


def _results(name: str, folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(f"expected {RESULTS} in {name}, found none; run synthchex evaluate")
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON in {RESULTS} of {name}, got {error}; run synthchex evaluate again") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected an object in {RESULTS} of {name}, got {type(found).__name__}")
    return found


def _value(row: Mapping[str, Any]) -> str:
    if row.get("value") is None:
        return "—"
    interval = row.get("interval")
    ends = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
    return f"{row['value']:.4g}{ends}"
