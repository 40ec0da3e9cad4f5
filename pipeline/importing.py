"""Importing: features that others made, into a features folder, as if they had been extracted here.

Two formats are read. `.npy` files hold one plain array, ``(T, D)`` or ``(T, crops, D)`` in float16, float32 or float64,
with a row for each clip or, as published for MIL, for each of a fixed number of segments. `.txt` files are those of
Sultani et al. (CVPR 2018): 32 lines, one for each segment, of D numbers (4096 for C3D).

Scores become frame scores by the number of frames, which the manifest gives. Where it does not, a video is taken to
have as many frames as its rows make clips: exact but for a dropped tail where rows are clips. Where rows are segments
it is a mere stand-in, good enough for training, which looks at no frame; test videos must give it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import UserError
from .cache import FeatureStore, Sidecar, Timeline, digest, stamp
from .clips import Clipping, Segments, Tail
from .console import Progress
from .datasets import LabelledVideo, any_fold, read_manifest
from .videos import FOLDER_FRAME_RATE, VIDEO_SUFFIXES, VideoSource

SUFFIXES = (".npy", ".txt")
ENDINGS = ("", "_C", "_C3D", "_c3d", "_i3d")  # that published files carry behind the video's name
TEXT_SEGMENTS = 32
PIECE_VALUES = 1 << 22  # numbers that are copied at once: 16 MiB of float32
LINE_BYTES = 1 << 22  # of a text file: more is no line of features
LISTED = 5  # names in an error message


@dataclass(frozen=True)
class ImportConfig:
    """How feature files of others are to be understood.

    Attributes:
        extractor: name to file the features under, for `train --extractor NAME`.
        clip_length: frames per clip, for .npy files with one row per clip.
        segments: rows of .npy files are segments, each an equal share of its video; those of .txt files always are.
        frame_rate: frames per second of the videos, for the times of scores; feature files do not know it.
    """

    extractor: str
    clip_length: int = 16
    segments: bool = False
    frame_rate: float = FOLDER_FRAME_RATE

    def __post_init__(self) -> None:
        if Path(self.extractor).name != self.extractor or self.extractor in ("", ".."):
            raise UserError(f"extractor must be a plain name, not {self.extractor!r}")
        if self.clip_length < 1:
            raise UserError(f"clip_length must be at least 1, not {self.clip_length}")
        if not 0 < self.frame_rate < math.inf:
            raise UserError(f"frame_rate must be positive, not {self.frame_rate}")


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
    videos: Sequence[LabelledVideo], sources: Sequence[Path], folder: Path, config: ImportConfig
) -> ImportResult:
    """Make the feature files of ``videos`` that are not there yet, or whose source has changed.

    Before anything is written, all files are found and their shapes compared. Each is then imported as a whole or not
    at all; memory does not grow with its size.

    Args:
        videos: what `videos_of` read.
        sources: folders with a file for every video, named like it: see `find_files`.
        folder: the features folder; files go to ``folder/<extractor>/<name>.npy``.
        config: how the files are to be understood.

    Raises:
        UserError: files are missing, ambiguous, damaged, not finite or do not belong together, or the folder holds
            features of another origin.
    """
    files = find_files([video.name for video in videos], sources)
    found = [_Source(video, path, _shape_of(path)) for video, path in zip(videos, files, strict=True)]
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
            result.current.append(source.video.name)
        else:
            todo.append((source.path, sidecar))
    with Progress("importing", len(todo), "clips") as progress:
        for path, sidecar in todo:
            progress.start(sidecar.video, clipping.count(sidecar.frames))
            _import_one(store, path, sidecar, progress)
            result.imported.append(sidecar.video)
            progress.finish()
    return result


def videos_of(manifest: Path) -> list[LabelledVideo]:
    """All videos of a manifest. Where it has folds instead of a split, all are test videos: each is, in its turn.

    Raises:
        UserError: as `read_manifest`.
    """
    fold = any_fold(manifest)
    videos = list(read_manifest(manifest, fold).videos)
    return videos if fold is None else [replace(video, split="test") for video in videos]


# --- finding ---------------------------------------------------------------------------------------------------------


def find_files(names: Iterable[str], sources: Sequence[Path]) -> list[Path]:
    """The file with the features of each video.

    It carries the video's name, relative to one of ``sources``, with or without the video's own suffix and leading
    folders, one of `ENDINGS`, and .npy or .txt: ``Abuse/Abuse001_x264.mp4`` is found as
    ``Abuse/Abuse001_x264.mp4.npy``, ``Abuse/Abuse001_x264.txt`` or ``Abuse001_x264_i3d.npy``. More leading folders win.

    Raises:
        UserError: a folder is not there, a video has no file or several, or two videos have the same one.
    """
    for source in sources:
        if not source.is_dir():
            raise UserError(f"{source}: no such folder of feature files")
    listing = cache(_listing)  # every folder is looked at once
    found = {name: _candidates(name, sources, listing) for name in names}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        example = Path(missing[0]).name
        raise UserError(
            f"{', '.join(map(str, sources))}: no features of {len(missing)} of {len(found)} videos: {_some(missing)}; "
            f"they may be named {_some(_file_names(example))}: correct --source or the manifest"
        )
    several = {name: paths for name, paths in found.items() if len(paths) > 1}
    if several:
        name, paths = next(iter(several.items()))
        raise UserError(
            f"{_some(list(several))}: more than one file of features each; {name} has {_some(list(map(str, paths)))}: "
            "name the folder of the wanted ones by --source, or move the others away"
        )
    owners: dict[Path, str] = {}
    for name, (path,) in found.items():
        other = owners.setdefault(path, name)
        if other != name:
            raise UserError(f"{other} and {name} would both take {path}: give each its own file, named in full")
    return [path for (path,) in found.values()]


def _candidates(name: str, sources: Sequence[Path], listing: Callable[[Path], frozenset[str]]) -> list[Path]:
    """All files that could be meant, with as many of the video's leading folders as there are any."""
    *folders, last = Path(name).parts
    for start in range(len(folders) + 1):
        places = dict.fromkeys(Path(source, *folders[start:]) for source in sources)
        found = [place / file for place in places for file in _file_names(last) if file in listing(place)]
        if found:
            return found
    return []


def _file_names(video: str) -> list[str]:
    """What the file with the features of a video, given without its folders, may be named."""
    path = Path(video)
    stems = [video, path.stem] if path.suffix.lower() in VIDEO_SUFFIXES else [video]
    return [f"{stem}{ending}{suffix}" for suffix in SUFFIXES for stem in stems for ending in ENDINGS]


def _listing(folder: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


# --- understanding ---------------------------------------------------------------------------------------------------


def _clipping_of(found: Sequence[_Source], config: ImportConfig) -> Clipping | Segments:
    """What the rows of all files are: one answer for all, because a data set is cut in one way.

    Raises:
        UserError: some rows are clips and others segments, the number of rows fits no clips or differs between segment
            files, or a test video of segments has no number of frames.
    """
    clips = [source for source in found if source.path.suffix == ".npy" and not config.segments]
    if len(clips) == len(found):
        return Clipping(config.clip_length, _tail_of(found, config))
    if clips:
        text = next(source.path for source in found if source.path.suffix == ".txt")
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
            f"test videos whose features are segments need their number of frames: give it in the manifest's column "
            f"frames, missing for {_some(unknown)}"
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
                "frames in the manifest or --clip-length, or say --segments if rows are segments"
            )
        if len(fitting) == 1:
            told_by.setdefault(fitting[0], source)
    if len(told_by) == 2:
        raise UserError(
            f"{told_by['pad'].path} has a row for its last, incomplete clip, {told_by['drop'].path} has none: they "
            "were not made alike, or frames in the manifest is wrong for one of them"
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
    return replace(there, video_sha256="", version=__version__) == sidecar


# --- reading ---------------------------------------------------------------------------------------------------------


def _import_one(store: FeatureStore, path: Path, sidecar: Sidecar, progress: Progress) -> None:
    with store.write(sidecar.video, sidecar.feature_dim, sidecar.crops) as writer:
        for piece in _text_rows(path) if path.suffix == ".txt" else _array_pieces(path):
            finite = np.isfinite(piece).reshape(len(piece), -1).all(axis=1)
            if not finite.all():
                row = writer.clips + int(np.argmin(finite))
                place = f"line {row + 1}" if path.suffix == ".txt" else f"row {row}"
                raise UserError(f"{path}, {place}: NaN, infinite, or beyond float32; mend the file or leave it out")
            writer.append(piece)
            progress.advance(len(piece))
        writer.finish(replace(sidecar, video_sha256=digest(path)))


def _shape_of(path: Path) -> tuple[int, ...]:
    """The shape of a file's features, from its header or its first line."""
    return (TEXT_SEGMENTS, next(_text_rows(path)).shape[1]) if path.suffix == ".txt" else _map(path).shape


def _map(path: Path) -> NDArray[np.floating]:
    """Map a .npy file, read-only; nothing in it is unpickled.

    Raises:
        UserError: not a .npy file, or not an array of features.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a plain array as np.save writes it ({reason}); convert it") from error
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise UserError(f"{path}: holds {array.dtype}, features are float16, float32 or float64; convert it")
    if array.ndim not in (2, 3):
        raise UserError(f"{path}: has the shape {array.shape}, not (rows, features) or (rows, crops, features)")
    if 0 in array.shape:
        raise UserError(f"{path}: empty, of shape {array.shape}; mend the file or leave its video out")
    return array


def _array_pieces(path: Path) -> Iterator[NDArray[np.float32]]:
    """Consecutive rows of a .npy file, mapped anew for each piece: pages that were read do not stay in memory."""
    shape = _map(path).shape
    rows = max(1, PIECE_VALUES // math.prod(shape[1:]))
    for start in range(0, shape[0], rows):
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite and is refused by name
            piece = np.array(_map(path)[start : start + rows], np.float32, order="C")
        yield piece


def _text_rows(path: Path) -> Iterator[NDArray[np.float32]]:
    """The lines of a text file, ``(1, D)`` each.

    Raises:
        UserError: not 32 lines of equally many numbers; names the line.
    """
    width = 0
    with path.open("rb") as file:
        for number in range(1, TEXT_SEGMENTS + 1):
            row = _numbers(f"{path}, line {number}", file.readline(LINE_BYTES))
            width = width or len(row)
            if len(row) != width:
                raise UserError(f"{path}, line {number}: {len(row)} numbers, line 1 has {width}; the file is damaged")
            with np.errstate(over="ignore"):
                yield row.astype(np.float32)[None]
        if file.read(LINE_BYTES).strip():
            raise UserError(f"{path}, line {TEXT_SEGMENTS + 1}: more than the {TEXT_SEGMENTS} lines, one per segment")


def _numbers(where: str, line: bytes) -> NDArray[np.float64]:
    if not line:
        raise UserError(f"{where}: the file ends here, it must have {TEXT_SEGMENTS} lines, one per segment")
    if len(line) == LINE_BYTES:
        raise UserError(f"{where}: longer than any line of features; this is not a text file of features")
    words = line.split()
    if not words:
        raise UserError(f"{where}: empty; it must hold the features of a segment")
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise UserError(f"{where}: not all numbers ({error}); the file is damaged") from error
