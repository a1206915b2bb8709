"""Files of a dataset to the Hub in one commit: what changed and nothing else, resumed after an interruption.

Large files go up first, by their hash: those that an interrupted run sent are not sent again. huggingface_hub repeats
their requests when the server is busy; the others (create, list, commit, tag) are repeated here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from synthchex.commands.push_metrics import first_line, http_error

CARD = "README.md"
ATTEMPTS, FIRST_WAIT_S = 5, 1.0
SILENT_S = 120.0  # after which a request counts as unanswered; the client library itself would wait for ever
BUSY = (408, 429, 500, 502, 503, 504)
CHANGED = (409, 412)  # somebody committed since
Result = TypeVar("Result")
Content = Path | bytes


@dataclass(frozen=True)
class Destination:
    """A dataset repository: its id, whether it may be public, the branch (None: main), and whether to open a pull
    request instead of committing.
    """

    repo_id: str
    public: bool = False
    revision: str | None = None
    create_pr: bool = False


class Change(NamedTuple):
    """What a push does to one file: "add", "replace", "delete" or "keep", and its size in bytes afterwards."""

    path: str
    action: str
    size: int


class State(NamedTuple):
    """A branch as it is: its last commit, and its card, None where there is none."""

    commit: str
    card: str | None


class Pushed(NamedTuple):
    """Address of the commit or pull request, None where nothing was to be sent, and the commit."""

    url: str | None
    commit: str


def again(action: Callable[[], Result]) -> Result:
    """The result of a request, asked up to `ATTEMPTS` times while the server is busy or does not answer."""
    from huggingface_hub import get_session

    get_session().timeout = SILENT_S
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except failure() as error:
            if status_of(error) not in (None, *BUSY):
                raise
            time.sleep(FIRST_WAIT_S * 2**attempt)
    return action()


def failure() -> tuple[type[Exception], ...]:
    """What a request raises: an answer that is an error, no answer, or a download of which there is no copy either."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return http_error(), LocalEntryNotFoundError


def status_of(error: Exception) -> int | None:
    """Status of the answer; None where there was none."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def prepare(to: Destination) -> None:
    """Make sure that the repository and its branch are there, and as private as they should be.

    Raises:
        ValueError: it is public and was not to be, or the token may not see or write it.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with_reason(to, lambda: api.create_repo(to.repo_id, repo_type="dataset", private=not to.public, exist_ok=True))
    info = with_reason(to, lambda: api.dataset_info(to.repo_id, timeout=SILENT_S))
    if not info.private and not to.public:
        raise ValueError(f"{to.repo_id} is public and was to be private; make it private on the Hub, or pass --public")
    if to.revision and not to.create_pr:
        revision = to.revision
        with_reason(to, lambda: api.create_branch(to.repo_id, branch=revision, repo_type="dataset", exist_ok=True))


def state(to: Destination) -> State:
    """What is there now."""
    from huggingface_hub import HfApi, hf_hub_download

    def load() -> State:
        info = HfApi().dataset_info(to.repo_id, revision=to.revision, timeout=SILENT_S)
        if CARD not in [file.rfilename for file in info.siblings or ()]:
            return State(str(info.sha), None)
        # Of that commit: of a branch, an old copy would do where the Hub does not answer.
        path = hf_hub_download(to.repo_id, CARD, repo_type="dataset", revision=info.sha)
        return State(str(info.sha), Path(path).read_text())

    return with_reason(to, load)


def changes(to: Destination, files: Mapping[str, Content]) -> list[Change]:
    """What a push of these files would do; shards beside them that are not among them go."""
    return with_reason(to, lambda: _changes(to, files))


def _changes(to: Destination, files: Mapping[str, Content]) -> list[Change]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    listed = HfApi().list_repo_tree(to.repo_id, recursive=True, revision=to.revision, repo_type="dataset")
    there = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
    found = []
    for path, content in files.items():
        known = there.get(path)
        action = "add" if known is None else "keep" if _same(content, known) else "replace"
        found.append(Change(path, action, size(content)))
    folders = {path.rpartition("/")[0] for path in files if path.endswith(".parquet")}
    stale = [path for path in sorted(set(there) - set(files)) if path.endswith(".parquet")]
    return found + [Change(path, "delete", 0) for path in stale if path.rpartition("/")[0] in folders]


def push(to: Destination, files: Mapping[str, Content], message: str, *, seen: State) -> Pushed:
    """Commit the files that changed, all at once; asked again until they are there.

    Args:
        to: where.
        files: by their path.
        message: of the commit.
        seen: what the card was written into: if anybody has committed since, nothing is.

    Raises:
        ValueError: the Hub refused, or has changed since.
        RuntimeError: it did not answer in `ATTEMPTS` attempts.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()

    def commit() -> Pushed:
        # Looked at every time: a commit whose answer was lost is there.
        todo = [change for change in _changes(to, files) if change.action != "keep"]
        if not todo:
            return Pushed(None, str(api.dataset_info(to.repo_id, revision=to.revision, timeout=SILENT_S).sha))
        operations: list[Any] = [
            CommitOperationDelete(change.path)
            if change.action == "delete"
            else CommitOperationAdd(change.path, files[change.path])
            for change in todo
        ]
        try:
            made = api.create_commit(
                to.repo_id,
                operations,
                repo_type="dataset",
                commit_message=message,
                revision=to.revision,
                create_pr=to.create_pr,
                parent_commit=seen.commit,
            )
        except failure() as error:
            # Another process that pushes the same may have been faster.
            if status_of(error) not in CHANGED or any(change.action != "keep" for change in _changes(to, files)):
                raise
            return Pushed(None, str(api.dataset_info(to.repo_id, revision=to.revision, timeout=SILENT_S).sha))
        return Pushed(made.pr_url or str(made.commit_url), made.oid)

    return with_reason(to, commit)


def tag(to: Destination, name: str, commit: str) -> None:
    """Name a commit; a name that is there stays where it is."""
    from huggingface_hub import HfApi

    with_reason(
        to, lambda: HfApi().create_tag(to.repo_id, tag=name, revision=commit, repo_type="dataset", exist_ok=True)
    )


def with_reason(to: Destination, action: Callable[[], Result]) -> Result:
    """A request, with what it means when it is refused.

    Raises:
        ValueError: the repository cannot be seen or written, or the Hub does not take it.
        RuntimeError: no answer, or a busy server, `ATTEMPTS` times.
    """
    from huggingface_hub import errors

    try:
        return again(action)
    except errors.GatedRepoError as error:
        raise ValueError(f"{to.repo_id} is gated and this token has no access; ask for it on its page") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"expected the dataset {to.repo_id}, got none, or a private one that this token may not see; check the "
            "name, and run `hf auth login` with a token of its owner"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{to.repo_id} has no branch {to.revision!r}; create it, or leave out --revision") from error
    except failure() as error:
        status = status_of(error)
        if status in (401, 403):
            raise ValueError(
                f"this token may not write to {to.repo_id} ({first_line(error)}); make one with write access to it"
            ) from error
        if status in CHANGED:
            raise ValueError(
                f"somebody has changed {to.repo_id} in the meantime; run the same command again"
            ) from error
        if status not in (None, *BUSY):
            raise ValueError(f"the Hub refused {to.repo_id} ({first_line(error)})") from error
        raise RuntimeError(
            f"{to.repo_id}: no answer in {ATTEMPTS} attempts ({first_line(error)}); what was sent is kept, run the "
            "same command again"
        ) from error


def size(content: Content) -> int:
    """Bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _same(content: Content, there: Any) -> bool:
    """Whether a file is what the Hub has: by SHA-256 for large files, by Git's hash for others."""
    if size(content) != there.size:
        return False
    if there.lfs is not None:
        return bool(_hash("sha256", content) == there.lfs.sha256)
    return bool(_hash("sha1", content, f"blob {size(content)}\0".encode()) == there.blob_id)


def _hash(kind: str, content: Content, before: bytes = b"") -> str:
    digest = hashlib.new(kind, before)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with open(content, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
