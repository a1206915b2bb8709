"""Real or synthetic: what readers' calls and confidences say, of each reader and of readers like these.

Knows answers and truth as rows, see `answers.table` and `answers.truth`; knows neither films nor pages. A call of
"synthetic" is positive. Confidences make the calls an ordered scale from surely real to surely synthetic, which the
AUROC is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from synthchex.maths import ranking, readers, reliability, resampling
from synthchex.maths.readers import Mean

Answer = Mapping[str, Any]
Truth = Mapping[str, Mapping[str, Any]]

CHANCE = 0.5
LEVELS = 5  # of confidence


class Calls(NamedTuple):
    """Calls of one reader, once per case: cases, whether called synthetic, whether it is, signed confidence, seconds
    and place in the reader's order."""

    cases: list[str]
    said: np.ndarray
    truth: np.ndarray
    score: np.ndarray
    seconds: np.ndarray
    position: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Which calls are right, bool (C,)."""
        return np.asarray(self.said == self.truth)


def balanced(right: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Right calls weighted so that both arms count alike: of a reader who only guesses the mean is 0.5, however many
    films each arm has. Where arms are equally large these are the calls themselves.

    Args:
        right: bool (..., C), which calls are right.
        truth: bool (C,), True for synthetic; some of each.

    Returns:
        float (..., C), their mean the mean of sensitivity and specificity.
    """
    films = np.where(truth, truth.sum(), (~truth).sum())
    return np.asarray(CHANCE + len(truth) / (2 * films) * (right - CHANCE))


def analyse(
    answers: Sequence[Answer], truth: Truth, *, margin: float = 0.1, alpha: float = 0.05, confidence: float = 0.95
) -> dict[str, Any]:
    """The whole of the task.

    Args:
        answers: rows of the task, practice left out, repeats in.
        truth: of each case, `arm`, `model`, `stratum`.
        margin: accuracy within this of 0.5 counts as chance in the test of equivalence.
        alpha: of that test.
        confidence: of all intervals.

    Returns:
        {"readers": one row each, see `of_reader`; "together": see `of_all`; "agreement": between readers; "models",
        "strata": shares of each, see `of_parts`; "learning": whether answers change along the order}.

    Raises:
        ValueError: a reader without answers to both arms.
    """
    first = {name: calls(rows, truth) for name, rows in by_reader(answers).items()}
    rows = [of_reader(name, found, repeated(answers, name), confidence) for name, found in first.items()]
    p_values = [row["p_value"] for row in rows]
    for row, value in zip(rows, resampling.adjusted(p_values), strict=True):
        row["p_adjusted"] = float(value)
    cases, said, real = common(first)
    return {
        "readers": rows,
        "together": of_all(first, margin=margin, alpha=alpha, confidence=confidence),
        "agreement": agreement(said),
        "models": of_parts(first, {case: str(one.get("model")) for case, one in truth.items()}, confidence),
        "strata": of_parts(first, {case: str(one.get("stratum")) for case, one in truth.items()}, confidence),
        "learning": [learning(name, found) for name, found in first.items()],
        "cases": {"synthetic": int(real.sum()), "real": int((~real).sum()), "read_by_all": len(cases)},
    }


def by_reader(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers of each reader in the order they were given; repeats are left out."""
    found: dict[str, list[Answer]] = {}
    for row in sorted(answers, key=lambda row: (str(row["reader"]), row["position"])):
        if not row["repeat"]:
            found.setdefault(str(row["reader"]), []).append(row)
    return found


def calls(rows: Sequence[Answer], truth: Truth) -> Calls:
    """One reader's answers as arrays, by case.

    Raises:
        ValueError: fewer than 2 films of an arm.
    """
    rows = sorted(rows, key=lambda row: str(row["case"]))
    said = np.array([row["answer"]["call"] == "synthetic" for row in rows], bool)
    real = np.array([truth[row["case"]]["arm"] == "synthetic" for row in rows], bool)
    if min(real.sum(), (~real).sum()) < 2:
        raise ValueError(
            f"expected a reader's calls of at least 2 films of each arm, got {real.sum()} synthetic and "
            f"{(~real).sum()} real; exclude readers who have only begun"
        )
    sure = np.array([row["answer"]["confidence"] for row in rows], float)
    columns = (np.array([row[name] for row in rows], float) for name in ("seconds", "position"))
    return Calls([str(row["case"]) for row in rows], said, real, np.where(said, sure, -sure), *columns)


def of_reader(name: str, found: Calls, twice: Sequence[tuple[Answer, Answer]], confidence: float) -> dict[str, Any]:
    """Numbers of one reader: shares with both intervals, d', AUROC (DeLong), time, agreement with himself."""
    synthetic, real = found.truth, ~found.truth
    hits, alarms = int(found.said[synthetic].sum()), int(found.said[real].sum())
    shares = {
        "accuracy": (int(found.right.sum()), len(found.cases)),
        "sensitivity": (hits, int(synthetic.sum())),
        "specificity": (int(real.sum()) - alarms, int(real.sum())),
        "fool_rate": (int(synthetic.sum()) - hits, int(synthetic.sum())),
    }
    told: dict[str, Any] = {key: share(*counts, confidence) for key, counts in shares.items()}
    even = readers.crossed(balanced(found.right, synthetic)[None], confidence=confidence)
    interval = told["accuracy"]["wilson"] if equal_arms(synthetic) else list(_low_high(even))
    told["balanced_accuracy"] = {"value": even.value, "interval": interval}
    detected = readers.detection(hits, int(synthetic.sum()), alarms, int(real.sum()), confidence=confidence)
    area = ranking.auroc(found.score, synthetic, real, confidence=confidence)
    return {
        "reader": name,
        **told,
        "d_prime": detected.d_prime,
        "d_prime_interval": [detected.low, detected.high],
        "criterion": detected.criterion,
        "auc": area.value,
        "auc_interval": [area.low, area.high],
        "roc": roc(found.score, synthetic),
        "p_value": against_chance(hits, alarms, synthetic),
        "seconds": float(np.median(found.seconds)),
        "within": within(twice),
    }


def roc(scores: np.ndarray, truth: np.ndarray) -> list[list[float]]:
    """Points of the ROC curve from (0, 0) to (1, 1): shares of real and of synthetic films at or above each score."""
    steps = np.unique(scores)[::-1]
    points = [[float((scores[part] >= step).mean()) for part in (~truth, truth)] for step in steps]
    return [[0.0, 0.0], *points]


def equal_arms(synthetic: np.ndarray) -> bool:
    """Whether there are as many synthetic as real films, so that chance is an accuracy of 0.5."""
    return bool(2 * synthetic.sum() == len(synthetic))


def against_chance(hits: int, alarms: int, synthetic: np.ndarray) -> float:
    """Exact two-sided p value of one reader's calls: binomial of right calls, Fisher's where arms differ in size.

    Args:
        hits: synthetic films called synthetic.
        alarms: real films called synthetic.
        synthetic: bool (C,), which films are.
    """
    from scipy.stats import binomtest, fisher_exact

    fakes, reals = int(synthetic.sum()), int((~synthetic).sum())
    if equal_arms(synthetic):
        return float(binomtest(hits + reals - alarms, fakes + reals, CHANCE).pvalue)
    return float(fisher_exact([[hits, fakes - hits], [alarms, reals - alarms]])[1])


def share(hits: int, trials: int, confidence: float) -> dict[str, Any]:
    """A share of answers as it goes into results.json."""
    found = readers.proportion(hits, trials, confidence=confidence)
    return {
        "hits": hits,
        "n": trials,
        "value": found.value,
        "wilson": list(found.wilson),
        "exact": list(found.exact),
    }


def of_all(first: Mapping[str, Calls], *, margin: float, alpha: float, confidence: float) -> dict[str, Any]:
    """Means over readers, for new readers and new cases, of the cases that all of them read.

    Both arms count alike in the accuracy, see `balanced`. With one reader, or where all calls are right or all wrong,
    the intervals of shares are Wilson's over cases and the p value is exact; the AUROC has DeLong's interval.
    """
    _, said, truth = common(first)
    right = said == truth
    values = {
        "accuracy": balanced(right, truth),
        "sensitivity": right[:, truth].astype(float),
        "specificity": right[:, ~truth].astype(float),
        "fool_rate": 1.0 - right[:, truth],
    }
    found = {name: readers.crossed(part, confidence=confidence) for name, part in values.items()}
    scores = _scores(first)
    found["auc"] = readers.crossed(
        np.stack([readers.pseudovalues(row, truth) for row in scores]), confidence=confidence
    )
    told: dict[str, Any] = {name: bounded(mean) for name, mean in found.items()}
    for name, part in values.items():
        if name != "accuracy" or equal_arms(truth):
            low, high = of_share(found[name], part, confidence)
            told[name] |= {"low": low, "high": high}
    p_value = readers.differs(found["accuracy"], CHANCE)
    if len(first) == 1 or found["accuracy"].standard_error == 0:
        p_value = against_chance(int(said[0][truth].sum()), int(said[0][~truth].sum()), truth)
    if len(first) == 1 or found["auc"].standard_error == 0:
        area = ranking.auroc(scores[0], truth, ~truth, confidence=confidence)
        told["auc"] |= {"low": area.low, "high": area.high}
    alike = readers.equivalence(found["accuracy"], centre=CHANCE, margin=margin, alpha=alpha)
    return told | {
        "readers": len(first),
        "p_value": p_value,
        "equivalence": {"margin": margin, "alpha": alpha, **alike._asdict()},
    }


def of_share(found: Mean, values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Ends of the interval of a share of yes-or-no answers, float (R, C).

    Of one reader, or where answers do not vary, which does not mean that they never would, Wilson's over cases.
    """
    if len(values) > 1 and found.standard_error > 0:
        return _low_high(found)
    cases = values.shape[1]
    return readers.proportion(round(found.value * cases), cases, confidence=confidence).wilson


def bounded(found: Mean) -> dict[str, float]:
    """A mean of shares as it goes into results.json, its interval cut to 0 and 1."""
    low, high = _low_high(found)
    return found._asdict() | {"low": low, "high": high}


def _low_high(found: Mean) -> tuple[float, float]:
    return max(0.0, found.low), min(1.0, found.high)


def common(first: Mapping[str, Calls]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Cases that every reader called, whether each called them synthetic, (R, C), and whether they are, (C,).

    Raises:
        ValueError: no reader, or fewer than 2 such cases of an arm.
    """
    if not first:
        raise ValueError("expected answers of at least 1 reader, got none; see `synthchex study run`")
    cases = sorted(set.intersection(*(set(found.cases) for found in first.values())))
    places = {name: [found.cases.index(case) for case in cases] for name, found in first.items()}
    said = np.stack([found.said[places[name]] for name, found in first.items()])
    one = next(iter(first))
    truth = first[one].truth[places[one]]
    if min(truth.sum(), (~truth).sum()) < 2:
        raise ValueError(
            f"expected at least 2 films of each arm that all readers called, got {len(cases)} films in all"
        )
    return cases, said, truth


def agreement(said: np.ndarray) -> dict[str, Any]:
    """Kappa between readers on the cases that all called: Cohen's for two, Fleiss' for more; None for one."""
    count = len(said)
    found = {"n": said.shape[1], "statistic": None, "kappa": None}
    if count == 2:
        kappa = reliability.weighted_kappa(said[0].astype(int), said[1].astype(int), 2)
        return found | {"statistic": "Cohen's kappa", "kappa": kappa}
    if count > 2:
        yes = said.sum(axis=0)
        return found | {"statistic": "Fleiss' kappa", "kappa": readers.fleiss(np.stack([yes, count - yes], axis=1))}
    return found


def repeated(answers: Sequence[Answer], reader: str) -> list[tuple[Answer, Answer]]:
    """First and second answer of one reader to each case shown twice."""
    own = [row for row in answers if str(row["reader"]) == reader]
    first = {row["case"]: row for row in own if not row["repeat"]}
    return [(first[row["case"]], row) for row in own if row["repeat"] and row["case"] in first]


def within(pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Any]:
    """How far a reader agrees with himself: share of equal calls, kappa of calls, weighted kappa of confidences."""
    if not pairs:
        return {"n": 0, "agree": None, "kappa": None, "weighted_kappa": None}
    said = np.array([[row["answer"]["call"] == "synthetic" for row in pair] for pair in pairs]).T
    sure = np.array([[int(row["answer"]["confidence"]) for row in pair] for pair in pairs]).T
    # From surely real, 0, to surely synthetic, 9.
    scale = np.where(said, LEVELS - 1 + sure, LEVELS - sure)
    return {
        "n": len(pairs),
        "agree": float((said[0] == said[1]).mean()),
        "kappa": reliability.weighted_kappa(said[0].astype(int), said[1].astype(int), 2),
        "weighted_kappa": reliability.weighted_kappa(scale[0], scale[1], 2 * LEVELS),
    }


def of_parts(first: Mapping[str, Calls], part_of: Mapping[str, str], confidence: float) -> list[dict[str, Any]]:
    """Share called synthetic, of the synthetic and of the real films of each part (model or stratum), over readers."""
    cases, said, truth = common(first)
    parts = np.array([part_of[case] for case in cases])
    rows = []
    for part in sorted(set(parts)):
        for arm, rows_of in (("synthetic", truth), ("real", ~truth)):
            chosen = (parts == part) & rows_of
            if chosen.sum() < 2:
                continue
            values = said[:, chosen].astype(float)
            found = readers.crossed(values, confidence=confidence)
            row = {"part": part, "arm": arm, "n": int(chosen.sum()), "called_synthetic": found.value}
            rows.append(row | {"interval": list(of_share(found, values, confidence))})
    return rows


def learning(name: str, found: Calls) -> dict[str, Any]:
    """Whether one reader's calls become better or faster along the order: Spearman's rho with p values."""
    from scipy.stats import spearmanr

    told: dict[str, Any] = {"reader": name}
    for key, values in (("right", found.right.astype(float)), ("seconds", found.seconds)):
        if np.ptp(values) == 0:
            told[key] = {"rho": None, "p_value": None}
            continue
        rho = spearmanr(found.position, values)
        told[key] = {"rho": float(rho.statistic), "p_value": float(rho.pvalue)}
    return told


def _scores(first: Mapping[str, Calls]) -> np.ndarray:
    """Signed confidences of the common cases, (R, C)."""
    cases, _, _ = common(first)
    return np.stack([found.score[[found.cases.index(case) for case in cases]] for found in first.values()])
