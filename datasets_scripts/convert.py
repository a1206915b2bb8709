"""A published dataset that `load_dataset` refuses or shows badly, in the layout that it reads everywhere.

synthchex convert SynthCheX-75K --out dataset              # a zip of images, a table, a loading script
synthchex convert SynthCheX-75K-v2 --out dataset --columns prompt=label    # images as arrays
synthchex convert raman07/SynthCheX-75K --out dataset      # downloaded first, from the Hub

Films that are PNG or JPEG go as they are; arrays and other files become PNG with the same pixels. Rows whose film
cannot be read are left out, counted and named. Interrupted, it goes on.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthchex.data import feeds, making, published, shards, splits, tables
from synthchex.gate import identifiers
from synthchex.options import Parser, run

REPORT = "conversion.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WANTED = ("*.zip", "*.csv", "*.tsv", "*.jsonl", "*.parquet")
ROLES = ("image", "prompt", "labels", "patient")


def parser() -> Parser:
    """The options of `synthchex convert`."""
    options = Parser(
        command="convert",
        description="A published dataset with a loading script, or with images as arrays, as Parquet with images.",
        examples=(
            "synthchex convert SynthCheX-75K --out dataset",
            "synthchex convert raman07/SynthCheX-75K-v2 --out dataset --columns prompt=label",
            "synthchex convert ALL_FILES.zip --out dataset --split train=0.9 --split test=0.1",
        ),
    )
    options.add_argument("source", help="folder, zip, or Hub id of the dataset, which is downloaded first")
    options.add_argument("--out", required=True, type=Path, help="folder to write")
    options.add_argument("--revision", help="commit, tag or branch of a Hub dataset")
    options.add_argument("--columns", nargs="+", default=[], metavar="ROLE=NAME", help=f"columns: {', '.join(ROLES)}")
    options.add_argument("--format", choices=tuple(making.FORMATS), default="parquet", help="of the films")
    options.add_argument("--split", action="append", default=[], metavar="NAME=SHARE", help="as of synthchex build")
    options.add_argument("--all", action="store_true", help="write dropped films and all verdicts too, as config `all`")
    options.add_argument("--shard-rows", type=int, default=making.SHARD_ROWS, help="films per file")
    options.add_argument("--title", help=f"of the card (default {making.TITLE!r})")
    options.add_argument("--license", help=f"licence identifier of the Hub (default {making.LICENSE})")
    options.add_argument("--license-note", default="", help="sentences on the licences of what the films come from")
    options.add_common()
    return options


def local(source: str, revision: str | None) -> Path:
    """Where a dataset lies on this machine; one on the Hub is downloaded into its cache.

    Raises:
        ValueError: neither there nor a Hub id.
    """
    if Path(source).exists():
        return Path(source)
    if not HUB_ID.fullmatch(source):
        raise ValueError(f"expected a folder, zip or Hub id, got {source!r}, which is not there; check the path")
    from huggingface_hub import snapshot_download

    kept = snapshot_download(source, repo_type="dataset", revision=revision, allow_patterns=list(WANTED))
    return Path(kept)


def roles(words: Sequence[str]) -> dict[str, str]:
    """Columns by role from words such as "prompt=label".

    Raises:
        ValueError: not ROLE=NAME, or another role.
    """
    pairs = dict(word.partition("=")[::2] for word in words)
    if any(role not in ROLES or not name for role, name in pairs.items()):
        raise ValueError(f"--columns must be ROLE=NAME with roles {list(ROLES)}, got {list(words)}")
    return pairs


def named(feed: feeds.Feed) -> Counter[str]:
    """Kinds of identifiers of real patients in the names of the films, with the number of films."""
    names = (name or "" for table in feed.facts(["filename"]) for name in table["filename"].to_pylist())
    return Counter(identifiers.count(map(tables.film_stem, names), strong=True))


def lines(report: dict[str, Any]) -> list[str]:
    """What the reader must know of the conversion beyond its counts."""
    found = [f"{note}: {count}" for note, count in report["notes"].items()]
    if report["identifiers"]:
        kinds = ", ".join(f"{kind} ({count} films)" for kind, count in report["identifiers"].items())
        found.append(f"names are identifiers of real films: {kinds}; synthchex publish replaces them by random ones")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Open what was published, write it anew, report."""
    options = parser().parse_args(argv)
    same = ("out", "shard_rows", "title", "license", "license_note")
    what = making.Making(
        form=options.format,
        shares=splits.parse(options.split),
        everything=options.all,
        **{name: getattr(options, name) for name in same},
    )
    columns = roles(options.columns)
    feed = published.open_published(local(options.source, options.revision), columns=columns)
    made = making.make(feed, what, quiet=options.quiet)
    report = {
        **making.as_dict(made, what),
        "source": Path(feed.source).name,
        "notes": dict(feed.notes),
        "identifiers": dict(named(feed)),
    }
    del report["out"]
    shards.write_whole(what.out / REPORT, json.dumps(report, indent=2).encode() + b"\n")
    if options.json:
        print(json.dumps({**report, "out": str(options.out)}))
    elif not options.quiet:
        print("\n".join([*making.lines(made, what), *lines(report), f"report in {options.out / REPORT}"]))


if __name__ == "__main__":
    sys.exit(run(main))
