"""Work in the background: in order, bounded, and what goes wrong is raised where it is asked for."""

import threading
import time

import pytest

from xelvad.pipeline.support.behind import Behind


def test_without_threads_it_is_done_at_once() -> None:
    done: list[int] = []
    with Behind[int](0) as behind:
        behind.give(lambda: done.append(threading.get_ident()), 1)
        assert done == [threading.get_ident()]
        assert list(behind.done()) == [1]
        assert list(behind.done()) == []


def test_what_is_slow_is_not_waited_for_until_it_must_be() -> None:
    free, done = threading.Event(), []
    with Behind[int](2, waiting=3) as behind:
        behind.give(lambda: (free.wait(30), done.append(0))[1], 0)
        behind.give(lambda: done.append(1), 1)
        assert list(behind.done()) == []
        threading.Timer(0.05, free.set).start()
        behind.give(lambda: done.append(2), 2)  # one more than may wait
        assert next(behind.done()) == 0
        assert sorted(done)[0] == 0
        assert list(behind.done(wait=True)) == [1, 2]


def test_an_error_is_raised_where_it_is_asked_for_and_the_end_waits_for_the_others() -> None:
    started, ended = threading.Event(), []

    def work() -> None:
        started.set()
        time.sleep(0.1)
        ended.append(True)

    def fail() -> None:
        started.wait(30)
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"), Behind[int](2) as behind:  # noqa: PT012
        behind.give(fail, 0)
        behind.give(work, 1)
        list(behind.done(wait=True))
    assert ended == [True]
