"""The section "Utility": what a classifier trained on synthetic films is worth on real ones. Rows in, plots and tables
out; measures nothing.

Of `utility.classification` in results.json. Plots of a test set are named after it: `utility_arms__test`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, MultipleLocator

from synthchex.report import forest
from synthchex.report.blocks import Block, Cell, Column, Drawer, Heading, Plots, Rows, Table, Text
from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.report.text import ABSENT, bounds, count, endings, finite, interval, number, probability

Row = Mapping[str, Any]
NAMES = ("utility_arms", "utility_mix", "utility_labels", "utility_curves")
LINE = 0.42  # inches per arm
PAIRS = (("tstr", "trtr-matched"), ("tstr", "trtr"), ("all_synthetic", "all_original"))
COLOURS = {"trtr": "reference", "trtr-matched": "reference", "all_original": "reference", "trts": "sand"}
BESIDE = {"average_precision": "AP", "f1": "F1", "precision": "Precision", "recall": "Recall", "brier": "Brier",
          "ece": "ECE"}  # fmt: skip


def found(results: Row) -> Row:
    """The study, or nothing."""
    return (results.get("utility") or {}).get("classification") or {}


def by_test(results: Row) -> dict[str, list[Row]]:
    """Rows of scores by test set; TRTS, whose test set is synthetic, stands with the first."""
    rows: dict[str, list[Row]] = {}
    for row in found(results).get("scores") or []:
        rows.setdefault(next(iter(rows)) if row.get("unpaired") and rows else str(row["test"]), []).append(row)
    return rows


def titles(results: Row) -> dict[str, str]:
    """What each arm is called; a row that no arm was trained for by its own words."""
    known = {str(arm["arm"]): str(arm["title"]) for arm in found(results).get("arms") or []}
    return {"trts": "TRTS: train real, test synthetic", **known}


def short(arm: str) -> str:
    """An arm beside its bar."""
    known = {"trtr": "TRTR", "trtr-matched": "TRTR, size of TSTR", "tstr": "TSTR", "trts": "TRTS"}
    known |= {"pretrain": "synthetic first"}
    return known.get(arm) or (f"+ {arm[4:]} x synthetic" if arm.startswith("mix-") else arm)


def draw(results: Row) -> list[Plot | None]:
    """Every plot of the section."""
    domain, named, rows = results.get("domain"), titles(results), by_test(results)
    drawn: list[Plot | None] = []
    for test, end in endings(rows).items():
        mix = [row for row in found(results).get("mix") or [] if row["test"] == test]
        drawn += [bars(rows[test], f"utility_arms{end}", test, domain)]
        drawn += [curve(mix, f"utility_mix{end}", test, domain)]
        drawn += [labels(rows[test], f"utility_labels{end}", test, domain)]
    return [*drawn, learning(found(results).get("curves") or {}, named, domain)]


def section(results: Row, figures: Mapping[str, Plot]) -> list[Block]:
    """Of each test set: bars, mix curve and labels, the table of arms, drawers of labels and groups."""
    rows = by_test(results)
    if not rows:
        return []
    blocks: list[Block] = [Text(learner(results))]
    for test, end in endings(rows).items():
        shown = [figures[f"{name}{end}"] for name in NAMES[:3] if f"{name}{end}" in figures]
        blocks += [Heading(test)] if len(rows) > 1 else []
        blocks += [Plots(shown)] if shown else []
        blocks += [arms(rows[test], results)]
        blocks += [Drawer("Every label of every arm", [per_label(row, titles(results)) for row in rows[test]])]
        groups = subgroups(rows[test], titles(results))
        blocks += [Drawer("By sex, age and view", [groups])] if groups is not None else []
    left = found(results).get("left_out") or {}
    blocks += [Plots([figures["utility_curves"]])] if "utility_curves" in figures else []
    told = [f"{named} was left out: {reason}." for named, reason in left.items()]
    return [*blocks, *([Text(told, small=True)] if told else [])]


def learner(results: Row) -> list[str]:
    """What was trained, and what the features have seen."""
    one = found(results).get("learner") or {}
    told = f"{str(one.get('kind') or 'classifier').capitalize()}: {one.get('name')}."
    told += f" The features were trained on: {one['seen']}." if one.get("seen") else ""
    told += f" {count(found(results).get('seeds'))} seeds; values are means over seeds and labels."
    return [told, "All arms are tried on the same films. What training on synthetic films costs is the difference of "
            "TSTR to TRTR at equal size; what they add to real films is the mix curve."]  # fmt: skip


def headlines(results: Row) -> list[str]:
    """A sentence per test set for the top of the page."""
    told = []
    for test, rows in by_test(results).items():
        known = {str(row["arm"]): row["macro"] for row in rows}
        pair = next((pair for pair in PAIRS if set(pair) <= set(known)), None)
        if pair is None or finite(known[pair[0]].get("auroc")) is None:
            continue
        ours, base = (known[name] for name in pair)
        text = f"On {test}, training on synthetic films alone reaches a mean AUROC of {number(ours['auroc'], 3)}, "
        text += f"on {_real(pair[0])} {number(base['auroc'], 3)}"
        ends = interval(ours.get("difference_interval"), 3)
        text += f" (difference {number(ours.get('difference'), 3, signed=True)}, {ends}); chance is 0.5."
        told.append(text)
    return told


def _real(arm: str) -> str:
    """The real films that an arm of synthetic ones is compared with; those of a benchmark's setting may be more."""
    return "as many real films" if arm == "tstr" else "all real films"


def bars(rows: Sequence[Row], name: str, test: str, domain: str | None) -> Plot | None:
    """Mean AUROC of every arm as a bar that begins at chance, its interval, and each seed as a dot."""
    rows = [row for row in rows if finite(row["macro"].get("auroc")) is not None]
    if not rows:
        return None
    values = [float(row["macro"]["auroc"]) for row in rows]
    with canvas(0.8 + LINE * len(rows), domain) as figure:
        axes = figure.subplots()
        forest._names(axes, [short(str(row["arm"])) for row in rows])
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            colour = LIGHT[COLOURS.get(str(row["arm"]), "tint")]
            axes.barh([place], [value - 0.5], left=0.5, height=0.5, color=colour, linewidth=0)
            _whisker(axes, bounds(row["macro"].get("auroc_interval")), place)
            seeds = row["macro"].get("auroc_seeds") or []
            axes.plot(seeds, [place + 0.36] * len(seeds), "o", color=LIGHT["muted"], markersize=2.2, markeredgewidth=0)
        axes.axvline(0.5, color=LIGHT["ink"], linewidth=1)
        axes.set_xlim(min(0.48, *(float((row["macro"].get("auroc_interval") or [0.5])[0]) for row in rows)), 1.0)
        axes.xaxis.set_major_locator(MultipleLocator(0.1))
        forest._beside(axes, "AUROC", {place: number(value, 3) for place, value in enumerate(values)})
        axes.set_xlabel(f"mean AUROC on {test} (bars begin at chance)")
    caption = "Bar: mean over labels and seeds, from chance (0.5); grey: real films alone, blue: with synthetic films. "
    caption += "Line: interval over patients of the test set; dots: single seeds. TRTS is tested on synthetic films, "
    caption += "all others on the same real ones."
    words = "; ".join(f"{row['arm']} {number(value, 3)}" for row, value in zip(rows, values, strict=True))
    return Plot(name, f"What was trained on, tested on {test}", caption, f"{words}; chance 0.5.", figure)


def _whisker(axes: Axes, pair: tuple[float, float] | None, place: float) -> None:
    if pair is not None:
        axes.plot(pair, [place, place], color=LIGHT["ink"], linewidth=1.4, solid_capstyle="butt")


def curve(rows: Sequence[Row], name: str, test: str, domain: str | None) -> Plot | None:
    """Mean AUROC against synthetic films per real film; intervals are those of the difference to real films alone."""
    rows = [row for row in rows if finite(row.get("auroc")) is not None]
    if len(rows) < 2:
        return None
    ratios, values = ([float(row[key]) for row in rows] for key in ("ratio", "auroc"))
    gaps = [bounds(row.get("difference_interval")) for row in rows]
    with canvas(2.4, domain) as figure:
        axes = figure.subplots()
        axes.axhline(values[0], color=LIGHT["reference"], linewidth=1.2, linestyle=(0, (3, 2)), label="real alone")
        for ratio, row, gap in zip(ratios, rows, gaps, strict=True):
            seeds = row.get("auroc_seeds") or []
            axes.plot([ratio] * len(seeds), seeds, "o", color=LIGHT["stone"], markersize=2.6, markeredgewidth=0)
            if gap is not None:
                ends = [values[0] + end for end in gap]
                axes.plot([ratio] * 2, ends, color=LIGHT["synthetic"], linewidth=1.4, solid_capstyle="butt")
        axes.plot(ratios, values, "o-", color=LIGHT["synthetic"], markersize=5, label="with synthetic films")
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set(xlabel="synthetic films per real film", ylabel="mean AUROC")
        figure.legend(loc="outside upper left", ncols=2, borderaxespad=0.2, columnspacing=1.2)
    caption = (
        "All real training films, and synthetic films beside them. Line: interval of the difference to real films "
    )
    caption += (
        "alone (dashed), on the same test films; one that crosses the dashed line leaves the effect open. Small dots: "
    )
    caption += "single seeds. The axis does not begin at 0."
    words = ", ".join(f"{ratio:g}: {number(value, 3)}" for ratio, value in zip(ratios, values, strict=True))
    return Plot(name, f"Synthetic films beside real ones, tested on {test}", caption, f"Mean AUROC by ratio {words}.",
                figure)  # fmt: skip


def labels(rows: Sequence[Row], name: str, test: str, domain: str | None) -> Plot | None:
    """AUROC per label of the model of synthetic films, beside that of as many real films."""
    known = {str(row["arm"]): row for row in rows}
    pair = next((pair for pair in PAIRS if set(pair) <= set(known)), None)
    if pair is None:
        return None
    ours, base = ({row["label"]: row for row in known[arm]["labels"]} for arm in pair)
    lines = [
        {**row, "auroc_real": base[label].get("auroc"), "auroc_real_interval": base[label].get("auroc_interval")}
        for label, row in ours.items()
    ]
    drawn = forest.faithfulness({"labels": lines}, name, domain)
    if drawn is None:
        return None
    caption = f"Blue dot: trained on synthetic films alone. Grey diamond: trained on {_real(pair[0])}. Both on the "
    caption += "same real test films; mean over seeds, line: interval over patients. Difference: synthetic minus real."
    return replace(drawn, title=f"Trained on synthetic or on real films, by label, tested on {test}", caption=caption)


def learning(curves: Mapping[str, Sequence[Sequence[Row]]], named: Row, domain: str | None) -> Plot | None:
    """Loss of every epoch of fine-tuned backbones, on training and on validation films, one line per seed."""
    curves = {arm: seeds for arm, seeds in curves.items() if any(seeds)}
    if not curves:
        return None
    lines = -(-len(curves) // 2)
    with canvas(0.4 + 1.45 * lines, domain) as figure:
        places = figure.subplots(lines, 2, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, (arm, seeds) in zip(places, curves.items(), strict=False):
            for key, colour in (("train_loss", "reference"), ("validation_loss", "synthetic")):
                for number_, epochs in enumerate(seeds):
                    steps = [float(one["epoch"]) for one in epochs]
                    label = key.replace("_", " ") if number_ == 0 and axes is places[0] else None
                    axes.plot(steps, [one[key] for one in epochs], color=LIGHT[colour], linewidth=1.1, label=label)
            axes.set_title(str(named.get(arm, arm)).partition(":")[0], fontsize=8.5, loc="left")
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for axes in places[len(curves) :]:
            axes.set_axis_off()
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("masked cross-entropy", fontsize=9)
        figure.legend(loc="outside upper left", ncols=2, borderaxespad=0.2, columnspacing=1.2)
    ends = "; ".join(
        f"{arm} lowest at {number(min(one['validation_loss'] for run in seeds for one in run), 3)}"
        for arm, seeds in curves.items()
    )
    caption = (
        "Loss of training films (grey; with the rotations and shifts of training) and of validation films (blue), "
    )
    caption += "one line per seed. The weights with the lowest validation loss were kept."
    return Plot("utility_curves", "Learning curves", caption, f"Validation loss: {ends}.", figure)


def arms(rows: Sequence[Row], results: Row) -> Table:
    """Every arm on one test set: sizes, AUROC with interval and seeds, difference to its baseline, other scores."""
    sizes = {str(arm["arm"]): arm for arm in found(results).get("arms") or []}
    sizes["trts"] = sizes.get("trtr", {})
    columns = [Column("Arm", "text"), Column("Real / synth. films", "quiet"), Column("AUROC", "value")]
    columns += [Column("Seeds", "quiet"), Column("Difference", "value"), Column("p"), Column("To")]
    columns += [Column(name) for name in BESIDE.values()]
    lines: list[list[str | Cell]] = []
    for row in rows:
        macro, size = row["macro"], sizes.get(str(row["arm"]), {})
        line: list[str | Cell] = [str(titles(results).get(row["arm"], row["arm"]))]
        line += [f"{count(size.get('n_real'))} / {count(size.get('n_synthetic'))}", _estimate(macro, "auroc")]
        line += [_range(macro.get("auroc_seeds")), _estimate(macro, "difference", signed=True)]
        line += [probability(macro.get("p_value")), str(row.get("baseline") or "")]
        lines.append([*line, *(_estimate(macro, key) for key in BESIDE)])
    labelled = rows[0]["macro"].get("labels") if rows else None
    note = f"Means over {count(labelled)} labels and all seeds; under a value, its interval over patients. Seeds: "
    note += "lowest and highest. Difference: to the arm named under To, on the same test films; TRTS is tested on "
    note += "synthetic films, the arm beside it on real ones. AP at chance is the "
    note += "share of films with the label; F1, precision and recall at thresholds from validation films; Brier and "
    note += "ECE (calibration): lower is better."
    return Table("Arms", note, columns, [Rows("", lines)]).compact()


def per_label(row: Row, named: Row) -> Table:
    """Every label of one arm; one that was not scored says why."""
    columns = [Column("Label"), Column("n positive / negative", "quiet"), Column("AUROC", "value")]
    columns += [Column("Seeds", "quiet"), Column("Difference"), Column("p adjusted"), *map(Column, BESIDE.values())]
    lines: list[list[str | Cell]] = []
    for one in row["labels"]:
        line: list[str | Cell] = [str(one["label"]), f"{count(one['n_positive'])} / {count(one['n_negative'])}"]
        if one["state"] != "ok":
            lines.append([*line, Cell(str(one["state"]), width=len(columns) - 2)])
            continue
        line += [_estimate(one, "auroc"), _range(one.get("auroc_seeds")), _estimate(one, "difference", signed=True)]
        lines.append([*line, probability(one.get("p_adjusted")), *(_estimate(one, key) for key in BESIDE)])
    note = "p values are adjusted over the labels by Holm." if row.get("baseline") else ""
    title = str(named.get(row["arm"], row["arm"]))
    return Table(f"{title}, on {row['test']}", note, columns, [Rows("", lines)]).compact()


def subgroups(rows: Sequence[Row], named: Row) -> Table | None:
    """Scores of every arm by group; None where no column is known."""
    columns = [Column("Group"), Column("n"), Column("AUROC", "value"), Column("AUROC gap"), Column("Missed", "value")]
    columns += [Column("Missed gap"), Column("Labels", "quiet")]
    groups = []
    for row in rows:
        lines: list[list[str | Cell]] = []
        for one in row.get("subgroups") or []:
            line: list[str | Cell] = [f"{one['column']}: {one['group']}", count(one["n"])]
            if one["state"] != "ok":
                lines.append([*line, Cell(str(one["state"]), width=5)])
                continue
            line += [_estimate(one, "auroc"), _estimate(one, "auroc_gap", signed=True), _estimate(one, "missed")]
            lines.append([*line, _estimate(one, "missed_gap", signed=True), count(one["labels"])])
        groups += [Rows(str(named.get(row["arm"], row["arm"])), lines)] if lines else []
    note = "Missed: share of films with a finding that fall below its threshold, mean over labels. Gap: less the same "
    note += "of all other films of the column; under a value, its interval over patients."
    return Table("By group", note, columns, groups) if groups else None


def _estimate(row: Row, key: str, *, signed: bool = False) -> str | Cell:
    value = finite(row.get(key))
    if value is None:
        return ABSENT
    pair = bounds(row.get(f"{key}_interval"))
    return Cell(number(value, 3, signed=signed), interval(pair, 3) if pair else "")


def _range(values: Sequence[Any] | None) -> str:
    known = [value for value in map(finite, values or []) if value is not None]
    return f"{number(min(known), 3)} to {number(max(known), 3)}" if len(known) > 1 else ABSENT
