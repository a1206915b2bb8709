"""What training on synthetic films is worth: classifiers trained on real, synthetic and both, tried on the same films.

    classification(real, synthetic, Request(encoder="phantom"), store=None)["scores"]

Patients are never on both sides of a split, thresholds never see a test film, and every number has an interval.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import sources
from synthchex.data.sources import ImageSet
from synthchex.models import encoders, samplers
from synthchex.models import store as features
from synthchex.options import Progress
from synthchex.utility import arms, comparison, runs, scoring, sets, words
from synthchex.utility.comparison import Outcome
from synthchex.utility.request import Request
from synthchex.utility.runs import Learner, Run
from synthchex.utility.sets import Films
from synthchex.utility.subgroups import subgroups

People = Mapping[str, Mapping[str, Sequence[str]]]
Study = dict[str, list[Run]]


def classification(
    real: ImageSet,
    synthetic: ImageSet,
    request: Request,
    *,
    test: ImageSet | None = None,
    external: Mapping[str, ImageSet] | None = None,
    people: People | None = None,
    store: Path | None = None,
    work: Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Train every arm with every seed, try all of them on the same films, compare.

    Args:
        real: films for training, with labels; without `test` a share of its patients is held out as the test set.
        synthetic: films with labels, or with ids or prompts that join them to real films.
        request: what to train on what.
        test: real films to test on.
        external: further test sets by name, e.g. of another hospital.
        people: columns such as sex of `real`, `test` and external sets, {set: {column: value of every row}}.
        store: folder that keeps features; None keeps none.
        work: folder that keeps finished runs; None keeps none.

    Returns:
        `utility.classification` of results.json; see docs/utility.md. `predictions` holds arrays of the films and is
        for `predictions_table`: take it out before writing JSON.

    Raises:
        ValueError: sets that share patients, films without labels, too few films to split.
    """
    given = {"real": real, **({"test": test} if test is not None else {}), **(external or {})}
    if {"real", "test", "synthetic"} & set(external or {}):
        raise ValueError(f"external sets must not be named real, test or synthetic, got {list(external or {})}")
    sets.check_patients(list(given.values()), list(given))
    joined = sources.join(real, synthetic)
    if synthetic.labels is None and joined is not None:
        synthetic = labelled(synthetic, real, joined)
    read, learner, version = reader(request, store, quiet=quiet)
    known = people or {}
    read_sets = [sets.films(name, one, read(one), request, known.get(name)) for name, one in given.items()]
    whole = sets.films("synthetic", synthetic, read(synthetic), request)
    return study(
        read_sets[0],
        whole,
        read_sets[1:],
        request,
        learner=learner,
        work=work,
        held=test is None,
        quiet=quiet,
        version=version,
    )


def labelled(synthetic: ImageSet, real: ImageSet, joined: sources.Join) -> ImageSet:
    """The synthetic films that join a real one, with its labels. Of the others nothing is known: that is not the same
    as a label that is not mentioned, which `--not-mentioned` may make negative.

    Raises:
        ValueError: none joins, or the real films have no labels.
    """
    if not joined.joined:
        raise ValueError(
            f"expected labels of {synthetic.source}, or ids or prompts of {real.source} to take them by, got "
            f"{len(synthetic)} films that join none; name the column of labels with --labels-column"
        )
    rows, notes = np.unique(joined.pairs[:, 1]), dict(synthetic.notes)
    notes |= {"label-not-joined": joined.only_synthetic} if joined.only_synthetic else {}
    return replace(sources.with_labels(synthetic, real, joined).take(rows), notes=notes)


def reader(request: Request, store: Path | None, *, quiet: bool) -> tuple[Any, Learner, str]:
    """How films are read for the learner, the learner, and the version of its network."""
    if request.backbone is not None:
        from synthchex.utility import backbone

        return backbone.reader(request, quiet=quiet)
    encoder = encoders.load_encoder(request.encoder, device=request.device)

    def read(images: ImageSet) -> tuple[np.ndarray, np.ndarray, Sequence[str], Mapping[str, int]]:
        found = features.encode(
            images,
            [encoder],
            store,
            batch_size=request.batch_size,
            num_workers=request.num_workers,
            quiet=quiet,
        )
        return found.features[0], found.kept, found.hashes, found.skipped

    return read, runs.linear_probe, encoder.key


def study(
    real: Films,
    synthetic: Films,
    tests: Sequence[Films],
    request: Request,
    *,
    learner: Learner = runs.linear_probe,
    work: Path | None = None,
    held: bool = False,
    version: str = "",
    quiet: bool = True,
) -> dict[str, Any]:
    """The same from films that are read.

    Args:
        real, synthetic: films with features (or pixels) and labels.
        tests: test sets; with `held`, a share of the real films' patients comes before them as `test`.
        learner: trains one arm.
        version: of the network behind the features, for `work`.
    """
    if held:
        real, own = sets.hold_out(real, request.test_share)
        tests = [own, *tests]
    (real, copies), (synthetic, more) = (sets.without_copies(side, tests) for side in (real, synthetic))
    told = sets.warnings(real, synthetic, tests, {"real": copies, "synthetic": more}, request)
    pairs = sources.join(real.images, synthetic.images)
    plans = arms.plans(real.groups, synthetic.groups, request, None if pairs is None else pairs.pairs)
    train = partial(runs.run, request=request, learner=learner, work=work, version=version)
    made = _train(plans, (real, synthetic), tests, request, train, quiet=quiet)
    scores, predictions = _scored(plans[0], made, synthetic, tests, request)
    return {
        "learner": words.learner(request),
        "baseline": plans[0].arms[0].name,
        "seeds": request.seeds,
        "chance": 0.5,
        "sets": [one.describe() for one in (real, synthetic, *tests)],
        "arms": [_arm(arm, plans[0]) for arm in plans[0].arms],
        "left_out": plans[0].left_out,
        "scores": scores,
        "mix": words.mix(plans[0], scores),
        "curves": {arm: [dict(run.facts)["history"] for run in one] for arm, one in made.items() if _curved(one)},
        "facts": {
            arm: [{k: v for k, v in run.facts.items() if k != "history"} for run in one] for arm, one in made.items()
        },
        "warnings": [*told, *words.warnings(request, plans[0], made, scores)],
        "methods": words.methods(request, held=held),
        "citations": words.citations(request),
        "config": asdict(request),
        "versions": json.loads(samplers.versions()),
        "predictions": predictions,
    }


def _curved(made: Sequence[Run]) -> bool:
    return all("history" in run.facts for run in made)


def _arm(arm: arms.Arm, plan: arms.Plan) -> dict[str, Any]:
    """Sizes of an arm; those of its validation films are of the first seed."""
    before = arm.before or arms.Part()
    return {
        "arm": arm.name,
        "title": words.title(arm),
        "n_real": len(arm.train.real),
        "n_synthetic": len(arm.train.synthetic) + len(before.synthetic),
        "n_validation": len(arm.validation.real) + len(arm.validation.synthetic),
        "validated_on": "real" if len(arm.validation.real) else "synthetic",
        "baseline": arm.baseline,
        "ratio": arm.ratio,
    }


def _train(
    plans: Sequence[arms.Plan],
    sides: tuple[Films, Films],
    tests: Sequence[Films],
    request: Request,
    train: Callable[..., Run],
    *,
    quiet: bool,
) -> Study:
    """Every arm with every seed."""
    found: Study = {}
    total = sum(len(plan.arms) for plan in plans)
    reverse = "trts" in request.arms and not request.preset
    with Progress("train", total, quiet=quiet, unit="runs") as progress:
        for seed, plan in enumerate(plans):
            for arm in plan.arms:
                asked = [*tests, *([sides[1]] if reverse and arm.name == "trtr" else [])]
                found.setdefault(arm.name, []).append(train(arm, seed, sides, asked))
                progress.advance(progress.done + 1)
    return found


def _scored(
    plan: arms.Plan, made: Study, synthetic: Films, tests: Sequence[Films], request: Request
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of every arm on every test set, then TRTS; and the probabilities behind them."""
    made = comparison.tuned_alike(made)
    rows: list[dict[str, Any]] = []
    baselines: dict[str, Outcome] = {}
    for test in tests:
        patients = scoring.resampled(test.groups, request.resamples, request.seed)
        told = comparison.states(test, made, request)
        outcomes: dict[str, Outcome] = {}
        for arm in plan.arms:
            ours = comparison.outcome(test, made[arm.name], told, patients, request)
            outcomes[arm.name] = ours
            base = None if arm.baseline is None else outcomes[arm.baseline]
            row = comparison.rows(arm.name, test, ours, told, base, request) | {"baseline": arm.baseline}
            row |= {"pooled": comparison.pooled(test, made[arm.name], told)}
            rows.append(row | {"subgroups": subgroups(test, made[arm.name], told, patients, request)})
        baselines[test.name] = outcomes[plan.arms[0].name]
    predictions = {
        test.name: (test, {arm: [run.tests[test.name] for run in one] for arm, one in made.items()}) for test in tests
    }
    if "trts" in request.arms and not request.preset:
        rows.append(_reversed(made["trtr"], synthetic, tests[0], baselines[tests[0].name], request))
    return rows, predictions


def _reversed(trtr: Sequence[Run], synthetic: Films, test: Films, base: Outcome, request: Request) -> dict[str, Any]:
    """TRTS: the model of TRTR on the synthetic films; less the same on the real test films, over labels in both."""
    told = comparison.states(synthetic, {"trtr": trtr}, request)
    told = {
        label: state if state != "ok" or label in base.labels else "not scored on real films"
        for label, state in told.items()
    }
    patients = scoring.resampled(synthetic.groups, request.resamples, request.seed)
    ours = comparison.outcome(synthetic, trtr, told, patients, request)
    row = comparison.rows("trts", synthetic, ours, told, None, request)
    names = [label for label, state in told.items() if state == "ok"]
    if names:
        row["macro"] |= comparison.differences(scoring.unpaired(ours.area(names), base.area(names)))
    return row | {"baseline": "trtr", "unpaired": True, "subgroups": []}
