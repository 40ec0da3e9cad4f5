"""Leases in a store: of many that want one exactly one has it, and one that was left is taken over by exactly one."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from xelvad import leases
from xelvad.leases import Lease, holder, remove_if_stale, try_acquire
from xelvad.pipeline.features.remote.address import RemoteFolder
from xelvad.pipeline.features.remote.leases import BEAT, RemoteLease
from xelvad.pipeline.features.remote.storage import storage_of
from xelvad.processes import Owner

from .conftest import files_of

THREADS = 6
ELSEWHERE = replace(Owner.this(), system="elsewhere")
TOKEN = "0123456789abcdef"


@pytest.fixture
def lease(remote: RemoteFolder) -> RemoteLease:
    return RemoteLease.on(storage_of(remote), "tiny/day 1/a.mp4.npy")


def put(lease: RemoteLease, owner: Owner = ELSEWHERE, token: str = TOKEN) -> None:
    """As another process does."""
    assert lease.create(json.dumps(asdict(owner) | {"time": 0.0, "token": token}).encode())


def at_once(act: Callable[[], Lease | None]) -> list[Lease]:
    """What several threads get that do the same at the same time."""
    got: list[Lease] = []
    barrier = threading.Barrier(THREADS)

    def work() -> None:
        barrier.wait()
        lease = act()
        if lease is not None:
            got.append(lease)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_of_many_exactly_one_has_it_until_it_is_released(lease: RemoteLease, remote: RemoteFolder) -> None:
    (held,) = at_once(lambda: try_acquire(lease))
    assert list(files_of(remote)) == ["tiny/day 1/.a.mp4.npy.lease"]
    assert holder(lease) == Owner.this()
    assert try_acquire(lease) is None
    with held:
        assert held.is_ours
    assert files_of(remote) == {}


def test_one_that_was_left_is_taken_over_by_exactly_one(
    lease: RemoteLease, remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lease)
    assert at_once(lambda: try_acquire(lease)) == []
    monkeypatch.setattr(leases, "STALE_SECONDS", -2.0)  # stores date files to the second
    taken = {id(each): each for each in at_once(lambda: try_acquire(lease))}
    assert len(taken) == 1
    monkeypatch.setattr(leases, "STALE_SECONDS", 180.0)
    (held,) = taken.values()
    assert held.is_ours
    held.release()
    assert files_of(remote) == {}


def test_the_age_is_by_the_stores_clock_since_it_was_touched(
    lease: RemoteLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lease)
    time.sleep(2.1)
    made = lease.age(TOKEN)
    assert 2 <= made < 60
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10_000)  # of this machine, which is wrong
    assert lease.age(TOKEN) < 60
    lease.touch(TOKEN)
    assert lease.age(TOKEN) <= made - 1


def test_one_that_was_lost_is_not_taken_back_by_touching_it(lease: RemoteLease, remote: RemoteFolder) -> None:
    """Guards against writing the lease itself anew: it may be another's between looking and writing."""
    held = try_acquire(lease)
    assert held is not None
    lease.remove("")
    put(lease)
    lease.touch(held._token)
    assert holder(lease) == ELSEWHERE
    held.release()
    assert holder(lease) == ELSEWHERE
    assert f"tiny/day 1/.{TOKEN}{BEAT}" not in files_of(remote)


def test_those_of_processes_that_are_gone_are_removed_and_no_others(
    remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(remote)
    gone = replace(Owner.this(), pid=2**22 + 1)
    for number, owner in enumerate([gone, ELSEWHERE, Owner.this()]):
        lease = RemoteLease.on(storage, f"tiny/{number}.npy")
        put(lease, owner, f"{TOKEN[:-1]}{number}")
        remove_if_stale(lease)
    assert sorted(files_of(remote)) == ["tiny/.1.npy.lease", "tiny/.2.npy.lease"]


def test_a_failure_to_touch_leaves_the_thread_that_touches_alive(
    lease: RemoteLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = try_acquire(lease)
    assert held is not None

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the network is gone")

    storage = lease._storage
    with monkeypatch.context() as patched:
        patched.setattr("xelvad.pipeline.features.remote.storage.WAITS", ())
        patched.setattr(storage._system, "cat_file", fail)
        held._touch()  # nothing is raised
    held.release()
