"""How numbers become text, and the tables made of them: the same cells for the page and for the terminal.

Knows nothing of HTML, plots or files.
"""

from __future__ import annotations

import datetime
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

ABSENT = "–"
TERMINAL_WIDTH = 100
PHANTOM = "phantom domain: a simulation; scores are not comparable with real radiographs"

# key in results["labels"], column name on the page, column name in the terminal
LABEL_METRICS: dict[str, tuple[str, str]] = {
    "kid": ("KID", "KID"),
    "kid_floor": ("KID, real vs real", "floor"),
    "kid_interval": ("KID interval", "interval"),
    "fid": ("FID", "FID"),
    "precision": ("Precision", "prec"),
    "recall": ("Recall", "rec"),
    "density": ("Density", "dens"),
    "coverage": ("Coverage", "cov"),
    "alignment": ("Alignment", "align"),
}


class LabelRow(NamedTuple):
    """One label: its counts, its cells by column key, and what stands in their place when it was not scored."""

    label: str
    n_real: str
    n_synthetic: str
    cells: dict[str, str]
    state: str | None


def finite(value: Any) -> float | None:
    """A finite float, or None for None, NaN, infinities and anything that is not a number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def decimals(values: Iterable[Any]) -> int:
    """Digits after the point: 3 near 1, else 3 significant ones for the largest value, or one more for the smallest."""
    sizes = [abs(v) for v in map(finite, values) if v]
    if not sizes:
        return 3
    largest = max(2 - math.floor(math.log10(max(sizes))), 3 if max(sizes) < 10 else 1)
    smallest = 1 - math.floor(math.log10(min(sizes)))
    return min(max(largest, min(smallest, largest + 1)), 7)


def number(value: Any, digits: int) -> str:
    """Fixed-point text with a true minus sign; `ABSENT` when there is no finite number."""
    found = finite(value)
    if found is None:
        return ABSENT
    text = f"{found:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def count(value: Any) -> str:
    """Whole number with thousands separators."""
    found = finite(value)
    return ABSENT if found is None else f"{round(found):,}".replace("-", "−")


def share(part: Any, whole: Any) -> str:
    """Percentage with one decimal, never rounded to 0 % or 100 % when it is neither."""
    if not finite(whole) or finite(part) is None:
        return ABSENT
    percent = 100 * float(part) / float(whole)
    if 0 < percent < 0.1:
        return "<0.1 %"
    return ">99.9 %" if 99.9 < percent < 100 else f"{percent:.1f} %"


def bounds(pair: Sequence[Any] | None) -> tuple[float, float] | None:
    """An interval as two finite floats, or None."""
    if pair is None or len(pair) != 2:
        return None
    low, high = finite(pair[0]), finite(pair[1])
    return None if low is None or high is None else (low, high)


def interval(pair: Sequence[Any] | None, digits: int) -> str:
    """`low to high`: words, because a dash beside negative bounds misleads."""
    found = bounds(pair)
    return ABSENT if found is None else f"{number(found[0], digits)} to {number(found[1], digits)}"


def duration(seconds: Any) -> str:
    """Seconds as a person says them."""
    found = finite(seconds)
    if found is None:
        return ABSENT
    if round(found, 1) < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(text: Any) -> str:
    """ISO time as `2026-01-31 14:05 UTC`; any other text as it is."""
    try:
        when = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    return f"{when:%Y-%m-%d %H:%M} {when:%Z}".strip()


def overall_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """One dict of text per overall metric: label, value, floor, interval, better, n_real, n_synthetic, note."""
    rows = []
    for row in results.get("overall") or []:
        digits = decimals([row.get("value"), row.get("floor")])
        rows.append(
            {
                "label": str(row.get("label") or row.get("metric") or ABSENT),
                "value": number(row.get("value"), digits),
                "interval": interval(row.get("interval"), digits),
                "floor": number(row.get("floor"), digits),
                "better": f"{row['better']} is better" if row.get("better") else ABSENT,
                "n_real": count(row.get("n_real")),
                "n_synthetic": count(row.get("n_synthetic")),
                "note": str(row.get("note") or ""),
            }
        )
    return rows


def scored(row: Mapping[str, Any]) -> bool:
    """Whether a label's numbers may be shown."""
    return (row.get("state") or "ok") == "ok"


def label_rows(results: Mapping[str, Any]) -> tuple[list[str], list[LabelRow]]:
    """The columns that hold at least one number, and one row per label; digits are shared down a column."""
    labels = results.get("labels") or []
    shown = [row for row in labels if scored(row)]
    digits = {key: decimals(row.get(key) for row in shown) for key in LABEL_METRICS if key != "kid_interval"}
    digits["kid"] = digits["kid_floor"] = digits["kid_interval"] = decimals(
        row.get(key) for row in shown for key in ("kid", "kid_floor")
    )

    def cell(row: Mapping[str, Any], key: str) -> str:
        return (interval if key == "kid_interval" else number)(row.get(key), digits[key])

    table = [
        LabelRow(
            str(row.get("label") or ABSENT),
            count(row.get("n_real")),
            count(row.get("n_synthetic")),
            {key: cell(row, key) for key in LABEL_METRICS} if scored(row) else {},
            None if scored(row) else str(row["state"]),
        )
        for row in labels
    ]
    return [key for key in LABEL_METRICS if any(row.cells.get(key, ABSENT) != ABSENT for row in table)], table


def terminal_table(results: Mapping[str, Any]) -> str:
    """The overall and the per-label scores as plain text of at most 100 columns, for the end of a run."""
    parts = [_wrapped(str(results.get("title") or "Evaluation"))]
    if results.get("domain") == "phantom":
        parts.append(_wrapped(PHANTOM))
    head = ["metric", "synthetic", "real vs real", "interval", "direction", "n real", "n synth"]
    keys = ("label", "value", "floor", "interval", "better", "n_real", "n_synthetic")
    overall = [[row[key] for key in keys] for row in overall_rows(results)]
    parts += [_text_table([head, *overall], expendable=[5, 6, 4])] if overall else []
    columns, labels = label_rows(results)
    if labels:
        head = ["label", "n real", "n synth", *([LABEL_METRICS[key][1] for key in columns] or ["state"])]
        body = [[row.label, row.n_real, row.n_synthetic, *(_cells(row, columns))] for row in labels]
        spare = ("kid_interval", "fid", "density", "precision", "recall", "alignment")
        parts.append(_text_table([head, *body], expendable=[3 + columns.index(key) for key in spare if key in columns]))
    parts += [_wrapped(f"warning: {text}") for text in results.get("warnings") or []]
    return "\n\n".join(parts) + "\n"


def _cells(row: LabelRow, columns: Sequence[str]) -> list[str]:
    if row.state is None:
        return [row.cells[key] for key in columns] or ["ok"]
    return [row.state, *[""] * (len(columns) - 1)]


def _wrapped(text: str) -> str:
    return textwrap.fill(_plain(text), TERMINAL_WIDTH, subsequent_indent="  ")


def _plain(text: str) -> str:
    """One line that any terminal can print: no control characters (a file name may hold an escape sequence)."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split())).replace("−", "-").replace(ABSENT, "-")


def _text_table(rows: list[list[str]], expendable: list[int]) -> str:
    """Columns padded to their widest cell; `expendable` columns are left out, in order, until the lines fit."""
    rows = [[_plain(cell) for cell in row] for row in rows]
    rows = [[_cut(row[0], 28), *(_cut(cell, 24) for cell in row[1:])] for row in rows]
    kept, left_out = list(range(len(rows[0]))), list[str]()
    while expendable and max(map(len, _padded(rows, kept))) > TERMINAL_WIDTH:
        column = expendable.pop(0)
        kept.remove(column)
        left_out.append(rows[0][column])
    lines = [line[:TERMINAL_WIDTH].rstrip() for line in _padded(rows, kept)]
    lines.insert(1, "-" * max(map(len, lines)))
    if left_out:
        lines.append(textwrap.shorten(f"(in the report only: {', '.join(left_out)})", TERMINAL_WIDTH))
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _padded(rows: list[list[str]], kept: list[int]) -> list[str]:
    """Lines with the first column to the left and the others to the right; a state that replaces numbers runs on."""

    def spans(row: list[str], place: int) -> bool:
        return bool(row[kept[place]]) and place + 1 < len(kept) and not any(row[column] for column in kept[place + 1 :])

    widths = [max(len(row[column]) for row in rows if not spans(row, place)) for place, column in enumerate(kept)]
    return [
        "  ".join(
            row[column].ljust(width) if place == 0 or spans(row, place) else row[column].rjust(width)
            for place, (column, width) in enumerate(zip(kept, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
