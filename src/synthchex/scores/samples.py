"""What is known of every single film of an evaluation, as one table: `samples.parquet` beside results.json.

It names films by the ids of their sets and holds prompts, so it stays where the films are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.maths import neighbors

if TYPE_CHECKING:
    import pyarrow

    from synthchex.scores import Scored
    from synthchex.scores.request import Request
    from synthchex.scores.sets import Side

TRUSTED = 10_000  # real films that vouch for synthetic ones
LOOKED_AT = 20_000  # synthetic films whose nearest real film is looked for


class Nearest(NamedTuple):
    """The nearest real film of some synthetic ones: row numbers of both, and the distance, (n,) each."""

    synthetic: np.ndarray
    real: np.ndarray
    distance: np.ndarray


def table(scored: Scored, request: Request) -> pyarrow.Table:
    """One row per readable film of both sets, real ones first.

    Columns: set, id, prompt, patient, hash; of synthetic films also alignment (cosine with the own prompt),
    alignment_shuffled (with another one's), realism, nearest (id of the nearest real film in the first encoder's
    features) and nearest_distance.
    """
    import pyarrow as pa

    real, synthetic = scored.real, scored.synthetic
    encoder = request.encoders[0]
    near = nearest(real.features[encoder], synthetic.features[encoder], request.seed)
    ids = np.array(_ids(real), object)
    columns: dict[str, list[Any]] = {
        "realism": _spread(_realism(scored, request, encoder), len(real)),
        "alignment": _spread(scored.matched, len(real), len(synthetic)),
        "alignment_shuffled": _spread(scored.shuffled, len(real), len(synthetic)),
        "nearest": [None] * len(real) + _placed(near.synthetic, ids[near.real], len(synthetic)),
        "nearest_distance": [None] * len(real) + _placed(near.synthetic, near.distance, len(synthetic)),
    }
    known: dict[str, list[Any]] = {
        "set": ["real"] * len(real) + ["synthetic"] * len(synthetic),
        "id": _ids(real) + _ids(synthetic),
        "prompt": _texts(real.prompts, len(real)) + _texts(synthetic.prompts, len(synthetic)),
        "patient": _texts(real.patients, len(real)) + _texts(synthetic.patients, len(synthetic)),
        "hash": real.encoded.hashes + synthetic.encoded.hashes,
    }
    known["nearest"] = columns.pop("nearest")
    texts = {name: pa.array(values, pa.string()) for name, values in known.items()}
    return pa.table(texts | {name: pa.array(values, pa.float64()) for name, values in columns.items()})


def nearest(real: np.ndarray, fake: np.ndarray, seed: int, block: int = 4096) -> Nearest:
    """The nearest real row of each synthetic one; of at most `LOOKED_AT` drawn at random.

    Distances are right to about 1e-3 of the spread of the features: products are float32, on centred rows.
    """
    import torch

    rows = np.sort(np.random.default_rng(seed).permutation(len(fake))[:LOOKED_AT])
    centre = real[: 2 * block].mean(0)
    some = torch.from_numpy(np.asarray(fake[rows] - centre, np.float32))
    best = torch.full((len(rows),), torch.inf)
    place = torch.zeros(len(rows), dtype=torch.int64)
    for start in range(0, len(real), block):
        part = torch.from_numpy(np.asarray(real[start : start + block] - centre, np.float32))
        squares = part.square().sum(1)
        for first in range(0, len(rows), block):
            span = slice(first, first + block)
            found, column = torch.addmm(squares[None], some[span], part.T, alpha=-2).min(dim=1)
            nearer = found < best[span]
            best[span] = torch.where(nearer, found, best[span])
            place[span] = torch.where(nearer, column + start, place[span])
    distance = (best + some.square().sum(1)).clamp_min(0).sqrt()
    return Nearest(rows, place.numpy(), distance.numpy())


def _realism(scored: Scored, request: Request, encoder: str) -> np.ndarray | None:
    real, fake = scored.real.features[encoder], scored.synthetic.features[encoder]
    rows = np.sort(np.random.default_rng(request.seed).permutation(len(real))[:TRUSTED])
    if len(rows) <= request.nearest_k:
        return None
    found = neighbors.realism(np.asarray(real[rows]), fake, nearest_k=request.nearest_k)
    return np.where(np.isfinite(found), found, np.nan)


def _ids(side: Side) -> list[str]:
    return [str(side.images.ids[index]) for index in side.encoded.kept]


def _texts(values: list[str] | None, count: int) -> list[Any]:
    return [None] * count if values is None else list(values)


def _spread(values: np.ndarray | None, before: int, count: int = 0) -> list[Any]:
    """Values of the synthetic films after as many None as there are real ones."""
    return [None] * (before + count) if values is None else [None] * before + values.tolist()


def _placed(rows: np.ndarray, values: np.ndarray, count: int) -> list[Any]:
    whole = np.full(count, None, object)
    whole[rows] = values
    return whole.tolist()
