"""Do the general recipes learn, whatever the number of videos and of dimensions? Made-up features, planted anomalies.

    python benchmarks/sizes.py --folder DIR --seeds 1

Clips are mixtures of eight hidden causes with a little noise; in three clips of an abnormal video one cause is four
standard deviations higher. "alike": every dimension varies as much as any other; "measurements": over four orders of
magnitude, as places, speeds and counts do. Forty more videos are the test set. Nothing is set by hand: these are the
`general` recipes as they are. ``--videos`` and ``--detectors`` measure some only, in a section of their own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from made_up_features import EXTRACTOR, sidecar_of
from results import write_section

from xelvad import __version__
from xelvad.pipeline.datasets import Dataset, LabelledVideo
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.scoring.runs import load_run
from xelvad.pipeline.training.config import XELConfig
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.training.train import train

DETECTORS = {"mil": "MIL", "srf": "SRF", "ar-net": "AR-Net"}
XELS = {"": XELConfig(), "+XEL": XELConfig(mode="epoch")}
VIDEOS = (20, 200, 2000)
FEATURES = {"16, measurements": (16, True), "256, alike": (256, False), "4096, alike": (4096, False)}
TESTS, CAUSES, ANOMALOUS, STRENGTH = 40, 8, 3, 4.0


def make(folder: Path, videos: int, dimensions: int, uneven: bool, seed: int) -> Dataset:
    """Features of so many training videos, every second one abnormal, and of the test videos."""
    rng = np.random.default_rng([seed, videos, dimensions])
    mixture = rng.normal(size=(CAUSES, dimensions)) / np.sqrt(CAUSES)
    scales = 10 ** rng.uniform(-2, 2, dimensions) if uneven else np.ones(dimensions)
    store, made = FeatureStore(folder, EXTRACTOR), []
    for number in range(videos + TESTS):
        name, abnormal, clips = f"{number:04}.mp4", number % 2 == 1, int(rng.integers(8, 33))
        causes = rng.normal(size=(clips, CAUSES))
        start = int(rng.integers(clips - ANOMALOUS))
        if abnormal:
            causes[start : start + ANOMALOUS, 0] += STRENGTH
        features = (causes @ mixture + 0.1 * rng.normal(size=(clips, dimensions))) * scales
        with store.write(name, dimensions) as writer:
            writer.append(features.astype(np.float32))
            writer.finish(sidecar_of(name, clips, dimensions))
        spans = ((16 * start, 16 * (start + ANOMALOUS)),) if abnormal else ()
        made.append(LabelledVideo(name, "train" if number < videos else "test", abnormal, spans=spans))
    return Dataset(EXTRACTOR, folder, tuple(made), f"{videos} {dimensions} {uneven} {seed}")


def measure(folder: Path, dataset: Dataset, detector: str, xel: str, seed: int) -> tuple[float, int, float, str]:
    """AUC of the test frames in per cent, iterations, iterations a second, verdict."""
    config = load_recipe(f"general/{detector}")
    config = replace(config, extractor=EXTRACTOR, seed=seed, follow_test=False, xel=XELS[xel])
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    began = time.perf_counter()
    train(dataset, folder, run, config)
    seconds = time.perf_counter() - began
    metrics = json.loads((run / "metrics.json").read_text())
    iterations = metrics["weights"]["last"]["iteration"]
    auc = evaluate(load_run(run), dataset, folder).metrics.auc
    assert auc is not None, "the montage has anomalous and normal frames"
    return 100 * auc, iterations, iterations / seconds, metrics["learned"]["verdict"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the features, up to 700 MB")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--videos", type=int, nargs="+", default=list(VIDEOS))
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    options = parser.parse_args()
    whole = (options.videos, options.detectors) == (list(VIDEOS), list(DETECTORS))
    some = f" --videos {' '.join(map(str, options.videos))} --detectors {' '.join(options.detectors)}"
    rows = []
    for videos, (kind, (dimensions, uneven)) in product(options.videos, FEATURES.items()):
        found: dict[tuple[str, str], list[tuple[float, int, float, str]]] = {}
        for seed in range(options.seeds):
            shutil.rmtree(options.folder, ignore_errors=True)
            dataset = make(options.folder, videos, dimensions, uneven, seed)
            for case in product(options.detectors, XELS):
                found.setdefault(case, []).append(measure(options.folder, dataset, *case, seed))
        for (detector, xel), results in found.items():
            aucs, iterations, speeds, verdicts = zip(*results, strict=True)
            name = DETECTORS[detector] + xel
            spread = f" ± {np.std(aucs, ddof=1):.1f}" if len(aucs) > 1 else ""
            cells = [f"{videos}", kind, name, f"{np.mean(aucs):.1f}{spread}", f"{np.mean(iterations):.0f}"]
            cells += [f"{np.mean(speeds):.0f}", ", ".join(sorted(set(verdicts)))]
            rows.append(f"| {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    write_section(
        "The general recipes over sizes" + ("" if whole else f": {', '.join(DETECTORS[d] for d in options.detectors)}"),
        [
            f"Made-up features with planted anomalies; {TESTS} further videos are the test set. Iterations a second",
            "count the whole training: reading, judging, writing.",
            "",
            "| training videos | numbers a clip | detector | AUC % | iterations | iterations a second | it says |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"`python benchmarks/sizes.py --folder DIR --seeds {options.seeds}{'' if whole else some}`,",
            f"{datetime.date.today()}, xelvad {__version__}, torch {torch.__version__},",
            f"{torch.get_num_threads()} threads, CPU.",
        ],
    )


if __name__ == "__main__":
    main()
