"""Decoding on this machine: what a clip costs and how much memory it takes, by our reader and by others.

    python benchmarks/decoding.py --rounds 3

A long video (H.264 with B-frames) is read in a fresh process for each figure, in turns, so that comparisons hold when
the machine's speed drifts. Whoever reads pauses for a moment near the beginning, as a network does: what decodes ahead
shows its memory then. The cost is that of processors, start of the process excluded; a clip has 16 frames.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import VideoReformatter
from results import write_section

from xelvad import __version__
from xelvad.pipeline.footage import draw_video
from xelvad.pipeline.videos import reader
from xelvad.pipeline.videos.probe import fit_short_side

CLIP = 16
SMALL, LARGE = (320, 240), (1920, 1080)
DRAWN = {SMALL: 1024, LARGE: 96}  # frames that are drawn, and repeated until there are so many:
FRAMES = {SMALL: 9000, LARGE: 960}
SHORT_SIDE = 480  # as extraction asks for
PART = 1 << 26  # bytes of decoded frames in a part
PAUSE_AT, PAUSE = 160, 3.0  # frames, seconds


def scaled(size: tuple[int, int]) -> tuple[int, int]:
    return fit_short_side(*size, SHORT_SIDE)


def by_us(path: Path) -> Iterator[Any]:
    """As extraction reads it."""
    for block in reader.open_video(path, SHORT_SIDE).blocks(CLIP):
        yield block.frames


def by_pyav(path: Path, convert: Callable[..., av.VideoFrame], threads: str = "SLICE") -> Iterator[Any]:
    """PyAV, converting frames by what is given, and with FFmpeg's threads of one kind."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = threads
        size = scaled((stream.width, stream.height))
        frames = []
        for frame in container.decode(stream):
            frames.append(convert(frame, *size, format="rgb24", interpolation="BICUBIC").to_ndarray())
            if len(frames) == CLIP:
                yield np.stack(frames)
                frames = []
        if frames:
            yield np.stack(frames)


def by_decord(source: str | io.BytesIO, size: tuple[int, int]) -> Iterator[Any]:
    import decord

    video = decord.VideoReader(source, width=size[0], height=size[1], num_threads=1)
    for first in range(0, len(video), CLIP):
        yield video.get_batch(range(first, min(first + CLIP, len(video)))).asnumpy()


def by_decord_whole(path: Path) -> Iterator[Any]:
    """decord, which decodes ahead without bound."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size = scaled((stream.width, stream.height))
    yield from by_decord(str(path), size)


def by_decord_in_parts(path: Path) -> Iterator[Any]:
    """decord, given a few groups of pictures at a time, as a file of their own in memory."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size = scaled((stream.width, stream.height))
        part: list[av.Packet] = []
        for packet in container.demux(stream):
            full = (len(part) + CLIP) * size[0] * size[1] * 3 > PART
            if part and (packet.size == 0 or (packet.is_keyframe and full)):
                yield from by_decord(copied(part, stream), size)
                part = []
            part.append(packet)


def copied(packets: list[av.Packet], stream: Any) -> io.BytesIO:
    """Packets as a file of their own."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        copy = container.add_stream_from_template(stream)
        for packet in packets:
            packet.stream = copy
            container.mux(packet)
    file.seek(0)
    return file


WAYS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "xelvad": by_us,
    "PyAV, frames converted as by `VideoFrame.reformat`": lambda path: by_pyav(path, av.VideoFrame.reformat),
    "PyAV, threads that lose frames before a fault": lambda path: by_pyav(
        path, partial(VideoReformatter().reformat, **reader.ONE_THREAD), "AUTO"
    ),
    "decord, as a whole": by_decord_whole,
    "decord, in parts": by_decord_in_parts,
}


def measured(way: str, path: Path) -> dict[str, float]:
    """Milliseconds of processors and of the clock for a clip, peak memory in MiB, and the number of frames."""
    frames, paused = 0, False
    cost, clock = time.process_time(), time.perf_counter()
    for block in WAYS[way](path):
        frames += len(block)
        if frames >= PAUSE_AT and not paused:
            time.sleep(PAUSE)
            paused = True
    cost, clock = time.process_time() - cost, time.perf_counter() - clock - PAUSE
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {"cost": 1000 * cost * CLIP / frames, "clock": 1000 * clock * CLIP / frames, "mib": peak, "frames": frames}


def preprocessing(name: str) -> dict[str, float]:
    """Milliseconds of processors in which an extractor prepares a clip of 320 x 240, by one thread."""
    import torch

    from xelvad.extractors import create_extractor

    torch.set_num_threads(1)
    extractor = create_extractor(name, "random")
    clip = np.random.default_rng(0).integers(0, 256, (1, CLIP, 240, 320, 3), np.uint8)
    extractor.preprocess(clip)
    repeats = 50
    cost = time.process_time()
    for _ in range(repeats):
        extractor.preprocess(clip)
    return {"cost": 1000 * (time.process_time() - cost) / repeats}


def drawn(folder: Path, size: tuple[int, int]) -> Path:
    """A long video: a short one, repeated."""
    once, path = folder / f"once-{size[1]}.mp4", folder / f"{size[1]}.mp4"
    draw_video(once, frames=DRAWN[size], anomaly=None, seed=0, width=size[0], height=size[1])
    repeated = ["-stream_loop", "-1", "-i", str(once), "-c", "copy", "-frames:v", str(FRAMES[size]), str(path)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *repeated], check=True)
    return path


def in_a_process(*words: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", *words]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(*words, {name: round(value, 2) for name, value in found.items()}, flush=True)
    return found


def row(way: str, found: list[dict[str, float]]) -> str:
    costs = [each["cost"] for each in found]
    clock, peak = min(each["clock"] for each in found), max(each["mib"] for each in found)
    cost = f"{statistics.median(costs):.1f} ({min(costs):.1f} to {max(costs):.1f})"
    return f"| {way} | {cost} | {clock:.1f} | {peak:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--measure", nargs="+", help="one figure, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        name, *rest = arguments.measure
        print(json.dumps(preprocessing(*rest) if name == "preprocessing" else measured(name, Path(*rest))))
        return
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = []
        for size, frames in FRAMES.items():
            path = drawn(Path(folder), size)
            found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(arguments.rounds):
                for way in WAYS:
                    found[way].append(in_a_process(way, str(path)))
                    assert found[way][-1]["frames"] == frames, way
                if size == SMALL:
                    prepared.append(in_a_process("preprocessing", "i3d-rgb")["cost"])
            lines += [
                f"{frames:,} frames of {size[0]} x {size[1]}, scaled to {' x '.join(map(str, scaled(size)))}:",
                "",
                "| read by | cost of a clip, ms of a core | ms by the clock, at best | peak memory, MiB |",
                "|---|---|---|---|",
                *(row(way, each) for way, each in found.items()),
                "",
            ]
    write_section(
        "Decoding",
        [
            f"A long H.264 video with B-frames, medians (lowest to highest) over {arguments.rounds} fresh processes",
            "each that take turns. A clip has 16 frames. Whoever reads pauses for three seconds near the beginning:",
            "what decodes ahead shows its memory then.",
            "",
            *lines,
            f"Preprocessing of a clip of 320 x 240 for i3d-rgb costs {statistics.median(prepared):.1f} ms of a core.",
            "",
            f"`python benchmarks/decoding.py --rounds {arguments.rounds}`, {datetime.date.today()},",
            f"xelvad {__version__}, av {av.__version__}, {os.cpu_count()} cores, which others used as well.",
        ],
    )


if __name__ == "__main__":
    main()
