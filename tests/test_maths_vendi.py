"""Vendi score: by hand, against eigenvalues of the whole matrix, invariances, degenerate sets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from synthchex.maths import vendi

ORDERS = [0.25, 0.5, 1, 1.5, 2, 3, 20, math.inf]


def by_definition(rows: np.ndarray, order: float) -> float:
    """Eigenvalues of the N x N cosine matrix, float64."""
    rows = rows.astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    weights = np.clip(np.linalg.eigvalsh(unit @ unit.T / len(rows)), 0, None)
    weights = weights[weights > 1e-13]
    if math.isinf(order):
        return float(1 / weights.max())
    if order == 1:
        return float(np.exp(-(weights * np.log(weights)).sum()))
    return float((weights**order).sum() ** (1 / (1 - order)))


def test_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])  # eigenvalues 1/3 and 2/3
    entropy = math.exp(-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3)
    found = vendi.vendi_scores(rows, orders=[1, 2, math.inf, 0])
    assert found == pytest.approx([entropy, 9 / 5, 3 / 2, 2])


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (30, 30), (600, 6), (1, 4)])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_equal_to_the_definition(shape: tuple[int, int], precision: str) -> None:
    rows = np.random.default_rng(0).normal(size=shape) + 0.5
    expected = [by_definition(rows, order) for order in ORDERS]
    found = vendi.vendi_scores(rows, orders=ORDERS, precision=precision)
    assert found == pytest.approx(expected, rel=1e-3 if precision == "float32" else 1e-5)
    assert found[2:] == pytest.approx(expected[2:], rel=1e-5 if precision == "float32" else 1e-9)
    assert vendi.vendi_score(rows, order=2, precision=precision) == pytest.approx(found[4], rel=1e-5)


def test_bounds_copies_and_orthogonal_rows() -> None:
    assert vendi.vendi_scores(np.eye(7), orders=ORDERS) == pytest.approx([7] * len(ORDERS), rel=1e-5)
    parallel = np.outer([1.0, 2.0, 5.0], [3.0, 4.0, 0.0])
    assert vendi.vendi_scores(parallel, orders=ORDERS, precision="float64") == pytest.approx(
        [1] * len(ORDERS), rel=1e-3
    )
    assert vendi.vendi_score(np.ones((4, 3))) == pytest.approx(1, abs=1e-6)
    rows = np.random.default_rng(0).normal(size=(60, 9))
    scores = vendi.vendi_scores(rows, orders=ORDERS)
    assert all(1 <= later <= earlier <= 9 for earlier, later in itertools.pairwise(scores))
    twice = vendi.vendi_scores(np.concatenate([rows, rows]), orders=ORDERS)
    assert twice == pytest.approx(scores, rel=1e-5)  # copies add nothing


def test_invariances() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 16)) * np.arange(1, 17)
    value = vendi.vendi_score(rows)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert vendi.vendi_score(rows[rng.permutation(150)]) == pytest.approx(value, rel=1e-6)
    assert vendi.vendi_score(rows @ turn) == pytest.approx(value, rel=1e-6)
    assert vendi.vendi_score(rows * rng.uniform(0.1, 9, (150, 1))) == pytest.approx(value, rel=1e-6)
    for factor in (1e-25, 1e25):
        assert vendi.vendi_score((rows * factor).astype(np.float32)) == pytest.approx(value, rel=1e-5)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(150, 16))
    value = vendi.vendi_score(rows, precision="float64")
    monkeypatch.setattr(vendi, "BLOCK", 7)
    assert vendi.vendi_score(rows, precision="float64") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("shape", [(60, 8), (20, 50)])
def test_interval_is_that_of_scores_without_each_block(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape) + 0.3
    blocks, orders = np.arange(len(rows)) % 6, [0.5, 1, math.inf]
    values = vendi.vendi_scores(rows, orders=orders, precision="float64")
    found = vendi.vendi_intervals(rows, blocks, values, orders=orders, precision="float64", confidence=0.9)
    for order, value, ends in zip(orders, values, found, strict=True):
        logs = np.log([by_definition(rows[blocks != block], order) for block in range(6)])
        error = math.sqrt(5 / 6 * np.square(logs - logs.mean()).sum())
        assert ends.standard_error == pytest.approx(value * error, rel=1e-4)
        assert ends.high == pytest.approx(value * math.exp(2.015048 * error), rel=1e-4)
        assert ends.low >= 1
    with pytest.raises(ValueError, match="expected at least 5 groups to leave out in turn, got 4"):
        vendi.vendi_intervals(rows, blocks % 4, values, orders=orders)
    with pytest.raises(ValueError, match=r"confidence must be between 0 and 1, got 95"):
        vendi.vendi_intervals(rows, blocks, values, orders=orders, confidence=95)


@pytest.mark.parametrize("offset", [0.0, 0.3, 3.0])
def test_float32_keeps_the_digits_it_states(offset: float) -> None:
    rng = np.random.default_rng(0)
    for decay in (0.0, 1.5):
        rows = rng.normal(size=(1500, 200)) * np.arange(1, 201) ** -decay + offset
        exact = vendi.vendi_scores(rows, orders=[1, 2, math.inf], precision="float64")
        found = vendi.vendi_scores(rows, orders=[1, 2, math.inf])
        assert found == pytest.approx(exact, rel=2e-5 if offset == 3 else 2e-6)


def test_torch_and_half_precision() -> None:
    import torch

    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    value = vendi.vendi_score(rows)
    assert vendi.vendi_score(torch.from_numpy(rows)) == value
    assert vendi.vendi_score(torch.from_numpy(rows).half()) == pytest.approx(value, rel=1e-3)


def test_what_cannot_be_right_is_refused() -> None:
    rows = np.ones((4, 3))
    with pytest.raises(ValueError, match="order must be at least 0, got -1; 1 is the usual one"):
        vendi.vendi_score(rows, order=-1)
    with pytest.raises(ValueError, match="order must be at least 0, got nan"):
        vendi.vendi_score(rows, order=math.nan)
    with pytest.raises(ValueError, match="precision must be float32 or float64, got 'half'"):
        vendi.vendi_score(rows, precision="half")
    rows[2] = 0
    with pytest.raises(ValueError, match="expected rows of some length, got zeros in row 2; a cosine"):
        vendi.vendi_score(rows)
    with pytest.raises(ValueError, match="features: expected finite features"):
        vendi.vendi_score(np.full((4, 3), np.inf))
