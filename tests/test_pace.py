"""Pace: a count of iterations as the papers have it, and trainings that end when there is nothing left to learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xelvad.models import MarginSchedule
from xelvad.pipeline.cli import main
from xelvad.pipeline.pace import ENOUGH, FEWEST, Pace
from xelvad.pipeline.settings import TrainingConfig, XELConfig

from .synthetic import write_dataset


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
def test_a_training_ends_once_its_videos_are_told_apart_and_xel_has_as_long_again(mode: str) -> None:
    learning = pace(mode)
    looked = followed(learning, lambda done: ENOUGH if done >= 130 else 0.5 + 0.003 * done)
    assert learning.learned_after == looked[-1]
    assert 130 <= looked[-1] < 145, "as soon as it is seen"
    assert learning.total == looked[-1] * (2 if mode == "epoch" else 1)
    margins = [learning.margin(iteration) for iteration in range(learning.total)]
    assert margins[: looked[-1]] == [None] * looked[-1]
    if mode == "epoch":
        grown = margins[looked[-1] :]
        assert [grown.count(margin) for margin in (0.5, 0.6, 0.7, 0.8, 0.9)] == [-(-looked[-1] // 6)] * 5
        assert grown == sorted(grown)
        assert grown[-1] == 1.0


def test_a_training_ends_when_the_last_half_of_it_has_added_nothing() -> None:
    stuck = pace()
    followed(stuck, lambda done: min(0.5 + 0.001 * done, 0.9))
    assert 740 <= stuck.total < 900, "at 370 iterations 0.87 was reached, three points short of what came later"


@pytest.mark.parametrize(("per_epoch", "fewest"), [(4, FEWEST), (100, 5 * 100)])
def test_a_training_that_learns_nothing_ends_soon_but_not_at_once(per_epoch: int, fewest: int) -> None:
    hopeless = pace(per_epoch=per_epoch)
    followed(hopeless, lambda done: 0.5)
    assert fewest <= hopeless.total < 1.25 * fewest


def test_a_training_that_goes_on_learning_ends_at_the_count_of_iterations() -> None:
    slow = pace("epoch", iterations=1000)
    followed(slow, lambda done: 0.5 + 0.00045 * done)
    assert (slow.learned_after, slow.total) == (1000, 2000)


@pytest.mark.parametrize("per_epoch", [1, 50, 700])
def test_looking_costs_no_more_than_a_share_of_the_training(per_epoch: int) -> None:
    looked = followed(pace(per_epoch=per_epoch), lambda done: 0.5 + 0.0001 * done)
    steps = [later - earlier for earlier, later in zip([0, *looked], looked, strict=False)]
    assert all(step >= min(per_epoch, 3000 - earlier) for step, earlier in zip(steps, [0, *looked], strict=False))
    assert len(looked) <= 60


def test_a_pace_that_is_restored_goes_on_as_it_was() -> None:
    whole, parts = pace("epoch"), pace("epoch")
    looked = followed(whole, lambda done: 0.5 + 0.002 * done)
    for done in range(1, 100):
        if parts.is_judged(done):
            parts.look(done, 0.5 + 0.002 * done)
    again = pace("epoch")
    again.restore(json.loads(json.dumps(parts.state)))
    assert again == parts
    for done in range(100, whole.total + 1):
        if again.is_judged(done) and again.looks:
            again.look(done, 0.5 + 0.002 * done)
    assert (again.seen, again.total) == (whole.seen, whole.total)
    assert [step for step, _ in again.seen] == looked


@pytest.mark.parametrize("mode", ["off", "epoch"])
def test_the_run_says_after_how_many_iterations_it_ended(tmp_path: Path, mode: str) -> None:
    write_dataset(tmp_path, videos=30)
    labels = ["--manifest", f"{tmp_path}/labels.csv", "--features", f"{tmp_path}/features"]
    assert main(["train", *labels, "--out", f"{tmp_path}/run", "--until-learned", "true", "--xel", mode]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    iterations = metrics["weights"]["last"]["iteration"]
    assert 0 < iterations < 1000
    assert iterations % 2 == 0 or mode == "off"
    assert metrics["history"]["iteration"][-1] == iterations
    assert metrics["learned"]["training"]["auc"] >= ENOUGH
