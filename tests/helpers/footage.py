"""Videos for the tests, made on the spot: every frame carries its own number, readable after lossy coding."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 12  # of the frame's number, drawn as light and dark blocks in two rows of six
LANDSCAPE = (128, 64)  # width, height
PORTRAIT = (64, 128)


class Footage:
    """Writes small videos and reads the frame numbers in them."""

    @classmethod
    def frame(cls, index: int, size: tuple[int, int] = LANDSCAPE) -> NDArray[np.uint8]:
        """One RGB frame ``(height, width, 3)`` that shows its number."""
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        for bit, block in enumerate(cls._blocks(picture)):
            block[:] = 220 if index >> bit & 1 else 30
        return picture

    @classmethod
    def index_of(cls, frame: NDArray[np.uint8]) -> int:
        """The number that a frame shows, at whatever size."""
        return sum(int(block.mean() > 125) << bit for bit, block in enumerate(cls._blocks(frame)))

    @staticmethod
    def _blocks(frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The views of a frame that show one bit each, lowest first."""
        return [block for row in np.array_split(frame, 2) for block in np.array_split(row, BITS // 2, axis=1)]

    @classmethod
    def indices(cls, blocks: Iterable[NDArray[np.uint8]]) -> list[int]:
        """The numbers that the frames of blocks ``(n, height, width, 3)`` show."""
        return [cls.index_of(frame) for block in blocks for frame in block]

    @classmethod
    def video(
        cls,
        path: Path,
        frames: int,
        size: tuple[int, int] = LANDSCAPE,
        rate: int = 25,
        codec: str = "libx264",
        first: int = 0,
        milliseconds: Sequence[int] | None = None,
        keyframe_every: int = 250,
        b_frames: bool = True,
        faststart: bool = False,
    ) -> Path:
        """A video whose frames show ``first``, ``first`` + 1, …; with ``milliseconds``, each at its own time."""
        options = {"movflags": "faststart"} if faststart else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(
                codec, rate=1000 if milliseconds else rate, options={"g": f"{keyframe_every}"}
            )
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(cls.frame(first + number, size), format="rgb24")
                if milliseconds:
                    frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    @classmethod
    def folder(cls, path: Path, frames: int, size: tuple[int, int] = LANDSCAPE, suffix: str = ".png") -> Path:
        """A folder of pictures named 0, 1, …, 10: their order is the natural one, not the alphabetical."""
        path.mkdir(parents=True, exist_ok=True)
        for number in range(frames):
            Image.fromarray(cls.frame(number, size)).save(path / f"{number}{suffix}")
        return path

    @staticmethod
    def sound(path: Path) -> Path:
        """A file with a sound stream and no pictures."""
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 8000
            container.mux(stream.encode(silence))
            container.mux(stream.encode())
        return path
