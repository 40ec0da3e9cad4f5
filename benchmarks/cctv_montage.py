"""Real CCTV: MIL with and without XEL on the features of each network that is named, and the SVM, over four folds.

    XELVAD_SHARED=/path/to/data python benchmarks/cctv_montage.py --features DIR --runs DIR --extractors i3d-rgb

A single split of 100 videos proves nothing: single folds lie 15 points and more apart. So every fold is the test set
once, and figures are given as mean ± standard deviation over the seeds. Settings are those of ``recipes/general``. What
XEL is worth to each detector is measured by ``xel.py``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from results import write_section

from xelvad import __version__
from xelvad.pipeline.experiments.ablation.ablate import Outcome, cross_validate
from xelvad.pipeline.experiments.trainings import folds_of
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import extract
from xelvad.pipeline.training.config import TrainingConfig
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.videos.sources import find_videos

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2  # processes of one thread each: small matrices gain nothing from more threads

METRICS = ("auc", "ap", "auc_abnormal", "far_normal", "tpr")
HEADER = [
    "| detector | mean fold AUC % | AUC % | AP % | AUC abnormal % | FAR normal % | TPR % "
    "| best on validation, mean fold AUC % | best on test, mean fold AUC % |",
    "|---|---|---|---|---|---|---|---|---|",
]


@dataclass(frozen=True)
class Task:
    """One configuration with one seed."""

    label: str
    manifest: Path
    features: Path
    runs: Path
    config: TrainingConfig


@dataclass(frozen=True)
class Measured:
    """The outcome of a task, and the mean of the folds' test AUCs with the best weights by validation and by test."""

    outcome: Outcome
    best_on_validation: float
    best_on_test: float


def extractor_configurations(extractors: Sequence[str]) -> dict[str, TrainingConfig]:
    """SVM, MIL and MIL+XEL on the features of each extractor."""
    config = load_recipe("general/mil")
    with_xel = replace(config, xel=replace(config.xel, mode="epoch"))
    ways = {"SVM": load_recipe("general/svm"), "MIL": config, "MIL+XEL": with_xel}
    return {
        f"{extractor}, {name}": replace(way, extractor=extractor)
        for extractor in extractors
        for name, way in ways.items()
    }


def measure(task: Task) -> Measured:
    torch.set_num_threads(1)
    folder = task.runs / task.label.replace(" ", "_").replace("/", "-")
    (outcome,) = cross_validate(task.manifest, task.features, folder, task.config)
    best = [
        test_aucs_of_best(folder / fold / f"seed-{task.config.seed}")
        if task.config.detector != "svm"
        else (np.nan,) * 2
        for fold in folds_of(task.manifest)
    ]
    return Measured(outcome, *(float(value) for value in np.mean(best, axis=0)))


def test_aucs_of_best(run: Path) -> tuple[float, float]:
    """The test AUC at the evaluation that was best on validation, and at the one that was best on test."""
    metrics = json.loads((run / "metrics.json").read_text())
    history = metrics["history"]
    chosen = history["iteration"].index(metrics["weights"]["best_on_validation"]["iteration"])
    return history["test_auc"][chosen], max(history["test_auc"])


def row(label: str, measured: list[Measured]) -> str:
    """One row of the table: mean ± standard deviation over the seeds, in per cent."""
    columns = [[m.outcome.mean_fold_auc or np.nan for m in measured]]
    columns += [[getattr(m.outcome.metrics, name) for m in measured] for name in METRICS]
    columns += [[m.best_on_validation for m in measured], [m.best_on_test for m in measured]]
    return f"| {label} | {' | '.join(spread(values) for values in columns)} |"


def spread(values: list[float]) -> str:
    if np.isnan(values).any():
        return "–"
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="features folder, filled on the first run")
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder for the runs; what is finished is not repeated"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--extractors", nargs="+", default=["i3d-rgb"], help="networks whose weights are at hand")
    arguments = parser.parse_args()
    data = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data")) / "cctv_montage"
    extractors = tuple(arguments.extractors)
    failed = extract(find_videos([data]), arguments.features, ExtractionConfig(extractor=extractors)).failed
    if failed:
        raise SystemExit(f"cannot be read: {failed}")
    tasks = [
        Task(label, data / "annotations.csv", arguments.features, arguments.runs, replace(config, seed=seed))
        for label, config in extractor_configurations(extractors).items()
        for seed in range(arguments.seeds)
    ]
    rows, waiting = [], []
    with ProcessPoolExecutor(WORKERS) as pool:
        for task, measured in zip(tasks, pool.map(measure, tasks), strict=True):
            waiting.append(measured)
            if len(waiting) == arguments.seeds:
                rows.append(row(task.label, waiting))
                print(rows[-1], flush=True)
                waiting = []
    write_section(
        "CCTV montage: features of each network whose weights are at hand",
        [
            "100 videos of real CCTV in four folds that share no source; train on three, test on the fourth, "
            f"{', '.join(extractors)},",
            "every frame counted, settings of `recipes/general`. Weights of the last iteration but for the last two",
            "columns, the last of which is an upper bound. AUC: all folds' frames together. Mean ± sd over seeds 0 to",
            f"{arguments.seeds - 1}; FAR and TPR at threshold 0.5.",
            "",
            *HEADER,
            *rows,
            "",
            f"`python benchmarks/cctv_montage.py --features DIR --runs DIR --seeds {arguments.seeds} "
            f"--extractors {' '.join(extractors)}`, {datetime.date.today()}, xelvad {__version__}, "
            f"torch {torch.__version__}, CPU.",
        ],
    )


if __name__ == "__main__":
    main()
