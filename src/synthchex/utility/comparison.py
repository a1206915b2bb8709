"""Runs of several arms and seeds to the rows of results.json. Knows probabilities and labels; trains nothing.

A label is scored where the test set has enough films with it and without it, and every arm could learn it: means over
labels are then over the same labels for every arm. A label that is not scored keeps its name and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths import ranking
from synthchex.maths.ranking import Auroc
from synthchex.maths.resampling import adjusted
from synthchex.utility import scoring
from synthchex.utility.request import Request
from synthchex.utility.runs import Run
from synthchex.utility.scoring import Difference, Resampled, Scored
from synthchex.utility.sets import Films

BOOTSTRAPPED = ("average_precision", "f1", "precision", "recall", "brier", "ece")


class Outcome(NamedTuple):
    """An arm on a test set: every scored label, one `Scored` per seed."""

    labels: dict[str, list[Scored]]

    def area(self, labels: Sequence[str]) -> Auroc:
        """Mean AUROC over labels and seeds."""
        return ranking.mean_auroc([one.area for label in labels for one in self.labels[label]])


def states(test: Films, runs: Mapping[str, Sequence[Run]], request: Request) -> dict[str, str]:
    """Of each label: "ok", or why it is not scored on this set."""
    found = {}
    for column, label in enumerate(LABELS):
        sides = _sides(test, column)
        few = min(int(side.sum()) for side in sides) < request.min_rows
        few = few or min(len(np.unique(test.groups[side])) for side in sides) < 2
        taught = all(run.trained[column] for made in runs.values() for run in made)
        found[label] = "insufficient n" if few else "ok" if taught else "not trained: no films of both kinds"
    return found


def tuned_alike(made: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """The runs without the thresholds of labels that some run could not tune: F1 is then over the same labels."""
    missing = np.any([np.isnan(run.thresholds) for runs in made.values() for run in runs], axis=0)
    return {
        arm: [replace(run, thresholds=np.where(missing, np.nan, run.thresholds)) for run in runs]
        for arm, runs in made.items()
    }


def _sides(test: Films, column: int) -> tuple[np.ndarray, np.ndarray]:
    known, present = test.labels.mask[:, column], test.labels.values[:, column] == 1
    return present & known, ~present & known


def outcome(
    test: Films, runs: Sequence[Run], told: Mapping[str, str], patients: Resampled, request: Request
) -> Outcome:
    """Scores of one arm, of every label whose state is ok."""
    found: dict[str, list[Scored]] = {}
    for column, label in enumerate(LABELS):
        if told[label] != "ok":
            continue
        found[label] = [
            scoring.score(
                run.tests[test.name][:, column],
                test.labels.values[:, column] == 1,
                test.labels.mask[:, column],
                float(run.thresholds[column]),
                patients=patients,
                confidence=request.confidence_level,
            )
            for run in runs
        ]
    return Outcome(found)


def rows(
    arm: str, test: Films, ours: Outcome, told: Mapping[str, str], base: Outcome | None, request: Request
) -> dict[str, Any]:
    """One arm on one test set, as it goes into results.json.

    Args:
        ours: of the arm.
        told: states of all labels.
        base: of the arm that it is compared with, on the same films; None for the baseline itself.
    """
    labels = [_label(label, test, ours, told[label], base, request) for label in LABELS]
    scored = [row for row in labels if row["state"] == "ok"]
    if base is not None:
        holm = adjusted([row["p_value"] for row in scored])
        for row, p_value in zip(scored, holm, strict=True):
            row |= {"p_adjusted": float(p_value), "differs": bool(p_value < request.alpha)}
    names = [row["label"] for row in scored]
    macro = _values(ours, names, request) | _against(ours, base, names, len(np.unique(test.groups)), request)
    return {
        "arm": arm,
        "test": test.name,
        "n": len(test),
        "patients": len(np.unique(test.groups)),
        "macro": {"labels": len(names), **macro},
        "labels": labels,
    }


def _label(
    label: str, test: Films, ours: Outcome, state: str, base: Outcome | None, request: Request
) -> dict[str, Any]:
    sides = _sides(test, LABELS.index(label))
    positive, negative = (int(side.sum()) for side in sides)
    row: dict[str, Any] = {"label": label, "state": state, "n_positive": positive, "n_negative": negative}
    if state != "ok":
        return row
    rarer = min(len(np.unique(test.groups[side])) for side in sides)
    return row | _values(ours, [label], request) | _against(ours, base, [label], rarer, request)


def _values(ours: Outcome, labels: Sequence[str], request: Request) -> dict[str, Any]:
    """Mean over labels and seeds of every score, with its interval and spread; None where there is no label."""
    keys = ("auroc", *BOOTSTRAPPED)
    if not labels:
        return {key: None for name in keys for key in (name, f"{name}_interval", f"{name}_seeds")}
    area = ours.area(labels)
    found: dict[str, Any] = {"auroc": area.value, "auroc_interval": [area.low, area.high]}
    found["auroc_seeds"] = [float(np.mean(values)) for values in _by_seed(ours, labels, "auroc")]
    for name in BOOTSTRAPPED:
        per_seed = [_mean(values) for values in _by_seed(ours, labels, name)]
        value = _mean(per_seed)
        ends = scoring.interval(value, drawn(ours, labels, name), request.confidence_level, centred=name == "ece")
        known = bool(np.isfinite(value))
        found |= {
            name: value if known else None,
            f"{name}_interval": ends,
            f"{name}_seeds": per_seed if known else None,
        }
    return found


def _by_seed(ours: Outcome, labels: Sequence[str], name: str) -> list[list[float]]:
    """The plain scores of all labels, of each seed."""
    table = np.array([[one.plain[name] for one in ours.labels[label]] for label in labels])
    return [[float(value) for value in column] for column in table.T]


def drawn(ours: Outcome, labels: Sequence[str], name: str) -> np.ndarray:
    """Mean over labels and seeds of every bootstrap draw, (resamples,)."""
    every = np.array([one.drawn[name] for label in labels for one in ours.labels[label]])
    usable = ~np.isnan(every).all(1)  # a label without a threshold has no F1 in any draw
    return np.asarray(every[usable].mean(0)) if usable.any() else np.full(every.shape[1], np.nan)


def _mean(values: Sequence[float]) -> float:
    usable = [value for value in values if np.isfinite(value)]
    return float(np.mean(usable)) if usable else float("nan")


def _against(
    ours: Outcome, base: Outcome | None, labels: Sequence[str], rarer: int, request: Request
) -> dict[str, Any]:
    """Differences to the baseline; {} for the baseline itself."""
    if base is None or not labels:
        return {}
    gap = scoring.paired(
        *([_of_seed(side, labels, seed) for seed in range(len(side.labels[labels[0]]))] for side in (ours, base)),
        clusters=rarer,
        confidence=request.confidence_level,
    )
    found = differences(gap)
    for name in BOOTSTRAPPED:
        pairs = [_mean([_mean(values) for values in _by_seed(side, labels, name)]) for side in (ours, base)]
        value = pairs[0] - pairs[1]
        if np.isfinite(value):
            moved = drawn(ours, labels, name) - drawn(base, labels, name)
            low, high = np.nanquantile(moved, [0.5 - request.confidence_level / 2, 0.5 + request.confidence_level / 2])
            found |= {f"{name}_difference": value, f"{name}_difference_interval": [float(low), float(high)]}
    return found


def _of_seed(side: Outcome, labels: Sequence[str], seed: int) -> Auroc:
    return ranking.mean_auroc([side.labels[label][seed].area for label in labels])


def differences(gap: Difference) -> dict[str, Any]:
    """A difference of AUROCs as keys of a row; what is not known is None."""
    known = {name: None if np.isnan(value) else float(value) for name, value in gap._asdict().items()}
    return {
        "difference": known["value"],
        "difference_interval": [known["low"], known["high"]],
        "p_value": known["p_value"],
        "test_error": known["test_error"],
        "seed_error": known["seed_error"],
    }


def pooled(test: Films, runs: Sequence[Run], told: Mapping[str, str]) -> dict[str, float | None]:
    """Accuracy, precision, recall and F1 of all decisions on scored labels together (micro), mean over seeds."""
    columns = [i for i, label in enumerate(LABELS) if told[label] == "ok"]
    found: dict[str, list[float]] = {key: [] for key in ("accuracy", "precision_micro", "recall_micro", "f1_micro")}
    for run in runs:
        tuned = [column for column in columns if np.isfinite(run.thresholds[column])]
        known, truth = test.labels.mask[:, tuned], test.labels.values[:, tuned] == 1
        if not known.any():
            return dict.fromkeys(found)
        called = run.tests[test.name][:, tuned] >= run.thresholds[tuned]
        hits, calls, positive = (int((one & known).sum()) for one in (called & truth, called, truth))
        found["accuracy"].append(float((called == truth)[known].mean()))
        found["precision_micro"].append(hits / calls if calls else 0.0)
        found["recall_micro"].append(hits / positive if positive else 0.0)
        found["f1_micro"].append(2 * hits / (calls + positive) if calls + positive else 0.0)
    return {key: float(np.mean(values)) for key, values in found.items()}
