"""Inception-v3 of FID: equal to torch-fidelity's network at every output, whole checkpoints or none.

The published weights are not here: every comparison is on random weights in the published layout.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthchex.models import encoders, inception

TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")


def fidelity(name: str) -> Any:
    """A module of torch-fidelity; its package file is passed by, since that imports torchvision."""
    if "torch_fidelity" not in sys.modules:
        found = importlib.util.find_spec("torch_fidelity")
        if found is None:
            pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity")
        package = types.ModuleType("torch_fidelity")
        package.__path__ = list(found.submodule_search_locations or [])  # type: ignore[attr-defined]
        sys.modules["torch_fidelity"] = package
    return importlib.import_module(f"torch_fidelity.{name}")


def random_weights() -> dict[str, torch.Tensor]:
    """A state dict in the published layout, with the spread that keeps activations alive through 94 layers."""
    torch.manual_seed(0)
    network = inception.Inception()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
    return {key: value for key, value in network.state_dict().items() if "num_batches" not in key}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(scope="module")
def encoder(weights: Path) -> encoders.InceptionEncoder:
    loaded = encoders.load_encoder(f"inception:{weights}")
    assert isinstance(loaded, encoders.InceptionEncoder)
    return loaded


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Two films: one grey and smaller than the network reads, one in colour and larger."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (61, 93), np.uint8), rng.integers(0, 256, (400, 333, 3), np.uint8)]


@pytest.fixture(scope="module")
def theirs(weights: Path, films: list[np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of torch-fidelity's network, film by film."""
    kind = fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    network = kind("inception", list(TAPS), feature_extractor_weights_path=str(weights))
    found: dict[str, list[np.ndarray]] = {name: [] for name in TAPS}
    for film in films:
        colour = film if film.ndim == 3 else np.repeat(film[:, :, None], 3, axis=2)
        with torch.inference_mode():
            outputs = network(torch.from_numpy(colour).permute(2, 0, 1)[None])
        for name, output in zip(TAPS, outputs, strict=True):
            found[name].append(output.numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_features_and_logits_equal_torch_fidelity(
    encoder: encoders.InceptionEncoder, films: list[np.ndarray], theirs: dict[str, np.ndarray]
) -> None:
    features = encoder.encode(films)
    assert features.shape == (2, 2048)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, theirs["2048"], rtol=1e-5, atol=1e-5 * np.abs(theirs["2048"]).max())
    logits, scale = encoder.logits(films), np.abs(theirs["logits_unbiased"]).max()
    assert logits.shape == (2, 1008)
    np.testing.assert_allclose(logits, theirs["logits_unbiased"], rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_array_equal(logits, encoder.logits_of(features))


def test_inner_features_and_biased_logits_equal_torch_fidelity(
    encoder: encoders.InceptionEncoder, films: list[np.ndarray], theirs: dict[str, np.ndarray]
) -> None:
    pictures = [Image.fromarray(film).convert("RGB") for film in films]
    with torch.inference_mode():
        taps = encoder.model.taps(encoder.processor(pictures)["pixel_values"])
        taps["logits"] = encoder.model.logits_of(taps["2048"], unbiased=False)
    for name in ("64", "192", "768", "logits"):
        assert np.abs(theirs[name]).max() > 0
        np.testing.assert_allclose(taps[name], theirs[name], rtol=1e-5, atol=1e-5 * np.abs(theirs[name]).max())


@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (299, 299), (300, 298), (512, 700), (1, 5)])
def test_resize_equals_torch_fidelity(shape: tuple[int, int]) -> None:
    theirs = fidelity("interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    films = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, *shape)).astype(np.float32))
    expected = theirs(films, size=(299, 299), align_corners=False)
    np.testing.assert_array_equal(inception.resize_as_tensorflow_1(films, 299), expected)
    if shape == (299, 299):
        np.testing.assert_array_equal(expected, films)


def test_resize_by_hand() -> None:
    films = torch.tensor([[[[0.0, 10.0], [20.0, 30.0]]]])
    found = inception.resize_as_tensorflow_1(films, 4)[0, 0]
    # Output i reads position i / 2 and stays on the last row or column beyond it.
    expected = [[0, 5, 10, 10], [10, 15, 20, 20], [20, 25, 30, 30], [20, 25, 30, 30]]
    np.testing.assert_array_equal(found, expected)


def test_pooling_branches_leave_padding_out() -> None:
    block = inception.Mixed(1, (), "average")
    np.testing.assert_allclose(block(torch.ones(1, 1, 3, 3)), np.ones((1, 1, 3, 3)))


def numbered(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that pytorch-fid's `InceptionV3` gives when saved: numbered blocks, no classifier."""
    places = {
        name: f"blocks.{block}.{place}"
        for block, names in enumerate((*inception.STEM, inception.MIDDLE, inception.TOP))
        for place, name in enumerate(names)
    }
    renamed = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".")
        if layer != "fc":
            renamed[f"{places[layer]}.{rest}"] = value
    return renamed


def test_every_layout_gives_the_same_features(
    encoder: encoders.InceptionEncoder, weights: Path, films: list[np.ndarray], tmp_path: Path
) -> None:
    state, expected = torch.load(weights), encoder.encode(films[:1])
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "wrapped.pth")
    wrapped = encoders.load_encoder(f"inception:{tmp_path / 'wrapped.pth'}")
    np.testing.assert_array_equal(wrapped.encode(films[:1]), expected)
    torch.save(numbered(state), tmp_path / "numbered.pth")
    without = encoders.load_encoder(f"inception:{tmp_path / 'numbered.pth'}")
    np.testing.assert_array_equal(without.encode(films[:1]), expected)
    with pytest.raises(ValueError, match=r"expected weights with the classifier \(fc\), got a checkpoint without"):
        without.logits(films[:1])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", inception.FILES)
def test_published_files_are_found_where_torch_hub_keeps_them(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    with pytest.raises(
        ValueError, match=r"expected the Inception weights of FID .* curl -L --create-dirs -o .*6726825d"
    ):
        encoders.load_encoder("inception")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).write_bytes(weights.read_bytes())
    with pytest.raises(ValueError, match=r"SHA-256 that starts with 6726825d, got [0-9a-f]{8}; delete it"):
        encoders.load_encoder("inception")
    monkeypatch.setattr(inception, "DIGEST", inception.digest(weights)[:8])
    assert encoders.load_encoder("inception").key == encoders.load_encoder(f"inception:{weights}").key


def test_a_checkpoint_of_another_network_is_reported_tensor_by_tensor(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    state["AuxLogits.fc.weight"] = state.pop("Mixed_7c.branch1x1.conv.weight")
    torch.save(state, tmp_path / "imagenet.pth")
    report = (
        r"1 missing, e.g. \['Mixed_7c.branch1x1.conv.weight'\]; 1 unexpected, e.g. \['AuxLogits.fc.weight'\]; "
        r"2 misshapen, e.g. \['fc.bias \(1000,\) for \(1008,\)'"
    )
    with pytest.raises(ValueError, match=report):
        encoders.load_encoder(f"inception:{tmp_path / 'imagenet.pth'}")


def test_what_is_not_weights_is_refused_and_never_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    torch.save({"fc.weight": Harm()}, tmp_path / "harmful.pth")
    with pytest.raises(ValueError, match=r"expected weights .*harmful.pth, which cannot be read as such"):
        encoders.load_encoder(f"inception:{tmp_path / 'harmful.pth'}")
    assert not (tmp_path / "harm").exists()
    (tmp_path / "torn.pth").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read as such"):
        encoders.load_encoder(f"inception:{tmp_path / 'torn.pth'}")
    with pytest.raises(ValueError, match="got no such file; check the path"):
        encoders.load_encoder(f"inception:{tmp_path / 'absent.pth'}")


def test_the_clean_resize_is_antialiased_and_another_key(weights: Path, films: list[np.ndarray]) -> None:
    legacy, clean = (encoders.load_encoder(f"{name}:{weights}") for name in ("inception", "inception-clean"))
    assert legacy.key != clean.key
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (600, 300)))
    spread = [float(encoder.processor([stripes])["pixel_values"].std()) for encoder in (legacy, clean)]
    assert spread[0] > 0.5
    assert spread[1] < 0.05


def test_the_benchmark_protocol_leaves_nothing_to_the_legacy_resize(weights: Path, films: list[np.ndarray]) -> None:
    encoder = encoders.load_encoder(f"inception:{weights}", protocol="chexgenbench")
    ready = encoder.prepare(films)
    for film, found in zip(films, ready, strict=True):
        squashed = np.asarray(Image.fromarray(film).convert("RGB").resize((299, 299), Image.Resampling.BILINEAR))
        expected = (squashed.transpose(2, 0, 1).astype(np.float32) - 128) / 128
        np.testing.assert_array_equal(found, expected)


def test_small_types_stay_close(encoder: encoders.InceptionEncoder, weights: Path, films: list[np.ndarray]) -> None:
    small = encoders.load_encoder(f"inception:{weights}", dtype="bfloat16")
    expected, found = encoder.encode(films), small.encode(films)
    assert found.dtype == np.float32
    assert small.key != encoder.key
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
