"""Is a synthetic set made of copies? Searches, the null, and what `copying` says of them, from features alone.

The null is held-out films where there are any, else training films beside those of the other patients. Not known here:
images, encoders, files; how neighbours are searched is an argument, so that a search may be resumed from a disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthchex.maths import copying, limits, search
from synthchex.maths.copying import Below, Copying
from synthchex.maths.intervals import Clusters
from synthchex.maths.search import Nearest

HELD_OUT, TRAINING = "held-out films", "training films beside those of other patients"
NULL_FILMS = 10_000  # training films that make the null at most
Find = Callable[..., Nearest]
Rooms = Callable[..., list[np.ndarray]]


@dataclass(frozen=True)
class Terms:
    """How it is measured.

    Args:
        false_alarms: share of new patients' films that may be called too near.
        confidence: of intervals.
        nearest_k: which neighbour the NNDR divides by, from 2.
        cells: of C_T, at most.
        null_films: training films, evenly spread, that make the null where there are no held-out films.

    Raises:
        ValueError: shares not between 0 and 1, nearest_k below 2, cells or null_films below 1.
    """

    false_alarms: float = 0.01
    confidence: float = 0.95
    nearest_k: int = 2
    cells: int = copying.CELLS
    null_films: int = NULL_FILMS

    def __post_init__(self) -> None:
        copying.check_shares(self.false_alarms, self.confidence)
        if self.nearest_k < 2 or min(self.cells, self.null_films) < 1:
            raise ValueError(
                "expected nearest_k from 2, cells and null_films from 1, got "
                f"{self.nearest_k}, {self.cells} and {self.null_films}; leave them out for the usual"
            )


@dataclass(frozen=True)
class Beside:
    """Films beside the training films: the nearest of them, what makes films alike, authenticity, and cells of C_T."""

    near: Nearest
    units: Clusters
    authentic: np.ndarray
    cells: np.ndarray

    def take(self, rows: np.ndarray) -> Beside:
        """Some of the films."""
        units = None if self.units is None else np.asarray(self.units)[rows]
        near = Nearest(*(part[rows] for part in self.near))
        return Beside(near, units, self.authentic[rows], self.cells[rows])


@dataclass(frozen=True)
class Memorization:
    """Nearest training films of synthetic films and of the null, and what follows.

    `authentic` (M,) and `null_authentic`: see `copying.authenticity`. `ct`: see `copying.copying_statistic`; NaN where
    films are too few. `null`: which films made it. `sides` are what it was computed from.
    """

    copying: Copying
    ct: float
    null: str
    terms: Terms
    patients_known: bool
    sides: tuple[Beside, Beside] = field(repr=False)

    @property
    def near(self) -> Nearest:
        """Nearest training films of the synthetic films."""
        return self.sides[0].near

    @property
    def authentic(self) -> np.ndarray:
        """Which synthetic films are authentic, bool (M,)."""
        return self.sides[0].authentic


def measure(
    fake: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray | None = None,
    *,
    prompts: Clusters = None,
    patients: Clusters = None,
    held_out_patients: Clusters = None,
    terms: Terms | None = None,
    find: Find = search.nearest,
    rooms: Rooms = copying.cells,
) -> Memorization:
    """Synthetic films against all training films, beside a null.

    Args:
        fake: features of synthetic films, float, (M, D).
        train: features of all training films, (N, D).
        held_out: features of real films of other patients, (H, D); None: training films make the null.
        prompts: what makes synthetic films alike; None: independent.
        patients: of training films; None: each film is a patient, whose repeats then make the null too near.
        held_out_patients: of held-out films; None: each film is a patient.
        terms: how; None for the usual.
        find: searches, called as `search.nearest` is.
        rooms: gives the cells of C_T, called as `copying.cells` is.

    Returns:
        Distances are Euclidean in the features, or those that `find` gives.

    Raises:
        ValueError: as `search.nearest` and `copying.compare`.
    """
    terms = terms or Terms()
    owners = np.arange(len(train)) if patients is None else np.asarray(patients)
    near = find(fake, train, terms.nearest_k)
    if held_out is not None:
        null_rows, units, name = held_out, held_out_patients, HELD_OUT
        null = find(held_out, train, terms.nearest_k)
    else:
        some = np.linspace(0, len(train) - 1, min(len(train), terms.null_films)).astype(int)
        null_rows, units, name = train[some], owners[some], TRAINING
        null = find(null_rows, train, terms.nearest_k, owners=(owners[some], owners))
    authentic = _authentic([near, null], train, owners, find)
    places = rooms(train, [fake, null_rows], count=terms.cells)
    one, two = (Beside(*parts) for parts in zip((near, null), (prompts, units), authentic, places, strict=True))
    known = patients is not None if held_out is None else held_out_patients is not None
    return _from_sides(one, two, name, terms, known)


def part(found: Memorization, rows: np.ndarray) -> Memorization:
    """The same of some synthetic films, bool (M,), beside all training films and the whole null.

    Raises:
        ValueError: no films.
    """
    one, two = found.sides
    return _from_sides(one.take(rows), two, found.null, found.terms, found.patients_known)


def _from_sides(one: Beside, two: Beside, null: str, terms: Terms, patients_known: bool) -> Memorization:
    said = copying.compare(
        one.near,
        two.near,
        fake_clusters=one.units,
        real_clusters=two.units,
        false_alarms=terms.false_alarms,
        confidence=terms.confidence,
    )
    ct = copying.copying_statistic(one.near.distances[:, 0], two.near.distances[:, 0], one.cells, two.cells)
    return Memorization(said, ct, null, terms, patients_known, (one, two))


def results(found: Memorization) -> dict[str, Any]:
    """What was found, as plain numbers: None where a number is not defined. Shares are of synthetic films.

    `memorization` is the share of films that would have to be copies for so many to lie below the null's quantile.
    """
    said = found.copying
    head = said.memorization
    numbers: dict[str, Any] = {
        "memorization": head.excess,
        "memorization_low": (head.low - head.expected) / (1 - head.expected),
        "memorization_high": (head.high - head.expected) / (1 - head.expected),
        "memorization_p_value": said.p_value,
        "dcr_median": float(np.median(said.dcr)),
        "dcr_median_null": float(np.median(said.null_dcr)),
        "dcr_ratio": said.ratio.value,
        "dcr_ratio_low": said.ratio.low,
        "dcr_ratio_high": said.ratio.high,
        "nndr_median": _middle(said.nndr),
        "nndr_median_null": _middle(said.null_nndr),
    }
    counted = {name_of(share): below for share, below in said.below.items()}
    counted |= {"limit": said.limit, "certain": said.certain}
    return (
        numbers
        | {key: value for name, below in counted.items() for key, value in _counts(name, below).items()}
        | {"quantiles": [name_of(share) for share in said.below]}
        | _diagnostics(found)
    )


def _counts(name: str, below: Below) -> dict[str, Any]:
    facts = {
        fact: float(getattr(below, fact)) for fact in ("low", "high", "at_most", "expected", "p_value", "distance")
    }
    known = {f"share_below_{name}_{fact}": value for fact, value in facts.items()}
    return {f"share_below_{name}": below.share, f"n_below_{name}": below.hits, **known}


def _diagnostics(found: Memorization) -> dict[str, Any]:
    said = found.copying
    return {
        "authenticity": float(found.sides[0].authentic.mean()),
        "authenticity_null": float(found.sides[1].authentic.mean()),
        "ct": None if np.isnan(found.ct) else found.ct,
        "diagnostics_note": copying.CAVEAT,
        "n_copies": said.copies,
        "n_null": len(said.null_dcr),
        "n_null_patients": said.patients,
        "n_null_repeats": said.repeats,
        "null": found.null,
        "false_alarms": said.false_alarms,
        "confidence": found.terms.confidence,
    }


def name_of(share: float) -> str:
    """How a quantile of the null is called in results: its percent, `least` for the nearest film."""
    return f"{100 * share:g}" if share else "least"


def doubts(found: Memorization) -> list[str]:
    """What a reader must know beside the numbers."""
    said, told = found.copying, list[str]()
    if found.null == TRAINING and not found.patients_known:
        told.append(
            "the null is training films of unknown patients: films of one patient count as strangers' and make it too "
            "near; give patients or held-out films"
        )
    if said.repeats:
        told.append(f"{said.repeats} films of the null are training films themselves (distance 0) and were left out")
    wanted = round(1 / said.false_alarms)
    if said.patients < limits.LEAST_DRAWN:
        told.append(
            f"{said.patients} patients in the null are too few to set a limit: that shown is their nearest film, which "
            f"a new patient comes below with a chance of 1 in {said.patients + 1}; {wanted} would do"
        )
    elif said.patients + 1 < wanted:
        told.append(
            f"{said.patients} patients in the null are too few to count a chance of {said.false_alarms:.2%}: the limit "
            f"is drawn out from the nearest ones; {wanted} would do"
        )
    if np.isnan(found.ct):
        told.append(
            f"ct is not defined: no cell has {copying.LEAST_IN_CELL} films of both sides; pass more films, fewer cells"
        )
    return told


def _authentic(nears: list[Nearest], train: np.ndarray, owners: np.ndarray, find: Find) -> list[np.ndarray]:
    """Authenticity of some sets, from the distances of the training films that were met to those of others."""
    met = np.unique(np.concatenate([near.rows[:, 0] for near in nears]))
    radii = np.full(len(train), np.inf)
    radii[met] = find(train[met], train, 1, owners=(owners[met], owners)).distances[:, 0]
    return [copying.authenticity(near, radii[near.rows[:, 0]]) for near in nears]


def _middle(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
