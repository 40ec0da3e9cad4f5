"""Work that is done in the background before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")

DONE = object()


def ahead(results: Iterable[T], count: int = 2) -> Iterator[T]:
    """The same results in the same order, up to ``count`` of them made in a thread before they are asked for.

    What goes wrong in the thread is raised where its result would have come. It ends with the iterator.
    """
    source = iter(results)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
        waiting: deque[Future[T | object]] = deque()
        try:
            while True:
                while len(waiting) < count:
                    waiting.append(worker.submit(next, source, DONE))
                result = waiting.popleft().result()
                if result is DONE:
                    return
                yield cast(T, result)
        finally:
            worker.shutdown(wait=True, cancel_futures=True)
