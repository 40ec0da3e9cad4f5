"""Bags: the clips of a video as detectors learn from them.

MIL averages the clips of a video into 32 segments; SRF and AR-Net take single clips, AR-Net at most 300 of a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..support.ahead import ahead
from .config import BagConfig
from .scaling import Scaling
from .store import Features

Sampling = Literal["even", "run"]


def segment_bounds(clips: int, segments: int) -> NDArray[np.int64]:
    """Borders ``(segments + 1,)`` of the segments of a video: segment ``i`` is ``clips[bounds[i]:bounds[i + 1]]``."""
    return np.round(np.linspace(0, clips, segments + 1)).astype(np.int64)


def clips_of_segment(segment: int, clips: int, segments: int) -> tuple[int, int]:
    """Which clips a segment stands for, half-open; a video with fewer clips than segments has some stand twice."""
    start, end = segment_bounds(clips, segments)[segment : segment + 2].tolist()
    start = min(start, clips - 1)
    return start, max(end, start + 1)


def make_bag(features: Features, segments: int, scaling: Scaling) -> NDArray[np.float32]:
    """Segment means, ``(clips, …, F) -> (segments, …, F)``, of at least one clip; one segment in memory at a time.

    They are scaled, not the clips: of the standardised ones it would be the same, but not of those of length 1.

    A video with fewer clips than segments has empty segments, which take the clip at their place.
    """
    means = [
        features.read(slice(*clips_of_segment(segment, features.clips, segments))).mean(axis=0)
        for segment in range(segments)
    ]
    return scaling(np.stack(means))


class TrainingVideos:
    """The training videos of one label as bags, scaled.

    Segments are small, and clips that are held in memory are there already: such bags are made once. Other clips stay
    on disk and are read when they are needed, so that memory does not grow with the data.

    Args:
        names: of the videos.
        features: of the videos, all of one dimension.
        config: how clips become bags.
        scaling: of the features.
        sampling: of videos that have more clips than a step learns from.
    """

    def __init__(
        self,
        names: Sequence[str],
        features: Sequence[Features],
        config: BagConfig,
        scaling: Scaling,
        sampling: Sampling,
    ) -> None:
        self.names, self.features, self.config = tuple(names), tuple(features), config
        self.scaling, self.sampling = scaling, sampling
        self._bags: list[NDArray[np.float32]] | None = None
        if config.segments:
            self._bags = [make_bag(video, config.segments, scaling) for video in features]
        elif all(video.is_held for video in features):
            self._bags = [scaling(video.array) for video in features]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def feature_dim(self) -> int:
        """F of every clip."""
        return self.features[0].sidecar.feature_dim

    def length(self, video: int) -> int:
        """T of the bag that `draw` gives."""
        return self.config.segments or min(self.features[video].clips, self.config.clips)

    def draw(self, video: int, rng: np.random.Generator, out: NDArray[np.float32]) -> NDArray[np.int64]:
        """Put the bag of one video for one step, ``(T, F)``, of several crops one, into ``out``.

        Returns:
            ``(T,)``, which of the bag's rows these are.
        """
        features = self.features[video]
        crop = int(rng.integers(features.crops)) if features.crops else None
        length = self.config.segments or features.clips
        rows = slice(None) if self.config.segments else self._rows(length, rng)
        if self._bags is not None:
            bag = self._bags[video]
            out[:] = bag[rows] if crop is None else bag[rows, crop]
        else:
            features.read(rows, crop, out)
            out[:] = self.scaling(out)
        return np.arange(length)[rows]

    def pieces(self, video: int) -> Iterator[NDArray[np.float32]]:
        """The whole bag of one video, all crops, in pieces ``(t, F)`` or ``(t, crops, F)``."""
        if self._bags is not None:
            yield self._bags[video]
        else:
            yield from map(self.scaling, self.features[video].pieces())

    def all_pieces(self) -> Iterator[Iterator[NDArray[np.float32]]]:
        """The whole bags of all videos in turn, each in `pieces`, read in a thread ahead of time."""
        pieces = ahead((video, piece) for video in range(len(self)) for piece in self.pieces(video))
        return ((piece for _, piece in group) for _, group in groupby(pieces, key=itemgetter(0)))

    def frames_of(self, video: int, clip: int) -> tuple[int, int]:
        """Which frames a row of a video's bag stands for, half-open."""
        features = self.features[video]
        clips = (clip, clip + 1)
        if self.config.segments:
            clips = clips_of_segment(clip, features.clips, self.config.segments)
        sidecar = features.sidecar
        first, _ = sidecar.clipping.frames_of(clips[0], sidecar.frames)
        return first, sidecar.clipping.frames_of(clips[1] - 1, sidecar.frames)[1]

    def _rows(self, clips: int, rng: np.random.Generator) -> slice | NDArray[np.int64]:
        limit = self.config.clips
        if clips <= limit:
            return slice(None)
        if self.sampling == "run":
            start = int(rng.integers(clips - limit + 1))
            return slice(start, start + limit)
        return np.round(np.linspace(0, clips - 1, limit)).astype(np.int64)
