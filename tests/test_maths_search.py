"""Nearest rows: by hand, against brute force and scikit-learn, copies, ties, large norms, owners, files, formats."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthchex.maths import distances, search

INT8 = distances.fastest(torch.zeros(4, 64)) == "int8"
FORMATS = ["float32", pytest.param("int8", marks=pytest.mark.skipif(not INT8, reason="no exact int8 products here"))]


def by_force(queries: np.ndarray, references: np.ndarray, k: int, own: np.ndarray | None = None) -> search.Nearest:
    """Every pair by float64 differences; equal distances by row."""
    apart = np.array([np.linalg.norm(references.astype(float) - row.astype(float), axis=1) for row in queries])
    if own is not None:
        apart[own] = np.inf
    apart = np.concatenate([apart, np.full((len(queries), k), np.inf)], axis=1)
    rows = np.argsort(apart, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(apart, rows, 1)
    return search.Nearest(found, np.where(np.isinf(found), -1, rows))


def same(found: search.Nearest, expected: search.Nearest) -> None:
    """Equal rows, and distances to the last digits."""
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 60), st.integers(1, 70)),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    sizes=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    seed=st.integers(0, 2**32 - 1),
    whole=st.booleans(),
    owned=st.booleans(),
)
def test_nearest_rows_are_those_of_brute_force(
    counts: tuple[int, int], shape: tuple[int, int], sizes: tuple[int, int], seed: int, whole: bool, owned: bool
) -> None:
    rng = np.random.default_rng(seed)
    k, width = shape
    one, two = (rng.normal(1e3, 1, (count, width)).astype(np.float32) for count in counts)
    if whole:  # whole numbers in few columns: most distances are ties
        one, two = np.round(one), np.round(two)
    owners = rng.integers(0, 4, counts[0]), rng.integers(0, 4, counts[1])
    found = search.nearest(one, two, k, owners=owners if owned else None, span=sizes[0], block=sizes[1])
    same(found, by_force(one, two, k, owners[0][:, None] == owners[1] if owned else None))


@pytest.mark.parametrize("low", FORMATS)
def test_tiles_and_formats_change_nothing(low: Any) -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(20, 40))
    one, two = (centres[rng.integers(0, 20, n)] + 0.3 * rng.normal(size=(n, 40)) for n in (900, 2500))
    one[:50] = two[rng.integers(0, 2500, 50)]  # copies
    two[100:400] = two[50]  # as many films of one patient as a tile does not settle by itself
    one, two = one.astype(np.float32), two.astype(np.float32)
    owners = rng.integers(0, 30, 900), rng.integers(0, 30, 2500)
    same(search.nearest(one, two, 3, low=low, block=1000), by_force(one, two, 3))
    own = owners[0][:, None] == owners[1]
    same(search.nearest(one, two, 3, low=low, owners=owners, span=400), by_force(one, two, 3, own))


def test_a_copy_has_distance_zero_however_long_the_rows() -> None:
    rng = np.random.default_rng(0)
    two = (1e4 + rng.normal(size=(300, 64))).astype(np.float32)
    one = two[[7, 250]].copy()
    near = two[[9]] + np.float32(2e-3)
    found = search.nearest(np.concatenate([one, near]), two, 2)
    assert found.rows[:, 0].tolist() == [7, 250, 9]
    assert found.distances[:2, 0].tolist() == [0, 0]
    # By products in float32 this would be lost in |a|^2 + |b|^2 of 1e10.
    assert found.distances[2, 0] == pytest.approx(np.linalg.norm(near[0].astype(float) - two[9]), rel=1e-12)
    assert found.distances[:2, 1].min() > 5


def test_more_candidates_than_are_held_are_settled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    one, two = (rng.integers(0, 3, (n, 4)).astype(np.float32) for n in (1700, 300))
    whole = search.nearest(one, two, 4)
    monkeypatch.setattr(search, "OPEN", 100)
    same(search.nearest(one, two, 4), whole)
    same(whole, by_force(one, two, 4))


def test_equal_to_scikit_learn() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=(300, 50)), rng.normal(size=(1200, 50))
    apart, rows = neighbors.NearestNeighbors(n_neighbors=3, algorithm="brute").fit(two).kneighbors(one)
    found = search.nearest(one, two, 3)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, apart, rtol=1e-9)


def test_turning_moving_and_scaling_change_no_order() -> None:
    rng = np.random.default_rng(6)
    one, two = rng.normal(size=(80, 12)), rng.normal(size=(200, 12))
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    found, turned = search.nearest(one, two), search.nearest(3 * one @ turn + 7, 3 * two @ turn + 7)
    np.testing.assert_array_equal(turned.rows, found.rows)
    np.testing.assert_allclose(turned.distances, 3 * found.distances, rtol=1e-9)
    order = rng.permutation(200)
    np.testing.assert_array_equal(order[search.nearest(one, two[order]).rows], found.rows)


def test_a_set_beside_itself_leaves_out_each_row_itself() -> None:
    rows = np.array([[0.0], [1.0], [3.0], [3.0]])
    found = search.nearest(rows, rows, 1, owners=(range(4), range(4)))
    assert found.rows[:, 0].tolist() == [1, 0, 3, 2]
    assert found.distances[:, 0].tolist() == [1, 1, 0, 0]
    patients = ["a", "a", "b", "b"]
    assert search.nearest(rows, rows, 1, owners=(patients, patients)).rows[:, 0].tolist() == [2, 2, 1, 1]


def test_where_there_are_fewer_than_k_the_rest_says_so() -> None:
    found = search.nearest(np.zeros((2, 3)), np.ones((3, 3)), 2, owners=([1, 2], [1, 1, 2]))
    assert found.rows.tolist() == [[2, -1], [0, 1]]
    assert np.isinf(found.distances[0, 1])
    assert search.nearest(np.zeros((1, 3)), np.ones((2, 3)), 4).rows.tolist() == [[0, 1, -1, -1]]


def test_files_are_read_in_blocks_and_memory_stays_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    two = rng.normal(size=(40_000, 64)).astype(np.float16)
    np.save(tmp_path / "two.npy", two)
    one, mapped = two[::800].astype(np.float32), np.load(tmp_path / "two.npy", mmap_mode="r")
    search.nearest(one, mapped[:100])  # imports are not counted
    tracemalloc.start()
    found = search.nearest(one, mapped, 2, block=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.rows[:, 0].tolist() == list(range(0, 40_000, 800))
    assert peak < two.size  # a quarter of what all of them would take in float32


def test_tensors_give_what_arrays_give() -> None:
    rng = np.random.default_rng(9)
    one, two = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=(40, 8)).astype(np.float32)
    tensors = search.nearest(torch.from_numpy(one), torch.from_numpy(two).half().float())
    same(tensors, search.nearest(one, two.astype(np.float16)))
    kept = torch.from_numpy(two).clone()
    search.nearest(kept, kept)
    assert torch.equal(kept, torch.from_numpy(two))  # nothing is changed in place


def test_values_near_the_end_of_float32_are_measured() -> None:
    two = np.array([[3e38, 0], [-3e38, 0]], np.float32)
    found = search.nearest(np.array([[3e38, 1e38]], np.float32), two, 2)
    assert found.rows.tolist() == [[0, 1]]
    assert found.distances[0] == pytest.approx([1e38, np.hypot(6e38, 1e38)], rel=1e-6)
    assert search.nearest(np.zeros((1, 2)), np.zeros((3, 2)), 2).distances.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k, span and block must be at least 1, got 0, "),
        ({"references": np.zeros((4, 2))}, "one width, got 3 for queries and 2 for references; encode both with"),
        ({"queries": np.zeros((0, 3))}, "queries: expected at least 1 rows, got 0"),
        (
            {"queries": np.array([[0, 1, 1], [0, np.nan, 1]])},
            r"queries\[0:2\]: expected finite features, got NaN or infinity",
        ),
        ({"references": np.zeros((4, 3), int)}, "references: expected floating point features, got int64"),
        ({"owners": ([1], [1, 2])}, "owners: expected 2 ids for queries and 5 for references, got 1 and 2; pass one"),
    ],
)
def test_what_cannot_be_searched_is_refused(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"queries": np.zeros((2, 3)), "references": np.zeros((5, 3)), **change}
    with pytest.raises(ValueError, match=message):
        search.nearest(**asked)
