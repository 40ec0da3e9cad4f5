"""What experiments share: the folds of a data set, trainings that are done once, and many of them at a time."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...errors import UserError
from ...files import write_text
from ..cluster.config import HERE, ClusterConfig
from ..datasets import Dataset, folds_in, frame_truth
from ..features.remote.address import FeaturesFolder
from ..features.remote.store import open_store
from ..features.store import FeatureStore
from ..scoring.runs import identity_of, is_run
from ..support.progress import SILENT, Report
from ..training.config import TrainingConfig

ALL_FOLDS = "all"
RUNS = "runs"  # folder of the trainings of an experiment
WATCH_SECONDS = 1.0  # between two looks whether the process that gave the work is still there

Task = TypeVar("Task")
Result = TypeVar("Result")


def folds_of(manifest: Path) -> list[str]:
    """The names of a manifest's folds, in its order.

    Raises:
        UserError: it cannot be read, has no folds, or has one that cannot be the name of a folder, or is called "all".
    """
    folds = folds_in(manifest)
    if not folds:
        raise UserError(f"{manifest}: has no column fold, so --test_fold {ALL_FOLDS} means nothing")
    for fold in folds:
        if fold in ("", ".", "..", ALL_FOLDS) or Path(fold).name != fold:
            raise UserError(f"{manifest}: a fold {fold!r} cannot have a folder of its name; give it another")
    return folds


def is_finished(dataset: Dataset, features: FeaturesFolder, folder: Path, config: TrainingConfig) -> bool:
    """Whether a folder holds the finished run of a configuration.

    Raises:
        UserError: it holds the finished run of another configuration or of other data; names what differs.
    """
    from ..training.checkpoints import check_identity
    from ..training.data import load_training_data
    from ..training.train import plain

    if not is_run(folder):
        return False
    data = load_training_data(dataset, open_store(features, config.extractor), config)
    wanted = {"config": plain(asdict(config)), "labels": dataset.digest, "features": data.digest}
    check_identity(folder, identity_of(folder), wanted)
    return True


def check_learn_from_features(detectors: Sequence[str]) -> None:
    """Refuse detectors that learn from the frames of normal videos: they have no features in common with the others.

    Raises:
        UserError: names the first.
    """
    from ...models import FRAMEWISE

    for name in detectors:
        if name in FRAMEWISE:
            raise UserError(f"{name} learns from frames, not from features and labels: use xelvad train and evaluate")


def check_test_videos(dataset: Dataset, store: FeatureStore) -> None:
    """See before a long training that there will be something to measure.

    Raises:
        UserError: no test videos, missing features, unknown anomalous frames, or no AUC, by which XEL is judged.
    """
    from ..evaluation.metrics import ScoredVideo, frame_metrics

    videos = dataset.of("test")
    if not videos:
        raise UserError(f"{dataset.name}: has no test videos")
    scored = []
    for video, features in zip(videos, store.read_all([video.name for video in videos]), strict=True):
        frames = features.sidecar.frames
        scored.append(ScoredVideo(video.name, video.abnormal, np.zeros(frames, np.float32), frame_truth(video, frames)))
    if frame_metrics(scored).auc is None:
        raise UserError(
            f"{dataset.name}: its test videos hold no anomalous frames, or no normal ones: without an AUC there is no "
            "gain to measure"
        )


@dataclass(frozen=True)
class Training:
    """One training of an experiment.

    Attributes:
        dataset: its training videos, and its test videos.
        features: the features folder.
        folder: of the run.
        config: how, the seed among it.
    """

    dataset: Dataset
    features: FeaturesFolder
    folder: Path
    config: TrainingConfig


def train_once(training: Training, report: Report = SILENT) -> None:
    """Train, if that is not done yet; what was interrupted goes on.

    Raises:
        UserError: as `train`, or the folder holds a run of another configuration or of other data.
    """
    from ..training.train import train

    dataset, features, folder, config = training.dataset, training.features, training.folder, training.config
    if not is_finished(dataset, features, folder, config):
        train(dataset, features, folder, config, resume=True, report=report)


def claim(out: Path, name: str, request: dict[str, Any]) -> None:
    """Note in ``out/name`` what a folder of runs is for, or see that it is for the same.

    Raises:
        UserError: ``out`` holds runs of another request; names what differs.
    """
    from ..training.checkpoints import check_identity

    path = out / name
    if path.exists() and (out / RUNS).exists():
        try:
            check_identity(out, dict(json.loads(path.read_text("utf-8"))), request)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it if the runs beside it belong here") from error
    write_text(path, json.dumps(request, indent=2))


def at_once(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    report: Report = SILENT,
    unit: str = "trainings",
    cluster: ClusterConfig = HERE,
) -> list[Result]:
    """Do tasks, several at a time, each in a process of one thread: networks this small gain nothing by more.

    Args:
        work: a function at the top of a module; what it does must be kept on disk, so that it can go on.
        tasks: and their results can be pickled.
        workers: processes; a single one is this one. On a Ray cluster there are as many as it has room for.
        report: is told how far it is.
        unit: what a task is called.
        cluster: where.

    Returns:
        The results, in the order of the tasks.

    Raises:
        UserError: as ``work``, of the first task that fails; those under way are finished, no other is begun. Or a
            process was killed.
    """
    if cluster.is_ray:
        from ..cluster.trainings import on_cluster

        return on_cluster(partial(on_one_thread, work), tasks, cluster, report, unit)
    began = time.monotonic()

    def told(done: int) -> None:
        report.say(f"{done} of {len(tasks)} {unit}, {time.monotonic() - began:.0f} s")

    if workers == 1:
        results = []
        for task in tasks:
            results.append(on_one_thread(work, task))
            told(len(results))
        return results
    # Started anew: a fork of a process that has computed would wait for threads that it does not have.
    with ProcessPoolExecutor(min(workers, len(tasks)) or 1, get_context("spawn"), _end_with, (os.getpid(),)) as pool:
        futures = [pool.submit(_answer, work, task) for task in tasks]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                if isinstance(found := future.result(), _Refused):
                    raise UserError(found.message)
                told(done)
        except BrokenProcessPool as error:
            raise UserError(
                f"a process with one of the {unit} was killed, perhaps for want of memory; what was finished is kept: "
                "run the same command again, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [found for future in futures if not isinstance(found := future.result(), _Refused)]


def on_one_thread(work: Callable[[Task], Result], task: Task) -> Result:
    """What some work gives, done by one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(task)
    finally:
        torch.set_num_threads(before)


def _end_with(parent: int) -> None:
    """Let this process end when its parent is gone, however that came about: it would go on for hours."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class _Refused:
    """Why a task was: errors with fields of their own do not come through a pipe."""

    message: str


def _answer(work: Callable[[Task], Result], task: Task) -> Result | _Refused:
    try:
        return on_one_thread(work, task)
    except UserError as error:
        return _Refused(str(error))
