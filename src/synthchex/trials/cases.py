"""The cases of a calibration: good films as they are, with planted defects, and with captions that are not theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from synthchex.data import images, records
from synthchex.data.sources import ImageSet
from synthchex.trials import defects
from synthchex.trials.defects import DEFECTS, NEUTRAL

LONGEST = 1024  # pixels: larger films are reduced before they are changed
CAPTIONS = ("mismatched", "stated", "negated")
KEEP, MILD, LOW, NOT_RELEVANT = "keep", "mild", "low", "not_relevant"


class Case(NamedTuple):
    """One question to the judge: film `row` with a defect, and a caption.

    `expected`: keep, mild (may be kept or not), low or not_relevant.
    """

    row: int
    kind: str
    severity: int
    expected: str
    prompt: str
    labels: tuple[float, ...]


@dataclass(frozen=True)
class Cases:
    """Cases in a fixed order: all of the first film, then of the second."""

    films: ImageSet
    cases: tuple[Case, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.cases)

    def as_set(self) -> ImageSet:
        """The cases as a set of films in memory, made when they are fetched."""
        film = lru_cache(maxsize=2)(lambda row: _reduced(self.films, row))

        def fetch(number: int) -> np.ndarray:
            case = self.cases[number]
            if case.kind not in DEFECTS:
                return film(case.row)
            rng = np.random.default_rng([self.seed, case.row, list(DEFECTS).index(case.kind), case.severity])
            return DEFECTS[case.kind].change(film(case.row), case.severity, rng)

        patients = self.films.patients
        return ImageSet(
            f"cases of {self.films.source}",
            [f"{self.films.ids[case.row]} {case.kind} {case.severity}" for case in self.cases],
            fetch,
            prompts=[case.prompt for case in self.cases],
            labels=np.array([case.labels for case in self.cases], np.float32),
            patients=None if patients is None else [patients[case.row] for case in self.cases],
        )


def plan(films: ImageSet, count: int, seed: int) -> Cases:
    """The cases of `count` films, chosen at random among those of half of the patients.

    Films without stated labels get no caption that states or negates them; films whose captions are all alike get no
    wrong one.

    Raises:
        ValueError: the set has no prompts, or no film.
    """
    if films.prompts is None:
        raise ValueError(f"{films.source} has no prompts; a judge is asked with a caption: give a table with one")
    if count < 1:
        raise ValueError(f"expected at least 1 film to plant defects in, got {count}")
    rng = np.random.default_rng(seed)
    rows = _chosen(films, count, rng)
    labels = np.full((len(films), len(records.LABELS)), np.nan) if films.labels is None else np.asarray(films.labels)
    swapped = defects.strangers(labels[rows], [films.prompts[row] for row in rows], rng)
    found: list[Case] = []
    for place, row in enumerate(int(row) for row in rows):
        own = (films.prompts[row], tuple(map(float, labels[row])))
        found.append(Case(row, NEUTRAL, 0, KEEP, *own))
        for kind, defect in DEFECTS.items():
            found += [Case(row, kind, severity, _expected(defect, severity), *own) for severity in defect.severities]
        if swapped[place] >= 0:
            other = int(rows[swapped[place]])
            found.append(Case(row, "mismatched", 3, LOW, films.prompts[other], tuple(map(float, labels[other]))))
        found += _stated(row, labels[row])
    return Cases(films, tuple(found), seed)


def _chosen(films: ImageSet, count: int, rng: np.random.Generator) -> np.ndarray:
    """Films of half of the patients, or of more where these have fewer: the others are left to set limits by."""
    owners = np.arange(len(films)) if films.patients is None else np.unique(films.patients, return_inverse=True)[1]
    order = rng.permutation(owners.max() + 1)
    enough = np.searchsorted(np.cumsum(np.bincount(owners)[order]), count) + 1
    pool = np.flatnonzero(np.isin(owners, order[: max(int(enough), len(order) // 2)]))
    return np.sort(rng.permutation(pool)[:count])


def _expected(defect: defects.Defect, severity: int) -> str:
    if not defect.relevant:
        return NOT_RELEVANT
    return MILD if severity == 1 else LOW


def _stated(row: int, labels: Sequence[float]) -> list[Case]:
    said, wrong = defects.stated(labels), defects.negated(labels)
    if not said:
        return []
    right = Case(row, "stated", 0, KEEP, said, tuple(map(float, labels)))
    return [right, Case(row, "negated", 3, LOW, defects.stated(wrong), tuple(map(float, wrong)))]


def _reduced(films: ImageSet, row: int) -> Any:
    grey = np.ascontiguousarray(images.to_grey(images.read(films.fetch(row)).pixels))
    small = Image.fromarray(grey)
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(small)
