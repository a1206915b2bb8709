"""SSCD, the copy-detection network of Pizzi et al. 2022, as its authors publish it: one TorchScript file.

The file is code and weights together; torch runs it, so take it from its authors and from nobody else. It is read from
the folder where torch.hub keeps such files, or from a path given as "sscd:<file>"; nothing is fetched. Its descriptors
are made to be compared by cosine: rows here have unit length, so Euclid orders them alike.

Checked on tiny scripted networks; the published file could not be fetched here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from synthchex.models.known import Named
from synthchex.models.networks import FilmProcessor, Loaded, Network, Pooled, digest
from synthchex.models.views import centre_square

SIDE = 288
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
FILE = "sscd_disc_mixup.torchscript.pt"
URL = "https://dl.fbaipublicfiles.com/sscd-copy-detection/" + FILE


class Scripted(Network):
    """A scripted network that gives one vector per film, answered as those of transformers do."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> Pooled:
        """(N, 3, SIDE, SIDE) to unit vectors, (N, width)."""
        rows = self.network(pixel_values)
        if not isinstance(rows, torch.Tensor) or rows.ndim != 2:
            raise ValueError(
                f"expected a scripted network that gives one vector per film, got {_shape(rows)}; give {FILE}"
            )
        return Pooled(functional.normalize(rows.float(), dim=1))


class Square288(FilmProcessor):
    """Films to colour at SIDE x SIDE: shorter edge to SIDE, centred square, mean and deviation of ImageNet.

    The aspect is kept and the ends of the longer edge are not seen; `aspect="pad"` shows the whole film.
    """

    size: Mapping[str, int] = {"height": SIDE, "width": SIDE}

    def tensor(self, image: Any, *, whole: bool) -> torch.Tensor:
        film = image.convert("RGB")
        if not whole and film.size != (SIDE, SIDE):
            film = centre_square(film).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(film, np.float32) / 255).permute(2, 0, 1)
        return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "mean": MEAN, "std": STD}


def load(named: Named, dtype: torch.dtype) -> Loaded:
    """The network in the file at `named.model`, a path, or in the usual folder when it is not one.

    Raises:
        ValueError: no such file, or one that is no TorchScript.
    """
    path = find(named.model)
    try:
        network = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"expected a TorchScript file, got {path}, which torch cannot read as such "
            f"({str(error).strip().splitlines()[0][:200]}); fetch it again: curl -L -o {path} {URL}"
        ) from error
    return Loaded(Scripted(network).to(dtype), Square288(), digest(path))


def find(model: str) -> Path:
    """The file: `model` when it is one, else the published file where torch.hub keeps such files.

    Raises:
        ValueError: it is not there; the message says how to get it.
    """
    path = Path(model)
    kept = Path(torch.hub.get_dir()) / "checkpoints" / path.name
    for place in (path, kept):
        if place.is_file():
            return place
    raise ValueError(
        f"expected the SSCD network at {kept}, got no such file; fetch it: curl -L --create-dirs -o {kept} {URL}, or "
        "name the file: sscd:<path>"
    )


def _shape(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, torch.Tensor) else type(output).__name__
