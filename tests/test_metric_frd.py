"""The frd module as its users call it: tables always, images where pyradiomics is installed."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import synthchex
from synthchex.maths import intervals
from synthchex.maths import radiomics as maths


@pytest.fixture(scope="module")
def frd() -> Any:
    return synthchex.load("frd")


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray]:
    """Synthetic (40, 5) and real (60, 5)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 5)) + 0.5, rng.normal(size=(60, 5))


def test_both_conventions(frd: Any, tables: Any) -> None:
    fake, real = tables
    result = frd.compute(predictions=fake, references=real)
    expected = maths.radiomics_distance(real, fake)
    assert (result["frd"], result["frd_log_d2"]) == (expected.log_d, expected.log_d2)
    assert result["frd_squared_distance"] == pytest.approx(math.exp(2 * result["frd"]))
    assert (result["n_features"], result["n_predictions"], result["n_references"]) == (5, 40, 60)
    assert result["warnings"] == []
    assert all(type(value) in (float, int, str, list) for value in result.values())


def test_few_rows_constant_columns_and_equal_tables_are_said(frd: Any, tables: Any) -> None:
    fake, real = tables
    few = frd.compute(predictions=fake[:12], references=real)["warnings"]
    assert "FRD of 12 predictions with 5 features is mostly bias (fewer than 2.5 films per feature)" in few
    assert any(text.startswith("FRD of sides of different sizes") for text in few)
    constant = [np.insert(side, 2, 7.0, axis=1) for side in tables]
    result = frd.compute(predictions=constant[0], references=constant[1])
    assert "1 columns left out, constant in the references: [2]" in result["warnings"]
    with pytest.raises(ValueError, match="fake: expected at least 2 rows, got 1"):
        frd.compute(predictions=fake[:1], references=real)


def test_tables_in_csv(frd: Any, tables: Any, tmp_path: Any) -> None:
    for name, rows in zip(("fake", "real"), tables, strict=True):
        lines = [",image,a,b,c,d,e"] + [
            f"{i},x{i}.png," + ",".join(map(repr, row.tolist())) for i, row in enumerate(rows)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    result = frd.compute(predictions=tmp_path / "fake.csv", references=str(tmp_path / "real.csv"))
    expected = frd.compute(predictions=tables[0], references=tables[1])
    assert result["frd"] == expected["frd"]
    assert result["encoder"].startswith("radiomics table of 5 columns")
    other = (tmp_path / "real.csv").read_text().replace("a,b,c", "b,a,c")
    (tmp_path / "other.csv").write_text(other)
    with pytest.raises(ValueError, match="expected both sides from one encoder, got 'radiomics table of 5 columns"):
        frd.compute(predictions=tmp_path / "fake.csv", references=tmp_path / "other.csv")
    for text, message in (
        ("a,b\n1,2\n3\n", "expected a header and rows of 2 columns in bad.csv, got row 1 with 1"),
        ("a,b\n", "expected a header and rows of 2 columns in bad.csv, got no rows"),
        ("a,b\nx,y\nz,w\n", r"expected numeric columns in bad.csv, got \['a', 'b'\]"),
        ("a,b\n1,nan\n2,3\n", "predictions: expected finite features, got NaN or infinity in row 0"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            frd.compute(predictions=tmp_path / "bad.csv", references=tmp_path / "real.csv")
    with pytest.raises(
        ValueError, match=r"predictions: expected a table of features, got '.*no.csv', which is not there"
    ):
        frd.compute(predictions=str(tmp_path / "no.csv"), references=tables[1])


def test_interval_of_the_logarithm(frd: Any, tables: Any) -> None:
    fake, real = tables
    ids = (np.repeat(np.arange(10), 4), None)
    result = frd.compute(predictions=fake, references=real, confidence_level=0.9, patients=ids, n_resamples=8, seed=3)
    left = intervals.assign_blocks(40, ids[0], blocks=8, seed=3, name="predictions")
    right = intervals.assign_blocks(60, None, blocks=8, seed=4, name="references")
    logs = [maths.radiomics_distance(real[right != block], fake[left != block]).log_d for block in range(8)]
    error = math.sqrt(7 / 8 * np.square(np.array(logs) - np.mean(logs)).sum())
    assert result["frd_standard_error"] == pytest.approx(error)
    assert result["frd_high"] - result["frd_low"] == pytest.approx(2 * 1.8945786 * error)  # t of 7 degrees of freedom
    with pytest.raises(ValueError, match="predictions: expected at least 5 clusters to leave out in turn, got 2"):
        frd.compute(predictions=fake, references=real, confidence_level=0.9, patients=(np.arange(40) // 20, None))


def test_labels(frd: Any, tables: Any) -> None:
    fake, real = tables
    masks = {"Edema": (np.arange(40) < 20, np.arange(60) < 25), "Fracture": (np.arange(40) < 1, np.arange(60) < 9)}
    labels = frd.compute(predictions=fake, references=real, groups=masks)["labels"]
    assert labels["Edema"]["frd"] == maths.radiomics_distance(real[:25], fake[:20]).log_d
    assert labels["Fracture"]["frd"] is None


def test_films_without_pyradiomics_say_how_to_get_it(
    frd: Any, films: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "radiomics", None)
    hint = r"this needs pyradiomics, which is not installed: pip install .* or pass a table of features"
    with pytest.raises(ImportError, match=hint) as caught:
        frd.compute(predictions=films, references=films)
    assert "\n" not in str(caught.value)


def test_an_encoder_of_combined_modules_is_not_used(frd: Any, tables: Any) -> None:
    import evaluate

    result = frd.compute(predictions=tables[0], references=tables[1], encoder="rad-dino")
    assert "encoder is not used by frd: radiomic features are no network's" in result["warnings"]
    both = evaluate.combine([synthchex.load("frd"), synthchex.load("kid")])
    assert {"frd", "kid"} <= set(both.compute(predictions=tables[0], references=tables[1]))


@pytest.mark.skipif(importlib.util.find_spec("radiomics") is None, reason="pyradiomics is not installed")
def test_films_through_pyradiomics(frd: Any) -> None:
    from synthchex.models.radiomics import RadiomicsEncoder

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 8), np.uint8)
    films = np.kron(coarse, np.ones((6, 6), np.uint8))
    encoder = RadiomicsEncoder(size=48, image_types={"Original": {}})
    rows = encoder.encode(list(films))
    assert rows.shape == (6, 77) == (6, len(encoder.columns or ()))
    result = frd.compute(predictions=films[:3], references=films[3:], encoder=encoder)
    assert result["encoder"] == "radiomics"
    assert result["frd"] == pytest.approx(maths.radiomics_distance(rows[3:], rows[:3]).log_d)
    assert encoder.key != RadiomicsEncoder(size=64, image_types={"Original": {}}).key


FAKE = {
    "SimpleITK.py": "def GetImageFromArray(array): return array\n",
    "radiomics/__init__.py": "__version__ = 'fake'\n",
    "radiomics/featureextractor.py": (
        "import os\n"
        "FILMS = []\n"
        "class RadiomicsFeatureExtractor:\n"
        "    def __init__(self, **settings): self.settings = settings\n"
        "    def __getattr__(self, name): return lambda *args, **kwargs: None\n"
        "    def execute(self, film, mask):\n"
        "        assert film.shape == mask.shape\n"
        "        FILMS.append(film)\n"
        "        return {'diagnostics_x': 0, 'mean': film.mean(), 'deviation': film.std(), 'process': os.getpid()}\n"
    ),
}


@pytest.fixture
def fake_radiomics(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of that name, here and in processes that are started from here."""
    (tmp_path / "radiomics").mkdir()
    for name, text in FAKE.items():
        (tmp_path / name).write_text(text)
    named = lambda: [name for name in sys.modules if name.split(".")[0] in ("radiomics", "SimpleITK")]  # noqa: E731
    for name in named():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in named():
        del sys.modules[name]


@pytest.mark.usefixtures("fake_radiomics")
def test_processes_extract_what_one_does(films: np.ndarray) -> None:
    from synthchex.models.radiomics import RadiomicsEncoder

    alone, several = (RadiomicsEncoder(size=16, num_workers=count) for count in (0, 2))
    expected, found = alone.encode(list(films)), several.encode(list(films))
    assert (alone.columns, alone.key) == (several.columns, several.key)
    assert alone.columns == ("mean", "deviation", "process")
    np.testing.assert_array_equal(found[:, :2], expected[:, :2])
    assert set(expected[:, 2]).isdisjoint(found[:, 2])
    again = several.encode(list(films[:2]))
    assert set(again[:, 2]) <= set(found[:, 2])  # the processes stay


@pytest.mark.usefixtures("fake_radiomics")
def test_films_are_extracted_once_for_all_calls(frd: Any, films: np.ndarray) -> None:
    options = {"predictions": films[:4], "references": films[4:], "size": 16}
    first = frd.compute(**options)
    assert first["frd"] == frd.compute(**options)["frd"]
    assert len(sys.modules["radiomics.featureextractor"].FILMS) == 8
    assert first["n_features"] + len([text for text in first["warnings"] if "left out" in text]) == 3
