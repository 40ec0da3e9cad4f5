"""What xelvad does on a GPU, proved and measured in one go of less than five minutes.

    p=$(mktemp -d); ln -s "$PWD" $p/xelvad; PYTHONPATH=$p python3 benchmarks/gpu.py --out gpu.json

writes every figure to a JSON file, and a table of them beside it. It runs from the sources, without a network. Of the
packages it needs PyTorch, torchvision, scikit-learn, safetensors, PyYAML, Rich and TensorBoard; what needs another one
(i3d-r50 needs pytorchvideo, decoding needs PyAV) is left out and said. Without a GPU, or with ``--device cpu --small``,
sections go the same way over sizes that a CPU computes in a minute or two: to see that they work, not how fast.

Weights are random, which changes no speed. Whether half precision is exact enough is also asked of trained weights,
of those that `xelvad weights fetch` has put into the cache (``$XELVAD_CACHE`` names another one).

A section that fails costs itself alone. Exit codes: 0 all that could be measured was, and what must hold does; 1 a
section failed, or there was no time for it; 2 the request was wrong.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from gpu_report import NETWORKS, Section, Setting, shown, write

BEGAN = time.monotonic()
SECONDS = 285.0  # for all of it
PATIENCE = 2.0  # times its share of the time, after which a section is ended
FRAME_RATE, CLIP = 25, 16  # frames a second of a camera, frames of a clip
DAY = 24 * 3600
WORKERS = (1, 2, 4, 8, 16)
DECODING_SECONDS = 2.0  # of each number of workers
PATIENCE_SECONDS = 15.0  # until all of them are at work
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Part:
    """A section of the run: the function that does it, and its share of the time, in seconds."""

    module: str
    function: str
    seconds: float


# In this order: what must hold, what is to be fast, and last what takes all the time that it is given.
PARTS = {
    "parity": Part("gpu_networks", "parity", 60),
    "step": Part("gpu_training", "step", 10),
    "resume": Part("gpu_training", "resume", 25),
    "bank": Part("gpu_training", "bank", 10),
    "speed": Part("gpu_networks", "speed", 45),
    "feeding": Part("gpu_feeding", "feeding", 25),
    "preprocessing": Part("gpu_feeding", "preprocessing", 15),
    "training": Part("gpu_training", "training", 75),
    "decoding": Part(__name__, "decoding", 25),
    "day": Part(__name__, "day", 5),
    "compile": Part("gpu_networks", "compiled", 120),
}


# --- decoding, and a day of footage ----------------------------------------------------------------------------------


def decoding(setting: Setting, section: Section) -> None:
    """Frames a second that so many decoding processes give together, of a drawn video of 320 x 240."""
    if find_spec("av") is None:
        section.missing("frames decoded", "no decoder here")
        return
    from xelvad.pipeline.footage import draw_video

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "video.mp4")
        draw_video(video, frames=64 if setting.small else 320, anomaly=None, seed=0)
        for workers in WORKERS[:2] if setting.small else WORKERS:
            if section.left < 2 * DECODING_SECONDS:
                section.missing(f"workers: {workers}", "no time left")
                continue
            rate = decoded_frames(video, workers, 0.5 if setting.small else DECODING_SECONDS)
            section.figures["decoding"] = max(rate, section.figures.get("decoding", 0.0))
            section.row(f"workers: {workers}", rate, "frames/s", note=f"{os.cpu_count()} processors")


def decoded_frames(video: Path, workers: int, seconds: float) -> float:
    """Frames a second of so many workers that read one video again and again, once all are at work."""
    from xelvad.pipeline.features.extraction import LARGEST_SHORT_SIDE
    from xelvad.pipeline.videos.worker import Decoder

    ready = threading.Barrier(workers, timeout=PATIENCE_SECONDS)

    def read() -> tuple[int, float]:
        with Decoder() as decoder:

            def once() -> int:
                with decoder.read(video, LARGEST_SHORT_SIDE, CLIP) as opened:
                    return sum(len(block.frames) for block in opened.blocks())

            once()
            ready.wait()
            frames, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                frames += once()
            return frames, time.perf_counter() - began

    with ThreadPoolExecutor(workers) as pool:
        found = [future.result() for future in [pool.submit(read) for _ in range(workers)]]
    return sum(frames / took for frames, took in found)


@dataclass(frozen=True)
class Bound:
    """What a day of one camera's footage takes, and what bounds it.

    Attributes:
        network: seconds of the network.
        decoding: seconds of the decoders; None where nobody knows.
    """

    network: float
    decoding: float | None

    @property
    def seconds(self) -> float:
        """Of both, which run beside each other."""
        return max(self.network, self.decoding or 0.0)

    @property
    def by(self) -> str:
        """Which of them takes longer."""
        if self.decoding is None:
            return "the network, if decoding keeps up"
        return "decoding" if self.decoding > self.network else "the network"

    @property
    def cameras(self) -> float:
        """How many are kept up with."""
        return DAY / self.seconds


def bound_of_a_day(clips_a_second: float, frames_a_second: float | None) -> Bound:
    """A day is 24 x 3600 s x 25 frames = 2,160,000 frames, or 135,000 clips of 16."""
    frames = DAY * FRAME_RATE
    return Bound(frames / CLIP / clips_a_second, frames / frames_a_second if frames_a_second else None)


def day(setting: Setting, section: Section) -> None:
    """From the rates of other sections: how long a day of footage takes, and how many cameras are kept up with."""
    frames = DAY * FRAME_RATE
    section.notes.append(
        f"a day is {DAY:,} s x {FRAME_RATE} frames = {frames:,} frames = {frames // CLIP:,} clips of {CLIP}; "
        f"one camera needs {FRAME_RATE / CLIP} clips/s"
    )
    rates = {name: section.figures[name] for name in NETWORKS if name in section.figures}
    if not rates:
        section.missing("a day of footage", "the section speed found no rate")
    decoder = section.figures.get("decoding")
    for name, rate in rates.items():
        bound = bound_of_a_day(rate, decoder)
        arithmetic = f"{frames // CLIP:,} clips / {shown(rate, '')} clips/s"
        if decoder is not None:
            arithmetic += f"; {frames:,} frames / {decoder:,.0f} frames/s"
        section.row(
            f"{name}: a day of one camera", bound.seconds / 60, "min", note=f"bound by {bound.by}: {arithmetic}"
        )
        section.row(f"{name}: cameras at once", bound.cameras, "cameras")


# --- the run ---------------------------------------------------------------------------------------------------------


class OutOfTimeError(BaseException):
    """A section takes far longer than its share; a `BaseException`, so that nothing within it takes it for its own."""


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in a block that takes longer, where the system has alarms."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(name: str, setting: Setting, deadline: float, figures: dict[str, float]) -> Section:
    """Do a section; whatever goes wrong in it is kept with it."""
    part, began = PARTS[name], time.monotonic()
    section = Section(name, min(began + part.seconds, deadline), figures)
    if deadline <= began:
        section.error = "not begun: no time was left"
        return section
    try:
        with ended_after(min(PATIENCE * part.seconds, deadline - began)):
            getattr(import_module(part.module), part.function)(setting, section)
    except OutOfTimeError:
        section.error = f"ended after {time.monotonic() - began:.0f} s; its share was {part.seconds:g}"
    except Exception as error:
        traceback.print_exc()
        section.error = f"{type(error).__name__}: {error}".split("\n")[0]
    section.seconds = time.monotonic() - began
    if setting.is_cuda:
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()
    return section


def machine(setting: Setting) -> dict[str, Any]:
    """What a figure is of."""
    import torch

    from xelvad import __version__

    found: dict[str, Any] = {"device": "CPU"}
    if setting.is_cuda:
        device = torch.cuda.get_device_properties(setting.device)
        found["device"] = (
            f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {device.multi_processor_count} multiprocessors"
        )
        found["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
    found["processors"] = f"{os.cpu_count()} of {platform.machine()}, {torch.get_num_threads()} threads"
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    found["versions"] = f"xelvad {__version__}, Python {platform.python_version()}, {packages}"
    found["weights"] = "random, which changes no speed, but where a row names others"
    if setting.small:
        found["sizes"] = "small, to see that every section works: no figure says how fast xelvad is"
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON file; its table goes beside it")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1 or cpu; auto takes a GPU if there is one")
    parser.add_argument("--small", action="store_true", help="small sizes, as on a CPU in any case")
    parser.add_argument("--sections", default=",".join(PARTS), help="some of them, separated by commas")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="whose speed is measured, likewise")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which nothing more is begun")
    found = parser.parse_args(arguments)
    for option, known in (("sections", tuple(PARTS)), ("networks", NETWORKS)):
        names = tuple(getattr(found, option).split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            refuse(f"--{option}: there is no {unknown[0]!r}; known: {', '.join(known)}")
        setattr(found, option, names)
    if found.device == "cpu":
        found.small = True
    return found


def refuse(message: str) -> NoReturn:
    """End because the request was wrong, with a line that says why."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = read_arguments(arguments)
    from xelvad.errors import UserError
    from xelvad.extractors.runtimes import choose_device

    try:
        device = str(choose_device(asked.device))
    except UserError as error:
        refuse(str(error))
    setting = Setting(device, asked.small or device == "cpu", asked.networks)
    figures: dict[str, float] = {}
    sections = []
    for name in [name for name in PARTS if name in asked.sections]:
        sections.append(measure(name, setting, BEGAN + asked.seconds, figures))
        print(f"{name}: {sections[-1].status}, {sections[-1].seconds:.1f} s", file=sys.stderr, flush=True)
        page = write(asked.out, machine(setting), sections)  # after each: what was measured is not lost
    print(page)
    return int(any(section.status == "failed" for section in sections))


if __name__ == "__main__":
    sys.exit(main())
