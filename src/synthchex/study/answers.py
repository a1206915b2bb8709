"""What readers said: one row for each item, written once and never changed; and what was true, kept apart from it.

The store is SQLite in WAL mode with full synchronisation: an answer that was confirmed survives a crash of the process
or of the machine. One answer for each (reader, position) is kept by the table itself, so neither a double click nor a
second window nor a repeated request makes two.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from synthchex.data import records
from synthchex.study import design

SCHEMA = """
CREATE TABLE IF NOT EXISTS study (manifest TEXT NOT NULL PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS showings (
    reader TEXT NOT NULL, position INTEGER NOT NULL, shown_at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS showings_of ON showings (reader, position);
CREATE TABLE IF NOT EXISTS answers (
    reader TEXT NOT NULL, position INTEGER NOT NULL, token TEXT NOT NULL, answer TEXT NOT NULL, seconds REAL NOT NULL,
    events TEXT NOT NULL, answered_at REAL NOT NULL,
    PRIMARY KEY (reader, position), UNIQUE (reader, token)) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    hash TEXT NOT NULL PRIMARY KEY, reader TEXT NOT NULL, seen_at REAL NOT NULL) STRICT;
"""
ALL = """
SELECT a.reader, a.position, answer, seconds, events, answered_at, MIN(shown_at), COUNT(shown_at)
FROM answers a LEFT JOIN showings s ON s.reader = a.reader AND s.position = a.position
GROUP BY a.reader, a.position ORDER BY length(a.reader), a.reader, a.position
"""
LONGEST_COMMENT = 2000
DAY_S = 86400.0

Kept = Literal["kept", "kept before", "other position"]


class Store:
    """The answers of a study while it runs; its methods may be called from any thread.

    Raises:
        ValueError: the file holds answers to another manifest.
    """

    def __init__(self, path: Path, manifest_hash: str) -> None:
        path.touch(mode=0o600)
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.executescript(SCHEMA)
        self.db.execute("INSERT INTO study SELECT ? WHERE NOT EXISTS (SELECT 1 FROM study)", (manifest_hash,))
        if (found := self._one("SELECT manifest FROM study")[0]) != manifest_hash:
            raise ValueError(f"{path} holds answers to the manifest {found}, got {manifest_hash}; make a new study")

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def position(self, reader: str) -> int:
        """The next position that a reader has to answer, which is how many were answered."""
        with self.lock:
            return int(self._one("SELECT COUNT(*) FROM answers WHERE reader = ?", reader)[0])

    def show(self, reader: str, position: int) -> None:
        """Note that an item is before a reader now."""
        with self.lock:
            self.db.execute("INSERT INTO showings VALUES (?, ?, ?)", (reader, position, time.time()))

    def keep(self, reader: str, position: int, token: str, answer: Any, seconds: float, events: Any) -> Kept:
        """Write one answer, once, and note that the next item is before the reader.

        Args:
            reader: role.
            position: the item that is answered; only the reader's next one is taken.
            token: names this request, so that sending it again changes nothing.
            answer: see `table`.
            seconds: on the item, by the reader's clock, pauses left out.
            events: what was done with the film, JSON-able.

        Returns:
            "kept", "kept before" (the same request), or "other position": nothing was written.
        """
        row = (reader, position, token, json.dumps(answer), seconds, json.dumps(events), time.time())
        with self.lock, self._together():
            if self._one("SELECT 1 FROM answers WHERE reader = ? AND token = ?", reader, token):
                return "kept before"
            sql = (
                "INSERT INTO answers SELECT ?, ?, ?, ?, ?, ?, ? "
                "WHERE ? = (SELECT COUNT(*) FROM answers WHERE reader = ?)"
            )
            if not self.db.execute(sql, (*row, position, reader)).rowcount:
                return "other position"
            self.db.execute("INSERT INTO showings VALUES (?, ?, ?)", (reader, position + 1, time.time()))
        return "kept"

    @contextmanager
    def _together(self) -> Iterator[None]:
        """One transaction, so one wait for the disk."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def begin_session(self, session_hash: str, reader: str) -> None:
        """Remember who a session belongs to; sessions are known by a hash."""
        with self.lock:
            self.db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (session_hash, reader, time.time()))

    def session(self, session_hash: str, idle_s: float) -> str | None:
        """Whose session it is; None where there is none, or nobody used it for `idle_s` seconds."""
        with self.lock:
            row = self._one("SELECT reader, seen_at FROM sessions WHERE hash = ?", session_hash)
            if row is None or time.time() - row[1] > idle_s:
                return None
            if time.time() - row[1] > 60:
                self.db.execute("UPDATE sessions SET seen_at = ? WHERE hash = ?", (time.time(), session_hash))
        return str(row[0])

    def end_session(self, session_hash: str) -> None:
        """Forget a session."""
        with self.lock:
            self.db.execute("DELETE FROM sessions WHERE hash = ?", (session_hash,))

    def _one(self, sql: str, *values: Any) -> Any:
        return self.db.execute(sql, values).fetchone()


def forget_sessions(study: Path, reader: str) -> None:
    """End all sessions of a reader, as after a code was replaced."""
    path = study / design.ANSWERS
    if path.exists():
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
            db.execute("DELETE FROM sessions WHERE reader = ?", (reader,))


def checked(task: str, answer: Any, texts: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as it is stored.

    Args:
        task: of `design.TASKS`.
        answer: what came from the page.
        texts: of the task, in the manifest.

    Raises:
        ValueError: it is no answer to this task.
    """
    if isinstance(answer, dict):
        found: dict[str, Any] | None = None
        if task == "authenticity" and answer.get("call") in texts["calls"] and _rating(answer.get("confidence")):
            found = {"call": answer["call"], "confidence": answer["confidence"]}
        elif task == "quality":
            found = _quality(answer, texts)
        elif task == "preference" and answer.get("chosen") in texts["choices"]:
            found = {"chosen": answer["chosen"]}
        elif task == "diagnosis" and _among(answer.get("present"), texts["findings"]):
            found = {"present": [label for label in texts["findings"] if label in answer["present"]]}
        if found is not None:
            return found
    raise ValueError(f"expected an answer to {task} with all its parts, got {str(answer)[:200]}")


def _quality(answer: Mapping[str, Any], texts: Mapping[str, Any]) -> dict[str, Any] | None:
    ratings = {item: answer.get(item) for item in texts["items"]}
    comment = answer.get("comment", "")
    if not all(_rating(value) for value in ratings.values()) or not _among(answer.get("tags"), texts["tags"]):
        return None
    if not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        return None
    return {**ratings, "tags": [tag for tag in texts["tags"] if tag in answer["tags"]], "comment": comment}


def _rating(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 5


def _among(values: Any, known: Sequence[str]) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and value in known for value in values)


def table(study: str | Path) -> list[dict[str, Any]]:
    """Every answer of a study, by reader and position.

    Returns:
        One dict for each answer: `reader` ("R1"), `case` (opaque id of a film, or of a pair), `task`, `position` (from
        0 over all tasks), `repeat`, `practice`, `seconds` (on the item, pauses left out, of its last showing),
        `shown_at` (first) and `answered_at` (seconds since 1970, the server's clock), `showings` (how often the item
        was loaded), `events` (list of {"t", "kind", ...}), and `answer`:
        authenticity {"call": "real" | "synthetic", "confidence": 1..5};
        quality {"anatomy", "pathology", "artefacts", "overall": 1..5, "tags": [...], "comment": str};
        preference {"chosen": "left" | "right" | "none", "left": case, "right": case};
        diagnosis {"present": [labels]}, empty where the reader found none.

    Raises:
        ValueError: the study was changed, see `design.load`; or the answers belong to another manifest.
    """
    folder = Path(study)
    manifest = design.load(folder)
    path = folder / design.ANSWERS
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=30)) as db:
        (found,) = db.execute("SELECT manifest FROM study").fetchone()
        if found != manifest["sha256"]:
            raise ValueError(f"{path} holds answers to the manifest {found}, got {manifest['sha256']}")
        rows = db.execute(ALL).fetchall()
    orders = design.read(folder, design.ORDERS)
    return [_row(orders[row[0]][row[1]], row) for row in rows]


def _row(item: Mapping[str, Any], row: Sequence[Any]) -> dict[str, Any]:
    reader, position, answer, seconds, events, answered_at, shown_at, showings = row
    said = json.loads(answer)
    if item["task"] == "preference":
        said |= {"left": item["films"][0], "right": item["films"][1]}
    return {
        "reader": reader,
        "case": item["case"],
        "task": item["task"],
        "position": position,
        "repeat": item["repeat"],
        "practice": item["practice"],
        "seconds": seconds,
        "shown_at": shown_at,
        "answered_at": answered_at,
        "showings": showings,
        "events": json.loads(events),
        "answer": said,
    }


def truth(study: str | Path) -> dict[str, dict[str, Any]]:
    """What every film of a study is, by case: for the analysis only, never for a page.

    Returns:
        {case: {"arm": "real" | "synthetic", "model": name of its set, "stratum", "labels": {label: 1 | 0 | -1 | None},
        "source_id": id in its set, "practice": bool}}.

    Raises:
        ValueError: the study was changed, see `design.load`.
    """
    design.load(study)
    found = {case: dict(facts) for case, facts in design.read(study, design.TRUTH)["cases"].items()}
    for facts in found.values():
        facts["labels"] = records.labels_dict(facts["labels"])
    return found
