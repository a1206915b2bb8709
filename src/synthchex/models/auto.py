"""Whatever `AutoModel` of transformers loads, by Hub id or from a folder written by `save_pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from synthchex.models.known import Named
from synthchex.models.networks import Loaded, digest


def load(named: Named, dtype: torch.dtype) -> Loaded:
    """The network with its processor, and its tokenizer when it reads texts.

    Raises:
        ValueError: weights are missing from the checkpoint.
        OSError: it cannot be reached.
    """
    model, info = transformers.AutoModel.from_pretrained(
        named.model, revision=named.revision, dtype=dtype, output_loading_info=True
    )
    missing = sorted(info["missing_keys"])
    # A checkpoint without a pooler would be given a random one; its class token is the feature then.
    if any(not key.startswith("pooler.") for key in missing):
        raise ValueError(
            f"{named.model} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[:3]}, which would be "
            "random"
        )
    if missing:
        model.pooler = None
    tokenizer = None
    if hasattr(model, "get_image_features"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(named.model, revision=named.revision)
    return Loaded(model, processor_of(named), version(named.model, model), tokenizer)


def load_classifier(named: Named, dtype: torch.dtype) -> Loaded:
    """An image classifier with its processor.

    Raises:
        ValueError: weights are missing from the checkpoint, as those of the head are from a network without one.
        OSError: it cannot be reached.
    """
    model, info = transformers.AutoModelForImageClassification.from_pretrained(
        named.model, revision=named.revision, dtype=dtype, output_loading_info=True
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"expected an image classifier, got {named.model} without {len(missing)} weights of "
            f"{type(model).__name__}, e.g. {missing[:3]}, which would be random; give a network with trained heads"
        )
    return Loaded(model, processor_of(named), version(named.model, model))


def processor_of(named: Named) -> Any:
    """The network's own image processor: of two backends that resize differently, the one that is on every machine."""
    backend: Any = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    return transformers.AutoImageProcessor.from_pretrained(named.model, revision=named.revision, **backend)


def version(name: str, model: Any) -> str:
    """Commit of a Hub model, or a hash of a local folder's config and weights."""
    folder = Path(name)
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", "unknown"))
    return digest(*sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")]))
