"""`synthchex study`: a reader study made, run and analysed.

synthchex study new --real real/ --synthetic films/ --n 50 --readers 3 --out study
synthchex study run study
synthchex study analyse study
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from synthchex.data import records
from synthchex.data.importers import policies
from synthchex.extras import require
from synthchex.options import BAD_INPUT, Parser
from synthchex.study import access, answers, design

if TYPE_CHECKING:
    from synthchex.data.sources import ImageSet
    from synthchex.study.arms import Arm
    from synthchex.study.making import Made

ROLES = ("image", "prompt", "labels", "patient", "id", "view")
ACTIONS = {
    "new": "draw the films, register the design, print the readers' codes",
    "run": "show the study to its readers",
    "code": "a new access code for a reader who lost theirs",
    "analyse": "what the readers' answers say",
    "power": "how many reads a study needs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of `ACTIONS`."""
    words = list(argv or [])
    mine: dict[str, Callable[[Sequence[str]], int]] = {"new": new, "run": run, "code": code}
    if not words or words[0] not in ACTIONS:
        parser().parse_args(words)
        return BAD_INPUT
    if words[0] in mine:
        return mine[words[0]](words[1:])
    analysis = import_module("synthchex.commands.study_analysis")
    return getattr(analysis, words[0])(words[1:]) or 0


def parser() -> Parser:
    """What `synthchex study --help` prints."""
    options = Parser(
        command="study",
        description="A reader study. " + "; ".join(f"{action}: {what}" for action, what in ACTIONS.items()) + ".",
        examples=(
            "synthchex study new --real real/ --synthetic films/ --tasks authenticity --n 50 --out study",
            "synthchex study run study",
            "synthchex study analyse study",
            "synthchex study new --help",
        ),
    )
    options.add_argument("action", choices=tuple(ACTIONS), help="has options of its own, see its --help")
    return options


def new_parser() -> Parser:
    """The options of `synthchex study new`."""
    options = Parser(
        command="study new",
        description="Draw matched films, write them all alike, register the design, print one access code per reader.",
        examples=(
            "synthchex study new --real real/ --synthetic films/ --n 50 --readers 3 --out study",
            "synthchex study new --real real/ --synthetic A=a/ B=b/ --tasks quality preference "
            "--strata Cardiomegaly --out study",
        ),
    )
    _add_sets(options)
    _add_design(options)
    _add_said(options)
    options.add_argument("--out", required=True, type=Path, metavar="STUDY", help="folder of the study, a new one")
    options.add_common()
    return options


def _add_sets(options: Parser) -> None:
    sets = options.add_argument_group("sets: image folder, table with an image column, saved dataset, or Hub id")
    sets.add_argument("--real", required=True, metavar="SET", help="real films")
    sets.add_argument(
        "--synthetic", required=True, action="extend", nargs="+", metavar="[NAME=]SET", help="films of each model"
    )
    for role in ROLES:
        sets.add_argument(
            f"--{role}-column",
            nargs="+",
            metavar="NAME",
            help=f"{role} column where it has no known name; a second name is that of the synthetic sets",
        )
    sets.add_argument(
        "--image-dir", nargs="+", metavar="DIR", help="folder of the images of a table; a second one for the synthetic"
    )
    for role, where in (("source", "real films"), ("synthetic-source", "prompts of the synthetic films")):
        sets.add_argument(
            f"--{role}-policy", choices=policies.POLICIES, help=f"of the {where} (default: what the rows say)"
        )


def _add_design(options: Parser) -> None:
    own = options.add_argument_group("design")
    own.add_argument(
        "--tasks", nargs="+", choices=design.TASKS, default=list(design.Design.tasks), help="what is asked"
    )
    own.add_argument("--n", type=int, default=design.Design.n, help="films of each set (default %(default)s)")
    own.add_argument(
        "--repeats", type=float, default=design.Design.repeats, help="share shown twice (default %(default)s)"
    )
    own.add_argument(
        "--practice", type=int, default=design.Design.practice, help="items before each task (default %(default)s)"
    )
    own.add_argument("--feedback", action="store_true", help="say after a practice film whether it was real")
    own.add_argument("--readers", type=int, default=design.Design.readers, help="how many (default %(default)s)")
    own.add_argument(
        "--strata",
        nargs="+",
        default=[],
        metavar="LABEL",
        help=f"labels that the sets are matched by, among {', '.join(records.LABELS)}",
    )
    own.add_argument("--seed", type=int, default=design.Design.seed, help="of films and orders (default %(default)s)")
    own.add_argument(
        "--size",
        type=int,
        default=design.Design.size,
        help="pixels a side of what is shown (default %(default)s)",
    )
    own.add_argument(
        "--burned-in-text",
        choices=get_args(design.Burned),
        default=design.Design.burned_in_text,
        help="films with text, side markers apart: count, exclude, or refuse the study (default %(default)s)",
    )


def _add_said(options: Parser) -> None:
    said = options.add_argument_group("what is registered")
    said.add_argument("--title", default=design.Design.title, help="of the study; readers do not see it")
    said.add_argument("--hypotheses", nargs="+", default=[], metavar="TEXT", help="default: those of the tasks")
    said.add_argument("--exclusions", nargs="+", default=[], metavar="RULE", help="which answers are left out, and why")
    said.add_argument("--alpha", type=float, default=design.Design.alpha, help="of the tests (default %(default)s)")
    said.add_argument(
        "--margin", type=float, default=design.Design.margin, help="of equivalence, in accuracy (default %(default)s)"
    )
    said.add_argument("--tags", nargs="+", default=list(design.TAGS), help="failures that readers can mark")


def new(argv: Sequence[str]) -> int:
    """Make a study and print what must be kept: the hash and the codes."""
    from synthchex.study import making

    options = new_parser().parse_args(argv)
    given = {field.name: getattr(options, field.name) for field in fields(design.Design)}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    wanted = design.Design(**values)
    made = making.make(options.out, open_sets(options), wanted)
    if options.json:
        said = {"study": str(options.out), "sha256": made.sha256, "codes": dict(made.codes)}
        print(json.dumps(said | {"arms": made.manifest["arms"], "screened": made.manifest["screened"]}))
        return 0
    if not options.quiet:
        print("\n".join(_told(made)))
    print(f"manifest SHA-256, to register before the first read: {made.sha256}")
    print("access codes, shown once, one for each reader:")
    print("\n".join(f"  {code}" for code in made.codes.values()))
    print(f"\nsynthchex study run {options.out}")
    return 0


def _told(made: Made) -> list[str]:
    """What was drawn and what was found on it."""
    found = made.manifest["screened"]
    lines = [
        f"{arm['model']}: {arm['films']} {arm['arm']} films, {arm['source_policy']}" for arm in made.manifest["arms"]
    ]
    lines += [f"{stratum}: {count} of each set" for stratum, count in made.manifest["strata"]["films_per_arm"].items()]
    for model, reasons in found["passed_over"].items():
        lines += [f"{model}: {count} passed over, {reason}" for reason, count in reasons.items()]
    for what, name in (("burned_in_text", "burned-in text"), ("side_markers", "side markers")):
        lines.append(f"films with {name}: " + ", ".join(f"{model} {count}" for model, count in found[what].items()))
        if len(set(found[what].values())) > 1:
            lines[-1] += "; the sets differ, so readers may tell films by it"
    return lines


def open_sets(options: Any) -> list[Arm]:
    """The sets that take part, the real one first; synthetic films without labels take those of the films they join."""
    from synthchex.data import sources
    from synthchex.study import arms

    films = _open(options, options.real, 0)
    real = arms.Arm(design.REAL, design.REAL, films, policy_of(films, options.source_policy))
    found = [real]
    for word in options.synthetic:
        name, path = named(word)
        films = _open(options, path, 1)
        if options.strata and films.labels is None and (joined := sources.join(real.films, films)) is not None:
            films = sources.with_labels(films, real.films, joined).take(joined.pairs[:, 1])
        policy = policy_of(films, options.synthetic_source_policy)
        found.append(arms.Arm(design.SYNTHETIC, name, films, policy))
    return found


def policy_of(films: ImageSet, given: str | None) -> str:
    """The policy that was given, or the strictest that the rows of a set say, "unknown" where one says nothing.

    Raises:
        ValueError: rows are credentialed and something looser was given.
    """
    said = {str(value or "unknown") for value in films.provenance.get(policies.COLUMN, ["unknown"])}
    own = next((policy for policy in policies.POLICIES if policy in said), "unknown")
    if own == "credentialed" and given not in (None, own):
        raise ValueError(f"{films.source} says that its films are credentialed, got {given}; leave the option out")
    return given or own


def named(word: str) -> tuple[str, str]:
    """Name and set of "NAME=SET"; without a name, the last part of the set's own."""
    name, equals, path = word.partition("=")
    if equals and name and path and "/" not in name and not Path(word).exists():
        return name, path
    return Path(word).stem or word, word


def _open(options: Any, source: str, place: int) -> ImageSet:
    from synthchex.data import sources

    def given(name: str) -> Any:
        values = getattr(options, name) or [None]
        return values[min(place, len(values) - 1)]

    columns = {role: name for role in ROLES if (name := given(f"{role}_column"))}
    side: Any = ("real", "synthetic")[place]
    return sources.open_images(source, columns=columns or None, image_dir=given("image_dir"), side=side)


def run_parser() -> Parser:
    """The options of `synthchex study run`."""
    options = Parser(
        command="study run",
        description="Show a study to its readers until it is interrupted; started again, it goes on where it was.",
        examples=(
            "synthchex study run study",
            "synthchex study run study --host 0.0.0.0 --name reads.example.org --port 8443 --ssl-certfile cert.pem "
            "--ssl-keyfile key.pem",
        ),
    )
    options.add_argument("study", type=Path, help="folder that `synthchex study new` made")
    options.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s: this machine)")
    options.add_argument("--port", type=int, default=8765, help="default %(default)s; 0 takes a free one")
    options.add_argument("--name", nargs="+", default=[], help="of this machine, where readers reach it by name")
    options.add_argument(
        "--allow-host",
        metavar="REASON",
        help="listen to other machines although films are credentialed or of unknown source; the reason is kept",
    )
    options.add_argument("--ssl-certfile", type=Path, help="certificate, for HTTPS")
    options.add_argument("--ssl-keyfile", type=Path, help="its key")
    options.add_common()
    return options


def run(argv: Sequence[str]) -> int:
    """Serve until interrupted."""
    options = run_parser().parse_args(argv)
    for module in ("starlette", "uvicorn"):
        require(module, extra="study")
    from synthchex.study import serving

    return serving.serve(
        options.study,
        host=options.host,
        port=options.port,
        names=options.name,
        reason=options.allow_host,
        certificate=serving.certificate(options.ssl_certfile, options.ssl_keyfile),
        say=None if options.quiet else partial(print, flush=True),
    )


def code(argv: Sequence[str]) -> int:
    """Print a new access code for one reader; the old one is worth nothing from the next start of the study on."""
    options = Parser(
        command="study code",
        description="A new access code for a reader who lost theirs. Restart `synthchex study run` afterwards.",
        examples=("synthchex study code study R2",),
    )
    options.add_argument("study", type=Path, help="folder of the study")
    options.add_argument("reader", help="role, such as R2")
    options.add_common()
    given = options.parse_args(argv)
    design.load(given.study)
    kept = design.read(given.study, design.READERS)
    if given.reader not in kept:
        raise ValueError(f"expected one of {', '.join(kept)}, got {given.reader!r}")
    word = access.new_code(given.reader)
    path = given.study / design.READERS
    new_file = path.with_suffix(".new")
    design.write_private(new_file, json.dumps({**kept, given.reader: access.hashed(word)}, indent=1).encode())
    new_file.replace(path)
    answers.forget_sessions(given.study, given.reader)
    print(json.dumps({"reader": given.reader, "code": word}) if given.json else word)
    return 0
