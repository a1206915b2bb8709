"""Films of one side to rows: read ahead by threads, one pass through the encoder, remembered while a metric lives.

Metrics that are combined ask one after the other for the same films by the same encoder. `Memo` keeps the rows of films
that were encoded lately, under the encoder's key and a hash of what was read, so an edited film is another film. All
metrics of a process share one; it goes when the last of them does.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from synthchex import ahead
from synthchex.data import images
from synthchex.maths import arrays
from synthchex.measure.given import Given

ROOM = 1_000_000_000  # bytes of features: 120,000 films of 2048 float32
MODELS = 2  # loaded encoders: one of images, one of images and texts
AHEAD = 64  # films that wait when no batch says how many
Result = TypeVar("Result")


class Row(NamedTuple):
    """Features of one film, how it was read, and what was done to it."""

    features: np.ndarray
    preprocessing: str
    notes: tuple[str, ...]


class _Look(NamedTuple):
    """What a thread found out about a film: its row where that is remembered, else what the encoder reads."""

    digest: str
    known: Row | None
    ready: Any = None
    preprocessing: str = ""
    notes: tuple[str, ...] = ()


class Memo:
    """Rows of films encoded lately and encoders loaded lately; what was used longest ago goes first.

    Rows take at most `room` bytes. Of a set that does not fit, the first films are kept, so that the next metric finds
    at least these.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.used = room, 0
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._models: OrderedDict[Hashable, Any] = OrderedDict()

    def row(self, encoder: str, digest: str) -> Row | None:
        """What is remembered of a film; safe in any thread."""
        return self._rows.get((encoder, digest))

    def keep(self, encoder: str, rows: Mapping[str, Row]) -> None:
        """Remember rows by digest; older ones make room for them, they do not for each other."""
        for digest in rows:
            self._drop((encoder, digest))
        new = sum(row.features.nbytes for row in rows.values())
        while self._rows and self.used + new > self.room:
            self._drop(next(iter(self._rows)))
        for digest, row in rows.items():
            if self.used + row.features.nbytes > self.room:
                break
            self._rows[encoder, digest] = row
            self.used += row.features.nbytes

    def model(self, asked: Hashable, load: Callable[[], Any]) -> Any:
        """The encoder that was loaded for the same question, or `load()`."""
        model = self._models.pop(asked, None) or load()
        self._models[asked] = model
        while len(self._models) > MODELS:
            self._models.popitem(last=False)
        return model

    def clear(self) -> None:
        """Forget all films and let go of the encoders."""
        self._rows.clear()
        self._models.clear()
        self.used = 0

    def _drop(self, key: tuple[str, str]) -> None:
        row = self._rows.pop(key, None)
        self.used -= 0 if row is None else row.features.nbytes


_LIVING: weakref.WeakValueDictionary[str, Memo] = weakref.WeakValueDictionary()


def shared_memo() -> Memo:
    """The memo of this process's metrics: the one that a living metric holds, or a new one."""
    memo = _LIVING.get("memo")
    if memo is None:
        memo = _LIVING["memo"] = Memo()
    return memo


def forget() -> None:
    """Free the encoders and features that living metrics remember, for example before training goes on."""
    shared_memo().clear()


def read(
    parts: Sequence[Given],
    name: str,
    work: Callable[[images.Film], Result],
    *,
    num_workers: int,
    places: Sequence[int] | None = None,
) -> Iterator[Result]:
    """`work` of the films of a side in order, or of those at some places, by threads.

    Raises:
        ValueError: a film cannot be read; the message names the side, the film and the reason.
    """
    fetch, reading = _fetcher(parts), _reader()
    wanted = range(_count(parts)) if places is None else places

    def look(number: int) -> Result:
        with _named(name, wanted[number]):
            return work(reading(fetch(wanted[number])))

    yield from ahead.in_order(look, len(wanted), num_workers=num_workers, ahead=AHEAD)


def encode(
    parts: Sequence[Given], name: str, model: Any, memo: Memo, *, batch_size: int, num_workers: int
) -> list[Row]:
    """The row of every film of a side, in order; each different film is encoded once.

    Args:
        parts: of kind "films".
        name: of the side, for messages.
        model: has `encode(films, batch_size=...)`; where it has `prepare(films)` and `forward(prepared)` too, threads
            do the first. Rows are remembered when it has a `key`, which promises equal features for equal films.
        memo: where rows are looked up and kept.
        batch_size: films of a forward pass.
        num_workers: threads that read; which films share a batch, and so the result, does not depend on it.

    Raises:
        ValueError: a film cannot be read, or the encoder does not give one row per film.
    """
    look = _looker(parts, name, model, memo)
    found: dict[str, Row] = {}
    order: list[str] = []
    batch: dict[str, _Look] = {}
    for looked in ahead.in_order(look, _count(parts), num_workers=num_workers, ahead=batch_size):
        order.append(looked.digest)
        if looked.known is not None:
            found[looked.digest] = looked.known
        elif looked.digest not in found:
            batch[looked.digest] = looked
        if len(batch) == batch_size:
            found |= _forward(model, batch, batch_size)
            batch = {}
    found |= _forward(model, batch, batch_size) if batch else {}
    if getattr(model, "key", None) is not None:
        memo.keep(model.key, found)
    return [found[digest] for digest in order]


def _looker(parts: Sequence[Given], name: str, model: Any, memo: Memo) -> Callable[[int], _Look]:
    fetch, reading, key = _fetcher(parts), _reader(), getattr(model, "key", None)
    ready = (lambda pixels: model.prepare([pixels])) if hasattr(model, "prepare") else (lambda pixels: pixels)

    def look(place: int) -> _Look:
        with _named(name, place):
            item, film = fetch(place), None
            if key is None:
                digest = str(place)
            elif isinstance(item, str | os.PathLike | bytes | bytearray | memoryview | dict):
                digest = images.content_hash(item)
            else:  # of an image in memory only what is read of it tells it apart: a palette is not in its pixels
                film = reading(item)
                digest = f"{film.preprocessing} {film.notes} {images.content_hash(film.pixels)}"
            known = None if key is None else memo.row(key, digest)
            if known is not None:
                return _Look(digest, known)
            film = film or reading(item)
            return _Look(digest, None, ready(film.pixels), film.preprocessing, film.notes)

    return look


def _forward(model: Any, batch: Mapping[str, _Look], batch_size: int) -> dict[str, Row]:
    inputs = [looked.ready for looked in batch.values()]
    if hasattr(model, "prepare"):
        import torch

        sizes = sorted({tuple(one.shape[1:]) for one in inputs})
        if len(sizes) > 1:
            raise ValueError(
                f"expected films that become one size for the encoder, got {sizes}; pass aspect='crop', or films that "
                "are alike"
            )
        features = np.asarray(model.forward(torch.cat(inputs)))
    else:
        features = np.asarray(model.encode(inputs, batch_size=batch_size))
    if features.ndim != 2 or len(features) != len(inputs):
        raise ValueError(
            f"expected features (N, D) for N films from the encoder, got {features.shape} for {len(inputs)}; mend it"
        )
    rows = zip(batch.items(), features, strict=True)
    return {digest: Row(row, looked.preprocessing, looked.notes) for (digest, looked), row in rows}


def _count(parts: Sequence[Given]) -> int:
    return sum(len(part.items) for part in parts)


def _fetcher(parts: Sequence[Given]) -> Callable[[int], Any]:
    """A function from a place in a side to its film, for any thread."""
    places = [(part.items, row) for part in parts for row in range(len(part.items))]
    lock = threading.Lock()

    def fetch(place: int) -> Any:
        items, row = places[place]
        if isinstance(items, list | tuple | np.ndarray):
            item = items[row]
        else:
            with lock:  # a column of a dataset, which is not made for several threads
                item = items[row]
        return item.detach().cpu().numpy() if arrays.is_tensor(item) else item

    return fetch


def _reader() -> Callable[[Any], images.Film]:
    """`images.read` for any thread: a PIL image that is listed twice is loaded by one of them at a time."""
    locks = [threading.Lock() for _ in range(16)]

    def reading(item: Any) -> images.Film:
        if not type(item).__module__.startswith("PIL."):
            return images.read(item)
        with locks[id(item) // 64 % len(locks)]:
            return images.read(item)

    return reading


@contextmanager
def _named(name: str, place: int) -> Iterator[None]:
    try:
        yield
    except images.UnreadableImage as error:
        raise ValueError(
            f"{name}: image {place} cannot be read ({error.reason}): {error}; repair or remove it"
        ) from error
