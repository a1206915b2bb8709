"""The figures of the report. Each function takes numbers and gives a `Plot`, or None when there is nothing to draw.

Knows nothing of HTML pages. Grey is always the reference (real images, shuffled pairs), blue the synthetic images.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from synthchex.report.canvas import LIGHT, WIDTH, Plot, canvas
from synthchex.report.tables import bounds, count, decimals, finite, number, scored, share

PRDC = {"precision": "Precision", "recall": "Recall", "density": "Density", "coverage": "Coverage"}
MAX_POINTS = 500  # per set, in the feature map


def _dot(axes: Axes, row: float, value: float, pair: Sequence[Any] | None, floor: float | None, colour: str) -> None:
    """Value as a dot, its interval as a line, its real-vs-real floor as a grey tick."""
    found = bounds(pair)
    if floor is not None:
        axes.vlines(floor, row - 0.3, row + 0.3, color=LIGHT["reference"], linewidth=2.2)
    if found is not None:
        axes.plot(found, [row, row], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([value], [row], "o", color=colour, markersize=5, markeredgewidth=0)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """One row per name, the first at the top. Two lines are two texts: each then ends at the axis in any font."""
    axes.set_yticks([])
    for row, name in enumerate(names):
        lines = textwrap.wrap(" ".join(name.split()), 18, max_lines=2, placeholder="…") or [""]
        for i, line in enumerate(lines):
            place = row + 0.44 * (i - (len(lines) - 1) / 2)
            axes.text(-0.03, place, line, transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _state(axes: Axes, row: int, label: Mapping[str, Any], place: float = 0.02) -> None:
    """Why a label has no number, where its number would be."""
    text = axes.text(
        place, row, str(label["state"]).split(":")[0], transform=axes.get_yaxis_transform(), va="center", fontsize=8.5
    )
    text.set(color=LIGHT["muted"], style="italic", in_layout=False)
    text.set_bbox({"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1.5})


def _key(figure: Figure, axes: Axes, *, measured: str, reference: str | None, pair: bool) -> None:
    """Legend above the axes: what the dot and the tick mean."""
    dot = axes.plot([], [], "o-" if pair else "o", color=LIGHT["synthetic"], markersize=5, linewidth=1.4)[0]
    handles, names = [dot], [measured]
    if reference:
        tick = axes.plot([], [], "|", color=LIGHT["reference"], markersize=9, markeredgewidth=2.2)[0]
        handles, names = [dot, tick], [measured, reference]
    figure.legend(handles, names, loc="outside upper left", ncols=2, borderaxespad=0.2, columnspacing=1.4)


def forest(labels: Sequence[Mapping[str, Any]], domain: str | None = None) -> Plot | None:
    """KID per label with interval and floor; labels that were not scored keep their line and say why."""
    values = {i: value for i, row in enumerate(labels) if scored(row) and (value := finite(row.get("kid"))) is not None}
    if not values:
        return None
    with canvas(0.75 + 0.27 * len(labels), domain) as figure:
        axes = figure.subplots()
        _rows(axes, [str(row.get("label", "")) for row in labels])
        for i, value in values.items():
            _dot(axes, i, value, labels[i].get("kid_interval"), finite(labels[i].get("kid_floor")), LIGHT["synthetic"])
        axes.axvline(0, color=LIGHT["rule"], linewidth=0.8, zorder=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        side = axes.get_yaxis_transform()
        axes.text(1.03, -0.75, "n real / synth.", transform=side, fontsize=8, color=LIGHT["muted"], va="bottom")
        for i, row in enumerate(labels):
            size = f"{count(row.get('n_real'))} / {count(row.get('n_synthetic'))}"
            axes.text(1.03, i, size, transform=side, fontsize=8, color=LIGHT["muted"], va="center")
            if not scored(row):
                _state(axes, i, row)
        axes.set_xlabel("KID (lower is better)")
        has_floor = any(finite(labels[i].get("kid_floor")) is not None for i in values)
        has_pair = any(bounds(labels[i].get("kid_interval")) for i in values)
        _key(figure, axes, measured="synthetic", reference="real vs real" if has_floor else None, pair=has_pair)
    ends = [f"{labels[i].get('label')} at {number(values[i], decimals(values.values()))}" for i in _ends(values)]
    rest = f" {len(labels) - len(values)} labels are not scored." if len(values) < len(labels) else ""
    marks = "Dot: synthetic against real." + " Line: interval." * has_pair
    marks += " Grey tick: real against real, the floor." * has_floor
    alt = f"KID for {len(values)} of {len(labels)} labels, from {ends[0]} to {ends[1]}.{rest} The table has all values."
    return Plot(
        "kid_per_label",
        "KID per label",
        f"{marks} {'Closer to the floor' if has_floor else 'Lower'} is better.",
        alt,
        figure,
    )


def _ends(values: Mapping[int, float]) -> tuple[int, int]:
    return min(values, key=lambda i: values[i]), max(values, key=lambda i: values[i])


def prdc(overall: Sequence[Mapping[str, Any]], domain: str | None = None) -> Plot | None:
    """Precision, recall, density and coverage of the whole set, with interval and floor."""
    found = {str(row.get("metric")): row for row in overall if finite(row.get("value")) is not None}
    rows = [found[name] for name in PRDC if name in found]
    if not rows:
        return None
    with canvas(0.75 + 0.34 * len(rows), domain) as figure:
        axes = figure.subplots()
        _rows(axes, [str(row.get("label") or row["metric"]) for row in rows])
        for i, row in enumerate(rows):
            _dot(axes, i, float(row["value"]), row.get("interval"), finite(row.get("floor")), LIGHT["synthetic"])
            axes.text(1.03, i, _value(row), transform=axes.get_yaxis_transform(), va="center")
        axes.set_xlim(0, max(1.0, axes.get_xlim()[1]))
        axes.set_xlabel("score (higher is better)")
        has_floor = any(finite(row.get("floor")) is not None for row in rows)
        has_pair = any(bounds(row.get("interval")) for row in rows)
        _key(figure, axes, measured="synthetic", reference="real vs real" if has_floor else None, pair=has_pair)
    caption = "Precision and density: how many synthetic images fall among real ones. Recall and coverage: how much \
of the real variety the synthetic images reach. Density may exceed 1."
    alt = "; ".join(f"{row.get('label') or row['metric']} {_value(row)}" for row in rows) + "."
    return Plot("prdc", "Fidelity and variety", caption, alt, figure)


def _value(row: Mapping[str, Any]) -> str:
    return number(row["value"], decimals([row["value"], row.get("floor")]))


def prdc_per_label(labels: Sequence[Mapping[str, Any]], domain: str | None = None) -> Plot | None:
    """Four narrow panels, one dot per label."""
    numbers = [{name: finite(row.get(name)) for name in PRDC} if scored(row) else {} for row in labels]
    shown = [i for i, found in enumerate(numbers) if any(value is not None for value in found.values())]
    if len(shown) < 2:
        return None
    with canvas(0.65 + 0.27 * len(labels), domain) as figure:
        panels = figure.subplots(1, len(PRDC))
        for axes, (name, title) in zip(panels, PRDC.items(), strict=True):
            _rows(axes, [str(row.get("label", "")) if axes is panels[0] else "" for row in labels])
            points = {i: value for i in shown if (value := numbers[i][name]) is not None}
            axes.plot(list(points.values()), list(points), "o", color=LIGHT["synthetic"], markersize=4.5)
            axes.set_xlim(-0.06, 1.06 * max([1.0, *points.values()]))
            axes.set_xticks([0, 0.5, 1], ["0", "", "1"])
            axes.set_title(title, fontsize=8.5, color=LIGHT["ink"], pad=5)
        for i, row in enumerate(labels):
            if not scored(row):
                _state(panels[0], i, row, 0.1)
    caption = "One dot per scored label, on the same scale from 0 to 1 (density may exceed 1); higher is better."
    alt = f"Precision, recall, density, coverage for {len(shown)} of {len(labels)} labels. The table has all values."
    return Plot("prdc_per_label", "Fidelity and variety per label", caption, alt, figure)


def alignment(matched: np.ndarray | None, shuffled: np.ndarray | None, domain: str | None = None) -> Plot | None:
    """Image-to-text cosines of the true pairs against pairs at random."""
    pairs = {"shuffled": shuffled, "matched": matched}
    flat = [(name, np.ravel(values)) for name, values in pairs.items() if values is not None]
    series = [(name, kept) for name, values in flat if (kept := values[np.isfinite(values)]).size]
    if not any(name == "matched" for name, _ in series):
        return None
    with canvas(2.5, domain) as figure:
        axes = figure.subplots()
        edges = np.histogram_bin_edges(np.concatenate([values for _, values in series]), bins=36).tolist()
        for name, values in series:
            colour = LIGHT["synthetic" if name == "matched" else "reference"]
            axes.hist(values, edges, density=True, color=colour, histtype="stepfilled", linewidth=0, alpha=0.28)
            axes.hist(values, edges, density=True, color=colour, histtype="step", linewidth=1.3, label=f"{name} pairs")
            axes.axvline(float(np.median(values)), color=colour, linewidth=1.3, linestyle=(0, (3, 2)))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("cosine of image and prompt (higher is better)")
        figure.legend(loc="outside upper left", ncols=2, borderaxespad=0.2, columnspacing=1.4)
    middles = ", ".join(f"{name} {number(np.median(values), 3)}" for name, values in series)
    caption = f"Cosine of each image and its own prompt. Medians (dashed): {middles}."
    if len(series) > 1:
        caption += " Grey: the same images with prompts at random; where the two coincide, prompts are not followed."
    alt = f"Histogram of image-prompt cosines. Medians: {middles}."
    return Plot("alignment", "Alignment of image and prompt", caption, alt, figure)


def verdicts(quality: Mapping[str, Any], domain: str | None = None) -> Plot | None:
    """The judge's verdicts as one stacked bar with counts."""
    counts = {name: finite(n) or 0.0 for name, n in quality.items()}
    total = sum(counts.values())
    if total <= 0:
        return None
    colours = dict(zip(counts, ("synthetic", "tint", "sand", "stone", "reference", "rule"), strict=False))
    with canvas(0.95, domain) as figure:
        axes = figure.subplots()
        left = 0.0
        for name, n in counts.items():
            colour = LIGHT[colours.get(name, "rule")]
            label = f"{name}: {count(n)} ({share(n, total)})"
            axes.barh([0], [n], left=left, color=colour, edgecolor=LIGHT["paper"], label=label)
            left += n
        axes.set_xlim(0, total)
        axes.set_axis_off()
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2, handlelength=0.9, borderaxespad=0.2)
    words = "; ".join(f"{name} {count(n)} of {count(total)}" for name, n in counts.items())
    return Plot("verdicts", "Verdicts of the judge", "Share of judged images by verdict.", f"{words}.", figure)


def feature_map(real: np.ndarray | None, synthetic: np.ndarray | None, domain: str | None = None) -> Plot | None:
    """Two-dimensional projection of both sets: points, and an ellipse of one standard deviation for each."""
    sets = {"real": real, "synthetic": synthetic}
    clean = {name: np.asarray(p, float)[np.isfinite(p).all(1)] for name, p in sets.items() if p is not None and len(p)}
    if len(clean) < 2 or not all(map(len, clean.values())):
        return None
    drawn = {name: p[:: -(-len(p) // MAX_POINTS)] for name, p in clean.items()}
    spans = np.ptp(np.concatenate(list(drawn.values())), axis=0)
    ratio = spans[1] / spans[0] if spans[0] > 0 else 1.0
    with canvas(0.6 + (WIDTH - 0.3) * float(np.clip(ratio, 0.4, 0.9)), domain) as figure:
        axes = figure.subplots()
        for name, points in drawn.items():
            colour = LIGHT["synthetic" if name == "synthetic" else "reference"]
            marker = "o" if name == "synthetic" else "D"
            axes.plot(*points.T, marker, color=colour, alpha=0.55, markersize=2.6, markeredgewidth=0, label=name)
        for name, points in clean.items():
            axes.add_patch(_spread(points, LIGHT["synthetic" if name == "synthetic" else "muted"]))
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
        figure.legend(loc="outside upper left", ncols=2, borderaxespad=0.2, markerscale=2, columnspacing=1.4)
    sizes = " and ".join(f"{count(len(drawn[name]))} of {count(len(p))} {name} images" for name, p in clean.items())
    caption = f"Principal components of the features, {sizes} drawn; ellipses of one standard deviation. \
Sets that overlap here may still differ in the directions not shown."
    alt = f"Scatter of two principal components for {sizes}."
    return Plot("feature_map", "Map of the features", caption, alt, figure)


def _spread(points: np.ndarray, colour: str) -> Ellipse:
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points.T)) if len(points) > 1 else np.zeros((2, 2)))
    width, height = 2 * np.sqrt(np.maximum(values[::-1], 0))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    centre = points.mean(0)
    return Ellipse((centre[0], centre[1]), width, height, angle=angle, fill=False, edgecolor=colour, linewidth=1.4)
