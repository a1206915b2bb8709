"""Every published layout, built small: what stands in its tables is what stands in the records, and all is counted."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from datasets import load_dataset
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import synthchex
from synthchex.data import images, records, shards, sources
from synthchex.data.importers import findings, known, labellers, policies, summary, write

main = runpy.run_path(str(synthchex.room("datasets_scripts") / "import_films.py"))["main"]
LABELS = records.LABELS
DICOM_IDS = [f"{number:08x}-0000aaaa-1111bbbb-2222cccc-3333dddd" for number in range(9)]


def film(path: Path, seed: int) -> Path:
    """A grey film of 8 x 8 pixels, PNG or JPEG by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)).save(path)
    return path


def dicom(path: Path, seed: int, *, view: str = "", photometric: str = "MONOCHROME2") -> Path:
    """A DICOM film of 8 x 8 pixels of 12 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Rows = header.Columns = 8
    header.SamplesPerPixel, header.PhotometricInterpretation, header.ViewPosition = 1, photometric, view
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PixelData = np.random.default_rng(seed).integers(0, 4096, (8, 8), np.uint16).tobytes()
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return path


def table(path: Path, *rows: Sequence[object] | str) -> Path:
    """A CSV file, or .csv.gz, from a header as written and rows of cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = (
        row if isinstance(row, str) else ",".join(f'"{c}"' if "," in str(c) else str(c) for c in row) for row in rows
    )
    text = ("\n".join(cells) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def states(**said: int | str) -> list[object]:
    """Cells of the 14 label columns."""
    return [said.get(label.replace(" ", "_"), "") for label in LABELS]


def bring(tmp_path: Path, *arguments: object, out: str = "out") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run an import; its rows, by order, and its summary."""
    folder = tmp_path / out
    main([*map(str, arguments), "--out", str(folder), "--quiet"])
    rows = shards.Rows(shards.parquet_files(folder))
    return [rows[index] for index in range(len(rows))], json.loads((folder / "summary.json").read_text())


def said(row: dict[str, Any]) -> dict[str, int]:
    """The states of a row that are not None."""
    return {label: state for label, state in row["labels_dict"].items() if state is not None}


def mimic(root: Path, suffix: str = ".jpg") -> Path:
    """Two patients, three studies, four films, as in MIMIC-CXR-JPG 2.0.0; DICOM_IDS[2] is a lateral view."""
    films = [
        (0, 10000001, 50000001, "PA", "train"),
        (1, 10000001, 50000002, "AP", "train"),
        (2, 10000001, 50000002, "LATERAL", "train"),
        (3, 10000002, 50000003, "PA", "test"),
    ]
    for number, patient, study, view, _ in films:
        place = root / f"files/p10/p{patient}/s{study}/{DICOM_IDS[number]}{suffix}"
        film(place, number) if suffix == ".jpg" else dicom(place, number, view=view)
    head = "mimic-cxr-2.0.0"
    names = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns"
    rows = [(DICOM_IDS[n], p, s, "CHEST (PA AND LAT)", v, 8, 8) for n, p, s, v, _ in films]
    table(root / f"{head}-metadata.csv.gz", names, *rows)
    splits = [(DICOM_IDS[n], s, p, split) for n, p, s, _, split in films]
    table(root / f"{head}-split.csv", "dicom_id,study_id,subject_id,split", *splits)
    labels = ",".join(["subject_id", "study_id", *LABELS])
    one = [10000001, 50000001, *states(Edema=1.0, Pneumonia=-1.0, Pneumothorax=0.0)]
    two = [10000001, 50000002, *states(No_Finding=1.0)]
    table(root / f"{head}-chexpert.csv.gz", labels, one, two)
    table(root / f"{head}-negbio.csv", labels, [10000001, 50000001, *states(Edema=0.0)])
    return root


def test_mimic_jpg_has_labels_of_studies_official_split_and_views(tmp_path: Path) -> None:
    root = mimic(tmp_path / "mimic")
    rows, counted = bring(tmp_path, "mimic-cxr-jpg", "--source", root)
    assert [row["id"] for row in rows] == DICOM_IDS[:4]
    assert said(rows[0]) == {"Edema": 1, "Pneumonia": -1, "Pneumothorax": 0}
    assert said(rows[1]) == said(rows[2]) == {"No Finding": 1}
    assert said(rows[3]) == {}  # its study is not in the label table
    assert [row["view"] for row in rows] == ["PA", "AP", "LATERAL", "PA"]
    assert [row["split"] for row in rows] == ["train", "train", "train", "test"]
    assert [row["patient"] for row in rows] == ["10000001"] * 3 + ["10000002"]
    assert rows[0]["study"] == "50000001"
    path = root / f"files/p10/p10000001/s50000001/{DICOM_IDS[0]}.jpg"
    assert rows[0]["image"]["bytes"] == path.read_bytes()
    assert rows[0]["filename"] == f"{DICOM_IDS[0]}.jpg"
    assert counted["labels"]["Edema"] == {"present": 1, "absent": 0, "uncertain": 0, "not mentioned": 3}
    assert counted["labels"]["Pneumonia"]["uncertain"] == 1
    assert (counted["patients"], counted["studies"], counted["patients_in_several_splits"]) == (2, 3, 0)
    assert counted["views"] == {"PA": 2, "AP": 1, "LATERAL": 1}
    assert counted["splits"] == {"train": 3, "test": 1}
    assert counted["source_policy"] == "credentialed"
    assert {row["source_policy"] for row in rows} == {"credentialed"}


def test_mimic_takes_the_label_table_splits_and_views_that_are_asked_for(tmp_path: Path) -> None:
    root = mimic(tmp_path / "mimic")
    rows, counted = bring(
        tmp_path, "mimic-cxr-jpg", "--source", root, "--labels", "negbio", "--splits", "train", "--views", "PA", "AP"
    )
    assert [said(row) for row in rows] == [{"Edema": 0}, {}]
    assert counted["labels_from"] == "mimic-cxr-2.0.0-negbio.csv"
    assert counted["left_out"] == {"other-split": 1, "other-view": 1}
    rows, counted = bring(tmp_path, "mimic-cxr-jpg", "--source", root, "--labels", "none", out="none")
    assert counted["labels_from"] is None
    assert all(said(row) == {} for row in rows)


def test_mimic_reports_come_from_the_sectioned_table_or_from_the_reports_themselves(tmp_path: Path) -> None:
    root = mimic(tmp_path / "mimic")
    sectioned = table(
        tmp_path / "mimic_cxr_sectioned.csv",
        "study,impression,findings,last_paragraph,comparison",
        ("s50000001", "Edema.", "Large heart, edema.", "", ""),
        ("s50000002", "Normal ___.", "", "", ""),
    )
    rows, counted = bring(tmp_path, "mimic-cxr-jpg", "--source", root, "--reports", sectioned)
    assert [row["prompt"] for row in rows] == ["Large heart, edema. Edema.", "Normal ___.", "Normal ___.", None]
    assert counted["prompts_from"] == {"findings+impression": 1, "impression": 2, "none": 1}
    assert counted["prompts"]["with_deidentification_marks"] == 2
    text = " FINAL REPORT\n INDICATION: Dyspnea.\n\n FINDINGS: \n Clear\n lungs.\n\n IMPRESSION:\n No edema.\n"
    report = tmp_path / "reports/files/p10/p10000001/s50000001.txt"
    report.parent.mkdir(parents=True)
    report.write_text(text)
    folder = tmp_path / "reports"
    rows, _ = bring(tmp_path, "mimic-cxr-jpg", "--source", root, "--reports", folder, "--text", "impression", out="i")
    assert [row["prompt"] for row in rows] == ["No edema.", None, None, None]
    with pytest.raises(ValueError, match=r"expected reports such as .*s50414267.txt, found none; .* with --reports"):
        bring(tmp_path, "mimic-cxr-jpg", "--source", root, "--reports", tmp_path / "nothing", out="n")


def test_mimic_dicom_is_decoded_to_png_and_takes_views_from_headers(tmp_path: Path) -> None:
    jpg = mimic(tmp_path / "jpg")
    root = tmp_path / "dicom"
    mimic(root, ".dcm")
    for path in root.glob("*.csv*"):
        path.unlink()
    places = sorted((root / "files").rglob("*.dcm"))
    keys = [(p.parts[-3][1:], p.parts[-2][1:], p.stem, p.relative_to(root)) for p in places]
    table(root / "cxr-record-list.csv.gz", "subject_id,study_id,dicom_id,path", *keys)
    rows, counted = bring(tmp_path, "mimic-cxr", "--source", root)
    assert [row["view"] for row in rows] == ["PA", "AP", "LATERAL", "PA"]
    assert rows[0]["image"]["bytes"] == images.to_png(images.read(places[0]).pixels)
    assert rows[0]["filename"].endswith(".png")
    assert counted["preprocessing"] == {"dicom": 4}
    assert counted["labels_from"] is None
    assert "no mimic-cxr-2.0.0-split.csv: films have no split" in counted["remarks"]
    rows, counted = bring(tmp_path, "mimic-cxr", "--source", root, "--tables", jpg, out="tables")
    assert said(rows[0]) == {"Edema": 1, "Pneumonia": -1, "Pneumothorax": 0}
    assert counted["splits"] == {"train": 3, "test": 1}


def test_llava_rad_csv_and_json_are_joined_to_the_tree_by_path(tmp_path: Path) -> None:
    root = mimic(tmp_path / "mimic")
    places = [
        f"mimic/p10/p10000001/s50000001/{DICOM_IDS[0]}.jpg",
        f"mimic/p10/p10000001/s50000002/{DICOM_IDS[1]}.jpg",
        f"mimic/p10/p10000002/s50000009/{DICOM_IDS[8]}.jpg",
    ]
    labels = {"Edema": 1.0, "Pneumonia": -1.0, "Fracture": 0.0, "No Finding": None}
    header = "id,path,generate_method,impression,view,chexpert_labels,annotated_prompt,patientID\n"
    lines = [f'study,{place},gpt4,Edema.,AP,"{labels}",Wet lungs.,10000001' for place in places]
    (tmp_path / "LLAVARAD_ANNOTATIONS_TRAIN.csv").write_text(header + "\n".join(lines) + "\n")
    wanted = ("llava-rad", "--source", root, "--annotations", tmp_path / "LLAVARAD_ANNOTATIONS_TRAIN.csv")
    rows, counted = bring(tmp_path, *wanted, "--text", "findings")
    assert [row["id"] for row in rows] == DICOM_IDS[:2]
    assert said(rows[0]) == {"Edema": 1, "Pneumonia": -1, "Fracture": 0}
    assert (rows[0]["prompt"], rows[0]["view"], rows[0]["split"]) == ("Wet lungs.", "AP", "train")
    assert (rows[0]["patient"], rows[1]["study"]) == ("10000001", "50000002")
    assert counted["left_out"] == {"film-missing": 1}
    assert counted["missing_examples"] == [f"files/p10/p10000002/s50000009/{DICOM_IDS[8]}.jpg"]
    answer = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "Dry lungs."}]
    entry = {"id": "s", "image": places[0], "chexpert_labels": {"Edema": float("nan")}, "impression": None}
    rules = {**entry, "generate_method": "rule-based", "conversations": []}
    entries = [rules, {**entry, "generate_method": "gpt4", "conversations": answer}]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    rows, counted = bring(tmp_path, "llava-rad", "--source", root, "--annotations", tmp_path / "train.json", out="json")
    assert [(row["prompt"], said(row)) for row in rows] == [("Dry lungs.", {})]
    assert counted["left_out"] == {"annotated-twice": 1}
    with pytest.raises(ValueError, match=r"llava-rad expects LLaVA-Rad's annotations, got none; .* --annotations"):
        bring(tmp_path, "llava-rad", "--source", root, out="no")
    table(tmp_path / "bad.csv", "path,chexpert_labels", ("films/1.png", ""))
    with pytest.raises(ValueError, match=r"expected a path ending in p10/.*, got 'films/1.png' in row 0"):
        bring(tmp_path, "llava-rad", "--source", root, "--annotations", tmp_path / "bad.csv", out="no")


def chexpert(root: Path) -> Path:
    """Two training films of one patient, one frontal and one lateral, and a validation film of another."""
    header = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS])
    top = "CheXpert-v1.0-small"
    places = [f"train/patient00001/study1/view{n}_{side}.jpg" for n, side in ((1, "frontal"), (2, "lateral"))]
    rows = [
        (f"{top}/{places[0]}", "Female", 68, "Frontal", "AP", *states(Cardiomegaly=-1.0, Edema=1.0, Fracture=0.0)),
        (f"{top}/{places[1]}", "Female", 68, "Lateral", "", *states(No_Finding=1.0)),
    ]
    table(root / "train.csv", header, *rows)
    valid = "valid/patient64541/study1/view1_frontal.jpg"
    table(root / "valid.csv", header, (f"{top}/{valid}", "Male", 73, "Frontal", "PA", *states(Edema=0.0)))
    for number, place in enumerate((*places, valid)):
        film(root / place, number)
    return root


def test_chexpert_takes_patients_from_paths_and_keeps_all_states(tmp_path: Path) -> None:
    rows, counted = bring(tmp_path, "chexpert", "--source", chexpert(tmp_path / "CheXpert-v1.0-small"))
    assert [said(row) for row in rows] == [
        {"Cardiomegaly": -1, "Edema": 1, "Fracture": 0},
        {"No Finding": 1},
        {"Edema": 0},
    ]
    assert [row["patient"] for row in rows] == ["patient00001", "patient00001", "patient64541"]
    assert rows[0]["study"] == "patient00001/study1"
    assert [row["view"] for row in rows] == ["AP", "Lateral", "PA"]
    assert [row["split"] for row in rows] == ["train", "train", "valid"]
    assert [row["filename"] for row in rows][2] == "patient64541_study1_view1_frontal.jpg"
    assert (counted["patients"], counted["studies"]) == (2, 2)
    assert counted["labels_from"] == "train.csv, valid.csv"
    assert counted["source_policy"] == "credentialed"


def test_chexpert_plus_has_sections_and_its_own_label_files(tmp_path: Path) -> None:
    root = tmp_path / "plus"
    place = "train/patient00001/study2/view1_frontal"
    film(root / f"PNG/{place}.png", 0)  # the table names .jpg
    table(
        root / "df_chexpert_plus_240401.csv",
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,report,section_findings,section_impression,split",
        (f"{place}.jpg", f"{place}.dcm", "Frontal", "PA", "patient00001", "all", "Wet.", "Edema.", "train"),
    )
    labels = root / "chexbert_labels"
    labels.mkdir()
    for section, state in (("impression", 1.0), ("findings", -1.0)):
        line = {"path_to_image": f"{place}.jpg", **dict.fromkeys(LABELS), "Edema": state}
        (labels / f"{section}_fixed.json").write_text(json.dumps(line) + "\n")
    wanted = ("chexpert-plus", "--source", root, "--image-dir", root / "PNG")
    rows, counted = bring(tmp_path, *wanted)
    assert [(row["prompt"], said(row), row["patient"], row["view"]) for row in rows] == [
        ("Wet. Edema.", {"Edema": 1}, "patient00001", "PA")
    ]
    assert counted["labels_from"] == "impression_fixed.json"
    assert said(bring(tmp_path, *wanted, "--labels", "findings", out="f")[0][0]) == {"Edema": -1}
    with pytest.raises(ValueError, match=r"expects report_fixed.json in .*, found .* --tables"):
        bring(tmp_path, *wanted, "--labels", "report", out="r")


def nih(root: Path) -> Path:
    """Five films of four patients in two image folders; the last is not there."""
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    said_by = ["Cardiomegaly|Nodule", "No Finding", "Hernia|Infiltration", "Effusion", "Edema"]
    patients = [1, 1, 2, 3, 4]
    names = [f"{patient:08d}_{number:03d}.png" for number, patient in enumerate(patients)]
    rows = [(n, said, 0, p, 57, "M", "PA") for n, said, p in zip(names, said_by, patients, strict=True)]
    table(root / "Data_Entry_2017.csv", header, *rows)
    for number, name in enumerate(names[:4]):
        film(root / f"images_{number % 2 + 1:03d}/images/{name}", number)
    (root / "train_val_list.txt").write_text("\n".join(names[:2]) + "\n")
    (root / "test_list.txt").write_text("\n".join(names[2:4]) + "\n")
    return root


def test_nih_findings_become_labels_only_where_they_mean_them(tmp_path: Path) -> None:
    rows, counted = bring(tmp_path, "nih", "--source", nih(tmp_path / "nih"))
    assert [said(row) for row in rows] == [
        {"Cardiomegaly": 1, "Lung Lesion": 1},
        {"No Finding": 1},
        {"Lung Opacity": 1},
        {"Pleural Effusion": 1},
    ]
    assert counted["findings"]["Hernia"] == {"films": 1, "labels": [], "meaning": "unmapped"}
    assert counted["findings"]["Nodule"] == {"films": 1, "labels": ["Lung Lesion"], "meaning": "part"}
    assert counted["findings"]["Effusion"]["meaning"] == "same"
    assert [row["patient"] for row in rows] == ["1", "1", "2", "3"]
    assert counted["splits"] == {"train_val": 2, "test": 2}
    assert counted["left_out"] == {"film-missing": 1}
    assert counted["missing_examples"] == ["00000004_004.png"]
    assert counted["source_policy"] == "open"
    assert counted["prompts_from"] == {"none": 4}


def test_unlisted_findings_are_absent_only_when_the_user_says_so(tmp_path: Path) -> None:
    rows, counted = bring(tmp_path, "nih", "--source", nih(tmp_path / "nih"), "--unlisted", "absent")
    assert said(rows[0])["Edema"] == 0
    assert rows[1]["labels_dict"]["Lung Lesion"] is None  # no nodule is not no lesion
    assert rows[0]["labels_dict"]["Support Devices"] is None
    assert counted["labels"]["Cardiomegaly"] == {"present": 1, "absent": 3, "uncertain": 0, "not mentioned": 0}


def test_padchest_has_spanish_reports_and_its_many_findings(tmp_path: Path) -> None:
    root = tmp_path / "padchest"
    film(root / "0/a_1.png", 0)
    film(root / "1/b_2.png", 1)
    table(
        root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,Projection,MethodLabel,ReportID,Report,Labels",
        (0, "a_1.png", 0, 2014, "s1", "p1", "PA", "Physician", 1, "sin hallazgos", "['normal', ' hydropneumothorax']"),
        (1, "b_2.png", 1, 2014, "s2", "p2", "L", "RNN", 2, "marcapasos", "['NSG tube', 'scoliosis', '']"),
    )
    rows, counted = bring(tmp_path, "padchest", "--source", root)
    assert [said(row) for row in rows] == [
        {"No Finding": 1, "Pneumothorax": 1, "Pleural Effusion": 1},
        {"Support Devices": 1},
    ]
    assert [(row["patient"], row["study"], row["view"], row["prompt"]) for row in rows] == [
        ("p1", "s1", "PA", "sin hallazgos"),
        ("p2", "s2", "L", "marcapasos"),
    ]
    assert counted["findings"]["scoliosis"]["meaning"] == "unmapped"
    assert counted["source_policy"] == "unknown"
    assert counted["prompts_from"] == {"report": 2}


def test_vindr_readers_who_disagree_make_a_finding_uncertain(tmp_path: Path) -> None:
    root = tmp_path / "vindr"
    names = ["Cardiomegaly", "Aortic enlargement", "Rib fracture", "Nodule/Mass", "No finding"]
    header = ",".join(["image_id", "rad_id", *names])
    readers = [("a", "R1", 1, 1, 0, 0, 0), ("a", "R2", 1, 0, 1, 0, 0), ("a", "R3", 1, 0, 0, 0, 0)]
    table(root / "annotations/image_labels_train.csv", header, *readers)
    table(root / "annotations/image_labels_test.csv", header.replace("rad_id,", ""), ("b", 0, 0, 0, 1, 0))
    dicom(root / "train/a.dicom", 0)
    dicom(root / "test/b.dicom", 1)
    rows, counted = bring(tmp_path, "vindr-cxr", "--source", root)
    assert said(rows[0]) == {"Cardiomegaly": 1, "Fracture": -1, "No Finding": 0}
    assert said(rows[1]) == {"Cardiomegaly": 0, "Lung Lesion": 1, "No Finding": 0}
    assert [(row["split"], row["view"], row["patient"]) for row in rows] == [
        ("train", "PA", None),
        ("test", "PA", None),
    ]
    assert counted["films_without_patient"] == 2
    assert counted["source_policy"] == "credentialed"
    table(root / "annotations/image_labels_test.csv", "image_id,Cardiomegaly", ("b", "yes"))
    with pytest.raises(ValueError, match=r"expected 0 or 1 in .*image_labels_test.csv, got 'yes' for 'Cardiomegaly'"):
        bring(tmp_path, "vindr-cxr", "--source", root, out="bad")


def openi(root: Path) -> Path:
    """Two reports: one with two films, one without any."""
    xml = (
        '<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="{uid}"/><MedlineCitation><Article><Abstract>'
        '<AbstractText Label="INDICATION">XXXX-year-old.</AbstractText>'
        '<AbstractText Label="FINDINGS">{findings}</AbstractText>'
        '<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation>'
        "<MeSH>{headings}</MeSH>{films}</eCitation>"
    )
    reports = root / "ecgen-radiology"
    reports.mkdir(parents=True)
    names = ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]
    coded = ["Cardiomegaly/mild", "Opacity/lung/base/left", "Opacity/retrocardiac", "Spine/degenerative"]
    majors = "".join(f"<major>{heading}</major>" for heading in coded)
    shown = "".join(f'<parentImage id="{name}"><figureId>F1</figureId></parentImage>' for name in names)
    text = {"uid": "CXR1", "findings": "Large heart XXXX.", "impression": "", "headings": majors, "films": shown}
    (reports / "1.xml").write_text(xml.format(**text))
    (reports / "2.xml").write_text(xml.format(**{**text, "uid": "CXR2", "films": ""}))
    for number, name in enumerate(names):
        film(root / f"NLMCXR_png/{name}.png", number)
    return root


def test_openi_reports_keep_their_marks_and_coded_findings(tmp_path: Path) -> None:
    rows, counted = bring(tmp_path, "open-i", "--source", openi(tmp_path / "openi"))
    assert [said(row) for row in rows] == [{"Cardiomegaly": 1, "Lung Opacity": 1}] * 2
    assert {(row["patient"], row["prompt"]) for row in rows} == {("CXR1", "Large heart XXXX.")}
    assert counted["prompts"] == {"films": 2, "different": 1, "with_deidentification_marks": 2}
    assert counted["findings"]["Opacity"]["meaning"] == "unmapped"  # retrocardiac, not said to be in the lung
    assert counted["findings"]["Spine"] == {"films": 2, "labels": [], "meaning": "unmapped"}
    assert counted["remarks"] == ["1 reports have no film"]
    assert counted["source_policy"] == "open"
    (tmp_path / "openi/ecgen-radiology/1.xml").write_text("<eCitation>")
    with pytest.raises(ValueError, match=r"expected a report of the Open-i collection with a uId, got .*1.xml"):
        bring(tmp_path, "open-i", "--source", tmp_path / "openi", out="bad")


def test_rsna_has_one_row_per_film_and_no_invented_patients(tmp_path: Path) -> None:
    root = tmp_path / "rsna"
    boxes = [("a", 1, 2, 3, 4, 1), ("a", 5, 6, 7, 8, 1), ("b", "", "", "", "", 0), ("c", "", "", "", "", 0)]
    table(root / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *boxes)
    kinds = [("a", "Lung Opacity"), ("a", "Lung Opacity"), ("b", "Normal"), ("c", "No Lung Opacity / Not Normal")]
    table(root / "stage_2_detailed_class_info.csv", "patientId,class", *kinds)
    for number, (name, view) in enumerate((("a", "AP"), ("b", "PA"), ("c", ""))):
        dicom(root / f"stage_2_train_images/{name}.dcm", number, view=view)
    rows, counted = bring(tmp_path, "rsna", "--source", root)
    assert [said(row) for row in rows] == [
        {"Pneumonia": 1, "Lung Opacity": 1, "No Finding": 0},
        {"Pneumonia": 0, "No Finding": 1},
        {"Pneumonia": 0, "No Finding": 0},
    ]
    assert [row["patient"] for row in rows] == [None] * 3
    assert [row["view"] for row in rows] == ["AP", "PA", None]
    assert counted["findings"]["No Lung Opacity / Not Normal"]["meaning"] == "unmapped"
    mapping = [{"subset_img_id": "a", "img_id": "00000013_004.png"}]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    rows, _ = bring(tmp_path, "rsna", "--source", root, "--source-policy", "credentialed", out="mapped")
    assert [row["patient"] for row in rows] == ["13", None, None]
    assert {row["source_policy"] for row in rows} == {"credentialed"}
    with pytest.raises(ValueError, match=r"expected a view among .*'None'.*, got .'PA'.; None is a film whose table"):
        bring(tmp_path, "rsna", "--source", root, "--views", "PA", out="views")


def test_a_folder_and_tables_of_any_kind(tmp_path: Path) -> None:
    for number in range(3):
        film(tmp_path / f"films/ward/{number}.png", number)
    rows, counted = bring(tmp_path, "folder", "--source", tmp_path / "films", "--source-policy", "open")
    assert [row["id"] for row in rows] == ["ward/0.png", "ward/1.png", "ward/2.png"]
    assert rows[0]["filename"] == "ward_0.png"
    assert (counted["source_policy"], counted["labels_from"]) == ("open", None)
    lines = [
        {"image": f"films/ward/{n}.png", "prompt": f"text {n}", "patient": f"p{n}", "view": "PA", "split": "s"}
        | {"study_id": f"t{n}", "labels_dict": {"Edema": (1, 0, -1)[n]}}
        for n in range(3)
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    rows, counted = bring(tmp_path, "table", "--source", tmp_path / "own.jsonl", out="jsonl")
    assert [said(row)["Edema"] for row in rows] == [1, 0, -1]
    assert [(row["patient"], row["study"], row["split"], row["prompt"]) for row in rows][1] == (
        "p1",
        "t1",
        "s",
        "text 1",
    )
    assert counted["source_policy"] == "unknown"
    table(tmp_path / "own.csv", "scan,words", *[(f"films/ward/{n}.png", f"text {n}") for n in (0, 1, 7)])
    wanted = ("table", "--source", tmp_path / "own.csv", "--columns", "image=scan", "prompt=words")
    rows, counted = bring(tmp_path, *wanted, out="csv")
    assert [row["prompt"] for row in rows] == ["text 0", "text 1"]
    assert counted["left_out"] == {"film-missing": 1}
    rows, _ = bring(tmp_path, "table", "--source", tmp_path / "jsonl", out="again")
    assert [said(row)["Edema"] for row in rows] == [1, 0, -1]
    assert [row["patient"] for row in rows] == ["p0", "p1", "p2"]
    assert rows[2]["image"]["bytes"] == (tmp_path / "films/ward/2.png").read_bytes()


def test_chexgenbench_leaves_out_films_whose_prompt_was_overwritten(tmp_path: Path) -> None:
    root = tmp_path / "generated"
    for number in range(2):
        film(root / f"SyntheticImg_{number}.png", number)
    header = "id,path,annotated_prompt,chexpert_labels,patientID,view,synthetic_filename"
    real = "p10/p10000001/s50000001/x.jpg"
    labels = "{'Edema': 1.0}"
    rows = [
        (0, real, "wet", labels, "10000001", "AP", "SyntheticImg_0.png"),
        (1, real, "dry", labels, "10000001", "AP", "SyntheticImg_1.png"),
        (1, real, "clear", labels, "10000002", "AP", "SyntheticImg_1.png"),
    ]
    table(root / "generations_with_metadata.csv", header, *rows)
    rows_out, counted = bring(tmp_path, "chexgenbench", "--source", root)
    assert [(row["id"], row["prompt"], said(row)) for row in rows_out] == [("SyntheticImg_0", "wet", {"Edema": 1})]
    assert (rows_out[0]["patient"], rows_out[0]["view"]) == (None, None)
    assert counted["left_out"] == {"film-of-several-prompts": 2}
    assert counted["source_policy"] == "credentialed"


@pytest.mark.parametrize("name", sorted(set(known.IMPORTERS) - {"folder", "table", "llava-rad"}))
def test_a_wrong_source_says_what_is_expected_what_is_there_and_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/readme.txt").write_text("nothing")
    with pytest.raises(ValueError, match=rf"{name} expects .*, found .*; .* --(source|tables)"):
        bring(tmp_path, name, "--source", tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_options_that_cannot_be_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = nih(tmp_path / "nih")
    with pytest.raises(ValueError, match=r"--labels of nih must be among \['none'\], got 'negbio'"):
        bring(tmp_path, "nih", "--source", root, "--labels", "negbio")
    with pytest.raises(
        ValueError, match=r"--reports is read for mimic-cxr-jpg, mimic-cxr, got it for nih; leave it out"
    ):
        bring(tmp_path, "nih", "--source", root, "--reports", root)
    with pytest.raises(ValueError, match="--columns is read for chexgenbench, folder, table, got it for rsna"):
        bring(tmp_path, "rsna", "--source", root, "--columns", "image=a")
    with pytest.raises(ValueError, match="--unlisted is read for nih, padchest, open-i, got it for rsna"):
        bring(tmp_path, "rsna", "--source", root, "--unlisted", "absent")
    with pytest.raises(ValueError, match=r"mimic-cxr-jpg from .* is credentialed .*, got --source-policy open"):
        bring(tmp_path, "mimic-cxr-jpg", "--source", root, "--source-policy", "open")
    with pytest.raises(ValueError, match=r"--columns must be ROLE=NAME with roles .*, got \['scan'\]"):
        bring(tmp_path, "table", "--source", root, "--columns", "scan")
    with pytest.raises(ValueError, match=r"expected the film of every row in .*, got 0 of 5, .* --image-dir"):
        bring(tmp_path, "nih", "--source", root, "--image-dir", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"expected a split among .*, got \['train'\]"):
        bring(tmp_path, "nih", "--source", root, "--splits", "train")
    table(root / "Data_Entry_2017.csv", "Image Index,Patient ID", ("a.png", 1))
    with pytest.raises(ValueError, match=r"lacks the columns \['Finding Labels'"):
        bring(tmp_path, "nih", "--source", root)
    assert not (tmp_path / "out").exists()


def test_duplicates_and_unreadable_films_are_counted_by_reason(tmp_path: Path) -> None:
    root = nih(tmp_path / "nih")
    whole = (root / "images_001/images/00000001_000.png").read_bytes()
    (root / "images_001/images/00000002_002.png").write_bytes(whole)  # patient 1's film as patient 2's
    (root / "images_002/images/00000001_001.png").write_bytes(whole[: len(whole) // 2])
    (root / "images_002/images/00000003_003.png").write_bytes(b"")
    rows, counted = bring(tmp_path, "nih", "--source", root)
    assert counted["unreadable"] == {"unreadable-truncated": 1, "unreadable-empty": 1}
    assert [row["drop_reason"] for row in rows] == [None, "unreadable-truncated", None, "unreadable-empty"]
    assert rows[1]["image"] is None
    with pytest.raises(images.UnreadableImage, match="got an empty cell"):
        images.read(sources.open_images(tmp_path / "out").fetch(1))
    duplicates = counted["duplicates"]
    assert (duplicates["films"], duplicates["of_several_patients"], duplicates["in_several_splits"]) == (1, 1, 1)
    assert duplicates["example"] == ["00000001_000", "00000002_002"]
    rows, counted = bring(tmp_path, "nih", "--source", root, "--unchecked", out="unchecked")
    assert counted["unreadable"] == {"unreadable-empty": 1}
    assert counted["preprocessing"] == {"unknown": 4}


def test_reference_only_keeps_paths_that_both_readers_follow(tmp_path: Path) -> None:
    root = nih(tmp_path / "nih")
    rows, counted = bring(tmp_path, "nih", "--source", root, "--reference-only")
    path = root / "images_001/images/00000001_000.png"
    assert rows[0]["image"] == {"bytes": None, "path": str(path)}
    assert rows[0]["content_hash"] == images.content_hash(path)
    assert counted["films"] == 4
    films = sources.open_images(tmp_path / "out")
    assert (images.read(films.fetch(0)).pixels == images.read(path).pixels).all()
    loaded = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert (np.asarray(loaded[0]["image"]) == images.read(path).pixels).all()
    rows, _ = bring(tmp_path, "nih", "--source", root, "--reference-only", "--unchecked", out="quick")
    assert rows[0]["content_hash"] is None


def test_an_imported_set_opens_with_patients_views_labels_prompts_and_its_policy(tmp_path: Path) -> None:
    bring(tmp_path, "open-i", "--source", openi(tmp_path / "openi"))
    films = sources.open_images(tmp_path / "out")
    assert films.ids == ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]
    assert films.has_ids
    assert films.patients == ["CXR1", "CXR1"]
    assert films.prompts == ["Large heart XXXX."] * 2
    assert films.labels is not None
    assert films.labels[0, LABELS.index("Cardiomegaly")] == 1
    assert np.isnan(films.labels[0, LABELS.index("Edema")])
    root = mimic(tmp_path / "mimic")
    bring(tmp_path, "mimic-cxr-jpg", "--source", root, out="mimic-out")
    without_reports = sources.open_images(tmp_path / "mimic-out")
    assert without_reports.views == ["PA", "AP", "LATERAL", "PA"]
    assert without_reports.prompts is None
    assert policies.source_policy(tmp_path / "mimic-out") == "credentialed"
    assert policies.source_policy(tmp_path / "out") == "open"
    loaded = load_dataset(str(tmp_path / "mimic-out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == write.features()
    manifest = json.loads((tmp_path / "mimic-out/manifest.json").read_text())
    assert manifest["recipe"]["source_policy"] == "credentialed"
    assert "source_policy: credentialed" in (tmp_path / "mimic-out/README.md").read_text()


def test_a_credentialed_set_stays_so_when_it_is_imported_again(tmp_path: Path) -> None:
    bring(tmp_path, "mimic-cxr-jpg", "--source", mimic(tmp_path / "mimic"))
    again = ("table", "--source", tmp_path / "out")
    with pytest.raises(ValueError, match=r"table from .*out is credentialed .*, got --source-policy open"):
        bring(tmp_path, *again, "--source-policy", "open", out="again")
    rows, counted = bring(tmp_path, *again, out="again")
    assert counted["source_policy"] == "credentialed"
    assert rows[2]["study"] == "50000002"


def test_the_policy_of_shards_without_one_is_unknown(tmp_path: Path) -> None:
    bring(tmp_path, "nih", "--source", nih(tmp_path / "nih"))
    assert policies.source_policy(tmp_path / "out") == "open"
    bare = shards.Plan("other", "x", 1, 1, {})
    shards.begin(tmp_path / "bare", bare)
    row = {"filename": "a.png", "image": None, "prompt": "p", "labels_dict": records.labels_dict()}
    shards.write_shard(tmp_path / "bare", bare, 0, [row], records.features(provenance=False))
    assert policies.source_policy(tmp_path / "bare") == "unknown"


LABELLER = """
import os, time

def states(texts):
    time.sleep(float(os.environ.get("LABELLER_PAUSE_S", "0")))
    return [{"Edema": 1 if "edema" in text else None} for text in texts]

def short(texts):
    return []
"""


def many(tmp_path: Path, count: int) -> Path:
    """A table of films with reports, and a labeller beside it."""
    for number in range(count):
        film(tmp_path / f"films/{number:03d}.png", number)
    (tmp_path / "own_labeller.py").write_text(LABELLER)
    rows = [(f"films/{n:03d}.png", ("edema", "clear")[n % 2], f"p{n}") for n in range(count)]
    return table(tmp_path / "own.csv", "path,prompt,patient", *rows)


@pytest.fixture
def own_labeller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a labeller module on the path of this process."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_labeller"
    sys.modules.pop("own_labeller", None)


def test_labels_come_from_the_users_labeller_and_never_from_us(tmp_path: Path, own_labeller: str) -> None:
    source = many(tmp_path, 3)
    rows, counted = bring(tmp_path, "table", "--source", source, "--labeller", f"{own_labeller}:states")
    assert [said(row) for row in rows] == [{"Edema": 1}, {}, {"Edema": 1}]
    assert counted["labels_from"] == "labeller own_labeller:states"
    _, counted = bring(tmp_path, "table", "--source", source, out="without")
    assert counted["labels_from"] is None
    assert "labels: none; give --labeller where there are reports" in summary.lines(counted)
    with pytest.raises(ValueError, match="expected 3 rows of labels from the labeller, got 0; one for each text"):
        bring(tmp_path, "table", "--source", source, "--labeller", f"{own_labeller}:short", out="short")
    with pytest.raises(ValueError, match="expected --labeller chexbert or module:function, got 'regex'"):
        bring(tmp_path, "table", "--source", source, "--labeller", "regex", out="regex")
    with pytest.raises(ImportError, match="needs not_there, which is not installed or not on PYTHONPATH"):
        bring(tmp_path, "table", "--source", source, "--labeller", "not_there:f", out="absent")
    with pytest.raises(ValueError, match="expected a function nothing in own_labeller, got None"):
        bring(tmp_path, "table", "--source", source, "--labeller", f"{own_labeller}:nothing", out="nothing")


@pytest.fixture
def f1chexbert(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Put a package f1chexbert in place whose model gives `blank` for what is not mentioned."""

    def install(blank: object) -> None:
        class F1CheXbert:
            def get_label(self, text: str, mode: str) -> list[object]:
                assert mode == "classification"
                return [blank, 1, 0, -1, *[blank] * 10] if "heart" in text else [blank] * 13 + [1]

        module = ModuleType("f1chexbert")
        module.F1CheXbert = F1CheXbert  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "f1chexbert", module)

    return install


def test_chexbert_answers_are_read_in_the_order_of_its_heads(f1chexbert: Callable[[object], None]) -> None:
    f1chexbert("")
    rows = labellers.label(labellers.load("chexbert"), ["large heart", None, "clear"])
    assert {label: state for label, state in rows[0].items() if state is not None} == {
        "Cardiomegaly": 1,
        "Lung Opacity": 0,
        "Lung Lesion": -1,
    }
    assert rows[1] == records.labels_dict()
    assert rows[2]["No Finding"] == 1
    f1chexbert(0)
    with pytest.raises(ValueError, match="expected a CheXbert that tells absent from not mentioned"):
        labellers.load("chexbert")


def test_chexbert_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "f1chexbert", None)
    with pytest.raises(ImportError, match=r"--labeller chexbert needs f1chexbert, .* pip install f1chexbert"):
        labellers.load("chexbert")


def test_a_part_says_nothing_by_its_absence_and_a_present_one_outweighs_all() -> None:
    vocabulary = findings.Vocabulary({"Fracture": "Fracture"}, {"rib": ("Fracture",)})
    found = {"Fracture": np.array([0, 0, 0, np.nan, 1]), "rib": np.array([0, 1, -1, 0, -1.0])}
    labels, counted = findings.to_labels(found, vocabulary)
    column = labels[:, LABELS.index("Fracture")]
    assert np.array_equal(column, [0, 1, -1, np.nan, 1], equal_nan=True)
    assert counted["rib"] == {"films": 1, "labels": ["Fracture"], "meaning": "part"}


@pytest.mark.parametrize("name", ["NIH", "VINDR", "PADCHEST", "OPENI", "RSNA"])
def test_vocabularies_name_labels_that_are(name: str) -> None:
    vocabulary = getattr(findings, name)
    meant = {*vocabulary.same.values(), *(label for labels in vocabulary.part.values() for label in labels)}
    assert meant <= set(LABELS)
    assert not set(vocabulary.same) & set(vocabulary.part)


def test_a_killed_import_goes_on_and_two_processes_write_every_row_once(tmp_path: Path) -> None:
    source = many(tmp_path, 300)
    command = [sys.executable, "-m", "synthchex.cli", "import", "table", "--source", str(source), "--quiet"]
    command += ["--labeller", "own_labeller:states", "--out", str(tmp_path / "out")]
    slow = {**os.environ, "PYTHONPATH": str(tmp_path), "LABELLER_PAUSE_S": "1"}
    first = subprocess.Popen(command, env=slow)
    data = tmp_path / "out/data"
    deadline = time.monotonic() + 120
    while not (data.is_dir() and list(data.glob("*.parquet"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in data.glob("*.parquet")}
    assert 0 < len(before) < 5
    assert not (tmp_path / "out/summary.json").exists()
    rest = [subprocess.Popen(command, env={**slow, "LABELLER_PAUSE_S": "0.1"}) for _ in range(2)]
    assert [process.wait(timeout=240) for process in rest] == [0, 0]
    assert before.items() <= {path: path.stat().st_mtime_ns for path in data.glob("*.parquet")}.items()
    rows = shards.Rows(shards.parquet_files(tmp_path / "out"))
    assert rows.column("id") == [f"films/{number:03d}.png" for number in range(300)]
    assert json.loads((tmp_path / "out/summary.json").read_text())["labels"]["Edema"]["present"] == 150
    film(tmp_path / "films/000.png", 0)
    table(source, "path,prompt,patient", ("films/000.png", "other", "p0"))
    again = subprocess.run(command, env=slow, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "holds another run (rows: 300 there, 1 now" in again.stderr


def test_the_policy_of_a_table_or_a_saved_set_is_that_of_its_rows(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "mixed.csv").write_text("image,source_policy\na.png,open\nb.png,credentialed\n")
    assert policies.source_policy(tmp_path / "mixed.csv") == "credentialed"
    with pytest.raises(ValueError, match="says that its films are credentialed"):
        policies.stated(tmp_path / "mixed.csv", "open")
    (tmp_path / "silent.csv").write_text("image\na.png\n")
    assert policies.stated(tmp_path / "silent.csv", "open") == "open"
    datasets.Dataset.from_dict({"image": ["a"], "source_policy": ["credentialed"]}).save_to_disk(
        str(tmp_path / "saved")
    )
    assert policies.source_policy(tmp_path / "saved") == "credentialed"
