"""Any set of films that a user has, as one thing: folder, table, Parquet shards, saved dataset, Hub id.

What `tables` knows of columns and files becomes an `ImageSet`; two sets are joined by id, or by prompt. Nothing is left
out silently: what was guessed, found elsewhere, repeated or not joined is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from synthchex.data import images, records, shards, tables
from synthchex.data.tables import Missing, Table

KEPT_COLUMNS = (*records.PROVENANCE_COLUMNS, *records.VERDICT_COLUMNS, "source_policy")
ROLES = ("id", "prompt", "labels", "patient", "view")


@dataclass(frozen=True)
class ImageSet:
    """Films with what is known of them, in a fixed order. Pixels are fetched one at a time.

    `labels` is float32 (N, 14): 1, 0, -1 uncertain, NaN not mentioned. `prompts`, `labels`, `patients`, `views` are
    None where unknown. `has_ids`: `ids` come from an id column, else they are file names or row numbers. `notes` counts
    what was done while opening: found-by-stem, missing, id-repeated, image-repeated, prompt-empty, patient-empty.
    `preprocessing` is what an import wrote down of each film: `images.Film.preprocessing`.
    """

    source: str
    ids: Sequence[str]
    fetch: Callable[[int], Any]
    prompts: Sequence[str] | None = None
    labels: np.ndarray | None = None
    patients: Sequence[str] | None = None
    provenance: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    views: Sequence[str] | None = None
    has_ids: bool = False
    notes: Mapping[str, int] = field(default_factory=dict)
    preprocessing: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> dict[str, Any]:
        """What is known of one film as a record, without its image."""
        labels = None if self.labels is None else self.labels[index]
        return {
            "id": self.ids[index],
            "filename": f"{tables.film_stem(self.ids[index]).replace('/', '_')}.png",
            "prompt": None if self.prompts is None else self.prompts[index],
            "labels_dict": _as_dict(labels),
            **{name: values[index] for name, values in self.provenance.items()},
        }

    def fingerprint(self) -> str:
        """Hash of what the set is: ids, prompts, and the manifest or the files' sizes and times."""
        manifest = Path(self.source) / shards.MANIFEST
        state = manifest.read_text() if manifest.is_file() else self._states()
        return records.fingerprint_long([self.ids, self.prompts, state])

    def _states(self) -> Iterator[tuple[int, int]]:
        """Size and time of each film that is a file; of the table where films are cells, which are not read."""
        if not len(self) or not Path(self.source).exists():
            return
        named = isinstance(self.fetch(0), Path)
        paths = (self.fetch(row) for row in range(len(self))) if named else iter([Path(self.source)])
        yield from ((s.st_size, s.st_mtime_ns) for s in (path.stat() for path in paths if path.is_file()))

    def take(self, rows: Sequence[int] | np.ndarray) -> ImageSet:
        """The set of some of its films, by row number, in that order."""
        rows = [int(row) for row in rows]

        def chosen(values: Sequence[Any] | None) -> Any:
            return None if values is None else [values[row] for row in rows]

        return replace(
            self,
            ids=chosen(self.ids),
            fetch=lambda index: self.fetch(rows[index]),
            prompts=chosen(self.prompts),
            labels=None if self.labels is None else self.labels[rows],
            patients=chosen(self.patients),
            views=chosen(self.views),
            preprocessing=chosen(self.preprocessing),
            provenance={name: chosen(values) for name, values in self.provenance.items()},
        )


class Join(NamedTuple):
    """Rows of a real and a synthetic set that belong together.

    `pairs` is int (P, 2): real row, synthetic row, in synthetic order; a real row may stand with several synthetic
    ones. Synthetic rows are `joined` + `only_synthetic`; real rows are those in `pairs`, `only_real`, and `repeated`,
    whose prompt an earlier real row has, which stands for it.
    """

    by: Literal["id", "prompt"]
    pairs: np.ndarray
    joined: int
    only_real: int
    only_synthetic: int
    repeated: int


def open_images(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    image_dir: str | Path | None = None,
    split: str = "train",
    revision: str | None = None,
    side: tables.Side | None = None,
    missing: Missing = "error",
    whole: bool = False,
) -> ImageSet:
    """Open a set of films.

    Args:
        source: a folder of image files (searched in depth); a .csv, .tsv, .jsonl or .parquet table with an image
            column; a folder of Parquet shards; a folder written by `save_to_disk`; or a dataset id on the Hub.
        columns: names of columns where they differ from the known aliases, e.g. {"image": "scan", "prompt":
            "findings"}.
        image_dir: folder that image names of a table are relative to; its own folder by default.
        split: split of a saved or Hub dataset.
        revision: commit, tag or branch of a Hub dataset.
        side: which set of a comparison this is; tells `path` from `synthetic_filename` in CheXGenBench's tables.
        missing: "error" where a table names a file that is not there, or "count" to leave it to the reader.
        whole: all shards of a folder, also those that its card keeps out of the default configuration, such as the
            dropped films of `synthchex build --all`.

    Raises:
        ValueError: nothing readable there, no images, unknown or ambiguous columns, files that are not there, ids or
            image names that stand twice.
    """
    import pyarrow as pa

    path = Path(source)
    if path.is_dir() and not tables.is_dataset_folder(path):
        return _image_folder(path)
    found = _in_table(
        tables.open_table(source, split=split, revision=revision, whole=whole), path, columns, image_dir, side, missing
    )
    pa.default_memory_pool().release_unused()  # of columns that are Python values now: 300 MB of a million rows
    return found


def _in_table(
    table: Table,
    path: Path,
    columns: Mapping[str, str] | None,
    image_dir: str | Path | None,
    side: tables.Side | None,
    missing: Missing,
) -> ImageSet:
    """The films of a table, or those that it names; see `open_images`."""
    if not table.count:
        raise ValueError(f"expected films in {table.source}, got a table of 0 rows; check how it was made")
    roles = tables.resolve(table, columns, needed=("image",), optional=ROLES, side=side)
    notes: dict[str, int] = {}
    if _names_files(table, roles["image"]):
        names = [text(name) for name in table.column(roles["image"])]
        base = Path(image_dir) if image_dir is not None else path.parent if path.is_file() else path
        files, found = tables.find_films(names, base, source=table.source, missing=missing)
        fetch: Callable[[int], Any] = files.__getitem__
        notes |= found
    else:
        fetch = lambda index: table.cell(roles["image"], index)  # noqa: E731
        names = [f"{index:08d}" for index in range(table.count)]
    ids, has_ids = _ids(table, roles, names, notes, named="id" in (columns or {}))
    return ImageSet(
        source=table.source,
        ids=ids,
        fetch=fetch,
        prompts=_texts(table, roles.get("prompt"), notes, "prompt-empty"),
        labels=tables.label_states(table, roles.get("labels")),
        patients=_owners(table, roles.get("patient"), notes),
        provenance={name: table.column(name) for name in KEPT_COLUMNS if name in table.columns and name != "id"},
        views=_texts(table, roles.get("view"), notes, "view-empty"),
        has_ids=has_ids,
        notes=notes,
        preprocessing=table.column("preprocessing_id") if "preprocessing_id" in table.columns else None,
    )


def join(real: ImageSet, synthetic: ImageSet) -> Join | None:
    """Which real and synthetic films belong together.

    By id where both sets have ids and share some; otherwise by prompt, equal but for whitespace around it, where the
    first real row of a prompt stands for all. Ids that pair no equal prompts, while prompts do match, are row numbers:
    they join nothing. Empty prompts join nothing.

    Returns:
        The join; None where the sets have neither ids nor prompts on both sides.
    """
    by_id = _joined("id", real.ids, synthetic.ids) if real.has_ids and synthetic.has_ids else None
    if real.prompts is None or synthetic.prompts is None:
        return by_id
    prompts = [text.strip() for text in real.prompts], [text.strip() for text in synthetic.prompts]
    by_prompt = _joined("prompt", *prompts)
    if by_id is None or not by_id.joined:
        return by_prompt
    agree = any(prompts[0][one] == prompts[1][other] for one, other in by_id.pairs)
    return by_id if agree or not by_prompt.joined else by_prompt


def with_labels(synthetic: ImageSet, real: ImageSet, joined: Join) -> ImageSet:
    """The synthetic set with the label states of the real films that its rows were joined to.

    Rows that joined nothing get no label at all (NaN): `joined.only_synthetic` of them.

    Raises:
        ValueError: the real set has no labels, or the synthetic set has its own.
    """
    if real.labels is None:
        raise ValueError(f"expected labels in {real.source} to take over, got none; give a table with a labels column")
    if synthetic.labels is not None:
        raise ValueError(f"expected {synthetic.source} without labels, got its own; use them, or drop the column first")
    labels = np.full((len(synthetic), real.labels.shape[1]), np.nan, np.float32)
    labels[joined.pairs[:, 1]] = real.labels[joined.pairs[:, 0]]
    return replace(synthetic, labels=labels)


def drop_repeated_prompts(films: ImageSet) -> tuple[ImageSet, int]:
    """The first film of each prompt, as CheXGenBench keeps of real films, and how many were dropped.

    Prompts are compared as they are, whitespace included.

    Raises:
        ValueError: the set has no prompts.
    """
    if films.prompts is None:
        raise ValueError(f"expected prompts in {films.source}, got none; name their column with --prompt-column")
    first: dict[str, int] = {}
    for row, prompt in enumerate(films.prompts):
        first.setdefault(prompt, row)
    return films.take(list(first.values())), len(films) - len(first)


def _joined(by: Literal["id", "prompt"], real: Sequence[str], synthetic: Sequence[str]) -> Join:
    first: dict[str, int] = {}
    for row, key in enumerate(real):
        first.setdefault(key, row)
    first.pop("", None)
    pairs = [(first[key], row) for row, key in enumerate(synthetic) if key in first]
    repeated = sum(key in first and first[key] != row for row, key in enumerate(real))
    used = len({row for row, _ in pairs})
    return Join(
        by,
        np.array(pairs, np.int64).reshape(-1, 2),
        joined=len(pairs),
        only_real=len(real) - used - repeated,
        only_synthetic=len(synthetic) - len(pairs),
        repeated=repeated,
    )


def _ids(
    table: Table, roles: Mapping[str, str], names: list[str], notes: dict[str, int], *, named: bool
) -> tuple[list[str], bool]:
    """Ids that stand once each, and whether they come from an id column.

    LLaVA-Rad's `id` stands for several films of a study: where the user did not name it, image names are ids instead.
    """
    ids = [text(value) for value in table.column(roles["id"])] if "id" in roles else None
    doubled = len(names) - len(set(names))
    if ids is not None and (named or doubled or len(set(ids)) == len(ids)):
        once(ids, f"id of {table.source}", "make ids unique, or name a column of unique ones with --id-column")
        notes |= {"image-repeated": doubled} if doubled else {}
        return ids, True
    if ids is not None:
        notes["id-repeated"] = len(ids) - len(set(ids))
    once(names, f"image of {table.source}", "drop the repeated rows, or give each row an id in a column `id`")
    return names, False


def once(values: Sequence[str], what: str, step: str) -> None:
    repeated = len(values) - len(set(values))
    if repeated:
        raise ValueError(
            f"expected every {what} once, got {repeated} repeats, e.g. {tables.repeats(values)[:5]}; {step}"
        )


def _image_folder(path: Path) -> ImageSet:
    files = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in images.SUFFIXES and p.is_file() and not p.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"expected images ({', '.join(sorted(images.SUFFIXES))}) or Parquet shards in {path}, found none"
        )
    return ImageSet(str(path), [str(p.relative_to(path)) for p in files], files.__getitem__)


def _names_files(table: Table, column: str) -> bool:
    """Whether the image column holds names, not images; its first cell that is not empty tells."""
    cells = (table.cell(column, row) for row in range(table.count))
    return isinstance(next((cell for cell in cells if cell is not None), None), str)


def _texts(table: Table, column: str | None, notes: dict[str, int], note: str) -> list[str] | None:
    if column is None:
        return None
    texts = [text(value) for value in table.column(column)]
    empty = sum(not text.strip() for text in texts)
    if empty == len(texts):
        return None
    notes |= {note: empty} if empty else {}
    return texts


def _owners(table: Table, column: str | None, notes: dict[str, int]) -> list[str] | None:
    """Patients; a film whose patient is not known is a patient of its own."""
    texts = _texts(table, column, notes, "patient-empty")
    return None if texts is None else [text or f"unknown, row {row}" for row, text in enumerate(texts)]


def text(value: Any) -> str:
    """A cell as text; empty where nothing is there."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _as_dict(row: np.ndarray | None) -> dict[str, int | None]:
    if row is None:
        return records.labels_dict()
    return {label: None if np.isnan(v) else int(v) for label, v in zip(records.LABELS, row, strict=True)}
