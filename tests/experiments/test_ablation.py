"""The ablation: the grid is XEL's, nothing is trained twice, and the table says what the runs' figures say."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.models import MIL, Bags, DetectorLoss
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import DatasetChoice, read_manifest
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.evaluation.metrics import FrameMetrics, frame_metrics
from xelvad.pipeline.experiments.ablation.ablate import (
    Ablation,
    Configuration,
    Outcome,
    Result,
    Variant,
    ablate,
    cross_validate,
    grid,
)
from xelvad.pipeline.experiments.ablation.config import AblationConfig
from xelvad.pipeline.experiments.ablation.page import command, result_table, summarise, write_ablation
from xelvad.pipeline.experiments.trainings import folds_of
from xelvad.pipeline.scoring.runs import load_run
from xelvad.pipeline.training import train as training
from xelvad.pipeline.training.config import TrainingConfig, XELConfig
from xelvad.pipeline.training.recipes import load_recipe, recipe_names

from ..helpers.features import write_dataset

METRICS = ("auc", "ap", "auc_abnormal", "far_normal", "tpr")
ITERATIONS = 3
QUICK = AblationConfig(detectors=("mil",), seeds=1, iterations=2, validation=0.0)
VARIANTS = ["off", "L_v-epoch", "L_m-epoch", "both-epoch", "L_v-batch", "L_m-batch", "both-batch"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a split, and the same with three folds."""
    folder = tmp_path_factory.mktemp("data")
    manifest, _ = write_dataset(folder)
    head, *lines = manifest.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    folds = [",".join([name, f"fold{index // 2 % 3}", *rest]) for index, (name, _, *rest) in enumerate(cells)]
    (folder / "folds.csv").write_text("\n".join([head.replace("split", "fold"), *folds]) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ablation of MIL, by the command line."""
    out = tmp_path_factory.mktemp("finished") / "ablation"
    assert run(data, out) == 0
    return out


def run(data: Path, out: Path, *options: str, manifest: str = "labels.csv") -> int:
    where = ["--manifest", str(data / manifest), "--features", str(data / "features"), "--out", str(out)]
    quick = ["--detectors", "mil", "--seeds", "2", "--iterations", str(ITERATIONS), "--validation", "0"]
    return main(["ablate", *where, *quick, *options])


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "ablation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def body_of(out: Path) -> list[list[str]]:
    """The cells of the Markdown table."""
    lines = [line for line in (out / "ablation.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every step of a training."""
    counted: list[int] = []
    loss = MIL.loss

    def counting(self: MIL, bags: Bags) -> DetectorLoss:
        counted.append(len(counted))
        return loss(self, bags)

    monkeypatch.setattr(MIL, "loss", counting)
    return counted


def test_every_variant_has_the_recipes_settings_and_its_own_xel() -> None:
    cells = grid(AblationConfig(detectors=("srf", "ar-net"), recipes="ucf-crime"))
    assert [(cell.detector, cell.variant.folder) for cell in cells] == [
        (detector, folder) for detector in ("srf", "ar-net") for folder in VARIANTS
    ]
    by_name = {(cell.detector, cell.variant.folder): cell.training for cell in cells}
    for detector, step in (("srf", 0.15), ("ar-net", None)):
        plain, full = load_recipe(f"ucf-crime/{detector}"), load_recipe(f"ucf-crime/{detector}+xel")
        assert by_name[detector, "off"] == plain
        assert by_name[detector, "both-epoch"] == full
        assert full.xel.margin_step == step
        for mode in ("epoch", "batch"):
            xel = replace(full.xel, mode=mode)
            assert by_name[detector, f"both-{mode}"] == replace(plain, xel=xel)
            assert by_name[detector, f"L_v-{mode}"] == replace(plain, xel=replace(xel, margin_weight=0.0))
            assert by_name[detector, f"L_m-{mode}"] == replace(plain, xel=replace(xel, validation_weight=0.0))


def test_recipes_with_and_without_xel_differ_in_nothing_else() -> None:
    """Else the ablation, which takes XEL's settings from one and all others from the other, would be of neither."""
    names = [name for name in recipe_names() if name.endswith("+xel")]
    assert names
    for name in names:
        plain = load_recipe(name.removesuffix("+xel"))
        assert replace(load_recipe(name), xel=plain.xel) == plain


def test_modes_and_overrides() -> None:
    config = AblationConfig(detectors=("mil", "mil"), modes=("batch",), iterations=7, extractor="c3d", validation=0.2)
    cells = grid(config)
    assert [cell.variant.folder for cell in cells] == ["off", "L_v-batch", "L_m-batch", "both-batch"]
    settings = {(cell.training.iterations, cell.training.extractor, cell.training.validation) for cell in cells}
    assert settings == {(7, "c3d", 0.2)}
    assert cells[0].training.learning_rate == load_recipe("general/mil").learning_rate


def test_each_configuration_is_trained_once_for_each_seed(data: Path, finished: Path) -> None:
    runs = sorted(path.parent.relative_to(finished / "runs").as_posix() for path in finished.rglob("manifest.json"))
    assert runs == sorted(f"mil/{variant}/seed-{seed}" for variant in VARIANTS for seed in (0, 1))
    rows = rows_of(finished)
    names = ["off-off", *VARIANTS[1:]]
    assert [f"{row['detector']}/{row['variant']}-{row['mode']}/{row['seed']}" for row in rows] == [
        f"mil/{name}/{seed}" for name in names for seed in (0, 1)
    ]
    dataset = read_manifest(data / "labels.csv")
    for row, name in zip(rows[::2], VARIANTS, strict=True):
        metrics = evaluate(load_run(finished / "runs" / "mil" / name / "seed-0"), dataset, data / "features").metrics
        assert {key: float(row[key]) for key in vars(metrics)} == vars(metrics)


def test_the_table_is_numpys_mean_and_deviation_of_the_plain_numbers(finished: Path) -> None:
    rows, body = rows_of(finished), body_of(finished)
    assert len(body) == len(VARIANTS)
    off = np.array([float(row["auc"]) for row in rows[:2]])
    for number, cells in enumerate(body):
        seeds = rows[2 * number : 2 * number + 2]
        values = {name: 100 * np.array([float(row[name]) for row in seeds]) for name in METRICS}
        expected = [f"{each.mean():.2f} ± {each.std(ddof=1):.2f}" for each in values.values()]
        gain = values["auc"] - 100 * off
        expected.append(f"{gain.mean():+.2f} ± {gain.std(ddof=1):.2f}".replace("-", "−") if number else "")
        assert cells[3:] == expected


def outcome(seed: int, auc: float, **folds: float) -> Outcome:
    return Outcome(seed, FrameMetrics(auc, 0.5, 0.5, 0.1, 0.5, 4, 100), folds)


def test_gains_are_paired_by_seed_whatever_the_order() -> None:
    off = Configuration("srf", Variant("off", "off"), TrainingConfig())
    both = Configuration("srf", Variant("both", "epoch"), TrainingConfig())
    rows = summarise(
        [
            Result(off, (outcome(0, 0.5), outcome(1, 0.7), outcome(2, 0.9))),
            Result(both, (outcome(2, 0.92), outcome(0, 0.51), outcome(1, 0.73))),
        ]
    )
    assert rows[0].gain is None
    assert rows[1].gain == (pytest.approx(0.02), pytest.approx(0.01))  # the AUCs themselves spread by 0.2
    single = (Result(off, (outcome(0, 0.5),)), Result(both, (outcome(0, 0.4),)))
    assert summarise(single)[1].gain == (pytest.approx(-0.1), None)
    ablation = Ablation(DatasetChoice(manifest=Path()), Path(), Path(), "street", AblationConfig(), single, ())
    assert result_table(ablation).rows[1][-1] == "−10.00"


def test_a_second_run_trains_nothing(
    data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", lambda *_, **__: pytest.fail("trains again"))
        for state in finished.rglob("state.pt"):
            state.unlink()  # a run is finished without its checkpoint, too
        assert run(data, finished) == 0
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert after == {path: content for path, content in before.items() if path.name != "state.pt"}
    printed = capsys.readouterr()
    assert "configuration 7 of 7: MIL, both, batch" in printed.err
    for cells in body_of(finished):
        assert re.search(r"\s*│\s*".join(map(re.escape, cells)), printed.out)


def test_an_interrupted_one_goes_on_within_a_training(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    options, counted = ("--seeds", "1", "--modes", "batch"), MIL.loss

    def interrupted(self: MIL, bags: Bags) -> DetectorLoss:
        if len(steps) == 2 * ITERATIONS + 2:  # in the third training
            raise KeyboardInterrupt
        return counted(self, bags)

    with monkeypatch.context() as patch:
        patch.setattr("xelvad.pipeline.training.checkpoints.SECONDS", -1)  # after every step
        patch.setattr(MIL, "loss", interrupted)
        assert run(data, tmp_path, *options) == 130
    assert not (tmp_path / "ablation.csv").exists()
    assert run(data, tmp_path, *options) == 0
    assert len(steps) == 4 * ITERATIONS
    assert rows_of(tmp_path) == [
        row for row in rows_of(finished) if row["seed"] == "0" and row["mode"] in ("off", "batch")
    ]


def test_seeds_may_join(data: Path, finished: Path, tmp_path: Path, steps: list[int]) -> None:
    shutil.copytree(finished, tmp_path / "out")
    for variant in ("off", "both-epoch"):
        shutil.rmtree(tmp_path / "out" / "runs" / "mil" / variant / "seed-1")
    assert run(data, tmp_path / "out", "--modes", "epoch", "--seeds", "1") == 0
    assert "gain and chance cannot be told apart" in (tmp_path / "out" / "ablation.md").read_text()
    assert not any("±" in cell for cells in body_of(tmp_path / "out") for cell in cells)
    assert not steps
    assert run(data, tmp_path / "out", "--modes", "epoch") == 0
    assert len(steps) == 2 * ITERATIONS
    assert body_of(tmp_path / "out") == body_of(finished)[:4]


def test_the_page_has_figure_and_table_and_needs_no_network(finished: Path) -> None:
    page = (finished / "ablation.html").read_text("utf-8")
    loads = re.findall(r"<(?:link|script|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]*)\"", page)
    assert loads == ["data:,"]  # the icon
    assert "{{" not in page.split("<script>")[0]
    assert "default-src 'none'" in page
    assert "Plotly.react(" in page
    data = json.loads(re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)[1])
    assert data["body"] == body_of(finished)
    rows = rows_of(finished)
    assert len(data["points"]) == len(VARIANTS)
    for number, point in enumerate(data["points"]):
        seeds = rows[2 * number : 2 * number + 2]
        assert (point["detector"], point["terms"], point["mode"]) == ("MIL", seeds[0]["variant"], seeds[0]["mode"])
        assert point["seeds"] == [0, 1]
        assert point["auc"] == pytest.approx([100 * float(row["auc"]) for row in seeds])
        assert point["far"] == pytest.approx([100 * float(row["far_normal"]) for row in seeds])
        assert point["means"] == {key: pytest.approx(np.mean(point[key])) for key in ("auc", "far")}
    assert any("last iteration" in note for note in data["notes"])


def test_the_command_on_the_page_makes_the_same_ablation(data: Path, finished: Path) -> None:
    written = (finished / "ablation.md").read_text()
    assert f"--manifest {data / 'labels.csv'}" in written
    assert "--detectors mil --seeds 2 --iterations 3 --validation 0.0`" in written


def test_all_folds_are_tested_once_and_their_frames_pooled(data: Path, tmp_path: Path, steps: list[int]) -> None:
    config = TrainingConfig(iterations=2, batch=4, seed=5, validation=0.0, xel=XELConfig(mode="batch"))
    outcomes = cross_validate(data / "folds.csv", data / "features", tmp_path, config, seeds=2)
    assert [each.seed for each in outcomes] == [5, 6]
    assert len(steps) == 2 * 3 * 2
    folds = ("fold0", "fold1", "fold2")
    for each in outcomes:
        evaluations = [
            evaluate(
                load_run(tmp_path / fold / f"seed-{each.seed}"),
                read_manifest(data / "folds.csv", fold),
                data / "features",
            )
            for fold in folds
        ]
        assert each.metrics == frame_metrics([video for evaluation in evaluations for video in evaluation.videos])
        assert each.metrics.videos == 12
        aucs = [evaluation.metrics.auc for evaluation in evaluations]
        assert each.fold_aucs == dict(zip(folds, aucs, strict=True))
        assert each.mean_fold_auc == pytest.approx(np.mean(aucs))
    assert outcomes == cross_validate(data / "folds.csv", data / "features", tmp_path, config, seeds=2)
    assert len(steps) == 2 * 3 * 2
    with pytest.raises(UserError, match=r"fold0.seed-5: cannot go on, because config.learning_rate was"):
        cross_validate(data / "folds.csv", data / "features", tmp_path, replace(config, learning_rate=0.1))


def test_an_ablation_over_all_folds(data: Path, tmp_path: Path) -> None:
    config = replace(QUICK, modes=("epoch",), test_fold="all")
    ablation = ablate(DatasetChoice(manifest=data / "folds.csv"), data / "features", tmp_path, config)
    page = write_ablation(ablation).read_text("utf-8")
    row = rows_of(tmp_path)[1]  # L_v
    run_of_fold = load_run(tmp_path / "runs" / "mil" / "L_v-epoch" / "fold1" / "seed-0")
    dataset = read_manifest(data / "folds.csv", "fold1")
    assert float(row["auc of fold1"]) == evaluate(run_of_fold, dataset, data / "features").metrics.auc
    mean = np.mean([float(row[f"auc of fold{number}"]) for number in range(3)])
    assert float(row["mean_fold_auc"]) == pytest.approx(mean)
    shown = result_table(ablation)
    assert shown.columns[-2:] == ("mean fold AUC %", "gain, AUC points")
    assert shown.rows[1][-2] == f"{100 * mean:.2f}"
    assert '"folds":3' in page
    assert "--test-fold all" in command(ablation)


@pytest.mark.parametrize("fold", ["..", "a/b", "all", ""])
def test_folds_that_cannot_be_folders(tmp_path: Path, fold: str) -> None:
    manifest = tmp_path / "labels.csv"
    manifest.write_text(f"video,fold,label\na.mp4,one,0\nb.mp4,{fold},1\n")
    with pytest.raises(UserError, match="give it another"):
        folds_of(manifest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detectors", "mil", "wizard"], "no detector 'wizard'; known: ar-net, "),
        (["--detectors", "mil", "svm"], "svm is fitted in one go"),
        (["--detectors", "sparse-combinations"], "sparse-combinations learns from frames"),
        (["--detectors", "mil+xel"], "no detector 'mil+xel'"),
        (["--recipes", "avenue"], "no recipes 'avenue'; known: general, shanghaitech, ucf-crime"),
        (["--recipes", "../general"], "no recipes"),
        (["--modes", "yearly"], "no mode yearly; known: epoch, batch"),
        (["--seeds", "0"], "seeds must be positive, not 0"),
        (["--iterations", "0"], "iterations must be positive, not 0"),
        (["--test-fold", "all"], "has no column fold"),
        (["--manifest", "nowhere.csv"], "cannot read the manifest"),
        (["--manifest", "nowhere.csv", "--test-fold", "all"], "cannot read the manifest"),
        (["--features", "nowhere"], "nowhere"),
    ],
)
def test_wrong_requests(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(data, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_ablation_in_the_same_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: list[int]
) -> None:
    first = ["--test-fold", "fold0", "--modes", "epoch", "--seeds", "1"]
    assert run(data, tmp_path, *first, manifest="folds.csv") == 0
    trained = len(steps)
    for options, manifest, message in (
        (first, "labels.csv", "has no column fold"),
        (first[2:], "labels.csv", "labels was"),
        (["--test-fold", "fold1", *first[2:]], "folds.csv", "test_fold was fold0, now is fold1"),
        ([*first, "--iterations", "9"], "folds.csv", "iterations was 3, now is 9"),
    ):
        capsys.readouterr()
        assert run(data, tmp_path, *options, manifest=manifest) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "ablation.json").unlink()  # the runs themselves know it, too
    assert run(data, tmp_path, *first, "--iterations", "9", manifest="folds.csv") == 2
    assert "off/seed-0: cannot go on, because config.iterations was 3, now is 9" in capsys.readouterr().err
    (tmp_path / "ablation.json").write_text("{")
    assert run(data, tmp_path, *first, manifest="folds.csv") == 2
    assert "damaged" in capsys.readouterr().err
    assert len(steps) == trained


def test_nothing_is_trained_where_nothing_can_be_measured(data: Path, tmp_path: Path) -> None:
    lines = (data / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(re.sub(r"[\d-]*$", "", line) for line in lines))
    with pytest.raises(UserError, match="not annotated"):
        ablate(DatasetChoice(manifest=tmp_path / "labels.csv"), data / "features", tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()
