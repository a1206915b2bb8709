"""The named encoders as data: where each comes from, what it expects, what it has seen, its licence. Knows no network.

`seen` says which public radiograph sets a network was trained on: a score that compares films of such a set, or of a
generator trained on it, with an encoder that has seen it flatters the generator. Widths are those of the features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
DEFAULT = "rad-dino"
DEFAULT_IMAGE_TEXT = "medsiglip"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Named:
    """A published network.

    `model` is a Hub id, an embedded folder, or the name of a weights file; `family` the module that loads it.
    """

    model: str
    trained_on: str
    licence: str
    revision: str = "main"
    family: str = "auto"
    width: int | None = None
    preprocessing: str = "the network's own image processor"
    seen: str = UNKNOWN


ENCODERS: dict[str, Named] = {
    "phantom": Named(
        str(ASSETS / "phantom" / "encoder"),
        "procedural phantoms of this package",
        "Apache-2.0",
        seen="no radiographs",
    ),
    "rad-dino": Named(
        "microsoft/rad-dino",
        "882k chest radiographs: MIMIC-CXR, CheXpert, NIH-CXR, PadChest, BRAX; from DINOv2 base",
        "MIT; revisions before the licence changed: MSRLA, research only",
        width=768,
        preprocessing="shorter edge to 518, centre crop 518, mean and std of radiographs",
        seen="MIMIC-CXR, CheXpert, NIH-CXR, PadChest, BRAX (training parts; listed in its repository)",
    ),
    "rad-dino-maira-2": Named(
        "microsoft/rad-dino-maira-2",
        "five public sets of chest radiographs and one private one; from DINOv2 base",
        "MSRLA, research only",
        width=768,
        preprocessing="shorter edge to 518, centre crop 518, mean and std of radiographs",
        seen="five public sets, as rad-dino, and one private set",
    ),
    "dinov2-base": Named(
        "facebook/dinov2-base",
        "LVD-142M natural images",
        "Apache-2.0",
        width=768,
        preprocessing="shorter edge to 256, centre crop 224, ImageNet mean and std",
        seen="no radiograph sets",
    ),
    "dinov2-large": Named(
        "facebook/dinov2-large",
        "LVD-142M natural images",
        "Apache-2.0",
        width=1024,
        preprocessing="shorter edge to 256, centre crop 224, ImageNet mean and std",
        seen="no radiograph sets",
    ),
    "inception": Named(
        "inception-2015-12-05",
        "ImageNet 2012, the TensorFlow graph of 2015-12-05",
        "Apache-2.0",
        revision="6726825d",
        family="inception",
        width=2048,
        preprocessing="squashed to 299 by TensorFlow 1 bilinear resize, not antialiased, as FID has always been",
        seen="no radiographs",
    ),
    "inception-clean": Named(
        "inception-2015-12-05",
        "ImageNet 2012, the TensorFlow graph of 2015-12-05",
        "Apache-2.0",
        revision="6726825d",
        family="inception",
        width=2048,
        preprocessing="squashed to 299 by antialiased bicubic resize in float32",
        seen="no radiographs",
    ),
    "xrv-densenet121": Named(
        "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        "NIH-CXR, PadChest, CheXpert, MIMIC-CXR, Google, OpenI, RSNA, with labels",
        "Apache-2.0",
        revision="v1",
        family="xrv",
        width=1024,
        preprocessing="grey, centre crop to a square, antialiased bilinear resize to 224, scaled to [-1024, 1024]",
        seen="NIH-CXR, PadChest, CheXpert, MIMIC-CXR, OpenI, RSNA (training parts, with labels)",
    ),
    "xrv-resnet50": Named(
        "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt",
        "PadChest, NIH-CXR, RSNA, SIIM, VinDr, with labels",
        "Apache-2.0",
        revision="v1",
        family="xrv",
        width=2048,
        preprocessing="grey, centre crop to a square, antialiased bilinear resize to 512, scaled to [-1024, 1024]",
        seen="PadChest, NIH-CXR, RSNA, SIIM, VinDr (with labels); neither MIMIC-CXR nor CheXpert",
    ),
}
IMAGE_TEXT: dict[str, Named] = {
    "phantom": Named(
        str(ASSETS / "phantom" / "image_text"),
        "procedural phantoms of this package",
        "Apache-2.0",
        seen="no radiographs",
    ),
    "medsiglip": Named(
        "google/medsiglip-448",
        "chest radiographs, other medical images and natural images, with text",
        "Health AI Developer Foundations terms (gated)",
        width=1152,
        preprocessing="squashed to 448, scaled to [-1, 1]; reads 64 tokens",
        seen="MIMIC-CXR images and reports, and private sets",
    ),
    "clip": Named(
        "openai/clip-vit-base-patch32",
        "400M image-text pairs of the web",
        "MIT",
        width=512,
        preprocessing="shorter edge to 224, centre crop 224; reads 77 tokens",
        seen="not stated; no radiograph set is named",
    ),
    "clip-large-336": Named(
        "openai/clip-vit-large-patch14-336",
        "400M image-text pairs of the web",
        "MIT",
        width=768,
        preprocessing="shorter edge to 336, centre crop 336; reads 77 tokens",
        seen="not stated; no radiograph set is named",
    ),
    "biovil-t": Named(
        "microsoft/BiomedVLP-BioViL-T",
        "MIMIC-CXR images and reports; text tower also PubMed abstracts and MIMIC-III notes",
        "MIT",
        revision="v1.0",
        family="biovil",
        width=128,
        preprocessing="grey, its own range to 0..255, shorter edge to 512, centre crop 448; reads 512 tokens",
        seen="MIMIC-CXR images and reports; its text tower also conditions RadEdit",
    ),
    "biomedclip": Named(
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        "PMC-15M figures and captions of PubMed Central",
        "MIT; card: research only",
        family="openclip",
        width=512,
        preprocessing="shorter edge to 224, centre crop 224; reads 256 tokens",
        seen="figures of papers, radiographs of open sets among them",
    ),
}


def describe(name: str, known: dict[str, Named]) -> str:
    """What a network is, was trained on and may be used for, as one line of JSON, for cards and reports."""
    named = known.get(name, Named(name, UNKNOWN, UNKNOWN))
    stored = asdict(named)
    if Path(named.model).is_dir():
        stored["model"] = Path(named.model).name
    return json.dumps(stored)
