"""What `results.json` and CheXGenBench's CSV files say of report generation. Numbers only: no report is in them, unless
the films are open.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthchex.data import shards
from synthchex.utility.reports import scoring, units
from synthchex.utility.reports.cases import Cases
from synthchex.utility.reports.recipe import ReportRecipe
from synthchex.utility.reports.scoring import NAMES, Judge, Scored

EXAMPLES = 5
CSV_FIELDS = ("median", "ci_l", "ci_h")


def summarise(
    folder: Path,
    plan: Sequence[units.Unit],
    judge: Judge,
    train: Mapping[str, Cases],
    test: Cases,
    recipe: ReportRecipe,
    *,
    policy: str,
    notes: Sequence[str],
    labeller: str | None,
) -> dict[str, Any]:
    """`results["report_generation"]` from the reports in a folder.

    Args:
        plan: units, all finished.
        train: films of each arm.
        policy: of the films, as `policies` has it; examples are shown of open ones only.
        notes: warnings from before.
        labeller: name of the judge's.
    """
    scored, arms = dict[tuple[str, float], Scored](), list[dict[str, Any]]()
    for arm, percentage in dict.fromkeys((unit.arm, unit.percentage) for unit in plan):
        mine = [unit for unit in plan if (unit.arm, unit.percentage) == (arm, percentage)]
        written = [units.written(folder, unit, test) or [] for unit in mine]
        found = scored[arm, percentage] = judge.told([[one.text for one in run] for run in written])
        told = [units.summary(folder, unit) for unit in mine]
        arms.append(
            {
                "arm": arm,
                "percentage": percentage,
                "seeds": [unit.seed for unit in mine],
                **{key: told[0][key] for key in ("films", "steps", "epochs", "reports_cut", "model", "revision")},
                "trained_weights": told[0]["trained_weights"],
                "truncated": [sum(one.truncated for one in run) for run in written],
                "empty": [sum(not one.text for one in run) for run in written],
                **rows(found, judge),
            }
        )
    for told_arm in arms:
        told_arm["difference"] = against_real(told_arm, scored, judge)
    return {
        "recipe": recipe.hashed(),
        "test": {"films": len(test), "patients": None if test.patients is None else judge.patients},
        "labels_by": labeller,
        "tokenizer": judge.tokenizer,
        "resamples": len(judge.drawn),
        "confidence": judge.confidence,
        "arms": arms,
        "baseline": baseline(train, judge),
        "warnings": [*notes, *wordless(judge), *doubts(arms, len(test))],
        "examples": examples(folder, plan, test) if policy == "open" else [],
        "source_policy": policy,
    }


def rows(found: Scored, judge: Judge) -> dict[str, Any]:
    """Scores of one arm."""
    return {
        "scores": {
            name: {"label": NAMES[name], **scoring.row(one, confidence=judge.confidence)}
            for name, one in found.measures.items()
        },
        "labels": scoring.per_label(found.labels, confidence=judge.confidence) if found.labels else [],
    }


def against_real(
    told: Mapping[str, Any], scored: Mapping[tuple[str, float], Scored], judge: Judge
) -> dict[str, Any] | None:
    """Synthetic less real at the same percentage, or at the largest there is; None for real arms or without one."""
    real = [percentage for arm, percentage in scored if arm == "real"]
    if told["arm"] == "real" or not real:
        return None
    beside = told["percentage"] if told["percentage"] in real else max(real)
    mine, theirs = scored[told["arm"], told["percentage"]].measures, scored["real", beside].measures
    differences = {
        name: scoring.difference(mine[name], theirs[name], confidence=judge.confidence) for name in judge.names
    }
    return {"to": f"real, {beside:g} %", "scores": differences}


def baseline(train: Mapping[str, Cases], judge: Judge) -> dict[str, Any]:
    """What a report scores that is the same for every film: the commonest of the real training reports."""
    arm = "real" if "real" in train else next(iter(train))
    text = scoring.commonest(train[arm].reports)
    found = judge.told([[text] * len(judge.reports)])
    return {"what": f"the commonest report of the {arm} training set, for every film", **rows(found, judge)}


def wordless(judge: Judge) -> list[str]:
    """True reports that the tokenizer finds no word in, such as those of another script: BLEU and ROUGE-L are blind."""
    count = sum(not one for one in judge.tokens)
    return (
        [
            f"{count} of {len(judge.tokens)} true reports have no word of a to z and digits; they count with BLEU and "
            "ROUGE-L of 0, whatever is written: see --tokenizer"
        ]
        if count
        else []
    )


def doubts(arms: Sequence[Mapping[str, Any]], films: int) -> list[str]:
    """What a reader should know before believing the numbers."""
    told = []
    for one in arms:
        name = f"{one['arm']}, {one['percentage']:g} %"
        if any(one["truncated"]):
            told.append(
                f"{name}: {max(one['truncated'])} of {films} reports were cut at the longest that may be written"
            )
        if any(one["empty"]):
            told.append(f"{name}: {max(one['empty'])} of {films} reports are empty; they count with a score of 0")
        if one["reports_cut"]:
            told.append(f"{name}: {one['reports_cut']} reports were too long to be learned whole")
    sizes = {(one["percentage"], one["films"]) for one in arms}
    if len(sizes) > len({percentage for percentage, _ in sizes}):
        told.append("the arms learned from different numbers of films at the same percentage")
    if all(len(one["seeds"]) == 1 for one in arms):
        told.append("one seed of training each: differences may be those of the seed")
    return told


def examples(folder: Path, plan: Sequence[units.Unit], test: Cases) -> list[dict[str, str]]:
    """True and written reports of some films, spread over the test set, by the last unit of each arm."""
    last = {unit.arm: unit for unit in plan}
    written = {arm: units.written(folder, unit, test) or [] for arm, unit in last.items()}
    chosen = [place * len(test) // EXAMPLES for place in range(min(EXAMPLES, len(test)))]
    return [
        {
            "id": test.films.ids[place],
            "true": test.reports[place],
            **{arm: run[place].text for arm, run in written.items()},
        }
        for place in chosen
    ]


def write_csv(folder: Path, results: Mapping[str, Any], name: str) -> list[Path]:
    """CheXGenBench's `main_`, `breakdown_p_` and `breakdown_n_{name}_percentage_{p}.csv` of the synthetic arms.

    Columns are median, ci_l, ci_h of the resamples, 0 to 1; "p" counts uncertain as positive, "n" as negative. There
    the column `median` of BLEU is the score itself, of 100.
    """
    made = []
    for one in results["arms"]:
        if one["arm"] != "synthetic":
            continue
        end = f"{name}_percentage_{one['percentage']:g}.csv"
        made.append(_table(folder / f"main_{end}", "metric", [(s["label"], s) for s in one["scores"].values()]))
        for letter, policy in (("p", "uncertain_positive"), ("n", "uncertain_negative")):
            if one["labels"]:
                found = [(label["label"], label[policy]) for label in one["labels"]]
                made.append(_table(folder / f"breakdown_{letter}_{end}", "label", found))
    return made


def _table(path: Path, key: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([key, *CSV_FIELDS])
    for name, score in rows:
        writer.writerow([name, *(f"{value:.6f}" for value in (score["median"], *score["interval"]))])
    shards.write_whole(path, text.getvalue().encode())
    return path
