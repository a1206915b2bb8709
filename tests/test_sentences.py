"""Reports into sentences, and per-sentence alignment as its users call it."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import synthchex
from synthchex.measure import sentences

REPORTS = [
    ("The heart is\n mildly enlarged. no effusion.", ["The heart is mildly enlarged.", "no effusion."]),
    ("Seen by Dr. Lee. A 2.5 cm nodule, approx. 3 mm larger.",
     ["Seen by Dr. Lee.", "A 2.5 cm nodule, approx. 3 mm larger."]),
    ("1. Cardiomegaly 2. Effusion 3) Edema", ["Cardiomegaly", "Effusion", "Edema"]),
    ("IMPRESSION:\n1. No change.\n2. See Fig. 2.\n\nRECOMMENDATION: CT in 6 mo.",
     ["No change.", "See Fig. 2.", "CT in 6 mo."]),
    ("Fracture of rib 7. The lungs are clear.", ["Fracture of rib 7.", "The lungs are clear."]),
    ("- No edema\n- No effusion\n\u2022 Normal", ["No edema", "No effusion", "Normal"]),
    ("Is there edema? No. Stable!", ["Is there edema?", "No.", "Stable!"]),
    ("Told to J. Smith at 3 p.m. by phone. Grade A. The rest is normal.",
     ["Told to J. Smith at 3 p.m. by phone.", "Grade A.", "The rest is normal."]),
    ("Read No. 2 first. Edema vs. pneumonia, e.g. as on 3.4.2020 (right > left).) Next.",
     ["Read No. 2 first.", "Edema vs. pneumonia, e.g. as on 3.4.2020 (right > left).)", "Next."]),
    ("left lung is clear.Right lung is not... Tube at T5.",
     ["left lung is clear.", "Right lung is not...", "Tube at T5."]),
    ("Discussed with Dr. ___ at 10:30 a.m. on [**2101-1-1**]. Normal.",
     ["Discussed with Dr. ___ at 10:30 a.m. on [**2101-1-1**].", "Normal."]),
    ("Pneumonia", ["Pneumonia"]),
    (" ...\n - ", []),
    ("", []),
]  # fmt: skip


@pytest.mark.parametrize(("report", "expected"), REPORTS)
def test_sentences(report: str, expected: list[str]) -> None:
    assert sentences.split(report) == expected


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(sentences) == (0, 2)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("Right pleural effusion.", "No right pleural effusion."),
        ("AP film", "No AP film"),
        ("There are opacities. There is an old fracture.", "There are no opacities. There is no old fracture."),
        ("No evidence of edema. Lungs are without masses.", "Edema. Lungs are masses."),
        ("The heart is not enlarged. The lungs were clear.", "The heart is enlarged. The lungs were not clear."),
        ("Nodule, notable.", "No nodule, notable."),
        ("", "No "),
    ],
)
def test_negated_prompts(report: str, expected: str) -> None:
    assert sentences.negated(report) == expected


class Words:
    """Images and texts as counts of what is in them: an image is a row of grey values, a text its letters a to d."""

    name, key = "words", "words-1"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
        """(N, 4) float32."""
        return np.array([film[0, :4] for film in films], np.float32)

    def encode_texts(self, texts: Any) -> np.ndarray:
        """(N, 4) float32."""
        self.texts += list(texts)
        return np.array([[text.lower().count(letter) + 0.01 for letter in "abcd"] for text in texts], np.float32)

    def count_truncated(self, texts: Any) -> int:
        """Texts beyond 12 letters."""
        return sum(len(text) > 12 for text in texts)


def test_one_wrong_sentence_shows() -> None:
    films = np.array([[[9, 9, 0, 0]] * 4, [[0, 0, 9, 9]] * 4, [[9, 9, 0, 0]] * 4], np.uint8)
    reports = ["A a. B b.", "C c. D d.", "A a. D d."]
    encoder = Words()
    metric = synthchex.load("alignment")
    asked: dict[str, Any] = {"predictions": films, "encoder": encoder, "per_sentence": True}
    result = metric.compute(references=reports, **asked, groups={"wrong": np.array([False, True, True])})
    each = result["alignment_sentences"]
    assert [len(own) for own in each] == [2, 2, 2]
    assert each[2] == [pytest.approx(each[0][0]), pytest.approx(0, abs=0.02)]
    assert result["alignment_sentence_mean"] == pytest.approx(np.mean([np.mean(own) for own in each]))
    assert result["alignment_sentence_min"] == pytest.approx(np.mean([np.min(own) for own in each]))
    assert result["n_sentences"] == 6
    assert sorted(encoder.texts) == sorted([*reports, "A a.", "B b.", "C c.", "D d."])  # each different text once
    part = result["labels"]["wrong"]
    assert (part["alignment_sentences"], part["n_sentences"]) == (each[1:], 4)
    # The same sentence by sentence, as one would do it by hand.
    one = metric.compute(predictions=films[[2, 2]], references=["A a.", "D d."], encoder=encoder, per_sample=True)
    assert one["alignment_per_sample"] == pytest.approx(each[2])


def test_rivals_may_be_the_negated_prompts() -> None:
    films = np.array([[[9, 0, 0, 0]] * 4, [[0, 9, 0, 0]] * 4, [[9, 0, 0, 9]] * 4], np.uint8)
    reports, rivals = ["Abba aa", "No b", "d ad"], ["No abba aa", "B", "No d ad"]
    metric = synthchex.load("alignment")
    asked: dict[str, Any] = {"predictions": films, "references": reports, "encoder": Words()}
    groups = {"one": np.array([False, True, False])} | {"two": np.array([True, True, False])}
    found = metric.compute(**asked, rivals="negated", groups=groups)
    assert found == metric.compute(**asked, rivals=rivals, groups=groups)
    assert found["alignment_win_rate"] == 0.5  # "no" has none of the letters: three ties
    with pytest.raises(ValueError, match="or 'negated' beside prompts that are texts, got 'opposite'; pass texts"):
        metric.compute(**asked, rivals="opposite")


def test_truncation_is_counted_by_label_and_sentence() -> None:
    films = np.full((4, 4, 4), 9, np.uint8)
    reports = ["a", "a", "bbbbbbbbbbbbbbbb", "c. dddddddddddddddddd"]
    groups = {"short": np.array([True, True, False, False]), "long": np.array([False, False, True, True])}
    found = synthchex.load("alignment").compute(
        predictions=films, references=reports, encoder=Words(), groups=groups, per_sentence=True
    )
    assert found["alignment_truncated"] == 2
    assert [found["labels"][label]["alignment_truncated"] for label in groups] == [0, 2]
    assert "references: 2 of 4 prompts are longer than the encoder reads" in found["warnings"]
    assert "2 different sentences are longer than the encoder reads" in found["warnings"]


def test_what_has_no_sentences_is_its_own_or_refused() -> None:
    films = np.full((2, 4, 4), 9, np.uint8)
    metric = synthchex.load("alignment")
    found = metric.compute(predictions=films, references=["...", "a. b."], encoder=Words(), per_sentence=True)
    assert [len(own) for own in found["alignment_sentences"]] == [1, 2]
    with pytest.raises(ValueError, match="per_sentence: expected prompts as texts, got embeddings; pass references"):
        metric.compute(predictions=films, references=np.ones((2, 4)), encoder=Words(), per_sentence=True)
    with pytest.raises(ValueError, match="rivals: expected 2, one per prompt, got 1"):
        metric.compute(predictions=films, references=["a", "b"], encoder=Words(), rivals=["c"])
    with pytest.raises(ValueError, match=r"groups\['x'\]: expected one mask for pairs, got different ones"):
        metric.compute(
            predictions=films,
            references=["a", "b"],
            encoder=Words(),
            groups={"x": (np.array([True, False]), np.array([False, True]))},
        )
