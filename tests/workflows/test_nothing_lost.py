"""Several extractions fill one folder, and any of them may be killed: what comes of it is what one alone makes."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from xelvad.pipeline.upkeep.config import GarbageConfig, VerifyConfig
from xelvad.pipeline.upkeep.garbage import delete, find_garbage
from xelvad.pipeline.upkeep.verify import verify
from xelvad.pipeline.videos.sources import find_videos

from ..helpers.footage import Footage

pytestmark = pytest.mark.slow

# A network whose features are the frame numbers, of as many crops as TINY_CROPS says; it takes TINY_SECONDS.
COMMAND = """
import os, sys
from dataclasses import replace
from xelvad.extractors import EXTRACTORS
from xelvad.pipeline.cli import main
from xelvad.tests.features.test_extraction import TINY, FrameNumbers

EXTRACTORS[TINY.name] = replace(TINY, preprocessing=FrameNumbers(crops=int(os.environ["TINY_CROPS"]) or None))
sys.exit(main(sys.argv[1:]))
"""


class Run:
    """An extraction in a process of its own, and what it has said so far."""

    def __init__(self, videos: Path, features: Path, seconds: float = 0, *options: str, crops: int = 0) -> None:
        arguments = ["extract", str(videos), "--features", str(features), "--extractor", "tiny", "--weights", "random"]
        arguments += ["--device", "cpu", "--runtime", "eager", "--batch", "1", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            env=os.environ | {"TINY_SECONDS": str(seconds), "TINY_CROPS": str(crops), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(iter(self.process.stdout.readline, ""))

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait while it runs."""
        deadline = time.monotonic() + 60
        while not happened():
            assert self.process.poll() is None, "".join(self.said)
            assert time.monotonic() < deadline, "".join(self.said)
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it, as a machine that runs out of memory does: nothing of it can clear up."""
        self.process.send_signal(signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(60)
        self._listening.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def numbers(self) -> tuple[int, ...]:
        """How many videos it has extracted, found to be there, and set aside."""
        (line,) = (line for line in self.said if " extracted, " in line)
        return tuple(map(int, re.findall(r"\d+", line)))


@contextmanager
def runs() -> Iterator[list[Run]]:
    """Runs that do not outlive a test that fails."""
    started: list[Run] = []
    try:
        yield started
    finally:
        for run in started:
            if run.process.poll() is None:
                run.kill()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_extraction_that_is_killed_takes_nothing_from_the_first(tmp_path: Path) -> None:
    """Guards against a temporary name that two processes shared.

    The second emptied the file that the first was writing, and the first went on behind its end: it said that all was
    well (exit code 0), most rows of the file were zeros, and the next run found it current.
    """
    clips, crops = 32, 40  # so much that the file is written to all the time
    Footage.video(tmp_path / "videos/long.mp4", 16 * clips, codec="mpeg4")
    features, place = tmp_path / "features", tmp_path / "features/tiny"
    with runs() as started:
        first = Run(tmp_path / "videos", features, 0.2, crops=crops)
        started.append(first)
        first.wait_until(lambda: any(path.suffix == ".tmp" and path.stat().st_size for path in place.glob(".*")))
        second = Run(tmp_path / "videos", features, 0.2, crops=crops)
        started.append(second)
        second.wait_until(lambda: bool(second.said))  # it has started its network, or waits
        time.sleep(2)
        assert first.process.poll() is None
        second.kill()
        assert first.ended() == 0
    numbers = np.arange(16 * clips, dtype=np.float32).reshape(clips, 1, 16) + 1000 * np.arange(crops)[:, None]
    assert np.array_equal(np.load(place / "long.mp4.npy"), numbers)
    assert sorted(path.name for path in place.iterdir()) == ["long.mp4.json", "long.mp4.npy"]
    assert second.said == ["waiting for long.mp4: another process is at work there\n"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(12):
        Footage.video(folder / f"{'day' if number % 2 else 'night'}/{number}.mp4", 40, codec="mpeg4", first=50 * number)
    (folder / "night/broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes that nobody kills."""
    folder = tmp_path_factory.mktemp("alone")
    run = Run(videos, folder)
    assert run.ended() == 1
    assert run.numbers() == (12, 0, 1)
    return but_quarantine(contents(folder))


def but_quarantine(files: dict[str, bytes]) -> dict[str, bytes]:
    """All but the list that carries the time."""
    return {name: data for name, data in files.items() if not name.endswith("quarantine.jsonl")}


def test_two_extractions_share_the_work(videos: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    with runs() as started:
        started += [Run(videos, tmp_path, 0.1), Run(videos, tmp_path, 0.1, "--workers", "2")]
        assert [run.ended() for run in started] == [1, 1]
    numbers = [run.numbers() for run in started]
    assert all(extracted > 0 for extracted, _, _ in numbers), "one did everything"
    assert sum(extracted for extracted, _, _ in numbers) == 12, "a video was extracted twice"
    assert [sum(each) for each in numbers] == [13, 13], "each knows of all"
    assert but_quarantine(contents(tmp_path)) == alone
    assert (tmp_path / "tiny/quarantine.jsonl").read_text().count("\n") == 1


def test_what_a_killed_extraction_leaves_is_told_from_what_it_finished(videos: Path, tmp_path: Path) -> None:
    with runs() as started:
        started.append(Run(videos, tmp_path, 0.3))
        place = tmp_path / "tiny"
        started[0].wait_until(lambda: any(place.rglob("*.json")) and any(place.rglob("*.tmp")))
        started[0].kill()
    files = contents(tmp_path)
    left = {name for name in files if name.endswith((".tmp", ".lease"))}
    assert left
    (result,) = verify(tmp_path, VerifyConfig(), find_videos([videos]))
    assert result.whole >= 1
    assert (result.troubles, result.undigested) == ([], 0)
    (heap,) = find_garbage(tmp_path, GarbageConfig())
    assert {file.path.relative_to(tmp_path).as_posix() for each in heap.garbage for file in each.files} == left
    assert contents(tmp_path) == files
    assert delete(heap).files == len(left)
    assert contents(tmp_path) == {name: data for name, data in files.items() if name not in left}


@pytest.mark.parametrize("seed", [0])
def test_whoever_is_killed_whenever_the_rest_is_made_by_those_who_are_left(
    videos: Path, alone: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with runs() as started:
        for _ in range(3):
            started.append(Run(videos, tmp_path, 0.05))
        survivor = started.pop()
        for victim in started:
            survivor.wait_until(lambda: any(tmp_path.rglob("*.json")))
            time.sleep(chance.random())
            victim.kill()
        started.append(survivor)
        assert survivor.ended() == 1
        assert sum(survivor.numbers()) == 13
        last = Run(videos, tmp_path)
        started.append(last)
        assert last.ended() == 1
        assert last.numbers() == (0, 12, 1)
    assert but_quarantine(contents(tmp_path)) == alone
