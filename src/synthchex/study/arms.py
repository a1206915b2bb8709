"""The films of a study: drawn from matched strata by seed, all written alike, none that would give its arm away.

Every arm gets the same number of films of every stratum. A film is taken through the audited reader, cut to its centre
square, made smaller to the common size, 8-bit grey. Films that are too small, unreadable, of a patient who has one
already, or nearly identical to one that was taken are passed over and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from synthchex import textmask
from synthchex.data import images, records
from synthchex.data.film import UnreadableImage
from synthchex.data.sources import ImageSet
from synthchex.gate import registration, signatures
from synthchex.models.views import centre_square
from synthchex.study.design import SYNTHETIC, Burned

NEAR = 0.965  # correlation of local contrast from which two films are one: copies have .97, other films at most .958
UNMATCHED = "stratum-not-in-every-arm"


@dataclass(frozen=True)
class Arm:
    """A set that takes part: "real" or "synthetic", its name, its films, and the policy of where they come from."""

    arm: str
    model: str
    films: ImageSet
    policy: str


@dataclass(frozen=True)
class Taken:
    """A film of the study: uint8 (size, size), the row of its set, what was found written on it."""

    arm: Arm
    row: int
    stratum: str
    pixels: np.ndarray
    texts: int
    markers: int


@dataclass(frozen=True)
class Wanted:
    """How many films of each arm, of them practice, and how they are matched and made alike."""

    count: int
    practice: int
    labels: Sequence[str]
    size: int
    burned_in_text: Burned
    seed: int
    paired: bool


@dataclass(frozen=True)
class Drawn:
    """Films by name of their set, in order: those that count, then practice; of paired sets the same places belong
    together. `strata` counts those that count, `passed_over` {set: {reason: films}}.
    """

    films: Mapping[str, list[Taken]]
    practice: Mapping[str, list[Taken]]
    strata: Mapping[str, int]
    matched_view: bool
    passed_over: Mapping[str, Mapping[str, int]]


@dataclass
class Pool:
    """Sets that are drawn from together: rows of each by stratum, in the order in which they are tried."""

    arms: list[Arm]
    units: dict[str, list[tuple[int, ...]]]
    passed: Counter[str] = field(default_factory=Counter)


class Reader:
    """Films as the study shows them, each read once; a reason where it cannot be shown."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.detector = textmask.load_detector("tophat")
        self.seen: dict[tuple[str, int], np.ndarray | str] = {}
        self.texts: dict[tuple[str, int], tuple[int, int]] = {}

    def pixels(self, arm: Arm, row: int) -> np.ndarray | str:
        """The film, or why there is none."""
        key = (arm.model, row)
        if key not in self.seen:
            try:
                self.seen[key] = alike(images.read(arm.films.fetch(row)).pixels, self.wanted.size)
            except UnreadableImage as error:
                self.seen[key] = error.reason
        return self.seen[key]

    def written(self, arm: Arm, row: int, pixels: np.ndarray) -> tuple[int, int]:
        """How many texts and how many side markers are on a film."""
        key = (arm.model, row)
        if key not in self.texts:
            found = self.detector.detect(pixels)
            markers = sum(textmask.is_side_marker(text, pixels.shape) for text in found)
            self.texts[key] = len(found) - markers, markers
        return self.texts[key]


def alike(pixels: np.ndarray, size: int) -> np.ndarray | str:
    """A film as every arm's films are shown, uint8 (size, size); "smaller-than-size" where it would be blown up."""
    if min(pixels.shape[:2]) < size:
        return "smaller-than-size"
    square = centre_square(Image.fromarray(np.ascontiguousarray(images.to_grey(pixels))))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def draw(arms: Sequence[Arm], wanted: Wanted) -> Drawn:
    """The films of a study.

    Args:
        arms: the real set first; sets of several models after it. Labels are needed where strata are.
        wanted: see `Wanted`; `paired`: films of the models are of the same prompts.

    Raises:
        ValueError: labels are missing; too few films for the design; text on films where it is refused.
    """
    with_view = all(arm.films.views is not None for arm in arms)
    pools = _pools(arms, wanted, with_view)
    shared = set.intersection(*(set(pool.units) for pool in pools))
    for pool in pools:
        pool.passed[UNMATCHED] += sum(len(units) for stratum, units in pool.units.items() if stratum not in shared)
    capacity = {stratum: min(len(pool.units[stratum]) for pool in pools) for stratum in sorted(shared)}
    reader = Reader(wanted)
    while True:
        _check_enough(capacity, wanted, pools)
        counts = allocate(wanted.count + wanted.practice, capacity)
        filled, short = _fill(pools, counts, reader, wanted)
        if not short:
            break
        capacity |= short
    practice = allocate(wanted.practice, counts)
    films, trial = dict[str, list[Taken]](), dict[str, list[Taken]]()
    for model, found in filled.items():
        films[model] = [film for stratum in counts for film in found[stratum][practice[stratum] :]]
        trial[model] = [film for stratum in counts for film in found[stratum][: practice[stratum]]]
    if wanted.burned_in_text == "refuse":
        _refuse_text([*films.values(), *trial.values()])
    strata = {stratum: counts[stratum] - practice[stratum] for stratum in counts if counts[stratum] - practice[stratum]}
    passed = {"/".join(arm.model for arm in pool.arms): dict(+pool.passed) for pool in pools}
    return Drawn(films, trial, strata, with_view, passed)


def allocate(count: int, capacity: Mapping[str, int]) -> dict[str, int]:
    """How many of `count` come from each stratum: in proportion to what every arm has, largest remainders first."""
    total = sum(capacity.values())
    if not count:
        return dict.fromkeys(capacity, 0)
    exact = {stratum: count * held / total for stratum, held in capacity.items()}
    counts = {stratum: int(share) for stratum, share in exact.items()}
    by_remainder = sorted(capacity, key=lambda stratum: (counts[stratum] - exact[stratum], stratum))
    for stratum in by_remainder[: count - sum(counts.values())]:
        counts[stratum] += 1
    return counts


def stratum_of(films: ImageSet, row: int, labels: Sequence[str], with_view: bool) -> str | None:
    """Stratum of a film, such as "Cardiomegaly, not Edema, PA"; None where a label is uncertain.

    Not mentioned counts as not present, because reports leave out what is not there.
    """
    said = []
    for label in labels:
        state = float(films.labels[row][records.LABELS.index(label)]) if films.labels is not None else 0.0
        if state == -1:
            return None
        said.append(label if state == 1 else f"not {label}")
    if with_view and films.views is not None:
        said.append(str(films.views[row]) or "view unknown")
    return ", ".join(said) or "all"


def _pools(arms: Sequence[Arm], wanted: Wanted, with_view: bool) -> list[Pool]:
    for arm in arms:
        if wanted.labels and arm.films.labels is None:
            raise ValueError(
                f"expected labels in {arm.films.source} to match {', '.join(wanted.labels)}, got none; leave out "
                "--strata, or give sets with labels"
            )
    together = [arm for arm in arms if arm.arm == SYNTHETIC] if wanted.paired else []
    alone = [[arm] for arm in arms if arm not in together]
    return [_pool(group, wanted, with_view) for group in [*alone, *([together] if together else [])]]


def _pool(arms: list[Arm], wanted: Wanted, with_view: bool) -> Pool:
    """Rows that are drawn together, by stratum, each stratum in an order of the seed."""
    name = "/".join(arm.model for arm in arms)
    pool = Pool(arms, {})
    for unit in _same_prompt(arms) if len(arms) > 1 else [(row,) for row in range(len(arms[0].films))]:
        strata = [stratum_of(arm.films, row, wanted.labels, with_view) for arm, row in zip(arms, unit, strict=True)]
        if strata[0] is None or len(set(strata)) > 1:
            pool.passed["label-uncertain" if None in strata else "labels-differ"] += 1
            continue
        pool.units.setdefault(strata[0], []).append(unit)
    for stratum in sorted(pool.units):
        rng = np.random.default_rng(records.row_seed(wanted.seed, f"{name}/{stratum}"))
        pool.units[stratum] = [pool.units[stratum][place] for place in rng.permutation(len(pool.units[stratum]))]
    return pool


def _same_prompt(arms: Sequence[Arm]) -> list[tuple[int, ...]]:
    """Rows of several sets that have one prompt, the first of each set.

    Raises:
        ValueError: a set has no prompts.
    """
    firsts: list[dict[str, int]] = []
    for arm in arms:
        if arm.films.prompts is None:
            raise ValueError(f"expected prompts in {arm.films.source} to pair films by, got none; leave out preference")
        first: dict[str, int] = {}
        for row, prompt in enumerate(arm.films.prompts):
            first.setdefault(prompt.strip(), row)
        first.pop("", None)
        firsts.append(first)
    return [tuple(first[prompt] for first in firsts) for prompt in firsts[0] if all(prompt in one for one in firsts)]


def _fill(
    pools: Sequence[Pool], counts: Mapping[str, int], reader: Reader, wanted: Wanted
) -> tuple[dict[str, dict[str, list[Taken]]], dict[str, int]]:
    """Films by set and stratum; and of strata that ran short, how many units there were."""
    found = {arm.model: {stratum: list[Taken]() for stratum in counts} for pool in pools for arm in pool.arms}
    short: dict[str, int] = {}
    looks = np.zeros((0, signatures.SIDE**2), np.float32)
    for pool in pools:
        kept = Counter({reason: pool.passed[reason] for reason in (UNMATCHED, "label-uncertain", "labels-differ")})
        pool.passed, patients = kept, set[tuple[str, str]]()
        for stratum, count in counts.items():
            for unit in pool.units[stratum]:
                if len(found[pool.arms[0].model][stratum]) == count:
                    break
                taken = _unit(pool.arms, unit, stratum, reader, wanted, patients, looks)
                if isinstance(taken, str):
                    pool.passed[taken] += 1
                    continue
                looks = np.concatenate([looks, look([film.pixels for film in taken])])
                patients |= {_patient(film.arm, film.row) for film in taken}
                for film in taken:
                    found[film.arm.model][stratum].append(film)
            if (held := len(found[pool.arms[0].model][stratum])) < count:
                short[stratum] = min(held, short.get(stratum, held))
    return found, short


def _unit(
    arms: Sequence[Arm],
    unit: Sequence[int],
    stratum: str,
    reader: Reader,
    wanted: Wanted,
    patients: set[tuple[str, str]],
    looks: np.ndarray,
) -> list[Taken] | str:
    """Films of one unit, or why they are passed over; those of one prompt may be alike."""
    films = list[Taken]()
    for arm, row in zip(arms, unit, strict=True):
        if _patient(arm, row) in patients:
            return "patient-repeated"
        pixels = reader.pixels(arm, row)
        if isinstance(pixels, str):
            return pixels
        own = look([pixels])
        if len(looks) and bool((np.abs(looks @ _both_ways(own)) >= NEAR).any()):
            return "near-identical"
        texts, markers = reader.written(arm, row, pixels)
        if texts and wanted.burned_in_text == "exclude":
            return "burned-in-text"
        films.append(Taken(arm, row, stratum, pixels, texts, markers))
    return films


def _patient(arm: Arm, row: int) -> tuple[str, str]:
    """Whose film it is; a film of a set that names no patients is a patient of its own."""
    known = arm.films.patients
    return (arm.model, f"row {row}") if known is None else (arm.model, str(known[row]))


def look(films: Sequence[np.ndarray]) -> np.ndarray:
    """Local contrast of films as unit vectors, float32 (N, 64 * 64)."""
    thumbs = np.stack([signatures.thumbnail(film) for film in films])
    flat = registration.contrast(thumbs, signatures.SIDE).numpy().reshape(len(films), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), np.float32)


def _both_ways(own: np.ndarray) -> np.ndarray:
    """A look and its mirror image, (64 * 64, 2)."""
    side = signatures.SIDE
    return np.concatenate([own, own.reshape(-1, side, side)[:, :, ::-1].reshape(len(own), -1)]).T


def _check_enough(capacity: Mapping[str, int], wanted: Wanted, pools: Sequence[Pool]) -> None:
    if sum(capacity.values()) < wanted.count + wanted.practice:
        said = "; ".join(
            f"{'/'.join(arm.model for arm in pool.arms)}: "
            + (", ".join(f"{count} {reason}" for reason, count in sorted((+pool.passed).items())) or "none passed over")
            for pool in pools
        )
        raise ValueError(
            f"expected {wanted.count} films and {wanted.practice} for practice that every arm has of the same strata, "
            f"got {sum(capacity.values())} ({said}); lower --n or --size, take fewer --strata, or give larger sets"
        )


def _refuse_text(films: Sequence[Sequence[Taken]]) -> None:
    written = Counter(film.arm.model for group in films for film in group if film.texts)
    if written:
        raise ValueError(
            f"expected films without burned-in text, got {dict(written)} with some; erase it with `synthchex "
            "remove-text`, or pass --burned-in-text exclude"
        )


def screened(films: Mapping[str, Sequence[Taken]], measure: Callable[[Taken], int]) -> dict[str, int]:
    """How many films of each set have something."""
    return {model: sum(measure(film) > 0 for film in group) for model, group in films.items()}
