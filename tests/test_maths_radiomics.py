"""Fréchet radiomics distance: by hand, against SciPy's matrix root, both logarithms, columns without scale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthchex.maths import radiomics


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray]:
    """Real (200, 9) and synthetic (150, 9) of very different scales."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** np.arange(-4, 5)
    return rng.normal(size=(200, 9)) * scale + scale, (1.3 * rng.normal(size=(150, 9)) + 0.4) * scale + scale


def by_definition(real: np.ndarray, fake: np.ndarray) -> float:
    """d^2 with a matrix square root."""
    from scipy.linalg import sqrtm

    a, b = ((side - real.mean(0)) / real.std(0) for side in (real, fake))
    s, t = np.cov(a.T), np.cov(b.T)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real))


def test_by_hand() -> None:
    # Means 1 and 4, real deviation 1 (divisor N), same covariance after scaling: d = 3.
    found = radiomics.radiomics_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    assert found.squared_distance == pytest.approx(9)
    assert (found.log_d, found.log_d2) == pytest.approx((math.log(3), math.log(9)))


def test_equal_to_the_definition(tables: tuple[np.ndarray, np.ndarray]) -> None:
    found = radiomics.radiomics_distance(*tables)
    assert found.squared_distance == pytest.approx(by_definition(*tables), rel=1e-9)
    assert found.log_d2 == pytest.approx(2 * found.log_d)
    assert (found.features, found.dropped) == (9, ())


def test_invariances(tables: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = tables
    rng = np.random.default_rng(1)
    value = radiomics.radiomics_distance(real, fake).log_d
    order = rng.permutation(9)
    assert radiomics.radiomics_distance(real[:, order], fake[:, order]).log_d == pytest.approx(value, rel=1e-9)
    assert radiomics.radiomics_distance(real[rng.permutation(200)], fake).log_d == pytest.approx(value, rel=1e-9)
    units = rng.uniform(0.1, 100, 9)  # other units of a feature change nothing
    assert radiomics.radiomics_distance(real * units + 7, fake * units + 7).log_d == pytest.approx(value, rel=1e-6)


def test_equal_tables_and_few_rows(tables: tuple[np.ndarray, np.ndarray]) -> None:
    same = radiomics.radiomics_distance(tables[0], tables[0])
    assert same.squared_distance == pytest.approx(0, abs=1e-9)
    assert same.log_d < -8
    few = radiomics.radiomics_distance(tables[0][:4], tables[1][:3])
    assert few.squared_distance == pytest.approx(by_definition(tables[0][:4], tables[1][:3]), rel=1e-4)


def test_constant_columns_are_left_out_and_named(tables: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = (np.insert(side, [2, 5], [[1e8, 0.0]], axis=1) for side in tables)
    fake[:, 2] += np.arange(150)
    found = radiomics.radiomics_distance(real, fake)
    assert found.dropped == (2, 6)
    assert found.log_d == pytest.approx(radiomics.radiomics_distance(*tables).log_d, rel=1e-12)
    with pytest.raises(ValueError, match="real: expected features that vary, got 3 constant columns; pass more images"):
        radiomics.radiomics_distance(np.ones((5, 3)), np.zeros((5, 3)))


def test_what_cannot_be_right_is_refused(tables: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = tables
    with pytest.raises(ValueError, match="one width, got 9 for real and 8 for fake"):
        radiomics.radiomics_distance(real, fake[:, :8])
    with pytest.raises(ValueError, match="fake: expected at least 2 rows, got 1"):
        radiomics.radiomics_distance(real, fake[:1])
    with pytest.raises(ValueError, match="real: expected finite features, got NaN or infinity in row 0"):
        radiomics.radiomics_distance(real * np.nan, fake)
