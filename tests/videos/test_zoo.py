"""Every kind of file: the frames handed out are those that FFmpeg's own program shows, each once, upright, in time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.pipeline.videos import reader
from xelvad.pipeline.videos.reader import FrameBlock, open_video
from xelvad.pipeline.videos.worker import Decoder

from ..helpers.footage import Footage

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES = 60


def ffmpeg(*arguments: object) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True)


def shown(path: Path, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """What FFmpeg shows of a file: frames ``(n, height, width, 3)`` and their times from 0."""
    how = ["-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-enc_time_base", "demux", "-pix_fmt", "rgb24"]
    raw = subprocess.run([FFMPEG, *how, "-f", "rawvideo", "-"], capture_output=True, check=False).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    listed = subprocess.run([FFMPEG, *how, "-f", "framemd5", "-"], capture_output=True, check=False, text=True).stdout
    unit = Fraction(re.search(r"#tb 0: (\S+)", listed)[1])
    rows = [line.split(",") for line in listed.splitlines() if not line.startswith("#")]
    times = np.array([float(int(row[2]) * unit) for row in rows])
    return frames, times - times[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames that carry their numbers, nearly without loss."""
    return Footage.video(tmp_path_factory.mktemp("zoo") / "source.mp4", FRAMES, keyframe_every=20)


def coded(suffix: str, *options: str) -> Callable[[Path, Path], Path]:
    def make(source: Path, folder: Path) -> Path:
        ffmpeg("-i", source, *options, folder / f"a{suffix}")
        return folder / f"a{suffix}"

    return make


def copied(suffix: str, before: tuple[str, ...] = (), *after: str) -> Callable[[Path, Path], Path]:
    def make(source: Path, folder: Path) -> Path:
        ffmpeg(*before, "-i", source, "-c", "copy", *after, folder / f"a{suffix}")
        return folder / f"a{suffix}"

    return make


def display_matrix(*options: str) -> Callable[[Path, Path], Path]:
    def make(source: Path, folder: Path) -> Path:
        ffmpeg(*options, "-i", source, "-c", "copy", folder / "a.mp4")
        return folder / "a.mp4"

    return make


def without_its_beginning(source: Path, folder: Path) -> Path:
    """A transport stream that begins in the middle of a group of pictures."""
    ffmpeg("-i", source, "-c", "copy", folder / "whole.ts")
    packets = (folder / "whole.ts").read_bytes()
    (folder / "whole.ts").unlink()
    (folder / "a.ts").write_bytes(packets[188 * (len(packets) // 188 // 5) :])
    return folder / "a.ts"


def with_a_cover(source: Path, folder: Path) -> Path:
    cover = ("-f", "lavfi", "-i", "color=red:s=320x320:r=1:d=1")
    streams = ("-map", "0", "-map", "1", "-c:v:0", "mjpeg", "-c:v:1", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg(*cover, "-i", source, *streams, folder / "a.mp4")
    return folder / "a.mp4"


def with_a_smaller_stream_first(source: Path, folder: Path) -> Path:
    small = ("-f", "lavfi", "-i", "color=red:s=32x32:r=25:d=1")
    ffmpeg(*small, "-i", source, "-map", "0", "-map", "1", "-c:v:0", "libx264", "-c:v:1", "copy", folder / "a.mkv")
    return folder / "a.mkv"


def of_two_sizes(source: Path, folder: Path) -> Path:
    """Two transport streams, one behind the other, of which the second is larger."""
    ffmpeg("-i", source, "-frames:v", "20", "-bf", "0", folder / "1.ts")
    ffmpeg("-i", source, "-frames:v", "20", "-bf", "0", "-vf", "scale=192:96", folder / "2.ts")
    (folder / "a.ts").write_bytes((folder / "1.ts").read_bytes() + (folder / "2.ts").read_bytes())
    return folder / "a.ts"


def without_a_length(source: Path, folder: Path) -> Path:
    with (folder / "a.mkv").open("wb") as file:
        command = [FFMPEG, "-v", "error", "-i", str(source), "-c", "copy", "-f", "matroska", "-live", "1", "-"]
        subprocess.run(command, stdout=file, check=True)
    return folder / "a.mkv"


def with_a_wrong_count(source: Path, folder: Path) -> Path:
    """The header of an AVI that promises ten times the frames."""
    ffmpeg("-i", source, "-c:v", "mpeg4", folder / "a.avi")
    data = bytearray((folder / "a.avi").read_bytes())
    place = data.index(b"avih") + 8 + 16
    data[place : place + 4] = (10 * FRAMES).to_bytes(4, "little")
    (folder / "a.avi").write_bytes(data)
    return folder / "a.avi"


X264 = ("-c:v", "libx264", "-crf", "10")
ZOO: dict[str, Callable[[Path, Path], Path]] = {
    "h264 in mp4": copied(".mp4"),
    "h264 in mov": copied(".mov"),
    "h264 in mkv": copied(".mkv"),
    "h264 in flv": copied(".flv"),
    "h264 in avi": coded(".avi", *X264, "-bf", "0"),
    "h264 in ts": copied(".ts"),
    "h264 raw": copied(".h264"),
    "h264, no suffix that tells": copied(".bin", (), "-f", "mp4"),
    "h264, open gop": coded(".mp4", *X264, "-g", "15", "-x264-params", "open-gop=1"),
    "h264, intra only": coded(".mp4", *X264, "-g", "1"),
    "h264, 10 bit": coded(".mp4", *X264, "-pix_fmt", "yuv420p10le"),
    "h264, grey": coded(".mp4", *X264, "-pix_fmt", "gray"),
    "h264, 4:4:4, odd": coded(".mp4", *X264, "-pix_fmt", "yuv444p", "-vf", "scale=131:67"),
    "h264, tiny": coded(".mp4", *X264, "-pix_fmt", "yuv444p", "-vf", "scale=12:6:flags=neighbor"),
    "h264, 8K": coded(".mp4", "-c:v", "libx264", "-preset", "ultrafast", "-frames:v", "1", "-vf", "scale=7680:4320"),
    "h264, interlaced": coded(".mp4", *X264, "-flags", "+ilme+ildct", "-x264-params", "tff=1"),
    "h264, variable rate": coded(".mp4", *X264, "-vf", "select=lt(mod(n\\,7)\\,3)", "-fps_mode", "vfr"),
    "h264, cut by an edit list": copied(".mp4", ("-ss", "1.0"), "-t", "1.1"),
    "h264, cut in mkv": copied(".mkv", ("-ss", "1.0"), "-t", "1.1"),
    "h264, begins late": copied(".mp4", ("-itsoffset", "5"), "-copyts"),
    "hevc": coded(".mp4", "-c:v", "libx265", "-x265-params", "log-level=none"),
    "hevc, open gop": coded(".mkv", "-c:v", "libx265", "-x265-params", "open-gop=1:keyint=15:log-level=none"),
    "hevc, open gop, cut": lambda source, folder: copied(".mkv", ("-ss", "0.9"))(
        coded(".mp4", "-c:v", "libx265", "-x265-params", "open-gop=1:keyint=15:log-level=none")(source, folder), folder
    ),
    "av1": coded(".mp4", "-c:v", "libsvtav1", "-crf", "20", "-svtav1-params", "lp=1"),
    "vp8": coded(".webm", "-c:v", "libvpx", "-b:v", "1M", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
    "vp9": coded(".webm", "-c:v", "libvpx-vp9", "-b:v", "1M", "-auto-alt-ref", "1"),
    "vp9 with alpha": coded(".webm", "-c:v", "libvpx-vp9", "-b:v", "1M", "-pix_fmt", "yuva420p"),
    "mjpeg in avi": coded(".avi", "-c:v", "mjpeg", "-q:v", "3"),
    "mjpeg raw": coded(".mjpeg", "-c:v", "mjpeg", "-q:v", "3"),
    "mpeg-1": coded(".mpg", "-c:v", "mpeg1video", "-bf", "2", "-q:v", "3"),
    "mpeg-2 in ps": coded(".mpg", "-c:v", "mpeg2video", "-bf", "2", "-q:v", "3"),
    "mpeg-2 in ts": coded(".ts", "-c:v", "mpeg2video", "-bf", "2", "-q:v", "3"),
    "mpeg-2 in vob": coded(".vob", "-c:v", "mpeg2video", "-q:v", "3"),
    "mpeg-2 in mxf": coded(".mxf", "-c:v", "mpeg2video", "-q:v", "3"),
    "mpeg-4 in avi, b-frames": coded(".avi", "-c:v", "mpeg4", "-bf", "2", "-q:v", "3"),
    "wmv": coded(".wmv", "-c:v", "wmv2", "-q:v", "3"),
    "gif": coded(".gif"),
    "png with alpha in mov": coded(".mov", "-c:v", "png", "-pix_fmt", "rgba"),
    "raw": coded(".avi", "-c:v", "rawvideo", "-pix_fmt", "yuv420p"),
    "y4m": coded(".y4m"),
    "ffv1, 16-bit grey": coded(".mkv", "-c:v", "ffv1", "-pix_fmt", "gray16le"),
    "turned by 90": display_matrix("-display_rotation", "90"),
    "turned by 180": display_matrix("-display_rotation", "180"),
    "turned by 270": display_matrix("-display_rotation", "270"),
    "mirrored": display_matrix("-display_hflip"),
    "turned by 90 and mirrored": display_matrix("-display_rotation", "90", "-display_hflip"),
    "turned by 270 and upside down": display_matrix("-display_rotation", "270", "-display_vflip"),
    "a cover first": with_a_cover,
    "a smaller stream first": with_a_smaller_stream_first,
    "begins in mid-gop": without_its_beginning,
    "two sizes": of_two_sizes,
    "no length": without_a_length,
    "wrong count": with_a_wrong_count,
}


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    with Decoder() as decoder:
        yield decoder


@pytest.mark.parametrize("kind", ZOO)
def test_the_frames_are_those_that_ffmpeg_shows(kind: str, source: Path, tmp_path: Path, decoder: Decoder) -> None:
    path = ZOO[kind](source, tmp_path)
    with decoder.read(path, None, 16) as video:
        check(kind, path, video.blocks())


@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind != "h264, 8K"])  # a single frame, and slow
def test_so_are_those_of_pyav_alone(kind: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As it reads what is too long for decord.
    monkeypatch.setattr(reader, "DECORD_BYTES", 0)
    path = ZOO[kind](source, tmp_path)
    video = open_video(path)
    check(kind, path, video.blocks(16))
    assert video.decoder == f"av {av.__version__}"


def check(kind: str, path: Path, blocks: Iterable[FrameBlock]) -> None:
    """Whether these are the frames and times that FFmpeg's own program shows."""
    info = open_video(path).info
    expected, times = shown(path, info.width, info.height)
    frames, found = [], []
    for block in blocks:
        frames += list(block.frames.copy())
        found += block.times.tolist()
    assert len(frames) == len(expected) > 0
    # Two programs of two versions scale and convert colours a little differently; another frame is another picture.
    apart = [np.abs(ours.astype(int) - theirs).mean() for ours, theirs in zip(frames, expected, strict=True)]
    assert max(apart) < 8, f"frame {int(np.argmax(apart))} is another one"
    assert found[0] == 0
    assert (np.diff(found) > 0).all()
    if kind not in ("h264 raw", "mjpeg raw", "two sizes"):  # which have no times, or whose clock begins anew
        assert found == pytest.approx(times.tolist(), abs=2e-3)


def test_frames_of_the_zoo_differ_more_than_two_programs_do(source: Path) -> None:
    expected, _ = shown(source, 128, 64)
    assert np.abs(np.diff(expected.astype(int), axis=0)).mean(axis=(1, 2, 3)).min() > 8
