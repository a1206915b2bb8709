"""`synthchex evaluate`: any synthetic set against any real one, as a table, results.json and a report."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.data import images as films
from synthchex.data import shards, sources
from synthchex.models import encoders
from synthchex.options import Parser
from synthchex.scores import Request, Scored, Side, score

SHEET = 24


def parser() -> Parser:
    """The options of `synthchex evaluate`."""
    options = Parser(
        command="evaluate",
        description="Score a synthetic set against a real one, overall and per label, beside the real-vs-real floor.",
        examples=(
            "synthchex evaluate --real real/ --synthetic synthetic/ --out scores",
            "synthchex evaluate --real real.csv --synthetic films.csv "
            "--encoder rad-dino --image-text medsiglip --out scores",
            "synthchex evaluate --real real/ --synthetic org/dataset --encoder ./my-encoder --out scores",
        ),
    )
    sets = options.add_argument_group(
        "sets: image folder, .csv/.jsonl/.parquet with an image column, saved dataset, or Hub id"
    )
    sets.add_argument("--real", required=True, help="the reference set")
    sets.add_argument("--synthetic", required=True, help="the set to score")
    sets.add_argument("--image-column", help="name of the image column, where it is not a known one")
    sets.add_argument("--prompt-column", help="name of the prompt column")
    sets.add_argument("--labels-column", help="name of the labels column")
    sets.add_argument("--patient-column", help="name of the patient column; the floor is then split by patient")
    sets.add_argument("--image-dir", help="folder that image names in the tables are relative to")
    how = options.add_argument_group("how")
    how.add_argument(
        "--out", required=True, type=Path, help="folder for results.json, report.html, plots and the feature store"
    )
    how.add_argument(
        "--encoder", default=Request.encoder, help=f"name ({', '.join(encoders.ENCODERS)}), Hub id or folder"
    )
    how.add_argument("--image-text", help=f"for alignment: name ({', '.join(encoders.IMAGE_TEXT)}), Hub id or folder")
    how.add_argument(
        "--nearest-k", type=int, default=Request.nearest_k, help="neighbours of precision, recall, density, coverage"
    )
    how.add_argument(
        "--min-rows", type=int, default=Request.min_rows, help="fewest films per label and side that are scored"
    )
    how.add_argument(
        "--confidence-level", type=float, default=Request.confidence_level, help="level of the intervals (default 0.95)"
    )
    how.add_argument("--seed", type=int, default=Request.seed, help="seed of splits and resampling")
    how.add_argument("--batch-size", type=int, default=Request.batch_size, help="films per forward pass")
    how.add_argument("--device", help="cpu, cuda, …")
    how.add_argument("--title", default="Synthetic against real", help="title of the report")
    options.add_common()
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Open both sets, score them, write results and report, print the table."""
    options = parser().parse_args(argv)
    given = {role: getattr(options, f"{role}_column") for role in ("image", "prompt", "labels", "patient")}
    columns = {role: name for role, name in given.items() if name}
    real, synthetic = (
        sources.open_images(source, columns=known_columns(source, columns), image_dir=options.image_dir)
        for source in (options.real, options.synthetic)
    )
    request = Request(**{name: getattr(options, name) for name in asdict(Request()) if hasattr(options, name)})
    results, report = write(real, synthetic, request, options.out, quiet=options.quiet, extra={"title": options.title})
    if options.json:
        print(json.dumps({"results": str(options.out / "results.json"), "report": str(report)}))
        return
    from synthchex.report import terminal_table

    print(terminal_table(results))
    print(f"\nnumbers in {options.out / 'results.json'}\n{report.resolve()}")


def known_columns(source: str, columns: dict[str, str]) -> dict[str, str] | None:
    """Column names given on the command line; a folder of images has no columns to name."""
    return columns if not Path(source).is_dir() else None


def write(
    real: sources.ImageSet,
    synthetic: sources.ImageSet,
    request: Request,
    out: Path,
    *,
    quiet: bool = False,
    rejected: sources.ImageSet | None = None,
    extra: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Score, then write `results.json`, `report.html` and `plots/` into `out`; features are kept in `out/features`."""
    from synthchex.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    scored = score(real, synthetic, request, out / "features", quiet=quiet)
    results = scored.results | {"created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    results |= {"command": shlex.join(["synthchex", *sys.argv[1:]]), **(extra or {})}
    shards.write_whole(out / "results.json", json.dumps(results, indent=2).encode() + b"\n")
    return results, write_report(results, out, images=pictures(scored, rejected, request.seed))


def pictures(scored: Scored, rejected: sources.ImageSet | None, seed: int) -> Any:
    """What the report shows: samples of both sets, rejects with their reasons, best and worst aligned, a map of the
    features.
    """
    from synthchex.report import ReportImages

    rng = np.random.default_rng(seed)
    real, synthetic = scored.real, scored.synthetic
    order = np.argsort(scored.matched) if scored.matched is not None else np.array([], int)
    points = principal_plane(real.features, synthetic.features)
    return ReportImages(
        real=sheet(real, rng.permutation(len(real.features))[:SHEET]),
        kept=sheet(synthetic, rng.permutation(len(synthetic.features))[:SHEET]),
        rejected=None if rejected is None else rejects(rejected),
        best_aligned=sheet(synthetic, order[::-1][:6], scored.matched),
        worst_aligned=sheet(synthetic, order[:6], scored.matched),
        real_points=points[0],
        synthetic_points=points[1],
        matched=scored.matched,
        shuffled=scored.shuffled,
    )


def sheet(side: Side, rows: np.ndarray, cosine: np.ndarray | None = None) -> list[tuple[np.ndarray, str]]:
    """Films of some rows with their captions."""
    found = []
    for row in map(int, rows):
        index = int(side.encoded.kept[row])
        caption = side.prompts[row] if side.prompts is not None else str(side.images.ids[index])
        if cosine is not None:
            caption += f"\ncosine {cosine[row]:.2f}"
        found.append((films.read(side.images.fetch(index)).pixels, caption))
    return found


def rejects(judged: sources.ImageSet) -> list[tuple[np.ndarray, str]]:
    """Films that the judge dropped, with prompt and reason."""
    reasons = judged.provenance.get("drop_reason", [])
    found = []
    for index in [i for i, reason in enumerate(reasons) if reason and not reason.startswith("unreadable")][:SHEET]:
        row = judged.row(index)
        found.append((films.read(judged.fetch(index)).pixels, f"{row['prompt']}\n{row['quality']}\n{reasons[index]}"))
    return found


def principal_plane(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets on the two main axes of the real features, (N, 2) each."""
    centre = real.mean(0)
    axes = np.linalg.eigh(np.cov(real - centre, rowvar=False))[1][:, :-3:-1]
    return (real - centre) @ axes, (synthetic - centre) @ axes
