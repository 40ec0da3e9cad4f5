"""Detectors that learn from the frames of normal videos, on real CCTV: what they find, and how fast they look.

    XELVAD_SHARED=/path/to/data python benchmarks/framewise.py --runs DIR [--detectors conv-ae] [--seeds 3]

Every fold of the montage is the test set once; the normal videos of the other three teach. Each training is one process
of one thread, so frames a second are those of one core.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from results import write_section

from xelvad import __version__
from xelvad.models import FRAMEWISE, FramewiseDetector
from xelvad.pipeline.datasets import DatasetChoice
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.experiments.trainings import at_once, folds_of
from xelvad.pipeline.framewise.errors import reading
from xelvad.pipeline.scoring.runs import is_run, load_run, seed_folder
from xelvad.pipeline.support.progress import CONSOLE
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.training.train import train
from xelvad.pipeline.videos.worker import Decoder

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data"))
MONTAGE = DatasetChoice(manifest=SHARED / "cctv_montage" / "annotations.csv", videos=SHARED / "cctv_montage")
SPEED_FRAMES = 2000


@dataclass(frozen=True)
class Task:
    """A detector that learns from all folds but one, with a seed."""

    detector: str
    fold: str
    seed: int
    runs: Path


def figures_of(task: Task) -> tuple[float, ...]:
    """AUC, AUC over abnormal videos, FAR and TPR at the calibrated threshold, in per cent."""
    dataset = MONTAGE.read(task.fold)
    folder = seed_folder(task.runs / task.detector / task.fold, task.seed)
    if not is_run(folder):
        config = replace(load_recipe(f"general/{task.detector}"), seed=task.seed)
        train(dataset, task.runs / "features", folder, config, report=CONSOLE)
    found = evaluate(load_run(folder), dataset, task.runs / "features")
    rates = found.operations["calibrated"].rates
    values = (found.metrics.auc, found.metrics.auc_abnormal, rates.far_normal, rates.tpr)
    return tuple(100 * value for value in values if value is not None)


def frames_per_second(task: Task) -> float:
    """Of one core, over videos of the montage as they come: decoding is another process's."""
    detector = load_run(seed_folder(task.runs / task.detector / task.fold, task.seed)).detector
    assert isinstance(detector, FramewiseDetector)
    dataset, frames, spent = MONTAGE.read(task.fold), 0, 0.0
    with Decoder() as decoder:
        for video in dataset.of("test"):
            with reading(decoder, dataset.path_of(video)) as (_, blocks, _):
                pictures = list(blocks)
            began = time.process_time()
            frames += sum(map(len, detector.errors_in_blocks(pictures)))
            spent += time.process_time() - began
            if frames > SPEED_FRAMES:
                break
    return frames / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder for runs; what is finished is not repeated")
    parser.add_argument("--detectors", nargs="+", choices=FRAMEWISE, default=["sparse-combinations"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    assert MONTAGE.manifest is not None
    folds, rows = folds_of(MONTAGE.manifest), []
    for detector in options.detectors:
        tasks = [Task(detector, fold, seed, options.runs) for seed in range(options.seeds) for fold in folds]
        found = np.array(at_once(figures_of, tasks, options.workers, CONSOLE)).reshape(options.seeds, len(folds), -1)
        (speed,) = at_once(frames_per_second, tasks[:1], 1)
        cells = [f"{each.mean():.1f}" for each in found.mean(axis=1).T]
        folds_shown = " / ".join(f"{auc:.1f}" for auc in found[..., 0].mean(axis=0))
        rows.append(f"| {FRAMEWISE[detector].title} | {' | '.join(cells)} | {folds_shown} | {speed:.0f} |")
    write_section(
        f"Frame by frame on CCTV montage: {', '.join(FRAMEWISE[each].title for each in options.detectors)}",
        [
            "`recipes/general`; the normal videos of three folds teach, the fourth is tested, every frame counts; in",
            f"per cent, means of the folds, {options.seeds} seed(s); FAR and TPR at the threshold that normal videos",
            "say which were put aside; frames a second of CPU time of one core, without decoding.",
            "",
            "| | AUC | AUC abnormal | FAR | TPR | AUC of the folds | frames/s |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"`python benchmarks/framewise.py --runs DIR --detectors {' '.join(options.detectors)} "
            f"--seeds {options.seeds}`,",
            f"{datetime.date.today()}, xelvad {__version__}, torch {torch.__version__}, CPU.",
        ],
    )


if __name__ == "__main__":
    main()
