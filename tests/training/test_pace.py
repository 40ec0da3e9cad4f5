"""Pace: a count of iterations as the papers have it, and trainings that end when there is nothing left to learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xelvad.errors import UserError
from xelvad.models import MarginSchedule
from xelvad.pipeline.cli import main
from xelvad.pipeline.training.config import TrainingConfig, XELConfig
from xelvad.pipeline.training.pace import FEWEST, TOLD_APART, Pace

from ..helpers.features import write_dataset


def pace(mode: str = "off", per_epoch: int = 4, **settings: object) -> Pace:
    return Pace(
        TrainingConfig(**{"until_learned": True, "iterations": 3000} | settings, xel=XELConfig(mode=mode)), per_epoch
    )


def followed(pace: Pace, auc: Callable[[int], float]) -> list[int]:
    """After how many iterations a training looks whose videos are told apart so well; it ends where it ends."""
    looked, done = [], 0
    while done < pace.total:
        done += 1
        if pace.is_judged(done) and pace.looks:
            looked.append(done)
            pace.look(done, auc(done))
    assert done == pace.total
    return looked


@pytest.mark.parametrize("mode", ["off", "epoch", "batch"])
def test_a_count_of_iterations_is_kept_whatever_is_learned(mode: str) -> None:
    fixed = pace(mode, until_learned=False, iterations=100, evaluations=4)
    assert (fixed.total, fixed.looks) == (100, False)
    assert [done for done in range(1, 101) if fixed.is_judged(done)] == [25, 50, 75, 100]
    assert fixed.schedule == MarginSchedule.spread_over(100)
    assert [fixed.margin(i) for i in range(100)] == [fixed.schedule(i) for i in range(100)]


@pytest.mark.parametrize("mode", ["off", "epoch"])
def test_the_warm_up_ends_once_the_videos_are_told_apart_and_is_its_share_of_all(mode: str) -> None:
    learning = pace(mode)
    looked = followed(learning, lambda done: 0.5 + 0.003 * done)
    assert learning.learned_after == looked[-1]
    assert 100 <= looked[-1] < 115, "as soon as it is seen"
    assert learning.total == round(looked[-1] / 0.15), "with XEL as without, so that they can be compared"
    assert learning.schedule == MarginSchedule.spread_over(learning.total)
    assert learning.schedule.warmup == looked[-1]


@pytest.mark.parametrize("mode", ["off", "epoch"])
def test_there_is_no_margin_before_the_videos_are_told_apart(mode: str) -> None:
    learning = pace(mode)
    for done in range(1, 100):
        assert learning.margin(done) is None
        if learning.is_judged(done):
            learning.look(done, 0.6)


def test_luck_at_the_first_looks_ends_no_warm_up() -> None:
    lucky = pace()
    followed(lucky, lambda done: 1.0)
    assert FEWEST <= lucky.learned_after < 1.3 * FEWEST


def test_a_training_that_never_tells_them_apart_ends_at_the_count_of_iterations() -> None:
    hopeless = pace("epoch", iterations=1000)
    followed(hopeless, lambda done: 0.5)
    assert (hopeless.learned_after, hopeless.total) == (150, 1000)


@pytest.mark.parametrize("per_epoch", [1, 50, 700])
def test_looking_costs_no_more_than_a_share_of_the_training(per_epoch: int) -> None:
    looked = followed(pace(per_epoch=per_epoch), lambda done: 0.5)
    steps = [later - earlier for earlier, later in zip([0, *looked], looked, strict=False)]
    assert all(step >= min(per_epoch, 450 - earlier) for step, earlier in zip(steps, [0, *looked], strict=False))
    assert len(looked) <= 30


def test_a_pace_that_is_restored_goes_on_as_it_was() -> None:
    whole, parts = pace("epoch"), pace("epoch")
    looked = followed(whole, lambda done: 0.5 + 0.002 * done)
    for done in range(1, 80):
        if parts.is_judged(done):
            parts.look(done, 0.5 + 0.002 * done)
    again = pace("epoch")
    again.restore(json.loads(json.dumps(parts.state)))
    assert again == parts
    later = []
    for done in range(80, whole.total + 1):
        if again.is_judged(done) and again.looks:
            later.append(done)
            again.look(done, 0.5 + 0.002 * done)
    assert later == [step for step in looked if step >= 80]
    assert again == whole


def test_the_share_that_makes_the_total_cannot_be_nothing() -> None:
    with pytest.raises(UserError, match=r"xel\.warmup must be above 0 with until_learned"):
        TrainingConfig(until_learned=True, xel=XELConfig(warmup=0.0))


@pytest.mark.parametrize("mode", ["off", "epoch"])
def test_the_run_says_after_how_many_iterations_it_ended(tmp_path: Path, mode: str) -> None:
    write_dataset(tmp_path, videos=30)
    labels = ["--manifest", f"{tmp_path}/labels.csv", "--features", f"{tmp_path}/features"]
    assert main(["train", *labels, "--out", f"{tmp_path}/run", "--until-learned", "true", "--xel", mode]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    iterations = metrics["weights"]["last"]["iteration"]
    assert FEWEST / 0.15 <= iterations < 500
    assert metrics["history"]["iteration"][-1] == iterations
    assert metrics["learned"]["training"]["auc"] >= TOLD_APART
