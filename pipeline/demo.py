"""The demo: the whole way once, on footage drawn on the spot, with real I3D weights. Nothing in it is special.

Every step is one that a user would take with videos of their own, by the same functions as the commands use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .console import console
from .datasets import read_manifest
from .evaluation import Evaluation, evaluate, write_evaluations
from .extraction import extract
from .footage import draw_dataset
from .report import report_evaluations
from .runs import is_run, load_run
from .settings import ExtractionConfig, TrainingConfig, XELConfig
from .training import train
from .videos import find_videos

VIDEOS = 24
FRAMES = 192  # per video: 12 clips


@dataclass(frozen=True)
class DemoResult:
    """What the runs achieve, and where the report is."""

    evaluations: list[Evaluation]
    report: Path


def run_demo(out: Path, seed: int = 0, videos: int = VIDEOS, frames: int = FRAMES) -> DemoResult:
    """Draw, extract, train MIL and MIL+XEL, evaluate on held-out videos, report. Finished steps are not done again.

    Args:
        out: everything goes here; another seed gets folders of its own.
        seed: of the footage and of the training.
        videos: how many to draw.
        frames: of each video.
    """
    footage, features = out / f"footage-{seed}", out / f"features-{seed}"
    manifest = footage / "annotations.csv"
    if not manifest.exists():
        console.print(f"drawing {videos} videos of a street: {footage}")
        draw_dataset(footage, videos=videos, frames=frames, seed=seed)
    console.print("extracting I3D features")
    extract(find_videos([footage]), features, ExtractionConfig())

    dataset = read_manifest(manifest, test_fold="test")
    plain = TrainingConfig(seed=seed, iterations=500)
    configs = {"MIL+XEL": replace(plain, xel=XELConfig(mode="epoch")), "MIL": plain}
    evaluations = []
    for label, config in configs.items():
        folder = out / f"runs-{seed}" / label
        if not is_run(folder):
            train(dataset, features, folder, config)
        evaluations.append(evaluate(load_run(folder), dataset, features))
    results = out / f"results-{seed}"
    write_evaluations(evaluations, results)
    report = report_evaluations(evaluations, dataset, results)
    return DemoResult(evaluations, report)
