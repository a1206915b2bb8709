"""Metrics side by side with their peers: wall, CPU time, peak memory over the inputs, ratio to the fastest correct
peer. How it is measured is in harness.py.

    python benchmarks/metrics.py                                     # all cases at 10,000 x 768
    python benchmarks/metrics.py --cases kid prdc --rows 3000 --width 2048 --threads 2 --rounds 3
    python benchmarks/metrics.py --growth --rows-list 2000 5000 10000 20000 50000
    python benchmarks/metrics.py --device cuda --cases fid kid prdc cmmd
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
import metrics_more
import numpy as np
from harness import LABELS, Run, findings


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


def fid_torchmetrics(real: Any, fake: Any) -> float:
    """Sums of products in batches of 64, as its users call it."""
    import torch
    from torchmetrics.image.fid import _compute_fid

    def stats(side: Any) -> tuple[Any, Any]:
        rows = torch.as_tensor(side)
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        products = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
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


def kid_ours_shared(real: np.ndarray, fake: np.ndarray) -> float:
    """Exact and torch-fidelity's 100 subsets, from one pass; the mean of the subsets."""
    from synthchex.maths import kernel, selections

    size = min(1000, len(real), len(fake))
    draws = selections.subset_rows(len(real), len(fake), subsets=100, subset_size=size, seed=2020)
    return float(kernel.compare(real, fake, subsets=draws).subsets.mean())


def kid_ours_permutations(real: np.ndarray, fake: np.ndarray) -> float:
    """Exact and a p-value from 1000 exchanges of rows, from one pass."""
    from synthchex.maths import kernel

    return kernel.compare(real, fake, permutations=1000).whole.value


def kid_torchmetrics(real: Any, fake: Any) -> float:
    """100 subsets of 1000, as torchmetrics draws them."""
    import torch
    from torchmetrics.image.kid import poly_mmd

    sides, size = [torch.as_tensor(side) for side in (real, fake)], min(1000, len(real), len(fake))
    draws = [[side[torch.randperm(len(side), device=side.device)[:size]] for side in sides] for _ in range(100)]
    return float(torch.stack([poly_mmd(*pair) for pair in draws]).mean())


def kid_labels_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Overall and 14 labels in one pass; the sum of the labels."""
    from synthchex.maths import kernel

    one, two = findings(len(real), 5), findings(len(fake), 6)
    return sum(estimate.value for estimate in kernel.compare(real, fake, (one, two)).selections)


def kid_labels_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """The peer once per label."""
    one, two = findings(len(real), 5), findings(len(fake), 6)
    return sum(kid_torch_fidelity(real[one[:, c]], fake[two[:, c]]) for c in range(LABELS))


def all_labels_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """FID, KID, PRDC and alignment modules, overall and at 14 labels; the sum of the FIDs."""
    import synthchex

    marks = findings(len(fake), 6)
    groups = {str(c): (marks[:, c], other) for c, other in enumerate(findings(len(real), 5).T)}
    pairs = {label: left for label, (left, _) in groups.items() if left.sum() >= FEWEST}
    groups = {label: pair for label, pair in groups.items() if min(side.sum() for side in pair) >= FEWEST}
    found = {
        name: synthchex.load(name).compute(predictions=fake, references=real, groups=groups)
        for name in ("fid", "kid", "prdc")
    }
    synthchex.load("alignment").compute(predictions=fake, references=real[: len(fake)], groups=pairs)
    return sum(part["fid"] for part in (found["fid"], *found["fid"]["labels"].values()))


def all_labels_peers(real: np.ndarray, fake: np.ndarray) -> float:
    """torch-fidelity's FID and KID, prdc and a cosine per pair, once for all films and once per label."""
    import torch

    total, texts = 0.0, torch.from_numpy(real)
    every = [np.ones((len(side), 1), bool) for side in (real, fake)]
    one, two = np.c_[every[0], findings(len(real), 5)], np.c_[every[1], findings(len(fake), 6)]
    for left, right in zip(one.T, two.T, strict=True):
        if min(left.sum(), right.sum()) < FEWEST:
            continue
        total += fid_torch_fidelity(real[left], fake[right])
        kid_torch_fidelity(real[left], fake[right])
        prdc_prdc(real[left], fake[right])
        for image, text in zip(torch.from_numpy(fake[right]), texts[torch.from_numpy(right)], strict=True):
            round(torch.nn.functional.cosine_similarity(image[None], text[None]).item(), 3)
    return total


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
        0.2,  # a mean over random subsets
        {
            "ours": kid_ours,
            "ours bfloat16": kid_ours_bfloat16,
            "ours with 100 subsets": kid_ours_shared,
            "ours with p-value": kid_ours_permutations,
            "ours, 100 subsets alone": kid_ours_subsets,
            "torch-fidelity": kid_torch_fidelity,
            "torchmetrics": kid_torchmetrics,
        },
    ),
    "kid-labels": (0.2, {"ours": kid_labels_ours, "torch-fidelity": kid_labels_torch_fidelity}),
    "prdc": (1e-9, {"ours": prdc_ours, "prdc": prdc_prdc, "torch-fidelity": prdc_torch_fidelity}),
}

CASES["all-labels"] = (0.01, {"ours": all_labels_ours, "once per label": all_labels_peers})
FEWEST = 10  # rows of a label that peers can measure

# What is done to the real side before the clock starts.
PREPARED: dict[Run, Callable[[np.ndarray], Any]] = {
    fid_cached_ours: cached_ours,
    fid_cached_torch_fidelity: cached_torch_fidelity,
}


BENCH = harness.Bench(
    cases={**CASES, **metrics_more.CASES},
    prepared=PREPARED,
    unit=metrics_more.CASES,
    growing=("fid", "kid", "prdc", "cmmd", "vendi"),
    on_device=(
        *(fid_ours, fid_torchmetrics, kid_ours, kid_ours_bfloat16, kid_torchmetrics, prdc_ours),
        *metrics_more.ON_DEVICE,
    ),
)

if __name__ == "__main__":
    harness.main(BENCH, __doc__, __file__)
