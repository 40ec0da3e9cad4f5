"""A data set as every later stage sees it: videos with a label each, split for training and testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError

Split = Literal["train", "test"]
MAX_FRAMES = 1 << 26  # of a video: a month at 25 frames per second; more is a mistake that would fill memory


@dataclass(frozen=True)
class LabelledVideo:
    """One video of a data set.

    Attributes:
        name: relative POSIX path, unique in the data set.
        split: what it is used for.
        abnormal: the video-level label, all that training may know.
        frames: the number of frames that the annotation was made for; None where it does not say.
        spans: anomalous frames, half-open and 0-based, in order. None where they are not known, as in training sets.
        category: the kind of anomaly, or the scene; what a figure may be broken down by. None where there is none.
        overlong: whether its annotation is known to run past the video's end, and is cut off there.
    """

    name: str
    split: Split
    abnormal: bool
    frames: int | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    category: str | None = None
    overlong: bool = False


@dataclass(frozen=True)
class Counts:
    """How many videos of each kind there are."""

    train_normal: int
    train_abnormal: int
    test_normal: int
    test_abnormal: int


@dataclass(frozen=True)
class Official:
    """What is published about a data set, to compare one on disk with."""

    counts: Counts
    frame_rate: float | None = None  # frames per second of every video; None where they differ


@dataclass(frozen=True)
class Dataset:
    """Videos with their labels, and where they lie.

    Attributes:
        name: for people.
        root: the folder that video names are relative to.
        videos: in the order of the annotation.
        digest: SHA-256 of what the labels were read from.
        official: of a published data set, what it should consist of.
        paths: where videos lie that do not lie at ``root / name``, by name.
    """

    name: str
    root: Path
    videos: tuple[LabelledVideo, ...]
    digest: str
    official: Official | None = None
    paths: Mapping[str, Path] = field(default_factory=dict)

    def of(self, split: Split) -> list[LabelledVideo]:
        """The videos of one split, in the order of the annotation."""
        return [video for video in self.videos if video.split == split]

    def path_of(self, video: LabelledVideo) -> Path:
        """Where a video should lie."""
        return self.paths.get(video.name, self.root / video.name)


def spans_of(truth: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """The anomalous stretches of a video's frames ``(frames,)``, half-open and in order."""
    edges = np.flatnonzero(np.diff(truth.astype(np.int8), prepend=0, append=0))
    return tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2))


def count(videos: list[LabelledVideo] | tuple[LabelledVideo, ...]) -> Counts:
    """How many of each kind are among ``videos``."""
    kinds = [(video.split, video.abnormal) for video in videos]
    return Counts(*(kinds.count((split, abnormal)) for split in ("train", "test") for abnormal in (False, True)))


def check_unique(places: Sequence[str], videos: Sequence[LabelledVideo]) -> None:
    """Refuse labels that name a video twice.

    Args:
        places: where each is named, such as ``labels.csv, line 3``.
        videos: in the same order.

    Raises:
        UserError: names both places and the video.
    """
    seen: dict[str, str] = {}
    for place, video in zip(places, videos, strict=True):
        if video.name in seen:
            raise UserError(f"{place}: {video.name} is listed twice, before in {seen[video.name]}")
        seen[video.name] = place


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
        if end > frames and not (video.overlong and start < frames):
            raise UserError(f"{video.name}: anomalous frames {start}-{end} run past the end at frame {frames}")
        truth[start:end] = True
    return truth
