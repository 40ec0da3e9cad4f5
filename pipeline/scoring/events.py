"""Events: stretches of frames with high scores, and how well they meet the annotated ones.

What a user sees of a detector is an alarm with a beginning and an end, not frames. Events are judged as in temporal
action detection (Caba Heilbron et al., "ActivityNet", CVPR 2015): an event is right if it overlaps an annotated one
well enough and no better event has taken that one already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from .config import EventConfig

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5)

Span = tuple[int, int]


@dataclass(frozen=True)
class Event:
    """Frames ``[start, end)`` of one video that were found to be anomalous."""

    start: int
    end: int
    score: float  # the highest of its frames


@dataclass(frozen=True)
class EventMetrics:
    """How well the events of a test set meet the annotated ones. Shares are fractions of 1, one for each IoU.

    Attributes:
        found: number of events found.
        annotated: number of annotated events.
        ious: temporal intersection over union that an event must have with an annotated one to be right.
        precision: share of the events found that are right; None where none was found.
        recall: share of the annotated events that were found.
        ap: average precision, events ranked by score, precision interpolated as by ActivityNet. Events below the
            threshold are not ranked: a threshold that finds few events bounds it.
        mean_ap: mean of ``ap`` over the IoUs.
    """

    found: int
    annotated: int
    ious: tuple[float, ...]
    precision: tuple[float, ...] | None
    recall: tuple[float, ...]
    ap: tuple[float, ...]
    mean_ap: float


def find_events(scores: NDArray[np.float32], threshold: float, config: EventConfig | None = None) -> list[Event]:
    """The events in the scores of one video, in order.

    Args:
        scores: ``(frames,)``.
        threshold: a score that reaches it begins an event.
        config: how events hold together; by default they do only where every frame reaches the threshold.
    """
    config = config or EventConfig()
    high = np.concatenate([[False], scores >= config.release * threshold, [False]])
    starts, ends = np.flatnonzero(np.diff(high.astype(np.int8))).reshape(-1, 2).T
    if not len(starts):
        return []
    peaks = np.maximum.reduceat(np.append(scores, scores.dtype.type(-np.inf)), np.ravel([starts, ends], "F"))[::2]
    events: list[Event] = []
    for start, end, peak in zip(starts.tolist(), ends.tolist(), peaks, strict=True):
        if not peak >= threshold:
            continue
        if events and start - events[-1].end <= config.gap:
            events[-1] = Event(events[-1].start, end, max(events[-1].score, float(peak)))
        else:
            events.append(Event(start, end, float(peak)))
    return events


def event_metrics(
    found: Sequence[Sequence[Event]], annotated: Sequence[Sequence[Span]], ious: Sequence[float] = IOUS
) -> EventMetrics:
    """Compare events with annotated ones.

    Events take annotated ones in the order of their scores, each the free one that it overlaps most, if well enough.
    Events of equal score enter precision and recall together, so that the order of the videos makes no difference.

    Args:
        found: the events of each video.
        annotated: the anomalous frames of each video, half-open; in the same order.
        ious: of which to speak, in (0, 1].

    Raises:
        UserError: no event is annotated.
    """
    total = sum(map(len, annotated))
    if not total:
        raise UserError("the test set has no annotated events, so none can be found")
    ranked = [sorted(events, key=lambda event: (-event.score, event.start, event.end)) for events in found]
    overlaps = [_overlaps(events, spans) for events, spans in zip(ranked, annotated, strict=True)]
    scores = np.array([event.score for events in ranked for event in events])
    hits = [np.concatenate([np.empty(0, bool), *(_hits(each, iou) for each in overlaps)]) for iou in ious]
    ap = tuple(_average_precision(scores, hit, total) for hit in hits)
    return EventMetrics(
        found=len(scores),
        annotated=total,
        ious=tuple(ious),
        precision=tuple(float(hit.mean()) for hit in hits) if len(scores) else None,
        recall=tuple(float(hit.sum() / total) for hit in hits),
        ap=ap,
        mean_ap=float(np.mean(ap)),
    )


def _overlaps(events: Sequence[Event], spans: Sequence[Span]) -> NDArray[np.float64]:
    """Intersection over union of every event with every span, ``(events, spans)``."""
    starts, ends = np.array([(event.start, event.end) for event in events], np.int64).reshape(-1, 2).T[:, :, None]
    first, last = np.array(spans, np.int64).reshape(-1, 2).T
    common = np.maximum(np.minimum(ends, last) - np.maximum(starts, first), 0)
    return np.asarray(common / (ends - starts + last - first - common), np.float64)


def _hits(overlaps: NDArray[np.float64], iou: float) -> NDArray[np.bool_]:
    """Which of one video's events, best first, take a span of their own."""
    hits = np.zeros(len(overlaps), bool)
    free = np.ones(overlaps.shape[1], bool)
    for event in np.flatnonzero((overlaps >= iou).any(axis=1)):
        usable = np.where(free, overlaps[event], 0)
        span = usable.argmax()
        if usable[span] >= iou:
            hits[event], free[span] = True, False
    return hits


def _average_precision(scores: NDArray[np.float64], hits: NDArray[np.bool_], annotated: int) -> float:
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)[: len(order)]  # of each group of equal scores
    right = np.cumsum(hits[order])[last]
    precision = right / (np.flatnonzero(last) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(right / annotated, prepend=0) * envelope))
