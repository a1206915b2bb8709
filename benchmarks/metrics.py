"""Metrics side by side with their peers: wall, CPU time, peak memory over the inputs, ratio to the fastest correct
peer.

    python benchmarks/metrics.py                                     # all cases at 10,000 x 768
    python benchmarks/metrics.py --cases kid prdc --rows 3000 --width 2048 --threads 2 --rounds 3

Each implementation runs in a fresh process on the same features with the same number of threads; rounds are
interleaved and the least time of each counts. A peer that is not installed is left out; one whose value is off by more
than the tolerance of its case is printed but is not the peer that ratios are taken against.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray, np.ndarray], float]
LABELS = 14


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


def labels(rows: int) -> np.ndarray:
    """Bool (rows, 14), each label on about an eighth of the rows."""
    return np.random.default_rng(5).random((rows, LABELS)) < 0.125


def findings(rows: int, seed: int) -> np.ndarray:
    """Bool (rows, 14), overlapping, as rare and as common as findings on radiographs: 1 to 40 % of the rows."""
    return np.random.default_rng(seed).random((rows, LABELS)) < np.geomspace(0.01, 0.4, LABELS)


def fid_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Float64, the default."""
    from synthchex.maths import frechet

    return frechet.frechet_distance(real, fake)


def fid_ours_float32(real: np.ndarray, fake: np.ndarray) -> float:
    """The named fast mode."""
    from synthchex.maths import frechet

    return frechet.frechet_distance(real, fake, precision="float32")


def fid_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """Eigenvalues of the product; float32 means."""
    import torch
    from torch_fidelity import metric_fid

    stats = [metric_fid.fid_features_to_statistics(torch.from_numpy(side)) for side in (fake, real)]
    return float(metric_fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"])


def fid_torchmetrics(real: np.ndarray, fake: np.ndarray) -> float:
    """Sums of products in batches of 64, as its users call it."""
    import torch
    from torchmetrics.image.fid import _compute_fid

    def stats(side: np.ndarray) -> tuple[Any, Any]:
        rows = torch.from_numpy(side)
        total, products = torch.zeros(rows.shape[1]).double(), torch.zeros(rows.shape[1], rows.shape[1]).double()
        for batch in rows.split(64):
            total, products = total + batch.double().sum(0), products + batch.double().T @ batch.double()
        mean = total / len(rows)
        return mean, (products - len(rows) * mean[:, None] @ mean[None]) / (len(rows) - 1)

    return float(_compute_fid(*stats(real), *stats(fake)))


def fid_sqrtm(real: np.ndarray, fake: np.ndarray) -> float:
    """What pytorch-fid, clean-fid and others do: scipy.linalg.sqrtm of the product."""
    import scipy.linalg

    real, fake = real.astype(np.float64), fake.astype(np.float64)
    first, second, step = np.cov(real.T), np.cov(fake.T), real.mean(0) - fake.mean(0)
    root = np.trace(scipy.linalg.sqrtm(first @ second)).real
    return float(step @ step + np.trace(first) + np.trace(second) - 2 * root)


def fid_labels_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Sum over 14 labels from the same features."""
    from synthchex.maths import frechet

    one, two = findings(len(real), 5), findings(len(fake), 6)
    return sum(frechet.frechet_distance(real[one[:, c]], fake[two[:, c]]) for c in range(LABELS))


def fid_labels_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """The peer once per label."""
    one, two = findings(len(real), 5), findings(len(fake), 6)
    return sum(fid_torch_fidelity(real[one[:, c]], fake[two[:, c]]) for c in range(LABELS))


def fid_cached_ours(real: Any, fake: np.ndarray) -> float:
    """Against moments whose factor is known."""
    from synthchex.maths import frechet

    return frechet.frechet_distance(real, fake)


def cached_ours(real: np.ndarray) -> Any:
    """Moments and factor of the reference, before the clock starts."""
    from synthchex.maths import frechet

    known = frechet.moments(real)
    frechet.frechet_distance(known, known)
    return known


def fid_cached_torch_fidelity(real: Any, fake: np.ndarray) -> float:
    """Against its own statistics."""
    import torch
    from torch_fidelity import metric_fid

    stats = metric_fid.fid_features_to_statistics(torch.from_numpy(fake))
    return float(metric_fid.fid_statistics_to_metric(stats, real, verbose=False)["frechet_inception_distance"])


def cached_torch_fidelity(real: np.ndarray) -> Any:
    """Its statistics of the reference, before the clock starts."""
    import torch
    from torch_fidelity import metric_fid

    return metric_fid.fid_features_to_statistics(torch.from_numpy(real))


def infinity_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """15 nested points, both sides cut."""
    from synthchex.maths import infinity

    return infinity.fid_infinity(real, fake).value


def infinity_ours_reference(real: np.ndarray, fake: np.ndarray) -> float:
    """15 nested points of the synthetic side against the whole reference, the peer's kind of extrapolation."""
    from synthchex.maths import frechet, infinity

    return infinity.fid_infinity(frechet.moments(real), fake).value


def infinity_dgm(real: np.ndarray, fake: np.ndarray) -> float:
    """The steps of dgm-eval: 15 random subsets from a tenth to all rows, statistics and scipy.linalg.sqrtm for each."""
    import scipy.linalg

    rng = np.random.default_rng()
    sizes = np.linspace(min(5000, max(len(fake) // 10, 2)), len(fake), 15).astype("int32")
    mean, covariance = np.mean(real, axis=0), np.cov(real, rowvar=False)
    found = []
    for size in sizes:
        part = rng.choice(fake, size, replace=False)
        other, step = np.cov(part, rowvar=False), mean - np.mean(part, axis=0)
        root = np.trace(scipy.linalg.sqrtm(covariance.dot(other))).real
        found.append(step.dot(step) + np.trace(covariance) + np.trace(other) - 2 * root)
    return float(np.polyfit(1 / sizes, found, 1)[1])


def kid_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Exact, with its standard error."""
    from synthchex.maths import kernel

    return kernel.kernel_distance(real, fake).value


def kid_ours_bfloat16(real: np.ndarray, fake: np.ndarray) -> float:
    """The named fast mode."""
    from synthchex.maths import kernel

    return kernel.kernel_distance(real, fake, precision="bfloat16").value


def kid_ours_subsets(real: np.ndarray, fake: np.ndarray) -> float:
    """torch-fidelity's 100 subsets."""
    from synthchex.maths import kernel

    size = min(1000, len(real), len(fake))
    return float(kernel.subset_distances(real, fake, subset_size=size).mean())


def kid_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """100 subsets of 1000."""
    import torch
    from torch_fidelity import metric_kid

    options = {"kid_subsets": 100, "kid_subset_size": min(1000, len(real), len(fake)), "rng_seed": 2020}
    found = metric_kid.kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), **options, verbose=False)
    return float(found["kernel_inception_distance_mean"])


def kid_labels_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Overall and 14 labels in one pass; the sum of the labels."""
    from synthchex.maths import kernel

    one, two = labels(len(real)), labels(len(fake))
    return sum(estimate.value for estimate in kernel.kernel_distances(real, fake, one, two))


def kid_labels_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """The peer once per label."""
    one, two = labels(len(real)), labels(len(fake))
    return sum(kid_torch_fidelity(real[one[:, c]], fake[two[:, c]]) for c in range(LABELS))


def prdc_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """All four, exact; precision is compared."""
    from synthchex.maths import neighbors

    return neighbors.overlap(real, fake).precision


def prdc_prdc(real: np.ndarray, fake: np.ndarray) -> float:
    """The authors' package; it uses 8 processes whatever the threads."""
    import prdc

    return float(prdc.compute_prdc(real, fake, nearest_k=5)["precision"])


def prdc_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """Precision and recall only."""
    import torch
    from torch_fidelity import metric_prc

    sides = torch.from_numpy(fake), torch.from_numpy(real)
    options = {"prc_neighborhood": 5, "prc_batch_size": 10000, "save_cpu_ram": False, "verbose": False}
    return float(metric_prc.prc_features_to_metric(*sides, **options)["precision"])


# case: (relative tolerance of a correct value, {implementation: function}); the first is ours and sets the value.
CASES: dict[str, tuple[float, dict[str, Run]]] = {
    "fid": (
        1e-5,
        {
            "ours": fid_ours,
            "ours float32": fid_ours_float32,
            "torch-fidelity": fid_torch_fidelity,
            "torchmetrics": fid_torchmetrics,
            "scipy sqrtm": fid_sqrtm,
        },
    ),
    "fid-cached": (1e-5, {"ours": fid_cached_ours, "torch-fidelity": fid_cached_torch_fidelity}),
    "fid-labels": (
        1e-3,
        {"ours": fid_labels_ours, "ours, overall alone": fid_ours, "torch-fidelity": fid_labels_torch_fidelity},
    ),
    "fid-infinity": (
        0.5,
        {"ours": infinity_ours_reference, "ours, both sides cut": infinity_ours, "dgm-eval's steps": infinity_dgm},
    ),
    "kid": (
        0.05,
        {
            "ours": kid_ours,
            "ours bfloat16": kid_ours_bfloat16,
            "ours 100 subsets": kid_ours_subsets,
            "torch-fidelity": kid_torch_fidelity,
        },
    ),
    "kid-labels": (0.05, {"ours": kid_labels_ours, "torch-fidelity": kid_labels_torch_fidelity}),
    "prdc": (1e-9, {"ours": prdc_ours, "prdc": prdc_prdc, "torch-fidelity": prdc_torch_fidelity}),
}

# What is done to the real side before the clock starts.
PREPARED: dict[Run, Callable[[np.ndarray], Any]] = {
    fid_cached_ours: cached_ours,
    fid_cached_torch_fidelity: cached_torch_fidelity,
}


def measure_one(case: str, name: str, folder: Path, threads: int) -> dict[str, float]:
    """Time and memory of one call, in this process."""
    import torch

    torch.set_num_threads(threads)
    run = CASES[case][1][name]
    real, fake = np.load(folder / "real.npy"), np.load(folder / "fake.npy")
    for module in ("scipy.linalg", "scipy.special", "torch.linalg"):
        importlib.import_module(module)  # a first call should not pay for imports
    prepared = PREPARED.get(run, lambda side: side)
    small = [np.random.default_rng(seed).random((400, 8), np.float32) for seed in (0, 1)]
    run(prepared(small[0]), small[1])
    real = prepared(real)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    wall, cpu = time.perf_counter(), os.times()
    value = run(real, fake)
    after = os.times()
    spent = (after.user + after.system + after.children_user + after.children_system) - (
        cpu.user + cpu.system + cpu.children_user + cpu.children_system
    )
    return {
        "value": float(value),
        "wall": time.perf_counter() - wall,
        "cpu": spent,
        "mb": (status("VmHWM") - before) / 1024,
    }


def status(key: str) -> int:
    """A memory figure of this process, kB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def run_fresh(case: str, name: str, folder: Path, threads: int) -> dict[str, float] | str:
    """One measurement in a fresh process, or why there is none."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    command = [sys.executable, __file__, "--one", case, name, str(folder), "--threads", str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def report(case: str, best: dict[str, dict[str, float]], missing: dict[str, str]) -> None:
    """One table of a case."""
    tolerance, runs = CASES[case]
    value = best["ours"]["value"]
    correct = [
        row["cpu"]
        for name, row in best.items()
        if not name.startswith("ours") and abs(row["value"] - value) <= tolerance * abs(value)
    ]
    print("\n| implementation | wall s | CPU s | MB over input | value | ratio |\n|---|---|---|---|---|---|")
    for name in runs:
        if name in missing:
            print(f"| {name} | - | - | - | {missing[name]} | |")
            continue
        row = best[name]
        ratio = f"{min(correct) / row['cpu']:.2f}x" if correct else "-"
        print(f"| {name} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['mb']:.0f} | {row['value']:.9g} | {ratio} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rows", type=int, default=10_000, help="of each side")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=3, metavar=("CASE", "NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, name, folder = options.one
        print(json.dumps(measure_one(case, name, Path(folder), options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for seed, (side, shift) in enumerate((("real", 0.0), ("fake", 0.05))):
            np.save(Path(folder) / f"{side}.npy", features(options.rows, options.width, seed, shift))
        for case in options.cases:
            print(f"\n### {case}: {options.rows} + {options.rows} x {options.width}, {options.threads} thread(s)")
            best: dict[str, dict[str, float]] = {}
            missing: dict[str, str] = {}
            for _ in range(options.rounds):
                for name in CASES[case][1]:
                    found = run_fresh(case, name, Path(folder), options.threads)
                    if isinstance(found, str):
                        missing[name] = found
                    elif name not in best or found["cpu"] < best[name]["cpu"]:
                        best[name] = found
            report(case, best, missing)


if __name__ == "__main__":
    main()
