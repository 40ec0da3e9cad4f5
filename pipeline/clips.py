"""Clips: how a video's frames are cut into clips, and how clip scores become frame scores again.

Both directions live here, side by side, because they must agree: exactly one score per decoded frame, always.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Tail = Literal["pad", "drop"]


@dataclass(frozen=True)
class Clipping:
    """Cuts a video into clips of ``length`` consecutive frames that do not overlap.

    Attributes:
        length: frames per clip, 16 in the papers.
        tail: what becomes of the last, incomplete clip: "pad" repeats its last frame so that every frame gets a score
            of its own; "drop" leaves it out, as the papers' protocol does.
    """

    length: int = 16
    tail: Tail = "pad"

    def count(self, frames: int) -> int:
        """How many clips a video of ``frames`` frames has. A video shorter than one clip has one even under "drop"."""
        if self.tail == "drop":
            return max(frames // self.length, min(frames, 1))
        return -(-frames // self.length)

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

    def spread(self, clip_scores: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """One score per frame, ``(clips,) -> (frames,)``: a clip's score holds for each of its frames.

        Frames of a dropped tail take the score of the clip before them.

        Raises:
            ValueError: the number of clips is not that of a video of ``frames`` frames.
        """
        if len(clip_scores) != self.count(frames):
            raise ValueError(
                f"{len(clip_scores)} clip scores for {frames} frames, which make {self.count(frames)} clips"
            )
        clip_of_frame = np.minimum(np.arange(frames) // self.length, len(clip_scores) - 1)
        return np.asarray(clip_scores, np.float32)[clip_of_frame]
