"""Training: the same seed gives the same bytes, XEL does what it says, and what cannot be learnt from is refused."""

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from xelvad.errors import UserError
from xelvad.models import MIL, Bags
from xelvad.pipeline.batches import Batches
from xelvad.pipeline.cache import FeatureStore
from xelvad.pipeline.cli import build_parser, main
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.fitting import make_detector, make_xel
from xelvad.pipeline.recipes import load_recipe, recipe_names
from xelvad.pipeline.runs import load_run, read_bank, read_manifest_of_run
from xelvad.pipeline.settings import TrainingConfig, XELConfig
from xelvad.pipeline.training import load_training_data, plain, train, validation_split

from .synthetic import FEATURE_DIM, FINGERPRINT, write_dataset, write_features

QUICK = TrainingConfig(iterations=30, batch=4)
QUICK_XEL = replace(QUICK, xel=XELConfig(mode="epoch"))
MODES = ("off", "epoch", "batch")


def trained(folder: Path, out: str, config: TrainingConfig) -> Path:
    manifest, features = folder / "labels.csv", folder / "features"
    if not manifest.exists():
        write_dataset(folder)
    train(read_manifest(manifest), features, folder / out, config)
    return folder / out


def quick(detector: str, mode: str) -> TrainingConfig:
    recipe = load_recipe(f"general/{detector}")
    return replace(recipe, iterations=12, batch=3, evaluations=3, xel=XELConfig(mode=mode, warmup=0.2))


EVERY = {f"{detector} {mode}": quick(detector, mode) for detector in ("mil", "srf", "ar-net") for mode in MODES}


@pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)
def test_two_runs_with_one_seed_give_the_same_bytes(tmp_path: Path, config: TrainingConfig) -> None:
    first, second = trained(tmp_path, "first", config), trained(tmp_path, "second", config)
    torch.rand(3)  # whatever else draws random numbers between two runs does not matter
    files = sorted(file.name for file in first.iterdir() if file.is_file())
    weights = ["best_on_test.safetensors", "best_on_validation.safetensors", "detector.safetensors"]
    bank = [] if config.xel.mode == "off" else ["bank.json"]
    assert files == sorted([*weights, *bank, "config.yaml", "manifest.json", "metrics.json", "state.pt"])
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_another_seed_gives_another_detector(tmp_path: Path) -> None:
    runs = [trained(tmp_path, str(seed), replace(QUICK, seed=seed)) for seed in (0, 1)]
    assert (runs[0] / "detector.safetensors").read_bytes() != (runs[1] / "detector.safetensors").read_bytes()


def test_training_does_not_disturb_the_callers_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    trained(tmp_path, "run", QUICK)
    torch.testing.assert_close(torch.rand(4), expected)


@pytest.mark.parametrize("detector", ["mil", "srf", "ar-net"])
@pytest.mark.parametrize("mode", ["epoch", "batch"])
def test_xel_without_weight_is_the_plain_detector_to_the_bit(tmp_path: Path, detector: str, mode: str) -> None:
    plain = trained(tmp_path, "plain", quick(detector, "off"))
    weightless = XELConfig(mode=mode, validation_weight=0.0, margin_weight=0.0)
    xel = trained(tmp_path, "xel", replace(quick(detector, "off"), xel=weightless))
    assert (plain / "detector.safetensors").read_bytes() == (xel / "detector.safetensors").read_bytes()


@pytest.mark.parametrize("term", ["validation_weight", "margin_weight"])
def test_each_term_of_xel_changes_the_detector(tmp_path: Path, term: str) -> None:
    full = trained(tmp_path, "full", QUICK_XEL)
    without = trained(tmp_path, "without", replace(QUICK, xel=replace(QUICK_XEL.xel, **{term: 0.0})))
    assert (full / "detector.safetensors").read_bytes() != (without / "detector.safetensors").read_bytes()


def test_the_loop_is_adam_on_the_detectors_loss(tmp_path: Path) -> None:
    """Against the loop written out: the same seed, Adam, one step per batch. Dropout draws from the same stream."""
    config = replace(QUICK, iterations=5)
    run = load_run(trained(tmp_path, "run", config))
    data = load_training_data(
        read_manifest(tmp_path / "labels.csv"), FeatureStore(tmp_path / "features", "i3d-rgb"), config
    )
    torch.manual_seed(config.seed)
    detector = MIL(FEATURE_DIM).train()
    optimiser = torch.optim.Adam(detector.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = Batches(data.abnormal, data.normal, config.batch, config.seed)
    for step in range(config.iterations):
        rng = np.random.default_rng(0)  # nothing of a segment is left to chance
        bags = [
            [torch.from_numpy(videos.draw(int(number), rng)[0]) for number in numbers]
            for videos, numbers in zip((data.abnormal, data.normal), batches.videos(step), strict=True)
        ]
        loss = detector.loss(Bags.pack(*bags))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    for ours, expected in zip(run.detector.parameters(), detector.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_a_run_folder_says_what_it_was_made_of(tmp_path: Path) -> None:
    folder = trained(tmp_path, "run", QUICK_XEL)
    manifest = read_manifest_of_run(folder)
    assert (manifest.name, manifest.feature_dim, manifest.fingerprint) == ("MIL+XEL", FEATURE_DIM, FINGERPRINT)
    assert (manifest.training_videos, manifest.validation_videos) == (6, 2)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["iterations"] == 30
    assert config["xel"]["margins"] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    metrics = json.loads((folder / "metrics.json").read_text())["last_epoch"]
    assert {"total", "ranking", "sparsity", "smoothness", "xel_validation", "xel_margin"} <= metrics.keys()
    assert metrics["total"] == pytest.approx(sum(value for name, value in metrics.items() if name != "total"), rel=1e-5)
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))


def test_batches_draw_every_video_once_before_any_twice() -> None:
    batches = Batches(range(6), range(4), size=2, seed=0)
    drawn = [batches.videos(step) for step in range(6)]
    assert sorted(np.concatenate([a for a, _ in drawn[:3]])) == list(range(6))
    assert sorted(np.concatenate([a for a, _ in drawn[3:]])) == list(range(6))
    assert sorted(np.concatenate([n for _, n in drawn[:2]])) == list(range(4))
    assert batches.per_epoch == 3


def test_batches_are_no_larger_than_the_data() -> None:
    abnormal, normal = Batches(range(1), range(3), size=30, seed=0).videos(0)
    assert (len(abnormal), sorted(normal)) == (1, [0, 1, 2])


@pytest.mark.parametrize(("label", "message"), [("0", "0 abnormal and 8 normal"), ("1", "8 abnormal and 0 normal")])
def test_training_needs_both_labels(tmp_path: Path, label: str, message: str) -> None:
    write_dataset(tmp_path)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    one_label = [",".join([*line.split(",")[:2], label, "", ""]) for line in lines[1:]]
    (tmp_path / "labels.csv").write_text("\n".join([lines[0], *one_label]))
    with pytest.raises(UserError, match=message):
        trained(tmp_path, "run", QUICK)
    assert not (tmp_path / "run").exists()


def test_features_of_other_weights_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_features(tmp_path / "features", "video_11.mp4", np.ones((2, 16), np.float32), 32, fingerprint="other")
    with pytest.raises(UserError, match=r"video_11.mp4.json: made by «other», not by"):
        trained(tmp_path, "run", QUICK)


def test_missing_features_name_the_video_and_the_command(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "features" / "i3d-rgb" / "video_07.mp4.json").unlink()
    with pytest.raises(UserError, match=r"video_07.mp4: no features .* xelvad extract"):
        trained(tmp_path, "run", QUICK)


def test_nan_features_name_the_file(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    path = tmp_path / "features" / "i3d-rgb" / "video_08.mp4.npy"
    array = np.load(path)
    array[1, 2] = np.nan
    np.save(path, array)
    with pytest.raises(UserError, match=r"video_08.mp4.npy: holds NaN"):
        trained(tmp_path, "run", QUICK)


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = trained(tmp_path, "run", QUICK)
    before = (folder / "detector.safetensors").read_bytes()
    with pytest.raises(UserError, match="finished run"):
        trained(tmp_path, "run", replace(QUICK, seed=9))
    assert (folder / "detector.safetensors").read_bytes() == before


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"batch": -1}, {"learning_rate": 0.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(QUICK, **wrong)


def test_a_run_that_is_missing_unfinished_damaged_or_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        load_run(tmp_path / "none")
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError, match="did not finish"):
        load_run(tmp_path / "unfinished")
    folder = trained(tmp_path, "run", QUICK)
    fields = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(fields | {"format": 99, "version": "9.9"}))
    with pytest.raises(UserError, match=r"format 99 \(xelvad 9.9\)"):
        load_run(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_run(folder)
    (folder / "manifest.json").write_text(json.dumps(fields))
    (folder / "detector.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="weights cannot be loaded"):
        load_run(folder)


def test_batches_go_on_from_any_step(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    store = FeatureStore(tmp_path / "features", "i3d-rgb")
    data = load_training_data(read_manifest(tmp_path / "labels.csv"), store, quick("srf", "off"))
    batches = Batches(data.abnormal, data.normal, 2, seed=3)
    whole, rest = list(batches.stream(0, 9)), list(batches.stream(5, 9))
    for expected, found in zip(whole[5:], rest, strict=True):
        torch.testing.assert_close(found.bags.clips, expected.bags.clips, rtol=0, atol=0)
        assert (found.bags.abnormal, found.bags.normal) == (expected.bags.abnormal, expected.bags.normal)


def test_a_damaged_file_that_is_met_within_training_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    path = tmp_path / "features" / "i3d-rgb" / "video_08.mp4.npy"
    array = np.load(path)
    array[-1, -1] = np.inf
    np.save(path, array)
    with pytest.raises(UserError, match=r"video_08.mp4.npy: holds NaN or infinite"):
        trained(tmp_path, "run", replace(quick("srf", "off"), validation=0.0))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_validation_takes_of_each_label_at_least_one_and_never_all(share: float) -> None:
    labels = [True] * 5 + [False] * 20
    held_out = validation_split(labels, share, seed=1)
    assert 1 <= len([n for n in held_out if labels[n]]) <= 4
    assert 1 <= len([n for n in held_out if not labels[n]]) <= 19
    assert held_out == validation_split(labels, share, seed=1)
    assert len({frozenset(validation_split(labels, share, seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize(("labels", "share"), [([True, False, False], 0.5), ([True, True, False, False], 0.0)])
def test_there_is_no_validation_without_videos_to_spare(labels: list[bool], share: float) -> None:
    assert validation_split(labels, share, seed=0) == set()


def test_the_best_weights_are_those_of_the_best_evaluation(tmp_path: Path) -> None:
    folder = trained(tmp_path, "run", quick("mil", "epoch"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["history"]["iteration"] == [4, 8, 12]
    for videos in ("validation", "test"):
        values = metrics["history"][f"{videos}_auc"]
        assert metrics["weights"][f"best_on_{videos}"][f"{videos}_auc"] == max(values)
        assert metrics["weights"]["last"][f"{videos}_auc"] == values[-1]


@pytest.mark.parametrize("detector", ["mil", "srf"])
@pytest.mark.parametrize("mode", ["epoch", "batch"])
def test_the_bank_lists_every_normal_video_that_was_learnt_from_once(tmp_path: Path, detector: str, mode: str) -> None:
    rows = read_bank(trained(tmp_path, "run", quick(detector, mode)))
    assert len({row.video for row in rows}) == len(rows) == 3
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    assert all(0 <= row.first_frame < row.end_frame and row.epochs >= 1 for row in rows)


def test_the_svm_learns_and_is_loaded_like_any_other(tmp_path: Path) -> None:
    run = load_run(trained(tmp_path, "run", load_recipe("general/svm")))
    assert run.manifest.name == "SVM"
    with torch.no_grad():
        scores = run.detector.score(torch.randn(50, FEATURE_DIM))
    assert scores.std() > 0


# --- recipes and quirks ----------------------------------------------------------------------------------------------


def test_a_recipe_with_xel_differs_from_the_one_without_in_xel_alone() -> None:
    pairs = [(name, f"{name}+xel") for name in recipe_names() if f"{name}+xel" in recipe_names()]
    assert len(pairs) == 6
    for without, with_xel in pairs:
        assert load_recipe(with_xel).xel.mode == "epoch"
        assert replace(load_recipe(with_xel), xel=XELConfig()) == load_recipe(without)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_gives_the_command_line_its_defaults(name: str, tmp_path: Path) -> None:
    arguments = ["train", "--recipe", name, "--manifest", "m.csv", "--features", "f", "--out", str(tmp_path)]
    parsed = build_parser(arguments).parse_args(arguments).train
    expected = load_recipe(name)
    for field in ("detector", "extractor", "iterations", "batch", "optimiser", "learning_rate", "weight_decay"):
        assert parsed[field] == getattr(expected, field), field
    assert (parsed.bags.segments, parsed.bags.clips) == (expected.bags.segments, expected.bags.clips)
    assert (parsed.xel.mode, parsed.xel.margin_step) == (expected.xel.mode, expected.xel.margin_step)


def test_the_recipe_of_ucf_crime_is_the_published_script() -> None:
    config = load_recipe("ucf-crime/srf+xel")
    xel = make_xel(config, 810, 800, 4)
    assert xel is not None
    assert (xel.schedule.warmup, xel.schedule.step, config.iterations) == (7500, 7500, 50_000)
    assert (config.batch, config.betas, config.learning_rate) == (1, (0.5, 0.999), 5e-5)


def test_each_quirk_does_what_it_says_and_none_is_on_by_default() -> None:
    config = quick("srf", "epoch")
    official = replace(config, quirks="official")
    plain, quirky = make_detector(config, 4), make_detector(official, 4)
    assert (plain.flip, plain.detached) == (True, False)
    assert (quirky.flip, quirky.detached) == (False, True)
    xel, quirky_xel = make_xel(config, 810, 800, 4), make_xel(official, 810, 800, 4)
    assert xel is not None
    assert quirky_xel is not None
    assert (xel.bank_dropout, len(xel.bank)) == (False, 0)
    assert (quirky_xel.bank_dropout, quirky_xel.bank.instances.shape) == (True, (810, 4))
    assert quirky_xel.bank.instances.unique().tolist() == [0.5]


@pytest.mark.parametrize("quirk", ["bank-dropout", "detached-clusters", "no-flip", "constant-bank"])
def test_each_quirk_changes_the_detector(tmp_path: Path, quirk: str) -> None:
    config = replace(quick("srf", "epoch"), iterations=30, xel=XELConfig(mode="epoch", warmup=0.0))
    runs = [trained(tmp_path, quirks, replace(config, quirks=quirks)) for quirks in ("none", quirk)]
    assert (runs[0] / "detector.safetensors").read_bytes() != (runs[1] / "detector.safetensors").read_bytes()


# --- resuming --------------------------------------------------------------------------------------------------------

KILLED = """
import sys
from xelvad.pipeline import cli, fitting
fitting.CHECKPOINT_SECONDS = 0.0
step = fitting._Trainer._step
def killed(trainer, batch):
    if trainer.iteration == {at}:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    step(trainer, batch)
fitting._Trainer._step = killed
sys.exit(cli.main(sys.argv[1:]))
"""


def command(folder: Path, out: str, config: TrainingConfig, *more: str) -> list[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(plain(asdict(config))))
    data = ["--manifest", str(folder / "labels.csv"), "--features", str(folder / "features")]
    return ["train", "--config", str(folder / "config.yaml"), *data, "--out", str(folder / out), *more]


@pytest.mark.parametrize("at", [0, 1, 7])
@pytest.mark.parametrize("case", ["mil epoch", "srf batch", "ar-net epoch", "srf epoch"])
def test_a_training_killed_at_any_step_goes_on_bit_for_bit(tmp_path: Path, case: str, at: int) -> None:
    config = replace(EVERY[case], xel=replace(EVERY[case].xel, onset=0.001))
    uninterrupted = trained(tmp_path, "whole", config)
    arguments = command(tmp_path, "killed", config)
    code = subprocess.run(
        [sys.executable, "-c", KILLED.format(at=at), *arguments], capture_output=True, check=False
    ).returncode
    assert code == -signal.SIGKILL
    assert not (tmp_path / "killed" / "manifest.json").exists()
    assert (tmp_path / "killed" / "state.pt").exists() == (at > 0)
    assert main([*arguments, "--resume"]) == 0
    for file in uninterrupted.iterdir():
        if file.is_file():
            assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes(), file.name


def test_resuming_something_else_names_the_key_and_both_values(tmp_path: Path) -> None:
    config = EVERY["srf epoch"]
    folder = trained(tmp_path, "run", config)
    before = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    dataset, features = read_manifest(tmp_path / "labels.csv"), tmp_path / "features"
    other = replace(config, xel=replace(config.xel, warmup=0.3))
    for finished in (True, False):
        if not finished:
            (folder / "manifest.json").unlink()
        with pytest.raises(UserError, match=r"config.xel.warmup was 0.2, now is 0.3"):
            train(dataset, features, folder, other, resume=True)
        with pytest.raises(UserError, match="labels was"):
            train(replace(dataset, digest="another"), features, folder, config, resume=True)
    write_features(features, "video_11.mp4", np.ones((2, 16), np.float32), 32, version="x")
    sidecar = features / "i3d-rgb" / "video_11.mp4.json"
    sidecar.write_text(sidecar.read_text().replace("digest of", "another digest of"))
    with pytest.raises(UserError, match="features was"):
        train(dataset, features, folder, config, resume=True)
    assert all(file.read_bytes() == data for file, data in before.items() if file.name != "manifest.json")


def test_an_unfinished_training_is_not_begun_anew_and_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    folder = trained(tmp_path, "run", QUICK)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"unfinished training; --resume"):
        trained(tmp_path, "run", QUICK)
    (folder / "state.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="damaged checkpoint"):
        train(read_manifest(tmp_path / "labels.csv"), tmp_path / "features", folder, QUICK, resume=True)


def test_curves_show_losses_margin_bank_and_judges(tmp_path: Path) -> None:
    folder = trained(tmp_path, "run", replace(QUICK_XEL, iterations=40))
    curves = EventAccumulator(str(folder / "tensorboard")).Reload()
    names = set(curves.Tags()["scalars"])
    assert {"loss/total", "loss/ranking", "loss/xel_margin", "xel/margin", "bank/turnover", "judged/test"} <= names
    steps = [event.step for event in curves.Scalars("loss/total")]
    assert steps == [0, 10, 20, 30]
