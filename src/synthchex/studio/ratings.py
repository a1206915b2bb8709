"""What a person says of films: one CSV per reader, only ever added to, in the form that `synthchex calibrate` takes.

A film that is rated again stands there twice; its last row counts, for `calibrate` too.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import threading
from pathlib import Path

from synthchex.data import records

TAKEN_BACK = ""


class Ratings:
    """Ratings of one reader. A rating that `add` returned from is on the disk."""

    def __init__(self, path: Path, reader: str) -> None:
        if not reader.strip() or reader.strip() == "id" or any(sign in reader for sign in '",\r\n'):
            raise ValueError(f"expected a reader's name without quotes and commas that is not id, got {reader!r}")
        self.path, self.reader, self.lock = path, reader.strip(), threading.Lock()
        self.found: dict[str, str] = {}
        if path.exists():
            with path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._begin(file.fileno())

    def __len__(self) -> int:
        """Films that have a rating."""
        return sum(bool(quality) for quality in self.found.values())

    def of(self, film: str) -> str | None:
        """The class that the reader gave a film last; None where there is none, or it was taken back."""
        return self.found.get(film) or None

    def add(self, film: str, quality: str) -> None:
        """Write down one rating; `TAKEN_BACK` takes back the one before.

        Raises:
            ValueError: it is none of the four classes.
            OSError: it cannot be written; nothing is remembered then.
        """
        if quality not in (*records.QUALITIES, TAKEN_BACK):
            raise ValueError(f"expected a class among {list(records.QUALITIES)}, got {quality!r}")
        with self.lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                head = b"" if os.fstat(file.fileno()).st_size else _line("id", self.reader)
                _append(file.fileno(), head + _line(film, quality))
            self.found[film] = quality

    def _begin(self, file: int) -> None:
        """Read what is there; mend a last line that a machine which died has left without its end."""
        whole = self.path.read_bytes()
        if not whole:
            return
        end = whole.rfind(b"\n") + 1
        rows = list(csv.reader(io.StringIO(whole.decode("utf-8"))))
        if rows[0] != ["id", self.reader]:
            raise ValueError(
                f"expected the columns id and {self.reader} in {self.path}, got {rows[0]}; give each reader a file"
            )
        if end < len(whole):
            if self._is_rating(rows[-1]):
                _append(file, b"\n")
            else:
                os.ftruncate(file, end)
                rows.pop()
        if wrong := next((number for number, row in enumerate(rows[1:], 2) if not self._is_rating(row)), None):
            raise ValueError(
                f"expected an id and one of {list(records.QUALITIES)} in line {wrong} of {self.path}, "
                f"got {rows[wrong - 1]}; mend it"
            )
        self.found = {row[0]: row[1] for row in rows[1:]}

    @staticmethod
    def _is_rating(row: list[str]) -> bool:
        return len(row) == 2 and row[1] in (*records.QUALITIES, TAKEN_BACK)


def _line(*cells: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8")


def _append(file: int, line: bytes) -> None:
    """Add a line that is on the disk afterwards; where that fails, the file is as it was."""
    before = os.fstat(file).st_size
    try:
        written = os.write(file, line)
        if written != len(line):
            raise OSError(errno.ENOSPC, f"expected to write {len(line)} bytes, wrote {written}; free some space")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise
