"""`synthchex utility`: what training a classifier on synthetic films is worth, beside training on real ones."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from synthchex.commands import evaluation
from synthchex.data import shards, sources
from synthchex.data.importers import policies
from synthchex.options import Parser, run
from synthchex.utility.request import ARMS, PRESETS, Request, Training

ROLES = ("image", "prompt", "labels", "patient", "id", "view")
SCHEMA = 1


def parser() -> Parser:
    """The options of `synthchex utility`."""
    options = Parser(
        command="utility",
        description="Train classifiers on real films, on synthetic ones and on both, and try all of them on the same "
        "real films: TRTR, TSTR, TRTS, mix curves, pretraining. Splits are by patient; every number has an interval.",
        examples=(
            "synthchex utility --real train/ --synthetic films/ --test test/ --out utility",
            "synthchex utility --real train.csv --synthetic films/ --external-test nih=nih/ --encoder rad-dino "
            "--max-real 500 --mix 0.5 1 2 4 --out utility",
            "synthchex utility --real train/ --synthetic films/ --backbone microsoft/rad-dino --bf16 --preset "
            "chexgenbench --out utility",
        ),
    )
    _add_sets(options)
    _add_study(options)
    _add_training(options)
    options.add_common()
    return options


def _add_sets(options: Parser) -> None:
    sets = options.add_argument_group("sets: table with images and labels, folder of shards, saved dataset, or Hub id")
    sets.add_argument("--real", required=True, help="real films to train on")
    sets.add_argument(
        "--synthetic", required=True, help="synthetic films; their labels, or ids or prompts of real ones"
    )
    sets.add_argument("--test", help="real films to test on (default: a share of the patients of --real)")
    sets.add_argument(
        "--external-test", nargs="+", default=[], metavar="NAME=SET", help="further test sets, e.g. of other hospitals"
    )
    evaluation.add_columns(sets, ROLES)
    sets.add_argument("--split", default="train", help="split of --real, --synthetic and --test (default train)")
    sets.add_argument("--test-split", help="split of the test sets, where it is another one")
    sets.add_argument(
        "--source-policy",
        choices=policies.POLICIES,
        help="where the real films come from; predictions of single films are written for open ones only",
    )


def _add_study(options: Parser) -> None:
    how = options.add_argument_group("study")
    how.add_argument("--out", required=True, type=Path, help="folder for results.json, report, plots and finished runs")
    how.add_argument("--arms", nargs="+", default=list(ARMS), metavar="ARM", help=f"among {', '.join(ARMS)}")
    how.add_argument(
        "--preset", choices=list(PRESETS), help="settings of a benchmark in place of --arms: " + str(dict(PRESETS))
    )
    how.add_argument("--mix", nargs="+", type=float, default=list(Request.mix), help="synthetic films per real film")
    how.add_argument("--max-real", type=int, help="real training films at most: what if real films are scarce")
    how.add_argument(
        "--seeds", type=int, default=Request.seeds, help="repeats with other splits and starts (default 3)"
    )
    how.add_argument("--seed", type=int, default=Request.seed, help="of all seeds")
    how.add_argument(
        "--encoder", default=Request.encoder, help="frozen features for the linear probe (default rad-dino)"
    )
    how.add_argument("--feature-store", type=Path, help="folder that keeps features (default OUT/features)")
    how.add_argument("--test-share", type=float, default=Request.test_share, help="of the patients, without --test")
    how.add_argument("--validation-share", type=float, default=Request.validation_share, help="of the training films")
    how.add_argument("--uncertain", default=Request.uncertain, help="what -1 counts as: ignore, positive, negative")
    how.add_argument("--not-mentioned", default=Request.not_mentioned, help="what an empty label counts as: the same")
    how.add_argument(
        "--min-rows", type=int, default=Request.min_rows, help="fewest test films with and without a label"
    )
    how.add_argument("--resamples", type=int, default=Request.resamples, help="bootstrap draws of patients")
    how.add_argument("--confidence-level", type=float, default=Request.confidence_level, help="of the intervals")
    how.add_argument("--alpha", type=float, default=Request.alpha, help="level of the tests")
    how.add_argument("--age-bands", nargs="+", type=float, default=list(Request.age_bands), help="edges, in years")
    how.add_argument("--batch-size", type=int, default=Request.batch_size, help="films per forward pass")
    how.add_argument("--num-workers", type=int, default=Request.num_workers, help="threads that read films")
    how.add_argument("--device", help="cpu, cuda, …")
    how.add_argument("--domain", choices=("radiographs", "phantom"), help="phantom says so on every plot")
    how.add_argument("--title", default="What the synthetic films are worth", help="title of the report")
    how.add_argument("--extra-info", default="synthetic", help="name of the generator in the files of a preset")


def _add_training(options: Parser) -> None:
    how = options.add_argument_group("fine-tuning, in place of the linear probe")
    how.add_argument("--backbone", help="Hub id or folder of an image network of transformers, or of timm")
    how.add_argument("--num-train-epochs", type=int, default=Training.num_train_epochs, help="at most")
    how.add_argument("--learning-rate", type=float, default=Training.learning_rate)
    how.add_argument("--weight-decay", type=float, default=Training.weight_decay)
    how.add_argument("--warmup-ratio", type=float, default=Training.warmup_ratio, help="share of all steps")
    how.add_argument("--train-batch-size", type=int, default=Training.train_batch_size)
    how.add_argument("--patience", type=int, default=Training.patience, help="epochs without a lower validation loss")
    how.add_argument("--bf16", action="store_true", help="train in bfloat16")
    how.add_argument("--image-size", type=int, help="side of the films in pixels (default: the network's own)")
    how.add_argument("--rotation", type=float, default=Training.rotation, help="degrees at most, either way")
    how.add_argument("--translation", type=float, default=Training.translation, help="share of a side at most")
    how.add_argument("--exposure", type=float, default=Training.exposure, help="brightness and contrast at most")
    how.add_argument("--report-to", choices=("tensorboard",), help="where losses are sent")


def main(argv: Sequence[str] | None = None) -> None:
    """Open the sets, train and try every arm, write results and report, print the table."""
    options = parser().parse_args(argv)
    request = requested(options)
    opened = open_sets(options)
    results, report = write(opened, request, options)
    if options.json:
        print(json.dumps({"results": str(options.out / "results.json"), "report": str(report)}))
        return
    print("\n".join(lines(results["utility"]["classification"])))
    print(f"\nnumbers in {options.out / 'results.json'}\n{report.resolve()}")


def requested(options: Any) -> Request:
    """The request that the options make; the strictest policy of the real sets counts."""
    if Path(options.extra_info).name != options.extra_info:
        raise ValueError(f"--extra-info must be a part of a file's name, got {options.extra_info!r}; leave out slashes")
    stated = [policies.stated(path, options.source_policy) for path in [options.real, *_tests(options).values()]]
    policy = next(one for one in policies.POLICIES if one in stated)
    given = {field.name: getattr(options, field.name) for field in fields(Request) if hasattr(options, field.name)}
    given["training"] = Training(**{field.name: getattr(options, field.name) for field in fields(Training)})
    phantom = options.encoder.partition(":")[0] == "phantom" and options.backbone is None
    given |= {"source_policy": policy, "domain": options.domain or ("phantom" if phantom else "radiographs")}
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Request(**values)


def _tests(options: Any) -> dict[str, str]:
    """Test sets by name."""
    found = {"test": options.test} if options.test else {}
    for word in options.external_test:
        name, equals, source = word.partition("=")
        if not equals or not name or not source or name in {*found, "real", "synthetic", "test"}:
            raise ValueError(
                f"--external-test must be NAME=SET, each name once and none of real, synthetic, test, got {word!r}"
            )
        found[name] = source
    return found


def open_sets(options: Any) -> dict[str, sources.ImageSet]:
    """Real, synthetic and test sets by name."""
    wanted = {"real": options.real, "synthetic": options.synthetic, **_tests(options)}
    found = {}
    for name, source in wanted.items():
        place = int(name == "synthetic")
        given = {role: getattr(options, f"{role}_column") for role in ROLES if getattr(options, f"{role}_column")}
        columns = {role: names[min(place, len(names) - 1)] for role, names in given.items()}
        folders = options.image_dir or [None]
        found[name] = sources.open_images(
            source,
            columns=columns or None,
            image_dir=folders[min(place, len(folders) - 1)],
            split=_split(options, name),
            side="synthetic" if place else "real",
        )
    return found


def _split(options: Any, name: str) -> str:
    return str(options.split if name in ("real", "synthetic") else options.test_split or options.split)


def write(opened: Mapping[str, sources.ImageSet], request: Request, options: Any) -> tuple[dict[str, Any], Path]:
    """Study, then `results.json`, `predictions.parquet` for open films, `report.html` and `plots/` into `--out`."""
    from synthchex.report import write_report
    from synthchex.utility import published
    from synthchex.utility.classification import classification
    from synthchex.utility.subgroups import people

    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    shown = {"real": options.real, **_tests(options)}
    study = classification(
        opened["real"],
        opened["synthetic"],
        request,
        test=opened.get("test"),
        external={name: one for name, one in opened.items() if name not in ("real", "synthetic", "test")},
        people={name: people(source, split=_split(options, name)) for name, source in shown.items()},
        store=options.feature_store or out / "features",
        work=out / "runs",
        quiet=options.quiet,
    )
    predictions = study.pop("predictions")
    path = out / "predictions.parquet"
    path.unlink(missing_ok=True)  # of an earlier run
    if request.source_policy == "open":
        shards.write_table(path, published.predictions_table(predictions))
    if request.preset == "chexgenbench":
        published.write_csv(out / "chexgenbench", study, predictions, extra_info=options.extra_info)
    results = document(study, request, options)
    shards.write_whole(out / "results.json", json.dumps(results, indent=2).encode() + b"\n")
    return results, write_report(results, out)


def document(study: Mapping[str, Any], request: Request, options: Any) -> dict[str, Any]:
    """All of `results.json`; what every report has stands outside `utility`."""
    policy = {"synthetic": "synthetic"}
    return {
        "schema_version": SCHEMA,
        "title": options.title,
        "domain": request.domain,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["synthchex", *sys.argv[1:]]),
        "sets": {
            one["name"]: {key: one[key] for key in ("source", "n", "patients", "skipped", "notes")}
            | {"policy": policy.get(one["name"], request.source_policy)}
            for one in study["sets"]
        },
        "utility": {"classification": dict(study)},
        **{key: study[key] for key in ("warnings", "methods", "citations", "versions", "config")},
    }


def lines(study: Mapping[str, Any]) -> list[str]:
    """The table on the terminal."""
    titles = {arm["arm"]: arm["title"] for arm in study["arms"]}
    told = [f"{'arm':<36}{'test':<12}{'AUROC':>7}  {'interval':<16}{'seeds':<16}{'difference':>10}  interval"]
    told.append("-" * 112)
    for row in study["scores"]:
        macro = row["macro"]
        if macro["auroc"] is None:
            told.append(f"{titles.get(row['arm'], row['arm']):<36}{row['test']:<12}no label could be scored")
            continue
        seeds = macro["auroc_seeds"]
        line = (
            f"{titles.get(row['arm'], 'TRTS: train real, test synthetic'):<36}{row['test']:<12}{macro['auroc']:>7.3f}  "
        )
        line += f"{_ends(macro['auroc_interval']):<16}{_ends([min(seeds), max(seeds)]):<16}"
        if macro.get("difference") is not None:
            line += f"{macro['difference']:>+10.3f}  {_ends(macro['difference_interval'])}"
        told.append(line)
    return [*told, "", *(f"warning: {text}" for text in study["warnings"])]


def _ends(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3f} to {pair[1]:.3f}"


if __name__ == "__main__":
    sys.exit(run(main))
