"""Image-text networks of open_clip (BiomedCLIP), where that package is installed.

Not checked against the package: it needs torchvision and timm, and the weights could not be fetched here. What is
tested is this adapter, on a double with the package's calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from synthchex.extras import require
from synthchex.models.known import Named
from synthchex.models.networks import Loaded, Network, digest_of_weights


class OpenClip(Network):
    """A network of open_clip, called as a CLIP model of transformers is."""

    def __init__(self, network: Any, context: int) -> None:
        super().__init__()
        self.network, self.context = network, context

    @property
    def config(self) -> SimpleNamespace:
        """Colour films; how many tokens are read."""
        return SimpleNamespace(num_channels=3, text_config=SimpleNamespace(max_position_embeddings=self.context))

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, width), not normalised."""
        return self.network.encode_image(pixel_values)

    def get_text_features(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        """(N, width), not normalised."""
        return self.network.encode_text(input_ids)


class Transform:
    """open_clip's own transform of PIL images; it settles size and aspect."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, images: Sequence[Any], *, return_tensors: str = "pt", **switches: bool) -> dict[str, Any]:
        """`pixel_values` of the images."""
        return {"pixel_values": torch.stack([self.transform(image) for image in images])}

    def to_dict(self) -> dict[str, Any]:
        """The transform as it prints itself."""
        return {"transform": repr(self.transform)}


class Tokens:
    """open_clip's tokenizer: fixed length for the network, true length for counting what is cut."""

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer
        self.model_max_length = int(tokenizer.context_length)

    def __call__(self, texts: Sequence[str], *, return_tensors: str | None = None, **options: Any) -> Any:
        from transformers import BatchEncoding

        if return_tensors is not None:
            return BatchEncoding({"input_ids": self.inner(list(texts))})
        return self.inner.tokenizer(list(texts), verbose=False)


def load(named: Named, dtype: torch.dtype) -> Loaded:
    """A network by its Hub id, or from a folder with open_clip_config.json.

    Raises:
        ImportError: open_clip is not installed.
    """
    open_clip = require("open_clip", extra="openclip")
    place = f"local-dir:{named.model}" if Path(named.model).is_dir() else f"hf-hub:{named.model}"
    network, transform = open_clip.create_model_from_pretrained(place)
    tokenizer = Tokens(open_clip.get_tokenizer(place))
    model, version = OpenClip(network, tokenizer.model_max_length), digest_of_weights(network)
    return Loaded(model.to(dtype), Transform(transform), version, tokenizer)
