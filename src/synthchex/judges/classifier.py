"""Judges that read no words: the classifier (embedded default) and the fixed answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from synthchex.data import records
from synthchex.judges.recipe import JudgeRecipe
from synthchex.judges.verdicts import Verdict, best, certain, softmax
from synthchex.models.classifiers import load_logits


class ClassifierJudge:
    """Image quality by a four-class network, and agreement of the film with the labels of its prompt by a label
    network.

    It is not a vision-language model: it never reads the prompt's words, only its labels.
    """

    def __init__(self, recipe: JudgeRecipe, rubrics: Path, device: str | None) -> None:
        self.name, self.agreement = recipe.name, recipe.agreement
        self.quality_net = load_logits(recipe.model, device=device)
        expected = set(records.QUALITIES)
        if set(self.quality_net.heads) != expected:
            raise ValueError(
                f"judge {recipe.name} expects a network with the classes "
                f"{sorted(expected)}, got {self.quality_net.heads}"
            )
        self.label_net = load_logits(recipe.label_model, device=device) if recipe.label_model else None
        keys = [net.key for net in (self.quality_net, self.label_net) if net is not None]
        self.identity = {"name": recipe.name, "model": recipe.model, "revision": records.fingerprint(keys)}

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """Quality of each film; Low Quality where it does not show what its prompt says."""
        scores = softmax(self.quality_net.encode(films))
        verdicts = [best(dict(zip(self.quality_net.heads, map(float, row), strict=True))) for row in scores]
        if self.label_net is None or self.agreement is None:
            return verdicts
        agreement = label_agreement(self.label_net.encode(films), self.label_net.heads, labels)
        return [
            Verdict("Low Quality", verdict.scores, "label_mismatch")
            if low and verdict.quality in records.KEPT_QUALITIES
            else verdict
            for verdict, low in zip(verdicts, agreement < self.agreement, strict=True)
        ]


class FixedJudge:
    """One answer for every film: the dry run of everything around a judge, and a test double."""

    def __init__(self, recipe: JudgeRecipe, rubrics: Path, device: str | None) -> None:
        self.name, self.answer = recipe.name, recipe.answer
        self.identity: dict[str, str] = {"name": recipe.name}

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """The fixed answer."""
        return [certain(self.answer) for _ in films]


def label_agreement(logits: np.ndarray, names: Sequence[str], labels: Sequence[Mapping[str, int | None]]) -> np.ndarray:
    """Mean log-likelihood, in nats and at most 0, of the prompt's positive and negative labels under a label network.

    Args:
        logits: (N, L) of a multi-label network.
        names: its L labels.
        labels: states of each row; uncertain and unmentioned labels do not count, and a row without any scores 0.
    """
    scores = np.zeros(len(labels))
    for row, states in enumerate(labels):
        stated = [(column, states.get(name)) for column, name in enumerate(names) if states.get(name) in (0, 1)]
        if stated:
            signs = np.array([1.0 if state == 1 else -1.0 for _, state in stated])
            scores[row] = -np.logaddexp(0.0, -signs * logits[row, [column for column, _ in stated]]).mean()
    return scores
