"""Fine-tuned backbones: no mirrored film, masked loss, checkpoints that load, runs that go on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex import phantom
from synthchex.data import records, sources
from synthchex.data.training import MultiHot
from synthchex.utility import backbone, finetune, runs
from synthchex.utility.backbone import Bank, Look
from synthchex.utility.request import Request, Training

torch = pytest.importorskip("torch")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
QUICK = Training(num_train_epochs=3, learning_rate=3e-3, train_batch_size=16, patience=3)
LOOK = Look(32, 3, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT classifier of two other classes."""
    return tiny.vit_classifier(tmp_path_factory.mktemp("vit"), ["cat", "dog"])


@pytest.fixture(scope="module")
def made() -> sources.ImageSet:
    """Phantoms with labels."""
    drawn = phantom.make(96, seed=1)
    return sources.ImageSet(
        "made", [str(i) for i in range(96)], list(drawn.images).__getitem__, None, drawn.labels.astype(np.float32)
    )


@pytest.fixture
def task(made: sources.ImageSet, vit: Path) -> tuple[runs.Task, str, Bank]:
    """64 films to train on, 32 to validate on and to try."""
    bank = Bank(LOOK)
    numbers, _, _, _ = backbone._read(made, bank=bank, num_workers=1, quiet=True)
    values = np.asarray(made.labels, np.float32)
    mask = np.ones_like(values, bool)
    parts = [runs.Batch(numbers[rows], MultiHot(values[rows], mask[rows])) for rows in (slice(64), slice(64, 96))]
    request = Request(backbone=str(vit), training=QUICK, device="cpu")
    return runs.Task(parts[0], parts[1], None, {"test": numbers[64:]}, request, 5, None), str(vit), bank


def test_defect_horizontal_flip() -> None:
    """The side of a mark never changes, whatever else happens to the film."""
    films = torch.zeros(400, 1, 32, 32)
    films[:, :, 12:20, 4:10] = 1
    moved = finetune.augment(films, np.random.default_rng(0), Training(exposure=0))
    left, right = moved[..., :16].sum((1, 2, 3)), moved[..., 16:].sum((1, 2, 3))
    assert (left > 5 * right).all()
    assert not torch.equal(moved[0], moved[1])
    exposed = finetune.augment(films, np.random.default_rng(0), Training())
    assert exposed.min() >= 0
    assert exposed.max() <= 1
    assert not torch.equal(exposed, moved)
    still = finetune.augment(films, np.random.default_rng(0), Training(rotation=0, translation=0, exposure=0))
    torch.testing.assert_close(still, films, atol=1e-4, rtol=0)


def test_turns_and_shifts_stay_small() -> None:
    films = torch.zeros(300, 1, 64, 64)
    films[:, :, 30:34, 30:34] = 1
    moved = finetune.augment(films, np.random.default_rng(1), Training(exposure=0))
    rows, columns = (torch.arange(64.0).view(shape) for shape in ((1, 1, 64, 1), (1, 1, 1, 64)))
    for places in (rows, columns):
        centre = (moved * places).sum((1, 2, 3)) / moved.sum((1, 2, 3))
        assert (centre - 31.5).abs().max() <= 0.04 * 64 + 0.5
        assert (centre - 31.5).abs().max() > 1


def test_unknown_labels_have_no_gradient() -> None:
    logits = torch.zeros(2, 14, requires_grad=True)
    values, mask = np.ones((5, 14), np.float32), np.zeros((5, 14), bool)
    mask[3, 2] = True
    loss = finetune.masked_loss(logits, MultiHot(values, mask), np.array([3, 4]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert logits.grad is not None
    assert torch.nonzero(logits.grad).tolist() == [[0, 2]]


def test_the_head_is_fresh_named_after_the_labels_and_follows_the_seed(vit: Path) -> None:
    one, same, other = (backbone.make(str(vit), seed) for seed in (1, 1, 2))
    assert [one.config.id2label[place] for place in range(14)] == list(records.LABELS)
    heads = [model.classifier.weight for model in (one, same, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(one.vit.embeddings.cls_token, other.vit.embeddings.cls_token)


def test_defect_vit_checkpoints_do_not_load(task: tuple[runs.Task, str, Bank], tmp_path: Path) -> None:
    """What was trained is loaded again by transformers and by our own classifiers, with the same probabilities."""
    from synthchex.models import classifiers

    given, name, bank = task
    learned = finetune.fine_tune(replace(given, folder=tmp_path / "runs" / "checkpoints" / "a"), name, bank)
    folder = tmp_path / "runs" / "checkpoints" / "a" / finetune.MODEL
    found = classifiers.load_classifier(str(folder), device="cpu")
    assert found.labels == records.LABELS
    films = list(bank.films(given.tests["test"]))
    np.testing.assert_allclose(found.encode(films), learned.tests["test"], atol=1e-4)
    assert not list(folder.parent.rglob("state.pt")), "states of the optimizer are gone"


def test_training_lowers_the_loss_and_keeps_the_best_epoch(task: tuple[runs.Task, str, Bank]) -> None:
    given, name, bank = task
    learned = finetune.fine_tune(given, name, bank)
    history = learned.facts["history"]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    values, _ = given.validation.labels
    clipped = np.clip(learned.validation, 1e-7, 1 - 1e-7)
    loss = -np.where(values == 1, np.log(clipped), np.log1p(-clipped)).mean()
    assert loss == pytest.approx(min(line["validation_loss"] for line in history), abs=1e-5)


def test_a_killed_training_goes_on_with_the_same_numbers(
    task: tuple[runs.Task, str, Bank], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, name, bank = task
    given = replace(given, before=(given.train, given.validation))
    whole = finetune.fine_tune(given, name, bank)
    kept = replace(given, folder=tmp_path / "runs" / "checkpoints" / "a")
    epochs, real = [], finetune.one_epoch

    def dying(*words: Any) -> float:
        epochs.append(words[-1])
        if len(epochs) == 5:
            raise KeyboardInterrupt
        return real(*words)

    monkeypatch.setattr(finetune, "one_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune.fine_tune(kept, name, bank)
    again = finetune.fine_tune(kept, name, bank)
    assert epochs[:4] == [("pretrain", 1), ("pretrain", 2), ("pretrain", 3), ("train", 1)]
    assert epochs[5:] == [("train", 2), ("train", 3)], "what was done is not done again"
    np.testing.assert_allclose(again.tests["test"], whole.tests["test"], atol=1e-6)
    for line, expected in zip(again.facts["history"], whole.facts["history"], strict=True):
        assert line == pytest.approx(expected)


def test_training_stops_when_validation_does_not_get_better() -> None:
    how = Training(num_train_epochs=10, patience=2)
    history = [{"epoch": float(i + 1), "validation_loss": loss} for i, loss in enumerate([0.5, 0.4, 0.45, 0.41])]
    assert finetune.best(history) == 2
    assert not finetune.ended(history[:3], how)
    assert finetune.ended(history, how)


def test_a_network_without_a_classification_class_gets_a_head(tmp_path: Path) -> None:
    from transformers import ViTModel

    source = tiny.vit_classifier(tmp_path / "vit", ["a", "b"])
    assert ViTModel.from_pretrained(source) is not None
    model = backbone.headed(str(source))
    inputs = torch.rand(2, 3, 32, 32)
    assert backbone.forward(model, inputs).shape == (2, 14)
    backbone.keep(model, LOOK, tmp_path / "kept")
    assert (tmp_path / "kept" / "head.safetensors").exists()
    again = backbone.headed(str(tmp_path / "kept"))
    torch.testing.assert_close(again.tower(inputs).last_hidden_state, model.tower(inputs).last_hidden_state)


def test_a_tower_is_trained_with_its_head(task: tuple[runs.Task, str, Bank], tmp_path: Path) -> None:
    """DINOv3 has no classification class."""
    transformers = pytest.importorskip("transformers", minversion="4.57")
    config = transformers.DINOv3ViTConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    if type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        pytest.skip("this transformers has a classification class for DINOv3")
    transformers.DINOv3ViTModel(config).save_pretrained(tmp_path)
    given, _, bank = task
    learned = finetune.fine_tune(replace(given, folder=tmp_path / "out"), str(tmp_path), bank)
    history = learned.facts["history"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert (tmp_path / "out" / finetune.MODEL / "head.safetensors").exists()


def test_a_tracker_that_is_not_installed_is_said(
    task: tuple[runs.Task, str, Bank], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, name, bank = task
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    wanted = replace(given.request, training=replace(QUICK, report_to="tensorboard"))
    with pytest.raises(ImportError, match="pip install tensorboard"):
        finetune.fine_tune(replace(given, request=wanted), name, bank)


def test_a_checkpoint_that_lacks_weights_is_refused(vit: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in vit.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = {k: v for k, v in load_file(vit / "model.safetensors").items() if "embeddings.patch" not in k}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 2 weights of ViTForImageClassification"):
        backbone.make(str(tmp_path), 0)


def test_what_a_network_wants_of_a_film(vit: Path, tmp_path: Path) -> None:
    assert backbone.look_of(str(vit)) == LOOK
    assert backbone.look_of(str(vit), 48).side == 48
    dino = backbone.look_of(str(tiny.dino(tmp_path)))
    assert (dino.side, dino.mean, dino.deviation) == (56, (0.53,) * 3, (0.26,) * 3)
    wanted = {"input_size": (3, 224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert backbone._timm_look(wanted, None) == Look(224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert backbone._side(SimpleNamespace(), SimpleNamespace(image_size=40)) == 40
    with pytest.raises(ValueError, match="give --image-size"):
        backbone._side(SimpleNamespace(), SimpleNamespace())
    with pytest.raises(ValueError, match="expected a network that transformers loads, got inception"):
        backbone.source("inception")


def test_films_of_another_size_than_the_network_was_made_for(vit: Path) -> None:
    model = backbone.make(str(vit), 0)
    assert backbone.forward(model, torch.rand(1, 3, 48, 48)).shape == (1, 14)


def test_a_bank_counts_through_its_sets() -> None:
    bank = Bank(Look(2, 1, (0.0,), (1.0,)))
    first, second = bank.add(np.zeros((3, 2, 2), np.uint8)), bank.add(np.ones((2, 2, 2), np.uint8))
    assert [first.ravel().tolist(), second.ravel().tolist()] == [[0, 1, 2], [3, 4]]
    assert bank.films(np.array([[4], [2]])).mean((1, 2)).tolist() == [1, 0]


def test_many_films_are_held_in_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, made: sources.ImageSet) -> None:
    plain, mapped = Bank(LOOK), Bank(LOOK)
    backbone._read(made, bank=plain, num_workers=1, quiet=True)
    monkeypatch.setattr(backbone, "IN_MEMORY", 0)
    backbone._read(made, bank=mapped, num_workers=1, quiet=True)
    assert isinstance(mapped.sets[0], np.memmap)
    np.testing.assert_array_equal(mapped.sets[0], plain.sets[0])


def test_bfloat16_trains_in_a_process_of_its_own(vit: Path, synthchex: Run, inside: Run, tmp_path: Path) -> None:
    """The whole command with a backbone: arms, seeds, learning curves, TensorBoard where it is installed."""
    for name, seed in (("real", 1), ("synthetic", 2)):
        done = inside("phantom", "--count", 80, "--seed", seed, "--size", 32, "--out", tmp_path / name, "--quiet")
        assert done.returncode == 0, done.stderr
    words = ["utility", "--real", tmp_path / "real", "--synthetic", tmp_path / "synthetic", "--backbone", vit, "--bf16",
             "--num-train-epochs", 2, "--seeds", 1, "--arms", "tstr", "pretrain", "--min-rows", 3, "--resamples", 100,
             "--domain", "phantom", "--device", "cpu", "--quiet", "--out", tmp_path / "out"]  # fmt: skip
    done = synthchex(*words)
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "out" / "results.json").read_text())["utility"]["classification"]
    assert set(study["curves"]) == {"trtr", "tstr", "pretrain"}
    assert (tmp_path / "out" / "plots" / "utility_curves.png").exists()
    assert len(list((tmp_path / "out" / "runs" / "checkpoints").glob("*/model/config.json"))) == 3
