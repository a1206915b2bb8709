"""BLEU, ROUGE-L, F1 of labels: by hand, and as sacrebleu, nltk, rouge_score, pycocoevalcap and sklearn have them."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import pytest

from synthchex import phantom
from synthchex.maths import texts


def corpus(count: int = 60) -> tuple[list[str], list[str]]:
    """Phantom reports, and as candidates the same with words dropped, doubled and exchanged."""
    true, _ = phantom.write_reports(count, seed=3)
    words, dice, written = phantom.vocabulary(), np.random.default_rng(0), []
    for text in true:
        kept = [word for word in text.split() for _ in range(dice.choice([0, 1, 1, 1, 2]))]
        written.append(" ".join(dice.choice(words) if dice.random() < 0.1 else word for word in kept))
    return [f"{text.capitalize()}." for text in true], written


def scores(true: list[str], written: list[str], order: int, tokenizer: texts.Tokenizer = "spaces") -> float:
    split = [[texts.tokens(text, tokenizer) for text in side] for side in (true, written)]
    return float(texts.bleu(texts.bleu_counts(*split).sum(0), order))


def test_bleu_by_hand() -> None:
    true, written = [["the", "heart", "is", "large"]], [["the", "heart", "the"]]
    counts = texts.bleu_counts(true, written)
    assert counts.tolist() == [[2, 1, 0, 0, 3, 2, 1, 0, 3, 4]]  # the second "the" matches nothing that is left
    brevity = math.exp(1 - 4 / 3)
    assert texts.bleu(counts.sum(0), 1) == pytest.approx(2 / 3 * brevity)
    assert texts.bleu(counts.sum(0), 2) == pytest.approx(math.sqrt(2 / 3 * 1 / 2) * brevity)
    assert texts.bleu(counts.sum(0), 4) == 0


def test_the_same_text_is_1_and_an_empty_one_0() -> None:
    words = ["no", "acute", "cardiopulmonary", "process"]
    counts = texts.bleu_counts([words, words], [words, []])
    assert texts.bleu(counts[0], 4) == 1
    assert texts.bleu(counts[1], 1) == 0
    assert (texts.rouge_l(words, words), texts.rouge_l(words, [])) == (1, 0)


def test_rouge_l_by_hand() -> None:
    true, written = ["police", "killed", "the", "gunman"], ["police", "kill", "the", "gunman"]
    assert texts.rouge_l(true, written) == pytest.approx(0.75)
    assert texts.rouge_l(true, ["the", "gunman", "police", "killed"]) == pytest.approx(0.5)  # Lin 2004, section 3.1
    precision, recall = 2 / 3, 2 / 4
    by_recall = texts.rouge_l(true, ["police", "the", "cat"], beta=1.2)
    assert by_recall == pytest.approx((1 + 1.44) * precision * recall / (recall + 1.44 * precision))


def test_words_and_spaces() -> None:
    assert texts.tokens("Heart-size normal. No T2-lesion!") == ["heart", "size", "normal", "no", "t2", "lesion"]
    assert texts.tokens("Normal. No", "spaces") == ["Normal.", "No"]
    with pytest.raises(ValueError, match=r"one of \['words', 'spaces'\], got 'bpe'"):
        texts.tokens("", "bpe")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_sacrebleu_without_smoothing(order: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    true, written = corpus()
    theirs = sacrebleu.metrics.BLEU(
        tokenize="none", smooth_method="none", max_ngram_order=order, force=True
    ).corpus_score(written, [true])
    assert scores(true, written, order) == pytest.approx(theirs.score / 100, abs=1e-9)


@pytest.mark.parametrize("order", [1, 4])
def test_bleu_is_that_of_nltk_where_no_text_is_shorter_than_the_n_grams(order: int) -> None:
    bleu_score = pytest.importorskip("nltk.translate.bleu_score")
    kept = [pair for pair in zip(*corpus(), strict=True) if len(pair[1].split()) >= order]
    true, written = [list(side) for side in zip(*kept, strict=True)]
    weights = [1 / order] * order
    theirs = bleu_score.corpus_bleu([[text.split()] for text in true], [text.split() for text in written], weights)
    assert scores(true, written, order) == pytest.approx(theirs, abs=1e-12)


def test_bleu_and_rouge_are_those_of_pycocoevalcap_up_to_its_smoothing_and_beta() -> None:
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    true, written = corpus()
    scorer = bleu_scorer.BleuScorer(n=4)
    for one, other in zip(true, written, strict=True):
        scorer += (other, [one])
    theirs, _ = scorer.compute_score(option="closest", verbose=0)
    assert [scores(true, written, order) for order in (1, 2, 3, 4)] == pytest.approx(theirs, abs=1e-8)
    ours = [texts.rouge_l(one.split(" "), other.split(" "), beta=1.2) for one, other in zip(true, written, strict=True)]
    assert ours == pytest.approx([rouge.Rouge().calc_score([b], [a]) for a, b in zip(true, written, strict=True)])


def test_rouge_l_and_words_are_those_of_rouge_score() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    true, written = corpus()
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    theirs = [scorer.score(one, other)["rougeL"].fmeasure for one, other in zip(true, written, strict=True)]
    ours = [texts.rouge_l(texts.tokens(a), texts.tokens(b)) for a, b in zip(true, written, strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_f1_by_hand() -> None:
    true = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    found = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    sums = texts.label_counts(true, found).sum(0)
    assert sums.tolist() == [1, 2, 0, 4, 4, 0]
    assert texts.label_f1(sums, "none").tolist() == [0.5, 1, 0]
    assert texts.label_f1(sums, "micro") == pytest.approx(6 / 8)
    assert texts.label_f1(sums, "macro") == pytest.approx(0.5)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_is_that_of_sklearn(average: Literal["micro", "macro"]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    dice = np.random.default_rng(1)
    true, found = dice.random((2, 200, 14)) < 0.2
    found[:, 3] = true[:, 3] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sklearn.f1_score(true, found, average=average)
    assert texts.label_f1(texts.label_counts(true, found).sum(0), average) == pytest.approx(theirs)


def test_texts_of_a_patient_are_drawn_together() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    drawn = texts.draws(groups, resamples=50, seed=0)
    assert drawn.shape == (50, 6)
    for group in range(3):
        assert (drawn[:, groups == group] == drawn[:, groups == group][:, :1]).all()
    assert (drawn[:, [0, 2, 3]].sum(1) == 3).all()
    assert (texts.draws(groups, resamples=50, seed=0) == drawn).all()
    with pytest.raises(ValueError, match="at least 2 patients to resample, got 1"):
        texts.draws(np.zeros(4, int), resamples=5, seed=0)


def test_resampled_bleu_is_that_of_the_resampled_corpus() -> None:
    true, written = ([text.split() for text in side] for side in corpus(20))
    counts = texts.bleu_counts(true, written)
    drawn = texts.draws(np.arange(20), resamples=5, seed=1)
    found = texts.bleu(drawn @ counts, 4)
    for one, value in zip(drawn, found, strict=True):
        rows = np.repeat(np.arange(20), one)
        again = texts.bleu_counts([true[row] for row in rows], [written[row] for row in rows])
        assert value == pytest.approx(float(texts.bleu(again.sum(0), 4)))


def test_the_interval_of_known_values() -> None:
    found = texts.interval(np.arange(101.0), confidence=0.9)
    assert found == pytest.approx((50, 5, 95))


def test_refusals_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="one candidate per reference, got 1 for 2"):
        texts.bleu_counts([["a"], ["b"]], [["a"]])
    with pytest.raises(ValueError, match=r"one shape \(N, L\), got \(2, 3\) and \(2, 2\)"):
        texts.label_counts(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="order must be 1 to 4, got 5"):
        texts.bleu(np.zeros(10), 5)
