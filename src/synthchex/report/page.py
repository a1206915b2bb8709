"""Puts the page together: words, checks on the counts, films and plots, handed to `template.html.j2`.

Every number is turned into text by `tables`; every string is escaped by the template.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from synthchex.report import canvas, plots, tables
from synthchex.report.films import ReportImages, contact_sheets
from synthchex.report.tables import count, finite

PLOT_NAMES = ("kid_per_label", "prdc", "prdc_per_label", "alignment", "verdicts", "feature_map")


def write_report(results: Mapping[str, Any], out: Path, *, images: ReportImages | None = None) -> Path:
    """Writes `report.html` and `plots/*.png, *.svg` into a folder.

    Args:
        results: the content of `results.json`; numbers may be None, keys absent.
        out: folder, made if needed; or the path of an `.html` file, whose folder then takes `plots/`.
        images: films and arrays to show.

    Returns:
        The path of the page.

    Raises:
        ValueError: a film is not uint8, or not (H, W) or (H, W, 3).
    """
    images = images or ReportImages()
    page = out if out.suffix == ".html" else out / "report.html"
    sheets = contact_sheets(images)
    figures = draw(results, images)
    folder = page.parent / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    for name in set(PLOT_NAMES) - set(figures):  # a plot of an earlier run must not stand beside this page
        for suffix in (".png", ".svg"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    for figure in figures.values():
        figure.save(folder)
    text = render(results, sheets, figures)
    temporary = page.with_name(f".{page.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="replace")
    return temporary.replace(page)


def draw(results: Mapping[str, Any], images: ReportImages) -> dict[str, canvas.Plot]:
    """Every plot for which there is data, by name."""
    overall, labels = results.get("overall") or [], results.get("labels") or []
    domain = results.get("domain")
    drawn = (
        plots.forest(labels, domain),
        plots.prdc(overall, domain),
        plots.prdc_per_label(labels, domain),
        plots.alignment(images.matched, images.shuffled, domain),
        plots.verdicts((results.get("verdicts") or {}).get("quality") or {}, domain),
        plots.feature_map(images.real_points, images.synthetic_points, domain),
    )
    return {plot.name: plot for plot in drawn if plot is not None}


def render(results: Mapping[str, Any], sheets: Sequence[Mapping[str, Any]], figures: Mapping[str, canvas.Plot]) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files(__package__).joinpath("template.html.j2").read_text(encoding="utf-8")
    columns, labels = tables.label_rows(results)
    return environment.from_string(template).render(
        title=str(results.get("title") or "Evaluation of synthetic chest radiographs"),
        created=tables.moment(results["created"]) if results.get("created") else None,
        phantom=tables.PHANTOM if results.get("domain") == "phantom" else None,
        summary=summary(results),
        warnings=[str(text) for text in results.get("warnings") or []] + discrepancies(results),
        overall=tables.overall_rows(results),
        columns=[(key, tables.LABEL_METRICS[key][0]) for key in columns],
        labels=labels,
        stages=stage_rows(results),
        drops=shares((results.get("verdicts") or {}).get("drop_reasons") or {}),
        judge=results.get("verdicts") or {},
        sets=set_rows(results),
        encoders=[(role, results[role]) for role in ("encoder", "image_text") if results.get(role)],
        plots=figures,
        sheets=sheets,
        methods=[part for part in str(results.get("methods") or "").split("\n\n") if part.strip()],
        command=results.get("command"),
        versions=results.get("versions") or {},
        config=pretty(results["config"]) if results.get("config") else None,
        hashes=results.get("hashes") or {},
        schema=results.get("schema_version"),
        light=canvas.LIGHT,
        dark=canvas.DARK,
        absent=tables.ABSENT,
    )


def summary(results: Mapping[str, Any]) -> str:
    """What was measured, in plain words, from what is there."""
    sets = results.get("sets") or {}
    sizes = [finite((sets.get(name) or {}).get("n")) for name in ("synthetic", "real")]
    phantom = results.get("domain") == "phantom"
    first = "generated phantom radiographs" if phantom else "synthetic chest radiographs"
    second = "simulated reference" if phantom else "real"
    told = []
    if None not in sizes:
        told.append(f"This report compares {count(sizes[0])} {first} with {count(sizes[1])} {second} images.")
    if (results.get("encoder") or {}).get("name"):
        name = results["encoder"]["name"]
        told.append(f"Every image is described by the encoder {name}; the two sets are compared as distributions.")
    told += _headline(results)
    labels = results.get("labels") or []
    scored = sum(map(tables.scored, labels))
    if labels and scored < len(labels):
        told.append(
            f"Of {len(labels)} labels, {scored} have enough images to be scored; the others are marked with the reason."
        )
    elif labels:
        which = f"All {len(labels)} labels have" if len(labels) > 1 else "The one label has"
        told.append(f"{which} enough images to be scored.")
    rows = _stages(results)
    if {"generated", "kept"} <= set(rows):
        made, kept = count(rows["generated"]), count(rows["kept"])
        told.append(f"Of {made} generated images, {kept} were kept after the quality check.")
    told.append("The scores describe the set; they do not establish that any single image is diagnostically sound.")
    return " ".join(told)


def _headline(results: Mapping[str, Any]) -> list[str]:
    """One sentence on KID, or on the first overall metric that has a value."""
    rows = zip(results.get("overall") or [], tables.overall_rows(results), strict=True)
    usable = [(row, text) for row, text in rows if finite(row.get("value")) is not None]
    if not usable:
        return []
    row, text = next((pair for pair in usable if pair[0].get("metric") == "kid"), usable[0])
    told = f"{text['label']}" + (f" ({text['better']})" if row.get("better") else "") + f" is {text['value']}"
    told += f" (interval {text['interval']})" if text["interval"] != tables.ABSENT else ""
    told += f"; real images against other real images score {text['floor']}" if text["floor"] != tables.ABSENT else ""
    return [told + "."]


def _stages(results: Mapping[str, Any]) -> dict[str, int]:
    found = {str(s.get("name")): finite(s.get("rows")) for s in results.get("stages") or []}
    return {name: round(rows) for name, rows in found.items() if rows is not None}


def discrepancies(results: Mapping[str, Any]) -> list[str]:
    """Counts that do not add up, in words; empty when every row is accounted for."""
    rows, verdicts = _stages(results), results.get("verdicts") or {}
    dropped = sum(round(finite(n) or 0) for n in (verdicts.get("drop_reasons") or {}).values())
    before = [rows[name] for name in ("judged", "generated") if name in rows]
    told = []
    if before and "kept" in rows and verdicts.get("drop_reasons") is not None:
        kept, total = rows["kept"], rows["kept"] + dropped
        if total not in before:
            sum_up = f"{count(kept)} kept and {count(dropped)} dropped with a reason make {count(total)}"
            told.append(f"The counts do not add up: {sum_up}, but {count(before[0])} images were judged.")
    written, loaded = rows.get("dataset"), rows.get("loaded back")
    if written is not None and loaded is not None and written != loaded:
        told.append(f"The dataset was written with {count(written)} rows, but {count(loaded)} were loaded back.")
    return told


def stage_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The funnel: rows at each stage, the change from the stage before, and the share of the largest stage."""
    stages = results.get("stages") or []
    sizes = [finite(stage.get("rows")) for stage in stages]
    most = max((n for n in sizes if n is not None), default=0)
    told = []
    for i, (stage, n) in enumerate(zip(stages, sizes, strict=True)):
        previous = sizes[i - 1] if i else None
        change = None if n is None or previous is None else round(n - previous)
        told.append(
            {
                "name": str(stage.get("name") or tables.ABSENT),
                "rows": count(n),
                "change": "" if change is None else f"{'+' if change > 0 else ''}{count(change)}",
                "percent": 100 * (n or 0) / most if most else 0,
                "seconds": tables.duration(stage.get("seconds")),
                "note": str(stage.get("note") or ""),
            }
        )
    return told


def shares(counts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, count, share of all), the largest first."""
    total = sum(finite(n) or 0 for n in counts.values())
    ordered = sorted(counts.items(), key=lambda item: -(finite(item[1]) or 0))
    return [(str(name), count(n), tables.share(n, total)) for name, n in ordered]


def set_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Source, size and skipped files of each set; `skipped` is None when it was not counted."""
    return [
        {
            "name": name,
            "source": str(found.get("source") or tables.ABSENT),
            "n": count(found.get("n")),
            "skipped": _skipped(found.get("skipped")),
        }
        for name, found in (results.get("sets") or {}).items()
        if found
    ]


def _skipped(counts: Mapping[str, Any] | None) -> list[tuple[str, str]] | None:
    return None if counts is None else [(reason, n) for reason, n, _ in shares(counts) if n != "0"]


def pretty(config: Any) -> str:
    """Indented JSON of anything."""
    return json.dumps(config, indent=2, ensure_ascii=False, default=str)
