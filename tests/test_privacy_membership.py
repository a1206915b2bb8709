"""Membership inference: chance without training, found after overfitting, one number per film whatever the batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthchex import phantom
from synthchex.data.sources import ImageSet
from synthchex.models import samplers
from synthchex.models.samplers.pipelines import denoiser
from synthchex.privacy import membership
from synthchex.privacy.membership import Attack, Errors
from synthchex.training import families, latents, objectives

sys.path.insert(0, str(Path(__file__).parent))
import tiny_pipelines

SIDE = 16
LOW = Attack(times=(0.03, 0.05), draws=4)  # the tiny schedule is short: later times hide most of a film


def films(count: int, *, seed: int, side: int = SIDE, patients: int | None = None) -> ImageSet:
    """Films of coarse noise, with prompts, of so many patients."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4), np.uint8)
    pixels = np.kron(coarse, np.ones((side // 4, side // 4), np.uint8))
    return ImageSet(
        f"films {seed}",
        [f"{seed}-{row}" for row in range(count)],
        lambda row: pixels[row],
        prompts=[f"{'abcdefghij'[row % 10]} lungs" for row in range(count)],
        patients=[f"{seed}-{row % (patients or count)}" for row in range(count)],
    )


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., samplers.Recipe]:
    """A recipe of a tiny pipeline by name."""
    folder = tmp_path_factory.mktemp("pipelines")

    def make(name: str = "stable-diffusion-2-1", side: int = SIDE) -> samplers.Recipe:
        if not (folder / name).exists():
            tiny_pipelines.MAKERS[name](folder / name)
        call: dict[str, Any] = {}
        if name == "pixart-sigma":
            call = {"clean_caption": False, "use_resolution_binning": False}
        if name == "sana":
            call = {"use_resolution_binning": False, "complex_human_instruction": None}
        return samplers.Recipe("tiny", str(folder / name), height=side, width=side, call=call)

    return make


def overfit(sampler: Any, members: ImageSet, store: Path, *, steps: int) -> None:
    """Train all weights of the denoiser on the members at random low times."""
    pipeline, dice = sampler.pipeline, torch.Generator().manual_seed(0)
    family, network, scheduler = (
        families.family_of(pipeline),
        denoiser(pipeline),
        objectives.noising(pipeline.scheduler),
    )
    ask, recipe = (
        objectives.Denoise(network, network.config, family, scheduler, torch.float32),
        membership._training(sampler, LOW),
    )
    side = membership._side(members, sampler, LOW, family, 0)
    seen = latents.films_store(store, pipeline.vae, side, recipe, shifted=False, batch_size=8)
    told = latents.prompts_store(store, pipeline, side.prompts, {}, device="cpu", batch_size=8)
    shape, rows = seen[side.digests[0]]["mean"].shape, range(len(side))
    clean, states = latents.batch(
        side, seen, told, rows, [objectives.draw(0, "none", row, shape) for row in rows], recipe
    )
    states = {name: one.clone() for name, one in states.items()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-2, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        times = 0.08 * torch.rand(len(side), generator=dice)
        noise = torch.randn(len(side), *shape, generator=dice)
        draws = [objectives.Draw(1.0, 1.0, float(time), one, one) for time, one in zip(times, noise, strict=True)]
        objectives.losses(ask, recipe, clean, draws, states).mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def test_overfitted_members_are_told_and_those_of_a_random_model_are_not(
    recipe_of: Callable[..., samplers.Recipe], tmp_path: Path
) -> None:
    members, others = films(10, seed=0), films(30, seed=1)
    sampler = samplers.load_sampler(recipe_of(), device="cpu")

    def attack() -> dict[str, Any]:
        found = [membership.denoising_errors(sampler, side, tmp_path, LOW, quiet=True) for side in (members, others)]
        return membership.infer(found[0], found[1], LOW)

    before = attack()
    assert before["auroc"]["low"] < 0.5 < before["auroc"]["high"]
    overfit(sampler, members, tmp_path, steps=250)
    after = attack()
    assert after["auroc"]["value"] > 0.9
    assert after["auroc"]["low"] > 0.6
    assert after["errors"]["members"] < after["errors"]["non_members"] < before["errors"]["members"]


@pytest.mark.parametrize("name", tiny_pipelines.MAKERS)
def test_an_error_is_a_films_own_in_any_batch_and_order(
    recipe_of: Callable[..., samplers.Recipe], tmp_path: Path, name: str
) -> None:
    sampler, some = samplers.load_sampler(recipe_of(name, 32), device="cpu"), films(5, seed=0, side=32)
    attack = Attack(times=(0.2, 0.7), draws=2)
    whole = membership.denoising_errors(sampler, some, tmp_path / "a", attack, batch_size=7, quiet=True)
    turned = membership.denoising_errors(
        sampler, some.take([3, 1]), tmp_path / "b", attack, batch_size=1, num_workers=0, quiet=True
    )
    assert whole.values.shape == (5, 2)
    assert (whole.values > 0).all()
    assert np.allclose(turned.values, whole.values[[3, 1]], rtol=1e-4)
    assert turned.digests == [whole.digests[3], whole.digests[1]]
    other = membership.denoising_errors(
        sampler, some.take([3]), tmp_path / "c", Attack(times=(0.2, 0.7), draws=2, seed=1), quiet=True
    )
    assert not np.allclose(other.values, whole.values[[3]], rtol=1e-4)


def test_errors_are_those_of_the_published_formula(recipe_of: Callable[..., samplers.Recipe], tmp_path: Path) -> None:
    """By hand: encode, noise, ask the network, compare with the noise."""
    sampler, some = samplers.load_sampler(recipe_of(), device="cpu"), films(2, seed=0)
    found = membership.denoising_errors(sampler, some, tmp_path, Attack(times=(0.25,), draws=3), quiet=True)
    pipeline = sampler.pipeline
    with torch.no_grad():
        film = torch.from_numpy(some.fetch(1)).float()[None, None].expand(1, 3, -1, -1) / 127.5 - 1
        clean = pipeline.vae.encode(film).latent_dist.mean * pipeline.vae.config.scaling_factor
        told = pipeline.encode_prompt("b lungs", "cpu", 1, False)[0]
        errors = []
        for draw in range(3):
            noise = objectives.draw(0, found.digests[1], draw, clean.shape[1:]).noise[None]
            share = pipeline.scheduler.alphas_cumprod[25]
            noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
            guess = pipeline.unet(noisy, 25, encoder_hidden_states=told).sample
            errors.append(float((guess - noise).square().mean()))
    assert found.values[1, 0] == pytest.approx(np.mean(errors), rel=1e-4)


def test_defect_nothing_saved_until_the_end_errors_are_kept_as_they_are_made(
    recipe_of: Callable[..., samplers.Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, some = samplers.load_sampler(recipe_of(), device="cpu"), films(6, seed=0)
    plain = membership.denoising_errors(sampler, some, tmp_path / "plain", LOW, quiet=True)
    measure, asked = membership._errors, []

    def dies(sampler: Any, side: Any, stores: Any, rows: Sequence[int], *rest: Any) -> np.ndarray:
        asked.append(list(rows))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(sampler, side, stores, rows, *rest)

    monkeypatch.setattr(membership, "BLOCK", 2)
    monkeypatch.setattr(membership, "_errors", dies)
    with pytest.raises(KeyboardInterrupt):
        membership.denoising_errors(sampler, some, tmp_path / "killed", LOW, quiet=True)
    again = membership.denoising_errors(sampler, some, tmp_path / "killed", LOW, quiet=True)
    assert asked == [[0, 1], [2, 3], [4, 5], [4, 5]]
    assert np.allclose(again.values, plain.values, rtol=1e-5)
    twice = membership.denoising_errors(sampler, some.take([0, 1, 0]), tmp_path / "killed", LOW, quiet=True)
    assert len(asked) == 4
    assert np.array_equal(twice.values, again.values[[0, 1, 0]])


def test_the_embedded_generator_does_not_know_films_it_has_not_seen(tmp_path: Path) -> None:
    made = phantom.make(48, size=64, seed=90_001)
    side = ImageSet(
        "phantoms", [str(row) for row in range(48)], lambda row: made.images[row], prompts=made.reports,
        patients=[f"p{row // 2}" for row in range(48)],
    )  # fmt: skip
    recipe = samplers.Recipe("phantom", "embedded:phantom/generator", height=64, width=64)
    attack = Attack(times=(0.3,), draws=1)
    found = membership.membership(
        recipe, side.take(range(24)), side.take(range(24, 48)), tmp_path, attack, device="cpu", quiet=True
    )
    assert found["auroc"]["low"] < 0.5 < found["auroc"]["high"]
    assert (found["member_patients"], found["non_member_patients"]) == (12, 12)
    assert found["patients_known"]


def drawn(count: int, *, low: float = 0.0, seed: int = 0, films: int = 1) -> Errors:
    """Errors of so many films, `films` of a patient."""
    rng = np.random.default_rng(seed)
    values = 5 + rng.normal(size=(count, 2)) - low
    owners = [f"{seed}-{row // films}" for row in range(count)]
    return Errors(values, owners, [f"{seed}-{row}" for row in range(count)], {})


def test_detection_at_few_false_alarms_is_exact() -> None:
    members, others = drawn(400, low=3.0, seed=0), drawn(2000, seed=1)
    found = membership.infer(members, others, LOW)
    scores = members.values.mean(1)
    for told, rate in zip(found["detected"], (0.01, 0.001), strict=True):
        assert told["false_alarms"] == rate
        assert (others.values.mean(1) < told["limit"]).sum() == round(2001 * rate) - 1
        assert told["found"]["hits"] == (scores < told["limit"]).sum()
        assert told["found"]["low"] < told["found"]["share"] < told["found"]["high"]
    assert found["auroc"]["low"] > 0.97
    assert [one["time"] for one in found["by_time"]] == [0.03, 0.05]
    assert found["by_time"][0]["value"] < found["auroc"]["value"]


def test_rates_that_cannot_be_set_are_empty() -> None:
    found = membership.infer(drawn(50, seed=0), drawn(120, seed=1), LOW)["detected"]
    assert found[0]["found"] is not None
    assert found[1] == {"false_alarms": 0.001, "smallest_rate": 1 / 121, "limit": None, "found": None}


def test_films_of_one_patient_widen_the_intervals() -> None:
    one, many = (membership.infer(drawn(200, seed=0, films=count), drawn(200, seed=1), LOW) for count in (1, 10))
    assert many["member_patients"] == 20
    assert one["auroc"]["value"] == many["auroc"]["value"]
    widths = [found["auroc"]["high"] - found["auroc"]["low"] for found in (one, many)]
    assert widths[1] > widths[0]


def changed(side: Errors, **change: Any) -> Errors:
    return Errors(**{**vars(side), **change})


@pytest.mark.parametrize(
    ("members", "others", "message"),
    [
        (drawn(20, seed=0), drawn(20, seed=0), "non-members of other patients, got 20 patients in both sets"),
        (drawn(20, seed=0), changed(drawn(20, seed=1), digests=["0-3"] * 20), "got 1 films in both sets"),
        (drawn(20, seed=0), changed(drawn(20, seed=1), patients=None), "patients of both sets or of neither"),
        (drawn(20, seed=0), drawn(20, seed=1, films=5), "non-members of at least 10 patients, got 4"),
        (drawn(20), changed(drawn(20, seed=1), values=np.full((20, 2), np.nan)), "got 20 films of the non-members"),
        (drawn(20), changed(drawn(20, seed=1), values=np.ones((20, 3))), r"errors of 2 times, got \[2, 3\]"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(members: Errors, others: Errors, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        membership.infer(members, others, LOW)


def test_shared_patients_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    recipe = samplers.Recipe("none", "nobody/nothing")
    with pytest.raises(ValueError, match="got 10 patients in both sets; split by patient"):
        membership.membership(recipe, films(10, seed=0), films(10, seed=0), tmp_path)


def test_what_has_no_errors_is_refused(recipe_of: Callable[..., samplers.Recipe], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"times between 0 and 1 and at least 1 draw, got \(1.0,\) and 4"):
        Attack(times=(1.0,))
    noise = samplers.load_sampler(samplers.Recipe("noise", sampler="noise"), device="cpu")
    with pytest.raises(ValueError, match="needs a diffusers pipeline, got NoiseSampler"):
        membership.denoising_errors(noise, films(2, seed=0), tmp_path)
    sampler = samplers.load_sampler(recipe_of(), device="cpu")
    with pytest.raises(ValueError, match="resolution must be a multiple of 4 for tiny, got 17"):
        membership.denoising_errors(sampler, films(2, seed=0), tmp_path, Attack(resolution=17))
    bare = ImageSet("bare", ["a"], lambda row: np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match="expected films with prompts in bare, got none"):
        membership.denoising_errors(sampler, bare, tmp_path)
    empty = ImageSet("empty", ["a"], lambda row: np.zeros((9, 9), np.uint8), prompts=[" "])
    with pytest.raises(ValueError, match="'prompt-empty': 1"):
        membership.denoising_errors(sampler, empty, tmp_path)
