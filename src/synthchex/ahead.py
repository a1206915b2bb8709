"""Work done ahead of its use by threads: results in order, few of them in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

Result = TypeVar("Result")


def default_workers() -> int:
    """Threads that decode films when nobody says how many: the CPUs this process may use, at most 4."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


def in_order(work: Callable[[int], Result], count: int, *, num_workers: int, ahead: int) -> Iterator[Result]:
    """`work(0), work(1), …`, computed by threads while the caller uses what came before.

    Args:
        work: of a place; called in any thread, in order of places.
        count: how many places.
        num_workers: threads; 0 works in the caller's own, one at a time.
        ahead: most results that wait for the caller.

    Raises:
        Whatever `work` raises, at its place; work that has not begun is dropped then.
    """
    if num_workers == 0:
        yield from map(work, range(count))
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="synthchex-films") as pool:
        try:
            for place in range(count):
                waiting.append(pool.submit(work, place))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def one_ahead(items: Iterator[Result]) -> Iterator[Result]:
    """The same items, the next of which a thread makes while the caller uses the one before."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="synthchex-ahead") as pool:
        coming: Future[Result | object] = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield cast(Result, item)
