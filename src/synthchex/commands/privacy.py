"""`synthchex privacy`: is a synthetic film a copy of a film that the generator was trained on, and how sure can one be.

    synthchex privacy --real train/ --held-out other-patients/ --synthetic films/ --out privacy
    synthchex privacy --real train/ --synthetic films/ --encoder rad-dino sscd --reid siamese --out privacy

Everything stays on this machine. Real films are shown in the report only where their source is open.
"""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.commands import privacy_parts as parts
from synthchex.commands import publish
from synthchex.data import images as films
from synthchex.data import shards, sources
from synthchex.data.importers import policies
from synthchex.data.sources import ImageSet
from synthchex.gate import calibration
from synthchex.maths.memorization import Terms
from synthchex.models import encoders
from synthchex.options import REFUSED, Parser
from synthchex.privacy import extraction, neighbours
from synthchex.privacy.neighbours import PIXELS, SSIM, Request, Space
from synthchex.report.films import Neighbours, ReportImages

ROLES = ("image", "prompt", "labels", "patient", "id")
SHOWN, BESIDE = 6, 3  # synthetic films in the report, and training films beside each
CAVEATS = (
    "A copy that is not found may still be there: the table of planted copies says what this search finds, and of "
    "which kinds. Filters like these were called a false sense of security on chest radiographs (arXiv:2510.01793).",
    "Nearness means something only beside the null: films of patients that were never trained on.",
)


def parser() -> Parser:
    """The options of `synthchex privacy`."""
    options = Parser(
        command="privacy",
        description="Copies of training films among synthetic ones: nearest neighbours with a null, planted copies, "
        "re-identification, repeated films, membership.",
        examples=(
            "synthchex privacy --real train/ --held-out other-patients/ --synthetic films/ --out privacy",
            "synthchex privacy --real train.csv --held-out test.csv --synthetic films/ --encoder rad-dino sscd "
            "--reid siamese --membership tuned/recipe.yaml --out privacy",
        ),
    )
    _add_sets(options)
    _add_how(options)
    options.add_common()
    return options


def _add_sets(options: Parser) -> None:
    sets = options.add_argument_group("sets: folder, table with an image column, saved dataset or Hub id")
    sets.add_argument("--real", required=True, help="all films that the generator was trained on")
    sets.add_argument("--held-out", help="real films of other patients, the null (default: training films beside those "
                      "of other patients)")  # fmt: skip
    sets.add_argument("--synthetic", required=True, help="the films to judge")
    for role in ROLES:
        sets.add_argument(f"--{role}-column", metavar="NAME", help=f"{role} column where it has no known name")
    sets.add_argument("--image-dir", help="folder of the images of a table of real films")
    sets.add_argument("--split", default="train", help="split of a saved or Hub dataset (default train)")
    sets.add_argument(
        "--reports", nargs="+", default=[], help="tables of local reports whose phrases must not be prompts"
    )
    sets.add_argument("--report-column", metavar="NAME", help="their text column")
    sets.add_argument("--source-policy", choices=policies.POLICIES, help="of the real films (default: what they say)")


def _add_how(options: Parser) -> None:
    how = options.add_argument_group("how")
    how.add_argument("--out", required=True, type=Path, help="folder for results.json, films.parquet, report and plots")
    how.add_argument("--feature-store", type=Path, help="folder that keeps features (default OUT/features)")
    how.add_argument(
        "--encoder",
        dest="encoders",
        nargs="+",
        default=[encoders.DEFAULT],
        help=f"spaces besides pixels and SSIM: name ({', '.join(encoders.ENCODERS)}), Hub id or folder (default "
        f"{encoders.DEFAULT})",
    )
    how.add_argument(
        "--false-alarms", type=float, default=0.01, help="share of new patients' films that may be accused"
    )
    how.add_argument("--confidence-level", type=float, default=0.95, help="of the intervals")
    how.add_argument(
        "--no-copies", action="store_true", help="leave out the search of `publish`'s gate, the slowest part"
    )
    how.add_argument("--planted", type=int, default=50, help="films that copies are planted of; 0 plants none")
    how.add_argument(
        "--reid",
        help=f"{parts.COSINE} (of the first encoder), siamese (published weights), or a file or Hub id of such weights",
    )
    how.add_argument(
        "--protocol",
        choices=("default", "chexgenbench"),
        default="default",
        help="chexgenbench: its table too, with --reid",
    )
    how.add_argument("--false-positives", type=float, default=1e-3, help="pairs of two patients that may count as one")
    how.add_argument("--clique-size", type=int, default=extraction.SIZE, help="films of a prompt that make a clique")
    how.add_argument(
        "--membership", metavar="RECIPE", help="recipe of the generator: denoising errors of both real sets"
    )
    how.add_argument("--check", action="store_true", help=f"exit with {REFUSED} where anything is flagged")
    how.add_argument("--seed", type=int, default=0, help="of all choices")
    how.add_argument("--batch-size", type=int, default=32, help="films per forward pass")
    how.add_argument("--num-workers", type=int, default=2, help="threads that read films")
    how.add_argument("--device", help="cpu, cuda, …")
    how.add_argument("--title", default="Privacy of a synthetic set", help="title of the report")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write results and report, print what was found."""
    from synthchex.report import write_report

    options = parser().parse_args(argv)
    real, synthetic, held_out = open_sets(options)
    policy = source_policy(options)
    found, spaces = measure(options, real, synthetic, held_out)
    found["policy"] = policy
    results = {
        "title": options.title,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["synthchex", *sys.argv[1:]]),
        "domain": "phantom" if options.encoders[0] == "phantom" else "radiographs",
        "warnings": sorted({text for row in found["neighbours"] for text in row["warnings"]}),
        "privacy": found,
    }
    options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    shards.write_table(options.out / "films.parquet", table(synthetic, real, spaces, shown=policy == "open"))
    shards.write_whole(options.out / "results.json", json.dumps(results, indent=2).encode() + b"\n")
    page = write_report(results, options.out, images=pictures(synthetic, real, spaces, policy))
    if options.json:
        print(
            json.dumps({"results": str(options.out / "results.json"), "report": str(page), "flagged": found["flagged"]})
        )
    else:
        from synthchex.report import privacy

        print("\n".join(privacy.headlines(results)))
        print(f"\n{'FLAGGED: ' + '; '.join(found['flagged']) if found['flagged'] else 'nothing is flagged'}")
        print(f"numbers in {options.out / 'results.json'}\n{page.resolve()}")
    return REFUSED if options.check and found["flagged"] else 0


def open_sets(options: Any) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """The three sets; patients who are held out and trained on are refused before anything is encoded."""
    columns = {role: name for role in ROLES if (name := getattr(options, f"{role}_column"))}
    open_one = partial(sources.open_images, columns=columns or None, split=options.split)
    real = open_one(options.real, image_dir=options.image_dir)
    held_out = open_one(options.held_out, image_dir=options.image_dir) if options.held_out else None
    neighbours.check_patients(real, held_out)
    if (options.reid or options.membership) and held_out is None:
        raise ValueError("--reid and --membership need --held-out: real films that the generator was not trained on")
    if options.reid and (real.patients is None or held_out is None or held_out.patients is None):
        raise ValueError("--reid needs the patients of both real sets; name them with --patient-column")
    check(options, real, held_out)
    return real, open_one(options.synthetic), held_out


def check(options: Any, real: ImageSet, held_out: ImageSet | None) -> None:
    """Refuse what would fail, or do nothing, after hours of work."""
    if options.protocol == "chexgenbench" and not options.reid:
        raise ValueError("--protocol chexgenbench needs --reid, the score of its table; add --reid siamese or cosine")
    if options.planted < 0 or options.clique_size < 2:
        raise ValueError(
            f"expected --planted from 0 and --clique-size from 2, got {options.planted} and {options.clique_size}"
        )
    people = len(set(real.patients or real.ids))
    if not options.no_copies and people < calibration.LEAST_PATIENTS:
        raise ValueError(
            f"expected training films of at least {calibration.LEAST_PATIENTS} patients to set the gate's limits, got "
            f"{people} in {real.source}; leave its search out with --no-copies"
        )
    if options.membership and held_out is not None:
        parts.generator(options)
        if real.prompts is None or held_out.prompts is None:
            raise ValueError("--membership needs the prompts of both real sets; name them with --prompt-column")
        if (real.patients is None) != (held_out.patients is None):
            raise ValueError("--membership needs the patients of both real sets or of neither; got those of one")
    publish.reports(options)


def source_policy(options: Any) -> str:
    """The policy of the training films: what was said, or what they say; credentialed where any film says so."""
    said = [policies.stated(path, options.source_policy) for path in (options.real, options.held_out) if path]
    said.append(policies.stated(options.synthetic, None))  # its prompts may be of credentialed reports
    return "credentialed" if "credentialed" in said else said[0]


def measure(
    options: Any, real: ImageSet, synthetic: ImageSet, held_out: ImageSet | None
) -> tuple[dict[str, Any], dict[str, Space]]:
    """Everything that was asked for and can be measured."""
    kept = options.feature_store or options.out / "features"
    request = Request(
        [*options.encoders, PIXELS, SSIM],
        kept,
        options.out / "search",
        Terms(false_alarms=options.false_alarms, confidence=options.confidence_level),
        device=options.device,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        quiet=options.quiet,
    )
    first = encoders.load_encoder(options.encoders[0], device=options.device)
    spaces = neighbours.neighbours(synthetic, real, held_out, request)
    found: dict[str, Any] = {"caveats": list(CAVEATS), "neighbours": [one.results for one in spaces.values()]}
    found["copies"] = None if options.no_copies else parts.near_copies(options, first, real, synthetic, kept)
    found["selftest"] = parts.planted(options, real, held_out, spaces, request) if options.planted else None
    for kind in (found["selftest"] or {}).get("kinds", []) if found["copies"] else []:
        kind["gate"] = found["copies"]["caught"].get(kind["kind"])
    found["extraction"] = parts.repeated(options, first, synthetic, kept)
    found |= {"reidentification": None, "membership": None}
    if options.reid and held_out is not None:
        found["reidentification"] = parts.recognised(options, first, real, synthetic, held_out, kept)
    if options.membership and held_out is not None:
        found["membership"] = parts.members(options, real, held_out, kept)
    reports = publish.reports(options)
    found["prompts"] = extraction.prompt_risk(synthetic.prompts, reports) if synthetic.prompts else None
    return found | {"flagged": parts.flagged(found)}, spaces


def table(synthetic: ImageSet, real: ImageSet, spaces: Mapping[str, Space], *, shown: bool) -> Any:
    """A row per synthetic film: distances in every space, and the training film where it may be named."""
    import pyarrow as pa

    columns = neighbours.columns(spaces)
    rows = columns.pop("row")
    out: dict[str, Any] = {"id": [str(synthetic.ids[row]) for row in rows]}
    for name, values in columns.items():
        if not name.endswith("_train_row"):
            out[name] = values
        elif shown:
            out[name.removesuffix("_row")] = [str(real.ids[row]) for row in values]
    return pa.table(out)


def pictures(synthetic: ImageSet, real: ImageSet, spaces: Mapping[str, Space], policy: str) -> ReportImages:
    """Synthetic films nearest to training films, beside these where the policy lets them be shown."""
    if policy != "open":
        return ReportImages(withheld=f"Real films are not shown: their source is {policy}.")
    pairs = []
    name, space = next(iter(spaces.items()))
    for place in np.argsort(space.films["distance"], kind="stable")[:SHOWN]:
        row = int(space.films["row"][place])
        near = dict.fromkeys(int(one.films["train_row"][place]) for one in spaces.values())
        caption = f"{synthetic.prompts[row] if synthetic.prompts else synthetic.ids[row]}"
        real_films = [(films.read(real.fetch(index)).pixels, "training film") for index in list(near)[:BESIDE]]
        told = f"{caption}\ndistance {space.films['distance'][place]:.3g}"
        pairs.append(Neighbours((films.read(synthetic.fetch(row)).pixels, told), real_films))
    return ReportImages(neighbours=pairs, neighbours_by=f"distance in {name}; nearest in each space")
