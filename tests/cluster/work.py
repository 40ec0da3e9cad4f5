"""What the actors of the tests do: it must be found by its name on every node."""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS
from xelvad.pipeline.cluster.actor import Elsewhere, Pulse, Work

POISON = 935  # the number of a frame


def know_tiny() -> None:
    """Have the test network among the extractors of this process; it dies of the frame `POISON`."""
    from torch import Tensor

    from ..features.test_extraction import TINY, Tiny

    EXTRACTORS[TINY.name] = TINY
    forward, died = Tiny.forward, Path(os.environ["TINY_DIED"])

    def dying(self: Tiny, x: Tensor) -> Tensor:
        if POISON in x:
            with died.open("a") as file:
                print(POISON, file=file)
            os._exit(9)
        return forward(self, x)

    Tiny.forward = dying


def times(folder: Path, task: str) -> int:
    """Count a try of a task; how many there have been."""
    with (folder / task.replace("/", "_")).open("ab") as file:
        file.write(f"{os.getpid()}\n".encode())
    return len((folder / task.replace("/", "_")).read_text().splitlines())


def do(folder: Path, tasks: Sequence[str], pulse: Pulse) -> list[str | Elsewhere]:
    return [one(folder, task, pulse) for task in tasks]


def one(folder: Path, task: str, pulse: Pulse) -> str | Elsewhere:
    """A task says what is to become of it."""
    tries = times(folder, task)
    kind = task.partition(" ")[0]
    if kind == "poison" or (kind == "dies-once" and tries == 1):
        os._exit(7)
    if kind == "raises":
        raise ValueError("for a reason of its own")
    if kind == "refuses":
        raise UserError("wrong from the start")
    if kind == "long" or (kind == "long-twice" and tries <= 2):
        for _ in range(600):
            pulse.beat()
            time.sleep(0.1)
    if kind == "elsewhere":
        import ray

        node = str(ray.get_runtime_context().get_node_id())
        if (folder / "not here").read_text() in ("", node):
            return Elsewhere("not on this one")
    pulse.beat()
    return f"{task}, done"


def maker(folder: Path) -> partial[Work[str, str]]:
    return partial(partial, do, folder)


def train_or_die(folder: Path, task: int) -> int | None:
    """A task of an experiment: the first kills its process once."""
    if task == 0 and times(folder, "0") == 1:
        os._exit(5)
    if task == 3:
        raise UserError("3 is not 4")
    return None if task == 1 else 2 * task
