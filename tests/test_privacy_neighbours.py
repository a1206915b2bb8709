"""Synthetic films beside training films in several spaces; searches that go on after a kill; SSCD from its file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthchex.data.sources import ImageSet
from synthchex.maths import memorization, ssim
from synthchex.maths import search as exact
from synthchex.models import encoders, sscd
from synthchex.privacy import neighbours, search

SHAPE = (96, 80)


def film(seed: int) -> np.ndarray:
    """A smooth film, as radiographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 7), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SHAPE[::-1], Image.Resampling.BICUBIC))


def changed(seed: int) -> np.ndarray:
    """A near-copy: other contrast and noise."""
    noise = np.random.default_rng([seed, 1]).normal(0, 4, SHAPE)
    return np.clip(0.8 * film(seed) + 20 + noise, 0, 255).astype(np.uint8)


def films(pictures: Sequence[np.ndarray], name: str, **known: Any) -> ImageSet:
    return ImageSet(name, [f"{name} {row}" for row in range(len(pictures))], lambda row: pictures[row], **known)


class Means:
    """An encoder without a network: means of 8 x 8 parts."""

    name, key = "means", "means-1"

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Float32 (N, 64)."""
        small = [Image.fromarray(one).resize((8, 8), Image.Resampling.BOX) for one in pixels]
        return np.stack([np.asarray(one, np.float32).ravel() for one in small])


@pytest.fixture(scope="module")
def train() -> ImageSet:
    """A hundred films of fifty patients."""
    return films([film(seed) for seed in range(100)], "train", patients=[f"p{row // 2}" for row in range(100)])


@pytest.fixture(scope="module")
def held_out() -> ImageSet:
    return films([film(1000 + seed) for seed in range(120)], "held-out", patients=[f"q{row}" for row in range(120)])


@pytest.fixture(scope="module")
def synthetic() -> ImageSet:
    """Ten copies of training films 40 to 49, then fifty new films."""
    return films([changed(40 + row) if row < 10 else film(5000 + row) for row in range(60)], "synthetic")


SPACES = (Means(), neighbours.PIXELS, neighbours.SSIM)


@pytest.fixture(scope="module")
def found(synthetic: ImageSet, train: ImageSet, held_out: ImageSet) -> dict[str, neighbours.Space]:
    return neighbours.neighbours(synthetic, train, held_out, neighbours.Request(spaces=SPACES))


@pytest.mark.parametrize("space", ["means", "pixels", "ssim"])
def test_a_copy_of_another_training_film_than_its_pair_is_found(found: dict[str, neighbours.Space], space: str) -> None:
    """CheXGenBench looks at the training film on the same row alone: row 0 there, row 40 here."""
    table, results = found[space].films, found[space].results
    assert table["train_row"][:10].tolist() == list(range(40, 50))
    assert table["near"][:10].all()
    assert table["near"][10:].sum() <= 1  # one in a hundred new films may be
    assert results["n_below_least"] >= 10
    assert results["memorization"] == pytest.approx(10 / 60, abs=0.03)
    assert results["memorization_p_value"] < 1e-3
    assert table["null_share"][:10].max() == pytest.approx(1 / 121)
    assert np.median(table["null_share"][10:]) > 0.2
    assert (results["n_films"], results["n_training_films"], results["n_null"]) == (60, 100, 120)


def test_results_are_aggregates_that_json_can_say(found: dict[str, neighbours.Space]) -> None:
    for space in found.values():
        assert json.loads(json.dumps(space.results, allow_nan=False)) == space.results
        assert all(len(value) <= 3 for value in space.results.values() if isinstance(value, list))
    table = neighbours.columns(found)
    assert {"row", "means_distance", "pixels_train_row", "ssim_near"} <= set(table)
    assert {len(values) for values in table.values()} == {60}


def test_pixels_are_correlations_and_ssim_is_that_of_the_pair(
    found: dict[str, neighbours.Space], synthetic: ImageSet, train: ImageSet
) -> None:
    one, two = (neighbours.thumbnail(side.fetch(row), neighbours.SIDE) for side, row in ((synthetic, 3), (train, 43)))
    correlation = np.corrcoef(one.ravel(), two.ravel())[0, 1]
    assert 1 - found["pixels"].films["distance"][3] ** 2 / 2 == pytest.approx(correlation, abs=1e-5)
    pair = [neighbours.thumbnail(side.fetch(row), 64) for side, row in ((synthetic, 3), (train, 43))]
    assert 1 - found["ssim"].films["distance"][3] == pytest.approx(ssim.ms_ssim(*pair, scales=1), abs=1e-6)


def test_equal_films_have_distance_zero_in_every_space(train: ImageSet, held_out: ImageSet) -> None:
    flat = np.full(SHAPE, 90, np.uint8)
    copies = films([train.fetch(7), train.fetch(8), flat], "copies")
    found = neighbours.neighbours(copies, train, held_out, neighbours.Request(spaces=SPACES))
    for name, space in found.items():
        assert space.films["distance"][:2].tolist() == [0, 0], name
        assert space.results["n_copies"] == 2
        assert space.films["distance"][2] > 0


def test_the_aspect_of_a_film_is_kept() -> None:
    """CheXGenBench squashes real films: a disc becomes an ellipse, a copy with the right aspect is another picture."""
    y, x = np.mgrid[:300, :200]
    disc = (255 * ((y - 150) ** 2 + (x - 100) ** 2 < 80**2)).astype(np.uint8)
    square = disc[50:250]
    np.testing.assert_array_equal(neighbours.thumbnail(disc, 64), neighbours.thumbnail(square, 64))
    processor = sscd.Square288()
    tall, cut = (processor.tensor(Image.fromarray(one), whole=False) for one in (disc, square))
    assert torch.equal(tall, cut)


def test_without_held_out_films_other_patients_training_films_are_the_null(
    synthetic: ImageSet, train: ImageSet
) -> None:
    found = neighbours.neighbours(synthetic, train, None, neighbours.Request(spaces=("pixels", "ssim")))
    for space in found.values():
        assert (space.results["null"], space.results["n_null"]) == (memorization.TRAINING, 100)
        assert space.results["n_null_patients"] == 50
        assert space.films["near"][:10].all()
        assert space.films["near"][10:].sum() <= 1


def test_held_out_patients_who_were_trained_on_are_an_error(synthetic: ImageSet, train: ImageSet) -> None:
    held = films([film(1), film(2), film(3)], "held", patients=["p3", "p3", "x"])
    with pytest.raises(ValueError, match=r"got 1 patients that are in both \(2 of 3 held-out films\)"):
        neighbours.neighbours(synthetic, train, held, neighbours.Request(spaces=("pixels",)))


def test_films_of_one_prompt_are_not_taken_for_independent(train: ImageSet, held_out: ImageSet) -> None:
    pictures = [changed(40) if row < 3 else film(6000 + row) for row in range(90)]
    asked = neighbours.Request(spaces=("pixels",))
    ends = []
    for prompts in (None, [f"prompt {row // 3}" for row in range(90)], ["one"] * 90):
        results = neighbours.neighbours(films(pictures, "s", prompts=prompts), train, held_out, asked)["pixels"].results
        assert 3 <= results["n_below_least"] <= 4
        ends.append(results["share_below_least_high"])
    assert ends[1] > 1.2 * ends[0]
    assert ends[2] == ends[0]


# Searches that go on -------------------------------------------------------------------------------------------------


def test_a_search_on_disk_gives_what_one_in_memory_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(50, 8)), rng.normal(size=(70, 8))
    owners = rng.integers(0, 5, 50), rng.integers(0, 5, 70)
    for given in (None, owners):
        whole = exact.nearest(one, two, 3, owners=given)
        for rows in (7, 16384):
            found = search.nearest(one, two, 3, owners=given, folder=tmp_path / str(rows), rows=rows)
            np.testing.assert_array_equal(found.rows, whole.rows)
            np.testing.assert_array_equal(found.distances, whole.distances)
    folders = sorted(path.name for path in (tmp_path / "7").iterdir())
    assert len(folders) == 2  # another question has another folder
    search.nearest(one + 1, two, 3, folder=tmp_path / "7", rows=7)
    assert len(list((tmp_path / "7").iterdir())) == 3


def test_a_killed_search_goes_on_where_it_is(tmp_path: Path) -> None:
    """Nothing of CheXGenBench's run is saved until its end."""
    rng = np.random.default_rng(1)
    np.save(tmp_path / "one.npy", rng.normal(size=(60, 8)))
    np.save(tmp_path / "two.npy", rng.normal(size=(80, 8)))
    code = f"""
import time, numpy as np
from synthchex.maths import search as exact
from synthchex.privacy import search
plain = exact.nearest
exact.nearest = lambda *given, **options: (time.sleep(0.3), plain(*given, **options))[1]
search.nearest(*(np.load({str(tmp_path)!r} + name) for name in ("/one.npy", "/two.npy")), 2, folder={str(tmp_path)!r}
    and __import__("pathlib").Path({str(tmp_path / "kept")!r}), rows=6)
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(2)
    ]
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("kept/*/*.safetensors"))) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    for run in runs:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("kept/*/*.safetensors")}
    assert 3 <= len(before) < 10
    one, two = (np.load(tmp_path / name) for name in ("one.npy", "two.npy"))
    found = search.nearest(one, two, 2, folder=tmp_path / "kept", rows=6)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("kept/*/*.safetensors")}
    assert len(after) == 10
    assert before.items() <= after.items()  # what was there was not made again
    np.testing.assert_array_equal(found.rows, exact.nearest(one, two, 2).rows)


def test_a_second_run_over_stored_films_gives_the_same_and_encodes_nothing(
    synthetic: ImageSet, train: ImageSet, held_out: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = neighbours.Request(spaces=("pixels", "ssim"), store=tmp_path / "store", folder=tmp_path / "search")
    first = neighbours.neighbours(synthetic, train, held_out, asked)
    monkeypatch.setattr(neighbours.Pixels, "encode", None)
    monkeypatch.setattr(exact, "nearest", None)
    again = neighbours.neighbours(synthetic, train, held_out, asked)
    for name, space in first.items():
        assert again[name].results == space.results
        np.testing.assert_array_equal(again[name].films["distance"], space.films["distance"])


# SSCD ----------------------------------------------------------------------------------------------------------------


class Tiny(torch.nn.Module):
    """A network of the shape of SSCD."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 9, stride=9)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.convolution(pixels).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sscd") / "tiny.torchscript.pt"
    torch.jit.save(torch.jit.trace(Tiny(), torch.zeros(1, 3, 288, 288)), path)
    return path


def test_sscd_is_read_from_its_file_and_gives_unit_vectors(scripted: Path, synthetic: ImageSet) -> None:
    encoder = encoders.load_encoder(f"sscd:{scripted}")
    picture = synthetic.fetch(12)
    rows = encoder.encode([picture, synthetic.fetch(13), picture])
    assert rows.shape == (3, 8)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)
    network = torch.jit.load(str(scripted))
    expected = network(encoder.processor.tensor(Image.fromarray(picture), whole=False)[None])[0].detach().numpy()
    np.testing.assert_allclose(rows[0], expected / np.linalg.norm(expected), atol=1e-6)
    padded = encoders.load_encoder(f"sscd:{scripted}", aspect="pad")
    assert padded.key != encoder.key
    assert not np.allclose(padded.encode([picture]), rows[:1], atol=1e-4)


def test_sscd_is_a_space(scripted: Path, synthetic: ImageSet, train: ImageSet, held_out: ImageSet) -> None:
    name = f"sscd:{scripted}"
    found = neighbours.neighbours(synthetic, train, held_out, neighbours.Request(spaces=(name,)))[name]
    assert found.results["n_films"] == 60
    assert found.films["distance"].max() <= 2


def test_an_absent_or_broken_sscd_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"expected the SSCD network at .*sscd_disc_mixup.torchscript.pt, got no such"):
        encoders.load_encoder("sscd")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"expected a TorchScript file, got .*broken.pt, which torch cannot read"):
        encoders.load_encoder(f"sscd:{broken}")
