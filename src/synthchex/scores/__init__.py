"""Scores of a synthetic set against a real one, overall and per label, beside the real-vs-real floor. Writes no file.

Every film is decoded once and passed once through each network; every score, every label and the floor are selections
of the stored features, computed by the metric modules that `evaluate.load()` gives anyone. The result is documented in
`docs/results.md`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data import records, sources
from synthchex.models import samplers
from synthchex.scores import measures, pixels, rows, words
from synthchex.scores.faithfulness import faithfulness
from synthchex.scores.groups import members
from synthchex.scores.pathology import Pathology, pathology
from synthchex.scores.request import Request
from synthchex.scores.sets import Networks, Side, check_reading, encode, halves, load_networks

__all__ = ["Networks", "Request", "Scored", "Side", "load_networks", "score"]
SCHEMA = 2


class Scored(NamedTuple):
    """Results as they go into results.json, and what the pictures need: both sides, cosines with own and shuffled
    prompts.
    """

    results: dict[str, Any]
    real: Side
    synthetic: Side
    matched: np.ndarray | None
    shuffled: np.ndarray | None


class Measured(NamedTuple):
    """The metrics of one encoder, or of alignment: between the sets, between the parts of the real set, and between
    synthetic and real films at the size of those parts.
    """

    scores: dict[str, Any]
    floor: dict[str, Any]
    matched: dict[str, Any]


def score(
    real: sources.ImageSet,
    synthetic: sources.ImageSet,
    request: Request,
    kept: Path | None,
    *,
    networks: Networks | None = None,
    quiet: bool = False,
) -> Scored:
    """All scores of a synthetic set against a real one.

    Args:
        real, synthetic: the sets; counts may differ.
        request: what to measure with what.
        kept: folder of the feature store, None for none.
        networks: those of the request, where they are loaded already.

    Raises:
        ValueError: a set without readable films, or too few of them for the metrics.
    """
    networks = networks or load_networks(request)
    a, b = (encode(images, networks, kept, request, quiet) for images in (real, synthetic))
    doubts = check_reading(a, b)
    groups = label_groups(b, a, request)
    scored = {label: masks for label, masks in groups.items() if min(m.sum() for m in masks) >= request.min_rows}
    parts = halves(a.patients, len(a), len(b), request.seed)
    found = {name: by_encoder(name, networks, a, b, scored, parts, request) for name in networks.images}
    beside = others(networks, a, b, scored, parts, request, kept)
    aligned, ceiling = align(b, scored, request), align(a, {}, request)
    tested = pathologies(a, b, request)
    results = {
        "schema_version": SCHEMA,
        "domain": request.domain,
        "protocol": request.protocol,
        "sets": {"real": a.describe(request.source_policy), "synthetic": b.describe("synthetic")},
        "encoders": rows.encoders(networks, a),
        "overall": [row for name, one in found.items() for row in rows.overall(name, one, a, b, parts)]
        + [row for name, one in beside.items() for row in rows.overall(name, one, a, b, parts)]
        + rows.alignment(request.image_text, aligned, ceiling, len(b)),
        "labels": rows.labels(groups, found, beside, aligned, tested),
        "label_policy": rows.policy(request),
        "faithfulness": faithful(networks, a, b, request),
        "not_measured": words.not_measured(request, networks, b),
        "warnings": doubts + words.warnings([*found.values(), *beside.values()], aligned, a, b),
        "methods": words.methods(request, networks, parts),
        "citations": words.citations(request, networks),
        "versions": json.loads(samplers.versions()),
        "config": asdict(request),
        "hashes": {"real": records.fingerprint(a.encoded.hashes), "synthetic": records.fingerprint(b.encoded.hashes)},
    }
    if b.vectors is None or b.texts is None:
        return Scored(results, a, b, None, None)
    return Scored(results, a, b, *pair_cosines(b.vectors, b.texts, request.seed))


def label_groups(synthetic: Side, real: Side, request: Request) -> measures.Groups:
    """For each label that is present somewhere, the rows of both sides where it is."""
    if synthetic.labels is None or real.labels is None:
        return {}
    left, right = (members(side.labels, request.uncertain) for side in (synthetic, real))  # type: ignore[arg-type]
    pairs = {label: (left[label].present, right[label].present) for label in records.LABELS}
    return {label: pair for label, pair in pairs.items() if pair[0].any() or pair[1].any()}


def by_encoder(
    name: str,
    networks: Networks,
    a: Side,
    b: Side,
    scored: measures.Groups,
    parts: tuple[np.ndarray, np.ndarray],
    request: Request,
) -> Measured:
    """Everything that is measured on the features of one image encoder."""
    fake, real = b.features[name], a.features[name]
    scores = measures.distances(fake, real, scored, request, a.patients, whole=True)
    logits_of = getattr(networks.images[name], "logits_of", None)
    if logits_of is not None and "inception_score" in request.metrics:
        logits = {"predictions": logits_of(fake), "references": logits_of(real)}
        measures.merge(scores, measures.run("inception_score", **logits, confidence_level=request.confidence_level))
    first, second = (real[part] for part in parts)
    drawn = np.sort(np.random.default_rng(request.seed).permutation(len(fake))[: len(first)])
    halved = _halved(a, scored, parts, request)
    floor = measures.distances(first, second, halved, request, None, whole=False)
    matched = measures.distances(fake[drawn], second, {}, request, None, whole=False)
    return Measured(scores, floor | {"inception_score": scores.get("inception_score_references")}, matched)


def others(
    networks: Networks,
    a: Side,
    b: Side,
    scored: measures.Groups,
    parts: tuple[np.ndarray, np.ndarray],
    request: Request,
    kept: Path | None,
) -> dict[str, Measured]:
    """CMMD on the vectors of the image-text network, and what is measured on pixels: {network: metrics}."""
    found = {}
    if a.vectors is not None and b.vectors is not None and "cmmd" in request.metrics:
        first, second = (a.vectors[part] for part in parts)
        drawn = np.sort(np.random.default_rng(request.seed).permutation(len(b))[: len(first)])
        halved = _halved(a, scored, parts, request)
        found[str(request.image_text)] = Measured(
            measures.cmmd(b.vectors, a.vectors, scored, request, a.patients),
            measures.cmmd(first, second, halved, request, None),
            measures.cmmd(b.vectors[drawn], second, {}, request, None),
        )
    if "ms_ssim" in request.metrics:
        pairs = pixels.ms_ssim(b, a, scored, request, kept)
        found["pixels"] = Measured(pairs, {"ms_ssim": pairs.get("ms_ssim_references")}, {})
    if "frd" in request.metrics:
        found["radiomics"] = Measured(pixels.frd(b, a), {}, {})
    return found


def align(side: Side, groups: measures.Groups, request: Request) -> dict[str, Any]:
    """Image-text agreement of one set; empty where there are no prompts or no network for them."""
    if side.vectors is None or side.texts is None or "alignment" not in request.metrics:
        return {}
    masks = {label: pair[0] for label, pair in groups.items()}
    merged = measures.alignment(side.vectors, side.texts, masks, request, side.patients)
    merged["warnings"] += [side.truncated] if side.truncated else []
    return merged


def pathologies(a: Side, b: Side, request: Request) -> dict[str, dict[str, Any]]:
    """Per label and encoder, what makes the numbers of labels comparable; {} without labels."""
    if a.labels is None or b.labels is None:
        return {}
    options = Pathology(
        uncertain=request.uncertain,
        min_rows=request.min_rows,
        draws=request.draws,
        permutations=request.permutations,
        adjustment=request.adjustment,
        alpha=request.alpha,
        match_size=request.match_size,
        confidence_level=request.confidence_level,
        seed=request.seed,
    )
    return {
        name: pathology(b.features[name], a.features[name], b.labels, a.labels, options, real_clusters=a.patients)
        for name in a.features
    }


def faithful(networks: Networks, a: Side, b: Side, request: Request) -> list[dict[str, Any]]:
    """Whether films show what their prompts say, by each classifier; [] where the synthetic films have no labels."""
    if b.labels is None:
        return []
    return [
        faithfulness(
            classifier,
            b.probabilities[name],
            a.probabilities[name],
            b.labels,
            a.labels,
            real_clusters=a.patients,
            uncertain=request.uncertain,
            min_rows=request.min_rows,
            draws=request.draws,
            confidence_level=request.confidence_level,
            seed=request.seed,
        )
        for name, classifier in networks.classifiers.items()
    ]


def pair_cosines(vectors: np.ndarray, texts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each film with its own prompt, and with another film's prompt at random; both (N,)."""
    shift = int(np.random.default_rng(seed).integers(1, max(2, len(texts))))
    return (vectors * texts).sum(1), (vectors * np.roll(texts, shift, axis=0)).sum(1)


def _halved(
    a: Side, scored: measures.Groups, parts: tuple[np.ndarray, np.ndarray], request: Request
) -> measures.Groups:
    """The scored labels on the two real parts, where both have enough films."""
    pairs = {label: (masks[1][parts[0]], masks[1][parts[1]]) for label, masks in scored.items()}
    return {label: pair for label, pair in pairs.items() if min(mask.sum() for mask in pair) >= request.min_rows}
