"""The embedded phantom domain as data: procedural chest films with reports and labels, or reports alone as prompts.

synthchex phantom --count 1024 --seed 1 --out real
synthchex phantom --count 256 --seed 0 --prompts-only --out prompts
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthchex import phantom
from synthchex.data import images, records, shards
from synthchex.options import Parser, run

SHARD_ROWS = 128


OPEN = {records.SOURCE_POLICY: "open"}  # a simulation has no patients


def parser() -> Parser:
    """The options of `synthchex phantom`."""
    options = Parser(
        command="phantom",
        description="Procedural chest films of the embedded domain (a simulation), or their reports alone as prompts.",
        examples=(
            "synthchex phantom --count 1024 --seed 1 --out real",
            "synthchex phantom --count 256 --prompts-only --out prompts",
        ),
    )
    what = options.add_argument_group("what to make")
    what.add_argument("--count", type=int, required=True, help="number of films or prompts")
    what.add_argument("--out", type=Path, required=True, help="folder to write")
    what.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    what.add_argument("--size", type=int, default=64, help="width and height in pixels (default 64)")
    what.add_argument("--prompts-only", action="store_true", help="reports and labels, no films")
    what.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="only reports whose present labels are all among these"
    )
    options.add_common()
    return options


def prompt_rows(count: int, seed: int, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """Rows of reports, drawn until `count` are found that mention no label outside `labels`."""
    rows: list[dict[str, Any]] = []
    draw = 0
    wanted = np.array([labels is None or label in labels for label in records.LABELS])
    while len(rows) < count:
        reports, states = phantom.write_reports(max(count, 64), seed=records.row_seed(seed, "prompts", draw))
        fits = [(text, row) for text, row in zip(reports, states, strict=True) if not (row[~wanted] == 1).any()]
        rows += [{"prompt": text, "labels_dict": as_labels(row)} for text, row in fits]
        draw += 1
        if draw > 1000:
            raise ValueError(
                f"expected reports within the labels {labels}, found {len(rows)} of {count}; name more labels"
            )
    return [
        {"id": f"phantom-{seed}-{index:06d}", "filename": f"phantom-{seed}-{index:06d}.png", **row, **OPEN}
        for index, row in enumerate(rows[:count])
    ]


def film_rows(span: range, seed: int, size: int) -> list[dict[str, Any]]:
    """Rows of the films of one shard; they depend on the seed and the shard's first row alone."""
    made = phantom.make(len(span), size=size, seed=records.row_seed(seed, "films", span.start))
    rows = []
    for index, film, states, report in zip(span, made.images, made.labels, made.reports, strict=True):
        name = f"phantom-{seed}-{index:06d}"
        image = {"bytes": images.to_png(film), "path": f"{name}.png"}
        rows.append(
            {"id": name, "filename": f"{name}.png", "image": image, "prompt": report, "labels_dict": as_labels(states)}
            | OPEN
        )
    return rows


def as_labels(states: np.ndarray) -> dict[str, int | None]:
    """One row of label states by name."""
    return records.labels_dict(dict(zip(records.LABELS, map(int, states), strict=True)))


def main(argv: Sequence[str] | None = None) -> None:
    """Plan and write shards."""
    options = parser().parse_args(argv)
    if options.labels and (unknown := sorted(set(options.labels) - set(records.LABELS))):
        raise ValueError(f"--labels must be among {list(records.LABELS)}, got {unknown}")
    recipe = {
        "seed": options.seed,
        "size": options.size,
        "prompts_only": options.prompts_only,
        "labels": options.labels,
    }
    plan = shards.Plan("phantom", "procedural", options.count, SHARD_ROWS, recipe)
    shards.begin(options.out, plan)
    features = records.features()
    if options.prompts_only:
        del features["image"]
        prompts = prompt_rows(options.count, options.seed, options.labels)
        shards.fill(
            options.out, plan, lambda span: [prompts[i] for i in span], features, unit="prompts", quiet=options.quiet
        )
    else:
        rows = partial(film_rows, seed=options.seed, size=options.size)
        shards.fill(options.out, plan, rows, features, unit="films", quiet=options.quiet)
    if options.json:
        print(json.dumps({"rows": plan.rows, "out": str(options.out)}))


if __name__ == "__main__":
    sys.exit(run(main))
