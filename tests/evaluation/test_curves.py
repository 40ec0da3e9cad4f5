"""Curves averaged over seeds, against a threshold at a time and a rate at a time."""

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.pipeline.evaluation.curves import mean_roc, mean_trade_off
from xelvad.pipeline.evaluation.metrics import ScoredVideo, frame_metrics, frame_roc

FRAMES = (40, 25, 33, 60)  # of two normal and two abnormal videos


def made_up_set(seed: int, levels: int) -> list[ScoredVideo]:
    """Four videos with scores of so many values, in which anomalous frames score higher on average."""
    rng = np.random.default_rng(seed)
    videos = []
    for number, frames in enumerate(FRAMES):
        truth = np.zeros(frames, bool)
        truth[5 : 5 + 10 * (number // 2)] = number > 1
        scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.3), 0, 1)
        scores = (np.round(scores * levels) / levels).astype(np.float32)
        videos.append(ScoredVideo(f"{number}.mp4", number > 1, scores, truth))
    return videos


def ends_at(videos: list[ScoredVideo], fpr: float) -> tuple[float, float]:
    """Both ends of a ROC curve at a false positive rate, by its definition: lines between one point a threshold."""
    scores = np.concatenate([video.scores for video in videos])
    truth = np.concatenate([video.truth for video in videos])
    points = [(0.0, 0.0)]
    points += [
        (float(np.mean(scores[~truth] >= threshold)), float(np.mean(scores[truth] >= threshold)))
        for threshold in sorted(set(scores.tolist()), reverse=True)
    ]
    at = [y for x, y in points if abs(x - fpr) < 1e-12]
    if at:
        return min(at), max(at)
    (left, low), (right, high) = max(p for p in points if p[0] < fpr), min(p for p in points if p[0] > fpr)
    return (low + (high - low) * (fpr - left) / (right - left),) * 2


@pytest.mark.parametrize("seeds", [1, 2, 4])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_roc_curves_are_averaged_at_each_false_positive_rate(seeds: int, levels: int) -> None:
    sets = [made_up_set(seed, levels) for seed in range(seeds)]
    grid, mean, spread = mean_roc([frame_roc(videos) for videos in sets])
    assert (grid[0], mean[0], grid[-1], mean[-1]) == (0, 0, 1, 1)
    assert (np.diff(grid[::2]) > 0).all()
    np.testing.assert_array_equal(grid[::2], grid[1::2])
    ends = np.array([[ends_at(videos, rate) for videos in sets] for rate in grid[::2]])  # (rates, seeds, 2)
    expected = ends.swapaxes(1, 2).reshape(-1, seeds)
    np.testing.assert_allclose(mean, expected.mean(axis=1), atol=1e-12)
    if spread is None:
        assert seeds == 1
    else:
        np.testing.assert_allclose(spread, expected.std(axis=1, ddof=1), atol=1e-12)


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_the_area_under_the_mean_is_the_mean_of_the_areas(levels: int) -> None:
    """As it must be of an exact vertical average, and is not of one on a coarse grid."""
    sets = [made_up_set(seed, levels) for seed in range(3)]
    grid, mean, _ = mean_roc([frame_roc(videos) for videos in sets])
    assert np.trapezoid(mean, grid) == pytest.approx(np.mean([frame_metrics(videos).auc for videos in sets]))


def rates(videos: list[ScoredVideo], threshold: float) -> tuple[float, float]:
    normal = [score for video in videos if not video.abnormal for score in video.scores]
    hits: NDArray = np.concatenate([video.scores[video.truth] for video in videos])
    return sum(score >= threshold for score in normal) / len(normal), float(np.mean(hits >= threshold))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_false_alarms_and_hits_are_averaged_at_each_threshold(seeds: int, levels: int) -> None:
    sets = [made_up_set(seed, levels) for seed in range(seeds)]
    alarms, hits = mean_trade_off(sets)
    values = {
        score
        for videos in sets
        for video in videos
        for score in video.scores[video.truth if video.abnormal else slice(None)].tolist()
    }
    thresholds = [np.inf, *sorted(values, reverse=True)]
    expected = [np.mean([rates(videos, threshold) for videos in sets], axis=0) for threshold in thresholds]
    np.testing.assert_allclose(np.stack([alarms, hits], axis=1), expected, atol=1e-12)
    assert (alarms[0], hits[0], alarms[-1], hits[-1]) == (0, 0, 1, 1)
