"""Bags: the clips of a video as detectors learn from them.

Sultani et al. (CVPR 2018) cut every video into 32 segments of equally many clips and average the clips within each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BagConfig:
    """How clip features become bags.

    Attributes:
        segments: segments per video.
        l2_normalise: scale every segment to length 1, as MIL does.
    """

    segments: int = 32
    l2_normalise: bool = True


def segment_bounds(clips: int, segments: int) -> NDArray[np.int64]:
    """Borders ``(segments + 1,)`` of the segments of a video: segment ``i`` is ``clips[bounds[i]:bounds[i + 1]]``."""
    return np.round(np.linspace(0, clips, segments + 1)).astype(np.int64)


def make_bag(features: NDArray[np.float32], config: BagConfig) -> NDArray[np.float32]:
    """Segment means, ``(clips, F) -> (segments, F)``, of at least one clip.

    A video with fewer clips than segments has empty segments, which take the clip at their place.
    """
    bounds = segment_bounds(len(features), config.segments)
    means = [
        np.mean(features[start:end], axis=0, dtype=np.float32)
        if end > start
        else features[min(start, len(features) - 1)]
        for start, end in pairwise(bounds)
    ]
    return normalise(np.stack(means), config)


def normalise(features: NDArray[np.float32], config: BagConfig) -> NDArray[np.float32]:
    """Rows of length 1 where the configuration says so; a row of zeros stays one."""
    if not config.l2_normalise:
        return np.asarray(features, np.float32)
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.float32(1e-12)), np.float32)
