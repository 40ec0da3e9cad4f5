"""What runs on a node of the cluster: a process that does tasks, and can be asked meanwhile how far it is."""

from __future__ import annotations

import os
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


class StoppedError(Exception):
    """The work in hand is not wanted any more."""


class Pulse:
    """How far the work in hand is, and whether it is wanted. One thread beats, another looks."""

    def __init__(self) -> None:
        self.units = 0  # since the process began
        self._stop = threading.Event()

    def beat(self, units: int = 1) -> None:
        """Count units as done.

        Raises:
            StoppedError: stop, and leave nothing half done.
        """
        if self._stop.is_set():
            raise StoppedError
        self.units += units

    def stop(self) -> None:
        """Have the next `beat` raise."""
        self._stop.set()


@dataclass(frozen=True)
class Where:
    """A process of the cluster.

    Attributes:
        node: Ray's number of its node.
        host: the node's name, for people.
        pid: its number there.
        log: where what it prints goes, on that node; None where the system does not say.
    """

    node: str
    host: str
    pid: int
    log: str | None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Elsewhere:
    """A task cannot be done on this node, and perhaps on another."""

    reason: str


Work = Callable[[Sequence[Task], Pulse], Sequence[Result | Elsewhere]]  # a result for each task, in their order


@dataclass(frozen=True)
class Done:
    """What came of tasks, in their order, and the units that the process has done since it began."""

    results: Sequence[Any]
    units: int


@dataclass(frozen=True)
class Refused:
    """The request itself was wrong, or the disk is full: no other try will end otherwise. One line, for people."""

    reason: str


@dataclass(frozen=True)
class Broken:
    """Something went wrong that nobody expected; errors do not come through a pipe, their words do."""

    reason: str


class Actor(Generic[Task, Result]):
    """Does tasks, in a process of its own on some node.

    Args:
        make: gives what does the tasks; called once, for the first of them.
        folder: to work in, where it is there: paths may be relative to it.
    """

    def __init__(self, make: Callable[[], Work[Task, Result]], folder: Path) -> None:
        self._make = make
        self._work: Work[Task, Result] | None = None
        self._pulse = Pulse()
        with suppress(OSError):
            os.chdir(folder)

    def where(self) -> Where:
        """Which process this is."""
        import ray

        log = None
        with suppress(OSError):
            log = str(Path("/proc/self/fd/2").readlink())
        return Where(str(ray.get_runtime_context().get_node_id()), socket.gethostname(), os.getpid(), log)

    def do(self, tasks: Sequence[Task]) -> Done | Refused | Broken | None:
        """Do some tasks; None where it was told to stop. Raises nothing: Ray's retries do not cover what is raised."""
        try:
            if self._work is None:
                self._work = self._make()
            return Done(self._work(tasks, self._pulse), self._pulse.units)
        except StoppedError:
            return None
        except UserError as error:
            return Refused(str(error))
        except OSError as error:
            return Refused(f"{error.filename or 'the system'}: {error.strerror or error} (on {socket.gethostname()})")
        except Exception as error:
            return Broken(_words(error))

    def units(self) -> int:
        """How much it has done since it began; may be asked while it works."""
        return self._pulse.units

    def stop(self) -> None:
        """Let it drop what it has in hand; may be asked while it works."""
        self._pulse.stop()


def _words(error: Exception) -> str:
    place: Any = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(place[-1].filename).name}, line {place[-1].lineno})" if place else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
