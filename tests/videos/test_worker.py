import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.videos import worker as decoding
from xelvad.pipeline.videos.probe import VideoError
from xelvad.pipeline.videos.reader import open_video
from xelvad.pipeline.videos.worker import BLOCKS_IN_FLIGHT, SHARED_MEMORY, DecodedVideo, Decoder, sweep_shared_memory

from ..helpers.footage import Footage

BLOCK = 16


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """One worker for the tests that leave it whole: starting one takes a second."""
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shared memory that the test's videos travelled through."""
    names: list[str] = []

    def attach(name: str) -> SharedMemory:
        names.append(name)
        return SharedMemory(name)

    monkeypatch.setattr(decoding, "SharedMemory", attach)
    return names


def no_memory_left(names: list[str]) -> bool:
    assert names
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
    return True


def worker(decoder: Decoder) -> int:
    """The process id of the worker."""
    assert decoder._process is not None
    assert decoder._process.pid is not None
    return decoder._process.pid


def read_disturbed(decoder: Decoder, path: Path, disturb: Callable[[int], None], block_size: int = BLOCK) -> None:
    """Read a video and call ``disturb`` with the number of each block, in between."""
    with decoder.read(path, None, block_size) as video:
        for number, _ in enumerate(video.blocks()):
            disturb(number)


def numbers(video: DecodedVideo) -> list[int]:
    return [Footage.index_of(frame) for block in video.blocks() for frame in block.frames]


@pytest.mark.parametrize(("block_size", "short_side"), [(1, None), (16, 80), (64, None)])
def test_the_worker_gives_the_same_frames_and_times_as_open_video(
    decoder: Decoder, tmp_path: Path, memories: list[str], block_size: int, short_side: int | None
) -> None:
    for path in Footage.video(tmp_path / "a.mp4", 70), Footage.folder(tmp_path / "frames", 5):
        here = open_video(path, short_side)
        expected = list(here.blocks(block_size))
        with decoder.read(path, short_side, block_size) as video:
            count = 0
            for block, known in zip(video.blocks(), expected, strict=True):
                assert np.array_equal(block.frames, known.frames)
                assert np.array_equal(block.times, known.times)
                count += len(block.frames)
        summary = video.summary
        assert summary.info == video.info == here.info
        assert (summary.decoder, summary.decoded_frames, summary.salvaged_frames) == (here.decoder, count, 0)
    assert no_memory_left(memories)


def test_many_videos_one_after_the_other_take_one_worker(decoder: Decoder, tmp_path: Path, memories: list[str]) -> None:
    workers = set()
    for number in range(6):
        path = Footage.video(tmp_path / f"{number}.mp4", 20 + number, codec="mpeg4", first=100 * number)
        with decoder.read(path, None, BLOCK) as video:
            assert numbers(video) == list(range(100 * number, 101 * number + 20))
        workers.add(worker(decoder))
    assert len(workers) == 1
    assert len(set(memories)) == 6
    assert no_memory_left(memories)


def test_videos_that_cannot_be_read_keep_their_message_and_cost_no_worker(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder").mkdir()
    Footage.sound(tmp_path / "sound.mp4")
    with decoder.read(Footage.video(tmp_path / "good.mp4", 3), None, BLOCK) as video:
        numbers(video)
    before = worker(decoder)
    for name in ["missing.mp4", "text.mp4", "folder", "sound.mp4"]:
        with pytest.raises(VideoError) as here:
            open_video(tmp_path / name)
        with pytest.raises(VideoError) as there, decoder.read(tmp_path / name, None, BLOCK):
            pass
        assert str(there.value) == str(here.value)
        assert name in str(there.value)
    assert worker(decoder) == before


def test_a_video_left_in_the_middle_does_not_reach_the_next_one(
    decoder: Decoder, tmp_path: Path, memories: list[str]
) -> None:
    long = Footage.video(tmp_path / "long.mp4", 200, codec="mpeg4")
    other = Footage.video(tmp_path / "other.mp4", 40, codec="mpeg4", first=1000)
    with decoder.read(long, None, BLOCK) as video:
        assert Footage.indices([next(video.blocks()).frames]) == list(range(BLOCK))
    with pytest.raises(RuntimeError, match="the reader's own"), decoder.read(long, None, BLOCK) as video:
        raise RuntimeError("the reader's own")
    with decoder.read(other, None, BLOCK) as video:
        assert numbers(video) == list(range(1000, 1040))
    assert no_memory_left(memories)


def test_the_worker_runs_ahead_of_a_slow_reader_by_no_more_than_the_blocks_in_flight(
    decoder: Decoder, tmp_path: Path
) -> None:
    # Guards memory and content: a block must not be overwritten while the reader still has it.
    path = Footage.video(tmp_path / "long.mp4", 20 * BLOCK, codec="mpeg4")
    with decoder.read(path, None, BLOCK) as video:
        connection = decoder._connection
        assert connection is not None
        blocks = video.blocks()
        first = next(blocks)
        ahead = 1
        while connection.poll(20 if ahead < BLOCKS_IN_FLIGHT else 0.7):
            connection.recv()
            ahead += 1
        assert ahead == BLOCKS_IN_FLIGHT
        assert Footage.indices([first.frames]) == list(range(BLOCK))
    with decoder.read(path, None, BLOCK) as video:
        seen = []
        for block in video.blocks():
            time.sleep(0.02)
            seen += Footage.indices([block.frames])
    assert seen == list(range(20 * BLOCK))


def test_a_killed_worker_costs_one_video_and_leaves_no_memory(
    decoder: Decoder, tmp_path: Path, memories: list[str]
) -> None:
    long = Footage.video(tmp_path / "long.mp4", 40 * BLOCK, codec="mpeg4")
    short = Footage.video(tmp_path / "short.mp4", 20, codec="mpeg4")

    def kill_the_worker(block: int) -> None:
        if block == 2:
            os.kill(worker(decoder), signal.SIGKILL)

    with pytest.raises(VideoError, match=r"long\.mp4: set aside, the decoder crashed") as caught:
        read_disturbed(decoder, long, kill_the_worker)
    assert "\n" not in str(caught.value)
    with decoder.read(short, None, BLOCK) as video:
        assert numbers(video) == list(range(20))
    assert no_memory_left(memories)


def test_a_worker_killed_between_two_videos_is_replaced(decoder: Decoder, tmp_path: Path) -> None:
    path = Footage.video(tmp_path / "a.mp4", 20, codec="mpeg4")
    with decoder.read(path, None, BLOCK) as video:
        numbers(video)
    os.kill(worker(decoder), signal.SIGKILL)
    os.waitid(os.P_PID, worker(decoder), os.WEXITED | os.WNOWAIT)
    with decoder.read(path, None, BLOCK) as video:
        assert numbers(video) == list(range(20))


def test_a_worker_that_hangs_costs_one_video(
    decoder: Decoder, tmp_path: Path, memories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Footage.video(tmp_path / "long.mp4", 40 * BLOCK, codec="mpeg4")

    def stop_the_worker(block: int) -> None:
        if block == 2:
            os.kill(worker(decoder), signal.SIGSTOP)
            monkeypatch.setattr(decoder, "patience", 0.3)

    with pytest.raises(VideoError, match=r"long\.mp4: set aside, the decoder was silent for 0\.3 seconds"):
        read_disturbed(decoder, long, stop_the_worker)
    monkeypatch.setattr(decoder, "patience", decoding.PATIENCE_SECONDS)
    with decoder.read(long, None, BLOCK) as video:
        assert numbers(video) == list(range(40 * BLOCK))
    assert no_memory_left(memories)


def test_a_decoder_cancelled_from_another_thread_gives_up_at_once_and_for_good(
    tmp_path: Path, memories: list[str]
) -> None:
    path = Footage.video(tmp_path / "long.mp4", 40 * BLOCK, codec="mpeg4")
    with Decoder() as decoder:

        def cancel_it(block: int) -> None:
            if block == 2:
                os.kill(worker(decoder), signal.SIGSTOP)  # it would hang for two minutes
                threading.Timer(0.2, decoder.cancel).start()

        with pytest.raises(VideoError, match=r"long\.mp4: set aside"):
            read_disturbed(decoder, path, cancel_it)
        with pytest.raises(VideoError, match=r"long\.mp4: not read, its decoder was cancelled"):
            read_disturbed(decoder, path, cancel_it)
    assert no_memory_left(memories)


def test_a_decoder_cancelled_before_it_starts_starts_no_process(tmp_path: Path) -> None:
    decoder = Decoder()
    decoder.cancel()
    with pytest.raises(VideoError, match="cancelled"), decoder.read(tmp_path / "any.mp4", None, BLOCK):
        pass
    assert decoder._process is None


def broken_at(folder: Path, number: int) -> Path:
    """A folder of pictures of which one is cut off."""
    picture = Footage.folder(folder, 8) / f"{number}.png"
    picture.write_bytes(picture.read_bytes()[:-60])
    return folder


def test_an_error_behind_the_first_blocks_is_one_message_and_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Guards the worker against the reader's answers to blocks of a video that it has given up already.
    path = broken_at(tmp_path / "frames", 5)
    with Decoder() as decoder, pytest.raises(VideoError, match=r"5\.png"):
        read_disturbed(decoder, path, lambda block: time.sleep(0.3 if block > 1 else 0), block_size=1)
    assert capfd.readouterr().err == ""


def test_an_error_at_the_first_block_is_the_videos_own_however_slow_the_reader(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Guards a race: the worker must not let go of the shared memory before the reader has looked at it.
    def attach_late(name: str) -> SharedMemory:
        time.sleep(0.7)
        return SharedMemory(name)

    monkeypatch.setattr(decoding, "SharedMemory", attach_late)
    with pytest.raises(VideoError, match=r"0\.png"), decoder.read(broken_at(tmp_path / "a", 0), None, 4) as video:
        numbers(video)


def test_errors_of_the_reader_are_not_taken_for_the_decoders(decoder: Decoder, tmp_path: Path) -> None:
    path = Footage.video(tmp_path / "a.mp4", 3, codec="mpeg4")
    with pytest.raises(UserError, match="mine"), decoder.read(path, None, BLOCK):
        raise UserError("mine")


OWNER = """
import sys
from pathlib import Path
from xelvad.pipeline.videos.worker import Decoder

decoder = Decoder()
with decoder.read(Path(sys.argv[1]), None, 16) as video:
    blocks = video.blocks()
    next(blocks)
    print(decoder._process.pid, video._decoder is decoder and "decord" in sys.modules, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_a_killed_owner_leaves_neither_worker_nor_memory_and_never_had_decord(tmp_path: Path) -> None:
    path = Footage.video(tmp_path / "long.mp4", 40 * BLOCK, codec="mpeg4")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, decord_loaded = owner.stdout.readline().split()
        assert decord_loaded == "False"
        process = Path("/proc", pid)
        held = (process / "maps").read_text().splitlines()
        memories = {line.split()[-1] for line in held if "/dev/shm/xelvad_" in line}
        assert len(memories) == 1
        owner.kill()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (process.exists() or any(map(os.path.exists, memories))):
            time.sleep(0.05)
    assert not process.exists() or "Z" in (process / "stat").read_text().split()[2]
    assert not any(Path(memory).exists() for memory in memories)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="this system keeps shared memory where nobody can look")
def test_the_memory_of_killed_runs_is_swept_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    token = secrets.token_hex(4)
    names = {
        "dead": f"xelvad_{ended.pid}_{token}",
        "alive": f"xelvad_{os.getpid()}_{token}",
        "young": f"xelvad_{ended.pid}_{token}y",
        "other": f"xelvad_{token}",
    }
    try:
        for kind, name in names.items():
            (SHARED_MEMORY / name).touch()
            if kind != "young":
                os.utime(SHARED_MEMORY / name, (0, 0))
        sweep_shared_memory()
        assert {kind for kind, name in names.items() if (SHARED_MEMORY / name).exists()} == {"alive", "young", "other"}
    finally:
        for name in names.values():
            (SHARED_MEMORY / name).unlink(missing_ok=True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such limit")
def test_a_decoder_that_eats_memory_costs_its_video_and_the_limit_is_named(tmp_path: Path) -> None:
    path = Footage.video(tmp_path / "a.mp4", 20)
    refused = pytest.raises(VideoError, match=r"a\.mp4: .*0\.01 GB.*--decoder-memory")
    with Decoder(memory=0.01) as decoder, refused, decoder.read(path, None, BLOCK) as video:
        list(video.blocks())
    with Decoder(memory=16) as decoder, decoder.read(path, None, BLOCK) as video:
        assert sum(len(block.times) for block in video.blocks()) == 20
