"""What reports say, by labellers: CheXbert and RadGraph through RadEval, and the phantom domain's own grammar.

A labeller is a function from reports to states, int8 (N, 14) in the order of `records.LABELS`: 1 present, 0 absent or
not mentioned, -1 uncertain.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from synthchex.data.records import LABELS
from synthchex.extras import require
from synthchex.phantom.findings import DEVICES, FINDINGS, Chart, labels_of

Labeller = Callable[[Sequence[str]], np.ndarray]
# The five labels of Irvin et al. 2019 (CheXpert), which "F1-5" is over.
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# Words of the phantom grammar by finding; every phrase of it affirms.
PHANTOM_WORDS: dict[str, str] = {
    "mediastinum": "widened mediastinum|enlarged cardiomediastinum",
    "heart": "cardiomegaly|enlargement of the heart",
    "opacity": "opacity",
    "nodule": "nodule",
    "edema": "edema",
    "consolidation": "consolidation",
    "pneumonia": "pneumonia",
    "atelectasis": "atelectasis",
    "pneumothorax": "pneumothorax",
    "effusion": "effusion",
    "pleura": "thickening",
    "fracture": "fracture",
    "device": "|".join(DEVICES),
}
PHANTOM_CLEAR = "no acute|lungs are clear"


def load(name: str, *, device: str) -> Labeller:
    """A labeller by name.

    Raises:
        ValueError: no such labeller, or its weights cannot be had.
        ImportError: RadEval is not installed.
    """
    if name not in LABELLERS:
        raise ValueError(f"labeller must be one of {list(LABELLERS)}, got {name!r}")
    return LABELLERS[name](device)


def phantom(reports: Sequence[str]) -> np.ndarray:
    """Labels of phantom reports: exact on those that the grammar writes.

    No Finding needs a sentence that says so: an empty report says nothing.
    """
    found = np.array([[bool(re.search(PHANTOM_WORDS[name], text)) for name in FINDINGS] for text in reports], bool)
    found, nothing = found.reshape(-1, len(FINDINGS)), np.zeros(len(reports), int)
    table = np.zeros((len(reports), len(FINDINGS)), int)
    labels = labels_of(Chart(found, table, table, table, nothing, nothing.astype(bool)))
    labels[:, 0] &= np.array([bool(re.search(PHANTOM_CLEAR, text)) for text in reports], bool)
    return labels


def _chexbert(device: str) -> Labeller:
    """CheXbert as RadEval 2 loads it: `StanfordAIMI/RRG_scorers`, with the tokenizer of `bert-base-uncased`."""
    require("radeval", extra="reports")
    from radeval.metrics.f1chexbert.f1chexbert import F1CheXbert

    with _explained("CheXbert", "StanfordAIMI/RRG_scorers and bert-base-uncased"):
        scorer: Any = F1CheXbert(device=device)
    order = [list(scorer.TARGET_NAMES).index(label) for label in LABELS]

    def labels(reports: Sequence[str]) -> np.ndarray:
        # "classification" keeps uncertain apart (-1); "rrg" would make it positive.
        found = scorer.get_labels(list(reports), mode="classification")
        return np.asarray(found, np.int8).reshape(-1, len(scorer.TARGET_NAMES))[:, order]

    return labels


LABELLERS: dict[str, Callable[[str], Labeller]] = {"chexbert": _chexbert, "phantom": lambda device: phantom}


def load_radgraph() -> Callable[[Sequence[str], Sequence[str]], np.ndarray]:
    """RadGraph F1 as RadEval 2 computes it: partial matches (entities, and whether they have a relation), RadGraph-XL.

    Returns:
        A function of true and written reports: F1 of each pair, float64 (N,), 0 to 1.

    Raises:
        ValueError: its weights cannot be had.
        ImportError: RadEval is not installed.
    """
    radeval: Any = require("radeval", extra="reports")
    with warnings.catch_warnings(), _explained("RadGraph", "the archives of RadGraph-XL"):
        scorer = radeval.RadEval(metrics=["radgraph"], per_sample=True, show_progress=False)

    def scores(true: Sequence[str], written: Sequence[str]) -> np.ndarray:
        return np.asarray(scorer(refs=list(true), hyps=list(written))["radgraph_partial"], float)

    return scores


@contextmanager
def _explained(name: str, needs: str) -> Iterator[None]:
    """Errors while a model of RadEval is loaded, in one line with what is missing."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{name} could not be loaded ({first}); it needs {needs} from the Hub or its cache: load it once where "
            "there is a network, or leave it out"
        ) from error
