"""The leaderboard: its statistics are the published ones, its figures those of the runs, and nothing is done twice."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.experiments.leaderboard import board as boards
from xelvad.pipeline.experiments.leaderboard.board import entries_of
from xelvad.pipeline.experiments.leaderboard.page import across_table, ranks_of, standings_table, tables_of, xel_table
from xelvad.pipeline.experiments.leaderboard.records import Board, Entry, Standing, Trial, read_board
from xelvad.pipeline.experiments.leaderboard.statistics import Ranks, holm, indistinguishable, paired_test, rank
from xelvad.pipeline.scoring.runs import load_run
from xelvad.pipeline.training import train as training_module
from xelvad.pipeline.training.recipes import load_recipe

from ..helpers.features import write_dataset

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_paired_test_of_one_split_is_students() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, size=9)
    expected = stats.ttest_1samp(differences, 0)
    found = paired_test(differences.tolist())
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_folds_that_share_videos_widen_the_interval_by_nadeau_and_bengios_factor() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1, size=20).tolist()
    plain, corrected = paired_test(differences), paired_test(differences, 1 / 3)
    assert plain.high is not None
    assert corrected.high is not None
    factor = math.sqrt((1 / 20 + 1 / 3) / (1 / 20))
    assert corrected.high - corrected.mean == pytest.approx(factor * (plain.high - plain.mean))
    t = np.mean(differences) / math.sqrt((1 / 20 + 1 / 3) * np.var(differences, ddof=1))
    assert corrected.p_value == pytest.approx(2 * stats.t.sf(abs(t), 19))


def test_a_corrected_test_of_folds_errs_as_rarely_as_it_says() -> None:
    """Two equal methods over five repeats of four folds that share their videos: the plain test errs far too often."""
    rng, wrong = np.random.default_rng(0), np.zeros(2)
    for _ in range(400):
        videos = rng.normal(size=60)  # how much better one method is on each video: nothing in the mean
        differences = []
        for _ in range(5):
            folds = rng.permutation(60).reshape(4, 15)
            differences += [videos[fold].mean() + rng.normal(0, 0.1) for fold in folds]
        tests = [paired_test(differences, share) for share in (0.0, 1 / 3)]
        wrong += [test.p_value is not None and test.p_value < 0.05 for test in tests]
    assert wrong[0] / 400 > 0.2
    assert wrong[1] / 400 < 0.15


@pytest.mark.parametrize(("differences", "p_value"), [([0.0, 0.0], 1.0), ([0.5, 0.5], 0.0), ([0.3], None)])
def test_differences_without_spread_and_a_single_one(differences: list[float], p_value: float | None) -> None:
    found = paired_test(differences)
    assert (found.mean, found.p_value) == (differences[0], p_value)


def test_holms_correction_is_his_procedure() -> None:
    """Step by step: the smallest is compared with 5 % / m, the next with 5 % / (m - 1), until one is not rejected."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = rng.uniform(0, 0.06, size=6)
        rejected = np.zeros(6, bool)
        for step, place in enumerate(np.argsort(p_values)):
            if p_values[place] > 0.05 / (6 - step):
                break
            rejected[place] = True
        assert ([value <= 0.05 for value in holm(p_values.tolist())] == rejected).all()
    assert holm([0.01, 0.5]) == [0.02, 0.5]
    assert holm([]) == []


def test_ranks_and_their_tests_are_demsars() -> None:
    values = np.random.default_rng(0).normal(size=(4, 14))
    found = rank({str(number): row.tolist() for number, row in enumerate(values)})
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)  # his example of 4 classifiers, 14 data sets
    mean = {str(number): (-values).argsort(axis=0).argsort(axis=0)[number].mean() + 1 for number in range(4)}
    assert dict(zip(found.names, found.ranks, strict=True)) == pytest.approx(mean)
    assert list(found.ranks) == sorted(found.ranks)
    chi_square = stats.friedmanchisquare(*values).statistic
    statistic = 13 * chi_square / (14 * 3 - chi_square)  # Iman and Davenport
    assert found.p_value == pytest.approx(stats.f.sf(statistic, 3, 39))


def test_equals_share_their_ranks_and_one_that_always_wins_is_sure() -> None:
    assert rank({"a": [1.0, 1.0], "b": [1.0, 1.0]}).ranks == (1.5, 1.5)
    assert rank({"a": [2.0] * 9, "b": [1.0] * 9}).p_value == 0.0


def test_groups_that_cannot_be_told_apart_are_the_longest_runs() -> None:
    ranks = Ranks(tuple("abcde"), (1.0, 1.8, 3.0, 3.5, 5.0), 9, 0.0, 1.5)
    assert indistinguishable(ranks) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert indistinguishable(replace(ranks, critical_difference=0.4)) == []
    assert indistinguishable(replace(ranks, critical_difference=9.0)) == [(0, 4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two data sets of the same features: one with three folds, one with a split."""
    folders = {}
    for seed, name in enumerate(("folds", "split")):
        folders[name] = tmp_path_factory.mktemp(name)
        manifest, _ = write_dataset(folders[name], 12, seed)
        if name == "folds":
            head, *lines = manifest.read_text().splitlines()
            cells = [line.split(",") for line in lines]
            rows = [",".join([video, f"f{number // 2 % 3}", *rest]) for number, (video, _, *rest) in enumerate(cells)]
            manifest.write_text("\n".join([head.replace("split", "fold"), *rows]) + "\n")
    return folders


def run(folder: Path, out: Path, *options: str) -> int:
    where = ["--manifest", str(folder / "labels.csv"), "--features", str(folder / "features"), "--out", str(out)]
    return main(["leaderboard", *where, "--seeds", "2", "--iterations", "4", "--workers", "1", *options])


@pytest.fixture(scope="module")
def finished(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A leaderboard of MIL and the SVM on each."""
    out = tmp_path_factory.mktemp("boards")
    for name, folder in data.items():
        assert run(folder, out / name, "--detectors", "mil", "svm") == 0
    return {name: out / name for name in data}


def test_every_figure_is_that_of_its_run(data: dict[str, Path], finished: dict[str, Path]) -> None:
    board = read_board(finished["folds"])
    assert [standing.entry.title for standing in board.standings] == sorted(
        ("MIL", "MIL+XEL", "SVM"),
        key=lambda title: -next(s.mean("auc") or 0 for s in board.standings if s.entry.title == title),
    )
    for standing in board.standings:
        assert {(trial.seed, trial.fold) for trial in standing.trials} == {
            (s, f"f{f}") for s in (0, 1) for f in range(3)
        }
        trial = standing.trials[3]
        folder = finished["folds"] / "runs" / standing.entry.folder / trial.fold / f"seed-{trial.seed}"
        found = evaluate(
            load_run(folder), read_manifest(data["folds"] / "labels.csv", trial.fold), data["folds"] / "features"
        )
        assert (trial.auc, trial.auc_abnormal, trial.ap) == (
            found.metrics.auc,
            found.metrics.auc_abnormal,
            found.metrics.ap,
        )
        rates = found.operations["calibrated"].rates
        assert (trial.far, trial.tpr) == (rates.far_normal, rates.tpr)
        assert (trial.far_fixed, trial.tpr_fixed) == (found.metrics.far_normal, found.metrics.tpr)
        assert trial.seconds is not None
        assert standing.parameters == sum(weight.numel() for weight in load_run(folder).detector.parameters())
    assert board.test_share == pytest.approx(0.5)


def test_false_alarms_an_hour_are_events_of_normal_videos() -> None:
    class Scored:
        def __init__(self, scores: list[float], fps: float) -> None:
            self.scores, self.times = np.array(scores, np.float32), np.arange(len(scores)) / fps

    videos = [Scored([0, 1, 1, 0, 1], 1.0), Scored([0] * 10, 2.0)]  # two events in ten seconds
    assert boards.alarms_per_hour(videos, 0.5) == pytest.approx(720)  # type: ignore[arg-type]
    assert boards.alarms_per_hour([], 0.5) is None


def test_what_is_finished_is_neither_trained_nor_scored_again_and_seeds_may_join(
    data: dict[str, Path],
    finished: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (finished["folds"] / "results.json").read_text()
    trained: list[str] = []
    measured: list[str] = []
    train, scored = training_module.train, boards._trial

    def noted(dataset: Any, features: Path, folder: Path, *more: Any, **options: Any) -> object:
        trained.append(folder.name)
        return train(dataset, features, folder, *more, **options)

    def counted(*task: Any) -> Trial:
        measured.append(task[3])
        return scored(*task)

    monkeypatch.setattr(training_module, "train", noted)
    monkeypatch.setattr(boards, "_trial", counted)
    assert run(data["folds"], finished["folds"], "--detectors", "mil", "svm", "--seeds", "3") == 0
    assert sorted(set(trained)) == ["seed-2"]
    assert len(measured) == 9  # three entries, three folds, the new seed alone
    trained.clear()
    measured.clear()
    assert run(data["folds"], finished["folds"], "--detectors", "mil", "svm") == 0
    assert not trained
    assert not measured
    again = (finished["folds"] / "results.json").read_text()
    drop_speed = [line for line in again.splitlines() if "clips_per_second" not in line]
    assert drop_speed == [line for line in before.splitlines() if "clips_per_second" not in line]


def aucs_of(out: Path, xel: bool) -> NDArray[np.float64]:
    """What the file says of MIL, ``(seeds, folds)``."""
    with (out / "leaderboard.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["detector"], row["xel"]) == ("mil", str(xel))]
    return np.array([float(row["auc"]) for row in rows]).reshape(2, -1)


def test_figures_of_a_recipe_that_has_changed_since_are_not_taken_for_those_of_the_new_one(
    data: dict[str, Path],
    finished: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = replace(load_recipe("general/mil"), learning_rate=0.5)
    monkeypatch.setattr(boards, "load_recipe", lambda name: recipe)
    assert run(data["folds"], finished["folds"], "--detectors", "mil") == 2
    assert "learning_rate" in capsys.readouterr().err


def test_the_best_weights_by_validation_videos_are_measured_on_request(data: dict[str, Path], tmp_path: Path) -> None:
    options = ["--weights", "best_on_validation", "--validation", "0.3", "--detectors", "mil", "svm"]
    assert run(data["split"], tmp_path / "board", *options) == 0
    board = read_board(tmp_path / "board")
    (mil,) = [standing for standing in board.standings if standing.entry == Entry("mil", False)]
    best = load_run(tmp_path / "board" / "runs" / "mil" / "seed-1", "best_on_validation")
    found = evaluate(best, read_manifest(data["split"] / "labels.csv"), data["split"] / "features")
    assert mil.trials[1].auc == found.metrics.auc


def test_the_tables_say_what_the_runs_say(finished: dict[str, Path]) -> None:
    board = read_board(finished["folds"])
    aucs = {xel: aucs_of(finished["folds"], xel) for xel in (False, True)}  # (seeds, folds)
    by_name = {row[1].partition(" (")[0]: row for row in standings_table(board).rows}
    for name, xel in (("MIL", False), ("MIL+XEL", True)):
        seeds = 100 * aucs[xel].mean(axis=1)
        assert by_name[name][2] == f"{seeds.mean():.2f} ± {seeds.std(ddof=1):.2f}"
    (change,) = xel_table(board).rows
    assert change[0] == "MIL"
    assert change[1].startswith(f"{100 * (aucs[True] - aucs[False]).mean():+.2f} (".replace("-", "−"))
    assert "| MIL+XEL" in (finished["folds"] / "leaderboard.md").read_text()


def test_across_two_data_sets(
    data: dict[str, Path], finished: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--detectors", "mil", "svm", "--beside", str(finished["folds"]), "--across"]
    assert run(data["split"], finished["split"], *options) == 0
    printed = capsys.readouterr().out
    assert "Across: trained on" in printed
    assert "Ranks over 2 data sets" in printed
    with (finished["split"] / "leaderboard.csv").open(newline="") as file:
        (row,) = [
            row for row in csv.DictReader(file) if (row["detector"], row["xel"], row["seed"]) == ("mil", "True", "1")
        ]
    there = next(name for name in row if name.startswith("auc on "))
    detector = load_run(finished["split"] / "runs" / "mil+xel" / "seed-1")
    aucs = [
        evaluate(
            detector, read_manifest(data["folds"] / "labels.csv", f"f{fold}"), data["folds"] / "features"
        ).metrics.auc
        for fold in range(3)
    ]
    assert float(row[there]) == pytest.approx(np.mean([auc for auc in aucs if auc is not None]))
    for name in ("speed.png", "speed.svg", "ranks.png", "ranks.svg"):
        assert (finished["split"] / name).stat().st_size > 1000
    assert "MIL+XEL" in (finished["split"] / "ranks.svg").read_text()


def trial(seed: int, fold: str, auc: float, **more: object) -> Trial:
    figures = dict.fromkeys(("auc_abnormal", "ap", "far_fixed", "tpr_fixed", "far", "tpr", "alarms_per_hour"), 0.5)
    return replace(Trial(seed, fold, auc, **figures, learned="learned", seconds=1.0), **more)  # type: ignore[arg-type]


def board_of(name: str, aucs: dict[tuple[str, bool], float], **more: object) -> Board:
    standings = tuple(
        Standing(detector, xel, 10, 100.0, (trial(0, "a", auc, **more), trial(0, "b", auc, **more)))
        for (detector, xel), auc in aucs.items()
    )
    choice = boards.DatasetChoice(manifest=Path("labels.csv"))
    return Board(name, choice, Path("features"), "i3d-rgb", "", ("a", "b"), 0.5, "last", standings)


def test_a_drop_is_against_what_was_trained_there() -> None:
    one = board_of("one", {("mil", False): 0.9, ("svm", False): 0.7}, across={"two": 0.6})
    two = board_of("two", {("mil", False): 0.8})
    mil, svm = across_table(one, two).rows
    assert mil == ("MIL", "90.00", "60.00", "80.00", "−20.00")
    assert svm[-2:] == ("–", "–")


def test_ranks_are_of_the_entries_that_all_have() -> None:
    one = board_of("one", {("mil", False): 0.9, ("srf", False): 0.8, ("svm", False): 0.7})
    two = board_of("two", {("srf", False): 0.9, ("mil", False): 0.8})
    ranks = ranks_of([one, two])
    assert ranks is not None
    assert set(ranks.names) == {"MIL", "SRF"}
    assert ranks.ranks == (1.5, 1.5)
    assert ranks_of([one]) is None
    assert [table.title for table in tables_of(one)] == ["Leaderboard on one"]


def test_a_training_that_learned_nothing_is_marked() -> None:
    board = board_of("one", {("mil", False): 0.5}, learned="nothing")
    assert standings_table(board).rows[0][1] == "MIL (2 of 2 learned nothing)"


def test_figures_that_a_data_set_does_not_define_are_left_out() -> None:
    board = board_of("one", {("mil", False): 0.5, ("mil", True): 0.6}, far=None, alarms_per_hour=None)
    assert "–" in standings_table(board).rows[0]
    assert xel_table(board).rows[0][1:5] == (
        "+10.00 (+10.00 to +10.00)",
        "+0.00 (+0.00 to +0.00)",
        "+0.00 (+0.00 to +0.00)",
        "–",
    )


def test_every_detector_takes_part_with_xel_where_it_can() -> None:
    entries = entries_of([])
    assert Entry("mil", True) in entries
    assert Entry("svm", False) in entries
    assert Entry("svm", True) not in entries


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detectors", "mli"], "there is no detector 'mli'"),
        (["--detectors", "conv-ae"], "conv-ae learns from frames"),
        (["--seeds", "0"], "seeds must be positive"),
        (["--across"], "--across needs another data set"),
        (["--beside", "nowhere"], "holds no finished leaderboard"),
        (["--validation", "0", "--weights", "best_on_validation"], "needs videos to choose by"),
        (["--extractor", "c3d"], "c3d"),
    ],
)
def test_wrong_requests_are_one_line(
    data: dict[str, Path], tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data["split"], tmp_path / "out", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_leaderboard_is_refused(
    data: dict[str, Path], finished: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data["split"], finished["folds"], "--detectors", "mil") == 2
    assert "labels" in capsys.readouterr().err


def test_a_damaged_leaderboard_beside_is_one_line(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text('{"dataset": 3}')
    assert run(data["split"], tmp_path / "out", "--beside", str(tmp_path)) == 2
    assert "results.json: damaged" in capsys.readouterr().err


def test_data_sets_of_other_features_cannot_be_exchanged() -> None:
    one = board_of("one", {("mil", False): 0.9})
    with pytest.raises(UserError, match="needs the same"):
        boards.travel(one, Path(), replace(one, dataset="two", extractor="c3d"), 1)
