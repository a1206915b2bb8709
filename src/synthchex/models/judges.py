"""Films and prompts to verdicts. Knows networks and the rubric's four classes; knows neither files nor what is dropped.

A judge is made from a `JudgeRecipe` and answers `judge(films, prompts, labels) -> list of Verdict`. Every judge gives a
score for each of the four classes, so that a verdict can be thresholded and audited; none guesses when it cannot read a
film.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from synthchex.data import records
from synthchex.models import encoders
from synthchex.models.classifiers import load_logits
from synthchex.models.samplers import model_path

LETTERS = "ABCD"


class Verdict(NamedTuple):
    """One of the four classes, the score of each (they sum to 1), and a slug where the judge has a reason of its
    own.
    """

    quality: str
    scores: dict[str, float]
    reason: str | None = None


@dataclass(frozen=True)
class JudgeRecipe:
    """How a judge is loaded; one YAML in `filtering/configs/`.

    `judge` is "classifier" (image-quality + label-agreement), "vlm" (a vision-language model asked the rubric) or
    "fixed". `label_model` and `agreement` belong to the classifier: below that mean log-likelihood of the prompt's
    labels a film is Low Quality, with the reason `label_mismatch`. `rubric` belongs to the vlm: a Markdown file, or the
    name of one in `filtering/prompts`.
    """

    name: str
    judge: str
    model: str = ""
    revision: str = "main"
    dtype: str = "float32"
    label_model: str | None = None
    agreement: float | None = None
    rubric: str = "quality"
    answer: str = records.QUALITIES[0]
    source: str = ""
    calibration: str = "uncalibrated"
    load: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise ValueError(f"judge recipe {self.name}: judge must be one of {list(JUDGES)}, got {self.judge!r}")
        if self.answer not in records.QUALITIES:
            raise ValueError(
                f"judge recipe {self.name}: answer must be one of {records.QUALITIES}, got {self.answer!r}"
            )

    def hashed(self) -> dict[str, Any]:
        """What decides the verdicts: everything but the prose."""
        return {key: value for key, value in asdict(self).items() if key not in ("source", "calibration")}


class Judge(Protocol):
    """Films, prompts and prompt labels to verdicts."""

    name: str

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """One verdict per uint8 film."""
        ...


def load_judge(recipe: JudgeRecipe, *, rubrics: Path, device: str | None = None) -> Judge:
    """The judge that a recipe names, ready on `device`; `rubrics` is the folder of rubric files."""
    return JUDGES[recipe.judge](recipe, rubrics, device)


class ClassifierJudge:
    """Image quality by a four-class network, and agreement of the film with the labels of its prompt by a label
    network.

    It is not a vision-language model: it never reads the prompt's words, only its labels.
    """

    def __init__(self, recipe: JudgeRecipe, rubrics: Path, device: str | None) -> None:
        self.name, self.agreement = recipe.name, recipe.agreement
        self.quality_net = load_logits(recipe.model, device=device)
        expected = set(records.QUALITIES)
        if set(self.quality_net.heads) != expected:
            raise ValueError(
                f"judge {recipe.name} expects a network with the classes "
                f"{sorted(expected)}, got {self.quality_net.heads}"
            )
        self.label_net = load_logits(recipe.label_model, device=device) if recipe.label_model else None

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """Quality of each film; Low Quality where it does not show what its prompt says."""
        scores = _softmax(self.quality_net.encode(films))
        verdicts = [self._best(dict(zip(self.quality_net.heads, map(float, row), strict=True))) for row in scores]
        if self.label_net is None or self.agreement is None:
            return verdicts
        agreement = label_agreement(self.label_net.encode(films), self.label_net.heads, labels)
        return [
            Verdict("Low Quality", verdict.scores, "label_mismatch")
            if low and verdict.quality in records.KEPT_QUALITIES
            else verdict
            for verdict, low in zip(verdicts, agreement < self.agreement, strict=True)
        ]

    @staticmethod
    def _best(scores: dict[str, float]) -> Verdict:
        return Verdict(max(records.QUALITIES, key=lambda quality: scores[quality]), scores)


def label_agreement(logits: np.ndarray, names: Sequence[str], labels: Sequence[Mapping[str, int | None]]) -> np.ndarray:
    """Mean log-likelihood, in nats and at most 0, of the prompt's positive and negative labels under a label network.

    Args:
        logits: (N, L) of a multi-label network.
        names: its L labels.
        labels: states of each row; uncertain and unmentioned labels do not count, and a row without any scores 0.
    """
    scores = np.zeros(len(labels))
    for row, states in enumerate(labels):
        stated = [(column, states.get(name)) for column, name in enumerate(names) if states.get(name) in (0, 1)]
        if stated:
            signs = np.array([1.0 if state == 1 else -1.0 for _, state in stated])
            scores[row] = -np.logaddexp(0.0, -signs * logits[row, [column for column, _ in stated]]).mean()
    return scores


class VisionLanguageJudge:
    """Any transformers image-text-to-text model, asked the rubric with the prompt in it, scored on the letters of the
    four answers.

    The letters' log-probabilities are read after one forward pass, so there is no free text and no unparsed answer.
    """

    def __init__(self, recipe: JudgeRecipe, rubrics: Path, device: str | None) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        path = model_path(recipe.model)
        with encoders.loading(path):
            self.processor = AutoProcessor.from_pretrained(path, revision=recipe.revision)
            model = AutoModelForImageTextToText.from_pretrained(
                path, revision=recipe.revision, dtype=getattr(torch, recipe.dtype), **recipe.load
            )
        self.name, self.model = recipe.name, model.eval().to(encoders.pick_device(device))
        self.rubric = read_rubric(recipe.rubric, rubrics)
        self.processor.tokenizer.padding_side = "left"
        self.letters = [_single_token(self.processor.tokenizer, letter) for letter in LETTERS]

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """The most likely letter of each film, with the probability of all four."""
        import torch
        from PIL import Image

        from synthchex.data.images import to_rgb

        asked = [self.question(prompt) for prompt in prompts]
        pictures = [[Image.fromarray(to_rgb(film))] for film in films]
        inputs = self.processor(text=asked, images=pictures, padding=True, return_tensors="pt").to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        with torch.inference_mode():
            logits = self.model(**inputs, logits_to_keep=1).logits[:, -1, self.letters]
        scores = _softmax(logits.float().cpu().numpy())
        return [ClassifierJudge._best(dict(zip(records.QUALITIES, map(float, row), strict=True))) for row in scores]

    def question(self, prompt: str) -> str:
        """The chat text of one film: rubric with the prompt, lettered answers, an open answer."""
        answers = "\n".join(f"{letter}. {quality}" for letter, quality in zip(LETTERS, records.QUALITIES, strict=True))
        text = f"{self.rubric.replace('{prompt}', prompt)}\n{answers}\nAnswer with one letter."
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        return str(self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False))


class FixedJudge:
    """One answer for every film: the dry run of everything around a judge, and a test double."""

    def __init__(self, recipe: JudgeRecipe, rubrics: Path, device: str | None) -> None:
        self.name, self.answer = recipe.name, recipe.answer

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """The fixed answer."""
        return [
            Verdict(self.answer, {quality: float(quality == self.answer) for quality in records.QUALITIES})
            for _ in films
        ]


JUDGES: dict[str, Callable[[JudgeRecipe, Path, str | None], Judge]] = {
    "classifier": ClassifierJudge,
    "vlm": VisionLanguageJudge,
    "fixed": FixedJudge,
}


def read_rubric(name: str, folder: Path) -> str:
    """A rubric's text, by path or by name in `folder`; it must have a {prompt} slot, or the judge would never see the
    caption.
    """
    path = Path(name) if name.endswith(".md") else folder / f"{name}.md"
    if not path.is_file():
        raise ValueError(
            f"expected a .md file or one of {sorted(p.stem for p in folder.glob('*.md'))} as rubric, got {name!r}"
        )
    text = path.read_text().strip()
    if "{prompt}" not in text:
        raise ValueError(
            f"rubric {path} must hold {{prompt}} where the film's "
            "prompt goes; without it the judge never sees the caption"
        )
    return text


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _single_token(tokenizer: Any, letter: str) -> int:
    ids = tokenizer(letter, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ValueError(
            f"expected a tokenizer with one token for {letter!r}, got "
            f"{len(ids)} (unknown: {tokenizer.unk_token_id in ids})"
        )
    return int(ids[0])


def scores_text(verdict: Verdict) -> str:
    """Scores as the text of the `quality_scores` column."""
    return json.dumps({quality: round(score, 6) for quality, score in verdict.scores.items()})
