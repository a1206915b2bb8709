"""A study served: where it listens, who may reach it, and that one process at a time does so."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from synthchex.study import design, server

HOSTS = f"{design.PRIVATE}/hosts.jsonl"
LOCK = f"{design.PRIVATE}/running"
LEAST_WORDS = 3


class Certificate(NamedTuple):
    """Files for HTTPS."""

    certfile: Path
    keyfile: Path


def certificate(certfile: Path | None, keyfile: Path | None) -> Certificate | None:
    """The files for HTTPS; None where none were given.

    Raises:
        ValueError: only one of them was given, or one is not there.
    """
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None or not (certfile.is_file() and keyfile.is_file()):
        raise ValueError(f"expected --ssl-certfile and --ssl-keyfile, both there, got {certfile} and {keyfile}")
    return Certificate(certfile, keyfile)


def check_host(host: str, manifest: Mapping[str, Any], reason: str | None) -> None:
    """Refuse to listen to other machines where films must not leave this one.

    Raises:
        ValueError: an arm is credentialed or of unknown source and no reason was given, or one of few words.
    """
    if is_local(host):
        return
    closed = {arm["model"]: arm["source_policy"] for arm in manifest["arms"] if arm["source_policy"] != "open"}
    if not closed:
        return
    said = ", ".join(f"{model} {policy}" for model, policy in closed.items())
    if reason is None:
        raise ValueError(
            f"expected --host 127.0.0.1 where films are not open ({said}), got {host}; every reader needs access of "
            "their own to such films: let them sign in to this machine, or give --allow-host REASON"
        )
    if len(reason.split()) < LEAST_WORDS:
        raise ValueError(f"--allow-host needs a reason of {LEAST_WORDS} words or more, got {reason!r}")


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(
    study: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    names: Sequence[str] = (),
    reason: str | None = None,
    certificate: Certificate | None = None,
    say: Callable[[str], object] | None = None,
) -> int:
    """Serve a study until interrupted.

    Args:
        study: its folder.
        host: address to listen at.
        port: 0 takes a free one.
        names: of this machine, by which readers reach it; addresses in numbers need none.
        reason: why other machines may reach films that are not open.
        certificate: for HTTPS.
        say: takes the lines that tell where the study is.

    Raises:
        ValueError: the study was changed, is served already, or `check_host` refuses.
    """
    manifest = design.load(study)
    check_host(host, manifest, reason)
    with _alone(study):
        if not is_local(host):
            _note(study, {"host": host, "reason": reason, "at": time.time()})
        made = server.app(study, secure=certificate is not None, hosts=[*server.LOCAL, host, *names])
        listening = _listen(host, port)
        config = uvicorn.Config(
            made,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ssl_certfile=str(certificate.certfile) if certificate else None,
            ssl_keyfile=str(certificate.keyfile) if certificate else None,
        )
        if say is not None:
            say("\n".join(_told(made.state.running, listening, certificate)))
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            made.state.running.store.close()
    return 0


def _told(running: server.Running, listening: socket.socket, certificate: Certificate | None) -> list[str]:
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    lines = [
        f"{reader}: {running.store.position(reader)} of {len(order)} items answered"
        for reader, order in running.orders.items()
    ]
    if not certificate and not is_local(host):
        lines.append("no HTTPS: codes and films can be read on their way; give --ssl-certfile and --ssl-keyfile")
    return [*lines, f"http{'s' if certificate else ''}://{name}:{port}  (stop with Ctrl-C; nothing is lost)"]


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    listening.listen(256)
    return listening


@contextmanager
def _alone(study: Path) -> Iterator[None]:
    """Hold the study; the kernel lets go of it when this process dies."""
    with os.fdopen(os.open(study / LOCK, os.O_WRONLY | os.O_CREAT, 0o600), "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{study} is being served by another process; stop that one first") from None
        yield


def _note(study: Path, what: Mapping[str, Any]) -> None:
    with os.fdopen(os.open(study / HOSTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as log:
        log.write(json.dumps(what) + "\n")
