"""Quarantine: the videos that were set aside, so that the next run does not lose the same minutes on each again.

`<features>/<extractor>/quarantine.jsonl` has a line for each time that a video was set aside, and one for each time
that such a video was extracted after all. Several processes append to it. A video is tried again once it has changed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ... import __version__
from ..videos.identity import stamp
from ..videos.sources import VideoSource
from .remote.journal import Journal

FILE = "quarantine.jsonl"
# Found in the reasons for which no video is to blame: the same one may be read well a minute later, or elsewhere.
ENVIRONMENT = (
    *("shared memory", "MemoryError", "annot allocate memory", "No space left", "Too many open files"),
    *("no permission", "Permission denied", "no such file", "gone while it was being read", "was cancelled"),
    *("Read-only file system", "Disk quota exceeded", "Stale file handle", "Input/output error"),
)


@dataclass(frozen=True)
class _Entry:
    """The last line about a video."""

    reason: str | None  # None: it is no longer set aside
    stamp: tuple[int, int]  # size and time of the video, as it was then


class Quarantine:
    """The videos that were set aside in the features folder of one extractor.

    Args:
        where: ``<features>/<extractor>``, or the journal that is written instead of a file in it.
        retry: do not count what was set aside before this was made.
    """

    def __init__(self, where: Path | Journal, retry: bool = False) -> None:
        self._journal: Journal = _File(where / FILE) if isinstance(where, Path) else where
        self._entries: dict[str, _Entry] = {}
        self._refresh()
        self._ignored = dict(self._entries) if retry else {}

    def reason(self, source: VideoSource) -> str | None:
        """Why a video was set aside, if it has not changed since; None where it is to be tried.

        Args:
            source: the video.
        """
        self._refresh()
        entry = self._entries.get(source.name)
        if entry is None or entry.reason is None or entry is self._ignored.get(source.name):
            return None
        return entry.reason if stamp_of(source) == entry.stamp else None

    def add(self, source: VideoSource, reason: str, at: tuple[int, int] | None) -> None:
        """Set a video aside, unless the reason is one that may be gone with the next try.

        Args:
            source: the video.
            reason: as it was said to the user.
            at: its `stamp_of` from before it was read; None where it could not be looked at.

        Raises:
            OSError: it cannot be written down.
        """
        if at is None or any(text in reason for text in ENVIRONMENT):
            return
        reason = " ".join(reason.split())
        self._append(
            {"video": source.name, "reason": reason, "video_bytes": at[0], "video_modified": at[1]},
        )

    def lift(self, name: str) -> None:
        """Forget that a video was set aside: it has been extracted.

        Raises:
            OSError: it cannot be written down.
        """
        entry = self._entries.get(name)
        if entry is not None and entry.reason is not None:
            self._append({"video": name, "reason": None})

    def _append(self, fields: dict[str, str | int | None]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps(fields | {"time": now, "version": __version__}).encode() + b"\n"
        self._journal.append(str(fields["video"]), line)

    def _refresh(self) -> None:
        """Read what was appended since; lines that cannot be understood are passed over."""
        for line in self._journal.unread():
            try:
                fields = json.loads(line)
                reason = None if fields["reason"] is None else str(fields["reason"])
                at = int(fields.get("video_bytes", 0)), int(fields.get("video_modified", 0))
                self._entries[str(fields["video"])] = _Entry(reason, at)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


class _File:
    """A journal that is a file of lines."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0  # bytes of the file that were looked at

    def append(self, video: str, line: bytes) -> None:
        """Append a line in one write: lines of several processes come one after the other, never mixed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(number).st_size
            if size and os.pread(number, 1, size - 1) != b"\n":  # a full disk cut the last line off
                line = b"\n" + line
            os.write(number, line)
            os.fsync(number)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        finally:
            os.close(number)

    def unread(self) -> list[bytes]:
        """What was appended since."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text.rpartition(b"\n")[0]  # another process may be writing the last one
        self._read += len(whole) + 1 if whole else 0
        return whole.splitlines()


def stamp_of(source: VideoSource) -> tuple[int, int] | None:
    """Size and time of change of a video; None where it cannot be looked at."""
    try:
        return stamp(source.path)
    except OSError:
        return None
