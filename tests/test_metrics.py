"""Metrics against slow, obvious definitions."""

import numpy as np
import pytest
from numpy.typing import NDArray
from xelvad.errors import UserError
from xelvad.pipeline.metrics import ScoredVideo, frame_metrics, frame_roc


def reference_auc(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """The probability that an anomalous frame scores higher than a normal one, ties counting half."""
    wins = [float(a > n) + 0.5 * float(a == n) for a in scores[truth] for n in scores[~truth]]
    return float(np.mean(wins))


def reference_ap(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """The sum over thresholds of precision times the step in recall."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        recall = truth[found].sum() / truth.sum()
        total += (recall - recall_before) * truth[found].mean()
        recall_before = recall
    return float(total)


def random_videos(seed: int, ties: bool) -> list[ScoredVideo]:
    rng = np.random.default_rng(seed)
    videos = []
    for index, frames in enumerate([1, 17, 40, 33]):
        abnormal = index % 2 == 1
        truth = np.zeros(frames, bool)
        if abnormal:
            truth[3:11] = True
        scores = rng.random(frames).astype(np.float32) + 0.3 * truth
        videos.append(
            ScoredVideo(str(index), abnormal, (np.round(scores, 1) if ties else scores).astype(np.float32), truth)
        )
    return videos


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_every_metric_is_its_definition(seed: int, ties: bool) -> None:
    videos = random_videos(seed, ties)
    metrics = frame_metrics(videos)
    scores = np.concatenate([v.scores for v in videos])
    truth = np.concatenate([v.truth for v in videos])
    assert metrics.auc == pytest.approx(reference_auc(scores, truth))
    assert metrics.ap == pytest.approx(reference_ap(scores, truth))
    abnormal = [v for v in videos if v.abnormal]
    assert metrics.auc_abnormal == pytest.approx(
        reference_auc(np.concatenate([v.scores for v in abnormal]), np.concatenate([v.truth for v in abnormal]))
    )
    normal = [s for v in videos if not v.abnormal for s in v.scores]
    assert metrics.far_normal == pytest.approx(sum(s >= 0.5 for s in normal) / len(normal))
    assert metrics.tpr == pytest.approx(sum(s >= 0.5 for s in scores[truth]) / truth.sum())
    assert (metrics.videos, metrics.frames) == (4, len(scores))


def test_perfect_and_inverted_scores() -> None:
    truth = np.array([0, 0, 1, 1], bool)
    normal = ScoredVideo("n", False, np.zeros(3, np.float32), np.zeros(3, bool))
    perfect = frame_metrics([normal, ScoredVideo("a", True, truth.astype(np.float32), truth)])
    assert (perfect.auc, perfect.ap, perfect.auc_abnormal, perfect.far_normal, perfect.tpr) == (1, 1, 1, 0, 1)
    inverted = frame_metrics([normal, ScoredVideo("a", True, 1 - truth.astype(np.float32), truth)])
    assert inverted.auc_abnormal == 0
    assert inverted.tpr == 0


def test_the_area_under_the_roc_curve_is_the_auc() -> None:
    videos = random_videos(5, ties=True)
    roc = frame_roc(videos)
    assert np.trapezoid(roc.true_positive_rate, roc.false_positive_rate) == pytest.approx(frame_metrics(videos).auc)
    assert (roc.false_positive_rate[0], roc.true_positive_rate[-1]) == (0, 1)


def test_undefined_metrics_are_a_clear_message_and_not_nan() -> None:
    normal = ScoredVideo("n", False, np.zeros(3, np.float32), np.zeros(3, bool))
    everywhere = ScoredVideo("a", True, np.zeros(3, np.float32), np.ones(3, bool))
    with pytest.raises(UserError, match="1 normal and 0 abnormal"):
        frame_metrics([normal])
    with pytest.raises(UserError, match="0 normal and 1 abnormal"):
        frame_metrics([everywhere])
    with pytest.raises(UserError, match="both normal and anomalous frames"):
        frame_metrics([normal, everywhere])
