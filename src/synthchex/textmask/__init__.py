"""Text that is burned into films: found, segmented, filled from around it, looked for again.

`load_detector`, `load_segmenter` and `load_inpainter` give what may be chosen; `clean` does one film.
"""

from __future__ import annotations

from functools import partial

from synthchex.textmask import fill, masks, ppocr
from synthchex.textmask.clean import Cleaned, Detector, Segment, Tools, clean, erase
from synthchex.textmask.fill import Fill
from synthchex.textmask.texts import Text, is_side_marker

__all__ = [
    "DETECTORS",
    "INPAINTERS",
    "METHOD",
    "REASONS",
    "SEGMENTERS",
    "Cleaned",
    "Text",
    "Tools",
    "clean",
    "erase",
    "is_side_marker",
    "load_detector",
    "load_inpainter",
    "load_segmenter",
]

DETECTORS = ("tophat", "ppocr", "tesseract")
SEGMENTERS = ("glyphs", "boxes", "sam")
INPAINTERS = ("biharmonic", "diffusion")
REASONS = ("text-left", "removed", "kept-side-marker")  # why a film has a text, as rows say it
METHOD = 1  # counts changes of what the weight-free parts give
SAM_MODEL = "facebook/sam-vit-huge"
INPAINTING_MODEL = "sd2-community/stable-diffusion-2-inpainting"


def load_detector(name: str, model: str | None = None, *, device: str | None = None) -> Detector:
    """One of `DETECTORS`.

    Raises:
        ValueError: another name, or its program is not installed.
    """
    if name == "ppocr":
        return ppocr.PPOCR(model or ppocr.MODEL, device=device)
    if name == "tesseract":
        from synthchex.textmask.tesseract import Tesseract

        return Tesseract()
    if name == "tophat":
        from synthchex.textmask.tophat import TopHat

        return TopHat()
    raise ValueError(f"expected a detector among {list(DETECTORS)}, got {name!r}")


def load_segmenter(name: str, model: str | None = None, *, device: str | None = None) -> Segment:
    """One of `SEGMENTERS`.

    Raises:
        ValueError: another name.
    """
    if name == "sam":
        return masks.Sam(model or SAM_MODEL, device=device)
    if name not in SEGMENTERS:
        raise ValueError(f"expected a segmenter among {list(SEGMENTERS)}, got {name!r}")
    return masks.glyphs if name == "glyphs" else masks.boxes


def load_inpainter(
    name: str,
    model: str | None = None,
    *,
    prompt: str | None = None,
    steps: int | None = None,
    device: str | None = None,
) -> Fill:
    """One of `INPAINTERS`; prompt and steps are those of `fill.Diffusion` where not given.

    Raises:
        ValueError: another name.
    """
    if name == "biharmonic":
        return fill.biharmonic
    if name != "diffusion":
        raise ValueError(f"expected an inpainter among {list(INPAINTERS)}, got {name!r}")
    make = partial(fill.Diffusion, model or INPAINTING_MODEL, device=device)
    if prompt is not None:
        make = partial(make, prompt=prompt)
    return make() if steps is None else make(steps=steps)
