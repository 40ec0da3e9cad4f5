"""The manifest: one CSV file that describes anybody's own data set.

Columns: ``video`` (path relative to the manifest's folder), ``split`` (train or test) or ``fold`` (any name), ``label``
(1 abnormal, 0 normal), and, where known, ``frames`` and ``anomalous_frames_half_open`` (``120-260``, several separated
by a space or a semicolon; 0-based, the end is not included) and ``category`` (the kind of anomaly, or the scene).
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...errors import UserError
from ...schema import shown
from .dataset import MAX_FRAMES, Dataset, LabelledVideo, Split, check_unique
from .table import Row, Table, read_table

SPANS = "anomalous_frames_half_open"
EXAMPLE = f"video,split,label,frames,{SPANS},category"
LONGEST_NAME = 240  # bytes of a folder's or file's name, which takes a suffix yet
LONGEST_PATH = 2000


def read_manifest(path: Path, test_fold: str | None = None) -> Dataset:
    """Read a manifest.

    Args:
        path: the CSV file.
        test_fold: the fold to test on, where the manifest has folds; all others are for training.

    Raises:
        UserError: no such file, a missing column, or a row that contradicts itself; names the line.
    """
    table = _table(path)
    rows = table.rows
    folds = {row.cells["fold"]: None for row in rows} if "fold" in table.columns else {}
    if folds and test_fold not in folds:
        what = f"there is no fold {test_fold!r}" if test_fold else "the manifest has folds: say which one to test on"
        raise UserError(f"{path}: {what} (--test_fold {' | '.join(folds)})")
    if test_fold is not None and not folds:
        raise UserError(f"{path}: has no column fold, so --test_fold {test_fold} means nothing")
    videos = tuple(_video(row, test_fold) for row in rows)
    check_unique([row.where for row in rows], videos)
    digest = hashlib.sha256(table.data).hexdigest()
    return Dataset(f"{path.resolve().parent.name}/{path.name}", path.parent, videos, digest)


def any_fold(path: Path) -> str | None:
    """One of a manifest's folds; None where there are none, or where `read_manifest` will say what is wrong."""
    try:
        return next(iter(folds_in(path)), None)
    except UserError:
        return None


def folds_in(path: Path) -> list[str]:
    """The names of a manifest's folds, in its order; none where it has no column fold.

    Raises:
        UserError: as `read_manifest`, about the table.
    """
    return list(dict.fromkeys(row.cells["fold"] for row in _table(path).rows if "fold" in row.cells))


def _table(path: Path) -> Table:
    """The rows of a manifest, at least one, which have all columns that they need.

    Raises:
        UserError: they have not.
    """
    table = read_table(path, "the manifest", EXAMPLE)
    missing = [column for column in ("video", "label") if column not in table.columns]
    if not {"split", "fold"} & set(table.columns):
        missing.append("split (or fold)")
    if missing:
        there = shown(", ".join(table.columns))
        raise UserError(
            f"{table.header}: the manifest has no column {', '.join(missing)}; it has {there}, expected is a header "
            f"such as {EXAMPLE}"
        )
    if not table.rows:
        raise UserError(f"{table.header}: the manifest names no videos: a line for each is expected below its header")
    for row in table.rows:
        for column in ("fold", "category"):
            if not row.cells.get(column, "").isprintable():
                raise UserError(f"{row.where}: {column} {shown(row.cells[column])} has characters that are no text")
    return table


def _video(row: Row, test_fold: str | None) -> LabelledVideo:
    where, cells = row.where, row.cells
    name = _name(where, cells["video"])
    if cells["label"] not in ("0", "1"):
        raise UserError(f"{where}: label {shown(cells['label'])} is neither 0 (normal) nor 1 (abnormal)")
    abnormal = cells["label"] == "1"
    frames = _frames(where, cells.get("frames", ""))
    spans = _spans(where, cells[SPANS], frames) if SPANS in cells else None
    if spans and not abnormal:
        raise UserError(f"{where}: label 0 (normal) contradicts the anomalous frames {shown(cells[SPANS])}")
    if not abnormal:
        spans = ()  # a normal video's truth is known without an annotation
    elif not spans:
        spans = None
    return LabelledVideo(name, _split(where, cells, test_fold), abnormal, frames, spans, cells.get("category") or None)


def _name(where: str, text: str) -> str:
    path = PurePosixPath(text)
    outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(text).drive or ".." in text.split("\\")
    if not path.parts or outside or not text.isprintable():
        raise UserError(f"{where}: video {shown(text)} must be a path relative to the manifest's folder")
    if len(text.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in path.parts):
        raise UserError(f"{where}: video {shown(text)} is longer than a file's name may be")
    return path.as_posix()


def _split(where: str, cells: dict[str, str], test_fold: str | None) -> Split:
    if test_fold is not None:
        return "test" if cells["fold"] == test_fold else "train"
    if cells["split"] == "train":
        return "train"
    if cells["split"] == "test":
        return "test"
    raise UserError(f"{where}: split {shown(cells['split'])} is neither train nor test")


def _frames(where: str, text: str) -> int | None:
    frames = _number(text) if text else None
    if text and not frames:
        raise UserError(f"{where}: frames {shown(text)} is not a positive number, of {MAX_FRAMES} at most")
    return frames


def _number(text: str) -> int | None:
    """A number of frames; None where it is none, or larger than any video's."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    return number if number is not None and number <= MAX_FRAMES else None


def _spans(where: str, text: str, frames: int | None) -> tuple[tuple[int, int], ...]:
    spans = []
    for part in filter(None, re.split(r"[\s;]+", text)):
        match = re.fullmatch(r"([0-9]+)-([0-9]+)", part)
        if match is None:
            raise UserError(f"{where}: {shown(part)} is not a span of frames such as 120-260")
        start, end = _number(match[1]), _number(match[2])
        if start is None or end is None or start >= end or (frames is not None and end > frames):
            of = f" of {frames} frames" if frames else ", which is first-end with the first frame below the end"
            raise UserError(f"{where}: span {shown(part)[1:-1]} is out of range{of}")
        spans.append((start, end))
    spans.sort()
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise UserError(f"{where}: the spans {shown(text)} overlap")
    return tuple(spans)
