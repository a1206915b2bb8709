"""Inception-v3 as FID has used it since 2017: the TensorFlow graph of 2015-12-05.

Unlike the usual Inception-v3, averages of pooling branches leave padding out, the last block pools by maximum, there
are 1008 classes, and films are resized as TensorFlow 1 did, without antialiasing. Layers and names are those of the
checkpoint that pytorch-fid and torch-fidelity distribute under two names (both end in the SHA-256 prefix 6726825d). It
is read from the folder where torch.hub keeps it, or from a path given as "inception:<file>".

Checked against torch-fidelity 0.4.0 on equal random weights, all outputs; its own weights could not be fetched here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from synthchex.models.known import Named
from synthchex.models.networks import FilmProcessor, Loaded, Network, Pooled, digest, load_exact, read_state

SIDE = 299
CLASSES = 1008
DIGEST = "6726825d"
FILES = (f"pt_inception-2015-12-05-{DIGEST}.pth", f"weights-inception-2015-12-05-{DIGEST}.pth")
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/" + FILES[0]
Chain = tuple[Any, ...]  # of (name, channels, kernel[, stride]); a tuple of those forks


class Convolution(nn.Module):
    """Convolution without bias, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Any, *, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(maps)))


class Mixed(nn.Module):
    """Chains of convolutions side by side, and a pooling branch; `names` keeps the order in which they are joined."""

    def __init__(self, inputs: int, chains: Sequence[Chain], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.chains: list[list[list[str]]] = []
        self.pool = pool
        for chain in chains:
            width, steps = inputs, []
            for step in chain:
                fork = step if isinstance(step[0], tuple) else (step,)
                for name, outputs, kernel, *stride in fork:
                    self.add_module(name, _convolution(width, outputs, kernel, *stride))
                width = fork[0][1]
                steps.append([name for name, *_ in fork])
            self.chains.append(steps)
        self.branch_pool = Convolution(inputs, pooled, 1) if pooled else nn.Identity()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        joined = []
        for steps in self.chains:
            branch = maps
            for names in steps:
                branch = torch.cat([self.get_submodule(name)(branch) for name in names], 1)
            joined.append(branch)
        return torch.cat([*joined, self.branch_pool(self._pooled(maps))], 1)

    def _pooled(self, maps: torch.Tensor) -> torch.Tensor:
        if self.pool == "average":
            return functional.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
        stride, padding = (2, 0) if self.pool == "halve" else (1, 1)
        return functional.max_pool2d(maps, 3, stride=stride, padding=padding)


def _convolution(inputs: int, outputs: int, kernel: Any, stride: int = 1) -> Convolution:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(side // 2 for side in sides) if stride == 1 else 0
    return Convolution(inputs, outputs, kernel, stride=stride, padding=padding)


_THICK: tuple[Chain, ...] = (
    (("branch1x1", 64, 1),),
    (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
)


def _long(width: int) -> tuple[Chain, ...]:
    across, down = (1, 7), (7, 1)
    return (
        (("branch1x1", 192, 1),),
        (("branch7x7_1", width, 1), ("branch7x7_2", width, across), ("branch7x7_3", 192, down)),
        (
            ("branch7x7dbl_1", width, 1),
            ("branch7x7dbl_2", width, down),
            ("branch7x7dbl_3", width, across),
            ("branch7x7dbl_4", width, down),
            ("branch7x7dbl_5", 192, across),
        ),
    )


_WIDE: tuple[Chain, ...] = (
    (("branch1x1", 320, 1),),
    (("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
    (
        ("branch3x3dbl_1", 448, 1),
        ("branch3x3dbl_2", 384, 3),
        (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
    ),
)
_HALVE_1: tuple[Chain, ...] = (
    (("branch3x3", 384, 3, 2),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)),
)
_HALVE_2: tuple[Chain, ...] = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, 2),
    ),
)
# Layers by name; the number is the width of the features that are read after it.
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"), ("Conv2d_3b_1x1", "Conv2d_4a_3x3")
MIDDLE = tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"))
TOP = ("Mixed_7a", "Mixed_7b", "Mixed_7c")


class Inception(Network):
    """The network; `fc` is None when the weights come without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = Mixed(192, _THICK, "average", 32)
        self.Mixed_5c = Mixed(256, _THICK, "average", 64)
        self.Mixed_5d = Mixed(288, _THICK, "average", 64)
        self.Mixed_6a = Mixed(288, _HALVE_1, "halve")
        for name, width in zip("bcde", (128, 160, 160, 192), strict=True):
            self.add_module(f"Mixed_6{name}", Mixed(768, _long(width), "average", 192))
        self.Mixed_7a = Mixed(768, _HALVE_2, "halve")
        self.Mixed_7b = Mixed(1280, _WIDE, "average", 192)
        self.Mixed_7c = Mixed(2048, _WIDE, "maximum", 192)
        self.fc: nn.Linear | None = nn.Linear(2048, CLASSES)

    def forward(self, pixel_values: torch.Tensor) -> Pooled:
        """Features of films in [-1, 1], (N, 3, 299, 299)."""
        return Pooled(self.taps(pixel_values)["2048"])

    def taps(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean activations after the two stems and the middle, and the 2048 features, by their width."""
        maps, found = pixel_values, {}
        for width, names in zip(("64", "192"), STEM, strict=True):
            maps = functional.max_pool2d(self._through(maps, names), 3, stride=2)
            found[width] = maps.mean((2, 3))
        maps = self._through(maps, MIDDLE)
        return found | {"768": maps.mean((2, 3)), "2048": self._through(maps, TOP).mean((2, 3))}

    def _through(self, maps: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        for name in names:
            maps = self.get_submodule(name)(maps)
        return maps

    def logits_of(self, features: torch.Tensor, *, unbiased: bool = True) -> torch.Tensor:
        """Class scores from the 2048 features; `unbiased` leaves the bias out, as the Inception Score always has.

        Raises:
            ValueError: the weights came without the classifier.
        """
        if self.fc is None:
            raise ValueError("expected weights with the classifier (fc), got a checkpoint without; give " + FILES[0])
        return functional.linear(features, self.fc.weight, None if unbiased else self.fc.bias)


class Inception299(FilmProcessor):
    """Films to [-1, 1] at 299 x 299: by TensorFlow 1's bilinear resize, or antialiased bicubic when `clean`."""

    size: Mapping[str, int] = {"height": SIDE, "width": SIDE}
    resample = 3  # of the aspect policies; the resize here is `tensor`

    def __init__(self, *, clean: bool) -> None:
        self.clean = clean

    def tensor(self, image: Any, *, whole: bool) -> torch.Tensor:
        pixels = np.asarray(image.convert("RGB"), np.float32)
        if self.clean:
            resized = torch.from_numpy(_bicubic(pixels))
        else:
            resized = resize_as_tensorflow_1(torch.from_numpy(pixels).permute(2, 0, 1)[None], SIDE)[0]
        return (resized - 128) / 128

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "clean": self.clean}


def resize_as_tensorflow_1(films: torch.Tensor, side: int) -> torch.Tensor:
    """Bilinear resize to a square as tf.image.resize_bilinear of TensorFlow 1 does it, corners not aligned.

    Output pixel i reads input position i * (in / out), not that of pixel centres, and nothing is averaged when films
    shrink. Float32 arithmetic in the order of the original kernel.

    Args:
        films: (N, C, H, W), float.
    """
    (top, bottom, down), (left, right, across) = (_positions(length, side, films) for length in films.shape[2:])
    upper, lower = films[:, :, top], films[:, :, bottom]
    # Not torch.lerp, which turns the formula round beyond the middle and so rounds otherwise.
    upper = upper[..., left] + (upper[..., right] - upper[..., left]) * across
    lower = lower[..., left] + (lower[..., right] - lower[..., left]) * across
    return upper + (lower - upper) * down[:, None]


def _positions(length: int, side: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    places = torch.arange(side, dtype=torch.float32, device=like.device) * torch.tensor(length / side)
    first = places.long()
    return first, (first + 1).clamp_max(length - 1), (places - first).to(like.dtype)


def _bicubic(pixels: np.ndarray) -> np.ndarray:
    """(3, 299, 299) from (H, W, 3), each channel in float32 so that nothing is rounded to 8 bits in between."""
    from PIL import Image

    channels = (Image.fromarray(pixels[:, :, channel]) for channel in range(3))
    resized = [np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in channels]
    return np.stack(resized).clip(0, 255)


def load(named: Named, dtype: torch.dtype) -> Loaded:
    """The network with the weights at `named.model`, a path, or in the usual folders when it is not one.

    Raises:
        ValueError: no weights, damaged weights, or those of another network.
    """
    path = find(named.model)
    version = digest(path)
    if path.name in FILES and not version.startswith(DIGEST):
        raise ValueError(
            f"expected {path} to have a SHA-256 that starts with {DIGEST}, got {version[:8]}; delete it and fetch it "
            f"again: curl -L -o {path} {URL}"
        )
    state = renamed(read_state(path))
    network = Inception()
    if not any(name.startswith("fc.") for name in state):
        network.fc = None
    load_exact(network, state, source=str(path))
    clean = "bicubic" in named.preprocessing
    return Loaded(network.to(dtype), Inception299(clean=clean), version)


def find(model: str) -> Path:
    """The weights file: `model` when it is one, else the published file where torch.hub keeps it.

    Raises:
        ValueError: it is not there; the message says how to get it.
    """
    path = Path(model)
    if path.suffix in (".pth", ".pt", ".safetensors"):
        if not path.is_file():
            raise ValueError(f"expected Inception weights at {path}, got no such file; check the path")
        return path
    folders = [Path(torch.hub.get_dir()), Path.home() / ".cache" / "torch" / "hub"]
    for folder in folders:
        for name in FILES:
            if (folder / "checkpoints" / name).is_file():
                return folder / "checkpoints" / name
    target = folders[0] / "checkpoints" / FILES[0]
    raise ValueError(
        f"expected the Inception weights of FID ({' or '.join(FILES)}) in {target.parent}, got neither; fetch them: "
        f"curl -L --create-dirs -o {target} {URL}, or name the file: inception:<path>"
    )


def renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the published names, from those of the published file, of a wrapped network, or of pytorch-fid's
    `InceptionV3`, which numbers its blocks.
    """
    blocks = dict(enumerate((*STEM, MIDDLE, TOP)))
    names = {}
    for name, value in state.items():
        parts = name.split(".")
        while parts and parts[0] in ("module", "model", "inception"):
            parts = parts[1:]
        if parts[:1] == ["blocks"]:
            parts = [blocks[int(parts[1])][int(parts[2])], *parts[3:]]
        names[".".join(parts)] = value
    return names
