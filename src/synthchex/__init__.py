"""synthchex: generate, filter, publish and measure synthetic chest radiographs.

The rooms (`metrics/`, `datasets_scripts/`, `filtering/`, `generation/`) hold what is run or published; this package is
the vocabulary they are written with. Importing it loads no deep-learning library.

    import synthchex
    fid = synthchex.load("fid")                     # the same as evaluate.load(synthchex.metric("fid"))
    fid.compute(predictions="synthetic/", references="real/", encoder="rad-dino")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "metric", "room"]

_PACKAGE = Path(__file__).resolve().parent


def room(name: str) -> Path:
    """Absolute folder of a room: inside the installed package, or at the root of a checkout.

    Raises:
        ValueError: there is no room of that name.
    """
    for parent in (_PACKAGE / "rooms", _PACKAGE.parents[1]):
        if (parent / name).is_dir() and (parent / "metrics").is_dir():
            return parent / name
    raise ValueError(
        f"expected a room (metrics, datasets_scripts, filtering, generation), got {name!r}; reinstall synthchex"
    )


def metric(name: str) -> str:
    """Absolute folder of a metric module, for `evaluate.load()`.

    Raises:
        ValueError: there is no metric of that name; the message lists those there are.
    """
    folder = room("metrics") / name
    if not (folder / f"{name}.py").is_file():
        known = sorted(path.parent.name for path in room("metrics").glob("*/*.py") if path.stem == path.parent.name)
        raise ValueError(f"expected one of the metrics {known}, got {name!r}")
    return str(folder)


def load(name: str, **options: Any) -> Any:
    """`evaluate.load(metric(name))`, from any working directory, without looking at the network."""
    import os

    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    import evaluate

    return evaluate.load(metric(name), **options)
