"""Inference: a detector's score for every clip or segment of a video, from its features."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..features.bags import TrainingVideos, make_bag
from ..features.scaling import Scaling
from ..features.store import Features

if TYPE_CHECKING:
    from ...models import Detector


WHOLE = 2048  # clips of a video that a detector with context takes at once: of attention, memory grows with the square


def score_clips(detector: Detector, features: Features, scaling: Scaling) -> NDArray[np.float32]:
    """Scores in [0, 1], ``(clips,)``, of a detector in evaluation mode; those of several crops are averaged.

    Clips are scored one by one, also by detectors that learnt from segments, and scaled as what the detector learnt
    from. A detector with context takes a video whole, and one of more than `WHOLE` clips in windows.

    Raises:
        UserError: NaN or infinite features.
    """
    if not detector.context:
        return np.concatenate([score_rows(detector, scaling(piece)) for piece in features.pieces()])
    scores = []
    for start, stop, seen in windows(features.clips):
        scored = score_rows(detector, scaling(features.read(seen)))
        scores.append(scored[start - seen.start : stop - seen.start])
    return np.concatenate(scores)


def windows(clips: int, whole: int = WHOLE) -> Iterator[tuple[int, int, slice]]:
    """From which clip to before which a video is scored at a time, and what of it is looked at to do so.

    A video of up to ``whole`` clips is looked at as one. Of a longer one half as many are scored at a time, with a
    quarter of ``whole`` on either side of them in view, so that the work grows with its length and not faster.
    """
    if clips <= whole:
        yield 0, clips, slice(0, clips)
        return
    for start in range(0, clips, whole // 2):
        stop = min(start + whole // 2, clips)
        yield start, stop, slice(max(0, start - whole // 4), min(clips, stop + whole // 4))


def score_segments(detector: Detector, features: Features, scaling: Scaling, segments: int) -> NDArray[np.float32]:
    """Scores in [0, 1], ``(segments,)``, of the means of a video's clips, also by detectors that learnt from clips.

    They are scaled as what the detector learnt from; scores of several crops are averaged.

    Raises:
        UserError: NaN or infinite features.
    """
    return score_rows(detector, make_bag(features, segments, scaling))


def frame_scores(detector: Detector, features: Features, scaling: Scaling) -> NDArray[np.float32]:
    """One score in [0, 1] for every decoded frame, ``(frames,)``: that of its clip.

    Raises:
        UserError: NaN or infinite features.
    """
    return features.sidecar.clipping.spread(score_clips(detector, features, scaling), features.sidecar.frames)


def highest_scores(detector: Detector, videos: TrainingVideos) -> list[float]:
    """The highest score of each training video, over its whole bag.

    Raises:
        UserError: NaN or infinite features.
    """
    return [
        max(float(score_rows(detector, piece).max()) for piece in videos.pieces(number))
        for number in range(len(videos))
    ]


def score_rows(detector: Detector, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of scaled features, ``(t, F)`` or ``(t, crops, F)`` -> ``(t,)``, those of several crops averaged."""
    import torch

    device = next(chain(detector.parameters(), detector.buffers())).device
    with torch.inference_mode():
        clips = torch.from_numpy(rows).to(device)
        if detector.context and rows.ndim > 2:  # each crop a video: (t, crops, F) -> (crops, t, F)
            scored = detector.score(clips.transpose(0, 1)).T
        else:
            scored = detector.score(clips)  # (t,) or (t, crops)
        return np.asarray(scored.reshape(len(rows), -1).mean(dim=1).float().cpu().numpy(), np.float32)
