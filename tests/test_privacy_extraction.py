"""Extraction: limits of different prompts, cliques within one, bounded work, triggers in prompts."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthchex import phantom
from synthchex.data import lint
from synthchex.data.sources import ImageSet
from synthchex.models import store
from synthchex.privacy import extraction
from synthchex.privacy.extraction import Space


def films(prompts: int, seeds: int, *, learnt: int = 0, width: int = 24, seed: int = 0) -> tuple[Space, list[str]]:
    """Features of so many seeds of each prompt; those of the first `learnt` prompts are near twins, but for one."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(prompts, seeds, width)) + 0.5 * rng.normal(size=(prompts, 1, width))
    found[:learnt, 1:] = found[:learnt, :1] + 0.02 * rng.normal(size=(learnt, seeds - 1, width))
    found[:learnt, 2] += 5
    texts = [f"prompt {row}" for row in range(prompts) for _ in range(seeds)]
    return Space("features", found.reshape(-1, width).astype(np.float32)), texts


def test_learnt_prompts_are_found_and_others_are_not() -> None:
    space, prompts = films(200, 6, learnt=4)
    order = np.random.default_rng(1).permutation(len(prompts))  # in any order of the rows
    mixed = Space("features", space.films[order])
    found = extraction.find_twins([mixed], [prompts[row] for row in order])
    result = found["spaces"]["features"]
    assert (found["films"], found["prompts"], found["prompts_judged"]) == (1200, 200, 200)
    assert (result["found"]["hits"], result["cliques"], result["largest"]) == (4, 4, 5)
    assert result["pairs"] == 200 * 15
    assert result["near_pairs"] >= 4 * 10
    wanted = [[row for row in range(6 * prompt, 6 * prompt + 6) if row % 6 != 2] for prompt in range(4)]
    assert sorted(sorted(order[one["rows"]].tolist()) for one in result["listed"]) == wanted
    assert result["searched_in_part"] == 0
    first = space.films[order][result["listed"][0]["rows"]]
    pairs = [extraction.distances(first[i : i + 1], first[j : j + 1])[0] for i in range(5) for j in range(i)]
    assert result["listed"][0]["farthest"] == pytest.approx(max(pairs))


def test_none_found_has_its_exact_upper_bound() -> None:
    space, prompts = films(300, 4)
    result = extraction.find_twins([space], prompts)["spaces"]["features"]
    assert result["found"]["hits"] == result["largest"] == 0
    assert result["found"]["upper"] == pytest.approx(1 - 0.05 ** (1 / 300))


def test_the_limit_is_the_share_of_pairs_of_different_prompts() -> None:
    space, prompts = films(200, 3)
    found = extraction.near_limit(space, prompts, quantile=0.01, pairs=20_000)
    one, other = np.random.default_rng(5).integers(0, 600, (2, 20_000))
    apart = np.array(prompts)[one] != np.array(prompts)[other]
    below = extraction.distances(space.films[one], space.films[other])[apart] <= found["limit"]
    assert below.mean() == pytest.approx(0.01, abs=0.003)
    assert found["setting_pairs"] == pytest.approx(200, abs=5)
    assert not found["same_labels"]


def test_pairs_of_the_same_labels_set_a_nearer_limit() -> None:
    space, prompts = films(200, 3)
    states = np.full((600, 14), np.nan, np.float32)
    states[:, 3] = np.repeat(np.arange(200) % 4, 3)
    space.films[:] += 8 * np.eye(24, dtype=np.float32)[states[:, 3].astype(int)]
    within, any_two = (extraction.near_limit(space, prompts, labels, quantile=0.2) for labels in (states, None))
    assert within["limit"] < any_two["limit"]
    assert within["prompt_pairs"] <= 4 * 50 * 49 // 2
    assert extraction.find_twins([space], prompts, states)["spaces"]["features"]["limit"]["same_labels"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantile": 1e-6}, "quantile must be below 1 and at least 2.5e-05, the smallest that 400"),
        ({"labels": list(range(900))}, "the smallest that 0 pairs of prompts with the same labels"),
        ({"size": 1}, "a size of at least 2"),
        ({"size": 4}, "expected prompts with 4 to 5000 films, got 3 at most"),
        ({"prompts": ["one"]}, "prompts: expected 900 ids, one per row, got 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(change: dict[str, Any], message: str) -> None:
    space, prompts = films(300, 3)
    with pytest.raises(ValueError, match=message):
        extraction.find_twins([space], **{"prompts": prompts, **change})
    with pytest.raises(ValueError, match="spaces of the same films"):
        extraction.find_twins([space, Space("other", space.films[1:])], prompts)


def test_a_black_border_makes_no_twins() -> None:
    """Films that differ in one corner only: alike over the whole film, far apart in that tile."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((400, 64, 64), np.uint8)
    pixels[:, :16, :16] = rng.integers(0, 256, (400, 16, 16))
    coder = extraction.Tiles(64, 4)
    tiled = coder.space(coder.encode(list(pixels)))
    assert tiled.films.shape == (400, 16, 256)
    assert np.array_equal(tiled.films[:, 0].reshape(-1, 16, 16), pixels[:, :16, :16])
    whole = extraction.distances(tiled.films[:1].reshape(1, -1), tiled.films[1:2].reshape(1, -1))
    corner = extraction.distances(tiled.films[:1], tiled.films[1:2])
    plain = pixels[:2, :16, :16].astype(float)
    assert corner == pytest.approx(np.sqrt(np.square(plain[0] - plain[1]).mean()), rel=1e-5)
    assert whole == pytest.approx(corner / 4, rel=1e-5)
    near = extraction._near(tiled.films[None, :3], float(whole[0]))
    assert near[0].tolist() == np.eye(3, dtype=bool).tolist()
    with pytest.raises(ValueError, match="multiple of tiles, got 64 and 5"):
        extraction.Tiles(64, 5)


def test_tiles_are_kept_in_the_store(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 30, 40), np.uint8)
    pictures = ImageSet("films", list("abcde"), lambda row: pixels[row])
    coder = extraction.Tiles(16, 2)
    for computed in (5, 0):
        found = store.encode(pictures, [coder], tmp_path, quiet=True)
        assert found.computed == computed
    square = np.asarray(Image.fromarray(pixels[3]).resize((16, 16), Image.Resampling.BILINEAR), np.float32)
    assert np.array_equal(coder.space(found.features[0]).films[3, 1], square[:8, 8:].ravel())


def test_near_in_all_spaces_is_stricter_than_in_each() -> None:
    features, prompts = films(150, 4, learnt=3)
    pixels = Space("pixels", films(150, 4, learnt=2)[0].films.reshape(600, 4, 6))
    found = extraction.find_twins([features, pixels], prompts)["spaces"]
    assert [found[name]["found"]["hits"] for name in ("features", "pixels", "all")] == [3, 2, 2]
    assert found["all"]["limit"] is None


def test_blocks_and_uneven_prompts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space, prompts = films(100, 6, learnt=5)
    kept = np.delete(np.arange(600), [3, 5, *range(96, 100), 599])
    some, texts = Space("features", space.films[kept]), [prompts[row] for row in kept]
    found = extraction.find_twins([some], texts)
    assert found["prompts_judged"] == 99  # prompt 16 has lost four of its films, and so two are left
    monkeypatch.setattr(extraction, "VALUES", 1000)
    again = extraction.find_twins([some], texts)
    assert again == found


def brute(near: np.ndarray) -> int:
    """Size of the largest clique, by trying all."""
    count = len(near)
    return max(
        size
        for size in range(1, count + 1)
        for one in itertools.combinations(range(count), size)
        if all(near[i, j] for i, j in itertools.combinations(one, 2))
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_clique_comes_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near = np.triu(rng.random((11, 11)) < 0.5, 1)
    near |= near.T
    found, whole = extraction.cliques(near, 2)
    assert whole
    assert len(found[0]) == brute(near)
    assert sum(map(len, found)) == len(set().union(*found))
    for one in found:
        assert all(near[i, j] for i, j in itertools.combinations(one, 2))
        assert np.all(np.diff(one) > 0)


def test_work_is_bounded_where_cliques_are_countless() -> None:
    """300 films of which each is near all but two: 3 ** 100 largest cliques of 100."""
    near = ~np.kron(np.eye(100, dtype=bool), np.ones((3, 3), bool))
    began = time.monotonic()
    found, whole = extraction.cliques(near, 3)
    assert time.monotonic() - began < 10
    assert len(found[0]) == 100
    assert not whole
    assert extraction.cliques(np.ones((300, 300), bool), 3) == ([list(range(300))], True)
    space, prompts = films(40, 60, learnt=1)
    space.films[:60] = np.random.default_rng(0).normal(scale=1e-3, size=(60, 24))
    result = extraction.find_twins([space], prompts, quantile=0.01)["spaces"]["features"]
    assert result["largest"] == 60


def test_a_hundred_thousand_films_of_one_prompt_after_the_other() -> None:
    space, prompts = films(10_000, 10, learnt=7, width=64)
    began = time.monotonic()
    found = extraction.find_twins([space], prompts, quantile=1e-4)["spaces"]["features"]
    assert time.monotonic() - began < 30
    # Some prompts of a healthy model have three near films; what was learnt comes first, and far below the limit.
    assert 7 <= found["found"]["hits"] < 150
    assert sorted(one["rows"][0] // 10 for one in found["listed"][:7]) == list(range(7))
    assert all(one["farthest"] < found["limit"]["limit"] / 10 for one in found["listed"][:7])
    assert all(len(one["rows"]) < 5 for one in found["listed"][7:])


def test_phantom_films_are_no_twins_unless_they_are_given_back() -> None:
    pixels = phantom.make(400, size=32, seed=0).images.copy()
    prompts = [f"p{row // 4}" for row in range(400)]
    coder = extraction.Tiles(32, 2)
    healthy = extraction.find_twins([coder.space(coder.encode(list(pixels)))], prompts)["spaces"]["pixels"]
    assert healthy["found"]["hits"] == 0
    noise = np.random.default_rng(0).integers(-2, 3, (40, 32, 32))
    pixels[:40] = np.clip(np.repeat(pixels[:40:4], 4, axis=0) + noise, 0, 255).astype(np.uint8)
    learnt = extraction.find_twins([coder.space(coder.encode(list(pixels)))], prompts)["spaces"]["pixels"]
    assert learnt["found"]["hits"] == 10
    assert learnt["largest"] == 4


def test_prompts_that_invite_memorised_films_are_counted() -> None:
    report = "there is a small nodule in the left upper lobe near the third rib"
    prompts = ["Seen on ___ by Dr. ___", "clear lungs", "clear lungs", f"Chest film: {report}.", "XXXX-year-old"]
    found = extraction.prompt_risk(prompts, [report, "clear lungs", "no acute findings are seen in this film today"])
    assert found["counts"] == {lint.MARK: 2, lint.REPEATED: 1}
    assert (found["marked"]["hits"], found["verbatim"]["hits"]) == (2, 1)
    assert found["rows"] == {lint.MARK: [0, 4], lint.REPEATED: [2], "verbatim phrase": [3]}
    alone = extraction.prompt_risk(["clear lungs"])
    assert alone["verbatim"] is None
    assert alone["rows"] == {}
    with pytest.raises(ValueError, match="at least 1 film"):
        extraction.prompt_risk([])
