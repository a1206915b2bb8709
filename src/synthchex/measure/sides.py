"""One side of a metric call as features: films read and encoded once, stored features taken as they are.

Knows encoders by what they do; knows no metric. What may be passed is in `given`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.moments import Moments, merge
from synthchex.measure.given import ACCEPTED, Given

UNNAMED = "unnamed"
READ_AHEAD = 256  # films decoded before a forward pass


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
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> Side:
        """The side with only some rows."""
        places = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        texts = None if self.texts is None else tuple(self.texts[place] for place in places)
        return replace(self, features=self.features[places], texts=texts)


@dataclass
class Encoding:
    """How films become features: loads the encoder once, when the first film needs it.

    `encoder` is a name, a Hub id, a folder, or an object with `encode(films, batch_size=...)`.
    """

    encoder: Any = None
    batch_size: int = 32
    device: str | None = None
    dtype: str = "float32"
    aspect: str = "own"
    protocol: str | None = None
    image_text: bool = False
    _loaded: Any = field(default=None, repr=False)

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
        """Embeddings of prompts, in an image-text encoder's space.

        Raises:
            ValueError: as `features`.
        """
        if {part.kind for part in parts} != {"texts"}:
            return self.features(parts, name)
        texts = tuple(text for part in parts for text in part.items)
        model = self.model()
        rows = arrays.check(model.encode_texts(texts), name)
        count = model.count_truncated(texts)
        notes = (f"{count} of {len(texts)} prompts are longer than the encoder reads",) if count else ()
        return Side(np.asarray(rows), self._label(), self._key(), notes=notes, texts=texts, truncated=count)

    def _label(self) -> str:
        return self.encoder if isinstance(self.encoder, str) else str(getattr(self.model(), "name", UNNAMED))

    def _key(self) -> str | None:
        return getattr(self.model(), "key", None)

    def model(self) -> Any:
        """The encoder itself."""
        if self._loaded is None:
            self._loaded = self._load() if self.encoder is None or isinstance(self.encoder, str) else self.encoder
        return self._loaded

    def _load(self) -> Any:
        from synthchex.models import encoders

        known = encoders.IMAGE_TEXT if self.image_text else encoders.ENCODERS
        load = encoders.load_image_text if self.image_text else encoders.load_encoder
        default = encoders.DEFAULT_IMAGE_TEXT if self.image_text else encoders.DEFAULT
        try:
            options: dict[str, Any] = {
                "device": self.device,
                "dtype": self.dtype,
                "aspect": self.aspect,
                "protocol": self.protocol,
            }
            return load(self.encoder or default, **options)
        except ValueError as error:
            if self.encoder is not None:
                raise
            raise ValueError(
                f"expected an encoder for images, got none and the default {default!r} cannot be loaded ({error}); "
                f"pass encoder=: one of {sorted(known)}, a Hub id or a folder"
            ) from error

    def _from_films(self, parts: Sequence[Given], name: str) -> Side:
        model = self.model()
        features, ways, notes = [], set[str](), set[str]()
        for part in parts:
            for start in range(0, len(part.items), READ_AHEAD):
                films = [_read(part.items, row, name) for row in range(start, min(start + READ_AHEAD, len(part.items)))]
                features.append(model.encode([film.pixels for film in films], batch_size=self.batch_size))
                ways |= {film.preprocessing for film in films}
                notes |= {note for film in films for note in film.notes}
        rows = np.concatenate(features)
        arrays.check(rows, name)
        ordered = tuple(sorted(ways)), tuple(sorted(notes))
        return Side(np.asarray(rows), self._label(), self._key(), preprocessing=ordered[0], notes=ordered[1])

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
        return Side(np.asarray(arrays.check(rows, name)), label, encoder)


def check_same(predictions: Side, references: Side) -> list[str]:
    """Refuse sides that cannot be compared; return what is doubtful as warnings.

    Raises:
        ValueError: encoders differ, or widths do.
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
    if predictions.preprocessing != references.preprocessing and predictions.preprocessing and references.preprocessing:
        warnings.append(
            f"read differently: predictions as {list(predictions.preprocessing)}, "
            f"references as {list(references.preprocessing)}"
        )
    for name, side in (("predictions", predictions), ("references", references)):
        warnings += [f"{name}: {note}" for note in side.notes]
    return warnings


def _read(items: Sequence[Any], row: int, name: str) -> Any:
    from synthchex.data import images

    item = items[row]
    if arrays.is_tensor(item):
        item = item.detach().cpu().numpy()
    try:
        return images.read(item)
    except images.UnreadableImage as error:
        raise ValueError(
            f"{name}: image {row} cannot be read ({error.reason}): {error}; repair or remove it"
        ) from error


def _from_statistics(parts: Sequence[Given], name: str) -> Side:
    if len({part.encoder for part in parts}) > 1:
        raise ValueError(f"{name}: expected statistics of one encoder, got {[part.encoder for part in parts]}")
    merged = merge([part.items for part in parts])
    counts = [part.count for part in parts]
    count = None if None in counts else merged.count
    empty = np.empty((0, merged.width))
    return Side(empty, parts[0].encoder or UNNAMED, parts[0].encoder, moments=merged, count=count)
