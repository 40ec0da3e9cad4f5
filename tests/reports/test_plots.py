"""Figures are drawn: what they say and show is read back from the SVG, and equal input gives equal bytes."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from xelvad.errors import UserError
from xelvad.pipeline.evaluation.curves import mean_roc
from xelvad.pipeline.evaluation.metrics import FrameMetrics
from xelvad.pipeline.experiments.ablation.ablate import Outcome, Result, grid
from xelvad.pipeline.experiments.ablation.config import AblationConfig
from xelvad.pipeline.experiments.ablation.page import Row, summarise
from xelvad.pipeline.experiments.ablation.plot import bar_name, draw_ablation, draw_ablation_if_possible
from xelvad.pipeline.reports import plots as figures
from xelvad.pipeline.reports.plots import PALETTE, Runs, draw_roc, draw_scores, draw_trade_off

from ..helpers.evaluations import make_up

SVG = "{http://www.w3.org/2000/svg}"
VIDEO = "scene 1/video_03.mp4"


class Drawn:
    """A figure that was drawn, by its SVG."""

    def __init__(self, stem: Path) -> None:
        self.root = ElementTree.parse(stem.with_name(f"{stem.name}.svg")).getroot()

    @property
    def texts(self) -> list[str]:
        return ["".join(part.strip() for part in text.itertext()) for text in self.root.iter(f"{SVG}text")]

    def ids(self, pattern: str) -> list[str]:
        return [group.get("id", "") for group in self.root.iter() if re.fullmatch(pattern, group.get("id", ""))]

    def path(self, identifier: str) -> tuple[NDArray[np.float64], str]:
        """The corners ``(points, 2)`` of the first path in a group, and its style."""
        path = next(group for group in self.root.iter() if group.get("id") == identifier).find(f".//{SVG}path")
        numbers = re.findall(r"-?[\d.]+(?:e-?\d+)?", path.get("d"))
        return np.array(numbers, np.float64).reshape(-1, 2), path.get("style", "")

    def in_axes(self, identifier: str) -> NDArray[np.float64]:
        """The same, as shares of the axes: (0, 0) is their lower left corner."""
        points, (frame, _) = self.path(identifier)[0], self.path("patch_2")
        low, high = frame.min(axis=0), frame.max(axis=0)
        return np.array([0, 1]) + np.array([1, -1]) * (points - low) / (high - low)


@pytest.fixture(scope="module")
def runs() -> Runs:
    """Three seeds of two runs, and a single run whose name is hostile to matplotlib."""
    seeds = {name: [make_up(name, seed, quality) for seed in range(3)] for name, quality in (("mil", 1), ("srf", 2))}
    return seeds | {"_$x_1$": [make_up("_$x_1$")]}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """An ablation of two detectors with two seeds."""
    rng = np.random.default_rng(0)
    results = []
    for cell in grid(AblationConfig(detectors=("mil", "ar-net"))):
        aucs = [0.7, 0.72] if cell.variant.mode == "off" else rng.uniform(0.6, 0.9, 2).tolist()
        metrics = [
            FrameMetrics(auc=auc, ap=0.1, auc_abnormal=0.6, far_normal=0, tpr=0, videos=4, frames=9) for auc in aucs
        ]
        results.append(Result(cell, tuple(Outcome(seed, each, {}) for seed, each in enumerate(metrics))))
    return summarise(results)


@pytest.fixture(params=["roc", "far_tpr", "scores", "ablation"])
def drawer(request: pytest.FixtureRequest, runs: Runs, rows: list[Row]) -> object:
    """Draws one kind of figure to a path."""
    return {
        "roc": lambda stem: draw_roc(stem, runs),
        "far_tpr": lambda stem: draw_trade_off(stem, runs),
        "scores": lambda stem: draw_scores(stem, VIDEO, runs),
        "ablation": lambda stem: draw_ablation(stem, rows),
    }[request.param]


@pytest.fixture
def someones_style() -> Iterator[None]:
    """A matplotlibrc that would spoil every figure."""
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "axes.facecolor": "red", "savefig.dpi": 20}):
        yield


def test_equal_input_gives_equal_bytes_whatever_the_users_style(
    drawer: object, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    drawer(tmp_path / "a")
    request.getfixturevalue("someones_style")
    drawer(tmp_path / "b")
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text("utf-8")


@pytest.mark.parametrize(("kind", "inches"), [("roc", 3.5), ("far_tpr", 3.5), ("scores", 7.16), ("ablation", 7.16)])
def test_figures_are_as_wide_as_one_or_two_columns_at_300_dots_an_inch(
    kind: str, inches: float, runs: Runs, rows: list[Row], tmp_path: Path
) -> None:
    draw = {"roc": draw_roc, "far_tpr": draw_trade_off}
    if kind in draw:
        draw[kind](tmp_path / kind, runs)
    elif kind == "scores":
        draw_scores(tmp_path / kind, VIDEO, runs)
    else:
        draw_ablation(tmp_path / kind, rows)
    with Image.open(tmp_path / f"{kind}.png") as picture:
        assert picture.width == int(300 * inches)
        assert np.asarray(picture.convert("L")).std() > 10, "a blank picture"
    assert float(Drawn(tmp_path / kind).root.get("width").removesuffix("pt")) == pytest.approx(72 * inches)


def test_dots_in_a_name_are_no_suffix(runs: Runs, tmp_path: Path) -> None:
    draw_roc(tmp_path / "v1.5", runs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1.5.png", "v1.5.svg"]


def test_the_roc_shows_each_run_with_its_auc_and_seeds_as_a_band(runs: Runs, tmp_path: Path) -> None:
    draw_roc(tmp_path / "roc", runs)
    drawn = Drawn(tmp_path / "roc")
    for name, seeds in runs.items():
        aucs = 100 * np.array([each.metrics.auc for each in seeds])
        spread = f" ± {np.std(aucs, ddof=1):.2f}" if len(aucs) > 1 else ""
        assert f"{name} ({np.mean(aucs):.2f}{spread})" in drawn.texts
    assert {"False positive rate", "True positive rate", "Run (AUC %)"} <= set(drawn.texts)
    assert drawn.ids(r"run-\d+") == ["run-0", "run-1", "run-2"]
    assert drawn.ids(r"band-\d+") == ["band-0", "band-1"]


def test_the_roc_is_where_it_should_be(runs: Runs, tmp_path: Path) -> None:
    draw_roc(tmp_path / "roc", runs)
    drawn = Drawn(tmp_path / "roc")
    for number, seeds in enumerate(runs.values()):
        points, (fpr, tpr, _) = drawn.in_axes(f"run-{number}"), mean_roc([each.roc for each in seeds])
        np.testing.assert_allclose(points[[0, -1]], [[0, 0], [1, 1]], atol=1e-3)
        distances = [np.hypot(fpr - x, tpr - y).min() for x, y in points]  # matplotlib only leaves points out
        assert max(distances) < 5e-3
        assert PALETTE[number].lower() in drawn.path(f"run-{number}")[1]


def test_the_trade_off_marks_what_the_metrics_say_at_one_half(runs: Runs, tmp_path: Path) -> None:
    draw_trade_off(tmp_path / "far", runs)
    drawn = Drawn(tmp_path / "far")
    assert {*runs, "Run (● at threshold 0.5)", "0.1", "100"} <= set(drawn.texts)
    assert drawn.ids(r"run-\d+") == ["run-0", "run-1", "run-2"]
    (left, top), (right, bottom) = (edge(drawn.path("patch_2")[0], axis=0) for edge in (np.min, np.max))
    marks = [mark for mark in drawn.root.iter(f"{SVG}use") if "stroke: #ffffff" in mark.get("style", "")]
    assert len(marks) == len(runs)
    for mark, seeds in zip(marks, runs.values(), strict=True):
        tpr = np.mean([each.metrics.tpr for each in seeds])
        assert (bottom - float(mark.get("y"))) / (bottom - top) == pytest.approx(tpr, abs=2e-3)
        assert left < float(mark.get("x")) < right


def test_scores_are_drawn_with_truth_and_threshold(runs: Runs, tmp_path: Path) -> None:
    draw_scores(tmp_path / "scores", VIDEO, runs, thresholds=(0.5, 0.25))
    drawn = Drawn(tmp_path / "scores")
    assert {VIDEO, "Frame", "Anomaly score", "threshold 0.5", "threshold 0.25", "anomalous", *runs} <= set(drawn.texts)
    scored = next(video for video in runs["_$x_1$"][0].videos if video.name == VIDEO)
    points = drawn.in_axes("run-2")[1:-1]  # two corners a step, and both ends once more
    steps = np.append(np.flatnonzero(np.diff(scored.scores, prepend=-1)), len(scored.scores))
    np.testing.assert_allclose(points[::2, 0], steps[:-1] / steps[-1], atol=1e-3)
    np.testing.assert_allclose(points[1::2, 0], steps[1:] / steps[-1], atol=1e-3)
    np.testing.assert_allclose(points[::2, 1], scored.scores[steps[:-1]] / 1.03, atol=1e-3)
    first, last = np.flatnonzero(scored.truth)[[0, -1]]
    shades = [drawn.in_axes(name) for name in drawn.ids(r"patch_\d+") if "#e2e2e2" in drawn.path(name)[1]]
    np.testing.assert_allclose(shades[0][:, 0].min(), first / steps[-1], atol=1e-3)
    np.testing.assert_allclose(shades[0][:, 0].max(), (last + 1) / steps[-1], atol=1e-3)


def test_low_scores_fill_the_axis_and_a_threshold_above_them_is_left_out(tmp_path: Path) -> None:
    low = make_up("low", shift=-9.0)
    scored = next(video for video in low.videos if video.name == VIDEO)
    assert scored.scores.max() < 0.5
    draw_scores(tmp_path / "scores", VIDEO, {"low": [low]})
    drawn = Drawn(tmp_path / "scores")
    assert "threshold 0.5" not in drawn.texts
    assert drawn.in_axes("run-0")[:, 1].max() == pytest.approx(1 / 1.03, abs=1e-3)


def test_points_that_no_eye_tells_apart_are_left_out() -> None:
    points = np.array([[0, 0.0001, 0.0004, 0.1, 0.1, 1], [0, 0, 0.2, 0.2, 0.20004, 1]])
    np.testing.assert_array_equal(figures.distinct(points), [[0, 0, 0.1, 1], [0, 0.2, 0.2, 1]])


def test_a_normal_video_has_no_shade(runs: Runs, tmp_path: Path) -> None:
    draw_scores(tmp_path / "scores", "scene 0/video_02.mp4", runs)
    assert "anomalous" not in Drawn(tmp_path / "scores").texts
    assert "#e2e2e2" not in (tmp_path / "scores.svg").read_text()


def test_many_runs_differ_in_dashes_when_the_colours_are_used_up(tmp_path: Path) -> None:
    draw_roc(tmp_path / "roc", {f"run {number}": [make_up(f"run {number}")] for number in range(2 * len(PALETTE) + 1)})
    styles = {Drawn(tmp_path / "roc").path(f"run-{number}")[1] for number in range(2 * len(PALETTE) + 1)}
    assert len(styles) == 2 * len(PALETTE) + 1


def test_the_ablation_has_a_bar_for_every_configuration_and_one_for_its_gain(rows: list[Row], tmp_path: Path) -> None:
    draw_ablation(tmp_path / "ablation", rows)
    drawn = Drawn(tmp_path / "ablation")
    assert {"MIL", "AR-Net", "AUC (%)", "Gain (points)", "no XEL", "bank per epoch", "bank per batch", "both"} <= set(
        drawn.texts
    )
    assert drawn.texts.count("Lv") == drawn.texts.count("Lm") == 2
    bars = drawn.ids(r"bar-.*")
    assert len(bars) == len(set(bars)) == len(rows) + sum(row.gain is not None for row in rows)
    heights = {name: np.ptp(drawn.path(name)[0][:, 1]) for name in bars}
    above_chance = [100 * row.figures["auc"][0] - 50 for row in rows]
    drawn_heights = [heights[f"bar-auc-{bar_name(row)}"] for row in rows]
    np.testing.assert_allclose(
        np.array(drawn_heights) / drawn_heights[0], np.array(above_chance) / above_chance[0], rtol=1e-3
    )
    gains = [abs(row.gain[0]) for row in rows if row.gain is not None]
    drawn_gains = [heights[f"bar-gain-{bar_name(row)}"] for row in rows if row.gain is not None]
    np.testing.assert_allclose(np.array(drawn_gains) / drawn_gains[0], np.array(gains) / gains[0], rtol=1e-2)


def test_without_matplotlib_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, rows: list[Row], tmp_path: Path
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "xelvad\[figures\]"'):
        draw_roc(tmp_path / "roc", runs)
    assert draw_ablation_if_possible(tmp_path / "ablation", rows) is None
    assert not list(tmp_path.iterdir())
