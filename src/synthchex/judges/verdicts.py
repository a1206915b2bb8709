"""What a judge answers, and how it stands in a row. Knows no networks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from synthchex.data import records

UNPARSED = "unparsed"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Verdict(NamedTuple):
    """One of the four classes, the score of each, and a slug where the judge has a reason of its own.

    `quality` is None, and `scores` is empty, where the judge gave no answer that can be read; `reason` says why then.
    Scores sum to 1. `details` holds what an auditor needs: log-probabilities, the raw answer, how it was read.
    """

    quality: str | None
    scores: Mapping[str, float]
    reason: str | None = None
    details: Mapping[str, Any] = NOTHING


class Judge(Protocol):
    """Films, prompts and prompt labels to verdicts.

    `identity` says what decided: name, model, revision and, where there is one, rubric and rubric_hash.
    """

    name: str
    identity: dict[str, str]

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """One verdict per uint8 film."""
        ...


def best(scores: Mapping[str, float], **details: Any) -> Verdict:
    """The class with the highest score; the better one of two that are equal."""
    ordered = {quality: float(scores[quality]) for quality in records.QUALITIES}
    return Verdict(max(ordered, key=ordered.__getitem__), ordered, None, details)


def certain(quality: str, **details: Any) -> Verdict:
    """A class that was answered in words: its score is 1."""
    return best({name: float(name == quality) for name in records.QUALITIES}, **details)


def unparsed(**details: Any) -> Verdict:
    """An answer that cannot be read: no class, and never a guess."""
    return Verdict(None, {}, UNPARSED, details)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of each row, (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def scores_text(verdict: Verdict, judge: Judge | None = None) -> str:
    """Scores as the text of the `quality_scores` column: the four classes, then the details, then who judged."""
    found: dict[str, Any] = {name: _rounded(score) for name, score in verdict.scores.items()}
    found |= _rounded(dict(verdict.details))
    if judge is not None and judge.identity:
        found["judged_by"] = dict(judge.identity)
    return json.dumps(found)


def described(judge: Judge) -> str:
    """A judge as the text of the `judge` column: name, revision, and hash of the rubric it was asked."""
    words = [judge.name]
    if judge.identity.get("revision"):
        words.append(f"@{judge.identity['revision'][:12]}")
    if judge.identity.get("rubric_hash"):
        words.append(f"rubric:{judge.identity['rubric_hash'][:12]}")
    return " ".join(words)


def _rounded(value: Any) -> Any:
    """Floats with 6 digits after the point; what is not finite becomes null, which JSON has."""
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
