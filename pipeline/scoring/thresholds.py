"""Thresholds: the score from which a frame is an alarm, and what it was chosen on.

A threshold of 0.5 means something else for every detector: XEL, for one, lowers all scores. A calibrated one is the
lowest that keeps false alarms as rare as asked on normal videos that the detector did not learn from. It is part of a
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Source = Literal["validation", "training"]

FEW = 10  # videos: their frames are alike, so that it is videos that count


@dataclass(frozen=True)
class Calibration:
    """A threshold, and what it was chosen on.

    Attributes:
        threshold: the lowest that keeps to the target; above 1 where even the highest scores are too common.
        target: at most this share of the frames reach it, in (0, 1).
        source: normal "validation" videos, or normal "training" videos, which the detector learnt from.
        videos: how many.
        frames: of these videos.
    """

    threshold: float
    target: float
    source: Source
    videos: int
    frames: int

    @property
    def note(self) -> str:
        """What the threshold was chosen on, in words."""
        text = (
            f"the lowest with at most {100 * self.target:g} % false alarms among the {self.frames:,} frames of "
            f"{self.videos} normal {self.source} video{'s' if self.videos != 1 else ''}"
        )
        if self.source == "training":
            text += ", which the run learnt from since it put none aside: expect more false alarms on others"
        if self.videos < FEW:
            text += f"; so few cannot promise {100 * self.target:g} % on others: put more aside by --validation"
        return text


def threshold_for(scores: Sequence[NDArray[np.float32]], target: float) -> float:
    """The lowest threshold that at most a share ``target`` of the scores of normal frames reach.

    Args:
        scores: ``(frames,)`` of each video; at least one frame in all.
        target: in (0, 1).

    Returns:
        The next number, in float32, above the highest score that would be one alarm too many.

    Raises:
        ValueError: no scores, or a target out of range.
    """
    joined = np.concatenate([np.empty(0, np.float32), *scores])
    if not len(joined) or not 0 < target < 1:
        raise ValueError(f"a target of {target} of {len(joined)} frames")
    allowed = int(np.searchsorted(np.arange(len(joined) + 1) / len(joined), target, side="right")) - 1
    too_many = np.partition(joined, len(joined) - 1 - allowed)[len(joined) - 1 - allowed]
    return float(np.nextafter(too_many, np.float32(np.inf)))
