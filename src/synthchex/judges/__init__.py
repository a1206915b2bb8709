"""Films and prompts to verdicts. Knows networks, servers and the rubric's four classes; knows neither files nor what is
dropped.

A judge is made from a `JudgeRecipe` and answers `judge(films, prompts, labels) -> list of Verdict`. A judge that scores
gives a number for each of the four classes, so that a verdict can be thresholded and audited; one that answers in words
may be unreadable, which is a verdict of its own and never a guess. Nothing is loaded at import.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from synthchex.judges.classifier import ClassifierJudge, FixedJudge, label_agreement
from synthchex.judges.panel import Panel, agreement
from synthchex.judges.recipe import JudgeRecipe
from synthchex.judges.rubrics import read_rubric, rubric_hash
from synthchex.judges.server import ServerJudge
from synthchex.judges.verdicts import Judge, Verdict, described, scores_text
from synthchex.judges.vlm import load_healthgpt, load_vlm

__all__ = [
    "JUDGES",
    "Judge",
    "JudgeRecipe",
    "Panel",
    "Verdict",
    "agreement",
    "described",
    "label_agreement",
    "load_judge",
    "read_rubric",
    "rubric_hash",
    "scores_text",
]

JUDGES: dict[str, Callable[[JudgeRecipe, Path, str | None], Judge]] = {
    "classifier": ClassifierJudge,
    "vlm": load_vlm,
    "healthgpt": load_healthgpt,
    "server": ServerJudge,
    "fixed": FixedJudge,
}


def load_judge(recipe: JudgeRecipe, *, rubrics: Path, device: str | None = None) -> Judge:
    """The judge that a recipe names, ready on `device`; `rubrics` is the folder of rubric files.

    A server is not asked here whether the films may leave this machine: see `endpoint.refusal`.
    """
    return JUDGES[recipe.judge](recipe, rubrics, device)
