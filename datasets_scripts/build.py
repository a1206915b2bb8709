"""Kept films as a SynthCheX-style dataset: image, filename, prompt, labels_dict in Parquet, with a card, for
`load_dataset`.

synthchex build --images judged --out dataset
python -c "from datasets import load_dataset; print(load_dataset('dataset', split='train')[0])"
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import synthchex
from synthchex.data import images, records, shards, sources
from synthchex.options import Parser, run

SHARD_ROWS = 1000
PHANTOM_NOTE = (
    "They show procedural phantoms, a simulation: nothing here "
    "resembles a patient's film closely enough to learn medicine from."
)


def parser() -> Parser:
    """The options of `synthchex build`."""
    options = Parser(
        command="build",
        description="Kept films as a SynthCheX-style dataset that load_dataset reads in one line.",
        examples=(
            "synthchex build --images judged --out dataset",
            "synthchex build --images films.csv --out dataset --title 'My films'",
        ),
    )
    what = options.add_argument_group("what to build")
    what.add_argument(
        "--images", required=True, help="output of filter or generate, image table, saved dataset or Hub id"
    )
    what.add_argument("--out", required=True, type=Path, help="folder to write")
    what.add_argument("--title", default="Synthetic chest radiographs", help="title of the card")
    what.add_argument("--license", default="apache-2.0", help="licence identifier for the card (default apache-2.0)")
    what.add_argument(
        "--calibration", default="the judge is uncalibrated", help="what is known of the judge's reliability"
    )
    what.add_argument(
        "--domain", choices=("radiographs", "phantom"), default="radiographs", help="what the films imitate"
    )
    options.add_common()
    return options


def record(films: sources.ImageSet, index: int) -> dict[str, Any]:
    """One row: the four columns that users of SynthCheX-75K know."""
    row = films.row(index)
    image = {"bytes": images.encoded(films.fetch(index)), "path": row["filename"]}
    return {"image": image, "filename": row["filename"], "prompt": row["prompt"], "labels_dict": row["labels_dict"]}


def kept_rows(films: sources.ImageSet) -> list[int]:
    """Rows without a drop reason; all of them where nothing was judged."""
    reasons = films.provenance.get("drop_reason", [None] * len(films))
    return [index for index, reason in enumerate(reasons) if not reason]


def card(options: Any, films: sources.ImageSet, kept: Sequence[int]) -> str:
    """The dataset card, with the configuration and types that make every version of `datasets` read the same."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(
        license=options.license,
        pretty_name=options.title,
        task_categories=["text-to-image", "image-classification"],
        tags=[
            "medical",
            "synthetic",
            "chest-x-ray",
            "radiology",
            *(["phantom"] if options.domain == "phantom" else []),
        ],
        size_categories=[size_category(len(kept))],
    )
    DatasetInfosDict({"default": DatasetInfo(features=records.features(provenance=False))}).to_dataset_card_data(data)
    MetadataConfigs({"default": {"data_files": [{"split": "train", "path": "data/train-*"}]}}).to_dataset_card_data(
        data
    )
    reasons = Counter(reason for reason in films.provenance.get("drop_reason", ()) if reason)
    filled = DatasetCard.from_template(
        data,
        template_path=str(synthchex.room("datasets_scripts") / "dataset_card.md"),
        title=options.title,
        domain_note=PHANTOM_NOTE if options.domain == "phantom" else "",
        rows=len(kept),
        generator=_one(films, "model"),
        judge=_one(films, "judge"),
        kept_note=f"{len(kept)} of {len(films)}",
        versions=_one(films, "versions"),
        load_path=options.out.name,
        label_rows="\n".join(label_row(films, kept, column) for column in range(len(records.LABELS))),
        drop_rows="\n".join(f"- `{reason}`: {count}" for reason, count in reasons.most_common())
        or "Nothing was dropped.",
        calibration=options.calibration,
    )
    return str(filled)


def label_row(films: sources.ImageSet, kept: Sequence[int], column: int) -> str:
    """One line of the card's label table."""
    states = [films.row(index)["labels_dict"][records.LABELS[column]] for index in kept]
    return f"| {records.LABELS[column]} | " + " | ".join(str(states.count(state)) for state in records.STATES) + " |"


def size_category(rows: int) -> str:
    """The Hub's size tag."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def _one(films: sources.ImageSet, column: str) -> str:
    """The values of a provenance column, each once."""
    return ", ".join(dict.fromkeys(str(value) for value in films.provenance.get(column, ()) if value)) or "unknown"


def main(argv: Sequence[str] | None = None) -> None:
    """Write shards of the kept rows, then the card."""
    options = parser().parse_args(argv)
    films = sources.open_images(options.images)
    kept = kept_rows(films)
    if films.prompts is None:
        raise ValueError(f"{options.images} has no prompts; a SynthCheX-style dataset needs one for every film")
    plan = shards.Plan(
        "build", films.fingerprint(), len(kept), SHARD_ROWS, {"title": options.title, "license": options.license}
    )
    shards.begin(options.out, plan)
    shards.fill(
        options.out,
        plan,
        lambda span: [record(films, kept[index]) for index in span],
        records.features(provenance=False),
        unit="films",
        quiet=options.quiet,
    )
    shards.write_whole(options.out / "README.md", card(options, films, kept).encode())
    if options.json:
        print(json.dumps({"rows": len(kept), "of": len(films), "out": str(options.out)}))
    elif not options.quiet:
        print(f"{len(kept)} of {len(films)} films in {options.out}; load_dataset({str(options.out)!r}) reads them")


if __name__ == "__main__":
    sys.exit(run(main))
