"""A verdict for every film, by a judge that sees the film and its prompt. Nothing is deleted: dropping happens at
`build`.

    synthchex filter --images films --judge phantom --out judged
    synthchex launch --num-processes 4 filter --images films --judge medgemma --out judged

Films that cannot be read get the drop reason `unreadable-<why>`; every row of the input stands once in the output, with
its quality, the score of each class, the judge's name and the reason for dropping it, if any.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import synthchex
from synthchex import processes
from synthchex.data import images, recipes, records, shards, sources
from synthchex.models import judges
from synthchex.options import Parser, run


def parser() -> Parser:
    """The options of `synthchex filter`."""
    options = Parser(
        command="filter",
        description="A verdict for every film: High, Medium, Low Quality or "
        "Not Relevant, with scores and the reason for dropping.",
        examples=(
            "synthchex filter --images films --judge phantom --out judged",
            "synthchex filter --images films.csv --judge medgemma --keep high --out judged",
            "synthchex launch --num-processes 2 filter --images films --judge phantom --out judged",
        ),
    )
    what = options.add_argument_group("what to judge")
    what.add_argument(
        "--images", required=True, help="output of generate, image folder, table, saved dataset or Hub id"
    )
    what.add_argument("--judge", required=True, help="a YAML, or the name of one in filtering/configs")
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to resume")
    what.add_argument(
        "--keep", choices=("high", "medium"), default="medium", help="lowest quality that is kept (default medium)"
    )
    how = options.add_argument_group("how")
    how.add_argument(
        "--batch-size", type=int, default=32, help="films per forward pass; part of the result (default 32)"
    )
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process; part of the result (default 1)")
    options.add_common()
    return options


def drop_reason(verdict: judges.Verdict, keep: str) -> str | None:
    """None for a film that is kept, else a slug: the judge's own reason, or the class."""
    kept = records.KEPT_QUALITIES[:1] if keep == "high" else records.KEPT_QUALITIES
    if verdict.quality in kept:
        return None
    return verdict.reason or verdict.quality.lower().replace(" ", "_")


def judge_rows(films: sources.ImageSet, span: range, judge: judges.Judge, keep: str) -> list[dict[str, Any]]:
    """Verdict rows of one batch; unreadable films are rows too."""
    rows, readable, pixels = [], [], []
    for index in span:
        row = films.row(index)
        try:
            pixels.append(images.read(films.fetch(index)).pixels)
            row["image"] = {"bytes": images.encoded(films.fetch(index)), "path": row["filename"]}
            readable.append(row)
        except images.UnreadableImage as error:
            row |= {"image": None, "judge": judge.name, "drop_reason": f"unreadable-{error.reason}"}
        rows.append(row)
    verdicts = (
        judge.judge(pixels, [r["prompt"] for r in readable], [r["labels_dict"] for r in readable]) if readable else []
    )
    for row, verdict in zip(readable, verdicts, strict=True):
        scores, reason = judges.scores_text(verdict), drop_reason(verdict, keep)
        row |= {"quality": verdict.quality, "quality_scores": scores, "judge": judge.name, "drop_reason": reason}
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Plan, claim shards until none is left, count the verdicts."""
    options = parser().parse_args(argv)
    if min(options.batch_size, options.threads) < 1:
        raise ValueError("--batch-size and --threads must be at least 1")
    recipe = recipes.read(recipes.find(options.judge, synthchex.room("filtering") / "configs"), judges.JudgeRecipe)
    films = sources.open_images(options.images, missing="count")
    if films.prompts is None:
        raise ValueError(
            f"{options.images} has no prompts: a judge must see what "
            "a film should show; give a table with a prompt column"
        )
    plan = shards.Plan(
        stage="filter",
        source=films.fingerprint(),
        rows=len(films),
        shard_rows=options.batch_size,
        recipe={**recipe.hashed(), "keep": options.keep, "threads": options.threads},
    )
    done = shards.begin(options.out, plan)
    process = processes.join(options.device, threads=options.threads)
    if done < plan.rows:
        judge = judges.load_judge(recipe, rubrics=synthchex.room("filtering") / "prompts", device=process.device)
        shards.fill(
            options.out,
            plan,
            lambda span: judge_rows(films, span, judge, options.keep),
            records.features(verdict=True),
            unit="films",
            quiet=options.quiet or not process.is_main,
        )
    if process.is_main:
        report(options.out, as_json=options.json, quiet=options.quiet)


def report(out: Path, *, as_json: bool, quiet: bool) -> None:
    """Counts per quality and per drop reason."""
    rows = shards.Rows(shards.parquet_files(out))
    quality = Counter(value or "unreadable" for value in rows.column("quality"))
    reasons = Counter(value for value in rows.column("drop_reason") if value)
    counts = {"rows": len(rows), "kept": len(rows) - sum(reasons.values()), "quality": quality, "drop_reasons": reasons}
    if as_json:
        print(json.dumps(counts))
    elif not quiet:
        print(f"kept {counts['kept']} of {len(rows)}; quality {dict(quality)}; dropped {dict(reasons)}")


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    # A launcher's process group is left without a barrier: other processes may still be at work.
    os._exit(code) if "LOCAL_RANK" in os.environ else sys.exit(code)
