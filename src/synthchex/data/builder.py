"""The `datasets` builder of SynthCheX-style data; works as a class on every version of `datasets` from 3.6 on.

    from synthchex.data.builder import SynthCheX

    films = SynthCheX(config_name="default", data_dir="SynthCheX-75K")
    films.download_and_prepare()
    films.as_dataset(split="train")[0]                  # image, filename, prompt, labels_dict
    SynthCheX(data_dir="SynthCheX-75K").as_streaming_dataset(split="train")

A dataset that `synthchex build` or `synthchex convert` wrote needs none of this: `load_dataset` reads it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from synthchex.data import feeds, published, records, survey, tables

READER = 1  # raise when the same files give other rows than before
SHARD = re.compile(r"(?P<split>\w+(?:\.\w+)*?)(?:-(?P<group>\w+))?-\d{5}-of-\d{5}\.parquet")
PIECE_ROWS = 1000
HIGH_QUALITY, ALL = "high_quality", "all"

_log = logging.getLogger(__name__)


class SynthCheX(datasets.ArrowBasedBuilder):
    """Films with prompts and labels, from the layout in which SynthCheX-75K was published or from our own shards.

    `data_dir` is a folder or a zip, local or with a protocol (`hf://datasets/org/name`). Configurations: `default`, the
    films that are kept; `high_quality`; `all`, also those that were dropped, with the judge's verdicts. What is in
    `data_dir` is part of the cache's key: a changed film or table is read anew (see `published.content_hash`).
    """

    VERSION = datasets.Version("1.0.0")
    DEFAULT_CONFIG_NAME = "default"
    BUILDER_CONFIGS = [  # noqa: RUF012
        datasets.BuilderConfig(name="default", version=VERSION, description="films that are kept"),
        datasets.BuilderConfig(name=HIGH_QUALITY, version=VERSION, description="films of High Quality"),
        datasets.BuilderConfig(name=ALL, version=VERSION, description="all films, with verdicts"),
    ]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Add what is in `data_dir` to the cache's key.

        Raises:
            ValueError: no `data_dir`, or nothing there.
        """
        if options.get("data_dir") is None:
            raise ValueError("data_dir must be the folder or zip of the dataset, got None; pass data_dir=...")
        content = published.content_hash(options["data_dir"])
        options["hash"] = records.fingerprint([options.get("hash"), content, READER])
        options.setdefault("dataset_name", "synthchex")
        super().__init__(*arguments, **options)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Synthetic chest radiographs with prompts and the CheXpert labels of the prompts.",
            features=records.features(provenance=False, verdict=self.config.name == ALL),
        )

    def _split_generators(self, manager: Any) -> list[datasets.SplitGenerator]:
        source = str(self.config.data_dir)
        found = []
        for split, files in _splits(source).items():
            feed = _feed(source, files)
            chosen = _chosen(feed, files, self.config.name)
            if len(chosen):
                pieces = np.array_split(chosen, -(-len(chosen) // PIECE_ROWS))
                given = {"pieces": pieces, "source": source, "files": None if files is None else tuple(files)}
                found.append(datasets.SplitGenerator(name=split, gen_kwargs=given))
        if not found:
            raise ValueError(f"expected films for configuration {self.config.name} in {source}, got none of that kind")
        return found

    def _generate_tables(
        self, pieces: list[np.ndarray], source: str, files: tuple[str, ...] | None
    ) -> Iterator[tuple[Any, pa.Table]]:
        feed, extras = _feed(source, files), tuple(records.VERDICT_COLUMNS) if self.config.name == ALL else ()
        known = [name for name in extras if name in feed.columns]
        wanted = self.info.features.arrow_schema
        for piece in pieces:
            for number, batch in enumerate(feed.films(piece, known)):
                for lost in batch.lost:
                    _log.warning("row %d, %s, is left out: its film is %s", lost.row, lost.name, lost.reason)
                columns = [_column(batch.table, field) for field in wanted]
                yield (int(piece[0]), number), pa.table(columns, schema=wanted)


def _column(table: pa.Table, field: pa.Field) -> Any:
    """A column, or nothing for each row where the source has none."""
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    return table[field.name].cast(field.type)


def _splits(source: str) -> dict[str, list[str] | None]:
    """Parquet files by split; one split, train, for anything else."""
    path = Path(source)
    if not (path.is_dir() and tables.is_dataset_folder(path) and feeds.is_record(path)):
        return {"train": None}
    from synthchex.data import shards

    found: dict[str, list[str] | None] = {}
    for file in shards.parquet_files(path):
        match = SHARD.fullmatch(file.name)
        files = found.setdefault(match["split"] if match else "train", [])
        if files is not None:
            files.append(str(file))
    return found


def _feed(source: str, files: Any) -> feeds.Feed:
    if files is None:
        return published.open_published(source)
    return feeds.from_shards(Path(source), [Path(file) for file in files])


def _chosen(feed: feeds.Feed, files: Any, config: str) -> np.ndarray:
    """Rows of a configuration, by the quality that files or columns say.

    Raises:
        ValueError: high quality is asked for and nothing says which films are of it.
    """
    if config == ALL:
        return np.arange(feed.count)
    groups = _groups(feed, files)
    if config != HIGH_QUALITY:
        return np.flatnonzero(groups != survey.REJECTED)
    if (groups == survey.UNJUDGED).all():
        raise ValueError(f"expected a quality for each film of {feed.source}, got none; use the configuration default")
    return np.flatnonzero(groups == "high")


def _groups(feed: feeds.Feed, files: Any) -> np.ndarray:
    """Group of quality of every row, from the names of shards or from the verdicts."""
    import pyarrow.parquet as pq

    matches = [SHARD.fullmatch(Path(file).name) for file in files or ()]
    if matches and all(match and match["group"] for match in matches):
        counts = [pq.read_metadata(file).num_rows for file in files]
        return np.repeat([str(match["group"]) for match in matches if match], counts)
    seen = survey.look(feed)
    return np.array(seen.groups)[seen.group]
