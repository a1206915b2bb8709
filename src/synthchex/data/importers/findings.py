"""What the findings of other sets mean in the 14 CheXpert labels. Knows words, not files.

A finding is either the *same* as a label, or a *part* of one: a nodule is a lung lesion, yet a film without a nodule
may show another lesion, so its absence says nothing. What is neither stays unmapped and is counted. Parts follow the
terms that the CheXpert labeller itself counts as mentions of a label (Irvin et al. 2019, `phrases/mention` of its
repository): nodule and mass, infiltrate, pleural thickening, tube, line, catheter, pacemaker, valve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from synthchex.data import records
from synthchex.data.importers.listing import Unlisted


class Vocabulary(NamedTuple):
    """`same`: finding to the label that means the same; `part`: finding to the labels that it is a kind of."""

    same: Mapping[str, str]
    part: Mapping[str, tuple[str, ...]]


def _kinds(**labels: str) -> dict[str, tuple[str, ...]]:
    """Findings by label, one per line of text, as findings to labels."""
    found: dict[str, tuple[str, ...]] = {}
    for label, names in labels.items():
        for name in names.split(";"):
            found[name.strip()] = (*found.get(name.strip(), ()), label.replace("_", " "))
    return found


NIH = Vocabulary(
    same={
        "Atelectasis": "Atelectasis",
        "Cardiomegaly": "Cardiomegaly",
        "Consolidation": "Consolidation",
        "Edema": "Edema",
        "Effusion": "Pleural Effusion",
        "No Finding": "No Finding",
        "Pneumonia": "Pneumonia",
        "Pneumothorax": "Pneumothorax",
    },
    part=_kinds(Lung_Lesion="Nodule; Mass", Lung_Opacity="Infiltration", Pleural_Other="Pleural_Thickening"),
)

VINDR = Vocabulary(
    same={
        "Atelectasis": "Atelectasis",
        "Cardiomegaly": "Cardiomegaly",
        "Consolidation": "Consolidation",
        "Edema": "Edema",
        "Lung Opacity": "Lung Opacity",
        "No finding": "No Finding",
        "Pleural effusion": "Pleural Effusion",
        "Pneumonia": "Pneumonia",
        "Pneumothorax": "Pneumothorax",
    },
    part=_kinds(
        Fracture="Clavicle fracture; Rib fracture",
        Lung_Lesion="Nodule/Mass; Lung tumor",
        Lung_Opacity="Infiltration",
        Pleural_Other="Pleural thickening",
    ),
)

# Findings of PadChest are written in lower case in its tables, but for NSG; they are compared in lower case.
PADCHEST = Vocabulary(
    same={
        "atelectasis": "Atelectasis",
        "cardiomegaly": "Cardiomegaly",
        "consolidation": "Consolidation",
        "fracture": "Fracture",
        "mediastinal enlargement": "Enlarged Cardiomediastinum",
        "normal": "No Finding",
        "pleural effusion": "Pleural Effusion",
        "pneumonia": "Pneumonia",
        "pneumothorax": "Pneumothorax",
        "pulmonary edema": "Edema",
    },
    part=_kinds(
        Atelectasis="laminar atelectasis; lobar atelectasis; segmental atelectasis; round atelectasis; "
        "total atelectasis; atelectasis basal",
        Enlarged_Cardiomediastinum="superior mediastinal enlargement",
        Fracture="clavicle fracture; humeral fracture; rib fracture; callus rib fracture; vertebral fracture",
        Lung_Lesion="nodule; multiple nodules; pulmonary mass; lung metastasis",
        Lung_Opacity="infiltrates; interstitial pattern; reticular interstitial pattern; "
        "reticulonodular interstitial pattern; alveolar pattern; ground glass pattern",
        Pleural_Effusion="loculated pleural effusion; loculated fissural effusion; hydropneumothorax",
        Pleural_Other="pleural thickening; apical pleural thickening; calcified pleural thickening; pleural plaques; "
        "calcified pleural plaques",
        Pneumonia="atypical pneumonia",
        Pneumothorax="hydropneumothorax",
        Support_Devices="electrical device; pacemaker; single chamber device; dual chamber device; dai; nsg tube; "
        "endotracheal tube; tracheostomy tube; gastrostomy tube; chest drain tube; ventriculoperitoneal drain tube; "
        "catheter; central venous catheter; central venous catheter via jugular vein; "
        "central venous catheter via subclavian vein; central venous catheter via umbilical vein; "
        "reservoir central venous catheter; artificial heart valve; artificial aortic heart valve; "
        "artificial mitral heart valve",
    ),
)

# Open-i codes findings by hand as MeSH heading/place/...; a heading alone, or with its place where that decides.
OPENI = Vocabulary(
    same={
        "Cardiomegaly": "Cardiomegaly",
        "Consolidation": "Consolidation",
        "Fractures, Bone": "Fracture",
        "Pleural Effusion": "Pleural Effusion",
        "Pneumonia": "Pneumonia",
        "Pneumothorax": "Pneumothorax",
        "Pulmonary Atelectasis": "Atelectasis",
        "Pulmonary Edema": "Edema",
        "normal": "No Finding",
    },
    part=_kinds(
        Lung_Lesion="Nodule/lung; Mass/lung",
        Lung_Opacity="Opacity/lung; Airspace Disease; Infiltrate",
        Pleural_Effusion="Hydropneumothorax; Hemopneumothorax; Hemothorax",
        Pleural_Other="Thickening/pleura",
        Pneumothorax="Hydropneumothorax; Hemopneumothorax",
        Support_Devices="Catheters, Indwelling; Implanted Medical Device; Medical Device; Tube, Inserted",
    ),
)

# RSNA: Target is "evidence of pneumonia"; the class Lung Opacity means one that suggests it, so a part of the label.
RSNA = Vocabulary(same={"Target": "Pneumonia", "Normal": "No Finding"}, part={"Lung Opacity": ("Lung Opacity",)})


def to_labels(found: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> tuple[np.ndarray, dict[str, dict[str, Any]]]:
    """Label states from the states of a set's own findings.

    A label is present where any of its findings is; else uncertain where a part of it is; else what the finding of the
    same meaning says. A part that is absent says nothing.

    Args:
        found: states of each finding, float (N,): 1, 0, -1, NaN.
        vocabulary: what they mean.

    Returns:
        Labels, float32 (N, 14), and for each finding present in any film: {"films", "labels", "meaning"}, where
        meaning is same, part or unmapped.
    """
    count = len(next(iter(found.values())))
    states = np.full((count, len(records.LABELS)), np.nan, np.float32)
    for name, label in vocabulary.same.items():
        if name in found:
            states[:, records.LABELS.index(label)] = found[name]
    for name, labels in vocabulary.part.items():
        if name not in found:
            continue
        for column in map(records.LABELS.index, labels):
            states[found[name] == 1, column] = 1
            states[(found[name] == -1) & (states[:, column] != 1), column] = -1
    return states, {name: _said(name, values, vocabulary) for name, values in sorted(found.items()) if 1 in values}


def _said(name: str, values: np.ndarray, vocabulary: Vocabulary) -> dict[str, Any]:
    labels = [vocabulary.same[name]] if name in vocabulary.same else list(vocabulary.part.get(name, ()))
    meaning = "same" if name in vocabulary.same else "part" if labels else "unmapped"
    return {"films": int((values == 1).sum()), "labels": labels, "meaning": meaning}


def from_lists(
    lists: Sequence[Sequence[str] | None], vocabulary: Vocabulary, unlisted: Unlisted
) -> tuple[np.ndarray, dict[str, dict[str, Any]]]:
    """As `to_labels`, from the findings that each film is said to show.

    Such a set says what is present. What it does not list may be absent, uncertain or not looked for; so it is not
    mentioned, unless `unlisted` is "absent": then labels of the same meaning are 0 in films that have a list.
    """
    names = {name for row in lists for name in row or ()} | set(vocabulary.same)
    has_list = np.array([row is not None for row in lists])
    base = np.where(has_list, 0.0 if unlisted == "absent" else np.nan, np.nan)
    found = {name: base.copy() for name in sorted(names)}
    for index, row in enumerate(lists):
        for name in row or ():
            found[name][index] = 1.0
    return to_labels(found, vocabulary)
