"""What is trained, on what and how: one YAML in `generation/configs/finetune/`. Knows no network.

Everything here decides the result. How it is computed (processes, accumulation, memory) is on the command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from synthchex.data import recipes

FITS = ("crop", "pad", "resize")
CHOICES: dict[str, tuple[str, ...]] = {
    "fit": FITS,
    "latents": ("sample", "mean"),
    "mixed_precision": ("no", "fp16", "bf16"),
    "optimizer": ("adamw", "adamw-8bit"),
    "weighting_scheme": ("none", "logit_normal", "mode", "cosmap", "sigma_sqrt"),
    "early_stopping_metric": ("kid", "loss"),
}
LEAST = {
    1: ("resolution", "rank", "train_batch_size", "checkpointing_steps", "checkpoints_total_limit",
        "validation_batch_size"),
    0: ("max_train_steps", "validation_steps", "kid_samples", "num_validation_images", "noise_offset",
        "lr_warmup_steps", "early_stopping_patience"),
}  # fmt: skip
MAY_BE_NONE = {"lora_alpha": float, "snr_gamma": float, "shift": float, "lora": str}


@dataclass(frozen=True)
class Recipe:
    """A fine-tuning run. Names follow diffusers' training scripts; sizes in pixels, counts in images or steps.

    `base` is a recipe of `synthchex generate` (a name or a YAML): the model, and how validation films are made.
    `train_batch_size` counts the images of one optimizer step over all processes. `lora_alpha` None is the rank;
    `target_modules` empty are the class's usual ones; `lora` is an adapter to start from. `full` trains all weights of
    the UNet or transformer instead. `snr_gamma` is of epsilon and velocity models, `weighting_scheme` and what stands
    with it of flow matching; `shift` None is the scheduler's. `guidance_scale` is what a guidance-distilled model
    (Flux) is told. `max_train_steps` 0 is `num_train_epochs`; `ema_decay` 0 keeps no average; `validation_steps` 0
    validates before and after only; `early_stopping_patience` 0 never stops.
    """

    name: str
    base: str
    resolution: int = 512
    fit: Literal["crop", "pad", "resize"] = "crop"
    horizontal_flip: bool = False
    validation_share: float = 0.05
    full: bool = False
    rank: int = 4
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    lora: str | None = None
    seed: int = 42
    train_batch_size: int = 5
    num_train_epochs: float = 10
    max_train_steps: int = 0
    learning_rate: float = 1e-4
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    latents: Literal["sample", "mean"] = "sample"
    empty_prompt_share: float = 0.0
    noise_offset: float = 0.0
    snr_gamma: float | None = None
    weighting_scheme: Literal["none", "logit_normal", "mode", "cosmap", "sigma_sqrt"] = "none"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    shift: float | None = None
    guidance_scale: float = 3.5
    validation_prompts: tuple[str, ...] = ()
    validation_steps: int = 0
    num_validation_images: int = 4
    validation_batch_size: int = 8
    kid_samples: int = 0
    kid_encoder: str = "rad-dino"
    early_stopping_patience: int = 0
    early_stopping_metric: Literal["kid", "loss"] = "kid"
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    source: str = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _typed(self.name, one.name, one.default, getattr(self, one.name)))
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"recipe {self.name}: {name} must be one of {valid}, got {getattr(self, name)!r}")
        for least, names in LEAST.items():
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"recipe {self.name}: {name} must be at least {least}, got {getattr(self, name)}")
        for name in ("validation_share", "empty_prompt_share", "lora_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"recipe {self.name}: {name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("learning_rate", "num_train_epochs", "max_grad_norm", "snr_gamma", "shift", "lora_alpha"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"recipe {self.name}: {name} must be above 0, got {value}")
        self._fits_together()

    def _fits_together(self) -> None:
        """Settings that contradict each other."""
        if self.full and (self.lora or self.target_modules):
            raise ValueError(f"recipe {self.name}: full trains all weights; leave lora and target_modules out")
        if self.kid_samples == 1:
            raise ValueError(f"recipe {self.name}: kid_samples must be 0 (no KID) or at least 2, got 1")
        if self.early_stopping_patience and not self.validation_steps:
            raise ValueError(f"recipe {self.name}: early stopping needs validation_steps above 0, got 0")
        if self.early_stopping_patience and self.early_stopping_metric == "kid" and not self.kid_samples:
            raise ValueError(f"recipe {self.name}: early stopping on kid needs kid_samples, got 0; or use loss")

    def steps(self, films: int) -> int:
        """Optimizer steps for a number of training films; batches run on over the ends of epochs."""
        return self.max_train_steps or max(1, -(-round(self.num_train_epochs * films) // self.train_batch_size))

    def hashed(self) -> dict[str, Any]:
        """What decides the losses: all but the prose, what the base's own hash says, and the end of a run where the
        learning rate does not depend on it.
        """
        left_out = {"source", "base", "checkpointing_steps", "checkpoints_total_limit"}
        if self.lr_scheduler in ("constant", "constant_with_warmup"):
            left_out |= {"num_train_epochs", "max_train_steps"}
        return {key: value for key, value in asdict(self).items() if key not in left_out}


def _typed(recipe: str, name: str, default: Any, value: Any) -> Any:
    kind = MAY_BE_NONE.get(name) or (str if name in ("name", "base") else type(default))
    return recipes.typed(recipe, name, kind, value, may_be_none=name in MAY_BE_NONE)


def changes() -> list[tuple[str, type]]:
    """Fields that the command line may change, with the type of one value; a tuple's are texts."""
    names = [(one.name, MAY_BE_NONE.get(one.name) or type(one.default)) for one in fields(Recipe)]
    return [(name, str if name == "base" else kind) for name, kind in names if name not in ("name", "source")]
