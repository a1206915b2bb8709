"""The page of a metric's Space: files in, numbers out. Written for the Gradio that runs there; not needed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import synthchex
from synthchex.extras import require

FEATURES = (".npz", ".safetensors")


def interface(name: str) -> Any:
    """A `gradio.Interface` around one metric; call `.launch()` on it."""
    gradio = require("gradio", extra="study")
    metric = synthchex.load(name)

    def answer(predictions: Any, references: Any, encoder: str) -> dict[str, Any]:
        try:
            return score(metric, predictions, references, encoder)
        except (ValueError, ImportError) as error:
            raise gradio.Error(str(error)) from error

    kinds = "a file of features (.npz or .safetensors), or images"
    return gradio.Interface(
        fn=answer,
        inputs=[
            gradio.File(file_count="multiple", label=f"synthetic: {kinds}"),
            gradio.File(file_count="multiple", label=f"real: {kinds}"),
            gradio.Textbox(label="encoder, for images: a name, or a Hub id"),
        ],
        outputs=gradio.JSON(label=name),
        title=name,
        description=metric.description,
        flagging_mode="never",
    )


def score(metric: Any, predictions: Any, references: Any, encoder: str | None = None) -> dict[str, Any]:
    """A metric of uploaded files, as JSON can say it.

    Args:
        metric: a loaded module.
        predictions: paths of uploaded files, None for none.
        references: the same.
        encoder: for images; None or blank for the metric's own.

    Raises:
        ValueError: several files of features, or whatever the metric refuses.
    """
    options = {"encoder": encoder.strip()} if encoder and encoder.strip() else {}
    given = {"predictions": side(predictions, "synthetic"), "references": side(references, "real")}
    return plain(metric.compute(**{key: value for key, value in given.items() if value is not None}, **options))


def side(paths: str | Sequence[str] | None, name: str) -> str | list[str] | None:
    """One file of features as its path, images as a list of paths."""
    listed = [paths] if isinstance(paths, str) else list(paths or ())
    features = [path for path in listed if Path(path).suffix.lower() in FEATURES]
    if features and len(listed) > 1:
        raise ValueError(f"{name}: expected one file of features, or images, got {len(listed)} files; upload one")
    return features[0] if features else (listed or None)


def plain(value: Any) -> Any:
    """Without the numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
