"""What frame-by-frame detectors learn from: frames of normal videos, read as often as it takes, never all at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import UserError
from ..support.progress import SILENT, Report
from ..videos.probe import VideoError
from ..videos.sources import VideoSource
from ..videos.worker import Decoder
from .errors import reading

if TYPE_CHECKING:
    from ...models.framewise.detector import FramewiseDetector

CUBES = 40_000  # that sparse combinations are learned from: 80 MB
STRETCH = 256  # frames that stacks are drawn from at a time: 50 MB
STACKS_IN = 16  # frames of a stretch for each stack that is drawn from it

Optimiser = Callable[[torch.nn.Module], torch.optim.Optimizer]


def learn(
    detector: FramewiseDetector,
    sources: Sequence[VideoSource],
    *,
    seed: int,
    steps: int,
    batch: int,
    optimiser: Optimiser,
    report: Report = SILENT,
) -> None:
    """Let a detector learn what normal videos look like.

    Args:
        detector: a new one, of any kind that there is.
        sources: normal videos. One that cannot be read is said and left out.
        seed: of the sample, the initial weights are the caller's.
        steps: of the optimiser, where the detector has one.
        batch: stacks of a step.
        optimiser: makes one for a network.
        report: is told how far it is.

    Raises:
        UserError: no video can be read, or nothing moves in any of them.
    """
    from ...models.framewise.autoencoder import ConvAutoencoder
    from ...models.framewise.combinations import SparseCombinations

    with Decoder() as decoder, torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(detector, SparseCombinations):
            _learn_combinations(detector, sources, decoder, report)
        elif isinstance(detector, ConvAutoencoder):
            _learn_autoencoder(detector, sources, decoder, steps, batch, optimiser, report)
        else:
            raise TypeError(f"nobody knows how {type(detector).__name__} learns")
    detector.eval()


def digest_of(detector: FramewiseDetector) -> str:
    """SHA-256 of all that was learned, but for the levels, which are set by errors that it makes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(detector.state_dict().items()):
        if name != "levels":
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _learn_combinations(
    detector: torch.nn.Module, sources: Sequence[VideoSource], decoder: Decoder, report: Report
) -> None:
    from ...models.framewise.combinations import SparseCombinations
    from ...models.framewise.frames import Reservoir

    assert isinstance(detector, SparseCombinations)
    sample = Reservoir(CUBES)
    for frames in _stretches(sources, decoder, report):
        for cubes in detector.cubes(frames):
            if len(cubes):
                sample.add(cubes)
    if not len(sample.rows):
        raise UserError("nothing moves in the normal training videos: there are no cubes to learn from")
    detector.fit(sample.rows)


def _learn_autoencoder(
    detector: torch.nn.Module,
    sources: Sequence[VideoSource],
    decoder: Decoder,
    steps: int,
    batch: int,
    optimiser: Optimiser,
    report: Report,
) -> None:
    from ...models.framewise.autoencoder import LENGTH, ConvAutoencoder, draw_stacks

    assert isinstance(detector, ConvAutoencoder)
    for frames in _stretches(sources, decoder, report):
        detector.observe(frames)
    network, done, waiting = optimiser(detector), 0, list[Tensor]()
    detector.train()
    with report.progress("training", 1, "iterations") as progress:
        progress.start(detector.title, steps)
        while done < steps:
            before = done, len(waiting)
            for frames in _stretches(_shuffled(sources), decoder):
                if len(frames) < LENGTH:
                    continue
                waiting += draw_stacks(detector.prepare(frames), max(1, len(frames) // STACKS_IN))
                while len(waiting) >= batch and done < steps:
                    # Of all that wait, so that a batch is not one scene.
                    chosen = [waiting.pop(int(torch.randint(len(waiting), ()))) for _ in range(batch)]
                    network.zero_grad()
                    detector.loss(torch.stack(chosen)).backward()
                    network.step()
                    done += 1
                    progress.advance()
                if done >= steps:
                    break
            if (done, len(waiting)) == before:
                raise UserError(f"the normal training videos are all shorter than {LENGTH} frames")
        progress.finish()


def _shuffled(sources: Sequence[VideoSource]) -> list[VideoSource]:
    return [sources[number] for number in torch.randperm(len(sources)).tolist()]


def _stretches(sources: Sequence[VideoSource], decoder: Decoder, report: Report = SILENT) -> Iterator[Tensor]:
    """The frames of all videos, uint8 ``(n ≤ STRETCH, H, W)``, each stretch of one video."""
    read = 0
    with report.progress("learning from", len(sources), "frames") as progress:
        for source in sources:
            try:
                with reading(decoder, source.path) as (video, blocks, _):
                    progress.start(source.name, video.info.declared_frames)
                    held: list[Tensor] = []
                    for block in blocks:
                        held.append(block)
                        progress.advance(len(block))
                        if sum(map(len, held)) >= STRETCH:
                            yield torch.cat(held)
                            held = []
                    if held:
                        yield torch.cat(held)
                read += 1
            except VideoError as error:
                report.say(f"left out: {error}")
            progress.finish(source.name)
    if not read:
        raise UserError("none of the normal training videos can be read: name their folder by --videos")
