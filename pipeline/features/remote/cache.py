"""Local copies of files that lie elsewhere, in a folder of bounded size: what was used longest ago goes first.

A copy has the time of change that stands for the version that it is of, so that one look at it says whether it is
current, and the time of access when it was used last. Copies lie as the files do, in a features folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ....errors import UserError
from ....extractors.weights import user_cache
from ....files import DAY, replacing, write_text
from ....processes import Owner, owner_of
from .address import RemoteFolder
from .storage import FIRST_STAMP, STAMPS, Found

GB = 10**9
FULL = 0.9  # what is made room for is made room for a little more
USED_SECONDS = 60.0  # precision of when a copy was used
PINS = ".pins"  # suffix of lists of what a process needs all at once


class Cache:
    """The copies of all URLs, of which this process keeps so many bytes at most.

    Args:
        folder: of the copies; each URL has one in it.
        room: bytes.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room
        self._lock = threading.RLock()  # over what is counted
        self._taken: int | None = None  # bytes; None until it was looked through
        self._coming = 0  # bytes of copies that are being made
        self._pins: set[Path] = set()
        self._pin_file: Path | None = None

    def folder_of(self, remote: RemoteFolder) -> Path:
        """Where the copies of a URL lie."""
        folder = self.folder / hashlib.sha256(remote.url.encode()).hexdigest()[:16]
        if not (folder / "url").exists():
            write_text(folder / "url", remote.url + "\n")  # for people
        return folder

    def has(self, path: Path, found: Found) -> bool:
        """Whether a copy is there and current; then it counts as used now."""
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if (status.st_size, status.st_mtime_ns) != (found.size, found.stamp):
            return False
        if time.time() - status.st_atime > USED_SECONDS:
            self._date(path, found)
        return True

    def keep(self, path: Path, found: Found, fill: Callable[[Path], object]) -> None:
        """Make a copy, whole or not at all.

        Args:
            path: of the copy.
            found: the version that it is to be.
            fill: writes it to the path that it is given.

        Raises:
            UserError: there is no room for it.
            OSError: the disk is full, or something else came than was found.
        """
        with self._lock:
            self.make_room(found.size)
            self._coming += found.size
        came = 0
        try:
            with replacing(path, durable=False) as file:
                fill(Path(file.name))
                if (size := Path(file.name).stat().st_size) != found.size:
                    raise OSError(f"{size} bytes, not {found.size}")
                self._date(Path(file.name), found)
            came = found.size
        finally:
            with self._lock:
                self._coming -= found.size
                self._taken = (self._taken or 0) + came

    def adopt(self, path: Path, found: Found) -> None:
        """Have a file that was written here, and to the store, count as the copy of what was found there."""
        if path.stat().st_size == found.size:
            self._date(path, found)
            with self._lock:
                if self._taken is not None:
                    self._taken += found.size
                self.make_room(0)

    def make_room(self, size: int) -> None:
        """Remove the copies that were used longest ago, so that so many bytes more have room.

        Raises:
            UserError: they never have, beside what is needed at once.
        """
        with self._lock:
            if self._taken is None:
                self._taken = sum(size for _, size, _ in self._copies())
            if self._taken + self._coming + size > self.room:
                self._evict(size)

    def _evict(self, size: int) -> None:
        copies, needed = sorted(self._copies()), self._needed_elsewhere() | self._pins
        self._taken = sum(of for _, of, _ in copies)  # of all processes
        for _, of, path in copies:
            if self._taken + self._coming + size <= FULL * self.room:
                break
            if path not in needed:
                path.unlink(missing_ok=True)
                self._taken -= of
        if self._taken + self._coming + size > self.room:
            held = sum(of for _, of, path in copies if path in needed) + self._coming
            raise self._too_small(size + held, f", {held / GB:.3g} of them for what is needed at once")

    def pin(self, wanted: Iterable[tuple[Path, Found]]) -> None:
        """Keep these copies for as long as this process runs: it needs them all at once.

        Raises:
            UserError: they have no room together; says how much they need.
        """
        files = {path: found.size for path, found in wanted}
        total = sum(files.values())
        if total > self.room:
            raise self._too_small(total, " for features that are needed at once")
        self._pins |= files.keys()
        if self._pin_file is None:
            self._pin_file = self.folder / f"{Owner.this().tag}.{secrets.token_hex(4)}{PINS}"
        write_text(self._pin_file, "".join(f"{path.relative_to(self.folder).as_posix()}\n" for path in self._pins))

    def _too_small(self, size: int, why: str) -> UserError:
        return UserError(
            f"{self.folder}: {size / GB:.3g} GB are needed{why}, and {self.room / GB:.3g} may be kept: raise "
            "--cache_gb, or name another disk by XELVAD_CACHE"
        )

    @staticmethod
    def _date(path: Path, found: Found) -> None:
        os.utime(path, ns=(time.time_ns(), found.stamp))

    def _copies(self) -> Iterable[tuple[float, int, Path]]:
        """When it was used last, bytes and path of every copy; what is being written is none."""
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names if not name.endswith(".tmp")):
                with suppress(OSError):  # gone meanwhile
                    status = path.stat()
                    if 0 <= status.st_mtime_ns - FIRST_STAMP < STAMPS:
                        yield status.st_atime, status.st_size, path

    def _needed_elsewhere(self) -> set[Path]:
        """What other processes need, all at once, for as long as they run."""
        needed: set[Path] = set()
        for path in self.folder.glob(f"*{PINS}"):
            owner = owner_of(path.name.removesuffix(PINS).rpartition(".")[0])
            with suppress(OSError):
                ended = owner.is_gone if owner and owner.is_here else time.time() - path.stat().st_mtime > 7 * DAY
                if ended:
                    path.unlink()
                else:
                    needed |= {self.folder / line for line in path.read_text().splitlines()}
        return needed


def cache_of(remote: RemoteFolder) -> Cache:
    """The copies that this process keeps, bounded as the folder says."""
    return _cache(user_cache() / "features", int(remote.cache_gb * GB))


@lru_cache(maxsize=16)
def _cache(folder: Path, room: int) -> Cache:
    return Cache(folder, room)
