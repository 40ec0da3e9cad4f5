"""Training: the same seed gives the same bytes, XEL does what it says, and what cannot be learnt from is refused."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from xelvad.errors import UserError
from xelvad.models import DETECTORS, Bags, Detector
from xelvad.pipeline.datasets import Dataset, read_manifest
from xelvad.pipeline.features.store import Features, FeatureStore
from xelvad.pipeline.scoring.runs import load_run, read_bank, read_manifest_of_run
from xelvad.pipeline.support.progress import CONSOLE
from xelvad.pipeline.training.batches import Batches
from xelvad.pipeline.training.config import QUIRKS, TrainingConfig, XELConfig
from xelvad.pipeline.training.cross_epoch import make_xel
from xelvad.pipeline.training.data import TrainingData, load_training_data, validation_split
from xelvad.pipeline.training.loop import make_detector, make_optimiser
from xelvad.pipeline.training.pace import Pace
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.training.svm import fit_svm
from xelvad.pipeline.training.train import train, train_seeds
from xelvad.pipeline.videos.clips import Clipping

from ..helpers.features import FEATURE_DIM, FINGERPRINT, write_dataset, write_features

KINDS = ["mil", "srf", "ar-net", "gcn-cleaner"]
MODES = ["off", "epoch", "batch"]
MARGINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
WARMUP, MARGIN_STEP, PER_EPOCH = 2, 2, 3  # iterations, as they follow from the settings and the data


def quick(detector: str = "mil", mode: str = "off", **changes: object) -> TrainingConfig:
    settings = {
        "iterations": 14,
        "until_learned": False,
        "batch": 2,
        "evaluations": 7,
        "xel": XELConfig(mode=mode),
    } | changes
    return replace(load_recipe(f"general/{detector}"), **settings)


pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(folder: Path) -> Path:
    """11 training videos, 6 abnormal and 5 normal, of which one each is put aside; 6 test videos."""
    manifest, _ = write_dataset(folder, videos=18)
    lines = [line for line in manifest.read_text().splitlines() if "video_16" not in line]
    manifest.write_text("\n".join(lines) + "\n")
    return folder


def dataset_of(folder: Path) -> Dataset:
    return read_manifest(folder / "labels.csv")


def store_of(folder: Path) -> FeatureStore:
    return FeatureStore(folder / "features", "i3d-rgb")


def trained(folder: Path, out: str, config: TrainingConfig) -> Path:
    train(dataset_of(folder), folder / "features", folder / out, config, report=CONSOLE)
    return folder / out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Data of a test's own, to spoil."""
    return make_data(tmp_path)


class Trainings:
    """Trains each configuration once for all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_data(folder)
        self._made: dict[TrainingConfig, Path] = {}

    def __call__(self, config: TrainingConfig) -> Path:
        if config not in self._made:
            self._made[config] = trained(self.folder, f"run-{len(self._made)}", config)
        return self._made[config]

    def weights(self, config: TrainingConfig) -> bytes:
        return (self(config) / "detector.safetensors").read_bytes()

    def data(self, config: TrainingConfig) -> TrainingData:
        return load_training_data(dataset_of(self.folder), store_of(self.folder), config)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("trainings"))


def files_of(run: Path) -> dict[str, bytes]:
    """All files but TensorBoard's, which carry the time."""
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def metrics_of(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    metrics: dict[str, dict[str, dict[str, float]]] = json.loads((run / "metrics.json").read_text())
    return metrics


# --- the same seed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("detector", KINDS)
def test_two_runs_with_one_seed_give_the_same_bytes(trainings: Trainings, detector: str, mode: str) -> None:
    config = quick(detector, mode)
    first = files_of(trainings(config))
    torch.rand(3)  # whatever else draws random numbers between two runs does not matter
    second = files_of(trained(trainings.folder, f"again-{detector}-{mode}", config))
    expected = {"config.yaml", "manifest.json", "metrics.json", "state.pt"} | (
        {"bank.json"} if mode != "off" else set()
    )
    expected |= {f"{weights}.safetensors" for weights in ("detector", "best_on_validation", "best_on_test")}
    assert first.keys() == second.keys() == expected
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize("detector", KINDS)
def test_another_seed_gives_another_detector(trainings: Trainings, detector: str) -> None:
    assert trainings.weights(quick(detector)) != trainings.weights(quick(detector, seed=1))


def test_training_does_not_disturb_the_callers_random_numbers(data: Path) -> None:
    before = torch.get_rng_state()
    trained(data, "run", quick("srf", "epoch"))
    assert torch.equal(torch.get_rng_state(), before)


# --- XEL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["epoch", "batch"])
@pytest.mark.parametrize("detector", KINDS)
def test_weightless_xel_is_the_plain_detector_to_the_bit(trainings: Trainings, detector: str, mode: str) -> None:
    weightless = XELConfig(mode=mode, validation_weight=0.0, margin_weight=0.0)
    assert trainings.weights(quick(detector, xel=weightless)) == trainings.weights(quick(detector))


@pytest.mark.parametrize("term", ["validation_weight", "margin_weight"])
@pytest.mark.parametrize("detector", KINDS)
def test_each_term_of_xel_changes_the_detector(trainings: Trainings, detector: str, term: str) -> None:
    full = quick(detector, "epoch")
    without = replace(full, xel=replace(full.xel, **{term: 0.0}))
    assert trainings.weights(full) != trainings.weights(without) != trainings.weights(quick(detector))


@pytest.mark.parametrize("detector", KINDS)
def test_refreshing_at_every_step_is_not_refreshing_once_an_epoch(trainings: Trainings, detector: str) -> None:
    assert trainings.weights(quick(detector, "epoch")) != trainings.weights(quick(detector, "batch"))


class Reference:
    """The training loop written out, with PyTorch's own optimisers and the papers' formulas."""

    def __init__(self, data: TrainingData, config: TrainingConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.detector = DETECTORS[config.detector](FEATURE_DIM, **config.options)
        kind = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}[config.optimiser]
        options = {"betas": config.betas} if config.optimiser == "adam" else {}
        rate, decay = config.learning_rate, config.weight_decay
        self.optimiser = kind(self.detector.parameters(), lr=rate, weight_decay=decay, **options)
        self.normal = [
            torch.from_numpy(np.concatenate(list(data.normal.pieces(number)))) for number in range(len(data.normal))
        ]
        self.bank: dict[int, int] = {}  # clip by video
        batches = Batches(data.abnormal, data.normal, config.batch, config.seed)
        for iteration in range(config.iterations):
            self.refresh(iteration)
            batch = batches.load(iteration)
            scores = self.step(batch.bags, iteration)
            if self.bank and config.xel.mode == "batch":
                for video, rows, of_rows in zip(batch.normal_videos, batch.normal_rows, scores, strict=True):
                    self.bank[int(video)] = int(rows[int(of_rows.argmax())])

    def refresh(self, iteration: int) -> None:
        mode = self.config.xel.mode
        if mode == "off" or iteration < WARMUP or (self.bank and (mode == "batch" or iteration % PER_EPOCH)):
            return
        self.detector.eval()
        with torch.no_grad():
            self.bank = {number: int(self.detector.score(clips).argmax()) for number, clips in enumerate(self.normal)}

    def step(self, bags: Bags, iteration: int) -> tuple[Tensor, ...]:
        self.detector.train()
        loss = self.detector.loss(bags)
        total = loss.total
        if self.bank:
            self.detector.eval()  # for both sides of the margin
            hard = self.detector.score(torch.stack([self.normal[number][clip] for number, clip in self.bank.items()]))
            videos = zip(bags.split(bags.clips)[0], loss.abnormal_scores, strict=True)
            highest = [self.detector.score(clips[int(scores.argmax())]) for clips, scores in videos]
            margin = MARGINS[(iteration - WARMUP) // MARGIN_STEP]
            pairs = [torch.relu(margin - video + score) for video in highest for score in hard]
            total = total + hard.mean() + torch.stack(pairs).mean()
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        return loss.normal_scores


@pytest.mark.parametrize(
    "config",
    [quick(kind, mode) for kind in KINDS for mode in MODES] + [quick("mil", "epoch", optimiser="adagrad")],
    ids=lambda config: f"{config.detector}-{config.xel.mode}-{config.optimiser}",
)
def test_the_loop_is_the_one_written_out(trainings: Trainings, config: TrainingConfig) -> None:
    run, data = trainings(config), trainings.data(config)
    expected = Reference(data, config)
    assert len(data.abnormal) == 5
    for ours, parameter in zip(load_run(run).detector.parameters(), expected.detector.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter, rtol=1e-4, atol=1e-6)
    if config.xel.mode != "off":
        bank = {row.video: row.clip for row in read_bank(run)}
        assert bank == {data.normal.names[number]: clip for number, clip in expected.bank.items()}


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", False)])
def test_adagrad_is_fused_on_the_cpu_alone(device: str, fused: bool) -> None:
    """Most versions of PyTorch have it for no other device, and fail at the first step of `ucf-crime/mil`."""
    config = quick("mil", optimiser="adagrad")
    assert make_optimiser(config, make_detector(config, 4).to(device)).defaults["fused"] == fused


# --- the hard instance bank ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["epoch", "batch"])
@pytest.mark.parametrize("detector", KINDS)
def test_the_bank_lists_every_normal_training_video_once_with_the_frames_of_its_clip(
    trainings: Trainings, detector: str, mode: str
) -> None:
    config = quick(detector, mode)
    bank, data = read_bank(trainings(config)), trainings.data(config)
    assert sorted(row.video for row in bank) == sorted(data.normal.names)
    assert [row.score for row in bank] == sorted((row.score for row in bank), reverse=True)
    for row in bank:
        sidecar = store_of(trainings.folder).read(row.video).sidecar
        clips = -(-sidecar.frames // 16)
        borders = np.round(np.linspace(0, clips, 33)).astype(int) if detector == "mil" else np.arange(clips + 1)
        first = min(borders[row.clip], clips - 1)
        end = max(borders[row.clip + 1], first + 1)
        assert (row.first_frame, row.end_frame) == (16 * first, min(16 * end, sidecar.frames))
        assert row.seconds == pytest.approx(row.first_frame / 25)
        assert row.epochs >= 1


@pytest.mark.parametrize("detector", KINDS)
def test_the_banks_clips_are_the_hardest_at_the_last_refresh(trainings: Trainings, detector: str) -> None:
    """The last refresh of 10 iterations comes before the last: the weights are those of 9 iterations."""
    xel = XELConfig(mode="epoch", warmup=0.0, margins=(0.7,))  # a schedule that no number of iterations changes
    longer, shorter = (quick(detector, iterations=iterations, xel=xel) for iterations in (10, 9))
    judge, data = load_run(trainings(shorter)).detector, trainings.data(longer)
    found = {row.video: row for row in read_bank(trainings(longer))}
    for number, name in enumerate(data.normal.names):
        with torch.no_grad():
            scores = judge.score(torch.from_numpy(np.concatenate(list(data.normal.pieces(number))))).numpy()
        assert found[name].clip == scores.argmax()
        assert found[name].score == pytest.approx(scores.max(), rel=1e-5)
        assert 1 <= found[name].epochs <= 4


# --- mistakes of the published script, on request --------------------------------------------------------------------


def test_an_unknown_quirk_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"no quirk no-flop; official is all of: xel-dropout, .*, extra-rows"):
        quick(quirks="no-flip, no-flop")


def test_an_option_that_the_detector_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="mil has no option labels; known: dropout, sparsity_weight, smoothness_weight"):
        make_detector(quick("mil", options={"labels": "guided"}), 4)
    for value in ("cosine", 3):
        with pytest.raises(UserError, match=f"options of srf: labels are scores or guided, not {value}"):
            make_detector(quick("srf", options={"labels": value}), 4)
    with pytest.raises(UserError, match="options of mil: "):
        make_detector(quick("mil", options={"dropout": "much"}), 4)
    assert not make_detector(quick("srf", options={"flip": False}), 4).flip
    assert make_detector(quick("mil", options={"dropout": 0.25}), 4).scorer[2].p == 0.25
    assert make_detector(quick("srf"), 4).labels == "guided"


def test_there_are_no_quirks_unless_asked_for() -> None:
    config = quick("srf", "epoch")
    detector, xel = make_detector(config, 4), make_xel(config, Pace(config, 9), 9, 5, 4)
    assert (detector.flip, detector.detached, xel.dropout, len(xel.bank)) == (True, False, False, 0)


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_quirk_does_what_it_says_and_nothing_else(quirk: str) -> None:
    config = quick("srf", "epoch", quirks=quirk)
    detector, xel = make_detector(config, 4), make_xel(config, Pace(config, 9), 9, 5, 4)
    rows = {"constant-bank": 5, "extra-rows": 9}.get(quirk, 0)
    assert detector.flip == (quirk != "no-flip")
    assert detector.detached == (quirk == "detached-clusters")
    assert xel.dropout == (quirk == "xel-dropout")
    assert xel.bank.instances.tolist() == [[0.5] * 4] * rows
    assert xel.bank.clips.tolist() == [-1] * rows


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_quirk_changes_a_training(trainings: Trainings, quirk: str) -> None:
    assert trainings.weights(quick("srf", "epoch", quirks=quirk)) != trainings.weights(quick("srf", "epoch"))


def test_official_is_all_quirks_together(trainings: Trainings) -> None:
    every = quick("srf", "epoch", quirks=", ".join(QUIRKS))
    assert trainings.weights(quick("srf", "epoch", quirks="official")) == trainings.weights(every)


def test_the_constant_bank_stays_for_the_first_epoch(trainings: Trainings) -> None:
    config = quick("mil", "epoch", quirks="constant-bank", iterations=PER_EPOCH)
    assert read_bank(trainings(config)) == []
    assert len(read_bank(trainings(replace(config, iterations=PER_EPOCH + 1)))) == 4
    assert len(read_bank(trainings(replace(config, quirks="none")))) == 4


# --- validation, and the weights that are kept -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abnormal", "normal", "share", "expected"),
    [(20, 30, 0.1, (2, 3)), (3, 40, 0.1, (1, 4)), (2, 2, 0.9, (1, 1)), (1, 9, 0.5, (0, 0)), (20, 30, 0.0, (0, 0))],
)
def test_a_share_of_each_label_is_put_aside_but_never_all(
    abnormal: int, normal: int, share: float, expected: tuple[int, int]
) -> None:
    labels = np.random.default_rng(0).permutation([True] * abnormal + [False] * normal).tolist()
    held_out = validation_split(labels, share, seed=3)
    assert (sum(labels[n] for n in held_out), sum(not labels[n] for n in held_out)) == expected
    assert held_out == validation_split(labels, share, seed=3)


def test_the_seed_chooses_the_validation_videos() -> None:
    labels = [True, False] * 30
    splits = [validation_split(labels, 0.2, seed) for seed in range(4)]
    assert len({frozenset(split) for split in splits}) == 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_is_learnt_from_validation_videos(trainings: Trainings, seed: int) -> None:
    config = quick("srf", "epoch", seed=seed)
    data = trainings.data(config)
    validation = {features.sidecar.video for features, _ in data.validation}
    learnt_from = {*data.abnormal.names, *data.normal.names}
    assert len(validation) == 2
    assert not validation & learnt_from
    assert validation | learnt_from == {video.name for video in dataset_of(trainings.folder).of("train")}
    assert not validation & {row.video for row in read_bank(trainings(config))}
    assert read_manifest_of_run(trainings(config)).validation_videos == 2


def reference_scores(detector: Detector, features: Features, scale: str) -> NDArray[np.float32]:
    clips = np.array(features.array)
    if scale != "none":
        assert scale in ("l2", "auto"), "the made-up features are even"
        clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    with torch.no_grad():
        return np.asarray(detector.score(torch.from_numpy(clips)))


def validation_auc(trainings: Trainings, config: TrainingConfig, which: str) -> float:
    """Of videos by their highest scores, under weights that a run has kept."""
    detector, videos = load_run(trainings(config), which).detector, trainings.data(config).validation
    scores = [reference_scores(detector, features, config.bags.scale).max() for features, _ in videos]
    return float(roc_auc_score([abnormal for _, abnormal in videos], scores))


def auc_on_test(trainings: Trainings, config: TrainingConfig, which: str) -> float:
    """Of frames, under weights that a run has kept."""
    detector, truth, scores = load_run(trainings(config), which).detector, [], []
    for video in dataset_of(trainings.folder).of("test"):
        clips = reference_scores(detector, store_of(trainings.folder).read(video.name), config.bags.scale)
        scores += [clips[frame // 16] for frame in range(video.frames)]
        truth += [any(start <= frame < end for start, end in video.spans) for frame in range(video.frames)]
    return float(roc_auc_score(truth, scores))


@pytest.mark.parametrize("mode", ["off", "epoch"])
@pytest.mark.parametrize("detector", KINDS)
def test_the_kept_weights_are_the_last_and_the_best_of_the_history(
    trainings: Trainings, detector: str, mode: str
) -> None:
    config = quick(detector, mode, evaluations=14, validation=0.5, learning_rate=0.003)
    metrics = metrics_of(trainings(config))
    history, weights = metrics["history"], metrics["weights"]
    assert history["iteration"] == list(range(1, 15))
    assert weights["last"]["iteration"] == 14
    for judge, measure in (("validation", validation_auc), ("test", auc_on_test)):
        values, best = history[f"{judge}_auc"], weights[f"best_on_{judge}"]
        assert len(values) == 14
        assert judge == "validation" or len(set(values)) > 1, "a history that never changes chooses nothing"
        assert best[f"{judge}_auc"] == max(values)
        assert best["iteration"] == 14 - values[::-1].index(max(values)), "of equals the last"
        assert measure(trainings, config, f"best_on_{judge}") == pytest.approx(max(values))
        assert measure(trainings, config, "last") == pytest.approx(values[-1]) == weights["last"][f"{judge}_auc"]


def test_evaluations_are_spread_over_the_iterations_and_end_with_the_last(trainings: Trainings) -> None:
    assert metrics_of(trainings(quick()))["history"]["iteration"] == [2, 4, 6, 8, 10, 12, 14]
    uneven = quick(evaluations=4, validation=0.0)
    assert metrics_of(trainings(uneven))["history"]["iteration"] == [3, 7, 10, 14]


@pytest.mark.parametrize(("share", "said"), [(0.0, 0), (0.5, 1)])
def test_without_validation_videos_nothing_is_best_on_them(
    data: Path, capsys: pytest.CaptureFixture[str], share: float, said: int
) -> None:
    relabel(data, lambda cells: cells[2] == "0" or cells[1] == "test" or cells[0] == "video_07.mp4")
    run = trained(data, "run", quick(validation=share))
    assert not (run / "best_on_validation.safetensors").exists()
    assert "validation_auc" not in metrics_of(run)["history"]
    assert capsys.readouterr().err.count("too few training videos to put any aside") == said


def relabel(folder: Path, keep: Callable[[list[str]], bool], change: Callable[[list[str]], None] | None = None) -> None:
    """Leave lines out of the manifest, and change the cells of others."""
    head, *lines = (folder / "labels.csv").read_text().splitlines()
    rows = [cells for cells in (line.split(",") for line in lines) if keep(cells)]
    for cells in rows:
        if change is not None:
            change(cells)
    (folder / "labels.csv").write_text("\n".join([head, *(",".join(cells) for cells in rows)]) + "\n")


def no_spans(cells: list[str]) -> None:
    cells[4] = "" if cells[1] == "test" else cells[4]


def more_frames(cells: list[str]) -> None:
    cells[3] = str(int(cells[3]) + 1)


def other_test_features(folder: Path, feature_dim: int = FEATURE_DIM, **changes: object) -> None:
    for video in dataset_of(folder).of("test"):
        clips = Clipping().count(video.frames)
        write_features(
            folder / "features", video.name, np.ones((clips, feature_dim), np.float32), video.frames, **changes
        )


UNWATCHED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no test videos": (
        lambda folder: relabel(folder, lambda cells: cells[1] == "train"),
        "no test videos with annotated",
    ),
    "not annotated": (lambda folder: relabel(folder, bool, no_spans), "no test videos with annotated frames"),
    "annotated for another length": (lambda folder: relabel(folder, bool, more_frames), "frames, but"),
    "no features": (lambda folder: store_of(folder).sidecar_path("video_03.mp4").unlink(), "video_03.mp4: no features"),
    "other weights": (lambda folder: other_test_features(folder, fingerprint="other"), "made by «other», not by"),
    "another dimension": (lambda folder: other_test_features(folder, feature_dim=7), "features of mixed dimension"),
}


@pytest.mark.parametrize("case", UNWATCHED)
def test_test_videos_that_cannot_be_followed_are_said_in_one_line_and_change_nothing_else(
    trainings: Trainings, data: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, reason = UNWATCHED[case]
    spoil(data)
    run = trained(data, "run", quick())
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "test AUC" in line)
    assert line.startswith("the test AUC is not followed: ")
    assert reason in line
    assert not (run / "best_on_test.safetensors").exists()
    assert "test_auc" not in metrics_of(run)["history"]
    assert (run / "detector.safetensors").read_bytes() == trainings.weights(quick())


def test_test_videos_are_not_followed_on_request(trainings: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainings(quick(follow_test=False))
    assert not (run / "best_on_test.safetensors").exists()
    assert "test_auc" not in metrics_of(run)["history"]
    assert "test AUC" not in capsys.readouterr().err
    assert trainings.weights(quick(follow_test=False)) == trainings.weights(quick())


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def test_a_run_folder_says_what_it_was_made_of(trainings: Trainings) -> None:
    folder = trainings(quick("mil", "epoch"))
    manifest = read_manifest_of_run(folder)
    assert (manifest.name, manifest.feature_dim, manifest.fingerprint) == ("MIL+XEL", FEATURE_DIM, FINGERPRINT)
    assert (manifest.training_videos, manifest.validation_videos, manifest.seed) == (9, 2, 0)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["iterations"] == 14
    assert config["xel"]["margins"] == list(MARGINS)
    losses = json.loads((folder / "metrics.json").read_text())["last_epoch"]
    assert losses.keys() == {"total", "ranking", "sparsity", "smoothness", "xel_validation", "xel_margin"}
    assert losses["total"] == pytest.approx(sum(value for name, value in losses.items() if name != "total"), rel=1e-5)


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of TensorBoard's scalars, as TensorBoard reads them."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_curves_show_losses_margin_bank_and_judges(trainings: Trainings) -> None:
    run = trainings(quick("mil", "epoch"))
    curves, history = curves_of(run), metrics_of(run)["history"]
    terms = {f"loss/{term}" for term in ("ranking", "sparsity", "smoothness", "xel_validation", "xel_margin")}
    bank = {f"bank/{what}" for what in ("turnover", "mean_score", "mean_age")}
    assert curves.keys() == terms | bank | {"loss/total", "xel/margin", "judged/validation", "judged/test"}
    assert curves["xel/margin"] == [(10, pytest.approx(0.9))]
    assert [step for step, _ in curves["loss/total"]] == [0, 10]
    at_ten = [dict(curves[term])[10] for term in sorted(terms)]
    assert dict(curves["loss/total"])[10] == pytest.approx(sum(at_ten), rel=1e-5)
    assert [step for step, _ in curves["bank/turnover"]] == [2, 3, 6, 9, 12], "at XEL's beginning and every epoch's"
    assert curves["bank/turnover"][0][1] == 1
    for judge in ("validation", "test"):
        assert [step + 1 for step, _ in curves[f"judged/{judge}"]] == history["iteration"]
        assert [value for _, value in curves[f"judged/{judge}"]] == pytest.approx(history[f"{judge}_auc"])


def test_every_seed_is_the_training_it_would_be_alone(trainings: Trainings, data: Path) -> None:
    manifests = train_seeds(dataset_of(data), data / "features", data / "seeds", quick("mil", "epoch", seed=3), 2)
    assert [manifest.seed for manifest in manifests] == [3, 4]
    assert sorted(path.name for path in (data / "seeds").iterdir()) == ["seed-3", "seed-4"]
    for seed in (3, 4):
        alone = files_of(trained(data, f"alone-{seed}", quick("mil", "epoch", seed=seed)))
        together = files_of(data / "seeds" / f"seed-{seed}")
        assert [name for name in alone | together if alone.get(name) != together.get(name)] == []


def test_seeds_are_refused_before_the_first_where_any_is_in_the_way(data: Path) -> None:
    def seeds(out: str, number: int) -> None:
        train_seeds(dataset_of(data), data / "features", data / out, quick(), number)

    run = trained(data, "seeds/seed-1", quick())
    with pytest.raises(UserError, match=r"seed-1: holds a finished run already"):
        seeds("seeds", 2)
    assert [path.name for path in run.parent.iterdir()] == ["seed-1"]
    with pytest.raises(UserError, match="holds a run itself"):
        seeds("seeds/seed-1", 2)
    with pytest.raises(UserError, match="seeds must be positive"):
        seeds("none", 0)


# --- the baseline ----------------------------------------------------------------------------------------------------


def test_the_svm_is_fitted_to_the_means_of_the_training_videos(trainings: Trainings) -> None:
    config = replace(load_recipe("general/svm"), seed=5)
    run, store = trainings(config), store_of(trainings.folder)
    means: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
    for video in dataset_of(trainings.folder).of("train"):
        clips = np.array(store.read(video.name).array)
        clips /= np.linalg.norm(clips, axis=1, keepdims=True)
        means[video.abnormal].append(clips.mean(axis=0))
    expected = fit_svm(np.stack(means[True]), np.stack(means[False]), seed=5)
    detector = load_run(run).detector
    torch.testing.assert_close(detector.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-4)
    assert files_of(run).keys() == {"config.yaml", "detector.safetensors", "manifest.json", "metrics.json"}
    assert read_manifest_of_run(run).training_videos == 11


def test_the_svm_has_no_epochs_to_learn_across(data: Path) -> None:
    with pytest.raises(UserError, match="--xel off is all there is"):
        trained(data, "run", replace(load_recipe("general/svm"), xel=XELConfig(mode="epoch")))
    assert not (data / "run").exists()


# --- what cannot be learnt from, or not so ---------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "message"), [("0", "0 abnormal and 11 normal"), ("1", "11 abnormal and 0 normal")])
def test_training_needs_both_labels(data: Path, label: str, message: str) -> None:
    def change(cells: list[str]) -> None:
        cells[2:] = [label, "", ""]

    relabel(data, bool, change)
    with pytest.raises(UserError, match=message):
        trained(data, "run", quick())
    assert not (data / "run").exists()


def test_features_of_other_weights_are_refused(data: Path) -> None:
    write_features(data / "features", "video_11.mp4", np.ones((2, 16), np.float32), 32, fingerprint="other")
    with pytest.raises(UserError, match=r"video_11.mp4.json: made by «other», not by"):
        trained(data, "run", quick())


def test_features_of_other_clips_are_refused(data: Path) -> None:
    other = Clipping(16, "drop")
    write_features(data / "features", "video_11.mp4", np.ones((2, 16), np.float32), 32, clipping=other)
    with pytest.raises(UserError, match=r"video_11.mp4: cut into clips by .*drop.*, video_06.mp4 by .*pad"):
        trained(data, "run", quick())


def test_missing_features_name_the_video_and_the_command(data: Path) -> None:
    store_of(data).sidecar_path("video_07.mp4").unlink()
    with pytest.raises(UserError, match=r"video_07.mp4: no features .* xelvad extract"):
        trained(data, "run", quick())


@pytest.mark.parametrize("detector", KINDS)
def test_nan_features_name_the_file(data: Path, detector: str) -> None:
    path = store_of(data).array_path("video_09.mp4")
    array = np.load(path)
    array[1, 2] = np.nan
    np.save(path, array)
    with pytest.raises(UserError, match=r"video_09.mp4.npy: holds NaN"):
        trained(data, "run", quick(detector))
    assert not (data / "run" / "manifest.json").exists()


def test_a_finished_run_is_not_overwritten(data: Path) -> None:
    before = files_of(trained(data, "run", quick()))
    with pytest.raises(UserError, match="finished run"):
        trained(data, "run", quick(seed=9))
    assert files_of(data / "run") == before


HOLDER = """
import sys
from pathlib import Path
from xelvad.leases import try_acquire
from xelvad.pipeline.training.train import LEASE

lease = try_acquire(Path(sys.argv[1]) / LEASE)
print(lease is not None, flush=True)
sys.stdin.read()
"""


def test_two_trainings_into_one_folder_are_one_too_many_until_the_first_is_gone(data: Path) -> None:
    """Guards against two that wrote the same files: of one the weights, of the other the manifest."""
    out = data / "seeds/seed-0"
    command = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        (out / "tensorboard").mkdir()
        curves = out / "tensorboard/events.out.tfevents.1"
        curves.write_text("the first one's")
        (out / "state.pt").write_text("the first one's")
        said = f"{out}: another training (pid {process.pid} on {socket.gethostname()}) is writing this run; wait for it"
        for resume in False, True:
            for start in (
                lambda: train(dataset_of(data), data / "features", out, quick(), resume=resume),  # noqa: B023
                lambda: train_seeds(dataset_of(data), data / "features", out.parent, quick(), 2, resume=resume),  # noqa: B023
            ):
                with pytest.raises(UserError, match=re.escape(f"{said} or choose another --out")):
                    start()
        assert curves.read_text() == (out / "state.pt").read_text() == "the first one's"
        assert not (out.parent / "seed-1").exists()
        process.kill()
    (out / "state.pt").unlink()
    trained(data, "seeds/seed-0", quick())
    assert not curves.exists()
    assert not list(out.glob(".*"))


def test_a_training_that_fails_leaves_no_folder_that_it_made(data: Path) -> None:
    shutil.rmtree(data / "features")
    (data / "there").mkdir()
    for out in "runs/new", "there/new":
        with pytest.raises(UserError):
            trained(data, out, quick())
    assert not (data / "runs").exists()
    assert list((data / "there").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": 0}, {"batch": -1}, {"learning_rate": 0.0}, {"evaluations": 0}, {"weight_decay": -1.0}, {"seed": -1},
     {"validation": 1.0}],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        quick(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"warmup": 1.0}, {"margins": ()}, {"margins": (1.1,)}, {"margin_step": 0.0}, {"validation_weight": -1.0}],
)  # fmt: skip
def test_impossible_settings_of_xel_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"xel\.{next(iter(wrong))}"):
        XELConfig(**wrong)


def test_a_run_that_is_missing_unfinished_damaged_or_of_another_version_is_refused(data: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        load_run(data / "none")
    (data / "unfinished").mkdir()
    with pytest.raises(UserError, match="did not finish"):
        load_run(data / "unfinished")
    folder = trained(data, "run", quick(follow_test=False))
    with pytest.raises(UserError, match=r"has no such weights; it has last, best_on_validation"):
        load_run(folder, "best_on_test")
    with pytest.raises(UserError, match="MIL was trained without XEL, so it has no hard instance bank"):
        read_bank(folder)
    fields = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(fields | {"format": 99, "version": "9.9"}))
    with pytest.raises(UserError, match=r"format 99 \(xelvad 9.9\)"):
        load_run(folder)
    (folder / "manifest.json").write_text(json.dumps(fields | {"detector": "gan"}))
    with pytest.raises(UserError, match=r"holds a detector 'gan', this version knows mil, srf"):
        load_run(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_run(folder)
    (folder / "manifest.json").write_text(json.dumps(fields))
    (folder / "detector.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="weights cannot be loaded"):
        load_run(folder)
