"""Reports into sentences, and their embeddings kept by report. Knows no metric.

One embedding of a long report blurs its findings, and text towers read 64 to 512 tokens; sentence by sentence nothing
is cut and a single wrong finding shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

# What has a full stop without ending a sentence, in lower case; the second kind ends one before a capital.
NEVER_LAST = frozenset(
    [
        "dr", "drs", "mr", "mrs", "ms", "prof", "st", "vs", "e.g", "i.e", "cf", "ca", "approx", "resp", "incl", "fig",
        "figs", "pt", "pts", "ref"
    ]
)  # fmt: skip
SOMETIMES_LAST = frozenset(["no", "nos", "al", "etc"])
# After a single capital and a full stop these begin a sentence ("grade A. The"), names do not ("J. Smith").
BEGINNINGS = frozenset(
    [
        "a", "an", "the", "this", "these", "there", "it", "in", "no", "is", "are", "both", "right", "left"
    ]
)  # fmt: skip
_CUE = re.compile(r"\b(?:no evidence of|absence of|negative for|without|not|no)\s+", re.IGNORECASE)
_EXISTS = re.compile(r"^(there (?:is|are|was|were) )(?:an? )?", re.IGNORECASE)
_COPULA = re.compile(r"\b(is|are|was|were) ", re.IGNORECASE)
_HEADER = re.compile(r"^[A-Z][A-Z /&()]{2,40}:\s*")
_BULLET = re.compile(r"^\s*[-*\u2022\u2013]\s+", re.MULTILINE)
_MARKER = re.compile(r"(?:(?<=\s)|^)\(?(\d{1,2})[.)](?=\s+\S)", re.MULTILINE)
_GLUED = re.compile(r"(?<=[a-z]{2}\.)(?=[A-Z][a-z])")
_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")


def split(report: str) -> list[str]:
    """The sentences of a report, in order.

    Args:
        report: any text. Blank lines, bullets and numbers of a list end a sentence, other line breaks do not; titles
            ("Dr."), abbreviations, initials and decimals do not either. Headings in capitals ("FINDINGS:") and the
            marks of lists are left out.

    Returns:
        At least one sentence where there is a letter or digit, else none.

    >>> split("FINDINGS: Seen by Dr. Lee. A 2.5 cm nodule.\\n1. No effusion. 2. Heart normal.")
    ['Seen by Dr. Lee.', 'A 2.5 cm nodule.', 'No effusion.', 'Heart normal.']
    """
    marked = _BULLET.sub("\n\n", _GLUED.sub(" ", report))
    found = []
    for paragraph in re.split(r"\n\s*\n", _without_numbers(marked)):
        text = " ".join(paragraph.split())
        ends = [match.end() for match in _END.finditer(text) if _is_end(text, match)]
        for start, stop in pairwise([0, *ends, len(text)]):
            sentence = _HEADER.sub("", text[start:stop].strip())
            if any(letter.isalnum() for letter in sentence):
                found.append(sentence)
    return found


def negated(report: str) -> str:
    """The report with every sentence turned into its opposite, by the plainest rules of English.

    A negation is taken out where there is one, else "no" or "not" is put in. The result need not be good prose: it is
    what an encoder should tell from the original.

    >>> negated("There is a nodule. No effusion. The heart is large. Cardiomegaly.")
    'There is no nodule. Effusion. The heart is not large. No cardiomegaly.'
    """
    return " ".join(_opposite(sentence) for sentence in split(report) or [report])


def _opposite(sentence: str) -> str:
    if _CUE.search(sentence):
        rest = _CUE.sub("", sentence, count=1)
        return rest[:1].upper() + rest[1:]
    if _EXISTS.match(sentence):
        return _EXISTS.sub(r"\1no ", sentence, count=1)
    if _COPULA.search(sentence):
        return _COPULA.sub(r"\1 not ", sentence, count=1)
    acronym = sentence[:2].isupper()
    return f"No {sentence if acronym else sentence[:1].lower() + sentence[1:]}"


@dataclass(frozen=True)
class Sentences:
    """Embeddings of the different sentences of some reports, (U, D), which of them each report holds, in order, and how
    many of them the encoder cut.
    """

    features: np.ndarray
    held: tuple[np.ndarray, ...]
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.held)

    def take(self, rows: np.ndarray) -> Sentences:
        """Those of some reports."""
        places = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else rows
        return replace(self, held=tuple(self.held[place] for place in places))

    @classmethod
    def joined(cls, parts: Sequence[Sentences]) -> Sentences:
        """Those of all processes, in their order."""
        firsts = np.cumsum([0, *(len(part.features) for part in parts)])
        held = [own + first for part, first in zip(parts, firsts, strict=False) for own in part.held]
        features = np.concatenate([part.features for part in parts])
        return cls(features, tuple(held), sum(part.truncated for part in parts))


def _without_numbers(text: str) -> str:
    """Numbers of a list as breaks: at the start of a line, after the end of a sentence, or next in their order."""
    cuts, last = [], 0
    for match in _MARKER.finditer(text):
        before, number = text[: match.start()].rstrip(" \t("), int(match.group(1))
        named = _last_word(before.rstrip(".")) in NEVER_LAST | SOMETIMES_LAST and before.endswith(".")  # "Fig. 2."
        if not named and (not before or before[-1] in "\n.:;!?" or (last and number == last + 1)):
            cuts.append(match)
            last = number
    for match in reversed(cuts):
        text = text[: match.start()] + "\n\n" + text[match.end() :]
    return text


def _is_end(text: str, match: re.Match[str]) -> bool:
    if match.group()[0] != "." or match.end() == len(text):
        return True
    word, following = _last_word(text[: match.start()]), text[match.end() :].lstrip()
    if word in NEVER_LAST:
        return False
    if len(word) == 1 and text[match.start() - 1].isupper():
        return following.split(" ", 1)[0].lower() in BEGINNINGS
    dotted = "." in word and word.replace(".", "").isalpha()  # p.m, U.S
    return following[:1].isupper() if dotted or word in SOMETIMES_LAST else True


def _last_word(text: str) -> str:
    """In lower case, without what opens it."""
    return (text.split()[-1:] or [""])[0].lstrip("([\"'").lower()
