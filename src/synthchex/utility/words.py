"""What a study says in words: titles of arms, methods, warnings, citations; and the mix curve as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from synthchex.models import encoders
from synthchex.utility.arms import Arm, Plan
from synthchex.utility.request import Request
from synthchex.utility.runs import Run

TITLES = {
    "trtr": "TRTR: train real, test real",
    "trtr-matched": "TRTR at the size of TSTR",
    "tstr": "TSTR: train synthetic, test real",
    "trts": "TRTS: train real, test synthetic",
    "pretrain": "Synthetic first, then real",
    "all_original": "all_original: real alone",
    "all_synthetic": "all_synthetic: synthetic alone",
    "mixed": "mixed: half of the real replaced",
    "augmented": "augmented: real and synthetic, 1:1",
}


def title(arm: Arm) -> str:
    """What stands beside an arm in tables and plots."""
    return TITLES.get(arm.name) or f"Real + {arm.ratio:g} x synthetic"


def learner(request: Request) -> dict[str, Any]:
    """What was trained."""
    if request.backbone is not None:
        return {"kind": "fine-tuned backbone", "name": request.backbone, **asdict(request.training)}
    named = encoders.ENCODERS.get(request.encoder.partition(":")[0])
    seen = named.seen if named is not None else "unknown"
    return {"kind": "linear probe", "name": request.encoder, "seen": seen, "penalties": list(request.penalties)}


def mix(plan: Plan, scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mix curve on every test set: real films alone first, then more and more synthetic films beside them."""
    ratios = {arm.name: arm.ratio for arm in plan.arms if arm.ratio is not None}
    if len(ratios) < 2:
        return []
    keys = ("auroc", "auroc_interval", "auroc_seeds", "difference", "difference_interval")
    found = [
        {"test": row["test"], "arm": row["arm"], "ratio": ratios[row["arm"]]}
        | {key: row["macro"].get(key) for key in keys}
        for row in scores
        if row["arm"] in ratios
    ]
    return sorted(found, key=lambda row: (row["test"], row["ratio"]))


def warnings(
    request: Request, plan: Plan, made: Mapping[str, Sequence[Run]], scores: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What is wrong with the numbers, or limits them."""
    told = [f"{name} was left out: {reason}." for name, reason in plan.left_out.items()]
    if request.seeds < 3:
        told.append(
            f"{request.seeds} seed{'s' if request.seeds > 1 else ''}: 3 or more are needed to know how far training "
            "varies."
        )
    ended = [
        f"{run.arm}, seed {run.seed}" for one in made.values() for run in one if run.facts.get("converged") is False
    ]
    if ended:
        told.append(f"Fits that did not converge: {'; '.join(ended)}.")
    few = {row["test"]: row["macro"]["labels"] for row in scores}
    told += [
        f"{test}: {count} of 14 labels could be scored; see the states of the labels, --min-rows and --not-mentioned."
        for test, count in few.items()
        if count < 14
    ]
    return told


def methods(request: Request, *, held: bool) -> list[str]:
    """Text for a paper."""
    share = f"a share of {request.test_share:g} of the patients was held out as the test set" if held else ""
    share = share or "the test set was given"
    validation = (
        f"Real films were split by patient: {share}; in each of {request.seeds} seeds another share of "
        f"{request.validation_share:g} of the remaining patients was the validation set. Synthetic films were split "
        "by prompt in the same way, for arms that train on synthetic films alone; all other arms were validated on "
        "real films. The test set is the same for all arms and seeds."
    )
    return [_learning(request), validation, _policies(request), _intervals(request)]


def _learning(request: Request) -> str:
    if request.backbone is None:
        return (
            f"A linear probe was trained on frozen features ({request.encoder}): multi-label logistic regression, "
            "features standardised by the training films of the arm, L2 penalty of each label chosen by the loss on "
            "validation films. For the arm with pretraining the penalty pulls to the weights found on synthetic films."
        )
    how = request.training
    return (
        f"{request.backbone} was fine-tuned with a new head of 14 outputs: AdamW, learning rate {how.learning_rate:g} "
        f"with warm-up and cosine decay, weight decay {how.weight_decay:g}, batches of {how.train_batch_size}, at most "
        f"{how.num_train_epochs} epochs, stopped after {how.patience} without a lower validation loss. Films were "
        f"turned by at most {how.rotation:g} degrees, moved by at most {100 * how.translation:g} % and exposed "
        "differently; never mirrored."
    )


def _policies(request: Request) -> str:
    policies = f"Uncertain labels: {request.uncertain}; labels that are not mentioned: {request.not_mentioned}"
    return (
        f"{policies} (ignore: left out of loss and scores). A label was scored where the test set has at least "
        f"{request.min_rows} films with it and without it and every arm could learn it; means are over these labels."
    )


def _intervals(request: Request) -> str:
    return (
        f"Intervals are {100 * request.confidence_level:g} % and take patients as independent, not films: DeLong's for "
        f"AUROC, a bootstrap of {request.resamples} draws for the rest. They say how scores vary with the test films; "
        "the range over seeds says how they vary with training. Differences are paired over test films and seeds, and "
        "their interval holds both kinds of variation; that of TRTS compares other films and holds the first kind "
        "alone; p values are adjusted over labels by Holm. Thresholds of F1, precision and recall have the highest F1 "
        "on validation films."
    )


def citations(request: Request) -> list[str]:
    """BibTeX of what was used."""
    found = [
        "@article{delong1988comparing,\n  title = {Comparing the areas under two or more correlated receiver operating "
        "characteristic curves: a nonparametric approach},\n  author = {DeLong, Elizabeth R. and DeLong, David M. and "
        "Clarke-Pearson, Daniel L.},\n  journal = {Biometrics},\n  volume = {44},\n  pages = {837--845},\n  "
        "year = {1988}\n}",
        "@article{esteban2017real,\n  title = {Real-valued (Medical) Time Series Generation with Recurrent Conditional "
        "{GANs}},\n  author = {Esteban, Crist{\\'o}bal and Hyland, Stephanie L. and R{\\\"a}tsch, Gunnar},\n  "
        "journal = {arXiv:1706.02633},\n  year = {2017}\n}",
    ]
    if request.preset == "chexgenbench":
        found.append("@article{chexgenbench2025,\n  title = {{CheXGenBench}},\n  journal = {arXiv:2505.10496},\n  "
                     "year = {2025}\n}")  # fmt: skip
    return found
