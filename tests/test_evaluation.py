"""Evaluation: one pass, overall and per label, beside the floor; what was skipped or copied is said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synthchex import phantom
from synthchex.data import images, records, sources
from synthchex.scores import Request, Scored, label_groups, score, split_real

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def as_set(made: phantom.Phantoms, name: str, patients: list[str] | None = None) -> sources.ImageSet:
    films = list(made.images)
    labels = made.labels.astype(np.float32)
    return sources.ImageSet(
        name, [str(i) for i in range(len(films))], films.__getitem__, made.reports, labels, patients
    )


@pytest.fixture(scope="module")
def scored() -> Scored:
    """120 phantoms against 240 others, with labels and prompts."""
    real, synthetic = phantom.make(240, seed=1), phantom.make(120, seed=2)
    request = Request(encoder="phantom", image_text="phantom", domain="phantom", min_rows=20)
    return score(as_set(real, "real"), as_set(synthetic, "synthetic"), request, None, quiet=True)


def test_every_metric_stands_beside_its_floor(scored: Scored) -> None:
    rows = {row["metric"]: row for row in scored.results["overall"]}
    assert list(rows)[:6] == ["fid", "kid", "precision", "recall", "density", "coverage"]
    assert rows["alignment"]["value"] == pytest.approx(rows["alignment"]["floor"], abs=0.1)
    assert rows["alignment_z"]["value"] > 5, "films must agree with their own prompts more than with others'"
    for row in rows.values():
        assert row["floor"] is not None
        assert (row["n_real"], row["n_synthetic"]) == (240, 120)
    low, high = rows["kid"]["interval"]
    assert low < rows["kid"]["value"] < high
    json.dumps(scored.results)


def test_labels_with_too_few_films_have_a_state_and_no_numbers(scored: Scored) -> None:
    rows = {row["label"]: row for row in scored.results["labels"]}
    assert {row["state"] for row in rows.values()} == {"ok", "insufficient n"}
    for row in rows.values():
        assert (row["state"] == "ok") == (min(row["n_real"], row["n_synthetic"]) >= 20)
        assert ("kid" in row) == (row["state"] == "ok")


def test_label_values_are_those_of_the_selected_films(scored: Scored) -> None:
    row = next(row for row in scored.results["labels"] if row["state"] == "ok")
    column = records.LABELS.index(row["label"])
    a, b = scored.real, scored.synthetic
    assert a.labels is not None
    assert b.labels is not None
    import synthchex

    alone = synthchex.load("kid").compute(
        predictions=b.features[b.labels[:, column] == 1], references=a.features[a.labels[:, column] == 1]
    )
    assert row["kid"] == pytest.approx(alone["kid"], abs=1e-4)


def test_degraded_films_score_worse_than_the_floor() -> None:
    real, other = phantom.make(160, seed=3), phantom.make(160, seed=4)
    noisy = other._replace(
        images=(other.images // 2 + np.random.default_rng(0).integers(0, 128, other.images.shape, np.uint8))
    )
    results = score(as_set(real, "a"), as_set(noisy, "b"), Request(encoder="phantom"), None, quiet=True).results
    rows = {row["metric"]: row for row in results["overall"]}
    assert rows["kid"]["interval"][0] > abs(rows["kid"]["floor"])
    assert rows["fid"]["value"] > 3 * rows["fid"]["floor"]
    assert rows["coverage"]["value"] < rows["coverage"]["floor"]


def test_the_floor_never_has_a_patient_on_both_sides(scored: Scored) -> None:
    patients = [f"p{i // 4}" for i in range(240)]
    side = scored.real._replace(patients=patients)
    first, second = split_real(side, 100, seed=0)
    assert sorted([*first, *second]) == list(range(240))
    assert not {patients[i] for i in first} & {patients[i] for i in second}
    assert 90 <= len(first) <= 100


def test_uncertain_and_unmentioned_labels_belong_to_no_group() -> None:
    labels = np.full((3, 14), np.nan, np.float32)
    labels[:, records.LABELS.index("Edema")] = [1, -1, 0]
    groups = label_groups(labels, labels)
    assert list(groups) == ["Edema"]
    assert groups["Edema"][0].tolist() == [True, False, False]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of 40 phantoms; one film of the second is broken, one is a copy from the first."""
    for name, seed in (("real", 1), ("synthetic", 2)):
        (tmp_path / name).mkdir()
        for index, film in enumerate(phantom.make(40, seed=seed).images):
            (tmp_path / name / f"{index:02d}.png").write_bytes(images.to_png(film))
    (tmp_path / "synthetic" / "05.png").write_bytes(b"broken")
    (tmp_path / "synthetic" / "06.png").write_bytes((tmp_path / "real" / "00.png").read_bytes())
    return tmp_path / "real", tmp_path / "synthetic"


def test_the_command_scores_two_folders(synthchex: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    command = [
        "evaluate",
        "--real",
        folders[0],
        "--synthetic",
        folders[1],
        "--encoder",
        "phantom",
        "--out",
        tmp_path / "out",
    ]
    done = synthchex(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str((tmp_path / "out" / "report.html").resolve())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["sets"]["synthetic"]["skipped"] == {"not-an-image": 1}
    assert results["sets"]["synthetic"]["n"] == 39
    assert any("1 films stand byte for byte in both sets" in text for text in results["warnings"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not-an-image" in page
    again = json.loads(synthchex(*command, "--json").stdout)
    assert json.loads(Path(again["results"]).read_text())["overall"] == results["overall"]


def test_bad_input_is_said_before_any_network_is_loaded(
    synthchex: Run, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    done = synthchex("evaluate", "--real", folders[0], "--synthetic", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "which is not there; check the path" in done.stderr
    done = synthchex(
        "evaluate", "--real", folders[0], "--synthetic", folders[1], "--encoder", "nosuch", "--out", tmp_path / "o"
    )
    assert done.returncode == 2
    assert "expected one of ['phantom'," in done.stderr
