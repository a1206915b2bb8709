"""What the training scripts share: films with their attributes, a training loop that can be stopped, and saving.

One thread is enough for networks this small (two are slower on a busy machine); run two scripts side by side instead.
"""

import copy
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from synthchex import phantom
from synthchex.phantom.findings import DEVICES, FINDINGS, GRADES, SIDES, ZONES, Chart

CACHE = Path(os.environ.get("PHANTOM_CACHE", Path.home() / ".cache" / "synthchex-phantom"))
TRAIN_SEEDS = (1, 2)
TEST_SEED = 3
TRAIN_ROWS = 15_000
TEST_ROWS = 2_048
SIDED = tuple(name for name in FINDINGS if name not in ("mediastinum", "heart", "edema", "device"))
_GRADED = ("heart", "edema", "effusion", "pneumothorax", "nodule")
_ZONED = ("opacity", "nodule", "consolidation", "pneumonia")


class Films(NamedTuple):
    """Films ready for training: pictures in [-1, 1] (N, 1, 64, 64), labels, reports, and every attribute as 0 or 1."""

    pictures: torch.Tensor
    labels: torch.Tensor
    reports: list[str]
    attributes: torch.Tensor


def load_films(seed: int, count: int) -> Films:
    """Render films once, keep them in the cache folder, and load them."""
    path = CACHE / f"films_{seed}_{count}.npz"
    if not path.exists():
        films = phantom.make(count, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=films.images, labels=films.labels, reports=np.array(films.reports))
    saved = np.load(path)
    attributes = attributes_of(phantom.draw_charts(count, seed=seed))
    return Films(
        to_picture(saved["images"]), torch.tensor(saved["labels"]).float(), saved["reports"].tolist(), attributes
    )


def load_training(rows: int = TRAIN_ROWS) -> Films:
    """All training films."""
    parts = [load_films(seed, rows) for seed in TRAIN_SEEDS]
    return Films(
        torch.cat([part.pictures for part in parts]),
        torch.cat([part.labels for part in parts]),
        [report for part in parts for report in part.reports],
        torch.cat([part.attributes for part in parts]),
    )


def to_picture(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W) to float (N, 1, H, W) in [-1, 1]."""
    return torch.from_numpy(images).float().div_(127.5).sub_(1)[:, None]


def to_bytes(pictures: torch.Tensor) -> np.ndarray:
    """Float (N, 1, H, W) in [-1, 1] to uint8 (N, H, W)."""
    return ((pictures[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def attributes_of(chart: Chart) -> torch.Tensor:
    """Everything a report can say, as zeros and ones (N, K): presence, side, grade, zone, device, low volumes."""
    columns = [chart.has(name) for name in FINDINGS]
    columns += [chart.on_side(name, side) for name in SIDED for side in range(len(SIDES) - 1)]
    columns += [chart.has(name) & (chart.level(name) == grade) for name in _GRADED for grade in range(len(GRADES))]
    columns += [chart.has(name) & (chart.height(name) == zone) for name in _ZONED for zone in range(len(ZONES))]
    columns += [chart.has_device(kind) for kind in range(len(DEVICES))] + [chart.shallow]
    return torch.tensor(np.stack(columns, axis=1)).float()


def shift(pictures: torch.Tensor, most: int = 3) -> torch.Tensor:
    """Move every picture by a few pixels, repeating its border."""
    count, _, size, _ = pictures.shape
    padded = nn.functional.pad(pictures, (most,) * 4, mode="replicate")
    rows = torch.arange(size)[None, :] + torch.randint(0, 2 * most + 1, (count, 1))
    columns = torch.arange(size)[None, :] + torch.randint(0, 2 * most + 1, (count, 1))
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def retone(pictures: torch.Tensor) -> torch.Tensor:
    """Change brightness and contrast a little, and add grain to a third of the pictures."""
    count = len(pictures)
    tone = pictures * torch.empty(count, 1, 1, 1).uniform_(0.85, 1.15) + torch.empty(count, 1, 1, 1).uniform_(-0.1, 0.1)
    grain = (torch.rand(count, 1, 1, 1) < 0.33) * torch.empty(count, 1, 1, 1).uniform_(0, 0.06)
    return (tone + grain * torch.randn_like(tone)).clamp(-1, 1)


def batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless shuffled row numbers; every row once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % size].split(size)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))))


def train(
    model: nn.Module,
    loss: Callable[[int], torch.Tensor],
    *,
    steps: int,
    peak: float,
    checkpoint: Path,
    ema: float = 0.0,
    save: Callable[[nn.Module, int], None] | None = None,
    every: int = 500,
) -> nn.Module:
    """Train to `steps`, going on from the checkpoint if there is one.

    Args:
        model: what is trained.
        loss: maps a step number to a loss.
        steps: total number of steps.
        peak: highest learning rate.
        checkpoint: file that holds model, average, optimizer and step.
        ema: decay of the running average of the weights, 0 for none.
        save: called with the (averaged) model and the step at every checkpoint.
        every: steps between checkpoints.

    Returns:
        The averaged model, or the model itself without averaging.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    average = copy.deepcopy(model) if ema else model
    start, spent = _resume(checkpoint, model, average, optimizer)
    began, running = time.process_time(), 0.0
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak, min(300, steps // 10))
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if ema:
            _blend(average, model, min(ema, (1 + step) / (10 + step)))
        running = 0.98 * running + 0.02 * value.item() if step > start else value.item()
        if (step + 1) % every == 0 or step + 1 == steps:
            used = spent + time.process_time() - began
            print(f"step {step + 1}/{steps} loss {running:.4f} cpu {used:.0f} s", flush=True)
            _store(checkpoint, model, average, optimizer, step + 1, used)
            if save:
                save(average, step + 1)
    return average


def save_half(model: nn.Module, folder: Path) -> None:
    """Save a Hugging Face model with fp16 weights, replacing the folder's files one by one."""
    half = copy.deepcopy(model).half()
    draft = folder.parent / f".{folder.name}.draft"
    half.save_pretrained(draft)
    replace_files(draft, folder)


def replace_files(draft: Path, folder: Path) -> None:
    """Move every file of a draft folder over the folder of the same layout."""
    for file in sorted(draft.rglob("*")):
        if file.is_file():
            target = folder / file.relative_to(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o644)
            os.replace(file, target)
    shutil.rmtree(draft)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Forget where a model was loaded from, and name the tokenizer's class as transformers 4 and 5 both know it."""
    for file in folder.rglob("*.json"):
        lines = file.read_text().splitlines(keepends=True)
        kept = "".join(line for line in lines if '"_name_or_path"' not in line)
        file.write_text(kept.replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    draft = path.with_suffix(".draft")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(draft, path)


def _blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average a step towards the model; buffers are copied."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        for old, new in zip(average.buffers(), model.buffers(), strict=True):
            old.copy_(new)


def _store(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int, cpu_s: float
) -> None:
    """Write a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**parts, "step": step, "cpu_s": cpu_s}, path.with_suffix(".draft"))
    os.replace(path.with_suffix(".draft"), path)


def _resume(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Load a checkpoint if there is one; returns its step and the CPU seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    average.load_state_dict(saved["average"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["cpu_s"]
