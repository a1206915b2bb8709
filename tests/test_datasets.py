"""The dataset that is built: four columns, exact types, a card, read by load_dataset from anywhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Image, Value, load_dataset
from huggingface_hub import DatasetCard

from synthchex.data import images, records

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def built(inside: Run, tmp_path: Path, films: np.ndarray) -> Path:
    """Eight films judged and built."""
    for index, film in enumerate(films):
        (tmp_path / f"{index}.png").write_bytes(images.to_png(film))
    lines = [f"{i}.png,finding {i},{(1, 0, -1, '')[i % 4]}" for i in range(8)]
    (tmp_path / "t.csv").write_text("path,prompt,Edema\n" + "\n".join(lines) + "\n")
    done = inside("filter", "--images", tmp_path / "t.csv", "--judge", "fixed", "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    done = inside(
        "build", "--images", tmp_path / "judged", "--out", tmp_path / "set", "--title", "Eight films", "--json"
    )
    assert json.loads(done.stdout)["rows"] == 8, done.stderr
    return tmp_path / "set"


def test_load_dataset_gives_the_four_columns_with_their_types(built: Path, films: np.ndarray, tmp_path: Path) -> None:
    loaded = load_dataset(str(built), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == ["image", "filename", "prompt", "labels_dict"]
    assert isinstance(loaded.features["image"], Image)
    assert loaded.features["labels_dict"] == {label: Value("int8") for label in records.LABELS}
    assert [row["labels_dict"]["Edema"] for row in loaded] == [1, 0, -1, None] * 2
    assert (np.asarray(loaded[5]["image"]) == films[5]).all()
    assert loaded[5]["prompt"] == "finding 5"
    streamed = next(iter(load_dataset(str(built), split="train", streaming=True)))
    assert streamed["filename"] == "0.png"


def test_the_card_is_valid_and_counts_states(built: Path) -> None:
    card = DatasetCard.load(built / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"]
    assert "| Edema | 2 | 2 | 2 | 2 |" in card.text
    assert "Every film in this dataset was made by a model" in card.text
    assert "{{" not in card.text


def test_building_twice_changes_nothing(inside: Run, built: Path) -> None:
    before = {path: path.read_bytes() for path in built.rglob("*") if path.is_file()}
    done = inside("build", "--images", built.parent / "judged", "--out", built, "--title", "Eight films")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in built.rglob("*") if path.is_file()} == before


def test_phantom_films_and_prompts_are_data_like_any_other(inside: Run, tmp_path: Path) -> None:
    assert inside("phantom", "--count", 40, "--seed", 3, "--out", tmp_path / "films").returncode == 0
    loaded = load_dataset(str(tmp_path / "films"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[39]["image"].size == (64, 64)
    wanted = [
        "phantom",
        "--count",
        30,
        "--prompts-only",
        "--labels",
        "No Finding",
        "Edema",
        "Lung Opacity",
        "--out",
        tmp_path / "p",
    ]
    assert inside(*wanted).returncode == 0
    prompts = load_dataset(str(tmp_path / "p"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(prompts) == 30
    present = {label for row in prompts for label, state in row["labels_dict"].items() if state == 1}
    assert present <= {"No Finding", "Edema", "Lung Opacity"}
    done = inside("phantom", "--count", 3, "--labels", "Gout", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert "--labels must be among" in done.stderr
