"""DICOM films: the order of the steps, polarity, padding, and the reason where there is no film."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless, generate_uid

from synthchex.data import film, images

ROOT = Path(__file__).resolve().parents[1]
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def dicom(values: np.ndarray, *, stored: int = 12, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A DICOM film of these stored values; `elements` are added to its header by keyword, None takes one away."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    header.Rows, header.Columns = values.shape[:2]
    header.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    header.BitsAllocated = values.dtype.itemsize * 8
    header.BitsStored, header.HighBit = min(stored, header.BitsAllocated), min(stored, header.BitsAllocated) - 1
    header.PixelRepresentation = int(values.dtype.kind == "i")
    header.PhotometricInterpretation = "MONOCHROME2"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    header.PixelData = values.astype(values.dtype.newbyteorder(order)).tobytes()
    if pydicom.uid.UID(syntax).is_encapsulated:
        header.PixelData = encapsulate([header.PixelData])
    header["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header)
    return buffer.getvalue()


def lut(values: np.ndarray, first: int, bits: int = 16) -> Dataset:
    """A LUT of 16-bit entries from stored value `first` on."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(values) % 65536, first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return item


def refused(encoded: bytes) -> str:
    """The reason why a film cannot be read."""
    with pytest.raises(images.UnreadableImage) as caught:
        images.read(encoded)
    return caught.value.reason


def stretched(values: np.ndarray) -> np.ndarray:
    """0..255 from the least to the greatest value."""
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255)


def test_a_12_bit_film_keeps_its_ramp() -> None:
    found = images.read(dicom(RAMP))
    np.testing.assert_array_equal(found.pixels, images.read(RAMP).pixels)
    assert (found.preprocessing, found.notes) == ("dicom", ())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), most=st.integers(2, 4095))
def test_monochrome1_and_its_twin_give_the_same_film(seed: int, most: int) -> None:
    values = np.random.default_rng(seed).integers(0, most + 1, (9, 7), np.uint16)
    plain, negative = dicom(values), dicom(most - values, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(images.read(plain).pixels, images.read(negative).pixels)
    assert "monochrome1-inverted" in images.read(negative).notes
    by_percentile = [images.read(encoded, deep="percentile").pixels.astype(int) for encoded in (plain, negative)]
    assert np.corrcoef(by_percentile[0].ravel(), by_percentile[1].ravel())[0, 1] > 0.99 or values.min() == values.max()


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False), ("MONOCHROME2", "IDENTITY", False), ("MONOCHROME2", "INVERSE", True),
        # The standard asks MONOCHROME1 to carry INVERSE: both say the same thing once.
        ("MONOCHROME1", None, True), ("MONOCHROME1", "IDENTITY", True), ("MONOCHROME1", "INVERSE", True),
    ],
)  # fmt: skip
def test_polarity(photometric: str, shape: str | None, inverted: bool) -> None:
    shapes = {} if shape is None else {"PresentationLUTShape": shape}
    found = images.read(dicom(RAMP, PhotometricInterpretation=photometric, **shapes))
    assert (found.pixels[0, 0], found.pixels[-1, -1]) == ((255, 0) if inverted else (0, 255))


def formats_folder() -> Path | None:
    """A folder with a DICOM film and the same file under the name of the other polarity, where there is one."""
    named = os.environ.get("SYNTHCHEX_FORMATS")
    return Path(named) if named else next(ROOT.parent.glob("*/data/formats"), None)


def test_a_real_film_and_the_same_file_marked_monochrome1() -> None:
    folder = formats_folder()
    if folder is None:
        pytest.skip("no real DICOM: name a folder with Fake_MONOHR1.dcm and its original in SYNTHCHEX_FORMATS")
    (original,) = (path for path in folder.glob("*.dcm") if "Fake" not in path.name)
    plain, marked = images.read(original), images.read(folder / "Fake_MONOHR1.dcm")
    # Only the mark differs, not the stored values: one is the negative of the other.
    np.testing.assert_array_equal(marked.pixels, 255 - plain.pixels)
    assert plain.preprocessing == "u8"
    # Its true twin, values turned as well, is the same film.
    stored = pydicom.dcmread(original).pixel_array
    np.testing.assert_array_equal(stored, plain.pixels)
    twin = images.read(dicom(255 - stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(twin.pixels, plain.pixels)


def test_8_bits_without_a_lut_are_left_as_they_are() -> None:
    values = np.random.default_rng(0).integers(30, 200, (20, 30), np.uint8)
    identity = {"RescaleSlope": 1, "RescaleIntercept": 0}
    for encoded in (dicom(values), dicom(values, **identity)):
        np.testing.assert_array_equal(images.read(encoded).pixels, values)
        assert images.read(encoded).preprocessing == images.preprocessing_of(encoded) == "u8"
    windowed = dicom(values, WindowCenter=128, WindowWidth=256)
    assert images.read(windowed).preprocessing == images.preprocessing_of(windowed) == "dicom"


def test_the_window_clips_after_the_rescale() -> None:
    # Window 1000..3000 of rescaled values 2 v - 1000: stored 1000..2000.
    encoded = dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=2000, WindowWidth=2000)
    found = images.read(encoded)
    assert found.notes == ("dicom-windowed",)
    low, high = RAMP[found.pixels > 0].min(), RAMP[found.pixels < 255].max()
    assert 1000 <= low <= 1004
    assert 1995 <= high <= 2000
    assert (np.diff(found.pixels.ravel().astype(int)) >= 0).all()
    unwindowed = images.read(encoded, deep="percentile")
    np.testing.assert_array_equal(unwindowed.pixels, images.read(RAMP, deep="percentile").pixels)
    assert (unwindowed.preprocessing, unwindowed.notes) == ("percentile", ())


def test_of_several_windows_the_first_counts() -> None:
    first = dicom(RAMP, WindowCenter=1000, WindowWidth=500)
    both = dicom(RAMP, WindowCenter=[1000, 3000], WindowWidth=[500, 4000])
    np.testing.assert_array_equal(images.read(first).pixels, images.read(both).pixels)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", lambda v: np.clip((v - 2000) / 1000 + 0.5, 0, 1)),
        ("LINEAR", lambda v: np.clip((v - 1999.5) / 999 + 0.5, 0, 1)),
        ("SIGMOID", lambda v: 1 / (1 + np.exp(-4 * (v - 2000) / 1000))),
    ],
)
def test_window_functions(function: str, expected: Any) -> None:
    found = images.read(dicom(RAMP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function))
    assert np.abs(found.pixels - stretched(expected(RAMP.astype(float)))).max() <= 1


def test_a_voi_lut_is_preferred_to_a_window() -> None:
    curve = (np.linspace(0, 1, 4096) ** 2 * 65535).astype(np.uint16)
    encoded = dicom(RAMP, VOILUTSequence=[lut(curve, 0)], WindowCenter=10, WindowWidth=5)
    np.testing.assert_array_equal(images.read(encoded).pixels, stretched(curve[RAMP].astype(float)))
    assert images.read(encoded).notes == ("dicom-windowed",)


def test_a_voi_lut_of_8_bits_has_more_than_256_entries_and_takes_rescaled_values() -> None:
    curve = np.arange(4096) // 16
    encoded = dicom(RAMP, VOILUTSequence=[lut(curve, 0, bits=8)], RescaleSlope=1, RescaleIntercept=-0.25)
    np.testing.assert_array_equal(images.read(encoded).pixels, curve[RAMP])
    outside = dicom(RAMP, VOILUTSequence=[lut(np.arange(1000), 1500)])
    np.testing.assert_array_equal(images.read(outside).pixels, stretched(np.clip(RAMP.astype(float) - 1500, 0, 999)))


def test_a_modality_lut_comes_first() -> None:
    negative = dicom(RAMP, ModalityLUTSequence=[lut(4095 - np.arange(4096), 0)])
    np.testing.assert_array_equal(images.read(negative).pixels, images.read(4095 - RAMP).pixels)


def test_padding_is_black_and_has_no_part_in_the_scale() -> None:
    values = RAMP.copy()
    values[:, :8] = 4095
    values[:8, 8:] = 4090
    for extra in ({"PixelPaddingRangeLimit": 4090}, {}):
        for photometric in ("MONOCHROME2", "MONOCHROME1"):
            encoded = dicom(values, PixelPaddingValue=4095, PhotometricInterpretation=photometric, **extra)
            found, hidden = images.read(encoded), values >= (4090 if extra else 4095)
            assert (found.pixels[hidden] == 0).all()
            assert (found.pixels[~hidden].min(), found.pixels[~hidden].max()) == (0, 255)
            assert "padding-as-black" in found.notes
    eight = np.random.default_rng(0).integers(3, 250, (8, 8), np.uint8)
    eight[0] = 255
    found = images.read(dicom(eight, PixelPaddingValue=255))
    assert (found.pixels[0] == 0).all()
    np.testing.assert_array_equal(found.pixels[1:], eight[1:])
    assert "padding-as-black" not in images.read(dicom(RAMP // 2, PixelPaddingValue=4095)).notes


def test_signed_values_and_padding_below_them() -> None:
    values = RAMP.astype(np.int16) - 2048
    values[0] = -2048
    found = images.read(dicom(values, stored=16, PixelPaddingValue=-2048))
    assert (found.pixels[0] == 0).all()
    assert (found.pixels[1, 0], found.pixels[-1, -1]) == (0, 255)


def test_a_film_that_is_all_padding_or_one_value_is_black_and_says_so() -> None:
    one = np.full((4, 4), 7, np.uint16)
    for encoded in (dicom(one), dicom(one, PixelPaddingValue=7)):
        found = images.read(encoded)
        assert (found.pixels == 0).all()
        assert "constant" in found.notes


def test_every_transfer_syntax_gives_the_same_film() -> None:
    expected = images.read(dicom(RAMP)).pixels
    np.testing.assert_array_equal(images.read(dicom(RAMP, syntax=ExplicitVRBigEndian)).pixels, expected)
    header = pydicom.dcmread(io.BytesIO(dicom(RAMP)))
    header.compress(RLELossless)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header)
    np.testing.assert_array_equal(images.read(buffer.getvalue()).pixels, expected)
    small = [images.read(sample(f"MR_small{kind}.dcm")).pixels for kind in ("", "_RLE", "_bigendian", "_jp2klossless")]
    assert all((small[0] == other).all() for other in small)


def sample(name: str) -> bytes:
    """A file that pydicom ships."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), name
    return Path(path).read_bytes()


def test_colour_becomes_rgb() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    rgb = dicom(colour, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    np.testing.assert_array_equal(images.read(rgb).pixels, colour)
    assert images.read(rgb).preprocessing == images.preprocessing_of(rgb) == "u8"
    grey = dicom(np.repeat(colour[..., :1], 3, 2), PhotometricInterpretation="RGB", PlanarConfiguration=0)
    np.testing.assert_array_equal(images.read(grey).pixels, colour[..., 0])
    plain, ybr = images.read(sample("SC_rgb_rle.dcm")).pixels, images.read(sample("SC_rgb_dcmtk_+eb+cy+np.dcm")).pixels
    assert np.abs(plain.astype(int) - ybr).mean() < 4, "the same picture, stored as RGB and as YBR"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test-SR.dcm", "no-pixels"),
        ("rtplan.dcm", "no-pixels"),
        ("SC_rgb_rle_2frame.dcm", "multi-frame"),
        ("SC_rgb_rle_16bit.dcm", "deep-colour"),
        ("examples_palette.dcm", "unsupported-pixels"),
        ("rtdose_1frame.dcm", "unsupported-pixels"),
        ("JPEGLSNearLossless_16.dcm", "no-decoder"),
        ("JPEG-lossy.dcm", "no-decoder"),
        ("MR_truncated.dcm", "truncated"),
        ("badVR.dcm", "damaged"),
        ("meta_missing_tsyntax.dcm", "damaged"),
    ],
)
def test_dicom_that_is_no_film_has_a_reason(name: str, reason: str) -> None:
    if reason == "no-decoder" and decodes(name):
        pytest.skip("a plugin for it is installed here")
    assert refused(sample(name)) == reason


def decodes(name: str) -> bool:
    """Whether some plugin of pydicom decodes a sample."""
    try:
        return bool(pydicom.dcmread(io.BytesIO(sample(name))).pixel_array.size)
    except (RuntimeError, NotImplementedError):
        return False


def test_without_a_decoder_the_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(
        images.UnreadableImage, match=r"expected a decoder for RLE Lossless, got none .* pip install pylib"
    ):
        images.read(sample("MR_small_RLE.dcm"))
    assert refused(dicom(RAMP, syntax="1.2.840.10008.1.2.4.102")) == "no-decoder", "video"


def test_headers_that_make_no_sense_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(dicom(RAMP, WindowCenter=10, WindowWidth=0)) == "bad-window"
    assert images.read(dicom(RAMP, WindowCenter=10, WindowWidth=0), deep="percentile").pixels.max() == 255
    assert refused(dicom(RAMP, Rows=0)) == "empty"
    assert refused(dicom(RAMP, Rows=None)) == "damaged"
    assert refused(dicom(RAMP, Rows=128)) == "truncated"
    assert refused(bytes(128) + b"DICM" + bytes(40)) in ("not-an-image", "no-pixels", "damaged")
    monkeypatch.setattr(film, "MAX_PIXELS", 4000)
    assert refused(dicom(RAMP)) == "too-large"


def test_a_file_that_only_calls_itself_dicom(tmp_path: Path) -> None:
    (tmp_path / "film.dcm").write_bytes(b"hello, this is no DICOM file at all")
    with pytest.raises(images.UnreadableImage, match=r"expected a DICOM file, got .*film\.dcm") as caught:
        images.read(tmp_path / "film.dcm")
    assert caught.value.reason == "not-an-image"


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = dicom(RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"pip install 'synthchex\[dicom\]'"):
        images.read(encoded)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), change=st.binary(min_size=1, max_size=6), cut=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_broken_dicom_gives_a_film_or_a_reason(place: float, change: bytes, cut: bool) -> None:
    whole = dicom(RAMP[:8], WindowCenter=2000, WindowWidth=1000, PixelPaddingValue=0)
    start = int(place * (len(whole) if cut else 600))
    try:
        found = images.read(whole[:start] if cut else whole[:start] + change + whole[start + len(change) :])
    except images.UnreadableImage:
        return
    assert found.pixels.dtype == np.uint8
