"""Feature files that others made: which of them belongs to which video, and what is in them.

`.npy` files hold one plain array in float16, float32 or float64: ``(T, D)``, or with crops ``(T, crops, D)`` or
``(crops, T, D)``; or crops have a file each, ``NAME__0.npy``, ``NAME__1.npy`` and so on, as those of XD-Violence are
published. `.txt` files are those of Sultani et al. (CVPR 2018): 32 lines, one for each segment of a video, of D numbers
(4096 for C3D).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tokenize
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..videos.identity import digest, stamp
from ..videos.names import NameIndex
from ..videos.sources import FRAME_SUFFIXES, VIDEO_SUFFIXES
from .config import Crops

ARRAY, TEXT = ".npy", ".txt"
SUFFIXES = (ARRAY, TEXT)
ENDINGS = ("", "_C", "_C3D", "_c3d", "_i3d")  # that published files carry behind the video's name
CROP = re.compile(r"(.+)__([0-9]{1,3})")  # a video's name and the number of a crop, in files of their own
TEXT_SEGMENTS = 32
PIECE_VALUES = 1 << 22  # numbers that are copied at once: 16 MiB of float32
LINE_BYTES = 1 << 22  # of a text file: more is no line of features
LISTED = 5  # names in an error message
# What NumPy raises where a header is no header, as one that is nested deeply or names no type.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    TypeError,
    SyntaxError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)
# What lies beside features and holds none: files of any other kind may be features that were meant to be read.
NO_FEATURES = (
    frozenset({".bash", ".bib", ".cfg", ".csv", ".doc", ".docx", ".gif", ".htm", ".html", ".ini", ".ipynb", ".json"})
    | {".list", ".log", ".m", ".md", ".pdf", ".py", ".rst", ".sh", ".svg", ".tex", ".toml", ".tsv", ".xls", ".xlsx"}
    | {".xml", ".yaml", ".yml"}
    | VIDEO_SUFFIXES
    | FRAME_SUFFIXES
)
NO_FEATURES_NAMES = frozenset(
    {"readme", "license", "licence", "copying", "changelog", "notice", "makefile", "thumbs.db"}
)


@dataclass(frozen=True)
class FoundFiles:
    """What lies in the folders of features.

    Attributes:
        files: of each video, in order: its file alone, or that of each of its crops.
        joined: which videos have a file for each crop.
        spare: files that could be read and belong to no video.
        unread: files of formats that are not read.
    """

    files: list[tuple[Path, ...]]
    joined: list[bool]
    spare: list[Path]
    unread: list[Path]


@dataclass
class _Lying:
    """All files of some folders; those that may hold features by the names of videos that they could be of."""

    whole: dict[str, list[Path]] = field(default_factory=dict)
    crops: dict[str, dict[int, list[Path]]] = field(default_factory=dict)  # by number
    paths: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def find_files(names: Sequence[str], sources: Sequence[Path], crops: Crops = "auto") -> FoundFiles:
    """The file with the features of each video, or those with its crops.

    It carries the video's name, with one of `ENDINGS` and .npy or .txt behind it, and lies in one of ``sources`` or
    below, with fewer or more leading folders: see `NameIndex`. ``Abuse/Abuse001_x264.mp4`` is found as
    ``Abuse/Abuse001_x264.mp4.npy``, ``Abuse001_x264.txt`` or ``part-1/Abuse/Abuse001_x264_i3d.npy``. More common
    folders win; what carries a video's name in full is no other's.

    Args:
        names: of the videos.
        sources: folders.
        crops: "files": each crop has a file, ``NAME__0.npy`` and so on; "auto": where there is no ``NAME.npy``; else
            they are in one file.

    Raises:
        UserError: a folder is not there, a video has no file or several, a crop is missing, or two videos have the same
            file.
    """
    lying = _files_in(sources)
    whole = _named(names, lying.whole.keys()) if crops != "files" else {name: [] for name in names}
    lacking = [name for name in names if not whole[name]] if crops in ("auto", "files") else []
    in_crops = _named(lacking, lying.crops.keys())
    missing = [name for name in names if not whole[name] and not in_crops.get(name)]
    if missing:
        raise UserError(_missing(missing, len(whole), sources, crops, lying.unread))
    numbered = {
        name: _by_number([lying.crops[alias] for alias in in_crops[name]])
        if in_crops.get(name)
        else {0: list(dict.fromkeys(path for alias in whole[name] for path in lying.whole[alias]))}
        for name in whole
    }
    _check_clear(numbered)
    found = {name: tuple(paths[0] for _, paths in sorted(of.items())) for name, of in numbered.items()}
    owners: dict[Path, str] = {}
    for name, paths in found.items():
        for path in paths:
            other = owners.setdefault(path, name)
            if other != name:
                raise UserError(f"{other} and {name} would both take {path}: give each its own file, named in full")
    return FoundFiles(
        files=[found[name] for name in names],
        joined=[bool(in_crops.get(name)) for name in names],
        spare=[path for path in lying.paths if path not in owners],
        unread=lying.unread,
    )


def _named(names: Sequence[str], known: Collection[str]) -> dict[str, list[str]]:
    """Which of the ``known`` names mean each video."""
    in_full = {name: [alias for alias in dict.fromkeys((name, _stem(name))) if alias in known] for name in names}
    others = NameIndex(set(known) - {alias for aliases in in_full.values() for alias in aliases})
    return {name: aliases or others.find(name) for name, aliases in in_full.items()}


def _by_number(groups: Sequence[dict[int, list[Path]]]) -> dict[int, list[Path]]:
    """The files of a video's crops by the crop's number, wherever they lie."""
    numbers = sorted({number for group in groups for number in group})
    return {
        number: list(dict.fromkeys(path for group in groups for path in group.get(number, []))) for number in numbers
    }


def _missing(missing: list[str], videos: int, sources: Sequence[Path], crops: Crops, unread: Sequence[Path]) -> str:
    last = Path(missing[0]).name
    stems = list(dict.fromkeys((last, _stem(last))))
    examples = [f"{stem}{suffix}" for suffix in SUFFIXES for stem in stems]
    if crops == "files":
        examples = [f"{stem}__{number}{ARRAY}" for stem in stems for number in (0, 1)]
    advice = f"; {unread_note(unread)}" if unread else ": correct --source or the data set's labels"
    return (
        f"{', '.join(map(str, sources))}: no features of {len(missing)} of {videos} videos: {some(missing)}; "
        f"they may be named {some(examples)}, …{advice}"
    )


def _check_clear(numbered: dict[str, dict[int, list[Path]]]) -> None:
    """Refuse videos with several files, and such whose crops are not all there."""
    several = {name: paths for name, of in numbered.items() for paths in of.values() if len(paths) > 1}
    if several:
        name, paths = next(iter(several.items()))
        raise UserError(
            f"{some(list(several))}: more than one file of features each; {name} has {some(list(map(str, paths)))}: "
            "name the folder of the wanted ones by --source, or move the others away"
        )
    for name, of in numbered.items():
        lacking = sorted(set(range(max(of))) - of.keys())
        if lacking:
            last = of[max(of)][0]
            wanted = last.with_name(f"{last.name[: last.name.rindex('__')]}__{lacking[0]}{ARRAY}")
            raise UserError(
                f"{wanted}: missing; {name} has crops up to {max(of)}, counted from 0: add it, or leave the video out"
            )


def _files_in(sources: Sequence[Path]) -> _Lying:
    """All files in folders and below."""
    lying = _Lying()
    for source in dict.fromkeys(sources):
        if not source.is_dir():
            raise UserError(f"{source}: no such folder of feature files")
        for folder, folders, names in os.walk(source, followlinks=True):
            for path in (Path(folder, name) for name in sorted([*folders, *names])):
                if path.suffix.lower() in SUFFIXES:
                    lying.paths.append(path)
                    _enter(lying, path, path.relative_to(source).with_suffix("").as_posix())
            lying.unread += [Path(folder, name) for name in sorted(names) if _may_hold_features(name)]
    return lying


def _enter(lying: _Lying, path: Path, name: str) -> None:
    for ending in filter(name.endswith, ENDINGS):
        lying.whole.setdefault(name.removesuffix(ending), []).append(path)
    match = CROP.fullmatch(name) if not is_text(path) else None
    if match:
        for ending in filter(match[1].endswith, ENDINGS):
            crops = lying.crops.setdefault(match[1].removesuffix(ending), defaultdict(list))
            crops[int(match[2])].append(path)


def _may_hold_features(name: str) -> bool:
    """Whether a file is of a format that may hold features but is not read."""
    suffix, stem = Path(name).suffix.lower(), Path(name).stem.lower()
    return not (name.startswith(".") or stem in NO_FEATURES_NAMES or suffix in NO_FEATURES or suffix in SUFFIXES)


def unread_note(unread: Sequence[Path]) -> str:
    """What is said of files of formats that are not read."""
    names = some([path.name for path in unread])
    return f"{len(unread)} files are of formats that are not read ({names}): save their arrays by np.save as {ARRAY}"


def _stem(name: str) -> str:
    """A video's name without its suffix."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else name


def some(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def is_text(path: Path) -> bool:
    """Whether a file is one of text."""
    return path.suffix.lower() == TEXT


@dataclass(frozen=True)
class FeatureFile:
    """The features of a video as they lie on disk.

    Attributes:
        paths: one file, or where crops are ``joined`` one for each, in order.
        joined: whether each file holds one crop, ``(T, D)``.
        stored: the shape of a file.
        crops_first: whether the file is ``(crops, T, D)``.
    """

    paths: tuple[Path, ...]
    joined: bool
    stored: tuple[int, ...]
    crops_first: bool = False

    @classmethod
    def open(cls, paths: tuple[Path, ...], joined: bool = False) -> FeatureFile:
        """Look at the header, or the first line, of each file.

        Raises:
            UserError: a file is damaged or holds no features, or crops differ in shape.
        """
        if is_text(paths[0]):
            return cls(paths, joined, (TEXT_SEGMENTS, next(_text_rows(paths[0])).shape[1]))
        shapes = [_map(path).shape for path in paths]
        for path, shape in zip(paths, shapes, strict=True):
            if joined and len(shape) != 2:
                raise UserError(f"{path}: a crop in a file of its own is (clips, F), not of shape {shape}")
            if shape != shapes[0]:
                raise UserError(f"{path}: of shape {shape}, another crop of the video, {paths[0]}, of {shapes[0]}")
        return cls(paths, joined, shapes[0])

    @property
    def path(self) -> Path:
        """The file, for people; of several the first."""
        return self.paths[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T, D)`` or ``(T, crops, D)``."""
        if self.joined:
            return (self.stored[0], len(self.paths), self.stored[1])
        return (self.stored[1], self.stored[0], *self.stored[2:]) if self.crops_first else self.stored

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Consecutive rows of `shape`, some at a time; what is beyond float32 is infinite.

        Raises:
            UserError: the file is damaged; names the place.
        """
        if is_text(self.path):
            yield from _text_rows(self.path)
            return
        rows = max(1, PIECE_VALUES // math.prod(self.shape[1:]))
        for start in range(0, self.shape[0], rows):
            part = slice(start, start + rows)
            with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite and is refused by name
                # Mapped anew for each piece: pages that were read do not stay in memory.
                if self.joined:
                    piece = np.stack([np.asarray(_map(path)[part], np.float32) for path in self.paths], axis=1)
                elif self.crops_first:
                    piece = np.array(_map(self.path)[:, part].swapaxes(0, 1), np.float32, order="C")
                else:
                    piece = np.array(_map(self.path)[part], np.float32, order="C")
            yield piece

    def place(self, row: int, crop: int) -> str:
        """Where a row of features stands, for people."""
        if is_text(self.path):
            return f"{self.path}, line {row + 1}"
        if self.joined:
            return f"{self.paths[crop]}, row {row}"
        return f"{self.path}, crop {crop}, row {row}" if self.crops_first else f"{self.path}, row {row}"

    def stamp(self) -> tuple[int, int]:
        """Bytes of all files, and when the last of them changed: see `identity.stamp`."""
        stamps = [stamp(path) for path in self.paths]
        return sum(size for size, _ in stamps), max(modified for _, modified in stamps)

    def digest(self) -> str:
        """SHA-256 of the file; of several, of their digests."""
        digests = [digest(path) for path in self.paths]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _map(path: Path) -> NDArray[np.floating]:
    """Map a .npy file, read-only; nothing in it is unpickled.

    Raises:
        UserError: not a .npy file, or not an array of features.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a plain array as np.save writes it ({reason}); convert it") from error
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise UserError(f"{path}: holds {array.dtype}, features are float16, float32 or float64; convert it")
    if array.ndim not in (2, 3):
        raise UserError(f"{path}: has the shape {array.shape}, not (rows, features) or (rows, crops, features)")
    if 0 in array.shape:
        raise UserError(f"{path}: empty, of shape {array.shape}; mend the file or leave its video out")
    return array


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
