"""`synthchex evaluate`: any synthetic set against any real one, as a table, results.json and a report."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from synthchex import engines, processes
from synthchex.commands import push_results
from synthchex.data import shards, sources
from synthchex.data.importers import policies
from synthchex.models import classifiers, encoders, store
from synthchex.options import Parser, Progress, run
from synthchex.scores import Networks, Request, Scored, chexgenbench, load_networks, samples, score
from synthchex.scores.request import METRICS, PROTOCOLS

PUBLISHED_NETWORKS = {"encoders": ["inception", "rad-dino"], "image_text": "biovil-t"}
ROLES = ("image", "prompt", "labels", "patient", "id")
INCLUDED = ("privacy", "utility", "report_generation")


def parser() -> Parser:
    """The options of `synthchex evaluate`."""
    options = Parser(
        command="evaluate",
        description="Score a synthetic set against a real one, overall and per label, beside the real-vs-real floor.",
        examples=(
            "synthchex evaluate --real real/ --synthetic synthetic/ --out scores",
            "synthchex evaluate --real real.csv --synthetic films.csv --image-dir real-films/ films/ "
            "--encoder rad-dino inception --image-text biovil-t --out scores",
            "synthchex launch --num-processes 4 evaluate --real real/ --synthetic org/dataset --out scores",
        ),
    )
    _add_sets(options)
    _add_measures(options)
    _add_outputs(options)
    _add_labels(options)
    options.add_common()
    return options


def _add_sets(options: Parser) -> None:
    sets = options.add_argument_group(
        "sets: image folder, .csv/.jsonl/.parquet with an image column, saved dataset, or Hub id"
    )
    sets.add_argument("--real", required=True, help="the reference set")
    sets.add_argument("--synthetic", required=True, help="the set to score")
    add_columns(sets)
    sets.add_argument("--split", default="train", help="split of a saved or Hub dataset (default train)")
    sets.add_argument(
        "--source-policy",
        choices=policies.POLICIES,
        help="where the real films come from; only open ones are shown in the report (default: what the set says)",
    )
    sets.add_argument("--drop-repeated-prompts", action="store_true", help="keep one real film per prompt")


def add_columns(sets: Any, roles: Sequence[str] = ROLES) -> None:
    """How columns and folders of both sets are called, where they have no known name."""
    for role in roles:
        sets.add_argument(
            f"--{role}-column",
            nargs="+",
            metavar="NAME",
            help=f"{role} column where it has no known name; a second name is that of the synthetic set",
        )
    sets.add_argument(
        "--image-dir", nargs="+", metavar="DIR", help="folder of the images of a table; a second one for the synthetic"
    )


def _add_measures(options: Parser) -> None:
    how = options.add_argument_group("how")
    how.add_argument("--out", required=True, type=Path, help="folder for results.json, samples, report and plots")
    how.add_argument(
        "--feature-store", type=Path, help="folder that keeps features, for several evaluations (default OUT/features)"
    )
    how.add_argument(
        "--encoder",
        dest="encoders",
        nargs="+",
        help=f"one or more: name ({', '.join(encoders.ENCODERS)}), Hub id or folder (default {encoders.DEFAULT})",
    )
    how.add_argument(
        "--image-text",
        help=f"for alignment and CMMD: name ({', '.join(encoders.IMAGE_TEXT)}), Hub id or folder",
    )
    how.add_argument(
        "--classifier",
        dest="classifiers",
        nargs="+",
        default=[],
        help=f"for label faithfulness: name ({', '.join(classifiers.CLASSIFIERS)}), Hub id or folder",
    )
    how.add_argument("--metrics", nargs="+", default=list(Request.metrics), help=f"among {', '.join(METRICS)}")
    how.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=Request.protocol,
        help="chexgenbench prepares films as that benchmark does and also writes its CSV files",
    )
    how.add_argument("--nearest-k", type=int, default=Request.nearest_k, help="neighbours of precision, recall, …")
    how.add_argument("--confidence-level", type=float, default=Request.confidence_level, help="of the intervals")
    how.add_argument("--seed", type=int, default=Request.seed, help="of splits and resampling")
    how.add_argument("--batch-size", type=int, default=Request.batch_size, help="films per forward pass")
    how.add_argument("--num-workers", type=int, default=Request.num_workers, help="threads that read films")
    how.add_argument("--device", help="cpu, cuda, …")
    engines.add_options(how)


def _add_outputs(options: Parser) -> None:
    how = options.add_argument_group("report and results")
    how.add_argument("--title", default="Synthetic against real", help="title of the report")
    how.add_argument("--extra-info", default="", help="name of the model in the CSV files of --protocol chexgenbench")
    how.add_argument(
        "--include",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="output of privacy, utility or utility-reports, whose sections the report shows too",
    )
    how.add_argument("--push-results", metavar="MODEL", help="Hub id of the model whose page shows the scores")
    how.add_argument("--benchmark", help="Hub dataset id that pushed scores belong to")
    how.add_argument("--csv-dir", type=Path, help="where those files are appended to (default OUT)")


def _add_labels(options: Parser) -> None:
    labels = options.add_argument_group("labels")
    labels.add_argument("--min-rows", type=int, default=Request.min_rows, help="fewest films of a scored label")
    labels.add_argument("--uncertain", default=Request.uncertain, help="what -1 counts as: ignore, positive, negative")
    labels.add_argument("--adjustment", default=Request.adjustment, help="of p values over the labels: holm or bh")
    labels.add_argument("--alpha", type=float, default=Request.alpha, help="level of the tests")
    labels.add_argument("--draws", type=int, default=Request.draws, help="size-matched draws per label")
    labels.add_argument("--permutations", type=int, default=Request.permutations, help="of each test")
    labels.add_argument("--match-size", type=int, help="films per side at which labels are compared")


def main(argv: Sequence[str] | None = None) -> None:
    """Open both sets, encode them with the other processes, score them, write results and report, print the table."""
    options = parser().parse_args(argv)
    engines.check(options)
    request = requested(options)
    if options.push_results and not options.benchmark:
        raise ValueError("--push-results needs --benchmark, the dataset id that the scores belong to")
    others = included(options.include)
    real, synthetic, joined = open_sets(options)
    networks = load_networks(request)
    kept = options.feature_store or options.out / "features"
    if options.engine == "ray":
        encode_by_ray(options, (real, synthetic), networks, request, kept)
    elif not _encode_together((real, synthetic), networks, request, kept):
        return
    results, report = write(
        real,
        synthetic,
        request,
        options.out,
        kept=kept,
        networks=networks,
        quiet=options.quiet,
        extra={"title": options.title, "join": joined, **others},
        csv=(options.csv_dir or options.out, options.extra_info),
    )
    if options.push_results:
        push_results.push(results, options.push_results, options.benchmark)
    if options.json:
        print(json.dumps({"results": str(options.out / "results.json"), "report": str(report)}))
        return
    from synthchex.report import terminal_table

    print(terminal_table(results))
    print(f"\nnumbers in {options.out / 'results.json'}\n{report.resolve()}")


def requested(options: Any) -> Request:
    """The request that the options make; a protocol brings its own networks where none are named."""
    given = {field.name: getattr(options, field.name) for field in fields(Request) if hasattr(options, field.name)}
    own = policies.source_policy(options.real) if policies.has_rows(Path(options.real)) else None
    if own == "credentialed" and options.source_policy == "open":
        raise ValueError(f"{options.real} says that its films are credentialed, got --source-policy open; leave it out")
    given["source_policy"] = options.source_policy or own
    if given["protocol"] == "chexgenbench":
        given |= {key: value for key, value in PUBLISHED_NETWORKS.items() if given[key] is None}
        if "rad-dino" not in [name.partition(":")[0] for name in given["encoders"]]:
            raise ValueError(
                f"--protocol chexgenbench needs the encoder rad-dino, got {given['encoders']}; its numbers are of it"
            )
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Request(**{key: value for key, value in values.items() if value is not None})


def open_sets(options: Any) -> tuple[sources.ImageSet, sources.ImageSet, dict[str, Any] | None]:
    """Both sets, checked; labels of synthetic rows that have none come from the real rows they join."""
    real, synthetic = (_open(options, side) for side in ("real", "synthetic"))
    if options.drop_repeated_prompts:
        real, _ = sources.drop_repeated_prompts(real)
    joined = sources.join(real, synthetic)
    if joined is None:
        return real, synthetic, None
    if synthetic.labels is None and real.labels is not None:
        synthetic = sources.with_labels(synthetic, real, joined)
    return real, synthetic, {key: value for key, value in joined._asdict().items() if key != "pairs"}


def _open(options: Any, side: Literal["real", "synthetic"]) -> sources.ImageSet:
    source, place = getattr(options, side), ("real", "synthetic").index(side)
    columns = {role: names[min(place, len(names) - 1)] for role in ROLES if (names := _given(options, role))}
    folders = options.image_dir or [None]
    return sources.open_images(
        source,
        columns=columns or None,
        image_dir=folders[min(place, len(folders) - 1)],
        split=options.split,
        side=side,
    )


def _given(options: Any, role: str) -> list[str]:
    names: list[str] = getattr(options, f"{role}_column") or []
    if len(names) > 2:
        raise ValueError(f"--{role}-column takes one name, or one for each set, got {names}")
    return names


def _encode_together(
    sets: tuple[sources.ImageSet, sources.ImageSet], networks: Networks, request: Request, kept: Path
) -> bool:
    """With several processes, encode both sets together; whether this is the process that goes on."""
    if not processes.launched():
        return True
    process = processes.join(request.device)
    for images in sets:
        store.share(images, networks.all, kept, batch_size=request.batch_size, num_workers=request.num_workers)
    return process.is_main


def included(folders: Sequence[Path]) -> dict[str, Any]:
    """What other commands measured of the same synthetic set, by the section that shows it.

    Raises:
        ValueError: a folder without results of such a command, or two of one command.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        path = folder / "results.json"
        results = json.loads(path.read_text()) if path.is_file() else {}
        parts = {name: results[name] for name in INCLUDED if results.get(name)}
        if not parts or set(parts) & set(found):
            raise ValueError(
                f"expected results of privacy, utility or utility-reports in {folder}, each once, got "
                f"{sorted(parts) or 'none'}; give the --out of these commands"
            )
        found |= parts
    return found


def encode_by_ray(
    options: Any, sets: tuple[sources.ImageSet, sources.ImageSet], networks: Networks, request: Request, kept: Path
) -> None:
    """Encode both sets in Ray's workers; the films that the store knows as a whole are left alone."""
    done = [path for images in sets for path in _shares(images, networks, request, kept)[0]]
    left = [number for number, path in enumerate(done) if not path.exists()]
    make = partial(_span_maker, options, kept.absolute())
    with Progress("encode", len(done), done=len(done) - len(left), unit="spans", quiet=options.quiet) as progress:
        found = engines.finished(left, make, workers=options.num_processes, device=options.device)
        for count, _ in enumerate(found, len(done) - len(left) + 1):
            progress.advance(count)


def _span_maker(options: Any, kept: Path) -> Callable[[int], None]:
    """What encodes one span, real ones first, unless it is there or until another process has made it."""
    request = requested(options)
    real, synthetic, _ = open_sets(options)
    networks = load_networks(request)
    shares = [_shares(images, networks, request, kept) for images in (real, synthetic)]
    done = [path for paths, _ in shares for path in paths]
    first = len(shares[0][0])

    def make(number: int) -> None:
        for place in shards.claim_paths({number: done[number]}):
            shares[place >= first][1](place - first if place >= first else place)

    return make


def _shares(
    images: sources.ImageSet, networks: Networks, request: Request, kept: Path
) -> tuple[list[Path], Callable[[int], None]]:
    return store.sharing(images, networks.all, kept, batch_size=request.batch_size, num_workers=request.num_workers)


def write(
    real: sources.ImageSet,
    synthetic: sources.ImageSet,
    request: Request,
    out: Path,
    *,
    kept: Path | None = None,
    networks: Networks | None = None,
    quiet: bool = False,
    rejected: sources.ImageSet | None = None,
    extra: dict[str, Any] | None = None,
    csv: tuple[Path, str] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Score, then write `results.json`, `samples.parquet`, `report.html` and `plots/` into `out`; under the protocol
    chexgenbench also its CSV files into the folder `csv[0]`, as rows of the model `csv[1]`.
    """
    from synthchex.commands.pictures import pictures
    from synthchex.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    scored = score(real, synthetic, request, kept or out / "features", networks=networks, quiet=quiet)
    results = scored.results | {"created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    results |= {"command": shlex.join(["synthchex", *sys.argv[1:]]), **(extra or {})}
    if request.protocol == "chexgenbench":
        results["chexgenbench"] = published_numbers(scored, csv or (out, ""))
    table = samples.table(scored, request)
    shards.write_table(out / "samples.parquet", table)
    shards.write_whole(out / "results.json", json.dumps(results, indent=2).encode() + b"\n")
    return results, write_report(results, out, images=pictures(scored, table, rejected, request))


def published_numbers(scored: Scored, csv: tuple[Path, str]) -> dict[str, Any]:
    """The numbers that CheXGenBench publishes, appended to its CSV files."""
    real, synthetic = scored.real, scored.synthetic
    pairs = {
        name.partition(":")[0]: chexgenbench.Pair(real.features[name], synthetic.features[name])
        for name in real.features
    }
    grouped = chexgenbench.groups(real.prompts, real.labels, synthetic.prompts, rows=(len(real), len(synthetic)))
    rows = chexgenbench.image_rows(pairs.get("inception"), pairs["rad-dino"], grouped)
    chexgenbench.write_image_csv(csv[0], rows, extra_info=csv[1])
    found = {"image": rows}
    if scored.matched is None:
        return found
    aligned = chexgenbench.alignment_rows(scored.matched, grouped)
    chexgenbench.write_alignment_csv(csv[0], aligned, extra_info=csv[1])
    return found | {"alignment": aligned}


if __name__ == "__main__":
    sys.exit(run(main))
