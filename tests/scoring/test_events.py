"""Events against loops that look at one frame, one event, one threshold at a time."""

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.scoring.config import EventConfig
from xelvad.pipeline.scoring.events import IOUS, Event, event_metrics, find_events

Spans = list[list[tuple[int, int]]]


def events_by_hand(scores: NDArray[np.float32], threshold: float, config: EventConfig) -> list[tuple[int, int, float]]:
    low = np.float32(config.release * threshold)
    stretches: list[list[int]] = []
    for frame, score in enumerate(scores):
        if score >= low:
            if stretches and stretches[-1][-1] == frame - 1:
                stretches[-1].append(frame)
            else:
                stretches.append([frame])
    kept = [stretch for stretch in stretches if any(scores[frame] >= np.float32(threshold) for frame in stretch)]
    merged: list[list[int]] = []
    for stretch in kept:
        between = stretch[0] - merged[-1][-1] - 1 if merged else 0
        if merged and between <= config.gap:
            merged[-1] += stretch
        else:
            merged.append(list(stretch))
    return [(part[0], part[-1] + 1, max(float(scores[frame]) for frame in part)) for part in merged]


@pytest.mark.parametrize("config", [EventConfig(), EventConfig(0.5), EventConfig(1, 3), EventConfig(0.7, 20)], ids=str)
@pytest.mark.parametrize("frames", [0, 1, 2, 16, 17, 300])
@pytest.mark.parametrize("seed", range(3))
def test_events_are_those_that_a_loop_over_frames_finds(seed: int, frames: int, config: EventConfig) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(frames), 1).astype(np.float32)
    for threshold in (0.1, 0.5, 0.9, 1.0, 1.5):
        found = find_events(scores, threshold, config)
        assert [(event.start, event.end, event.score) for event in found] == events_by_hand(scores, threshold, config)


def test_hysteresis_and_merging() -> None:
    scores = np.array([0, 0.3, 0.6, 0.3, 0.6, 0, 0.6, 0.3, 0, 0.3, 0], np.float32)
    spans = lambda config: [(event.start, event.end) for event in find_events(scores, 0.5, config)]  # noqa: E731
    assert spans(EventConfig()) == [(2, 3), (4, 5), (6, 7)]
    assert spans(EventConfig(release=0.5)) == [(1, 5), (6, 8)]
    assert spans(EventConfig(release=0.5, gap=1)) == [(1, 8)]
    assert spans(EventConfig(gap=1)) == [(2, 7)]


def test_constant_scores_are_one_event_or_none() -> None:
    scores = np.full(40, 0.5, np.float32)
    assert find_events(scores, 0.5) == [Event(0, 40, 0.5)]
    assert find_events(scores, float(np.nextafter(np.float32(0.5), np.float32(1)))) == []


@pytest.mark.parametrize(("release", "gap"), [(0, 0), (1.1, 0), (-1, 0), (1, -1)])
def test_impossible_events_are_refused(release: float, gap: int) -> None:
    with pytest.raises(UserError, match=r"events\."):
        EventConfig(release, gap)


def overlap(event: Event, span: tuple[int, int]) -> float:
    """Intersection over union of two sets of frames."""
    ours, theirs = set(range(event.start, event.end)), set(range(*span))
    return len(ours & theirs) / len(ours | theirs)


def hits_by_hand(found: list[list[Event]], annotated: Spans, iou: float) -> list[tuple[float, bool]]:
    """Score of every event and whether it is right: one list over all videos, best first, spans taken one by one."""
    ranked = sorted(
        ((event, video) for video, events in enumerate(found) for event in events),
        key=lambda pair: (-pair[0].score, pair[0].start, pair[0].end),
    )
    free = {(video, span) for video, spans in enumerate(annotated) for span in spans}
    hits = []
    for event, video in ranked:
        candidates = sorted((s for v, s in free if v == video), key=lambda s: (-overlap(event, s), s))
        right = bool(candidates) and overlap(event, candidates[0]) >= iou
        if right:
            free.remove((video, candidates[0]))
        hits.append((event.score, right))
    return hits


def ap_by_hand(hits: list[tuple[float, bool]], annotated: int) -> float:
    """The area under the precision that is reached at this recall or a higher one."""
    points = []
    for threshold in sorted({score for score, _ in hits}, reverse=True):
        called = [right for score, right in hits if score >= threshold]
        points.append((sum(called) / annotated, sum(called) / len(called)))
    area, before = 0.0, 0.0
    for recall in sorted({recall for recall, _ in points}):
        area += (recall - before) * max(precision for other, precision in points if other >= recall)
        before = recall
    return area


def random_case(seed: int, ties: bool) -> tuple[list[list[Event]], Spans]:
    rng = np.random.default_rng(seed)
    found, annotated = [], []
    for video in range(6):
        borders = np.sort(rng.choice(120, 12, replace=False)).tolist()
        spans = [(borders[i], borders[i + 1]) for i in range(0, 12, 4)][: video % 4]
        events = []
        for start in rng.choice(100, int(rng.integers(0, 8)), replace=False).tolist():
            score = float(rng.random())
            events.append(Event(start, start + int(rng.integers(1, 30)), round(score, 1) if ties else score))
        found.append(events + [Event(a, b + 2, round(rng.random(), 1)) for a, b in spans[:1]])
        annotated.append(spans)
    return found, annotated


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_precision_recall_and_ap_are_those_counted_by_hand(seed: int, ties: bool) -> None:
    found, annotated = random_case(seed, ties)
    metrics = event_metrics(found, annotated)
    total = sum(map(len, annotated))
    assert (metrics.found, metrics.annotated, metrics.ious) == (sum(map(len, found)), total, IOUS)
    assert metrics.precision is not None
    for place, iou in enumerate(IOUS):
        hits = hits_by_hand(found, annotated, iou)
        right = sum(hit for _, hit in hits)
        assert metrics.precision[place] == pytest.approx(right / len(hits))
        assert metrics.recall[place] == pytest.approx(right / total)
        assert metrics.ap[place] == pytest.approx(ap_by_hand(hits, total))
    assert metrics.mean_ap == pytest.approx(np.mean(metrics.ap))
    assert metrics.recall[0] > 0, "a case in which nothing is found tests nothing"


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_videos_and_of_events_makes_no_difference(seed: int) -> None:
    found, annotated = random_case(seed, ties=True)
    turned = event_metrics([events[::-1] for events in found[::-1]], annotated[::-1])
    assert turned == event_metrics(found, annotated)


def test_perfect_and_missing_events() -> None:
    spans: Spans = [[(3, 9), (20, 30)], []]
    perfect = event_metrics([[Event(3, 9, 0.9), Event(20, 30, 0.8)], []], spans)
    assert perfect.precision == perfect.recall == perfect.ap == (1.0,) * 5
    nothing = event_metrics([[], []], spans)
    assert (nothing.precision, nothing.recall, nothing.mean_ap) == (None, (0.0,) * 5, 0.0)
    wrong = event_metrics([[], [Event(3, 9, 0.9)]], spans)
    assert wrong.precision == wrong.ap == (0.0,) * 5


def test_an_annotated_event_is_found_once() -> None:
    twice = event_metrics([[Event(0, 10, 0.9), Event(0, 10, 0.8)]], [[(0, 10)]])
    assert twice.precision == (0.5,) * 5
    assert twice.recall == twice.ap == (1.0,) * 5
    # The better event takes the span that it overlaps most and leaves the other to the next.
    both = event_metrics([[Event(0, 12, 0.9), Event(0, 10, 0.8)]], [[(0, 10), (10, 21)]], [0.05])
    assert both.recall == (0.5,)


def test_ious_at_the_limit_count() -> None:
    assert event_metrics([[Event(0, 5, 0.9)]], [[(0, 10)]]).recall == (1.0,) * 5  # an IoU of exactly 0.5
    assert event_metrics([[Event(0, 1, 0.9)]], [[(0, 10)]]).recall == (1.0, 0.0, 0.0, 0.0, 0.0)


def test_without_annotated_events_there_is_nothing_to_find() -> None:
    with pytest.raises(UserError, match="no annotated events"):
        event_metrics([[Event(0, 5, 0.9)]], [[]])
    with pytest.raises(UserError, match="no annotated events"):
        event_metrics([], [])
