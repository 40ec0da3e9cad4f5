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
from .runs import Run
from .scoring import FrameScores, score_features, write_scores


@dataclass(frozen=True)
class Evaluation:
    """What a run achieves on the test videos of a data set; ``videos`` and ``scores`` are in the same order."""

    label: str  # the run's folder name
    metrics: FrameMetrics
    roc: Roc
    videos: tuple[ScoredVideo, ...]
    scores: tuple[FrameScores, ...]


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
    return Evaluation(run.folder.name, frame_metrics(scored), frame_roc(scored), tuple(scored), tuple(scores))


def write_evaluations(evaluations: Sequence[Evaluation], out: Path) -> None:
    """Write ``metrics.json``, by run, and the scores of every test video under ``out/<run>/`` as `scoring` does.

    Raises:
        UserError: two runs have the same folder name.
    """
    labels = [evaluation.label for evaluation in evaluations]
    if len(set(labels)) < len(labels):
        raise UserError(f"two runs of the same name ({', '.join(labels)}): rename one folder, results are filed by it")
    metrics = {evaluation.label: asdict(evaluation.metrics) for evaluation in evaluations}
    write_text(out / "metrics.json", json.dumps(metrics, indent=2))
    for evaluation in evaluations:
        for result in evaluation.scores:
            write_scores(out / evaluation.label / result.name, result)
