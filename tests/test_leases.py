"""Leases: of many that want one, exactly one has it at a time, whoever is killed whenever."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from xelvad import leases
from xelvad.leases import beside, holder, remove_if_stale, remove_stale, stale, try_acquire
from xelvad.processes import Owner

PROCESSES = 6


def gone() -> Owner:
    """A process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        owner = replace(Owner.this(), pid=process.pid)
        owner = replace(owner, start=owner.start + 1)
    assert owner.is_gone
    return owner


def put(path: Path, owner: Owner, age: float = 0, token: str = "0123456789abcdef") -> Path:
    """A lease of another process, last touched ``age`` seconds ago."""
    path.write_text(json.dumps(asdict(owner) | {"time": 0.0, "token": token}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- one at a time ---------------------------------------------------------------------------------------------------


def test_a_lease_is_taken_by_one_until_it_is_released(tmp_path: Path) -> None:
    path = beside(tmp_path / "new/a.npy")
    assert path.name == ".a.npy.lease"
    lease = try_acquire(path)
    assert lease is not None
    assert try_acquire(path) is None
    assert holder(path) == Owner.this()
    with lease:
        assert lease.is_ours
    assert holder(path) is None
    assert names(path.parent) == []
    with pytest.raises(RuntimeError), try_acquire(path):  # type: ignore[union-attr]
        raise RuntimeError
    assert names(path.parent) == []


CONTENDER = """
import sys
from pathlib import Path
from xelvad.leases import try_acquire

folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
won = [number for number in range(int(sys.argv[2])) if try_acquire(folder / f"{number}.lease") is not None]
print(*won, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_of_many_exactly_one_takes_what_is_free_or_was_left_by_the_dead(tmp_path: Path, killed: bool) -> None:
    """Guards against taking over by removing what was seen to be stale: it may be another's fresh one by then."""
    rounds = 300
    if killed:
        owner = gone()
        for number in range(rounds):
            put(tmp_path / f"{number}.lease", owner, token=f"{number:016x}")
    contenders = [start(CONTENDER, tmp_path, rounds) for _ in range(PROCESSES)]
    try:
        for contender in contenders:
            assert contender.stdout is not None
            assert contender.stdout.readline() == "ready\n"
        for contender in contenders:
            assert contender.stdin is not None
            contender.stdin.write("\n")
            contender.stdin.flush()
        won = [contender.stdout.readline().split() for contender in contenders if contender.stdout is not None]
    finally:
        for contender in contenders:
            contender.communicate("\n")
    assert sorted(int(number) for numbers in won for number in numbers) == list(range(rounds))
    assert sum(bool(numbers) for numbers in won) > 1, "they did not meet"
    assert len(names(tmp_path)) == rounds, "no guard stays"


WORKER = """
import os, random, signal, sys, time
from pathlib import Path
from xelvad.leases import try_acquire

path, log, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
chance = random.Random(seed)
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
end = time.monotonic() + float(sys.argv[4])
while time.monotonic() < end:
    lease = try_acquire(path)
    if lease is None:
        continue
    os.write(log, f"{os.getpid()} in\\n".encode())
    time.sleep(chance.random() / 1000)
    os.write(log, f"{os.getpid()} out\\n".encode())
    if chance.random() < 0.02:
        os.kill(os.getpid(), signal.SIGKILL)
    lease.release()
"""


def test_no_two_are_in_at_once_though_they_are_killed_at_any_moment(tmp_path: Path) -> None:
    chance, path, log = random.Random(0), beside(tmp_path / "a.npy"), tmp_path / "log"
    end = time.monotonic() + 4
    workers = [start(WORKER, path, log, seed, 4) for seed in range(PROCESSES)]
    started = killed = PROCESSES
    try:
        while time.monotonic() < end:
            time.sleep(chance.random() / 10)
            if chance.random() < 0.5:
                chance.choice(workers).send_signal(signal.SIGKILL)
            for number, worker in enumerate(workers):
                if worker.poll() is not None and time.monotonic() < end - 0.5:
                    worker.communicate()
                    workers[number] = start(WORKER, path, log, started, end - time.monotonic())
                    started += 1
    finally:
        killed = sum(worker.wait() != 0 for worker in workers) + started - len(workers)
        for worker in workers:
            worker.communicate()
    inside = None
    visitors = set()
    for line in log.read_text().splitlines():
        pid, what = line.split()
        if what == "in":
            inside = pid  # if another was in, it was killed there, or comes out later
            visitors.add(pid)
        else:
            assert inside == pid, "two at once"
            inside = None
    assert killed > 3
    assert len(visitors) > 3
    deadline = time.monotonic() + 2 * leases.BLANK_SECONDS
    while (last := try_acquire(path)) is None:  # the last may have been killed before it had put its name down
        assert time.monotonic() < deadline, "the dead hold it"
        time.sleep(0.1)
    last.release()
    remove_stale(tmp_path)
    assert names(tmp_path) == ["log"]


# --- who is dead -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "age", "held"),
    [
        ({}, 100_000, True),  # it runs, however long it slept
        ({"start": 1}, 0, False),  # another process has its number
        ({"pid": 2**22 + 1}, 0, False),
        ({"system": "elsewhere"}, 0, True),
        ({"system": "elsewhere", "pid": 2**22 + 1}, leases.STALE_SECONDS - 30, True),  # its numbers mean nothing here
        ({"system": "elsewhere"}, leases.STALE_SECONDS + 30, False),
    ],
)
def test_a_lease_is_held_as_long_as_its_process_runs(
    tmp_path: Path, change: dict[str, str | int], age: float, held: bool
) -> None:
    owner = replace(Owner.this(), **change)
    path = put(beside(tmp_path / "a.npy"), owner, age)
    assert holder(path) == (owner if held else None)
    lease = try_acquire(path)
    assert (lease is None) is held
    remove_stale(tmp_path)
    assert path.exists()
    if lease is not None:
        assert holder(path) == Owner.this()
        lease.release()
        assert names(tmp_path) == []


def test_stale_leases_are_listed_and_removed_one_by_one_if_they_still_are(tmp_path: Path) -> None:
    dead = [put(beside(tmp_path / f"{number}.npy"), gone(), token=f"{number:016}") for number in range(3)]
    holding = beside(tmp_path / "held.npy")
    held = try_acquire(holding)
    assert held is not None
    elsewhere = put(beside(tmp_path / "elsewhere.npy"), replace(Owner.this(), system="elsewhere"))
    assert stale(tmp_path) == dead
    assert stale(tmp_path / "nowhere") == []
    assert len(names(tmp_path)) == 5, "a question changes nothing"
    taken_over = try_acquire(dead[1])
    assert taken_over is not None
    assert [remove_if_stale(path) for path in (*dead, holding, elsewhere)] == [True, False, True, False, False]
    assert remove_if_stale(tmp_path / ".nothing.lease"), "there is none"
    assert names(tmp_path) == sorted(path.name for path in (dead[1], holding, elsewhere))
    assert taken_over.is_ours
    assert held.is_ours
    taken_over.release()
    held.release()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"host": 1}', '{"host": "a", "system": "b", "pid": -1, "start": 0, "token": "a"}']
)
def test_one_whose_process_was_killed_before_it_had_put_its_name_down_is_free_soon(tmp_path: Path, text: str) -> None:
    path = beside(tmp_path / "a.npy")
    path.write_text(text)
    assert try_acquire(path) is None
    os.utime(path, (time.time() - leases.BLANK_SECONDS - 1,) * 2)
    lease = try_acquire(path)
    assert lease is not None
    lease.release()
    assert names(tmp_path) == []


def test_the_time_is_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against two machines whose clocks differ: the folder's dates are those of the one that has it."""
    path = put(beside(tmp_path / "a.npy"), replace(Owner.this(), system="elsewhere"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10_000)
    assert try_acquire(path) is None


def test_a_lease_is_touched_while_it_is_held_and_not_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.02)
    path = beside(tmp_path / "a.npy")

    def is_touched() -> bool:
        os.utime(path, (1, 1))
        end = time.monotonic() + (10 if lease.is_ours else 0.3)
        while path.stat().st_mtime == 1 and time.monotonic() < end:
            time.sleep(0.01)
        return path.stat().st_mtime > 1

    monkeypatch.setattr(leases, "_is_beating", False)  # whatever thread of an earlier test sleeps for longer
    lease = try_acquire(path)
    assert lease is not None
    assert is_touched()
    put(path, replace(Owner.this(), system="elsewhere"))  # lost
    assert not is_touched()
    lease.release()
    assert path.exists(), "another's is not removed"


FORKED = """
import os, sys
from pathlib import Path
from xelvad.leases import try_acquire

lease = try_acquire(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    lease.release()
    os._exit(0)
os.waitpid(child, 0)
print(lease.is_ours)
lease.release()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_does_not_release_what_its_parent_holds(tmp_path: Path) -> None:
    with start(FORKED, tmp_path / "a.lease") as process:
        assert process.communicate()[0] == "True\n"
    assert names(tmp_path) == []


# --- what is left ----------------------------------------------------------------------------------------------------


def test_what_the_dead_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / ".dead.npy.lease", gone())
    put(tmp_path / ".away.npy.lease", replace(Owner.this(), system="elsewhere"), token="a")
    put(tmp_path / "mine.lease", gone())
    held = try_acquire(tmp_path / ".held.npy.lease")
    assert held is not None
    remove_stale(tmp_path)
    assert names(tmp_path) == [".away.npy.lease", ".held.npy.lease", "mine.lease"]
    held.release()
    remove_stale(tmp_path / "nowhere")


@pytest.mark.parametrize("guards", [1, 2, 3])
def test_those_killed_while_they_took_over_are_taken_over_from(tmp_path: Path, guards: int) -> None:
    owner, path = gone(), beside(tmp_path / "a.npy")
    put(path, owner, token="0")
    for number in range(guards):  # the guard on removing one, the guard on removing that guard …
        put(tmp_path / f".{number}.lease", owner, token=str(number + 1))
    lease = try_acquire(path)
    assert lease is not None
    lease.release()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127], ids=["a", "ä"])
def test_names_as_long_as_may_be(tmp_path: Path, name: str) -> None:
    assert beside(tmp_path / name) != beside(tmp_path / ("b" + name[1:]))
    with try_acquire(beside(tmp_path / name)) as lease:  # type: ignore[union-attr]
        assert lease.is_ours
    assert names(tmp_path) == []


FULL = """
import resource, signal, sys
from pathlib import Path
from xelvad.leases import try_acquire

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    try_acquire(Path(sys.argv[1]))
except OSError as error:
    print(error.filename)
"""


def test_a_full_disk_is_no_lease_and_leaves_none(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    with start(FULL, tmp_path / "a.lease") as process:
        assert process.communicate()[0] == f"{tmp_path / 'a.lease'}\n"
    assert names(tmp_path) == []
