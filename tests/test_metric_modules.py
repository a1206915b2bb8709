"""Every folder of metrics/, loaded as its users load it, fed in every form that the contract names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from PIL import Image

from synthchex import measure
from synthchex.maths import moments
from synthchex.measure import given

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.parent.name for path in (ROOT / "metrics").glob("*/*.py") if path.stem == path.parent.name)
DISTANCES = ("fid", "kid", "prdc")
HEADLINE = {"fid": "fid", "kid": "kid", "prdc": "precision", "alignment": "alignment"}


class Thumbnail:
    """An encoder that needs no weights: mean grey of a 4 x 4 grid, and letters of a text."""

    name, key = "thumbnail", "thumbnail-1"

    def encode(self, films: Any, *, batch_size: int = 32) -> np.ndarray:
        """(N, 16) float32."""
        grey = [film if film.ndim == 2 else film.mean(2) for film in films]
        rows = [g[: g.shape[0] // 4 * 4, : g.shape[1] // 4 * 4] for g in grey]
        return np.array([r.reshape(4, r.shape[0] // 4, 4, -1).mean((1, 3)).ravel() for r in rows], np.float32) / 255

    def encode_texts(self, texts: Any) -> np.ndarray:
        """(N, 16) float32."""
        return np.array([[1 + text.count(chr(97 + letter)) for letter in range(16)] for text in texts], np.float32)

    def count_truncated(self, texts: Any) -> int:
        """Texts beyond 40 letters."""
        return sum(len(text) > 40 for text in texts)


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Numbers approximately equal, everything else equal."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


def load(name: str) -> Any:
    return evaluate.load(str(ROOT / "metrics" / name))


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    return {name: load(name) for name in NAMES}


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Synthetic (50, 6) and real (60, 6) features."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 6)).astype(np.float32) + 0.5, rng.normal(size=(60, 6)).astype(np.float32)


@pytest.fixture
def pictures() -> np.ndarray:
    """uint8 (12, 16, 16), all different."""
    return np.random.default_rng(1).integers(0, 256, (12, 16, 16), np.uint8)


def test_the_four_modules_are_found() -> None:
    assert {"fid", "kid", "prdc", "alignment"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_loads_under_its_own_name_and_is_described(name: str, loaded: dict[str, Any]) -> None:
    module = loaded[name]
    assert module.name == name
    assert isinstance(module, evaluate.Metric)
    assert all(option in module.inputs_description for option in ("num_workers", "batch_size", "dtype", "confidence_"))
    for text in (module.description, module.citation, module.inputs_description, module.compute.__doc__):
        assert len(text) > 40
    card = (ROOT / "metrics" / name / "README.md").read_text()
    for word in ("evaluate", "## Formula", "## Range", "## Limits", "## Citation", "```python"):
        assert word in card


@pytest.mark.parametrize("name", DISTANCES)
def test_counts_may_differ_and_results_are_plain(name: str, loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    result = loaded[name].compute(predictions=fake, references=real)
    assert (result["n_predictions"], result["n_references"]) == (50, 60)
    assert isinstance(result["warnings"], list)
    assert all(type(value) in (float, int, str, list) for value in result.values())


@pytest.mark.parametrize("name", DISTANCES)
def test_batches_single_rows_and_one_call_agree(name: str, sets: Any) -> None:
    fake, real = sets
    module = load(name)
    once = module.compute(predictions=fake, references=real)
    module.add_batch(predictions=fake[:20])
    module.add_batch(references=real[:59], predictions=fake[20:49])
    module.add(prediction=fake[49], reference=real[59])
    assert len(module) == 50
    batched = module.compute()
    assert_alike(batched, once)
    module.add_batch(predictions=fake)
    assert_alike(module.compute(references=real), once)
    with pytest.raises(ValueError, match="got no predictions and no references; add them first"):
        module.compute()


@pytest.mark.parametrize("name", DISTANCES)
def test_rows_added_are_those_of_that_moment(name: str, loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    expected = loaded[name].compute(predictions=fake, references=real)
    buffer = fake.copy()
    loaded[name].add_batch(predictions=buffer)
    buffer[:] = 0
    assert_alike(loaded[name].compute(references=real), expected)


@pytest.mark.parametrize("name", DISTANCES)
def test_identity(name: str, loaded: dict[str, Any], sets: Any) -> None:
    result = loaded[name].compute(predictions=sets[1], references=sets[1])
    if name == "prdc":
        assert (result["precision"], result["recall"], result["coverage"]) == (1, 1, 1)
    else:
        assert result[name] <= 1e-9


@pytest.mark.parametrize("name", DISTANCES)
def test_every_form_of_images_gives_the_same(name: str, loaded: dict[str, Any], pictures: Any, tmp_path: Path) -> None:
    import datasets

    paths = [tmp_path / f"{number:02d}.PNG" for number in range(12)]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    (tmp_path / "notes.txt").write_text("not an image")
    films = [Image.fromarray(pixels) for pixels in pictures]
    table = datasets.Dataset.from_dict({"image": films}).cast_column("image", datasets.Image())
    forms = (pictures, list(pictures), np.stack([pictures] * 3, 3), films, paths, [str(p) for p in paths],
             str(tmp_path), tmp_path, table, table["image"], [p.read_bytes() for p in paths])  # fmt: skip
    options = {"references": 255 - pictures[:9], "encoder": Thumbnail(), "nearest_k": 2}
    found = [loaded[name].compute(predictions=form, **options) for form in forms]
    for result in found:
        assert result[HEADLINE[name]] == pytest.approx(found[0][HEADLINE[name]], rel=1e-5)
        assert (result["n_predictions"], result["encoder"]) == (12, "thumbnail")


def test_images_edited_in_memory_are_scored_as_edited(loaded: dict[str, Any], pictures: Any, tmp_path: Path) -> None:
    Image.fromarray(pictures[0]).save(tmp_path / "one.png")
    opened = [Image.open(tmp_path / "one.png")] + [Image.fromarray(p) for p in pictures[1:]]
    opened[0].paste(0, (0, 0, 16, 16))
    edited = loaded["fid"].compute(predictions=opened, references=pictures, encoder=Thumbnail())
    assert edited["fid"] > 1e-3


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saved_features_and_their_encoder(loaded: dict[str, Any], sets: Any, tmp_path: Path, suffix: str) -> None:
    fake, real = sets
    given.save_features(tmp_path / f"fake{suffix}", fake, encoder="rad-dino-1")
    given.save_features(tmp_path / f"real{suffix}", real, encoder="rad-dino-1")
    given.save_features(tmp_path / f"other{suffix}", real, encoder="clip-1")
    for name in DISTANCES:
        stored = loaded[name].compute(
            predictions=tmp_path / f"fake{suffix}", references=str(tmp_path / f"real{suffix}")
        )
        bare = loaded[name].compute(predictions=fake, references=real)
        assert stored[HEADLINE[name]] == bare[HEADLINE[name]]
        assert stored["encoder"] == "rad-dino-1"
        with pytest.raises(ValueError, match=r"expected both sides from one encoder, got 'rad-dino-1'.*and 'clip-1'"):
            loaded[name].compute(predictions=tmp_path / f"fake{suffix}", references=tmp_path / f"other{suffix}")
    half = loaded["fid"].compute(predictions=tmp_path / f"fake{suffix}", references=real)
    assert any("one side does not say which encoder made it" in warning for warning in half["warnings"])


def test_saved_statistics_serve_fid_only(loaded: dict[str, Any], sets: Any, tmp_path: Path) -> None:
    fake, real = sets
    given.save_statistics(tmp_path / "real.npz", moments.moments(real), encoder="e")
    np.savez(tmp_path / "classic.npz", mu=real.mean(0), sigma=np.cov(real.T.astype(np.float64)))
    expected = loaded["fid"].compute(predictions=fake, references=real)["fid"]
    ours = loaded["fid"].compute(predictions=fake, references=tmp_path / "real.npz")
    classic = loaded["fid"].compute(predictions=fake, references=tmp_path / "classic.npz")
    assert (ours["fid"], ours["n_references"]) == (pytest.approx(expected), 60)
    assert (classic["fid"], classic["n_references"]) == (pytest.approx(expected, rel=1e-5), None)
    for name in ("kid", "prdc"):
        with pytest.raises(ValueError, match=f"{name}: expected images or features, got statistics"):
            loaded[name].compute(predictions=fake, references=tmp_path / "real.npz")
    with pytest.raises(ValueError, match="expected features or images for floor and confidence_level, got statistics"):
        loaded["fid"].compute(
            predictions=fake, references=tmp_path / "real.npz", floor=True, infinity=True, confidence_level=0.9
        )


REFUSED = [
    (
        np.zeros((4, 8, 8), np.float32),
        r"expected uint8 images or float features.*float32 of shape \(4, 8, 8\), whose range",
    ),
    (np.zeros((4, 8, 8), np.uint16), "expected uint8 images or float features.*got uint16"),
    (
        np.zeros((4, 3, 8, 8), np.uint8),
        r"got shape \(4, 3, 8, 8\); pass a single image in a list, and move channels last",
    ),
    (np.zeros((8, 8), np.uint8), r"expected uint8 images \(N, H, W\)"),
    (np.zeros((0, 8, 8), np.uint8), "expected at least 1 image, got 0"),
    (
        "no/such/folder",
        "got the string 'no/such/folder' .no such folder or file.; for single images pass a list of paths",
    ),
    ([], "expected at least 1 item, got 0"),
    (5, "got int"),
    ([np.zeros((8, 8))], "got ndarray of dtype float64 and shape .8, 8.; scale float images"),
    ([np.zeros(4), np.zeros((8, 8), np.uint8)], "expected all images or all feature rows, got both in one list"),
    ([np.zeros(4), np.zeros(5)], r"expected feature rows of one length, got lengths \[4, 5\]"),
    (np.array([[1.0, np.nan]] * 8), "expected finite features, got NaN or infinity in row 0"),
    (np.zeros((8, 0)), r"expected features of shape \(N, D\), got shape \(8, 0\)"),
    ([Path("missing.png")], "image 0 cannot be read .missing."),
]


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=range(len(REFUSED)))
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_what_cannot_be_right_is_refused(
    loaded: dict[str, Any], sets: Any, source: Any, message: str, side: str
) -> None:
    other = "references" if side == "predictions" else "predictions"
    for name in DISTANCES:
        with pytest.raises(ValueError, match=f"{side}: .*{message}"):
            loaded[name].compute(**{side: source, other: sets[0]}, encoder=Thumbnail())


def test_a_refused_batch_adds_nothing(sets: Any) -> None:
    module = load("fid")
    with pytest.raises(ValueError, match="references: expected"):
        module.add_batch(predictions=sets[0], references=np.zeros((4, 8, 8)))
    assert len(module) == 0


def test_mixed_kinds_widths_and_counts_are_refused(loaded: dict[str, Any], sets: Any, pictures: Any) -> None:
    fake, real = sets
    module = loaded["fid"]
    module.add_batch(predictions=fake)
    with pytest.raises(ValueError, match=r"predictions: expected one kind of input, got \['features', 'films'\]"):
        module.compute(predictions=pictures, references=real)
    for name in DISTANCES:
        with pytest.raises(ValueError, match="one width, got 6 for predictions and 4 for references"):
            loaded[name].compute(predictions=fake, references=real[:, :4])
    for name in ("fid", "kid"):
        with pytest.raises(ValueError, match="fake: expected at least 2 rows, got 1"):
            loaded[name].compute(predictions=fake[:1], references=real)
    with pytest.raises(ValueError, match="expected more rows than nearest_k=5, got 5"):
        loaded["prdc"].compute(predictions=fake[:5], references=real)


@pytest.mark.parametrize("name", DISTANCES)
def test_groups_by_masks_arrays_and_dicts(name: str, loaded: dict[str, Any], sets: Any) -> None:
    from synthchex.data.records import LABELS, labels_dict

    fake, real = sets
    rng = np.random.default_rng(2)
    left, right = rng.choice([1, 0, -1], (50, 14)), rng.choice([1.0, 0, np.nan], (60, 14))
    right[:, 3] = 0
    by_array = loaded[name].compute(predictions=fake, references=real, groups=(left, right), nearest_k=3)["labels"]
    by_mask = loaded[name].compute(
        predictions=fake, references=real, groups={"Edema": (left[:, 5] == 1, right[:, 5] == 1)}, nearest_k=3
    )
    dicts = [
        [labels_dict({LABELS[c]: int(v) for c, v in enumerate(row) if v == 1}) for row in s] for s in (left, right)
    ]
    by_dict = loaded[name].compute(predictions=fake, references=real, groups=tuple(dicts), nearest_k=3)["labels"]
    assert list(by_array) == list(LABELS)
    assert_alike(by_mask["labels"]["Edema"], by_array["Edema"])
    assert_alike(by_dict["Edema"], by_array["Edema"])
    alone = loaded[name].compute(predictions=fake[left[:, 5] == 1], references=real[right[:, 5] == 1], nearest_k=3)
    headline = HEADLINE[name]
    assert by_array["Edema"][headline] == pytest.approx(alone[headline], rel=1e-4)
    assert by_array["Edema"]["n_references"] == alone["n_references"]
    empty = by_array["Lung Opacity"]
    assert empty[headline] is None
    assert "insufficient n: expected at least" in empty["warnings"][0]


def test_groups_of_another_form_are_refused(loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    ask = lambda groups: loaded["fid"].compute(predictions=fake, references=real, groups=groups)  # noqa: E731
    with pytest.raises(ValueError, match=r"groups: expected .label: .* got int"):
        ask(5)
    with pytest.raises(
        ValueError, match=r"groups\['a'\]: expected 50 true or false values for predictions, got bool of"
    ):
        ask({"a": (np.ones(3, bool), np.ones(60, bool))})
    with pytest.raises(
        ValueError, match=r"expected labels of shape \(N, 14\) for predictions, or a name per row, got \(50, 3\)"
    ):
        ask((np.ones((50, 3)), np.ones((60, 14))))


@pytest.mark.parametrize("name", HEADLINE)
def test_intervals_and_patients(name: str, loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets[0], sets[1][:50]
    patients = (None, np.arange(50) // 2)
    first = loaded[name].compute(predictions=fake, references=real, confidence_level=0.9, patients=patients, seed=4)
    again = loaded[name].compute(predictions=fake, references=real, confidence_level=0.9, patients=patients, seed=4)
    assert first == again
    key = HEADLINE[name]
    assert first[f"{key}_low"] <= first[key] <= first[f"{key}_high"]
    assert first[f"{key}_standard_error"] > 0
    with pytest.raises(ValueError, match="patients: expected 50 ids for references, one per row, got 3"):
        loaded[name].compute(predictions=fake, references=real, confidence_level=0.9, patients=(None, [1, 2, 3]))


def test_fid_infinity_floor_and_warnings(loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    result = loaded["fid"].compute(predictions=fake, references=real, infinity=True, floor=True)
    assert result["fid_infinity"] < result["fid"]
    assert result["fid_floor"] < result["fid_matched"]
    assert result["n_floor"] == 30
    few = loaded["fid"].compute(predictions=fake[:10], references=real, infinity=True)
    assert few["fid_infinity"] is None
    assert any(text.startswith("FID of 10 predictions with 6 features is mostly bias") for text in few["warnings"])
    assert any("expected at least 2.5 rows per feature" in warning for warning in few["warnings"])


def test_kid_subsets(loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    result = loaded["kid"].compute(predictions=fake, references=real, subsets=30, subset_size=20)
    assert result["kid_subset_mean"] == pytest.approx(result["kid"], abs=3 * result["kid_subset_std"])
    only = loaded["kid"].compute(predictions=fake, references=real, subsets=30, subset_size=20, exact=False)
    assert "kid" not in only
    assert only["kid_subset_mean"] == pytest.approx(result["kid_subset_mean"], rel=1e-6)
    with pytest.raises(ValueError, match="subset_size must be at least 2 and at most min"):
        loaded["kid"].compute(predictions=fake, references=real, subsets=3)


def test_kid_overall_labels_subsets_and_interval_from_one_pass(
    loaded: dict[str, Any], sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthchex.maths import kernel, tiles

    fake, real = sets
    passes, plain = [], tiles.kernel_sums
    monkeypatch.setattr(tiles, "kernel_sums", lambda *given, **options: passes.append(1) or plain(*given, **options))
    masks = {"Edema": (np.arange(50) < 20, np.arange(60) < 25), "Fracture": (np.arange(50) < 1, np.arange(60) < 9)}
    patients = (None, np.arange(60) // 2)
    result = loaded["kid"].compute(
        predictions=fake,
        references=real,
        groups=masks,
        patients=patients,
        subsets=4,
        subset_size=30,
        confidence_level=0.9,
    )
    assert len(passes) == 1
    alone = kernel.kernel_distance(real[:25], fake[:20], real_clusters=np.arange(25) // 2)
    edema = result["labels"]["Edema"]
    assert (edema["kid"], edema["kid_standard_error"]) == pytest.approx(alone, rel=1e-4)
    assert edema["kid_low"] < edema["kid"] < edema["kid_high"]
    assert result["labels"]["Fracture"]["kid"] is None
    assert "insufficient n: expected at least 2 rows, got 1 predictions" in result["labels"]["Fracture"]["warnings"]
    far = loaded["kid"].compute(predictions=fake, references=real, groups=masks, subsets=4, subset_size=30, exact=False)
    assert far["labels"]["Edema"]["kid"] == pytest.approx(alone.value, rel=1e-4)


def test_kid_p_value_of_all_rows_and_of_labels(loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    masks = {"Edema": (np.arange(50) < 20, np.arange(60) < 25), "Fracture": (np.arange(50) < 8, np.arange(60) < 9)}
    asked = {"groups": masks, "permutations": 99}
    result = loaded["kid"].compute(predictions=fake, references=real, **asked)
    assert result["kid_p_value"] == result["labels"]["Edema"]["kid_p_value"] == pytest.approx(0.01)
    again = loaded["kid"].compute(predictions=fake, references=real, **asked)
    assert again["labels"] == result["labels"]
    null = loaded["kid"].compute(predictions=real[:30], references=real[30:], permutations=99)
    assert null["kid_p_value"] > 0.05
    patients = (None, np.arange(60) // 3)
    result = loaded["kid"].compute(predictions=fake, references=real, patients=patients, **asked)
    assert result["kid_p_value"] == pytest.approx(0.01)
    few = result["labels"]["Fracture"]
    assert few["kid"] is not None
    assert few["kid_p_value"] is None
    assert few["warnings"] == ["no p-value: expected at least 5 patients a side, got 3"]


def test_prdc_per_sample(loaded: dict[str, Any], sets: Any) -> None:
    fake, real = sets
    result = loaded["prdc"].compute(predictions=fake, references=real, per_sample=True)
    assert np.mean(result["prdc_precise"]) == result["precision"]
    assert np.mean(result["prdc_inside_real"]) / 5 == pytest.approx(result["density"])
    assert np.mean(result["prdc_covered"]) == result["coverage"]
    assert len(result["prdc_realism"]) == len(result["prdc_rarity"]) == 50
    outside = [rarity is None for rarity in result["prdc_rarity"]]
    assert outside == [not precise for precise in result["prdc_precise"]]
    assert any(outside)
    assert min(rarity for rarity in result["prdc_rarity"] if rarity is not None) > 0


def test_combine_shares_rows_and_says_what_it_did_not_use(sets: Any) -> None:
    fake, real = sets
    together = evaluate.combine([load(name) for name in DISTANCES])
    result = together.compute(predictions=fake, references=real, nearest_k=3)
    assert {"fid", "kid", "precision", "coverage", "kid_standard_error"} <= set(result)
    assert result["fid_n_references"] == 60
    assert "option 'nearest_k' is not used by fid" in result["fid_warnings"]
    together.add_batch(predictions=fake, references=real)
    assert_alike(together.compute(nearest_k=3), result)
    together.add(predictions=fake[0], references=real[0])
    together.add_batch(predictions=fake[1:], references=real[1:])
    assert together.compute(nearest_k=3)["precision"] == result["precision"]


def test_alignment_of_images_and_prompts(loaded: dict[str, Any], pictures: Any) -> None:
    prompts = ["a cab", "bad bead", "feed a bee", "a" * 50] * 3
    result = loaded["alignment"].compute(
        predictions=pictures, references=prompts, rivals=prompts[::-1], encoder=Thumbnail(), per_sample=True,
        real_images=pictures[:5], real_prompts=prompts[:5], groups={"first": np.arange(12) < 6}, shuffles=19,
    )  # fmt: skip
    assert result["n_distinct_prompts"] == 4
    assert result["alignment_truncated"] == 3
    assert any("3 of 12 prompts are longer than the encoder reads" in warning for warning in result["warnings"])
    assert np.mean(result["alignment_per_sample"]) == pytest.approx(result["alignment"])
    assert {"alignment_z", "alignment_shuffled_p", "alignment_win_rate", "alignment_ceiling"} <= set(result)
    assert result["labels"]["first"]["n_predictions"] == 6
    assert result["labels"]["first"]["n_distinct_prompts"] == 4


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("one prompt", r"references: expected a list of prompts, one per image, got one string; pass \[prompt, ...\]"),
        (["a", None], "references: expected a list of prompts .str., got NoneType in it"),
        (["a", "b"], r"one prompt embedding per image.*\(12, 16\) for images and \(2, 16\) for texts"),
        (np.zeros((12, 8, 8), np.uint8), "references: expected prompts or text embeddings, got films"),
    ],
)
def test_alignment_refusals(loaded: dict[str, Any], pictures: Any, references: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loaded["alignment"].compute(predictions=pictures, references=references, encoder=Thumbnail())


def test_alignment_needs_both_halves_of_real_pairs(loaded: dict[str, Any], sets: Any) -> None:
    with pytest.raises(ValueError, match="expected real_images and real_prompts together, got one of them"):
        loaded["alignment"].compute(predictions=sets[0], references=sets[0], real_images=sets[1])


def test_no_encoder_for_images_names_the_choices(loaded: dict[str, Any], pictures: Any, monkeypatch: Any) -> None:
    from synthchex.models import encoders

    def absent(*args: object, **kwargs: object) -> None:
        raise ValueError("rad-dino cannot be loaded (offline)")

    monkeypatch.setattr(encoders, "load_encoder", absent)
    with pytest.raises(
        ValueError, match=r"expected an encoder for images, got none.*pass encoder=: one of \['dinov2-base'"
    ):
        loaded["fid"].compute(predictions=pictures, references=pictures)


def test_the_cost_over_the_bare_function_is_small() -> None:
    import time

    from synthchex.maths import frechet

    rng = np.random.default_rng(3)
    fake, real = (rng.normal(size=(6000, 256)).astype(np.float32) for _ in range(2))
    module, times = load("fid"), ([], [])
    for _ in range(5):
        start = time.process_time()
        frechet.frechet_distance(real, fake)
        times[0].append(time.process_time() - start)
        start = time.process_time()
        module.compute(predictions=fake, references=real)
        times[1].append(time.process_time() - start)
    assert min(times[1]) < 1.3 * min(times[0]) + 0.02


def test_interval_entries_are_flat() -> None:
    from synthchex.maths.intervals import Interval

    assert measure.with_interval("fid", None) == {}
    assert measure.with_interval("fid", Interval(1, 2, 0.5)) == {"fid_low": 1, "fid_high": 2, "fid_standard_error": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_the_card_runs(name: str) -> None:
    card = (ROOT / "metrics" / name / "README.md").read_text()
    exec(compile(card.split("```python\n")[1].split("```")[0], f"{name}/README.md", "exec"), {})


PROCESS = """
import sys
import evaluate
import numpy as np
from torch import distributed

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
rng = np.random.default_rng(0)
fake, real = rng.normal(size=(50, 6)), rng.normal(size=(60, 6)) + 0.5
module = evaluate.load(sys.argv[3], num_process=2, process_id=rank)
mask = {"a": (np.arange(50) % 2 == 0, np.arange(60) % 3 == 0)}
half = {"a": (mask["a"][0][rank * 20 : 20 + rank * 30], mask["a"][1][rank * 30 : 30 + rank * 30])}
found = module.compute(predictions=fake[rank * 20 : 20 + rank * 30], references=real[rank * 30 :][:30], groups=half)
if rank == 0:
    alone = evaluate.load(sys.argv[3]).compute(predictions=fake, references=real, groups=mask)
    assert abs(found["fid"] - alone["fid"]) < 1e-9, (found, alone)
    assert abs(found["labels"]["a"]["fid"] - alone["labels"]["a"]["fid"]) < 1e-9
    assert (found["n_predictions"], found["n_references"]) == (50, 60)
else:
    assert found is None
distributed.barrier()
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    import subprocess
    import sys

    arguments = [str(tmp_path / "meeting"), str(ROOT / "metrics" / "fid")]
    ranks = [subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), *arguments]) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]


def test_more_processes_than_a_group_are_refused(sets: Any) -> None:
    fake, real = sets
    module = evaluate.load(str(ROOT / "metrics" / "fid"), num_process=2, process_id=0, experiment_id="alone")
    with pytest.raises(ValueError, match="expected a process group for num_process > 1, got none; create accelerate"):
        module.compute(predictions=fake, references=real)


@pytest.mark.parametrize("name", ["frechet", "kernel", "neighbors", "alignment"])
def test_examples_in_docstrings(name: str) -> None:
    import doctest
    import importlib

    found = doctest.testmod(importlib.import_module(f"synthchex.maths.{name}"))
    assert (found.failed, found.attempted > 0) == (0, True)
