"""Training: the same seed gives the same bytes, XEL does what it says, and what cannot be learnt from is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from xelvad.errors import UserError
from xelvad.models import MIL, Bags
from xelvad.pipeline.cache import FeatureStore
from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.fitting import Batches
from xelvad.pipeline.runs import load_run, read_manifest_of_run
from xelvad.pipeline.settings import TrainingConfig, XELConfig
from xelvad.pipeline.training import load_training_data, train

from .synthetic import FEATURE_DIM, FINGERPRINT, write_dataset, write_features

QUICK = TrainingConfig(iterations=30, batch=4)
QUICK_XEL = replace(QUICK, xel=XELConfig(mode="epoch"))


def trained(folder: Path, out: str, config: TrainingConfig) -> Path:
    manifest, features = folder / "labels.csv", folder / "features"
    if not manifest.exists():
        write_dataset(folder)
    train(read_manifest(manifest), features, folder / out, config)
    return folder / out


@pytest.mark.parametrize("config", [QUICK, QUICK_XEL], ids=["mil", "mil+xel"])
def test_two_runs_with_one_seed_give_the_same_bytes(tmp_path: Path, config: TrainingConfig) -> None:
    first, second = trained(tmp_path, "first", config), trained(tmp_path, "second", config)
    torch.rand(3)  # whatever else draws random numbers between two runs does not matter
    files = sorted(file.name for file in first.iterdir() if file.is_file())
    assert files == ["config.yaml", "detector.safetensors", "manifest.json", "metrics.json"]
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


def test_xel_that_never_sets_in_is_the_plain_detector_to_the_bit(tmp_path: Path) -> None:
    plain = trained(tmp_path, "plain", QUICK)
    weightless = XELConfig(mode="epoch", validation_weight=0.0, margin_weight=0.0)
    xel = trained(tmp_path, "xel", replace(QUICK, xel=weightless))
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
        read_manifest(tmp_path / "labels.csv"), FeatureStore(tmp_path / "features", "i3d-rgb"), config.bags
    )
    torch.manual_seed(config.seed)
    detector = MIL(FEATURE_DIM).train()
    optimiser = torch.optim.Adam(detector.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = Batches(len(data.abnormal), len(data.normal), config.batch, config.seed)
    for _ in range(config.iterations):
        abnormal, normal = batches.next()
        loss = detector.loss(Bags(torch.from_numpy(data.abnormal[abnormal]), torch.from_numpy(data.normal[normal])))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    for ours, expected in zip(run.detector.parameters(), detector.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_a_run_folder_says_what_it_was_made_of(tmp_path: Path) -> None:
    folder = trained(tmp_path, "run", QUICK_XEL)
    manifest = read_manifest_of_run(folder)
    assert (manifest.name, manifest.feature_dim, manifest.fingerprint) == ("MIL+XEL", FEATURE_DIM, FINGERPRINT)
    assert manifest.training_videos == 8
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["iterations"] == 30
    assert config["xel"]["margins"] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    metrics = json.loads((folder / "metrics.json").read_text())["last_epoch"]
    assert {"total", "ranking", "sparsity", "smoothness", "xel_validation", "xel_margin"} <= metrics.keys()
    assert metrics["total"] == pytest.approx(sum(value for name, value in metrics.items() if name != "total"), rel=1e-5)
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))


def test_batches_draw_every_video_once_before_any_twice() -> None:
    batches = Batches(abnormal=6, normal=4, size=2, seed=0)
    drawn = [batches.next() for _ in range(6)]
    assert sorted(np.concatenate([a for a, _ in drawn[:3]])) == list(range(6))
    assert sorted(np.concatenate([a for a, _ in drawn[3:]])) == list(range(6))
    assert sorted(np.concatenate([n for _, n in drawn[:2]])) == list(range(4))
    assert batches.per_epoch == 3


def test_batches_are_no_larger_than_the_data() -> None:
    abnormal, normal = Batches(abnormal=1, normal=3, size=30, seed=0).next()
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
