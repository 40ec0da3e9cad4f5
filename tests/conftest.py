"""What all tests may ask for: videos made on the spot, the folder with real data, and a single thread."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits
from xdist.scheduler import LoadFileScheduling

from .helpers.footage import Footage

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # each process has its share of the cores, and so has what it starts
    THREADS = max(1, (os.cpu_count() or 1) // WORKERS)
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    torch.set_num_threads(THREADS)

SHARED = Path(os.environ.get("XELVAD_SHARED") or Path(__file__).parents[2] / "shared" / "data")  # official lists


class ByWhatIsShared(LoadFileScheduling):
    """Tests of a file go to the same process, and so do those of a folder with a server or a cluster of its own."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        folder = str(PurePosixPath(file).parent)
        return folder if folder.endswith(("/cluster", "/remote")) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return ByWhatIsShared(config, log)


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
