"""Numbers per pathology that may be compared: at one sample size, beside a floor, tested, and against the other films.

A Fréchet distance per label alone ranks labels by how rare they are. Here every label is measured at one size against
one floor of that size, films of one patient never count as a pair, and each label has a p value adjusted for the number
of labels tested. Knows features and label states; knows no encoder, no film, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths import arrays, frechet, resampling, selections
from synthchex.maths.arrays import Features
from synthchex.maths.intervals import Interval
from synthchex.maths.resampling import Adjustment
from synthchex.scores.groups import Members, Uncertain, members

KEYS = ("distance", "distance_interval", "matched", "p_value", "p_adjusted", "flagged", "conditional")
LEAST_PATIENTS = 8  # effective patients below which neither the test nor the intervals were right in simulation
Clusters = Sequence[object] | np.ndarray | None


@dataclass(frozen=True)
class Pathology:
    """How labels are measured.

    `min_rows`: films a label needs on each side. `draws`: size-matched draws. `match_size`: films of each part of a
    draw; None is the largest size that every scored label can fill, labels that cannot fill `least_match` left out of
    that choice and of the matched numbers. `limit`: films of a label (and of those without it) on one side; a larger
    set is thinned at random, with a note. `adjustment`: holm or bh.
    """

    uncertain: Uncertain = "ignore"
    min_rows: int = 30
    draws: int = 20
    permutations: int = 999
    adjustment: Adjustment = "holm"
    alpha: float = 0.05
    confidence_level: float = 0.95
    seed: int = 0
    match_size: int | None = None
    least_match: int = 10
    limit: int = 5000

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.adjustment not in get_args(Adjustment):
            raise ValueError(f"adjustment must be one of {get_args(Adjustment)}, got {self.adjustment!r}")
        for name in ("alpha", "confidence_level"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        least = {"min_rows": 2, "draws": 1, "permutations": 1, "least_match": 4, "limit": self.min_rows}
        least |= {} if self.match_size is None else {"match_size": 4}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")


class Label(NamedTuple):
    """Rows of one label in order of clusters, its draws, and what a reader should know.

    `absent` is empty where there are too few real films without the label; `first` (of each draw, which real films may
    enter the first part) where there are too few patients for any number.
    """

    real: np.ndarray
    fake: np.ndarray
    absent: np.ndarray
    first: list[np.ndarray]
    notes: list[str]


class Sides(NamedTuple):
    """Features of both sides and the cluster number of each row."""

    real: Features
    fake: Features
    real_ids: np.ndarray
    fake_ids: np.ndarray


def pathology(
    fake: Features,
    real: Features,
    fake_labels: np.ndarray,
    real_labels: np.ndarray,
    options: Pathology = Pathology(),
    *,
    fake_clusters: Clusters = None,
    real_clusters: Clusters = None,
) -> dict[str, dict[str, Any]]:
    """Per label: distance beside its floor at one sample size, p value, and distance to films without the label.

    Args:
        fake: features of synthetic films, float, (M, D).
        real: features of real films, float, (N, D).
        fake_labels: states of the 14 labels, float, (M, 14): 1, 0, -1 (uncertain), NaN (not mentioned).
        real_labels: the same of the real films, (N, 14).
        options: see `Pathology`.
        fake_clusters: prompt of each synthetic film; None when each has one of its own.
        real_clusters: patient of each real film; None when each is of another patient.

    Returns:
        For each label with `min_rows` films on both sides: `matched`, `p_value`, `p_adjusted`, `flagged`,
        `conditional`, as docs/results.md describes them; `distance` and `distance_interval`, of all its films, which
        is what the p value is of; and `note`, which says why one of them is None (or None). Every kernel distance
        leaves pairs of films of one patient (or prompt) out: unbiased, lower is better.

    Raises:
        ValueError: features as `kernel_distance`, labels of another shape, wrong number of cluster ids.
    """
    real, fake = arrays.check_pair(real, fake, rows=2)
    for name, states, rows in (("fake", fake_labels, len(fake)), ("real", real_labels, len(real))):
        if len(states) != rows:
            raise ValueError(f"{name}_labels: expected {rows} rows, one per film, got {len(states)}")
    sides = Sides(real, fake, _numbers(real_clusters, len(real), "real"), _numbers(fake_clusters, len(fake), "fake"))
    groups = members(real_labels, options.uncertain), members(fake_labels, options.uncertain)
    labels = {
        name: _label(sides, groups[0][name], groups[1][name].present, options)
        for name in LABELS
        if min(groups[0][name].present.sum(), groups[1][name].present.sum()) >= options.min_rows
    }
    size = _common_size(labels, options)
    found = {name: _compared(sides, label, size, options) for name, label in labels.items()}
    _adjust(found, labels, options)
    for name, values in _conditional(sides, labels, options).items():
        found[name]["conditional"] = values
    return {name: values | {"note": "; ".join(labels[name].notes) or None} for name, values in found.items()}


def _numbers(clusters: Clusters, rows: int, name: str) -> np.ndarray:
    found = selections.clusters(clusters, rows, f"{name}_clusters")
    return np.arange(rows) if found is None else found


def _label(sides: Sides, real: Members, fake: np.ndarray, options: Pathology) -> Label:
    """Rows of a label, thinned where there are too many, and its patients dealt into two parts per draw."""
    notes: list[str] = []
    rows, absent, others = (
        _some(mask, ids, options, name, notes)
        for mask, ids, name in (
            (real.present, sides.real_ids, "real films with the label"),
            (real.absent, sides.real_ids, "real films without the label"),
            (fake, sides.fake_ids, "synthetic films with the label"),
        )
    )
    patients = _ascending(sides.real_ids[rows])
    few = _too_few(patients, "real films with the label")
    few += _too_few(_ascending(sides.fake_ids[others]), "synthetic films with the label")
    if few:
        return Label(rows, others, absent[:0], [], notes + few)
    if len(absent) < options.min_rows:
        few = [f"{len(absent)} real films without the label, {options.min_rows} are needed"]
    few = few or _too_few(_ascending(sides.real_ids[absent]), "real films without the label")
    random = np.random.default_rng(options.seed)
    draws = [resampling.deal(patients, random) for _ in range(options.draws)]
    return Label(rows, others, absent[:0] if few else absent, draws, notes + few)


def _some(mask: np.ndarray, ids: np.ndarray, options: Pathology, name: str, notes: list[str]) -> np.ndarray:
    """Numbers of at most `limit` rows of a mask, in order of clusters. One random order serves all masks."""
    order = np.random.default_rng(options.seed).permutation(len(mask))
    rows = order[mask[order]]
    if len(rows) > options.limit:
        notes.append(f"{options.limit} of {len(rows)} {name} were drawn at random")
    rows = np.sort(rows[: options.limit])
    return rows[np.argsort(ids[rows], kind="stable")]


def _ascending(ids: np.ndarray) -> np.ndarray:
    """Cluster numbers without gaps."""
    return np.unique(ids, return_inverse=True)[1]


def _too_few(ids: np.ndarray, name: str) -> list[str]:
    """A sentence where the clusters are too few to say how much a number varies."""
    if (count := resampling.effective(ids)) >= LEAST_PATIENTS:
        return []
    return [
        f"{name} come from {int(ids.max()) + 1} patients or prompts, as good as {count:.1f} of even size; "
        f"{LEAST_PATIENTS} are needed"
    ]


def _common_size(labels: dict[str, Label], options: Pathology) -> int:
    """Films of each part of a draw: what every label can fill in all its draws, those below `least_match` not asked."""
    if options.match_size is not None:
        return options.match_size
    sizes = [size for label in labels.values() if (size := _room(label)) >= options.least_match]
    return min(sizes, default=options.least_match)


def _room(label: Label) -> int:
    """Largest part that all draws of a label can fill, on both sides; 0 without draws."""
    return min((min(len(label.fake), int(part.sum()), int((~part).sum())) for part in label.first), default=0)


def _compared(sides: Sides, label: Label, size: int, options: Pathology) -> dict[str, Any]:
    """Size-matched numbers and p value of a label, from one pass over its kernel."""
    found: dict[str, Any] = dict.fromkeys(KEYS)
    if not label.first:
        return found
    real, fake = sides.real[label.real], sides.fake[label.fake]
    ids = _ascending(sides.real_ids[label.real]), _ascending(sides.fake_ids[label.fake])
    draws = _draws(label, size, options)
    pairs = resampling.between_clusters(
        real, fake, ids, draws, permutations=options.permutations, seed=options.seed + 1
    )
    if draws[0].shape[1]:
        found["matched"] = {"n": size, "draws": options.draws} | _kernel_numbers(pairs, options)
        found["matched"] |= _frechet_numbers(real, fake, draws, options.draws)
    every = resampling.jackknife(pairs.distance, pairs.patients, confidence=options.confidence_level)
    return found | {"distance": float(pairs.distance[0]), "distance_interval": _ends(every), "p_value": pairs.p_value}


def _draws(label: Label, size: int, options: Pathology) -> tuple[np.ndarray, np.ndarray]:
    """Bool columns: first real parts, then second ones; the synthetic parts twice. No column without room."""
    count = options.draws if (room := _room(label)) >= size else 0
    columns = [np.zeros((len(rows), 2 * count), bool) for rows in (label.real, label.fake)]
    if not count:
        label.notes.append(
            f"two parts of {size} real films without a common patient, and {size} synthetic films, are needed for "
            f"size-matched numbers; {room} can be had"
        )
    random = np.random.default_rng(options.seed + 2)
    for draw in range(count):
        for column, rows in ((draw, label.first[draw]), (draw + count, ~label.first[draw])):
            columns[0][random.choice(np.flatnonzero(rows), size, replace=False), column] = True
        chosen = random.choice(len(label.fake), size, replace=False)
        columns[1][chosen, draw] = columns[1][chosen, draw + count] = True
    return columns[0], columns[1]


def _kernel_numbers(pairs: resampling.Pairs, options: Pathology) -> dict[str, Any]:
    """KID, floor and gap over all draws, with the interval of the gap."""
    half = slice(0, options.draws), slice(options.draws, None)
    one, two, fake = pairs.real.take(half[0]), pairs.real.take(half[1]), pairs.fake.take(half[0])

    def mean(left: resampling.Chosen, right: resampling.Chosen) -> np.ndarray:
        return resampling.means(left, right, pairs.starts, together=True)

    within = mean(two, two)
    kid = mean(fake, fake) + within - 2.0 * mean(fake, two)
    floor = mean(one, one) + within - 2.0 * mean(one, two)
    gap = resampling.jackknife(kid - floor, pairs.patients, confidence=options.confidence_level)
    values = {"kid": kid[0], "kid_floor": floor[0], "kid_gap": kid[0] - floor[0]}
    return {key: float(value) for key, value in values.items()} | {"kid_gap_interval": _ends(gap)}


def _frechet_numbers(
    real: Features, fake: Features, draws: tuple[np.ndarray, np.ndarray], count: int
) -> dict[str, float | None]:
    """Means over draws of the Fréchet distances of synthetic and of real films to the second real part.

    A covariance cannot leave pairs of one patient out: where patients have several films the floor is the higher one.
    """
    values = []
    for draw in range(count):
        parts = fake[draws[1][:, draw]], real[draws[0][:, draw]]
        second: Any = real[draws[0][:, draw + count]]
        if len(second) >= frechet.SMALL * second.shape[1]:
            second = frechet.moments(second)  # its factor serves both distances
        values.append([frechet.frechet_distance(second, part) for part in parts])
    fid, floor = (float(value) for value in np.mean(values, axis=0))
    return {"fid": fid, "fid_floor": floor, "fid_ratio": fid / floor if floor > 0 else None}


def _adjust(found: dict[str, dict[str, Any]], labels: dict[str, Label], options: Pathology) -> None:
    """Adjust the p values for the labels that were tested, in place."""
    tested = [name for name, values in found.items() if values["p_value"] is not None]
    p_values = resampling.adjusted([found[name]["p_value"] for name in tested], options.adjustment)
    smallest = (len(tested) if options.adjustment == "holm" else 1) / (options.permutations + 1)
    for name, p_value in zip(tested, p_values, strict=True):
        found[name] |= {"p_adjusted": float(p_value), "flagged": bool(p_value < options.alpha)}
        if smallest >= options.alpha:
            labels[name].notes.append(
                f"{options.permutations} permutations over {len(tested)} labels cannot give an adjusted p value below "
                f"{options.alpha}; use more"
            )


def _conditional(sides: Sides, labels: dict[str, Label], options: Pathology) -> dict[str, dict[str, Any]]:
    """Distances of the synthetic films of each label to real films with and without it, from one pass for all."""
    asked = {name: label for name, label in labels.items() if len(label.absent)}
    if not asked:
        return {}
    real = [label.real for label in asked.values()] + [label.absent for label in asked.values()]
    fake = [label.fake for label in asked.values()] * 2
    rows, columns = zip(_union(real, sides.real_ids), _union(fake, sides.fake_ids), strict=True)
    ids = _ascending(sides.real_ids[rows[0]]), _ascending(sides.fake_ids[rows[1]])
    pairs = resampling.between_clusters(sides.real[rows[0]], sides.fake[rows[1]], ids, columns)
    half = slice(0, len(asked)), slice(len(asked), None)
    same, other, drawn = pairs.real.take(half[0]), pairs.real.take(half[1]), pairs.fake.take(half[0])
    to_same, to_other, ceiling = (
        resampling.distances(left, right, pairs.starts)
        for left, right in ((drawn, same), (drawn, other), (same, other))
    )
    found = {}
    for column, (name, label) in enumerate(asked.items()):
        of_label = to_same[:, column], to_other[:, column], ceiling[:, column]
        found[name] = _conditional_row(*of_label, pairs.patients, label.notes, options)
    return found


def _union(parts: list[np.ndarray], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are in any of the parts, in order of clusters, and for each part a bool column over them."""
    rows = np.unique(np.concatenate(parts))
    rows = rows[np.argsort(ids[rows], kind="stable")]
    return rows, np.stack([np.isin(rows, part) for part in parts], axis=1)


def _conditional_row(
    to_same: np.ndarray, to_other: np.ndarray, ceiling: np.ndarray, patients: int, notes: list[str], options: Pathology
) -> dict[str, Any]:
    """The numbers of one label from distances with every cluster and without each in turn, (1 + C,)."""
    gap = resampling.jackknife(to_other - to_same, patients, confidence=options.confidence_level)
    known = resampling.jackknife(ceiling, patients, confidence=options.confidence_level)
    told_apart = known.low > 0
    if not told_apart:
        notes.append("real films with and without the label are not told apart, so the conditional gap has no share")
    return {
        "to_same": float(to_same[0]),
        "to_other": float(to_other[0]),
        "gap": float(to_other[0] - to_same[0]),
        "gap_interval": _ends(gap),
        "ceiling": float(ceiling[0]),
        "share": float((to_other[0] - to_same[0]) / ceiling[0]) if told_apart else None,
    }


def _ends(interval: Interval) -> list[float] | None:
    """Low and high, or None where the interval is not defined."""
    return [interval.low, interval.high] if np.isfinite(interval.standard_error) else None
