"""What is in a source before it is built, counted in one pass that reads no film and holds a few bytes per row.

Says of every row whether it is kept, under which group of quality, and of which split; counts what the card tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records, splits
from synthchex.data.feeds import Feed

if TYPE_CHECKING:
    import pyarrow

REJECTED = "rejected"
UNJUDGED = "unjudged"
TOLD = (*(name for name in records.PROVENANCE_COLUMNS if name not in ("id", "seed")), "judge", "source_policy")
MOST_TOLD = 8
STATES = ("present", "absent", "uncertain", "not mentioned")


@dataclass
class Survey:
    """Counts of a source.

    `groups` are qualities ("high", "medium", …), "unjudged" or "rejected"; `group` is the number of each row's, int16
    (N,); `prompt` and `patient` are keys, uint64 (N,), `patient` None where unknown. `present` counts films by label,
    `dropped` by reason and label ("" is any film); `told` are values of the columns that say how films were made.
    """

    groups: list[str] = field(default_factory=list)
    group: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    prompt: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    patient: np.ndarray | None = None
    empty: list[int] = field(default_factory=list)
    present: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    qualities: Counter[str] = field(default_factory=Counter)
    told: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether any film has a quality or a reason for being dropped."""
        return any(name != UNJUDGED for name in self.groups)

    @property
    def kept(self) -> np.ndarray:
        """Whether each row is kept, bool (N,)."""
        return self.group != (self.groups.index(REJECTED) if REJECTED in self.groups else -1)


def look(feed: Feed) -> Survey:
    """Count a source.

    Raises:
        ValueError: it has no prompts, a film that is kept has none, or no film is kept.
    """
    if "prompt" not in feed.columns:
        raise ValueError(f"{feed.source} has no prompts; a SynthCheX-style dataset needs one for every film")
    wanted = ["prompt", "labels_dict", "patient", "quality", "drop_reason", *TOLD]
    seen, groups, prompts, patients = Survey(), list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    first = 0
    for table in feed.facts([name for name in wanted if name in feed.columns]):
        groups.append(_count(table, seen))
        prompts.append(_prompts(table))
        if "patient" in table.column_names:
            patients.append(splits.keys(_patients(table, first)))
        bare = [first + place for place, text in enumerate(table["prompt"].to_pylist()) if not (text or "").strip()]
        seen.empty += bare[: max(0, 5 - len(seen.empty))]
        first += len(table)
    seen.group, seen.prompt = np.concatenate(groups), np.concatenate(prompts)
    seen.patient = np.concatenate(patients) if patients else None
    if not seen.kept.any():
        raise ValueError(f"expected films to keep in {feed.source}, got {len(seen.group)}, all of them dropped")
    unprompted = [row for row in seen.empty if seen.kept[row]]
    if unprompted:
        raise ValueError(f"expected a prompt for every film of {feed.source}, got none in rows {unprompted}; drop them")
    return seen


def states(files: Sequence[Path]) -> dict[str, dict[str, int]]:
    """Films per label and state, from the label column of Parquet files.

    Returns:
        {label: {"present", "absent", "uncertain", "not mentioned"}}.
    """
    counts = np.zeros((len(records.LABELS), len(STATES)), np.int64)
    for path in files:
        for found in _labels(path):
            counts += np.stack([(found == state).sum(0) for state in (1, 0, -1, NOT_MENTIONED)], axis=1)
    return {
        label: dict(zip(STATES, map(int, row), strict=True)) for label, row in zip(records.LABELS, counts, strict=True)
    }


NOT_MENTIONED = -128


def label_matrix(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Label states of a column of structs, int8 (N, 14): 1, 0, -1, and `NOT_MENTIONED`."""
    import pyarrow.compute as pc

    found = [pc.fill_null(pc.struct_field(column, label), NOT_MENTIONED) for label in records.LABELS]
    return np.stack([values.to_numpy(zero_copy_only=False) for values in map(_whole, found)], axis=1)


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _labels(path: Path) -> Iterator[np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(5_000, columns=["labels_dict"]):
        yield label_matrix(pa.chunked_array([batch.column("labels_dict")]))


def _count(table: pyarrow.Table, seen: Survey) -> np.ndarray:
    """Add a table to the counts; numbers of its rows' groups, int16."""
    names = table.column_names
    none = [None] * len(table)
    quality = table["quality"].to_pylist() if "quality" in names else none
    # A set that was judged elsewhere may say how good a film is and not that it was dropped.
    reason = table["drop_reason"].to_pylist() if "drop_reason" in names else [_poor(value) for value in quality]
    for name in set(TOLD) & set(names):
        told = seen.told.setdefault(name, Counter())
        for entry in table[name].value_counts().to_pylist():
            if entry["values"] not in (None, "") and (str(entry["values"]) in told or len(told) < MOST_TOLD):
                told[str(entry["values"])] += entry["counts"]
    seen.qualities.update(value for value in quality if value)
    present = label_matrix(table["labels_dict"]) == 1
    seen.present.update(_named(present))
    why = np.array([text or "" for text in reason], object)
    for text in set(why) - {""}:
        chosen = why == text
        seen.dropped.setdefault(text, Counter()).update({"": int(chosen.sum()), **_named(present[chosen])})
    found = [REJECTED if text else _slug(value) for text, value in zip(why, quality, strict=True)]
    seen.groups += [name for name in dict.fromkeys(found) if name not in seen.groups]
    number = {name: place for place, name in enumerate(seen.groups)}
    return np.array([number[name] for name in found], np.int16)


def _named(present: np.ndarray) -> Mapping[str, int]:
    return {label: int(count) for label, count in zip(records.LABELS, present.sum(0), strict=True)}


def _poor(quality: str | None) -> str | None:
    kept = quality is None or quality in records.KEPT_QUALITIES
    return None if kept else str(quality).lower().replace(" ", "_")


def _slug(quality: str | None) -> str:
    """Name of a group: "high" of High Quality."""
    return quality.lower().removesuffix(" quality").replace(" ", "_") if quality else UNJUDGED


def _prompts(table: pyarrow.Table) -> np.ndarray:
    """Keys of the prompts, uint64 (N,); each that stands several times is looked at once."""
    import pyarrow.compute as pc

    encoded = _whole(pc.dictionary_encode(pc.fill_null(table["prompt"], "")))
    found = splits.keys(splits.normalised(text) for text in encoded.dictionary.to_pylist())
    return np.asarray(found[encoded.indices.to_numpy()])


def _patients(table: pyarrow.Table, first: int) -> Iterator[str]:
    """A film whose patient is not known is a patient of its own."""
    for place, patient in enumerate(table["patient"].to_pylist()):
        yield f"p {patient}" if patient else f"row {first + place}"
