"""Many tasks at a time on a Ray cluster, such as the trainings of an experiment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from ...errors import UserError
from ..support.progress import SILENT, Report
from .actor import Pulse
from .config import ClusterConfig
from .pool import Pool, Resources
from .session import session

Task = TypeVar("Task")
Result = TypeVar("Result")

WAIT_SECONDS = 1.0


def on_cluster(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    cluster: ClusterConfig,
    report: Report = SILENT,
    unit: str = "trainings",
) -> list[Result]:
    """Do tasks on a cluster, one at a time in each of its processes.

    Args:
        work: a function at the top of a module; what it does must be kept on disk, so that it can go on.
        tasks: and their results can be pickled; the paths in them mean the same on all nodes.
        cluster: which.
        report: is told how far it is.
        unit: what a task is called.

    Returns:
        The results, in the order of the tasks.

    Raises:
        UserError: as ``work``, of the first task that fails; those under way are finished, no other is begun. Or a
            process died twice of the same task.
    """
    began, results, wrong = time.monotonic(), dict[int, Result](), list[str]()
    if not tasks:
        return []
    resources = Resources(cluster.actor_cpus or 1)
    with (
        session(cluster, report),
        Pool(partial(_each, work), resources, report, most=cluster.actors) as pool,
    ):
        pool.submit(enumerate(tasks))
        while pool.left:
            for outcome in pool.wait(WAIT_SECONDS):
                number, _ = outcome.task
                if outcome.result is not None:
                    results[number] = outcome.result[0]
                    report.say(f"{len(results)} of {len(tasks)} {unit}, {time.monotonic() - began:.0f} s")
                    continue
                lost = f"one of the {unit} was given up, what was finished is kept: {outcome.lost}"
                wrong.append(outcome.refused or lost)
                pool.drop_queue()
    if wrong:
        raise UserError(wrong[0])
    return [results[number] for number in range(len(tasks))]


def _each(work: Callable[[Task], Result]) -> Callable[[Sequence[tuple[int, Task]], Pulse], list[tuple[Result]]]:
    """For an actor; results in a tuple, since any of them may be None."""

    def do(tasks: Sequence[tuple[int, Task]], pulse: Pulse) -> list[tuple[Result]]:
        return [(work(task),) for _, task in tasks]

    return do
