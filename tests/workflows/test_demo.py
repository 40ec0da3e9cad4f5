"""The whole way once, with the real I3D, on a handful of short videos: what `make demo` does, smaller."""

import csv
import doctest
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import xelvad
from xelvad.pipeline.cli import main
from xelvad.pipeline.experiments.demo import DemoResult, run_demo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult]:
    out = tmp_path_factory.mktemp("demo")
    return out, run_demo(out, videos=6, frames=70, seeds=2)


def test_the_demo_goes_from_videos_to_metrics_and_a_report(demo: tuple[Path, DemoResult]) -> None:
    out, result = demo
    assert [evaluation.label for evaluation in result.evaluations] == [
        f"{run}/seed-{seed}" for run in ("MIL", "MIL+XEL") for seed in (0, 1)
    ]
    mil, xel = (
        yaml.safe_load((out / "runs-0" / run / "seed-1" / "config.yaml").read_text()) for run in ("MIL", "MIL+XEL")
    )
    assert [mil["xel"].pop("mode"), xel["xel"].pop("mode")] == ["off", "epoch"]
    assert mil == xel, "they differ in nothing else"
    written = json.loads((out / "results-0" / "metrics.json").read_text())["runs"]
    assert [run["auc"] for run in written] == [evaluation.metrics.auc for evaluation in result.evaluations]
    (plain, xel) = (written[:2], written[2:])
    gains = [100 * (one["auc"] - other["auc"]) for one, other in zip(xel, plain, strict=True)]
    assert f"over 2 seeds: AUC {np.mean(gains):+.2f} ± {np.std(gains, ddof=1):.2f}".replace("-", "−") in result.finding
    page = result.report.read_text()
    with (out / "footage-0" / "annotations.csv").open() as file:
        tested = [row["video"] for row in csv.DictReader(file) if row["fold"] == "test"]
    assert len(tested) == 2
    for video in tested:
        assert video in page
    assert page.count('id="film-') == 2, "both films are in the page"
    own = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)  # plotly's source talks of addresses in its strings
    assert not re.search(r'(src|href)="https?://', own), "the page needs no network"


@pytest.mark.parametrize("name", ["load_run", "score_video"])
def test_the_examples_of_the_public_face_run(demo: tuple[Path, DemoResult], name: str) -> None:
    out, public = demo[0], getattr(xelvad, name)
    video = next((out / "footage-0" / "videos").glob("test_*.mp4"))
    known = {name: public, "video": video, "run_folder": out / "runs-0" / "MIL+XEL" / "seed-0"}
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs=known)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_a_second_demo_does_nothing_twice(demo: tuple[Path, DemoResult]) -> None:
    out, result = demo
    made = [
        path
        for path in out.rglob("*")
        if path.suffix in {".mp4", ".npy", ".safetensors"} and "results" not in str(path)
    ]
    before = {path: path.stat().st_mtime_ns for path in made}
    again = run_demo(out, videos=6, frames=70, seeds=2).evaluations
    assert [evaluation.metrics for evaluation in again] == [evaluation.metrics for evaluation in result.evaluations]
    assert {path: path.stat().st_mtime_ns for path in made} == before


def test_its_detector_scores_every_frame_of_a_new_video(
    demo: tuple[Path, DemoResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = demo
    video = next((out / "footage-0" / "videos").glob("test_*.mp4"))
    (tmp_path / "broken.mp4").write_text("not a video")
    run = str(out / "runs-0" / "MIL+XEL" / "seed-0")
    code = main(["score", str(video), str(tmp_path / "broken.mp4"), "--run", run, "--out", str(tmp_path / "scored")])
    assert code == 1, "done, but a video was set aside"
    assert "broken.mp4: not a video" in capsys.readouterr().err
    scores = np.load(tmp_path / "scored" / video.name / "scores.npy")
    assert scores.shape == (70,)
    page = (tmp_path / "scored" / "report.html").read_text()
    assert video.name in page
    assert 'id="film-0"' in page


def test_scoring_with_other_weights_than_the_runs_is_refused(
    demo: tuple[Path, DemoResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = demo
    video = next((out / "footage-0" / "videos").glob("test_*.mp4"))
    run = str(out / "runs-0" / "MIL" / "seed-0")
    code = main(["score", str(video), "--run", run, "--out", str(tmp_path / "scored"), "--weights", "random"])
    assert code == 2
    assert "at hand is «i3d-rgb" in capsys.readouterr().err
    assert not (tmp_path / "scored").exists()
