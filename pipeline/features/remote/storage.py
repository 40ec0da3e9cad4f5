"""A folder at a URL: what is asked of fsspec, with bounded patience, and what goes wrong said in one line.

Object stores put a file in its place as a whole; elsewhere one is written under another name and moved there.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ....errors import UserError
from .address import RemoteFolder

T = TypeVar("T")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
WAITS = (2.0, 10.0)  # seconds before a request is tried again, beside what the libraries try themselves
AT_ONCE, BATCH = 32, 256  # requests at once, and files that are asked for by them
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}  # that are in no extra
VERSIONS = ("ETag", "etag", "generation", "md5Hash")  # any of these says which version it is, else its time
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
# Else s3fs asks for the size of every file before it reads it, in order to read parts of large ones at once.
OPTIONS = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}}
# Kinds of store that can make a file unless it is there, as one step; fsspec's own way for all others looks first.
EXCLUSIVE = {"s3", "gs", "gcs", "abfs", "file", "memory"}
WHOLE = {"s3", "gs", "gcs", "abfs"}  # kinds whose files appear as a whole
FIRST_STAMP, STAMPS = 10**18, 2**58  # nanoseconds since 1970: years 2001 to 2010
_one_at_a_time = threading.Lock()  # for the store in memory, of this process


class RemoteError(UserError, OSError):
    """A store that cannot be reached, or refuses; one line, with its URL."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as the store describes it.

    Attributes:
        size: bytes.
        stamp: a number for this version of it, in `STAMPS` from `FIRST_STAMP` on.
        modified: seconds since 1970 by the store's clock; 0 where it does not say.
    """

    size: int
    stamp: int
    modified: float


class Storage:
    """The files below a URL, by their names relative to it.

    Args:
        remote: the URL.

    Raises:
        UserError: no such kind of URL, or its package is not installed.
    """

    def __init__(self, remote: RemoteFolder) -> None:
        self.url = remote.url
        self._system, self._root = _connect(remote)
        protocols = self._system.protocol
        self._kinds = {protocols} if isinstance(protocols, str) else set(protocols)
        self._keeps_apart = False  # known to make no file twice
        self._answered = False  # once it has, a failure is taken for one that will pass
        self._clock: tuple[float, float] | None = None  # when it was asked the time, and what it said

    def files(self, under: str = "") -> Iterator[tuple[str, Found]]:
        """All files below a folder: one listing, however many there are.

        Raises:
            UserError: the store cannot be reached, refuses, or has no such bucket.
        """
        try:
            found = self._ask(self._system.find, self._path(under), detail=True)
        except FileNotFoundError as error:
            raise self._error("there is no such bucket or folder", error) from error
        yield from self._named(found)

    def beginning(self, name: str) -> Iterator[tuple[str, Found]]:
        """The files of one folder whose names begin alike.

        Raises:
            UserError: as `files`.
        """
        folder, _, prefix = name.rpartition("/")
        keyword = {"prefix": prefix} if self._kinds & WHOLE else {}
        with suppress(FileNotFoundError):
            for found, about in self._named(self._ask(self._system.find, self._path(folder), detail=True, **keyword)):
                if found.startswith(name):
                    yield found, about

    def look(self, name: str) -> Found | None:
        """A file as it is now; None where there is none.

        Raises:
            UserError: as `files`.
        """
        try:
            about = self._ask(self._system.info, self._path(name))
        except FileNotFoundError:
            return None
        return _found(about) if about["type"] == "file" else None

    def look_at(self, beginning: str, endings: Sequence[str]) -> dict[str, Found | None]:
        """Several files whose names begin alike, as by `look`, with one request where that is possible.

        Raises:
            UserError: as `files`.
        """
        names = [beginning + ending for ending in endings]
        if self._kinds & WHOLE:
            found = dict(self.beginning(beginning))
            return {name: found.get(name) for name in names}
        return {name: self.look(name) for name in names}

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The contents of small files, many at once; those that are gone are left out.

        Raises:
            UserError: as `files`.
        """
        if len(names) == 1:
            found = self._read(names[0])
            if found is not None:
                yield names[0], found
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="xelvad-read") as threads:
            for start in range(0, len(names), BATCH):  # so much is held in memory
                some = names[start : start + BATCH]
                for name, found in zip(some, threads.map(self._read, some), strict=True):
                    if found is not None:
                        yield name, found

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._ask(self._system.cat_file, self._path(name))
        except FileNotFoundError:
            return None
        return content

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to a local path, however large it is.

        Raises:
            FileNotFoundError: it is gone.
            UserError: as `files`.
        """
        self._ask(self._system.get_file, self._path(name), str(path))

    def put(self, path: Path, name: str) -> None:
        """Copy a local file to its place, as a whole or not at all.

        Raises:
            UserError: as `files`.
        """
        self._write(name, lambda place: self._system.put_file(str(path), place))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, as a whole or not at all.

        Raises:
            UserError: as `files`.
        """
        self._write(name, lambda place: self._system.pipe_file(place, content))

    def _write(self, name: str, write: Callable[[str], object]) -> None:
        final = self._path(name)
        if self._kinds & WHOLE:
            self._ask(self._making, write, final)
            return
        temporary = f"{final.rpartition('/')[0]}/.{secrets.token_hex(8)}.tmp"
        try:
            self._ask(self._making, write, temporary)
            self._ask(self._system.mv, temporary, final)
        except BaseException:
            with suppress(Exception):
                self._system.rm_file(temporary)
            raise

    def _making(self, write: Callable[[str], T], path: str) -> T:
        """Write, with the folder where folders are made; a bucket that is missing stays missing."""
        try:
            if not self._kinds & WHOLE:
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            return write(path)
        except FileNotFoundError as error:
            raise self._error("there is no such bucket or folder", error) from error

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless there is one; of many who try, one does.

        Raises:
            UserError: as `files`, or this kind of store cannot promise it.
        """
        if not self._keeps_apart:
            self._keeps_apart = self._check_exclusive()
        return self._make(name, content) or any(found == content for _, found in self.read([name]))  # a lost answer

    def _make(self, name: str, content: bytes) -> bool:
        try:
            self._ask(self._making, lambda path: self._create(path, content), self._path(name))
        except FileExistsError:
            return False
        return True

    def _check_exclusive(self) -> bool:
        """Try whether one file can be made twice: some servers of S3's protocol pass over the condition."""
        name, kept_apart = f".{secrets.token_hex(8)}.tmp", False
        if self._kinds & EXCLUSIVE:
            kept_apart = self._make(name, b"first") and not self._make(name, b"second")
            self.remove(name)
        if not kept_apart:
            raise UserError(
                f"{self.url}: features can be read from here, but not made: this store cannot make a file unless it is "
                "there, by which a video is done once; extract into a folder, and copy it"
            )
        return True

    def _create(self, path: str, content: bytes) -> None:
        if "file" in self._kinds:
            with self._system.open(path, "xb") as file:
                file.write(content)
        elif "memory" in self._kinds:
            with _one_at_a_time:
                self._system.pipe_file(path, content, mode="create")
        else:
            try:
                self._system.pipe_file(path, content, mode="create")
            except OSError as error:  # two at once, or a condition that was not met
                if isinstance(error, FileExistsError) or "Conflict" in str(error) or "PreconditionFailed" in str(error):
                    raise FileExistsError(path) from error
                raise

    def remove(self, name: str) -> None:
        """Remove a file, which may be gone.

        Raises:
            UserError: as `files`.
        """
        with suppress(FileNotFoundError):
            self._ask(self._system.rm_file, self._path(name))

    def now(self, under: str) -> float:
        """The time by the store's clock, which is asked now and then by a file that is written and removed."""
        if self._clock is None or time.monotonic() - self._clock[0] > 600:
            name = f"{under}/.{secrets.token_hex(8)}.tmp"
            self.write(name, b"what is the time?")
            about = self.look(name)
            self.remove(name)
            said = about.modified if about is not None and about.modified else time.time()
            self._clock = time.monotonic(), said
        return self._clock[1] + time.monotonic() - self._clock[0]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _named(self, found: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Found]]:
        """By names relative to the URL; what would leave the folder is nobody's."""
        beginning = self._root.rstrip("/") + "/"
        for path, about in found.items():
            name = path[len(beginning) :]
            if path.startswith(beginning) and name and ".." not in PurePosixPath(name).parts and name[0] != "/":
                yield name, _found(about)

    def _ask(self, request: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        for wait in (*(WAITS if self._answered else ()), None):
            try:
                answer = request(*arguments, **keywords)
            except (FileNotFoundError, FileExistsError, UserError):
                self._answered = True
                raise
            except PermissionError as error:
                raise self._error("no permission", error) from error
            except Exception as error:  # every library has errors of its own
                if isinstance(error, OSError) and error.errno in NO_ROOM:  # on this machine
                    raise
                if wait is None:
                    raise self._error("cannot be reached", error) from error
                time.sleep(wait)
            else:
                self._answered = True
                return answer
        raise AssertionError("the last try ends it")

    def _error(self, what: str, error: BaseException) -> RemoteError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return RemoteError(f"{self.url}: {what} ({reason})")


def _connect(remote: RemoteFolder) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"{remote.url}: for features at a URL, pip install 'xelvad[remote]'") from error
    try:
        system, root = fsspec.core.url_to_fs(remote.url, **OPTIONS.get(remote.scheme, {}), use_listings_cache=False)
    except ImportError as error:
        more = f" {PACKAGES[remote.scheme]}" if remote.scheme in PACKAGES else ""
        raise UserError(f"{remote.url}: for features there, pip install 'xelvad[remote]'{more} ({error})") from error
    except ValueError as error:
        raise UserError(f"{remote.url}: not a URL that fsspec knows ({error})") from error
    except Exception as error:
        raise RemoteError(f"{remote.url}: cannot be reached ({' '.join(str(error).split())})") from error
    root = root.rstrip("/")
    if not root:
        raise UserError(f"{remote.url}: names no bucket or folder")
    return system, root


@lru_cache(maxsize=16)
def storage_of(remote: RemoteFolder) -> Storage:
    """The one connection of this process to a URL.

    Raises:
        UserError: as `Storage`.
    """
    return Storage(remote)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=storage_of.cache_clear)


def _found(about: dict[str, Any]) -> Found:
    size = int(about["size"] or 0)
    modified = next((_seconds(about[key]) for key in TIMES if about.get(key)), 0.0)
    version = next((about[key] for key in VERSIONS if about.get(key)), modified)
    stamp = int.from_bytes(sha256(f"{size} {version}".encode()).digest()[:8], "big") % STAMPS
    return Found(size, FIRST_STAMP + stamp, modified)


def _seconds(value: Any) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str):
        with suppress(ValueError):
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        return 0.0
    return float(value)
