"""Real CCTV: cross-validates all detectors, with and without XEL, over the four folds of the CCTV montage.

    XELVAD_SHARED=/path/to/data python benchmarks/cctv_montage.py --features DIR --runs DIR --seeds 5

A single split of 100 videos proves nothing: single folds lie 15 points and more apart. So every fold is the test set
once, and figures are given as mean ± standard deviation over the seeds. Settings are those of ``recipes/general``.
``--quirks`` measures what each mistake of the published script changes instead, ``--variants`` how XEL is set in, and
``--extractors`` MIL and MIL+XEL on the features of each network that is named.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from results import write_section

from xelvad import __version__
from xelvad.pipeline.ablation import Outcome, cross_validate, folds_of
from xelvad.pipeline.extraction import extract
from xelvad.pipeline.recipes import load_recipe
from xelvad.pipeline.settings import QUIRKS, ExtractionConfig, TrainingConfig, XELConfig
from xelvad.pipeline.videos import find_videos

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"svm": "SVM", "mil": "MIL", "srf": "SRF", "ar-net": "AR-Net"}
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


def configurations() -> dict[str, TrainingConfig]:
    """All detectors, without XEL and with both ways to renew its bank."""
    found = {}
    for detector, name in NAMES.items():
        config = load_recipe(f"general/{detector}")
        found[name] = config
        if detector != "svm":
            found[f"{name}+XEL"] = replace(config, xel=replace(config.xel, mode="epoch"))
            found[f"{name}+XEL, batch-wise"] = replace(config, xel=replace(config.xel, mode="batch"))
    return found


def quirk_configurations() -> dict[str, TrainingConfig]:
    """SRF+XEL with each mistake of the published script, and with all."""
    config = load_recipe("general/srf")
    config = replace(config, xel=replace(config.xel, mode="epoch"))
    return {"none": config} | {quirk: replace(config, quirks=quirk) for quirk in (*QUIRKS, "official")}


def variant_configurations() -> dict[str, TrainingConfig]:
    """When XEL may set in, and how strongly."""
    found = {}
    for detector in ("mil", "srf", "ar-net"):
        config, name = load_recipe(f"general/{detector}"), NAMES[detector]
        found[f"{name}, no XEL"] = config
        paper = XELConfig(mode="epoch")
        for label, xel in {
            "the paper's: λ = 1, warm-up 15 %": paper,
            "no margin loss": replace(paper, margin_weight=0.0),
            "no validation loss": replace(paper, validation_weight=0.0),
            "λ = 0.1": replace(paper, validation_weight=0.1, margin_weight=0.1),
        }.items():
            found[f"{name}+XEL, {label}"] = replace(config, xel=xel)
    return found


def extractor_configurations(extractors: list[str]) -> dict[str, TrainingConfig]:
    """MIL and MIL+XEL on the features of each extractor."""
    config = load_recipe("general/mil")
    ways = {"MIL": config, "MIL+XEL": replace(config, xel=replace(config.xel, mode="epoch"))}
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
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--quirks", action="store_true", help="SRF+XEL with the published script's mistakes instead")
    kinds.add_argument("--variants", action="store_true", help="other settings of XEL instead")
    kinds.add_argument("--extractors", nargs="+", help="MIL and MIL+XEL on the features of these instead")
    arguments = parser.parse_args()
    data = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data")) / "cctv_montage"
    extractors = arguments.extractors or ["i3d-rgb"]
    failed = extract(find_videos([data]), arguments.features, ExtractionConfig(extractor=tuple(extractors))).failed
    if failed:
        raise SystemExit(f"cannot be read: {failed}")
    if arguments.quirks:
        title, option, found = (
            "CCTV montage: quirks of the published script, SRF+XEL",
            "--quirks",
            quirk_configurations(),
        )
    elif arguments.variants:
        title, option, found = "CCTV montage: settings of XEL", "--variants", variant_configurations()
    elif arguments.extractors:
        title, option, found = (
            "CCTV montage: features of each network whose weights are at hand",
            f"--extractors {' '.join(extractors)}",
            extractor_configurations(extractors),
        )
    else:
        title, option, found = "CCTV montage", "", configurations()
    tasks = [
        Task(label, data / "annotations.csv", arguments.features, arguments.runs, replace(config, seed=seed))
        for label, config in found.items()
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
        title,
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
            f"`python benchmarks/cctv_montage.py --features DIR --runs DIR --seeds {arguments.seeds} {option}".rstrip()
            + f"`, {datetime.date.today()}, xelvad {__version__}, torch {torch.__version__}, CPU.",
        ],
    )


if __name__ == "__main__":
    main()
