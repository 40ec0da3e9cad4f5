"""How far a figure can be trusted: bootstrap intervals over the test videos, mean and spread over the seeds.

Frames of one video are anything but independent, so whole videos are resampled (Efron, "Bootstrap methods: another look
at the jackknife", Annals of Statistics 1979; percentile intervals: Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .metrics import ScoredVideo


@dataclass(frozen=True)
class Interval:
    """Both ends of an interval, in the unit of the figure that it belongs to."""

    low: float
    high: float


def bootstrap_auc(videos: Sequence[ScoredVideo], samples: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the AUC over all frames, by resampling the test videos within their label.

    A resample without an anomalous or without a normal frame has no AUC. There are some only where abnormal videos lack
    anomalous frames (or normal videos frames); they count as 0 at the low end and as 1 at the high end, so that they
    widen the interval rather than vanish. A label with a single video never varies: with one video of each label the
    interval has no width, which tells nothing.

    Args:
        videos: the test set; finite scores.
        samples: number of resamples, 1 or more.
        seed: of the resamples; the same videos and seed give the same interval.
        level: confidence level in (0, 1).

    Returns:
        Fractions in [0, 1].

    Raises:
        UserError: the videos lack anomalous or normal frames altogether.
        ValueError: ``samples``, ``level`` or a score is out of range.
    """
    _check_defined(videos)
    aucs = weighted_auc(videos, video_weights(videos, samples, seed))
    return _percentiles(aucs, level, 0.0, 1.0)


def paired_difference(
    videos_a: Sequence[ScoredVideo],
    videos_b: Sequence[ScoredVideo],
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the AUC of ``videos_a`` less that of ``videos_b``, two runs on the same test set.

    Every resample draws the same videos for both runs, so that what makes a video hard for both cancels out. An
    interval above 0 speaks for run a. A resample without AUC counts as −1 and as 1; for the rest see `bootstrap_auc`.

    Args:
        videos_a: the test set as one run scored it.
        videos_b: the test set as another run scored it, in any order.
        samples: number of resamples, 1 or more.
        seed: of the resamples.
        level: confidence level in (0, 1).

    Returns:
        Differences of fractions, in [-1, 1].

    Raises:
        UserError: the runs differ in their videos, or in the truth about one, or have no AUC.
        ValueError: as in `bootstrap_auc`.
    """
    videos_b = _matched(videos_a, videos_b)
    _check_defined(videos_a)
    weights = video_weights(videos_a, samples, seed)
    differences = weighted_auc(videos_a, weights) - weighted_auc(videos_b, weights)
    return _percentiles(differences, level, -1.0, 1.0)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (over n − 1) of one figure from several seeds, in its unit.

    Returns:
        The spread is None for a single value: it is unknown then, not 0.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values, thus no mean")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def video_weights(videos: Sequence[ScoredVideo], samples: int, seed: int) -> NDArray[np.int64]:
    """How often each resample draws each video, ``(samples, videos)``.

    Drawn with replacement, as many abnormal and as many normal videos as there are.

    Raises:
        ValueError: less than one resample.
    """
    if samples < 1:
        raise ValueError(f"a bootstrap needs 1 resample or more, not {samples}")
    rng = np.random.default_rng(seed)
    abnormal = np.array([video.abnormal for video in videos], bool)
    weights = np.zeros((samples, len(videos)), np.int64)
    for members in (np.flatnonzero(~abnormal), np.flatnonzero(abnormal)):
        if len(members):
            drawn = members[rng.integers(len(members), size=(samples, len(members)))]
            np.add.at(weights, (np.arange(samples)[:, None], drawn), 1)
    return weights


def weighted_auc(videos: Sequence[ScoredVideo], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """The AUC over all frames when every video counts several times or not at all.

    With the pairs of `concordant_pairs`, U, and a resample's weights w, it is w'Uw over the number of all pairs of an
    anomalous and a normal frame. Sums of halves are exact below 2⁵² pairs, 50 000 times those of UCF-Crime's test set.

    Args:
        videos: the test set; finite scores.
        weights: how often each video counts, ``(samples, videos)``, 0 or more.

    Returns:
        ``(samples,)`` in [0, 1], NaN where no anomalous or no normal frame is left.

    Raises:
        ValueError: a score is not finite.
    """
    counts = weights.astype(np.float64)  # whole numbers: BLAS multiplies only floats, and these exactly
    anomalous = np.array([np.count_nonzero(video.truth) for video in videos], np.float64)
    normal = np.array([np.count_nonzero(~video.truth) for video in videos], np.float64)
    pairs = (counts @ anomalous) * (counts @ normal)
    concordant = ((counts @ concordant_pairs(videos)) * counts).sum(axis=1)  # (samples, videos) -> (samples,)
    return np.divide(concordant, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def concordant_pairs(videos: Sequence[ScoredVideo]) -> NDArray[np.float64]:
    """How many pairs of an anomalous frame of video i and a normal frame of video j have the anomalous one higher.

    Ties count one half, as in the Mann–Whitney statistic. Frames share their clip's score, so values are counted first.

    Returns:
        ``(videos, videos)``: anomalous frames along the rows, normal ones along the columns.

    Raises:
        ValueError: a score is not finite.
    """
    for video in videos:
        if not np.isfinite(video.scores).all():
            raise ValueError(f"{video.name}: a score is not finite")
    anomalous = [np.unique(video.scores[video.truth], return_counts=True) for video in videos]
    values, place = np.unique(np.concatenate([scores for scores, _ in anomalous]), return_inverse=True)
    owner = np.repeat(np.arange(len(videos)), [len(scores) for scores, _ in anomalous])
    frames = np.concatenate([counts for _, counts in anomalous])
    pairs = np.empty((len(videos), len(videos)))
    for column, video in enumerate(videos):
        scores, counts = np.unique(video.scores[~video.truth], return_counts=True)
        below = np.concatenate([[0], np.cumsum(counts)])
        left, right = (np.searchsorted(scores, values, side) for side in ("left", "right"))
        beaten = (below[left] + below[right]) / 2  # by each value: frames below it, and half of those level with it
        pairs[:, column] = np.bincount(owner, frames * beaten[place], minlength=len(videos))
    return pairs


def _check_defined(videos: Sequence[ScoredVideo]) -> None:
    anomalous = sum(np.count_nonzero(video.truth) for video in videos)
    normal = sum(len(video.truth) for video in videos) - anomalous
    if not anomalous or not normal:
        raise UserError(f"a test set of {anomalous} anomalous and {normal} normal frames has no AUC: it needs both")


def _matched(videos_a: Sequence[ScoredVideo], videos_b: Sequence[ScoredVideo]) -> list[ScoredVideo]:
    """``videos_b`` in the order of ``videos_a``."""
    by_name = {video.name: video for video in videos_b}
    odd = sorted(by_name.keys() ^ {video.name for video in videos_a})
    if odd:
        raise UserError(f"only runs on the same test videos can be compared; these differ in {', '.join(odd[:3])}")
    for video in videos_a:
        other = by_name[video.name]
        if video.abnormal != other.abnormal or not np.array_equal(video.truth, other.truth):
            raise UserError(
                f"only runs with the same ground truth can be compared; these differ in that of {video.name}"
            )
    return [by_name[video.name] for video in videos_a]


def _percentiles(values: NDArray[np.float64], level: float, lowest: float, highest: float) -> Interval:
    """The middle ``level`` of the values; NaN counts as the lowest of all below and as the highest of all above."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1: {level}")
    tail = (1 - level) / 2
    undefined = np.isnan(values)
    low = np.quantile(np.where(undefined, lowest, values), tail)
    high = np.quantile(np.where(undefined, highest, values), 1 - tail)
    return Interval(float(low), float(high))
