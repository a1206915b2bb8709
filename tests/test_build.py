"""Datasets that are built: each layout through the real load_dataset, splits, configurations, card, interruptions."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Value, load_dataset
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import synthchex
from synthchex.data import (
    datacard,
    feeds,
    images,
    layout,
    making,
    parquet,
    records,
    sections,
    shards,
    sources,
    splits,
    survey,
    tables,
)

FOUR = ["image", "filename", "prompt", "labels_dict"]
build = runpy.run_path(str(synthchex.room("datasets_scripts") / "build.py"))["main"]


def pixels(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def table(folder: Path, rows: int = 24, *, prompts: int = 12, bad: Sequence[int] = ()) -> Path:
    """Films in a folder and their table: `prompts` different prompts, every third film with Edema."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,prompt,Edema,Cardiomegaly"]
    for row in range(rows):
        content = b"no film" if row in bad else images.to_png(pixels(row))
        (folder / f"film{row}.png").write_bytes(content)
        lines.append(f"film{row}.png,Finding {row % prompts},{(1, 0, '')[row % 3]},{(-1, '')[row % 2]}")
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    return folder / "films.csv"


def judged(folder: Path, rows: int = 24, *, policy: str | None = "open") -> Path:
    """What `synthchex filter` writes: rows of High, Medium, Low Quality in turn, the last one unreadable."""
    kinds = ("High Quality", "Medium Quality", "Low Quality")
    made = []
    for row in range(rows):
        kept = row % 3 < 2
        film = {"bytes": images.to_png(pixels(row)), "path": f"{row}.png"}
        made.append(
            {
                "image": None if row == rows - 1 else film,
                "filename": f"{row}.png",
                "prompt": f"Finding {row // 3}",
                "labels_dict": records.labels_dict({"Edema": (1, 0, -1, None)[row % 4]}),
                "id": str(row),
                "model": "noise",
                "quality": None if row == rows - 1 else kinds[row % 3],
                "quality_scores": "{}",
                "judge": "fixed",
                "drop_reason": None if kept else "unreadable-missing" if row == rows - 1 else "low_quality",
                "source_policy": policy,
            }
        )
    features = records.features(verdict=True)
    features["source_policy"] = Value("string")
    if policy is None:
        del features["source_policy"]
    plan = shards.Plan("filter", "test", rows, 5, {})
    shards.begin(folder, plan)
    shards.fill(folder, plan, lambda span: [made[row] for row in span], features, unit="films", quiet=True)
    return folder


def load(folder: Path, tmp_path: Path, name: str | None = None, split: str = "train", **options: Any) -> Any:
    return load_dataset(str(folder), name, split=split, cache_dir=str(tmp_path / "cache"), **options)


def test_three_configurations_are_sets_of_files_and_no_film_is_stored_twice(tmp_path: Path) -> None:
    build(["--images", str(judged(tmp_path / "judged")), "--out", str(tmp_path / "set"), "--all", "--quiet"])
    names = sorted(path.name for path in (tmp_path / "set" / "data").iterdir())
    assert names == [f"train-{group}-00000-of-00001.parquet" for group in ("high", "medium", "rejected")]
    kept, high = load(tmp_path / "set", tmp_path), load(tmp_path / "set", tmp_path, "high_quality")
    assert kept.column_names == high.column_names == FOUR
    assert kept.features == records.features(provenance=False)
    assert [row["filename"] for row in high] == [f"{row}.png" for row in range(0, 24, 3)]
    assert [row["filename"] for row in kept][8:] == [f"{row}.png" for row in range(1, 24, 3)]
    assert all((np.asarray(row["image"]) == pixels(int(row["filename"][:-4]))).all() for row in kept)
    everything = load(tmp_path / "set", tmp_path, "all")
    assert everything.column_names == [*FOUR, "source_policy", *records.VERDICT_COLUMNS]
    assert set(everything["drop_reason"]) == {None, "low_quality"}
    assert len(everything) == 23, "the film that nobody could read is in no configuration"
    stored = shards.Rows(shards.parquet_files(tmp_path / "set")).column("filename")
    assert len(stored) == len(set(stored))
    card = (tmp_path / "set" / "README.md").read_text()
    assert "| `default` | 16 |" in card
    assert "| `high_quality` | 8 |" in card
    assert "| `all` | 23 |" in card


def test_streaming_gives_the_same_rows(tmp_path: Path) -> None:
    build(["--images", str(judged(tmp_path / "judged")), "--out", str(tmp_path / "set"), "--all", "--quiet"])
    for name in ("default", "high_quality", "all"):
        streamed = list(load_dataset(str(tmp_path / "set"), name, split="train", streaming=True))
        loaded = list(load(tmp_path / "set", tmp_path, name))
        assert [{**row, "image": None} for row in streamed] == [{**row, "image": None} for row in loaded]


def test_without_all_the_policy_stays_in_the_rows_and_the_four_columns_are_read(tmp_path: Path) -> None:
    build(["--images", str(judged(tmp_path / "judged")), "--out", str(tmp_path / "set"), "--quiet"])
    rows = shards.Rows(shards.parquet_files(tmp_path / "set"))
    assert rows.columns == [*FOUR, "source_policy"]
    assert load(tmp_path / "set", tmp_path).column_names == FOUR
    assert "source policy | open" in (tmp_path / "set" / "README.md").read_text()


def test_verdicts_cannot_be_written_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--all writes verdicts, got .* without any; run `synthchex filter` first"):
        build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), "--all"])
    with pytest.raises(ValueError, match="--all needs --format parquet, got webdataset"):
        build(["--images", "x", "--out", str(tmp_path / "set"), "--all", "--format", "webdataset"])


def three(tmp_path: Path, *more: str) -> dict[str, Any]:
    words = ["--split", "train=0.6", "--split", "validation=0.2", "--split", "test=0.2", "--quiet", *more]
    build(["--images", str(table(tmp_path / "films", 60, prompts=30)), "--out", str(tmp_path / "set"), *words])
    return {name: load(tmp_path / "set", tmp_path, split=name) for name in ("train", "validation", "test")}


def test_splits_hold_every_film_once_and_share_no_prompt(tmp_path: Path) -> None:
    found = three(tmp_path)
    assert sum(map(len, found.values())) == 60
    prompts = [set(part["prompt"]) for part in found.values()]
    assert not prompts[0] & prompts[1]
    assert not prompts[0] & prompts[2]
    assert not prompts[1] & prompts[2]
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"train {len(found['train'])}, validation {len(found['validation'])}" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train=0.5", "test=0.4"], r"must be above 0 and add up to 1, got \{'train': 0.5, 'test': 0.4\}"),
        (["train=0.5", "train=0.5"], "a name that stands once"),
        (["my-split=1"], "must be NAME=SHARE with letters, digits and _"),
        (["all=1"], "is not all"),
        (["train=most"], r"must be NAME=SHARE, e.g. train=0.8, got 'train=most'"),
        (["train=1.5", "test=-0.5"], "must be above 0"),
    ],
)
def test_wrong_splits_are_refused_before_anything_is_read(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(["--images", "nothing", "--out", "nowhere", *(word for s in words for word in ("--split", s))])


def test_a_split_without_a_film_is_an_error(tmp_path: Path) -> None:
    films = table(tmp_path / "films", 6, prompts=1)
    with pytest.raises(ValueError, match=r"would have no film: 6 films have 1 groups of prompts and patients"):
        build(["--images", str(films), "--out", str(tmp_path / "set"), "--split", "a=0.5", "--split", "b=0.5"])


texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.integers(0, 5), min_size=60, max_size=60), st.randoms(use_true_random=False))
def test_neither_a_prompt_nor_a_patient_crosses_splits_in_any_order(
    prompts: list[str], owners: list[int], random: Any
) -> None:
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    rows = list(zip(prompts, owners, strict=False))

    def split_of(rows: list[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        prompt = splits.keys(splits.normalised(text) for text, _ in rows)
        patient = splits.keys(str(owner) for _, owner in rows)
        return dict(zip(rows, splits.assign(splits.linked(prompt, patient), shares).tolist(), strict=True))

    found = split_of(rows)
    for place in (0, 1):
        seen: dict[Any, set[int]] = {}
        for row, split in found.items():
            key = splits.normalised(row[0]) if place == 0 else row[1]
            seen.setdefault(key, set()).add(split)
        assert all(len(where) == 1 for where in seen.values())
    random.shuffle(rows)
    assert split_of(rows) == found


def test_shares_are_kept_over_many_prompts_and_a_prompt_stays_when_others_come() -> None:
    keys = splits.keys(f"prompt {number}" for number in range(20_000))
    found = splits.assign(keys, {"train": 0.8, "validation": 0.1, "test": 0.1})
    assert np.bincount(found) / len(found) == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert (splits.assign(keys[::7], {"train": 0.8, "validation": 0.1, "test": 0.1}) == found[::7]).all()


@pytest.mark.parametrize(
    ("one", "other"), [("No effusion.", "no  EFFUSION"), ("ﬁbrosis", "fibrosis"), ("a-b", "A b"), (" x\n", "x")]
)
def test_prompts_that_differ_in_writing_only_are_one(one: str, other: str) -> None:
    assert splits.normalised(one) == splits.normalised(other)


def test_a_film_that_cannot_be_read_is_left_out_counted_and_named(tmp_path: Path, capsys: Any) -> None:
    films = table(tmp_path / "films", 12, bad=(3, 7))
    lines = films.read_text().splitlines()
    (films.parent / "film5.png").unlink()
    films.write_text("\n".join(lines) + "\n")
    (films.parent / "film3.png").write_bytes(b"")
    build(["--images", str(films), "--out", str(tmp_path / "set"), "--quiet", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["of"]) == (9, 12)
    assert said["unreadable"] == {"empty": 1, "not-an-image": 1, "missing": 1}
    assert {row["name"] for row in said["unreadable_rows"]} == {"film3.png", "film5.png", "film7.png"}
    assert len(load(tmp_path / "set", tmp_path)) == 9
    card = (tmp_path / "set" / "README.md").read_text()
    assert "1 (not-an-image)" in card
    assert "| films | 9 (train 9) |" in card


def test_no_film_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    films = table(tmp_path / "films", 3, bad=(0, 1, 2))
    with pytest.raises(ValueError, match="expected films that can be read, got none of 3"):
        build(["--images", str(films), "--out", str(tmp_path / "set"), "--quiet"])


def test_a_film_without_a_prompt_is_named_early(tmp_path: Path) -> None:
    films = table(tmp_path / "films", 4)
    films.write_text(films.read_text().replace("Finding 2", ""))
    with pytest.raises(ValueError, match=r"expected a prompt for every film of .*, got none in rows \[2\]"):
        build(["--images", str(films), "--out", str(tmp_path / "set")])
    assert not (tmp_path / "set").exists()


def test_png_and_jpeg_go_as_they_are_and_other_files_become_png(tmp_path: Path) -> None:
    films = table(tmp_path / "films", 3)
    folder = films.parent
    Image.fromarray(pixels(0)).save(folder / "film0.jpg", "JPEG")
    Image.fromarray(pixels(1)).save(folder / "film1.tiff", "TIFF")
    films.write_text(films.read_text().replace("film0.png", "film0.jpg").replace("film1.png", "film1.tiff"))
    build(["--images", str(films), "--out", str(tmp_path / "set"), "--quiet"])
    rows = shards.Rows(shards.parquet_files(tmp_path / "set"))
    assert [rows[row]["filename"] for row in range(3)] == ["film0.jpg", "film1.png", "film2.png"]
    assert rows[0]["image"]["bytes"] == (folder / "film0.jpg").read_bytes()
    assert rows[2]["image"]["bytes"] == (folder / "film2.png").read_bytes()
    assert (images.read(rows[1]["image"]).pixels == pixels(1)).all()


def test_films_in_shards_are_handed_on_without_being_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = judged(tmp_path / "judged")

    def decode(*_: Any) -> None:
        raise AssertionError("a film was decoded")

    feed = feeds.open_feed(source)
    monkeypatch.setattr(images, "read", decode)
    found = [batch.table for batch in feed.films(np.array([0, 1, 7, 22]), ["quality"])]
    assert [name for part in found for name in part["filename"].to_pylist()] == ["0.png", "1.png", "7.png", "22.png"]


def test_row_groups_are_short_in_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1200)
    build(["--images", str(table(tmp_path / "films", 24)), "--out", str(tmp_path / "set"), "--quiet"])
    meta = pq.read_metadata(shards.parquet_files(tmp_path / "set")[0])
    sizes = [meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)]
    assert meta.num_row_groups >= 8
    assert meta.num_rows == 24
    assert max(sizes) < 286 * 2**20
    monkeypatch.setattr(parquet, "MAX_ROW_BYTES", 100)
    with pytest.raises(ValueError, match="a row must have at most 100 bytes"):
        build(["--images", str(table(tmp_path / "films", 2)), "--out", str(tmp_path / "other"), "--quiet"])


def test_rows_of_a_rare_kind_are_gathered_into_whole_row_groups(tmp_path: Path) -> None:
    source = judged(tmp_path / "judged", 400)
    build(["--images", str(source), "--out", str(tmp_path / "set"), "--quiet", "--shard-rows", "250"])
    path = next((tmp_path / "set" / "data").glob("train-high-*"))
    meta = pq.read_metadata(path)
    assert [meta.row_group(group).num_rows for group in range(meta.num_row_groups)] == [100, 33]


def test_a_folder_of_images_is_read_with_all_types(tmp_path: Path) -> None:
    words = ["--split", "train=0.7", "--split", "test=0.3", "--format", "imagefolder", "--shard-rows", "4", "--quiet"]
    build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), *words])
    found = {split: load(tmp_path / "set", tmp_path, split=split) for split in ("train", "test")}
    named = load_dataset("imagefolder", data_dir=str(tmp_path / "set"), split="test", cache_dir=str(tmp_path / "c"))
    assert named["filename"] == found["test"]["filename"]
    assert sum(map(len, found.values())) == 24
    for part in found.values():
        assert part.features == records.features(provenance=False)
        for row in part:
            number = int(row["filename"][4:-4])
            assert (np.asarray(row["image"]) == pixels(number)).all()
            assert row["labels_dict"]["Edema"] == (1, 0, None)[number % 3]
    assert not any(name.endswith(".tmp") for _, names, _ in os.walk(tmp_path / "set") for name in names)


def test_tar_shards_stream(tmp_path: Path) -> None:
    words = ["--format", "webdataset", "--shard-rows", "10", "--quiet"]
    build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), *words])
    names = sorted(path.name for path in (tmp_path / "set" / "data").glob("*.tar"))
    assert names == [f"train-{number:05d}-of-00003.tar" for number in range(3)]
    streamed = list(load(tmp_path / "set", tmp_path, streaming=True))
    assert [row["json"]["filename"] for row in streamed] == [f"film{row}.png" for row in range(24)]
    assert all((np.asarray(row["png"]) == pixels(place)).all() for place, row in enumerate(streamed))
    assert [row["json"]["labels_dict"]["Edema"] for row in streamed[:3]] == [1, 0, None]
    assert len(load(tmp_path / "set", tmp_path)) == 24


@pytest.mark.parametrize("form", ["parquet", "imagefolder", "webdataset"])
def test_building_twice_changes_nothing_and_two_builds_agree(tmp_path: Path, form: str) -> None:
    films = table(tmp_path / "films")
    for name in ("one", "one", "two"):
        words = ["--format", form, "--shard-rows", "7", "--quiet"]
        build(["--images", str(films), "--out", str(tmp_path / name), *words, "--title", "T"])
        if name == "one":
            found = contents(tmp_path / "one")
    assert contents(tmp_path / "one") == found
    two = contents(tmp_path / "two")
    assert {**two, "README.md": two["README.md"].replace(b"two", b"one")} == found


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


KILLED = """
import json, sys, time
from synthchex.data import feeds, making
from pathlib import Path
real, checked = feeds.stored, feeds._checked
def slow(source):
    time.sleep(0.02)
    return real(source)
def slowly(*arguments):
    time.sleep(0.02)
    return checked(*arguments)
if sys.argv[4:]:
    feeds.batches.__kwdefaults__["read"], feeds._checked = slow, slowly
what = making.Making(Path(sys.argv[2]), **json.loads(sys.argv[3]))
making.make(feeds.open_feed(sys.argv[1]), what, quiet=True)
"""
SPLIT = {"shares": {"train": 0.6, "validation": 0.2, "test": 0.2}, "everything": True}


def started(films: Path, out: Path, form: dict[str, Any], *slow: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", KILLED, str(films), str(out), json.dumps(form), *slow])


@pytest.mark.parametrize(
    "form", [{"form": "imagefolder"}, {"form": "webdataset"}, SPLIT], ids=["imagefolder", "webdataset", "splits"]
)
def test_killed_at_any_moment_it_goes_on_to_the_same_result(tmp_path: Path, form: dict[str, Any]) -> None:
    films = judged(tmp_path / "films", 120) if form is SPLIT else table(tmp_path / "films", 32)
    form = {**form, "shard_rows": 4, "title": "T"}
    making.make(feeds.open_feed(films), making.Making(tmp_path / "whole", **form), quiet=True)
    child = started(films, tmp_path / "set", form, "slowly")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "set").rglob("*-00002-of-*.parquet")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "set" / "README.md").exists()
    other = started(films, tmp_path / "set", form) if "shares" in form else None
    making.make(feeds.open_feed(films), making.Making(tmp_path / "set", **form), quiet=True)
    assert other is None or other.wait(60) == 0
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "set") == {**whole, "README.md": whole["README.md"].replace(b"whole", b"set")}


@pytest.mark.parametrize("everything", [False, True])
def test_shards_are_read_once_however_many_splits_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    feed = feeds.open_feed(judged(tmp_path / "judged", 120))
    asked = list[np.ndarray]()
    real = feeds._inside

    def inside(file: Any, group: int, names: list[str], rows: np.ndarray) -> Any:
        asked.append(rows)
        return real(file, group, names, rows)

    monkeypatch.setattr(feeds, "_inside", inside)
    what = making.Making(tmp_path / "set", **{**SPLIT, "everything": everything})
    shape = layout.arrange(feed, survey.look(feed), what.shares, everything=everything)
    layout.write(what.out, shape.plan(feed, 1000, {}), shape, feed, quiet=True)
    assert len(shape.parts) == (9 if everything else 6)
    assert len(asked) == 24, "shards of 5 rows, one row group each"
    stored = shards.Rows(shards.parquet_files(what.out)).column("filename")
    assert len(stored) == len(set(stored)) == (119 if everything else 80)
    for part in shape.parts:
        found = shards.Rows(sorted((what.out / "data").glob(f"{part.name}-*"))).column("filename")
        kept = [row for row in part.rows.tolist() if row != 119]
        assert found == [f"{row}.png" for row in kept]


def test_sections_hold_every_shard_once_and_do_not_reach_far() -> None:
    rows = np.concatenate([np.arange(0, 10_000, 2), np.arange(1, 10_000, 20), np.arange(3, 10_000, 20)])
    plan = shards.Plan("build", "x", len(rows), 100, {}, (("a", 5_000), ("b", 500), ("c", 500)))
    found = sections.arrange(plan, rows, scanned=True)
    assert sorted(shard for section in found for shard in section) == list(range(60))
    read = 0
    for section in found:
        spans = [rows[plan.span(shard)] for shard in section]
        read += max(span[-1] for span in spans) - min(span[0] for span in spans)
    assert read < 2 * 10_000
    assert sections.arrange(plan, rows, scanned=False) == [[shard] for shard in range(60)]


def test_films_that_cannot_be_read_are_told_apart_by_shard(tmp_path: Path) -> None:
    feed = feeds.open_feed(table(tmp_path / "films", 24, bad=(3, 4, 5, 20)))
    seen = survey.look(feed)
    shape = layout.arrange(feed, seen, {"a": 0.5, "b": 0.5}, everything=False)
    plan = shape.plan(feed, 4, {})
    lost = layout.write(tmp_path / "set", plan, shape, dataclasses.replace(feed, scanned=True), quiet=True)
    assert sorted(one.row for one in lost) == [3, 4, 5, 20]
    for note in (tmp_path / "set" / layout.LOST).iterdir():
        number = [shard.name for shard in plan.files].index(note.name.removesuffix(".json"))
        here = shape.rows[plan.span(number)]
        assert {one["row"] for one in json.loads(note.read_text())} <= set(here.tolist())


def test_a_set_with_dropped_films_is_opened_as_load_dataset_opens_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    build(["--images", str(judged(tmp_path / "judged")), "--out", str(folder), "--all", "--quiet"])
    opened = sources.open_images(folder)
    assert opened.prompts == load(folder, tmp_path)["prompt"][:]
    assert set(opened.provenance["drop_reason"]) == {None}
    assert len(sources.open_images(folder, whole=True)) == tables.open_table(folder).count == 23
    assert (images.read(opened.fetch(8)).pixels == pixels(1)).all()
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("config_name: default", "config_name: other"))
    assert len(sources.open_images(folder)) == 23, "no configuration is the default"
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(ValueError, match=r"(?s)expected a card whose header names .*README.md; mend it"):
        sources.open_images(folder)
    (folder / "README.md").unlink()
    assert len(sources.open_images(folder)) == 23


def test_another_build_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    films = table(tmp_path / "films")
    build(["--images", str(films), "--out", str(tmp_path / "set"), "--quiet"])
    words = ["--split", "train=0.5", "--split", "test=0.5", "--quiet"]
    with pytest.raises(ValueError, match=r"holds another run \(.*recipe.splits.*choose another --out"):
        build(["--images", str(films), "--out", str(tmp_path / "set"), *words])


# The card.


def test_the_users_own_text_and_header_survive_and_the_marks_do_not_multiply(tmp_path: Path) -> None:
    films = table(tmp_path / "films")
    words = ["--images", str(films), "--out", str(tmp_path / "set"), "--quiet"]
    build([*words, "--title", "Mine"])
    path = tmp_path / "set" / "README.md"
    card = DatasetCard.load(path)
    card.data.license = "cc-by-4.0"
    card.data.tags = [*card.data.tags, "my-tag"]
    card.data["doi"] = "10.1/x"
    card.text = "My own words.\n\n" + card.text + "\n\n## Mine too\n"
    path.write_text(str(card))
    build([*words, "--calibration", "measured on 12 films"])
    found = DatasetCard.load(path)
    assert found.text.strip().startswith("My own words.")
    assert found.text.strip().endswith("## Mine too")
    assert (found.data.license, found.data.pretty_name, found.data["doi"]) == ("cc-by-4.0", "Mine", "10.1/x")
    assert found.data.tags[-1] == "my-tag"
    assert found.data.tags.count("medical") == 1
    assert path.read_text().count(datacard.BEGIN) == path.read_text().count(datacard.END) == 1
    assert "This dataset: `cc-by-4.0`." in found.text
    build([*words, "--license", "mit"])
    assert DatasetCard.load(path).data.license == "mit"
    assert len(load(tmp_path / "set", tmp_path)) == 24


def test_a_header_that_is_no_yaml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text("---\na: [1\n---\nx\n")
    with pytest.raises(ValueError, match=r"expected YAML at the head of README\.md"):
        build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), "--quiet"])


def test_the_card_says_what_was_counted_per_pathology(tmp_path: Path) -> None:
    source = judged(tmp_path / "judged")
    build(["--images", str(source), "--out", str(tmp_path / "set"), "--quiet", "--calibration", "measured on 9 films."])
    text = (tmp_path / "set" / "README.md").read_text()
    edema = [row for row in range(24) if row % 4 == 0]
    low = sum(row % 3 == 2 and row != 23 for row in edema)
    assert f"| Edema | {len(edema)} | {low} ({low / len(edema):.1%}) | {low} | 0 |" in text
    assert "| **any** | 24 | 8 (33.3%) | 7 | 1 |" in text
    assert "Judge: fixed. Measured on 9 films.\n" in text
    assert "| `model` | noise |" in text
    assert "Where there is none below, the gate was not run" in text
    assert "This dataset was not scored against real films." in text
    kept = [row % 4 for row in range(24) if row % 3 < 2]
    counts = " | ".join(str(kept.count(state)) for state in range(4))
    assert f"| Edema | {counts} |" in text
    assert "{{" not in text
    assert "More Information" not in text


def test_the_card_tells_scores_with_intervals_and_what_the_gate_found(tmp_path: Path) -> None:
    row = {"label": "KID", "encoder": "rad-dino", "value": 0.01234, "interval": [0.011, 0.0137], "floor": 0.0002}
    none = {"label": "FID", "encoder": "rad-dino", "value": None, "interval": None, "state": "insufficient n"}
    scores = [{**row, "better": "lower", "state": "ok"}, {**none, "better": "lower"}]
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": 2, "overall": scores}))
    measured = {"caught": {"crop": {"any": [98, 100, 0.93, 0.998]}}, "false_alarms": [1, 100, 0.0, 0.054]}
    gate = {"rows": 24, "terms": {}, "findings": [], "calibration": measured}
    (tmp_path / "gate.json").write_text(json.dumps(gate))
    words = ["--results", str(tmp_path / "results.json"), "--gate", str(tmp_path / "gate.json"), "--quiet"]
    build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), *words])
    text = (tmp_path / "set" / "README.md").read_text()
    assert "| KID | rad-dino | 0.01234 | 0.011 to 0.0137 | 0.0002 | lower |" in text
    assert "| FID | rad-dino | insufficient n | not computed | not measured | lower |" in text
    assert "| crop | 98 of 100 | 0.930 to 0.998 |" in text
    assert "wrongly called copies: 1 of 100 (0.000 to 0.054)" in text


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--results", "{}", "--results must be results.json of synthchex evaluate, schema 2, got schema None"),
        ("--results", "[1]", "--results must hold a JSON object, got list"),
        ("--gate", "{}", "--gate must be gate.json of synthchex publish"),
        ("--gate", "x", "--gate must be a JSON file"),
    ],
)
def test_wrong_evidence_is_refused_before_a_film_is_written(
    tmp_path: Path, option: str, content: str, message: str
) -> None:
    (tmp_path / "file.json").write_text(content)
    films = table(tmp_path / "films", 2)
    with pytest.raises(ValueError, match=message):
        build(["--images", str(films), "--out", str(tmp_path / "set"), option, str(tmp_path / "file.json")])
    assert not (tmp_path / "set").exists()


def test_the_sample_grid_is_a_png_that_the_card_shows(tmp_path: Path) -> None:
    build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), "--quiet"])
    grid = np.asarray(Image.open(tmp_path / "set" / "samples.png"))
    assert grid.shape == (640, 640)
    assert all(grid[y : y + 160, x : x + 160].std() > 5 for y in range(0, 640, 160) for x in range(0, 640, 160))
    assert "](samples.png)" in (tmp_path / "set" / "README.md").read_text()


def test_label_states_are_counted_in_one_pass(tmp_path: Path) -> None:
    build(["--images", str(table(tmp_path / "films")), "--out", str(tmp_path / "set"), "--quiet"])
    found = survey.states(shards.parquet_files(tmp_path / "set"))
    assert found["Edema"] == {"present": 8, "absent": 8, "uncertain": 0, "not mentioned": 8}
    assert found["Cardiomegaly"]["uncertain"] == 12
    assert found["Fracture"]["not mentioned"] == 24


def test_films_are_grouped_by_quality_and_by_whether_they_were_dropped(tmp_path: Path) -> None:
    feed = feeds.open_feed(judged(tmp_path / "judged", policy=None))
    seen = survey.look(feed)
    assert seen.groups == ["high", "medium", "rejected"]
    assert seen.kept.sum() == 16
    assert seen.dropped["low_quality"][""] == 7
    shape = layout.arrange(feed, seen, {"train": 1.0}, everything=False)
    assert [part.name for part in shape.parts] == ["train-high", "train-medium"]
    assert shape.columns == []
