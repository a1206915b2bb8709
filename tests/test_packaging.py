"""The wheel: everything is in it, and it works from another directory without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("metrics", "datasets_scripts", "filtering", "generation")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the files that git knows, in a copy of the tree."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
    subprocess.run(command, check=True, timeout=300)
    return next(out.glob("*.whl"))


def test_rooms_and_models_are_discovered_and_shipped(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ROOMS:
        files = [
            p.relative_to(ROOT) for p in (ROOT / room).rglob("*") if p.is_file() and p.suffix in (".py", ".yaml", ".md")
        ]
        assert files
        assert {f"synthchex/rooms/{path}" for path in files} <= names
    package = [
        p for p in (ROOT / "src").rglob("*") if p.is_file() and p.suffix not in (".pyc",) and "egg-info" not in str(p)
    ]
    assert {str(p.relative_to(ROOT / "src")) for p in package} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"synthchex"}
    assert not [name for name in names if "/tests/" in name or "embedded/train" in name]


def test_the_wheel_works_from_another_directory(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    site = next((home / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # The dependencies of the test environment stand beside it; its editable synthchex must not.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = (
        "import sys, synthchex; "
        "assert synthchex.__file__.startswith(sys.prefix), synthchex.__file__; "
        "assert synthchex.metric('fid').startswith(sys.prefix); "
        "from synthchex import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (tmp_path / "p.csv").write_text("prompt\nno acute process\nmild edema\n")
    for arguments in (
        ["doctor", "--json"],
        ["generate", "--prompts", "p.csv", "--recipe", "noise", "--out", "films", "--quiet"],
        ["filter", "--images", "films", "--judge", "fixed", "--out", "judged", "--quiet"],
        ["build", "--images", "judged", "--out", "dataset", "--quiet"],
    ):
        command = [str(home / "bin" / "python"), "-c", script, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "dataset" / "README.md").exists()
