"""What an image file says beside its pixels, and the same file without it. PNG and JPEG keep their bytes of pixels.

Other formats, films turned by EXIF, and files with anything unusual are written anew as PNG from their pixels.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from synthchex.data import images
from synthchex.extras import require

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# What decides pixels. Colour profiles and gamma do not: no reader of films here applies them.
NEEDED_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
SCAN, END, COMMENT = 0xDA, 0xD9, 0xFE
APPLICATION = range(0xE0, 0xF0)
ADOBE, ADOBE_SIZE = 0xEE, 16  # says how colours are coded; one of this size holds nothing else
# Frames, tables and restart intervals: what decides pixels.
NEEDED_SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD})
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded pixels: anything but an escape, a restart or a filler
ORIENTATION = 0x0112


class Clean(NamedTuple):
    """A file without metadata: its bytes, its suffix with the dot, and the texts that it lost."""

    content: bytes
    suffix: str
    said: tuple[str, ...]


def cleaned(content: bytes) -> Clean:
    """A film's file with nothing but its pixels, and the texts that were taken away.

    Raises:
        UnreadableImage: it is no whole image.
    """
    try:
        said, turned = _said(content)
    except Exception:  # decoders raise anything on bytes that were made to break them
        images.read(content)  # says what is wrong with it
        raise
    if content.startswith(PNG) and not turned and (png := _png(content)) is not None:
        return Clean(png, ".png", said)
    if content.startswith(JPEG) and not turned and (jpeg := _jpeg(content)) is not None:
        return Clean(jpeg, ".jpg", said)
    return Clean(images.to_png(images.read(content).pixels), ".png", said)


def texts(content: bytes) -> Iterator[str]:
    """Everything that a file says beside its pixels, as text: EXIF, PNG text, comments, DICOM elements."""
    yield from _said(content)[0]


def _said(content: bytes) -> tuple[tuple[str, ...], bool]:
    """What a file says beside its pixels, and whether EXIF turns it; its pixels are decoded on the way."""
    if content[128:132] == b"DICM":
        return tuple(_dicom_texts(content)), False
    with Image.open(io.BytesIO(content)) as opened:
        opened.load()
        values = [*opened.info.values(), *getattr(opened, "text", {}).values()]
        exif = opened.getexif()
        values += [*exif.values(), *exif.get_ifd(0x8769).values(), *exif.get_ifd(0x8825).values()]
        turned = bool(exif.get(ORIENTATION, 1) != 1)
    said = [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]
    return (*(value for value in said if isinstance(value, str) and value), *_after_the_end(content)), turned


def _dicom_texts(content: bytes) -> Iterator[str]:
    pydicom = require("pydicom", extra="dicom")
    for element in pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).iterall():
        if element.VR not in ("SQ", "OB", "OW", "UN", "US", "SS", "DS", "IS", "FL", "FD", "UL", "SL"):
            yield str(element.value)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and whole bytes of each PNG chunk up to the end; what follows it is not looked at."""
    place = len(PNG)
    while place + 12 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        yield kind, content[place : place + 12 + size]
        place += 12 + size
        if kind == b"IEND":
            return


def _png(content: bytes) -> bytes | None:
    """PNG without ancillary chunks; None where it is cut short."""
    chunks = list(_chunks(content))
    if not chunks or chunks[-1][0] != b"IEND":
        return None
    return PNG + b"".join(chunk for kind, chunk in chunks if kind in NEEDED_CHUNKS)


def _jpeg(content: bytes) -> bytes | None:
    """JPEG up to its first end, without application segments and comments; None where it is not built as usual."""
    out, place = [JPEG], len(JPEG)
    while content[place : place + 1] == b"\xff" and place + 4 <= len(content):
        marker, size = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place : place + 2 + size]
        place += len(segment)
        if marker == SCAN:
            after = MARKER.search(content, place)
            if after is None:
                return None
            segment, place = segment + content[place : after.start()], after.start()
        if marker in NEEDED_SEGMENTS or (marker == ADOBE and len(segment) == ADOBE_SIZE):
            out.append(segment)
        elif marker == ADOBE or marker not in (*APPLICATION, COMMENT):
            return None
        if content[place : place + 2] == bytes([0xFF, END]):
            return b"".join([*out, bytes([0xFF, END])])
    return None


def _after_the_end(content: bytes) -> Iterator[str]:
    """What stands behind the last chunk of a PNG."""
    if content.startswith(PNG):
        length = len(PNG) + sum(len(chunk) for _, chunk in _chunks(content))
        if content[length:]:
            yield content[length:].decode("latin-1")
