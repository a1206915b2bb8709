"""The one audited way from a file, bytes or array to pixels. Knows nothing of encoders, datasets or labels.

Every film leaves as uint8, (H, W) grey or (H, W, 3) colour, with the name of the preprocessing that made it. Nothing is
clipped silently: 16-bit and float films are scaled by their own range, and what happened is in `Film.notes`. What each
format becomes is in docs/formats.md; how files are decoded in `decode`, `dicom` and `nifti`.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthchex.data import decode, dicom, nifti
from synthchex.data.film import MAX_PIXELS as MAX_PIXELS
from synthchex.data.film import Deep, check_policy, check_size, grey_if_equal, scaled
from synthchex.data.film import Film as Film
from synthchex.data.film import UnreadableImage as UnreadableImage

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".nii"})


def read(source: Any, *, deep: Deep = "minmax") -> Film:
    """Read one film.

    Args:
        source: a path, encoded bytes, a `datasets` image dict ({"bytes", "path"}), a PIL image (its pixels are taken,
            never its file), or an array: uint8 as it is, uint16 and other integers scaled, (H, W) or (H, W, 3).
        deep: how films of more than 8 bits become 8: "minmax", from their least value to their greatest, DICOM after
            its VOI LUT or window; "percentile", from the 0.5th to the 99.5th, DICOM without VOI LUT and window.

    Returns:
        The film; `preprocessing` is "u8" for 8 bits as they are; of deeper ones "minmax16", of DICOM "dicom", or
        "percentile" for both.

    Raises:
        UnreadableImage: with a reason of docs/formats.md.
        ValueError: a float array, whose scale is unknown, or an array of another rank.
        ImportError: DICOM without pydicom, NIfTI without nibabel.
    """
    check_policy(deep)
    source = _content(source)
    if isinstance(source, np.ndarray):
        return from_array(source, deep=deep)
    if isinstance(source, Image.Image):
        return decode.film(source, "image in memory", deep)
    encoded, name = read_bytes(source), _name(source)
    if dicom.is_dicom(encoded, name):
        return dicom.film(encoded, name, deep)
    if nifti.is_nifti(encoded, name):
        return nifti.film(encoded, name, deep)
    with decode.open_file(encoded, name) as opened:
        return decode.film(opened, name, deep)


def preprocessing_of(source: Any, *, deep: Deep = "minmax") -> str:
    """What `read` says in `Film.preprocessing`, without decoding a file's pixels.

    Raises:
        UnreadableImage: as `read`, as far as the header tells.
    """
    source = _content(source)
    if isinstance(source, np.ndarray | Image.Image):
        return read(source, deep=deep).preprocessing
    encoded, name = read_bytes(source), _name(source)
    if dicom.is_dicom(encoded, name):
        return dicom.preprocessing(encoded, name, deep)
    if nifti.is_nifti(encoded, name):
        return nifti.film(encoded, name, deep).preprocessing
    with decode.open_file(encoded, name) as opened:
        return "u8" if opened.mode not in decode.DEEP_MODES else "minmax16" if deep == "minmax" else "percentile"


def _content(source: Any) -> Any:
    """What is in a `datasets` image dict, or the source itself."""
    if isinstance(source, dict):
        return source["bytes"] if source.get("bytes") is not None else source.get("path")
    return source


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else f"{len(source)} bytes"


def read_bytes(source: Any) -> bytes:
    """Encoded bytes of a path or bytes-like source.

    Raises:
        UnreadableImage: missing (also None, an empty cell), not-a-file, permission-denied, or empty.
    """
    if source is None:
        raise UnreadableImage("missing", "expected an image, got an empty cell; leave the row out")
    if isinstance(source, (bytes, bytearray, memoryview)):
        encoded = bytes(source)
    else:
        encoded = _file_bytes(source)
    if not encoded:
        name = "memory" if isinstance(source, (bytes, bytearray, memoryview)) else source
        raise UnreadableImage("empty", f"expected an image, got 0 bytes from {name}")
    return encoded


def _file_bytes(path: Any) -> bytes:
    try:
        return Path(path).read_bytes()
    except IsADirectoryError as error:
        raise UnreadableImage("not-a-file", f"expected an image file, got {path}, which is a folder") from error
    except PermissionError as error:
        raise UnreadableImage(
            "permission-denied", f"expected an image file, got {path}, which this user may not read; see its rights"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnreadableImage("missing", f"expected an image file, got {path}, which is not there") from error


def from_array(pixels: np.ndarray, *, deep: Deep = "minmax") -> Film:
    """A film from an integer array; see `read`."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"image array must be (H, W) or (H, W, 3), got {pixels.shape}; move channels last")
    check_size(pixels.shape[1], pixels.shape[0], "an array")
    if pixels.dtype == np.uint8:
        return Film(grey_if_equal(pixels), "u8", ())
    if pixels.dtype.kind not in "iu":
        raise ValueError(
            f"image array must be uint8, got {pixels.dtype}, whose "
            "range is unknown; scale it to 0..255 and cast to uint8"
        )
    return scaled(pixels, deep)


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


def to_webp(pixels: np.ndarray) -> bytes:
    """Lossless WebP bytes, smaller than PNG and slower to make; grey films are read back grey."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, format="WEBP", lossless=True, quality=75, method=4, exact=True)
    return buffer.getvalue()


def encoded(source: Any) -> bytes:
    """Encoded bytes of a film: those of its file as they are, or PNG for an image in memory."""
    source = _content(source)
    return to_png(read(source).pixels) if isinstance(source, (np.ndarray, Image.Image)) else read_bytes(source)


def content_hash(source: Any) -> str:
    """Hash of what would be read, 32 hex digits: encoded bytes of a file, or mode, shape and pixels of an image in
    memory, upright and with its palette and transparency applied.
    """
    source, marks = _content(source), ""
    if isinstance(source, Image.Image):
        source, marks = decode.seen(source)
    if isinstance(source, np.ndarray):
        head, body = f"{source.dtype}{source.shape}{marks}".encode(), np.ascontiguousarray(source).tobytes()
    else:
        head, body = b"", read_bytes(source)
    return hashlib.sha256(head + body).hexdigest()[:32]
