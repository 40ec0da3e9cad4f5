"""What is to be extracted: not what is there, what another process works on, or what was set aside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ...errors import UserError
from ...extractors import spec_of
from ...extractors.precision import fingerprint_of
from ...leases import Lease, try_acquire
from ..footage.calibration import DRAWN_FOOTAGE
from ..support.shards import Shard
from ..videos.clips import Clipping
from ..videos.sources import VideoSource
from .config import ExtractionConfig
from .quarantine import Quarantine, stamp_of
from .remote.address import FeaturesFolder
from .remote.store import open_store


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
