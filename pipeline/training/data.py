"""What a training learns from: the bags of its training videos, and the videos that are put aside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ..datasets import Dataset, LabelledVideo
from ..features.bags import TrainingVideos
from ..features.scaling import Scaling
from ..features.store import Features, FeatureStore, hold
from .config import TrainingConfig

SPLIT = 3  # stream of random numbers, beside those of the batches


@dataclass(frozen=True)
class TrainingData:
    """What a training learns from.

    Attributes:
        abnormal: the abnormal training videos.
        normal: the normal ones.
        validation: the videos that were put aside, with their labels.
        scaling: of all features, by those of the training videos alone.
        digest: of all their features.
    """

    abnormal: TrainingVideos
    normal: TrainingVideos
    validation: tuple[tuple[Features, bool], ...]
    scaling: Scaling
    digest: str


def load_training_data(dataset: Dataset, store: FeatureStore, config: TrainingConfig) -> TrainingData:
    """Find the features of all training videos, and put the validation videos aside.

    Raises:
        UserError: missing features, features of different extractors or dimensions, or one of the labels is missing.
    """
    counts = {label: sum(video.abnormal == label for video in dataset.of("train")) for label in (True, False)}
    if not all(counts.values()):
        raise UserError(
            f"{dataset.name}: {counts[True]} abnormal and {counts[False]} normal training videos: "
            "a detector learns from the difference and needs at least one of each"
        )
    videos, found, digest = training_features(dataset, store)
    held_out = validation_split([video.abnormal for video in videos], config.validation, config.seed)
    found = hold(found)
    scaling = Scaling.fit(config.bags.scale, (each for number, each in enumerate(found) if number not in held_out))

    def learnt_from(abnormal: bool) -> TrainingVideos:
        chosen = [n for n, video in enumerate(videos) if video.abnormal == abnormal and n not in held_out]
        return TrainingVideos(
            [videos[n].name for n in chosen],
            [found[n] for n in chosen],
            config.bags,
            scaling,
            sampling="even" if abnormal else "run",
        )

    validation = tuple((found[n], videos[n].abnormal) for n in sorted(held_out))
    return TrainingData(learnt_from(True), learnt_from(False), validation, scaling, digest)


def training_features(dataset: Dataset, store: FeatureStore) -> tuple[list[LabelledVideo], list[Features], str]:
    """All training videos, the features of each, and a digest of what these were made of.

    Raises:
        UserError: missing features, or features of different extractors, dimensions or clips.
    """
    videos = dataset.of("train")
    names = [video.name for video in videos]
    store.gather(names)
    found = list(store.read_all(names))
    digest = hashlib.sha256()
    for video, features in zip(videos, found, strict=True):
        if features.sidecar.clipping != found[0].sidecar.clipping:
            raise UserError(
                f"{video.name}: cut into clips by {features.sidecar.clipping}, "
                f"{videos[0].name} by {found[0].sidecar.clipping}"
            )
        digest.update(f"{video.name}\t{features.sidecar.video_sha256}\t{features.sidecar.fingerprint}\n".encode())
    return videos, found, digest.hexdigest()


def validation_split(labels: Sequence[bool], share: float, seed: int) -> set[int]:
    """Numbers of the videos that are put aside for validation: a share of each label, at least one, but never all.

    Empty where one of the labels has a single video, since a validation needs both.
    """
    rng = np.random.default_rng([seed, SPLIT])
    held_out: list[int] = []
    for label in (True, False):
        numbers = [n for n, abnormal in enumerate(labels) if abnormal == label]
        count = min(max(1, round(share * len(numbers))), len(numbers) - 1) if share else 0
        if not count:
            return set()
        held_out += rng.permutation(numbers)[:count].tolist()
    return set(held_out)
