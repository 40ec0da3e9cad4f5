"""XD-Violence: 4,754 scenes from films and from the street (Wu et al., ECCV 2020).

There are no lists: a video's labels are the end of its name, ``…_label_A.mp4`` for a normal one and, say,
``…_label_B1-G-0.mp4`` for fighting and an explosion; test videos lie in a folder with ``test`` in its name.
``annotations.txt`` gives the anomalous frames of the abnormal test videos, first and end of each event in turn, taken
as 0-based and half-open, as published evaluation scripts slice them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ...schema import shown
from ..videos.sources import find_videos
from .dataset import Counts, Dataset, LabelledVideo, Official, Split, check_unique
from .lists import find_list, frame_numbers, lines_of

ANNOTATIONS = "annotations.txt"
OFFICIAL = Official(Counts(train_normal=2049, train_abnormal=1905, test_normal=300, test_abnormal=500))
CATEGORIES = {
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car accident",
    "G": "explosion",
}


@dataclass(frozen=True)
class _Annotation:
    """The anomalous frames of a video, and where they stand."""

    where: str
    spans: tuple[tuple[int, int], ...]


def read_xd_violence(videos: Path, annotations: Path | None = None) -> Dataset:
    """Read labels off the videos' names. Videos are named by their file name alone, without ``.mp4``.

    Args:
        videos: the folder with all videos, in it or below.
        annotations: the folder with ``annotations.txt``; without it, abnormal test videos have no anomalous frames and
            cannot be evaluated.

    Raises:
        UserError: no videos, a name without a label, or an annotation that contradicts a label or a split.
    """
    spans = _read_spans(find_list(annotations, ANNOTATIONS)) if annotations is not None else {}
    names = [source.name for source in find_videos([videos])]
    places = [str(videos / name) for name in names]
    found = tuple(_video(*pair, spans) for pair in zip(places, names, strict=True))
    check_unique(places, found)
    missing = sorted(spans.keys() - {video.name for video in found})
    found += tuple(_video(spans[name].where, f"test/{name}", spans) for name in missing)  # for `audit` to miss
    lines = [f"{video.name}\t{video.split}\t{video.spans}\n" for video in sorted(found, key=lambda video: video.name)]
    return Dataset("XD-Violence", videos, found, hashlib.sha256("".join(lines).encode()).hexdigest(), OFFICIAL)


def _read_spans(path: Path) -> dict[str, _Annotation]:
    spans: dict[str, _Annotation] = {}
    for where, line in lines_of(path):
        name, *cells = line.split()
        wrong = len(cells) % 2 or not all(re.fullmatch("[0-9]+", cell) for cell in cells) or not cells
        numbers = [] if wrong else frame_numbers(where, cells)
        if wrong or any(a > b for a, b in pairwise(numbers)):
            raise UserError(f"{where}: {shown(name)[1:-1]} is not followed by pairs of first and last frames, in order")
        if _name(name) in spans:
            raise UserError(f"{where}: {shown(name)} is annotated twice, before in {spans[_name(name)].where}")
        spans[_name(name)] = _Annotation(where, tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    return spans


def _video(where: str, path: str, spans: Mapping[str, _Annotation]) -> LabelledVideo:
    name = _name(path)
    label = re.search(r"_label_([A-Z0-9-]+)$", name)
    codes = [code for code in label[1].split("-") if code != "0"] if label else []
    if not codes or not (codes == ["A"] or all(code in CATEGORIES for code in codes)):
        raise UserError(f"{where}: {shown(name)} does not end in a label such as _label_A or _label_B1-G-0")
    abnormal = codes != ["A"]
    split: Split = "test" if "test" in PurePosixPath(path).parent.as_posix().lower() else "train"
    annotated = spans.get(name)
    if annotated and not (abnormal and split == "test"):
        raise UserError(
            f"{where}: {annotated.where} has anomalous frames of it, but it is no abnormal video in a folder with test "
            "in its name"
        )
    known = annotated.spans if annotated else None
    category = "+".join(CATEGORIES[code] for code in codes) if abnormal else None
    return LabelledVideo(name, split, abnormal, spans=known if abnormal else (), category=category)


def _name(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".mp4")
