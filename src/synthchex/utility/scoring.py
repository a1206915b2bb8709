"""Scores of probabilities against label states: threshold from validation films, AUROC, AP, F1, calibration.

AUROC has DeLong's standard error with patients as clusters (`maths.ranking`). All other scores have a bootstrap of
whole patients: a draw is a weight for each film, the same for every model, so that differences between models are
paired. Knows arrays; knows no film and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from synthchex.maths import ranking
from synthchex.maths.ranking import Auroc

BINS = 10
CELLS = 200_000  # weights at a time: what a core's cache holds
WEIGHTED = ("auroc", "average_precision", "f1", "precision", "recall", "brier", "ece")


class Difference(NamedTuple):
    """First less second, the ends of its interval, and the p value of no difference.

    `test_error` is the standard error from the choice of test films, `seed_error` that from the choice of seeds, NaN
    for one seed.
    """

    value: float
    low: float
    high: float
    p_value: float
    test_error: float
    seed_error: float


def tuned_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the highest F1 on validation films: half-way to the next score below, so that it is no film's.

    Args:
        scores: probabilities of the films that know the label, (N,).
        truth: bool, (N,).

    Returns:
        A film counts as positive from it on; of thresholds alike in F1 the highest. NaN where no film, or every film,
        has the label: then nothing can be tuned.
    """
    if not truth.any() or truth.all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    f1 = 2 * hits[ends] / (ends + 1 + truth.sum())
    best = int(f1.argmax())
    below = ranked[ends[best] + 1] if best + 1 < len(ends) else 0.0
    return float((ranked[ends[best]] + below) / 2)


class Resampled(NamedTuple):
    """Bootstrap draws of patients: number of the patient of each film, (N,), and how often each was drawn, (B, P)."""

    clusters: np.ndarray
    counts: np.ndarray

    def blocks(self) -> Iterator[np.ndarray]:
        """Weights of the films, blocks of (some draws, N)."""
        step = max(1, CELLS // max(len(self.clusters), 1))
        for start in range(0, len(self.counts), step):
            yield self.counts[start : start + step, self.clusters].astype(np.float64)


def resampled(groups: np.ndarray, resamples: int, seed: int) -> Resampled:
    """Draws of as many patients as there are, with replacement.

    Args:
        groups: patient of each film, (N,) of any kind.
    """
    clusters = np.unique(groups, return_inverse=True)[1]
    count, rng = int(clusters.max()) + 1, np.random.default_rng(seed)
    drawn = np.empty((resamples, count), np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
    return Resampled(np.asarray(clusters), drawn)


def weighted(scores: np.ndarray, truth: np.ndarray, threshold: float, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every score of one label under many weightings of its films.

    Args:
        scores: probabilities, (N,).
        truth: bool, (N,).
        threshold: from validation films; NaN leaves F1, precision and recall NaN.
        weights: (B, N), not negative; all 1 gives the plain scores.

    Returns:
        {name of `WEIGHTED`: (B,)}; NaN in draws without films of both kinds. `ece` has 10 bins of equal width.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, held, w = scores[order], truth[order], weights[:, order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    hits, films = np.cumsum(w * held, axis=1)[:, ends], np.cumsum(w, axis=1)[:, ends]
    positive, total = hits[:, -1], films[:, -1]
    found = np.diff(hits, axis=1, prepend=0)
    false = films - hits
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(films > 0, hits / films, 0.0)
        above = np.diff(false, axis=1, prepend=0) / 2
        made = {
            "auroc": 1 - (found * (false - above)).sum(1) / (positive * (total - positive)),
            "average_precision": (precision * found).sum(1) / positive,
            **_decided(ranked, held, threshold, w),
            "brier": (w * np.square(ranked - held)).sum(1) / total,
            "ece": _calibration_error(ranked, held, w) / total,
        }
    return made


def _decided(scores: np.ndarray, truth: np.ndarray, threshold: float, w: np.ndarray) -> dict[str, np.ndarray]:
    """F1, precision and recall; precision is 0 where nothing is called positive."""
    if np.isnan(threshold):
        return {name: np.full(len(w), np.nan) for name in ("f1", "precision", "recall")}
    called = scores >= threshold
    hits, calls, positive = w @ (called & truth), w @ called, w @ truth
    precision = np.where(calls > 0, hits / calls, 0.0)
    return {"f1": 2 * hits / (calls + positive), "precision": precision, "recall": hits / positive}


def _calibration_error(scores: np.ndarray, truth: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Sum over bins of the distance between summed score and films with the label; see `maths.reliability.curve`."""
    place = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    member = place[:, None] == np.arange(BINS)
    return np.asarray(np.abs(w @ (member * (scores - truth)[:, None])).sum(1))


class Scored(NamedTuple):
    """One label of one model on one test set: its AUROC, the plain scores, and those of every draw, (resamples,)."""

    area: Auroc
    plain: Mapping[str, float]
    drawn: Mapping[str, np.ndarray]


def score(
    scores: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray,
    threshold: float,
    *,
    patients: Resampled,
    confidence: float = 0.95,
) -> Scored:
    """One label of one model.

    Args:
        scores: probabilities, (N,).
        truth, known: bool, (N,); a film that does not know the label is left out.
        threshold: from validation films.
        patients: one and the same for every model and label.

    Raises:
        ValueError: fewer than 2 patients with the label, or without it.
    """
    area = ranking.auroc(scores, truth & known, ~truth & known, clusters=patients.clusters, confidence=confidence)
    given = scores[known], truth[known], threshold
    plain = weighted(*given, np.ones((1, int(known.sum()))))
    parts = [weighted(*given, block[:, known]) for block in patients.blocks()]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in WEIGHTED}
    return Scored(area, {name: float(values[0]) for name, values in plain.items()}, drawn)


def interval(value: float, drawn: np.ndarray, confidence: float, *, centred: bool = False) -> list[float] | None:
    """Percentile interval of a bootstrap; None where too few draws have a value.

    Args:
        centred: move the draws so that their mean is the value. A calibration error is never below 0, so that draws of
            it lie above it: this takes out that bias.
    """
    usable = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(usable) < len(drawn) / 2:
        return None
    low, high = np.quantile(usable, [0.5 - confidence / 2, 0.5 + confidence / 2])
    moved = value - usable.mean() if centred else 0.0
    return [float(max(0.0, low + moved)), float(min(1.0, high + moved))]


def paired(one: Sequence[Auroc], other: Sequence[Auroc], *, clusters: int, confidence: float = 0.95) -> Difference:
    """Mean AUROC of one model over seeds less that of another, on the same test films and the same seeds.

    The variance is DeLong's for correlated curves, from the mean influence of each patient, plus that of the seeds:
    another draw of training films would have given another model. Student's t, degrees of freedom by Satterthwaite.

    Args:
        one, other: of each seed, in the same order.
        clusters: patients on the rarer side of the label.

    Source: DeLong et al. 1988; Satterthwaite 1946.
    """
    from scipy.special import stdtr, stdtrit

    if len(one) != len(other) or not one:
        raise ValueError(f"expected the same seeds of both models, got {len(one)} and {len(other)}")
    gaps = np.array([first.value - second.value for first, second in zip(one, other, strict=True)])
    influence = np.mean([first.influence - second.influence for first, second in zip(one, other, strict=True)], axis=0)
    test, count = float(np.square(influence).sum()), len(gaps)
    seeds = float(gaps.var(ddof=1)) / count if count > 1 else 0.0
    variance, value = test + seeds, float(gaps.mean())
    if variance == 0:
        return Difference(value, value, value, float(value == 0), 0.0, 0.0 if count > 1 else float("nan"))
    freedom = variance**2 / (test**2 / max(clusters - 1, 1) + (seeds**2 / (count - 1) if count > 1 else 0.0))
    error = variance**0.5
    reach = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(value) / error))
    ends = max(-1.0, value - reach), min(1.0, value + reach)
    return Difference(value, *ends, p_value, test**0.5, seeds**0.5 if count > 1 else float("nan"))


def unpaired(one: Auroc, other: Auroc) -> Difference:
    """The same of two models on different test films: the intervals of both, no p value and no part of seeds."""
    found = ranking.difference(one, other)
    error = float(np.hypot(one.standard_error, other.standard_error))
    return Difference(*found, float("nan"), error, float("nan"))
