"""Scoring: a trained detector and videos in, exactly one score per decoded frame out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...extractors import spec_of
from ...extractors.precision import INT8, fingerprint_of
from ...files import write_bytes, write_text
from ...models.framewise.detector import FramewiseDetector
from ..features.config import ExtractionConfig
from ..features.extraction import extract
from ..features.remote.address import FeaturesFolder
from ..features.remote.store import open_store
from ..features.sidecar import check_fingerprint
from ..features.store import Features
from ..features.tasks import ExtractionResult
from ..footage.calibration import DRAWN_FOOTAGE
from ..framewise.errors import write_errors
from ..support.progress import SILENT, Report
from ..videos.clips import Clipping
from ..videos.sources import VideoSource, find_videos
from .protocols import PROTOCOLS, FrameProtocol
from .runs import Run, RunManifest


@dataclass(frozen=True)
class FrameScores:
    """The scores of one video.

    Attributes:
        name: the video's.
        scores: ``(frames,)`` float32 in [0, 1], one per decoded frame.
        times: ``(frames,)`` seconds, the presentation time of each frame.
    """

    name: str
    scores: NDArray[np.float32]
    times: NDArray[np.float64]


def score_features(
    run: Run, name: str, features: Features, protocol: FrameProtocol = PROTOCOLS["exact"]
) -> FrameScores:
    """Score one video from its features.

    Args:
        run: the trained detector.
        name: the video's.
        features: the video's.
        protocol: it says what is scored, clips or segments; here every frame gets a score under each of them.

    Raises:
        UserError: the features come from another extractor than those that the run learnt from, or cannot be brought
            into the protocol.
    """
    sidecar = features.sidecar
    check_fingerprint(Path(name), sidecar.fingerprint, run.manifest.fingerprint)
    scores = protocol.score(name, run.detector, features, run.scaling)
    return FrameScores(name, scores, sidecar.timeline.times(sidecar.frames))


def score_video(path: Path, run: Run, config: ExtractionConfig | None = None) -> FrameScores:
    """Score one video; nothing is written that stays.

    Args:
        path: a video file, or a folder of frames.
        run: the trained detector; it says which extractor and which clips.
        config: weights, batch, device, runtime and precision of the extraction; extractor and tail are the run's, as is
            int8. All videos are scored: a shard is none of its business.

    Raises:
        UserError: the video cannot be read, or as `score_videos`.

    Example, with a folder that `xelvad train` made:
        >>> from xelvad import load_run
        >>> result = score_video(video, load_run(run_folder))
        >>> len(result.scores) == len(result.times)  # one for each frame
        True
    """
    with TemporaryDirectory(prefix="xelvad-") as folder:
        out = Path(folder)
        scores, extraction = score_videos(find_videos([path]), run, out, out / "features", config or ExtractionConfig())
    if extraction.failed:
        raise UserError(next(iter(extraction.failed.values())))
    (result,) = scores
    return result


def score_videos(
    sources: Sequence[VideoSource],
    run: Run,
    out: Path,
    features: FeaturesFolder,
    config: ExtractionConfig,
    report: Report = SILENT,
) -> tuple[list[FrameScores], ExtractionResult]:
    """Score videos: extract what is not in the cache, then write ``scores.npy`` and ``scores.csv`` for each.

    Args:
        sources: what `find_videos` found.
        run: the trained detector; it says which extractor and which clips.
        out: files go to ``out/<name>/``.
        features: the features folder, read and filled.
        config: weights, batch, device, runtime and precision of the extraction; extractor and tail are the run's, as is
            int8. All videos are scored: a shard is none of its business.
        report: is told how far it is.

    Returns:
        The scores of all videos that could be read, and what the extraction came to.

    Raises:
        UserError: the run learnt from other weights than those at hand, or from imported segments.
    """
    if isinstance(run.detector, FramewiseDetector):
        extraction = write_errors(
            sources, features, run.detector, run.manifest.extractor, run.manifest.fingerprint, report, config.retry
        )
    else:
        extraction = _extract_for(run, sources, features, config, report)
    store = open_store(features, run.manifest.extractor)
    scored = []
    for source in sources:
        if source.name in extraction.failed:
            continue
        result = score_features(run, source.name, store.read(source.name, run.manifest.fingerprint))
        write_scores(out / source.name, result)
        scored.append(result)
    return scored, extraction


def _extract_for(
    run: Run, sources: Sequence[VideoSource], features: FeaturesFolder, config: ExtractionConfig, report: Report
) -> ExtractionResult:
    clipping = run.manifest.clipping
    if not isinstance(clipping, Clipping):
        raise UserError(
            f"{run.folder}: learnt from imported {clipping.segments} segments a video, which cannot be made "
            "of new videos here; xelvad evaluate scores imported features"
        )
    config = replace(config, extractor=(run.manifest.extractor,), tail=clipping.tail, shard=None)
    if config.precision == "auto" and INT8 in run.manifest.fingerprint:
        config = replace(config, precision="int8")
    check_weights(run.manifest, config)
    return extract(sources, features, config, report)


def check_weights(manifest: RunManifest, config: ExtractionConfig) -> None:
    """Refuse to score with other weights than those that the detector learnt from, before anything is extracted.

    Raises:
        UserError: names both fingerprints and the option that mends it.
    """
    spec = spec_of(manifest.extractor)
    fingerprint = fingerprint_of(spec, config.weights, config.precision, DRAWN_FOOTAGE)
    if fingerprint != manifest.fingerprint:
        option = "--weights" if INT8 not in fingerprint + manifest.fingerprint else "--weights and --precision"
        raise UserError(
            f"the run learnt from «{manifest.fingerprint}», at hand is «{fingerprint}»: name its weights by {option}"
        )


def write_scores(folder: Path, result: FrameScores) -> None:
    """Write ``scores.npy`` (float32, one per frame) and ``scores.csv`` (frame, seconds, score)."""
    array = io.BytesIO()
    np.save(array, result.scores.astype("<f4"), allow_pickle=False)
    write_bytes(folder / "scores.npy", array.getvalue())
    rows = enumerate(zip(result.times, result.scores, strict=True))
    lines = [f"{frame},{seconds:.4f},{score:.6f}" for frame, (seconds, score) in rows]
    write_text(folder / "scores.csv", "\n".join(["frame,seconds,score", *lines, ""]))
