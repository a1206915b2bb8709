"""DICOM films by pydicom: stored values -> modality LUT -> VOI LUT or window -> polarity -> padding -> 8 bits.

Order and polarity: DICOM PS3.4 N.2.1 and PS3.3 C.11.1, C.11.2, C.8.11.3. Knows no folders and no tags of persons.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from synthchex.data.film import (
    Deep,
    Film,
    UnreadableImage,
    check_size,
    defects_named,
    eight_bits,
    grey_if_equal,
    limits,
)

if TYPE_CHECKING:
    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
PLUGINS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"


class Header(NamedTuple):
    """What a header says of the way from stored values to a film."""

    dataset: Dataset
    grey: bool
    windowed: bool
    as_stored: bool


def is_dicom(encoded: bytes, name: str) -> bool:
    """Whether a file is DICOM by its magic, or says so by its name."""
    return encoded[128:132] == b"DICM" or name.lower().endswith((".dcm", ".dicom"))


def preprocessing(encoded: bytes, name: str, deep: Deep) -> str:
    """What `film` will say in `Film.preprocessing`, from the header alone.

    Raises:
        UnreadableImage: not-an-image, or no-pixels.
    """
    with defects_named(name):
        return _way(_header(encoded, name), deep)


def film(encoded: bytes, name: str, deep: Deep) -> Film:
    """The film of a DICOM file.

    Args:
        encoded: its bytes.
        name: for messages.
        deep: "minmax": VOI LUT or first window, then its own range; "percentile": no VOI LUT and no window.

    Returns:
        `preprocessing` is "u8" for colour and for 8-bit grey without any LUT, else "dicom" or "percentile".

    Raises:
        UnreadableImage: not-an-image, no-pixels, empty, too-large, multi-frame, no-decoder, damaged,
            deep-colour, unsupported-pixels, or bad-window.
        ImportError: pydicom is not installed.
    """
    with defects_named(name):
        header = _header(encoded, name)
        stored = _stored(header.dataset, name)
        if stored.ndim == 3:
            return Film(grey_if_equal(stored), "u8", ())
        return _grey(stored, header, name, deep)


def _grey(stored: np.ndarray, header: Header, name: str, deep: Deep) -> Film:
    inverse, hidden = _is_inverse(header.dataset), _padding(stored, header.dataset)
    if header.as_stored:
        pixels, constant = 255 - stored if inverse else stored.copy(), False
    else:
        visible = stored if hidden is None else stored[~hidden]
        table, least, constant = _table(visible, header, name, deep, inverse)
        pixels = np.take(table, _places(stored, least), mode="clip")
    if hidden is not None:
        pixels[hidden] = 0
    said = {
        "dicom-windowed": header.windowed and deep == "minmax",
        "monochrome1-inverted": inverse,
        "padding-as-black": hidden is not None,
        "constant": constant,
    }
    return Film(pixels, _way(header, deep), tuple(note for note, so in said.items() if so))


def _way(header: Header, deep: Deep) -> str:
    if header.as_stored or not header.grey:
        return "u8"
    return "dicom" if deep == "minmax" else "percentile"


def _header(encoded: bytes, name: str) -> Header:
    from synthchex.extras import require

    pydicom = require("pydicom", extra="dicom")
    try:
        dataset = pydicom.dcmread(io.BytesIO(encoded))
    except Exception as error:  # pydicom raises anything on bytes that were made to break it
        raise UnreadableImage(
            "not-an-image", f"expected a DICOM file, got {name}, which pydicom cannot read: {error}"
        ) from error
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableImage(
            "no-pixels", f"expected a DICOM film, got {name} without pixel data ({_kind(dataset)}); leave it out"
        )
    windowed = bool(dataset.get("VOILUTSequence")) or None not in (
        dataset.get("WindowCenter"),
        dataset.get("WindowWidth"),
    )
    rescaled = (dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)) != (1, 0)
    plain = not (windowed or rescaled or dataset.get("ModalityLUTSequence"))
    bits = (dataset.get("BitsAllocated"), dataset.get("BitsStored"), dataset.get("PixelRepresentation"))
    grey = dataset.get("SamplesPerPixel", 1) == 1
    return Header(dataset, grey, windowed, plain and grey and bits == (8, 8, 0))


def _kind(dataset: Dataset) -> str:
    return str(getattr(dataset.get("SOPClassUID"), "name", "no SOP class"))


def _stored(dataset: Dataset, name: str) -> np.ndarray:
    """Stored values (H, W), or 8-bit RGB (H, W, 3)."""
    from pydicom.pixels.decoders.base import get_decoder

    frames, syntax = int(dataset.get("NumberOfFrames") or 1), dataset.file_meta.TransferSyntaxUID
    check_size(int(dataset.Columns), int(dataset.Rows), name)
    if frames != 1:
        raise UnreadableImage("multi-frame", f"expected one frame, got {frames} in {name}; export one of them")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableImage(
            "no-decoder", f"expected pixels that pydicom can decode, got {syntax.name} in {name}; export it as a film"
        ) from error
    if not decoder.is_available:
        raise UnreadableImage("no-decoder", f"expected a decoder for {syntax.name}, got none for {name}: {PLUGINS}")
    try:
        stored, said = decoder.as_array(dataset, raw=False)
    except RuntimeError as error:
        if "does not support" not in str(error):  # as Pillow says of JPEG that is deeper than 8 bits
            raise
        raise UnreadableImage(
            "no-decoder", f"expected a decoder for this kind of {syntax.name}, got none for {name}: {PLUGINS}"
        ) from error
    _check_kind(stored, str(said["photometric_interpretation"]), name)
    return stored


def _check_kind(stored: np.ndarray, colours: str, name: str) -> None:
    """Refuse pixels that would need a rule that is not here."""
    if colours not in (*GREY, "RGB"):
        raise UnreadableImage(
            "unsupported-pixels", f"expected {', '.join(GREY)} or RGB, got {colours} in {name}; export it as RGB"
        )
    if stored.ndim == 3 and stored.dtype != np.uint8:
        raise UnreadableImage(
            "deep-colour", f"expected 8 bits a colour, got {stored.dtype} in {name}; export it as grey or as 8 bits"
        )
    if stored.dtype.itemsize > 2 or stored.dtype.kind not in "iu":
        raise UnreadableImage(
            "unsupported-pixels", f"expected stored values of at most 16 bits, got {stored.dtype} in {name}"
        )


def _is_inverse(dataset: Dataset) -> bool:
    """Whether the least value is white.

    INVERSE is what the standard asks MONOCHROME1 to carry (PS3.3 C.8.11.3): they say the same, not the opposite.
    """
    return bool(
        dataset.get("PhotometricInterpretation") == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    )


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Bool (H, W), background that was added around the film; None where no pixel is. Compared as stored."""
    value, end = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None or stored.dtype.kind == "f":
        return None
    # A header may write -2000 as 63536: the bits are the same.
    first, last = (int(np.array(each).astype(stored.dtype)) for each in (value, value if end is None else end))
    hidden = (stored >= min(first, last)) & (stored <= max(first, last))
    return hidden if hidden.any() else None


def _table(visible: np.ndarray, header: Header, name: str, deep: Deep, inverse: bool) -> tuple[np.ndarray, int, bool]:
    """uint8 for each stored value from the least that is seen to the greatest, the least, and whether all are one."""
    least, most = (int(visible.min()), int(visible.max())) if visible.size else (0, 0)
    values = _transformed(np.arange(least, most + 1, dtype=np.int64), header.dataset, name, deep)
    if deep == "minmax":  # only of values that are seen: a LUT may jump
        places: np.ndarray = np.zeros(len(values), bool)
        places[_places(visible, least)] = True
    else:
        places = _places(visible, least)
    low, high = limits(values[places], deep)
    return eight_bits(values, low, high, inverse=inverse), least, high <= low


def _places(stored: np.ndarray, least: int) -> np.ndarray:
    """Row of the table for each stored value."""
    return np.subtract(stored, least, dtype=np.int64)


def _transformed(levels: np.ndarray, dataset: Dataset, name: str, deep: Deep) -> np.ndarray:
    """Stored values after the modality LUT and, unless percentiles are asked for, the VOI LUT or first window."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    try:
        values = apply_modality_lut(levels, dataset)
        if deep == "minmax":
            values = apply_voi_lut(_inside(values, dataset), dataset)
    except Exception as error:  # pydicom raises anything on a header that makes no sense
        raise UnreadableImage(
            "bad-window",
            f"expected a LUT or window that pydicom can apply, got {name}: {error}; mend it, or read it with "
            "deep='percentile', which needs no window",
        ) from error
    return np.asarray(values, np.float64)


def _inside(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Values as pydicom's VOI LUT needs them: whole, and none outside of the LUT, where it would wrap around."""
    if not dataset.get("VOILUTSequence"):
        return values
    descriptor = dataset.VOILUTSequence[0].LUTDescriptor
    descriptor[2] = max(16, descriptor[2])  # of 8 bits it counts the entries in 8 bits too
    first, entries = descriptor[1], descriptor[0] or 1 << 16
    return np.clip(np.rint(values).astype(np.int64), first, first + entries - 1)
