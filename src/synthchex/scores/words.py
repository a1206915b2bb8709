"""What a reader should know before believing the numbers, how they were made, and whom to cite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import synthchex
from synthchex.scores.request import METRICS, Request
from synthchex.scores.sets import Networks, Side


def warnings(measured: Sequence[Any], aligned: dict[str, Any], a: Side, b: Side) -> list[str]:
    """Doubts of the metrics, copies of real films, repeats, and films that could not be read."""
    found = [text for one in measured for text in one.scores["warnings"]] + list(aligned.get("warnings", []))
    shared = len(set(a.encoded.hashes) & set(b.encoded.hashes))
    if shared:
        found.append(f"{shared} films stand byte for byte in both sets: the synthetic set holds copies of real films")
    if shared == len(set(b.encoded.hashes)):
        found.append("every synthetic film is in the real set: check that --synthetic is not the real set")
    for name, side in (("real", a), ("synthetic", b)):
        repeats = len(side.encoded.hashes) - len(set(side.encoded.hashes))
        if repeats:
            found.append(f"{repeats} films of the {name} set are repeats of others in it")
        if side.encoded.skipped:
            count, reasons = sum(side.encoded.skipped.values()), side.encoded.skipped
            found.append(f"{count} films of the {name} set could not be read: {reasons}")
    kinds = [set(side.encoded.notes) for side in (a, b)]
    if kinds[0] != kinds[1]:
        found.append(f"films were read differently: real {sorted(kinds[0])}, synthetic {sorted(kinds[1])}")
    return list(dict.fromkeys(found))


def not_measured(request: Request, networks: Networks, b: Side) -> dict[str, str]:
    """Metrics without a value, and what they need."""
    needs = {name: "not asked for: add it to --metrics" for name in METRICS if name not in request.metrics}
    if networks.image_text is None:
        needs |= dict.fromkeys(("alignment", "cmmd"), "needs an image-text encoder: --image-text")
    elif b.texts is None:
        needs["alignment"] = "needs prompts: the synthetic set has no prompt column"
    if not any(hasattr(network, "logits_of") for network in networks.images.values()):
        needs["inception_score"] = "needs the Inception network: --encoder inception"
    if b.labels is None:
        needs["labels"] = "need labels of the synthetic films: a labels column, or prompts that join them to real rows"
    if not networks.classifiers:
        needs["faithfulness"] = "needs a classifier: --classifier"
    return needs


def methods(request: Request, networks: Networks, parts: tuple[np.ndarray, np.ndarray]) -> str:
    """How the numbers were made, as paragraphs for a paper."""
    named = ", ".join(f"{name} ({_short(network.name)})" for name, network in networks.images.items())
    level = f"{request.confidence_level:.0%}"
    told = [
        f"Features were taken with {named}; each film was decoded and passed through each network once. FID is the "
        "Fréchet distance in float64; KID is the unbiased squared maximum mean discrepancy with a cubic polynomial "
        "kernel over all pairs of films; precision, recall, density and coverage follow Naeem et al. (2020) with "
        f"k = {request.nearest_k}. Each value stands beside the same metric between two disjoint parts of the real set "
        f"({len(parts[0])} and {len(parts[1])} films, no patient in both where patients are known, seed "
        f"{request.seed}), and beside the value of as many synthetic films against the second part. Intervals are at "
        f"{level}: of the FID by a delete-a-group jackknife (they do not hold its bias), of the KID from its "
        "U-statistic, of the shares from the films that reach them; patients are the unit where they are known.",
        f"Labels with fewer than {request.min_rows} films on either side are not scored; uncertain labels count as "
        f"{request.uncertain}. To compare labels, all are measured at one sample size ({request.draws} draws), beside "
        "two real parts of that size without a common patient. Whether synthetic and real films of a label differ is "
        f"tested with {request.permutations} permutations of the KID; p values are adjusted over the labels "
        f"({'Holm' if request.adjustment == 'holm' else 'Benjamini-Hochberg'}).",
    ]
    if request.image_text:
        told.append(
            f"Alignment is the cosine of each film and its prompt under {request.image_text}; CMMD is the squared "
            "maximum mean discrepancy of its unit image vectors with a Gaussian kernel of width 10, times 1000."
        )
    if request.classifiers:
        told.append(
            "Label faithfulness is the AUROC of a classifier's probability on synthetic films against the labels of "
            f"their prompts, beside the same classifier on the real films ({', '.join(request.classifiers)})."
        )
    if request.protocol != "default":
        told.append(f"Films were prepared as by the protocol {request.protocol}, for comparison with its tables.")
    return "\n\n".join(told)


def citations(request: Request, networks: Networks) -> list[str]:
    """BibTeX of the metrics that were measured, from their modules."""
    wanted = [name for name in request.metrics if networks.image_text is not None or name not in ("alignment", "cmmd")]
    return [synthchex.load(name).citation.strip() for name in wanted]


def _short(name: str) -> str:
    return Path(name).name if Path(name).is_dir() else name
