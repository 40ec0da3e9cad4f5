"""Training: feature files and video-level labels in, a run folder out. The same seed gives the same bytes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import __version__
from ...errors import UserError
from ...leases import Lease, holder, try_acquire
from ...models import FRAMEWISE, Detector, FramewiseDetector, HardInstanceBank, new_detector
from ...processes import Owner
from ..cluster.config import HERE, ClusterConfig
from ..datasets import Dataset
from ..features.bags import TrainingVideos
from ..features.config import BagConfig
from ..features.remote.address import FeaturesFolder
from ..features.remote.store import open_store
from ..features.store import FeatureStore
from ..framewise.errors import write_errors
from ..framewise.learning import digest_of, learn
from ..scoring.config import FAR_TARGET
from ..scoring.inference import frame_scores, highest_scores
from ..scoring.learned import Learned, Separation
from ..scoring.runs import LAST, BankRow, RunManifest, best_on, identity_of, is_run, save_run, seed_folder
from ..scoring.thresholds import Calibration, threshold_for
from ..support.progress import SILENT, Report
from ..videos.sources import VideoSource
from .checkpoints import FILE as CHECKPOINT
from .checkpoints import check_identity
from .config import TrainingConfig
from .data import TrainingData, load_training_data, validation_split
from .judges import Judge, annotated_test_videos, test_judge, validation_judge, video_scores
from .loop import Fitted, fit, make_optimiser
from .svm import fit_svm

LEASE = ".training.lease"  # in a run folder while it is being written


def train(
    dataset: Dataset,
    features: FeaturesFolder,
    out: Path,
    config: TrainingConfig,
    *,
    resume: bool = False,
    report: Report = SILENT,
) -> RunManifest:
    """Train a detector on the training videos of ``dataset`` and write the run folder ``out``.

    Args:
        dataset: its training videos and their labels. Test videos are looked at only to follow their AUC, if asked for;
            they never change the weights of the last iteration.
        features: the features folder that `extract` filled.
        out: the run folder. It must not hold a run yet.
        config: how.
        resume: go on from the checkpoint of an interrupted training in ``out``; without one, begin.
        report: is told how far it is.

    Raises:
        UserError: missing or mixed features, no normal or no abnormal training video, ``out`` is in use, by another
            process too, or the interrupted training was another one.
        OSError: ``out`` cannot be written to, or its disk is full.
    """
    _check_free(out, resume)
    with _alone_in(out):
        return _train(dataset, features, out, config, resume, report)


def _train(
    dataset: Dataset, features: FeaturesFolder, out: Path, config: TrainingConfig, resume: bool, report: Report
) -> RunManifest:
    _check_out(out, resume)
    if not resume:
        for unfinished in (out / "tensorboard").glob("events.out.tfevents.*"):
            unfinished.unlink()
    store = open_store(features, config.extractor)
    if config.detector in FRAMEWISE:
        fitted, data = _fit_framewise(dataset, features, config, report)
    else:
        fitted, data = None, load_training_data(dataset, store, config)
    sidecar = data.abnormal.features[0].sidecar
    settings = plain(asdict(config))
    identity = {
        "config": settings,
        "labels": dataset.digest,
        "features": data.digest,
        "training_videos": list(data.abnormal.names + data.normal.names),
    }
    if is_run(out):  # finished, and may have no checkpoint that would be checked
        check_identity(out, identity_of(out), {key: identity[key] for key in ("config", "labels", "features")})
    if config.detector == "svm":
        fitted = _fit_baseline(data, config)
    elif fitted is None:
        fitted = fit(
            data.abnormal,
            data.normal,
            config,
            out,
            judges=_judges(data, dataset, store, config, report),
            identity=identity,
            resume=resume,
            report=report,
        )
    manifest = RunManifest(
        version=__version__,
        detector=config.detector,
        xel=config.xel.mode,
        feature_dim=sidecar.feature_dim,
        extractor=sidecar.extractor,
        fingerprint=sidecar.fingerprint,
        clipping=sidecar.clipping,
        bags=replace(data.normal.config, scale=data.scaling.scale),
        seed=config.seed,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        features_digest=data.digest,
        training_videos=len(data.normal) + (0 if config.detector in FRAMEWISE else len(data.abnormal)),
        validation_videos=len(data.validation),
        quirks=config.quirks,
        torch_version=str(torch.__version__),
        options=dict(config.options),
    )
    weights = {LAST: dict(fitted.detector.state_dict())}
    weights |= {best_on(judge): best.weights for judge, best in fitted.best.items()}
    bank = bank_rows(fitted.bank, data.normal) if fitted.bank is not None else None
    metrics = _metrics(fitted, config)
    if config.detector not in FRAMEWISE:  # which were never shown what is abnormal, nor whole videos
        metrics["learned"] = what_was_learned(fitted.detector, data).plain
    metrics["calibration"] = {which: _calibration(fitted.detector, state, data) for which, state in weights.items()}
    save_run(out, manifest, weights, data.scaling, settings, metrics, bank)
    return manifest


def train_seeds(
    dataset: Dataset,
    features: FeaturesFolder,
    out: Path,
    config: TrainingConfig,
    seeds: int,
    *,
    resume: bool = False,
    report: Report = SILENT,
    cluster: ClusterConfig = HERE,
) -> list[RunManifest]:
    """Train with ``seeds`` seeds, from the configuration's on, into ``out/seed-0`` and so on.

    In turn, or on a Ray cluster as many at a time as it has room for, each with one thread.

    Raises:
        UserError: as `train`.
    """
    if seeds < 1:
        raise UserError(f"seeds must be positive, not {seeds}")
    if is_run(out):
        raise UserError(f"{out}: holds a run itself, seeds need a folder of their own; choose another --out")
    configs = [replace(config, seed=seed) for seed in range(config.seed, config.seed + seeds)]
    for one in configs:
        _check_free(seed_folder(out, one.seed), resume)
    if cluster.is_ray:
        from ..cluster.trainings import on_cluster

        # What it is about to begin is free, as was seen: if its process dies, the next one goes on.
        return on_cluster(partial(_train_seed, dataset, features, out), configs, cluster, report)
    return [train(dataset, features, seed_folder(out, one.seed), one, resume=resume, report=report) for one in configs]


def _train_seed(dataset: Dataset, features: FeaturesFolder, out: Path, config: TrainingConfig) -> RunManifest:
    return train(dataset, features, seed_folder(out, config.seed), config, resume=True)


def bank_rows(bank: HardInstanceBank, normal: TrainingVideos) -> list[BankRow]:
    """What is in a bank, highest score first; rows that were never filled are left out."""
    rows = []
    columns = zip(normal.names, bank.clips.tolist(), bank.scores.tolist(), bank.ages.tolist(), strict=False)
    for number, (name, clip, score, age) in enumerate(columns):
        if clip < 0:
            continue
        first, end = normal.frames_of(number, clip)
        timeline, frames = normal.features[number].sidecar.timeline, normal.features[number].sidecar.frames
        seconds = float(timeline.times(frames)[min(first, frames - 1)])  # a segment of a short video may be empty
        rows.append(BankRow(name, clip, first, end, seconds, score, age))
    return sorted(rows, key=lambda row: -row.score)


def what_was_learned(detector: Detector, data: TrainingData) -> Learned:
    """Whether a detector in evaluation mode tells the videos apart by their highest scores.

    Those it learned from, and those that were put aside.
    """
    validation = None
    if data.validation:
        kinds = [[each for each in data.validation if each[1] == abnormal] for abnormal in (True, False)]
        validation = Separation.of(*(video_scores(detector, videos, data.scaling) for videos in kinds))
    return Learned(
        Separation.of(highest_scores(detector, data.abnormal), highest_scores(detector, data.normal)), validation
    )


def plain(value: Any) -> Any:
    """Tuples as lists: YAML's safe subset has no tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


@contextmanager
def _alone_in(out: Path) -> Iterator[Lease]:
    """Keep other processes from training into a run folder; one that holds nothing but the lease goes with it.

    Raises:
        UserError: another process is training into it.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lease = try_acquire(out / LEASE)
    if lease is None:
        raise _InUseError(out, holder(out / LEASE))
    try:
        with lease:
            yield lease
    finally:
        for folder in made:
            with suppress(OSError):  # it holds something
                folder.rmdir()


class _InUseError(UserError):
    """Another process is training into the same run folder."""

    def __init__(self, out: Path, owner: Owner | None) -> None:
        by = f" (pid {owner.pid} on {owner.host})" if owner is not None else ""
        super().__init__(f"{out}: another training{by} is writing this run; wait for it or choose another --out")


def _check_free(out: Path, resume: bool) -> None:
    """Refuse, before anything is changed, a run folder that is taken."""
    owner = holder(out / LEASE)
    if owner is not None:
        raise _InUseError(out, owner)
    _check_out(out, resume)


def _check_out(out: Path, resume: bool) -> None:
    if resume:
        return
    if is_run(out):
        raise UserError(f"{out}: holds a finished run already; choose another --out, or delete it")
    if (out / CHECKPOINT).exists():
        raise UserError(f"{out}: holds an unfinished training; --resume goes on with it, or delete the folder")


def _fit_framewise(
    dataset: Dataset, features: FeaturesFolder, config: TrainingConfig, report: Report
) -> tuple[Fitted, TrainingData]:
    """Learn from the frames of the normal videos, and keep the errors of all videos, as features of their own name.

    Test videos teach nothing; their errors are made because nobody else could make them.
    """
    _check_alone(config)
    found = [(video, VideoSource(video.name, dataset.path_of(video))) for video in dataset.videos]
    training = dataset.of("train")
    held_out = validation_split([video.abnormal for video in training], config.validation, config.seed)
    aside = {training[number].name for number in held_out}
    learnt_from = [
        source for video, source in found if video.split == "train" and not video.abnormal and video.name not in aside
    ]
    torch.manual_seed(config.seed)
    try:
        detector = new_detector(config.detector, 1, config.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"options of {config.detector}: {error}") from error
    assert isinstance(detector, FramewiseDetector)
    learn(
        detector,
        learnt_from,
        seed=config.seed,
        steps=config.iterations,
        batch=config.batch,
        optimiser=partial(make_optimiser, config),
        report=report,
    )
    digest = digest_of(detector)
    name, fingerprint = f"{config.detector}-{digest[:12]}", f"{config.detector}, learned {digest}"
    result = write_errors([source for _, source in found], features, detector, name, fingerprint, report)
    for reason in result.failed.values():
        report.say(f"set aside: {reason}")
    own = replace(config, extractor=name, bags=BagConfig(segments=0, scale="none"))
    data = load_training_data(dataset, open_store(features, name), own)
    calm = [each for each, abnormal in data.validation if not abnormal] or data.normal.features
    detector.calibrate(torch.cat([torch.from_numpy(each.read(slice(None))[:, 0].copy()) for each in calm]))
    return Fitted(detector.eval(), bank=None), data


def _check_alone(config: TrainingConfig) -> None:
    if config.xel.mode != "off":
        raise UserError(f"{config.detector} learns from normal videos alone: --xel off is all there is for it")


def _fit_baseline(data: TrainingData, config: TrainingConfig) -> Fitted:
    if config.xel.mode != "off":
        raise UserError("svm is fitted in one go and has no epochs: --xel off is all there is for it")
    if config.options:
        raise UserError(f"svm has no option {', '.join(sorted(config.options))}")
    abnormal, normal = (
        np.stack([_video_mean(videos, number) for number in range(len(videos))])
        for videos in (data.abnormal, data.normal)
    )
    return Fitted(fit_svm(abnormal, normal, config.seed).eval(), bank=None)


def _video_mean(videos: TrainingVideos, number: int) -> NDArray[np.float32]:
    """The mean over all clips and crops of a video, ``(F,)``."""
    total, clips = np.zeros(videos.feature_dim), 0
    for piece in videos.pieces(number):
        rows = piece.reshape(-1, piece.shape[-1])
        total, clips = total + rows.sum(axis=0, dtype=np.float64), clips + len(rows)
    return (total / clips).astype(np.float32)


def _calibration(detector: Detector, weights: dict[str, Tensor], data: TrainingData) -> dict[str, Any] | None:
    """The threshold that normal validation videos say, by some of the kept weights; None where there are none."""
    videos = [features for features, abnormal in data.validation if not abnormal]
    if not videos:
        return None
    chosen = copy.deepcopy(detector)
    chosen.load_state_dict(weights)
    scores = [frame_scores(chosen, features, data.scaling) for features in videos]
    return asdict(
        Calibration(threshold_for(scores, FAR_TARGET), FAR_TARGET, "validation", len(videos), sum(map(len, scores)))
    )


def _judges(
    data: TrainingData, dataset: Dataset, store: FeatureStore, config: TrainingConfig, report: Report
) -> dict[str, Judge]:
    judges: dict[str, Judge] = {}
    if data.validation:
        judges["validation"] = validation_judge(data.validation, data.scaling)
    elif config.validation:
        report.say("too few training videos to put any aside: no best weights by validation")
    if config.follow_test:
        try:
            judges["test"] = test_judge(annotated_test_videos(dataset, store, data.normal.names[0]), data.scaling)
        except UserError as error:
            report.say(f"the test AUC is not followed: {error}")
    return judges


def _metrics(fitted: Fitted, config: TrainingConfig) -> dict[str, Any]:
    """What came of a training: which iterations the kept weights are of, every evaluation, the last epoch's losses.

    ``validation_auc`` is that of videos by their highest scores, ``test_auc`` that of frames.
    """
    kept: dict[str, Any] = {LAST: {"iteration": fitted.iterations or None}}
    for judge, best in fitted.best.items():
        kept[LAST][f"{judge}_auc"] = fitted.history[judge][-1]
        kept[best_on(judge)] = {"iteration": best.iteration, f"{judge}_auc": best.value}
    history = {name if name == "iteration" else f"{name}_auc": values for name, values in fitted.history.items()}
    return {"weights": kept, "history": history, "last_epoch": fitted.last_epoch}
