"""MIMIC-CXR-JPG and MIMIC-CXR (Johnson et al. 2019) with their CSVs and reports, and LLaVA-Rad's annotations of them.

A film lies at files/p10/p10000032/s50414267/<dicom_id>.jpg or .dcm. Labels and reports belong to a study, so all its
films share them. All of it is credentialed: nothing here is shipped, the files are the user's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from synthchex.data import records, tables
from synthchex.data.importers.listing import Given, Listing, find, label_states, listed, lookup, need, read, take

FILM = re.compile(r"(p\d\d)/p(\d{8})/s(\d{8})/([^/]+)$")
HEADING = re.compile(r"^[ \t]*([A-Z][A-Z ()/,-]+):", re.MULTILINE)
LABELS = {
    "chexpert": "mimic-cxr-2.0.0-chexpert.csv",
    "negbio": "mimic-cxr-2.0.0-negbio.csv",
    "radiologist": "mimic-cxr-2.1.0-test-set-labeled.csv",
}
KEYS = ("dicom_id", "subject_id", "study_id")


def mimic_jpg(given: Given) -> Listing:
    """MIMIC-CXR-JPG: metadata, split and label tables lie beside the films."""
    films = read(need(given, "mimic-cxr-2.0.0-metadata.csv"), needs=(*KEYS, "ViewPosition"))
    need(given, "mimic-cxr-2.0.0-split.csv")
    return _tree(given, films, ".jpg", films["ViewPosition"].tolist())


def mimic_dicom(given: Given) -> Listing:
    """MIMIC-CXR: cxr-record-list.csv beside the films; split, views and labels where --tables names a folder that has
    those of MIMIC-CXR-JPG.
    """
    beside = Given(given.name, given.source)
    path = find(given, "cxr-record-list.csv") or need(beside, "cxr-record-list.csv")
    films = read(path, needs=KEYS)
    meta = find(given, "mimic-cxr-2.0.0-metadata.csv")
    views: Sequence[Any] = [None] * len(films)
    if meta is not None:
        seen = read(meta, needs=("dicom_id", "ViewPosition"), only=("dicom_id", "ViewPosition"))
        views = lookup(seen["dicom_id"].tolist(), seen["ViewPosition"].tolist(), films["dicom_id"].tolist())
    return _tree(given, films, ".dcm", views)


def llava_rad(given: Given) -> Listing:
    """LLaVA-Rad's annotations, CSV as CheXGenBench reads them or JSON as published, joined to a tree of films.

    Findings are `annotated_prompt`, or the answer of the published conversation. A film annotated twice, by GPT-4 and
    by rules, keeps GPT-4's. `id` names a study there, so films are known by their dicom_id here.

    Raises:
        ValueError: no --annotations, or a path in them that names no film of MIMIC-CXR.
    """
    if given.annotations is None:
        raise ValueError(
            f"{given.name} expects LLaVA-Rad's annotations, got none; give your own credentialed copy "
            "(LLAVARAD_ANNOTATIONS_TRAIN.csv, or the published JSON) with --annotations"
        )
    table = _annotations(given.annotations)
    column = next((name for name in ("path", "image") if name in table.columns), None)
    if column is None:
        raise ValueError(
            f"expected a column path or image in {given.annotations}, got {list(table.columns)}; "
            "check that it is LLaVA-Rad's annotation table"
        )
    places = [_place(str(name), row, given.annotations) for row, name in enumerate(table.column(column))]
    kept = _once([place[3] for place in places], _column(table, "generate_method"))
    states = tables.label_states(table, "chexpert_labels" if "chexpert_labels" in table.columns else None)
    films = pd.DataFrame([places[row][1:] for row in kept], columns=["subject_id", "study_id", "dicom_id"])
    views = _column(table, "view")
    given_splits = _column(table, "split")
    texts = {
        "findings": _column(table, "annotated_prompt") or [_answer(cell) for cell in _column(table, "conversations")],
        "impression": _column(table, "impression"),
    }
    columns = _columns(given, films, ".jpg", [views[row] for row in kept] if views else [None] * len(kept))
    columns |= {name: [cells[row] for row in kept] for name, cells in texts.items() if cells}
    if given_splits and not any(columns["split"]):
        columns["split"] = [given_splits[row] for row in kept]
    without = given.labels == "none" or states is None
    return listed(
        columns,
        labels=None if states is None or without else states[kept],
        labels_from=None if without else given.annotations.name,
        left_out={"annotated-twice": len(places) - len(kept)} if len(kept) < len(places) else {},
    )


def _tree(given: Given, films: pd.DataFrame, suffix: str, views: Sequence[Any]) -> Listing:
    """A tree's films with the labels, split and reports of their studies."""
    columns = _columns(given, films, suffix, views)
    studies = films["study_id"].tolist()
    remarks = [] if any(columns["split"]) else ["no mimic-cxr-2.0.0-split.csv: films have no split"]
    if given.reports is not None:
        columns |= _reports(given.reports, films)
    labels, source = None, None
    chosen = given.labels or "chexpert"
    path = None if chosen == "none" else find(given, LABELS[chosen])
    if path is None and chosen != "none" and (given.labels or suffix == ".jpg"):
        need(given, LABELS[chosen])
    if path is not None:
        frame = read(path, needs=("study_id",))
        labels, source = take(label_states(frame, path), frame["study_id"].tolist(), studies), path.name
        others = sorted({*frame.columns} - {*records.LABELS, "subject_id", "study_id"})
        remarks += [f"columns of {path.name} that are no CheXpert label: {others}"] if others else []
    return listed(columns, labels=labels, labels_from=source, remarks=remarks)


def _columns(given: Given, films: pd.DataFrame, suffix: str, views: Sequence[Any]) -> dict[str, Sequence[Any]]:
    split = find(given, "mimic-cxr-2.0.0-split.csv")
    base = given.image_dir or given.source
    root = "files/" if (base / "files").is_dir() else ""
    keys = zip(films["subject_id"], films["study_id"], films["dicom_id"], strict=True)
    splits: Sequence[Any] = [None] * len(films)
    if split is not None:
        frame = read(split, needs=("dicom_id", "split"), only=("dicom_id", "split"))
        splits = lookup(frame["dicom_id"].tolist(), frame["split"].tolist(), films["dicom_id"].tolist())
    return {
        "name": [f"{root}p{patient[:2]}/p{patient}/s{study}/{film}{suffix}" for patient, study, film in keys],
        "id": films["dicom_id"].tolist(),
        "patient": films["subject_id"].tolist(),
        "study": films["study_id"].tolist(),
        "view": views,
        "split": splits,
    }


def _reports(source: Path, films: pd.DataFrame) -> dict[str, Sequence[Any]]:
    """Findings and impression of each film's study.

    From the table that MIMIC's own create_section_files.py writes, or from the reports themselves, where a section is
    what stands between its heading, FINDINGS or IMPRESSION, and the next one. The table finds more of them.

    Raises:
        ValueError: neither is there.
    """
    if source.is_file():
        frame = read(source, needs=("study", "findings", "impression"))
        keys = [name.removeprefix("s") for name in frame["study"]]
        wanted = films["study_id"].tolist()
        return {name: lookup(keys, frame[name].tolist(), wanted) for name in ("findings", "impression")}
    root = source / "files" if (source / "files").is_dir() else source
    studies = films[["subject_id", "study_id"]].drop_duplicates()
    texts: dict[str, dict[str, str]] = {}
    for patient, study in studies.itertuples(index=False):
        path = root / f"p{patient[:2]}" / f"p{patient}" / f"s{study}.txt"
        if path.is_file():
            texts[study] = _sections(path.read_text())
    if not texts:
        raise ValueError(
            f"expected reports such as {root}/p10/p10000032/s50414267.txt, found none; "
            "give the folder of mimic-cxr-reports.zip, or mimic_cxr_sectioned.csv, with --reports"
        )
    rows = [texts.get(study, {}) for study in films["study_id"]]
    return {name: [row.get(name.upper()) for row in rows] for name in ("findings", "impression")}


def _sections(text: str) -> dict[str, str]:
    """Text below each heading of a report, its lines joined; the last one of a name stands."""
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {
        heading[1].strip(): " ".join(text[heading.end() : end].split())
        for heading, end in zip(headings, ends, strict=True)
    }


def _annotations(path: Path) -> tables.Table:
    """LLaVA-Rad's annotations as a table: a JSON list as published, or any table file."""
    if path.suffix != ".json":
        return tables.open_table(path)
    rows = json.loads(path.read_text())
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"expected a list of annotations in {path}, got {type(rows).__name__}; check the file")
    names = list(rows[0])
    return tables.Table(
        str(path), names, len(rows), lambda name: [row.get(name) for row in rows], lambda name, i: rows[i].get(name)
    )


def _place(name: str, row: int, source: Path) -> tuple[str, str, str, str]:
    """Group, patient, study and dicom_id of a path such as mimic/p10/p10000032/s50414267/<dicom_id>.jpg."""
    found = FILM.search(name)
    if found is None:
        raise ValueError(
            f"expected a path ending in p10/p10000032/s50414267/<dicom_id>.jpg in {source}, got {name!r} in row {row}; "
            "check that it is LLaVA-Rad's annotation table"
        )
    return found[1], found[2], found[3], tables.film_stem(found[4])


def _once(films: Sequence[str], methods: Sequence[Any] | None) -> list[int]:
    """Rows to keep: of the rows of one film GPT-4's, else its first."""
    first: dict[str, int] = {}
    for row, film in enumerate(films):
        if film not in first or (methods and methods[row] == "gpt4" and methods[first[film]] != "gpt4"):
            first[film] = row
    return sorted(first.values())


def _column(table: tables.Table, name: str) -> list[Any]:
    return table.column(name) if name in table.columns else []


def _answer(cell: Any) -> str | None:
    """What the published conversation answers."""
    turns = cell if isinstance(cell, list) else []
    return next((turn["value"] for turn in turns if turn.get("from") == "gpt"), None)
