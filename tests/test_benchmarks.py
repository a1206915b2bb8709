"""The benchmark program runs, and says what it lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "metrics.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=False)


def test_growth_prints_times_memory_and_the_exponent() -> None:
    done = run("--growth", "--cases", "kid", "--rows-list", "100", "200", "--width", "8", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    header, rule, row = done.stdout.strip().splitlines()[-3:]
    assert header == "| case | N = 100 | N = 200 | time grows as | MB over input |"
    assert len(rule.split("|")) == len(row.split("|")) == 7
    assert row.startswith("| kid | ")
    assert "N^" in row.split("|")[4]
    assert float(row.split("|")[5]) >= 0


@pytest.mark.slow
def test_a_case_prints_ours_beside_its_peers() -> None:
    done = run("--cases", "vendi", "--rows", "150", "--width", "16", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in done.stdout.splitlines()}
    assert 1 < float(rows["ours"][4]) < 16
    assert {"ours", "vendi-score", "vendi-score dual"} <= set(rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_clear_line() -> None:
    done = run("--device", "cuda", "--cases", "kid")
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith("expected a GPU for --device cuda, got a torch without one; leave it out for the CPU")
    )
