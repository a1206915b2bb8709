"""The screens: each measures readable films of both sides and sets its limits by the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from synthchex.gate import calibration, copies, signatures
from synthchex.maths import search
from synthchex.screens import layout, limits, mirror, neighbours, pixels
from synthchex.screens.limits import Limits
from synthchex.screens.means import Means, Seen

NEIGHBOURS = 5  # the fifth nearest real film says how far off a film is: one odd real film vouches for none
FIXED = {
    "constant": ("levels", Limits(low=8)),
    "black": ("mean", Limits(low=8)),
    "white": ("mean", Limits(high=247)),
    "saturated": ("bright", Limits(high=0.5)),
}


@dataclass
class Findings:
    """Values, limits and hits of readable films, of both sides, as screens add them."""

    fake: Seen
    real: Seen | None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    real_found: dict[str, np.ndarray] = field(default_factory=dict)

    def judge(self, reason: str, measure: str, limit: Limits, fake: np.ndarray, real: np.ndarray | None) -> None:
        """One measure against its limit."""
        known = self.limits.get(measure, Limits())
        self.values[measure] = fake
        self.limits[measure] = Limits(max(known.low, limit.low), min(known.high, limit.high))
        self.found[reason] = self.found.get(reason, False) | limit.outside(fake)
        if real is not None:
            self.real_found[reason] = self.real_found.get(reason, False) | limit.outside(real)


def _owners(seen: Seen) -> np.ndarray:
    """Patient number of each readable film; each film its own where patients are unknown."""
    patients = seen.films.patients
    named = np.arange(len(seen.kept)) if patients is None else np.asarray(patients)[seen.kept]
    return np.unique(named, return_inverse=True)[1]


def _measure(side: Seen, name: str) -> np.ndarray:
    return np.asarray(side.features["measures"][:, pixels.MEASURES.index(name)], float)


def _pair(findings: Findings, measure: str) -> tuple[np.ndarray, np.ndarray]:
    fake, real = (_measure(side, measure) for side in _both(findings))
    return fake, real


def _both(findings: Findings) -> tuple[Seen, Seen]:
    if findings.real is None:
        raise ValueError("expected a reference of real films, got none")
    return findings.fake, findings.real


def _pixels(findings: Findings, means: Means) -> None:
    for reason, (measure, limit) in FIXED.items():
        real = None if findings.real is None else _measure(findings.real, measure)
        findings.judge(reason, measure, limit, _measure(findings.fake, measure), real)


def _text(findings: Findings, means: Means) -> None:
    fake = np.asarray(findings.fake.features["text"][:, 0], float)
    if findings.real is None:
        findings.judge("burned_in_text", "share of text", Limits(high=0), fake, None)
        return
    real = np.asarray(findings.real.features["text"][:, 0], float)
    findings.judge("burned_in_text", "share of text", limits.above(real, means.false_drops), fake, real)


def _exposure(findings: Findings, means: Means) -> None:
    for measure in ("mean", "contrast", "levels"):
        fake, real = _pair(findings, measure)
        # Three measures share the chance.
        findings.judge("exposure", f"{measure} of real", limits.between(real, means.false_drops / 3), fake, real)


def _blur(findings: Findings, means: Means) -> None:
    fake, real = _pair(findings, "sharpness")
    findings.judge("blurred", "sharpness", limits.below(real, means.false_drops), fake, real)


def _noise(findings: Findings, means: Means) -> None:
    fake, real = _pair(findings, "grain")
    findings.judge("noisy", "grain", limits.above(real, means.false_drops), fake, real)


def _apart(findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each film, and of each real one, to its k-th nearest real film of another patient."""
    fake, real = _both(findings)
    known, owners = real.features["encoder"], _owners(real)
    k = min(NEIGHBOURS, int(owners.max()))
    strangers = search.nearest(fake.features["encoder"], known, k).distances[:, -1]
    return strangers, search.nearest(known, known, k, owners=(owners, owners)).distances[:, -1]


def _chest(findings: Findings, means: Means) -> None:
    fake, real = _both(findings)
    owners, reason = _owners(real), "not_a_chest_film"
    share = means.false_drops / (2 if means.encoder is None else 3)  # measures share the chance
    far, usual = layout.distances(layout.layouts(_thumbs(fake)), layout.layouts(_thumbs(real)), owners)
    findings.judge(reason, "layout distance", limits.above(usual, share), far, usual)
    some = np.random.default_rng(0).permutation(len(real.kept))
    known, known_owners = _thumbs(real)[some], owners[some]
    alike = layout.resemblance(_thumbs(fake), known)
    others = layout.resemblance(_thumbs(real), known, owners=owners, real_owners=known_owners)
    findings.judge(reason, "resemblance to real", limits.below(others, share), alike, others)
    if means.encoder is not None:
        apart, null = _apart(findings)
        findings.judge(reason, "distance to real", limits.above(null, share), apart, null)


def _mirrored(findings: Findings, means: Means) -> None:
    fake, real = _both(findings)
    one, two = (side.features["encoder"] - side.features["mirrored"] for side in (fake, real))
    upright, usual = mirror.scores(one, two, _owners(real))
    findings.judge("mirrored", "uprightness", limits.below(usual, means.false_drops), upright, usual)


def _labels(findings: Findings, means: Means) -> None:
    fake, real = (agreement(side.features["classifier"], _states(side)) for side in _both(findings))
    findings.judge("label_mismatch", "agreement with labels", limits.below(real, means.false_drops), fake, real)


def _states(seen: Seen) -> np.ndarray:
    if seen.films.labels is None:
        raise ValueError(f"the screen 'labels' needs the labels of the prompts, got none in {seen.films.source}")
    return np.asarray(seen.films.labels)[seen.kept]


def agreement(probabilities: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Mean log-likelihood of the stated labels, in nats, at most 0, higher is better; NaN where none is stated.

    Args:
        probabilities: (N, 14) in [0, 1], NaN where a label has no head.
        states: (N, 14); only 1 and 0 count.
    """
    likely = np.where(states == 1, probabilities, 1 - probabilities).astype(float)
    stated = np.isin(states, (0, 1)) & ~np.isnan(likely)
    logs = np.where(stated, np.log(np.clip(likely, 1e-6, 1)), 0.0)
    return np.divide(logs.sum(1), stated.sum(1), out=np.full(len(states), np.nan), where=stated.any(1))


def _view(findings: Findings, means: Means) -> None:
    allowed = [means.view_classifier.heads.index(view) for view in means.views]

    def wrong(seen: Seen) -> np.ndarray:
        logits = seen.features["view"]
        return np.asarray(logits.max(axis=1) - logits[:, allowed].max(axis=1), float)

    real = None if findings.real is None else wrong(findings.real)
    findings.judge("wrong_view", "logits above the allowed views", Limits(high=0), wrong(findings.fake), real)


def _copy(findings: Findings, means: Means) -> None:
    fake, real = (copies.Seen(side.kept, side.contents, *_gate_features(side)) for side in _both(findings))
    known = copies.reference(real, _both(findings)[1].films.patients)
    null = copies.nearness(real, known, owners=known.owners, num_workers=means.num_workers)
    repeated = (null.exact >= 0) | (null.pixels >= 0) | (null.correlation >= calibration.SAME)
    single = copies.Nearness(*(part[~repeated] for part in null))
    bounds = calibration.thresholds(single, known.owners[~repeated], means.false_drops)
    near = copies.nearness(fake, known, num_workers=means.num_workers)
    hits = calibration.found(near, bounds)
    findings.found["copy_of_real"] = np.logical_or.reduce(list(hits.values()))
    findings.real_found["copy_of_real"] = np.logical_or.reduce(list(calibration.found(null, bounds).values()))
    findings.values["correlation with real"] = near.correlation
    findings.limits["correlation with real"] = Limits(high=bounds.correlation)
    findings.limits["distance to nearest real"] = Limits(low=bounds.distance)
    findings.values["distance to nearest real"] = near.distance


def _gate_features(side: Seen) -> tuple[np.ndarray, np.ndarray]:
    return side.features["signatures"], side.features["encoder"]


def _duplicate(findings: Findings, means: Means) -> None:
    fake, real = _both(findings)
    owners = _owners(real)
    k = min(NEIGHBOURS, int(owners.max()))
    null = search.nearest(real.features["encoder"], real.features["encoder"], k, owners=(owners, owners))
    alike = neighbours.correlations(_thumbs(real), _thumbs(real), null.rows).max(axis=1)
    own = alike < calibration.SAME  # two patients' films that are one film say nothing of strangers
    distance = limits.below(null.distances[own, 0], means.false_drops / 2)
    correlation = limits.above(alike[own], means.false_drops / 2)
    rows = np.arange(len(fake.kept))
    near = search.nearest(fake.features["encoder"], fake.features["encoder"], k, owners=(rows, rows))
    same = neighbours.correlations(_thumbs(fake), _thumbs(fake), near.rows)
    close = distance.outside(near.distances) | correlation.outside(same)
    keys = (fake.contents, signatures.digests(np.asarray(fake.features["signatures"])))
    earlier = neighbours.repeats(keys, near.rows, close)
    findings.found["near_duplicate"] = earlier >= 0
    findings.values["duplicate of row"] = np.where(earlier >= 0, fake.kept[earlier], np.nan)
    findings.limits |= {"distance within the set": distance, "correlation within the set": correlation}
    findings.values |= {"distance within the set": near.distances[:, 0], "correlation within the set": same.max(axis=1)}


def _thumbs(seen: Seen) -> np.ndarray:
    return signatures.thumbnails(np.asarray(seen.features["signatures"]))


SCREENS = {
    "pixels": _pixels,
    "text": _text,
    "exposure": _exposure,
    "blur": _blur,
    "noise": _noise,
    "chest": _chest,
    "mirrored": _mirrored,
    "labels": _labels,
    "view": _view,
    "copy": _copy,
    "duplicate": _duplicate,
}
