"""Leases: "this process works on it now", for processes that share a folder, on one machine or on several.

A lease is a small hidden file that exactly one process can make. Its process touches it now and then for as long as it
works, so that the lease of one that was killed is told from one that is held: on the same machine because its process
is gone, on another because it has not been touched for minutes. Such a lease may be taken over, by exactly one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from .files import NAME_BYTES
from .processes import Owner

SUFFIX = ".lease"
BEAT_SECONDS = 20.0  # between two touches
STALE_SECONDS = 180.0  # untouched for so long, the lease of another machine is nobody's
BLANK_SECONDS = 10.0  # a lease whose process was killed before it had put its name down
ATTEMPTS = 100  # a lease that comes and goes so often while it is being taken is held by others

_held: set[Lease] = set()
_lock = threading.Lock()  # over what is held, and over whether there is a thread that touches it
_is_beating = False


class Lease:
    """What `try_acquire` gave to this process; a context manager that ends with `release`.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.path, self._token, self._pid = path, token, os.getpid()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def is_ours(self) -> bool:
        """Whether it still is: a process that was asleep for minutes may have lost it."""
        seen = _look(self.path)
        return seen is not None and seen.token == self._token

    def release(self) -> None:
        """Let others have it. A process that was forked since does nothing: the lease is not its own."""
        if self._pid != os.getpid():
            return
        with _lock:
            _held.discard(self)
        if self.is_ours:
            self.path.unlink(missing_ok=True)

    def _touch(self) -> None:
        with suppress(OSError):  # the next touch may go well, and a lease that was lost is noticed by nobody's harm
            if self.is_ours:
                os.utime(self.path)


def beside(target: Path) -> Path:
    """Where the lease on a file lies: beside it, hidden.

    Args:
        target: the file; it need not exist.
    """
    name = f".{target.name}{SUFFIX}"
    if len(name.encode(errors="surrogateescape")) > NAME_BYTES:
        name = f".{hashlib.sha256(target.name.encode(errors='surrogateescape')).hexdigest()}{SUFFIX}"
    return target.with_name(name)


def try_acquire(path: Path) -> Lease | None:
    """Take a lease, unless another process, or another part of this one, holds it.

    Args:
        path: of the lease, such as `beside` gives; folders that are missing are made.

    Returns:
        The lease, to be released; None where somebody holds it.

    Raises:
        OSError: the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lease = _take(path)
    if lease is not None:
        _keep_alive(lease)
    return lease


def holder(path: Path) -> Owner | None:
    """Who holds a lease; None where nobody does, or has not put its name down yet.

    Args:
        path: of the lease.
    """
    seen = _look(path)
    return None if seen is None or seen.is_stale else seen.owner


def remove_stale(folder: Path) -> None:
    """Remove the leases of processes that are gone.

    Args:
        folder: where; what is below it is not looked at. It may be missing.
    """
    for path in stale(folder):
        remove_if_stale(path)


def stale(folder: Path) -> list[Path]:
    """The leases of processes that are gone, in order.

    Args:
        folder: where; what is below it is not looked at. It may be missing.
    """
    return [path for path in sorted(folder.glob(f".*{SUFFIX}")) if _is_stale(path)]


def remove_if_stale(path: Path) -> bool:
    """Remove a lease, if its process is gone; returns whether there is none now.

    Args:
        path: of the lease.
    """
    with suppress(OSError):  # another user's, or a folder that is not to be written to
        seen = _look(path)
        if seen is not None and seen.is_stale:
            _remove(path, seen.token)
        return _look(path) is None
    return False


def _is_stale(path: Path) -> bool:
    with suppress(OSError):
        seen = _look(path)
        return seen is not None and seen.is_stale
    return False


@dataclass(frozen=True)
class _Seen:
    """A lease as it was found."""

    path: Path
    token: str  # no other lease has, had or will have it
    owner: Owner | None  # None: not put down yet, or never
    touched: float

    @property
    def is_stale(self) -> bool:
        if self.owner is not None and self.owner.is_here:
            return self.owner.is_gone
        return _now(self.path.parent) - self.touched > (BLANK_SECONDS if self.owner is None else STALE_SECONDS)


def _look(path: Path) -> _Seen | None:
    try:
        with path.open("rb") as file:
            text, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # gone, says a network's file system
            return None
        raise
    try:
        fields = json.loads(text)
        owner = Owner(str(fields["host"]), str(fields["system"]), int(fields["pid"]), int(fields["start"]))
        token = str(fields["token"])
        if owner.pid < 1 or not token.isalnum():  # the token becomes a part of a file's name
            raise ValueError(text)
        return _Seen(path, token, owner, status.st_mtime)
    except (ValueError, KeyError, TypeError):
        return _Seen(path, f"{status.st_ino:x}-{status.st_mtime_ns:x}", None, status.st_mtime)


def _take(path: Path) -> Lease | None:
    for _ in range(ATTEMPTS):
        lease = _create(path)
        if lease is not None:
            return lease
        seen = _look(path)
        if seen is not None and (not seen.is_stale or not _remove(path, seen.token)):
            return None
    return None


def _create(path: Path) -> Lease | None:
    token = secrets.token_hex(8)
    text = json.dumps(asdict(Owner.this()) | {"time": time.time(), "token": token})
    try:
        number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    try:
        try:
            os.write(number, text.encode())
        finally:
            os.close(number)
    except OSError as error:  # a full disk
        path.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    lease = Lease(path, token)
    return lease if lease.is_ours else None  # else it was blank for so long that another has taken it over


def _remove(path: Path, token: str) -> bool:
    """Remove a stale lease; False where another process is about to.

    Between looking and removing, another may have removed it, and taken it: it would lose a lease that it holds. So who
    removes a lease first takes a lease on removing this very one. It is looked at again under that one; as the name of
    a lease that is there is given to no other, nobody but its removers can have taken it away.
    """
    guard = _take(path.with_name(f".{token}{SUFFIX}"))
    if guard is None:
        return False
    with guard:
        seen = _look(path)
        if seen is not None and seen.token == token:
            path.unlink(missing_ok=True)
    return True


def _now(folder: Path) -> float:
    """The time by the clock that dates the files of a folder, which may be another machine's."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _keep_alive(lease: Lease) -> None:
    global _is_beating  # noqa: PLW0603 - one thread for all leases of a process
    with _lock:
        _held.add(lease)
        if not _is_beating:
            threading.Thread(target=_beat, daemon=True, name="xelvad-leases").start()
            _is_beating = True


def _beat() -> None:
    global _is_beating  # noqa: PLW0603
    while True:
        time.sleep(BEAT_SECONDS)
        with _lock:
            held = list(_held)
            _is_beating = bool(held)
        for lease in held:
            lease._touch()
        if not held:
            return


def _after_fork() -> None:
    """A forked process has the names of its parent's leases, and neither the leases nor the thread."""
    global _lock, _is_beating
    _lock, _is_beating = threading.Lock(), False
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
