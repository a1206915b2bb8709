"""Label faithfulness: known cases, and phantoms whose prompts are right or shuffled."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from synthchex import phantom
from synthchex.data.records import LABELS
from synthchex.models.classifiers import load_classifier
from synthchex.scores.faithfulness import faithfulness

EVERY = SimpleNamespace(name="all", labels=LABELS, missing=(), independent=True)
EDEMA, FRACTURE, NONE = LABELS.index("Edema"), LABELS.index("Fracture"), LABELS.index("No Finding")
Pair = tuple[np.ndarray, np.ndarray]


def row(found: dict[str, Any], label: str) -> dict[str, Any]:
    """The row of one label."""
    return next(one for one in found["labels"] if one["label"] == label)


def simulated(count: int, *, seed: int, strength: float = 2.0) -> Pair:
    """Probabilities of a classifier that sees every label alike, and label states, half of them not mentioned."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((count, 14)) < 0.3, 1.0, np.where(rng.random((count, 14)) < 0.5, 0.0, np.nan))
    logits = rng.normal(size=(count, 14)) + strength * (labels == 1) - 2
    return 1 / (1 + np.exp(-logits)), labels


@pytest.fixture(scope="module")
def seen() -> tuple[Any, np.ndarray, np.ndarray]:
    """The phantom classifier, what it says of 900 phantoms, and their labels."""
    classifier = load_classifier("phantom", device="cpu")
    films = phantom.make(900, size=64, seed=11)
    return classifier, classifier.encode(list(films.images)), films.labels.astype(np.float32)


def test_phantoms_that_show_their_prompts_are_as_faithful_as_real_ones(seen: Any) -> None:
    classifier, said, labels = seen
    found = faithfulness(classifier, said[:450], said[450:], labels[:450], labels[450:])
    low, high = found["mean"]["difference_interval"]
    assert low <= 0 <= high
    assert high - low < 0.05
    assert found["mean"]["labels"] == sum(one["state"] == one["state_real"] == "ok" for one in found["labels"]) > 10
    for one in found["labels"]:
        if one["state"] == "ok":
            assert one["auroc"] > 0.9
            assert one["auroc_interval"][0] <= one["auroc"] <= one["auroc_interval"][1] <= 1
        if one["difference"] is not None:
            assert one["difference_interval"][0] <= 0 <= one["difference_interval"][1]
    assert found["no_finding"]["share_flagged"] < 0.15
    assert found["cooccurrence"]["distance"] < found["cooccurrence"]["floor_range"][1]
    assert json.loads(json.dumps(found)) == found


def test_shuffled_prompts_are_chance_and_far_below_real_films(seen: Any) -> None:
    classifier, said, labels = seen
    wrong = np.random.default_rng(0).permutation(450)
    found = faithfulness(classifier, said[:450], said[450:], labels[:450][wrong], labels[450:])
    assert found["mean"]["auroc"] == pytest.approx(0.5, abs=0.03)
    assert found["mean"]["difference_interval"][1] < -0.4
    compared = [one for one in found["labels"] if one["difference"] is not None]
    assert len(compared) > 10
    assert all(one["difference_interval"][1] < -0.2 for one in compared)
    assert found["no_finding"]["share_flagged_interval"][0] > 0.4
    assert found["no_finding"]["share_flagged_real"] <= 0.05


def test_one_label_that_is_not_drawn_is_found_and_no_other() -> None:
    (said, labels), (real, truth) = simulated(1500, seed=0), simulated(1500, seed=1)
    said[:, EDEMA] = np.random.default_rng(2).random(1500)
    found = faithfulness(EVERY, said, real, labels, truth)
    below = [one["label"] for one in found["labels"] if one["difference_interval"][1] < 0]
    assert below == ["Edema"]
    assert row(found, "Edema")["auroc"] == pytest.approx(0.5, abs=0.05)


def test_real_films_without_labels_leave_the_synthetic_columns() -> None:
    (said, labels), (real, _) = simulated(300, seed=0), simulated(300, seed=1)
    found = faithfulness(EVERY, said, real, labels, None)
    assert found["notes"] == [
        "Real films have no labels: synthetic films stand alone, and no number says what could be expected."
    ]
    assert all(one["state"] == "ok" and one["state_real"] == "not measured" for one in found["labels"])
    assert all(one[key] is None for one in found["labels"] for key in one if key.endswith("_real") and key[0] != "s")
    assert found["mean"]["auroc"] > 0.8
    assert found["mean"]["auroc_real"] is found["mean"]["difference"] is None
    assert found["mean"]["labels"] == 14
    assert found["no_finding"]["threshold"] == 0.5
    assert "no real films" in found["no_finding"]["threshold_from"]
    assert found["cooccurrence"]["state"] == "ok"
    alone = faithfulness(EVERY, said, None, labels, None)
    assert alone["labels"] == found["labels"]
    assert alone["cooccurrence"]["state"] == "not measured"


def test_too_few_films_are_a_state_and_not_a_number() -> None:
    (said, labels), (real, truth) = simulated(300, seed=0), simulated(300, seed=1)
    labels[:, EDEMA], truth[:, FRACTURE] = 0, 0
    labels[:29, EDEMA] = truth[:29, FRACTURE] = 1
    found = faithfulness(EVERY, said, real, labels, truth)
    edema, fracture = row(found, "Edema"), row(found, "Fracture")
    assert (edema["state"], edema["n_positive"], edema["auroc"]) == ("insufficient n", 29, None)
    assert (edema["state_real"], edema["difference"]) == ("ok", None)
    assert edema["auroc_real"] > 0.8
    assert (fracture["state"], fracture["state_real"], fracture["difference"]) == ("ok", "insufficient n", None)
    assert found["mean"]["labels"] == 12
    assert found["notes"] == ["Too few real films to compare with: Fracture."]
    assert row(faithfulness(EVERY, said, real, labels, truth, min_rows=29), "Edema")["state"] == "ok"
    one_patient = faithfulness(EVERY, said, real, labels, truth, real_clusters=["p"] * 300)
    assert {one["state_real"] for one in one_patient["labels"]} == {"insufficient n"}
    assert one_patient["mean"]["labels"] == 0
    assert one_patient["mean"]["auroc"] is None
    assert one_patient["no_finding"]["state_real"] == "insufficient n"
    assert one_patient["cooccurrence"]["state"] == "insufficient n"
    assert one_patient["cooccurrence"]["distance"] is None


def test_labels_without_a_head_are_named_and_not_scored() -> None:
    (said, labels), (real, truth) = simulated(300, seed=0), simulated(300, seed=1)
    judge = SimpleNamespace(name="x", labels=("Edema", "Fracture"), missing=("No Finding",), independent=None)
    for part in (said, real):
        part[:, [i for i, label in enumerate(LABELS) if label not in judge.labels]] = np.nan
    found = faithfulness(judge, said, real, labels, truth)
    assert [one["label"] for one in found["labels"]] == ["Edema", "Fracture"]
    assert (found["missing"], found["independent"]) == (["No Finding"], None)
    assert found["cooccurrence"]["labels"] == ["Edema", "Fracture"]
    assert found["no_finding"]["state"] == "ok"  # known from the prompts, not from the head


def test_uncertain_states_count_as_they_are_told_to() -> None:
    (said, labels), (real, truth) = simulated(300, seed=0), simulated(300, seed=1)
    sure = int((labels[:, EDEMA] == 1).sum())
    labels[np.flatnonzero(labels[:, EDEMA] == 1)[:10], EDEMA] = -1
    counts = {
        policy: (edema["n_positive"], edema["n_negative"])
        for policy in ("ignore", "positive", "negative")
        if (edema := row(faithfulness(EVERY, said, real, labels, truth, uncertain=policy), "Edema"))
    }
    assert counts["ignore"] == (sure - 10, 300 - sure)
    assert counts["positive"] == (sure, 300 - sure)
    assert counts["negative"] == (sure - 10, 310 - sure)


def test_no_finding_films_are_flagged_above_what_real_ones_reach() -> None:
    said, labels = np.full((200, 14), 0.1), np.zeros((200, 14))
    labels[:100, NONE] = 1
    real, truth = said.copy(), labels.copy()
    real[:100, EDEMA] = np.linspace(0.2, 0.4, 100)
    said[:30, FRACTURE] = 0.9
    said[:, LABELS.index("Support Devices")] = said[:, NONE] = 1.0  # neither is a finding
    found = faithfulness(EVERY, said, real, labels, truth)["no_finding"]
    assert found["threshold"] == pytest.approx(np.linspace(0.2, 0.4, 100)[95])
    assert (found["n"], found["n_real"]) == (100, 100)
    assert found["share_flagged"] == 0.3
    assert found["share_flagged_real"] == 0.04
    assert found["mean_highest"] == pytest.approx(0.3 * 0.9 + 0.7 * 0.1)
    assert found["mean_highest_real"] == pytest.approx(0.3)
    low, high = found["share_flagged_interval"]
    assert 0.2 < low < 0.3 < high < 0.42


def test_cooccurrence_by_hand_is_the_mean_difference_of_correlations() -> None:
    judge = SimpleNamespace(name="x", labels=("Edema", "Fracture"), missing=(), independent=None)
    said, real = np.full((400, 14), np.nan), np.full((400, 14), np.nan)
    side = np.arange(400) % 2
    said[:, EDEMA] = said[:, FRACTURE] = real[:, EDEMA] = side
    real[:, FRACTURE] = 1 - side
    found = faithfulness(judge, said, real, np.zeros((400, 14)), None)["cooccurrence"]
    assert found["distance"] == pytest.approx(2)
    assert found["floor"] == pytest.approx(0)
    assert (found["n"], found["draws"], found["state"]) == (200, 20, "ok")
    real[:, FRACTURE] = 0.3
    assert faithfulness(judge, said, real, np.zeros((400, 14)), None)["cooccurrence"]["distance"] == pytest.approx(1)


def test_labels_that_no_longer_go_together_are_far_above_the_floor() -> None:
    (said, labels), (real, truth) = simulated(1000, seed=0), simulated(1000, seed=1)
    for part in (said, real):
        part[:, FRACTURE] = part[:, EDEMA]
    same = faithfulness(EVERY, said, real, labels, truth, draws=5)["cooccurrence"]
    said[:, FRACTURE] = np.random.default_rng(2).permutation(said[:, FRACTURE])
    apart = faithfulness(EVERY, said, real, labels, truth, draws=5)["cooccurrence"]
    assert same["distance"] < 1.1 * same["floor"]
    assert apart["distance"] > same["distance"] + 0.5 * 1 / 91
    assert (apart["floor"], apart["n"]) == (same["floor"], 500)


def test_patients_of_many_films_widen_every_interval_and_the_floor() -> None:
    (said, labels), (real, truth) = simulated(600, seed=0), simulated(60, seed=1)
    real, truth, owners = np.repeat(real, 10, 0), np.repeat(truth, 10, 0), [f"p{i // 10}" for i in range(600)]
    alone = faithfulness(EVERY, said, real, labels, truth)
    patients = faithfulness(EVERY, said, real, labels, truth, real_clusters=owners)
    for one, other in zip(alone["labels"], patients["labels"], strict=True):
        assert one["auroc_real"] == other["auroc_real"]
        assert np.diff(other["auroc_real_interval"]) > 2 * np.diff(one["auroc_real_interval"])
    assert np.diff(patients["mean"]["difference_interval"]) > np.diff(alone["mean"]["difference_interval"])
    assert patients["cooccurrence"]["floor"] > 1.5 * alone["cooccurrence"]["floor"]


def test_a_seed_fixes_the_halves() -> None:
    (said, labels), (real, truth) = simulated(200, seed=0), simulated(200, seed=1)
    one, again, other = (faithfulness(EVERY, said, real, labels, truth, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one["cooccurrence"] != other["cooccurrence"]
    assert one["labels"] == other["labels"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fake_probs": np.zeros((5, 13))}, r"synthetic: expected probabilities of shape \(N, 14\), got \(5, 13\)"),
        ({"fake_labels": np.zeros((4, 14))}, "synthetic: expected 5 labels, one per film, got 4"),
        ({"real_clusters": ["a"]}, "real: expected 6 clusters, one per film, got 1"),
        ({"real_probs": np.full((6, 14), np.nan)}, "real: expected a probability for each of .* got NaN for 6 films"),
        ({"min_rows": 1}, "min_rows must be at least 2, got 1"),
        ({"uncertain": "maybe"}, "uncertain must be one of .* got 'maybe'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"fake_probs": np.zeros((5, 14)), "real_probs": np.zeros((6, 14))}
    given |= {"fake_labels": np.zeros((5, 14)), "real_labels": np.zeros((6, 14))}
    with pytest.raises(ValueError, match=message):
        faithfulness(EVERY, **given | change)
