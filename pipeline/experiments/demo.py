"""The demo: the whole way once, on footage drawn on the spot, with real I3D weights. Nothing in it is special.

Every step is one that a user would take with videos of their own, by the same functions as the commands use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets import read_manifest
from ..evaluation.evaluation import Evaluation, evaluate, last_weights, write_evaluations
from ..evaluation.resampling import over_seeds
from ..features.config import ExtractionConfig
from ..features.extraction import extract
from ..footage import draw_dataset
from ..reports.report import report_evaluations
from ..reports.tables import per_cent
from ..scoring.runs import is_run, load_run, seed_folder
from ..support.progress import SILENT, Report
from ..training.config import TrainingConfig, XELConfig
from ..training.train import train
from ..videos.sources import find_videos

VIDEOS = 60  # 40 to train, of which 10 say what is normal and learnt from by none; 20 to test
FRAMES = 128  # per video: 8 clips
SEEDS = 5  # of the training: differences between two trainings of one seed each prove nothing
VALIDATION = 0.25  # of the training videos: a threshold is no better than the normal videos that it is chosen on
ITERATIONS = 250  # of so few videos enough
BATCH = 4  # of 15 normal videos, so that, as with large data sets, a step sees few of the rare ones and the bank all


FINDINGS: dict[str, Callable[[Evaluation], float | None]] = {
    "AUC": lambda each: each.metrics.auc,
    "hits at 0.5": lambda each: each.operations["fixed"].rates.tpr,
    "false alarms at 0.5 among all normal frames": lambda each: each.operations["fixed"].rates.far_all,
}


@dataclass(frozen=True)
class DemoResult:
    """What the runs achieve, and where the report is."""

    evaluations: list[Evaluation]
    report: Path

    @property
    def finding(self) -> str:
        """What XEL changed, whatever that is: mean of the pairs of one seed ± standard deviation, in points."""
        plain, with_xel = last_weights(self.evaluations).values()
        changes = []
        for name, figure in FINDINGS.items():
            pairs = [(figure(one), figure(other)) for one, other in zip(with_xel, plain, strict=True)]
            gains = [None if one is None or other is None else one - other for one, other in pairs]
            changes.append(f"{name} {per_cent(over_seeds(gains), '+.2f')}")
        return f"what XEL changes, in points, over {len(plain)} seeds: {'; '.join(changes)}"


def run_demo(
    out: Path, seed: int = 0, videos: int = VIDEOS, frames: int = FRAMES, seeds: int = SEEDS, report: Report = SILENT
) -> DemoResult:
    """Draw, extract, train MIL and MIL+XEL, evaluate on held-out videos, report. Finished steps are not done again.

    Args:
        out: everything goes here; another seed gets folders of its own.
        seed: of the footage, and the first of the trainings.
        videos: how many to draw.
        frames: of each video.
        seeds: how many trainings of MIL, and of MIL+XEL.
        report: is told how far it is.
    """
    footage, features = out / f"footage-{seed}", out / f"features-{seed}"
    manifest = footage / "annotations.csv"
    if not manifest.exists():
        report.say(f"drawing {videos} videos of a street: {footage}")
        draw_dataset(footage, videos=videos, frames=frames, seed=seed)
    report.say("extracting I3D features")
    extract(find_videos([footage]), features, ExtractionConfig(), report)

    dataset = read_manifest(manifest, test_fold="test")
    plain = TrainingConfig(seed=seed, iterations=ITERATIONS, batch=BATCH, validation=VALIDATION)
    configs = {"MIL": plain, "MIL+XEL": replace(plain, xel=XELConfig(mode="epoch"))}
    evaluations = []
    for label, config in configs.items():
        for number in range(seed, seed + seeds):
            folder = seed_folder(out / f"runs-{seed}" / label, number)
            if not is_run(folder):
                train(dataset, features, folder, replace(config, seed=number), report=report)
            evaluations.append(evaluate(load_run(folder), dataset, features))
    results = out / f"results-{seed}"
    write_evaluations(evaluations, results)
    page = report_evaluations(evaluations, dataset, results)
    return DemoResult(evaluations, page)
