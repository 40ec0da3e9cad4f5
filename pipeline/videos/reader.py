"""Videos: a file or a folder of frames, read once from the first frame to the last.

`decord` reads; PyAV takes over where decord gives up in the middle of a damaged file, so that every frame that can be
decoded is. Frame ``i`` is always the ``i``-th decodable frame in presentation order, whatever the block size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...errors import UserError
from .config import FOLDER_FRAME_RATE
from .sources import FRAME_SUFFIXES, natural_key

# decord decodes ahead of its reader without any bound (9,000 frames at 341×256 took 2.2 GB), so it reads what may lie
# in memory as a whole; PyAV reads what is longer.
DECORD_BYTES = 1 << 28
# Containers with an index. Of transport streams, whole or cut, decord loses the frames before the second key frame and
# repeats the last one as often; the times of program streams come out as -1e14.
DECORD_CONTAINERS = frozenset({"asf", "avi", "flv", "matroska", "mov"})
END_TOLERANCE = 0.5  # seconds that a whole video may lack of the length in its header


class VideoError(UserError):
    """One video cannot be read; the message names it and says why."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself before a frame is decoded; the size is that of the frames handed out."""

    width: int
    height: int
    frame_rate: float  # average frames per second
    declared_frames: int  # 0 where the container does not say


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
    """An open video: iterate over `blocks` once. Memory does not grow with the length of the video."""

    info: VideoInfo
    decoder: str  # what decoded it, with versions; complete once the last block is out
    decoded_frames = 0  # frames handed out so far
    salvaged_frames = 0  # of these, frames read by PyAV after decord had given up
    _reader: Any = None  # decord's, while it reads

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and of the frames that were decoded ahead."""
        self._reader = None

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
        width, height, rate, declared, self._container = _probe(path)
        self.info = VideoInfo(*fit_short_side(width, height, short_side), rate, declared)
        self.decoder = ""
        self._salvaging = False

    def blocks(self, size: int) -> Iterator[FrameBlock]:
        """See `Video.blocks`."""
        for block in self._decoded(size):
            first, count = self.decoded_frames, len(block.frames)
            self.decoded_frames += count
            self.salvaged_frames += count if self._salvaging else 0
            if self._container == "avi":  # has a frame rate and no times; those that decoders make up are out of order
                yield FrameBlock(block.frames, np.arange(first, first + count) / self.info.frame_rate)
            else:
                yield block
        if not self.decoded_frames:
            raise VideoError(f"{self.path}: not a single frame can be decoded")

    def _decoded(self, size: int) -> Iterator[FrameBlock]:
        most = DECORD_BYTES // (self.info.width * self.info.height * 3)
        if self._container in DECORD_CONTAINERS and self.info.declared_frames <= most:
            import decord  # only where it is used: in one process, decord and torch have crashed each other

            try:
                self._reader = decord.VideoReader(
                    str(self.path), width=self.info.width, height=self.info.height, num_threads=1
                )
                if len(self._reader) <= most:
                    self.decoder = f"decord {decord.__version__}"
                    yield from self._decord_blocks(size)
                    return
            except (decord.DECORDError, RuntimeError):
                self._salvaging = True
        if self._salvaging:
            self.decoder = f"decord {decord.__version__}, then av {av.__version__} from frame {self.decoded_frames}"
        else:
            self.decoder = f"av {av.__version__}"
        self._reader = None
        yield from self._pyav_blocks(size, self.decoded_frames)

    def _decord_blocks(self, size: int) -> Iterator[FrameBlock]:
        reader = self._reader
        for start in range(0, len(reader), size):
            indices = range(start, min(start + size, len(reader)))
            frames = reader.get_batch(indices).asnumpy()
            yield FrameBlock(frames, np.asarray(reader.get_frame_timestamp(indices)[:, 0], np.float64))

    def _pyav_blocks(self, size: int, first: int) -> Iterator[FrameBlock]:
        """The frames from number ``first`` on, read by PyAV, which passes over packets that cannot be decoded."""
        frames: list[NDArray[Any]] = []
        times: list[float] = []
        start = 0.0
        for index, frame in enumerate(_decodable_frames(self.path)):
            time = frame.time if frame.time is not None else index / self.info.frame_rate
            if index == 0:
                start = time  # decord counts from the first frame, whatever the container's clock shows there
            if index < first:
                continue
            scaled = frame.reformat(self.info.width, self.info.height, format="rgb24", interpolation="BICUBIC")
            frames.append(scaled.to_ndarray())
            times.append(time - start)
            if len(frames) == size:
                yield FrameBlock(np.stack(frames), np.asarray(times, np.float64))
                frames, times = [], []
        if frames:
            yield FrameBlock(np.stack(frames), np.asarray(times, np.float64))


class FrameFolder(Video):
    """A folder of pictures in natural order, at `FOLDER_FRAME_RATE` (ShanghaiTech's test videos come so)."""

    decoder = f"pillow {PIL.__version__}"

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        self.files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_SUFFIXES), key=natural_key)
        if not self.files:
            raise VideoError(f"{path}: a folder without {', '.join(sorted(FRAME_SUFFIXES))} pictures is not a video")
        width, height = self._open(self.files[0]).size
        self.info = VideoInfo(*fit_short_side(width, height, short_side), FOLDER_FRAME_RATE, len(self.files))

    def blocks(self, size: int) -> Iterator[FrameBlock]:
        """See `Video.blocks`."""
        for start in range(0, len(self.files), size):
            frames = np.stack([self._read(file) for file in self.files[start : start + size]])
            times = np.arange(start, start + len(frames)) / FOLDER_FRAME_RATE
            self.decoded_frames += len(frames)
            yield FrameBlock(frames, times)

    @staticmethod
    def _open(file: Path) -> Image.Image:
        try:
            return Image.open(file)
        except (OSError, UnidentifiedImageError) as error:
            raise VideoError(f"{file}: not a readable picture ({error})") from error

    def _read(self, file: Path) -> NDArray[np.uint8]:
        size = (self.info.width, self.info.height)
        with self._open(file) as picture:
            try:
                rgb = picture.convert("RGB")
            except (OSError, SyntaxError, ValueError) as error:  # cut off, or a PNG with a broken chunk
                raise VideoError(f"{file}: not a readable picture ({error})") from error
        return np.asarray(rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BICUBIC))


def fit_short_side(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """The size ``(width, height)`` scaled down so that the shorter side is ``short_side``; never enlarged.

    None leaves it unchanged.
    """
    if short_side is None or min(width, height) <= short_side:
        return width, height
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def _probe(path: Path) -> tuple[int, int, float, int, str]:
    """Width, height, frame rate, declared frames (0: unknown) and container of a file, from its header."""
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty")
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: no picture stream (is it a sound file?)")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            rate = float(stream.average_rate or stream.guessed_rate or FOLDER_FRAME_RATE)
            declared = stream.frames
            name = container.format.name.split(",")[0]  # of "mov,mp4,m4a,3gp,3g2,mj2"
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file") from error
    except PermissionError as error:
        raise VideoError(f"{path}: no permission to read it") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: not a video that can be opened ({_reason(error)})") from error
    if not width or not height:
        raise VideoError(f"{path}: the picture stream has no size, nothing can be decoded")
    return width, height, rate, declared, name


def is_cut_off(path: Path) -> bool:
    """Whether the end of a video, as its header promises it, is not in the file; nothing is decoded.

    Only the last group of pictures is read. Files without a length in their header (streams, raw video) and folders of
    frames are never cut off.

    Raises:
        VideoError: not a video that can be opened.
    """
    if path.is_dir():
        return False
    try:
        with av.open(str(path)) as container:
            start = (container.start_time or 0) / av.time_base
            stream = container.streams.video[0]
            promised = max(
                (container.duration or 0) / av.time_base,
                float(stream.frames / stream.average_rate) if stream.average_rate else 0.0,
            )
            if not promised:
                return False
            reached = 0.0
            container.seek(int((start + max(promised - 1.0, 0.0)) * av.time_base))
            for packet in container.demux():
                if packet.pts is not None and not packet.is_corrupt:
                    reached = max(reached, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
    except (av.FFmpegError, OSError, IndexError, OverflowError) as error:  # the last: of a nonsensical length
        raise VideoError(f"{path}: its end cannot be read ({_reason(error)})") from error
    return reached < promised - END_TOLERANCE


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _decodable_frames(path: Path) -> Iterator[av.VideoFrame]:
    """Every frame that can be decoded, in presentation order; a packet that cannot be is passed over."""
    with av.open(str(path)) as container:
        packets = container.demux(video=0)
        while True:
            try:
                packet = next(packets, None)  # None as well once the container itself has broken off
                if packet is None:
                    return
                yield from packet.decode()
            except av.FFmpegError:
                continue
