"""The named networks as data: where each comes from, what it expects, what it has seen, its licence. Loads none.

`seen` says which public radiograph sets a network was trained on: a score that compares films of such a set, or of a
generator trained on it, with an encoder that has seen it flatters the generator. Widths are those of the features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
DEFAULT = "rad-dino"
DEFAULT_IMAGE_TEXT = "medsiglip"
DEFAULT_CLASSIFIER = "xrv-resnet50-res512-all"
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


@dataclass(frozen=True)
class NamedClassifier(Named):
    """A published classifier.

    `independent`: it has seen no film of the sets that generators of its domain are trained on; None: unknown.
    `operating_points`: the probability of each head that counts as a half, None for a head without training; empty
    where probabilities are taken as they are.
    """

    independent: bool | None = None
    operating_points: tuple[float | None, ...] = ()


ENCODERS: dict[str, Named] = {
    "phantom": Named(
        str(ASSETS / "phantom" / "encoder"),
        "procedural phantoms of this package",
        "Apache-2.0",
        revision="embedded",
        width=256,
        preprocessing="grey, squashed to 64 by bilinear resize, scaled to [-1, 1]",
        seen="phantoms, as the embedded generator; no radiographs",
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
    "sscd": Named(
        "sscd_disc_mixup.torchscript.pt",
        "DISC 2021, natural images, to find copies; from ImageNet weights",
        "MIT",
        family="sscd",
        width=512,
        preprocessing="shorter edge to 288, centre crop 288, ImageNet mean and std; unit length",
        seen="no radiograph sets",
    ),
}
IMAGE_TEXT: dict[str, Named] = {
    "phantom": Named(
        str(ASSETS / "phantom" / "image_text"),
        "procedural phantoms of this package",
        "Apache-2.0",
        revision="embedded",
        width=128,
        preprocessing="grey, squashed to 64 by bicubic resize, scaled to [-1, 1]; reads 40 tokens",
        seen="phantoms and their reports, as the embedded generator; no radiographs",
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


def _xrv(file: str, seen: str, side: int, independent: bool, points: str) -> NamedClassifier:
    """A classifier of torchxrayvision; `points` are its `op_threshs` in the order of `xrv.TARGETS`, "-" for none."""
    return NamedClassifier(
        file,
        f"{seen}, with labels",
        "Apache-2.0",
        revision="v1",
        family="xrv",
        width=14,
        preprocessing=f"grey, centre crop to a square, antialiased bilinear resize to {side}, scaled to [-1024, 1024]",
        seen=seen,
        independent=independent,
        operating_points=tuple(None if point == "-" else float(point) for point in points.split()),
    )


_DENSENET = "-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
CLASSIFIERS: dict[str, NamedClassifier] = {
    "phantom": NamedClassifier(
        str(ASSETS / "phantom" / "encoder"),
        "procedural phantoms of this package, with labels",
        "Apache-2.0",
        width=14,
        seen="phantoms, as the embedded generator; no radiographs",
        independent=False,
    ),
    "xrv-resnet50-res512-all": _xrv(
        "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt",
        "PadChest, NIH-CXR, RSNA, SIIM, VinDr",
        512,
        True,
        "0.51570356 0.50444704 0.53787947 0.50723547 0.5025118 0.5035252 0.5038076 0.51862943 0.5078151 0.50724894 "
        "0.5056339 0.510706 0.5053923 0.5020846 - 0.5080557 0.5138526 -",
    ),
    "xrv-densenet121-res224-all": _xrv(
        f"nih-pc-chex-mimic_ch-google-openi-kaggle{_DENSENET}",
        "NIH-CXR, PadChest, CheXpert, MIMIC-CXR, Google, OpenI, RSNA",
        224,
        False,
        "0.07422872 0.038290843 0.09814756 0.0098118475 0.023601074 0.0022490358 0.010060724 0.103246614 0.056810737 "
        "0.026791653 0.050318155 0.023985857 0.01939503 0.042889766 0.053369623 0.035975814 0.20204692 0.05015312",
    ),
    "xrv-densenet121-res224-mimic_ch": _xrv(
        f"mimic_ch{_DENSENET}",
        "MIMIC-CXR (labels of the CheXpert labeller)",
        224,
        False,
        "0.09121389 0.010573786 - 0.005023008 0.003698257 - - 0.08001232 0.037242252 - 0.05006329 - - - 0.019866971 "
        "0.03823637 0.11303808 0.0069147074",
    ),
    "xrv-densenet121-res224-mimic_nb": _xrv(
        f"mimic_nb{_DENSENET}",
        "MIMIC-CXR (labels of NegBio)",
        224,
        False,
        "0.08558747 0.011884617 - 0.0040595434 0.010733786 - - 0.118761964 0.022924708 - 0.06358637 - - - 0.022143636 "
        "0.017476924 0.1258702 0.014020768",
    ),
    "xrv-densenet121-res224-chex": _xrv(
        f"chex{_DENSENET}",
        "CheXpert",
        224,
        False,
        "0.1988969 0.05710573 - 0.0531293 0.1435217 - - 0.27212676 0.07749717 - 0.19712369 - - - 0.09932402 0.09273402 "
        "0.3270967 0.10888247",
    ),
    "xrv-densenet121-res224-nih": _xrv(
        f"nih{_DENSENET}",
        "NIH-CXR",
        224,
        True,
        "0.039117552 0.0034529066 0.11396341 0.0057298196 0.00045666535 0.0018880932 0.012037827 0.038744126 "
        "0.0037213727 0.014730946 0.016149804 0.054241467 0.037198864 0.0004403434 - - - -",
    ),
    "xrv-densenet121-res224-pc": _xrv(
        f"pc{_DENSENET}",
        "PadChest",
        224,
        True,
        "0.031012505 0.013347598 0.081435576 0.001262615 0.002587246 0.0035944257 0.0023071 0.055412333 0.044385884 "
        "0.042766232 0.043258056 0.037629247 0.005658899 0.0091741895 - 0.026507627 - -",
    ),
    "xrv-densenet121-res224-rsna": _xrv(
        f"kaggle{_DENSENET}",
        "RSNA Pneumonia (films of NIH-CXR)",
        224,
        True,
        "- - - - - - - - 0.13486601 - - - - - - - 0.13511065 -",
    ),
}


def describe(name: str, known: Mapping[str, Named]) -> str:
    """What a network is, was trained on and may be used for, as one line of JSON, for cards and reports."""
    named = known.get(name, Named(name, UNKNOWN, UNKNOWN))
    stored = asdict(named)
    if Path(named.model).is_dir():
        stored["model"] = Path(named.model).name
    return json.dumps(stored)
