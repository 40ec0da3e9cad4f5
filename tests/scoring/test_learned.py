"""What a training says about itself: the interval against its definition and its promise, the verdict, the sentence."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from xelvad.pipeline.cli import main
from xelvad.pipeline.scoring.learned import Learned, Separation, auc_interval
from xelvad.pipeline.scoring.runs import load_run, read_learned

from ..helpers.features import write_dataset

Z = 1.959964


def newcombe(auc: float, abnormal: int, normal: int) -> tuple[float, float]:
    """Method 5 by its definition, on a fine grid: all θ of which ``auc`` lies within z standard errors."""
    theta = np.linspace(1e-6, 1 - 1e-6, 1_000_001)
    n_star = (abnormal + normal) / 2 - 1
    variance = theta * (1 - theta) / (abnormal * normal)
    variance *= 1 + n_star * (1 - theta) / (2 - theta) + n_star * theta / (1 + theta)
    inside = theta[np.abs(auc - theta) <= Z * np.sqrt(variance)]
    return float(inside[0]), float(inside[-1])


@pytest.mark.parametrize(("abnormal", "normal"), [(1, 1), (4, 4), (6, 17), (81, 80)])
@pytest.mark.parametrize("auc", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_the_interval_is_newcombes(auc: float, abnormal: int, normal: int) -> None:
    low, high = auc_interval(auc, abnormal, normal)
    assert (low, high) == pytest.approx(newcombe(auc, abnormal, normal), abs=1e-5)
    assert 0 <= low <= auc <= high <= 1
    mirrored = auc_interval(1 - auc, abnormal, normal)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("abnormal", "normal", "apart"), [(4, 4, 0.0), (6, 17, 1.0), (30, 60, 0.5)])
def test_the_interval_holds_the_truth_as_often_as_it_says(abnormal: int, normal: int, apart: float) -> None:
    rng, held = np.random.default_rng(0), 0
    truth = NormalDist().cdf(apart / 2**0.5)  # the chance that one of two normal variates is the larger one
    for _ in range(1000):
        found = Separation.of(list(rng.normal(apart, 1, abnormal)), list(rng.normal(0, 1, normal)))
        held += found.low <= truth <= found.high
    assert held >= 920


def separation(auc: float = 0.95, abnormal: int = 20, normal: int = 20, spread: float = 0.9) -> Separation:
    return Separation(auc, *auc_interval(auc, abnormal, normal), abnormal, normal, spread)


@pytest.mark.parametrize(
    ("training", "validation", "verdict", "said"),
    [
        (
            separation(),
            separation(),
            "learned",
            "it tells abnormal from normal videos: on validation videos AUC 95.0 %",
        ),
        (
            separation(),
            separation(0.75, 4, 4),
            "uncertain",
            "whether others, cannot be said, too few were put aside (--validation puts more",
        ),
        (separation(), None, "uncertain", "whether others, cannot be said, no video was put aside"),
        (separation(0.55), separation(0.9), "nothing", "IT LEARNED NOTHING: it tells abnormal from normal videos no"),
        (separation(), separation(0.3, 5, 13), "nothing", "no better than chance"),
        (separation(), separation(0.4, 4, 4), "uncertain", "AUC 40.0 %"),  # bad luck would do
        (separation(), separation(spread=1e-5), "nothing", "IT LEARNED NOTHING: its scores are flat"),
        (separation(spread=1e-5), None, "nothing", "try --bags.scale standard+l2"),
    ],
)
def test_the_verdict_and_what_is_said_of_it(
    training: Separation, validation: Separation | None, verdict: str, said: str
) -> None:
    learned = Learned(training, validation)
    assert learned.verdict == verdict
    assert said in learned.sentence
    assert "\n" not in learned.sentence
    assert Learned.restored(json.loads(json.dumps(learned.plain))) == learned


def test_scores_are_compared_video_by_video() -> None:
    found = Separation.of([0.9, 0.4], [0.5, 0.1, 0.1])
    assert (found.auc, found.abnormal, found.normal, found.spread) == (pytest.approx(5 / 6), 2, 3, pytest.approx(0.8))


@pytest.mark.parametrize("detector", ["mil", "srf", "ar-net", "svm"])
def test_a_training_says_whether_it_learned_and_so_do_its_run_and_its_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], detector: str
) -> None:
    write_dataset(tmp_path)
    labels = ["--manifest", f"{tmp_path}/labels.csv", "--features", f"{tmp_path}/features"]
    run = tmp_path / "run"
    settings = [] if detector == "svm" else ["--iterations", "2", "--learning-rate", "1e-9", "--bags.scale", "none"]
    assert main(["train", *labels, "--detector", detector, "--out", str(run), *settings]) == 0
    learned = read_learned(run)
    assert learned is not None
    assert learned == load_run(run).learned
    assert learned.sentence in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["learned"]["verdict"] == learned.verdict
    assert main(["evaluate", "--run", str(run), *labels, "--out", f"{tmp_path}/results"]) == 0
    shown = capsys.readouterr().out
    assert ("(learned nothing)" in shown) == (learned.verdict == "nothing")
    assert learned.sentence in shown
    assert learned.sentence.split("(")[0] in (tmp_path / "results" / "report.html").read_text()
    (first, *_) = json.loads((tmp_path / "results" / "metrics.json").read_text())["runs"]
    assert first["learned"] == learned.verdict
