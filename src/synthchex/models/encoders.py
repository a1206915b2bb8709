"""Films and reports to feature vectors. Knows networks; knows neither metrics nor datasets.

An encoder is named by an entry of `ENCODERS` or `IMAGE_TEXT` (see `known`), a Hub id, or a folder written by
`save_pretrained`; "<entry>:<path>" takes the weights of an entry from a path. Each has a `key`, a hash of its weights,
preprocessing, aspect policy, backend and dtype: features with different keys are never compared and never share a
store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import images as films
from synthchex.data import records
from synthchex.models.known import ASSETS, DEFAULT, DEFAULT_IMAGE_TEXT, ENCODERS, IMAGE_TEXT, UNKNOWN, Named, describe
from synthchex.models.views import ASPECTS, PROTOCOLS, View

if TYPE_CHECKING:
    import torch

    from synthchex.models.networks import Loaded

__all__ = [
    "ASPECTS",
    "ASSETS",
    "DEFAULT",
    "DEFAULT_IMAGE_TEXT",
    "ENCODERS",
    "IMAGE_TEXT",
    "PROTOCOLS",
    "Encoder",
    "ImageTextEncoder",
    "InceptionEncoder",
    "Named",
    "describe",
    "find_named",
    "key_of",
    "load_encoder",
    "load_image_text",
    "load_named",
    "loading",
    "pick_device",
    "prepare",
    "vision_channels",
]
# Each module has `load(named, dtype)`; those with classifiers have `load_classifier(named, dtype)`.
FAMILIES = {name: f"synthchex.models.{name}" for name in ("auto", "inception", "xrv", "biovil", "openclip", "sscd")}
DTYPES = ("float32", "float16", "bfloat16")
OWN = View()


def load_encoder(
    name: str = DEFAULT,
    *,
    device: str | None = None,
    dtype: str = "float32",
    aspect: str = "own",
    protocol: str | None = None,
) -> Encoder:
    """A vision encoder, ready on `device`.

    Args:
        name: an entry of `ENCODERS` or `IMAGE_TEXT`, "<entry>:<path of its weights>", a Hub id, or a local folder with
            config.json.
        device: "cpu", "cuda", "cuda:1", …; the first GPU when there is one, else the CPU.
        dtype: "float32", "float16" or "bfloat16", of weights and arithmetic; features are float32 always.
        aspect: what happens to films that are not square: "own" (as the network's processor does it), "squash",
            "pad" or "crop"; see `views`.
        protocol: "chexgenbench" for that benchmark's preprocessing, else None.

    Raises:
        ValueError: nothing of that name can be loaded, or an option has another value.
        ImportError: the network needs a package that is not installed.
    """
    view = _checked(dtype, aspect, protocol)
    named = find_named(name, ENCODERS | IMAGE_TEXT | ENCODERS)
    loaded = load_named(name, named, dtype)
    if hasattr(loaded.model, "get_image_features"):
        return _image_text(named, loaded, device, dtype, view)
    kind = InceptionEncoder if hasattr(loaded.model, "logits_of") else Encoder
    return kind(
        named, loaded.model.eval().to(pick_device(device)), loaded.processor, key_of(named, loaded, dtype, view), view
    )


def load_image_text(
    name: str = DEFAULT_IMAGE_TEXT,
    *,
    device: str | None = None,
    dtype: str = "float32",
    aspect: str = "own",
    protocol: str | None = None,
) -> ImageTextEncoder:
    """A CLIP-like image-text encoder; arguments and errors as in `load_encoder`."""
    view = _checked(dtype, aspect, protocol)
    named = find_named(name, IMAGE_TEXT)
    loaded = load_named(name, named, dtype)
    if not hasattr(loaded.model, "get_text_features"):
        raise ValueError(
            "expected an image-text model (CLIP, SigLIP, …), got "
            f"{type(loaded.model).__name__} from {name}; choose one of {list(IMAGE_TEXT)}"
        )
    return _image_text(named, loaded, device, dtype, view)


class Encoder:
    """Films to features: pooled output of the network, or its class token where it pools nothing.

    The features of a film depend on that film alone, up to rounding: kernels sum in an order that may change with the
    batch size, about 1e-6 of the features in float32 and 1e-2 in bfloat16.
    """

    def __init__(self, named: Named, model: Any, processor: Any, key: str, view: View = OWN) -> None:
        self.named, self.name, self.model, self.processor, self.key = named, named.model, model, processor, key
        self.view = view
        self.grey = vision_channels(model.config) == 1

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Features of uint8 films, float32 (N, width)."""
        return _stack([self.forward(self.prepare(batch)) for batch in _batches(pixels, batch_size)])

    def prepare(self, batch: Sequence[np.ndarray]) -> torch.Tensor:
        """Network input of uint8 films, float32 on the CPU; may run in a thread beside `forward`."""
        return prepare(self.processor, batch, grey=self.grey, view=self.view)

    def forward(self, inputs: torch.Tensor) -> np.ndarray:
        """Features of prepared films, float32 (N, width)."""
        import torch

        with torch.inference_mode():
            return _readout(self.model(pixel_values=self._moved(inputs)), self.name)

    def _moved(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.to(self.model.device, self.model.dtype)


class InceptionEncoder(Encoder):
    """Inception-v3 of FID: 2048 features, and the class scores that the Inception Score needs."""

    def logits(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Class scores without bias (`logits_unbiased`) of uint8 films, float32 (N, 1008)."""
        return self.logits_of(self.encode(pixels, batch_size=batch_size))

    def logits_of(self, features: np.ndarray) -> np.ndarray:
        """The same from features that this encoder made, so that one pass serves FID and Inception Score."""
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(np.asarray(features, np.float32)).to(self.model.device, self.model.dtype)
            return np.asarray(self.model.logits_of(given).float().cpu().numpy())


class ImageTextEncoder(Encoder):
    """Films and reports into one space; all vectors have unit length."""

    def __init__(self, named: Named, model: Any, processor: Any, key: str, tokenizer: Any, view: View = OWN) -> None:
        super().__init__(named, model, processor, key, view)
        self.tokenizer = tokenizer
        config = getattr(model.config, "text_config", model.config)
        self.max_tokens = int(min(config.max_position_embeddings, tokenizer.model_max_length))

    def forward(self, inputs: torch.Tensor) -> np.ndarray:
        """Unit vectors of prepared films, float32 (N, width)."""
        import torch

        with torch.inference_mode():
            return _unit(self.model.get_image_features(pixel_values=self._moved(inputs)))

    def encode_images(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Unit vectors of films, float32 (N, width)."""
        return self.encode(pixels, batch_size=batch_size)

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Unit vectors of reports, float32 (N, width); reports beyond `max_tokens` are cut, see `count_truncated`."""
        import torch

        # SigLIP was trained on texts of full length and without a mask: it reads its padding.
        padding = getattr(self.tokenizer, "padding", "max_length")
        masked = not str(getattr(self.model.config, "model_type", "")).startswith("siglip")

        def forward(batch: Sequence[str]) -> np.ndarray:
            tokens = self.tokenizer(
                list(batch), padding=padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(self.model.device)
            given = tokens if masked else {"input_ids": tokens["input_ids"]}
            with torch.inference_mode():
                return _unit(self.model.get_text_features(**given))

        return _stack([forward(batch) for batch in _batches(texts, batch_size)])

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many reports are longer than the text tower reads."""
        return (
            sum(len(ids) > self.max_tokens for ids in self.tokenizer(list(texts), verbose=False)["input_ids"])
            if texts
            else 0
        )


def prepare(processor: Any, batch: Sequence[np.ndarray], *, grey: bool, view: View = OWN) -> torch.Tensor:
    """Network input from uint8 films, by the network's own processor and its antialiased resize, after `view`."""
    from PIL import Image

    pictures = [Image.fromarray(films.to_grey(film) if grey else films.to_rgb(film)) for film in batch]
    viewed = [view.picture(picture, processor) for picture in pictures]
    pixels: torch.Tensor = processor(images=viewed, return_tensors="pt", **view.switches(processor))["pixel_values"]
    return pixels


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


def _checked(dtype: str, aspect: str, protocol: str | None) -> View:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
    return View(aspect, protocol)


def find_named(name: str, known: Mapping[str, Named]) -> Named:
    """The entry of that name, with the weights at a path where one is given; or a Hub id or folder that is no entry.

    Raises:
        ValueError: none of these.
    """
    entry, _, source = name.partition(":")
    if entry in known and (source or name == entry):
        return replace(known[entry], model=source, revision="main") if source else known[entry]
    path = Path(name)
    if path.is_file():
        if path.suffix in (".pth", ".pt") and "inception" in path.name and "inception" in known:
            return replace(known["inception"], model=name)
        raise ValueError(f"expected a folder or '<entry>:<file>', got the file {name}; entries are {sorted(known)}")
    if not path.is_dir() and "/" not in name:
        raise ValueError(f"expected one of {list(known)}, a Hub id (org/name) or a folder, got {name!r}")
    return Named(name, UNKNOWN, UNKNOWN)


def load_named(name: str, named: Named, dtype: str, *, function: str = "load") -> Loaded:
    """The network by `function` of its family's module.

    Raises:
        ValueError: it cannot be reached, or is not whole.
    """
    import torch

    try:
        with loading(named.model):
            load = getattr(import_module(FAMILIES[named.family]), function)
            loaded: Loaded = load(named, getattr(torch, dtype))
            return loaded
    except OSError as error:
        raise ValueError(
            f"{name} cannot be loaded ({str(error).splitlines()[0]}); "
            "give a Hub id you have access to, or a local folder"
        ) from error


def _image_text(named: Named, loaded: Loaded, device: str | None, dtype: str, view: View) -> ImageTextEncoder:
    model, key = loaded.model.eval().to(pick_device(device)), key_of(named, loaded, dtype, view)
    return ImageTextEncoder(named, model, loaded.processor, key, loaded.tokenizer, view)


def key_of(named: Named, loaded: Loaded, dtype: str, view: View) -> str:
    """The same for equal features: a folder or file counts by what is in it, not by where it lies."""
    identity = named.model if named.family == "auto" and not Path(named.model).is_dir() else ""
    processor = loaded.processor
    return records.fingerprint(
        [identity, loaded.version, processor.to_dict(), type(processor).__name__, dtype, str(view)]
    )


def _readout(output: Any, name: str) -> np.ndarray:
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        tokens = output.last_hidden_state
        if tokens.ndim != 3:
            raise ValueError(
                f"expected a network with pooler_output or a class token, got maps {tuple(tokens.shape)} from {name}; "
                "choose another encoder"
            )
        pooled = tokens[:, 0]
    return np.asarray(pooled.flatten(1).float().cpu().numpy())


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
