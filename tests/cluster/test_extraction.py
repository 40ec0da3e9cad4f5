"""Extraction on a real Ray cluster: what comes of it is what one process makes, whatever dies."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

pytest.importorskip("ray")

from xelvad.extractors import EXTRACTORS
from xelvad.leases import Lease, beside, try_acquire
from xelvad.pipeline.cli import main
from xelvad.pipeline.cluster.config import ClusterConfig
from xelvad.pipeline.cluster.extraction import extract
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import extract as extract_here
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.support.progress import Progress
from xelvad.pipeline.videos.sources import VideoSource, find_videos

from ..features.test_extraction import LARGE, TINY
from ..helpers.footage import Footage
from .conftest import Nodes
from .test_pool import Listening

CONFIG = ExtractionConfig(("tiny",), "random", batch=2, runtime="eager")
RAY = ClusterConfig("ray")


@pytest.fixture(autouse=True)
def _tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, TINY.name, TINY)
    monkeypatch.setitem(EXTRACTORS, LARGE.name, LARGE)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of three clips, one that kills who looks at it, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        Footage.video(folder / f"{'day' if number % 2 else 'night'}/{number}.mp4", 40, codec="mpeg4", first=50 * number)
    Footage.video(folder / "poison.mp4", 40, codec="mpeg4", first=900)
    (folder / "night/broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    EXTRACTORS[TINY.name] = TINY
    folder = tmp_path_factory.mktemp("alone")
    try:
        extract_here(find_videos([videos]), folder, replace(CONFIG, device="cpu"))
    finally:
        del EXTRACTORS[TINY.name]
    return files_in(folder)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, but the list that carries the time."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "quarantine.jsonl"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def set_aside(folder: Path) -> list[str]:
    return [json.loads(line)["video"] for line in (folder / "tiny/quarantine.jsonl").read_text().splitlines()]


class Meddling(Listening):
    """A report that releases a lease once it is waited for, and meddles when the second video is done."""

    def __init__(self, lease: Lease, meddle: Callable[[], None]) -> None:
        super().__init__()
        self.lease, self.meddle = lease, meddle

    def say(self, message: str) -> None:
        super().say(message)
        if message.startswith("waiting for day/1.mp4: another process"):
            self.lease.release()

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        report = self

        class Telling(Progress):
            done = units = 0

            def advance(self, units: int = 1) -> None:
                self.units += units

            def finish(self, name: str = "", units: int | None = None) -> None:
                self.done += 1
                if self.done == 2:
                    report.meddle()

        self.shown = Telling(verb, items, unit)
        return self.shown


def test_whatever_dies_every_file_is_that_of_one_process_and_what_kills_is_set_aside(
    tiny_nodes: Nodes, videos: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    """One video kills, one is none, one is not seen by the nodes, another run holds one, and a node goes away."""
    lease = try_acquire(beside(FeatureStore(tmp_path, "tiny").array_path("day/1.mp4")))
    assert lease is not None

    def meddle() -> None:
        tiny_nodes.kill(tiny_nodes.nodes[0].node_id)
        tiny_nodes.restore()

    report = Meddling(lease, meddle)
    found = find_videos([videos])
    unseen = VideoSource("unseen.mp4", videos / "unseen.mp4")
    sources = [VideoSource(each.name, Path(os.path.relpath(each.path))) for each in [*found, unseen]]
    result = extract(sources, Path(os.path.relpath(tmp_path)), CONFIG, RAY, report)
    bad = ["night/broken.mp4", "poison.mp4", "unseen.mp4"]
    assert sorted(each.name for each in result.extracted) == [each.name for each in found if each.name not in bad]
    assert sorted(result.failed) == bad
    assert sorted(set_aside(tmp_path)) == bad[:2]
    assert "/poison.mp4: its process died or failed twice (process " in result.failed["poison.mp4"]
    assert "no such file or folder on " in result.failed["unseen.mp4"]
    assert files_in(tmp_path) == {name: data for name, data in alone.items() if "poison" not in name}
    assert tiny_nodes.died.read_text().split() in [["935"] * 2, ["935"] * 3]  # once more where it was in company
    assert report.shown.done == report.shown.items == len(sources)
    assert report.shown.units >= 3 * len(result.extracted)
    again = extract(sources[:-1], tmp_path, CONFIG, RAY, report)  # starts nothing
    assert (len(again.extracted), len(again.current), sorted(again.failed)) == (0, 8, bad[:2])


def test_what_is_wrong_with_the_request_ends_it(
    tiny_nodes: Nodes, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    safetensors.numpy.save_file({"offset": np.array([np.nan], np.float32)}, "nan.safetensors")
    arguments = ["extract", str(videos / "day"), "--features", "features", "--extractor", "tiny", "--runtime", "eager"]
    assert main([*arguments, "--weights", "nan.safetensors", "--engine", "ray"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"xelvad: {tmp_path}/features/tiny/")
    assert said[-1].endswith(".mp4.npy: the network gave NaN or infinite features, the file was not written")
    assert files_in(tmp_path / "features") == {}


def test_ctrl_c_ends_the_actors_and_leaves_whole_files_and_nothing_else(
    tiny_nodes: Nodes, videos: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    class Interrupting(Listening):
        def progress(self, verb: str, items: int, unit: str) -> Progress:
            class Once(Progress):
                def finish(self, name: str = "", units: int | None = None) -> None:
                    raise KeyboardInterrupt  # as in `ray.wait`, where the driver nearly always is

            return Once(verb, items, unit)

    with pytest.raises(KeyboardInterrupt):
        extract(find_videos([videos]), tmp_path, CONFIG, RAY, Interrupting())
    left = files_in(tmp_path)
    assert 2 <= len(left) < len(alone)
    assert left == {name: alone[name] for name in left}
