"""What the tests share: no network, small films, a short way to call the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Read by the libraries when they are imported, so set before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_EVALUATE_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHES = tempfile.TemporaryDirectory(prefix="synthchex-tests-")
os.environ["HF_HOME"] = _CACHES.name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def films() -> np.ndarray:
    """Eight smooth grey films, uint8 (8, 32, 32), each different."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 4, 4), np.uint8)
    return np.kron(coarse, np.ones((8, 8), np.uint8)).astype(np.uint8)


@pytest.fixture
def prompts_csv(tmp_path: Path) -> Path:
    """Seven prompts with ids and one label column."""
    path = tmp_path / "prompts.csv"
    rows = [f"case{i},finding number {i},{i % 2}" for i in range(7)]
    path.write_text("id,prompt,Edema\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def synthchex() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "synthchex.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]

    return run


@pytest.fixture
def inside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process, which is faster: what it would return and print."""
    from synthchex import cli

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", sys.argv)
            code = cli.main(words)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run
