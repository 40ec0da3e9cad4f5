"""Runs side by side: the figures, tables and tests that `xelvad compare` and `xelvad ablate` leave behind."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation.config import EvaluationConfig
from xelvad.pipeline.evaluation.evaluation import compare, evaluate_all, last_weights, summarise
from xelvad.pipeline.evaluation.metrics import ScoredVideo
from xelvad.pipeline.evaluation.resampling import paired_difference
from xelvad.pipeline.experiments.comparison import compare_runs, file_stems, most_telling
from xelvad.pipeline.reports import plots as figures
from xelvad.pipeline.reports.paper_tables import latex_table, markdown_table
from xelvad.pipeline.reports.tables import points

from ..helpers.evaluations import evaluation_of, make_up
from ..helpers.features import write_dataset

ABNORMAL = [f"video_{number:02}.mp4" for number in (1, 3, 5, 7)]  # of the 8 test videos


def options(folder: Path) -> list[str]:
    return ["--manifest", f"{folder}/labels.csv", "--features", f"{folder}/features"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 videos, two seeds of MIL, two of MIL+XEL, and a single run."""
    folder = tmp_path_factory.mktemp("comparison")
    write_dataset(folder, videos=24)
    quick = [*options(folder), "--batch", "8", "--evaluations", "2"]
    for name, more in {
        "mil": ["--seeds", "2"],
        "mil+xel": ["--seeds", "2", "--xel", "epoch"],
        "one_run": ["--seed", "1", "--learning-rate", "0.01"],
    }.items():
        assert main(["train", *quick, "--out", str(folder / name), "--iterations", "25", *more]) == 0
    return folder


def test_everything_is_written_and_says_what_the_evaluation_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [folder / name for name in ("mil", "mil+xel", "one_run")]
    assert main(["compare", *map(str, runs), *options(folder), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    evaluations = evaluate_all(runs, read_manifest(folder / "labels.csv"), folder / "features")
    rows = summarise(evaluations)
    assert (tmp_path / "table.md").read_text() == markdown_table(rows)
    assert (tmp_path / "table.tex").read_text() == latex_table(rows)
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert [(row["run"], row["weights"], row["mean"]["auc"]) for row in data["summary"]] == [
        (row.run, row.weights, row.mean["auc"]) for row in rows
    ]
    last = {evaluation.label: evaluation for evaluation in evaluations if evaluation.weights == "last"}
    pairs = [("mil+xel/seed-0", "mil/seed-0"), ("mil+xel/seed-1", "mil/seed-1"), ("one_run", "mil/seed-0")]
    assert data["protocol"] == "exact"
    assert [(each["run"], each["other"], each["seed"]) for each in data["comparisons"]] == [
        ("mil+xel", "mil", 0), ("mil+xel", "mil", 1), ("one_run", "mil", None),
    ]  # fmt: skip
    for (one, other), each in zip(pairs, data["comparisons"], strict=True):
        assert each["differences"].keys() == {"auc", "ap", "auc_abnormal"}
        for figure, found in each["differences"].items():
            assert found == asdict(paired_difference(last[one].videos, last[other].videos, figure=figure))
        found = each["differences"]["auc"]
        assert found["value"] == pytest.approx(last[one].metrics.auc - last[other].metrics.auc)
        assert f"{points(found['value'])} ({points(found['low'], 1)} to {points(found['high'], 1)})" in printed
    stems = ["far_tpr", "roc", *data["videos_shown"].values()]
    files = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == files | {"table.md", "table.tex", "comparison.json"}
    assert set(data["videos_shown"]) == set(ABNORMAL)
    assert "furthest apart" in data["chosen"]


def test_named_videos_are_shown_once_each_and_in_that_order(folder: Path, tmp_path: Path) -> None:
    names = ["video_06.mp4", "video_01.mp4", "video_06.mp4"]
    command = ["compare", str(folder / "one_run"), *options(folder), "--out", str(tmp_path), "--videos-shown", *names]
    assert main(command) == 0
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert data["videos_shown"] == {"video_06.mp4": "scores_video_06", "video_01.mp4": "scores_video_01"}
    assert data["comparisons"] == []
    assert "video_06.mp4" in (tmp_path / "scores_video_06.svg").read_text()


def test_the_protocol_may_be_chosen_and_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(folder / "one_run"), *options(folder), "--out", str(tmp_path), "--protocol", "mil"]
    assert main(command) == 0
    assert "Frames, protocol mil" in capsys.readouterr().out
    data = json.loads((tmp_path / "comparison.json").read_text())
    dataset = read_manifest(folder / "labels.csv")
    expected = evaluate_all([folder / "one_run"], dataset, folder / "features", EvaluationConfig("mil"))
    assert data["protocol"] == "mil"
    assert [row["mean"]["auc"] for row in data["summary"]] == [each.metrics.auc for each in expected]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--videos-shown", "nobody.mp4"], "has no test video 'nobody.mp4'; it has video_00.mp4"),
        (["--videos-shown", "video_20.mp4"], "has no test video 'video_20.mp4'"),  # a training video
    ],
)
def test_wrong_requests(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(["compare", str(folder / "mil"), *options(folder), "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_nothing_is_evaluated_in_vain(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    monkeypatch.setattr("xelvad.pipeline.experiments.comparison.evaluate_all", lambda *_: pytest.fail("evaluated"))
    assert main(["compare", str(folder / "mil"), *options(folder), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        'xelvad: figures need matplotlib, which is not installed: pip install "xelvad[figures]"\n'
    )


def test_an_ablation_has_its_figure_and_without_matplotlib_a_note(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ["--detectors", "mil", "--seeds", "1", "--iterations", "2", "--validation", "0", "--modes", "epoch"]
    command = ["ablate", *options(folder), "--out", str(tmp_path), *quick]
    with monkeypatch.context() as patch:
        patch.setattr(figures, "find_spec", lambda name: None)
        assert main(command) == 0
    assert 'note: for a figure, pip install "xelvad[figures]"' in capsys.readouterr().out
    assert not list(tmp_path.glob("*.png"))
    assert main(command) == 0
    assert f"figure: {tmp_path}/ablation.png" in capsys.readouterr().out
    assert "Gain (points)" in (tmp_path / "ablation.svg").read_text()


def test_runs_are_those_of_the_last_weights() -> None:
    evaluations = [make_up("a", 1), make_up("a", 2), make_up("a", 1, weights="best_on_test"), make_up("b")]
    assert {name: [each.seed for each in seeds] for name, seeds in last_weights(evaluations).items()} == {
        "a": [1, 2], "b": [None],
    }  # fmt: skip


def test_only_common_seeds_are_compared() -> None:
    runs = {"a": [make_up("a", seed) for seed in (0, 1, 2)], "b": [make_up("b", seed, 2.0) for seed in (2, 1, 7)]}
    comparisons = compare([*runs["a"], make_up("b", 0, weights="best_on_test"), *runs["b"]])
    assert [(each.run, each.other, each.seed) for each in comparisons] == [("b", "a", 2), ("b", "a", 1)]
    expected = runs["b"][1].metrics.auc - runs["a"][1].metrics.auc
    assert comparisons[1].differences["auc"].value == pytest.approx(expected)


def test_the_first_trainings_are_compared_where_no_seed_is_common() -> None:
    (comparison,) = compare([make_up("a", 0), make_up("a", 1), make_up("b", 5), make_up("b", 6)])
    assert comparison.seed is None
    expected = make_up("b", 5).metrics.auc - make_up("a", 0).metrics.auc
    assert comparison.differences["auc"].value == pytest.approx(expected)


def test_a_run_against_one_with_equal_scores_differs_by_nothing() -> None:
    same = make_up("a")
    (comparison,) = compare([same, evaluation_of("b", None, same.videos)])
    for found in comparison.differences.values():
        assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_the_most_telling_videos_are_those_where_the_runs_lie_furthest_apart() -> None:
    runs = {"a": [make_up("a", seed) for seed in range(2)], "b": [make_up("b", None, 2.5)]}
    gaps = {}
    for number, video in enumerate(runs["a"][0].videos):
        if video.abnormal:
            aucs = [
                np.mean([roc_auc_score(each.videos[number].truth, each.videos[number].scores) for each in seeds])
                for seeds in runs.values()
            ]
            gaps[video.name] = max(aucs) - min(aucs)
    assert most_telling(runs, count=3) == sorted(gaps, key=lambda name: -gaps[name])[:3]


def test_of_a_single_run_the_worst_videos_are_shown_and_none_without_both_kinds_of_frames() -> None:
    truth = np.array([False, True, True, False])

    def video(name: str, scores: list[float], truth: np.ndarray) -> ScoredVideo:
        return ScoredVideo(name, True, np.array(scores, np.float32), truth)

    videos = [
        video("good", [0.1, 0.9, 0.8, 0.2], truth),
        video("bad", [0.9, 0.1, 0.2, 0.8], truth),
        video("even", [0.5, 0.5, 0.5, 0.5], truth),
        video("all anomalous", [0.5, 0.5, 0.5, 0.5], np.ones(4, bool)),
        ScoredVideo("normal", False, np.zeros(4, np.float32), np.zeros(4, bool)),
    ]
    assert most_telling({"a": [evaluation_of("a", None, videos)]}) == ["bad", "even", "good"]


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.mp4", "b/c d.avi"], ["a", "b_c_d"]),
        (["a.mp4", "a.avi", "a"], ["a", "a-2", "a-3"]),
        (["a-2.mp4", "a.mp4", "a.avi"], ["a-2", "a", "a-3"]),
        (["01_0014", "Überfall (1).mp4"], ["01_0014", "Überfall_1_"]),
    ],
)
def test_file_names_of_videos_are_plain_and_differ(names: list[str], stems: list[str]) -> None:
    assert file_stems(names) == stems


def test_two_runs_of_one_name_are_refused_as_in_an_evaluation(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two runs of the same name"):
        compare_runs([folder / "mil"] * 2, read_manifest(folder / "labels.csv"), folder / "features", tmp_path / "out")
