"""What a page of the studio's browser costs the server, on a generated set of small films.

    python benchmarks/studio.py
    python benchmarks/studio.py --films 20000 --pages 20 --keep set/

Measured is everything but HTTP: the filter and its order, thumbnails, the film beside them, and the HTML of both, for
pages at random places that were never shown. Each kind begins with a page whose filter was not asked for before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synthchex import phantom
from synthchex.data import images, records, shards
from synthchex.studio import index, markup
from synthchex.studio.browse import PAGE_ROWS, Browser, Place
from synthchex.studio.index import KEEP, WORST, Filter

DRAWN, SHARDS, SIDE = 500, 10, 64
KINDS = {
    "as stored": Filter(),
    "worst first": Filter(score=KEEP, order=WORST),
    "one label, a range, words, worst first": Filter(
        label="Pleural Effusion", score=KEEP, low=0.2, high=0.8, words="effusion", order=WORST
    ),
}


def main() -> None:
    """Print one row per kind of page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the set, used again where it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.keep or Path(folder) / "set"
        if not source.exists():
            write(source, options.films, options.seed)
        began = time.perf_counter()
        found = index.open_index(str(source))
        print(f"{len(found):,} films opened in {time.perf_counter() - began:.1f} s")
        print("| pages | films let through | first, ms | median, ms | 95 %, ms | most, ms | page, kB |")
        print("|---" * 7 + "|")
        for number, (name, asked) in enumerate(KINDS.items()):
            looked = Browser(found, None, policy="open", cache=Path(folder) / f"cache-{number}")
            spent, size = pages(looked, asked, options.pages, options.seed)
            first, rest = spent[0], np.array(spent[1:])
            cells = [first, np.median(rest), np.percentile(rest, 95), max(spent)]
            print(
                f"| {name} | {len(looked.order(asked)):,} | "
                + " | ".join(f"{1000 * value:.0f}" for value in cells)
                + f" | {size / 1000:.0f} |"
            )


def pages(looked: Browser, asked: Filter, count: int, seed: int) -> tuple[list[float], int]:
    """Seconds of each page, the first with its filter, and the mean length of a page in bytes."""
    looked.thumbs.ahead = lambda rows: None  # type: ignore[method-assign]
    rng, spent, sizes = np.random.default_rng(seed), [], []
    for _ in range(count):
        began = time.perf_counter()
        last = max(len(looked.order(asked)) // PAGE_ROWS, 1)
        place = looked.moved(Place(), asked=asked, number=int(rng.integers(last)) * PAGE_ROWS)
        row = looked.row(place)
        page = markup.grid(looked.page(place), place.number)
        page += "" if row is None else markup.shown(looked.shown(row))
        spent.append(time.perf_counter() - began)
        sizes.append(len(page))
    return spent, round(sum(sizes) / len(sizes))


def write(folder: Path, count: int, seed: int) -> None:
    """A judged set of phantoms, of which the pixels repeat themselves; scores are random."""
    made = phantom.make(DRAWN, size=SIDE, seed=seed)
    pngs = [images.to_png(film) for film in made.images]
    schema = records.features(verdict=True).arrow_schema
    (folder / "data").mkdir(parents=True)
    size = -(-count // SHARDS)
    for shard in range(SHARDS):
        span = range(shard * size, min((shard + 1) * size, count))
        shards.write_tables(shards.shard_path(folder, shard, SHARDS), tables(span, made, pngs, schema, seed), schema)


def tables(span: range, made: Any, pngs: Sequence[bytes], schema: pa.Schema, seed: int) -> Iterator[pa.Table]:
    """Rows of a span, a thousand at a time."""
    for start in range(span.start, span.stop, 1000):
        rng = np.random.default_rng((seed, start))
        yield pa.Table.from_pylist(
            [row(number, made, pngs, rng) for number in range(start, min(start + 1000, span.stop))], schema
        )


def row(number: int, made: Any, pngs: Sequence[bytes], rng: np.random.Generator) -> dict[str, Any]:
    """One film's row."""
    drawn = number % DRAWN
    scores = dict(zip(records.QUALITIES, rng.dirichlet((2, 1, 1, 1)).round(6).tolist(), strict=True))
    quality = max(scores, key=scores.__getitem__)
    name = f"film-{number:08d}"
    return {
        "image": {"bytes": pngs[drawn], "path": f"{name}.png"},
        "filename": f"{name}.png",
        "prompt": made.reports[drawn],
        "labels_dict": dict(zip(records.LABELS, made.labels[drawn].tolist(), strict=True)),
        "id": name,
        "quality": quality,
        "quality_scores": json.dumps(scores),
        "judge": "random",
        "drop_reason": None if quality in records.KEPT_QUALITIES else "low_quality",
        "source_policy": "open",
    }


if __name__ == "__main__":
    main()
