"""The scores as plain text for the end of a run: columns of the page's tables, as many as fit in 100 characters."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from synthchex.report import tables
from synthchex.report.blocks import Table, spread
from synthchex.report.text import ABSENT, PHANTOM

WIDTH = 100
# Column titles in the order they are shown: their short name, and how soon they go when the lines are too long.
OVERALL = {
    "Metric": ("metric", 0),
    "Synthetic": ("synthetic", 0),
    "Interval": ("interval", 0),
    "Real vs real": ("real vs real", 0),
    "Difference": ("difference", 2),
    "Better": ("better", 1),
    "n real": ("n real", 4),
    "n synthetic": ("n synth", 3),
}
LABELS = {
    "Label": ("label", 0),
    "n real / synth.": ("n real / synth", 0),
    "KID": ("KID", 0),
    "KID, real vs real": ("floor", 0),
    "Gap": ("gap", 5),
    "p adjusted": ("p adj", 7),
    "Verdict": ("verdict", 6),
    "FID": ("FID", 1),
    "Precision": ("prec", 3),
    "Recall": ("rec", 3),
    "Coverage": ("cov", 2),
    "Alignment": ("align", 4),
}
Line = list[str | None]


def terminal_table(results: Mapping[str, Any]) -> str:
    """The overall and the per-label scores as plain text of at most 100 columns, for the end of a run."""
    parts = [_wrapped(str(results.get("title") or "Evaluation"))]
    if results.get("domain") == "phantom":
        parts.append(_wrapped(PHANTOM))
    overall = tables.overall(results)
    lines: list[Line] = []
    for group in overall.groups:
        lines += [[group.title, *[None] * (len(overall.columns) - 1)]] if group.title else []
        lines += [spread(row) for row in group.rows]
    parts += [_text_table([column.title for column in overall.columns], lines, OVERALL)] if lines else []
    found = tables.by_encoder(results.get("labels") or [])
    for name, rows in found.items():
        parts.append((f"{_plain(name)}\n" if len(found) > 1 else "") + _labels(rows))
    parts += [_wrapped(f"warning: {text}") for text in results.get("warnings") or []]
    return "\n\n".join(parts) + "\n"


def _labels(rows: Sequence[Mapping[str, Any]]) -> str:
    """Values and test of each label on one line; a state stands for both."""
    values, test = tables.labels(rows, ""), tables.compared(rows, "", {})
    names = [column.title for column in values.columns] + [column.title for column in test.columns[1:]]
    lines = []
    for row, one, other in zip(rows, *map(_lines, (values, test)), strict=True):
        rest = other[1:] if tables.scored(row) else [None] * (len(other) - 1)
        lines.append([*one, *rest])
    return _text_table(names, lines, LABELS)


def _lines(table: Table) -> list[Line]:
    return [spread(row) for group in table.groups for row in group.rows]


def _wrapped(text: str) -> str:
    return textwrap.fill(_plain(text), WIDTH, subsequent_indent="  ")


def _plain(text: str) -> str:
    """One line that any terminal can print: no control characters (a file name may hold an escape sequence)."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split())).replace("−", "-").replace(ABSENT, "-")


def _text_table(names: Sequence[str], lines: Sequence[Line], wanted: Mapping[str, tuple[str, int]]) -> str:
    """Columns padded to their widest cell; those that may go are left out, first the soonest, until the lines fit."""
    places = {name: names.index(name) for name in names}
    kept = [name for name in wanted if name in places]
    head: Line = [wanted[name][0] if name in wanted else "" for name in names]
    cut = [
        [None if c is None else _cut(_plain(c), 24 if i else 28) for i, c in enumerate(row)] for row in (head, *lines)
    ]
    going = sorted((name for name in kept if wanted[name][1]), key=lambda name: wanted[name][1])
    left_out = []
    while going and max(map(len, _padded(cut, [places[name] for name in kept]))) > WIDTH:
        kept.remove(going[0])
        left_out.append(wanted[going.pop(0)][0])
    told = [line[:WIDTH].rstrip() for line in _padded(cut, [places[name] for name in kept])]
    told.insert(1, "-" * max(map(len, told)))
    if left_out:
        told.append(textwrap.shorten(f"(in the report only: {', '.join(left_out)})", WIDTH))
    return "\n".join(told)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _padded(rows: Sequence[Line], kept: Sequence[int]) -> list[str]:
    """Lines with the first column to the left and the others to the right; a cell over empty columns runs on."""
    chosen = [[row[place] for place in kept] for row in rows]

    def runs_on(row: Line, i: int) -> bool:
        return row[i] is not None and i + 1 < len(row) and all(cell is None for cell in row[i + 1 :])

    widths = [max((len(row[i] or "") for row in chosen if not runs_on(row, i)), default=0) for i in range(len(kept))]
    return [
        "  ".join(
            (row[i] or "").ljust(width) if i == 0 or runs_on(row, i) else (row[i] or "").rjust(width)
            for i, width in enumerate(widths)
        ).rstrip()
        for row in chosen
    ]
