"""What was published, as it was printed, and which of it belongs beside a run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from xelvad.errors import UserError
from xelvad.models import DETECTORS
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import Dataset, LabelledVideo
from xelvad.pipeline.experiments.published import (
    OfficialSet,
    data_set_of,
    differences_of_data,
    differences_of_method,
    differences_of_settings,
    protocol_of,
    read_paper,
    row_of,
)
from xelvad.pipeline.scoring.runs import RunManifest, identity_of, read_manifest_of_run
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.videos.clips import Segments

from ..helpers.features import write_dataset

PAPER = read_paper("xel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in a folder called like UCF-Crime, and a run of SRF+XEL on it."""
    folder = tmp_path_factory.mktemp("published") / "ucf-crime"
    write_dataset(folder)
    train = ["train", *options(folder), "--out", str(folder / "srf"), "--detector", "srf", "--xel", "epoch"]
    assert main([*train, "--iterations", "6", "--validation", "0.3"]) == 0
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> RunManifest:
    return read_manifest_of_run(folder / "srf")


def options(folder: Path) -> list[str]:
    return ["--manifest", f"{folder}/labels.csv", "--features", f"{folder}/features"]


def dataset(name: str, test_videos: int = 1) -> Dataset:
    videos = tuple(LabelledVideo(f"{number}.mp4", "test", False) for number in range(test_videos))
    return Dataset(name, Path(), videos, "digest")


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_the_papers() -> None:
    """Of every method that can be trained here: AUC on UCF-Crime and ShanghaiTech, FAR and TPR on UCF-Crime."""
    found = {}
    for row in PAPER.rows:
        if row.detector is not None:
            ucf, shanghai = (row.figures.get(name, {}) for name in ("ucf-crime", "shanghaitech"))
            printed = (ucf.get("auc"), shanghai.get("auc"), ucf.get("far_normal"), ucf.get("tpr"))
            found[row.detector, row.xel, row.extractor] = printed
    assert found == {
        ("svm", "off", "c3d"): ("50.00", None, None, None),
        ("mil", "off", "c3d"): ("75.41", "83.17", "1.9", "21"),
        ("gcn-cleaner", "off", "c3d"): ("81.08", "76.44", "2.8", None),
        ("gcn-cleaner", "off", "tsn-rgb"): ("82.12", "84.13", "1.1", None),
        ("srf", "off", "c3d"): ("79.54", "84.16", "0.13", "25"),
        ("ar-net", "off", "i3d-rgb"): ("75.71", "85.38", "0.40", "13"),
        ("claws", "off", "c3d"): ("83.08", "89.67", "0.12", None),
        ("ar-net", "off", "i3d-conc"): (None, "91.24", None, None),
        ("mil", "epoch", "c3d"): ("82.60", "86.58", "0.0", "44"),
        ("srf", "epoch", "c3d"): ("83.47", "86.60", "0.0", "45"),
        ("ar-net", "epoch", "i3d-rgb"): ("82.15", "87.83", "0.03", "40"),
    }


def test_every_figure_is_a_percentage_and_every_row_has_one() -> None:
    for row in PAPER.rows:
        assert row.figures
        assert row.figures.keys() <= PAPER.data_sets.keys()
        assert row.notes.keys() <= row.figures.keys()
        assert row.detector is None or row.detector in DETECTORS
        for figures in row.figures.values():
            assert figures.keys() <= {"auc", "far_normal", "tpr"}
            assert all(0 <= float(text) <= 100 for text in figures.values())


def test_the_published_table_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results"]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert [row[:2] for row in rows] == [[row.method, row.features] for row in PAPER.rows]
    assert rows[-1] == ["AR-Net+XEL", "I3D-RGB", "82.15", "0.03", "40", "87.83*"]
    assert rows[0][2:] == ["50.00", "–", "–", "–"]
    assert "* AR-Net+XEL on ShanghaiTech: derived; not certain" in printed
    assert "doi 10.1109/LSP.2021.3117737" in printed
    assert main(["results", "--paper", "rtfm"]) == 2
    assert "no published results 'rtfm'; known: xel" in capsys.readouterr().err


# --- which row --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("UCF-Crime", "ucf-crime"), ("ShanghaiTech", "shanghaitech"), ("ucf-crime/labels.csv", "ucf-crime")],
)
def test_data_sets_are_recognised_by_name(name: str, expected: str) -> None:
    assert data_set_of(PAPER, dataset(name)) == expected


@pytest.mark.parametrize("name", ["XD-Violence", "cctv/ucf-crime", "ucf-crime2/labels.csv"])
def test_on_other_data_nothing_was_published(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: nothing is published on it, only on ucf-crime, shanghaitech"):
        data_set_of(PAPER, dataset(name))


@pytest.mark.parametrize(
    ("detector", "xel", "extractor", "data_set", "method"),
    [
        ("mil", "epoch", "i3d-rgb", "ucf-crime", ("MIL+XEL", "C3D")),
        ("ar-net", "off", "i3d-rgb", "shanghaitech", ("AR-Net", "I3D-RGB")),
        ("ar-net", "off", "i3d-conc", "shanghaitech", ("AR-Net", "I3D-conc (RGB and flow)")),
        ("ar-net", "off", "i3d-conc", "ucf-crime", ("AR-Net", "I3D-RGB")),
        ("svm", "off", "c3d", "ucf-crime", ("SVM baseline", "C3D")),
        ("svm", "off", "c3d", "shanghaitech", None),
        ("mil", "batch", "c3d", "ucf-crime", None),
    ],
)
def test_a_run_belongs_to_the_row_of_its_method_and_if_there_is_one_of_its_features(
    manifest: RunManifest, detector: str, xel: str, extractor: str, data_set: str, method: tuple[str, str] | None
) -> None:
    row = row_of(PAPER, replace(manifest, detector=detector, xel=xel, extractor=extractor), data_set)
    assert (None if row is None else (row.method, row.features)) == method


# --- what is unfair ---------------------------------------------------------------------------------------------------


def test_nothing_is_unfair_about_a_run_just_like_the_papers(manifest: RunManifest) -> None:
    official = OfficialSet("UCF-Crime", training_videos=8, test_videos=3)
    same = replace(manifest, dataset="UCF-Crime", training_videos=8, detector="mil", xel="off", extractor="c3d")
    same = replace(same, clipping=Segments(32))
    row = row_of(PAPER, same, "ucf-crime")
    assert row is not None
    assert differences_of_data(official, same, dataset("UCF-Crime", 3)) == []
    assert differences_of_method(row, same) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extractor": "i3d-rgb"}, "features of i3d-rgb, not C3D"),
        ({"detector": "ar-net"}, "32 segments a video, not clips of 16 frames"),
        ({"quirks": "xel-dropout"}, "makes mistakes of the published script on purpose (quirks: xel-dropout)"),
        ({"detector": "srf", "xel": "epoch"}, "mistakes that this run does not (--quirks official)"),
    ],
)
def test_each_difference_of_method_is_named(manifest: RunManifest, changes: dict[str, str], reason: str) -> None:
    same = replace(manifest, detector="mil", xel="off", extractor="c3d", clipping=Segments(32))
    changed = replace(same, **changes)
    row = row_of(PAPER, changed, "ucf-crime")
    assert row is not None
    assert any(reason in found for found in differences_of_method(row, changed))


@pytest.mark.parametrize(
    ("changes", "name", "test_videos", "reasons"),
    [
        ({}, "UCF-Crime", 4, ["4 test videos, not 3"]),
        ({"training_videos": 6}, "UCF-Crime", 3, ["learnt from 6 videos (2 more for validation), not 8"]),
        ({"training_videos": 6, "validation_videos": 0}, "UCF-Crime", 3, ["learnt from 6 videos, not 8"]),
        ({"dataset": "cctv/labels.csv"}, "UCF-Crime", 3, ["learnt from cctv/labels.csv"]),
        ({"dataset": "ucf-crime/a.csv"}, "ucf-crime/a.csv", 3,
         ["labels of a manifest of one's own (ucf-crime/a.csv), not of the official lists"]),
    ],
)  # fmt: skip
def test_each_difference_of_data_is_named(
    manifest: RunManifest, changes: dict[str, object], name: str, test_videos: int, reasons: list[str]
) -> None:
    official = OfficialSet("UCF-Crime", training_videos=8, test_videos=3)
    same = replace(manifest, dataset="UCF-Crime", training_videos=8, validation_videos=2)
    assert differences_of_data(official, replace(same, **changes), dataset(name, test_videos)) == reasons


def test_settings_of_the_papers_recipe_are_no_difference_and_others_are_named(folder: Path) -> None:
    settings = identity_of(folder / "srf")["config"]
    (reason,) = differences_of_settings("ucf-crime/srf+xel", settings)
    assert (
        "recipe ucf-crime/srf+xel: iterations 6, not 50000; until_learned True, not False; learning_rate 0.0005"
        in reason
    )
    recipe = load_recipe("ucf-crime/srf+xel")
    for name in ("iterations", "until_learned", "learning_rate", "batch", "weight_decay"):
        settings[name] = getattr(recipe, name)
    settings["betas"], settings["bags"]["scale"] = list(recipe.betas), recipe.bags.scale
    settings["xel"]["margin_step"], settings["xel"]["progressive"] = recipe.xel.margin_step, False
    assert differences_of_settings("ucf-crime/srf+xel", settings | {"seed": 9, "device": "cuda", "validation": 0}) == []


def test_clips_and_segments_are_measured_by_protocols_of_their_own(manifest: RunManifest) -> None:
    segments = replace(manifest, clipping=Segments(32))
    assert protocol_of({"a": manifest, "b": manifest}).name == "xel"
    assert protocol_of({"a": segments}).name == "mil"
    with pytest.raises(UserError, match="b learnt from segments and a from clips"):
        protocol_of({"a": manifest, "b": segments})


# --- beside runs ------------------------------------------------------------------------------------------------------


def test_runs_stand_beside_what_was_published(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", str(folder / "srf"), "--paper", "xel", *options(folder)]) == 0
    printed = capsys.readouterr().out
    evaluate = ["evaluate", "--run", str(folder / "srf"), *options(folder), "--out", str(folder / "out")]
    assert main([*evaluate, "--protocol", "xel"]) == 0
    measured = json.loads((folder / "out" / "metrics.json").read_text())["summary"][0]["mean"]
    lines = [line for line in printed.splitlines() if "│" in line]
    (auc,) = [line.split("│") for line in lines if "srf, last" in line]
    assert [cell.strip() for cell in auc[1:-1]] == [
        "srf, last", "SRF+XEL, C3D", "AUC %", "83.47",
        f"{100 * measured['auc']:.2f}", f"{100 * measured['auc'] - 83.47:+.2f}".replace("-", "−"),
    ]  # fmt: skip
    assert (
        sum("FAR normal %" in line for line in lines) == sum("TPR %" in line for line in lines) == 3
    )  # choices of weights
    assert "srf, best on test†" in printed
    assert "† chosen on the very videos it is measured on: an upper bound" in printed
    assert "srf: not a fair comparison with the published SRF+XEL:" in printed
    assert "here: protocol xel, complete clips only" in printed
    assert "  - 4 test videos, not 290\n" in printed
    assert printed.count("  - features of i3d-rgb, not C3D\n") == 1


def test_seeds_are_summed_up_and_a_run_without_a_row_is_said_to_have_none(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", *options(folder), "--out", f"{tmp_path}/batch", "--seeds", "2", "--xel", "batch"]
    assert main([*train, "--iterations", "3", "--validation", "0", "--follow-test", "false"]) == 0
    assert main(["results", f"{tmp_path}/batch", *options(folder)]) == 0
    printed = capsys.readouterr().out
    assert "batch, last, 2 seeds │ – " in printed
    assert "batch: nothing is published for MIL+XEL (batch-wise) on UCF-Crime" in printed
    assert "†" not in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [([], "name their folder by --features DIR"), (["--features", "f"], "--manifest is missing")],
)
def test_a_run_needs_a_data_set(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(["results", str(folder / "srf"), *more]) == 2
    assert message in capsys.readouterr().err


def test_on_data_of_ones_own_the_way_out_is_named_before_anything_is_evaluated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xelvad.pipeline.experiments.published.evaluate_all", lambda *_: pytest.fail("evaluated"))
    (tmp_path / "street").mkdir()
    shutil.copy(folder / "labels.csv", tmp_path / "street")
    command = ["results", str(folder / "srf"), "--manifest", f"{tmp_path}/street/labels.csv"]
    assert main([*command, "--features", str(folder / "features")]) == 2
    error = capsys.readouterr().err
    assert "street/labels.csv: nothing is published on it" in error
    assert "xelvad compare" in error
