"""Reader studies for tests: small sets of phantoms, a study made of them, and readers who answer it over HTTP."""

from __future__ import annotations

import csv
import http.client
import json
import re
import secrets
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from synthchex import phantom, textmask
from synthchex.data import records, sources
from synthchex.study import arms, design, making

SIZE = 96
MODELS = ("alphadiff", "betagan")


class Study(NamedTuple):
    """A study on disk, its readers' codes, and its hash."""

    folder: Path
    codes: dict[str, str]
    sha256: str


def films(
    folder: Path, name: str, *, seed: int, film_seed: int | None = None, count: int = 20, policy: str = "open"
) -> Path:
    """A table of phantoms with prompts of `seed`; two films of each patient. Another `film_seed`: other films."""
    folder.mkdir(parents=True)
    shown = phantom.make(count, size=SIZE, seed=seed if film_seed is None else film_seed)
    told = phantom.make(count, size=32, seed=seed)
    rows = []
    for row in range(count):
        Image.fromarray(shown.images[row]).save(folder / f"{name}-file-{row:03d}.png")
        labels = dict(zip(records.LABELS, map(int, told.labels[row]), strict=True))
        rows.append(
            {
                "id": f"{name}-source-{row:03d}",
                "image": f"{name}-file-{row:03d}.png",
                "prompt": f"{told.reports[row]} (request {seed}/{row:03d})",
                "patient": f"{name}-patient-{row // 2:03d}",
                "source_policy": policy,
                **labels,
            }
        )
    with open(folder / "films.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "films.csv"


def sets(folder: Path) -> list[arms.Arm]:
    """A real set and two models that were given the same prompts."""
    found = [arms.Arm("real", "real", sources.open_images(films(folder / "real", "hospital", seed=1)), "open")]
    for seed, model in enumerate(MODELS, 3):
        path = films(folder / model, model, seed=2, film_seed=seed)
        found.append(arms.Arm("synthetic", model, sources.open_images(path), "open"))
    return found


class Blind:
    """A detector of text that finds none; the real one takes half a second for a film."""

    def detect(self, pixels: np.ndarray) -> list[textmask.Text]:
        """Nothing."""
        return []


@contextmanager
def blind() -> Iterator[None]:
    """Studies made without looking for text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textmask, "load_detector", lambda name: Blind())
        yield


def study(folder: Path, given: list[arms.Arm], **wanted: Any) -> Study:
    """A new study of some sets."""
    with blind():
        made = making.make(folder, given, design.Design(**{"size": SIZE, "n": 4, "practice": 2, "seed": 1, **wanted}))
    return Study(folder, dict(made.codes), made.sha256)


def png_chunks(content: bytes) -> list[bytes]:
    """Kinds of the chunks of a PNG file, to its last byte."""
    place, found = 8, list[bytes]()
    while place < len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        found.append(kind)
        place += 12 + size
    return found


class Exchange(NamedTuple):
    """One request: its path, and all that came back."""

    path: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Reader:
    """A reader's browser, without the page: keeps the cookie and everything that it received."""

    def __init__(self, address: str) -> None:
        self.host = address.removeprefix("http://")
        self.cookie = self.name = ""
        self.received: list[Exchange] = []
        self.line: http.client.HTTPConnection | None = None

    def ask(self, path: str, body: Any = None) -> Exchange:
        """A request; POST where there is a body."""
        headers = {"Cookie": self.cookie} if self.cookie else {}
        sent = None if body is None else json.dumps(body)
        try:
            self.line = self.line or http.client.HTTPConnection(self.host, timeout=60)
            self.line.request(
                "GET" if sent is None else "POST", path, sent, headers | {"Content-Type": "application/json"}
            )
            answer = self.line.getresponse()
            found = Exchange(path, answer.status, answer.getheaders(), answer.read())
        except (OSError, http.client.HTTPException):
            self.line = None
            raise
        if set_cookie := answer.getheader("set-cookie"):
            self.cookie = set_cookie.partition(";")[0]
        self.received.append(found)
        return found

    def enter(self, code: str) -> dict[str, Any]:
        """Sign in and get the item to answer."""
        assert self.ask("/login", {"code": code}).status == 200
        found: dict[str, Any] = self.ask("/item").json
        self.name = found["reader"]
        return found

    def films(self, item: dict[str, Any]) -> list[bytes]:
        """The films of an item."""
        found = [self.ask(f"/film/{token}") for token in item["films"]]
        assert [one.status for one in found] == [200] * len(found)
        return [one.body for one in found]

    def answer(self, item: dict[str, Any], token: str | None = None, **said: Any) -> Exchange:
        """Answer an item, somehow."""
        body = {
            "reader": self.name,
            "position": item["position"],
            "token": token or secrets.token_hex(16),
            "answer": said or somehow(item["task"], item["position"]),
            "seconds": 1.5,
            "events": [{"t": 10, "kind": "zoom", "value": [1.25]}],
        }
        return self.ask("/answer", body)


def somehow(task: str, at: int) -> dict[str, Any]:
    """An answer that depends on the place alone."""
    return {
        "authenticity": {"call": ("real", "synthetic")[at % 2], "confidence": 1 + at % 5},
        "quality": {
            "anatomy": 4,
            "pathology": 1 + at % 5,
            "artefacts": 3,
            "overall": 5,
            "tags": ["boxy ribs"],
            "comment": "ok",
        },
        "diagnosis": {"present": ["Edema"] if at % 2 else []},
        "preference": {"chosen": ("left", "right", "none")[at % 3]},
    }[task]


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`synthchex study run` in a process of its own: its address, and the process, which may be killed."""
    command = [sys.executable, "-m", "synthchex.cli", "study", "run", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"http://[\d.]+:\d+", line):
                yield found[0], process
                break
        else:
            raise AssertionError(f"no address in {said!r}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        process.stdout and process.stdout.close()
