"""The card of a built dataset: what was measured, in the slots of a template, inside a card that may hold more.

What is written stands between two marks. Text outside them, and what the header says beyond what the files decide, is
the user's and stays. Nothing is filled in that was not measured or given.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthchex.data import images, records
from synthchex.data.survey import Survey

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

BEGIN = "<!-- synthchex build writes what follows; put your own text above this line or below the last mark -->"
END = "<!-- end of what synthchex build writes -->"
DECIDED = ("configs", "dataset_info", "size_categories")  # they follow from the files
SAMPLES = "samples.png"
GRID, THUMB = 4, 160


def header(there: str | None) -> dict[str, Any]:
    """The header of a card that is there, without what follows from the files; empty where there is none.

    Raises:
        ValueError: it is not YAML.
    """
    found = {} if there is None else _read(there).data.to_dict()
    return {key: value for key, value in found.items() if key not in DECIDED}


def merged(head: Mapping[str, Any], body: str, there: str | None) -> str:
    """The whole text of a card.

    Args:
        head: the header.
        body: Markdown to stand between the marks.
        there: the card that is there; None where there is none.
    """
    from huggingface_hub import DatasetCardData

    text = "" if there is None else _read(there).text
    before, _, rest = text.partition(BEGIN)
    block = f"{BEGIN}\n\n{body.strip()}\n\n{END}"
    parts = "\n\n".join(part for part in (before.strip(), block, rest.partition(END)[2].strip()) if part)
    return f"---\n{DatasetCardData(**head).to_yaml()}\n---\n\n{parts}\n"


def joined(own: Any, ours: Sequence[str]) -> list[str]:
    """A list of the header with ours behind what it says already."""
    return list(dict.fromkeys([*([own] if isinstance(own, str) else own or []), *ours]))


def _read(text: str) -> DatasetCard:
    import yaml
    from huggingface_hub import DatasetCard

    try:
        return DatasetCard(text, ignore_metadata_errors=True)
    except yaml.YAMLError as error:
        raise ValueError(f"expected YAML at the head of README.md, got {error}; mend it or move it away") from error


def fill(template: Path, slots: Mapping[str, Any]) -> str:
    """A Markdown template with its slots filled.

    Raises:
        jinja2.UndefinedError: a slot has nothing to put in it.
    """
    from jinja2 import Environment, StrictUndefined

    return Environment(undefined=StrictUndefined, trim_blocks=True).from_string(template.read_text()).render(slots)


def size_category(rows: int) -> str:
    """The Hub's size tag."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def said(told: Mapping[str, Counter[str]], column: str) -> str:
    """Values of a column that says how films were made, commonest first; "not recorded" where there are none."""
    return ", ".join(value for value, _ in told.get(column, Counter()).most_common()) or "not recorded"


def recipe_rows(told: Mapping[str, Counter[str]]) -> str:
    """Table rows of how films were made."""
    named = [column for column in records.PROVENANCE_COLUMNS if told.get(column)]
    return "\n".join(f"| `{column}` | {_cell(said(told, column))} |" for column in named)


def drop_table(seen: Survey) -> str:
    """Markdown table of the films that were dropped, by reason, overall and per label of their prompts."""
    reasons = sorted(seen.dropped, key=lambda reason: -seen.dropped[reason][""])
    if not reasons:
        return ""
    lines = ["| prompts that say | films | dropped | " + " | ".join(f"`{reason}`" for reason in reasons) + " |"]
    lines.append("|---" * (len(reasons) + 3) + "|")
    for label in ("", *records.LABELS):
        films = len(seen.group) if label == "" else seen.present[label]
        counts = [seen.dropped[reason][label] for reason in reasons]
        share = f"{sum(counts)} ({sum(counts) / films:.1%})" if films else "0"
        lines.append(f"| {label or '**any**'} | {films} | {share} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def label_table(states: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown table of labels and states."""
    lines = ["| label | present | absent | uncertain | not mentioned |", "|---|---|---|---|---|"]
    lines += [f"| {label} | " + " | ".join(map(str, row.values())) + " |" for label, row in states.items()]
    return "\n".join(lines)


def score_table(results: Mapping[str, Any]) -> str:
    """Markdown table of the overall scores of an evaluation, with intervals.

    Raises:
        ValueError: not results of `synthchex evaluate`.
    """
    rows = results.get("overall")
    if results.get("schema_version") != 2 or not isinstance(rows, list):
        raise ValueError(
            f"--results must be results.json of synthchex evaluate, schema 2, got schema "
            f"{results.get('schema_version')}; run evaluate again"
        )
    lines = [
        "| metric | features | this set | 95 % interval | real against real | better |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low_high = row.get("interval")
        between = f"{low_high[0]:.4g} to {low_high[1]:.4g}" if low_high else "not computed"
        value = _number(row["value"]) if row["value"] is not None else row["state"]
        cells = [row["label"], row["encoder"], value, between, _number(row.get("floor")), row["better"]]
        lines.append("| " + " | ".join(_cell(str(cell)) for cell in cells) + " |")
    return "\n".join(lines)


def gate_text(report: Mapping[str, Any] | None) -> str:
    """What the privacy gate found, from its gate.json; that it was not run where there is none.

    Raises:
        ValueError: not a gate.json.
    """
    if report is None:
        return (
            "`synthchex publish` runs the privacy gate and adds what it found in a section of its own. Where there is "
            "none below, the gate was not run: nothing is known of films that are near-copies of real ones, nor of "
            "identifiers in names and texts."
        )
    if not {"rows", "findings", "terms"} <= set(report):
        raise ValueError(f"--gate must be gate.json of synthchex publish, got keys {sorted(report)}")
    found = report["findings"]
    text = f"The gate looked at {report['rows']} films and found {len(found) or 'nothing'}"
    text += f": {'; '.join(finding['what'] for finding in found)}." if found else "."
    caught = (report.get("calibration") or {}).get("caught") or {}
    if not caught:
        return f"{text} It was not calibrated: no real films were given."
    lines = [f"{text} What it catches was measured on planted copies of real films:", ""]
    lines += ["| planted copy | caught | 95 % interval |", "|---|---|---|"]
    for kind, shares in caught.items():
        hits, trials, low, high = shares["any"]
        lines.append(f"| {kind} | {hits} of {trials} | {low:.3f} to {high:.3f} |")
    hits, trials, low, high = report["calibration"]["false_alarms"]
    lines += ["", f"Films of other patients wrongly called copies: {hits} of {trials} ({low:.3f} to {high:.3f})."]
    return "\n".join(lines)


def sample_grid(films: Sequence[Any]) -> bytes:
    """PNG of films, each scaled into a square on black.

    Args:
        films: what `images.read` reads, at least one.
    """
    from PIL import Image, ImageOps

    across = min(GRID, len(films))
    sheet = Image.new("L", (across * THUMB, -(-len(films) // across) * THUMB))
    for place, source in enumerate(films):
        film = Image.fromarray(images.to_grey(images.read(source).pixels))
        film = ImageOps.contain(film, (THUMB - 4, THUMB - 4), Image.Resampling.LANCZOS)
        left, top = place % across * THUMB, place // across * THUMB
        sheet.paste(film, (left + (THUMB - film.width) // 2, top + (THUMB - film.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    """Text that cannot break a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
