"""What generation costs beside its pipeline, how it scales, and what another batch size does to the bytes.

    python benchmarks/generation.py overhead                 # files, PNG, provenance, seeds: over the bare pipeline
    python benchmarks/generation.py processes                # two processes beside one
    python benchmarks/generation.py plan --rows 1000000      # plan and resume decision: seconds and memory
    python benchmarks/generation.py texts                    # text encoder, each prompt of a batch once
    python benchmarks/generation.py batches                  # the same films in batches of another size

All on the embedded phantom pipeline and one thread per process. Other work on the machine moves wall time: CPU time is
printed beside it, and measurements that are compared are made in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np

from synthchex import phantom, room
from synthchex.data import prompts, recipes, records, shards

FINDINGS = ["small left pleural effusion", "no pneumothorax", "heart size is normal", "lungs are clear"]


def generate_module() -> ModuleType:
    """The room's script, not run."""
    spec = importlib.util.spec_from_file_location("generate", room("generation") / "generate.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("generation/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def both(work: Callable[[], object]) -> np.ndarray:
    """Wall and CPU seconds of something, all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


def overhead(options: argparse.Namespace) -> None:
    """Seconds of a whole run over those of the pipeline calls that it makes."""
    import torch

    from synthchex.models import samplers
    from synthchex.models.samplers import rows as films

    torch.set_num_threads(1)
    recipe = recipes.read(room("generation") / "configs" / "phantom.yaml", samplers.Recipe)
    sampler = samplers.load_sampler(recipe, device="cpu")
    texts = [*phantom.write_reports(options.films, seed=0)[0]]
    found = prompts.Prompts("bench", [f"p{row}" for row in range(options.films)], texts)
    wanted = prompts.want(found, per_prompt=1, seed=0)
    pipeline = sampler.pipeline  # type: ignore[attr-defined]

    def bare() -> None:
        for first in range(0, options.films, options.batch_size):
            seeds = [wanted.row(row)["seed"] for row in range(first, first + options.batch_size)]
            pipeline(
                prompt=texts[first : first + options.batch_size],
                num_inference_steps=recipe.steps,
                guidance_scale=recipe.guidance_scale,
                height=recipe.height,
                width=recipe.width,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                **recipe.call,
            )

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
            plan = shards.Plan("generate", "bench", options.films, 2 * options.batch_size, recipe.hashed())
            shards.begin(Path(folder), plan)
            begin = films.beginner(wanted, sampler, films.Way(options.batch_size), pool, films.Tally())
            shards.fill_behind(Path(folder), plan, begin, films.features(), unit="films", quiet=True)

    bare()
    taken = np.array([[both(bare), both(ours)] for _ in range(options.rounds)])
    bare_s, ours_s = taken.min(0)
    for name, place in (("wall", 0), ("CPU", 1)):
        over = 100 * (ours_s[place] / bare_s[place] - 1)
        print(f"{name}: bare {bare_s[place]:.2f} s, whole {ours_s[place]:.2f} s, overhead {over:+.1f} %")
    print(f"{options.films / bare_s[0]:.2f} films/s by the bare pipeline")


def processes(options: argparse.Namespace) -> None:
    """Films per second of two processes over those of one, without the time to start them."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "prompts.csv"
        lines = [f"p{row},{FINDINGS[row % 4]}, number {row}" for row in range(options.films)]
        table.write_text("id,prompt\n" + "\n".join(f'{line.split(",")[0]},"{line}"' for line in lines) + "\n")
        rates = {}
        for count in (1, 2):
            out = Path(folder) / f"films-{count}"
            command = [sys.executable, "-m", "synthchex.cli", "launch", "--num-processes", str(count), "generate"]
            command += ["--prompts", str(table), "--recipe", "phantom", "--out", str(out), "--device", "cpu"]
            command += ["--batches-per-shard", "1", "--quiet"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(command, env=environment, check=True, capture_output=True)
            # From the first shard that is there to the last: starting processes and loading are not counted.
            times = sorted(path.stat().st_mtime for path in (out / "data").iterdir())
            rates[count] = (len(times) - count) * 16 / (times[-1] - times[count - 1])
            print(f"{count} process(es): {rates[count]:.2f} films/s")
        print(f"two processes make {rates[2] / rates[1]:.2f} times as many films as one")


def plan(options: argparse.Namespace) -> None:
    """Time and memory of deciding what is left of a run that is half done."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("parquet", "csv"):
            # In a process of its own: a child's peak begins with what its parent has in memory.
            table = Path(folder) / f"prompts.{suffix}"
            command = [sys.executable, __file__, "table", "--table", str(table), "--rows", str(options.rows)]
            subprocess.run(command, check=True)
            for what in ("begun", "resumed"):
                command = [sys.executable, __file__, "one-plan", "--table", str(table), "--out", f"{folder}/{suffix}"]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                told = json.loads(done.stdout.splitlines()[-1])
                print(f"{options.rows} prompts, {suffix}, {what}: {told}")
                for number in range(0, told["shards"], 2):
                    (Path(folder) / suffix / "data" / shards.shard_name("train", number, told["shards"])).touch()


def write_prompts(options: argparse.Namespace) -> None:
    """Distinct prompts of about 40 words, with labels."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    path, rows, rng = Path(options.table), options.rows, np.random.default_rng(0)
    text = ("Frontal radiograph. " + ". ".join(FINDINGS) + ". ") * 2
    prompt = [f"{text}Number {row % 1000} of {row // 1000} in the w/o series." for row in range(rows)]
    ids = [f"case-{row}" for row in range(rows)]
    states = rng.integers(-1, 2, (14, rows)).astype(np.int8)
    columns = dict(zip(records.LABELS, (pa.array(state) for state in states), strict=True))
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.table({"id": ids, "prompt": prompt, **columns}), path)
    else:
        struct = pa.StructArray.from_arrays(list(columns.values()), list(columns))
        pyarrow.parquet.write_table(pa.table({"id": ids, "prompt": prompt, "labels_dict": struct}), path)


def one_plan(options: argparse.Namespace) -> None:
    """In a process of its own: open, lint, plan, begin, and say what is left."""
    module, began, cpu = generate_module(), time.perf_counter(), time.process_time()
    asked = module.parser().parse_args(
        ["--prompts", options.table, "--recipe", "phantom", "--out", options.out, "--device", "cpu"]
    )
    job = module.planned(asked)
    done = shards.begin(asked.out, job.plan)
    left = len(shards.missing(asked.out, job.plan))
    told = {"seconds": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    told |= {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "done": done, "left": left}
    print(json.dumps({**told, "shards": job.plan.shards}))


def texts(options: argparse.Namespace) -> None:
    """Seconds in the text encoder for a batch of repeats, each prompt once and each row on its own."""
    import torch

    from synthchex.models import samplers

    torch.set_num_threads(1)
    recipe = recipes.read(room("generation") / "configs" / "phantom.yaml", samplers.Recipe, steps=1)
    for per_prompt in (1, 2, 4, 16):
        spent = {}
        for share in (False, True):
            changed = recipes.build({**recipe.hashed(), "share_prompts": share}, samplers.Recipe, where="bench")
            pipeline = samplers.load_pipeline(changed, device="cpu")
            batch = [f"{FINDINGS[row // per_prompt % 4]} {row // per_prompt}" for row in range(options.batch_size)]
            read = [
                both(lambda batch=batch, pipeline=pipeline: pipeline.encode_prompt(batch, "cpu", 1, True))[1]  # type: ignore[misc]
                for _ in range(options.rounds * 5)
            ]
            spent[share] = min(read)
        ratio = spent[False] / spent[True]
        print(
            f"{per_prompt} films per prompt: {1e3 * spent[False]:.1f} ms, "
            f"shared {1e3 * spent[True]:.1f} ms: {ratio:.1f}x"
        )


def batches(options: argparse.Namespace) -> None:
    """How many films of a batch change when it is made in two, four or single ones."""
    import torch

    from synthchex.models import samplers

    torch.set_num_threads(1)
    recipe = recipes.read(room("generation") / "configs" / "phantom.yaml", samplers.Recipe)
    sampler = samplers.load_sampler(recipe, device="cpu")
    words, seeds = [f"{FINDINGS[row % 4]} {row}" for row in range(16)], list(range(16))
    whole = np.stack([film for film in sampler.sample(words, seeds) if film is not None]).astype(int)
    for size in (8, 4, 1):
        parts = [sampler.sample(words[at : at + size], seeds[at : at + size]) for at in range(0, 16, size)]
        other = np.stack([film for part in parts for film in part if film is not None])
        off = np.abs(whole - other).reshape(16, -1)
        print(f"batches of {size}: {(off.max(1) > 0).sum()} of 16 films differ, at most by {off.max()} of 255")


def main() -> None:
    """Run one measurement."""
    parts = {"overhead": overhead, "processes": processes, "plan": plan, "texts": texts, "batches": batches}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts, "one-plan", "table"])
    parser.add_argument("--films", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    {**parts, "one-plan": one_plan, "table": write_prompts}[options.part](options)


if __name__ == "__main__":
    main()
