"""The gate that a set of films passes before it leaves: near-copies of real films, identifiers, reports, source policy.

    report = check(dataset, real, terms, encoder=encoder)

`check` looks and changes nothing; `release` says what a row loses when it leaves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from synthchex.ahead import in_order
from synthchex.data import shards, sources
from synthchex.data.sources import ImageSet
from synthchex.gate import calibration, copies, identifiers, planted, texts
from synthchex.gate.calibration import Trial
from synthchex.gate.release import Released, Terms, columns, features, free_text, release
from synthchex.gate.report import Finding, Report, card_section, lines

__all__ = ["Comparison", "Finding", "Report", "Terms", "Trial", "card_section", "check", "lines", "together"]

PATIENTS = ("patient", "patient_id", "subject_id", "study", "study_id")  # columns that only real films have
SAID = {
    "exact": "files of real films",
    "pixels": "films with the pixels of a real film",
    "looks": "near-copies of real films, by looks",
    "features": "films nearer to a real film, by features, than other patients' films come",
}


@dataclass(frozen=True)
class Comparison:
    """Real films to compare with, and how: the encoder, what its name may be in public, where features are kept, how
    the gate is calibrated, kinds of copies to plant and those that cannot be."""

    real: ImageSet
    encoder: Any
    encoder_name: str
    trial: Trial = field(default_factory=Trial)
    kept: Path | None = None
    changes: Mapping[str, planted.Change] | None = None
    not_planted: Mapping[str, str] | None = None
    batch_size: int = 32
    num_workers: int = 2


def check(
    dataset: Path,
    comparison: Comparison | None,
    terms: Terms,
    *,
    reports: Sequence[str] | None = None,
    quiet: bool = True,
) -> Report:
    """Look through a dataset folder for what must not leave.

    Args:
        dataset: folder of Parquet shards with `image`, `prompt`, `labels_dict`; rows are numbered over its files.
        comparison: local real films; None where there are none, which is itself a finding.
        terms: what the source allows, and what becomes of the prompts.
        reports: local reports whose phrases must not leave; None where there are none.
        quiet: no progress on stderr.

    Raises:
        ValueError: no rows, no readable film, too few real patients.
    """
    findings, remarks, skipped = list[Finding](), list[Finding](), dict[str, str]()
    rows = shards.Rows(shards.parquet_files(dataset))
    if not len(rows):
        raise ValueError(f"expected films in {dataset}, got 0 rows; build it again")
    removed, found, spoken = _read_through(rows, terms, comparison.num_workers if comparison else 0)
    findings += [
        Finding(kind, f"{kind}: {len(numbers)} rows", tuple(numbers)) for kind, numbers in sorted(found.items())
    ]
    findings += _of_columns(rows, terms)
    if not terms.allowed:
        findings.append(
            Finding("prompts", f"prompts of a source that is {terms.policy}: withhold them, or make them from labels")
        )
    if reports is None:
        skipped["phrases of local reports"] = "no reports were given"
    else:
        copied = texts.copied(spoken, texts.rare_phrases(reports)).nonzero()[0].tolist()
        what = f"texts with {texts.WORDS} words in a row from a local report: {len(copied)} rows"
        findings += [Finding("report", what, tuple(copied))] if copied else []
    if comparison is None:
        skipped["copies of real films"] = "no real films were given"
        findings.append(Finding("no-real-films", "copies of real films were not looked for: give the local real films"))
        return Report(len(rows), terms, findings, remarks, dict(removed), skipped)
    measured, near = _compare(dataset, len(rows), comparison, quiet)
    findings += near
    if measured.missed:
        # Without power a silent gate says nothing; for films that anyone may see that is a flaw, not a leak.
        what = f"too few planted copies are caught to rely on the gate: {', '.join(measured.missed)}"
        (remarks if terms.policy == "open" else findings).append(Finding("calibration", what))
    return Report(len(rows), terms, findings, remarks, dict(removed), skipped, measured, comparison.encoder_name)


def together(sets: Sequence[ImageSet]) -> ImageSet:
    """Several real sets as one; patients of different sets are different patients, unknown where one set's are.

    Raises:
        ValueError: no sets.
    """
    if not sets:
        raise ValueError("expected at least 1 set of real films, got 0")
    if len(sets) == 1:
        return sets[0]
    places = [(number, row) for number, films in enumerate(sets) for row in range(len(films))]
    known = all(films.patients is not None for films in sets)

    def of_each(values: Iterable[Sequence[str] | None]) -> list[str]:
        return [f"{number}/{value}" for number, some in enumerate(values) for value in some or ()]

    return ImageSet(
        " + ".join(films.source for films in sets),
        of_each(films.ids for films in sets),
        lambda index: sets[places[index][0]].fetch(places[index][1]),
        patients=of_each(films.patients for films in sets) if known else None,
    )


def _read_through(
    rows: shards.Rows, terms: Terms, num_workers: int
) -> tuple[Counter[str], dict[str, list[int]], list[str]]:
    """What rows lose when they leave, rows by what they may not leave with, and the free text of each."""
    removed, found, spoken = Counter[str](), defaultdict[str, list[int]](list), list[str]()

    def one(number: int) -> Released:
        released = release(rows[number], f"{number:032x}", terms)
        return released._replace(row={**released.row, "image": None})

    for number, released in enumerate(in_order(one, len(rows), num_workers=num_workers, ahead=64)):
        removed += released.removed
        spoken.append(free_text(released.row, terms))
        kinds = [f"{kind} in {column}" for column, names in released.found.items() for kind in names]
        for kind in [*kinds, *([f"unreadable film: {released.lost}"] if released.lost else [])]:
            found[kind].append(number)
    left = [name for name in rows.columns if name not in columns(rows.columns, terms)]
    return removed + Counter({f"column {name}": len(rows) for name in left}), found, spoken


def _of_columns(rows: shards.Rows, terms: Terms) -> list[Finding]:
    """What columns alone give away: films of patients, and types that name somebody, as names of classes may."""
    import pyarrow.parquet as pq
    from datasets import Features

    found = []
    whose = [name for name in rows.columns if name in PATIENTS]
    if whose and terms.policy != "open":
        what = f"films of patients (columns {', '.join(whose)}) of a source that is {terms.policy}"
        found.append(Finding("real-films", f"{what}: these stay here"))
    types = str(features(Features.from_arrow_schema(pq.read_schema(rows.files[0])), terms))
    kinds = identifiers.named(types)
    return found + ([Finding("types", f"{', '.join(kinds)} in the types of columns")] if kinds else [])


def _compare(
    dataset: Path, rows: int, comparison: Comparison, quiet: bool
) -> tuple[calibration.Calibration, list[Finding]]:
    """Calibrate on the real films, then look for them among the candidates."""
    see = partial(
        copies.see,
        encoder=comparison.encoder,
        kept=comparison.kept,
        batch_size=comparison.batch_size,
        num_workers=comparison.num_workers,
        quiet=quiet,
    )
    real = comparison.real
    known = copies.reference(see(real), real.patients)
    measured = calibration.calibrate(
        real,
        known,
        comparison.encoder,
        comparison.trial,
        changes=comparison.changes or planted.KINDS,
        not_planted=comparison.not_planted,
        num_workers=comparison.num_workers,
    )
    seen = see(sources.open_images(dataset, whole=True))
    near = copies.nearness(seen, known, num_workers=comparison.num_workers)
    unread = tuple(sorted({*range(rows)} - {*seen.kept.tolist()}))
    findings = [Finding("not-compared", f"films that could not be compared: {len(unread)}", unread)] if unread else []
    for finder, hits in calibration.found(near, measured.thresholds).items():
        caught = tuple(seen.kept[hits].tolist())
        findings += [Finding(f"copy-{finder}", f"{SAID[finder]}: {len(caught)}", caught)] if caught else []
    return measured, findings
