"""Made-up features of as many training videos as UCF-Crime has: of equal length, to measure speed, or as uneven."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xelvad import __version__
from xelvad.pipeline.datasets import Dataset, LabelledVideo
from xelvad.pipeline.features.sidecar import Sidecar, Timeline
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.clips import Clipping

CLIPS, FEATURE_DIM, BANK = 450, 4096, 800  # as in the published script: a row of the bank for each normal video
ABNORMAL = 810
DISTINCT = 160  # files with data of their own
UCF_CLIPS, UCF_LONGEST = 790_271, 61_031  # of UCF-Crime's training videos, and of the longest of them
EXTRACTOR = "made-up"


@dataclass(frozen=True)
class Size:
    """How many videos there are, and how large.

    Attributes:
        clips: of each video.
        feature_dim: numbers of a clip.
        abnormal: how many videos are.
        normal: how many videos are.
        distinct: files with data of their own, half of each kind; the others are links to them.
    """

    clips: int = CLIPS
    feature_dim: int = FEATURE_DIM
    abnormal: int = ABNORMAL
    normal: int = BANK
    distinct: int = DISTINCT


UCF_CRIME = Size()


def made_up_features(
    rng: np.random.Generator, direction: NDArray[np.float32], abnormal: bool, clips: int = CLIPS
) -> NDArray[np.float32]:
    """Sparse, positive features as behind a ReLU, ``(clips, F)``; a tenth of an abnormal video stands out."""
    features = rng.standard_normal((clips, len(direction)), np.float32)
    if abnormal:
        start = int(rng.integers(clips * 9 // 10))
        features[start : start + clips // 10] += direction
    return np.maximum(features, 0, out=features)


def make_data(folder: Path, size: Size = UCF_CRIME) -> Dataset:
    """The data set, made if it is not there yet."""
    store = FeatureStore(folder, EXTRACTOR)
    direction = 0.4 * np.random.default_rng(0).standard_normal(size.feature_dim).astype(np.float32)
    videos = []
    for kind, count in (("abnormal", size.abnormal), ("normal", size.normal)):
        names = [f"{kind}_{number:04}.mp4" for number in range(count)]
        videos += [LabelledVideo(name, "train", kind == "abnormal") for name in names]
        for number, name in enumerate(names):
            if store.sidecar_path(name).exists():
                continue
            original = names[number % (size.distinct // 2)]
            if original != name:
                for path_of in (store.array_path, store.sidecar_path):
                    path_of(name).hardlink_to(path_of(original))
                continue
            with store.write(name, size.feature_dim) as writer:
                rng = np.random.default_rng([kind == "abnormal", number])
                writer.append(made_up_features(rng, direction, kind == "abnormal", size.clips))
                writer.finish(sidecar_of(name, size.clips, size.feature_dim))
    return Dataset(EXTRACTOR, folder, tuple(videos), EXTRACTOR)


def make_sparse_data(folder: Path, feature_dim: int) -> Dataset:
    """13 GB of zeros, UCF-Crime's training set as C3D features: as many videos, one of them as long as its longest.

    Of narrower features there are so many more clips. The files are sparse: they need no room on a disk, but must be
    read all the same.
    """
    store = FeatureStore(folder, EXTRACTOR)
    store.folder.mkdir(parents=True)
    lengths = np.random.default_rng(0).lognormal(sigma=1.2, size=ABNORMAL + BANK - 1)
    lengths = np.append(lengths * (UCF_CLIPS - UCF_LONGEST) / lengths.sum(), UCF_LONGEST) * FEATURE_DIM / feature_dim
    videos = []
    for number, clips in enumerate(np.maximum(1, lengths).astype(int).tolist()):
        video = LabelledVideo(f"{number:04}.mp4", "train", number < ABNORMAL)
        with store.array_path(video.name).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (clips, feature_dim)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * clips * feature_dim)
        store.sidecar_path(video.name).write_text(sidecar_of(video.name, clips, feature_dim).text())
        videos.append(video)
    return Dataset(EXTRACTOR, folder, tuple(videos), EXTRACTOR)


def sidecar_of(name: str, clips: int = CLIPS, feature_dim: int = FEATURE_DIM) -> Sidecar:
    return Sidecar(
        video=name,
        video_bytes=1,
        video_modified=1,
        video_sha256=name,
        frames=16 * clips,
        declared_frames=16 * clips,
        salvaged_frames=0,
        timeline=Timeline(0.0, 30.0),
        clipping=Clipping(),
        extractor=EXTRACTOR,
        fingerprint=EXTRACTOR,
        feature_dim=feature_dim,
        decoder="none",
        version=__version__,
    )
