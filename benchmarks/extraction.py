"""Extraction on the CPU: what one clip costs, with and without keeping freed memory, and from file to feature file.

    python benchmarks/extraction.py --pairs 3

Every figure is the median over fresh processes that take turns, so that their ratio holds when the machine's speed
drifts. Absolute times are this machine's.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from xelvad import __version__
from xelvad.extractors import create
from xelvad.pipeline.extraction import extract
from xelvad.pipeline.footage import draw_video
from xelvad.pipeline.memory import keep_freed_memory
from xelvad.pipeline.settings import ExtractionConfig
from xelvad.pipeline.videos import find_videos

CLIPS = 32
BATCH = 4


def network_seconds() -> float:
    """Seconds per clip of I3D alone, in batches of `BATCH`, after a warm-up."""
    extractor = create("i3d-rgb")
    clips = np.random.default_rng(0).integers(0, 256, (BATCH, 16, 256, 341, 3), np.uint8)
    batch = extractor.preprocess(clips)
    extractor(batch)
    began = time.perf_counter()
    for _ in range(CLIPS // BATCH):
        extractor(batch)
    return (time.perf_counter() - began) / CLIPS


def end_to_end_seconds() -> float:
    """Seconds per clip from video file to feature file, start of the decoder and loading of the network included."""
    with tempfile.TemporaryDirectory() as folder:
        draw_video(Path(folder, "video.mp4"), frames=16 * CLIPS, anomaly=None, seed=0)
        began = time.perf_counter()
        extract(find_videos([Path(folder, "video.mp4")]), Path(folder, "features"), ExtractionConfig(batch=BATCH))
        return (time.perf_counter() - began) / CLIPS


def matmul_gflops() -> float:
    """Rate of a float32 matrix product of 2048 x 2048, the best of ten."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best / 1e9


def keeping_network_seconds() -> float:
    """As `network_seconds`, with freed memory kept."""
    keep_freed_memory()
    return network_seconds()


MEASURES = {
    "default": network_seconds,
    "kept": keeping_network_seconds,
    "end-to-end": end_to_end_seconds,
    "gemm": matmul_gflops,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--measure", choices=list(MEASURES), help="one figure, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        print(f"figure {MEASURES[arguments.measure]()}")
        return
    figures: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(arguments.pairs):
        for name in MEASURES:
            command = [sys.executable, __file__, "--measure", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures[name].append(float(output.split()[-1]))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = [kept / default for kept, default in zip(figures["kept"], figures["default"], strict=True)]
    print(f"I3D alone           {medians['default']:.3f} s a clip, {55.6 / medians['default']:.0f} GFLOP/s")
    print(f"  freed memory kept {medians['kept']:.3f} s a clip, {55.6 / medians['kept']:.0f} GFLOP/s")
    print(f"  ratio             {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"file to features    {medians['end-to-end']:.3f} s a clip over {CLIPS} clips, start-up included")
    print(f"float32 GEMM        {medians['gemm']:.0f} GFLOP/s")
    print(
        f"{datetime.date.today()}, xelvad {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
