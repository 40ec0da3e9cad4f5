"""Bags: the clips of a video as detectors learn from them.

MIL averages the clips of a video into 32 segments; SRF and AR-Net take the clips as they are, AR-Net at most 300.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .ahead import ahead
from .cache import Features

Sampling = Literal["even", "run"]


@dataclass(frozen=True)
class BagConfig:
    """How clip features become bags.

    Attributes:
        segments: average the clips of a video into so many segments; 0 takes the clips as they are.
        clips: without segments, a step learns from at most so many clips of a video: of a longer abnormal one evenly
            spaced clips, of a longer normal one a random run. 16384 clips of 16 frames are two and a half hours.
        l2_normalise: scale every clip's or segment's features to length 1, as MIL does.
    """

    segments: int = 32
    clips: int = 16384
    l2_normalise: bool = True

    def __post_init__(self) -> None:
        if self.segments < 0 or self.clips < 1:
            raise UserError(
                f"bags.segments must be 0 or more and bags.clips 1 or more, not {self.segments} and {self.clips}"
            )


def segment_bounds(clips: int, segments: int) -> NDArray[np.int64]:
    """Borders ``(segments + 1,)`` of the segments of a video: segment ``i`` is ``clips[bounds[i]:bounds[i + 1]]``."""
    return np.round(np.linspace(0, clips, segments + 1)).astype(np.int64)


def clips_of_segment(segment: int, clips: int, segments: int) -> tuple[int, int]:
    """Which clips a segment stands for, half-open; a video with fewer clips than segments has some stand twice."""
    start, end = segment_bounds(clips, segments)[segment : segment + 2].tolist()
    start = min(start, clips - 1)
    return start, max(end, start + 1)


def make_bag(features: Features, config: BagConfig) -> NDArray[np.float32]:
    """Segment means, ``(clips, …, F) -> (segments, …, F)``, of at least one clip; one segment in memory at a time.

    A video with fewer clips than segments has empty segments, which take the clip at their place.
    """
    means = [
        features.read(slice(*clips_of_segment(segment, features.clips, config.segments))).mean(axis=0)
        for segment in range(config.segments)
    ]
    return normalise(np.stack(means), config)


def normalise(features: NDArray[np.float32], config: BagConfig) -> NDArray[np.float32]:
    """Rows of length 1 where the configuration says so; a row of zeros stays one."""
    if not config.l2_normalise:
        return np.asarray(features, np.float32)
    lengths = np.sqrt(np.einsum("...f,...f->...", features, features))[..., None]
    return np.asarray(features / np.maximum(lengths, np.float32(1e-12)), np.float32)


class TrainingVideos:
    """The training videos of one label as bags, read from disk when they are needed.

    Segments are small, and are made once; clips stay on disk, so that memory does not grow with the data.

    Args:
        names: of the videos.
        features: of the videos, all of one dimension.
        config: how clips become bags.
        sampling: of videos that have more clips than a step learns from.
    """

    def __init__(
        self, names: Sequence[str], features: Sequence[Features], config: BagConfig, sampling: Sampling
    ) -> None:
        self.names, self.features, self.config, self.sampling = tuple(names), tuple(features), config, sampling
        self._segments = [make_bag(video, config) for video in features] if config.segments else None

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
        if self._segments is not None:
            bag = self._segments[video]
            out[:] = bag if crop is None else bag[:, crop]
            return np.arange(len(bag))
        rows = self._rows(features.clips, rng)
        features.read(rows, crop, out)
        if self.config.l2_normalise:
            out[:] = normalise(out, self.config)
        return np.arange(features.clips)[rows]

    def pieces(self, video: int) -> Iterator[NDArray[np.float32]]:
        """The whole bag of one video, all crops, in pieces ``(t, F)`` or ``(t, crops, F)``."""
        if self._segments is not None:
            yield self._segments[video]
        else:
            yield from (normalise(piece, self.config) for piece in self.features[video].pieces())

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
