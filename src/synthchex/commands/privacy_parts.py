"""The parts of `synthchex privacy` beside nearest neighbours, from its options; and what of all that is flagged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import synthchex
from synthchex import gate
from synthchex.commands import publish
from synthchex.data import recipes, sources
from synthchex.data.sources import ImageSet
from synthchex.gate import calibration, copies
from synthchex.models import samplers, siamese, store
from synthchex.privacy import benchmark, extraction, membership, reidentification, selftest
from synthchex.privacy.neighbours import Request, Space
from synthchex.privacy.rates import counted

COSINE = "cosine"


def reading(options: Any) -> dict[str, Any]:
    """How films are read, by every part alike."""
    return {name: getattr(options, name) for name in ("batch_size", "num_workers", "quiet")}


def encode(options: Any, films: ImageSet, named: list[Any], kept: Path) -> store.Encoded:
    """Features of a set, as the options say."""
    return store.encode(films, named, kept, **reading(options))


def near_copies(options: Any, encoder: Any, real: ImageSet, synthetic: ImageSet, kept: Path) -> dict[str, Any]:
    """What the gate of `publish` calls copies, by its calibrated limits."""
    seen, looked = (copies.see(films, encoder, kept, **reading(options)) for films in (synthetic, real))
    known = copies.reference(looked, real.patients)
    trial = gate.Trial(options.false_alarms, copied=max(1, options.planted), seed=options.seed)
    measured = calibration.calibrate(real, known, encoder, trial, num_workers=options.num_workers)
    near = copies.nearness(seen, known, num_workers=options.num_workers)
    by = calibration.found(near, measured.thresholds)
    hits = calibration.any_of(by)
    return {
        "films": len(hits),
        "any": int(hits.sum()),
        "found": {finder: int(rows.sum()) for finder, rows in by.items()},
        "counted": counted(hits),
        "false_alarms": options.false_alarms,
        "false_alarms_measured": measured.false_alarms._asdict(),
        "caught": {kind: {**by["any"]._asdict(), "share": by["any"].value} for kind, by in measured.caught.items()},
    }


def planted(
    options: Any, real: ImageSet, held_out: ImageSet | None, spaces: Mapping[str, Space], request: Request
) -> dict[str, Any]:
    """The self-test, with round trips through an autoencoder where one is at hand."""
    changes, missing = publish.kinds(None, options.encoders[0], options.device)
    return selftest.selftest(
        real,
        held_out,
        spaces,
        request,
        copies=options.planted,
        changes=changes,
        not_planted=missing,
        seed=options.seed,
    )


def scorer(options: Any, encoder: Any) -> tuple[Any, reidentification.Score, str]:
    """What embeds films for re-identification, the score of two embeddings, and what both are called."""
    if options.reid == COSINE:
        return encoder, reidentification.cosine, "cosine of " + options.encoders[0]
    path = siamese.REPOSITORY if options.reid == "siamese" else options.reid
    network = siamese.load_siamese(path, device=options.device)
    return network, network.scores, f"the Siamese network {options.reid}"


def recognised(
    options: Any, encoder: Any, real: ImageSet, synthetic: ImageSet, held_out: ImageSet, kept: Path
) -> dict[str, Any]:
    """Re-identification with a threshold that real pairs set; under the protocol of CheXGenBench also its table."""
    network, score, name = scorer(options, encoder)
    seen, others, trained = (encode(options, side, [network], kept) for side in (synthetic, held_out, real))
    unseen = np.asarray(held_out.patients)[others.kept]
    # Films outside the training set, so that a score that has seen the training films does not flatter itself.
    measured = reidentification.calibrate(
        score, others.features[0], unseen, false_positives=options.false_positives, seed=options.seed
    )
    match, _ = reidentification.match(
        seen.features[0],
        others.features[0],
        trained.features[0],
        score,
        measured["threshold"],
        prompts=None if synthetic.prompts is None else [synthetic.prompts[row] for row in seen.kept],
        held_out_patients=unseen,
        train_patients=np.asarray(real.patients)[trained.kept],
        seed=options.seed,
    )
    found = {"score": name, "calibration": measured, "match": match}
    if options.protocol == "chexgenbench":
        found["benchmark"] = published(options, encoder, (network, score), real, synthetic, measured["threshold"], kept)
    return found


def published(
    options: Any,
    encoder: Any,
    scored: tuple[Any, reidentification.Score],
    real: ImageSet,
    synthetic: ImageSet,
    threshold: float,
    kept: Path,
) -> dict[str, Any]:
    """CheXGenBench's table: each prompt's real film beside the films of all its seeds; `scored` as of `scorer`.

    Raises:
        ValueError: synthetic films cannot be joined to real ones by id or prompt.
    """
    joined = sources.join(real, synthetic)
    if joined is None:
        raise ValueError("--protocol chexgenbench needs synthetic films with the ids or prompts of real ones")
    rows, groups = np.unique(joined.pairs[:, 0], return_inverse=True)
    theirs, ours = real.take(rows), synthetic.take(joined.pairs[:, 1])
    network, score = scored
    one, two = (encode(options, side, [network, encoder], kept) for side in (theirs, ours))
    if len(one.kept) < len(theirs) or len(two.kept) < len(ours):
        raise ValueError(f"expected readable films, got {dict(one.skipped)} and {dict(two.skipped)}; leave them out")
    return benchmark.compare_groups(
        benchmark.group_scores(score, one.features[0], two.features[0], groups),
        benchmark.latent_distances(one.features[1], two.features[1], groups),
        benchmark.pixel_distances(theirs, ours, groups, kept, num_workers=options.num_workers, quiet=options.quiet),
        groups,
        threshold,
        patients=theirs.patients,
    )


def repeated(options: Any, encoder: Any, synthetic: ImageSet, kept: Path) -> dict[str, Any] | None:
    """Cliques of films of one prompt; None where no prompt has so many films, or all films are of one prompt."""
    if synthetic.prompts is None:
        return None
    tiles = extraction.Tiles()
    seen = encode(options, synthetic, [encoder, tiles], kept)
    prompts = [synthetic.prompts[row] for row in seen.kept]
    counts = Counter(prompts)
    if len(counts) < 2 or max(counts.values()) < options.clique_size:
        return None
    spaces = [extraction.Space(options.encoders[0], seen.features[0]), tiles.space(seen.features[1])]
    labels = None if synthetic.labels is None else synthetic.labels[seen.kept]
    least = extraction.smallest_quantile(prompts, labels, seed=options.seed)
    if labels is not None and least > extraction.QUANTILE:  # too few prompts have the same ones; see `same_labels`
        labels, least = None, extraction.smallest_quantile(prompts, None, seed=options.seed)
    return extraction.find_twins(
        spaces,
        prompts,
        labels,
        size=options.clique_size,
        quantile=max(extraction.QUANTILE, least),
        seed=options.seed,
        quiet=options.quiet,
    )


def generator(options: Any) -> samplers.Recipe:
    """The recipe that `--membership` names."""
    return recipes.read(recipes.find(options.membership, synthchex.room("generation") / "configs"), samplers.Recipe)


def members(options: Any, real: ImageSet, held_out: ImageSet, kept: Path) -> dict[str, Any]:
    """Membership by denoising errors."""
    return membership.membership(
        generator(options),
        real,
        held_out,
        kept,
        device=options.device,
        **reading(options),
    )


def flagged(found: Mapping[str, Any]) -> list[str]:
    """What speaks against the set, in words; each test at 5 %, those of several spaces together (Bonferroni)."""
    told, count = list[str](), len(found["neighbours"])
    near = [row["space"] for row in found["neighbours"] if row["memorization_p_value"] * count < selftest.ALPHA]
    told += [f"more films near training films than the null allows, in {', '.join(near)}"] if near else []
    sure = [row["space"] for row in found["neighbours"] if row["share_below_certain_p_value"] * count < selftest.ALPHA]
    told += [f"films too near for any film of so many new patients, in {', '.join(sure)}"] if sure else []
    if found["copies"] and _more(found["copies"]["counted"], found["copies"]["false_alarms"]):
        told.append("more films that the gate calls copies than its false alarms")
    if found["reidentification"] and found["reidentification"]["match"]["gap"]["low"] > 0:
        told.append("training patients are recognised oftener than by chance")
    if found["membership"] and found["membership"]["auroc"]["low"] > 0.5:
        told.append("denoising errors tell training films from others")
    return told


def _more(counts: Mapping[str, Any], chance: float) -> bool:
    from scipy.stats import binom

    return bool(binom.sf(counts["hits"] - 1, counts["films"], chance) < selftest.ALPHA)
