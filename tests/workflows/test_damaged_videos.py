"""Damaged files: whatever is handed out is what FFmpeg makes of them, and no file stops another."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from xelvad.pipeline.videos.probe import VideoError
from xelvad.pipeline.videos.reader import open_video
from xelvad.pipeline.videos.worker import Decoder

from ..helpers.footage import Footage

pytestmark = pytest.mark.slow

FILES, FRAMES = 500, 40
KINDS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".ts": "libx264", ".flv": "libx264"}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, a stretch of zeros or of noise, a stretch missing, or the end gone; not in the first tenth."""
    body, first = bytearray(data), len(data) // 10
    place = rng.randrange(first, len(body) - 1)
    length = rng.choice([1, 50, 2000])
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.choice([1, 5, 30])):
                body[rng.randrange(first, len(body))] = rng.randrange(256)
        case 2:
            body[place : place + length] = bytes(len(body[place : place + length]))
        case 3:
            body[place : place + length] = rng.randbytes(len(body[place : place + length]))
        case 4:
            del body[place : place + length]
        case 5:
            del body[place:]
    return bytes(body)


MADE_UP = -1


def by_ffmpeg(path: Path) -> list[int] | None:
    """The numbers that FFmpeg's frames show, by a few lines of its own; None where it shows none.

    What FFmpeg makes up for a lost picture depends on what lay in the memory that it takes again. So groups of pictures
    in which it did are marked, and those behind an error, since it decodes ahead of what it shows.
    """
    groups: list[list[int]] = [[]]
    spoilt: set[int] = set()

    def show(frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            if frame.key_frame and groups[-1]:
                groups.append([])
            groups[-1].append(Footage.index_of(frame.reformat(128, 64, format="rgb24").to_ndarray()))
            if frame.is_corrupt:
                spoilt.update({len(groups) - 2, len(groups) - 1, len(groups)})

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream, packets = container.streams.video[0], container.demux(video=0)
            packet = True
            while packet is not None:
                try:
                    packet = next(packets, None)
                    show(stream.decode(None) if packet is None else packet.decode())
                except av.EOFError:
                    break
                except av.FFmpegError:
                    spoilt.update({len(groups) - 1, len(groups)})
    except av.FFmpegError:
        return None
    shown = [MADE_UP if number in spoilt else index for number, group in enumerate(groups) for index in group]
    return shown or None


def by_program(path: Path) -> list[int]:
    """The same by FFmpeg's own program, of another version."""
    options = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), *options]
    raw = subprocess.run(command, capture_output=True, check=False).stdout
    return [Footage.index_of(frame) for frame in np.frombuffer(raw, np.uint8).reshape(-1, 64, 128, 3)]


def agree(found: list[int], expected: list[int]) -> bool:
    """Whether frames are the same, but for those that FFmpeg made up."""
    return len(found) == len(expected) and all(
        ours == theirs for ours, theirs in zip(found, expected, strict=True) if theirs != MADE_UP
    )


def read(decoder: Decoder, path: Path, decoders: list[str]) -> list[int] | None:
    """The numbers that our frames show; None where the video is refused, by its name."""
    found: list[int] = []
    try:
        with decoder.read(path, None, 16) as video:
            for block in video.blocks():
                found += [Footage.index_of(frame) for frame in block.frames]
                if not (np.diff(block.times) > 0).all():
                    raise AssertionError(f"{path.name}: time runs backwards")
    except VideoError as error:
        return None if str(path) in str(error) else []
    decoders.append(video.summary.decoder)
    return found


def test_what_is_handed_out_of_damaged_files_is_what_ffmpeg_shows(tmp_path: Path) -> None:
    av.logging.set_level(av.logging.PANIC)
    rng, wholes = random.Random(0), {}
    for suffix, codec in KINDS.items():
        path = Footage.video(
            tmp_path / f"whole{suffix}", FRAMES, codec=codec, keyframe_every=10, faststart=suffix == ".mp4"
        )
        wholes[suffix] = path.read_bytes()
    decoders: list[str] = []
    exact = 0
    with Decoder() as decoder:
        for number in range(FILES):
            suffix = list(KINDS)[number % len(KINDS)]
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(damaged(wholes[suffix], rng))
            expected = by_ffmpeg(path)
            found = read(decoder, path, decoders)
            if expected is None or found is None:
                assert expected is found, f"{path.name}: FFmpeg shows {expected}, we {found}"
                continue
            if not agree(found, expected):  # one version of FFmpeg may fail where another does not
                assert agree(found, by_program(path)), path.name
            exact += sum(at != MADE_UP for at in expected)
            path.unlink()
    assert exact > FILES * FRAMES / 4, "most of what is left is whole"
    decord = sum(made_by.startswith("decord") and "then" not in made_by for made_by in decoders)
    salvaged = sum("then" in made_by for made_by in decoders)
    assert decord > 10, "decord reads what is whole where it matters"
    assert salvaged > 10, "and is relieved where it is not"


def test_the_reader_says_how_much_was_made_up(tmp_path: Path) -> None:
    whole = Footage.video(tmp_path / "a.mp4", 60, keyframe_every=30, faststart=True)
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    whole.write_bytes(data)
    video = open_video(whole)
    assert sum(len(block.frames) for block in video.blocks(16)) > 0
    said = "; ".join(video.notes)
    assert "damaged" in said or "cannot be decoded" in said
