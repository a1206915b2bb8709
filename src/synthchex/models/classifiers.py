"""Films to probabilities of the 14 CheXpert labels. Knows networks and the names of their heads; knows no prompts.

A classifier is an encoder whose features are probabilities in the order of `data.records.LABELS`, NaN for a label
without a head: the feature store keeps them, under a key that says which heads were read.

Heads are named by whoever trained them. `label_of` says which of the 14 labels a name means: the label itself in any
case, with spaces, hyphens or underscores, or one of `SYNONYMS`. Names that mean more or less than a label are no heads
of it and are listed in `unmapped`, such as Nodule and Mass (parts of Lung Lesion), Pleural Thickening (a part of
Pleural Other), Infiltration, Fibrosis, Emphysema, Hernia, Normal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records
from synthchex.data.records import LABELS
from synthchex.models import encoders
from synthchex.models.known import CLASSIFIERS, DEFAULT_CLASSIFIER, Named, NamedClassifier
from synthchex.models.samplers import model_path

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLASSIFIERS",
    "DEFAULT_CLASSIFIER",
    "SYNONYMS",
    "Classifier",
    "LogitEncoder",
    "label_of",
    "load_classifier",
    "load_logits",
]
SYNONYMS: dict[str, str] = {
    "airspace opacity": "Lung Opacity",
    "effusion": "Pleural Effusion",
    "enlarged cardiom": "Enlarged Cardiomediastinum",
    "fractures": "Fracture",
    "no findings": "No Finding",
    "oedema": "Edema",
    "pulmonary edema": "Edema",
    "pulmonary oedema": "Edema",
    "support device": "Support Devices",
}


def load_classifier(name: str = DEFAULT_CLASSIFIER, *, device: str | None = None, dtype: str = "float32") -> Classifier:
    """A classifier, ready on `device`.

    Args:
        name: an entry of `CLASSIFIERS`, "<entry>:<path of its weights>", "embedded:<name>", or a Hub id or folder of
            any `AutoModelForImageClassification` with at least one head that `label_of` knows.
        device: as in `load_encoder`.
        dtype: "float32", "float16" or "bfloat16", of weights and arithmetic; probabilities are float32 always.

    Raises:
        ValueError: nothing of that name can be loaded, no head is one of the 14 labels, or two are the same one.
    """
    named, model, processor, key = _load(name, device, dtype, CLASSIFIERS)
    return Classifier(name, named, model, processor, key)


def load_logits(name: str, *, device: str | None = None, dtype: str = "float32") -> LogitEncoder:
    """Any `AutoModelForImageClassification`, whatever its classes are; arguments as in `load_classifier`."""
    return LogitEncoder(*_load(name, device, dtype, {}))


class LogitEncoder(encoders.Encoder):
    """Films to the logits of a classifier, float32 (N, heads), in the order of `heads`."""

    def __init__(self, named: Named, model: Any, processor: Any, key: str) -> None:
        super().__init__(named, model, processor, key)
        self.heads = [str(head) for _, head in sorted(model.config.id2label.items())]

    def forward(self, inputs: torch.Tensor) -> np.ndarray:
        """Logits of prepared films."""
        return np.asarray(self._logits(inputs).cpu().numpy())

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            logits: torch.Tensor = self.model(pixel_values=self._moved(inputs)).logits
            return logits.float()


class Classifier(LogitEncoder):
    """Films to probabilities, float32 (N, 14), in [0, 1], NaN where there is no head.

    Attributes:
        labels, missing: labels with and without a head, both in the order of the 14.
        unmapped: heads that are none of the 14 labels.
        independent: it has seen no film of MIMIC-CXR or CheXpert (of phantoms, for the phantom classifier), on which
            generators are trained; None where that is not known.
        notes: sentences on how its heads are read and what it has seen.

    Networks of torchxrayvision give the probabilities of the package: a sigmoid, then stretched so that the operating
    point of each head is 0.5. Others give a sigmoid where `problem_type` is `multi_label_classification` or there is
    one head, else a softmax, as pipelines of transformers do.
    """

    def __init__(self, name: str, named: Named, model: Any, processor: Any, key: str) -> None:
        super().__init__(named, model, processor, key)
        points = named.operating_points if isinstance(named, NamedClassifier) else ()
        untrained = [head for head, point in zip(self.heads, points, strict=False) if point is None]
        self.columns = _columns([head for head in self.heads if head not in untrained], self.heads, name)
        self.name = name
        self.points = np.array([np.nan if point is None else point for point in points])
        self.softmax = len(self.heads) > 1 and model.config.problem_type != "multi_label_classification"
        self.labels = tuple(label for label in LABELS if label in self.columns)
        self.missing = tuple(label for label in LABELS if label not in self.columns)
        self.unmapped = tuple(head for head in self.heads if label_of(head) is None)
        self.independent = named.independent if isinstance(named, NamedClassifier) else None
        self.key = records.fingerprint(["classifier", key, self.columns, self.softmax, self.points.tolist()])
        self.notes = self._notes(untrained)

    def forward(self, inputs: torch.Tensor) -> np.ndarray:
        """Probabilities of prepared films."""
        logits = self._logits(inputs)
        scores = (logits.softmax(1) if self.softmax else logits.sigmoid()).cpu().numpy()
        if len(self.points):
            scores = _stretched(scores, self.points)
        out = np.full((len(scores), len(LABELS)), np.nan, np.float32)
        for label, column in self.columns.items():
            out[:, LABELS.index(label)] = scores[:, column]
        return out

    def _notes(self, untrained: Sequence[str]) -> list[str]:
        stated = getattr(self.model.config, "problem_type", None) or "not stated"
        kind = "softmax over all heads" if self.softmax else "sigmoid of each head"
        kind += ", stretched so that its operating point is 0.5" if len(self.points) else f" (problem_type: {stated})"
        notes = [f"Trained on: {self.named.seen}.", f"Probabilities: {kind}."]
        if untrained:
            notes.append(f"Heads without training, not read: {', '.join(untrained)}.")
        if self.unmapped:
            notes.append(f"Heads that are none of the 14 labels, not read: {', '.join(self.unmapped)}.")
        return notes


def label_of(head: str) -> str | None:
    """The CheXpert label that a head's name means, or None; see the module."""
    words = " ".join(re.sub(r"[\W_]+", " ", head).split()).lower()
    return SYNONYMS.get(words) or next((label for label in LABELS if label.lower() == words), None)


def _columns(readable: Sequence[str], heads: Sequence[str], name: str) -> dict[str, int]:
    """Column of the logits of each label that has a head."""
    found: dict[str, int] = {}
    for head in readable:
        label = label_of(head)
        if label in found:
            raise ValueError(
                f"expected one head per label, got {heads[found[label]]!r} and {head!r} for {label} from {name}; "
                "rename one of them in the id2label of its config"
            )
        if label is not None:
            found[label] = heads.index(head)
    if not found:
        raise ValueError(
            f"expected a classifier with heads named after CheXpert labels, got {list(heads)[:20]} from {name}; set "
            f"id2label in its config to names of {list(LABELS)}"
        )
    return found


def _stretched(scores: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Linear on both sides of the operating point, which becomes 0.5, as `op_norm` of torchxrayvision; NaN for none."""
    return np.where(scores < points, scores / (2 * points), 1 - (1 - scores) / (2 * (1 - points)))


def _load(name: str, device: str | None, dtype: str, known: dict[str, NamedClassifier]) -> tuple[Named, Any, Any, str]:
    if dtype not in encoders.DTYPES:
        raise ValueError(f"dtype must be one of {encoders.DTYPES}, got {dtype!r}")
    named = encoders.find_named(model_path(name), known)
    loaded = encoders.load_named(name, named, dtype, function="load_classifier")
    model = loaded.model.eval().to(encoders.pick_device(device))
    return named, model, loaded.processor, encoders.key_of(named, loaded, dtype, encoders.OWN)
