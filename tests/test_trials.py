"""Calibration of a judge: planted defects, wrong captions, what is counted, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthchex import cli
from synthchex.data import records
from synthchex.data.sources import ImageSet
from synthchex.maths import reliability
from synthchex.trials import ablation, card, cases, defects, findings
from synthchex.trials.cases import Case

FILM = (np.add.outer(np.arange(96), np.arange(80)) + np.random.default_rng(9).integers(0, 40, (96, 80))).astype(
    np.uint8
)


def films(count: int = 6, *, labelled: bool = True) -> ImageSet:
    """A small set with captions that differ."""
    rng = np.random.default_rng(0)
    pixels = [np.clip(FILM + rng.integers(0, 60), 0, 255).astype(np.uint8) for _ in range(count)]
    labels = np.full((count, 14), np.nan, np.float32)
    labels[:, 2] = np.arange(count) % 2
    labels[:, 5] = 1
    return ImageSet(
        "films",
        [f"f{row}" for row in range(count)],
        pixels.__getitem__,
        prompts=[f"caption {row % 2}" for row in range(count)],
        labels=labels if labelled else None,
    )


# Defects -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(defects.DEFECTS))
def test_a_defect_changes_the_film_and_not_its_size(kind: str) -> None:
    defect, before = defects.DEFECTS[kind], FILM.copy()
    for severity in defect.severities:
        one, two = (defect.change(FILM, severity, np.random.default_rng(3)) for _ in range(2))
        assert one.shape == FILM.shape
        assert one.dtype == np.uint8
        assert (one != FILM).mean() > 0.03
        np.testing.assert_array_equal(one, two, "the same seed makes the same defect")
    np.testing.assert_array_equal(FILM, before)


@pytest.mark.parametrize("kind", [kind for kind, one in defects.DEFECTS.items() if len(one.severities) == 3])
def test_graded_defects_take_more_of_the_film_at_every_step(kind: str) -> None:
    rng = np.random.default_rng(0)
    film = np.clip(FILM + rng.normal(0, 12, FILM.shape), 0, 255).astype(np.uint8)
    change = defects.DEFECTS[kind].change
    away = [
        np.mean([np.abs(change(film, s, np.random.default_rng(seed)).astype(float) - film).mean() for seed in range(8)])
        for s in (1, 2, 3)
    ]
    assert away == sorted(away)


def test_a_negated_caption_differs_in_nothing_else() -> None:
    labels = [np.nan] * 14
    labels[2], labels[5], labels[9] = 1, 0, -1
    assert defects.stated(labels) == "Cardiomegaly is present. Edema is absent."
    assert defects.stated(defects.negated(labels)) == "Cardiomegaly is absent. Edema is present."
    assert defects.stated([np.nan] * 14) == ""


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_a_wrong_caption_is_another_one_and_as_unlike_as_there_is(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, np.nan], (count, 14))
    prompts = [f"caption {number}" for number in rng.integers(0, 3, count)]
    found = defects.strangers(labels, prompts, rng)
    for row, other in enumerate(found):
        others = [k for k in range(count) if prompts[k] != prompts[row]]
        assert (other < 0) == (not others)
        if others:
            unlike = {k: int(sum(a + b == 1 for a, b in zip(labels[k], labels[row], strict=True))) for k in others}
            assert unlike[int(other)] == max(unlike.values())


# Cases ---------------------------------------------------------------------------------------------------------------


def test_every_film_gets_every_case() -> None:
    planned = cases.plan(films(), 4, seed=1)
    per_film = 1 + sum(len(one.severities) for one in defects.DEFECTS.values()) + 3
    assert len(planned) == 4 * per_film
    assert {case.kind for case in planned.cases} == {"clean", *defects.DEFECTS, *cases.CAPTIONS}
    swapped = [case for case in planned.cases if case.kind == "mismatched"]
    assert all(case.prompt != f"caption {case.row % 2}" for case in swapped)
    assert repr(cases.plan(films(), 4, seed=1).cases) == repr(planned.cases)
    expected = {(case.kind, case.severity): case.expected for case in planned.cases}
    assert (expected["blur", 1], expected["blur", 2], expected["page", 3]) == ("mild", "low", "not_relevant")


def test_films_without_labels_are_not_negated() -> None:
    kinds = {case.kind for case in cases.plan(films(labelled=False), 4, seed=0).cases}
    assert "negated" not in kinds
    assert "mismatched" in kinds


def test_cases_are_films_that_can_be_judged() -> None:
    planned = cases.plan(films(), 2, seed=0)
    asked = planned.as_set()
    first = asked.fetch(0)
    np.testing.assert_array_equal(first, films().fetch(planned.cases[0].row))
    assert asked.row(0)["prompt"] == planned.cases[0].prompt
    assert asked.fetch(1).shape == first.shape
    np.testing.assert_array_equal(asked.fetch(7), asked.fetch(7))


def test_half_of_the_patients_are_left_to_set_limits_by() -> None:
    owners = [str(row // 10) for row in range(100)]
    many = ImageSet("many", owners, lambda row: FILM, prompts=["x"] * 100, patients=owners)
    rows = {case.row for case in cases.plan(many, 20, seed=0).cases}
    assert len(rows) == 20
    assert len({row // 10 for row in rows}) <= 5
    assert len({case.row for case in cases.plan(many, 95, seed=0).cases}) == 95, "more patients where they are needed"


def test_captions_are_needed() -> None:
    with pytest.raises(ValueError, match="has no prompts"):
        cases.plan(ImageSet("bare", ["a"], lambda row: FILM), 1, seed=0)


# Findings ------------------------------------------------------------------------------------------------------------


def case(kind: str, severity: int, expected: str, row: int = 0) -> Case:
    return Case(row, kind, severity, expected, "x", (1.0, *[float("nan")] * 13))


def test_what_is_dropped_of_a_defect_by_hand() -> None:
    both = [case("clean", 0, "keep", row) for row in (0, 1)] + [case("page", 3, "not_relevant", row) for row in (0, 1)]
    dropped = np.array([False, True, True, True])
    rows = findings.by_kind(both, dropped, {"blurred": np.array([False, False, False, True])})
    clean, page = rows
    assert (clean["judge"]["hits"], clean["judge"]["n"], clean["screens"]) == (1, 2, {})
    assert clean["judge"]["low"] == pytest.approx(0.0126, abs=1e-4)  # Clopper-Pearson of 1 in 2
    assert (page["judge"]["share"], page["screens"], page["either"]["hits"]) == (1.0, {"blurred": 0.5}, 2)


def test_accuracy_counts_what_has_an_answer() -> None:
    asked = [case("clean", 0, "keep"), case("blur", 1, "mild"), case("blur", 2, "low"), case("page", 3, "not_relevant")]
    found = findings.confusion(asked, ["Medium Quality", "Low Quality", "Not Relevant", None])
    assert (found["kept_or_dropped"]["hits"], found["kept_or_dropped"]["n"]) == (3, 3)
    assert found["outcome"]["hits"] == 1, "Low Quality was expected of the blurred one, Not Relevant of the page"
    assert found["table"]["mild"]["Low Quality"] == 1
    assert found["table"]["not_relevant"]["no answer"] == 1


def test_a_judge_that_does_not_read_captions_has_an_auroc_of_a_half() -> None:
    asked = [case(kind, 0, "keep", row) for row in range(20) for kind in ("clean", "mismatched")]
    blind = np.full(40, 0.7)
    reads = np.array([0.9, 0.1] * 20)
    assert findings.captions(asked, blind)["mismatched"]["auroc"] == 0.5
    assert findings.captions(asked, reads)["mismatched"]["auroc"] == 1.0
    assert findings.captions(asked, reads)["negated"] is None


def test_steps_that_prefer_the_worse_film_are_counted() -> None:
    asked = [case("clean", 0, "keep"), *[case(kind, s, "low") for kind in GRADED for s in (1, 2, 3)]]
    score = np.array([0.9, *[0.8, 0.85, 0.3] * len(GRADED)])
    score[2] = 0.95  # of the first kind: 0.8 to 0.95 is a rise, 0.8 to 0.85 is not more than the margin
    found = findings.order(asked, score)
    assert found[GRADED[0]]["ordered_steps"]["hits"] == 2
    assert found[GRADED[1]]["ordered_steps"]["hits"] == 3
    assert found[GRADED[0]]["mean_keep"] == pytest.approx([0.9, 0.8, 0.95, 0.3])


GRADED = [kind for kind, one in defects.DEFECTS.items() if len(one.severities) == 3]


def test_readers_are_compared_with_each_other_and_with_the_judge() -> None:
    high, low = records.QUALITIES[0], records.QUALITIES[2]
    given = {"a": [high, low, high, None], "b": [high, low, low, low]}
    found = findings.ratings(given, [high, low, high, low], seed=0)["pairs"]
    assert [one["between"] for one in found] == [["a", "b"], ["a", "judge"], ["b", "judge"]]
    assert found[1]["kappa"] == 1.0
    assert (found[1]["n"], found[2]["n"]) == (3, 4)


# Maths ---------------------------------------------------------------------------------------------------------------


def test_weighted_kappa_by_hand() -> None:
    # Observed squared distance (1 + 4) / 4; by chance, from the margins (2, 1, 1) and (1, 1, 2), 1.875 on average.
    one, two = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]) + np.array([0, 0, 0, 2])
    assert reliability.weighted_kappa(one, one, 3) == 1.0
    counts = np.zeros((3, 3))
    np.add.at(counts, (one, two), 1)
    weights = np.square(np.subtract.outer(np.arange(3), np.arange(3)))
    chance = np.outer(counts.sum(1), counts.sum(0)) / 4
    want = 1 - (weights * counts).sum() / (weights * chance).sum()
    assert reliability.weighted_kappa(one, two, 3) == pytest.approx(want)
    assert reliability.weighted_kappa(np.zeros(3, int), np.zeros(3, int), 3) is None


def test_the_threshold_keeps_the_precision_and_as_many_films_as_it_can() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
    truth = np.array([True, True, False, True, False])
    assert reliability.threshold(scores, truth, 0.75) == pytest.approx((0.7, 0.75, 1.0, 4))
    assert reliability.threshold(scores, truth, 1.0) == pytest.approx((0.9, 1.0, 1 / 3, 1))
    assert reliability.threshold(scores, ~truth, 0.9) is None
    with pytest.raises(ValueError, match="above 0 and at most 1, got 0"):
        reliability.threshold(scores, truth, 0)


def test_the_calibration_curve_by_hand() -> None:
    found = reliability.curve(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert found.share.tolist() == [0.5, 1.0]
    assert found.films.tolist() == [2, 2]
    assert found.error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms with captions and labels."""
    folder = tmp_path_factory.mktemp("calibrate")
    assert cli.main(["phantom", "--out", str(folder / "real"), "--count", "80", "--quiet"]) == 0
    return folder / "real"


def test_the_embedded_judge_is_calibrated(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calibration"
    words = ["calibrate", "--images", str(real), "--judge", "phantom", "--films", "16", "--out", str(out), "--quiet"]
    assert cli.main([*words, "--screen", "blur", "chest"]) == 0
    said = capsys.readouterr().out
    found = json.loads((out / "calibration.json").read_text())
    assert found["confusion"]["kept_or_dropped"]["share"] > 0.9
    assert found["captions"]["negated"]["auroc"] > 0.9
    assert found["films"] == 16
    by_kind = {(row["kind"], row["severity"]): row for row in found["by_kind"]}
    assert by_kind["static", 3]["screens"]["not_a_chest_film"] == 1.0
    assert by_kind["blur", 2]["either"]["share"] == 1.0
    assert card.sentence(found)[1:] in said
    assert (out / "calibration.png").is_file()
    assert "| negated |" in (out / "calibration.md").read_text()
    before = sorted(path.stat().st_mtime_ns for path in (out / "data").iterdir())
    assert cli.main(words) == 0
    assert sorted(path.stat().st_mtime_ns for path in (out / "data").iterdir()) == before, "nothing is asked twice"


def test_ratings_of_people_are_read_and_checked(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from synthchex.data import sources

    ids = sources.open_images(real).ids
    table = tmp_path / "ratings.csv"
    table.write_text(
        "id,anna,ben\n"
        + "".join(f"{one},High Quality,{'Low Quality' if n % 3 else 'High Quality'}\n" for n, one in enumerate(ids))
    )
    words = [
        "calibrate",
        "--images",
        str(real),
        "--judge",
        "fixed",
        "--films",
        "6",
        "--out",
        str(tmp_path / "c"),
        "--quiet",
    ]
    assert cli.main([*words, "--ratings", str(table), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [pair["between"] for pair in found["ratings"]["pairs"]] == [
        ["anna", "ben"],
        ["anna", "judge"],
        ["ben", "judge"],
    ]
    assert found["by_label"], "the share of good films kept, by label"
    table.write_text(f"id,anna\n{ids[0]},Good\n")
    assert cli.main([*words, "--ratings", str(table)]) != 0
    assert "must be among ['High Quality'" in capsys.readouterr().err


def test_screens_need_films_of_other_patients(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", "--images", str(real), "--judge", "fixed", "--films", "75", "--screen", "blur"]
    assert cli.main([*words, "--out", str(tmp_path / "c"), "--quiet"]) != 0
    assert "at least 20 films of other patients to set limits by, got 5" in capsys.readouterr().err


# Does filtering help? ------------------------------------------------------------------------------------------------


def test_a_filter_that_chooses_at_random_is_called_so_and_one_that_helps_is_not() -> None:
    rng = np.random.default_rng(0)
    real, good, bad = rng.normal(0, 1, (300, 6)), rng.normal(0, 1, (120, 6)), rng.normal(2.5, 1, (80, 6))
    fake = np.concatenate([good, bad]).astype(np.float32)
    right, blind = np.arange(200) < 120, rng.permutation(200) < 120
    helps = ablation.ablate(real.astype(np.float32), fake, right, draws=30, seed=0)
    metrics = helps["metrics"]
    assert metrics["kid"]["kept"] < metrics["kid"]["interval"][0]
    assert metrics["kid"]["p"] == pytest.approx(1 / 31)
    assert metrics["precision"]["kept"] > metrics["precision"]["interval"][1]
    assert metrics["kid"]["matched"]["kept"] < metrics["kid"]["matched"]["dropped"]
    random = ablation.ablate(real.astype(np.float32), fake, blind, draws=30, seed=0)["metrics"]
    assert random["kid"]["p"] > 0.05
    assert "120 of 200 films were kept" in ablation.lines(helps)


def test_scores_of_a_subset_are_those_of_the_metric() -> None:
    from synthchex.maths import frechet, kernel

    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(90, 4)).astype(np.float32), rng.normal(0.3, 1, (80, 4)).astype(np.float32)
    kept = np.arange(80) < 50
    found = ablation.ablate(real, fake, kept, draws=3, seed=0, per_film={"fact": np.arange(80.0)})
    row = found["metrics"]
    assert row["kid"]["kept"] == pytest.approx(kernel.kernel_distance(real, fake[kept]).value, rel=1e-4)
    assert row["fid"]["kept"] == pytest.approx(frechet.frechet_distance(real, fake[kept]), rel=1e-6)
    assert row["fact"]["kept"] == pytest.approx(24.5)
    assert (found["matched"], row["fid"]["matched"] is not None) == (30, True)


def test_too_few_films_are_not_compared() -> None:
    rows = np.zeros((40, 3), np.float32)
    with pytest.raises(ValueError, match="at least 30 films kept and one dropped, got 40 and 0"):
        ablation.ablate(rows, rows, np.ones(40, bool), draws=2, seed=0)


def test_keep_rates_are_those_of_the_label() -> None:
    labels = np.full((4, 14), np.nan)
    labels[:, 3] = 1, 1, 0, -1
    found = ablation.keep_rates(labels, np.array([True, False, True, True]))
    assert list(found) == ["Lung Opacity"]
    assert (found["Lung Opacity"]["hits"], found["Lung Opacity"]["n"]) == (1, 2)
    assert ablation.keep_rates(None, np.ones(4, bool)) == {}


def test_a_filter_that_drops_wrong_labels_is_worth_something_to_classifiers() -> None:
    rng = np.random.default_rng(0)
    states = np.full((500, 14), np.nan, np.float32)
    states[:, 5] = rng.random(500) < 0.5
    features = rng.normal(size=(500, 8)).astype(np.float32)
    features[:, 0] += 2 * states[:, 5]
    fake, labels, real, truth = features[:300], states[:300].copy(), features[300:], states[300:]
    wrong = rng.random(300) < 0.45
    labels[wrong, 5] = 1 - labels[wrong, 5]
    measure = {"TSTR": ablation.tstr(fake, labels, real, truth, seed=0)}
    found = ablation.ablate(real, fake, ~wrong, draws=15, seed=0, per_subset=measure)["metrics"]["TSTR"]
    assert found["kept"] > 0.9
    assert found["kept"] > found["interval"][1], "random subsets hold the wrong labels too"
    assert found["matched"]["kept"] > 0.85 > 0.5 > found["matched"]["dropped"]
    assert found["better"] == "higher"
    assert "TSTR (higher is better)" in ablation.lines(
        {"kept": 1, "of": 2, "draws": 15, "matched": None, "metrics": {"TSTR": found}}
    )


def test_labels_that_no_film_knows_both_ways_are_refused() -> None:
    nothing = np.full((50, 14), np.nan, np.float32)
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=r"TSTR needs a label that some films have .* leave --utility out"):
        ablation.tstr(rows, nothing, rows, nothing, seed=0)


def test_a_label_that_a_subset_lost_counts_as_chance() -> None:
    """Else a filter that drops all films of a hard label would seem to help."""
    rng = np.random.default_rng(0)
    states = np.full((120, 14), np.nan, np.float32)
    states[:, 5], states[:, 6] = rng.random(120) < 0.5, np.arange(120) < 40
    features = rng.normal(size=(120, 6)).astype(np.float32)
    features[:, 0] += 3 * states[:, 5]
    measure = ablation.tstr(features, states, features, states, seed=0)
    only = states.copy()
    only[:, 6] = np.nan
    alone = ablation.tstr(features, only, features, only, seed=0)
    without = np.arange(40, 120)
    assert measure(without) == pytest.approx((alone(without) + 0.5) / 2)


def test_a_fact_that_no_film_of_a_subset_has_is_not_called_significant() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(size=(70, 4)).astype(np.float32)
    kept = np.arange(70) < 40
    with pytest.raises(ValueError, match="expected fact of films of every subset"):
        ablation.ablate(real, fake, kept, draws=5, seed=0, per_film={"fact": np.where(kept, np.nan, 1.0)})
