"""One dataset, written here and read in other environments: do features, labels and pixels come back the same?

    make matrix                                     # every row of rows.toml whose Python is here
    python tests/matrix/run.py floor reader         # some of them

The environment that runs this has synthchex. It writes films, builds them in every format and publishes them to a Hub
on this machine (`tests/localhub.py`); then every row, in an environment of its own without torch, reads all of it back
(`read_back.py`), and writes it anew where it can (`write_anew.py`). Prints a table; exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
import localhub  # noqa: E402

REPO = "clinic/matrix"
# What the data scripts import beside the row's own pins.
WRITES = ("jinja2", "pyyaml", "scipy", "tqdm")
TIMEOUT_S = 900


def main(argv: Sequence[str] | None = None) -> int:
    """Make environments, write once, read in each, print."""
    rows = tomllib.loads((HERE / "rows.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows)} (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="of the environments (default .matrix)")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.rows) - set(rows))
    if unknown:
        parser.error(f"expected rows of {', '.join(rows)}, got {', '.join(unknown)}")
    folder, pythons = options.folder.resolve(), {}
    for name in options.rows or rows:
        if interpreter(rows[name]["python"]):
            pythons[name] = environment(folder / name, rows[name])
        else:
            print(f"{name} is not run: no python{rows[name]['python']} on the PATH", file=sys.stderr)
    with localhub.serve() as hub:
        data = folder / "data"
        call(sys.executable, HERE / "write.py", data, REPO, settings=settings(hub, folder / "home"))
        results = {name: check(name, rows[name], python, data, hub) for name, python in pythons.items()}
    print(table(results))
    return 0 if all(said == "ok" for checks in results.values() for said in checks["checks"].values()) else 1


def interpreter(version: str) -> str | None:
    """Path of a Python that starts; None where there is none of this version."""
    found = shutil.which(f"python{version}")
    started = found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0
    return found if started else None


def environment(folder: Path, row: Mapping[str, Any]) -> Path:
    """The interpreter of a row's environment, made where it is not there or its pins have changed."""
    wanted = [*row["pins"], "pillow", *(WRITES if row["writes"] else ())]
    stamp, python = folder / "stamp", folder / "bin" / "python"
    digest = hashlib.sha256(json.dumps([wanted, row["python"]]).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making {folder.name}: Python {row['python']}, {', '.join(row['pins'])}", file=sys.stderr, flush=True)
        subprocess.run([str(interpreter(row["python"])), "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.write_text(digest)
    return python


def settings(hub: localhub.Hub, home: Path) -> dict[str, str]:
    """Environment variables of a process that knows the local hub and no cache of another."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": localhub.WRITER, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return {**kept, **given, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}


def check(name: str, row: Mapping[str, Any], python: Path, data: Path, hub: localhub.Hub) -> dict[str, Any]:
    """What a row says of every check: "ok", or what is wrong."""
    home = data.parent / name / "home"
    said = call(python, HERE / "read_back.py", data, REPO, settings=settings(hub, home))
    if row["writes"]:
        anew = data.parent / name / "anew"
        source = {"PYTHONPATH": str(ROOT / "src"), "SYNTHCHEX_ROOMS": str(ROOT)}
        script = HERE / "write_anew.py"
        own = call(python, script, data, anew, f"clinic/{name}", settings={**settings(hub, home), **source})
        said["checks"] |= own["checks"]
    return said


def call(python: Path | str, script: Path, *words: object, settings: Mapping[str, str]) -> dict[str, Any]:
    """What a script prints, as JSON.

    Raises:
        RuntimeError: it failed.
    """
    command = [str(python), str(script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed in {python}:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a line for each row, a column for each check."""
    checks = list(dict.fromkeys(name for said in results.values() for name in said["checks"]))
    lines = ["| row | " + " | ".join(["versions", *checks]) + " |", "|---" * (2 + len(checks)) + "|"]
    for name, said in results.items():
        cells = [said["versions"], *(said["checks"].get(check, "-") for check in checks)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
