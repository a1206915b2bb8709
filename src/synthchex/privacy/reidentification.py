"""Could a patient be recognised in a synthetic film: scores of pairs, with a threshold that real pairs calibrate.

A score is any function of two sets of embeddings, higher for films that look more like one patient: `Siamese.scores`,
or `cosine` of an encoder's features. Its values mean nothing by themselves. Two questions are kept apart:

- `calibrate`: which score do real films of two patients pass with a stated chance, and how many pairs of one patient
  pass it?
- `match`: how many synthetic films have a training film beyond it? The best of N films passes it far oftener than one
  pair, so real films of patients outside the training set stand beside them: only the gap says anything of copying.

Each prompt's own real film, as CheXGenBench compares it, is in `benchmark`. Nothing is written here; embeddings come
from the feature store, and scores are made from them anew.

Source: Packhäuser et al. 2022; Dutt et al. 2025 (arXiv:2505.10496), which has neither calibration nor held-out films.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from synthchex.maths import ranking
from synthchex.options import Progress
from synthchex.privacy.rates import Ids, counted, gap, limit_of, setting

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
FALSE_POSITIVES = 1e-3
LEAST_PATIENTS = 10
PAIRS = 200_000  # of different patients, and of one patient: enough for a rate of 1e-5
PER_PATIENT = 100  # pairs of one patient at most, so that nobody's films decide
ROWS, COLUMNS = 1024, 8192  # of a block of scores
TOGETHER = 32  # single pairs in one call


class Pairs(NamedTuple):
    """Rows of the films of each pair, int64 (P,), and whether they are of one patient, bool (P,)."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


class Best(NamedTuple):
    """Highest score of each film over a reference, float64 (N,), and the row that has it, int64 (N,)."""

    scores: np.ndarray
    rows: np.ndarray


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of every feature vector of one side with every one of the other, float64 (n, m), -1 to 1.

    A score like any other; a vector of zeros is like nothing, 0.
    """
    left, right = (np.asarray(side, np.float64) for side in (one, other))
    left, right = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-300) for side in (left, right))
    return np.asarray(left @ right.T)


def real_pairs(patients: Sequence[object] | np.ndarray, *, pairs: int = PAIRS, seed: int = 0) -> Pairs:
    """Pairs of real films of one patient, and of two.

    Args:
        patients: of each film, (N,).
        pairs: most pairs of each kind. Of one patient: at most `PER_PATIENT` of anybody. Of two: each two patients
            once, by a random film of either.
        seed: of all choices.

    Raises:
        ValueError: fewer than `LEAST_PATIENTS` patients, or fewer than 2 of them with two films.
    """
    owners, random = np.unique(np.asarray(patients), return_inverse=True)[1], np.random.default_rng(seed)
    counts = np.bincount(owners)
    if len(counts) < LEAST_PATIENTS or (counts > 1).sum() < 2:
        raise ValueError(
            f"expected films of at least {LEAST_PATIENTS} patients, 2 of them with two films, got {len(counts)} "
            f"patients, {int((counts > 1).sum())} with two films; calibrate on a real set with follow-up films and a "
            "patient column"
        )
    order, starts = np.argsort(owners, kind="stable"), np.cumsum(counts) - counts
    together = order[_within(counts, starts, random)]
    together = together[np.sort(random.permutation(len(together))[:pairs])]
    two = _choose(len(counts), pairs, random)
    apart = order[starts[two] + random.integers(0, counts[two])]
    found = np.concatenate([together, apart])
    return Pairs(found[:, 0], found[:, 1], np.arange(len(found)) < len(together))


def pair_scores(score: Score, one: np.ndarray, first: np.ndarray, other: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Score of pairs of films, float64 (P,).

    Args:
        score: see the module.
        one, other: embeddings, float, (N, D) and (M, D); may be mapped from files.
        first, second: row of each pair on either side, int (P,).
    """
    out = np.empty(len(first))
    for start in range(0, len(first), TOGETHER):  # all with all of a few pairs cost less than many calls
        some = slice(start, start + TOGETHER)
        out[some] = np.diag(score(np.asarray(one[first[some]]), np.asarray(other[second[some]])))
    return out


def calibrate(
    score: Score,
    embeddings: np.ndarray,
    patients: Sequence[object] | np.ndarray,
    *,
    false_positives: float = FALSE_POSITIVES,
    pairs: int = PAIRS,
    seed: int = 0,
) -> dict[str, Any]:
    """What a score means on a real set: how well it tells patients apart, and the threshold at a stated rate.

    Args:
        score: see the module.
        embeddings: of real films, float, (N, D); best of films that neither the score nor the generator has seen.
        patients: of each, (N,).
        false_positives: chance that films of two patients pass the threshold.
        pairs, seed: as in `real_pairs`.

    Returns:
        {"threshold": passed by scores above it, "false_positives": as asked, "smallest_rate": that so many pairs can
        set, "setting_pairs": how many pairs of two patients reach the threshold (it is rough where they are few),
        "auroc": {"value", "low", "high"} by patients, "detected": pairs of one patient above the threshold, as
        `rates.counted` by patient, "films", "patients", "patients_with_two", "same_pairs", "different_pairs"}.

    Raises:
        ValueError: as `real_pairs`; too few patients for so small a rate; scores that are not finite.
    """
    owners = np.unique(np.asarray(patients), return_inverse=True)[1]
    if len(owners) != len(embeddings):
        raise ValueError(f"expected one patient per film, got {len(owners)} for {len(embeddings)} films")
    found = real_pairs(owners, pairs=pairs, seed=seed)
    apart = int((~found.same).sum())
    if not 0 < false_positives < 1 or not setting(apart, false_positives):
        raise ValueError(
            f"false_positives must be below 1 and at least {1 / (apart + 1):.3g}, the smallest that {apart} pairs of "
            f"different patients can set, got {false_positives}; give more patients or a larger rate"
        )
    scores = pair_scores(score, embeddings, found.first, embeddings, found.second)
    first, second = owners[found.first], owners[found.second]
    area = ranking.auroc(scores, found.same, ~found.same, clusters=first, partners=second)
    threshold = limit_of(scores[~found.same], false_positives)
    counts = np.bincount(owners)
    return {
        "threshold": threshold,
        "false_positives": false_positives,
        "smallest_rate": 1 / (apart + 1),
        "setting_pairs": setting(apart, false_positives),
        "auroc": {"value": area.value, "low": area.low, "high": area.high},
        "detected": counted(scores[found.same] > threshold, clusters=first[found.same]),
        "films": len(owners),
        "patients": len(counts),
        "patients_with_two": int((counts > 1).sum()),
        "same_pairs": int(found.same.sum()),
        "different_pairs": apart,
    }


def best_matches(films: np.ndarray, reference: np.ndarray, score: Score, *, quiet: bool = True) -> Best:
    """Highest score of each film over a whole reference; `ROWS` x `COLUMNS` scores are in memory at a time.

    Args:
        films: embeddings, float, (N, D).
        reference: embeddings, float, (M, D); may be mapped from a file.
        score: see the module.

    Raises:
        ValueError: no films on a side, two widths, or scores that are not finite.
    """
    if not len(films) or not len(reference) or films.shape[1:] != reference.shape[1:]:
        raise ValueError(f"expected embeddings of one width on both sides, got {films.shape} and {reference.shape}")
    best = Best(np.full(len(films), -np.inf), np.full(len(films), -1, np.int64))
    with Progress("match", len(films), quiet=quiet, unit="films") as progress:
        for start in range(0, len(films), ROWS):
            some = np.asarray(films[start : start + ROWS])
            for first in range(0, len(reference), COLUMNS):
                found = score(some, np.asarray(reference[first : first + COLUMNS]))
                if not np.isfinite(found).all():
                    raise ValueError("expected finite scores, got NaN or infinity; look at the embeddings")
                _keep_better(best, slice(start, start + len(some)), found, first)
            progress.advance(start + len(some))
    return best


def match(
    synthetic: np.ndarray,
    held_out: np.ndarray,
    train: np.ndarray,
    score: Score,
    threshold: float,
    *,
    prompts: Ids = None,
    held_out_patients: Ids = None,
    train_patients: Ids = None,
    seed: int = 0,
    quiet: bool = True,
) -> tuple[dict[str, Any], Best]:
    """How many synthetic films have a training film that looks like the same patient, beside unseen real films.

    Args:
        synthetic, held_out, train: embeddings, float, (N, D), (H, D), (T, D): synthetic films; real films of patients
            outside the training set; the whole training set.
        score, threshold: see the module; the threshold is one of `calibrate`.
        prompts: of each synthetic film, as films of one prompt are not independent; None: they are.
        held_out_patients, train_patients: of the real films; None: unknown, each film counts as a patient.
        seed: of the films that the control takes of the larger real set.

    Returns:
        The result and the best training film of each synthetic one. The result is {"threshold", "train_films",
        "synthetic", "held_out": films with a match in the training set, as `rates.counted`, "gap": share of synthetic
        films less that of held-out ones {"value", "low", "high"}, above 0 where training patients are recognised
        oftener than by chance, "expected_by_chance": synthetic films that would match at the held-out films' rate,
        "control": synthetic films with a match in equally many "films" of the "train" and of the "held_out" set, as
        `rates.counted`, and their "gap", "patients_checked": that no patient is on both sides}.

    Raises:
        ValueError: a patient is both held out and trained on; wrong number of ids; as `best_matches`.
    """
    checked = _check_apart(held_out_patients, train_patients)
    best = best_matches(synthetic, train, score, quiet=quiet)
    unseen = best_matches(held_out, train, score, quiet=quiet)
    found = counted(best.scores > threshold, clusters=prompts)
    chance = counted(unseen.scores > threshold, clusters=held_out_patients)
    result = {
        "threshold": float(threshold),
        "train_films": len(train),
        "synthetic": found,
        "held_out": chance,
        "gap": gap(found, chance),
        "expected_by_chance": chance["share"] * len(synthetic),
        "control": _control(synthetic, held_out, train, score, threshold, prompts, seed),
        "patients_checked": checked,
    }
    return result, best


def _control(
    synthetic: np.ndarray,
    held_out: np.ndarray,
    train: np.ndarray,
    score: Score,
    threshold: float,
    prompts: Ids,
    seed: int,
) -> dict[str, Any]:
    """The same synthetic films against as many training films as there are held out: equal chances of a match."""
    size, random = min(len(held_out), len(train)), np.random.default_rng(seed)
    shares = {}
    for name, films in (("train", train), ("held_out", held_out)):
        chosen = np.sort(random.choice(len(films), size, replace=False))
        best = best_matches(synthetic, films[chosen], score)
        shares[name] = counted(best.scores > threshold, clusters=prompts)
    return {"films": size, **shares, "gap": gap(shares["train"], shares["held_out"])}


def _within(counts: np.ndarray, starts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places of the pairs of films of one patient, int64 (P, 2), where patients' films lie together."""
    found = []
    for count in np.unique(counts[counts > 1]).tolist():
        people = starts[counts == count]
        if count * (count - 1) // 2 <= PER_PATIENT:  # the same pairs for all who have so many films
            found.append((people[:, None, None] + _choose(count, PER_PATIENT, random)).reshape(-1, 2))
        else:
            found += [start + _choose(count, PER_PATIENT, random) for start in people]
    return np.concatenate(found)


def _choose(count: int, most: int, random: np.random.Generator) -> np.ndarray:
    """Pairs of different numbers below `count`, each two at most once, int64 (P, 2); all of them, or `most` of them."""
    total = count * (count - 1) // 2
    flat = np.arange(total) if total <= most else np.sort(random.choice(total, most, replace=False))
    # The pair (low, high) has the number high (high - 1) / 2 + low; the root may be off by one.
    high = ((1 + np.sqrt(1 + 8 * flat.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > flat
    high += (high + 1) * high // 2 <= flat
    return np.stack([flat - high * (high - 1) // 2, high], axis=1)


def _keep_better(best: Best, rows: slice, found: np.ndarray, first: int) -> None:
    """Take scores of a block of the reference that starts at row `first` into the best so far."""
    place = found.argmax(axis=1)
    value = found[np.arange(len(found)), place]
    better = value > best.scores[rows]
    best.rows[rows] = np.where(better, place + first, best.rows[rows])
    best.scores[rows] = np.where(better, value, best.scores[rows])


def _check_apart(held_out: Ids, train: Ids) -> bool:
    """Whether it is known that no patient is on both sides.

    Raises:
        ValueError: some are.
    """
    if held_out is None or train is None:
        return False
    if shared := set(held_out) & set(train):
        raise ValueError(
            f"expected held-out films of patients outside the training set, got {len(shared)} patients in both; split "
            "by patient"
        )
    return True
