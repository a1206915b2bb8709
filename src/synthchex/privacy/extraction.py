"""Memorised films, without the training set: seeds of one prompt that come out nearly the same.

A model that has learnt a film by heart gives it back whatever the noise it starts from, so films of several seeds of
one prompt are cliques of near twins. Near is what pairs of different prompts are with a stated small chance. Seeds of
one prompt are nearer than that in a healthy model too, the more the longer its prompts: a film learnt by heart shows in
the size of a clique, and in a `farthest` pair far below the limit. A model may also repeat itself without copying
anybody (it has collapsed): cliques say where to look, and that is all they say.

Distances are root mean squared differences, the largest over the tiles of a film, so that a common black border makes
no twins of two films. Features of an encoder are one tile; `Tiles` makes pixels into several. Writes nothing.

Source: Carlini et al. 2023 (USENIX Security), sections 4.2 and 5.1; there the limit was set by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from synthchex.data import images, lint, records
from synthchex.gate import identifiers, texts
from synthchex.options import Progress
from synthchex.privacy.rates import counted, limit_of, numbers, setting

Ids = Sequence[Any] | np.ndarray
QUANTILE = 1e-3  # share of pairs of different prompts that count as near
SIZE = 3  # films that make a clique
PAIRS = 100_000
EXACT = 24  # films up to which every clique is looked at: 3 ** 8 at most
STARTS = 64  # from which a larger group is searched
MOST = 5000  # films of one prompt
ROUNDS = 20  # cliques of one prompt that are taken
VALUES = 1 << 24  # of a block of films or of distances
LISTED = 100


class Space(NamedTuple):
    """What films are compared by: float32 (M, width), or (M, tiles, width of a tile)."""

    name: str
    films: np.ndarray


class Tiles:
    """Films as grey squares cut into tiles, an encoder for `models.store`; `space` gives its features their tiles."""

    def __init__(self, side: int = 64, tiles: int = 4) -> None:
        """`tiles` to a side of `side` pixels.

        Raises:
            ValueError: the side is no multiple of the tiles.
        """
        if tiles < 1 or side < 1 or side % tiles:
            raise ValueError(f"side must be a positive multiple of tiles, got {side} and {tiles}")
        self.side, self.tiles = side, tiles
        self.key = records.fingerprint(["grey tiles", side, tiles])

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Grey levels, float32 (N, side * side), 0 to 255, tile by tile; films are squashed by antialiased resize."""
        size = (self.side, self.side)
        squares = [Image.fromarray(images.to_grey(film)).resize(size, Image.Resampling.BILINEAR) for film in pixels]
        return np.stack([self._cut(np.asarray(square, np.float32)) for square in squares])

    def _cut(self, square: np.ndarray) -> np.ndarray:
        length = self.side // self.tiles
        return square.reshape(self.tiles, length, self.tiles, length).transpose(0, 2, 1, 3).reshape(-1)

    def space(self, features: np.ndarray) -> Space:
        """Features of this encoder as a space."""
        return Space("pixels", features.reshape(len(features), self.tiles**2, -1))


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance of films row by row: largest root mean squared difference of a tile, float32 (N,); 0 for twins.

    Args:
        one, other: as in `Space`, of one shape.
    """
    step = np.asarray(one, np.float32) - np.asarray(other, np.float32)
    return np.asarray(np.sqrt(np.square(step.reshape(len(step), _tiles(one), -1)).mean(axis=2).max(axis=1)))


def near_limit(
    space: Space,
    prompts: Ids,
    labels: Ids | None = None,
    *,
    quantile: float = QUANTILE,
    pairs: int = PAIRS,
    seed: int = 0,
) -> dict[str, Any]:
    """The distance that a stated share of pairs of different prompts stays below.

    Args:
        space: films, (M, …).
        prompts: of each, (M,).
        labels: of each film, (M, L) states or (M,) of anything that can be hashed: pairs then have the same labels and
            so look more alike. None: pairs of any two prompts.
        quantile: the share.
        pairs: most pairs that are looked at, each two films of two prompts.
        seed: of their choice.

    Returns:
        {"limit", "quantile", "pairs": of films, "prompt_pairs": each two prompts among them once, "setting_pairs": how
        many pairs are at the limit or below it, "same_labels"}.

    Raises:
        ValueError: no pair of prompts (with the same labels), or too few for so small a quantile.
    """
    owners = numbers(prompts, len(space.films), "prompts")
    first, second = _pairs_apart(owners, labels, pairs, np.random.default_rng(seed))
    different = _prompt_pairs(owners, first, second)
    if not 0 < quantile < 1 or not setting(different, quantile):
        same = "" if labels is None else " with the same labels"
        raise ValueError(
            f"quantile must be below 1 and at least {1 / (different + 1):.3g}, the smallest that {different} pairs of "
            f"prompts{same} can set, got {quantile}; give more prompts, a larger quantile{same and ', or no labels'}"
        )
    found = np.concatenate(
        [distances(space.films[first[some]], space.films[second[some]]) for some in _parts(len(first), space.films)]
    )
    limit = limit_of(-found, quantile)
    return {
        "limit": -(limit or 0.0),
        "quantile": quantile,
        "pairs": len(found),
        "prompt_pairs": different,
        "setting_pairs": setting(len(found), quantile),
        "same_labels": labels is not None,
    }


def smallest_quantile(prompts: Ids, labels: Ids | None = None, *, pairs: int = PAIRS, seed: int = 0) -> float:
    """The smallest quantile that `near_limit` can set, arguments as there; 1 where there is no pair."""
    owners = numbers(prompts, len(prompts), "prompts")
    return 1 / (_prompt_pairs(owners, *_pairs_apart(owners, labels, pairs, np.random.default_rng(seed))) + 1)


def find_twins(
    spaces: Sequence[Space],
    prompts: Ids,
    labels: Ids | None = None,
    *,
    size: int = SIZE,
    quantile: float = QUANTILE,
    pairs: int = PAIRS,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, Any]:
    """Prompts with at least `size` films that are all near each other.

    Args:
        spaces: one or more, of the same films, (M, …); may be mapped from files.
        prompts: of each film, (M,); a prompt with fewer than `size` films is not judged.
        labels: as in `near_limit`.
        size: films of a clique.
        quantile, pairs, seed: as in `near_limit`.

    Returns:
        {"films", "prompts", "prompts_judged", "size", "spaces": one result by the name of each space, and by "all" for
        films that are near in all of several: {"limit": of `near_limit` (not of "all"), "near_pairs", "pairs": of one
        prompt (their share beside the quantile), "found": prompts with a clique, as `rates.counted`, with the exact
        upper bound for none, "cliques", "largest", "searched_in_part": prompts with too many near films to look at
        every clique, so that the largest may be larger, "listed": at most `LISTED` of the largest cliques, the tightest
        of equals first, [{"rows", "films": of the prompt, "farthest": distance of the two that are least alike, of
        "all" in the first space}]}}.

    Raises:
        ValueError: as `near_limit`; spaces of other films; size below 2; no prompt with so many films, or one with more
            than `MOST`.
    """
    count = len(spaces[0].films) if spaces else 0
    if size < 2 or not count or any(len(space.films) != count for space in spaces):
        told = {space.name: len(space.films) for space in spaces}
        raise ValueError(f"expected spaces of the same films and a size of at least 2, got {told} and {size}")
    owners = numbers(prompts, count, "prompts")
    seeds = np.bincount(owners)
    if not size <= seeds.max() <= MOST:
        raise ValueError(
            f"expected prompts with {size} to {MOST} films, got {int(seeds.max())} at most; make more seeds of a prompt"
        )
    limits = {
        space.name: near_limit(space, owners, labels, quantile=quantile, pairs=pairs, seed=seed) for space in spaces
    }
    tallies = {name: _Tally() for name in [*limits, *(["all"] if len(limits) > 1 else [])]}
    judged = int((seeds >= size).sum())
    with Progress("twins", judged, quiet=quiet, unit="prompts") as progress:
        for rows in _groups(owners, seeds, size, max(space.films[0].size for space in spaces)):
            near = {space.name: _near(space.films[rows], limits[space.name]["limit"]) for space in spaces}
            if "all" in tallies:
                near["all"] = np.logical_and.reduce(list(near.values()))
            for name, table in near.items():
                tallies[name].add(table, rows, size)
            progress.advance(tallies[spaces[0].name].prompts)
    places = {space.name: space.films for space in spaces} | ({"all": spaces[0].films} if "all" in tallies else {})
    found = {name: {"limit": limits.get(name), **tally.result(places[name])} for name, tally in tallies.items()}
    return {"films": count, "prompts": len(seeds), "prompts_judged": judged, "size": size, "spaces": found}


def prompt_risk(prompts: Sequence[str], reports: Sequence[str] | None = None) -> dict[str, Any]:
    """Prompts that invite memorised films, or hold what could name somebody: known triggers, counted.

    Args:
        prompts: texts, (N,).
        reports: local reports of the training set; None: phrases are not looked for.

    Returns:
        {"prompts", "counts": of each kind that `data.lint` finds (marks of de-identification such as ___, identifiers,
        dates, repeated and empty prompts), "marked": prompts with a mark, as `rates.counted`, "verbatim": prompts with
        a phrase of `gate.texts.WORDS` words that stands in fewer than `gate.texts.COMMON` reports, the same; None
        without reports, "rows": the first few rows of each kind; no text is shown}.

    Raises:
        ValueError: no prompts.
    """
    patterns = {kind: re.compile(words, re.IGNORECASE) for kind, words in
                (identifiers.STRONG | identifiers.WEAK).items()} | {lint.MARK: identifiers.MARKS}  # fmt: skip
    found = lint.look(prompts, patterns)
    rows = {kind: [int(row) for row in places] for kind, places in found.rows.items()}
    verbatim = None
    if reports is not None:
        copied = texts.copied(prompts, texts.rare_phrases(reports))
        rows["verbatim phrase"], verbatim = np.flatnonzero(copied).tolist(), counted(copied)
    return {
        "prompts": len(prompts),
        "counts": dict(found.counts),
        "marked": counted(np.isin(np.arange(len(prompts)), rows.get(lint.MARK, []))),
        "verbatim": verbatim,
        "rows": {kind: places[: lint.SHOWN] for kind, places in rows.items() if places},
    }


def cliques(near: np.ndarray, size: int) -> tuple[list[list[int]], bool]:
    """Disjoint cliques of at least `size`, the largest first, and whether every one was looked at.

    Args:
        near: bool, (k, k), symmetric; the diagonal says nothing.
        size: at least 2.

    Work is bounded: films with too few near ones are taken away first; of up to `EXACT` that hang together all cliques
    are listed, larger groups are searched greedily from `STARTS` films, which finds a clique that may not be the
    largest; at most `ROUNDS` cliques are taken.
    """
    near = near & ~np.eye(len(near), dtype=bool)
    found: list[list[int]] = []
    whole = True
    for _ in range(ROUNDS):
        near = _core(near, size - 1)
        best, exact = _largest(near)
        whole &= exact
        if len(best) < size:
            return found, whole
        found.append(sorted(best))
        near[best] = near[:, best] = False
    return found, whole and not _core(near, size - 1).any()


class _Tally:
    """What was found so far in one space."""

    def __init__(self) -> None:
        self.prompts = self.near = self.pairs = self.in_part = 0
        self.hits: list[np.ndarray] = []
        self.found: list[tuple[int, list[int]]] = []

    def add(self, near: np.ndarray, rows: np.ndarray, size: int) -> None:
        """Take in prompts of equally many films: near ones (B, k, k), rows of the films (B, k)."""
        degree = near.sum(axis=2)  # itself included
        self.near += int(degree.sum() - degree.size) // 2
        self.pairs += degree.size * (near.shape[1] - 1) // 2
        self.prompts += len(near)
        hits = np.zeros(len(near), bool)
        for place in np.flatnonzero((degree >= size).sum(axis=1) >= size):
            found, whole = cliques(near[place], size)
            self.in_part += not whole
            self.found += [(near.shape[1], rows[place][one].tolist()) for one in found]
            hits[place] = bool(found)
        self.hits.append(hits)

    def result(self, films: np.ndarray) -> dict[str, Any]:
        """As `find_twins` says; `films` are those of the space."""
        largest = sorted((-len(rows), _farthest(films[rows]), count, rows) for count, rows in self.found)
        return {
            "near_pairs": self.near,
            "pairs": self.pairs,
            "found": counted(np.concatenate(self.hits)),
            "cliques": len(largest),
            "largest": -largest[0][0] if largest else 0,
            "searched_in_part": self.in_part,
            "listed": [{"rows": rows, "films": count, "farthest": far} for _, far, count, rows in largest[:LISTED]],
        }


def _farthest(films: np.ndarray) -> float:
    """Largest distance within a clique."""
    return max(float(distances(films[place:], films[: len(films) - place]).max()) for place in range(1, len(films)))


def _tiles(films: np.ndarray) -> int:
    return films.shape[1] if films.ndim == 3 else 1


def _parts(count: int, films: np.ndarray) -> Iterator[slice]:
    step = max(1, VALUES // max(1, int(np.prod(films.shape[1:]))))
    return (slice(start, start + step) for start in range(0, count, step))


def _prompt_pairs(owners: np.ndarray, first: np.ndarray, second: np.ndarray) -> int:
    """How many different pairs of prompts are among pairs of films."""
    high, low = np.maximum(owners[first], owners[second]), np.minimum(owners[first], owners[second])
    return len(np.unique(high * (int(owners.max(initial=0)) + 1) + low))


def _pairs_apart(
    owners: np.ndarray, labels: Ids | None, pairs: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pairs of films of two prompts: a random film, and another with its labels."""
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        labels = [row.tobytes() for row in labels]  # not the values: NaN is not itself
    kinds = np.zeros(len(owners), np.int64) if labels is None else numbers(labels, len(owners), "labels")
    order, sizes = np.argsort(kinds, kind="stable"), np.bincount(kinds)
    starts = np.cumsum(sizes) - sizes
    first = random.integers(0, len(owners), 2 * pairs)
    kind = kinds[first]
    second = order[starts[kind] + random.integers(0, sizes[kind])]
    apart = np.flatnonzero(owners[first] != owners[second])[:pairs]
    return first[apart], second[apart]


def _groups(owners: np.ndarray, seeds: np.ndarray, size: int, width: int) -> Iterator[np.ndarray]:
    """Rows of the films of prompts that have equally many, (B, k), a block at a time; prompts with too few are out."""
    order, starts = np.argsort(owners, kind="stable"), np.cumsum(seeds) - seeds
    for count in np.unique(seeds[seeds >= size]).tolist():
        chosen = np.flatnonzero(seeds == count)
        step = max(1, VALUES // (count * max(count, width)))
        for first in range(0, len(chosen), step):
            yield order[starts[chosen[first : first + step], None] + np.arange(count)]


def _near(films: np.ndarray, limit: float) -> np.ndarray:
    """Which films of each prompt are at most `limit` apart, bool (B, k, k), from films (B, k, …)."""
    import torch

    given = torch.from_numpy(np.ascontiguousarray(films, np.float32))
    tiles = given.unbind(2) if films.ndim == 4 else (given,)
    near = torch.ones((*films.shape[:2], films.shape[1]), dtype=torch.bool)
    for tile in tiles:
        # By differences: by products, twins would not be at 0.
        apart = torch.cdist(tile, tile, compute_mode="donot_use_mm_for_euclid_dist")
        near &= apart <= limit * tile.shape[-1] ** 0.5
    return np.asarray(near.numpy())


def _core(near: np.ndarray, least: int) -> np.ndarray:
    """Without films that have fewer than `least` near ones, again and again until all have."""
    near = near.copy()
    while (few := near.any(axis=1) & (near.sum(axis=1) < least)).any():
        near[few] = near[:, few] = False
    return near


def _largest(near: np.ndarray) -> tuple[list[int], bool]:
    """A largest clique, and whether it is certain that there is no larger one."""
    import networkx
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    parts = connected_components(csr_array(near), directed=False)[1]
    best, exact = list[int](), True
    for part in (np.flatnonzero(parts == number) for number in np.flatnonzero(np.bincount(parts) > 1)):
        if len(part) <= len(best):
            continue
        if len(part) <= EXACT:
            graph = networkx.from_numpy_array(near[np.ix_(part, part)])
            found = part[max(networkx.find_cliques(graph), key=len)].tolist()
        else:
            found = _greedy(near, part)
            exact &= len(found) == len(part)
        best = max(best, found, key=len)
    return best, exact


def _greedy(near: np.ndarray, part: np.ndarray) -> list[int]:
    """The largest clique that grows from the films with most near ones, always by the film with most."""
    order = part[np.argsort(-near[part].sum(axis=1), kind="stable")]
    best: list[int] = []
    for start in order[:STARTS]:
        clique, left = [int(start)], near[start].copy()
        for film in order:
            if left[film]:
                clique.append(int(film))
                left &= near[film]
        best = max(best, clique, key=len)
        if len(best) == len(part):
            break
    return best
