"""A verdict for every film, by a judge that sees the film and its prompt. Nothing is deleted: dropping happens at
`build`.

    synthchex filter --images films --judge phantom --out judged
    synthchex launch --num-processes 4 filter --images films --judge medgemma --out judged
    synthchex filter --images films --judge medgemma --judge lingshu --vote all --out judged
    synthchex filter --images films --judge medgemma --screen pixels blur duplicate --reference real.csv --out judged

Screens come before the judge, who does not look at what they drop; they need real films to set their limits. Films that
cannot be read get the drop reason `unreadable-<why>`, answers that cannot be read `unparsed`; every row of the input
stands once in the output, with its quality, the score of each class, the judge's name and the reason for dropping it,
if any. Films go to a server only where their source policy is open, or where the server is on this machine and
`--allow-local-server` says that it may.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import synthchex
from synthchex import engines, judges, processes, screens
from synthchex.data import images, recipes, records, shards, sources
from synthchex.data.importers import policies
from synthchex.judges import endpoint, panel
from synthchex.judges.audit import audit
from synthchex.options import REFUSED, Parser, run
from synthchex.screens.decisions import Decisions, decide, summary
from synthchex.trials import card

FAILED = "failed-"  # the generator's own reasons begin so


def parser() -> Parser:
    """The options of `synthchex filter`."""
    options = Parser(
        command="filter",
        description="A verdict for every film: High, Medium, Low Quality or "
        "Not Relevant, with scores and the reason for dropping.",
        examples=(
            "synthchex filter --images films --judge phantom --out judged",
            "synthchex filter --images films.csv --judge medgemma --keep high --out judged",
            "synthchex filter --images films --judge medgemma --judge lingshu --vote all --out judged",
            "synthchex filter --images films --judge phantom --screen pixels blur --reference real --out judged",
            "synthchex filter --images films --judge vllm --source-policy open --batch-size 128 --out judged",
            "synthchex launch --num-processes 2 filter --images films --judge phantom --out judged",
            "synthchex filter --engine ray --num-processes 2 --images films --judge phantom --out judged",
        ),
    )
    what = options.add_argument_group("what to judge")
    what.add_argument(
        "--images", required=True, help="output of generate, image folder, table, saved dataset or Hub id"
    )
    what.add_argument(
        "--judge",
        required=True,
        action="append",
        help="a YAML, or the name of one in filtering/configs; may be given several times",
    )
    what.add_argument(
        "--vote",
        choices=panel.VOTES,
        default=panel.VOTES[0],
        help="of several judges: the class with most votes, or the worst class that any gave; ties go to the worse "
        "class (default majority)",
    )
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to resume")
    what.add_argument(
        "--keep", choices=("high", "medium"), default="medium", help="lowest quality that is kept (default medium)"
    )
    what.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="what `synthchex calibrate` wrote: the report cites it"
    )
    _add_screens(options)
    _add_how(options)
    options.add_common()
    return options


def _add_screens(options: Parser) -> None:
    beside = options.add_argument_group("screens before the judge")
    beside.add_argument("--screen", nargs="+", default=[], choices=list(screens.NEEDS), help="what to drop films for")
    beside.add_argument("--reference", help="real films that set the limits: folder, table, saved dataset or Hub id")
    beside.add_argument("--image-dir", help="folder of the images of a table of real films")
    beside.add_argument("--encoder", help="for mirrored, duplicate, copy, and one more measure of chest")
    beside.add_argument("--classifier", help="for labels: another one than the films are evaluated with")
    beside.add_argument("--view-classifier", help="for view: any image classifier with views as its classes")
    beside.add_argument("--views", nargs="+", default=[], help="views that may stay")
    beside.add_argument(
        "--false-drops",
        type=float,
        default=screens.Means.false_drops,
        help="share of real films of new patients that each screen may drop (default %(default)s)",
    )
    beside.add_argument("--feature-store", type=Path, help="folder of features (default: OUT/features)")


def _add_how(options: Parser) -> None:
    how = options.add_argument_group("how")
    how.add_argument(
        "--batch-size", type=int, default=32, help="films per forward pass; part of the result (default 32)"
    )
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process; part of the result (default 1)")
    engines.add_options(how)
    where = options.add_argument_group("where films may go")
    where.add_argument(
        "--source-policy", choices=policies.POLICIES, help="where the rows do not say it (default unknown)"
    )
    where.add_argument(
        "--allow-local-server",
        action="store_true",
        help="send films that are not open to a judge's server, if it is on this machine",
    )


def drop_reason(verdict: judges.Verdict, keep: str) -> str | None:
    """None for a film that is kept, else a slug: the judge's own reason, as there is without a class, or the class."""
    kept = records.KEPT_QUALITIES[:1] if keep == "high" else records.KEPT_QUALITIES
    if verdict.quality in kept:
        return None
    return verdict.reason or str(verdict.quality).lower().replace(" ", "_")


def judge_rows(
    films: sources.ImageSet, span: range, judge: judges.Judge, keep: str, screened: Decisions | None = None
) -> list[dict[str, Any]]:
    """Verdict rows of one batch; unreadable films and those that screens drop are rows too."""
    rows, asked, pixels = [], [], []
    for index in span:
        row = films.row(index) | {"judge": judges.described(judge), "image": None}
        rows.append(row)
        if (row.get("drop_reason") or "").startswith(FAILED):  # of the generator: there is no film to look at
            row["judge"] = None
            continue
        try:
            film = images.read(films.fetch(index)).pixels
        except images.UnreadableImage as error:
            row["drop_reason"] = f"unreadable-{error.reason}"
            continue
        row["image"] = {"bytes": images.encoded(films.fetch(index)), "path": row["filename"]}
        measured = {} if screened is None else {"screens": screened.measured(index)}
        if screened is not None and screened.reasons[index]:
            row |= {"quality_scores": json.dumps(measured), "judge": None, "drop_reason": screened.reasons[index]}
            continue
        asked.append((row, measured))
        pixels.append(film)
    prompts, labels = [row["prompt"] for row, _ in asked], [row["labels_dict"] for row, _ in asked]
    verdicts = judge.judge(pixels, prompts, labels) if asked else []
    for (row, measured), verdict in zip(asked, verdicts, strict=True):
        told = verdict._replace(details={**verdict.details, **measured})
        row |= {"quality": verdict.quality, "quality_scores": judges.scores_text(told, judge)}
        row["drop_reason"] = drop_reason(verdict, keep)
    return rows


def read_recipes(names: Sequence[str]) -> list[judges.JudgeRecipe]:
    """The recipes of the judges; two of one name are refused."""
    configs = synthchex.room("filtering") / "configs"
    found = [recipes.read(recipes.find(name, configs), judges.JudgeRecipe) for name in names]
    if len({recipe.name for recipe in found}) != len(found):
        raise ValueError(f"expected judges with different names, got {[recipe.name for recipe in found]}")
    return found


def decides(asked: Sequence[judges.JudgeRecipe], vote: str) -> dict[str, Any]:
    """What decides the verdicts, for the manifest: a changed rubric is another run."""
    rubrics, found = synthchex.room("filtering") / "prompts", []
    for recipe in asked:
        worded = recipe.judge in ("vlm", "healthgpt", "server")
        text = {"rubric_hash": judges.rubric_hash(judges.read_rubric(recipe.rubric, rubrics))} if worded else {}
        found.append(recipe.hashed() | text)
    return found[0] if len(found) == 1 else {"judges": found, "vote": vote}


def load(asked: Sequence[judges.JudgeRecipe], vote: str, device: str | None) -> judges.Judge:
    """The judge, or several as one that votes."""
    rubrics = synthchex.room("filtering") / "prompts"
    loaded = [judges.load_judge(recipe, rubrics=rubrics, device=device) for recipe in asked]
    return loaded[0] if len(loaded) == 1 else judges.Panel(loaded, vote)


def screening(options: Any) -> dict[str, Any]:
    """What decides the screens, for the manifest; nothing where there are none."""
    if not options.screen:
        return {}
    reference = reference_of(options)
    named = {name: getattr(options, name) for name in ("encoder", "classifier", "view_classifier", "views")}
    return {
        "screens": sorted(options.screen),
        "false_drops": options.false_drops,
        "reference": None if reference is None else reference.fingerprint(),
        **{name: value for name, value in named.items() if value},
    }


def reference_of(options: Any) -> sources.ImageSet | None:
    """The real films that set the limits of screens."""
    return sources.open_images(options.reference, image_dir=options.image_dir) if options.reference else None


def screened(options: Any, films: sources.ImageSet) -> Decisions | None:
    """What the screens decide of every film: made once, by the processes together, and read from the folder."""
    if not options.screen:
        return None
    from synthchex.models import classifiers, encoders

    device = options.device
    means = screens.Means(
        reference=reference_of(options),
        encoder=encoders.load_encoder(options.encoder, device=device) if options.encoder else None,
        classifier=classifiers.load_classifier(options.classifier, device=device) if options.classifier else None,
        view_classifier=classifiers.load_logits(options.view_classifier, device=device)
        if options.view_classifier
        else None,
        views=tuple(options.views),
        false_drops=options.false_drops,
        store=options.feature_store or options.out / "features",
        batch_size=options.batch_size,
        quiet=options.quiet,
    )
    return decide(options.out, films, options.screen, means, together=processes.launched())


def refusal(asked: Sequence[judges.JudgeRecipe], options: Any) -> str | None:
    """Why the films must not be sent to a judge's server, or None."""
    served = [recipe.endpoint() for recipe in asked if recipe.server]
    if not served:
        return None
    policy = policies.stated(options.images, options.source_policy)
    refusals = (endpoint.refusal(one, policy, allow_local=options.allow_local_server) for one in served)
    return next((why for why in refusals if why), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, claim shards until none is left, count the verdicts."""
    options = parser().parse_args(argv)
    if min(options.batch_size, options.threads) < 1:
        raise ValueError("--batch-size and --threads must be at least 1")
    engines.check(options)
    calibrated(options)
    asked = read_recipes(options.judge)
    if why := refusal(asked, options):
        print(f"refused: {why}", file=sys.stderr)
        return REFUSED
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
        recipe={**decides(asked, options.vote), **screening(options), "keep": options.keep, "threads": options.threads},
    )
    done = shards.begin(options.out, plan)
    if options.engine == "ray":
        screened(options, films)
        fill_by_ray(options, asked, plan)
        report(options)
        return 0
    process = processes.join(options.device, threads=options.threads)
    if done < plan.rows:
        decisions = screened(options, films)
        judge = load(asked, options.vote, process.device)
        shards.fill(
            options.out,
            plan,
            lambda span: judge_rows(films, span, judge, options.keep, decisions),
            records.features(verdict=True),
            unit="films",
            quiet=options.quiet or not process.is_main,
        )
    if process.is_main:
        report(options)
    return 0


def fill_by_ray(options: Any, asked: Sequence[judges.JudgeRecipe], plan: shards.Plan) -> None:
    """Make the shards that are missing in Ray's workers."""
    engines.fill(
        options.out,
        plan,
        partial(judging, options, asked, plan.source),
        records.features(verdict=True),
        workers=options.num_processes,
        device=options.device,
        unit="films",
        quiet=options.quiet,
    )


def judging(options: Any, asked: Sequence[judges.JudgeRecipe], source: str) -> engines.Rows:
    """What a worker of Ray judges with: films opened and judge loaded there.

    Raises:
        ValueError: the worker sees other films than the process that planned.
    """
    process = processes.join(options.device, threads=options.threads)
    films = sources.open_images(options.images, missing="count")
    if films.fingerprint() != source:
        raise ValueError(
            f"expected the films of {options.images} that the run began with, got others on this machine or since "
            "then; put them where every machine sees them, and run the command again"
        )
    judge, decisions = load(asked, options.vote, process.device), screened(options, films)
    return lambda span: judge_rows(films, span, judge, options.keep, decisions)


def without_class(reason: str) -> str:
    """What to count a row as that has no quality."""
    if reason in screens.REASONS or reason.startswith(FAILED):
        return "failed" if reason.startswith(FAILED) else "screened"
    return "unreadable" if reason.startswith("unreadable") else "unanswered"


def report(options: Any) -> None:
    """Counts per quality and per drop reason, over all films and per label; what is known of judge and screens."""
    rows = shards.Rows(shards.parquet_files(options.out))
    each = rows.column("drop_reason")
    reasons = Counter(value for value in each if value)
    quality = Counter(value or without_class(why) for value, why in zip(rows.column("quality"), each, strict=True))
    counts = {"rows": len(rows), "kept": len(rows) - sum(reasons.values()), "quality": quality, "drop_reasons": reasons}
    found = audit(rows.column("quality_scores"))
    told: dict[str, Any] = {"judges": found, "by_label": by_label(options.out), "screens": summary(options.out)}
    told["calibration"] = calibrated(options)
    shards.write_whole(options.out / "report.json", json.dumps(counts | told, indent=2).encode() + b"\n")
    if options.json:
        print(json.dumps(counts | told))
    elif not options.quiet:
        print(f"kept {counts['kept']} of {len(rows)}; quality {dict(quality)}; dropped {dict(reasons)}")
        print("\n".join(f"{name}: {value}" for name, value in found.items()), end="\n" if found else "")
        print(f"reliability: {told['calibration']}\nper label: {options.out / 'report.json'}")


def by_label(folder: Path) -> dict[str, dict[str, int]]:
    """Of the films that are to show each label: how many are kept, and how many are dropped for each reason."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: dict[str, Counter[str]] = {label: Counter() for label in records.LABELS}
    for path in shards.parquet_files(folder):
        table = pq.read_table(path, columns=["labels_dict", "drop_reason"])
        for label, counts in found.items():
            shown = pc.equal(pc.struct_field(table["labels_dict"], label), 1)
            for one in pc.value_counts(table["drop_reason"].filter(shown)).to_pylist():
                counts[one["values"] or "kept"] += one["counts"]
    return {label: dict(counts) for label, counts in found.items() if counts}


def calibrated(options: Any) -> str:
    """What is known of the judge's reliability, in a sentence."""
    if options.calibration is None:
        return "uncalibrated; see `synthchex calibrate`"
    path = options.calibration / "calibration.json"
    if not path.is_file():
        raise ValueError(f"expected calibration.json in {options.calibration}, got none; run `synthchex calibrate`")
    return card.sentence(json.loads(path.read_text()))


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    # A launcher's process group is left without a barrier: other processes may still be at work.
    os._exit(code) if "LOCAL_RANK" in os.environ else sys.exit(code)
