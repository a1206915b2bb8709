"""The page that readers see, and the few requests behind it. Knows the order of items; never opens the truth.

    GET /               the page, the same for everybody       POST /login    {"code"}
    GET /item           the item to be answered now            POST /logout
    GET /film/<token>   a film, once for each token            POST /answer   {"position", "token", "answer", ...}

There are no other addresses: no folder is served, no name of a file is taken from a request, nothing is uploaded.
Films are all of one length; what is sent with them depends on the place in the order and on nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synthchex.study import access, answers, design

COOKIE = "session"
IDLE_S = 12 * 3600.0
LARGEST_BODY = 64 * 1024
MOST_EVENTS = 500
AT_ONCE = 2  # codes that are checked at the same time: 16 MB each
LOCAL = ("127.0.0.1", "localhost", "::1")


class Refused(Exception):
    """A request that is not answered; the status and what the reader is told."""

    def __init__(self, status: int, told: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(told)
        self.status, self.told, self.headers = status, told, headers


@dataclass
class Tokens:
    """Names of films on the wire: random, for one reader and one place in the order, good for one request."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    open: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    issued: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def issue(self, reader: str, position: int, films: int, *, anew: bool) -> list[str]:
        """Tokens of the films of an item; those that were issued before, used or not, unless `anew`."""
        with self.lock:
            own = self.issued.setdefault(reader, {})
            for past in [place for place in own if place < position - 1 or (anew and place == position)]:
                for token in own.pop(past):
                    self.open.pop(token, None)
            if position not in own:
                own[position] = [secrets.token_hex(16) for _ in range(films)]
                self.open |= {token: (reader, position, film) for film, token in enumerate(own[position])}
            return list(own[position])

    def take(self, token: str, reader: str) -> tuple[int, int] | None:
        """Position and film of a token of this reader, once."""
        with self.lock:
            if self.open.get(token, ("",))[0] != reader:
                return None
            _, position, film = self.open.pop(token)
        return position, film


@dataclass
class Running:
    """A study that is being read."""

    study: Path
    tasks: Mapping[str, Any]
    orders: Mapping[str, Sequence[Mapping[str, Any]]]
    told: Mapping[str, str]
    codes: Mapping[str, Mapping[str, str]]
    store: answers.Store
    secure: bool
    tokens: Tokens = field(default_factory=Tokens)
    limiter: access.Limiter = field(default_factory=access.Limiter)
    checking: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))


def app(study: Path, *, secure: bool = False, hosts: Sequence[str] = LOCAL) -> Starlette:
    """The application of a study.

    Args:
        study: its folder.
        secure: it is reached by HTTPS, so the cookie is sent no other way.
        hosts: names by which it may be reached; addresses in numbers are always allowed.

    Raises:
        ValueError: the study was changed, see `design.load`.
    """
    manifest = design.load(study)
    running = Running(
        study,
        manifest["tasks"],
        design.read(study, design.ORDERS),
        design.read(study, design.PRACTICE),
        design.read(study, design.READERS),
        answers.Store(study / design.ANSWERS, manifest["sha256"]),
        secure,
    )
    html, policy = page()

    async def first(request: Request) -> Response:
        return HTMLResponse(html)

    routes = [
        Route("/", first),
        Route("/login", _answered(login), methods=["POST"]),
        Route("/logout", _answered(logout), methods=["POST"]),
        Route("/item", _answered(item)),
        Route("/answer", _answered(answer), methods=["POST"]),
        Route("/film/{token}", _answered(film)),
    ]
    made = Starlette(routes=routes, middleware=[Middleware(Guard, policy=policy, hosts=hosts)])
    made.router.redirect_slashes = False
    made.state.running = running
    return made


def page() -> tuple[str, str]:
    """The page, and the content policy that allows its own script and style and nothing else."""
    folder = resources.files(__package__) / "pages"
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("study.js", "study.css"))
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (folder / "page.html.j2").read_text(encoding="utf-8")
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
        "img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return template.render(script=script, style=style), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Guard:
    """Headers of every response; requests for another host, or sent from another page, go no further."""

    def __init__(self, app: ASGIApp, *, policy: str, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}
        said = {
            "content-security-policy": policy,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
        }
        self.headers = [(name.encode(), value.encode()) for name, value in said.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != host
        if not self._known(host) or (scope["method"] == "POST" and foreign):
            await JSONResponse({"error": "This address is not the study's."}, 400)(scope, receive, sent)
            return
        await self.app(scope, receive, sent)

    def _known(self, host: str) -> bool:
        """Whether a request asks for this server; another name that leads here is a page that tries to read it."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self.hosts
        return True


Handler = Callable[[Request, Running], Awaitable[Response]]


def _answered(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose refusals are responses."""

    async def respond(request: Request) -> Response:
        try:
            return await handler(request, request.app.state.running)
        except Refused as refused:
            return JSONResponse({"error": refused.told}, refused.status, refused.headers)
        except ClientDisconnect:
            return Response(status_code=400)

    return respond


async def login(request: Request, running: Running) -> Response:
    """Begin a session with an access code."""
    address = request.client.host if request.client else ""
    wait_s = running.limiter.wait_s(address)
    if wait_s > 0:
        seconds = int(wait_s) + 1
        raise Refused(429, f"Too many wrong codes. Try again in {seconds} s.", {"retry-after": str(seconds)})
    code = (await _json(request)).get("code")
    if not isinstance(code, str) or len(code) > 100:
        raise Refused(422, "Expected an access code.")

    def checked() -> str | None:
        with running.checking:
            return access.reader_of(code, running.codes)

    reader = await run_in_threadpool(checked)
    if reader is None:
        running.limiter.failed(address)
        raise Refused(403, "This code is not known. Codes look like R1-7KQ2-M9XA-PD4T.")
    session = secrets.token_urlsafe(32)
    await run_in_threadpool(running.store.begin_session, design.sha256(session.encode()), reader)
    response = JSONResponse({"reader": reader})
    response.set_cookie(COOKIE, session, httponly=True, samesite="strict", secure=running.secure, path="/")
    return response


async def logout(request: Request, running: Running) -> Response:
    """End the session."""
    await run_in_threadpool(running.store.end_session, _session(request))
    response = JSONResponse({})
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=running.secure, path="/")
    return response


async def item(request: Request, running: Running) -> Response:
    """The item that the reader answers next, as after a reload: its films get new tokens."""
    reader = await _reader(request, running)
    now = await run_in_threadpool(_now, running, reader, anew=True)
    return JSONResponse({"reader": reader, "tasks": running.tasks, **now})


async def film(request: Request, running: Running) -> Response:
    """A film by its token."""
    reader = await _reader(request, running)
    place = running.tokens.take(request.path_params["token"], reader)
    if place is None:
        raise Refused(404, "Not found.")
    position, number = place
    case = running.orders[reader][position]["films"][number]
    content = await run_in_threadpool((running.study / design.FILMS / f"{case}.png").read_bytes)
    return Response(content, media_type="image/png")


async def answer(request: Request, running: Running) -> Response:
    """Keep an answer and give the next item; an item that was answered is not asked for again."""
    reader = await _reader(request, running)
    said = await _json(request)
    if said.get("reader") != reader:
        raise Refused(409, "Somebody else has signed in, in another window.")
    position, token = said.get("position"), said.get("token")
    order = running.orders[reader]
    if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < len(order):
        raise Refused(422, "Expected the position of an item.")
    if not isinstance(token, str) or not 16 <= len(token) <= 64 or not token.isalnum():
        raise Refused(422, "Expected a token of 16 to 64 letters and digits.")
    here = order[position]
    try:
        what = answers.checked(here["task"], said.get("answer"), running.tasks[here["task"]])
        seconds, events = _seconds(said.get("seconds")), _events(said.get("events", []))
    except ValueError as error:
        raise Refused(422, "Expected an answer with all its parts.") from error
    kept = await run_in_threadpool(running.store.keep, reader, position, token, what, seconds, events)
    if kept == "other position":
        raise Refused(409, "This item was answered already, in another window perhaps.")
    told = running.told.get(here["case"]) if here["practice"] and here["task"] == "authenticity" else None
    return JSONResponse({"told": told, **await run_in_threadpool(_now, running, reader, anew=False)})


def _now(running: Running, reader: str, *, anew: bool) -> dict[str, Any]:
    """Where a reader is; the films of the next item may be fetched ahead, and nothing else of it is said."""
    order = running.orders[reader]
    position = running.store.position(reader)
    if position >= len(order):
        return {"state": "done", "total": len(order)}
    if anew:
        running.store.show(reader, position)
    here = order[position]
    counted = [place for place, other in enumerate(order) if other["task"] == here["task"]]
    ahead = order[position + 1 : position + 2]
    return {
        "state": "item",
        "position": position,
        "total": len(order),
        "task": here["task"],
        "at": position - counted[0],
        "of": len(counted),
        "practice": here["practice"],
        "findings": here["findings"],
        "films": running.tokens.issue(reader, position, len(here["films"]), anew=anew),
        "ahead": [t for n in ahead for t in running.tokens.issue(reader, position + 1, len(n["films"]), anew=anew)],
    }


async def _reader(request: Request, running: Running) -> str:
    reader = await run_in_threadpool(running.store.session, _session(request), IDLE_S)
    if reader is None:
        raise Refused(401, "Please enter your access code.")
    return reader


def _session(request: Request) -> str:
    return design.sha256(request.cookies.get(COOKIE, "").encode())


async def _json(request: Request) -> dict[str, Any]:
    """The JSON object of a request, of limited length."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "Expected JSON.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise Refused(413, f"Expected at most {LARGEST_BODY} bytes.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "Expected JSON.") from error
    if not isinstance(found, dict):
        raise Refused(422, "Expected a JSON object.")
    return found


def _seconds(value: Any) -> float:
    if not design.finite(value, 0, answers.DAY_S):
        raise ValueError(f"expected seconds from 0 to {answers.DAY_S:g}, got {str(value)[:50]}")
    return round(float(value), 3)


def _events(value: Any) -> list[dict[str, Any]]:
    """What a reader did with a film: {"t": ms since it was shown, "kind", "value"}."""
    if not isinstance(value, list) or len(value) > MOST_EVENTS:
        raise ValueError(f"expected at most {MOST_EVENTS} events")
    kept = []
    for event in value:
        kind, numbers = (event.get("kind"), event.get("value", [])) if isinstance(event, dict) else (None, None)
        known = isinstance(kind, str) and kind.isalpha() and len(kind) <= 20
        if not known or not design.finite(event.get("t"), 0, 1e8) or not isinstance(numbers, list) or len(numbers) > 4:
            raise ValueError("expected events with t, kind and value")
        if not all(design.finite(number, -1e6, 1e6) for number in numbers):
            raise ValueError("expected numbers in events")
        kept.append({"t": event["t"], "kind": kind, "value": numbers})
    return kept
