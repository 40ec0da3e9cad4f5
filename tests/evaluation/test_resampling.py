"""Intervals against scikit-learn on the frames of every resample, and against a distribution whose AUC is known."""

import statistics

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from xelvad.errors import UserError
from xelvad.pipeline.evaluation.metrics import ScoredVideo
from xelvad.pipeline.evaluation.resampling import (
    bootstrap_interval,
    concordant_pairs,
    mean_and_spread,
    paired_difference,
    video_weights,
    weighted_ap,
    weighted_auc,
    weighted_auc_abnormal,
)


def video(name: str, abnormal: bool, scores: list[float], truth: list[int]) -> ScoredVideo:
    return ScoredVideo(name, abnormal, np.array(scores, np.float32), np.array(truth, bool))


def random_videos(seed: int, ties: bool, frames: int = 90, kinds: str = "nnnaaaa") -> list[ScoredVideo]:
    """Scores of clips of 16 frames; with ties also from clip to clip and from video to video."""
    rng = np.random.default_rng(seed)
    videos = []
    for index, kind in enumerate(kinds):
        length = int(rng.integers(20, frames))
        truth = np.zeros(length, bool)
        if kind == "a":
            truth[5 : int(rng.integers(6, length))] = True
        scores = np.repeat(rng.random(length // 16 + 1), 16)[:length] + 0.2 * truth
        videos.append(
            ScoredVideo(str(index), kind == "a", np.round(scores, 1 if ties else 7).astype(np.float32), truth)
        )
    return videos


def reference_auc(videos: list[ScoredVideo], weights: NDArray[np.int64]) -> float:
    """scikit-learn's, over the frames of every video as often as it was drawn."""
    drawn = [video for video, times in zip(videos, weights, strict=True) for _ in range(times)]
    return float(
        roc_auc_score(np.concatenate([video.truth for video in drawn]), np.concatenate([v.scores for v in drawn]))
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_auc_of_every_resample_is_scikit_learns(seed: int, ties: bool) -> None:
    videos = random_videos(seed, ties)
    weights = video_weights(videos, 40, seed)
    expected = [reference_auc(videos, row) for row in weights]
    np.testing.assert_allclose(weighted_auc(videos, weights), expected, rtol=1e-12)
    assert len(set(expected)) > 20
    interval = bootstrap_interval(videos, 40, seed, 0.8)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(expected, [0.1, 0.9])))


def drawn_frames(
    videos: list[ScoredVideo], weights: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    drawn = [video for video, times in zip(videos, weights, strict=True) for _ in range(times)]
    return np.concatenate([video.truth for video in drawn]), np.concatenate([video.scores for video in drawn])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_ap_of_every_resample_is_scikit_learns(seed: int, ties: bool) -> None:
    videos = random_videos(seed, ties)
    weights = video_weights(videos, 40, seed)
    expected = [average_precision_score(*drawn_frames(videos, row)) for row in weights]
    np.testing.assert_allclose(weighted_ap(videos, weights), expected, rtol=1e-12)
    assert len(set(expected)) > 20
    interval = bootstrap_interval(videos, 40, seed, 0.8, "ap")
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(expected, [0.1, 0.9])))


@pytest.mark.parametrize("ties", [False, True])
def test_the_auc_over_abnormal_videos_of_every_resample_is_scikit_learns(ties: bool) -> None:
    videos = random_videos(1, ties)
    abnormal = np.array([video.abnormal for video in videos])
    weights = video_weights(videos, 40, 1)
    expected = [roc_auc_score(*drawn_frames(videos, row * abnormal)) for row in weights]
    np.testing.assert_allclose(weighted_auc_abnormal(videos, weights), expected, rtol=1e-12)
    interval = bootstrap_interval(videos, 40, 1, 0.8, "auc_abnormal")
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(expected, [0.1, 0.9])))


def test_ap_of_degenerate_resamples() -> None:
    constant = [video("n", False, [0.5, 0.5], [0, 0]), video("a", True, [0.5, 0.5], [1, 0])]
    weights = np.array([[1, 1], [0, 1], [3, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(weighted_ap(constant, weights), [1 / 4, 1 / 2, 1 / 8, np.nan, np.nan])
    assert weighted_ap([video("a", True, [0.2], [1])], np.array([[2]])).tolist() == [1]
    empty = video("e", False, [], [])
    np.testing.assert_array_equal(weighted_ap([empty, constant[1]], np.array([[1, 1]])), [1 / 2])
    assert np.isnan(weighted_ap([empty], np.array([[1]]))).all()
    with pytest.raises(ValueError, match="b: a score is not finite"):
        weighted_ap([video("b", True, [np.inf], [1])], np.array([[1]]))


def test_pairs_are_whole_and_half_numbers() -> None:
    videos = [
        video("n", False, [0.2, 0.5, 0.5], [0, 0, 0]),
        video("a", True, [0.5, 0.1, 0.9], [1, 0, 1]),
        video("b", True, [0.2], [1]),
    ]
    assert concordant_pairs(videos).tolist() == [[0, 0, 0], [5, 2, 0], [0.5, 1, 0]]


def test_a_resample_draws_as_many_videos_of_each_label_as_there_are() -> None:
    videos = random_videos(0, False, kinds="anannn")
    weights = video_weights(videos, 2000, 3)
    abnormal = np.array([video.abnormal for video in videos])
    assert set(weights[:, abnormal].sum(axis=1)) == {2}
    assert set(weights[:, ~abnormal].sum(axis=1)) == {4}
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.1)  # binomial: deviation of the mean below 0.02
    np.testing.assert_allclose(weights[:, ~abnormal].var(axis=0), 0.75, atol=0.1)


def test_the_same_seed_gives_the_same_interval() -> None:
    videos = random_videos(1, False)
    assert bootstrap_interval(videos, seed=4) == bootstrap_interval(videos, seed=4)
    assert bootstrap_interval(videos, seed=4) != bootstrap_interval(videos, seed=5)
    wide, narrow = bootstrap_interval(videos, level=0.99), bootstrap_interval(videos, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_intervals_hold_the_true_auc_about_as_often_as_they_say() -> None:
    """Videos differ more than frames do: an interval from single frames would hold it far more rarely."""
    rng = np.random.default_rng(0)
    shift, spread, number = 1.5, 1.0, 25
    true = statistics.NormalDist().cdf(shift / np.sqrt(2 * (1 + spread**2)))  # frames of two different videos
    held = []
    for _ in range(200):
        videos = []
        for index in range(2 * number):
            abnormal = index < number
            scores = rng.normal(shift * abnormal + rng.normal(0, spread), 1, 40).astype(np.float32)
            videos.append(ScoredVideo(str(index), abnormal, scores, np.full(40, abnormal)))
        interval = bootstrap_interval(videos, 200, level=0.9)
        held.append(interval.low <= true <= interval.high)
    assert 0.82 < np.mean(held) < 0.96


def test_one_video_of_each_label_leaves_nothing_to_resample() -> None:
    videos = random_videos(2, True, kinds="na")
    interval = bootstrap_interval(videos, 50)
    assert interval.low == interval.high == pytest.approx(reference_auc(videos, np.ones(2, np.int64)))


def test_resamples_without_an_auc_widen_the_interval() -> None:
    """An abnormal video without anomalous frames: drawn alone, it leaves none. These resamples must not vanish."""
    videos = [
        video("n", False, [0.1, 0.2], [0, 0]),
        video("a", True, [0.9, 0.15], [1, 0]),
        video("b", True, [0.3, 0.3], [0, 0]),
    ]
    aucs = weighted_auc(videos, video_weights(videos, 400, 0))
    assert np.isnan(aucs).mean() == pytest.approx(0.25, abs=0.1)
    assert set(aucs[~np.isnan(aucs)]) == {1.0}
    interval = bootstrap_interval(videos, 400)
    assert (interval.low, interval.high) == (0, 1)
    difference = paired_difference(videos, videos, 400)
    assert (difference.low, difference.high) == (-1, 1)
    most = bootstrap_interval([*videos, *(video(str(i), True, [0.9], [1]) for i in range(6))], 400)
    assert (most.low, most.high) == (1, 1)  # without AUC: 1 in 8⁸


def test_the_difference_is_that_of_the_same_resamples() -> None:
    ours = random_videos(3, False)
    rng = np.random.default_rng(0)
    theirs = [
        ScoredVideo(v.name, v.abnormal, (v.scores + rng.normal(0, 0.1, len(v.scores))).astype(np.float32), v.truth)
        for v in ours
    ]
    weights = video_weights(ours, 50, 7)
    expected = [reference_auc(ours, row) - reference_auc(theirs, row) for row in weights]
    interval = paired_difference(ours, theirs[::-1], 50, 7, 0.9)  # the order does not matter
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(expected, [0.05, 0.95])))
    alone = bootstrap_interval(ours, 50, 7, 0.9)
    assert interval.high - interval.low < alone.high - alone.low
    same = paired_difference(ours, ours)
    assert (same.low, same.high) == (0, 0)


def test_runs_on_other_videos_or_another_truth_are_refused() -> None:
    videos = random_videos(0, False)
    with pytest.raises(UserError, match=r"same test videos .* differ in 6"):
        paired_difference(videos, videos[:-1])
    last = videos[-1]
    for other in (
        ScoredVideo(last.name, last.abnormal, last.scores, ~last.truth),
        ScoredVideo(last.name, not last.abnormal, last.scores, last.truth),
    ):
        with pytest.raises(UserError, match=r"same ground truth .* that of 6"):
            paired_difference(videos, [*videos[:-1], other])


def test_what_has_no_auc_has_no_interval() -> None:
    normal = video("n", False, [0.1, 0.2], [0, 0])
    with pytest.raises(UserError, match="0 anomalous and 2 normal frames"):
        bootstrap_interval([normal])
    with pytest.raises(UserError, match="1 anomalous and 0 normal frames"):
        paired_difference([video("a", True, [0.1], [1])], [video("a", True, [0.1], [1])])
    with pytest.raises(UserError, match="0 anomalous and 0 normal frames"):
        bootstrap_interval([])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_are_fractions(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval(random_videos(0, False), 5, level=level)


def test_what_is_no_number_is_refused() -> None:
    broken = [video("n", False, [0.1], [0]), video("a", True, [np.nan], [1])]
    with pytest.raises(ValueError, match="a: a score is not finite"):
        bootstrap_interval(broken)
    with pytest.raises(ValueError, match="1 resample or more"):
        bootstrap_interval(random_videos(0, False), 0)


def test_mean_and_spread_over_seeds() -> None:
    values = [0.81, 0.84, 0.79]
    mean, spread = mean_and_spread(values)
    assert mean == pytest.approx(np.mean(values))
    assert spread == pytest.approx(np.std(values, ddof=1))
    assert mean_and_spread([0.7, 0.7, 0.7])[1] == 0
    assert mean_and_spread([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_and_spread([])


RESAMPLED = {
    "auc": lambda videos, row: roc_auc_score(*drawn_frames(videos, row)),
    "ap": lambda videos, row: average_precision_score(*drawn_frames(videos, row)),
    "auc_abnormal": lambda videos, row: roc_auc_score(*drawn_frames(videos, row * [v.abnormal for v in videos])),
}


def disturbed(videos: list[ScoredVideo], seed: int, noise: float) -> list[ScoredVideo]:
    rng = np.random.default_rng(seed)
    return [
        ScoredVideo(v.name, v.abnormal, (v.scores + rng.normal(0, noise, len(v.scores))).astype(np.float32), v.truth)
        for v in videos
    ]


@pytest.mark.parametrize("figure", RESAMPLED)
def test_value_and_p_value_are_those_counted_by_hand(figure: str) -> None:
    ours = random_videos(3, False)
    theirs = disturbed(ours, 0, 0.15)
    measure = RESAMPLED[figure]
    differences = [measure(ours, row) - measure(theirs, row) for row in video_weights(ours, 60, 7)]
    found = paired_difference(ours, theirs, 60, 7, figure=figure)
    everything = np.ones(len(ours), np.int64)
    assert found.value == pytest.approx(measure(ours, everything) - measure(theirs, everything))
    above, below = sum(d >= 0 for d in differences), sum(d <= 0 for d in differences)
    assert found.p_value == pytest.approx(min(1, 2 * (1 + min(above, below)) / 61))
    turned = paired_difference(theirs, ours, 60, 7, figure=figure)
    assert (turned.value, turned.p_value) == pytest.approx((-found.value, found.p_value))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_p_values_of_equal_runs_and_of_clearly_different_ones() -> None:
    videos = random_videos(0, False)
    assert paired_difference(videos, videos, 50).p_value == 1
    perfect = [ScoredVideo(v.name, v.abnormal, v.truth.astype(np.float32), v.truth) for v in videos]
    clear = paired_difference(perfect, videos, 199)
    assert clear.value > 0
    assert clear.p_value == pytest.approx(2 / 200), "as small as so many resamples allow, never 0"


def test_resamples_without_the_figure_count_for_no_difference() -> None:
    videos = [
        video("n", False, [0.1, 0.2], [0, 0]),
        video("a", True, [0.9, 0.15], [1, 0]),
        video("b", True, [0.3, 0.3], [0, 0]),
    ]
    worse = [videos[0], video("a", True, [0.12, 0.15], [1, 0]), videos[2]]
    found = paired_difference(videos, worse, 400)
    assert found.value > 0
    assert found.p_value == pytest.approx(0.5, abs=0.15), "a quarter of the resamples lack anomalous frames"


def test_runs_that_differ_by_chance_alone_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(100):
        truths = [np.arange(30) < 10 * (index % 2) for index in range(30)]
        runs = [
            [
                ScoredVideo(str(index), index % 2 == 1, (0.5 * truth + rng.normal(0, 1, 30)).astype(np.float32), truth)
                for index, truth in enumerate(truths)
            ]
            for _ in range(2)
        ]
        p_values.append(paired_difference(*runs, samples=200).p_value)
    assert 0.03 < np.mean(np.array(p_values) < 0.1) < 0.2
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.15)


def test_figures_of_abnormal_videos_need_both_kinds_of_frames_there() -> None:
    videos = [video("n", False, [0.1, 0.2], [0, 0]), video("a", True, [0.3], [1])]
    assert bootstrap_interval(videos, 10).high == 1
    with pytest.raises(UserError, match="abnormal videos of 1 anomalous and 0 normal frames"):
        bootstrap_interval(videos, 10, figure="auc_abnormal")
