import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import decord
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from xelvad.errors import UserError
from xelvad.pipeline.videos import reader
from xelvad.pipeline.videos.config import FOLDER_FRAME_RATE
from xelvad.pipeline.videos.probe import VideoError, is_cut_off
from xelvad.pipeline.videos.reader import FrameBlock, FrameFolder, Video, VideoFile, fit_short_side, open_video
from xelvad.pipeline.videos.sources import find_videos

from ..helpers.footage import LANDSCAPE, PORTRAIT, Footage

BLOCK_SIZES = [1, 7, 16, 64]


def read(video: Video, block_size: int = 16) -> tuple[list[int], list[float]]:
    """The numbers that the frames show, and their times."""
    numbers: list[int] = []
    times: list[float] = []
    with video:
        for block in video.blocks(block_size):
            assert 0 < len(block.frames) == len(block.times) <= block_size
            numbers += [Footage.index_of(frame) for frame in block.frames]
            times += block.times.tolist()
    assert video.decoded_frames == len(numbers)
    return numbers, times


def names(*paths: Path) -> list[str]:
    return [source.name for source in find_videos(paths)]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- find_videos -----------------------------------------------------------------------------------------------------


def test_videos_are_found_in_natural_order_below_nested_folders(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ["v10.mp4", "v2.AVI", "v1.mkv", "b/a2/z.mp4", "b/a10/y.ts", "notes.txt"]))
    touch(tmp_path / ".hidden.mp4", tmp_path / ".trash/old.mp4", tmp_path / "b/readme.md")
    assert names(tmp_path) == ["b/a2/z.mp4", "b/a10/y.ts", "v1.mkv", "v2.AVI", "v10.mp4"]


def test_digits_that_are_no_decimal_numbers_do_not_disturb_the_order(tmp_path: Path) -> None:
    touch(tmp_path / "1²3.mp4", tmp_path / "½.mp4", tmp_path / "1²20.mp4")
    assert names(tmp_path) == ["1²3.mp4", "1²20.mp4", "½.mp4"]


def test_a_folder_of_pictures_is_one_video_and_pictures_beside_videos_are_none(tmp_path: Path) -> None:
    touch(tmp_path / "01_0014/000.jpg", tmp_path / "01_0014/001.jpg", tmp_path / "01_0015/a.png")
    touch(tmp_path / "mixed/poster.jpg", tmp_path / "mixed/a.mp4")
    touch(tmp_path / "above/cover.png", tmp_path / "above/below/1.jpg")
    assert names(tmp_path) == ["01_0014", "01_0015", "above/below", "mixed/a.mp4"]


def test_a_video_given_itself_is_named_by_its_file_name(tmp_path: Path) -> None:
    touch(tmp_path / "deep/down/a.mp4", tmp_path / "deep/no-suffix", tmp_path / "deep/frames/1.jpg")
    paths = tmp_path / "deep/down/a.mp4", tmp_path / "deep/no-suffix", tmp_path / "deep/frames"
    assert names(*paths) == ["a.mp4", "no-suffix", "frames"]


def test_the_current_folder_of_pictures_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `xelvad extract --videos .` within a folder of frames: Path(".").name is empty.
    touch(tmp_path / "frames/1.jpg")
    monkeypatch.chdir(tmp_path / "frames")
    assert names(Path()) == ["frames"]


def test_a_video_given_twice_is_one_video(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    assert names(tmp_path, tmp_path / "a.mp4", tmp_path) == ["a.mp4"]


def test_two_videos_of_the_same_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "front/a.mp4", tmp_path / "back/a.mp4")
    with pytest.raises(UserError) as caught:
        find_videos([tmp_path / "front", tmp_path / "back"])
    assert "front/a.mp4" in str(caught.value)
    assert "back/a.mp4" in str(caught.value)


def test_finding_nothing_and_missing_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no videos found in .*empty list"):
        find_videos([])
    touch(tmp_path / "folder/notes.txt")
    with pytest.raises(UserError, match=f"no videos found in {tmp_path}"):
        find_videos([tmp_path])
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        find_videos([tmp_path, tmp_path / "nowhere"])


# --- frames, order, times, size --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos that many tests read."""
    folder = tmp_path_factory.mktemp("films")
    Footage.video(folder / "long.mp4", 150, faststart=True, keyframe_every=25)
    Footage.video(folder / "upright.mp4", 20, PORTRAIT)
    Footage.folder(folder / "frames", 21)
    return folder


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize(("name", "frames"), [("long.mp4", 150), ("frames", 21)])
def test_every_frame_comes_once_in_order_whatever_the_block_size(
    films: Path, name: str, frames: int, block_size: int
) -> None:
    video = open_video(films / name)
    numbers, times = read(video, block_size)
    assert numbers == list(range(frames))
    assert times == pytest.approx(np.arange(frames) / 25, abs=1e-4)
    assert (video.info.declared_frames, video.salvaged_frames) == (frames, 0)
    assert video.info.frame_rate == pytest.approx(25) == FOLDER_FRAME_RATE


@pytest.mark.parametrize("frames", [1, 2, 16, 17])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_short_videos_lose_no_frame(tmp_path: Path, frames: int, codec: str) -> None:
    assert read(open_video(Footage.video(tmp_path / "short.mp4", frames, codec=codec)))[0] == list(range(frames))


# Guards against decord 3.3: of a transport stream, whole as it is, it loses the frames before the second key frame and
# repeats the last one as often; the presentation times of program streams and of some AVI files come out as ±1e14.
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".avi", "libx264"),
        (".avi", "mpeg4"),
        (".flv", "libx264"),
        (".h264", "libx264"),
        (".m2ts", "libx264"),
        (".mkv", "libx264"),
        (".mov", "libx264"),
        (".mpg", "mpeg1video"),
        (".ts", "libx264"),
        (".wmv", "wmv2"),
    ],
)
def test_every_container_gives_every_frame_once_and_times_that_increase(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    video = open_video(Footage.video(tmp_path / f"a{suffix}", 60, codec=codec, keyframe_every=12))
    numbers, times = read(video)
    assert numbers == list(range(60))
    assert np.diff(times) == pytest.approx(np.full(59, 1 / 25), abs=2e-3)
    assert 0 <= times[0] < 1


def test_times_follow_a_variable_frame_rate(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(20, 90, 59)
    milliseconds = [0, *np.cumsum(steps).tolist()]
    for name in ["a.mp4", "a.mkv"]:
        numbers, times = read(open_video(Footage.video(tmp_path / name, 60, milliseconds=milliseconds)), 7)
        assert numbers == list(range(60))
        assert times == pytest.approx(np.array(milliseconds) / 1000, abs=1e-3)


@pytest.mark.parametrize("short_side", [None, 40, 64, 100])
@pytest.mark.parametrize(("name", "size"), [("long.mp4", LANDSCAPE), ("upright.mp4", PORTRAIT), ("frames", LANDSCAPE)])
def test_the_shorter_side_is_at_most_as_asked_and_the_proportions_stay(
    films: Path, name: str, size: tuple[int, int], short_side: int | None
) -> None:
    video = open_video(films / name, short_side)
    block = next(iter(video.blocks(5)))
    width, height = (round(side * min(short_side or 64, 64) / 64) for side in size)
    assert block.frames.shape == (5, height, width, 3)
    assert block.frames.dtype == np.uint8
    assert (video.info.width, video.info.height) == (width, height)
    assert Footage.indices([block.frames]) == list(range(5))


def test_the_short_side_is_never_rounded_away() -> None:
    assert fit_short_side(640, 480, None) == (640, 480)
    assert fit_short_side(640, 480, 256) == (341, 256)
    assert fit_short_side(480, 640, 256) == (256, 341)
    assert fit_short_side(320, 240, 256) == (320, 240)  # nothing is enlarged
    assert fit_short_side(1000, 1001, 256) == (256, 256)
    assert min(fit_short_side(719, 717, 255)) == 255


def test_colours_come_as_red_green_blue(tmp_path: Path) -> None:
    red = np.zeros((64, 128, 3), np.uint8)
    red[..., 0] = 220
    with av.open(str(tmp_path / "red.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(stream.encode())
    for block in [*VideoFile(tmp_path / "red.mp4").blocks(3), *blocks_of_pyav(tmp_path / "red.mp4")]:
        assert np.abs(block.frames.astype(int) - red).max() < 12


def blocks_of_pyav(path: Path, short_side: int | None = None) -> list[FrameBlock]:
    """What is read where decord gives up at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decord, "VideoReader", lambda *_, **__: 1 / 0)
        patch.setattr(decord, "DECORDError", ZeroDivisionError)
        video = VideoFile(path, short_side)
        blocks = list(video.blocks(16))
    assert video.salvaged_frames == video.decoded_frames == sum(len(block.frames) for block in blocks)
    return blocks


@pytest.mark.parametrize("short_side", [None, 40, 100])
def test_decord_and_pyav_give_the_same_frames(films: Path, short_side: int | None) -> None:
    video = VideoFile(films / "long.mp4", short_side)
    by_decord, by_pyav = list(video.blocks(16)), blocks_of_pyav(films / "long.mp4", short_side)
    assert video.decoder == f"decord {decord.__version__}"
    assert [len(block.frames) for block in by_decord] == [len(block.frames) for block in by_pyav]
    for ours, theirs in zip(by_decord, by_pyav, strict=True):
        assert np.abs(ours.frames.astype(int) - theirs.frames).mean() < 0.5
        assert ours.times == pytest.approx(theirs.times, abs=1e-4)


# --- damaged files ---------------------------------------------------------------------------------------------------


def whole_packets(path: Path, size: int) -> int:
    """How many frames lie wholly within the first ``size`` bytes."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return sum((packet.pos or 0) + packet.size <= size for packet in packets)


def test_a_video_cut_in_half_gives_the_frames_before_the_cut(tmp_path: Path) -> None:
    # Guards the salvage: decord gives such a file up as a whole. Without B-frames what is whole is what can be shown.
    # And guards against FFmpeg's frame threads, which lose the last frames before the cut.
    whole = Footage.video(tmp_path / "whole.mp4", 120, faststart=True, keyframe_every=12, b_frames=False)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    expected = whole_packets(whole, len(data) // 2)
    assert 20 < expected < 90
    for block_size in BLOCK_SIZES:
        video = open_video(cut)
        numbers, times = read(video, block_size)
        assert numbers == list(range(expected))
        assert times == pytest.approx(np.arange(expected) / 25, abs=1e-4)
        assert video.info.declared_frames == 120
        assert video.decoder == f"av {av.__version__}", "its packets tell that the end is missing"


def test_a_broken_packet_costs_few_frames_and_no_order(tmp_path: Path) -> None:
    whole = Footage.video(tmp_path / "whole.mp4", 60, codec="mpeg4", faststart=True, keyframe_every=10)
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    broken = packets[30]
    data = bytearray(whole.read_bytes())
    data[broken.pos : broken.pos + broken.size] = bytes(broken.size)
    (tmp_path / "broken.mp4").write_bytes(data)
    numbers, _ = read(open_video(tmp_path / "broken.mp4"))
    assert numbers[:30] == list(range(30))
    assert numbers[-20:] == list(range(40, 60))


@pytest.mark.parametrize("block_size", [7, 16])
def test_pyav_goes_on_where_decord_gives_up(films: Path, block_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reader.decord_blocks

    def gives_up(*arguments: Any) -> Iterator[FrameBlock]:
        yield from itertools.islice(whole(*arguments), 3)
        raise reader._GaveUpError

    monkeypatch.setattr(reader, "decord_blocks", gives_up)
    video = open_video(films / "long.mp4")
    numbers, times = read(video, block_size)
    assert numbers == list(range(150))
    assert times == pytest.approx(np.arange(150) / 25, abs=1e-4)
    assert video.decoder == f"decord {decord.__version__}, then av {av.__version__} from frame {3 * block_size}"
    assert video.salvaged_frames == 150 - 3 * block_size


def unreadable(folder: Path, kind: str) -> tuple[Path, str]:
    """A path that is no video, and the name that the message about it must give."""
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is not a video\n" * 100)
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    elif kind == "sound":
        Footage.sound(path)
    elif kind == "headless":
        path.write_bytes(Footage.video(folder / "whole.mp4", 20).read_bytes()[2000:])
    elif kind == "blank":  # a good header before nothing but zeros
        data = bytearray(Footage.video(path, 20, faststart=True).read_bytes())
        start = data.index(b"mdat") + 4
        data[start:] = bytes(len(data) - start)
        path.write_bytes(data)
    elif kind == "folder":
        path.mkdir()
        (path / "notes.txt").touch()
    elif kind in ("cut.jpg", "cut.png", "text.jpg", "empty.png"):
        path = Footage.folder(folder / "frames", 3, suffix=Path(kind).suffix)
        picture = path / f"1{Path(kind).suffix}"
        whole = picture.read_bytes()
        picture.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no picture", "empty": b""}[Path(kind).stem])
        return path, picture.name
    return path, path.name


NO_VIDEOS = "missing empty text noise sound headless blank folder cut.jpg cut.png text.jpg empty.png"


@pytest.mark.parametrize("kind", NO_VIDEOS.split())
def test_what_is_no_video_is_refused_in_one_line_that_names_it(tmp_path: Path, kind: str) -> None:
    path, name = unreadable(tmp_path, kind)
    with pytest.raises(VideoError) as caught:
        read(open_video(path))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_with_a_broken_chunk_is_a_video_error(tmp_path: Path) -> None:
    # Pillow raises SyntaxError, not OSError, where the chunks of a PNG file do not follow one another.
    folder = Footage.folder(tmp_path / "frames", 2)
    noise = np.random.default_rng(0).integers(0, 256, (200, 400, 3), np.uint8)
    picture = folder / "1.png"
    Image.fromarray(noise).save(picture)
    data = picture.read_bytes()
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    picture.write_bytes(data[:second] + b"\0\1\2\3" + data[second + 4 :])
    with pytest.raises(VideoError, match=r"1\.png"):
        read(FrameFolder(folder))


def test_a_picture_of_another_size_is_brought_to_that_of_the_first(tmp_path: Path) -> None:
    folder = Footage.folder(tmp_path / "frames", 3)
    Footage.folder(tmp_path / "large", 2, (256, 128))
    (tmp_path / "large/1.png").replace(folder / "1.png")
    assert read(open_video(folder))[0] == [0, 1, 2]


# --- what decoding does to the process -------------------------------------------------------------------------------


def run_python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_the_modules_does_not_load_decord() -> None:
    # In one process, decord and torch have crashed each other: only the worker that decodes may load it.
    code = "import sys, xelvad.pipeline.videos.reader, xelvad.pipeline.videos.worker; print('decord' in sys.modules)"
    assert run_python(code) == "False"


CONTAINERS = [".mp4", ".mov", ".mkv", ".flv", ".avi"]


@pytest.mark.parametrize("suffix", [*CONTAINERS, ".ts"])
@pytest.mark.parametrize("keyframe_every", [10, 250])
def test_a_whole_video_is_not_cut_off(tmp_path: Path, footage: Footage, suffix: str, keyframe_every: int) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = footage.video(tmp_path / f"a{suffix}", 100, codec=codec, keyframe_every=keyframe_every)
    assert not is_cut_off(path)


@pytest.mark.parametrize("suffix", CONTAINERS)  # those that say in front how long they are
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_video_without_its_end_is_cut_off(tmp_path: Path, footage: Footage, suffix: str, share: float) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = footage.video(tmp_path / f"a{suffix}", 100, codec=codec, faststart=suffix in (".mp4", ".mov"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert is_cut_off(path)


def test_raw_video_and_folders_of_frames_promise_no_end(tmp_path: Path, footage: Footage) -> None:
    assert not is_cut_off(footage.video(tmp_path / "a.h264", 30))
    assert not is_cut_off(footage.folder(tmp_path / "b", 3))
    (tmp_path / "c.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"c\.mp4: not a video that can be opened"):
        is_cut_off(tmp_path / "c.mp4")


MEASURE = """
import sys, time
from pathlib import Path
from xelvad.pipeline.videos.reader import open_video

def kilobytes(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])

frames = 0
video = open_video(Path(sys.argv[1]))
for number, block in enumerate(video.blocks(16)):
    frames += len(block.frames)
    if number == 0:
        before = kilobytes("VmRSS")
    elif number == 8:  # as a network does, the reader takes its time: whoever decodes ahead does it now
        time.sleep(3)
nvblas = "nvblas" in Path("/proc/self/maps").read_text().lower()
print(frames, video.decoder.split()[0], kilobytes("VmHWM"), kilobytes("VmHWM") - before, nvblas)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
# Of the long ones, the one says how many frames it has and the other does not.
@pytest.mark.parametrize(("suffix", "repeats"), [(".mp4", 1), (".mp4", 16), (".mkv", 16)])
def test_memory_does_not_grow_with_length_and_nvblas_is_not_loaded(tmp_path: Path, suffix: str, repeats: int) -> None:
    # decord decodes ahead of a reader that takes its time, as a network does, without any bound: 9,000 frames took
    # 2.2 GB. And decord2 3.4.0 loaded every NVIDIA library at import, NVBLAS among them, which takes torch's matrix
    # products away from the CPU and crashes them.
    longest_of_decord = reader.DECORD_BYTES // (320 * 240 * 3)
    once, path = tmp_path / f"once{suffix}", tmp_path / f"long{suffix}"
    Footage.video(once, longest_of_decord, (320, 240))
    repeat = ["-stream_loop", str(repeats - 1), "-i", once, "-c", "copy", path]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *repeat], check=True)
    frames, decoder, peak, grown, nvblas = run_python(MEASURE, path).split()
    assert (int(frames), nvblas) == (longest_of_decord * repeats, "False")
    assert decoder == ("decord" if repeats == 1 else "av")
    assert int(peak) < 300_000  # kB
    assert repeats == 1 or int(grown) < 30_000  # all frames together are 2,000,000
