"""Judges that are asked a rubric in words, on this machine: scores of the allowed answers, or a generated answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.judges import scoring
from synthchex.judges.chat import ChatModel, load_chat
from synthchex.judges.recipe import JudgeRecipe
from synthchex.judges.rubrics import Form, form_of, rubric_hash
from synthchex.judges.verdicts import Verdict, best, certain, softmax, unparsed

logger = logging.getLogger(__name__)
NEUTRAL_FILM = np.full((448, 448), 128, np.uint8)
NEUTRAL_PROMPT = "N/A"


def load_vlm(recipe: JudgeRecipe, rubrics: Path, device: str | None) -> VisionLanguageJudge:
    """The judge of a recipe for a model of transformers."""
    form = form_of(recipe, rubrics)
    return VisionLanguageJudge(recipe, form, load_chat(recipe, device))


def load_healthgpt(recipe: JudgeRecipe, rubrics: Path, device: str | None) -> VisionLanguageJudge:
    """The judge of a recipe for HealthGPT, whose `load` names the parts that it is put together from."""
    from synthchex.models import healthgpt

    form = form_of(recipe, rubrics)
    found = healthgpt.load(recipe, device=device)
    network = ChatModel(found.model, found.processor, revision=found.version, prefix=recipe.answer_prefix)
    return VisionLanguageJudge(recipe, form, network)


class VisionLanguageJudge:
    """A vision-language model, asked the rubric with the prompt in it.

    Attributes:
        name, identity: see `Judge`.
        form: the question and its allowed answers.
        network: the model, its processor and chat template.
        packing: how full labels are scored, as the model allows.
    """

    def __init__(self, recipe: JudgeRecipe, form: Form, network: ChatModel) -> None:
        self.name, self.recipe, self.form, self.network = recipe.name, recipe, form, network
        self.identity = {
            "name": recipe.name,
            "model": recipe.model,
            "revision": network.revision,
            "rubric": recipe.rubric,
            "rubric_hash": rubric_hash(form.rubric),
        }
        bound = recipe.read_out == "score" or (recipe.read_out == "generate" and recipe.constrained)
        self.answers = [network.answer_ids(choice) for choice in form.choices] if bound else []
        self._check_answers()
        self.room = max([recipe.max_new_tokens if recipe.read_out != "score" else 1, *map(len, self.answers)]) + 1
        self.packing, self.prior = recipe.packing, np.zeros(len(self.answers))
        if recipe.read_out == "score":
            self._settle()

    def _check_answers(self) -> None:
        """Letters must be one token each, and no two answers the same tokens."""
        for choice, ids in zip(self.form.choices, self.answers, strict=False):
            if self.form.letters and len(ids) != 1:
                raise ValueError(f"expected a tokenizer with one token for {choice!r}, got {len(ids)}: {ids}")
        if len({tuple(ids) for ids in self.answers}) != len(self.answers):
            raise ValueError(f"expected different tokens for {self.form.choices}, got {self.answers}")

    def _settle(self) -> None:
        """Find out how answers may be packed, and what a film without content scores."""
        neutral = self.network.prepare([NEUTRAL_FILM], [NEUTRAL_PROMPT], self.form.ask, room=self.room).inputs
        wanted = self.recipe.packing
        self.packing, left = scoring.allowed_way(self.network.model, neutral, self.answers, wanted, self.recipe.dtype)
        for why in left:
            logger.warning("%s is scored with packing %s, not %s", self.name, self.packing, why)
        if self.recipe.prior:
            found = scoring.answer_log_probs(self.network.model, neutral, self.answers, self.packing)
            self.prior = self._calibrated(found)[0]

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """A verdict for each film, by the read-out of the recipe."""
        return self._scored(films, prompts) if self.recipe.read_out == "score" else self._generated(films, prompts)

    def question(self, prompt: str) -> str:
        """The whole text that the model reads about one film."""
        return self.network.chat(self.form.ask(prompt))

    def _scored(self, films: Sequence[np.ndarray], prompts: Sequence[str]) -> list[Verdict]:
        inputs, cut = self.network.prepare(films, prompts, self.form.ask, room=self.room)
        found = scoring.answer_log_probs(self.network.model, inputs, self.answers, self.packing)
        scores = softmax(self._calibrated(found) - self.prior)
        return [
            best(
                dict(zip(self.form.order, row, strict=True)),
                log_probs=dict(zip(self.form.order, map(float, logs), strict=True)),
                label_mass=float(np.exp(logs).sum()),
                **_cut(lost),
            )
            for row, logs, lost in zip(scores, found, cut, strict=True)
        ]

    def _calibrated(self, log_probs: np.ndarray) -> np.ndarray:
        """Log-probabilities (N, K) that labels of unequal length can be compared by."""
        if self.recipe.length == "sum":
            return log_probs
        return log_probs / np.array([len(answer) for answer in self.answers])

    def _generated(self, films: Sequence[np.ndarray], prompts: Sequence[str]) -> list[Verdict]:
        verdicts = self._asked(films, prompts, again=False)
        lost = [row for row, verdict in enumerate(verdicts) if verdict.quality is None]
        if lost and not self.form.published:
            second = self._asked([films[row] for row in lost], [prompts[row] for row in lost], again=True)
            for row, verdict in zip(lost, second, strict=True):
                first = {"first_answer": verdicts[row].details["answer"], "retried": True}
                verdicts[row] = verdict._replace(details={**verdict.details, **first})
        return verdicts

    def _asked(self, films: Sequence[np.ndarray], prompts: Sequence[str], *, again: bool) -> list[Verdict]:
        inputs, cut = self.network.prepare(
            films, prompts, lambda prompt: self.form.ask(prompt, again=again), room=self.room
        )
        words = self.network.generate(inputs, max_new_tokens=self.recipe.max_new_tokens, allowed=self.answers)
        return [self._read(answer, **_cut(lost)) for answer, lost in zip(words, cut, strict=True)]

    def _read(self, answer: str, **details: Any) -> Verdict:
        quality = self.form.read(answer)
        return unparsed(answer=answer, **details) if quality is None else certain(quality, answer=answer, **details)


def _cut(lost: int) -> dict[str, int]:
    return {"prompt_tokens_cut": lost} if lost else {}
