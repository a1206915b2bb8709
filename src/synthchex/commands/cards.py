"""The card of a published dataset: what `build` wrote, the gate's section and a changelog, inside a card that may have
other authors. Text outside the two marks, and what the header says beyond what follows from the files, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Features
    from huggingface_hub import DatasetCard

BEGIN = "<!-- synthchex publish writes what follows; put your own text above this line or below the last mark -->"
END = "<!-- end of what synthchex publish writes -->"
LOG = "## Changelog"
# Follow from the files, so that an older card must not overrule them.
OF_THE_FILES = ("configs", "dataset_info", "size_categories")
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
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs

    card = read(local)
    held = MetadataConfigs.from_dataset_card_data(card.data)
    for key in ("configs", "dataset_info"):
        card.data.pop(key, None)
    configs = {name: config for name, config in held.items() if _holds(config, files)} or {DEFAULT: splits(files)}
    DatasetInfosDict({name: DatasetInfo(features=features, config_name=name) for name in configs}).to_dataset_card_data(
        card.data
    )
    MetadataConfigs(configs).to_dataset_card_data(card.data)
    body = re.sub(r'load_dataset\("[^"]*"', f'load_dataset("{repo_id}"', card.text.strip())
    card.text = f"{body}\n\n{section.strip()}\n"
    return card


def merged(card: DatasetCard, theirs: str | None, log: Sequence[str]) -> str:
    """The whole text of the card: ours inside the card that is there.

    Args:
        card: of the files, see `ours`.
        theirs: text of the card on the Hub; None where there is none.
        log: lines of the changelog, newest first.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    changes = "\n".join(f"- {line}" for line in log)
    block = f"{BEGIN}\n\n{card.text.strip()}\n\n{LOG}\n\n{changes}\n\n{END}"
    if theirs is None:
        return str(DatasetCard(f"---\n{card.data.to_yaml()}\n---\n\n{block}\n", ignore_metadata_errors=True))
    there = read(theirs)
    data = DatasetCardData(**_header(card.data.to_dict(), there.data.to_dict()), ignore_metadata_errors=True)
    before, _, rest = there.text.partition(BEGIN)
    after = rest.partition(END)[2]
    text = "\n\n".join(part for part in (before.strip(), block, after.strip()) if part)
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


def _holds(config: Mapping[str, Any], files: Sequence[str]) -> bool:
    """Whether every path that a configuration names is among the files."""
    named = config.get("data_files") or []
    paths = [entry["path"] for entry in named if isinstance(entry, Mapping)] if isinstance(named, list) else []
    patterns = [path for entry in paths for path in ([entry] if isinstance(entry, str) else entry)]
    return bool(patterns) and all(any(PurePosixPath(file).match(path) for file in files) for path in patterns)


def _header(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Theirs, with ours where they say nothing, where both list, and where the files decide."""
    both = {**mine, **theirs, **{key: mine[key] for key in OF_THE_FILES if key in mine}}
    for key in LISTS:
        if key in mine and key in theirs:
            listed = [theirs[key]] if isinstance(theirs[key], str) else list(theirs[key])
            both[key] = list(dict.fromkeys([*listed, *mine[key]]))
    return both
