"""The second engine: Ray makes the same files as the ordinary one, whatever dies on the way.

The tests that start Ray are slow, and skipped where it is not installed:

    pip install 'synthchex[ray]' && python -m pytest -m slow tests/test_ray.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Features, Value

from synthchex import engines
from synthchex.data import shards

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NUMBERED = Features({"id": Value("int64")})
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'synthchex[ray]'"
)


def numbered(span: range) -> list[dict[str, int]]:
    return [{"id": index} for index in span]


def begun(folder: Path, rows: int = 20, shard_rows: int = 8) -> shards.Plan:
    plan = shards.Plan("count", "nothing", rows, shard_rows, {})
    shards.begin(folder, plan)
    return plan


def stage_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").glob("*.parquet"))}


def worker(folder: Path, plan: shards.Plan, make_stage: Callable[[], engines.Rows]) -> engines.Worker:
    make = partial(engines._shard_maker, folder, plan, make_stage, NUMBERED)
    return engines.Worker(make, os.getcwd())


def test_a_worker_builds_its_stage_once_and_writes_the_shards_of_the_ordinary_engine(tmp_path: Path) -> None:
    plan, built = begun(tmp_path / "ray"), []
    one = worker(tmp_path / "ray", pickle.loads(pickle.dumps(plan)), lambda: built.append(1) or numbered)
    assert built == [], "a model is loaded where it is used, not where the worker is made"
    found = [one({"number": [number]}) for number in (2, 0, 1)]
    assert [row["error"] for row in found] == [[""]] * 3
    assert built == [1]
    other = begun(tmp_path / "ordinary")
    shards.fill(tmp_path / "ordinary", other, numbered, NUMBERED, unit="rows", quiet=True)
    assert stage_bytes(tmp_path / "ray") == stage_bytes(tmp_path / "ordinary")


def test_a_shard_given_out_again_is_left_alone(tmp_path: Path) -> None:
    plan, made = begun(tmp_path), []
    one = worker(tmp_path, plan, lambda: lambda span: made.append(span) or numbered(span))
    for _ in range(2):
        assert one({"number": [1]})["error"] == [""]
    assert made == [range(8, 16)]
    assert shards.missing(tmp_path, plan) == [0, 2]


def test_a_shard_that_another_process_holds_is_waited_for_not_made_twice(tmp_path: Path) -> None:
    plan, made = begun(tmp_path), []
    one = worker(tmp_path, plan, lambda: lambda span: made.append(span) or numbered(span))
    elsewhere = shards.claim(tmp_path, plan, among=(1,))
    assert next(elsewhere) == 1
    waiting = threading.Thread(target=one, args=({"number": [1]},))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    shards.write_shard(tmp_path, plan, 1, numbered(plan.span(1)), NUMBERED)
    assert list(elsewhere) == []
    waiting.join(10)
    assert not waiting.is_alive()
    assert made == []


def test_an_error_comes_back_with_its_number_and_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> engines.Rows:
        raise ValueError("no such model")

    found = worker(tmp_path, begun(tmp_path), broken)({"number": [2]})
    assert found == {"number": [2], "error": ["ValueError: no such model"]}
    assert "Traceback" in capfd.readouterr().err


class Rays:
    """As much of Ray as `finished` uses: workers one after the other in this process."""

    class exceptions:
        RayError = RuntimeError

    class data:
        @staticmethod
        def ActorPoolStrategy(size: int) -> int:
            return size

        @staticmethod
        def from_items(items: list[dict[str, int]], override_num_blocks: int) -> Rays:
            return Rays(items, override_num_blocks)

    def __init__(self, items: Sequence[dict[str, int]] = (), blocks: int = 0, resources: Any = None) -> None:
        self.items, self.blocks, self.resources = items, blocks, resources or {}

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def map_batches(self, kind: type, *, fn_constructor_args: tuple[Any, ...], **options: Any) -> Rays:
        self.worker, self.asked = kind(*fn_constructor_args), options
        seen.append((self.blocks, options))
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        for item in self.items:
            found = self.worker({name: [value] for name, value in item.items()})
            yield {name: values[0] for name, values in found.items()}


seen: list[tuple[int, dict[str, Any]]] = []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Resources of a cluster that runs here, one worker after the other."""
    from contextlib import nullcontext

    resources: dict[str, float] = {"CPU": 4.0}
    monkeypatch.setattr(engines, "_connected", lambda workers: nullcontext(Rays(resources=resources)))
    seen.clear()
    return resources


def fill(folder: Path, plan: shards.Plan, rows: engines.Rows, **options: Any) -> None:
    given = {"workers": None, "device": None, "unit": "rows", "quiet": True, **options}
    engines.fill(folder, plan, lambda: rows, NUMBERED, **given)


def test_only_missing_shards_are_given_out(tmp_path: Path, cluster: dict[str, float]) -> None:
    plan, made = begun(tmp_path), []
    shards.write_shard(tmp_path, plan, 1, numbered(plan.span(1)), NUMBERED)
    fill(tmp_path, plan, lambda span: made.append(span.start) or numbered(span))
    fill(tmp_path, plan, lambda span: made.append(span.start) or numbered(span))
    assert made == [0, 16], "a finished run starts no Ray"
    assert shards.Rows(shards.parquet_files(tmp_path)).column("id") == list(range(20))


def test_workers_are_one_per_gpu_and_never_more_than_shards(tmp_path: Path, cluster: dict[str, float]) -> None:
    cluster["GPU"] = 2.0
    for number, (options, expected) in enumerate(
        [({}, (2, 1)), ({"workers": 8}, (3, 1)), ({"device": "cpu"}, (1, 0)), ({"device": "cpu", "workers": 2}, (2, 0))]
    ):
        fill(tmp_path / str(number), begun(tmp_path / str(number)), numbered, **options)
        blocks, asked = seen[-1]
        assert blocks == 3
        assert (asked["compute"], asked["num_gpus"]) == expected
        assert asked["ray_remote_args_fn"]() == {"max_restarts": engines.RESTARTS}
    del cluster["GPU"]
    with pytest.raises(ValueError, match=r"expected GPUs in the Ray cluster for --device cuda, got none"):
        fill(tmp_path / "gpu", begun(tmp_path / "gpu"), numbered, device="cuda")


def test_a_million_shards_are_few_tasks(cluster: dict[str, float]) -> None:
    made: list[int] = []
    numbers = engines.finished(range(10_000), lambda: made.append, workers=2, device=None)
    assert list(numbers) == made == list(range(10_000))
    assert seen[-1][0] == engines.BLOCKS


def test_a_failed_worker_ends_the_run_and_keeps_what_is_finished(tmp_path: Path, cluster: dict[str, float]) -> None:
    def rows(span: range) -> list[dict[str, int]]:
        if span.start == 8:
            raise OSError(28, "No space left on device")
        return numbered(span)

    plan = begun(tmp_path)
    with pytest.raises(RuntimeError, match=r"a worker failed at shard 1: OSError: \[Errno 28\] No space left"):
        fill(tmp_path, plan, rows)
    assert shards.missing(tmp_path, plan) == [1, 2]


def test_rows_that_ray_loses_are_noticed(
    tmp_path: Path, cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "finished", lambda *_, **__: iter([0, 1, 2]))
    with pytest.raises(RuntimeError, match="expected 20 rows when Ray had ended, got 0; run the same command again"):
        fill(tmp_path, begun(tmp_path), numbered)


@pytest.mark.parametrize(
    ("engine", "count", "launched", "message"),
    [
        ("accelerate", 2, "1", r"expected --engine ray beside --num-processes 2, got --engine accelerate"),
        ("ray", 0, "1", r"--num-processes must be at least 1, got 0"),
        ("ray", 2, "2", r"got several; leave out `synthchex launch`"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, engine: str, count: int, launched: str, message: str
) -> None:
    monkeypatch.setenv("SYNTHCHEX_NUM_PROCESSES", launched)
    with pytest.raises(ValueError, match=message):
        engines.check(Namespace(engine=engine, num_processes=count))


def test_a_missing_ray_is_one_line_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"this needs ray, which is not installed: pip install 'synthchex\[ray\]'"):
        engines.check(Namespace(engine="ray", num_processes=None))


# With the real Ray.


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A filter command without its folder, and the folder that the ordinary engine made: 256 films, 32 shards."""
    folder = tmp_path_factory.mktemp("judged")
    for words in (
        ["phantom", "--count", "256", "--out", str(folder / "films")],
        [*_filter(folder / "films"), "--out", str(folder / "ordinary")],
    ):
        subprocess.run([sys.executable, "-m", "synthchex.cli", *words], check=True, capture_output=True)
    return _filter(folder / "films"), folder / "ordinary"


def _filter(films: Path) -> list[str]:
    return ["filter", "--images", str(films), "--judge", "phantom", "--batch-size", "8", "--json"]


def by_ray(words: Sequence[str], out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "synthchex.cli", *words, "--engine", "ray", "--num-processes", "2"]
    return subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(driver: int) -> list[int]:
    """Ids of the workers that a driver's Ray has started."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text()
    found = {driver}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(one for one in found if names[one].startswith("ray::MapWorker"))


def when_made(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until some shards are there, and not all."""
    while len(stage_bytes(out)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    assert len(stage_bytes(out)) < 32, "the run must be met in its middle"


def ids(out: Path) -> list[str]:
    return shards.Rows(shards.parquet_files(out)).column("id")


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_costs_no_row(judged: tuple[list[str], Path], tmp_path: Path) -> None:
    words, ordinary = judged
    run = by_ray(words, tmp_path)
    when_made(tmp_path, 2, run)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    out, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert json.loads(out)["rows"] == len(set(ids(tmp_path))) == len(ids(tmp_path)) == 256
    assert stage_bytes(tmp_path) == stage_bytes(ordinary)


@needs_ray
@pytest.mark.slow
def test_a_killed_driver_goes_on_and_the_engines_finish_each_others_work(
    synthchex: Run, judged: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, ordinary = judged
    run = by_ray(words, tmp_path)
    when_made(tmp_path, 2, run)
    run.kill()
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*.parquet")}
    again = by_ray(words, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert len(ids(tmp_path)) == len(set(ids(tmp_path))) == 256
    assert stage_bytes(tmp_path) == stage_bytes(ordinary)
    assert before == {path: path.stat().st_mtime_ns for path in before}, "finished shards are not made again"
    for path in list(before)[:2]:
        path.unlink()
    assert synthchex(*words, "--out", tmp_path).returncode == 0
    assert stage_bytes(tmp_path) == stage_bytes(ordinary)


FAILING = """
import os, signal, sys
from pathlib import Path
from datasets import Features, Value
from synthchex import engines
from synthchex.data import shards

def stage(way):
    def rows(span):
        if span.start == 80 and way == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if span.start == 80 and way == "raise":
            raise ValueError("a film that nobody can judge")
        return [{"id": index} for index in span]
    return rows

folder = Path(sys.argv[1])
plan = shards.Plan("count", "nothing", 160, 8, {})
shards.begin(folder, plan)
import ray
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
for way in ("raise", "die", "work"):
    try:
        # More workers than CPUs must not wait for ever.
        engines.fill(folder, plan, lambda: stage(way), Features({"id": Value("int64")}), workers=4, device=None,
                     unit="rows", quiet=True)
        print(way, "done", flush=True)
    except RuntimeError as error:
        print(way, error, flush=True)
"""


@needs_ray
@pytest.mark.slow
def test_a_shard_that_kills_every_worker_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    command = [sys.executable, str(tmp_path / "failing.py"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith(("raise ", "die ", "work "))]
    assert len(said) == 3, done.stderr
    raised, died, worked = said
    assert raised == "raise a worker failed at shard 10: ValueError: a film that nobody can judge"
    assert died.startswith("die Ray ended the run, as where a worker died more than 3 times: The actor died")
    assert worked == "work done"
    assert shards.Rows(shards.parquet_files(tmp_path / "out")).column("id") == list(range(160))


@needs_ray
@pytest.mark.slow
def test_evaluation_and_publishing_give_what_the_ordinary_engine_gives(synthchex: Run, tmp_path: Path) -> None:
    for name, seed, count in (("real", 1, 600), ("synthetic", 2, 540)):
        assert synthchex("phantom", "--count", count, "--seed", seed, "--out", tmp_path / name).returncode == 0
    sides = ["--real", tmp_path / "real", "--synthetic", tmp_path / "synthetic", "--encoder", "phantom"]
    words = ["evaluate", *sides, "--metrics", "fid", "kid", "--permutations", 19, "--draws", 2, "--json"]
    found = {}
    for way, more in (("ordinary", ()), ("ray", ("--engine", "ray", "--num-processes", 2))):
        done = synthchex(*words, *more, "--out", tmp_path / way)
        assert done.returncode == 0, done.stderr
        found[way] = json.loads((tmp_path / way / "results.json").read_text())
        spans = list((tmp_path / way / "features").glob("shared/*/*.done"))
        assert len(spans) == (4 if way == "ray" else 0), "600 and 540 films are two spans each"
    assert found["ray"]["overall"] == found["ordinary"]["overall"]
    assert synthchex("build", "--images", tmp_path / "synthetic", "--out", tmp_path / "set").returncode == 0
    publish = [
        "publish",
        tmp_path / "set",
        "--repo",
        "org/set",
        "--real",
        tmp_path / "real",
        "--dry-run",
        "--json",
        "--copies",
        5,
    ]
    publish += ["--source-policy", "open", "--encoder", "phantom", "--allow-findings", "a test of the staging"]
    staged = {}
    for way, more in (("first", ()), ("second", ("--engine", "ray", "--num-processes", 2))):
        work = tmp_path / "work"
        done = synthchex(*publish, *more, "--work-dir", work)
        assert done.returncode == 0, done.stderr
        staged[way] = stage_bytes(work)
        for path in (work / "data").glob("*.parquet"):
            path.unlink()
    assert staged["second"] == staged["first"] != {}
