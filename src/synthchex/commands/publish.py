"""`synthchex publish`: a built dataset to the Hub, through the gate.

    synthchex publish dataset --repo my-org/my-set --real real/ --source-policy open --dry-run
    synthchex publish dataset --repo my-org/my-set --real mimic/ --prompts from-labels --drop-flagged

Nothing leaves before the gate has looked at every row: near-copies of the local real films, identifiers, reports,
source policy. What leaves has random names and no metadata. Private unless --public; a second push sends nothing.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import synthchex
from synthchex import engines, gate
from synthchex.commands import cards, staging, uploads
from synthchex.commands.push_metrics import check_access
from synthchex.data import datacard, shards, sources, survey, tables
from synthchex.data.importers import policies
from synthchex.gate import identifiers, planted
from synthchex.models import encoders
from synthchex.options import REFUSED, Parser

PHANTOM = "phantom"
SHOWN = 16  # films in the grid of the card


def parser() -> Parser:
    """The options of `synthchex publish`."""
    options = Parser(
        command="publish",
        description="A built dataset to the Hub, through a gate that keeps patients in: private, resumable, once.",
        examples=(
            "synthchex publish dataset --repo my-org/my-set --real real/ --source-policy open --dry-run",
            "synthchex publish dataset --repo my-org/my-set --real mimic/ --reports mimic.csv --prompts from-labels",
            "synthchex publish dataset --repo my-org/my-set --real real/ --drop-flagged --public --message 'new judge'",
        ),
    )
    options.add_argument("dataset", type=Path, help="folder that `synthchex build` wrote")
    options.add_argument("--repo", required=True, metavar="ORG/NAME", help="dataset repository; made if need be")
    _add_gate(options)
    _add_decisions(options)
    _add_push(options)
    options.add_common()
    return options


def _add_gate(options: Parser) -> None:
    looks = options.add_argument_group("what the gate compares with (stays on this machine)")
    looks.add_argument("--real", nargs="+", default=[], help="real films: folder, table, shards; several are joined")
    looks.add_argument("--image-dir", help="folder of the images of a table of real films")
    for role in ("image", "patient", "id"):
        looks.add_argument(f"--{role}-column", metavar="NAME", help=f"{role} column of the real films")
    looks.add_argument("--reports", nargs="+", default=[], help="tables of local reports whose phrases must not leave")
    looks.add_argument("--report-column", metavar="NAME", help="their text column")
    looks.add_argument(
        "--encoder",
        help=f"name ({', '.join(encoders.ENCODERS)}), Hub id or folder (default: phantom for a phantom dataset, else "
        f"{encoders.DEFAULT})",
    )
    looks.add_argument("--autoencoder", metavar="PIPELINE", help="diffusers pipeline to plant round trips through")
    looks.add_argument(
        "--false-alarms",
        type=float,
        default=gate.Trial.false_alarms,
        help="share of other patients' films that may be called copies (default %(default)s)",
    )
    looks.add_argument("--copies", type=int, default=gate.Trial.copied, help="films to plant copies of, per kind")
    looks.add_argument("--seed", type=int, default=gate.Trial.seed, help="of the choice of films")
    looks.add_argument("--device", help="cpu, cuda, …")
    looks.add_argument("--batch-size", type=int, default=32, help="films per forward pass")
    looks.add_argument("--num-workers", type=int, default=2, help="threads that read and compare films")


def _add_decisions(options: Parser) -> None:
    what = options.add_argument_group("what may leave")
    what.add_argument(
        "--source-policy",
        choices=policies.POLICIES,
        help="where the prompts come from (default: what the rows of the dataset say, else unknown)",
    )
    what.add_argument(
        "--prompts",
        choices=tuple(gate.report.PROMPTS),
        default="keep",
        help="publish prompts, leave them out, or say what the labels say; only an open source may keep them",
    )
    what.add_argument("--drop-flagged", action="store_true", help="leave out the rows that the gate finds something in")
    what.add_argument(
        "--allow-findings", metavar="REASON", help="publish in spite of what the gate finds; the card says why"
    )


def _add_push(options: Parser) -> None:
    push = options.add_argument_group("push")
    seen = push.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", help="only those with access see it (default)")
    seen.add_argument("--public", action="store_true", help="anyone may see it")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    push.add_argument("--revision", help="branch; made if need be (default main)")
    push.add_argument("--tag", help="name of this version (default v1, v2, …)")
    push.add_argument("--message", default="", help="for the commit and the changelog")
    push.add_argument(
        "--work-dir", type=Path, help="private folder for names, features, shards (default DATASET.publish)"
    )
    engines.add_options(push)
    push.add_argument("--dry-run", action="store_true", help="list every file and its size; nothing is sent")


def main(argv: Sequence[str] | None = None) -> int:
    """Look, decide, make ready, push."""
    options = parser().parse_args(argv)
    engines.check(options)
    check_options(options)
    terms = gate.Terms(source_policy(options), options.prompts)
    if not options.dry_run:
        check_access(options.repo.partition("/")[0])
    work = options.work_dir or options.dataset.with_name(options.dataset.name + ".publish")
    staging.private_key(work)
    report = gate.check(
        options.dataset, comparison(options, work), terms, reports=reports(options), quiet=options.quiet
    )
    shards.write_whole(work / "gate.json", json.dumps(report.as_dict(), indent=2).encode())
    if not options.quiet and not options.json:
        print("\n".join(gate.lines(report)))
    dropped = report.flagged if options.drop_flagged else []
    if refused(report, dropped) and options.allow_findings is None:
        print(why_refused(report, dropped), file=sys.stderr)
        if options.json:
            print(json.dumps({"refused": [finding.what for finding in report.findings], "rows": report.flagged}))
        return REFUSED
    by_ray = partial(engines.finished, workers=options.num_processes, device="cpu")
    staged = staging.stage(
        options.dataset,
        work,
        terms,
        dropped,
        quiet=options.quiet,
        num_workers=options.num_workers,
        by_ray=by_ray if options.engine == "ray" else None,
    )
    reason = " ".join(options.allow_findings.split()) if refused(report, dropped) else None
    section = gate.card_section(report, dropped=len(dropped), reason=reason)
    card = cards.ours(local_card(options.dataset), section, options.repo, list(staged.files), staged.features)
    files: dict[str, uploads.Content] = {**staged.files, **samples(card, staged)}
    said = (plan if options.dry_run else push)(options, card, files, staged.rows)
    print(json.dumps(said) if options.json else "\n".join(told(said)))
    return 0


def check_options(options: Any) -> None:
    """Refuse what cannot work before anything is read.

    Raises:
        ValueError: a repository that is no org/name, no reason, a pull request against a branch, words that will be
            public and name somebody, no dataset or card.
    """
    if options.repo.count("/") != 1 or not all(options.repo.split("/")):
        raise ValueError(f"--repo must be org/name, got {options.repo!r}")
    if options.allow_findings is not None and len(options.allow_findings.split()) < 3:
        raise ValueError(
            f"--allow-findings needs a reason that readers of the card understand, got {options.allow_findings!r}"
        )
    if options.create_pr and options.revision:
        raise ValueError(f"--create-pr opens a request against main, got --revision {options.revision!r} too; drop one")
    said = [options.repo, options.revision, options.tag, options.message, options.allow_findings]
    named = {kind for text in said if text for kind in identifiers.named(text, strong=True)}
    if named:
        raise ValueError(
            f"expected --repo, --revision, --tag, --message and --allow-findings that name nobody, got "
            f"{', '.join(sorted(named))}; say it otherwise"
        )
    shards.parquet_files(options.dataset)
    local_card(options.dataset)


def source_policy(options: Any) -> str:
    """The policy that was given, or that the rows of the dataset say; credentialed where the real films are.

    Real films that are open say nothing of where the prompts come from.

    Raises:
        ValueError: a looser one was given than the rows say.
    """
    said = [policies.source_policy(path) for path in map(Path, options.real) if policies.has_rows(path)]
    own = policies.source_policy(options.dataset)
    stated = "credentialed" if "credentialed" in [own, *said] else own
    if stated == "credentialed" and options.source_policy not in (None, stated):
        raise ValueError(
            f"--source-policy must be credentialed, as the rows say, got {options.source_policy}; leave the option out"
        )
    return str(options.source_policy or stated)


def comparison(options: Any, work: Path) -> gate.Comparison | None:
    """What the gate compares with; None where no real films were given."""
    if not options.real:
        return None
    given = {"image": options.image_column, "patient": options.patient_column, "id": options.id_column}
    columns = {role: name for role, name in given.items() if name}
    real = gate.together(
        [sources.open_images(path, columns=columns, image_dir=options.image_dir) for path in options.real]
    )
    name = options.encoder or (PHANTOM if is_phantom(options.dataset) else encoders.DEFAULT)
    changes, not_planted = kinds(options.autoencoder, name, options.device)
    known = name if name in encoders.ENCODERS or not Path(name).exists() else "a local encoder"
    trial = gate.Trial(options.false_alarms, copied=options.copies, seed=options.seed)
    return gate.Comparison(
        real,
        encoders.load_encoder(name, device=options.device),
        known,
        trial,
        work / "features",
        changes,
        not_planted,
        options.batch_size,
        options.num_workers,
    )


def kinds(
    pipeline: str | None, encoder: str, device: str | None
) -> tuple[Mapping[str, planted.Change], Mapping[str, str]]:
    """Kinds of copies to plant, and those that cannot be and why."""
    name = pipeline or (str(encoders.ASSETS / "phantom" / "generator") if encoder == PHANTOM else None)
    if name is None:
        return planted.KINDS, {planted.ROUND_TRIP: "no pipeline was given (--autoencoder)"}
    try:
        return {**planted.KINDS, planted.ROUND_TRIP: planted.round_trip(name, device=device)}, {}
    except ImportError as error:
        if pipeline:
            raise
        return planted.KINDS, {planted.ROUND_TRIP: str(error)}


def reports(options: Any) -> list[str] | None:
    """Texts of the local reports; None where none were given."""
    columns = {"prompt": options.report_column} if options.report_column else None
    opened = [tables.open_table(path) for path in options.reports]
    roles = [tables.resolve(table, columns, needed=("prompt",), optional=()) for table in opened]
    found = [text for table, role in zip(opened, roles, strict=True) for text in table.column(role["prompt"])]
    return [text for text in found if isinstance(text, str)] if opened else None


def refused(report: gate.Report, dropped: Sequence[int]) -> bool:
    """Whether a finding is left when these rows are."""
    return bool(report.of_the_set if dropped else report.findings)


def why_refused(report: gate.Report, dropped: Sequence[int]) -> str:
    """What is wrong and what can be done, in one line."""
    left = report.of_the_set if dropped else report.findings
    rows = "" if dropped or not report.flagged else f"leave out {len(report.flagged)} rows with --drop-flagged, "
    return (
        f"refused: {'; '.join(finding.what for finding in left)}. Nothing was sent. Mend the dataset, {rows}"
        "or override with --allow-findings REASON, which the card will show"
    )


def is_phantom(dataset: Path) -> bool:
    """Whether the card says that the films show procedural phantoms."""
    return PHANTOM in (cards.read(local_card(dataset)).data.to_dict().get("tags") or [])


def local_card(dataset: Path) -> str:
    """The card of the built dataset, in which models have lost their folders.

    Raises:
        ValueError: there is none.
    """
    path = dataset / uploads.CARD
    if not path.is_file():
        raise ValueError(f"expected a card, got no {path}; `synthchex build` writes one")
    return identifiers.without_folders(path.read_text())


def samples(card: Any, staged: staging.Staged) -> dict[str, bytes]:
    """The grid of films where the card shows one: of the films that leave, not of those that were built."""
    if f"({datacard.SAMPLES})" not in card.text:
        return {}
    kept = [file for path, file in staged.files.items() if f"-{survey.REJECTED}-" not in path]
    rows = shards.Rows(kept or list(staged.files.values()))
    places = dict.fromkeys(len(rows) * place // SHOWN for place in range(SHOWN))
    films = [rows[place]["image"] for place in places]
    return {datacard.SAMPLES: datacard.sample_grid([film for film in films if film])}


def plan(options: Any, card: Any, staged: Mapping[str, uploads.Content], rows: int) -> dict[str, Any]:
    """What would be sent, without asking the Hub."""
    text = with_log(card, None, [log_line(options, [], rows)])
    sizes = {path: uploads.size(content) for path, content in {uploads.CARD: text, **staged}.items()}
    return {"dry_run": True, "repo": options.repo, "rows": rows, "files": sizes}


def push(options: Any, card: Any, staged: Mapping[str, uploads.Content], rows: int) -> dict[str, Any]:
    """Send what changed, with a line in the changelog and a tag; nothing where nothing did."""
    to = uploads.Destination(options.repo, options.public, options.revision, options.create_pr)
    uploads.prepare(to)
    seen = uploads.state(to)
    log = cards.changelog(seen.card)
    files = {**staged, uploads.CARD: with_log(card, seen.card, log)}
    todo = [change for change in uploads.changes(to, files) if change.action != "keep"]
    if todo:
        if options.tag in [line.split(" ")[0] for line in log]:
            raise ValueError(f"--tag must be new, got {options.tag}, which the changelog of {options.repo} has already")
        log = [log_line(options, log, rows), *log]
        files[uploads.CARD] = with_log(card, seen.card, log)
    message = options.message or f"{rows} films, synthchex {synthchex.__version__}"
    made = uploads.push(to, files, message, seen=seen)
    name = log[0].split(" ")[0] if log else None
    if name and not options.create_pr:
        uploads.tag(to, name, made.commit)
    said = [{"path": change.path, "action": change.action, "size": change.size} for change in todo]
    return {"dry_run": False, "repo": options.repo, "rows": rows, "changed": said, "url": made.url, "tag": name}


def log_line(options: Any, log: Sequence[str], rows: int) -> str:
    """A line of the changelog; its first word is the tag."""
    said = " ".join(options.message.split())
    name = options.tag or f"v{len(log) + 1}"
    return f"{name} ({datetime.date.today()}): {rows} films" + (f"; {said}" if said else "")


def with_log(card: Any, theirs: str | None, log: Sequence[str]) -> bytes:
    """The whole card, as it is sent.

    Raises:
        ValueError: it names somebody.
    """
    text = cards.merged(card, theirs, log)
    found = identifiers.named(text, strong=True)
    if found:
        raise ValueError(f"expected a card that names nobody, got {', '.join(found)} in it; mend its text")
    return text.encode()


def told(said: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    if said["dry_run"]:
        sizes = said["files"]
        lines = [f"{size:>14,} B  {path}" for path, size in sizes.items()]
        total = f"{len(sizes)} files, {sum(sizes.values()):,} B"
        return [*lines, f"would push {total}, to {said['repo']}; nothing was sent"]
    if not said["changed"]:
        return [f"{said['repo']} has all of it already ({said['tag']}); nothing was sent"]
    lines = [f"{change['size']:>14,} B  {change['action']:<8}{change['path']}" for change in said["changed"]]
    return [*lines, f"{said['rows']} films, {said['tag']}: {said['url']}", f'load_dataset("{said["repo"]}")']
