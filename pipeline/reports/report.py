"""The report: what `score` and `evaluate` found, put on one page where it can be compared with the videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..datasets import Dataset
from ..evaluation.evaluation import Comparison, Evaluation, last_weights
from ..scoring.runs import Run
from ..scoring.scoring import FrameScores
from ..videos.sources import VideoSource
from .page import Curve, ReportedVideo, RocCurve, write_page
from .tables import result_tables

PAGE = "report.html"


def report_scores(scores: Sequence[FrameScores], sources: Sequence[VideoSource], run: Run, out: Path) -> Path:
    """Write ``out/report.html`` for newly scored videos, highest score first; returns its path."""
    paths = {source.name: source.path for source in sources}
    label = run.folder.name
    threshold = None if run.calibration is None else run.calibration.threshold
    videos = [
        ReportedVideo(
            result.name, paths[result.name], result.times, (Curve(label, result.scores, threshold),), spans=None
        )
        for result in sorted(scores, key=lambda result: -result.scores.max())
    ]
    write_page(
        out / PAGE,
        title=f"Anomaly scores of {len(videos)} video{'s' if len(videos) != 1 else ''}",
        videos=videos,
        settings={
            "Run": label,
            "Threshold": run.threshold_in_words,
            "Detector": f"{run.manifest.name}, trained on {run.manifest.training_videos} videos",
            "Features": run.manifest.fingerprint,
            "xelvad": run.manifest.version,
        },
    )
    return out / PAGE


def report_evaluations(
    evaluations: Sequence[Evaluation], dataset: Dataset, out: Path, comparisons: Sequence[Comparison] = ()
) -> Path:
    """Write ``out/report.html`` for one or more runs evaluated on the same test videos; returns its path.

    The first table has all weights of all runs, over their seeds. Curves are those of the last iteration's weights, of
    each run's first seed, each with its calibrated threshold; the summary and the thumbnails speak of the first run.
    """
    shown = [group[0] for group in last_weights(evaluations).values()]
    first = shown[0]
    thresholds = [each.calibration.threshold if each.calibration else None for each in shown]
    videos = []
    for index, video in enumerate(dataset.of("test")):
        path = dataset.path_of(video)
        videos.append(
            ReportedVideo(
                video.name,
                path if path.exists() else None,
                first.scores[index].times,
                tuple(
                    Curve(evaluation.label, evaluation.scores[index].scores, threshold)
                    for evaluation, threshold in zip(shown, thresholds, strict=True)
                ),
                video.spans,
            )
        )
    write_page(
        out / PAGE,
        title=f"Evaluation on {dataset.name}",
        videos=videos,
        settings={
            "Data set": f"{dataset.name}, {len(videos)} test videos, {first.metrics.frames} frames that count",
            "Protocol": f"{first.protocol.name}: {first.protocol.description}; frame level, all test videos together",
            "Weights": "of the last iteration, unless another choice is named; best on test is an upper bound that "
            "was chosen on the very videos it is measured on",
        },
        roc=[
            RocCurve(
                evaluation.label,
                evaluation.roc.false_positive_rate,
                evaluation.roc.true_positive_rate,
                evaluation.metrics.auc,
            )
            for evaluation in shown
            if evaluation.roc is not None and evaluation.metrics.auc is not None
        ],
        tables=result_tables(evaluations, comparisons),
    )
    return out / PAGE
