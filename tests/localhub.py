"""A Hub on this machine for tests: enough of its HTTP API to create repositories, commit, and read files back.

    with localhub.serve() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": localhub.WRITER}

Repositories live in memory; large files (`LARGE`) take the LFS route, so give the client HF_HUB_DISABLE_XET=1.
`hub.requests` is what was asked; unknown requests get 404 and are seen there. `hub.fail` makes requests fail and
`hub.hold` lets them wait. Learned from the requests that huggingface_hub and datasets send.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
USER, ORGANISATION = "tester", "clinic"
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"


LARGE = (".parquet", ".png", ".bin")
# In place of a status: the connection ends without an answer, or there is none for `SILENT_S` seconds.
DROPPED, SILENT = 0, -1
SILENT_S = 30.0


@dataclass
class Repository:
    """Files of each commit by its id, and the commit that each branch and tag names. Gated: readers are refused."""

    private: bool = False
    sdk: str | None = None
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """Id of the last commit of the main branch."""
        return self.branches["main"]

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the main branch."""
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit."""
        made = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[made] = files
        self.branches[branch] = made
        return made

    def find(self, revision: str | None) -> str:
        """Commit that a branch, a tag or an id names."""
        named = revision or "main"
        found = self.branches.get(named) or self.tags.get(named) or (named if named in self.commits else None)
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found


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
        self.blobs: dict[str, bytes] = {}
        self.failures: list[list[Any]] = []
        self.waiting: str | None = None
        self.held, self.released = threading.Event(), threading.Event()

    def space(self, repo: str) -> Repository:
        """A Space by its id."""
        return self.repositories["spaces", repo]

    def dataset(self, repo: str) -> Repository:
        """A dataset by its id."""
        return self.repositories["datasets", repo]

    def fail(self, pattern: str, *, status: int, times: int, code: str = "") -> None:
        """Answer the next requests ("PUT /lfs/...") that match with an error."""
        self.failures.append([pattern, status, times, code])

    def hold(self, pattern: str) -> None:
        """Let requests that match wait until `released` is set, and drop them; `held` tells that one waits."""
        self.waiting = pattern
        self.held.clear()
        self.released.clear()

    def puts(self) -> list[str]:
        """Large files that were taken, by their hash, in order."""
        return [path for method, path, status in self.requests if method == "PUT" and status == 200]


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
        url, length = urlsplit(self.path), int(self.headers.get("Content-Length") or 0)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        method = "GET" if self.command == "HEAD" else self.command
        try:
            self._trouble(f"{self.command} {path}")
            for asked, pattern, answer in ROUTES:
                if asked == method and (match := re.fullmatch(pattern, path)):
                    return answer(self, **match.groupdict())
            raise Refused(404, "", f"no route for {self.command} {path}")
        except Refused as error:
            if error.status == DROPPED:
                self.close_connection = True
                self.server.requests.append((self.command, self.path, DROPPED))
                return None
            return self.reply({"error": str(error)}, error.status, error.code)

    def _trouble(self, asked: str) -> None:
        """What `fail` and `hold` asked for."""
        if self.server.waiting and re.search(self.server.waiting, asked):
            self.server.held.set()
            self.server.released.wait(60)
            raise Refused(DROPPED, "", "held")
        for failure in self.server.failures:
            if failure[2] and re.search(failure[0], asked):
                failure[2] -= 1
                if failure[1] == SILENT:
                    time.sleep(SILENT_S)
                    raise Refused(DROPPED, "", "too late")
                raise Refused(failure[1], failure[3], "trouble")

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
    sha = found.find(revision)
    listed = [{"rfilename": name} for name in sorted(found.commits[sha])]
    told = {"id": repo, "sha": sha, "private": found.private, "gated": found.gated, "siblings": listed, "tags": []}
    request.reply({**told, "downloads": 0, "likes": 0, "disabled": False})


def refs(request: Handler, kind: str, repo: str) -> None:
    """Branches and tags."""
    found = request.repository(kind, repo)

    def listed(names: dict[str, str], where: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{where}/{name}", "targetCommit": at} for name, at in names.items()]

    request.reply({"branches": listed(found.branches, "heads"), "tags": listed(found.tags, "tags"), "converts": []})


def branch(request: Handler, kind: str, repo: str, name: str) -> None:
    """A new branch, from the main one."""
    found = request.repository(kind, repo, write=True)
    if name in found.branches:
        raise Refused(409, "", "Reference already exists")
    found.branches[name] = found.find(json.loads(request.body or b"{}").get("startingPoint"))
    request.reply({})


def tag(request: Handler, kind: str, repo: str, revision: str) -> None:
    """A new tag."""
    found = request.repository(kind, repo, write=True)
    name = json.loads(request.body)["tag"]
    if name in found.tags:
        raise Refused(409, "", "Reference already exists")
    found.tags[name] = found.find(revision)
    request.reply({})


def preupload(request: Handler, kind: str, repo: str, revision: str) -> None:
    """Which way each file goes; the hash of what is there lets the client leave out what is unchanged."""
    found = request.repository(kind, repo, write=True)
    held = found.commits[found.find(revision)]
    files = [
        {
            "path": path,
            "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
            "shouldIgnore": False,
            "oid": None if path not in held else node(path, held[path]).get("lfs", node(path, held[path]))["oid"],
        }
        for path in (file["path"] for file in json.loads(request.body)["files"])
    ]
    request.reply({"files": files})


def batch(request: Handler, kind: str | None, repo: str) -> None:
    """Where large files go; those that are here already go nowhere."""
    request.repository(kind or "models", repo, write=True)
    url, objects = request.server.url, []
    for asked in json.loads(request.body)["objects"]:
        to = {"upload": {"href": f"{url}/lfs/{asked['oid']}"}, "verify": {"href": f"{url}/lfs-verify"}}
        new = {} if asked["oid"] in request.server.blobs else {"actions": to}
        objects.append({"oid": asked["oid"], "size": asked["size"], "authenticated": True, **new})
    request.reply({"transfer": "basic", "objects": objects})


def put(request: Handler, sha: str) -> None:
    """A large file."""
    if hashlib.sha256(request.body).hexdigest() != sha:
        raise Refused(400, "", "sha mismatch")
    request.server.blobs[sha] = request.body
    request.reply(b"")


def verify(request: Handler) -> None:
    """Whether a large file has come."""
    if json.loads(request.body)["oid"] not in request.server.blobs:
        raise Refused(404, "", "missing")
    request.reply({})


def commit(request: Handler, kind: str, repo: str, revision: str) -> None:
    """Files added and deleted in one step; a pull request is a branch of its own."""
    found = request.repository(kind, repo, write=True)
    parent = found.find(revision)
    files = dict(found.commits[parent])
    for line in request.body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header" and value.get("parentCommit") not in (None, parent):
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        if entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            if value["oid"] not in request.server.blobs:
                raise Refused(400, "", f"LFS pointer {value['oid']} pointed to a file that does not exist")
            files[value["path"]] = request.server.blobs[value["oid"]]
        elif entry["key"] == "deletedFile":
            files.pop(value["path"], None)
    requested = "create_pr" in request.query
    made = found.commit(files, "refs/pr/1" if requested else revision)
    address = f"{request.server.url}/{kind}/{repo}"
    told = {"success": True, "commitOid": made, "commitUrl": f"{address}/commit/{made}", "hookOutput": ""}
    request.reply({**told, **({"pullRequestUrl": f"{address}/discussions/1"} if requested else {})})


def node(path: str, content: bytes) -> dict[str, Any]:
    """A file as listings show it."""
    told: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid(content)}
    if path.endswith(LARGE):
        told["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return told


def folder(path: str) -> dict[str, Any]:
    """A folder as listings show it."""
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def tree(request: Handler, kind: str, repo: str, revision: str, path: str | None = None) -> None:
    """What a folder holds, in depth where that is asked for."""
    found = request.repository(kind, repo)
    files = found.commits[found.find(revision)]
    start = f"{path.strip('/')}/" if path else ""
    deep = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    listed: dict[str, dict[str, Any]] = {}
    for name in sorted(name for name in files if name.startswith(start)):
        parts = name[len(start) :].split("/")
        for depth in range(1, len(parts) if deep else min(len(parts), 2)):
            inner = start + "/".join(parts[:depth])
            listed[inner] = folder(inner)
        if deep or len(parts) == 1:
            listed[name] = node(name, files[name])
    if start and not listed:
        raise Refused(404, "EntryNotFound", f"{path} does not exist")
    request.reply(list(listed.values()))


def paths_info(request: Handler, kind: str, repo: str, revision: str) -> None:
    """Some files and folders by name."""
    found = request.repository(kind, repo)
    files = found.commits[found.find(revision)]
    json_sent = "json" in (request.headers.get("Content-Type") or "")
    asked = json.loads(request.body)["paths"] if json_sent else parse_qs(request.body.decode()).get("paths", [])
    names = [name.strip("/") for name in asked]
    folders = [name for name in names if any(file.startswith(f"{name}/") for file in files)]
    request.reply([node(name, files[name]) for name in names if name in files] + [folder(name) for name in folders])


def resolve(request: Handler, repo: str, revision: str, path: str, kind: str | None = None) -> None:
    """One file, or a part of it."""
    found = request.repository(kind or "models", repo)
    if found.gated and request.token() != WRITER:
        raise Refused(403, "GatedRepo", f"Access to {repo} is restricted")
    sha = found.find(revision)
    content = found.commits[sha].get(path)
    if content is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    told = node(path, content)
    headers = {"ETag": f'"{told.get("lfs", told)["oid"]}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if "lfs" in told:
        headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
    part = re.match(r"bytes=(\d+)-(\d*)$", request.headers.get("Range") or "")
    if part and request.command == "GET":
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return request.reply(content[first : last + 1], 206, headers=headers)
    return request.reply(content, headers=headers)


def oid(content: bytes | None) -> str | None:
    """Git's name of a file's content."""
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", lambda request: request.reply({"errors": [], "warnings": []})),
    ("GET", f"/api/{REPO}(/revision/(?P<revision>.+))?", info),
    ("GET", f"/api/{REPO}/refs", refs),
    ("POST", f"/api/{REPO}/branch/(?P<name>.+)", branch),
    ("POST", f"/api/{REPO}/tag/(?P<revision>.+)", tag),
    ("GET", f"/api/{REPO}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", tree),
    ("POST", f"/api/{REPO}/paths-info/(?P<revision>.+)", paths_info),
    ("POST", f"/api/{REPO}/preupload/(?P<revision>.+)", preupload),
    ("POST", f"/api/{REPO}/commit/(?P<revision>.+)", commit),
    ("POST", r"/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/lfs/(?P<sha>[0-9a-f]{64})", put),
    ("POST", "/lfs-verify", verify),
    ("GET", "/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
