"""A study made whole: films drawn and written under random names, orders, codes, manifest, seal. Shows nothing."""

from __future__ import annotations

import datetime
import io
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import synthchex
from synthchex.data import records
from synthchex.study import access, arms, design, orders
from synthchex.study.arms import Arm, Drawn, Taken
from synthchex.study.design import REAL, Design

WRITTEN = 1_000_000_000  # time stamp of every film: when a film was written says nothing


@dataclass(frozen=True)
class Made:
    """A new study: the SHA-256 to register, the readers' codes, which are kept nowhere, and what was counted."""

    sha256: str
    codes: Mapping[str, str]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Deck:
    """Cases of one task: those that count, by set, those of practice, what runs are avoided of, the films of each."""

    counted: Mapping[str, Sequence[str]]
    practice: Sequence[str]
    kinds: Mapping[str, str]
    films: Mapping[str, tuple[str, ...]]


def make(study: Path, sets: Sequence[Arm], wanted: Design) -> Made:
    """Write a new study.

    Args:
        study: folder that is not there yet.
        sets: the real set first, then those of the models.
        wanted: the design.

    Raises:
        ValueError: the folder is there, or the sets do not have the films; see `arms.draw`.
    """
    _check(study, sets, wanted)
    paired = "preference" in wanted.tasks
    asked = arms.Wanted(
        wanted.n, _practice(wanted, sets), wanted.strata, wanted.size, wanted.burned_in_text, wanted.seed, paired
    )
    drawn = arms.draw(sets, asked)
    building = study.with_name(f".{study.name}.{os.getpid()}.tmp")
    building.mkdir(mode=0o700, parents=True)
    try:
        made = _write(building, drawn, sets, wanted)
        os.rename(building, study)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return made


def _check(study: Path, sets: Sequence[Arm], wanted: Design) -> None:
    if study.exists():
        raise ValueError(f"expected a folder that is not there yet, got {study}; a study is never written over")
    models = [arm.model for arm in sets if arm.arm != REAL]
    if len({arm.model for arm in sets}) < len(sets):
        raise ValueError(f"expected sets of different names, got {[arm.model for arm in sets]}; write NAME=SET")
    if "preference" in wanted.tasks and len(models) < 2:
        raise ValueError(f"preference compares models, expected two --synthetic sets or more, got {len(models)}")


def _practice(wanted: Design, sets: Sequence[Arm]) -> int:
    """Films of each set that practice needs: items are taken from all sets in turn; pairs need one of each."""
    return wanted.practice if "preference" in wanted.tasks else -(-wanted.practice // len(sets))


def _write(study: Path, drawn: Drawn, sets: Sequence[Arm], wanted: Design) -> Made:
    (study / design.FILMS).mkdir(mode=0o700)
    (study / design.PRIVATE).mkdir(mode=0o700)
    taken = list(chain(*drawn.films.values(), *drawn.practice.values()))
    cases = dict(zip(map(id, taken), _names(len(taken)), strict=True))
    _write_films(study / design.FILMS, {cases[id(film)]: film.pixels for film in taken})
    practised = {id(film) for group in drawn.practice.values() for film in group}
    truth = {cases[id(film)]: _truth(film, id(film) in practised) for film in taken}
    design.write(
        study,
        design.TRUTH,
        {
            "nonce": secrets.token_hex(32),
            "sources": {arm.model: arm.films.source for arm in sets},
            "cases": dict(sorted(truth.items())),
        },
    )
    design.write(study, design.ORDERS, _orders(drawn, cases, truth, wanted))
    told = {case: truth[case]["arm"] for case in truth if truth[case]["practice"]} if wanted.feedback else {}
    design.write(study, design.PRACTICE, told)
    codes = {reader: access.new_code(reader) for reader in wanted.reader_names}
    design.write(study, design.READERS, {reader: access.hashed(code) for reader, code in codes.items()})
    manifest = _manifest(drawn, sets, wanted)
    return Made(design.seal(study, manifest), codes, manifest)


def _names(count: int) -> list[str]:
    """Random names, all different."""
    names = set[str]()
    while len(names) < count:
        names.add(secrets.token_hex(8))
    order = list(names)
    secrets.SystemRandom().shuffle(order)
    return order


def _write_films(folder: Path, films: Mapping[str, np.ndarray]) -> None:
    """PNG files in the order of their random names, all of one length: their pixels are not compressed."""
    lengths = set()
    for case in sorted(films):
        content = png(films[case])
        lengths.add(len(content))
        path = folder / f"{case}.png"
        design.write_private(path, content)
        os.utime(path, (WRITTEN, WRITTEN))
    if len(lengths) != 1:
        raise RuntimeError(f"expected films of one length, got {sorted(lengths)} bytes")


def png(pixels: np.ndarray) -> bytes:
    """A grey film as PNG of no chunk but IHDR, IDAT and IEND, not compressed: its length tells its size only."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def _truth(film: Taken, practice: bool) -> dict[str, Any]:
    films = film.arm.films
    return {
        "arm": film.arm.arm,
        "model": film.arm.model,
        "stratum": film.stratum,
        "labels": films.row(film.row)["labels_dict"],
        "source_id": str(films.ids[film.row]),
        "practice": practice,
        "texts": film.texts,
        "side_markers": film.markers,
    }


def _orders(
    drawn: Drawn, cases: Mapping[int, str], truth: Mapping[str, Mapping[str, Any]], wanted: Design
) -> dict[str, list[dict[str, Any]]]:
    """Items of every reader: task after task, practice first."""
    decks = {task: _deck(task, drawn, cases, wanted) for task in design.ordered(wanted.tasks)}
    shown: dict[str, list[dict[str, Any]]] = {}
    for reader in wanted.reader_names:
        shown[reader] = []
        for task, deck in decks.items():
            repeated = orders.balanced(deck.counted, wanted.repeated, records.row_seed(wanted.seed, task))
            seed = records.row_seed(wanted.seed, f"{reader}/{task}")
            places = orders.sequence(list(deck.kinds), repeated, deck.kinds, seed)
            rng = np.random.default_rng(records.row_seed(wanted.seed, f"{reader}/{task}", 1))
            trial = [orders.Place(str(case), False) for case in rng.permutation(sorted(deck.practice))]
            for place in [*trial, *places]:
                films = list(deck.films[place.case])
                if rng.random() < 0.5:
                    films.reverse()  # of a pair: the side
                item = {"task": task, "case": place.case, "films": films, "repeat": place.repeat}
                findings = _findings(truth[films[0]]["labels"], task, wanted)
                shown[reader].append({**item, "practice": place.case not in deck.kinds, "findings": findings})
    return shown


def _findings(labels: Mapping[str, Any], task: str, wanted: Design) -> dict[str, list[str]] | None:
    """What a film is said to show, of the labels that the arms are matched by and no others, which would tell."""
    if task not in ("quality", "preference") or not wanted.strata:
        return None
    present = [label for label in wanted.strata if labels[label] == 1]
    return {"present": present, "absent": [label for label in wanted.strata if label not in present]}


def _deck(task: str, drawn: Drawn, cases: Mapping[int, str], wanted: Design) -> Deck:
    """The cases of a task: films, or pairs of films of the same prompt by every two models."""
    if task == "preference":
        return _pairs(drawn, cases, wanted)
    counted = {model: [cases[id(film)] for film in group] for model, group in drawn.films.items()}
    turns = [cases[id(film)] for turn in zip(*drawn.practice.values(), strict=True) for film in turn]
    practice = turns[: wanted.practice]
    kinds = {case: group[0].arm.arm for model, group in drawn.films.items() for case in counted[model]}
    return Deck(counted, practice, kinds, {case: (case,) for case in [*practice, *kinds]})


def _pairs(drawn: Drawn, cases: Mapping[int, str], wanted: Design) -> Deck:
    models = [model for model, group in drawn.films.items() if group[0].arm.arm != REAL]
    counted: dict[str, list[str]] = {}
    practice, films = list[str](), dict[str, tuple[str, ...]]()
    for one, other in combinations(models, 2):
        for group, of in ((drawn.films, counted.setdefault(f"{one}/{other}", [])), (drawn.practice, practice)):
            for pair in zip(group[one], group[other], strict=True):
                name = secrets.token_hex(8)
                of.append(name)
                films[name] = (cases[id(pair[0])], cases[id(pair[1])])
    kinds = {name: kind for kind, names in counted.items() for name in names}
    return Deck(counted, practice[: wanted.practice], kinds, films)


def _manifest(drawn: Drawn, sets: Sequence[Arm], wanted: Design) -> dict[str, Any]:
    """What is registered; it names no film."""
    every = {model: [*drawn.films[model], *drawn.practice[model]] for model in drawn.films}
    return {
        "format": design.FORMAT,
        "synthchex": synthchex.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "title": wanted.title,
        "design": {**asdict(wanted), "tasks": design.ordered(wanted.tasks), "repeated": wanted.repeated},
        "readers": wanted.reader_names,
        "arms": [
            {
                "arm": arm.arm,
                "model": arm.model,
                "films": len(drawn.films[arm.model]),
                "practice_films": len(drawn.practice[arm.model]),
                "drawn_from": len(arm.films),
                "source_policy": arm.policy,
                "fingerprint": arm.films.fingerprint(),
            }
            for arm in sets
        ],
        "strata": {"labels": list(wanted.strata), "view": drawn.matched_view, "films_per_arm": drawn.strata},
        "hypotheses": list(wanted.hypotheses) or design.default_hypotheses(wanted),
        "exclusions": [
            "Practice items are not analysed.",
            "No answer is left out for its content or its time.",
            *wanted.exclusions,
        ],
        "tasks": design.task_texts(wanted),
        "display": {"size": wanted.size, "bits": 8, "format": "PNG", "crop": "centre square", "theme": "dark"},
        "screened": {
            "burned_in_text": arms.screened(every, lambda film: film.texts),
            "side_markers": arms.screened(every, lambda film: film.markers),
            "passed_over": drawn.passed_over,
        },
    }
