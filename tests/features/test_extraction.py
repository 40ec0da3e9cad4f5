"""Extraction, with a network of one parameter that reads the frame numbers: what a feature must be is known."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from xelvad import __version__
from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ExtractorSpec, engines
from xelvad.extractors.runtimes import Engine
from xelvad.leases import Lease, beside, try_acquire
from xelvad.pipeline.cli import main
from xelvad.pipeline.features import extraction
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import extract
from xelvad.pipeline.features.quarantine import ENVIRONMENT, FILE, Quarantine, stamp_of
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.features.tasks import ExtractionResult
from xelvad.pipeline.support.progress import Progress
from xelvad.pipeline.videos.config import Tail
from xelvad.pipeline.videos.identity import digest
from xelvad.pipeline.videos.sources import VideoSource, find_videos
from xelvad.pipeline.videos.stream import ClipReader, Closed
from xelvad.pipeline.videos.worker import DecodedVideo, Decoder

from ..helpers.footage import LANDSCAPE, Footage


@dataclass(frozen=True)
class FrameNumbers:
    """The numbers that a clip's frames show."""

    crop = 64
    crops: int | None = None
    channels = 1

    def __str__(self) -> str:
        return "frame numbers"

    def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
        numbers = torch.tensor([Footage.indices([clip]) for clip in clips], dtype=torch.float32)
        crops = numbers[:, None] + 1000 * torch.arange(self.crops or 1)[:, None]  # (B, crops, T)
        return (crops if self.crops else crops[:, 0])[..., None, :, None, None]

    def first_layer(self) -> nn.Module:
        return nn.Identity()


TINY = ExtractorSpec(
    name="tiny",
    description="The frame numbers of a clip, plus an offset",
    module=__name__,
    feature_dim=16,
    preprocessing=FrameNumbers(),
    default_weights="tiny-weights",
)
EAGER = ["--device", "cpu", "--runtime", "eager"]
LARGE = replace(TINY, name="large", preprocessing=FrameNumbers(crops=2))


class Tiny(nn.Module):
    """A network whose features are the numbers that the clip's frames show."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
        return x.flatten(1) + self.offset


def build(spec: ExtractorSpec) -> nn.Module:
    return Tiny()


def convert_layout(arrays: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(autouse=True)
def _tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, TINY.name, TINY)
    monkeypatch.setitem(EXTRACTORS, LARGE.name, LARGE)


def config(tail: Tail = "pad", batch: int = 2, weights: str = "random") -> ExtractionConfig:
    return ExtractionConfig(("tiny",), weights, tail, batch, "cpu", "eager")


def run(videos: Path, features: Path, config: ExtractionConfig) -> ExtractionResult:
    return extract(find_videos([videos]), features, config)


def left_in(folder: Path) -> list[str]:
    """What should not stay: temporary files and leases."""
    return sorted(path.name for path in folder.rglob(".*"))


def expected(frames: int, tail: Tail = "pad", first: int = 0) -> NDArray[np.float32]:
    """The numbers of the frames of each clip."""
    starts = range(0, frames, 16) if tail == "pad" or frames < 16 else range(0, frames - 15, 16)
    clips = [[first + min(start + offset, frames - 1) for offset in range(16)] for start in starts]
    return np.array(clips, np.float32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 33 frames, three clips each."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        Footage.video(folder / f"day/{number}.mp4", 33, codec="mpeg4", first=100 * number)
    return folder


@pytest.mark.parametrize("tail", ["pad", "drop"])
def test_features_are_those_of_each_clip_whatever_the_length(tmp_path: Path, tail: Tail) -> None:
    lengths = [1, 15, 16, 17, 33]
    for frames in lengths:
        Footage.video(tmp_path / f"videos/{frames}.mp4", frames, codec="mpeg4")
    Footage.folder(tmp_path / "videos/frames", 18)
    result = run(tmp_path / "videos", tmp_path / "features", config(tail, batch=3))
    assert [source.name for source in result.extracted] == [*(f"{frames}.mp4" for frames in lengths), "frames"]
    assert (result.current, result.failed) == ([], {})
    store = FeatureStore(tmp_path / "features", "tiny")
    for name, frames in [*((f"{frames}.mp4", frames) for frames in lengths), ("frames", 18)]:
        features = store.read(name)
        assert features.array.dtype == np.float32
        assert np.array_equal(features.array, expected(frames, tail))
        sidecar = features.sidecar
        assert (sidecar.video, sidecar.frames, sidecar.declared_frames) == (name, frames, frames)
        assert (sidecar.salvaged_frames, sidecar.extractor, sidecar.feature_dim) == (0, "tiny", 16)
        assert sidecar.video_sha256 == digest(tmp_path / "videos" / name)
        assert sidecar.timeline.times(frames) == pytest.approx(np.arange(frames) / 25, abs=1e-3)
        assert sidecar.fingerprint == "tiny | frame numbers | weights random (seed 0)"


def test_the_batch_changes_no_feature(videos: Path, tmp_path: Path) -> None:
    for batch in (1, 7):
        run(videos / "day/2.mp4", tmp_path / str(batch), config(batch=batch))
        assert np.array_equal(np.load(tmp_path / f"{batch}/tiny/2.mp4.npy"), expected(33, first=200))


def test_a_second_run_neither_builds_the_network_nor_decodes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(videos, tmp_path, config())

    def never(*_: object) -> None:
        raise AssertionError("not on a second run")

    monkeypatch.setattr(engines, "create_extractor", never)
    monkeypatch.setattr(extraction, "ClipReader", never)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    result = run(videos, tmp_path, config(batch=9))
    assert (result.extracted, result.failed) == ([], {})
    assert [source.name for source in result.current] == [f"day/{number}.mp4" for number in range(4)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


def test_only_a_video_that_changed_is_extracted_anew(tmp_path: Path) -> None:
    for number in range(3):
        Footage.video(tmp_path / f"videos/{number}.mp4", 20, codec="mpeg4", first=100 * number)
    run(tmp_path / "videos", tmp_path / "features", config())
    Footage.video(tmp_path / "videos/1.mp4", 40, codec="mpeg4", first=500)
    result = run(tmp_path / "videos", tmp_path / "features", config())
    assert [source.name for source in result.extracted] == ["1.mp4"]
    assert len(result.current) == 2
    features = FeatureStore(tmp_path / "features", "tiny").read("1.mp4")
    assert np.array_equal(features.array, expected(40, first=500))


def test_a_bad_video_is_set_aside_and_the_others_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "videos"
    for name in ["1.mp4", "3.mp4", "5.mp4"]:
        Footage.video(folder / name, 17, codec="mpeg4")
    (folder / "2.mp4").write_text("no video")
    picture = Footage.folder(folder / "4", 20) / "18.png"  # its first clip is good
    picture.write_bytes(picture.read_bytes()[:-60])
    arguments = "extract", "--videos", folder, "--features", tmp_path / "features", "--extractor", "tiny"
    code = main([*map(str, arguments), "--weights", "random", *EAGER])
    printed = capsys.readouterr()
    assert code == 1
    assert "3 extracted, 0 were there, 2 set aside" in printed.out
    assert sum(line.startswith("set aside: ") and "2.mp4" in line for line in printed.err.splitlines()) >= 1
    assert sum(line.startswith("set aside: ") and "18.png" in line for line in printed.err.splitlines()) >= 1
    assert "Traceback" not in printed.err
    written = sorted(path.name for path in (tmp_path / "features").rglob("*") if path.is_file())
    files = [f"{number}.mp4.{suffix}" for number in (1, 3, 5) for suffix in ("json", "npy")]
    assert written == [*files, "quarantine.jsonl"]


def test_random_and_real_features_do_not_mix(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors.numpy.save_file({"offset": np.array([1000], np.float32)}, tmp_path / "real.safetensors")
    arguments = [
        "extract",
        "--videos",
        str(videos / "day/0.mp4"),
        "--extractor",
        "tiny",
        "--device",
        "cpu",
        "--runtime",
        "eager",
    ]
    random, real = ["--weights", "random"], ["--weights", str(tmp_path / "real.safetensors")]
    for first, second, offset in [(random, real, 0), (real, random, 1000)]:
        features = ["--features", str(tmp_path / f"features{offset}")]
        assert main(arguments + features + first) == 0
        capsys.readouterr()
        assert main(arguments + features + second) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "0.mp4.json: made by «tiny | frame numbers | weights " in line
        assert "random (seed 0)" in line
        array = np.load(tmp_path / f"features{offset}/tiny/0.mp4.npy")
        assert np.array_equal(array, expected(33) + offset)


def test_the_papers_tail_and_the_padded_one_do_not_mix(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, config("pad"))
    with pytest.raises(UserError, match="use another --features folder"):
        run(videos, tmp_path, config("drop"))


def test_a_network_that_gives_nan_is_said_so_and_nothing_is_written(videos: Path, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"offset": np.array([np.nan], np.float32)}, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"0\.mp4\.npy: the network gave NaN"):
        run(videos, tmp_path / "features", config(weights=str(tmp_path / "nan.safetensors")))
    assert not [path for path in (tmp_path / "features").rglob("*") if path.is_file()]


@pytest.mark.parametrize("wrong", [["--extractor", "i4d"], ["--weights", "nowhere.pt"], ["--videos", "nowhere.mp4"]])
def test_a_wrong_request_is_one_line_and_code_2(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    arguments = ["extract", "--videos", str(videos), "--features", str(tmp_path / "f"), "--extractor", "tiny"]
    assert main([*arguments, "--weights", "random", *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xelvad: ")
    assert wrong[1] in line
    assert not (tmp_path / "f").exists()


COMMAND = """
import sys
from xelvad.extractors import EXTRACTORS
from xelvad.pipeline.cli import main
from xelvad.tests.features.test_extraction import TINY

EXTRACTORS[TINY.name] = TINY
sys.exit(main(sys.argv[1:]))
"""


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_run_leaves_whole_files_and_the_next_one_goes_on(videos: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = "extract", "--videos", videos, "--features", killed, "--extractor", "tiny", "--weights", "random"
    command = [
        sys.executable,
        "-c",
        COMMAND,
        *map(str, arguments),
        "--batch",
        "1",
        "--device",
        "cpu",
        "--runtime",
        "eager",
    ]

    def second() -> bool:
        return any((killed / "tiny/day").glob(".1.mp4.npy.*.tmp"))

    with subprocess.Popen(command, env=os.environ | {"TINY_SECONDS": "0.2"}, text=True) as process:
        wait_until(lambda: second() and (killed / "tiny/day/0.mp4.json").exists(), process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert second()  # in the middle of the second video

    store = FeatureStore(killed, "tiny")
    done = sorted(path.name for path in killed.rglob("*.npy"))
    assert done == ["0.mp4.npy"]
    assert np.array_equal(store.read("day/0.mp4").array, expected(33))

    result = run(videos, killed, config())
    assert [source.name for source in result.current] == ["day/0.mp4"]
    assert [source.name for source in result.extracted] == ["day/1.mp4", "day/2.mp4", "day/3.mp4"]
    run(videos, whole, config())
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert sorted(path.relative_to(killed) for path in killed.rglob("*") if path.is_file()) == files
    assert len(files) == 8
    for file in files:
        assert (killed / file).read_bytes() == (whole / file).read_bytes()


# --- several processes, full disks -----------------------------------------------------------------------------------


class Listening:
    """A report that keeps what it is told, and calls back."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.told = told

    def say(self, message: str) -> None:
        self.said.append(message)
        if message.startswith("waiting for"):
            self.told()

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        return Progress(verb, items, unit)


def lease_on(features: Path, name: str, extractor: str = "tiny") -> Lease:
    lease = try_acquire(beside(FeatureStore(features, extractor).array_path(name)))
    assert lease is not None
    return lease


@pytest.mark.parametrize("done", [True, False])
def test_a_video_that_another_works_on_is_waited_for_and_made_if_the_other_does_not(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    monkeypatch.setattr(extraction, "POLL_SECONDS", 0.01)
    run(videos / "day", tmp_path / "whole", config())
    held = [lease_on(tmp_path / "shared", f"{number}.mp4") for number in (0, 2)]
    there = tmp_path / "shared/tiny"

    def finish() -> None:
        assert sorted(path.name for path in there.glob("*.npy")) == ["1.mp4.npy", "3.mp4.npy"], "it waited too soon"
        for path in (tmp_path / "whole/tiny").glob("[02].*") if done else []:
            (there / path.name).write_bytes(path.read_bytes())
        for lease in held:
            lease.release()

    report = Listening(finish)
    result = extract(find_videos([videos / "day"]), tmp_path / "shared", config(), report)
    assert [text for text in report.said if "waiting" in text] == [
        "waiting for 0.mp4 and 1 more: another process is at work there"
    ]
    assert sum(text.startswith("tiny: ") for text in report.said) == 1, "the network starts once"
    others = ["0.mp4", "2.mp4"]
    assert [source.name for source in result.current] == (others if done else [])
    assert [source.name for source in result.extracted] == ["1.mp4", "3.mp4", *([] if done else others)]
    assert left_in(tmp_path) == []
    for path in (tmp_path / "whole").rglob("*.*"):
        assert (tmp_path / "shared" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_where_others_do_everything_no_network_is_started(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "POLL_SECONDS", 0.01)
    run(videos / "day", tmp_path / "whole", config())
    held = [lease_on(tmp_path / "shared", f"{number}.mp4") for number in range(4)]

    def finish() -> None:
        for path in (tmp_path / "whole/tiny").iterdir():
            (tmp_path / "shared/tiny" / path.name).write_bytes(path.read_bytes())
        for lease in held:
            lease.release()

    monkeypatch.setattr(engines, "create_extractor", lambda *_: pytest.fail("there was nothing to do"))
    result = extract(find_videos([videos / "day"]), tmp_path / "shared", config(), Listening(finish))
    assert len(result.current) == 4
    assert left_in(tmp_path) == []


def test_a_video_of_which_another_makes_features_for_one_extractor_is_left_to_it_whole(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "POLL_SECONDS", 0.01)
    held = lease_on(tmp_path, "1.mp4", "large")
    free: list[bool] = []

    def finish() -> None:
        lease_on(tmp_path, "1.mp4", "tiny").release()  # it is not held by one who waits
        free.append(True)
        held.release()

    both = replace(config(), extractor=("tiny", "large"))
    result = extract(find_videos([videos / "day"]), tmp_path, both, Listening(finish))
    assert free == [True]
    assert [source.name for source in result.extracted] == ["0.mp4", "2.mp4", "3.mp4", "1.mp4"]
    assert left_in(tmp_path) == []


FULL_DISK = COMMAND.replace(
    "EXTRACTORS[TINY.name] = TINY",
    """
import resource, signal
from xelvad.pipeline.features.store import FeatureWriter

EXTRACTORS[TINY.name] = TINY
append = FeatureWriter.append
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def append_until_it_is_full(writer, features):
    if "2.mp4" in str(writer._path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
    append(writer, features)

FeatureWriter.append = append_until_it_is_full
""",
)


def command_line(code: str, videos: Path, features: Path, *options: str) -> list[str]:
    arguments = "extract", videos, "--features", features, "--extractor", "tiny", "--weights", "random", *EAGER
    return [sys.executable, "-c", code, *map(str, arguments), *options]


def test_a_full_disk_is_one_line_and_keeps_what_was_finished(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    command = command_line(FULL_DISK, videos / "day", tmp_path, "--batch", "1")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"xelvad: {tmp_path}/tiny/2.mp4.npy: File too large"
    assert "Traceback" not in result.stderr
    kept = sorted(path.name for path in (tmp_path / "tiny").iterdir())
    assert kept == [f"{number}.mp4.{suffix}" for number in (0, 1) for suffix in ("json", "npy")]
    assert [source.name for source in run(videos / "day", tmp_path, config()).extracted] == ["2.mp4", "3.mp4"]


def test_a_folder_that_may_not_be_written_to_is_one_line(videos: Path, tmp_path: Path) -> None:
    command = command_line(COMMAND, videos / "day", tmp_path)
    if os.geteuid() == 0:  # who may write anywhere must give that up
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv where it runs as root")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    tmp_path.chmod(0o555)
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        tmp_path.chmod(0o755)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [f"xelvad: {tmp_path}/tiny: Permission denied"]
    assert list(tmp_path.iterdir()) == []


# --- videos that were set aside --------------------------------------------------------------------------------------


def set_aside(folder: Path) -> dict[str, str]:
    """A folder of one good video and two bad ones, `extract`ed once; why each was set aside."""
    Footage.video(folder / "videos/1.mp4", 17, codec="mpeg4")
    (folder / "videos/2.mp4").write_text("no video")
    Footage.folder(folder / "videos/3", 20)
    (folder / "videos/3/18.png").write_bytes(b"no picture")
    result = run(folder / "videos", folder / "features", config())
    assert sorted(result.failed) == ["2.mp4", "3"]
    return result.failed


def test_a_video_that_was_set_aside_is_not_tried_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = set_aside(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(engines, "create_extractor", lambda *_: pytest.fail("there is nothing to do"))
        arguments = "extract", tmp_path / "videos", "--features", tmp_path / "features", "--extractor", "tiny"
        assert main([*map(str, arguments), "--weights", "random", *EAGER]) == 1
    printed = capsys.readouterr()
    assert main([*map(str, arguments), "--weights", "random", *EAGER, "--retry"]) == 1
    assert "set aside before" not in capsys.readouterr().err
    assert "0 extracted, 1 were there, 2 set aside" in printed.out
    for reason in reasons.values():
        assert f"set aside: {reason} (set aside before; --retry tries again)" in printed.err
    Footage.video(tmp_path / "videos/2.mp4", 33, codec="mpeg4")
    result = run(tmp_path / "videos", tmp_path / "features", config())
    assert [source.name for source in result.extracted] == ["2.mp4"]
    assert list(result.failed) == ["3"]
    entries = [json.loads(line) for line in (tmp_path / "features/tiny" / FILE).read_text().splitlines()]
    twice = [*sorted(reasons.items())] * 2
    assert [(entry["video"], entry["reason"]) for entry in entries] == [*twice, ("2.mp4", None)]
    assert all(entry["version"] == __version__ and entry["time"] for entry in entries)


def test_a_video_that_was_set_aside_is_tried_again_on_request_and_what_succeeds_no_longer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside(tmp_path)
    retry = replace(config(), retry=True)
    again = run(tmp_path / "videos", tmp_path / "features", retry)
    assert sorted(again.failed) == ["2.mp4", "3"]
    assert "set aside before" not in str(again.failed)
    bad = tmp_path / "videos/2.mp4"
    times = bad.stat().st_atime_ns, bad.stat().st_mtime_ns
    good = Footage.video(tmp_path / "good.mp4", 33, codec="mpeg4").read_bytes()
    bad.write_bytes(good)
    entries = tmp_path / "features/tiny" / FILE
    entries.write_text(re.sub(r'("video": "2.mp4".*"video_bytes": )\d+', rf"\g<1>{len(good)}", entries.read_text()))
    os.utime(bad, ns=times)  # as after a better decoder was installed: the same video can be read now
    assert list(run(tmp_path / "videos", tmp_path / "features", config()).extracted) == []
    result = run(tmp_path / "videos", tmp_path / "features", retry)
    assert [source.name for source in result.extracted] == ["2.mp4"]
    (tmp_path / "features/tiny/2.mp4.npy").unlink()
    result = run(tmp_path / "videos", tmp_path / "features", config())
    assert [source.name for source in result.extracted] == ["2.mp4"]


def test_a_video_that_another_process_set_aside_meanwhile_is_not_tried_even_on_request(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "POLL_SECONDS", 0.01)
    source = VideoSource("1.mp4", videos / "day/1.mp4")
    Quarantine(tmp_path / "tiny").add(source, "long ago", stamp_of(source))
    held = lease_on(tmp_path, "1.mp4")

    def finish() -> None:
        Quarantine(tmp_path / "tiny").add(source, "just now", stamp_of(source))
        held.release()

    retry = replace(config(), retry=True)
    result = extract(find_videos([videos / "day"]), tmp_path, retry, Listening(finish))
    assert result.failed == {"1.mp4": "just now (set aside before; --retry tries again)"}
    assert len(result.extracted) == 3


@pytest.mark.parametrize("what", ENVIRONMENT)
def test_what_is_not_the_videos_fault_is_not_held_against_it(videos: Path, tmp_path: Path, what: str) -> None:
    source = VideoSource("1.mp4", videos / "day/1.mp4")
    Quarantine(tmp_path).add(source, f"1.mp4: cannot be decoded (OSError: {what})", stamp_of(source))
    assert Quarantine(tmp_path).reason(source) is None
    assert not (tmp_path / FILE).exists()


APPENDING = """
import sys
from pathlib import Path
from xelvad.pipeline.features.quarantine import Quarantine
from xelvad.pipeline.videos.sources import VideoSource

quarantine = Quarantine(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    quarantine.add(VideoSource(f"{sys.argv[2]}/{number}", Path()), "because " * 100, (1, 2))
"""


def test_several_processes_append_whole_lines_and_others_are_passed_over(tmp_path: Path) -> None:
    torn = b'[]\n{"video": 3}\n\xff\n\n{"video": "torn off by a full disk", "rea'
    (tmp_path / FILE).write_bytes(torn)
    command = [sys.executable, "-c", APPENDING, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "abc"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    lines = (tmp_path / FILE).read_bytes()[len(torn) + 1 :].splitlines()
    found = sorted(json.loads(line)["video"] for line in lines if line)
    assert found == sorted(f"{name}/{number}" for name in "abc" for number in range(100))
    (tmp_path / "videos").write_bytes(b"?")
    os.utime(tmp_path / "videos", ns=(2, 2))
    source = VideoSource("b/7", tmp_path / "videos")
    assert Quarantine(tmp_path).reason(source) == ("because " * 100).strip()


# --- networks and pictures -------------------------------------------------------------------------------------------


def test_large_frames_come_scaled_down_and_small_ones_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(FrameNumbers):
        def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
            seen.append(clips.shape)
            return super().__call__(clips)

    monkeypatch.setitem(EXTRACTORS, TINY.name, replace(TINY, preprocessing=Watching()))
    monkeypatch.setattr(extraction, "LARGEST_SHORT_SIDE", 80)
    for name, factor in {"small": 1, "large": 2}.items():
        video = Footage.video(tmp_path / f"{name}.mp4", 16, tuple(factor * side for side in LANDSCAPE), codec="mpeg4")
        run(video, tmp_path / "features", config())
    assert seen == [(1, 16, 64, 128, 3), (1, 16, 80, 160, 3)]


# --- several extractors, several workers, still clips ----------------------------------------------------------------


def test_several_extractors_share_one_decoding_and_give_what_each_gives_alone(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    whole = Decoder.read

    def counting(self: Decoder, path: Path, *how: int) -> AbstractContextManager[DecodedVideo]:
        read.append(path)
        return whole(self, path, *how)

    monkeypatch.setattr(Decoder, "read", counting)
    both = replace(config(), extractor=("tiny", "large"))
    result = run(videos, tmp_path / "both", both)
    assert sorted(read) == [source.path for source in result.extracted]
    assert [source.name for source in result.extracted] == [f"day/{number}.mp4" for number in range(4)]
    for name in ("tiny", "large"):
        run(videos, tmp_path / "alone", replace(config(), extractor=(name,)))
        for number in range(4):
            path = f"{name}/day/{number}.mp4.npy"
            assert (tmp_path / "both" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()
    large = FeatureStore(tmp_path / "both", "large").read("day/1.mp4")
    assert large.array.shape == (3, 2, 16)
    assert large.sidecar.crops == 2
    assert np.array_equal(large.array, expected(33, first=100)[:, None] + np.float32([[0], [1000]]))


def test_a_further_extractor_makes_its_own_features_alone(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, config())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    result = run(videos, tmp_path, replace(config(), extractor=("large", "tiny")))
    assert len(result.extracted) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((tmp_path / "large").rglob("*.npy"))) == 4


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_workers_and_batches_over_several_videos_change_no_byte(videos: Path, tmp_path: Path, batch: int) -> None:
    run(videos, tmp_path / "one", config())
    result = run(videos, tmp_path / "many", replace(config(batch=batch), workers=3))
    assert sorted(source.name for source in result.extracted) == [f"day/{number}.mp4" for number in range(4)]
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes()


def test_batches_mix_videos_so_that_they_are_full(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    start = Engine.start

    def counting(self: Engine, inputs: list[Tensor]) -> Tensor:
        sizes.append(len(inputs))
        return start(self, inputs)

    monkeypatch.setattr(Engine, "start", counting)
    run(videos, tmp_path, config(batch=5))
    assert sizes == [5, 5, 5]  # four videos of three clips, and the last batch filled up


def test_a_video_that_fails_while_its_clips_wait_takes_none_of_the_others_along(tmp_path: Path) -> None:
    for number in range(3):
        Footage.video(tmp_path / f"videos/{number}.mp4", 20, codec="mpeg4", first=100 * number)
    picture = Footage.folder(tmp_path / "videos/0a", 40) / "30.png"  # its first clip is good, and waits
    picture.write_bytes(picture.read_bytes()[:-60])
    result = run(tmp_path / "videos", tmp_path / "features", config(batch=50))
    assert list(result.failed) == ["0a"]
    for number in range(3):
        features = FeatureStore(tmp_path / "features", "tiny").read(f"{number}.mp4")
        assert np.array_equal(features.array, expected(20, first=100 * number))
    assert not list((tmp_path / "features").rglob("*0a*"))


def still_video(path: Path, levels: list[int]) -> Path:
    """A folder of grey pictures, 16 of each level: a clip each."""
    path.mkdir(parents=True)
    for number, level in enumerate(np.repeat(levels, 16)):
        Image.new("L", (64, 48), int(level)).convert("RGB").save(path / f"{number:04}.png")
    return path


@pytest.mark.parametrize("batch", [1, 2, 50])
def test_still_clips_take_the_features_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    class Mean(FrameNumbers):
        def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
            return torch.from_numpy(clips[..., :1, :1, :1].astype(np.float32)).permute(0, 4, 1, 2, 3)

    monkeypatch.setitem(EXTRACTORS, TINY.name, replace(TINY, preprocessing=Mean()))
    video = still_video(tmp_path / "still", [100, 101, 102, 103, 100, 100, 50])
    still = replace(config(batch=batch), reuse_static=2.0)
    run(video, tmp_path / "features", still)
    found = FeatureStore(tmp_path / "features", "tiny").read("still")
    assert found.array[:, 0].tolist() == [100, 100, 100, 103, 100, 100, 50]
    assert found.sidecar.reused == (1, 2, 5)
    assert found.sidecar.reuse_static == 2.0
    run(video, tmp_path / "all", config(batch=batch))
    assert FeatureStore(tmp_path / "all", "tiny").read("still").array[:, 0].tolist() == [
        100, 101, 102, 103, 100, 100, 50,
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"made with --reuse-static 2, not 0; use another --features folder"):
        run(video, tmp_path / "features", config())


def test_small_pictures_are_said_to_be_enlarged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = Footage.video(tmp_path / "small.mp4", 16, (60, 40), codec="mpeg4")
    arguments = ["extract", "--videos", str(video), "--features", str(tmp_path / "f"), "--extractor", "tiny"]
    assert main([*arguments, "--weights", "random", *EAGER]) == 0
    assert "small.mp4: 60x40 pixels, enlarged: tiny looks at 64x64" in capsys.readouterr().err


def test_what_the_decoder_has_to_say_of_the_frames_is_noted(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = ClipReader.events

    def noting(self: ClipReader[object]) -> Iterator[object]:
        for event in events(self):
            summary = isinstance(event, Closed) and replace(event.summary, notes=("2 frames damaged", "1 frame hidden"))
            yield replace(event, summary=summary) if summary else event

    monkeypatch.setattr(ClipReader, "events", noting)
    result = run(videos / "day/1.mp4", tmp_path, config())
    assert result.notes == {"1.mp4": f"{videos / 'day/1.mp4'}: 2 frames damaged; 1 frame hidden"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--extractor", "tiny", "tiny"], "name one or more, each once"),
        (["--extractor", "tiny", "large", "--weights", "a.pt"], "a.pt cannot fit tiny and large"),
        (["--workers", "0"], "workers must be at least 1"),
        (["--reuse-static", "-1"], "0 to 255"),
        (["--device", "cuda:7"], "not to be had here"),
        (["--device", "meta"], "--device is cpu, cuda, cuda:1 and so on, or auto, not meta"),
    ],
)
def test_contradictory_options_are_refused(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    arguments = ["extract", "--videos", str(videos), "--features", str(tmp_path / "f"), "--extractor", "tiny"]
    assert main([*arguments, "--weights", "random", "--runtime", "eager", *options]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.npy*"))


# --- shards ----------------------------------------------------------------------------------------------------------


def test_shards_make_every_feature_once_and_what_one_process_makes(tmp_path: Path) -> None:
    lengths = {"long.mp4": 80, "day/a.mp4": 40, "day/b.mp4": 40, "short.mp4": 5}
    for number, (name, frames) in enumerate(lengths.items()):
        Footage.video(tmp_path / "videos" / name, frames, codec="mpeg4", first=100 * number)
    Footage.folder(tmp_path / "videos/frames", 18)
    run(tmp_path / "videos", tmp_path / "alone", config())
    done: list[str] = []
    for number in (2, 1, 3):
        shard = replace(config(), shard=f"{number}/3")
        result = run(tmp_path / "videos", tmp_path / "shards", shard)
        done += [source.name for source in result.extracted]
        assert (result.current, result.failed) == ([], {})
        again = run(tmp_path / "videos", tmp_path / "shards", shard)
        assert (again.current, again.extracted) == (result.extracted, []), "the split is the same once some is done"
    assert sorted(done) == sorted([*lengths, "frames"])
    files = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path / "shards") for path in (tmp_path / "shards").rglob("*.*"))
    for file in files:
        path = tmp_path / "alone" / file
        assert path.is_dir() or path.read_bytes() == (tmp_path / "shards" / file).read_bytes()


def test_a_shard_is_by_bytes_of_files_and_of_pictures_together(videos: Path, tmp_path: Path) -> None:
    # A folder of pictures is larger than all the videos together: it is a shard of its own.
    shutil.copytree(videos, tmp_path / "videos")
    Footage.folder(tmp_path / "videos/frames", 300)
    result = run(tmp_path / "videos", tmp_path / "features", replace(config(), shard="2/2"))
    assert [source.name for source in result.extracted] == [f"day/{number}.mp4" for number in range(4)]


def test_which_shard_it_was_is_said(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["extract", str(videos), "--features", str(tmp_path), "--extractor", "tiny", "--weights", "random"]
    assert main([*arguments, *EAGER, "--shard", "2/3"]) == 0
    assert capsys.readouterr().out == "1 extracted, 0 were there, 0 set aside (shard 2/3: 1 of 4 videos)\n"
    assert main([*arguments, *EAGER, "--shard", "16/16"]) == 0
    assert capsys.readouterr().out == "0 extracted, 0 were there, 0 set aside (shard 16/16: 0 of 4 videos)\n"
    assert main([*arguments, *EAGER]) == 0
    assert capsys.readouterr().out == "3 extracted, 1 were there, 0 set aside\n"
    assert main([*arguments, *EAGER, "--shard", "4/3"]) == 2
    assert "--shard is a part of the work, 1/16 to 16/16, not '4/3'" in capsys.readouterr().err
