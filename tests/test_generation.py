"""Generation: the same bytes for any number of processes and after any kill; bad input said early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from synthchex.data import shards

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def stage_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "data").glob("*.parquet"))]


def test_a_film_has_its_own_seed_and_provenance(synthchex: Run, prompts_csv: Path, tmp_path: Path) -> None:
    done = synthchex(
        "generate",
        "--prompts",
        prompts_csv,
        "--recipe",
        "noise",
        "--out",
        tmp_path / "a",
        "--images_per_prompt=2",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 14
    rows = shards.Rows(shards.parquet_files(tmp_path / "a"))
    assert len(set(rows.column("seed"))) == len(set(rows.column("id"))) == 14
    assert rows[3]["id"] == "case1-1"
    assert rows[3]["labels_dict"]["Edema"] == 1
    assert rows[3]["image"]["path"] == rows[3]["filename"] == "case1-1.png"
    assert "torch" in json.loads(rows[3]["versions"])


def test_two_processes_make_the_same_bytes_as_one(synthchex: Run, prompts_csv: Path, tmp_path: Path) -> None:
    arguments = [
        "generate",
        "--prompts",
        prompts_csv,
        "--recipe",
        "noise",
        "--batch-size",
        "2",
        "--batches-per-shard",
        "1",
    ]
    assert synthchex(*arguments, "--out", tmp_path / "one").returncode == 0
    done = synthchex("launch", "--num-processes", 2, *arguments, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert stage_bytes(tmp_path / "one") == stage_bytes(tmp_path / "two")


def test_the_embedded_model_makes_the_same_films_in_two_processes(synthchex: Run, tmp_path: Path) -> None:
    assert synthchex("phantom", "--count", 12, "--prompts-only", "--out", tmp_path / "p").returncode == 0
    arguments = ["generate", "--prompts", tmp_path / "p", "--recipe", "phantom", "--steps", 4, "--batch-size", 4]
    arguments += ["--batches-per-shard", 1]
    one = synthchex(*arguments, "--out", tmp_path / "one")
    two = synthchex("launch", "--num-processes", 2, *arguments, "--out", tmp_path / "two")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert stage_bytes(tmp_path / "one") == stage_bytes(tmp_path / "two")
    assert len(stage_bytes(tmp_path / "one")) == 3


def test_a_run_killed_in_the_middle_ends_with_the_bytes_of_one_that_was_not(
    synthchex: Run, prompts_csv: Path, tmp_path: Path
) -> None:
    arguments = [
        "generate",
        "--prompts",
        prompts_csv,
        "--recipe",
        "noise",
        "--images-per-prompt",
        80,
        "--batch-size",
        1,
    ]
    arguments += ["--batches-per-shard", 1]
    command = [sys.executable, "-m", "synthchex.cli", *map(str, arguments), "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(stage_bytes(tmp_path / "killed")) < 20 and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = len(stage_bytes(tmp_path / "killed"))
    assert 20 <= made < 560, "the run must be killed in its middle"
    assert synthchex(*arguments, "--out", tmp_path / "killed").returncode == 0
    assert synthchex(*arguments, "--out", tmp_path / "whole").returncode == 0
    assert stage_bytes(tmp_path / "killed") == stage_bytes(tmp_path / "whole")
    ids = shards.Rows(shards.parquet_files(tmp_path / "killed")).column("id")
    assert len(ids) == len(set(ids)) == 560


def test_a_launcher_that_starts_too_few_processes_is_caught(synthchex: Run, prompts_csv: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SYNTHCHEX_NUM_PROCESSES": "2"}
    done = synthchex(
        "generate", "--prompts", prompts_csv, "--recipe", "noise", "--out", tmp_path / "a", env=environment
    )
    assert done.returncode == 1
    assert "expected 2 processes, got 1; start them with `synthchex launch`" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--recipe", "nothing"], "expected a .yaml file or one of ["),
        (["--recipe", "missing.yaml"], "expected a YAML file, got missing.yaml"),
        (["--prompts", "missing.csv"], "missing.csv, which is not there; check the path"),
        (["--batch-size", "0"], "must be at least 1"),
        (
            ["--prompt-column", "words"],
            "has no column 'words' for the prompt; its columns are ['id', 'prompt', 'Edema']",
        ),
        (["--out", "/dev/null/out"], "expected a folder that can be written"),
    ],
)
def test_bad_input_is_said_early_in_one_line(
    synthchex: Run, prompts_csv: Path, tmp_path: Path, change: list[str], message: str
) -> None:
    arguments = {"--prompts": str(prompts_csv), "--recipe": "noise", "--out": str(tmp_path / "out")}
    arguments |= dict(zip(change[::2], change[1::2], strict=True))
    done = synthchex("generate", *(word for pair in arguments.items() for word in pair), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_key_in_a_recipe_lists_the_valid_ones(synthchex: Run, prompts_csv: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nsampler: noise\nguidance: 3\n")
    done = synthchex("generate", "--prompts", prompts_csv, "--recipe", recipe, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "has unknown keys ['guidance']; the valid ones are ['name', 'model'," in done.stderr


def test_a_changed_seed_into_the_same_folder_is_refused(synthchex: Run, prompts_csv: Path, tmp_path: Path) -> None:
    arguments = ["generate", "--prompts", prompts_csv, "--recipe", "noise", "--out", tmp_path / "out"]
    assert synthchex(*arguments).returncode == 0
    done = synthchex(*arguments, "--seed", 1)
    assert done.returncode == 2
    assert "recipe.seed: 0 there, 1 now" in done.stderr
