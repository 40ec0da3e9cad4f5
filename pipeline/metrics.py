"""Frame-level metrics. Pure functions of scores and truth; the literature's definitions, named where papers differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ..errors import UserError

THRESHOLD = 0.5


@dataclass(frozen=True)
class ScoredVideo:
    """One test video: a score and the truth for every frame, both ``(frames,)``."""

    name: str
    abnormal: bool  # the video-level label
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class FrameMetrics:
    """All frames of all test videos taken together ("micro"). Every figure is a fraction of 1.

    Attributes:
        auc: area under the ROC curve over all frames.
        ap: average precision over all frames.
        auc_abnormal: area under the ROC curve over the frames of abnormal videos only; separates methods better.
        far_normal: false alarm rate: share of the frames of *normal* videos with a score of 0.5 or more.
        tpr: share of the anomalous frames with a score of 0.5 or more.
        videos: number of test videos.
        frames: number of frames.
    """

    auc: float
    ap: float
    auc_abnormal: float
    far_normal: float
    tpr: float
    videos: int
    frames: int


@dataclass(frozen=True)
class Roc:
    """A ROC curve: rates in [0, 1], ``(points,)`` each."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


def frame_metrics(videos: Sequence[ScoredVideo]) -> FrameMetrics:
    """All metrics of a test set.

    Raises:
        UserError: the test set lacks normal videos, abnormal videos or normal frames within these, so that a metric is
            not defined.
    """
    scores, truth = _joined(videos)
    abnormal = [video for video in videos if video.abnormal]
    normal = [video for video in videos if not video.abnormal]
    if not abnormal or not normal:
        raise UserError(f"a test set of {len(normal)} normal and {len(abnormal)} abnormal videos: metrics need both")
    abnormal_scores, abnormal_truth = _joined(abnormal)
    if abnormal_truth.all() or not abnormal_truth.any():
        raise UserError(
            "the abnormal test videos must hold both normal and anomalous frames, else their AUC is undefined"
        )
    return FrameMetrics(
        auc=float(roc_auc_score(truth, scores)),
        ap=float(average_precision_score(truth, scores)),
        auc_abnormal=float(roc_auc_score(abnormal_truth, abnormal_scores)),
        far_normal=float(np.mean(_joined(normal)[0] >= THRESHOLD)),
        tpr=float(np.mean(scores[truth] >= THRESHOLD)),
        videos=len(videos),
        frames=len(scores),
    )


def frame_roc(videos: Sequence[ScoredVideo]) -> Roc:
    """The ROC curve over all frames, without points on straight lines."""
    scores, truth = _joined(videos)
    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores)
    return Roc(false_positive_rate, true_positive_rate)


def _joined(videos: Sequence[ScoredVideo]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return np.concatenate([video.scores for video in videos]), np.concatenate([video.truth for video in videos])
