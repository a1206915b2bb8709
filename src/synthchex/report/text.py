"""How numbers and times become text. Knows nothing of tables, pages, plots or files."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

ABSENT = "–"
PHANTOM = "phantom domain: a simulation; scores are not comparable with real radiographs"


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


def number(value: Any, digits: int, *, signed: bool = False) -> str:
    """Fixed-point text with a true minus sign, with `signed` also a plus; `ABSENT` when there is no finite number."""
    found = finite(value)
    if found is None:
        return ABSENT
    text = f"{found:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return text.lstrip("-")
    return ("+" if signed and found > 0 else "") + text.replace("-", "−")


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


def probability(value: Any) -> str:
    """A p value: three decimals, never rounded to 0 or 1 when it is neither."""
    found = finite(value)
    if found is None:
        return ABSENT
    if 0 < found < 0.001:
        return "<0.001"
    return ">0.999" if 0.999 < found < 1 else f"{found:.3f}"


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


def some(amount: int, noun: str) -> str:
    """`1 label`, `3 labels`."""
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def parts(text: Any) -> list[str]:
    """Paragraphs of a text, which is one string with empty lines between them or a list of strings."""
    pieces = text.split("\n\n") if isinstance(text, str) else text or []
    return [str(piece).strip() for piece in pieces if str(piece).strip()]


def endings(names: Iterable[str]) -> dict[str, str]:
    """What the plot files of each name end with: two underscores and the name in small letters, digits and hyphens."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        end, again = f"__{plain}" if plain else "", 2
        while end in found.values():
            end, again = f"__{plain}-{again}", again + 1
        found[name] = end
    return found
