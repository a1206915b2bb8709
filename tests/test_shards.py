"""Shards: whole or absent, each row once, a changed run refused, a full disk named."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from datasets import Features, Value, load_dataset

from synthchex.data import shards

FEATURES = Features({"id": Value("string"), "square": Value("int64")})


def plan(rows: int = 10, shard_rows: int = 3, **recipe: object) -> shards.Plan:
    return shards.Plan("count", "numbers", rows, shard_rows, recipe)


def work(folder: Path, a_plan: shards.Plan, *, most: int | None = None, pause_s: float = 0.0) -> int:
    made = 0
    for shard in shards.claim(folder, a_plan):
        rows = [{"id": str(i), "square": i * i} for i in a_plan.span(shard)]
        time.sleep(pause_s)
        shards.write_shard(folder, a_plan, shard, rows, FEATURES)
        made += 1
        if made == most:
            break
    return made


def test_every_row_stands_once_and_in_order(tmp_path: Path) -> None:
    assert shards.begin(tmp_path, plan()) == 0
    assert work(tmp_path, plan()) == 4
    rows = shards.Rows(shards.parquet_files(tmp_path))
    assert rows.column("id") == [str(i) for i in range(10)]
    assert [rows[i]["square"] for i in (0, 3, 9)] == [0, 9, 81]
    with pytest.raises(IndexError):
        rows[10]


def test_load_dataset_reads_a_stage_folder(tmp_path: Path) -> None:
    shards.begin(tmp_path / "stage", plan())
    work(tmp_path / "stage", plan())
    loaded = load_dataset(str(tmp_path / "stage"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["square"][:] == [i * i for i in range(10)]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    shards.begin(tmp_path, plan())
    work(tmp_path, plan(), most=2)
    assert shards.begin(tmp_path, plan()) == 6
    with pytest.raises(ValueError, match=r"is not finished: 2 of 4 shards .* run the count command again"):
        shards.parquet_files(tmp_path)
    assert work(tmp_path, plan()) == 2


WORKER = """
import sys, time
from pathlib import Path
from datasets import Features, Value
from synthchex.data import shards

folder, rows, shard_rows, pause_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
plan = shards.Plan("count", "numbers", rows, shard_rows, {})
features = Features({"id": Value("string"), "square": Value("int64")})
made = 0
for shard in shards.claim(folder, plan):
    time.sleep(pause_s)
    shards.write_shard(folder, plan, shard, [{"id": str(i), "square": i * i} for i in plan.span(shard)], features)
    made += 1
print(made)
"""


def worker(folder: Path, a_plan: shards.Plan, pause_s: float) -> subprocess.Popen[str]:
    words = [str(folder), str(a_plan.rows), str(a_plan.shard_rows), str(pause_s)]
    return subprocess.Popen([sys.executable, "-c", WORKER, *words], stdout=subprocess.PIPE, text=True)


def test_two_processes_share_the_shards(tmp_path: Path) -> None:
    a_plan = plan(rows=24, shard_rows=1)
    shards.begin(tmp_path, a_plan)
    workers = [worker(tmp_path, a_plan, 0.05) for _ in range(2)]
    made = [int(process.communicate(timeout=120)[0]) for process in workers]
    assert sum(made) == 24
    assert len(shards.Rows(shards.parquet_files(tmp_path))) == 24


def test_a_changed_recipe_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    shards.begin(tmp_path, plan(steps=20))
    with pytest.raises(ValueError, match=r"holds another run \(recipe.steps: 20 there, 50 now\); choose another --out"):
        shards.begin(tmp_path, plan(steps=50))


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count expects at least 1 row, got 0"):
        shards.begin(tmp_path, plan(rows=0))


def test_a_wrong_number_of_rows_is_an_error(tmp_path: Path) -> None:
    shards.begin(tmp_path, plan())
    with pytest.raises(ValueError, match="shard 0 of count expects 3 rows, got 1"):
        shards.write_shard(tmp_path, plan(), 0, [{"id": "0", "square": 0}], FEATURES)


def test_a_full_disk_loses_nothing_and_says_what_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards.begin(tmp_path, plan())
    work(tmp_path, plan(), most=1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"No space left on device while writing .*; 3 of 10 rows are safe, free some space"
        ):
            work(tmp_path, plan())
    assert not list(tmp_path.rglob("*.tmp"))
    assert work(tmp_path, plan()) == 3


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        PermissionError, match=r"expected a folder that can be written, got .*file.*choose another --out"
    ):
        shards.begin(tmp_path / "file" / "out", plan())


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shards.begin(tmp_path / name, plan())
        work(tmp_path / name, plan())
    one, two = (sorted((tmp_path / name / "data").iterdir()) for name in ("one", "two"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_a_shard_whose_maker_died_is_taken_over(tmp_path: Path) -> None:
    shards.begin(tmp_path, plan())
    child = worker(tmp_path, plan(), 60.0)
    deadline = time.monotonic() + 60
    while not list((tmp_path / ".locks").iterdir()):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    threading.Timer(0.5, child.kill).start()
    began = time.monotonic()
    assert work(tmp_path, plan()) == 4
    assert time.monotonic() - began >= 0.4, "the held shard must be waited for"
    child.communicate()
