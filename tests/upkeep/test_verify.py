"""Verifying: whatever happens to a feature file, a sidecar or a video is found, and what is whole is not accused."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xelvad.leases import beside, try_acquire
from xelvad.pipeline.cli import main
from xelvad.pipeline.features.sidecar import Sidecar
from xelvad.pipeline.features.store import Features, FeatureStore
from xelvad.pipeline.upkeep.config import VerifyConfig
from xelvad.pipeline.upkeep.verify import Verification, verify
from xelvad.pipeline.videos.sources import find_videos

from ..helpers.features import FEATURE_DIM, file_features

OLD = 10_000  # seconds: longer ago than what may be half there for a moment


def only(features: Path, videos: Path | None = None, deep: bool = False) -> Verification:
    found = None if videos is None else find_videos([videos])
    (result,) = verify(features, VerifyConfig(("i3d-rgb",), deep), found)
    return result


def age(path: Path) -> None:
    then = path.stat().st_mtime - OLD
    os.utime(path, (then, then))


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_what_was_written_is_whole(features: Path, videos: Path) -> None:
    file_features(features, "crops.mp4", None, crops=10, fingerprint="imported i3d-rgb")
    result = only(features, videos)
    assert (result.whole, result.undigested, result.troubles, result.at_work) == (4, 0, [], [])
    assert result.videos is not None
    assert (result.videos.same, result.videos.imported, result.videos.without) == (3, 1, 0)
    assert sorted(result.origins.values()) == [1, 3]


@pytest.mark.parametrize("seed", range(40))
def test_a_single_bit_anywhere_in_an_array_is_found(features: Path, seed: int) -> None:
    path, rng = features / "i3d-rgb/day/b.mp4.npy", random.Random(seed)
    place = rng.randrange(128, path.stat().st_size) if seed % 4 else rng.randrange(10, 60)  # numbers, or the header
    flip(path, place, rng.randrange(8))
    result = only(features)
    assert result.whole == 2
    (trouble,) = result.troubles
    assert re.match(rf"{re.escape(str(path))}: .*delete it", trouble)
    assert "\n" not in trouble


def nan(path: Path) -> None:
    array = np.load(path)
    array[3, 2] = np.nan
    np.save(path, array)


def of_before(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    fields = json.loads(sidecar.read_text()) | {"format": 1}
    del fields["features_sha256"]
    sidecar.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), r"b\.mp4\.npy: a damaged feature file"),
        (lambda path: path.write_bytes(path.read_bytes() + b"1234"), r"b\.mp4\.npy: \d+ bytes, not \d+"),
        (lambda path: np.save(path, np.load(path)[:-1]), r"b\.mp4\.npy: float32 \(4, 16\), not float32 \(5, 16\)"),
        (lambda path: np.save(path, np.load(path)[::-1].copy()), r"b\.mp4\.npy: not the features that were written"),
        (nan, r"b\.mp4\.npy: holds NaN or infinite features"),
        (lambda path: [of_before(path), nan(path)], r"b\.mp4\.npy: holds NaN or infinite features"),
        (lambda path: path.with_suffix(".json").write_text("{"), r"b\.mp4\.json: a damaged sidecar"),
        (lambda path: [path.with_suffix(".json").unlink(), age(path)], r"b\.mp4\.npy: has no sidecar"),
        (lambda path: [path.unlink(), age(path.with_suffix(".json"))], r"b\.mp4\.json: the array beside it is gone"),
        (lambda path: shutil.copy(path.parent / "c.mp4.npy", path), r"b\.mp4\.npy: not the features that were written"),
    ],
    ids=["cut", "longer", "fewer", "order", "nan", "nan of before", "sidecar", "no sidecar", "no array", "another's"],
)
def test_damage_is_said_with_what_to_do(
    features: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], said: str
) -> None:
    damage(features / "i3d-rgb/day/b.mp4.npy")
    assert main(["verify", str(features)]) == 1
    first, trouble = capsys.readouterr().out.splitlines()
    assert first == "i3d-rgb: 2 whole, 1 troubles"
    assert re.match(r"trouble: .*" + said, trouble)
    assert re.search(r"(delete it|extract)", trouble)


def test_files_of_before_there_were_digests_are_counted(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_before(features / "i3d-rgb/day/b.mp4.npy")
    assert main(["verify", str(features)]) == 0
    assert capsys.readouterr().out == "i3d-rgb: 3 whole (1 from before there were digests), 0 troubles\n"


# --- videos ----------------------------------------------------------------------------------------------------------


def test_a_video_that_changed_or_is_gone_is_said(
    features: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "a.mp4").unlink()
    (videos / "new.mp4").write_bytes(b"new")
    (videos / "day/b.mp4").write_bytes(b"shorter")
    changed = videos / "day/c.mp4"
    times = changed.stat()
    flip(changed, 7)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert main(["verify", str(features), "--videos", str(videos)]) == 1
    counts, comparison, *troubles = capsys.readouterr().out.splitlines()
    assert counts == "i3d-rgb: 3 whole, 3 troubles"
    assert comparison == "i3d-rgb: 0 of unchanged videos, 1 videos have no features"
    assert [re.sub(r"^trouble: \S*/i3d-rgb/", "", line)[:60] for line in troubles] == [
        "a.mp4.json: there is no video a.mp4 any more; xelvad gc --videos"[:60],
        f"day/b.mp4.json: {videos}/day/b.mp4 has changed since"[:60],
        f"day/c.mp4.json: {videos}/day/c.mp4 has changed since"[:60],
    ]
    assert "from 900 to 7 bytes" in troubles[1]


def test_a_video_that_was_touched_or_copied_is_the_same(features: Path, videos: Path) -> None:
    os.utime(videos / "a.mp4", ns=(5, 5))
    result = only(features, videos)
    assert result.troubles == []
    assert result.videos is not None
    assert result.videos.same == 3


def test_only_deep_reads_a_video_whose_size_and_time_are_the_same(features: Path, videos: Path) -> None:
    times = (videos / "a.mp4").stat()
    flip(videos / "a.mp4", 7)
    os.utime(videos / "a.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert only(features, videos).troubles == []
    (trouble,) = only(features, videos, deep=True).troubles
    assert "a.mp4 has changed since, its digest is another; xelvad extract makes its features again" in trouble


def test_videos_are_found_from_another_folder_as_everywhere(features: Path, videos: Path) -> None:
    result = only(features, videos.parent)  # names have a folder more
    assert result.troubles == []
    result = only(features, videos / "day")  # a.mp4 is not among them
    assert len(result.troubles) == 1


def test_a_name_that_was_shortened_is_compared(tmp_path: Path) -> None:
    name = "ä" * 120 + ".mp4"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / name).write_bytes(b"frames")
    file_features(tmp_path / "features", name, tmp_path / "videos" / name)
    result = only(tmp_path / "features", tmp_path / "videos")
    assert (result.whole, result.troubles) == (1, [])
    assert result.videos is not None
    assert result.videos.same == 1


# --- others at work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lease", "young"])
def test_what_another_process_is_at_work_on_is_left_alone(
    features: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = features / "i3d-rgb/day/b.mp4.npy"
    path.with_suffix(".json").unlink()
    if how == "lease":
        age(path)
    lease = try_acquire(beside(path)) if how == "lease" else None
    assert main(["verify", str(features)]) == 0
    assert capsys.readouterr().out == "i3d-rgb: 2 whole, 0 troubles, 1 being worked on\n"
    if lease is not None:
        lease.release()


def test_a_file_that_is_exchanged_while_it_is_looked_at_is_looked_at_again(
    features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Guards against an accusation: the sidecar of before was read, and the array of now.
    read, calls = FeatureStore.read, []

    def exchanged(self: FeatureStore, name: str, fingerprint: str | None = None) -> Features:
        found = read(self, name, fingerprint)
        if name == "day/b.mp4" and not calls:
            calls.append(name)
            file_features(features, name, None, clips=9)
        return found

    monkeypatch.setattr(FeatureStore, "read", exchanged)
    result = only(features)
    assert calls
    assert (result.whole, result.troubles, result.at_work) == (3, [], [])


# --- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["features", "--extractor", "c3d"], "holds no folder 'c3d' of an extractor; there is i3d-rgb"),
        (["features", "--extractor", "../videos"], "holds no folder '../videos' of an extractor"),
        (["videos"], "no features in the folders in it"),
        (["features", "--videos", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_wrong_request_is_refused(
    features: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(features.parent)
    assert main(["verify", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_every_extractor_is_looked_at_and_two_origins_are_said(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file_features(features, "a.mp4", None, extractor="c3d")
    file_features(features, "b.mp4", None, extractor="c3d", fingerprint="other")
    (features / "logs").mkdir()
    (features / "logs/a.json").write_text("{}")
    assert main(["verify", str(features)]) == 0
    c3d, note, i3d = capsys.readouterr().out.splitlines()
    assert c3d == "c3d: 2 whole, 0 troubles"
    assert re.fullmatch(r"note: c3d: made in 2 ways: 1 by «.*», 1 by «other»", note)
    assert i3d == "i3d-rgb: 3 whole, 0 troubles"


PEAK = """
import re, sys
from pathlib import Path
from xelvad.pipeline.upkeep.config import VerifyConfig
from xelvad.pipeline.upkeep.verify import verify

def megabytes(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

before = megabytes("VmRSS")
(result,) = verify(Path(sys.argv[1]), VerifyConfig())
assert (result.whole, result.troubles) == (1, []), result
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    file_features(tmp_path, "long.mp4", None, clips=300_000 * 8 // FEATURE_DIM * 16)  # 147 MB
    result = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 60
    shutil.rmtree(tmp_path / "i3d-rgb")  # pytest would keep it


def test_sidecars_say_whether_they_were_imported(features: Path) -> None:
    file_features(features, "a.mp4", None, fingerprint="imported i3d-rgb")
    assert Sidecar.read(features / "i3d-rgb/a.mp4.json").is_imported
    assert not Sidecar.read(features / "i3d-rgb/day/b.mp4.json").is_imported
