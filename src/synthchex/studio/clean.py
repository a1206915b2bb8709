"""One film and its burned-in texts: read as it comes from outside, texts found, some of them erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthchex import textmask
from synthchex.data import decode, dicom, images, nifti
from synthchex.data.film import UnreadableImage
from synthchex.studio.safety import MAX_UPLOAD_BYTES, MAX_UPLOAD_PIXELS
from synthchex.textmask import Cleaned, Text, Tools
from synthchex.textmask.clean import Detector


@dataclass(frozen=True)
class Found:
    """A film, uint8, and the texts on it, numbered from 1 in the page."""

    name: str
    pixels: np.ndarray
    texts: list[Text]

    def names(self) -> list[str]:
        """What to call each text: number, what it says, how sure the detector is."""
        return [
            f"{number}: {text.says if text.says else 'not read'} ({text.score:.2f})"
            for number, text in enumerate(self.texts, 1)
        ]

    def proposed(self) -> list[str]:
        """Names of the texts that `remove-text` would erase: all but side markers."""
        shape = self.pixels.shape
        pairs = zip(self.names(), self.texts, strict=True)
        return [name for name, text in pairs if not textmask.is_side_marker(text, shape)]

    def chosen(self, names: Sequence[str]) -> list[bool]:
        """Which texts some names mean.

        Raises:
            ValueError: a name of no text of this film.
        """
        known = self.names()
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"expected texts among {known}, got {unknown}; look for text again")
        return [name in names for name in known]


def from_outside(encoded: bytes) -> np.ndarray:
    """Pixels of an uploaded film, by the one audited reader; what else stood in the file is gone.

    Raises:
        UnreadableImage: too many bytes or pixels, NIfTI, or a reason of docs/formats.md.
    """
    if len(encoded) > MAX_UPLOAD_BYTES:
        raise UnreadableImage(
            "too-large", f"expected at most {MAX_UPLOAD_BYTES:,} bytes, got {len(encoded):,}; upload a smaller file"
        )
    if nifti.is_nifti(encoded, ""):  # a small file may unpack to a large one
        raise UnreadableImage("not-an-image", "expected an image or DICOM file, got NIfTI; export it as PNG")
    if not dicom.is_dicom(encoded, ""):
        with decode.open_file(encoded, "the upload") as opened:
            _check_pixels(opened.width, opened.height)
    pixels = images.read(encoded).pixels
    _check_pixels(pixels.shape[1], pixels.shape[0])
    return pixels


def detect(name: str, pixels: np.ndarray, detector: Detector) -> Found:
    """A film with the texts that are on it."""
    return Found(name, pixels, detector.detect(pixels))


def erase(found: Found, names: Sequence[str], tools: Tools, *, seed: int = 0) -> Cleaned:
    """A film without the texts that some names mean; the other texts stay, pixel for pixel.

    Raises:
        ValueError: no text is chosen, or a name of no text of this film.
    """
    marks = found.chosen(names)
    if not any(marks):
        raise ValueError("expected at least one text to erase, got none; tick one, or leave the film as it is")
    kept = [text for text, mark in zip(found.texts, marks, strict=True) if not mark]
    return textmask.erase(found.pixels, found.texts, kept, tools, seed)


def told(done: Cleaned) -> str:
    """What was done to a film, in a sentence."""
    count = len(done.found) - len(done.kept)
    said = f"{count} of {len(done.found)} texts erased"
    if done.mask is None:
        return "Nothing was erased: no stroke was found in the boxes."
    changed = f"{said}, {int(done.mask.sum()):,} pixels filled, all others as they were"
    if done.left:
        return f"{changed}. {len(done.left)} found again: {', '.join(text.says or 'not read' for text in done.left)}."
    return f"{changed}. No text is found in their place."


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_UPLOAD_PIXELS:
        raise UnreadableImage(
            "too-large", f"expected at most {MAX_UPLOAD_PIXELS:,} pixels, got {width} x {height}; upload a smaller film"
        )
