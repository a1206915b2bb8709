"""What the `quality_scores` of judged rows say about their judges. Knows no networks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from synthchex.judges.panel import agreement

COUNTED = {
    "retried": "asked again, because the first answer could not be read",
    "prompt_tokens_cut": "captions cut to the length that the model reads",
    "not_in_top_logprobs": "letters that were not among the server's most likely tokens, and so score 0",
}


def audit(texts: Iterable[str | None]) -> dict[str, Any]:
    """Counts over rows.

    Args:
        texts: the `quality_scores` column.

    Returns:
        The verdicts of `COUNTED`, where there are any; for several judges, `by_judge` (classes that each gave) and
        `agreement` (see `panel.agreement`).
    """
    counts: Counter[str] = Counter()
    votes: list[list[str | None]] = []
    by_judge: dict[str, Counter[str]] = {}
    for text in texts:
        found = json.loads(text) if text else {}
        each = found.get("verdicts")
        for verdict in each or [found]:
            counts.update(name for name in COUNTED if verdict.get(name))
        if each:
            votes.append([verdict["quality"] for verdict in each])
            for verdict in each:
                given = by_judge.setdefault(verdict["judged_by"]["name"], Counter())
                given[verdict["quality"] or verdict["reason"]] += 1
    several = {"by_judge": {name: dict(given) for name, given in by_judge.items()}, "agreement": agreement(votes)}
    return {**dict(counts), **(several if votes else {})}
