"""What the verdicts on planted cases say of a judge: recall per defect, order, captions, calibration. Knows numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from synthchex.data import records
from synthchex.maths import ranking, reliability
from synthchex.trials.cases import KEEP, LOW, MILD, NOT_RELEVANT, Case
from synthchex.trials.defects import DEFECTS, NEUTRAL

CONFIDENCE = 0.95
RISE = 0.05  # of the score of being kept, which a worse film should not bring
ANSWERS = (*records.QUALITIES, "no answer")


def findings(
    cases: Sequence[Case],
    qualities: Sequence[str | None],
    keeps: np.ndarray,
    *,
    dropped_by_screens: Mapping[str, np.ndarray] | None = None,
    flipped: np.ndarray | None = None,
    precision: float = 0.95,
) -> dict[str, Any]:
    """Everything that is measured of a judge, as JSON can hold it.

    Args:
        cases: N cases, of `cases.plan`.
        qualities: the class given to each; None where there was no answer.
        keeps: (N,) score of being kept, in [0, 1]; NaN where there was no answer.
        dropped_by_screens: {reason: bool (N,)}.
        flipped: bool (N,), answers that changed when the classes were offered in reverse order; None if not asked.
        precision: that the threshold keeps.
    """
    kept = np.array([quality in records.KEPT_QUALITIES for quality in qualities])
    found: dict[str, Any] = {
        "cases": len(cases),
        "films": len({case.row for case in cases}),
        "unanswered": sum(quality is None for quality in qualities),
        "by_kind": by_kind(cases, ~kept, dropped_by_screens or {}),
        "order": order(cases, keeps),
        "captions": captions(cases, keeps),
        "confusion": confusion(cases, qualities),
        "by_label": by_label(cases, kept),
        **reliable(cases, keeps, precision),
    }
    if flipped is not None:
        found["flipped_by_order"] = share(flipped)
    return found


def share(hits: np.ndarray) -> dict[str, Any]:
    """Hits of trials, and the exact binomial interval of their share; None where there was no trial."""
    if not len(hits):
        return {"hits": 0, "n": 0, "share": None, "low": None, "high": None}
    ends = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, method="exact")
    return {
        "hits": int(hits.sum()),
        "n": len(hits),
        "share": float(hits.mean()),
        "low": float(ends.low),
        "high": float(ends.high),
    }


def by_kind(cases: Sequence[Case], dropped: np.ndarray, screens: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Of every defect and severity: what the judge drops, what each screen drops, and what either does."""
    groups: dict[tuple[str, int], list[int]] = {}
    for number, case in enumerate(cases):
        groups.setdefault((case.kind, case.severity), []).append(number)
    either = np.logical_or.reduce([dropped, *screens.values()])
    return [
        {
            "kind": kind,
            "severity": severity,
            "expected": cases[rows[0]].expected,
            "judge": share(dropped[rows]),
            "screens": {reason: float(hit[rows].mean()) for reason, hit in screens.items() if hit[rows].any()},
            "either": share(either[rows]),
        }
        for (kind, severity), rows in groups.items()
    ]


def order(cases: Sequence[Case], keeps: np.ndarray) -> dict[str, Any]:
    """Of defects with three severities: the mean score of being kept at each, and how many steps to a worse film do
    not raise it by more than RISE.
    """
    score = {(case.row, case.kind, case.severity): keep for case, keep in zip(cases, keeps, strict=True)}
    found = {}
    for kind, defect in DEFECTS.items():
        if len(defect.severities) < 2:
            continue
        rows = sorted({case.row for case in cases if case.kind == kind})
        steps = np.array(
            [[score[row, NEUTRAL, 0], *[score[row, kind, severity] for severity in defect.severities]] for row in rows]
        )
        falls = np.diff(steps, axis=1) <= RISE
        whole = ~np.isnan(steps).any(axis=1)
        found[kind] = {
            "mean_keep": [float(mean) for mean in np.nanmean(steps, axis=0)],
            "ordered_steps": share(falls[whole].ravel()),
        }
    return found


def captions(cases: Sequence[Case], keeps: np.ndarray) -> dict[str, Any]:
    """AUROC of the score of being kept between right and wrong captions of the same films; None where it cannot be
    measured. 0.5: the judge does not read the caption.
    """
    kinds = np.array([case.kind for case in cases])
    known = ~np.isnan(keeps)
    pairs = {"mismatched": NEUTRAL, "negated": "stated"}
    found: dict[str, Any] = {}
    for wrong, right in pairs.items():
        present, absent = (kinds == right) & known, (kinds == wrong) & known
        if min(present.sum(), absent.sum()) < 2:
            found[wrong] = None
            continue
        rows = np.array([case.row for case in cases])
        value = ranking.auroc(np.nan_to_num(keeps), present, absent, clusters=rows)
        found[wrong] = {
            "auroc": value.value,
            "low": value.low,
            "high": value.high,
            "n": [int(present.sum()), int(absent.sum())],
        }
    return found


def confusion(cases: Sequence[Case], qualities: Sequence[str | None]) -> dict[str, Any]:
    """Answers by what was expected, and accuracy: of three outcomes (kept, Low Quality, Not Relevant), and of two."""
    table = {expected: dict.fromkeys(ANSWERS, 0) for expected in (KEEP, MILD, LOW, NOT_RELEVANT)}
    three, two = [], []
    for case, quality in zip(cases, qualities, strict=True):
        table[case.expected][quality or ANSWERS[-1]] += 1
        if case.expected == MILD:
            continue
        kept = quality in records.KEPT_QUALITIES
        two.append(kept == (case.expected == KEEP))
        wanted = {LOW: "Low Quality", NOT_RELEVANT: "Not Relevant"}.get(case.expected)
        three.append(kept if wanted is None else quality == wanted)
    return {"table": table, "kept_or_dropped": share(np.array(two)), "outcome": share(np.array(three))}


def by_label(cases: Sequence[Case], kept: np.ndarray) -> dict[str, Any]:
    """Share of good films kept, by label: a judge that drops what is rare biases the set."""
    found = {}
    clean = np.array([case.kind == NEUTRAL for case in cases])
    for column, label in enumerate(records.LABELS):
        positive = np.array([case.labels[column] == 1 for case in cases])
        if (clean & positive).any():
            found[label] = share(kept[clean & positive])
    return found


def reliable(cases: Sequence[Case], keeps: np.ndarray, precision: float) -> dict[str, Any]:
    """Calibration curve of the score of being kept, and the threshold that keeps a precision, on this mix of cases."""
    used = np.array([case.expected != MILD for case in cases]) & ~np.isnan(keeps)
    good = np.array([case.expected == KEEP for case in cases])[used]
    if not len(good):
        return {"curve": None, "threshold": None}
    drawn, found = reliability.curve(keeps[used], good), reliability.threshold(keeps[used], good, precision)
    return {
        "curve": {
            "score": drawn.score.tolist(),
            "share": drawn.share.tolist(),
            "n": drawn.films.tolist(),
            "error": drawn.error,
        },
        "threshold": None if found is None else {"precision_asked": precision, **found._asdict()},
        "good_films": float(good.mean()),
    }


def ratings(given: Mapping[str, Sequence[str | None]], judged: Sequence[str | None], seed: int) -> dict[str, Any]:
    """Weighted kappa of the judge with each human, and of humans with each other, with bootstrap intervals.

    Args:
        given: {reader: class of each film, None where not rated}.
        judged: class that the judge gave each film.
    """
    everyone = {**given, "judge": judged}
    names, found = list(everyone), []
    for place, one in enumerate(names):
        for two in names[place + 1 :]:
            pairs = [
                (records.QUALITIES.index(a), records.QUALITIES.index(b))
                for a, b in zip(everyone[one], everyone[two], strict=True)
                if a is not None and b is not None
            ]
            found.append({"between": [one, two], "n": len(pairs), **_kappa(np.array(pairs), seed)})
    return {"statistic": "quadratic-weighted kappa", "pairs": found}


def _kappa(pairs: np.ndarray, seed: int) -> dict[str, Any]:
    if len(pairs) < 2:
        return {"kappa": None, "low": None, "high": None}
    levels = len(records.QUALITIES)
    value = reliability.weighted_kappa(pairs[:, 0], pairs[:, 1], levels)
    low, high = reliability.kappa_interval(pairs[:, 0], pairs[:, 1], levels, seed=seed)
    return {"kappa": value, "low": None if value is None else low, "high": None if value is None else high}
