"""Published datasets as they were downloaded, in the layout that load_dataset reads: nothing lost, nothing silent."""

from __future__ import annotations

import json
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Array3D, Dataset, Features, Value, load_dataset
from PIL import Image

import synthchex
from synthchex.data import feeds, images, pixels, published, records, shards

convert = runpy.run_path(str(synthchex.room("datasets_scripts") / "convert.py"))["main"]
MIMIC = "02aa804e-bde0afdd-112c0b34-7bc16630-4e38401"


def film(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def name(row: int) -> str:
    return f"{MIMIC}{row % 10}.png"


def labels(row: int) -> str:
    return str({"Edema": 1.0, "Fracture": float("nan"), "Pneumonia": -1.0} if row % 2 else {"No Finding": 1.0})


def upstream(
    folder: Path,
    rows: int = 8,
    *,
    inside: str = "synthetic/",
    column: str = "img_savename",
    prompt: str = "prompt",
    quality: bool = False,
) -> Path:
    """The layout of SynthCheX-75K: a zip of images, a table, a loading script and a card."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "ALL_FILES.zip", "w") as archive:
        for row in range(rows):
            archive.writestr(f"{inside}{name(row)}", images.to_png(film(row)))
        archive.writestr("__MACOSX/._x.png", b"mac")
    write_table(folder, rows, column, prompt, quality)
    (folder / f"{folder.name}.py").write_text("raise RuntimeError('never run')\n")
    (folder / "README.md").write_text("# upstream\n")
    return folder


def write_table(folder: Path, rows: int, column: str, prompt: str, quality: bool) -> None:
    answers = ("High Quality", "It is 'Medium Quality'.", "Low Quality", "I cannot say")
    head = [prompt, column, "path", "chexpert_labels", *(["Image Quality"] if quality else [])]
    lines = [",".join(head)]
    for row in range(rows):
        cells = [f'"Finding {row}, mild."', name(row), f"files/p1{row}.dcm", f'"{labels(row)}"']
        lines.append(",".join([*cells, *([answers[row % 4]] if quality else [])]))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def load(folder: Path, tmp_path: Path, *arguments: Any, **options: Any) -> Any:
    return load_dataset(str(folder), *arguments, split="train", cache_dir=str(tmp_path / "cache"), **options)


def check(found: Any, rows: int = 8) -> None:
    assert found.features == records.features(provenance=False)
    assert len(found) == rows
    for row in found:
        number = int(row["prompt"].split()[1].rstrip(","))
        assert (np.asarray(row["image"]) == film(number)).all()
        assert row["filename"] == name(number)
        assert row["labels_dict"]["Edema"] == (1 if number % 2 else None)
        assert row["labels_dict"]["Fracture"] is None


@pytest.mark.parametrize(
    ("inside", "column", "prompt"),
    [
        ("", "img_savename", "prompt"),
        ("a/b/", "synthetic_filename", "annotated_prompt"),
        ("x/", "img_savename", "prompt"),
    ],
)
def test_a_zip_with_a_table_and_a_script(tmp_path: Path, inside: str, column: str, prompt: str, capsys: Any) -> None:
    source = upstream(tmp_path / "SynthCheX-75K", inside=inside, column=column, prompt=prompt)
    convert([str(source), "--out", str(tmp_path / "set"), "--quiet", "--json"])
    said = json.loads(capsys.readouterr().out)
    check(load(tmp_path / "set", tmp_path))
    assert (said["rows"], said["of"], said["unreadable"]) == (8, 8, {})
    assert said["identifiers"] == {"MIMIC-CXR dicom_id": 8}
    assert json.loads((tmp_path / "set" / "conversion.json").read_text())["rows"] == 8


def test_the_summary_says_that_names_are_identifiers(tmp_path: Path, capsys: Any) -> None:
    convert([str(upstream(tmp_path / "u")), "--out", str(tmp_path / "set")])
    assert "names are identifiers of real films: MIMIC-CXR dicom_id (8 films); synthchex publish replaces" in (
        capsys.readouterr().out
    )


def test_a_folder_of_images_with_a_table_beside_it_or_a_zip_alone(tmp_path: Path) -> None:
    source = upstream(tmp_path / "u")
    with zipfile.ZipFile(source / "ALL_FILES.zip") as archive:
        archive.extractall(tmp_path / "f" / "images")
    write_table(tmp_path / "f", 8, "img_savename", "prompt", False)
    convert([str(tmp_path / "f"), "--out", str(tmp_path / "one"), "--quiet"])
    convert([str(source / "ALL_FILES.zip"), "--out", str(tmp_path / "two"), "--quiet"])
    check(load(tmp_path / "one", tmp_path))
    check(load(tmp_path / "two", tmp_path))


def test_a_table_inside_the_zip(tmp_path: Path) -> None:
    source = upstream(tmp_path / "u")
    with zipfile.ZipFile(source / "ALL_FILES.zip", "a") as archive:
        archive.write(source / "metadata.csv", "metadata.csv")
    (source / "metadata.csv").unlink()
    convert([str(source / "ALL_FILES.zip"), "--out", str(tmp_path / "set"), "--quiet"])
    check(load(tmp_path / "set", tmp_path))


def test_answers_of_a_judge_become_classes_and_one_without_a_class_is_no_quality(tmp_path: Path) -> None:
    convert([str(upstream(tmp_path / "u", quality=True)), "--out", str(tmp_path / "set"), "--all", "--quiet"])
    assert len(load(tmp_path / "set", tmp_path)) == 4
    assert len(load(tmp_path / "set", tmp_path, "high_quality")) == 2
    everything = load(tmp_path / "set", tmp_path, "all")
    found = {row["prompt"].split()[1]: (row["quality"], row["drop_reason"]) for row in everything}
    assert found["0,"] == ("High Quality", None)
    assert found["1,"] == ("Medium Quality", None)
    assert found["2,"] == ("Low Quality", "low_quality")
    assert found["3,"] == (None, "unparsed_verdict")


def test_films_that_are_missing_or_damaged_are_left_out_and_named(tmp_path: Path, capsys: Any) -> None:
    source = upstream(tmp_path / "u")
    path = source / "ALL_FILES.zip"
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
        where = archive.getinfo(f"synthetic/{name(5)}")
        damaged = where.header_offset + 30 + len(where.filename) + 40
    with zipfile.ZipFile(path, "w") as archive:
        for place, (member, content) in enumerate(kept.items()):
            archive.writestr(member, content if place != 3 else b"<html>")
    content = bytearray(path.read_bytes())
    content[damaged - 0] ^= 0xFF
    path.write_bytes(bytes(content))
    table = source / "metadata.csv"
    table.write_text(table.read_text().replace(name(7), "gone.png"))
    convert([str(source), "--out", str(tmp_path / "set"), "--quiet", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 5
    assert said["unreadable"]["missing"] == 1
    assert said["unreadable"]["not-an-image"] == 1
    assert said["unreadable"]["truncated"] == 1
    assert {row["name"] for row in said["unreadable_rows"]} >= {name(3), "gone.png"}
    assert said["notes"] == {"missing": 1}


def arrays(folder: Path, *, rows: int = 10, channels: int = 3, prompt: str = "prompt") -> Path:
    """Parquet as SynthCheX-75K-v2 declares it: Array3D pixels, a name, a text."""
    (folder / "data").mkdir(parents=True)
    shape = (12, 12, channels)
    made = {
        "image_filename": [name(row) for row in range(rows)],
        prompt: [f"Finding {row}" for row in range(rows)],
        "image": [np.random.default_rng(row).integers(0, 256, shape, np.uint8) for row in range(rows)],
    }
    types = {"image_filename": Value("string"), prompt: Value("string"), "image": Array3D(shape, "uint8")}
    Dataset.from_dict(made, Features(types)).to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))
    return folder


def test_films_as_arrays_become_images_with_the_same_pixels(tmp_path: Path) -> None:
    source = arrays(tmp_path / "v2", prompt="label")
    with pytest.raises(ValueError, match="has no prompts"):
        convert([str(source), "--out", str(tmp_path / "set"), "--quiet"])
    convert([str(source), "--out", str(tmp_path / "set"), "--columns", "prompt=label", "--quiet"])
    found = load(tmp_path / "set", tmp_path)
    assert found.features == records.features(provenance=False)
    assert found["filename"] == [name(row) for row in range(10)]
    for row, one in enumerate(found):
        expected = np.random.default_rng(row).integers(0, 256, (12, 12, 3), np.uint8)
        assert (np.asarray(one["image"]) == expected).all()
    streamed = next(iter(load_dataset(str(tmp_path / "set"), split="train", streaming=True)))
    assert streamed["prompt"] == "Finding 0"


def as_lists(values: Any) -> Any:
    import pyarrow as pa

    return pa.array([values])


def test_nested_lists_of_any_order_and_type() -> None:
    square = np.arange(48, dtype=np.int64).reshape(4, 4, 3)
    assert (pixels.film(as_lists(square.tolist())) == square).all()
    assert pixels.film(as_lists(square.tolist())).dtype == np.uint8
    first = np.moveaxis(np.arange(3 * 20, dtype=np.uint8).reshape(3, 4, 5), 0, 2)
    assert (pixels.film(as_lists(np.moveaxis(first, 2, 0).tolist())) == first).all()
    assert pixels.film(as_lists([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([[1, 2, 3], [4]], "ragged"),
        ([[1, 2, 3], [4], [5, 6, 7, 8, 9]], "ragged"),
        ([], "ragged"),
        ([[1, None]], "empty"),
        ([1, 2, 3], "not-an-image"),
        ([[0.5, 0.2]], "float-pixels"),
    ],
)
def test_nested_lists_that_are_no_film(cell: Any, reason: str) -> None:
    with pytest.raises(images.UnreadableImage) as caught:
        pixels.film(as_lists(cell))
    assert caught.value.reason == reason


def test_labels_as_text_in_a_column_named_label(tmp_path: Path) -> None:
    source = arrays(tmp_path / "v2")
    path = next(source.glob("data/*.parquet"))
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.append_column("label", [[labels(row) for row in range(10)]]), path)
    convert([str(source), "--out", str(tmp_path / "set"), "--quiet"])
    found = load(tmp_path / "set", tmp_path)
    assert [row["labels_dict"]["Edema"] for row in found] == [None, 1] * 5


def test_an_interrupted_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = upstream(tmp_path / "u", rows=8)
    real, seen = published.Place.read, list[str]()

    def read(place: published.Place, entry: published.Entry) -> bytes:
        seen.append(entry.name)
        if len(seen) > 7 and entry.archive:
            raise KeyboardInterrupt
        return real(place, entry)

    words = [str(source), "--out", str(tmp_path / "set"), "--shard-rows", "2", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(published.Place, "read", read)
        with pytest.raises(KeyboardInterrupt):
            convert(words)
    done = sorted((tmp_path / "set" / "data").glob("train-*"))
    assert 0 < len(done) < 4
    before = {path: path.stat().st_mtime_ns for path in done}
    convert(words)
    assert {path: path.stat().st_mtime_ns for path in done} == before
    check(load(tmp_path / "set", tmp_path))


def two_tables(folder: Path) -> None:
    (folder / "other.csv").write_bytes((folder / "metadata.csv").read_bytes())


def no_table(folder: Path) -> None:
    (folder / "metadata.csv").unlink()


def other_names(folder: Path) -> None:
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace(MIMIC, "other"))


def broken_zip(folder: Path) -> None:
    (folder / "ALL_FILES.zip").write_bytes(b"PK but no zip")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (two_tables, r"expected one table of films and prompts in .*, got 2 \(\['metadata.csv', 'other.csv'\]\)"),
        (no_table, "expected one table of films and prompts in .*, got 0"),
        (other_names, "expected the films of metadata.csv in .*, got none, e.g."),
        (broken_zip, "expected a whole zip, got .*ALL_FILES.zip"),
    ],
)
def test_what_cannot_be_converted_says_why(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    source = upstream(tmp_path / "u")
    harm(source)
    with pytest.raises(ValueError, match=message):
        convert([str(source), "--out", str(tmp_path / "set")])


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder, zip or Hub id, got 'no/such/thing'"):
        convert(["no/such/thing", "--out", str(tmp_path / "set")])
    with pytest.raises(ValueError, match="--columns must be ROLE=NAME with roles"):
        convert([str(upstream(tmp_path / "u")), "--out", str(tmp_path / "set"), "--columns", "gender=x"])


def test_few_films_of_arrays_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = arrays(tmp_path / "v2", rows=40)
    feed = pixels.open_pixels(source)
    assert feed is not None
    most = 0

    def chosen(*arguments: Any) -> Any:
        nonlocal most
        for numbers, cells in real(*arguments):
            most = max(most, len(cells))
            yield numbers, cells

    real = pixels._chosen
    monkeypatch.setattr(pixels, "_chosen", chosen)
    rows = np.array([0, 3, 17, 18, 39])
    found = [batch.table for batch in feed.films(rows, ())]
    assert [prompt for part in found for prompt in part["prompt"].to_pylist()] == [f"Finding {row}" for row in rows]
    assert most <= pixels.ROWS


def test_a_jpeg_in_a_png_name_keeps_its_bytes_and_gets_its_suffix(tmp_path: Path) -> None:
    source = upstream(tmp_path / "u", rows=2)
    import io

    buffer = io.BytesIO()
    Image.fromarray(film(0)).save(buffer, "JPEG")
    with zipfile.ZipFile(source / "ALL_FILES.zip", "w") as archive:
        archive.writestr(name(0), buffer.getvalue())
        archive.writestr(name(1), images.to_png(film(1)))
    convert([str(source), "--out", str(tmp_path / "set"), "--quiet"])
    rows = shards.Rows(shards.parquet_files(tmp_path / "set"))
    assert rows[0]["filename"] == name(0).replace(".png", ".jpg")
    assert rows[0]["image"]["bytes"] == buffer.getvalue()
    assert feeds.SIGNATURES[".jpg"] == buffer.getvalue()[:3]
