"""Reading many videos with several workers: all clips, in order, and nothing left behind."""

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.videos.clips import Clipping
from xelvad.pipeline.videos.config import Tail
from xelvad.pipeline.videos.sources import VideoSource
from xelvad.pipeline.videos.stream import CLIPS_WAITING, Clip, ClipReader, Closed, Failed, Opened, Prepare
from xelvad.pipeline.videos.worker import SHARED_MEMORY, DecodedVideo, Decoder, SharedMemoryError

from ..helpers.footage import Footage

LENGTHS = [33, 16, 1, 40]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    """Videos of `LENGTHS`; the frames of video n show 100 n, 100 n + 1, …"""
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / f"{number}.mp4" for number in range(len(LENGTHS))]
    for number, (path, frames) in enumerate(zip(paths, LENGTHS, strict=True)):
        Footage.video(path, frames, codec="mpeg4", first=100 * number)
    return [VideoSource(path.name, path) for path in paths]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No process, no thread, no shared memory, whatever a test did with its reader."""
    threads, memory = set(threading.enumerate()), orphaned_memory()
    assert not multiprocessing.active_children()
    yield
    assert not multiprocessing.active_children()
    assert set(threading.enumerate()) <= threads
    assert not orphaned_memory() - memory


def orphaned_memory() -> set[str]:
    """Shared memory of this process that none has a hold of; that of other runs on this machine is none of ours."""
    there = {path.name for path in SHARED_MEMORY.glob(f"xelvad_{os.getpid()}_*")} if SHARED_MEMORY.is_dir() else set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # the process has ended meanwhile, or is somebody else's
            text = maps.read_text()
            there -= {name for name in there if name in text}
    return there


def numbers(_: int) -> Prepare[list[int]]:
    """Prepare a clip by reading the numbers that its frames show."""
    return lambda clip: Footage.indices([clip])


def expected(video: int, tail: Tail = "pad") -> list[list[int]]:
    frames = LENGTHS[video]
    starts = range(0, frames, 16) if tail == "pad" or frames < 16 else range(0, frames - 15, 16)
    return [[100 * video + min(start + offset, frames - 1) for offset in range(16)] for start in starts]


def reader(sources: list[VideoSource], workers: int = 1, tail: Tail = "pad") -> ClipReader[list[int]]:
    return ClipReader(sources, Clipping(16, tail), 480, numbers, workers)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("tail", ["pad", "drop"])
def test_every_clip_of_every_video_comes_once_and_in_order(
    sources: list[VideoSource], workers: int, tail: Tail
) -> None:
    events = list(reader(sources, workers, tail).events())
    for number, frames in enumerate(LENGTHS):
        first, *clips, last = [event for event in events if event.number == number]
        assert isinstance(first, Opened)
        assert (first.info.declared_frames, first.info.width, first.info.height) == (frames, 128, 64)
        assert [clip.prepared for clip in clips if isinstance(clip, Clip)] == expected(number, tail)
        assert len(clips) == len(expected(number, tail))
        assert isinstance(last, Closed)
        assert last.summary.decoded_frames == frames
        assert last.times == pytest.approx(np.arange(frames) / 25, abs=1e-3)
        path = sources[number].path
        assert last.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert last.stamp == (path.stat().st_size, path.stat().st_mtime_ns)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_video_fails_alone(sources: list[VideoSource], tmp_path: Path, workers: int) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    picture = Footage.folder(tmp_path / "cut", 20) / "18.png"  # its first clip is good
    picture.write_bytes(picture.read_bytes()[:-60])
    bad = [VideoSource(name, tmp_path / name) for name in ("bad.mp4", "cut")]
    events = list(reader([sources[0], *bad, sources[3]], workers).events())
    failed = {event.number: str(event.error) for event in events if isinstance(event, Failed)}
    assert failed.keys() == {1, 2}
    assert str(tmp_path / "bad.mp4") in failed[1]
    assert "18.png" in failed[2]
    assert {event.number for event in events if isinstance(event, Closed)} == {0, 3}
    for number, video in [(0, 0), (3, 3)]:
        clips = [event.prepared for event in events if isinstance(event, Clip) and event.number == number]
        assert clips == expected(video)
    assert not [event for event in events if event.number == 1 and not isinstance(event, Failed)]


def test_a_video_that_is_gone_when_its_digest_is_taken_fails_alone(sources: list[VideoSource], tmp_path: Path) -> None:
    gone = VideoSource("gone.mp4", Footage.video(tmp_path / "gone.mp4", 20, codec="mpeg4"))

    def prepare_for(number: int) -> Prepare[None]:
        def prepare(_: NDArray[np.uint8]) -> None:
            if number == 0:
                gone.path.unlink(missing_ok=True)

        return prepare

    events = list(ClipReader([gone, sources[1]], Clipping(), 480, prepare_for).events())
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert failed.number == 0
    assert str(failed.error) == f"{gone.path}: gone while it was being read (No such file or directory)"
    assert [event.number for event in events if isinstance(event, Closed)] == [1]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("taken", [0, 1, 2, 5])
def test_leaving_early_leaves_nothing_behind(sources: list[VideoSource], workers: int, taken: int) -> None:
    with closing(reader(sources, workers).events()) as events:
        for _ in range(taken):
            next(events)
    with pytest.raises(StopIteration):
        next(events)


@pytest.mark.parametrize("taken", [1, 5])
def test_what_a_decoder_holds_is_freed_once_by_the_thread_that_reads(
    sources: list[VideoSource], monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    # A number of a file that is closed twice may by then be somebody else's file.
    closed: list[tuple[int, str]] = []
    close = Connection.close

    def close_slowly(connection: Connection) -> None:
        closed.append((id(connection), threading.current_thread().name))
        kept.append(connection)  # so that no two have the same id
        time.sleep(0.2)
        close(connection)

    kept: list[Connection] = []
    monkeypatch.setattr(Connection, "close", close_slowly)
    with closing(reader(sources, workers=3).events()) as events:
        for _ in range(taken):
            next(events)
    assert closed
    assert len({connection for connection, _ in closed}) == len(closed)
    assert threading.current_thread().name not in {thread for _, thread in closed}


@pytest.mark.parametrize("kind", [UserError, ZeroDivisionError])
@pytest.mark.parametrize("when", ["for a video", "for a clip"])
def test_what_goes_wrong_in_preparing_reaches_the_consumer(
    sources: list[VideoSource], kind: type[Exception], when: str
) -> None:
    def prepare_for(number: int) -> Prepare[None]:
        def prepare(_: NDArray[np.uint8]) -> None:
            raise kind("not the video's fault")

        if when == "for a video":
            raise kind("not the video's fault")
        return prepare

    events = ClipReader(sources, Clipping(), 480, prepare_for, workers=2).events()
    with pytest.raises(kind, match="not the video's fault"):
        list(events)


def test_clips_are_prepared_in_the_workers_threads_once_per_video(sources: list[VideoSource]) -> None:
    asked: list[int] = []
    in_thread: set[str] = set()

    def prepare_for(number: int) -> Prepare[None]:
        asked.append(number)

        def prepare(_: NDArray[np.uint8]) -> None:
            in_thread.add(threading.current_thread().name)

        return prepare

    list(ClipReader(sources, Clipping(), 480, prepare_for, workers=2).events())
    assert sorted(asked) == [0, 1, 2, 3]
    assert threading.current_thread().name not in in_thread
    assert in_thread


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_consumer_lets_no_clips_pile_up(tmp_path: Path, workers: int) -> None:
    prepared: list[int] = []

    def prepare_for(number: int) -> Prepare[None]:
        return lambda _: prepared.append(number)

    sources = [
        VideoSource(f"{number}.mp4", Footage.video(tmp_path / f"{number}.mp4", 16 * 30, codec="mpeg4"))
        for number in range(workers)
    ]
    bound = (CLIPS_WAITING + 1) * workers  # the queue, and the one that each worker wants to put into it
    with closing(ClipReader(sources, Clipping(), 480, prepare_for, workers).events()) as events:
        consumed = 0
        for event in events:
            consumed += isinstance(event, Clip)
            if consumed == 5:
                break
        before, after = -1, len(prepared)
        while before != after:  # until nothing more is prepared
            time.sleep(0.5)
            before, after = after, len(prepared)
        assert CLIPS_WAITING * workers - 2 * workers <= after - consumed <= bound
        assert after < 30 * workers
        assert consumed + sum(isinstance(event, Clip) for event in events) == 30 * workers == len(prepared)


def test_more_workers_than_videos_are_not_started(sources: list[VideoSource]) -> None:
    assert reader(sources[:2], workers=8).workers == 2
    assert reader(sources, workers=0).workers == 1


class OneAtATime(Decoder):
    """A decoder for whose pictures there is shared memory once."""

    room = threading.Semaphore(1)

    @contextmanager
    def read(self, path: Path, short_side: int | None, block_size: int) -> Iterator[DecodedVideo]:
        if not self.room.acquire(blocking=False):
            raise SharedMemoryError(f"{path}: decoding its pictures takes more shared memory than there is")
        try:
            time.sleep(0.05)
            with super().read(path, short_side, block_size) as video:
                yield video
        finally:
            self.room.release()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_with_little_shared_memory_fewer_workers_read_all(
    sources: list[VideoSource], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    # Guards against looking how much memory is free and then taking it: others look at the same time, and crash.
    monkeypatch.setattr("xelvad.pipeline.videos.stream.Decoder", OneAtATime)
    with closing(ClipReader(sources, Clipping(), 480, numbers, workers).events()) as events:
        ends = {event.number: event for event in events if isinstance(event, Closed | Failed)}
    assert sorted(ends) == list(range(len(sources)))
    assert all(isinstance(end, Closed) for end in ends.values())


def test_a_video_for_which_there_is_never_enough_memory_is_set_aside_with_the_reason(
    sources: list[VideoSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneAtATime, "room", threading.Semaphore(0))
    monkeypatch.setattr("xelvad.pipeline.videos.stream.Decoder", OneAtATime)
    with closing(ClipReader(sources[:2], Clipping(), 480, numbers, 2).events()) as events:
        failed = {event.number: str(event.error) for event in events if isinstance(event, Failed)}
    assert len(failed) == 2
    assert all("more shared memory" in reason for reason in failed.values())
