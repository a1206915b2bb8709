"""Encoders against the networks they wrap or rewrite, on random weights in the published layouts."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex.models import biovil, encoders, networks, resnet, views, xrv


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal up to rounding, on the scale of what was expected."""
    expected = np.asarray(expected)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def alive(network: nn.Module) -> nn.Module:
    """The network with weights that keep activations and normalisation alive through many layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.3, 0.7)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
    return network.eval()


@pytest.fixture
def wide() -> list[np.ndarray]:
    """Three films that are not square, one of them in colour."""
    rng = np.random.default_rng(0)
    shapes = [(60, 100), (100, 60), (50, 90, 3)]
    return [np.asarray(rng.integers(0, 256, shape, np.uint8)) for shape in shapes]


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 with the processor that RAD-DINO has: shorter edge, then centre crop."""
    return tiny.dino(tmp_path_factory.mktemp("dino") / "model")


def test_every_named_encoder_says_where_it_is_from_and_what_it_has_seen() -> None:
    for known in (encoders.ENCODERS, encoders.IMAGE_TEXT):
        for name, named in known.items():
            assert named.family in encoders.FAMILIES
            assert all((named.licence, named.revision, named.trained_on, named.preprocessing))
            assert named.seen != "unknown"
            assert named.width is not None
            assert json.loads(encoders.describe(name, known))["licence"] == named.licence
    assert encoders.DEFAULT in encoders.ENCODERS
    assert encoders.DEFAULT_IMAGE_TEXT in encoders.IMAGE_TEXT


def test_dinov2_features_are_those_of_transformers(dino: Path, wide: list[np.ndarray]) -> None:
    from transformers import Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    model, processor = Dinov2Model.from_pretrained(dino).eval(), BitImageProcessorPil.from_pretrained(dino)
    with torch.inference_mode():
        inputs = processor([Image.fromarray(film).convert("RGB") for film in wide], return_tensors="pt")
        expected = model(**inputs).pooler_output.numpy()
    close(encoders.load_encoder(str(dino)).encode(wide), expected, 1e-6)


def test_features_do_not_depend_on_the_batch(dino: Path, wide: list[np.ndarray]) -> None:
    encoder = encoders.load_encoder(str(dino))
    close(encoder.encode(wide, batch_size=1), encoder.encode(wide, batch_size=3))
    close(encoder.encode(wide[::-1])[::-1], encoder.encode(wide))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.01), ("bfloat16", 0.1)])
def test_small_types_give_float32_features_and_a_key_of_their_own(
    dino: Path, wide: list[np.ndarray], dtype: str, tolerance: float
) -> None:
    exact, small = encoders.load_encoder(str(dino)), encoders.load_encoder(str(dino), dtype=dtype, device="cpu")
    found = small.encode(wide)
    assert found.dtype == np.float32
    assert small.key != exact.key
    close(found, exact.encode(wide), tolerance)


def test_the_protocol_squashes_to_299_before_the_network(dino: Path, wide: list[np.ndarray]) -> None:
    encoder = encoders.load_encoder(str(dino), protocol="chexgenbench")
    squashed = [
        np.asarray(Image.fromarray(film).convert("RGB").resize((299, 299), Image.Resampling.BILINEAR)) for film in wide
    ]
    own = encoders.load_encoder(str(dino))
    np.testing.assert_array_equal(encoder.encode(wide), own.encode(squashed))
    assert np.abs(encoder.encode(wide) - own.encode(wide)).max() > 0.01


def test_aspects_and_protocols_have_keys_of_their_own(dino: Path) -> None:
    options: list[dict[str, Any]] = [{}, {"protocol": "chexgenbench"}]
    options += [{"aspect": aspect} for aspect in ("squash", "pad", "crop")]
    assert len({encoders.load_encoder(str(dino), **option).key for option in options}) == 5


@pytest.mark.parametrize("aspect", ["squash", "pad", "crop"])
def test_an_aspect_is_one_antialiased_resize_to_the_input(dino: Path, aspect: str) -> None:
    encoder = encoders.load_encoder(str(dino), aspect=aspect)
    film = np.zeros((200, 400), np.uint8)
    film[:, 150:250] = 255
    ready = encoder.prepare([film])
    assert ready.shape == (1, 3, 56, 56)
    shown = (ready[0, 0].numpy() * 0.26 + 0.53) > 0.5
    # The bar is a quarter of the width, so 14 columns; a crop keeps half the width and shows it twice as wide.
    assert shown[28].sum() == {"squash": 14, "pad": 14, "crop": 28}[aspect]
    assert shown[:, 28].sum() == {"squash": 56, "pad": 28, "crop": 56}[aspect]


def test_a_square_film_is_the_same_under_every_aspect(dino: Path, films: np.ndarray) -> None:
    expected = encoders.load_encoder(str(dino)).encode(list(films))
    for aspect in ("squash", "pad", "crop"):
        np.testing.assert_array_equal(encoders.load_encoder(str(dino), aspect=aspect).encode(list(films)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aspect": "stretch"}, r"aspect must be one of \['own', 'squash', 'pad', 'crop'\], got 'stretch'"),
        ({"protocol": "other"}, r"protocol must be None or one of \['chexgenbench'\], got 'other'"),
        ({"aspect": "pad", "protocol": "chexgenbench"}, "expected aspect or protocol, got aspect='pad' and"),
        ({"dtype": "int8"}, "dtype must be float32, float16 or bfloat16, got 'int8'"),
    ],
)
def test_options_are_refused_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoders.load_encoder("org/absent", **options)


def test_a_network_without_a_fixed_square_keeps_its_own_aspect() -> None:
    processor = types.SimpleNamespace(size={"longest_edge": 100}, do_center_crop=False)
    with pytest.raises(ValueError, match=r"reads squares of one size, got one that reads \{'longest_edge': 100\}"):
        views.View("squash").picture(Image.new("L", (8, 4)), processor)


def test_a_network_of_maps_without_a_class_token_is_refused() -> None:
    output = types.SimpleNamespace(last_hidden_state=torch.zeros(1, 8, 4, 4))
    with pytest.raises(ValueError, match=r"expected a network with pooler_output or a class token, got maps \(1, 8"):
        encoders._readout(output, "org/maps")


def test_a_file_needs_the_entry_it_belongs_to(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected a folder or '<entry>:<file>', got the file .*weights.bin"):
        encoders.load_encoder(str(tmp_path / "weights.bin"))


def test_a_one_channel_network_gets_grey_films(tmp_path: Path, wide: list[np.ndarray]) -> None:
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_channels=1
    )
    ViTModel(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5], image_std=[0.5]).save_pretrained(tmp_path)
    encoder = encoders.load_encoder(str(tmp_path))
    assert encoder.grey
    assert encoder.encode(wide).shape == (3, 32)


def test_an_image_text_network_is_a_vision_encoder_too(tmp_path: Path, wide: list[np.ndarray]) -> None:
    folder = tiny.clip(tmp_path / "clip")
    vision, both = encoders.load_encoder(str(folder)), encoders.load_image_text(str(folder))
    assert vision.key == both.key
    np.testing.assert_array_equal(vision.encode(wide), both.encode_images(wide))


def siglip(folder: Path) -> Path:
    """A SigLIP as MedSigLIP is laid out: squashing processor, tokenizer that gives a mask nobody asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    words = {"vocab_size": 9, "max_position_embeddings": 8, "pad_token_id": 1, "projection_size": 32}
    config = SiglipConfig(text_config={**small, **words}, vision_config={**small, "image_size": 32, "patch_size": 16})
    model = SiglipModel(config)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    letters = Tokenizer(models.WordLevel({word: i for i, word in enumerate("upeabcdfg")}, unk_token="u"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="u", pad_token="p", model_max_length=8)
    fast.save_pretrained(folder)
    return folder


def test_siglip_reads_its_padding(tmp_path: Path, wide: list[np.ndarray]) -> None:
    from transformers import SiglipModel

    folder = siglip(tmp_path / "siglip")
    encoder, model = encoders.load_image_text(str(folder)), SiglipModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = model.get_text_features(input_ids=torch.tensor([[3, 4, 1, 1, 1, 1, 1, 1]]))
        images = model.get_image_features(pixel_values=encoder.prepare(wide))
    vectors = [found if isinstance(found, torch.Tensor) else found.pooler_output for found in (output, images)]
    close(encoder.encode_texts(["a b"]), nn.functional.normalize(vectors[0]), 1e-5)
    close(encoder.encode_images(wide), nn.functional.normalize(vectors[1]), 1e-5)
    assert encoder.count_truncated(["a b", "a b c d f g a b c"]) == 1


# ResNet-50 -----------------------------------------------------------------------------------------------------------


def as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of torchvision's ResNet as those of transformers' ResNet."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        kind = "convolution" if "conv" in key or key.endswith("downsample.0.weight") else "normalization"
        if not parts[0].startswith("layer"):
            renamed[f"embedder.embedder.{kind}.{parts[-1]}"] = value
            continue
        layer = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
        place = "shortcut" if parts[2] == "downsample" else f"layer.{int(parts[2][-1]) - 1}"
        renamed[f"{layer}.{place}.{kind}.{parts[-1]}"] = value
    return renamed


@pytest.fixture(scope="module")
def body() -> nn.Module:
    torch.manual_seed(0)
    return alive(resnet.ResNet50())


def test_resnet_equals_that_of_transformers(body: nn.Module) -> None:
    from transformers import ResNetConfig, ResNetModel

    theirs = ResNetModel(ResNetConfig(layer_type="bottleneck")).eval()
    report = theirs.load_state_dict(as_transformers(body.state_dict()), strict=True)
    assert not report.missing_keys
    films = torch.rand(2, 3, 97, 64)
    with torch.inference_mode():
        close(body(films), theirs(films).last_hidden_state)


# BioViL-T ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert_config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, bert_config: Any) -> Path:
    """A repository as Microsoft lays it out, tiny BERT, whole ResNet-50, with the parts that are not used."""
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("biovil") / "BioViL-T"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "mild", "edema", "effusion", ".", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    stored = {"tokenizer_class": "CXRBertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    config = {**bert_config.to_dict(), "model_type": "cxr-bert", "projection_size": 24, "architectures": ["X"]}
    (folder / "config.json").write_text(json.dumps(config))
    head = {f"cls_projection_head.{k}": v for k, v in biovil.TextHead(32, 24).state_dict().items()}
    torch.save(BertForMaskedLM(bert_config).state_dict() | head, folder / "pytorch_model.bin")
    tower = alive(biovil.ImageTower(24))
    tower.encoder.missing_previous_emb.data.normal_()  # type: ignore[union-attr, operator]
    unused = {"encoder.encoder.fc.weight": torch.zeros(9, 9), "encoder.vit_pooler.type_embed": torch.zeros(2, 1, 256)}
    torch.save(tower.state_dict() | unused, folder / biovil.IMAGE_FILE)
    return folder


def test_biovil_films_are_projected_with_the_missing_prior(published: Path, wide: list[np.ndarray]) -> None:
    """By the definition, on transformers' ResNet."""
    from transformers import ResNetConfig, ResNetModel

    encoder = encoders.load_image_text(f"biovil-t:{published}")
    state = torch.load(published / biovil.IMAGE_FILE)
    inner = {k.removeprefix("encoder.encoder."): v for k, v in state.items() if k.startswith("encoder.encoder.")}
    theirs = ResNetModel(ResNetConfig(layer_type="bottleneck")).eval()
    theirs.load_state_dict(as_transformers({k: v for k, v in inner.items() if not k.startswith("fc.")}))
    grey = [Image.fromarray(film).convert("L") for film in wide]
    with torch.inference_mode():
        maps = theirs(encoder.processor(grey)["pixel_values"]).last_hidden_state
        maps = nn.functional.conv2d(maps, state["encoder.backbone_to_vit.weight"])
        maps = torch.cat([maps, state["encoder.missing_previous_emb"].repeat(len(maps), 1, 14, 14)], 1)
        maps = nn.functional.conv2d(maps, state["projector.model.0.weight"])
        norms = [state[f"projector.model.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        maps = nn.functional.relu(nn.functional.batch_norm(maps, *norms))
        maps = nn.functional.conv2d(maps, state["projector.model.3.weight"], state["projector.model.3.bias"])
        expected = nn.functional.normalize(maps.mean((2, 3)))
    close(encoder.encode_images(wide), expected, 1e-4)
    assert encoders.load_encoder(f"biovil-t:{published}").key == encoder.key


def test_biovil_reports_are_the_projected_class_token(published: Path, bert_config: Any) -> None:
    from transformers import BertForMaskedLM

    encoder = encoders.load_image_text(f"biovil-t:{published}")
    state = torch.load(published / "pytorch_model.bin")
    theirs = BertForMaskedLM(bert_config).eval()
    head = {key: state.pop(key) for key in list(state) if key.startswith("cls_projection_head.")}
    theirs.load_state_dict(state)
    part = lambda name: [head[f"cls_projection_head.{name}.{kind}"] for kind in ("weight", "bias")]  # noqa: E731
    with torch.inference_mode():
        token = theirs(torch.tensor([[2, 6, 7, 3]]), output_hidden_states=True).hidden_states[-1][:, 0]
        hidden = nn.functional.gelu(nn.functional.linear(token, *part("dense_to_hidden")))
        hidden = nn.functional.layer_norm(hidden, (24,), *part("LayerNorm"), eps=1e-12)
        expected = nn.functional.normalize(nn.functional.linear(hidden, *part("dense_to_output")))
    found = encoder.encode_texts(["Mild edema.", "no effusion mild edema no effusion"])
    close(found[:1], expected)
    assert encoder.max_tokens == 16
    assert encoder.count_truncated(["edema", "edema " * 30]) == 1


def test_biovil_preprocessing_by_hand() -> None:
    film = np.full((1024, 2048), 50, np.uint8)
    film[:, 1024:] = 200
    ready = biovil.Grey448().tensor(Image.fromarray(film), whole=False)
    assert ready.shape == (3, 448, 448)
    assert (float(ready.min()), float(ready.max())) == (0.0, 1.0)
    assert ready[0, 100, 220:228].tolist() == [0, 0, 0, 0, 1, 1, 1, 1] or ready[0, 100, 223:225].mean() == 0.5
    constant = biovil.Grey448().tensor(Image.new("L", (500, 500), 77), whole=False)
    assert float(constant.abs().max()) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("file", r"expected biovil_t_image_model_proj_size_128.pt in .*, got no such file; copy the whole repository"),
        ("key", r"expected the \d+ tensors of ImageTower, got \d+ .*1 missing, e.g. \['projector.model.3.bias'\]"),
        ("text", r"expected the \d+ tensors of ModuleDict, .*1 missing, e.g. \['bert.embeddings.LayerNorm.bias'\]"),
    ],
)
def test_biovil_weights_are_whole_or_refused(published: Path, tmp_path: Path, damage: str, message: str) -> None:
    folder = tmp_path / "copy"
    skip = [biovil.IMAGE_FILE] if damage == "file" else []
    shutil.copytree(published, folder, ignore=shutil.ignore_patterns(*skip))
    name, key = {
        "key": (biovil.IMAGE_FILE, "projector.model.3.bias"),
        "text": ("pytorch_model.bin", "bert.embeddings.LayerNorm.bias"),
    }.get(damage, ("", ""))
    if name:
        state = torch.load(folder / name)
        del state[key]
        torch.save(state, folder / name)
    with pytest.raises(ValueError, match=message):
        encoders.load_image_text(f"biovil-t:{folder}")


# torchxrayvision -----------------------------------------------------------------------------------------------------


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`torchxrayvision.models`, without what it imports for reading files: torchvision, scikit-image, imageio."""
    found = importlib.util.find_spec("torchxrayvision") if "torchxrayvision" not in sys.modules else None
    if found is None:
        pytest.skip("torchxrayvision is not installed: pip install --no-deps torchxrayvision")
    absent = ("torchvision", "skimage", "skimage.transform", "skimage.io", "imageio", "imageio.v2")
    for name in absent:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    bare = types.ModuleType("torchxrayvision")
    bare.__path__ = list(found.submodule_search_locations or [])  # type: ignore[attr-defined]
    for name in ("", ".models", ".datasets", ".utils"):
        monkeypatch.setitem(sys.modules, f"torchxrayvision{name}", bare)
        monkeypatch.delitem(sys.modules, f"torchxrayvision{name}") if name else None
    module = importlib.import_module("torchxrayvision.models")
    yield module
    for name in [name for name in sys.modules if name.startswith("torchxrayvision")]:
        sys.modules.pop(name)


def scaled(film: np.ndarray) -> torch.Tensor:
    """What the package's documentation does to an image: grey, [-1024, 1024], centred square."""
    grey = np.asarray(Image.fromarray(film).convert("L"), np.float32)
    values = (2 * (grey / 255) - 1.0) * 1024
    side, (height, width) = min(grey.shape), grey.shape
    top, left = height // 2 - side // 2, width // 2 - side // 2
    return torch.from_numpy(values[top : top + side, left : left + side])[None, None]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_densenet_equals_the_package_from_its_pickled_network(
    package: Any, tmp_path: Path, wide: list[np.ndarray], legacy: bool
) -> None:
    torch.manual_seed(0)
    theirs = alive(package.DenseNet())
    theirs.input_resolution = 224  # type: ignore[assignment]
    torch.save(theirs, tmp_path / "densenet.pt", _use_new_zipfile_serialization=not legacy)
    with torch.inference_mode():
        expected = torch.cat([theirs.features2(scaled(film)) for film in wide])  # type: ignore[operator]
    encoder = encoders.load_encoder(f"xrv-densenet121:{tmp_path / 'densenet.pt'}")
    found = encoder.encode(wide)
    assert found.shape == (3, 1024)
    close(found, expected)


def test_densenet_is_read_without_the_package(tmp_path: Path, wide: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    torch.save(alive(xrv.DenseNet121()).state_dict(), tmp_path / "densenet.pt")
    encoder = encoders.load_encoder(f"xrv-densenet121:{tmp_path / 'densenet.pt'}")
    assert encoder.encode(wide).shape == (3, 1024)
    assert "torchxrayvision" not in sys.modules


def test_a_pickle_with_more_than_layers_is_refused(tmp_path: Path) -> None:
    class Harm(nn.Module):
        pass

    Harm.__module__, Harm.__qualname__ = __name__, "Harm"
    globals()["Harm"] = Harm
    sys.modules.setdefault(__name__, types.ModuleType(__name__)).Harm = Harm  # type: ignore[attr-defined]
    torch.save(Harm(), tmp_path / "harm.pt")
    with pytest.raises(
        ValueError,
        match=r"expected weights .*harm.pt, which cannot be read as such \(it asks for .*Harm, which is neither",
    ):
        encoders.load_encoder(f"xrv-densenet121:{tmp_path / 'harm.pt'}")


def test_xrv_resnet_reads_its_state_dict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = alive(resnet.ResNet50(channels=1))
    torch.save(ours.state_dict() | {"fc.weight": torch.zeros(18, 2048)}, tmp_path / "resnet.pt")
    film = np.random.default_rng(0).integers(0, 256, (96, 120), np.uint8)
    large = nn.functional.interpolate(scaled(film), size=(512, 512), mode="bilinear", antialias=True)
    with torch.inference_mode():
        expected = nn.functional.adaptive_avg_pool2d(ours(large), 1).flatten(1)
    close(encoders.load_encoder(f"xrv-resnet50:{tmp_path / 'resnet.pt'}").encode([film]), expected)


def test_xrv_scale_is_from_minus_1024_to_1024() -> None:
    film = np.tile(np.array([0, 255], np.uint8), (224, 112))
    ready = xrv.Scaled1024(224)([Image.fromarray(film)])["pixel_values"]
    assert ready.shape == (1, 1, 224, 224)
    assert (float(ready.min()), float(ready.max())) == (-1024, 1024)


def test_absent_xrv_weights_come_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xrv, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"expected weights of torchxrayvision at .*seed0-best.pt, .*curl -L"):
        encoders.load_encoder("xrv-densenet121")


# open_clip -----------------------------------------------------------------------------------------------------------


class Double(nn.Module):
    """As much of an open_clip network as is called."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.words = nn.Linear(3 * 8 * 8, 12), nn.Embedding(50, 12)

    def encode_image(self, films: torch.Tensor) -> torch.Tensor:
        return self.images(films.flatten(1))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.words(tokens).mean(1)


class DoubleTokenizer:
    """open_clip's tokenizer: letters, cut and filled to 6."""

    context_length = 6

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[ord(letter) % 50 for letter in text.ljust(6)[:6]] for text in texts])

    def tokenizer(self, texts: list[str], **_: Any) -> dict[str, Any]:
        return {"input_ids": [list(text) for text in texts]}


def test_openclip_networks_are_called_their_way(monkeypatch: pytest.MonkeyPatch, wide: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    asked, network = [], Double()

    def create(place: str) -> tuple[nn.Module, Any]:
        asked.append(place)
        return network, lambda image: torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1)

    double = types.SimpleNamespace(create_model_from_pretrained=create, get_tokenizer=lambda place: DoubleTokenizer())
    monkeypatch.setitem(sys.modules, "open_clip", double)
    encoder = encoders.load_image_text("biomedclip")
    assert asked == ["hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"]
    assert encoder.encode_images(wide).shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_texts(["edema", "x"]), axis=1), 1, atol=1e-6)
    assert encoder.count_truncated(["edema", "much longer"]) == 1


def test_without_open_clip_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"this needs open_clip, which is not installed: pip install 'synthchex\["):
        encoders.load_image_text("biomedclip")


def test_the_digest_of_weights_sees_every_tensor() -> None:
    network = nn.Linear(2, 2)
    before = networks.digest_of_weights(network)
    assert before == networks.digest_of_weights(network)
    network.bias.data[0] += 1
    assert networks.digest_of_weights(network) != before
