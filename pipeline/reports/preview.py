"""Previews: a video made small enough to live inside a report, and single frames of it as thumbnails.

Both come out of one pass over the frames. The encoded film goes to a temporary file, because the index can be moved to
its front (``faststart``) only in a file, so memory does not grow with the length of the video.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray
from PIL import Image

from ..videos.probe import VideoError, is_cover, opened
from ..videos.reader import FrameBlock
from ..videos.worker import DecodedVideo, Decoder

SHORT_SIDE = 240  # pixels of the preview's shorter side
THUMBNAIL_HEIGHT = 160  # pixels
BLOCK_SIZE = 32  # frames decoded at a time
TICKS_PER_SECOND = 90_000  # the usual clock of video: fine enough for any frame rate, also a varying one
SECONDS_BETWEEN_KEYFRAMES = 1.0  # a player seeks by decoding from the keyframe before
# The same film everywhere: it depends on the number of threads, and without "cpu-independent" differs in every run.
ENCODER_OPTIONS = {"preset": "veryfast", "crf": "30", "threads": "1", "x264-params": "cpu-independent=1"}
BT601 = 6  # FFmpeg's number for the colours of standard definition, which is what the conversion from RGB writes
LIMITED_RANGE = 1  # FFmpeg's number for luma from 16 to 235

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Preview:
    """What one pass over a video gave; a frame that the video does not have is missing from `thumbnails`."""

    mp4: bytes | None  # None: it would have been larger than allowed
    thumbnails: dict[int, bytes]  # JPEG files by frame number
    width: int
    height: int
    start: float  # presentation time of the first frame in seconds; the film itself begins at 0


def make_preview(
    source: Path,
    thumbnail_frames: Sequence[int],
    decoder: Decoder,
    *,
    byte_limit: int | None = None,
    short_side: int = SHORT_SIDE,
) -> Preview:
    """Encode all frames of a video as a small H.264 film, at their real times, and some of them as thumbnails.

    Args:
        source: a video file or a folder of frames.
        thumbnail_frames: numbers of the frames wanted as thumbnails.
        decoder: decodes the video in its own process.
        byte_limit: give up encoding, but not the thumbnails, once the film is larger than this; None for no limit.
        short_side: pixels of the shorter side of the film.

    Raises:
        VideoError: the video cannot be read, or not be encoded.
    """
    wanted = frozenset(thumbnail_frames)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="xelvad-preview-") as folder,
            decoder.read(source, short_side, BLOCK_SIZE) as video,
        ):
            return _encode(video, wanted, byte_limit, Path(folder) / "preview.mp4")
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise VideoError(f"{source}: no preview can be encoded ({error})") from error


def pick_frames(
    source: Path,
    numbers: Collection[int],
    decoder: Decoder,
    *,
    short_side: int = SHORT_SIDE,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[tuple[int, Picture]]:
    """Single frames of a video, each as soon as it is decoded; behind the last of them, nothing is decoded.

    Frames are numbered by counting from the first one, as everywhere, so time grows with the last frame's position:
    one at the end of a nine-hour video takes the decoding of nine hours.

    Args:
        source: a video file or a folder of frames.
        numbers: of the frames, at least one.
        decoder: decodes the video in its own process.
        short_side: pixels of the shorter side of the pictures.
        advance: called for every frame that was decoded.

    Yields:
        A frame's number, and its RGB picture ``(height, width, 3)``, in order; frames that the video does not have
        are left out.

    Raises:
        VideoError: the video cannot be read.
    """
    last = max(numbers)
    with decoder.read(source, short_side, BLOCK_SIZE) as video:
        for index, (picture, _) in enumerate(_numbered_frames(video.blocks())):
            advance()
            if index in numbers:
                yield index, picture.copy()  # its memory goes to a later block, and away with the last one
            if index >= last:
                return


def container_start(file: Path) -> float:
    """The time of a file's first picture by the clock of its container, which is what a player of the file goes by.

    It may differ from the time of the first decoded frame: decoders count from zero, recordings cut out of a longer
    one often do not. 0 where the container does not say.
    """
    with opened(file) as container:
        stream = next(stream for stream in container.streams.video if not is_cover(stream))
        return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def _encode(video: DecodedVideo, wanted: frozenset[int], byte_limit: int | None, file: Path) -> Preview:
    last_wanted = max(wanted, default=-1)
    thumbnails: dict[int, bytes] = {}
    start = 0.0
    with _Film(file, video.info.width, video.info.height, byte_limit) as film:
        for index, (picture, time) in enumerate(_numbered_frames(video.blocks())):
            if index == 0:
                start = time
            if index in wanted:
                thumbnails[index] = _thumbnail(picture)
            film.add(picture, time - start)
            if film.too_large and index >= last_wanted:
                break
    return Preview(film.content(), thumbnails, film.width, film.height, start)


def _numbered_frames(blocks: Iterator[FrameBlock]) -> Iterator[tuple[Picture, float]]:
    for block in blocks:
        yield from zip(block.frames, block.times.tolist(), strict=True)


def _thumbnail(picture: Picture) -> bytes:
    image = Image.fromarray(picture)
    size = (max(1, round(image.width * THUMBNAIL_HEIGHT / image.height)), THUMBNAIL_HEIGHT)
    encoded = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(encoded, "JPEG", quality=80, optimize=True)
    return encoded.getvalue()


class _Film:
    """An H.264 film in the making, which stops growing once it is larger than `byte_limit`."""

    def __init__(self, file: Path, width: int, height: int, byte_limit: int | None) -> None:
        self.width, self.height = width - width % 2, height - height % 2  # colour is stored for 2 × 2 pixels
        self._file = file
        self._byte_limit = byte_limit
        self._bytes = 0
        self._last_tick = -1
        self._next_keyframe = 0.0
        self._container = av.open(str(file), "w", format="mp4", options={"movflags": "faststart"})
        try:
            self._stream = self._add_stream()
        except BaseException:
            self._container.close()
            raise

    def _add_stream(self) -> av.VideoStream:
        # The rate is nominal: each frame carries its own time.
        stream = self._container.add_stream("libx264", rate=25, options=ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, TICKS_PER_SECOND)
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = LIMITED_RANGE
        return stream

    def __enter__(self) -> _Film:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self.too_large:
                self._write(None)
        finally:
            self._container.close()

    @property
    def too_large(self) -> bool:
        """Whether the film is larger than allowed; from then on, frames are ignored."""
        return self._byte_limit is not None and self._bytes >= self._byte_limit

    def add(self, picture: Picture, time: float) -> None:
        """Append a frame to be shown at `time` in seconds."""
        if self.too_large:
            return
        even = np.ascontiguousarray(picture[: self.height, : self.width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        # Damaged files may repeat a time or go back; a film has to go forward.
        frame.pts = self._last_tick = max(self._last_tick + 1, round(time * TICKS_PER_SECOND))
        frame.time_base = Fraction(1, TICKS_PER_SECOND)
        if time >= self._next_keyframe:
            frame.pict_type = PictureType.I
            self._next_keyframe = time + SECONDS_BETWEEN_KEYFRAMES
        self._write(frame)

    def _write(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._bytes += packet.size
            self._container.mux(packet)

    def content(self) -> bytes | None:
        """The finished file, or None if it is too large."""
        if self.too_large or (self._byte_limit is not None and self._file.stat().st_size > self._byte_limit):
            return None
        return self._file.read_bytes()
