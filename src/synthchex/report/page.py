"""The report of one evaluation as files: `report.html`, and its plots for papers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthchex.report import films, forest, plots, privacy, tables, utility, written
from synthchex.report.blocks import Page, write_page
from synthchex.report.canvas import FORMATS, Plot
from synthchex.report.films import ReportImages
from synthchex.report.sections import classifiers, plot_endings, sections
from synthchex.report.text import PHANTOM, count, endings, finite, moment, number, some

Results = Mapping[str, Any]
# Names of plots, without what stands after two underscores: the encoder or the classifier.
PLOT_NAMES = (
    "kid_per_label",
    "kid_gap",
    *plots.PLANES,
    "alignment",
    "faithfulness",
    "verdicts",
    "feature_map",
    *privacy.NAMES,
    *utility.NAMES,
    *written.NAMES,
)


def write_report(results: Results, out: Path, *, images: ReportImages | None = None) -> Path:
    """Writes `report.html` and `plots/*.png, *.svg, *.pdf` into a folder.

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
    path = out if out.suffix == ".html" else out / "report.html"
    figures = draw(results, images)
    page = compose(results, images, figures)
    folder = path.parent / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    ours = re.compile(rf"({'|'.join(PLOT_NAMES)})(__[a-z0-9-]+)?\.({'|'.join(FORMATS)})")
    for found in folder.iterdir():  # a plot of an earlier run must not stand beside this page
        if ours.fullmatch(found.name) and found.stem not in figures:
            found.unlink()
    for figure in figures.values():
        figure.save(folder)
    return write_page(path, page)


def draw(results: Results, images: ReportImages) -> dict[str, Plot]:
    """Every plot for which there is data, by name."""
    domain = results.get("domain")
    overall = tables.by_encoder(results.get("overall") or [])
    labels = tables.by_encoder(results.get("labels") or [])
    shown = {"real": images.real_marks, "synthetic": images.synthetic_marks}
    marks = {name: films.marks(found, f"{name}_marks") for name, found in shown.items()}
    drawn = [
        plots.alignment(images.matched, images.shuffled, images.matched_real, domain),
        plots.verdicts((results.get("verdicts") or {}).get("quality") or {}, domain),
        plots.feature_map(images.real_points, images.synthetic_points, marks, images.map_of, domain),
    ]
    for encoder, end in plot_endings(results).items():
        rows = labels.get(encoder, [])
        drawn += [forest.kid(rows, f"kid_per_label{end}", encoder, domain)]
        drawn += [forest.gap(rows, f"kid_gap{end}", encoder, domain)]
        for kind in plots.PLANES:
            drawn.append(plots.plane(kind, overall.get(encoder, []), rows, f"{kind}{end}", encoder, domain))
    judged = classifiers(results)
    for name, end in endings(judged).items():
        drawn.append(forest.faithfulness(judged[name], f"faithfulness{end}", domain))
    drawn += [*privacy.draw(results), *utility.draw(results), *written.draw(results)]
    return {plot.name: plot for plot in drawn if plot is not None}


def compose(results: Results, images: ReportImages, figures: Mapping[str, Plot]) -> Page:
    """The page: what stands above the sections, the sections, the last line."""
    protocol = f"protocol {results['protocol']}" if results.get("protocol") else ""
    facts = ["synthchex evaluation report", moment(results["created"]) if results.get("created") else "", protocol]
    made = [f"synthchex {(results.get('versions') or {}).get('synthchex') or ''}".strip()]
    made += [f"results schema {results['schema_version']}"] if results.get("schema_version") is not None else []
    told = "Self-contained: this page loads nothing from the network."
    told += " The plots are also in the folder plots/ as PNG, SVG and PDF." if figures else ""
    return Page(
        title=str(results.get("title") or "Evaluation of synthetic chest radiographs"),
        sections=sections(results, images, figures),
        facts=[fact for fact in facts if fact],
        banner=f"{PHANTOM[0].upper()}{PHANTOM[1:]}." if results.get("domain") == "phantom" else "",
        summary=summary(results),
        warnings=[str(text) for text in results.get("warnings") or []] + discrepancies(results),
        footer=[f"Written by {', '.join(made)}. {told}"],
    )


def summary(results: Results) -> list[str]:
    """What was found, in plain words, from what is there."""
    sets = results.get("sets") or {}
    sizes = [finite((sets.get(name) or {}).get("n")) for name in ("synthetic", "real")]
    phantom = results.get("domain") == "phantom"
    first = "generated phantom radiographs" if phantom else "synthetic chest radiographs"
    second = "simulated reference" if phantom else "real"
    told = []
    if None not in sizes:
        told.append(f"This report compares {count(sizes[0])} {first} with {count(sizes[1])} {second} images.")
    told += [*_headlines(results), *_on_labels(results), *_on_faithfulness(results), *privacy.headlines(results)]
    told += [*utility.headlines(results), *written.headlines(results)]
    rows = _stages(results)
    if {"generated", "kept"} <= set(rows):
        made, kept = count(rows["generated"]), count(rows["kept"])
        told.append(f"Of {made} generated images, {kept} were kept after the quality check.")
    return [*told, "The scores describe the set; they do not establish that any single image is diagnostically sound."]


def _headlines(results: Results) -> list[str]:
    """A sentence for each encoder, on KID or on the first metric that has a value."""
    told: list[str] = []
    for encoder, rows in tables.by_encoder(results.get("overall") or []).items():
        usable = [row for row in rows if tables.scored(row) and finite(row.get("value")) is not None]
        if not usable or (told and not any(row.get("metric") == "kid" for row in usable)):
            continue
        row = next((row for row in usable if row.get("metric") == "kid"), usable[0])
        texts = tables.metric_texts(row)
        better = f" ({row['better']} is better)" if row.get("better") and not told else ""
        text = (
            f"{row.get('label') or row.get('metric')}{f' under {encoder}' if encoder else ''}{better} is {texts.value}"
        )
        text += f" (interval {texts.interval})" if row.get("interval") else ""
        text += f"; real against real, {texts.floor}" if finite(row.get("floor")) is not None else ""
        told.append(f"{text}.")
    return told


def _on_labels(results: Results) -> list[str]:
    """How many labels were scored, and which were flagged, by each encoder."""
    told: list[str] = []
    for encoder, rows in tables.by_encoder(results.get("labels") or []).items():
        shown = [row for row in rows if tables.scored(row)]
        if not told:
            told.append(f"{count(len(shown))} of {some(len(rows), 'label')} could be scored.")
        if any(row.get("flagged") is not None for row in shown):
            names = [str(row.get("label")) for row in shown if row.get("flagged")]
            what = f"{some(len(names), 'label')} {'differs' if len(names) == 1 else 'differ'} from real films"
            what = f"{what}: {', '.join(names)}" if names else "No label was shown to differ from real films"
            told.append(f"{encoder}: {what}." if encoder else f"{what}.")
    return told


def _on_faithfulness(results: Results) -> list[str]:
    """The mean AUROC of each classifier, beside that on real films."""
    told = []
    for found in results.get("faithfulness") or []:
        mean = found.get("mean") or {}
        if finite(mean.get("auroc")) is not None:
            text = f"{found.get('classifier') or 'A classifier'} finds the prompted labels with a mean AUROC of "
            text += number(mean["auroc"], 3)
            text += f"; on real films, {number(mean['auroc_real'], 3)}" if finite(mean.get("auroc_real")) else ""
            told.append(f"{text}.")
    return told


def _stages(results: Results) -> dict[str, int]:
    found = {str(s.get("name")): finite(s.get("rows")) for s in results.get("stages") or []}
    return {name: round(rows) for name, rows in found.items() if rows is not None}


def discrepancies(results: Results) -> list[str]:
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
