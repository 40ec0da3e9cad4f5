"""Errors of frames: videos and a frame-by-frame detector in, feature files out that have a number for every frame.

To all that follows, the errors are features of clips of one frame: they lie beside others in the features folder, under
the name of the very detector that made them, and are scored, evaluated and shown like any.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ..features.remote.address import FeaturesFolder
from ..features.sidecar import Sidecar, Timeline
from ..features.tasks import ExtractionResult, Place, Task, clear
from ..support.progress import SILENT, Progress, Report
from ..support.threads import few_threads
from ..videos.clips import Clipping
from ..videos.probe import VideoError
from ..videos.sources import VideoSource
from ..videos.stream import identity
from ..videos.worker import DecodedVideo, Decoder

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.framewise.detector import FramewiseDetector

FRAMES = Clipping(1)  # what an error is of
POLL_SECONDS = 1.0  # between two looks at what other processes work on
SHORT_SIDE = 240  # of the pictures that are decoded: all detectors look at less
BLOCK = 64  # frames that are decoded and looked at together


def write_errors(
    sources: Sequence[VideoSource],
    folder: FeaturesFolder,
    detector: FramewiseDetector,
    name: str,
    fingerprint: str,
    report: Report = SILENT,
    retry: bool = False,
) -> ExtractionResult:
    """Write the errors of all frames of ``sources`` that are not there yet, ``(frames, 1)`` each.

    Args:
        sources: what `find_videos` found.
        folder: the features folder; files go to ``folder/<name>/<video>.npy``.
        detector: what it has learned.
        name: under which its errors are filed.
        fingerprint: of what it has learned.
        report: is told how far it is.
        retry: try videos again that were set aside before.

    Returns:
        What it came to; a video that cannot be read is set aside, and does not stop the others.

    Raises:
        UserError: there are errors of another detector of this name.
        OSError: the folder cannot be written to, or is full; what was finished is kept.
    """
    place = Place(name, folder, fingerprint, FRAMES, retry=retry)
    clear(sources, [place])
    result, waiting = ExtractionResult(), deque[Task]()
    for source in sources:
        task = Task(source, [place])
        if task.is_to_do():
            waiting.append(task)
        else:
            result.count(task)
    with (
        few_threads(detector.numbers),
        Decoder() as decoder,
        report.progress("looking at", len(waiting), "frames") as progress,
    ):
        passed = 0  # tasks in a row that another process works on
        while waiting:
            task = waiting.popleft()
            if task.claim():
                passed = 0
                with ExitStack() as stack:
                    stack.callback(task.release)
                    _write(task, place, decoder, detector, fingerprint, progress, result)
            elif task.settled:
                result.count(task)
            else:
                waiting.append(task)
                passed += 1
                if passed >= len(waiting):
                    time.sleep(max(POLL_SECONDS, place.store.poll_seconds))
    return result


def _write(
    task: Task,
    place: Place,
    decoder: Decoder,
    detector: FramewiseDetector,
    fingerprint: str,
    progress: Progress,
    result: ExtractionResult,
) -> None:
    source = task.source
    try:
        with reading(decoder, source.path) as (video, blocks, times), place.store.write(source.name, 1) as writer:
            progress.start(source.name, video.info.declared_frames)
            for errors in detector.errors_in_blocks(blocks):
                writer.append(errors.float().cpu().numpy()[:, None])
                progress.advance(len(errors))
            seconds, ((size, modified), sha256) = np.concatenate(times), identity(source.path)
            writer.finish(
                Sidecar(
                    video=source.name,
                    video_bytes=size,
                    video_modified=modified,
                    video_sha256=sha256,
                    frames=len(seconds),
                    declared_frames=video.info.declared_frames,
                    salvaged_frames=video.summary.salvaged_frames,
                    timeline=Timeline.of(seconds, video.info.frame_rate),
                    clipping=FRAMES,
                    extractor=place.name,
                    fingerprint=fingerprint,
                    feature_dim=1,
                    decoder=video.summary.decoder,
                    version=__version__,
                    notes=video.summary.notes,
                )
            )
    except VideoError as error:
        place.quarantine.add(source, str(error), task.stamp)
        result.failed[source.name] = str(error)
        progress.say(f"{source.name}: set aside")
        progress.finish()
        return
    place.quarantine.lift(source.name)
    result.extracted.append(source)
    decoded, declared = len(seconds), video.info.declared_frames
    if decoded < declared:
        result.notes[source.name] = f"{source.path}: only {decoded} of {declared} frames can be decoded"
    progress.finish()


@contextmanager
def reading(decoder: Decoder, path: Path) -> Iterator[tuple[DecodedVideo, Iterator[Tensor], list[NDArray[np.float64]]]]:
    """A video being decoded, its frames in grey, uint8 ``(n, H, W)`` a block, and the times of those handed out.

    Raises:
        VideoError: it cannot be read.
    """
    import torch

    from ...models.framewise.frames import grey

    times: list[NDArray[np.float64]] = []

    def blocks(video: DecodedVideo) -> Iterator[Tensor]:
        for block in video.blocks():
            times.append(block.times)
            yield grey(torch.from_numpy(block.frames))

    with decoder.read(path, SHORT_SIDE, BLOCK) as video:
        yield video, blocks(video), times
