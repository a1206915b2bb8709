"""How a judge is loaded and asked: one YAML in `filtering/configs/`. Knows no networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from synthchex.data import recipes, records
from synthchex.judges.endpoint import Endpoint

KINDS = ("classifier", "vlm", "healthgpt", "server", "fixed")
READ_OUTS = ("score", "generate", "published")
ANSWERS = ("letters", "labels")
PACKINGS = ("packed", "cache", "separate")
LENGTHS = ("mean", "sum")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class JudgeRecipe:
    """How a judge is loaded and asked; one YAML in `filtering/configs/`.

    `judge` is "classifier" (image-quality + label-agreement), "vlm" (a vision-language model of transformers),
    "healthgpt", "server" (an OpenAI-compatible server, described by `server`: see `Endpoint`) or "fixed".
    `label_model` and `agreement` belong to the classifier: below that mean log-likelihood of the prompt's labels a film
    is Low Quality, with the reason `label_mismatch`. `answer` belongs to "fixed".

    The rest belongs to those that are asked in words. `rubric` is a Markdown file, or the name of one in
    `filtering/prompts`. `read_out`: "score" reads the log-probability of each allowed answer; "generate" reads the
    words of a greedy answer; "published" asks the rubric as it stands, without a list of answers, and reads free words.
    `answers`: "letters" A to D, or the full "labels". `order` is the order in which the classes are offered.
    `answer_prefix` is what the model writes before an answer, such as " " after "ASSISTANT:".

    `length` (full labels): "mean" log-probability of a label's tokens, or their "sum", which favours short labels.
    `prior` subtracts what the same question scores on a grey film with the caption "N/A". `packing` (full labels):
    "packed" reads all of them in one forward, "cache" shares the prefix's keys and values, "separate" shares nothing; a
    model that does not allow one falls back to the next, which is logged. `constrained`: a generated answer can only be
    one of the allowed. `load` is passed on to `from_pretrained`.
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
    read_out: str = "score"
    answers: str = "letters"
    order: tuple[str, ...] = records.QUALITIES
    answer_prefix: str = ""
    length: str = "mean"
    prior: bool = False
    packing: str = "packed"
    constrained: bool = True
    max_new_tokens: int = 32
    source: str = ""
    calibration: str = "uncalibrated"
    server: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", tuple(self.order))
        for key, allowed in (
            ("judge", KINDS),
            ("read_out", READ_OUTS),
            ("answers", ANSWERS),
            ("length", LENGTHS),
            ("packing", PACKINGS),
            ("dtype", DTYPES),
            ("answer", records.QUALITIES),
        ):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"judge recipe {self.name}: {key} must be one of {list(allowed)}, got {getattr(self, key)!r}"
                )
        if sorted(self.order) != sorted(records.QUALITIES):
            raise ValueError(
                f"judge recipe {self.name}: order must name each of {list(records.QUALITIES)} once, "
                f"got {list(self.order)}"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"judge recipe {self.name}: max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if bool(self.server) != (self.judge == "server"):
            raise ValueError(
                f"judge recipe {self.name}: `server:` belongs to judge: server, and only there; "
                f"got judge {self.judge!r} and server {self.server}"
            )
        if self.server:
            self.endpoint()

    def endpoint(self) -> Endpoint:
        """The server that `server` describes."""
        return recipes.build(self.server, Endpoint, where=f"judge recipe {self.name}: server")

    def hashed(self) -> dict[str, Any]:
        """What decides the verdicts: everything but the prose and where a server is reached."""
        found = {key: value for key, value in asdict(self).items() if key not in ("source", "calibration")}
        return found | {"server": {"constraint": self.endpoint().constraint} if self.server else {}}
