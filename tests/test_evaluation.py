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
from xelvad.pipeline.evaluation import Evaluation, evaluate, evaluate_all, summarise, write_evaluations
from xelvad.pipeline.runs import Run, load_run
from xelvad.pipeline.scoring import score_features
from xelvad.pipeline.settings import TrainingConfig, XELConfig
from xelvad.pipeline.training import train, train_seeds

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
    assert [run["run"] for run in metrics["runs"]] == ["mil", "mil+xel"]
    assert metrics["runs"][1]["auc"] == metrics["summary"][1]["mean"]["auc"] == evaluations[1].metrics.auc
    low, high = metrics["runs"][1]["auc_interval"]
    assert low <= metrics["runs"][1]["auc"] <= high
    result = evaluations[0].scores[1]
    scores = np.load(tmp_path / "mil" / result.name / "scores.npy")
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, result.scores)
    with (tmp_path / "mil" / result.name / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(len(scores)))
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], np.arange(len(scores)) / 25, atol=1e-4)
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-6)


def test_runs_of_one_name_would_overwrite_each_other_and_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="two runs of the same name"):
        evaluate_all([folder / "mil", folder / "mil"], read_manifest(folder / "labels.csv"), folder / "features")


def test_all_kept_weights_stand_side_by_side_and_the_best_on_test_is_the_best_of_the_training(folder: Path) -> None:
    evaluations = evaluate_all([folder / "mil"], read_manifest(folder / "labels.csv"), folder / "features")
    by_weights = {evaluation.weights: evaluation.metrics.auc for evaluation in evaluations}
    assert by_weights.keys() == {"last", "best_on_validation", "best_on_test"}
    history = json.loads((folder / "mil" / "metrics.json").read_text())["history"]["test_auc"]
    assert by_weights["best_on_test"] == pytest.approx(max(history), abs=1e-9)
    assert by_weights["last"] == pytest.approx(history[-1], abs=1e-9)


def test_seeds_are_summed_up_by_mean_and_standard_deviation(folder: Path, tmp_path: Path) -> None:
    dataset = read_manifest(folder / "labels.csv")
    config = TrainingConfig(iterations=10, batch=8, evaluations=2)
    train_seeds(dataset, folder / "features", tmp_path / "runs", config, seeds=3)
    evaluations = evaluate_all([tmp_path / "runs"], dataset, folder / "features")
    (row,) = [row for row in summarise(evaluations) if row.weights == "last"]
    aucs = [evaluation.metrics.auc for evaluation in evaluations if evaluation.weights == "last"]
    assert (row.run, row.seeds, len(aucs)) == ("runs", 3, 3)
    assert row.mean["auc"] == pytest.approx(np.mean(aucs))
    assert row.spread is not None
    assert row.spread["auc"] == pytest.approx(np.std(aucs, ddof=1))


def test_an_annotation_for_another_length_names_the_video_and_both_lengths(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    name, split, label, frames, spans = lines[2].split(",")
    lines[2] = f"{name},{split},{label},{int(frames) + 7},{spans}"
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"{name}: annotated for {int(frames) + 7} frames, but {frames} were decoded"):
        evaluate(load_run(folder / "mil"), read_manifest(tmp_path / "labels.csv"), folder / "features")
