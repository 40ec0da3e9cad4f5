"""A data set as every later stage sees it: videos with a label each, split for training and testing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError

Split = Literal["train", "test"]


@dataclass(frozen=True)
class LabelledVideo:
    """One video of a data set.

    Attributes:
        name: relative POSIX path, unique in the data set.
        split: what it is used for.
        abnormal: the video-level label, all that training may know.
        frames: the number of frames that the annotation was made for; None where it does not say.
        spans: anomalous frames, half-open and 0-based, in order. None where they are not known, as in training sets.
    """

    name: str
    split: Split
    abnormal: bool
    frames: int | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    category: str | None = None  # class (UCF-Crime) or scene (ShanghaiTech), where the data set has them


@dataclass(frozen=True)
class Dataset:
    """Videos with their labels, and where they lie."""

    name: str
    root: Path  # video names are relative to this folder
    videos: tuple[LabelledVideo, ...]
    digest: str  # SHA-256 of what the labels were read from

    def of(self, split: Split) -> list[LabelledVideo]:
        """The videos of one split, in the order of the annotation."""
        return [video for video in self.videos if video.split == split]

    def path_of(self, video: LabelledVideo) -> Path:
        """Where a video should lie."""
        return self.root / video.name


def frame_truth(video: LabelledVideo, frames: int) -> NDArray[np.bool_]:
    """Which frames are anomalous, ``(frames,)``.

    Raises:
        UserError: unknown spans, or the annotation was made for another number of frames.
    """
    if video.spans is None:
        raise UserError(f"{video.name}: its anomalous frames are not annotated, it cannot be evaluated")
    if video.frames is not None and video.frames != frames:
        raise UserError(f"{video.name}: annotated for {video.frames} frames, but {frames} were decoded")
    truth = np.zeros(frames, bool)
    for start, end in video.spans:
        if end > frames:
            raise UserError(f"{video.name}: anomalous frames {start}-{end} run past the end at frame {frames}")
        truth[start:end] = True
    return truth
