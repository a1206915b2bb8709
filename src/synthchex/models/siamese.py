"""Are two films of one patient: the Siamese ResNet-50 of Packhäuser et al., as CheXGenBench published it for MIMIC-CXR.

One network reads both films. A film becomes 128 numbers in (0, 1); two films become

    s(a, b) = sigmoid(bias + sum_k w_k |a_k - b_k|),    the same for (b, a), and sigmoid(bias) for a film with itself

so a film is encoded once, however many it is compared with. Written anew from the description: the first published code
is GPL-3 and no line of it was used. The published weights could not be fetched here. Knows films and pairs of
embeddings; knows neither patients nor thresholds. Scores are no probabilities: see `privacy.reidentification` for what
they mean on a set.

Source: Packhäuser et al. 2022 (Scientific Reports 12:14851); Dutt et al. 2025 (arXiv:2505.10496) for weights and input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from synthchex.data import records
from synthchex.models import encoders
from synthchex.models.known import Named
from synthchex.models.networks import FilmProcessor, Loaded, Network, Pooled, digest, load_exact, read_state
from synthchex.models.resnet import WIDTH, ResNet50

REPOSITORY, FILE = "raman07/Patient_ReIdentification_MIMIC", "ResNet-50_epoch11_data_handling_RPN.pth"
SUFFIXES = (".pth", ".pt", ".safetensors")
EMBEDDED = 128
Input = Literal["chexgenbench", "original"]
SIDES: Mapping[Input, int] = {"chexgenbench": 224, "original": 256}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for the input "original"
NAMED = Named(
    REPOSITORY,
    "MIMIC-CXR films with patient ids",
    "not stated; check the repository before use",
    family="siamese",
    width=EMBEDDED,
    preprocessing="squashed to 224 by bilinear resize, [0, 1], three channels, no ImageNet mean and std",
    seen="MIMIC-CXR (which part is not stated)",
)


class SiameseNetwork(Network):
    """Films (N, 3, H, W) to embeddings (N, 128) in (0, 1); names as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ResNet50()
        self.model.fc = nn.Linear(WIDTH, EMBEDDED)
        self.fc_end = nn.Linear(EMBEDDED, 1)

    def forward(self, pixel_values: torch.Tensor) -> Pooled:
        pooled = self.model(pixel_values).mean((2, 3))
        return Pooled(torch.sigmoid(self.model.get_submodule("fc")(pooled)))

    def logits(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Every row of one side with every row of the other, (n, m), before the sigmoid.

        Sums of weighted absolute differences: weights of one sign are taken into the embeddings, so that nothing of
        shape (n, m, 128) is made.
        """
        weight, found = self.fc_end.weight[0].float(), self.fc_end.bias.float().expand(len(one), len(other)).clone()
        for sign in (1.0, -1.0):
            columns = (sign * weight) > 0
            scaled = weight[columns].abs()
            if len(scaled):
                found += sign * torch.cdist(one[:, columns] * scaled, other[:, columns] * scaled, p=1.0)
        return found


class Squashed(FilmProcessor):
    """Films to squares of 224, in [0, 1], as the benchmark; or of 256 with ImageNet's mean and deviation."""

    def __init__(self, read_as: Input = "chexgenbench") -> None:
        self.read_as, self.side = read_as, SIDES[read_as]
        self.size = {"height": self.side, "width": self.side}

    def tensor(self, image: Any, *, whole: bool) -> torch.Tensor:
        from PIL import Image

        film = image if whole else image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(film, np.float32) / 255).permute(2, 0, 1)
        if self.read_as == "chexgenbench":
            return values
        return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "read_as": self.read_as}


class Siamese(encoders.Encoder):
    """An encoder for `models.store`: `encode` gives embeddings (N, 128); two sets of them give `scores`.

    Attributes:
        read_as: how films are made its input, "chexgenbench" or "original".
    """

    def __init__(self, named: Named, model: SiameseNetwork, processor: Squashed, key: str) -> None:
        super().__init__(named, model, processor, key)
        self.read_as = processor.read_as

    def scores(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How much each film of one side looks like the same patient as each of the other.

        Args:
            one: embeddings, float, (n, 128).
            other: embeddings, float, (m, 128).

        Returns:
            float64 (n, m) in (0, 1), higher is more alike; symmetric. In double precision after float32 logits, since
            scores near 1 would be tied in single precision.
        """
        from scipy.special import expit

        with torch.inference_mode():
            left, right = (torch.as_tensor(np.asarray(side, np.float32)).to(self.model.device) for side in (one, other))
            return np.asarray(expit(self.model.logits(left, right).cpu().numpy().astype(np.float64)))


def load_siamese(
    source: str = REPOSITORY, *, read_as: Input = "chexgenbench", device: str | None = None, revision: str = "main"
) -> Siamese:
    """The network with published weights, ready on `device`.

    Args:
        source: a file (.pth, .pt, .safetensors), a folder that has `FILE`, or a Hub id whose repository has it.
        read_as: "chexgenbench": 224 x 224, no normalisation, as the benchmark feeds these weights; "original": 256 x
            256 with ImageNet's mean and deviation, as the first project. It is part of the encoder's key.
        device: "cpu", "cuda", …; the first GPU when there is one, else the CPU.
        revision: of a Hub repository.

    Raises:
        ValueError: no such file, tensors missing, left over or misshapen (the message names them), a value of
            `read_as` that is none.
    """
    if read_as not in get_args(Input):
        raise ValueError(f"read_as must be one of {list(get_args(Input))}, got {read_as!r}")
    path, network = _find(source, revision), SiameseNetwork()
    state = {name.removeprefix("module."): value for name, value in read_state(path).items()}
    load_exact(network, state, source=path.name)
    loaded = Loaded(network.eval(), Squashed(read_as), digest(path))
    key = records.fingerprint(["siamese", loaded.version, loaded.processor.to_dict()])
    return Siamese(NAMED, network.to(encoders.pick_device(device)), loaded.processor, key)


def _find(source: str, revision: str) -> Path:
    """The weights file on this machine."""
    path = Path(source) / FILE if Path(source).is_dir() else Path(source)
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or path.is_absolute() or source.count("/") != 1:
        raise ValueError(f"expected weights of the Siamese network at {path}, got no such file; copy {FILE} there")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, FILE, revision=revision))
    except OSError as error:
        raise ValueError(
            f"{source} cannot be loaded ({str(error).splitlines()[0]}); give a Hub id you have access to, or the file"
        ) from error
