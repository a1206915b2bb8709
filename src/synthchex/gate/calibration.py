"""What the gate's distances mean on this real set: thresholds, what they catch, and whom they accuse wrongly.

Thresholds are set on real films beside those of other patients: so near do films come that are no copies. What they
catch is measured on near-copies of real films that are planted among the candidates (`planted`); false alarms are
counted among real films, each judged by thresholds that were set without its patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from synthchex.data import images
from synthchex.data.sources import ImageSet
from synthchex.gate import planted
from synthchex.gate.copies import Nearness, Reference, Seen, nearness, see
from synthchex.maths.limits import Share, least_of_each, lower_limit, share

LEAST_PATIENTS = 20
LEAST_CAUGHT = 0.99  # of the kinds in `planted.NEEDED`
SAME = 0.995  # correlation from which two real films are one film, whoever they are said to be of
LONGEST = 1024  # pixels: larger films are reduced before they are changed
FINDERS = ("exact", "pixels", "looks", "features")


class Thresholds(NamedTuple):
    """Above this correlation, or below this distance of features, a film is a copy."""

    correlation: float
    distance: float


@dataclass(frozen=True)
class Calibration:
    """Thresholds on a real set and what was measured of them.

    `caught`: of each kind of planted copy, the share caught at all and by looks and features alone. `false_alarms`: of
    real films, each beside those of other patients. `repeats`: real films left out of it, as another patient has the
    same film. `patients_known`: else each film counted as a patient, which makes thresholds strict.
    """

    thresholds: Thresholds
    caught: Mapping[str, Mapping[str, Share]]
    false_alarms: Share
    films: int
    patients: int
    patients_known: bool
    repeats: int
    not_planted: Mapping[str, str]

    @property
    def missed(self) -> list[str]:
        """Kinds of which too few are caught for the gate to be fit for its task."""
        return [kind for kind in planted.NEEDED if self.caught[kind]["any"].value < LEAST_CAUGHT]


@dataclass(frozen=True)
class Trial:
    """How the gate is calibrated: share of real films that may be accused wrongly, films that are judged for it, films
    that are planted of each kind, and the seed of both choices."""

    false_alarms: float = 0.01
    judged: int = 1000
    copied: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if not 0 < self.false_alarms < 1:
            raise ValueError(f"false_alarms must be a share between 0 and 1, got {self.false_alarms}; 0.01 is usual")
        if min(self.judged, self.copied) < 1:
            raise ValueError(f"judged and copied must be at least 1, got {self.judged} and {self.copied}")


def found(near: Nearness, thresholds: Thresholds) -> dict[str, np.ndarray]:
    """Which candidates each finder calls copies, bool (M,), by its name."""
    return {
        "exact": near.exact >= 0,
        "pixels": near.pixels >= 0,
        "looks": near.correlation > thresholds.correlation,
        "features": near.distance < thresholds.distance,
    }


def calibrate(
    real: ImageSet,
    known: Reference,
    encoder: Any,
    trial: Trial,
    *,
    changes: Mapping[str, planted.Change] = planted.KINDS,
    not_planted: Mapping[str, str] | None = None,
    num_workers: int = 2,
) -> Calibration:
    """Set thresholds on a real set and measure them.

    Args:
        real: the films, for planting copies of.
        known: the same films as the gate looks for them.
        encoder: that their features came from.
        trial: how much is measured.
        changes: kinds of copies; those of `planted.NEEDED` must be among them.
        not_planted: kinds that could not be made, and why.
        num_workers: threads.

    Raises:
        ValueError: fewer than `LEAST_PATIENTS` patients to compare.
    """
    patients = int(known.owners.max()) + 1
    if patients < LEAST_PATIENTS:
        raise ValueError(
            f"expected real films of at least {LEAST_PATIENTS} patients to calibrate on, got {patients} in "
            f"{real.source}; give more of the films that the generator was trained on"
        )
    random = np.random.default_rng(trial.seed)
    rows = np.sort(random.permutation(len(known.films))[: trial.judged])
    null = nearness(_take(known.films, rows), known, owners=known.owners[rows], num_workers=num_workers)
    repeated = (null.exact >= 0) | (null.pixels >= 0) | (null.correlation >= SAME)
    single, owners = Nearness(*(part[~repeated] for part in null)), known.owners[rows][~repeated]
    limits = thresholds(single, owners, trial.false_alarms)
    chosen = np.sort(random.permutation(len(known.films))[: trial.copied])
    return Calibration(
        limits,
        _caught(real, known, encoder, chosen, changes, limits, trial.seed, num_workers),
        share(_accused(single, owners, known, trial.false_alarms)),
        len(known.films),
        patients,
        real.patients is not None,
        int(repeated.sum()),
        not_planted or {},
    )


def thresholds(null: Nearness, owners: np.ndarray, false_alarms: float) -> Thresholds:
    """Limits that a film of a new patient passes with at most this chance, half of it for each finder.

    Patients are counted, not films: those of one patient come near to others together; see `maths.limits`.

    Args:
        null: real films beside those of other patients.
        owners: patient number of each, (M,).
        false_alarms: the chance, between 0 and 1.

    Raises:
        ValueError: no films.
    """
    if not len(owners):
        raise ValueError("expected real films that are not each other's copies to set thresholds on, got none")
    chance = false_alarms / 2
    looks, features = (lower_limit(least_of_each(apart, owners), chance) for apart in _apart(null))
    return Thresholds(float(1 - np.exp(looks)), float(np.exp(features)))


def _apart(null: Nearness) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of how far films are from real ones, by looks and by features."""
    tiny = np.finfo(float).tiny
    return np.log(np.clip(1 - null.correlation, tiny, None)), np.log(np.clip(null.distance, tiny, None))


def _accused(null: Nearness, owners: np.ndarray, known: Reference, false_alarms: float) -> np.ndarray:
    """Which real films are called copies by thresholds that were set without their patient.

    Without it also on the other side: a film whose nearest is one of that patient counts as far from all.
    """
    accused = np.zeros(len(owners), bool)
    for owner in np.unique(owners):
        own = owners == owner
        looks = np.where(known.owners[null.laid] == owner, 0.0, null.correlation)
        features = np.where(known.owners[null.near] == owner, np.inf, null.distance)
        others = null._replace(correlation=looks, distance=features)
        limits = thresholds(Nearness(*(part[~own] for part in others)), owners[~own], false_alarms)
        accused[own] = any_of(found(Nearness(*(part[own] for part in null)), limits))
    return accused


def any_of(by: Mapping[str, np.ndarray]) -> np.ndarray:
    """Candidates that some finder calls copies."""
    return np.logical_or.reduce(list(by.values()))


def _caught(
    real: ImageSet,
    known: Reference,
    encoder: Any,
    rows: np.ndarray,
    changes: Mapping[str, planted.Change],
    limits: Thresholds,
    seed: int,
    num_workers: int,
) -> dict[str, dict[str, Share]]:
    """Shares of planted copies that are caught, by kind and finder."""
    copies = copies_of(real, known.films.kept[rows], changes, seed)
    by = found(nearness(see(copies, encoder, None, num_workers=num_workers), known, num_workers=num_workers), limits)
    by["any"] = any_of(by)
    kinds = np.tile(np.arange(len(changes)), len(rows))
    names = ("any", "looks", "features")
    return {kind: {name: share(by[name][kinds == place]) for name in names} for place, kind in enumerate(changes)}


def copies_of(
    real: ImageSet, rows: Sequence[int] | np.ndarray, changes: Mapping[str, planted.Change], seed: int
) -> ImageSet:
    """Near-copies of some films in memory: every kind of the first film, then of the second, and so on."""
    kinds = list(changes)

    @lru_cache(maxsize=2)
    def film(row: int) -> tuple[np.ndarray, np.ndarray]:
        whole = np.ascontiguousarray(images.to_grey(images.read(real.fetch(row)).pixels))
        reduced = Image.fromarray(whole)
        reduced.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        return whole, np.asarray(reduced)

    def copy(index: int) -> np.ndarray:
        place, kind = divmod(index, len(kinds))
        random = np.random.default_rng([seed, int(rows[place]), kind])
        source = film(int(rows[place]))[0 if kinds[kind] == "exact" else 1]
        return np.ascontiguousarray(changes[kinds[kind]](source, random))

    ids = [f"{kind} of {row}" for row in rows for kind in kinds]
    return ImageSet(f"planted copies of {real.source}", ids, copy)


def _take(films: Seen, rows: np.ndarray) -> Seen:
    return replace(
        films,
        kept=films.kept[rows],
        contents=[films.contents[row] for row in rows],
        signatures=films.signatures[rows],
        features=films.features[rows],
    )
