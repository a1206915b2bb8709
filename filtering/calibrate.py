"""How far can the filter be believed? Defects and wrong captions are planted in good films, and the judge is asked.

    synthchex calibrate --images real.csv --judge medgemma --films 100 --out calibration
    synthchex calibrate --images real.csv --judge phantom --screen pixels blur chest --encoder phantom --out calibration
    synthchex filter --images films --judge medgemma --calibration calibration --out judged

Writes `calibration.json`, `calibration.md` (a section for the dataset's card), a figure, and every answer in `data/`.
Films must have captions; with labels, captions are negated too. Runs on, like every stage, where it was stopped.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import synthchex
from synthchex import judges, processes, screens
from synthchex.data import images, recipes, records, shards, sources
from synthchex.options import Parser, run
from synthchex.trials import card, findings
from synthchex.trials.cases import Cases, plan

COLUMNS = {
    "id": "string",
    "kind": "string",
    "severity": "int8",
    "expected": "string",
    "quality": "string",
    "keep": "float32",
    "reversed": "string",
    "reason": "string",
    "quality_scores": "string",
}


def parser() -> Parser:
    """The options of `synthchex calibrate`."""
    options = Parser(
        command="calibrate",
        description="The reliability of a judge and of screens, measured on good films with planted defects.",
        examples=(
            "synthchex calibrate --images real.csv --judge medgemma --films 100 --out calibration",
            "synthchex calibrate --images real.csv --judge phantom --screen blur chest --out calibration",
            "synthchex launch --num-processes 4 calibrate --images real.csv --judge medgemma --out calibration",
        ),
    )
    what = options.add_argument_group("what to measure")
    what.add_argument("--images", required=True, help="good films with captions: table, saved dataset or Hub id")
    what.add_argument("--judge", required=True, help="a YAML, or the name of one in filtering/configs")
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to resume")
    what.add_argument("--films", type=int, default=100, help="films that defects are planted in (default 100)")
    what.add_argument("--seed", type=int, default=0, help="of the choice of films and of the defects (default 0)")
    what.add_argument("--precision", type=float, default=0.95, help="that the threshold keeps (default 0.95)")
    what.add_argument("--ratings", type=Path, help="CSV with the column id and one column of classes per reader")
    what.add_argument("--image-dir", help="folder of the images of a table")
    for role in ("image", "prompt", "labels", "patient", "id"):
        what.add_argument(f"--{role}-column", metavar="NAME", help=f"name of the {role} column")
    beside = options.add_argument_group("screens to measure beside the judge")
    beside.add_argument("--screen", nargs="+", default=[], choices=list(screens.NEEDS), help="see synthchex filter")
    beside.add_argument("--reference", help="real films that set limits (default: the films without defects)")
    beside.add_argument("--encoder", help="for the screens chest, mirrored, duplicate and copy")
    beside.add_argument("--classifier", help="for the screen labels")
    beside.add_argument("--false-drops", type=float, default=screens.Means.false_drops, help="default %(default)s")
    how = options.add_argument_group("how")
    how.add_argument("--batch-size", type=int, default=32, help="questions per forward pass; part of the result")
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process; part of the result (default 1)")
    options.add_common()
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Plant, ask, count."""
    options = parser().parse_args(argv)
    if min(options.films, options.batch_size, options.threads) < 1:
        raise ValueError("--films, --batch-size and --threads must be at least 1")
    rooms = synthchex.room("filtering")
    recipe = recipes.read(recipes.find(options.judge, rooms / "configs"), judges.JudgeRecipe)
    named = {role: getattr(options, f"{role}_column") for role in ("image", "prompt", "labels", "patient", "id")}
    columns = {role: name for role, name in named.items() if name}
    films = sources.open_images(options.images, columns=columns, image_dir=options.image_dir)
    cases = plan(films, options.films, options.seed)
    given = read_ratings(options.ratings, films, cases) if options.ratings else None
    todo = shards.Plan(
        "calibrate",
        films.fingerprint(),
        len(cases),
        options.batch_size,
        {**recipe.hashed(), "films": options.films, "seed": options.seed, "threads": options.threads},
    )
    done = shards.begin(options.out, todo)
    process = processes.join(options.device, threads=options.threads)
    if done < todo.rows:
        judge, other = loaded(recipe, rooms / "prompts", process.device)
        asked = cases.as_set()
        shards.fill(
            options.out,
            todo,
            lambda span: answers(asked, cases, span, judge, other),
            features(),
            unit="questions",
            quiet=options.quiet or not process.is_main,
        )
    if process.is_main:
        found = measured(options, films, cases, given)
        write(options.out, found)
        print(json.dumps(found) if options.json else card.section(found), end="")
    return 0


def loaded(recipe: judges.JudgeRecipe, rubrics: Path, device: str | None) -> tuple[judges.Judge, judges.Judge | None]:
    """The judge; and the same with the classes in reverse order, where they are offered in one."""
    judge = judges.load_judge(recipe, rubrics=rubrics, device=device)
    if recipe.judge in ("classifier", "fixed") or recipe.read_out == "published":
        return judge, None
    backwards = replace(recipe, order=tuple(reversed(recipe.order)))
    return judge, judges.load_judge(backwards, rubrics=rubrics, device=device)


def answers(
    asked: sources.ImageSet, cases: Cases, span: range, judge: judges.Judge, other: judges.Judge | None
) -> list[dict[str, Any]]:
    """Rows of one batch of questions."""
    films = [images.read(asked.fetch(number)).pixels for number in span]
    rows = [asked.row(number) for number in span]
    prompts, labels = [row["prompt"] for row in rows], [row["labels_dict"] for row in rows]
    verdicts = judge.judge(films, prompts, labels)
    turned = other.judge(films, prompts, labels) if other is not None else [None] * len(verdicts)
    return [
        {
            "id": row["id"],
            "kind": cases.cases[number].kind,
            "severity": cases.cases[number].severity,
            "expected": cases.cases[number].expected,
            "quality": verdict.quality,
            "keep": keep(verdict),
            "reversed": None if second is None else second.quality,
            "reason": verdict.reason,
            "quality_scores": judges.scores_text(verdict, judge),
        }
        for number, row, verdict, second in zip(span, rows, verdicts, turned, strict=True)
    ]


def keep(verdict: judges.Verdict) -> float | None:
    """Score of being kept: of both classes that are; 0 where the judge drops the film for a reason of its own."""
    if verdict.quality is None:
        return None
    if verdict.reason is not None:
        return 0.0
    return float(sum(verdict.scores[quality] for quality in records.KEPT_QUALITIES))


def features() -> Any:
    """Types of the answers."""
    from datasets import Features, Value

    return Features({name: Value(kind) for name, kind in COLUMNS.items()})


def measured(
    options: Any, films: sources.ImageSet, cases: Cases, given: dict[str, list[str | None]] | None
) -> dict[str, Any]:
    """Findings of all answers, and of the screens."""
    rows = shards.Rows(shards.parquet_files(options.out))
    qualities, turned = rows.column("quality"), rows.column("reversed")
    both = any(one is not None for one in turned)
    flipped = np.array([one != two for one, two in zip(qualities, turned, strict=True)]) if both else None
    scores = np.array([np.nan if one is None else one for one in rows.column("keep")], float)
    screened = screen(options, films, cases) if options.screen else None
    found = findings.findings(
        cases.cases,
        qualities,
        scores,
        dropped_by_screens=None if screened is None else screened.found,
        flipped=flipped,
        precision=options.precision,
    )
    who = next((json.loads(text).get("judged_by") for text in rows.column("quality_scores") if text), None) or {}
    found |= {"judge": who.get("name", options.judge), "judged_by": who, "seed": options.seed, "images": films.source}
    if screened is not None:
        found["screens"] = screened.as_dict()
    if given is not None:
        clean = [quality for case, quality in zip(cases.cases, qualities, strict=True) if case.kind == "clean"]
        found["ratings"] = findings.ratings(given, clean, options.seed)
    return found


def screen(options: Any, films: sources.ImageSet, cases: Cases) -> screens.Screened:
    """The screens on the same cases; limits come from films that no defect is planted in."""
    from synthchex.models import classifiers, encoders

    chosen = {case.row for case in cases.cases}
    owners = films.patients or [str(row) for row in range(len(films))]
    taken = {owners[row] for row in chosen}
    rest = [row for row in range(len(films)) if owners[row] not in taken]
    if options.reference is None and len(rest) < 20:
        raise ValueError(
            f"expected at least 20 films of other patients to set limits by, got {len(rest)} beside the "
            f"{len(chosen)} with defects; lower --films, or give --reference"
        )
    means = screens.Means(
        reference=sources.open_images(options.reference) if options.reference else films.take(rest),
        encoder=encoders.load_encoder(options.encoder, device=options.device) if options.encoder else None,
        classifier=classifiers.load_classifier(options.classifier, device=options.device)
        if options.classifier
        else None,
        false_drops=options.false_drops,
        store=options.out / "features",
        batch_size=options.batch_size,
        quiet=options.quiet,
    )
    return screens.screen(cases.as_set(), options.screen, means)


def read_ratings(path: Path, films: sources.ImageSet, cases: Cases) -> dict[str, list[str | None]]:
    """Classes that people gave the films without defects, by reader.

    Raises:
        ValueError: no id column or no reader, a class that is none of the four, or no film in common.
    """
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    readers = [name for name in (table[0] if table else {}) if name != "id"]
    if not table or "id" not in table[0] or not readers:
        raise ValueError(
            f"{path} must have a column id and one per reader, got {list(table[0]) if table else 'no rows'}"
        )
    wrong = sorted({row[name] for row in table for name in readers if row[name] and row[name] not in records.QUALITIES})
    if wrong:
        raise ValueError(f"classes in {path} must be among {list(records.QUALITIES)} or empty, got {wrong}")
    by_id = {row["id"]: row for row in table}
    rows = sorted({case.row for case in cases.cases})
    if not any(films.ids[row] in by_id for row in rows):
        raise ValueError(f"expected ids of {films.source} in {path}, got none of them; see the column id")
    return {name: [by_id.get(films.ids[row], {}).get(name) or None for row in rows] for name in readers}


def write(out: Path, found: dict[str, Any]) -> None:
    """JSON, a section for a card, and the figure."""
    shards.write_whole(out / "calibration.json", json.dumps(found, indent=2).encode() + b"\n")
    shards.write_whole(out / "calibration.md", card.section(found).encode())
    drawn = card.plot(found)
    if drawn is not None:
        drawn.save(out)


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    # A launcher's process group is left without a barrier: other processes may still be at work.
    os._exit(code) if "LOCAL_RANK" in os.environ else sys.exit(code)
