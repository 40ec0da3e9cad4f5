"""In which regime cross-epoch learning helps MIL, and where it harms: made-up bags, with and without XEL in pairs.

    python benchmarks/when_xel_helps.py --seeds 5

There are as many videos as UCF-Crime has, of lengths as uneven, each a bag of 32 segments. A clip is the video's scene,
noise, and what happens: nothing; an anomaly, which is displaced along a direction *a*; or something *hard normal*,
which is displaced along *a* as far and also along a second direction *b*, the only one in which the two differ. Hard
normal events occur in a share of the videos, their rarity, in training and test, in normal and abnormal videos alike.
MIL is trained plainly and with XEL on the same data, in the same order, from the same weights and with the same
dropout, so that differences are XEL's. Test videos are scored clip by clip; hard normal clips also on 2,000 of their
own, since test videos hold too few of them to count. ``--quick`` is a trial: it prints, and writes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_up_features import ABNORMAL, BANK, UCF_CLIPS
from numpy.typing import NDArray
from results import RESULTS, write_section
from sklearn.metrics import roc_auc_score
from torch import Tensor

from xelvad import __version__
from xelvad.models import MIL, XEL, Bags, MarginSchedule, hardest
from xelvad.pipeline.reports.plots import GUIDE, MARK, PALETTE, drawing

FIGURE = RESULTS.with_name("when_xel_helps.svg")

NORMAL = BANK  # training videos; a row of the bank for each
TEST_ABNORMAL, TEST_NORMAL = 140, 150  # as UCF-Crime's
HARD_CLIPS = 2_000  # of videos of their own
SEGMENTS, FEATURE_DIM = 32, 16
SIGMA = 1.2  # of the logarithm of a video's length
MEAN_CLIPS = UCF_CLIPS / (ABNORMAL + NORMAL)
SCENE = 0.5  # standard deviation of what all clips of a video share; that of a clip's noise is 1
EVENT = (0.05, 0.15)  # share of a video that an event fills
HIT_RATE = 0.9


@dataclass(frozen=True)
class Cell:
    """One kind of videos, and how long MIL learns from them.

    Attributes:
        rarity: share of the videos with a hard normal event.
        separation: length of a hard normal clip's displacement along b, in standard deviations of a clip's noise.
        displacement: length of an event's displacement along a, in the same unit.
        mislabelled: share of the "normal" training videos that hold an anomaly.
        iterations: of training.
        batch: videos of each kind in a batch.
    """

    rarity: float
    separation: float
    displacement: float = 5.0
    mislabelled: float = 0.0
    iterations: int = 400
    batch: int = 30


@dataclass(frozen=True)
class Variant:
    """One way to add XEL: both of its weights, and how many normal videos, drawn at random, may enter the bank."""

    weight: float = 1.0
    rows: int = NORMAL


@dataclass(frozen=True)
class Measured:
    """What is measured on the test clips, as shares of 1.

    Attributes:
        auc: of all clips.
        alarms: share of the clips without anomaly above the threshold at which 90 % of the anomalous clips are hit.
        hard_alarms: the same share of the hard normal clips.
        hard_half: share of the hard normal clips that score 0.5 or more.
        hits_half: share of the anomalous clips that do.
    """

    auc: float
    alarms: float
    hard_alarms: float
    hard_half: float
    hits_half: float


TITLES = {
    "auc": "AUC %",
    "alarms": "false alarms at 90 % hits, %",
    "hard_alarms": "hard normal clips above that threshold, %",
    "hard_half": "hard normal clips ≥ 0.5, %",
    "hits_half": "hits ≥ 0.5, %",
}

RARITIES, SEPARATIONS = (0.005, 0.02, 0.05, 0.2, 0.5), (1.0, 2.0, 3.0)
RARE, COMMON = Cell(0.02, 3.0), Cell(0.2, 1.0)  # the two that are varied

Point = tuple[float, Cell, Variant]  # what is varied, and what comes of it
Results = dict[tuple[Cell, Variant | None], list[Measured]]  # None: without XEL; of each seed

GRID: dict[float, list[Point]] = {b: [(100 * r, Cell(r, b), Variant()) for r in RARITIES] for b in SEPARATIONS}
SWEEPS: dict[str, list[Point]] = {
    "λ = {:g}": [(weight, RARE, Variant(weight)) for weight in (0.1, 0.3, 1.0, 3.0)],
    "common, λ = {:g}": [(weight, COMMON, Variant(weight)) for weight in (0.1, 0.3, 1.0, 3.0)],
    "{:g} rows in the bank": [(rows, RARE, Variant(rows=rows)) for rows in (25, 100, 400, NORMAL)],
    "{:g} iterations": [(steps, replace(RARE, iterations=steps), Variant()) for steps in (150, 400, 1000)],
    "{:g} % mislabelled": [(100 * share, replace(RARE, mislabelled=share), Variant()) for share in (0.0, 0.02, 0.1)],
    "displacement {:g} along a": [(shift, replace(RARE, displacement=shift), Variant()) for shift in (3.0, 5.0)],
    "batch {0:g} + {0:g}": [(size, replace(RARE, batch=size), Variant()) for size in (4, 30)],
}
COLUMNS = {  # columns of the figure: their sweeps, the first being the grid
    "Videos with hard\nnormal events (%)": [],
    "Weight λ of\nboth losses": ["common, λ = {:g}", "λ = {:g}"],
    "Rows in\nthe bank": ["{:g} rows in the bank"],
    "Iterations of\ntraining": ["{:g} iterations"],
    "Mislabelled normal\nvideos (%)": ["{:g} % mislabelled"],
}
ROWS = {
    "hard_alarms": "Change of hard normal\nclips alarmed (points)\n← XEL helps",
    "auc": "Change of AUC\n(points)\nXEL helps →",
}


# --- the videos ------------------------------------------------------------------------------------------------------


Video = tuple[NDArray[np.float32], NDArray[np.bool_]]  # displacement along a and b, (T, 2); what is anomalous, (T,)


def make_video(rng: np.random.Generator, cell: Cell, hard: bool, anomalous: bool) -> Video:
    length = max(SEGMENTS, int(rng.lognormal(np.log(MEAN_CLIPS) - SIGMA**2 / 2, SIGMA)))
    shifts, truth = np.zeros((length, 2), np.float32), np.zeros(length, np.bool_)
    # Of two at once the anomaly is seen.
    for happens, along_b, is_anomaly in ((hard, cell.separation, False), (anomalous, 0.0, True)):
        if happens:
            clips = int(length * rng.uniform(*EVENT)) or 1
            start = int(rng.integers(length - clips + 1))
            shifts[start : start + clips] = cell.displacement, along_b
            truth[start : start + clips] = is_anomaly
    return shifts, truth


def make_videos(rng: np.random.Generator, cell: Cell, count: int, anomalies: float) -> list[Video]:
    """So many videos, of which a share holds anomalies and, independently, a share of the cell's rarity hard events."""
    hard, anomalous = (rng.permutation(count) < round(share * count) for share in (cell.rarity, anomalies))
    return [make_video(rng, cell, bool(h), bool(a)) for h, a in zip(hard, anomalous, strict=True)]


def segments_of(rng: np.random.Generator, shifts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of a video's segments, ``(32, F)``, each the mean of its clips: the longer it is, the less noise."""
    edges = np.linspace(0, len(shifts), SEGMENTS + 1).astype(int)
    clips = np.diff(edges)[:, None]
    return features_of(rng, np.add.reduceat(shifts, edges[:-1]) / clips, clips)


def features_of(rng: np.random.Generator, shifts: NDArray[Any], clips: NDArray[Any] | int = 1) -> NDArray[np.float32]:
    """Scene, noise of a mean of so many clips, displacement along the first two axes: ``(n, 2), (n, 1) -> (n, F)``."""
    features = SCENE * rng.standard_normal(FEATURE_DIM, np.float32)
    features = features + rng.standard_normal((len(shifts), FEATURE_DIM), np.float32) / np.sqrt(clips)
    features[:, :2] += shifts
    return features.astype(np.float32)


@dataclass(frozen=True)
class Data:
    """Training bags ``(videos, 32, F)``, test clips ``(n, F)`` with truth ``(n,)``, hard normal clips ``(n, F)``."""

    abnormal: Tensor
    normal: Tensor
    clips: Tensor
    truth: NDArray[np.bool_]
    hard: Tensor


def make_data(cell: Cell, seed: int) -> Data:
    rng = np.random.default_rng(seed)
    training = [make_videos(rng, cell, ABNORMAL, 1.0), make_videos(rng, cell, NORMAL, cell.mislabelled)]
    bags = [torch.from_numpy(np.stack([segments_of(rng, shifts) for shifts, _ in videos])) for videos in training]
    test = make_videos(rng, cell, TEST_ABNORMAL, 1.0) + make_videos(rng, cell, TEST_NORMAL, 0.0)
    clips = np.concatenate([features_of(rng, shifts) for shifts, _ in test])
    shift = np.array([[cell.displacement, cell.separation]], np.float32)
    hard = np.concatenate([features_of(rng, shift) for _ in range(HARD_CLIPS)])
    truth = np.concatenate([truth for _, truth in test])
    return Data(bags[0], bags[1], torch.from_numpy(clips), truth, torch.from_numpy(hard))


# --- training --------------------------------------------------------------------------------------------------------


def train(data: Data, cell: Cell, seed: int, variant: Variant | None) -> MIL:
    """MIL as in ``recipes/general/mil.yaml``, but for the cell's iterations and batch; XEL with its defaults."""
    torch.manual_seed(seed)
    detector = MIL(FEATURE_DIM)
    optimiser = torch.optim.Adam(detector.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    xel = variant and XEL(MarginSchedule.spread_over(cell.iterations), variant.weight, variant.weight)
    kinds, candidates = (data.abnormal, data.normal), data.normal
    if variant and variant.rows < NORMAL:
        candidates = candidates[np.random.default_rng([seed, 2]).permutation(NORMAL)[: variant.rows]]
    per_epoch = -(-NORMAL // cell.batch)
    for step in range(cell.iterations):
        if xel and xel.schedule(step) is not None and (not len(xel.bank) or step % per_epoch == 0):
            refresh(xel, detector, candidates)
        abnormal, normal = (draw(bags, cell.batch, step, [seed, kind]) for kind, bags in enumerate(kinds))
        detector.train()
        loss = detector.loss(Bags.pack(abnormal, normal))
        total = loss.total
        if xel:
            total = sum(xel.terms(detector, hardest(abnormal, loss.abnormal_scores), step).values(), total)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
    return detector.eval()


def draw(bags: Tensor, size: int, step: int, stream: Sequence[int]) -> tuple[Tensor, ...]:
    """The bags of a step: all are shuffled anew whenever all have been drawn, as in training proper."""
    turn, place = divmod(step, len(bags) // size)
    order = np.random.default_rng([*stream, turn]).permutation(len(bags))
    return bags[order[place * size : (place + 1) * size]].unbind()


@torch.no_grad()
def refresh(xel: XEL, detector: MIL, bags: Tensor) -> None:
    """`HardInstanceBank.refresh` of bags that are in memory as one tensor: the same rows, scored at once."""
    scores, clips = detector.eval().score(bags).max(dim=1)  # (N, 32, F) -> (N,)
    videos = torch.arange(len(bags))
    xel.bank.replace(videos, bags[videos, clips], clips, scores)


@torch.no_grad()
def measure(detector: MIL, data: Data) -> Measured:
    scores, hard = (detector.score(clips).numpy() for clips in (data.clips, data.hard))
    anomalous, others = scores[data.truth], scores[~data.truth]
    threshold = np.quantile(anomalous, 1 - HIT_RATE)
    return Measured(
        auc=float(roc_auc_score(data.truth, scores)),
        alarms=float((others >= threshold).mean()),
        hard_alarms=float((hard >= threshold).mean()),
        hard_half=float((hard >= 0.5).mean()),
        hits_half=float((anomalous >= 0.5).mean()),
    )


def run(cell: Cell, seed: int, variants: Sequence[Variant | None]) -> list[Measured]:
    """One data set, trained on in all these ways."""
    data = make_data(cell, seed)
    return [measure(train(data, cell, seed, variant), data) for variant in variants]


def plan(quick: bool) -> dict[Cell, list[Variant | None]]:
    """Every cell, with the ways to train in it; the first is without XEL."""
    if quick:
        return {replace(cell, iterations=100): [None, Variant()] for cell in (RARE, COMMON)}
    cells: dict[Cell, list[Variant | None]] = {}
    for _, cell, variant in chain(*GRID.values(), *SWEEPS.values()):
        ways = cells.setdefault(cell, [None])
        if variant not in ways:
            ways.append(variant)
    return cells


def run_all(cells: dict[Cell, list[Variant | None]], seeds: int, workers: int) -> Results:
    """Everything of the plan with every seed, in processes of one thread each."""
    tasks = [(cell, seed, variants) for cell, variants in cells.items() for seed in range(seeds)]
    results: Results = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for (cell, seed, variants), found in zip(tasks, pool.map(run, *zip(*tasks, strict=True)), strict=True):
            for variant, measured in zip(variants, found, strict=True):
                results.setdefault((cell, variant), []).append(measured)
            print(cell, seed, [round(each.hard_alarms, 3) for each in found], flush=True)
    return results


# --- table and figure ------------------------------------------------------------------------------------------------


def change(results: Results, cell: Cell, variant: Variant, name: str) -> NDArray[np.float64]:
    """With XEL less without, of each seed, in points."""
    with_xel, without = ([getattr(each, name) for each in results[cell, way]] for way in (variant, None))
    return 100 * (np.array(with_xel) - np.array(without))


def row(results: Results, cell: Cell, variant: Variant, *names: str) -> str:
    """A row of a table: without XEL, and what XEL changes; bold if it changes the same way with every seed."""
    columns = list(names)
    for name in TITLES:
        points = change(results, cell, variant, name)
        without = 100 * np.mean([getattr(each, name) for each in results[cell, None]])
        bold = "**" if abs(np.sign(points).sum()) == len(points) else ""
        columns.append(f"{without:.2f}, {bold}{points.mean():+.2f} ± {points.std(ddof=1):.2f}{bold}")
    return f"| {' | '.join(columns)} |"


def header(*names: str) -> list[str]:
    return [f"| {' | '.join([*names, *TITLES.values()])} |", "|---" * (len(names) + len(TITLES)) + "|"]


def plotted(results: Results, name: str, points: Sequence[Point], shift: float) -> dict[str, list[float]]:
    """A line of the figure: where XEL was added, what it changed, and the standard deviation of that."""
    changes = [change(results, cell, variant, name) for _, cell, variant in points]
    means, spreads = ([float(f(values)) for values in changes] for f in (np.mean, partial(np.std, ddof=1)))
    return {"x": [x * shift for x, _, _ in points], "y": means, "yerr": spreads}


def draw_figure(results: Results, path: Path) -> None:
    """What XEL changes: in the grid, and with each thing varied; mean and standard deviation over the seeds."""
    legend: dict[float, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        with drawing(Path(folder, "figure"), 9.6, 4.6) as figure:
            panels = figure.subplots(2, len(COLUMNS), sharex="col", sharey="row", width_ratios=(1.7, 1.2, 1.1, 1, 1))
            for column, (x_label, sweeps) in zip(panels.T, COLUMNS.items(), strict=True):
                lines = [SWEEPS[sweep] for sweep in sweeps] or list(GRID.values())
                for axes, name in zip(column, ROWS, strict=True):
                    axes.axhline(0, **GUIDE)
                    for number, points in enumerate(lines):
                        b = points[0][1].separation
                        style = {"color": PALETTE[SEPARATIONS.index(b)], "marker": "osD"[SEPARATIONS.index(b)]}
                        line = plotted(results, name, points, 1.07 ** (number - (len(lines) - 1) / 2))
                        legend[b] = axes.errorbar(**line, **MARK | style)
                ticks = [x for x, _, _ in lines[0]]
                column[1].set(xscale="linear" if 0 in ticks else "log", xlabel=x_label)
                column[1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                column[1].set_xticks([], minor=True)
            for axes, y_label in zip(panels[:, 0], ROWS.values(), strict=True):
                axes.set_ylabel(y_label)
            figure.align_ylabels(panels[:, 0])
            note = " (columns 2 to 5: {:g} % of videos)"
            notes = {cell.separation: note.format(100 * cell.rarity) for cell in (RARE, COMMON)}
            entries = [f"b = {b:g}{notes.get(b, '')}" for b in GRID]
            figure.legend([legend[b] for b in GRID], entries, loc="outside upper left", ncols=len(entries))
        shutil.copyfile(Path(folder, "figure.svg"), path)


def section(results: Results, seeds: int, minutes: float, workers: int) -> list[str]:
    grid = [row(results, cell, xel, f"{b:g}", f"{x:g} %") for b, points in GRID.items() for x, cell, xel in points]
    sweeps = [row(results, cell, xel, name.format(x)) for name, points in SWEEPS.items() for x, cell, xel in points]
    return [
        f"MIL on made-up bags: {ABNORMAL} abnormal and {NORMAL} normal training videos of uneven length, 32 segments",
        f"of {FEATURE_DIM} numbers. Anomalies and hard normal events are displaced by {RARE.displacement:g} along a,",
        "hard normal ones by b along a second direction too, in standard deviations of a clip's noise. XEL with its",
        f"defaults: λ = 1, a row for each normal video. Adam, {RARE.iterations} iterations, {RARE.batch} videos of",
        "each kind in a batch. What the figures mean is written in [xel.md](xel.md).",
        "",
        f"![What XEL changes]({FIGURE.name})",
        "",
        f"Alarmed are clips above the threshold at which {100 * HIT_RATE:g} % of the anomalous test clips are hit.",
        f"Bars: standard deviation over seeds 0 to {seeds - 1}. The tables give each figure without XEL, and what XEL",
        f"changes in points, mean ± sd of pairs; bold: all seeds agree on the sign, by chance 1 in {2 ** (seeds - 1)}.",
        "",
        *header("b", "videos with hard events"),
        *grid,
        "",
        f"One thing varied at a time. Hard events are rare and can be told ({100 * RARE.rarity:g} % of videos,",
        f"b = {RARE.separation:g}) but for the rows marked common, where they can hardly be told",
        f"({100 * COMMON.rarity:g} %, b = {COMMON.separation:g}):",
        "",
        *header("varied"),
        *sweeps,
        "",
        f"`python benchmarks/when_xel_helps.py --seeds {seeds}`, {datetime.date.today()}, xelvad {__version__}, "
        f"torch {torch.__version__}, CPU, {minutes:.0f} minutes with {workers} worker(s) of one thread.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--quick", action="store_true", help="two cells, short trainings; writes nothing")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("a spread needs at least two seeds")
    began = time.perf_counter()
    results = run_all(plan(arguments.quick), arguments.seeds, arguments.workers)
    minutes = (time.perf_counter() - began) / 60
    if arguments.quick:
        print("\n".join([*header("trial"), *(row(results, cell, way, str(cell)) for cell, way in results if way)]))
        return
    draw_figure(results, FIGURE)
    write_section("When does XEL help?", section(results, arguments.seeds, minutes, arguments.workers))


if __name__ == "__main__":
    main()
