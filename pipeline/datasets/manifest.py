"""The manifest: one CSV file that describes anybody's own data set.

Columns: ``video`` (path relative to the manifest's folder), ``split`` (train or test) or ``fold`` (any name), ``label``
(1 abnormal, 0 normal), and, where known, ``frames`` and ``anomalous_frames_half_open`` (``120-260``, several separated
by a space or a semicolon; 0-based, the end is not included) and ``category`` (the kind of anomaly, or the scene).
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from itertools import pairwise
from pathlib import Path

from ...errors import UserError
from .dataset import Dataset, LabelledVideo, Split, check_unique

SPANS = "anomalous_frames_half_open"


def read_manifest(path: Path, test_fold: str | None = None) -> Dataset:
    """Read a manifest.

    Args:
        path: the CSV file.
        test_fold: the fold to test on, where the manifest has folds; all others are for training.

    Raises:
        UserError: no such file, a missing column, or a row that contradicts itself; names the line.
    """
    try:
        data = path.read_bytes()
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    except OSError as error:
        raise UserError(f"{path}: cannot read the manifest ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise UserError(f"{path}: the manifest names no videos")
    _check_columns(path, rows[0])
    folds = {row["fold"] or "": None for row in rows} if "fold" in rows[0] else {}
    if folds and test_fold not in folds:
        what = f"there is no fold {test_fold!r}" if test_fold else "the manifest has folds: say which one to test on"
        raise UserError(f"{path}: {what} (--test_fold {' | '.join(folds)})")
    if test_fold is not None and not folds:
        raise UserError(f"{path}: has no column fold, so --test_fold {test_fold} means nothing")
    videos = tuple(_video(f"{path}, line {line}", row, test_fold) for line, row in enumerate(rows, start=2))
    check_unique(path, videos)
    return Dataset(f"{path.resolve().parent.name}/{path.name}", path.parent, videos, hashlib.sha256(data).hexdigest())


def any_fold(path: Path) -> str | None:
    """One of a manifest's folds; None where there are none, or where `read_manifest` will say what is wrong."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.DictReader(file), {}).get("fold")
    except (OSError, UnicodeDecodeError, csv.Error):
        return None


def _check_columns(path: Path, row: dict[str, str]) -> None:
    missing = [column for column in ("video", "label") if column not in row]
    if not {"split", "fold"} & row.keys():
        missing.append("split (or fold)")
    if missing:
        raise UserError(f"{path}: the manifest has no column {', '.join(missing)}; it has {', '.join(row)}")


def _video(where: str, row: dict[str, str | None], test_fold: str | None) -> LabelledVideo:
    cells = {key: (value or "").strip() for key, value in row.items() if isinstance(value, str | None)}
    name = Path(cells["video"]).as_posix()
    if not cells["video"] or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{where}: video {cells['video']!r} must be a path relative to the manifest's folder")
    if cells["label"] not in ("0", "1"):
        raise UserError(f"{where}: label {cells['label']!r} is neither 0 (normal) nor 1 (abnormal)")
    abnormal = cells["label"] == "1"
    frames = _frames(where, cells.get("frames", ""))
    spans = _spans(where, cells[SPANS], frames) if SPANS in cells else None
    if spans and not abnormal:
        raise UserError(f"{where}: label 0 (normal) contradicts the anomalous frames {cells[SPANS]}")
    if not abnormal:
        spans = ()  # a normal video's truth is known without an annotation
    elif not spans:
        spans = None
    return LabelledVideo(name, _split(where, cells, test_fold), abnormal, frames, spans, cells.get("category") or None)


def _split(where: str, cells: dict[str, str], test_fold: str | None) -> Split:
    if test_fold is not None:
        return "test" if cells["fold"] == test_fold else "train"
    if cells["split"] == "train":
        return "train"
    if cells["split"] == "test":
        return "test"
    raise UserError(f"{where}: split {cells['split']!r} is neither train nor test")


def _frames(where: str, text: str) -> int | None:
    if text and not (text.isdecimal() and int(text) > 0):
        raise UserError(f"{where}: frames {text!r} is not a positive number")
    return int(text) if text else None


def _spans(where: str, text: str, frames: int | None) -> tuple[tuple[int, int], ...]:
    spans = []
    for part in re.split(r"[\s;]+", text) if text else []:
        match = re.fullmatch(r"(\d+)-(\d+)", part)
        if match is None:
            raise UserError(f"{where}: {part!r} is not a span of frames such as 120-260")
        start, end = int(match[1]), int(match[2])
        if start >= end or (frames is not None and end > frames):
            raise UserError(f"{where}: span {part} is out of range{f' of {frames} frames' if frames else ''}")
        spans.append((start, end))
    spans.sort()
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise UserError(f"{where}: the spans {text} overlap")
    return tuple(spans)
