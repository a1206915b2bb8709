"""Films from one prompt, as `synthchex generate` makes them; what the linter says of it, and judges of them."""

from __future__ import annotations

import copy
import inspect
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

import synthchex
from synthchex import judges, phantom
from synthchex.data import images, lint, prompts, records
from synthchex.gate import identifiers
from synthchex.judges import endpoint
from synthchex.models import classifiers, samplers
from synthchex.models.samplers import rows as films
from synthchex.studio.safety import UNKNOWN

MAX_STEPS, MAX_FILMS, MAX_PROMPT, MAX_GUIDANCE = 250, 8, 4000, 30.0
PATTERNS = {
    **{kind: re.compile(words, re.IGNORECASE) for kind, words in (identifiers.STRONG | identifiers.WEAK).items()},
    lint.MARK: identifiers.MARKS,
}
EXAMPLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("No acute cardiopulmonary process.", ("No Finding",)),
    ("Moderate cardiomegaly.", ("Cardiomegaly",)),
    ("Mild interstitial pulmonary edema.", ("Edema",)),
    ("Small right pleural effusion with adjacent atelectasis.", ("Pleural Effusion", "Atelectasis")),
    ("Left lower lobe consolidation, concerning for pneumonia.", ("Consolidation", "Pneumonia")),
    ("Moderate left apical pneumothorax.", ("Pneumothorax",)),
    ("Endotracheal tube in good position. Lungs are clear.", ("Support Devices", "No Finding")),
)

Step = Callable[[int, int], None]


class Cancelled(Exception):
    """The user stopped the films that were being made."""


@dataclass(frozen=True)
class Asked:
    """What to make: `labels` are those that the prompt states as present, for the judge."""

    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    count: int
    labels: tuple[str, ...] = ()
    policy: str = UNKNOWN

    def __post_init__(self) -> None:
        if not self.prompt.strip() or len(self.prompt) > MAX_PROMPT:
            raise ValueError(f"expected a prompt of 1 to {MAX_PROMPT} characters, got {len(self.prompt.strip())}")
        for name, value, low, high in (
            ("a seed", self.seed, 0, 2**63 - 1),
            ("steps", self.steps, 1, MAX_STEPS),
            ("a guidance scale", self.guidance_scale, 0.0, MAX_GUIDANCE),
            ("a number of films", self.count, 1, MAX_FILMS),
        ):
            if not low <= value <= high:
                raise ValueError(f"expected {name} from {low} to {high}, got {value}")

    def wanted(self) -> prompts.Wanted:
        """The rows that `synthchex generate` makes of a table with this prompt, whose id is studio-<seed>."""
        states = None
        if self.labels:
            states = np.array([[1.0 if label in self.labels else np.nan for label in records.LABELS]], np.float32)
        table = prompts.Prompts("studio", [f"studio-{self.seed}"], [self.prompt.strip()], states, policy=self.policy)
        return prompts.want(table, per_prompt=self.count, seed=self.seed)


class Made(NamedTuple):
    """A film: its row without the image, its PNG (None where it is not finite), what judges say of it."""

    row: dict[str, Any]
    png: bytes | None
    verdict: judges.Verdict | None
    probabilities: dict[str, float]


class Maker:
    """Recipes and judge of one studio. One sampler is in memory, that of the recipe that was used last."""

    def __init__(
        self,
        recipes: Mapping[str, samplers.Recipe],
        judge: judges.JudgeRecipe | None,
        *,
        classifier: str | None = None,
        policy: str | None = None,
        device: str | None = None,
    ) -> None:
        self.recipes, self.judge_recipe, self.device = dict(recipes), judge, device
        self.classifier_name = classifier or (judge.label_model if judge is not None else None)
        self.policy = policy or UNKNOWN
        self._sampler: tuple[str, samplers.Sampler] | None = None
        self._judges: tuple[judges.Judge | None, classifiers.Classifier | None] | None = None
        self._lock = threading.Lock()

    def make(self, recipe: str, asked: Asked, step: Step) -> Iterator[Made]:
        """The films one after the other, each as soon as it is there.

        Args:
            recipe: name of one of the recipes.
            asked: what to make.
            step: called with (steps done, steps in all) over all films; may raise `Cancelled`.
        """
        if recipe not in self.recipes:
            raise ValueError(f"expected a recipe among {list(self.recipes)}, got {recipe!r}")
        with self._lock:
            sampler = stepping(self._loaded(recipe), asked, step)
            judge, classifier = self._loaded_judges()
            wanted = asked.wanted()
            for number in range(len(wanted)):
                step(number * asked.steps, len(wanted) * asked.steps)
                sampler.done = number * asked.steps
                row = films.encode(
                    films.sample([wanted.row(number)], sampler, films.Way(1)), sampler.provenance, "png"
                )[0]
                yield judged(row, judge, classifier)

    def lint(self, recipe: str, prompt: str) -> list[str]:
        """What should not stand in a prompt, in sentences; tokens are counted once the recipe's model is loaded."""
        found = said_of(prompt)
        if prompt.strip() and self._sampler is not None and self._sampler[0] == recipe:
            cut, limit = self._sampler[1].count_truncated([prompt.strip()])
            found += (
                [f"longer than the {limit} tokens that the text encoder reads: its end has no effect"] if cut else []
            )
        return found

    def _loaded(self, name: str) -> samplers.Sampler:
        if self._sampler is None or self._sampler[0] != name:
            self._sampler = None  # the old one goes before the new one comes
            self._sampler = name, samplers.load_sampler(self.recipes[name], device=self.device)
        return self._sampler[1]

    def _loaded_judges(self) -> tuple[judges.Judge | None, classifiers.Classifier | None]:
        if self._judges is None:
            recipe, rubrics = self.judge_recipe, synthchex.room("filtering") / "prompts"
            if recipe is not None and recipe.server:
                why = endpoint.refusal(recipe.endpoint(), self.policy, allow_local=False)
                if why:
                    raise ValueError(f"judge {recipe.name} is not asked: {why}")
            judge = judges.load_judge(recipe, rubrics=rubrics, device=self.device) if recipe is not None else None
            name = self.classifier_name
            self._judges = judge, classifiers.load_classifier(name, device=self.device) if name else None
        return self._judges


def stepping(sampler: samplers.Sampler, asked: Asked, step: Step) -> Any:
    """The same sampler with other steps and guidance, that tells each step it has done; weights are shared.

    `done` of what is returned is the number of steps of the films before.
    """
    told: Any = copy.copy(sampler)
    told.done = 0
    recipe = replace(told.recipe, steps=asked.steps, guidance_scale=asked.guidance_scale)
    total = asked.steps * asked.count
    if hasattr(told, "pipeline"):
        hook = _hook(told.pipeline, lambda number: step(min(told.done + number, total), total))
        recipe = replace(recipe, call={**recipe.call, **hook})
    told.recipe = recipe
    told.provenance = {**told.provenance, "steps": asked.steps, "guidance_scale": asked.guidance_scale}
    return told


def _hook(pipeline: Any, tell: Callable[[int], None]) -> dict[str, Any]:
    """The argument by which a pipeline of diffusers calls back after each step: the present one, or the older one."""
    known = inspect.signature(type(pipeline).__call__).parameters

    def after(_: Any, number: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tell(number + 1)
        return tensors

    if "callback_on_step_end" in known:
        return {"callback_on_step_end": after}
    if "callback" in known:
        return {"callback": lambda number, *_: tell(number + 1), "callback_steps": 1}
    return {}


def judged(row: dict[str, Any], judge: judges.Judge | None, classifier: classifiers.Classifier | None) -> Made:
    """A row as `films.encode` gives it, with the judge's verdict and the probabilities of labels."""
    image = row.pop("image")
    if image is None:
        return Made(row, None, None, {})
    pixels = images.read(image["bytes"]).pixels
    verdict = judge.judge([pixels], [row["prompt"]], [row["labels_dict"]])[0] if judge is not None else None
    likely = classifier.encode([pixels])[0] if classifier is not None else np.full(len(records.LABELS), np.nan)
    known = {label: float(value) for label, value in zip(records.LABELS, likely, strict=True) if np.isfinite(value)}
    return Made(row, image["bytes"], verdict, known)


def provenance(made: Made) -> str:
    """A film's row as JSON: the columns of `synthchex generate` but the image."""
    kept = {name: made.row.get(name) for name in films.features() if name != "image"}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


def said_of(prompt: str) -> list[str]:
    """What the prompt linter finds in one prompt, in sentences; nothing where it is clean."""
    text = prompt.strip()
    if not text:
        return ["the prompt is empty"]
    kinds = lint.look([text], PATTERNS).counts
    found = []
    for kind in (kind for kind in PATTERNS if kind in kinds):
        match = PATTERNS[kind].search(text)
        found.append(f"{kind}: “{match[0]}” does not belong in a prompt" if match else kind)
    return found


def examples(recipe: samplers.Recipe) -> list[tuple[str, tuple[str, ...]]]:
    """Prompts with the labels that they state: in the words that the model was trained with, where these are known."""
    if "phantom" not in recipe.model:
        return list(EXAMPLES)
    texts, states = phantom.write_reports(24, seed=8)
    found = [
        (text, tuple(label for label, state in zip(records.LABELS, row, strict=True) if state == 1))
        for text, row in zip(texts, states, strict=True)
    ]
    return sorted(found, key=lambda one: len(one[1]))[:12]


def verdict_facts(made: Made) -> Sequence[tuple[str, float]]:
    """The four classes with their scores, best class first; none where the judge gave no scores."""
    if made.verdict is None:
        return []
    return [(name, made.verdict.scores[name]) for name in records.QUALITIES if name in made.verdict.scores]
