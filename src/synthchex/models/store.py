"""Features kept on disk: an image is decoded once and passed once through each encoder, then never again.

`<store>/<encoder key>/block-<hash>.safetensors` holds the content hashes and features of some films. A changed film has
another hash, a changed encoder or preprocessing another key, so neither is ever served from here. Blocks are written
whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthchex.data import images as films
from synthchex.data import shards
from synthchex.data.sources import ImageSet
from synthchex.models.encoders import Encoder
from synthchex.options import Progress

BLOCK = 512


@dataclass(frozen=True)
class Encoded:
    """Features of the readable films of a set: one (M, width) float32 array per encoder, rows `kept` of the set."""

    features: list[np.ndarray]
    kept: np.ndarray
    hashes: list[str]
    skipped: dict[str, int]
    notes: dict[str, int]
    computed: int


def encode(
    images: ImageSet, encoders: Sequence[Encoder], store: Path | None, *, batch_size: int = 32, quiet: bool = False
) -> Encoded:
    """Features of a set by every encoder, from the store where it has them.

    Args:
        images: the films, in order.
        encoders: one or more; each film that is new to any of them is decoded once.
        store: folder to keep features in; None keeps nothing.
        batch_size: films per forward pass.

    Raises:
        ValueError: not one film can be read; the message counts the reasons.
    """
    known = [_read_store(store, encoder.key) for encoder in encoders]
    hashes, skipped, notes, computed = [""] * len(images), Counter[str](), Counter[str](), 0
    with Progress(f"encode {Path(images.source).name}", len(images), quiet=quiet, unit="films") as progress:
        for start in range(0, len(images), BLOCK):
            span = range(start, min(start + BLOCK, len(images)))
            fresh: dict[str, np.ndarray] = {}
            for index in span:
                try:
                    source = images.fetch(index)
                    hashes[index] = films.content_hash(source)
                    if hashes[index] not in fresh and any(hashes[index] not in have for have in known):
                        film = films.read(source)
                        fresh[hashes[index]] = film.pixels
                        notes.update(film.notes)
                except films.UnreadableImage as error:
                    hashes[index] = ""
                    skipped[error.reason] += 1
            for encoder, have in zip(encoders, known, strict=True):
                new = {digest: pixels for digest, pixels in fresh.items() if digest not in have}
                if new:
                    features = encoder.encode(list(new.values()), batch_size=batch_size)
                    have.update(zip(new, features, strict=True))
                    _write_block(store, encoder.key, list(new), features)
            computed += len(fresh)
            progress.advance(span.stop)
    kept = np.array([index for index, digest in enumerate(hashes) if digest], np.int64)
    if not len(kept):
        raise ValueError(
            f"expected readable films in {images.source}, got none of "
            f"{len(images)}: {dict(skipped)}; see the paths and formats"
        )
    arrays = [np.stack([have[hashes[index]] for index in kept]) for have in known]
    return Encoded(arrays, kept, [hashes[index] for index in kept], dict(skipped), dict(notes), computed)


def _read_store(store: Path | None, key: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    have: dict[str, np.ndarray] = {}
    for path in sorted((store / key).glob("block-*.safetensors")) if store is not None else []:
        block = load_file(path)
        have.update(zip((row.tobytes().hex() for row in block["hashes"]), block["features"], strict=True))
    return have


def _write_block(store: Path | None, key: str, hashes: list[str], features: np.ndarray) -> None:
    if store is None:
        return
    from safetensors.numpy import save

    folder = store / key
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
    shards.write_whole(
        folder / f"block-{name}.safetensors", save({"hashes": rows, "features": np.ascontiguousarray(features)})
    )
