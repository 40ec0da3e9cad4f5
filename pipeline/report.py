"""The report: what `score` and `evaluate` found, put on one page where it can be compared with the videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .datasets import Dataset
from .evaluation import Evaluation
from .metrics import FrameMetrics
from .page import Curve, ReportedVideo, RocCurve, write_page
from .runs import Run
from .scoring import FrameScores
from .videos import VideoSource

PAGE = "report.html"


def report_scores(scores: Sequence[FrameScores], sources: Sequence[VideoSource], run: Run, out: Path) -> Path:
    """Write ``out/report.html`` for newly scored videos, highest score first; returns its path."""
    paths = {source.name: source.path for source in sources}
    label = run.folder.name
    videos = [
        ReportedVideo(result.name, paths[result.name], result.times, (Curve(label, result.scores),), spans=None)
        for result in sorted(scores, key=lambda result: -result.scores.max())
    ]
    write_page(
        out / PAGE,
        title=f"Anomaly scores of {len(videos)} video{'s' if len(videos) != 1 else ''}",
        videos=videos,
        settings={
            "Run": label,
            "Detector": f"{run.manifest.name}, trained on {run.manifest.training_videos} videos",
            "Features": run.manifest.fingerprint,
            "xelvad": run.manifest.version,
        },
    )
    return out / PAGE


def report_evaluations(evaluations: Sequence[Evaluation], dataset: Dataset, out: Path) -> Path:
    """Write ``out/report.html`` for one or more runs evaluated on the same test videos; returns its path.

    The summary and the thumbnails speak of the first run.
    """
    videos = []
    for index, video in enumerate(dataset.of("test")):
        path = dataset.path_of(video)
        videos.append(
            ReportedVideo(
                video.name,
                path if path.exists() else None,
                evaluations[0].scores[index].times,
                tuple(Curve(evaluation.label, evaluation.scores[index].scores) for evaluation in evaluations),
                video.spans,
            )
        )
    write_page(
        out / PAGE,
        title=f"Evaluation on {dataset.name}",
        videos=videos,
        settings={
            "Data set": f"{dataset.name}, {len(videos)} test videos",
            "Protocol": "frame level, every decoded frame counts, all test videos together",
        },
        metrics={evaluation.label: _named(evaluation.metrics) for evaluation in evaluations},
        roc=[
            RocCurve(
                evaluation.label,
                evaluation.roc.false_positive_rate,
                evaluation.roc.true_positive_rate,
                evaluation.metrics.auc,
            )
            for evaluation in evaluations
        ],
    )
    return out / PAGE


def _named(metrics: FrameMetrics) -> dict[str, float]:
    return {
        "AUC": metrics.auc,
        "AP": metrics.ap,
        "AUC, abnormal videos only": metrics.auc_abnormal,
        "FAR, normal videos, at 0.5": metrics.far_normal,
        "TPR, at 0.5": metrics.tpr,
        "Frames": metrics.frames,
    }
