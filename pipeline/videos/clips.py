"""Clips: how a video's frames are cut into clips, and how clip scores become frame scores again.

Both directions live here, side by side, because they must agree: exactly one score per decoded frame, always.
Features that others made may be of a fixed number of segments per video instead of clips; `Segments` says which frames
those stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from .config import Tail


class _Cut(ABC):
    """A video as a row of scored pieces, each of which stands for consecutive frames; together they hold them all."""

    @abstractmethod
    def count(self, frames: int) -> int:
        """How many pieces a video of ``frames`` frames has."""

    @abstractmethod
    def _bounds(self, clip: int, frames: int) -> tuple[int, int]:
        """The frames of the piece ``clip``, half-open, in a video of ``frames`` frames."""

    def frames_of(self, clip: int, frames: int) -> tuple[int, int]:
        """The frames that a clip's score holds for, in a video of ``frames`` frames.

        Returns:
            First frame, and the one after the last. Both are equal for a segment that has no frame of its own, which
            only a video with fewer frames than segments has.

        Raises:
            ValueError: there is no such clip.
        """
        if not 0 <= clip < self.count(frames):
            raise ValueError(f"no clip {clip} in {frames} frames, which make {self.count(frames)} clips")
        return self._bounds(clip, frames)

    def spread(self, clip_scores: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """One score per frame, ``(clips,) -> (frames,)``: a clip's score holds for the frames that `frames_of` gives.

        Raises:
            ValueError: the number of clips is not that of a video of ``frames`` frames.
        """
        clips = self.count(frames)
        if len(clip_scores) != clips:
            raise ValueError(f"{len(clip_scores)} clip scores for {frames} frames, which make {clips} clips")
        bounds = np.array([self._bounds(clip, frames) for clip in range(clips)], np.int64).reshape(-1, 2)
        return np.repeat(np.asarray(clip_scores, np.float32), bounds[:, 1] - bounds[:, 0])


@dataclass(frozen=True)
class Clipping(_Cut):
    """Cuts a video into clips of ``length`` consecutive frames that do not overlap.

    Frames of a dropped tail take the score of the clip before them.

    Attributes:
        length: frames per clip, 16 in the papers.
        tail: what becomes of the last, incomplete clip: "pad" repeats its last frame so that every frame gets a score
            of its own; "drop" leaves it out, as the papers' protocol does.
    """

    length: int = 16
    tail: Tail = "pad"

    def __post_init__(self) -> None:
        if self.length < 1 or self.tail not in get_args(Tail):
            raise ValueError(f"there are no clips of {self.length} frames with the tail {self.tail!r}")

    def count(self, frames: int) -> int:
        """How many clips a video of ``frames`` frames has. A video shorter than one clip has one even under "drop"."""
        if self.tail == "drop":
            return max(frames // self.length, min(frames, 1))
        return -(-frames // self.length)

    def _bounds(self, clip: int, frames: int) -> tuple[int, int]:
        last = clip == self.count(frames) - 1
        return clip * self.length, frames if last else (clip + 1) * self.length

    def split(self, blocks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Clips ``(length, height, width, 3)`` of the frames in ``blocks``, each ``(n, height, width, 3)``, n ≤ length.

        Blocks hold ``length`` frames each, but for the last: `Decoder.read` is asked for blocks of this size.
        """
        first = True
        for block in blocks:
            missing = self.length - len(block)
            if missing and self.tail == "drop" and not first:
                continue  # not `return`: the source must come to its end, where it says what decoding came to
            yield np.concatenate([block, np.repeat(block[-1:], missing, axis=0)]) if missing else block
            first = False


@dataclass(frozen=True)
class Segments(_Cut):
    """A fixed number of segments per video, whatever its length, as published MIL features come.

    Every segment has the same number of frames, ``frames // segments``, and the last one the remaining frames as well
    (the protocol of Sultani et al., CVPR 2018). In a video with fewer frames than segments the frames are shared out
    evenly: each takes the score of one segment, and the other segments go without.

    Attributes:
        segments: how many, 32 in the paper.
    """

    segments: int = 32

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise ValueError(f"a video cannot have {self.segments} segments")

    def count(self, frames: int) -> int:
        """How many segments a video has, whatever its ``frames``."""
        return self.segments

    def _bounds(self, clip: int, frames: int) -> tuple[int, int]:
        if frames < self.segments:  # frame f belongs to segment ⌊f · segments / frames⌋
            return -(-clip * frames // self.segments), -(-(clip + 1) * frames // self.segments)
        size = frames // self.segments
        return clip * size, frames if clip == self.segments - 1 else (clip + 1) * size
