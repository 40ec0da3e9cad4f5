"""Many tasks at a time: results in order, the first refusal in one line, a killed process said so."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from xelvad.errors import UserError
from xelvad.pipeline.experiments.trainings import at_once

WORK = '''
import os, signal, time, torch
from xelvad.errors import UserError

class OddError(UserError):
    """An error that cannot be made of its message alone."""

    def __init__(self, one, other):
        super().__init__(f"{one} is not {other}")

def threads_and_double(task):
    return torch.get_num_threads(), 2 * task

def refuse_three(task):
    if task == 3:
        raise OddError(3, 4)
    return task

def die(task):
    os.kill(os.getpid(), signal.SIGKILL)

def stay(task):
    with open(os.path.join(os.path.dirname(__file__), f"at-work-{task}"), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
'''


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Functions that other processes can import."""
    (tmp_path / "work_of_test_trainings.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("work_of_test_trainings")


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks_each_by_one_thread(work: ModuleType, workers: int) -> None:
    report, before = Told(), torch.get_num_threads()
    assert at_once(work.threads_and_double, range(5), workers, report) == [(1, 2 * task) for task in range(5)]
    assert [line.partition(",")[0] for line in report.lines] == [f"{done} of 5 trainings" for done in range(1, 6)]
    assert torch.get_num_threads() == before


def test_no_tasks_have_no_results(work: ModuleType) -> None:
    assert at_once(work.threads_and_double, [], 2) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_refusal_is_told_in_its_words(work: ModuleType, workers: int) -> None:
    with pytest.raises(UserError, match=r"^3 is not 4$"):
        at_once(work.refuse_three, range(6), workers)


def test_a_process_that_is_killed_is_no_traceback(work: ModuleType) -> None:
    with pytest.raises(UserError, match="was killed, perhaps for want of memory"):
        at_once(work.die, range(3), 2)


def test_no_process_outlives_the_one_that_was_killed(work: ModuleType, tmp_path: Path) -> None:
    script = "from xelvad.pipeline.experiments.trainings import at_once; import work_of_test_trainings as work; "
    script += "at_once(work.stay, range(2), 2)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    files = [tmp_path / f"at-work-{task}" for task in range(2)]
    waited_for(lambda: all(file.exists() and file.read_text() for file in files), "no process began")
    parent.kill()
    parent.wait()
    waited_for(lambda: not any(is_alive(int(file.read_text())) for file in files), "a process outlives its parent")


def waited_for(condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
