"""The dataset of the matrix, read by whatever `datasets` is here: are types, labels and pixels those that were written?

    python read_back.py FOLDER ORG/NAME

Needs `datasets` and Pillow alone, of any version from 3.6 on. Prints a JSON object: versions, and of every check "ok"
or what is wrong.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import datasets
import numpy as np

RECORD = ["image", "filename", "prompt", "labels_dict"]
VERDICTS = ["quality", "quality_scores", "judge", "drop_reason"]
PACKAGES = ("datasets", "huggingface_hub", "numpy", "pandas", "pillow")
SPLITS = ("train", "test")


def main():
    """Every check, and what it says."""
    folder, repo = Path(sys.argv[1]), sys.argv[2]
    expected = json.loads((folder / "expected.json").read_text())
    said = {}
    for name, ways in checks(folder, repo, expected).items():
        said[name] = verdict(ways)
    print(json.dumps({"versions": versions(), "checks": said}))


def versions():
    """What is installed here, in a line."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *found])


def verdict(check):
    """ "ok", or the first thing that is wrong."""
    try:
        check()
    except Exception as error:
        error = error.__cause__ or error
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"[:160].replace("|", "/")
    return "ok"


def checks(folder, repo, expected):
    """Checks by their names."""
    kept = {prompt: row for prompt, row in expected.items() if row[3] is None}
    high = {prompt: row for prompt, row in expected.items() if row[1] == "High Quality"}

    def hub(config, wanted, columns, **more):
        loaded = [datasets.load_dataset(repo, config, split=split, **more) for split in SPLITS]
        same(loaded, wanted, columns)

    def local():
        same([datasets.load_dataset(str(folder / "parquet"), split=split) for split in SPLITS], kept, RECORD)

    def images(**more):
        where = {"data_dir": str(folder / "imagefolder")}
        same([datasets.load_dataset("imagefolder", split=split, **where, **more) for split in SPLITS], kept, RECORD)

    def tars(**more):
        loaded = [datasets.load_dataset(str(folder / "webdataset"), split=split, **more) for split in SPLITS]
        rows = [{**row["json"], "image": row["png"]} for split in loaded for row in split]
        whole([same_row(row, kept) for row in rows], kept)

    return {
        "hub": lambda: hub("default", kept, RECORD),
        "hub, streaming": lambda: hub("default", kept, RECORD, streaming=True),
        "high_quality": lambda: hub("high_quality", high, RECORD),
        "all": lambda: hub("all", expected, RECORD + VERDICTS),
        "folder": local,
        "imagefolder": images,
        "imagefolder, streaming": lambda: images(streaming=True),
        "webdataset": tars,
        "webdataset, streaming": lambda: tars(streaming=True),
    }


def same(loaded, expected, columns):
    """Raises where the splits together are not the expected rows, each once, of the expected types."""
    wanted = types(columns)
    for split in loaded:
        assert dict(split.features) == wanted, f"types {sorted(split.features)} {split.features}"
    prompts = [same_row(row, expected) for split in loaded for row in split]
    whole(prompts, expected)


def whole(prompts, expected):
    """Raises where the prompts are not the expected ones, each once."""
    assert sorted(prompts) == sorted(expected), f"{len(prompts)} rows, expected {len(expected)}"


def same_row(row, expected):
    """The prompt of a row; raises where its labels or pixels are not the expected ones."""
    labels, _, digest, _ = expected[row["prompt"]]
    assert row["labels_dict"] == labels, f"labels {row['labels_dict']}"
    pixels = np.asarray(row["image"])
    found = hashlib.sha256(f"{pixels.shape}".encode() + pixels.astype("<i4").tobytes()).hexdigest()
    assert found == digest, f"pixels {pixels.shape} {pixels.dtype} of {row['filename']}"
    return row["prompt"]


def types(columns):
    """`datasets.Features` that say what the card says."""
    from datasets import Image, Value

    labels = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"]
    labels += ["Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"]
    labels += ["Fracture", "Support Devices"]
    known = {"image": Image(), "labels_dict": {label: Value("int8") for label in labels}}
    return {column: known.get(column, Value("string")) for column in columns}


if __name__ == "__main__":
    main()
