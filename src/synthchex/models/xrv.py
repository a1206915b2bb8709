"""torchxrayvision's DenseNet-121 and ResNet-50, as feature extractors and as classifiers, from the files that package
keeps; without it.

The files hold whole pickled networks or their weights; here only tensors are taken from them, no code of theirs runs.
Films are grey in [-1024, 1024]: other scales give wrong features without an error, so the scaling is done here and
nowhere else. The centred square is resized as the package's networks do it themselves (bilinear, antialiased), which
is not quite its `XRayResizer`. Features are those of the package's `features2` (DenseNet) and `features` (ResNet),
probabilities those of its `forward`.

Checked against torchxrayvision 1.5.7 on equal random weights; its own weights could not be fetched here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from synthchex.models.known import CLASSIFIERS, ENCODERS, Named
from synthchex.models.networks import FilmProcessor, Loaded, Network, Pooled, digest, load_exact, read_state
from synthchex.models.resnet import ResNet50
from synthchex.models.views import centre_square

FOLDER = Path("~/.torchxrayvision/models_data")
URL = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
BLOCKS = (6, 12, 24, 16)
GROWTH = 32
HEADS = ("classifier.", "body.fc.")  # what the tensors of the heads are called, after `renamed`
TARGETS = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)


class DenseLayer(nn.Sequential):
    """One layer of a dense block: what comes in, and 32 channels more."""

    def __init__(self, inputs: int) -> None:
        inner = 4 * GROWTH
        layers = OrderedDict(
            norm1=nn.BatchNorm2d(inputs),
            relu1=nn.ReLU(),
            conv1=nn.Conv2d(inputs, inner, 1, bias=False),
            norm2=nn.BatchNorm2d(inner),
            relu2=nn.ReLU(),
            conv2=nn.Conv2d(inner, GROWTH, 3, padding=1, bias=False),
        )
        super().__init__(layers)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([maps, super().forward(maps)], 1)


class DenseNet121(Network):
    """Grey films (N, 1, 224, 224) to 1024 features."""

    channels = 1

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(64),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, stride=2, padding=1),
        }
        width = 64
        for number, count in enumerate(BLOCKS, 1):
            dense: OrderedDict[str, nn.Module] = OrderedDict(
                (f"denselayer{i + 1}", DenseLayer(width + i * GROWTH)) for i in range(count)
            )
            layers[f"denseblock{number}"] = nn.Sequential(dense)
            width += count * GROWTH
            if number < len(BLOCKS):
                layers[f"transition{number}"] = nn.Sequential(
                    OrderedDict(
                        norm=nn.BatchNorm2d(width),
                        relu=nn.ReLU(),
                        conv=nn.Conv2d(width, width // 2, 1, bias=False),
                        pool=nn.AvgPool2d(2, stride=2),
                    )
                )
                width //= 2
        layers["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(OrderedDict(layers))

    def forward(self, pixel_values: torch.Tensor) -> Pooled:
        return Pooled(functional.relu(self.features(pixel_values)).mean((2, 3)))


class GreyResNet50(Network):
    """Grey films (N, 1, 512, 512) to 2048 features."""

    channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.body = ResNet50(channels=1)

    def forward(self, pixel_values: torch.Tensor) -> Pooled:
        return Pooled(self.body(pixel_values).mean((2, 3)))


class Scores(NamedTuple):
    """Output of a classifier: one logit per head and film, (N, 18)."""

    logits: torch.Tensor


class Headed(Network):
    """A network with the package's 18 heads; a file may hold heads that nobody trained, see `operating_points`."""

    channels = 1

    def __init__(self, body: Network, width: int) -> None:
        super().__init__()
        self.body, self.heads = body, nn.Linear(width, len(TARGETS))

    @property
    def config(self) -> SimpleNamespace:
        """Channels, heads and their kind, as a transformers config says them."""
        names = dict(enumerate(TARGETS))
        return SimpleNamespace(num_channels=1, id2label=names, problem_type="multi_label_classification")

    def forward(self, pixel_values: torch.Tensor) -> Scores:
        return Scores(self.heads(self.body(pixel_values).pooler_output))


class Scaled1024(FilmProcessor):
    """Grey films: centred square, [-1024, 1024], antialiased bilinear resize of the scaled values."""

    def __init__(self, side: int) -> None:
        self.size = {"height": side, "width": side}

    def tensor(self, image: Any, *, whole: bool) -> torch.Tensor:
        side = self.size["height"]
        film = torch.from_numpy(np.asarray(centre_square(image), np.float32))[None]
        scaled = (2 * (film / 255) - 1) * 1024
        if scaled.shape[1:] == (side, side):
            return scaled
        return functional.interpolate(scaled[None], size=(side, side), mode="bilinear", antialias=True)[0]


class StandIn:
    """What a pickled layer becomes when a file is read: its tensors, and nothing that runs."""

    dump_patches = False  # torch asks before it would write a file about changed sources

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors by name, as `state_dict` gives them."""
        held = vars(self)
        own = {**held.get("_parameters", {}), **held.get("_buffers", {})}
        found = {name: value.detach() for name, value in own.items() if isinstance(value, torch.Tensor)}
        for name, part in held.get("_modules", {}).items():
            if isinstance(part, StandIn):
                found |= {f"{name}.{inner}": value for inner, value in part.state().items()}
        return found


def _nothing() -> None:
    """Stands for the backend that networks pickled by torch below 1.5 name."""


_LAYERS = {
    "torchxrayvision.models": ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition"),
    "torch.nn.modules.container": ("Sequential",),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.batchnorm": ("BatchNorm2d",),
    "torch.nn.modules.activation": ("ReLU",),
    "torch.nn.modules.pooling": ("MaxPool2d", "AvgPool2d"),
    "torch.nn.modules.linear": ("Linear",),
}
STAND_INS: dict[str, Any] = {f"{module}.{name}": StandIn for module, names in _LAYERS.items() for name in names}
STAND_INS["torch.nn.backends.thnn._get_thnn_function_backend"] = _nothing


def load(named: Named, dtype: torch.dtype) -> Loaded:
    """The network with the weights at `named.model`: a path, or a file name in the package's folder.

    Raises:
        ValueError: no such file, or weights of another network.
    """
    path = find(named.model)
    network, side, _ = _body(path)
    return Loaded(network.to(dtype), Scaled1024(side), digest(path))


def load_classifier(named: Named, dtype: torch.dtype) -> Loaded:
    """The network with its 18 heads; errors as in `load`, and for a file without heads."""
    path = find(named.model)
    network, side, heads = _body(path)
    headed = Headed(network, 1024 if side == 224 else 2048)
    load_exact(headed.heads, heads, source=str(path))
    return Loaded(headed.to(dtype), Scaled1024(side), digest(path))


def _body(path: Path) -> tuple[Network, int, dict[str, torch.Tensor]]:
    """The network of a file, the side of its films, and the tensors of its heads, if any."""
    state = renamed(read_state(path, stand_ins=STAND_INS))
    network: Network = DenseNet121() if "features.conv0.weight" in state else GreyResNet50()
    load_exact(network, state, source=str(path), unused=(*HEADS, "op_threshs"))
    side = 224 if isinstance(network, DenseNet121) else 512
    return network, side, {name.rpartition(".")[2]: state[name] for name in state if name.startswith(HEADS)}


def find(model: str) -> Path:
    """The weights file.

    Raises:
        ValueError: it is not there; the message says how to get it.
    """
    path = Path(model)
    if path.is_file():
        return path
    kept = FOLDER.expanduser() / path.name
    if kept.is_file():
        return kept
    known = {entry.model for entry in (*ENCODERS.values(), *CLASSIFIERS.values()) if entry.family == "xrv"}
    way = f"curl -L --create-dirs -o {kept} {URL}{path.name}, or " if path.name in known else ""
    raise ValueError(
        f"expected weights of torchxrayvision at {kept}, got no such file; {way}name the file: <entry>:<path>"
    )


def renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names as in the networks here: a ResNet's stand alone in its file."""
    if any(name.startswith("features.") for name in state):
        return dict(state)
    return {"body." + name.removeprefix("model."): value for name, value in state.items()}
