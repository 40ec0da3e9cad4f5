"""Feeding a device: whether clips from memory keep a network busy, and whether it could crop the pictures itself.

Sections of `gpu.py`. Weights are random, which changes no speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F
from gpu_networks import COSINE, Network, chosen_of, cosine, noise_for, on_device, pictures, random_extractor
from gpu_report import Section, Setting, seconds_of, synchronise
from numpy.typing import NDArray
from torch import Tensor

from xelvad.extractors import spec_of
from xelvad.extractors.batching import ClipBatches
from xelvad.extractors.preprocessing import Pictures, short_side_size
from xelvad.extractors.runtimes import Engine

Fed = Sequence[Sequence[Tensor]]  # batches of preprocessed clips, in memory

BUSY = 95.0  # per cent of the time that the device computes while it is fed, at least
FED = ("c3d", "r3d-18", "i3d-rgb")


# --- whether they can be kept busy -----------------------------------------------------------------------------------


def device_seconds(network: Network, batch: Tensor, setting: Setting, repeats: int = 20) -> float:
    """Time that the device itself takes for a batch, by its own clock where it has one."""
    if not setting.is_cuda:
        return seconds_of(lambda: network(batch), setting)
    for _ in range(3):
        network(batch)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(repeats):
        network(batch)
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000 / repeats


@torch.inference_mode()
def feeding(setting: Setting, section: Section) -> None:
    """Clips from memory through the bus into a network: for what share of the time the device computes.

    That is the time which the network takes for these batches when they are on the device already, by the device's own
    clock, as a share of the wall time from the first clip to the last features.
    """
    if not setting.is_cuda:
        section.notes.append("no bus, no streams and no page-locked memory on the CPU: plain copies, one after another")
    for name in chosen_of(FED, setting)[: 1 if setting.small else None]:
        if section.left < 0:
            section.missing(name, "no time left")
        else:
            _feed(name, setting, section)


def _feed(name: str, setting: Setting, section: Section) -> None:
    network, clips = on_device(name, setting), list(noise_for(name, setting.batches[-1]))
    alone = device_seconds(network, torch.stack(clips[: setting.batch]).to(setting.device), setting)
    count = 2 if setting.small else min(max(int(0.7 / alone), 8), 200)
    fed = [[clips[(k * setting.batch + i) % len(clips)] for i in range(setting.batch)] for k in range(count)]
    ways: dict[str, Callable[[Fed], list[NDArray[np.float32]]]] = {
        "as xelvad feeds it": partial(_as_extraction_does, Engine(random_extractor(name), "eager", setting.device)),
        "two buffers, copies in a stream of their own": partial(double_buffered, network, setting),
    }
    features = []
    for way, run in ways.items():
        if not setting.small:
            run(fed[:3])  # the first time chooses kernels, and asks for memory
        synchronise(setting.device)
        began = time.perf_counter()
        features.append(np.concatenate(run(fed)))
        wall = time.perf_counter() - began
        note = f"{count * setting.batch / wall:,.1f} clips/s; alone {setting.batch / alone:,.1f}"
        goal = BUSY if setting.is_cuda else None
        section.row(f"{name}, {way}", 100 * alone * count / wall, "% of the time", at_least=goal, note=note)
    alike = min(cosine(a, b) for a, b in zip(*features, strict=True))
    section.row(f"{name}, features of both ways", alike, "cosine", at_least=COSINE, must=True)


def _as_extraction_does(engine: Engine, fed: Fed) -> list[NDArray[np.float32]]:
    batches: ClipBatches[int] = ClipBatches(engine, len(fed[0]))
    found: list[tuple[int, NDArray[np.float32]]] = []
    for number, clip in enumerate(clip for batch in fed for clip in batch):
        found += batches.add(number, clip)
    while len(batches):
        found += batches.advance()
    return [features[None] for _, features in found]


def double_buffered(network: Network, setting: Setting, fed: Fed) -> list[NDArray[np.float32]]:
    """An experiment: the next batch is gathered and carried while the device computes.

    Two page-locked buffers are filled channels last, a stream of their own copies them, and features are waited for
    without waiting for the batch behind them.
    """
    buffers = [_Buffer(len(fed[0]), fed[0][0].shape, setting) for _ in range(2)]
    copies = torch.cuda.Stream() if setting.is_cuda else None
    if copies is not None:
        copies.wait_stream(torch.cuda.current_stream())  # the buffers' memory may have been another's until now
    found: list[NDArray[np.float32]] = []
    for number, clips in enumerate(fed):
        buffer, before = buffers[number % 2], buffers[1 - number % 2]
        buffer.start(network, clips, copies)
        if number:
            found.append(before.finish())
    return [*found, buffers[(len(fed) - 1) % 2].finish()]


class _Buffer:
    """Room for a batch in memory and on the device, both channels last, and for its features."""

    features: Tensor

    def __init__(self, count: int, shape: torch.Size, setting: Setting) -> None:
        channels, *rest = shape
        here = torch.empty((count, *rest, channels), dtype=torch.uint8, pin_memory=setting.is_cuda)
        there = torch.empty((count, *rest, channels), dtype=torch.uint8, device=setting.device)
        self.here, self.there = (room.permute(0, 4, 1, 2, 3) for room in (here, there))
        self.carried, self.computed = (torch.cuda.Event() if setting.is_cuda else None for _ in range(2))

    def start(self, network: Network, clips: Sequence[Tensor], copies: torch.cuda.Stream | None) -> None:
        """Let a batch be carried and computed; the one that was here before is finished."""
        torch.stack(list(clips), out=self.here)
        with nullcontext() if copies is None else torch.cuda.stream(copies):
            self.there.copy_(self.here, non_blocking=True)
            if self.carried is not None:
                self.carried.record()
        if self.carried is not None:
            torch.cuda.current_stream().wait_event(self.carried)
        features = network(self.there).float()
        self.features = torch.empty(features.shape, pin_memory=self.computed is not None)
        self.features.copy_(features, non_blocking=True)
        if self.computed is not None:
            self.computed.record()

    def finish(self) -> NDArray[np.float32]:
        """The features, once they are there."""
        if self.computed is not None:
            self.computed.synchronize()
        found: NDArray[np.float32] = self.features.numpy()
        return found


# --- preprocessing on the device, an experiment ----------------------------------------------------------------------


@torch.inference_mode()
def preprocessing(setting: Setting, section: Section) -> None:
    """Resizing and cropping of 320 x 240 frames on the device instead of on the host: an experiment.

    Normalising is the network's first layer either way.
    """
    section.notes.append("on the host by one thread, as a reader of videos does it; there is one for each worker")
    for name in chosen_of(FED, setting):
        if section.left < 0:
            section.missing(name, "no time left")
        else:
            _preprocess(name, setting, section)


def _preprocess(name: str, setting: Setting, section: Section) -> None:
    shown = spec_of(name).preprocessing
    assert isinstance(shown, Pictures)
    clips = np.stack(list(islice(cycle(pictures().values()), setting.batch)))
    room = torch.from_numpy(clips)
    room = room.pin_memory() if setting.is_cuda else room
    there = room.to(setting.device)

    def carried() -> Tensor:
        return cropped(shown, room.to(setting.device, non_blocking=True, copy=True))

    with one_thread():
        host = seconds_of(lambda: shown(clips[:1]), setting, 0.3)
    section.row(f"{name}, on the host, one thread", 1 / host, "clips/s")
    for way, action in {"frames there": lambda: cropped(shown, there), "frames carried over the bus": carried}.items():
        seconds = seconds_of(action, setting, 0.3)
        section.row(f"{name}, on the device, {way}", len(clips) / seconds, "clips/s")
    network = on_device(name, setting)
    pair = [network(batch).float().cpu().numpy() for batch in (shown(clips).to(setting.device), carried())]
    alike = min(cosine(a, b) for a, b in zip(*pair, strict=True))
    section.row(f"{name}, features of both", alike, "cosine", at_least=COSINE)


@contextmanager
def one_thread() -> Iterator[None]:
    """As a reader's thread computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cropped(shown: Pictures, frames: Tensor) -> Tensor:
    """As `Pictures` does it, in floating point where the frames are: uint8 ``(B, T, H, W, 3)`` to the centre crop."""
    batch, length, height, width, _ = frames.shape
    rounded, halved = (int, round) if shown.rounding == "torchvision" else (round, int)
    size = shown.resize if isinstance(shown.resize, tuple) else short_side_size(height, width, shown.resize, rounded)
    flat = frames.flatten(0, 1).permute(0, 3, 1, 2).float()  # (B·T, 3, H, W)
    flat = F.interpolate(flat, size, mode=shown.interpolation, antialias=shown.antialias, align_corners=False)
    y, x = (halved((side - shown.crop) / 2) for side in size)
    flat = flat[:, :, y : y + shown.crop, x : x + shown.crop].round().clamp(0, 255).to(torch.uint8)
    if shown.order == "BGR":
        flat = flat.flip(1)
    clips = flat.unflatten(0, (batch, length)).transpose(1, 2)  # (B, 3, T, crop, crop)
    return clips.contiguous(memory_format=torch.channels_last_3d)
