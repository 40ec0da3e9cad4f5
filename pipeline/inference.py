"""Inference: a detector's score for every clip of a video, from its features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .bags import BagConfig, normalise
from .cache import Features

if TYPE_CHECKING:
    from ..models import Detector


def score_clips(detector: Detector, features: Features, config: BagConfig) -> NDArray[np.float32]:
    """Scores in [0, 1], ``(clips,)``, of a detector in evaluation mode; those of several crops are averaged.

    Clips are scored as they are, also by detectors that learnt from segments.

    Raises:
        UserError: NaN or infinite features.
    """
    import torch

    device = next(detector.parameters()).device
    scores = []
    with torch.inference_mode():
        for piece in features.pieces():
            scored = detector.score(torch.from_numpy(normalise(piece, config)).to(device))  # (t,) or (t, crops)
            scores.append(scored.reshape(len(piece), -1).mean(dim=1).float().cpu().numpy())
    return np.concatenate(scores)
