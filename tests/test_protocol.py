"""The chexgenbench protocol through the command, and scores as the Hub reads them."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from synthchex import phantom
from synthchex.commands import push_results
from synthchex.data import images

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of RAD-DINO's class, random."""
    return tiny.dino(tmp_path_factory.mktemp("dino") / "model")


def table(folder: Path, made: phantom.Phantoms, *, real: bool) -> Path:
    """CheXGenBench's CSV: `path` and `chexpert_labels` of real films, `synthetic_filename` of synthetic ones."""
    from synthchex.data.records import LABELS

    folder.mkdir()
    rows = []
    for index, (film, states) in enumerate(zip(made.images, made.labels, strict=True)):
        name = f"{index:03d}.png"
        (folder / name).write_bytes(images.to_png(film))
        prompt = f"{made.reports[index]} ({index})"
        labels = {label: 1.0 if value == 1 else None for label, value in zip(LABELS, states, strict=True)}
        known = {"path": name, "chexpert_labels": str(labels)} if real else {"synthetic_filename": name}
        rows.append({"annotated_prompt": prompt, **known})
    with open(folder / "films.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "films.csv"


def test_the_protocol_writes_the_benchmark_s_files(synthchex: Run, dino: Path, tmp_path: Path) -> None:
    made = phantom.make(60, seed=1)
    real, fake = table(tmp_path / "real", made, real=True), table(tmp_path / "fake", made, real=False)
    words = ["--real", real, "--synthetic", fake, "--protocol", "chexgenbench", "--encoder", f"rad-dino:{dino}"]
    words += ["--image-text", "phantom", "--metrics", "kid", "alignment", "--extra-info", "mine", "--quiet"]
    for _ in range(2):
        done = synthchex("evaluate", *words, "--csv-dir", tmp_path / "csv", "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
    with open(tmp_path / "csv" / "image_generation_metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["Extra Info"] for row in rows] == ["mine", "mine"], "each run appends a row"
    assert (rows[0]["FID"], rows[0]["Inception Score"]) == ("", ""), "no Inception features, and no such quantity"
    assert float(rows[0]["FID (RadDino)"]) == pytest.approx(0, abs=1e-3), "the films are the same"
    assert (tmp_path / "csv" / "conditional_img_text_alignment.csv").is_file()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["protocol"] == "chexgenbench"
    assert results["join"] == {"by": "prompt", "joined": 60, "only_real": 0, "only_synthetic": 0, "repeated": 0}
    assert results["labels"], "labels of the synthetic films came through their prompts"


def results() -> dict[str, object]:
    row = {"metric": "kid", "label": "KID", "encoder": "/home/someone/rad-dino", "value": np.pi, "interval": [3.0, 3.3]}
    row |= {"floor": 0.1, "n_real": 10, "n_synthetic": 20, "state": "ok"}
    empty = row | {"metric": "fid_infinity", "value": None}
    return {"overall": [row, empty], "created": "2026-01-02T03:04:05", "protocol": "default"}


def test_pushed_scores_are_whole_sets_and_name_no_folder() -> None:
    (entry,) = push_results.entries(results(), "org/cxr-bench")
    assert entry["dataset"] == {"id": "org/cxr-bench", "task_id": "kid-rad-dino"}
    assert (entry["value"], entry["date"]) == (3.14159, "2026-01-02")
    assert "interval 3 to 3.3, real vs real 0.1" in entry["notes"]
    assert "/" not in entry["notes"]


def test_a_benchmark_is_a_dataset_id() -> None:
    with pytest.raises(ValueError, match=r"benchmark must be a dataset id, org/name, got 'cxr-bench'"):
        push_results.entries(results(), "cxr-bench")


def test_the_hub_s_own_reader_takes_the_entries() -> None:
    hub = pytest.importorskip("huggingface_hub")
    if not hasattr(hub, "parse_eval_result_entries"):
        pytest.skip("huggingface_hub before 2 has no reader for .eval_results")
    (parsed,) = hub.parse_eval_result_entries(push_results.entries(results(), "org/cxr-bench"))
    assert (parsed.dataset_id, parsed.value) == ("org/cxr-bench", 3.14159)
