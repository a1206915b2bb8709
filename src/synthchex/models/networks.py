"""What the networks written here share: reading weights without trusting them, and loading them whole or not at all.

These networks answer as those of transformers do (`config`, `device`, `dtype`, `pooler_output`), so that one encoder
serves both.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch._utils
from torch import nn

# What a pickled tensor is made of; storages torch finds itself.
TENSORS: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.nn.parameter.Parameter": nn.Parameter,
    "builtins.set": set,
    "__builtin__.set": set,
}


class Pooled(NamedTuple):
    """Output of a network: one vector per film, (N, width)."""

    pooler_output: torch.Tensor


class Loaded(NamedTuple):
    """A network with its processor, and what identifies its weights."""

    model: Any
    processor: Any
    version: str
    tokenizer: Any = None


class Network(nn.Module):
    """An `nn.Module` with the few attributes of a transformers model that an encoder asks for."""

    channels = 3

    @property
    def config(self) -> SimpleNamespace:
        """Number of channels of the films."""
        return SimpleNamespace(num_channels=self.channels)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype


class FilmProcessor:
    """Films to network input for networks without a processor of their own; called as those of transformers are.

    Subclasses say `size`, `resample` and `tensor`; `to_dict` is part of an encoder's key.
    """

    size: Mapping[str, int]
    crop_size: Mapping[str, int] | None = None
    do_center_crop = False
    resample = 2  # bilinear

    def __call__(self, images: Sequence[Any], *, return_tensors: str = "pt", **switches: bool) -> dict[str, Any]:
        """`pixel_values`, float32; with `do_resize=False` the films are taken to have their size already."""
        whole = not switches.get("do_resize", True)
        return {"pixel_values": torch.stack([self.tensor(image, whole=whole) for image in images])}

    def tensor(self, image: Any, *, whole: bool) -> torch.Tensor:
        """Input for one PIL image, (C, side, side)."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """What decides the pixels."""
        return {"size": dict(self.size), "crop_size": dict(self.crop_size or {}), "resample": self.resample}


def read_state(path: Path, *, stand_ins: Mapping[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file or of a pickle, which is read without running what is in it.

    Args:
        path: the file.
        stand_ins: for a pickled network, what to put in place of the classes it names ("module.name"); the network's
            stand-in has `state()`.

    Raises:
        ValueError: not such a file, or a pickle that asks for anything but tensors and `stand_ins`.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True) if not stand_ins else _read(path, stand_ins)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        told = str(error).removeprefix("Weights only load failed. ").strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected weights (.safetensors, or a pickle of tensors), got {path}, which cannot be read as such "
            f"({told[0][:200]}); fetch the file again"
        ) from error
    if isinstance(loaded, Mapping) and "state_dict" in loaded:
        loaded = loaded["state_dict"]
    if hasattr(loaded, "state"):
        loaded = loaded.state()
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"expected a table of tensors in {path}, got {type(loaded).__name__}; fetch the file again")
    return dict(loaded)


def _read(path: Path, stand_ins: Mapping[str, Any]) -> Any:
    """A pickled network, of any torch since 0.4, with every class in it replaced; `weights_only` reads no such files
    from before torch 1.6.
    """
    known = {**TENSORS, **stand_ins}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" not in known:
                raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither a tensor nor a layer")
            return known[f"{module}.{name}"]

    reading = SimpleNamespace(
        __name__="tensors", Unpickler=Reader, load=lambda file, **options: Reader(file, **options).load()
    )
    with warnings.catch_warnings():
        # Old files keep the source of each layer, which torch compares with that of its stand-in.
        warnings.simplefilter("ignore", torch.serialization.SourceChangeWarning)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reading)


def load_exact(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    source: str,
    unused: Sequence[str] = (),
    elsewhere: Callable[[str], bool] = lambda name: False,
) -> None:
    """Load weights so that every tensor of the network comes from the file and nothing in the file is left over.

    Args:
        network: where to load to.
        state: tensors by name.
        source: for messages.
        unused: beginnings of names that the file may hold and the network does not have.
        elsewhere: which tensors of the network come from another file; this one must not hold them.

    Raises:
        ValueError: with a report of missing, unexpected and misshapen tensors.
    """
    # Old files count no batches; the counter has no part in inference.
    wanted = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked") and not elsewhere(name)
    }
    given = {
        name: value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(tuple(unused) or ("\0",))
    }
    report = {
        "missing": sorted(set(wanted) - set(given)),
        "unexpected": sorted(set(given) - set(wanted)),
        "misshapen": [
            f"{name} {tuple(given[name].shape)} for {tuple(wanted[name].shape)}"
            for name in sorted(set(wanted) & set(given))
            if wanted[name].shape != given[name].shape
        ],
    }
    if any(report.values()):
        told = "; ".join(f"{len(names)} {kind}, e.g. {names[:3]}" for kind, names in report.items() if names)
        raise ValueError(
            f"expected the {len(wanted)} tensors of {type(network).__name__}, got {len(given)} from {source}: {told}; "
            "give the published file"
        )
    network.load_state_dict(given, strict=False)


def digest(*paths: Path) -> str:
    """SHA-256 of files, one after the other; of one file, its usual hash."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def digest_of_weights(network: nn.Module) -> str:
    """SHA-256 of a network's tensors, for one whose file is not known."""
    total = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()
