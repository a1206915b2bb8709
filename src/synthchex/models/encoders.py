"""Films and reports to feature vectors. Knows networks; knows neither metrics nor datasets.

An encoder is named by an entry of `ENCODERS`, a Hub id, or a folder written by `save_pretrained`. Each has a `key`, a
hash of its weights, preprocessing, backend and dtype: features with different keys are never compared and never share a
store.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import images as films
from synthchex.data import records

ASSETS = Path(__file__).resolve().parents[1] / "assets"
DEFAULT = "rad-dino"
DEFAULT_IMAGE_TEXT = "medsiglip"


@dataclass(frozen=True)
class Named:
    """A published network: Hub id or embedded folder, what it was trained on, its licence."""

    model: str
    trained_on: str
    licence: str
    revision: str = "main"


ENCODERS: dict[str, Named] = {
    "phantom": Named(str(ASSETS / "phantom" / "encoder"), "procedural phantoms of this package", "Apache-2.0"),
    "rad-dino": Named("microsoft/rad-dino", "MIMIC-CXR, CheXpert, NIH-CXR, PadChest, BRAX", "MSRLA"),
    "rad-dino-maira-2": Named(
        "microsoft/rad-dino-maira-2", "MIMIC-CXR, CheXpert, NIH-CXR, PadChest, BRAX, private", "MSRLA"
    ),
    "dinov2-base": Named("facebook/dinov2-base", "LVD-142M natural images", "Apache-2.0"),
    "dinov2-large": Named("facebook/dinov2-large", "LVD-142M natural images", "Apache-2.0"),
}
IMAGE_TEXT: dict[str, Named] = {
    "phantom": Named(str(ASSETS / "phantom" / "image_text"), "procedural phantoms of this package", "Apache-2.0"),
    "medsiglip": Named("google/medsiglip-448", "MIMIC-CXR and other medical image-text pairs", "HAI-DEF"),
    "clip": Named("openai/clip-vit-base-patch32", "400M web image-text pairs", "MIT"),
}


def load_encoder(name: str = DEFAULT, *, device: str | None = None, dtype: str = "float32") -> Encoder:
    """A vision encoder, ready on `device`.

    Args:
        name: an entry of `ENCODERS`, a Hub id, or a local folder with config.json.
        device: "cpu", "cuda", "cuda:1", …; the first GPU when there is one, else the CPU.
        dtype: "float32", "float16" or "bfloat16"; part of the key.

    Raises:
        ValueError: nothing of that name can be loaded.
    """
    from transformers import AutoModel

    return Encoder(*_load(AutoModel, name, ENCODERS, device, dtype))


def load_image_text(
    name: str = DEFAULT_IMAGE_TEXT, *, device: str | None = None, dtype: str = "float32"
) -> ImageTextEncoder:
    """A CLIP-like image-text encoder; arguments and errors as in `load_encoder`."""
    from transformers import AutoModel, AutoTokenizer

    named, model, processor, key = _load(AutoModel, name, IMAGE_TEXT, device, dtype)
    if not hasattr(model, "get_text_features"):
        raise ValueError(
            "expected an image-text model (CLIP, SigLIP, …), got "
            f"{type(model).__name__} from {name}; choose one of {list(IMAGE_TEXT)}"
        )
    with loading(named.model):
        tokenizer = AutoTokenizer.from_pretrained(named.model, revision=named.revision)
    return ImageTextEncoder(named, model, processor, key, tokenizer)


class Encoder:
    """Films to features: pooled output of the network, or its class token where it pools nothing."""

    def __init__(self, named: Named, model: Any, processor: Any, key: str) -> None:
        self.name, self.model, self.processor, self.key = named.model, model, processor, key
        self.grey = vision_channels(model.config) == 1

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Features of uint8 films, float32 (N, width)."""
        return _stack([self._forward(batch) for batch in _batches(pixels, batch_size)])

    def _forward(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return _readout(self.model(**prepare(self.processor, batch, self.model, grey=self.grey)))


class ImageTextEncoder(Encoder):
    """Films and reports into one space; all vectors have unit length."""

    def __init__(self, named: Named, model: Any, processor: Any, key: str, tokenizer: Any) -> None:
        super().__init__(named, model, processor, key)
        self.tokenizer = tokenizer
        config = getattr(model.config, "text_config", model.config)
        self.max_tokens = int(min(config.max_position_embeddings, tokenizer.model_max_length))

    def _forward(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return _unit(self.model.get_image_features(**prepare(self.processor, batch, self.model, grey=self.grey)))

    def encode_images(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Unit vectors of films, float32 (N, width)."""
        return self.encode(pixels, batch_size=batch_size)

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Unit vectors of reports, float32 (N, width); reports beyond `max_tokens` are cut, see `count_truncated`."""
        import torch

        def forward(batch: Sequence[str]) -> np.ndarray:
            tokens = self.tokenizer(
                list(batch), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
            with torch.inference_mode():
                return _unit(self.model.get_text_features(**tokens.to(self.model.device)))

        return _stack([forward(batch) for batch in _batches(texts, batch_size)])

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many reports are longer than the text tower reads."""
        return (
            sum(len(ids) > self.max_tokens for ids in self.tokenizer(list(texts), verbose=False)["input_ids"])
            if texts
            else 0
        )


def prepare(processor: Any, batch: Sequence[np.ndarray], model: Any, *, grey: bool) -> dict[str, Any]:
    """Network input from uint8 films, through the network's own processor; antialiased resize, no cropping by us."""
    from PIL import Image

    pictures = [Image.fromarray(films.to_grey(p) if grey else films.to_rgb(p)) for p in batch]
    pixel_values = processor(images=pictures, return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixel_values.to(model.device, model.dtype)}


def vision_channels(config: Any) -> int:
    """Number of input channels that a vision network expects."""
    vision = getattr(config, "vision_config", config)
    return int(getattr(vision, "num_channels", 3))


@contextmanager
def loading(model: str) -> Iterator[None]:
    """While loading a model: no network for a local folder (transformers would retry the Hub five times for each absent
    file), and neither bars nor load reports: what is missing from a checkpoint is checked where it is loaded."""
    import huggingface_hub.constants as constants
    from transformers.utils import logging

    offline, verbosity, bars = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = offline or Path(model).is_dir()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def pick_device(device: str | None) -> str:
    """The device asked for, or this process's GPU, or the CPU."""
    import torch

    if device is not None:
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def _load(kind: Any, name: str, known: dict[str, Named], device: str | None, dtype: str) -> tuple[Named, Any, Any, str]:
    import torch
    from transformers import AutoImageProcessor

    named = known.get(name, Named(name, "unknown", "unknown"))
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
    if name not in known and not Path(name).is_dir() and "/" not in name:
        raise ValueError(f"expected one of {list(known)}, a Hub id (org/name) or a folder, got {name!r}")
    try:
        with loading(named.model):
            model, info = kind.from_pretrained(
                named.model, revision=named.revision, dtype=getattr(torch, dtype), output_loading_info=True
            )
            processor = AutoImageProcessor.from_pretrained(named.model, revision=named.revision)
    except OSError as error:
        raise ValueError(
            f"{name} cannot be loaded ({str(error).splitlines()[0]}); "
            "give a Hub id you have access to, or a local folder"
        ) from error
    missing = sorted(info["missing_keys"])
    # A checkpoint without a pooler would be given a random one; its class token is the feature then.
    if any(not name.startswith("pooler.") for name in missing):
        raise ValueError(
            f"{name} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[:3]}, which would be random"
        )
    if missing:
        model.pooler = None
    key = records.fingerprint(
        [
            named.model if not Path(named.model).is_dir() else "",
            _version(named.model, model),
            processor.to_dict(),
            type(processor).__name__,
            dtype,
        ]
    )
    return named, model.eval().to(pick_device(device)), processor, key


def _version(name: str, model: Any) -> str:
    """Commit of a Hub model, or a hash of a local folder's config and weights."""
    if not Path(name).is_dir():
        return str(getattr(model.config, "_commit_hash", "unknown"))
    digest = hashlib.sha256()
    for path in sorted([Path(name) / "config.json", *Path(name).glob("*.safetensors"), *Path(name).glob("*.bin")]):
        with open(path, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def _readout(output: Any) -> np.ndarray:
    pooled = getattr(output, "pooler_output", None)
    features = output.last_hidden_state[:, 0] if pooled is None else pooled
    return np.asarray(features.flatten(1).float().cpu().numpy())


def _unit(output: Any) -> np.ndarray:
    # transformers 5 returns an output object where 4 returned the tensor.
    vectors = (output if hasattr(output, "norm") else output.pooler_output).float()
    return np.asarray((vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy())


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _stack(parts: list[np.ndarray]) -> np.ndarray:
    if not parts:
        raise ValueError("expected at least 1 item to encode, got 0")
    return np.concatenate(parts).astype(np.float32, copy=False)


def describe(name: str, known: dict[str, Named]) -> str:
    """What a network was trained on and its licence, as one line of JSON, for cards and reports."""
    named = known.get(name, Named(name, "unknown", "unknown"))
    return json.dumps(
        {
            "model": Path(named.model).name if Path(named.model).is_dir() else named.model,
            "trained_on": named.trained_on,
            "licence": named.licence,
        }
    )
