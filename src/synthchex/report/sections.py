"""The sections of the report of one evaluation: which words, tables, plots and films stand where.

A section without content has no blocks, and is left out when the page is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synthchex.report import films, privacy, tables, utility, written
from synthchex.report.blocks import Block, Code, Drawer, Drawers, Films, Heading, Plots, Section, Text
from synthchex.report.canvas import Plot
from synthchex.report.films import ReportImages
from synthchex.report.text import endings, finite, interval, number, parts, some

Results = Mapping[str, Any]
Figures = Mapping[str, Plot]


def sections(results: Results, images: ReportImages, figures: Figures) -> list[Section]:
    """All of them, in the order they are read."""
    return [
        Section("overall", "Scores of the whole set", overall(results)),
        Section("labels", "Scores per label", labels(results, figures)),
        Section("distributions", "Distributions", distributions(results, figures)),
        Section("alignment", "Alignment of image and prompt", alignment(images, figures)),
        Section("faithfulness", "Faithfulness to the label", faithfulness(results, figures)),
        Section("privacy", "Privacy", privacy.section(results, figures)),
        Section("utility", "Utility", utility.section(results, figures)),
        Section("written", "Report generation", written.section(results, figures)),
        Section("ranked", "Best, median and worst films", ranked(images)),
        Section("neighbours", "Nearest real films", neighbours(images)),
        Section("films", "Films", gallery(images)),
        Section("counts", "Images and counts", counts(results, figures)),
        Section("methods", "Methods", methods(results)),
        Section("provenance", "Provenance", provenance(results)),
    ]


def kept(*found: Block | None) -> list[Block]:
    """Those that are there."""
    return [block for block in found if block is not None]


def chosen(figures: Figures, *names: str) -> Plots | None:
    """Those of the named plots that were drawn."""
    shown = [figures[name] for name in names if name in figures]
    return Plots(shown) if shown else None


def overall(results: Results) -> list[Block]:
    """The headline table."""
    return [tables.overall(results)] if results.get("overall") else []


def labels(results: Results, figures: Figures) -> list[Block]:
    """Of each encoder: both forest plots, the table of tests, the table of values."""
    found = tables.by_encoder(results.get("labels") or [])
    blocks: list[Block] = []
    for encoder, end in plot_endings(results).items():
        rows = found.get(encoder, [])
        if not rows:
            continue
        tested = any(row.get("matched") or row.get("p_value") is not None for row in rows)
        blocks += kept(
            Heading(encoder) if len(found) > 1 else None,
            chosen(figures, f"kid_per_label{end}", f"kid_gap{end}"),
            tables.compared(rows, encoder, results.get("label_policy") or {}) if tested else None,
            tables.labels(rows, encoder),
            tables.conditional(rows, encoder) if any(row.get("conditional") for row in rows) else None,
        )
    return blocks


def plot_endings(results: Results) -> dict[str, str]:
    """What the plot files of each encoder end with."""
    rows = [*(results.get("overall") or []), *(results.get("labels") or [])]
    return endings(tables.by_encoder(rows))


def distributions(results: Results, figures: Figures) -> list[Block]:
    """Both planes of each encoder, and the map."""
    ends = plot_endings(results).values()
    names = [f"{kind}{end}" for end in ends for kind in ("precision_recall", "density_coverage")]
    return kept(chosen(figures, *names, "feature_map"))


def alignment(images: ReportImages, figures: Figures) -> list[Block]:
    """Histogram of cosines; the films that agree most and least with their prompts."""
    by = Text([f"Cosines by {images.aligned_by}."], small=True) if images.aligned_by else None
    strips = [
        films.sheet(title, found, "synthetic")
        for title, found in (
            ("Highest alignment with the prompt", images.best_aligned),
            ("Lowest alignment with the prompt", images.worst_aligned),
        )
        if found
    ]
    blocks = kept(chosen(figures, "alignment"), Films(strips, "strip") if strips else None)
    return [*kept(by), *blocks] if blocks else []


def faithfulness(results: Results, figures: Figures) -> list[Block]:
    """Of each classifier: who it is, its plot, its table, the films without a finding, the co-occurrence of labels."""
    found = results.get("faithfulness") or []
    blocks: list[Block] = []
    for one, end in zip(found, endings(classifiers(results)).values(), strict=True):
        heading = Heading(str(one.get("classifier"))) if len(found) > 1 else None
        drawn = chosen(figures, f"faithfulness{end}")
        table = tables.faithfulness(one) if one.get("labels") else None
        blocks += kept(heading, Text(judged(one)), drawn, table, tables.no_finding(one))
    return blocks


def classifiers(results: Results) -> dict[str, Mapping[str, Any]]:
    """What each classifier found, by its name; a name that comes again is numbered."""
    named: dict[str, Mapping[str, Any]] = {}
    for found in results.get("faithfulness") or []:
        name = str(found.get("classifier") or "")
        named[name if name not in named else f"{name} {len(named) + 1}"] = found
    return named


def judged(found: Mapping[str, Any]) -> list[str]:
    """What must be known of a classifier before its numbers are read."""
    told, notes = [], [str(note) for note in found.get("notes") or []]
    name = found.get("classifier") or "The classifier"
    if found.get("independent") is not None:
        how = "was not trained" if found["independent"] else "was trained"
        told.append(f"{name} {how} on the data sets that generators of chest radiographs are trained on.")
        if not found["independent"]:
            told.append("It may prefer films that resemble them: read it beside an independent one.")
    if found.get("missing"):
        told.append(f"It has no head for {', '.join(map(str, found['missing']))}.")
    return [*([" ".join(told)] if told else []), *cooccurrence(found.get("cooccurrence") or {}), *notes]


def cooccurrence(found: Mapping[str, Any]) -> list[str]:
    """Distance between the correlations of findings, beside that between two parts of the real set."""
    if finite(found.get("distance")) is None:
        return []
    among = found.get("labels")
    amount = len(among) if isinstance(among, list) else finite(among)
    over = f" of {some(round(amount), 'finding')}" if amount else ""
    told = f"Co-occurrence{over}, distance of synthetic to real films: {number(found['distance'], 3)}"
    if finite(found.get("floor")) is not None:
        told += f"; real to real: {number(found['floor'], 3)}"
        told += f" ({interval(found['floor_range'], 3)})" if found.get("floor_range") else ""
    return [f"{told}. Lower is better."]


def ranked(images: ReportImages) -> list[Block]:
    """One drawer per label, the first one open."""
    if not images.ranked:
        return []
    by = f"Ranked within each label by {images.ranked_by}." if images.ranked_by else "Ranked within each label."
    drawers = [Drawer(found.label, [films.ranked(found)], open=i == 0) for i, found in enumerate(images.ranked)]
    return [Text([by], small=True), Drawers(drawers)]


def neighbours(images: ReportImages) -> list[Block]:
    """Synthetic films beside the real ones nearest to them, or why they are not shown."""
    by = f"Nearest by {images.neighbours_by}. " if images.neighbours_by else ""
    told = f"{by}Blue edge: synthetic; grey edge: the nearest real films. A near neighbour may be a copy, or simply a "
    told += "common kind of film: look at both."
    if not images.neighbours:
        return [Text([images.withheld])] if images.withheld else []
    return [Text([told], small=True), films.neighbours(images.neighbours)]


def gallery(images: ReportImages) -> list[Block]:
    """Samples of the real set, of the kept and of the rejected films."""
    sheets = [films.sheet("Real images", images.real, "reference")] if images.real else []
    sheets += [films.sheet("Synthetic images, kept", images.kept, "synthetic")] if images.kept else []
    sheets += [films.sheet("Synthetic images, rejected", images.rejected, "rejected")] if images.rejected else []
    why = Text([images.withheld], small=True) if images.withheld and not images.real and sheets else None
    return kept(why, Films(sheets) if sheets else None)


def counts(results: Results, figures: Figures) -> list[Block]:
    """Every row that was made, judged, dropped, skipped, joined or left without a label."""
    verdicts = results.get("verdicts") or {}
    judge = [f"{name.capitalize()}: {verdicts[name]}." for name in ("judge", "calibration") if verdicts.get(name)]
    states = tables.states(results)
    return kept(
        tables.sets(results),
        tables.join(results),
        Drawer("States of the labels", [states]) if states else None,
        tables.stages(results),
        chosen(figures, "verdicts"),
        Text([" ".join(judge)], small=True) if judge else None,
        tables.shares("Why images were dropped", "Reason", verdicts.get("drop_reasons") or {}),
    )


def methods(results: Results) -> list[Block]:
    """Text and citations to paste into a paper, and the networks."""
    text, entries = parts(results.get("methods")), parts(results.get("citations"))
    return kept(
        Text(text, copy="methods-text") if text else None,
        Drawer("Citations (BibTeX)", [Code("\n\n".join(entries), copy="citations")], open=True) if entries else None,
        tables.encoders(results),
    )


def provenance(results: Results) -> list[Block]:
    """Command, versions, hashes, request."""
    command, config = results.get("command"), results.get("config")

    def drawer(title: str, key: str, names: tuple[str, str]) -> Drawer | None:
        return Drawer(title, [tables.pairs(title, names, results[key])]) if results.get(key) else None

    return kept(
        Text(["Made by the command"], small=True) if command else None,
        Code(str(command), copy="command") if command else None,
        drawer("Versions", "versions", ("Package", "Version")),
        drawer("Hashes", "hashes", ("What", "Hash")),
        Drawer("Configuration", [Code(json.dumps(config, indent=2, ensure_ascii=False, default=str))])
        if config
        else None,
    )
