"""Scoring and evaluation of a trained run, on synthetic features."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation.config import EvaluationConfig
from xelvad.pipeline.evaluation.evaluation import (
    Evaluation,
    compare,
    evaluate,
    evaluate_all,
    summarise,
    write_evaluations,
)
from xelvad.pipeline.evaluation.metrics import METRICS, category_metrics, rates_at
from xelvad.pipeline.evaluation.resampling import paired_difference
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.reports.tables import result_tables
from xelvad.pipeline.scoring.config import EventConfig
from xelvad.pipeline.scoring.events import event_metrics, find_events
from xelvad.pipeline.scoring.runs import Run, load_run
from xelvad.pipeline.scoring.scoring import score_features
from xelvad.pipeline.training.config import TrainingConfig, XELConfig
from xelvad.pipeline.training.train import train, train_seeds

from ..helpers.features import write_dataset, write_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 videos with a trained MIL and a trained MIL+XEL."""
    folder = tmp_path_factory.mktemp("evaluation")
    manifest, features = write_dataset(folder, videos=24)
    for name, xel in (("mil", XELConfig()), ("mil+xel", XELConfig(mode="epoch"))):
        train(read_manifest(manifest), features, folder / name, TrainingConfig(iterations=150, batch=8, xel=xel))
    return folder


def evaluated(folder: Path, run: str, **settings: object) -> Evaluation:
    dataset = read_manifest(folder / "labels.csv")
    return evaluate(load_run(folder / run), dataset, folder / "features", EvaluationConfig(**settings))


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
    for protocol in ("exact", "xel", "mil"):
        with pytest.raises(
            UserError, match=f"{name}: annotated for {int(frames) + 7} frames, but {frames} were decoded"
        ):
            evaluate(
                load_run(folder / "mil"),
                read_manifest(tmp_path / "labels.csv"),
                folder / "features",
                EvaluationConfig(protocol),
            )


def test_protocols_count_the_frames_that_they_name(folder: Path) -> None:
    exact, xel, mil = (evaluated(folder, "mil", protocol=name) for name in ("exact", "xel", "mil"))
    assert [each.protocol.name for each in (exact, xel, mil)] == ["exact", "xel", "mil"]
    for whole, cut, averaged in zip(exact.videos, xel.videos, mil.videos, strict=True):
        frames = len(whole.scores)
        assert len(cut.scores) == len(cut.truth) == 16 * (frames // 16)
        np.testing.assert_array_equal(cut.scores, whole.scores[: len(cut.scores)])
        np.testing.assert_array_equal(cut.truth, whole.truth[: len(cut.scores)])
        assert len(averaged.scores) == frames
        assert not np.array_equal(averaged.scores, whole.scores)
    for each in (exact, xel, mil):
        assert [len(result.scores) for result in each.scores] == [len(video.scores) for video in exact.videos], (
            "the page shows every frame"
        )


def test_both_thresholds_have_rates_and_events(folder: Path) -> None:
    settings = EventConfig(release=0.8, gap=20)
    evaluation = evaluated(folder, "mil", far_target=0.2, events=settings)
    assert evaluation.calibration is not None
    assert evaluation.calibration.target == 0.2
    thresholds = {"fixed": 0.5, "calibrated": evaluation.calibration.threshold}
    assert evaluation.operations.keys() == thresholds.keys()
    annotated = [video.spans for video in read_manifest(folder / "labels.csv").of("test")]
    for name, threshold in thresholds.items():
        found = [find_events(video.scores, threshold, settings) for video in evaluation.videos]
        assert evaluation.operations[name].rates == rates_at(evaluation.videos, threshold)
        assert evaluation.operations[name].events == event_metrics(found, annotated)
    assert evaluation.operations["fixed"].rates.far_normal == evaluation.metrics.far_normal
    assert evaluation.operations["fixed"] != evaluation.operations["calibrated"]


def test_annotated_events_end_where_frames_no_longer_count(folder: Path, tmp_path: Path) -> None:
    """The second half of one annotated event and the whole of another lie behind the last complete clip."""
    features = tmp_path / "features"
    lines = ["video,split,label,frames,anomalous_frames_half_open", "n.mp4,test,0,20,", "a.mp4,test,1,30,8-23 24-30"]
    for name, frames in (("n.mp4", 20), ("a.mp4", 30)):
        write_features(features, name, np.ones((2, 16), np.float32), frames)
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    dataset, run = read_manifest(tmp_path / "labels.csv"), load_run(folder / "mil")
    numbers = {
        name: evaluate(run, dataset, features, EvaluationConfig(name)).operations["fixed"].events.annotated
        for name in ("exact", "xel", "mil")
    }
    assert numbers == {"exact": 2, "xel": 1, "mil": 2}


def test_a_run_without_its_training_videos_says_why_it_has_no_calibrated_threshold(folder: Path) -> None:
    dataset = replace(read_manifest(folder / "labels.csv"), digest="of other labels")
    evaluation = evaluate(load_run(folder / "mil"), dataset, folder / "features")
    assert evaluation.calibration is None
    assert evaluation.operations.keys() == {"fixed"}
    *_, note = evaluation.notes
    assert note.startswith("no calibrated threshold: ")
    assert "other training videos, labels or features" in note


def test_videos_that_a_protocol_leaves_out_altogether_are_named(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "short.mp4,test,0,9,"]))
    features = tmp_path / "features"
    (features / "i3d-rgb").mkdir(parents=True)
    for path in (folder / "features" / "i3d-rgb").iterdir():
        (features / "i3d-rgb" / path.name).symlink_to(path)
    write_features(features, "short.mp4", np.ones((1, 16), np.float32), 9)
    dataset, run = read_manifest(tmp_path / "labels.csv"), load_run(folder / "mil")
    exact, xel = (evaluate(run, dataset, features, EvaluationConfig(name)) for name in ("exact", "xel"))
    assert not any("short" in note for note in exact.notes)
    assert "short.mp4 is shorter than a clip: protocol xel counts none of its frames" in xel.notes
    assert len(xel.videos[-1].scores) == 0
    assert any("short.mp4" in note for table in result_tables([xel]) for note in table.notes)


def test_categories_are_carried_into_the_evaluation(folder: Path) -> None:
    dataset = read_manifest(folder / "labels.csv")
    names = {video.name: "fight" if video.abnormal else None for video in dataset.videos}
    dataset = replace(dataset, videos=tuple(replace(video, category=names[video.name]) for video in dataset.videos))
    evaluation = evaluate(load_run(folder / "mil"), dataset, folder / "features")
    assert evaluation.categories == category_metrics(evaluation.videos)
    (fight,) = evaluation.categories
    assert fight.auc == pytest.approx(evaluation.metrics.auc_abnormal)
    assert evaluated(folder, "mil").categories == ()


@pytest.mark.parametrize("settings", [{"protocol": "papers"}, {"far_target": 0.0}, {"far_target": 1.0}])
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"known: exact, xel, mil|share of the frames, in \(0, 1\)"):
        EvaluationConfig(**settings)


def test_runs_are_compared_with_the_first_on_the_same_resamples(folder: Path, tmp_path: Path) -> None:
    first, second = evaluated(folder, "mil+xel"), evaluated(folder, "mil")
    (comparison,) = compare([first, second])
    assert (comparison.run, comparison.other, comparison.seed) == ("mil", "mil+xel", None)
    assert comparison.differences["ap"] == paired_difference(second.videos, first.videos, figure="ap")
    assert comparison.differences["auc"].value == pytest.approx(second.metrics.auc - first.metrics.auc)
    assert compare([first]) == []
    write_evaluations([first, second], tmp_path, [comparison])
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["comparisons"][0]["differences"]["ap"]["p_value"] == comparison.differences["ap"].p_value


@pytest.mark.parametrize(("kept", "defined"), [("1", {"auc", "ap", "tpr"}), ("0", {"far_normal"})])
def test_a_test_set_of_one_kind_of_videos_gives_what_it_defines(
    tmp_path: Path, kept: str, defined: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Guards against such a test set being refused: "metrics need both".
    path, features = write_dataset(tmp_path, videos=24)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["split"] == "train" or row["label"] == kept]
    with path.open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    dataset = read_manifest(path)
    for name, xel in (("one", XELConfig()), ("two", XELConfig(mode="epoch"))):
        config = TrainingConfig(iterations=20, batch=4, validation=0.3, xel=xel)
        train_seeds(dataset, features, tmp_path / name, config, 2)
    options = ["--manifest", str(path), "--features", str(features)]
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert main(["evaluate", "--run", *runs, *options, "--out", str(tmp_path / "out")]) == 0
    assert "–" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=pytest.fail)
    for run in written["runs"]:
        assert {name for name in METRICS if run[name] is not None} == defined
        assert run["calibration"]["threshold"] == run["thresholds"]["calibrated"]["rates"]["threshold"]
        assert (run["auc_interval"] is not None) == ("auc" in defined)
    for row in written["summary"]:
        assert {name for name, mean in row["mean"].items() if mean is not None} == defined
        assert {name for name, spread in row["spread"].items() if spread is not None} == defined
    assert {*written["comparisons"][0]["differences"]} == defined & {"auc", "ap"}
    page = (tmp_path / "out" / "report.html").read_text()
    (data,) = re.findall(r'id="report-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    shown = json.loads(data, parse_constant=pytest.fail)
    assert len(shown["roc"]) == (2 if "auc" in defined else 0)
    assert sum(cell.count("–") for cell in shown["tables"][0]["rows"][0]) == len(METRICS) - len(defined)

    assert main(["compare", *runs, *options, "--out", str(tmp_path / "compared")]) == 0
    drawn = {file.name for file in (tmp_path / "compared").glob("*.png") if not file.name.startswith("scores_")}
    assert drawn == ({"roc.png"} if "auc" in defined else set())
    for name in ("table.md", "table.tex"):
        lines = [
            line for line in (tmp_path / "compared" / name).read_text().splitlines() if line[:5] in ("| one", "one &")
        ]
        assert {line.count("–") for line in lines} == {len(METRICS) - len(defined)}


def test_metrics_json_names_protocol_thresholds_and_notes(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluated(folder, "mil", protocol="xel")
    write_evaluations([evaluation], tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text())
    (run,) = written["runs"]
    assert written["protocol"] == run["protocol"] == "xel"
    assert evaluation.calibration is not None
    assert run["calibration"]["threshold"] == run["thresholds"]["calibrated"]["rates"]["threshold"]
    assert run["thresholds"]["fixed"]["rates"]["far_all"] == evaluation.operations["fixed"].rates.far_all
    assert run["thresholds"]["fixed"]["events"]["recall"] == list(evaluation.operations["fixed"].events.recall)
    for figure in ("auc", "ap", "auc_abnormal"):
        low, high = run[f"{figure}_interval"]
        assert low <= run[figure] <= high
    assert run["notes"] == list(evaluation.notes)
    assert len(run["notes"]) == 2, "whether it learned anything, and on what its threshold was calibrated"
