"""The tables of an evaluation: from rows of `results.json` to cells of text. Knows nothing of HTML, plots or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from synthchex.report.blocks import Cell, Column, Rows, Table
from synthchex.report.text import (
    ABSENT,
    bounds,
    count,
    decimals,
    duration,
    finite,
    interval,
    number,
    probability,
    share,
)

Row = Mapping[str, Any]
Maker = Callable[[Row], str | Cell]
Makers = Mapping[Column, Maker]

# key in a label row: name in tables. Every one may have `<key>_interval` and `<key>_floor`.
LABEL_METRICS = {
    "kid": "KID",
    "cmmd": "CMMD",
    "fid": "FID",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "vendi": "Vendi",
    "ms_ssim": "MS-SSIM",
    "alignment": "Alignment",
}
FLAG = "differs"


def scored(row: Row) -> bool:
    """Whether a row's numbers may be shown."""
    return (row.get("state") or "ok") == "ok"


def by_encoder(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by the name of their encoder, in the order they come; those without one under an empty name."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row.get("encoder") or ""), []).append(row)
    return found


def _lines(rows: Iterable[Row], head: Makers, body: Makers, tail: Makers | None = None) -> list[list[str | Cell]]:
    """Cells of each row; the state of a row that was not scored takes the place of its `body`."""
    lines = []
    for row in rows:
        line = [make(row) for make in head.values()]
        line += [make(row) for make in body.values()] if scored(row) else [Cell(str(row["state"]), width=len(body))]
        lines.append(line + [make(row) for make in (tail or {}).values()])
    return lines


def _words(key: str) -> Maker:
    return lambda row: str(row.get(key) or ABSENT)


def _count(key: str, part: str = "") -> Maker:
    return lambda row: count(_part(row, part).get(key))


def _number(key: str, digits: int, part: str = "") -> Maker:
    return lambda row: number(_part(row, part).get(key), digits)


def _estimate(key: str, digits: int, part: str = "", *, signed: bool = False) -> Maker:
    """A value with its interval under it."""

    def make(row: Row) -> Cell:
        found = _part(row, part)
        pair = bounds(found.get(f"{key}_interval"))
        return Cell(number(found.get(key), digits, signed=signed), interval(pair, digits) if pair else "")

    return make


def _part(row: Row, part: str) -> Row:
    return row.get(part) or {} if part else row


def _digits(rows: Sequence[Row], keys: Sequence[str], part: str = "") -> int:
    """Digits after the point that suit all values of a few columns."""
    return decimals(_part(row, part).get(key) for row in rows if scored(row) for key in keys)


def _of(title: str, name: str) -> str:
    return f"{title}: {name}" if name else title


class MetricTexts(NamedTuple):
    """The numbers of a metric row as text, all with the same digits."""

    value: str
    interval: str
    floor: str
    matched: str
    difference: str


def metric_texts(row: Row) -> MetricTexts:
    """Value, interval, floor, the value at the sample size of the floor, and what it lies above the floor."""
    value, floor, matched = (finite(row.get(key)) for key in ("value", "floor", "matched"))
    digits = decimals([value, floor])
    ours = value if matched is None else matched
    between = None if ours is None or floor is None else ours - floor
    texts = (number(value, digits), interval(row.get("interval"), digits), number(floor, digits))
    return MetricTexts(*texts, number(matched, digits), number(between, digits, signed=True))


def overall(results: Row) -> Table:
    """Every metric of the whole set with interval, floor and what lies between value and floor."""
    head: Makers = {Column("Metric"): lambda row: str(row.get("label") or row.get("metric") or ABSENT)}
    body: Makers = {
        Column("Synthetic", "value"): lambda row: metric_texts(row).value,
        Column("Interval"): lambda row: metric_texts(row).interval,
        Column("Real vs real"): lambda row: metric_texts(row).floor,
        Column("Synthetic, same n", "quiet"): lambda row: metric_texts(row).matched,
        Column("Difference"): lambda row: metric_texts(row).difference,
    }
    tail: Makers = {
        Column("Better", "quiet"): _words("better"),
        Column("n real"): _count("n_real"),
        Column("n synthetic"): _count("n_synthetic"),
        Column("n floor"): lambda row: " / ".join(map(count, row.get("n_floor") or [])) or ABSENT,
        Column("Note", "note"): lambda row: str(row.get("note") or ""),
    }
    rows = by_encoder(results.get("overall") or [])
    sizes = {str(e.get("name")): e.get("width") for e in results.get("encoders") or [] if e.get("kind") != "classifier"}
    titles = {name: _encoder_title(name, sizes.get(name)) for name in rows} if len(rows) > 1 else {}
    groups = [Rows(titles.get(name, ""), _lines(own, head, body, tail)) for name, own in rows.items()]
    note = "No real-vs-real floor was measured."
    if any(finite(row.get("floor")) is not None for own in rows.values() for row in own):
        note = "Real vs real is the floor: the same metric between two parts of the real set. Difference: synthetic "
        note += "minus floor, at the sample size of the floor where that was measured. Read every score against it."
    return Table("Overall scores", note, [*head, *body, *tail], groups).compact()


def _encoder_title(name: str, width: Any) -> str:
    return f"{name} ({count(width)} features)" if finite(width) is not None else name or "without a network"


def labels(rows: Sequence[Row], encoder: str) -> Table:
    """The metrics of each label's films, all of them at the label's own sample size."""
    head: Makers = {
        Column("Label"): _words("label"),
        Column("n real / synth."): lambda row: f"{count(row.get('n_real'))} / {count(row.get('n_synthetic'))}",
    }
    body: dict[Column, Maker] = {}
    for key, name in LABEL_METRICS.items():
        digits = _digits(rows, (key, f"{key}_floor"))
        body[Column(name, "value" if key == "kid" else "number")] = _estimate(key, digits)
        body[Column(f"{name}, real vs real", "quiet")] = _number(f"{key}_floor", digits)
    note = "Under a value, its interval. Each label stands at its own n: what depends on n, such as FID, must not be "
    note += "compared between labels. A label with too few images is not scored: its number would measure the sample "
    note += "size."
    groups = [Rows("", _lines(rows, head, body))]
    return Table(_of("Scores per label", encoder), note, [*head, *body], groups).compact()


def compared(rows: Sequence[Row], encoder: str, policy: Row) -> Table:
    """What may be compared between labels: the gap at one sample size, and its test."""
    kid = _digits(rows, ("kid", "kid_floor", "kid_gap"), "matched")
    fid = _digits(rows, ("fid", "fid_floor"), "matched")
    head: Makers = {Column("Label"): _words("label")}
    body: Makers = {
        Column("Gap", "value"): _estimate("kid_gap", kid, "matched", signed=True),
        Column("p adjusted"): lambda row: probability(row.get("p_adjusted")),
        Column("Verdict", "flag"): _verdict,
        Column("p"): lambda row: probability(row.get("p_value")),
        Column("KID"): _number("kid", kid, "matched"),
        Column("KID, real vs real", "quiet"): _number("kid_floor", kid, "matched"),
        Column("FID"): _number("fid", fid, "matched"),
        Column("FID, real vs real", "quiet"): _number("fid_floor", fid, "matched"),
        Column("FID / floor"): _number("fid_ratio", 2, "matched"),
        Column("n each"): _count("n", "matched"),
        Column("KID, all films"): _estimate("distance", kid),
        Column("Note", "note"): lambda row: "; ".join(part for part in _notes(row) if part not in common),
    }
    notes = [_notes(row) for row in rows if scored(row)]
    common = [part for part in (notes[0] if notes else []) if all(part in other for other in notes)]
    told = " ".join([_how_tested(policy), *(f"{part[:1].upper()}{part[1:]}." for part in common)])
    groups = [Rows("", _lines(rows, head, body))]
    return Table(_of("Labels compared", encoder), told, [*head, *body], groups).compact()


def _notes(row: Row) -> list[str]:
    return str(row["note"]).split("; ") if row.get("note") else []


def _verdict(row: Row) -> str:
    return ABSENT if row.get("flagged") is None else FLAG if row["flagged"] else "no"


def _how_tested(policy: Row) -> str:
    names = {"holm": "Holm", "bh": "Benjamini-Hochberg"}
    drawn = f", mean of {count(policy['draws'])} draws" if policy.get("draws") else ""
    note = f"All labels cut to the same n{drawn}, so that they can be compared. Gap: KID minus real-vs-real KID, with "
    note += "its interval; lower is better. "
    if policy.get("adjustment"):
        method = names.get(str(policy["adjustment"]), str(policy["adjustment"]))
        shuffled = f" ({count(policy['permutations'])} permutations)" if policy.get("permutations") else ""
        note += f"p: permutation test{shuffled} that synthetic and real films of the label have one distribution, "
        note += f"adjusted over the labels by {method}"
        note += f"; {FLAG}: adjusted p below {policy['alpha']}." if policy.get("alpha") is not None else "."
    return note


def conditional(rows: Sequence[Row], encoder: str) -> Table:
    """Whether the label changes what is drawn: distance to real films with it and without it."""
    digits = _digits(rows, ("to_same", "to_other", "gap", "ceiling"), "conditional")
    head: Makers = {Column("Label"): _words("label")}
    body: Makers = {
        Column("Share", "value"): _number("share", 2, "conditional"),
        Column("Gap"): _estimate("gap", digits, "conditional", signed=True),
        Column("Gap of real films", "quiet"): _number("ceiling", digits, "conditional"),
        Column("KID to real with label"): _number("to_same", digits, "conditional"),
        Column("KID to real without"): _number("to_other", digits, "conditional"),
    }
    note = "KID of the label's synthetic films to real films with the label and without it. Gap: without minus with. "
    note += "Share: that gap over the gap between real films. 1: the label changes synthetic films as it does real "
    note += "ones; 0 or less: it changes nothing."
    groups = [Rows("", _lines(rows, head, body))]
    return Table(_of("What the label changes", encoder), note, [*head, *body], groups).compact()


def faithfulness(found: Row) -> Table:
    """AUROC and average precision of one classifier per label, on synthetic and on real films."""
    head: Makers = {Column("Label"): _words("label")}
    body: Makers = {
        Column("AUROC synthetic", "value"): _estimate("auroc", 3),
        Column("AUROC real"): _estimate("auroc_real", 3),
        Column("Difference", "value"): _estimate("difference", 3, signed=True),
        Column("AP synthetic"): _number("average_precision", 3),
        Column("AP real"): _number("average_precision_real", 3),
    }
    tail: Makers = {
        Column("n positive"): _count("n_positive"),
        Column("n negative"): _count("n_negative"),
        Column("n positive, real", "quiet"): _count("n_positive_real"),
        Column("n negative, real", "quiet"): _count("n_negative_real"),
    }
    groups = [Rows("", _lines(found.get("labels") or [], head, body, tail))]
    mean = found.get("mean") or {}
    if mean:
        row = {**mean, "label": f"Mean of {count(mean.get('labels'))} labels"}
        groups.append(Rows("", _lines([row], head, body, tail)))
    absent = [{"label": name, "state": "no head in this classifier"} for name in found.get("missing") or []]
    groups += [Rows("", _lines(absent, head, {**body, **tail}))] if absent else []
    note = "Does the image show what its prompt says: the same classifier on synthetic films with the labels of their "
    note += "prompts, and on real films with theirs. Under a value, its interval."
    title = _of("Faithfulness to the label", str(found.get("classifier") or ""))
    return Table(title, note, [*head, *body, *tail], groups).compact()


def no_finding(found: Row) -> Table | None:
    """What the classifier sees on films that should show nothing; None where there are none."""
    check = found.get("no_finding") or {}
    rows: list[list[str | Cell]] = []
    for name, end in (("Synthetic", ""), ("Real", "_real")):
        n, highest, flagged = (check.get(f"{key}{end}") for key in ("n", "mean_highest", "share_flagged"))
        if finite(n):
            pair = bounds(check.get(f"share_flagged{end}_interval"))
            ends = " to ".join(share(end, 1) for end in pair) if pair else ""
            rows.append([name, count(n), number(highest, 3), Cell(share(flagged, 1), ends)])
    if not rows:
        return None
    columns = [Column("Films"), Column("n"), Column("Mean highest probability", "value"), Column("Share flagged")]
    note = "Highest probability of any finding on films that should show none; lower is better."
    if finite(check.get("threshold")) is not None:
        where = f" ({check['threshold_from']})" if check.get("threshold_from") else ""
        note += f" Flagged: above {number(check['threshold'], decimals([check['threshold']]))}{where}."
    return Table(_of("No Finding check", str(found.get("classifier") or "")), note, columns, [Rows("", rows)])


def stages(results: Row) -> Table | None:
    """The funnel: rows at every stage, and the change from the stage before."""
    found = results.get("stages") or []
    sizes = [finite(stage.get("rows")) for stage in found]
    before = [None, *sizes][: len(sizes)]
    rows = [
        {**stage, "change": None if now is None or then is None else now - then}
        for stage, now, then in zip(found, sizes, before, strict=True)
    ]
    head: Makers = {
        Column("Stage"): _words("name"),
        Column("Rows", "value"): _count("rows"),
        Column("Change"): lambda row: number(row["change"], 0, signed=True),
        Column("Time"): lambda row: duration(row.get("seconds")),
        Column("Note", "note"): lambda row: str(row.get("note") or ""),
    }
    note = "Rows at every stage, and the change from the stage before."
    lines = Rows("", _lines(rows, head, {}))
    return Table("From prompts to the data set", note, list(head), [lines]).compact() if rows else None


def shares(title: str, name: str, counts: Mapping[str, Any], note: str = "") -> Table | None:
    """Counts with their share of all, the largest first; None where nothing was counted."""
    total = sum(finite(n) or 0 for n in counts.values())
    ordered = sorted(counts.items(), key=lambda item: -(finite(item[1]) or 0))
    rows = [[str(key), count(n), share(n, total)] for key, n in ordered]
    columns = [Column(name, "text"), Column("Images"), Column("Share")]
    return Table(title, note, columns, [Rows("", rows)]) if rows else None


def sets(results: Row) -> Table | None:
    """Source, size and policy of both sets, and all that was skipped or done to films."""
    rows = [{**found, "name": name} for name, found in (results.get("sets") or {}).items() if found]
    head: Makers = {
        Column("Set"): _words("name"),
        Column("Images", "value"): _count("n"),
        Column("Patients"): _count("patients"),
        Column("Repeats"): _count("repeats"),
        Column("Policy", "text"): _words("policy"),
        Column("Source", "text"): _words("source"),
        Column("Skipped", "text"): lambda row: _counted(row.get("skipped")),
        Column("Done to films", "text"): lambda row: _counted(row.get("notes")),
    }
    note = "Films that could not be used, and what was done to the others, are counted with the reason. "
    note += "Repeats: films that equal another one of their set byte for byte."
    lines = Rows("", _lines(rows, head, {}))
    return Table("Image sets that were compared", note, list(head), [lines]).compact() if rows else None


def _counted(counts: Mapping[str, Any] | None) -> str:
    if counts is None:
        return "not counted"
    return "; ".join(f"{reason}: {count(n)}" for reason, n in counts.items() if finite(n)) or "none"


def join(results: Row) -> Table | None:
    """How rows of both sets were paired; None where they were not."""
    found = results.get("join") or {}
    names = {"joined": "joined", "only_real": "only in the real set", "only_synthetic": "only in the synthetic set"}
    names["repeated"] = "repeated keys"
    rows = [[text, count(found[key])] for key, text in names.items() if finite(found.get(key)) is not None]
    note = f"Paired by {found.get('by')}." if found.get("by") else ""
    columns = [Column("Rows", "text"), Column("Count")]
    return Table("How rows of both sets were joined", note, columns, [Rows("", rows)]) if rows else None


def states(results: Row) -> Table | None:
    """How many films of each set say what of each label; None where no set has labels."""
    known = {name: found.get("states") for name, found in (results.get("sets") or {}).items() if found}
    known = {name: found for name, found in known.items() if found}
    if not known:
        return None
    kinds = list(dict.fromkeys(kind for found in known.values() for row in found.values() for kind in row))
    names = list(dict.fromkeys(label for found in known.values() for label in found))
    columns = [Column("Label"), *(Column(f"{name}: {kind}") for name in known for kind in kinds)]
    rows = [
        [label, *(count((found.get(label) or {}).get(kind)) for found in known.values() for kind in kinds)]
        for label in names
    ]
    policy = (results.get("label_policy") or {}).get("uncertain")
    note = f"Uncertain counts as: {policy}." if policy else ""
    return Table("States of the labels", note, columns, [Rows("", rows)])


def pairs(title: str, names: tuple[str, str], values: Mapping[str, Any]) -> Table:
    """Two columns of names and values, such as versions and hashes."""
    rows = [[str(name), str(value)] for name, value in values.items()]
    return Table(title, "", [Column(names[0], "text"), Column(names[1], "code")], [Rows("", rows)])


def encoders(results: Row) -> Table | None:
    """The networks that looked at the films."""
    head: Makers = {
        Column("Network"): _words("name"),
        Column("Kind", "text"): _words("kind"),
        Column("Features"): _count("width"),
        Column("Key", "code"): _words("key"),
    }
    rows = results.get("encoders") or []
    return Table("Networks", "", list(head), [Rows("", _lines(rows, head, {}))]) if rows else None
