"""Does a model serve everyone alike: AUROC and missed findings by sex, age and view, where a test set knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import tables
from synthchex.data.records import LABELS
from synthchex.utility import scoring
from synthchex.utility.request import Request
from synthchex.utility.runs import Run
from synthchex.utility.scoring import Resampled
from synthchex.utility.sets import Films

ALIASES = {
    "sex": ("sex", "gender", "patientsex", "patient_sex", "patient_gender", "patient gender"),
    "age": ("age", "patientage", "patient_age", "patient age", "anchor_age"),
}
WORDS = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male"}
LEAST = 2  # patients of either kind


def people(source: str, *, split: str = "train") -> dict[str, list[str]]:
    """Columns of sex and age of a table, one value per row; {} where it is a folder of films or has neither."""
    path = Path(source)
    if path.is_dir() and not tables.is_dataset_folder(path):
        return {}
    table = tables.open_table(source, split=split, whole=False)
    found: dict[str, list[str]] = {}
    for role, names in ALIASES.items():
        columns = [column for column in table.columns if column.strip().lower() in names]
        if len(columns) == 1:
            found[role] = ["" if value is None else str(value).strip() for value in table.column(columns[0])]
    return found


def bands(column: str, values: Sequence[str], edges: Sequence[float]) -> list[str]:
    """The group of each film, "" where it is not known: ages by band, sexes by word, others as they are."""
    if column == "sex":
        return [WORDS.get(value.strip().lower(), "") for value in values]
    if column != "age":
        return [value.strip() for value in values]
    names = _names(edges)
    ages = [_years(value) for value in values]
    return ["" if age is None else names[int(np.searchsorted(edges, age, side="right"))] for age in ages]


def _names(edges: Sequence[float]) -> list[str]:
    first, last = f"below {edges[0]:g}", f"{edges[-1]:g} and above"
    return [first, *(f"{low:g} to {high - 1:g}" for low, high in pairwise(edges)), last]


def _years(value: str) -> float | None:
    """Age in years from 63, 63.0, or DICOM's 063Y, 018M, 012W, 009D."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([YyMmWwDd]?)", value.strip())
    if match is None:
        return None
    per_year = {"": 1.0, "y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}[match[2].lower()]
    return float(match[1]) / per_year


def subgroups(
    test: Films, runs: Sequence[Run], told: Mapping[str, str], patients: Resampled, request: Request
) -> list[dict[str, Any]]:
    """Scores of one arm by group.

    Args:
        test: with `people`.
        runs: of the arm, one per seed.
        told: states of the labels on the whole set.

    Returns:
        A row per group: mean AUROC and mean share of missed findings (1 - recall at the threshold from validation) over
        the labels that every group of the column has enough films of, each with its interval, and less the same of all
        other films of the column, with its interval: bootstrap of patients. Groups without enough films have a state.
    """
    found = []
    for column, values in test.people.items():
        named = np.array(bands(column, values, request.age_bands), object)
        sizes = {str(name): int((named == name).sum()) for name in sorted(set(named) - {""})}
        usable = {name: _labels(test, named == name, told, request) for name in sizes}
        groups = [name for name, labels in usable.items() if labels]
        labels = sorted(set.intersection(*(usable[name] for name in groups))) if len(groups) > 1 else []
        masks = {name: named == name for name in groups}
        drawn = _drawn(test, runs, masks, labels, patients, request) if labels else {}
        for name, size in sizes.items():
            row: dict[str, Any] = {"column": column, "group": name, "n": size, "labels": len(labels)}
            scored = name in drawn
            found.append(row | {"state": "ok"} | drawn[name] if scored else row | {"state": "insufficient n"})
    return found


def _labels(test: Films, rows: np.ndarray, told: Mapping[str, str], request: Request) -> set[str]:
    """Labels that a group has enough films of, with and without it."""
    kept = set()
    for column, label in enumerate(LABELS):
        known, present = test.labels.mask[:, column] & rows, test.labels.values[:, column] == 1
        sides = (known & present, known & ~present)
        enough = min(int(side.sum()) for side in sides) >= request.min_rows
        if told[label] == "ok" and enough and min(len(np.unique(test.groups[side])) for side in sides) >= LEAST:
            kept.add(label)
    return kept


def _drawn(
    test: Films,
    runs: Sequence[Run],
    groups: Mapping[str, np.ndarray],
    labels: Sequence[str],
    patients: Resampled,
    request: Request,
) -> dict[str, dict[str, Any]]:
    """Both scores of every group and of the rest of its column, plain and in every draw."""
    every = np.any(list(groups.values()), axis=0)
    blocks = [np.ones((1, len(test))), *patients.blocks()]
    found = {}
    for name, rows in groups.items():
        own, rest = (_scores(test, runs, side, labels, blocks) for side in (rows, every & ~rows))
        row: dict[str, Any] = {}
        for key in ("auroc", "missed"):
            value, gap = own[key], own[key] - rest[key]
            row |= {key: _known(value[0]), f"{key}_interval": _ends(value[1:], request)}
            row |= {f"{key}_gap": _known(gap[0]), f"{key}_gap_interval": _ends(gap[1:], request)}
        found[name] = row
    return found


def _scores(
    test: Films, runs: Sequence[Run], rows: np.ndarray, labels: Sequence[str], blocks: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Mean over labels and seeds, plain first, then of every draw, (1 + resamples,)."""
    areas, missed = [], []
    for label in labels:
        column = LABELS.index(label)
        chosen = rows & test.labels.mask[:, column]
        truth = test.labels.values[chosen, column] == 1
        for run in runs:
            given = run.tests[test.name][chosen, column], truth, float(run.thresholds[column])
            parts = [scoring.weighted(*given, block[:, chosen]) for block in blocks]
            areas.append(np.concatenate([part["auroc"] for part in parts]))
            missed.append(1 - np.concatenate([part["recall"] for part in parts]))
    tuned = [one for one in missed if not np.isnan(one).all()] or missed[:1]
    return {"auroc": np.mean(areas, axis=0), "missed": np.mean(tuned, axis=0)}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ends(draws: np.ndarray, request: Request) -> list[float] | None:
    usable = draws[np.isfinite(draws)]
    if len(usable) < len(draws) / 2:
        return None
    half = request.confidence_level / 2
    low, high = np.quantile(usable, [0.5 - half, 0.5 + half])
    return [float(low), float(high)]
