"""How far a figure can be trusted: bootstrap intervals over the test videos, mean and spread over the seeds.

Frames of one video are anything but independent, so whole videos are resampled (Efron, "Bootstrap methods: another look
at the jackknife", Annals of Statistics 1979; percentile intervals: Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from .metrics import ScoredVideo

ResampledMetric = Literal["auc", "ap", "auc_abnormal"]


@dataclass(frozen=True)
class Interval:
    """Both ends of an interval, in the unit of the figure that it belongs to."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """How far two runs on the same test set lie apart: the interval, the difference itself, and what chance gives.

    Attributes:
        value: the figure of the one less that of the other, on the test set as it is, in [-1, 1].
        p_value: two-sided, in (0, 1]: twice the share of resamples on the rarer side of no difference.
    """

    value: float
    p_value: float


def bootstrap_interval(
    videos: Sequence[ScoredVideo],
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    figure: ResampledMetric = "auc",
) -> Interval:
    """Percentile interval of a figure over all frames, by resampling the test videos within their label.

    A resample without an anomalous or without a normal frame has no AUC. There are some only where abnormal videos lack
    anomalous frames (or normal videos frames); they count as 0 at the low end and as 1 at the high end, so that they
    widen the interval rather than vanish. A label with a single video never varies: with one video of each label the
    interval has no width, which tells nothing.

    Args:
        videos: the test set; finite scores.
        samples: number of resamples, 1 or more.
        seed: of the resamples; the same videos and seed give the same interval.
        level: confidence level in (0, 1).
        figure: which; as in `FrameMetrics`.

    Returns:
        Fractions in [0, 1].

    Raises:
        UserError: the videos that the figure speaks of lack anomalous or normal frames altogether.
        ValueError: ``samples``, ``level`` or a score is out of range.
    """
    _check_defined(videos, figure)
    return Interval(*_percentiles(RESAMPLED[figure](videos, video_weights(videos, samples, seed)), level, 0.0, 1.0))


def paired_difference(
    videos_a: Sequence[ScoredVideo],
    videos_b: Sequence[ScoredVideo],
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    figure: ResampledMetric = "auc",
) -> Difference:
    """A figure of ``videos_a`` less that of ``videos_b``, two runs on the same test set, with interval and p-value.

    Every resample draws the same videos for both runs, so that what makes a video hard for both cancels out. An
    interval above 0 speaks for run a. A resample without the figure counts as −1 and as 1, and for no difference; for
    the rest see `bootstrap_interval`. The p-value is the achieved significance level that belongs to percentile
    intervals (Efron and Tibshirani, chapter 15), with the observed test set as one more resample, so that it is never 0
    (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 4.2).

    Args:
        videos_a: the test set as one run scored it.
        videos_b: the test set as another run scored it, in any order.
        samples: number of resamples, 1 or more.
        seed: of the resamples.
        level: confidence level in (0, 1).
        figure: which; as in `FrameMetrics`.

    Raises:
        UserError: the runs differ in their videos, or in the truth about one, or the figure is not defined.
        ValueError: as in `bootstrap_interval`.
    """
    videos_b = _matched(videos_a, videos_b)
    _check_defined(videos_a, figure)
    weights = np.concatenate([np.ones((1, len(videos_a)), np.int64), video_weights(videos_a, samples, seed)])
    value, *resampled = RESAMPLED[figure](videos_a, weights) - RESAMPLED[figure](videos_b, weights)
    differences = np.array(resampled)
    rarer = min(np.count_nonzero(~(differences > 0)), np.count_nonzero(~(differences < 0)))  # NaN is in both
    p_value = min(1.0, 2 * (1 + rarer) / (1 + samples))
    low, high = _percentiles(differences, level, -1.0, 1.0)
    return Difference(low, high, float(value), p_value)


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


def over_seeds(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """As `mean_and_spread`; None where a seed does not have the figure."""
    known = [value for value in values if value is not None]
    return (None, None) if len(known) < len(values) else mean_and_spread(known)


def resampled_metrics(videos: Sequence[ScoredVideo]) -> tuple[ResampledMetric, ...]:
    """Those of `RESAMPLED` that a test set defines, as in `FrameMetrics`."""
    only_abnormal = all(video.abnormal for video in videos)
    return tuple(
        name
        for name in RESAMPLED
        if all(_kinds_of_frames(videos, name)) and not (only_abnormal and name == "auc_abnormal")
    )


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


def weighted_auc_abnormal(videos: Sequence[ScoredVideo], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """As `weighted_auc`, over the frames of abnormal videos only."""
    abnormal = np.array([video.abnormal for video in videos], bool)
    return weighted_auc([video for video in videos if video.abnormal], weights[:, abnormal])


def weighted_ap(videos: Sequence[ScoredVideo], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """The average precision over all frames when every video counts several times or not at all.

    Frames of one video with one score count together, so that a resample costs as much as there are clips.

    Args:
        videos: the test set; finite scores.
        weights: how often each video counts, ``(samples, videos)``, 0 or more.

    Returns:
        ``(samples,)`` in [0, 1], NaN where no anomalous frame is left.

    Raises:
        ValueError: a score is not finite.
    """
    _check_finite(videos)
    counted = [np.unique(video.scores, return_inverse=True, return_counts=True) for video in videos]
    scores = np.concatenate([values for values, _, _ in counted])
    order = np.argsort(-scores, kind="stable")
    owner = np.repeat(np.arange(len(videos)), [len(values) for values, _, _ in counted])[order]
    frames = np.concatenate([counts for _, _, counts in counted])[order].astype(np.float64)
    anomalous = [
        np.bincount(place[video.truth], minlength=len(values))
        for video, (values, place, _) in zip(videos, counted, strict=True)
    ]
    hits = np.concatenate(anomalous)[order].astype(np.float64)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)[: len(order)])  # of each score
    return np.array([_ap(row[owner], hits, frames, last) for row in weights.astype(np.float64)])


def _ap(
    weights: NDArray[np.float64], hits: NDArray[np.float64], frames: NDArray[np.float64], last: NDArray[np.int64]
) -> float:
    """The sum over thresholds of precision times the step in recall; NaN without hits."""
    found, called = np.cumsum(weights * hits)[last], np.cumsum(weights * frames)[last]
    if not len(last) or not found[-1]:
        return np.nan
    steps = np.diff(found, prepend=0)
    return float(np.sum(steps * found / np.maximum(called, 1)) / found[-1])


def concordant_pairs(videos: Sequence[ScoredVideo]) -> NDArray[np.float64]:
    """How many pairs of an anomalous frame of video i and a normal frame of video j have the anomalous one higher.

    Ties count one half, as in the Mann–Whitney statistic. Frames share their clip's score, so values are counted first.

    Returns:
        ``(videos, videos)``: anomalous frames along the rows, normal ones along the columns.

    Raises:
        ValueError: a score is not finite.
    """
    _check_finite(videos)
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


RESAMPLED: dict[ResampledMetric, Callable[[Sequence[ScoredVideo], NDArray[np.int64]], NDArray[np.float64]]] = {
    "auc": weighted_auc,
    "ap": weighted_ap,
    "auc_abnormal": weighted_auc_abnormal,
}


def _check_finite(videos: Sequence[ScoredVideo]) -> None:
    for video in videos:
        if not np.isfinite(video.scores).all():
            raise ValueError(f"{video.name}: a score is not finite")


def _check_defined(videos: Sequence[ScoredVideo], figure: ResampledMetric) -> None:
    anomalous, normal = _kinds_of_frames(videos, figure)
    if not anomalous or not normal:
        which = "abnormal videos" if figure == "auc_abnormal" else "a test set"
        raise UserError(f"{which} of {anomalous} anomalous and {normal} normal frames: AUC and AP need both")


def _kinds_of_frames(videos: Sequence[ScoredVideo], figure: ResampledMetric) -> tuple[int, int]:
    """How many anomalous and how many normal frames a figure speaks of."""
    videos = [video for video in videos if video.abnormal or figure != "auc_abnormal"]
    anomalous = sum(int(np.count_nonzero(video.truth)) for video in videos)
    return anomalous, sum(len(video.truth) for video in videos) - anomalous


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


def _percentiles(values: NDArray[np.float64], level: float, lowest: float, highest: float) -> tuple[float, float]:
    """The middle ``level`` of the values; NaN counts as the lowest of all below and as the highest of all above."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1: {level}")
    tail = (1 - level) / 2
    undefined = np.isnan(values)
    low = np.quantile(np.where(undefined, lowest, values), tail)
    high = np.quantile(np.where(undefined, highest, values), 1 - tail)
    return float(low), float(high)
