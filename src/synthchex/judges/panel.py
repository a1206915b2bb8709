"""Several judges on the same films: their vote, and how far they agree. Knows no networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthchex.data import records
from synthchex.judges.verdicts import UNPARSED, Judge, Verdict, described
from synthchex.maths.readers import fleiss

VOTES = ("majority", "all")


class Panel:
    """Judges that vote on every film.

    "majority": the class with most votes. "all": the worst class that any judge gave, so that a film is kept only where
    all keep it; one judge without an answer leaves the film without a class, unless another dropped it. Ties go to the
    worse class: a film that judges differ on does not count as the better of the two. All judges are in memory at once.
    """

    def __init__(self, judges: Sequence[Judge], vote: str) -> None:
        names = [judge.name for judge in judges]
        if len(judges) < 2 or len(set(names)) != len(names):
            raise ValueError(f"expected two or more judges with different names, got {names}")
        if vote not in VOTES:
            raise ValueError(f"vote must be one of {list(VOTES)}, got {vote!r}")
        self.judges, self.vote = list(judges), vote
        self.name = f"{vote} of {', '.join(map(described, judges))}"
        self.identity: dict[str, str] = {}

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """The vote on each film, with every judge's own verdict in its details."""
        each = [judge.judge(films, prompts, labels) for judge in self.judges]
        return [self._together(verdicts) for verdicts in zip(*each, strict=True)]

    def _together(self, verdicts: Sequence[Verdict]) -> Verdict:
        quality = VOTING[self.vote]([verdict.quality for verdict in verdicts])
        answered = [verdict.scores for verdict in verdicts if verdict.scores]
        scores = {name: sum(one[name] for one in answered) / len(answered) for name in records.QUALITIES if answered}
        reasons = [verdict.reason for verdict in verdicts if verdict.quality == quality and verdict.reason]
        reason = reasons[0] if reasons else UNPARSED if quality is None else None
        return Verdict(quality, scores, reason, {"vote": self.vote, "verdicts": self._each(verdicts)})

    def _each(self, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
        return [
            {
                "quality": verdict.quality,
                "reason": verdict.reason,
                "scores": dict(verdict.scores),
                **verdict.details,
                "judged_by": dict(judge.identity),
            }
            for judge, verdict in zip(self.judges, verdicts, strict=True)
        ]


def majority(votes: Sequence[str | None]) -> str | None:
    """The class with most votes; of several with as many, the worst. Judges without an answer have no vote."""
    counts = Counter(vote for vote in votes if vote is not None)
    most = max(counts.values(), default=0)
    return _worst([vote for vote, count in counts.items() if count == most])


def unanimous(votes: Sequence[str | None]) -> str | None:
    """The worst class given; None where a judge has no answer and no other judge drops the film."""
    worst = _worst([vote for vote in votes if vote is not None])
    return None if None in votes and worst in records.KEPT_QUALITIES else worst


VOTING = {"majority": majority, "all": unanimous}


def agreement(votes: Sequence[Sequence[str | None]]) -> dict[str, Any]:
    """How far judges agree on the class, beyond chance.

    Args:
        votes: for each film, the class that each judge gave, or None.

    Returns:
        `statistic` (Cohen's kappa for two judges, Fleiss' for more), `kappa` (1 is perfect, 0 chance; None where all
        answers are one class, or no film has all answers), `agree` (share of films with one answer), `n` (films that
        all judges answered) and `films`.

    Source: Cohen 1960; Fleiss 1971.
    """
    judges = len(votes[0]) if votes else 0
    whole = [row for row in votes if None not in row]
    counts = np.array([[row.count(quality) for quality in records.QUALITIES] for row in map(list, whole)], float)
    found: dict[str, Any] = {
        "statistic": "Cohen's kappa" if judges == 2 else "Fleiss' kappa",
        "kappa": None,
        "agree": None,
        "n": len(whole),
        "films": len(votes),
    }
    if not whole:
        return found
    found["agree"] = float((counts.max(1) == judges).mean())
    if judges == 2:
        shares = [np.mean([[row[side] == name for name in records.QUALITIES] for row in whole], 0) for side in (0, 1)]
        chance = float(shares[0] @ shares[1])
        found["kappa"] = None if chance == 1 else (found["agree"] - chance) / (1 - chance)
    else:
        found["kappa"] = fleiss(counts)
    return found


def _worst(qualities: Sequence[str]) -> str | None:
    return max(qualities, key=records.QUALITIES.index, default=None)
