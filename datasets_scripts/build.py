"""Kept films as a SynthCheX-style dataset: image, filename, prompt, labels_dict in Parquet, with a card, for
`load_dataset`.

synthchex build --images judged --out dataset
synthchex build --images judged --out dataset --split train=0.8 --split validation=0.1 --split test=0.1 --all
python -c "from datasets import load_dataset; print(load_dataset('dataset', split='train')[0])"

Films that are PNG or JPEG go as they are. Interrupted, it goes on; several at once share the work. The card is written
last, from what was counted; text that you put outside its two marks stays.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthchex.data import feeds, making, splits
from synthchex.options import Parser, run

SHARD_ROWS = making.SHARD_ROWS


def parser() -> Parser:
    """The options of `synthchex build`."""
    options = Parser(
        command="build",
        description="Kept films as a SynthCheX-style dataset that load_dataset reads in one line.",
        examples=(
            "synthchex build --images judged --out dataset",
            "synthchex build --images judged --out dataset --split train=0.9 --split test=0.1 --all",
            "synthchex build --images films.csv --out tars --format webdataset --title 'My films'",
        ),
    )
    what = options.add_argument_group("what to build")
    what.add_argument(
        "--images", required=True, help="output of filter or generate, image table, saved dataset or Hub id"
    )
    what.add_argument("--image-dir", help="folder that image names of a table are relative to")
    what.add_argument("--out", required=True, type=Path, help="folder to write")
    what.add_argument("--format", choices=tuple(making.FORMATS), default="parquet", help="of the films")
    what.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help="a split and its share, once for each; no prompt and no patient is in two of them (default train=1)",
    )
    what.add_argument("--all", action="store_true", help="write dropped films and all verdicts too, as config `all`")
    what.add_argument("--shard-rows", type=int, help=f"films per file (default {SHARD_ROWS})")
    card = options.add_argument_group("card")
    card.add_argument("--title", help=f"of the card (default: that of the card there is, else {making.TITLE!r})")
    card.add_argument("--license", help=f"licence identifier of the Hub (default: likewise, else {making.LICENSE})")
    card.add_argument("--license-note", default="", help="sentences on the licences of generator, judge and prompts")
    card.add_argument("--calibration", default=making.UNCALIBRATED, help="what is known of the judge's reliability")
    card.add_argument("--domain", choices=("radiographs", "phantom"), default="radiographs", help="what films imitate")
    card.add_argument("--results", type=Path, help="results.json of `synthchex evaluate`, for the scores")
    card.add_argument("--gate", type=Path, help="gate.json of `synthchex publish`, for the privacy evidence")
    options.add_common()
    return options


def asked(options: Any) -> making.Making:
    """The options as what is to be made."""
    same = ("out", "title", "license", "license_note", "calibration", "domain")
    return making.Making(
        form=options.format,
        shares=splits.parse(options.split),
        everything=options.all,
        shard_rows=SHARD_ROWS if options.shard_rows is None else options.shard_rows,
        results=making.read_json(options.results, "--results"),
        gate=making.read_json(options.gate, "--gate"),
        **{name: getattr(options, name) for name in same},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Count the source, write the films, then the card."""
    options = parser().parse_args(argv)
    what = asked(options)
    made = making.make(feeds.open_feed(options.images, image_dir=options.image_dir), what, quiet=options.quiet)
    if options.json:
        print(json.dumps(making.as_dict(made, what)))
    elif not options.quiet:
        print("\n".join(making.lines(made, what)))


if __name__ == "__main__":
    sys.exit(run(main))
