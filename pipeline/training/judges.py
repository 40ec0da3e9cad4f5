"""Judges: how good a detector is on videos that it does not learn from, and its weights where each liked it best."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ...errors import UserError
from ...models import Detector, LearningDetector
from ..datasets import Dataset, LabelledVideo, frame_truth
from ..features.scaling import Scaling
from ..features.store import Features, FeatureStore, hold
from ..scoring.inference import frame_scores, score_clips

Judge = Callable[[Detector], float]


@dataclass
class Best:
    """The weights that a judge scored highest."""

    value: float
    iteration: int
    weights: dict[str, Tensor]


@dataclass
class Judged:
    """What the judges of a training have seen so far.

    Attributes:
        judges: by name; higher is better.
        best: by judge, its best weights.
        history: by judge, the values at each evaluation, and the iterations after which they were taken.
    """

    judges: dict[str, Judge]
    best: dict[str, Best] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    def look(self, detector: LearningDetector, iteration: int) -> dict[str, float]:
        """Let all judges see a detector in evaluation mode; returns what each says."""
        values = {name: judge(detector) for name, judge in self.judges.items()}
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
            best = self.best.get(name)
            if best is None or value >= best.value:  # of equals the later: it has learnt for longer
                self.best[name] = Best(value, iteration, dict(copy.deepcopy(detector.state_dict())))
        self.history.setdefault("iteration", []).append(iteration)
        return values


def validation_judge(videos: Sequence[tuple[Features, bool]], scaling: Scaling) -> Judge:
    """The AUC of videos by their highest scores, all that can be judged without annotated frames."""
    labels = [abnormal for _, abnormal in videos]
    return lambda detector: float(roc_auc_score(labels, video_scores(detector, videos, scaling)))


def test_judge(videos: Sequence[tuple[LabelledVideo, Features]], scaling: Scaling) -> Judge:
    """The AUC of the frames of annotated videos."""
    truth = np.concatenate([frame_truth(video, features.sidecar.frames) for video, features in videos])

    def judge(detector: Detector) -> float:
        scores = [frame_scores(detector, features, scaling) for _, features in videos]
        return float(roc_auc_score(truth, np.concatenate(scores)))

    return judge


def video_scores(detector: Detector, videos: Sequence[tuple[Features, bool]], scaling: Scaling) -> list[float]:
    """The highest score of each video."""
    return [float(score_clips(detector, features, scaling).max()) for features, _ in videos]


def annotated_test_videos(
    dataset: Dataset, store: FeatureStore, learnt_from: str
) -> list[tuple[LabelledVideo, Features]]:
    """The test videos with features like those of a training video.

    Raises:
        UserError: there are none with annotated frames, or their features are not there or made otherwise.
    """
    videos = dataset.of("test")
    if not any(video.abnormal for video in videos) or not all(video.spans is not None for video in videos):
        raise UserError("the data set has no test videos with annotated frames")
    _, *found = store.read_all([learnt_from, *(video.name for video in videos)])
    for video, features in zip(videos, found, strict=True):
        frame_truth(video, features.sidecar.frames)  # which raises where they do not fit together
    return list(zip(videos, hold(found), strict=True))
