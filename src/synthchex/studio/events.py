"""How tabs answer the page: errors as messages, events in the order in which they came."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gradio as gr

FORESEEN = (ValueError, OSError, RuntimeError, ImportError)
# One at a time, in order: keys that are pressed fast neither overtake each other nor are left out.
IN_ORDER: dict[str, Any] = {
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
    "show_progress": "hidden",
    "api_visibility": "private",
}
ONCE: dict[str, Any] = {"concurrency_limit": 1, "trigger_mode": "once", "api_visibility": "private"}


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose foreseeable errors are messages on the page."""
    if inspect.isgeneratorfunction(act):

        @wraps(act)
        def each(*given: Any, **named: Any) -> Iterator[Any]:
            try:
                yield from act(*given, **named)
            except FORESEEN as error:
                raise message(error) from None

        return each

    @wraps(act)
    def once(*given: Any, **named: Any) -> Any:
        try:
            return act(*given, **named)
        except FORESEEN as error:
            raise message(error) from None

    return once


def message(error: Exception) -> Exception:
    """What the page shows of an error: its words, without a trace."""
    words = str(error) or type(error).__name__
    return gr.Error(words, duration=None, print_exception=False, title="This did not work")
