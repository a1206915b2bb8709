"""`synthchex remove-text`: films without text leave as they came; the rest is said per row; any kill, any processes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthchex import cli, phantom
from synthchex.data import images, shards

PLAIN, MARKED, NOTED, BROKEN, DEEP = range(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film without text, one with a side marker, one with a note too, a broken one, and one of 16 bits with text."""
    path = tmp_path_factory.mktemp("films")
    marked = phantom.make(12, size=128, seed=3, markers=True)
    noted = next(row for row, boxes in enumerate(marked.boxes) if len(boxes) == 2)
    lone = next(row for row, boxes in enumerate(marked.boxes) if len(boxes) == 1)
    films = [phantom.make(1, size=128, seed=3).images[0], marked.images[lone], marked.images[noted]]
    for number, film in enumerate(films):
        Image.fromarray(film).save(path / f"{number}.png")
    (path / "3.png").write_bytes(b"\x89PNG\r\n and no more")
    Image.fromarray(films[NOTED].astype(np.uint16) * 257).save(path / "4.png")
    return path


def rows_of(out: Path) -> list[dict]:
    """All rows of an output."""
    rows = shards.Rows(shards.parquet_files(out))
    return [rows[index] for index in range(len(rows))]


@pytest.fixture(scope="module")
def cleaned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after the command."""
    out = tmp_path_factory.mktemp("out") / "clean"
    assert cli.main(["remove-text", "--images", str(folder), "--out", str(out), "--batch-size", "2", "--quiet"]) == 0
    return out


def test_every_row_says_what_was_done(cleaned: Path) -> None:
    rows = rows_of(cleaned)
    said = [row["text_reason"] for row in rows]
    assert said == [None, "kept-side-marker", "removed", "unreadable-damaged", "removed"]
    fates = [[text["fate"] for text in json.loads(row["text_boxes"] or "[]")] for row in rows]
    assert fates[PLAIN] == fates[BROKEN] == []
    assert fates[MARKED] == ["kept"]
    assert sorted(fates[NOTED]) == ["kept", "removed"]
    assert json.loads(rows[0]["text_tools"])["detector"] == "tophat"


def test_films_without_text_leave_byte_for_byte(cleaned: Path, folder: Path) -> None:
    for number, row in list(enumerate(rows_of(cleaned)))[: MARKED + 1]:
        assert row["image"]["bytes"] == (folder / f"{number}.png").read_bytes()
        assert row["text_mask"] is None


@pytest.mark.parametrize("number", [NOTED, DEEP])
def test_only_masked_pixels_change(cleaned: Path, folder: Path, number: int) -> None:
    row = rows_of(cleaned)[number]
    before, after = images.read(folder / f"{number}.png").pixels, images.read(row["image"]).pixels
    mask = images.read(row["text_mask"]).pixels
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(before[mask == 0], after[mask == 0])
    assert (before[mask == 255] != after[mask == 255]).mean() > 0.5


def test_unreadable_films_are_rows_without_an_image(cleaned: Path) -> None:
    assert rows_of(cleaned)[BROKEN]["image"] is None


def test_the_output_loads_as_a_dataset_and_as_input(cleaned: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(cleaned), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[NOTED]["image"].size == (128, 128)
    assert cli.main(["remove-text", "--images", str(cleaned), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert [row["text_reason"] for row in rows_of(tmp_path / "again")][NOTED] == "kept-side-marker"


def test_side_markers_go_when_asked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clean"
    command = ["remove-text", "--images", str(folder), "--out", str(out), "--remove-side-markers", "--json"]
    assert cli.main([*command, "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 5
    assert found["films"] == {"no-text": 1, "removed": 3, "unreadable-damaged": 1}
    assert found["texts"] == {"removed": 5}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6 * 128
        assert len(sheet.getcolors(2**24) or []) > 100


def test_a_run_goes_on_where_it_stopped_and_gives_the_same_bytes(cleaned: Path, folder: Path, tmp_path: Path) -> None:
    def digests(out: Path) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in shards.parquet_files(out)]

    out = tmp_path / "clean"
    command = ["remove-text", "--images", str(folder), "--out", str(out), "--batch-size", "2", "--quiet"]
    assert cli.main(command) == 0
    second = shards.parquet_files(out)[1]
    kept = shards.parquet_files(out)[0].stat().st_mtime_ns
    second.unlink()
    assert cli.main(command) == 0
    assert digests(out) == digests(cleaned)
    assert shards.parquet_files(out)[0].stat().st_mtime_ns == kept
    assert cli.main([*command, "--segmenter", "boxes"]) == 2, "another recipe is another run"


def test_two_processes_give_the_bytes_of_one(cleaned: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    command = ["launch", "--num-processes", "2", "remove-text", "--images", str(folder), "--out", str(out)]
    assert cli.main([*command, "--batch-size", "2", "--device", "cpu", "--quiet"]) == 0
    for one, other in zip(shards.parquet_files(out), shards.parquet_files(cleaned), strict=True):
        assert pq.read_table(one).equals(pq.read_table(other))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("extra", [["--batch-size", "0"], ["--steps", "0"], ["--contact-films", "0"]])
def test_numbers_that_make_no_sense_are_refused(
    extra: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["remove-text", "--images", str(folder), "--out", str(tmp_path / "out"), *extra]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_set_without_text_gets_no_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    Image.fromarray(phantom.make(1, size=128, seed=3).images[0]).save(tmp_path / "films" / "a.png")
    command = ["remove-text", "--images", str(tmp_path / "films"), "--out", str(tmp_path / "out"), "--quiet"]
    assert cli.main([*command, "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    assert not (tmp_path / "sheet.png").exists()
    assert "no film has text" in capsys.readouterr().err
