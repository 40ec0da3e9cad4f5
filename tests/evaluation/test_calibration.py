"""Calibration: the threshold against a search through all of them, and what it may and may not look at."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.datasets import Dataset, read_manifest
from xelvad.pipeline.evaluation.calibration import calibrate
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.scoring.protocols import PROTOCOLS
from xelvad.pipeline.scoring.runs import Run, load_run
from xelvad.pipeline.scoring.thresholds import Calibration, threshold_for
from xelvad.pipeline.training.config import TrainingConfig
from xelvad.pipeline.training.data import load_training_data
from xelvad.pipeline.training.train import train

from ..helpers.features import write_dataset, write_features

CONFIG = TrainingConfig(iterations=20, batch=4, validation=0.3, seed=5)


def far(scores: NDArray[np.float32], threshold: float) -> float:
    return sum(float(score) >= threshold for score in scores) / len(scores)


@pytest.mark.parametrize("target", [0.001, 0.01, 0.07, 0.29, 0.5, 0.99])
@pytest.mark.parametrize("frames", [1, 2, 99, 100, 101, 1000])
@pytest.mark.parametrize("kind", ["all differ", "ties", "constant", "saturated"])
def test_the_threshold_is_the_lowest_that_keeps_to_the_target(kind: str, frames: int, target: float) -> None:
    scores = np.random.default_rng(frames).random(frames).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores, 1)
    if kind == "constant":
        scores[:] = 0.25
    if kind == "saturated":
        scores[: frames // 2 + 1] = 1
    threshold = threshold_for(np.array_split(scores, 3), target)
    assert far(scores, threshold) <= target
    candidates = sorted({float(score) for score in scores})
    lower = [value for value in candidates if value < threshold]
    assert all(far(scores, value) > target for value in lower), "a lower threshold would have done"
    assert lower, "not above everything without need"
    assert np.float32(threshold) == threshold
    assert np.nextafter(np.float32(threshold), np.float32(0)) == lower[-1], "the lowest of all numbers, not of scores"


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0])
def test_impossible_targets_and_no_scores_are_refused(target: float) -> None:
    with pytest.raises(ValueError, match="a target of"):
        threshold_for([np.zeros(3, np.float32)], target)
    with pytest.raises(ValueError, match="of 0 frames"):
        threshold_for([], 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    manifest, features = write_dataset(folder, videos=24)
    train(read_manifest(manifest), features, folder / "run", CONFIG)
    train(read_manifest(manifest), features, folder / "none", replace(CONFIG, validation=0.0))
    return folder


def data_and_run(folder: Path, run: str = "run") -> tuple[Dataset, Run]:
    return read_manifest(folder / "labels.csv"), load_run(folder / run)


def calibrated(folder: Path, run: str = "run", protocol: str = "exact", target: float = 0.1) -> Calibration:
    dataset, loaded = data_and_run(folder, run)
    return calibrate(loaded, dataset, folder / "features", PROTOCOLS[protocol], target)


def frame_scores(run: Run, folder: Path, name: str) -> NDArray[np.float32]:
    """By hand: every clip's score over its frames."""
    features = FeatureStore(folder / "features", "i3d-rgb").read(name)
    unit = features.array / np.linalg.norm(features.array, axis=1, keepdims=True)
    with torch.no_grad():
        clips = run.detector.score(torch.from_numpy(unit)).numpy()
    return np.repeat(clips, 16)[: features.sidecar.frames]


@pytest.mark.parametrize("run", ["run", "none"])
def test_it_is_chosen_on_the_normal_videos_put_aside_or_else_on_those_learnt_from(folder: Path, run: str) -> None:
    dataset, loaded = data_and_run(folder, run)
    config = CONFIG if run == "run" else replace(CONFIG, validation=0.0)
    data = load_training_data(dataset, FeatureStore(folder / "features", "i3d-rgb"), config)
    if run == "run":
        names = [features.sidecar.video for features, abnormal in data.validation if not abnormal]
        assert not set(names) & set(data.normal.names)
    else:
        names = list(data.normal.names)
    scores = [frame_scores(loaded, folder, name) for name in names]
    found = calibrated(folder, run)
    assert found.source == ("validation" if run == "run" else "training")
    assert (found.videos, found.frames) == (len(names), sum(map(len, scores)))
    assert len(names) > 1
    assert found.threshold == pytest.approx(threshold_for(scores, 0.1), abs=1e-6)
    assert ("learnt from" in found.note) == (run == "none")
    assert "so few cannot promise 10 % on others: put more aside by --validation" in found.note
    assert "promise" not in replace(found, videos=10).note


def test_protocols_say_which_frames_count(folder: Path) -> None:
    exact, xel, mil = (calibrated(folder, protocol=name) for name in PROTOCOLS)
    assert xel.frames < exact.frames == mil.frames


def test_test_videos_are_not_looked_at(folder: Path) -> None:
    """Neither their labels, nor their features, nor whether there are any."""
    dataset, run = data_and_run(folder)
    expected = calibrated(folder)
    for videos in (
        tuple(replace(v, abnormal=not v.abnormal) if v.split == "test" else v for v in dataset.videos),
        tuple(v for v in dataset.videos if v.split == "train"),
        tuple(replace(v, name="gone.mp4") if v.split == "test" else v for v in dataset.videos),
    ):
        changed = replace(dataset, videos=videos)
        assert calibrate(run, changed, folder / "features", PROTOCOLS["exact"], 0.1) == expected


def test_without_the_videos_of_its_training_there_is_no_threshold(folder: Path, tmp_path: Path) -> None:
    dataset, run = data_and_run(folder)

    def refused(dataset: Dataset, features: Path, message: str, run: Run = run) -> None:
        with pytest.raises(UserError, match=message):
            calibrate(run, dataset, features, PROTOCOLS["exact"], 0.1)

    refused(replace(dataset, digest="other"), folder / "features", "has other training videos, labels or features")
    no_training = tuple(video for video in dataset.videos if video.split == "test")
    refused(replace(dataset, videos=no_training), folder / "features", "has other training videos")
    refused(replace(dataset, videos=dataset.videos[::-1]), folder / "features", "has other training videos")
    refused(dataset, tmp_path, "no features in")
    (tmp_path / "run").mkdir()
    for path in (folder / "run").iterdir():
        if path.is_file():
            (tmp_path / "run" / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest | {"validation_videos": 1}))
    refused(dataset, folder / "features", "do not belong together", load_run(tmp_path / "run"))


def test_videos_shorter_than_a_clip_calibrate_nothing_where_complete_clips_count(tmp_path: Path) -> None:
    lines = ["video,split,label,frames,anomalous_frames_half_open"]
    for index in range(6):
        write_features(
            tmp_path / "features", f"{index}.mp4", np.random.default_rng(index).random((1, 16), np.float32), 9
        )
        lines.append(f"{index}.mp4,train,{index % 2},9,")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    dataset = read_manifest(tmp_path / "labels.csv")
    train(dataset, tmp_path / "features", tmp_path / "run", replace(CONFIG, iterations=2))
    run = load_run(tmp_path / "run")
    assert calibrate(run, dataset, tmp_path / "features", PROTOCOLS["exact"], 0.1).frames == 9
    with pytest.raises(UserError, match="no frame of the normal validation videos counts under protocol xel"):
        calibrate(run, dataset, tmp_path / "features", PROTOCOLS["xel"], 0.1)
