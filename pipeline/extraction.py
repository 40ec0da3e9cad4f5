"""Extraction: videos in, feature files out; resumes where it stopped, and a bad video costs only itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import UserError
from ..extractors import create, spec_of
from ..extractors.weights import digest_of
from .cache import FeatureStore, Sidecar, Timeline, digest, stamp
from .clips import Clipping, Tail
from .console import Progress
from .decoding import DecodedVideo, Decoder
from .memory import keep_freed_memory
from .videos import VideoError, VideoSource

if TYPE_CHECKING:
    from ..extractors import Extractor


@dataclass(frozen=True)
class ExtractionConfig:
    """How features are made.

    Attributes:
        extractor: the clip network; see the README for what there is.
        weights: known weights by name, a checkpoint file, or "random"; the extractor's own by default.
        tail: "pad" repeats the last frame so that every frame gets a score; "drop" is the papers' protocol.
        batch: clips that go through the network at once.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """

    extractor: str = "i3d-rgb"
    weights: str | None = None
    tail: Tail = "pad"
    batch: int = 4
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"batch must be at least 1, not {self.batch}")


@dataclass
class ExtractionResult:
    """What a run of `extract` came to."""

    extracted: list[VideoSource] = field(default_factory=list)
    current: list[VideoSource] = field(default_factory=list)  # were there already
    incomplete: dict[str, str] = field(default_factory=dict)  # of these, name -> how many frames could be decoded
    failed: dict[str, str] = field(default_factory=dict)  # name -> why it was set aside


def extract(sources: Sequence[VideoSource], folder: Path, config: ExtractionConfig) -> ExtractionResult:
    """Make the feature files of ``sources`` that are not there yet.

    Videos that cannot be read are set aside, with the reason, and do not stop the others.

    Args:
        sources: what `find_videos` found.
        folder: the features folder; files go to ``folder/<extractor>/<name>.npy``.
        config: how.

    Raises:
        UserError: unknown extractor or weights, or the folder holds features made otherwise.
    """
    spec = spec_of(config.extractor)
    store = FeatureStore(folder, spec.name)
    clipping = Clipping(spec.clip_length, config.tail)
    fingerprint = spec.fingerprint(digest_of(spec, config.weights))
    result = ExtractionResult()
    todo: list[VideoSource] = []
    for source in sources:
        (result.current if store.is_current(source, fingerprint, clipping) else todo).append(source)
    if todo:
        _extract_all(todo, store, clipping, config, result)
    return result


def _extract_all(
    sources: Sequence[VideoSource],
    store: FeatureStore,
    clipping: Clipping,
    config: ExtractionConfig,
    result: ExtractionResult,
) -> None:
    network = ClipNetwork(create(config.extractor, config.weights), config.batch, config.device)
    with Decoder() as decoder, Progress("extracting", len(sources), "clips") as progress:
        for source in sources:
            progress.start(source.name)
            try:
                with decoder.read(source.path, network.extractor.short_side, clipping.length) as video:
                    progress.expect(clipping.count(video.info.declared_frames))
                    _extract_one(source, video, store, clipping, network, progress)
                result.extracted.append(source)
                decoded, declared = video.summary.decoded_frames, video.info.declared_frames
                if decoded < declared:
                    result.incomplete[source.name] = (
                        f"{source.path}: only {decoded} of {declared} frames can be decoded"
                    )
            except VideoError as error:
                result.failed[source.name] = str(error)
                progress.say(f"{source.name}: set aside")
            progress.finish()


def _extract_one(
    source: VideoSource,
    video: DecodedVideo,
    store: FeatureStore,
    clipping: Clipping,
    network: ClipNetwork,
    progress: Progress,
) -> None:
    extractor = network.extractor
    size, modified = stamp(source.path)
    times: list[NDArray[np.float64]] = []
    with store.write(source.name, extractor.feature_dim) as writer:
        for features in network.run(clipping.split(_frames(video, times))):
            writer.append(features)
            progress.advance(len(features))
        seen = np.concatenate(times)
        writer.finish(
            Sidecar(
                video=source.name,
                video_bytes=size,
                video_modified=modified,
                video_sha256=digest(source.path),
                frames=len(seen),
                declared_frames=video.info.declared_frames,
                salvaged_frames=video.summary.salvaged_frames,
                timeline=Timeline.of(seen, video.info.frame_rate),
                clipping=clipping,
                extractor=extractor.name,
                fingerprint=extractor.fingerprint,
                feature_dim=extractor.feature_dim,
                decoder=video.summary.decoder,
                version=__version__,
            )
        )


def _frames(video: DecodedVideo, times: list[NDArray[np.float64]]) -> Iterator[NDArray[np.uint8]]:
    """The frames of each block; their times are put aside."""
    for block in video.blocks():
        times.append(block.times)
        yield block.frames


class ClipNetwork:
    """Runs an extractor over a stream of clips, in batches, on a device."""

    def __init__(self, extractor: Extractor, batch: int, device: str) -> None:
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            keep_freed_memory()
        self.extractor, self.batch, self.device = extractor, batch, device
        if isinstance(extractor, torch.nn.Module):
            try:
                extractor.to(device)
            except (RuntimeError, AssertionError) as error:  # torch's ways of saying that it has no such device
                reason = str(error).split("\n")[0]
                raise UserError(f"--device {device}: not to be had here ({reason})") from error

    def run(self, clips: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Clips ``(length, height, width, 3)`` one by one to features ``(≤ batch, feature_dim)``, in order."""
        waiting = []
        for clip in clips:
            # Preprocessed at once: the block that the clip views is overwritten when the next one is asked for.
            waiting.append(self.extractor.preprocess(clip[None]))
            if len(waiting) == self.batch:
                yield self._forward(waiting)
                waiting = []
        if waiting:
            yield self._forward(waiting)

    def _forward(self, waiting: list) -> NDArray[np.float32]:
        import torch

        features = self.extractor(torch.cat(waiting).to(self.device))
        return features.float().cpu().numpy()
