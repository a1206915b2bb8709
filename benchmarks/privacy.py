"""Nearest training rows of synthetic ones, side by side with scikit-learn and faiss: time, peak memory, growth.

    python benchmarks/privacy.py --rows 50000 --references 20000      # one thread
    python benchmarks/privacy.py --rows 8000 --references 10000 --rounds 1
    python benchmarks/privacy.py --growth --rows-list 5000 10000 20000
    python benchmarks/privacy.py --device cuda

`--rows` are the synthetic rows, `--references` the training rows. The value is the mean distance to the nearest; how
it is measured is in harness.py. faiss (`pip install faiss-cpu`) and scikit-learn are left out where they are missing.
`fp32 products` is the bound: one float32 product of all pairs in tiles, and nothing else.
"""

from __future__ import annotations

from typing import Any

import harness
import numpy as np
from harness import Run

K = 2


def ours(real: Any, fake: Any) -> float:
    """Exact; the format of the products is chosen from a sample."""
    from synthchex.maths import search

    return float(search.nearest(fake, real, K).distances[:, 0].mean())


def ours_float32(real: Any, fake: Any) -> float:
    """Exact, products in float32, as on processors without int8."""
    from synthchex.maths import search

    return float(search.nearest(fake, real, K, low="float32").distances[:, 0].mean())


def scikit_learn(real: np.ndarray, fake: np.ndarray) -> float:
    """`NearestNeighbors`, brute force."""
    from sklearn.neighbors import NearestNeighbors

    return float(NearestNeighbors(n_neighbors=K, algorithm="brute").fit(real).kneighbors(fake)[0][:, 0].mean())


def faiss_flat(real: np.ndarray, fake: np.ndarray) -> float:
    """`IndexFlatL2`: float32 products, which lose the distances of near-copies."""
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(real.shape[1])
    index.add(real)
    return float(np.sqrt(index.search(fake, K)[0][:, 0]).mean())


def products(real: Any, fake: Any) -> float:
    """The bound: all pairs multiplied once in float32. Its value is no distance."""
    import torch

    one, two = torch.as_tensor(fake), torch.as_tensor(real)
    return float(sum(torch.mm(a, b.T)[0, 0] for a in one.split(2048) for b in two.split(2048)))


RUNS: dict[str, Run] = {
    "ours": ours,
    "ours float32": ours_float32,
    "scikit-learn": scikit_learn,
    "faiss IndexFlatL2": faiss_flat,
    "fp32 products": products,
}
BENCH = harness.Bench(
    cases={"nearest": (1e-4, RUNS)},
    prepared={},
    unit=(),
    growing=("nearest",),
    on_device=(ours, ours_float32, products),
)


if __name__ == "__main__":
    harness.main(BENCH, __doc__, __file__)
