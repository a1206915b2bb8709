"""Prompts beside local reports: whole phrases that were copied, and prompts that say no more than the labels do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

WORDS = 8
COMMON = 5  # reports from which on a phrase is anybody's
_WORD = re.compile(r"[a-z0-9]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def rare_phrases(reports: Iterable[str], *, words: int = WORDS, common: int = COMMON) -> np.ndarray:
    """Phrases of local reports that could tell whose they are.

    Args:
        reports: texts; repeated ones count once.
        words: length of a phrase.
        common: reports from which on a phrase counts as boilerplate.

    Returns:
        Sorted hashes of phrases that stand in fewer reports than that, uint64 (P,): 8 bytes for each word of a report.
    """
    parts = [np.unique(_phrases(report, words)) for report in dict.fromkeys(reports)]
    if not parts:
        return np.zeros(0, np.uint64)
    phrases, counts = np.unique(np.concatenate(parts), return_counts=True)
    return phrases[counts < common]


def copied(texts: Sequence[str], phrases: np.ndarray, *, words: int = WORDS) -> np.ndarray:
    """Which texts hold one of the phrases (sorted hashes, see `rare_phrases`), bool (N,)."""
    known = np.append(phrases, np.uint64(0))  # one more, so that every place can be looked at

    def holds(text: str) -> bool:
        found = _phrases(text, words)
        places = np.searchsorted(phrases, found)
        return bool(((known[places] == found) & (places < len(phrases))).any())

    return np.array([holds(text) for text in texts], bool)


def from_labels(labels: Mapping[str, int | None]) -> str:
    """A prompt that says what the labels say and nothing else; "No Finding" speaks when no other label is present."""
    named = {label: state for label, state in labels.items() if state is not None and label != "No Finding"}
    present = [label.lower() for label, state in named.items() if state == 1]
    unsure = [f"possible {label.lower()}" for label, state in named.items() if state == -1]
    absent = [label.lower() for label, state in named.items() if state == 0]
    finding = ", ".join(present + unsure) or ("no finding" if labels.get("No Finding") == 1 else "")
    parts = [f"Findings: {finding}." if finding else "", f"Absent: {', '.join(absent)}." if absent else ""]
    return " ".join(["Chest radiograph.", *filter(None, parts)])


def _phrases(text: str, words: int) -> np.ndarray:
    """Hashes of the runs of words of a text, uint64; none where it is shorter."""
    codes = np.array([_code(word) for word in _WORD.findall(text.lower())], np.uint64)
    if len(codes) < words:
        return np.zeros(0, np.uint64)
    runs = np.lib.stride_tricks.sliding_window_view(codes, words)
    phrases = np.zeros(len(runs), np.uint64)
    for place in range(words):
        phrases = (phrases ^ runs[:, place]) * _FACTOR  # modulo 2**64
        phrases ^= phrases >> np.uint64(29)
    return phrases


@lru_cache(maxsize=2**16)
def _code(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
