"""Puts the page together: words, checks on the counts, thumbnails and plots, handed to `template.html.j2`.

Every number is turned into text by `tables`; every string is escaped by the template.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.report import plots, tables
from synthchex.report.tables import count, finite

Films = Sequence[tuple[np.ndarray, str]]
THUMBNAIL = 224  # pixels on the longer side
MAX_FILMS = 24  # per contact sheet
PLOT_NAMES = ("kid_per_label", "prdc", "prdc_per_label", "alignment", "verdicts", "feature_map")


@dataclass(frozen=True)
class ReportImages:
    """Films and arrays that the page shows; whatever is None or empty is left out.

    Films are (uint8 array, caption): (H, W) or (H, W, 3), any size. The first line of a caption is the description
    (prompt, file name), the following lines are short facts (quality, score, reason).

    Args:
        real: samples of the real set.
        kept: synthetic films that passed the quality filter.
        rejected: synthetic films that did not, captioned with the reason.
        best_aligned: synthetic films with the highest image-prompt cosine, best first.
        worst_aligned: those with the lowest, worst first.
        real_points: (N, 2) projection of the real features.
        synthetic_points: (M, 2) in the same projection.
        matched: cosines of each image with its own prompt.
        shuffled: cosines of the same images with prompts at random.
    """

    real: Films | None = None
    kept: Films | None = None
    rejected: Films | None = None
    best_aligned: Films | None = None
    worst_aligned: Films | None = None
    real_points: np.ndarray | None = None
    synthetic_points: np.ndarray | None = None
    matched: np.ndarray | None = None
    shuffled: np.ndarray | None = None


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


def draw(results: Mapping[str, Any], images: ReportImages) -> dict[str, plots.Plot]:
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


def render(results: Mapping[str, Any], sheets: Sequence[Mapping[str, Any]], figures: Mapping[str, plots.Plot]) -> str:
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
        light=plots.LIGHT,
        dark=plots.DARK,
        absent=tables.ABSENT,
    )


def summary(results: Mapping[str, Any]) -> str:
    """What was measured, in plain words, from what is there."""
    sets = results.get("sets") or {}
    sizes = [finite((sets.get(name) or {}).get("n")) for name in ("synthetic", "real")]
    kind = "simulated radiographs (phantoms)" if results.get("domain") == "phantom" else "chest radiographs"
    told = []
    if None not in sizes:
        told.append(f"This report compares {count(sizes[0])} synthetic {kind} with {count(sizes[1])} reference images.")
    if (results.get("encoder") or {}).get("name"):
        told.append(f"Every image is described by the encoder {results['encoder']['name']}, and the two sets of descriptions \
are compared as distributions.")
    told += _headline(results)
    labels = results.get("labels") or []
    scored = sum(map(tables.scored, labels))
    if labels and scored < len(labels):
        told.append(f"Of {len(labels)} labels, {scored} have enough images to be scored; the others are marked \
“{tables.INSUFFICIENT}”.")
    elif labels:
        told.append(f"All {len(labels)} labels have enough images to be scored.")
    rows = _stages(results)
    if {"generated", "kept"} <= set(rows):
        told.append(f"Of {count(rows['generated'])} generated images, {count(rows['kept'])} were kept after the quality check.")
    told.append("The scores describe the images as a set; they do not establish that a single image is diagnostically sound.")
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
        if all(rows["kept"] + dropped != n for n in before):
            told.append(f"The counts do not add up: {count(rows['kept'])} kept and {count(dropped)} dropped with a reason make \
{count(rows['kept'] + dropped)}, of {count(before[0])} judged.")
    if {"dataset", "loaded back"} <= set(rows) and rows["dataset"] != rows["loaded back"]:
        told.append(f"The dataset was written with {count(rows['dataset'])} rows, but {count(rows['loaded back'])} were loaded back.")
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
            "skipped": None if found.get("skipped") is None else [(r, n) for r, n, _ in shares(found["skipped"]) if n != "0"],
        }
        for name, found in (results.get("sets") or {}).items()
        if found
    ]


def contact_sheets(images: ReportImages) -> list[dict[str, Any]]:
    """Thumbnails in the order they are shown; empty groups are left out."""
    titles = {
        "real": ("Real images", "reference"),
        "kept": ("Synthetic images, kept", "synthetic"),
        "rejected": ("Synthetic images, rejected", "rejected"),
        "best_aligned": ("Highest alignment with the prompt", "synthetic"),
        "worst_aligned": ("Lowest alignment with the prompt", "synthetic"),
    }
    sheets = []
    for field, (title, kind) in titles.items():
        films: Films = getattr(images, field) or []
        shown = [_film(array, caption, field) for array, caption in films[:MAX_FILMS]]
        if shown:
            sheets.append({"id": field, "title": title, "kind": kind, "films": shown, "total": len(films)})
    return sheets


def _film(array: np.ndarray, caption: str, field: str) -> dict[str, Any]:
    first, *facts = str(caption).splitlines() or [""]
    return {"source": thumbnail(array, field), "caption": first, "facts": facts, "short": _shortened(first)}


def _shortened(text: str, limit: int = 90) -> str | None:
    return None if len(text) <= limit else text[: limit - 10].rstrip(" ,.;") + "…"


def thumbnail(array: np.ndarray, field: str = "film") -> str:
    """A data URI: JPEG, at most `THUMBNAIL` pixels on the longer side."""
    from PIL import Image

    film = np.asarray(array)
    film = film[..., 0] if film.ndim == 3 and film.shape[2] == 1 else film
    if film.dtype != np.uint8 or film.ndim not in (2, 3) or (film.ndim == 3 and film.shape[2] != 3) or 0 in film.shape:
        raise ValueError(f"{field} films must be uint8 of shape (H, W) or (H, W, 3), got {film.dtype} {film.shape}; \
read them with synthchex's image reader")
    picture = Image.fromarray(film)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def pretty(config: Any) -> str:
    """Indented JSON of anything."""
    return json.dumps(config, indent=2, ensure_ascii=False, default=str)
