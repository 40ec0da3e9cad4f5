"""The command line as a user meets it: exit codes, one clear line for every bad request, and the whole way once."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xelvad.pipeline.cli import COMMANDS, build_parser, main, spell_options

from .helpers.features import write_dataset

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


def commands_in(page: Path) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in page.read_text("utf-8").splitlines() if line.startswith("xelvad ")]


@pytest.mark.parametrize("page", ["docs/ucf-crime.md", "docs/shanghaitech.md"])
def test_the_commands_of_the_documentation_can_be_parsed(page: str) -> None:
    commands = commands_in(Path(__file__).parents[1] / page)
    way = {"audit", "extract", "train", "evaluate", "compare", "results"}
    assert {command[0] for command in commands} - {"weights", "import"} == way
    for command in commands:
        build_parser(spell_options(command)).parse_args(spell_options(command))


def test_the_commands_of_upkeep_in_the_documentation_can_be_parsed() -> None:
    commands = commands_in(Path(__file__).parents[1] / "docs/reliability.md")
    assert {command[0] for command in commands} == {"verify", "gc"}
    for command in commands:
        build_parser(spell_options(command)).parse_args(spell_options(command))


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


def official(folder: Path) -> list[str]:
    """The synthetic data set as a small UCF-Crime: lists, and features in the layout of its download."""
    lists, names = folder / "lists", {}
    for row in (folder / "labels.csv").read_text().splitlines()[1:]:
        video, split, label, _, spans = row.split(",")
        name = f"Arson{video[6:8]}_x264.mp4" if label == "1" else f"Normal_Videos0{video[6:8]}_x264.mp4"
        names[name] = split, spans.replace("-", " ") if spans else "-1 -1"
        place = (
            folder / "official" / "i3d-rgb" / f"Anomaly-Videos-Part-1/Arson/{name}"
            if label == "1"
            else (folder / "official" / "i3d-rgb" / f"Testing_Normal_Videos_Anomaly/{name}")
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ".npy", ".json":
            (folder / "features" / "i3d-rgb" / f"{video}{suffix}").rename(f"{place}{suffix}")
    lists.mkdir()
    (lists / "Anomaly_Train.txt").write_text("\n".join(name for name, (split, _) in names.items() if split == "train"))
    test = [f"{name} {spans} -1 -1" for name, (split, spans) in names.items() if split == "test"]
    (lists / "Temporal_Anomaly_Annotation.txt").write_text("\n".join(test))
    return ["--dataset", "ucf-crime", "--annotations", f"{lists}", "--features", f"{folder}/official"]


def test_official_lists_go_the_whole_way(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = official(dataset)
    run, results = str(dataset / "run"), str(dataset / "results")
    assert main(["train", *given, "--out", run, "--iterations", "5"]) == 0
    assert main(["evaluate", "--run", run, *given, "--out", results]) == 0
    assert "Evaluation on UCF-Crime" in (dataset / "results" / "report.html").read_text()
    assert (dataset / "results" / "run" / "Arson01_x264" / "scores.npy").exists()
    out = str(dataset / "ablation")
    assert main(["ablate", *given, "--out", out, "--detectors", "mil", "--seeds", "1", "--iterations", "2"]) == 0
    assert (
        f"xelvad ablate --dataset ucf-crime --annotations {dataset}/lists"
        in (dataset / "ablation" / "ablation.md").read_text()
    )
    assert main(["ablate", *given, "--out", out, "--test-fold", "all"]) == 2
    assert "--test_fold all: ucf-crime has a split" in capsys.readouterr().err


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
    "epochs of what has none": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--detector", "svm", "--xel", "epoch"],
        "svm is fitted in one go",
    ),
    "an option of another detector": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--options.labels", "guided"],
        "mil has no option labels; known: dropout",
    ),
    "a value that an option cannot have": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--detector", "srf", "--options.labels", "cosine"],
        "options of srf: labels are scores or guided, not cosine",
    ),
    "an option of what has none": (
        lambda d: ["train", *options(d), "--out", f"{d}/r", "--detector", "svm", "--options.labels", "guided"],
        "svm has no option labels",
    ),
    "no data set": (
        lambda d: ["train", "--features", f"{d}/features", "--out", f"{d}/r"],
        "--manifest is missing",
    ),
    "two data sets": (
        lambda d: ["train", *options(d), "--dataset", "shanghaitech", "--out", f"{d}/r"],
        "--dataset shanghaitech is another: leave one",
    ),
    "no official lists": (
        lambda d: f"evaluate --run {d} --dataset ucf-crime --annotations {d} --features {d} --out {d}/o".split(),
        "should hold one Anomaly_Train.txt, but there is none",
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
    "arguments",
    [
        ["train", "--iteration", "many"],
        ["evaluate", "--protocol", "papers"],
        ["fly"],
        ["score"],
        [],
        ["score", "a.mp4", "--run", "r", "--out", "o", "--shard", "1/2"],
    ],
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

    monkeypatch.setattr("xelvad.pipeline.training.train.train", broken)
    assert train(dataset) == 3
    assert "this is a bug in xelvad" in capsys.readouterr().err
    monkeypatch.setenv("XELVAD_DEBUG", "1")
    with pytest.raises(KeyError):
        train(dataset)
