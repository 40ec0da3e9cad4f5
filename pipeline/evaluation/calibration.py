"""Calibration: the threshold that keeps false alarms rare, chosen on normal videos that are no test videos.

A threshold of 0.5 means something else for every detector: XEL, for one, lowers all scores. So rates are compared at
thresholds that cost each detector the same false alarms. Only normal videos that were put aside from training can say
what those are: the detector has pushed down the scores of those that it learnt from.
"""

from __future__ import annotations

from ...errors import UserError
from ..datasets import Dataset, LabelledVideo
from ..features.remote.address import FeaturesFolder
from ..features.remote.store import open_store
from ..features.store import Features, FeatureStore
from ..scoring.protocols import FrameProtocol
from ..scoring.runs import Run, identity_of
from ..scoring.thresholds import Calibration, Source, threshold_for


def calibrate(
    run: Run, dataset: Dataset, features: FeaturesFolder, protocol: FrameProtocol, target: float
) -> Calibration:
    """Choose a run's threshold on its normal validation videos, or, if it has none, on those it learnt from.

    Test videos are not looked at.

    Args:
        run: the trained detector.
        dataset: the one that it was trained on.
        features: the features folder.
        protocol: says which frames count.
        target: share of false alarms, in (0, 1).

    Raises:
        UserError: the videos of the training are not at hand as they were.
    """
    videos, source = _normal_videos(run, dataset, open_store(features, run.manifest.extractor))
    scores = [
        protocol.score(video.name, run.detector, found, run.scaling)[: protocol.counted(video.name, found)]
        for video, found in videos
    ]
    frames = sum(map(len, scores))
    if not frames:
        raise UserError(f"no frame of the normal {source} videos counts under protocol {protocol.name}")
    return Calibration(threshold_for(scores, target), target, source, len(videos), frames)


def _normal_videos(
    run: Run, dataset: Dataset, store: FeatureStore
) -> tuple[list[tuple[LabelledVideo, Features]], Source]:
    """The normal validation videos of a run, or its normal training videos where it has none."""
    from ..training.data import training_features, validation_split  # needs torch

    identity = identity_of(run.folder)
    videos, found, digest = training_features(dataset, store)
    if (dataset.digest, digest) != (identity["labels"], identity["features"]):
        raise UserError(
            f"{run.folder}: was trained on {run.manifest.dataset}; {dataset.name} at hand has other training videos, "
            "labels or features"
        )
    config = identity["config"]
    share = config.get("validation") if isinstance(config, dict) else None
    held_out = validation_split([video.abnormal for video in videos], share or 0.0, run.manifest.seed)
    if len(held_out) != run.manifest.validation_videos:
        raise UserError(
            f"{run.folder}: its manifest says that {run.manifest.validation_videos} videos were put aside from "
            f"training, its configuration gives {len(held_out)}: these files do not belong together"
        )
    chosen = [
        (video, found[number])
        for number, video in enumerate(videos)
        if not video.abnormal and (number in held_out or not held_out)
    ]
    return chosen, "validation" if held_out else "training"
