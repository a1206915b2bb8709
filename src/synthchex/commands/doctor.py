"""`synthchex doctor`: what this machine has, which parts work, and the command that makes the rest work."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Sequence
from typing import Any

import synthchex
from synthchex import extras
from synthchex.options import Parser

PACKAGES = (
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface_hub",
    "peft",
    "numpy",
    "scipy",
    "pillow",
    "pyarrow",
)
NEEDS = {
    "generate": "generate films with diffusers models and LoRA",
    "filter": "judge with vision-language models whose tokenizer is a SentencePiece file",
    "study": "serve the pages of the metric Spaces",
    "dicom": "read DICOM films",
    "nifti": "read NIfTI slices",
    "openclip": "BiomedCLIP and other encoders of open_clip (brings torchvision)",
    "ray": "filter on a Ray cluster",
}


def inspect() -> dict[str, Any]:
    """Everything that `doctor` prints, as plain data."""
    return {
        "synthchex": synthchex.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "packages": {name: version(name) for name in PACKAGES},
        "devices": devices(),
        "hub": {
            "offline": os.environ.get("HF_HUB_OFFLINE", "0") == "1",
            "endpoint": os.environ.get("HF_ENDPOINT", "default"),
            "token": has_token(),
        },
        "parts": {
            extra: {"works": not extras.missing(extra), "missing": extras.missing(extra)} for extra in extras.EXTRAS
        },
        "embedded_models": embedded_models(),
        "rooms": str(synthchex.room("metrics").parent),
    }


def version(package: str) -> str | None:
    """Installed version, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """Names of what torch can compute on."""
    import torch

    return ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]


def has_token() -> bool:
    """Whether a Hub token is set; the token itself is never shown."""
    from huggingface_hub import get_token

    return get_token() is not None


def embedded_models() -> list[str]:
    """Models that ship with the package."""
    from synthchex.models.encoders import ASSETS

    return sorted(str(path.parent.relative_to(ASSETS)) for path in ASSETS.glob("*/*/README.md"))


def advice(found: dict[str, Any]) -> list[str]:
    """One line for each part that does not work, with the command that mends it."""
    lines = [
        f"{NEEDS[extra]}: pip install 'synthchex[{extra}]'"
        for extra, part in found["parts"].items()
        if not part["works"]
    ]
    if not found["hub"]["token"] and not found["hub"]["offline"]:
        lines.append("gated models and pushing to the Hub: hf auth login")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the findings; the exit code is 0 when every part that is not optional works."""
    parser = Parser(
        command="doctor",
        description="What this machine has, what works, what to install for the rest.",
        examples=("synthchex doctor", "synthchex doctor --json"),
    )
    parser.add_common()
    options = parser.parse_args(argv)
    found = inspect()
    if options.json:
        print(json.dumps(found))
        return
    print(f"synthchex {found['synthchex']}, Python {found['python']}, {found['system']}")
    print(f"cores {found['cores']}, free disk {found['disk_free_gb']} GB, devices: {', '.join(found['devices'])}")
    print("packages: " + ", ".join(f"{name} {its or 'missing'}" for name, its in found["packages"].items()))
    print(
        f"hub: endpoint {found['hub']['endpoint']}, token {'set' if found['hub']['token'] else 'not set'}, "
        f"offline {'yes' if found['hub']['offline'] else 'no'}"
    )
    for extra, part in found["parts"].items():
        print(f"  [{'works' if part['works'] else 'needs ' + ', '.join(part['missing'])}] {NEEDS[extra]}")
    print(f"embedded models: {', '.join(found['embedded_models']) or 'none'}")
    for line in advice(found):
        print(f"to enable {line}")


if __name__ == "__main__":
    main()
