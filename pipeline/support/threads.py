"""Threads: one for small computations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SMALL = 5e5  # numbers that a computation looks at


@contextmanager
def few_threads(numbers: float) -> Iterator[None]:
    """One thread where little is computed at a time: two gain nothing then, and wait for each other on a busy machine.

    For ten times as long as they compute, on two cores of which one has other work.

    Args:
        numbers: that each computation looks at.
    """
    import torch

    before = torch.get_num_threads()
    if numbers < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
