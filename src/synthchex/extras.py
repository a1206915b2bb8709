"""Optional parts: what each extra installs, and the one line that says how to get it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

EXTRAS: dict[str, tuple[str, ...]] = {
    "generate": ("diffusers", "peft"),
    "filter": ("sentencepiece",),
    "study": ("gradio", "starlette", "uvicorn"),
    "dicom": ("pydicom",),
    "nifti": ("nibabel",),
    "openclip": ("open_clip",),
    "ray": ("ray",),
    "reports": ("radeval",),
}


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Raises:
        ImportError: it is missing; the message is one line with the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(f"this needs {module}, which is not installed: pip install 'synthchex[{extra}]'") from None


def missing(extra: str) -> list[str]:
    """Modules of an extra that are not installed; found without importing them."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
