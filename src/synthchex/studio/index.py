"""What is known of every film of a dataset, in columns: verdicts, reasons, label states, scores. No pixels.

Columns are NumPy arrays and Arrow; a page of the browser costs a few selections on them, whatever the set's size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.data import records, shards, sources
from synthchex.data.parquet import Rows
from synthchex.data.sources import ImageSet

if TYPE_CHECKING:
    import pyarrow

ANY, NONE = "any", "none"
STORED, WORST, BEST = "as stored", "worst first", "best first"
ORDERS = (STORED, WORST, BEST)
STATES: dict[str, float] = {"present": 1.0, "absent": 0.0, "uncertain": -1.0, "not mentioned": np.nan}
KEEP = "kept (High + Medium)"
# Scores of which more is worse; of all others less is worse.
HIGHER_IS_WORSE = ("Low Quality", "Not Relevant", "alignment_shuffled")
FROM_SAMPLES = ("realism", "alignment", "alignment_shuffled", "nearest_distance")


class Coded(NamedTuple):
    """A column of few different texts: `codes` int32 (N,), -1 for none, into `values`."""

    codes: np.ndarray
    values: list[str]

    def of(self, row: int) -> str | None:
        """The text of one row."""
        code = int(self.codes[row])
        return None if code < 0 else self.values[code]

    def counts(self) -> dict[str, int]:
        """Rows of each text, the most frequent first."""
        found = np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))
        return {self.values[code]: int(found[code]) for code in np.argsort(-found, kind="stable") if found[code]}


@dataclass(frozen=True)
class Filter:
    """Which films to show, in which order. `score`, `low` and `high` are a range; `order` is by `score`."""

    label: str = ANY
    state: str = "present"
    quality: str = ANY
    reason: str = ANY
    score: str = ANY
    low: float | None = None
    high: float | None = None
    words: str = ""
    order: str = STORED


@dataclass(frozen=True)
class Index:
    """Films with what is known of them. `scores` are float32 (N,), NaN where unknown."""

    films: ImageSet
    quality: Coded
    reason: Coded
    scores: Mapping[str, np.ndarray]
    prompts: pyarrow.ChunkedArray | None

    def __len__(self) -> int:
        return len(self.films)

    def rows(self, asked: Filter) -> np.ndarray:
        """Row numbers of what a filter lets through, int64, in its order; of equal scores the earlier row first.

        Raises:
            ValueError: a label, score, state or order that is not there.
        """
        keep = _same(self.quality, asked.quality) & _same(self.reason, asked.reason)
        keep &= self._labelled(asked) & self._scored(asked)
        if asked.words.strip() and self.prompts is not None:
            keep &= _containing(self.prompts, asked.words.strip())
        return self._ordered(np.flatnonzero(keep), asked)

    def facts(self, row: int) -> dict[str, float]:
        """The scores of one film that are known."""
        return {name: float(values[row]) for name, values in self.scores.items() if np.isfinite(values[row])}

    def _labelled(self, asked: Filter) -> np.ndarray:
        if asked.label == ANY:
            return np.ones(len(self), bool)
        if self.films.labels is None or asked.label not in records.LABELS or asked.state not in STATES:
            raise ValueError(
                f"expected a label and a state of {self.films.source}, got {asked.label} {asked.state}; choose another"
            )
        column, state = self.films.labels[:, records.LABELS.index(asked.label)], STATES[asked.state]
        return np.asarray(np.isnan(column) if np.isnan(state) else column == state)

    def _scored(self, asked: Filter) -> np.ndarray:
        if asked.score == ANY or (asked.low is None and asked.high is None):
            return np.ones(len(self), bool)
        values = self._score(asked.score)
        low = -np.inf if asked.low is None else asked.low
        high = np.inf if asked.high is None else asked.high
        return np.asarray((values >= low) & (values <= high))

    def _ordered(self, rows: np.ndarray, asked: Filter) -> np.ndarray:
        if asked.order not in ORDERS:
            raise ValueError(f"expected an order among {list(ORDERS)}, got {asked.order!r}")
        if asked.order == STORED:
            return rows
        if asked.score == ANY:
            raise ValueError(f"expected a score to order by, got none; choose one of {list(self.scores)}")
        values = self._score(asked.score)[rows]
        rising = (asked.order == WORST) != (asked.score.split(" (")[0] in HIGHER_IS_WORSE)
        return rows[np.argsort(values if rising else -values, kind="stable")]  # NaN stands last either way

    def _score(self, name: str) -> np.ndarray:
        if name not in self.scores:
            raise ValueError(f"expected a score among {list(self.scores)}, got {name!r}")
        return self.scores[name]


def build(films: ImageSet, table: Rows | None = None) -> Index:
    """The index of a set; where it is a `table` of Parquet, its columns of floats are scores too."""
    import pyarrow as pa

    count, known = len(films), films.provenance
    scores = _from_json(known["quality_scores"], count) if "quality_scores" in known else {}
    if table is not None:
        scores |= _floats(table, skip={*scores, "guidance_scale"})
    prompts = None if films.prompts is None else pa.chunked_array([pa.array(films.prompts, pa.large_string())])
    return Index(films, _coded(known.get("quality"), count), _coded(known.get("drop_reason"), count), scores, prompts)


def open_index(source: str, **options: Any) -> Index:
    """The index of anything that `sources.open_images` opens; a film whose file is gone is a film that cannot be read.

    Raises:
        ValueError: as `sources.open_images`.
    """
    films = sources.open_images(source, missing="count", whole=True, **options)
    return build(films, parquet_rows(films))


def parquet_rows(films: ImageSet) -> Rows | None:
    """The rows of a set that was opened, whole, from a Parquet file or a folder of them; None of other sets."""
    path = Path(films.source)
    shards_there = path.is_dir() and any(True for kind in ("data/*.parquet", "*.parquet") for _ in path.glob(kind))
    if path.suffix != ".parquet" and not shards_there:
        return None
    rows = Rows([path] if path.is_file() else shards.parquet_files(path))
    return rows if len(rows) == len(films) else None


def number_of(text: str | None) -> float | None:
    """An end of a range as a person types it; None where nothing is typed.

    Raises:
        ValueError: it is no number.
    """
    if text is None or not text.strip():
        return None
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        raise ValueError(f"expected a number for the range, got {text!r}; type one such as 0.5, or nothing") from None


def with_samples(index: Index, folder: Path, called: str | None = None) -> Index:
    """The index with the scores of single films that an evaluation left in `samples.parquet`, by their ids.

    `called`: what to call the evaluation (default: the folder's name).
    """
    import pyarrow.parquet as pq

    path = folder / "samples.parquet"
    if not path.is_file():
        return index
    found = pq.read_table(path)
    rows = {name: row for row, name in enumerate(index.films.ids)}
    synthetic = np.array([one == "synthetic" for one in found["set"].to_pylist()], bool)
    places = np.array([rows.get(name, -1) for name in found["id"].to_pylist()], np.int64)
    hit = synthetic & (places >= 0)
    scores = dict(index.scores)
    for name in (name for name in FROM_SAMPLES if name in found.column_names):
        values = np.full(len(index), np.nan, np.float32)
        values[places[hit]] = np.array(found[name].to_pylist(), np.float32)[hit]
        if np.isfinite(values).any():
            scores[f"{name} ({called or folder.name})"] = values
    return replace(index, scores=scores)


def _same(column: Coded, asked: str) -> np.ndarray:
    if asked == ANY:
        return np.ones(len(column.codes), bool)
    code = -1 if asked == NONE else column.values.index(asked) if asked in column.values else -2
    return np.asarray(column.codes == code)


def _containing(prompts: pyarrow.ChunkedArray, words: str) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(pc.match_substring(prompts, words, ignore_case=True), False).to_numpy())


def _coded(values: Sequence[Any] | None, count: int) -> Coded:
    import pyarrow as pa

    if values is None:
        return Coded(np.full(count, -1, np.int32), [])
    found = pa.array([None if value is None else str(value) or None for value in values], pa.string())
    encoded = found.dictionary_encode()
    return Coded(encoded.indices.fill_null(-1).to_numpy(), [str(value) for value in encoded.dictionary.to_pylist()])


def _from_json(texts: Iterable[str | None], count: int) -> dict[str, np.ndarray]:
    """Numbers at the top of each row's JSON, by name, and the sum of both classes that are kept."""
    found: dict[str, np.ndarray] = {}
    for row, text in enumerate(texts):
        scores = _object(text, row) if text else {}
        for name, value in scores.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                if name not in found:
                    found[name] = np.full(count, np.nan, np.float32)
                found[name][row] = value
    kept = [found[name] for name in records.KEPT_QUALITIES if name in found]
    return {KEEP: np.asarray(sum(kept)), **found} if kept else found


def _object(text: str, row: int) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"expected a JSON object in quality_scores of row {row}, got {text[:60]!r}; mend or leave out the column"
        )
    return found


def _floats(table: Rows, skip: set[str]) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = pq.read_schema(table.files[0])
    names = [field.name for field in kinds if pa.types.is_floating(field.type) and field.name not in skip]
    found = {name: table.arrow(name).to_numpy().astype(np.float32) for name in names}
    return {name: values for name, values in found.items() if np.isfinite(values).any()}
