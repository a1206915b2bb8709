"""Which films of a set are copies of real ones: by content, by pixels, by looks (`looks`), by an encoder's features.

Distances mean something only beside those between films of different patients, see `calibration`. Real films are read
in blocks and candidates a few at a time; what is held in memory is 0.3 kB per real film, the hashes of its windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data.sources import ImageSet
from synthchex.gate import looks, signatures
from synthchex.maths import search
from synthchex.models import store

FEATURED = 2  # real films nearest by features that are laid over a candidate too
HASHED = 128  # that are hashed at a time: 0.6 MB each
BATCH = 64  # candidates that are compared by looks at a time
NOBODY = -1


@dataclass(frozen=True)
class Seen:
    """A set as the gate sees it: rows that can be read, and the content hash, signature and features of each."""

    kept: np.ndarray
    contents: Sequence[str]
    signatures: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.contents)


@dataclass(frozen=True)
class Reference:
    """Real films to look for, the patient number of each, (N,), and the hashes of their windows, uint64 (N, V)."""

    films: Seen
    owners: np.ndarray
    hashes: np.ndarray


class Nearness(NamedTuple):
    """How near the nearest real film is to each candidate, and which it is, by row of the reference; -1 for none.

    `correlation`, 0 to 1, higher is nearer, of film `laid`; `distance`, in units of the features, lower is nearer, to
    film `near`.
    """

    exact: np.ndarray
    pixels: np.ndarray
    correlation: np.ndarray
    laid: np.ndarray
    distance: np.ndarray
    near: np.ndarray


def see(
    films: ImageSet, encoder: Any, kept: Path | None, *, batch_size: int = 32, num_workers: int = 2, quiet: bool = True
) -> Seen:
    """Signatures and features of a set, each film decoded once, from the store `kept` where it has them.

    Raises:
        ValueError: not one film can be read.
    """
    encoders = [signatures.Signer(), encoder]
    seen = store.encode(films, encoders, kept, batch_size=batch_size, num_workers=num_workers, quiet=quiet)
    return Seen(seen.kept, seen.hashes, seen.features[0], seen.features[1])


def reference(films: Seen, patients: Sequence[str] | None) -> Reference:
    """Real films ready to be looked for.

    Args:
        films: what was seen of them.
        patients: of every row of the set; None where unknown: then each film is a patient of its own.
    """
    named = np.arange(len(films)) if patients is None else np.asarray(patients)[films.kept]
    blocks = [films.signatures[start : start + HASHED] for start in range(0, len(films), HASHED)]
    hashes = np.concatenate([looks.window_hashes(block) for block in blocks])
    return Reference(films, np.unique(named, return_inverse=True)[1], hashes)


def nearness(candidates: Seen, real: Reference, *, owners: np.ndarray | None = None, num_workers: int = 2) -> Nearness:
    """How near each candidate is to a real film.

    Args:
        candidates: the films to judge.
        real: the films to look for.
        owners: patient number of each candidate whose own films do not count; None where all films count.
        num_workers: threads that compare hashes.
    """
    owners = np.full(len(candidates), NOBODY) if owners is None else owners
    near, distance = _by_features(candidates.features, real, owners)
    parts = []
    for start in range(0, len(candidates), BATCH):
        rows = slice(start, start + BATCH)
        looked = looks.compare(
            signatures.thumbnails(candidates.signatures[rows]),
            real.films.signatures,
            real.hashes,
            foreign=partial(_foreign, real.owners, owners[rows]),
            besides=near[rows],
            num_workers=num_workers,
        )
        parts.append(looked)
    correlation, laid = (np.concatenate(part) for part in zip(*parts, strict=True))
    exact = _same(candidates.contents, real.films.contents, real, owners)
    pixels = _same(signatures.digests(candidates.signatures), signatures.digests(real.films.signatures), real, owners)
    return Nearness(exact, pixels, correlation, laid, distance, near[:, 0])


def _foreign(real: np.ndarray, candidates: np.ndarray, place: int) -> np.ndarray:
    """Which real films are not of a candidate's own patient, bool (N,)."""
    return np.asarray(real != candidates[place])


def _same(keys: Sequence[Any], known: Sequence[Any], real: Reference, owners: np.ndarray) -> np.ndarray:
    """First real row with the key of each candidate, of another patient than its own."""
    rows = {key: row for row, key in reversed(list(enumerate(known)))}
    found = np.array([rows.get(key, -1) for key in keys], np.int64)
    return np.where((found >= 0) & (real.owners[found] == owners), -1, found)


def _by_features(features: np.ndarray, real: Reference, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest real rows of each candidate by features, (M, FEATURED), -1: none; and the distance to the first."""
    found = search.nearest(features, real.films.features, FEATURED, owners=(owners, real.owners))
    return found.rows, found.distances[:, 0]
