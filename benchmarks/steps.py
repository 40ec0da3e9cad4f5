"""Steps of training a second: general recipes on real features, reading, judging and writing included.

    XELVAD_SHARED=/path/to/data python benchmarks/steps.py --tracks DIR --montage DIR --seeds 3

The folders are those that `benchmarks/xel.py` fills. Each detector is trained without XEL and with it, epoch-wise, each
seed on a fold of its own, one after the other, by as many threads as PyTorch takes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from results import write_section
from xel import DATA, DETECTORS, EXTRACTORS, manifest_of

from xelvad import __version__
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.experiments.trainings import folds_of
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.training.train import train

AIM: dict[Literal["off", "epoch"], int] = {"off": 300, "epoch": 150}  # steps a second


def measure(data: str, features: Path, detector: str, mode: Literal["off", "epoch"], seed: int) -> tuple[int, float]:
    """Steps of one training, and steps a second."""
    manifest = manifest_of(data)
    folds = folds_of(manifest)
    config = load_recipe(f"general/{detector}")
    config = replace(config, extractor=EXTRACTORS[data], seed=seed, follow_test=False)
    config = replace(config, xel=replace(config.xel, mode=mode))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(read_manifest(manifest, folds[seed % len(folds)]), features, Path(folder, "run"), config)
        seconds = time.perf_counter() - began
        steps = json.loads(Path(folder, "run", "metrics.json").read_text())["weights"]["last"]["iteration"]
    return steps, steps / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for data, title in DATA.items():
        parser.add_argument(f"--{data}", type=Path, required=True, help=f"features of {title}")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for data, title in DATA.items():
        for detector, name in DETECTORS.items():
            for mode, aim in AIM.items():
                found = [measure(data, getattr(options, data), detector, mode, seed) for seed in range(options.seeds)]
                steps, rates = np.array(found).T
                xel = "" if mode == "off" else "+XEL"
                cells = [title, name + xel, f"{steps.mean():.0f}", f"{rates.mean():.0f}"]
                cells += [f"{rates.min():.0f} to {rates.max():.0f}", f"{aim}"]
                rows.append(f"| {' | '.join(cells)} |")
                print(rows[-1], flush=True)
    write_section(
        "Training: steps a second",
        [
            "General recipes on real features, one training after the other; reading, judging and writing included.",
            "",
            "| | | steps | a second | lowest to highest | aimed at |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"`python benchmarks/steps.py --tracks DIR --montage DIR --seeds {options.seeds}`,",
            f"{datetime.date.today()}, xelvad {__version__}, torch {torch.__version__},",
            f"{torch.get_num_threads()} threads, CPU.",
        ],
    )


if __name__ == "__main__":
    main()
