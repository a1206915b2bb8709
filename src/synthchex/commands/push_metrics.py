"""`synthchex push-metrics`: the metrics room as Spaces, so that `evaluate.load("<namespace>/fid")` works anywhere.

    synthchex push-metrics --namespace my-org --dry-run
    synthchex push-metrics --namespace my-org --private

Each folder of the room becomes one Gradio Space: its files as they are, plus `requirements.txt`, which pins this
version of synthchex, plus `app.py`, three lines around `synthchex.measure.space`. Nothing is uploaded before the token,
the namespace and every card have been looked at; what has not changed is not committed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import synthchex
from synthchex.options import Parser

PAGE = '''"""The page of this Space: upload two files of features, or images, and read {{ metric }}."""

from synthchex.measure import space

space.interface("{{ metric }}").launch()
'''
SHIPPED = (".py", ".md")


@dataclass(frozen=True)
class Space:
    """One metric as it is uploaded: id of the Space and its files."""

    repo_id: str
    files: Mapping[str, bytes]


def main(argv: Sequence[str] | None = None) -> int:
    """Push the metrics, or say what would be pushed."""
    arguments = parser().parse_args(argv)
    spaces = plan(arguments.namespace, only=arguments.only, requirement=arguments.requirement)
    urls: Mapping[str, str] = {}
    if not arguments.dry_run:
        check_access(arguments.namespace)
        urls = {space.repo_id: push(space, private=arguments.private) for space in spaces}
    if arguments.json:
        told = [{"id": s.repo_id, "files": sorted(s.files), "url": urls.get(s.repo_id)} for s in spaces]
        print(json.dumps({"dry_run": arguments.dry_run, "spaces": told}))
    elif not arguments.quiet:
        for space in spaces:
            print(f"{urls.get(space.repo_id, 'would push ' + space.repo_id)}: {', '.join(sorted(space.files))}")
        print(f'\nevaluate.load("{spaces[0].repo_id}")')
    return 0


def parser() -> Parser:
    """The options of the command."""
    made = Parser(
        command="push-metrics",
        description="Upload every metric module as a Space, for evaluate.load().",
        examples=[
            "synthchex push-metrics --namespace my-org --dry-run",
            "synthchex push-metrics --namespace my-org --only fid kid --private",
        ],
    )
    made.add_argument("--namespace", required=True, help="user or organisation that the Spaces belong to")
    made.add_argument("--only", nargs="+", metavar="METRIC", help="some metrics instead of all")
    made.add_argument("--private", action="store_true", help="make new Spaces private; existing ones stay as they are")
    made.add_argument(
        "--requirement",
        default=f"synthchex=={synthchex.__version__}",
        help="what a Space installs, as in requirements.txt (default: %(default)s)",
    )
    made.add_argument("--dry-run", action="store_true", help="say what would be uploaded; no token needed")
    made.add_common()
    return made


def plan(namespace: str, *, only: Sequence[str] | None = None, requirement: str) -> list[Space]:
    """The Spaces of a namespace.

    Args:
        namespace: user or organisation.
        only: names of metrics; None for all that are there.
        requirement: line of requirements.txt that installs synthchex.

    Raises:
        ValueError: a bad namespace, an unknown metric, or a card that a Space could not be made from.
    """
    if not namespace or not all(letter.isalnum() or letter in "-_." for letter in namespace):
        raise ValueError(f"namespace must be a user or organisation of the Hub, got {namespace!r}")
    folders = {
        path.parent.name: path.parent
        for path in sorted(synthchex.room("metrics").glob("*/*.py"))
        if path.stem == path.parent.name
    }
    unknown = sorted(set(only or ()) - set(folders))
    if unknown:
        raise ValueError(f"only must be metrics of {sorted(folders)}, got {unknown}")
    chosen = {name: folder for name, folder in folders.items() if only is None or name in only}
    return [Space(f"{namespace}/{name}", files_of(name, folder, requirement)) for name, folder in chosen.items()]


def files_of(name: str, folder: Path, requirement: str) -> dict[str, bytes]:
    """What a Space holds.

    Raises:
        ValueError: no card, or one that does not say what a Space needs.
    """
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in SHIPPED}
    check_card(name, files.get("README.md", b"").decode())
    page = PAGE.replace("{{ metric }}", name).encode()
    return {**files, "app.py": page, "requirements.txt": f"{requirement}\n".encode()}


def check_card(name: str, card: str) -> None:
    """Refuse a card whose header is not that of a metric's Space."""
    import yaml

    parts = card.split("---\n")
    header = yaml.safe_load(parts[1]) if card.startswith("---\n") and len(parts) > 2 else None
    if not isinstance(header, dict):
        raise ValueError(f"metric {name}: expected README.md to start with a YAML header, got none; write the card")
    wanted = {"sdk": "gradio", "app_file": "app.py"}
    wrong = {key: header.get(key) for key, value in wanted.items() if header.get(key) != value}
    if wrong or not header.get("title") or not {"evaluate", "metric"} <= set(header.get("tags") or ()):
        raise ValueError(
            f"metric {name}: expected a card with title, {wanted} and the tags evaluate and metric, got "
            f"{wrong or {'title': header.get('title'), 'tags': header.get('tags')}}; complete metrics/{name}/README.md"
        )


def check_access(namespace: str) -> None:
    """Make sure that this token may write to a namespace, before anything is uploaded.

    Raises:
        ValueError: no token, one that may only read, or another namespace than those it may write to.
    """
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        raise ValueError("expected to reach the Hub, got HF_HUB_OFFLINE=1; unset it, or use --dry-run")
    try:
        user: dict[str, Any] = HfApi().whoami()
    except errors.LocalTokenNotFoundError as error:
        raise ValueError("expected a token with write access, got none; run `hf auth login` or set HF_TOKEN") from error
    except errors.HfHubHTTPError as error:
        raise ValueError(
            f"expected a token that the Hub knows, got one that it refuses ({first_line(error)}); run `hf auth login`"
        ) from error
    except http_error() as error:
        raise ValueError(
            f"expected to reach {constants.ENDPOINT}, got {first_line(error)}; check the network"
        ) from error
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise ValueError("expected a token with write access, got one that may only read; make one in your settings")
    writable = [user["name"], *(entry["name"] for entry in user.get("orgs", ()))]
    if namespace not in writable:
        raise ValueError(f"namespace must be one of {writable}, which this token belongs to, got {namespace!r}")


def push(space: Space, *, private: bool) -> str:
    """Create a Space if need be and commit its files at once; its address.

    Raises:
        ValueError: the Hub refused, and why.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    operations = [CommitOperationAdd(name, content) for name, content in sorted(space.files.items())]
    try:
        made = api.create_repo(space.repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        message = f"synthchex {synthchex.__version__}"
        api.create_commit(space.repo_id, operations, repo_type="space", commit_message=message)
    except http_error() as error:
        raise ValueError(
            f"{space.repo_id} could not be pushed ({first_line(error)}); Spaces before it are there, run the same "
            "command again"
        ) from error
    return str(made)


def http_error() -> type[Exception]:
    """Base class of what the Hub's client raises: of httpx with huggingface_hub 1, of httpx2 with 2."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
