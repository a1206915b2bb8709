"""VinDr-CXR (Nguyen et al. 2022): annotations/image_labels_{train,test}.csv as on PhysioNet, and DICOM films."""

from __future__ import annotations

import numpy as np
import pandas as pd

from synthchex.data.importers import findings
from synthchex.data.importers.listing import Given, Listing, find, listed, need, read

NOT_FINDINGS = ("image_id", "rad_id")


def vindr(given: Given) -> Listing:
    """Films that radiologists labelled: three readers for each training film, one consensus for each test film.

    A finding that all readers of a film agree on has their state; where they disagree it is uncertain (-1). All films
    are posterior-anterior, as the paper says; the set names no patients.

    Raises:
        ValueError: a table has a cell other than 0 or 1.
    """
    need(given, "image_labels_train.csv", "image_labels_test.csv")
    parts = []
    for split in ("train", "test"):
        path = find(given, f"image_labels_{split}.csv")
        if path is not None:
            parts.append(_agreed(read(path, needs=("image_id",)), str(path)).assign(split=split))
    frame = pd.concat(parts)
    found = {name: frame[name].to_numpy(float) for name in frame.columns if name != "split"}
    labels, said = findings.to_labels(found, findings.VINDR)
    return listed(
        {
            "name": [f"{split}/{name}.dicom" for name, split in zip(frame.index, frame["split"], strict=True)],
            "id": frame.index,
            "view": ["PA"] * len(frame),
            "split": frame["split"],
        },
        labels=labels,
        labels_from="image_labels_{train,test}.csv",
        findings=said,
        remarks=["findings that readers disagree on are uncertain (-1)", "the set names no patients"],
    )


def _agreed(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """One row per film: the state that all its readers gave to each finding, -1 where they differ."""
    names = [name for name in frame.columns if name not in NOT_FINDINGS]
    cells = frame[names].replace("", np.nan).apply(pd.to_numeric, errors="coerce")
    wrong = ~(cells.isin([0, 1]) | frame[names].isin([""]))
    if wrong.to_numpy().any():
        row, column = np.argwhere(wrong.to_numpy())[0]
        raise ValueError(
            f"expected 0 or 1 in {source}, got {frame[names].iloc[row, column]!r} for {names[column]!r} in row {row}; "
            "check that it is the published file"
        )
    readers = cells.groupby(frame["image_id"], sort=False)
    low, high = readers.min(), readers.max()
    return low.where(low.eq(high) | low.isna(), -1.0)
