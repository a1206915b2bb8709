"""The card of a published dataset: what `build` wrote, the gate's section and a changelog, inside a card that may have
other authors. Text outside the two marks, and what the header says beyond what follows from the files, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from synthchex.data import records
from synthchex.data.importers import policies

if TYPE_CHECKING:
    from datasets import Features
    from huggingface_hub import CardData, DatasetCard

BEGIN = "<!-- synthchex publish writes what follows; put your own text above this line or below the last mark -->"
END = "<!-- end of what synthchex publish writes -->"
LOG = "## Changelog"
CONFIGURED = ("configs", "dataset_info")
LISTS = ("tags", "task_categories")
DEFAULT = "default"
_SHARD = re.compile(r"(?P<split>.+)-\d+-of-\d+\.parquet$")


def read(text: str) -> DatasetCard:
    """A card from its text.

    Raises:
        ValueError: its header is not YAML, or no mapping.
    """
    import yaml
    from huggingface_hub import DatasetCard

    try:
        return DatasetCard(text, ignore_metadata_errors=True)
    except yaml.YAMLError as error:
        raise ValueError(f"expected a card with a YAML header, got one that cannot be read: {error}") from error


def ours(local: str, section: str, repo_id: str, files: Sequence[str], features: Features) -> DatasetCard:
    """The card of the files that are published.

    Args:
        local: README.md of the built dataset, with header; its example is made to load `repo_id`.
        section: of the gate, Markdown.
        repo_id: where it is published.
        files: paths of the Parquet files in the repository.
        features: types of their columns.
    """
    from datasets import DatasetInfo, Features
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs

    card = read(local)
    held = MetadataConfigs.from_dataset_card_data(card.data)
    for key in ("configs", "dataset_info"):
        card.data.pop(key, None)
    left = {name: _left(config, files) for name, config in held.items()}
    configs = {name: config for name, config in left.items() if config["data_files"]} or {DEFAULT: splits(files)}
    infos = {}
    for name, config in configs.items():
        chosen = {column: features[column] for column in config.get("columns") or features}
        infos[name] = DatasetInfo(features=Features(chosen), config_name=name)
    DatasetInfosDict(infos).to_dataset_card_data(card.data)
    MetadataConfigs(configs).to_dataset_card_data(card.data)
    body = re.sub(r'load_dataset\("[^"]*"', f'load_dataset("{repo_id}"', card.text.strip())
    # Lines of the table of columns that stay here.
    for column in {*records.VERDICT_COLUMNS, policies.COLUMN} - set(features):
        body = re.sub(rf"^\| `{column}` \|.*\n", "", body, flags=re.MULTILINE)
    card.text = f"{body}\n\n{section.strip()}\n"
    return card


def merged(card: DatasetCard, theirs: str | None, log: Sequence[str]) -> str:
    """The whole text of the card: ours inside the card that is there.

    Args:
        card: of the files, see `ours`.
        theirs: text of the card on the Hub; None where there is none.
        log: lines of the changelog, newest first.
    """
    there = None if theirs is None else read(theirs)
    before, _, rest = ("" if there is None else there.text).partition(BEGIN)
    changes = "\n".join(f"- {line}" for line in log)
    block = f"{BEGIN}\n\n{card.text.strip()}\n\n{LOG}\n\n{changes}\n\n{END}"
    text = "\n\n".join(part for part in (before.strip(), block, rest.partition(END)[2].strip()) if part)
    data = _header(card.data, card.data if there is None else there.data)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def changelog(theirs: str | None) -> list[str]:
    """Lines of the changelog of a card, newest first."""
    block = (theirs or "").partition(BEGIN)[2].partition(END)[0]
    return re.findall(r"^- (.+)$", block.partition(LOG)[2], re.MULTILINE)


def splits(files: Sequence[str]) -> dict[str, Any]:
    """Files by split, as a header names them: "data/train-*" for shards, the file itself where it is no shard."""
    paths: dict[str, str] = {}
    for file in files:
        path = PurePosixPath(file)
        shard = _SHARD.match(path.name)
        split = shard["split"] if shard else path.stem
        paths[split] = str(path.with_name(f"{split}-*" if shard else path.name))
    return {"data_files": [{"split": split, "path": path} for split, path in paths.items()]}


def _left(config: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """A configuration with those of its paths that name any of the files; splits without any are left out."""
    named = config.get("data_files") or []
    entries = [entry for entry in named if isinstance(entry, Mapping)] if isinstance(named, list) else []
    left = []
    for entry in entries:
        paths = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
        found = [path for path in paths if any(PurePosixPath(file).match(path) for file in files)]
        if found:
            left.append({**entry, "path": found[0] if len(found) == 1 else found})
    return {**config, "data_files": left}


def _header(mine: CardData, theirs: CardData) -> CardData:
    """Theirs, with ours where they say nothing, where both list, and where the files decide; configurations of both."""
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    ours, there = mine.to_dict(), theirs.to_dict()
    both = {**ours, **{key: value for key, value in there.items() if key not in (*CONFIGURED, "size_categories")}}
    for key in LISTS:
        if key in ours and key in there:
            listed = [there[key]] if isinstance(there[key], str) else list(there[key])
            both[key] = list(dict.fromkeys([*listed, *ours[key]]))
    data = DatasetCardData(**{key: value for key, value in both.items() if key not in CONFIGURED})
    for kind in (MetadataConfigs, DatasetInfosDict):
        kind({**kind.from_dataset_card_data(theirs), **kind.from_dataset_card_data(mine)}).to_dataset_card_data(data)
    return data
