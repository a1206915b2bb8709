"""What the gate found, as data, as lines for a terminal, and as the section of a card. Knows no row's content.

A card is public: it tells what was looked for, with what power, and what was decided; never which real film a row was
near to, nor where real films lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from synthchex.gate.calibration import Calibration
from synthchex.gate.release import Terms
from synthchex.maths.limits import Share

SHOWN_ROWS = 5
COLUMN = "column "
PROMPTS = {
    "keep": "published as they were used",
    "withhold": "withheld",
    "from-labels": "replaced by texts that say what the labels say and nothing else",
}


@dataclass(frozen=True)
class Finding:
    """Something that keeps a set from leaving: a slug, a sentence, and the rows it is about (none: the whole set)."""

    kind: str
    what: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was looked at and found.

    `findings` refuse the set, `remarks` do not; `removed` counts what rows lose when they leave; `not_looked_for` says
    which checks were not made, and why; `encoder` is None where no real films were given.
    """

    rows: int
    terms: Terms
    findings: Sequence[Finding]
    remarks: Sequence[Finding]
    removed: Mapping[str, int]
    not_looked_for: Mapping[str, str]
    calibration: Calibration | None = None
    encoder: str | None = None

    @property
    def flagged(self) -> list[int]:
        """Rows that some finding is about, in order."""
        return sorted({row for finding in self.findings for row in finding.rows})

    @property
    def of_the_set(self) -> list[Finding]:
        """Findings that no dropped row would mend."""
        return [finding for finding in self.findings if not finding.rows]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def lines(report: Report) -> Iterator[str]:
    """For a terminal."""
    yield f"gate: {report.rows} films, source {report.terms.policy}, prompts {PROMPTS[report.terms.prompts]}"
    if report.calibration is not None:
        yield ""
        yield from calibration_lines(report.calibration, str(report.encoder))
        yield ""
    for what, count in sorted(report.removed.items()):
        yield f"  taken away: {what}, {count} films"
    for what, why in report.not_looked_for.items():
        yield f"  not looked for: {what}, {why}"
    for remark in report.remarks:
        yield f"  remark: {remark.what}"
    for finding in report.findings:
        rows = ", ".join(map(str, finding.rows[:SHOWN_ROWS])) + (", …" if len(finding.rows) > SHOWN_ROWS else "")
        yield f"  found: {finding.what}" + (f" (rows {rows})" if rows else "")
    yield f"gate: {len(report.findings) or 'no'} findings"


def calibration_lines(measured: Calibration, encoder: str) -> Iterator[str]:
    """What thresholds catch and whom they accuse, as a table for a terminal."""
    yield (
        f"  beside {measured.films} real films of {measured.patients} patients"
        f"{'' if measured.patients_known else ' (patients unknown: each film counts as one)'}, encoder {encoder}"
    )
    yield f"  {'planted copies':<22}{'caught':>8}  {'95 % interval':<16}{'by looks':>9}{'by encoder':>12}{'copies':>8}"
    for kind, shares in measured.caught.items():
        caught = shares["any"]
        yield (
            f"  {kind:<22}{caught.value:>8.3f}  {_interval(caught):<16}{shares['looks'].value:>9.3f}"
            f"{shares['features'].value:>12.3f}{caught.trials:>8}"
        )
    alarms = measured.false_alarms
    yield f"  {'other patients':<22}{alarms.value:>8.3f}  {_interval(alarms):<16}{'':>21}{alarms.trials:>8}"
    for kind, why in measured.not_planted.items():
        yield f"  {kind}: not planted, {why}"


def card_section(report: Report, *, dropped: int, reason: str | None) -> str:
    """Markdown for the card: what was looked for, with what power, what was found and decided.

    Args:
        report: of the gate.
        dropped: rows that were left out for its findings.
        reason: why it was overridden; None where it was not.
    """
    text = ["## Privacy gate", "", *_policy_text(report), *_power_text(report)]
    if dropped:
        text += ["", f"{dropped} of {report.rows} films were left out for what the gate found."]
    if reason is None:
        text += ["", "Nothing that the gate looks for is left in this dataset."]
    else:
        text += ["", f"**The gate refused this dataset and was overridden.** Reason given: {reason}", ""]
        text += [f"- {finding.what}" for finding in (report.of_the_set if dropped else report.findings)]
    text += ["", *[f"Remark: {remark.what}." for remark in report.remarks]] if report.remarks else []
    return "\n".join(text) + "\n"


def _policy_text(report: Report) -> list[str]:
    columns = [what for what in report.removed if what.startswith(COLUMN)]
    removed = [f"{what} ({count})" for what, count in sorted(report.removed.items()) if what not in columns]
    # Without their names, which are anybody's.
    removed += [f"{len(columns)} other columns ({report.rows})"] if columns else []
    text = [
        f"Source of the prompts and of the real films that were compared: {report.terms.policy}. Prompts are "
        f"{PROMPTS[report.terms.prompts]}. File names are random; files hold pixels and nothing else."
    ]
    text += ["", f"Taken away, with the number of films: {', '.join(removed)}."] if removed else []
    text += [
        "",
        "Looked for in every text: identifiers of MIMIC-CXR, CheXpert, NIH ChestX-ray14, Open-i and PadChest, DICOM "
        "UIDs, UUIDs, dates, long numbers, marks of de-identification.",
    ]
    return text + [f"Not looked for: {what} ({why})." for what, why in report.not_looked_for.items()]


def _power_text(report: Report) -> list[str]:
    measured = report.calibration
    if measured is None:
        return []
    known = "" if measured.patients_known else " (patients unknown: each film counts as one)"
    rows = [
        f"| {kind} | {shares['any'].value:.3f} | {_interval(shares['any'])} | {shares['looks'].value:.3f} | "
        f"{shares['features'].value:.3f} |"
        for kind, shares in measured.caught.items()
    ]
    alarms = measured.false_alarms
    planted = next(iter(measured.caught.values()))["any"].trials
    return [
        "",
        f"Every film was compared with {measured.films} real films of {measured.patients} patients{known}: by content, "
        f"by pixels, by looks (perceptual hash, then laid over each other), by the features of {report.encoder}. "
        f"What that catches was measured on copies of {planted} of these real films, planted among the candidates:",
        "",
        "| planted copy | caught | 95 % interval | by looks alone | by features alone |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Of {alarms.trials} real films, each beside those of other patients, {alarms.hits} were wrongly called "
        f"copies: {alarms.value:.3f} ({_interval(alarms)}). Intervals are exact binomial ones.",
        *[f"Not planted: {kind} ({why})." for kind, why in measured.not_planted.items()],
    ]


def _interval(share: Share) -> str:
    return f"{share.low:.3f} to {share.high:.3f}"
