"""CMMD: by hand, against whole float64 kernel matrices, the series inside its bound, errors of the error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synthchex.maths import cmmd

Pair = tuple[np.ndarray, np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def pair() -> Pair:
    """Two sets of unit embeddings in a cone, float32 (300, 24) and (260, 24)."""
    rng = np.random.default_rng(7)
    return unit(rng.normal(size=(300, 24)) + 1), unit(1.2 * rng.normal(size=(260, 24)) + 0.7)


def by_definition(real: np.ndarray, fake: np.ndarray, *, biased: bool = False, sigma: float = 10.0) -> float:
    """The definition in float64, with whole matrices of K by differences."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-np.square(a[:, None] - b[None]).sum(2) / (2 * sigma**2))

    n, m = len(real), len(fake)
    within = [k(real, real), k(fake, fake)]
    if biased:
        inner = within[0].mean() + within[1].mean()
    else:
        inner = (within[0].sum() - n) / (n * (n - 1)) + (within[1].sum() - m) / (m * (m - 1))
    return float(1000 * (inner - 2 * k(real, fake).mean()))


def test_two_points_a_side_by_hand() -> None:
    # Within each side distance 0, K = 1; across distance^2 = 2: 1000 (1 + 1 - 2 exp(-2/200)).
    x, y = np.array([[1.0, 0.0]] * 2), np.array([[0.0, 1.0]] * 2)
    expected = 2000 * (1 - math.exp(-0.01))
    for biased in (False, True):
        assert cmmd.cmmd(x, y, biased=biased).value == pytest.approx(expected, rel=1e-6)
        assert cmmd.cmmd_series(x, y, biased=biased).value == pytest.approx(expected, rel=1e-6)
    # One side apart: within x K = exp(-2) at sigma 1; unbiased counts that pair only, biased also the rows themselves.
    x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [0.0]])
    e = math.exp(-2)
    assert cmmd.cmmd(x, y, sigma=1, scale=1).value == pytest.approx(e + 1 - (1 + e), abs=1e-7)
    assert cmmd.cmmd(x, y, sigma=1, scale=1, biased=True).value == pytest.approx((1 + e) / 2 + 1 - (1 + e), rel=1e-6)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("block", [7, 64, 1000])
def test_equal_to_the_definition_whatever_the_tiles(pair: Pair, block: int, biased: bool) -> None:
    exact = by_definition(*pair, biased=biased)
    assert cmmd.compare(*pair, block=block, biased=biased).whole.value == pytest.approx(exact, rel=2e-6)
    doubled = cmmd.compare(*pair, block=block, biased=biased, precision="float64").whole
    assert doubled.value == pytest.approx(exact, rel=1e-9)


def test_equal_to_cmmd_pytorch(pair: Pair) -> None:
    # Its mmd(x, y) on these rows in float64; in its own float32 it gives 0.43678.
    assert cmmd.cmmd(*pair, biased=True).value == pytest.approx(0.4369463403137708, rel=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_any_width_of_kernel_and_rows_of_any_length(sigma: float) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 5)) + 1000, 1.3 * rng.normal(size=(90, 5)) + 1000.2
    found = cmmd.cmmd(x, y, sigma=sigma, precision="float64").value
    assert found == pytest.approx(by_definition(x, y, sigma=sigma), rel=1e-9)
    assert cmmd.cmmd(x, y, sigma=sigma).value == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", [2, 20, 1000])
def test_the_series_stays_within_its_bound(pair: Pair, rows: int, biased: bool) -> None:
    exact = by_definition(*pair, biased=biased)
    for seed in range(5):
        found = cmmd.cmmd_series(*pair, biased=biased, remainder_rows=rows, seed=seed)
        assert abs(found.value - exact) <= found.error_bound
        assert found.error_bound < 2e-3 * exact
    assert cmmd.cmmd_series(*pair, biased=biased).value == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.8, 1.0, 2.0])
def test_the_bound_holds_where_the_series_is_poor(pair: Pair, sigma: float) -> None:
    exact = by_definition(*pair, sigma=sigma)
    found = cmmd.cmmd_series(*pair, sigma=sigma, remainder_rows=10)
    assert abs(found.value - exact) <= found.error_bound


def test_the_series_of_opposite_points_is_within_its_bound() -> None:
    x = unit(np.random.default_rng(0).normal(size=(50, 3)))
    found = cmmd.cmmd_series(x, -x, biased=True)
    assert abs(found.value - by_definition(x, -x, biased=True)) <= found.error_bound


def test_symmetry_permutation_rotation_and_translation(pair: Pair) -> None:
    real, fake = pair
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)
    value, error = cmmd.cmmd(real, fake)
    assert cmmd.cmmd(fake, real) == pytest.approx((value, error), rel=1e-5)
    assert cmmd.cmmd(real[rng.permutation(300)], fake).value == pytest.approx(value, rel=1e-5)
    assert cmmd.cmmd(real @ turn, fake @ turn).value == pytest.approx(value, rel=1e-5)
    assert cmmd.cmmd(real + 10, fake + 10).value == pytest.approx(value, rel=1e-3)
    assert cmmd.cmmd_series(real @ turn, fake @ turn).value == pytest.approx(value, rel=1e-4)
    assert cmmd.cmmd(real, fake, scale=1).value == pytest.approx(value / 1000, rel=1e-9)


def test_identity_is_zero_biased_and_about_minus_two_over_n_unbiased(pair: Pair) -> None:
    real = pair[0]
    assert cmmd.cmmd(real, real, biased=True).value == pytest.approx(0, abs=1e-6)
    assert cmmd.cmmd_series(real, real, biased=True).value == pytest.approx(0, abs=1e-6)
    assert cmmd.cmmd(real, real).value == pytest.approx(by_definition(real, real), rel=1e-4)
    constant = np.tile(real[:1], (5, 1))
    assert cmmd.cmmd(constant, constant).value == 0


def test_unbiased_over_many_draws_of_one_distribution_and_error_of_the_right_size() -> None:
    rng = np.random.default_rng(3)
    found = [
        cmmd.cmmd(unit(rng.normal(size=(40, 8)) + 1), unit(rng.normal(size=(40, 8)) + 0.6), sigma=1) for _ in range(150)
    ]
    values, errors = np.array(found).T
    assert 0.85 < errors.mean() / values.std(ddof=1) < 1.3
    null = [
        cmmd.cmmd(unit(rng.normal(size=(30, 8))), unit(rng.normal(size=(25, 8))), sigma=1).value for _ in range(200)
    ]
    assert abs(np.mean(null)) < 3 * np.std(null) / math.sqrt(len(null))
    assert min(null) < 0


def test_clusters_are_left_out_whole(pair: Pair) -> None:
    real, fake = pair
    copies = np.repeat(real[:60], 5, axis=0)
    ids = np.repeat(np.arange(60), 5)
    plain = cmmd.cmmd(copies, fake)
    clustered = cmmd.cmmd(copies, fake, real_clusters=ids)
    assert clustered.value == plain.value
    assert clustered.standard_error > 1.3 * plain.standard_error
    each = cmmd.cmmd(real, fake, real_clusters=np.arange(300), fake_clusters=[str(i) for i in range(260)])
    assert each == pytest.approx(cmmd.cmmd(real, fake), rel=1e-6)
    left_out = np.array([cmmd.cmmd(np.delete(copies, ids == i, 0), fake, precision="float64").value for i in range(60)])
    by_hand = 59 / 60 * np.square(left_out - left_out.mean()).sum()
    alone = cmmd.cmmd(copies, fake, real_clusters=ids, fake_clusters=np.arange(260), precision="float64")
    other = np.array([cmmd.cmmd(copies, np.delete(fake, i, 0), precision="float64").value for i in range(260)])
    by_hand += 259 / 260 * np.square(other - other.mean()).sum()
    assert alone.standard_error == pytest.approx(math.sqrt(by_hand), rel=1e-6)


def test_two_rows_have_a_value_but_no_error(pair: Pair) -> None:
    found = cmmd.cmmd(pair[0][:2], pair[1][:2])
    assert np.isfinite(found.value)
    assert np.isnan(found.standard_error)


def test_torch_tensors_half_precision_and_bfloat16_products(pair: Pair) -> None:
    value = cmmd.cmmd(*pair).value
    assert cmmd.cmmd(torch.from_numpy(pair[0]), torch.from_numpy(pair[1])).value == value
    halves = [torch.from_numpy(side).half() for side in pair]
    assert cmmd.cmmd(*halves).value == pytest.approx(value, rel=1e-2)
    assert cmmd.cmmd_series(*halves).value == pytest.approx(value, rel=1e-2)
    assert cmmd.cmmd(*pair, precision="bfloat16").value == pytest.approx(value, rel=1e-3)


def test_selections_are_the_distances_of_their_rows(pair: Pair) -> None:
    real, fake = pair
    left, right = np.arange(300) % 3 == 0, np.arange(260) > 150
    for biased in (False, True):
        found = cmmd.compare(real, fake, (left[:, None], right[:, None]), biased=biased)
        assert found.whole == cmmd.cmmd(real, fake, biased=biased)
        alone = cmmd.cmmd(real[left], fake[right], biased=biased)
        assert found.selections[0] == pytest.approx(alone, rel=1e-5)


def test_what_cannot_be_right_is_refused(pair: Pair) -> None:
    real, fake = pair
    with pytest.raises(ValueError, match="fake: expected at least 2 rows, got 1; pass more images"):
        cmmd.cmmd(real, fake[:1])
    with pytest.raises(ValueError, match="one width, got 24 for real and 20 for fake"):
        cmmd.cmmd(real, fake[:, :20])
    with pytest.raises(ValueError, match="sigma must be positive, got 0; 10 is the published one"):
        cmmd.cmmd(real, fake, sigma=0)
    with pytest.raises(ValueError, match="real: expected embeddings of unit length for the series, got lengths 2 to 2"):
        cmmd.cmmd_series(2 * real, fake)
    with pytest.raises(ValueError, match="real_clusters: expected 300 ids, one per row, got 3"):
        cmmd.cmmd(real, fake, real_clusters=[1, 2, 3])
    with pytest.raises(ValueError, match="remainder_rows must be at least 2, got 1; 500 is usual"):
        cmmd.cmmd_series(real, fake, remainder_rows=1)
    with pytest.raises(ValueError, match=r"expected sigma of at least .* the series converges slowly"):
        cmmd.cmmd_series(real, fake, sigma=0.1)
    with pytest.raises(ValueError, match="real: expected finite features"):
        cmmd.cmmd(np.full((3, 2), np.nan), fake[:, :2])
    with pytest.raises(ValueError, match="expected halves of the squared lengths of both parts, got none; use `part`"):
        cmmd.Gaussian(0.005, torch.zeros(2)).finish(torch.zeros(2, 2), None, None)
