"""BiomedVLP-BioViL-T: BERT for reports and a ResNet-50 hybrid for films, into one space of 128 dimensions.

The published code (hi-ml-multimodal) cannot be installed beside transformers 5; this is what it computes for one film
without a prior one: a 1 x 1 projection of the ResNet's maps, joined with the learned embedding that stands for the
missing prior, then a small projector, averaged over the film. The transformer that compares a film with its prior has
no part in that and its weights are left in the file. Reports: BERT's class token through a projection head.

Checked against hi-ml-multimodal 0.2.2 on equal random weights; its own weights could not be fetched here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from synthchex.models.known import Named
from synthchex.models.networks import FilmProcessor, Loaded, Network, digest, load_exact, read_state
from synthchex.models.resnet import WIDTH, ResNet50

IMAGE_FILE = "biovil_t_image_model_proj_size_128.pt"
TEXT_FILES = ("model.safetensors", "pytorch_model.bin")
INNER = 256
EDGE, SIDE = 512, 448


class ImageTower(nn.Module):
    """Films (N, 3, 448, 448) to (N, width); names as in the published file."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.encoder = ResNet50()
        self.encoder.backbone_to_vit = nn.Conv2d(WIDTH, INNER, 1, bias=False)
        self.encoder.missing_previous_emb = nn.Parameter(torch.zeros(1, INNER, 1, 1))
        self.projector = nn.Module()
        self.projector.model = nn.Sequential(
            nn.Conv2d(2 * INNER, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        maps = self.encoder.get_submodule("backbone_to_vit")(self.encoder.get_submodule("encoder")(films))
        prior = self.encoder.get_parameter("missing_previous_emb").expand_as(maps)
        return self.projector.get_submodule("model")(torch.cat([maps, prior], 1)).mean((2, 3))


class TextHead(nn.Module):
    """Projection of BERT's class token; names as in the published file."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.dense_to_hidden = nn.Linear(hidden, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dense_to_output = nn.Linear(width, width)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        return self.dense_to_output(self.LayerNorm(functional.gelu(self.dense_to_hidden(token))))


class BioViLT(Network):
    """Both towers, called as a CLIP model of transformers is."""

    def __init__(self, text: Mapping[str, Any]) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        stored = {key: value for key, value in text.items() if key not in ("model_type", "auto_map", "architectures")}
        self.text_config = BertConfig(**stored)
        width = int(text.get("projection_size", 128))
        self.bert = BertModel(self.text_config, add_pooling_layer=False)
        self.cls_projection_head = TextHead(self.text_config.hidden_size, width)
        self.image = ImageTower(width)

    @property
    def config(self) -> SimpleNamespace:
        """Grey films; the text tower's configuration."""
        return SimpleNamespace(num_channels=1, text_config=self.text_config)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 128), not normalised."""
        return self.image(pixel_values)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        """(N, 128), not normalised."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.cls_projection_head(tokens[:, 0])


class Grey448(FilmProcessor):
    """Grey films: own range to 0..255, shorter edge to 512 (bilinear), centre 448, [0, 1], three equal channels."""

    size: Mapping[str, int] = {"shortest_edge": EDGE}
    crop_size: Mapping[str, int] | None = {"height": SIDE, "width": SIDE}
    do_center_crop = True

    def tensor(self, image: Any, *, whole: bool) -> torch.Tensor:
        from PIL import Image

        pixels = np.asarray(image).astype(np.float64)
        low, spread = pixels.min(), np.ptp(pixels)
        # Truncated, not rounded, as the published code does; a constant film, which it divides by zero, is black.
        stretched = ((pixels - low) / spread * 255 if spread else pixels * 0).astype(np.uint8)
        film = Image.fromarray(stretched)
        if not whole:
            short = min(film.size)
            width, height = (int(EDGE * length / short) for length in film.size)
            film = film.resize((width, height), Image.Resampling.BILINEAR)
            left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
            film = film.crop((left, top, left + SIDE, top + SIDE))
        return torch.from_numpy(np.asarray(film, np.float32) / 255).expand(3, -1, -1)


class Reports:
    """BERT's tokenizer, after taking the last punctuation off a report as the published code does."""

    padding = "longest"

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer
        self.model_max_length = tokenizer.model_max_length

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        return self.inner([text.rstrip("!?.") for text in texts], **options)


def load(named: Named, dtype: torch.dtype) -> Loaded:
    """Both towers from a folder with config.json, the text weights, the vocabulary and `IMAGE_FILE`, or from the Hub.

    Raises:
        ValueError: a file or a weight is missing.
        OSError: the Hub cannot be reached.
    """
    from transformers import BertTokenizer

    folder = _folder(named)
    words = next((folder / name for name in TEXT_FILES if (folder / name).is_file()), None)
    lacking = [name for name in ("config.json", IMAGE_FILE) if not (folder / name).is_file()]
    if lacking or words is None:
        names = [*lacking, *([] if words else [" or ".join(TEXT_FILES)])]
        raise ValueError(f"expected {' and '.join(names)} in {folder}, got no such file; copy the whole repository")
    network = BioViLT(json.loads((folder / "config.json").read_text()))
    load_exact(
        network.image,
        read_state(folder / IMAGE_FILE),
        source=IMAGE_FILE,
        unused=("encoder.encoder.fc.", "encoder.vit_pooler.", "classifier."),
    )
    text = nn.ModuleDict({"bert": network.bert, "cls_projection_head": network.cls_projection_head})
    unused = ("cls.", "bert.pooler.", "bert.embeddings.position_ids")
    load_exact(text, read_state(words), source=words.name, unused=unused)
    tokenizer = Reports(BertTokenizer.from_pretrained(str(folder)))
    return Loaded(network.to(dtype), Grey448(), digest(folder / "config.json", folder / IMAGE_FILE, words), tokenizer)


def _folder(named: Named) -> Path:
    """The repository on this machine."""
    if Path(named.model).is_dir():
        return Path(named.model)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "vocab.txt", *TEXT_FILES, IMAGE_FILE]
    return Path(snapshot_download(named.model, revision=named.revision, allow_patterns=wanted))
