"""Evaluation: a run and the test videos' features in, frame-level and event-level metrics out.

The protocol says which frames count; scores and truth that do not fit each other are an error under every protocol.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ...errors import UserError
from ...files import write_text
from ..datasets import Dataset, LabelledVideo, frame_truth
from ..features.remote.address import FeaturesFolder
from ..features.remote.store import open_store
from ..scoring.config import EventConfig
from ..scoring.events import EventMetrics, Span, event_metrics, find_events
from ..scoring.learned import Verdict
from ..scoring.protocols import PROTOCOLS, FrameProtocol
from ..scoring.runs import LAST, Run, best_on, kept_weights, load_run, name_of, runs_in, seed_of
from ..scoring.scoring import FrameScores, score_features, write_scores
from ..scoring.thresholds import Calibration
from ..support.threads import few_threads
from .calibration import calibrate
from .config import EvaluationConfig
from .metrics import (
    METRICS,
    THRESHOLD,
    CategoryMetrics,
    FrameMetrics,
    Rates,
    Roc,
    ScoredVideo,
    category_metrics,
    frame_metrics,
    frame_roc,
    rates_at,
)
from .resampling import (
    RESAMPLED,
    Difference,
    Interval,
    ResampledMetric,
    bootstrap_interval,
    over_seeds,
    paired_difference,
    resampled_metrics,
)

ThresholdName = Literal["fixed", "calibrated"]


@dataclass(frozen=True)
class Operation:
    """What a detector does at one threshold: alarms among frames, and events."""

    rates: Rates
    events: EventMetrics | None  # None where no event is annotated


@dataclass(frozen=True)
class Measures:
    """Everything that follows from the scores and the truth of a test set alone.

    Attributes:
        metrics: over all frames.
        roc: over all frames; None where there are not both anomalous and normal ones.
        operations: at the "fixed" threshold of 0.5 and, where there is one, at the "calibrated" one.
        categories: of each class or scene, where the data set has them.
    """

    metrics: FrameMetrics
    roc: Roc | None
    operations: dict[ThresholdName, Operation]
    categories: tuple[CategoryMetrics, ...]


@dataclass(frozen=True)
class Evaluation(Measures):
    """What a run achieves on the test videos of a data set; ``videos`` and ``scores`` are in the same order.

    Attributes:
        run: name of the run's folder, or of the folder that holds its seeds.
        seed: of the training, where the folder holds several; else None.
        weights: which of the run's weights.
        learned: whether its training learned anything; None where that was not looked at.
        protocol: by which all figures were taken.
        intervals: of AUC, AP and AUC over abnormal videos, as far as they are defined, in [0, 1]: 95 % of the test sets
            drawn from these videos lie in them.
        calibration: of the calibrated threshold; None where there is none.
        notes: what a reader must know about these figures.
        videos: scores with truth, of the frames that count.
        scores: scores with times, of all frames.
    """

    run: str
    seed: int | None
    weights: str
    learned: Verdict | None
    protocol: FrameProtocol
    intervals: dict[ResampledMetric, Interval]
    calibration: Calibration | None
    notes: tuple[str, ...]
    videos: tuple[ScoredVideo, ...]
    scores: tuple[FrameScores, ...]

    @property
    def label(self) -> str:
        """The run, and the seed where there are several: under this name results are filed."""
        return self.run if self.seed is None else f"{self.run}/seed-{self.seed}"


@dataclass(frozen=True)
class Summary:
    """One row of a table of results: a run with one choice of weights, over its seeds.

    Attributes:
        run: name of the run's folder.
        weights: which of the run's weights.
        seeds: how many trainings.
        mean: of each metric of `FrameMetrics` in fractions of 1, by name; None of one that is not defined.
        spread: sample standard deviation over the seeds; None for a single one.
        interval: of a single run's AUC; None for several seeds, and without an AUC.
        learned_nothing: how many of the trainings did not learn anything.
    """

    run: str
    weights: str
    seeds: int
    mean: dict[str, float | None]
    spread: dict[str, float | None] | None
    interval: Interval | None
    learned_nothing: int = 0

    def figure(self, name: str) -> tuple[float | None, float | None]:
        """Mean and spread of one metric, both None where it is not defined."""
        return self.mean[name], None if self.spread is None else self.spread[name]

    @property
    def chosen_on_test(self) -> bool:
        """Whether the weights were chosen on the very videos they are measured on."""
        return self.weights == best_on("test")


@dataclass(frozen=True)
class Comparison:
    """A run against another on the same test videos: its figures less those of the other.

    Attributes:
        run: name of the run.
        other: name of the run that it is compared with.
        seed: of both, where they have seeds in common; else None: their first trainings were compared.
        differences: by figure; of those that the test set defines.
    """

    run: str
    other: str
    seed: int | None
    differences: dict[ResampledMetric, Difference]


def evaluate(
    run: Run, dataset: Dataset, features: FeaturesFolder, config: EvaluationConfig | None = None
) -> Evaluation:
    """Score all test videos and compare with the truth.

    Args:
        run: the trained detector.
        dataset: its test videos; its training videos calibrate the threshold if they are those of the run.
        features: the features folder.
        config: how; by default every frame counts.

    Raises:
        UserError: no test videos, missing features, an annotation that does not fit, features that cannot be brought
            into the protocol, or no frame that counts.
    """
    config = config or EvaluationConfig()
    protocol = PROTOCOLS[config.protocol]
    videos = dataset.of("test")
    if not videos:
        raise UserError(f"{dataset.name}: has no test videos")
    store = open_store(features, run.manifest.extractor)
    at_hand = list(store.read_all([video.name for video in videos]))
    with few_threads(max(math.prod(found.shape) for found in at_hand)):
        scores = [
            score_features(run, video.name, found, protocol) for video, found in zip(videos, at_hand, strict=True)
        ]
    scored, notes = [], []
    for video, found, result in zip(videos, at_hand, scores, strict=True):
        truth = frame_truth(video, found.sidecar.frames)
        counted = protocol.counted(video.name, found)
        if not counted:
            notes.append(f"{video.name} is shorter than a clip: protocol {protocol.name} counts none of its frames")
        scored.append(ScoredVideo(video.name, video.abnormal, result.scores[:counted], truth[:counted], video.category))
    calibration, note = _calibration(run, dataset, features, config)
    thresholds: dict[ThresholdName, float] = {"fixed": THRESHOLD}
    if calibration is not None:
        thresholds["calibrated"] = calibration.threshold
    measures = measure(
        scored, [counted_spans(*pair) for pair in zip(videos, scored, strict=True)], thresholds, config.events
    )
    return Evaluation(
        **vars(measures),
        run=name_of(run.folder),
        learned=None if run.learned is None else run.learned.verdict,
        seed=seed_of(run.folder.resolve()),
        weights=run.weights,
        protocol=protocol,
        intervals={figure: bootstrap_interval(scored, figure=figure) for figure in resampled_metrics(scored)},
        calibration=calibration,
        notes=(*notes, *([f"{run.learned.sentence}"] if run.learned else []), note),
        videos=tuple(scored),
        scores=tuple(scores),
    )


def measure(
    videos: Sequence[ScoredVideo],
    annotated: Sequence[Sequence[Span]],
    thresholds: dict[ThresholdName, float],
    config: EventConfig,
) -> Measures:
    """Everything that can be said of scores at once, without resampling.

    Args:
        videos: the test set.
        annotated: the annotated events of each video, half-open frames, in the same order.
        thresholds: at which to count alarms and events.
        config: how frame scores become events.

    Raises:
        UserError: there is not a single frame.
    """
    metrics = frame_metrics(videos)
    operations = {}
    for name, threshold in thresholds.items():
        found = [find_events(video.scores, threshold, config) for video in videos]
        events = event_metrics(found, annotated) if any(map(len, annotated)) else None
        operations[name] = Operation(rates_at(videos, threshold), events)
    return Measures(metrics, frame_roc(videos), operations, category_metrics(videos))


def counted_spans(video: LabelledVideo, scored: ScoredVideo) -> list[Span]:
    """The annotated events of a video as far as its frames count."""
    frames = len(scored.truth)
    return [(start, min(end, frames)) for start, end in video.spans or () if start < frames]


def _calibration(
    run: Run, dataset: Dataset, features: FeaturesFolder, config: EvaluationConfig
) -> tuple[Calibration | None, str]:
    """The calibrated threshold, and a note on it; or none, and the reason."""
    try:
        found = calibrate(run, dataset, features, PROTOCOLS[config.protocol], config.far_target)
    except UserError as error:
        return None, f"no calibrated threshold: {error}"
    return found, f"calibrated threshold: {found.note}"


def evaluate_all(
    folders: Sequence[Path], dataset: Dataset, features: FeaturesFolder, config: EvaluationConfig | None = None
) -> list[Evaluation]:
    """Evaluate all weights that runs have kept, with all their seeds.

    Args:
        folders: run folders, or folders that hold the seeds of a training.
        dataset: its test videos.
        features: the features folder.
        config: as for `evaluate`.

    Raises:
        UserError: as `evaluate` and `load_run`, or two folders have the same name.
    """
    runs = [run for folder in folders for run in runs_in(folder)]
    places = [run.resolve() for run in runs]
    named = {place if seed_of(place) is None else place.parent for place in places}
    if len(set(places)) < len(places) or len({folder.name for folder in named}) < len(named):
        names = ", ".join(folder.resolve().name for folder in folders)
        raise UserError(f"two runs of the same name ({names}): rename one folder, results are filed by it")
    return [
        evaluate(load_run(run, which), dataset, features, config)
        for run in runs
        for which in kept_weights(run) or [LAST]
    ]


def summarise(evaluations: Sequence[Evaluation]) -> list[Summary]:
    """One row for each run and choice of weights, over its seeds."""
    summaries = []
    for (run, weights), group in grouped(evaluations).items():
        figures = {name: over_seeds([getattr(evaluation.metrics, name) for evaluation in group]) for name in METRICS}
        several = len(group) > 1
        summaries.append(
            Summary(
                run,
                weights,
                len(group),
                {name: mean for name, (mean, _) in figures.items()},
                {name: spread for name, (_, spread) in figures.items()} if several else None,
                None if several else group[0].intervals.get("auc"),
                sum(evaluation.learned == "nothing" for evaluation in group),
            )
        )
    return summaries


def grouped(evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], list[Evaluation]]:
    """The seeds of each run and choice of weights."""
    groups: dict[tuple[str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault((evaluation.run, evaluation.weights), []).append(evaluation)
    return groups


def last_weights(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The seeds of each run, with the weights of the last iteration."""
    return {run: group for (run, weights), group in grouped(evaluations).items() if weights == LAST}


def compare(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """Each run less the first, with the last iteration's weights: of every seed that both have, else their first ones.

    Equal seeds belong together: they put the same validation videos aside.
    """
    (first, reference), *others = last_weights(evaluations).items()
    by_seed = {each.seed: each for each in reference}
    comparisons = []
    for name, group in others:
        pairs = [(each, by_seed[each.seed]) for each in group if each.seed in by_seed]
        for one, other in pairs or [(group[0], reference[0])]:
            differences = {
                figure: paired_difference(one.videos, other.videos, figure=figure)
                for figure in resampled_metrics(one.videos)
            }
            comparisons.append(Comparison(name, first, one.seed if pairs else None, differences))
    return comparisons


def write_evaluations(evaluations: Sequence[Evaluation], out: Path, comparisons: Sequence[Comparison] = ()) -> None:
    """Write ``metrics.json`` and, of the last iteration's weights, the scores of every test video.

    Scores go to ``out/<run>/<video>/``, as `scoring` writes them; with several seeds to ``out/<run>/seed-0/…``.
    """
    written = {
        "protocol": evaluations[0].protocol.name,
        "summary": [asdict(row) for row in summarise(evaluations)],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "runs": [_plain(evaluation) for evaluation in evaluations],
    }
    write_text(out / "metrics.json", json.dumps(written, indent=2))
    for evaluation in evaluations:
        if evaluation.weights == LAST:
            for result in evaluation.scores:
                write_scores(out / evaluation.label / result.name, result)


def _plain(evaluation: Evaluation) -> dict[str, object]:
    """What ``metrics.json`` says of one evaluation."""
    intervals = {
        f"{name}_interval": [found.low, found.high] if (found := evaluation.intervals.get(name)) else None
        for name in RESAMPLED
    }
    return {
        "run": evaluation.run,
        "seed": evaluation.seed,
        "learned": evaluation.learned,
        "weights": evaluation.weights,
        "protocol": evaluation.protocol.name,
        **asdict(evaluation.metrics),
        **intervals,
        "calibration": asdict(evaluation.calibration) if evaluation.calibration else None,
        "thresholds": {name: asdict(operation) for name, operation in evaluation.operations.items()},
        "categories": [asdict(category) for category in evaluation.categories],
        "notes": list(evaluation.notes),
    }
