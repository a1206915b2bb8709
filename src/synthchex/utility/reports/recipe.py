"""How a model is fine-tuned to write reports: one YAML in `configs/` beside this file. Knows no network.

Everything here decides the result. How it is computed (processes, accumulation, memory) is on the command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from synthchex.data import recipes

CONFIGS = Path(__file__).parent / "configs"
MIXED = ("no", "bf16")
INDICATION = "{indication}"
MAY_BE_NONE = {"lora_alpha": float}
LEAST = {
    1: ("rank", "train_batch_size", "max_new_tokens", "max_length"),
    0: ("max_train_steps", "warmup_ratio", "weight_decay", "lora_dropout"),
}


@dataclass(frozen=True)
class ReportRecipe:
    """A fine-tuning run. Names follow transformers' and peft's; batch sizes in films, lengths in tokens.

    `model` is a Hub id or folder that `AutoModelForImageTextToText` loads: one with a chat template, which reads
    `prompt` (or `prompt_indication`, where a film has an indication) with the film, or a vision encoder-decoder, which
    reads the film alone. `answer_prefix` stands before a report, such as " " after "ASSISTANT:".

    `full` trains all weights; otherwise LoRA of `rank` on `target_modules`, by default every linear layer of the
    language model; `lora_alpha` None is the rank. `train_batch_size` counts the films of one optimizer step over all
    processes. `num_train_epochs` gives a small sample fewer steps; `max_train_steps` above 0 gives every sample as
    many. `warmup_ratio` is a share of the steps. A report may have half of `max_length` in training; one that is cut is
    counted. `max_new_tokens` bounds what is written. `load` is passed on to `from_pretrained`.
    """

    name: str
    model: str = ""
    revision: str = "main"
    prompt: str = "Provide a description of the findings in the radiology image."
    prompt_indication: str = (
        "Provide a description of the findings in the radiology image given the following indication: {indication}"
    )
    answer_prefix: str = ""
    max_new_tokens: int = 256
    max_length: int = 2048
    full: bool = False
    rank: int = 64
    lora_alpha: float | None = 128
    lora_dropout: float = 0.05
    target_modules: tuple[str, ...] = ()
    num_train_epochs: float = 5
    max_train_steps: int = 0
    train_batch_size: int = 16
    learning_rate: float = 1e-4
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    mixed_precision: Literal["no", "bf16"] = "no"
    load: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.name not in ("name", "load"):
                object.__setattr__(self, one.name, _typed(self.name, one.name, one.default, getattr(self, one.name)))
        if self.mixed_precision not in MIXED:
            raise ValueError(
                f"recipe {self.name}: mixed_precision must be one of {list(MIXED)}, got {self.mixed_precision!r}"
            )
        for least, names in LEAST.items():
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"recipe {self.name}: {name} must be at least {least}, got {getattr(self, name)}")
        for name in ("num_train_epochs", "learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"recipe {self.name}: {name} must be above 0, got {getattr(self, name)}")
        if self.full and self.target_modules:
            raise ValueError(f"recipe {self.name}: full trains all weights; leave target_modules out")
        if INDICATION not in self.prompt_indication:
            raise ValueError(
                f"recipe {self.name}: prompt_indication must hold {INDICATION}, got {self.prompt_indication!r}"
            )

    def steps(self, films: int) -> int:
        """Optimizer steps for a number of training films; batches run on over the ends of epochs."""
        return self.max_train_steps or max(1, -(-round(self.num_train_epochs * films) // self.train_batch_size))

    def question(self, indication: str) -> str:
        """What the model is asked about a film, with its indication where it has one."""
        text = indication.strip()
        return self.prompt_indication.replace(INDICATION, text) if text else self.prompt

    def hashed(self) -> dict[str, Any]:
        """What decides the reports: all but the prose."""
        return {key: value for key, value in asdict(self).items() if key != "source"}


def _typed(recipe: str, name: str, default: Any, value: Any) -> Any:
    kind = MAY_BE_NONE.get(name) or type(default)
    return recipes.typed(recipe, name, kind, value, may_be_none=name in MAY_BE_NONE)


def changes() -> list[tuple[str, type]]:
    """Fields that the command line may change, with the type of one value; a tuple's are texts."""
    return [
        (one.name, MAY_BE_NONE.get(one.name) or type(one.default))
        for one in fields(ReportRecipe)
        if one.name not in ("name", "load", "source")
    ]
