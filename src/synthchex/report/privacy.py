"""The section "Privacy": is a synthetic film a copy, and how sure can one be. From `results["privacy"]`.

Grey is always what real films of other patients do, blue the synthetic films, orange the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthchex.report.blocks import Block, Column, Heading, Plots, Rows, Table, Text
from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.report.text import ABSENT, count, decimals, endings, finite, number, probability, share

Results = Mapping[str, Any]
NAMES = ("dcr", "planted")


def draw(results: Results) -> list[Plot]:
    """Distances to the closest training film, one figure per space; shares of planted copies that are found."""
    found = results.get("privacy") or {}
    domain = results.get("domain")
    rows = {str(row["space"]): row for row in found.get("neighbours") or []}
    drawn = [_distances(rows[name], f"dcr{end}", domain) for name, end in endings(rows).items()]
    planted = found.get("selftest") or {}
    return drawn + ([_planted(planted, domain)] if planted.get("kinds") else [])


def headlines(results: Results) -> list[str]:
    """The answer in a few sentences."""
    found = results.get("privacy") or {}
    told = [
        f"In {row['space']}, {count(row['n_below_limit'])} of {count(row['n_films'])} synthetic films are nearer to a "
        f"training film than all but {percent(row['share_below_limit_expected'])} of other patients' films are "
        f"(at most {percent(row['share_below_limit_at_most'])} of such films); "
        f"p {probability(row['memorization_p_value'])}."
        for row in found.get("neighbours") or []
    ]
    reid = found.get("reidentification")
    if reid:
        hits, chance = reid["match"]["synthetic"], reid["match"]["held_out"]
        told.append(
            f"Re-identification: {count(hits['hits'])} of {count(hits['films'])} synthetic films match a training "
            f"patient; of real films of other patients {share(chance['hits'], chance['films'])} do."
        )
    twins = (found.get("extraction") or {}).get("spaces")
    if twins:
        most = max((one for one in twins.values() if one["limit"]), key=lambda one: one["found"]["hits"])
        told.append(
            f"{count(most['found']['hits'])} of {count(most['found']['films'])} prompts give groups of films that are "
            f"nearer to each other than all but {percent(most['limit']['quantile'])} of pairs of two prompts."
        )
    member = found.get("membership")
    if member:
        area = member["auroc"]
        told.append(
            f"Denoising errors tell training films from others with an AUROC of {number(area['value'], 3)} "
            f"({number(area['low'], 3)} to {number(area['high'], 3)}; 0.5 is chance)."
        )
    return told


def section(results: Results, figures: Mapping[str, Plot]) -> list[Block]:
    """Everything that was measured, what it means first."""
    found = results.get("privacy")
    if not found:
        return []
    blocks: list[Block] = [Text(found.get("caveats") or [])] if found.get("caveats") else []
    rows = found.get("neighbours") or []
    known = results.get("warnings") or []  # those of an included part are not on the page's list
    doubts = dict.fromkeys(text for row in rows for text in row.get("warnings") or [] if text not in known)
    blocks += [Text([f"Note: {text}." for text in doubts], small=True)] if doubts else []
    drawn = [figures[name] for name in figures if name.partition("__")[0] == NAMES[0]]
    blocks += [Heading("Nearest training films")] * bool(rows) + [Plots(drawn)] * bool(drawn)
    blocks += [_near(rows), _diagnostics(rows)] if rows else []
    if found.get("copies"):
        blocks += [Heading("Near-copies, by the gate"), _copies(found["copies"])]
    if found.get("selftest"):
        blocks += [Heading("What the search finds: planted copies")]
        blocks += [Plots([figures["planted"]])] if "planted" in figures else []
        blocks += [_selftest(found["selftest"])]
    blocks += _reidentification(found.get("reidentification"))
    blocks += _extraction(found.get("extraction"))
    blocks += _membership(found.get("membership"))
    return blocks + _prompts(found.get("prompts"))


def _distances(row: Results, name: str, domain: str | None) -> Plot:
    """Cumulative shares of distances, of synthetic films and of the null, on a logarithmic axis."""
    curve, limit = row["curve"], row["share_below_limit_distance"]
    with canvas(2.8, domain) as figure:
        axes = figure.subplots()
        for key, colour, label in (("null", "reference", row["null"]), ("synthetic", "synthetic", "synthetic films")):
            values = np.maximum(np.asarray(curve[key], float), 1e-12)
            axes.step(np.sort(values), np.linspace(0, 1, len(values)), color=LIGHT[colour], linewidth=1.6, label=label)
        axes.axvline(limit, color=LIGHT["flag"], linewidth=1.2, linestyle=(0, (4, 3)), label="limit")
        positive = [value for key in ("null", "synthetic") for value in curve[key] if value > 0]
        axes.set_xscale("symlog", linthresh=max(min(positive) / 2, 1e-9)) if min(curve["synthetic"]) <= 0 else None
        axes.set(xlabel=f"Distance to the closest training film, {row['space']}", ylabel="Share of films")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(True)
        figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2, columnspacing=1.2)
    caption = "Synthetic films left of the grey curve are nearer to training films than films of other patients are."
    alt = f"{row['n_below_limit']} of {row['n_films']} synthetic films are below the limit of {number(limit, 3)}."
    return Plot(name, f"Distance to the closest training film, {row['space']}", caption, alt, figure)


def _planted(found: Results, domain: str | None) -> Plot:
    """Share of planted copies that is found, by kind, in the best space and overall."""
    kinds = found["kinds"]
    with canvas(0.9 + 0.24 * len(kinds), domain) as figure:
        axes = figure.subplots()
        for place, kind in enumerate(kinds):
            for key, shift, colour in (("any", -0.16, "synthetic"), ("gate", 0.16, "flag")):
                if found_by := kind.get(key):
                    at, ends = place + shift * bool(kind.get("gate")), [found_by["low"], found_by["high"]]
                    axes.plot(ends, [at, at], color=LIGHT[colour], linewidth=1.4)
                    axes.plot(found_by["share"], at, "o", color=LIGHT[colour], markersize=5, markeredgewidth=0)
        for label, colour in (("any space", "synthetic"), ("gate", "flag")):
            axes.plot([], [], "o", color=LIGHT[colour], label=label)
        figure.legend(loc="outside upper left", ncols=2, borderaxespad=0.2)
        axes.set_yticks(range(len(kinds)), [str(kind["kind"]) for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.7)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="x")
        axes.set_xlabel("Share of planted copies that is found")
    told = "; ".join(f"{kind['kind']} {number(kind['any']['share'], 3)}" for kind in kinds)
    caption = f"{count(kinds[0]['any']['films'])} copies of each kind; lines are exact intervals."
    return Plot("planted", "Planted copies", caption, told, figure)


def _near(rows: Sequence[Results]) -> Table:
    columns = ["Space", "Films", "Median DCR", "of the null", "Ratio", "Below the limit", "Expected", "p", "Certain"]
    cells = []
    for row in rows:
        digits = decimals([row["dcr_median"], row["dcr_median_null"]])
        ends = f"{percent(row['share_below_limit_low'])} to {percent(row['share_below_limit_high'])}"
        ratio = f"{number(row['dcr_ratio_low'], 3)}, {number(row['dcr_ratio_high'], 3)}"
        cells.append(
            [
                row["space"],
                count(row["n_films"]),
                number(row["dcr_median"], digits),
                number(row["dcr_median_null"], digits),
                f"{number(row['dcr_ratio'], 3)} [{ratio}]",
                f"{count(row['n_below_limit'])} ({ends})",
                percent(row["share_below_limit_expected"]),
                probability(row["memorization_p_value"]),
                count(row["n_below_certain"]),
            ]
        )
    note = f"Null: {rows[0]['null']}. A ratio below 1: synthetic films are nearer to training films than the null is. "
    note += "Certain: nearer than any of so many films of new patients would come, but for a chance of 1 %."
    return _table("Distance to the closest training film (DCR) beside the null", note, columns, cells)


def _diagnostics(rows: Sequence[Results]) -> Table:
    cells = [
        [
            row["space"],
            number(row["nndr_median"], 3),
            number(row["nndr_median_null"], 3),
            number(row["authenticity"], 3),
            number(row["authenticity_null"], 3),
            number(row["ct"], 2),
            count(row["n_copies"]),
        ]
        for row in rows
    ]
    columns = ["Space", "Median NNDR", "of the null", "AuthPct", "of the null", "C_T", "Identical"]
    return _table("Diagnostics", str(rows[0]["diagnostics_note"]), columns, cells)


def _copies(found: Results) -> Table:
    cells = [[str(finder), count(hits)] for finder, hits in found["found"].items()]
    note = f"{count(found['any'])} of {count(found['films'])} films in all; thresholds allow "
    note += f"{percent(found['false_alarms'])} of other patients' films."
    return _table("Films that are called copies", note, ["By", "Films"], cells)


def _selftest(found: Results) -> Table:
    spaces = list(found["kinds"][0]["spaces"]) if found["kinds"] else []
    shares = [f"{number(100 * part, 1)} % copies" for part in found["shares"]]
    cells = [
        [
            kind["kind"],
            number(kind["any"]["share"], 3),
            *(number(kind["spaces"][space]["share"], 3) for space in spaces),
            number((kind.get("gate") or {}).get("share"), 3),
            *(number(power, 2) for power in kind["flagged"]),
        ]
        for kind in found["kinds"]
    ]
    alarms = found["false_alarms"]
    said = (
        f"Of real films of other patients {share(alarms['hits'], alarms['films'])} are called copies. "
        if alarms
        else ""
    )
    note = f"{said}Right: share of sets of {count(found['set_size'])} films that are flagged, if so many are copies; "
    note += f"without copies {number(found['flagged_without'], 2)}."
    return _table("Share of planted copies found", note, ["Kind", "Any space", *spaces, "Gate", *shares], cells)


def _reidentification(found: Results | None) -> list[Block]:
    if not found:
        return []
    measured, match = found["calibration"], found["match"]
    area, seen = measured["auroc"], measured["detected"]
    told = (
        f"By {found['score']}: real films of one patient are told from those of two with an AUROC of "
        f"{number(area['value'], 3)} ({number(area['low'], 3)} to {number(area['high'], 3)}); the threshold "
        f"{number(measured['threshold'], 4)} is passed by {percent(measured['false_positives'])} of pairs of two "
        f"patients and by {share(seen['hits'], seen['films'])} of pairs of one."
    )
    cells = [
        [
            name,
            count(part["films"]),
            count(part["hits"]),
            f"{percent(part['low'])} to {percent(part['high'])}",
            percent(part["upper"]),
        ]
        for name, part in (
            ("synthetic", match["synthetic"]),
            ("real, other patients", match["held_out"]),
            (f"synthetic, {count(match['control']['films'])} training films", match["control"]["train"]),
            (f"synthetic, {count(match['control']['films'])} held-out films", match["control"]["held_out"]),
        )
    ]
    columns = ["Films", "n", "With a match", "Interval", "At most (one-sided)"]
    note = (
        "A match: the best of all training films is above the threshold. The second row says how often that is chance."
    )
    blocks: list[Block] = [Heading("Re-identification"), Text([told])]
    return [*blocks, _table("Films that match a training patient", note, columns, cells), *_published(found)]


def _published(found: Results) -> list[Block]:
    """CheXGenBench's table, where it was asked for."""
    if not (table := found.get("benchmark")):
        return []
    cells = []
    for name, value in table["summary"].items():
        ends = table["intervals"].get(name)
        said = ABSENT if not ends else f"{number(ends[0], 3)} to {number(ends[1], 3)}"
        cells.append([name, number(value, 3) if isinstance(value, float) else count(value), said])
    note = (
        "Each prompt's own real film beside the films of its seeds, as that benchmark compares them; pixels as floats, "
    )
    note += "every seed by its own film. It says nothing of other training films."
    return [_table("CheXGenBench's privacy table", note, ["Name", "Value", "Interval"], cells)]


def _extraction(found: Results | None) -> list[Block]:
    if not found:
        return []
    cells = [
        [
            space,
            count(one["found"]["films"]),
            count(one["found"]["hits"]),
            percent(one["found"]["upper"]),
            count(one["largest"]),
        ]
        for space, one in found["spaces"].items()
    ]
    columns = ["Space", "Prompts", "With a clique", "At most (one-sided)", "Largest clique"]
    note = (
        f"A clique: at least {found['size']} films of one prompt that are nearer to each other than films of different "
    )
    limit = next(one["limit"] for one in found["spaces"].values() if one["limit"])
    note += (
        f"prompts, but for {percent(limit['quantile'])} of their pairs. Where that is much, with few prompts, models "
    )
    note += "that copy nothing have cliques too."
    return [Heading("Repeated films, without training images"), _table("Cliques of one prompt", note, columns, cells)]


def _membership(found: Results | None) -> list[Block]:
    if not found:
        return []
    area = found["auroc"]
    cells = [["all times", number(area["value"], 3), f"{number(area['low'], 3)} to {number(area['high'], 3)}"]]
    for at in found["detected"]:
        hits = at["found"] or {}
        cells.append(
            [f"found at {percent(at['false_alarms'])} false alarms", number(hits.get("share"), 3), _ends(hits)]
        )
    note = f"{count(found['members'])} training films against {count(found['non_members'])} films of other patients."
    return [
        Heading("Membership by denoising error"),
        _table("AUROC and members found", note, ["What", "Value", "Interval"], cells),
    ]


def _prompts(found: Results | None) -> list[Block]:
    if not found or not found["counts"]:
        return []
    cells = [[kind, count(times)] for kind, times in found["counts"].items()]
    note = f"Of {count(found['prompts'])} prompts. Marks of de-identification are the strongest known trigger of "
    note += "memorised films."
    return [Heading("Prompts"), _table("Prompts that invite or name", note, ["Kind", "Prompts"], cells)]


def percent(value: Any) -> str:
    """A share as a percentage, with as many digits as a small one needs."""
    found = finite(value)
    return ABSENT if found is None else f"{number(100 * found, 1 if found >= 0.01 or not found else 3)} %"


def _ends(found: Results) -> str:
    return ABSENT if found.get("low") is None else f"{number(found['low'], 3)} to {number(found['high'], 3)}"


def _table(title: str, note: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    kinds = [Column(name, "text" if place == 0 else "number") for place, name in enumerate(columns)]
    return Table(title, note, kinds, [Rows("", [list(row) for row in cells])])
