"""Many sidecars in a few files, so that a start asks a store for a listing and these, and not for every sidecar.

``<extractor>/.index/*.jsonl.gz`` are written once, each by the process that has just written its sidecars, or had to
ask for them one by one, and are never changed. A sidecar in them counts only for the version of its file that a listing
shows: one that was replaced or removed since is passed over. They may be deleted at any time, which costs time alone.
"""

from __future__ import annotations

import gzip
import io
import json
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping

from .storage import Found, Storage

FOLDER, SUFFIX = ".index", ".jsonl.gz"
WORTH_IT = 64  # sidecars that are worth a file
PART = 1024  # sidecars that a process writes before it leaves a file
MOST_BYTES = 1 << 16  # of a sidecar in one: those that list the time of every frame are asked for one by one


class SidecarIndex:
    """The sidecars of one extractor that are in such files.

    Args:
        storage: of the features folder.
        extractor: whose.
    """

    def __init__(self, storage: Storage, extractor: str) -> None:
        self._storage, self._folder = storage, f"{extractor}/{FOLDER}"
        self._parts: list[str] = []
        self._new: list[tuple[str, Found, bytes]] = []

    def notice(self, names: Iterable[str]) -> None:
        """Take in the names of files that a listing has shown; others than these are passed over."""
        self._parts = [name for name in names if name.startswith(f"{self._folder}/") and name.endswith(SUFFIX)]

    def find(self, wanted: Mapping[str, Found]) -> Iterator[tuple[str, bytes]]:
        """The sidecars of these files, of these very versions, that are in the index, by name; each once.

        Raises:
            UserError: the store cannot be reached.
        """
        left = dict(wanted)
        for part in sorted(self._parts, reverse=True):  # the newest first
            if not left:
                return
            for _, packed in self._storage.read([part]):
                for name, stamp, text in _unpacked(packed):
                    found = left.get(name)
                    if found is not None and (found.stamp, found.size) == (stamp, len(text)):
                        del left[name]
                        yield name, text

    def add(self, name: str, found: Found, text: bytes) -> None:
        """Note a sidecar that is in none, and write it down with the next ones.

        Raises:
            UserError: the store cannot be reached.
        """
        if len(text) <= MOST_BYTES:
            self._new.append((name, found, text))
        if len(self._new) >= PART:
            self.write()

    def finish(self) -> None:
        """Write down what was noted, if it is worth a file."""
        if len(self._new) >= WORTH_IT:
            self.write()

    def write(self) -> None:
        """Write down what was noted."""
        lines = [json.dumps([name, found.stamp, text.decode()]) for name, found, text in self._new]
        packed = gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=6)
        self._storage.write(f"{self._folder}/{time.time_ns():020}-{secrets.token_hex(4)}{SUFFIX}", packed)
        self._new.clear()


def _unpacked(packed: bytes) -> Iterator[tuple[str, int, bytes]]:
    """The entries of a file that anybody may have written: up to the first that cannot be understood."""
    try:
        with gzip.open(io.BytesIO(packed)) as lines:
            while line := lines.readline(8 * MOST_BYTES):
                name, stamp, text = json.loads(line)
                yield str(name), int(stamp), str(text).encode()
    except (OSError, EOFError, ValueError, TypeError, zlib.error):
        return
