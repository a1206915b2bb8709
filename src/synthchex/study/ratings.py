"""Ratings of quality, preferences and diagnoses of readers, as numbers; and how metrics go with readers' opinions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths import readers, reliability, resampling
from synthchex.study.authenticity import Answer, Truth, by_reader, share

ASPECTS = ("anatomy", "pathology", "artefacts", "overall")
STEPS = 5  # of a rating, 1 to 5, higher is better
LEAST = 8  # films with a metric and an opinion to correlate


def quality(answers: Sequence[Answer], truth: Truth, *, confidence: float = 0.95) -> dict[str, Any]:
    """Ratings of each aspect by model, real films beside synthetic ones, and counts of failure tags.

    Means are over readers, for new readers and cases. The test between arms is Mann and Whitney's, on the mean rating
    of each case, since cases are what is independent; p values are adjusted over aspects (Holm).

    Returns:
        {"models": one row per model and aspect; "tests": one per aspect, real against synthetic; "between": weighted
        kappa of each pair of readers; "tags": {model: {tag: ratings with it}}, "comments": ratings with a text}.
    """
    first = by_reader(answers)
    model_of = {case: "real" if one["arm"] == "real" else str(one.get("model")) for case, one in truth.items()}
    found = {aspect: _matrix(first, aspect) for aspect in ASPECTS}
    rows, tests = [], []
    for aspect, (cases, values) in found.items():
        models = np.array([model_of[case] for case in cases])
        for model in sorted(set(models), key=lambda name: (name != "real", name)):
            part = values[:, models == model]
            row: dict[str, Any] = {"model": model, "aspect": aspect, "n": part.shape[1], "mean": float(part.mean())}
            interval = readers.crossed(part, confidence=confidence) if part.shape[1] > 1 else None
            ends = None if interval is None else [max(1.0, interval.low), min(float(STEPS), interval.high)]
            rows.append(row | {"interval": ends})
        tests.append({"aspect": aspect, **_between_arms(values.mean(axis=0), models == "real")})
    known = [test for test in tests if test["p_value"] is not None]
    for test, value in zip(known, resampling.adjusted([test["p_value"] for test in known]), strict=True):
        test["p_adjusted"] = float(value)
    return {"models": rows, "tests": tests, "between": _between_readers(found), **_tags(answers, model_of)}


def _between_arms(means: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """Synthetic less real in mean rating, and the p value of Mann and Whitney's test; None where an arm is missing."""
    from scipy.stats import mannwhitneyu

    if min(real.sum(), (~real).sum()) < 2:
        return {"difference": None, "p_value": None, "p_adjusted": None}
    p_value = float(mannwhitneyu(means[~real], means[real]).pvalue)
    return {"difference": float(means[~real].mean() - means[real].mean()), "p_value": p_value, "p_adjusted": None}


def _between_readers(found: Mapping[str, tuple[list[str], np.ndarray]]) -> list[dict[str, Any]]:
    rows = []
    for aspect, (_, values) in found.items():
        for one in range(len(values)):
            for two in range(one + 1, len(values)):
                first, second = (values[reader].astype(int) - 1 for reader in (one, two))
                kappa = reliability.weighted_kappa(first, second, STEPS)
                rows.append({"aspect": aspect, "readers": [one, two], "weighted_kappa": kappa})
    return rows


def _tags(answers: Sequence[Answer], model_of: Mapping[str, str]) -> dict[str, Any]:
    tags: dict[str, Counter[str]] = {}
    for row in answers:
        if not row["repeat"]:
            tags.setdefault(model_of[row["case"]], Counter()).update(row["answer"].get("tags") or [])
    written = sum(bool(row["answer"].get("comment")) for row in answers if not row["repeat"])
    return {"tags": {model: dict(count.most_common()) for model, count in sorted(tags.items())}, "comments": written}


def _matrix(first: Mapping[str, Sequence[Answer]], key: str) -> tuple[list[str], np.ndarray]:
    """Cases that every reader rated, and the ratings, float (R, C).

    Raises:
        ValueError: no such case.
    """
    given = [{row["case"]: row["answer"][key] for row in rows if row["answer"].get(key)} for rows in first.values()]
    cases = sorted(set.intersection(*(set(one) for one in given))) if given else []
    if not cases:
        raise ValueError(
            f"expected cases whose {key} every reader rated, got none; exclude readers who have only begun"
        )
    return cases, np.array([[one[case] for case in cases] for one in given], float)


def preference(answers: Sequence[Answer], truth: Truth, *, confidence: float = 0.95) -> dict[str, Any]:
    """Which of two models readers prefer: of the pairs with a preference, the share for each, by an exact sign test.

    A pair counts once: for the model that more readers prefer; pairs with as many for both count as undecided, so that
    readers of one pair are not taken for independent.

    Returns:
        {"pairs": one row per two models: `models`, `undecided`, the share for the first with both intervals, `p_value`,
        `p_adjusted` (Holm); "left": share of answers for the left side, which should be near a half}.
    """
    votes: dict[tuple[str, str], dict[frozenset[str], int]] = {}
    left = Counter[str]()
    for row in answers:
        if row["repeat"]:
            continue
        answer = row["answer"]
        left[answer["chosen"]] += 1
        sides = {side: answer[side] for side in ("left", "right")}
        names = sorted({str(truth[case].get("model")) for case in sides.values()})
        if len(names) < 2:
            continue
        counts = votes.setdefault((names[0], names[1]), {})
        key = frozenset(sides.values())
        chosen = sides.get(answer["chosen"])
        vote = 0 if chosen is None else (1 if str(truth[chosen].get("model")) == names[0] else -1)
        counts[key] = counts.get(key, 0) + vote
    rows = [_sign(models, list(counts.values()), confidence) for models, counts in sorted(votes.items())]
    tested = [row for row in rows if row["p_value"] is not None]
    for row, value in zip(tested, resampling.adjusted([row["p_value"] for row in tested]), strict=True):
        row["p_adjusted"] = float(value)
    decided = left["left"] + left["right"]
    return {"pairs": rows, "left": share(left["left"], decided, confidence) if decided else None}


def _sign(models: tuple[str, str], votes: Sequence[int], confidence: float) -> dict[str, Any]:
    from scipy.stats import binomtest

    first, decided = sum(vote > 0 for vote in votes), sum(vote != 0 for vote in votes)
    row: dict[str, Any] = {"models": list(models), "undecided": len(votes) - decided, "p_value": None}
    if not decided:
        return row | {"first": None, "p_adjusted": None}
    p_value = float(binomtest(first, decided).pvalue)
    return row | {"first": share(first, decided, confidence), "p_value": p_value, "p_adjusted": None}


def diagnosis(answers: Sequence[Answer], truth: Truth, *, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Findings that readers see, against the labels of the films, by arm: sensitivity and specificity of each label.

    Of synthetic films the labels are those of their prompts, so a low sensitivity is of the reader or of the generator;
    that of the same readers on real films tells which. Films whose label is uncertain or not mentioned are left out.
    A finding is seen where more than half of the readers named it; shares and Wilson's intervals are over cases. A film
    on which a reader named nothing but support devices is "No Finding" for him, as CheXpert has it.
    """
    seen: dict[str, list[set[str]]] = {}
    for given in by_reader(answers).values():
        for answer in given:
            present = set(answer["answer"]["present"])
            normal = set() if present - {"Support Devices"} else {"No Finding"}
            seen.setdefault(str(answer["case"]), []).append(present | normal)
    found = []
    for label in LABELS:
        for arm in ("real", "synthetic"):
            counted: dict[int, list[bool]] = {1: [], 0: []}
            for case, views in seen.items():
                state = (truth[case].get("labels") or {}).get(label)
                if truth[case]["arm"] == arm and state in counted:
                    counted[state].append(2 * sum(label in view for view in views) > len(views))
            with_it, without = counted[1], counted[0]
            row: dict[str, Any] = {"label": label, "arm": arm}
            row["sensitivity"] = share(sum(with_it), len(with_it), confidence) if with_it else None
            row["specificity"] = share(len(without) - sum(without), len(without), confidence) if without else None
            found += [row] if with_it or without else []
    return found


def correlations(
    opinions: Mapping[str, float],
    metrics: Mapping[str, Mapping[str, float]],
    *,
    adjustment: str = "holm",
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Spearman's correlation of each metric of a film with what readers think of it, with p values adjusted (Holm).

    Args:
        opinions: {film: mean over readers}, such as the share of readers who called it synthetic.
        metrics: {metric: {film: value}}, such as the columns of an evaluation's samples.
        adjustment: of p values over metrics.
        confidence: of the intervals.

    Returns:
        One row per metric: `rho` in [-1, 1] with its interval (Fisher's z with the variance of Bonett and Wright 2000),
        `n`, p values; no numbers below `LEAST` common films or where one side never varies.
    """
    from scipy.special import ndtri
    from scipy.stats import spearmanr

    rows: list[dict[str, Any]] = []
    for name, values in metrics.items():
        films = [film for film in opinions if film in values and np.isfinite(values[film])]
        one, two = (np.array([side[film] for film in films]) for side in (opinions, values))
        row: dict[str, Any] = {"metric": name, "n": len(films), "rho": None, "interval": None, "p_value": None}
        if len(films) >= LEAST and np.ptp(one) > 0 and np.ptp(two) > 0:
            test = spearmanr(one, two)
            rho = float(test.statistic)
            z = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
            reach = float(ndtri(0.5 + confidence / 2)) * np.sqrt((1 + rho**2 / 2) / (len(films) - 3))
            row |= {"rho": rho, "interval": [float(np.tanh(z - reach)), float(np.tanh(z + reach))]}
            row["p_value"] = float(test.pvalue)
        rows.append(row)
    known = [row for row in rows if row["p_value"] is not None]
    values_ = resampling.adjusted([row["p_value"] for row in known], adjustment)  # type: ignore[arg-type]
    for row, value in zip(known, values_, strict=True):
        row["p_adjusted"] = float(value)
    return rows
