"""Work that is finished in the background, while the next is begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(Generic[T]):
    """Pieces of work in threads, a few at a time; a context manager that ends when all of them have.

    Args:
        threads: how many are worked on at once; 0: each is done when it is given.
        waiting: how many may be given and not be done, before giving one more waits.
    """

    def __init__(self, threads: int, waiting: int = 8) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="xelvad-behind") if threads else None
        self._most, self._under_way = waiting, deque[tuple[Future[None], T]]()

    def __enter__(self) -> Behind[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def give(self, work: Callable[[], None], of: T) -> None:
        """Have a piece of work done.

        Args:
            work: what is to be called.
            of: what `done` hands back for it.
        """
        if self._threads is not None:
            self._under_way.append((self._threads.submit(work), of))
            return
        future: Future[None] = Future()
        work()
        future.set_result(None)
        self._under_way.append((future, of))

    def done(self, wait: bool = False) -> Iterator[T]:
        """What was done since, in the order in which it was given.

        Args:
            wait: until all is done; else only until there is room for more.

        Raises:
            Exception: what a piece of work raised.
        """
        while self._under_way:
            future, of = self._under_way[0]
            if not (wait or future.done() or len(self._under_way) >= self._most):
                return
            future.result()
            self._under_way.popleft()
            yield of
