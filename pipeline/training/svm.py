"""The baseline of the papers' tables, fitted in one go: a linear SVM on video-level means, with probabilities.

Sultani et al., "Real-world anomaly detection in surveillance videos", CVPR 2018, section 5.3: every video is one point,
its mean feature; at test time every clip is. The probability is a sigmoid of the distance to the plane (Platt,
"Probabilistic outputs for support vector machines", 1999).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

if TYPE_CHECKING:
    from ...models import SVM

FOLDS = 5  # at most, fewer where a label has fewer videos


def fit_svm(abnormal: NDArray[np.float32], normal: NDArray[np.float32], seed: int) -> SVM:
    """Fit the plane and the sigmoid; both labels weigh the same, however many videos they have.

    Features are centred and divided by *one* number, the root mean square distance of a video from their mean. So C = 1
    means the same for every extractor, and no dimension that hardly varies between videos is blown up for clips, as it
    were if each were divided by its own deviation.

    The sigmoid is fitted to the distances of videos that the plane was not fitted to (`FOLDS` folds), as Platt advises.
    It is fitted to the training distances instead where there are no folds, with a single video of a label, and where
    the folds put abnormal videos *below* normal ones, as they can with few videos or features that tell nothing: their
    sigmoid would turn the plane around. Fitted to the training distances it never does.

    Args:
        abnormal: mean feature of every abnormal video, ``(A, F)``, A ≥ 1, finite.
        normal: mean feature of every normal video, ``(N, F)``, N ≥ 1, finite.
        seed: of the folds; nothing else is random.

    Returns:
        On the CPU, in evaluation mode; it takes features as they are and scales them within its plane. Its scores are
        the fitted probabilities of the abnormal label.

    Raises:
        ValueError: a label without videos, unequal F, or features that are not finite.
    """
    if min(len(abnormal), len(normal)) < 1:
        raise ValueError(f"an SVM needs videos of both labels, not {len(abnormal)} abnormal and {len(normal)} normal")
    points = np.concatenate([abnormal, normal]).astype(np.float64)  # (A + N, F)
    labels = np.repeat([1, 0], [len(abnormal), len(normal)])
    centre = points.mean(axis=0)
    scale = float(np.sqrt(((points - centre) ** 2).sum(axis=1).mean())) or 1.0  # 0 where all videos are the same
    fitted = _calibrated((points - centre) / scale, labels, seed)
    slope, offset = _sigmoid(fitted)
    plane = fitted.calibrated_classifiers_[0].estimator
    weight = slope * plane.coef_[0] / scale
    return _folded(weight, slope * plane.intercept_[0] + offset - weight @ centre)


def _calibrated(points: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> CalibratedClassifierCV:
    videos = np.bincount(labels)
    everything = np.arange(len(labels))
    in_sample = [(everything, everything)]  # one "fold" that is fitted to what it is tested on
    folds = min(FOLDS, *videos.tolist())
    weights = (len(labels) / (2 * videos))[labels]  # "balanced", of the plane and of the sigmoid
    if folds > 1:
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
        fitted = CalibratedClassifierCV(SVC(kernel="linear"), cv=splits, ensemble=False)
        fitted.fit(points, labels, sample_weight=weights)
        if _sigmoid(fitted)[0] > 0:
            return fitted
    return CalibratedClassifierCV(SVC(kernel="linear"), cv=in_sample, ensemble=False).fit(
        points, labels, sample_weight=weights
    )


def _sigmoid(fitted: CalibratedClassifierCV) -> tuple[float, float]:
    """Slope s and offset o of the probability 1 / (1 + exp(-(s · distance + o))), Platt's −A and −B."""
    calibrator = fitted.calibrated_classifiers_[0].calibrators[0]
    return -float(calibrator.a_), -float(calibrator.b_)


def _folded(weight: NDArray[np.float64], bias: float) -> SVM:
    import torch

    from ...models import SVM

    detector = SVM(len(weight))
    with torch.no_grad():
        detector.plane.weight.copy_(torch.from_numpy(weight)[None])
        detector.plane.bias.fill_(bias)
    return detector.eval()
