"""A dataset made from a feed of films: shards or an export, and the card that says what is in it.

What `synthchex build` and `synthchex convert` have in common.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import synthchex
from synthchex.data import datacard, exports, feeds, layout, shards, survey

SHARD_ROWS = 1000
TITLE, LICENSE = "Synthetic chest radiographs", "apache-2.0"
UNCALIBRATED = "the judge is uncalibrated"
LICENSE_NOTE = "The licences of generator, judge and prompts are theirs; see there."
PHANTOM_NOTE = (
    "They show procedural phantoms, a simulation: nothing here "
    "resembles a patient's film closely enough to learn medicine from."
)
TASKS = ("text-to-image", "image-classification")
TAGS = ("medical", "synthetic", "chest-x-ray", "radiology")
LABELS_MEAN = "CheXpert labels **of the prompt**: 1 present, 0 absent, -1 uncertain, null not mentioned"
MEANINGS = {
    "image": "Image | the film",
    "filename": "string | its name",
    "prompt": "string | the report text that it was made from",
    "labels_dict": f"struct of 14 int8 | {LABELS_MEAN}",
    "source_policy": "string | where prompts come from: open, credentialed, unknown",
    "quality": "string | the judge's class",
    "quality_scores": "string | the judge's score of each class, JSON",
    "judge": "string | who judged",
    "drop_reason": "string | why the film was dropped; null where it was kept",
}
# How a format is loaded, and how a film of it is looked at.
ROW = 'films[0]["image"], films[0]["prompt"], films[0]["labels_dict"]'
FORMATS = {
    "parquet": ('load_dataset("{path}", split="{split}")', ROW),
    "imagefolder": ('load_dataset("imagefolder", data_dir="{path}", split="{split}")', ROW),
    "webdataset": (
        'load_dataset("{path}", split="{split}")',
        'films[0]["png"], films[0]["json"]["prompt"], films[0]["json"]["labels_dict"]',
    ),
}


@dataclass(frozen=True)
class Making:
    """What is to be made, where, and what the card is told.

    `title` and `license` of None are those of the card that is there, else the defaults; `results` and `gate` are the
    contents of results.json and gate.json.
    """

    out: Path
    form: str = "parquet"
    shares: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})
    everything: bool = False
    shard_rows: int = SHARD_ROWS
    title: str | None = None
    license: str | None = None
    license_note: str = ""
    calibration: str = UNCALIBRATED
    domain: str = "radiographs"
    results: Mapping[str, Any] | None = None
    gate: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is read."""
        if self.shard_rows < 1:
            raise ValueError(f"--shard-rows must be at least 1, got {self.shard_rows}")
        if self.everything and self.form != "parquet":
            raise ValueError(f"--all needs --format parquet, got {self.form}; leave one of the two out")


class Made(NamedTuple):
    """What was made: rows that are kept, rows of the source, kept rows by split, and rows that could not be read."""

    rows: int
    of: int
    splits: Mapping[str, int]
    lost: Sequence[feeds.Lost]


def make(feed: feeds.Feed, what: Making, *, quiet: bool) -> Made:
    """Count the source, write the films that are missing, then the card.

    Raises:
        ValueError: no prompts, no films that are kept or can be read, an empty split, another run in the folder.
    """
    evidence = {
        "scores": "" if what.results is None else datacard.score_table(what.results),
        "privacy": datacard.gate_text(what.gate),
    }
    seen = survey.look(feed)
    shape = layout.arrange(feed, seen, what.shares, everything=what.everything)
    plan = shape.plan(
        feed,
        what.shard_rows,
        {"format": what.form, "splits": dict(what.shares), "all": what.everything, "columns": list(shape.columns)},
    )
    if what.form == "parquet":
        layout.write(what.out, plan, shape, feed, quiet=quiet)
    else:
        export = exports.imagefolder if what.form == "imagefolder" else exports.webdataset
        export(what.out, plan, shape, feed, quiet=quiet)
    lost = layout.lost_rows(what.out, plan)
    counts = shape.without(lost)
    made = Made(sum(counts.values()), feed.count, counts, lost)
    write_card(what, feed, seen, shape, made, evidence)
    return made


def lines(made: Made, what: Making) -> list[str]:
    """For a terminal."""
    found = [f"{made.rows} of {made.of} films in {what.out}"]
    if len(made.splits) > 1:
        found.append(", ".join(f"{name} {count}" for name, count in made.splits.items()))
    if made.lost:
        named = ", ".join(f"{one.name} ({one.reason})" for one in made.lost[:5])
        more = ", …" if len(made.lost) > 5 else ""
        found.append(f"{len(made.lost)} could not be read and were left out: {named}{more}")
    return [*found, f"{FORMATS[what.form][0].format(path=what.out, split=next(iter(made.splits)))} reads them"]


def as_dict(made: Made, what: Making) -> dict[str, Any]:
    """For JSON."""
    reasons = Counter(one.reason for one in made.lost)
    counts = {"rows": made.rows, "of": made.of, "splits": dict(made.splits), "unreadable": reasons}
    return {**counts, "unreadable_rows": [one._asdict() for one in made.lost[:20]], "out": str(what.out)}


def read_json(path: Path | None, option: str) -> Any:
    """A JSON object, None where no file was named.

    Raises:
        ValueError: the file is not there, or holds no JSON object.
    """
    if path is None:
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{option} must be a JSON file, got {path}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{option} must hold a JSON object, got {type(found).__name__} in {path}")
    return found


def write_card(
    what: Making,
    feed: feeds.Feed,
    seen: survey.Survey,
    shape: layout.Layout,
    made: Made,
    evidence: Mapping[str, str],
) -> None:
    """The sample grid, and the card around what the user has written in it."""
    readme = what.out / "README.md"
    there = readme.read_text() if readme.exists() else None
    held = datacard.header(there)
    given = {"pretty_name": what.title, "license": what.license}
    head = {
        **{"pretty_name": TITLE, "license": LICENSE},
        **held,
        **{key: value for key, value in given.items() if value is not None},
        "task_categories": datacard.joined(held.get("task_categories"), TASKS),
        "tags": datacard.joined(held.get("tags"), [*TAGS, *(["phantom"] if what.domain == "phantom" else [])]),
        "size_categories": [datacard.size_category(made.rows)],
        **files_header(what, shape),
    }
    slots = {**slots_of(what, seen, shape, made), **evidence, "title": head["pretty_name"], "license": head["license"]}
    body = datacard.fill(synthchex.room("datasets_scripts") / "dataset_card.md", slots)
    shards.write_whole(what.out / datacard.SAMPLES, datacard.sample_grid(samples(feed, shape)))
    shards.write_whole(readme, datacard.merged(head, body, there).encode())


def files_header(what: Making, shape: layout.Layout) -> dict[str, Any]:
    """`configs` of the header, and types where the files do not hold them themselves."""
    if what.form == "parquet":
        return layout.header(shape)
    if what.form == "webdataset":
        return exports.tar_header(shape)
    configs = exports.folder_configs(shape)
    return {"configs": [{"config_name": name, **config} for name, config in configs.items()]}


def samples(feed: feeds.Feed, shape: layout.Layout) -> list[Any]:
    """At most 16 of the films that are kept, evenly spaced."""
    rows = np.concatenate([part.rows for part in shape.parts if part.group != survey.REJECTED])
    rows.sort()
    # Twice as many as are shown, as some may not be readable.
    chosen = np.unique(rows[np.linspace(0, len(rows) - 1, 2 * datacard.GRID**2).astype(int)])
    films = [film for batch in feed.films(chosen, ()) for film in batch.table["image"].to_pylist()]
    shown = np.unique(np.linspace(0, len(films) - 1, datacard.GRID**2).astype(int))
    return [films[place] for place in shown]


def slots_of(what: Making, seen: survey.Survey, shape: layout.Layout, made: Made) -> dict[str, Any]:
    """What was counted, for the template."""
    reasons = Counter(one.reason for one in made.lost)
    return {
        "domain_note": PHANTOM_NOTE if what.domain == "phantom" else "",
        "samples": datacard.SAMPLES,
        "rows": made.rows,
        "split_note": ", ".join(f"{name} {count}" for name, count in made.splits.items()),
        "split_rule": split_rule(shape, seen),
        "generator": datacard.said(seen.told, "model"),
        "judge": datacard.said(seen.told, "judge") if seen.judged else "none",
        "judged": seen.judged,
        "kept_note": f"{made.rows} of {made.of}",
        "policy": datacard.said(seen.told, "source_policy"),
        "example": example(what, shape),
        "column_rows": "\n".join(f"| `{name}` | {MEANINGS[name]} |" for name in (*feeds.RECORD, *shape.columns)),
        "hidden": what.form == "parquet" and bool(shape.columns),
        "config_rows": config_rows(shape, made.lost) if what.form == "parquet" else "",
        "label_table": datacard.label_table(survey.states(kept_files(what))),
        "recipe_rows": datacard.recipe_rows(seen.told),
        "calibration": f"{what.calibration[:1].upper()}{what.calibration[1:].rstrip('.')}.",
        "qualities": ", ".join(f"{name}: {count}" for name, count in seen.qualities.most_common()),
        "drop_table": datacard.drop_table(seen),
        "unreadable": ", ".join(f"{count} ({reason})" for reason, count in reasons.most_common()),
        "license_note": what.license_note or LICENSE_NOTE,
    }


def example(what: Making, shape: layout.Layout) -> str:
    """Python that loads the dataset from the folder that it lies in."""
    load, use = FORMATS[what.form]
    said = load.format(path=what.out.name, split=next(iter(shape.splits)))
    return "\n".join(["from datasets import load_dataset", "", f"films = {said}", use])


def kept_files(what: Making) -> list[Path]:
    """Parquet files of the rows that are kept."""
    files = shards.parquet_files(what.out) if what.form == "parquet" else exports.built(what.out)
    return [path for path in files if f"-{survey.REJECTED}-" not in path.name]


def split_rule(shape: layout.Layout, seen: survey.Survey) -> str:
    """How splits were made, in words."""
    if len(shape.splits) == 1:
        return f"{next(iter(shape.splits))} only; nothing was held out."
    shared = "a prompt or a patient of the source" if seen.patient is not None else "a prompt"
    return (
        f"{', '.join(shape.splits)}. Films that share {shared} are in one split; prompts that differ only in case, "
        "spaces or punctuation are one prompt. Which split follows from a hash of the prompt."
    )


def config_rows(shape: layout.Layout, lost: Sequence[feeds.Lost]) -> str:
    """Table rows of the configurations, where there are several."""
    configs, lines = layout.configs(shape), []
    for name in configs if len(configs) > 1 else ():
        parts = [part for part in shape.parts if name != "high_quality" or part.group == layout.HIGH]
        columns = (*feeds.RECORD, *shape.columns) if name == "all" else feeds.RECORD
        lines.append(f"| `{name}` | {shape.count(parts, lost, rejected=name == 'all')} | {', '.join(columns)} |")
    return "\n".join(lines)
