"""NIfTI films: one slice, turned as its header says; volumes have a reason."""

from __future__ import annotations

import gzip
import sys
from typing import Any

import numpy as np
import pytest

from synthchex.data import images, nifti

nibabel = pytest.importorskip("nibabel")
# Rows from head to foot, columns from the patient's right to left.
FILM = np.random.default_rng(0).permutation(48 * 40).astype(np.int16).reshape(48, 40)
# Where the first axis goes to the patient's left and the second down, as a PNG read by an LPS tool is written.
LEFT_AND_DOWN = np.diag([-1.0, -1.0, 1.0, 1.0])


def stored(values: np.ndarray, affine: np.ndarray = LEFT_AND_DOWN, kind: Any = nibabel.Nifti1Image) -> bytes:
    """A NIfTI file."""
    return bytes(kind(values, affine).to_bytes())


def refused(encoded: bytes) -> str:
    """The reason why a film cannot be read."""
    with pytest.raises(images.UnreadableImage) as caught:
        images.read(encoded)
    return caught.value.reason


def test_a_slice_is_turned_as_its_header_says() -> None:
    expected = images.read(FILM).pixels
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    ways = {
        "2-D": stored(FILM.T),
        "one slice": stored(FILM.T[:, :, None]),
        "one slice in time": stored(FILM.T[:, :, None, None]),
        "right and up": stored(FILM[::-1, ::-1].T, np.eye(4)),
        "rows first": stored(FILM, np.array([[0, -1.0, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
        "coronal": stored(FILM[::-1, ::-1].T[:, None], np.eye(4)),
        "coronal by its affine": stored(FILM[::-1, ::-1].T[:, :, None], coronal),
        "version 2": stored(FILM.T, kind=nibabel.Nifti2Image),
        "packed": gzip.compress(stored(FILM.T)),
        "float": stored(FILM.T.astype(np.float32)),
    }
    for way, encoded in ways.items():
        np.testing.assert_array_equal(images.read(encoded).pixels, expected, err_msg=way)
        assert images.read(encoded).preprocessing == images.preprocessing_of(encoded) == "minmax16", way
    assert images.read(ways["2-D"], deep="percentile").preprocessing == "percentile"


def test_8_bits_are_left_as_they_are_and_a_slope_is_applied() -> None:
    eight = (FILM % 200).astype(np.uint8)
    film = images.read(stored(eight.T))
    np.testing.assert_array_equal(film.pixels, eight)
    assert film.preprocessing == "u8"
    image = nibabel.Nifti1Image(FILM.T, LEFT_AND_DOWN)
    image.header.set_slope_inter(-2.0, 5.0)
    np.testing.assert_array_equal(images.read(bytes(image.to_bytes())).pixels, images.read(FILM.max() - FILM).pixels)


def test_what_is_no_slice_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored(FILM.T)
    assert refused(stored(np.zeros((4, 5, 6), np.int16))) == "multi-frame"
    assert refused(whole[:1000]) in ("damaged", "truncated")
    assert refused(gzip.compress(whole)[:900]) == "truncated"
    assert refused(gzip.compress(b"no NIfTI file")) == "damaged"
    colour = np.zeros((4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert refused(stored(colour)) == "unsupported-pixels"
    monkeypatch.setattr(nifti, "MOST_BYTES", 1000)
    assert refused(gzip.compress(whole)) == "too-large"


def test_without_nibabel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = stored(FILM.T)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'synthchex\[nifti\]'"):
        images.read(encoded)
