"""Every row of docs/formats.md about image files: what it becomes, or the reason why it does not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthchex.data import images

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
GREY = (np.arange(4096) // 16).astype(np.uint8).reshape(64, 64)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)
DOCS = Path(__file__).parents[1] / "docs" / "formats.md"


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file of that kind."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: np.ndarray, bits: int, colour: int, *, extra: bytes = b"") -> bytes:
    """A PNG by hand, of kinds that Pillow does not write."""
    raw = pixels.astype(">u2" if bits == 16 else np.uint8)
    packed = [np.packbits(row) if bits == 1 else row for row in raw]
    body = b"".join(b"\0" + row.tobytes() for row in packed)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(pixels: np.ndarray, *, order: str = "<", **tags: int | tuple[int, ...]) -> bytes:
    """A TIFF of one strip by hand: photometric, format and samples as given."""
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    fields = {256: pixels.shape[1], 257: pixels.shape[0], 259: 1, 262: tags.get("photometric", 1), 277: samples}
    fields |= {278: pixels.shape[0], 279: len(raw), 339: tags.get("format", 1)}
    count = len(fields) + 2
    bits_at = 8 + 2 + 12 * count + 4
    fields |= {258: pixels.dtype.itemsize * 8, 273: bits_at + 2 * samples}
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count)
    for tag, value in sorted(fields.items()):
        if tag == 258 and samples > 2:
            out += struct.pack(order + "HHII", tag, 3, samples, bits_at)
        elif tag in (339,) and samples > 1:
            out += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
        else:
            out += struct.pack(order + "HHII", tag, 4, 1, value)
    bits = struct.pack(order + "H", pixels.dtype.itemsize * 8) * samples
    return out + struct.pack(order + "I", 0) + bits + raw


def refused(source: object) -> str:
    """The reason why a film cannot be read."""
    with pytest.raises(images.UnreadableImage) as caught:
        images.read(source)
    return caught.value.reason


LOSSLESS = {
    "png": saved(Image.fromarray(GREY), "PNG"),
    "png interlaced": saved(Image.fromarray(GREY), "PNG", interlace=1),
    "png rgb": saved(Image.fromarray(GREY).convert("RGB"), "PNG"),
    "png rgba, opaque": saved(Image.fromarray(GREY).convert("RGBA"), "PNG"),
    "png grey with alpha, opaque": saved(Image.fromarray(GREY).convert("LA"), "PNG"),
    "png palette": saved(Image.fromarray(GREY).convert("P"), "PNG"),
    "webp": saved(Image.fromarray(GREY).convert("RGB"), "WEBP", lossless=True),
    "tiff": saved(Image.fromarray(GREY), "TIFF"),
    "tiff lzw": saved(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"),
    "tiff rgb": saved(Image.fromarray(GREY).convert("RGB"), "TIFF"),
    "tiff white is zero": tiff(255 - GREY, photometric=0),
    "bmp": saved(Image.fromarray(GREY), "BMP"),
    "bmp rgb": saved(Image.fromarray(GREY).convert("RGB"), "BMP"),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_grey_of_8_bits_is_the_same_in_every_lossless_format(kind: str) -> None:
    film = images.read(LOSSLESS[kind])
    np.testing.assert_array_equal(film.pixels, GREY)
    assert (film.preprocessing, film.notes) == ("u8", ())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_colour_stays_colour(kind: str) -> None:
    np.testing.assert_array_equal(images.read(saved(Image.fromarray(COLOUR), kind)).pixels, COLOUR)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_decodes(mode: str) -> None:
    encoded = saved(Image.fromarray(GREY).convert(mode), "JPEG", quality=95)
    film = images.read(encoded)
    np.testing.assert_array_equal(film.pixels, np.asarray(Image.open(io.BytesIO(encoded)).convert("L")))
    assert film.pixels.ndim == 2


def test_one_pixel_of_colour_is_enough_for_colour() -> None:
    pixels = np.repeat(GREY[..., None], 3, axis=2)
    pixels[37, 41, 1] ^= 1
    for source in (pixels, saved(Image.fromarray(pixels), "PNG"), Image.fromarray(pixels)):
        np.testing.assert_array_equal(images.read(source).pixels, pixels)


def test_1_bit_is_black_and_white() -> None:
    checks = np.indices((16, 16)).sum(0) % 2
    for encoded in (png(checks, 1, 0), saved(Image.fromarray(checks.astype(bool)), "TIFF")):
        np.testing.assert_array_equal(images.read(encoded).pixels, checks * 255)


def test_2_and_4_bits_are_spread_and_palettes_applied() -> None:
    few = np.resize(np.arange(4), (8, 8))
    bits = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes([0b00011011] * 2) for _ in range(8))))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 2, 0, 0, 0, 0))
    encoded = b"\x89PNG\r\n\x1a\n" + head + bits + chunk(b"IEND", b"")
    np.testing.assert_array_equal(images.read(encoded).pixels, few * 85)
    colours = Image.fromarray(few.astype(np.uint8)).convert("P")
    colours.putpalette([9, 0, 0, 0, 9, 0, 0, 0, 9, 7, 7, 7])
    film = images.read(saved(colours, "PNG"))
    assert film.pixels[0, :4].tolist() == [[9, 0, 0], [0, 9, 0], [0, 0, 9], [7, 7, 7]]


DEEP = {
    "png": saved(Image.fromarray(RAMP), "PNG"),
    "png by hand": png(RAMP, 16, 0),
    "tiff": saved(Image.fromarray(RAMP), "TIFF"),
    "tiff big-endian": tiff(RAMP, order=">"),
    "tiff lzw": saved(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
    "tiff signed": tiff(RAMP.astype(np.int16) - 2048, format=2),
    "tiff 32 bits": tiff(RAMP.astype(np.int32) - 7, format=2),
    "tiff 32 bits unsigned": tiff(RAMP.astype(np.uint32) * 1_000_000, format=1),
    "tiff float": saved(Image.fromarray(RAMP.astype(np.float32) / 4095), "TIFF"),
    "tiff white is zero": tiff(4095 - RAMP, photometric=0),
    "tiff float, white is zero": tiff((4095 - RAMP).astype(np.float32), photometric=0, format=3),
}


@pytest.mark.parametrize("kind", DEEP)
def test_a_ramp_is_the_same_film_in_every_deep_format(kind: str) -> None:
    film = images.read(DEEP[kind])
    np.testing.assert_array_equal(film.pixels, images.read(RAMP).pixels)
    assert film.preprocessing == images.preprocessing_of(DEEP[kind]) == "minmax16"
    assert "16-bit-scaled" in film.notes
    assert ("white-is-zero-inverted" in film.notes) == ("white is zero" in kind)


def test_16_bit_modes_in_memory_are_scaled_too() -> None:
    for image in (
        Image.fromarray(RAMP),
        Image.frombytes("I;16B", (64, 64), RAMP.astype(">u2").tobytes()),
        Image.fromarray(RAMP.astype(np.int32)),
        Image.fromarray(RAMP.astype(np.float32)),
    ):
        np.testing.assert_array_equal(images.read(image).pixels, images.read(RAMP).pixels)


def test_values_that_are_not_finite_are_black_and_do_not_scale() -> None:
    values = RAMP.astype(np.float32)
    values[0, :4], values[63, -1] = (np.nan, np.inf, -np.inf, 0), 4095
    film = images.read(saved(Image.fromarray(values), "TIFF"))
    assert film.pixels[0, :4].tolist() == [0, 0, 0, 0]
    assert film.pixels[63, -1] == 255
    np.testing.assert_array_equal(film.pixels[1:], images.read(RAMP).pixels[1:])
    assert "non-finite-as-black" in film.notes


def test_transparent_values_of_16_bits_are_black_and_do_not_scale() -> None:
    bordered = np.where(np.indices((64, 64))[1] < 5, 65535, RAMP)
    film = images.read(png(bordered, 16, 0, extra=chunk(b"tRNS", struct.pack(">H", 65535))))
    assert (film.pixels[:, :5] == 0).all()
    assert film.pixels[-1, -1] == 255
    assert "alpha-on-black" in film.notes


@pytest.mark.parametrize(
    "encoded",
    [
        png(np.stack([RAMP] * 3, -1), 16, 2),
        png(np.stack([RAMP] * 2, -1), 16, 4),
        png(np.stack([RAMP] * 4, -1), 16, 6),
        tiff(np.stack([RAMP] * 3, -1), photometric=2),
        tiff(np.stack([RAMP] * 3, -1), photometric=2, order=">"),
    ],
    ids=["png rgb", "png grey with alpha", "png rgba", "tiff rgb", "tiff rgb big-endian"],
)
def test_colour_deeper_than_8_bits_is_refused(encoded: bytes) -> None:
    # Pillow keeps the upper 8 bits, of a 12-bit ramp 16 grey levels, and says nothing.
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))) == 16
    assert refused(encoded) == "deep-colour"


def test_deep_pictures_by_percentiles() -> None:
    spiked = RAMP.copy()
    spiked[0, 0], spiked[0, 1] = 65535, 60000
    film = images.read(saved(Image.fromarray(spiked), "PNG"), deep="percentile")
    low, high = np.percentile(spiked, [0.5, 99.5], method="inverted_cdf")
    expected = np.rint(np.clip((spiked.astype(float) - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(film.pixels, expected)
    assert film.preprocessing == "percentile"
    assert images.preprocessing_of(saved(Image.fromarray(spiked), "PNG"), deep="percentile") == "percentile"
    assert images.read(GREY, deep="percentile").preprocessing == "u8"
    with pytest.raises(ValueError, match=r"deep must be one of \['minmax', 'percentile'\], got 'window'"):
        images.read(RAMP, deep="window")  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    film = images.read(saved(Image.fromarray(COLOUR[:, :32]), kind, exif=exif, **lossless))
    turns = {
        2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p.swapaxes(0, 1), 2), 8: np.rot90,
    }  # fmt: skip
    expected = turns[orientation](COLOUR[:, :32]).astype(int)
    assert film.pixels.shape == expected.shape
    assert np.abs(film.pixels - expected).mean() < (12 if kind == "JPEG" else 0.01)
    assert "exif-rotated" in film.notes


def test_an_orientation_that_does_not_turn_is_not_noted() -> None:
    for orientation in (0, 1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert images.read(saved(Image.fromarray(GREY), "PNG", exif=exif)).notes == ()


def test_transparency_is_put_on_black() -> None:
    half = Image.fromarray(GREY).convert("RGBA")
    half.putalpha(Image.fromarray(np.where(np.indices((64, 64))[1] < 32, 0, 255).astype(np.uint8)))
    palette = Image.fromarray(GREY).convert("P")
    for encoded in (
        saved(half, "PNG"),
        saved(half.convert("LA"), "PNG"),
        saved(half, "WEBP", lossless=True),
        saved(half, "TIFF"),
    ):
        film = images.read(encoded)
        assert (film.pixels[:, :32] == 0).all()
        np.testing.assert_array_equal(film.pixels[:, 32:], GREY[:, 32:])
        assert film.notes == ("alpha-on-black",)
    film = images.read(saved(palette, "PNG", transparency=255))
    np.testing.assert_array_equal(film.pixels, np.where(GREY == 255, 0, GREY))
    assert film.notes == ("alpha-on-black",)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_keeps_black_black(kind: str) -> None:
    ink = np.zeros((64, 64, 4), np.uint8)
    ink[..., 3] = 255 - GREY
    # Pillow writes CMYK JPEG as Adobe does, inverted, and turns it back.
    encoded = saved(
        Image.frombytes("CMYK", (64, 64), ink.tobytes()), kind, **({"quality": 100} if kind == "JPEG" else {})
    )
    assert (b"Adobe" in encoded) == (kind == "JPEG")
    film = images.read(encoded)
    assert np.abs(images.to_grey(film.pixels).astype(int) - GREY).max() <= (3 if kind == "JPEG" else 0)
    assert film.notes == ("cmyk-as-rgb",)


def test_several_pictures_in_a_file_are_refused() -> None:
    more = {"save_all": True, "append_images": [Image.fromarray(GREY.T)]}
    for kind in ("TIFF", "WEBP", "PNG"):
        assert refused(saved(Image.fromarray(GREY), kind, **more)) == "multi-frame"


def test_the_first_picture_of_a_jpeg_with_a_preview_is_the_film() -> None:
    encoded = saved(Image.fromarray(GREY), "MPO", save_all=True, append_images=[Image.fromarray(GREY[:8])], quality=95)
    film = images.read(encoded)
    assert film.pixels.shape == (64, 64)
    assert film.notes == ("first-picture",)


def test_of_an_image_in_memory_the_chosen_picture_is_read() -> None:
    pages = Image.open(
        io.BytesIO(saved(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY.T)]))
    )
    pages.seek(1)
    np.testing.assert_array_equal(images.read(pages).pixels, GREY.T)


HUGE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(1000)))
    + chunk(b"IEND", b"")
)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
        (b"%PDF-1.7\n%...", "not-an-image"),
        (b"id,path\n1,film.png\n", "not-an-image"),
        (b"GIF89a" + bytes(30), "not-an-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image"),
        (saved(Image.fromarray(NOISE), "PNG")[:2000], "truncated"),
        (saved(Image.fromarray(NOISE), "JPEG")[:1500], "truncated"),
        (saved(Image.fromarray(NOISE), "BMP")[:2000], "truncated"),
        (saved(Image.fromarray(NOISE), "PNG")[:20], "damaged"),
        (saved(Image.fromarray(NOISE), "WEBP")[:200], "damaged"),
        (saved(Image.fromarray(NOISE), "PNG").replace(b"IDAT", b"IDAX"), "damaged"),
        (png(np.zeros((0, 4)), 8, 0), "damaged"),
        (HUGE, "too-large"),
    ],
)
def test_files_that_are_no_whole_image_have_a_reason(encoded: bytes, reason: str) -> None:
    assert refused(encoded) == reason


def test_a_png_text_that_unpacks_to_far_more_than_the_file_is_refused() -> None:
    bomb = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(3_000_000), 9))
    assert refused(png(GREY, 8, 0, extra=bomb)) == "damaged"


def test_paths_that_are_no_readable_file_have_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(tmp_path) == "not-a-file"
    assert refused(tmp_path / "none.png") == "missing"
    assert refused("film\0.png") == "missing"
    assert refused({"bytes": None, "path": None}) == "missing"
    assert refused(tmp_path / ("x" * 400)) == "missing"

    def locked(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", locked)
    assert refused(tmp_path / "film.png") == "permission-denied"


def test_images_without_pixels_are_refused() -> None:
    assert refused(np.zeros((0, 5), np.uint8)) == "empty"
    assert refused(Image.new("L", (0, 3))) == "empty"


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(LOSSLESS)), place=st.floats(0, 1), change=st.binary(min_size=1, max_size=8))
def test_broken_bytes_give_a_film_or_a_reason(kind: str, place: float, change: bytes) -> None:
    whole = LOSSLESS[kind]
    start = int(place * len(whole))
    try:
        film = images.read(whole[:start] + change + whole[start + len(change) :])
    except images.UnreadableImage as defect:
        reason = defect.reason
    else:
        reason = "none" if film.pixels.dtype == np.uint8 else "not a film"
    assert reason in (
        "none",
        "truncated",
        "damaged",
        "not-an-image",
        "too-large",
        "empty",
        "multi-frame",
        "deep-colour",
    )


def test_every_reason_and_note_is_in_the_table() -> None:
    source = "".join(
        (DOCS.parents[1] / "src" / "synthchex" / "data" / f"{name}.py").read_text()
        for name in ("images", "film", "decode", "dicom", "nifti")
    )
    told = DOCS.read_text()
    reasons = {
        "missing", "not-a-file", "permission-denied", "empty", "not-an-image", "truncated", "damaged", "too-large",
        "multi-frame", "deep-colour", "no-pixels", "no-decoder", "unsupported-pixels", "bad-window",
    }  # fmt: skip
    notes = {
        "16-bit-scaled", "non-finite-as-black", "constant", "exif-rotated", "alpha-on-black", "cmyk-as-rgb",
        "white-is-zero-inverted", "first-picture", "dicom-windowed", "monochrome1-inverted", "padding-as-black",
    }  # fmt: skip
    assert {slug for slug in reasons | notes if f'"{slug}"' not in source} == set()
    assert {slug for slug in reasons | notes if f"`{slug}`" not in told} == set()
