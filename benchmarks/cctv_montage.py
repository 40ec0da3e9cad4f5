"""Real CCTV: cross-validates the detectors over the four folds of the CCTV montage and writes the table of results.

    XELVAD_SHARED=/path/to/data python benchmarks/cctv_montage.py --features /tmp/montage --seeds 3

A single split of 100 videos proves nothing: single folds lie 15 points and more apart. So every figure is computed over
the frames of all four test folds together, once per seed, and is given as mean ± standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from xelvad import __version__
from xelvad.pipeline.bags import BagConfig
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation import Evaluation, evaluate
from xelvad.pipeline.extraction import ExtractionConfig, extract
from xelvad.pipeline.metrics import FrameMetrics, frame_metrics
from xelvad.pipeline.runs import load_run
from xelvad.pipeline.settings import TrainingConfig, XELConfig
from xelvad.pipeline.training import train
from xelvad.pipeline.videos import find_videos

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.md"
SECTION = "## CCTV montage"
CONFIGURATIONS = {
    "MIL": TrainingConfig(),
    "MIL+XEL": TrainingConfig(xel=XELConfig(mode="epoch")),
}
VARIANTS = {  # printed, not written: how much the settings matter
    "MIL, features as they are": TrainingConfig(bags=BagConfig(l2_normalise=False)),
    "MIL+XEL, warm-up 50 %": TrainingConfig(xel=XELConfig(mode="epoch", warmup=0.5)),
    "MIL+XEL, no validation loss": TrainingConfig(xel=XELConfig(mode="epoch", validation_weight=0.0)),
    "MIL+XEL, no margin loss": TrainingConfig(xel=XELConfig(mode="epoch", margin_weight=0.0)),
}


@dataclass(frozen=True)
class Outcome:
    """One configuration with one seed: all folds' frames together, and the AUC of each fold."""

    pooled: FrameMetrics
    fold_aucs: list[float]


def cross_validate(manifest: Path, features: Path, config: TrainingConfig) -> Outcome:
    """Train on three folds, test on the fourth, four times."""
    folds = sorted({row.split(",")[1] for row in manifest.read_text().splitlines()[1:]})
    evaluations: list[Evaluation] = []
    for fold in folds:
        dataset = read_manifest(manifest, fold)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / fold
            train(dataset, features, run, config)
            evaluations.append(evaluate(load_run(run), dataset, features))
    pooled = frame_metrics([video for evaluation in evaluations for video in evaluation.videos])
    return Outcome(pooled, [evaluation.metrics.auc for evaluation in evaluations])


def row(label: str, outcomes: list[Outcome]) -> str:
    """One row of the table: mean ± standard deviation over the seeds, in per cent."""
    cells = [
        spread([getattr(outcome.pooled, name) for outcome in outcomes])
        for name in ("auc", "ap", "auc_abnormal", "far_normal", "tpr")
    ]
    folds = np.array([outcome.fold_aucs for outcome in outcomes])  # (seeds, folds)
    mean_of_folds = spread(folds.mean(axis=1).tolist())
    single = f"{100 * folds.mean(axis=0).min():.1f} to {100 * folds.mean(axis=0).max():.1f}"
    return f"| {label} | {' | '.join(cells)} | {mean_of_folds} | {single} |"


def spread(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def write_section(lines: list[str]) -> None:
    """Replace this benchmark's section of the results page."""
    page = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    before, _, after = page.partition(SECTION)
    following = after.find("\n## ")
    rest = after[following + 1 :] if following >= 0 else ""
    RESULTS.write_text("\n".join([before.rstrip(), "", SECTION, "", *lines, "", rest]).rstrip() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="features folder, filled on the first run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", action="store_true", help="run other settings and print their rows instead")
    arguments = parser.parse_args()
    data = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data")) / "cctv_montage"
    failed = extract(find_videos([data]), arguments.features, ExtractionConfig()).failed
    if failed:
        raise SystemExit(f"cannot be read: {failed}")
    rows = []
    for label, config in (VARIANTS if arguments.variants else CONFIGURATIONS).items():
        outcomes = [
            cross_validate(data / "annotations.csv", arguments.features, replace(config, seed=seed))
            for seed in range(arguments.seeds)
        ]
        rows.append(row(label, outcomes))
        print(rows[-1], flush=True)
    if arguments.variants:
        return
    write_section(
        [
            "100 videos of real CCTV in four folds that share no source; train on three, test on the fourth, i3d-rgb,",
            "every frame counted. All folds' frames together; mean ± sd over seeds "
            f"0 to {arguments.seeds - 1}; FAR and TPR at threshold 0.5.",
            "",
            "| detector | AUC % | AP % | AUC abnormal % | FAR normal % | TPR % | mean fold AUC % | folds % |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"`python benchmarks/cctv_montage.py --features DIR --seeds {arguments.seeds}`, "
            f"{datetime.date.today()}, xelvad {__version__}, torch {torch.__version__}, CPU.",
        ]
    )


if __name__ == "__main__":
    main()
