"""What a reader study is, registered before anybody reads: its folder, its manifest, and the seal that keeps both.

A study's folder is its owner's only:
    manifest.json            design, arms, strata, hypotheses, exclusion rules, tasks, display; names no film
    films/<case>.png         the films, all of one size, named at random
    private/truth.json       which case is what
    private/orders.json      what each reader sees, in order; says nothing of the truth
    private/practice.json    what the practice films are, where readers are told
    private/readers.json     hashes of the access codes
    private/seal.json        SHA-256 of the manifest, which in turn holds those of truth, orders and films
    answers.sqlite           what readers said
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from synthchex.data import records

MANIFEST, FILMS, PRIVATE, ANSWERS = "manifest.json", "films", "private", "answers.sqlite"
TRUTH, ORDERS, PRACTICE, READERS, SEAL = (
    f"{PRIVATE}/{name}.json" for name in ("truth", "orders", "practice", "readers", "seal")
)
REAL, SYNTHETIC = "real", "synthetic"
FORMAT = 1
# In the order in which a reader does them: calling films real or synthetic comes before anything that would tell, and
# pairs, which are both synthetic, come last.
Task = Literal["authenticity", "quality", "diagnosis", "preference"]
TASKS: tuple[Task, ...] = get_args(Task)
Burned = Literal["count", "exclude", "refuse"]
REPEATS = (0.1, 0.2)  # share of films that are shown twice
FEWEST = 2  # films of an arm

QUALITY = {
    "anatomy": "Anatomy: ribs, heart, lungs and airways are as they should be",
    "pathology": "Pathology: what was asked for is seen, and looks as in patients",
    "artefacts": "Freedom from artefacts: nothing that no X-ray machine makes",
    "overall": "Overall: the film as a whole",
}
SCALE = ("very poor", "poor", "fair", "good", "very good")
CONFIDENCE = ("guess", "slightly sure", "fairly sure", "sure", "certain")
TAGS = (
    "boxy ribs",
    "wrong number of ribs",
    "boxy heart",
    "costophrenic angle",
    "vessels",
    "diaphragm",
    "bones or joints",
    "device or line",
    "marker position",
    "text artefact",
    "texture or noise",
    "blur",
    "asymmetry",
    "finding missing",
)


@dataclass(frozen=True)
class Design:
    """What is to be done; see `synthchex study new --help`.

    `n` films of every arm are read, `practice` more come before each task and do not count, `repeats` of the films are
    shown twice. `strata` are labels whose presence the arms share. `burned_in_text`: "count" films with text,
    "exclude" them, or "refuse" the study.
    """

    tasks: tuple[Task, ...] = ("authenticity",)
    n: int = 50
    repeats: float = 0.15
    practice: int = 4
    feedback: bool = False
    readers: int = 2
    strata: tuple[str, ...] = ()
    seed: int = 0
    size: int = 512
    burned_in_text: Burned = "count"
    title: str = "Reader study"
    hypotheses: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    alpha: float = 0.05
    margin: float = 0.1
    tags: tuple[str, ...] = TAGS

    def __post_init__(self) -> None:
        """Refuse a design that cannot be run, before any film is read."""
        _check_choices(self)
        for name, least in (("n", FEWEST), ("readers", 1), ("practice", 0), ("size", 32)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.repeats and not REPEATS[0] <= self.repeats <= REPEATS[1]:
            raise ValueError(
                f"repeats must be {REPEATS[0]} to {REPEATS[1]} of the films, or 0 for none, got {self.repeats}"
            )
        for name in ("alpha", "margin"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be between 0 and 0.5, got {getattr(self, name)}")

    @property
    def reader_names(self) -> list[str]:
        """Roles that stand for readers everywhere: R1, R2, …"""
        return [f"R{number}" for number in range(1, self.readers + 1)]

    @property
    def repeated(self) -> int:
        """How many of `n` films are shown twice; at least one where any are."""
        return min(self.n, max(1, round(self.n * self.repeats))) if self.repeats else 0


def _check_choices(design: Design) -> None:
    if not design.tasks or set(design.tasks) - set(TASKS) or len(set(design.tasks)) < len(design.tasks):
        raise ValueError(f"tasks must be some of {list(TASKS)}, each once, got {list(design.tasks)}")
    if unknown := sorted(set(design.strata) - set(records.LABELS)):
        raise ValueError(f"strata must be among the 14 CheXpert labels {list(records.LABELS)}, got {unknown}")
    if design.burned_in_text not in get_args(Burned):
        raise ValueError(f"burned_in_text must be one of {list(get_args(Burned))}, got {design.burned_in_text!r}")
    if len(design.tags) > len(TAGS) or len(set(design.tags)) < len(design.tags):
        raise ValueError(f"expected at most {len(TAGS)} different tags, got {list(design.tags)}")


def ordered(tasks: Sequence[Task]) -> list[Task]:
    """Tasks in the order in which a reader does them."""
    return [task for task in TASKS if task in tasks]


def default_hypotheses(design: Design) -> list[str]:
    """What a study of these tasks asks, where its author says nothing else."""
    said = {
        "authenticity": "Readers' accuracy at telling synthetic from real films (mean of sensitivity and specificity) "
        f"differs from 0.5 (two-sided, alpha {design.alpha:g}); synthetic films are called indistinguishable only if "
        f"the accuracy is equivalent to 0.5 within {design.margin:g} (TOST).",
        "quality": "Ratings of synthetic films differ from those of real films, by item (Holm over the items).",
        "diagnosis": "Readers find in synthetic films the findings that were asked for as often as in real films.",
        "preference": "Readers prefer the films of one model over those of another for the same prompt.",
    }
    return [said[task] for task in ordered(design.tasks)]


def task_texts(design: Design) -> dict[str, Any]:
    """What is asked of readers in each task of a study."""
    said: dict[str, Any] = {
        "authenticity": {"calls": [REAL, SYNTHETIC], "confidence": list(CONFIDENCE)},
        "quality": {"items": QUALITY, "scale": list(SCALE), "tags": list(design.tags)},
        "diagnosis": {"findings": [label for label in records.LABELS if label != "No Finding"]},
        "preference": {"choices": ["left", "right", "none"]},
    }
    return {task: said[task] for task in ordered(design.tasks)}


def load(study: str | Path) -> dict[str, Any]:
    """The manifest of a study, as it was registered.

    Returns:
        `sha256` of the manifest beside what it holds: `title`, `design` (the fields of `Design`), `readers`, `arms`
        (each `arm`, `model`, `films`, `source_policy`), `strata`, `hypotheses`, `exclusions`, `tasks`, `display`,
        `screened`, `sealed`.

    Raises:
        FileNotFoundError: no study there.
        ValueError: manifest, truth, orders or films are not those that were sealed.
    """
    folder = Path(study)
    if not (folder / MANIFEST).is_file() or not (folder / SEAL).is_file():
        raise FileNotFoundError(f"expected a study, got {folder}; make one with `synthchex study new`")
    content = (folder / MANIFEST).read_bytes()
    sealed, found = json.loads((folder / SEAL).read_bytes())["manifest"], sha256(content)
    if found != sealed:
        raise ValueError(
            f"{folder / MANIFEST} was changed after it was registered: expected SHA-256 {sealed}, got {found}; put the "
            "registered one back, or make a new study"
        )
    manifest: dict[str, Any] = json.loads(content)
    for name, was in manifest["sealed"].items():
        now = films_hash(folder) if name == FILMS else sha256((folder / name).read_bytes())
        if now != was:
            raise ValueError(f"{folder / name} was changed after the study was registered: expected {was}, got {now}")
    return {"sha256": found, **manifest}


def read(study: str | Path, name: str) -> Any:
    """One of the JSON files of a study."""
    return json.loads((Path(study) / name).read_bytes())


def write(study: Path, name: str, value: Any) -> bytes:
    """Write a JSON file that only its owner can read, from its first moment on; its bytes."""
    content = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode()
    write_private(study / name, content)
    return content


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def seal(study: Path, manifest: Mapping[str, Any]) -> str:
    """Write the manifest with the hashes of what belongs to it, and its own beside it; the SHA-256 to register."""
    sealed = {name: sha256((study / name).read_bytes()) for name in (TRUTH, ORDERS)} | {FILMS: films_hash(study)}
    found = sha256(write(study, MANIFEST, {**manifest, "sealed": sealed}))
    write(study, SEAL, {"manifest": found})
    return found


def films_hash(study: Path) -> str:
    """SHA-256 of all films and their names."""
    whole = hashlib.sha256()
    for path in sorted((study / FILMS).iterdir()):
        whole.update(f"{path.name} {sha256(path.read_bytes())}\n".encode())
    return whole.hexdigest()


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def finite(value: Any, least: float, most: float) -> bool:
    """Whether a value is a number between two others; booleans are no numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
