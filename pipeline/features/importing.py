"""Importing: features that others made, into a features folder, as if they had been extracted here.

`.npy` files have a row for each clip or, as published for MIL, for each of a fixed number of segments; `.txt` files
always have segments.

Scores become frame scores by the number of frames, which the labels give, or the test videos themselves. Where neither
does, a video is taken to have as many frames as its rows make clips: exact but for a dropped tail where rows are clips.
Where rows are segments it is a mere stand-in, good enough for training, which looks at no frame; test videos must give
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ... import __version__
from ...errors import UserError
from ..datasets import DatasetChoice, LabelledVideo, any_fold
from ..support.progress import SILENT, Progress, Report
from ..videos.clips import Clipping, Segments
from ..videos.config import Tail
from ..videos.identity import digest, stamp
from ..videos.reader import VideoError, open_video
from ..videos.sources import VideoSource
from .config import ImportConfig
from .foreign import ARRAY, TEXT, find_files, pieces_of, place_of, shape_of, some
from .sidecar import Sidecar, Timeline
from .store import FeatureStore


@dataclass
class ImportResult:
    """What a run of `import_features` came to: names of videos."""

    imported: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)  # were there already


@dataclass(frozen=True)
class _Source:
    """A video and the file that holds its features, of shape ``(T, D)`` or ``(T, crops, D)``."""

    video: LabelledVideo
    path: Path
    shape: tuple[int, ...]


def import_features(
    videos: Sequence[LabelledVideo],
    sources: Sequence[Path],
    folder: Path,
    config: ImportConfig,
    report: Report = SILENT,
) -> ImportResult:
    """Make the feature files of ``videos`` that are not there yet, or whose source has changed.

    Before anything is written, all files are found and their shapes compared. Each is then imported as a whole or not
    at all; memory does not grow with its size.

    Args:
        videos: what `videos_of` read.
        sources: folders with a file for every video, named like it: see `find_files`.
        folder: the features folder; files go to ``folder/<extractor>/<name>.npy``.
        config: how the files are to be understood.
        report: is told how far it is.

    Raises:
        UserError: files are missing, ambiguous, damaged, not finite or do not belong together, or the folder holds
            features of another origin.
    """
    files = find_files([video.name for video in videos], sources)
    found = [_Source(video, path, shape_of(path)) for video, path in zip(videos, files, strict=True)]
    for source in found:
        if source.shape[1:] != found[0].shape[1:]:
            raise UserError(
                f"features of mixed dimension: a row of {found[0].path} is {found[0].shape[1:]}, of {source.path} "
                f"{source.shape[1:]}; import each kind under its own --extractor name"
            )
    clipping = _clipping_of(found, config)
    store = FeatureStore(folder, config.extractor)
    result = ImportResult()
    todo: list[tuple[Path, Sidecar]] = []
    for source in found:
        sidecar = _sidecar_of(source, clipping, config)
        if store.array_path(source.video.name).resolve() == source.path.resolve():
            raise UserError(f"{source.path}: would be replaced by its own import; choose another --features folder")
        if _is_current(store, source.path, sidecar):
            store.adopt(VideoSource(source.video.name, source.path))
            result.current.append(source.video.name)
        else:
            todo.append((source.path, sidecar))
    with report.progress("importing", len(todo), "clips") as progress:
        for path, sidecar in todo:
            progress.start(sidecar.video, clipping.count(sidecar.frames))
            _import_one(store, path, sidecar, progress)
            result.imported.append(sidecar.video)
            progress.finish()
    return result


def videos_of(choice: DatasetChoice) -> list[LabelledVideo]:
    """All videos of a data set. Where a manifest has folds and no split, all are test videos: each is, in its turn.

    Where the labels do not say how many frames a test video has, its file does, if the folder of videos is given.

    Raises:
        UserError: as `DatasetChoice.read`, or a video that has to be asked cannot be read.
    """
    fold = any_fold(choice.manifest) if choice.manifest is not None else None
    dataset = choice.read(fold)
    videos = [video if fold is None else replace(video, split="test") for video in dataset.videos]
    asked = {video.name for video in videos if video.split == "test" and video.frames is None} & dataset.paths.keys()
    return [
        replace(video, frames=_declared_frames(dataset.paths[video.name])) if video.name in asked else video
        for video in videos
    ]


def _declared_frames(path: Path) -> int | None:
    """How many frames a video has by its header, or a folder of frames; None where it does not say."""
    try:
        with open_video(path) as video:
            return video.info.declared_frames or None
    except VideoError as error:
        raise UserError(f"{error}: mend it, or leave --videos out") from error


# --- understanding ---------------------------------------------------------------------------------------------------


def _clipping_of(found: Sequence[_Source], config: ImportConfig) -> Clipping | Segments:
    """What the rows of all files are: one answer for all, because a data set is cut in one way.

    Raises:
        UserError: some rows are clips and others segments, the number of rows fits no clips or differs between segment
            files, or a test video of segments has no number of frames.
    """
    clips = [source for source in found if source.path.suffix == ARRAY and not config.segments]
    if len(clips) == len(found):
        return Clipping(config.clip_length, _tail_of(found, config))
    if clips:
        text = next(source.path for source in found if source.path.suffix == TEXT)
        raise UserError(
            f"{text} has a row for each segment, {clips[0].path} for each clip: import them under two --extractor "
            "names, or say --segments if both have segments"
        )
    first = found[0]
    for source in found:
        if source.shape[0] != first.shape[0]:
            raise UserError(
                f"{first.path} has {first.shape[0]} segments, {source.path} {source.shape[0]}: all must have equally "
                "many; leave out --segments if rows are clips"
            )
    unknown = [source.video.name for source in found if source.video.split == "test" and source.video.frames is None]
    if unknown:
        raise UserError(
            "test videos whose features are segments need their number of frames: give it in the manifest's column "
            f"frames, or name the folder of the videos by --videos; missing for {some(unknown)}"
        )
    return Segments(first.shape[0])


def _tail_of(found: Sequence[_Source], config: ImportConfig) -> Tail:
    """What became of incomplete clips, which the videos of known length tell; "pad" where it makes no difference.

    Raises:
        UserError: a video has too many or too few rows, or one kept its incomplete clip while another did not.
    """
    kinds: tuple[Tail, Tail] = ("pad", "drop")
    told_by: dict[Tail, _Source] = {}  # the first video that only this tail explains
    for source in found:
        frames = source.video.frames
        if frames is None:
            continue
        counts = {tail: Clipping(config.clip_length, tail).count(frames) for tail in kinds}
        fitting = [tail for tail in kinds if counts[tail] == source.shape[0]]
        if not fitting:
            raise UserError(
                f"{source.path}: has {source.shape[0]} rows, but the {frames} frames of {source.video.name} make "
                f"{counts['drop']} clips of {config.clip_length}, or {counts['pad']} with the incomplete one: correct "
                "frames in the labels or --clip-length, or say --segments if rows are segments"
            )
        if len(fitting) == 1:
            told_by.setdefault(fitting[0], source)
    if len(told_by) == 2:
        raise UserError(
            f"{told_by['pad'].path} has a row for its last, incomplete clip, {told_by['drop'].path} has none: they "
            "were not made alike, or frames in the labels is wrong for one of them"
        )
    return next(iter(told_by), "pad")


def _sidecar_of(source: _Source, clipping: Clipping | Segments, config: ImportConfig) -> Sidecar:
    """What is known of an import beforehand: all but the digest of the file."""
    video, rows = source.video, source.shape[0]
    size, modified = stamp(source.path)
    return Sidecar(
        video=video.name,
        video_bytes=size,
        video_modified=modified,
        video_sha256="",
        frames=rows * config.clip_length if video.frames is None else video.frames,
        declared_frames=video.frames or 0,
        salvaged_frames=0,
        timeline=Timeline(0.0, config.frame_rate),
        clipping=clipping,
        extractor=config.extractor,
        fingerprint=f"imported {config.extractor}",
        feature_dim=source.shape[-1],
        decoder="none: imported features",
        version=__version__,
        crops=source.shape[1] if len(source.shape) == 3 else None,
    )


def _is_current(store: FeatureStore, path: Path, sidecar: Sidecar) -> bool:
    """Whether this very file was imported just so.

    Raises:
        UserError: as `FeatureStore.is_current`.
    """
    if not store.is_current(VideoSource(sidecar.video, path), sidecar.fingerprint, sidecar.clipping):
        return False
    there = Sidecar.read(store.sidecar_path(sidecar.video))
    return replace(there, video_sha256="", version=__version__, video_modified=sidecar.video_modified) == sidecar


def _import_one(store: FeatureStore, path: Path, sidecar: Sidecar, progress: Progress) -> None:
    with store.write(sidecar.video, sidecar.feature_dim, sidecar.crops) as writer:
        for piece in pieces_of(path):
            finite = np.isfinite(piece).reshape(len(piece), -1).all(axis=1)
            if not finite.all():
                row = writer.clips + int(np.argmin(finite))
                raise UserError(
                    f"{place_of(path, row)}: NaN, infinite, or beyond float32; mend the file or leave it out"
                )
            writer.append(piece)
            progress.advance(len(piece))
        writer.finish(replace(sidecar, video_sha256=digest(path)))
