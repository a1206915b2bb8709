"""How the benchmarks measure: fresh processes, the same features and threads, rounds interleaved, the least of each.

A case is (relative tolerance of a correct value, {implementation: function of the real and the synthetic features});
the first implementation is ours and sets the value. A peer that is not installed is left out; one whose value is off by
more than the tolerance is printed but is not the peer that ratios are taken against.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Run = Callable[[Any, Any], float]
Cases = Mapping[str, tuple[float, Mapping[str, Run]]]
Measured = dict[str, float]
LABELS = 14
GROWTH = (2_000, 5_000, 10_000, 20_000, 50_000)


class Bench(NamedTuple):
    """What a benchmark program knows."""

    cases: Cases
    prepared: Mapping[Run, Callable[[np.ndarray], Any]]  # what is done to the real side before the clock starts
    unit: Collection[str]  # cases whose features have unit length
    growing: Collection[str]  # cases whose growth with the rows is of interest
    on_device: Collection[Run]  # functions that take tensors of a GPU


def features(rows: int, width: int, seed: int, shift: float) -> np.ndarray:
    """Features like those of a network: clusters through a mixing layer, a power-law spectrum, not negative."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    centres = shared.normal(size=(LABELS, 64))
    mix = shared.normal(size=(64, width)) / 8
    scale = np.arange(1, width + 1) ** -0.5
    hidden = centres[rng.integers(0, LABELS, rows)] + rng.normal(size=(rows, 64)) + shift
    values = np.tanh(hidden @ mix) + scale * rng.normal(size=(rows, width))
    return np.maximum(values + 0.3, 0).astype(np.float32)


def findings(rows: int, seed: int) -> np.ndarray:
    """Bool (rows, 14), overlapping, as rare and as common as findings on radiographs: 1 to 40 % of the rows."""
    return np.random.default_rng(seed).random((rows, LABELS)) < np.geomspace(0.01, 0.4, LABELS)


def main(bench: Bench, description: str | None, program: str) -> None:
    """Read the command line of a benchmark program and print its tables."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=bench.cases)
    parser.add_argument("--rows", type=int, default=10_000, help="of each side")
    parser.add_argument("--references", type=int, help="of the real side, where they are not as many")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="a GPU, for example cuda: implementations that run on it")
    parser.add_argument("--growth", action="store_true", help="ours alone, over the rows of --rows-list")
    parser.add_argument("--rows-list", type=int, nargs="+", default=GROWTH)
    parser.add_argument("--one", nargs=3, metavar=("CASE", "NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu" and not has_device(options.device):
        parser.error(f"expected a GPU for --device {options.device}, got a torch without one; leave it out for the CPU")
    if options.one:
        case, name, folder = options.one
        print(json.dumps(measure_one(bench, case, name, Path(folder), options)))
        return
    options.program = program
    names = options.cases or list(bench.growing if options.growth else bench.cases)
    if options.growth:
        print(f"\n### growth of ours: N + N x {options.width}, {options.threads} thread(s), {options.device}")
        print(
            "\n| case | " + " | ".join(f"N = {n:,}" for n in options.rows_list) + " | time grows as | MB over input |"
        )
        print("|---" * (len(options.rows_list) + 3) + "|")
    for case in names:
        (grow if options.growth else compare)(bench, case, options)


def compare(bench: Bench, case: str, options: argparse.Namespace) -> None:
    """All implementations of a case, as a table."""
    runs = {
        name: run for name, run in bench.cases[case][1].items() if options.device == "cpu" or run in bench.on_device
    }
    best: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        references = options.references or options.rows
        write_features(Path(folder), (references, options.rows), options.width, unit=case in bench.unit)
        for _ in range(options.rounds):
            for name in runs:
                found = run_fresh(case, name, Path(folder), options)
                if isinstance(found, str):
                    missing[name] = found
                elif name not in best or found["cpu"] < best[name]["cpu"]:
                    best[name] = found
    where = f"{options.threads} thread(s)" if options.device == "cpu" else options.device
    print(f"\n### {case}: {references} + {options.rows} x {options.width}, {where}")
    report(bench.cases[case][0], list(runs), best, missing, "cpu" if options.device == "cpu" else "wall")


def grow(bench: Bench, case: str, options: argparse.Namespace) -> None:
    """One row of the table of growth: seconds at every N, the exponent of a power law through them, the most memory."""
    name, seconds, most = next(iter(bench.cases[case][1])), [], 0.0
    for rows in options.rows_list:
        with tempfile.TemporaryDirectory() as folder:
            write_features(Path(folder), (rows, rows), options.width, unit=case in bench.unit)
            found = [run_fresh(case, name, Path(folder), options) for _ in range(options.rounds)]
        measured = [one for one in found if not isinstance(one, str)]
        if not measured:
            print(f"| {case} | {found[0]} |")
            return
        seconds.append(min(one["cpu" if options.device == "cpu" else "wall"] for one in measured))
        most = max(most, *(one["mb"] for one in measured))
    cells = " | ".join(f"{value:.2f}" for value in seconds)
    exponent = "-"
    if len(seconds) > 1:
        exponent = f"N^{np.polyfit(np.log(options.rows_list), np.log(np.maximum(seconds, 1e-3)), 1)[0]:.2f}"
    print(f"| {case} | {cells} | {exponent} | {most:.0f} |", flush=True)


def write_features(folder: Path, rows: tuple[int, int], width: int, *, unit: bool) -> None:
    """Real and synthetic features, as measurements read them."""
    for seed, (side, shift) in enumerate((("real", 0.0), ("fake", 0.05))):
        values = features(rows[seed], width, seed, shift)
        if unit:
            values /= np.linalg.norm(values, axis=1, keepdims=True)
        np.save(folder / f"{side}.npy", values)


def run_fresh(case: str, name: str, folder: Path, options: argparse.Namespace) -> Measured | str:
    """One measurement in a fresh process, or why there is none."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(options.threads))}
    command = [sys.executable, options.program, "--one", case, name, str(folder), "--device", options.device]
    command += ["--threads", str(options.threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def measure_one(bench: Bench, case: str, name: str, folder: Path, options: argparse.Namespace) -> Measured:
    """Time and memory of one call, in this process."""
    import torch

    torch.set_num_threads(options.threads)
    run, on_gpu = bench.cases[case][1][name], options.device != "cpu"
    prepared = bench.prepared.get(run, lambda side: side)

    def sides(real: np.ndarray, fake: np.ndarray) -> tuple[Any, Any]:
        if on_gpu:
            return torch.from_numpy(real).to(options.device), torch.from_numpy(fake).to(options.device)
        return prepared(real), fake

    for module in ("scipy.linalg", "scipy.special", "torch.linalg"):
        importlib.import_module(module)  # a first call should not pay for imports
    small = [np.random.default_rng(seed).random((400, 8), np.float32) for seed in (0, 1)]
    if case in bench.unit:
        small = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in small]
    run(*sides(*small))
    real, fake = sides(np.load(folder / "real.npy"), np.load(folder / "fake.npy"))
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, cpu = status("VmRSS"), time.perf_counter(), spent()
    value = float(run(real, fake))
    if on_gpu:
        torch.cuda.synchronize()
    cpu, wall = spent() - cpu, time.perf_counter() - wall
    memory = (torch.cuda.max_memory_allocated() - held) / 2**20 if on_gpu else (status("VmHWM") - before) / 1024
    return {"value": value, "wall": wall, "cpu": cpu, "mb": memory}


def spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def has_device(device: str) -> bool:
    """Whether torch sees such a GPU."""
    import torch

    return device.startswith("cuda") and torch.cuda.is_available()


def status(key: str) -> int:
    """A memory figure of this process, kB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def report(tolerance: float, names: list[str], best: dict[str, Measured], missing: dict[str, str], clock: str) -> None:
    """One table of a case, with ratios of the CPU time, or of the wall time where a GPU works."""
    value = best["ours"]["value"] if "ours" in best else np.nan
    correct = [
        row[clock]
        for name, row in best.items()
        if not name.startswith("ours") and abs(row["value"] - value) <= tolerance * abs(value)
    ]
    print("\n| implementation | wall s | CPU s | MB over input | value | ratio |\n|---|---|---|---|---|---|")
    for name in names:
        if name not in best:
            print(f"| {name} | - | - | - | {missing[name]} | |")
            continue
        row = best[name]
        ratio = f"{min(correct) / row[clock]:.2f}x" if correct else "-"
        print(f"| {name} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['mb']:.0f} | {row['value']:.9g} | {ratio} |")
    sys.stdout.flush()
