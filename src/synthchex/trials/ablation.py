"""Does filtering help? What is kept beside random subsets of the same size, and beside what is dropped.

Every score depends on the number of films, so a filtered set always looks different from the whole one: only subsets of
one size are compared, against the same real films. Knows features, no films.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from synthchex.data import records
from synthchex.data.training import MultiHot
from synthchex.maths import frechet, kernel, moments, neighbors, ranking, vendi
from synthchex.trials.findings import share
from synthchex.utility import probe
from synthchex.utility.request import Request

LEAST = 30
NEAREST_K = 5
LOWER = frozenset({"kid", "fid"})
METRICS = ("kid", "fid", "precision", "recall", "density", "coverage", "vendi")


def ablate(
    real: np.ndarray,
    fake: np.ndarray,
    kept: np.ndarray,
    *,
    draws: int,
    seed: int,
    per_film: Mapping[str, np.ndarray] | None = None,
    per_subset: Mapping[str, Callable[[np.ndarray], float]] | None = None,
) -> dict[str, Any]:
    """Scores of the kept films, of random subsets of as many, and of as many kept and dropped ones.

    Args:
        real: features of real films, (N, D).
        fake: features of all films that were judged, (M, D).
        kept: bool (M,).
        draws: random subsets.
        seed: of the subsets.
        per_film: {name: (M,)} facts of single films whose mean is compared too, higher is better.
        per_subset: {name: function of rows of `fake`}, higher is better; see `tstr`.

    Returns:
        `metrics`: of each, `kept`, `random` (mean), `interval` (2.5th and 97.5th percentile of random subsets), `p`
        (two-sided, that the choice is as good as random) and `matched`: means over subsets of kept and of dropped films
        of one size, None where too few were dropped.

    Raises:
        ValueError: fewer than LEAST films kept, none dropped, or a subset without a film that a fact is known of.
    """
    count, dropped = int(kept.sum()), int((~kept).sum())
    if count < LEAST or dropped == 0:
        raise ValueError(
            f"expected at least {LEAST} films kept and one dropped, got {count} and {dropped}; nothing to compare"
        )
    rng = np.random.default_rng(seed)
    rows = {"kept": [np.flatnonzero(kept)], "random": [rng.permutation(len(fake))[:count] for _ in range(draws)]}
    few = min(count, dropped)
    if few >= LEAST:
        repeats = max(1, draws // 5)
        rows["kept, matched"] = [rng.permutation(np.flatnonzero(kept))[:few] for _ in range(repeats)]
        rows["dropped, matched"] = [rng.permutation(np.flatnonzero(~kept))[:few] for _ in range(repeats)]
    found = {name: _scores(real, fake, chosen, per_film or {}, per_subset or {}) for name, chosen in rows.items()}
    names = [*METRICS, *(per_film or {}), *(per_subset or {})]
    return {
        "kept": count,
        "of": len(fake),
        "matched": few if few >= LEAST else None,
        "draws": draws,
        "metrics": {name: _row(found, name) for name in names},
    }


def _scores(
    real: np.ndarray,
    fake: np.ndarray,
    chosen: Sequence[np.ndarray],
    per_film: Mapping[str, np.ndarray],
    per_subset: Mapping[str, Callable[[np.ndarray], float]],
) -> dict[str, np.ndarray]:
    """Every metric of every subset, (subsets,)."""
    columns = np.zeros((len(fake), len(chosen)), bool)
    for place, rows in enumerate(chosen):
        columns[rows, place] = True
    everyone = np.ones((len(real), len(chosen)), bool)
    whole = kernel.compare(real, fake, (everyone, columns))
    found: dict[str, list[float]] = {"kid": [one.value for one in whole.selections]}
    known = moments.moments(real)
    for rows in chosen:
        part = fake[rows]
        near = neighbors.overlap(real, part, nearest_k=NEAREST_K)
        facts = {
            "fid": frechet.frechet_distance(known, part),
            "precision": near.precision,
            "recall": near.recall,
            "density": near.density,
            "coverage": near.coverage,
            "vendi": vendi.vendi_score(part),
            **{name: _mean(values[rows]) for name, values in per_film.items()},
            **{name: measure(rows) for name, measure in per_subset.items()},
        }
        for name, value in facts.items():
            found.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in found.items()}


def _mean(values: np.ndarray) -> float:
    """Mean of what is known, NaN where nothing is."""
    usable = values[~np.isnan(values)]
    return float(usable.mean()) if len(usable) else float("nan")


def _row(found: Mapping[str, Mapping[str, np.ndarray]], name: str) -> dict[str, Any]:
    kept, random = float(found["kept"][name][0]), found["random"][name]
    if not all(np.isfinite(values[name]).all() for values in found.values()):
        raise ValueError(f"expected {name} of films of every subset, got a subset where none has it; leave it out")
    away = np.abs(random - random.mean()) >= abs(kept - random.mean())
    low, high = np.quantile(random, [0.025, 0.975])
    matched = (
        {side: float(found[f"{side}, matched"][name].mean()) for side in ("kept", "dropped")}
        if ("kept, matched" in found)
        else None
    )
    return {
        "kept": kept,
        "random": float(random.mean()),
        "interval": [float(low), float(high)],
        "p": float((1 + away.sum()) / (1 + len(random))),
        "better": "lower" if name in LOWER else "higher",
        "matched": matched,
    }


def tstr(
    fake: np.ndarray, fake_labels: np.ndarray, real: np.ndarray, real_labels: np.ndarray, *, seed: int
) -> Callable[[np.ndarray], float]:
    """What classifiers trained on some of the synthetic films are worth on real ones: mean AUROC over labels.

    Args:
        fake, real: features, (M, D) and (N, D).
        fake_labels, real_labels: states, (M, 14) and (N, 14), as in `scores.groups.members`; only 1 and 0 count.
        seed: of the films that choose the penalty of the linear probe, a fifth.

    Returns:
        A function of rows of `fake`; 0.5 is chance, higher is better. Always over the same labels: one that the rows do
        not have both ways counts as chance.

    Raises:
        ValueError: no label that films of both sets have, and that other films of both have not.
    """
    ours, theirs = known(fake_labels), known(real_labels)
    learnt = np.flatnonzero(probe.trainable(ours) & probe.trainable(theirs))
    if not len(learnt):
        raise ValueError(
            "TSTR needs a label that some films have (1) and others have not (0), in both sets; got none: give sets "
            "with such labels, or leave --utility out"
        )

    def measure(rows: np.ndarray) -> float:
        order = np.random.default_rng(seed).permutation(rows)
        held, train = np.split(order, [len(order) // 5])
        sides = [(fake[part], MultiHot(ours.values[part], ours.mask[part])) for part in (train, held)]
        predicted = probe.train(*sides[0], sides[1], Request().penalties)(real)
        present, absent = ((theirs.values == value) & theirs.mask for value in (1, 0))
        areas = [ranking.area(predicted[:, one], present[:, one], absent[:, one]) for one in learnt]
        return float(np.mean(areas))

    return measure


def known(states: np.ndarray) -> MultiHot:
    """States of labels as values and mask: uncertain and not mentioned are left out."""
    mask = np.isin(states, (0, 1))
    return MultiHot(np.where(mask, states, 0).astype(np.float32), mask)


def keep_rates(labels: np.ndarray | None, kept: np.ndarray) -> dict[str, Any]:
    """Share of the films of each label that is kept: a filter that drops what is rare biases the set."""
    if labels is None:
        return {}
    positive = {label: labels[:, column] == 1 for column, label in enumerate(records.LABELS)}
    return {label: share(kept[rows]) for label, rows in positive.items() if rows.any()}


def lines(found: Mapping[str, Any]) -> str:
    """Markdown of an ablation."""
    head = "| | kept | random, as many | 95 % of random | p | kept, matched | dropped, matched |"
    said = ["## Does the filter help?", "", _told(found), "", head, "|" + "---|" * 7]
    number: Callable[[float], str] = lambda value: f"{value:.4g}"  # noqa: E731
    for name, row in found["metrics"].items():
        ends = " to ".join(number(end) for end in row["interval"])
        pair = row["matched"] or {}
        cells = [f"{name} ({row['better']} is better)", number(row["kept"]), number(row["random"]), ends]
        cells += [f"{row['p']:.3f}", *(number(pair[side]) if pair else "-" for side in ("kept", "dropped"))]
        said.append("| " + " | ".join(cells) + " |")
    rates = found.get("keep_rates", {})
    if rates:
        said += ["", "| label | kept | of | share |", "|---|---|---|---|"]
        said += [f"| {label} | {one['hits']} | {one['n']} | {one['share']:.1%} |" for label, one in rates.items()]
    return "\n".join(said) + "\n"


def _told(found: Mapping[str, Any]) -> str:
    size = f"; matched: {found['matched']} films each" if found["matched"] else "; too few were dropped to match sizes"
    return (
        f"{found['kept']:,} of {found['of']:,} films were kept. Random: {found['draws']} random subsets of as many "
        f"films{size}. A small p says that the choice is no random one, for better or worse."
    )
