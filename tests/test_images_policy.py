"""How deep films become 8 bits is asked for, written down, and must be one way on both sides of a comparison."""

from __future__ import annotations

import importlib.util
import io
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import synthchex
from synthchex.data import images, shards, sources
from synthchex.data.importers import write
from synthchex.models import encoders, store
from synthchex.scores import Request, score

spec = importlib.util.spec_from_file_location("dicom_films", Path(__file__).with_name("test_images_dicom.py"))
assert spec is not None
assert spec.loader is not None
dicom_films = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dicom_films)
REQUEST = Request(encoders=("phantom",), metrics=("kid",))


def folder(place: Path, kind: str, count: int = 12) -> Path:
    """Films of 12 bits as DICOM, 16-bit PNG, or 8-bit PNG."""
    place.mkdir(parents=True)
    for number in range(count):
        values = np.random.default_rng(number).integers(100, 4000, (64, 64), np.uint16)
        if kind == "dicom":
            (place / f"{number}.dcm").write_bytes(dicom_films.dicom(values))
        else:
            Image.fromarray(values if kind == "16-bit" else (values // 16).astype(np.uint8)).save(
                place / f"{number}.png"
            )
    return place


def brought_in(place: Path, out: Path, *words: str) -> Path:
    """`synthchex import folder`."""
    main = runpy.run_path(str(synthchex.room("datasets_scripts") / "import_films.py"))["main"]
    asked = ["folder", "--source", str(place), "--out", str(out), "--source-policy", "open", "--quiet", *words]
    assert main(asked) in (0, None)
    return out


def compared(real: Path, synthetic: Path) -> dict[str, Any]:
    """Results of an evaluation."""
    return score(sources.open_images(real), sources.open_images(synthetic), REQUEST, None, quiet=True).results


def test_sides_of_deep_films_that_were_read_by_two_policies_are_refused(tmp_path: Path) -> None:
    dicom, deep, plain = (folder(tmp_path / kind, kind) for kind in ("dicom", "16-bit", "8-bit"))
    with pytest.raises(
        ValueError, match=r"both sides read in one way, got predictions as \['minmax16'\] and references"
    ):
        compared(dicom, deep)
    doubts = [text for text in compared(dicom, plain)["warnings"] if "different depths" in text]
    assert doubts == [
        "films come from different depths: real ['dicom'], synthetic ['u8']; a part of what lies between them may be "
        "the scaling"
    ]
    found = compared(deep, deep)
    assert found["sets"]["real"]["preprocessing"] == ["minmax16"]
    assert not any("different depths" in text for text in found["warnings"])


def test_imports_by_two_policies_are_refused_though_both_are_8_bits_now(tmp_path: Path) -> None:
    dicom, deep = (folder(tmp_path / kind, kind) for kind in ("dicom", "16-bit"))
    minmax = brought_in(dicom, tmp_path / "a")
    percentile = brought_in(dicom, tmp_path / "b", "--deep-films", "percentile")
    from_png = brought_in(deep, tmp_path / "c", "--deep-films", "percentile")
    assert sources.open_images(minmax).preprocessing == ["dicom"] * 12
    for out, name in ((minmax, "dicom"), (percentile, "percentile"), (from_png, "percentile")):
        assert compared(out, out)["sets"]["real"]["preprocessing"] == [name]
    with pytest.raises(ValueError, match=r"got predictions as \['percentile'\] and references as \['dicom'\]"):
        compared(minmax, percentile)
    # One policy makes one set of a detector's values, whatever file they came in.
    first, second = (sources.open_images(out) for out in (percentile, from_png))
    for row in range(12):
        pixels = [images.read(one.fetch(row)).pixels for one in (first, second)]
        np.testing.assert_array_equal(*pixels)
    assert not any("different depths" in text for text in compared(percentile, from_png)["warnings"])


def test_the_policy_is_written_down_with_the_import(tmp_path: Path) -> None:
    deep = folder(tmp_path / "16-bit", "16-bit", 2)
    kept, changed = brought_in(deep, tmp_path / "kept"), brought_in(deep, tmp_path / "new", "--deep-films", "minmax")
    recipes = [json.loads((out / shards.MANIFEST).read_text())["recipe"] for out in (kept, changed)]
    assert [recipe.get("deep_films") for recipe in recipes] == [None, "minmax"]
    first, second = (sources.open_images(out) for out in (kept, changed))
    assert first.preprocessing == second.preprocessing == ["minmax16"] * 2
    assert first.fetch(0)["bytes"] == (deep / "0.png").read_bytes(), "without the option files keep their bytes"
    assert Image.open(io.BytesIO(second.fetch(0)["bytes"])).mode == "L"
    with pytest.raises(ValueError, match="--deep-films writes films anew, --reference-only keeps none"):
        write.How(deep_films="minmax", reference_only=True)


def test_what_is_in_the_store_is_still_known_by_how_it_was_read(tmp_path: Path) -> None:
    films, encoder = sources.open_images(folder(tmp_path / "16-bit", "16-bit", 3)), encoders.load_encoder("phantom")
    fresh, again = (store.encode(films, [encoder], tmp_path / "store", quiet=True) for _ in range(2))
    assert (fresh.computed, again.computed) == (3, 0)
    assert fresh.ways == again.ways == {"minmax16": 3}
    assert films.take([2]).preprocessing is None
