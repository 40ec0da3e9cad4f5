"""The SVM against scikit-learn's probabilities, Platt's formula and cases that are solved by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from xelvad.models import SVM
from xelvad.pipeline.training.svm import fit_svm

Videos = tuple[NDArray[np.float32], NDArray[np.float32]]


def random_videos(seed: int, abnormal: int, normal: int, dimension: int, shift: float) -> Videos:
    """Like features after a ReLU, 0 or more; the labels differ by a shift along every dimension."""
    rng = np.random.default_rng(seed)
    points = np.abs(rng.normal(size=(abnormal + normal, dimension))).astype(np.float32)
    return points[:abnormal] + np.float32(shift), points[abnormal:]


def scaled(videos: Videos) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Points of root mean square 1, labels, and the centre and scale that made them."""
    points = np.concatenate(videos).astype(np.float64)
    centre = points.mean(axis=0)
    scale = np.sqrt(np.mean(np.sum((points - centre) ** 2, axis=1)))
    labels = np.array([1] * len(videos[0]) + [0] * len(videos[1]))
    return (points - centre) / scale, labels, centre, scale


def in_folds(videos: Videos, seed: int) -> CalibratedClassifierCV:
    """scikit-learn's own calibration, with balanced weights of the videos."""
    points, labels, _, _ = scaled(videos)
    folds = StratifiedKFold(min(5, *map(len, videos)), shuffle=True, random_state=seed)
    weights = np.where(labels, len(labels) / len(videos[0]), len(labels) / len(videos[1])) / 2
    fitted = CalibratedClassifierCV(SVC(kernel="linear"), cv=folds, ensemble=False)
    return fitted.fit(points, labels, sample_weight=weights)


def platt(videos: Videos) -> tuple[SVC, NDArray[np.float64]]:
    """A plane, and the sigmoid of Platt's equations on the very videos that it was fitted to."""
    points, labels, _, _ = scaled(videos)
    plane = SVC(kernel="linear", class_weight="balanced").fit(points, labels)
    distances = plane.decision_function(points)
    share = len(labels) / 2  # what balanced videos of one label weigh together
    targets = np.where(labels, (share + 1) / (share + 2), 1 / (share + 2))
    weights = np.where(labels, share / len(videos[0]), share / len(videos[1]))

    def loss(sigmoid: NDArray[np.float64]) -> float:
        logits = sigmoid[0] * distances + sigmoid[1]
        return float(np.sum(weights * (np.logaddexp(0, logits) - targets * logits)))

    return plane, minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9, "xrtol": 1e-12}).x


def score(detector: SVM, clips: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(detector.score(torch.from_numpy(clips)))


@pytest.mark.parametrize("dimension", [1, 7, 96])
@pytest.mark.parametrize(("abnormal", "normal"), [(2, 2), (2, 9), (3, 4), (5, 5), (12, 30), (40, 25)])
@pytest.mark.parametrize("shift", [0.8, 4.0])
def test_scores_are_scikit_learns_probabilities(abnormal: int, normal: int, dimension: int, shift: float) -> None:
    videos = random_videos(abnormal + dimension, abnormal, normal, dimension, shift)
    reference = in_folds(videos, seed=3)
    assert reference.calibrated_classifiers_[0].calibrators[0].a_ < 0  # not turned around, which another test looks at
    _, _, centre, scale = scaled(videos)
    clips = np.random.default_rng(1).normal(1, 2, (4, 25, dimension)).astype(np.float32)
    expected = reference.predict_proba((clips.reshape(-1, dimension) - centre) / scale)[:, 1]
    scores = score(fit_svm(*videos, seed=3), clips)
    assert scores.shape == (4, 25)
    np.testing.assert_allclose(scores.ravel(), expected, atol=2e-5)


@pytest.mark.parametrize(("abnormal", "normal"), [(1, 1), (1, 6), (5, 1)])
def test_without_folds_scores_are_platts_on_the_training_videos(abnormal: int, normal: int) -> None:
    videos = random_videos(0, abnormal, normal, 12, 0.5)
    plane, (slope, offset) = platt(videos)
    _, _, centre, scale = scaled(videos)
    clips = np.random.default_rng(1).normal(1, 1, (50, 12)).astype(np.float32)
    expected = expit(slope * plane.decision_function((clips - centre) / scale) + offset)
    np.testing.assert_allclose(score(fit_svm(*videos, seed=0), clips), expected, atol=1e-4)


@pytest.mark.parametrize(("copies", "probability"), [(1, 2 / 3), (3, 3 / 4)])
def test_two_points_are_solved_by_hand(copies: int, probability: float) -> None:
    """A margin of 1 at both points, and Platt's targets there: (n + 1) / (n + 2) for labels of equal weight n.

    Without balance, three normal videos would move the middle away from 0.5.
    """
    abnormal, normal = np.array([[3, 1, 0]], np.float32), np.array([[1, 1, 4]], np.float32)
    detector = fit_svm(abnormal, np.repeat(normal, copies, axis=0), seed=0)
    clips = np.concatenate([abnormal, normal, (abnormal + normal) / 2])
    np.testing.assert_allclose(score(detector, clips), [probability, 1 - probability, 0.5], atol=1e-3)


def test_folds_never_turn_the_plane_around() -> None:
    """Of few videos that tell nothing, folds often find abnormal videos below normal ones, and Platt's slope falls."""
    turned = 0
    for seed in range(20):
        videos = random_videos(seed, 2, 3, 16, 0.0)
        reference = in_folds(videos, seed)
        detector = fit_svm(*videos, seed)
        abnormal, normal = (score(detector, points).mean() for points in videos)
        assert abnormal > normal
        if reference.calibrated_classifiers_[0].calibrators[0].a_ > 0:
            turned += 1
            plane, (slope, offset) = platt(videos)
            expected = expit(slope * plane.decision_function(scaled(videos)[0]) + offset)
            np.testing.assert_allclose(score(detector, np.concatenate(videos)), expected, atol=1e-4)
    assert turned >= 3


def test_the_seed_draws_the_folds_and_nothing_else() -> None:
    videos = random_videos(0, 14, 11, 20, 0.3)
    first, again, other = (fit_svm(*videos, seed).plane for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    assert not torch.equal(first.bias, other.bias)
    torch.testing.assert_close(
        first.weight / first.weight.norm(), other.weight / other.weight.norm(), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_the_unit_of_the_features_does_not_matter(factor: float) -> None:
    videos = random_videos(0, 8, 9, 5, 0.6)
    factor = np.float32(factor)
    original = score(fit_svm(*videos, 0), videos[0])
    rescaled = score(fit_svm(videos[0] * factor, videos[1] * factor, 0), videos[0] * factor)
    np.testing.assert_allclose(rescaled, original, atol=1e-3)


@pytest.mark.parametrize("number", [1, 4])
def test_videos_that_are_all_the_same_score_one_half(number: int) -> None:
    same = np.ones((number, 6), np.float32)
    np.testing.assert_allclose(score(fit_svm(same, same, 0), same), 0.5, atol=1e-6)


def test_the_detector_is_ready_to_score_and_to_be_saved() -> None:
    detector = fit_svm(*random_videos(0, 3, 3, 4, 1.0), 0)
    assert isinstance(detector, SVM)
    assert not detector.training
    assert detector.feature_dim == 4
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in detector.state_dict().items()} == {
        "plane.weight": ((1, 4), torch.float32),
        "plane.bias": ((1,), torch.float32),
    }


def test_what_cannot_be_fitted_is_refused() -> None:
    some, none = np.zeros((2, 3), np.float32), np.zeros((0, 3), np.float32)
    with pytest.raises(ValueError, match="2 abnormal and 0 normal"):
        fit_svm(some, none, 0)
    with pytest.raises(ValueError, match="0 abnormal and 2 normal"):
        fit_svm(none, some, 0)
    with pytest.raises(ValueError, match="must match"):
        fit_svm(some, np.zeros((2, 4), np.float32), 0)
    with pytest.raises(ValueError, match="NaN"):
        fit_svm(some, np.full((2, 3), np.nan, np.float32), 0)
