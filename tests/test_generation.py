"""Generation: the same bytes for any number of processes and after any kill; bad input said early."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthchex import options, room
from synthchex.data import defects, images, shards
from synthchex.models import samplers
from synthchex.models.samplers import rows as films

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_for_tests", room("generation") / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def generate(module: ModuleType) -> Callable[..., int]:
    """The command in this process; gives its exit code."""
    return lambda *arguments: options.run(module.main, [*map(str, arguments), "--device", "cpu"])


def stage_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "data").glob("*.parquet"))]


def made(folder: Path) -> shards.Rows:
    return shards.Rows(shards.parquet_files(folder))


class Fake:
    """A sampler whose films are what a function says of prompt and seed."""

    def __init__(self, film: Callable[[str, int], samplers.Sample], most: int = 10**6) -> None:
        self.film, self.most, self.batches, self.provenance = film, most, [], {"model": "fake"}

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[samplers.Sample]:
        if len(prompts) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.batches.append(list(zip(prompts, seeds, strict=True)))
        return [self.film(prompt, seed) for prompt, seed in self.batches[-1]]

    def count_truncated(self, prompts: Sequence[str]) -> tuple[int, int]:
        return sum(len(prompt) > 12 for prompt in prompts), 12


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def use(film: Callable[[str, int], samplers.Sample], most: int = 10**6) -> Fake:
        sampler = Fake(film, most)
        monkeypatch.setattr(samplers, "load_sampler", lambda recipe, device=None: sampler)
        return sampler

    return use


def grey(prompt: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)


def test_a_film_has_its_own_seed_and_provenance(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--out", tmp_path / "a", "--images_per_prompt=2"]
    assert generate(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "rows": 14, "resumed": 0, "out": str(tmp_path / "a"), "failed": {}, "lint": {},
    }  # fmt: skip
    rows = made(tmp_path / "a")
    assert len(set(rows.column("seed"))) == len(set(rows.column("id"))) == 14
    assert rows[3]["id"] == "case1-1"
    assert rows[3]["labels_dict"]["Edema"] == 1
    assert rows[3]["image"]["path"] == rows[3]["filename"] == "case1-1.png"
    assert (rows[3]["drop_reason"], rows[3]["retries"]) == (None, 0)
    assert "torch" in json.loads(rows[3]["versions"])


def test_two_processes_make_the_same_bytes_as_one(synthchex: Run, generate: Callable[..., int], tmp_path: Path) -> None:
    assert synthchex("phantom", "--count", 12, "--prompts-only", "--out", tmp_path / "p").returncode == 0
    arguments = ["--prompts", tmp_path / "p", "--recipe", "phantom", "--steps", 2, "--batch-size", 4]
    arguments += ["--batches-per-shard", 1]
    assert generate(*arguments, "--out", tmp_path / "one") == 0
    two = synthchex(
        "launch", "--num-processes", 2, "generate", *arguments, "--device", "cpu", "--out", tmp_path / "two"
    )
    assert two.returncode == 0, two.stderr
    assert stage_bytes(tmp_path / "one") == stage_bytes(tmp_path / "two")
    assert len(stage_bytes(tmp_path / "one")) == 3


def killed(arguments: Sequence[object], folder: Path, ready: Callable[[], bool]) -> None:
    """Start the command in a process of its own, and kill it when it is time."""
    command = [sys.executable, "-m", "synthchex.cli", "generate", *map(str, arguments), "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ready() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_killed_in_the_middle_ends_with_the_bytes_of_one_that_was_not(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path
) -> None:
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--images-per-prompt", 30, "--batch-size", 1]
    arguments += ["--batches-per-shard", 1]
    killed(arguments, tmp_path / "killed", lambda: len(stage_bytes(tmp_path / "killed")) >= 20)
    there = len(stage_bytes(tmp_path / "killed"))
    assert 20 <= there < 210, "the run must be killed in its middle"
    assert generate(*arguments, "--out", tmp_path / "killed") == 0
    assert generate(*arguments, "--out", tmp_path / "whole") == 0
    assert stage_bytes(tmp_path / "killed") == stage_bytes(tmp_path / "whole")
    ids = made(tmp_path / "killed").column("id")
    assert len(ids) == len(set(ids)) == 210


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_and_repeat_nothing(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path
) -> None:
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--images-per-prompt", 400, "--batch-size", 2]
    arguments += ["--batches-per-shard", 2]
    chance, out = random.Random(0), tmp_path / "killed"
    for _ in range(20):
        before, wait = len(stage_bytes(out)), chance.random() * 0.3
        began: list[float] = []

        def ready(before: int = before, wait: float = wait, began: list[float] = began) -> bool:
            # At a random moment after the first shard of this process, so that each kill meets a process at work.
            if not began and len(os.listdir(out / "data") if out.exists() else []) > before:
                began.append(time.monotonic())
            return bool(began) and time.monotonic() - began[0] >= wait

        killed(arguments, out, ready)
    assert 20 <= len(stage_bytes(out)) < 700, "the kills must fall in the middle"
    assert generate(*arguments, "--out", out) == 0
    assert generate(*arguments, "--out", tmp_path / "whole") == 0
    assert stage_bytes(out) == stage_bytes(tmp_path / "whole")
    ids = made(out).column("id")
    assert len(ids) == len(set(ids)) == 2800
    assert not list((out / "data").glob(".*.tmp"))


def test_a_launcher_that_starts_too_few_processes_is_caught(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("SYNTHCHEX_NUM_PROCESSES", "2")
    assert generate("--prompts", prompts_csv, "--recipe", "noise", "--out", tmp_path / "a") == 1
    assert "expected 2 processes, got 1; start them with `synthchex launch`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--recipe", "nothing"], "expected a .yaml file or one of ["),
        (["--recipe", "missing.yaml"], "expected a YAML file, got missing.yaml"),
        (["--prompts", "missing.csv"], "missing.csv, which is not there; check the path"),
        (["--batch-size", "0"], "must be at least 1"),
        (["--limit", "0"], "--balance and --limit must be at least 1"),
        (["--balance", "3", "--images-per-prompt", "2"], "leave out --images-per-prompt"),
        (["--with-label", "Oedema"], "got ['Oedema']"),
        (
            ["--prompt-column", "words"],
            "has no column 'words' for the prompt; its columns are ['id', 'prompt', 'Edema']",
        ),
        (["--out", "/dev/null/out"], "expected a folder that can be written"),
        (["--recipe", "external"], "expected --images with an external recipe and no other, got recipe external"),
        (["--images", "."], "expected --images with an external recipe and no other, got recipe noise"),
    ],
)
def test_bad_input_is_said_early_in_one_line(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], change: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments = {"--prompts": str(prompts_csv), "--recipe": "noise", "--out": str(tmp_path / "out")}
    arguments |= dict(zip(change[::2], change[1::2], strict=True))
    assert generate(*(word for pair in arguments.items() for word in pair)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_in_a_recipe_lists_the_valid_ones(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nsampler: noise\nguidance: 3\n")
    assert generate("--prompts", prompts_csv, "--recipe", recipe, "--out", tmp_path / "out") == 2
    assert "has unknown keys ['guidance']; the valid ones are ['name', 'model'," in capsys.readouterr().err


def test_a_changed_seed_into_the_same_folder_is_refused(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--out", tmp_path / "out"]
    assert generate(*arguments) == 0
    assert generate(*arguments, "--seed", 1) == 2
    assert "recipe.seed: 0 there, 1 now" in capsys.readouterr().err
    assert generate(*arguments, "--image-format", "webp") == 2
    assert "recipe.image_format: 'png' there, 'webp' now" in capsys.readouterr().err


def test_films_that_show_nothing_have_a_reason_and_are_tried_again_where_asked(
    generate: Callable[..., int], fake: Callable[..., Fake], prompts_csv: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shows = {"0": None, "2": np.zeros((16, 16), np.uint8), "4": np.full((16, 16), 99, np.uint8)}
    first: set[int] = set()

    def film(prompt: str, seed: int) -> samplers.Sample:
        bad = shows.get(prompt[-1], grey(prompt, seed))
        return bad if prompt.endswith("4") or seed in first else grey(prompt, seed)

    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--batch-size", 7]
    fake(lambda prompt, seed: shows.get(prompt[-1], grey(prompt, seed)))
    assert generate(*arguments, "--out", tmp_path / "once") == 0
    assert "'failed-nan': 1, 'failed-black': 1, 'failed-constant': 1" in capsys.readouterr().err
    once = made(tmp_path / "once")
    assert once.column("drop_reason")[:5] == ["failed-nan", None, "failed-black", None, "failed-constant"]
    assert [row is None for row in once.column("image")] == [True, *[False] * 6]
    assert set(once.column("retries")) == {0}

    first |= set(once.column("seed"))
    sampler = fake(film)
    assert generate(*arguments, "--out", tmp_path / "twice", "--retry-failed") == 0
    twice = made(tmp_path / "twice")
    assert twice.column("drop_reason") == [None] * 4 + ["failed-constant"] + [None] * 2
    assert twice.column("retries") == [1, 0, 1, 0, 1, 0, 0]
    assert [len(batch) for batch in sampler.batches] == [7, 3]
    changed = [one != two for one, two in zip(once.column("seed"), twice.column("seed"), strict=True)]
    assert changed == [True, False, True, False, True, False, False]
    assert twice.column("seed")[0] == sampler.batches[1][0][1], "the seed that made the film is the one that is kept"


def test_defects_have_names() -> None:
    assert defects.defect(None) == "failed-nan"
    assert defects.defect(np.full((4, 4), 8, np.uint8)) == "failed-black"
    assert defects.defect(np.full((4, 4, 3), 250, np.uint8)) == "failed-constant"
    assert defects.defect(np.arange(16, dtype=np.uint8).reshape(4, 4)) is None


def test_a_batch_that_does_not_fit_is_refused_with_what_to_do(
    generate: Callable[..., int], fake: Callable[..., Fake], prompts_csv: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake(grey, most=2)
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--batch-size", 7, "--out", tmp_path / "out"]
    assert generate(*arguments) == 1
    said = capsys.readouterr().err
    assert "7 films at once do not fit in memory (DefaultCPUAllocator: can't allocate memory)" in said
    assert "start another --out with --batch-size 3" in said
    assert not stage_bytes(tmp_path / "out")
    assert generate(*arguments, "--dry-run", "--batch-size", 4, "--out", tmp_path / "other") == 0
    assert "--batch-size 4 does not fit, 2 does" in capsys.readouterr().out


def test_a_dry_run_says_what_a_run_costs_and_writes_nothing(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--batch-size", 2, "--out", tmp_path / "out"]
    assert generate(*arguments, "--dry-run") == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert generate(*arguments, "--limit", 4) == 0
    assert generate(*arguments, "--limit", 4, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["resumed"], told["disk_bytes"], told["seconds"]) == (4, 4, 0, 0.0)
    assert told["process_bytes"] > 10**7
    assert generate(*arguments, "--dry-run") == 2
    assert "holds another run (rows: 4 there, 7 now" in capsys.readouterr().err


def test_webp_has_the_same_pixels_as_png(generate: Callable[..., int], prompts_csv: Path, tmp_path: Path) -> None:
    for form in ("png", "webp"):
        arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--out", tmp_path / form, "--image-format", form]
        assert generate(*arguments) == 0
    for one, other in zip(made(tmp_path / "png").column("image"), made(tmp_path / "webp").column("image"), strict=True):
        assert Image.open(io.BytesIO(other["bytes"])).format == "WEBP"
        assert (images.read(one).pixels == images.read(other).pixels).all()
        assert other["path"].endswith(".webp")
    colour = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    assert (images.read(images.to_webp(colour)).pixels == colour).all()


def test_films_are_encoded_and_written_while_the_next_are_sampled(
    generate: Callable[..., int], fake: Callable[..., Fake], prompts_csv: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    second_shard = threading.Event()

    def film(prompt: str, seed: int) -> np.ndarray:
        if prompt.endswith("1"):
            second_shard.set()
        return grey(prompt, seed)

    def to_png(pixels: np.ndarray) -> bytes:
        assert second_shard.wait(20), "the first film is encoded only after the second shard has begun"
        return images.to_png(pixels)

    fake(film)
    monkeypatch.setitem(films.ENCODERS, "png", to_png)
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--batch-size", 1, "--batches-per-shard", 1]
    assert generate(*arguments, "--out", tmp_path / "out") == 0
    assert made(tmp_path / "out").column("id") == [f"case{i}" for i in range(7)]


def test_what_fails_in_the_thread_that_writes_ends_the_run(
    generate: Callable[..., int], fake: Callable[..., Fake], prompts_csv: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(folder: Path, plan: shards.Plan, shard: int, rows: object, features: object) -> None:
        raise OSError(28, "No space left on device")

    sampler = fake(grey)
    monkeypatch.setattr(shards, "write_shard", full)
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--batch-size", 1, "--batches-per-shard", 1]
    assert generate(*arguments, "--out", tmp_path / "out") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert len(sampler.batches) == 2, "nothing is sampled after it is known"


@pytest.fixture
def dirty_csv(tmp_path: Path) -> Path:
    path = tmp_path / "dirty.csv"
    path.write_text("id,prompt\na,no change from ___ study\nb,clear\nc,clear\nd,seen 2019-03-12 again\ne,\n")
    return path


def test_prompts_that_name_someone_are_refused_counted_or_cut(
    generate: Callable[..., int], dirty_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prompts", dirty_csv, "--recipe", "noise", "--out", tmp_path / "out", "--json"]
    assert generate(*arguments) == 2
    assert "got 1 empty ones (rows [4]); fill or drop them" in capsys.readouterr().err
    dirty_csv.write_text(dirty_csv.read_text().removesuffix("e,\n"))
    assert generate(*arguments, "--on-lint", "error") == 2
    said = capsys.readouterr().err
    assert (
        "1 with date (rows [3]); 1 with mark of de-identification (rows [0]); 1 with repeated prompt (rows [2])" in said
    )
    assert generate(*arguments) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["lint"] == {"date": 1, "mark of de-identification": 1, "repeated prompt": 1}
    assert "1 date, 1 mark of de-identification, 1 repeated prompt (--on-lint warn)" in err
    dirty_csv.write_text(dirty_csv.read_text() + "e,\n")
    assert generate(*arguments[:-3], "--out", tmp_path / "clean", "--on-lint", "strip", "--json") == 0
    assert json.loads(capsys.readouterr().out)["lint"]["left out"] == 2
    rows = made(tmp_path / "clean")
    assert rows.column("prompt") == ["no change from study", "clear", "seen again"]
    assert rows.column("id") == ["a", "b", "d"]


def test_prompts_that_are_too_long_are_counted_or_refused(
    generate: Callable[..., int], fake: Callable[..., Fake], prompts_csv: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake(grey)
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--images-per-prompt", 2]
    assert generate(*arguments, "--out", tmp_path / "out") == 0
    assert "warning: 7 of 7 prompts are longer than the text encoder reads (12 tokens)" in capsys.readouterr().err
    assert generate(*arguments, "--out", tmp_path / "other", "--on-lint", "error") == 2
    assert "expected prompts of at most 12 tokens, got 7 of 7 longer ones; cut them" in capsys.readouterr().err


def test_labels_choose_and_balance_prompts(generate: Callable[..., int], prompts_csv: Path, tmp_path: Path) -> None:
    arguments = ["--prompts", prompts_csv, "--recipe", "noise"]
    assert generate(*arguments, "--without-label", "Edema", "--limit", 3, "--out", tmp_path / "without") == 0
    assert made(tmp_path / "without").column("id") == ["case0", "case2", "case4"]
    assert generate(*arguments, "--balance", 5, "--out", tmp_path / "balanced") == 0
    rows = made(tmp_path / "balanced")
    assert len(rows) == len(set(rows.column("seed"))) == 5
    assert set(rows.column("prompt")) == {f"finding number {i}" for i in (1, 3, 5)}


def external(folder: Path, count: int) -> list[bytes]:
    folder.mkdir()
    contents = []
    for number in range(count):
        path = folder / f"case{number}.{'jpg' if number % 2 else 'png'}"
        Image.fromarray(grey("", number)).save(path)
        contents.append(path.read_bytes())
    return contents


def test_films_made_elsewhere_are_brought_in_beside_their_prompts(
    generate: Callable[..., int], prompts_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = external(tmp_path / "made", 7)
    (tmp_path / "made" / "case3.jpg").write_bytes(b"junk")
    arguments = ["--prompts", prompts_csv, "--recipe", "external", "--images", tmp_path / "made"]
    assert generate(*arguments, "--out", tmp_path / "none") == 2
    assert "does not say what made the films; add --model NAME" in capsys.readouterr().err
    assert generate(*arguments, "--model", "LLM-CXR", "--out", tmp_path / "out") == 0
    rows = made(tmp_path / "out")
    assert rows[1]["image"]["bytes"] == contents[1]
    assert (rows[1]["filename"], rows[1]["prompt"], rows[1]["model"]) == ("case1.jpg", "finding number 1", "LLM-CXR")
    assert [rows[1][name] for name in ("seed", "steps", "scheduler", "height")] == [None, None, None, 16]
    assert (rows[3]["image"], rows[3]["drop_reason"]) == (None, "unreadable-not-an-image")
    (tmp_path / "made" / "case5.jpg").unlink()
    assert generate(*arguments, "--model", "LLM-CXR", "--out", tmp_path / "fewer") == 2
    assert "1 of 7 without one, e.g. ['case5']" in capsys.readouterr().err


def test_films_made_elsewhere_are_found_by_the_tables_own_names(
    generate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = external(tmp_path / "made", 2)
    table = tmp_path / "made.csv"
    table.write_text("annotated_prompt,path,synthetic_filename\none,real/a.jpg,case1.jpg\ntwo,real/b.jpg,case0.png\n")
    arguments = ["--recipe", "external", "--images", tmp_path / "made", "--model", "Cheff"]
    assert generate("--prompts", table, *arguments, "--out", tmp_path / "out") == 0
    assert [row["bytes"] for row in made(tmp_path / "out").column("image")] == [contents[1], contents[0]]
    table.write_text("prompt\none\ntwo\n")
    assert generate("--prompts", table, *arguments, "--out", tmp_path / "other") == 2
    assert "expected ids or image names in" in capsys.readouterr().err


def test_row_groups_are_short_enough_for_the_viewer(
    generate: Callable[..., int], fake: Callable[..., Fake], prompts_csv: Path, tmp_path: Path
) -> None:
    fake(grey)
    arguments = ["--prompts", prompts_csv, "--recipe", "noise", "--images-per-prompt", 40, "--batch-size", 280]
    assert generate(*arguments, "--out", tmp_path / "out") == 0
    meta = pq.ParquetFile(shards.parquet_files(tmp_path / "out")[0]).metadata
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    assert [group.num_rows for group in groups] == [100, 100, 80]
    assert all(group.total_byte_size < shards.MAX_ROW_BYTES for group in groups)


def test_a_worker_of_ray_makes_the_same_rows(
    module: ModuleType, generate: Callable[..., int], prompts_csv: Path, tmp_path: Path
) -> None:
    arguments = ["--prompts", str(prompts_csv), "--recipe", "noise", "--out", str(tmp_path / "out"), "--device", "cpu"]
    asked = module.parser().parse_args(arguments)
    rows = module.working(asked, module.planned(asked).plan.source)(range(7))
    assert generate(*arguments) == 0
    assert [row["image"]["bytes"] for row in rows] == [row["bytes"] for row in made(tmp_path / "out").column("image")]
    with pytest.raises(ValueError, match=r"expected the prompts of .* that the run began with, got others"):
        module.working(asked, "other")
