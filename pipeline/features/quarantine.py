"""What is to be extracted: not what is there, what another process works on, or what was set aside.

Quarantine is for the last, so that the next run does not lose the same minutes on each again:
`<features>/<extractor>/quarantine.jsonl` has a line for each time that a video was set aside, and one for each time
that such a video was extracted after all. Several processes append to it. A video is tried again once it has changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ... import __version__
from ...errors import UserError
from ...extractors import spec_of
from ...extractors.precision import fingerprint_of
from ...leases import Lease, try_acquire
from ..footage.calibration import DRAWN_FOOTAGE
from ..support.shards import Shard
from ..videos.clips import Clipping
from ..videos.identity import stamp
from ..videos.sources import VideoSource
from .config import ExtractionConfig
from .remote.address import FeaturesFolder
from .remote.journal import Journal
from .remote.store import open_store

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


class Place:
    """Where the features of one extractor go.

    Args:
        name: of the extractor.
        folder: the features folder.
        fingerprint: of how the extractor makes them.
        clipping: how videos are cut.
        reuse_static: as in `ExtractionConfig`.
        retry: as in `ExtractionConfig`.
    """

    def __init__(
        self,
        name: str,
        folder: FeaturesFolder,
        fingerprint: str,
        clipping: Clipping,
        *,
        reuse_static: float = 0.0,
        retry: bool = False,
    ) -> None:
        self.name, self.store = name, open_store(folder, name)
        self.quarantine = Quarantine(self.store.quarantine, retry)
        self._made = fingerprint, clipping, reuse_static

    def has(self, source: VideoSource) -> bool:
        """Whether a video's features are there.

        Raises:
            UserError: there are some that were made otherwise.
        """
        sidecar = self.store.current(source, *self._made)
        if sidecar is None:
            return False
        self.store.adopt(source, sidecar)
        return True


def places_of(folder: FeaturesFolder, config: ExtractionConfig) -> list[Place]:
    """Where the features of each extractor go, and how they are made.

    Raises:
        UserError: unknown extractor or weights, or extractors that take clips of different length.
    """
    specs = [spec_of(name) for name in config.extractor]
    if len({spec.clip_length for spec in specs}) > 1:
        raise UserError(f"{' and '.join(config.extractor)} take clips of different length: extract one by one")
    return [
        Place(
            spec.name,
            folder,
            fingerprint_of(spec, config.weights, config.precision, DRAWN_FOOTAGE),
            clipping_of(config),
            reuse_static=config.reuse_static,
            retry=config.retry,
        )
        for spec in specs
    ]


def clipping_of(config: ExtractionConfig) -> Clipping:
    """How videos are cut for the extractors of a configuration."""
    return Clipping(spec_of(config.extractor[0]).clip_length, config.tail)


@dataclass(slots=True)
class Task:
    """A video, and what is left to do about it. There may be many thousands: each is small.

    Attributes:
        source: the video.
        places: that lack its features.
        settled: nothing is left to do.
        reason: why it was set aside before; None if it was not.
        stamp: its `stamp_of` from when it was claimed.
        leases: what this process holds of it.
    """

    source: VideoSource
    places: Sequence[Place]
    settled: bool = False
    reason: str | None = None
    stamp: tuple[int, int] | None = None
    leases: list[Lease] = field(default_factory=list)

    def is_to_do(self) -> bool:
        """Look at the folder (again): whether there is something to do.

        Raises:
            UserError: as `Place.has`.
        """
        lacking = [place for place in self.places if not place.has(self.source)]
        if len(lacking) < len(self.places):
            self.places = lacking
        for place in self.places:
            reason = place.quarantine.reason(self.source)
            if reason is not None:
                self.reason = f"{reason} (set aside before; --retry tries again)"
        self.settled = self.reason is not None or not self.places
        return not self.settled

    def claim(self) -> bool:
        """Take the video for this process, by `leases`.

        Returns:
            False where another process works on it, and where there is nothing to do any more, which is `settled`.

        Raises:
            UserError: as `Place.has`.
            OSError: the folder cannot be written to.
        """
        if any(place.store.seems_made(self.source.name) for place in self.places) and not self.is_to_do():
            return False
        held: list[Lease] = []
        with ExitStack() as leases:
            for place in self.places:
                lease = try_acquire(place.store.lease_on(self.source.name))
                if lease is None:
                    return False
                leases.enter_context(lease)
                held.append(lease)
                place.store.refresh(self.source.name)
            if not self.is_to_do():  # another process has done it since
                return False
            self.stamp = stamp_of(self.source)
            leases.pop_all()
        self.leases = held
        return True

    def release(self) -> None:
        """Let other processes have the video."""
        with ExitStack() as leases:
            for lease in self.leases:
                leases.push(lease)
            self.leases = []


@dataclass
class ExtractionResult:
    """What a run of `extract` came to."""

    extracted: list[VideoSource] = field(default_factory=list)
    current: list[VideoSource] = field(default_factory=list)  # were there already
    notes: dict[str, str] = field(default_factory=dict)  # name -> what a user should know of its features
    failed: dict[str, str] = field(default_factory=dict)  # name -> why it was set aside

    def left_of(self, sources: Sequence[VideoSource], places: Sequence[Place]) -> list[Task]:
        """What is to do of some videos; those of which there is nothing are taken in.

        Raises:
            UserError: as `Place.has`.
        """
        left = []
        for source in sources:
            task = Task(source, places)
            if task.is_to_do():
                left.append(task)
            else:
                self.count(task)
        return left

    def count(self, task: Task) -> None:
        """Take in a video of which there is nothing to do."""
        if task.reason is None:
            self.current.append(task.source)
        else:
            self.failed[task.source.name] = task.reason


def of_shard(sources: Sequence[VideoSource], shard: str | None) -> Sequence[VideoSource]:
    """The videos of a shard, in their order: shards have about as many bytes each.

    Args:
        sources: all videos.
        shard: as in `ExtractionConfig`.
    """
    if shard is None:
        return sources
    sizes = {source.name: (stamp_of(source) or (0, 0))[0] for source in sources}  # one that is gone is nobody's burden
    names = Shard.parse(shard).of(sizes)
    return [source for source in sources if source.name in names]


def clear(sources: Sequence[VideoSource], places: Sequence[Place]) -> None:
    """Remove what processes that were killed have left in the folders of these videos' features."""
    names = [source.name for source in sources]
    for place in places:
        place.store.prepare(names)
