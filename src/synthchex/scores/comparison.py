"""Which of several synthetic sets is better: evaluations of them against one real set, film by film. Writes no file.

Ranks respect the tests: a model's rank is one more than the number of models that are significantly better, so models
that cannot be told apart share a rank.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.maths import differences, neighbors
from synthchex.maths.differences import Difference
from synthchex.maths.resampling import Adjustment, adjusted
from synthchex.models import store

SCHEMA = 1
SHARED = 0.8  # of the films of every model must stand for prompts that all models drew
BETTER = {"kid": -1, "fid": -1, "precision": 1, "density": 1, "recall": 1, "coverage": 1, "alignment": 1}


@dataclass(frozen=True)
class Options:
    """How models are compared."""

    permutations: int = 999
    adjustment: Adjustment = "holm"
    alpha: float = 0.05
    confidence_level: float = 0.95
    seed: int = 0


class Model(NamedTuple):
    """One evaluation: results.json, and per synthetic film prompts and cosines; `features` {encoder: (N, D)}."""

    name: str
    results: dict[str, Any]
    prompts: list[str] | None
    alignment: np.ndarray | None
    features: dict[str, np.ndarray]
    real: dict[str, np.ndarray]
    patients: list[str] | None


def read(folder: Path, name: str, kept: Path | None) -> Model:
    """An evaluation as `synthchex evaluate` left it.

    Args:
        folder: its --out.
        name: what to call the model.
        kept: the feature store, where it is not in the folder.

    Raises:
        ValueError: not an evaluation, of another schema, or its features are not in the store.
    """
    import pyarrow.parquet as pq

    paths = [folder / "results.json", folder / "samples.parquet"]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"expected an evaluation in {folder}, found no {' and no '.join(missing)}; run evaluate first")
    results = json.loads(paths[0].read_text())
    if results.get("schema_version") != 2:
        raise ValueError(
            f"expected results.json of schema 2 in {folder}, got {results.get('schema_version')}; run evaluate again"
        )
    rows = pq.read_table(paths[1]).to_pydict()
    fake = np.array([one == "synthetic" for one in rows["set"]])
    hashes = np.array(rows["hash"], object)
    features, real = {}, {}
    for encoder in (one for one in results["encoders"] if one["kind"] == "image"):
        have = store.Kept(kept or folder / "features", encoder["key"])
        gone = sum(digest not in have for digest in hashes)
        if gone:
            raise ValueError(
                f"expected the {encoder['name']} features of {folder} in its store, {gone} films are not there; "
                "name the store with --feature-store, or run evaluate again"
            )
        features[encoder["name"]], real[encoder["name"]] = have.gather(hashes[fake]), have.gather(hashes[~fake])
    prompts, patients = (np.array(rows[key], object) for key in ("prompt", "patient"))
    cosines = np.array(rows["alignment"], float)[fake]
    return Model(
        name,
        results,
        None if None in prompts[fake] else prompts[fake].tolist(),
        None if np.isnan(cosines).any() else cosines,
        features,
        real,
        None if None in patients[~fake] else patients[~fake].tolist(),
    )


def compare(models: Sequence[Model], options: Options) -> dict[str, Any]:
    """Every pair of models by every metric, and the ranks.

    Args:
        models: two or more, scored against the same real films with the same encoders.
        options: of the tests.

    Returns:
        {"models", "pairing", "pairs", "leaderboard"}; differences are first less second, `better` names a model only
        where the adjusted p value is below alpha.

    Raises:
        ValueError: fewer than two models, equal names, another real set, encoders or protocol.
    """
    check(models)
    rows, pairing = common_rows(models, options.seed)
    paired = pairing["paired"]
    chosen = [_chosen(model, part) for model, part in zip(models, rows, strict=True)]
    facts = [_facts(model) for model in chosen]
    pairs = [
        {"first": models[a].name, "second": models[b].name, **test}
        for a, b in combinations(range(len(models)), 2)
        for test in _tests((chosen[a], chosen[b]), (facts[a], facts[b]), paired, options)
    ]
    for key in {(pair["metric"], pair["encoder"]) for pair in pairs}:
        same = [pair for pair in pairs if (pair["metric"], pair["encoder"]) == key]
        for pair, value in zip(same, adjusted([p["p_value"] for p in same], options.adjustment), strict=True):
            pair |= {"p_adjusted": float(value), "better": _better(pair, bool(value < options.alpha))}
    return {
        "schema_version": SCHEMA,
        "options": vars(options),
        "models": [{"name": m.name, "n_synthetic": m.results["sets"]["synthetic"]["n"]} for m in models],
        "real": models[0].results["sets"]["real"]["source"],
        "protocol": models[0].results["protocol"],
        "pairing": pairing,
        "pairs": pairs,
        "leaderboard": [_standing(model, pairs) for model in models],
    }


def check(models: Sequence[Model]) -> None:
    """Refuse models that were not measured alike.

    Raises:
        ValueError: see `compare`.
    """
    if len(models) < 2 or len({model.name for model in models}) < len(models):
        raise ValueError(f"expected two or more models of different names, got {[model.name for model in models]}")
    first = models[0]
    for other in models[1:]:
        for what, left, right in (
            ("real films", first.results["hashes"]["real"], other.results["hashes"]["real"]),
            ("protocol", first.results["protocol"], other.results["protocol"]),
            ("encoders", _keys(first), _keys(other)),
        ):
            if left != right:
                raise ValueError(
                    f"{first.name} and {other.name} were measured with different {what} ({left} and {right}); "
                    "evaluate both against the same real set with the same options"
                )


def common_rows(models: Sequence[Model], seed: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Row numbers of each model that stand for prompts of all of them, in one order; the n-th film of a prompt pairs
    with the n-th of another model. Where less than `SHARED` of some model would be left, random rows of each instead,
    as many as the smallest set has: distances depend on the count.
    """
    sizes = [len(next(iter(model.features.values()))) for model in models]
    prompts = [model.prompts for model in models if model.prompts is not None]
    if len(prompts) == len(models):
        places = [_occurrences(texts) for texts in prompts]
        keys = [key for key in places[0] if all(key in place for place in places[1:])]
        if keys and len(keys) >= SHARED * max(sizes):
            rows = [np.array([place[key] for key in keys]) for place in places]
            return rows, {"paired": True, "films": len(keys), "left_out": [size - len(keys) for size in sizes]}
    few, random = min(sizes), np.random.default_rng(seed)
    rows = [np.sort(random.permutation(size)[:few]) for size in sizes]
    return rows, {"paired": False, "films": few, "left_out": [size - few for size in sizes]}


def _occurrences(prompts: Sequence[str]) -> dict[tuple[str, int], int]:
    seen: Counter[str] = Counter()
    places = {}
    for row, prompt in enumerate(prompts):
        places[(prompt, seen[prompt])] = row
        seen[prompt] += 1
    return places


def _keys(model: Model) -> list[tuple[str, str]]:
    return [(one["name"], one["key"]) for one in model.results["encoders"] if one["kind"] != "classifier"]


def _chosen(model: Model, rows: np.ndarray) -> Model:
    return model._replace(
        prompts=None if model.prompts is None else [model.prompts[row] for row in rows],
        alignment=None if model.alignment is None else model.alignment[rows],
        features={name: np.asarray(features[rows]) for name, features in model.features.items()},
    )


def _facts(model: Model) -> dict[str, neighbors.Overlap]:
    """What precision, recall, density and coverage are means of, per encoder."""
    nearest_k = model.results["config"]["nearest_k"]
    return {
        name: neighbors.overlap(model.real[name], features, nearest_k=nearest_k)
        for name, features in model.features.items()
    }


def _tests(
    models: tuple[Model, Model],
    facts: tuple[dict[str, neighbors.Overlap], dict[str, neighbors.Overlap]],
    paired: bool,
    options: Options,
) -> list[dict[str, Any]]:
    """Every metric of a pair of models."""
    one, two = models
    prompts = _repeating(one.prompts), _repeating(two.prompts)
    shared: dict[str, Any] = {"confidence": options.confidence_level, "seed": options.seed}
    flips = shared | {"permutations": options.permutations}
    films: dict[str, Any] = {"paired": paired, "clusters": prompts}
    same: dict[str, Any] = {"paired": True, "clusters": (one.patients, one.patients)}  # facts about the same real films
    found: list[tuple[str, str | None, Difference]] = []
    for name in one.features:
        first, second, real = one.features[name], two.features[name], one.real[name]
        kid = differences.of_kernel(first, second, real, real_clusters=one.patients, **films, **flips)
        fid = differences.of_frechet(first, second, real, **films, **shared)
        found += [("kid", name, kid), ("fid", name, fid)]
        left, right = facts[0][name], facts[1][name]
        for key, (mine, other), how in (
            ("precision", (left.precise, right.precise), films),
            ("density", (left.inside_real / left.nearest_k, right.inside_real / right.nearest_k), films),
            ("recall", (left.reached, right.reached), same),
            ("coverage", (left.covered, right.covered), same),
        ):
            found.append((key, name, differences.of_means(mine, other, **how, **flips)))
    if one.alignment is not None and two.alignment is not None:
        found.append(("alignment", None, differences.of_means(one.alignment, two.alignment, **films, **flips)))
    return [
        {
            "metric": metric,
            "encoder": name,
            "difference": test.value,
            "interval": [test.low, test.high],
            "standard_error": test.standard_error,
            "p_value": test.p_value,
        }
        for metric, name, test in found
    ]


def _repeating(prompts: list[str] | None) -> list[str] | None:
    """Prompts as clusters, where some stand for several films."""
    return prompts if prompts is not None and len(set(prompts)) < len(prompts) else None


def _better(pair: dict[str, Any], significant: bool) -> str | None:
    if not significant or pair["difference"] == 0:
        return None
    first = (pair["difference"] > 0) == (BETTER[pair["metric"]] > 0)
    return str(pair["first"] if first else pair["second"])


def _standing(model: Model, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values of a model from its own evaluation, each with the rank that the tests give it."""
    metrics = []
    for row in model.results["overall"]:
        entry = {key: row[key] for key in ("metric", "label", "encoder", "value", "interval", "better")}
        about = [
            pair
            for pair in pairs
            if model.name in (pair["first"], pair["second"])
            and pair["metric"] == row["metric"]
            and pair["encoder"] in (row["encoder"], None)
        ]
        beaten = sum(pair["better"] not in (None, model.name) for pair in about)
        metrics.append(entry | {"rank": 1 + beaten if about else None})
    return {"model": model.name, "n_synthetic": model.results["sets"]["synthetic"]["n"], "metrics": metrics}
