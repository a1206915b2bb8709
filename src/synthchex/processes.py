"""Several processes on one job: which one am I, on which device, and how they are started.

Jobs never wait for each other at a barrier: work is claimed shard by shard from the folder it is written to.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXPECTED = "SYNTHCHEX_NUM_PROCESSES"


@dataclass(frozen=True)
class Process:
    """This process among its fellows."""

    rank: int
    count: int
    device: str

    @property
    def is_main(self) -> bool:
        """Whether this is the one that talks."""
        return self.rank == 0


def launched() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get(EXPECTED, "1")) > 1


def join(device: str | None = None, *, threads: int = 1) -> Process:
    """This process's place, from the launcher through accelerate.

    Args:
        device: "cpu", "cuda", …; None takes this rank's GPU where there is one.
        threads: CPU threads for torch. Sums over threads are not bit-equal for every number of them, so it is fixed.

    Raises:
        RuntimeError: the launcher was asked for more processes than were started, which accelerate does without a word
            on a CPU.
    """
    import torch
    from accelerate import PartialState

    torch.set_num_threads(threads)
    use_cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=use_cpu)
    expected = int(os.environ.get(EXPECTED, state.num_processes))
    if state.num_processes != expected:
        raise RuntimeError(
            f"expected {expected} processes, got {state.num_processes}; start them with `synthchex launch`"
        )
    return Process(state.process_index, state.num_processes, device or ("cpu" if use_cpu else str(state.device)))


def launch(script: Path, arguments: Sequence[str], count: int) -> int:
    """Run a room's script in `count` processes by `accelerate launch`, or in one without it; return the exit code."""
    environment = {**os.environ, EXPECTED: str(count)}
    if count == 1:
        return subprocess.run([sys.executable, str(script), *arguments], env=environment, check=False).returncode
    # --multi_gpu also starts CPU processes; without it accelerate would start a single one on a machine without GPUs.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port()), str(script), *arguments]
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return subprocess.run(command, env=environment, check=False).returncode


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
