"""`benchmarks/gpu.py`, tried where there is no GPU and where little is installed: as a borrowed machine may be."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# Put in the way of Python's own search: what is here, and would not be there.
ABSENT = """
import importlib.metadata as metadata
import sys
from importlib.machinery import PathFinder

NAMES = {"av", "cv2", "decord", "jsonargparse", "matplotlib", "openvino", "plotly", "pytorchvideo"}
found, version = PathFinder.find_spec, metadata.version


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in NAMES else found(name, path, target)


def version_of(name):
    if name in NAMES | {"xelvad"}:
        raise metadata.PackageNotFoundError(name)
    return version(name)


sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
metadata.version = version_of
"""
PARTS = ("parity", "step", "resume", "bank", "speed", "feeding", "preprocessing", "training", "decoding", "day")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark as its docstring says to run it, from sources that are not installed."""
    site = folder / "site"
    site.mkdir()
    (site / "xelvad").symlink_to(ROOT)
    (site / "sitecustomize.py").write_text(ABSENT)
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "XELVAD_CACHE": str(folder / "cache")}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--out", "gpu.json", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def cells(page: str) -> list[list[str]]:
    """The rows of a page's table."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_section_works_without_a_gpu_and_says_what_is_missing(tmp_path: Path) -> None:
    """But for compiling, which takes too long here."""
    done = run(tmp_path, "--sections", ",".join(PARTS), "--networks", "r3d-18,i3d-r50", "--seconds", "900")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert tuple(found["sections"]) == PARTS
    status = {name: section["status"] for name, section in found["sections"].items()}
    assert status == dict.fromkeys(PARTS, "passed") | {"decoding": "not measured"}
    assert "xelvad of the sources" in found["machine"]["versions"]
    assert "random" in found["machine"]["weights"]
    notes = {row["what"]: row["note"] for section in found["sections"].values() for row in section["rows"]}
    assert notes["i3d-r50"] == "not measured: pytorchvideo is not installed"
    assert notes["frames decoded"] == "not measured: no decoder here"

    page = (tmp_path / "gpu.md").read_text()
    assert done.stdout == page + "\n"
    header, *rows = cells(page)
    assert header == ["section", "what", "value", "unit", "goal", "reached", "note"]
    in_json = [(name, row["what"]) for name, section in found["sections"].items() for row in section["rows"]]
    assert [(row[0], row[1]) for row in rows] == in_json
    assert len(set(in_json)) == len(in_json), "a row can be told by its name"


def test_a_section_that_there_was_no_time_for_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "--sections", "step,day", "--seconds", "0")
    assert done.returncode == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert {name: section["error"] for name, section in found.items()} == dict.fromkeys(
        ("step", "day"), "not begun: no time was left"
    )
    assert "- step failed: not begun" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sections", "speed,sped"), "--sections: there is no 'sped'; known: parity, step,"),
        (("--networks", "c4d"), "--networks: there is no 'c4d'; known: i3d-rgb, c3d, r3d-18, i3d-r50"),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "gpu.json").exists()


# --- its parts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; the sections that it is given are functions of this one."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("gpu", "gpu_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("gpu")
    parts = {name: module.Part(__name__, name, 0.2) for name in ("breaks", "hangs", "falls_short", "measures")}
    monkeypatch.setattr(module, "PARTS", parts)
    return module


def breaks(setting: object, section: object) -> None:
    section.row("before", 1.0, "s")
    raise ZeroDivisionError("of a section\nand more")


def hangs(setting: object, section: object) -> None:
    try:
        time.sleep(20)
    except Exception:  # nothing within it takes the alarm for its own
        return


def falls_short(setting: object, section: object) -> None:
    section.row("wished for", 1.0, "%", at_least=2)
    section.row("demanded", float("nan"), "cosine", at_least=0.999, must=True)


def measures(setting: object, section: object) -> None:
    section.row("wished for", 1.0, "a|b", at_least=2)


def test_each_section_fails_by_itself(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "found.json"
    assert gpu.main(["--device", "cpu", "--out", str(out)]) == 1
    found = json.loads(out.read_text())["sections"]
    assert {name: section["status"] for name, section in found.items()} == {
        "breaks": "failed",
        "hangs": "failed",
        "falls_short": "failed",
        "measures": "passed",
    }
    assert found["breaks"]["error"] == "ZeroDivisionError: of a section"
    assert [row["what"] for row in found["breaks"]["rows"]] == ["before"]
    assert found["hangs"]["error"].startswith("ended after")
    assert found["hangs"]["seconds"] < 15
    assert [row["reached"] for row in found["falls_short"]["rows"]] == [False, False]
    assert found["falls_short"]["rows"][1]["value"] is None, "JSON has no NaN"
    assert "| measures | wished for | 1 | a\\|b | at least 2 | no |  |" in capsys.readouterr().out


def test_a_goal_that_is_missed_is_said_and_fails_nothing(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "found.json"), "--sections", "measures"]) == 0


def test_a_day_of_footage_by_hand(gpu: ModuleType) -> None:
    """24 x 60 x 60 x 25 frames; at 1.5625 clips of 16 a second, one camera is just kept up with."""
    bound = gpu.bound_of_a_day(1.5625, None)
    assert (bound.seconds, bound.cameras) == (86_400, 1)
    bound = gpu.bound_of_a_day(1000.0, 4320.0)
    assert (bound.network, bound.decoding, bound.by) == (135.0, 500.0, "decoding")
    assert bound.cameras == pytest.approx(172.8)
    assert gpu.bound_of_a_day(100.0, 4320.0).by == "the network"
