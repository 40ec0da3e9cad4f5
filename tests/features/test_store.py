import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.features.sidecar import Sidecar, Timeline
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.clips import Clipping, Segments
from xelvad.pipeline.videos.identity import digest, stamp
from xelvad.pipeline.videos.sources import VideoSource

DIM = 3
FINGERPRINT = "tiny | pixels | weights 1234"


def sidecar_of(name: str, frames: int, path: Path | None = None, fingerprint: str = FINGERPRINT) -> Sidecar:
    size, modified = stamp(path) if path else (0, 0)
    return Sidecar(
        video=name,
        video_bytes=size,
        video_modified=modified,
        video_sha256=digest(path) if path else "",
        frames=frames,
        declared_frames=frames,
        salvaged_frames=0,
        timeline=Timeline.of(np.arange(frames) / 25, 25),
        clipping=Clipping(),
        extractor="tiny",
        fingerprint=fingerprint,
        feature_dim=DIM,
        decoder="by hand",
        version="0",
    )


def features(clips: int, *row: int) -> NDArray[np.float32]:
    return np.random.default_rng(clips).normal(size=(clips, *(row or (DIM,)))).astype(np.float32)


def filed(sidecar: Sidecar, array: NDArray[np.float32]) -> Sidecar:
    """The sidecar as it is filed beside its array: with the digest of the numbers alone."""
    return replace(sidecar, features_sha256=hashlib.sha256(array.tobytes()).hexdigest())


def write(store: FeatureStore, sidecar: Sidecar) -> NDArray[np.float32]:
    row = (sidecar.feature_dim,) if sidecar.crops is None else (sidecar.crops, sidecar.feature_dim)
    array = features(sidecar.clipping.count(sidecar.frames), *row)
    with store.write(sidecar.video, sidecar.feature_dim, sidecar.crops) as writer:
        for start in range(0, len(array), 4):
            writer.append(array[start : start + 4])
        writer.finish(sidecar)
    return array


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", "tiny")


@pytest.fixture
def video(tmp_path: Path) -> VideoSource:
    """A file that passes for a video: the cache looks at its size, its time and its digest only."""
    (tmp_path / "a.mp4").write_bytes(b"frames")
    return VideoSource("day/a.mp4", tmp_path / "a.mp4")


def files(store: FeatureStore) -> list[str]:
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())


# --- whole or absent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", [False, True])
def test_what_is_written_is_read_memory_mapped(store: FeatureStore, uneven: bool) -> None:
    sidecar = sidecar_of("day/a.mp4", 421)
    if uneven:
        times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.09, 421))
        sidecar = replace(sidecar, timeline=Timeline.of(times, 25), clipping=Clipping(16, "drop"))
    array = write(store, sidecar)
    read = store.read("day/a.mp4", FINGERPRINT)
    assert read.sidecar == filed(sidecar, array)
    assert isinstance(read.array, np.memmap)
    assert read.array.dtype == np.float32
    assert np.array_equal(read.array, array)
    assert files(store) == ["tiny/day/a.mp4.json", "tiny/day/a.mp4.npy"]
    assert np.array_equal(np.load(store.root / "tiny/day/a.mp4.npy"), array)
    assert json.loads((store.root / "tiny/day/a.mp4.json").read_text())["frames"] == 421


def test_the_header_of_many_rows_takes_the_place_of_the_first(store: FeatureStore) -> None:
    clips = 123_456  # the header was written for 0
    array = features(clips)
    with store.write("long.mp4", DIM) as writer:
        for part in np.array_split(array, 5):
            writer.append(part)
        assert writer.clips == clips
        writer.finish(sidecar_of("long.mp4", 16 * clips))
    path = store.array_path("long.mp4")
    assert np.array_equal(np.load(path), array)
    assert path.stat().st_size == 128 + array.nbytes
    assert np.array_equal(store.read("long.mp4").array, array)


def test_features_with_crops_are_written_and_read(store: FeatureStore) -> None:
    sidecar = replace(sidecar_of("a.mp4", 421), crops=10)
    array = write(store, sidecar)
    read = store.read("a.mp4")
    assert read.sidecar == filed(sidecar, array)
    assert (read.clips, read.crops, read.shape) == (27, 10, (27, 10, DIM))
    assert np.array_equal(np.load(read.path), array)
    assert np.array_equal(read.array, array)


def test_a_sidecar_from_before_there_were_crops_is_read(store: FeatureStore) -> None:
    array = write(store, sidecar_of("a.mp4", 40))
    path = store.sidecar_path("a.mp4")
    fields = json.loads(path.read_text())
    del fields["crops"], fields["features_sha256"]
    path.write_text(json.dumps(fields | {"format": 1}))
    read = store.read("a.mp4")
    assert read.crops is None
    assert np.array_equal(read.array, array)


def test_features_of_segments_are_written_and_read(store: FeatureStore, video: VideoSource) -> None:
    sidecar = replace(sidecar_of("day/a.mp4", 1000, video.path), clipping=Segments(32))
    array = write(store, sidecar)
    read = store.read("day/a.mp4")
    assert array.shape == read.shape == (32, DIM)
    assert read.sidecar == filed(sidecar, array)
    assert store.current(video, FINGERPRINT, Segments(32))
    with pytest.raises(UserError, match=r"made with Segments\(segments=32\), not Clipping"):
        store.current(video, FINGERPRINT, Clipping())


# --- reading into memory ---------------------------------------------------------------------------------------------


ROWS = [
    slice(3, 9),
    slice(None),
    slice(0, None, 5),
    slice(25, 90),
    slice(4, 4),
    np.array([7, 2, 2, 26]),
    np.array([], int),
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("crops", [None, 4])
def test_rows_are_fresh_copies(store: FeatureStore, rows: slice | NDArray[np.int64], crops: int | None) -> None:
    array = write(store, replace(sidecar_of("a.mp4", 421), crops=crops))
    read = store.read("a.mp4")
    cases = [(None, array[rows])]
    if crops is not None:
        cases += [(crop, array[:, crop][rows]) for crop in range(crops)]
    for crop, expected in cases:
        block = read.read(rows, crop)
        assert type(block) is np.ndarray
        assert block.dtype == np.float32
        assert block.flags.writeable
        assert np.array_equal(block, expected)
        block[:] = 0  # nobody else's
    assert np.array_equal(read.array, array)


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("crops", [None, 4])
def test_rows_are_read_into_room_that_is_given(
    store: FeatureStore, rows: slice | NDArray[np.int64], crops: int | None
) -> None:
    array = write(store, replace(sidecar_of("a.mp4", 421), crops=crops))
    read = store.read("a.mp4")
    for crop in (None, *range(crops or 0)):
        expected = array[rows] if crop is None else array[rows, crop]
        room = np.full((len(expected) + 2, *expected.shape[1:]), np.nan, np.float32)
        out = room[1:-1]
        assert read.read(rows, crop, out) is out
        assert np.array_equal(out, expected)
        assert np.isnan(room[[0, -1]]).all()


@pytest.mark.parametrize("rows", [slice(0, 4), slice(0, 6), slice(2, 2)])
def test_room_of_another_shape_is_a_programming_error(store: FeatureStore, rows: slice) -> None:
    write(store, sidecar_of("a.mp4", 160))
    with pytest.raises(ValueError, match="do not fit"):
        store.read("a.mp4").read(rows, out=np.empty((5, DIM), np.float32))


def test_a_file_that_ends_while_it_is_read_is_named(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, sidecar_of("a.mp4", 160))
    read, path = store.read("a.mp4"), store.array_path("a.mp4")
    mapped = np.lib.format.open_memmap(path)
    with path.open("r+b") as file:
        file.truncate(mapped.offset + 3 * DIM * 4)  # behind the back of the check that mapping makes
    monkeypatch.setattr("xelvad.pipeline.features.store._map", lambda path, shape: mapped)
    with pytest.raises(UserError, match=r"a\.mp4\.npy: ends too early; delete it"):
        read.read(slice(0, 10), out=np.empty((10, DIM), np.float32))


def test_a_crop_of_features_without_crops_is_a_programming_error(store: FeatureStore) -> None:
    write(store, sidecar_of("a.mp4", 40))
    with pytest.raises(ValueError, match="crop 0 of features without crops"):
        store.read("a.mp4").read(slice(None), crop=0)


@pytest.mark.parametrize("crops", [None, 4])
@pytest.mark.parametrize("size", [1, 4, 26, 27, 28, 8192])
def test_pieces_are_all_rows_in_order(store: FeatureStore, size: int, crops: int | None) -> None:
    array = write(store, replace(sidecar_of("a.mp4", 421), crops=crops))
    pieces = list(store.read("a.mp4").pieces(size))
    assert np.array_equal(np.concatenate(pieces), array)
    assert all(len(piece) * (crops or 1) <= max(size, crops or 1) for piece in pieces)
    assert len(pieces) == -(-27 // max(1, size // (crops or 1)))


READER = """
import re, sys
from pathlib import Path
import numpy as np
from xelvad.pipeline.features.store import FeatureStore

def megabytes(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

features = FeatureStore(Path(sys.argv[1]), "tiny").read("long.mp4")
before = megabytes("VmRSS")
total = sum(float(piece.sum()) for piece in features.pieces(1024))
total += sum(float(features.read(np.arange(start, start + 9)).sum()) for start in range(0, features.clips, 9))
total += sum(float(features.array[start : start + 1024].sum()) for start in range(0, features.clips, 1024))
assert total == 3 * features.clips * 512
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_pages_that_were_read_do_not_stay_in_memory(store: FeatureStore) -> None:
    # Guards against a map that lives as long as its `Features`: all pages ever read of it stayed resident.
    clips = 90_000  # 176 MiB
    with store.write("long.mp4", 512) as writer:
        for _ in range(9):
            writer.append(np.ones((clips // 9, 512), np.float32))
        writer.finish(replace(sidecar_of("long.mp4", 16 * clips), feature_dim=512))
    command = [sys.executable, "-c", READER, str(store.root)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 60, result.stdout
    shutil.rmtree(store.root)  # pytest would keep it


def write_and_fail(store: FeatureStore, name: str, error: BaseException) -> None:
    with store.write(name, DIM) as writer:
        writer.append(features(2))
        raise error


@pytest.mark.parametrize("error", [UserError("no more frames"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_nothing_new(store: FeatureStore, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_and_fail(store, "a.mp4", error)
    assert files(store) == []
    array = write(store, sidecar_of("a.mp4", 40))
    with pytest.raises(type(error)):
        write_and_fail(store, "a.mp4", error)
    assert files(store) == ["tiny/a.mp4.json", "tiny/a.mp4.npy"]
    assert np.array_equal(store.read("a.mp4").array, array)


def test_a_file_without_finish_is_not_written(store: FeatureStore) -> None:
    with pytest.raises(RuntimeError, match="without a sidecar"), store.write("a.mp4", DIM) as writer:
        writer.append(features(2))
    assert files(store) == []


WRITER = """
import sys
from pathlib import Path
import numpy as np
from xelvad.pipeline.features.store import FeatureStore

with FeatureStore(Path(sys.argv[1]), "tiny").write("day/a.mp4", 3) as writer:
    writer.append(np.ones((10_000, 3), np.float32))
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_process_killed_while_writing_leaves_nothing_readable(store: FeatureStore, video: VideoSource) -> None:
    command = [sys.executable, "-c", WRITER, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list(store.root.rglob("*.npy")) + list(store.root.rglob("*.json"))
    assert not store.current(video, FINGERPRINT, Clipping())
    with pytest.raises(UserError, match="no features"):
        store.find("day/a.mp4")
    array = write(store, sidecar_of("day/a.mp4", 70, video.path))
    assert store.current(video, FINGERPRINT, Clipping())
    assert np.array_equal(store.read("day/a.mp4").array, array)
    assert files(store) == ["tiny/day/a.mp4.json", "tiny/day/a.mp4.npy"]  # the killed one's remains are gone


# --- what is current -------------------------------------------------------------------------------------------------


def test_features_are_current_until_the_video_or_a_file_changes(store: FeatureStore, video: VideoSource) -> None:
    def current() -> bool:
        return store.current(video, FINGERPRINT, Clipping()) is not None

    assert not current()
    sidecar = sidecar_of("day/a.mp4", 40, video.path)
    write(store, sidecar)
    assert current()

    store.array_path("day/a.mp4").rename(store.root / "elsewhere")
    assert not current()
    (store.root / "elsewhere").rename(store.array_path("day/a.mp4"))
    assert current()

    store.sidecar_path("day/a.mp4").unlink()  # killed between the array and its sidecar
    assert not current()
    write(store, sidecar)
    assert current()

    status = video.path.stat()
    video.path.write_bytes(b"more frames")
    os.utime(video.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not current()


@pytest.mark.parametrize("change", [-1, -128 - 3 * DIM * 4, 1, 4 * DIM])
def test_a_file_of_another_size_is_extracted_again_and_not_read(
    store: FeatureStore, video: VideoSource, change: int
) -> None:
    array, path = write(store, sidecar_of("day/a.mp4", 40, video.path)), store.array_path("day/a.mp4")
    read = store.read("day/a.mp4")
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    assert not store.current(video, FINGERPRINT, Clipping())
    for use in lambda: store.read("day/a.mp4"), lambda: read.read(slice(0, 1)), lambda: read.array:
        with pytest.raises(UserError, match=r"day/a\.mp4\.npy: .*; delete it and extract again$"):
            use()
    path.write_bytes(content)
    assert store.current(video, FINGERPRINT, Clipping())
    assert np.array_equal(store.read("day/a.mp4").array, array)


@pytest.mark.parametrize("shape", [(2, DIM), (3, DIM + 1), (3, 1, DIM)])
def test_a_file_of_another_shape_is_extracted_again(
    store: FeatureStore, video: VideoSource, shape: tuple[int, ...]
) -> None:
    write(store, sidecar_of("day/a.mp4", 40, video.path))
    np.save(store.array_path("day/a.mp4"), np.ones(shape, np.float32))
    assert not store.current(video, FINGERPRINT, Clipping())


def test_a_sidecar_that_another_process_takes_away_just_now_is_not_there(
    store: FeatureStore, video: VideoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, sidecar_of("day/a.mp4", 40, video.path))
    read = Sidecar.read

    def taken_away(path: Path) -> Sidecar:
        path.unlink()
        return read(path)

    monkeypatch.setattr(Sidecar, "read", taken_away)
    assert not store.current(video, FINGERPRINT, Clipping())


def test_a_video_that_was_copied_is_the_same_if_its_bytes_are(
    store: FeatureStore, video: VideoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = sidecar_of("day/a.mp4", 40, video.path)
    array = write(store, sidecar)
    content, modified = video.path.read_bytes(), sidecar.video_modified + 1
    os.utime(video.path, ns=(modified, modified))
    assert store.current(video, FINGERPRINT, Clipping())
    sidecar = filed(sidecar, array)
    assert store.read("day/a.mp4").sidecar == sidecar, "a question changes nothing"
    store.adopt(video, sidecar)
    assert store.read("day/a.mp4").sidecar == replace(sidecar, video_modified=modified)
    assert np.array_equal(store.read("day/a.mp4").array, array)
    with monkeypatch.context() as patched:
        patched.setattr("xelvad.pipeline.features.store.digest", lambda path: pytest.fail("computed once, it is known"))
        assert store.current(video, FINGERPRINT, Clipping())
    video.path.write_bytes(bytes(reversed(content)))  # as long, but another one
    os.utime(video.path, ns=(modified + 1, modified + 1))
    assert not store.current(video, FINGERPRINT, Clipping())
    assert store.read("day/a.mp4").sidecar == replace(sidecar, video_modified=modified), "what was made stays described"


def test_features_made_otherwise_are_refused_not_overwritten(store: FeatureStore, video: VideoSource) -> None:
    write(store, sidecar_of("day/a.mp4", 40, video.path))
    with pytest.raises(UserError, match=re.escape(f"made by «{FINGERPRINT}», not by «other»")):
        store.current(video, "other", Clipping())
    with pytest.raises(UserError, match=r"a\.mp4\.json.*drop.*--features"):
        store.current(video, FINGERPRINT, Clipping(16, "drop"))
    with pytest.raises(UserError, match=re.escape(f"made by «{FINGERPRINT}», not by «other»")):
        store.read("day/a.mp4", "other")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../a.mp4", "day/../../a.mp4", "/tmp/a.mp4", ".."])
def test_names_that_lead_out_of_the_folder_are_refused(store: FeatureStore, name: str) -> None:
    for use in store.array_path, store.sidecar_path, store.find, store.read:
        with pytest.raises(UserError, match="must stay within"):
            use(name)
    with pytest.raises(UserError, match="must stay within"), store.write(name, DIM):
        pass
    assert not store.root.exists()


def test_names_are_found_with_fewer_or_more_leading_folders(store: FeatureStore) -> None:
    for name in ["a.mp4", "night/b.mp4"]:
        write(store, sidecar_of(name, 20))
    assert store.find("a.mp4") == store.find("videos/a.mp4") == store.find("data/videos/a.mp4") == "a.mp4"
    assert store.find("night/b.mp4") == store.find("videos/night/b.mp4") == "night/b.mp4"
    write(store, sidecar_of("videos/a.mp4", 20))
    assert store.find("videos/a.mp4") == "videos/a.mp4"
    assert store.find("b.mp4") == store.find("b") == "night/b.mp4"
    write(store, sidecar_of("day/b.mp4", 20))
    with pytest.raises(
        UserError, match=r"^b\.mp4: could be any of day/b\.mp4, night/b\.mp4 in .* move the others away"
    ):
        store.find("b.mp4")
    for absent in "c.mp4", "noon/b.mp4", "night/b.avi", "ight/b.mp4":
        with pytest.raises(UserError, match=rf"^{absent}: no features .* xelvad extract .*--features"):
            store.find(absent)


def test_a_data_set_is_read_from_one_extractor_and_each_video_once(store: FeatureStore) -> None:
    arrays = [write(store, sidecar_of(name, frames)) for name, frames in [("a.mp4", 20), ("b.mp4", 40)]]
    read = list(store.read_all(["videos/b.mp4", "a.mp4"]))
    assert [one.sidecar.video for one in read] == ["b.mp4", "a.mp4"]
    assert np.array_equal(read[0].array, arrays[1])
    with pytest.raises(UserError, match=r"^a\.mp4 and videos/a\.mp4 would both read the features of a\.mp4"):
        list(store.read_all(["videos/a.mp4", "b.mp4", "a.mp4"]))
    write(store, sidecar_of("c.mp4", 20, fingerprint="tiny | pixels | weights random (seed 0)"))
    with pytest.raises(UserError, match=r"c\.mp4\.json: made by .*random.*, not by"):
        list(store.read_all(["a.mp4", "c.mp4"]))


@pytest.mark.parametrize(
    ("changes", "other"), [({"feature_dim": 5}, "5"), ({"crops": 10}, "10 x 3"), ({"crops": 1}, "1 x 3")]
)
def test_a_data_set_of_mixed_dimension_is_refused(store: FeatureStore, changes: dict[str, int], other: str) -> None:
    for name in ["a.mp4", "b.mp4"]:
        write(store, sidecar_of(name, 40))
    write(store, replace(sidecar_of("c.mp4", 40), **changes))
    with pytest.raises(UserError, match=rf"mixed dimension: videos/a\.mp4 has 3, c\.mp4 has {other};") as caught:
        list(store.read_all(["videos/a.mp4", "b.mp4", "c.mp4"]))
    assert "\n" not in str(caught.value)


# --- damage ----------------------------------------------------------------------------------------------------------


def spoil(path: Path, array: NDArray[np.float32], value: float) -> None:
    array = array.copy()
    array[1, 2] = value
    np.save(path, array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_neither_written_nor_read(store: FeatureStore, value: float) -> None:
    bad = features(2)
    bad[1, 1] = value
    with pytest.raises(UserError, match=r"a\.mp4\.npy.*NaN or infinite"), store.write("a.mp4", DIM) as writer:
        writer.append(bad)
    assert files(store) == []
    array = write(store, sidecar_of("a.mp4", 40))
    spoil(store.array_path("a.mp4"), array, value)
    read = store.read("a.mp4")  # not read as a whole just to look for them
    message = r"a\.mp4\.npy: holds NaN or infinite features; delete it and extract the video again$"
    for use in (
        lambda: read.read(slice(1, 2)),
        lambda: read.read(slice(1, 2), out=np.empty((1, DIM), np.float32)),
        lambda: read.read(np.array([2, 1])),
        lambda: list(read.pieces(1)),
    ):
        with pytest.raises(UserError, match=message):
            use()
    assert np.array_equal(read.read(np.array([2, 0])), array[[2, 0]])


@pytest.mark.parametrize("crops", [None, 2])
def test_a_file_without_clips_is_refused(store: FeatureStore, crops: int | None) -> None:
    write(store, replace(sidecar_of("a.mp4", 20), frames=0, crops=crops))
    with pytest.raises(UserError, match=r"a\.mp4\.npy: holds no clips; delete it and extract the video again"):
        store.read("a.mp4")


@pytest.mark.parametrize("change", ["gone", "cut", "longer", "doubles"])
def test_a_file_that_changes_after_it_was_opened_is_named(store: FeatureStore, change: str) -> None:
    array, path = write(store, sidecar_of("a.mp4", 100)), store.array_path("a.mp4")
    read = store.read("a.mp4")
    if change == "gone":
        path.unlink()
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        np.save(path, {"longer": np.concatenate([array, array]), "doubles": array.astype(float)}[change])
    for use in (lambda: read.array, lambda: read.read(slice(0, 1)), lambda: next(read.pieces())):
        with pytest.raises(UserError, match=r"a\.mp4\.npy.*extract again"):
            use()


def test_features_of_another_width_are_a_programming_error(store: FeatureStore) -> None:
    for shape in (2, DIM + 1), (DIM,), (2, 2, DIM), ():
        with pytest.raises(ValueError, match="expected"), store.write("a.mp4", DIM) as writer:
            writer.append(np.zeros(shape, np.float32))
    for shape in (2, DIM), (2, 3, DIM), (4, DIM):
        with pytest.raises(ValueError, match=r"expected \(n, 4, 3\)"), store.write("a.mp4", DIM, crops=4) as writer:
            writer.append(np.zeros(shape, np.float32))
    assert files(store) == []


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "text", "cut", "fewer clips", "doubles", "words", "objects", "zip"]
)
def test_a_damaged_feature_file_is_named(store: FeatureStore, damage: str) -> None:
    array, path = write(store, sidecar_of("a.mp4", 100)), store.array_path("a.mp4")
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage in ("empty", "text"):
        path.write_text("" if damage == "empty" else "features")
    elif damage == "zip":
        np.savez(path.with_suffix(".npz"), array)
        path.with_suffix(".npz").rename(path)
    else:
        np.save(
            path,
            {
                "fewer clips": array[:-1],
                "doubles": array.astype(float),
                "words": array.astype(str),
                "objects": array.astype(object),
            }[damage],
        )
    with pytest.raises(UserError, match=r"a\.mp4\.npy.*extract") as caught:
        store.read("a.mp4")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", ["missing", "", "{", "[]", "null", "\xff", '{"format": 1}', "clipping", "timeline", "unknown"]
)
def test_a_damaged_sidecar_is_named(store: FeatureStore, video: VideoSource, damage: str) -> None:
    write(store, sidecar_of("day/a.mp4", 40, video.path))
    path = store.sidecar_path("day/a.mp4")
    if damage == "missing":
        path.unlink()
    elif damage in ("clipping", "timeline", "unknown"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {damage: "damaged"}))
    else:
        path.write_bytes(damage.encode("latin-1"))
    with pytest.raises(UserError, match=r"day/a\.mp4.*extract") as caught:
        store.read("day/a.mp4")
    assert "\n" not in str(caught.value)
    if damage != "missing":
        with pytest.raises(UserError, match=r"day/a\.mp4\.json: a damaged"):
            store.current(video, FINGERPRINT, Clipping())


def test_a_sidecar_of_another_format_is_refused(store: FeatureStore) -> None:
    write(store, sidecar_of("a.mp4", 40))
    path = store.sidecar_path("a.mp4")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3}))
    with pytest.raises(UserError, match=r"a\.mp4\.json: a feature file of format 3, this version reads 1 and 2"):
        store.read("a.mp4")


def test_a_sidecar_of_the_first_format_is_read_and_is_of_the_second_once_it_is_written_again(
    store: FeatureStore, video: VideoSource
) -> None:
    # Guards against a new key in a file of the old format, which old readers took for damage: "delete it", they said.
    sidecar = sidecar_of("day/a.mp4", 40, video.path)
    array = write(store, sidecar)
    path = store.sidecar_path("day/a.mp4")
    fields = {key: value for key, value in json.loads(path.read_text()).items() if key != "features_sha256"}
    path.write_text(json.dumps(fields | {"format": 1}))
    before = path.read_bytes()
    old = store.read("day/a.mp4").sidecar
    assert old == replace(sidecar, format=1)
    assert store.current(video, FINGERPRINT, Clipping()) == old
    store.adopt(video, old)
    assert path.read_bytes() == before, "nothing to write"
    os.utime(video.path, ns=(1, 1))
    store.adopt(video, old)
    assert json.loads(path.read_text()) == fields | {"video_modified": 1, "features_sha256": None, "format": 2}
    assert np.array_equal(store.read("day/a.mp4").array, array)


@pytest.mark.parametrize("crops", [None, 4])
@pytest.mark.parametrize("order", ["C", "F", ">f4", "sliced"])
def test_the_digest_is_of_the_numbers_alone_however_they_were_appended(
    store: FeatureStore, crops: int | None, order: str
) -> None:
    sidecar = replace(sidecar_of("a.mp4", 421), crops=crops)
    array = features(27, *((DIM,) if crops is None else (crops, DIM)))
    given = {
        "C": array,
        "F": np.asfortranarray(array),
        ">f4": array.astype(">f4"),
        "sliced": np.repeat(array, 2, axis=0)[::2],
    }[order]
    with store.write("a.mp4", DIM, crops) as writer:
        for part in np.array_split(given, 6):
            writer.append(part)
        writer.finish(sidecar)
    found = store.read("a.mp4").sidecar.features_sha256
    assert found == hashlib.sha256(np.load(store.array_path("a.mp4")).tobytes()).hexdigest()
    assert found == hashlib.sha256(store.array_path("a.mp4").read_bytes()[128:]).hexdigest()


@pytest.mark.parametrize("letters", ["a" * 245 + ".mp4", "ü" * 122 + ".mp4", "日" * 82 + ".mp4"])
def test_a_name_that_leaves_no_room_for_a_suffix_is_shortened(
    store: FeatureStore, tmp_path: Path, letters: str
) -> None:
    assert 240 < len(letters.encode()) <= 255
    other = letters[:-5] + "b.mp4"
    for number, name in enumerate((f"day/{letters}", f"day/{other}")):
        video = VideoSource(name, tmp_path / f"{number}.mp4")
        video.path.write_bytes(bytes([number]))
        array = write(store, sidecar_of(name, 40 + 16 * number, video.path))
        assert store.current(video, FINGERPRINT, Clipping())
        assert store.find(name) == name
        assert np.array_equal(store.read(name).array, array)
    assert all(len(path.name.encode()) <= 255 for path in store.root.rglob("*"))
    assert len(list(store.root.rglob("*.npy"))) == 2
