"""Inference: a detector's score for every clip or segment of a video, from its features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .bags import BagConfig, make_bag, normalise
from .cache import Features

if TYPE_CHECKING:
    from ..models import Detector


def score_clips(detector: Detector, features: Features, config: BagConfig) -> NDArray[np.float32]:
    """Scores in [0, 1], ``(clips,)``, of a detector in evaluation mode; those of several crops are averaged.

    Clips are scored as they are, also by detectors that learnt from segments.

    Raises:
        UserError: NaN or infinite features.
    """
    return np.concatenate([_scores(detector, normalise(piece, config)) for piece in features.pieces()])


def score_segments(detector: Detector, features: Features, config: BagConfig, segments: int) -> NDArray[np.float32]:
    """Scores in [0, 1], ``(segments,)``, of the means of a video's clips, also by detectors that learnt from clips.

    Features are scaled to length 1 where the detector learnt from such; scores of several crops are averaged.

    Raises:
        UserError: NaN or infinite features.
    """
    return _scores(detector, make_bag(features, replace(config, segments=segments)))


def _scores(detector: Detector, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(t, F)`` or ``(t, crops, F)`` -> ``(t,)``."""
    import torch

    device = next(detector.parameters()).device
    with torch.inference_mode():
        scored = detector.score(torch.from_numpy(rows).to(device))  # (t,) or (t, crops)
        return np.asarray(scored.reshape(len(rows), -1).mean(dim=1).float().cpu().numpy(), np.float32)
