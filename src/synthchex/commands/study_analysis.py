"""`synthchex study analyse` and `synthchex study power`: what the answers of a study say, and how many it needs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthchex.data import shards
from synthchex.maths import readers
from synthchex.options import Parser
from synthchex.study import answers, page, results

SHARES = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


def analyse_parser() -> Parser:
    """The options of `synthchex study analyse`."""
    options = Parser(
        command="study analyse",
        description="Accuracy, AUC, agreement, ratings and equivalence of a reader study, for new readers and films.",
        examples=(
            "synthchex study analyse my-study --out analysis",
            "synthchex study analyse my-study --exclude R2='stopped after ten films' --samples scores/samples.parquet",
        ),
    )
    options.add_argument("study", type=Path, help="folder of `synthchex study new`")
    options.add_argument("--out", type=Path, help="folder for results.json, report and tables (default STUDY/analysis)")
    options.add_argument("--exclude", action="append", default=[], metavar="READER=WHY", help="leave a reader out")
    options.add_argument(
        "--samples",
        metavar="[MODEL=]FILE",
        help="samples.parquet of `synthchex evaluate`: metrics beside opinions; MODEL is the set it is of, where "
        "films of several have the same ids",
    )
    options.add_argument("--confidence-level", type=float, default=0.95, help="of the intervals")
    options.add_common()
    return options


def analyse(argv: Sequence[str] | None = None) -> None:
    """Analyse a study, write results and report, print the summary."""
    options = analyse_parser().parse_args(argv)
    left_out = excluded(options.exclude)
    model, samples = samples_of(options.samples)
    found = results.analyse(
        options.study,
        exclude=left_out,
        samples=samples,
        model=model,
        confidence=options.confidence_level,
    )
    found["created"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    out = options.out or options.study / "analysis"
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    given, truth = answers.table(options.study), answers.truth(options.study)
    texts = {
        "results.json": json.dumps(found, indent=2) + "\n",
        "answers.csv": results.comma_separated(given, truth),
    }
    if "authenticity" in found:
        counted = [row for row in given if row["reader"] not in left_out]
        texts["answers.imrmc"] = results.imrmc(counted, truth, found["study"]["title"])
    for name, text in texts.items():
        shards.write_whole(out / name, text.encode())
    path = page.write(found, out)
    if options.json:
        print(json.dumps({"results": str(out / "results.json"), "report": str(path)}))
        return
    print("\n".join([*page.summary(found), "", f"numbers in {out / 'results.json'}", str(path.resolve())]))


def excluded(given: Sequence[str]) -> dict[str, str]:
    """Readers to leave out, and why.

    Raises:
        ValueError: no reason.
    """
    pairs = [text.partition("=") for text in given]
    if wordless := [name for name, _, why in pairs if not why.strip()]:
        raise ValueError(f"expected --exclude READER=WHY with a reason for the report, got {wordless}")
    return {name: why.strip() for name, _, why in pairs}


def samples_of(given: str | None) -> tuple[str | None, Path | None]:
    """Model and file of "MODEL=FILE"; no model where none is named."""
    if given is None:
        return None, None
    model, equals, path = given.partition("=")
    named = bool(equals and model and path) and "/" not in model and not Path(given).exists()
    return (model, Path(path)) if named else (None, Path(given))


def power_parser() -> Parser:
    """The options of `synthchex study power`."""
    options = Parser(
        command="study power",
        description="How many independent reads a study needs. Reads of several readers, or of one film, are not "
        "independent: three readers of 100 films are worth fewer than 300 reads.",
        examples=("synthchex study power", "synthchex study power --accuracy 0.62 --power 0.9 --margin 0.08"),
    )
    options.add_argument("--accuracy", type=float, nargs="+", default=list(SHARES), help="true accuracies to plan for")
    options.add_argument("--margin", type=float, nargs="+", default=[0.05, 0.1], help="of equivalence with chance")
    options.add_argument("--power", type=float, default=0.8)
    options.add_argument("--alpha", type=float, default=0.05)
    options.add_common()
    return options


def power(argv: Sequence[str] | None = None) -> None:
    """Print the numbers of reads for a difference from chance, and for equivalence with it."""
    options = power_parser().parse_args(argv)
    how: dict[str, Any] = {"power": options.power, "alpha": options.alpha}
    found = {
        "difference": {f"{share:g}": readers.reads_needed(share, **how) for share in options.accuracy},
        "equivalence": {f"{margin:g}": readers.reads_for_equivalence(margin, **how) for margin in options.margin},
    }
    if options.json:
        print(json.dumps(found | how))
        return
    print(f"reads for a power of {options.power:g} at alpha {options.alpha:g}\n")
    print("\n".join(f"  accuracy {share:<6} {reads:>6,}" for share, reads in found["difference"].items()))
    print("\nreads to show that an accuracy of truly 0.5 lies within\n")
    print("\n".join(f"  0.5 ± {margin:<8} {reads:>6,}" for margin, reads in found["equivalence"].items()))
