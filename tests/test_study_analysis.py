"""Analysis of a reader study: the published one, simulated ones with known truth, and what is left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from synthchex.study import authenticity, page, ratings, results


def answer(reader: str, case: str, given: dict[str, Any], position: int = 0, repeat: bool = False) -> dict[str, Any]:
    return {
        "reader": reader,
        "case": case,
        "position": position,
        "repeat": repeat,
        "practice": False,
        "seconds": 4.0 + position % 3,
        "answer": given,
    }


def call(said: bool, sure: int = 3) -> dict[str, Any]:
    return {"call": "synthetic" if said else "real", "confidence": sure}


def truths(count: int) -> dict[str, dict[str, Any]]:
    """As many synthetic as real films, every fifth with a finding."""
    return {
        f"c{case:03d}": {
            "arm": "synthetic" if case < count else "real",
            "model": ("sana" if case % 2 else "pixart") if case < count else None,
            "stratum": "Edema" if case % 5 == 0 else "other",
            "labels": {"Edema": int(case % 5 == 0), "Fracture": None},
        }
        for case in range(2 * count)
    }


def published() -> list[dict[str, Any]]:
    """One reader: 43 of 50 synthetic and 38 of 50 real films called rightly."""
    said = [True] * 43 + [False] * 7 + [False] * 38 + [True] * 12
    return [
        answer("R1", case, call(yes), place) for place, (case, yes) in enumerate(zip(truths(50), said, strict=True))
    ]


def test_the_published_study_is_reproduced() -> None:
    found = authenticity.analyse(published(), truths(50))
    (row,) = found["readers"]
    for key, value, wilson in (
        ("accuracy", 0.81, [0.722, 0.875]),
        ("sensitivity", 0.86, [0.738, 0.930]),
        ("specificity", 0.76, [0.626, 0.857]),
        ("fool_rate", 0.14, [0.070, 0.262]),
    ):
        assert row[key]["value"] == value
        assert row[key]["wilson"] == pytest.approx(wilson, abs=5e-4)
        assert [found["together"][key][end] for end in ("low", "high")] == pytest.approx(wilson, abs=5e-4)
    assert round(row["d_prime"], 2) == 1.79
    assert row["p_value"] == pytest.approx(2.7e-10, rel=0.02)
    assert row["auc"] == pytest.approx(0.81), "one confidence for all makes the area that of one point"
    assert found["agreement"]["kappa"] is None


def simulated(rng: np.random.Generator, readers: int, count: int, skill: float, spread: float) -> list[dict[str, Any]]:
    """Readers who see signs of synthesis with an error of their own; films differ in how much they show."""
    shown = rng.normal(0, 0.5, 2 * count)
    answers = []
    for reader in range(readers):
        bias = rng.normal(0, spread)
        for place, case in enumerate(truths(count)):
            sign = 1 if place < count else -1
            seen = sign * (skill + bias) / 2 + shown[place] + rng.normal()
            sure = int(np.clip(1 + 2 * abs(seen), 1, 5))
            answers.append(answer(f"R{reader}", case, call(seen > 0, sure), place))
    return answers


def test_a_simulated_study_with_known_truth_is_recovered_within_its_intervals() -> None:
    rng, skill, spread, inside = np.random.default_rng(0), 1.0, 0.3, {"accuracy": 0, "sensitivity": 0, "auc": 0}
    # Of a new reader and film: the sign is right with this chance; the area is of the difference of two films.
    right = float(ndtr(skill / 2 / math.sqrt(1 + 0.25 + spread**2 / 4)))
    area = float(ndtr(skill / math.sqrt(2 * 1.25 + spread**2)))
    expected = {"accuracy": right, "sensitivity": right, "auc": area}
    for _ in range(100):
        together = authenticity.analyse(simulated(rng, 5, 40, skill, spread), truths(40))["together"]
        for key, value in expected.items():
            inside[key] += together[key]["low"] <= value <= together[key]["high"]
    assert min(inside.values()) >= 88
    assert max(inside.values()) <= 100


def test_readers_at_chance_are_not_told_from_it_and_many_are_equivalent_to_it() -> None:
    rng = np.random.default_rng(1)
    few = authenticity.analyse(simulated(rng, 2, 12, 0.0, 0.0), truths(12))["together"]
    assert few["p_value"] > 0.05
    assert not few["equivalence"]["equivalent"], "24 films cannot show that readers are at chance"
    many = authenticity.analyse(simulated(rng, 8, 150, 0.0, 0.0), truths(150))["together"]
    assert many["equivalence"]["equivalent"]


def test_repeats_count_for_agreement_alone() -> None:
    rows = published()
    again = [{**row, "position": 100 + place, "repeat": True} for place, row in enumerate(rows[::5])]
    changed = [{**row, "answer": call(row["answer"]["call"] == "real", 1)} for row in again[:5]]
    found = authenticity.analyse([*rows, *again[5:], *changed], truths(50))
    (row,) = found["readers"]
    assert row["accuracy"]["n"] == 100
    assert row["within"]["n"] == 20
    assert row["within"]["agree"] == 0.75
    assert row["within"]["kappa"] < 0.75


def test_agreement_between_readers_is_of_cases_that_all_called() -> None:
    rows = published()
    two = [*rows, *({**row, "reader": "R2"} for row in rows[:-10])]
    found = authenticity.analyse(two, truths(50))
    assert found["agreement"] == {"n": 90, "statistic": "Cohen's kappa", "kappa": 1.0}
    assert found["cases"] == {"synthetic": 50, "real": 40, "read_by_all": 90}
    three = authenticity.analyse([*two, *({**row, "reader": "R3"} for row in rows)], truths(50))
    assert three["agreement"]["statistic"] == "Fleiss' kappa"
    assert three["agreement"]["kappa"] == pytest.approx(1)


def test_models_and_strata_have_rates_of_their_own() -> None:
    parts = {(row["part"], row["arm"]): row for row in authenticity.analyse(published(), truths(50))["models"]}
    assert parts["sana", "synthetic"]["n"] == parts["pixart", "synthetic"]["n"] == 25
    total = sum(parts[name, "synthetic"]["called_synthetic"] * 25 for name in ("sana", "pixart"))
    assert total == pytest.approx(43)


def test_learning_is_seen_where_answers_get_better() -> None:
    truth = truths(50)
    order = list(np.random.default_rng(0).permutation(list(truth)))
    rows = [
        answer("R1", case, call((truth[case]["arm"] == "synthetic") == (place > 40)), place)
        for place, case in enumerate(order)
    ]
    (found,) = authenticity.analyse(rows, truth)["learning"]
    assert found["right"]["rho"] > 0.5
    assert found["right"]["p_value"] < 0.001


def test_a_reader_who_has_only_begun_is_named_as_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2 films of each arm, got 3 synthetic and 0 real"):
        authenticity.analyse(published()[:3], truths(50))


def rated(reader: str, case: str, step: int, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    given = dict.fromkeys(ratings.ASPECTS, step) | {"tags": list(tags), "comment": ""}
    return answer(reader, case, given)


def test_ratings_are_compared_over_cases_not_over_answers() -> None:
    truth = truths(6)
    rows = [
        rated(reader, case, 2 if one["arm"] == "synthetic" else 4, ("boxy ribs",) if one["arm"] == "synthetic" else ())
        for reader in ("R1", "R2", "R3")
        for case, one in truth.items()
    ]
    found = ratings.quality(rows, truth)
    tests = {test["aspect"]: test for test in found["tests"]}
    assert tests["overall"]["difference"] == -2
    # Six cases against six that lie wholly above: the exact p value, whatever the number of readers.
    assert tests["overall"]["p_value"] == pytest.approx(2 / math.comb(12, 6), rel=2), "not 18 against 18 answers"
    assert tests["overall"]["p_value"] > 1e-4
    assert tests["overall"]["p_adjusted"] == pytest.approx(4 * tests["overall"]["p_value"])
    assert found["tags"]["sana"] == {"boxy ribs": 9}
    means = {(row["model"], row["aspect"]): row["mean"] for row in found["models"]}
    assert means["real", "anatomy"] == 4
    assert means["pixart", "anatomy"] == 2


def test_a_pair_counts_once_however_many_readers_chose() -> None:
    truth = {f"{model}{pair}": {"arm": "synthetic", "model": model} for model in ("a", "b") for pair in range(9)}
    rows = [
        answer(reader, f"p{pair}", {"chosen": side, "left": f"a{pair}", "right": f"b{pair}"})
        for reader in ("R1", "R2", "R3")
        for pair, side in enumerate(["left"] * 7 + ["right"] + ["none"])
    ]
    found = ratings.preference(rows, truth)
    (row,) = found["pairs"]
    assert row["models"] == ["a", "b"]
    assert (row["first"]["hits"], row["first"]["n"], row["undecided"]) == (7, 8, 1)
    assert row["p_value"] == pytest.approx(2 * (1 + 8) / 2**8)
    assert found["left"]["hits"] == 21


def test_diagnoses_are_counted_by_arm_and_only_where_the_label_is_known() -> None:
    truth = truths(20)
    rows = [
        answer(reader, case, {"present": ["Edema"] if one["labels"]["Edema"] and one["arm"] == "real" else []})
        for reader in ("R1", "R2")
        for case, one in truth.items()
    ]
    found = {(row["label"], row["arm"]): row for row in ratings.diagnosis(rows, truth)}
    assert set(found) == {("Edema", "real"), ("Edema", "synthetic")}, "no label but Edema is known of any film"
    assert found["Edema", "real"]["sensitivity"]["value"] == 1
    assert found["Edema", "synthetic"]["sensitivity"]["value"] == 0
    assert found["Edema", "synthetic"]["specificity"]["value"] == 1


def test_metrics_are_correlated_with_opinions_by_rank() -> None:
    rng = np.random.default_rng(0)
    films = [f"f{film}" for film in range(60)]
    opinion = dict(zip(films, rng.random(60), strict=True))
    metrics = {
        "same": {film: math.exp(value) for film, value in opinion.items()},
        "noise": dict(zip(films, rng.random(60), strict=True)),
        "few": {"f1": 1.0, "f2": 2.0},
        "constant": dict.fromkeys(films, 1.0),
    }
    same, noise, few, constant = ratings.correlations(opinion, metrics)
    assert same["rho"] == pytest.approx(1)
    assert noise["interval"][0] < 0 < noise["interval"][1]
    assert (few["n"], few["rho"]) == (2, None)
    assert constant["rho"] is None
    assert same["p_adjusted"] <= 2 * same["p_value"] + 1e-12


def registered() -> dict[str, Any]:
    arms = [{"arm": arm, "model": arm, "films": 50, "source_policy": "open"} for arm in ("real", "synthetic")]
    return {
        "title": "A & B",
        "sha256": "ab" * 32,
        "design": {"n": 50, "repeats": 0.15, "practice": 4, "size": 512, "alpha": 0.05},
        "arms": arms,
        "hypotheses": ["Accuracy differs from 0.5."],
        "exclusions": ["None."],
    }


def test_the_page_says_what_was_found_in_html_markdown_and_latex(tmp_path: Path) -> None:
    found = {
        "study": registered(),
        "answers": {"readers": [], "excluded": {}},
        "authenticity": authenticity.analyse(published(), truths(50)),
    }
    path = page.write(found, tmp_path)
    assert "accuracy of 0.810 (0.722, 0.875)" in path.read_text()
    text = (tmp_path / "report.md").read_text()
    assert "| R1 | 0.810 [0.722, 0.875] | 0.860 [0.738, 0.930] | 0.760 [0.626, 0.857] | 0.140 [0.070, 0.262] |" in text
    assert "43/50 [0.733, 0.942]" in text
    assert "not shown to be indistinguishable" in text
    assert "to be written by the authors" in text, "what a study cannot know of itself is left open"
    assert r"\toprule" in (tmp_path / "tables" / "authenticity.tex").read_text()
    assert {plot.stem for plot in (tmp_path / "plots").glob("*.png")} == {"readers_accuracy", "readers_roc"}


def test_answers_leave_in_the_form_of_imrmc() -> None:
    rows = [{**row, "task": "authenticity"} for row in published()]
    practice, again = {**rows[0], "practice": True}, {**rows[0], "repeat": True}
    lines = results.imrmc([*rows, practice, again], truths(50), "A study\nof films").splitlines()
    assert lines[0] == "A study of films"
    assert {"N0:50", "N1:50", "NR:1", "NM:1"} <= set(lines)
    data = lines[lines.index("BEGIN DATA:") + 1 :]
    assert len(data) == 200, "a truth row and a score for each film, practice and repeats left out"
    assert data[0] == "-1,c000,0,1"
    assert "R1,c000,study,3" in data
    assert "R1,c049,study,-3" in data


def test_opinions_are_of_synthetic_films_and_first_showings() -> None:
    truth = {case: {**one, "source_id": f"film-{case}"} for case, one in truths(2).items()}
    rows = [answer(reader, case, call(reader == "R1")) for reader in ("R1", "R2") for case in truth]
    rows.append(answer("R2", "c000", call(True), repeat=True))
    assert results.opinions({"authenticity": rows}, truth) == {"called synthetic": {"film-c000": 0.5, "film-c001": 0.5}}


# --- arms of different sizes, answers that do not vary


def unequal(real: int = 5, synthetic: int = 10) -> dict[str, dict[str, Any]]:
    """One real set and two models, which together have more films."""
    arms = ["real"] * real + ["synthetic"] * synthetic
    return {
        f"c{case}": {"arm": arm, "model": arm if arm == "real" else f"m{case % 2}", "stratum": "all"}
        for case, arm in enumerate(arms)
    }


def all_called(truth: dict[str, dict[str, Any]], readers: int, right: bool = False) -> list[dict[str, Any]]:
    """Readers who call every film synthetic, or every film rightly."""
    return [
        answer(f"R{reader}", case, call(not right or one["arm"] == "synthetic"), place)
        for reader in range(readers)
        for place, (case, one) in enumerate(truth.items())
    ]


@pytest.mark.parametrize("readers", [1, 3])
def test_who_calls_every_film_synthetic_is_at_chance_however_many_models_there_are(readers: int) -> None:
    truth = unequal(50, 150)
    found = authenticity.analyse(all_called(truth, readers), truth)
    together = found["together"]
    assert together["accuracy"]["value"] == pytest.approx(0.5), "not 0.75"
    assert together["accuracy"]["low"] < 0.5 < together["accuracy"]["high"]
    assert together["p_value"] > 0.9
    for row in found["readers"]:
        assert row["balanced_accuracy"]["value"] == pytest.approx(0.5)
        assert row["p_value"] == pytest.approx(1)


def test_readers_who_guess_are_seldom_told_from_chance_where_arms_differ_in_size() -> None:
    rng, truth, told = np.random.default_rng(2), unequal(30, 60), 0
    for _ in range(200):
        rows = [
            answer(f"R{reader}", case, call(bool(rng.random() < 0.7)), place)
            for reader in range(2)
            for place, case in enumerate(truth)
        ]
        told += authenticity.analyse(rows, truth)["together"]["p_value"] < 0.05
    assert told <= 20


def test_accuracy_is_the_mean_of_sensitivity_and_specificity() -> None:
    truth = unequal(20, 40)
    rng = np.random.default_rng(3)
    rows = [answer(f"R{r}", case, call(bool(rng.random() < 0.6)), p) for r in range(3) for p, case in enumerate(truth)]
    together = authenticity.analyse(rows, truth)["together"]
    both = (together["sensitivity"]["value"] + together["specificity"]["value"]) / 2
    assert together["accuracy"]["value"] == pytest.approx(both)


@pytest.mark.parametrize("readers", [1, 3])
def test_answers_that_are_all_right_leave_an_interval_and_an_exact_p_value(readers: int) -> None:
    truth = unequal(4, 4)
    together = authenticity.analyse(all_called(truth, readers, right=True), truth)["together"]
    assert together["p_value"] == pytest.approx(2 / 2**8), "eight films cannot have a p value of 0"
    for key, films in (("accuracy", 8), ("sensitivity", 4), ("specificity", 4)):
        assert (together[key]["value"], together[key]["high"]) == (1, 1)
        assert together[key]["low"] == pytest.approx(films / (films + 1.959964**2)), "Wilson's over films"
    assert together["fool_rate"]["high"] == pytest.approx(1 - together["sensitivity"]["low"])
    parts = authenticity.analyse(all_called(truth, readers), truth)["models"]
    assert all(row["interval"][0] < 1 for row in parts)


def test_equivalence_is_tested_at_the_registered_alpha() -> None:
    rows = simulated(np.random.default_rng(1), 8, 150, 0.0, 0.0)
    p_value = authenticity.analyse(rows, truths(150))["together"]["equivalence"]["p_value"]
    said = [
        authenticity.analyse(rows, truths(150), alpha=alpha)["together"]["equivalence"]["equivalent"]
        for alpha in (p_value * 2, p_value / 2)
    ]
    assert said == [True, False]


def test_a_film_without_findings_is_read_as_no_finding() -> None:
    truth = {f"c{case}": {"arm": "real", "labels": {"No Finding": int(case < 3)}} for case in range(6)}
    views = [[], ["Support Devices"], ["Edema"], [], ["Edema"], ["Fracture"]]
    rows = [answer("R1", case, {"present": view}) for case, view in zip(truth, views, strict=True)]
    (row,) = ratings.diagnosis(rows, truth)
    assert (row["sensitivity"]["hits"], row["sensitivity"]["n"]) == (2, 3)
    assert (row["specificity"]["hits"], row["specificity"]["n"]) == (2, 3)


def test_opinions_on_films_of_two_models_with_the_same_id_are_not_mixed() -> None:
    truth = {
        f"{model}{film}": {"arm": "synthetic", "model": model, "source_id": f"p{film}"}
        for model in ("a", "b")
        for film in range(2)
    }
    rows = [answer("R1", case, call(case.startswith("a"))) for case in truth]
    with pytest.raises(ValueError, match="--samples MODEL=FILE"):
        results.opinions({"authenticity": rows}, truth)
    assert results.opinions({"authenticity": rows}, truth, "a") == {"called synthetic": {"p0": 1.0, "p1": 1.0}}
    assert results.opinions({"authenticity": rows}, truth, "b") == {"called synthetic": {"p0": 0.0, "p1": 0.0}}
    with pytest.raises(ValueError, match="got 0 films"):
        results.opinions({"authenticity": rows}, truth, "c")


def test_intervals_of_correlations_have_the_confidence_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    one, two = ({f"f{film}": value for film, value in enumerate(rng.random(40))} for _ in range(2))
    wide, narrow = (ratings.correlations(one, {"m": two}, confidence=share)[0]["interval"] for share in (0.99, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_answers_on_pairs_name_the_models_of_both_sides() -> None:
    truth = {f"c{model}": {"arm": "synthetic", "model": model, "stratum": "all"} for model in "ab"}
    row = {**answer("R1", "pair", {"chosen": "left", "left": "cb", "right": "ca"}), "task": "preference"}
    assert results.comma_separated([row], truth).splitlines()[1].startswith("R1,preference,pair,synthetic,b/a,all,")


def test_too_few_common_ratings_are_told_and_not_taken_for_no_difference() -> None:
    truth = truths(6)
    rows = [rated("R1", case, 3) for case in truth] + [rated("R2", "c000", 3)]
    found = {
        "study": registered(),
        "answers": {"readers": [], "excluded": {}},
        "quality": ratings.quality(rows, truth),
    }
    (said,) = page.summary(found)
    assert "could not be tested: all readers rated only 1 film;" in said
