"""Kernel distance: by hand, against the triple sum, columns, subsets, errors of the error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from synthchex.maths import cmmd, kernel, selections, tiles

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def pair() -> Pair:
    """Two sets, float32 (300, 24) and (260, 24)."""
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(300, 24)), 1.1 * rng.normal(size=(260, 24)) + 0.2
    fake32 = fake.astype(np.float32)
    return real.astype(np.float32), fake32


def by_definition(real: np.ndarray, fake: np.ndarray, degree: int = 3, coef0: float = 1.0) -> float:
    """The definition in float64, whole kernel matrices."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + coef0) ** degree

    n, m = len(real), len(fake)
    within = (k(real, real).sum() - np.trace(k(real, real))) / (n * (n - 1))
    within += (k(fake, fake).sum() - np.trace(k(fake, fake))) / (m * (m - 1))
    return float(within - 2 * k(real, fake).mean())


def test_two_points_a_side_by_hand() -> None:
    # K is (xy + 1)^3: 1 within zeros, 8 within ones, 1 across; 1 + 8 - 2.
    assert kernel.kernel_distance(np.zeros((2, 1)), np.ones((2, 1))).value == pytest.approx(7.0)
    # x in {1, -1}, y in {0, 2}: K(1,-1) = 0; K(0,2) = 1; across 1, 27, 1, -1 -> mean 7; 0 + 1 - 14.
    value = kernel.kernel_distance(np.array([[1.0], [-1.0]]), np.array([[0.0], [2.0]])).value
    assert value == pytest.approx(-13.0)


def test_degree_one_is_the_unbiased_squared_mean_difference(pair: Pair) -> None:
    real, fake = (side.astype(np.float64) for side in pair)
    linear = kernel.Polynomial(degree=1, gamma=1.0, coef0=0.0)
    step = real.mean(0) - fake.mean(0)
    unbiased = step @ step - real.var(0, ddof=1).sum() / len(real) - fake.var(0, ddof=1).sum() / len(fake)
    found = kernel.kernel_distance(real, fake, kernel=linear, precision="float64").value
    assert found == pytest.approx(unbiased, rel=1e-10)


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_equal_to_the_definition_whatever_the_tiles(pair: Pair, block: int) -> None:
    exact = by_definition(*pair)
    assert kernel.compare(*pair, block=block).whole.value == pytest.approx(exact, rel=1e-5)
    doubled = kernel.compare(*pair, block=block, precision="float64")
    assert doubled.whole.value == pytest.approx(exact, rel=1e-12)


def test_equal_to_torchmetrics_1_9(pair: Pair) -> None:
    found = kernel.kernel_distance(pair[0][:260], pair[1], precision="float64").value
    assert found == pytest.approx(0.17000609178774617, rel=1e-9)


def test_subsets_equal_to_torch_fidelity_0_4(pair: Pair) -> None:
    found = kernel.subset_distances(*pair, subsets=20, subset_size=100, seed=2020)
    assert found.mean() == pytest.approx(0.17620452642440795, rel=1e-6)
    assert found.std() == pytest.approx(0.04217676022659745, rel=1e-5)
    draws = selections.subset_rows(300, 260, subsets=20, subset_size=100, seed=2020)
    assert kernel.compare(*pair, subsets=draws).subsets == pytest.approx(found, rel=1e-5)


def test_symmetry_permutation_and_rotation(pair: Pair) -> None:
    real, fake = pair
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)
    value, error = kernel.kernel_distance(real, fake)
    swapped = kernel.kernel_distance(fake, real)
    assert swapped.value == pytest.approx(value, rel=1e-5)
    assert swapped.standard_error == pytest.approx(error, rel=1e-5)
    assert kernel.kernel_distance(real[rng.permutation(300)], fake).value == pytest.approx(value, rel=1e-5)
    assert kernel.kernel_distance(real @ turn, fake @ turn).value == pytest.approx(value, rel=1e-4)


def test_columns_are_the_selections_alone(pair: Pair) -> None:
    real, fake = pair
    rng = np.random.default_rng(2)
    left, right = rng.random((300, 5)) < 0.4, rng.random((260, 5)) < 0.5
    found = kernel.compare(real, fake, (left, right), block=64).selections
    for b, estimate in enumerate(found):
        alone = kernel.kernel_distance(real[left[:, b]], fake[right[:, b]])
        assert estimate.value == pytest.approx(alone.value, rel=1e-4, abs=1e-6)
        assert estimate.standard_error == pytest.approx(alone.standard_error, rel=1e-4)


def test_fast_mode_is_far_below_the_standard_error(pair: Pair) -> None:
    exact = kernel.kernel_distance(*pair)
    fast = kernel.kernel_distance(*pair, precision="bfloat16")
    assert abs(fast.value - exact.value) < 0.1 * exact.standard_error


def test_precision_of_the_process_is_left_as_it_was(pair: Pair) -> None:
    before = torch.get_float32_matmul_precision()
    kernel.kernel_distance(*pair, precision="bfloat16")
    assert torch.get_float32_matmul_precision() == before


def test_unbiased_and_error_of_the_right_size() -> None:
    rng = np.random.default_rng(3)
    draws = [kernel.kernel_distance(rng.normal(size=(60, 4)), rng.normal(size=(40, 4))) for _ in range(300)]
    values, errors = np.array(draws).T
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)
    assert (values < 0).any()
    assert 0.9 < errors.mean() / values.std() < 2.0


def jackknife(real: np.ndarray, fake: np.ndarray, patients: np.ndarray) -> float:
    """Standard error by leaving rows out for real."""
    total = 0.0
    for values in (
        [by_definition(real[patients != p], fake) for p in np.unique(patients)],
        [by_definition(real, np.delete(fake, row, axis=0)) for row in range(len(fake))],
    ):
        count = len(values)
        total += (count - 1) / count * float(np.square(np.array(values) - np.mean(values)).sum())
    return float(np.sqrt(total))


@pytest.mark.parametrize("per_patient", [1, 3])
def test_error_is_the_jackknife_by_brute_force(per_patient: int) -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(24, 3)), rng.normal(size=(15, 3)) + 0.5
    patients = np.arange(24) // per_patient
    found = kernel.kernel_distance(real, fake, precision="float64", real_clusters=patients).standard_error
    assert found == pytest.approx(jackknife(real, fake, patients), rel=1e-9)


def test_sums_inside_clusters_of_all_sizes() -> None:
    rng = np.random.default_rng(9)
    rows, ids = rng.normal(size=(700, 4)), np.r_[np.zeros(300, int), np.repeat(np.arange(1, 201), 2)]
    order, columns = rng.permutation(700), rng.random((700, 2)) < 0.7
    shape = kernel.Polynomial().for_width(4)
    found = tiles.own_sums(rows[order], ids[order], columns[order], shape, precision="float64")
    whole = (rows @ rows.T / 4 + 1) ** 3 * (ids[:, None] == ids) * ~np.eye(700, dtype=bool)
    for column, chosen in enumerate(columns.T):
        expected = np.bincount(ids, (whole * chosen).sum(axis=1) * chosen)
        assert found[:, column] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_biased_pairs_each_row_with_itself(pair: Pair) -> None:
    real, fake = (side.astype(np.float64) for side in pair)
    left = np.arange(300) < 120
    found = kernel.compare(real, fake, (left[:, None], np.ones((260, 1), bool)), precision="float64", biased=True)

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a @ b.T / 24 + 1) ** 3).mean())

    for side, estimate in ((real, found.whole), (real[left], found.selections[0])):
        expected = mean(side, side) + mean(fake, fake) - 2 * mean(side, fake)
        assert estimate.value == pytest.approx(expected, rel=1e-10)
        assert estimate.value > 0
    plain = kernel.compare(real, fake, precision="float64").whole
    assert found.whole.standard_error == pytest.approx(plain.standard_error)


def test_patients_widen_the_error() -> None:
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(30), 6)
    real = (rng.normal(size=(30, 8))[patients] + 0.1 * rng.normal(size=(180, 8))).astype(np.float32)
    fake = rng.normal(size=(150, 8)).astype(np.float32) + 0.5
    clustered = kernel.kernel_distance(real, fake, real_clusters=[f"p{p}" for p in patients]).standard_error
    assert clustered > 1.3 * kernel.kernel_distance(real, fake).standard_error


def test_constant_and_identical_sets() -> None:
    constant = np.full((10, 4), 3.0)
    assert kernel.kernel_distance(constant, constant) == kernel.Estimate(0.0, 0.0)


def test_huge_features_need_float64_and_get_it() -> None:
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(50, 8)) + 100, rng.normal(size=(40, 8)) + 100.5
    found = kernel.kernel_distance(real, fake, precision="float64").value
    assert found == pytest.approx(by_definition(real, fake), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"subset_size": 261},
            "subset_size must be at least 2 and at most min.* got 261 for 300 real and 260 fake; pass a",
        ),
        ({"subset_size": 1}, "subset_size must be at least 2"),
        ({"subsets": 0, "subset_size": 9}, "subsets must be at least 1, got 0"),
    ],
)
def test_impossible_subsets_are_refused(pair: Pair, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel.subset_distances(*pair, **options)


def test_what_cannot_be_measured_is_refused(pair: Pair) -> None:
    real, fake = pair
    with pytest.raises(ValueError, match="fake: expected at least 2 rows, got 1"):
        kernel.kernel_distance(real, fake[:1])
    with pytest.raises(ValueError, match="one width, got 24 for real and 23 for fake"):
        kernel.kernel_distance(real, fake[:, :23])
    with pytest.raises(ValueError, match="real_clusters: expected 300 ids, one per row, got 4"):
        kernel.kernel_distance(real, fake, real_clusters=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="expected a polynomial kernel with gamma, got None; call for_width"):
        kernel.Polynomial().diagonal(torch.zeros(2, 3))
    lonely = np.zeros((300, 2), bool)
    lonely[:5, 0] = lonely[0, 1] = True
    with pytest.raises(
        ValueError, match="real_columns: expected at least 2 rows in every selection, got 1 in column 1"
    ):
        kernel.compare(real, fake, (lonely, np.ones((260, 2), bool)))
    with pytest.raises(
        ValueError, match=r"fake_columns: expected bool of shape \(260, B\), got int64 of shape \(260, 1\)"
    ):
        kernel.compare(real, fake, (np.ones((300, 1), bool), np.ones((260, 1), np.int64)))
    with pytest.raises(ValueError, match="expected as many real as fake columns, got 2 and 1"):
        kernel.compare(real, fake, (np.ones((300, 2), bool), np.ones((260, 1), bool)))


class Elsewhere(TorchFunctionMode):
    """Lets `meta` tensors, which have no memory, stand for an accelerator: sums may come back, features may not."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.returned = limit, list[tuple[int, ...]]()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("cpu", "numpy", "item", "tolist", "__float__", "__array__") and args[0].device.type == "meta":
            shape = tuple(args[0].shape)
            assert args[0].numel() < self.limit, f"{name} of {shape}"
            self.returned.append(shape)
            return 1.0 if name in ("item", "__float__") else torch.ones(shape, dtype=args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("distance", [kernel.compare, cmmd.compare])
def test_features_on_a_device_are_never_copied_to_the_host(distance: Any) -> None:
    real, fake = torch.empty(300, 24, device="meta"), torch.empty(260, 24, device="meta")
    columns = np.arange(300)[:, None] < [50, 90], np.arange(260)[:, None] < [70, 99]
    with Elsewhere(260 * 24) as device:
        found = distance(
            real, fake, columns, permutations=5, clusters=(np.arange(300) // 2, None), subsets=[(np.arange(9),) * 2]
        )
    assert len(found.selections) == 2
    assert {(300, 3), (260, 3), (6,)} <= set(device.returned)
    with Elsewhere(260 * 24):
        assert np.isfinite(cmmd.cmmd_series(real, fake).error_bound)
    with pytest.raises(AssertionError, match="cpu of"), Elsewhere(260 * 24):
        real.cpu()


@pytest.mark.slow
def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(8)
    linear = kernel.Polynomial(degree=1, gamma=1.0, coef0=0.0)
    hits = 0
    for _ in range(400):
        real, fake = rng.normal(size=(80, 5)), rng.normal(size=(60, 5)) + 0.3  # truth 5 * 0.09
        value, error = kernel.kernel_distance(real, fake, kernel=linear, precision="float64")
        hits += abs(value - 0.45) < 1.96 * error
    assert 0.92 <= hits / 400 <= 0.99
