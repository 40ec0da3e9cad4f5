"""Extraction, with a network of one parameter that reads the frame numbers: what a feature must be is known."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ExtractorSpec
from xelvad.extractors.runtimes import Engine
from xelvad.pipeline.cli import main
from xelvad.pipeline.features import extraction
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import ExtractionResult, extract
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.config import Tail
from xelvad.pipeline.videos.identity import digest
from xelvad.pipeline.videos.sources import find_videos
from xelvad.pipeline.videos.stream import ClipReader
from xelvad.pipeline.videos.worker import Decoder

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

    monkeypatch.setattr(extraction, "create_extractor", never)
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
    read: list[str] = []
    whole = ClipReader._read

    def counting(self: ClipReader[object], number: int, decoder: Decoder) -> None:
        read.append(self.sources[number].name)
        whole(self, number, decoder)

    monkeypatch.setattr(ClipReader, "_read", counting)
    both = replace(config(), extractor=("tiny", "large"))
    result = run(videos, tmp_path / "both", both)
    assert sorted(read) == [source.name for source in result.extracted] == [f"day/{number}.mp4" for number in range(4)]
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
    assert sizes == [5, 5, 2]  # four videos of three clips


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
