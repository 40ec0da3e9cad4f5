"""How long an extraction takes on N devices: the cost model of docs/scaling.md against a simulation of its queue.

    python benchmarks/scaling.py

The simulation hands out videos as `pipeline/cluster` does: the largest first, to whoever is free, each of a device's
decoders one video at a time; a decoder gives at most so many clips a second, and those of a device share its network.
The model has two lines: all clips by what all devices do, and the longest video by what one decoder does; the larger
counts. Lengths are drawn as uneven as UCF-Crime's, whose longest training video is known (docs/scaling.md).
"""

from __future__ import annotations

import argparse
import datetime
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from made_up_features import UCF_LONGEST
from results import write_section

from xelvad import __version__

HOURS, RATE, VIDEOS = 128, 30, 1900  # of UCF-Crime
CLIP = 16  # frames
DECODER = 1 / (4.5e-3 + 2.4e-3)  # clips a second that one core decodes and prepares (docs/results.md, Decoding)


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        name: for people.
        network: clips a second, were there always enough of them.
        decoders: cores that decode for it.
    """

    name: str
    network: float
    decoders: int

    @property
    def rate(self) -> float:
        """Clips a second with all decoders at work."""
        return min(self.network, self.decoders * DECODER)


DEVICES = (
    Device("two cores, float32 (measured)", 3.98, 1),
    Device("two cores, bfloat16 (measured)", 7.52, 1),
    Device("a GPU of 250 clips/s (assumed)", 250, 8),
    Device("a GPU of 1,000 clips/s (assumed)", 1000, 8),
)


def lengths() -> list[int]:
    """Clips of each video, of 128 hours together."""
    total = HOURS * 3600 * RATE // CLIP
    drawn = np.random.default_rng(0).lognormal(sigma=1.2, size=VIDEOS - 1)
    clips = np.maximum(1, drawn * (total - UCF_LONGEST) / drawn.sum()).astype(int)
    return sorted([*clips.tolist(), UCF_LONGEST], reverse=True)


def model(videos: Sequence[int], device: Device, devices: int) -> float:
    """Seconds: what all devices need for all clips, or one decoder for the longest video."""
    return max(sum(videos) / (devices * device.rate), max(videos) / min(device.network, DECODER))


def simulate(videos: Sequence[int], device: Device, devices: int) -> float:
    """Seconds until the last clip, with the videos handed out in their order to whatever decoder is free.

    Clips of a device's videos are computed alike fast; how fast changes whenever one of them ends or begins.
    """
    waiting = list(reversed(videos))
    now = 0.0
    active: list[list[float]] = [[] for _ in range(devices)]  # clips left of each video under way
    for _ in range(device.decoders):
        for own in active:
            if waiting:
                own.append(float(waiting.pop()))
    since = [0.0] * devices
    ends = [(_next(own, device), number) for number, own in enumerate(active) if own]
    heapq.heapify(ends)
    while ends:
        now, number = heapq.heappop(ends)
        own, speed = active[number], _speed(len(active[number]), device)
        done = (now - since[number]) * speed
        own[:] = [left - done for left in own]
        shortest = min(range(len(own)), key=own.__getitem__)
        own.pop(shortest)
        if waiting:
            own.append(float(waiting.pop()))
        since[number] = now
        if own:
            heapq.heappush(ends, (now + _next(own, device), number))
    return now


def _speed(videos: int, device: Device) -> float:
    """Clips a second of each of so many videos on a device."""
    return min(DECODER, device.network / videos)


def _next(own: Sequence[float], device: Device) -> float:
    """Seconds until the next of these videos ends."""
    return min(own) / _speed(len(own), device)


def shown(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    videos, rows = lengths(), []
    for device in DEVICES:
        for devices in (1, 8, 64):
            said, found = model(videos, device, devices), simulate(videos, device, devices)
            busy = sum(videos) / (devices * device.rate * found)
            bound = "the longest video" if said > sum(videos) / (devices * device.rate) else "all clips"
            cost = f"{devices * found / 3600:.1f}"
            cells = (device.name, devices, shown(said), bound, shown(found), f"{100 * busy:.0f} %", cost)
            rows.append(f"| {' | '.join(map(str, cells))} |")
            print(rows[-1], flush=True)
    write_section(
        "Scaling: the model against a simulation",
        [
            f"{HOURS} h of video at {RATE} frames a second, {sum(videos):,} clips in {VIDEOS:,} videos, the longest "
            f"{max(videos):,};",
            f"a decoder gives {DECODER:.0f} clips a second.",
            "",
            "| device | how many | by the model | what bounds | by the simulation | busy | device hours |",
            "|---|--:|--:|---|--:|--:|--:|",
            *rows,
            "",
            f"`python benchmarks/scaling.py`, {datetime.date.today()}, xelvad {__version__}.",
        ],
    )


if __name__ == "__main__":
    main()
