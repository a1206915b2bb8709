"""What training on synthetic films is worth: splits by patient, scores by hand, and every defect of the benchmark."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthchex import phantom
from synthchex.data import images, records, shards, sources, splits
from synthchex.data.training import MultiHot
from synthchex.maths import ranking, reliability
from synthchex.models import encoders, store
from synthchex.report import canvas
from synthchex.utility import arms, classification, comparison, probe, published, runs, scoring, sets, subgroups
from synthchex.utility.request import Request

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LABELS = records.LABELS
WIDTH = 20
QUICK: dict[str, Any] = {"penalties": (0.1, 0.01), "resamples": 100, "seeds": 3}


def films(
    name: str, count: int, seed: int, *, noise: float = 1.0, per_patient: int = 1, turned: float = 0.0
) -> sets.Films:
    """Films whose features carry their labels, with `noise`; `turned` away from where others have them."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    values = (rng.random((count, 14)) < 0.35).astype(np.float32)
    weights, other = fixed.normal(size=(14, WIDTH)), fixed.normal(size=(14, WIDTH))
    features = values @ ((1 - turned) * weights + turned * other) + noise * rng.normal(size=(count, WIDTH))
    patients = [f"{name} {row // per_patient}" for row in range(count)]
    ids = [f"{name}-{row}" for row in range(count)]
    images = sources.ImageSet(name, ids, ids.__getitem__, None, values, None if name == "synthetic" else patients)
    groups = splits.keys(patients)
    labels = MultiHot(values, np.ones_like(values, bool))
    return sets.Films(name, images, features.astype(np.float32), ids, labels, groups)


@pytest.fixture(scope="module")
def trio() -> tuple[sets.Films, sets.Films, sets.Films]:
    """Real, synthetic (a little off) and test films."""
    synthetic = films("synthetic", 400, 2, noise=3.0, turned=0.5)
    return films("real", 300, 1, noise=3.0, per_patient=2), synthetic, films("test", 300, 3, noise=3.0, per_patient=3)


@pytest.fixture(scope="module")
def studied(trio: tuple[sets.Films, sets.Films, sets.Films]) -> dict[str, Any]:
    """All arms on them."""
    real, synthetic, test = trio
    return classification.study(real, synthetic, [test], Request(**QUICK, mix=(0.5, 1.0, 3.0)))


def macro(study: dict[str, Any], arm: str) -> dict[str, Any]:
    """Mean scores of one arm."""
    found: dict[str, Any] = next(row["macro"] for row in study["scores"] if row["arm"] == arm)
    return found


# Scores


def test_the_threshold_with_the_best_f1_by_hand() -> None:
    scores, truth = np.array([0.9, 0.2, 0.6, 0.4, 0.1]), np.array([True, False, True, True, False])
    assert scoring.tuned_threshold(scores, truth) == pytest.approx(0.3), "half-way between 0.4 and 0.2"
    assert np.isnan(scoring.tuned_threshold(scores, np.zeros(5, bool)))
    assert np.isnan(scoring.tuned_threshold(scores, np.ones(5, bool)))


def test_no_threshold_has_a_better_f1() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, truth = rng.integers(0, 10, 40) / 10, rng.random(40) < 0.4

        def f1(threshold: float, scores: np.ndarray = scores, truth: np.ndarray = truth) -> float:
            called = scores >= threshold
            return float(2 * (called & truth).sum() / (called.sum() + truth.sum()))

        best = max(f1(place) for place in np.unique(scores))
        assert f1(scoring.tuned_threshold(scores, truth)) == pytest.approx(best)


def test_every_score_by_hand() -> None:
    scores, truth = np.array([0.85, 0.75, 0.35, 0.15]), np.array([True, False, True, False])
    found = {name: float(v[0]) for name, v in scoring.weighted(scores, truth, 0.5, np.ones((1, 4))).items()}
    assert found["auroc"] == pytest.approx(0.75)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert (found["f1"], found["precision"], found["recall"]) == (0.5, 0.5, 0.5)
    assert found["brier"] == pytest.approx((0.15**2 + 0.75**2 + 0.65**2 + 0.15**2) / 4)
    assert found["ece"] == pytest.approx((0.15 + 0.75 + 0.65 + 0.15) / 4)


def test_scores_are_those_of_the_library_and_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.3
    scores = np.round(np.clip(truth * 0.2 + rng.random(200) * 0.8, 0, 1), 2)  # with ties
    found = {name: float(v[0]) for name, v in scoring.weighted(scores, truth, 0.4, np.ones((1, 200))).items()}
    assert found["auroc"] == pytest.approx(ranking.auroc(scores, truth, ~truth).value)
    assert found["average_precision"] == pytest.approx(ranking.average_precision(scores, truth, ~truth))
    assert found["ece"] == pytest.approx(reliability.curve(scores, truth).error)
    metrics = pytest.importorskip("sklearn.metrics")
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(truth, scores))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth, scores))
    called = scores >= 0.4
    for name in ("f1", "precision", "recall"):
        assert found[name] == pytest.approx(getattr(metrics, f"{name}_score")(truth, called))


def test_a_weight_of_two_is_a_film_twice() -> None:
    rng = np.random.default_rng(2)
    truth, scores, weights = rng.random(50) < 0.4, np.round(rng.random(50), 1), rng.integers(0, 3, 50)
    once = scoring.weighted(np.repeat(scores, weights), np.repeat(truth, weights), 0.5, np.ones((1, weights.sum())))
    twice = scoring.weighted(scores, truth, 0.5, weights[None].astype(float))
    for name in scoring.WEIGHTED:
        assert twice[name][0] == pytest.approx(once[name][0])


def test_draws_are_of_whole_patients() -> None:
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    drawn = scoring.resampled(groups, 200, 0)
    (weights,) = drawn.blocks()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (drawn.counts.sum(1) == 3).all()


def test_a_model_does_not_differ_from_itself_and_one_seed_says_nothing_of_training() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(200) < 0.4
    areas = [ranking.auroc(truth + rng.normal(size=200), truth, ~truth) for _ in range(3)]
    same = scoring.paired(areas, areas, clusters=80)
    assert (same.value, same.p_value) == (0, 1)
    worse = [ranking.auroc(rng.normal(size=200), truth, ~truth) for _ in range(3)]
    three, one = scoring.paired(areas, worse, clusters=80), scoring.paired(areas[:1], worse[:1], clusters=80)
    assert three.seed_error > 0
    assert np.isnan(one.seed_error)
    assert three.low > 0
    assert three.p_value < 0.01


def test_paired_differences_have_delongs_error() -> None:
    """Variance of the difference of two AUROCs from their covariance matrix, as DeLong et al. write it."""
    rng = np.random.default_rng(4)
    truth = rng.random(120) < 0.4
    first = truth + rng.normal(size=120)
    second = first + rng.normal(size=120)
    one, other = (ranking.auroc(scores, truth, ~truth) for scores in (first, second))

    def parts(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wins = (scores[truth][:, None] > scores[~truth]).astype(float)
        return wins.mean(1), wins.mean(0)

    (a, b), (c, d) = parts(first), parts(second)
    variance = np.var(a - c, ddof=1) / truth.sum() + np.var(b - d, ddof=1) / (~truth).sum()
    assert scoring.paired([one], [other], clusters=48).test_error == pytest.approx(np.sqrt(variance))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Difference of two models over seeds, at no difference: 95 % of the intervals hold 0."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(200):
        truth = rng.random(100) < 0.4
        shared = truth + rng.normal(size=100)
        sides = [[ranking.auroc(shared + rng.normal(size=100), truth, ~truth) for _ in range(3)] for _ in range(2)]
        found = scoring.paired(*sides, clusters=40)
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 200


# The probe


def test_the_probe_is_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(6)
    features, values = rng.normal(size=(150, 5)), (rng.random((150, 2)) < 0.4).astype(np.float32)
    mask = np.ones((150, 2), bool)
    mask[:50, 1] = False
    found = probe.fit(features, MultiHot(values, mask), 0.02)
    assert found.converged
    for column in (0, 1):
        rows = mask[:, column]
        model = linear.LogisticRegression(C=1 / (0.02 * rows.sum()), tol=1e-8, max_iter=1000)
        model.fit(features[rows], values[rows, column])
        np.testing.assert_allclose(found.weights[:-1, column], model.coef_[0], atol=2e-3)
        np.testing.assert_allclose(found.weights[-1, column], model.intercept_[0], atol=2e-3)


def test_what_is_not_known_of_a_film_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    features, values = rng.normal(size=(80, 4)), (rng.random((80, 3)) < 0.4).astype(np.float32)
    mask = rng.random((80, 3)) < 0.7
    found = probe.fit(features, MultiHot(values, mask), 0.1)
    moved = probe.fit(features, MultiHot(np.where(mask, values, 1 - values).astype(np.float32), mask), 0.1)
    np.testing.assert_allclose(found.weights, moved.weights)


def test_a_strong_prior_is_kept_and_a_weak_one_forgotten() -> None:
    rng = np.random.default_rng(8)
    features, values = rng.normal(size=(100, 3)), (rng.random((100, 1)) < 0.4).astype(np.float32)
    labels, centre = MultiHot(values, np.ones((100, 1), bool)), np.array([[2.0], [-1.0], [0.5], [0.0]])
    strong = probe.fit(features, labels, 1e5, centre=centre)
    np.testing.assert_allclose(strong.weights[:-1], centre[:-1], atol=1e-3)
    weak, plain = (probe.fit(features, labels, 1e-6, centre=start) for start in (centre, None))
    np.testing.assert_allclose(weak.weights, plain.weights, atol=1e-2)


def test_a_label_without_films_of_both_kinds_is_not_learnt() -> None:
    rng = np.random.default_rng(9)
    values = (rng.random((60, 2)) < 0.5).astype(np.float32)
    values[:, 1] = 1
    labels, features = MultiHot(values, np.ones((60, 2), bool)), rng.normal(size=(60, 3))
    assert probe.trainable(labels).tolist() == [True, False]
    found = probe.train(features, labels, (features, labels), (1.0, 0.1))
    assert (found(features)[:, 1] == 0.5).all()
    assert found.converged


# Sets, splits and arms


def test_defect_image_level_split() -> None:
    """Films of one patient are never on both sides: not of validation, not of the test set."""
    real = films("real", 400, 1, per_patient=4)
    train, test = sets.hold_out(real, 0.3)
    assert not set(train.images.patients or ()) & set(test.images.patients or ())
    assert 60 < len(test) < 180
    for seed in range(5):
        rows, held = arms.split(train.groups, 0.2, np.random.default_rng(seed))
        assert not set(train.groups[rows]) & set(train.groups[held])
        assert sorted([*rows, *held]) == list(range(len(train)))


def test_sets_that_share_patients_are_refused_with_their_number() -> None:
    one, other = films("real", 20, 1).images, films("test", 20, 2).images
    other = replace(other, patients=[*(one.patients or ())[:7], *(other.patients or ())[7:]])
    with pytest.raises(ValueError, match=r"got 7 in both real \(20\) and test \(20\)"):
        sets.check_patients([one, other], ["real", "test"])
    unknown = [replace(side, patients=["unknown, row 0"] * 20) for side in (one, other)]
    sets.check_patients(unknown, ["real", "test"])


def test_copies_of_test_films_are_not_trained_on(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    real, synthetic, test = trio
    copied = replace(real, hashes=[*test.hashes[:5], *real.hashes[5:]])
    study = classification.study(copied, synthetic, [test], Request(**QUICK | {"seeds": 1}, arms=("tstr",)))
    assert study["sets"][0]["n"] == 295
    assert any("5 films of real stand byte for byte in a test set" in text for text in study["warnings"])


def test_films_alike_are_one_patient_where_none_is_known() -> None:
    given = replace(films("real", 6, 1).images, patients=None)
    groups = sets._groups(given, ["a", "b", "a", "c", "b", "d"], synthetic=False)
    assert len(set(groups)) == 4
    assert groups[0] == groups[2]
    prompted = replace(given, prompts=["Edema.", "edema", "", "", "Fracture", "x"])
    groups = sets._groups(prompted, list("abcdef"), synthetic=True)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 5, "films without a prompt are not one group"


def test_arms_that_are_compared_have_one_size() -> None:
    made = arms.plan(arms.parts_of(np.arange(100), np.arange(50), Request(), 0), Request(mix=(0.25, 0.5, 2)))
    size = {arm.name: (len(arm.train.real), len(arm.train.synthetic)) for arm in made.arms}
    assert size == {"trtr": (80, 0), "trtr-matched": (40, 0), "tstr": (0, 40), "mix-0.25": (80, 20),
                    "mix-0.5": (80, 40), "pretrain": (80, 0)}  # fmt: skip
    assert {arm.name: arm.baseline for arm in made.arms}["tstr"] == "trtr-matched"
    assert made.left_out == {"mix-2": "needs 160 synthetic films, got 50; generate more, or lower --max-real"}
    quarter, half = (set(arm.train.synthetic) for arm in made.arms if arm.name in ("mix-0.25", "mix-0.5"))
    assert quarter < half


def test_seeds_change_the_split_and_nothing_else_does() -> None:
    request, groups = Request(), np.arange(60)
    one, same, other = (arms.parts_of(groups, groups, request, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert set(one.real_validation) != set(other.real_validation)


def test_every_seed_has_the_same_arms_where_patients_have_several_films(
    trio: tuple[sets.Films, sets.Films, sets.Films],
) -> None:
    """A split by patient leaves each seed another number of films: arms of one seed alone cannot be compared."""

    def mixed(given: sets.Films, count: int) -> sets.Films:
        owners = np.random.default_rng(count).integers(0, 75, count)
        return replace(given.take(np.arange(count)), groups=splits.keys(f"{given.name} {owner}" for owner in owners))

    real, synthetic = mixed(trio[0], 300), mixed(trio[1], 301)
    request = Request(**QUICK, mix=(1.25,))
    sizes = {len(arms.parts_of(real.groups, synthetic.groups, request, seed).real) for seed in range(3)}
    assert len(sizes) > 1
    made = arms.plans(real.groups, synthetic.groups, request)
    told = [[(arm.name, len(arm.train.real), len(arm.train.synthetic)) for arm in plan.arms] for plan in made]
    assert told[0] == told[1] == told[2]
    study = classification.study(real, synthetic, [trio[2]], request)
    assert all(len(row["macro"]["auroc_seeds"]) == 3 for row in study["scores"])


def test_the_seed_of_all_seeds_changes_the_split() -> None:
    groups = np.arange(60)
    one, other = (arms.parts_of(groups, groups, Request(seed=seed), 0) for seed in (0, 1))
    assert set(one.real_validation) != set(other.real_validation)
    assert set(one.synthetic_validation) != set(other.synthetic_validation)


def test_synthetic_films_that_join_no_real_one_have_no_labels() -> None:
    """They are left out, though a label that is not mentioned may count as negative."""
    ids = list("abc")
    real = sources.ImageSet("real", ids, ids.__getitem__, ["p", "q", "r"], np.ones((3, 14), np.float32))
    made = sources.ImageSet("made", ids, ids.__getitem__, ["q", "other", "p"])
    joined = sources.join(real, made)
    assert joined is not None
    found = classification.labelled(made, real, joined)
    assert (list(found.ids), dict(found.notes)) == (["a", "c"], {"label-not-joined": 1})
    read: Any = (np.zeros((2, 3)), np.arange(2), ["1", "2"], {})
    labels = sets.films("synthetic", found, read, Request(not_mentioned="negative")).labels
    assert (labels.values == 1).all()
    none = sources.ImageSet("made", ids, ids.__getitem__, ["x", "y", "z"])
    apart = sources.join(real, none)
    assert apart is not None
    with pytest.raises(ValueError, match="3 films that join none; name the column of labels"):
        classification.labelled(none, real, apart)


def test_what_a_reader_must_know_of_the_sets_is_said(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    real, synthetic, test = trio
    owners = [f"{sets.UNKNOWN}0", *(real.images.patients or ())[1:]]
    real = replace(real, images=replace(real.images, patients=owners, notes={"patient-empty": 1}))
    reasons = ["blurred", "", None, *[""] * (len(synthetic) - 3)]
    images = replace(synthetic.images, provenance={"drop_reason": reasons}, notes={"label-not-joined": 7})
    told = sets.warnings(real, replace(synthetic, images=images), [test], {}, Request())
    assert any(text.startswith("real: the patients of 1 of 300 films are not known") for text in told)
    assert any(text.startswith("synthetic: 1 films have a reason to be dropped") for text in told)
    assert any(text.startswith("synthetic: 7 films join no real film") for text in told)
    assert len(told) == 3
    assert real.describe()["notes"] == {"patient-empty": 1}


def test_defect_mixed_by_ids_that_are_not_unique(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    """Half of the real films are replaced by row, whatever their ids: by their own synthetic films first."""
    real, synthetic = np.arange(40), np.arange(100)
    pairs = np.stack([np.arange(0, 40, 2), np.arange(0, 40, 2)], axis=1)
    made = arms.replaced(real, synthetic, pairs)
    assert (len(made.real), len(made.synthetic)) == (20, 20)
    assert set(made.real) == set(range(20, 40))
    assert set(range(0, 20, 2)) <= set(made.synthetic)
    assert len(set(made.synthetic)) == 20
    everything = trio[0]
    repeated = replace(everything, images=replace(everything.images, ids=["same"] * len(everything)))
    study = classification.study(repeated, *_rest(trio), Request(**QUICK | {"seeds": 1}, preset="chexgenbench"))
    sizes = {arm["arm"]: (arm["n_real"], arm["n_synthetic"]) for arm in study["arms"]}
    count = sizes["all_original"][0]
    assert sizes["mixed"] == (count - count // 2, count // 2)
    assert sizes["augmented"] == (count, count)


def _rest(trio: tuple[sets.Films, sets.Films, sets.Films]) -> tuple[sets.Films, list[sets.Films]]:
    return trio[1], [trio[2]]


# Studies


def test_real_films_teach_more_than_synthetic_ones_and_those_more_than_nothing(studied: dict[str, Any]) -> None:
    real, synthetic = macro(studied, "trtr"), macro(studied, "tstr")
    assert real["auroc"] > synthetic["auroc"] + 0.02
    assert synthetic["auroc_interval"][0] > 0.55
    assert synthetic["difference_interval"][1] < 0
    assert synthetic["p_value"] < 0.05
    assert macro(studied, "trts")["difference_interval"][1] < 0, "synthetic films show their labels less clearly"
    json.dumps({key: value for key, value in studied.items() if key != "predictions"}, allow_nan=False)


def test_labels_of_synthetic_films_at_random_teach_nothing(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    real, synthetic, test = trio
    order = np.random.default_rng(0).permutation(len(synthetic))
    shuffled = replace(synthetic, labels=MultiHot(*(part[order] for part in synthetic.labels)))
    found = macro(classification.study(real, shuffled, [test], Request(**QUICK, arms=("tstr",))), "tstr")
    assert abs(found["auroc"] - 0.5) < 0.04


def test_more_films_of_the_same_kind_help_and_the_curve_rises() -> None:
    real, more, test = (films(name, n, s, noise=4.0) for name, n, s in (("real", 60, 1), ("synthetic", 400, 2),
                                                                        ("test", 300, 3)))  # fmt: skip
    study = classification.study(real, more, [test], Request(**QUICK, mix=(1, 2, 4), arms=("mix",)))
    curve = study["mix"]
    assert [row["ratio"] for row in curve] == [0, 1, 2, 4]
    values = [row["auroc"] for row in curve]
    assert values[-1] > values[0] + 0.02
    for before, after in pairwise(curve):
        assert after["auroc"] > before["auroc"] - 0.01
    assert curve[-1]["difference_interval"][0] > 0


def test_defect_one_seed_without_interval(
    studied: dict[str, Any], trio: tuple[sets.Films, sets.Films, sets.Films]
) -> None:
    found = macro(studied, "tstr")
    assert len(set(found["auroc_seeds"])) == 3
    for name in ("auroc", *comparison.BOOTSTRAPPED):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    one = classification.study(trio[0], *_rest(trio), Request(**QUICK | {"seeds": 1}, arms=("tstr",)))
    assert any("1 seed: 3 or more are needed" in text for text in one["warnings"])
    assert macro(one, "tstr")["seed_error"] is None


def test_defect_class_name_shift(trio: tuple[sets.Films, sets.Films, sets.Films], studied: dict[str, Any]) -> None:
    """A label without films in the middle of the list leaves every other label with its own name and value."""
    real, synthetic, test = trio
    values = test.labels.values.copy()
    values[:, 4] = 0
    bare = replace(test, labels=MultiHot(values, test.labels.mask))
    study = classification.study(real, synthetic, [bare], Request(**QUICK, arms=("tstr",)))
    before, after = (
        {row["label"]: row for row in next(one for one in made["scores"] if one["arm"] == "tstr")["labels"]}
        for made in (studied, study)
    )
    assert list(after) == list(LABELS)
    assert after[LABELS[4]]["state"] == "insufficient n"
    assert "auroc" not in after[LABELS[4]]
    for label in (*LABELS[:4], *LABELS[5:]):
        assert after[label]["auroc"] == pytest.approx(before[label]["auroc"])
    assert macro(study, "tstr")["labels"] == 13


def test_defect_fixed_half_threshold(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    """A rare label whose probabilities stay below one half is still found, and no test label moves a threshold."""
    rng = np.random.default_rng(10)

    def timid(task: runs.Task) -> runs.Learned:
        def guess(features: np.ndarray) -> np.ndarray:
            return 0.4 / (1 + np.exp(-features[:, :14].astype(float)))

        return runs.Learned(guess(task.validation.features), {k: guess(v) for k, v in task.tests.items()}, {})

    real, synthetic, test = (
        replace(side, features=(2 * side.labels.values + rng.normal(size=(len(side), 14))).astype(np.float32))
        for side in trio
    )
    request = Request(**QUICK, arms=("tstr",))
    study = classification.study(real, synthetic, [test], request, learner=timid)
    assert macro(study, "trtr")["f1"] > 0.5
    parts = arms.parts_of(real.groups, synthetic.groups, request, 0)
    arm = arms.plan(parts, request).arms[0]
    turned = replace(test, labels=MultiHot(1 - test.labels.values, test.labels.mask))
    made = [runs.run(arm, 0, (real, synthetic), [side], request, timid, None) for side in (test, turned)]
    np.testing.assert_array_equal(made[0].thresholds, made[1].thresholds)


def test_defect_uncertain_as_negative(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    """-1 and blank are left out of loss and scores unless a policy says otherwise."""
    real = trio[0]
    labels = np.array(real.images.labels)
    labels[0], labels[1, 3], labels[2, 3] = np.nan, -1, np.nan
    given = replace(real.images, labels=labels)
    read = (real.features, np.arange(len(real)), real.hashes, {})
    found = sets.films("real", given, read, Request())
    assert len(found) == len(real) - 1
    assert found.skipped == {"no-known-label": 1}
    assert found.labels.mask[:2, 3].tolist() == [False, False]
    as_negative = sets.films("real", given, read, Request(not_mentioned="negative", uncertain="positive"))
    assert as_negative.labels.mask.all()
    assert as_negative.labels.values[1:3, 3].tolist() == [1, 0]


def test_labels_as_a_labeller_writes_them(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    """Unknown states everywhere, a label that is never negative, one too rare to tune a threshold in every seed."""

    def sparse(side: sets.Films, seed: int) -> sets.Films:
        values, rng = side.labels.values.copy(), np.random.default_rng(seed)
        mask = rng.random(values.shape) < 0.7
        mask[:, 2] = values[:, 2] == 1
        values[12:, 9] = 0
        mask[:, 9] = True
        return replace(side, labels=MultiHot(np.where(mask, values, 0).astype(np.float32), mask))

    sides = [sparse(side, seed) for seed, side in enumerate(trio)]
    request = Request(**QUICK, arms=("tstr", "trts"), min_rows=2)
    study = classification.study(sides[0], sides[1], [sides[2]], request)
    rows = {row["label"]: row for row in study["scores"][0]["labels"]}
    assert rows[LABELS[2]]["state"] == "insufficient n"
    assert rows[LABELS[2]]["n_negative"] == 0
    assert rows[LABELS[9]]["state"] == "ok"
    assert rows[LABELS[9]]["auroc"] is not None
    assert all(row["macro"]["auroc"] > 0.6 for row in study["scores"])
    assert rows[LABELS[0]]["n_positive"] + rows[LABELS[0]]["n_negative"] == int(sides[2].labels.mask[:, 0].sum())
    json.dumps({key: value for key, value in study.items() if key != "predictions"}, allow_nan=False)


def test_f1_is_over_the_same_labels_for_every_arm() -> None:
    two = {}
    for arm, place in (("a", 3), ("b", None)):
        thresholds = np.full(14, 0.5)
        if place is not None:
            thresholds[place] = np.nan
        two[arm] = [runs.Run(arm, 0, thresholds, np.ones(14, bool), {}, {})]
    found = comparison.tuned_alike(two)
    for (run,) in found.values():
        assert np.flatnonzero(np.isnan(run.thresholds)).tolist() == [3]


def test_a_killed_study_does_the_rest_and_gives_the_same_numbers(
    trio: tuple[sets.Films, sets.Films, sets.Films], tmp_path: Path
) -> None:
    request = Request(**QUICK | {"seeds": 2}, arms=("tstr", "pretrain"))
    calls: list[int] = []

    def counting(task: runs.Task) -> runs.Learned:
        calls.append(task.seed)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return runs.linear_probe(task)

    options: dict[str, Any] = {"learner": counting, "work": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        classification.study(trio[0], *_rest(trio), request, **options)
    again = classification.study(trio[0], *_rest(trio), request, **options)
    total = len(again["arms"]) * 2
    assert len(calls) == total + 1, "3 were kept, one was lost"
    whole = classification.study(trio[0], *_rest(trio), request)
    assert again["scores"] == whole["scores"]
    other = replace(request, uncertain="positive", penalties=(0.5,))
    classification.study(trio[0], *_rest(trio), other, **options)
    assert len(calls) == 2 * total + 1, "other options are other runs"


def test_a_damaged_or_foreign_run_is_made_again(
    trio: tuple[sets.Films, sets.Films, sets.Films], tmp_path: Path
) -> None:
    request = Request(**QUICK | {"seeds": 1}, arms=("tstr",))
    first = classification.study(trio[0], *_rest(trio), request, work=tmp_path)
    smaller = trio[0].take(np.arange(200))
    other = classification.study(smaller, *_rest(trio), request, work=tmp_path)
    assert macro(other, "trtr")["auroc"] != macro(first, "trtr")["auroc"]


def test_groups_of_people() -> None:
    edges = (40, 60, 80)
    ages = ["063Y", "39", "80.0", "018M", "", "old", "60"]
    wanted = ["60 to 79", "below 40", "80 and above", "below 40", "", "", "60 to 79"]
    assert subgroups.bands("age", ages, edges) == wanted
    assert subgroups.bands("sex", ["F", "male", "Female", "O", ""], edges) == ["female", "male", "female", "", ""]


def test_a_planted_gap_between_groups_is_found(trio: tuple[sets.Films, sets.Films, sets.Films]) -> None:
    real, synthetic, test = trio
    sex = ["F" if row % 2 else "M" for row in range(len(test))]
    noise = np.random.default_rng(11).normal(size=test.features.shape) * 12
    harder = test.features + noise * (np.array(sex) == "F")[:, None]
    known = replace(test, features=harder.astype(np.float32), people={"sex": sex, "view": ["AP"] * len(test)})
    study = classification.study(real, synthetic, [known], Request(**QUICK, arms=("tstr",)))
    rows = {(row["column"], row["group"]): row for row in study["scores"][0]["subgroups"]}
    women = rows["sex", "female"]
    assert women["auroc_gap_interval"][1] < 0
    assert women["auroc_gap"] == pytest.approx(-rows["sex", "male"]["auroc_gap"])
    assert rows["view", "AP"]["state"] == "insufficient n", "one group has nothing to be compared with"


# Files


def test_names_of_the_benchmark_are_kept(trio: tuple[sets.Films, sets.Films, sets.Films], tmp_path: Path) -> None:
    request = Request(**QUICK | {"seeds": 1}, preset="chexgenbench")
    study = classification.study(trio[0], *_rest(trio), request)
    assert [arm["arm"] for arm in study["arms"]] == ["all_original", "all_synthetic", "mixed", "augmented"]
    published.write_csv(tmp_path, study, study["predictions"], extra_info="sana")
    classes = list(csv.DictReader((tmp_path / "mixed" / "per_class_metrics_sana.csv").open()))
    assert list(classes[0]) == ["class", "precision", "recall", "f1", "auc"]
    assert [row["class"] for row in classes] == list(LABELS)
    (whole,) = csv.DictReader((tmp_path / "mixed" / "metrics.csv_sana").open())
    assert tuple(whole) == published.KEYS
    assert float(whole["auc_macro"]) == pytest.approx(macro(study, "mixed")["auroc"])
    assert 0.5 < float(whole["accuracy"]) < 1


def test_pooled_scores_by_hand() -> None:
    test = films("test", 4, 1)
    values = np.zeros((4, 14), np.float32)
    values[:2, :2] = 1
    test = replace(test, labels=MultiHot(values, np.ones((4, 14), bool)))
    guess = np.zeros((4, 14))
    guess[0, :2] = guess[3, 0] = 0.9
    run = runs.Run("a", 0, np.full(14, 0.5), np.ones(14, bool), {"test": guess}, {})
    told = {label: "ok" if place < 2 else "insufficient n" for place, label in enumerate(LABELS)}
    found = comparison.pooled(test, [run], told)
    assert found == {"accuracy": 5 / 8, "precision_micro": 2 / 3, "recall_micro": 2 / 4, "f1_micro": 4 / 7}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Folders of phantoms as tables with sex and patients."""
    root = tmp_path_factory.mktemp("phantoms")
    for name, count, seed in (("real", 100, 1), ("synthetic", 80, 2), ("test", 80, 3), ("far", 60, 4)):
        made = phantom.make(count, seed=seed)
        (root / name).mkdir()
        rows = []
        for index, film in enumerate(made.images):
            (root / name / f"{index}.png").write_bytes(images.to_png(film))
            labels = dict(zip(LABELS, map(int, made.labels[index]), strict=True))
            rows.append({"image": f"{index}.png", "labels": json.dumps(labels), "patient": f"{name} {index // 2}",
                         "Sex": "FM"[index % 2], "prompt": made.reports[index]})  # fmt: skip
        with open(root / name / "films.csv", "w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return root, {name: root / name / "films.csv" for name in ("real", "synthetic", "test", "far")}


def test_the_command_writes_results_and_report(
    inside: Run, phantoms: tuple[Path, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = phantoms[1]
    saved: list[str] = []
    monkeypatch.setattr(canvas.Plot, "save", lambda plot, folder: saved.append(plot.name))  # files: test_utility_report
    words = ["utility", "--real", places["real"], "--synthetic", places["synthetic"], "--test", places["test"],
             "--external-test", f"far={places['far']}", "--encoder", "phantom", "--out", tmp_path / "out",
             "--feature-store", phantoms[0] / "store", "--resamples", 100, "--min-rows", 5, "--mix", 0.5, "--seeds", 2,
             "--arms", "tstr", "trts", "mix", "--quiet"]  # fmt: skip
    done = inside(*words)
    assert done.returncode == 0, done.stderr
    assert "TSTR: train synthetic, test real" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    study = results["utility"]["classification"]
    assert {row["test"] for row in study["scores"]} == {"test", "far", "synthetic"}
    found = macro(study, "tstr")
    assert found["auroc_interval"][0] > 0.8
    assert {row["group"] for row in study["scores"][0]["subgroups"]} == {"female", "male"}
    assert "Utility" in (tmp_path / "out" / "report.html").read_text()
    assert {"utility_arms__test", "utility_arms__far", "utility_mix__far", "utility_labels__test"} <= set(saved)
    assert not (tmp_path / "out" / "predictions.parquet").exists(), "nobody said that these films are open"
    assert "predictions" not in study


def test_predictions_name_no_film(studied: dict[str, Any]) -> None:
    table = published.predictions_table(studied["predictions"])
    assert table.num_rows == 300 * len(studied["arms"]) * 3
    assert not {"test-0", "test-1"} & set(table["film"].to_pylist())
    assert len(set(table["film"].to_pylist())) == 300
    assert set(LABELS) <= set(table.column_names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "trrt"], "arms must be among"),
        (["--mix", "-1"], "expected one or more ratios"),
        (["--external-test", "real=x"], "--external-test must be NAME=SET"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--rotation", "90"], "rotation must lie between 0 and 30"),
        (["--uncertain", "maybe"], "must be among"),
        (["--extra-info", "a/b"], "--extra-info must be a part of a file's name"),
        (["--age-bands", "80", "60"], "age_bands must be one or more edges that rise"),
        (["--validation-share", "1"], "must lie between 0 and 1"),
    ],
)
def test_bad_options_are_said_before_anything_is_read(inside: Run, words: list[str], message: str) -> None:
    done = inside("utility", "--real", "a", "--synthetic", "b", "--encoder", "phantom", "--out", "o", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_films_without_labels_are_refused(inside: Run, tmp_path: Path, films: np.ndarray) -> None:
    for index, film in enumerate(films):
        (tmp_path / f"{index}.png").write_bytes(images.to_png(film))
    words = ["utility", "--real", tmp_path, "--synthetic", tmp_path, "--encoder", "phantom", "--out", tmp_path / "o"]
    done = inside(*words, "--quiet")
    assert done.returncode == 2
    assert "expected label states" in done.stderr


def test_shards_of_open_films_say_so_themselves(tmp_path: Path) -> None:
    """The policy of a set counts without an option, the strictest of all real sets."""
    from synthchex.commands import utility

    made = phantom.make(4, seed=0)
    for name, policy in (("a", "open"), ("b", "credentialed")):
        rows = [
            {"image": {"bytes": images.to_png(film), "path": None}, "source_policy": policy} for film in made.images
        ]
        import pyarrow as pa

        (tmp_path / name / "data").mkdir(parents=True)
        shards.write_table(tmp_path / name / "data" / "films.parquet", pa.Table.from_pylist(rows))
    words = ["--synthetic", "s", "--out", "o", "--encoder", "phantom", "--real", str(tmp_path / "a")]
    assert utility.requested(utility.parser().parse_args(words)).source_policy == "open"
    words += ["--test", str(tmp_path / "b")]
    assert utility.requested(utility.parser().parse_args(words)).source_policy == "credentialed"


def test_the_phantom_domain_ranks_as_it_must() -> None:
    """Phantoms as films of every set, through the shipped encoder: all arms far above chance."""
    encoder = encoders.load_encoder("phantom")

    def read(given: sources.ImageSet) -> Any:
        found = store.encode(given, [encoder], None, quiet=True)
        return found.features[0], found.kept, found.hashes, found.skipped

    made = {}
    for name, seed in (("real", 1), ("synthetic", 2), ("test", 3)):
        drawn = phantom.make(150, seed=seed)
        stack = list(drawn.images)
        ids = [str(row) for row in range(150)]
        given = sources.ImageSet(name, ids, stack.__getitem__, drawn.reports, drawn.labels.astype(np.float32))
        made[name] = sets.films(name, given, read(given), Request())
    request = Request(**QUICK | {"seeds": 2}, arms=("tstr",), domain="phantom", min_rows=5)
    study = classification.study(made["real"], made["synthetic"], [made["test"]], request)
    assert macro(study, "trtr")["auroc"] > 0.9
    assert macro(study, "tstr")["auroc_interval"][0] > 0.8
    assert not any("patient ids" in text for text in study["warnings"])
