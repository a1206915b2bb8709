"""Numbers per pathology: no false flags where films are few, real gaps found, one size for all, states kept apart.

The sets are simulated: films of one patient are alike, labels differ in number, and the synthetic side is either drawn
from the distribution of the real one or shifted in one label.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats

from synthchex.data.records import LABELS
from synthchex.maths import frechet, kernel
from synthchex.scores.groups import states
from synthchex.scores.pathology import Pathology, pathology

WIDTH = 24
PLACES = 0.8 * np.random.default_rng(99).normal(size=(len(LABELS), WIDTH))  # where films of each label are
QUICK = Pathology(permutations=299, draws=10)


class Sets(NamedTuple):
    """Arguments of `pathology`, in order, and the patient of each real film."""

    fake: np.ndarray
    real: np.ndarray
    fake_labels: np.ndarray
    real_labels: np.ndarray
    patients: np.ndarray


def simulate(
    seed: int,
    patients: list[int],
    films: int,
    synthetic: list[int],
    *,
    shift: dict[str, float] | None = None,
    blind: bool = False,
) -> Sets:
    """One label per film: `patients` of each label with `films` each, `synthetic` films of each label.

    `shift` moves the synthetic films of a label; `blind` draws them as if all films had the next label.
    """
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(patients)), patients)
    ids = np.repeat(np.arange(len(own)), films)
    real_label, fake_label = own[ids], np.repeat(np.arange(len(synthetic)), synthetic)
    shared = rng.normal(size=(len(own), WIDTH))[ids]
    real = PLACES[real_label] + np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.normal(size=(len(ids), WIDTH))
    shown = rng.permutation(fake_label) if blind else fake_label
    moved = np.array([(shift or {}).get(label, 0.0) for label in LABELS])[fake_label]
    fake = PLACES[shown] + moved[:, None] + rng.normal(size=(len(fake_label), WIDTH))
    every = np.eye(len(LABELS))
    return Sets(fake.astype(np.float32), real.astype(np.float32), every[fake_label], every[real_label], ids)


def measured(sets: Sets, options: Pathology = QUICK) -> dict[str, dict[str, Any]]:
    """`pathology` with the patients known."""
    return pathology(*sets[:4], options, real_clusters=sets.patients)


def check_false_flags(runs: int) -> None:
    """14 labels without any gap, 36 films of 12 patients each."""
    any_flag, p_values = [], []
    for seed in range(runs):
        found = measured(simulate(seed, [12] * 14, 3, [40] * 14), Pathology(permutations=299, draws=2, seed=seed))
        assert len(found) == 14
        any_flag.append(any(row["flagged"] for row in found.values()))
        p_values += [row["p_value"] for row in found.values()]
    assert sum(any_flag) <= stats.binom.ppf(0.999, runs, 0.05)
    for level in (0.05, 0.2):
        hits = int((np.array(p_values, float) <= level).sum())
        assert hits <= stats.binom.ppf(0.999, len(p_values), level)
    assert stats.binom.ppf(0.001, len(p_values), 0.2) <= hits


def test_labels_with_few_films_and_no_gap_are_not_flagged() -> None:
    check_false_flags(16)


@pytest.mark.slow
def test_labels_with_few_films_and_no_gap_are_not_flagged_in_many_runs() -> None:
    check_false_flags(300)


def test_the_same_films_taken_for_independent_would_be_found_different() -> None:
    sets = simulate(0, [12] * 14, 3, [40] * 14)
    blind, known = (
        np.array([row["p_value"] for row in pathology(*sets[:4], QUICK, real_clusters=patients).values()])
        for patients in (None, sets.patients)
    )
    assert (blind <= 0.05).sum() >= 7
    assert (known <= 0.05).sum() <= 3


@pytest.mark.parametrize("adjustment", ["holm", "bh"])
def test_a_label_with_a_true_gap_is_flagged_and_the_others_are_not(adjustment: str) -> None:
    for seed in range(3):
        sets = simulate(seed, [12] * 14, 3, [40] * 14, shift={"Fracture": 0.7})
        options = Pathology(permutations=499, draws=10, seed=seed, adjustment=adjustment)  # type: ignore[arg-type]
        found = measured(sets, options)
        assert [label for label, row in found.items() if row["flagged"]] == ["Fracture"]
        row = found["Fracture"]
        assert row["p_adjusted"] == pytest.approx(14 * row["p_value"])
        low, high = row["matched"]["kid_gap_interval"]
        assert 0 < low < row["matched"]["kid_gap"] < high


def test_fid_per_label_ranks_by_count_and_the_matched_gap_does_not() -> None:
    counts = [40, 50, 60, 75, 90, 110, 130, 160, 190, 230, 280, 340, 400, 480]
    plain: list[float] = []
    ranks: dict[str, list[float]] = {"kid_gap": [], "fid": []}
    for seed in range(4):
        sets = simulate(seed, counts, 1, counts)
        masks = [(sets.real_labels[:, i] == 1, sets.fake_labels[:, i] == 1) for i in range(14)]
        alone = [frechet.frechet_distance(sets.real[real], sets.fake[fake]) for real, fake in masks]
        found = measured(sets, Pathology(permutations=19, draws=8))
        assert {row["matched"]["n"] for row in found.values()} == {20}
        plain.append(stats.spearmanr(counts, alone).statistic)
        for key, kept in ranks.items():
            values = [row["matched"][key] for row in found.values()]
            kept.append(stats.spearmanr(counts, values).statistic)
    assert np.mean(plain) < -0.95
    assert abs(np.mean(ranks["kid_gap"])) < 0.5
    assert abs(np.mean(ranks["fid"])) < 0.5


def test_every_label_is_measured_at_the_size_of_the_rarest_that_can_be() -> None:
    sets = simulate(1, [40, 12, 60], 3, [90, 40, 200])
    found = measured(sets)
    assert list(found) == list(LABELS[:3])
    assert [row["matched"]["n"] for row in found.values()] == [18, 18, 18]
    assert all(row["note"] is None for row in found.values())
    json.dumps(found)


def test_a_label_that_cannot_fill_the_size_says_so_and_is_still_tested() -> None:
    sets = simulate(1, [40, 12, 60], 3, [90, 40, 200])
    found = measured(sets, Pathology(permutations=99, draws=4, match_size=45))
    small = found[LABELS[1]]
    assert small["matched"] is None
    assert "two parts of 45 real films without a common patient, and 45 synthetic films" in str(small["note"])
    assert "18 can be had" in str(small["note"])
    assert isinstance(small["p_value"], float)
    assert found[LABELS[0]]["matched"]["n"] == 45


def test_a_label_below_the_least_size_does_not_shrink_the_others() -> None:
    sets = simulate(1, [40, 12, 60], 3, [90, 40, 200])
    found = measured(sets, Pathology(permutations=99, draws=4, least_match=30))
    assert found[LABELS[1]]["matched"] is None
    assert {found[label]["matched"]["n"] for label in (LABELS[0], LABELS[2])} == {60}


def test_matched_numbers_by_hand() -> None:
    """With as many films as a part needs, every draw takes all synthetic films and all patients."""
    sets = simulate(2, [40, 100], 1, [20, 100])
    row = measured(sets, Pathology(min_rows=20, permutations=99, draws=6))[LABELS[0]]
    real, fake = sets.real[sets.real_labels[:, 0] == 1], sets.fake[sets.fake_labels[:, 0] == 1]
    matched = row["matched"]
    assert matched["n"] == 20
    assert matched["kid_gap"] == pytest.approx(matched["kid"] - matched["kid_floor"])
    assert matched["fid_ratio"] == pytest.approx(matched["fid"] / matched["fid_floor"])
    usual = kernel.kernel_distance(real, fake)
    assert row["distance"] == pytest.approx(usual.value, rel=1e-3)
    low, high = row["distance_interval"]
    assert high - low == pytest.approx(2 * 2 * usual.standard_error, rel=0.05)
    rng = np.random.default_rng(0)
    halves = [rng.permutation(40) for _ in range(300)]
    floors = [kernel.kernel_distance(real[half[:20]], real[half[20:]]).value for half in halves]
    kids = [kernel.kernel_distance(real[half[:20]], fake).value for half in halves]
    for key, values in (("kid", kids), ("kid_floor", floors)):
        assert abs(matched[key] - np.mean(values)) < 4 * np.std(values) / np.sqrt(6)


def check_coverage(runs: int, shift: float) -> None:
    """The interval of the matched gap holds the squared distance of the two distributions."""
    large = simulate(0, [3000], 1, [3000], shift={LABELS[0]: shift})
    truth = kernel.kernel_distance(large.real, large.fake).value if shift else 0.0
    hits = [0, 0]
    for seed in range(runs):
        sets = simulate(1 + seed, [14, 14], 3, [60, 60], shift={LABELS[0]: shift})
        row = measured(sets, Pathology(permutations=19, draws=20, seed=seed))[LABELS[0]]
        for i, (low, high) in enumerate((row["matched"]["kid_gap_interval"], row["distance_interval"])):
            hits[i] += low <= truth <= high
    assert min(hits) >= stats.binom.ppf(0.001, runs, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_intervals_of_overlapping_draws_cover_the_truth(shift: float) -> None:
    check_coverage(300, shift)


def test_share_is_one_for_a_faithful_generator_and_zero_for_a_blind_one() -> None:
    shares = []
    for blind in (False, True):
        found = measured(simulate(3, [60, 60, 60], 2, [150] * 3, blind=blind), Pathology(permutations=19, draws=2))
        row = found[LABELS[1]]["conditional"]
        assert row["gap"] == pytest.approx(row["to_other"] - row["to_same"])
        assert row["share"] == pytest.approx(row["gap"] / row["ceiling"])
        assert row["gap_interval"][0] < row["gap"] < row["gap_interval"][1]
        shares.append(row["share"])
    assert shares[0] == pytest.approx(1.0, abs=0.25)
    assert shares[1] == pytest.approx(0.0, abs=0.3)


@pytest.mark.slow
def test_interval_of_the_conditional_gap_covers_the_truth() -> None:
    options, hits = Pathology(permutations=19, draws=1), 0
    large = measured(simulate(0, [3000, 3000], 1, [3000, 3000]), options)[LABELS[0]]["conditional"]
    for seed in range(300):
        found = measured(simulate(1 + seed, [20, 20], 3, [60, 60]), options)[LABELS[0]]["conditional"]
        low, high = found["gap_interval"]
        hits += low <= large["gap"] <= high
    assert hits >= stats.binom.ppf(0.001, 300, 0.95)


def test_films_of_one_patient_with_and_without_the_label_do_not_lower_the_ceiling() -> None:
    """Half of each patient's films have the label, at random: no difference between films with and without it."""
    rng = np.random.default_rng(4)
    ceilings = []
    for seed in range(12):
        sets = simulate(seed, [30], 4, [60])
        labels = np.zeros((120, 14))
        labels[:, 0] = rng.permuted(np.tile([0.0, 0.0, 1.0, 1.0], (30, 1)), axis=1).ravel()
        found = measured(sets._replace(real_labels=labels), Pathology(permutations=19, draws=1))[LABELS[0]]
        ceilings.append(found["conditional"]["ceiling"])
        assert found["conditional"]["share"] is None or found["conditional"]["ceiling"] > 0
    assert abs(np.mean(ceilings)) < 3 * np.std(ceilings, ddof=1) / np.sqrt(12)


def test_no_share_where_the_label_makes_no_difference_to_real_films() -> None:
    sets = simulate(5, [60], 2, [60])
    labels = np.zeros((120, 14))
    labels[::2, 0] = 1
    row = measured(sets._replace(real_labels=labels))[LABELS[0]]
    assert row["conditional"]["share"] is None
    assert "real films with and without the label are not told apart" in str(row["note"])


def test_few_films_without_the_label_are_a_note() -> None:
    row = measured(simulate(6, [30, 4], 3, [60, 10]))[LABELS[0]]
    assert row["conditional"] is None
    assert "12 real films without the label, 30 are needed" in str(row["note"])
    assert row["matched"] is not None


def test_few_patients_are_a_note_and_no_number() -> None:
    found = measured(simulate(7, [5, 40], 8, [60, 60]))
    row = found[LABELS[0]]
    assert [row[key] for key in ("matched", "distance", "p_value", "flagged", "conditional")] == [None] * 5
    assert "real films with the label come from 5 patients or prompts, as good as 5.0 of even size; 8 are" in str(
        row["note"]
    )
    assert found[LABELS[1]]["matched"]["n"] == 60
    lone = simulate(7, [40, 40], 2, [60, 60])
    prompts = np.repeat(np.arange(6), 20)
    notes = pathology(*lone[:4], QUICK, real_clusters=lone.patients, fake_clusters=prompts)[LABELS[0]]["note"]
    assert "synthetic films with the label come from 3 patients or prompts" in str(notes)


def test_insufficient_labels_have_no_entry() -> None:
    sets = simulate(8, [12, 40, 40], 2, [60, 60, 29])
    assert list(measured(sets)) == [LABELS[1]]
    assert list(measured(sets, Pathology(min_rows=24, permutations=19, draws=2))) == list(LABELS[:3])


def test_uncertain_films_count_as_asked_and_not_mentioned_stays_apart() -> None:
    sets = simulate(9, [40, 40], 1, [40, 40])
    labels = sets.real_labels.copy()
    labels[:15, 0], labels[40:50, 0] = -1, np.nan  # 25 present, 15 uncertain, 10 not mentioned, 30 absent
    sets = sets._replace(real_labels=labels)
    assert states(labels)[LABELS[0]] == {"present": 25, "absent": 30, "uncertain": 15, "not mentioned": 10}
    of = {
        policy: measured(sets, Pathology(min_rows=20, permutations=19, draws=2, uncertain=policy))[LABELS[0]]
        for policy in ("ignore", "positive", "negative")
    }
    present, absent = np.arange(40) >= 15, np.arange(80) >= 40
    fake = sets.fake[:40]
    for policy, same, other in (
        ("ignore", present, absent),
        ("positive", np.ones(40, bool), absent),
        ("negative", present, absent | (np.arange(80) < 15)),
    ):
        row = of[policy]["conditional"]
        assert row["to_same"] == pytest.approx(kernel.kernel_distance(sets.real[:40][same], fake).value, rel=1e-3)
        assert row["to_other"] == pytest.approx(kernel.kernel_distance(sets.real[other], fake).value, rel=1e-3)


def test_large_labels_are_thinned_and_say_so() -> None:
    sets = simulate(10, [100, 40], 2, [150, 60])
    found = measured(sets, Pathology(permutations=19, draws=2, limit=80))
    assert found[LABELS[0]]["matched"] is not None
    note = str(found[LABELS[0]]["note"])
    assert "80 of 200 real films with the label were drawn at random" in note
    assert "80 of 150 synthetic films with the label were drawn at random" in note
    assert "films with the label were drawn" not in str(found[LABELS[1]]["note"])


def test_too_few_permutations_for_a_flag_are_a_note() -> None:
    found = measured(simulate(11, [40, 40], 2, [60, 60]), Pathology(permutations=19, draws=2))
    assert "19 permutations over 2 labels cannot give an adjusted p value below 0.05" in str(found[LABELS[0]]["note"])


def test_the_seed_decides_all() -> None:
    sets = simulate(12, [20, 20], 2, [40, 40])
    first, again, other = (measured(sets, Pathology(permutations=99, draws=3, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first[LABELS[0]]["matched"] != other[LABELS[0]]["matched"]
    assert first[LABELS[0]]["distance"] == pytest.approx(other[LABELS[0]]["distance"])


def test_the_order_of_rows_and_the_names_of_patients_do_not_matter() -> None:
    sets = simulate(13, [20, 20], 2, [40, 40])
    order = np.random.default_rng(0).permutation(80)
    names = [f"p{number}" for number in sets.patients[order]]
    moved = pathology(
        sets.fake, sets.real[order], sets.fake_labels, sets.real_labels[order], QUICK, real_clusters=names
    )
    for label, row in measured(sets).items():
        assert moved[label]["distance"] == pytest.approx(row["distance"], rel=1e-3)
        assert moved[label]["conditional"]["gap"] == pytest.approx(row["conditional"]["gap"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adjustment": "none"}, r"adjustment must be one of \('holm', 'bh'\), got 'none'"),
        ({"alpha": 1.0}, "alpha must be between 0 and 1, got 1.0"),
        ({"confidence_level": 95}, "confidence_level must be between 0 and 1, got 95"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"match_size": 3}, "match_size must be at least 4, got 3"),
        ({"limit": 29}, "limit must be at least 30, got 29"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pathology(**options)  # type: ignore[arg-type]


def test_what_does_not_fit_together_is_refused() -> None:
    sets = simulate(14, [20], 2, [40])
    with pytest.raises(ValueError, match="real_labels: expected 40 rows, one per film, got 39"):
        pathology(sets.fake, sets.real, sets.fake_labels, sets.real_labels[:-1])
    with pytest.raises(ValueError, match="real_clusters: expected 40 ids, one per row, got 3"):
        pathology(*sets[:4], real_clusters=[1, 2, 3])
    with pytest.raises(ValueError, match="uncertain must be one of"):
        pathology(*sets[:4], Pathology(uncertain="maybe"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one width, got 24 for real and 23 for fake"):
        pathology(sets.fake[:, 1:], *sets[1:4])


def test_tensors_give_what_arrays_give() -> None:
    torch = pytest.importorskip("torch")
    sets = simulate(15, [20, 20], 2, [40, 40])
    tensors = sets._replace(fake=torch.from_numpy(sets.fake), real=torch.from_numpy(sets.real))
    other = measured(tensors)
    for label, row in measured(sets).items():
        assert other[label]["p_value"] == row["p_value"]
        for key in ("kid", "kid_gap", "fid"):
            assert other[label]["matched"][key] == pytest.approx(row["matched"][key], rel=1e-4, abs=1e-6)


def test_constant_features_and_copies_are_never_flagged() -> None:
    sets = simulate(16, [40, 40], 2, [60, 60])
    flat = measured(sets._replace(real=np.full_like(sets.real, 3.0), fake=np.full_like(sets.fake, 3.0)))[LABELS[0]]
    assert (flat["distance"], flat["p_value"], flat["flagged"]) == (0.0, 1.0, False)
    assert (flat["matched"]["kid_gap"], flat["matched"]["fid_ratio"]) == (0.0, None)
    copies = measured(sets._replace(fake=sets.real.copy(), fake_labels=sets.real_labels))[LABELS[0]]
    assert copies["distance_interval"][1] < 0  # nearer than new films of the same distribution could be
    assert copies["p_value"] == 1.0
