"""The second engine: Ray, for one machine up to a cluster of unlike nodes. Knows nothing of what a stage computes.

The first engine is `accelerate launch`: like processes, each claiming shards until none is left (`shards.fill`). Here
Ray Data hands the numbers of the missing shards to a pool of workers. Both write the same files in the same way, so
either can finish what the other began.

What Ray Data does that would lose or repeat rows, or wait without a word, is kept away from stages:
    - its checkpoints are not used: the shards are the ledger, and every row of the input has one in them, dropped or
      not. So there is no filter worker that needs a CPU of its own on resume, and no list of ids in memory.
    - nothing is read or written by Ray: its data set is int64 shard numbers in memory, cut into many blocks, so
      that no reading task waits for a CPU that the workers hold, and no single block goes to a single worker.
    - a worker's error comes back as text with its number and ends the run, instead of a column that is left behind.
    - a worker that dies is started again `RESTARTS` times, and what it held is given out anew; after that the run ends,
      where Ray's default would try for ever.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from argparse import _ArgumentGroup
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthchex import processes
from synthchex.data import shards
from synthchex.extras import require
from synthchex.options import Progress

if TYPE_CHECKING:
    from datasets import Features

ENGINES = ("accelerate", "ray")
RESTARTS = 3
BLOCKS = 4096  # at most, so that a million shards are not a million tasks
OBJECT_STORE = 80 * 2**20  # bytes; it holds shard numbers only

Rows = Callable[[range], Sequence[Mapping[str, Any]]]


def add_options(group: _ArgumentGroup) -> None:
    """The options of a command that has both engines."""
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="accelerate: this process, and those beside it of `synthchex launch`. ray: workers of Ray, on this "
        "machine or the cluster of RAY_ADDRESS (default accelerate)",
    )
    group.add_argument(
        "--num-processes", type=int, help="workers with --engine ray (default one per GPU, one without GPUs)"
    )


def check(options: Any) -> None:
    """Refuse options that the engine does not take, and a missing Ray, before anything is read.

    Raises:
        ValueError: --num-processes without Ray or below 1, or Ray inside `synthchex launch`.
        ImportError: Ray is not installed.
    """
    if options.engine != "ray":
        if options.num_processes is not None:
            raise ValueError(
                f"expected --engine ray beside --num-processes {options.num_processes}, got --engine {options.engine}; "
                f"add it, or start the command with `synthchex launch --num-processes {options.num_processes}`"
            )
        return
    if options.num_processes is not None and options.num_processes < 1:
        raise ValueError(f"--num-processes must be at least 1, got {options.num_processes}")
    if processes.launched():
        raise ValueError("expected one process that starts Ray's workers, got several; leave out `synthchex launch`")
    require("ray", extra="ray")


def fill(
    folder: Path,
    plan: shards.Plan,
    make_stage: Callable[[], Rows],
    features: Features,
    *,
    workers: int | None,
    device: str | None,
    unit: str,
    quiet: bool,
) -> None:
    """Make every shard that is missing in Ray's workers; see `shards.fill`.

    Args:
        make_stage: called once in each worker: opens the input, loads the model, and gives the function from row
            numbers to records. It is pickled, so it holds options, not models.
        workers: how many; None is one per GPU, or one.
        device: "cpu" keeps workers off GPUs; else each has one, where there are any.

    Raises:
        RuntimeError: a worker failed, or died too often; finished shards are kept.
    """
    done = shards.finished_rows(folder, plan)
    make = partial(_shard_maker, folder.absolute(), plan, make_stage, features)
    with Progress(plan.stage, plan.rows, done=done, unit=unit, quiet=quiet) as progress:
        for shard in finished(shards.missing(folder, plan), make, workers=workers, device=device):
            done += len(plan.span(shard))
            progress.advance(done)
    found = shards.finished_rows(folder, plan)
    if found != plan.rows:
        raise RuntimeError(f"expected {plan.rows} {unit} when Ray had ended, got {found}; run the same command again")


def finished(
    numbers: Sequence[int], make: Callable[[], Callable[[int], None]], *, workers: int | None, device: str | None
) -> Iterator[int]:
    """Numbers of pieces as Ray's workers finish them, in any order, each once.

    Args:
        numbers: the pieces to make.
        make: called once in each worker; gives the function that makes a piece. A piece may be asked for again after a
            worker died, so it must be left alone where it is there.
        workers, device: as in `fill`.

    Raises:
        RuntimeError: a worker failed, or died too often.
        ValueError: a GPU is asked for and the cluster has none.
    """
    if not numbers:
        return
    with _connected(workers) as ray:
        gpus = _gpus(ray.cluster_resources(), device)
        count = workers or gpus or 1
        pool = ray.data.ActorPoolStrategy(size=min(count, len(numbers)))
        blocks = min(len(numbers), max(BLOCKS, 32 * count))
        given = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=blocks)
        pieces = given.map_batches(
            Worker,
            fn_constructor_args=(make, os.getcwd()),
            batch_size=1,
            compute=pool,
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            ray_remote_args_fn=lambda: {"max_restarts": RESTARTS},
        )
        try:
            for row in pieces.iter_rows():
                if row["error"]:
                    raise RuntimeError(f"a worker failed at shard {row['number']}: {row['error']}")
                yield int(row["number"])
        except ray.exceptions.RayError as error:
            raise RuntimeError(
                f"Ray ended the run, as where a worker died more than {RESTARTS} times: {_first_line(error)}; "
                "what is finished is kept, mend the cause and run the same command again"
            ) from error


class Worker:
    """What runs in one of Ray's workers; builds what makes a piece when the first one comes."""

    def __init__(self, make: Callable[[], Callable[[int], None]], directory: str) -> None:
        self.make, self.directory = make, directory
        self.piece: Callable[[int], None] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Make some pieces; `error` is empty, or says what went wrong."""
        try:
            if self.piece is None:
                os.chdir(self.directory)  # paths mean what they mean to the one who gave the command
                self.piece = self.make()
            for number in batch["number"]:
                self.piece(int(number))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return {"number": batch["number"], "error": [f"{type(error).__name__}: {error}"] * len(batch["number"])}
        return {"number": batch["number"], "error": [""] * len(batch["number"])}


def _shard_maker(
    folder: Path, plan: shards.Plan, make_stage: Callable[[], Rows], features: Features
) -> Callable[[int], None]:
    """What makes a shard, unless it is there or until another process has made it."""
    rows = make_stage()

    def make(shard: int) -> None:
        for claimed in shards.claim(folder, plan, among=(shard,)):
            shards.write_shard(folder, plan, claimed, rows(plan.span(claimed)), features)

    return make


@contextmanager
def _connected(workers: int | None) -> Iterator[Any]:
    """Ray: the cluster of RAY_ADDRESS, or one on this machine for as long as this lasts."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    ray: Any = require("ray", extra="ray")
    require("ray.data", extra="ray")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    started = not ray.is_initialized()
    if started and os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    elif started:
        # Its CPUs are counters: more of them than there are let as many workers start as were asked for.
        cpus = max(os.cpu_count() or 1, workers or 1) + 1
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with redirect_stdout(sys.stderr):  # Ray tells of dead workers on stdout, which is for the result
        try:
            yield ray
        finally:
            if started:
                ray.shutdown()


def _gpus(resources: Mapping[str, float], device: str | None) -> int:
    """GPUs to use: all of the cluster, or none on CPUs.

    Raises:
        ValueError: one is asked for and there is none.
    """
    found = 0 if device == "cpu" else int(resources.get("GPU", 0))
    if device and device.startswith("cuda") and not found:
        raise ValueError(f"expected GPUs in the Ray cluster for --device {device}, got none; leave it out, or add some")
    return found


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
