"""The main job as a user runs it: every stage, every count, resumed after an interruption."""

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

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex import phantom
from synthchex.commands.job import CONFIGS, Job
from synthchex.data import images, recipes

Run = Callable[..., "subprocess.CompletedProcess[str]"]
STAGES = ["prompts", "generated", "judged", "kept", "loaded back"]


def job(tmp_path: Path, **changes: object) -> Path:
    """A small phantom job."""
    values = {
        "title": "A small job",
        "domain": "phantom",
        "prompts": "phantom:48",
        "real": "phantom:128",
        "recipe": "phantom",
        "judge": "phantom",
        "encoder": "phantom",
        "image_text": "phantom",
        "num_processes": 2,
        **changes,
    }
    path = tmp_path / "job.yaml"
    path.write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items()))
    return path


def dataset_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "dataset" / "data").glob("*.parquet"))]


def test_prompts_to_report(synthchex: Run, tmp_path: Path) -> None:
    done = synthchex("run", "--config", job(tmp_path), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str((tmp_path / "out" / "report.html").resolve())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    stages = {stage["name"]: stage["rows"] for stage in results["stages"]}
    assert list(stages) == STAGES
    assert stages["prompts"] == stages["generated"] == stages["judged"] == 48
    dropped = sum(results["verdicts"]["drop_reasons"].values())
    assert stages["kept"] == stages["loaded back"] == 48 - dropped
    assert {row["metric"] for row in results["overall"]} >= {"fid", "kid", "precision", "coverage", "alignment"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not comparable with real radiographs" in page
    again = synthchex("run", "--config", tmp_path / "job.yaml", "--out", tmp_path / "out", "--json", "--quiet")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["overall"] == results["overall"]
    assert again.stderr == ""


@pytest.mark.slow
def test_a_job_killed_again_and_again_ends_as_one_that_was_not(synthchex: Run, tmp_path: Path) -> None:
    config = job(tmp_path)
    assert synthchex("run", "--config", config, "--out", tmp_path / "whole").returncode == 0
    command = [sys.executable, "-m", "synthchex.cli", "run", "--config", str(config), "--out", str(tmp_path / "killed")]
    for seconds in (4, 8, 12, 16, 20):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert synthchex("run", "--config", config, "--out", tmp_path / "killed").returncode == 0
    assert dataset_bytes(tmp_path / "killed") == dataset_bytes(tmp_path / "whole")


def test_the_same_job_runs_on_models_of_the_real_classes(synthchex: Run, tmp_path: Path) -> None:
    """Stable Diffusion, a Llava judge, a ViT encoder and CLIP, tiny and random, from folders as from the Hub."""
    model, judge = tiny.stable_diffusion(tmp_path / "sd"), tiny.llava(tmp_path / "llava")
    (tmp_path / "recipe.yaml").write_text(f"name: sd\nmodel: {model}\nsteps: 2\nheight: 16\nwidth: 16\n")
    (tmp_path / "judge.yaml").write_text(f"name: llava\njudge: vlm\nmodel: {judge}\n")
    made = phantom.make(30, seed=5)
    (tmp_path / "real").mkdir()
    for index, film in enumerate(made.images):
        (tmp_path / "real" / f"{index}.png").write_bytes(images.to_png(film))
    (tmp_path / "prompts.csv").write_text(
        "prompt\n" + "\n".join(f"a rather long finding {i}" for i in range(24)) + "\n"
    )
    config = job(
        tmp_path,
        domain="radiographs",
        prompts=str(tmp_path / "prompts.csv"),
        real=str(tmp_path / "real"),
        num_processes=1,
        recipe=str(tmp_path / "recipe.yaml"),
        judge=str(tmp_path / "judge.yaml"),
        nearest_k=1,
        encoder=str(tiny.vit_classifier(tmp_path / "vit", ["a"])),
        image_text=str(tiny.clip(tmp_path / "clip")),
    )
    done = synthchex("run", "--config", config, "--out", tmp_path / "out")
    results = tmp_path / "out" / "results.json"
    if done.returncode:
        # A random judge may drop every film; then the job must say so, and say it early.
        assert "build expects at least 1 row, got 0" in done.stderr, done.stderr
        return
    found = json.loads(results.read_text())
    assert found["sets"]["synthetic"]["n"] == found["stages"][-1]["rows"]
    assert any("prompts are longer than the text tower reads" in text for text in found["warnings"])


def test_a_failing_stage_ends_the_job_and_says_which(synthchex: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("words\nx\n")
    done = synthchex("run", "--config", job(tmp_path, prompts=str(tmp_path / "bad.csv")), "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "has no prompt column" in done.stderr


def test_the_demo_is_a_configuration_and_unknown_keys_are_errors(tmp_path: Path) -> None:
    demo = recipes.read(CONFIGS / "demo.yaml", Job)
    assert demo.domain == "phantom"
    assert int(demo.prompts.split(":")[1]) >= 256
    (tmp_path / "typo.yaml").write_text((CONFIGS / "demo.yaml").read_text() + "promts: x\n")
    with pytest.raises(ValueError, match=r"has unknown keys \['promts'\]; the valid ones are \['title', 'prompts'"):
        recipes.read(tmp_path / "typo.yaml", Job)
