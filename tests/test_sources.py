"""Sources: whatever a user has becomes the same set, and what cannot be told is an error that lists the columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from synthchex.data import images, records, shards, sources


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
    (folder / "twice.csv").write_text("id,path\na,0.png\na,1.png\n")
    with pytest.raises(ValueError, match=r"every id of .* once, got 1 repeats, e.g. \['a'\]"):
        sources.open_images(folder / "twice.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected images .* in .*empty, found none"):
        sources.open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="which is not there; check the path"):
        sources.open_images(tmp_path / "nowhere")


def test_prompts_are_rows_with_ids_and_labels(prompts_csv: Path, tmp_path: Path) -> None:
    rows = sources.open_prompts(prompts_csv)
    assert [row["id"] for row in rows] == [f"case{i}" for i in range(7)]
    assert rows[1]["labels_dict"]["Edema"] == 1
    assert rows[1]["labels_dict"]["Fracture"] is None
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n")
    assert [row["prompt"] for row in sources.open_prompts(tmp_path / "lines.txt")] == ["one", "two"]


def test_empty_prompts_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('prompt\nfine\n"   "\nnan\n')
    with pytest.raises(ValueError, match=r"got 2 empty ones \(rows \[1, 2\]\); fill or drop them"):
        sources.open_prompts(path)
    path.write_text("prompt\n")
    with pytest.raises(ValueError, match=r"expected prompts in .*, got 0 rows"):
        sources.open_prompts(path)
    path.write_text("words\nx\n")
    with pytest.raises(
        ValueError, match=r"has no prompt column: expected one of \['prompt', .* its columns are \['words'\]"
    ):
        sources.open_prompts(path)


def test_the_fingerprint_changes_with_files_and_prompts(folder: Path, films: np.ndarray) -> None:
    before = sources.open_images(folder).fingerprint()
    assert before == sources.open_images(folder).fingerprint()
    (folder / "0.png").write_bytes(images.to_png(255 - films[0]))
    assert sources.open_images(folder).fingerprint() != before
