"""What should not stand in a prompt that films are made from: marks of de-identification, identifiers, dates, repeats.

Knows no patterns of its own: who calls says what names a patient.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

OnLint = Literal["error", "warn", "strip"]
ON_LINT: tuple[OnLint, ...] = get_args(OnLint)
MARK, REPEATED, EMPTY = "mark of de-identification", "repeated prompt", "empty prompt"
SHOWN = 5
# Some of this stands in every text that a pattern finds; one fast look by Arrow leaves the few texts worth a slow one.
HINT = r"\d{4}|\d[-/.]\d|_|X{4}|\[\*\*|/[^/\s]+/|:\\|[0-9a-fA-F]{8}"


class Found(NamedTuple):
    """Rows of prompts by what is wrong with them."""

    rows: Mapping[str, Sequence[int]]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each kind has."""
        return {kind: len(rows) for kind, rows in self.rows.items()}

    def lines(self) -> list[str]:
        """One line per kind: how many, and which rows first. Prompts are not shown: they may name someone."""
        return [f"{len(rows)} with {kind} (rows {list(rows[:SHOWN])})" for kind, rows in self.rows.items()]


def look(texts: Sequence[str], patterns: Mapping[str, re.Pattern[str]]) -> Found:
    """What is wrong with some prompts; rows count from 0.

    Args:
        texts: prompts.
        patterns: by the kind of what they find, each found only in texts that `HINT` is found in.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row in _hinted(texts):
        for kind, pattern in patterns.items():
            if pattern.search(texts[row]):
                rows[kind].append(row)
    seen: set[int] = set()  # hashes: a million prompts need not be in memory for this
    for row, text in enumerate(texts):
        mark = hash(text)
        if not text:
            rows[EMPTY].append(row)
        elif mark in seen:
            rows[REPEATED].append(row)
        seen.add(mark)
    return Found(dict(sorted(rows.items())))


def strip(texts: Sequence[str], found: Found, patterns: Mapping[str, re.Pattern[str]]) -> tuple[list[str], list[int]]:
    """Prompts without what was found in them, and the rows that are left.

    Marks, identifiers and dates are cut out, with the space around them made one. Prompts of which nothing is left and
    prompts that an earlier row has are left out.

    Returns:
        Texts of the rows that are left, and their numbers.
    """
    cut = set().union(*(rows for kind, rows in found.rows.items() if kind in patterns))
    kept: dict[str, int] = {}
    for row, text in enumerate(texts):
        clean = _without(text, patterns) if row in cut else text
        if clean:
            kept.setdefault(clean, row)
    return list(kept), list(kept.values())


def refuse(found: Found, source: str, what: Sequence[str] | None = None) -> None:
    """Raise for what was found, of all kinds or of some.

    Raises:
        ValueError: with counts and rows.
    """
    bad = Found({kind: rows for kind, rows in found.rows.items() if what is None or kind in what})
    if bad.rows:
        raise ValueError(
            f"expected clean prompts in {source}, got {'; '.join(bad.lines())}; mend them, or --on-lint strip"
        )


def tally(found: Found, left: int, total: int) -> dict[str, int]:
    """Counts for a report: of each kind, and of rows that were left out."""
    return dict(Counter(found.counts) + Counter({"left out": total - left}))


def _hinted(texts: Sequence[str]) -> list[int]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    return [
        first + int(row)
        for first in range(0, len(texts), 100_000)
        for row in np.flatnonzero(
            pc.match_substring_regex(pa.array(texts[first : first + 100_000], pa.large_string()), HINT)
        )
    ]


def _without(text: str, patterns: Mapping[str, re.Pattern[str]]) -> str:
    for pattern in patterns.values():
        text = pattern.sub(" ", text)
    return re.sub(r"\s+([.,;:])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,;:")
