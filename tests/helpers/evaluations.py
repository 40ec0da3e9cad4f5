"""Evaluations without a training: scores made up for test videos with a known truth."""

from collections.abc import Sequence

import numpy as np

from xelvad.pipeline.evaluation.evaluation import Evaluation, measure
from xelvad.pipeline.evaluation.metrics import ScoredVideo
from xelvad.pipeline.evaluation.resampling import RESAMPLED, bootstrap_interval
from xelvad.pipeline.scoring.config import EventConfig
from xelvad.pipeline.scoring.protocols import PROTOCOLS
from xelvad.pipeline.scoring.scoring import FrameScores

CLIP = 16


def make_up(
    run: str, seed: int | None = None, quality: float = 1.0, videos: int = 8, weights: str = "last", shift: float = -2.0
) -> Evaluation:
    """What a run might make of a test set that is the same for all runs; the better, the higher its quality.

    Every second video is abnormal. Scores are a sigmoid of noise, of ``shift``, and of ``quality`` in anomalous frames.
    """
    truths = np.random.default_rng(0)
    rng = np.random.default_rng([seed or 0, int(1000 * quality), *run.encode()])
    scored = []
    for index in range(videos):
        clips = int(truths.integers(12, 60))
        frames = CLIP * clips - int(truths.integers(CLIP))
        start = int(truths.integers(1, clips - 5))
        truth = np.zeros(frames, bool)
        if index % 2:
            truth[CLIP * start + 3 : CLIP * (start + 4) - 5] = True
        logits = rng.normal(size=clips) + shift
        logits = np.convolve(logits, np.ones(3) / 3, mode="same")
        logits[start : start + 4] += quality * (index % 2)
        scores = np.repeat(1 / (1 + np.exp(-2 * logits)), CLIP)[:frames].astype(np.float32)
        scored.append(ScoredVideo(f"scene {index % 2}/video_{index:02}.mp4", bool(index % 2), scores, truth))
    return evaluation_of(run, seed, scored, weights)


def evaluation_of(run: str, seed: int | None, videos: Sequence[ScoredVideo], weights: str = "last") -> Evaluation:
    """The evaluation of scored videos of 25 frames a second."""
    spans = [
        [] if not video.truth.any() else [(video.truth.argmax(), video.truth.argmax() + video.truth.sum())]
        for video in videos
    ]
    return Evaluation(
        **vars(measure(videos, spans, {"fixed": 0.5}, EventConfig())),
        run=run,
        seed=seed,
        weights=weights,
        learned=None,
        protocol=PROTOCOLS["exact"],
        intervals={figure: bootstrap_interval(videos, samples=50, figure=figure) for figure in RESAMPLED},
        calibration=None,
        notes=(),
        videos=tuple(videos),
        scores=tuple(FrameScores(video.name, video.scores, np.arange(len(video.scores)) / 25) for video in videos),
    )
