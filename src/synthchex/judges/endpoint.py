"""Questions to an OpenAI-compatible server: bounded concurrency, retries, and whether films may be sent there at all.

Knows HTTP; knows no films and no rubrics. The session is the one of `huggingface_hub`. Its `AsyncInferenceClient` is
not used: without a key it sends the user's Hub token to whatever server it is given, it rewrites `response_format:
json_schema` to what only TGI understands, and it sends a film again to wherever a server redirects it.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import os
import random
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

RETRIED = frozenset((408, 409, 425, 429))
# Errors of one question, not of the server: too long, or an image that it cannot read.
OF_ONE_FILM = frozenset((400, 413, 415, 422))
# What the session's own pool allows.
MOST_CONNECTIONS = 100


def schema(choices: Sequence[str]) -> dict[str, Any]:
    """JSON schema of an object whose `answer` is one of the choices."""
    answer = {"type": "string", "enum": list(choices)}
    return {
        "type": "object",
        "properties": {"answer": answer},
        "required": ["answer"],
        "additionalProperties": False,
    }


# The fields that bind an answer to one of some choices, by the name a recipe gives them.
CONSTRAINTS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "none": lambda choices: {},
    # vLLM from 0.12 on
    "structured_outputs": lambda choices: {"structured_outputs": {"choice": list(choices)}},
    # vLLM before 0.12; later ones ignore it without an error
    "guided_choice": lambda choices: {"guided_choice": list(choices)},
    # OpenAI, vLLM, SGLang
    "json_schema": lambda choices: {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema(choices)},
        }
    },
    # TGI reads `value`, llama.cpp `schema`
    "json_object": lambda choices: {
        "response_format": {"type": "json_object", "value": schema(choices), "schema": schema(choices)}
    },
    # SGLang
    "regex": lambda choices: {"regex": f"({'|'.join(choices)})"},
}


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, and how hard it is asked.

    `base_url` ends where "/chat/completions" is to follow. `key_env` names the environment variable that holds the key;
    the key itself stands in no file and no message. `constraint` is one of `CONSTRAINTS`. A question that fails is
    asked again `retries` times, after pauses that double from `backoff_s` up to `longest_pause_s`, shortened at random,
    or after the pause that the server asks for, up to the same length.
    """

    base_url: str
    key_env: str | None = None
    constraint: str = "none"
    concurrency: int = 16
    retries: int = 8
    timeout_s: float = 120.0
    backoff_s: float = 0.5
    longest_pause_s: float = 60.0
    top_logprobs: int = 20

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError(
                "expected a base_url like http://localhost:8000/v1 without a name or password in it, got one with "
                f"scheme {parts.scheme!r} and host {parts.hostname!r}"
            )
        if self.constraint not in CONSTRAINTS:
            raise ValueError(f"constraint must be one of {list(CONSTRAINTS)}, got {self.constraint!r}")
        if not 1 <= self.concurrency <= MOST_CONNECTIONS:
            raise ValueError(
                f"concurrency must be in 1 to {MOST_CONNECTIONS}, got {self.concurrency}; start more processes for more"
            )
        if self.retries < 0 or min(self.timeout_s, self.backoff_s, self.longest_pause_s, self.top_logprobs) <= 0:
            raise ValueError("retries must be at least 0; timeout_s, pauses and top_logprobs must be above 0")

    @property
    def host(self) -> str:
        """Name or address, without the port."""
        return urlsplit(self.base_url).hostname or ""

    def is_local(self) -> bool:
        """Whether the server is on this machine, and is reached without a proxy."""
        if urllib.request.getproxies() and not urllib.request.proxy_bypass(self.host):
            return False
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def headers(self) -> dict[str, str]:
        """The key, if the recipe names one.

        Raises:
            ValueError: the environment variable is not set.
        """
        if self.key_env is None:
            return {}
        key = os.environ.get(self.key_env)
        if not key:
            raise ValueError(f"expected the server's key in the environment variable {self.key_env}, got nothing there")
        return {"Authorization": f"Bearer {key}"}


def refusal(endpoint: Endpoint, policy: str, *, allow_local: bool) -> str | None:
    """Why films with this source policy must not be sent to a server, or None where they may be."""
    if policy == "open" or (allow_local and endpoint.is_local()):
        return None
    stated = f"the source policy of these films is {policy}"
    if not endpoint.is_local():
        return (
            f"{stated}: they must not be sent to {endpoint.host}, which is not this machine or is reached through a "
            "proxy; use a judge that runs here, or state --source-policy open if everyone may see them"
        )
    return f"{stated}, and the judge is a server on this machine; pass --allow-local-server if its logs stay here too"


class RefusedByServer(Exception):
    """The server will not answer one question; `status` is the HTTP status."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"HTTP {status}: {words}")
        self.status = status


@dataclass
class Line:
    """Questions in flight to one endpoint. `asked` counts requests; all wait together when the server says so."""

    endpoint: Endpoint
    asked: int = 0
    paused_until: float = 0.0
    jitter: random.Random = field(default_factory=random.Random)

    async def ask_all(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | RefusedByServer]:
        """The answer to each question, in order; a question that the server refuses has the refusal as its answer.

        Raises:
            ValueError: the server refuses everything: no such address or model, or a wrong key.
            RuntimeError: a question failed at every try.
        """
        from huggingface_hub import get_async_session

        headers, gate = self.endpoint.headers(), asyncio.Semaphore(self.endpoint.concurrency)
        async with get_async_session() as session:
            # Neither does a film follow a redirect, nor does HF_HUB_OFFLINE, which is about the Hub, stop a server.
            session.follow_redirects = False
            session.event_hooks = {"request": [], "response": []}

            async def one(body: Mapping[str, Any]) -> dict[str, Any] | RefusedByServer:
                async with gate:
                    try:
                        return await self._ask(session, headers, body)
                    except RefusedByServer as refused:
                        return refused

            tasks = [asyncio.ensure_future(one(body)) for body in bodies]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _ask(self, session: Any, headers: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        failure = ""
        for attempt in range(self.endpoint.retries + 1):
            await asyncio.sleep(max(0.0, self.paused_until - time.monotonic()))
            answer, failure, pause = await self._try(session, headers, body)
            if answer is not None:
                return answer
            if attempt < self.endpoint.retries:
                await asyncio.sleep(pause if pause is not None else self._backoff(attempt))
        raise RuntimeError(
            f"{self.endpoint.host} failed {self.endpoint.retries + 1} times for one film, at last with: {failure}; no "
            "verdict of this batch is written, see to the server and run the same command to go on"
        )

    async def _try(
        self, session: Any, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> tuple[dict[str, Any] | None, str, float | None]:
        """The answer, or why there is none and how many seconds the server wants to be left alone."""
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

        self.asked += 1
        url = f"{self.endpoint.base_url.rstrip('/')}/chat/completions"
        try:
            # One limit for the whole answer: a server that sends a byte now and then has stalled too.
            async with asyncio.timeout(self.endpoint.timeout_s):
                response = await session.post(
                    url, json=dict(body), headers=dict(headers), timeout=self.endpoint.timeout_s
                )
        except (httpx.TransportError, TimeoutError) as error:
            return None, f"{type(error).__name__} {error}".strip(), None
        status = response.status_code
        if status == 200:
            return (*_answer(response), None)
        words = f"HTTP {status}: {_short(response.text)}"
        if status in OF_ONE_FILM:
            raise RefusedByServer(status, _short(response.text))
        if status not in RETRIED and status < 500:
            raise ValueError(f"{self.endpoint.host} refuses this judge: {words}; check base_url, model and key_env")
        pause = retry_after(response.headers.get("retry-after"), self.endpoint.longest_pause_s)
        if pause is not None:
            self.paused_until = max(self.paused_until, time.monotonic() + pause)
        return None, words, pause

    def _backoff(self, attempt: int) -> float:
        """Full jitter: anywhere up to a limit that doubles."""
        limit = min(self.endpoint.longest_pause_s, self.endpoint.backoff_s * 2**attempt)
        return self.jitter.uniform(0, limit)


def retry_after(value: str | None, longest: float) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; at most `longest`."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), longest)


def _answer(response: Any) -> tuple[dict[str, Any] | None, str]:
    """The first choice of a completion, or why there is none."""
    try:
        return dict(response.json()["choices"][0]), ""
    except (ValueError, KeyError, IndexError, TypeError):
        return None, f"HTTP 200 without a completion: {_short(response.text)}"


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
