"""Files are whole or absent, whoever else writes them, and whatever ends it."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from xelvad import files
from xelvad.files import leftovers, remove_leftovers, replacing, write_bytes, write_text
from xelvad.processes import TAG_LETTERS, Owner, owner_of

WRITER = """
import sys
from pathlib import Path
from xelvad.files import replacing

with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_writer(path: Path) -> subprocess.Popen[str]:
    """Another process that has begun to write ``path`` and goes on when its input ends."""
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_file_takes_its_place_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new/a.txt"
    write_text(path, "old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_after_an_error_all_is_as_it_was(tmp_path: Path, error: BaseException) -> None:
    def write(path: Path) -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    for before in [], ["a.txt"]:
        for name in before:
            write_text(tmp_path / name, "old")
        with pytest.raises(type(error)):
            write(tmp_path / "a.txt")
        assert names(tmp_path) == before
    assert (tmp_path / "a.txt").read_text() == "old"


def test_two_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    """Guards against the temporary name that all processes shared: the second emptied the file of the first."""
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write(b"first" * 1000)
        first.flush()
        with replacing(path) as second:
            second.write(b"second")
            assert len(names(tmp_path)) == 2
        assert path.read_bytes() == b"second"
        first.write(b"!")
    assert path.read_bytes() == b"first" * 1000 + b"!"
    assert names(tmp_path) == ["a.txt"]


def test_one_that_is_killed_takes_nothing_from_another_and_its_remains_go_with_the_next(tmp_path: Path) -> None:
    """Guards against the shared name, too: what belonged to a living process was removed."""
    path = tmp_path / "a.txt"
    with start_writer(path) as living, start_writer(path) as killed, start_writer(tmp_path / "b.txt") as other:
        kill(killed)
        kill(other)
        assert len(names(tmp_path)) == 3
        write_text(path, "third")
        left = names(tmp_path)
        assert [name.partition(".txt")[0] for name in left] == [".a", ".b", "a"], "the living one's, and another file's"
        assert f".{living.pid}." in left[0]
        living.communicate("")
    assert living.returncode == 0
    assert path.read_text() == "half"
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 200 + ".npy", "日" * 85], ids=["a", "ä", "npy", "日"])
def test_names_as_long_as_may_be(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    with replacing(tmp_path / name) as file:
        assert len(max(names(tmp_path), key=lambda each: len(each.encode())).encode()) <= 255
        file.write(b"again")
    assert names(tmp_path) == [name]
    with start_writer(tmp_path / name) as process:
        kill(process)
        assert len(names(tmp_path)) == 2
    write_text(tmp_path / name, "text")
    assert names(tmp_path) == [name]


def test_a_folder_is_not_looked_through_again_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against work that grows with the square of the files in a folder.
    looks: list[Path] = []
    look = files.remove_leftovers
    monkeypatch.setattr(files, "remove_leftovers", lambda *given: looks.append(given[0]) or look(*given))
    for number in range(200):
        write_text(tmp_path / f"{number}.txt", "text")
    assert len(looks) == 1
    with start_writer(tmp_path / "0.txt") as process:
        kill(process)
    write_text(tmp_path / "0.txt", "text")
    assert len(looks) == 2, "another process has changed it"
    assert len(names(tmp_path)) == 200


THIS = Owner.this()


@pytest.mark.parametrize(
    ("owner", "hours", "stays"),
    [
        (THIS, 1000, True),  # it runs: for as long as it likes
        (replace(THIS, start=THIS.start + 1), 0, False),  # its number was given out again
        (replace(THIS, pid=2**22 + 1), 0, False),  # Linux gives out no such number
        (replace(THIS, system="0123456789ab"), 23, True),  # another machine: nobody knows
        (replace(THIS, system="0123456789ab", pid=2**22 + 1), 23, True),
        (replace(THIS, system="0123456789ab"), 25, False),
    ],
)
def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path, owner: Owner, hours: int, stays: bool) -> None:
    left = tmp_path / f".a.txt.{owner.tag}.01234567.tmp"
    left.write_text("half")
    os.utime(left, (time.time() - 3600 * hours,) * 2)
    assert leftovers(tmp_path) == ([] if stays else [left])
    write_text(tmp_path / "a.txt", "whole")
    assert left.exists() is stays


@pytest.mark.parametrize("name", [".a.txt.tmp", "a.txt.tmp", ".b.txt.tmp", ".a.txt.mine.1.2.01234567.tmp"])
def test_files_that_are_not_ours_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    write_text(tmp_path / "a.txt", "whole")
    assert leftovers(tmp_path) == leftovers(tmp_path / "nowhere") == []
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(["a.txt", name])


def test_a_process_is_known_by_its_tag() -> None:
    long = replace(THIS, host="h" * 300 + ".example.org", pid=2**31, start=2**63)
    assert len(long.tag) <= TAG_LETTERS
    for owner in THIS, long, replace(THIS, host="a.b_c-d"):
        found = owner_of(owner.tag)
        assert found is not None
        assert (found.system, found.pid, found.start) == (owner.system, owner.pid, owner.start)
    assert socket.gethostname() == THIS.host
    assert not THIS.is_gone
    assert owner_of("a-b.1.2") is None


def test_a_process_that_waits_to_be_buried_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(THIS, pid=process.pid, start=0)
        assert not owner.is_gone
        process.kill()
        deadline = time.monotonic() + 20
        while not owner.is_gone:  # nobody has waited for it: its number is still taken
            assert time.monotonic() < deadline
            time.sleep(0.01)


FULL = """
import resource, signal, sys
from pathlib import Path
from xelvad.files import write_bytes

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes(Path(sys.argv[1]), bytes(int(sys.argv[2])))
except OSError as error:
    print(error.filename, error.errno)
"""


@pytest.mark.parametrize("size", [100_001, 10_000_000])
def test_no_room_names_the_file_and_leaves_the_old_one(tmp_path: Path, size: int) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    command = [sys.executable, "-c", FULL, str(path), str(size)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"{path} ")
    assert result.stderr == ""
    assert names(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"
