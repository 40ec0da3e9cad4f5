"""The pool, on a real cluster of two nodes: whatever dies, each task is given back once, with what came of it."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("ray")

from xelvad.errors import UserError
from xelvad.pipeline.cluster import pool as pools
from xelvad.pipeline.cluster.pool import Outcome, Pool, Resources
from xelvad.pipeline.support.progress import Progress
from xelvad.tests.cluster import work  # the actors look for it under this name, whatever the checkout is called

from .conftest import Nodes


class Listening:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        return Progress(verb, items, unit)


def collect(pool: Pool[str, str], meanwhile: Callable[[], None] = lambda: None) -> list[Outcome[str, str]]:
    outcomes: list[Outcome[str, str]] = []
    deadline = time.monotonic() + 180
    while pool.left:
        outcomes += pool.wait(0.2)
        meanwhile()
        assert time.monotonic() < deadline, "it waits for ever"
    return outcomes


def done_of(outcomes: Sequence[Outcome[str, str]]) -> list[str]:
    return sorted(outcome.task for outcome in outcomes if outcome.result == f"{outcome.task}, done")


def tries(folder: Path, task: str) -> int:
    return len((folder / task).read_text().splitlines())


def test_one_pool_takes_all_that_can_happen_to_tasks_and_their_processes(nodes: Nodes, tmp_path: Path) -> None:
    """Deaths and errors are held against the task that caused them, and against no other."""
    report, units = Listening(), []
    good = [f"good {number}" for number in range(12)]
    bad = ["dies-once 1", "poison 1", "raises 1", "refuses 1"]
    with Pool(work.maker(tmp_path), Resources(), report, hand=3, advance=units.append) as pool:
        pool.submit([*good[:4], *bad, *good[4:]])
        outcomes = collect(pool)
        assert pool.actors <= 2
    assert len(outcomes) == len(good) + len(bad)
    by = {outcome.task: outcome for outcome in outcomes}
    company = {task for task in good if by[task].refused is not None}  # handed out together with the wrong request
    assert done_of(outcomes) == sorted({*good, "dies-once 1"} - company)
    assert len(company) <= 2
    assert by["refuses 1"].refused == "wrong from the start"
    assert by["raises 1"].result is None
    assert "ValueError: for a reason of its own (work.py, line" in (by["raises 1"].lost or "")
    assert "died: " in (by["poison 1"].lost or "")
    assert tries(tmp_path, "dies-once 1") == 2
    assert {tries(tmp_path, "poison 1"), tries(tmp_path, "raises 1")} <= {2, 3}  # once more where in company before
    deaths = [line for line in report.said if " died: " in line]
    assert len(deaths) == 1 + tries(tmp_path, "poison 1")
    assert all("Its last words are in /" in line and line.count("\n") == 0 for line in deaths)
    assert sum(units) >= len(done_of(outcomes))


def test_nodes_that_go_away_lose_nothing_and_are_held_against_no_task(nodes: Nodes, tmp_path: Path) -> None:
    """Two die with the same task in hand, as spot instances do (ray#52815): were they counted, it would be lost."""
    report, killed = Listening(), set()
    with Pool(work.maker(tmp_path), Resources(), report) as pool:
        pool.submit(["long-twice 1", *(f"good {number}" for number in range(6))])

        def kill() -> None:
            log = tmp_path / "long-twice 1"
            for member in pool._members:
                if [item.task for item in member.hand] != ["long-twice 1"] or member.where is None or not log.exists():
                    continue
                began = str(member.where.pid) in log.read_text()
                if began and len(killed) < 2 and member.where.node not in killed:
                    killed.add(member.where.node)
                    nodes.kill(member.where.node)
                    nodes.restore()

        outcomes = collect(pool, kill)
    assert len(killed) == 2
    assert len(done_of(outcomes)) == 7
    assert tries(tmp_path, "long-twice 1") == 3
    assert not any("last words" in line for line in report.said), report.said


def test_a_task_is_taken_to_a_node_that_can_do_it_or_given_back(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "not here").write_text(nodes.nodes[0].node_id)
    with Pool(work.maker(tmp_path), Resources()) as pool:
        pool.submit(["elsewhere 1", "elsewhere 2", "elsewhere 3"])
        assert len(done_of(collect(pool))) == 3
        (tmp_path / "not here").write_text("")
        pool.submit(["elsewhere 4", "good 1"])
        outcomes = {outcome.task: outcome for outcome in collect(pool)}
    assert outcomes["elsewhere 4"].elsewhere == "not on this one"
    assert outcomes["good 1"].result is not None


def test_where_everything_dies_it_ends_with_a_line(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against retries without end (ray#51946)."""
    monkeypatch.setattr(pools, "IN_A_ROW", -2)
    said = r"^3 processes failed and nothing was done in between: process \d+ on .* died"
    with Pool(work.maker(tmp_path), Resources()) as pool, pytest.raises(UserError, match=said):  # noqa: PT012
        pool.submit(f"poison {number}" for number in range(9))
        collect(pool)


def test_where_no_node_is_large_enough_the_user_hears_so_and_it_ends(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "SAY_SECONDS", 0.0)
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(pools, "GIVE_UP_SECONDS", 1.0)
    report = Listening()
    with Pool(work.maker(tmp_path), Resources(cpus=3, gpus=1), report) as pool:
        pool.submit(["good 1"])
        with pytest.raises(UserError, match="or add larger nodes"):
            collect(pool)
    (line,) = report.said
    assert line.startswith("waiting: no node of the Ray cluster has 3 CPUs and 1 GPU for a process (0 CPUs; 1 CPUs)")


def test_leaving_early_ends_the_actors_and_lets_them_clear_up(nodes: Nodes, tmp_path: Path) -> None:
    began = time.monotonic()
    with Pool(work.maker(tmp_path), Resources()) as pool:
        pool.submit(["long 1", "long 2"])
        while not ((tmp_path / "long 1").exists() and (tmp_path / "long 2").exists()):
            pool.wait(0.1)
            assert time.monotonic() - began < 180
        left = time.monotonic()
    assert time.monotonic() - left < 5, "they were not told to stop"
