"""What leaves a study as files: predictions of single films, and the CSV files of CheXGenBench under their names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records, shards
from synthchex.data.records import LABELS
from synthchex.utility.sets import Films

if TYPE_CHECKING:
    import pyarrow

Predictions = Mapping[str, tuple[Films, Mapping[str, Sequence[np.ndarray]]]]
KEYS = ("accuracy", "precision_micro", "recall_micro", "f1_micro", "precision_macro", "recall_macro", "f1_macro",
        "auc_macro")  # fmt: skip


def predictions_table(predictions: Predictions) -> pyarrow.Table:
    """One row per film, arm and seed: set, film (a hash of its id), arm, seed, and of each label its probability, and
    what is known of it (1, 0, or null).
    """
    import pyarrow as pa

    parts = []
    for name, (test, arms) in predictions.items():
        films = [records.fingerprint([name, film]) for film in test.images.ids]
        truth = np.where(test.labels.mask, test.labels.values, np.nan)
        for arm, seeds in arms.items():
            for seed, probabilities in enumerate(seeds):
                columns: dict[str, Any] = {"set": [name] * len(films), "film": films, "arm": [arm] * len(films)}
                columns["seed"] = np.full(len(films), seed, np.int32)
                for column, label in enumerate(LABELS):
                    columns[label] = probabilities[:, column].astype(np.float32)
                    columns[f"{label}, label"] = pa.array(truth[:, column], pa.float32(), from_pandas=True)
                parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def write_csv(folder: Path, study: Mapping[str, Any], predictions: Predictions, *, extra_info: str) -> None:
    """`SETTING/metrics.csv_<name>` and `SETTING/per_class_metrics_<name>.csv` of the first test set, as the benchmark
    writes them: the same names of files and columns; of every label there is a row, empty where it was not scored.
    Thresholds are those from validation films, not 0.5, and labels that are not known are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(predictions))
    for row in study["scores"]:
        if row["test"] != first:
            continue
        place = folder / row["arm"]
        place.mkdir(exist_ok=True)
        classes = [
            {
                "class": one["label"],
                **{key: one.get(key) for key in ("precision", "recall", "f1")},
                "auc": one.get("auroc"),
            }
            for one in row["labels"]
        ]
        _write(place / f"per_class_metrics_{extra_info}.csv", classes)
        macro = {f"{key}_macro": row["macro"][key] for key in ("precision", "recall", "f1")}
        whole = {**row["pooled"], **macro, "auc_macro": row["macro"]["auroc"]}
        _write(place / f"metrics.csv_{extra_info}", [{key: whole[key] for key in KEYS}])


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    shards.write_whole(path, text.getvalue().encode())
