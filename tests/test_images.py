"""The reader: what each format becomes, and what each defect is called."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthchex.data import film, images

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def test_a_12_bit_ramp_keeps_its_ramp() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, format="PNG")
    for source in (buffer.getvalue(), Image.fromarray(RAMP), RAMP):
        film = images.read(source)
        assert film.preprocessing == "minmax16"
        assert len(np.unique(film.pixels)) == 256
        assert (np.diff(film.pixels.ravel().astype(int)) >= 0).all()


def test_8_bit_grey_is_left_alone(films: np.ndarray) -> None:
    for pixels in films:
        read = images.read(images.to_png(pixels))
        assert (read.pixels == pixels).all()
        assert (read.preprocessing, read.notes) == ("u8", ())


def test_grey_stored_as_rgb_becomes_grey_and_colour_stays(films: np.ndarray) -> None:
    assert images.read(Image.fromarray(films[0]).convert("RGB")).pixels.shape == (32, 32)
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 200
    assert images.read(Image.fromarray(colour)).pixels.shape == (4, 4, 3)


def test_pixels_of_an_edited_image_are_read_not_its_file(tmp_path: Path, films: np.ndarray) -> None:
    Image.fromarray(films[0]).save(tmp_path / "film.png")
    edited = Image.open(tmp_path / "film.png")
    edited.paste(7, (0, 0, 32, 32))
    assert (images.read(edited).pixels == 7).all()
    assert images.content_hash(edited) != images.content_hash(Image.open(tmp_path / "film.png"))


def test_images_in_memory_that_look_different_have_different_hashes(films: np.ndarray) -> None:
    grey = Image.fromarray(films[0])
    palettes = [grey.convert("P") for _ in range(3)]
    palettes[1].putpalette([255 - value // 3 for value in range(768)])
    palettes[2].info["transparency"] = int(films[0][0, 0])
    turned, deep = grey.copy(), [Image.fromarray(films[0].astype(np.uint16)) for _ in range(2)]
    turned.getexif()[0x0112] = 6
    deep[1].info["transparency"] = int(films[0][0, 0])
    shown = Image.frombytes("CMYK", (32, 32), np.repeat(films[0][..., None], 4, 2).tobytes())
    alpha = Image.frombytes("RGBA", (32, 32), np.repeat(films[0][..., None], 4, 2).tobytes())
    different = [grey, *palettes, turned, *deep, shown, alpha]
    assert len({images.content_hash(image) for image in different}) == len(different)
    assert images.content_hash(palettes[0]) == images.content_hash(grey.convert("P"))


def test_hashes_of_files_arrays_and_plain_images_stay_what_they_were(films: np.ndarray) -> None:
    def sha(*parts: bytes) -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()[:32]

    encoded = images.to_png(films[0])
    assert images.content_hash(encoded) == images.content_hash({"bytes": encoded, "path": None}) == sha(encoded)
    plain = sha(b"uint8(32, 32)", films[0].tobytes())
    assert images.content_hash(films[0]) == images.content_hash(Image.fromarray(films[0])) == plain
    deep = films[0].astype(np.uint16)
    assert images.content_hash(Image.fromarray(deep)) == sha(b"uint16(32, 32)", deep.tobytes())


def test_exif_orientation_palette_alpha_and_cmyk_are_understood(films: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(films[0][:16]).save(buffer, format="TIFF", exif=exif)
    assert images.read(buffer.getvalue()).pixels.shape == (32, 16)
    assert "exif-rotated" in images.read(buffer.getvalue()).notes
    clear = Image.fromarray(films[0]).convert("LA")
    clear.putalpha(0)
    assert (images.read(clear).pixels == 0).all()
    assert images.read(Image.fromarray(films[0]).convert("P")).pixels.shape == (32, 32)
    assert images.read(Image.fromarray(films[0]).convert("CMYK")).pixels.shape[:2] == (32, 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not an image at all", "not-an-image"), (None, "missing"), ("half", "truncated")],
)
def test_unreadable_films_have_a_reason(
    tmp_path: Path, films: np.ndarray, content: bytes | str | None, reason: str
) -> None:
    path = tmp_path / "film.png"
    if content == "half":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        content = images.to_png(noise)[:2000]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(images.UnreadableImage) as caught:
        images.read(path)
    assert caught.value.reason == reason
    assert "film.png" in str(caught.value)


def test_float_and_odd_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be uint8, got float32, whose range is unknown; scale it to 0..255"):
        images.read(np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"must be \(H, W\) or \(H, W, 3\), got \(3, 4, 4\)"):
        images.read(np.zeros((3, 4, 4), np.uint8))


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch, films: np.ndarray) -> None:
    monkeypatch.setattr(film, "MAX_PIXELS", 100)
    with pytest.raises(images.UnreadableImage, match=r"at most 100 pixels, got 32 x 32"):
        images.read(images.to_png(films[0]))


def test_a_constant_deep_film_says_so() -> None:
    film = images.read(np.full((4, 4), 900, np.uint16))
    assert (film.pixels == 0).all()
    assert "constant" in film.notes
