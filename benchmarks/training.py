"""SRF+XEL training against the way the published script works: pairs a second, and against what a GEMM allows.

    python benchmarks/training.py --folder DIR

DIR is filled on the first run with the features of 810 abnormal and 800 normal made-up videos, 450 clips of 4096
numbers each. The videos share 160 files, so that they stay in the system's cache while speed is measured. All figures
are taken in one run, in turns, so that their ratios hold when the machine's speed drifts; absolute times are this
machine's.
``--memory srf`` measures memory instead, on features as many as UCF-Crime's.

The reference step does what the published one does, written anew from its description: one pair a step, both files read
within the step, scikit-learn's 2-means with ten restarts, the whole bank scored with gradient, losses fetched at every
step. After every epoch it scores all normal videos one by one, as we do, in float32. It runs in processes of its own,
since ours tell the system to leave freed memory with them.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from made_up_features import ABNORMAL, BANK, CLIPS, EXTRACTOR, FEATURE_DIM, make_data, make_sparse_data
from results import write_section
from sklearn.cluster import KMeans
from torch import Tensor, nn

from xelvad import __version__
from xelvad.extractors import spec_of
from xelvad.models import Detector
from xelvad.pipeline.datasets import Dataset
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.features.scaling import Scaling
from xelvad.pipeline.features.store import Features, FeatureStore
from xelvad.pipeline.scoring.inference import score_clips
from xelvad.pipeline.training.config import TrainingConfig, XELConfig
from xelvad.pipeline.training.data import TrainingData, load_training_data
from xelvad.pipeline.training.loop import fit
from xelvad.pipeline.training.recipes import load_recipe

P = ParamSpec("P")
R = TypeVar("R")

SECTION = "Training"
CONFIG = TrainingConfig(
    detector="srf",
    extractor=EXTRACTOR,
    iterations=ABNORMAL,
    batch=1,
    learning_rate=5e-5,
    weight_decay=5e-5,
    betas=(0.5, 0.999),
    validation=0.0,
    evaluations=1,
    follow_test=False,
    bags=BagConfig(segments=0, scale="none"),
    xel=XELConfig(mode="epoch", warmup=0.0, margins=(1.0,)),
)


# --- the reference ---------------------------------------------------------------------------------------------------


class Reference:
    """Training as the published script does it."""

    def __init__(self, data: TrainingData, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.paths = {
            True: [features.path for features in data.abnormal.features],
            False: [features.path for features in data.normal.features],
        }
        self.first = nn.Sequential(nn.Linear(FEATURE_DIM, 512), nn.ReLU(), nn.Dropout(0.6))
        self.second = nn.Sequential(nn.Linear(512, 32), nn.Dropout(0.6), nn.Linear(32, 1), nn.Sigmoid())
        for layer in [*self.first, *self.second]:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        self.modules = nn.ModuleList([self.first, self.second])
        self.optimiser = torch.optim.Adam(
            self.modules.parameters(), lr=5e-5, weight_decay=5e-5, betas=(0.5, 0.999), foreach=False
        )
        self.bank = torch.full((BANK, FEATURE_DIM), 0.5)

    def score(self, features: Tensor) -> Tensor:
        """In evaluation mode, without gradient."""
        self.modules.eval()
        with torch.no_grad():
            return self.second(self.first(features)).squeeze(-1)

    def step(self) -> dict[str, float]:
        self.modules.train()
        videos = [np.load(self.paths[label][self.rng.integers(len(self.paths[label]))]) for label in (True, False)]
        features = torch.from_numpy(np.concatenate(videos))
        hidden = self.first(features)
        scores = self.second(hidden).squeeze(-1)
        points = hidden.detach().numpy()
        abnormal, normal = scores[:CLIPS], scores[CLIPS:]
        clusters = [KMeans(2, n_init=10).fit(half) for half in (points[:CLIPS], points[CLIPS:])]
        labels = torch.from_numpy(clusters[0].labels_.astype(np.float32))
        apart, together = (float(np.linalg.norm(c.cluster_centers_[0] - c.cluster_centers_[1])) for c in clusters)
        bank_scores = self.second(self.first(self.bank)).squeeze(-1)
        losses = {
            "regression": F.mse_loss(abnormal, labels) + F.mse_loss(normal, torch.zeros(CLIPS)),
            "cluster": torch.tensor(0.05 * (1 / max(apart, 1e-6) + min(together, 1.0))),
            "validation": bank_scores.mean(),
            "margin": F.relu(1.0 - abnormal.max() + bank_scores).mean(),
        }
        total = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        return {name: loss.item() for name, loss in losses.items()}

    def refresh(self, videos: int = BANK) -> None:
        for row, path in enumerate(self.paths[False][:videos]):
            features = torch.from_numpy(np.load(path))
            self.bank[row] = features[self.score(features).argmax()]


def in_fresh_process(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


def reference_epoch(data: TrainingData, steps: int, videos: int) -> float:
    """Pairs a second over an epoch with its refresh, from so many steps and so many videos of the refresh."""
    reference = Reference(data)
    reference.step()
    step = seconds(reference.step, steps)
    refresh = seconds(lambda: reference.refresh(videos), 1) / videos
    return ABNORMAL / (ABNORMAL * step + BANK * refresh)


# --- ours, and what is possible --------------------------------------------------------------------------------------


def our_epoch(data: TrainingData, batch: int, pairs: int = ABNORMAL) -> float:
    """Pairs a second over one epoch of `fit`: reading, 2-means, the bank's refresh and the checkpoint included."""
    steps = pairs // batch
    config = replace(CONFIG, batch=batch, iterations=steps)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(data.abnormal, data.normal, config, Path(folder), judges={}, identity={})
        return steps * batch / (time.perf_counter() - began)


def gemm_pairs(batch: int, repeats: int = 20) -> float:
    """Pairs a second if a step were nothing but its matrix products with the first layer, in float32."""
    weight, bank = torch.randn(512, FEATURE_DIM), torch.randn(BANK, FEATURE_DIM)
    clips = torch.randn(2 * batch * CLIPS, FEATURE_DIM)
    clips_gradient, bank_gradient = torch.randn(len(clips), 512), torch.randn(BANK, 512)

    def products() -> None:
        for inputs, gradient in ((clips, clips_gradient), (bank, bank_gradient)):
            F.linear(inputs, weight)
            gradient.t() @ inputs

    products()
    return batch / statistics.median(seconds(products, 1) for _ in range(repeats))


def seconds(action: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - began) / repeats


# --- wall time to the same validation AUC ----------------------------------------------------------------------------


def video_auc(score: Callable[[Features], float], validation: list[tuple[Features, bool]]) -> float:
    scores = {label: [score(features) for features, abnormal in validation if abnormal == label] for label in (0, 1)}
    higher = np.subtract.outer(scores[1], scores[0])
    return float((np.sign(higher) + 1).mean() / 2)


class ReachedError(Exception):
    """A training has come as far as was asked."""


def our_seconds_to(data: TrainingData, target: float, batch: int, every: int, seed: int) -> tuple[float, int]:
    """Seconds and pairs until the AUC of the validation videos has reached ``target``; judging does not count."""
    validation, spent = list(data.validation), 0.0
    pairs = [0]

    def judge(detector: Detector) -> float:
        nonlocal spent
        began = time.perf_counter()
        auc = video_auc(lambda features: float(score_clips(detector, features, Scaling("none")).max()), validation)
        pairs[0] += every
        spent += time.perf_counter() - began
        if auc >= target:
            raise ReachedError
        return auc

    steps = 40 * every // batch
    # The same mistakes as the reference's: the two learn the same way, so that their times may be compared.
    config = replace(CONFIG, batch=batch, iterations=steps, evaluations=40, seed=seed, quirks="official")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(data.abnormal, data.normal, config, Path(folder), judges={"validation": judge}, identity={})
        except ReachedError:
            return time.perf_counter() - began - spent, pairs[0]
    return float("inf"), pairs[0]


def reference_seconds_to(data: TrainingData, target: float, every: int, seed: int) -> tuple[float, int]:
    """The same for the reference."""
    reference, total = Reference(data, seed), 0.0
    for pairs in range(every, 41 * every, every):
        total += seconds(reference.step, every) * every
        auc = video_auc(
            lambda features: float(reference.score(torch.from_numpy(np.load(features.path))).max()),
            list(data.validation),
        )
        if auc >= target:
            return total, pairs
    return float("inf"), 40 * every


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure_speed(data: TrainingData, rounds: int) -> dict[str, list[float]]:
    """All rates and ratios, one value a round."""
    found: dict[str, list[float]] = {}
    our_epoch(data, batch=1, pairs=1)  # PyTorch imports a second's worth of modules when it is first used
    for _ in range(rounds):
        reference = in_fresh_process(reference_epoch, data, steps=30, videos=50)
        found.setdefault("reference, pairs/s", []).append(reference)
        for batch in (1, 8):
            before = gemm_pairs(batch)
            ours = our_epoch(data, batch)
            possible = (before + gemm_pairs(batch)) / 2
            for name, value in (
                ("pairs/s", ours),
                ("times the reference", ours / reference),
                ("share of what the GEMM allows", ours / possible),
            ):
                found.setdefault(f"batch {batch}, {name}", []).append(value)
        print({name: round(values[-1], 2) for name, values in found.items()}, flush=True)
    return found


def measure_time(dataset: Dataset, folder: Path, target: float, seeds: int) -> list[str]:
    """Rows of the table of wall time until the validation videos' AUC has reached ``target``, one for each way."""
    every = 40  # pairs between two looks at the validation videos
    ways = {
        "reference, batch 1": lambda data, seed: in_fresh_process(reference_seconds_to, data, target, every, seed),
        "ours, batch 1": lambda data, seed: our_seconds_to(data, target, 1, every, seed),
        "ours, batch 8": lambda data, seed: our_seconds_to(data, target, 8, every, seed),
    }
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for seed in range(seeds):
        config = replace(CONFIG, validation=0.05, seed=seed)
        data = load_training_data(dataset, FeatureStore(folder, EXTRACTOR), config)
        for name, way in ways.items():
            results[name].append(way(data, seed))
            print(name, seed, results[name][-1], flush=True)
    return [
        f"| {name} | {spread([wall for wall, _ in runs])} | {spread([pairs for _, pairs in runs])} |"
        for name, runs in results.items()
    ]


def print_memory(detector: str, feature_dim: int | None) -> None:
    """Train for one epoch of the recipe for UCF-Crime, over as many features; print the memory needed."""
    config = load_recipe(f"ucf-crime/{detector}+xel")
    feature_dim = feature_dim or spec_of(config.extractor).feature_dim
    config = replace(config, extractor=EXTRACTOR, validation=0.0, follow_test=False)
    config = replace(config, iterations=-(-ABNORMAL // config.batch), evaluations=1, xel=CONFIG.xel)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_sparse_data(Path(folder, "features"), feature_dim)
        data = load_training_data(dataset, FeatureStore(dataset.root, EXTRACTOR), config)
        fit(data.abnormal, data.normal, config, Path(folder, "run"), judges={}, identity={})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    settings = f"{feature_dim} numbers a clip, {config.iterations} iterations at batch {config.batch}"
    print(f"{detector}: {settings}, at most {peak} MiB resident")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of the made-up features, filled on the first run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.95, help="AUC of the validation videos to reach")
    parser.add_argument("--memory", choices=["mil", "srf", "ar-net"], help="print what this needs over 13 GB instead")
    parser.add_argument("--feature-dim", type=int, help="with --memory: numbers a clip; the recipe's by default")
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory(arguments.memory, arguments.feature_dim)
        return
    if arguments.folder is None:
        parser.error("--folder is needed")
    dataset = make_data(arguments.folder)
    data = load_training_data(dataset, FeatureStore(arguments.folder, EXTRACTOR), CONFIG)
    found = measure_speed(data, arguments.rounds)
    rows = measure_time(dataset, arguments.folder, arguments.target, arguments.rounds)
    write_section(
        SECTION,
        [
            "SRF+XEL, whole videos of 450 clips of 4096 numbers, a bank of 800; an epoch of 810 pairs with reading,",
            "2-means, the bank's refresh and a checkpoint, against a step written as the published script works (with",
            f"the same refresh). Mean (lowest to highest) of {arguments.rounds} rounds in one run:",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {spread(values)} |" for name, values in found.items()),
            "",
            f"Wall time until the AUC of 80 validation videos reaches {arguments.target}, judging not counted, over",
            f"seeds 0 to {arguments.rounds - 1}; all make the published script's mistakes, so as to learn alike:",
            "",
            "| | s | pairs |",
            "|---|---|---|",
            *rows,
            "",
            f"`python benchmarks/training.py --folder DIR --rounds {arguments.rounds}`, {datetime.date.today()}, "
            f"xelvad {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads.",
        ],
    )


if __name__ == "__main__":
    main()
