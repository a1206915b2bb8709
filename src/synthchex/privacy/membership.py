"""Was a film in the training set: how well the model takes noise away from it, beside films of other patients.

A model that has learnt a film by heart makes a smaller error on it than on films it has not seen. Each film is noised
at fixed times with noise drawn from its own content, so that its error is the same number in any batch, order, process
or run; the attack orders films by their mean error. It needs the model's weights, and prompts as in training.

Chance is an AUROC of 0.5. What a patient risks is in the detection rate at a small rate of false alarms. Members and
non-members must differ in nothing but membership (one source, one split by patient): an attack on sets of two hospitals
tells hospitals.

Latents, prompts and errors are kept on disk as they are made, so a run that was stopped goes on.

Sources: Carlini et al. 2022 (arXiv:2112.03570: rates at few false alarms); Matsumoto et al. 2023 (arXiv:2302.03262:
the loss at fixed times).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records
from synthchex.data.sources import ImageSet
from synthchex.maths import ranking
from synthchex.models import samplers
from synthchex.models.samplers.pipelines import denoiser
from synthchex.models.store import Kept
from synthchex.options import Progress
from synthchex.privacy.rates import counted, limit_of
from synthchex.training import families, films, latents, objectives, recipe
from synthchex.training.films import Side

if TYPE_CHECKING:
    import torch

TIMES = (0.1, 0.2, 0.3, 0.4)
FALSE_ALARMS = (0.01, 0.001)
LEAST_PATIENTS = 10
BLOCK = 64  # films between two writes


@dataclass(frozen=True)
class Attack:
    """How films are noised.

    Args:
        times: shares of the model's way from film to noise, in (0, 1); of flow matching before its shift.
        draws: noises per film and time.
        seed: of the noise, together with each film's content.
        resolution: side of the squares in pixels, as the model was trained; None: the recipe's.
        fit: "crop", "pad" or "resize", as in training.
    """

    times: tuple[float, ...] = TIMES
    draws: int = 4
    seed: int = 0
    resolution: int | None = None
    fit: str = "crop"

    def __post_init__(self) -> None:
        """Refuse what cannot be noised."""
        if not self.times or not all(0 < time < 1 for time in self.times) or self.draws < 1:
            raise ValueError(
                f"expected times between 0 and 1 and at least 1 draw, got {self.times} and {self.draws}; "
                f"{TIMES} are usual"
            )


@dataclass(frozen=True)
class Errors:
    """Denoising errors of the films that can be read and have a prompt.

    `values` is float64 (N, times): mean squared error, mean over draws; `patients` of each film, or None; `digests` are
    content hashes; `notes` counts what was left out, and films smaller than the resolution as "enlarged".
    """

    values: np.ndarray
    patients: Sequence[str] | None
    digests: Sequence[str]
    notes: dict[str, int]


def denoising_errors(
    sampler: Any,
    images: ImageSet,
    store: Path,
    attack: Attack | None = None,
    *,
    batch_size: int = 16,
    num_workers: int = 2,
    quiet: bool = False,
) -> Errors:
    """Errors of a model on films with their prompts.

    Args:
        sampler: of `models.samplers.load_sampler`, with a pipeline of `training.families`; the embedded phantom
            generator is one.
        images: films with prompts.
        store: folder that latents, prompts and errors are kept in.
        attack: how films are noised; None: `Attack()`.
        batch_size: films with one noise each, per pass through the network.
        num_workers: threads that read films.

    Raises:
        ValueError: the sampler has no such pipeline; no prompts, or no film that can be used; a resolution that the
            model cannot take.
    """
    attack = attack or Attack()
    pipeline, family = _pipeline(sampler)
    side = _side(images, sampler, attack, family, num_workers)
    steps = _training(sampler, attack)
    with latents.in_float32(pipeline.vae) as vae:
        seen = latents.films_store(store, vae, side, steps, shifted=family.flow, batch_size=batch_size)
    call, device = sampler.recipe.call, str(pipeline.device)
    told = latents.prompts_store(store, pipeline, side.prompts, call, device=device, batch_size=batch_size)
    key = records.fingerprint(
        ["denoising errors", latents.weights_hash(denoiser(pipeline)), seen.folder.name, told.folder.name,
         dict(pipeline.scheduler.config), attack.times, attack.draws, attack.seed, sampler.recipe.dtype]
    )  # fmt: skip
    kept, names = Kept(store, key), _names(side)
    first = {name: row for row, name in reversed(list(enumerate(names)))}  # of repeated films
    new = sorted(row for name, row in first.items() if name not in kept)
    with Progress("denoising errors", len(side), done=len(side) - len(new), quiet=quiet, unit="films") as progress:
        for start in range(0, len(new), BLOCK):
            rows = new[start : start + BLOCK]
            kept.add(
                [names[row] for row in rows], _errors(sampler, side, (seen, told), rows, attack, steps, batch_size)
            )
            progress.advance(len(side) - len(new) + start + len(rows))
    return Errors(kept.gather(names).astype(np.float64), side.films.patients, side.digests, dict(side.notes))


def infer(members: Errors, non_members: Errors, attack: Attack | None = None) -> dict[str, Any]:
    """How well errors tell the films that a model was trained on from films of other patients.

    Args:
        members, non_members: of `denoising_errors`, by one model and one attack.
        attack: that they are of; None: `Attack()`.

    Returns:
        {"members", "non_members": films, "member_patients", "non_member_patients", "patients_known", "auroc": of the
        mean error over times {"value", "low", "high"} by patients, 0.5 is chance, "by_time": the same of each time
        alone, for a look and not to choose from, "detected": members with an error below what a stated share of
        non-members stays below, as `rates.counted` by patient, with "false_alarms" asked for and "limit"; "limit" and
        all counts are None where there are too few non-members for the rate, with the "smallest_rate"; "errors": means
        {"members", "non_members"}, "times", "draws", "left_out"}.

    Raises:
        ValueError: a patient or a film on both sides, patients known on one side only, fewer than `LEAST_PATIENTS` on a
            side, errors of other times, or errors that are not finite.
    """
    attack = attack or Attack()
    owners = _check_sides(members, non_members, attack)
    values = np.concatenate([members.values, non_members.values])
    present = np.arange(len(values)) < len(members.values)
    scores = -values.mean(axis=1)
    known = members.patients is not None
    counts = [len(set(owners[mask].tolist())) for mask in (present, ~present)]
    return {
        "members": int(present.sum()),
        "non_members": int((~present).sum()),
        "member_patients": counts[0],
        "non_member_patients": counts[1],
        "patients_known": known,
        "auroc": _area(scores, present, owners),
        "by_time": [
            {"time": time, **_area(-values[:, place], present, owners)} for place, time in enumerate(attack.times)
        ],
        "detected": [_detected(scores, present, owners, rate) for rate in FALSE_ALARMS],
        "errors": {"members": float(-scores[present].mean()), "non_members": float(-scores[~present].mean())},
        "times": list(attack.times),
        "draws": attack.draws,
        "left_out": {"members": dict(members.notes), "non_members": dict(non_members.notes)},
    }


def membership(
    chosen: samplers.Recipe,
    members: ImageSet,
    non_members: ImageSet,
    store: Path,
    attack: Attack | None = None,
    *,
    device: str | None = None,
    batch_size: int = 16,
    num_workers: int = 2,
    quiet: bool = False,
) -> dict[str, Any]:
    """`infer` from a generation recipe and two sets of films with prompts and patients; arguments as there.

    Args:
        chosen: of a diffusers pipeline.
        device: as in `load_sampler`.

    Raises:
        ValueError: as `denoising_errors` and `infer`; that patients are on one side only is looked at first.
    """
    _check_patients(members.patients, non_members.patients)
    sampler = samplers.load_sampler(chosen, device=device)
    found = [
        denoising_errors(sampler, side, store, attack, batch_size=batch_size, num_workers=num_workers, quiet=quiet)
        for side in (members, non_members)
    ]
    return infer(found[0], found[1], attack)


def _pipeline(sampler: Any) -> tuple[Any, families.Family]:
    pipeline = getattr(sampler, "pipeline", None)
    if pipeline is None:
        raise ValueError(
            f"membership inference needs a diffusers pipeline, got {type(sampler).__name__}; name a recipe of one"
        )
    return pipeline, families.family_of(pipeline)


def _side(images: ImageSet, sampler: Any, attack: Attack, family: families.Family, num_workers: int) -> Side:
    """Films that can be read and have a prompt, checked against what the network takes."""
    resolution, step = _resolution(sampler, attack), families.side_step(sampler.pipeline)
    if resolution % step:
        raise ValueError(f"resolution must be a multiple of {step} for {sampler.recipe.name}, got {resolution}")
    if images.prompts is None:
        raise ValueError(f"expected films with prompts in {images.source}, got none; name the prompt column")
    side = films.usable(images, resolution, num_workers=num_workers)
    if not len(side):
        raise ValueError(
            f"expected films that can be read and have a prompt in {images.source}, got {dict(side.notes)}"
        )
    return side


def _resolution(sampler: Any, attack: Attack) -> int:
    return int(attack.resolution or sampler.recipe.height)


def _training(sampler: Any, attack: Attack) -> recipe.Recipe:
    """What the losses ask of a training recipe: size and fit of the films; no weights, no flips, no sampled latents."""
    fit: Any = attack.fit
    resolution, guidance = _resolution(sampler, attack), sampler.recipe.guidance_scale
    return recipe.Recipe("membership", sampler.recipe.name, resolution, fit, latents="mean", guidance_scale=guidance)


def _names(side: Side) -> list[str]:
    """Of a film with its prompt, as errors are kept."""
    pairs = (f"{digest}\x1f{prompt}" for digest, prompt in zip(side.digests, side.prompts, strict=True))
    return [hashlib.sha256(pair.encode()).hexdigest()[:32] for pair in pairs]


def _errors(
    sampler: Any,
    side: Side,
    stores: tuple[latents.Store, latents.Store],
    rows: Sequence[int],
    attack: Attack,
    steps: recipe.Recipe,
    batch_size: int,
) -> np.ndarray:
    """Mean error over draws of some films, float32 (N, times)."""
    import torch

    shape = stores[0][side.digests[rows[0]]]["mean"].shape
    asked = [(row, time, draw) for row in rows for time in attack.times for draw in range(attack.draws)]
    found = []
    for start in range(0, len(asked), batch_size):
        some = asked[start : start + batch_size]
        draws = [
            objectives.draw(attack.seed, side.digests[row], draw, shape)._replace(drop=1.0, flip=1.0, time=time)
            for row, time, draw in some
        ]
        clean, states = latents.batch(side, *stores, [row for row, _, _ in some], draws, steps)
        found.append(_losses(sampler.pipeline, steps, clean, draws, states))
    values = torch.cat(found).reshape(len(rows), len(attack.times), attack.draws).mean(dim=2)
    return np.asarray(values.cpu().numpy(), np.float32)


def _losses(
    pipeline: Any,
    steps: recipe.Recipe,
    clean: torch.Tensor,
    draws: Sequence[objectives.Draw],
    states: dict[str, torch.Tensor],
) -> torch.Tensor:
    """Squared error of each noised film, float32 (N,)."""
    import torch

    family, network = families.family_of(pipeline), denoiser(pipeline).eval()
    scheduler = pipeline.scheduler if family.flow else objectives.noising(pipeline.scheduler)
    ask = objectives.Denoise(network, network.config, family, scheduler, network.dtype)
    told = {
        name: one.to(pipeline.device, network.dtype if one.is_floating_point() else one.dtype)
        for name, one in states.items()
    }
    with torch.inference_mode():
        return objectives.losses(ask, steps, clean.to(pipeline.device), draws, told)


def _check_sides(members: Errors, non_members: Errors, attack: Attack) -> np.ndarray:
    """Patient of each film, members first; a film is a patient where they are not known."""
    _check_patients(members.patients, non_members.patients)
    if shared := set(members.digests) & set(non_members.digests):
        raise ValueError(f"expected other films than the members, got {len(shared)} films in both sets; split anew")
    widths = {side.values.shape[1] for side in (members, non_members)}
    if widths != {len(attack.times)}:
        raise ValueError(f"expected errors of {len(attack.times)} times, got {sorted(widths)}; use one attack for both")
    for side, name in ((members, "members"), (non_members, "non-members")):
        people = len(side.values) if side.patients is None else len(set(side.patients))
        if people < LEAST_PATIENTS:
            raise ValueError(f"expected {name} of at least {LEAST_PATIENTS} patients, got {people}; give more films")
        if not np.isfinite(side.values).all():
            lost = int((~np.isfinite(side.values)).any(axis=1).sum())
            raise ValueError(f"expected finite errors, got {lost} films of the {name} without; use float32 weights")
    if members.patients is None or non_members.patients is None:
        return np.arange(len(members.values) + len(non_members.values))
    return np.unique(np.asarray([*members.patients, *non_members.patients]), return_inverse=True)[1]


def _check_patients(members: Sequence[str] | None, non_members: Sequence[str] | None) -> None:
    """Refuse patients that are on both sides, or known on one."""
    if (members is None) != (non_members is None):
        raise ValueError("expected patients of both sets or of neither, got those of one; name the patient column")
    if shared := set(members or ()) & set(non_members or ()):
        raise ValueError(
            f"expected non-members of other patients, got {len(shared)} patients in both sets; split by patient"
        )


def _area(scores: np.ndarray, present: np.ndarray, owners: np.ndarray) -> dict[str, float]:
    found = ranking.auroc(scores, present, ~present, clusters=owners)
    return {"value": found.value, "low": found.low, "high": found.high}


def _detected(scores: np.ndarray, present: np.ndarray, owners: np.ndarray, rate: float) -> dict[str, Any]:
    """Members that are told at a rate of false alarms among non-members."""
    others = scores[~present]
    limit = limit_of(others, rate)
    found = {} if limit is None else counted(scores[present] > limit, clusters=owners[present])
    told = None if limit is None else -limit
    return {"false_alarms": rate, "smallest_rate": 1 / (len(others) + 1), "limit": told, "found": found or None}
