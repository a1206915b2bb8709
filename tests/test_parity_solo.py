"""Vendi, inception score, MS-SSIM, retrieval and radiomics distance beside what other packages gave, recorded.

`fixtures/solo.json` holds their values and versions; the inputs are made here, from a generator that never changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthchex.maths import alignment, inception, radiomics, ssim, vendi

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "solo.json").read_text())


def recorded(metric: str, package: str) -> Any:
    """Values of a package by case."""
    return RECORDED[metric][package]["values"]


def rows(case: str) -> np.ndarray:
    """Features for Vendi: more rows than features, a decaying spectrum, fewer rows than features."""
    count, width, decay = {"tall": (300, 24, 0.0), "graded": (400, 40, 1.5), "wide": (30, 80, 0.5)}[case]
    return np.random.RandomState(count).standard_normal((count, width)) * np.arange(1.0, width + 1) ** -decay + 0.3


def logits(case: str) -> np.ndarray:
    """Class scores, mild and sharp."""
    count, classes, scale, seed = {"plain": (200, 12, 3.0, 7), "peaked": (120, 40, 9.0, 8)}[case]
    return scale * np.random.RandomState(seed).standard_normal((count, classes))


def films(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth images that resemble each other, of even and of odd sides."""
    height, width, seed = {"even": (176, 192, 3), "odd": (181, 197, 4)}[case]
    random = np.random.RandomState(seed)
    coarse = random.standard_normal((2, height // 16 + 1, width // 16 + 1))
    smooth = np.kron(coarse, np.ones((16, 16)))[:, :height, :width] * 40 + 120
    x, y = np.clip(smooth + random.standard_normal(smooth.shape) * 12, 0, 255).astype(np.uint8)
    return x, (x * 0.6 + y * 0.4).astype(np.uint8)


def pairs(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of images and prompts that agree well, and badly."""
    count, width, noise, seed = {"near": (60, 8, 1.0, 1), "far": (80, 12, 4.0, 2)}[case]
    random = np.random.RandomState(seed)
    texts = random.standard_normal((count, width))
    return texts + noise * random.standard_normal((count, width)), texts


def tables(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Radiomic features, real and synthetic, over many orders of magnitude."""
    real, fake, width, seed = {"plain": (120, 90, 12, 5), "scaled": (80, 100, 20, 6)}[case]
    random = np.random.RandomState(seed)
    scale = 10.0 ** (np.arange(width) - width // 2)
    first = scale * (random.standard_normal((real, width)) + 2)
    return first, scale * (1.3 * random.standard_normal((fake, width)) + 2.4)


@pytest.mark.parametrize("case", ["tall", "graded", "wide"])
def test_vendi_is_that_of_vendi_score_at_every_order(case: str) -> None:
    values = recorded("vendi", "vendi-score")[case]
    orders = ["0.5", "1", "2", "3", "inf"]
    found = vendi.vendi_scores(rows(case), orders=[float(order) for order in orders], precision="float64")
    # Of `wide` 51 eigenvalues are rounding, which orders below 1 see.
    assert found == pytest.approx([values[order] for order in orders], rel=1e-6 if case == "wide" else 1e-12)
    assert found[1] == pytest.approx(values["score_X"], rel=1e-12)  # by the N x N matrix; ignores q, so q = 1 only
    assert vendi.vendi_scores(rows(case), orders=[1, 2, 3])[0] == pytest.approx(values["1"], rel=3e-6)


@pytest.mark.parametrize("case", ["plain", "peaked"])
def test_inception_score_is_that_of_torch_fidelity_piq_and_torchmetrics(case: str) -> None:
    asked: dict[str, dict[str, Any]] = {"torch-fidelity": {}, "piq": {"shuffle": False}, "torchmetrics": {}}
    for package, options in asked.items():
        splits = RECORDED["inception_score"][package]["splits"]
        found = inception.inception_scores(logits(case), splits=splits, **options)
        values = recorded("inception_score", package)[case]
        assert found.mean() == pytest.approx(values["mean"], rel=1e-12)
        if package == "torch-fidelity":
            assert found.std() == pytest.approx(values["std"], rel=1e-9)


@pytest.mark.parametrize("case", ["even", "odd"])
def test_ms_ssim_is_that_of_piq_and_pytorch_msssim(case: str) -> None:
    found = ssim.ms_ssim(*films(case))
    assert found == pytest.approx(recorded("ms_ssim", "piq")[case], abs=1e-6)
    if case == "even":  # each package has a rule of its own for odd sides
        assert found == pytest.approx(recorded("ms_ssim", "pytorch-msssim")[case], abs=1e-6)
        assert 0.002 < found - recorded("ms_ssim", "torchmetrics")[case] < 0.01  # reflected borders at the last scale


@pytest.mark.parametrize("case", ["near", "far"])
def test_retrieval_is_the_hit_rate_of_torchmetrics(case: str) -> None:
    values = recorded("retrieval", "torchmetrics")[case]
    for direction, ranks in zip(
        ("image_to_text", "text_to_image"), alignment.retrieval_ranks(*pairs(case)), strict=True
    ):
        for k in (1, 5, 10):
            assert alignment.recall_at(ranks, k) == pytest.approx(values[f"{direction}_r{k}"])


@pytest.mark.parametrize("case", ["plain", "scaled"])
def test_radiomics_distance_is_that_of_frd_score(case: str) -> None:
    found, values = radiomics.radiomics_distance(*tables(case)), recorded("frd", "frd-score")[case]
    assert (found.log_d, found.log_d2) == pytest.approx((values["log_d"], values["log_d2"]), rel=1e-10)
