"""Precisions: how fast each is, how near its features are to those in float32, and what a detector makes of them.

    XELVAD_SHARED=/path/to/data python benchmarks/precision.py --features DIR --runs DIR --seeds 5 --pairs 3

Precisions take turns, so that ratios hold when the machine's speed drifts. Weights are the
published ones where they are at hand, else random: those change no speed, and say little about features.
The parity of I3D is that of every clip of the CCTV montage; hard pictures are black, white, noise and a flash.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from extraction import BATCH, Figures, inputs_of, seconds_per_clip
from numpy.typing import NDArray
from results import write_section

from xelvad import __version__
from xelvad.extractors import EXTRACTORS, create_extractor
from xelvad.extractors.precision import Precision
from xelvad.extractors.runtimes import Engine
from xelvad.extractors.weights import weights_of
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.experiments.ablation.ablate import cross_validate
from xelvad.pipeline.experiments.trainings import folds_of
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import extract
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.footage.calibration import DRAWN_FOOTAGE
from xelvad.pipeline.footage.recording import draw_video
from xelvad.pipeline.scoring.runs import load_run, seed_folder
from xelvad.pipeline.support.memory import keep_freed_memory
from xelvad.pipeline.training.config import TrainingConfig
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.videos.sources import find_videos

ROOT = Path(__file__).resolve().parent.parent
MONTAGE = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data")) / "cctv_montage"
NETWORKS = ("i3d-rgb", "c3d", "i3d-r50", "r3d-18", "s3d", "swin3d-t")
KNOWN = "i3d-rgb"  # the one whose weights anybody gets from a package index
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
TURNS = 3  # of the precisions of a network, within a process
SHORT, LONG = 16, 112  # clips of the two videos whose difference in time is that of the clips alone
WORKERS = 2  # trainings at once, of one thread each


def weights_for(network: str) -> str | None:
    """The network's own where they are at hand."""
    return None if all(known.is_here for known in weights_of(EXTRACTORS[network])) else "random"


def precisions_of(network: str) -> tuple[Precision, ...]:
    """Random weights would be quantised anew by each process, to no purpose."""
    return PRECISIONS if weights_for(network) is None else PRECISIONS[:2]


# --- what fresh processes measure ------------------------------------------------------------------------------------


def hard_clips() -> dict[str, NDArray[np.uint8]]:
    flash = np.zeros((16, 240, 320, 3), np.uint8)
    flash[8] = 255
    noise = np.random.default_rng(0).integers(0, 256, flash.shape, np.uint8)
    return {"black": np.zeros_like(flash), "white": np.full_like(flash, 255), "noise": noise, "flash": flash}


def network(name: str) -> dict[str, float]:
    """Seconds a clip of the network alone, by precision, in turns; cosines with plain features of hard pictures."""
    keep_freed_memory()
    extractor = create_extractor(name, weights_for(name))
    inputs, found = inputs_of(extractor), {}
    engines = {
        precision: Engine(extractor, "openvino", "cpu", precision, DRAWN_FOOTAGE) for precision in precisions_of(name)
    }
    for turn in range(TURNS):
        for precision, engine in engines.items():
            found[f"{precision} {turn}"] = seconds_per_clip(lambda engine=engine: engine(inputs), BATCH)
    for kind, clip in hard_clips().items():
        shown = extractor.preprocess(clip[None])
        plain = extractor(shown).numpy()
        for precision, engine in engines.items():
            found[f"{precision} {kind}"] = float(cosine(engine([shown[0]]), plain).min())
    return found


def file_to_features(name: str, precision: Precision) -> dict[str, float]:
    """Seconds a clip, from a video file to a feature file."""
    config = ExtractionConfig((name,), weights_for(name), device="cpu", precision=precision)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for clips in (SHORT, LONG):
            video = Path(folder, f"{clips}.mp4")
            draw_video(video, frames=16 * clips, anomaly=None, seed=0)
            began = time.perf_counter()
            extract(find_videos([video]), Path(folder, f"features-{clips}"), config)
            took.append(time.perf_counter() - began)
    return {"seconds": (took[1] - took[0]) / (LONG - SHORT)}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {"network": network, "file": file_to_features}


# --- features and what a detector makes of them ----------------------------------------------------------------------


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return found


def parity(features: Path, precision: str) -> NDArray[np.float32]:
    """Cosines with the features in float32, of every clip of the montage."""
    plain, ours = (FeatureStore(features / kind, KNOWN) for kind in ("float32", precision))
    names = [source.name for source in find_videos([MONTAGE])]
    return np.concatenate([cosine(ours.read(name).array, plain.read(name).array) for name in names])


@dataclass(frozen=True)
class Task:
    """MIL with one seed on features in one precision."""

    features: Path
    runs: Path
    config: TrainingConfig


def auc_of(task: Task) -> float:
    """The mean of the folds' AUCs, in per cent."""
    torch.set_num_threads(1)
    (outcome,) = cross_validate(MONTAGE / "annotations.csv", task.features, task.runs, task.config)
    assert outcome.mean_fold_auc is not None
    return 100 * outcome.mean_fold_auc


def aucs(features: Path, runs: Path, seeds: int) -> dict[str, NDArray[np.float64]]:
    """By precision, one for each seed."""
    config = load_recipe("general/mil")
    tasks = [
        Task(features / precision, runs / precision, replace(config, seed=seed))
        for precision in PRECISIONS
        for seed in range(seeds)
    ]
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(auc_of, tasks))
    return dict(zip(PRECISIONS, np.reshape(found, (len(PRECISIONS), seeds)), strict=True))


def auc_of_run(run: Path, fold: str, features: Path) -> float:
    """Of the fold's frames, in per cent, by a detector that may have learned from features in another precision."""
    auc = evaluate(load_run(run), read_manifest(MONTAGE / "annotations.csv", fold), features).metrics.auc
    assert auc is not None
    return 100 * auc


def with_the_same_weights(features: Path, runs: Path, seeds: int) -> NDArray[np.float64]:
    """How the AUC changes, ``(seeds,)``, where detectors that learned in float32 are shown features in bfloat16."""
    changes = [
        [
            auc_of_run(run, fold, features / "bfloat16") - auc_of_run(run, fold, features / "float32")
            for fold in folds_of(MONTAGE / "annotations.csv")
            for run in [seed_folder(runs / "float32" / fold, seed)]
        ]
        for seed in range(seeds)
    ]
    return np.mean(changes, axis=1)


# --- the page --------------------------------------------------------------------------------------------------------


def speed_rows(figures: Figures) -> list[str]:
    rows = []
    for name in NETWORKS:
        (found,) = figures.found["network", name]
        for precision in precisions_of(name):
            seconds = [found[f"{precision} {turn}"] for turn in range(TURNS)]
            ratios = [found[f"float32 {turn}"] / one for turn, one in enumerate(seconds)]
            worst = min(hard_clips(), key=lambda kind: found[f"{precision} {kind}"])
            rows.append(
                f"| {name}{'' if weights_for(name) is None else ' (random weights)'} | {precision} "
                f"| {np.median(seconds):.3f} | {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
                f"| {found[f'{precision} {worst}']:.5f} ({worst}) |"
            )
    return rows


def file_rows(figures: Figures, features: Path, found: dict[str, NDArray[np.float64]]) -> list[str]:
    rows = []
    for precision in PRECISIONS:
        words = ("file", KNOWN, precision)
        cosines = parity(features, precision)
        gains = found[precision] - found["float32"]
        rows.append(
            f"| {precision} | {1 / figures.median('seconds', *words):.2f} "
            f"| {figures.ratio('seconds', ('file', KNOWN, 'float32'), words)} "
            f"| {cosines.min():.5f} | {np.median(cosines):.5f} "
            f"| {found[precision].mean():.2f} ± {found[precision].std(ddof=1):.2f} | {spread(gains)} |"
        )
    return rows


def spread(gains: NDArray[np.float64]) -> str:
    """Mean and standard error of paired differences."""
    return f"{gains.mean():+.3f} ± {gains.std(ddof=1) / np.sqrt(len(gains)):.3f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder of features folders, filled on the first run")
    parser.add_argument("--runs", type=Path, help="folder for runs; what is finished is not repeated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--measure", nargs="+", help="one figure, in this process")
    options = parser.parse_args()
    if options.measure:
        kind, *words = options.measure
        print(json.dumps(MEASURES[kind](*words)))
        return
    command = (
        f"python benchmarks/precision.py --features DIR --runs DIR --seeds {options.seeds} --pairs {options.pairs}"
    )
    figures = Figures(__file__)
    for name in NETWORKS:
        figures.measure("network", name)
    for _ in range(options.pairs):
        for precision in PRECISIONS:
            figures.measure("file", KNOWN, precision)
    for precision in PRECISIONS:
        config = ExtractionConfig((KNOWN,), precision=precision)
        failed = extract(find_videos([MONTAGE]), options.features / precision, config).failed
        if failed:
            raise SystemExit(f"cannot be read: {failed}")
    found = aucs(options.features, options.runs, options.seeds)
    write_section(
        "Precision",
        [
            f"Networks under OpenVINO, batches of {BATCH}, the precisions of each in {TURNS} turns within one process:",
            "medians, and of ratios the lowest and highest. Cosines are with the plain float32 network.",
            "",
            "| network | precision | s a clip | times float32 | lowest cosine of hard pictures |",
            "|---|---|---|---|---|",
            *speed_rows(figures),
            "",
            f"I3D-RGB from video file to feature file (320 x 240, H.264), marginal cost of a clip, {options.pairs}",
            "fresh processes of each precision, in turns; its cosines over all",
            f"clips of the CCTV montage; MIL on its features (general recipe, {options.seeds} seeds, four folds):",
            "",
            "| precision | clips/s, file to features | times float32 | lowest cosine | median cosine | AUC ± sd "
            "| paired difference ± standard error |",
            "|---|---|---|---|---|---|---|",
            *file_rows(figures, options.features, found),
            "",
            "Detectors that learned in float32 and are shown features in bfloat16, so that nothing else differs: the",
            f"AUC changes by {spread(with_the_same_weights(options.features, options.runs, options.seeds))}.",
            "",
            f"`{command}`, {datetime.date.today()}, xelvad {__version__},",
            f"torch {torch.__version__}, {torch.get_num_threads()} threads.",
        ],
    )


if __name__ == "__main__":
    main()
