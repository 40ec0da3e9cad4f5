"""UCF-Crime: 1,900 videos of 13 kinds of anomaly and of normal days (Sultani et al., CVPR 2018).

``Anomaly_Train.txt`` names the training videos, ``Temporal_Anomaly_Annotation*.txt`` the test videos with their
anomalous frames: name, class, first and last frame of up to two events, −1 for none. Frames count from 1 there, and the
last one is included. Others published the same lines with the video's number of frames, at the first or the last place
among the numbers, and without the class or with bars and brackets; these are read as well.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ...schema import shown
from .dataset import Counts, Dataset, LabelledVideo, Official, check_unique
from .lists import digest_of_files, find_list, frame_numbers, lines_of

TRAIN_LIST, TEST_LIST = "Anomaly_Train.txt", "Temporal_Anomaly_Annotation*.txt"
NORMAL = "Normal"
CLASSES = frozenset(
    {"Abuse", "Arrest", "Arson", "Assault", "Burglary", "Explosion", "Fighting", "RoadAccidents", "Robbery", "Shooting"}
    | {"Shoplifting", "Stealing", "Vandalism"}
)
OFFICIAL = Official(Counts(train_normal=800, train_abnormal=810, test_normal=150, test_abnormal=140), frame_rate=30.0)
OVERLONG = frozenset(f"{name}_x264" for name in ("Arson011", "Arson016", "Explosion033", "Fighting003", "Shooting015"))


def read_ucf_crime(annotations: Path) -> Dataset:
    """Read the official lists. Videos are named by their file name alone, such as ``Abuse001_x264``: it is unique.

    Args:
        annotations: the folder with both lists, in it or below.

    Raises:
        UserError: a list is missing or contradicts itself; names the line.
    """
    train, test = find_list(annotations, TRAIN_LIST), find_list(annotations, TEST_LIST)
    lines = [(*each, _train_video) for each in lines_of(train)] + [(*each, _test_video) for each in lines_of(test)]
    videos = tuple(read(where, line) for where, line, read in lines)
    check_unique([where for where, _, _ in lines], videos)
    return Dataset("UCF-Crime", annotations, videos, digest_of_files([train, test]), OFFICIAL)


def _train_video(where: str, line: str) -> LabelledVideo:
    category = _category(where, line)
    abnormal = category is not None
    if len(line.split()) > 1:
        raise UserError(f"{where}: {shown(line)} is more than the name of a video")
    return LabelledVideo(_name(line), "train", abnormal, spans=None if abnormal else (), category=category)


def _test_video(where: str, line: str) -> LabelledVideo:
    name, *cells = [cell for cell in re.split(r"[\s|,\[\]]+", line) if cell] or [line]
    category = _category(where, name)
    numbers = frame_numbers(where, [cell for cell in cells if re.fullmatch(r"-?\d+", cell)])
    words = [cell for cell in cells if not re.fullmatch(r"-?\d+", cell)]
    if words not in ([], [category or NORMAL]):
        raise UserError(f"{where}: {shown(' '.join(words))} is not the class of {name}")
    frames, spans = _frames_and_spans(where, [number for number in numbers if number != -1])
    if bool(spans) != (category is not None):
        raise UserError(f"{where}: {name} is {category or 'normal'}, which contradicts the anomalous frames {numbers}")
    overlong = _name(name) in OVERLONG
    return LabelledVideo(_name(name), "test", category is not None, frames, spans, category, overlong)


def _frames_and_spans(where: str, numbers: list[int]) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """The number of frames, where it is given, and the spans as half-open, 0-based frames."""
    frames = None
    if len(numbers) % 2:  # spans are pairs: one number is that of all frames
        first = len(numbers) == 1 or numbers[0] > numbers[1]
        frames = numbers.pop(0 if first else -1)
    if min(numbers, default=1) < 1 or any(later < earlier for earlier, later in pairwise(numbers)):
        raise UserError(f"{where}: {numbers} are not first and last frames, in order, counted from 1")
    return frames, tuple((start - 1, end) for start, end in zip(numbers[::2], numbers[1::2], strict=True))


def _name(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".mp4")


def _category(where: str, path: str) -> str | None:
    """The class in which a video's name begins; None for a normal one."""
    match = re.match(r"[A-Za-z]+", _name(path))
    if match is None or match[0] not in (NORMAL, *CLASSES):
        raise UserError(f"{where}: {shown(path)} does not begin with a class of UCF-Crime, such as Abuse001_x264.mp4")
    return None if match[0] == NORMAL else match[0]
