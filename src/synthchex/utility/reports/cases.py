"""Films with reports: opened from any table, split by patient, sampled at random. Knows no model.

What cannot be read or has no report is left out and counted. Which films a percentage takes is drawn from a seed and
their ids, so a smaller sample is part of a larger one, and the order of a table does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synthchex.data import images, records, sources, splits, tables
from synthchex.training import films as training_films
from synthchex.utility.sets import UNKNOWN

# Columns that hold a report, the likeliest first; LLaVA-Rad's and CheXGenBench's among them.
REPORT_COLUMNS = ("report", "findings", "annotated_prompt", "prompt", "caption", "text")
INDICATION_COLUMNS = ("indication", "reason")


@dataclass(frozen=True)
class Cases:
    """Films with a report each, an indication ("" where there is none), content hashes, and notes by reason.

    `report_column` is where the reports were found.
    """

    films: sources.ImageSet
    indications: Sequence[str]
    digests: Sequence[str]
    notes: Mapping[str, int]
    report_column: str

    def __len__(self) -> int:
        return len(self.films)

    @property
    def reports(self) -> Sequence[str]:
        """The true reports, one per film."""
        return self.films.prompts or ()

    @property
    def patients(self) -> Sequence[str] | None:
        """One per film; None where unknown."""
        return self.films.patients

    def film(self, row: int) -> np.ndarray:
        """Pixels of one film, uint8 (H, W) or (H, W, 3)."""
        return images.read(self.films.fetch(row)).pixels

    def take(self, rows: Sequence[int] | np.ndarray) -> Cases:
        """Some of them, by row, in that order."""
        chosen = [int(row) for row in rows]
        return Cases(
            self.films.take(chosen),
            [self.indications[row] for row in chosen],
            [self.digests[row] for row in chosen],
            self.notes,
            self.report_column,
        )

    def fingerprint(self) -> str:
        """Hash of ids, pixels, reports and indications, in order."""
        return records.fingerprint_long([self.films.ids, self.digests, self.reports, self.indications])


def open_cases(
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    image_dir: str | None = None,
    split: str = "train",
    side: Literal["real", "synthetic"] | None = None,
    views: Sequence[str] = (),
    num_workers: int = 2,
) -> Cases:
    """Open films with reports.

    Args:
        source: a table, shards, a saved dataset or a Hub id; whatever kind it is, it is read by the one reader of
            tables, so a CSV is a CSV.
        columns: names by role: image, report, indication, patient, id, view, where they have no known name.
        views: keep films of these views only, such as AP and PA.

    Raises:
        ValueError: no column with reports, an unknown column, a view asked for where none are known, no films left.
    """
    given, table = dict(columns or {}), tables.open_table(source, split=split)
    report = given.pop("report", None) or _first(table.columns, REPORT_COLUMNS)
    if report is None:
        raise ValueError(
            f"{source} has no column with reports: expected one of {list(REPORT_COLUMNS)}, its columns are "
            f"{list(table.columns)}; name one with --report-column"
        )
    named = given.pop("indication", None)
    if named and named not in table.columns:
        raise ValueError(f"{source} has no column {named!r} for the indication; its columns are {list(table.columns)}")
    indication = named or _first(table.columns, INDICATION_COLUMNS)
    films = sources.open_images(
        source, columns={**given, "prompt": report}, image_dir=image_dir, split=split, side=side, missing="count",
        whole=True,
    )  # fmt: skip
    if films.prompts is None:
        raise ValueError(f"{source} has no report in its column {report!r}: all {len(films)} cells are empty")
    told = [sources.text(cell) for cell in table.column(indication)] if indication else [""] * len(films)
    kept = _rows_of_views(films, views)
    ready = training_films.usable(_numbered(films, kept), 1, num_workers=num_workers)
    if not len(ready):
        raise ValueError(f"expected films with reports in {source}, got none that can be used: {dict(ready.notes)}")
    rows = [int(row) for row in ready.films.provenance[_ROW]]
    notes = Counter(ready.notes) + Counter({"view": len(films) - len(kept)})
    return Cases(films.take(rows), [told[row] for row in rows], ready.digests, dict(notes), report)


_ROW = "row of the table"


def _numbered(films: sources.ImageSet, rows: Sequence[int]) -> sources.ImageSet:
    """The films of some rows, each with its row number: `usable` leaves films out without saying which."""
    from dataclasses import replace

    return replace(films.take(rows), provenance={_ROW: list(rows)})


def _rows_of_views(films: sources.ImageSet, views: Sequence[str]) -> list[int]:
    if not views:
        return list(range(len(films)))
    if films.views is None:
        raise ValueError(f"expected a view of every film in {films.source}, got no column of views; leave --views out")
    wanted = {view.upper() for view in views}
    kept = [row for row, view in enumerate(films.views) if view.strip().upper() in wanted]
    if not kept:
        raise ValueError(f"expected films of the views {sorted(wanted)} in {films.source}, got {Counter(films.views)}")
    return kept


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known names that a column has, in any case."""
    lower = {name.lower(): name for name in columns}
    return next((lower[name] for name in known if name in lower), None)


def split(cases: Cases, share: float) -> tuple[Cases, Cases]:
    """Training and test cases: no patient and no film in both; where patients are unknown, no report in both.

    Raises:
        ValueError: a share that is not above 0 and below 1, or fewer than 2 cases on a side.
    """
    if not 0 < share < 1:
        raise ValueError(f"test share must be above 0 and below 1, got {share}")
    owners = cases.patients if cases.patients is not None else [splits.normalised(text) for text in cases.reports]
    groups = splits.linked(splits.keys(owners), splits.keys(cases.digests))
    side = splits.assign(groups, {"train": 1 - share, "test": share})
    train, test = cases.take(np.flatnonzero(side == 0)), cases.take(np.flatnonzero(side == 1))
    if min(len(train), len(test)) < 2:
        raise ValueError(
            f"expected at least 2 films on each side of a test share of {share}, got {len(train)} and {len(test)}; "
            "give more films, another share, or a test set of its own"
        )
    return train, test


def check_apart(train: Cases, test: Cases, name: str) -> list[str]:
    """Refuse training cases that belong to patients of the test set, or are its films; say what cannot be checked.

    Raises:
        ValueError: with how many patients, or films, are in both.
    """
    if train.patients is not None and test.patients is not None:
        shared = {owner for owner in {*train.patients} & {*test.patients} if not owner.startswith(UNKNOWN)}
        if shared:
            raise ValueError(
                f"expected no patient of the test set in the {name} set, got {len(shared)}; split by patient, or leave "
                "--test out and give --test-share"
            )
    films = len(set(train.digests) & set(test.digests))
    if films:
        raise ValueError(
            f"expected no film of the test set in the {name} set, got {films} that are the same; split them"
        )
    unknown = any(
        one.patients is None or any(owner.startswith(UNKNOWN) for owner in one.patients) for one in (train, test)
    )
    if name == "real" and unknown:
        return [
            "patients are not known of all films on both sides: that none is in training and test could not be checked"
        ]
    return []


def check_prompts(train: Mapping[str, Cases], test: Cases) -> list[str]:
    """Say so where synthetic films seem to be made from reports of the test set: writers would learn these by heart.

    Some reports stand in every set, such as those of normal films; many more than among the real ones do not.
    """
    if "synthetic" not in train:
        return []
    wanted = [splits.normalised(text) for text in test.reports]
    known = {arm: {splits.normalised(text) for text in one.reports} for arm, one in train.items()}
    shares = {arm: float(np.mean([text in texts for text in wanted])) for arm, texts in known.items()}
    if shares["synthetic"] <= shares.get("real", 0.4) + 0.1:
        return []
    beside = f", {shares['real']:.0%} in the real one" if "real" in shares else ""
    return [
        f"{shares['synthetic']:.0%} of the test reports stand in the synthetic training set{beside}: were its prompts "
        "taken from the test set?"
    ]


def sample(cases: Cases, count: int, *, seed: int) -> np.ndarray:
    """Row numbers of `count` cases drawn at random without replacement, ascending.

    Of two counts with one seed, the smaller sample is part of the larger. The draw hangs on ids, not on rows:
    CheXGenBench takes the first rows, which in its table are those of the first patients.

    Raises:
        ValueError: count not between 1 and the number of cases.
    """
    if not 1 <= count <= len(cases):
        raise ValueError(f"count must be between 1 and {len(cases)}, got {count}")
    places = np.array([records.row_seed(seed, one, repeat=1) for one in cases.films.ids], np.uint64)
    return np.sort(np.argsort(places, kind="stable")[:count])
