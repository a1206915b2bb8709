"""The builder class: the published layout and our shards, prepared, streamed and by several processes; a changed film
or table is never answered from the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthchex.data import feeds as films_of
from synthchex.data import images, making, published, records, shards
from synthchex.data.builder import SynthCheX

FOUR = ["image", "filename", "prompt", "labels_dict"]
ANSWERS = ("High Quality", "Medium Quality", "Low Quality", "")


def film(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)


def zipped(folder: Path, rows: int = 8, *, quality: bool = True, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "ALL_FILES.zip", "w") as archive:
        for row in range(rows):
            archive.writestr(f"all/{row}.png", images.to_png(film(row + seed)))
    return written(folder, rows, quality=quality)


def loose(folder: Path, rows: int = 8, *, quality: bool = True) -> Path:
    (folder / "all").mkdir(parents=True)
    for row in range(rows):
        (folder / "all" / f"{row}.png").write_bytes(images.to_png(film(row)))
    return written(folder, rows, quality=quality)


def written(folder: Path, rows: int, *, quality: bool) -> Path:
    lines = ["annotated_prompt,synthetic_filename,chexpert_labels" + (",quality" if quality else "")]
    for row in range(rows):
        cells = [f"Finding {row}", f"{row}.png", "\"{'Edema': 1.0, 'Fracture': nan}\""]
        lines.append(",".join([*cells, *([ANSWERS[row % 4]] if quality else [])]))
    (folder / "generations.csv").write_text("\n".join(lines) + "\n")
    return folder


def built(folder: Path) -> Path:
    source = zipped(folder / "source", 12)
    words = {"shares": {"train": 0.6, "test": 0.4}, "everything": True, "shard_rows": 3}
    making.make(published.open_published(source), making.Making(folder / "set", **words), quiet=True)  # type: ignore[arg-type]
    return folder / "set"


def prepared(source: Path, cache: Path, config: str = "default", split: str = "train", **options: Any) -> Any:
    builder = SynthCheX(config_name=config, data_dir=str(source), cache_dir=str(cache))
    builder.download_and_prepare(**options)
    return builder.as_dataset(split=split)


@pytest.mark.parametrize("make", [zipped, loose])
def test_the_published_layout(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = make(tmp_path / "SynthCheX-75K")
    found = prepared(source, tmp_path / "cache")
    assert found.features == records.features(provenance=False)
    assert found["prompt"] == [f"Finding {row}" for row in (0, 1, 3, 4, 5, 7)]
    assert all((np.asarray(row["image"]) == film(int(row["filename"][:-4]))).all() for row in found)
    assert found[0]["labels_dict"] == records.labels_dict({"Edema": 1})
    assert prepared(source, tmp_path / "cache", "high_quality")["prompt"] == ["Finding 0", "Finding 4"]
    everything = prepared(source, tmp_path / "cache", "all")
    assert everything.column_names == [*FOUR, *records.VERDICT_COLUMNS]
    assert everything["drop_reason"] == [None, None, "low_quality", None] * 2


@pytest.mark.parametrize("config", ["default", "high_quality", "all"])
def test_streaming_gives_the_same_rows_and_unpacks_nothing(tmp_path: Path, config: str) -> None:
    source = zipped(tmp_path / "u")
    loaded = prepared(source, tmp_path / "cache", config)
    before = sorted(tmp_path.rglob("*"))
    builder = SynthCheX(config_name=config, data_dir=str(source), cache_dir=str(tmp_path / "cache"))
    streamed = builder.as_streaming_dataset(split="train")
    assert [{**row, "image": None} for row in streamed] == [{**row, "image": None} for row in loaded]
    assert streamed.features == loaded.features
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.suffix != ".lock"] == []


def test_our_shards_by_split_and_quality(tmp_path: Path) -> None:
    from datasets import load_dataset

    source = built(tmp_path)
    for config in ("default", "high_quality", "all"):
        for split in ("train", "test"):
            mine = prepared(source, tmp_path / "cache", config, split)
            theirs = load_dataset(str(source), config, split=split, cache_dir=str(tmp_path / "c"))
            assert mine["filename"] == theirs["filename"]
            assert mine.column_names == theirs.column_names
            assert [np.asarray(i).tolist() for i in mine["image"]] == [np.asarray(i).tolist() for i in theirs["image"]]


def test_shards_that_filter_wrote_are_chosen_by_their_verdicts(tmp_path: Path) -> None:
    kinds = ("High Quality", "Medium Quality", "Low Quality")
    made = [
        {
            "image": {"bytes": images.to_png(film(row)), "path": "x.png"},
            **{"filename": f"{row}.png", "prompt": f"p {row}", "labels_dict": records.labels_dict(), "id": str(row)},
            **{"quality": kinds[row % 3], "drop_reason": None if row % 3 < 2 else "low_quality", "judge": "fixed"},
        }
        for row in range(9)
    ]
    plan = shards.Plan("filter", "test", 9, 2, {})
    shards.begin(tmp_path / "judged", plan)
    kept = records.features(verdict=True)
    shards.fill(tmp_path / "judged", plan, lambda span: [made[row] for row in span], kept, unit="films", quiet=True)
    assert len(prepared(tmp_path / "judged", tmp_path / "cache")) == 6
    assert prepared(tmp_path / "judged", tmp_path / "cache", "high_quality")["filename"] == ["0.png", "3.png", "6.png"]
    assert set(prepared(tmp_path / "judged", tmp_path / "cache", "all")["judge"]) == {"fixed"}


def prompt_changes(source: Path) -> str:
    table = source / "generations.csv"
    stat = table.stat()
    table.write_text(table.read_text().replace("Finding 0", "Finding 9"))
    os.utime(table, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return "prompt"


def rows_go(source: Path) -> str:
    table = source / "generations.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:3]) + "\n")
    return "rows"


def film_changes(source: Path) -> str:
    if (source / "all").is_dir():
        (source / "all" / "0.png").write_bytes(images.to_png(255 - film(0)))
    else:
        with zipfile.ZipFile(source / "ALL_FILES.zip", "w") as archive:
            for row in range(8):
                archive.writestr(f"all/{row}.png", images.to_png(255 - film(row)))
    return "film"


@pytest.mark.parametrize("make", [zipped, loose])
@pytest.mark.parametrize("change", [prompt_changes, rows_go, film_changes])
def test_a_change_under_the_same_name_is_never_answered_from_the_cache(
    make: Callable[[Path], Path], change: Callable[[Path], str], tmp_path: Path
) -> None:
    source = make(tmp_path / "u")
    first = prepared(source, tmp_path / "cache")
    assert prepared(source, tmp_path / "cache").cache_files == first.cache_files
    what = change(source)
    again = prepared(source, tmp_path / "cache")
    expected = {
        "prompt": lambda: again["prompt"][0] == "Finding 9",
        "rows": lambda: len(again) == 2,
        "film": lambda: (np.asarray(again[0]["image"]) == 255 - film(0)).all(),
    }
    assert expected[what]()
    assert len(first) == 6
    assert first["prompt"][0] == "Finding 0"


def test_the_hash_is_that_of_the_content_and_not_of_the_place_of_a_zip(tmp_path: Path) -> None:
    one, other = zipped(tmp_path / "a"), zipped(tmp_path / "b")
    assert published.content_hash(one) == published.content_hash(other)
    assert published.content_hash(zipped(tmp_path / "c", seed=1)) != published.content_hash(one)


def test_several_processes_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys\nfrom synthchex.data import builder\n"
        "if __name__ == '__main__':\n"
        "    b = builder.SynthCheX(data_dir=sys.argv[1], cache_dir=sys.argv[2])\n"
        "    b.download_and_prepare(num_proc=2)\n"
        "    print(b.as_dataset(split='train')['prompt'][:])\n"
    )
    source = zipped(tmp_path / "u", 2400, quality=False)
    script = tmp_path / "script.py"
    script.write_text(code)
    words = [sys.executable, str(script), str(source), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([f"Finding {row}" for row in range(2400)])
    assert "only contains one shard" not in done.stderr


def test_high_quality_without_a_quality_is_an_error(tmp_path: Path) -> None:
    source = zipped(tmp_path / "u", quality=False)
    with pytest.raises(ValueError, match=r"expected a quality for each film of .*, got none; use the configuration"):
        prepared(source, tmp_path / "cache", "high_quality")
    assert len(prepared(source, tmp_path / "cache")) == 8
    assert prepared(source, tmp_path / "cache", "all")["quality"] == [None] * 8


def test_nothing_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="data_dir must be the folder or zip of the dataset, got None"):
        SynthCheX()
    with pytest.raises(ValueError, match="expected a folder or zip, got nowhere, which is not there"):
        SynthCheX(data_dir="nowhere")


def test_a_damaged_film_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = loose(tmp_path / "u")
    (source / "all" / "1.png").write_bytes(b"no film")
    assert "1.png" not in prepared(source, tmp_path / "cache")["filename"]
    assert "row 1, 1.png, is left out: its film is not-an-image" in caplog.text


def test_a_protocol_is_read_like_a_folder(tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    source = zipped(tmp_path / "u")
    system = MemoryFileSystem()
    system.store.clear()
    for path in source.iterdir():
        system.pipe(f"/set/{path.name}", path.read_bytes())
    streamed = SynthCheX(data_dir="memory://set", cache_dir=str(tmp_path / "c")).as_streaming_dataset(split="train")
    assert [row["prompt"] for row in streamed] == [f"Finding {row}" for row in (0, 1, 3, 4, 5, 7)]


def test_the_script_of_the_room_gives_the_class_and_needs_no_deep_learning(tmp_path: Path) -> None:
    source = zipped(tmp_path / "u")
    code = (
        "import runpy, sys, synthchex\n"
        "made = runpy.run_path(str(synthchex.room('datasets_scripts') / 'synthchex.py'))['SynthCheX']\n"
        f"b = made(data_dir={str(source)!r}, cache_dir={str(tmp_path / 'c')!r})\n"
        "print([m for m in ('torch', 'transformers', 'evaluate') if m in sys.modules])\n"
        "print(len(list(b.as_streaming_dataset(split='train'))), made.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "6 synthchex.data.builder"]


def test_a_feed_gives_any_rows_in_order(tmp_path: Path) -> None:
    feed = published.open_published(zipped(tmp_path / "u", 250))
    rows = np.array([0, 3, 99, 100, 101, 249])
    found = [name for batch in feed.films(rows, ()) for name in batch.table["filename"].to_pylist()]
    assert found == [f"{row}.png" for row in rows]
    assert isinstance(feed, films_of.Feed)
    assert feed.count == 250
