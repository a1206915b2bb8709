"""Figures of a reader study: readers beside each other, their ROC curves, ratings of real and synthetic films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.report.text import number

LINE = 0.3  # inches per reader
Row = Mapping[str, Any]


def accuracy(rows: Sequence[Row], together: Row) -> Plot:
    """Accuracy of each reader, both arms counting alike, and the mean over readers, with intervals."""
    names = [str(row["reader"]) for row in rows]
    with canvas(1.1 + LINE * (len(rows) + 1), None) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=LIGHT["reference"], linewidth=1.2, linestyle=(0, (4, 3)))
        for place, row in enumerate(rows):
            own = row["balanced_accuracy"]
            _dot(axes, place, own["value"], own["interval"], LIGHT["synthetic"], "o")
        if len(rows) > 1:
            _dot(axes, len(rows), together["accuracy"]["value"], _pair(together["accuracy"]), LIGHT["ink"], "D")
            names.append("all readers")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.grid(axis="x")
        axes.set_xlabel("Accuracy: mean of sensitivity and specificity (dashed: chance)")
    told = ", ".join(f"{row['reader']} {number(row['balanced_accuracy']['value'], 3)}" for row in rows)
    told += f"; all readers {number(together['accuracy']['value'], 3)}" if len(rows) > 1 else ""
    caption = (
        "Lines are intervals: for one reader Wilson's, or of new films where arms differ in size; for all of them, of "
        "new readers and new films."
    )
    return Plot("readers_accuracy", "Accuracy of readers", caption, f"Accuracy: {told}.", figure)


def roc(rows: Sequence[Row], together: Row) -> Plot:
    """ROC curve of each reader, from calls and confidences."""
    with canvas(3.6, None) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LIGHT["reference"], linewidth=1.2, linestyle=(0, (4, 3)), label="chance")
        for place, row in enumerate(rows):
            label = "one reader" if place == 0 else None
            axes.plot(*zip(*row["roc"], strict=True), color=LIGHT["tint"], linewidth=1.4, label=label)
            axes.plot(
                1 - row["specificity"]["value"],
                row["sensitivity"]["value"],
                "o",
                color=LIGHT["synthetic"],
                markersize=5,
                label="calls" if place == 0 else None,
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel="Real films called synthetic", ylabel="Synthetic films called synthetic")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(0.25))
        axes.grid(True)
        figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2)
    area = together["auc"]
    told = f"Mean area {number(area['value'], 3)}, interval {number(area['low'], 3)} to {number(area['high'], 3)}."
    return Plot("readers_roc", "ROC curves of readers", f"From calls and confidences. {told}", told, figure)


def quality(rows: Sequence[Row]) -> Plot:
    """Mean rating of each aspect, real films beside each model."""
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    aspects = list(dict.fromkeys(str(row["aspect"]) for row in rows))
    colours = {"real": LIGHT["reference"]}
    others = [LIGHT["synthetic"], LIGHT["flag"], LIGHT["sand"], LIGHT["ink"]]
    colours |= {model: others[place % len(others)] for place, model in enumerate(m for m in models if m != "real")}
    step = 0.7 / len(models)
    with canvas(1.2 + 0.2 * len(models) * len(aspects), None) as figure:
        axes = figure.subplots()
        for row in rows:
            place = aspects.index(str(row["aspect"])) + step * (models.index(str(row["model"])) - (len(models) - 1) / 2)
            marker = "D" if row["model"] == "real" else "o"
            _dot(axes, place, row["mean"], row["interval"], colours[str(row["model"])], marker)
        for model in models:
            axes.plot([], [], "D" if model == "real" else "o", color=colours[model], label=model)
        axes.set_yticks(range(len(aspects)), [aspect.capitalize() for aspect in aspects])
        axes.set_ylim(len(aspects) - 0.4, -0.6)
        axes.set_xlim(0.9, 5.1)
        axes.grid(axis="x")
        axes.set_xlabel("Mean rating, 1 very poor to 5 very good")
        figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2)
    told = "; ".join(f"{row['model']} {row['aspect']} {number(row['mean'], 2)}" for row in rows)
    caption = "Lines are intervals for new readers and new films."
    return Plot("readers_quality", "Ratings of quality", caption, f"Mean ratings: {told}.", figure)


def _dot(axes: Axes, place: float, value: float, pair: Sequence[float] | None, colour: str, marker: str) -> None:
    if pair is not None:
        axes.plot(pair, [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([value], [place], marker, color=colour, markersize=5.5, markeredgewidth=0)


def _pair(found: Row) -> list[float]:
    return [found["low"], found["high"]]
