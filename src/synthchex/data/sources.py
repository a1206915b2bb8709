"""Any set of films or prompts that a user has, as one thing: folder, table, Parquet shards, saved dataset, Hub id.

Column names are those found in the wild; a column that cannot be told is an error that lists the columns there are.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import images, records, shards

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "dicom_id", "image_id"),
    "image": ("image", "image_path", "path", "file_name", "filename", "img_savename", "synthetic_filename"),
    "prompt": ("prompt", "annotated_prompt", "caption", "text", "report"),
    "labels": ("labels_dict", "chexpert_labels", "labels"),
    "patient": ("patient", "patient_id", "subject_id", "patientid"),
    "seed": ("seed",),
}
KEPT_COLUMNS = (*records.PROVENANCE_COLUMNS, *records.VERDICT_COLUMNS)
TABLES = (".csv", ".tsv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class ImageSet:
    """Films with what is known of them, in a fixed order. Pixels are fetched one at a time.

    `labels` is float32 (N, 14): 1, 0, -1 uncertain, NaN not mentioned. `prompts`, `labels`, `patients` are None where
    unknown.
    """

    source: str
    ids: Sequence[str]
    fetch: Callable[[int], Any]
    prompts: Sequence[str] | None = None
    labels: np.ndarray | None = None
    patients: Sequence[str] | None = None
    provenance: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> dict[str, Any]:
        """What is known of one film as a record, without its image."""
        labels = None if self.labels is None else self.labels[index]
        return {
            "id": self.ids[index],
            "filename": f"{_file_stem(self.ids[index])}.png",
            "prompt": None if self.prompts is None else self.prompts[index],
            "labels_dict": _as_dict(labels),
            **{name: values[index] for name, values in self.provenance.items()},
        }

    def fingerprint(self) -> str:
        """Hash of what the set is: ids, prompts, and the manifest or the files' sizes and times."""
        manifest = Path(self.source) / shards.MANIFEST
        if manifest.is_file():
            state: Any = manifest.read_text()
        else:
            paths = [self.fetch(index) for index in range(len(self))] if Path(self.source).exists() else []
            state = [
                (s.st_size, s.st_mtime_ns) for s in (p.stat() for p in paths if isinstance(p, Path) and p.exists())
            ]
        return records.fingerprint([list(self.ids), self.prompts and list(self.prompts), state])


@dataclass(frozen=True)
class Table:
    """Rows of any tabular source: whole columns by name, single cells of the image column by row."""

    source: str
    columns: Sequence[str]
    count: int
    column: Callable[[str], list[Any]]
    cell: Callable[[str, int], Any]


def open_images(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    image_dir: str | Path | None = None,
    split: str = "train",
    revision: str | None = None,
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

    Raises:
        ValueError: nothing readable there, no images, unknown or ambiguous columns, ids that stand twice.
    """
    path = Path(source)
    if path.is_dir() and not _is_dataset_folder(path):
        return _image_folder(path)
    table = open_table(source, split=split, revision=revision)
    names = resolve(
        table.columns, columns, needed=("image",), optional=("id", "prompt", "labels", "patient"), source=table.source
    )
    if path.is_file() and not _holds_images(table, names["image"]):
        files = [_beside(path, image_dir, name) for name in table.column(names["image"])]
        fetch: Callable[[int], Any] = files.__getitem__
        default_ids = [str(name) for name in table.column(names["image"])]
    else:
        fetch = lambda index: table.cell(names["image"], index)  # noqa: E731
        default_ids = [f"{index:08d}" for index in range(table.count)]
    return ImageSet(
        source=table.source,
        ids=unique_ids(
            [str(value) for value in table.column(names["id"])] if "id" in names else default_ids, table.source
        ),
        fetch=fetch,
        prompts=[str(value) for value in table.column(names["prompt"])] if "prompt" in names else None,
        labels=_labels(table, names.get("labels")),
        patients=[str(value) for value in table.column(names["patient"])] if "patient" in names else None,
        provenance={name: table.column(name) for name in KEPT_COLUMNS if name in table.columns and name != "id"},
    )


def open_prompts(
    source: str | Path, *, columns: Mapping[str, str] | None = None, split: str = "train"
) -> list[dict[str, Any]]:
    """Prompts as rows {"id", "prompt", "labels_dict"}, from any source with a prompt column, or a .txt of one a line.

    Raises:
        ValueError: no prompts, an empty prompt (its rows are named), unknown columns, ids that stand twice.
    """
    path = Path(source)
    if path.suffix == ".txt" and path.is_file():
        texts = [line for line in path.read_text().splitlines() if line.strip()]
        table = Table(str(path), ["prompt"], len(texts), lambda name: texts, lambda name, index: texts[index])
    else:
        table = open_table(source, split=split)
    names = resolve(table.columns, columns, needed=("prompt",), optional=("id", "labels"), source=table.source)
    prompts = [("" if value is None else str(value)).strip() for value in table.column(names["prompt"])]
    empty = [index for index, prompt in enumerate(prompts) if not prompt or prompt.lower() == "nan"]
    if not prompts:
        raise ValueError(f"expected prompts in {source}, got 0 rows")
    if empty:
        raise ValueError(
            f"expected a prompt in every row of {source}, got {len(empty)} "
            f"empty ones (rows {empty[:5]}); fill or drop them"
        )
    ids = (
        [str(value) for value in table.column(names["id"])]
        if "id" in names
        else [f"{index:08d}" for index in range(len(prompts))]
    )
    labels = _labels(table, names.get("labels"))
    rows = zip(unique_ids(ids, str(source)), prompts, range(len(prompts)), strict=True)
    return [{"id": i, "prompt": p, "labels_dict": _as_dict(None if labels is None else labels[n])} for i, p, n in rows]


def open_table(source: str | Path, *, split: str = "train", revision: str | None = None) -> Table:
    """Open anything with rows and columns; see `open_images` for what `source` may be."""
    path = Path(source)
    if path.is_file():
        return _file_table(path)
    if path.is_dir():
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            return _dataset_table(_from_disk(path, split), str(source))
        rows = shards.Rows(shards.parquet_files(path))
        return Table(str(source), rows.columns, len(rows), rows.column, lambda name, index: rows[index][name])
    if path.is_absolute() or str(source).startswith(".") or path.suffix in TABLES or str(source).count("/") > 1:
        raise ValueError(f"expected a file, folder or Hub dataset id, got {source}, which is not there; check the path")
    from datasets import load_dataset

    return _dataset_table(load_dataset(str(source), split=split, revision=revision), str(source))


def resolve(
    found: Sequence[str],
    given: Mapping[str, str] | None,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    source: str,
) -> dict[str, str]:
    """Which column plays which role.

    Raises:
        ValueError: a given column is not there, a needed role has no column, or two columns could play it.
    """
    names: dict[str, str] = {}
    for role in (*needed, *optional):
        if given and role in given:
            if given[role] not in found:
                raise ValueError(
                    f"{source} has no column {given[role]!r} for the {role}; its columns are {list(found)}"
                )
            names[role] = given[role]
            continue
        # "image" beside "filename" is our own layout: the first alias wins where it is the role's own name.
        matches = [column for column in found if column.lower() in ALIASES[role]]
        if role in matches:
            matches = [role]
        if len(matches) > 1:
            raise ValueError(
                f"{source} has {len(matches)} columns that may hold "
                f"the {role}: {matches}; name one with --{role}-column"
            )
        if matches:
            names[role] = matches[0]
        elif role in needed:
            raise ValueError(
                f"{source} has no {role} column: expected one of {list(ALIASES[role])}, "
                f"its columns are {list(found)}; name one with --{role}-column"
            )
    return names


def unique_ids(ids: list[str], source: str) -> list[str]:
    """The ids, when each stands once."""
    if len(set(ids)) != len(ids):
        twice = sorted({value for value in ids if ids.count(value) > 1} if len(ids) < 5000 else _repeated(ids))[:5]
        raise ValueError(
            f"expected every id of {source} once, got {len(ids) - len(set(ids))} repeats, e.g. {twice}; make ids unique"
        )
    return ids


def _file_stem(row_id: str) -> str:
    """An id as a file name: path separators would make folders of it."""
    return row_id.removesuffix(Path(row_id).suffix if Path(row_id).suffix.lower() in images.SUFFIXES else "").replace(
        "/", "_"
    )


def _repeated(ids: list[str]) -> set[str]:
    seen: set[str] = set()
    return {value for value in ids if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


def _is_dataset_folder(path: Path) -> bool:
    return any((path / name).exists() for name in (shards.MANIFEST, "state.json", "dataset_dict.json")) or any(
        True for pattern in ("data/*.parquet", "*.parquet") for _ in path.glob(pattern)
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


def _file_table(path: Path) -> Table:
    import pandas as pd

    if path.suffix == ".parquet":
        rows = shards.Rows([path])
        return Table(str(path), rows.columns, len(rows), rows.column, lambda name, index: rows[index][name])
    if path.suffix == ".jsonl":
        frame = pd.read_json(path, lines=True, dtype=False)
    elif path.suffix in (".csv", ".tsv"):
        # ids such as 0012 stay as written; cells are read as text and typed where they are used.
        frame = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    else:
        raise ValueError(f"expected a table ({', '.join(TABLES)}), got {path}; convert it or give a folder")
    return Table(str(path), list(frame.columns), len(frame), lambda n: frame[n].tolist(), lambda n, i: frame[n].iloc[i])


def _from_disk(path: Path, split: str) -> Any:
    from datasets import DatasetDict, load_from_disk

    loaded = load_from_disk(str(path))
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise ValueError(f"{path} has no split {split!r}; its splits are {list(loaded)}")
        return loaded[split]
    return loaded


def _dataset_table(dataset: Any, source: str) -> Table:
    from datasets import Image

    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
    return Table(source, dataset.column_names, len(dataset), lambda n: list(dataset[n]), lambda n, i: dataset[i][n])


def _holds_images(table: Table, column: str) -> bool:
    return table.count > 0 and isinstance(table.cell(column, 0), (dict, bytes))


def _beside(table: Path, image_dir: str | Path | None, name: str) -> Path:
    return Path(image_dir if image_dir is not None else table.parent) / str(name)


def _labels(table: Table, column: str | None) -> np.ndarray | None:
    """Label states of every row, from a dict column (struct, or text as Python or JSON) or from one column per
    label.
    """
    if column is not None:
        return np.array([_as_row(_parse(cell)) for cell in table.column(column)], np.float32).reshape(
            -1, len(records.LABELS)
        )
    present = [label for label in records.LABELS if label in table.columns]
    if not present:
        return None
    values = {label: table.column(label) for label in present}
    cells = ({label: values[label][row] for label in present} for row in range(table.count))
    return np.array([_as_row(cell) for cell in cells], np.float32).reshape(-1, len(records.LABELS))


def _parse(cell: Any) -> Mapping[str, Any]:
    if isinstance(cell, Mapping):
        return cell
    if cell is None or str(cell).strip() == "":
        return {}
    for reader in (json.loads, lambda text: ast.literal_eval(text.replace("nan", "None"))):
        try:
            parsed = reader(str(cell))
        except (ValueError, SyntaxError):
            continue
        if isinstance(parsed, Mapping):
            return parsed
    raise ValueError(f"labels must be a mapping of CheXpert labels to 1, 0, -1 or empty, got {str(cell)[:80]!r}")


def _as_row(cell: Mapping[str, Any]) -> list[float]:
    states = records.labels_dict(cell)
    return [np.nan if states[label] is None else float(states[label]) for label in records.LABELS]  # type: ignore[arg-type]


def _as_dict(row: np.ndarray | None) -> dict[str, int | None]:
    if row is None:
        return records.labels_dict()
    return {label: None if np.isnan(v) else int(v) for label, v in zip(records.LABELS, row, strict=True)}
