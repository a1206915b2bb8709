"""Fréchet distance: by hand, against a matrix square root, invariances, degenerate sets, streams, extrapolation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from synthchex.maths import frechet, intervals, moments

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def pair() -> Pair:
    """Two correlated sets, float32 (600, 24) and (450, 24), with a known shift."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(24, 24))
    real, fake = rng.normal(size=(600, 24)) @ mix, 1.2 * rng.normal(size=(450, 24)) @ mix + 0.3
    return real.astype(np.float32), fake.astype(np.float32)


def by_square_root(real: np.ndarray, fake: np.ndarray) -> float:
    """The textbook formula in float64."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    first, second = np.cov(real.T), np.cov(fake.T)
    step = real.mean(0) - fake.mean(0)
    root = scipy.linalg.sqrtm(first @ second)
    return float(step @ step + np.trace(first) + np.trace(second) - 2 * np.trace(root).real)


def by_eigenvalues(real: np.ndarray, fake: np.ndarray) -> float:
    """A singular-safe oracle: singular values of the product of symmetric square roots."""
    roots = []
    for rows in (real, fake):
        values, vectors = np.linalg.eigh(np.cov(rows.astype(np.float64).T))
        roots.append(vectors * np.sqrt(values.clip(0)) @ vectors.T)
    step = real.astype(np.float64).mean(0) - fake.astype(np.float64).mean(0)
    spread = sum(float((root**2).sum()) for root in roots)
    return float(step @ step) + spread - 2 * float(np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum())


def test_one_dimension_by_hand() -> None:
    # Means 1 and 4, both variances 2: 3^2 + (sqrt 2 - sqrt 2)^2.
    assert frechet.frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])) == pytest.approx(9.0, abs=1e-12)
    # Variances 2 and 18, means 1 and 3: 2^2 + (sqrt 18 - sqrt 2)^2 = 4 + 8.
    assert frechet.frechet_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [6.0]])) == pytest.approx(
        12.0, abs=1e-12
    )


def test_equal_to_the_matrix_square_root(pair: Pair) -> None:
    assert frechet.frechet_distance(*pair) == pytest.approx(by_square_root(*pair), rel=1e-9)


def test_equal_to_torch_fidelity_0_4() -> None:
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(300, 24)), 1.1 * rng.normal(size=(260, 24)) + 0.2
    found = frechet.frechet_distance(real.astype(np.float32), fake.astype(np.float32))
    assert found == pytest.approx(2.969965895891548, rel=1e-9)


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e12])
def test_commuting_covariances_have_a_closed_form(condition: float) -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    first, second = np.geomspace(1, 1 / condition, 40), np.geomspace(1 / condition, 1, 40)[rng.permutation(40)]
    known = [
        moments.Moments(1000, np.full(40, offset), (turn * values) @ turn.T * 999)
        for offset, values in ((0.0, first), (0.1, second))
    ]
    expected = 40 * 0.01 + np.square(np.sqrt(first) - np.sqrt(second)).sum()
    assert frechet.frechet_distance(*known) == pytest.approx(expected, rel=1e-8)


def test_identity_symmetry_and_invariances(pair: Pair) -> None:
    real, fake = (side.astype(np.float64) for side in pair)
    rng = np.random.default_rng(2)
    value = frechet.frechet_distance(real, fake)
    turn = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    assert frechet.frechet_distance(real, real) == pytest.approx(0, abs=1e-10)
    assert frechet.frechet_distance(fake, real) == pytest.approx(value, rel=1e-11)
    assert frechet.frechet_distance(real[rng.permutation(600)], fake) == pytest.approx(value, rel=1e-11)
    assert frechet.frechet_distance(real @ turn, fake @ turn) == pytest.approx(value, rel=1e-10)
    assert frechet.frechet_distance(real + 1e4, fake + 1e4) == pytest.approx(value, rel=1e-8)
    assert frechet.frechet_distance(3 * real, 3 * fake) == pytest.approx(9 * value, rel=1e-11)


def test_large_offset_with_small_spread_keeps_its_digits() -> None:
    # Float32 means and sums of squares without a shift both fail here.
    rng = np.random.default_rng(3)
    real, fake = (0.1 * rng.normal(size=(2000, 8)) + 1e4 for _ in range(2))
    real32, fake32 = real.astype(np.float32), fake.astype(np.float32)
    expected = by_eigenvalues(real32.astype(np.float64) - 1e4, fake32.astype(np.float64) - 1e4)
    assert frechet.frechet_distance(real32, fake32) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("n", "m"), [(10, 8), (2, 2), (3, 30), (500, 12), (12, 500)])
def test_fewer_rows_than_features_is_exact(n: int, m: int) -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(n, 32)), rng.normal(size=(m, 32)) + 0.5
    assert frechet.frechet_distance(real, fake) == pytest.approx(by_eigenvalues(real, fake), rel=1e-7)


def test_small_sets_agree_with_their_moments() -> None:
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(20, 40)), rng.normal(size=(15, 40))
    from_moments = frechet.frechet_distance(moments.moments(real), moments.moments(fake))
    assert frechet.frechet_distance(real, fake) == pytest.approx(from_moments, rel=1e-9)


def test_constant_features_and_dead_channels() -> None:
    constant = np.full((30, 5), 2.0, np.float32)
    assert frechet.frechet_distance(constant, constant) == 0
    assert frechet.frechet_distance(constant, constant + 1) == pytest.approx(5.0)
    rng = np.random.default_rng(6)
    dead = rng.normal(size=(200, 6))
    dead[:, 3] = 0
    assert frechet.frechet_distance(dead, dead[::-1] * 2) == pytest.approx(by_eigenvalues(dead, dead * 2), rel=1e-9)


def test_half_precision_is_taken_and_integers_are_not(pair: Pair) -> None:
    import torch

    real, fake = pair
    assert frechet.frechet_distance(real.astype(np.float16), fake) == pytest.approx(
        frechet.frechet_distance(*pair), rel=0.01
    )
    tensors = torch.from_numpy(real).bfloat16(), torch.from_numpy(fake)
    assert frechet.frechet_distance(*tensors) == pytest.approx(frechet.frechet_distance(*pair), rel=0.05)
    with pytest.raises(ValueError, match="expected floating point features, got uint8; encode the images first"):
        frechet.frechet_distance(real.astype(np.uint8), fake)


def test_float32_products_are_close_and_named(pair: Pair) -> None:
    exact = frechet.frechet_distance(*pair)
    assert frechet.frechet_distance(*pair, precision="float32") == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "real: expected at least 2 rows, got 1; pass more images"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "expected features of one width, got 4 for real and 3 for fake"),
        (np.zeros((5, 4, 1)), np.zeros((5, 4)), r"real: expected features of shape \(N, D\), got shape \(5, 4, 1\)"),
        (
            np.zeros((5, 4)),
            np.array([[0, 1, np.nan, 3.0]] * 5),
            "fake: expected finite features, got NaN or infinity in row 0",
        ),
        (np.array([[0, 1, np.inf, 3.0]] * 5), np.zeros((5, 4)), "real: expected finite features"),
    ],
)
def test_what_cannot_be_measured_is_refused(real: np.ndarray, fake: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet.frechet_distance(real, fake)


@pytest.mark.parametrize("batch", [1, 7, 100, 600])
def test_stream_of_any_batches_gives_the_same_moments(pair: Pair, batch: int) -> None:
    real, fake = pair
    stream = moments.MomentStream(block=100)
    for start in range(0, len(real), batch):
        stream.add(real[start : start + batch])
    streamed, whole = stream.moments(), moments.moments(real)
    np.testing.assert_allclose(streamed.scatter, whole.scatter, rtol=1e-10, atol=1e-9)
    assert frechet.frechet_distance(streamed, moments.moments(fake)) == pytest.approx(
        frechet.frechet_distance(real, fake), rel=1e-10
    )


def test_a_stream_keeps_what_a_reused_buffer_had(pair: Pair) -> None:
    buffer, stream = np.empty((50, 24), np.float32), moments.MomentStream(block=120)
    for start in range(0, 600, 50):
        buffer[:] = pair[0][start : start + 50]
        stream.add(buffer)
    np.testing.assert_allclose(stream.moments().scatter, moments.moments(pair[0]).scatter, rtol=1e-10, atol=1e-9)


def test_merge_of_sorted_shards_and_its_inverse(pair: Pair) -> None:
    real = pair[0][np.argsort(pair[0][:, 0])]
    parts = [moments.moments(part) for part in np.array_split(real, 8)]
    whole = moments.moments(real)
    merged = moments.merge(parts)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-10, atol=1e-9)
    rest = moments.without(whole, parts[0])
    np.testing.assert_allclose(rest.scatter, moments.merge(parts[1:]).scatter, rtol=1e-9, atol=1e-8)
    assert rest.count == 525


def test_stream_errors() -> None:
    stream = moments.MomentStream()
    with pytest.raises(ValueError, match="expected at least 1 row, got 0; add features"):
        stream.moments()
    stream.add(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="expected features of width 4, got 5"):
        stream.add(np.zeros((3, 5)))


def test_factored_reference_gives_the_same(pair: Pair) -> None:
    known = frechet.reference(pair[0])
    assert frechet.frechet_distance(known, pair[1]) == pytest.approx(frechet.frechet_distance(*pair), rel=1e-12)


def test_infinity_removes_the_bias_of_both_sides() -> None:
    rng = np.random.default_rng(8)
    real, fake = rng.normal(size=(1500, 30)), rng.normal(size=(1500, 30)) + 0.1  # true distance 0.3
    biased = frechet.frechet_distance(real, fake)
    found = frechet.fid_infinity(real, fake, seed=1)
    assert biased > 0.5
    assert found.value == pytest.approx(0.3, abs=0.12)
    assert found.slope > 0
    assert frechet.fid_infinity(real, fake, seed=1).value == found.value
    assert frechet.fid_infinity(frechet.reference(real), fake, seed=1).value == pytest.approx(
        (biased + 0.3) / 2, abs=0.12
    )


def test_infinity_is_refused_for_small_sets() -> None:
    rng = np.random.default_rng(9)
    with pytest.raises(ValueError, match=r"fake: expected at least 2.5 rows per feature \(75 for width 30\).* got 74"):
        frechet.fid_infinity(rng.normal(size=(200, 30)), rng.normal(size=(74, 30)))


@pytest.mark.parametrize("width", [6, 80])
def test_interval_is_seeded_and_holds_the_value(width: int) -> None:
    rng = np.random.default_rng(10)
    real, fake = rng.normal(size=(60, width)), rng.normal(size=(50, width)) + 0.4
    value = frechet.frechet_distance(real, fake)
    found = intervals.of_frechet(real, fake, seed=3)
    assert found.low < value < found.high
    assert found == intervals.of_frechet(real, fake, value=value, seed=3)
    wider = intervals.of_frechet(real, fake, seed=3, confidence=0.99)
    assert wider.high > found.high


def test_interval_leaves_whole_patients_out() -> None:
    rng = np.random.default_rng(11)
    patients = np.repeat(np.arange(40), 5)
    real = rng.normal(size=(40, 4))[patients] + 0.1 * rng.normal(size=(200, 4))
    fake = rng.normal(size=(200, 4)) + 1
    clustered = intervals.of_frechet(real, fake, real_clusters=patients).standard_error
    assert clustered > 1.3 * intervals.of_frechet(real, fake).standard_error


def test_interval_needs_five_clusters() -> None:
    rows = np.random.default_rng(12).normal(size=(50, 3))
    with pytest.raises(ValueError, match="real: expected at least 5 clusters to leave out in turn, got 4"):
        intervals.of_frechet(rows, rows, real_clusters=np.arange(50) % 4)


@pytest.mark.slow
def test_interval_covers_the_expectation_at_this_size() -> None:
    rng = np.random.default_rng(13)

    def draw() -> Pair:
        return rng.normal(size=(300, 16)), rng.normal(size=(300, 16)) * 1.1 + 0.15

    expectation = np.mean([frechet.frechet_distance(*draw()) for _ in range(2000)])
    found = [intervals.of_frechet(*draw(), seed=trial) for trial in range(400)]
    covered = np.mean([interval.low <= expectation <= interval.high for interval in found])
    assert 0.91 <= covered <= 0.985
