"""A Hub on this machine for tests: enough of its HTTP API to create repositories, commit, and read files back.

    with localhub.serve() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": localhub.WRITER}

Repositories live in memory, small files only (what the real Hub keeps out of LFS). `hub.requests` is what was asked.
Learned from the requests that huggingface_hub sends; unknown ones get 404 and are seen in `hub.requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
USER, ORGANISATION = "tester", "clinic"
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repository:
    """Files of each commit by its id; the last one is the main branch."""

    private: bool = False
    sdk: str | None = None
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """Id of the last commit."""
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the main branch."""
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit."""
        self.commits[hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()] = files
        return self.head


class Refused(Exception):
    """An HTTP error, with the code that the client library knows it by."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Hub(ThreadingHTTPServer):
    """The server and what it holds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, int]] = []

    def space(self, repo: str) -> Repository:
        """A Space by its id."""
        return self.repositories["spaces", repo]


@contextmanager
def serve() -> Iterator[Hub]:
    """A running hub."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request, by the first route that matches."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def handle_any(self) -> None:
        """Answer, or say what was refused in the headers that the client library reads."""
        path, length = unquote(urlsplit(self.path).path), int(self.headers.get("Content-Length") or 0)
        self.body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for asked, pattern, answer in ROUTES:
                if asked == method and (match := re.fullmatch(pattern, path)):
                    return answer(self, **match.groupdict())
            raise Refused(404, "", f"no route for {self.command} {path}")
        except Refused as error:
            return self.reply({"error": str(error)}, error.status, error.code)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def reply(self, content: Any, status: int = 200, code: str = "", headers: dict[str, str] | None = None) -> None:
        """Send JSON, or bytes as they are."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        given = {"Content-Length": str(len(data)), **(headers or {}), **({"X-Error-Code": code} if code else {})}
        if code or status >= 400:
            given["X-Error-Message"] = content["error"]
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.server.requests.append((self.command, self.path, status))

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def token(self) -> str:
        """The caller's token, "" for none."""
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def repository(self, kind: str, repo: str, *, write: bool = False) -> Repository:
        """A repository that the caller may see, or write to."""
        found = self.server.repositories.get((kind, repo))
        if found is None or (found.private and not self.token()):
            raise Refused(404, "RepoNotFound", "Repository not found")
        if write and self.token() != WRITER:
            raise Refused(403, "", "this token may only read")
        return found

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data


def whoami(request: Handler) -> None:
    """Who a token belongs to and what it may do."""
    roles = {WRITER: "write", READER: "read"}
    if request.token() not in roles:
        raise Refused(401, "", "Invalid username or password.")
    access = {"accessToken": {"displayName": "test", "role": roles[request.token()]}}
    request.reply({"type": "user", "name": USER, "orgs": [{"name": ORGANISATION}], "auth": access})


def create(request: Handler) -> None:
    """A new repository with one empty commit."""
    if request.token() != WRITER:
        raise Refused(403, "", "this token may only read")
    asked = json.loads(request.body)
    kind, repo = asked.get("type", "model") + "s", f"{asked.get('organization') or USER}/{asked['name']}"
    url = f"{request.server.url}/{'' if kind == 'models' else kind + '/'}{repo}"
    if (kind, repo) in request.server.repositories:
        return request.reply({"error": "You already created this repo", "url": url}, 409)
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    made = request.server.repositories[kind, repo] = Repository(private, asked.get("sdk"))
    made.commit({".gitattributes": b""})
    return request.reply({"url": url, "id": repo, "name": repo})


def info(request: Handler, kind: str, repo: str, revision: str | None = None) -> None:
    """What a repository holds."""
    found = request.repository(kind, repo)
    listed = [{"rfilename": name} for name in sorted(found.files)]
    request.reply({"id": repo, "sha": found.head, "private": found.private, "siblings": listed, "tags": []})


def preupload(request: Handler, kind: str, repo: str, revision: str) -> None:
    """Every file goes into the commit itself; the hash of what is there lets the client leave out what is unchanged."""
    held = request.repository(kind, repo, write=True).files
    files = [
        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": oid(held.get(file["path"]))}
        for file in json.loads(request.body)["files"]
    ]
    request.reply({"files": files})


def commit(request: Handler, kind: str, repo: str, revision: str) -> None:
    """Files added and deleted in one step."""
    found = request.repository(kind, repo, write=True)
    files = dict(found.files)
    for line in request.body.splitlines():
        entry = json.loads(line)
        if entry["key"] == "file":
            files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        elif entry["key"] == "deletedFile":
            files.pop(entry["value"]["path"], None)
    made = found.commit(files)
    address = f"{request.server.url}/{kind}/{repo}/commit/{made}"
    request.reply({"success": True, "commitOid": made, "commitUrl": address, "hookOutput": ""})


def resolve(request: Handler, repo: str, revision: str, path: str, kind: str | None = None) -> None:
    """One file."""
    found = request.repository(kind or "models", repo)
    tree = found.files if revision == "main" else found.commits.get(revision)
    if tree is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    if path not in tree:
        raise Refused(404, "EntryNotFound", "Entry not found")
    request.reply(tree[path], headers={"ETag": f'"{oid(tree[path])}"', "X-Repo-Commit": found.head})


def oid(content: bytes | None) -> str | None:
    """Git's name of a file's content."""
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", lambda request: request.reply({"errors": [], "warnings": []})),
    ("GET", f"/api/{REPO}(/revision/(?P<revision>.+))?", info),
    ("POST", f"/api/{REPO}/preupload/(?P<revision>.+)", preupload),
    ("POST", f"/api/{REPO}/commit/(?P<revision>.+)", commit),
    ("GET", "/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
