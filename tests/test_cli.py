"""The command line as a user meets it: exit codes, one clear line for every bad request, and the whole way once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from xelvad.pipeline.cli import COMMANDS, main, spell_options

from .synthetic import write_dataset

XELVAD = [sys.executable, "-m", "xelvad.pipeline.cli"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path)
    return tmp_path


def options(folder: Path) -> list[str]:
    return ["--manifest", str(folder / "labels.csv"), "--features", str(folder / "features")]


def train(folder: Path, *more: str) -> int:
    return main(["train", *options(folder), "--out", str(folder / "run"), "--iterations", "5", *more])


def test_options_may_be_spelt_with_dashes_and_xel_without_its_mode() -> None:
    arguments = ["--test-fold", "a-b", "--xel", "epoch", "--xel.margin-weight=0.5", "my-video.mp4", "-h"]
    assert spell_options(arguments) == [
        "--test_fold", "a-b", "--xel.mode", "epoch", "--xel.margin_weight=0.5", "my-video.mp4", "-h",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_every_command_explains_itself(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*([command] if command else []), "--help"])
    assert stop.value.code == 0
    assert "usage: xelvad" in capsys.readouterr().out


def test_a_configuration_file_is_taken_and_flags_override_it(dataset: Path) -> None:
    (dataset / "config.yaml").write_text("iterations: 3\nseed: 7\nxel:\n  mode: epoch\n")
    code = main(
        [
            "train",
            "--config",
            str(dataset / "config.yaml"),
            *options(dataset),
            "--out",
            str(dataset / "run"),
            "--seed",
            "8",
        ]
    )
    assert code == 0
    written = (dataset / "run" / "config.yaml").read_text()
    assert "iterations: 3\n" in written
    assert "seed: 8\n" in written
    assert "mode: epoch\n" in written


def test_train_and_evaluate_end_with_metrics_and_a_report(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(dataset, "--xel", "epoch") == 0
    where = ["--run", str(dataset / "run"), *options(dataset), "--out", str(dataset / "results")]
    code = main(["evaluate", *where, "--protocol", "xel"])
    out = capsys.readouterr().out
    assert "protocol xel" in out
    assert code == 0
    assert "MIL+XEL trained on 6 videos" in out
    assert "AUC %" in out
    assert (dataset / "results" / "metrics.json").exists()
    page = (dataset / "results" / "report.html").read_text()
    assert "video_00.mp4" in page


Prepare = Callable[[Path], list[str]]


def no_videos(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["extract", "--videos", str(folder / "empty"), "--features", str(folder / "f")]


def missing_column(folder: Path) -> list[str]:
    (folder / "labels.csv").write_text("video,split\na.mp4,train\n")
    return ["train", *options(folder), "--out", str(folder / "run")]


def nan_features(folder: Path) -> list[str]:
    path = folder / "features" / "i3d-rgb" / "video_05.mp4.npy"
    array = np.load(path)
    array[0] = np.inf
    np.save(path, array)
    return ["train", *options(folder), "--out", str(folder / "run")]


BAD_REQUESTS: dict[str, tuple[Prepare, str]] = {
    "no videos found": (no_videos, "no videos found in"),
    "missing path": (lambda d: ["extract", "--videos", f"{d}/none", "--features", f"{d}/f"], "none: no such file"),
    "unknown extractor": (
        lambda d: ["extract", "--videos", f"{d}/labels.csv", "--features", f"{d}/f", "--extractor", "c4d"],
        "no extractor 'c4d'",
    ),
    "no such device": (
        lambda d: f"extract --videos {d}/labels.csv --features {d}/f --weights random --device cuda:99".split(),
        "--device cuda:99: not to be had here",
    ),
    "empty batches": (
        lambda d: ["extract", "--videos", f"{d}/labels.csv", "--features", f"{d}/f", "--batch", "0"],
        "batch must be at least 1",
    ),
    "missing column": (missing_column, "no column label"),
    "infinite features": (nan_features, "video_05.mp4.npy: holds NaN or infinite"),
    "no such run": (lambda d: ["evaluate", "--run", f"{d}/none", *options(d), "--out", f"{d}/o"], "no such run folder"),
    "impossible false alarm rate": (
        lambda d: ["evaluate", "--run", f"{d}/none", *options(d), "--out", f"{d}/o", "--far-target", "2"],
        "far_target is a share of the frames",
    ),
    "impossible events": (
        lambda d: ["evaluate", "--run", f"{d}/none", *options(d), "--out", f"{d}/o", "--events.release", "2"],
        "events.release is a share of the threshold",
    ),
    "unknown detector": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--detector", "gan"],
        "no detector 'gan'",
    ),
    "impossible setting": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--batch", "0"],
        "batch must be positive",
    ),
    "unknown recipe": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--recipe", "ucf/gan"],
        "no recipe 'ucf/gan'; known: general/ar-net",
    ),
    "unknown quirk": (lambda d: ["train", *options(d), "--out", f"{d}/r", "--quirks", "odd"], "no quirk odd"),
    "bank larger than the data": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--xel", "epoch", "--xel.bank-size", "99"],
        "xel.bank_size 99 is larger than the data: there are 3 normal training videos",
    ),
    "epochs of what has none": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--detector", "svm", "--xel", "epoch"],
        "svm is fitted in one go",
    ),
    "unknown fold": (lambda d: ["train", *options(d), "--out", f"{d}/r", "--test-fold", "x"], "no column fold"),
    "unknown weights": (lambda d: ["weights", "fetch", "i4d"], "no weights 'i4d'"),
    "half a request": (lambda d: ["weights", "add", "i3d-rgb-kinetics400"], "usage: xelvad weights"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_gets_one_clear_line_and_code_2(
    dataset: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, message = BAD_REQUESTS[case]
    arguments = prepare(dataset)
    before = {path for path in dataset.rglob("*") if path.is_file()}
    assert main(arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line]
    assert lines[-1].startswith("xelvad: ")
    assert message in lines[-1]
    assert "Traceback" not in error
    assert {path for path in dataset.rglob("*") if path.is_file()} == before, "nothing half-written stays"


@pytest.mark.parametrize(
    "arguments", [["train", "--iteration", "many"], ["evaluate", "--protocol", "papers"], ["fly"], ["score"], []]
)
def test_what_cannot_be_parsed_is_code_2(arguments: list[str]) -> None:
    result = subprocess.run([*XELVAD, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()


def test_a_bug_is_said_in_one_line_and_shown_in_full_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dataset: Path
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("xelvad.pipeline.training.train", broken)
    assert train(dataset) == 3
    assert "this is a bug in xelvad" in capsys.readouterr().err
    monkeypatch.setenv("XELVAD_DEBUG", "1")
    with pytest.raises(KeyError):
        train(dataset)
