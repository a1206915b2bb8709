"""Figures of points, shares and histograms. Each function gives a `Plot`, or None when there is nothing to draw.

Knows nothing of HTML pages. Grey is always the reference (real images, shuffled pairs), blue the synthetic images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.report.tables import scored
from synthchex.report.text import bounds, count, finite, number, share

# name of the plot: (metric to the right, metric upwards, title, what it tells)
PLANES = {
    "precision_recall": (
        "recall",
        "precision",
        "Precision and recall",
        "Precision: the share of synthetic films that fall among real ones. Recall: the share of real films that \
fall among synthetic ones.",
    ),
    "density_coverage": (
        "coverage",
        "density",
        "Density and coverage",
        "Density: how crowded with real films the places of synthetic films are; it may exceed 1. Coverage: the share \
of real films with a synthetic one nearby.",
    ),
}
AXES = (240.0, 190.0)  # points that the axes of a plane take, roughly
NUMBER = 8.5  # points between a number and whatever it must not cover
MAX_POINTS = 500  # per set, on the map
MAX_MARKS = 6  # films per set on the map
FILM = 40  # points, longer side of such a film


def plane(
    kind: str, overall: Sequence[Any], labels: Sequence[Any], name: str, encoder: str = "", domain: str | None = None
) -> Plot | None:
    """Two metrics against each other: the whole set with its intervals, its floor, and the labels as numbered points.

    Args:
        kind: a key of `PLANES`.
        overall, labels: rows of one encoder.
        name, encoder, domain: of the file, the network and the study.
    """
    right, up, title, told = PLANES[kind]
    rows = {str(row.get("metric")): row for row in overall if scored(row)}
    whole, floor = (_pair(rows.get(right, {}).get(k), rows.get(up, {}).get(k)) for k in ("value", "floor"))
    pairs = {i: _pair(row.get(right), row.get(up)) for i, row in enumerate(labels) if scored(row)}
    points = {i: point for i, point in pairs.items() if point is not None}
    if whole is None and not points:
        return None
    lines = -(-len(points) // 2)
    with canvas(3.0 + 0.165 * lines, domain) as figure:
        axes, key = figure.subplots(2, 1, height_ratios=[2.6, max(0.165 * lines, 0.01)])
        if points:
            ends = zip(*points.values(), strict=True)
            axes.plot(*ends, "o", label="labels", color=LIGHT["tint"], markersize=4.5, markeredgewidth=0)
        if floor is not None:
            axes.plot(*floor, "D", label="real vs real", color=LIGHT["reference"], markersize=7, markeredgewidth=0)
        if whole is not None:
            _cross(axes, whole, rows[right].get("interval"), rows[up].get("interval"))
        axes.margins(0.12)
        axes.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel=f"{right.capitalize()} (higher is better)", ylabel=f"{up.capitalize()} (higher is better)")
        crossed = _along(whole, rows[right].get("interval"), rows[up].get("interval")) if whole is not None else []
        _numbers(axes, points, [*crossed, *([floor] if floor is not None else [])])
        _legend(key, [str(labels[i].get("label")) for i in points], lines)
        figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2, columnspacing=1.2)
    caption = f"{told} Up and to the right is better; the axes do not begin at 0."
    caption += " Small points: labels, numbered." * bool(points)
    words = [f"{where} {up} {number(point[1], 3)}, {right} {number(point[0], 3)}" for where, point in
             (("synthetic", whole), ("real vs real", floor)) if point is not None]  # fmt: skip
    alt = f"{'; '.join(words)}. {len(points)} labels as points; the table has their values."
    return Plot(name, f"{title}, {encoder}" if encoder else title, caption, alt, figure)


def _pair(right: Any, up: Any) -> tuple[float, float] | None:
    found = finite(right), finite(up)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _cross(axes: Axes, point: tuple[float, float], right: Any, up: Any) -> None:
    """The whole set: a large dot with an interval each way."""
    style: Any = {"color": LIGHT["synthetic"], "linewidth": 1.6, "solid_capstyle": "butt"}
    if (pair := bounds(right)) is not None:
        axes.plot(pair, [point[1]] * 2, **style)
    if (pair := bounds(up)) is not None:
        axes.plot([point[0]] * 2, pair, **style)
    axes.plot(*point, "o", color=LIGHT["synthetic"], markersize=8, markeredgewidth=0, label="synthetic, all films")


def _along(point: tuple[float, float], right: Any, up: Any) -> list[tuple[float, float]]:
    """Points that the dot of the whole set and its intervals cover."""
    across = [(float(x), point[1]) for x in np.linspace(*(bounds(right) or (point[0],) * 2), 5)]
    return [*across, *((point[0], float(y)) for y in np.linspace(*(bounds(up) or (point[1],) * 2), 5))]


def _numbers(axes: Axes, points: Mapping[int, tuple[float, float]], others: Sequence[tuple[float, float]]) -> None:
    """A number beside each point, moved apart where they would meet, with a thin line back to its point."""
    if not points:
        return
    low, span = (
        np.array([axes.get_xlim()[0], axes.get_ylim()[0]]),
        np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())]),
    )
    scale = np.array(AXES) / span
    own = (np.array(list(points.values())) - low) * scale
    fixed = np.concatenate([own, (np.array(others).reshape(-1, 2) - low) * scale])
    places = _apart(own, fixed) / scale + low
    for i, (place, point) in enumerate(zip(places, points.values(), strict=True)):
        axes.plot(
            *zip(place, point, strict=True), color=LIGHT["rule"], linewidth=0.6, zorder=1.5, scalex=False, scaley=False
        )
        axes.text(
            float(place[0]),
            float(place[1]),
            str(i + 1),
            fontsize=8,
            ha="center",
            va="center_baseline",
            color=LIGHT["ink"],
        ).set_in_layout(False)


def _apart(own: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Places of numbers, in points (N, 2): pulled to their own dot, pushed from every dot and from each other."""
    outward = own - own.mean(0) + 1e-3 * np.arange(len(own))[:, None]
    places = own + NUMBER * outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    for _ in range(300):
        push = np.zeros_like(places)
        for rest in (places, fixed):
            between = places[:, None] - rest[None]
            far = np.maximum(np.linalg.norm(between, axis=2, keepdims=True), 1e-6)
            push += (between / far * np.maximum(NUMBER - far, 0)).sum(1)
        places += 0.3 * push + 0.03 * (own - places)
        places = np.clip(places, NUMBER / 2, np.array(AXES) - NUMBER / 2)
    return places


def _legend(axes: Axes, names: Sequence[str], lines: int) -> None:
    """Which number is which label, in two columns under the drawing."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(max(lines, 1), 0)
    for i, label in enumerate(names):
        column, row = divmod(i, lines)
        left = 0.54 * column - 0.12
        axes.text(left + 0.05, row + 0.5, str(i + 1), fontsize=8, ha="right", va="center")
        axes.text(left + 0.07, row + 0.5, label, fontsize=8, va="center", color=LIGHT["muted"]).set_in_layout(False)


def alignment(
    matched: np.ndarray | None, shuffled: np.ndarray | None, real: np.ndarray | None = None, domain: str | None = None
) -> Plot | None:
    """Image-to-text cosines of the true pairs against pairs at random, and against real films with their reports."""
    sides = {"shuffled prompts": (shuffled, "reference"), "own prompt": (matched, "synthetic")}
    sides |= {"real, own report": (real, "ink")}
    series = {
        name: (kept, LIGHT[colour])
        for name, (values, colour) in sides.items()
        if values is not None and (kept := np.ravel(values)[np.isfinite(np.ravel(values))]).size
    }
    if "own prompt" not in series:
        return None
    with canvas(2.5, domain) as figure:
        axes = figure.subplots()
        edges = np.histogram_bin_edges(np.concatenate([values for values, _ in series.values()]), bins=36).tolist()
        for name, (values, colour) in series.items():
            if not name.startswith("real"):
                axes.hist(values, edges, density=True, color=colour, histtype="stepfilled", linewidth=0, alpha=0.28)
            axes.hist(values, edges, density=True, color=colour, histtype="step", linewidth=1.3, label=name)
            axes.axvline(float(np.median(values)), color=colour, linewidth=1.3, linestyle=(0, (3, 2)))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("cosine of image and prompt (higher is better)")
        figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2, columnspacing=1.1, handlelength=1.1)
    middles = ", ".join(f"{name} {number(np.median(values), 3)}" for name, (values, _) in series.items())
    caption = f"Cosine of each image and its own prompt. Medians (dashed): {middles}."
    if "shuffled prompts" in series:
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


def feature_map(
    real: np.ndarray | None,
    synthetic: np.ndarray | None,
    marks: Mapping[str, Mapping[int, np.ndarray]],
    shows: str = "",
    domain: str | None = None,
) -> Plot | None:
    """Two-dimensional projection of both sets: points, an ellipse of one standard deviation each, a few films.

    Args:
        real, synthetic: (N, 2) and (M, 2).
        marks: films by row of their set, under `real` and `synthetic`; the first `MAX_MARKS` of each are drawn.
        shows: what the projection is.
    """
    sets = {"real": real, "synthetic": synthetic}
    clean = {name: np.asarray(p, float)[np.isfinite(p).all(1)] for name, p in sets.items() if p is not None and len(p)}
    if len(clean) < 2 or not all(map(len, clean.values())):
        return None
    drawn = {name: p[:: -(-len(p) // MAX_POINTS)] for name, p in clean.items()}
    pins = [(name, row) for name, films in marks.items() for row in list(films)[:MAX_MARKS]]
    pins.sort(key=lambda pin: -float(np.asarray(sets[pin[0]])[pin[1], 1]))
    spans = np.ptp(np.concatenate(list(drawn.values())), axis=0)
    tall = 3.8 * float(np.clip(spans[1] / spans[0], 0.5, 0.9)) if spans[0] > 0 else 3.0
    strip = 0.64 if pins else 0.01
    with canvas(tall + 2 * strip + 0.7, domain) as figure:
        above, axes, below = figure.subplots(3, 1, height_ratios=[strip, tall, strip])
        for name, points in drawn.items():
            style: Any = {"alpha": 0.55, "markersize": 2.6, "markeredgewidth": 0, "label": name}
            axes.plot(*points.T, "o" if name == "synthetic" else "D", color=_colour(name), **style)
        for name, points in clean.items():
            axes.add_patch(_spread(points, LIGHT["synthetic" if name == "synthetic" else "muted"]))
        axes.margins(0.04)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xticks=[], yticks=[], ylabel="second component")
        named = axes.text(0.5, -0.03, "first component", transform=axes.transAxes, ha="center", va="top", zorder=3)
        named.set_bbox({"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1.5})  # lines to films pass under it
        half = -(-len(pins) // 2)
        for place, found in ((above, pins[:half]), (below, pins[half:])):
            place.set_axis_off()
            placed = [(name, np.asarray(sets[name])[row], marks[name][row]) for name, row in found]
            _pin(axes, place, sorted(placed, key=lambda pin: float(pin[1][0])))
        figure.legend(loc="outside upper left", ncols=2, borderaxespad=0.2, markerscale=2, columnspacing=1.4)
    sizes = " and ".join(f"{count(len(drawn[name]))} of {count(len(p))} {name} images" for name, p in clean.items())
    caption = f"Projection: {shows}. " if shows else ""
    caption += f"{sizes} drawn, with ellipses of one standard deviation. Sets that overlap here may still differ in \
the directions not shown."
    films = f", with {len(pins)} films" if pins else ""
    return Plot("feature_map", "Map of the features", caption, f"Scatter of two components for {sizes}{films}.", figure)


def _colour(name: str) -> str:
    return LIGHT["synthetic" if name == "synthetic" else "reference"]


def _pin(axes: Axes, strip: Axes, pins: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Films (set, point, array) side by side on a strip beside the map, each with a line to its point."""
    for i, (name, point, film) in enumerate(pins):
        array = film if film.ndim == 3 else np.repeat(film[..., None], 3, axis=2)
        picture = OffsetImage(array, zoom=FILM / max(array.shape[:2]), interpolation="none")
        line = {"arrowstyle": "-", "color": _colour(name), "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        place, where = ((i + 0.5) / len(pins), 0.5), (float(point[0]), float(point[1]))
        box = AnnotationBbox(picture, where, place, boxcoords=strip.transAxes, pad=0.08, arrowprops=line)
        box.patch.set(edgecolor=_colour(name), facecolor=_colour(name), linewidth=1)
        box.set(in_layout=False, zorder=1.5, annotation_clip=False)
        axes.add_artist(box)
        marker = "o" if name == "synthetic" else "D"
        axes.plot(*where, marker, color=_colour(name), markersize=4.5, markeredgecolor=LIGHT["paper"])


def _spread(points: np.ndarray, colour: str) -> Ellipse:
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points.T)) if len(points) > 1 else np.zeros((2, 2)))
    width, height = 2 * np.sqrt(np.maximum(values[::-1], 0))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    centre = points.mean(0)
    return Ellipse((centre[0], centre[1]), width, height, angle=angle, fill=False, edgecolor=colour, linewidth=1.4)
