"""Which split a film goes to: a function of its prompt and patient alone, so that neither crosses splits.

The split of a prompt is drawn from its hash. It depends on no other row, unless patients are known: then all that is
linked by a patient or a prompt goes together.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_NAME = re.compile(r"\w+(\.\w+)*")


def parse(words: Sequence[str]) -> dict[str, float]:
    """Shares of splits from words such as "train=0.8"; no words are one split, train.

    Raises:
        ValueError: not NAME=SHARE, a name that `datasets` refuses, a name twice, shares that do not add up to 1.
    """
    shares: dict[str, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        if not _NAME.fullmatch(name) or name == "all" or name in shares:
            raise ValueError(
                f"--split must be NAME=SHARE with letters, digits and _ in a name that stands once and is not all, "
                f"got {word!r}"
            )
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(f"--split must be NAME=SHARE, e.g. train=0.8, got {word!r}") from None
    if shares and (abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0):
        raise ValueError(f"shares of --split must be above 0 and add up to 1, got {shares}")
    return shares or {"train": 1.0}


def ordered(names: Iterable[str]) -> list[str]:
    """Names of splits, each once, as one lists them: train, validation, test, others."""
    usual = ("train", "validation", "test")
    return sorted(set(names), key=lambda name: (usual.index(name) if name in usual else len(usual), name))


def normalised(prompt: str) -> str:
    """A prompt without what makes no other prompt of it: case, punctuation, spaces, width of letters."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", prompt).casefold()).strip()


def keys(texts: Iterable[str]) -> np.ndarray:
    """One number per text, uint64 (N,), the same for the same text in any run."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), "<u8")


def linked(prompts: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Keys of the groups that prompts and patients make together: rows that share either are in one group.

    Args:
        prompts: keys of the prompts, uint64 (N,).
        patients: keys of the patients, uint64 (N,).

    Returns:
        uint64 (N,): the least prompt key of the group, so the same in any order of the rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, prompt = np.unique(prompts, return_inverse=True)
    _, patient = np.unique(patients, return_inverse=True)
    nodes = len(names) + int(patient.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(prompt), bool), (prompt, patient + len(names))), shape=(nodes, nodes))
    _, group = connected_components(edges, directed=False)
    least = np.full(nodes, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, group[: len(names)], names)
    return np.asarray(least[group[prompt]])


def assign(groups: np.ndarray, shares: Mapping[str, float]) -> np.ndarray:
    """Number of the split of every row, int8 (N,), by the hash of its group.

    Args:
        groups: keys, uint64 (N,).
        shares: of the splits, in their order.
    """
    # Hashed once more: the least key of a large group is a small number.
    spread = groups * np.uint64(0x9E3779B97F4A7C15)
    spread ^= spread >> np.uint64(29)
    place = (spread * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(11)).astype(np.float64) / 2.0**53
    ends = np.cumsum(list(shares.values()))[:-1]
    return np.searchsorted(ends, place, side="right").astype(np.int8)
