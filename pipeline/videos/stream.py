"""Reading: many videos, decoded by several workers, as one stream of clips, so that the network never waits for one.

Each worker is a decoder's process and a thread that cuts its frames into clips and prepares them. The clips of one
video come in order, those of several videos mixed. What is waiting is bounded, so memory grows neither with the length
nor with the number of videos.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .clips import Clipping
from .identity import digest, stamp
from .probe import VideoError, VideoInfo
from .sources import VideoSource
from .worker import Decoder, DecodingSummary, SharedMemoryError

CLIPS_WAITING = 4  # per worker

Prepared = TypeVar("Prepared")
Prepare = Callable[[NDArray[np.uint8]], Prepared]  # a clip (length, height, width, 3), which is overwritten afterwards


@dataclass(frozen=True)
class Opened:
    """Clips of a video begin. ``number`` is its place among the sources, here and below."""

    number: int
    info: VideoInfo


@dataclass(frozen=True)
class Clip(Generic[Prepared]):
    """The next clip of a video, prepared."""

    number: int
    prepared: Prepared


@dataclass(frozen=True)
class Closed:
    """A video has come to its end; ``times`` are those of all its frames, in seconds, ``stamp`` is the file's."""

    number: int
    summary: DecodingSummary
    times: NDArray[np.float64]
    stamp: tuple[int, int]
    sha256: str


@dataclass(frozen=True)
class Failed:
    """A video is set aside, whatever came of it so far."""

    number: int
    error: VideoError


Event = Opened | Clip[Prepared] | Closed | Failed


class ClipReader(Generic[Prepared]):
    """Reads videos with several workers; iterate over it once, and close it if you leave early.

    Args:
        sources: the videos.
        clipping: how they are cut.
        short_side: frames whose shorter side is longer are scaled down to it.
        prepare_for: called in the worker's thread with a video's number; gives what is done with each of its clips.
        workers: how many videos are decoded at once.
        numbers: of the videos that are read, all by default. The next one is asked for when a worker is free for it, by
            one of them at a time.
        memory: GB that decoding one video may take; 0 sets no limit.

    Example::

        with closing(ClipReader(sources, Clipping(), 480, lambda number: np.copy, workers=2).events()) as events:
            for event in events:
                ...
    """

    def __init__(
        self,
        sources: Sequence[VideoSource],
        clipping: Clipping,
        short_side: int,
        prepare_for: Callable[[int], Prepare[Prepared]],
        workers: int = 1,
        numbers: Iterator[int] | None = None,
        memory: float = 0.0,
    ) -> None:
        self.sources, self.clipping, self.short_side, self.prepare_for = sources, clipping, short_side, prepare_for
        self.workers, self.memory = max(1, min(workers, len(sources))), memory
        self._numbers = iter(range(len(sources))) if numbers is None else numbers
        self._returned: deque[int] = deque()  # numbers of videos for which there was no memory
        self._choosing = threading.Lock()  # apart from the other one: it may take a while
        self._lock = threading.Lock()
        self._reading = 0  # workers that have a video
        self._stopped = threading.Event()
        self._queue: queue.Queue[Event[Prepared] | BaseException | None] = queue.Queue(CLIPS_WAITING * self.workers)

    def events(self) -> Generator[Event[Prepared], None, None]:
        """What the workers come to, as it comes.

        Raises:
            UserError: preparing failed, for a reason that is not the video's.
        """
        decoders = [Decoder(memory=self.memory) for _ in range(self.workers)]
        threads = [threading.Thread(target=self._work, args=(decoder,), daemon=True) for decoder in decoders]
        for thread in threads:
            thread.start()
        working = self.workers
        try:
            while working:
                event = self._queue.get()
                if event is None:
                    working -= 1
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield event
        finally:
            self._stopped.set()
            for decoder in decoders:
                decoder.cancel()
            for thread in threads:
                thread.join()

    def _work(self, decoder: Decoder) -> None:
        try:
            with decoder:
                while (number := self._next()) is not None and self._read(number, decoder):
                    pass
        except Exception as error:  # the thread that consumes the events must hear of it
            self._put(error)
        finally:
            self._put(None)

    def _next(self) -> int | None:
        with self._choosing:
            if self._stopped.is_set():
                return None
            number = self._returned.popleft() if self._returned else next(self._numbers, None)
        if number is not None:
            with self._lock:
                self._reading += 1
        return number

    def _back(self, number: int) -> bool:
        """Let other workers read a video later, for which there is no memory now; False where there are no others."""
        with self._lock:
            if self._reading < 2:
                return False
            self._returned.append(number)
            return True

    def _put(self, event: Event[Prepared] | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(event, timeout=0.1)
                break
            except queue.Full:
                continue

    def _read(self, number: int, decoder: Decoder) -> bool:
        """Read a video; returns whether this worker may go on, or there are more than memory allows."""
        try:
            for last in (False, True):  # those that had the memory may have let go of it since
                try:
                    self._read_once(number, decoder)
                    break
                except SharedMemoryError as error:
                    if self._back(number):
                        return False
                    if last:
                        self._put(Failed(number, error))
        except VideoError as error:
            self._put(Failed(number, error))
        finally:
            with self._lock:
                self._reading -= 1
        return True

    def _read_once(self, number: int, decoder: Decoder) -> None:
        source, prepare = self.sources[number], self.prepare_for(number)
        times: list[NDArray[np.float64]] = []

        def frames() -> Iterator[NDArray[np.uint8]]:
            for block in video.blocks():
                times.append(block.times)
                yield block.frames

        with decoder.read(source.path, self.short_side, self.clipping.length) as video:
            self._put(Opened(number, video.info))
            for clip in self.clipping.split(frames()):
                self._put(Clip(number, prepare(clip)))
                if self._stopped.is_set():
                    return
        self._put(Closed(number, video.summary, np.concatenate(times), *identity(source.path)))


def identity(path: Path) -> tuple[tuple[int, int], str]:
    """The `stamp` and the digest of a video.

    Raises:
        VideoError: it is gone.
    """
    try:
        return stamp(path), digest(path)
    except OSError as error:
        raise VideoError(f"{path}: gone while it was being read ({error.strerror})") from error
