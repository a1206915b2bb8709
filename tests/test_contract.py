"""What every metric module promises beyond its numbers: workers, one encoding for all, processes, patients, labels."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from PIL import Image

import synthchex
from synthchex import ahead, measure
from synthchex.measure import films as reading
from synthchex.measure import given, options, ranks, sides
from synthchex.models import encoders

ROOT = Path(__file__).resolve().parents[1]
TWO_SIDED = ("fid", "kid", "prdc", "cmmd")


class Thumbnail:
    """An encoder that counts its films: mean grey of a 4 x 4 grid; texts by their letters."""

    name, key = "thumbnail", "thumbnail-1"

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.texts: list[str] = []

    def encode(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
        """(N, 16) float32."""
        self.calls.append(len(films))
        grey = [film if film.ndim == 2 else film.mean(2) for film in films]
        return np.array([g[:16, :16].reshape(4, 4, 4, 4).mean((1, 3)).ravel() for g in grey], np.float32) / 255 + 0.1

    def encode_texts(self, texts: Any) -> np.ndarray:
        """(N, 16) float32."""
        self.texts += list(texts)
        return np.array([[1 + text.count(chr(97 + letter)) for letter in range(16)] for text in texts], np.float32)

    def count_truncated(self, texts: Any) -> int:
        """Texts beyond 40 letters."""
        return sum(len(text) > 40 for text in texts)


class Prepared(Thumbnail):
    """The same with the work of the threads apart, as the encoders of the library have it."""

    key = "thumbnail-2"

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def prepare(self, films: Any) -> Any:
        """A tensor (1, H, W)."""
        import torch

        self.threads.add(threading.current_thread().name)
        return torch.from_numpy(np.stack(films))

    def forward(self, inputs: Any) -> np.ndarray:
        """(N, 16) float32."""
        return self.encode(list(inputs.numpy()))


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """Metrics of other tests may wait for the garbage collector."""
    measure.forget()


@pytest.fixture
def pictures() -> np.ndarray:
    """uint8 (24, 16, 16), all different."""
    return np.random.default_rng(1).integers(0, 256, (24, 16, 16), np.uint8)


@pytest.fixture
def folder(pictures: np.ndarray, tmp_path: Path) -> Path:
    """The same as files."""
    path = tmp_path / "films"
    path.mkdir()
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(path / f"{number:02d}.png")
    return path


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Synthetic (60, 6) and real (60, 6) features."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 6)).astype(np.float32) + 0.5, rng.normal(size=(60, 6)).astype(np.float32)


# Workers


@pytest.mark.parametrize("name", [*TWO_SIDED, "vendi"])
def test_results_are_those_of_any_number_of_workers(name: str, folder: Path, pictures: np.ndarray) -> None:
    found = []
    for workers in (0, 1, 5, None):
        measure.forget()
        encoder = Prepared()
        asked = {"encoder": encoder, "batch_size": 5, "num_workers": workers}
        found.append(synthchex.load(name).compute(predictions=folder, references=255 - pictures, **asked))
        assert encoder.calls == [5, 5, 5, 5, 4] * 2
        in_threads = {thread.startswith("synthchex-films") for thread in encoder.threads}
        assert in_threads == {workers != 0}
    assert all(one == found[0] for one in found)


def test_films_are_prepared_while_the_encoder_works(pictures: np.ndarray) -> None:
    begun, busy = threading.Event(), threading.Event()

    class Slow(Prepared):
        def prepare(self, films: Any) -> Any:
            if (films[0] == pictures[6]).all():
                assert busy.wait(20)  # the encoder has the first films, and has not finished with them
                begun.set()
            return super().prepare(films)

        def forward(self, inputs: Any) -> np.ndarray:
            busy.set()
            assert begun.wait(20)
            return super().forward(inputs)

    encoding = sides.Encoding(encoder=Slow(), batch_size=4, num_workers=2)
    assert encoding.features([given.sort(pictures, "predictions")], "predictions").features.shape == (24, 16)


def test_ms_ssim_reads_only_the_films_of_drawn_pairs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    read = reading.images.read
    monkeypatch.setattr(reading.images, "read", lambda source: (seen.append(source), read(source))[1])
    asked = {"predictions": folder, "scales": 1, "n_pairs": 3}
    found = [synthchex.load("ms_ssim").compute(**asked, num_workers=workers) for workers in (0, 3)]
    assert found[0] == found[1]
    assert 2 * 3 <= len(seen) <= 2 * 6


def test_the_embedded_encoder_gives_the_stated_width_with_any_number_of_workers(pictures: np.ndarray) -> None:
    part = [given.sort(pictures[:7], "predictions")]
    for image_text, known in ((False, encoders.ENCODERS), (True, encoders.IMAGE_TEXT)):
        found = []
        for workers in (0, 3):
            asked = {"encoder": "phantom", "image_text": image_text, "batch_size": 3, "num_workers": workers}
            found.append(sides.Encoding(**asked).features(part, "predictions").features)
        np.testing.assert_array_equal(found[0], found[1])
        assert found[0].shape == (7, known["phantom"].width)


def test_work_in_order_holds_few_results_and_stops_at_an_error() -> None:
    begun: list[int] = []

    def work(place: int) -> int:
        begun.append(place)
        if place == 30:
            raise ValueError("film 30")
        return place

    results = ahead.in_order(work, 1000, num_workers=2, ahead=4)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert max(begun) <= 25
    with pytest.raises(ValueError, match="film 30"):
        list(results)
    assert max(begun) < 45
    assert ahead.default_workers() in range(1, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_film_that_cannot_be_read_is_named(workers: int, pictures: np.ndarray, tmp_path: Path) -> None:
    listed = [*pictures[:3], tmp_path / "no.png"]
    for name, extra in (("fid", {"encoder": Thumbnail()}), ("ms_ssim", {"scales": 1})):
        with pytest.raises(ValueError, match=r"predictions: image 3 cannot be read .missing."):
            synthchex.load(name).compute(predictions=listed, references=pictures, num_workers=workers, **extra)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_workers": -1}, "num_workers: expected a whole number from 0, got -1"),
        ({"num_workers": 1.5}, "num_workers: expected a whole number from 0, got 1.5"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1, got 0"),
        ({"confidence_level": 95}, "confidence_level must be between 0 and 1, got 95; 0.95 is usual"),
        ({"confidence_level": 0}, "confidence_level must be between 0 and 1, got 0"),
        ({"n_resamples": 4}, "n_resamples must be a whole number from 5, got 4; leave it out"),
        ({"n_resamples": 7.5}, "n_resamples must be a whole number from 5, got 7.5"),
    ],
)
def test_options_out_of_range_are_refused(asked: dict[str, Any], message: str, sets: Any) -> None:
    for name in ("fid", "vendi"):
        with pytest.raises(ValueError, match=message):
            synthchex.load(name).compute(predictions=sets[0], references=sets[1], **asked)


def test_an_encoder_that_loses_films_or_sizes_is_refused(pictures: np.ndarray) -> None:
    class Short(Thumbnail):
        def encode(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
            return super().encode(films)[:-1]

    with pytest.raises(ValueError, match=r"expected features \(N, D\) for N films.*got \(23, 16\) for 24; mend it"):
        synthchex.load("vendi").compute(predictions=pictures, encoder=Short())
    mixed = [pictures[0], np.zeros((20, 16), np.uint8)]
    with pytest.raises(ValueError, match=r"films that become one size for the encoder, got \[\(16, 16\), \(20, 16\)\]"):
        synthchex.load("vendi").compute(predictions=mixed, encoder=Prepared())


# One encoding for all metrics


def test_combined_metrics_encode_each_film_once(folder: Path, pictures: np.ndarray) -> None:
    encoder = Thumbnail()
    together = evaluate.combine([synthchex.load(name) for name in [*TWO_SIDED, "vendi"]])
    alone = [synthchex.load(name).compute(predictions=folder, references=255 - pictures, encoder=Thumbnail(),
             nearest_k=3) for name in ("fid", "prdc")]  # fmt: skip
    del together
    gc.collect()  # nothing is remembered when no metric lives
    together = evaluate.combine([synthchex.load(name) for name in [*TWO_SIDED, "vendi"]])
    asked: dict[str, Any] = {"references": 255 - pictures, "encoder": encoder, "nearest_k": 3}
    result = together.compute(predictions=folder, **asked)
    assert sum(encoder.calls) == 48
    assert (result["fid"], result["coverage"]) == (alone[0]["fid"], alone[1]["coverage"])
    together.compute(predictions=[*pictures], **asked)  # pixels are not files: another hash, encoded once more
    assert sum(encoder.calls) == 48 + 24
    Image.fromarray(pictures[3] // 2).save(folder / "03.png")
    again = together.compute(predictions=folder, **asked)
    assert sum(encoder.calls) == 48 + 24 + 1
    assert again["fid"] != result["fid"]


def test_images_edited_in_memory_are_scored_as_edited(pictures: np.ndarray) -> None:
    encoder, metric = Thumbnail(), synthchex.load("fid")
    listed = [Image.fromarray(film) for film in pictures]
    first = metric.compute(predictions=listed, references=pictures, encoder=encoder)
    listed[5].paste(0, (0, 0, 16, 16))
    edited = metric.compute(predictions=listed, references=pictures, encoder=encoder)
    assert first["fid"] < 1e-9 < 1e-4 < edited["fid"]
    assert sum(encoder.calls) == 24 + 1  # both sides of the first call are the same films


def test_images_that_differ_in_palette_alone_are_different(pictures: np.ndarray) -> None:
    palettes = []
    for values in (range(256), range(255, -1, -1)):
        film = Image.fromarray(pictures[0], mode="P")
        film.putpalette([value for grey in values for value in (grey, grey, grey)])
        palettes.append(film)
    encoding = sides.Encoding(encoder=Thumbnail())
    rows = encoding.features([given.sort(palettes, "predictions")], "predictions").features
    assert np.abs(rows[0] - rows[1]).max() > 0.01


def test_what_is_remembered_is_bounded_and_goes_with_the_metrics(pictures: np.ndarray) -> None:
    memo, encoder = reading.Memo(room=10 * 64), Thumbnail()  # ten rows of 16 float32
    encoding = sides.Encoding(encoder=encoder, memo=memo, batch_size=4)
    part = [given.sort(pictures, "predictions")]
    first = encoding.features(part, "predictions").features
    assert memo.used == 640
    np.testing.assert_array_equal(encoding.features(part, "predictions").features, first)
    assert sum(encoder.calls) == 24 + 14  # the ten that fit were found again
    encoding.features([given.sort(255 - pictures[:6], "predictions")], "predictions")
    assert memo.used == 640
    memo.clear()
    assert memo.used == 0
    metric = synthchex.load("vendi")
    metric.compute(predictions=pictures, encoder=encoder)
    assert reading.shared_memo().used == 24 * 64
    measure.forget()
    assert reading.shared_memo().used == 0
    metric.compute(predictions=pictures, encoder=encoder)
    del metric
    gc.collect()
    assert reading.shared_memo().used == 0


def test_an_encoder_without_a_key_is_asked_each_time(pictures: np.ndarray) -> None:
    class Unnamed(Thumbnail):
        key = None  # type: ignore[assignment]

    encoder = Unnamed()
    metric = synthchex.load("fid")
    for _ in range(2):
        metric.compute(predictions=pictures, references=pictures, encoder=encoder)
    assert sum(encoder.calls) == 4 * 24


def test_a_named_encoder_is_loaded_once_and_again_when_it_was_saved_again(
    pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[str] = []

    def load(name: str, **asked: Any) -> Thumbnail:
        loaded.append(f"{name} {asked['dtype']}")
        encoder = Thumbnail()
        encoder.key = f"{name}{len(loaded)}"
        return encoder

    monkeypatch.setattr(encoders, "load_encoder", load)
    together = evaluate.combine([synthchex.load("fid"), synthchex.load("kid")])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1")
    asked: dict[str, Any] = {"predictions": pictures, "references": 255 - pictures, "encoder": str(folder)}
    first = together.compute(**asked)
    assert len(loaded) == 1
    (folder / "weights").write_text("22")
    assert together.compute(**asked)["fid"] == first["fid"]
    assert len(loaded) == 2
    together.compute(**asked, dtype="bfloat16")
    assert loaded == [f"{folder} float32"] * 2 + [f"{folder} bfloat16"]


def test_fid_and_inception_score_share_one_pass(pictures: np.ndarray) -> None:
    class Classifier(Thumbnail):
        key = "classifier-1"

        def logits(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
            raise AssertionError("the films were encoded already")

        def logits_of(self, features: np.ndarray) -> np.ndarray:
            return np.tile(features, 3)[:, :40]

    encoder = Classifier()
    together = evaluate.combine([synthchex.load("fid"), synthchex.load("inception_score")])
    result = together.compute(predictions=pictures, references=255 - pictures, encoder=encoder, classes=40, splits=2)
    assert sum(encoder.calls) == 48
    assert result["inception_score"] >= 1


# Intervals and patients


def test_n_resamples_reaches_what_resamples_and_is_said_elsewhere(sets: Any) -> None:
    fake, real = sets
    asked: dict[str, Any] = {"predictions": fake, "references": real, "confidence_level": 0.9}
    for name in ("fid", "alignment", "vendi", "frd"):
        metric = synthchex.load(name)
        few, many = (metric.compute(**asked, n_resamples=count) for count in (6, 20))
        assert few[f"{name}_low"] != many[f"{name}_low"]
        assert not any("n_resamples" in text for text in few["warnings"])
        without = metric.compute(predictions=fake, references=real, n_resamples=6)["warnings"]
        assert "option 'n_resamples' is not used without confidence_level" in without
    for name in ("kid", "prdc", "cmmd"):
        found = synthchex.load(name).compute(**asked, n_resamples=6)
        assert f"option 'n_resamples' is not used by {name}: its interval does not resample" in found["warnings"]


def test_patients_may_be_ids_of_any_kind_but_not_missing(sets: Any) -> None:
    fake, real = sets
    asked: dict[str, Any] = {"predictions": fake, "references": real, "confidence_level": 0.9}
    numbers = np.arange(60) // 3
    for name in (*TWO_SIDED, "vendi", "frd", "alignment"):
        metric = synthchex.load(name)
        expected = metric.compute(**asked, patients=(numbers, numbers))
        mixed = [int(value) if value < 10 else f"p{value:02d}" for value in numbers]
        assert metric.compute(**asked, patients=(mixed, mixed)) == expected
        with pytest.raises(
            ValueError, match=r"an id for every row of references, got none in 2 .* first in row 4; give"
        ):
            metric.compute(**asked, patients=(None, [*range(4), None, float("nan"), *range(54)]))
        with pytest.raises(ValueError, match="patients: expected 60 ids for predictions, one per row, got 3"):
            metric.compute(**asked, patients=([1, 2, 3], None))
        with pytest.raises(ValueError, match=r"patients: expected \(ids of predictions or None, ids"):
            metric.compute(**asked, patients="ids")
    said = synthchex.load("fid").compute(predictions=fake, references=real, patients=(numbers, None))["warnings"]
    assert any("option 'patients' is not used: it is for intervals" in text for text in said)
    assert options.numbered([3, "a", 3, 1]).tolist() == [1, 2, 1, 0]  # type: ignore[union-attr]


LABELS = {
    "many": (np.arange(60) < 40, np.arange(60) < 40),
    "three": (np.arange(60) < 3, np.arange(60) < 3),
    "one": (np.arange(60) < 1, np.arange(60) < 1),
    "none": (np.zeros(60, bool), np.zeros(60, bool)),
}


@pytest.mark.parametrize("level", [None, 0.9])
@pytest.mark.parametrize("name", [*TWO_SIDED, "alignment", "vendi", "frd", "inception_score", "ms_ssim"])
def test_small_labels_are_stated_and_never_crash(name: str, level: float | None, sets: Any) -> None:
    fake, real = (np.random.default_rng(0).integers(0, 256, (2, 60, 12, 12), np.uint8)) if name == "ms_ssim" else sets
    module = synthchex.load(name)
    asked = {"classes": 6, "scales": 1, "confidence_level": level, "patients": (np.arange(60) // 5, np.arange(60) // 5)}
    result = module.compute(predictions=fake, references=real, groups=LABELS, **asked)
    json.dumps(result, allow_nan=False)
    key = {"prdc": "precision"}.get(name, name)
    for label, part in result["labels"].items():
        assert part["n_predictions"] == int(LABELS[label][0].sum())
        assert part[key] is not None or part["warnings"]
        if level and label == "three":  # one patient
            assert f"{key}_low" not in part or part[f"{key}_low"] is None
            assert any("no interval" in text or "not defined" in text or "insuff" in text for text in part["warnings"])
    assert result["labels"]["many"][key] is not None
    assert result["labels"]["none"][key] is None
    assert (f"{key}_low" in result["labels"]["many"]) == (level is not None)


def test_equal_films_of_a_label_have_no_radiomics_distance_and_it_is_said(sets: Any) -> None:
    fake, real = sets[0].copy(), sets[1].copy()
    real[:3] = real[0]
    part = synthchex.load("frd").compute(predictions=fake, references=real, groups=LABELS)["labels"]["three"]
    assert part["frd"] is None
    assert any("not defined: real: expected features that vary" in text for text in part["warnings"])


def test_groups_by_names(sets: Any) -> None:
    fake, real = sets
    left = ["Edema"] * 30 + ["Fracture"] * 20 + [None] * 10  # type: ignore[list-item]
    right = np.array(["Edema"] * 40 + ["Nodule"] * 20)
    labels = synthchex.load("kid").compute(predictions=fake, references=real, groups=(left, right))["labels"]
    assert {label: (part["n_predictions"], part["n_references"]) for label, part in labels.items()} == {
        "Edema": (30, 40), "Fracture": (20, 0), "Nodule": (0, 20)
    }  # fmt: skip
    masks = {"Edema": (np.arange(60) < 30, np.arange(60) < 40)}
    expected = synthchex.load("kid").compute(predictions=fake, references=real, groups=masks)["labels"]["Edema"]
    assert labels["Edema"]["kid"] == pytest.approx(expected["kid"])
    assert synthchex.load("vendi").compute(predictions=fake, groups=left)["labels"]["Fracture"]["n_predictions"] == 20
    paired = synthchex.load("alignment").compute(predictions=fake, references=real, groups=left)["labels"]["Edema"]
    assert paired["n_references"] == 30


# Sides


@pytest.mark.parametrize("name", [*TWO_SIDED, "vendi", "ms_ssim"])
def test_sides_that_were_read_differently_are_refused(name: str, pictures: np.ndarray) -> None:
    deep = [Image.fromarray(film.astype(np.uint16) * 256) for film in pictures]
    asked: dict[str, Any] = {"encoder": Thumbnail(), "scales": 1}
    with pytest.raises(ValueError, match=r"both sides read in one way, got .*'u8'.* and .*'minmax16'.*convert both"):
        synthchex.load(name).compute(predictions=pictures, references=deep, **asked)
    both = synthchex.load(name).compute(predictions=deep, references=deep[::-1], **asked)
    assert any("16-bit-scaled" in text for text in both["warnings"])


def test_streams_are_refused_and_tables_are_decoded_by_threads(pictures: np.ndarray) -> None:
    import datasets

    films = [Image.fromarray(film) for film in pictures]
    table = datasets.Dataset.from_dict({"image": films}).cast_column("image", datasets.Image())
    with pytest.raises(
        ValueError, match="a Dataset whose rows can be counted, got IterableDataset, a stream; keep some"
    ):
        synthchex.load("vendi").compute(predictions=table.to_iterable_dataset(), encoder=Thumbnail())
    for source in (table, table["image"]):
        part = given.sort(source, "predictions")
        assert isinstance(part.items[0], dict)
        rows = sides.Encoding(encoder=Thumbnail()).features([part], "predictions").features
        np.testing.assert_array_equal(rows, Thumbnail().encode(list(pictures)))
    formatted = given.sort(table.with_format("numpy"), "predictions")
    assert isinstance(formatted.items[0], np.ndarray)


@pytest.mark.slow
def test_a_module_costs_at_most_five_percent_more_than_its_function() -> None:
    from synthchex.maths import frechet

    rng = np.random.default_rng(3)
    fake, real = (rng.standard_normal((10_000, 2048), np.float32) for _ in range(2))
    module, times = synthchex.load("fid"), ([], [])
    for _ in range(4):
        for spent, call in zip(
            times,
            (lambda: frechet.frechet_distance(real, fake), lambda: module.compute(predictions=fake, references=real)),
            strict=True,
        ):
            start = time.process_time()
            call()
            spent.append(time.process_time() - start)
    assert min(times[1]) < 1.05 * min(times[0])


# Several processes


def part(rows: slice, sets: Any, **changes: Any) -> ranks.Rows:
    """What one of two processes has read."""
    fake, real = (sides.Side(side[rows], "e", "k") for side in sets)
    groups = {"a": (np.arange(60)[rows] < 30, np.arange(60)[rows] < 20)}
    ids = [f"p{row // 4}" for row in range(60)][rows]
    return ranks.Rows(**{"fake": fake, "real": real, "groups": groups, "patients": (ids, None), "own": {}} | changes)


def test_rows_groups_and_patients_of_processes_are_joined(sets: Any) -> None:
    first, second = part(slice(0, 25), sets), part(slice(25, 60), sets)
    whole = ranks.joined([first, second])
    np.testing.assert_array_equal(whole.fake.features, sets[0])
    assert whole.patients == ([f"p{row // 4}" for row in range(60)], None)
    assert whole.groups is not None
    assert whole.groups["a"][1].tolist() == [row < 20 for row in range(60)]
    heard = ranks.joined([first, part(slice(25, 60), sets, groups={"b": (np.ones(35, bool), np.ones(35, bool))})])
    assert heard.groups is not None
    assert [int(mask[0].sum()) for mask in heard.groups.values()] == [25, 35]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"patients": None},
            r"expected patients from every process or from none, got none from \[1\]; pass them on all",
        ),
        ({"patients": (None, None)}, "expected patients of predictions from every process"),
        ({"groups": None}, "expected groups from every process or from none"),
        ({"real": None}, "expected references from every process"),
        ({"fake": sides.Side(np.ones((2, 6)), "e", "other")}, "expected the same kind of side from every process"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str, sets: Any) -> None:
    with pytest.raises(ValueError, match=message):
        ranks.joined([part(slice(0, 25), sets), part(slice(25, 60), sets, **changes)])


PROCESS = """
import json, sys
import evaluate
import numpy as np
from torch import distributed
from synthchex.measure import ranks

class Letters:
    name, key = "letters", "letters-1"
    def encode(self, films, *, batch_size=32):
        return np.array([film[:4, :4].ravel() / 255 + 0.1 for film in films], np.float32)
    def encode_texts(self, texts):
        return np.array([[1 + text.count(chr(97 + k)) for k in range(16)] for text in texts], np.float32)
    def count_truncated(self, texts):
        return sum(len(text) > 20 for text in texts)

rank, meeting, metrics = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
rng = np.random.default_rng(0)
fake, real = rng.normal(size=(90, 6)), rng.normal(size=(90, 6)) + 0.5
films = rng.integers(0, 256, (90, 24, 24), np.uint8)
ids = [f"patient {row // 3}" for row in range(90)]
prompts = [f"{'abcdef'[row % 6]} face. No {'bead' * (row % 4 + 1)}." for row in range(90)]
own = slice(0, 40) if rank == 0 else slice(40, 90)
mask = np.arange(90) % 2 == 0
cases = {
    "fid": (fake, real, {}), "kid": (fake, real, {}), "prdc": (fake, real, {}), "cmmd": (fake, real, {}),
    "frd": (fake, real, {}), "vendi": (fake, real, {}), "vendi ": (fake, None, {}),
    "inception_score": (fake, real, {"classes": 6, "splits": 2}), "ms_ssim": (films, films[::-1], {"scales": 2}),
    "alignment": (films, prompts, {"encoder": Letters(), "per_sentence": True, "rivals": prompts[::-1],
                                   "real_images": films, "real_prompts": prompts, "per_sample": True}),
}
for name, (left, right, options) in cases.items():
    folder = f"{metrics}/{name.strip()}"
    def asked(rows):
        mine = {key: value[rows] if key in ("rivals", "real_images", "real_prompts") else value
                for key, value in options.items()}
        both = right is not None and name != "alignment"
        groups = {"even": (mask[rows], mask[rows]) if both else mask[rows]}
        return {"predictions": left[rows], "references": None if right is None else right[rows], "groups": groups,
                "patients": (ids[rows], ids[rows]), "confidence_level": 0.9, **mine}
    found = evaluate.load(folder, num_process=2, process_id=rank).compute(**asked(own))
    if rank:
        assert found is None
        continue
    alone = evaluate.load(folder).compute(**asked(slice(None)))
    assert json.dumps(found) == json.dumps(alone), (name, found, alone)
    bare = evaluate.load(folder).compute(**{**asked(slice(None)), "patients": None})
    assert name.strip() in ("ms_ssim",) or json.dumps(bare) != json.dumps(alone), name  # patients made a difference
module = evaluate.load(f"{metrics}/fid", num_process=2, process_id=rank)
try:
    module.compute(predictions=fake if rank else fake[:, :0], references=real)
except ValueError as error:
    told = str(error)
else:
    raise AssertionError("a process failed and nobody said so")
assert "expected features of shape (N, D), got shape (90, 0)" in told, told
begun = "expected rows from all 2 processes, got an error from process 0: ValueError: "
assert rank == 0 or told.startswith(begun), told
distributed.barrier()
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_with_patients_and_labels(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "meeting"), str(synthchex.room("metrics"))]
    started = [subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), *arguments]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]


def test_the_number_of_processes_is_that_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import distributed

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="expected num_process to be the 3 processes of the group, got 2; load it so"):
        ranks.gathered(lambda: pytest.fail("nothing is read"), 2)
