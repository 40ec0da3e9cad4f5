"""ShanghaiTech Campus (Luo et al., ICCV 2017) in its weakly supervised re-split (Zhong et al., CVPR 2019).

``SH_Train.txt`` and ``SH_Test.txt`` name the videos: the scene, and a number within it of three digits for a video that
was a training video (an .avi, normal throughout), of four for one that was a test video (a folder of frames). Each of
the latter has ``test_frame_mask/<name>.npy``, which is 1 for every anomalous frame, and is abnormal if there is one;
some of them are training videos now.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...schema import shown
from .dataset import MAX_FRAMES, Counts, Dataset, LabelledVideo, Official, Split, check_unique, spans_of
from .lists import digest_of_files, find_list, lines_of

LISTS: dict[Split, str] = {"train": "SH_Train.txt", "test": "SH_Test.txt"}
MASKS = "test_frame_mask"
OFFICIAL = Official(Counts(train_normal=175, train_abnormal=63, test_normal=155, test_abnormal=44))


def read_shanghaitech(annotations: Path) -> Dataset:
    """Read lists and masks. Videos are named as the lists do, such as ``01_0014``; their category is the scene.

    Args:
        annotations: the folder with both lists and the folder of masks, in it or below.

    Raises:
        UserError: a list or mask is missing or damaged, or a mask belongs to no listed video.
    """
    lists = {split: find_list(annotations, name) for split, name in LISTS.items()}
    masks = {path.stem: path for path in sorted(find_list(annotations, MASKS).glob("*.npy"))}
    lines = [(where, line, split) for split, path in lists.items() for where, line in lines_of(path)]
    videos = tuple(_video(where, line.split()[0].removesuffix(".avi"), split, masks) for where, line, split in lines)
    check_unique([where for where, _, _ in lines], videos)
    strangers = sorted(masks.keys() - {video.name for video in videos})
    if strangers:
        raise UserError(f"{masks[strangers[0]]}: a mask of a video that is in neither list")
    return Dataset("ShanghaiTech", annotations, videos, digest_of_files([*lists.values(), *masks.values()]), OFFICIAL)


def _video(where: str, name: str, split: Split, masks: dict[str, Path]) -> LabelledVideo:
    scene, _, number = name.partition("_")
    if not (scene.isdecimal() and number.isdecimal()):
        raise UserError(f"{where}: {shown(name)} is not a scene and a number, such as 01_0014")
    if name not in masks:
        if len(number) == 4:
            raise UserError(f"{where}: {name} was a test video, but there is no {MASKS}/{name}.npy")
        return LabelledVideo(name, split, abnormal=False, spans=(), category=scene)
    mask = _read_mask(masks[name])
    spans = spans_of(mask)
    return LabelledVideo(name, split, bool(spans), len(mask), spans, scene)


def _read_mask(path: Path) -> NDArray[np.bool_]:
    """Which frames are anomalous, ``(frames,)``. Nothing is unpickled, and no more is read than a mask may have."""
    try:
        mask = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # whatever NumPy raises at a header that is none
        raise UserError(f"{path}: not a mask as np.save writes it ({' '.join(str(error).split())})") from error
    wrong = mask.ndim != 1 or not 0 < len(mask) <= MAX_FRAMES or mask.dtype.kind not in "bui"
    if wrong or not np.isin(mask, (0, 1)).all():
        raise UserError(f"{path}: a mask is one 0 or 1 for each frame, not {mask.dtype} {mask.shape}")
    return mask.astype(bool)
