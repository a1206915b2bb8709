"""Does a film show what its prompt says: a classifier's view of synthetic films, beside its view of real ones.

Knows probabilities, label states and patients; knows neither networks nor films. No number means anything without its
real counterpart: a classifier that misses fractures on real films cannot blame a generator for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths import intervals, ranking
from synthchex.maths.ranking import Auroc
from synthchex.scores.groups import Members, Uncertain, members
from synthchex.scores.sets import halves

Clusters = Sequence[str] | None

OWN_THRESHOLD = 0.5
FALSE_ALARMS = 0.05
NOT_FINDINGS = ("No Finding", "Support Devices")  # a film with a support device may still show no finding


class Judge(Protocol):
    """What is told of a classifier: see `models.classifiers.Classifier`."""

    name: str
    labels: tuple[str, ...]
    missing: tuple[str, ...]
    independent: bool | None


class Seen(NamedTuple):
    """One set as the classifier saw it: probabilities (N, 14); masks of each label, {} where there are none; number of
    the patient or prompt of each film, None where films are independent.
    """

    probabilities: np.ndarray
    members: dict[str, Members]
    clusters: np.ndarray | None

    def patients(self, rows: np.ndarray) -> int:
        """How many patients some rows come from, from a bool mask."""
        return int(rows.sum()) if self.clusters is None else len(np.unique(self.clusters[rows]))


class Scored(NamedTuple):
    """One label on one side; no numbers where there are too few films."""

    positive: int
    negative: int
    area: Auroc | None
    precision: float | None


def faithfulness(
    classifier: Judge,
    fake_probs: np.ndarray,
    real_probs: np.ndarray | None,
    fake_labels: np.ndarray,
    real_labels: np.ndarray | None,
    *,
    real_clusters: Clusters = None,
    fake_clusters: Clusters = None,
    uncertain: Uncertain = "ignore",
    min_rows: int = 30,
    confidence_level: float = 0.95,
    draws: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """The `faithfulness` entry of results.json for one classifier.

    Args:
        classifier: whose probabilities these are; only its name and its labels are read.
        fake_probs, real_probs: probabilities, float (N, 14) and (M, 14), NaN in the columns of labels without a head.
        fake_labels, real_labels: states of the prompts and of the real films, as in `groups.members`.
        real_clusters, fake_clusters: patient of each real film, prompt of each synthetic one; None: independent films.
        uncertain: what -1 counts as.
        min_rows: fewest films with a label, and fewest without it, to be scored on either side.
        confidence_level: of all intervals.
        draws: random halves of the real set that the co-occurrence floor is averaged over.
        seed: of these halves.

    Returns:
        `labels`: AUROC (higher is better) and average precision of each label with a head, on synthetic films against
            the labels of their prompts and on real films; `difference` is synthetic less real, with an interval for two
            independent sets. `state` is of the synthetic side, `state_real` of the real one. Average precision rises
            with the share of films with the label, so its two sides compare only where that share is about equal.
        `mean`: over the labels scored on both sides; over all scored ones where no real films have labels.
        `no_finding`: see `no_finding`; `cooccurrence`: see `cooccurrence`.
        `notes`: sentences on what could not be measured.

        Without real labels, or without real films, the keys of real films are there and null.

    Raises:
        ValueError: another number of probabilities than of labels or clusters, a NaN in the column of a head, min_rows
            below 2.
    """
    if min_rows < 2:
        raise ValueError(f"min_rows must be at least 2, got {min_rows}")
    fake = _seen("synthetic", classifier, fake_probs, fake_labels, fake_clusters, uncertain)
    if real_probs is None:
        real_probs, real_labels, real_clusters = np.empty((0, len(LABELS))), None, None
    real = _seen("real", classifier, real_probs, real_labels, real_clusters, uncertain)
    ours, theirs = (_scored(side, classifier.labels, min_rows, confidence_level) for side in (fake, real))
    findings = [LABELS.index(label) for label in classifier.labels if label not in NOT_FINDINGS]
    columns = [LABELS.index(label) for label in classifier.labels]
    return {
        "classifier": classifier.name,
        "independent": classifier.independent,
        "missing": list(classifier.missing),
        "labels": [_row(label, ours[label], theirs.get(label)) for label in classifier.labels],
        "mean": _mean(ours, theirs),
        "no_finding": no_finding(fake, real, findings, min_rows=min_rows, confidence_level=confidence_level),
        "cooccurrence": cooccurrence(fake, real, columns, min_rows=min_rows, draws=draws, seed=seed),
        "notes": _notes(ours, theirs),
    }


def no_finding(
    fake: Seen, real: Seen, columns: Sequence[int], *, min_rows: int, confidence_level: float
) -> dict[str, Any]:
    """What the classifier sees on films whose prompt says No Finding, where it should see nothing.

    Of each film, the highest probability of any of `columns` (findings; No Finding and Support Devices are none).
    `mean_highest` is its mean; `share_flagged` the share of films where it is above `threshold`. The threshold is the
    one that 5 % of the real No Finding films exceed; where there are fewer than `min_rows` of them, 0.5.
    `threshold_from` says which. Lower is better; the real films say how low it can be. The intervals of the shares take
    the threshold as given.
    """
    sides = [(end, _highest(side, columns)) for end, side in (("", fake), ("_real", real))]
    reference = sides[1][1][0]
    enough = len(reference) >= min_rows
    # The `higher` quantile, and above it: never more than 5 % of the real films.
    threshold = float(np.quantile(reference, 1 - FALSE_ALARMS, method="higher")) if enough else OWN_THRESHOLD
    source = "real films without a finding, 5 % above it" if enough else "the classifier's own, no real films to fix it"
    told: dict[str, Any] = {"threshold": threshold, "threshold_from": source}
    for end, (highest, clusters) in sides:
        scored = len(highest) >= min_rows and (clusters is None or len(np.unique(clusters)) > 1)
        flagged = highest > threshold
        interval = intervals.of_share(flagged, clusters=clusters, confidence=confidence_level) if scored else None
        told |= {
            f"n{end}": len(highest),
            f"state{end}": "ok" if scored else "insufficient n",
            f"mean_highest{end}": float(highest.mean()) if scored else None,
            f"share_flagged{end}": float(flagged.mean()) if scored else None,
            f"share_flagged{end}_interval": None if interval is None else [interval.low, interval.high],
        }
    return told


def cooccurrence(
    fake: Seen, real: Seen, columns: Sequence[int], *, min_rows: int, draws: int, seed: int
) -> dict[str, Any]:
    """How far the labels that the classifier sees together on synthetic films are from those on real films.

    Of a set, the Pearson correlation of the probabilities of each pair of labels with a head: the phi coefficient of
    two labels, with probabilities in place of 0 and 1, so that no threshold is needed; 0 where a label's probability
    never varies. `distance` is the mean over pairs of the absolute difference between synthetic and real films, in
    [0, 2], lower is better. `floor` is the same between two halves of the real films without a common patient. Both
    are taken at one number of films, `n` on each side, and averaged over `draws` random halves: each draw compares as
    many synthetic films, and the first half, with the second. `floor_range` holds 95 % of the draws of the floor.
    """
    count = len(real.probabilities)
    told: dict[str, Any] = {"labels": [LABELS[column] for column in columns], "draws": draws}
    told |= {"distance": None, "floor": None, "floor_range": None, "n": None}
    if not count or len(columns) < 2:
        return told | {"state": "not measured"}
    rng, sizes, found = np.random.default_rng(seed), [], np.empty((draws, 2))
    for draw in range(draws):
        first, second = halves(real.clusters, count, len(fake.probabilities), int(rng.integers(2**32)))
        if len(second) < min_rows:
            return told | {"state": "insufficient n"}
        chosen = rng.choice(len(fake.probabilities), len(second), replace=False)
        sides = [(fake, chosen), (real, first), (real, second)]
        drawn, one, other = (_correlations(side.probabilities[rows][:, columns]) for side, rows in sides)
        found[draw] = np.abs(drawn - other).mean(), np.abs(one - other).mean()
        sizes.append(len(second))
    distance, floor = found.mean(0)
    spread = [float(end) for end in np.quantile(found[:, 1], [0.025, 0.975])]
    told |= {"distance": float(distance), "floor": float(floor), "floor_range": spread, "n": min(sizes)}
    return told | {"state": "ok"}


def _seen(
    name: str,
    classifier: Judge,
    probabilities: np.ndarray,
    labels: np.ndarray | None,
    clusters: Clusters,
    uncertain: Uncertain,
) -> Seen:
    """One set, checked."""
    if probabilities.ndim != 2 or probabilities.shape[1] != len(LABELS):
        raise ValueError(
            f"{name}: expected probabilities of shape (N, {len(LABELS)}), got {probabilities.shape}; encode the films "
            "with a classifier"
        )
    counts = {"labels": labels, "clusters": clusters}
    for what, values in counts.items():
        if values is not None and len(values) != len(probabilities):
            raise ValueError(f"{name}: expected {len(probabilities)} {what}, one per film, got {len(values)}")
    heads = probabilities[:, [LABELS.index(label) for label in classifier.labels]]
    if np.isnan(heads).any():
        raise ValueError(
            f"{name}: expected a probability for each of {list(classifier.labels)}, got NaN for "
            f"{int(np.isnan(heads).any(1).sum())} films; encode them again, in float32"
        )
    numbers = None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    return Seen(probabilities, {} if labels is None else members(labels, uncertain), numbers)


def _scored(side: Seen, labels: Sequence[str], min_rows: int, confidence: float) -> dict[str, Scored]:
    """Each label of a side; with numbers where there are enough films, and patients, with it and without it."""
    found: dict[str, Scored] = {}
    for label in labels if side.members else ():
        masks = side.members[label]
        positive, negative = (int(rows.sum()) for rows in masks)
        found[label] = Scored(positive, negative, None, None)
        if min(positive, negative) >= min_rows and min(side.patients(rows) for rows in masks) > 1:
            scores = side.probabilities[:, LABELS.index(label)]
            area = ranking.auroc(scores, *masks, clusters=side.clusters, confidence=confidence)
            found[label] = Scored(positive, negative, area, ranking.average_precision(scores, *masks))
    return found


def _row(label: str, ours: Scored, theirs: Scored | None) -> dict[str, Any]:
    gap = ranking.difference(ours.area, theirs.area) if ours.area and theirs and theirs.area else None
    return {
        "label": label,
        **_side(ours, ""),
        **_side(theirs, "_real"),
        "difference": None if gap is None else gap.value,
        "difference_interval": None if gap is None else [gap.low, gap.high],
    }


def _side(scored: Scored | None, end: str) -> dict[str, Any]:
    """One label on one side; the names of its keys end in `end`."""
    positive, negative, area, precision = scored or (None, None, None, None)
    return {
        f"state{end}": "not measured" if scored is None else "ok" if area else "insufficient n",
        f"n_positive{end}": positive,
        f"n_negative{end}": negative,
        f"auroc{end}": area and area.value,
        f"auroc{end}_interval": area and [area.low, area.high],
        f"average_precision{end}": precision,
    }


def _mean(ours: dict[str, Scored], theirs: dict[str, Scored]) -> dict[str, Any]:
    """Over the same labels on both sides."""
    keys = ("auroc", "auroc_interval", "auroc_real", "auroc_real_interval", "difference", "difference_interval")
    areas = {label: one.area for label, one in ours.items() if one.area}
    others = {label: one.area for label, one in theirs.items() if one.area and label in areas}
    areas = {label: area for label, area in areas.items() if label in others or not theirs}
    told: dict[str, Any] = dict.fromkeys(keys) | {"labels": len(areas)}
    if not areas:
        return told
    one = ranking.mean_auroc(list(areas.values()))
    told |= {"auroc": one.value, "auroc_interval": [one.low, one.high]}
    if not theirs:
        return told
    other = ranking.mean_auroc(list(others.values()))
    gap = ranking.difference(one, other)
    told |= {"auroc_real": other.value, "auroc_real_interval": [other.low, other.high]}
    return told | {"difference": gap.value, "difference_interval": [gap.low, gap.high]}


def _highest(side: Seen, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Highest probability of a finding on each No Finding film, and the clusters of these films."""
    if not side.members or not columns:
        return np.empty(0), None
    rows = side.members["No Finding"].present
    clusters = None if side.clusters is None else side.clusters[rows]
    return side.probabilities[rows][:, columns].max(1), clusters


def _notes(ours: dict[str, Scored], theirs: dict[str, Scored]) -> list[str]:
    if not theirs:
        return ["Real films have no labels: synthetic films stand alone, and no number says what could be expected."]
    alone = [label for label, one in ours.items() if one.area and not theirs[label].area]
    return [f"Too few real films to compare with: {', '.join(alone)}."] if alone else []


def _correlations(probabilities: np.ndarray) -> np.ndarray:
    """Pearson correlation of each pair of columns, (pairs,); 0 with a column that does not vary."""
    centred = probabilities.astype(np.float64) - probabilities.mean(0, dtype=np.float64)
    products = centred.T @ centred
    scale = np.sqrt(np.outer(np.diag(products), np.diag(products)))
    found = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return found[np.triu_indices(len(found), 1)]
