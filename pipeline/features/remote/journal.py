"""Lines that several processes write and read: a file of them, or a file for each where none can be appended to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Protocol

from .storage import Storage

FOLDER, SUFFIX = ".quarantine", ".jsonl"  # which is no sidecar's


class Journal(Protocol):
    """Lines about videos."""

    def append(self, video: str, line: bytes) -> None:
        """Write a line about a video: it is there as a whole, or not at all.

        Raises:
            OSError: it cannot be written.
        """

    def unread(self) -> list[bytes]:
        """The lines that were not returned before, of one video the older ones first."""


class RemoteJournal:
    """A journal of small files in a store, whose names say the video, by its digest, and the time.

    Args:
        storage: of the features folder.
        extractor: whose journal.
    """

    def __init__(self, storage: Storage, extractor: str) -> None:
        self._storage, self._folder = storage, f"{extractor}/{FOLDER}"
        self._known: set[str] = set()
        self._waiting: list[str] = []

    def append(self, video: str, line: bytes) -> None:
        """As `Journal.append`."""
        self._storage.write(f"{self._beginning(video)}{time.time_ns():020}-{secrets.token_hex(4)}{SUFFIX}", line)

    def unread(self) -> list[bytes]:
        """As `Journal.unread`, of the files that were noticed."""
        names, self._waiting = sorted(self._waiting), []  # of each video in the order of time
        found = dict(self._storage.read(names)) if names else {}
        return [found[name] for name in names if name in found]

    def notice(self, names: Iterable[str]) -> None:
        """Take in the names of files that a listing has shown; others than of this journal are passed over."""
        for name in names:
            if name.startswith(f"{self._folder}/") and name.endswith(SUFFIX) and name not in self._known:
                self._known.add(name)
                self._waiting.append(name)

    def refresh(self, video: str) -> None:
        """Look for what others have written about a video since."""
        self.notice(name for name, _ in self._storage.beginning(self._beginning(video)))

    def _beginning(self, video: str) -> str:
        return f"{self._folder}/{sha256(video.encode(errors='surrogateescape')).hexdigest()[:16]}-"
