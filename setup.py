"""Ships the rooms inside the wheel as data. Everything else about the package is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def is_room(folder: Path) -> bool:
    """A room is a top-level folder of scripts that is neither the library nor a tool for its developers."""
    developers = {"src", "tests", "benchmarks", "embedded", "docs", "build", "dist"}
    named = not folder.name.startswith(".") and folder.name not in developers
    return named and folder.is_dir() and not (folder / "pyvenv.cfg").exists() and any(folder.rglob("*.py"))


class BuildWithRooms(build_py):
    """`build_py`, then a copy of every room to `synthchex/rooms/`; an editable install reads them from the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "synthchex" / "rooms"
        shutil.rmtree(target, ignore_errors=True)
        for folder in filter(is_room, sorted(ROOT.iterdir())):
            shutil.copytree(folder, target / folder.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


setup(cmdclass={"build_py": BuildWithRooms})
