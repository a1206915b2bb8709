"""How a built dataset lies on disk and what its card must say for every version of `datasets` to read it alike.

Shards are grouped by split and quality, so that `default`, `high_quality` and `all` are sets of files and no film is
stored twice:
    data/train-high-00000-of-00004.parquet      default, high_quality, all
    data/train-medium-00000-of-00002.parquet    default, all
    data/train-rejected-00000-of-00001.parquet  all
A set that nobody judged has data/train-00000-of-00004.parquet and the configuration `default`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.data import records, sections, shards, splits
from synthchex.data.feeds import RECORD, Feed, Lost, lost_lines, schema
from synthchex.data.survey import REJECTED, Survey

if TYPE_CHECKING:
    from datasets import Features

LOST = ".lost"
HIGH = "high"
VERDICTS = tuple(records.VERDICT_COLUMNS)


class Part(NamedTuple):
    """Rows of the source that one series of shards holds; `name` is how its files begin."""

    name: str
    split: str
    group: str
    rows: np.ndarray


@dataclass(frozen=True)
class Layout:
    """What is written: its parts in the order of their names, and the columns beyond those of a record."""

    parts: Sequence[Part]
    columns: Sequence[str]

    @property
    def rows(self) -> np.ndarray:
        """Row of the source of every row that is written."""
        return np.concatenate([part.rows for part in self.parts])

    @property
    def splits(self) -> dict[str, int]:
        """Rows that are kept, by split."""
        return self.without([])

    def without(self, lost: Sequence[Lost]) -> dict[str, int]:
        """Rows that are kept and could be read, by split."""
        names = splits.ordered(part.split for part in self.parts)
        return {name: self.count([part for part in self.parts if part.split == name], lost) for name in names}

    def count(self, parts: Sequence[Part], lost: Sequence[Lost], *, rejected: bool = False) -> int:
        """Rows of some parts that could be read; dropped ones only where `rejected`."""
        chosen = [part.rows for part in parts if rejected or part.group != REJECTED]
        gone = np.array([one.row for one in lost], np.int64)
        return sum(len(rows) - int(np.isin(gone, rows).sum()) for rows in chosen)

    def features(self) -> Features:
        """Types of all columns."""
        from datasets import Features

        return Features.from_arrow_schema(schema(self.columns))

    def plan(self, feed: Feed, shard_rows: int, recipe: Mapping[str, Any]) -> shards.Plan:
        """What `shards` is to write."""
        named = tuple((part.name, len(part.rows)) for part in self.parts)
        return shards.Plan("build", feed.fingerprint, len(self.rows), shard_rows, recipe, named)


def arrange(feed: Feed, seen: Survey, shares: Mapping[str, float], *, everything: bool) -> Layout:
    """Which rows go where.

    Args:
        feed: the source.
        seen: its counts.
        shares: of the splits.
        everything: write films that were dropped too, and the verdicts of all.

    Raises:
        ValueError: a split would be empty, or there are no verdicts to write.
    """
    if everything and not seen.judged:
        raise ValueError(f"--all writes verdicts, got {feed.source} without any; run `synthchex filter` first")
    together = seen.prompt if seen.patient is None else splits.linked(seen.prompt, seen.patient)
    split, kept = splits.assign(together, shares), seen.kept
    parts = []
    for number, name in enumerate(shares):
        if not (kept & (split == number)).any():
            raise ValueError(
                f"split {name}={shares[name]} would have no film: {int(kept.sum())} films have "
                f"{len(np.unique(together[kept]))} groups of prompts and patients; give it a larger share"
            )
        for group in seen.groups:
            rows = np.flatnonzero((split == number) & (seen.group == seen.groups.index(group)))
            if len(rows) and (everything or group != REJECTED):
                # "train-*" would name the files of every group.
                parts.append(Part(f"{name}-{group}" if seen.judged else name, name, group, rows))
    extras = ["source_policy"] if "source_policy" in feed.columns else []
    extras += VERDICTS if everything else ()
    return Layout(sorted(parts, key=lambda part: f"{part.name}-"), extras)


def write(out: Path, plan: shards.Plan, layout: Layout, feed: Feed, *, quiet: bool) -> list[Lost]:
    """Write the Parquet shards that are missing; the rows of all that could not be read."""
    shards.begin(out, plan)
    (out / LOST).mkdir(exist_ok=True)
    note = partial(note_lost, out, plan)
    sections.fill(out, plan, feed, layout.rows, layout.columns, layout.features(), note, quiet=quiet)
    return lost_rows(out, plan)


def note_lost(out: Path, plan: shards.Plan, shard: int, lost: Sequence[Lost]) -> None:
    """Keep the rows that a shard lacks, before the shard is there."""
    path = out / LOST / f"{plan.files[shard].name}.json"
    if lost:
        shards.write_whole(path, lost_lines(lost).encode())
    else:
        path.unlink(missing_ok=True)


def lost_rows(out: Path, plan: shards.Plan) -> list[Lost]:
    """Rows that could not be read, of all shards.

    Raises:
        ValueError: not one film could be read.
    """
    notes = [out / LOST / f"{shard.name}.json" for shard in plan.files]
    found = [Lost(**one) for path in notes if path.exists() for one in json.loads(path.read_text())]
    if len(found) == plan.rows:
        raise ValueError(
            f"expected films that can be read, got none of {plan.rows}, e.g. {found[0].name}: {found[0].reason}"
        )
    return found


def configs(layout: Layout, *, suffix: str = ".parquet") -> dict[str, dict[str, Any]]:
    """The `configs` of the card's header, by name."""
    groups = list(dict.fromkeys(part.group for part in layout.parts))
    chosen = {"default": [name for name in groups if name != REJECTED]}
    if HIGH in groups:
        chosen["high_quality"] = [HIGH]
    if REJECTED in groups or set(VERDICTS) & set(layout.columns):
        chosen["all"] = groups
    return {name: _config(layout, inside, suffix, whole=name == "all") for name, inside in chosen.items()}


def header(layout: Layout) -> dict[str, Any]:
    """`configs` and `dataset_info` of the card's header."""
    four = records.features(provenance=False)
    return card_header(configs(layout), lambda name: layout.features() if name == "all" else four)


def card_header(found: Mapping[str, Any], types: Callable[[str], Features]) -> dict[str, Any]:
    """Configurations and the types of each, as a card says them."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    data = DatasetCardData()
    infos = {name: DatasetInfo(features=types(name), config_name=name) for name in found}
    DatasetInfosDict(infos).to_dataset_card_data(data)
    MetadataConfigs(found).to_dataset_card_data(data)
    return dict(data.to_dict())


def _config(layout: Layout, groups: Sequence[str], suffix: str, *, whole: bool) -> dict[str, Any]:
    """Files of some groups, and the four columns where files have more."""
    files: dict[str, list[str]] = {}
    for part in layout.parts:
        if part.group in groups:
            files.setdefault(part.split, []).append(f"data/{part.name}-*{suffix if suffix != '.parquet' else ''}")
    paths = {name: files[name][0] if len(files[name]) == 1 else files[name] for name in splits.ordered(files)}
    found: dict[str, Any] = {"data_files": [{"split": name, "path": path} for name, path in paths.items()]}
    return found if whole or not layout.columns else {**found, "columns": list(RECORD)}
