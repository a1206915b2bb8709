"""Scores of a synthetic set against a real one, overall and per label, beside the real-vs-real floor. Writes no file.

Every film is decoded once and passed once through each encoder; every score, every label and the floor are selections
of the stored features, computed by the metric modules that `evaluate.load()` gives anyone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import synthchex
from synthchex.data import records, sources
from synthchex.models import encoders, samplers, store

Groups = dict[str, tuple[np.ndarray, np.ndarray]]
Patients = list[str] | None

# key in a metric's result: (name in tables, which direction is better)
ROWS: dict[str, tuple[str, str]] = {
    "fid": ("FID", "lower"),
    "kid": ("KID", "lower"),
    "precision": ("Precision", "higher"),
    "recall": ("Recall", "higher"),
    "density": ("Density", "higher"),
    "coverage": ("Coverage", "higher"),
}
ALIGNMENT_ROWS: dict[str, tuple[str, str]] = {
    "alignment": ("Alignment (cosine)", "higher"),
    "alignment_z": ("Alignment z, shuffled", "higher"),
    "alignment_image_to_text_r1": ("Retrieval R@1", "higher"),
    "alignment_image_to_text_r10": ("Retrieval R@10", "higher"),
}


@dataclass(frozen=True)
class Request:
    """What to measure with what. `image_text` None measures no alignment; labels with fewer than `min_rows` films are
    not scored.
    """

    encoder: str = encoders.DEFAULT
    image_text: str | None = None
    nearest_k: int = 5
    min_rows: int = 30
    confidence_level: float = 0.95
    seed: int = 0
    domain: str = "radiographs"
    batch_size: int = 32
    device: str | None = None


class Side(NamedTuple):
    """One set after encoding, readable films only: features (N, D), unit vectors or None, and what is known of each
    film.
    """

    images: sources.ImageSet
    encoded: store.Encoded
    features: np.ndarray
    vectors: np.ndarray | None
    texts: np.ndarray | None
    truncated: str | None
    prompts: list[str] | None
    labels: np.ndarray | None
    patients: Patients


class Scored(NamedTuple):
    """Results as they go into results.json, and what the pictures need: both sides, cosines with own and shuffled
    prompts.
    """

    results: dict[str, Any]
    real: Side
    synthetic: Side
    matched: np.ndarray | None
    shuffled: np.ndarray | None


def score(
    real: sources.ImageSet, synthetic: sources.ImageSet, request: Request, kept: Path | None, *, quiet: bool = False
) -> Scored:
    """All scores of a synthetic set against a real one.

    Args:
        real, synthetic: the sets; counts may differ.
        kept: folder of the feature store, None for none.

    Raises:
        ValueError: a set without readable films, or too few of them for the metrics.
    """
    encoder = encoders.load_encoder(request.encoder, device=request.device)
    aligned = request.image_text is not None and synthetic.prompts is not None
    image_text = encoders.load_image_text(str(request.image_text), device=request.device) if aligned else None
    a, b = (encode(images, encoder, image_text, kept, request.batch_size, quiet) for images in (real, synthetic))
    groups = label_groups(b.labels, a.labels)
    scored = {label: masks for label, masks in groups.items() if min(m.sum() for m in masks) >= request.min_rows}
    scores = run_metrics(b.features, a.features, scored, request, a.patients)
    first, second = split_real(a, len(b.features), request.seed)
    floor_groups = halves(a.labels, first, second, scored, request)
    floor = run_metrics(a.features[first], a.features[second], floor_groups, request)
    alignment, ceiling = align(b, scored, request), align(a, {}, request)
    results = {
        "schema_version": 1,
        "domain": request.domain,
        "sets": {"real": describe(a), "synthetic": describe(b)},
        "encoder": {"name": request.encoder, "key": encoder.key, "width": int(a.features.shape[1])},
        "image_text": None if image_text is None else {"name": request.image_text, "key": image_text.key},
        "overall": overall_rows(scores, floor, a, b, (len(first), len(second)))
        + alignment_rows(alignment, ceiling, len(b.features)),
        "labels": label_rows(groups, scores, floor, alignment),
        "warnings": notes(scores, alignment, a, b),
        "methods": methods(request, encoder.name, (len(first), len(second))),
        "versions": json.loads(samplers.versions()),
        "config": asdict(request),
        "hashes": {"real": records.fingerprint(a.encoded.hashes), "synthetic": records.fingerprint(b.encoded.hashes)},
    }
    if b.vectors is None or b.texts is None:
        return Scored(results, a, b, None, None)
    return Scored(results, a, b, *pair_cosines(b.vectors, b.texts, request.seed))


def encode(
    images: sources.ImageSet,
    encoder: encoders.Encoder,
    image_text: Any,
    kept: Path | None,
    batch_size: int,
    quiet: bool,
) -> Side:
    """Features of one set, and the columns of the films that could be read."""
    networks = [encoder] if image_text is None else [encoder, image_text]
    encoded = store.encode(images, networks, kept, batch_size=batch_size, quiet=quiet)
    rows = encoded.kept
    prompts = None if images.prompts is None else [images.prompts[i] for i in rows]
    worded = image_text is not None and prompts is not None
    return Side(
        images,
        encoded,
        features=encoded.features[0],
        vectors=encoded.features[1] if worded else None,
        texts=image_text.encode_texts(prompts) if worded else None,
        truncated=cut_prompts(prompts or [], image_text) if worded else None,
        prompts=prompts,
        labels=None if images.labels is None else images.labels[rows],
        patients=None if images.patients is None else [images.patients[i] for i in rows],
    )


def cut_prompts(prompts: list[str], image_text: encoders.ImageTextEncoder) -> str | None:
    """A sentence when prompts are longer than the text tower reads."""
    cut = image_text.count_truncated(prompts)
    return (
        f"{cut} of {len(prompts)} prompts are longer than the text tower reads ({image_text.max_tokens} tokens)"
        if cut
        else None
    )


def label_groups(synthetic: np.ndarray | None, real: np.ndarray | None) -> Groups:
    """For each label that is present somewhere on both sides, the rows where it is stated present."""
    if synthetic is None or real is None:
        return {}
    masks = {label: (synthetic[:, i] == 1, real[:, i] == 1) for i, label in enumerate(records.LABELS)}
    return {label: pair for label, pair in masks.items() if pair[0].any() or pair[1].any()}


def split_real(real: Side, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint parts of the real set, no patient in both: the first, of about `count` films and at most half,
    stands in for the synthetic set."""
    rng = np.random.default_rng(seed)
    owners = (
        np.arange(len(real.features)) if real.patients is None else np.unique(real.patients, return_inverse=True)[1]
    )
    order = rng.permutation(owners.max() + 1)
    films_before = np.cumsum(np.bincount(owners)[order])
    half = min(count, len(owners) // 2)
    chosen = order[: max(1, int(np.searchsorted(films_before, half, side="right")))]
    first = np.isin(owners, chosen)
    return np.flatnonzero(first), np.flatnonzero(~first)


def halves(
    labels: np.ndarray | None, first: np.ndarray, second: np.ndarray, scored: Groups, request: Request
) -> Groups:
    """The scored labels on the two real parts, where both have enough films."""
    if labels is None:
        return {}
    pairs = {name: tuple(labels[rows, records.LABELS.index(name)] == 1 for rows in (first, second)) for name in scored}
    return {name: (one, two) for name, (one, two) in pairs.items() if min(one.sum(), two.sum()) >= request.min_rows}


def run_metrics(
    predictions: np.ndarray, references: np.ndarray, groups: Groups, request: Request, patients: Patients = None
) -> dict[str, Any]:
    """fid, kid and prdc of two feature sets by the metric modules, merged: flat values, `labels`, `warnings`.

    `patients` are those of the references, the unit of every interval. That of the FID is a jackknife, so it is made
    for the whole set alone.
    """
    merged: dict[str, Any] = {"labels": {label: {} for label in groups}, "warnings": []}
    common = {"predictions": predictions, "references": references, "seed": request.seed}
    common |= {"patients": (None, patients)} if patients is not None else {}
    level = request.confidence_level
    merge(merged, synthchex.load("fid").compute(**common, groups=groups or None))
    merge(merged, synthchex.load("fid").compute(**common, confidence_level=level))
    merge(merged, synthchex.load("kid").compute(**common, groups=groups or None, confidence_level=level))
    prdc = {"nearest_k": request.nearest_k, "confidence_level": level}
    merge(merged, synthchex.load("prdc").compute(**common, groups=groups or None, **prdc))
    return merged


def align(side: Side, groups: Groups, request: Request) -> dict[str, Any]:
    """Image-text agreement of one set by the alignment module; empty where there are no prompts or no network for
    them.
    """
    if side.vectors is None or side.texts is None:
        return {}
    merged: dict[str, Any] = {"labels": {label: {} for label in groups}, "warnings": []}
    found = synthchex.load("alignment").compute(
        predictions=side.vectors,
        references=side.texts,
        groups={label: pair[0] for label, pair in groups.items()} or None,
        seed=request.seed,
        confidence_level=request.confidence_level,
        **({"patients": (side.patients, None)} if side.patients is not None else {}),
    )
    merge(merged, found)
    merged["warnings"] += [side.truncated] if side.truncated else []
    return merged


def merge(into: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Add one module's result to those of the others."""
    into |= {key: value for key, value in found.items() if key not in ("labels", "warnings")}
    into["warnings"] += found.get("warnings", [])
    for label, values in (found.get("labels") or {}).items():
        into["labels"][label] |= values


def pair_cosines(vectors: np.ndarray, texts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each film with its own prompt, and with another film's prompt at random; both (N,)."""
    shift = int(np.random.default_rng(seed).integers(1, max(2, len(texts))))
    return (vectors * texts).sum(1), (vectors * np.roll(texts, shift, axis=0)).sum(1)


def interval(values: Mapping[str, Any], key: str) -> list[float] | None:
    """Ends of a value's interval where the module gives them."""
    ends = [values.get(f"{key}_low"), values.get(f"{key}_high")]
    return None if None in ends else [float(end) for end in ends]  # type: ignore[arg-type]


def overall_rows(
    scores: dict[str, Any], floor: dict[str, Any], a: Side, b: Side, sizes: tuple[int, int]
) -> list[dict[str, Any]]:
    """One row per metric, with the value that two parts of the real set have between them."""
    return [
        {
            "metric": key,
            "label": name,
            "value": scores[key],
            "interval": interval(scores, key),
            "floor": floor.get(key),
            "better": better,
            "n_real": len(a.features),
            "n_synthetic": len(b.features),
            "note": f"real vs real: {sizes[0]} against {sizes[1]} films",
        }
        for key, (name, better) in ROWS.items()
        if key in scores
    ]


def alignment_rows(scores: dict[str, Any], ceiling: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Rows of image-text agreement; `floor` is what real films reach with their own reports."""
    return [
        {
            "metric": key,
            "label": name,
            "value": scores[key],
            "interval": interval(scores, key),
            "floor": ceiling.get(key),
            "better": better,
            "n_real": 0 if not ceiling else ceiling.get("n_predictions"),
            "n_synthetic": count,
            "note": "real: films with their own reports",
        }
        for key, (name, better) in ALIGNMENT_ROWS.items()
        if key in scores
    ]


def label_rows(
    groups: Groups, scores: dict[str, Any], floor: dict[str, Any], alignment: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row per label; without numbers where there are too few films."""
    rows = []
    for label, (synthetic, real) in groups.items():
        row = {
            "label": label,
            "n_real": int(real.sum()),
            "n_synthetic": int(synthetic.sum()),
            "state": "insufficient n",
        }
        values = scores["labels"].get(label)
        if values:
            row |= {"state": "ok", **{key: values.get(key) for key in ROWS}}
            row |= {"kid_interval": interval(values, "kid"), "kid_floor": floor["labels"].get(label, {}).get("kid")}
            row["alignment"] = alignment.get("labels", {}).get(label, {}).get("alignment")
        rows.append(row)
    return rows


def describe(side: Side) -> dict[str, Any]:
    """Source and counts of one side."""
    return {
        "source": side.images.source,
        "n": len(side.features),
        "skipped": side.encoded.skipped,
        "notes": side.encoded.notes,
    }


def notes(scores: dict[str, Any], alignment: dict[str, Any], a: Side, b: Side) -> list[str]:
    """What a reader should know before believing the numbers."""
    found = [*scores["warnings"], *alignment.get("warnings", [])]
    shared = len(set(a.encoded.hashes) & set(b.encoded.hashes))
    if shared:
        found.append(f"{shared} films stand byte for byte in both sets: the synthetic set holds copies of real films")
    for name, side in (("real", a), ("synthetic", b)):
        repeats = len(side.encoded.hashes) - len(set(side.encoded.hashes))
        if repeats:
            found.append(f"{repeats} films of the {name} set are repeats of others in it")
        if side.encoded.skipped:
            found.append(
                f"{sum(side.encoded.skipped.values())} films of the "
                f"{name} set could not be read: {side.encoded.skipped}"
            )
    return list(dict.fromkeys(found))


def methods(request: Request, encoder: str, sizes: tuple[int, int]) -> str:
    """How the numbers were made, as a paragraph for a paper."""
    name = Path(encoder).name if Path(encoder).is_dir() else encoder
    text = (
        f"Features were taken with {request.encoder} ({name}). FID is the "
        "Fréchet distance in float64; KID is the unbiased squared maximum "
        "mean discrepancy with a cubic polynomial kernel over all pairs "
        "of films; precision, recall, density and coverage follow Naeem "
        f"et al. (2020) with k = {request.nearest_k}. Each value stands "
        "beside the same metric between two disjoint parts of the real set "
        f"({sizes[0]} and {sizes[1]} films, no patient in both where "
        f"patients are known, seed {request.seed}). Labels with fewer than "
        f"{request.min_rows} films on either side are not scored. "
        f"Intervals are at {request.confidence_level:.0%}: of the FID by a "
        "delete-a-group jackknife (they do not hold its bias), of the "
        "KID from its U-statistic, of the shares from the films that "
        f"reach them."
    )
    if request.image_text:
        text += f" Alignment is the cosine of each film and its prompt under {request.image_text}."
    return text
