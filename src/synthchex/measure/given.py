"""What a caller may pass for one side of a metric, sorted into a few kinds before anything is read.

Kinds: films (folder, paths, PIL images, uint8 arrays, a dataset or its column), features (float arrays, .npz,
.safetensors), statistics (.npz with mu and sigma, or moments), texts. Whatever cannot be right is refused here. Also
writes the two file formats. Knows no metric and no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.moments import Moments

Kind = Literal["films", "features", "statistics", "texts"]
ACCEPTED = (
    "a folder, a list of paths, a list of PIL images, a uint8 array (N, H, W) or (N, H, W, 3), float features (N, D), "
    "a .npz or .safetensors file of features, or a datasets.Dataset"
)


@dataclass(frozen=True)
class Given:
    """What was passed for one side, sorted but not read: `items` is a sequence of films, a float array, or moments."""

    kind: Kind
    items: Any
    encoder: str | None = None  # what the file says made it
    count: int | None = None  # None where a statistics file does not tell

    def snapshot(self) -> Given:
        """The same with its own memory, for rows kept until later; paths and datasets stay where they are."""
        if self.kind == "statistics" or (self.kind == "films" and not isinstance(self.items, list | np.ndarray)):
            return self
        items = self.items.copy() if isinstance(self.items, np.ndarray) else [_held(item) for item in self.items]
        return Given(self.kind, items, self.encoder, self.count)


def sort(source: Any, name: str) -> Given:
    """What kind of side this is.

    Args:
        source: see `ACCEPTED`; also torch tensors on the CPU, one column of a dataset, and `Moments`.
        name: "predictions" or "references", for messages.

    Raises:
        ValueError: of no accepted kind; the message says what was expected, what came, and what to do.
    """
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), name)
    if isinstance(source, Moments):
        return Given("statistics", source, count=source.count)
    if arrays.is_tensor(source):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if type(source).__module__.partition(".")[0] == "datasets":
        return _from_dataset(source, name)
    if isinstance(source, Sequence | Iterable) and not isinstance(source, bytes | Mapping):
        return _from_items(source if isinstance(source, Sequence) else list(source), name)
    raise ValueError(f"{name}: expected {ACCEPTED}, got {type(source).__name__}")


def sort_texts(source: Any, name: str) -> Given:
    """Prompts as texts, or their embeddings.

    Raises:
        ValueError: a bare string, an item that is not a string, none at all, or as `sort` for embeddings.
    """
    if isinstance(source, str):
        raise ValueError(f"{name}: expected a list of prompts, one per image, got one string; pass [prompt, ...]")
    if isinstance(source, np.ndarray) or arrays.is_tensor(source) or isinstance(source, os.PathLike):
        given = sort(source, name)
        if given.kind != "features":
            raise ValueError(f"{name}: expected prompts or text embeddings, got {given.kind}; pass a list of str")
        return given
    texts = list(source)
    if not texts or not all(isinstance(text, str) for text in texts):
        wrong = next((type(text).__name__ for text in texts if not isinstance(text, str)), "nothing")
        if texts and not any(isinstance(text, str) for text in texts):
            return sort(texts, name)
        raise ValueError(f"{name}: expected a list of prompts (str), got {wrong} in it; replace missing prompts")
    return Given("texts", tuple(texts), count=len(texts))


def save_features(path: str | Path, features: np.ndarray, *, encoder: str) -> None:
    """Write features so that a metric can tell later whether two files may be compared.

    Args:
        path: ends in .npz or .safetensors.
        features: float, (N, D).
        encoder: key of the encoder (its preprocessing included).

    Raises:
        ValueError: another suffix, or not finite floats (N, D).
    """
    path, rows = Path(path), np.asarray(arrays.check(features, "features"))
    if path.suffix == ".npz":
        np.savez(path, features=rows, encoder=np.array(encoder))
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"features": rows}, path, metadata={"encoder": encoder})
    else:
        raise ValueError(f"expected a path ending in .npz or .safetensors, got {path.name}")


def save_statistics(path: str | Path, moments: Moments, *, encoder: str) -> None:
    """Write moments as .npz with `mu`, `sigma` (the names other FID tools read), `count` and `encoder`."""
    np.savez(
        Path(path).with_suffix(".npz"),
        mu=moments.mean,
        sigma=moments.covariance(),
        count=np.array(moments.count),
        encoder=np.array(encoder),
    )


def _from_path(path: Path, name: str) -> Given:
    if path.is_dir():
        from synthchex.data.images import SUFFIXES

        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ValueError(f"{name}: expected images in the folder {path}, got none; known are {sorted(SUFFIXES)}")
        return Given("films", found)
    if path.suffix in (".npz", ".safetensors") and path.is_file():
        return _from_file(path, name)
    what = "a file of another kind" if path.is_file() else "no such folder or file"
    raise ValueError(
        f"{name}: expected {ACCEPTED}, got the string {str(path)!r} ({what}); for single images pass a list of paths"
    )


def _from_file(path: Path, name: str) -> Given:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            stored: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            encoder = (file.metadata() or {}).get("encoder")
    else:
        with np.load(path, allow_pickle=False) as file:
            stored = dict(file)
        encoder = str(stored.pop("encoder")) if "encoder" in stored else None
    if "mu" in stored and "sigma" in stored:
        return _stored_statistics(stored, encoder)
    tables = {key: value for key, value in stored.items() if value.ndim == 2}
    if "features" not in stored and len(tables) != 1:
        raise ValueError(
            f"{name}: expected an array named 'features', or one array (N, D), in {path.name}, got {sorted(stored)}"
        )
    rows = stored["features"] if "features" in stored else next(iter(tables.values()))
    return Given("features", arrays.check(rows, name), encoder, len(rows))


def _stored_statistics(stored: Mapping[str, np.ndarray], encoder: str | None) -> Given:
    mean, covariance = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
    count = int(stored["count"]) if "count" in stored else None
    rows = count or 10 * len(mean) + 2  # nominal: only its being above the width matters
    return Given("statistics", Moments(rows, mean, covariance * (rows - 1)), encoder, count)


def _from_array(source: np.ndarray, name: str) -> Given:
    shape = tuple(source.shape)
    if source.dtype.kind == "f" and source.ndim == 2:
        return Given("features", arrays.check(source, name), count=len(source))
    if source.dtype.kind == "f":
        raise ValueError(
            f"{name}: expected uint8 images or float features (N, D), got {source.dtype} of shape {shape}, whose range "
            "is unknown; scale to 0..255 and cast to uint8"
        )
    if source.dtype != np.uint8:
        raise ValueError(
            f"{name}: expected uint8 images or float features (N, D), got {source.dtype} of shape {shape}; "
            "write the images to files, or scale to 0..255 and cast to uint8"
        )
    if not (source.ndim == 3 or (source.ndim == 4 and shape[3] == 3)) or (source.ndim == 3 and shape[2] == 3):
        raise ValueError(
            f"{name}: expected uint8 images (N, H, W) or (N, H, W, 3), got shape {shape}; pass a single image in a "
            "list, and move channels last"
        )
    if not len(source):
        raise ValueError(f"{name}: expected at least 1 image, got 0")
    return Given("films", source, count=len(source))


def _from_dataset(source: Any, name: str) -> Given:
    if type(source).__name__.startswith("Iterable"):
        raise ValueError(
            f"{name}: expected a Dataset whose rows can be counted, got {type(source).__name__}, a stream; keep "
            "some of it: Dataset.from_list(list(stream.take(1000)))"
        )
    columns = getattr(source, "column_names", None)
    if isinstance(columns, Mapping):
        raise ValueError(f"{name}: expected one split, got a DatasetDict with {sorted(columns)}; pass one of them")
    if columns is None:  # a column: a lazy sequence of films, or of feature rows
        first = source[0] if len(source) else None
        if isinstance(first, list | tuple | np.ndarray) and np.asarray(first).ndim == 1:
            return _from_array(np.asarray(source[:], np.float32), name)
        table = getattr(source, "source", None)
        films = _encoded(table, source.column_name) if hasattr(table, "cast_column") else source
        return Given("films", films, count=len(source))
    for column in ("features", "embedding", "embeddings"):
        if column in columns:
            return _from_array(np.asarray(source.with_format("numpy")[column][:], np.float32), name)
    pictures = [key for key, kind in source.features.items() if type(kind).__name__ == "Image"]
    chosen = "image" if "image" in columns else (pictures[0] if len(pictures) == 1 else None)
    if chosen is None:
        raise ValueError(f"{name}: expected a column 'image' or 'features', got {columns}; pass dataset[column]")
    return Given("films", _encoded(source, chosen), count=len(source))


def _encoded(table: Any, column: str) -> Any:
    """A column of images as bytes or paths, so that threads decode them and not the table; as it is where the table has
    a format or mode of its own.
    """
    from datasets import Image

    kind = table.features[column]
    if not isinstance(kind, Image) or table.format["type"] is not None or kind.mode is not None:
        return table[column]
    return table.cast_column(column, Image(decode=False))[column]


def _from_items(source: Sequence[Any], name: str) -> Given:
    if not len(source):
        raise ValueError(f"{name}: expected at least 1 item, got 0; pass {ACCEPTED}")
    ranks = {_rank(item, name) for item in source}
    if ranks == {1}:
        lengths = sorted({len(row) for row in source})
        if len(lengths) > 1:
            raise ValueError(f"{name}: expected feature rows of one length, got lengths {lengths}")
        rows = [row.detach().cpu().numpy() if arrays.is_tensor(row) else row for row in source]
        return _from_array(np.stack([np.asarray(row, getattr(row, "dtype", np.float32)) for row in rows]), name)
    if 1 in ranks:
        raise ValueError(f"{name}: expected all images or all feature rows, got both in one list; pass them apart")
    return Given("films", list(source), count=len(source))


def _rank(item: Any, name: str) -> int:
    """1 for a feature row, 2 for a film."""
    if isinstance(item, str | os.PathLike | bytes) or (isinstance(item, Mapping) and {"bytes", "path"} & set(item)):
        return 2
    if type(item).__module__.startswith("PIL."):
        return 2
    shape = tuple(getattr(item, "shape", np.shape(item) if isinstance(item, list | tuple) else ()))
    if len(shape) == 1:
        return 1
    dtype = str(getattr(item, "dtype", "nothing"))
    if dtype.endswith("uint8") and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        return 2
    raise ValueError(
        f"{name}: expected paths, PIL images, uint8 arrays (H, W) or (H, W, 3), or float rows, got "
        f"{type(item).__name__} of dtype {dtype} and shape {shape}; scale float images to 0..255 and cast to uint8"
    )


def _held(item: Any) -> Any:
    """The pixels an item has now, for things whose memory the caller may change."""
    if isinstance(item, str | os.PathLike | bytes | Mapping):
        return item
    return np.array(item.convert("RGB") if getattr(item, "mode", "L") in ("P", "RGBA", "LA", "1", "CMYK") else item)
