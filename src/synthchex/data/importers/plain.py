"""Films that are no published set: any folder, table, shards or saved dataset, and CheXGenBench's output folders."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from synthchex.data import sources, tables
from synthchex.data.importers.listing import Given, Listing, listed

GENERATIONS = "generations_with_metadata.csv"
EXTRA = {"study": ("study", "study_id"), "split": ("split",)}


def plain(given: Given) -> Listing:
    """Whatever `sources.open_images` opens, with a study and a split where the table has such columns."""
    films = sources.open_images(given.source, columns=given.columns, image_dir=given.image_dir, missing="count")
    columns: dict[str, Any] = {
        "id": films.ids,
        "patient": _known(films.patients),
        "view": films.views or [],
        "report": films.prompts or [],
        **_extra(given.source),
    }
    has_files = isinstance(films.fetch(0), Path)
    if has_files:
        columns["name"] = [str(films.fetch(row).absolute()) for row in range(len(films))]
    without = given.labels == "none" or films.labels is None
    return listed(
        {name: cells for name, cells in columns.items() if cells},
        labels=None if without else films.labels,
        labels_from=None if without else Path(films.source).name,
        remarks=[f"{note}: {count}" for note, count in films.notes.items() if note != "missing"],
        fetch=None if has_files else films.fetch,
    )


def chexgenbench(given: Given) -> Listing:
    """CheXGenBench's output folder: generations_with_metadata.csv, the prompts' table with `synthetic_filename`.

    Prompts are MIMIC-CXR reports, so the set is credentialed. Patient, study and view of the table are those of the
    real film that the prompt belongs to, and are not those of the synthetic one. Where rows with different prompts
    name one film, as the later overwrote the earlier, its prompt cannot be told: these rows are left out.
    """
    path = given.source if given.source.is_file() else given.source / GENERATIONS
    if not path.is_file():
        raise ValueError(
            f"{given.name} expects {GENERATIONS} in {given.source}, found none; "
            "give the folder that generate_data_common.py wrote with --source"
        )
    table = tables.open_table(path)
    wanted = ("image", "prompt")
    roles = tables.resolve(table, given.columns, needed=wanted, optional=("labels",), side="synthetic")
    names, prompts = (table.column(roles[role]) for role in wanted)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[name].append(row)
    kept = [rows[0] for rows in rows_of.values() if len({prompts[row] for row in rows}) == 1]
    unsure = sum(len(rows) for rows in rows_of.values() if len({prompts[row] for row in rows}) > 1)
    repeated = len(names) - unsure - len(kept)
    left_out = {"film-of-several-prompts": unsure, "row-repeated": repeated}
    labels = None if given.labels == "none" else tables.label_states(table, roles.get("labels"))
    base = given.image_dir or path.parent
    return listed(
        {
            "name": [str((base / names[row]).absolute()) for row in kept],
            "id": [tables.film_stem(names[row]) for row in kept],
            "report": [prompts[row] for row in kept],
        },
        labels=None if labels is None else labels[kept],
        labels_from=None if labels is None else path.name,
        left_out={reason: count for reason, count in left_out.items() if count},
        remarks=["labels are those of the report that prompted a film, not of the film"] if labels is not None else [],
    )


def _known(patients: Any) -> list[str | None]:
    """Patients without the stand-ins that `sources` gives to films of an unknown one."""
    return [None if str(name).startswith("unknown, row ") else name for name in patients or []]


def _extra(source: Path) -> dict[str, list[Any]]:
    if source.is_dir() and not tables.is_dataset_folder(source):
        return {}
    table = tables.open_table(source)
    known = {column.strip().lower(): column for column in table.columns}
    found = {role: next((known[name] for name in names if name in known), None) for role, names in EXTRA.items()}
    return {role: table.column(column) for role, column in found.items() if column is not None}
