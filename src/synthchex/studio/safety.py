"""Who may see the studio: where films come from, what that refuses, and which requests are answered at all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from synthchex.models.samplers import Recipe
from synthchex.models.samplers.pipelines import EMBEDDED

OPEN, UNKNOWN = "open", "unknown"
MAX_UPLOAD_BYTES = 64 * 2**20
MAX_UPLOAD_PIXELS = 36_000_000  # a radiograph has 4 to 20 million
QUEUE = 32

# All that the page asks for. Gradio has many more routes, among them one that reads files; they are answered with 404.
ROUTES = re.compile(
    r"/(?:|config|theme\.css|favicon\.ico|manifest\.json|pwa_icon(?:/\d+)?"
    r"|(?:assets|static|svelte)/(?!.*\.\.)[\w./~@+=-]+"
    r"|gradio_api/(?:info|app_id|startup-events|queue/join|queue/data|heartbeat/\w+|cancel|reset/?|theme\.css"
    r"|upload|upload_progress|component_server))"
)
# Handlers of HTML stand in the page, and Gradio makes functions of templates.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def recipe_policy(recipe: Recipe, given: str | None) -> str:
    """Where the films that a model was trained on come from: open for phantoms and noise, else what the user says."""
    embedded = recipe.model.startswith(EMBEDDED) or recipe.sampler == "noise"
    return OPEN if embedded and recipe.lora is None else given or UNKNOWN


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(policies: Mapping[str, str], *, host: str, share: bool) -> str | None:
    """Why other people must not reach the studio, or None where they may or cannot.

    Args:
        policies: source policy by what it is of, such as {"films": "credentialed"}.
        host: address to serve at.
        share: whether a public address is asked for.
    """
    if is_loopback(host) and not share:
        return None
    closed = {what: policy for what, policy in policies.items() if policy != OPEN}
    if not closed:
        return None
    asked = "--share" if share else f"--host {host}"
    told = ", ".join(f"{what}: {policy}" for what, policy in closed.items())
    return (
        f"{asked} lets other people see what is here, and that is not open ({told}); leave it out, or state "
        "--source-policy open if everyone may see all of it"
    )


class Guard:
    """ASGI middleware: answers only `ROUTES`, and forbids the page to ask any other host for anything.

    `local`: only requests that name this machine are answered, so that no other site's name can be pointed at it.
    """

    def __init__(self, app: App, *, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        known = scope["type"] == "http" and ROUTES.fullmatch(scope["path"])
        if not known or (self.local and not is_loopback(_asked_host(scope))):
            await _not_found(scope, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*_without(message.get("headers", ())), *HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)


def _asked_host(scope: Message) -> str:
    """The host that a request names, without its port."""
    named = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
    return re.sub(r":\d+$", "", named).strip("[]")


def _without(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = {name for name, _ in HEADERS}
    return [(name, value) for name, value in headers if name.lower() not in ours]


async def _not_found(scope: Message, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain"), *HEADERS]})
    await send({"type": "http.response.body", "body": b"Not Found"})
