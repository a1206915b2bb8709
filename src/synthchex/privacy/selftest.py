"""How good is the search: copies of training films are planted, and counted where they are found.

Of each kind of copy (`gate.planted`), the share that lies below the limit of each space, and of all together; beside it
the false alarms among real films of other patients. A set is another question than a film: the share of sets that
would be flagged if 0.1 % or 1 % of their films were such copies is simulated from the same distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from synthchex.data.sources import ImageSet
from synthchex.gate import calibration, planted
from synthchex.maths import copying
from synthchex.privacy import neighbours
from synthchex.privacy.neighbours import Request, Space
from synthchex.privacy.rates import counted

SHARES = (0.001, 0.01)  # of copies in a set
DRAWS = 500
ALPHA = 0.05


def selftest(
    train: ImageSet,
    held_out: ImageSet | None,
    found: Mapping[str, Space],
    request: Request,
    *,
    copies: int = 50,
    set_size: int = 1000,
    changes: Mapping[str, planted.Change] = planted.KINDS,
    not_planted: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Plant copies and count.

    Args:
        train, held_out, request: as in `neighbours.neighbours`, which gave `found`.
        found: spaces of the synthetic set; their limits are those that copies are judged by.
        copies: training films that are copied, once in every way.
        set_size: films of a simulated set.
        changes: ways; `not_planted` those that could not be made, and why.
        seed: of all choices.

    Returns:
        {"kinds": for each way {"kind", "any", "spaces": {space: `rates.counted`}, "flagged": shares of sets that are
        flagged, at `SHARES`}, "shares", "set_size", "false_alarms": real films of other patients below any limit, as
        `rates.counted`; None without held-out films, "flagged_without": share of sets without copies that are flagged,
        "not_planted"}.
    """
    random, names = np.random.default_rng(seed), list(changes)
    rows = np.sort(random.permutation(len(train))[:copies])
    judged = neighbours.neighbours(calibration.copies_of(train, rows, changes, seed), train, held_out, request)
    near = {space: one.films["near"] for space, one in judged.items()}
    kinds = next(iter(judged.values())).films["row"] % len(names)
    nulls = {space: one.results for space, one in found.items()}
    told = []
    for place, name in enumerate(names):
        own = kinds == place
        facts = {
            space: (one.films["null_share"][own], one.films["distance"][own] < _certain(nulls[space], set_size))
            for space, one in judged.items()
        }
        told.append(
            {
                "kind": name,
                "any": counted(np.logical_or.reduce(list(near.values()))[own]),
                "spaces": {space: counted(hits[own]) for space, hits in near.items()},
                "flagged": [flagged(nulls, facts, share, set_size, random) for share in SHARES],
            }
        )
    return {
        "kinds": told,
        "shares": list(SHARES),
        "set_size": set_size,
        "copied": len(rows),
        "false_alarms": false_alarms(train, held_out, request),
        "flagged_without": flagged(nulls, {}, 0.0, set_size, random),
        "not_planted": dict(not_planted or {}),
    }


def false_alarms(train: ImageSet, held_out: ImageSet | None, request: Request) -> dict[str, Any] | None:
    """Real films of one half of the held-out patients, judged by limits that the other half set; both ways.

    None where no patients are held out, or fewer than 4.
    """
    owners = None if held_out is None else np.asarray(held_out.patients or held_out.ids)
    if held_out is None or owners is None or len(np.unique(owners)) < 4:
        return None
    first = np.isin(owners, np.unique(owners)[::2])
    hits = []
    for half in (first, ~first):
        one, two = (held_out.take(np.flatnonzero(rows)) for rows in (half, ~half))
        judged = neighbours.neighbours(replace(one, prompts=None), train, two, request)
        kept = next(iter(judged.values())).films["row"]
        by = np.logical_or.reduce([space.films["near"] for space in judged.values()])
        hits.append((by, owners[half][kept]))
    return counted(np.concatenate([hit for hit, _ in hits]), clusters=np.concatenate([ids for _, ids in hits]))


def flagged(
    nulls: Mapping[str, Mapping[str, Any]],
    copied: Mapping[str, tuple[np.ndarray, np.ndarray]],
    share: float,
    size: int,
    random: np.random.Generator,
) -> float:
    """Share of simulated sets that are flagged: some space's p value, times the number of spaces, below `ALPHA`.

    Args:
        nulls: results of each space.
        copied: of planted copies in each space, the share of the null that is as near, and whether they are certain.
        share: of copies in the set; its other films are as those of new patients.
        size: films of the set.
        random: generator.
    """
    hits, count = np.zeros(DRAWS, bool), round(share * size)
    for space, facts in nulls.items():
        quantiles = [float(facts[f"share_below_{name}_expected"]) for name in facts["quantiles"]]
        clean, chosen = random.random((DRAWS, size - count)), np.empty((DRAWS, 0))
        if count:
            rows = random.integers(0, len(copied[space][0]), (DRAWS, count))
            chosen = copied[space][0][rows]
            hits |= copied[space][1][rows].any(axis=1)
        for quantile in quantiles:
            below = (clean < quantile).sum(axis=1) + (chosen <= quantile).sum(axis=1)
            least = _least_hits(quantile, size, facts["n_null"], ALPHA / (len(nulls) * len(quantiles)))
            hits |= below >= least
    return float(hits.mean())


def _certain(facts: Mapping[str, Any], size: int) -> float:
    """The distance below which one film of a set of this size is a copy, from that of the set that was judged.

    The tail of the null is an exponential of log distances, so the limit of another chance lies on the same line.
    """
    known = [(float(facts[f"share_below_{name}_expected"]), float(facts[f"share_below_{name}_distance"])) for name in
             ("certain", "least")]  # fmt: skip
    (chance, distance), (near, limit) = known
    if chance >= near or not 0 < distance < limit:
        return distance
    slope = np.log(limit / distance) / np.log(near / chance)
    return float(distance * (copying.ALPHA / size / chance) ** slope)


def _least_hits(quantile: float, size: int, null: int, alpha: float) -> int:
    """Fewest films below a quantile whose chance, of films of new patients, is below alpha."""
    low, high = 0, size + 1
    while low < high:
        middle = (low + high) // 2
        if middle <= size and copying.chance_of(middle, size, quantile, null + 1.0) >= alpha:
            low = middle + 1
        else:
            high = middle
    return low
