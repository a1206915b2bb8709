"""Evaluation: one pass, overall and per label, beside the floor; what was skipped or copied is said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthchex import phantom
from synthchex.data import images, records, sources
from synthchex.models import encoders, store
from synthchex.scores import Request, Scored, label_groups, score
from synthchex.scores.sets import halves

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
    request = Request(
        encoders=("phantom",),
        image_text="phantom",
        classifiers=("phantom",),
        domain="phantom",
        min_rows=20,
        permutations=99,
    )
    return score(as_set(real, "real"), as_set(synthetic, "synthetic"), request, None, quiet=True)


def test_every_metric_stands_beside_its_floor(scored: Scored) -> None:
    rows = {row["metric"]: row for row in scored.results["overall"]}
    assert list(rows)[:6] == ["fid", "kid", "precision", "recall", "density", "coverage"]
    assert {"vendi", "cmmd", "ms_ssim", "alignment"} <= set(rows)
    assert rows["alignment"]["value"] == pytest.approx(rows["alignment"]["floor"], abs=0.1)
    assert rows["alignment_z"]["value"] > 5, "films must agree with their own prompts more than with others'"
    for key, row in rows.items():
        assert row["floor"] is not None
        assert (row["n_real"], row["n_synthetic"]) == (240, 120)
        if key in ("fid", "kid", "precision", "coverage", "cmmd"):
            assert row["n_floor"] == [120, 120]
            assert row["matched"] is not None
    low, high = rows["kid"]["interval"]
    assert low < rows["kid"]["value"] < high
    assert {"inception_score", "frd"} == set(scored.results["not_measured"])
    json.dumps(scored.results, allow_nan=False)


def test_label_rows_compare_at_one_size_and_test_with_adjustment(scored: Scored) -> None:
    rows = [row for row in scored.results["labels"] if row["state"] == "ok"]
    assert len({row["matched"]["n"] for row in rows if row["matched"]["n"]}) == 1
    for row in rows:
        assert row["p_value"] <= row["p_adjusted"]
        assert row["flagged"] == (row["p_adjusted"] < 0.05)
        assert row["conditional"]["gap"] == pytest.approx(
            row["conditional"]["to_other"] - row["conditional"]["to_same"], abs=1e-6
        )


def test_a_classifier_finds_the_labels_of_the_prompts(scored: Scored) -> None:
    (found,) = scored.results["faithfulness"]
    assert found["mean"]["auroc"] > 0.95
    assert abs(found["mean"]["difference"]) < 0.05


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
        predictions=b.features["phantom"][b.labels[:, column] == 1],
        references=a.features["phantom"][a.labels[:, column] == 1],
    )
    assert row["kid"] == pytest.approx(alone["kid"], abs=1e-4)


def test_degraded_films_score_worse_than_the_floor() -> None:
    real, other = phantom.make(160, seed=3), phantom.make(160, seed=4)
    noisy = other._replace(
        images=(other.images // 2 + np.random.default_rng(0).integers(0, 128, other.images.shape, np.uint8))
    )
    request = Request(encoders=("phantom",), metrics=("fid", "kid", "prdc"), permutations=99)
    results = score(as_set(real, "a"), as_set(noisy, "b"), request, None, quiet=True).results
    rows = {row["metric"]: row for row in results["overall"]}
    assert rows["kid"]["interval"][0] > abs(rows["kid"]["floor"])
    assert rows["fid"]["value"] > 3 * rows["fid"]["floor"]
    assert rows["coverage"]["value"] < rows["coverage"]["floor"]


def test_the_floor_never_has_a_patient_on_both_sides() -> None:
    patients = [f"p{i // 4}" for i in range(240)]
    first, second = halves(patients, 240, 100, seed=0)
    assert len(first) == len(second) == 100
    assert not {patients[i] for i in first} & {patients[i] for i in second}
    first, second = halves(None, 9, 100, seed=0)
    assert len(first) == len(second) == 4
    assert not set(first) & set(second)


def test_uncertain_labels_belong_where_they_are_put(scored: Scored) -> None:
    labels = np.full((4, 14), np.nan, np.float32)
    labels[:, records.LABELS.index("Edema")] = [1, -1, 0, np.nan]
    side = replace(scored.real, labels=labels)
    for policy, expected in (("ignore", [1, 0, 0, 0]), ("positive", [1, 1, 0, 0]), ("negative", [1, 0, 0, 0])):
        groups = label_groups(side, side, Request(encoders=("phantom",), uncertain=policy))  # type: ignore[arg-type]
        assert list(groups) == ["Edema"]
        assert groups["Edema"][0].tolist() == [bool(value) for value in expected]


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
        "--metrics",
        "fid",
        "kid",
        "prdc",
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


def test_two_processes_score_what_one_does(synthchex: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--real", folders[0], "--synthetic", folders[1], "--encoder", "phantom", "--metrics", "kid", "--quiet"]
    alone = synthchex("evaluate", *words, "--out", tmp_path / "one")
    both = synthchex("launch", "--num-processes", "2", "evaluate", *words, "--out", tmp_path / "two")
    assert alone.returncode == both.returncode == 0, alone.stderr + both.stderr
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert two["overall"][0]["value"] == pytest.approx(one["overall"][0]["value"], rel=1e-5)
    assert two["sets"] == one["sets"]
    assert both.stdout.count("numbers in") == 1, "one process talks"


def test_processes_share_the_films_and_leave_none_out(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, encoder = sources.open_images(folders[0]), encoders.load_encoder("phantom")
    store.share(images, [encoder], tmp_path, batch_size=16)
    found = store.encode(images, [encoder], tmp_path, quiet=True)
    assert found.computed == 0
    np.testing.assert_allclose(
        found.features[0], store.encode(images, [encoder], None, quiet=True).features[0], atol=1e-5
    )


def test_large_sets_come_back_as_mapped_files(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, encoder = sources.open_images(folders[0]), encoders.load_encoder("phantom")
    plain = store.encode(images, [encoder], tmp_path, quiet=True).features[0]
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    mapped = store.encode(images, [encoder], tmp_path, quiet=True).features[0]
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, plain)
    assert not list(tmp_path.rglob("tmp*")), "the file has no name"


def test_one_set_against_itself_is_said(folders: tuple[Path, Path]) -> None:
    images = sources.open_images(folders[0])
    request = Request(encoders=("phantom",), metrics=("kid",))
    results = score(images, images, request, None, quiet=True).results
    assert any("every synthetic film is in the real set" in text for text in results["warnings"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "fid", "lpips"], "metrics must be among"),
        (["--uncertain", "maybe"], "uncertain must be among"),
        (["--alpha", "5"], "confidence_level and alpha must lie between 0 and 1"),
        (["--protocol", "chexgenbench"], "needs the encoder rad-dino"),
        (["--push-results", "org/model"], "--push-results needs --benchmark"),
    ],
)
def test_bad_options_are_said_before_anything_is_read(synthchex: Run, words: list[str], message: str) -> None:
    done = synthchex("evaluate", "--real", "a", "--synthetic", "b", "--encoder", "phantom", "--out", "o", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_results_of_other_commands_stand_in_the_report(tmp_path: Path) -> None:
    from synthchex.commands import evaluation

    for name, found in (("privacy", {"flagged": []}), ("utility", {"classification": {}}), ("other", None)):
        (tmp_path / name).mkdir()
        if found is not None:
            (tmp_path / name / "results.json").write_text(json.dumps({"title": "T", name: found}))
    both = evaluation.included([tmp_path / "privacy", tmp_path / "utility"])
    assert both == {"privacy": {"flagged": []}, "utility": {"classification": {}}}
    for wrong in ([tmp_path / "other"], [tmp_path / "nowhere"], [tmp_path / "privacy"] * 2):
        with pytest.raises(ValueError, match="expected results of privacy, utility or utility-reports"):
            evaluation.included(wrong)
