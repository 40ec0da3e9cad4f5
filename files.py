"""Files that are whole or absent: written under a temporary name beside their place, flushed, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .processes import TAG_LETTERS, Owner, owner_of

NAME_BYTES = 255  # of a file's name, on nearly every file system
LARGE, LATELY = 1000, 10.0  # files in a folder, and seconds in which it is not looked through again
DAY = 86400.0  # seconds after which what a process on another machine left behind is nobody's
TEMPORARY = re.compile(r"\.(?P<owner>[^.]+\.\d+\.\d+)\.[0-9a-f]{8}\.tmp$")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # of the file that is being written


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends, and vanishes if it ends with an error.

    The temporary name is this call's own: whoever else writes the same file at the same time writes another, and the
    last to end has its place. What a killed process left behind of the same file goes with the next one's.

    Args:
        path: the file; folders that are missing are made.

    Yields:
        The file to write to.

    Raises:
        OSError: it cannot be written: no room, no permission. It names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent, path.name)
    temporary = path.with_name(f"{_beginning(path.name)}.{Owner.this().tag}.{secrets.token_hex(4)}.tmp")
    file = temporary.open("xb")
    try:
        with naming(path):
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # on a full disk, closing tries once more to write what is left, and fails once more
            file.close()
        temporary.unlink(missing_ok=True)
        if str(path.parent) in _looked:
            _looked[str(path.parent)].changed = path.parent.stat().st_mtime_ns  # by ourselves


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of writing to an open file, such as a full disk, name the file: the system does not.

    Args:
        path: the file that is written in this block.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            error.filename = str(path)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none.

    Raises:
        OSError: as `replacing`.
    """
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or none.

    Raises:
        OSError: as `replacing`.
    """
    write_bytes(path, text.encode())


@dataclass
class _Look:
    """What is known of a folder since it was looked through for leftovers."""

    changed: int  # nanoseconds: when it was changed last, but for what this process changed since
    entries: int
    at: float


_looked: dict[str, _Look] = {}


def _sweep(folder: Path, name: str) -> None:
    """Look for leftovers, unless nobody else has changed the folder since: time must not grow with what lies in it.

    A large one that others write to as well is looked through now and then.
    """
    known, changed = _looked.get(str(folder)), folder.stat().st_mtime_ns
    if known is not None:
        lately = known.entries > LARGE and time.monotonic() - known.at < LATELY
        if known.changed == changed or lately:
            return
    if len(_looked) > LARGE:
        _looked.clear()
    _looked[str(folder)] = _Look(changed, remove_leftovers(folder, name), time.monotonic())


def remove_leftovers(folder: Path, name: str | None = None) -> int:
    """Remove temporary files of processes that are gone; those of others, and of other machines, stay for a day.

    Args:
        folder: where; what is below it is not looked at. It may be missing.
        name: of the file that they were to become; None for any.

    Returns:
        How many files and folders there were.
    """
    entries = _entries(folder)
    for entry in entries:
        if _is_left(entry, name):
            with suppress(OSError):  # another was first, or it is another user's
                Path(entry.path).unlink()
    return len(entries)


def leftovers(folder: Path) -> list[Path]:
    """What `remove_leftovers` would remove, in order.

    Args:
        folder: where; what is below it is not looked at. It may be missing.
    """
    return sorted(Path(entry.path) for entry in _entries(folder) if _is_left(entry, None))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _is_left(entry: os.DirEntry[str], name: str | None) -> bool:
    if not (entry.name.endswith(".tmp") and entry.name.startswith(".")):
        return False
    found = TEMPORARY.search(entry.name)
    owner = owner_of(found["owner"]) if found else None
    if found is None or owner is None:  # of a version whose processes shared this name
        return name is not None and entry.name == f".{name}.tmp" and _is_old(entry)
    if name is not None and entry.name[: found.start()] != _beginning(name):
        return False
    return owner.is_gone if owner.is_here else _is_old(entry)


def _is_old(entry: os.DirEntry[str]) -> bool:
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
    except OSError:
        return False


def _beginning(name: str) -> str:
    """What temporary files of ``name`` begin with: hidden, and short enough for a name of any length."""
    room = NAME_BYTES - len(".") - len(".") - TAG_LETTERS - len(".01234567.tmp")
    return "." + name.encode(errors="surrogateescape")[:room].decode(errors="ignore")


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, too, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
