"""The memorization module: planted copies, the null, patients, labels, processes, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest

from synthchex.maths import copying, memorization, search
from synthchex.measure import ranks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def module() -> Any:
    return evaluate.load(str(ROOT / "metrics" / "memorization"))


@pytest.fixture
def sets() -> dict[str, np.ndarray]:
    """Training films (400, 12), held-out ones (300, 12) and fresh synthetic ones (250, 12)."""
    rng = np.random.default_rng(0)
    counts = {"references": 400, "held_out": 300, "predictions": 250}
    return {name: rng.normal(size=(count, 12)).astype(np.float32) for name, count in counts.items()}


def test_numbers_are_those_of_the_maths(module: Any, sets: dict[str, np.ndarray]) -> None:
    prompts, people = np.arange(250) // 5, [f"p{row // 2}" for row in range(300)]
    found = module.compute(
        **sets, patients=(prompts, None), held_out_patients=people, confidence_level=0.9, per_sample=True
    )
    near, null = (search.nearest(sets[name], sets["references"]) for name in ("predictions", "held_out"))
    said = copying.compare(near, null, fake_clusters=prompts, real_clusters=people, confidence=0.9)
    assert found["memorization"] == said.memorization.excess
    assert (found["dcr_ratio"], found["dcr_ratio_low"], found["dcr_ratio_high"]) == said.ratio
    assert found["share_below_5_p_value"] == said.below[0.05].p_value
    assert found["share_below_limit_at_most"] == said.limit.at_most
    assert found["memorization_low"] <= found["memorization"] <= found["memorization_high"]
    assert found["memorization_row"] == near.rows[:, 0].tolist()
    assert np.median(found["memorization_dcr"]) == found["dcr_median"]
    assert np.mean(found["memorization_near"]) == found["share_below_limit"]
    assert np.mean(found["memorization_authentic"]) == found["authenticity"]
    assert (found["n_null"], found["n_null_patients"], found["null"]) == (300, 150, memorization.HELD_OUT)
    assert "Stein et al. 2023" in found["diagnostics_note"]
    plain = {type(value) for value in found.values()}
    assert plain <= {float, int, str, list}


def test_fresh_films_are_no_copies_and_planted_copies_are(module: Any, sets: dict[str, np.ndarray]) -> None:
    fresh = module.compute(**sets)
    assert abs(fresh["memorization"]) < 0.04
    assert fresh["memorization_p_value"] > 0.05
    assert fresh["dcr_ratio_low"] < 1 < fresh["dcr_ratio_high"]
    assert abs(fresh["ct"]) < 3
    assert fresh["authenticity"] == pytest.approx(fresh["authenticity_null"], abs=0.1)
    copied = {**sets, "predictions": sets["references"][:250] + np.float32(0.01)}
    every = module.compute(**copied)
    assert every["memorization"] == every["share_below_limit"] == 1
    assert every["memorization_p_value"] < 1e-6
    assert every["dcr_ratio"] < 0.05
    assert every["authenticity"] == 0
    assert every["ct"] < -5
    exact = module.compute(**{**sets, "predictions": sets["references"][:5]})
    assert (exact["n_copies"], exact["dcr_median"], exact["nndr_median"]) == (5, 0.0, 0.0)


def test_a_copy_of_another_training_film_than_its_pair_is_found(module: Any, sets: dict[str, np.ndarray]) -> None:
    """CheXGenBench compares each film with the one training film on the same row of its table, and no other."""
    fake = sets["predictions"].copy()
    fake[:25] = sets["references"][200:225] + np.float32(0.01)
    paired = np.linalg.norm(fake - sets["references"][:250], axis=1)
    assert paired[:25].min() > 1  # its pair is far from each of the copies
    found = module.compute(**{**sets, "predictions": fake}, per_sample=True)
    assert found["memorization_row"][:25] == list(range(200, 225))
    assert all(found["memorization_near"][:25])
    assert found["n_below_least"] >= 25
    assert found["memorization"] == pytest.approx(0.1, abs=0.03)


def test_held_out_patients_who_were_trained_on_are_an_error_that_counts_them(
    module: Any, sets: dict[str, np.ndarray]
) -> None:
    train = [f"p{row}" for row in range(400)]
    held = ["p3", "p3", "p7", *(f"q{row}" for row in range(297))]
    message = r"patients that references do not have, got 2 that they have \(3 of 300 held-out images\)"
    with pytest.raises(ValueError, match=message):
        module.compute(**sets, patients=(None, train), held_out_patients=held)


def test_without_held_out_films_training_films_of_others_are_the_null(module: Any, sets: dict[str, np.ndarray]) -> None:
    del sets["held_out"]
    sets["references"][1::2] = sets["references"][::2] + np.float32(0.02)  # two films of each patient
    patients = (None, np.arange(400) // 2)
    known = module.compute(**sets, patients=patients)
    assert (known["null"], known["n_null"], known["n_null_patients"]) == (memorization.TRAINING, 400, 200)
    assert known["dcr_ratio"] == pytest.approx(1, abs=0.1)
    assert not any("unknown patients" in warning for warning in known["warnings"])
    unknown = module.compute(**sets)
    assert unknown["dcr_ratio"] > 20  # repeats of a patient are taken for strangers
    assert any("the null is training films of unknown patients" in warning for warning in unknown["warnings"])
    few = module.compute(**sets, patients=patients, null_films=50)
    assert few["n_null"] == 50
    assert any("patients in the null are too few to count a chance of 1.00%" in text for text in few["warnings"])


def test_labels_are_parts_of_the_predictions_beside_everything(module: Any, sets: dict[str, np.ndarray]) -> None:
    fake = sets["predictions"]
    fake[:50] = sets["references"][:50] + np.float32(0.01)
    masks = {"Edema": np.arange(250) < 50, "Fracture": np.arange(250) >= 50, "Mass": np.zeros(250, bool)}
    groups = {label: (mask, np.zeros(400, bool)) for label, mask in masks.items()}
    labels = module.compute(**sets, groups=groups)["labels"]
    alone = module.compute(**{**sets, "predictions": fake[:50]})
    assert labels["Edema"]["memorization"] == alone["memorization"] > 0.95
    assert labels["Edema"]["ct"] == alone["ct"]
    assert labels["Fracture"]["memorization"] < 0.03
    assert labels["Mass"]["memorization"] is None
    assert labels["Fracture"]["n_predictions"] == 200


def test_rows_in_batches_and_processes_give_the_same(module: Any, sets: dict[str, np.ndarray]) -> None:
    once = module.compute(**sets)
    module.add_batch(predictions=sets["predictions"][:99], references=sets["references"][:1])
    module.add_batch(predictions=sets["predictions"][99:], references=sets["references"][1:])
    assert module.compute(held_out=sets["held_out"]) == once
    ids = [f"a{row}" for row in range(400)], [f"b{row}" for row in range(300)]
    whole = module.compute(**sets, patients=(None, ids[0]), held_out_patients=ids[1])
    parts = []
    for one, two, three in (((0, 100), (0, 150), (0, 300)), ((100, 250), (150, 400), (300, 300))):
        options, _ = module._options({"held_out": sets["held_out"], "patients": (None, ids[0][slice(*two)])})
        given = {
            "predictions": [module.sort("predictions", sets["predictions"][slice(*one)])],
            "references": [module.sort("references", sets["references"][slice(*two)])],
        }
        held = sets["held_out"][slice(*three)] if three[0] < three[1] else sets["held_out"][:1]
        own = {**options.own, "held_out": held, "held_out_patients": ids[1][: len(held)]}
        parts.append(module._rows(given, module._encoding({}), _with(options, own)))
    rows = ranks.joined(parts)
    assert len(rows.own["held_out"]) == 301
    assert (len(rows.own["held_out_patients"].train), len(rows.own["held_out_patients"].held_out)) == (400, 301)
    rows.own["held_out_patients"].check()
    assert whole["n_null_patients"] == 300


def _with(options: Any, own: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(options, own=own)


def test_few_films_give_what_can_be_given(module: Any) -> None:
    rng = np.random.default_rng(1)
    found = module.compute(
        predictions=rng.normal(size=(1, 4)), references=rng.normal(size=(5, 4)), held_out=rng.normal(size=(3, 4))
    )
    assert found["ct"] is None
    assert (found["share_below_least_expected"], found["share_below_1_expected"]) == (0.25, 0.25)
    assert any("ct is not defined" in warning for warning in found["warnings"])
    assert not math.isnan(found["memorization"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": None, "held_out_patients": [1]}, "held_out_patients: expected held_out beside them, got none"),
        ({"held_out_patients": [1, 2]}, "patients: expected 300 ids for held_out, one per row, got 2"),
        ({"held_out": np.zeros((5, 3))}, "expected features of one width, got 3 for held_out and 12 for references"),
        ({"false_alarms": 2.0}, "false_alarms must be between 0 and 1, got 2.0"),
        ({"nearest_k": 1}, "expected nearest_k from 2, cells and null_films from 1, got 1, 5 and 10000"),
    ],
)
def test_what_makes_no_null_is_refused(
    module: Any, sets: dict[str, np.ndarray], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        module.compute(**{**sets, **change})
