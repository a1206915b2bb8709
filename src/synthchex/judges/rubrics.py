"""The words between a film and a verdict: the question, the allowed answers, and how an answer is read. Knows no
networks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from synthchex.data import records
from synthchex.judges.recipe import JudgeRecipe

LETTERS = "ABCD"
SLOT = "{prompt}"
AGAIN = "Your last answer could not be read. Answer with exactly one of these and nothing else"


def read_rubric(name: str, folder: Path) -> str:
    """A rubric's text, by path or by name in `folder`.

    Raises:
        ValueError: it is not there, or has no {prompt} slot, so that the judge would never see the caption.
    """
    path = Path(name) if name.endswith(".md") else folder / f"{name}.md"
    if not path.is_file():
        raise ValueError(
            f"expected a .md file or one of {sorted(p.stem for p in folder.glob('*.md'))} as rubric, got {name!r}"
        )
    text = path.read_text().strip()
    if SLOT not in text:
        raise ValueError(
            f"rubric {path} must hold {{prompt}} where the film's "
            "prompt goes; without it the judge never sees the caption"
        )
    return text


def rubric_hash(text: str) -> str:
    """Short hash of a rubric's text: 16 hex digits."""
    return records.fingerprint(["rubric", text])


@dataclass(frozen=True)
class Form:
    """A rubric with its allowed answers.

    Attributes:
        rubric: text with a {prompt} slot.
        order: the classes as they are offered.
        letters: whether the answers are the letters A to D, or the names of the classes.
        published: whether the rubric is asked as it stands, and its answer read as free words.
    """

    rubric: str
    order: tuple[str, ...] = records.QUALITIES
    letters: bool = True
    published: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed answers, as the model is to write them, in the order of `order`."""
        return tuple(LETTERS) if self.letters else self.order

    def ask(self, prompt: str, *, again: bool = False) -> str:
        """The question about one film; `again` after an answer that could not be read."""
        question = self.rubric.replace(SLOT, prompt)
        if self.published:
            return question
        if self.letters:
            offered = (f"{letter}. {quality}" for letter, quality in zip(LETTERS, self.order, strict=True))
            question += "\n" + "\n".join(offered) + "\nAnswer with one letter."
        else:
            question += f"\nAnswer with one of: {', '.join(self.order)}."
        return f"{question}\n{AGAIN}: {', '.join(self.choices)}." if again else question

    def read(self, answer: str) -> str | None:
        """The class that an answer names, or None where it names none, or more than one."""
        return mentioned(answer) if self.published else self._strict(answer)

    def _strict(self, answer: str) -> str | None:
        """An answer that is a letter, a class, or both, and nothing else but marks around them."""
        words = re.sub(r"[\s*_`\"'.,:;()\[\]]+", " ", answer).strip().casefold().removeprefix("answer ")
        for letter, quality in zip(LETTERS, self.order, strict=True):
            spelled = {quality.casefold()}
            if self.letters:
                spelled |= {letter.casefold(), f"{letter} {quality}".casefold()}
            if words in spelled:
                return quality
        return None


def mentioned(answer: str) -> str | None:
    """The one class whose name stands in free words, in any case; None where none does, several do, or one is denied.

    The published protocol kept raw answers and gives no rule for reading them; this is the one that guesses nothing.
    """
    words = " ".join(answer.casefold().split())
    found = [quality for quality in records.QUALITIES if re.search(rf"\b{quality.casefold()}\b", words)]
    denied = re.search(r"\b(not(?! relevant)|no|never|neither|nor)\b|n['’]t\b", words)
    return found[0] if len(found) == 1 and not denied else None


def form_of(recipe: JudgeRecipe, folder: Path) -> Form:
    """The form that a recipe asks."""
    return Form(
        read_rubric(recipe.rubric, folder),
        recipe.order,
        letters=recipe.answers == "letters",
        published=recipe.read_out == "published",
    )
