"""Training: feature files and video-level labels in, a run folder out. The same seed gives the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import __version__
from ..errors import UserError
from .bags import BagConfig, make_bag
from .cache import Features, FeatureStore
from .datasets import Dataset
from .fitting import fit
from .runs import RunManifest, is_run, save_run
from .settings import TrainingConfig


@dataclass(frozen=True)
class TrainingData:
    """The bags of all training videos: ``(A, segments, F)`` and ``(N, segments, F)``."""

    abnormal: NDArray[np.float32]
    normal: NDArray[np.float32]
    first: Features  # any of them: all come from one extractor, cut into clips in one way
    digest: str


def train(dataset: Dataset, features: Path, out: Path, config: TrainingConfig) -> RunManifest:
    """Train a detector on the training videos of ``dataset`` and write the run folder ``out``.

    Args:
        dataset: its training videos and their labels; test videos and spans are not looked at.
        features: the features folder that `extract` filled.
        out: the run folder. It must not hold a run yet.
        config: how.

    Raises:
        UserError: missing or mixed features, no normal or no abnormal training video, or ``out`` is in use.
    """
    if is_run(out):
        raise UserError(f"{out}: holds a finished run already; choose another --out, or delete it")
    for unfinished in (out / "tensorboard").glob("events.out.tfevents.*"):
        unfinished.unlink()
    data = load_training_data(dataset, FeatureStore(features, config.extractor), config.bags)
    detector, metrics = fit(data.abnormal, data.normal, config, out / "tensorboard", name=out.name)
    sidecar = data.first.sidecar
    manifest = RunManifest(
        version=__version__,
        detector=config.detector,
        xel=config.xel.mode,
        feature_dim=sidecar.feature_dim,
        extractor=sidecar.extractor,
        fingerprint=sidecar.fingerprint,
        clipping=sidecar.clipping,
        bags=config.bags,
        seed=config.seed,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        features_digest=data.digest,
        training_videos=len(data.abnormal) + len(data.normal),
        torch_version=str(torch.__version__),
    )
    save_run(out, manifest, detector, _plain(asdict(config)), metrics)
    return manifest


def load_training_data(dataset: Dataset, store: FeatureStore, bags: BagConfig) -> TrainingData:
    """Read the features of all training videos as bags.

    Raises:
        UserError: missing features, features of different extractors or dimensions, or one of the labels is missing.
    """
    videos = dataset.of("train")
    counts = {label: sum(video.abnormal == label for video in videos) for label in (True, False)}
    if not all(counts.values()):
        raise UserError(
            f"{dataset.name}: {counts[True]} abnormal and {counts[False]} normal training videos: "
            "a detector learns from the difference and needs at least one of each"
        )
    made: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
    digest = hashlib.sha256()
    first: Features | None = None
    for video, features in zip(videos, store.read_all([video.name for video in videos]), strict=True):
        first = first or features
        if features.sidecar.clipping != first.sidecar.clipping:
            raise UserError(
                f"{video.name}: cut into clips by {features.sidecar.clipping}, others by {first.sidecar.clipping}"
            )
        made[video.abnormal].append(make_bag(features.array, bags))
        digest.update(f"{video.name}\t{features.sidecar.video_sha256}\t{features.sidecar.fingerprint}\n".encode())
    assert first is not None
    return TrainingData(np.stack(made[True]), np.stack(made[False]), first, digest.hexdigest())


def _plain(value: Any) -> Any:
    """Tuples as lists: YAML's safe subset has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
