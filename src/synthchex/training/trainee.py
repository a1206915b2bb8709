"""A model in training on this process: made, taken a step further, written down, restored.

The steps depend on the recipe and the films alone; how a batch is cut into passes and processes changes rounding only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records
from synthchex.training import objectives
from synthchex.training.families import Family
from synthchex.training.films import Side
from synthchex.training.latents import Store, batch
from synthchex.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}


def dtype_of(recipe: Recipe) -> str:
    """Of the frozen weights; all weights are float32 where all are trained."""
    return "float32" if recipe.full else DTYPES[recipe.mixed_precision]


@dataclass
class Trainee:
    """`trained` are the parameters by name, float32; `scheduler` noises films as `objectives.losses` wants it."""

    recipe: Recipe
    accelerator: Any
    sampler: Any
    family: Family
    latents: Store
    prompts: Store
    scheduler: Any
    trained: dict[str, Any]
    model: Any
    optimizer: Any
    schedule: Any
    ema: Any

    @property
    def denoiser(self) -> Any:
        """The network that is trained, as the pipeline has it."""
        return getattr(self.sampler.pipeline, self.family.denoiser)

    def losses(self, side: Side, rows: Sequence[int], numbers: Sequence[int], *, stream: str) -> torch.Tensor:
        """Losses of some films with the draws of these numbers; outside training no prompt is dropped."""
        import torch

        recipe, device = self.recipe, self.accelerator.device
        shape = self.latents[side.digests[rows[0]]]["mean"].shape
        draws = [objectives.draw(recipe.seed, stream, number, shape, offset=recipe.noise_offset) for number in numbers]
        if stream != "train":
            draws = [one._replace(drop=1.0, flip=1.0) for one in draws]
        clean, states = batch(side, self.latents, self.prompts, rows, draws, recipe)
        dtype = getattr(torch, dtype_of(recipe))
        told = {name: one.to(device, dtype if one.is_floating_point() else one.dtype) for name, one in states.items()}
        denoise = objectives.Denoise(self.model, self.denoiser.config, self.family, self.scheduler, dtype)
        return objectives.losses(denoise, recipe, clean.to(device), draws, told)

    def step(self, side: Side, number: int, *, accumulation: int) -> dict[str, Any]:
        """Optimizer step `number` (from 1) on this process's share of its batch; one line of the log.

        Raises:
            RuntimeError: the loss is not finite.
        """
        recipe, accelerator, began = self.recipe, self.accelerator, time.perf_counter()
        loss = self._gradients(side, number, accumulation)
        if not np.isfinite(loss):
            raise RuntimeError(
                f"the loss of step {number} is {loss}; lower learning_rate, or use bf16 in place of fp16 (Sana "
                "overflows in fp16), in another --out"
            )
        norm = accelerator.clip_grad_norm_(self.trained.values(), recipe.max_grad_norm)
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.trained.values())
        seconds = round(time.perf_counter() - began, 4)
        return {"step": number, "loss": loss, "lr": rate, "grad_norm": float(norm), "seconds": seconds}

    def _gradients(self, side: Side, number: int, accumulation: int) -> float:
        """Gradients of the mean loss over the whole batch, in so many passes per process; the mean."""
        import torch

        recipe, accelerator = self.recipe, self.accelerator
        share = recipe.train_batch_size // accelerator.num_processes
        first = (number - 1) * recipe.train_batch_size + accelerator.process_index * share
        total = torch.zeros((), device=accelerator.device)
        self.model.train()
        for place, part in enumerate(np.array_split(np.arange(first, first + share), accumulation)):
            numbers = [int(one) for one in part]
            rows = [objectives.row_of(recipe.seed, one, len(side)) for one in numbers]
            # For dropout, which draws from the global generator; all else has a generator of its own.
            torch.manual_seed(records.row_seed(recipe.seed, f"dropout-{number}", numbers[0]))
            with nullcontext() if place == accumulation - 1 else accelerator.no_sync(self.model):
                loss = self.losses(side, rows, numbers, stream="train").sum() / share
                accelerator.backward(loss)
            total += loss.detach()
        return float(accelerator.reduce(total, "mean"))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the averaged weights in place, where an average is kept."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.trained.values())
        self.ema.copy_to(self.trained.values())
        try:
            yield
        finally:
            self.ema.restore(self.trained.values())

    def place_parts(self, device: Any) -> None:
        """Move every network but the denoiser."""
        set_aside(self.sampler.pipeline, self.family, device)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "weights": {name: one.detach().cpu() for name, one in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a state."""
        import torch

        with torch.no_grad():
            for name, one in self.trained.items():
                one.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def set_aside(pipeline: Any, family: Family, device: Any) -> None:
    """Move every network but the denoiser to a device; None lets go of them."""
    import torch

    for name, part in list(pipeline.components.items()):
        if isinstance(part, torch.nn.Module) and name != family.denoiser:
            setattr(pipeline, name, None if device is None else part.to(device))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make_accelerator(recipe: Recipe, out: str, *, device: str, tracker: str | None) -> Any:
    """Device, processes, precision and tracker.

    Raises:
        ValueError: fp16 on a CPU.
        ImportError: the tracker is not installed.
    """
    from accelerate import Accelerator

    if recipe.mixed_precision == "fp16" and device == "cpu":
        raise ValueError("mixed_precision fp16 is for GPUs, got the CPU; use bf16 or no")
    if tracker:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise ImportError("--report-to tensorboard needs tensorboard: pip install tensorboard") from None
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision=recipe.mixed_precision, log_with=tracker, project_dir=out
    )
    if tracker:
        accelerator.init_trackers("runs")
    return accelerator


def make_optimizer(recipe: Recipe, trained: Sequence[Any]) -> Any:
    """AdamW, of torch or in 8 bits.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    import torch

    kind: Any = torch.optim.AdamW
    if recipe.optimizer == "adamw-8bit":
        try:
            import bitsandbytes
        except ImportError:
            raise ImportError("optimizer adamw-8bit needs bitsandbytes: pip install bitsandbytes") from None
        kind = bitsandbytes.optim.AdamW8bit
    return kind(
        trained,
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        weight_decay=recipe.adam_weight_decay,
        eps=recipe.adam_epsilon,
    )


def make(
    recipe: Recipe,
    accelerator: Any,
    sampler: Any,
    family: Family,
    trained: dict[str, Any],
    stores: tuple[Store, Store],
    *,
    steps: int,
) -> Trainee:
    """A trainee at step 0.

    Args:
        trained: parameters of the denoiser, see `lora.prepare`.
        stores: of latents and of prompts.
        steps: of the whole run, for schedules that end.
    """
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    pipeline = sampler.pipeline
    scheduler = pipeline.scheduler if family.flow else objectives.noising(pipeline.scheduler)
    denoiser = getattr(pipeline, family.denoiser)
    model, optimizer = accelerator.prepare(denoiser, make_optimizer(recipe, list(trained.values())))
    # Not prepared: accelerate would take as many steps of it at once as there are processes.
    schedule = get_scheduler(
        recipe.lr_scheduler,
        optimizer.optimizer,
        num_warmup_steps=recipe.lr_warmup_steps,
        num_training_steps=steps,
    )
    ema = EMAModel(trained.values(), decay=recipe.ema_decay) if recipe.ema_decay else None
    return Trainee(recipe, accelerator, sampler, family, *stores, scheduler, trained, model, optimizer, schedule, ema)
