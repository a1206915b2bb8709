"""Figures with one line per label: a value, its interval, and what it is read against. Knows nothing of HTML pages.

Grey is always the reference (real films), blue the synthetic ones; an orange diamond is a label that was flagged.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.report.tables import FLAG, scored
from synthchex.report.text import bounds, count, decimals, finite, number, probability, some

Row = Mapping[str, Any]
LINE = 0.29  # inches per label


class Series(NamedTuple):
    """How one kind of value is drawn."""

    name: str
    colour: str
    marker: str = "o"


SYNTHETIC = Series("synthetic", "synthetic")
REAL = Series("real", "reference", "D")
FLAGGED = Series(FLAG, "flag", "D")


def _dot(axes: Axes, row: float, value: float, pair: Sequence[Any] | None, series: Series) -> None:
    """Value as a dot, its interval as a line."""
    colour = LIGHT[series.colour]
    found = bounds(pair)
    if found is not None:
        axes.plot(found, [row, row], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([value], [row], series.marker, color=colour, markersize=5, markeredgewidth=0)


def _names(axes: Axes, names: Sequence[str]) -> None:
    """One row per name, the first at the top. Two lines are two texts: each then ends at the axis in any font."""
    axes.set_yticks([])
    for row, name in enumerate(names):
        lines = textwrap.wrap(" ".join(name.split()), 18, max_lines=2, placeholder="…") or [""]
        for i, line in enumerate(lines):
            place = row + 0.46 * (i - (len(lines) - 1) / 2)
            axes.text(-0.03, place, line, transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _beside(axes: Axes, title: str, texts: Mapping[int, str]) -> None:
    """A column of small text to the right of the axes."""
    side: Any = {"transform": axes.get_yaxis_transform(), "fontsize": 8, "color": LIGHT["muted"]}
    axes.text(1.03, -0.75, title, va="bottom", **side)
    for row, text in texts.items():
        axes.text(1.03, row, text, va="center", **side)


def _state(axes: Axes, row: int, state: str) -> None:
    """Why a label has no number, where its number would be."""
    text = axes.text(0.02, row, state.split(":")[0], transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    text.set(color=LIGHT["muted"], style="italic", in_layout=False)
    text.set_bbox({"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1.5})


def _key(figure: Figure, axes: Axes, series: Sequence[Series], *, pair: bool, tick: str = "") -> None:
    """Legend above the axes: what dot, line and tick mean."""
    handles = [
        axes.plot([], [], f"{one.marker}-" if pair else one.marker, color=LIGHT[one.colour], markersize=5)[0]
        for one in series
    ]
    if tick:
        handles += axes.plot([], [], "|", color=LIGHT["reference"], markersize=9, markeredgewidth=2.2)
    names = [one.name for one in series] + [tick] * bool(tick)
    figure.legend(handles, names, loc="outside upper left", ncols=3, borderaxespad=0.2, columnspacing=1.2)


def _ends(rows: Sequence[Row], values: Mapping[int, float]) -> str:
    """The lowest and the highest value, in words."""
    digits = decimals(values.values())
    low, high = (pick(values, key=lambda i: values[i]) for pick in (min, max))
    return " to ".join(f"{rows[i].get('label')} at {number(values[i], digits)}" for i in (low, high))


def _unscored(rows: Sequence[Row], values: Mapping[int, float]) -> str:
    missing = len(rows) - len(values)
    return f" {some(missing, 'label')} {'is' if missing == 1 else 'are'} not scored." if missing else ""


def _series(row: Row) -> Series:
    return FLAGGED if row.get("flagged") else SYNTHETIC


def _seen(rows: Sequence[Row], values: Mapping[int, float]) -> list[Series]:
    """The kinds of dots that were drawn."""
    return [one for one in (SYNTHETIC, FLAGGED) if any(_series(rows[i]) is one for i in values)]


def _lines(values: Mapping[int, Any]) -> str:
    return " Line: interval." if any(bounds(pair) for pair in values.values()) else ""


def kid(rows: Sequence[Row], name: str, encoder: str = "", domain: str | None = None) -> Plot | None:
    """KID per label with interval and floor; labels that were not scored keep their line and say why."""
    values = {i: value for i, row in enumerate(rows) if scored(row) and (value := finite(row.get("kid"))) is not None}
    if not values:
        return None
    pairs = {i: rows[i].get("kid_interval") for i in values}
    floors = {i: floor for i in values if (floor := finite(rows[i].get("kid_floor"))) is not None}
    with canvas(0.75 + LINE * len(rows), domain) as figure:
        axes = figure.subplots()
        _names(axes, [str(row.get("label", "")) for row in rows])
        axes.axvline(0, color=LIGHT["rule"], linewidth=0.8, zorder=0.5)
        for i, floor in floors.items():
            axes.vlines(floor, i - 0.3, i + 0.3, color=LIGHT["reference"], linewidth=2.2)
        for i, value in values.items():
            _dot(axes, i, value, pairs[i], _series(rows[i]))
        _beside(axes, "n real / synth.", {i: _sizes(row) for i, row in enumerate(rows)})
        for i in set(range(len(rows))) - set(values):
            _state(axes, i, str(rows[i].get("state") or "not measured"))
        axes.set_xlabel("KID (lower is better)")
        tick = "real vs real" if floors else ""
        _key(figure, axes, _seen(rows, values), pair=bool(_lines(pairs)), tick=tick)
    caption = "Dot: synthetic against real." + _lines(pairs)
    caption += " Grey tick: real against real, the floor; closer to it is better." if floors else " Lower is better."
    alt = f"KID for {len(values)} of {some(len(rows), 'label')}, from {_ends(rows, values)}.{_unscored(rows, values)}"
    return Plot(name, _of("KID per label", encoder), caption, alt + " The table has all values.", figure)


def _of(title: str, name: str) -> str:
    return f"{title}, {name}" if name else title


def _sizes(row: Row) -> str:
    return f"{count(row.get('n_real'))} / {count(row.get('n_synthetic'))}"


def gap(rows: Sequence[Row], name: str, encoder: str = "", domain: str | None = None) -> Plot | None:
    """KID above its floor with all labels at one sample size, and the adjusted p value of each."""
    matched = [row.get("matched") or {} if scored(row) else {} for row in rows]
    values = {i: value for i, part in enumerate(matched) if (value := finite(part.get("kid_gap"))) is not None}
    if not values:
        return None
    pairs = {i: matched[i].get("kid_gap_interval") for i in values}
    tested = {i: probability(rows[i].get("p_adjusted")) for i in values if rows[i].get("p_adjusted") is not None}
    size = count(next(iter(matched[i].get("n") for i in values)))
    with canvas(0.75 + LINE * len(rows), domain) as figure:
        axes = figure.subplots()
        _names(axes, [str(row.get("label", "")) for row in rows])
        axes.axvline(0, color=LIGHT["reference"], linewidth=2.2, zorder=1)
        for i, value in values.items():
            _dot(axes, i, value, pairs[i], _series(rows[i]))
        for i in set(range(len(rows))) - set(values):
            _state(axes, i, "not measured" if scored(rows[i]) else str(rows[i]["state"]))
        if tested:
            _beside(axes, "p adjusted", tested)
        axes.set_xlabel(f"KID minus floor, n = {size} (lower is better)")
        _key(figure, axes, _seen(rows, values), pair=bool(_lines(pairs)), tick="floor")
    caption = f"KID minus real-vs-real KID, every label at n = {size}, so that labels can be compared." + _lines(pairs)
    flagged = [str(rows[i].get("label")) for i in values if rows[i].get("flagged")]
    caption += " Orange diamond: differs from real films after adjustment for all labels." if flagged else ""
    alt = f"Gap for {len(values)} of {some(len(rows), 'label')}, from {_ends(rows, values)}.{_unscored(rows, values)} "
    alt += f"Flagged: {', '.join(flagged) or 'none'}."
    return Plot(name, _of("KID above the floor, equal n", encoder), caption, alt, figure)


def faithfulness(found: Row, name: str, domain: str | None = None) -> Plot | None:
    """AUROC of one classifier on synthetic films beside that on real films; labels without a head say so."""
    rows = [*(found.get("labels") or []), *({"label": x, "state": "no head"} for x in found.get("missing") or [])]
    sides = {
        key: {i: v for i, row in enumerate(rows) if scored(row) and (v := finite(row.get(key))) is not None}
        for key in ("auroc_real", "auroc")
    }
    if not sides["auroc"]:
        return None
    drawn = [(REAL, "auroc_real", -0.17), (SYNTHETIC, "auroc", 0.17)]
    with canvas(0.75 + (LINE + 0.05) * len(rows), domain) as figure:
        axes = figure.subplots()
        _names(axes, [str(row.get("label", "")) for row in rows])
        axes.axvline(0.5, color=LIGHT["rule"], linewidth=1.2, linestyle=(0, (3, 2)), zorder=0.5)
        pairs = {(i, key): rows[i].get(f"{key}_interval") for _, key, _ in drawn for i in sides[key]}
        for series, key, offset in drawn:
            for i, value in sides[key].items():
                _dot(axes, i + offset, value, pairs[i, key], series)
        for i in set(sides["auroc"]) & set(sides["auroc_real"]):
            ends = [sides[key][i] for _, key, _ in drawn]
            axes.plot(ends, [i + offset for *_, offset in drawn], color=LIGHT["rule"], linewidth=1, zorder=1)
        for i in set(range(len(rows))) - set(sides["auroc"]):
            _state(axes, i, str(rows[i].get("state") or "not measured"))
        differences = {i: number(rows[i].get("difference"), 2, signed=True) for i in sides["auroc"]}
        _beside(axes, "difference", differences)
        axes.set_xlim(right=1.02)
        axes.set_xlabel("AUROC (higher is better; dashed: chance)")
        _key(
            figure,
            axes,
            [SYNTHETIC, REAL] if sides["auroc_real"] else [SYNTHETIC],
            pair=any(map(bounds, pairs.values())),
        )
    caption = (
        "Blue dot: synthetic films against the labels of their prompts. Grey diamond: the same classifier on real \
films, the most that can be expected. A synthetic dot to the left: the finding is often not shown."
    )
    values = sides["auroc"]
    alt = f"AUROC for {len(values)} of {some(len(rows), 'label')}, from {_ends(rows, values)}.{_unscored(rows, values)}"
    return Plot(name, _of("Faithfulness", str(found.get("classifier") or "")), caption, alt, figure)
