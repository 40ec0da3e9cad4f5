"""What all tests may ask for: videos made on the spot, the folder with real data, and a single thread."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from .helpers.footage import Footage

SHARED = Path(os.environ.get("XELVAD_SHARED") or Path(__file__).parents[2] / "shared" / "data")  # official lists


@pytest.fixture(scope="session")
def footage() -> Footage:
    return Footage()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with official lists and real videos."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: XELVAD_SHARED names the folder with the official lists")
    return SHARED


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine small computations wait for their threads far longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
