"""From a loaded dataset to a training loop: arrays of labels, films of a label, batches of tensors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from synthchex.data import images, records, training

STATES = (1, 0, -1, None)


def films(rows: int = 8) -> Dataset:
    made = {
        "image": [{"bytes": images.to_png(np.full((9, 7), row * 10, np.uint8)), "path": None} for row in range(rows)],
        "filename": [f"{row}.png" for row in range(rows)],
        "prompt": [f"p {row}" for row in range(rows)],
        "labels_dict": [records.labels_dict({"Edema": STATES[row % 4], "Fracture": 1}) for row in range(rows)],
    }
    return Dataset.from_dict(made, records.features(provenance=False))


@pytest.mark.parametrize(
    ("uncertain", "not_mentioned", "values", "mask"),
    [
        ("ignore", "ignore", [1, 0, 0, 0], [1, 1, 0, 0]),
        ("positive", "ignore", [1, 0, 1, 0], [1, 1, 1, 0]),
        ("negative", "negative", [1, 0, 0, 0], [1, 1, 1, 1]),
        ("ignore", "positive", [1, 0, 0, 1], [1, 1, 0, 1]),
    ],
)
def test_states_become_values_and_a_mask(uncertain: Any, not_mentioned: Any, values: Any, mask: Any) -> None:
    rows = films()["labels_dict"][:4]
    found = training.multi_hot(rows, names=["Edema"], uncertain=uncertain, not_mentioned=not_mentioned)
    assert found.values[:, 0].tolist() == values
    assert found.mask[:, 0].tolist() == [bool(value) for value in mask]
    assert found.values.dtype == np.float32
    assert training.multi_hot(rows).values.shape == (4, 14)
    assert training.multi_hot([]).values.shape == (0, 14)


@pytest.mark.parametrize(("state", "rows"), [("present", [0, 4]), ("uncertain", [2, 6]), ("not mentioned", [3, 7])])
def test_films_of_a_label_loaded_or_streamed(state: Any, rows: list[int]) -> None:
    wanted = [f"{row}.png" for row in rows]
    assert training.with_label(films(), "Edema", state)["filename"][:] == wanted
    streamed = training.with_label(films().to_iterable_dataset(), "Edema", state)
    assert [row["filename"] for row in streamed] == wanted


def test_choosing_a_label_decodes_no_film() -> None:
    broken = films().to_dict()
    broken["image"] = [{"bytes": b"no film", "path": None}] * 8
    found = training.with_label(Dataset.from_dict(broken, films().features), "Edema")
    assert len(found) == 2


def test_batches_are_tensors() -> None:
    import torch

    ready = films()
    ready.set_transform(training.Batches(size=12, names=("Edema", "Fracture"), mean=0.5, std=0.25))
    batch = ready[4:8]
    assert batch["pixel_values"].shape == (4, 3, 12, 12)
    assert batch["pixel_values"].dtype == torch.float32
    assert torch.allclose(batch["pixel_values"][0], torch.tensor((40 / 255 - 0.5) / 0.25))
    assert batch["labels"].tolist() == [[1, 1], [0, 1], [0, 1], [0, 1]]
    assert batch["label_mask"][:, 0].tolist() == [True, True, False, False]
    assert batch["prompt"] == ["p 4", "p 5", "p 6", "p 7"]
    loader = torch.utils.data.DataLoader(ready.select_columns(["image", "labels_dict"]), batch_size=4)
    assert next(iter(loader))["pixel_values"].shape == (4, 3, 12, 12)


def test_a_streamed_dataset_is_mapped_and_the_transform_travels_to_workers() -> None:
    transform = pickle.loads(pickle.dumps(training.Batches(size=5, channels=1)))
    streamed = films().to_iterable_dataset().map(transform, batched=True, batch_size=4, remove_columns=["image"])
    assert np.asarray(next(iter(streamed))["pixel_values"]).shape == (1, 5, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: training.with_label(films(), "Gout"),
            r"labels must be among the 14 CheXpert labels .* got \['Gout'\]",
        ),
        (lambda: training.with_label(films(), "Edema", "maybe"), "state must be one of"),  # type: ignore[arg-type]
        (lambda: training.multi_hot([], uncertain="half"), "uncertain must be one of"),  # type: ignore[arg-type]
        (lambda: training.Batches(channels=2), "channels 1 or 3, std above 0, got 224, 2, 1.0"),
    ],
)
def test_what_has_no_meaning_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
