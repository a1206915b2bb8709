"""A 12-bit ramp keeps its ramp on every way from a detector to an encoder: rising, 256 levels, nothing clipped."""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from synthchex.data import images
from synthchex.measure import given as inputs
from synthchex.measure import sides
from synthchex.models import encoders

spec = importlib.util.spec_from_file_location("dicom_films", Path(__file__).with_name("test_images_dicom.py"))
assert spec is not None
assert spec.loader is not None
dicom_films = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dicom_films)


def file_of(values: np.ndarray, kind: str, **options: Any) -> bytes:
    """A 16-bit file."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind, **options)
    return buffer.getvalue()


def row_of_dataset(image: Any, *, decode: bool) -> Any:
    """A film that went through the `Image` feature of `datasets`: a PIL image, or bytes and path."""
    import datasets

    table = datasets.Dataset.from_dict({"image": [image]}, features=datasets.Features({"image": datasets.Image()}))
    return table.cast_column("image", datasets.Image(decode=decode))[0]["image"]


ROUTES: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda values: values,
    "array, 32 bits": lambda values: values.astype(np.int32),
    "array, big-endian": lambda values: values.astype(">u2"),
    "array, every second column": lambda values: np.repeat(values, 2, axis=1)[:, ::2],
    "pil": Image.fromarray,
    "pil, big-endian": lambda values: Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()),
    "pil, 32 bits": lambda values: Image.fromarray(values.astype(np.int32)),
    "pil, float": lambda values: Image.fromarray(values.astype(np.float32)),
    "pil, cropped": lambda values: Image.fromarray(np.pad(values, 3)).crop(
        (3, 3, 3 + values.shape[1], 3 + len(values))
    ),
    "png": lambda values: file_of(values, "PNG"),
    "tiff": lambda values: file_of(values, "TIFF"),
    "tiff, deflated": lambda values: file_of(values, "TIFF", compression="tiff_adobe_deflate"),
    "dicom": dicom_films.dicom,
    "dicom, monochrome1": lambda values: dicom_films.dicom(4095 - values, PhotometricInterpretation="MONOCHROME1"),
    "dicom, rescaled": lambda values: dicom_films.dicom(values, RescaleSlope=0.25, RescaleIntercept=-17),
    "dicom, wide window": lambda values: dicom_films.dicom(values, WindowCenter=2048, WindowWidth=4096),
    "datasets, decoded": lambda values: row_of_dataset(Image.fromarray(values), decode=True),
    "datasets, bytes": lambda values: row_of_dataset(Image.fromarray(values), decode=False),
    "datasets, of a file": lambda values: row_of_dataset({"bytes": file_of(values, "PNG"), "path": None}, decode=True),
    "datasets, of an array": lambda values: row_of_dataset(values, decode=True),
}
TWELVE_BITS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def check_ramp(shown: np.ndarray, values: np.ndarray) -> None:
    """`shown` rises where `values` does, has 256 levels, and its ends hold no more values than the others."""
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order].astype(float)) >= 0).all()
    assert len(np.unique(shown)) == 256
    for end in (shown.min(), shown.max()):
        assert len(np.unique(values[shown == end])) <= (int(values.max()) - int(values.min())) / 255 + 1


@pytest.mark.parametrize("route", ROUTES)
def test_a_12_bit_ramp_keeps_its_ramp_on_every_way(route: str) -> None:
    film = images.read(ROUTES[route](TWELVE_BITS))
    check_ramp(film.pixels, TWELVE_BITS)
    assert film.preprocessing == ("dicom" if "dicom" in route else "minmax16")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(route=st.sampled_from(sorted(set(ROUTES) - {"dicom, wide window"})), seed=st.integers(0, 2**31), data=st.data())
def test_any_film_of_12_bits_keeps_its_order_on_every_way(route: str, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    low = data.draw(st.integers(0, 3000))
    high = data.draw(st.integers(low + 512, 4095))
    values = rng.permutation(np.resize(np.arange(low, high + 1), 64 * 65)).astype(np.uint16).reshape(64, 65)
    if high - low + 1 <= values.size:
        values.flat[:2] = low, high
    film = images.read(ROUTES[route](values))
    check_ramp(film.pixels, values)
    np.testing.assert_array_equal(film.pixels, images.read(values).pixels)


@functools.cache
def phantom_encoder() -> Any:
    """The embedded encoder."""
    return encoders.load_encoder("phantom")


@pytest.mark.parametrize("route", ["array", "png", "dicom", "datasets, decoded"])
def test_an_encoder_reads_the_whole_ramp(route: str) -> None:
    prepared = phantom_encoder().prepare([images.read(ROUTES[route](TWELVE_BITS)).pixels]).numpy()
    assert prepared.shape[-2:] == (64, 64)
    check_ramp(prepared.reshape(-1, 64, 64)[0], TWELVE_BITS)


class Catcher:
    """An encoder that keeps what it is given."""

    def __init__(self) -> None:
        self.films: list[np.ndarray] = []

    def encode(self, films: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """A row of numbers for each film."""
        self.films += films
        return np.arange(2.0 * len(films)).reshape(len(films), 2)


@pytest.mark.parametrize("route", ["pil", "png", "dicom", "datasets, decoded", "datasets, bytes"])
def test_a_metric_hands_the_whole_ramp_to_its_encoder(route: str) -> None:
    catcher = Catcher()
    source = ROUTES[route](TWELVE_BITS)
    part = inputs.sort([source, source], "predictions")
    side = sides.Encoding(encoder=catcher).features([part], "predictions")
    assert side.preprocessing == (("dicom",) if route == "dicom" else ("minmax16",))
    for film in catcher.films:
        check_ramp(film, TWELVE_BITS)
