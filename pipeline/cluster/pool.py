"""A pool of Ray actors that does tasks, and outlives its actors and their nodes.

Ray hands out nothing on its own here. The pool knows what every actor has in hand; when one dies it makes another, and
what was in hand is tried again, each task alone, so that it shows which of them kills. One that has killed twice when
it was alone is given back as lost; a node that goes away, as spot instances do, is held against no task. What Ray's own
retries do not do, or do for ever, is done here: errors come back as values, the number of deaths without any result
between them is bounded, and nothing waits for one actor alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from ...errors import UserError
from ..support.progress import SILENT, Report
from .actor import Actor, Broken, Elsewhere, Refused, Where, Work
from .deaths import is_of_node, obituary, words_of
from .session import alive_nodes

Task = TypeVar("Task")
Result = TypeVar("Result")

FAILURES = 2  # of one task, after which it is lost
IN_A_ROW = 6  # deaths, and two more for each actor, with nothing done in between, after which it is no task's fault
LOOK_SECONDS = 2.0  # between two looks at the nodes, and at how far each actor is
SETTLING_SECONDS = 2.0  # in which a node that dies is known to be dead, from the death of its actors on
LOST_SECONDS = 30.0  # a node that has been gone for so long answers no more
SAY_SECONDS = 15.0  # without a single actor, before the user hears why
GIVE_UP_SECONDS = 600.0  # without a node that could have an actor: a cluster that grows has grown by then
IDLE_SECONDS = 60.0  # an actor for which there was nothing to do for so long gives its place to others
STOP_SECONDS = 10.0  # for actors to drop what they have in hand, leaving nothing half written


@dataclass(frozen=True)
class Resources:
    """What an actor takes of its node.

    Attributes:
        cpus: cores; Ray has it compute with as many threads, unless OMP_NUM_THREADS says otherwise.
        gpus: whole ones.
    """

    cpus: int = 1
    gpus: int = 0

    def __str__(self) -> str:
        return f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}" + (f" and {self.gpus} GPU" if self.gpus else "")

    def fit_into(self, node: dict[str, float]) -> int:
        """How many actors a node has room for, were it empty."""
        room = math.floor(node.get("CPU", 0) / self.cpus)
        return min(room, math.floor(node.get("GPU", 0) / self.gpus)) if self.gpus else room


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What came of a task: one of the three.

    Attributes:
        task: that was given.
        result: what the work gave.
        refused: why the request itself is wrong; other tasks will hardly fare better.
        lost: why it was given up: its process died, or failed in an unexpected way, twice.
        elsewhere: why it can be done on no node that there is.
    """

    task: Task
    result: Result | None = None
    refused: str | None = None
    lost: str | None = None
    elsewhere: str | None = None


@dataclass(eq=False)
class _Item(Generic[Task]):
    task: Task
    failures: list[tuple[str, str]] = field(default_factory=list)  # node and reason; those of dead nodes do not count
    unfit: dict[str, str] = field(default_factory=dict)  # nodes that cannot do it, and why
    alone: bool = False  # it, or one that was handed out with it, has killed


@dataclass(eq=False)
class _Member(Generic[Task]):
    """An actor, as the pool sees it."""

    handle: Any
    where: Where | None = None  # None until it runs
    hand: list[_Item[Task]] = field(default_factory=list)
    units: int = 0
    looked: bool = False  # an answer to the last look is still to come
    idle_since: float = 0.0
    missed_since: float | None = None  # since when its node is not among those alive


class Pool(Generic[Task, Result]):
    """Does tasks on a cluster that this process is connected to. A context manager, which ends the actors.

    Args:
        make: gives, on the node, what does tasks; it is pickled. A function at the top of a module, or a `partial`.
        resources: of each actor.
        report: is told of deaths, and of what is waited for.
        most: actors at most; None: as many as there is room for.
        hand: tasks that are handed to an actor at a time, at most; fewer towards the end.
        found: asked for the result of a task whose actor died with it in hand: None where there is none.
        advance: told of units that were done, as `Pulse.beat` counts them.

    Attributes:
        deaths: of actors, so far.
    """

    def __init__(
        self,
        make: Callable[[], Work[Task, Result]],
        resources: Resources,
        report: Report = SILENT,
        *,
        most: int | None = None,
        hand: int = 1,
        found: Callable[[Task], Result | None] = lambda _: None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._make, self._resources, self._report = make, resources, report
        self._most, self._hand, self._found, self._advance = most, hand, found, advance
        self._class: Any = None
        self._queue: deque[_Item[Task]] = deque()
        self._members: list[_Member[Task]] = []
        self._calls: dict[Any, tuple[str, _Member[Task]]] = {}  # what is to come, by Ray's reference
        self._outcomes: list[Outcome[Task, Result]] = []
        self._nodes: dict[str, dict[str, float]] = {}
        self._looked = -math.inf
        self.deaths = self._in_a_row = 0
        self._most_ever = 1  # actors
        self._alone_since, self._said = time.monotonic(), False  # since when no actor has run

    def __enter__(self) -> Pool[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def left(self) -> int:
        """How many tasks have not been given back."""
        return len(self._queue) + sum(len(member.hand) for member in self._members) + len(self._outcomes)

    @property
    def actors(self) -> int:
        """How many run."""
        return sum(member.where is not None for member in self._members)

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take in more tasks, behind those that there are."""
        self._queue.extend(_Item(task) for task in tasks)

    def wait(self, seconds: float) -> list[Outcome[Task, Result]]:
        """What has come of tasks, within so many seconds, or at once where something has: maybe nothing.

        Raises:
            UserError: actors die one after the other and nothing is done, or no node can have one.
        """
        import ray

        until = time.monotonic() + seconds
        while not self._outcomes:
            self._look()
            self._hand_out()
            left = until - time.monotonic()
            if left <= 0 or not self.left:
                break
            pause = max(0.0, min(left, LOOK_SECONDS / 2))
            if not self._calls:
                time.sleep(pause)
                continue
            ready, _ = ray.wait(list(self._calls), timeout=pause)
            for reference in ready:
                self._take(reference)
        given, self._outcomes = self._outcomes, []
        return given

    def drop_queue(self) -> None:
        """Begin no other task; those in hand are done."""
        self._queue.clear()

    def close(self) -> None:
        """End the actors; what they have in hand is dropped, leaving nothing half written where they still can."""
        import ray

        busy = {reference: member for reference, (kind, member) in self._calls.items() if kind == "do"}
        if busy:
            for member in busy.values():
                _call(member.handle.stop)
            ray.wait(list(busy), num_returns=len(busy), timeout=STOP_SECONDS)
        for member in self._members:
            ray.kill(member.handle)
        self._members, self._calls = [], {}
        self._queue.clear()

    # --- actors and nodes ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Now and then: which nodes are there, how far is everybody, are there as many actors as there may be."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked, self._nodes = now, alive_nodes()
        for member in list(self._members):
            if member.where is not None and self._is_missed(member, now):
                self._bury(member, "its node is gone", of_node=True)
            elif member.hand and not member.looked:
                member.looked = True
                self._calls[_call(member.handle.units)] = "units", member
            elif not member.hand and not self._queue and member.where and now - member.idle_since > IDLE_SECONDS:
                self._dismiss(member)
        self._staff()
        self._give_up_what_fits_nowhere()
        self._say_if_stuck(now)

    def _is_missed(self, member: _Member[Task], now: float) -> bool:
        assert member.where is not None
        if member.where.node in self._nodes:
            member.missed_since = None
        elif member.missed_since is None:
            member.missed_since = now
        return member.missed_since is not None and now - member.missed_since > LOST_SECONDS

    def _room(self) -> int:
        room = sum(self._resources.fit_into(node) for node in self._nodes.values())
        return max(1, min(room, self._most or room))  # one is asked for in any case: it makes a cluster grow

    def _staff(self) -> None:
        import ray

        wanted = min(self._room(), len(self._queue) + sum(bool(member.hand) for member in self._members))
        if len(self._members) < wanted and self._class is None:
            self._class = ray.remote(concurrency_groups={"watch": 1})(Actor).options(
                num_cpus=self._resources.cpus,
                num_gpus=self._resources.gpus,
                max_restarts=0,  # a new one is made here: nobody waits for one that comes back, or does not
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
        while len(self._members) < wanted:
            member = _Member[Task](self._class.remote(self._make, Path.cwd()))
            self._members.append(member)
            self._calls[member.handle.where.remote()] = "where", member
        self._most_ever = max(self._most_ever, len(self._members))

    def _say_if_stuck(self, now: float) -> None:
        """Where there is work and not a single actor, the user is to know why; where there never will be, it ends."""
        if self.actors or not self._queue:
            self._alone_since, self._said = now, False
            return
        fits = any(self._resources.fit_into(node) for node in self._nodes.values())
        them = "; ".join(sorted({_shown(node) for node in self._nodes.values()})) or "there are none"
        what = f"no node of the Ray cluster has {self._resources} for a process"
        if not fits and now - self._alone_since > GIVE_UP_SECONDS:
            raise UserError(f"{what} ({them}); --actor_cpus asks for fewer, or add larger nodes")
        if not self._said and now - self._alone_since > SAY_SECONDS:
            why = "to spare now: other work has them" if fits else f"({them}); --actor_cpus asks for fewer"
            self._report.say(f"waiting: {what} {why}")
            self._said = True

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        for member in self._members:
            if member.where is None or member.hand:
                continue
            member.hand = self._next_for(member.where.node)
            if member.hand:
                self._calls[member.handle.do.remote([item.task for item in member.hand])] = "do", member

    def _next_for(self, node: str) -> list[_Item[Task]]:
        """Take the next tasks for an actor: several that are above suspicion, or one that is not."""
        size = max(1, min(self._hand, math.ceil(len(self._queue) / (2 * len(self._members)))))
        taken: list[_Item[Task]] = []
        for item in self._queue:
            if node in item.unfit or (taken and item.alone):
                continue
            taken.append(item)
            if item.alone or len(taken) == size:
                break
        for item in taken:
            self._queue.remove(item)
        return taken

    def _give_up_what_fits_nowhere(self) -> None:
        able = {node for node, resources in self._nodes.items() if self._resources.fit_into(resources)}
        for item in [item for item in self._queue if item.unfit and able and able <= item.unfit.keys()]:
            self._queue.remove(item)
            self._outcomes.append(Outcome(item.task, elsewhere=next(iter(item.unfit.values()))))

    def _take(self, reference: Any) -> None:
        """An answer has come, or an actor has died."""
        import ray

        kind, member = self._calls.pop(reference)
        if member not in self._members:
            return  # it was buried since
        try:
            answer = ray.get(reference, timeout=LOST_SECONDS)
        except ray.exceptions.RayError as error:
            self._bury(member, words_of(error), of_node=is_of_node(error))
            return
        if kind == "where":
            member.where, member.idle_since = answer, time.monotonic()
        elif kind == "units":
            member.looked = False
            self._count(member, answer)
        else:
            self._settle(member, answer)

    def _count(self, member: _Member[Task], units: int) -> None:
        self._advance(units - member.units)
        member.units = units

    def _settle(self, member: _Member[Task], answer: Any) -> None:
        assert member.where is not None
        if isinstance(answer, Broken):  # a process in which something went wrong is not trusted with more
            self._bury(member, answer.reason, died=False)
            return
        items, member.hand, member.idle_since = member.hand, [], time.monotonic()
        if isinstance(answer, Refused):
            self._outcomes += [Outcome(item.task, refused=answer.reason) for item in items]
            return
        self._count(member, answer.units)
        for item, result in zip(items, answer.results, strict=True):
            if isinstance(result, Elsewhere):
                item.unfit[member.where.node] = result.reason
                self._queue.append(item)
            else:
                self._in_a_row = 0
                self._outcomes.append(Outcome(item.task, result))

    def _bury(self, member: _Member[Task], reason: str, *, of_node: bool = False, died: bool = True) -> None:
        """An actor is no more: what it had in hand is done, or tried again, or lost."""
        self._dismiss(member)
        self.deaths += 1
        node = member.where.node if member.where is not None else None
        suspect = any(item.failures for item in member.hand)
        of_node = of_node or (died and node is not None and self._has_died(node, SETTLING_SECONDS if suspect else 0))
        said = obituary(member.where, reason, died, of_node)
        self._report.say(said)
        if not of_node:
            self._in_a_row += 1
        if self._in_a_row > IN_A_ROW + 2 * self._most_ever:
            raise UserError(f"{self._in_a_row} processes failed and nothing was done in between: {said}")
        for item in reversed(member.hand):
            item.alone = item.alone or not of_node
            if not of_node and len(member.hand) == 1:  # in company it may have been any of them
                item.failures.append((node or "", said))
            self._retry(item)
        self._looked = -math.inf  # another actor, now

    def _retry(self, item: _Item[Task]) -> None:
        result = self._found(item.task)
        if result is not None:
            self._outcomes.append(Outcome(item.task, result))
            return
        counted = [said for node, said in item.failures if node in self._nodes]
        if len(counted) >= FAILURES:
            self._outcomes.append(Outcome(item.task, lost=counted[-1]))
        else:
            self._queue.appendleft(item)

    def _has_died(self, node: str, patience: float) -> bool:
        """Whether a node is gone, after the moment that it may take to be known."""
        until = time.monotonic() + patience
        while node in (nodes := alive_nodes()) and time.monotonic() < until:
            time.sleep(0.1)
        self._nodes = nodes
        return node not in nodes

    def _dismiss(self, member: _Member[Task]) -> None:
        import ray

        self._members.remove(member)
        self._calls = {reference: call for reference, call in self._calls.items() if call[1] is not member}
        ray.kill(member.handle)


def _call(method: Any) -> Any:
    """Ask an actor something while it works."""
    return method.options(concurrency_group="watch").remote()


def _shown(node: dict[str, float]) -> str:
    return " and ".join(f"{node.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU") if node.get(kind) or kind == "CPU")
