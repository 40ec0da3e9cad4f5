"""The leaderboard: {detectors} × {no XEL, XEL} × seeds × folds by one protocol; trainings, and what each comes to.

Every detector learns by its own recipe of `recipes/general` from the same features, and puts the same videos aside. No
weights, threshold or setting is chosen by a test video. What is finished is kept, so that more detectors and seeds may
join later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ....errors import UserError
from ....files import write_text
from ....schema import parse, read_json
from ...cluster.config import HERE, ClusterConfig
from ...datasets import Dataset, DatasetChoice, folds_in, frame_truth
from ...features.remote.address import FeaturesFolder
from ...features.remote.store import open_store
from ...scoring.config import EventConfig
from ...scoring.events import find_events
from ...scoring.runs import LAST, Run, is_run, load_run, seed_folder
from ...scoring.scoring import FrameScores, score_features
from ...support.progress import SILENT, Report
from ...training.config import TrainingConfig
from ...training.recipes import detector_recipe, load_recipe
from ..trainings import (
    RUNS,
    Training,
    at_once,
    check_learn_from_features,
    check_test_videos,
    claim,
    folds_of,
    train_once,
)
from .config import LeaderboardConfig
from .records import ADVICE, Board, Entry, Standing, Trial, write_board

REQUEST = "leaderboard.json"
NO_XEL = ("svm",)  # fitted in one go: no epochs, so that there is nothing to carry from one to the next


@dataclass(frozen=True)
class Task:
    """A training with what is to be measured of it, and where that is kept."""

    training: Training
    fold: str
    weights: str
    record: Path


@dataclass(frozen=True)
class Journey:
    """A training that is tested elsewhere: its run, and the folds of the data set that it is taken to."""

    run: Path
    weights: str
    folds: tuple[Dataset, ...]
    features: FeaturesFolder


def make_board(
    labels: DatasetChoice,
    features: FeaturesFolder,
    out: Path,
    config: LeaderboardConfig,
    report: Report = SILENT,
    cluster: ClusterConfig = HERE,
) -> Board:
    """Train and measure everything that is not there yet.

    Args:
        labels: a data set with annotated test videos.
        features: the features folder that `extract` filled.
        out: runs go to ``out/runs/<detector>/<fold>/seed-0`` and so on, ``results.json`` beside them.
        config: what is compared.
        report: is told how far it is.
        cluster: where the trainings are done.

    Raises:
        UserError: as `DatasetChoice.read`, `train` and `load_run`; or ``out`` holds a leaderboard of other data or with
            other settings.
    """
    check_learn_from_features(config.detectors)
    folds = _folds(labels, config)
    datasets = {fold: labels.read(fold or None) for fold in folds}
    entries = entries_of(config.detectors)
    first = _settings(entries[0], config)
    store = open_store(features, first.extractor)
    for dataset in datasets.values():
        check_test_videos(dataset, store)
    request = {"labels": datasets[folds[0]].digest, "extractor": first.extractor}
    request |= {name: getattr(config, name) for name in ("test_fold", "validation", "iterations")}
    claim(out, REQUEST, request)
    tasks = [
        _task(entry, fold, datasets[fold], seed, features, out, config)
        for entry in entries
        for seed in range(config.seeds)
        for fold in folds
    ]
    trials = at_once(measure, tasks, config.workers, report, cluster=cluster)
    each = config.seeds * len(folds)
    standings: list[Standing] = []
    speeds: dict[str, float] = {}  # XEL changes nothing in a detector's use
    for number, entry in enumerate(entries):
        group = slice(number * each, (number + 1) * each)
        run = load_run(tasks[group][0].training.folder, tasks[group][0].weights)
        parameters = sum(weight.numel() for weight in run.detector.parameters())
        if entry.detector not in speeds:
            speeds[entry.detector] = clips_per_second(run)
        standings.append(Standing(entry.detector, entry.xel, parameters, speeds[entry.detector], tuple(trials[group])))
    sidecar = store.read(datasets[folds[0]].videos[0].name).sidecar
    board = Board(
        datasets[folds[0]].name,
        labels,
        features,
        sidecar.extractor,
        sidecar.fingerprint,
        tuple(filter(None, folds)),
        float(np.mean([len(d.of("test")) / len(d.of("train")) for d in datasets.values()])) if len(folds) > 1 else 0.0,
        config.weights,
        tuple(sorted(standings, key=lambda standing: -(standing.mean("auc") or 0.0))),
    )
    write_board(board, out)
    return board


def entries_of(detectors: Sequence[str]) -> list[Entry]:
    """Every detector without XEL and, where it learns in epochs, with it; all detectors where none are named."""
    from ....models import DETECTORS

    names = list(dict.fromkeys(detectors)) or list(DETECTORS)
    return [Entry(name, xel) for name in names for xel in (False, True) if not (xel and name in NO_XEL)]


def measure(task: Task) -> Trial:
    """Train, if it is not done, and test on the videos of the fold; what was measured before is read.

    Raises:
        UserError: as `train_once` and `load_run`.
    """
    training, record = task.training, task.record
    new, began = not is_run(training.folder), time.process_time()
    train_once(training)  # which refuses a run of other settings, as of a recipe that has changed since
    seconds = time.process_time() - began if new else None
    if record.exists() and not new:
        return parse(Trial, read_json(record, ADVICE), record, ADVICE)
    run = load_run(training.folder, task.weights)
    trial = _trial(run, training.dataset, training.features, task.fold, seconds)
    write_text(record, json.dumps(asdict(trial), indent=2))
    return trial


def _trial(run: Run, dataset: Dataset, features: FeaturesFolder, fold: str, seconds: float | None) -> Trial:
    from ...evaluation.metrics import ScoredVideo, frame_metrics, rates_at

    videos = dataset.of("test")
    found = open_store(features, run.manifest.extractor).read_all([video.name for video in videos])
    scores = [score_features(run, video.name, each) for video, each in zip(videos, found, strict=True)]
    scored = [
        ScoredVideo(video.name, video.abnormal, each.scores, frame_truth(video, len(each.scores)))
        for video, each in zip(videos, scores, strict=True)
    ]
    metrics = frame_metrics(scored)
    threshold = None if run.calibration is None else run.calibration.threshold
    rates = None if threshold is None else rates_at(scored, threshold)
    normal = [each for video, each in zip(videos, scores, strict=True) if not video.abnormal]
    return Trial(
        run.manifest.seed,
        fold,
        metrics.auc,
        metrics.auc_abnormal,
        metrics.ap,
        metrics.far_normal,
        metrics.tpr,
        None if rates is None else rates.far_normal,
        None if rates is None else rates.tpr,
        None if threshold is None else alarms_per_hour(normal, threshold),
        None if run.learned is None else run.learned.verdict,
        seconds,
    )


def alarms_per_hour(normal: Sequence[FrameScores], threshold: float) -> float | None:
    """Events in the scores of normal videos for every hour of them; None without such videos."""
    seconds = sum(float(np.ptp(video.times)) * len(video.times) / max(1, len(video.times) - 1) for video in normal)
    if not seconds:
        return None
    return 3600 * sum(len(find_events(video.scores, threshold, EventConfig())) for video in normal) / seconds


def clips_per_second(run: Run, clips: int = 256, repeats: int = 5) -> float:
    """How many clips of a video one core scores in a second, the best of some repeats."""
    import torch

    features = torch.randn(clips, run.manifest.feature_dim)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = np.inf
        with torch.inference_mode():
            for _ in range(repeats + 1):  # the first makes ready
                began = time.perf_counter()
                run.detector.score(features)
                best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return float(clips / best)


def exchange(
    board: Board, out: Path, beside: Sequence[tuple[Path, Board]], workers: int, report: Report = SILENT
) -> tuple[Board, list[Board]]:
    """A leaderboard and those beside it, the trainings of each tested on the videos of the other as well: see `travel`.

    Raises:
        UserError: as `travel`.
    """
    others = []
    for folder, other in beside:
        board = travel(board, out, other, workers, report)
        others.append(travel(other, folder, board, workers, report))
    return board, others


def travel(board: Board, out: Path, to: Board, workers: int, report: Report = SILENT) -> Board:
    """A leaderboard with its trainings tested on the videos of another data set as well, of the same features.

    Every training sees every fold there, since none of them taught it anything.

    Args:
        board: whose trainings.
        out: its folder.
        to: of the other data set.
        workers: processes.
        report: is told how far it is.

    Raises:
        UserError: features of another extractor, or as `load_run`.
    """
    if (board.extractor, board.fingerprint) != (to.extractor, to.fingerprint):
        raise UserError(
            f"{to.dataset} has features of {to.extractor} («{to.fingerprint}»), {board.dataset} of {board.extractor} "
            f"(«{board.fingerprint}»): --across needs the same"
        )
    folds = tuple(to.labels.read(fold or None) for fold in to.folds or ("",))
    journeys, trials = [], []
    for standing in board.standings:
        for trial in standing.trials:
            folder = seed_folder(out / RUNS / standing.entry.folder / trial.fold, trial.seed)
            weights = LAST if standing.detector in NO_XEL else board.weights
            journeys.append(Journey(folder, weights, folds, to.features))
            trials.append(trial)
    arrived = at_once(auc_elsewhere, journeys, workers, report, "trainings tested elsewhere")
    told = iter(
        replace(trial, across=trial.across | {to.dataset: auc}) for trial, auc in zip(trials, arrived, strict=True)
    )
    return replace(
        board,
        standings=tuple(
            replace(standing, trials=tuple(next(told) for _ in standing.trials)) for standing in board.standings
        ),
    )


def auc_elsewhere(journey: Journey) -> float:
    """The AUC of a training on another data set, mean of its folds."""
    run = load_run(journey.run, journey.weights)
    aucs = [_trial(run, dataset, journey.features, "", None).auc for dataset in journey.folds]
    return float(np.mean([auc for auc in aucs if auc is not None]))


def _folds(labels: DatasetChoice, config: LeaderboardConfig) -> list[str]:
    if config.test_fold is not None:
        return [config.test_fold]
    if labels.manifest is None or not folds_in(labels.manifest):
        return [""]
    return folds_of(labels.manifest)


def _settings(entry: Entry, config: LeaderboardConfig) -> TrainingConfig:
    recipe = replace(load_recipe(detector_recipe(entry.detector)), detector=entry.detector)
    given = {name: getattr(config, name) for name in ("iterations", "extractor")}
    xel = replace(recipe.xel, mode="epoch" if entry.xel else "off")
    settings = replace(recipe, xel=xel, validation=config.validation, follow_test=False)
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _task(
    entry: Entry, fold: str, dataset: Dataset, seed: int, features: FeaturesFolder, out: Path, config: LeaderboardConfig
) -> Task:
    folder = seed_folder(out / RUNS / entry.folder / fold, seed)
    training = Training(dataset, features, folder, replace(_settings(entry, config), seed=seed))
    weights = LAST if entry.detector in NO_XEL else config.weights  # what is fitted in one go has no others
    return Task(training, fold, weights, folder.with_name(f"{folder.name}-{weights}.json"))
