"""Sets of films for a utility study: read once, labels as arrays, patients as groups, and checked against each other.

Nothing of a test set may be trained on. Sets that share patients are refused; films that stand byte for byte in a test
set are taken out of the others and counted; without patient ids, films that are byte for byte alike count as one
patient, and a warning says that two films of one patient may stand on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from synthchex.data import records, sources, splits
from synthchex.data.sources import ImageSet
from synthchex.data.training import MultiHot, multi_hot
from synthchex.utility.request import Request

UNKNOWN = "unknown, row "  # of films whose patient is not known, see `sources.open_images`


@dataclass(frozen=True)
class Films:
    """Readable films of one set.

    `features` (N, D), or (N, H, W) uint8 films for a backbone; `groups` number of the patient (of synthetic films: the
    prompt) of each, (N,), or of each film where none is known; `people` columns such as sex, one value per film.
    """

    name: str
    images: ImageSet
    features: np.ndarray
    hashes: Sequence[str]
    labels: MultiHot
    groups: np.ndarray
    people: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, rows: np.ndarray, name: str | None = None) -> Films:
        """Some of the films, in that order."""
        return replace(
            self,
            name=name or self.name,
            images=self.images.take(rows),
            features=self.features[rows],
            hashes=[self.hashes[row] for row in rows],
            labels=MultiHot(self.labels.values[rows], self.labels.mask[rows]),
            groups=self.groups[rows],
            people={column: [values[row] for row in rows] for column, values in self.people.items()},
        )

    def describe(self) -> dict[str, object]:
        """Counts, as they go into results.json."""
        values, mask = self.labels
        return {
            "name": self.name,
            "source": self.images.source,
            "n": len(self),
            "patients": None if self.images.patients is None else len(np.unique(self.groups)),
            "skipped": dict(self.skipped),
            "notes": dict(self.images.notes),
            "states": {
                label: {"present": int((values[:, i] * mask[:, i]).sum()), "known": int(mask[:, i].sum())}
                for i, label in enumerate(records.LABELS)
            },
        }


def films(
    name: str,
    images: ImageSet,
    read: tuple[np.ndarray, np.ndarray, Sequence[str], Mapping[str, int]],
    request: Request,
    people: Mapping[str, Sequence[str]] | None = None,
) -> Films:
    """A set after reading.

    Args:
        name: real, synthetic, test or that of an external set.
        images: the set as it was opened.
        read: features, rows that could be read, their content hashes, and what was skipped by reason.
        people: columns of the set as it was opened; its views are added.

    Raises:
        ValueError: no labels, or none that the policies leave.
    """
    features, kept, hashes, skipped = read
    if images.labels is None:
        raise ValueError(
            f"{name}: expected label states of the films of {images.source}, got none; name the column with "
            "--labels-column"
        )
    given = {**(people or {}), **({"view": images.views} if images.views is not None else {})}
    columns = {column: [sources.text(values[row]) for row in kept] for column, values in given.items()}
    images = images.take(kept)
    labels = _labels(images, request)
    told = labels.mask.any(1)
    if not told.any():
        raise ValueError(
            f"{name}: expected films with known labels, got {len(kept)} of which every label is left out; see "
            "--uncertain and --not-mentioned"
        )
    groups = _groups(images, hashes, synthetic=name == "synthetic")
    whole = Films(name, images, features, hashes, labels, groups, columns, skipped)
    if told.all():
        return whole
    left = {**skipped, "no-known-label": int((~told).sum())}
    return replace(whole.take(np.flatnonzero(told)), skipped=left)


def _labels(images: ImageSet, request: Request) -> MultiHot:
    rows = [dict(zip(records.LABELS, row, strict=True)) for row in np.asarray(images.labels, np.float32)]
    return multi_hot(rows, uncertain=request.uncertain, not_mentioned=request.not_mentioned)


def _groups(images: ImageSet, hashes: Sequence[str], *, synthetic: bool) -> np.ndarray:
    """Key of what must stay together: patient, or the prompt of a synthetic film, and films alike byte for byte."""
    owners: Sequence[str] = images.patients if images.patients is not None else hashes
    if synthetic and images.patients is None and images.prompts is not None:
        prompts = [splits.normalised(text) for text in images.prompts]
        owners = [text or digest for text, digest in zip(prompts, hashes, strict=True)]
    return splits.linked(splits.keys(owners), splits.keys(hashes))


def hold_out(real: Films, share: float) -> tuple[Films, Films]:
    """Real films for training, and a test set of that share of them, by the hash of the patient alone.

    Raises:
        ValueError: no film on one of the sides.
    """
    side = splits.assign(real.groups, {"train": 1 - share, "test": share})
    train, test = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    if not len(train) or not len(test):
        raise ValueError(
            f"expected films for training and for a test share of {share}, got {len(train)} and {len(test)}; give a "
            "test set with --test"
        )
    return real.take(train), real.take(test, "test")


def check_patients(sets: Sequence[ImageSet], names: Sequence[str]) -> None:
    """No patient stands in two sets.

    Raises:
        ValueError: the message has the number of patients that do.
    """
    known = {
        name: {owner for owner in images.patients if not owner.startswith(UNKNOWN)}
        for name, images in zip(names, sets, strict=True)
        if images.patients is not None
    }
    for one, other in combinations(known, 2):
        shared = known[one] & known[other]
        if shared:
            raise ValueError(
                f"expected sets without a common patient, got {len(shared):,} in both {one} ({len(known[one]):,}) and "
                f"{other} ({len(known[other]):,}); take them out of one, or, where equal ids are other people, write "
                "the name of the set before the ids"
            )


def without_copies(given: Films, tests: Sequence[Films]) -> tuple[Films, int]:
    """A set without the films that stand byte for byte in a test set, and how many those were."""
    tested = {digest for test in tests for digest in test.hashes}
    kept = np.array([digest not in tested for digest in given.hashes])
    return (given, 0) if kept.all() else (given.take(np.flatnonzero(kept)), int((~kept).sum()))


def warnings(
    real: Films, synthetic: Films, tests: Sequence[Films], copies: Mapping[str, int], request: Request
) -> list[str]:
    """What a reader must know of the sets before the numbers."""
    told = [
        f"{one.name}: no patient ids; each film counts as a patient, so that two films of one patient may be trained "
        "on and tested on, and intervals are too narrow."
        for one in (real, *tests)
        if one.images.patients is None and request.domain != "phantom"  # a simulation has no patients
    ]
    told += [
        f"{one.name}: the patients of {len(mine):,} of {len(one):,} films are not known; each counts as a patient."
        for one in (real, *tests)
        if (mine := [owner for owner in one.images.patients or () if owner.startswith(UNKNOWN)])
    ]
    told += [
        f"{one.name}: {sum(map(bool, reasons)):,} films have a reason to be dropped (column drop_reason) and are used "
        "like all others; leave them out with synthchex build."
        for one in (real, synthetic, *tests)
        if any(reasons := one.images.provenance.get("drop_reason", ()))
    ]
    if left := synthetic.images.notes.get("label-not-joined"):
        told.append(f"synthetic: {left:,} films join no real film by id or prompt; without labels they are left out.")
    told += [
        f"{count:,} films of {name} stand byte for byte in a test set and were not trained on."
        for name, count in copies.items()
        if count
    ]
    same = set(real.hashes) & set(synthetic.hashes)
    if same:
        told.append(f"{len(same):,} synthetic films are real training films, byte for byte: TSTR trains on real films.")
    prompted = len(_prompts(synthetic) & {text for test in tests for text in _prompts(test)})
    if prompted:
        told.append(
            f"{prompted:,} prompts of synthetic films are also prompts of test films: what was generated may follow "
            "the test set's mix of findings."
        )
    return told


def _prompts(given: Films) -> set[str]:
    return {splits.normalised(text) for text in given.images.prompts or ()} - {""}
