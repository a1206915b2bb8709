"""The analysis of a study as tables, plots and words: one HTML page, the same as Markdown, tables as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthchex.report import blocks, leaderboard, readers
from synthchex.report.blocks import Block, Column, Page, Plots, Rows, Section, Table, Text
from synthchex.report.canvas import Plot
from synthchex.report.text import ABSENT, count, number, probability

Results = Mapping[str, Any]
Cells = list[list[str]]
Shown = tuple[str, list[str], Cells]  # title, columns, rows of text

# What a reader of a paper on such a study looks for, after STARD 2015 and CLAIM 2020: item, where the answer is.
CHECKLIST = (
    ("Study question and hypotheses, registered before reading", "hypotheses"),
    ("Where the films come from, how they were drawn, exclusions", "arms"),
    ("Number of films in each arm and how it was chosen", "n"),
    ("Reference standard: what makes a film real or synthetic", "by construction"),
    ("Blinding: what readers knew of arms, prevalence and prompts", "blinding"),
    ("Readers: number, experience, how they were chosen", None),
    ("Display: film size, bit depth, zoom and window", "display"),
    ("Order, repeats and practice films", "design"),
    ("Analysis of accuracy with intervals for readers and films", "analysis"),
    ("Agreement between and within readers", "agreement"),
    ("Missing answers and excluded readers", "excluded"),
    ("Adverse use: what the films must not be used for", None),
    ("Data and code availability, ethics approval", None),
)


def tables(results: Results) -> dict[str, Shown]:
    """Every table by name."""
    found: dict[str, Shown] = {}
    if "authenticity" in results:
        found |= _authenticity(results["authenticity"])
    if "quality" in results:
        found |= _quality(results["quality"])
    if results.get("diagnosis"):
        found["diagnosis"] = _diagnosis(results["diagnosis"])
    if "preference" in results:
        found["preference"] = _preference(results["preference"]["pairs"])
    if results.get("correlations"):
        found["correlations"] = _correlations(results["correlations"])
    rows = [
        [row["reader"], count(row["answers"]), count(row["repeats"]), count(row["practice"]), row["excluded"] or "no"]
        for row in results["answers"]["readers"]
    ]
    return found | {"answers": ("Answers", ["Reader", "Answers", "Repeats", "Practice", "Excluded"], rows)}


def _diagnosis(found: Sequence[Results]) -> Shown:
    rows = [[row["label"], row["arm"], _share(row["sensitivity"]), _share(row["specificity"])] for row in found]
    return "Findings seen by most readers", ["Label", "Films", "Sensitivity", "Specificity"], rows


def _preference(found: Sequence[Results]) -> Shown:
    rows = [[" or ".join(row["models"]), _share(row["first"]), count(row["undecided"]), *_ps(row)] for row in found]
    columns = ["Models", "Prefer the first", "Undecided", "p", "p adjusted"]
    return "Preferences, one vote per pair", columns, rows


def _correlations(found: Sequence[Results]) -> Shown:
    rows = [
        [row["opinion"], row["metric"], count(row["n"]), number(row["rho"], 2), _ends(row["interval"], 2), *_ps(row)]
        for row in found
    ]
    columns = ["Readers", "Metric", "Films", "Spearman", "Interval", "p", "p adjusted"]
    return "Metrics beside readers' opinions of the same films", columns, rows


def _authenticity(found: Results) -> dict[str, Shown]:
    keys = ("accuracy", "sensitivity", "specificity", "fool_rate")
    columns = ["Reader", "Accuracy", "Sensitivity", "Specificity", "Fool rate", "d′", "c", "AUC", "p", "p adjusted"]
    rows = [
        [
            row["reader"],
            f"{number(row['balanced_accuracy']['value'], 3)} [{_ends(row['balanced_accuracy']['interval'], 3)}]",
            *(_share(row[key]) for key in keys[1:]),
            f"{number(row['d_prime'], 2)} [{_ends(row['d_prime_interval'], 2)}]",
            number(row["criterion"], 2),
            f"{number(row['auc'], 3)} [{_ends(row['auc_interval'], 3)}]",
            *_ps(row),
        ]
        for row in found["readers"]
    ]
    together = found["together"]
    of_all = [_mean(together[key]) for key in keys]
    rows.append(
        ["all readers", *of_all, ABSENT, ABSENT, _mean(together["auc"]), probability(together["p_value"]), ABSENT]
    )
    exact = [
        [row["reader"], *(f"{row[key]['hits']}/{row[key]['n']} [{_ends(row[key]['exact'], 3)}]" for key in keys)]
        for row in found["readers"]
    ]
    return {
        "authenticity": (
            "Real or synthetic (accuracy: mean of sensitivity and specificity; intervals: of one reader over "
            "films, Wilson for shares; of all over readers and films)",
            columns,
            rows,
        ),
        "exact": ("The same as counts with exact intervals (Clopper and Pearson)", ["Reader", *columns[1:5]], exact),
        **_beside(found),
    }


def _beside(found: Results) -> dict[str, Shown]:
    """Agreement of readers with themselves, rates by model and stratum, change along the order."""
    own = []
    for row in found["readers"]:
        within = [number(row["within"][key], 2) for key in ("agree", "kappa", "weighted_kappa")]
        own.append([row["reader"], count(row["within"]["n"]), *within, f"{number(row['seconds'], 1)} s"])
    parts = []
    for kind, name in (("models", "model"), ("strata", "stratum")):
        for row in found[kind]:
            value = f"{number(row['called_synthetic'], 3)} [{_ends(row['interval'], 3)}]"
            parts.append([name, row["part"], row["arm"], count(row["n"]), value])
    learned = [
        [row["reader"], *(number(row[key][part], 3) for key in ("right", "seconds") for part in ("rho", "p_value"))]
        for row in found["learning"]
    ]
    columns = ["Reader", "Repeats", "Same call", "Kappa", "Weighted kappa of confidence", "Median time"]
    return {
        "within": ("Agreement of readers with themselves on repeated films, and time", columns, own),
        "parts": ("Share called synthetic", ["By", "Part", "Films", "n", "Called synthetic"], parts),
        "learning": ("Change along the order (Spearman)", ["Reader", "Right: rho", "p", "Seconds: rho", "p "], learned),
    }


def _quality(found: Results) -> dict[str, Shown]:
    rows = [
        [row["model"], row["aspect"], count(row["n"]), number(row["mean"], 2), _ends(row["interval"], 2)]
        for row in found["models"]
    ]
    tests = [[row["aspect"], number(row["difference"], 2, signed=True), *_ps(row)] for row in found["tests"]]
    tags = [[model, tag, count(times)] for model, counts in found["tags"].items() for tag, times in counts.items()]
    return {
        "quality": ("Ratings, 1 to 5", ["Films", "Aspect", "n", "Mean", "Interval"], rows),
        "quality_tests": ("Synthetic less real", ["Aspect", "Difference", "p", "p adjusted"], tests),
        "tags": ("Failures that readers marked", ["Films", "Failure", "Times"], tags),
    }


def plots(results: Results) -> dict[str, list[Plot]]:
    """Figures by section."""
    found = {}
    if "authenticity" in results:
        part = results["authenticity"]
        found["authenticity"] = [
            readers.accuracy(part["readers"], part["together"]),
            readers.roc(part["readers"], part["together"]),
        ]
    if "quality" in results:
        found["quality"] = [readers.quality(results["quality"]["models"])]
    return found


def summary(results: Results) -> list[str]:
    """What was found, in plain words."""
    told = []
    if "authenticity" in results:
        part = results["authenticity"]
        found, alike = part["together"], part["together"]["equivalence"]
        alpha, cases = results["study"]["design"]["alpha"], part["cases"]
        area = f"{number(found['accuracy']['value'], 3)} ({_ends(_low_high(found['accuracy']), 3)})"
        told.append(
            f"{_some(found['readers'], 'reader')} told synthetic from real films with an accuracy of {area} "
            f"on {_some(cases['read_by_all'], 'film')} that all of them called; against chance p "
            f"{probability(found['p_value'])}."
        )
        margin = f"0.5 ± {alike['margin']:g}"
        told.append(
            f"That accuracy is equivalent to chance within {margin} (two one-sided tests, p "
            f"{probability(alike['p_value'])})."
            if alike["equivalent"]
            else f"Films were not shown to be indistinguishable: equivalence to {margin} has p "
            f"{probability(alike['p_value'])}. A p value above {alpha:g} against chance would not show it either."
        )
        kappa = part["agreement"]
        if kappa["kappa"] is not None:
            told.append(
                f"Readers agree with {kappa['statistic']} {number(kappa['kappa'], 2)} on {count(kappa['n'])} films."
            )
    if "quality" in results:
        tested = [row for row in results["quality"]["tests"] if row["p_adjusted"] is not None]
        worse = [row["aspect"] for row in tested if row["p_adjusted"] < results["study"]["design"]["alpha"]]
        first = results["quality"]["models"][0]["aspect"]
        rated = _some(sum(row["n"] for row in results["quality"]["models"] if row["aspect"] == first), "film")
        names = f"differ in {', '.join(worse)}" if worse else "were not shown to differ from real ones in any aspect"
        told.append(
            f"Ratings of synthetic films {names} (Mann and Whitney over {rated} that all readers rated, Holm)."
            if tested
            else f"Ratings could not be tested: all readers rated only {rated}; exclude readers who have only begun."
        )
    return told


def checklist(results: Results) -> Cells:
    """Items of a report on such a study and what this study can say of them; the rest is for its authors."""
    design, arms = results["study"]["design"], results["study"]["arms"]
    said = {
        "hypotheses": f"manifest SHA-256 {results['study']['sha256']}; {'; '.join(results['study']['hypotheses'])}",
        "arms": "; ".join(f"{arm['arm']}: {arm['model']}, policy {arm['source_policy']}" for arm in arms),
        "n": f"{design['n']} films of each arm; power: `synthchex study power`",
        "by construction": "known by construction: the set that a film was drawn from",
        "blinding": "opaque names, films re-encoded alike, order random per reader, prevalence not disclosed",
        "display": f"{design['size']} px, 8 bit grey, zoom and window logged",
        "design": f"{design['repeats']:g} of films repeated, {design['practice']} practice films before each task",
        "analysis": "Wilson, exact, DeLong; readers and cases by mean squares (Dorfman-Berbaum-Metz, Hillis)",
        "agreement": "tables below",
        "excluded": "; ".join(f"{name}: {why}" for name, why in results["answers"]["excluded"].items()) or "none",
    }
    return [[item, said[key] if key else "to be written by the authors"] for item, key in CHECKLIST]


def write(results: Results, out: Path) -> Path:
    """Writes `report.html`, `report.md`, `tables/*.tex` and `plots/` into a folder; the path of the page."""
    drawn, found = plots(results), tables(results)
    for folder in ("plots", "tables"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for figures in drawn.values():
        for figure in figures:
            figure.save(out / "plots")
    for name, (_, columns, rows) in found.items():
        if rows:
            (out / "tables" / f"{name}.tex").write_text(leaderboard.latex(leaderboard.Table(columns, rows)))
    (out / "report.md").write_text(markdown(results, found), encoding="utf-8")
    return blocks.write_page(out / "report.html", page(results, found, drawn))


def page(results: Results, found: Mapping[str, Shown], drawn: Mapping[str, Sequence[Plot]]) -> Page:
    """The HTML page."""
    titles = {
        "authenticity": ("Real or synthetic", ("authenticity", "exact", "within", "parts", "learning")),
        "quality": ("Quality", ("quality", "quality_tests", "tags")),
        "diagnosis": ("Findings", ("diagnosis",)),
        "preference": ("Preference", ("preference",)),
        "correlations": ("Metrics and readers", ("correlations",)),
        "answers": ("Answers", ("answers",)),
    }
    sections = []
    for name, (title, parts) in titles.items():
        shown: list[Block] = [Plots(drawn[name])] if name in drawn else []
        shown += [_block(*found[part]) for part in parts if part in found and found[part][2]]
        sections.append(Section(name, title, shown))
    items = _block("After STARD 2015 and CLAIM 2020", ["Item", "This study"], checklist(results), text=True)
    study = results["study"]
    sections.append(Section("checklist", "Checklist for the paper", [items]))
    sections.append(Section("design", "Design", [Text(_registered(study))]))
    return Page(
        study["title"], sections, facts=["reader study", f"manifest {study['sha256'][:12]}"], summary=summary(results)
    )


def markdown(results: Results, found: Mapping[str, Shown]) -> str:
    """The same in Markdown, without plots."""
    parts = [f"# {results['study']['title']}", "\n\n".join(summary(results))]
    for title, columns, rows in found.values():
        if rows:
            parts.append(f"## {title}\n\n{leaderboard.markdown(leaderboard.Table(columns, rows))}")
    items = leaderboard.markdown(leaderboard.Table(["Item", "This study"], checklist(results)))
    return (
        "\n\n".join([*parts, f"## Checklist for the paper\n\n{items}", "\n\n".join(_registered(results["study"]))])
        + "\n"
    )


def _registered(study: Results) -> list[str]:
    arms = "; ".join(f"{arm['films']} films of {arm['model']} ({arm['arm']})" for arm in study["arms"])
    told = [f"Manifest SHA-256 {study['sha256']}.", f"Arms: {arms}."]
    told += [f"Hypothesis: {text}" for text in study["hypotheses"]]
    return told + [f"Exclusion rule: {text}" for text in study["exclusions"]]


def _block(title: str, columns: Sequence[str], rows: Cells, *, text: bool = False) -> Table:
    kinds = [Column(name.strip(), "text" if text or place == 0 else "number") for place, name in enumerate(columns)]
    return Table(title, "", kinds, [Rows("", rows)])


def _share(found: Results | None) -> str:
    return ABSENT if found is None else f"{number(found['value'], 3)} [{_ends(found['wilson'], 3)}]"


def _mean(found: Results) -> str:
    return f"{number(found['value'], 3)} [{_ends(_low_high(found), 3)}]"


def _low_high(found: Results) -> list[float]:
    return [found["low"], found["high"]]


def _ends(pair: Sequence[float] | None, digits: int) -> str:
    return ABSENT if pair is None else f"{number(pair[0], digits)}, {number(pair[1], digits)}"


def _ps(row: Results) -> list[str]:
    return [probability(row["p_value"]), probability(row.get("p_adjusted"))]


def _some(number_of: int, what: str) -> str:
    return f"{number_of} {what}" + "s" * (number_of != 1)
