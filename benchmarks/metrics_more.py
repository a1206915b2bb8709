"""CMMD, Vendi, inception score and MS-SSIM beside their peers: cases of metrics.py on features of unit length.

python benchmarks/metrics.py --cases cmmd --rows 20000
python benchmarks/metrics.py --cases vendi --rows 10000 --width 2048
"""

from __future__ import annotations

from typing import Any

import numpy as np


def cmmd_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Exact, biased as the peer is, with a standard error."""
    from synthchex.maths import cmmd

    return cmmd.cmmd(real, fake, biased=True).value


def cmmd_ours_bfloat16(real: np.ndarray, fake: np.ndarray) -> float:
    """The named fast mode."""
    from synthchex.maths import cmmd

    return cmmd.cmmd(real, fake, biased=True, precision="bfloat16").value


def cmmd_ours_series(real: np.ndarray, fake: np.ndarray) -> float:
    """Moments, with an error bound."""
    from synthchex.maths import cmmd

    return cmmd.cmmd_series(real, fake, biased=True).value


def cmmd_whole(real: np.ndarray, fake: np.ndarray) -> float:
    """What cmmd-pytorch does, operation for operation: whole float32 matrices, lengths from the diagonal of one."""
    import torch

    x, y = torch.as_tensor(real), torch.as_tensor(fake)
    squares = [torch.diag(side @ side.T) for side in (x, y)]

    def mean(a: int, b: int) -> Any:
        return torch.exp(-0.005 * (-2 * ((x, y)[a] @ (x, y)[b].T) + squares[a][:, None] + squares[b][None])).mean()

    return float(1000 * (mean(0, 0) + mean(1, 1) - 2 * mean(0, 1)))


def vendi_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """The smaller of the two products."""
    from synthchex.maths import vendi

    return vendi.vendi_score(fake)


def vendi_score_default(real: np.ndarray, fake: np.ndarray) -> float:
    """score_X, an N x N matrix."""
    from vendi_score import vendi

    return float(vendi.score_X(fake))


def vendi_score_dual(real: np.ndarray, fake: np.ndarray) -> float:
    """score_dual, a D x D matrix, when its users know of it."""
    from vendi_score import vendi

    return float(vendi.score_dual(fake))


def inception_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """Features stand for logits: the time does not depend on values."""
    from synthchex.maths import inception

    return float(inception.inception_scores(100 * fake).mean())


def inception_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """Double softmax and log-softmax of the whole set."""
    import torch
    from torch_fidelity import metric_isc

    found = metric_isc.isc_features_to_metric(torch.from_numpy(100 * fake))
    return float(found["inception_score_mean"])


def _films() -> np.ndarray:
    """12 films of 512 x 512, uint8, of blocks and steps."""
    coarse = np.random.default_rng(0).integers(0, 200, (12, 32, 32))
    return (np.kron(coarse, np.ones((16, 16), int)) + np.arange(512) % 50).astype(np.uint8)


def ssim_ours(real: np.ndarray, fake: np.ndarray) -> float:
    """All 66 pairs of 12 films."""
    from synthchex.maths import ssim

    films = list(_films())
    return float(ssim.pair_similarities(films, ssim.draw_pairs(12, 66, np.random.default_rng(0))).mean())


def ssim_pytorch_msssim(real: np.ndarray, fake: np.ndarray) -> float:
    """The same pairs, in batches of 11."""
    import torch
    from pytorch_msssim import ms_ssim

    films = torch.from_numpy(_films())[:, None].float()
    later, earlier = torch.tril_indices(12, 12, -1)
    found = [
        ms_ssim(films[a], films[b], data_range=255.0, size_average=False)
        for a, b in zip(later.split(11), earlier.split(11), strict=True)
    ]
    return float(torch.cat(found).mean())


CASES = {
    "cmmd": (
        0.1,  # float32 sums of K itself are 6 % off where the value is as small as here
        {
            "ours": cmmd_ours,
            "ours bfloat16": cmmd_ours_bfloat16,
            "ours series": cmmd_ours_series,
            "whole matrices": cmmd_whole,
        },
    ),
    "vendi": (
        1e-3,
        {"ours": vendi_ours, "vendi-score": vendi_score_default, "vendi-score dual": vendi_score_dual},
    ),
    "inception": (1e-6, {"ours": inception_ours, "torch-fidelity": inception_torch_fidelity}),
    "ms-ssim": (1e-3, {"ours": ssim_ours, "pytorch-msssim": ssim_pytorch_msssim}),
}


ON_DEVICE = (cmmd_ours, cmmd_ours_bfloat16, cmmd_ours_series, cmmd_whole)
