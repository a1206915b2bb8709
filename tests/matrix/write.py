"""The dataset of the matrix: films that are known, built in every format and published to the Hub of HF_ENDPOINT.

    python write.py FOLDER ORG/NAME

Writes `expected.json` into the folder: of every prompt its labels, verdict and the hash of its pixels.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import runpy
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import synthchex
from synthchex import phantom
from synthchex.commands import publish
from synthchex.data import records, shards

COUNT, SIZE, SEED, REAL_SEED = 24, 64, 3, 1000
CLASSES = (("High Quality", None), ("Medium Quality", None), ("Low Quality", "low-quality"))
REASON = "procedural phantoms on both sides, nobody is a patient"


def main() -> None:
    """Films, their formats, the push."""
    folder, repo = Path(sys.argv[1]), sys.argv[2]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = films()
    judged(folder / "judged", rows)
    upstream(folder / "upstream", rows)
    script = runpy.run_path(str(synthchex.room("datasets_scripts") / "build.py"))["main"]
    common = ["--images", str(folder / "judged"), "--quiet", "--domain", "phantom"]
    splits = ["--split", "train=0.7", "--split", "test=0.3", "--shard-rows", "5"]
    script([*common, *splits, "--all", "--out", str(folder / "parquet")])
    script([*common, *splits, "--out", str(folder / "imagefolder"), "--format", "imagefolder"])
    script([*common, *splits, "--out", str(folder / "webdataset"), "--format", "webdataset"])
    real(folder / "real")
    what = [str(folder / "parquet"), "--repo", repo, "--real", str(folder / "real"), "--encoder", "phantom"]
    how = ["--copies", "1", "--source-policy", "open", "--allow-findings", REASON, "--quiet"]
    code = publish.main([*what, *how])
    expected = {
        row["prompt"]: [row["labels_dict"], row["quality"], digest(row["image"]["bytes"]), row["drop_reason"]]
        for row in rows
    }
    (folder / "expected.json").write_text(json.dumps(expected))
    print(json.dumps({"rows": len(rows), "code": code}))
    if code:
        raise SystemExit(code)


def films() -> list[dict[str, Any]]:
    """Rows as a judge leaves them: 8-bit and 16-bit PNG and JPEG, every state of a label, every class."""
    made = phantom.make(COUNT, size=SIZE, seed=SEED)
    rows = []
    for place, (pixels, report) in enumerate(zip(made.images, made.reports, strict=True)):
        quality, reason = CLASSES[place % 3]
        deep, coded = place % 6 == 1, place % 6 == 3
        labels = {label: int(value) for label, value in zip(records.LABELS, made.labels[place], strict=True)}
        labels |= {"Edema": -1} if place % 2 else {}
        labels = {name: state for name, state in labels.items() if name != "Fracture" or place % 3}
        content = encoded(pixels.astype(np.uint16) * 256 if deep else pixels, "JPEG" if coded else "PNG")
        name = f"film-{place:03d}.{'jpg' if coded else 'png'}"
        rows.append(
            {
                "image": {"bytes": content, "path": name},
                "filename": name,
                "prompt": f"{report} Case {place}.",
                "labels_dict": records.labels_dict(labels),
                "quality": quality,
                "quality_scores": json.dumps({quality: 1.0}),
                "judge": "none",
                "drop_reason": reason,
            }
        )
    return rows


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def digest(content: bytes) -> str:
    """Hash of the pixels that Pillow reads here."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.astype("<i4").tobytes()).hexdigest()


def judged(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The rows as `synthchex filter` leaves them."""
    features = records.features(provenance=False, verdict=True)
    plan = shards.Plan("filter", "matrix", len(rows), 10, {})
    shards.begin(folder, plan)
    shards.fill(folder, plan, lambda span: [rows[place] for place in span], features, unit="films", quiet=True)


def upstream(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The kept rows in the layout in which SynthCheX-75K was published."""
    folder.mkdir()
    lines = []
    with zipfile.ZipFile(folder / "ALL_FILES.zip", "w") as archive:
        for row in rows:
            if row["drop_reason"] is None:
                archive.writestr(f"images/{row['filename']}", row["image"]["bytes"])
                lines.append({"prompt": row["prompt"], "img_savename": row["filename"]})
                lines[-1]["chexpert_labels"] = str(row["labels_dict"])
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def real(folder: Path) -> None:
    """Phantoms that stand for real films."""
    folder.mkdir()
    for place, pixels in enumerate(phantom.make(COUNT, size=SIZE, seed=REAL_SEED).images):
        (folder / f"{place}.png").write_bytes(encoded(pixels, "PNG"))


if __name__ == "__main__":
    main()
