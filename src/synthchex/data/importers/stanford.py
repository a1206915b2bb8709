"""CheXpert (Irvin et al. 2019) and CheXpert Plus (Chambon et al. 2024): tables whose paths name patient and study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from synthchex.data.importers.listing import Given, Listing, find, label_states, listed, need, read, take

FILM = re.compile(r"(?:^|/)(?P<split>[^/]+)/(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<film>[^/]+)\.\w+$")
SPLITS = ("train", "valid", "test")
PLUS = (
    "path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "section_findings", "section_impression", "split",
)  # fmt: skip


def chexpert(given: Given) -> Listing:
    """CheXpert: train.csv, valid.csv and, where it is there, test.csv, with the 14 labels beside each path."""
    need(given, *(f"{split}.csv" for split in SPLITS))
    frames, sources = [], []
    for split in SPLITS:
        path = find(given, f"{split}.csv")
        if path is not None:
            frames.append(read(path, needs=("Path",)).assign(split=split))
            sources.append(path)
    frame = pd.concat(frames, ignore_index=True)
    states = [label_states(part, path) for part, path in zip(frames, sources, strict=True)]
    without = given.labels == "none"
    places = _places(frame["Path"])
    return listed(
        {
            # Paths start with the name of the folder that the archive unpacks to.
            "name": [re.sub(r"^CheXpert-v[^/]*/", "", name) for name in frame["Path"]],
            "id": [f"{place['patient']}_{place['study']}_{place['film']}" for place in places],
            "patient": [place["patient"] for place in places],
            "study": [f"{place['patient']}/{place['study']}" for place in places],
            "view": _views(frame, "Frontal/Lateral", "AP/PA"),
            "split": frame["split"],
        },
        labels=None if without else np.concatenate(states),
        labels_from=None if without else ", ".join(path.name for path in sources),
    )


def chexpert_plus(given: Given) -> Listing:
    """CheXpert Plus: df_chexpert_plus_240401.csv with reports by section, and one of its label files: the labeller's
    reading of the impression (default), the findings or the whole report.

    Films are PNG or DICOM in train/ and valid/ below --image-dir, whatever suffix the table names.
    """
    path = need(given, "df_chexpert_plus_240401.csv")
    frame = read(path, needs=PLUS, only=PLUS)
    chosen = given.labels or "impression"
    labels = None
    if chosen != "none":
        source = need(given, f"{chosen}_fixed.json")
        # One JSON object per line; blank labels are null.
        said = pd.read_json(source, lines=True, dtype=False)
        labels = take(label_states(said, source), said["path_to_image"].tolist(), frame["path_to_image"].tolist())
    places = _places(frame["path_to_image"])
    return listed(
        {
            "name": frame["path_to_image"],
            "id": [f"{place['patient']}_{place['study']}_{place['film']}" for place in places],
            "patient": frame["deid_patient_id"],
            "study": [f"{place['patient']}/{place['study']}" for place in places],
            "view": _views(frame, "frontal_lateral", "ap_pa"),
            "split": frame["split"],
            "findings": frame["section_findings"],
            "impression": frame["section_impression"],
        },
        labels=labels,
        labels_from=None if chosen == "none" else f"{chosen}_fixed.json",
    )


def _places(names: Sequence[str]) -> list[Any]:
    found = [FILM.search(name) for name in names]
    for row, (name, match) in enumerate(zip(names, found, strict=True)):
        if match is None:
            raise ValueError(
                f"expected a path such as train/patient00001/study1/view1_frontal.jpg, got {name!r} in row {row}; "
                "check that it is the published table"
            )
    return found


def _views(frame: pd.DataFrame, side: str, projection: str) -> list[str]:
    """AP, PA and the rest of frontal films, else what stands for the side: Lateral."""
    if side not in frame.columns or projection not in frame.columns:
        return [""] * len(frame)
    return [one or other for one, other in zip(frame[projection], frame[side], strict=True)]
