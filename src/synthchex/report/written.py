"""Report generation on the page: scores over percentages, and what they were taken from. Knows no reports but examples.

Grey is the writer that learned from real films, blue the one that learned from synthetic ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from synthchex.report.blocks import Block, Cell, Column, Drawer, Plots, Rows, Table, Text
from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.report.text import ABSENT, bounds, count, finite, interval, number, some

Results = Mapping[str, Any]
Arm = Mapping[str, Any]
NAMES = ("report_generation",)
# Drawn first to last, as many as there is room for.
SHOWN = ("bleu_4", "rouge_l", "micro_f1_14", "macro_f1_14", "f1_radgraph", "bleu_1")
PANELS = 4
STYLES = {"real": ("reference", "D", -0.09), "synthetic": ("synthetic", "o", 0.09)}
DIGITS = 3


def draw(results: Results) -> list[Plot | None]:
    """Scores over percentages: real and synthetic with intervals, and the report that is the same for all films."""
    told = results.get("report_generation") or {}
    arms = told.get("arms") or []
    there = [name for name in SHOWN if arms and name in arms[0]["scores"]][:PANELS]
    if not there:
        return []
    percentages = sorted({float(one["percentage"]) for one in arms})
    deep = -(-len(there) // 2)
    with canvas(0.5 + 1.9 * deep, results.get("domain")) as figure:
        panels = figure.subplots(deep, 2, squeeze=False).ravel()
        for axes, name in zip(panels, there, strict=False):
            _panel(axes, name, arms, told.get("baseline") or {}, percentages)
        for axes in panels[len(there) :]:
            axes.set_axis_off()
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=3, borderaxespad=0.2, columnspacing=1.2)
    over = "patients" if told["test"]["patients"] else "films"
    caption = f"Dot: score on {some(told['test']['films'], 'real test film')}, mean over seeds. Line: interval over "
    caption += f"{over}. Dashed: the commonest report for every film. Higher is better; the axes begin at 0."
    words = "; ".join(f"{_title(one)}: {_main(one)}" for one in arms)
    return [Plot(NAMES[0], "Report generation", caption, f"{words}. The table has all scores.", figure)]


def _panel(axes: Axes, name: str, arms: Sequence[Arm], base: Mapping[str, Any], percentages: Sequence[float]) -> None:
    """One score of all arms."""
    top = 0.0
    for arm, (colour, marker, aside) in STYLES.items():
        mine = sorted((one for one in arms if one["arm"] == arm), key=lambda one: float(one["percentage"]))
        places = [percentages.index(float(one["percentage"])) + aside for one in mine]
        values = [float(one["scores"][name]["value"]) for one in mine]
        for place, one in zip(places, mine, strict=True):
            found = bounds(one["scores"][name]["interval"])
            if found is not None:
                axes.plot([place] * 2, found, color=LIGHT[colour], linewidth=1.4, solid_capstyle="butt")
                top = max(top, found[1])
        if mine:
            style: Any = {"color": LIGHT[colour], "markersize": 5, "markeredgewidth": 0, "linewidth": 0.8}
            axes.plot(places, values, f"{marker}-", label=arm, **style)
            top = max(top, *values)
    level = finite(((base.get("scores") or {}).get(name) or {}).get("value"))
    if level is not None:
        axes.axhline(level, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (4, 3)), label="commonest report")
    axes.set_ylim(0, 1.12 * max(top, level or 0.0, 1e-3))
    axes.set_xticks(range(len(percentages)), [f"{one:g} %" for one in percentages])
    axes.set_xlim(-0.5, len(percentages) - 0.5)
    axes.grid(axis="y")
    axes.set_title(str(arms[0]["scores"][name]["label"]), fontsize=9, color=LIGHT["ink"], loc="left")


def section(results: Results, figures: Mapping[str, Plot]) -> list[Block]:
    """Plot, scores, labels, how it was done, examples of open films."""
    told = results.get("report_generation")
    if not told:
        return []
    blocks: list[Block] = [Plots([figures[name] for name in NAMES if name in figures])]
    blocks += [_scores(told), _differences(told)] if any(one["difference"] for one in told["arms"]) else [_scores(told)]
    if told["arms"][0]["labels"]:
        blocks.append(Drawer("F1 of each label", [_labels(told)]))
    blocks.append(Drawer("How the reports were made and scored", [_trained(told), Text(_methods(told))]))
    if told["warnings"]:
        blocks.append(Text([f"Note: {text}." for text in told["warnings"]], small=True))
    if told["examples"]:
        blocks.append(Drawer("Reports of some test films", [_examples(told)]))
    return blocks


def headlines(results: Results) -> list[str]:
    """A sentence on the largest synthetic arm beside its real one."""
    told = results.get("report_generation") or {}
    mine = [one for one in told.get("arms") or [] if one["difference"]]
    if not mine:
        return []
    last = max(mine, key=lambda one: float(one["percentage"]))
    name = next((name for name in ("micro_f1_14", "rouge_l") if name in last["scores"]), None)
    if name is None:
        return []
    score, gap = last["scores"][name], last["difference"]["scores"][name]
    return [
        f"A report writer trained on synthetic films reaches {score['label']} {number(score['value'], DIGITS)} on real "
        f"films; against one trained on real films ({last['difference']['to']}) the difference is "
        f"{number(gap['value'], DIGITS, signed=True)} (interval {interval(gap['interval'], DIGITS)})."
    ]


def lines(told: Mapping[str, Any]) -> list[str]:
    """The scores as plain text for the end of a run."""
    names = list(told["arms"][0]["scores"])[:8]
    systems = [*told["arms"], {"arm": "commonest report", **told["baseline"]}]
    rows = [("", *(told["arms"][0]["scores"][name]["label"] for name in names))]
    rows += [(_title(one), *(number(one["scores"][name]["value"], DIGITS) for name in names)) for one in systems]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*table, *(f"warning: {text}" for text in told["warnings"])]


def _title(one: Arm) -> str:
    return f"{one['arm']}, {one['percentage']:g} %" if "percentage" in one else str(one["arm"])


def _main(one: Arm) -> str:
    found = [score for name, score in one["scores"].items() if name in SHOWN]
    return ", ".join(f"{score['label']} {number(score['value'], DIGITS)}" for score in found)


def _scores(told: Mapping[str, Any]) -> Table:
    """A row for each score, a column for each arm, intervals below the values."""
    systems = [*told["arms"], {"arm": "commonest report", **told["baseline"]}]
    note = f"by what the writer was trained on; {some(told['test']['films'], 'test film')}; intervals at "
    note += (
        f"{told['confidence']:.0%} over {'patients' if told['test']['patients'] else 'films, patients being unknown'}"
    )
    columns = [Column("Score", "text"), *(Column(_title(one)) for one in systems)]
    return Table("Scores", note, columns, [Rows("", _by_score(told, [one["scores"] for one in systems]))])


def _differences(told: Mapping[str, Any]) -> Table:
    """A row for each score, a column for each synthetic arm: synthetic less real, paired."""
    mine = [one for one in told["arms"] if one["difference"]]
    columns = [Column("Score", "text"), *(Column(f"{_title(one)}, less {one['difference']['to']}") for one in mine)]
    rows = _by_score(told, [one["difference"]["scores"] for one in mine], signed=True)
    return Table("Synthetic less real", "the same test films and resamples", columns, [Rows("", rows)])


def _by_score(
    told: Mapping[str, Any], systems: Sequence[Mapping[str, Any]], *, signed: bool = False
) -> list[list[str | Cell]]:
    """The value of every score in several systems, with its interval below it."""
    rows: list[list[str | Cell]] = []
    for name, score in told["arms"][0]["scores"].items():
        found = [one[name] for one in systems]
        cells = [Cell(number(one["value"], DIGITS, signed=signed), interval(one["interval"], DIGITS)) for one in found]
        rows.append([str(score["label"]), *cells])
    return rows


def _labels(told: Mapping[str, Any]) -> Table:
    """F1 of each label by arm, uncertain counted as not positive."""
    columns = [Column("Label", "text"), *(Column(_title(one)) for one in told["arms"])]
    rows: list[list[str | Cell]] = []
    for place, label in enumerate(told["arms"][0]["labels"]):
        found = [one["labels"][place]["uncertain_negative"] for one in told["arms"]]
        cells = [Cell(number(one["value"], DIGITS), interval(one["interval"], DIGITS)) for one in found]
        rows.append([label["label"], *cells])
    return Table("F1 of each label", "uncertain counts as not positive", columns, [Rows("", rows)])


def _trained(told: Mapping[str, Any]) -> Table:
    """What each arm was trained on."""
    titles = ("Films", "Steps", "Epochs", "Seeds", "Reports cut in training", "Written reports cut")
    rows = [
        [
            _title(one), count(one["films"]), count(one["steps"]), number(one["epochs"], 1),
            " ".join(map(str, one["seeds"])), count(one["reports_cut"]), " ".join(map(str, one["truncated"])),
        ]
        for one in told["arms"]
    ]  # fmt: skip
    columns = [Column("Trained on", "text"), *(Column(title) for title in titles)]
    return Table("Training", "", columns, [Rows("", rows)])


def _methods(told: Mapping[str, Any]) -> list[str]:
    """How the scores were made, as paragraphs for a paper."""
    recipe, first = told["recipe"], told["arms"][0]
    how = "all weights" if recipe["full"] else f"LoRA of rank {recipe['rank']}, alpha {recipe['lora_alpha']}"
    by = told["labels_by"] or "no labeller"
    return [
        f"{first['model']} ({recipe['model']}, revision {first['revision']}) was fine-tuned ({how}) from the same "
        f"weights on each sample, with batches of {recipe['train_batch_size']} and a learning rate of "
        f"{recipe['learning_rate']:g} ({recipe['lr_scheduler_type']}); the loss is of the report's tokens only. "
        "Samples are random, and a smaller one is part of a larger one. Reports were decoded greedily, at most "
        f"{recipe['max_new_tokens']} tokens.",
        "BLEU is that of the corpus without smoothing, ROUGE-L the F measure with beta 1, both over tokens "
        f"({told['tokenizer']}). Label F1 is over the labels that {by} finds in true and written reports; '+' counts "
        "uncertain as positive, '5' is over atelectasis, cardiomegaly, consolidation, edema and pleural effusion. A "
        "label that no report has counts 0 in the macro mean.",
        f"Intervals are of {count(told['resamples'])} resamples of whole patients, the same for all arms, at "
        f"{told['confidence']:.0%}; they do not hold what another seed of training would change.",
    ]


def _examples(told: Mapping[str, Any]) -> Table:
    """True and written reports, of open films only."""
    arms = [key for key in told["examples"][0] if key not in ("id", "true")]
    columns = [
        Column("Film", "code"),
        Column("True report", "note"),
        *(Column(f"Trained on {arm}", "note") for arm in arms),
    ]
    rows = [[one["id"], one["true"], *(one[arm] or ABSENT for arm in arms)] for one in told["examples"]]
    return Table("Reports", "", columns, [Rows("", rows)])
