"""What a video file says of itself before its frames are decoded, and whether decord may be trusted with it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from numpy.typing import NDArray

from ...errors import UserError
from .config import FOLDER_FRAME_RATE

# What FFmpeg may take a file for: containers and streams of one file. Play lists and scripts, which name other files or
# hosts, are not among them, whatever a file is called.
FORMATS = (
    "3g2,3gp,amv,apng,asf,asf_o,av1,avi,avs2,avs3,cavsvideo,cine,dav,dhav,dirac,dnxhd,dv,evc,flic,flv,gif,gxf,h261,h263,"
    "h264,hevc,hnm,ifv,ingenient,ipu,ivf,ivr,kux,lmlm4,lvf,lxf,m4v,matroska,mgsts,mj2,mjpeg,mjpeg_2000,mm,mov,mp4,mpeg,"
    "mpegts,mpegvideo,mpjpeg,mxf,nsv,nut,nuv,obu,ogg,pva,r3d,rm,rpl,smjpeg,smk,swf,ty,vc1,vc1test,vvc,webm,wtv,wtvmux,"
    "xmv,yuv4mpegpipe"
)
# Containers with an index. Of transport streams, whole or cut, decord loses the frames before the second key frame and
# repeats the last one as often; the times of program streams come out as -1e14.
DECORD_CONTAINERS = frozenset({"asf", "avi", "flv", "matroska", "mov"})
# Codecs of which every packet is a picture. VP8 has packets that show nothing, for which decord repeats a picture.
DECORD_CODECS = frozenset({"h264", "hevc", "mjpeg", "mpeg4"})
LARGEST_PICTURE = 2**26  # pixels, 8192 x 8192: a header may claim anything
SMALLEST_PACKET = 20  # bytes: in AVI a smaller one may stand for a picture that came with the one before
END_TOLERANCE = 0.5  # seconds that a whole video may lack of the length in its header


class VideoError(UserError):
    """One video cannot be read; the message names it and says why."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself before a frame is decoded; the size is that of the frames handed out, upright."""

    width: int
    height: int
    frame_rate: float  # average frames per second
    declared_frames: int  # 0 where the container does not say


@dataclass(frozen=True)
class Orientation:
    """How stored pictures are made upright: transposed, then their rows, then their columns reversed.

    As FFmpeg turns them by the display matrix of phones and action cameras. Angles between quarter turns, which no
    camera writes, are taken for the nearest.
    """

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    @classmethod
    def of(cls, matrix: bytes | None) -> Orientation:
        """From FFmpeg's display matrix: nine 32-bit numbers, native byte order."""
        if matrix is None or len(matrix) < 36:
            return cls()
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
        quarter = round(math.degrees(math.atan2(b, a)) / 90) % 4
        if quarter == 1:
            return cls(True) if c > 0 else cls(True, columns_reversed=True)
        if quarter == 3:
            return cls(True, True, True) if c < 0 else cls(True, rows_reversed=True)
        return cls(False, d < 0, a < 0)

    @property
    def upright(self) -> bool:
        """Whether nothing is to be done."""
        return self == Orientation()

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an upright picture from those of a stored one, and the other way round."""
        return (height, width) if self.transposed else (width, height)

    def __call__(self, picture: NDArray[Any]) -> NDArray[Any]:
        """A stored picture ``(H, W, 3)``, upright."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.rows_reversed:
            picture = picture[::-1]
        return picture[:, ::-1] if self.columns_reversed else picture


@dataclass(frozen=True)
class Probe:
    """A video file that can be opened and has at least one picture.

    Attributes:
        path: the file.
        info: its size is that of upright pictures as they are stored, not scaled.
        container: FFmpeg's name of it.
        codec: FFmpeg's name of it.
        stream: index of the picture stream that FFmpeg would take: never a cover picture.
        orientation: of the stored pictures.
        single: whether it is the only picture stream, of those that cannot be decoded too.
    """

    path: Path
    info: VideoInfo
    container: str
    codec: str
    stream: int
    orientation: Orientation
    single: bool


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file opened by FFmpeg as nothing but a video, which names no other file or host.

    Raises:
        VideoError: it cannot be opened.
    """
    try:
        # An absolute path is never taken for the address of something.
        with av.open(
            str(path.absolute()), options={"format_whitelist": FORMATS}, metadata_errors="replace"
        ) as container:
            yield container
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file") from error
    except PermissionError as error:
        raise VideoError(f"{path}: no permission to read it") from error
    except (av.FFmpegError, OSError, UnicodeError) as error:
        raise VideoError(f"{path}: not a video that can be opened ({reason_of(error)})") from error


def probe(path: Path) -> Probe:
    """Look at a file's header and at its first picture.

    Raises:
        VideoError: missing, empty, without permission, not a video, without a picture that can be decoded, or with
            pictures larger than `LARGEST_PICTURE`.
    """
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty")
    except OSError as error:
        raise VideoError(f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else error}") from error
    with opened(path) as container:
        streams = [stream for stream in container.streams.video if stream.codec_context is not None]
        films = [stream for stream in streams if not is_cover(stream)]
        if not films:
            only = "no picture stream but a cover" if streams else "no picture stream (is it a sound file?)"
            raise VideoError(f"{path}: {only}")
        stream = max(films, key=_preference)
        context = stream.codec_context
        _check_size(path, context.width, context.height)
        context.thread_type = "NONE"  # one picture: several threads would wait for as many
        first = next(decodable(container, stream), None)
        if first is None:
            raise VideoError(f"{path}: not a single frame can be decoded")
        _check_size(path, first.width, first.height)
        orientation = Orientation.of(_display_matrix(first))
        return Probe(
            path,
            VideoInfo(
                *orientation.size(first.width, first.height),
                float(stream.average_rate or stream.guessed_rate or FOLDER_FRAME_RATE),
                max(stream.frames, 0),
            ),
            container.format.name.split(",")[0],  # of "mov,mp4,m4a,3gp,3g2,mj2"
            context.name,
            stream.index,
            orientation,
            len(container.streams.video) == 1,
        )


def is_cover(stream: Any) -> bool:
    """Whether a picture stream is a cover, one picture that belongs to no time."""
    return bool(stream.disposition & Disposition.attached_pic)


def _preference(stream: Any) -> int:
    """As FFmpeg chooses: the larger, one that is marked as the default before others; of equals the first."""
    pixels: int = stream.codec_context.width * stream.codec_context.height
    return pixels + 5_000_000 * bool(stream.disposition & Disposition.default)


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > LARGEST_PICTURE:
        raise VideoError(
            f"{path}: claims pictures of {width}x{height} pixels, more than {LARGEST_PICTURE >> 20} million"
        )


def _display_matrix(frame: Any) -> bytes | None:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else bytes(matrix)


@dataclass
class Tally:
    """What was met on the way through a file.

    Attributes:
        hidden: packets that the container says are not to be shown.
        undecodable: packets that cannot be decoded.
        damaged: frames of which FFmpeg says that it had to make up parts.
    """

    hidden: int = 0
    undecodable: int = 0
    damaged: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """In words, what a user should know."""
        counts = (
            (self.hidden, "frame", "hidden by the container (an edit list), as players do"),
            (self.undecodable, "packet", "that cannot be decoded"),
            (self.damaged, "frame", "damaged: the decoder made parts up"),
        )
        return tuple(f"{number} {what}{'s' if number > 1 else ''} {how}" for number, what, how in counts if number)


def decodable(container: Any, stream: Any, tally: Tally | None = None) -> Iterator[av.VideoFrame]:
    """Every frame of a stream that FFmpeg shows, in presentation order; a packet that cannot be decoded is passed over.

    Args:
        container: opened.
        stream: one of its picture streams.
        tally: takes what is met on the way.
    """
    tally = tally or Tally()
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except av.FFmpegError:  # the container itself has broken off: what the decoder still holds is shown
            packet = None
        try:
            if packet is None:
                yield from stream.codec_context.decode(None)
                return
            tally.hidden += packet.is_discard
            yield from packet.decode()
            if packet.size == 0 and packet.dts is None:  # the last one, which has made the decoder show all
                return
        except EOFError:
            return
        except MemoryError:  # FFmpeg's own is one of both kinds: no fault of a packet
            raise
        except av.FFmpegError:
            if packet is None:
                return
            tally.undecodable += 1


def fits_decord(found: Probe, most: int) -> bool:
    """Whether decord gives exactly FFmpeg's frames of a whole file, as far as its packets tell before decoding.

    decord takes every packet for a frame. It repeats the last picture for packets that FFmpeg does not show (edit
    lists), cannot decode (before the first key frame, or shown before it: leading pictures), or that hold none.

    Args:
        found: the file.
        most: frames that decord may hold in memory.
    """
    if (
        found.container not in DECORD_CONTAINERS
        or found.codec not in DECORD_CODECS
        or not found.single
        or not found.orientation.upright
        or found.info.declared_frames > most
    ):
        return False
    times: list[int] = []
    with opened(found.path) as container:
        try:
            for packet in container.demux(container.streams[found.stream]):
                if packet.size == 0 and packet.dts is None:
                    break
                if not times and not packet.is_keyframe:
                    return False
                small = packet.size < (SMALLEST_PACKET if found.container == "avi" else 1)
                if small or packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata"):
                    return False
                if packet.pts is None or (times and packet.pts < times[0]) or len(times) == most:
                    return False
                times.append(packet.pts)
        except av.FFmpegError:
            return False
    return len(set(times)) == len(times) > 0


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
        with opened(path) as container:
            start = (container.start_time or 0) / av.time_base
            promised = (container.duration or 0) / av.time_base
            stream = container.streams.video[0]
            if not container.format.name.startswith("mov") and stream.average_rate:  # there, frames may be hidden
                promised = max(promised, float(stream.frames / stream.average_rate))
            if not promised:
                return False
            reached = 0.0
            container.seek(int((start + max(promised - 1.0, 0.0)) * av.time_base))
            for packet in container.demux():
                if packet.pts is not None and not packet.is_corrupt:
                    reached = max(reached, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
    except (IndexError, OverflowError) as error:  # the last: of a nonsensical length
        raise VideoError(f"{path}: its end cannot be read ({reason_of(error)})") from error
    return bool(reached < promised - END_TOLERANCE)


def fit_short_side(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """The size ``(width, height)`` scaled down so that the shorter side is ``short_side``; never enlarged.

    None leaves it unchanged.
    """
    if short_side is None or min(width, height) <= short_side:
        return width, height
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def reason_of(error: Exception) -> str:
    """What the system or FFmpeg says."""
    return getattr(error, "strerror", None) or str(error)
