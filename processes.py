"""Processes: who made a file, and whether it still runs, told from a few words beside the file."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PROC = Path("/proc")
TAG_LETTERS = 32 + 1 + 12 + 1 + 10 + 1 + 20  # at most


@dataclass(frozen=True)
class Owner:
    """A process, on whatever machine.

    Attributes:
        host: the machine's name, for people.
        system: where process numbers mean the same: one boot of one machine, and there one container.
        pid: its number.
        start: when it began, in clock ticks since the boot; 0 where the system does not say. A number that was given
            out again belongs to a process that began at another time.
    """

    host: str
    system: str
    pid: int
    start: int

    @classmethod
    def this(cls) -> Owner:
        """The process that asks."""
        pid = os.getpid()  # asked anew each time: it may have been forked since
        return cls(socket.gethostname(), _system(), pid, _start_of(pid))

    @property
    def is_here(self) -> bool:
        """Whether it can be known from here if the process still runs."""
        return os.name == "posix" and self.system == _system()

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that the process does not run any more."""
        if not self.is_here:
            return False
        with suppress(PermissionError):  # it runs, for another user
            try:
                os.kill(self.pid, 0)
            except (ProcessLookupError, OverflowError):
                return True
        status = _status_of(self.pid)
        return status is not None and (status[0] in "ZX" or (self.start > 0 and status[1] != self.start))

    @property
    def tag(self) -> str:
        """The process as a part of file names, of at most `TAG_LETTERS`: host, system, pid and start."""
        host = re.sub(r"[^A-Za-z0-9-]", "-", self.host)[:32]
        return f"{host}-{self.system}.{self.pid}.{self.start}"


def owner_of(tag: str) -> Owner | None:
    """The process that an `Owner.tag` names; None where it is none."""
    parts = re.fullmatch(r"([A-Za-z0-9-]*)-([0-9a-f]{12})\.(\d{1,10})\.(\d{1,20})", tag)
    return Owner(parts[1], parts[2], int(parts[3]), int(parts[4])) if parts else None


@lru_cache(maxsize=1)
def _system() -> str:
    """A name for where process numbers mean the same.

    Machines may share a name, containers share one with their machine, and each has a process of number 1.
    """
    about = [socket.gethostname()]
    with suppress(OSError):
        about.append((PROC / "sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        about.append(str((PROC / "self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]


def _start_of(pid: int) -> int:
    status = _status_of(pid)
    return status[1] if status is not None else 0


def _status_of(pid: int) -> tuple[str, int] | None:
    """A process's state, a letter, and when it began; None where the system does not say."""
    try:
        # The name in parentheses may hold anything, parentheses and blanks too.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
