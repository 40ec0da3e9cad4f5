"""Importing: features that others made, into a features folder, as if they had been extracted here.

`.npy` files have a row for each clip or, as published for MIL, for each of a fixed number of segments; `.txt` files
always have segments. Which axis is which is never guessed: what may be understood in two ways is refused.

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
from ...files import write_text
from ..datasets import MAX_FRAMES, DatasetChoice, LabelledVideo, any_fold
from ..support.progress import SILENT, Progress, Report
from ..videos.clips import Clipping, Segments
from ..videos.config import Tail
from ..videos.probe import VideoError
from ..videos.reader import open_video
from .config import ImportConfig
from .foreign import TEXT_SEGMENTS, FeatureFile, FoundFiles, find_files, is_text, some, unread_note
from .sidecar import MAX_CROPS, MAX_DIM, Sidecar, Timeline, check_fingerprint, imported_fingerprint
from .store import FeatureStore

CROPS = (1, 5, 10)  # that published features have
DIMS = (512, 768, 1024, 2048, 4096)  # of a clip, that are common


@dataclass
class ImportResult:
    """What a run of `import_features` came to.

    Attributes:
        imported: names of videos.
        current: names of videos that were there already.
        notes: what else is to be known, a line each: how crops were found, what was passed over.
        unread: files that were passed over because their format is not read.
    """

    imported: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Source:
    """A video and the file, or files, with its features."""

    video: LabelledVideo
    file: FeatureFile

    @property
    def path(self) -> Path:
        """The file; of several the first."""
        return self.file.path

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T, D)`` or ``(T, crops, D)``, however it is stored."""
        return self.file.shape


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
        UserError: files are missing, ambiguous, damaged, not finite or do not belong together, their axes may be
            understood in two ways, or the folder holds features of another origin.
    """
    lying = find_files([video.name for video in videos], sources, config.crops)
    files = [FeatureFile.open(*pair) for pair in zip(lying.files, lying.joined, strict=True)]
    found = [_Source(video, file) for video, file in zip(videos, files, strict=True)]
    found = _oriented(found, config)
    for source in found:
        _check_size(source, config)
        if source.shape[1:] != found[0].shape[1:]:
            raise UserError(
                f"features of mixed dimension: a row of {found[0].path} is {found[0].shape[1:]}, of {source.path} "
                f"{source.shape[1:]}; import each kind under its own --extractor name"
            )
    clipping = _clipping_of(found, config)
    store = FeatureStore(folder, config.extractor)
    result = ImportResult(notes=_notes(found, lying), unread=lying.unread)
    todo: list[tuple[FeatureFile, Sidecar]] = []
    for source in found:
        sidecar = _sidecar_of(source, clipping, config)
        if store.array_path(source.video.name).resolve() in [path.resolve() for path in source.file.paths]:
            raise UserError(f"{source.path}: would be replaced by its own import; choose another --features folder")
        if _is_current(store, source.file, sidecar):
            result.current.append(source.video.name)
        else:
            todo.append((source.file, sidecar))
    with report.progress("importing", len(todo), "clips") as progress:
        for file, sidecar in todo:
            progress.start(sidecar.video, clipping.count(sidecar.frames))
            _import_one(store, file, sidecar, progress)
            result.imported.append(sidecar.video)
            progress.finish()
    return result


def _notes(found: Sequence[_Source], lying: FoundFiles) -> list[str]:
    """What was made of the files that a reader of the command line did not ask for."""
    notes = []
    joined = [source for source in found if source.file.joined]
    if joined:
        first = joined[0].file
        names = first.paths[0].name if len(first.paths) == 1 else f"{first.paths[0].name} … {first.paths[-1].name}"
        notes.append(f"crops joined from files of their own, for {len(joined)} of {len(found)} videos: {names}")
    if lying.spare:
        notes.append(f"passed over: {len(lying.spare)} files that belong to no video of the data set")
    if lying.unread:
        notes.append(f"passed over: {unread_note(lying.unread)}")
    return notes


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


def _oriented(found: Sequence[_Source], config: ImportConfig) -> list[_Source]:
    """The same files, with crops where the configuration says that they stand, or where they certainly do.

    Raises:
        UserError: axes may be understood in two ways, or seem to stand the other way round; says what to do.
    """
    flat = [source for source in found if len(source.file.stored) == 2]
    deep = [source for source in found if len(source.file.stored) == 3]
    if config.crops in ("first", "second") and flat:
        where = f"{flat[0].path}: shape {flat[0].file.stored}"
        raise UserError(f"{where} has no axis for crops: leave out --crops {config.crops}")
    if config.crops == "first":
        return [replace(source, file=replace(source.file, crops_first=True)) for source in found]
    _check_not_transposed(flat, config)
    if config.crops == "auto":
        _check_crops_second(deep, config)
    return list(found)


def _check_crops_second(deep: Sequence[_Source], config: ImportConfig) -> None:
    """Refuse arrays of which it is not certain that they are ``(clips, crops, F)``.

    Raises:
        UserError: names the file and says what its shape may be.
    """
    certain: set[int] = set()  # numbers of crops that files have, which cannot be read otherwise
    doubtful = []
    for source in deep:
        one, two, _ = shape = source.file.stored
        if one not in CROPS and two not in CROPS:
            raise UserError(
                f"{source.path}: shape {shape}: neither {one} nor {two} is a common number of crops "
                f"({', '.join(map(str, CROPS))}): say --crops first for (crops, clips, F), or --crops second for "
                "(clips, crops, F)"
            )
        second = two in CROPS and (one not in CROPS or _may_have(source, one, config))
        first = one in CROPS and (two not in CROPS or _may_have(source, two, config))
        if first and not second:
            raise UserError(
                f"{source.path}: shape {shape} looks like (crops, clips, F): say --crops first (or --crops second if "
                f"these are {one} clips with {two} crops each)"
            )
        if second and not first:
            certain.add(two)
        else:
            doubtful.append(source)
    for source in doubtful:
        if source.file.stored[1] not in certain:
            raise UserError(
                f"{source.path}: shape {source.file.stored} may be (crops, clips, F) or (clips, crops, F): say --crops "
                "first or --crops second"
            )


def _may_have(source: _Source, clips: int, config: ImportConfig) -> bool:
    """Whether a video may have so many clips, or segments, as far as its frames tell."""
    frames = source.video.frames
    return config.segments or frames is None or clips in (TEXT_SEGMENTS, *_counts(frames, config).values())


def _counts(frames: int, config: ImportConfig) -> dict[Tail, int]:
    """How many clips a video has, by what became of its incomplete one."""
    tails: tuple[Tail, Tail] = ("pad", "drop")
    return {tail: Clipping(config.clip_length, tail).count(frames) for tail in tails}


def _check_not_transposed(flat: Sequence[_Source], config: ImportConfig) -> None:
    """Refuse arrays that look like ``(F, clips)``, unless frames or the other files say that they are not.

    Raises:
        UserError: names the file.
    """
    upright = {source.file.stored[1] for source in flat if source.file.stored[0] not in DIMS}
    for source in flat:
        one, two = source.file.stored
        if one not in DIMS or two in DIMS or two in upright:
            continue
        if (
            source.video.frames is not None
            and not config.segments
            and one in _counts(source.video.frames, config).values()
        ):
            continue
        raise UserError(
            f"{source.path}: shape {(one, two)} looks like (F, clips), transposed: save it as (clips, F), or give the "
            f"number of frames in the labels if these are {one} clips"
        )


def _check_size(source: _Source, config: ImportConfig) -> None:
    """Refuse what no video has, which may come of axes that stand otherwise.

    Raises:
        UserError: names the file.
    """
    shape, frames = source.shape, source.video.frames
    if shape[-1] > MAX_DIM or (len(shape) == 3 and shape[1] > MAX_CROPS):
        raise UserError(f"{source.path}: shape {source.file.stored}: no clip has so many crops or features; convert it")
    frames = shape[0] * config.clip_length if frames is None else frames
    if frames > MAX_FRAMES:
        raise UserError(f"{source.path}: stands for {frames} frames, more than the {MAX_FRAMES} that a video may have")


def _clipping_of(found: Sequence[_Source], config: ImportConfig) -> Clipping | Segments:
    """What the rows of all files are: one answer for all, because a data set is cut in one way.

    Raises:
        UserError: some rows are clips and others segments, the number of rows fits no clips or differs between segment
            files, or a test video of segments has no number of frames.
    """
    clips = [source for source in found if not is_text(source.path) and not config.segments]
    if len(clips) == len(found):
        return Clipping(config.clip_length, _tail_of(found, config))
    if clips:
        text = next(source.path for source in found if is_text(source.path))
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
    told_by: dict[Tail, _Source] = {}  # the first video that only this tail explains
    for source in found:
        frames = source.video.frames
        if frames is None:
            continue
        counts = _counts(frames, config)
        fitting = [tail for tail, count in counts.items() if count == source.shape[0]]
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
    size, modified = source.file.stamp()
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
        fingerprint=imported_fingerprint(config.extractor),
        feature_dim=source.shape[-1],
        decoder="none: imported features" + (", crops first" if source.file.crops_first else ""),
        version=__version__,
        crops=source.shape[1] if len(source.shape) == 3 else None,
    )


def _is_current(store: FeatureStore, file: FeatureFile, sidecar: Sidecar) -> bool:
    """Whether this very file was imported just so; if so it belongs, from now on, to the file as it lies there now.

    Raises:
        UserError: there are features of another origin.
    """
    path = store.sidecar_path(sidecar.video)
    if not path.exists():
        return False
    there = Sidecar.read(path)
    check_fingerprint(path, there.fingerprint, sidecar.fingerprint)
    if there.clipping != sidecar.clipping:
        raise UserError(f"{path}: made with {there.clipping}, not {sidecar.clipping}; use another --features folder")
    if not store.array_path(sidecar.video).exists():
        return False
    made = replace(sidecar, features_sha256=there.features_sha256, format=there.format)  # known once it is written
    if replace(there, video_sha256="", version=__version__, video_modified=sidecar.video_modified) != made:
        return False
    if there.video_modified != sidecar.video_modified:
        if file.digest() != there.video_sha256:
            return False
        write_text(path, replace(there, video_modified=sidecar.video_modified).text())
    return True


def _import_one(store: FeatureStore, file: FeatureFile, sidecar: Sidecar, progress: Progress) -> None:
    with store.write(sidecar.video, sidecar.feature_dim, sidecar.crops) as writer:
        for piece in file.pieces():
            finite = np.isfinite(piece).all(axis=-1).reshape(len(piece), -1)  # (n, crops), or (n, 1) without any
            if not finite.all():
                row, crop = divmod(int(np.argmin(finite)), finite.shape[1])
                raise UserError(
                    f"{file.place(writer.clips + row, crop)}: NaN, infinite, or beyond float32; mend the file or leave "
                    "it out"
                )
            writer.append(piece)
            progress.advance(len(piece))
        writer.finish(replace(sidecar, video_sha256=file.digest()))
