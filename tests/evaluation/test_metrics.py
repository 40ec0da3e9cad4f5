"""Metrics against slow, obvious definitions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from xelvad.errors import UserError
from xelvad.pipeline.evaluation.metrics import ScoredVideo, category_metrics, frame_metrics, frame_roc, rates_at
from xelvad.pipeline.evaluation.resampling import RESAMPLED, bootstrap_interval, resampled_metrics


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


def some_frames(name: str, abnormal: bool, truth: list[int]) -> ScoredVideo:
    scores = np.linspace(0.2, 0.9, len(truth)).astype(np.float32)
    return ScoredVideo(name, abnormal, scores, np.array(truth, bool))


NORMAL, MIXED = some_frames("n", False, [0, 0, 0]), some_frames("m", True, [0, 1, 0, 1])
EVERYWHERE, UNMARKED = some_frames("e", True, [1, 1, 1]), some_frames("u", True, [0, 0])
RATES = ("auc", "ap", "auc_abnormal", "far_normal", "tpr")


@pytest.mark.parametrize(
    ("videos", "defined"),
    [
        ([NORMAL, MIXED], set(RATES)),
        ([MIXED], {"auc", "ap", "tpr"}),
        ([MIXED, EVERYWHERE], {"auc", "ap", "tpr"}),
        ([NORMAL], {"far_normal"}),
        ([NORMAL, UNMARKED], {"far_normal"}),
        ([EVERYWHERE], {"tpr"}),
        ([NORMAL, EVERYWHERE], {"auc", "ap", "far_normal", "tpr"}),
        ([UNMARKED], set()),
    ],
)
def test_a_test_set_has_the_metrics_that_it_defines(videos: list[ScoredVideo], defined: set[str]) -> None:
    # Guards against a test set of abnormal videos alone, or of normal ones, being refused.
    metrics = frame_metrics(videos)
    assert {name for name in RATES if getattr(metrics, name) is not None} == defined
    assert not any(np.isnan(getattr(metrics, name)) for name in defined)
    assert set(resampled_metrics(videos)) == defined & set(RESAMPLED)
    assert (frame_roc(videos) is not None) == ("auc" in defined)
    for name in resampled_metrics(videos):
        interval = bootstrap_interval(videos, samples=20, figure=name)
        assert 0 <= interval.low <= getattr(metrics, name) <= interval.high <= 1
    scores, truth = (np.concatenate([getattr(video, part) for video in videos]) for part in ("scores", "truth"))
    if "auc" in defined:
        assert metrics.auc == pytest.approx(roc_auc_score(truth, scores))
        assert metrics.ap == pytest.approx(average_precision_score(truth, scores))
    if "tpr" in defined:
        assert metrics.tpr == pytest.approx(np.mean(scores[truth] >= 0.5))


@pytest.mark.parametrize("videos", [[], [some_frames("e", False, []), some_frames("f", True, [])]])
def test_without_a_single_frame_there_is_nothing_to_measure(videos: list[ScoredVideo]) -> None:
    with pytest.raises(UserError, match=f"a test set of {len(videos)} videos without a frame that counts"):
        frame_metrics(videos)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8, 1.31])
@pytest.mark.parametrize("ties", [False, True])
def test_rates_are_shares_of_the_frames_that_they_name(ties: bool, threshold: float) -> None:
    videos = random_videos(7, ties)
    rates = rates_at(videos, threshold)

    def share(chosen: Callable[[ScoredVideo, int], bool]) -> float:
        alarms = [
            bool(video.scores[frame] >= np.float32(threshold))
            for video in videos
            for frame in range(len(video.truth))
            if chosen(video, frame)
        ]
        return sum(alarms) / len(alarms)

    assert rates.threshold == threshold
    assert rates.far_normal == pytest.approx(share(lambda video, _: not video.abnormal))
    assert rates.far_all == pytest.approx(share(lambda video, frame: not video.truth[frame]))
    assert rates.far_abnormal == pytest.approx(share(lambda video, frame: video.abnormal and not video.truth[frame]))
    assert rates.tpr == pytest.approx(share(lambda video, frame: bool(video.truth[frame])))
    everywhere = np.concatenate([video.truth for video in videos])
    called = np.concatenate([video.scores for video in videos]) >= np.float32(threshold)
    assert rates.tpr == pytest.approx(recall_score(everywhere, called))
    assert rates.far_all == pytest.approx(1 - recall_score(~everywhere, ~called))


@pytest.mark.parametrize(
    ("videos", "undefined"),
    [
        ([NORMAL, EVERYWHERE], {"far_abnormal"}),
        ([MIXED], {"far_normal"}),
        ([MIXED, some_frames("empty", False, [])], {"far_normal"}),
        ([NORMAL, UNMARKED], {"tpr"}),
        ([NORMAL], {"far_abnormal", "tpr"}),
        ([EVERYWHERE], {"far_normal", "far_all", "far_abnormal"}),
        ([], {"far_normal", "far_all", "far_abnormal", "tpr"}),
    ],
)
def test_a_rate_of_no_frames_is_none(videos: list[ScoredVideo], undefined: set[str]) -> None:
    rates = rates_at(videos, 0.5)
    assert {name for name, value in vars(rates).items() if value is None} == undefined


def test_scores_and_truth_of_other_lengths_are_refused() -> None:
    with pytest.raises(UserError, match=r"cam1/a\.mp4: 4 scores for a ground truth of 5 frames"):
        ScoredVideo("cam1/a.mp4", True, np.zeros(4, np.float32), np.zeros(5, bool))


@pytest.mark.parametrize("ties", [False, True])
def test_categories_are_scored_over_their_own_videos(ties: bool) -> None:
    names = ["Fight", "Arson", "Fight", "Arson"]
    videos = [replace(video, category=name) for video, name in zip(random_videos(1, ties), names, strict=True)]
    videos += [replace(video, name=f"x{video.name}") for video in random_videos(2, ties)]  # without a category
    arson, fight = category_metrics(videos)
    own = [videos[1], videos[3]]
    scores, truth = np.concatenate([v.scores for v in own]), np.concatenate([v.truth for v in own])
    assert (arson.category, arson.videos, arson.frames, arson.undefined) == ("Arson", 2, len(scores), "")
    assert arson.auc == pytest.approx(roc_auc_score(truth, scores)) == pytest.approx(reference_auc(scores, truth))
    assert arson.ap == pytest.approx(average_precision_score(truth, scores))
    assert (fight.auc, fight.ap, fight.undefined) == (None, None, "no anomalous frames")


def test_a_category_without_both_kinds_of_frames_says_so() -> None:
    def only(truth: list[int]) -> tuple[float | None, float | None, str]:
        array = np.array(truth, bool)
        (found,) = category_metrics([ScoredVideo("v", True, np.zeros(len(array), np.float32), array, "c")])
        return found.auc, found.ap, found.undefined

    assert only([1, 1]) == (None, None, "no normal frames")
    assert only([0]) == (None, None, "no anomalous frames")
    assert only([]) == (None, None, "no frames")
    assert only([0, 1]) == (0.5, 0.5, "")
    assert category_metrics([]) == ()


def test_constant_scores_tell_nothing() -> None:
    truth = np.array([0, 1, 0, 0], bool)
    videos = [
        ScoredVideo("n", False, np.full(4, 0.3, np.float32), np.zeros(4, bool)),
        ScoredVideo("a", True, np.full(4, 0.3, np.float32), truth),
    ]
    metrics = frame_metrics(videos)
    assert (metrics.auc, metrics.auc_abnormal, metrics.ap) == (0.5, 0.5, pytest.approx(1 / 8))
    assert frame_roc(videos).false_positive_rate.tolist() == [0, 1]
    assert frame_roc(videos[:1]) is None


def test_one_frame_a_video_is_enough() -> None:
    frame = lambda name, score, truth: ScoredVideo(name, bool(truth), np.float32([score]), np.array([truth], bool))  # noqa: E731
    calm = ScoredVideo("c", True, np.float32([0.2]), np.zeros(1, bool))
    metrics = frame_metrics([frame("n", 0.1, 0), frame("a", 0.9, 1), calm])
    assert (metrics.auc, metrics.ap, metrics.auc_abnormal, metrics.frames) == (1, 1, 1, 3)
