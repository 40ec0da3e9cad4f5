"""Local copies: current or none, within their bound, and those that are needed at once stay."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xelvad.errors import UserError
from xelvad.files import DAY
from xelvad.pipeline.features.remote.cache import Cache
from xelvad.pipeline.features.remote.storage import FIRST_STAMP, STAMPS, Found

SIZE = 100


def found(number: int, size: int = SIZE) -> Found:
    return Found(size, FIRST_STAMP + number * 10**9 + 7, 0.0)


def keep(cache: Cache, name: str, about: Found) -> Path:
    path = cache.folder / "of a url" / name
    cache.keep(path, about, lambda place: place.write_bytes(bytes(about.size)))
    return path


def use(path: Path, ago: float) -> None:
    os.utime(path, ns=(time.time_ns() - int(ago * 1e9), path.stat().st_mtime_ns))


def test_a_copy_counts_for_its_version_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10 * SIZE)
    path = tmp_path / "of a url" / "a"
    assert not cache.has(path, found(1))
    keep(cache, "a", found(1))
    assert cache.has(path, found(1))
    assert not cache.has(path, found(2))
    assert not cache.has(path, found(1, SIZE + 1))
    path.write_bytes(bytes(SIZE))  # by hand
    assert not cache.has(path, found(1))


def test_every_stamp_is_a_time_that_a_file_can_have(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    for stamp in (FIRST_STAMP, FIRST_STAMP + STAMPS - 1):
        os.utime(path, ns=(time.time_ns(), stamp))
        assert path.stat().st_mtime_ns == stamp
    assert time.time_ns() > FIRST_STAMP + STAMPS, "what is written now is no copy of anything"


def test_what_comes_in_another_size_is_no_copy(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10 * SIZE)
    with pytest.raises(OSError, match="99 bytes, not 100"):
        cache.keep(tmp_path / "a", found(1), lambda place: place.write_bytes(bytes(99)))
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5 * SIZE)
    paths = [keep(cache, str(number), found(number)) for number in range(5)]
    for path, ago in zip(paths, (500, 1000, 900, 800, 700), strict=True):
        use(path, ago)
    assert cache.has(paths[1], found(1))  # used again
    keep(cache, "new", found(9))
    assert [path.exists() for path in paths] == [True, True, False, False, True]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 5 * SIZE


def test_what_others_have_put_there_counts_too(tmp_path: Path) -> None:
    mine, other = Cache(tmp_path, 5 * SIZE), Cache(tmp_path, 50 * SIZE)
    keep(mine, "mine", found(0))
    for number in range(8):
        keep(other, f"other {number}", found(number))
    for number in range(5):
        keep(mine, f"mine {number}", found(number))
    assert len(list((tmp_path / "of a url").iterdir())) <= 5


def test_the_bound_holds_while_many_are_made_at_once(tmp_path: Path) -> None:
    cache, seen = Cache(tmp_path, 10 * SIZE), []

    def fill(place: Path) -> None:
        place.write_bytes(bytes(SIZE))
        time.sleep(0.01)
        seen.append(SIZE * sum(not name.startswith(".") for name in os.listdir(tmp_path / "of a url")))  # noqa: PTH208

    with ThreadPoolExecutor(5) as threads:
        for number in range(40):
            threads.submit(cache.keep, tmp_path / "of a url" / str(number), found(number), fill)
    assert len(seen) == 40
    assert max(seen) <= 10 * SIZE
    assert len(list((tmp_path / "of a url").iterdir())) <= 10


PINNING = """
import sys, time
from pathlib import Path
from xelvad.pipeline.features.remote.cache import Cache
from xelvad.pipeline.features.remote.storage import Found

folder = Path(sys.argv[1])
Cache(folder, 500).pin([(folder / "of a url" / "0", Found(100, 0, 0.0))])
print("pinned", flush=True)
sys.stdin.readline()
"""


def test_what_another_process_needs_at_once_stays_while_it_runs(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    paths = [keep(cache, str(number), found(number)) for number in range(3)]
    command = [sys.executable, "-c", PINNING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "pinned\n"
        for number, path in enumerate(paths):
            use(path, 1000 - number)
        new = keep(cache, "new", found(9))
        assert paths[0].exists()
        with pytest.raises(UserError, match=r"4e-07 GB are needed, 1e-07 of them .* at once, and 3e-07 may be kept"):
            cache.make_room(3 * SIZE)
        process.communicate("\n")
    use(paths[0], 1000)
    assert new.exists() is False, "it had to go, and was not enough"
    cache.make_room(3 * SIZE)
    assert not paths[0].exists()
    assert not list(tmp_path.glob("*.pins"))


def test_what_is_needed_at_once_and_has_no_room_is_refused_at_the_start(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5 * SIZE)
    with pytest.raises(UserError, match=r"1\.2e-06 GB are needed for features .* and 5e-07 may be kept: raise "):
        cache.pin((tmp_path / str(number), found(number)) for number in range(12))
    assert list(tmp_path.iterdir()) == []


def test_pins_of_another_machine_end_after_days(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    path = keep(cache, "0", found(0))
    pins = tmp_path / "host-0123456789ab.1.1.01234567.pins"
    pins.write_text("of a url/0\n")
    use(path, 1000)
    keep(cache, "1", found(1))
    use(tmp_path / "of a url/1", 10)
    keep(cache, "2", found(2))
    assert path.exists()
    os.utime(pins, (time.time() - 8 * DAY,) * 2)
    use(path, 1000)
    keep(cache, "3", found(3))
    assert not path.exists()
