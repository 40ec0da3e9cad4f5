"""Feature files that others made: which of them belongs to which video, and what is in them.

`.npy` files hold one plain array, ``(T, D)`` or ``(T, crops, D)`` in float16, float32 or float64. `.txt` files are
those of Sultani et al. (CVPR 2018): 32 lines, one for each segment of a video, of D numbers (4096 for C3D).
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..videos.names import NameIndex
from ..videos.sources import VIDEO_SUFFIXES

ARRAY, TEXT = ".npy", ".txt"
SUFFIXES = (ARRAY, TEXT)
ENDINGS = ("", "_C", "_C3D", "_c3d", "_i3d")  # that published files carry behind the video's name
TEXT_SEGMENTS = 32
PIECE_VALUES = 1 << 22  # numbers that are copied at once: 16 MiB of float32
LINE_BYTES = 1 << 22  # of a text file: more is no line of features
LISTED = 5  # names in an error message


def find_files(names: Iterable[str], sources: Sequence[Path]) -> list[Path]:
    """The file with the features of each video.

    It carries the video's name, with one of `ENDINGS` and .npy or .txt behind it, and lies in one of ``sources`` or
    below, with fewer or more leading folders: see `NameIndex`. ``Abuse/Abuse001_x264.mp4`` is found as
    ``Abuse/Abuse001_x264.mp4.npy``, ``Abuse001_x264.txt`` or ``part-1/Abuse/Abuse001_x264_i3d.npy``. More common
    folders win; what carries a video's name in full is no other's.

    Raises:
        UserError: a folder is not there, a video has no file or several, or two videos have the same one.
    """
    files = _files_by_name(sources)
    in_full = {name: [alias for alias in dict.fromkeys((name, _stem(name))) if alias in files] for name in names}
    others = NameIndex(files.keys() - {alias for aliases in in_full.values() for alias in aliases})
    found = {
        name: list(dict.fromkeys(path for alias in aliases or others.find(name) for path in files[alias]))
        for name, aliases in in_full.items()
    }
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        last = Path(missing[0]).name
        examples = [f"{stem}{suffix}" for suffix in SUFFIXES for stem in dict.fromkeys((last, _stem(last)))]
        raise UserError(
            f"{', '.join(map(str, sources))}: no features of {len(missing)} of {len(found)} videos: {some(missing)}; "
            f"they may be named {some(examples)}, …: correct --source or the data set's labels"
        )
    several = {name: paths for name, paths in found.items() if len(paths) > 1}
    if several:
        name, paths = next(iter(several.items()))
        raise UserError(
            f"{some(list(several))}: more than one file of features each; {name} has {some(list(map(str, paths)))}: "
            "name the folder of the wanted ones by --source, or move the others away"
        )
    owners: dict[Path, str] = {}
    for name, (path,) in found.items():
        other = owners.setdefault(path, name)
        if other != name:
            raise UserError(f"{other} and {name} would both take {path}: give each its own file, named in full")
    return [path for (path,) in found.values()]


def _files_by_name(sources: Sequence[Path]) -> dict[str, list[Path]]:
    """All files that may hold features, by the names of videos that they could be of."""
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for source in dict.fromkeys(sources):
        if not source.is_dir():
            raise UserError(f"{source}: no such folder of feature files")
        for folder, folders, names in os.walk(source, followlinks=True):
            for path in (Path(folder, name) for name in sorted([*folders, *names])):
                if path.suffix in SUFFIXES:
                    name = path.relative_to(source).with_suffix("").as_posix()
                    for ending in filter(name.endswith, ENDINGS):
                        files[name.removesuffix(ending)].append(path)
    return dict(files)


def _stem(name: str) -> str:
    """A video's name without its suffix."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else name


def some(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def shape_of(path: Path) -> tuple[int, ...]:
    """The shape of a file's features, from its header or its first line."""
    return (TEXT_SEGMENTS, next(_text_rows(path)).shape[1]) if path.suffix == TEXT else _map(path).shape


def pieces_of(path: Path) -> Iterator[NDArray[np.float32]]:
    """Consecutive rows of a file's features, some at a time; what is beyond float32 is infinite.

    Raises:
        UserError: the file is damaged; names the place.
    """
    return _text_rows(path) if path.suffix == TEXT else _array_pieces(path)


def place_of(path: Path, row: int) -> str:
    """Where a row of features stands, for people."""
    return f"{path}, line {row + 1}" if path.suffix == TEXT else f"{path}, row {row}"


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
