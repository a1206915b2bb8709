"""`synthchex privacy`: copies are flagged, new films are not; real films are shown only where their source is open."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthchex import phantom
from synthchex.commands import privacy
from synthchex.options import REFUSED
from synthchex.privacy import selftest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write(folder: Path, films: Sequence[np.ndarray], prompts: Sequence[str], patients: Sequence[str]) -> Path:
    folder.mkdir()
    with open(folder / "films.csv", "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["id", "image", "prompt", "patient"])
        for row, (film, prompt, patient) in enumerate(zip(films, prompts, patients, strict=True)):
            Image.fromarray(film).save(folder / f"{row:03d}.png")
            rows.writerow([f"{folder.name}-{row:03d}", f"{row:03d}.png", prompt, patient])
    return folder / "films.csv"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """40 films to train on, 80 of other patients, 60 new ones, and these with 12 noisy copies among them."""
    folder = tmp_path_factory.mktemp("privacy")
    train, others, new = (phantom.make(count, seed=seed) for count, seed in ((40, 1), (80, 2), (60, 3)))
    rng = np.random.default_rng(0)
    copies = [np.clip(film + rng.normal(0, 2, film.shape), 0, 255).astype(np.uint8) for film in train.images[:12]]
    patients = {name: [f"{name}{row // 2}" for row in range(80)] for name in ("t", "h")}
    return {
        "train": write(folder / "train", list(train.images), train.reports, patients["t"][:40]),
        "held": write(folder / "held", list(others.images), others.reports, patients["h"]),
        "new": write(folder / "new", list(new.images), new.reports, [""] * 60),
        "leaky": write(folder / "leaky", [*new.images[:48], *copies], new.reports, [""] * 60),
        "both": write(folder / "both", list(others.images), others.reports, ["t0", *patients["h"][1:]]),
    }


def words(made: dict[str, Path], synthetic: str, *more: Any) -> list[Any]:
    sides = ["--real", made["train"], "--held-out", made["held"], "--synthetic", made[synthetic]]
    return ["privacy", *sides, "--encoder", "phantom", "--quiet", *more]


def found(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text())["privacy"])


def test_copies_are_flagged_named_and_shown(made: dict[str, Path], tmp_path: Path, inside: Run) -> None:
    done = inside(*words(made, "leaky", "--planted", 2, "--source-policy", "open", "--check", "--out", tmp_path))
    assert done.returncode == REFUSED
    assert "FLAGGED: more films near training films than the null allows" in done.stdout
    said = found(tmp_path)
    pixels = next(row for row in said["neighbours"] if row["space"] == "pixels")
    assert pixels["n_below_limit"] >= 12
    assert pixels["memorization_p_value"] < 1e-3
    assert said["copies"]["any"] >= 12, "the gate of publish calls them copies too"
    table = pq.read_table(tmp_path / "films.parquet").to_pydict()
    nearest = {table["id"][row]: table["pixels_train"][row] for row in np.argsort(table["pixels_distance"])[:12]}
    assert nearest == {f"leaky-{48 + row:03d}": f"train-{row:03d}" for row in range(12)}
    page = (tmp_path / "report.html").read_text()
    assert "Distance to the closest training film (DCR) beside the null" in page
    assert "training film" in page
    assert {plot.stem for plot in (tmp_path / "plots").glob("*.png")} == {
        "dcr__phantom",
        "dcr__pixels",
        "dcr__ssim",
        "planted",
    }


def test_patients_are_recognised_beside_chance_and_the_benchmark_has_its_table(
    made: dict[str, Path], tmp_path: Path, inside: Run
) -> None:
    asked = ["--reid", "cosine", "--false-positives", 0.05, "--protocol", "chexgenbench", "--planted", 0, "--no-copies"]
    assert inside(*words(made, "leaky", *asked, "--out", tmp_path)).returncode == 0
    said = found(tmp_path)["reidentification"]
    assert said["score"] == "cosine of phantom"
    assert said["calibration"]["patients"] == 40
    assert said["match"]["synthetic"]["films"] == 60
    assert said["match"]["held_out"]["hits"] > 0, "the best of many films passes a threshold of pairs by chance"
    assert {"Avg. Re-ID Score", "Avg. Latent Distance", "Avg. Pixel Distance", "Count Re-ID > delta"} <= set(
        said["benchmark"]["summary"]
    )
    assert all(row["Min_pixel_distance"] <= row["Mean_pixel_distance"] for row in said["benchmark"]["rows"])
    page = (tmp_path / "report.html").read_text()
    assert "Films that match a training patient" in page
    assert "CheXGenBench&#39;s privacy table" in page


def test_new_films_are_not_flagged(made: dict[str, Path], tmp_path: Path, inside: Run) -> None:
    done = inside(*words(made, "new", "--planted", 0, "--no-copies", "--check", "--json", "--out", tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["flagged"] == []
    said = found(tmp_path)
    assert said["selftest"] is None
    for row in said["neighbours"]:
        assert 0.7 < row["dcr_ratio"] < 1.4
        assert row["share_below_limit_at_most"] > 0


def test_a_second_run_searches_nothing_anew(made: dict[str, Path], tmp_path: Path, inside: Run) -> None:
    asked = words(made, "new", "--planted", 0, "--no-copies", "--out", tmp_path)
    assert inside(*asked).returncode == 0
    before, first = found(tmp_path), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("block-*")}
    assert first
    assert inside(*asked).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert found(tmp_path) == before


@pytest.mark.parametrize("policy", ["credentialed", "unknown"])
def test_real_films_that_are_not_open_are_neither_shown_nor_named(
    made: dict[str, Path], tmp_path: Path, inside: Run, policy: str
) -> None:
    more = ["--planted", 0, "--no-copies", "--source-policy", policy, "--out", tmp_path]
    assert inside(*words(made, "leaky", *more)).returncode == 0
    assert not [name for name in pq.read_schema(tmp_path / "films.parquet").names if "train" in name]
    page = (tmp_path / "report.html").read_text()
    assert f"Real films are not shown: their source is {policy}." in page
    assert "train-000" not in page + (tmp_path / "results.json").read_text()
    assert page.count("data:image/png") == 0


def test_patients_on_both_sides_are_an_error_before_anything_is_read(
    made: dict[str, Path], tmp_path: Path, inside: Run
) -> None:
    done = inside(*words({**made, "held": made["both"]}, "new", "--out", tmp_path / "out"))
    assert done.returncode == 2
    assert "got 1 patients that are in both" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--reid", "--membership"])
def test_what_needs_held_out_films_says_so(made: dict[str, Path], tmp_path: Path, inside: Run, option: str) -> None:
    sides = ["--real", made["train"], "--synthetic", made["new"], "--encoder", "phantom", "--quiet"]
    value = {"--reid": "cosine", "--membership": "phantom"}[option]
    done = inside("privacy", *sides, option, value, "--planted", 0, "--no-copies", "--out", tmp_path)
    assert done.returncode == 2
    assert "--reid and --membership need --held-out" in done.stderr


def test_the_self_test_knows_which_copies_a_space_misses(made: dict[str, Path], tmp_path: Path) -> None:
    options = privacy.parser().parse_args(
        [str(word) for word in words(made, "new", "--out", tmp_path)][1:]  # without the command's name
    )
    real, synthetic, held_out = privacy.open_sets(options)
    request = privacy.Request(["pixels"], tmp_path / "features", tmp_path / "search")
    spaces = privacy.neighbours.neighbours(synthetic, real, held_out, request)
    said = selftest.selftest(real, held_out, spaces, request, copies=8, set_size=400)
    kinds = {kind["kind"]: kind for kind in said["kinds"]}
    assert kinds["exact"]["any"]["share"] == 1
    assert kinds["jpeg 75"]["any"]["share"] == 1
    assert kinds["negative"]["any"]["share"] == 0, "correlation does not see a negative"
    assert said["false_alarms"]["share"] < 0.1
    assert said["flagged_without"] < 0.1
    assert kinds["exact"]["flagged"][1] > kinds["negative"]["flagged"][1]


def test_least_hits_have_the_chance_that_is_asked_for() -> None:
    from synthchex.maths import copying

    for quantile, size, null in ((0.05, 200, 400), (0.01, 1000, 10_000)):
        least = selftest._least_hits(quantile, size, null, 0.05)
        assert copying.chance_of(least, size, quantile, null + 1.0) < 0.05
        assert copying.chance_of(least - 1, size, quantile, null + 1.0) >= 0.05


def test_a_policy_is_that_of_the_training_films_and_no_looser(made: dict[str, Path], tmp_path: Path) -> None:
    import pyarrow as pa

    said = {}
    for name in ("open", "credentialed"):
        pq.write_table(pa.table({"source_policy": [name]}), tmp_path / f"{name}.parquet")
        said[name] = tmp_path / f"{name}.parquet"

    def policy(real: Path, held_out: Path, synthetic: Path, *more: str) -> str:
        sides = ["--real", real, "--held-out", held_out, "--synthetic", synthetic, "--out", tmp_path]
        return privacy.source_policy(privacy.parser().parse_args([*map(str, sides), *more]))

    table = made["new"]
    assert policy(table, said["open"], table) == "unknown", "held-out films say nothing of the training films"
    assert policy(said["open"], table, table) == "open"
    assert policy(said["open"], said["credentialed"], table) == "credentialed"
    assert policy(said["open"], said["open"], said["credentialed"]) == "credentialed", "its prompts would be shown"
    assert policy(table, table, table, "--source-policy", "open") == "open"
    with pytest.raises(ValueError, match="says that its films are credentialed"):
        policy(said["credentialed"], table, table, "--source-policy", "open")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--protocol", "chexgenbench"], "--protocol chexgenbench needs --reid"),
        (["--planted", "-1"], "expected --planted from 0"),
        (["--clique-size", "1"], "expected --planted from 0 and --clique-size from 2, got 50 and 1"),
        (["--membership", "no-such-recipe.yaml"], "no-such-recipe"),
        (["--reports", "no-such-table.csv"], "no-such-table"),
        (["--real", "few"], "got 19 in .*leave its search out with --no-copies"),
    ],
)
def test_what_would_fail_late_fails_first(made: dict[str, Path], tmp_path: Path, more: list[str], message: str) -> None:
    if "few" in more:
        lines = made["train"].read_text().splitlines()[:39]  # a head and 19 patients
        few = made["train"].parent / "few.csv"
        few.write_text("\n".join(lines))
        more = ["--real", str(few)]
    options = privacy.parser().parse_args([*map(str, words(made, "new", "--out", tmp_path)[1:]), *more])
    with pytest.raises((ValueError, OSError), match=message):
        privacy.open_sets(options)


def test_films_that_cannot_be_read_are_told(made: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "films"
    films = list(phantom.make(30, seed=5).images)
    train = write(folder, films, ["lungs are clear"] * 30, [f"p{row}" for row in range(30)])
    (folder / "003.png").write_bytes(b"no film")
    sides = ["--real", train, "--held-out", made["held"], "--synthetic", made["new"], "--out", tmp_path]
    options = privacy.parser().parse_args([*map(str, sides)])
    real, synthetic, held_out = privacy.open_sets(options)
    space = privacy.neighbours.neighbours(synthetic, real, held_out, privacy.Request(["pixels"]))["pixels"]
    told = "1 training films could not be read: copies of them are not found"
    assert told in space.results["warnings"]
    assert not [text for text in space.results["warnings"] if "held-out films could" in text or "synthetic" in text]

    from synthchex.report import privacy as report
    from synthchex.report.blocks import Text

    included = {"privacy": {"neighbours": [space.results]}, "warnings": []}
    notes = [block for block in report.section(included, {}) if isinstance(block, Text)]
    assert any(told in text for block in notes for text in block.paragraphs), "evaluate --include shows it too"


def test_prompts_with_labels_of_their_own_are_compared_without_labels(made: dict[str, Path], tmp_path: Path) -> None:
    from dataclasses import replace

    from synthchex.commands import privacy_parts as parts
    from synthchex.privacy import extraction

    options = privacy.parser().parse_args([*map(str, words(made, "new", "--out", tmp_path)[1:])])
    synthetic = privacy.open_sets(options)[1]
    prompts = np.arange(60) // 4
    states = np.zeros((60, 14), np.float32)
    states[np.arange(60), prompts % 14] = 1
    synthetic = replace(synthetic, prompts=[f"prompt {row}" for row in prompts], labels=states)
    found = parts.repeated(options, extraction.Tiles(8, 2), synthetic, tmp_path)
    assert found is not None
    limit = found["spaces"]["all"]["limit"] or found["spaces"]["phantom"]["limit"]
    assert not limit["same_labels"]
    assert limit["quantile"] == pytest.approx(1 / (15 * 14 / 2 + 1))
