"""One (arm, percentage, seed) after the other: a writer is trained, then writes the reports of the test set.

    units/real-p10-s0/manifest.json    what it is; another recipe or other films are refused
    units/real-p10-s0/log.jsonl        loss of every step
    units/real-p10-s0/checkpoint-*/    to go on from; gone when the reports are there
    units/real-p10-s0/reports/         Parquet: id, reference, report, truncated. These stay on this machine.

A unit is done when its reports are whole. So a killed run does the rest: the unit that was in work from its last
checkpoint, or its last shard of reports.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.ahead import in_order
from synthchex.data import shards
from synthchex.training import checkpoints
from synthchex.utility.reports import cases, learner, writers
from synthchex.utility.reports.cases import Cases
from synthchex.utility.reports.recipe import ReportRecipe

ARMS = ("real", "synthetic")
SUMMARY = "summary.json"
SHARD_ROWS = 256


class Unit(NamedTuple):
    """Which films a writer learns from, how many per cent of them, and the seed of sample, order and adapter."""

    arm: str
    percentage: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-p{self.percentage:g}-s{self.seed}"


@dataclass(frozen=True)
class How:
    """How units are computed, which is no part of the result up to rounding."""

    accumulation: int = 1
    eval_batch_size: int = 8
    checkpointing_steps: int = 0
    num_workers: int = 2
    keep_models: bool = False
    tracked: bool = False
    quiet: bool = False


def plan(arms: Sequence[str], percentages: Sequence[float], seeds: Sequence[int]) -> list[Unit]:
    """All units, arm by arm within a percentage, so that pairs are there early.

    Raises:
        ValueError: a percentage out of (0, 100], or something that stands twice.
    """
    for name, values in (("percentages", percentages), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise ValueError(f"expected {name} that stand once each, got {list(values)}")
    for value in percentages:
        if not 0 < value <= 100:
            raise ValueError(f"percentages must be above 0 and at most 100, got {value:g}")
    return [Unit(arm, value, seed) for value in percentages for seed in seeds for arm in arms]


def count_of(percentage: float, base: int) -> int:
    """How many films a percentage of `base` is, at least 1."""
    return max(1, round(base * percentage / 100))


def written(folder: Path, unit: Unit, test: Cases) -> list[writers.Written] | None:
    """The reports of a unit, or None where they are not whole."""
    import pyarrow.parquet as pq

    target = folder / "units" / unit.name / "reports"
    if not (folder / "units" / unit.name / SUMMARY).exists():
        return None
    table = pq.read_table(shards.parquet_files(target), columns=["id", "report", "truncated"])
    if table["id"].to_pylist() != list(test.films.ids):
        raise ValueError(f"{target} holds reports of other films than the test set; choose another --out")
    rows = zip(table["report"].to_pylist(), table["truncated"].to_pylist(), strict=True)
    return [writers.Written(text, truncated) for text, truncated in rows]


def summary(folder: Path, unit: Unit) -> dict[str, Any]:
    """What a finished unit was trained on: films, steps, epochs, cut reports, last loss, revision."""
    found: dict[str, Any] = json.loads((folder / "units" / unit.name / SUMMARY).read_text())
    return found


def run(
    unit: Unit, train: Cases, test: Cases, *, recipe: ReportRecipe, base: int, folder: Path, accelerator: Any, how: How
) -> None:
    """Do what is left of one unit; all processes of a run call this together.

    Args:
        train: all films of the unit's arm.
        base: how many films are 100 per cent.
        folder: of the whole run.

    Raises:
        ValueError: the folder holds this unit with another recipe or other films.
    """
    place = folder / "units" / unit.name
    chosen = train.take(cases.sample(train, count_of(unit.percentage, base), seed=unit.seed))
    wanted = {"recipe": recipe.hashed(), "films": chosen.fingerprint(), "test": test.fingerprint(), "seed": unit.seed}
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # reports of credentialed films are for their user only
    checkpoints.begin(place, wanted)
    if (place / SUMMARY).exists():
        return
    writer = writers.load(recipe, str(accelerator.device))
    steps = recipe.steps(len(chosen))
    student = learner.make(recipe, writer, accelerator, seed=unit.seed, steps=steps)
    if how.tracked:
        accelerator.init_trackers(unit.name)
    log = learner.fit(
        student,
        chosen,
        place,
        accumulation=how.accumulation,
        checkpointing_steps=how.checkpointing_steps,
        num_workers=how.num_workers,
        quiet=how.quiet,
    )
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []  # or the next unit would log to them too
    accelerator.wait_for_everyone()
    write_reports(writer, test, place / "reports", wanted, accelerator, how)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _finish(place, writer, student, chosen, log, how)
    accelerator.wait_for_everyone()


def write_reports(
    writer: writers.Writer, test: Cases, folder: Path, wanted: Mapping[str, Any], accelerator: Any, how: How
) -> None:
    """Reports of the whole test set as shards, which processes claim; batches hang on the rows alone."""
    from datasets import Features, Value

    writer.model.eval()
    kept = {"id": Value("string"), "reference": Value("string"), "report": Value("string"), "truncated": Value("bool")}

    def rows(span: range) -> list[dict[str, Any]]:
        found: list[writers.Written] = []
        for first in range(span.start, span.stop, how.eval_batch_size):
            batch = range(first, min(first + how.eval_batch_size, span.stop))
            films = list(in_order(lambda i: test.film(batch[i]), len(batch), num_workers=how.num_workers, ahead=64))  # noqa: B023
            with accelerator.autocast():
                found += writer.write(films, [test.indications[row] for row in batch])
        return [
            {"id": test.films.ids[row], "reference": test.reports[row], "report": one.text, "truncated": one.truncated}
            for row, one in zip(span, found, strict=True)
        ]

    plan = shards.Plan("utility-reports", test.fingerprint(), len(test), SHARD_ROWS, dict(wanted))
    shards.begin(folder, plan)
    shards.fill(folder, plan, rows, Features(kept), unit="reports", quiet=how.quiet)


def _finish(
    place: Path,
    writer: writers.Writer,
    student: learner.Learner,
    chosen: Cases,
    log: Sequence[Mapping[str, Any]],
    how: How,
) -> None:
    """Write what the unit was, let go of its checkpoints; keep the model where that is asked."""
    recipe, steps = student.recipe, student.recipe.steps(len(chosen))
    if how.keep_models:
        save_model(student, place / "model")
    told = {
        "films": len(chosen),
        "steps": steps,
        "epochs": steps * recipe.train_batch_size / len(chosen),
        "reports_cut": writer.answers(chosen.reports).cut,
        "indications_cut": writer.cut_indications,
        "loss": float(np.mean([row["loss"] for row in log[-20:]])),
        "model": type(writer.model).__name__,
        "revision": writer.revision,
        "trained_weights": sum(one.numel() for one in student.trained.values()),
    }
    shards.write_whole(place / SUMMARY, json.dumps(told, indent=2).encode() + b"\n")
    for old in place.glob("checkpoint-*"):
        shutil.rmtree(old)


def save_model(student: learner.Learner, folder: Path) -> None:
    """The whole model, or its adapter as safetensors with the names of its layers."""
    from safetensors.torch import save_file

    if student.recipe.full:
        student.writer.model.save_pretrained(folder)
        student.writer.tokenizer.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: one.detach().cpu().contiguous() for name, one in student.trained.items()}
    save_file(weights, folder / "adapter.safetensors", metadata={"recipe": json.dumps(student.recipe.hashed())})
