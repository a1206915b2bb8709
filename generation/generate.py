"""Films from a table of prompts: exact, resumable, on any number of processes.

    synthchex generate --prompts prompts.csv --recipe phantom --out films
    synthchex launch --num-processes 4 generate --prompts prompts.csv --recipe phantom --out films
    accelerate launch --multi_gpu --num_processes 4 generation/generate.py --prompts prompts.csv --recipe sd21 --out
    films

Each film has its own seed, made of --seed, its row id and its repeat. Rows are cut into fixed batches, batches into
shards; a process takes whole shards. So the same command gives the same bytes on any number of processes, and after any
kill.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import synthchex
from synthchex import processes
from synthchex.data import images, recipes, records, shards, sources
from synthchex.models import samplers
from synthchex.options import Parser, run


def parser() -> Parser:
    """The options of `synthchex generate`."""
    options = Parser(
        command="generate",
        description="Films from a table of prompts: exact, resumable, on any number of processes.",
        examples=(
            "synthchex generate --prompts prompts.csv --recipe phantom --out films",
            "synthchex launch --num-processes 4 generate --prompts prompts.csv --recipe my-model.yaml --out films",
            "synthchex generate --prompts prompts.csv --recipe noise --out try --limit 32   # everything but the model",
        ),
    )
    what = options.add_argument_group("what to make")
    what.add_argument("--prompts", required=True, help="table, .txt, dataset folder or Hub id with a prompt column")
    what.add_argument("--recipe", required=True, help="a YAML, or the name of one in generation/configs")
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to resume")
    what.add_argument("--seed", type=int, default=0, help="run seed (default 0)")
    what.add_argument("--images-per-prompt", type=int, default=1, help="films per prompt (default 1)")
    what.add_argument("--limit", type=int, help="use the first LIMIT prompts only")
    what.add_argument("--prompt-column", help="name of the prompt column")
    what.add_argument("--id-column", help="name of the id column")
    model = options.add_argument_group("recipe changes")
    model.add_argument("--model", help="Hub id or folder, in place of the recipe's")
    model.add_argument("--steps", type=int, help="number of denoising steps")
    model.add_argument("--guidance-scale", type=float, help="classifier-free guidance scale")
    how = options.add_argument_group("how")
    how.add_argument(
        "--batch-size", type=int, default=16, help="films per forward pass; part of the result (default 16)"
    )
    how.add_argument(
        "--batches-per-shard", type=int, default=2, help="batches per file; what a kill can cost (default 2)"
    )
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process; part of the result (default 1)")
    options.add_common()
    return options


def wanted_rows(prompts: Sequence[dict[str, Any]], per_prompt: int, seed: int) -> list[dict[str, Any]]:
    """One row per film: id, filename, seed, prompt, labels."""
    rows = []
    for prompt in prompts:
        for repeat in range(per_prompt):
            name = prompt["id"] if per_prompt == 1 else f"{prompt['id']}-{repeat}"
            row_seed = records.row_seed(seed, prompt["id"], repeat)
            rows.append({**prompt, "id": name, "filename": f"{name}.png", "seed": row_seed})
    return rows


def make(rows: Sequence[dict[str, Any]], sampler: samplers.Sampler, batch_size: int) -> Iterator[dict[str, Any]]:
    """Records of one shard, batch by batch."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        films = sampler.sample([row["prompt"] for row in batch], [row["seed"] for row in batch])
        for row, film in zip(batch, films, strict=True):
            film = images.read(film).pixels
            yield {**row, **sampler.provenance, "image": {"bytes": images.to_png(film), "path": row["filename"]}}


def main(argv: Sequence[str] | None = None) -> None:
    """Plan, claim shards until none is left, say what is there."""
    options = parser().parse_args(argv)
    if min(options.batch_size, options.batches_per_shard, options.images_per_prompt, options.threads) < 1:
        raise ValueError("--batch-size, --batches-per-shard, --images-per-prompt and --threads must be at least 1")
    recipe = recipes.read(
        recipes.find(options.recipe, synthchex.room("generation") / "configs"),
        samplers.Recipe,
        model=options.model,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    columns = {role: name for role, name in (("prompt", options.prompt_column), ("id", options.id_column)) if name}
    prompts = sources.open_prompts(options.prompts, columns=columns)[: options.limit]
    rows = wanted_rows(prompts, options.images_per_prompt, options.seed)
    plan = shards.Plan(
        stage="generate",
        source=records.fingerprint([(row["id"], row["prompt"]) for row in rows]),
        rows=len(rows),
        shard_rows=options.batch_size * options.batches_per_shard,
        recipe={**recipe.hashed(), "seed": options.seed, "batch_size": options.batch_size, "threads": options.threads},
    )
    done = shards.begin(options.out, plan)
    process = processes.join(options.device, threads=options.threads)
    if done < plan.rows:
        sampler = samplers.load_sampler(recipe, device=process.device)
        if process.is_main and hasattr(sampler, "count_truncated"):
            report_truncated(sampler.count_truncated([prompt["prompt"] for prompt in prompts]), len(prompts))
        shards.fill(
            options.out,
            plan,
            lambda span: list(make([rows[index] for index in span], sampler, options.batch_size)),
            records.features(),
            unit="films",
            quiet=options.quiet or not process.is_main,
        )
    if process.is_main and options.json:
        print(json.dumps({"rows": plan.rows, "resumed": done, "out": str(options.out)}))


def report_truncated(count: int, total: int) -> None:
    """Say how many prompts the text encoder will cut."""
    if count:
        print(
            f"warning: {count} of {total} prompts are longer than the text encoder reads; their ends have no effect",
            file=sys.stderr,
        )


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    # A launcher's process group is left without a barrier: other processes may still be at work.
    os._exit(code) if "LOCAL_RANK" in os.environ else sys.exit(code)
