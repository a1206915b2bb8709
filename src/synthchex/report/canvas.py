"""What every figure of the report is drawn on: colours in light and dark, settings, and a `Plot` that can be saved.

Colours are the sentinels of `LIGHT`: `inline_svg` turns them into CSS variables, so that one drawing follows the
reader's light or dark setting. No pyplot and no global settings are touched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from synthchex.report.text import PHANTOM

# All values of LIGHT must differ: they are replaced by name in the inline drawing.
LIGHT = {
    "paper": "#ffffff", "ink": "#1b2026", "muted": "#5c6670", "rule": "#c6ccd2", "grid": "#e9ecef",
    "reference": "#838d97", "synthetic": "#1f5f9f", "tint": "#7aa6d2", "sand": "#d9c69a", "stone": "#b4bac0",
    "flag": "#b34700",
}  # fmt: skip
DARK = {
    "paper": "#14171a", "ink": "#e2e6ea", "muted": "#9ba5af", "rule": "#434b53", "grid": "#262b30",
    "reference": "#939da7", "synthetic": "#7fb4e8", "tint": "#4f7fae", "sand": "#93804f", "stone": "#545c64",
    "flag": "#f2a05a",
}  # fmt: skip

FORMATS = ("png", "svg", "pdf")
WIDTH = 4.2  # inches: 302 SVG units, so that 9-unit text is still over 9 px on a 360 px screen
SETTINGS: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "synthchex",
    "pdf.fonttype": 42,
    "text.parse_math": False, "text.usetex": False,
    "text.color": LIGHT["ink"], "axes.labelcolor": LIGHT["ink"], "axes.edgecolor": LIGHT["rule"],
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    "axes.labelsize": 9, "axes.axisbelow": True, "grid.color": LIGHT["grid"], "grid.linewidth": 0.8,
    "xtick.color": LIGHT["rule"], "ytick.color": LIGHT["rule"], "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["ink"], "xtick.labelsize": 8.5, "ytick.labelsize": 9, "ytick.major.size": 0,
    "legend.frameon": False, "legend.fontsize": 8.5, "legend.handlelength": 1.4, "figure.facecolor": LIGHT["paper"],
    "axes.unicode_minus": True, "axes.formatter.limits": (-4, 5),
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A drawn figure with the words that belong to it; `alt` says in words what the drawing shows."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure

    def save(self, folder: Path) -> None:
        """Writes `<name>.png` (200 dpi), `.svg` and `.pdf` (text stays text) into `folder`."""
        with mpl.rc_context(SETTINGS):
            self.figure.savefig(folder / f"{self.name}.png", dpi=200)
            self.figure.savefig(folder / f"{self.name}.pdf", metadata={"CreationDate": None})
        svg = self.svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
        (folder / f"{self.name}.svg").write_text(svg, encoding="utf-8")

    def inline_svg(self) -> str:
        """The drawing as an `<svg>` element for an HTML page: themed by CSS variables, ids made unique by name."""
        svg = self.svg
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
        svg = re.sub(r'^<svg[^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg)
        svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{self.name}-", svg).replace("'DejaVu Sans'", "var(--sans)")
        for role, colour in LIGHT.items():
            svg = svg.replace(colour, f"var(--plot-{role})")
        return svg

    @cached_property
    def svg(self) -> str:
        """The drawing as a whole SVG document in the colours of `LIGHT`."""
        buffer = io.StringIO()
        with mpl.rc_context(SETTINGS):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()


@contextmanager
def canvas(height: float, domain: str | None) -> Iterator[Figure]:
    """An empty figure with the house settings; a phantom figure says so, because files travel without their page."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height + (0.2 if domain == "phantom" else 0)), layout="constrained")
        if domain == "phantom":
            figure.supxlabel(PHANTOM.split(";")[0], fontsize=7.5, color=LIGHT["muted"], x=0.99, ha="right")
        yield figure
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is found once, not again for every format
        for axes in figure.axes:  # the last bits of a layout vary from run to run, and names in an SVG hang on them
            left, bottom, width, height = (round(value, 6) for value in axes.get_position(original=True).bounds)
            axes.set_position((left, bottom, width, height))
