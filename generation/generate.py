"""Films from a table of prompts: exact, resumable, on any number of processes.

    synthchex generate --prompts prompts.csv --recipe phantom --out films
    synthchex launch --num-processes 4 generate --prompts prompts.csv --recipe phantom --out films
    accelerate launch --multi_gpu --num_processes 4 generation/generate.py --prompts p.csv --recipe sana --out films

Each film has its own seed, made of --seed, its row id and its repeat. Rows are cut into fixed batches, batches into
shards; a process takes whole shards. So the same command gives the same bytes on any number of processes, and after any
kill. Films are encoded and written by threads while the next batch is sampled.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import synthchex
from synthchex import engines, processes
from synthchex.data import external, lint, prompts, recipes, records, shards
from synthchex.data.importers import policies
from synthchex.gate import identifiers
from synthchex.models import samplers
from synthchex.models.samplers import rows as films
from synthchex.models.samplers.probe import Probe, probe
from synthchex.options import Parser, run

PATTERNS = {
    **{kind: re.compile(words, re.IGNORECASE) for kind, words in (identifiers.STRONG | identifiers.WEAK).items()},
    lint.MARK: identifiers.MARKS,
}


class Job(NamedTuple):
    """What is to be made, and what was found in the prompts."""

    recipe: samplers.Recipe
    wanted: prompts.Wanted
    plan: shards.Plan
    files: list[Path]
    linted: dict[str, int]


def parser() -> Parser:
    """The options of `synthchex generate`."""
    options = Parser(
        command="generate",
        description="Films from a table of prompts: exact, resumable, on any number of processes.",
        examples=(
            "synthchex generate --prompts prompts.csv --recipe phantom --out films",
            "synthchex launch --num-processes 4 generate --prompts prompts.csv --recipe my-model.yaml --out films",
            "synthchex generate --prompts prompts.csv --recipe sana --out films --dry-run   # time and memory",
            "synthchex generate --prompts prompts.csv --recipe sana --balance 500 --on-lint strip --out films",
            "synthchex generate --prompts made.csv --recipe external --model LLM-CXR --images made/ --out films",
        ),
    )
    what = options.add_argument_group("what to make")
    what.add_argument("--prompts", required=True, help="table, .txt, dataset folder or Hub id with a prompt column")
    what.add_argument("--recipe", required=True, help="a YAML, or the name of one in generation/configs")
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to resume")
    what.add_argument("--seed", type=int, default=0, help="run seed (default 0)")
    what.add_argument("--images-per-prompt", type=int, default=1, help="films per prompt (default 1)")
    what.add_argument("--images", type=Path, help="folder of films made elsewhere, for an external recipe")
    add_choice(options)
    model = options.add_argument_group("recipe changes")
    model.add_argument("--model", help="Hub id or folder, in place of the recipe's")
    model.add_argument("--revision", help="commit, tag or branch of the model")
    model.add_argument("--lora", help="Hub id, folder or file of a LoRA")
    model.add_argument("--steps", type=int, help="number of denoising steps")
    model.add_argument("--guidance-scale", type=float, help="classifier-free guidance scale")
    how = options.add_argument_group("how")
    how.add_argument(
        "--batch-size", type=int, default=16, help="films per forward pass; part of the result (default 16)"
    )
    how.add_argument(
        "--batches-per-shard", type=int, default=2, help="batches per file; what a kill can cost (default 2)"
    )
    how.add_argument("--image-format", choices=films.ENCODERS, default="png", help="both lossless (default png)")
    how.add_argument(
        "--retry-failed", action="store_true", help="sample NaN, black and constant films once more, with another seed"
    )
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process; part of the result (default 1)")
    how.add_argument("--dry-run", action="store_true", help="plan, memory and time from two batches; writes nothing")
    engines.add_options(how)
    options.add_common()
    return options


def add_choice(options: Parser) -> None:
    """Options that choose prompts."""
    which = options.add_argument_group("which prompts, in this order")
    which.add_argument("--prompt-column", help="name of the prompt column")
    which.add_argument("--id-column", help="name of the id column")
    which.add_argument("--labels-column", help="name of the labels column")
    which.add_argument("--split", default="train", help="split of a Hub or saved dataset (default train)")
    which.add_argument(
        "--on-lint",
        choices=lint.ON_LINT,
        default="warn",
        help="marks of de-identification, identifiers, dates, repeats, prompts too long: refuse, count, or cut out "
        "what is found and leave out repeats and empty prompts; prompts that are too long stay (default warn)",
    )
    which.add_argument("--with-label", action="append", default=[], metavar="LABEL", help="only prompts with LABEL")
    which.add_argument(
        "--without-label",
        action="append",
        default=[],
        metavar="LABEL",
        help="no prompts with LABEL, nor uncertain of it",
    )
    which.add_argument(
        "--source-policy",
        choices=policies.POLICIES,
        help="where the prompts come from; every film keeps it (default: what their rows say, else unknown)",
    )
    which.add_argument("--limit", type=int, help="the first LIMIT of them only")
    which.add_argument(
        "--balance",
        type=int,
        metavar="FILMS",
        help="at least FILMS films with each label; prompts of rare labels are used several times",
    )


def check(options: Any) -> None:
    """Options that contradict each other, before anything is read."""
    counts = (options.batch_size, options.batches_per_shard, options.images_per_prompt, options.threads)
    if min(counts) < 1:
        raise ValueError("--batch-size, --batches-per-shard, --images-per-prompt and --threads must be at least 1")
    if min(options.balance or 1, options.limit or 1) < 1 or options.limit == 0 or options.balance == 0:
        raise ValueError("--balance and --limit must be at least 1")
    if options.balance and options.images_per_prompt > 1:
        raise ValueError("--balance chooses how many films a prompt gets; leave out --images-per-prompt")
    engines.check(options)


def read_recipe(options: Any) -> samplers.Recipe:
    """The recipe with the changes of the command line."""
    recipe = recipes.read(
        recipes.find(options.recipe, synthchex.room("generation") / "configs"),
        samplers.Recipe,
        model=options.model,
        revision=options.revision,
        lora=options.lora,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    outside = recipe.sampler == samplers.EXTERNAL
    if outside != (options.images is not None):
        raise ValueError(
            f"expected --images with an external recipe and no other, got recipe {recipe.name} "
            f"({recipe.sampler}) and --images {options.images}"
        )
    if outside and not recipe.model:
        raise ValueError(f"recipe {recipe.name} does not say what made the films; add --model NAME")
    if outside and (options.images_per_prompt > 1 or options.balance or options.dry_run):
        raise ValueError("films made elsewhere are one per row of --prompts; leave out options that choose how many")
    return recipe


def choose(options: Any) -> tuple[prompts.Prompts, dict[str, int]]:
    """Prompts that are clean, or counted where they are not; those with the labels asked for."""
    names = {"prompt": options.prompt_column, "id": options.id_column, "labels": options.labels_column}
    found = prompts.open_prompts(
        options.prompts,
        columns={role: name for role, name in names.items() if name},
        split=options.split,
        names=options.images is not None,
        empty=options.on_lint == "strip",
    )
    found = replace(found, policy=policies.stated(options.prompts, options.source_policy))
    total, seen = len(found), lint.look(found.texts, PATTERNS)
    if options.on_lint == "error":
        lint.refuse(seen, found.source)
    if options.on_lint == "strip":
        texts, left = lint.strip(found.texts, seen, PATTERNS)
        found = found.take(left).saying(texts)
    told = lint.tally(seen, len(found), total)
    return prompts.with_labels(found, options.with_label, options.without_label).head(options.limit), told


def planned(options: Any) -> Job:
    """Which films, in which shards, by which recipe."""
    recipe = read_recipe(options)
    chosen, linted = choose(options)
    if options.balance:
        wanted = prompts.balance(chosen, options.balance, seed=options.seed, suffix=options.image_format)
    else:
        wanted = prompts.want(
            chosen, per_prompt=options.images_per_prompt, seed=options.seed, suffix=options.image_format
        )
    files = external.find(wanted, options.images) if options.images is not None else []
    decides = {
        "source_policy": wanted.prompts.policy,
        **{name: getattr(options, name) for name in ("seed", "batch_size", "threads", "image_format", "retry_failed")},
    }
    source = wanted.fingerprint()
    plan = shards.Plan(
        stage="generate",
        source=records.fingerprint([source, external.state(files)]) if files else source,
        rows=len(wanted),
        shard_rows=options.batch_size * options.batches_per_shard,
        recipe={**recipe.hashed(), **decides},
    )
    return Job(recipe, wanted, plan, files, linted)


def begin_rows(options: Any, job: Job, pool: ThreadPoolExecutor, tally: films.Tally) -> Callable[[range], Any]:
    """What makes the rows of a span, from the model or from the folder of films."""
    if job.files:
        read = external.reader(job.wanted, job.files, model=job.recipe.model, revision=job.recipe.revision)
        return lambda span: partial(read, span)
    process = processes.join(options.device, threads=options.threads)
    sampler = samplers.load_sampler(job.recipe, device=process.device)
    if process.is_main or options.on_lint == "error":
        say_truncated(sampler, job, refuse=options.on_lint == "error")
    return films.beginner(job.wanted, sampler, way(options), pool, tally)


def way(options: Any) -> films.Way:
    """How batches are made."""
    return films.Way(options.batch_size, options.retry_failed, options.image_format)


def say_truncated(sampler: samplers.Sampler, job: Job, *, refuse: bool) -> None:
    """Say how many prompts the text encoder will cut, or refuse them."""
    texts = list(dict.fromkeys(job.wanted.prompts.texts))
    count, limit = sampler.count_truncated(texts)
    if count and refuse:
        raise ValueError(
            f"expected prompts of at most {limit} tokens, got {count} of {len(texts)} longer ones; cut them"
        )
    if count:
        told = f"{count} of {len(texts)} prompts are longer than the text encoder reads ({limit} tokens)"
        print(f"warning: {told}; their ends have no effect", file=sys.stderr)


def working(options: Any, source: str) -> engines.Rows:
    """What a worker of Ray makes rows with.

    Raises:
        ValueError: the worker sees other prompts than the process that planned.
    """
    job = planned(options)
    if job.plan.source != source:
        raise ValueError(
            f"expected the prompts of {options.prompts} that the run began with, got others on this machine or since "
            "then; put them where every machine sees them, and run the command again"
        )
    begin = begin_rows(options, job, ThreadPoolExecutor(1), films.Tally())
    return lambda span: begin(span)()


def make(options: Any, job: Job) -> None:
    """Make what is missing, in this process and those beside it, or in Ray's workers."""
    if options.engine == "ray":
        make_stage = partial(working, options, job.plan.source)
        engines.fill(
            options.out, job.plan, make_stage, films.features(), workers=options.num_processes, device=options.device,
            unit="films", quiet=options.quiet,
        )  # fmt: skip
        return
    process = processes.join(options.device, threads=options.threads)
    with ThreadPoolExecutor(1, thread_name_prefix="synthchex-encode") as pool:
        tally = films.Tally()
        begin = begin_rows(options, job, pool, tally)
        quiet = options.quiet or not process.is_main
        shards.fill_behind(options.out, job.plan, begin, films.features(), unit="films", quiet=quiet)
        if not options.quiet and tally.films:
            print(tally.line(process.rank), file=sys.stderr)


def dry_run(options: Any, job: Job) -> None:
    """Say what the run would do and cost; write nothing."""
    done = shards.look(options.out, job.plan)
    process = processes.join(options.device, threads=options.threads)
    sampler = samplers.load_sampler(job.recipe, device=process.device)
    say_truncated(sampler, job, refuse=options.on_lint == "error")
    found, left = probe(job.wanted, sampler, way(options)), job.plan.rows - done
    told = {
        "rows": job.plan.rows,
        "resumed": done,
        "shards": job.plan.shards,
        "batch_size": found.batch_size,
        "seconds": round(found.seconds(left, process.count), 1),
        "processes": process.count,
        "first_batch_s": round(found.first_s, 3),
        "batch_s": round(found.next_s, 3),
        "images_per_s": round(found.films / found.next_s, 3),
        "device_bytes": found.device_bytes,
        "process_bytes": found.process_bytes,
        "disk_bytes": round(found.bytes_per_film * left),
        "device": process.device,
        "lint": job.linted,
    }
    if process.is_main:
        print(json.dumps(told) if options.json else "\n".join(said(options, job, told, found)))


def said(options: Any, job: Job, told: dict[str, Any], found: Probe) -> list[str]:
    """A dry run in words."""
    left = told["rows"] - told["resumed"]
    lines = [
        f"recipe    {job.recipe.name}: {job.recipe.model or job.recipe.sampler}, {job.recipe.steps} steps, "
        f"{job.recipe.width} x {job.recipe.height}, {job.recipe.dtype}",
        f"films     {told['rows']} of {len(job.wanted.prompts)} prompts in {told['shards']} shards; "
        f"{told['resumed']} are there, {left} to make",
        f"rate      {told['batch_s']} s per batch of {found.films} after {told['first_batch_s']} s for the first, "
        f"{told['images_per_s']} films/s per process",
        f"time      {told['seconds']:.0f} s on {told['processes']} process(es) like this one ({told['device']})",
        f"memory    {told['process_bytes'] / 2**30:.2f} GB of this process"
        + (f", {told['device_bytes'] / 2**30:.2f} GB of the device" if told["device_bytes"] else ""),
        f"disk      {told['disk_bytes'] / 2**30:.3f} GB of {options.image_format}",
    ]
    if job.wanted.prompts.labels is not None:
        lines.append(f"labels    {prompts.label_counts(job.wanted)}")
    if found.batch_size < options.batch_size:
        lines.append(f"advice    --batch-size {options.batch_size} does not fit, {found.batch_size} does")
    return [*lines, "nothing was written"]


def main(argv: Sequence[str] | None = None) -> None:
    """Plan, claim shards until none is left, say what is there."""
    options = parser().parse_args(argv)
    check(options)
    job = planned(options)
    main_process = int(os.environ.get("RANK", "0")) == 0
    if main_process and job.linted and not options.quiet:
        counted = ", ".join(f"{count} {kind}" for kind, count in job.linted.items())
        print(f"warning: prompts of {options.prompts}: {counted} (--on-lint {options.on_lint})", file=sys.stderr)
    if options.dry_run:
        dry_run(options, job)
        return
    done = shards.begin(options.out, job.plan)
    if done < job.plan.rows:
        make(options, job)
    if main_process:
        report(options, job, done)


def report(options: Any, job: Job, done: int) -> None:
    """Say how many films there are, and how many of them show nothing."""
    reasons = shards.Rows(shards.parquet_files(options.out)).column("drop_reason") if done < job.plan.rows else []
    failed = Counter(reason for reason in reasons if reason)
    if failed and not options.quiet:
        print(f"warning: films that show nothing: {dict(failed)}; see the column drop_reason", file=sys.stderr)
    if options.json:
        told = {"rows": job.plan.rows, "resumed": done, "out": str(options.out)}
        print(json.dumps({**told, "failed": failed, "lint": job.linted}))


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    # A launcher's process group is left without a barrier: other processes may still be at work.
    os._exit(code) if "LOCAL_RANK" in os.environ else sys.exit(code)
