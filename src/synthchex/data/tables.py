"""Rows and columns of any source: which column plays which role, what label cells say, where the named films lie.

Column names are those found in the wild, CheXGenBench's and LLaVA-Rad's among them; a column that cannot be told is an
error that lists the columns there are.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from synthchex.data import columns, images, records, shards
from synthchex.data.files import Files

if TYPE_CHECKING:
    import pyarrow

Side = Literal["real", "synthetic"]
Missing = Literal["error", "count"]

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "dicom_id", "image_id"),
    "image": (
        "image", "image_path", "path", "file_name", "filename", "image_filename", "img_savename", "synthetic_filename",
    ),
    "prompt": ("prompt", "annotated_prompt", "caption", "text", "report"),
    "labels": ("labels_dict", "chexpert_labels", "labels"),
    "patient": ("patient", "patient_id", "patientid", "subject_id"),
    "view": ("view", "viewposition", "view_position"),
}  # fmt: skip
# CheXGenBench's generator adds such a column to the table that it read, whose `path` still names the real film.
GENERATED = ("img_savename", "synthetic_filename")
SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
LISTED = 8  # from this many names in one folder on, listing it is cheaper than asking for each


@dataclass(frozen=True)
class Table:
    """Rows of any tabular source: whole columns by name, single cells of the image column by row.

    `states` gives the label states of a column that holds nothing else, without a dict per row, or None; `arrow` gives
    a column in Arrow, without a Python object per row, or None.
    """

    source: str
    columns: Sequence[str]
    count: int
    column: Callable[[str], list[Any]]
    cell: Callable[[str, int], Any]
    states: Callable[[str], np.ndarray | None] = lambda name: None
    arrow: Callable[[str], pyarrow.ChunkedArray | None] = lambda name: None


def open_table(source: str | Path, *, split: str = "train", revision: str | None = None, whole: bool = True) -> Table:
    """Open anything with rows and columns: .csv, .tsv, .jsonl, .parquet, shards, a saved dataset, a Hub id.

    Of a folder of shards all rows, or, not `whole`, those of `default_files`.

    Raises:
        ValueError: nothing of that name, no table, no such split.
    """
    path = Path(source)
    if path.is_file():
        return _file_table(path)
    if path.is_dir():
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            return _dataset_table(_from_disk(path, split), str(source))
        return _parquet_table(str(source), shards.parquet_files(path) if whole else default_files(path))
    if path.is_absolute() or str(source).startswith(".") or path.suffix in SUFFIXES or str(source).count("/") > 1:
        raise ValueError(f"expected a file, folder or Hub dataset id, got {source}, which is not there; check the path")
    from datasets import load_dataset

    return _dataset_table(load_dataset(str(source), split=split, revision=revision), str(source))


def default_files(folder: Path) -> list[Path]:
    """Shards that `load_dataset` reads where no configuration is named; all of them where no card names any.

    Of what `synthchex build --all` wrote, that leaves out the dropped films, which only the configuration `all` names.

    Raises:
        ValueError: shards are missing, or there are none, or the card's header cannot be read.
    """
    files, card = shards.parquet_files(folder), folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    if "configs:" not in text:
        return files
    import yaml
    from datasets.data_files import sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        configs = MetadataConfigs.from_dataset_card_data(DatasetCard(text, ignore_metadata_errors=True).data)
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(
            f"expected a card whose header names configurations, got {error} in {card}; mend it"
        ) from error
    named = configs.get(configs.get_default_config_name() or "", {}).get("data_files")
    patterns = [pattern for found in sanitize_patterns(named).values() for pattern in found] if named else []
    return [path for path in files if any(path.relative_to(folder).match(pattern) for pattern in patterns)] or files


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder holds rows (shards or a saved dataset), not image files."""
    return any((path / name).exists() for name in (shards.MANIFEST, "state.json", "dataset_dict.json")) or any(
        True for pattern in ("data/*.parquet", "*.parquet") for _ in path.glob(pattern)
    )


def resolve(
    table: Table,
    given: Mapping[str, str] | None,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    side: Side | None = None,
) -> dict[str, str]:
    """Which column plays which role: the one given, the one named as the role, or the only known alias.

    Args:
        table: what to look in.
        given: columns that the user named, by role.
        needed: roles that must have a column.
        optional: roles that may have one.
        side: settles `path` beside `synthetic_filename` or `img_savename`: the former is the real film.

    Raises:
        ValueError: a given column is not there, a needed role has no column, or two columns could play it.
    """
    names: dict[str, str] = {}
    for role in (*needed, *optional):
        if given and role in given:
            if given[role] not in table.columns:
                raise ValueError(
                    f"{table.source} has no column {given[role]!r} for the {role}; its columns are "
                    f"{list(table.columns)}"
                )
            names[role] = given[role]
            continue
        matches = _matches(table.columns, role, side)
        if len(matches) > 1:
            raise ValueError(
                f"{table.source} has {len(matches)} columns that may hold the {role}: {matches}; "
                f"name one with --{role}-column"
            )
        if matches:
            names[role] = matches[0]
        elif role in needed:
            raise ValueError(
                f"{table.source} has no {role} column: expected one of {list(ALIASES[role])}, "
                f"its columns are {list(table.columns)}; name one with --{role}-column"
            )
    return names


def label_states(table: Table, column: str | None) -> np.ndarray | None:
    """Label states of every row, from a mapping (struct, or text as Python or JSON) or from one column per label.

    Returns:
        float32 (N, 14): 1, 0, -1 uncertain, NaN not mentioned; None where the table has no labels.

    Raises:
        ValueError: a cell that is no state, or names another label; with its row.
    """
    if column is not None:
        if (found := table.states(column)) is not None:
            return found
        rows = _each(table.column(column), f"{table.source}, column {column!r}", _states_of)
        return np.array(rows, np.float32).reshape(-1, len(records.LABELS))
    present = [label for label in records.LABELS if label in table.columns]
    states = np.full((table.count, len(records.LABELS)), np.nan, np.float32)
    for label in present:
        cells = _each(table.column(label), table.source, partial(_state, label=label))
        states[:, records.LABELS.index(label)] = cells
    return states if present else None


def find_films(
    names: Sequence[str], base: Path, *, source: str, missing: Missing = "error"
) -> tuple[Files, dict[str, int]]:
    """The files that a table names, looked for before anything is decoded.

    A name is relative to `base`. One that is not there is looked for below `base` by its stem: without a suffix or with
    another one (.dcm named, .jpg there), and with more or fewer leading folders, so long as those that both have agree.

    Args:
        names: of the image column, one per row.
        base: folder that names are relative to.
        source: what to call the table in messages.
        missing: "error", or "count" to leave rows without a file to the reader, which counts them as missing.

    Returns:
        One path per row, and notes: {"found-by-stem": rows that were found only so, "missing": rows without a file}.

    Raises:
        ValueError: rows without exactly one file (how many, the first few), or not one row with a file.
    """
    files = Files(base, names)
    lost = [row for row, there in enumerate(_present(files)) if not there]
    if not lost:
        return files, {}
    candidates = _by_stem([names[row] for row in lost], base)
    claims: dict[Path, set[str]] = defaultdict(set)
    for name, found in candidates.items():
        for path in found:
            claims[path].add(name)
    for path, name in zip(files, names, strict=True):
        if path in claims:
            claims[path].add(name)
    # A file that two names could mean is the film of neither.
    sure = {name: f[0] for name, f in candidates.items() if len(f) == 1 and len(claims[f[0]]) == 1}
    files = Files(base, names, {row: sure[names[row]] for row in lost if names[row] in sure})
    unsure = [names[row] for row in lost if names[row] not in sure]
    if unsure and (missing == "error" or len(unsure) == len(names)):
        raise ValueError(_lost_message(unsure, candidates, base, source, len(names)))
    notes = {"found-by-stem": len(lost) - len(unsure), "missing": len(unsure)}
    return files, {note: count for note, count in notes.items() if count}


def film_stem(name: str) -> str:
    """A name without its image suffix; other dots stay, as in DICOM identifiers."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in images.SUFFIXES else name


def repeats(values: Sequence[str]) -> list[str]:
    """Values that stand more than once, in order."""
    return [value for value, count in Counter(values).items() if count > 1]


def _matches(columns: Sequence[str], role: str, side: Side | None) -> list[str]:
    found = {column: column.strip().lower() for column in columns if column.strip().lower() in ALIASES[role]}
    # "image" beside "filename" is our own layout: a column named as the role wins.
    own = [column for column, name in found.items() if name == role]
    if not own and role == "image" and side is not None:
        own = [column for column, name in found.items() if (name in GENERATED) == (side == "synthetic")]
    single = [label for label in records.LABELS if role == "labels" and found and label in columns]
    return (own or list(found)) + single


def _each(cells: Sequence[Any], where: str, read: Callable[[Any], Any]) -> list[Any]:
    """`read` of every cell, once per distinct cell; an error says in which row."""
    known: dict[str, Any] = {}
    for row, cell in enumerate(cells):
        key = str(cell)
        if key not in known:
            try:
                known[key] = read(cell)
            except ValueError as error:
                raise ValueError(f"{where}, row {row}: {error}") from error
    return [known[str(cell)] for cell in cells]


def _state(cell: Any, label: str) -> float:
    state = records.label_state(cell, label)
    return np.nan if state is None else float(state)


def _states_of(cell: Any) -> list[float]:
    return [np.nan if state is None else float(state) for state in records.labels_dict(_mapping(cell)).values()]


def _mapping(cell: Any) -> Mapping[str, Any]:
    if isinstance(cell, Mapping):
        return cell
    text = "" if cell is None else str(cell).strip()
    if text.lower() in ("", "nan", "none", "null"):
        return {}
    for reader in (json.loads, lambda text: ast.literal_eval(re.sub(r"\bnan\b", "None", text, flags=re.IGNORECASE))):
        try:
            parsed = reader(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(parsed, Mapping):
            return parsed
    raise ValueError(f"labels must be a mapping of CheXpert labels to 1, 0, -1 or empty, got {text[:80]!r}")


def _present(files: Sequence[Path]) -> list[bool]:
    """Which files are there; folders with many of them are listed once, as each question costs a network disk much."""
    counts = Counter(path.parent for path in files)
    crowded = {folder for folder, count in counts.items() if count >= LISTED and folder.is_dir()}
    listed = {folder: {entry.name for entry in os.scandir(folder) if entry.is_file()} for folder in crowded}
    return [path.name in listed.get(path.parent, ()) or path.is_file() for path in files]


def _by_stem(names: Sequence[str], base: Path) -> dict[str, list[Path]]:
    """For each name the films below `base` with its stem, in agreement on the folders that both name."""
    wanted = {name: _parts(name) for name in names}
    stems = {parts[-1] for parts in wanted.values() if parts}
    found: dict[str, list[tuple[tuple[str, ...], Path]]] = defaultdict(list)
    for folder, _, files in os.walk(base):
        for file in files:
            stem = film_stem(file)
            if stem != file and stem in stems:
                path = Path(folder) / file
                found[stem].append((_parts(str(path.relative_to(base))), path))
    return {
        name: sorted(path for other, path in found[parts[-1]] if _agree(parts, other)) if parts else []
        for name, parts in wanted.items()
    }


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in film_stem(name).split("/") if part not in ("", "."))


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def _lost_message(
    unsure: Sequence[str], candidates: Mapping[str, list[Path]], base: Path, source: str, rows: int
) -> str:
    several = {name: [str(path.relative_to(base)) for path in candidates[name]] for name in unsure if candidates[name]}
    text = (
        f"expected the film of every row of {source} in {base}, got {len(unsure)} of {rows} without one, "
        f"e.g. {list(unsure[:3])}"
    )
    if several:
        name = next(iter(several))
        text += f"; {len(several)} names may mean more than one file or share one, e.g. {name!r}: {several[name][:3]}"
    return f"{text}; give the folder they are in with --image-dir, or drop these rows"


def _file_table(path: Path) -> Table:
    if path.suffix == ".parquet":
        return _parquet_table(str(path), [path])
    return text_table(path, path.suffix, str(path))


def text_table(file: Path | IO[bytes], suffix: str, source: str) -> Table:
    """A .csv, .tsv or .jsonl file, or one that is open, in memory; `ValueError` for another kind or no header."""
    import pandas as pd

    if suffix not in (".csv", ".tsv", ".jsonl"):
        raise ValueError(f"expected a table ({', '.join(SUFFIXES)}), got {source}; convert it or give a folder")
    if suffix == ".jsonl":
        frame = pd.read_json(file, lines=True, dtype=False)
    else:
        comma = "\t" if suffix == ".tsv" else ","
        # ids such as 0012 stay as written; cells are read as text and typed where they are used.
        try:
            frame = pd.read_csv(file, sep=comma, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except ValueError as error:
            raise ValueError(f"expected a table with a header, got {source}: {error}; check its format") from error
    return Table(
        source,
        list(frame.columns),
        len(frame),
        lambda n: frame[n].tolist(),
        lambda n, i: frame[n].iloc[i],
        arrow=lambda n: columns.text(frame[n]),
    )


def _parquet_table(source: str, files: list[Path]) -> Table:
    rows = shards.Rows(files)
    return Table(
        source,
        rows.columns,
        len(rows),
        rows.column,
        lambda name, index: rows[index][name],
        lambda name: columns.label_states(rows.arrow(name)),
        rows.arrow,
    )


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
