"""Training: feature files and video-level labels in, a run folder out. The same seed gives the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ... import __version__
from ...errors import UserError
from ...models import Detector, HardInstanceBank
from ..datasets import Dataset, LabelledVideo, frame_truth
from ..features.bags import TrainingVideos
from ..features.scaling import Scaling
from ..features.store import Features, FeatureStore, hold
from ..scoring.inference import highest_scores, score_clips
from ..scoring.learned import Learned, Separation
from ..scoring.runs import LAST, BankRow, RunManifest, best_on, identity_of, is_run, save_run, seed_folder
from ..support.console import console
from .checkpoints import FILE as CHECKPOINT
from .checkpoints import check_identity
from .config import TrainingConfig
from .loop import Fitted, Judge, fit
from .svm import fit_svm

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


def train(dataset: Dataset, features: Path, out: Path, config: TrainingConfig, *, resume: bool = False) -> RunManifest:
    """Train a detector on the training videos of ``dataset`` and write the run folder ``out``.

    Args:
        dataset: its training videos and their labels. Test videos are looked at only to follow their AUC, if asked for;
            they never change the weights of the last iteration.
        features: the features folder that `extract` filled.
        out: the run folder. It must not hold a run yet.
        config: how.
        resume: go on from the checkpoint of an interrupted training in ``out``; without one, begin.

    Raises:
        UserError: missing or mixed features, no normal or no abnormal training video, ``out`` is in use, or the
            interrupted training was another one.
    """
    _check_out(out, resume)
    store = FeatureStore(features, config.extractor)
    data = load_training_data(dataset, store, config)
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
    else:
        fitted = fit(
            data.abnormal,
            data.normal,
            config,
            out,
            judges=_judges(data, dataset, store, config),
            identity=identity,
            resume=resume,
        )
    manifest = RunManifest(
        version=__version__,
        detector=config.detector,
        xel=config.xel.mode,
        feature_dim=sidecar.feature_dim,
        extractor=sidecar.extractor,
        fingerprint=sidecar.fingerprint,
        clipping=sidecar.clipping,
        bags=replace(config.bags, scale=data.scaling.scale),
        seed=config.seed,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        features_digest=data.digest,
        training_videos=len(data.abnormal) + len(data.normal),
        validation_videos=len(data.validation),
        quirks=config.quirks,
        torch_version=str(torch.__version__),
    )
    weights = {LAST: dict(fitted.detector.state_dict())}
    weights |= {best_on(judge): best.weights for judge, best in fitted.best.items()}
    bank = bank_rows(fitted.bank, data.normal) if fitted.bank is not None else None
    metrics = _metrics(fitted, config) | {"learned": what_was_learned(fitted.detector, data).plain}
    save_run(out, manifest, weights, data.scaling, settings, metrics, bank)
    return manifest


def train_seeds(
    dataset: Dataset, features: Path, out: Path, config: TrainingConfig, seeds: int, *, resume: bool = False
) -> list[RunManifest]:
    """Train with ``seeds`` seeds in turn, from the configuration's on, into ``out/seed-0`` and so on.

    Raises:
        UserError: as `train`.
    """
    if seeds < 1:
        raise UserError(f"seeds must be positive, not {seeds}")
    if is_run(out):
        raise UserError(f"{out}: holds a run itself, seeds need a folder of their own; choose another --out")
    configs = [replace(config, seed=seed) for seed in range(config.seed, config.seed + seeds)]
    for one in configs:
        _check_out(seed_folder(out, one.seed), resume)
    return [train(dataset, features, seed_folder(out, one.seed), one, resume=resume) for one in configs]


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
    found = list(store.read_all([video.name for video in videos]))
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
        scores, labels = _video_scores(detector, data.validation, data.scaling)
        validation = Separation.of(
            *([s for s, label in zip(scores, labels, strict=True) if label == kind] for kind in (True, False))
        )
    return Learned(
        Separation.of(highest_scores(detector, data.abnormal), highest_scores(detector, data.normal)), validation
    )


def plain(value: Any) -> Any:
    """Tuples as lists: YAML's safe subset has no tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def _check_out(out: Path, resume: bool) -> None:
    if resume:
        return
    if is_run(out):
        raise UserError(f"{out}: holds a finished run already; choose another --out, or delete it")
    if (out / CHECKPOINT).exists():
        raise UserError(f"{out}: holds an unfinished training; --resume goes on with it, or delete the folder")
    for unfinished in (out / "tensorboard").glob("events.out.tfevents.*"):
        unfinished.unlink()


def _fit_baseline(data: TrainingData, config: TrainingConfig) -> Fitted:
    if config.xel.mode != "off":
        raise UserError("svm is fitted in one go and has no epochs: --xel off is all there is for it")
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


def _judges(data: TrainingData, dataset: Dataset, store: FeatureStore, config: TrainingConfig) -> dict[str, Judge]:
    judges: dict[str, Judge] = {}
    if data.validation:
        judges["validation"] = lambda detector: _auc(*_video_scores(detector, data.validation, data.scaling))
    elif config.validation:
        _say("too few training videos to put any aside: no best weights by validation")
    if config.follow_test:
        test, reason = _annotated_test_videos(dataset, store, data.normal.names[0])
        if test:
            judges["test"] = lambda detector: _frame_auc(detector, test, data.scaling)
        else:
            _say(f"the test AUC is not followed: {reason}")
    return judges


def _say(message: str) -> None:
    console.print(message, markup=False, soft_wrap=True)


def _annotated_test_videos(
    dataset: Dataset, store: FeatureStore, learnt_from: str
) -> tuple[list[tuple[LabelledVideo, Features]], str]:
    """The test videos with features like those of a training video; or none, and the reason."""
    videos = dataset.of("test")
    if not any(video.abnormal for video in videos) or not all(video.spans is not None for video in videos):
        return [], "the data set has no test videos with annotated frames"
    try:
        _, *found = store.read_all([learnt_from, *(video.name for video in videos)])
        for video, features in zip(videos, found, strict=True):
            frame_truth(video, features.sidecar.frames)
    except UserError as error:
        return [], str(error)
    return list(zip(videos, hold(found), strict=True)), ""


def _video_scores(
    detector: Detector, videos: Sequence[tuple[Features, bool]], scaling: Scaling
) -> tuple[list[float], list[bool]]:
    """The videos' highest scores, all that can be judged without annotated frames, and their labels."""
    scores = [float(score_clips(detector, features, scaling).max()) for features, _ in videos]
    return scores, [abnormal for _, abnormal in videos]


def _auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    return float(roc_auc_score(labels, scores))


def _frame_auc(detector: Detector, videos: Sequence[tuple[LabelledVideo, Features]], scaling: Scaling) -> float:
    scores, truth = [], []
    for video, features in videos:
        frames = features.sidecar.frames
        scores.append(features.sidecar.clipping.spread(score_clips(detector, features, scaling), frames))
        truth.append(frame_truth(video, frames))
    return float(roc_auc_score(np.concatenate(truth), np.concatenate(scores)))


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
