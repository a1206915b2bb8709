"""A writer in training: which weights, a step, a state. Knows no files beyond the folder of one run.

Which films a step takes follows from the seed and the step alone; how a batch is cut into passes and processes changes
rounding only, but for dropout, which is drawn anew for each pass. A run that is killed goes on from its last checkpoint
with the same losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.ahead import in_order
from synthchex.data import records
from synthchex.extras import require
from synthchex.options import Progress
from synthchex.training import checkpoints
from synthchex.training.lora import check_targets
from synthchex.training.objectives import row_of
from synthchex.utility.reports.cases import Cases
from synthchex.utility.reports.recipe import ReportRecipe
from synthchex.utility.reports.writers import Writer

# Where the language model's layers are, by the names that transformers gives them.
LANGUAGE = ("language_model", "text_model", "decoder")
NOT_TUNED = ("lm_head", "output_projection")


@dataclass
class Learner:
    """A writer with what trains it; `trained` are the parameters by name, float32."""

    recipe: ReportRecipe
    seed: int
    writer: Writer
    accelerator: Any
    trained: dict[str, Any]
    optimizer: Any
    schedule: Any

    def step(self, cases: Cases, number: int, *, accumulation: int, num_workers: int) -> dict[str, Any]:
        """Optimizer step `number` (from 1) on this process's share of its batch; one line of the log.

        Raises:
            RuntimeError: the loss is not finite.
        """
        import torch

        began = time.perf_counter()
        loss = self._gradients(cases, number, accumulation, num_workers)
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss of step {number} is {loss}; lower learning_rate, in another --out")
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.recipe.max_grad_norm)
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        seconds = round(time.perf_counter() - began, 4)
        return {"step": number, "loss": loss, "lr": rate, "grad_norm": float(norm), "seconds": seconds}

    def _gradients(self, cases: Cases, number: int, accumulation: int, num_workers: int) -> float:
        """Gradients of the mean loss over all report tokens of the whole batch, over all processes; that mean."""
        import torch

        size, accelerator = self.recipe.train_batch_size, self.accelerator
        rows = [row_of(self.seed, place, len(cases)) for place in range((number - 1) * size, number * size)]
        answers = self.writer.answers([cases.reports[row] for row in rows]).ids
        tokens = sum(map(len, answers))
        share = size // accelerator.num_processes
        mine = np.arange(accelerator.process_index * share, (accelerator.process_index + 1) * share)
        films = list(in_order(lambda i: cases.film(rows[mine[i]]), share, num_workers=num_workers, ahead=share))
        self.writer.model.train()
        total = torch.zeros((), device=accelerator.device)
        for part in np.array_split(np.arange(share), accumulation):
            # For dropout, which draws from the global generator.
            torch.manual_seed(records.row_seed(self.seed, f"dropout-{number}", int(mine[part[0]])))
            places = [int(mine[i]) for i in part]
            with accelerator.autocast():
                told = [cases.indications[rows[place]] for place in places]
                loss = self.writer.losses([films[i] for i in part], told, [answers[place] for place in places])
            (loss / tokens).backward()
            total += loss.detach() / tokens
        if accelerator.num_processes > 1:
            for one in self.trained.values():
                one.grad = accelerator.reduce(torch.zeros_like(one) if one.grad is None else one.grad, "sum")
            total = accelerator.reduce(total, "sum")
        return float(total)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "weights": {name: one.detach().cpu() for name, one in self.trained.items()},
            "buffers": {name: one.cpu() for name, one in self._buffers().items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a state."""
        import torch

        with torch.no_grad():
            for name, one in self.trained.items():
                one.copy_(state["weights"][name])
            for name, one in self._buffers().items():
                one.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def share_buffers(self) -> None:
        """Give all processes the running means of the first, so that all of them write alike."""
        from accelerate.utils import broadcast

        if self.accelerator.num_processes > 1:
            for one in self._buffers().values():
                one.copy_(broadcast(one, from_process=0))

    def _buffers(self) -> dict[str, Any]:
        """Running means of batch normalisation, where all weights are trained."""
        return dict(self.writer.model.named_buffers()) if self.recipe.full else {}


def make(recipe: ReportRecipe, writer: Writer, accelerator: Any, *, seed: int, steps: int) -> Learner:
    """A learner at step 0.

    Raises:
        ValueError: unknown target modules, or nothing to train.
        ImportError: peft is not installed.
    """
    import torch
    from transformers import get_scheduler

    trained = prepare(recipe, writer, seed=seed)
    optimizer = torch.optim.AdamW(trained.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = get_scheduler(
        recipe.lr_scheduler_type,
        optimizer,
        num_warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        num_training_steps=steps,
    )
    return Learner(recipe, seed, writer, accelerator, trained, optimizer, schedule)


def prepare(recipe: ReportRecipe, writer: Writer, *, seed: int) -> dict[str, Any]:
    """Make the weights to be trained trainable, in float32, and freeze all others; return the former by name."""
    model = writer.model
    model.requires_grad_(recipe.full)
    if not recipe.full:
        add_adapter(recipe, model, seed=seed)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if not trained:
        raise ValueError(f"expected trainable weights in {type(model).__name__}, got none; see target_modules")
    for one in trained.values():
        one.data = one.data.float()
    return trained


def add_adapter(recipe: ReportRecipe, model: Any, *, seed: int) -> None:
    """LoRA on the linear layers of the language model, or on those that the recipe names; the same for one seed."""
    import torch

    peft = require("peft", extra="generate")
    targets = list(recipe.target_modules)
    if targets:
        check_targets(model, targets)
    else:
        targets = [
            name
            for name, one in model.named_modules()
            if isinstance(one, torch.nn.Linear | _conv1d())
            and any(part in LANGUAGE for part in name.split("."))
            and not name.endswith(NOT_TUNED)
        ]
    if not targets:
        raise ValueError(
            f"expected linear layers of a language model in {type(model).__name__}, got none; name target_modules"
        )
    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank if recipe.lora_alpha is None else recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model)


def _conv1d() -> Any:
    """GPT-2's linear layer."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def fit(
    learner: Learner,
    cases: Cases,
    folder: Path,
    *,
    accumulation: int,
    checkpointing_steps: int,
    num_workers: int,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Train from the last checkpoint in a folder to the last step; return the log.

    Args:
        checkpointing_steps: 0 for a checkpoint at the end of every epoch.
    """
    recipe, accelerator = learner.recipe, learner.accelerator
    total, first = recipe.steps(len(cases)), 0
    if done := checkpoints.steps(folder):
        first = done[-1]
        learner.restore(checkpoints.load(folder, first))
    if accelerator.is_main_process:
        checkpoints.rewind_log(folder, first)
    often = checkpointing_steps or max(1, -(-len(cases) // recipe.train_batch_size))
    with Progress(folder.name, total, done=first, unit="steps", quiet=quiet or not accelerator.is_main_process) as bar:
        for step in range(first + 1, total + 1):
            row = learner.step(cases, step, accumulation=accumulation, num_workers=num_workers)
            if accelerator.is_main_process:
                checkpoints.log(folder, row)
                if step % often == 0 or step == total:
                    checkpoints.save(folder, step, learner.state(), keep=1, best=None)
            accelerator.log({name: row[name] for name in ("loss", "lr", "grad_norm")}, step=step)
            bar.advance(step)
    learner.share_buffers()
    return checkpoints.read_log(folder)
