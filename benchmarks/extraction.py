"""Extraction on this machine: each network under each runtime, and from video file to feature file.

    python benchmarks/extraction.py --pairs 3

Every figure is the median over fresh processes that take turns, so that ratios hold when the machine's speed drifts.
"Plain" is the network as its library builds it, run by PyTorch with its defaults. All is in float32: `precision.py`
measures the others. Weights are random: they change no figure. GFLOP count a multiplication and an addition as two.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from results import write_section
from torch.utils.flop_counter import FlopCounterMode

from xelvad import __version__
from xelvad.extractors import ClipExtractor, create_extractor
from xelvad.extractors.runtimes import Engine
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.extraction import LARGEST_SHORT_SIDE, extract
from xelvad.pipeline.footage import draw_video
from xelvad.pipeline.support.memory import keep_freed_memory
from xelvad.pipeline.videos.sources import find_videos
from xelvad.pipeline.videos.worker import Decoder

NETWORKS = ("i3d-rgb", "c3d", "i3d-r50", "r3d-18", "s3d", "swin3d-t")
END_TO_END = ("i3d-rgb", "c3d", "i3d-r50")
RUNTIMES = ("plain", "eager", "compile", "openvino")
COMPILED = ("i3d-rgb", "c3d", "i3d-r50")  # compiling takes a minute each
BATCH = 4
SHORT, LONG = 16, 64  # clips of the two videos whose difference in time is that of the clips alone


def inputs_of(extractor: ClipExtractor, count: int = BATCH) -> list[torch.Tensor]:
    clips = np.random.default_rng(0).integers(0, 256, (count, 16, 240, 320, 3), np.uint8)
    return [extractor.preprocess(clip[None])[0] for clip in clips]


def seconds_per_clip(run: Callable[[], object], clips: int, repeats: int = 3) -> float:
    run()
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / (clips * repeats)


def network_seconds(name: str, runtime: str) -> dict[str, float]:
    """Seconds a clip of one network under one runtime, in batches of `BATCH`."""
    extractor = create_extractor(name, "random")
    inputs = inputs_of(extractor)
    if runtime == "plain":
        batch = extractor.network[0](torch.stack(inputs)).contiguous()
        network = extractor.network[1].to(memory_format=torch.contiguous_format)
        with torch.inference_mode():
            return {"seconds": seconds_per_clip(lambda: network(batch), BATCH)}
    keep_freed_memory()
    engine = Engine(extractor, runtime, "cpu", "float32")  # type: ignore[arg-type]
    return {"seconds": seconds_per_clip(lambda: engine(inputs), BATCH)}


def end_to_end(name: str) -> dict[str, float]:
    """Seconds a clip from file to features, of its parts, and of the network alone before and after."""
    keep_freed_memory()
    extractor = create_extractor(name, "random")
    engine = Engine(extractor, "auto", "cpu", "float32")
    inputs = inputs_of(extractor)
    before = seconds_per_clip(lambda: engine(inputs), BATCH)
    config = ExtractionConfig(extractor=(name,), weights="random", device="cpu", precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        took = []
        for clips in (SHORT, LONG):
            video = Path(folder, f"{clips}.mp4")
            draw_video(video, frames=16 * clips, anomaly=None, seed=0)
            began = time.perf_counter()
            extract(find_videos([video]), Path(folder, f"features-{clips}"), config)
            took.append(time.perf_counter() - began)
        with Decoder() as decoder:
            began = time.perf_counter()
            with decoder.read(video, LARGEST_SHORT_SIDE, 16) as opened:
                for block in opened.blocks():
                    clip = np.array(block.frames)
            decoding = (time.perf_counter() - began) / LONG
    after = seconds_per_clip(lambda: engine(inputs), BATCH)
    torch.set_num_threads(1)
    preprocessing = seconds_per_clip(lambda: extractor.preprocess(clip[None]), 1, 20)
    return {
        "end to end": (took[1] - took[0]) / (LONG - SHORT),
        "network": (before + after) / 2,
        "decoding": decoding,
        "preprocessing": preprocessing,
    }


def gemm() -> dict[str, float]:
    """GFLOP/s of a float32 matrix product of 2048 x 2048, the best of ten."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = min(seconds_per_clip(lambda: torch.mm(a, b), 1, 1) for _ in range(10))
    return {"gflops": 2 * 2048**3 / best / 1e9}


def peak_memory(videos: int, clips: int) -> dict[str, float]:
    """MiB resident at most, of this process, over so many videos of so many clips."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(videos):
            draw_video(Path(folder, f"{number}.mp4"), frames=16 * clips, anomaly=None, seed=number)
        config = ExtractionConfig(extractor=("r3d-18",), weights="random", device="cpu")
        extract(find_videos([Path(folder)]), Path(folder, "features"), config)
    return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def gflop(name: str) -> float:
    """Of one clip."""
    extractor = create_extractor(name, "random")
    with FlopCounterMode(display=False) as counter:
        extractor(torch.stack(inputs_of(extractor, 1)))
    return counter.get_total_flops() / 1e9


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "network": network_seconds,
    "end-to-end": end_to_end,
    "gemm": gemm,
    "memory": lambda videos, clips: peak_memory(int(videos), int(clips)),
}


class Figures:
    """What fresh processes measured, by measure and arguments.

    Args:
        script: which each runs, with ``--measure`` and the words; it prints a JSON object as its last line.
    """

    def __init__(self, script: str = __file__) -> None:
        self.script = script
        self.found: dict[tuple[str, ...], list[dict[str, float]]] = {}

    def measure(self, *words: str) -> None:
        command = [sys.executable, self.script, "--measure", *words]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        self.found.setdefault(words, []).append(json.loads(output.splitlines()[-1]))
        print(*words, {name: round(value, 4) for name, value in self.found[words][-1].items()}, flush=True)

    def median(self, name: str, *words: str) -> float:
        return statistics.median(each[name] for each in self.found[words])

    def ratio(self, name: str, above: tuple[str, ...], below: tuple[str, ...]) -> str:
        """Of two measures that took turns: median (lowest to highest) over the pairs."""
        pairs = zip(self.found[above], self.found[below], strict=False)
        ratios = [one[name] / other[name] for one, other in pairs]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def runtimes_of(network: str) -> list[str]:
    return [runtime for runtime in RUNTIMES if runtime != "compile" or network in COMPILED]


def network_rows(figures: Figures) -> list[str]:
    peak = figures.median("gflops", "gemm")
    rows = []
    for network in NETWORKS:
        work = gflop(network)
        for runtime in runtimes_of(network):
            seconds = figures.median("seconds", "network", network, runtime)
            plain, this = ("network", network, "plain"), ("network", network, runtime)
            rows.append(
                f"| {network} | {work:.1f} | {runtime} | {seconds:.3f} | {figures.ratio('seconds', plain, this)} "
                f"| {work / seconds:.0f} | {100 * work / seconds / peak:.0f} |"
            )
    return rows


def end_to_end_rows(figures: Figures) -> list[str]:
    rows = []
    for network in END_TO_END:
        shares = [each["network"] / each["end to end"] for each in figures.found["end-to-end", network]]
        parts = [figures.median(part, "end-to-end", network) for part in ("decoding", "preprocessing", "network")]
        whole = figures.median("end to end", "end-to-end", network)
        share = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        rows.append(
            f"| {network} | {' | '.join(f'{1000 * part:.1f}' for part in parts)} | {1000 * whole:.1f} | {share} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--measure", nargs="+", help="one figure, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        name, *words = arguments.measure
        print(json.dumps(MEASURES[name](*words)))
        return
    figures = Figures()
    for number in range(arguments.pairs):
        figures.measure("gemm")
        for network in NETWORKS:
            for runtime in runtimes_of(network):
                if runtime != "compile" or not number:
                    figures.measure("network", network, runtime)
        for network in END_TO_END:
            figures.measure("end-to-end", network)
    for videos, clips in ((1, 8), (1, 120), (15, 8)):
        figures.measure("memory", str(videos), str(clips))
    memory = {words[1:]: figures.median("mib", *words) for words in figures.found if words[0] == "memory"}
    write_section(
        "Extraction on the CPU",
        [
            f"Medians over {arguments.pairs} fresh processes each that take turns; ratios are medians (lowest to",
            "highest) over the pairs. *plain*: the network as its library builds it, PyTorch's defaults; *eager*:",
            "batch-norm folded, channels last, freed memory kept. float32 GEMM, 2048 x 2048: "
            f"{figures.median('gflops', 'gemm'):.0f} GFLOP/s.",
            "",
            "| network | GFLOP a clip | runtime | s a clip | times plain | GFLOP/s | % of GEMM |",
            "|---|---|---|---|---|---|---|",
            *network_rows(figures),
            "",
            "From video file to feature file (320 x 240, H.264), marginal cost of a clip, runtime auto; decoding and",
            "preprocessing run beside the network on the same cores:",
            "",
            "| network | decoding, ms | preprocessing, ms | network, ms | file to features, ms | network's share |",
            "|---|---|---|---|---|---|",
            *end_to_end_rows(figures),
            "",
            "Peak memory of the process, r3d-18: "
            + "; ".join(f"{videos} video(s) of {clips} clips {mib:.0f} MiB" for (videos, clips), mib in memory.items())
            + ".",
            "",
            f"`python benchmarks/extraction.py --pairs {arguments.pairs}`, {datetime.date.today()}, "
            f"xelvad {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads.",
        ],
    )


if __name__ == "__main__":
    main()
