"""Garbage: all that nobody needs is found, nothing else ever is, and what is deleted is what was listed."""

import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS
from xelvad.leases import SUFFIX, beside, try_acquire
from xelvad.pipeline.cli import main
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.upkeep.config import GarbageConfig
from xelvad.pipeline.upkeep.garbage import Heap, delete, find_garbage
from xelvad.pipeline.videos.sources import search
from xelvad.processes import Owner

from ..helpers.features import FINGERPRINT, file_features
from .conftest import NAMES

OLD = 10_000.0  # seconds: longer ago than what may be half there for a moment
GONE = replace(Owner.this(), pid=2**22 + 1)  # Linux gives out no such number


@pytest.fixture
def folder(features: Path) -> Path:
    return features / "i3d-rgb"


def find(features: Path, videos: Path | None = None, **options: object) -> Heap:
    config = GarbageConfig(("i3d-rgb",), **options)
    (heap,) = find_garbage(features, config, None if videos is None else search([videos]))
    return heap


def kinds(heap: Heap) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for garbage in heap.garbage:
        names = [file.path.relative_to(heap.store.folder).as_posix() for file in garbage.files]
        found.setdefault(garbage.kind, []).extend(names)
    return found


def contents(folder: Path) -> dict[str, bytes | str]:
    """All that lies in a folder, hidden things and links too."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def age(path: Path, seconds: float = OLD) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def orphan_array(folder: Path, name: str = "day/b.mp4", seconds: float = OLD) -> Path:
    (folder / f"{name}.json").unlink()
    return age(folder / f"{name}.npy", seconds)


def lease_of(path: Path, owner: Owner, token: str = "0123456789abcdef") -> Path:
    lease = beside(path)
    lease.write_text(json.dumps(asdict(owner) | {"time": 0.0, "token": token}))
    return lease


# --- what is found ---------------------------------------------------------------------------------------------------


def test_in_a_folder_as_it_should_be_there_is_nothing(features: Path, videos: Path) -> None:
    heap = find(features, videos, other_fingerprints=False)
    assert (heap.garbage, heap.kept) == ([], [])


def test_halves_of_features_are_found(features: Path, folder: Path) -> None:
    orphan_array(folder)
    (folder / "a.mp4.npy").unlink()
    age(folder / "a.mp4.json")
    heap = find(features)
    assert kinds(heap) == {"sidecar without an array": ["a.mp4.json"], "array without a sidecar": ["day/b.mp4.npy"]}
    assert heap.kept == []


def test_what_killed_processes_left_is_found(features: Path, folder: Path) -> None:
    (folder / f"day/.c.mp4.npy.{GONE.tag}.01234567.tmp").write_bytes(b"half")
    (folder / f"day/.b.mp4.npy.{Owner.this().tag}.01234567.tmp").write_bytes(b"of one that lives")
    lease_of(folder / "day/c.mp4.npy", GONE)
    held = try_acquire(beside(folder / "a.mp4.npy"))
    assert held is not None
    heap = find(features)
    assert kinds(heap) == {
        "leftover": [f"day/.c.mp4.npy.{GONE.tag}.01234567.tmp"],
        "lease": [f"day/.c.mp4.npy{SUFFIX}"],
    }
    assert delete(heap).files == 2
    assert sorted(path.name for path in folder.rglob(".*")) == sorted(
        [beside(Path("a.mp4.npy")).name, f".b.mp4.npy.{Owner.this().tag}.01234567.tmp"]
    )
    held.release()


def test_features_of_videos_that_are_gone_are_found(features: Path, folder: Path, videos: Path) -> None:
    (videos / "day/b.mp4").unlink()
    file_features(features, "imported.mp4", None, fingerprint="imported i3d-rgb")
    assert kinds(find(features)) == {}, "only where videos are named"
    heap = find(features, videos)
    assert kinds(heap) == {"video is gone": ["day/b.mp4.json", "day/b.mp4.npy"]}
    assert heap.kept == [f"{folder}: 1 imported feature files, which nobody could make again"]
    for other in (videos.parent, videos / "day"):  # names with a folder more, or less
        (name,) = {name.split(".mp4")[0] for name in kinds(find(features, other))["video is gone"]} - {"a"}
        assert name == "day/b"


def test_what_was_passed_over_among_the_videos_is_not_gone(features: Path, videos: Path) -> None:
    (videos / "day/b.mp4").rename(videos / "day/elsewhere")
    (videos / "day/b.mp4").symlink_to(videos / "not mounted")
    assert kinds(find(features, videos)) == {}


def test_which_videos_are_gone_is_not_guessed(features: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others/z.mp4").write_bytes(b"z")
    with pytest.raises(UserError, match=r"not one of its 3 videos, such as a\.mp4, is among --videos: is that the"):
        find(features, tmp_path / "others")
    found = search([videos])
    found.passed_over[str(videos / "night")] = "cannot be looked into: Permission denied"
    with pytest.raises(UserError, match=r"night: cannot be looked into: Permission denied: which videos are gone"):
        find_garbage(features, GarbageConfig(), found)


def test_features_made_otherwise_are_found_by_fingerprint(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = EXTRACTORS["i3d-rgb"]
    present = spec.fingerprint("random (seed 0)")
    file_features(features, "a.mp4", None, fingerprint=present)
    file_features(features, "imported.mp4", None, fingerprint="imported i3d-rgb")
    arguments = ["gc", str(features), "--extractor", "i3d-rgb", "--other-fingerprints", "--weights", "random"]
    assert main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0].rpartition("/")[2] for line in out[:4]] == [
        "b.mp4.json", "b.mp4.npy", "c.mp4.json", "c.mp4.npy",
    ]  # fmt: skip
    assert out[4:6] == [
        f"i3d-rgb: present fingerprint «{present}»",
        f"i3d-rgb: other fingerprint «{FINGERPRINT}»: 2 videos",
    ]
    assert re.fullmatch(r"i3d-rgb: 4 files, .* kB, would go: --delete deletes them", out[6])


# --- what is never found ---------------------------------------------------------------------------------------------


ARRAY = np.zeros((3, 4), np.float32)


def cut(folder: Path) -> None:
    np.save(folder / "mean.npy", ARRAY)
    (folder / "mean.npy").write_bytes((folder / "mean.npy").read_bytes()[:-1])


def longer(folder: Path) -> None:
    np.save(folder / "mean.npy", ARRAY)
    (folder / "mean.npy").write_bytes((folder / "mean.npy").read_bytes() + b"mine")


def of_another_extractor(folder: Path) -> None:
    fields = json.loads((folder / "a.mp4.json").read_text())
    (folder / "notes.json").write_text(json.dumps(fields | {"extractor": "c3d"}))


def texts(folder: Path) -> None:
    for name in ("readme.txt", "quarantine.jsonl", "list.csv", ".hidden", "a.tmp", ".a.tmp", "a.lease"):
        (folder / name).write_text("mine")


def hidden(folder: Path) -> None:
    for name in (".snapshot", "@eaDir"):
        (folder / name).mkdir()
        np.save(folder / name / "mean.npy", ARRAY)


# What somebody has put there, and whether something is said of it.
STRANGE: dict[str, tuple[Callable[[Path], object], bool]] = {
    "doubles": (lambda folder: np.save(folder / "mean.npy", ARRAY.astype(float)), True),
    "one axis": (lambda folder: np.save(folder / "mean.npy", ARRAY[0]), True),
    "columns first": (lambda folder: np.save(folder / "mean.npy", np.asfortranarray(ARRAY)), True),
    "objects": (lambda folder: np.save(folder / "mean.npy", ARRAY.astype(object)), True),
    "no array": (lambda folder: (folder / "mean.npy").write_bytes(b"mine"), True),
    "cut": (cut, True),
    "longer": (longer, True),
    "json": (lambda folder: (folder / "notes.json").write_text("{}"), True),
    "of another extractor": (of_another_extractor, True),
    "a folder": (lambda folder: (folder / "mean.npy").mkdir(), False),
    "texts": (texts, False),
    "hidden": (hidden, False),
    "a long name": (lambda folder: np.save(folder / f"{'n' * 245}.npy", ARRAY), True),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_not_understood_stays(features: Path, folder: Path, videos: Path, kind: str) -> None:
    put, is_said = STRANGE[kind]
    put(folder)
    for path in folder.rglob("*"):
        age(path)
    before = contents(features)
    heap = find(features, videos)
    assert heap.garbage == []
    assert len(heap.kept) == is_said
    delete(heap)
    assert contents(features) == before


@pytest.mark.parametrize("how", ["lease", "young"])
def test_what_is_about_to_be_whole_stays(features: Path, folder: Path, how: str) -> None:
    path = orphan_array(folder, seconds=OLD if how == "lease" else 60)
    lease = try_acquire(beside(path)) if how == "lease" else None
    heap = find(features)
    assert heap.garbage == []
    (line,) = heap.kept
    assert line.startswith(f"{path}: half of a feature file, but ")
    if lease is not None:
        lease.release()
        assert len(find(features).garbage) == 1


def test_links_are_not_followed_and_stay(features: Path, folder: Path, videos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere / "day")
    for path in (elsewhere / "day").rglob("*.json"):
        path.unlink()
    np.save(elsewhere / "one.npy", np.zeros((3, 4), np.float32))
    for path in elsewhere.rglob("*"):
        age(path)
    (folder / "linked").symlink_to(elsewhere / "day")  # a folder
    (folder / "one.npy").symlink_to(elsewhere / "one.npy")  # an array without a sidecar
    (folder / "a.mp4.npy").rename(elsewhere / "a.npy")
    (folder / "a.mp4.npy").symlink_to(elsewhere / "a.npy")  # moved to another disk
    (folder / "day/c.mp4.npy").unlink()
    (folder / "day/c.mp4.npy").symlink_to(elsewhere / "not mounted")
    (videos / "a.mp4").unlink()
    before = contents(tmp_path)
    heap = find(features, videos)
    assert heap.garbage == []
    assert len(heap.kept) == 4
    delete(heap)
    assert contents(tmp_path) == before


def test_a_folder_behind_a_link_is_passed_over(features: Path, folder: Path, tmp_path: Path) -> None:
    orphan_array(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/i3d-rgb").symlink_to(folder)
    heap = find(tmp_path / "other")
    assert heap.garbage == []
    assert "a link, which is not followed" in heap.kept[0]
    (tmp_path / "link").symlink_to(features)
    assert len(find(tmp_path / "link").garbage) == 1, "the folder that is named may be a link"


def test_a_folder_without_a_sidecar_of_its_extractor_is_left_alone(
    features: Path, folder: Path, tmp_path: Path
) -> None:
    # Guards against `xelvad gc .`: other people's arrays, or the folder above, look like features without sidecars.
    orphan_array(folder)
    project = tmp_path / "project"
    shutil.copytree(features, project / "mine/features")
    np.save(project / "mine/data.npy", np.zeros((3, 4), np.float32))
    age(project / "mine/data.npy")
    shutil.copytree(folder, project / "renamed")
    heaps = find_garbage(project, GarbageConfig())
    assert [heap.store.extractor for heap in heaps] == ["mine", "renamed"]
    assert [heap.garbage for heap in heaps] == [[], []]
    assert all("nothing in it is known to be ours" in heap.kept[0] for heap in heaps)


# --- deleting --------------------------------------------------------------------------------------------------------


def test_nothing_is_changed_until_it_is_asked_for_and_then_what_was_listed(
    features: Path, folder: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orphan_array(folder, "a.mp4")
    (folder / f".x.npy.{GONE.tag}.01234567.tmp").write_bytes(b"half")
    (videos / "day/b.mp4").unlink()
    before = contents(features)
    arguments = ["gc", str(features), "--videos", str(videos)]
    assert main(arguments) == 0
    listed = capsys.readouterr().out.splitlines()
    assert contents(features) == before
    paths = [re.fullmatch(r"[a-z ]+: (.*) \(\S+ \S+\)", line)[1] for line in listed[:-1]]
    size = sum(Path(path).stat().st_size for path in paths)
    assert listed[-1] == f"i3d-rgb: 4 files, {size / 1000:.1f} kB, would go: --delete deletes them"
    assert main([*arguments, "--delete"]) == 0
    deleted = capsys.readouterr().out.splitlines()
    assert deleted[:-1] == listed[:-1]
    assert deleted[-1] == f"i3d-rgb: 4 files, {size / 1000:.1f} kB, deleted"
    gone = {Path(path).relative_to(features).as_posix() for path in paths}
    assert contents(features) == {name: data for name, data in before.items() if name not in gone}
    assert main(arguments) == 0
    assert capsys.readouterr().out == "i3d-rgb: nothing to delete\n"


def becomes_whole(folder: Path) -> None:
    file_features(folder.parent, "day/b.mp4", None)


def gets_another_array(folder: Path) -> None:
    np.save(folder / "day/b.mp4.npy", np.zeros((3, 4), np.float32))


def is_touched(folder: Path) -> None:
    age(folder / "day/b.mp4.npy", 2 * OLD)


def is_gone(folder: Path) -> None:
    (folder / "day/b.mp4.npy").unlink()


def is_exchanged_for_a_link(folder: Path) -> None:
    (folder / "day/b.mp4.npy").rename(folder / "moved.npy")
    (folder / "day/b.mp4.npy").symlink_to(folder / "moved.npy")


def folder_is_exchanged_for_a_link(folder: Path) -> None:
    (folder / "day").rename(folder.parent / "moved")
    (folder / "day").symlink_to(folder.parent / "moved")


CHANGES = (
    becomes_whole,
    gets_another_array,
    is_touched,
    is_gone,
    is_exchanged_for_a_link,
    folder_is_exchanged_for_a_link,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_has_changed_since_it_was_found_stays(
    features: Path, folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    orphan_array(folder)
    heap = find(features)
    assert len(heap.garbage) == 1
    change(folder)
    before = contents(tmp_path)
    result = delete(heap)
    assert (result.files, result.failed) == (0, [])
    assert len(result.kept) == 1
    assert contents(tmp_path) == before


def test_leftovers_and_leases_that_are_others_now_stay(features: Path, folder: Path) -> None:
    left = folder / f".x.npy.{GONE.tag}.01234567.tmp"
    left.write_bytes(b"half")
    lease = lease_of(folder / "day/c.mp4.npy", GONE)
    heap = find(features)
    assert len(heap.garbage) == 2
    left.write_bytes(b"somebody's")
    held = try_acquire(lease)
    assert held is not None
    result = delete(heap)
    assert result.kept == [f"{left}: it has changed since it was found", f"{lease}: somebody holds it again"]
    assert held.is_ours
    assert left.read_bytes() == b"somebody's"
    held.release()


def test_what_somebody_takes_up_meanwhile_stays(features: Path, folder: Path) -> None:
    path = orphan_array(folder)
    heap = find(features)
    with try_acquire(beside(path)):  # type: ignore[union-attr]
        result = delete(heap)
    assert result.kept == [f"{path}: another process is at work on it"]
    assert path.exists()
    assert delete(heap).files == 1
    assert list(folder.rglob(".*")) == [], "no lease stays"


def test_what_cannot_be_deleted_stops_nothing_else(
    features: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan_array(folder, "a.mp4")
    orphan_array(folder, "day/b.mp4")
    unlink = Path.unlink

    def refusing(self: Path, missing_ok: bool = False) -> None:
        if self.name == "a.mp4.npy":
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    assert main(["gc", str(features), "--delete"]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"not deleted: {folder}/a.mp4.npy: cannot be deleted (Permission denied)\n"
    assert not (folder / "day/b.mp4.npy").exists()


def test_a_kill_between_sidecar_and_array_leaves_what_is_found_again(
    features: Path, folder: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (videos / "day/b.mp4").unlink()
    heap, unlink = find(features, videos), Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".npy":
            raise KeyboardInterrupt
        unlink(self, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            delete(heap)
    age(folder / "day/b.mp4.npy")
    assert kinds(find(features)) == {"array without a sidecar": ["day/b.mp4.npy"]}


@pytest.mark.parametrize("seed", range(6))
def test_beside_processes_that_write_nothing_of_theirs_is_lost(features: Path, seed: int) -> None:
    """A writer that works as extraction does, by lease, files features again and again; gc is at it all the time."""
    rng, names = random.Random(seed), [f"{number}.mp4" for number in range(6)]
    end, lost, store = time.monotonic() + 0.7, list[str](), FeatureStore(features, "i3d-rgb")

    def write() -> None:
        while time.monotonic() < end:
            name = rng.choice(names)
            lease = try_acquire(beside(store.array_path(name)))
            if lease is not None:
                with lease:
                    path = file_features(features, name, None)
                    if rng.random() < 0.5:
                        path.with_suffix(".json").unlink()
                        age(path)
                    elif not path.exists() or not path.with_suffix(".json").exists():
                        lost.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    deleted = 0
    while writer.is_alive():
        deleted += delete(find(features)).files
    writer.join()
    assert lost == []
    assert deleted
    for name in (*names, *NAMES):
        if store.sidecar_path(name).exists():
            assert store.read(name).clips == 5
    assert set(NAMES) <= {path.relative_to(store.folder).as_posix()[:-5] for path in store.folder.rglob("*.json")}


# --- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--other-fingerprints"], "--other-fingerprints: of which extractor? name it by --extractor"),
        (["--weights", "random"], "--weights and --precision say which fingerprints are others"),
        (["--extractor", "mine", "--other-fingerprints"], "there is no extractor 'mine'"),
        (["--extractor", "c3d"], "holds no folder 'c3d' of an extractor; there is i3d-rgb, mine"),
        (["--videos", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_wrong_request_is_refused(
    features: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    file_features(features, "a.mp4", None, extractor="mine")
    before = contents(features)
    assert main(["gc", str(features), "--delete", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert contents(features) == before
