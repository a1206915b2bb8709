"""Comparing models: pairs by prompt, ranks that respect the tests, refusals, tables."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synthchex import phantom
from synthchex.data import images
from synthchex.report import leaderboard
from synthchex.scores import comparison

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write(folder: Path, made: phantom.Phantoms, noise: int = 0) -> Path:
    """Films and a table of prompts; `noise` grey levels of noise make a worse model."""
    folder.mkdir()
    lines = ["image,prompt"]
    rng = np.random.default_rng(0)
    for index, (film, prompt) in enumerate(zip(made.images, made.reports, strict=True)):
        pixels = np.clip(film.astype(int) + rng.integers(-noise, noise + 1, film.shape), 0, 255).astype(np.uint8)
        (folder / f"{index:03d}.png").write_bytes(images.to_png(pixels))
        lines.append(f'{index:03d}.png,"{prompt}"')
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    return folder / "films.csv"


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Prompts of a good model, of other films that are as good, and of a noisy model; one real set, one store."""
    root = tmp_path_factory.mktemp("models")
    real = write(root / "real", phantom.make(150, seed=1))
    good, noisy = phantom.make(100, seed=2), phantom.make(100, seed=2)
    tables = {
        "good": write(root / "good", good),
        "same": write(root / "same", phantom.make(100, seed=3)._replace(reports=good.reports)),
        "noisy": write(root / "noisy", noisy, noise=60),
    }
    from synthchex.commands import evaluation

    folders = []
    for name, table in tables.items():
        words = ["--real", real, "--synthetic", table, "--encoder", "phantom", "--image-text", "phantom", "--quiet"]
        words += ["--metrics", "fid", "kid", "prdc", "alignment", "--feature-store", root / "store", "--json"]
        evaluation.main([str(word) for word in [*words, "--out", root / f"scores-{name}"]])
        folders.append(root / f"scores-{name}")
    return folders


@pytest.fixture(scope="module")
def found(evaluations: list[Path]) -> dict[str, object]:
    kept = evaluations[0].parent / "store"
    models = [comparison.read(folder, folder.name.removeprefix("scores-"), kept) for folder in evaluations]
    return comparison.compare(models, comparison.Options(permutations=199))


def test_films_are_paired_by_prompt(found: dict[str, object]) -> None:
    assert found["pairing"] == {"paired": True, "films": 100, "left_out": [0, 0, 0]}


def test_a_worse_model_is_told_apart_and_equal_ones_share_a_rank(found: dict[str, object]) -> None:
    ranks = {
        row["model"]: {m["metric"]: m["rank"] for m in row["metrics"]}
        for row in found["leaderboard"]  # type: ignore[attr-defined]
    }
    assert ranks["good"]["kid"] == ranks["same"]["kid"] == 1
    assert ranks["noisy"]["kid"] == 3
    assert ranks["noisy"]["fid"] == 3


def test_the_difference_is_that_of_the_two_evaluations(found: dict[str, object], evaluations: list[Path]) -> None:
    values = {}
    for folder in evaluations:
        rows = json.loads((folder / "results.json").read_text())["overall"]
        values[folder.name.removeprefix("scores-")] = next(row["value"] for row in rows if row["metric"] == "kid")
    for pair in found["pairs"]:  # type: ignore[attr-defined]
        if pair["metric"] == "kid":
            assert pair["difference"] == pytest.approx(values[pair["first"]] - values[pair["second"]], rel=1e-3)
            assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]


def test_other_prompts_are_compared_as_independent_samples(evaluations: list[Path]) -> None:
    kept = evaluations[0].parent / "store"
    good, noisy = (comparison.read(evaluations[i], str(i), kept) for i in (0, 2))
    assert good.prompts is not None
    other = good._replace(prompts=[f"other {prompt}" for prompt in good.prompts])
    result = comparison.compare([other, noisy], comparison.Options(permutations=99))
    assert result["pairing"]["paired"] is False
    kid = next(pair for pair in result["pairs"] if pair["metric"] == "kid")
    assert kid["better"] == "0"


def test_other_real_films_or_encoders_are_refused(evaluations: list[Path]) -> None:
    kept = evaluations[0].parent / "store"
    one, two = (comparison.read(folder, folder.name, kept) for folder in evaluations[:2])
    moved = two._replace(results=two.results | {"hashes": {"real": "x"}})
    with pytest.raises(ValueError, match="measured with different real films"):
        comparison.compare([one, moved], comparison.Options())
    with pytest.raises(ValueError, match="two or more models of different names"):
        comparison.compare([one, one], comparison.Options())
    with pytest.raises(ValueError, match="name the store with --feature-store"):
        comparison.read(evaluations[0], "a", None)
    with pytest.raises(ValueError, match=r"found no results.json and no samples.parquet; run evaluate first"):
        comparison.read(evaluations[0].parent, "a", None)


def test_the_command_writes_every_table(synthchex: Run, evaluations: list[Path], tmp_path: Path) -> None:
    store = evaluations[0].parent / "store"
    words = ["--feature-store", store, "--permutations", "99", "--published", "--out", tmp_path / "out"]
    done = synthchex("compare", *evaluations, "--names", "good", "same", "noisy_1", *words)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "leaderboard.md").read_text()
    assert page.strip() in done.stdout
    assert "published, other protocol" in page
    assert "Sana" in page
    assert r"noisy\_1" in (tmp_path / "out" / "leaderboard.tex").read_text()
    assert (tmp_path / "out" / "leaderboard.csv").read_text().startswith("Model,n,FID")
    json.loads((tmp_path / "out" / "comparison.json").read_text())


def test_latex_has_no_bare_special_letters() -> None:
    text = leaderboard.latex(leaderboard.Table(["a_b", "FID ↓"], [["50 % & more", "1"]]))
    assert r"a\_b & FID $\downarrow$ \\" in text
    assert r"50 \% \& more & 1 \\" in text
