"""A run on disk: what it is, where it stands, what it lost. Written whole, so that a killed run goes on from here.

    manifest.json             recipe and data; another recipe into the same folder is refused
    checkpoint-500/state.pt   weights, optimizer, learning rate, average, validations so far
    log.jsonl                 one line per step; lines after a checkpoint that is gone back to are dropped

No state of random number generators is kept: every draw follows from the seed and the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthchex.data import shards

MANIFEST, LOG, STATE = "manifest.json", "log.jsonl", "state.pt"


def begin(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write the manifest, or check that the one there is the same.

    Raises:
        ValueError: the folder holds another run; the message names what differs.
        PermissionError: the folder cannot be written.
    """
    path = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shards.write_whole(path, json.dumps(wanted, indent=2, sort_keys=True).encode() + b"\n")
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise PermissionError(
            f"expected a folder that can be written, got {folder}: {error.strerror}; choose another --out"
        ) from error
    found, now = _flat(json.loads(path.read_text())), _flat(json.loads(json.dumps(wanted)))
    differ = [f"{key}: {found.get(key)!r} there, {now.get(key)!r} now" for key in sorted({*found, *now})
              if found.get(key) != now.get(key)]  # fmt: skip
    if differ:
        raise ValueError(
            f"{folder} holds another run ({', '.join(differ)}); choose another --out, or delete it to start anew"
        )


def _flat(found: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, value in found.items():
        rows |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return rows


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are whole, in order."""
    return sorted(int(path.parent.name.split("-")[1]) for path in folder.glob(f"checkpoint-*/{STATE}"))


def save(folder: Path, step: int, state: Mapping[str, Any], *, keep: int, best: int | None) -> None:
    """Write a checkpoint, then delete all but the last `keep` and the best."""
    import torch

    target = folder / f"checkpoint-{step}"
    target.mkdir(exist_ok=True)
    with shards.whole(target / STATE) as handle:
        torch.save(dict(state), handle)
    for old in steps(folder)[:-keep]:
        if old != best:
            shutil.rmtree(folder / f"checkpoint-{old}")


def load(folder: Path, step: int) -> dict[str, Any]:
    """One checkpoint, on the CPU."""
    import torch

    state: dict[str, Any] = torch.load(folder / f"checkpoint-{step}" / STATE, map_location="cpu", weights_only=True)
    return state


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of the log; a last one that was cut by a kill is left out."""
    path = folder / LOG
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def rewind_log(folder: Path, step: int) -> None:
    """Drop the lines of steps that will be taken again."""
    kept = [row for row in read_log(folder) if row["step"] <= step]
    shards.write_whole(folder / LOG, "".join(json.dumps(row) + "\n" for row in kept).encode())


def log(folder: Path, row: Mapping[str, Any]) -> None:
    """Add a line."""
    with open(folder / LOG, "a") as handle:
        handle.write(json.dumps(dict(row)) + "\n")
