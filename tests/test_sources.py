"""Sources: whatever a user has becomes the same set, and what cannot be told is an error that lists the columns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from synthchex.data import images, records, shards, sources, tables

STATES = "\"{'Edema': 1.0, 'Fracture': None, 'Pneumonia': nan, 'No Finding': 0.0, 'Atelectasis': -1}\""


@pytest.fixture
def folder(tmp_path: Path, films: np.ndarray) -> Path:
    """A folder of PNGs, one of them in a subfolder and with an upper-case suffix."""
    (tmp_path / "set" / "more").mkdir(parents=True)
    for index, film in enumerate(films):
        name = f"more/{index}.PNG" if index == 7 else f"{index}.png"
        (tmp_path / "set" / name).write_bytes(images.to_png(film))
    return tmp_path / "set"


def test_a_folder_is_read_in_depth_and_in_order(folder: Path, films: np.ndarray) -> None:
    found = sources.open_images(folder)
    assert list(found.ids) == [*(f"{i}.png" for i in range(7)), "more/7.PNG"]
    assert (images.read(found.fetch(7)).pixels == films[7]).all()
    assert found.row(7)["filename"] == "more_7.png"


def test_a_table_finds_its_images_beside_it_or_in_a_folder(folder: Path, tmp_path: Path) -> None:
    text = (
        "img_savename,annotated_prompt,chexpert_labels\n0.png,clear,\"{'Edema': 1, 'Fracture': nan}\"\n1.png,edema,\n"
    )
    (folder / "table.csv").write_text(text)
    beside = sources.open_images(folder / "table.csv")
    (tmp_path / "elsewhere.csv").write_text(text)
    elsewhere = sources.open_images(tmp_path / "elsewhere.csv", image_dir=folder)
    assert beside.fetch(1) == elsewhere.fetch(1) == folder / "1.png"
    assert beside.prompts == ["clear", "edema"]
    assert beside.labels is not None
    assert beside.labels[0, records.LABELS.index("Edema")] == 1
    assert np.isnan(beside.labels[1]).all()


def test_label_columns_are_states_and_ids_stay_text(folder: Path) -> None:
    (folder / "t.csv").write_text("id,path,Edema,No Finding\n007,0.png,-1.0,\n008,1.png,1,0\n")
    found = sources.open_images(folder / "t.csv")
    edema, none = records.LABELS.index("Edema"), records.LABELS.index("No Finding")
    assert found.ids == ["007", "008"]
    assert found.labels is not None
    assert found.labels[:, edema].tolist() == [-1, 1]
    assert np.isnan(found.labels[0, none])
    (folder / "bad.csv").write_text("path,Edema\n0.png,maybe\n")
    with pytest.raises(ValueError, match=r"Edema must be 1, 0, -1 or empty, got 'maybe'"):
        sources.open_images(folder / "bad.csv")


def test_a_saved_dataset_and_parquet_are_the_same_set(folder: Path, films: np.ndarray, tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": images.to_png(f), "path": f"{i}.png"}, "filename": f"{i}.png", "prompt": f"p{i}"}
        for i, f in enumerate(films)
    ]
    full = [{**row, "labels_dict": records.labels_dict({"Edema": 1})} for row in rows]
    dataset = Dataset.from_list(full, features=records.features(provenance=False))
    dataset.save_to_disk(str(tmp_path / "saved"))
    dataset.to_parquet(str(tmp_path / "one.parquet"))
    a_plan = shards.Plan("test", "x", len(full), 3, {})
    shards.begin(tmp_path / "shards", a_plan)
    for shard in shards.claim(tmp_path / "shards", a_plan):
        shards.write_shard(
            tmp_path / "shards",
            a_plan,
            shard,
            [full[i] for i in a_plan.span(shard)],
            records.features(provenance=False),
        )
    for source in ("saved", "one.parquet", "shards"):
        found = sources.open_images(tmp_path / source)
        assert len(found) == 8
        assert found.prompts == [f"p{i}" for i in range(8)]
        assert found.labels is not None
        assert (images.read(found.fetch(5)).pixels == films[5]).all()
        assert (found.labels[:, records.LABELS.index("Edema")] == 1).all()


def test_what_cannot_be_told_is_an_error(folder: Path, tmp_path: Path) -> None:
    (folder / "two.csv").write_text("path,filename,prompt\n0.png,1.png,x\n")
    with pytest.raises(
        ValueError, match=r"has 2 columns that may hold the image: \['path', 'filename'\]; name one with --image-column"
    ):
        sources.open_images(folder / "two.csv")
    assert sources.open_images(folder / "two.csv", columns={"image": "path"}).fetch(0) == folder / "0.png"
    (folder / "none.csv").write_text("scan,words\n0.png,x\n")
    with pytest.raises(
        ValueError, match=r"has no image column: expected one of .* its columns are \['scan', 'words'\]"
    ):
        sources.open_images(folder / "none.csv")
    with pytest.raises(ValueError, match=r"has no column 'scam' for the image; its columns are"):
        sources.open_images(folder / "none.csv", columns={"image": "scam"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected images .* in .*empty, found none"):
        sources.open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="which is not there; check the path"):
        sources.open_images(tmp_path / "nowhere")


def test_the_fingerprint_changes_with_files_and_prompts(folder: Path, films: np.ndarray) -> None:
    before = sources.open_images(folder).fingerprint()
    assert before == sources.open_images(folder).fingerprint()
    (folder / "0.png").write_bytes(images.to_png(255 - films[0]))
    assert sources.open_images(folder).fingerprint() != before


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_llava_rad_annotations_are_read_as_they_are(folder: Path) -> None:
    columns = "id,path,reason,view,orientation,chexpert_labels,conversations,annotated_prompt,patientID"
    rows = [f'm{i},more/../{i}.png,cough,AP,frontal,{STATES},"[]","edema, number {i}",p{i // 2}' for i in range(4)]
    found = sources.open_images(write(folder / "t.csv", columns, *rows))
    assert found.has_ids
    assert list(found.ids) == ["m0", "m1", "m2", "m3"]
    assert found.prompts == [f"edema, number {i}" for i in range(4)]
    assert found.patients == ["p0", "p0", "p1", "p1"]
    assert found.views == ["AP"] * 4
    assert found.labels is not None
    assert {label: value for label, value in zip(records.LABELS, found.labels[3], strict=True) if value == value} == {
        "Edema": 1,
        "No Finding": 0,
        "Atelectasis": -1,
    }
    assert found.notes == {}


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("prompt,img_savename", "clear,1.png"),
        ("annotated_prompt,synthetic_filename", "clear,1.png"),
        ("Annotated_Prompt, Path ", "clear,1.png"),
        ("\ufeffpath,caption", "1.png,clear"),
        ("filename,prompt,labels_dict", f"1.png,clear,{STATES}"),
    ],
)
def test_layouts_in_the_wild_name_the_same_film(folder: Path, header: str, row: str) -> None:
    (folder / "t.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    found = sources.open_images(folder / "t.csv")
    assert found.fetch(0) == folder / "1.png"
    assert found.prompts == ["clear"]
    assert not found.has_ids


def test_the_side_tells_the_real_film_from_the_generated_one(folder: Path) -> None:
    table = write(folder / "t.csv", "id,path,annotated_prompt,synthetic_filename", "a,0.png,clear,1.png")
    assert sources.open_images(table, side="real").fetch(0) == folder / "0.png"
    assert sources.open_images(table, side="synthetic").fetch(0) == folder / "1.png"
    with pytest.raises(ValueError, match=r"2 columns that may hold the image: \['path', 'synthetic_filename'\]"):
        sources.open_images(table)
    both = write(folder / "both.csv", "path,filename,img_savename", "0.png,1.png,2.png")
    with pytest.raises(ValueError, match=r"2 columns that may hold the image: \['path', 'filename'\]"):
        sources.open_images(both, side="real")


def test_a_name_without_its_suffix_or_with_another_is_found_and_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "1.2.840.png").write_bytes((folder / "0.png").read_bytes())
    names = ("0.png", "1", "files/p10/2.dcm", "set/more/7.jpg", "1.2.840", "4.DCM")
    table = write(tmp_path / "t.csv", "path", *names)
    found = sources.open_images(table, image_dir=folder)
    expected = ("0.png", "1.png", "2.png", "more/7.PNG", "1.2.840.png", "4.png")
    assert [found.fetch(i) for i in range(6)] == [folder / name for name in expected]
    assert found.notes == {"found-by-stem": 5}
    assert list(found.ids) == list(names)


def test_a_film_of_another_folder_or_of_two_names_is_not_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "p1").mkdir()
    (folder / "0.png").rename(folder / "p1" / "view1.png")
    for names in (("p2/view1.png", "1.png"), ("p1/view1.jpg", "view1.dcm", "1.png")):
        with pytest.raises(ValueError, match=rf"got {len(names) - 1} of {len(names)} without one, e.g. \['{names[0]}'"):
            sources.open_images(write(tmp_path / "t.csv", "path", *names), image_dir=folder)
    (folder / "1.jpg").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"1 names may mean more than one file .*'1': \['1.jpg', '1.png'\]; give the f"
    ):
        sources.open_images(write(tmp_path / "t.csv", "path", "1", "2.png"), image_dir=folder)


def test_films_that_are_not_there_are_named_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(7)] + [f"lost{i}.png" for i in range(5)]
    table = write(folder / "t.csv", "path", *names)
    with pytest.raises(
        ValueError,
        match=r"got 5 of 12 without one, e.g. \['lost0.png', 'lost1.png', 'lost2.png'\]; give .* with --image-dir",
    ):
        sources.open_images(table)
    counted = sources.open_images(table, missing="count")
    assert counted.notes == {"missing": 5}
    assert len(counted) == 12
    with pytest.raises(ValueError, match=r"in .*nowhere, got 12 of 12 without one"):
        sources.open_images(table, image_dir=tmp_path / "nowhere", missing="count")
    with pytest.raises(ValueError, match=r"got 1 of 1 without one, e.g. \[''\]"):
        sources.open_images(write(folder / "u.csv", "path,prompt", ",clear"))


def test_a_folder_is_listed_once_however_many_films_it_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(8, 40):
        (folder / f"{index}.png").write_bytes(b"x")
    asked: list[Path] = []
    monkeypatch.setattr(Path, "is_file", lambda path: asked.append(path) or False)
    files, notes = tables.find_films([f"{i}.png" for i in range(8, 40)], folder, source="t")
    assert (len(files), notes, asked) == (32, {}, [])


def test_a_table_is_parsed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    calls, read = [], pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda *args, **options: calls.append(args) or read(*args, **options))
    table = write(folder / "t.csv", "id,path,prompt,chexpert_labels,view", f"a,0.png,clear,{STATES},PA")
    assert sources.open_images(table).fetch(0) == folder / "0.png"
    assert len(calls) == 1


def test_repeated_ids_and_images_are_errors_or_counted(folder: Path) -> None:
    guessed = sources.open_images(write(folder / "t.csv", "id,path", "a,0.png", "a,1.png"))
    assert (list(guessed.ids), guessed.has_ids, guessed.notes) == (["0.png", "1.png"], False, {"id-repeated": 1})
    with pytest.raises(ValueError, match=r"every id of .* once, got 1 repeats, e.g. \['a'\]; make ids unique"):
        sources.open_images(folder / "t.csv", columns={"id": "id"})
    with pytest.raises(ValueError, match=r"every image of .* once, got 1 repeats, e.g. \['0.png'\]; drop the rep"):
        sources.open_images(write(folder / "t.csv", "path", "0.png", "0.png"))
    shared = sources.open_images(write(folder / "t.csv", "id,path", "a,0.png", "b,0.png"))
    assert (list(shared.ids), shared.notes) == (["a", "b"], {"image-repeated": 1})
    with pytest.raises(ValueError, match=r"every id of .* once, got 1 repeats, e.g. \['a'\]"):
        sources.open_images(write(folder / "t.csv", "id,path", "a,0.png", "a,0.png"))


def test_label_cells_that_are_no_states_say_where_they_are(folder: Path) -> None:
    for cell, message in (
        ("yes", r"t.csv, row 1: Edema must be 1, 0, -1 or empty, got 'yes'; map the column"),
        ("2", r"t.csv, row 1: Edema must be 1, 0, -1 or empty, got '2'"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.open_images(write(folder / "t.csv", "path,Edema", "0.png,1.0", f"1.png,{cell}"))
    for cell, message in (
        ("Edema", r"column 'chexpert_labels', row 1: labels must be a mapping of CheXpert labels .* got 'Edema'"),
        ("{'Oedema': 1}", r"row 1: labels must be among the 14 CheXpert labels .* got \['Oedema'\]; rename or drop"),
        ("{'Edema': 'yes'}", r"row 1: Edema must be 1, 0, -1 or empty, got 'yes'"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.open_images(write(folder / "t.csv", "path,chexpert_labels", f"0.png,{STATES}", f'1.png,"{cell}"'))
    with pytest.raises(ValueError, match=r"has 2 columns that may hold the labels: \['chexpert_labels', 'Edema'\]"):
        sources.open_images(write(folder / "t.csv", "path,chexpert_labels,Edema", f"0.png,{STATES},1"))


def test_empty_cells_are_counted_and_empty_tables_refused(folder: Path) -> None:
    table = write(folder / "t.csv", "path,prompt,subject_id,chexpert_labels", "0.png,,p1,", "1.png,clear,,nan")
    found = sources.open_images(table)
    assert found.notes == {"prompt-empty": 1, "patient-empty": 1}
    assert found.patients == ["p1", "unknown, row 1"]
    assert found.labels is not None
    assert np.isnan(found.labels).all()
    with pytest.raises(ValueError, match=r"expected films in .*t.csv, got a table of 0 rows"):
        sources.open_images(write(folder / "t.csv", "path,prompt"))
    (folder / "t.csv").write_text("")
    with pytest.raises(ValueError, match=r"expected a table with a header, got .*t.csv: No columns"):
        sources.open_images(folder / "t.csv")


def test_json_lines_keep_missing_cells_missing(folder: Path) -> None:
    lines = ('{"path": "0.png", "prompt": null, "Edema": 1}', '{"path": "1.png", "prompt": "edema", "Edema": null}')
    found = sources.open_images(write(folder / "t.jsonl", *lines))
    assert found.prompts == ["", "edema"]
    assert found.labels is not None
    assert found.labels[0, records.LABELS.index("Edema")] == 1
    assert np.isnan(found.labels[1]).all()


def prompted(prompts: list[str], ids: list[str] | None = None, labels: list[float] | None = None) -> sources.ImageSet:
    """A set without pixels; `labels` are states of Edema."""
    states = np.full((len(prompts), 14), np.nan, np.float32)
    if labels is not None:
        states[:, records.LABELS.index("Edema")] = labels
    return sources.ImageSet(
        "memory",
        ids or [str(i) for i in range(len(prompts))],
        lambda index: prompts[index],
        prompts=prompts,
        labels=None if labels is None else states,
        has_ids=ids is not None,
    )


def test_rows_are_joined_by_id_where_both_have_ids() -> None:
    joined = sources.join(prompted(["x", "y", "z"], ["a", "b", "c"]), prompted(["q", "x"], ["d", "a"]))
    assert joined is not None
    assert joined.pairs.tolist() == [[0, 1]]
    assert joined._replace(pairs=np.array([]))[2:] == (1, 2, 1, 0)
    assert joined.by == "id"


def test_rows_are_joined_by_prompt_otherwise_and_every_row_is_counted() -> None:
    real = prompted(["edema", "clear", "edema ", "", "fracture"], labels=[1, 0, -1, 1, 0])
    synthetic = prompted([" clear", "edema", "edema", "other", ""])
    joined = sources.join(real, synthetic)
    assert joined is not None
    assert joined.by == "prompt"
    assert joined.pairs.tolist() == [[1, 0], [0, 1], [0, 2]]
    assert (joined.joined, joined.only_synthetic) == (3, 2)
    assert (joined.only_real, joined.repeated) == (2, 1)
    assert len({row for row, _ in joined.pairs.tolist()}) + joined.only_real + joined.repeated == len(real)
    labelled = sources.with_labels(synthetic, real, joined)
    assert labelled.labels is not None
    np.testing.assert_array_equal(labelled.labels[:, records.LABELS.index("Edema")], [0, 1, 1, np.nan, np.nan])
    with pytest.raises(ValueError, match="without labels, got its own"):
        sources.with_labels(labelled, real, joined)
    with pytest.raises(ValueError, match=r"expected labels in memory to take over, got none; give a table"):
        sources.with_labels(real, synthetic, joined)


def test_row_numbers_in_an_id_column_join_nothing() -> None:
    real, synthetic = prompted(["x", "y"], ["0", "1"]), prompted(["y", "x"], ["0", "1"])
    joined = sources.join(real, synthetic)
    assert joined is not None
    assert (joined.by, joined.pairs.tolist()) == ("prompt", [[1, 0], [0, 1]])
    other_caption = sources.join(real, prompted(["p", "q"], ["0", "1"]))
    assert other_caption is not None
    assert (other_caption.by, other_caption.joined) == ("id", 2)
    assert sources.join(real, sources.ImageSet("folder", ["0"], str)) is None


def test_the_first_film_of_each_prompt_is_kept() -> None:
    kept, dropped = sources.drop_repeated_prompts(prompted(["b", "a", "b", "a ", "b"], labels=[1, 0, 0, 1, 0]))
    assert (kept.prompts, dropped) == (["b", "a", "a "], 2)
    assert list(kept.ids) == ["0", "1", "3"]
    assert kept.fetch(2) == "a "
    assert kept.labels is not None
    assert kept.labels[:, records.LABELS.index("Edema")].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="expected prompts in folder, got none; name their column"):
        sources.drop_repeated_prompts(sources.ImageSet("folder", ["0"], str))


def test_a_long_set_has_the_fingerprint_of_its_whole_list() -> None:
    ids, states = [f"\u00e9{row}" for row in range(9000)], [(row, row + 1) for row in range(4096)]
    for columns in ([ids, None, states], [ids, [], "a manifest"], [[], [None, "x"], iter(())]):
        whole = [column if column is None or isinstance(column, str) else list(column) for column in columns]
        assert records.fingerprint_long(columns) == records.fingerprint(whole)


def test_paths_of_named_films_are_made_when_asked_for(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "9.jpg").write_bytes(b"x")
    files, notes = tables.find_films(["0.png", "9.dcm"], folder, source="t")
    assert list(files) == [files[0], files[-1]] == files[:] == [folder / "0.png", folder / "deep" / "9.jpg"]
    assert notes == {"found-by-stem": 1}


def test_the_fingerprint_of_films_in_a_table_reads_none_of_them(folder: Path) -> None:
    path, schema = folder / "t.parquet", pa.schema([("image", pa.struct([("bytes", pa.binary())]))])
    pq.write_table(pa.table({"image": [{"bytes": b"x"}] * 3}, schema=schema), path)
    opened, asked = sources.open_images(path), []
    before = opened.fingerprint()
    counted = replace(opened, fetch=lambda row: asked.append(row) or opened.fetch(row))
    assert counted.fingerprint() == before
    assert asked == [0]
    pq.write_table(pa.table({"image": [{"bytes": b"yy"}] * 3}, schema=schema), path)
    assert sources.open_images(path).fingerprint() != before


MILLION = """
import resource, sys
from pathlib import Path
from synthchex.data import shards, sources

films = sources.open_images(sys.argv[1], missing="count")
plan = shards.Plan("filter", films.fingerprint(), len(films), 32, {})
shards.begin(Path(sys.argv[2]), plan)
assert next(shards.claim(Path(sys.argv[2]), plan)) == 0
print(plan.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_plan_of_a_million_films_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    rows = 1_000_000
    schema = pa.schema([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "id": [f"case{row:08d}" for row in range(rows)],
        "image": pa.array([{"bytes": b"x" * 20, "path": None}] * rows, pa.struct(list(schema))),
        "prompt": [
            f"{row} mild edema of the left lower lobe, no effusion, heart size normal " * 2 for row in range(rows)
        ],
        "labels_dict": pa.array(
            [records.labels_dict({"Edema": 1})] * rows, pa.struct([(n, pa.int8()) for n in records.LABELS])
        ),
        "versions": ["a version of every library that made the film, as generate writes it"] * rows,
    }
    table, films = pa.table(columns), tmp_path / "films"
    films.mkdir()
    for first in range(0, rows, 25_000):
        pq.write_table(table.slice(first, 25_000), films / f"{first:07d}.parquet", row_group_size=100)
    command = [sys.executable, "-c", MILLION, str(films), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counted, peak = map(int, done.stdout.split())
    assert counted == rows
    assert peak < 1e9
