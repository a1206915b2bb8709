"""The command line's common ground: parsers with examples, errors in one line, exit codes, progress.

Exit codes: 0 done, 1 failed part-way (run the same command to go on), 2 bad input, 3 refused by a gate, 130
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

FAILED, BAD_INPUT, REFUSED, INTERRUPTED = 1, 2, 3, 130


class Parser(argparse.ArgumentParser):
    """`ArgumentParser` that takes --batch-size and --batch_size alike, and shows examples below its options."""

    def __init__(self, *, command: str, description: str, examples: Sequence[str]) -> None:
        epilog = "examples:\n" + "\n".join(f"  {example}" for example in examples)
        super().__init__(
            prog=f"synthchex {command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse after writing every option name with hyphens."""
        words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args([_hyphenated(word) for word in words], namespace)

    def add_common(self) -> None:
        """The options that every command has."""
        group = self.add_argument_group("output")
        group.add_argument("--quiet", action="store_true", help="print results and errors only")
        group.add_argument("--json", action="store_true", help="print the result as one line of JSON on stdout")


def _hyphenated(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `main`, turn foreseeable errors into one line on stderr, and return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, run the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except (OSError, RuntimeError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED


class Progress:
    """A bar on a terminal, a plain line every few seconds elsewhere, nothing when quiet."""

    def __init__(self, title: str, total: int, *, done: int = 0, unit: str = "rows", quiet: bool = False) -> None:
        self.title, self.total, self.done, self.unit, self.quiet = title, total, done, unit, quiet
        self.first, self.said, self.began, self.spoke = done, done, time.monotonic(), time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.done, desc=self.title, unit=f" {self.unit}")
        return self

    def advance(self, done: int) -> None:
        """Say how many are done in all."""
        if self.bar is not None:
            self.bar.update(done - self.done)
        self.done = done
        if self.bar is None and not self.quiet and time.monotonic() - self.spoke >= 5:
            self._say()

    def _say(self) -> None:
        self.said, self.spoke = self.done, time.monotonic()
        rate = (self.done - self.first) / max(self.spoke - self.began, 1e-9)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate > 0 and self.done < self.total else ""
        print(f"{self.title}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif not self.quiet and self.done > self.said:
            self._say()
