"""The section "Utility" of the report: bars from chance, mix curve, labels, learning curves, tables."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from synthchex.data.records import LABELS
from synthchex.report import canvas, utility, write_report

SCORES = ("average_precision", "f1", "precision", "recall", "brier", "ece")


def scored(value: float, n: int = 3) -> dict[str, Any]:
    """A mean with intervals, seeds and a difference."""
    found: dict[str, Any] = {"auroc": value, "auroc_interval": [value - 0.03, value + 0.02]}
    found["auroc_seeds"] = [value + 0.005 * (place - 1) for place in range(n)]
    for name in SCORES:
        found |= {name: value / 2, f"{name}_interval": [value / 2 - 0.1, value / 2 + 0.1], f"{name}_seeds": [value / 2]}
    return found


def against(value: float) -> dict[str, Any]:
    """A difference with its interval."""
    return {"difference": value, "difference_interval": [value - 0.02, value + 0.02], "p_value": 0.0004}


def row(arm: str, value: float, baseline: str | None, **more: Any) -> dict[str, Any]:
    """One arm on one test set; the fifth label has too few films."""
    labels: list[dict[str, Any]] = []
    for place, label in enumerate(LABELS):
        one: dict[str, Any] = {"label": label, "state": "ok", "n_positive": 40, "n_negative": 400}
        one |= scored(value - 0.01 * (place % 4)) | (against(value - 0.8) if baseline else {})
        one |= {"p_adjusted": 0.01, "differs": True} if baseline else {}
        few = {key: one[key] for key in ("label", "n_positive", "n_negative")} | {"state": "insufficient n"}
        labels.append(few if place == 4 else one)
    macro = {"labels": 13, **scored(value), **(against(value - 0.8) if baseline else {})}
    found = {"arm": arm, "test": "test", "n": 440, "patients": 300, "macro": macro, "labels": labels}
    return found | {"baseline": baseline, "subgroups": []} | more


def study() -> dict[str, Any]:
    """Results of all arms, as `utility.classification` gives them."""
    groups = [
        {
            "column": "sex",
            "group": name,
            "n": 200,
            "labels": 9,
            "state": "ok",
            "auroc": 0.8,
            "auroc_interval": [0.7, 0.9],
        }
        | {"auroc_gap": gap, "auroc_gap_interval": [gap - 0.05, gap + 0.05], "missed": 0.3, "missed_interval": None}
        | {"missed_gap": -gap, "missed_gap_interval": [-gap - 0.05, -gap + 0.05]}
        for name, gap in (("female", 0.02), ("male", -0.02))
    ]
    groups.append({"column": "age", "group": "below 40", "n": 3, "labels": 0, "state": "insufficient n"})
    values = {"trtr": (0.85, None), "trtr-matched": (0.82, None), "tstr": (0.71, "trtr-matched"),
              "mix-0.5": (0.86, "trtr"), "mix-1": (0.87, "trtr"), "pretrain": (0.86, "trtr")}  # fmt: skip
    rows = [row(arm, value, base, subgroups=groups) for arm, (value, base) in values.items()]
    rows.append(row("trts", 0.9, "trtr", test="synthetic", unpaired=True))
    mix = [{"test": "test", "arm": one["arm"], "ratio": ratio, **one["macro"]} for one, ratio in
           zip([rows[0], *rows[3:5]], (0.0, 0.5, 1.0), strict=True)]  # fmt: skip
    lines = [{"epoch": n, "train_loss": 0.7 - 0.1 * n, "validation_loss": 0.7 - 0.08 * n} for n in (1, 2, 3)]
    return {
        "learner": {"kind": "linear probe", "name": "rad-dino", "seen": "MIMIC-CXR"},
        "baseline": "trtr",
        "seeds": 3,
        "arms": [
            {"arm": arm, "title": f"Arm {arm}", "n_real": 800, "n_synthetic": 200, "baseline": base, "ratio": None}
            for arm, (_, base) in values.items()
        ],
        "left_out": {"mix-2": "needs 1,600 synthetic films, got 900"},
        "scores": rows,
        "mix": mix,
        "curves": {arm: [lines, lines] for arm in ("trtr", "tstr", "pretrain")},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """What a page needs."""
    return {"title": "Utility", "domain": "radiographs", "utility": {"classification": study()}}


def test_every_plot_is_drawn_and_saved(results: dict[str, Any], tmp_path: Path) -> None:
    page = write_report(results, tmp_path).read_text()
    names = {path.stem for path in (tmp_path / "plots").glob("*.png")}
    assert names == {"utility_arms__test", "utility_mix__test", "utility_labels__test", "utility_curves"}
    for text in ("insufficient n", "mix-2 was left out", "sex: female", "trained on: MIMIC-CXR", "Learning curves"):
        assert text in page
    assert "training on synthetic films alone reaches a mean AUROC of 0.710" in page


def test_a_report_without_a_study_has_no_such_section(tmp_path: Path) -> None:
    page = write_report({"title": "None", "overall": []}, tmp_path).read_text()
    assert 'id="utility"' not in page
    assert utility.section({}, {}) == []


def test_words_of_plots_say_their_numbers(results: dict[str, Any]) -> None:
    drawn = {plot.name: plot for plot in utility.draw(results) if plot is not None}
    assert "tstr 0.710" in drawn["utility_arms__test"].alt
    assert "chance 0.5" in drawn["utility_arms__test"].alt
    assert "0.5: 0.860" in drawn["utility_mix__test"].alt
    assert "1 label is not scored" in drawn["utility_labels__test"].alt
    assert isinstance(drawn["utility_curves"], canvas.Plot)


def test_a_setting_of_the_benchmark_is_not_said_to_be_of_one_size(results: dict[str, Any]) -> None:
    """`all_original` has all real films, however few synthetic ones there are."""
    assert "on as many real films 0.820" in utility.headlines(results)[0]
    names = {"tstr": "all_synthetic", "trtr": "all_original"}
    rows = [
        row | {"arm": names[row["arm"]]}
        for row in results["utility"]["classification"]["scores"]
        if row["arm"] in names
    ]
    found = results | {"utility": {"classification": results["utility"]["classification"] | {"scores": rows}}}
    assert "on all real films 0.850" in utility.headlines(found)[0]
    plot = utility.labels(rows, "x", "test", None)
    assert plot is not None
    assert "trained on all real films" in plot.caption


def test_trts_is_not_said_to_be_on_the_same_films(results: dict[str, Any]) -> None:
    rows = utility.by_test(results)["test"]
    assert rows[-1]["arm"] == "trts"
    assert "TRTS is tested on synthetic films" in utility.arms(rows, results).note


def test_bars_begin_at_chance_and_may_lie_below_it(results: dict[str, Any]) -> None:
    rows = copy.deepcopy(results["utility"]["classification"]["scores"][:2])
    rows[1]["macro"] |= {"auroc": 0.44, "auroc_interval": [0.4, 0.48]}
    plot = utility.bars(rows, "x", "test", None)
    assert plot is not None
    axes = plot.figure.axes[0]
    assert axes.get_xlim()[0] == pytest.approx(0.4)
    assert sorted(round(bar.get_width(), 2) for bar in axes.patches) == [-0.06, 0.35]  # type: ignore[attr-defined]


def test_an_arm_without_scores_leaves_dashes(results: dict[str, Any]) -> None:
    found = results["utility"]["classification"]
    for one in found["scores"]:
        one["macro"] = dict.fromkeys(one["macro"]) | {"labels": 0}
        one["labels"] = [{**label, "state": "insufficient n"} for label in one["labels"]]
    assert [plot for plot in utility.draw(results | {"utility": {"classification": found | {"curves": {}, "mix": []}}})
            if plot is not None] == []  # fmt: skip
    assert utility.headlines(results) == []
    assert utility.section(results, {})
