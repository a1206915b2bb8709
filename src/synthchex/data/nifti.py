"""NIfTI films by nibabel: 2-D images and volumes of one slice, shown as a radiograph is: head up, right side left."""

from __future__ import annotations

import zlib

import numpy as np

from synthchex.data.film import MAX_PIXELS, Deep, Film, UnreadableImage, check_size, defects_named, scaled

GZIP, HEADERS = b"\x1f\x8b", {348: 344, 540: 4}  # where the magic stands, by the header's size
MOST_BYTES = 4 * MAX_PIXELS  # of an unpacked file


def is_nifti(encoded: bytes, name: str) -> bool:
    """Whether a file is NIfTI by its magic, or packed by gzip, as no other film is."""
    sizes = (int.from_bytes(encoded[:4], "little"), int.from_bytes(encoded[:4], "big"))
    places = [HEADERS[size] for size in sizes if size in HEADERS]
    found = any(encoded[place : place + 3] in (b"n+1", b"n+2") for place in places)
    return found or encoded.startswith(GZIP) or name.lower().endswith((".nii", ".nii.gz"))


def film(encoded: bytes, name: str, deep: Deep) -> Film:
    """The film of a NIfTI file; values of 8 bits as they are, others scaled as those of any file.

    Raises:
        UnreadableImage: damaged, truncated, empty, too-large, multi-frame (a volume), or unsupported-pixels.
        ImportError: nibabel is not installed.
    """
    with defects_named(name):
        values = _upright(_unpacked(encoded, name), name)
        return Film(values.copy(), "u8", ()) if values.dtype == np.uint8 else scaled(values, deep)


def _unpacked(encoded: bytes, name: str) -> bytes:
    if not encoded.startswith(GZIP):
        return encoded
    unpack = zlib.decompressobj(wbits=31)
    content = unpack.decompress(encoded, MOST_BYTES)
    if unpack.unconsumed_tail:
        raise UnreadableImage("too-large", f"expected at most {MOST_BYTES} bytes, got {name}, which unpacks to more")
    if not unpack.eof:
        raise EOFError("the gzip stream ends early")
    return content


def _upright(content: bytes, name: str) -> np.ndarray:
    """Values (H, W), turned as the header says: columns from the patient's right to left, rows from head to foot, or
    from front to back where these lie in the slice.
    """
    from synthchex.extras import require

    nibabel = require("nibabel", extra="nifti")
    kind = nibabel.Nifti2Image if content[4:7] == b"n+2" else nibabel.Nifti1Image
    image = kind.from_bytes(content)
    long = [length for length in image.shape if length != 1]
    if len(long) > 2:
        raise UnreadableImage("multi-frame", f"expected one slice, got {image.shape} in {name}; export one of them")
    width, height = (*long, 1, 1)[:2]
    check_size(width, height, name)
    if image.get_data_dtype().kind not in "iuf":
        raise UnreadableImage(
            "unsupported-pixels", f"expected whole numbers or floats, got {image.get_data_dtype()} in {name}"
        )
    values = np.asanyarray(image.dataobj)
    values = values.reshape((*values.shape, 1, 1)[:3])
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, image.affine, dtype=values.dtype))
    canonical = np.asanyarray(turned.dataobj)
    thin = int(np.argmin(canonical.shape))
    return np.ascontiguousarray(canonical.take(0, axis=thin)[::-1, ::-1].T)
