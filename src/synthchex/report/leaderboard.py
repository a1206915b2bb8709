"""A comparison of models as tables: Markdown, CSV, LaTeX. Knows the dictionary of `scores.comparison`, no files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ARROWS = {"lower": "↓", "higher": "↑"}
LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$"}
PUBLISHED = ("FID (RadDino)", "KID (RadDino)", "Alignment_score", "Precision", "Recall", "Density", "Coverage")


class Table(NamedTuple):
    """Column names and rows of text."""

    columns: list[str]
    rows: list[list[str]]


def standings(comparison: Mapping[str, Any]) -> Table:
    """One row per model, one column per metric: value, interval, and rank where it was tested."""
    models = comparison["leaderboard"]
    first = models[0]["metrics"]
    encoders = {row["encoder"] for row in first}
    names = [_name(row, len(encoders) > 1) for row in first]
    rows = [[model["model"], str(model["n_synthetic"]), *(_value(row) for row in model["metrics"])] for model in models]
    return Table(["Model", "n", *names], rows)


def tests(comparison: Mapping[str, Any]) -> Table:
    """One row per pair of models and metric."""
    rows = [
        [
            f"{pair['first']} - {pair['second']}",
            pair["metric"],
            pair["encoder"] or "",
            f"{pair['difference']:+.4g}",
            f"{pair['interval'][0]:+.4g} to {pair['interval'][1]:+.4g}",
            _p(pair["p_value"]),
            _p(pair["p_adjusted"]),
            pair["better"] or "not told apart",
        ]
        for pair in comparison["pairs"]
    ]
    return Table(["Models", "Metric", "Encoder", "Difference", "Interval", "p", "p adjusted", "Better"], rows)


def published(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Published figures, marked as such."""
    cells = [[f"{row['model']} (published, other protocol)", *(f"{row[name]}" for name in PUBLISHED)] for row in rows]
    return Table(["Model", *PUBLISHED], cells)


def markdown(table: Table) -> str:
    """A Markdown table."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def comma_separated(table: Table) -> str:
    """A CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()


def latex(table: Table) -> str:
    """A LaTeX tabular with booktabs rules."""
    head, *body = [" & ".join(_escaped(cell) for cell in line) + r" \\" for line in (table.columns, *table.rows)]
    columns = "l" + "r" * (len(table.columns) - 1)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _name(row: Mapping[str, Any], several: bool) -> str:
    encoder = f", {row['encoder']}" if several and row["encoder"] else ""
    return f"{row['label']}{encoder} {ARROWS.get(row['better'], '')}".strip()


def _value(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "—"
    ends = "" if row["interval"] is None else f" [{row['interval'][0]:.4g}, {row['interval'][1]:.4g}]"
    return f"{row['value']:.4g}{ends}" + (f" ({row['rank']})" if row["rank"] is not None else "")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
