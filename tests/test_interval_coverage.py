"""Intervals of the metrics of one side, and of alignment and FRD, hold the expectation as often as they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from synthchex.maths import inception, intervals, radiomics, ssim, vendi
from synthchex.maths.intervals import Interval

PATIENTS, EACH = 60, 3
IDS = np.repeat(np.arange(PATIENTS), EACH)
Draw = Callable[[np.random.Generator], tuple[float, Interval]]


def rows(random: np.random.Generator, width: int) -> np.ndarray:
    """Features of 60 patients with three films each, which resemble one another."""
    scale = np.arange(1, width + 1) ** -0.5
    films = random.normal(size=(PATIENTS * EACH, width))
    return scale * (np.repeat(random.normal(size=(PATIENTS, width)), EACH, axis=0) + 0.5 * films)


def blocks(seed: int = 0, clusters: np.ndarray | None = IDS) -> np.ndarray:
    """Twenty groups of patients."""
    return intervals.assign_blocks(PATIENTS * EACH, clusters, blocks=20, seed=seed, name="rows")


def vendi_once(random: np.random.Generator, clusters: np.ndarray | None = IDS) -> tuple[float, Interval]:
    films = rows(random, 12) + 0.3
    value = vendi.vendi_score(films)
    return value, vendi.vendi_intervals(films, blocks(0, clusters), [value], confidence=0.9)[0]


def inception_once(random: np.random.Generator) -> tuple[float, Interval]:
    logits = rows(random, 12) @ (2 * np.random.default_rng(5).normal(size=(12, 10)))
    value = float(inception.inception_scores(logits, splits=1)[0])
    return value, inception.inception_interval(logits, blocks(), value=value, confidence=0.9)


def radiomics_once(random: np.random.Generator) -> tuple[float, Interval]:
    real, fake = rows(random, 8), 1.2 * rows(random, 8) + 0.2
    value = radiomics.radiomics_distance(real, fake).log_d
    return value, radiomics.radiomics_interval(real, fake, blocks(), blocks(1), value=value, confidence=0.9)


def alignment_once(random: np.random.Generator) -> tuple[float, Interval]:
    values = np.repeat(random.gamma(2, 1, PATIENTS), EACH) + 0.3 * random.normal(size=PATIENTS * EACH)
    return float(values.mean()), intervals.of_mean(values, clusters=IDS, confidence=0.9, seed=1)


def ms_ssim_once(random: np.random.Generator, clusters: np.ndarray | None = IDS) -> tuple[float, Interval]:
    places = np.repeat(random.normal(size=PATIENTS), EACH) + 0.3 * random.normal(size=PATIENTS * EACH)
    pairs = ssim.draw_pairs(len(places), 800, random)
    found = ssim.mean_of_pairs(np.exp(-np.square(places[pairs[:, 0]] - places[pairs[:, 1]])), pairs, clusters)
    return found.value, intervals.normal(found.value, found.standard_error, confidence=0.9)


def share(draw: Draw, truth: float, times: int = 300) -> float:
    """How often the interval of a fresh sample holds the truth."""
    found = [draw(np.random.default_rng([1, time]))[1] for time in range(times)]
    return float(np.mean([ends.low <= truth <= ends.high for ends in found]))


@pytest.mark.slow
@pytest.mark.parametrize("draw", [vendi_once, inception_once, radiomics_once, alignment_once, ms_ssim_once])
def test_ninety_percent_intervals_hold_the_expectation(draw: Draw) -> None:
    truth = float(np.mean([draw(np.random.default_rng([2, time]))[0] for time in range(1000)]))
    assert 0.84 < share(draw, truth) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("draw", [vendi_once, ms_ssim_once])
def test_films_of_a_patient_taken_for_independent_make_intervals_too_short(draw: Callable[..., object]) -> None:
    alone: Draw = lambda random: draw(random, None)  # type: ignore[assignment, return-value]  # noqa: E731
    truth = float(np.mean([alone(np.random.default_rng([2, time]))[0] for time in range(1000)]))
    assert share(alone, truth) < 0.82
