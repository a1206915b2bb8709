"""One arm with one seed: trained, tried on every test set, and written down, so that a killed study does only the rest.

    OUT/runs/tstr--0.json            what was trained, thresholds; written last, so it stands for a finished run
    OUT/runs/tstr--0.safetensors     probabilities of every test set, and of the validation films

A run is known by its films, labels and options: where any of them is another, it is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data import records, shards
from synthchex.data.training import MultiHot
from synthchex.utility import probe
from synthchex.utility.arms import Arm, Part
from synthchex.utility.request import Request
from synthchex.utility.scoring import tuned_threshold
from synthchex.utility.sets import Films

# Options that change no run, or that the films of a run say.
UNCOUNTED = frozenset(
    {"seeds", "arms", "mix", "preset", "resamples", "confidence_level", "alpha", "min_rows", "age_bands", "batch_size"}
    | {"num_workers", "device", "source_policy", "domain", "test_share", "validation_share", "max_real"}
)


class Batch(NamedTuple):
    """Films of several sets after one another: features and labels."""

    features: np.ndarray
    labels: MultiHot


class Learned(NamedTuple):
    """Probabilities (N, 14) of the validation films and of each test set; what there is to say of the training."""

    validation: np.ndarray
    tests: dict[str, np.ndarray]
    facts: dict[str, Any]


Learner = Callable[["Task"], Learned]


@dataclass(frozen=True)
class Task:
    """What a learner is given. `folder` keeps checkpoints of this run, None keeps none."""

    train: Batch
    validation: Batch
    before: tuple[Batch, Batch] | None
    tests: Mapping[str, np.ndarray]
    request: Request
    seed: int
    folder: Path | None


@dataclass(frozen=True)
class Run:
    """A finished run: `thresholds` (14,), NaN where none could be tuned; `trained` labels that had films both ways."""

    arm: str
    seed: int
    thresholds: np.ndarray
    trained: np.ndarray
    tests: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def linear_probe(task: Task) -> Learned:
    """Logistic regression on frozen features; see `probe`."""
    before = None
    if task.before is not None:
        before = ((task.before[0].features, task.before[0].labels), (task.before[1].features, task.before[1].labels))
    held = (task.validation.features, task.validation.labels)
    found = probe.train(task.train.features, task.train.labels, held, task.request.penalties, before=before)
    facts: dict[str, Any] = {"penalties": dict(zip(records.LABELS, found.penalties.tolist(), strict=True))}
    facts |= {"converged": found.converged}
    tests = {name: found(features) for name, features in task.tests.items()}
    return Learned(found(task.validation.features), tests, facts)


def run(
    arm: Arm,
    seed: int,
    sides: tuple[Films, Films],
    tests: Sequence[Films],
    request: Request,
    learner: Learner,
    work: Path | None,
    version: str = "",
) -> Run:
    """One arm with one seed, from `work` where it is finished there.

    Args:
        sides: the real and the synthetic films that the arm's rows count.
        tests: every set to try the model on.
        learner: `linear_probe`, or one that fine-tunes.
        work: folder of runs; None keeps nothing.
        version: of the network that the learner uses; another one is another run.
    """
    key = _key(arm, seed, sides, tests, request, version)
    name = f"{arm.name}--{seed}"
    if work is not None and (found := _finished(work, name, key)) is not None:
        return found
    folder = None if work is None else work / "checkpoints" / f"{name}-{key}"
    parts = {"train": arm.train, "validation": arm.validation}
    batches = {what: batch(part, sides) for what, part in parts.items()}
    before = None
    if arm.before is not None and arm.before_validation is not None:
        before = (batch(arm.before, sides), batch(arm.before_validation, sides))
    task = Task(
        **batches,
        before=before,
        tests={test.name: test.features for test in tests},
        request=request,
        seed=int(np.random.SeedSequence((request.seed, seed)).generate_state(1)[0]),
        folder=folder,
    )
    learned = learner(task)
    thresholds = _thresholds(learned.validation, batches["validation"].labels)
    trained = probe.trainable(batches["train"].labels)
    made = Run(arm.name, seed, thresholds, trained, learned.tests, learned.facts)
    if work is not None:
        _keep(work, name, key, made)
    return made


def batch(part: Part, sides: tuple[Films, Films]) -> Batch:
    """The films of a part, real ones first."""
    chosen = [(side, rows) for side, rows in zip(sides, part, strict=True) if len(rows)]
    values, mask = ([side.labels[place][rows] for side, rows in chosen] for place in (0, 1))
    features = [side.features[rows] for side, rows in chosen]
    return Batch(np.concatenate(features), MultiHot(np.concatenate(values), np.concatenate(mask)))


def _thresholds(predicted: np.ndarray, labels: MultiHot) -> np.ndarray:
    return np.array(
        [
            tuned_threshold(predicted[mask, column], values[mask] == 1)
            for column, (values, mask) in enumerate(zip(labels.values.T, labels.mask.T, strict=True))
        ]
    )


def _key(
    arm: Arm, seed: int, sides: tuple[Films, Films], tests: Sequence[Films], request: Request, version: str
) -> str:
    """Hash of all that a run depends on."""
    rows = [arm.train, arm.validation, arm.before, arm.before_validation]
    digests = [
        [[side.hashes[row] for row in chosen] for side, chosen in zip(sides, part, strict=True)]
        for part in rows
        if part is not None
    ]
    labels = [side.labels.values.tobytes().hex() + side.labels.mask.tobytes().hex() for side in sides]
    options = {name: value for name, value in asdict(request).items() if name not in UNCOUNTED}
    asked = [[test.name, list(test.hashes)] for test in tests]
    return records.fingerprint([arm.name, seed, digests, records.fingerprint_long(labels), asked, options, version])


def _finished(work: Path, name: str, key: str) -> Run | None:
    path = work / f"{name}.json"
    if not path.exists():
        return None
    told = json.loads(path.read_text())
    if told["key"] != key:
        return None
    from safetensors.numpy import load_file

    arrays = load_file(work / f"{name}.safetensors")
    tests = {place: arrays[f"test {number}"] for number, place in enumerate(told["tests"])}
    return Run(told["arm"], told["seed"], arrays["thresholds"], arrays["trained"], tests, told["facts"])


def _keep(work: Path, name: str, key: str, made: Run) -> None:
    """Write the arrays, then the JSON that says that they are whole."""
    from safetensors.numpy import save

    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.json"
    path.unlink(missing_ok=True)  # of another key: its arrays go now
    arrays = {f"test {number}": np.ascontiguousarray(values) for number, values in enumerate(made.tests.values())}
    arrays |= {"thresholds": made.thresholds, "trained": made.trained}
    shards.write_whole(work / f"{name}.safetensors", save(arrays))
    told = {"key": key, "arm": made.arm, "seed": made.seed, "tests": list(made.tests), "facts": dict(made.facts)}
    shards.write_whole(path, json.dumps(told, indent=2).encode() + b"\n")
