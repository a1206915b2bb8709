"""The embedded phantom models as they lie in the package: small, documented, measured, free of machine paths."""

import json
import re
from pathlib import Path

import pytest

import synthchex
from synthchex import phantom
from synthchex.data.records import LABELS, QUALITIES

ASSETS = Path(synthchex.__file__).parent / "assets" / "phantom"
MODELS = ("encoder", "generator", "image_text", "judge")


@pytest.fixture(scope="module")
def figures() -> dict:
    return json.loads((ASSETS / "figures.json").read_text())


def test_all_models_together_stay_small():
    total = sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file())
    assert total <= 25e6


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_card_that_says_what_it_is_not(model):
    card = (ASSETS / model / "README.md").read_text()
    assert "hantom domain" in card or "phantoms only" in card
    assert "{" not in card


def test_no_file_remembers_the_machine_it_was_made_on():
    for file in ASSETS.rglob("*.json"):
        assert not re.search(r'_name_or_path|"/[a-z]', file.read_text()), file


@pytest.mark.parametrize(("model", "names"), [("encoder", LABELS), ("judge", QUALITIES)])
def test_outputs_are_named_in_our_order(model, names):
    config = json.loads((ASSETS / model / "config.json").read_text())
    assert tuple(config["id2label"][str(index)] for index in range(len(names))) == names


def test_figures_reach_the_gates(figures):
    assert figures["encoder"]["mean_auroc"] >= 0.97
    assert figures["image_text"]["recall_at_1"] >= 0.15
    assert figures["generator"]["mean_auroc"]["reconstruction"] >= 0.95
    assert figures["generator"]["mean_auroc"]["synthetic"] >= 0.85
    assert figures["judge"]["accuracy"] >= 0.95


def test_shown_labels_are_those_the_generator_can_draw(figures):
    drawn = figures["generator"]["auroc"]["synthetic"]
    assert set(figures["shown_labels"]) == {label for label in LABELS if drawn[label] >= 0.75}


def test_every_report_fits_the_text_encoder_and_has_no_unknown_word():
    tokenizers = pytest.importorskip("tokenizers")
    for folder in (ASSETS / "generator" / "tokenizer", ASSETS / "image_text"):
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        reports, _ = phantom.write_reports(2000, seed=5)
        unknown = tokenizer.token_to_id("<unk>")
        encoded = tokenizer.encode_batch(reports)
        assert max(len(text.ids) for text in encoded) <= 40
        assert not any(unknown in text.ids for text in encoded)
        assert unknown in tokenizer.encode("zebra").ids


def test_the_longest_possible_report_fits():
    longest = "small nodule in the right upper lung . hazy opacity in the left lower lung"
    longest += " . small right upper lung nodule . central venous catheter in place . low lung volumes"
    assert len(longest.split()) + 2 <= 40
