"""One side of a metric call as features: films read and encoded once, stored features taken as they are.

Knows encoders by what they do; knows no metric. What may be passed is in `given`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.ahead import default_workers
from synthchex.maths import arrays
from synthchex.maths.moments import Moments, merge
from synthchex.measure import films
from synthchex.measure.films import Memo
from synthchex.measure.given import ACCEPTED, Given

UNNAMED = "unnamed"


@dataclass(frozen=True)
class Side:
    """Features of one side and where they came from; `moments` instead of features when only those are known."""

    features: np.ndarray
    encoder: str
    key: str | None = None
    moments: Moments | None = None
    count: int | None = None
    preprocessing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    cut: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def truncated(self) -> int:
        """Texts of which the encoder did not read the end."""
        return 0 if self.cut is None else int(self.cut.sum())

    def take(self, rows: np.ndarray) -> Side:
        """The side with only some rows."""
        places = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        texts = None if self.texts is None else tuple(self.texts[place] for place in places)
        cut = None if self.cut is None else self.cut[places]
        return replace(self, features=self.features[places], texts=texts, cut=cut)

    @classmethod
    def joined(cls, parts: Sequence[Side]) -> Side:
        """One side from those of all processes, in their order.

        Raises:
            ValueError: features here and statistics there, or parts of different encoders or widths.
        """
        first = parts[0]
        kinds = {(part.key, part.moments is None, part.features.shape[1], part.texts is None) for part in parts}
        if len(kinds) > 1:
            raise ValueError(
                f"expected the same kind of side from every process, got {sorted(map(str, kinds))}; use one encoder"
            )
        if first.moments is not None:  # statistics are the same file everywhere
            return first
        texts = None if first.texts is None else tuple(text for part in parts for text in part.texts or ())
        return replace(
            first,
            features=np.concatenate([part.features for part in parts]),
            preprocessing=tuple(sorted({way for part in parts for way in part.preprocessing})),
            notes=tuple(sorted({note for part in parts for note in part.notes})),
            texts=texts,
            cut=None if first.cut is None else np.concatenate([part.cut for part in parts if part.cut is not None]),
        )


@dataclass
class Encoding:
    """How films become features: loads the encoder once, when the first film needs it.

    `encoder` is a name, a Hub id, a folder, or an object with `encode(films, batch_size=...)`. `num_workers` threads
    read films while it works; None is `ahead.default_workers()`.
    """

    encoder: Any = None
    batch_size: int = 32
    device: str | None = None
    dtype: str = "float32"
    aspect: str = "own"
    protocol: str | None = None
    num_workers: int | None = None
    image_text: bool = False
    default: str | None = None
    memo: Memo = field(default_factory=Memo, repr=False)

    def __post_init__(self) -> None:
        self.batch_size = _whole(self.batch_size, "batch_size", 1)
        self.workers = default_workers() if self.num_workers is None else _whole(self.num_workers, "num_workers", 0)
        self._loaded: Any = None

    def features(self, parts: Sequence[Given], name: str) -> Side:
        """Features of a side from the parts it was added in.

        Raises:
            ValueError: nothing was given, kinds are mixed, an image cannot be read, features are not finite.
        """
        kinds = sorted({part.kind for part in parts})
        if len(kinds) != 1:
            raise ValueError(f"{name}: expected one kind of input, got {kinds or 'nothing'}; pass {ACCEPTED}")
        if kinds[0] == "statistics":
            return _from_statistics(parts, name)
        return self._from_films(parts, name) if kinds[0] == "films" else self._from_features(parts, name)

    def texts(self, parts: Sequence[Given], name: str) -> Side:
        """Embeddings of prompts, in an image-text encoder's space; equal prompts are encoded once.

        Raises:
            ValueError: as `features`.
        """
        if {part.kind for part in parts} != {"texts"}:
            return self.features(parts, name)
        texts = tuple(text for part in parts for text in part.items)
        model, places = self.model(), {text: place for place, text in enumerate(dict.fromkeys(texts))}
        rows = np.asarray(arrays.check(model.encode_texts(tuple(places)), name))
        cut = np.array([model.count_truncated([text]) > 0 for text in places])
        chosen = np.array([places[text] for text in texts])
        return Side(rows[chosen], self._label(), self._key(), texts=texts, cut=cut[chosen])

    def _label(self) -> str:
        asked = self.default if self.encoder is None else self.encoder
        return asked if isinstance(asked, str) else str(getattr(self.model(), "name", UNNAMED))

    def _key(self) -> str | None:
        return getattr(self.model(), "key", None)

    def model(self) -> Any:
        """The encoder itself; the one that another metric has loaded already, where it is the same."""
        if self._loaded is None:
            self._loaded = self._load() if self.encoder is None or isinstance(self.encoder, str) else self.encoder
        return self._loaded

    def _load(self) -> Any:
        from synthchex.models import encoders

        known = encoders.IMAGE_TEXT if self.image_text else encoders.ENCODERS
        load = encoders.load_image_text if self.image_text else encoders.load_encoder
        default = self.default or (encoders.DEFAULT_IMAGE_TEXT if self.image_text else encoders.DEFAULT)
        name = self.encoder or default
        options: dict[str, Any] = {
            "device": self.device,
            "dtype": self.dtype,
            "aspect": self.aspect,
            "protocol": self.protocol,
        }
        asked = (name, self.image_text, *options.values(), _stamp(name))
        try:
            return self.memo.model(asked, lambda: load(name, **options))
        except ValueError as error:
            if self.encoder is not None:
                raise
            raise ValueError(
                f"expected an encoder for images, got none and the default {default!r} cannot be loaded ({error}); "
                f"pass encoder=: one of {sorted(known)}, a Hub id or a folder"
            ) from error

    def _from_films(self, parts: Sequence[Given], name: str) -> Side:
        found = films.encode(parts, name, self.model(), self.memo, batch_size=self.batch_size, num_workers=self.workers)
        rows = np.stack([row.features for row in found])
        arrays.check(rows, name)
        ways = tuple(sorted({row.preprocessing for row in found}))
        notes = tuple(sorted({note for row in found for note in row.notes}))
        return Side(rows, self._label(), self._key(), preprocessing=ways, notes=notes)

    def _from_features(self, parts: Sequence[Given], name: str) -> Side:
        widths = sorted({part.items.shape[1] for part in parts})
        if len(widths) != 1:
            raise ValueError(f"{name}: expected features of one width, got widths {widths}; use one encoder")
        rows = parts[0].items if len(parts) == 1 else np.concatenate([part.items for part in parts])
        made_by = {part.encoder for part in parts}
        if len(made_by) > 1:
            raise ValueError(f"{name}: expected features of one encoder, got {sorted(map(str, made_by))}")
        (encoder,) = made_by
        label = encoder or (self.encoder if isinstance(self.encoder, str) else UNNAMED)
        return Side(rows, label, encoder)


def check_same(predictions: Side, references: Side) -> list[str]:
    """Refuse sides that cannot be compared; return what is doubtful as warnings.

    Raises:
        ValueError: encoders differ, widths do, or how the films were read.
    """
    if predictions.key is not None and references.key is not None and predictions.key != references.key:
        raise ValueError(
            f"expected both sides from one encoder, got {predictions.encoder!r} ({predictions.key}) for predictions "
            f"and {references.encoder!r} ({references.key}) for references; encode both with the same one"
        )
    widths = [
        side.moments.width if side.moments is not None else side.features.shape[1] for side in (predictions, references)
    ]
    if widths[0] != widths[1]:
        raise ValueError(
            f"expected features of one width, got {widths[0]} for predictions and {widths[1]} for references; "
            "encode both sides with the same encoder"
        )
    warnings = []
    if (predictions.key is None) != (references.key is None):
        warnings.append("one side does not say which encoder made it; widths agree, nothing else is known")
    check_read_alike(predictions.preprocessing, references.preprocessing)
    for name, side in (("predictions", predictions), ("references", references)):
        warnings += [f"{name}: {note}" for note in side.notes]
        if side.truncated:
            warnings.append(f"{name}: {side.truncated} of {len(side)} prompts are longer than the encoder reads")
    return warnings


def check_read_alike(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Refuse films whose grey values do not mean the same on both sides.

    Args:
        predictions: ways in which films of that side were read, as in `images.Film`; none when it has no films.
        references: the same.

    Raises:
        ValueError: the ways differ.
    """
    if predictions and references and set(predictions) != set(references):
        raise ValueError(
            f"expected both sides read in one way, got predictions as {list(predictions)} and references as "
            f"{list(references)} (u8: 8 bits as they are; minmax16 and dicom: each film stretched to its own range; "
            "percentile: to its 0.5th and 99.5th percentile); convert both sides to 8-bit PNG in the same way, as "
            "`synthchex import --deep-films` does, or pass the pixels of synthchex.data.images.read"
        )


def _from_statistics(parts: Sequence[Given], name: str) -> Side:
    if len({part.encoder for part in parts}) > 1:
        raise ValueError(f"{name}: expected statistics of one encoder, got {[part.encoder for part in parts]}")
    merged = merge([part.items for part in parts])
    counts = [part.count for part in parts]
    count = None if None in counts else merged.count
    empty = np.empty((0, merged.width))
    return Side(empty, parts[0].encoder or UNNAMED, parts[0].encoder, moments=merged, count=count)


def _stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Files of a local encoder with their sizes and times, so that one that was saved again is loaded again."""
    path = Path(name if Path(name).exists() else name.partition(":")[2] or name)
    inside = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in inside if file.is_file())


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number from {least}, got {value!r}")
    return int(value)
