"""`synthchex utility-reports`: do synthetic films teach a model to write reports as real ones do?"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import synthchex
from synthchex import processes
from synthchex.data import recipes, shards
from synthchex.data.importers import policies
from synthchex.maths.texts import TOKENIZERS
from synthchex.options import Parser, run
from synthchex.utility.reports import cases, labels, results, scoring, units
from synthchex.utility.reports.cases import Cases
from synthchex.utility.reports.recipe import CONFIGS, ReportRecipe, changes

ROLES = ("image", "report", "indication", "patient", "id", "view")


def parser() -> Parser:
    """The options of `synthchex utility-reports`."""
    options = Parser(
        command="utility-reports",
        description="Fine-tune a report writer on real and on synthetic films; compare what both write of real ones. "
        "The same command goes on after a kill. Models are local; no film or report leaves this machine.",
        examples=(
            "synthchex utility-reports --real train.csv --synthetic films/ --test test.csv --recipe llava-rad "
            "--model google/medgemma-4b-it --labeller chexbert --out reports",
            "synthchex utility-reports --real real/ --test-share 0.2 --synthetic films/ --recipe small --model writer "
            "--labeller phantom --percentages 100 --seeds 0 1 2 --out reports",
            "synthchex launch --num-processes 4 utility-reports --real train.csv --test test.csv --recipe llava-rad "
            "--model org/model --out reports",
        ),
    )
    _add_sets(options)
    _add_units(options)
    _add_scores(options)
    _add_how(options)
    group = options.add_argument_group("recipe changes (see docs/utility-reports.md)")
    for name, kind in changes():
        taken: dict[str, Any] = {"nargs": "*"} if kind is tuple else {"type": kind, "metavar": "VALUE"}
        group.add_argument(
            "--" + name.replace("_", "-"), **({"action": argparse.BooleanOptionalAction} if kind is bool else taken)
        )
    options.add_common()
    return options


def _add_sets(options: Parser) -> None:
    sets = options.add_argument_group("sets: table, shards, saved dataset or Hub id, with films and reports")
    sets.add_argument("--real", help="real films to train on")
    sets.add_argument("--synthetic", help="synthetic films to train on; their prompts are their reports")
    sets.add_argument("--test", help="real films to be described, of other patients")
    sets.add_argument("--test-share", type=float, help="share of --real that is kept for testing, by patient")
    for role in ROLES:
        sets.add_argument(
            f"--{role}-column", nargs="+", metavar="NAME", help=f"{role} column; a second for --synthetic"
        )
    sets.add_argument(
        "--image-dir", nargs="+", metavar="DIR", help="folder of a table's images; a second for --synthetic"
    )
    sets.add_argument("--views", nargs="*", default=[], help="keep real films of these views, e.g. AP PA")
    sets.add_argument("--split", default="train", help="split of a saved or Hub dataset (default train)")
    sets.add_argument("--source-policy", choices=policies.POLICIES, help="where films may go (default: as they say)")


def _add_units(options: Parser) -> None:
    what = options.add_argument_group("what to train")
    what.add_argument("--recipe", required=True, help="a YAML, or one of " + ", ".join(sorted(_named())))
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to go on")
    what.add_argument("--percentages", nargs="+", type=float, default=[10, 50, 100], help="of the films (10 50 100)")
    what.add_argument("--seeds", nargs="+", type=int, default=[0], help="of sample, order and adapter (0)")
    what.add_argument(
        "--own-sizes",
        action="store_true",
        help="percentages of each set's own films (default: of the smaller set, so that arms have equally many)",
    )


def _add_scores(options: Parser) -> None:
    scores = options.add_argument_group("scores (BLEU-1, BLEU-4 and ROUGE-L always)")
    scores.add_argument("--labeller", choices=list(labels.LABELLERS), help="for label F1; chexbert needs RadEval")
    scores.add_argument("--radgraph", action="store_true", help="RadGraph F1; needs RadEval")
    scores.add_argument("--tokenizer", choices=TOKENIZERS, default="words", help="of BLEU and ROUGE-L (default words)")
    scores.add_argument(
        "--resamples", type=int, default=scoring.RESAMPLES, help="bootstrap over patients (default 500)"
    )
    scores.add_argument("--confidence-level", type=float, default=0.95, help="of the intervals (default 0.95)")
    scores.add_argument("--csv", metavar="NAME", help="also write CheXGenBench's CSV files of the synthetic arms")


def _add_how(options: Parser) -> None:
    how = options.add_argument_group("how (not part of the result, up to rounding)")
    how.add_argument("--gradient-accumulation-steps", type=int, default=1, help="passes that a step is cut into")
    how.add_argument("--eval-batch-size", type=int, default=8, help="films per pass of writing (default 8)")
    how.add_argument("--checkpointing-steps", type=int, default=0, help="steps between checkpoints (default an epoch)")
    how.add_argument("--keep-models", action="store_true", help="keep what was trained: the model, or its adapter")
    how.add_argument("--num-workers", type=int, default=2, help="threads that read films (default 2)")
    how.add_argument("--report-to", choices=["tensorboard"], help="tracker beside log.jsonl")
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process (default 1)")


def _named() -> list[str]:
    return [path.stem for path in CONFIGS.glob("*.yaml")]


def main(argv: Sequence[str] | None = None) -> int:
    """Open the sets, do every unit that is not done, score them together, write results and report."""
    options = parser().parse_args(argv)
    recipe = read_recipe(options)
    train, test, notes = open_sets(options)
    policy = strictest(options)
    plan = units.plan(list(train), options.percentages, options.seeds)
    check_out(options.out, options.csv)
    process = processes.join(options.device, threads=options.threads)
    check_batches(recipe, process.count, options)
    judge = make_judge(options, test, process.device) if process.is_main else None
    accelerator = make_accelerator(recipe, options, process.device)
    how = units.How(
        accumulation=options.gradient_accumulation_steps,
        eval_batch_size=options.eval_batch_size,
        checkpointing_steps=options.checkpointing_steps,
        num_workers=options.num_workers,
        keep_models=options.keep_models,
        tracked=options.report_to is not None,
        quiet=options.quiet or not process.is_main,
    )
    smallest = min(map(len, train.values()))
    for unit in plan:
        base = len(train[unit.arm]) if options.own_sizes else smallest
        units.run(
            unit, train[unit.arm], test, recipe=recipe, base=base, folder=options.out, accelerator=accelerator, how=how
        )
    if judge is not None:
        told = results.summarise(
            options.out, plan, judge, train, test, recipe, policy=policy, notes=notes, labeller=options.labeller
        )
        write(options, told, sys.argv[1:] if argv is None else argv)
    accelerator.end_training()
    return 0


def read_recipe(options: argparse.Namespace) -> ReportRecipe:
    """The recipe with the changes of the command line."""
    least = (options.gradient_accumulation_steps, options.eval_batch_size, options.threads, options.resamples)
    if min(least) < 1:
        raise ValueError(
            "--gradient-accumulation-steps, --eval-batch-size, --threads and --resamples must be at least 1"
        )
    changed = {name: getattr(options, name) for name, _ in changes()}
    return recipes.read(recipes.find(options.recipe, CONFIGS), ReportRecipe, **changed)


def strictest(options: argparse.Namespace) -> str:
    """Policy of all sets together; what is unknown counts as credentialed."""
    sets = [source for source in (options.real, options.synthetic, options.test) if source]
    found = {policies.stated(source, options.source_policy) for source in sets}
    return next((policy for policy in policies.POLICIES if policy in found), "unknown")


def open_sets(options: argparse.Namespace) -> tuple[dict[str, Cases], Cases, list[str]]:
    """Training sets by arm, the test set, and warnings.

    Raises:
        ValueError: nothing to train on, no test set or two, or a patient or film of it among the training films.
    """
    if not options.real and not options.synthetic:
        raise ValueError("expected --real, --synthetic or both to train on, got neither")
    if (options.test is None) == (options.test_share is None):
        raise ValueError("expected either --test or --test-share, so that writers are tested on other patients")
    if options.test_share is not None and not options.real:
        raise ValueError("--test-share is a share of --real, which is not given; give --test")
    found = {arm: open_one(options, arm, getattr(options, arm)) for arm in units.ARMS if getattr(options, arm)}
    if options.test:
        test = open_one(options, "real", options.test)
    else:
        found["real"], test = cases.split(found["real"], options.test_share)
    notes = [note for arm, one in found.items() for note in cases.check_apart(one, test, arm)]
    notes += cases.check_prompts(found, test)
    for name, one in {**found, "test": test}.items():
        if dropped := sum(map(bool, one.films.provenance.get("drop_reason", ()))):
            notes.append(f"{name}: {dropped} films have a reason to be dropped (column drop_reason) and are used")
        if left := {reason: count for reason, count in one.notes.items() if count}:
            notes.append(f"{name} films left out: {left}")
    return found, test, notes


def open_one(options: argparse.Namespace, side: Any, source: str) -> Cases:
    """One set; second names of columns and folders are those of the synthetic one."""
    place = units.ARMS.index(side)
    given = {role: names for role in ROLES if (names := getattr(options, f"{role}_column"))}
    folders = options.image_dir or [None]
    return cases.open_cases(
        source,
        columns={role: names[min(place, len(names) - 1)] for role, names in given.items()},
        image_dir=folders[min(place, len(folders) - 1)],
        split=options.split,
        side=side,
        views=options.views if side == "real" else (),
        num_workers=options.num_workers,
    )


def check_out(out: Path, csv: str | None = None) -> None:
    """Refuse a folder with the results of another command, and a name of CSV files that no file can have."""
    if csv is not None and Path(csv).name != csv:
        raise ValueError(f"--csv must be a part of a file's name, got {csv!r}; leave out slashes")
    path = out / "results.json"
    if path.exists() and "report_generation" not in json.loads(path.read_text()):
        raise ValueError(f"{path} holds other results, which would be lost; choose another --out")


def check_batches(recipe: ReportRecipe, count: int, options: argparse.Namespace) -> None:
    """Every pass of every process takes equally many films."""
    passes = options.gradient_accumulation_steps
    if recipe.train_batch_size % (count * passes):
        raise ValueError(
            f"train_batch_size must be a multiple of processes x accumulation, got {recipe.train_batch_size} and "
            f"{count} x {passes}; change --train-batch-size or --gradient-accumulation-steps"
        )


def make_judge(options: argparse.Namespace, test: Cases, device: str) -> scoring.Judge:
    """What scores the reports; loaded before the training, so that a missing part costs nothing."""
    return scoring.Judge(
        test.reports,
        test.patients,
        labeller=labels.load(options.labeller, device=device) if options.labeller else None,
        radgraph=labels.load_radgraph() if options.radgraph else None,
        tokenizer=options.tokenizer,
        resamples=options.resamples,
        confidence=options.confidence_level,
    )


def make_accelerator(recipe: ReportRecipe, options: argparse.Namespace, device: str) -> Any:
    """Device, processes, precision and tracker.

    Raises:
        ImportError: the tracker is not installed.
    """
    from accelerate import Accelerator

    if options.report_to:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise ImportError("--report-to tensorboard needs tensorboard: pip install tensorboard") from None
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision=recipe.mixed_precision,
        log_with=options.report_to,
        project_dir=options.out / "tensorboard",
    )


def write(options: argparse.Namespace, told: dict[str, Any], words: Sequence[str]) -> None:
    """`results.json`, `report.html`, the plot, CSV files; the table on the terminal."""
    from synthchex.report import write_report
    from synthchex.report.written import lines

    found = {
        "title": "Report generation",
        "domain": "phantom" if options.labeller == "phantom" else None,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["synthchex", "utility-reports", *words]),
        "versions": {"synthchex": synthchex.__version__},
        "report_generation": told,
    }
    shards.write_whole(options.out / "results.json", json.dumps(found, indent=2).encode() + b"\n")
    report = write_report(found, options.out)
    if options.csv:
        results.write_csv(options.out, told, options.csv)
    if options.json:
        print(json.dumps({"results": str(options.out / "results.json"), "report": str(report)}))
        return
    print("\n".join(lines(told)))
    print(f"\nnumbers in {options.out / 'results.json'}\n{report.resolve()}")


if __name__ == "__main__":
    sys.exit(run(main))
