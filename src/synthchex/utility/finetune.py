"""Fine-tuning a backbone on films with labels: masked loss, early stop on validation films, a checkpoint every epoch.

A film is turned, moved and exposed a little, and never mirrored: a mirrored film has its heart on the wrong side.
Every draw follows from the seed, the epoch and the step, so a run that was killed goes on with the same numbers.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data.training import MultiHot
from synthchex.models import encoders
from synthchex.training import checkpoints
from synthchex.utility import backbone
from synthchex.utility.backbone import Bank, Look
from synthchex.utility.request import Training
from synthchex.utility.runs import Batch, Learned, Task

if TYPE_CHECKING:
    import torch

MODEL = "model"


@dataclass
class Trainee:
    """A network in training. `history` has a line for every epoch; `kept` the weights of the best one."""

    model: Any
    optimizer: Any
    schedule: Any
    accelerator: Any
    history: list[dict[str, float]]
    kept: dict[str, Any] | None = None


def fine_tune(task: Task, name: str, bank: Bank) -> Learned:
    """Train on the films of a task, first on those of `before` where there are any, and try the best weights."""
    accelerator = make_accelerator(task)
    network = backbone.make(name, task.seed % 2**31)
    facts: dict[str, Any] = {"device": str(accelerator.device)}
    if task.before is not None:
        first = stage(network, "pretrain", *task.before, task, bank, accelerator)
        facts["pretrain_history"] = first.history
    last = stage(network, "train", task.train, task.validation, task, bank, accelerator)
    facts |= {"history": last.history, "best_epoch": best(last.history), "epochs": len(last.history)}
    asked = {**task.tests, "": task.validation.features}
    size = task.request.batch_size
    found = {place: predict(last.model, numbers, bank, size, accelerator) for place, numbers in asked.items()}
    if task.folder is not None:
        backbone.keep(accelerator.unwrap_model(last.model), bank.look, task.folder / MODEL)
        for part in ("pretrain", "train"):
            shutil.rmtree(task.folder / part, ignore_errors=True)  # states of optimizers, of use to nobody now
    return Learned(found.pop(""), found, facts)


def make_accelerator(task: Task) -> Any:
    """Device, precision and tracker.

    Raises:
        ImportError: the tracker is not installed.
    """
    from accelerate import Accelerator

    how = task.request.training
    if how.report_to:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise ImportError("--report-to tensorboard needs tensorboard: pip install tensorboard") from None
    cpu = encoders.pick_device(task.request.device) == "cpu"
    place = None if task.folder is None else str(task.folder.parent.parent / "tensorboard" / task.folder.name)
    return Accelerator(cpu=cpu, mixed_precision="bf16" if how.bf16 else "no", log_with=how.report_to, project_dir=place)


def stage(network: Any, name: str, train: Batch, held: Batch, task: Task, bank: Bank, accelerator: Any) -> Trainee:
    """Epochs until the loss on validation films has not been lower for `patience` of them; ends on the best weights."""
    how, folder = task.request.training, None if task.folder is None else task.folder / name
    trainee = prepare(network, len(train.features), how, accelerator)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for found in checkpoints.steps(folder)[-1:]:
            restore(trainee, checkpoints.load(folder, found))
    if how.report_to and folder is not None:
        accelerator.init_trackers(name)
    while not ended(trainee.history, how):
        epoch = len(trainee.history) + 1
        loss = one_epoch(trainee, train, task, bank, (name, epoch))
        validation = evaluate(trainee.model, held, bank, task.request.batch_size, accelerator)
        trainee.history.append({"epoch": epoch, "train_loss": loss, "validation_loss": validation})
        accelerator.log({"loss/train": loss, "loss/validation": validation}, step=epoch)
        if best(trainee.history) == epoch:
            trainee.kept = weights(accelerator.unwrap_model(trainee.model))
        if folder is not None:
            checkpoints.save(folder, epoch, state(trainee), keep=1, best=best(trainee.history))
    for tracker in accelerator.trackers:
        tracker.finish()
    back_to_best(trainee, folder)
    return trainee


def prepare(network: Any, count: int, how: Training, accelerator: Any) -> Trainee:
    """A network at epoch 0: AdamW, warm-up and cosine decay over all epochs."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    steps = how.num_train_epochs * -(-count // how.train_batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay)
    model, optimizer = accelerator.prepare(network, optimizer)
    schedule = get_cosine_schedule_with_warmup(optimizer.optimizer, int(how.warmup_ratio * steps), steps)
    return Trainee(model, optimizer, schedule, accelerator, [])


def one_epoch(trainee: Trainee, train: Batch, task: Task, bank: Bank, where: tuple[str, int]) -> float:
    """Every film once, in an order of its own; the mean loss.

    Raises:
        RuntimeError: the loss is not finite.
    """
    import torch

    how, accelerator, numbers = task.request.training, trainee.accelerator, train.features
    place = (task.seed, int(where[0] == "train"), where[1])
    order = np.random.default_rng(place).permutation(len(numbers))
    losses = []
    trainee.model.train()
    with torch.random.fork_rng():
        for step, rows in enumerate(np.array_split(order, -(-len(order) // how.train_batch_size))):
            torch.manual_seed(int(np.random.SeedSequence((*place, step)).generate_state(1)[0]))  # for dropout
            given = as_tensor(bank.films(numbers[rows]), accelerator.device)
            given = augment(given, np.random.default_rng((*place, step)), how)
            logits = backbone.forward(trainee.model, normalised(given, bank.look))
            loss = masked_loss(logits, train.labels, rows)
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss of epoch {where[1]} is {float(loss)}; lower --learning-rate")
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trainee.model.parameters(), 1.0)
            trainee.optimizer.step()
            trainee.schedule.step()
            trainee.optimizer.zero_grad()
            losses.append(float(loss.detach()) * len(rows))
    return sum(losses) / len(order)


def masked_loss(logits: torch.Tensor, labels: MultiHot, rows: np.ndarray) -> torch.Tensor:
    """Cross-entropy of the labels that are known, mean over them; the others have no gradient."""
    import torch

    values, mask = (torch.from_numpy(np.asarray(part[rows], np.float32)).to(logits.device) for part in labels)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, values, reduction="none")
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def augment(films: torch.Tensor, rng: np.random.Generator, how: Training) -> torch.Tensor:
    """Films (N, 1, H, W) in 0..1, each turned, moved and exposed at random; what comes in from outside is black."""
    import torch

    count = len(films)
    angle = np.deg2rad(rng.uniform(-how.rotation, how.rotation, count))
    shift = 2 * rng.uniform(-how.translation, how.translation, (count, 2))  # a side is 2 long
    rows = [[np.cos(angle), -np.sin(angle), shift[:, 0]], [np.sin(angle), np.cos(angle), shift[:, 1]]]
    affine = torch.from_numpy(np.moveaxis(np.array(rows), 2, 0)).to(films)
    grid = torch.nn.functional.affine_grid(affine, list(films.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(films, grid, align_corners=False)
    bright, contrast = (torch.from_numpy(rng.uniform(-how.exposure, how.exposure, (count, 1, 1, 1))).to(films)
                        for _ in range(2))  # fmt: skip
    return ((moved - 0.5) * (1 + contrast) + 0.5 + bright / 2).clamp(0, 1)


def as_tensor(films: np.ndarray, device: Any) -> torch.Tensor:
    """uint8 (N, H, W) as float32 (N, 1, H, W) in 0..1."""
    import torch

    return torch.from_numpy(films).to(device).float().div(255).unsqueeze(1)


def normalised(films: torch.Tensor, look: Look) -> torch.Tensor:
    """What the network reads, (N, channels, H, W)."""
    import torch

    mean, deviation = (torch.tensor(part).to(films).view(1, -1, 1, 1) for part in (look.mean, look.deviation))
    return (films.expand(-1, look.channels, -1, -1) - mean) / deviation


def predict(model: Any, numbers: np.ndarray, bank: Bank, size: int, accelerator: Any) -> np.ndarray:
    """Probabilities (N, 14), float64."""
    import torch

    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(numbers), size):
            films = as_tensor(bank.films(numbers[start : start + size]), accelerator.device)
            parts.append(backbone.forward(model, normalised(films, bank.look)).sigmoid().double().cpu().numpy())
    return np.concatenate(parts)


def evaluate(model: Any, held: Batch, bank: Bank, size: int, accelerator: Any) -> float:
    """Cross-entropy of the known labels of validation films, mean over them."""
    predicted = np.clip(predict(model, held.features, bank, size, accelerator), 1e-7, 1 - 1e-7)
    values, mask = held.labels
    losses = -np.where(values == 1, np.log(predicted), np.log1p(-predicted)) * mask
    return float(losses.sum() / max(mask.sum(), 1))


def best(history: list[dict[str, float]]) -> int:
    """The first epoch with the lowest validation loss; 0 before the first."""
    if not history:
        return 0
    return int(min(history, key=lambda line: (line["validation_loss"], line["epoch"]))["epoch"])


def ended(history: list[dict[str, float]], how: Training) -> bool:
    """Whether all epochs are over, or the last ones were no better."""
    return len(history) >= how.num_train_epochs or len(history) - best(history) >= how.patience


def weights(model: Any) -> dict[str, Any]:
    """All weights, copied to the CPU."""
    return {name: one.detach().cpu().clone() for name, one in model.state_dict().items()}


def state(trainee: Trainee) -> dict[str, Any]:
    """All that the next epoch depends on."""
    return {
        "weights": weights(trainee.accelerator.unwrap_model(trainee.model)),
        "optimizer": trainee.optimizer.state_dict(),
        "schedule": trainee.schedule.state_dict(),
        "history": trainee.history,
    }


def restore(trainee: Trainee, found: dict[str, Any]) -> None:
    """Back to a state."""
    trainee.accelerator.unwrap_model(trainee.model).load_state_dict(found["weights"])
    trainee.optimizer.load_state_dict(found["optimizer"])
    trainee.schedule.load_state_dict(found["schedule"])
    trainee.history[:] = found["history"]


def back_to_best(trainee: Trainee, folder: Path | None) -> None:
    """Put the weights of the best epoch in place."""
    kept = trainee.kept if folder is None else checkpoints.load(folder, best(trainee.history))["weights"]
    trainee.accelerator.unwrap_model(trainee.model).load_state_dict(kept)
