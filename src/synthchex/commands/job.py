"""The main job: prompts, films, verdicts, dataset, scores, report. Each stage is the command that a user would type.

    synthchex demo                          # the embedded phantom domain
    synthchex run --config mine.yaml        # the same on real models

Every stage resumes: run the same command again after an interruption and what is finished is not done again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import synthchex
from synthchex.data import images, recipes, shards, sources
from synthchex.data.prompts import open_prompts
from synthchex.judges import JudgeRecipe
from synthchex.options import Parser

CONFIGS = Path(synthchex.__file__).parent / "configs"
PHANTOM = "phantom:"


@dataclass(frozen=True)
class Job:
    """What the main job is made of; one YAML. `prompts` and `real` may be "phantom:<count>" for the embedded domain.

    `recipe` and `judge` name a YAML; `encoder`, `image_text` and `classifier` are names, Hub ids or folders;
    `source_policy` says where the real films come from (open, credentialed, unknown): only open ones are shown;
    `num_processes` None means one per GPU, or per CPU core.
    """

    title: str
    prompts: str
    real: str
    recipe: str
    judge: str
    encoder: str
    image_text: str | None = None
    classifier: str | None = None
    domain: str = "radiographs"
    source_policy: str = "unknown"
    seed: int = 0
    images_per_prompt: int = 1
    batch_size: int = 16
    keep: str = "medium"
    nearest_k: int = 5
    num_processes: int | None = None


def demo(argv: Sequence[str] | None = None) -> int:
    """`synthchex demo`."""
    return main("demo", argv, default=CONFIGS / "demo.yaml", out="synthchex-demo")


def run(argv: Sequence[str] | None = None) -> int:
    """`synthchex run`."""
    return main("run", argv, default=None, out="synthchex-run")


def parser(command: str, default: Path | None, out: str) -> Parser:
    """The options of both commands."""
    options = Parser(
        command=command,
        description="The whole job: prompts -> films -> verdicts -> dataset -> load_dataset -> scores -> report.",
        examples=(
            "synthchex demo",
            "synthchex run --config mine.yaml --out results",
            "synthchex run --config mine.yaml --num-processes 4",
        ),
    )
    options.add_argument("--config", type=Path, required=default is None, default=default, help="YAML of the job")
    options.add_argument(
        "--out", type=Path, default=Path(out), help=f"folder to write; run again to resume (default {out})"
    )
    options.add_argument(
        "--num-processes", type=int, help="processes for generate and filter (default: one per GPU or CPU core)"
    )
    options.add_common()
    return options


def main(command: str, argv: Sequence[str] | None, *, default: Path | None, out: str) -> int:
    """Run every stage, then print the table and the path of the report."""
    options = parser(command, default, out).parse_args(argv)
    job = recipes.read(options.config, Job, num_processes=options.num_processes)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    stages, verdicts = make_dataset(job, folder, quiet=options.quiet)
    say("evaluate", options.quiet)
    began = time.monotonic()
    results, report = score(job, folder, stages, verdicts, quiet=options.quiet)
    shards.write_whole(folder / "results.json", json.dumps(results, indent=2).encode())
    if options.json:
        print(json.dumps({"results": str(folder / "results.json"), "report": str(report)}))
        return 0
    from synthchex.report import terminal_table

    print(terminal_table(results))
    print(f"\nscored in {time.monotonic() - began:.0f} s; numbers in {folder / 'results.json'}\n{report.resolve()}")
    return 0


def make_dataset(job: Job, folder: Path, *, quiet: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The stages up to a dataset that was loaded back; their counts and seconds, and the verdicts."""
    prompts = prepare(job, folder, quiet)
    stages: list[dict[str, Any]] = [{"name": "prompts", "rows": len(open_prompts(prompts)), "seconds": None}]
    found: dict[str, dict[str, Any]] = {}
    for name, arguments in commands(job, folder, prompts).items():
        say(name, quiet)
        began = time.monotonic()
        found[name] = command(arguments, quiet)
        stages.append({"name": name, "rows": found[name]["rows"], "seconds": round(time.monotonic() - began, 1)})
    say("loaded back", quiet)
    began = time.monotonic()
    rows = load_back(folder / "dataset", folder / ".cache")
    stages.append({"name": "loaded back", "rows": rows, "seconds": round(time.monotonic() - began, 1)})
    verdicts = {key: found["judged"][key] for key in ("quality", "drop_reasons")}
    judge = judge_recipe(job)
    return stages, {"judge": judge.name, "calibration": judge.calibration, **verdicts}


def commands(job: Job, folder: Path, prompts: str) -> dict[str, list[str]]:
    """The commands of the stages between prompts and dataset, by the name of what they give."""
    films, judged, dataset = (str(folder / name) for name in ("films", "judged", "dataset"))
    launch = ["launch", "--num-processes", str(job.num_processes or default_processes())]
    generate = ["generate", "--prompts", prompts, "--recipe", job.recipe, "--out", films, "--seed", str(job.seed)]
    generate += ["--images-per-prompt", str(job.images_per_prompt), "--batch-size", str(job.batch_size)]
    judge = ["filter", "--images", films, "--judge", job.judge, "--keep", job.keep, "--out", judged]
    build = ["build", "--images", judged, "--out", dataset, "--title", job.title, "--domain", job.domain]
    build += ["--calibration", judge_recipe(job).calibration]
    return {"generated": [*launch, *generate], "judged": [*launch, *judge], "kept": build}


def judge_recipe(job: Job) -> JudgeRecipe:
    """The judge as its YAML says."""
    return recipes.read(recipes.find(job.judge, synthchex.room("filtering") / "configs"), JudgeRecipe)


def prepare(job: Job, folder: Path, quiet: bool) -> str:
    """The prompts named by the job; in the phantom domain, prompts and real films are made here."""
    if job.real.startswith(PHANTOM):
        say("real films (procedural phantoms)", quiet)
        count = job.real.removeprefix(PHANTOM)
        command(["phantom", "--count", count, "--seed", str(job.seed + 1), "--out", str(folder / "real")], quiet)
    if not job.prompts.startswith(PHANTOM):
        return job.prompts
    say("prompts", quiet)
    wanted = ["--count", job.prompts.removeprefix(PHANTOM), "--seed", str(job.seed), "--labels", *shown_labels()]
    command(["phantom", "--prompts-only", "--out", str(folder / "prompts"), *wanted], quiet)
    return str(folder / "prompts")


def shown_labels() -> list[str]:
    """Labels that the embedded generator was measured to show; prompts of the demo mention no others."""
    from synthchex.models.encoders import ASSETS

    return list(json.loads((ASSETS / "phantom" / "figures.json").read_text())["shown_labels"])


def command(arguments: Sequence[str], quiet: bool) -> dict[str, Any]:
    """Run one `synthchex` command in a process of its own; its result, from its last line.

    Raises:
        RuntimeError: it failed; its own message is on stderr.
    """
    words = [sys.executable, "-m", "synthchex.cli", *arguments, "--json", *(["--quiet"] if quiet else [])]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    if done.returncode:
        raise RuntimeError(
            f"stage {arguments[0]} ended with code {done.returncode}; "
            "see above, and run the same command again to go on"
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def load_back(dataset: Path, cache: Path) -> int:
    """Load the dataset the way its users will, and compare every film with what was written.

    Raises:
        RuntimeError: rows, columns or pixels differ.
    """
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    loaded = load_dataset(str(dataset), split="train", cache_dir=str(cache))
    rows = shards.Rows(shards.parquet_files(dataset))
    if loaded.column_names[:4] != ["image", "filename", "prompt", "labels_dict"] or len(loaded) != len(rows):
        raise RuntimeError(
            f"{dataset} was written with {len(rows)} rows and loads "
            f"with {len(loaded)} and columns {loaded.column_names}"
        )
    for index in range(len(rows)):
        if (images.read(loaded[index]["image"]).pixels != images.read(rows[index]["image"]).pixels).any():
            raise RuntimeError(f"row {index} of {dataset} loads with other pixels than were written")
    return len(loaded)


def score(
    job: Job, folder: Path, stages: list[dict[str, Any]], verdicts: dict[str, Any], *, quiet: bool
) -> tuple[dict[str, Any], Path]:
    """Scores and report of the dataset against the real films."""
    from synthchex.commands.evaluation import write
    from synthchex.scores import Request

    real = str(folder / "real") if job.real.startswith(PHANTOM) else job.real
    request = Request(
        encoders=(job.encoder,),
        image_text=job.image_text,
        classifiers=(job.classifier,) if job.classifier else (),
        nearest_k=job.nearest_k,
        seed=job.seed,
        domain=job.domain,
        source_policy=job.source_policy,
    )
    return write(
        sources.open_images(real),
        sources.open_images(folder / "dataset"),
        request,
        folder,
        quiet=quiet,
        rejected=sources.open_images(folder / "judged"),
        extra={"title": job.title, "stages": stages, "verdicts": verdicts, "config": asdict(job)},
    )


def default_processes() -> int:
    """One process per GPU, or per CPU core that this process may use."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def say(stage: str, quiet: bool) -> None:
    """Announce a stage."""
    if not quiet:
        print(f"== {stage}", file=sys.stderr, flush=True)
