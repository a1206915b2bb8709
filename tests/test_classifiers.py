"""Classifiers against the networks they wrap or rewrite, on random weights in the published layouts; heads by name."""

# ruff: noqa: F811 (fixtures that are imported are named again as arguments)
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import tiny
from test_encoders import alive, close, package, scaled, wide  # noqa: F401

from synthchex.data.images import to_png
from synthchex.data.records import LABELS
from synthchex.data.sources import ImageSet
from synthchex.models import classifiers, encoders, resnet, store, xrv
from synthchex.models.classifiers import load_classifier

XRV = {name: named for name, named in classifiers.CLASSIFIERS.items() if named.family == "xrv"}
NINE = ("Cardiomegaly", "Lung Opacity", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax")
NINE += ("Pleural Effusion", "Fracture")


class Torchvision(resnet.ResNet50):
    """ResNet-50 with a head, laid out as torchvision's."""

    def __init__(self, num_classes: int, weights: None) -> None:
        super().__init__()
        self.fc = nn.Linear(resnet.WIDTH, num_classes)

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        return self.fc(super().forward(films).mean((2, 3)))


def heads(layer: nn.Linear, name: str) -> None:
    """Biases at the operating points, so that random films fall on both sides of each."""
    points = torch.tensor([0.5 if point is None else point for point in XRV[name].operating_points])
    layer.bias.data = points.logit()
    layer.weight.data *= 0.5


def expected(theirs: Any, films: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What the package says of each film, by CheXpert label."""
    with torch.inference_mode():
        found = torch.cat([theirs(scaled(film)) for film in films]).numpy()
    names = ["Pleural Effusion" if name == "Effusion" else name for name in theirs.targets]
    trained = ~np.isnan(theirs.op_threshs.numpy())
    return {name: found[:, i] for i, name in enumerate(names) if name in LABELS and trained[i]}


# torchxrayvision -----------------------------------------------------------------------------------------------------


def test_the_table_of_operating_points_is_that_of_the_package(package: Any) -> None:
    for name, named in XRV.items():
        published = package.model_urls[name.removeprefix("xrv-")]
        assert published["weights_url"] == xrv.URL + named.model
        for target, label, theirs, ours in zip(
            xrv.TARGETS, published["labels"], published["op_threshs"], named.operating_points, strict=True
        ):
            assert label in (target, "")
            assert (ours is None) == np.isnan(theirs)
            assert ours is None or (ours == theirs and label == target)
    assert len(XRV) == len({url["weights_url"] for url in package.model_urls.values()})


@pytest.mark.parametrize("name", ["xrv-densenet121-res224-mimic_ch", "xrv-densenet121-res224-nih"])
def test_densenet_probabilities_are_those_of_the_package(
    package: Any, tmp_path: Path, wide: list[np.ndarray], name: str
) -> None:
    torch.manual_seed(0)
    network = alive(package.DenseNet())
    heads(network.classifier, name)  # type: ignore[arg-type]
    torch.save(network, tmp_path / XRV[name].model)
    theirs = package.DenseNet(weights=name.removeprefix("xrv-"), cache_dir=str(tmp_path))
    classifier = load_classifier(f"{name}:{tmp_path / XRV[name].model}")
    found, said = classifier.encode(wide), expected(theirs, wide)
    assert set(classifier.labels) == set(said)
    assert len(said) == (11 if "mimic" in name else 7)
    for label in LABELS:
        if label in said:
            close(found[:, LABELS.index(label)], said[label], 1e-4)
        else:
            assert label in classifier.missing
            assert np.isnan(found[:, LABELS.index(label)]).all()
    shown = found[:, [LABELS.index(label) for label in classifier.labels]]
    assert shown.min() < 0.5 < shown.max()


def test_the_default_gives_nine_labels_as_the_package_does(
    package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: list[np.ndarray]
) -> None:
    torch.manual_seed(0)
    name = classifiers.DEFAULT_CLASSIFIER
    package.torchvision.models.resnet50 = Torchvision
    network = alive(Torchvision(18, None))
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight)
    heads(network.fc, name)  # type: ignore[arg-type]
    torch.save(network.state_dict(), tmp_path / XRV[name].model)
    theirs = package.ResNet(weights="resnet50-res512-all", cache_dir=str(tmp_path))
    monkeypatch.setattr(xrv, "FOLDER", tmp_path)
    classifier = load_classifier()
    assert classifier.labels == tuple(label for label in LABELS if label in NINE)
    assert classifier.independent is True
    assert "Heads without training, not read: Lung Lesion, Enlarged Cardiomediastinum." in classifier.notes
    assert {"Nodule", "Mass", "Pleural_Thickening", "Infiltration"} <= set(classifier.unmapped)
    found, said = classifier.encode(wide[:2]), expected(theirs, wide[:2])
    assert set(said) == set(NINE)
    close(found[:, [LABELS.index(label) for label in said]], np.stack(list(said.values()), 1), 1e-4)


def test_what_the_published_classifiers_have_seen() -> None:
    seen_by = {name: named.independent for name, named in classifiers.CLASSIFIERS.items()}
    assert seen_by.pop("phantom") is False
    for name, independent in seen_by.items():
        assert independent == (not {"MIMIC", "CheXpert"} & set(XRV[name].seen.replace("-", ", ").split(", ")))


def test_a_file_without_heads_is_an_encoder_only(tmp_path: Path) -> None:
    torch.save(alive(xrv.DenseNet121()).state_dict(), tmp_path / "bare.pt")
    with pytest.raises(ValueError, match=r"expected the 2 tensors of Linear, got 0 from .*bare.pt: 2 missing"):
        load_classifier(f"xrv-densenet121-res224-all:{tmp_path / 'bare.pt'}")


def test_absent_weights_come_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xrv, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"got no such file; curl -L .*/v1/pc-nih-rsna-siim-vin-.*-state.pt, or name"):
        load_classifier()


# Heads by name -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "label"),
    [
        ("Effusion", "Pleural Effusion"),
        ("pleural_effusion", "Pleural Effusion"),
        ("PLEURAL-EFFUSION", "Pleural Effusion"),
        ("Lung  Opacity", "Lung Opacity"),
        ("Enlarged Cardiom.", "Enlarged Cardiomediastinum"),
        ("Pulmonary oedema", "Edema"),
        ("no finding", "No Finding"),
        *((label, label) for label in LABELS),
        *((head, None) for head in ("Nodule", "Mass", "Pleural_Thickening", "Infiltration", "Normal", "LABEL_0", "")),
    ],
)
def test_heads_are_labels_by_name_or_by_a_stated_synonym(head: str, label: str | None) -> None:
    assert classifiers.label_of(head) == label


def transformers_says(folder: Path, films: list[np.ndarray]) -> torch.Tensor:
    """Logits of a saved ViT, by transformers."""
    from transformers import ViTForImageClassification, ViTImageProcessor

    model, processor = (
        ViTForImageClassification.from_pretrained(folder).eval(),
        ViTImageProcessor.from_pretrained(folder),
    )
    with torch.inference_mode():
        return model(**processor([np.stack([film] * 3, -1) for film in films], return_tensors="pt")).logits


@pytest.mark.parametrize("stated", [None, "multi_label_classification", "single_label_classification"])
def test_any_image_classifier_is_read_as_its_config_says(tmp_path: Path, films: np.ndarray, stated: str | None) -> None:
    folder = tiny.vit_classifier(tmp_path / "vit", ["Nodule", "effusion", "Lung_Opacity", "LABEL_3"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ({"problem_type": stated} if stated else {})))
    logits = transformers_says(folder, list(films))
    shares = logits.sigmoid() if stated == "multi_label_classification" else logits.softmax(1)
    classifier = load_classifier(str(folder))
    found = classifier.encode(list(films), batch_size=3)
    assert found.shape == (8, 14)
    assert found.dtype == np.float32
    close(found[:, LABELS.index("Pleural Effusion")], shares[:, 1])
    close(found[:, LABELS.index("Lung Opacity")], shares[:, 2])
    assert np.isnan(np.delete(found, [LABELS.index(label) for label in classifier.labels], axis=1)).all()
    assert classifier.labels == ("Lung Opacity", "Pleural Effusion")
    assert len(classifier.missing) == 12
    assert classifier.unmapped == ("Nodule", "LABEL_3")
    assert classifier.independent is None
    assert any(f"problem_type: {stated or 'not stated'}" in note for note in classifier.notes)
    assert any("none of the 14 labels, not read: Nodule, LABEL_3" in note for note in classifier.notes)


def test_the_phantom_classifier_is_the_label_network_of_the_judge(films: np.ndarray) -> None:
    named, embedded = load_classifier("phantom"), load_classifier("embedded:phantom/encoder")
    logits = classifiers.load_logits("embedded:phantom/encoder")
    assert logits.heads == list(LABELS)
    assert named.labels == LABELS
    assert named.missing == named.unmapped == ()
    close(named.encode(list(films)), 1 / (1 + np.exp(-logits.encode(list(films)))))
    assert named.key == embedded.key


# The store -----------------------------------------------------------------------------------------------------------


def test_what_is_read_has_a_key_of_its_own(tmp_path: Path) -> None:
    folder = tiny.vit_classifier(tmp_path / "a", ["Edema", "Fracture"])
    before = load_classifier(str(folder)).key
    assert before not in {encoders.load_encoder(str(folder)).key, load_classifier(str(folder), dtype="bfloat16").key}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "Fracture", "1": "Edema"}}))
    assert load_classifier(str(folder)).key != before
    same = tiny.vit_classifier(tmp_path / "b", ["Edema", "Fracture"])
    assert load_classifier(str(same)).key == before


def test_the_store_keeps_probabilities_beside_features(tmp_path: Path, films: np.ndarray) -> None:
    folder = str(tiny.vit_classifier(tmp_path / "vit", ["Edema", "Fracture"]))
    networks = [encoders.load_encoder(folder), load_classifier(folder)]
    pictures = [to_png(film) for film in films]
    images = ImageSet("films", [str(i) for i in range(8)], pictures.__getitem__)
    first, second = (store.encode(images, networks, tmp_path / "store", quiet=True) for _ in range(2))
    assert (first.computed, second.computed) == (8, 0)
    assert [part.shape for part in second.features] == [(8, 32), (8, 14)]
    np.testing.assert_array_equal(second.features[1], first.features[1])
    np.testing.assert_allclose(second.features[1], networks[1].encode(list(films)), atol=1e-6)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["LABEL_0", "Nodule"], r"expected a classifier with heads named after CheXpert labels, got \['LABEL_0', 'Nod"),
        (["Effusion", "Pleural Effusion"], "one head per label, got 'Effusion' and 'Pleural Effusion' for Pleural Eff"),
    ],
)
def test_heads_that_cannot_be_told_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_classifier(str(tiny.vit_classifier(tmp_path / "vit", names)))


def test_a_network_without_trained_heads_is_refused(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(image_size=32, patch_size=16, **small)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected an image classifier, got .* without 2 weights of ViTForIm"):
        load_classifier(str(tmp_path))


def test_names_and_types_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of \['phantom', 'xrv-resnet50-res512-all', .* got 'xrv'"):
        load_classifier("xrv")
    with pytest.raises(ValueError, match=r"dtype must be one of .*, got 'int8'"):
        load_classifier("phantom", dtype="int8")
