"""The one audited way from a file, bytes or array to pixels. Knows nothing of encoders, datasets or labels.

Every film leaves as uint8, (H, W) grey or (H, W, 3) colour, with the name of the preprocessing that made it. Nothing is
clipped silently: 16-bit and float films are scaled by their own range, and what happened is in `Film.notes`.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})
MAX_PIXELS = 200_000_000
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


class UnreadableImage(ValueError):
    """A film that cannot be read; `reason` is a slug to count by: missing, empty, not-an-image, truncated,
    too-large.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Film(NamedTuple):
    """A read image. `pixels` is uint8, (H, W) or (H, W, 3); `notes` are slugs of what was done to it."""

    pixels: np.ndarray
    preprocessing: str
    notes: tuple[str, ...]


def read(source: Any) -> Film:
    """Read one film.

    Args:
        source: a path, encoded bytes, a `datasets` image dict ({"bytes", "path"}), a PIL image (its pixels are taken,
            never its file), or an array: uint8 as it is, uint16 and other integers scaled from their own range, (H, W)
            or (H, W, 3).

    Returns:
        The film; `preprocessing` is "u8" for 8-bit input, "minmax16" for deeper integers and floats in a file, "dicom"
        for DICOM.

    Raises:
        UnreadableImage: missing, empty, not an image, truncated, or more than `MAX_PIXELS` pixels.
        ValueError: a float array, whose scale is unknown, or an array of another rank.
    """
    if isinstance(source, dict):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, np.ndarray):
        return from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, "image in memory")
    encoded = read_bytes(source)
    name = str(source) if isinstance(source, (str, Path)) else f"{len(source)} bytes"
    if encoded[128:132] == b"DICM" or name.lower().endswith((".dcm", ".dicom")):
        return _from_dicom(encoded, name)
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            return _from_pil(opened, name)
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too-large", f"expected at most {MAX_PIXELS} pixels, got {name}: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("not-an-image", f"expected an image file, got {name}, which no decoder knows") from error


def read_bytes(source: Any) -> bytes:
    """Encoded bytes of a path or bytes-like source, refused when missing (also None, an empty cell) or empty."""
    if source is None:
        raise UnreadableImage("missing", "expected an image, got an empty cell; leave the row out")
    if isinstance(source, (bytes, bytearray, memoryview)):
        encoded = bytes(source)
    else:
        try:
            encoded = Path(source).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise UnreadableImage("missing", f"expected an image file, got {source}, which is not there") from error
    if not encoded:
        raise UnreadableImage(
            "empty", f"expected an image, got 0 bytes from {source if not isinstance(source, bytes) else 'memory'}"
        )
    return encoded


def from_array(pixels: np.ndarray) -> Film:
    """A film from an integer array; see `read`."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"image array must be (H, W) or (H, W, 3), got {pixels.shape}; move channels last")
    if pixels.dtype == np.uint8:
        return Film(pixels, "u8", ())
    if pixels.dtype.kind not in "iu":
        raise ValueError(
            f"image array must be uint8, got {pixels.dtype}, whose "
            "range is unknown; scale it to 0..255 and cast to uint8"
        )
    return _scaled(pixels)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 from a film's pixels, by ITU-R 601 luma."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 from a film's pixels."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def to_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG bytes; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def encoded(source: Any) -> bytes:
    """Encoded bytes of a film: those of its file as they are, or PNG for an image in memory."""
    if isinstance(source, dict):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    return to_png(read(source).pixels) if isinstance(source, (np.ndarray, Image.Image)) else read_bytes(source)


def content_hash(source: Any) -> str:
    """Hash of what would be read, 32 hex digits: encoded bytes of a file, or mode, shape and pixels of an image in
    memory.
    """
    if isinstance(source, dict):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, Image.Image):
        source = np.asarray(source)
    if isinstance(source, np.ndarray):
        head, body = f"{source.dtype}{source.shape}".encode(), np.ascontiguousarray(source).tobytes()
    else:
        head, body = b"", read_bytes(source)
    return hashlib.sha256(head + body).hexdigest()[:32]


def _from_pil(image: Image.Image, name: str) -> Film:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            "too-large", f"expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height} in {name}"
        )
    try:
        # Asked before loading: Pillow turns TIFF while it loads and then forgets that it did.
        turned = image.getexif().get(0x0112, 1) != 1
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(
            "truncated", f"expected a whole image, got {name}, whose pixels end early: {error}"
        ) from error
    notes: tuple[str, ...] = ("exif-rotated",) if turned else ()
    if turned:
        image = ImageOps.exif_transpose(image)
    # Pillow's own convert() would clip deep modes at 255: 94 % of a 12-bit ramp becomes white.
    if image.mode in DEEP_MODES:
        film = _scaled(np.asarray(image))
        return film._replace(notes=notes + film.notes)
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        backdrop = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image, notes = Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB"), (*notes, "alpha-on-black")
    if image.mode != "L":
        image = image.convert("L" if image.mode == "1" else "RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    return Film(pixels, "u8", notes)


def _scaled(values: np.ndarray) -> Film:
    """uint8 film from deep values by their own minimum and maximum; a constant film becomes black and says so."""
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    notes = ("16-bit-scaled",) if finite.all() else ("16-bit-scaled", "non-finite-as-black")
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    if high <= low:
        return Film(np.zeros(values.shape, np.uint8), "minmax16", (*notes, "constant"))
    unit = np.where(finite, (values - low) / (high - low), 0.0)
    return Film(np.rint(unit * 255).astype(np.uint8), "minmax16", notes)


def _from_dicom(encoded: bytes, name: str) -> Film:
    """DICOM by pydicom: modality LUT, VOI LUT or window, MONOCHROME1 inversion, then the film's own range to 0..255."""
    from synthchex.extras import require

    pydicom = require("pydicom", extra="dicom")
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    try:
        header = pydicom.dcmread(io.BytesIO(encoded))
        values = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header)
    except Exception as error:
        raise UnreadableImage(
            "not-an-image", f"expected a DICOM film, got {name}, which pydicom cannot decode: {error}"
        ) from error
    if values.ndim != 2:
        raise UnreadableImage(
            "multi-frame", f"expected one grey frame, got {name} with shape {values.shape}; export one frame"
        )
    film = _scaled(values)
    notes: tuple[str, ...] = ("dicom-windowed",)
    inverse = header.get("PresentationLUTShape") == "INVERSE"
    if (header.get("PhotometricInterpretation") == "MONOCHROME1") != inverse:
        film, notes = film._replace(pixels=255 - film.pixels), (*notes, "monochrome1-inverted")
    return Film(film.pixels, "dicom", notes + tuple(note for note in film.notes if note != "16-bit-scaled"))
