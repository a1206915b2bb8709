"""Inception score: by hand, by its definition, what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthchex.maths import inception


@pytest.fixture
def logits() -> np.ndarray:
    """(203, 12) float32."""
    return (3 * np.random.default_rng(7).normal(size=(203, 12))).astype(np.float32)


def by_definition(logits: np.ndarray) -> float:
    """exp of the mean Kullback-Leibler divergence, term by term."""
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    q = p.mean(axis=0)
    return math.exp(np.mean([sum(a * math.log(a / b) for a, b in zip(row, q, strict=True)) for row in p]))


def test_by_hand() -> None:
    # Two sure and different images: KL from the even marginal is log 2. One image, or equal ones: no divergence.
    sure = np.array([[80.0, 0.0], [0.0, 80.0]])
    assert inception.inception_scores(sure, splits=1) == pytest.approx([2.0])
    assert inception.inception_scores(sure, splits=2).tolist() == [1.0, 1.0]
    # p = (3/4, 1/4) and (1/4, 3/4): KL to (1/2, 1/2) is 3/4 log(3/2) + 1/4 log(1/2).
    even = np.log(np.array([[3.0, 1.0], [1.0, 3.0]]))
    assert inception.inception_scores(even, splits=1) == pytest.approx(
        [math.exp(0.75 * math.log(1.5) - 0.25 * math.log(2))]
    )
    assert inception.inception_scores(1000.0 * np.eye(30), splits=1) == pytest.approx([30.0])


def test_equal_to_the_definition_whatever_the_blocks(logits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [by_definition(logits[part * 203 // 4 : (part + 1) * 203 // 4]) for part in range(4)]
    for block in (7, 4096):
        monkeypatch.setattr(inception, "BLOCK", block)
        found = inception.inception_scores(logits, splits=4, shuffle=False)
        assert found == pytest.approx(expected, rel=1e-12)


def test_invariances(logits: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    score = inception.inception_scores(logits, splits=1)[0]
    assert inception.inception_scores(logits[rng.permutation(203)], splits=1)[0] == pytest.approx(score, rel=1e-12)
    assert inception.inception_scores(logits[:, ::-1], splits=1)[0] == pytest.approx(score, rel=1e-12)
    moved = logits.astype(np.float64) + rng.normal(size=(203, 1)) * 1e4  # softmax does not see a shift of a row
    assert inception.inception_scores(moved, splits=1)[0] == pytest.approx(score, rel=1e-9)
    assert inception.inception_scores(np.ones((20, 5)), splits=2) == pytest.approx([1, 1])
    seeds = [inception.inception_scores(logits, seed=seed).tolist() for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_extreme_logits_and_torch_tensors(logits: np.ndarray) -> None:
    import torch

    assert np.isfinite(inception.inception_scores(1e30 * logits.astype(np.float64))).all()
    expected = inception.inception_scores(logits)
    assert inception.inception_scores(torch.from_numpy(logits)) == pytest.approx(expected)


def test_interval_is_that_of_deleting_blocks(logits: np.ndarray) -> None:
    blocks = np.arange(203) % 20
    found = inception.inception_interval(logits, blocks, value=3.0)
    logs = np.log([by_definition(logits[blocks != block]) for block in range(20)])
    error = math.sqrt(19 / 20 * np.square(logs - logs.mean()).sum())
    assert found.standard_error == pytest.approx(3 * error, rel=1e-9)
    assert found.low == pytest.approx(3 * math.exp(-2.0930240544 * error), rel=1e-9)
    assert found.low * found.high == pytest.approx(9)
    same = inception.inception_interval(np.ones((50, 4)), np.arange(50) % 5, value=1.0)
    assert same == pytest.approx((1, 1, 0), abs=1e-12)


def test_what_cannot_be_right_is_refused(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"got \(N, 2048\): these are Inception's pooled features.*'logits_unbiased'"):
        inception.inception_scores(np.zeros((20, 2048)))
    with pytest.raises(ValueError, match="got rows that sum to 1, which are probabilities; pass their logarithm"):
        inception.inception_scores(np.full((20, 4), 0.25))
    with pytest.raises(ValueError, match="splits must be at least 1 and at most the 203 rows, got 204; 10 is usual"):
        inception.inception_scores(logits, splits=204)
    with pytest.raises(ValueError, match="splits must be at least 1"):
        inception.inception_scores(logits, splits=0)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        inception.inception_scores(np.zeros((20, 1)))
    with pytest.raises(ValueError, match="logits: expected finite features"):
        inception.inception_scores(logits * np.nan)
    with pytest.raises(ValueError, match="at least 5 groups to leave out in turn, got 4"):
        inception.inception_interval(logits, np.arange(203) % 4, value=1)
    with pytest.raises(ValueError, match=r"confidence must be between 0 and 1, got 95; 0.95 is usual"):
        inception.inception_interval(logits, np.arange(203) % 5, value=1, confidence=95)
