"""Which films every arm is trained and validated on, by row number. Knows no film, no label, no network.

TRTR trains on real films, TSTR on synthetic ones, both tested on the same real films; TRTS tests the model of TRTR on
synthetic films. Arms that are compared have one size: where the sets differ, `trtr-matched` is TRTR at the size of
TSTR. What a mix cannot have for want of synthetic films is left out with the reason, never made smaller in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from synthchex.utility.request import PRESETS, Request

NONE = np.empty(0, np.int64)


class Part(NamedTuple):
    """Rows of the real and of the synthetic set."""

    real: np.ndarray = NONE
    synthetic: np.ndarray = NONE


@dataclass(frozen=True)
class Arm:
    """One way to train. `before`, `before_validation` are what it is trained on first; `baseline` is the arm that it is
    compared with; `ratio` the synthetic films per real one, of a mix.
    """

    name: str
    train: Part
    validation: Part
    before: Part | None = None
    before_validation: Part | None = None
    baseline: str | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Plan:
    """The arms of one seed, and those that could not be had, by reason."""

    arms: list[Arm]
    left_out: dict[str, str] = field(default_factory=dict)


class Parts(NamedTuple):
    """Rows of both sets for training, in random order, and for validation."""

    real: np.ndarray
    real_validation: np.ndarray
    synthetic: np.ndarray
    synthetic_validation: np.ndarray


def split(groups: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation, each in random order; a group is never on both sides.

    Args:
        groups: patient (or prompt) of each row, (N,) of any kind.
        share: of the films that go to validation, roughly; at least one group goes to either side.

    Raises:
        ValueError: fewer than 2 groups.
    """
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError(
            f"expected films of at least 2 patients, or synthetic ones of 2 prompts, to split, got {len(sizes)} with "
            f"{len(groups)} films; give more"
        )
    order = rng.permutation(len(sizes))
    taken = np.cumsum(sizes[order]) <= share * len(groups)
    taken[0], taken[-1] = True, False
    held = np.isin(numbers, order[taken])
    return rng.permutation(np.flatnonzero(~held)), rng.permutation(np.flatnonzero(held))


def parts_of(real: np.ndarray, synthetic: np.ndarray, request: Request, seed: int) -> Parts:
    """Both sets split for one seed.

    Args:
        real: group (patient) of each real film that is no test film, (N,).
        synthetic: group (prompt) of each synthetic film, (M,).
    """
    first, second = (np.random.default_rng((seed, side, request.seed)) for side in (0, 1))
    train, validation = split(real, request.validation_share, first)
    return Parts(train[: request.max_real], validation, *split(synthetic, request.validation_share, second))


def plans(real: np.ndarray, synthetic: np.ndarray, request: Request, pairs: np.ndarray | None = None) -> list[Plan]:
    """The arms of every seed: the same ones, of the same sizes, though a split by patient gives each seed another size.

    Args:
        real, synthetic, pairs: as for `parts_of` and `plan`.
    """
    parts = [parts_of(real, synthetic, request, seed) for seed in range(request.seeds)]
    size, least = (min(len(one[place]) for one in parts) for place in (0, 2))
    return [plan(one._replace(real=one.real[:size]), request, pairs, least) for one in parts]


def plan(parts: Parts, request: Request, pairs: np.ndarray | None = None, least: int | None = None) -> Plan:
    """The arms of one seed.

    Args:
        parts: from `parts_of`.
        pairs: (P, 2) real row, synthetic row that was made from its prompt; for the setting `mixed` of CheXGenBench.
        least: synthetic training films that every seed has; by default those of this one.
    """
    least = len(parts.synthetic) if least is None else least
    if request.preset:
        return _chexgenbench(parts, pairs, least)
    real, held = Part(real=parts.real), Part(real=parts.real_validation)
    size, matched = len(parts.real), min(len(parts.real), least)
    made, left_out = [Arm("trtr", real, held, ratio=0.0)], dict[str, str]()
    if "tstr" in request.arms:
        beside = "trtr" if matched == size else "trtr-matched"
        if matched < size:
            made.append(Arm(beside, Part(real=parts.real[:matched]), held))
        made_of = Part(synthetic=parts.synthetic[:matched])
        made.append(Arm("tstr", made_of, Part(synthetic=parts.synthetic_validation), baseline=beside))
    if "mix" in request.arms:
        mixed, left_out = _mixes(parts, request.mix)
        made += mixed
    if "pretrain" in request.arms:
        first, first_held = Part(synthetic=parts.synthetic[:least]), Part(synthetic=parts.synthetic_validation)
        made.append(Arm("pretrain", real, held, before=first, before_validation=first_held, baseline="trtr"))
    return Plan(made, left_out)


def _mixes(parts: Parts, ratios: Sequence[float]) -> tuple[list[Arm], dict[str, str]]:
    """All real training films with so many synthetic ones, each mix a part of the next."""
    every = np.concatenate([parts.synthetic, parts.synthetic_validation])  # validation is on real films alone
    made, left_out, held = list[Arm](), dict[str, str](), Part(real=parts.real_validation)
    for ratio in sorted({*ratios} - {0.0}):
        name, wanted = f"mix-{ratio:g}", round(ratio * len(parts.real))
        if wanted > len(every):
            left_out[name] = _short(wanted, len(every))
        else:
            train = Part(parts.real, every[:wanted])
            made.append(Arm(name, train, held, baseline="trtr", ratio=ratio))
    return made, left_out


def _chexgenbench(parts: Parts, pairs: np.ndarray | None, least: int) -> Plan:
    """The four settings of CheXGenBench: real alone, synthetic alone, half of the real replaced, both 1:1."""
    original, synthetic, mixed, augmented = PRESETS["chexgenbench"]
    size, held = len(parts.real), Part(real=parts.real_validation)
    every = np.concatenate([parts.synthetic, parts.synthetic_validation])
    made = [Arm(original, Part(real=parts.real), held)]
    alone, alone_held = Part(synthetic=parts.synthetic[: min(size, least)]), Part(synthetic=parts.synthetic_validation)
    made.append(Arm(synthetic, alone, alone_held, baseline=original))
    left_out: dict[str, str] = {}
    builders: dict[str, tuple[int, Callable[[], Part]]] = {
        mixed: (size // 2, lambda: replaced(parts.real, every, pairs)),
        augmented: (size, lambda: Part(parts.real, every[:size])),
    }
    for name, (wanted, build) in builders.items():
        if wanted > len(every):
            left_out[name] = _short(wanted, len(every))
        else:
            made.append(Arm(name, build(), held, baseline=original))
    return Plan(made, left_out)


def replaced(real: np.ndarray, synthetic: np.ndarray, pairs: np.ndarray | None) -> Part:
    """Half of the real rows replaced by as many synthetic ones, by row and not by id, which may stand twice.

    A replaced film's own synthetic film comes first, where there is one; random ones fill up.
    """
    half = len(real) // 2
    gone, kept = real[:half], real[half:]
    own: dict[int, None] = {}
    if pairs is not None and len(pairs):
        mine = pairs[np.isin(pairs[:, 0], gone) & np.isin(pairs[:, 1], synthetic)]
        _, first = np.unique(mine[:, 0], return_index=True)
        own = dict.fromkeys(int(row) for row in mine[first, 1])
    others = [int(row) for row in synthetic if int(row) not in own]
    return Part(kept, np.array([*own, *others][:half], np.int64))


def _short(wanted: int, there: int) -> str:
    return f"needs {wanted:,} synthetic films, got {there:,}; generate more, or lower --max-real"
