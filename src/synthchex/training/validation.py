"""Is it getting better: films of fixed prompts as a picture, KID, FID and loss against a held-out split, when to stop.

Films are made as `synthchex generate` would make them: by the base recipe, each with its own seed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data import images, records, shards
from synthchex.training.films import Side
from synthchex.training.latents import square
from synthchex.training.recipe import Recipe
from synthchex.training.trainee import Trainee

LOSS_FILMS = 64  # held-out films that the loss is of


def sample(sampler: Any, prompts: Sequence[str], seed: int, batch_size: int, accelerator: Any) -> list[np.ndarray]:
    """Films of prompts, uint8, the same for any number of processes: whole batches are shared out."""
    from accelerate.utils import gather_object

    batches = [range(start, min(start + batch_size, len(prompts))) for start in range(0, len(prompts), batch_size)]
    made = []
    for batch in batches[accelerator.process_index :: accelerator.num_processes]:
        seeds = [records.row_seed(seed, "validation-film", row) for row in batch]
        with accelerator.autocast():
            films = sampler.sample([prompts[row] for row in batch], seeds)
        if any(film is None for film in films):
            raise RuntimeError("a validation film is not finite; lower learning_rate, or use bf16 in place of fp16")
        made += [(row, images.read(film).pixels) for row, film in zip(batch, films, strict=True)]
    return [film for _, film in sorted(gather_object(made), key=lambda pair: pair[0])]


def write_grid(path: Path, films: Sequence[np.ndarray], columns: int) -> None:
    """A sheet of films, one row per prompt, as PNG."""
    from PIL import Image

    rows = -(-len(films) // columns)
    height, width = films[0].shape[:2]
    sheet = Image.new("RGB", (columns * width, rows * height))
    for place, film in enumerate(films):
        sheet.paste(Image.fromarray(images.to_rgb(film)), (place % columns * width, place // columns * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    path.parent.mkdir(exist_ok=True)
    shards.write_whole(path, buffer.getvalue())


def distances(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """KID with its standard error, and FID, of features (N, D) and (M, D); lower is better."""
    from synthchex.maths import frechet, kernel

    found = kernel.kernel_distance(real, fake)
    return {
        "kid": found.value,
        "kid_standard_error": found.standard_error,
        "fid": frechet.frechet_distance(real, fake),
    }


def best_step(validations: Sequence[Mapping[str, float]], metric: str) -> int | None:
    """Step of the least KID or validation loss of the trained model so far; None before the first."""
    known = [row for row in validations if metric in row and row["step"] > 0]
    return int(min(known, key=lambda row: row[metric])["step"]) if known else None


def should_stop(validations: Sequence[Mapping[str, float]], recipe: Recipe) -> bool:
    """Whether the last `early_stopping_patience` validations were all no better than one before them."""
    metric = recipe.early_stopping_metric
    best = best_step(validations, metric)
    if not recipe.early_stopping_patience or best is None:
        return False
    return sum(row["step"] > best for row in validations if metric in row) >= recipe.early_stopping_patience


def validate(trainee: Trainee, side: Side, real: Real | None, step: int, out: Path) -> dict[str, Any]:
    """Held-out loss; films of the validation prompts; KID and FID: all of the averaged weights where there are some.

    Returns:
        One line of the log, the same on every process.
    """
    from accelerate.utils import broadcast_object_list

    recipe, accelerator = trainee.recipe, trainee.accelerator
    shown = [prompt for prompt in recipe.validation_prompts for _ in range(recipe.num_validation_images)]
    judged = [side.prompts[row % len(side)] for row in range(recipe.kid_samples)]
    row: dict[str, Any] = {"step": step}
    with trainee.averaged():
        row["loss"] = held_out_loss(trainee, side)
        if shown or judged:
            trainee.place_parts(accelerator.device)
            films = sample(trainee.sampler, [*shown, *judged], recipe.seed, recipe.validation_batch_size, accelerator)
            trainee.place_parts("cpu")
            if shown and accelerator.is_main_process:
                path = out / "validation" / f"step-{step:06d}.png"
                write_grid(path, films[: len(shown)], recipe.num_validation_images)
            if judged and real is not None:
                row |= distances(real.features, real.encoder.encode(films[len(shown) :]))
    shared = [row]
    broadcast_object_list(shared)
    return shared[0]


def held_out_loss(trainee: Trainee, side: Side) -> float:
    """Mean loss of the first held-out films, each with the same noise, time and prompt at every validation."""
    import torch

    accelerator, count = trainee.accelerator, min(len(side), LOSS_FILMS)
    total = torch.zeros((), device=accelerator.device)
    trainee.model.eval()
    with torch.no_grad():
        for row in range(accelerator.process_index, count, accelerator.num_processes):
            total += trainee.losses(side, [row], [row], stream="validation").sum()
    return float(accelerator.reduce(total, "sum")) / count


class Real(NamedTuple):
    """Features of the held-out films, float32 (N, D), and what made them."""

    features: np.ndarray
    encoder: Any


def real_features(side: Side, recipe: Recipe, *, channels: int, device: str) -> Real:
    """Features of all held-out films, as squares like those that the model was trained on."""
    from synthchex.models.encoders import load_encoder

    encoder = load_encoder(recipe.kid_encoder, device=device)
    found = []
    for start in range(0, len(side), 32):
        rows = range(start, min(start + 32, len(side)))
        pixels = (images.read(side.films.fetch(row)).pixels for row in rows)
        squares = [square(film, recipe.resolution, recipe.fit, channels=channels) for film in pixels]
        found.append(encoder.encode([film[:, :, 0] if channels == 1 else film for film in squares]))
    return Real(np.concatenate(found), encoder)
