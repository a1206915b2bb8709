"""Image files by Pillow, without what Pillow loses: 16 bits, the direction of grey, colour deeper than 8 bits.

PNG, JPEG, WebP, TIFF and BMP. Pillow's other decoders are left out: one of them starts a program to read PostScript.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from synthchex.data.film import Deep, Film, UnreadableImage, check_size, defects_named, scaled

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "RGBa", "CMYK", "LA"})
ALPHA_MODES = frozenset({"LA", "La", "RGBA", "RGBa", "PA"})
ORIENTATION, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 0x0112, 258, 262, 339


def open_file(encoded: bytes, name: str) -> Image.Image:
    """The image of a file, its header read and its pixels not yet.

    Raises:
        UnreadableImage: not-an-image, damaged, empty, too-large, multi-frame, or deep-colour.
    """
    with defects_named(name):
        image = _opened(encoded, name)
        frames = getattr(image, "n_frames", 1)
    check_size(image.width, image.height, name)
    # A second picture in a JPEG is a preview by the rules of that format; elsewhere nobody knows which is the film.
    if frames > 1 and image.format != "MPO":
        raise UnreadableImage("multi-frame", f"expected one picture, got {frames} in {name}; export one of them")
    return image


def _opened(encoded: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too-large", f"expected a film, got {name}: {error}") from error
    except UnidentifiedImageError as error:
        if encoded.startswith(MAGIC):
            raise UnreadableImage(
                "damaged", f"expected an image that Pillow can decode, got {name}, whose header it refuses"
            ) from error
        raise UnreadableImage(
            "not-an-image", f"expected an image file ({', '.join(FORMATS)} or DICOM), got {name}, which is none of them"
        ) from error


def film(image: Image.Image, name: str, deep: Deep) -> Film:
    """The film of a Pillow image, from a file or in memory, as it stands: upright, on black, 8 bits.

    Raises:
        UnreadableImage: empty, too-large, truncated, damaged, or deep-colour.
    """
    check_size(image.width, image.height, name)
    if is_deep_colour(image):
        raise UnreadableImage(
            "deep-colour",
            f"expected 8 bits a colour, got {name} with more, of which Pillow keeps the upper 8; "
            "save it as 16-bit grey or as 8-bit colour",
        )
    with defects_named(name):
        image, notes = upright(image)
        found = _deep(image, deep) if image.mode in DEEP_MODES else _eight(image)
    return found._replace(notes=notes + found.notes)


def upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The image, loaded and turned as its EXIF says, and the notes on it."""
    # Asked before loading: Pillow turns TIFF while it loads and then forgets that it did.
    turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
    image.load()
    notes = ("first-picture",) if image.format == "MPO" and getattr(image, "n_frames", 1) > 1 else ()
    return (ImageOps.exif_transpose(image), (*notes, "exif-rotated")) if turned else (image, notes)


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has colour, or grey with alpha, of more than 8 bits."""
    if image.mode not in COLOUR_MODES:
        return False
    if image.format == "PNG":
        return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.format == "TIFF" and max(_tag(image, BITS, (8,))) > 8


def seen(image: Image.Image) -> tuple[np.ndarray, str]:
    """Pixels that tell one image in memory from another, and what else does where they do not: "" as a rule.

    Grey, RGB, RGBA and deep images are taken as they stand; others, whose numbers mean nothing without a palette, a
    transparent value or their mode, as RGBA.
    """
    image, _ = upright(image)
    transparent = image.info.get("transparency")
    if image.mode in DEEP_MODES:
        white = "white is zero" * (_tag(image, PHOTOMETRIC, (1,)) == (0,))
        return np.asarray(image), white + ("" if transparent is None else f"transparent {transparent}")
    plain = image.mode in ("1", "L", "LA", "RGB", "RGBA") and transparent is None
    return np.asarray(image if plain else image.convert("RGBA")), ""


def _tag(image: Image.Image, number: int, default: tuple[int, ...]) -> tuple[int, ...]:
    """A TIFF tag of whole numbers; the default where there is none, or no TIFF."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return value if isinstance(value, tuple) else (value,)


def _deep(image: Image.Image, deep: Deep) -> Film:
    # Pillow's own convert() would clip deep modes at 255: 94 % of a 12-bit ramp becomes white.
    values = np.asarray(image)
    if image.mode == "I" and _tag(image, BITS, (0,)) == (32,) and _tag(image, SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)  # which Pillow takes for signed
    transparent = image.info.get("transparency")
    hidden = values == transparent if isinstance(transparent, int) else None
    # Pillow turns 8-bit WhiteIsZero to black is zero, deeper ones it leaves as they are.
    inverse = _tag(image, PHOTOMETRIC, (1,)) == (0,)
    found = scaled(values, deep, inverse=inverse, hidden=hidden)
    said = ["white-is-zero-inverted"] * inverse + ["alpha-on-black"] * (hidden is not None)
    return found._replace(notes=(*said, *found.notes))


def _eight(image: Image.Image) -> Film:
    notes: tuple[str, ...] = ()
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            backdrop = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image, notes = Image.alpha_composite(backdrop, image), ("alpha-on-black",)
    elif image.mode == "CMYK":
        notes = ("cmyk-as-rgb",)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return Film(np.asarray(image) if image.mode == "L" else _grey_if_equal(image), "u8", notes)


def _grey_if_equal(image: Image.Image) -> np.ndarray:
    """As `film.grey_if_equal`, of an RGB image; its planes are compared as bytes, which is the fastest."""
    few = np.asarray(image.resize((8, 8), Image.Resampling.NEAREST))
    if (few == few[..., :1]).all():
        red, green, blue = (plane.tobytes() for plane in image.split())
        if red == green == blue:
            return np.frombuffer(red, np.uint8).reshape(image.height, image.width)
    return np.asarray(image)
