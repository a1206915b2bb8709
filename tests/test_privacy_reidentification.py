"""Re-identification: the network as published, thresholds from real pairs, matches beside held-out films, no defect."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from synthchex import phantom
from synthchex.data import images
from synthchex.data.sources import ImageSet
from synthchex.models import siamese, store
from synthchex.phantom.film import render
from synthchex.phantom.shapes import DRAWS
from synthchex.privacy import benchmark, rates, reidentification
from synthchex.scores import chexgenbench

SIZE = 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published layout, as DataParallel saves them, in a folder under the published name."""
    torch.manual_seed(0)
    network = siamese.SiameseNetwork()
    torch.nn.init.normal_(network.fc_end.weight)  # of both signs
    torch.nn.init.constant_(network.fc_end.bias, 0.3)
    # With the statistics of some films, or all films are alike behind fifty random layers.
    torch.nn.init.normal_(network.model.get_submodule("fc").weight, std=0.2)
    with torch.no_grad():
        for _ in range(4):
            network.train()(torch.rand(4, 3, 64, 64) * torch.rand(4, 1, 1, 1))
    path = tmp_path_factory.mktemp("weights") / siamese.FILE
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> siamese.Siamese:
    return siamese.load_siamese(str(weights.parent), device="cpu")


def published(state: dict[str, torch.Tensor], film: torch.Tensor) -> torch.Tensor:
    """The embedding by plain functions over the file's names, as torchvision's ResNet-50 runs."""
    state = {name.removeprefix("module."): value for name, value in state.items()}

    def layer(maps: torch.Tensor, place: str, number: int, **options: int) -> torch.Tensor:
        conv, norm = (f"{place}.0", f"{place}.1") if not number else (f"{place}.conv{number}", f"{place}.bn{number}")
        maps = functional.conv2d(maps, state[f"{conv}.weight"], **options)
        parts = [state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(maps, *parts)

    maps = functional.max_pool2d(functional.relu(layer(film, "model", 1, stride=2, padding=3)), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            place, stride = f"model.layer{stage}.{block}", 2 if stage > 1 and not block else 1
            inner = functional.relu(layer(maps, place, 1))
            inner = functional.relu(layer(inner, place, 2, stride=stride, padding=1))
            past = maps if block else layer(maps, f"{place}.downsample", 0, stride=stride)
            maps = functional.relu(layer(inner, place, 3) + past)
    pooled = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
    return torch.sigmoid(functional.linear(pooled, state["model.fc.weight"], state["model.fc.bias"]))


def test_scores_are_those_of_the_published_layout(weights: Path, network: siamese.Siamese) -> None:
    films = [np.random.default_rng(top).integers(0, top, (224, 224), np.uint8) for top in (256, 150, 40)]
    found = network.encode(films)
    assert found.shape == (3, 128)
    state = torch.load(weights, weights_only=True)
    given = torch.stack([torch.from_numpy(film / np.float32(255)).expand(3, -1, -1) for film in films])
    mine = published(state, given)
    assert np.allclose(found, mine.numpy(), atol=1e-5)
    difference = (mine[:, None] - mine[None]).abs()
    logits = functional.linear(difference, state["module.fc_end.weight"], state["module.fc_end.bias"])[..., 0]
    scores = network.scores(found, found)
    assert np.allclose(scores, torch.sigmoid(logits).numpy(), atol=1e-5)
    assert np.ptp(scores) > 0.01
    assert np.array_equal(scores, scores.T)
    assert np.allclose(np.diag(scores), 1 / (1 + np.exp(-0.3)), atol=1e-6)


def test_films_are_encoded_once_through_the_store(network: siamese.Siamese, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 40), np.uint8)
    films = ImageSet("films", ["a", "b", "c"], lambda row: pixels[row])
    found = store.encode(films, [network], tmp_path, quiet=True)
    again = store.encode(films, [network], tmp_path, quiet=True)
    assert (found.computed, again.computed) == (3, 0)
    assert np.array_equal(found.features[0], again.features[0])
    alone = network.encode([pixels[1]])
    assert np.allclose(alone, found.features[0][1], atol=1e-5)


def test_the_input_of_the_original_is_another_key(weights: Path, network: siamese.Siamese) -> None:
    original = siamese.load_siamese(str(weights), read_as="original", device="cpu")
    assert original.key != network.key
    film = np.full((20, 30), 255, np.uint8)
    assert network.prepare([film]).unique().tolist() == [1.0]
    given = original.prepare([film])
    assert given.shape == (1, 3, 256, 256)
    assert given[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    with pytest.raises(ValueError, match="read_as must be one of"):
        siamese.load_siamese(str(weights), read_as="other")  # type: ignore[arg-type]


def test_weights_load_exactly_or_not_at_all(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["module.extra"] = state.pop("module.fc_end.bias")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"1 missing, e.g. \['fc_end.bias'\]; 1 unexpected, e.g. \['extra'\]"):
        siamese.load_siamese(str(tmp_path / "other.pth"))
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pth")
    with pytest.raises(ValueError, match="cannot be read as such"):
        siamese.load_siamese(str(tmp_path / "code.pth"))
    with pytest.raises(ValueError, match="got no such file; copy ResNet-50"):
        siamese.load_siamese(str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match="cannot be loaded"):
        siamese.load_siamese("somebody/something")


def test_nothing_found_has_the_exact_upper_bound() -> None:
    found = rates.counted(np.zeros(2000, bool))
    assert found["upper"] == pytest.approx(1 - 0.05 ** (1 / 2000))
    assert round(100 * found["upper"], 2) == 0.15
    assert (found["hits"], found["share"], found["low"]) == (0, 0.0, 0.0)
    assert round(100 * rates.counted(np.zeros(75649, bool))["upper"], 3) == 0.004
    assert rates.counted(np.ones(5, bool))["upper"] == rates.counted(np.ones(5, bool))["high"] == 1.0


@pytest.mark.parametrize(("hits", "films"), [(0, 7), (3, 40), (40, 40), (1, 1)])
def test_bounds_are_those_of_clopper_and_pearson(hits: int, films: int) -> None:
    found, test = rates.counted(np.arange(films) < hits), stats.binomtest(hits, films)
    ends = test.proportion_ci(0.95, "exact")
    assert (found["low"], found["high"]) == pytest.approx((ends.low, ends.high))
    one_sided = stats.binomtest(hits, films, alternative="less").proportion_ci(0.95, "exact")
    assert found["upper"] == pytest.approx(one_sided.high)


def test_films_of_one_patient_are_no_independent_ones() -> None:
    hits, ids = np.repeat([True, False, False, True, False], 10), np.repeat(np.arange(5), 10)
    found, alone = rates.counted(hits, clusters=ids), rates.counted(hits)
    # 5 patients that agree with themselves, less the degree of freedom of the share, less what 4 degrees cost.
    assert found["effective_films"] == pytest.approx(4 * (stats.t.ppf(0.975, 49) / stats.t.ppf(0.975, 4)) ** 2)
    assert found["high"] - found["low"] > 1.5 * (alone["high"] - alone["low"])
    none = rates.counted(np.zeros(50, bool), clusters=ids)
    assert none["upper"] == pytest.approx(1 - 0.05 ** (1 / 5))
    with pytest.raises(ValueError, match="at least 1 film to count, got 0"):
        rates.counted(np.zeros(0, bool))


def test_a_limit_is_passed_by_its_share_of_new_values() -> None:
    rng = np.random.default_rng(0)
    limits = np.array([rates.limit_of(rng.normal(size=99), 0.05) for _ in range(4000)])
    passed = rng.normal(size=4000) > limits
    assert passed.mean() == pytest.approx(0.05, abs=0.012)
    assert rates.limit_of(np.arange(99.0), 0.01) == 98.0
    assert rates.limit_of(np.arange(98.0), 0.01) is None


def test_a_gap_is_wide_where_either_share_is_unsure() -> None:
    same = rates.counted(np.arange(200) < 20)
    few = rates.counted(np.arange(10) < 1)
    assert rates.gap(same, same)["low"] < 0 < rates.gap(same, same)["high"]
    narrow, wide = rates.gap(same, same), rates.gap(same, few)
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]
    assert rates.gap(rates.counted(np.ones(100, bool)), rates.counted(np.zeros(100, bool)))["low"] > 0.9


def people(patients: int, films: int, *, seed: int, spread: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of patients with so many films each, and whose they are."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(patients), films)
    return rng.normal(size=(patients, 16))[owners] + spread * rng.normal(size=(len(owners), 16)), owners


def test_pairs_are_of_one_patient_or_of_two_each_once() -> None:
    owners = np.random.default_rng(0).permutation(np.repeat(np.arange(12), [1, 2, 3, 30, 1, 1, 1, 1, 1, 1, 1, 1]))
    found = reidentification.real_pairs(owners)
    same = owners[found.first] == owners[found.second]
    assert np.array_equal(same, found.same)
    assert same.sum() == 1 + 3 + reidentification.PER_PATIENT
    assert (found.first != found.second).all()
    two = np.sort(np.stack([owners[found.first], owners[found.second]])[:, ~same], axis=0)
    assert len(np.unique(two, axis=1).T) == (~same).sum() == 12 * 11 // 2
    fewer = reidentification.real_pairs(np.arange(100_000) % 60_000, pairs=50, seed=1)
    assert (~fewer.same).sum() == fewer.same.sum() == 50


@pytest.mark.parametrize("count", [2, 3, 7, 90])
def test_every_pair_has_its_number(count: int) -> None:
    found = reidentification._choose(count, 10**6, np.random.default_rng(0))
    assert sorted(map(tuple, found)) == [(low, high) for low in range(count) for high in range(low + 1, count)]


def test_the_largest_numbers_of_pairs_are_exact() -> None:
    count = 2_000_000
    found = reidentification._choose(count, 2000, np.random.default_rng(0))
    assert ((found[:, 0] >= 0) & (found[:, 0] < found[:, 1]) & (found[:, 1] < count)).all()
    assert found.max() > 0.9 * count


def test_the_threshold_holds_its_rate_on_other_patients() -> None:
    embeddings, owners = people(150, 2, seed=0, spread=0.8)
    found = reidentification.calibrate(reidentification.cosine, embeddings, owners, false_positives=0.01)
    assert 0.9 < found["auroc"]["low"] < found["auroc"]["value"] < 1
    assert found["setting_pairs"] == 111
    assert (found["patients"], found["same_pairs"], found["different_pairs"]) == (150, 150, 150 * 149 // 2)
    others, whose = people(300, 2, seed=1, spread=0.8)
    scores = reidentification.cosine(others, others)
    apart = whose[:, None] != whose
    assert (scores > found["threshold"])[apart].mean() == pytest.approx(0.01, abs=0.004)
    twins = (scores > found["threshold"])[np.arange(0, 600, 2), np.arange(1, 600, 2)].mean()
    assert found["detected"]["low"] < twins < found["detected"]["high"]


@pytest.mark.parametrize(
    ("owners", "rate", "message"),
    [
        (np.arange(30), 0.1, "at least 10 patients, 2 of them with two films, got 30 patients, 0 with two films"),
        (np.repeat(np.arange(9), 2), 0.1, "got 9 patients, 9 with two films; calibrate on a real set"),
        (np.repeat(np.arange(20), 2), 1e-3, "at least 0.00524, the smallest that 190 pairs"),
        (np.repeat(np.arange(20), 2), 1.0, "must be below 1"),
    ],
)
def test_too_few_patients_are_refused(owners: np.ndarray, rate: float, message: str) -> None:
    embeddings = np.random.default_rng(0).normal(size=(len(owners), 4))
    with pytest.raises(ValueError, match=message):
        reidentification.calibrate(reidentification.cosine, embeddings, owners, false_positives=rate)


def test_best_matches_in_blocks_are_those_of_all_scores_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    films, train = rng.normal(size=(23, 5)).astype(np.float32), rng.normal(size=(41, 5)).astype(np.float32)
    train[40] = train[3]  # the first of equals
    films[0] = train[3]
    monkeypatch.setattr(reidentification, "ROWS", 4)
    monkeypatch.setattr(reidentification, "COLUMNS", 7)
    found, scores = (
        reidentification.best_matches(films, train, reidentification.cosine),
        reidentification.cosine(films, train),
    )
    assert np.allclose(found.scores, scores.max(1))
    assert found.rows[0] == 3
    assert np.array_equal(found.rows[1:], scores[1:].argmax(1))
    with pytest.raises(ValueError, match="one width on both sides"):
        reidentification.best_matches(films, train[:, :3], reidentification.cosine)
    films[5] = np.nan
    with pytest.raises(ValueError, match="finite scores"):
        reidentification.best_matches(films, train, reidentification.cosine)


def bodies(patients: int, films: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Phantoms: the body of a patient is drawn once, findings and grain anew for each film; features are pixels."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(patients), films)
    draws = rng.random((patients, DRAWS))[owners]
    grain = rng.standard_normal((len(owners), SIZE, SIZE), dtype=np.float32)
    pixels = render(SIZE, phantom.draw_charts(len(owners), seed=seed), draws, grain)
    return pixels.reshape(len(owners), -1).astype(np.float64), owners


def test_copied_phantom_patients_are_found_and_new_ones_are_not() -> None:
    real, owners = bodies(60, 3, seed=0)
    real -= (mean := real.mean(0))
    found = reidentification.calibrate(reidentification.cosine, real, owners)
    assert found["auroc"]["low"] > 0.9
    train, trained = bodies(80, 3, seed=1)
    held_out, unseen = bodies(80, 3, seed=2)
    fresh = bodies(200, 1, seed=3)[0]
    copies = np.concatenate([train[:40], fresh[:160]])
    threshold, score = found["threshold"], reidentification.cosine
    options: Any = {"held_out_patients": unseen + 1000, "train_patients": trained}
    copied, best = reidentification.match(copies - mean, held_out - mean, train - mean, score, threshold, **options)
    shipped, _ = reidentification.match(fresh - mean, held_out - mean, train - mean, score, threshold, **options)
    assert np.array_equal(best.rows[:40], np.arange(40))
    assert copied["gap"]["low"] > 0.05
    assert copied["control"]["gap"]["low"] > 0.05
    assert shipped["gap"]["low"] < 0 < shipped["gap"]["high"]
    assert copied["patients_checked"]


def test_held_out_patients_must_not_be_trained_on() -> None:
    films = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(ValueError, match="got 1 patients in both"):
        reidentification.match(
            films, films, films, reidentification.cosine, 0.5, held_out_patients=list("abcabc"),
            train_patients=list("cdefgh"),
        )  # fmt: skip
    found, _ = reidentification.match(films, films, films + 5, reidentification.cosine, 0.99, prompts=list("aabbcc"))
    assert not found["patients_checked"]
    assert found["synthetic"]["films"] == 6


def distances(pixels: list[np.ndarray]) -> dict[str, Any]:
    """The benchmark's row of one prompt from its real film and its seeds' films."""
    groups = np.zeros(len(pixels) - 1, np.int64)
    films = ImageSet("films", [str(row) for row in range(len(pixels))], lambda row: pixels[row])
    found = benchmark.pixel_distances(
        films.take([0]), films.take(range(1, len(pixels))), groups, None, side=SIZE, quiet=True
    )
    none = np.zeros(len(groups))
    row: dict[str, Any] = benchmark.compare_groups(none, none, found, groups, 0.5)["rows"][0]
    return row


def test_defect_wrap_around_pixels_are_subtracted_as_floats() -> None:
    a = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE), np.uint8)
    assert benchmark.pixel_distance(a, a + 1) == benchmark.pixel_distance(a + 1, a) == 1.0
    assert np.linalg.norm(a - (a + 1)) / np.sqrt(a.size) == 255.0  # theirs
    assert benchmark.pixel_distance(np.uint8([[100, 0]]), np.uint8([[110, 0]])) == pytest.approx(10 / np.sqrt(2))
    colour = images.to_rgb(a)
    assert benchmark.pixel_distance(colour, a) == 0.0
    with pytest.raises(ValueError, match="expected uint8 films, got float64"):
        benchmark.pixel_distance(a / 255, a)
    with pytest.raises(ValueError, match="of one size"):
        benchmark.pixel_distance(a, a[:5])


def test_defect_last_seed_every_seed_has_its_own_distance() -> None:
    real = np.full((SIZE, SIZE), 100, np.uint8)
    row = distances([real, real + 1, real + 3, real + 8])
    assert row["Min_pixel_distance"] == 1.0
    assert row["Mean_pixel_distance"] == 4.0  # theirs: 8 for both


def test_defect_no_calibration_the_count_is_above_a_threshold_that_real_pairs_set() -> None:
    embeddings, owners = people(150, 2, seed=0)
    threshold = reidentification.calibrate(reidentification.cosine, embeddings, owners)["threshold"]
    real, synthetic = people(100, 10, seed=5)[0][::10], people(100, 10, seed=6)[0]
    groups = np.repeat(np.arange(100), 10)
    synthetic[:30] = real[groups[:30]] + 0.05  # three prompts give their own film back
    score = reidentification.cosine
    scores = benchmark.group_scores(score, real, synthetic, groups)
    assert np.allclose(scores, score(real, synthetic)[groups, np.arange(1000)])
    latent = benchmark.latent_distances(real, synthetic, groups)
    assert latent[:30] == pytest.approx(0.05)
    found = benchmark.compare_groups(scores, latent, None, groups, threshold)
    assert 3 <= found["summary"]["Count Re-ID > delta"] <= 5
    assert found["above"]["upper"] < 0.11


def test_defect_no_control_held_out_films_stand_beside_the_synthetic_ones() -> None:
    """Fresh films among 20,000 real ones: the best of so many passes often, and so it does for held-out films."""
    embeddings, owners = people(100, 2, seed=0, spread=1.0)
    threshold = reidentification.calibrate(reidentification.cosine, embeddings, owners)["threshold"]
    train, held_out, fresh = (people(count, 1, seed=seed)[0] for seed, count in enumerate((20_000, 300, 400), 1))
    found, _ = reidentification.match(fresh, held_out, train, reidentification.cosine, threshold)
    assert found["synthetic"]["share"] > 0.5  # looks like a scandal by itself
    assert found["gap"]["low"] < 0 < found["gap"]["high"]
    assert found["expected_by_chance"] == pytest.approx(found["synthetic"]["hits"], rel=0.2)


def test_defect_nothing_saved_until_the_end_what_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, asked, broken = np.random.default_rng(0), [], [True]
    pixels = [rng.integers(0, 256, (SIZE, SIZE), np.uint8) for _ in range(13)]

    def fetch(row: int) -> np.ndarray:
        if row == 9 and broken[0]:
            raise images.UnreadableImage("missing", "the disk went away")
        return pixels[row]

    measure = benchmark.pixel_distance
    monkeypatch.setattr(benchmark, "pixel_distance", lambda *pair: (asked.append(1), measure(*pair))[1])
    monkeypatch.setattr(benchmark, "SPAN", 4)
    real, fake = ImageSet("r", ["r"], lambda row: pixels[12]), ImageSet("f", [str(row) for row in range(12)], fetch)
    groups = np.zeros(12, np.int64)
    options: Any = {"side": SIZE, "num_workers": 0, "quiet": True}
    with pytest.raises(images.UnreadableImage):
        benchmark.pixel_distances(real, fake, groups, tmp_path, **options)
    assert len(asked) == 9
    broken[0] = False
    found = benchmark.pixel_distances(real, fake, groups, tmp_path, **options)
    assert len(asked) == 9 + 4  # the first 8 came from the store
    assert found.tolist() == [measure(pixels[12], film) for film in pixels[:12]]
    assert benchmark.pixel_distances(real, fake, groups, tmp_path, **options).tolist() == found.tolist()
    assert len(asked) == 13


def test_defect_cuda_was_required_the_table_is_made_on_any_device(network: siamese.Siamese) -> None:
    films = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
    found = network.encode(list(films))
    groups = np.array([0, 0, 1, 1])
    assert str(network.model.device) == "cpu"
    assert benchmark.group_scores(network.scores, found[:2], found, groups).shape == (4,)


def test_names_are_those_of_the_benchmark() -> None:
    ones = np.ones(4)
    found = benchmark.compare_groups(ones, ones, ones, np.array([0, 0, 1, 1]), 0.5, patients=["p", "p"])
    assert [*found["rows"][0]][2:] == [
        "Mean_reid_scores", "Max_reid_scores", "Mean_pixel_distance", "Min_pixel_distance", "Mean_latent_distance",
        "Min_latent_distance",
    ]  # fmt: skip
    assert set(found["summary"]) == set(chexgenbench.published_file()["privacy"]["columns"])
    assert found["summary"]["Count Re-ID > delta"] == 2
    assert found["intervals"]["Avg. Re-ID Score"] is None  # of one patient
    assert tuple(random.Random(42).choices(range(1, 1000), k=10)) == benchmark.SEEDS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": np.array([0, 2])}, "got none of prompt 1"),
        ({"reid": np.ones(3)}, "one value of each kind per film"),
        ({"latent": np.array([1.0, np.nan])}, r"got NaN or infinity in \['latent'\]"),
    ],
)
def test_what_is_no_table_is_refused(change: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"reid": np.ones(2), "latent": np.ones(2), "pixel": None, "groups": np.array([0, 1])}
    with pytest.raises(ValueError, match=message):
        benchmark.compare_groups(**{**usual, **change}, threshold=0.5)
