"""Prompts from any table, and the films that are wanted of them: filters by label, balance, repeats, seeds.

Columns, not rows: a million prompts are a few hundred MB. Nothing here knows a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records, sources, tables
from synthchex.data.tables import Table

if TYPE_CHECKING:
    import pyarrow


CHUNK = 10_000


@dataclass(frozen=True)
class Prompts:
    """Prompts in a fixed order. `labels` is float32 (N, 14) as in `ImageSet`; `names` are those of films that are there
    already, where the table has them and they were asked for; `numbered`: ids are row numbers. `policy` says where they
    come from: open, credentialed or unknown.
    """

    source: str
    ids: Sequence[str]
    texts: Sequence[str]
    labels: np.ndarray | None = None
    names: Sequence[str] | None = None
    numbered: bool = False
    policy: str = "unknown"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | np.ndarray) -> Prompts:
        """Some of the prompts, by row number, in that order."""
        chosen = np.asarray(rows, np.int64)
        return replace(
            self,
            ids=_taken(self.ids, chosen),
            texts=_taken(self.texts, chosen),
            labels=None if self.labels is None else self.labels[chosen],
            names=None if self.names is None else _taken(self.names, chosen),
        )

    def head(self, count: int | None) -> Prompts:
        """The first `count` of them, or all."""
        return self if count is None or count >= len(self) else self.take(range(count))

    def saying(self, texts: Sequence[str]) -> Prompts:
        """The same rows with other words."""
        return replace(self, texts=texts)


@dataclass(frozen=True)
class Wanted:
    """The films to make, one per row: which prompt, and which repeat of it. `row` is computed when it is asked for."""

    prompts: Prompts
    picks: np.ndarray
    repeats: np.ndarray
    seed: int
    suffix: str = "png"

    def __len__(self) -> int:
        return len(self.picks)

    def row(self, number: int) -> dict[str, Any]:
        """id, filename, prompt, seed and labels of one film."""
        pick, repeat = int(self.picks[number]), int(self.repeats[number])
        prompt_id, labels = self.prompts.ids[pick], self.prompts.labels
        name = f"{prompt_id}-{repeat}" if self.repeated else prompt_id
        states = {} if labels is None else dict(zip(records.LABELS, labels[pick].tolist(), strict=True))
        return {
            "id": name,
            "filename": f"{name.replace('/', '_')}.{self.suffix}",
            "prompt": self.prompts.texts[pick],
            "seed": records.row_seed(self.seed, prompt_id, repeat),
            "labels_dict": records.labels_dict(states),
            records.SOURCE_POLICY: self.prompts.policy,
        }

    @property
    def repeated(self) -> bool:
        """Whether some prompt stands for several films, so that ids end in the number of the repeat."""
        return bool(self.repeats.any())

    def fingerprint(self) -> str:
        """Hash of what decides every row: ids, prompts, labels, and the films wanted of each; 16 hex digits."""
        digest = hashlib.sha256(self.picks.astype("<i8").tobytes() + self.repeats.astype("<i8").tobytes())
        for column in (self.prompts.ids, self.prompts.texts):
            for first in range(0, len(column), CHUNK):
                digest.update("\x1f".join(column[first : first + CHUNK]).encode("utf-8", "surrogatepass"))
            digest.update(b"\x1e")
        if self.prompts.labels is not None:
            digest.update(np.nan_to_num(self.prompts.labels, nan=9).astype(np.int8).tobytes())
        return digest.hexdigest()[:16]


def open_prompts(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    revision: str | None = None,
    names: bool = False,
    empty: bool = False,
) -> Prompts:
    """Prompts from any source with a prompt column, or from a .txt of one a line.

    Args:
        source: .csv, .tsv, .jsonl, .parquet or .txt; a folder of shards or of `save_to_disk`; or a Hub id.
        columns: names of columns by role (prompt, id, labels, image) where they differ from the known aliases.
        split, revision: of a saved or Hub dataset.
        names: read the column of image names as well, where there is one.
        empty: let empty prompts through, as "".

    Raises:
        ValueError: no prompts, an empty prompt (its rows are named), unknown columns, ids that stand twice.
    """
    path = Path(source)
    table = (
        _lines(path)
        if path.suffix == ".txt" and path.is_file()
        else tables.open_table(source, split=split, revision=revision)
    )
    optional = ("id", "labels", "image") if names else ("id", "labels")
    roles = tables.resolve(table, columns, needed=("prompt",), optional=optional, side="synthetic" if names else None)
    texts, blank = _clean(_texts(table, roles["prompt"]))
    if not len(texts):
        raise ValueError(f"expected prompts in {source}, got 0 rows")
    if blank and not empty:
        raise ValueError(
            f"expected a prompt in every row of {source}, got {len(blank)} "
            f"empty ones (rows {blank[:5]}); fill or drop them"
        )
    return Prompts(
        str(source),
        _ids(table, roles, source),
        texts,
        tables.label_states(table, roles.get("labels")),
        _texts(table, roles["image"]) if "image" in roles else None,
        numbered="id" not in roles,
    )


def with_labels(prompts: Prompts, present: Sequence[str], absent: Sequence[str]) -> Prompts:
    """Prompts with every label of `present`, and none of `absent`: neither stated nor uncertain.

    Raises:
        ValueError: no labels, a name that is none of the 14, or nothing left.
    """
    if not present and not absent:
        return prompts
    labels = _labels(prompts)
    unknown = [label for label in (*present, *absent) if label not in records.LABELS]
    if unknown:
        raise ValueError(f"expected labels among {list(records.LABELS)}, got {unknown}")
    places = {label: records.LABELS.index(label) for label in (*present, *absent)}
    fits = np.ones(len(prompts), bool)
    for label in present:
        fits &= labels[:, places[label]] == 1
    for label in absent:
        fits &= ~np.isin(labels[:, places[label]], (1, -1))
    if not fits.any():
        asked = [*(f"with {label}" for label in present), *(f"without {label}" for label in absent)]
        raise ValueError(f"expected prompts {', '.join(asked)} in {prompts.source}, got 0 of {len(prompts)}")
    return prompts.take(np.flatnonzero(fits))


def want(prompts: Prompts, *, per_prompt: int, seed: int, suffix: str = "png") -> Wanted:
    """Films of every prompt, `per_prompt` each; those of one prompt stand together."""
    picks = np.repeat(np.arange(len(prompts), dtype=np.int32), per_prompt)
    repeats = np.tile(np.arange(per_prompt, dtype=np.int32), len(prompts))
    return Wanted(prompts, picks, repeats, seed, suffix)


def balance(prompts: Prompts, films: int, *, seed: int, suffix: str = "png") -> Wanted:
    """At least `films` films with each label that some prompt has, rarest labels first.

    A label with fewer prompts than films uses them again, each time with another seed. A film counts for all labels of
    its prompt, so that common labels, which stand beside rare ones, may come out above `films`. Which prompts are taken
    follows from `seed` and the order of the prompts alone.
    """
    positive = _labels(prompts) == 1
    order = np.random.default_rng(seed).permutation(len(prompts))
    taken = np.zeros(len(prompts), np.int64)
    common = positive.sum(0)
    for label in np.argsort(common, kind="stable"):
        having = order[positive[order, label]]
        lacking = films - int(taken @ positive[:, label])
        if len(having) and lacking > 0:
            fresh = having[np.argsort(taken[having], kind="stable")]  # those that no rarer label has taken come first
            np.add.at(taken, np.resize(fresh, lacking), 1)
    if not taken.any():
        raise ValueError(f"expected prompts with a label that is present in {prompts.source}, got none to balance")
    picks = np.repeat(np.arange(len(prompts), dtype=np.int32), taken)
    starts = np.repeat(np.cumsum(taken) - taken, taken)
    return Wanted(prompts, picks, (np.arange(len(picks)) - starts).astype(np.int32), seed, suffix)


def label_counts(wanted: Wanted) -> dict[str, int]:
    """Films per label that is present."""
    counts = np.bincount(wanted.picks, minlength=len(wanted.prompts)) @ (_labels(wanted.prompts) == 1)
    return {label: int(count) for label, count in zip(records.LABELS, counts, strict=True) if count}


def _labels(prompts: Prompts) -> np.ndarray:
    if prompts.labels is None:
        raise ValueError(
            f"expected labels in {prompts.source} to choose prompts by, got none; "
            "give a table with a labels column or one column per label"
        )
    return prompts.labels


def _ids(table: Table, roles: Mapping[str, str], source: str | Path) -> Sequence[str]:
    """Ids of the table, or row numbers, which are made when asked for."""
    if "id" not in roles:
        return RowNumbers(table.count)
    ids = _texts(table, roles["id"])
    sources.once(ids, f"id of {source}", "make ids unique, or name a column of unique ones with --id-column")
    return ids


class Texts(Sequence[str]):
    """Texts in Arrow: a million of them without a million Python objects."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self.column.slice(start, max(stop - start, 0)).to_pylist()[::step]
        return self.column[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        return (text for first in range(0, len(self), CHUNK) for text in self[first : first + CHUNK])


def _texts(table: Table, column: str) -> Texts:
    """A column as text, "" where nothing is there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = table.arrow(column)
    if found is None or not (pa.types.is_string(found.type) or pa.types.is_large_string(found.type)):
        values = [sources.text(value) for value in table.column(column)]
        return Texts(pa.chunked_array([pa.array(values, pa.large_string())]))
    return Texts(pc.fill_null(found, "") if found.null_count else found)


def _clean(texts: Texts) -> tuple[Texts, list[int]]:
    """Prompts without the space around them, and the rows where there is none; pandas writes those as nan."""
    import pyarrow.compute as pc

    spaced = pc.any(pc.match_substring_regex(texts.column, r"^\s|\s$")).as_py()
    trimmed = pc.utf8_trim_whitespace(texts.column) if spaced else texts.column
    blank = pc.match_substring_regex(trimmed, "^(?i:nan)?$")
    rows = np.flatnonzero(blank.to_numpy()).tolist()
    return Texts(pc.if_else(blank, "", trimmed) if rows else trimmed), rows


def _taken(values: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    return Texts(values.column.take(rows)) if isinstance(values, Texts) else [values[int(row)] for row in rows]


class RowNumbers(Sequence[str]):
    """Row numbers as ids of eight digits."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [f"{row:08d}" for row in range(self.rows)[index]]
        return f"{range(self.rows)[index]:08d}"

    def __iter__(self) -> Iterator[str]:
        return (f"{row:08d}" for row in range(self.rows))


def _lines(path: Path) -> Table:
    texts = [line for line in path.read_text().splitlines() if line.strip()]
    return Table(str(path), ["prompt"], len(texts), lambda name: texts, lambda name, index: texts[index])
