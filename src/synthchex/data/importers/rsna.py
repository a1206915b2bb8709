"""RSNA Pneumonia Detection Challenge 2018 (Shih et al. 2019): stage_2_train_labels.csv and stage_2_train_images."""

from __future__ import annotations

import json

import numpy as np

from synthchex.data.importers import findings
from synthchex.data.importers.listing import Given, Listing, find, listed, lookup, need, read

MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def rsna(given: Given) -> Listing:
    """Films of NIH ChestX-ray14 that radiologists labelled anew; one row per box in the table, one per film here.

    The challenge's patientId names a film, not a patient. Patients are those of ChestX-ray14 where the challenge's own
    mapping to it is given, else unknown. Views are read from the DICOM headers.
    """
    path = need(given, "stage_2_train_labels.csv")
    frame = read(path, needs=("patientId", "Target")).drop_duplicates("patientId")
    names = frame["patientId"].tolist()
    found = {"Target": frame["Target"].astype(float).to_numpy()}
    classes = find(given, "stage_2_detailed_class_info.csv")
    remarks = []
    if classes is None:
        remarks.append("stage_2_detailed_class_info.csv is not there: no states of No Finding and Lung Opacity")
    else:
        info = read(classes, needs=("patientId", "class")).drop_duplicates("patientId")
        kinds = np.array(lookup(info["patientId"].tolist(), info["class"].tolist(), names), dtype=object)
        known = np.array([kind is not None for kind in kinds])
        found |= {str(kind): np.where(known, kinds == kind, np.nan) for kind in sorted({*kinds[known]})}
    labels, said = findings.to_labels(found, findings.RSNA)
    mapping = find(given, MAPPING)
    patients: list[str | None] = [None] * len(names)
    if mapping is None:
        remarks.append(f"{MAPPING} is not there: patients are unknown, the challenge's patientId names a film")
    else:
        rows = json.loads(mapping.read_text())
        films = [str(row["img_id"]).split("_")[0] for row in rows]
        # ChestX-ray14 writes patient 1 as 00000001 in film names and as 1 in its table.
        patients = lookup([row["subset_img_id"] for row in rows], [str(int(name)) for name in films], names)
    return listed(
        {"name": [f"stage_2_train_images/{name}.dcm" for name in names], "id": names, "patient": patients},
        labels=labels,
        labels_from=path.name,
        findings=said,
        remarks=remarks,
    )
