"""What the studio does, without its page: films, texts, filters, thumbnails, ratings, neighbours, reports, safety."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import synthchex
from synthchex import judges, options, phantom, textmask
from synthchex.commands import studio as command
from synthchex.data import images, recipes, records, shards
from synthchex.data.film import UnreadableImage
from synthchex.models import samplers
from synthchex.models.samplers import rows as films
from synthchex.models.samplers.recipe import provenance
from synthchex.studio import browse, clean, generate, index, markup, neighbours, reports, safety, thumbs
from synthchex.studio.browse import PAGE_ROWS, Browser, Place
from synthchex.studio.index import KEEP, STORED, WORST, Filter
from synthchex.studio.ratings import Ratings

NOISE = samplers.Recipe("noise", sampler="noise", height=32, width=32, steps=3)
STATES = (1, 0, -1, None)


def dataset(folder: Path, count: int = 60, *, policy: str = "open", scores: bool = True) -> Path:
    """A judged set of small films: film i has the score i / count, and its class by that."""
    made = phantom.make(min(count, 20), size=32, seed=1)
    pngs = [images.to_png(film) for film in made.images]
    rows: list[dict[str, Any]] = []
    for row in range(count):
        keep = row / count
        quality = records.QUALITIES[min(int(4 * (1 - keep)), 3)]
        split = {"High Quality": keep, "Medium Quality": 0.0, "Low Quality": 1 - keep, "Not Relevant": 0.0}
        rows.append({
            "image": {"bytes": pngs[row % len(pngs)], "path": f"{row}.png"}, "filename": f"{row}.png",
            "prompt": f"film {row} <b>bold</b>" if row % 2 else "Small effusion",
            "labels_dict": records.labels_dict({"Edema": STATES[row % 4]}), "id": f"f{row:03d}", "quality": quality,
            "quality_scores": json.dumps(split) if scores else None, "judge": "test",
            "drop_reason": None if quality in records.KEPT_QUALITIES else "low_quality", "source_policy": policy,
        })  # fmt: skip
    schema = records.features(verdict=True).arrow_schema
    (folder / "data").mkdir(parents=True)
    shards.write_table(shards.shard_path(folder, 0, 1), pa.Table.from_pylist(rows, schema))
    return folder


def browser(tmp_path: Path, **options: Any) -> Browser:
    found = index.open_index(str(dataset(tmp_path / "set")))
    ratings = Ratings(tmp_path / "ratings.csv", "anna")
    return Browser(found, ratings, policy="open", cache=tmp_path / "cache", **options)


# --- generate


def asked(**changes: Any) -> generate.Asked:
    return generate.Asked(**{"prompt": "edema", "seed": 7, "steps": 3, "guidance_scale": 2.0, "count": 2} | changes)


def test_films_are_those_of_generate_with_the_same_prompt_seed_and_id() -> None:
    maker = generate.Maker({"noise": NOISE}, judges.JudgeRecipe("fixed", "fixed"))
    made = list(maker.make("noise", asked(labels=("Edema",)), lambda done, total: None))
    wanted = asked(labels=("Edema",)).wanted()
    sampler = samplers.load_sampler(NOISE)
    for number, one in enumerate(made):
        row = films.encode(films.sample([wanted.row(number)], sampler, films.Way(1)), sampler.provenance, "png")[0]
        assert one.png == row["image"]["bytes"]
        assert one.row["seed"] == records.row_seed(7, "studio-7", number)
        assert one.row["labels_dict"]["Edema"] == 1
        assert one.verdict is not None
        assert one.verdict.quality == "High Quality"


@pytest.mark.slow
def test_the_generate_command_gives_the_same_films(tmp_path: Path, inside: Any) -> None:
    (tmp_path / "prompts.csv").write_text("id,prompt\nstudio-7,edema\n")
    arguments = ("--recipe", "phantom", "--seed", 7, "--steps", 2, "--images-per-prompt", 2, "--batch-size", 1)
    done = inside("generate", "--prompts", tmp_path / "prompts.csv", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = shards.Rows(shards.parquet_files(tmp_path / "out"))
    recipe = recipes.read(synthchex.room("generation") / "configs" / "phantom.yaml", samplers.Recipe)
    made = list(generate.Maker({"phantom": recipe}, None).make("phantom", asked(steps=2), lambda done, total: None))
    assert [one.png for one in made] == [cell["bytes"] for cell in rows.column("image")]
    for number, one in enumerate(made):
        assert one.row == {name: value for name, value in rows[number].items() if name != "image"}


def test_provenance_has_the_columns_of_generate_but_the_image() -> None:
    one = next(iter(generate.Maker({"noise": NOISE}, None).make("noise", asked(count=1), lambda done, total: None)))
    said = json.loads(generate.provenance(one))
    assert set(said) == set(films.features()) - {"image"}
    assert (said["prompt"], said["steps"], said["guidance_scale"], said["id"]) == ("edema", 3, 2.0, "studio-7")


def test_a_judge_and_a_label_network_speak_of_every_phantom() -> None:
    recipe = recipes.read(synthchex.room("generation") / "configs" / "phantom.yaml", samplers.Recipe)
    judge = recipes.read(synthchex.room("filtering") / "configs" / "phantom.yaml", judges.JudgeRecipe)
    told: list[tuple[int, int]] = []
    maker = generate.Maker({"phantom": recipe}, judge, device="cpu")
    wanted = asked(prompt="large left pleural effusion", steps=2, count=2, labels=("Pleural Effusion",))
    made = list(maker.make("phantom", wanted, lambda done, total: told.append((done, total))))
    assert told == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]
    assert [one.row["steps"] for one in made] == [2, 2]
    for one in made:
        assert one.verdict is not None
        assert sum(one.verdict.scores.values()) == pytest.approx(1)
        assert len(one.probabilities) >= 10
    assert maker.lint("phantom", "edema " * 200)[0].startswith("longer than the ")


def test_cancel_stops_within_a_step_and_keeps_finished_films() -> None:
    recipe = recipes.read(synthchex.room("generation") / "configs" / "phantom.yaml", samplers.Recipe)
    maker, made, steps = generate.Maker({"phantom": recipe}, None, device="cpu"), [], []

    def step(done: int, total: int) -> None:
        steps.append(done)
        if done == 4:
            raise generate.Cancelled

    with pytest.raises(generate.Cancelled):
        made.extend(maker.make("phantom", asked(prompt="edema", steps=3, count=3), step))
    assert len(made) == 1
    assert max(steps) == 4
    assert len(list(maker.make("phantom", asked(steps=1, count=1), lambda done, total: None))) == 1


def test_the_older_callback_of_a_pipeline_tells_steps_too() -> None:
    class Older:
        def __call__(self, prompt: str, callback: Any = None, callback_steps: int = 1) -> None:
            for number in range(2):
                callback(number, None, None)

    told: list[int] = []
    Older()("", **generate._hook(Older(), told.append))
    assert told == [1, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "  "}, "expected a prompt of 1 to"),
        ({"count": 9}, "expected a number of films from 1 to 8, got 9"),
        ({"steps": 0}, "expected steps from 1 to 250, got 0"),
        ({"guidance_scale": float("nan")}, "expected a guidance scale"),
        ({"seed": -1}, "expected a seed from 0"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_model_is_loaded(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked(**change)


def test_the_linter_names_what_does_not_belong_in_a_prompt() -> None:
    assert generate.said_of("No acute findings.") == []
    assert generate.said_of(" ") == ["the prompt is empty"]
    said = generate.said_of("Seen on 2021-03-04 for ___ .")
    assert any(line.startswith("date: “2021-03-04”") for line in said)
    assert any(line.startswith("mark of de-identification") for line in said)


def test_examples_speak_the_language_of_the_model() -> None:
    words = set(phantom.vocabulary())
    of_phantoms = generate.examples(samplers.Recipe("p", model="embedded:phantom/generator"))
    assert all(set(text.split()) <= words for text, _ in of_phantoms)
    assert len(generate.examples(NOISE)) == len(generate.EXAMPLES)
    assert all(set(labels) <= set(records.LABELS) for _, labels in generate.EXAMPLES)


def test_a_judge_on_a_server_is_not_asked_about_films_that_are_not_open() -> None:
    far = judges.JudgeRecipe("far", "server", server={"base_url": "https://example.org/v1"})
    with pytest.raises(ValueError, match="judge far is not asked: the source policy of these films is unknown"):
        list(generate.Maker({"noise": NOISE}, far).make("noise", asked(), lambda done, total: None))


# --- clean


def tools() -> textmask.Tools:
    return textmask.Tools(
        textmask.load_detector("tophat"), textmask.load_segmenter("glyphs"), textmask.load_inpainter("biharmonic")
    )


@pytest.fixture(scope="module")
def marked() -> clean.Found:
    """A phantom with two texts, looked at."""
    made = phantom.make(2, size=128, seed=3, markers=True)
    found = clean.detect("film", made.images[1], tools().detector)
    assert len(found.texts) == len(made.boxes[1]) == 2
    return found


def test_only_ticked_texts_are_erased(marked: clean.Found) -> None:
    done = clean.erase(marked, marked.names()[:1], tools())
    assert done.mask is not None
    assert (done.pixels[~done.mask] == marked.pixels[~done.mask]).all()
    assert done.kept == marked.texts[1:]
    assert clean.told(done).startswith("1 of 2 texts erased, ")
    left, top, right, bottom = marked.texts[1].box
    assert not done.mask[top:bottom, left:right].any()
    page = markup.overlay(marked, [True, False])
    assert (page.count('<rect class="erase"'), page.count('<rect class="keep"')) == (1, 1)
    assert markup.before_after(done, marked.pixels).count("<img") == 2


def test_nothing_ticked_and_names_of_another_film_are_refused(marked: clean.Found) -> None:
    with pytest.raises(ValueError, match="expected at least one text to erase, got none"):
        clean.erase(marked, [], tools())
    with pytest.raises(ValueError, match=r"got \['9: X \(1.00\)'\]; look for text again"):
        clean.erase(marked, ["9: X (1.00)"], tools())


def test_an_upload_is_read_by_the_audited_reader_and_bounded() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (clean.from_outside(images.to_png(pixels)) == pixels).all()
    assert clean.from_outside(images.to_png(np.zeros((4, 4, 3), np.uint8))).shape == (4, 4)
    with pytest.raises(UnreadableImage, match="expected an image file"):
        clean.from_outside(b"#!/bin/sh")
    with pytest.raises(UnreadableImage, match="got NIfTI"):
        clean.from_outside(b"\x1f\x8b" + bytes(100))
    with pytest.raises(UnreadableImage, match="bytes, got"):
        clean.from_outside(bytes(safety.MAX_UPLOAD_BYTES + 1))


def test_an_upload_with_too_many_pixels_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 5000)).save(buffer, format="PNG")
    monkeypatch.setattr(images, "read", lambda *_: pytest.fail("the film was decoded"))
    with pytest.raises(UnreadableImage, match="expected at most 36,000,000 pixels, got 8000 x 5000"):
        clean.from_outside(buffer.getvalue())


# --- browse


def test_filters_by_label_state_verdict_reason_score_and_words(tmp_path: Path) -> None:
    found = index.open_index(str(dataset(tmp_path / "set")))
    assert len(found) == 60
    for state, rest in (("present", 0), ("absent", 1), ("uncertain", 2), ("not mentioned", 3)):
        assert found.rows(Filter(label="Edema", state=state)).tolist() == list(range(rest, 60, 4))
    assert found.rows(Filter(quality="High Quality")).tolist() == list(range(46, 60))
    assert found.rows(Filter(reason="low_quality")).tolist() == found.rows(Filter(score=KEEP, high=0.5)).tolist()
    assert found.rows(Filter(reason=index.NONE)).tolist() == list(range(31, 60))
    assert found.rows(Filter(score=KEEP, low=0.25, high=0.3)).tolist() == [15, 16, 17, 18]
    assert found.rows(Filter(words="SMALL eff")).tolist() == list(range(0, 60, 2))
    assert found.rows(Filter(words="no such words")).tolist() == []
    assert found.quality.counts()["High Quality"] == 14


def test_worst_first_knows_which_scores_are_better_when_low(tmp_path: Path) -> None:
    found = index.open_index(str(dataset(tmp_path / "set")))
    assert found.rows(Filter(score=KEEP, order=WORST))[:3].tolist() == [0, 1, 2]
    assert found.rows(Filter(score="Low Quality", order=WORST))[:3].tolist() == [0, 1, 2]
    assert found.rows(Filter(score=KEEP, order=index.BEST))[:2].tolist() == [59, 58]
    with pytest.raises(ValueError, match="expected a score to order by, got none"):
        found.rows(Filter(order=WORST))


def test_films_without_a_score_stand_last(tmp_path: Path) -> None:
    found = index.open_index(str(dataset(tmp_path / "set")))
    found.scores[KEEP][5] = np.nan
    assert found.rows(Filter(score=KEEP, order=WORST))[-1] == 5
    assert found.rows(Filter(score=KEEP, order=index.BEST))[-1] == 5
    assert 5 not in found.rows(Filter(score=KEEP, low=0))


def test_a_set_without_verdicts_or_labels_is_browsed_too(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(images.to_png(np.full((8, 8), number, np.uint8)))
    (tmp_path / "broken.png").write_bytes(b"no image")
    looked = Browser(index.open_index(str(tmp_path)), None, policy="unknown")
    page = looked.page(Place())
    assert [cell.name for cell in page.cells] == ["0.png", "1.png", "2.png", "broken.png"]
    assert page.cells[3].thumb.reason == "not-an-image"
    assert looked.shown(3).why == "not-an-image"
    assert "cannot be read: not-an-image" in markup.shown(looked.shown(3))
    with pytest.raises(ValueError, match="start the studio with --ratings FILE"):
        looked.rate(0, "High Quality")
    with pytest.raises(ValueError, match="start the studio with --real SET"):
        looked.neighbours(0)


def test_a_table_that_names_files_is_browsed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(images.to_png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "films.csv").write_text("image,prompt,id\na.png,edema,one\ngone.png,mass,two\n")
    looked = Browser(index.open_index(str(tmp_path / "films.csv")), None, policy="open", cache=tmp_path / "cache")
    assert [cell.thumb.reason for cell in looked.page(Place()).cells] == ["", "missing"]


def test_pages_hold_every_film_once_and_places_stay_within_them(tmp_path: Path) -> None:
    looked = browser(tmp_path)
    order = Filter(score=KEEP, order=WORST, label="Edema", state="present")
    first = looked.moved(Place(), asked=order, number=0)
    assert [cell.row for cell in looked.page(first).cells] == looked.order(order).tolist() == list(range(0, 60, 4))
    pages = [looked.page(looked.moved(Place(), number=number)) for number in range(0, 60, PAGE_ROWS)]
    assert [cell.row for page in pages for cell in page.cells] == list(range(60))
    assert looked.moved(first, number=3).turn == first.turn + 1
    page = looked.page(looked.moved(Place(), asked=Filter(), number=59))
    assert (page.found, page.number, page.pages, len(page.cells)) == (60, 2, 3, 12)
    assert looked.moved(Place(), asked=Filter(), number=99).number == 59
    assert looked.moved(Place(), asked=Filter(), number=-5).number == 0
    empty = looked.moved(Place(), asked=Filter(words="nothing says this"), number=3)
    assert looked.row(empty) is None
    assert "widen the filter" in markup.grid(looked.page(empty), 0)


def test_films_are_decoded_only_when_their_page_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, read = browser(tmp_path), []
    monkeypatch.setattr(looked.thumbs, "ahead", lambda rows: None)
    first = images.read
    monkeypatch.setattr(images, "read", lambda source: read.append(1) or first(source))
    looked.page(Place())
    assert len(read) == PAGE_ROWS
    looked.page(Place(number=5))
    assert len(read) == PAGE_ROWS


def test_the_cache_is_bounded_private_and_forgets_the_oldest(tmp_path: Path) -> None:
    found = index.open_index(str(dataset(tmp_path / "set"))).films
    small = thumbs.Thumbs(found, tmp_path / "cache")
    size = len(small.get([0])[0].encoded or b"")
    bounded = thumbs.Thumbs(found, tmp_path / "bounded", limit=5 * size)
    for row in range(30):
        bounded.get([row])
    on_disk = sorted(int(path.stem) for path in (tmp_path / "bounded").iterdir())
    assert sum(path.stat().st_size for path in (tmp_path / "bounded").iterdir()) == bounded.bytes <= 5 * size
    assert on_disk[-1] == 29
    assert 0 not in on_disk
    assert bounded.get([0]) == small.get([0])
    assert stat.S_IMODE(os.stat(tmp_path / "cache").st_mode) == 0o700


def test_thumbnails_of_films_that_are_not_open_are_never_on_disk(tmp_path: Path) -> None:
    found = index.open_index(str(dataset(tmp_path / "set", policy="credentialed")))
    looked = Browser(found, None, policy="credentialed", cache=tmp_path / "cache")
    assert len(looked.page(Place()).cells) == PAGE_ROWS
    assert not (tmp_path / "cache").exists()


def test_cells_of_scattered_rows_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = shards.Rows(shards.parquet_files(dataset(tmp_path / "set", 250)))
    wanted = [249, 0, 101, 100, 0]
    assert rows.cells("image", wanted) == [rows[row]["image"] for row in wanted]
    with pytest.raises(IndexError):
        rows.cells("image", [250])


def test_scores_of_an_evaluation_join_the_index_by_id(tmp_path: Path) -> None:
    found = index.open_index(str(dataset(tmp_path / "set")))
    (tmp_path / "run").mkdir()
    table = {"set": ["real", "synthetic", "synthetic"], "id": ["f001", "f001", "f003"], "realism": [9.0, 0.5, 0.25]}
    pq.write_table(pa.table(table), tmp_path / "run" / "samples.parquet")
    joined = index.with_samples(found, tmp_path / "run")
    assert joined.rows(Filter(score="realism (run)", order=WORST))[:2].tolist() == [3, 1]
    assert joined.facts(3)["realism (run)"] == 0.25
    assert index.with_samples(found, tmp_path) is found


def test_columns_of_floats_are_scores(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([{"bytes": images.to_png(np.zeros((8, 8), np.uint8)), "path": "a"}] * 2),
                      "blur": [0.5, 0.1], "count": [1, 2]})  # fmt: skip
    shards.write_table(tmp_path / "films.parquet", table)
    found = index.open_index(str(tmp_path / "films.parquet"))
    assert list(found.scores) == ["blur"]
    assert found.rows(Filter(score="blur", order=WORST)).tolist() == [1, 0]


@pytest.mark.parametrize(("text", "number"), [("", None), (None, None), (" 0.5 ", 0.5), ("0,5", 0.5), ("-3", -3.0)])
def test_ends_of_a_range_are_read_as_typed(text: str | None, number: float | None) -> None:
    assert index.number_of(text) == number


def test_an_end_that_is_no_number_says_so() -> None:
    with pytest.raises(ValueError, match="expected a number for the range, got 'half'"):
        index.number_of("half")


# --- ratings


def test_ratings_are_what_calibrate_reads(tmp_path: Path) -> None:
    import runpy

    from synthchex.data import sources
    from synthchex.trials.cases import plan

    looked = browser(tmp_path)
    looked.rate(3, "Low Quality")
    looked.rate(4, "High Quality")
    looked.rate(3, "Not Relevant")
    looked.rate(5, "High Quality")
    looked.rate(5, browse.TAKEN_BACK)
    read = runpy.run_path(str(synthchex.room("filtering") / "calibrate.py"))["read_ratings"]
    films_of = sources.open_images(tmp_path / "set").take(range(3, 7))
    given = read(tmp_path / "ratings.csv", films_of, plan(films_of, 4, 0))
    assert given == {"anna": ["Not Relevant", "High Quality", None, None]}


def test_every_rating_is_on_the_disk_at_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ratings.csv"
    first = Ratings(path, "anna")
    assert not path.exists()
    first.add('a,"b', "High Quality")
    assert list(csv.reader(path.open(newline=""))) == [["id", "anna"], ['a,"b', "High Quality"]]
    first.add("c", "Low Quality")
    again = Ratings(path, "anna")
    assert (again.of('a,"b'), again.of("c"), again.of("d"), len(again)) == ("High Quality", "Low Quality", None, 2)


def test_a_line_without_its_end_is_cut_when_torn_and_kept_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("id,anna\na,High Quality\nb,Low Qua")
    assert Ratings(path, "anna").found == {"a": "High Quality"}
    assert path.read_text() == "id,anna\na,High Quality\n"
    path.write_text("id,anna\na,High Quality")
    whole = Ratings(path, "anna")
    whole.add("b", "Not Relevant")
    assert path.read_text() == "id,anna\na,High Quality\nb,Not Relevant\n"


def test_a_rating_that_cannot_be_written_leaves_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = Ratings(tmp_path / "r.csv", "anna")
    ratings.add("a", "High Quality")
    before = (tmp_path / "r.csv").read_bytes()
    monkeypatch.setattr(os, "write", lambda file, line: _part(file, line))
    with pytest.raises(OSError, match="free some space"):
        ratings.add("b", "Low Quality")
    monkeypatch.undo()
    assert (tmp_path / "r.csv").read_bytes() == before
    assert ratings.of("b") is None


_write = os.write


def _part(file: int, line: bytes) -> int:
    return _write(file, line[:3])


def test_another_readers_file_and_foreign_classes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    Ratings(path, "anna").add("a", "High Quality")
    with pytest.raises(ValueError, match=r"expected the columns id and bert .*give each reader a file"):
        Ratings(path, "bert")
    with pytest.raises(ValueError, match="expected a class among"):
        Ratings(path, "anna").add("a", "Great")
    path.write_text("id,anna\na,Great\nb,High Quality\n")
    with pytest.raises(ValueError, match="in line 2"):
        Ratings(path, "anna")
    with pytest.raises(ValueError, match="that is not id"):
        Ratings(path, "id")


def test_keys_stand_for_the_classes_in_their_order() -> None:
    assert [browse.key_of(key) for key in "1234"] == list(records.QUALITIES)
    assert browse.key_of("0") == ""
    assert browse.key_of("5") is None


# --- neighbours


def near(tmp_path: Path, policy: str) -> neighbours.Neighbours:
    real = index.open_index(str(dataset(tmp_path / "real", 20))).films
    return neighbours.Neighbours(real, policy=policy, encoder="phantom", kept=tmp_path / "store", device="cpu")


def test_the_nearest_real_film_of_a_copy_is_its_source(tmp_path: Path) -> None:
    looked = browser(tmp_path, near=near(tmp_path, "open"))
    found = looked.neighbours(7)
    assert found[0].name == "f007"
    assert found[0].distance == pytest.approx(0, abs=1e-3)
    assert found[0].png is not None
    assert found[1].distance > 0.01
    page = markup.near(found, "phantom", b"png")
    assert page.count("<img") == 4


@pytest.mark.parametrize("policy", ["credentialed", "unknown"])
def test_real_films_that_are_not_open_are_distances_only(tmp_path: Path, policy: str) -> None:
    looked = browser(tmp_path, near=near(tmp_path, policy))
    found = looked.neighbours(7)
    assert all(one.png is None and one.name is None for one in found)
    page = markup.near(found, "phantom", None)
    assert "<img" not in page
    assert "f007" not in page
    assert "are not open" in page


# --- reports


def evaluation(folder: Path, fid: float) -> Path:
    folder.mkdir(parents=True)
    row = {"metric": "fid", "label": "FID", "encoder": "phantom", "value": fid, "interval": [fid - 1, fid + 1]}
    results = {
        "schema_version": 2, "sets": {"real": {"n": 5}, "synthetic": {"n": 7}}, "overall": [row | {"better": "lower"}],
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "report.html").write_text('<p title="x">report & more</p>')
    return folder


def test_evaluations_are_found_below_a_folder_and_laid_side_by_side(tmp_path: Path) -> None:
    evaluation(tmp_path / "runs" / "a", 3.0)
    evaluation(tmp_path / "runs" / "b", 4.5)
    found = reports.evaluations([tmp_path / "runs", tmp_path / "runs" / "a"])
    assert list(found) == ["a", "b"]
    table = reports.side_by_side(found)
    assert table.columns == ["Score", "Encoder", "a", "b"]
    assert table.rows[0] == ["Synthetic films", "", "7", "7"]
    assert table.rows[-1] == ["FID ↓", "phantom", "3 [2, 4]", "4.5 [3.5, 5.5]"]


def test_a_report_stands_in_a_sandboxed_frame(tmp_path: Path) -> None:
    page = reports.page(evaluation(tmp_path / "a", 3.0))
    framed = markup.framed(page)
    assert 'sandbox="allow-scripts"' in framed
    assert "allow-same-origin" not in framed
    assert "&lt;p title=&quot;x&quot;&gt;report &amp; more&lt;/p&gt;" in framed


def test_what_is_no_evaluation_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="which is not there"):
        reports.evaluations([tmp_path / "gone"])
    with pytest.raises(ValueError, match=r"expected report.html in"):
        reports.page(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON in"):
        reports.side_by_side({"x": tmp_path})
    with pytest.raises(ValueError, match="expected two or more evaluations to compare, got 1"):
        reports.compared({"x": tmp_path})
    with pytest.raises(ValueError, match=r"found no samples.parquet; run evaluate first"):
        reports.compared({"x": evaluation(tmp_path / "a", 1), "y": evaluation(tmp_path / "b", 2)})


# --- safety


@pytest.mark.parametrize("policy", ["credentialed", "unknown"])
@pytest.mark.parametrize(("host", "share"), [("127.0.0.1", True), ("0.0.0.0", False), ("10.0.0.3", False)])
def test_others_are_kept_out_where_something_is_not_open(policy: str, host: str, share: bool) -> None:
    why = safety.refusal({"films": "open", "real films": policy}, host=host, share=share)
    assert why is not None
    assert f"not open (real films: {policy})" in why
    assert safety.refusal({"films": "open"}, host=host, share=share) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_alone_may_always_look(host: str) -> None:
    assert safety.refusal({"films": "credentialed"}, host=host, share=False) is None


@pytest.mark.parametrize("host", ["", "example.org", "127.0.0.1.example.org", "localhost.example.org"])
def test_a_name_is_not_taken_for_this_machine(host: str) -> None:
    assert not safety.is_loopback(host)


def test_only_embedded_models_are_open_by_themselves() -> None:
    assert safety.recipe_policy(samplers.Recipe("p", model="embedded:phantom/generator"), None) == "open"
    assert safety.recipe_policy(NOISE, None) == "open"
    assert safety.recipe_policy(samplers.Recipe("mine", model="me/cxr"), None) == "unknown"
    assert safety.recipe_policy(samplers.Recipe("mine", model="me/cxr"), "open") == "open"
    tuned = samplers.Recipe("p", model="embedded:phantom/generator", lora="me/lora")
    assert safety.recipe_policy(tuned, None) == "unknown"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--share", "--films", "closed"], "films: credentialed"),
        (["--host", "0.0.0.0", "--films", "open", "--real", "closed"], "real films: credentialed"),
        (["--share", "--recipe", "sana"], "recipe sana: unknown"),
        (["--share", "--reports", "runs"], "reports: unknown"),
        (["--share", "--films", "hub/name"], "films: unknown"),
    ],
)
def test_the_command_refuses_before_anything_is_opened(
    tmp_path: Path, arguments: list[str], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset(tmp_path / "closed", 4, policy="credentialed")
    dataset(tmp_path / "open", 4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "opened", lambda *_: pytest.fail("something was opened"))
    assert command.main(arguments) == options.REFUSED
    assert what in capsys.readouterr().err


def test_a_policy_looser_than_the_rows_say_is_refused(tmp_path: Path) -> None:
    closed = str(dataset(tmp_path / "closed", 4, policy="credentialed"))
    with pytest.raises(ValueError, match="says that its films are credentialed"):
        command.main(["--share", "--films", closed, "--source-policy", "open"])


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is installed")
def test_without_gradio_the_command_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r"pip install 'synthchex\[study\]'"):
        command.main([])


def answer(path: str, kind: str = "http", host: bytes = b"127.0.0.1:7860") -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the guard before an app that answers everything."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"unsafe-url")]})

    async def keep(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    asked = {"type": kind, "path": path, "headers": [(b"host", host)]}
    asyncio.run(safety.Guard(app, local=True)(asked, receive, keep))
    return sent[0].get("status", sent[0].get("code")), dict(sent[0].get("headers", ()))


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd", "/gradio_api/file/etc/passwd", "/file=x",
        "/gradio_api/proxy=https://example.org/", "/assets/../../../etc/passwd", "/static/..%2f/x", "/docs",
        "/monitoring", "/gradio_api/vibe-edit", "/gradio_api/run/make", "/gradio_api/call/make",
        "/gradio_api/stream/a/b/1/playlist-file",
        "/gradio_api/deep_link", "/custom_component/a/b/c/d", "/gradio_api/process_recording", "//etc/passwd",
    ],
)  # fmt: skip
def test_routes_that_the_page_does_not_need_are_not_there(path: str) -> None:
    assert answer(path)[0] == 404


def test_what_the_page_needs_is_answered_and_may_ask_nobody_else() -> None:
    for path in ("/", "/config", "/assets/index-ab12.js", "/gradio_api/queue/join", "/gradio_api/upload"):
        status, headers = answer(path)
        assert status == 200
        assert b"connect-src 'self'" in headers[b"content-security-policy"]
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert b"Referrer-Policy" not in headers
    assert answer("/gradio_api/queue/join", "websocket")[0] == 1008


@pytest.mark.parametrize(("host", "status"), [
    (b"localhost:7860", 200), (b"127.0.0.1", 200), (b"[::1]:7860", 200), (b"example.org:7860", 404), (b"", 404),
    (b"127.0.0.1.example.org", 404),
])  # fmt: skip
def test_another_sites_name_for_this_machine_is_not_answered(host: bytes, status: int) -> None:
    assert answer("/", host=host)[0] == status


def test_own_folder_is_private_and_gone_afterwards() -> None:
    places = []

    def fails() -> None:
        with command.own_folder() as folder:
            places.append(folder)
            (folder / "film.png").write_bytes(b"film")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fails()
    assert not places[0].exists()


def test_texts_from_a_dataset_are_escaped(tmp_path: Path) -> None:
    looked = browser(tmp_path)
    page = markup.grid(looked.page(Place()), 1) + markup.shown(looked.shown(1))
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert markup.table(["<x>"], [["<y>"]]).count("<x>") == 0


def test_a_card_has_downloads_verdict_and_probabilities() -> None:
    row = {"id": "studio-1", "prompt": "<i>", "seed": 3, "filename": "studio-1.png", "drop_reason": None}
    row |= provenance(NOISE, revision="", scheduler="")
    verdict = judges.Verdict("Low Quality", dict.fromkeys(records.QUALITIES, 0.25), "label_mismatch")
    page = markup.made([generate.Made(row, b"png", verdict, {"Edema": 0.875})], 2)
    assert page.count('<div class="card') - page.count('<div class="cards') == 2
    for part in ("studio-1.json", "studio-1.png", "Low Quality", "label_mismatch", "Edema", "0.875", "&lt;i&gt;"):
        assert part in page
    blank = markup.made([generate.Made(row | {"drop_reason": "not-finite"}, None, None, {})], 1)
    assert "not-finite" in blank
    assert Filter().order == STORED


def test_evaluations_of_equal_names_all_stand_there_and_keep_their_scores(tmp_path: Path) -> None:
    roots = [tmp_path / root for root in ("one", "two", "three")]
    for root in roots:
        (root / "seed0" / "scores").mkdir(parents=True)
        (root / "seed0" / "scores" / "results.json").write_text("{}")
        table = {"set": ["synthetic"], "id": ["row-0"], "realism": [float(len(root.name))]}
        pq.write_table(pa.table(table), root / "seed0" / "scores" / "samples.parquet")
    found = reports.evaluations(roots)
    assert list(found) == ["scores", "seed0/scores", "three/seed0/scores"]
    assert [path.parents[1].name for path in found.values()] == ["one", "two", "three"]
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(tmp_path / "film.png")
    (tmp_path / "films.csv").write_text("id,image\nrow-0,film.png\n")
    known = index.open_index(str(tmp_path / "films.csv"))
    for name, folder in found.items():
        known = index.with_samples(known, folder, name)
    assert {"realism (scores)", "realism (seed0/scores)", "realism (three/seed0/scores)"} <= set(known.scores)


@pytest.mark.parametrize("text", ["{oops", "[1, 2]"])
def test_scores_that_are_no_json_object_are_named_with_their_row(tmp_path: Path, text: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(buffer, "PNG")
    images_ = pa.array(
        [{"bytes": buffer.getvalue(), "path": None}] * 2, pa.struct({"bytes": "binary", "path": "string"})
    )
    path = tmp_path / "films.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "image": images_, "quality_scores": ["{}", text]}), path)
    with pytest.raises(ValueError, match="JSON object in quality_scores of row 1"):
        index.open_index(str(path))
