"""Reading: a video file or a folder of frames, once from the first frame to the last.

The frames are FFmpeg's: all that it shows of the file's best picture stream, each once, in presentation order, upright,
at times that begin with 0. `decord` reads them where it gives exactly these and is done sooner; where it may not, PyAV
does, and takes over where decord gives up or FFmpeg complains within decord. What is missing or made up for is said.
"""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import PIL
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .config import FOLDER_FRAME_RATE
from .probe import (
    LARGEST_PICTURE,
    Probe,
    Tally,
    VideoError,
    VideoInfo,
    decodable,
    fit_short_side,
    fits_decord,
    opened,
    probe,
)
from .sources import FRAME_SUFFIXES, natural_key

# decord decodes ahead of its reader without any bound (9,000 frames at 341×256 took 2.2 GB), so it reads what may lie
# in memory as a whole. PyAV reads what is longer, and is no dearer: in parts, even those that are files of their own in
# memory, decord would cost more time and more memory (`benchmarks/decoding.py`).
DECORD_BYTES = 1 << 27
# From version 17 on, PyAV converts each picture by as many threads as there are cores, which costs more than it brings.
ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of Exif


@dataclass(frozen=True)
class FrameBlock:
    """Consecutive frames: uint8 RGB ``(n, height, width, 3)`` and their presentation times in seconds ``(n,)``."""

    frames: NDArray[np.uint8]
    times: NDArray[np.float64]


def open_video(path: Path, short_side: int | None = None) -> Video:
    """Open a video file or a folder of frames.

    Args:
        path: the file or folder.
        short_side: resize, in the decoder where it can, so that the shorter side has this many pixels.

    Raises:
        VideoError: missing, empty, not a video, without a picture stream, or without permission to read.
    """
    if path.is_dir():
        return FrameFolder(path, short_side)
    return VideoFile(path, short_side)


class Video(ABC):
    """An open video: iterate over `blocks` once. Memory does not grow with the length of the video.

    Attributes:
        info: what it says of itself; once the last block is out, without the frames that its container hides.
        decoder: what decoded it, with versions; complete once the last block is out.
        decoded_frames: frames handed out so far.
        salvaged_frames: of these, frames read by PyAV after decord had given up.
        notes: what a user should know of the frames, such as how many are damaged.
    """

    info: VideoInfo
    decoder: str
    decoded_frames = 0
    salvaged_frames = 0
    notes: tuple[str, ...] = ()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    @abstractmethod
    def blocks(self, size: int) -> Iterator[FrameBlock]:
        """Every frame once, in order, in blocks of ``size`` frames; the last may be shorter.

        Raises:
            VideoError: not a single frame could be decoded.
        """


class VideoFile(Video):
    """A video file, read by decord where that is safe, and by PyAV from the frame on where decord gives up."""

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        self.path = path
        self._probe = found = probe(path)
        width, height = fit_short_side(found.info.width, found.info.height, short_side)
        self.info = replace(found.info, width=width, height=height)
        self.decoder = ""

    def blocks(self, size: int) -> Iterator[FrameBlock]:
        """See `Video.blocks`."""
        most, gave_up = DECORD_BYTES // (self.info.width * self.info.height * 3), False
        self.decoder = f"av {av.__version__}"
        if fits_decord(self._probe, most):
            import decord  # only where it is used: in one process, decord and torch have crashed each other

            self.decoder = f"decord {decord.__version__}"
            with suppress(_GaveUpError):
                yield from self._handed_out(decord_blocks(self._probe, self.info, size))
                return
            self.decoder += f", then av {av.__version__} from frame {self.decoded_frames}"
            gave_up = True
        tally = Tally()
        for block in self._handed_out(av_blocks(self._probe, self.info, size, self.decoded_frames, tally)):
            self.salvaged_frames += gave_up * len(block.frames)
            yield block
        self.notes = tally.notes
        if self.info.declared_frames:
            self.info = replace(self.info, declared_frames=max(self.info.declared_frames - tally.hidden, 0))
        if not self.decoded_frames:
            raise VideoError(f"{self.path}: not a single frame can be decoded")

    def _handed_out(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        for block in blocks:
            first, count = self.decoded_frames, len(block.frames)
            self.decoded_frames += count
            if self._probe.container == "avi":  # has a frame rate and no times; those that decoders make up are wrong
                yield FrameBlock(block.frames, np.arange(first, first + count) / self.info.frame_rate)
            else:
                yield block


class _GaveUpError(Exception):
    """decord cannot go on, or not exactly."""


def decord_blocks(found: Probe, info: VideoInfo, size: int) -> Iterator[FrameBlock]:
    """The frames of a file that `fits_decord`, read by decord, in blocks of ``size``.

    Raises:
        _GaveUpError: whatever decord raises, and as soon as FFmpeg complains within it: decord would go on with a
            repeated picture.
    """
    import decord

    with _complaints() as complained:
        decord.logging.set_level(decord.logging.ERROR)
        reader, start = None, 0.0
        try:
            reader = decord.VideoReader(str(found.path.absolute()), width=info.width, height=info.height, num_threads=1)
            for first in range(0, len(reader), size):
                indices = range(first, min(first + size, len(reader)))
                frames = reader.get_batch(indices).asnumpy()
                times = np.asarray(reader.get_frame_timestamp(indices)[:, 0], np.float64)
                if complained():
                    raise _GaveUpError
                start = start if first else float(times[0])
                yield FrameBlock(frames, times - start)
        except (_GaveUpError, GeneratorExit):
            raise
        except Exception as error:  # decord's own kinds of errors, and UnicodeError, and what else it may come to
            raise _GaveUpError from error
        finally:
            decord.logging.set_level(decord.logging.QUIET)
            del reader  # its thread may go on for a while, and complain


@contextmanager
def _complaints() -> Iterator[Callable[[], bool]]:
    """Take what libraries write to the process's standard error, and tell whether they have written anything.

    There is no other way to hear FFmpeg within decord. Nothing of it is shown: a fault of a video is said once, by us.
    """
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.fstat(file.fileno()).st_size > 0
        finally:
            os.dup2(before, 2)
            os.close(before)


def av_blocks(found: Probe, info: VideoInfo, size: int, first: int, tally: Tally) -> Iterator[FrameBlock]:
    """The frames of a file from number ``first`` on, read by PyAV, in blocks of ``size``.

    Args:
        found: the file.
        info: says how large frames are to be.
        size: frames a block.
        first: frames before it are decoded and not handed out.
        tally: takes what there is to say.
    """
    times: list[float] = []
    for picture, time in av_frames(found, info, first, tally):
        if not times:
            frames = np.empty((size, info.height, info.width, 3), np.uint8)
        frames[len(times)] = picture
        times.append(time)
        if len(times) == size:
            yield FrameBlock(frames, np.asarray(times, np.float64))
            times = []
    if times:
        yield FrameBlock(frames[: len(times)], np.asarray(times, np.float64))


def av_frames(found: Probe, info: VideoInfo, first: int, tally: Tally) -> Iterator[tuple[NDArray[Any], float]]:
    """Upright frames and their times; the arguments are those of `av_blocks`.

    Threads that decode several frames at once are left out: before a fault at the end of a file they lose frames, and
    FFmpeg says nothing of it. Those within a frame, where a stream has parts for them, are FFmpeg's default.
    """
    start = latest = 0.0
    width, height = found.orientation.size(info.width, info.height)  # as stored
    scaler = VideoReformatter()  # one for all: `frame.reformat` would prepare one for each
    with opened(found.path) as container:
        stream = container.streams[found.stream]
        for index, frame in enumerate(decodable(container, stream, tally)):
            time = frame.time if frame.time is not None else index / info.frame_rate
            if index == 0:
                start = time  # whatever the container's clock shows there
            elif time - start <= latest:  # the clock begins anew, as in streams that were joined
                start = time - latest - 1 / info.frame_rate
            latest = time - start
            if index < first:
                continue
            tally.damaged += frame.is_corrupt
            scaled = scaler.reformat(frame, width, height, format="rgb24", interpolation="BICUBIC", **ONE_THREAD)
            yield found.orientation(scaled.to_ndarray()), latest


class FrameFolder(Video):
    """A folder of pictures in natural order, at `FOLDER_FRAME_RATE` (ShanghaiTech's test videos come so)."""

    decoder = f"pillow {PIL.__version__}"

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        self.files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_SUFFIXES), key=natural_key)
        self.files = [file for file in self.files if not file.name.startswith(".")]
        if not self.files:
            raise VideoError(f"{path}: a folder without {', '.join(sorted(FRAME_SUFFIXES))} pictures is not a video")
        width, height = upright_size(self.files[0])
        self.info = VideoInfo(*fit_short_side(width, height, short_side), FOLDER_FRAME_RATE, len(self.files))
        self.notes = numbering(self.files)

    def blocks(self, size: int) -> Iterator[FrameBlock]:
        """See `Video.blocks`."""
        for start in range(0, len(self.files), size):
            frames = np.stack([self._read(file) for file in self.files[start : start + size]])
            times = np.arange(start, start + len(frames)) / FOLDER_FRAME_RATE
            self.decoded_frames += len(frames)
            yield FrameBlock(frames, times)

    def _read(self, file: Path) -> NDArray[np.uint8]:
        size = (self.info.width, self.info.height)
        rgb = read_picture(file)
        return np.asarray(rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BICUBIC))


def numbering(files: Sequence[Path]) -> tuple[str, ...]:
    """What is odd about the numbers in the names of pictures: frames would not be where annotations look for them."""
    found = [re.findall(r"\d+", file.stem) for file in files]
    if len(files) < 2 or not all(found):
        return ()
    numbers = [int(parts[-1]) for parts in found]
    distinct = set(numbers)
    twice, gaps = len(numbers) - len(distinct), max(numbers) - min(numbers) + 1 - len(distinct)
    notes = [f"{twice} picture{'s have' if twice > 1 else ' has'} a number that another one has"] if twice else []
    if gaps:
        notes.append(f"the numbers of the pictures leave out {gaps} between {min(numbers)} and {max(numbers)}")
    return tuple(notes)


def read_picture(file: Path) -> Image.Image:
    """A picture, upright, in eight bits of red, green and blue.

    Those of more bits (thermal cameras) are scaled as FFmpeg scales them, from their whole range. What is transparent
    is shown as it is stored.

    Raises:
        VideoError: not a readable picture, one of numbers that have no known range, or larger than `LARGEST_PICTURE`.
    """
    try:
        with _open_picture(file) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16 bits, in 16 or in 32
                values = np.asarray(upright)
                if values.min() < 0 or values.max() > 0xFFFF:
                    raise VideoError(f"{file}: a picture of 32-bit numbers: which of them is white? Save it as 8 bits")
                upright = Image.fromarray((values >> 8).astype(np.uint8))
            if upright.mode == "F":
                raise VideoError(f"{file}: a picture of floating-point numbers: which is white? Save it as 8 bits")
            return upright.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # cut off, or a PNG with a broken chunk
        raise VideoError(f"{file}: not a readable picture ({error})") from error


def upright_size(file: Path) -> tuple[int, int]:
    """Width and height of an upright picture, from its header.

    Raises:
        VideoError: not a picture, or larger than `LARGEST_PICTURE`.
    """
    with _open_picture(file) as picture:
        width, height = picture.size
        turned = False
        with suppress(OSError, SyntaxError, ValueError):  # of a damaged picture, which is told when it is read
            turned = picture.getexif().get(ORIENTATION, 1) in SIDEWAYS
    return (height, width) if turned else (width, height)


def _open_picture(file: Path) -> Image.Image:
    try:
        picture = Image.open(file)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VideoError(f"{file}: not a readable picture ({error})") from error
    if picture.width * picture.height > LARGEST_PICTURE:
        raise VideoError(f"{file}: claims {picture.width}x{picture.height} pixels, the most is {LARGEST_PICTURE:,}")
    return picture
