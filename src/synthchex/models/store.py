"""Features kept on disk: an image is decoded once and passed once through each encoder, then never again.

`<store>/<encoder key>/block-<hash>.safetensors` holds the content hashes and features of some films. A changed film has
another hash, a changed encoder or preprocessing another key, so neither is ever served from here. Blocks are written
whole: what a killed run finished is there for the next one.

Films are decoded and prepared by threads while the network works on the batch before them, a few batches ahead. The
features of a set come back as a file mapped into memory, so a million films need no more memory than a thousand.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.ahead import in_order
from synthchex.data import images as films
from synthchex.data import records, shards
from synthchex.data.sources import ImageSet
from synthchex.options import Progress

SPAN = 512  # films per block
IN_MEMORY = 2**27  # bytes of features that need no file


@dataclass(frozen=True)
class Encoded:
    """Features of the readable films of a set: one (M, width) float32 array per encoder, rows `kept` of the set.

    `ways` counts films by `Film.preprocessing`, those that were encoded before included.
    """

    features: list[np.ndarray]
    kept: np.ndarray
    hashes: list[str]
    skipped: dict[str, int]
    notes: dict[str, int]
    computed: int
    ways: dict[str, int]


class Looked(NamedTuple):
    """A film after the threads: its content hash, or why there is none; input for the encoders that do not know it."""

    digest: str
    reason: str | None
    notes: tuple[str, ...]
    inputs: dict[int, Any]
    way: str = ""


class Kept:
    """Features of one encoder by content hash: on disk where there is a store, else in memory."""

    def __init__(self, store: Path | None, key: str) -> None:
        self.folder = None if store is None else store / key
        self.places: dict[bytes, tuple[int, int]] = {}
        self.blocks: list[Path | np.ndarray] = []
        self.seen: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in blocks that other processes have written since."""
        for path in sorted(self.folder.glob("block-*.safetensors")) if self.folder is not None else []:
            if path not in self.seen:
                self._index(path, _tensor(path, "hashes"))

    def __contains__(self, digest: str) -> bool:
        return bytes.fromhex(digest) in self.places

    def add(self, digests: Sequence[str], features: np.ndarray) -> None:
        """Keep the features of some films; on disk as one block, whole."""
        hashes = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(len(digests), -1)
        if self.folder is None:
            self._index(features, hashes)
            return
        from safetensors.numpy import save

        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(hashes.tobytes()).hexdigest()[:16]
        path = self.folder / f"block-{name}.safetensors"
        shards.write_whole(path, save({"hashes": hashes, "features": np.ascontiguousarray(features)}))
        self._index(path, hashes)

    def gather(self, digests: Sequence[str]) -> np.ndarray:
        """Features in the order of the hashes, (M, width); mapped from a nameless file when they are many."""
        places = np.array([self.places[bytes.fromhex(digest)] for digest in digests])
        first = self._read(int(places[0, 0]))
        out = _room((len(digests), first.shape[1]), first.dtype, self.folder)
        order = np.argsort(places[:, 0], kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(places[order, 0])) + 1):
            out[rows] = self._read(int(places[rows[0], 0]))[places[rows, 1]]
        return out

    def _index(self, block: Path | np.ndarray, hashes: np.ndarray) -> None:
        self.places |= {row.tobytes(): (len(self.blocks), number) for number, row in enumerate(hashes)}
        self.blocks.append(block)
        if isinstance(block, Path):
            self.seen.add(block)

    def _read(self, number: int) -> np.ndarray:
        block = self.blocks[number]
        return block if isinstance(block, np.ndarray) else _tensor(block, "features")


def encode(
    images: ImageSet,
    encoders: Sequence[Any],
    store: Path | None,
    *,
    batch_size: int = 32,
    num_workers: int = 2,
    quiet: bool = False,
) -> Encoded:
    """Features of a set by every encoder, from the store where it has them.

    Args:
        images: the films, in order.
        encoders: one or more; each film that is new to any of them is decoded once.
        store: folder to keep features in; None keeps nothing.
        batch_size: films per forward pass.
        num_workers: threads that decode and prepare films.

    Raises:
        ValueError: not one film can be read; the message counts the reasons.
    """
    kept = [Kept(store, encoder.key) for encoder in encoders]
    hashes, computed = [""] * len(images), 0
    skipped, notes, ways = Counter[str](), Counter[str](), Counter[str]()
    with Progress(f"encode {Path(images.source).name}", len(images), quiet=quiet, unit="films") as progress:
        spans = [range(start, min(start + SPAN, len(images))) for start in range(0, len(images), SPAN)]
        for span, looked, made in _spans(images, encoders, kept, spans, batch_size, num_workers):
            for index, one in zip(span, looked, strict=True):
                hashes[index] = one.digest
                notes.update(one.notes)
                skipped.update([one.reason] if one.reason else [])
                ways.update([one.way] if one.way else [])
            computed += made
            progress.advance(span.stop)
    rows = np.array([index for index, digest in enumerate(hashes) if digest], np.int64)
    if not len(rows):
        raise ValueError(
            f"expected readable films in {images.source}, got none of "
            f"{len(images)}: {dict(skipped)}; see the paths and formats"
        )
    readable = [hashes[index] for index in rows]
    features = [have.gather(readable) for have in kept]
    return Encoded(features, rows, readable, dict(skipped), dict(notes), computed, dict(ways))


def share(images: ImageSet, encoders: Sequence[Any], store: Path, *, batch_size: int, num_workers: int = 2) -> None:
    """One process's part of encoding a set into the store, beside others; returns when all of it is there.

    Spans of films are claimed one at a time, so a slow or dead process costs its span, and a span holds the same
    batches whoever makes it. `encode` afterwards finds everything in the store.
    """
    done, make = sharing(images, encoders, store, batch_size=batch_size, num_workers=num_workers)
    for number in shards.claim_paths(done):
        make(number)


def sharing(
    images: ImageSet, encoders: Sequence[Any], store: Path, *, batch_size: int, num_workers: int = 2
) -> tuple[list[Path], Callable[[int], None]]:
    """What tells that a span of a set is in the store, span by span, and what encodes the span of a number."""
    keys = [encoder.key for encoder in encoders]
    folder = store / "shared" / records.fingerprint([images.fingerprint(), keys, batch_size])
    kept = [Kept(store, key) for key in keys]
    spans = [range(start, min(start + SPAN, len(images))) for start in range(0, len(images), SPAN)]
    done = [folder / f"{span.start:08d}.done" for span in spans]
    folder.mkdir(parents=True, exist_ok=True)

    def make(number: int) -> None:
        for have in kept:
            have.refresh()
        for _ in _spans(images, encoders, kept, [spans[number]], batch_size, num_workers):
            pass
        shards.write_whole(done[number], b"")

    return done, make


def _spans(
    images: ImageSet,
    encoders: Sequence[Any],
    kept: Sequence[Kept],
    spans: Sequence[range],
    batch_size: int,
    num_workers: int,
) -> Iterator[tuple[range, list[Looked], int]]:
    """Encode span after span; each comes with what was seen of its films and how many went through a network."""
    places, lock = [index for span in spans for index in span], threading.Lock()
    look = lambda place: _look(images, places[place], encoders, kept, lock)  # noqa: E731
    films_ahead = in_order(look, len(places), num_workers=num_workers, ahead=2 * batch_size)
    for span in spans:
        looked: list[Looked] = []
        fresh: list[dict[str, np.ndarray]] = [{} for _ in encoders]
        for start in range(0, len(span), batch_size):
            batch = list(islice(films_ahead, min(batch_size, len(span) - start)))
            for number, encoder in enumerate(encoders):
                fresh[number] |= _forward(encoder, number, batch, fresh[number], batch_size)
            looked += [one._replace(inputs={}) for one in batch]
        for have, new in zip(kept, fresh, strict=True):
            if new:
                have.add(list(new), np.stack(list(new.values())))
        yield span, looked, len(set().union(*fresh))


def _look(images: ImageSet, index: int, encoders: Sequence[Any], kept: Sequence[Kept], lock: threading.Lock) -> Looked:
    """Hash a film, and prepare it for the encoders that have not seen it."""
    try:
        with lock:  # tables are read by one thread at a time
            source = images.fetch(index)
        digest = films.content_hash(source)
        new = [number for number, have in enumerate(kept) if digest not in have]
        if not new:
            return Looked(digest, None, (), {}, films.preprocessing_of(source))
        film = films.read(source)
    except films.UnreadableImage as error:
        return Looked("", error.reason, (), {})
    inputs = {number: _prepared(encoders[number], film.pixels) for number in new}
    return Looked(digest, None, film.notes, inputs, film.preprocessing)


def _prepared(encoder: Any, pixels: np.ndarray) -> Any:
    return encoder.prepare([pixels]) if hasattr(encoder, "prepare") else pixels


def _forward(
    encoder: Any, number: int, batch: Sequence[Looked], done: dict[str, np.ndarray], batch_size: int
) -> dict[str, np.ndarray]:
    """Features of the films of a batch that are new to an encoder, each content once."""
    inputs = {one.digest: one.inputs[number] for one in batch if number in one.inputs and one.digest not in done}
    if not inputs:
        return {}
    if hasattr(encoder, "prepare"):
        import torch

        rows = encoder.forward(torch.cat(list(inputs.values())))
    else:
        rows = encoder.encode(list(inputs.values()), batch_size=batch_size)
    return dict(zip(inputs, rows, strict=True))


def _room(shape: tuple[int, int], kind: np.dtype[Any], folder: Path | None) -> np.ndarray:
    """An array to fill: in memory when small, else in a file that vanishes with it."""
    if folder is None or kind.itemsize * shape[0] * shape[1] <= IN_MEMORY:
        return np.empty(shape, kind)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, kind, "w+", shape=shape)


def _tensor(path: Path, name: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as block:
        return np.asarray(block.get_tensor(name))
