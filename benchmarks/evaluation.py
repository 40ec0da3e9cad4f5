"""What an evaluation costs beside the scoring, on made-up scores of the size of UCF-Crime's test set.

    python benchmarks/evaluation.py --rounds 3

290 videos, 1,111,808 frames, of which about 7.6 % are anomalous; a score for each clip of 16 frames, hardly two of them
alike. Everything is done by the functions that `xelvad evaluate` calls. Absolute times are this machine's.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import sklearn
from results import write_section

from xelvad import __version__
from xelvad.pipeline.evaluation.evaluation import measure
from xelvad.pipeline.evaluation.metrics import ScoredVideo
from xelvad.pipeline.evaluation.resampling import RESAMPLED, bootstrap_interval, paired_difference
from xelvad.pipeline.scoring.config import EventConfig
from xelvad.pipeline.scoring.events import Span
from xelvad.pipeline.scoring.thresholds import threshold_for

SECTION = "Evaluation"
ABNORMAL, NORMAL, FRAMES, CLASSES = 140, 150, 1_111_808, 13
ANOMALOUS = 0.158  # of an abnormal video, which makes about 7.6 % of all frames
VALIDATION = 80  # normal videos
SAMPLES = 1000


def made_up_videos(seed: int) -> tuple[list[ScoredVideo], list[list[Span]]]:
    """A test set and its annotated events; other seeds give other scores of the same videos."""
    lengths = frame_counts()
    rng, same = np.random.default_rng([seed, 1]), np.random.default_rng(0)
    videos, annotated = [], []
    for number, frames in enumerate(lengths):
        abnormal = number < ABNORMAL
        start = int(same.integers(int(frames * (1 - ANOMALOUS))))
        spans = [(start, start + int(ANOMALOUS * frames))] if abnormal else []
        truth = np.zeros(frames, bool)
        for first, end in spans:
            truth[first:end] = True
        clips = rng.beta(1, 6, -(-frames // 16)) + 0.2 * truth[::16]
        scores = np.minimum(np.repeat(clips, 16)[:frames], 1).astype(np.float32)
        category = f"class {number % CLASSES}" if abnormal else None
        videos.append(ScoredVideo(f"{number}", abnormal, scores, truth, category))
        annotated.append(spans)
    return videos, annotated


def frame_counts() -> list[int]:
    """Lengths as uneven as those of real videos, `FRAMES` in all."""
    shares = np.random.default_rng(0).lognormal(0, 1, ABNORMAL + NORMAL)
    lengths = np.maximum((shares / shares.sum() * FRAMES).astype(int), 32)
    lengths[lengths.argmax()] += FRAMES - lengths.sum()
    return [int(length) for length in lengths]


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured")
    rounds = parser.parse_args().rounds
    videos, annotated = made_up_videos(0)
    others, _ = made_up_videos(1)
    frames = sum(len(video.truth) for video in videos)
    share = sum(int(video.truth.sum()) for video in videos) / frames
    normal = [video.scores for video in others if not video.abnormal][:VALIDATION]

    def everything() -> None:
        measure(videos, annotated, {"fixed": 0.5, "calibrated": threshold_for(normal, 0.01)}, EventConfig())

    measured: dict[str, Callable[[], object]] = {
        "all metrics, both thresholds, events, categories, calibration": everything,
        f"intervals of AUC, AP, AUC abnormal, {SAMPLES:,} resamples": lambda: [
            bootstrap_interval(videos, SAMPLES, figure=figure) for figure in RESAMPLED
        ],
        f"paired test of two runs, the same three figures, {SAMPLES:,} resamples": lambda: [
            paired_difference(videos, others, SAMPLES, figure=figure) for figure in RESAMPLED
        ],
    }
    rows = []
    for name, action in measured.items():
        times = [seconds(action) for _ in range(rounds)]
        rows.append(f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |")
        print(rows[-1], flush=True)
    write_section(
        SECTION,
        [
            f"Made-up scores of {len(videos)} videos, {frames:,} frames, {100 * share:.1f} % of them anomalous, one",
            f"for each clip of 16 frames. Seconds, median (lowest to highest) of {rounds}:",
            "",
            "| | s |",
            "|---|---|",
            *rows,
            "",
            f"`python benchmarks/evaluation.py --rounds {rounds}`, {datetime.date.today()}, xelvad {__version__}, "
            f"NumPy {np.__version__}, scikit-learn {sklearn.__version__}, {os.cpu_count()} CPU cores.",
        ],
    )


if __name__ == "__main__":
    main()
