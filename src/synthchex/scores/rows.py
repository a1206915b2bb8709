"""Measured values as rows of results.json. Every number becomes what JSON has: a float, or None and a state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from synthchex.scores import measures
from synthchex.scores.request import Request
from synthchex.scores.sets import Networks, Side

NAMES = measures.DISTANCES | measures.CMMD | measures.PIXELS
LABEL_KEYS = ("fid", "kid", "precision", "recall", "density", "coverage", "vendi")


def overall(name: str, measured: Any, a: Side, b: Side, parts: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    """One row per metric of one encoder, beside the value between two parts of the real set."""
    scores, floor, matched = measured
    return [
        {
            "metric": key,
            "label": label,
            "encoder": name,
            "value": number(scores[key]),
            "interval": measures.interval(scores, key),
            "floor": number(floor.get(key)),
            "matched": number(matched.get(key)),
            "better": better,
            "n_real": len(a),
            "n_synthetic": len(b),
            "n_floor": [len(part) for part in parts] if floor.get(key) is not None else None,
            "state": "ok" if number(scores[key]) is not None else "insufficient n",
            "note": _note(key),
        }
        for key, (_, label, better) in NAMES.items()
        if key in scores
    ]


def alignment(
    name: str | None, scores: Mapping[str, Any], ceiling: Mapping[str, Any], count: int
) -> list[dict[str, Any]]:
    """Rows of image-text agreement; `floor` is what real films reach with their own reports."""
    return [
        {
            "metric": key,
            "label": label,
            "encoder": name,
            "value": number(scores[key]),
            "interval": measures.interval(scores, key),
            "floor": number(ceiling.get(key)),
            "matched": None,
            "better": better,
            "n_real": ceiling.get("n_predictions", 0),
            "n_synthetic": count,
            "n_floor": None,
            "state": "ok",
            "note": "real: films with their own reports",
        }
        for key, (_, label, better) in measures.ALIGNMENT.items()
        if key in scores
    ]


def labels(
    groups: measures.Groups,
    found: Mapping[str, Any],
    beside: Mapping[str, Any],
    aligned: Mapping[str, Any],
    tested: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One row per label and image encoder; without numbers where there are too few films."""
    rows = []
    for name, measured in found.items():
        for label, (synthetic, real) in groups.items():
            row: dict[str, Any] = {
                "label": label,
                "encoder": name,
                "n_real": int(real.sum()),
                "n_synthetic": int(synthetic.sum()),
                "state": "insufficient n",
            }
            values = measured.scores["labels"].get(label)
            if values is not None:
                row |= {"state": "ok"} | _label_values(label, measured, beside, aligned)
                row |= _patients_apart(tested.get(name, {}).get(label, {}))
            rows.append(row)
    return rows


def encoders(networks: Networks, side: Side) -> list[dict[str, Any]]:
    """Name, key, width and kind of every network."""
    kinds = [("image", name, network, side.features[name].shape[1]) for name, network in networks.images.items()]
    if networks.image_text is not None and side.vectors is not None:
        kinds.append(("image-text", networks.image_text.named.model, networks.image_text, side.vectors.shape[1]))
    kinds += [("classifier", name, network, 14) for name, network in networks.classifiers.items()]
    return [
        {"name": name, "key": network.key, "width": int(width), "kind": kind} for kind, name, network, width in kinds
    ]


def policy(request: Request) -> dict[str, Any]:
    """How labels were selected and tested."""
    keys = ("uncertain", "min_rows", "adjustment", "alpha", "draws", "permutations")
    return {key: getattr(request, key) for key in keys}


def number(value: Any) -> float | None:
    """A finite float, or None."""
    return None if value is None or not math.isfinite(value) else float(value)


def _label_values(label: str, measured: Any, beside: Mapping[str, Any], aligned: Mapping[str, Any]) -> dict[str, Any]:
    """Values of one label from one encoder, and from the networks that stand beside it."""
    values, floor = measured.scores["labels"][label], measured.floor["labels"].get(label, {})
    row: dict[str, Any] = {key: number(values.get(key)) for key in LABEL_KEYS if key in values}
    row |= {"kid_interval": measures.interval(values, "kid"), "kid_floor": number(floor.get("kid"))}
    for other in beside.values():
        extra = other.scores["labels"].get(label, {})
        for key in ("cmmd", "ms_ssim"):
            if key in extra:
                row |= {key: number(extra[key]), f"{key}_interval": measures.interval(extra, key)}
                between = other.floor.get("labels", {}).get(label, {}) if key == "cmmd" else {}
                row |= {"cmmd_floor": number(between.get("cmmd"))} if key == "cmmd" else {}
    pairs = aligned.get("labels", {}).get(label, {})
    if "alignment" in pairs:
        row |= {"alignment": number(pairs["alignment"]), "alignment_interval": measures.interval(pairs, "alignment")}
    return row


def _patients_apart(tested: Mapping[str, Any]) -> dict[str, Any]:
    """What was tested of a label. Its KID takes the place of the plain one: two films of one patient are alike, and a
    label has so few patients that such pairs would raise the value within the real set.
    """
    if tested.get("distance") is None:
        return dict(tested)
    own = {"kid": tested["distance"], "kid_interval": tested["distance_interval"]}
    return own | {key: value for key, value in tested.items() if not key.startswith("distance")}


def _note(key: str) -> str:
    """What a value is, where its name does not say it."""
    return {
        "frd": "log of the squared distance",
        "ms_ssim": "random pairs; real: pairs of real films",
        "inception_score": "real: the real set",
    }.get(key, "")
