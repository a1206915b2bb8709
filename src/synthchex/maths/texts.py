"""Scores of generated texts against references: BLEU, ROUGE-L, and F1 of labels. Knows words and counts, no models.

Every score is a function of counts that are summed over texts, or a mean over texts. So a value, its bootstrap over
patients, and the difference of two systems on the same texts all come from one table of counts with a row per text.

Conventions. `words` is the tokenisation of rouge_score: lower case, runs of letters and digits, no punctuation and no
stems. `spaces` splits at white space and changes nothing else, as RadEval and pycocoevalcap's scorers do to what they
are given. BLEU is that of a corpus, one reference per text, without smoothing: without a single matching n-gram it is 0
(pycocoevalcap adds 1e-15 to each count, sacrebleu's default halves ever smaller ones;
nltk counts one n-gram for a text that is too short to have any).
ROUGE-L is the F measure with beta = 1 as in rouge_score; pycocoevalcap weighs recall with beta = 1.2.
Source: Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Tokenizer = Literal["words", "spaces"]
TOKENIZERS: tuple[str, ...] = get_args(Tokenizer)
ORDERS = 4
_WORD = re.compile(r"[a-z0-9]+")


class Boot(NamedTuple):
    """What a bootstrap of a score says: the middle of its resamples and the ends of the percentile interval."""

    median: float
    low: float
    high: float


def tokens(text: str, tokenizer: Tokenizer = "words") -> list[str]:
    """The tokens of a text; see the module for the two ways.

    Raises:
        ValueError: another way.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer must be one of {list(TOKENIZERS)}, got {tokenizer!r}")
    return _WORD.findall(text.lower()) if tokenizer == "words" else text.split()


def bleu_counts(references: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]]) -> np.ndarray:
    """What BLEU of any set of texts follows from.

    Args:
        references: tokens of N true texts.
        candidates: tokens of the texts written for them.

    Returns:
        int64 (N, 10): matching n-grams of 1 to 4 tokens, n-grams of the candidate, its length, the reference's.

    Raises:
        ValueError: not as many candidates as references.
    """
    _check_pairs(references, candidates)
    found = np.zeros((len(references), 2 * ORDERS + 2), np.int64)
    for row, (true, written) in enumerate(zip(references, candidates, strict=True)):
        for order in range(1, ORDERS + 1):
            wanted, made = _grams(true, order), _grams(written, order)
            found[row, order - 1] = sum((made & wanted).values())
            found[row, ORDERS + order - 1] = made.total()
        found[row, -2:] = len(written), len(true)
    return found


def bleu(counts: np.ndarray, order: int) -> np.ndarray:
    """Corpus BLEU from summed counts.

    Args:
        counts: sums of rows of `bleu_counts`, (..., 10).
        order: longest n-gram, 1 to 4; the mean over orders is geometric.

    Returns:
        float64 (...), 0 to 1, higher is better. 0 where some order has no match, or nothing was written.
    """
    if not 1 <= order <= ORDERS:
        raise ValueError(f"order must be 1 to {ORDERS}, got {order}")
    sums = np.asarray(counts, float)
    matched, made = sums[..., :order], sums[..., ORDERS : ORDERS + order]
    written, wanted = sums[..., -2], sums[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(matched / made).mean(-1))
        brevity = np.exp(np.minimum(0.0, 1 - wanted / written))
        found = precision * brevity
    return np.asarray(np.where((matched > 0).all(-1), found, 0.0))


def rouge_l(reference: Sequence[str], candidate: Sequence[str], *, beta: float = 1.0) -> float:
    """F measure of the longest common subsequence of two texts.

    Args:
        reference: tokens of the true text.
        candidate: tokens of the written one.
        beta: weight of recall against precision.

    Returns:
        0 to 1, higher is better; 0 where either text is empty.
    """
    common = _longest_common(reference, candidate)
    if not common:
        return 0.0
    recall, precision = common / len(reference), common / len(candidate)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def label_counts(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What the F1 of labels follows from.

    Args:
        true: bool (N, L), labels of the true texts.
        found: bool (N, L), labels of those written for them.

    Returns:
        int64 (N, 2 L): of each label, in both, then the sum of those in either text; F1 is 2 * both / sum.

    Raises:
        ValueError: shapes differ.
    """
    true, found = np.asarray(true, bool), np.asarray(found, bool)
    if true.shape != found.shape or true.ndim != 2:
        raise ValueError(f"expected two tables of labels of one shape (N, L), got {true.shape} and {found.shape}")
    return np.concatenate([true & found, true.astype(np.int64) + found], axis=1).astype(np.int64)


def label_f1(counts: np.ndarray, average: Literal["micro", "macro", "none"]) -> np.ndarray:
    """F1 of labels from summed counts.

    Args:
        counts: sums of rows of `label_counts`, (..., 2 L).
        average: "micro" over all labels together, "macro" the mean over labels, "none" each label.

    Returns:
        float64 (...), or (..., L) for "none"; 0 to 1, higher is better. A label in no text at all is 0, as in
        scikit-learn, and pulls the macro mean down.
    """
    both, either = np.split(np.asarray(counts, float), 2, axis=-1)
    if average == "micro":
        both, either = both.sum(-1), either.sum(-1)
    found = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0)
    return np.asarray(found.mean(-1) if average == "macro" else found)


def draws(groups: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """How often each text counts in each resample of whole groups, the patients.

    Args:
        groups: group number of each text, int (N,), from 0 without gaps.
        resamples: how many.
        seed: of the draws; the same draws for two systems make their difference a paired one.

    Returns:
        int64 (resamples, N).

    Raises:
        ValueError: fewer than 2 groups.
    """
    groups = np.asarray(groups)
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        raise ValueError(f"expected at least 2 patients to resample, got {count}; an interval would mean nothing")
    dice = np.random.default_rng(seed)
    drawn = dice.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(drawn[:, groups])


def interval(values: np.ndarray, *, confidence: float = 0.95) -> Boot:
    """Median and percentile interval of the values of a score in resamples, (B,)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    middle, low, high = np.quantile(values, [0.5, 0.5 - confidence / 2, 0.5 + confidence / 2])
    return Boot(float(middle), float(low), float(high))


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[place : place + order]) for place in range(len(words) - order + 1))


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, against in enumerate(other, 1):
            above = row[place]
            row[place] = before + 1 if word == against else max(above, row[place - 1])
            before = above
    return row[-1]


def _check_pairs(references: Sequence[object], candidates: Sequence[object]) -> None:
    if len(references) != len(candidates):
        raise ValueError(f"expected one candidate per reference, got {len(candidates)} for {len(references)}")
