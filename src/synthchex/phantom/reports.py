"""The grammar of the phantom reports: one short phrase for each finding, in random order and wording.

Every word stands for something the picture shows (side, grade, zone, device); `vocabulary` lists all of them.
"""

import re

import numpy as np

from synthchex.phantom.findings import DEVICES, FINDINGS, GRADES, SIDES, ZONES, Chart

_MILD = ("mild", "moderate", "severe")
_PHRASES: dict[str, tuple[str, ...]] = {
    "mediastinum": ("widened mediastinum", "enlarged cardiomediastinum"),
    "heart": ("{mild} cardiomegaly", "{mild} enlargement of the heart"),
    "opacity": ("hazy opacity in the {side} {zone} lung", "{side} {zone} lung opacity"),
    "nodule": ("{grade} nodule in the {side} {zone} lung", "{grade} {side} {zone} lung nodule"),
    "edema": ("{mild} pulmonary edema", "{mild} interstitial edema"),
    "consolidation": ("{side} {zone} lung consolidation", "dense consolidation in the {side} {zone} lung"),
    "pneumonia": ("{side} {zone} lung pneumonia", "patchy pneumonia in the {side} {zone} lung"),
    "atelectasis": ("{side} basilar atelectasis", "atelectasis at the {side} base"),
    "pneumothorax": ("{grade} {side} pneumothorax", "{side} pneumothorax , {grade}"),
    "effusion": ("{grade} {side} pleural effusion", "{side} pleural effusion , {grade}"),
    "pleura": ("{side} pleural thickening", "thickening of the {side} pleura"),
    "fracture": ("displaced {side} rib fracture", "fracture of a {side} rib"),
    "device": ("{device} in place", "{device} seen"),
}
_CLEAR = ("no acute cardiopulmonary process", "lungs are clear , normal heart size", "no acute abnormality")
_SHALLOW = "low lung volumes"


def write_report(chart: Chart, row: int, rng: np.random.Generator) -> str:
    """The report of one row of a chart: phrases joined by ' . '."""
    phrases = [_phrase(chart, row, name, rng) for name in FINDINGS if chart.has(name)[row]]
    if chart.shallow[row]:
        phrases.append(_SHALLOW)
    rng.shuffle(phrases)
    if not any(chart.has(name)[row] for name in FINDINGS if name != "device"):
        phrases.append(_CLEAR[rng.integers(len(_CLEAR))])
    return " . ".join(phrases)


def vocabulary() -> list[str]:
    """Every word and sign the grammar can write, sorted."""
    texts = [phrase for wordings in _PHRASES.values() for phrase in wordings]
    texts += [*_CLEAR, _SHALLOW, *DEVICES, *GRADES, *SIDES, *ZONES, *_MILD, "."]
    plain = re.sub(r"\{\w+\}", " ", " ".join(texts))
    return sorted(set(plain.split()))


def _phrase(chart: Chart, row: int, name: str, rng: np.random.Generator) -> str:
    """One finding in words, wording drawn at random."""
    column = list(FINDINGS).index(name)
    grade = chart.grade[row, column]
    wordings = _PHRASES[name]
    return wordings[rng.integers(len(wordings))].format(
        side=SIDES[chart.side[row, column]],
        grade=GRADES[grade],
        mild=_MILD[grade],
        zone=ZONES[chart.zone[row, column]],
        device=DEVICES[chart.device[row]],
    )
