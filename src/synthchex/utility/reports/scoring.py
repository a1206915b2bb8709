"""How good written reports are, and whether those of one arm are better than those of the other on the same films.

Every measure is a table of counts with a row per film, and a function of their sums (`maths.texts`). A bootstrap draws
whole patients; all arms, percentages and seeds are seen with the same draws, so their differences are paired. The
interval is of what other test patients would give; how far other seeds of training are is told by their values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths import texts
from synthchex.utility.reports.labels import FIVE, Labeller

RESAMPLES = 500  # as CheXGenBench
RadGraph = Callable[[Sequence[str], Sequence[str]], np.ndarray]
# measure: name in tables, and CheXGenBench's.
NAMES: dict[str, str] = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "f1_radgraph": "F1-RadGraph",
    "micro_f1_14": "Micro-F1-14",
    "macro_f1_14": "Macro-F1-14",
    "micro_f1_5": "Micro-F1-5",
    "macro_f1_5": "Macro-F1-5",
    "micro_f1_14_plus": "Micro-F1-14+",
    "macro_f1_14_plus": "Macro-F1-14+",
    "micro_f1_5_plus": "Micro-F1-5+",
    "macro_f1_5_plus": "Macro-F1-5+",
}


class Measure(NamedTuple):
    """Counts of N films, (N, K), and the score that sums of their rows make: (..., K) to (...)."""

    counts: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


class Judge:
    """The true reports with all that is looked up once: tokens, labels, patients' draws.

    Attributes:
        reports: of the test films.
        drawn: how often each film counts in each resample, (B, N).
        names: measures that are taken.
    """

    def __init__(
        self,
        reports: Sequence[str],
        patients: Sequence[str] | None,
        *,
        labeller: Labeller | None = None,
        radgraph: RadGraph | None = None,
        tokenizer: texts.Tokenizer = "words",
        resamples: int = RESAMPLES,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.reports, self.tokenizer, self.confidence = list(reports), tokenizer, confidence
        self.labeller, self.radgraph = labeller, radgraph
        self.tokens = [texts.tokens(text, tokenizer) for text in self.reports]
        self.states = None if labeller is None else labeller(self.reports)
        owners = range(len(self.reports)) if patients is None else patients
        groups = np.unique(np.asarray(list(owners)), return_inverse=True)[1]
        self.drawn = texts.draws(groups, resamples=resamples, seed=seed)
        self.patients = int(groups.max()) + 1
        self.names = [name for name in NAMES if self._taken(name)]

    def _taken(self, name: str) -> bool:
        if name.startswith("f1_radgraph"):
            return self.radgraph is not None
        return self.labeller is not None or "_f1_" not in name

    def measures(self, written: Sequence[str]) -> tuple[dict[str, Measure], dict[str, Measure]]:
        """Measures of reports that were written for the test films: by name, and F1 of each label.

        The latter hold one score per label: under "uncertain_negative" and "uncertain_positive".
        """
        tokens = [texts.tokens(text, self.tokenizer) for text in written]
        counts = texts.bleu_counts(self.tokens, tokens)
        shared = [texts.rouge_l(true, made) for true, made in zip(self.tokens, tokens, strict=True)]
        found = {f"bleu_{order}": Measure(counts, partial(texts.bleu, order=order)) for order in (1, 4)}
        found["rouge_l"] = _mean_of(np.array(shared))
        if self.radgraph is not None:
            found["f1_radgraph"] = _mean_of(self.radgraph(self.reports, list(written)))
        if self.labeller is None or self.states is None:
            return found, {}
        states = self.labeller(written)
        return found | _f1s(self.states, states), _per_label(self.states, states)

    def told(self, runs: Sequence[Sequence[str]]) -> Scored:
        """Scores of the reports of one arm, once per seed of training; see `Scored`."""
        each = [self.measures(written) for written in runs]
        return Scored(
            {name: self._pooled([measures[name] for measures, _ in each]) for name in self.names},
            {name: self._pooled([labels[name] for _, labels in each]) for name in each[0][1]},
        )

    def _pooled(self, runs: Sequence[Measure]) -> Pooled:
        values = np.array([one.score(one.counts.sum(0)) for one in runs])
        resampled = np.mean([one.score(self.drawn @ one.counts) for one in runs], axis=0)
        return Pooled(values, resampled)


class Pooled(NamedTuple):
    """A score by seed, (S,) or (S, L), and its mean over the seeds in each resample, (B,) or (B, L)."""

    values: np.ndarray
    resampled: np.ndarray


class Scored(NamedTuple):
    """Measures by name, and F1 of the labels by what uncertain counts as."""

    measures: dict[str, Pooled]
    labels: dict[str, Pooled]


def row(found: Pooled, *, confidence: float) -> dict[str, Any]:
    """A score as results have it: mean over seeds, its interval, the median of the resamples, each seed's value."""
    boot = texts.interval(found.resampled, confidence=confidence)
    values = [float(one) for one in found.values]
    return {"value": float(np.mean(values)), "interval": [boot.low, boot.high], "median": boot.median, "seeds": values}


def difference(one: Pooled, other: Pooled, *, confidence: float) -> dict[str, Any]:
    """How much higher `one` is than `other` on the same films, with a paired interval."""
    boot = texts.interval(one.resampled - other.resampled, confidence=confidence)
    return {"value": float(one.values.mean() - other.values.mean()), "interval": [boot.low, boot.high]}


def per_label(found: Mapping[str, Pooled], *, confidence: float) -> list[dict[str, Any]]:
    """F1 of each label, uncertain counted either way."""
    rows: list[dict[str, Any]] = []
    for place, label in enumerate(LABELS):
        told: dict[str, Any] = {"label": label}
        for policy, pooled in found.items():
            told[policy] = row(Pooled(pooled.values[:, place], pooled.resampled[:, place]), confidence=confidence)
        rows.append(told)
    return rows


def commonest(reports: Sequence[str]) -> str:
    """The report that stands most often, the alphabetically first of several; what a film cannot change."""
    counts = Counter(reports)
    most = max(counts.values())
    return min(text for text, count in counts.items() if count == most)


def _mean_of(values: np.ndarray) -> Measure:
    """The mean of a value per film."""
    counts = np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)
    return Measure(counts, _mean)


def _mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _f1s(true: np.ndarray, found: np.ndarray) -> dict[str, Measure]:
    """Micro and macro F1 over 14 and 5 labels; "plus" counts uncertain as positive, the others as not."""
    five = [LABELS.index(label) for label in FIVE]
    measures: dict[str, Measure] = {}
    for ending, positive in (("", (1,)), ("_plus", (1, -1))):
        sides = np.isin(true, positive), np.isin(found, positive)
        for size, columns in ((14, list(range(len(LABELS)))), (5, five)):
            counts = texts.label_counts(sides[0][:, columns], sides[1][:, columns])
            measures[f"micro_f1_{size}{ending}"] = Measure(counts, partial(texts.label_f1, average="micro"))
            measures[f"macro_f1_{size}{ending}"] = Measure(counts, partial(texts.label_f1, average="macro"))
    return measures


def _per_label(true: np.ndarray, found: np.ndarray) -> dict[str, Measure]:
    policies = {"uncertain_negative": (1,), "uncertain_positive": (1, -1)}
    return {
        name: Measure(
            texts.label_counts(np.isin(true, positive), np.isin(found, positive)),
            partial(texts.label_f1, average="none"),
        )
        for name, positive in policies.items()
    }
