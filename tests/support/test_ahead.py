"""Work that is done ahead of time: the same results, in order, and no thread that outlives them."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from xelvad.pipeline.support.ahead import ahead


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_results_come_in_order_and_none_is_missing(length: int, count: int) -> None:
    assert list(ahead(iter(range(length)), count)) == list(range(length))
    assert list(ahead([None] * length, count)) == [None] * length
    assert workers() == []


def test_no_more_than_asked_for_are_made_before_their_time() -> None:
    made: list[int] = []
    third = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    with closing(ahead(numbers(), 2)) as results:
        assert next(results) == 0
        assert not third.wait(0.2)
        assert next(results) == 1
        assert third.wait(10), "while the second is in use, the third is made"
        assert len(made) <= 4
    assert workers() == []


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    def numbers() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyError("two")

    found = []
    with pytest.raises(KeyError, match="two"):
        found.extend(ahead(numbers(), 3))
    assert workers() == []


def test_results_are_made_in_another_thread() -> None:
    threads = list(ahead(threading.current_thread() for _ in range(3)))
    assert threading.current_thread() not in threads
    assert len(set(threads)) == 1
