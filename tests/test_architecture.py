"""Who may import whom, how long things are, and that importing is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("metrics", "datasets_scripts", "filtering", "generation")
HEAVY = ("torch", "transformers", "diffusers", "evaluate", "datasets", "accelerate")


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py")), ids=str)
def test_rooms_import_the_library_and_never_each_other(path: Path) -> None:
    assert not imports(path) & {*ROOMS, "."}


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=str)
def test_the_library_never_imports_a_room_nor_torchvision(path: Path) -> None:
    assert not imports(path) & {*ROOMS, "torchvision", "cv2"}


def test_files_and_functions_stay_short() -> None:
    long_files, long_functions = [], []
    for path in sorted(p for room in ("src", *ROOMS) for p in (ROOT / room).rglob("*.py")):
        text = path.read_text()
        if len(text.splitlines()) > 400:
            long_files.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and body[-1].end_lineno - body[0].lineno > 45:  # type: ignore[operator]
                    long_functions.append(f"{path.name}:{node.name}")
    assert not long_files
    assert not long_functions


def test_no_path_of_the_machine_it_was_written_on_is_named() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = [path for path in listed if not path.endswith((".safetensors", ".png"))]
    assert [path for path in texts if f"{ROOT}/" in (ROOT / path).read_text(errors="ignore")] == []


@pytest.mark.parametrize(
    "code", ["import synthchex", "from synthchex import cli; cli.main(['--help'])", "import synthchex.maths"]
)
def test_importing_is_light(code: str) -> None:
    check = (
        f"import sys, time; t = time.perf_counter(); {code}; s = time.perf_counter() "
        f"- t; print([m for m in {HEAVY} if m in sys.modules], s)"
    )
    runs = [subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True) for _ in range(3)]
    said = [run.stdout.strip().splitlines()[-1].rsplit(" ", 1) for run in runs]
    assert [heavy for heavy, _ in said] == ["[]"] * 3
    assert min(float(seconds) for _, seconds in said) < 0.5
