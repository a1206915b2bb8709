"""What an imported set holds, counted from its shards, as numbers and as lines for people."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthchex.data import records, shards
from synthchex.data.importers import known

STATES = {1: "present", 0: "absent", -1: "uncertain", None: "not mentioned"}
MARKS = ("___", "XXXX")
COLUMNS = (
    "id", "patient", "study", "view", "split", "prompt", "content_hash", "preprocessing_id", "drop_reason",
)  # fmt: skip


def count(folder: Path) -> dict[str, Any]:
    """Counts of an imported set: labels by state, patients, studies, views, splits, prompts, duplicates, unreadable."""
    cells: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    states = {label: Counter[int | None]() for label in records.LABELS}
    for path in shards.parquet_files(folder):
        table = pq.read_table(path, columns=[*COLUMNS, "labels_dict"])
        for name in COLUMNS:
            cells[name] += table[name].to_pylist()
        for label in records.LABELS:
            for entry in pc.value_counts(pc.struct_field(table["labels_dict"], label)).to_pylist():
                states[label][entry["values"]] += entry["counts"]
    reasons = Counter(reason for reason in cells["drop_reason"] if reason)
    texts = [text for text in cells["prompt"] if text]
    return {
        "films": len(cells["id"]),
        "unreadable": dict(reasons),
        "duplicates": _duplicates(cells),
        "patients": len({name for name in cells["patient"] if name}),
        "films_without_patient": cells["patient"].count(None),
        "patients_in_several_splits": _across(cells["patient"], cells["split"]),
        "studies": len({name for name in cells["study"] if name}),
        "splits": _counted(cells["split"]),
        "views": _counted(cells["view"]),
        "preprocessing": _counted(cells["preprocessing_id"]),
        "prompts": {
            "films": len(texts),
            "different": len(set(texts)),
            "with_deidentification_marks": sum(any(mark in text for mark in MARKS) for text in texts),
        },
        "labels": {
            label: {STATES[state]: counted[state] for state in records.STATES} for label, counted in states.items()
        },
    }


def _counted(values: Sequence[str | None]) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())


def _across(one: Sequence[str | None], other: Sequence[str | None]) -> int:
    """How many of `one` stand with more than one of `other`."""
    seen: dict[str, set[str]] = defaultdict(set)
    for key, value in zip(one, other, strict=True):
        if key and value:
            seen[key].add(value)
    return sum(len(values) > 1 for values in seen.values())


def _duplicates(cells: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Films with equal stored bytes: how many beside the first, of how many different ones, and whom that concerns."""
    hashes = Counter(value for value in cells["content_hash"] if value)
    twice = {value for value, times in hashes.items() if times > 1}
    first = next(iter(sorted(twice)), None)
    same = zip(cells["id"], cells["content_hash"], strict=True)
    return {
        "films": sum(hashes[value] - 1 for value in twice),
        "different": len(twice),
        "of_several_patients": _across(cells["content_hash"], cells["patient"]),
        "in_several_splits": _across(cells["content_hash"], cells["split"]),
        "example": [name for name, value in same if value == first][:5] if first else [],
    }


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary as lines for people."""
    importer = known.IMPORTERS[summary["importer"]]
    labels = summary["labels"]
    said = [name for name, states in labels.items() if states["not mentioned"] < summary["films"]]
    width = max(map(len, labels))
    text = [
        f"{summary['films']} films of {summary['patients'] or 'unknown'} patients, {summary['studies']} studies",
        f"source policy: {summary['source_policy']} ({importer.terms})",
        f"splits: {_in_words(summary['splits'])}; views: {_in_words(summary['views'])}",
        f"prompts: {_in_words(summary['prompts_from'])}; "
        f"{summary['prompts']['with_deidentification_marks']} with de-identification marks",
        f"left out: {_in_words(summary['left_out'])}; unreadable: {_in_words(summary['unreadable'])}",
        f"duplicates: {summary['duplicates']['films']}; "
        f"patients in several splits: {summary['patients_in_several_splits']}",
        f"labels: {summary['labels_from'] or 'none; give --labeller where there are reports'}",
    ]
    if said:
        text.append(f"  {'':<{width}}" + "".join(f"{state:>15}" for state in STATES.values()))
        text += [f"  {name:<{width}}" + "".join(f"{labels[name][s]:>15}" for s in STATES.values()) for name in said]
    kinds: dict[str, list[str]] = defaultdict(list)
    for name, found in summary["findings"].items():
        kinds[found["meaning"]].append(f"{name} ({found['films']})")
    text += [f"findings that are a kind of a label: {', '.join(kinds['part'])}"] if kinds["part"] else []
    text += [f"findings that are no label: {', '.join(kinds['unmapped'])}"] if kinds["unmapped"] else []
    return text + [f"note: {remark}" for remark in summary["remarks"]]


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items()) or "none"


def write(folder: Path, summary: Mapping[str, Any]) -> None:
    """summary.json, whole or not at all."""
    shards.write_whole(folder / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")
