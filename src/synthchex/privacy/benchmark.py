"""CheXGenBench's privacy table: each prompt's real film beside the films that several seeds make of that prompt.

Its three distances as they were meant. Pixels are subtracted as floats (unsigned ones wrap: 100 less 110 is 246); every
seed is compared by its own film (not by the last one); the count is of scores above a threshold that real pairs set
(`reidentification.calibrate`; the benchmark states none). The one real film of a prompt is the one on its row of the
training table: of other training films these numbers say nothing, see `reidentification.match`.

Pixel distances are kept pair by pair in the feature store, so that a run that was stopped goes on; embeddings are there
already, and scores are made from them anew.

Source: Dutt et al. 2025 (arXiv:2505.10496); github.com/Raman1121/CheXGenBench at 9a201c1, `metrics/privacy_metrics.py`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthchex.ahead import in_order
from synthchex.data import images, records
from synthchex.data.sources import ImageSet
from synthchex.maths import intervals
from synthchex.models.store import SPAN, Kept
from synthchex.options import Progress
from synthchex.privacy.rates import Ids, counted
from synthchex.privacy.reidentification import COLUMNS, Score, pair_scores

SEEDS = (639, 25, 275, 223, 736, 677, 892, 87, 422, 30)  # of every prompt
SIDE = 512  # pixels
TABLE = {"reid": "Avg. Re-ID Score", "latent": "Avg. Latent Distance", "pixel": "Avg. Pixel Distance"}


def compare_groups(
    reid: np.ndarray,
    latent: np.ndarray,
    pixel: np.ndarray | None,
    groups: np.ndarray,
    threshold: float,
    *,
    patients: Ids = None,
) -> dict[str, Any]:
    """The benchmark's table from the distances of every synthetic film to its prompt's real film.

    Args:
        reid: scores, (M,), see `group_scores`; higher is more alike.
        latent: distances of features, (M,), see `latent_distances`; lower is more alike.
        pixel: distances of pixels, (M,), see `pixel_distances`; None leaves its columns empty.
        groups: number of the prompt of each synthetic film, int (M,), from 0, each with at least one film.
        threshold: of `reidentification.calibrate`.
        patients: of each prompt's real film, (G,); None: each its own.

    Returns:
        {"rows": one per prompt: "group", "seeds", and the benchmark's Mean_reid_scores, Max_reid_scores,
        Mean_pixel_distance, Min_pixel_distance, Mean_latent_distance, Min_latent_distance; "summary": its table, means
        over prompts of the mean over seeds, the highest score, and prompts with a seed above the threshold;
        "intervals": [low, high] of the means by patients, None with fewer than 2; "above": those prompts as
        `rates.counted`; "threshold"}.

    Raises:
        ValueError: lengths differ, a prompt without films, or values that are not finite.
    """
    values = {"reid": reid, "latent": latent} | ({} if pixel is None else {"pixel": pixel})
    counts = _check(values, groups)
    means = {name: np.bincount(groups, value) / counts for name, value in values.items()}
    highest = _extreme(np.maximum, -np.inf, reid, groups)
    lowest = {name: _extreme(np.minimum, np.inf, value, groups) for name, value in values.items()}
    columns = {"Mean_reid_scores": means["reid"], "Max_reid_scores": highest}
    for name in ("pixel", "latent"):
        columns |= {f"Mean_{name}_distance": means.get(name), f"Min_{name}_distance": lowest.get(name)}
    above = counted(highest > threshold, clusters=patients)
    summary = {told: float(means[name].mean()) if name in means else None for name, told in TABLE.items()}
    return {
        "rows": [
            {"group": row, "seeds": int(counts[row])}
            | {name: None if column is None else float(column[row]) for name, column in columns.items()}
            for row in range(len(counts))
        ],
        "summary": summary | {"Max. Re-ID Score": float(highest.max()), "Count Re-ID > delta": above["hits"]},
        "intervals": {told: _ends(means[name], patients) for name, told in TABLE.items() if name in means},
        "above": above,
        "threshold": float(threshold),
    }


def group_scores(score: Score, real: np.ndarray, synthetic: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Score of every synthetic film with the real film of its prompt, float64 (M,).

    Args:
        score: see `reidentification`.
        real: embeddings of the prompts' real films, float, (G, D).
        synthetic: embeddings, float, (M, D).
        groups: row of the real film of each synthetic one, int (M,).
    """
    return pair_scores(score, real, groups, synthetic, np.arange(len(synthetic)))


def latent_distances(real: np.ndarray, synthetic: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """L2 of features over the root of their width, of every synthetic film to its prompt's real film, float64 (M,).

    Arguments as in `group_scores`; the benchmark takes features of RAD-DINO.
    """
    out = np.empty(len(synthetic))
    for start in range(0, len(synthetic), COLUMNS):
        some = slice(start, start + COLUMNS)
        step = np.asarray(real[groups[some]], np.float64) - np.asarray(synthetic[some], np.float64)
        out[some] = np.sqrt(np.square(step).mean(axis=1))
    return out


def pixel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean squared difference of two films of one size, in grey levels, 0 to 255; the same both ways.

    Args:
        one, other: uint8, (H, W) or (H, W, 3).

    Raises:
        ValueError: other types, or two sizes.
    """
    if one.dtype != np.uint8 or other.dtype != np.uint8:
        raise ValueError(f"expected uint8 films, got {one.dtype} and {other.dtype}; read them through data.images")
    if one.ndim != other.ndim:
        one, other = images.to_rgb(one), images.to_rgb(other)
    if one.shape != other.shape:
        raise ValueError(f"expected films of one size, got {one.shape} and {other.shape}; resize them first")
    return float(np.sqrt(np.square(one.astype(np.float64) - other.astype(np.float64)).mean()))


def pixel_distances(
    real: ImageSet,
    synthetic: ImageSet,
    groups: np.ndarray,
    store: Path | None,
    *,
    side: int = SIDE,
    num_workers: int = 2,
    quiet: bool = False,
) -> np.ndarray:
    """`pixel_distance` of every synthetic film to its prompt's real film, both squashed to a square, float64 (M,).

    Args:
        real: the prompts' real films, (G,).
        synthetic: films, (M,), all of which can be read, as those of `store.Encoded.kept`.
        groups: row of the real film of each synthetic one, int (M,).
        store: folder of the feature store, where distances are kept as they are made, `SPAN` at a time; None keeps
            nothing.
        side: of the squares, in pixels.
        num_workers: threads that decode films.

    Raises:
        UnreadableImage: a film cannot be read.
        ValueError: wrong number of groups.
    """
    if len(groups) != len(synthetic):
        raise ValueError(f"expected one group per synthetic film, got {len(groups)} for {len(synthetic)}")
    kept, lock = Kept(store, records.fingerprint(["pixel distance", side])), threading.Lock()

    def look(row: int) -> tuple[str, float | None]:
        with lock:  # tables are read by one thread at a time
            pair = real.fetch(int(groups[row])), synthetic.fetch(row)
        digest = hashlib.sha256("".join(map(images.content_hash, pair)).encode()).hexdigest()[:32]
        if digest in kept:
            return digest, None
        return digest, pixel_distance(*(_square(images.read(film).pixels, side) for film in pair))

    digests: list[str] = []
    fresh: dict[str, float] = {}
    with Progress("pixel distances", len(synthetic), quiet=quiet, unit="films") as progress:
        for digest, found in in_order(look, len(synthetic), num_workers=num_workers, ahead=64):
            digests.append(digest)
            fresh |= {} if found is None else {digest: found}
            if len(fresh) == SPAN or (fresh and len(digests) == len(synthetic)):
                kept.add(list(fresh), np.array(list(fresh.values()), np.float64)[:, None])
                fresh = {}
            progress.advance(len(digests))
    return kept.gather(digests)[:, 0]


def _square(pixels: np.ndarray, side: int) -> np.ndarray:
    film = Image.fromarray(pixels)
    return np.asarray(film if film.size == (side, side) else film.resize((side, side), Image.Resampling.BICUBIC))


def _check(values: Mapping[str, np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Films of each group."""
    if any(len(value) != len(groups) for value in values.values()) or not len(groups):
        told = {name: len(value) for name, value in values.items()}
        raise ValueError(f"expected one value of each kind per film, at least 1, got {told} for {len(groups)} groups")
    if lost := [name for name, value in values.items() if not np.isfinite(value).all()]:
        raise ValueError(f"expected finite distances, got NaN or infinity in {lost}; look at the embeddings")
    counts = np.bincount(groups)
    if (counts == 0).any():
        raise ValueError(f"expected films of every prompt, got none of prompt {int(np.argmin(counts))}; number anew")
    return counts


def _extreme(kind: np.ufunc, start: float, values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Highest or lowest value of each group."""
    out = np.full(int(groups.max()) + 1, start)
    kind.at(out, groups, values)
    return out


def _ends(values: np.ndarray, patients: Ids) -> list[float] | None:
    """Interval of a mean by patients."""
    clusters: Sequence[object] | np.ndarray = np.arange(len(values)) if patients is None else patients
    if len(set(clusters)) < 2:
        return None
    found = intervals.of_mean(values, clusters=clusters)
    return [found.low, found.high]
