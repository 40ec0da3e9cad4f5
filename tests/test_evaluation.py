"""Scoring and evaluation of a trained run, on synthetic features."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from xelvad.errors import UserError
from xelvad.pipeline.cache import FeatureStore
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation import Evaluation, evaluate, write_evaluations
from xelvad.pipeline.runs import Run, load_run
from xelvad.pipeline.scoring import score_features
from xelvad.pipeline.settings import TrainingConfig, XELConfig
from xelvad.pipeline.training import train

from .synthetic import write_dataset, write_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 videos with a trained MIL and a trained MIL+XEL."""
    folder = tmp_path_factory.mktemp("evaluation")
    manifest, features = write_dataset(folder, videos=24)
    for name, xel in (("mil", XELConfig()), ("mil+xel", XELConfig(mode="epoch"))):
        train(read_manifest(manifest), features, folder / name, TrainingConfig(iterations=150, batch=8, xel=xel))
    return folder


def evaluated(folder: Path, run: str) -> Evaluation:
    return evaluate(load_run(folder / run), read_manifest(folder / "labels.csv"), folder / "features")


@pytest.mark.parametrize("run", ["mil", "mil+xel"])
def test_planted_anomalies_are_found(folder: Path, run: str) -> None:
    assert evaluated(folder, run).metrics.auc > 0.95


def test_every_frame_has_one_score_and_it_is_its_clips(folder: Path) -> None:
    run = load_run(folder / "mil")
    evaluation = evaluated(folder, "mil")
    for result, video in zip(evaluation.scores, evaluation.videos, strict=True):
        features = FeatureStore(folder / "features", "i3d-rgb").read(result.name)
        assert len(result.scores) == len(result.times) == len(video.truth) == features.sidecar.frames
        unit = features.array / np.linalg.norm(features.array, axis=1, keepdims=True)  # as MIL's bags are
        with torch.no_grad():
            clips = run.detector.score(torch.from_numpy(unit)).numpy()
        expected = [clips[frame // 16] for frame in range(features.sidecar.frames)]
        np.testing.assert_allclose(result.scores, expected, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 421])
def test_scores_fit_videos_of_any_length(folder: Path, tmp_path: Path, frames: int) -> None:
    clips = -(-frames // 16)
    write_features(tmp_path, "v.mp4", np.ones((clips, 16), np.float32), frames)
    result = score_features(load_run(folder / "mil"), "v.mp4", FeatureStore(tmp_path, "i3d-rgb").read("v.mp4"))
    assert result.scores.shape == result.times.shape == (frames,)
    assert result.scores.dtype == np.float32
    assert ((result.scores >= 0) & (result.scores <= 1)).all()


def test_features_of_other_weights_cannot_be_scored(folder: Path, tmp_path: Path) -> None:
    write_features(tmp_path, "v.mp4", np.ones((1, 16), np.float32), 3, fingerprint="other")
    run: Run = load_run(folder / "mil")
    with pytest.raises(UserError, match="made by «other», not by"):
        score_features(run, "v.mp4", FeatureStore(tmp_path, "i3d-rgb").read("v.mp4"))


def test_what_is_written_can_be_read_by_anyone(folder: Path, tmp_path: Path) -> None:
    evaluations = [evaluated(folder, "mil"), evaluated(folder, "mil+xel")]
    write_evaluations(evaluations, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mil+xel"]["auc"] == evaluations[1].metrics.auc
    result = evaluations[0].scores[1]
    scores = np.load(tmp_path / "mil" / result.name / "scores.npy")
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, result.scores)
    with (tmp_path / "mil" / result.name / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(len(scores)))
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], np.arange(len(scores)) / 25, atol=1e-4)
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-6)


def test_runs_of_one_name_would_overwrite_each_other_and_are_refused(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluated(folder, "mil")
    with pytest.raises(UserError, match="two runs of the same name"):
        write_evaluations([evaluation, evaluation], tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_annotation_for_another_length_names_the_video_and_both_lengths(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    name, split, label, frames, spans = lines[2].split(",")
    lines[2] = f"{name},{split},{label},{int(frames) + 7},{spans}"
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"{name}: annotated for {int(frames) + 7} frames, but {frames} were decoded"):
        evaluate(load_run(folder / "mil"), read_manifest(tmp_path / "labels.csv"), folder / "features")
