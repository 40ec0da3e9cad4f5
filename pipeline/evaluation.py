"""Evaluation: a run and the test videos' features in, frame-level metrics out.

The protocol is exact: every decoded frame counts, and scores and truth that do not fit each other are an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import UserError
from .cache import FeatureStore
from .datasets import Dataset, frame_truth
from .files import write_text
from .metrics import FrameMetrics, Roc, ScoredVideo, frame_metrics, frame_roc
from .resampling import Interval, bootstrap_auc, mean_and_spread
from .runs import LAST, Run, kept_weights, load_run, runs_in, seed_of
from .scoring import FrameScores, score_features, write_scores

RATES = ("auc", "ap", "auc_abnormal", "far_normal", "tpr")


@dataclass(frozen=True)
class Evaluation:
    """What a run achieves on the test videos of a data set; ``videos`` and ``scores`` are in the same order.

    Attributes:
        run: name of the run's folder, or of the folder that holds its seeds.
        seed: of the training, where the folder holds several; else None.
        weights: which of the run's weights.
        metrics: over all frames.
        interval: of the AUC, in [0, 1]: 95 % of the test sets drawn from these videos lie in it.
        roc: over all frames.
        videos: scores with truth.
        scores: scores with times.
    """

    run: str
    seed: int | None
    weights: str
    metrics: FrameMetrics
    interval: Interval
    roc: Roc
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
        mean: of each metric of `FrameMetrics` in fractions of 1, by name.
        spread: sample standard deviation over the seeds; None for a single one.
        interval: of a single run's AUC; None for several seeds.
    """

    run: str
    weights: str
    seeds: int
    mean: dict[str, float]
    spread: dict[str, float] | None
    interval: Interval | None


def evaluate(run: Run, dataset: Dataset, features: Path) -> Evaluation:
    """Score all test videos and compare with the truth.

    Raises:
        UserError: no test videos, missing features, an annotation that does not fit, or metrics that are not defined.
    """
    videos = dataset.of("test")
    if not videos:
        raise UserError(f"{dataset.name}: has no test videos")
    store = FeatureStore(features, run.manifest.extractor)
    scores, scored = [], []
    for video, found in zip(videos, store.read_all([video.name for video in videos]), strict=True):
        result = score_features(run, video.name, found)
        truth = frame_truth(video, len(result.scores))
        scores.append(result)
        scored.append(ScoredVideo(video.name, video.abnormal, result.scores, truth))
    folder = run.folder.resolve()
    seed = seed_of(folder)
    return Evaluation(
        run=folder.name if seed is None else folder.parent.name,
        seed=seed,
        weights=run.weights,
        metrics=frame_metrics(scored),
        interval=bootstrap_auc(scored),
        roc=frame_roc(scored),
        videos=tuple(scored),
        scores=tuple(scores),
    )


def evaluate_all(folders: Sequence[Path], dataset: Dataset, features: Path) -> list[Evaluation]:
    """Evaluate all weights that runs have kept, with all their seeds.

    Args:
        folders: run folders, or folders that hold the seeds of a training.
        dataset: its test videos.
        features: the features folder.

    Raises:
        UserError: as `evaluate` and `load_run`, or two folders have the same name.
    """
    runs = [run for folder in folders for run in runs_in(folder)]
    places = [run.resolve() for run in runs]
    named = {place if seed_of(place) is None else place.parent for place in places}
    if len(set(places)) < len(places) or len({folder.name for folder in named}) < len(named):
        names = ", ".join(folder.resolve().name for folder in folders)
        raise UserError(f"two runs of the same name ({names}): rename one folder, results are filed by it")
    return [evaluate(load_run(run, which), dataset, features) for run in runs for which in kept_weights(run) or [LAST]]


def summarise(evaluations: Sequence[Evaluation]) -> list[Summary]:
    """One row for each run and choice of weights, over its seeds."""
    groups: dict[tuple[str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault((evaluation.run, evaluation.weights), []).append(evaluation)
    summaries = []
    for (run, weights), group in groups.items():
        figures = {name: mean_and_spread([getattr(evaluation.metrics, name) for evaluation in group]) for name in RATES}
        several = len(group) > 1
        summaries.append(
            Summary(
                run,
                weights,
                len(group),
                {name: mean for name, (mean, _) in figures.items()},
                {name: spread for name, (_, spread) in figures.items() if spread is not None} if several else None,
                None if several else group[0].interval,
            )
        )
    return summaries


def write_evaluations(evaluations: Sequence[Evaluation], out: Path) -> None:
    """Write ``metrics.json`` and, of the last iteration's weights, the scores of every test video.

    Scores go to ``out/<run>/<video>/``, as `scoring` writes them; with several seeds to ``out/<run>/seed-0/…``.
    """
    runs = [
        {"run": evaluation.run, "seed": evaluation.seed, "weights": evaluation.weights}
        | asdict(evaluation.metrics)
        | {"auc_interval": [evaluation.interval.low, evaluation.interval.high]}
        for evaluation in evaluations
    ]
    summary = [asdict(row) for row in summarise(evaluations)]
    write_text(out / "metrics.json", json.dumps({"summary": summary, "runs": runs}, indent=2))
    for evaluation in evaluations:
        if evaluation.weights == LAST:
            for result in evaluation.scores:
                write_scores(out / evaluation.label / result.name, result)
