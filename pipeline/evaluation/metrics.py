"""Frame-level metrics. Pure functions of scores and truth; the literature's definitions, named where papers differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError

THRESHOLD = 0.5
# The rates of `FrameMetrics`, as tables call them.
METRICS = {"auc": "AUC %", "ap": "AP %", "auc_abnormal": "AUC abnormal %", "far_normal": "FAR normal %", "tpr": "TPR %"}


@dataclass(frozen=True)
class ScoredVideo:
    """One test video: a score and the truth for every frame that counts, both ``(frames,)``.

    Raises:
        UserError: there are more of one than of the other; names the video and both lengths.
    """

    name: str
    abnormal: bool  # the video-level label
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]
    category: str | None = None  # class or scene, where the data set has them

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.truth):
            raise UserError(f"{self.name}: {len(self.scores)} scores for a ground truth of {len(self.truth)} frames")


@dataclass(frozen=True)
class FrameMetrics:
    """All frames of all test videos taken together ("micro"). Every figure is a fraction of 1, None where undefined.

    Attributes:
        auc: area under the ROC curve over all frames; None without anomalous or without normal frames.
        ap: average precision over all frames; None where the AUC is.
        auc_abnormal: area under the ROC curve over the frames of abnormal videos only; separates methods better. None
            where these lack anomalous or normal frames, and where there are no normal videos: it is the AUC then.
        far_normal: false alarm rate: share of the frames of *normal* videos with a score of 0.5 or more; None without
            such frames.
        tpr: share of the anomalous frames with a score of 0.5 or more; None without any.
        videos: number of test videos.
        frames: number of frames.
    """

    auc: float | None
    ap: float | None
    auc_abnormal: float | None
    far_normal: float | None
    tpr: float | None
    videos: int
    frames: int


@dataclass(frozen=True)
class Rates:
    """What one threshold comes to; scores that reach it are alarms. Every rate is a fraction of 1, None of no frames.

    Papers call each of the three shares of false alarms "FAR", usually without saying which.

    Attributes:
        threshold: a score.
        far_normal: alarms among the frames of *normal videos* (Sultani et al., CVPR 2018, section 5.3).
        far_all: alarms among *all normal frames*, of normal and abnormal videos: the false positive rate of the ROC.
        far_abnormal: alarms among the normal frames of *abnormal videos*.
        tpr: alarms among the anomalous frames.
    """

    threshold: float
    far_normal: float | None
    far_all: float | None
    far_abnormal: float | None
    tpr: float | None


@dataclass(frozen=True)
class CategoryMetrics:
    """The frames of the videos of one class or scene, taken together.

    Attributes:
        category: its name.
        videos: how many it has.
        frames: of these videos.
        auc: area under the ROC curve, in [0, 1]; None where it is not defined.
        ap: average precision, in [0, 1]; None where the AUC is not defined.
        undefined: why there are no figures; empty where there are.
    """

    category: str
    videos: int
    frames: int
    auc: float | None
    ap: float | None
    undefined: str = ""


@dataclass(frozen=True)
class Roc:
    """A ROC curve: rates in [0, 1], ``(points,)`` each."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


def frame_metrics(videos: Sequence[ScoredVideo]) -> FrameMetrics:
    """All metrics of a test set; those that its videos do not define are None.

    Raises:
        UserError: there is not a single frame.

    Example:
        >>> import numpy as np
        >>> calm = ScoredVideo("calm", False, np.array([0.1, 0.2], np.float32), np.array([False, False]))
        >>> fight = ScoredVideo("fight", True, np.array([0.1, 0.9], np.float32), np.array([False, True]))
        >>> frame_metrics([calm, fight]).auc
        1.0
    """
    scores, truth = _joined(videos)
    if not len(truth):
        raise UserError(f"a test set of {len(videos)} videos without a frame that counts: there is nothing to measure")
    abnormal = _joined([video for video in videos if video.abnormal])
    auc, ap = _auc_and_ap(scores, truth)
    only_abnormal = all(video.abnormal for video in videos)
    rates = rates_at(videos, THRESHOLD)
    return FrameMetrics(
        auc=auc,
        ap=ap,
        auc_abnormal=None if only_abnormal else _auc_and_ap(*abnormal)[0],
        far_normal=rates.far_normal,
        tpr=rates.tpr,
        videos=len(videos),
        frames=len(scores),
    )


def _auc_and_ap(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float | None, float | None]:
    """Both over frames ``(frames,)``; None where there are not both kinds of frames."""
    if truth.all() or not truth.any():
        return None, None
    from sklearn.metrics import average_precision_score, roc_auc_score  # here: the page of scores needs none of it

    return float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))


def rates_at(videos: Sequence[ScoredVideo], threshold: float) -> Rates:
    """How often scores of ``threshold`` or more are false and true alarms; None where there are no such frames."""

    def rate(anomalous: bool, abnormal: Sequence[bool]) -> float | None:
        chosen = [video for video in videos if video.abnormal in abnormal]
        alarms = [video.scores[video.truth == anomalous] >= threshold for video in chosen]
        joined = np.concatenate([np.empty(0, bool), *alarms])
        return float(joined.mean()) if len(joined) else None

    return Rates(
        threshold=threshold,
        far_normal=rate(False, [False]),
        far_all=rate(False, [False, True]),
        far_abnormal=rate(False, [True]),
        tpr=rate(True, [False, True]),
    )


def category_metrics(videos: Sequence[ScoredVideo]) -> tuple[CategoryMetrics, ...]:
    """Metrics of each category over the frames of its own videos, by name; videos without a category are left out.

    A class of UCF-Crime has abnormal videos only, a scene of ShanghaiTech has both kinds.
    """
    members: dict[str, list[ScoredVideo]] = {}
    for video in videos:
        if video.category is not None:
            members.setdefault(video.category, []).append(video)
    return tuple(_of_category(category, members[category]) for category in sorted(members))


def _of_category(category: str, videos: Sequence[ScoredVideo]) -> CategoryMetrics:
    scores, truth = _joined(videos)
    if truth.all() or not truth.any():
        reason = "no frames" if not len(truth) else "no normal frames" if truth.all() else "no anomalous frames"
        return CategoryMetrics(category, len(videos), len(truth), None, None, reason)
    return CategoryMetrics(category, len(videos), len(truth), *_auc_and_ap(scores, truth))


def frame_roc(videos: Sequence[ScoredVideo]) -> Roc | None:
    """The ROC curve over all frames, without points on straight lines; None without both kinds of frames."""
    scores, truth = _joined(videos)
    if truth.all() or not truth.any():
        return None
    from sklearn.metrics import roc_curve

    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores)
    return Roc(false_positive_rate, true_positive_rate)


def _joined(videos: Sequence[ScoredVideo]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    scores = np.concatenate([np.empty(0, np.float32), *(video.scores for video in videos)])
    return scores, np.concatenate([np.empty(0, bool), *(video.truth for video in videos)])
