"""A calibration in words: a section for a card, one sentence for a report, and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthchex.report.canvas import LIGHT, Plot, canvas
from synthchex.trials.findings import RISE


def sentence(found: Mapping[str, Any]) -> str:
    """What is known of the judge, for a report or a card that has room for one sentence."""
    right = found["confusion"]["kept_or_dropped"]
    clean = next(row for row in found["by_kind"] if row["kind"] == "clean")["judge"]
    said = (
        f"{found['judge']}, measured on {found['films']} films with planted defects: right about keeping or dropping "
        f"in {_share(right)}, good films dropped {_share(clean)}"
    )
    swapped = found["captions"]["mismatched"]
    return said + (f", AUROC for wrong captions {_auroc(swapped)}" if swapped else "")


def section(found: Mapping[str, Any]) -> str:
    """Markdown: what the judge drops of each defect, and how far its scores can be believed."""
    screens = sorted({reason for row in found["by_kind"] for reason in row["screens"]})
    head = ["defect", "severity", "expected", "dropped by the judge", *(f"`{name}`" for name in screens)]
    head += ["by either"] if screens else []
    lines = ["## Reliability of the filter", "", sentence(found)[:1].upper() + sentence(found)[1:] + ".", ""]
    lines += [_row(head), _row(["---"] * len(head))]
    for row in found["by_kind"]:
        cells = [row["kind"].replace("_", " "), str(row["severity"] or "-"), row["expected"], _share(row["judge"])]
        cells += [f"{row['screens'][name]:.0%}" if name in row["screens"] else "" for name in screens]
        lines.append(_row([*cells, _share(row["either"])] if screens else cells))
    return "\n".join([*lines, "", *_remarks(found)]) + "\n"


def _remarks(found: Mapping[str, Any]) -> list[str]:
    said = []
    for kind, name in (("mismatched", "another film's caption"), ("negated", "its own caption negated")):
        value = found["captions"][kind]
        said.append(f"- AUROC between a film's own caption and {name}: {_auroc(value) if value else 'not measured'}.")
    steps = [one["ordered_steps"] for one in found["order"].values()]
    hits, total = sum(step["hits"] for step in steps), sum(step["n"] for step in steps)
    said.append(f"- Steps to a worse film that do not raise its score by more than {RISE}: {hits} of {total}.")
    if "flipped_by_order" in found:
        flipped = _share(found["flipped_by_order"])
        said.append(f"- Answers that change when the classes are offered in reverse: {flipped}.")
    if found["unanswered"]:
        said.append(f"- Questions without an answer that could be read: {found['unanswered']} of {found['cases']}.")
    if found["curve"]:
        said.append(f"- Expected calibration error of the score of being kept: {found['curve']['error']:.3f}.")
    limit = found["threshold"]
    if limit:
        said.append(
            f"- A score of {limit['value']:.3f} keeps a precision of {limit['precision']:.1%} on these cases, of which "
            f"{found['good_films']:.0%} are good, and {limit['recall']:.1%} of the good films."
        )
    elif found["curve"]:
        said.append("- No score reaches the precision that was asked for.")
    for pair in found.get("ratings", {}).get("pairs", []):
        if pair["kappa"] is not None:
            ends = f"[{pair['low']:.2f}, {pair['high']:.2f}]"
            names = " and ".join(pair["between"])
            said.append(f"- Weighted kappa, {names}: {pair['kappa']:.2f} {ends}, n = {pair['n']}.")
    return said


def plot(found: Mapping[str, Any]) -> Plot | None:
    """Share of good films against the score of being kept; and how the score falls as films get worse."""
    if not found["curve"]:
        return None
    with canvas(6.0, None) as figure:
        upper, lower = figure.subplots(2)
        upper.plot([0, 1], [0, 1], color=LIGHT["reference"])
        upper.plot(found["curve"]["score"], found["curve"]["share"], "o-", color=LIGHT["synthetic"], markersize=4)
        upper.set(xlabel="score of being kept", ylabel="share of good films", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        for place, (kind, one) in enumerate(found["order"].items()):
            style = ("o-", "s--", "^:")[place % 3]
            name = kind.replace("_", " ")
            lower.plot(range(4), one["mean_keep"], style, linewidth=1, markersize=3.5, label=name)
        lower.set(xlabel="severity (0: as it is)", ylabel="mean score of being kept", xticks=range(4))
        lower.set_ylim(-0.03, 1.03)
        figure.legend(*lower.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    told = "Above: films of similar score, and the share of them that is good. Below: the score as a defect gets worse."
    return Plot("calibration", "Reliability of the judge", told, told, figure)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _share(found: Mapping[str, Any]) -> str:
    if found["share"] is None:
        return "-"
    return f"{found['share']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def _auroc(found: Mapping[str, Any]) -> str:
    return f"{found['auroc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
