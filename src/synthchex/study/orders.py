"""Who sees which item when. Knows cases and what must not show in their order; knows no film and no page.

Each reader has an order of their own for every task, drawn from the seed and from the random names of the cases, so the
seed alone tells nobody what comes next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LONGEST_RUN = 4  # films of one arm after each other, where the arms are equally large
SWAPS = 20_000


class Place(NamedTuple):
    """One showing: which case, and whether it was shown before."""

    case: str
    repeat: bool


def sequence(cases: Sequence[str], repeated: Sequence[str], kinds: Mapping[str, str], seed: int) -> list[Place]:
    """An order of cases and of their repetitions.

    What is repeated is first shown in the first third and again in the last, so a third of the items lies between.
    No kind follows itself more than `longest_run` times, so that nobody can tell one film by those before it.

    Args:
        cases: all of them, in any order.
        repeated: those that are shown twice, at most a third of all.
        kinds: of every case what runs are avoided of, such as its arm.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    shuffled = [str(case) for case in rng.permutation(sorted(cases))]
    order = _with_repeats(shuffled, [str(case) for case in rng.permutation(sorted(repeated))], rng)
    return _without_runs(order, kinds, longest_run([kinds[place.case] for place in order]), rng)


def longest_run(kinds: Sequence[str]) -> int:
    """How many of a kind may follow each other: `LONGEST_RUN`, more where one kind is more frequent than the rest."""
    most = max(kinds.count(kind) for kind in set(kinds)) if kinds else 0
    rest = len(kinds) - most
    return len(kinds) * 2 if not rest else max(LONGEST_RUN, -(-2 * most // rest))


def _with_repeats(cases: list[str], repeated: list[str], rng: np.random.Generator) -> list[Place]:
    """First showings of what is repeated among the first third, repetitions among the last."""
    others = iter(case for case in cases if case not in set(repeated))
    total = len(cases) + len(repeated)
    third = total // 3
    early = rng.choice(third, len(repeated), replace=False)
    late = total - 1 - rng.choice(third, len(repeated), replace=False)
    taken = {int(place): Place(case, False) for place, case in zip(early, repeated, strict=True)}
    taken |= {int(place): Place(case, True) for place, case in zip(late, repeated, strict=True)}
    return [taken[place] if place in taken else Place(next(others), False) for place in range(total)]


def _without_runs(order: list[Place], kinds: Mapping[str, str], limit: int, rng: np.random.Generator) -> list[Place]:
    """The order without runs longer than `limit`, by exchanging cases that are shown once.

    Raises:
        RuntimeError: none was found.
    """
    twice = {place.case for place in order if place.repeat}
    free = [at for at, place in enumerate(order) if place.case not in twice]
    for _ in range(SWAPS):
        run = _long_run([kinds[place.case] for place in order], limit)
        movable = [at for at in run if at in free]
        if not movable or len(set(kinds.values())) < 2:
            return order
        one, other = int(rng.choice(movable)), int(rng.choice(free))
        order[one], order[other] = order[other], order[one]
    raise RuntimeError(f"expected an order of {len(order)} items without long runs, found none in {SWAPS} exchanges")


def _long_run(kinds: Sequence[str], limit: int) -> range:
    """Places of the first run that is longer than `limit`; empty where there is none."""
    begun = 0
    for at in range(1, len(kinds) + 1):
        if at < len(kinds) and kinds[at] == kinds[begun]:
            continue
        if at - begun > limit:
            return range(begun, at)
        begun = at
    return range(0)


def balanced(groups: Mapping[str, Sequence[str]], count: int, seed: int) -> list[str]:
    """`count` cases of every group, drawn by seed: those that are shown twice."""
    rng = np.random.default_rng(seed)
    return [str(case) for name in sorted(groups) for case in rng.permutation(sorted(groups[name]))[:count]]
