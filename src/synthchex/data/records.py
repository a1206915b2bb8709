"""The row that every stage reads and writes, and its types. Knows nothing of files or networks.

The first four columns are those that users of SynthCheX-75K know. `labels_dict` holds the 14 CheXpert labels as
int8: 1 present, 0 absent, -1 uncertain, None not mentioned; a state is never turned into another silently.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Features

LABELS: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
STATES = (1, 0, -1, None)
QUALITIES: tuple[str, ...] = ("High Quality", "Medium Quality", "Low Quality", "Not Relevant")
KEPT_QUALITIES: tuple[str, ...] = QUALITIES[:2]

RECORD_COLUMNS: dict[str, str] = {"filename": "string", "prompt": "string"}
PROVENANCE_COLUMNS: dict[str, str] = {
    "id": "string",
    "seed": "int64",
    "model": "string",
    "revision": "string",
    "scheduler": "string",
    "steps": "int32",
    "guidance_scale": "float32",
    "height": "int32",
    "width": "int32",
    "dtype": "string",
    "versions": "string",
}
SOURCE_POLICY = "source_policy"
VERDICT_COLUMNS: dict[str, str] = {
    "quality": "string",
    "quality_scores": "string",
    "judge": "string",
    "drop_reason": "string",
}


def features(*, provenance: bool = True, verdict: bool = False) -> Features:
    """`datasets.Features` of a record.

    Args:
        provenance: add `id`, `seed`, `model` and the other columns that say how a film was made, and `source_policy`,
            where its prompt comes from: open, credentialed or unknown.
        verdict: add `quality`, `quality_scores` (JSON text), `judge` and `drop_reason` (slug, None when kept).
    """
    from datasets import Features, Image, Value

    types: dict[str, Any] = {"image": Image()}
    types |= {name: Value(kind) for name, kind in RECORD_COLUMNS.items()}
    types["labels_dict"] = {label: Value("int8") for label in LABELS}
    if provenance:
        types |= {name: Value(kind) for name, kind in PROVENANCE_COLUMNS.items()}
        types[SOURCE_POLICY] = Value("string")
    if verdict:
        types |= {name: Value(kind) for name, kind in VERDICT_COLUMNS.items()}
    return Features(types)


def labels_dict(found: Mapping[str, Any] | None = None) -> dict[str, int | None]:
    """All 14 labels from a partial mapping; labels that are not in it are None (not mentioned).

    Raises:
        ValueError: a name that is not one of the 14 labels, or a state other than 1, 0, -1, None.
    """
    found = found or {}
    unknown = sorted(set(found) - set(LABELS))
    if unknown:
        raise ValueError(
            f"labels must be among the 14 CheXpert labels {list(LABELS)}, got {unknown}; rename or drop them"
        )
    return {label: label_state(found.get(label), label) for label in LABELS}


def label_state(value: Any, label: str = "label") -> int | None:
    """One label state from what tables hold: 1, 1.0, "1", 0, -1, None, NaN or an empty cell."""
    if value is None or (isinstance(value, str) and value.strip().lower() in {"", "nan", "none", "null"}):
        return None
    if isinstance(value, numbers.Real) and math.isnan(float(value)):
        return None
    try:
        state = float(value)
    except (TypeError, ValueError):
        state = math.nan
    if state not in (1.0, 0.0, -1.0):
        raise ValueError(f"{label} must be 1, 0, -1 or empty, got {value!r}; map the column to these states first")
    return int(state)


def row_seed(run_seed: int, row_id: str, repeat: int = 0) -> int:
    """Seed of one row: a function of run seed, row id and repeat alone, so of neither batch nor process. In [0,
    2**63).
    """
    digest = hashlib.sha256(f"{run_seed}\x1f{row_id}\x1f{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fingerprint(parts: Any) -> str:
    """Short stable hash of a JSON-able value: 16 hex digits."""
    return hashlib.sha256(_json(parts)).hexdigest()[:16]


def fingerprint_long(columns: Iterable[Iterable[Any] | str | None]) -> str:
    """`fingerprint` of the list of long columns, without all of their text in memory."""
    found = hashlib.sha256()
    for number, column in enumerate(columns):
        found.update(b"," if number else b"[")
        if column is None or isinstance(column, str):
            found.update(_json(column))
            continue
        values, opening = iter(column), b"["
        while some := list(islice(values, 4096)):
            found.update(opening + _json(some)[1:-1])
            opening = b","
        found.update(b"]" if opening == b"," else b"[]")
    found.update(b"]")
    return found.hexdigest()[:16]


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
