"""What a phantom patient has: thirteen findings with side, grade and zone, and the 14 labels that follow from them.

Knows nothing of pictures or words; `render` and `reports` read the same chart. Labels are 0 or 1: the phantom is never
uncertain. Two parents of the CheXpert hierarchy follow their children (Lung Opacity, Enlarged Cardiomediastinum), and
No Finding means that nothing but a support device is present.
"""

from typing import NamedTuple

import numpy as np

from synthchex.data.records import LABELS

FINDINGS: dict[str, float] = {
    "mediastinum": 0.10,
    "heart": 0.17,
    "opacity": 0.11,
    "nodule": 0.13,
    "edema": 0.11,
    "consolidation": 0.11,
    "pneumonia": 0.12,
    "atelectasis": 0.12,
    "pneumothorax": 0.14,
    "effusion": 0.17,
    "pleura": 0.10,
    "fracture": 0.11,
    "device": 0.30,
}
"""Chance of each finding in a phantom that is not drawn healthy."""

SIDES = ("right", "left", "bilateral")
GRADES = ("small", "moderate", "large")
ZONES = ("upper", "mid", "lower")
DEVICES = ("endotracheal tube", "central venous catheter", "pacemaker", "ecg leads", "sternal wires")

_CHILDREN = {
    "No Finding": (),
    "Enlarged Cardiomediastinum": ("mediastinum", "heart"),
    "Cardiomegaly": ("heart",),
    "Lung Opacity": ("opacity", "nodule", "edema", "consolidation", "pneumonia", "atelectasis"),
    "Lung Lesion": ("nodule",),
    "Edema": ("edema",),
    "Consolidation": ("consolidation", "pneumonia"),
    "Pneumonia": ("pneumonia",),
    "Atelectasis": ("atelectasis",),
    "Pneumothorax": ("pneumothorax",),
    "Pleural Effusion": ("effusion",),
    "Pleural Other": ("pleura",),
    "Fracture": ("fracture",),
    "Support Devices": ("device",),
}
# The later finding of a pair is dropped: at 64 pixels the two would hide each other.
_APART = (
    ("pneumonia", "consolidation"),
    ("pneumonia", "opacity"),
    ("consolidation", "opacity"),
    ("edema", "opacity"),
    ("effusion", "pleura"),
    ("pneumothorax", "pleura"),
)
_HEALTHY = 0.18
_MOST = 3
_INDEX = {name: column for column, name in enumerate(FINDINGS)}


class Chart(NamedTuple):
    """Findings of N phantoms; the four (N, 13) tables share the column order of `FINDINGS`."""

    present: np.ndarray
    side: np.ndarray
    grade: np.ndarray
    zone: np.ndarray
    device: np.ndarray
    shallow: np.ndarray

    def has(self, name: str) -> np.ndarray:
        """Rows that have the finding, bool (N,)."""
        return self.present[:, _INDEX[name]]

    def on_side(self, name: str, side: int) -> np.ndarray:
        """Rows that have the finding on one side (0 right, 1 left) or on both, bool (N,)."""
        where = self.side[:, _INDEX[name]]
        return self.has(name) & ((where == side) | (where == 2))

    def level(self, name: str) -> np.ndarray:
        """Grade 0, 1 or 2 of the finding, int (N,); meaningless where it is absent."""
        return self.grade[:, _INDEX[name]]

    def height(self, name: str) -> np.ndarray:
        """Zone 0 (upper), 1 (mid) or 2 (lower) of the finding, int (N,)."""
        return self.zone[:, _INDEX[name]]

    def has_device(self, kind: int) -> np.ndarray:
        """Rows that carry the device `DEVICES[kind]`, bool (N,)."""
        return self.has("device") & (self.device == kind)


def draw_row(rng: np.random.Generator) -> Chart:
    """Draw the findings of one phantom, as a chart of one row."""
    width = len(FINDINGS)
    present = rng.random(width) < np.array(list(FINDINGS.values()))
    order = rng.permutation(width)
    side, grade, zone = rng.integers(0, 2, width), rng.integers(0, 3, width), rng.integers(0, 3, width)
    healthy, both, shallow, device = rng.random(), rng.random(), rng.random(), rng.integers(0, len(DEVICES))
    diseases = np.arange(width) != _INDEX["device"]
    if healthy < _HEALTHY:
        present &= ~diseases
    _keep_apart(present)
    surplus = [column for column in order if present[column] and diseases[column]][_MOST:]
    present[surplus] = False
    if both < 0.3:
        side[_INDEX["effusion"]] = 2
    return Chart(*(np.array([part]) for part in (present, side, grade, zone, device, shallow < 0.15)))


def stack(charts: list[Chart]) -> Chart:
    """Join charts row by row."""
    return Chart(*(np.concatenate(parts) for parts in zip(*charts, strict=True)))


def labels_of(chart: Chart) -> np.ndarray:
    """The 14 labels of a chart, int8 (N, 14), in the order of `LABELS`."""
    columns = [np.any([chart.has(name) for name in _CHILDREN[label]], axis=0) for label in LABELS[1:]]
    table = np.stack([np.zeros(len(chart.device), bool), *columns], axis=1).astype(np.int8)
    table[:, 0] = ~table[:, 1:-1].any(axis=1)
    return table


def _keep_apart(present: np.ndarray) -> None:
    """Drop, in place, the second finding of every pair that must not meet."""
    for first, second in _APART:
        if present[_INDEX[first]]:
            present[_INDEX[second]] = False
