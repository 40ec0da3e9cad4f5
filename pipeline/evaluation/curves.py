"""Curves over thresholds, averaged over the seeds of a run (Fawcett, "An introduction to ROC analysis", Pattern
Recognition Letters 2006, section 8). Pure functions of scores and truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .metrics import Roc, ScoredVideo

Curve = NDArray[np.float64]


def mean_roc(curves: Sequence[Roc]) -> tuple[Curve, Curve, Curve | None]:
    """The mean of ROC curves at the same false positive rate: Fawcett's vertical averaging.

    It is exact: between two of the points returned every curve is straight.

    Returns:
        False positive rates ``(points,)`` in order, from 0 to 1, each twice; the mean true positive rate at each, lower
        and upper end of where curves rise vertically; and its sample standard deviation, None for a single curve.
    """
    grid = np.unique(np.concatenate([curve.false_positive_rate for curve in curves]))
    ends = np.empty((len(curves), len(grid), 2))
    for row, curve in zip(ends, curves, strict=True):
        # Where a rate comes several times, `interp` takes the last: the upper end, or backwards the lower one.
        row[:, 0] = np.interp(-grid, -curve.false_positive_rate[::-1], curve.true_positive_rate[::-1])
        row[:, 1] = np.interp(grid, curve.false_positive_rate, curve.true_positive_rate)
    rates = ends.reshape(len(curves), -1)
    spread = rates.std(axis=0, ddof=1) if len(curves) > 1 else None
    return np.repeat(grid, 2), rates.mean(axis=0), spread


def mean_trade_off(test_sets: Sequence[Sequence[ScoredVideo]]) -> tuple[Curve, Curve]:
    """False alarm rate on normal videos and true positive rate, averaged at every threshold that changes either.

    Fawcett's threshold averaging: what two seeds do at one threshold becomes one point, so the mean of their rates at
    0.5 lies on the curve.

    Args:
        test_sets: what each seed made of the test videos; at least one normal video and one anomalous frame.

    Returns:
        Both rates, fractions of 1, ``(thresholds,)``, from the highest threshold to the lowest: from 0 to 1.
    """
    pools = [alarms_and_hits(videos) for videos in test_sets]
    thresholds = np.unique(np.concatenate([scores for pair in pools for scores in pair]))
    thresholds = np.append(np.float32(np.inf), thresholds[::-1])
    alarms, hits = (np.mean([_share_from(pair[kind], thresholds) for pair in pools], axis=0) for kind in (0, 1))
    return alarms, hits


def alarms_and_hits(videos: Sequence[ScoredVideo]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scores of all frames of normal videos, and those of all anomalous frames, both sorted."""
    normal = np.concatenate([video.scores for video in videos if not video.abnormal])
    anomalous = np.concatenate([video.scores[video.truth] for video in videos])
    return np.sort(normal), np.sort(anomalous)


def _share_from(scores: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Curve:
    """The share of sorted scores that are not below each threshold."""
    return (len(scores) - np.searchsorted(scores, thresholds, side="left")) / len(scores)
