"""The metric modules run over two sets of features, merged into flat values. Knows features, not films."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import synthchex
from synthchex.scores.request import Request

Groups = dict[str, tuple[np.ndarray, np.ndarray]]
Patients = list[str] | None

# key in a metric's result: (metric module, name in tables, which direction is better)
DISTANCES: dict[str, tuple[str, str, str]] = {
    "fid": ("fid", "FID", "lower"),
    "fid_infinity": ("fid", "FID, extrapolated", "lower"),
    "kid": ("kid", "KID", "lower"),
    "precision": ("prdc", "Precision", "higher"),
    "recall": ("prdc", "Recall", "higher"),
    "density": ("prdc", "Density", "higher"),
    "coverage": ("prdc", "Coverage", "higher"),
    "vendi": ("vendi", "Vendi score", "higher"),
    "inception_score": ("inception_score", "Inception score", "higher"),
}
CMMD = {"cmmd": ("cmmd", "CMMD", "lower")}
PIXELS = {"ms_ssim": ("ms_ssim", "MS-SSIM of pairs", "lower"), "frd": ("frd", "FRD", "lower")}
ALIGNMENT: dict[str, tuple[str, str, str]] = {
    "alignment": ("alignment", "Alignment (cosine)", "higher"),
    "alignment_z": ("alignment", "Alignment z, shuffled", "higher"),
    "alignment_image_to_text_r1": ("alignment", "Retrieval R@1", "higher"),
    "alignment_image_to_text_r10": ("alignment", "Retrieval R@10", "higher"),
}


def distances(
    fake: np.ndarray, real: np.ndarray, groups: Groups, request: Request, patients: Patients, *, whole: bool
) -> dict[str, Any]:
    """fid, kid, prdc and vendi of two feature sets: flat values, `labels`, `warnings`.

    `patients` are those of the references, the unit of every interval. `whole` adds what is affordable for the whole
    set alone: the interval and the extrapolation of the FID.
    """
    merged = empty(groups)
    common: dict[str, Any] = {"predictions": fake, "references": real}
    common |= {"patients": (None, patients)} if patients is not None else {}
    chosen, level = groups or None, request.confidence_level
    if "fid" in request.metrics:
        if groups or not whole:
            merge(merged, run("fid", **common, groups=chosen, seed=request.seed))
        if whole:
            merge(merged, run("fid", **common, seed=request.seed, infinity=_extends(fake), confidence_level=level))
    if "kid" in request.metrics:
        merge(merged, run("kid", **common, groups=chosen, confidence_level=level))
    if "prdc" in request.metrics:
        merge(merged, run("prdc", **common, groups=chosen, confidence_level=level, nearest_k=request.nearest_k))
    if "vendi" in request.metrics:
        alone = {label: masks[0] for label, masks in groups.items()} or None
        merge(merged, run("vendi", predictions=fake, groups=alone))
    return merged


def cmmd(fake: np.ndarray, real: np.ndarray, groups: Groups, request: Request, patients: Patients) -> dict[str, Any]:
    """CMMD of unit image vectors of an image-text network."""
    merged = empty(groups)
    common: dict[str, Any] = {"patients": (None, patients)} if patients is not None else {}
    found = run(
        "cmmd",
        predictions=fake,
        references=real,
        groups=groups or None,
        confidence_level=request.confidence_level,
        **common,
    )
    merge(merged, found)
    return merged


def alignment(
    vectors: np.ndarray, texts: np.ndarray, groups: dict[str, np.ndarray], request: Request, patients: Patients
) -> dict[str, Any]:
    """Image-text agreement of one set of pairs."""
    merged = empty(groups)
    found = run(
        "alignment",
        predictions=vectors,
        references=texts,
        groups=groups or None,
        seed=request.seed,
        confidence_level=request.confidence_level,
        **({"patients": (patients, None)} if patients is not None else {}),
    )
    merge(merged, found)
    return merged


def run(name: str, **options: Any) -> dict[str, Any]:
    """One metric module, with the options that are not None."""
    found: dict[str, Any] = synthchex.load(name).compute(**{k: v for k, v in options.items() if v is not None})
    return found


def empty(groups: Mapping[str, Any]) -> dict[str, Any]:
    """A result without values."""
    return {"labels": {label: {} for label in groups}, "warnings": []}


def merge(into: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Add one module's result to those of the others."""
    into |= {key: value for key, value in found.items() if key not in ("labels", "warnings")}
    into["warnings"] += found.get("warnings", [])
    for label, values in (found.get("labels") or {}).items():
        into["labels"][label] |= values


def interval(values: Mapping[str, Any], key: str) -> list[float] | None:
    """Ends of a value's interval where the module gives them."""
    ends = [values.get(f"{key}_low"), values.get(f"{key}_high")]
    return None if None in ends else [float(end) for end in ends]  # type: ignore[arg-type]


def _extends(fake: np.ndarray) -> bool:
    """Whether a set is large enough for the extrapolation of the FID."""
    return len(fake) >= 2.5 * fake.shape[1]
