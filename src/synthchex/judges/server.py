"""A judge behind an OpenAI-compatible server: vLLM, SGLang, TGI, llama.cpp, or a hosted one.

Requests are sent at least once; verdicts are stored exactly once, because a batch is written whole or not at all.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.judges.endpoint import CONSTRAINTS, Line, RefusedByServer
from synthchex.judges.recipe import JudgeRecipe
from synthchex.judges.rubrics import form_of, rubric_hash
from synthchex.judges.verdicts import Verdict, best, certain, unparsed

PROBE = ("indigo", "ochre")


class ServerJudge:
    """A served vision-language model, asked the rubric with the prompt in it and the film as a PNG.

    "score" reads the log-probabilities of the letters among the most likely first tokens; a letter that is not among
    them is named, and scores 0. "generate" binds the answer by the fields of the recipe's `constraint`, once it has
    been seen that the server obeys them.
    """

    def __init__(self, recipe: JudgeRecipe, rubrics: Path, device: str | None) -> None:
        self.name, self.recipe, self.form = recipe.name, recipe, form_of(recipe, rubrics)
        if recipe.read_out == "score" and recipe.answers != "letters":
            raise ValueError(f"judge recipe {recipe.name}: a server scores letters only; set `answers: letters`")
        self.line = Line(recipe.endpoint())
        self.obeys, self.answered = False, False
        self.identity = {
            "name": recipe.name,
            "model": recipe.model,
            "revision": recipe.revision,
            "rubric": recipe.rubric,
            "rubric_hash": rubric_hash(self.form.rubric),
        }

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[Verdict]:
        """A verdict for each film; one that the server refuses has the reason `judge-error-<status>`."""
        return asyncio.run(self._judge(films, prompts))

    async def _judge(self, films: Sequence[np.ndarray], prompts: Sequence[str]) -> list[Verdict]:
        if self._constraint() != "none" and not self.obeys:
            await self._probe()
        verdicts = await self._asked(films, prompts, again=False)
        lost = [row for row, verdict in enumerate(verdicts) if verdict.reason == "unparsed"]
        if lost and not self.form.published:
            second = await self._asked([films[row] for row in lost], [prompts[row] for row in lost], again=True)
            for row, verdict in zip(lost, second, strict=True):
                first = {"first_answer": verdicts[row].details["answer"], "retried": True}
                verdicts[row] = verdict._replace(details={**verdict.details, **first})
        return verdicts

    async def _asked(self, films: Sequence[np.ndarray], prompts: Sequence[str], *, again: bool) -> list[Verdict]:
        bodies = [self.body(film, prompt, again=again) for film, prompt in zip(films, prompts, strict=True)]
        answers = await self.line.ask_all(bodies)
        refused = [answer for answer in answers if isinstance(answer, RefusedByServer)]
        self.answered |= len(refused) < len(answers)
        if len(refused) > 1 and not self.answered:
            raise RuntimeError(
                f"{self.line.endpoint.host} refused all of the first {len(refused)} films: {refused[0]}; check that "
                "the model reads images and that the server knows the fields of this recipe"
            )
        return [self._verdict(answer) for answer in answers]

    def body(self, film: np.ndarray, prompt: str, *, again: bool = False) -> dict[str, Any]:
        """The request about one film."""
        from synthchex.data.images import to_png

        url = f"data:image/png;base64,{base64.b64encode(to_png(film)).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": self.form.ask(prompt, again=again)},
        ]
        return self._request(content, self.form.choices)

    def _request(self, content: Any, choices: Sequence[str]) -> dict[str, Any]:
        asked: dict[str, Any] = {"max_tokens": self.recipe.max_new_tokens}
        if self.recipe.read_out == "score":
            asked = {"max_tokens": 1, "logprobs": True, "top_logprobs": self.line.endpoint.top_logprobs}
        bound = CONSTRAINTS[self._constraint()](choices)
        messages = [{"role": "user", "content": content}]
        return {"model": self.recipe.model, "messages": messages, "temperature": 0.0, **asked, **bound}

    def _constraint(self) -> str:
        return self.line.endpoint.constraint if self.recipe.read_out == "generate" else "none"

    async def _probe(self) -> None:
        """Ask for one of two words that no model would choose by itself: servers ignore fields they do not know."""
        answer = (await self.line.ask_all([self._request("Say hello.", PROBE)]))[0]
        if isinstance(answer, RefusedByServer):
            raise ValueError(f"{self.line.endpoint.host} does not take constraint {self._constraint()!r}: {answer}")
        words = self._words(answer)
        if words not in PROBE:
            raise ValueError(
                f"{self.line.endpoint.host} ignores constraint {self._constraint()!r}: asked for one of {PROBE}, got "
                f"{words[:80]!r}; set the constraint that this server knows (one of {list(CONSTRAINTS)}), or read_out: "
                "score"
            )
        self.obeys = True

    def _words(self, answer: Mapping[str, Any]) -> str:
        """The text of an answer; of a JSON object, its `answer`."""
        words = (answer.get("message") or {}).get("content") or ""
        if not self._constraint().startswith("json"):
            return str(words).strip()
        try:
            return str(json.loads(words)["answer"])
        except (ValueError, KeyError, TypeError):
            return str(words).strip()

    def _verdict(self, answer: Mapping[str, Any] | RefusedByServer) -> Verdict:
        if isinstance(answer, RefusedByServer):
            return Verdict(None, {}, f"judge-error-{answer.status}", {"error": str(answer)})
        if self.recipe.read_out == "score":
            return self._scored(answer)
        words = self._words(answer)
        if self._constraint() != "none" and words not in self.form.choices:
            raise RuntimeError(
                f"{self.line.endpoint.host} broke constraint {self._constraint()!r}: expected one of "
                f"{self.form.choices}, got {words[:80]!r}; nothing of this batch is written"
            )
        quality = self.form.read(words)
        return unparsed(answer=words) if quality is None else certain(quality, answer=words)

    def _scored(self, answer: Mapping[str, Any]) -> Verdict:
        content = (answer.get("logprobs") or {}).get("content")
        if not content or not content[0].get("top_logprobs"):
            raise ValueError(
                f"{self.line.endpoint.host} returns no logprobs for {self.recipe.model}; set read_out: generate"
            )
        found: dict[str, float] = {}
        for one in content[0]["top_logprobs"]:
            letter = str(one["token"]).strip(" \n\tĠ▁")
            if letter in self.form.choices:
                # "A" and " A" are both the answer A.
                found[letter] = float(np.logaddexp(found.get(letter, -math.inf), one["logprob"]))
        if not found:
            return unparsed(answer=self._words(answer))
        mass = sum(math.exp(value) for value in found.values())
        pairs = list(zip(self.form.choices, self.form.order, strict=True))
        missing = [quality for letter, quality in pairs if letter not in found]
        return best(
            {quality: math.exp(found.get(letter, -math.inf)) / mass for letter, quality in pairs},
            log_probs={quality: found.get(letter) for letter, quality in pairs},
            label_mass=mass,
            **({"not_in_top_logprobs": missing} if missing else {}),
        )
