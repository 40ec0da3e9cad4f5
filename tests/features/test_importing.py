"""Features that others made: found, understood, checked and filed, or refused in one line that says where and why."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import DatasetChoice, LabelledVideo
from xelvad.pipeline.datasets.choice import DatasetName
from xelvad.pipeline.features import foreign as feature_files
from xelvad.pipeline.features.config import ImportConfig
from xelvad.pipeline.features.foreign import find_files
from xelvad.pipeline.features.importing import ImportResult, import_features, videos_of
from xelvad.pipeline.features.sidecar import Sidecar, Timeline
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.clips import Clipping, Segments
from xelvad.pipeline.videos.identity import digest

from ..helpers.footage import Footage

NAME = "c3d"
DIM = 5


def rows(count: int, *row: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng((seed, count)).normal(size=(count, *(row or (DIM,))))


def save(path: Path, array: NDArray, fortran: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.asfortranarray(array) if fortran else array)
    return path


def save_text(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def text_lines(array: NDArray) -> list[str]:
    return [" ".join(f"{value:.6f}" for value in row) for row in array]


def train_video(name: str, frames: int | None = None) -> LabelledVideo:
    return LabelledVideo(name, "train", abnormal=False, frames=frames)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", NAME)


@pytest.fixture
def take(source: Path, store: FeatureStore) -> Callable[..., ImportResult]:
    """Imports videos, given as names or with their frames, from ``source`` into ``store``."""

    def take(*videos: str | tuple[str, int | None] | LabelledVideo, **config: object) -> ImportResult:
        tuples = [(video,) if isinstance(video, str) else video for video in videos]
        listed = [video if isinstance(video, LabelledVideo) else train_video(*video) for video in tuples]
        return import_features(listed, [source], store.root, ImportConfig(NAME, **config))

    return take


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def single_files(names: Sequence[str], sources: Sequence[Path]) -> list[Path]:
    """The one file of each video."""
    return [path for (path,) in find_files(names, sources).files]


Take = Callable[..., ImportResult]


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("row", [(DIM,), (10, DIM), (1, DIM)])
@pytest.mark.parametrize("fortran", [False, True])
def test_an_array_is_imported_as_float32(
    source: Path, store: FeatureStore, take: Take, kind: str, row: tuple[int, ...], fortran: bool
) -> None:
    array = rows(7, *row).astype(kind)
    path = save(source / "day" / "a.npy", array, fortran)
    assert take(("day/a.mp4", 100)) == ImportResult(imported=["day/a.mp4"])
    assert files(store.root) == ["c3d/day/a.mp4.json", "c3d/day/a.mp4.npy"]
    features = store.read("day/a.mp4")
    assert features.array.dtype == np.float32
    assert np.array_equal(features.array, array.astype(np.float32))
    assert features.sidecar == Sidecar(
        video="day/a.mp4",
        video_bytes=path.stat().st_size,
        video_modified=path.stat().st_mtime_ns,
        video_sha256=digest(path),
        frames=100,
        declared_frames=100,
        salvaged_frames=0,
        timeline=Timeline(0.0, 25.0),
        clipping=Clipping(16, "pad"),
        extractor=NAME,
        fingerprint="imported c3d",
        feature_dim=DIM,
        decoder=features.sidecar.decoder,
        version=features.sidecar.version,
        crops=row[0] if len(row) == 2 else None,
        features_sha256=hashlib.sha256(array.astype("<f4").tobytes()).hexdigest(),
    )
    assert "features" in features.sidecar.decoder


@pytest.mark.parametrize("values", [1, 7, 10 * DIM, 20 * DIM + 1])
def test_an_array_is_copied_in_pieces(
    source: Path, store: FeatureStore, take: Take, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    monkeypatch.setattr(feature_files, "PIECE_VALUES", values)
    array = rows(23, 2, DIM)
    save(source / "a.npy", array)
    take("a.mp4", crops="second")
    assert np.array_equal(store.read("a.mp4").array, array.astype(np.float32))


# --- crops -----------------------------------------------------------------------------------------------------------


def test_published_features_with_crops_first_are_not_taken_for_ten_clips(
    source: Path, store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Guards against what happened: without frames in the labels, ten crops became ten clips, silently.
    manifest(tmp_path, "video,split,label,frames\na.mp4,train,1,\nb.mp4,train,0,\n")
    arrays = {name: rows(10, 32, DIM, seed=seed) for seed, name in enumerate("ab")}
    for name, array in arrays.items():
        save(source / f"{name}.npy", array)
    for options in ([], ["--segments"]):
        assert command(tmp_path, *options) == 2
        assert capsys.readouterr().err == (
            f"xelvad: {source / 'a.npy'}: shape (10, 32, 5) looks like (crops, clips, F): say --crops first "
            "(or --crops second if these are 10 clips with 32 crops each)\n"
        )
        assert not store.root.exists()
    assert command(tmp_path, "--crops", "first", "--segments") == 0
    for name, array in arrays.items():
        assert np.array_equal(store.read(f"{name}.mp4").array, array.swapaxes(0, 1).astype(np.float32))
        assert store.read(f"{name}.mp4").sidecar.clipping == Segments(32)


@pytest.mark.parametrize("values", [1, 7, 10 * DIM, 20 * DIM + 1])
@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8"])
def test_crops_first_are_turned_in_pieces(
    source: Path,
    store: FeatureStore,
    take: Take,
    monkeypatch: pytest.MonkeyPatch,
    values: int,
    fortran: bool,
    kind: str,
) -> None:
    monkeypatch.setattr(feature_files, "PIECE_VALUES", values)
    array = rows(2, 23, DIM).astype(kind)
    save(source / "a.npy", array, fortran)
    take(("a.mp4", 23 * 16), crops="first")
    assert np.array_equal(store.read("a.mp4").array, array.swapaxes(0, 1).astype(np.float32))
    assert store.read("a.mp4").crops == 2


@pytest.mark.parametrize(
    ("shape", "frames", "segments", "message"),
    [
        ((10, 32, DIM), 32 * 16, False, r"looks like \(crops, clips, F\)"),
        ((10, 7, DIM), 100, False, r"looks like \(crops, clips, F\)"),
        ((10, 9, DIM), 100, False, r"looks like \(crops, clips, F\)"),
        ((5, 200, DIM), None, False, r"looks like \(crops, clips, F\)"),
        ((1, 200, DIM), None, False, r"looks like \(crops, clips, F\)"),
        ((10, 5, DIM), 80, False, r"looks like \(crops, clips, F\)"),
        ((10, 2048, 10), None, False, r"looks like \(crops, clips, F\)"),
        ((10, 10, DIM), None, False, r"may be \(crops, clips, F\) or \(clips, crops, F\)"),
        ((10, 10, DIM), 160, False, r"may be \(crops, clips, F\) or \(clips, crops, F\)"),
        ((10, 5, DIM), None, False, r"may be"),
        ((10, 5, DIM), 80, True, r"may be"),
        ((1, 10, DIM), None, False, r"may be"),
        ((32, 7, DIM), None, True, r"neither 32 nor 7 is a common number of crops \(1, 5, 10\)"),
        ((200, 2048, 3), None, False, r"neither 200 nor 2048"),
        ((7, 10, DIM), 160, False, r"has 7 rows, but the 160 frames of a\.mp4 make 10 clips"),
        ((32, 10, DIM), 160, False, r"has 32 rows, .* say --segments"),
    ],
)
def test_axes_are_not_guessed(
    source: Path,
    store: FeatureStore,
    take: Take,
    shape: tuple[int, ...],
    frames: int | None,
    segments: bool,
    message: str,
) -> None:
    save(source / "a.npy", rows(*shape))
    with pytest.raises(UserError, match=r"a\.npy: .*" + message) as caught:
        take(("a.mp4", frames), segments=segments)
    assert "\n" not in str(caught.value)
    assert not store.root.exists()
    if "say --crops" in message or "look" in message or "may" in message:
        assert re.search("--crops first.*--crops second|--crops first or --crops second", str(caught.value))


@pytest.mark.parametrize(
    ("shape", "frames", "segments"),
    [
        ((32, 10, DIM), None, True),
        ((200, 10, DIM), None, False),
        ((37, 5, DIM), None, False),
        ((37, 1, DIM), None, False),
        ((7, 10, DIM), 100, False),
        ((5, 10, DIM), 80, False),
        ((1, 10, DIM), 16, False),
    ],
)
def test_axes_that_are_certain_are_taken(
    source: Path, store: FeatureStore, take: Take, shape: tuple[int, ...], frames: int | None, segments: bool
) -> None:
    array = rows(*shape)
    save(source / "a.npy", array)
    take(("a.mp4", frames), segments=segments)
    assert np.array_equal(store.read("a.mp4").array, array.astype(np.float32))


def test_what_one_file_leaves_open_the_others_tell(source: Path, store: FeatureStore, take: Take) -> None:
    for name, clips in [("a", 10), ("b", 37), ("c", 1), ("d", 5)]:
        save(source / f"{name}.npy", rows(clips, 10, DIM))
    assert len(take("a.mp4", "b.mp4", "c.mp4", "d.mp4").imported) == 4
    assert [store.read(f"{name}.mp4").shape for name in "acd"] == [(10, 10, DIM), (1, 10, DIM), (5, 10, DIM)]
    save(source / "b.npy", rows(10, 37, DIM))
    with pytest.raises(UserError, match=r"b\.npy: .* looks like \(crops, clips, F\)"):
        take("a.mp4", "b.mp4", "c.mp4", "d.mp4")


@pytest.mark.parametrize("crops", ["first", "second"])
def test_an_answer_about_crops_needs_an_axis_of_crops(source: Path, take: Take, crops: str) -> None:
    save(source / "a.npy", rows(7))
    with pytest.raises(UserError, match=rf"a\.npy: shape \(7, 5\) has no axis for crops: leave out --crops {crops}"):
        take("a.mp4", crops=crops)


def test_another_answer_about_crops_imports_again(source: Path, store: FeatureStore, take: Take) -> None:
    array = rows(10, 10, DIM)
    save(source / "a.npy", array)
    for crops, expected in [("second", array), ("first", array.swapaxes(0, 1))]:
        assert take("a.mp4", crops=crops).imported == ["a.mp4"]
        assert take("a.mp4", crops=crops).current == ["a.mp4"]
        assert np.array_equal(store.read("a.mp4").array, expected.astype(np.float32))


@pytest.mark.parametrize("dim", [512, 768, 1024, 2048, 4096])
def test_transposed_features_are_refused(source: Path, store: FeatureStore, take: Take, dim: int) -> None:
    save(source / "a.npy", rows(dim, 7))
    for frames, segments in [(None, False), (100, False), (7 * 16, False), (None, True)]:
        message = rf"a\.npy: shape \({dim}, 7\) looks like \(F, clips\), transposed: save it as \(clips, F\)"
        with pytest.raises(UserError, match=message):
            take(("a.mp4", frames), segments=segments)
    assert not store.root.exists()


def test_as_many_clips_as_features_are_common_are_no_transposition(
    source: Path, store: FeatureStore, take: Take
) -> None:
    save(source / "a.npy", rows(1024, DIM))
    save(source / "b.npy", rows(9, DIM))
    assert take(("a.mp4", 1024 * 16)).imported == ["a.mp4"]
    assert take("a.mp4", "b.mp4").imported == ["a.mp4", "b.mp4"]
    save(source / "c.npy", rows(1024, 512))
    assert take("c.mp4").imported == ["c.mp4"]


# --- crops in files of their own -------------------------------------------------------------------------------------

XD = "v=8cTqh9tMz_I__#1_label_A"


def save_crops(folder: Path, name: str, clips: int, crops: int = 5, seed: int = 0) -> NDArray[np.float64]:
    array = rows(clips, crops, DIM, seed=seed)
    for crop in range(crops):
        save(folder / f"{name}__{crop}.npy", array[:, crop])
    return array


@pytest.mark.parametrize("crops", ["auto", "files"])
def test_crops_in_files_of_their_own_are_joined(source: Path, store: FeatureStore, take: Take, crops: str) -> None:
    arrays = [save_crops(source / "i3d" / "RGB", XD, 23), save_crops(source, "b_i3d", 11, seed=1)]
    names = [f"{XD}.mp4", "b.mp4"]
    result = take((names[0], 23 * 16), names[1], crops=crops)
    assert result.imported == names
    assert result.notes == [
        f"crops joined from files of their own, for 2 of 2 videos: {XD}__0.npy … {XD}__4.npy",
    ]
    for name, array in zip(names, arrays, strict=True):
        assert np.array_equal(store.read(name).array, array.astype(np.float32))
        assert store.read(name).crops == 5
    assert take((names[0], 23 * 16), names[1], crops=crops).current == names

    save(source / "b_i3d__3.npy", rows(11, DIM, seed=9))
    assert take((names[0], 23 * 16), names[1], crops=crops).imported == ["b.mp4"]
    os.utime(source / "b_i3d__3.npy", ns=(0, 12345 * 10**15))
    assert take((names[0], 23 * 16), names[1], crops=crops).current == names


@pytest.mark.parametrize("values", [1, 7, 10 * DIM, 20 * DIM + 1])
def test_crops_are_joined_in_pieces_also_more_than_ten(
    source: Path, store: FeatureStore, take: Take, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    monkeypatch.setattr(feature_files, "PIECE_VALUES", values)
    array = save_crops(source, "a", 23, 12)
    take("a.mp4")
    assert np.array_equal(store.read("a.mp4").array, array.astype(np.float32))


def test_a_file_of_the_videos_own_name_is_no_crop(source: Path, store: FeatureStore, take: Take) -> None:
    arrays = {name: rows(7, seed=seed) for seed, name in enumerate(["a__0", "a__1", "a"])}
    for name, array in arrays.items():
        save(source / f"{name}.npy", array)
    result = take("a__0.mp4", "a__1.mp4", "a.mp4")
    assert (result.notes, len(result.imported)) == ([], 3)
    for name, array in arrays.items():
        assert np.array_equal(store.read(f"{name}.mp4").array, array.astype(np.float32))


@pytest.mark.parametrize("lacking", [0, 1, 3])
def test_a_missing_crop_is_refused_by_name(source: Path, store: FeatureStore, take: Take, lacking: int) -> None:
    save_crops(source, "a", 7)
    (source / f"a__{lacking}.npy").unlink()
    with pytest.raises(
        UserError, match=rf"source/a__{lacking}\.npy: missing; a\.mp4 has crops up to 4, counted from 0"
    ):
        take("a.mp4")
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda source: save(source / "a__2.npy", rows(8)),
            r"a__2\.npy: of shape \(8, 5\), another crop .*a__0\.npy, of",
        ),
        (lambda source: save(source / "a__2.npy", rows(7, 5, DIM)), r"a__2\.npy: a crop .* not of shape \(7, 5, 5\)"),
        (lambda source: save(source / "a__02.npy", rows(7)), r"a\.mp4: more than one file .*a__02\.npy, .*a__2\.npy"),
        (
            lambda source: (source / "b__4.npy").unlink(),
            r"mixed dimension: .*a__0\.npy is \(5, 5\), .*b__0\.npy \(4, 5\)",
        ),
        (lambda source: save(source / "a__3.npy", rows(7) * np.nan), r"a__3\.npy, row 0: NaN"),
    ],
)
def test_crops_that_do_not_fit_each_other_are_refused(
    source: Path, take: Take, prepare: Callable[[Path], object], message: str
) -> None:
    for name in "ab":
        save_crops(source, name, 7)
    prepare(source)
    with pytest.raises(UserError, match=message):
        take("a.mp4", "b.mp4")


def test_crops_in_files_are_asked_for_by_name(source: Path, take: Take) -> None:
    save(source / "a.npy", rows(7))
    with pytest.raises(UserError, match=r"no features of 1 of 1 videos: a\.mp4; .* a\.mp4__0\.npy, "):
        take("a.mp4", crops="files")


# --- what is passed over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".h5", ".hdf5", ".pt", ".pth", ".pkl", ".NPZ", ".tar", ".dat", ""])
def test_files_of_formats_that_are_not_read_are_named(
    source: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest(tmp_path, "video,split,label\na.mp4,train,1\n")
    touch(source, f"x/a{suffix}", f"b{suffix}", "README.md", "list.csv", ".hidden", "LICENSE", "a.mp4")
    assert command(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no features of 1 of 1 videos: a.mp4" in line
    assert f"2 files are of formats that are not read (b{suffix}, a{suffix}): save their arrays by np.save" in line
    save(source / "a.npy", rows(7))
    assert command(tmp_path) == 1
    _, note = capsys.readouterr().out.splitlines()
    assert note.startswith(f"passed over: 2 files are of formats that are not read (b{suffix}, a{suffix}): ")


def test_files_of_no_video_are_counted(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(tmp_path, "video,split,label\na.mp4,train,1\n")
    save(source / "a.npy", rows(7))
    touch(source, "b.npy", "x/c.txt", "README.md", "labels.json")
    assert command(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 imported, 0 were there",
        "passed over: 2 files that belong to no video of the data set",
    ]


def test_a_suffix_in_capitals_is_read(source: Path, take: Take) -> None:
    save(source / "a.npy", rows(7)).rename(source / "a.NPY")
    assert take("a.mp4").imported == ["a.mp4"]


IMPORT = """
import sys
from pathlib import Path
from xelvad.pipeline.datasets import LabelledVideo
from xelvad.pipeline.features.importing import ImportConfig, import_features

def kilobytes(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])

def take(name):
    videos = [LabelledVideo(name, "train", abnormal=False)]
    import_features(videos, [Path(sys.argv[1])], Path(sys.argv[2]), ImportConfig(name, crops=sys.argv[3]))

take("short")
before = kilobytes("VmRSS")
take("long")
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("crops", ["auto", "first"])
def test_memory_does_not_grow_with_the_file(source: Path, tmp_path: Path, crops: str) -> None:
    short, long = ((10, 512), (150_000, 512)) if crops == "auto" else ((10, 10, 512), (10, 15_000, 512))
    save(source / "short.npy", np.ones(short, np.float16))
    save(source / "long.npy", np.ones(long, np.float16))
    command = [sys.executable, "-c", IMPORT, str(source), str(tmp_path / "features"), crops]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 100_000, result.stdout  # kB; the file is 150,000, and its features 300,000
    shutil.rmtree(tmp_path)  # pytest would keep them


# --- how many frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "count", "length", "clipping"),
    [
        (100, 7, 16, Clipping(16, "pad")),
        (100, 6, 16, Clipping(16, "drop")),
        (96, 6, 16, Clipping(16, "pad")),  # either way the same
        (7, 1, 16, Clipping(16, "pad")),
        (100, 13, 8, Clipping(8, "pad")),
        (100, 12, 8, Clipping(8, "drop")),
        (None, 6, 16, Clipping(16, "pad")),
    ],
)
def test_rows_and_frames_tell_what_became_of_the_tail(
    source: Path, store: FeatureStore, take: Take, frames: int | None, count: int, length: int, clipping: Clipping
) -> None:
    save(source / "a.npy", rows(count))
    take(("a.mp4", frames), clip_length=length)
    features = store.read("a.mp4")
    assert features.sidecar.clipping == clipping
    assert features.sidecar.frames == (frames or count * length)
    assert features.sidecar.declared_frames == (frames or 0)
    assert features.clips == count


@pytest.mark.parametrize(("frames", "count"), [(100, 5), (100, 8), (96, 5), (96, 7), (7, 2), (16 * 32 * 32, 32)])
def test_rows_that_do_not_fit_the_frames_are_refused(
    source: Path, store: FeatureStore, take: Take, frames: int, count: int
) -> None:
    save(source / "a.npy", rows(count))
    with pytest.raises(UserError, match=rf"a\.npy: has {count} rows, but the {frames} frames of a\.mp4 make .*--segm"):
        take(("a.mp4", frames))
    assert not store.root.exists()


def test_all_videos_are_cut_alike_also_those_that_do_not_tell(source: Path, store: FeatureStore, take: Take) -> None:
    # Guards against a "pad" for every sixteenth video of a data set that dropped its tails: training refuses a mixture.
    for name, count in [("a", 6), ("b", 6), ("c", 9)]:
        save(source / f"{name}.npy", rows(count))
    take(("a.mp4", 96), ("b.mp4", 100), "c.mp4")
    read = [store.read(f"{name}.mp4").sidecar for name in "abc"]
    assert {sidecar.clipping for sidecar in read} == {Clipping(16, "drop")}
    assert [sidecar.frames for sidecar in read] == [96, 100, 144]


def test_videos_that_tell_differently_are_refused(source: Path, store: FeatureStore, take: Take) -> None:
    save(source / "a.npy", rows(6))
    save(source / "b.npy", rows(7))
    with pytest.raises(UserError, match=r"b\.npy has a row for its last, incomplete clip, .*a\.npy has none"):
        take(("a.mp4", 100), ("b.mp4", 100))
    assert not store.root.exists()


def test_the_frame_rate_gives_the_times(source: Path, store: FeatureStore, take: Take) -> None:
    save(source / "a.npy", rows(6))
    take("a.mp4", frame_rate=30)
    assert store.read("a.mp4").sidecar.timeline.times(96)[30] == 1.0


# --- segments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [32, 200])
@pytest.mark.parametrize("row", [(DIM,), (10, DIM)])
def test_rows_may_be_segments(source: Path, store: FeatureStore, take: Take, count: int, row: tuple[int, ...]) -> None:
    for seed, name in enumerate("ab"):
        save(source / f"{name}.npy", rows(count, *row, seed=seed))
    take(("a.mp4", 5000), ("b.mp4", 20), segments=True)
    for seed, (name, frames) in enumerate([("a.mp4", 5000), ("b.mp4", 20)]):
        features = store.read(name)
        assert (features.sidecar.clipping, features.sidecar.frames) == (Segments(count), frames)
        assert np.array_equal(features.array, rows(count, *row, seed=seed).astype(np.float32))


@pytest.mark.parametrize("segments", [False, True])
def test_text_files_are_32_segments(source: Path, store: FeatureStore, take: Take, segments: bool) -> None:
    array = rows(32)
    save_text(source / "a.txt", text_lines(array))
    take(("a.mp4", 700), segments=segments)
    features = store.read("a.mp4")
    assert (features.sidecar.clipping, features.sidecar.frames) == (Segments(32), 700)
    assert np.abs(features.array - array).max() < 1e-6


@pytest.mark.parametrize(
    "text",
    ["1 2\n" * 32, "1 2\n" * 31 + "1 2", "1 2\r\n" * 32, " 1\t2  \n" * 32, "1 2\n" * 32 + "\n \n", "1e0 +2.\n" * 32],
)
def test_text_may_be_laid_out_otherwise(source: Path, store: FeatureStore, take: Take, text: str) -> None:
    (source / "a.txt").write_bytes(text.encode())
    take("a.mp4")
    assert np.array_equal(store.read("a.mp4").array, [[1, 2]] * 32)


def test_training_videos_of_segments_need_no_frames_but_test_videos_do(
    source: Path, store: FeatureStore, take: Take
) -> None:
    for name in "abc":
        save_text(source / f"{name}.txt", text_lines(rows(32)))
    test = [LabelledVideo(f"{name}.mp4", "test", abnormal=False) for name in "bc"]
    with pytest.raises(UserError, match=r"test videos .* column frames, .* --videos; missing for b\.mp4, c\.mp4"):
        take("a.mp4", *test)
    assert not store.root.exists()
    take("a.mp4", LabelledVideo("b.mp4", "test", abnormal=False, frames=900))
    assert [store.read(name).sidecar.frames for name in ("a.mp4", "b.mp4")] == [32 * 16, 900]


def test_different_numbers_of_segments_are_refused(source: Path, take: Take) -> None:
    save(source / "a.npy", rows(32))
    save(source / "b.npy", rows(33))
    with pytest.raises(UserError, match=r"a\.npy has 32 segments, .*b\.npy 33: all must .* leave out --segments"):
        take("a.mp4", "b.mp4", segments=True)


def test_segments_and_clips_are_not_mixed(source: Path, store: FeatureStore, take: Take) -> None:
    save(source / "a.npy", rows(32))
    save_text(source / "b.txt", text_lines(rows(32)))
    with pytest.raises(UserError, match=r"b\.txt has a row for each segment, .*a\.npy for each clip.*--segments"):
        take("a.mp4", "b.mp4")
    assert not store.root.exists()
    assert take("a.mp4", "b.mp4", segments=True).imported == ["a.mp4", "b.mp4"]


# --- what cannot be imported -----------------------------------------------------------------------------------------

LINE = "0.1 0.2 0.3"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"line 1: the file ends here, it must have 32 lines"),
        ([LINE] * 31, r"line 32: the file ends here, it must have 32 lines"),
        ([LINE] * 33, r"line 33: more than the 32 lines"),
        ([*[LINE] * 4, "0.1 0.2", *[LINE] * 27], r"line 5: 2 numbers, line 1 has 3"),
        ([*[LINE] * 31, LINE + " 0.4"], r"line 32: 4 numbers, line 1 has 3"),
        (["", *[LINE] * 31], r"line 1: empty"),
        ([*[LINE] * 9, "", *[LINE] * 22], r"line 10: empty"),
        ([*[LINE] * 2, "0.1 0.2 O.3", *[LINE] * 29], r"line 3: not all numbers \(.*O\.3.*\)"),
        (["0.1,0.2,0.3"] * 32, r"line 1: not all numbers"),
        ([*[LINE] * 6, "0.1 nan 0.3", *[LINE] * 25], r"line 7: NaN, infinite"),
        ([*[LINE] * 6, "0.1 -inf 0.3", *[LINE] * 25], r"line 7: NaN, infinite"),
        ([*[LINE] * 6, "0.1 1e300 0.3", *[LINE] * 25], r"line 7: NaN, infinite, or beyond float32"),
        (["1 " * (1 << 21)], r"line 1: longer than any line of features"),
        (["video,split,label", "a.mp4,train,0"], r"line 1: not all numbers"),
    ],
)
def test_a_wrong_text_file_is_refused_with_its_line(
    source: Path, store: FeatureStore, take: Take, lines: list[str], message: str
) -> None:
    save_text(source / "a.txt", lines)
    with pytest.raises(UserError, match=r"a\.txt, " + message) as caught:
        take("a.mp4")
    assert "\n" not in str(caught.value)
    assert not files(store.root)


def damaged(path: Path, damage: str) -> None:
    array = rows(8)
    if damage == "cut":
        save(path, array)
        path.write_bytes(path.read_bytes()[:-8])
    elif damage in ("empty", "text"):
        path.write_text("" if damage == "empty" else "0.1 0.2 0.3\n")
    elif damage == "zip":
        np.savez(path.with_suffix(".npz"), array)
        path.with_suffix(".npz").rename(path)
    elif damage == "folder":
        path.mkdir()
    else:
        arrays = {
            "objects": array.astype(object),
            "whole numbers": array.astype(np.int64),
            "words": array.astype(str),
            "long doubles": array.astype(np.longdouble),
            "one axis": array[0],
            "four axes": array[None, None],
            "no rows": array[:0],
            "no features": array[:, :0],
        }
        save(path, arrays[damage])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((damage, "not a plain array") for damage in ("cut", "empty", "text", "zip", "folder", "objects")),
        ("whole numbers", "holds int64, features are float16, float32 or float64"),
        ("words", "holds <U"),
        ("one axis", r"has the shape \(5,\), not \(rows, features\) or \(rows, crops, features\)"),
        ("four axes", r"has the shape \(1, 1, 8, 5\), not"),
        ("no rows", r"empty, of shape \(0, 5\)"),
        ("no features", r"empty, of shape \(8, 0\)"),
    ],
)
def test_what_is_no_array_of_features_is_refused(
    source: Path, store: FeatureStore, take: Take, damage: str, message: str
) -> None:
    damaged(source / "a.npy", damage)
    with pytest.raises(UserError, match=r"a\.npy: " + message) as caught:
        take("a.mp4")
    assert "\n" not in str(caught.value)
    assert not files(store.root)


def header_of(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x09\x00\x02\x00{}", b"PK\x03\x04",
        *(header_of(text) for text in [
            "{", "(" * 5000, "1", "'", "{'descr': 'O', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 5)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 30 + ", 5)}",
            "{'descr': '<Q9', 'fortran_order': 0, 'shape': 7}",
            "{'descr': [], 'fortran_order': False, 'shape': (2, 5)}",
        ]),
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(source: Path, store: FeatureStore, take: Take, data: bytes) -> None:
    (source / "a.npy").write_bytes(data + b"\0" * 40)
    with pytest.raises(UserError, match=r"a\.npy: ") as caught:
        take("a.mp4")
    assert "\n" not in str(caught.value)
    assert not files(store.root)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long doubles are doubles here")
def test_long_doubles_are_refused(source: Path, take: Take) -> None:
    damaged(source / "a.npy", "long doubles")
    with pytest.raises(UserError, match=r"a\.npy: holds float128, features are"):
        take("a.mp4")


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(source: Path, take: Take) -> None:
    trap = np.empty(1, object)
    trap[0] = Trap(source / "sprung")
    np.save(source / "a.npy", trap, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy: not a plain array"):
        take("a.mp4")
    assert not (source / "sprung").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("row", [(DIM,), (2, DIM)])
def test_features_that_are_not_finite_are_named_and_leave_nothing(
    source: Path, store: FeatureStore, take: Take, monkeypatch: pytest.MonkeyPatch, value: float, row: tuple[int, ...]
) -> None:
    monkeypatch.setattr(feature_files, "PIECE_VALUES", 3 * 2 * DIM)
    array = rows(20, *row)
    array[17, ..., 1] = value
    save(source / "a.npy", array)
    crops = {"crops": "second"} if len(row) == 2 else {}
    with pytest.raises(UserError, match=r"a\.npy, row 17: NaN, infinite, or beyond float32"):
        take("a.mp4", **crops)
    assert not files(store.root)


@pytest.mark.parametrize("other", [(DIM + 1,), (10, DIM), (1, DIM)])
def test_mixed_dimensions_are_refused_before_anything_is_written(
    source: Path, store: FeatureStore, take: Take, other: tuple[int, ...]
) -> None:
    save(source / "a.npy", rows(6))
    save(source / "b.npy", rows(6, *other))
    with pytest.raises(UserError, match=r"mixed dimension: a row of .*a\.npy is \(5,\), of .*b\.npy \(") as caught:
        take("a.mp4", "b.mp4")
    assert str(other) in str(caught.value)
    assert not store.root.exists()


def test_a_source_is_not_replaced_by_its_own_import(source: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "features" / NAME / "a.mp4.npy", rows(6))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.mp4\.npy: would be replaced .*--features"):
        import_features([train_video("a.mp4")], [path.parent], tmp_path / "features", ImportConfig(NAME))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "config",
    [{"extractor": name} for name in ("", ".", "..", "a/b", "/a", "a/")]
    + [{"clip_length": 0}, {"clip_length": -16}, {"frame_rate": 0}, {"frame_rate": np.inf}, {"frame_rate": np.nan}],
)
def test_impossible_settings_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(config))):
        ImportConfig(**({"extractor": NAME} | config))


# --- finding ---------------------------------------------------------------------------------------------------------

UCF = "Abuse/Abuse001_x264.mp4"


def touch(source: Path, *names: str) -> None:
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()


@pytest.mark.parametrize("folder", ["", "Abuse/", "part-1/Abuse/", "c3d/train/Abuse/"])
@pytest.mark.parametrize(
    "name",
    ["Abuse001_x264.mp4.npy", "Abuse001_x264.npy", "Abuse001_x264.txt", "Abuse001_x264.mp4.txt",
     "Abuse001_x264_i3d.npy", "Abuse001_x264_C.txt", "Abuse001_x264_C3D.txt", "Abuse001_x264_c3d.npy"],
)  # fmt: skip
def test_a_file_is_found_by_the_names_that_are_in_use(source: Path, folder: str, name: str) -> None:
    touch(source, folder + name, "Abuse002_x264.npy", "Abuse/Abuse001_x264.npy.bak", "Abuse001.npy", "001_x264.npy")
    assert single_files([UCF], [source]) == [source / folder / name]


@pytest.mark.parametrize(("video", "file"), [("01_0014", "01_0014.npy"), ("a/b/c.d", "b/c.d.npy"), ("c.AVI", "c.npy")])
def test_folders_of_frames_and_other_suffixes_are_found(source: Path, video: str, file: str) -> None:
    touch(source, file, "c.npy")  # which is not for a folder of frames named c.d
    assert single_files([video], [source]) == [source / file]


def test_more_leading_folders_win(source: Path) -> None:
    touch(source, "a.npy", "night/a.npy", "cam/day/a.npy")
    names = ["cam/day/a.mp4", "cam/night/a.mp4", "a.mp4"]
    assert single_files(names, [source]) == [source / "cam/day/a.npy", source / "night/a.npy", source / "a.npy"]


def test_what_lies_deeper_is_found_by_its_name(source: Path) -> None:
    touch(source, "part-1/Arson/Arson001_x264_C3D.npy", "part-2/normal/Normal_Videos001_x264.mp4.npy", "x/y/01_001.txt")
    names = ["Arson001_x264", "Normal_Videos001_x264", "01_001"]
    assert single_files(names, [source]) == [
        source / "part-1/Arson/Arson001_x264_C3D.npy",
        source / "part-2/normal/Normal_Videos001_x264.mp4.npy",
        source / "x/y/01_001.txt",
    ]


def test_two_that_lie_deeper_cannot_be_told_apart_unless_one_has_more_in_common(source: Path) -> None:
    touch(source, "one/day/a.npy", "two/day/a.npy")
    with pytest.raises(UserError, match=r"a has .*one/day/a\.npy, .*two/day/a\.npy"):
        find_files(["a"], [source])
    assert single_files(["two/day/a.mp4"], [source]) == [source / "two/day/a.npy"]
    assert single_files(["cam/two/day/a.mp4"], [source]) == [source / "two/day/a.npy"]


def test_linked_folders_are_searched(source: Path, tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.npy")
    (source / "here").symlink_to(tmp_path / "elsewhere")
    assert single_files(["a.mp4"], [source]) == [source / "here" / "a.npy"]


def test_several_sources_are_searched(source: Path, tmp_path: Path) -> None:
    touch(tmp_path, "source/a.npy", "more/b.npy", "more/Abuse/a.npy")
    more = tmp_path / "more"
    assert single_files(["a.mp4", "b.mp4"], [source, more, source]) == [source / "a.npy", more / "b.npy"]
    assert single_files(["Abuse/a.mp4"], [source, more]) == [more / "Abuse" / "a.npy"]
    touch(tmp_path, "more/a.npy")
    with pytest.raises(UserError, match=r"a\.mp4 has .*source/a\.npy, .*more/a\.npy: name the folder"):
        find_files(["a.mp4"], [source, more])


@pytest.mark.parametrize("pair", [("a.npy", "a.txt"), ("a.npy", "a.mp4.npy"), ("a_C.txt", "a_C3D.txt")])
def test_ambiguous_files_are_listed(source: Path, pair: tuple[str, str]) -> None:
    touch(source, "b.npy", "c.npy", "c.txt", *pair)
    with pytest.raises(UserError, match=r"^a\.mp4, c\.mp4: more than one file") as caught:
        find_files(["a.mp4", "b.mp4", "c.mp4"], [source])
    assert all(str(source / name) in str(caught.value) for name in pair)


def test_missing_files_are_counted_and_listed(source: Path) -> None:
    touch(source, "0.npy")
    names = [f"day/{number}.mp4" for number in range(9)]
    with pytest.raises(UserError) as caught:
        find_files(names, [source])
    message = str(caught.value)
    assert message.startswith(f"{source}: no features of 8 of 9 videos: day/1.mp4, day/2.mp4, ")
    assert "day/5.mp4 and 3 more" in message
    assert "1.mp4.npy" in message
    assert "correct --source or the data set's labels" in message


@pytest.mark.parametrize("names", [("day/a.mp4", "night/a.mp4"), ("a.mp4", "a.avi"), ("a", "a.mp4")])
def test_two_videos_do_not_take_one_file(source: Path, names: tuple[str, str]) -> None:
    touch(source, "a.npy")
    with pytest.raises(UserError, match=rf"{names[0]} and {names[1]} would both take .*a\.npy"):
        find_files(names, [source])


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_source_must_be_a_folder(source: Path, kind: str) -> None:
    if kind == "file":
        touch(source, "a.npy")
    with pytest.raises(UserError, match=r"a\.npy: no such folder"):
        find_files(["a.mp4"], [source / "a.npy"])


# --- resuming --------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_imported_again(source: Path, store: FeatureStore, take: Take) -> None:
    for name in "abc":
        save(source / f"{name}.npy", rows(6))
    names = ["a.mp4", "b.mp4", "c.mp4"]
    assert take(*names) == ImportResult(imported=names)
    assert take(*names) == ImportResult(current=names)

    save(source / "b.npy", rows(6, seed=1))
    os.utime(source / "b.npy", ns=(0, 12345))
    assert take(*names) == ImportResult(imported=["b.mp4"], current=["a.mp4", "c.mp4"])
    assert np.array_equal(store.read("b.mp4").array, rows(6, seed=1).astype(np.float32))

    store.array_path("c.mp4").unlink()
    assert take(*names).imported == ["c.mp4"]
    store.sidecar_path("a.mp4").unlink()
    assert take(*names).imported == ["a.mp4"]
    assert take(*names).imported == []


def test_imports_from_before_there_were_digests_are_current(source: Path, store: FeatureStore, take: Take) -> None:
    path = save(source / "a.npy", rows(7, DIM))
    take("a.mp4")
    sidecar = store.sidecar_path("a.mp4")
    fields = {key: value for key, value in json.loads(sidecar.read_text()).items() if key != "features_sha256"}
    sidecar.write_text(json.dumps(fields | {"format": 1}))
    assert take("a.mp4") == ImportResult(current=["a.mp4"])
    assert json.loads(sidecar.read_text()) == fields | {"format": 1}, "nothing to write"
    os.utime(path, ns=(1, 1))
    assert take("a.mp4") == ImportResult(current=["a.mp4"])
    assert json.loads(sidecar.read_text()) == fields | {"video_modified": 1, "features_sha256": None, "format": 2}


def test_other_frames_or_another_rate_are_imported_again(source: Path, store: FeatureStore, take: Take) -> None:
    for name in "ab":
        save(source / f"{name}.npy", rows(6))
    take(("a.mp4", 96), ("b.mp4", 96))
    assert take(("a.mp4", 90), ("b.mp4", 96)).imported == ["a.mp4"]
    assert store.read("a.mp4").sidecar.frames == 90
    assert take(("a.mp4", 90), ("b.mp4", 96), frame_rate=30).imported == ["a.mp4", "b.mp4"]


def test_what_was_finished_is_kept_when_a_later_file_is_wrong(source: Path, store: FeatureStore, take: Take) -> None:
    save(source / "a.npy", rows(6))
    bad = rows(6)
    bad[3] = np.nan
    save(source / "b.npy", bad)
    with pytest.raises(UserError, match=r"b\.npy, row 3"):
        take("a.mp4", "b.mp4")
    assert files(store.root) == ["c3d/a.mp4.json", "c3d/a.mp4.npy"]
    save(source / "b.npy", rows(6))
    assert take("a.mp4", "b.mp4") == ImportResult(imported=["b.mp4"], current=["a.mp4"])


def test_features_of_another_origin_are_not_overwritten(source: Path, store: FeatureStore, take: Take) -> None:
    save(source / "a.npy", rows(32))
    take("a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4\.json: made with Clipping.*not Segments.*--features"):
        take("a.mp4", segments=True)
    path = store.sidecar_path("a.mp4")
    path.write_text(path.read_text().replace("imported c3d", "c3d | pixels | weights 1234"))
    with pytest.raises(UserError, match=r"a\.mp4\.json: made by «c3d \| .*», not by «imported c3d»"):
        take("a.mp4")


# --- manifests -------------------------------------------------------------------------------------------------------


def manifest(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_a_manifest_with_folds_needs_no_test_fold(tmp_path: Path) -> None:
    path = manifest(tmp_path, "\ufeffvideo,fold,label,frames\na.mp4,one,1,100\nb.mp4,two,0,\n")
    assert [(video.name, video.split, video.frames) for video in videos_of(DatasetChoice(manifest=path))] == [
        ("a.mp4", "test", 100),
        ("b.mp4", "test", None),
    ]


def test_a_manifest_with_a_split_keeps_it(tmp_path: Path) -> None:
    path = manifest(tmp_path, "video,split,label\na.mp4,train,1\nb.mp4,test,0\n")
    assert [(video.name, video.split) for video in videos_of(DatasetChoice(manifest=path))] == [
        ("a.mp4", "train"),
        ("b.mp4", "test"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the manifest"),
        ("", "names no videos"),
        ("video,fold,label\n", "names no videos"),
        ("video,fold\na.mp4,one\n", "no column label"),
        ("video,fold,label\na.mp4,one,7\n", "label '7'"),
    ],
)
def test_a_wrong_manifest_is_refused_in_its_readers_words(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "labels.csv" if text is None else manifest(tmp_path, text)
    with pytest.raises(UserError, match=message):
        videos_of(DatasetChoice(manifest=path))
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        videos_of(DatasetChoice(manifest=path))


# --- data sets -------------------------------------------------------------------------------------------------------


def test_the_number_of_frames_is_that_of_the_test_videos_where_labels_have_none(
    tmp_path: Path, footage: type[Footage]
) -> None:
    path = manifest(tmp_path, "video,split,label,frames\na.mp4,train,1,\nb.mp4,test,0,\nc.mp4,test,0,9\nd,test,1,\n")
    footage.video(tmp_path / "videos" / "part" / "b.mp4", 23)
    footage.video(tmp_path / "videos" / "c.mp4", 31)  # not as the labels say: for the evaluation to refuse
    footage.folder(tmp_path / "videos" / "d", 5)

    def frames(videos: Path | None) -> list[int | None]:
        return [video.frames for video in videos_of(DatasetChoice(manifest=path, videos=videos))]

    assert frames(tmp_path / "videos") == [None, 23, 9, 5]
    assert frames(None) == [None, None, 9, None]
    (tmp_path / "videos" / "part" / "b.mp4").write_text("broken")
    with pytest.raises(UserError, match=r"b\.mp4: .*leave --videos out"):
        frames(tmp_path / "videos")


@pytest.mark.parametrize(("name", "count"), [("ucf-crime", 1900), ("shanghaitech", 437)])
def test_features_in_folders_are_found_for_the_official_lists(
    shared: Path, source: Path, name: DatasetName, count: int
) -> None:
    """Laid out as features are published: in parts, by class, with an ending of their own."""
    videos = DatasetChoice(dataset=name, annotations=shared / name.replace("-", "_")).labels().videos
    wanted = [
        f"part-{number % 4}/{each.category or 'normal'}/{each.name}_C3D.npy" for number, each in enumerate(videos)
    ]
    touch(source, *wanted)
    assert len(wanted) == count
    assert single_files([video.name for video in videos], [source]) == [source / path for path in wanted]


# --- the command -----------------------------------------------------------------------------------------------------


def command(folder: Path, *more: str) -> int:
    options = {"--source": "source", "--manifest": "labels.csv", "--features": "features"}
    paths = [part for option, name in options.items() for part in (option, str(folder / name))]
    return main(["import", *paths, "--extractor", NAME, *more])


def test_the_command_imports_and_says_how_many(
    source: Path, store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest(tmp_path, "video,fold,label,frames\nvideos/a.mp4,one,1,100\nb.mp4,two,0,64\n")
    save(source / "a.npy", rows(12))
    save(source / "b.npy", rows(8))
    assert command(tmp_path, "--clip-length", "8", "--frame-rate", "30") == 0
    assert capsys.readouterr().out == "2 imported, 0 were there\n"
    assert [one.sidecar.clipping for one in store.read_all(["videos/a.mp4", "b.mp4"])] == [Clipping(8, "drop")] * 2
    assert command(tmp_path, "--clip-length", "8", "--frame-rate", "30") == 0
    assert capsys.readouterr().out == "0 imported, 2 were there\n"


def test_the_command_takes_segments(source: Path, store: FeatureStore, tmp_path: Path) -> None:
    manifest(tmp_path, "video,split,label\na.mp4,train,1\n")
    save(source / "a.npy", rows(32))
    assert command(tmp_path, "--segments") == 0
    assert store.read("a.mp4").sidecar.clipping == Segments(32)


BAD: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "missing": (lambda source: None, [], "no features of 1 of 1 videos: a.mp4"),
    "ambiguous": (lambda source: touch(source, "a.npy", "a.txt"), [], "more than one file of features"),
    "empty text": (lambda source: touch(source, "a.txt"), [], "a.txt, line 1: the file ends here"),
    "damaged array": (lambda source: touch(source, "a.npy"), [], "a.npy: not a plain array"),
    "other frames": (lambda source: save(source / "a.npy", rows(9)), [], "has 9 rows, but the 100 frames of a.mp4"),
    "no clips": (
        lambda source: save(source / "a.npy", rows(7)),
        ["--clip-length", "0"],
        "clip_length must be at least",
    ),
    "path": (lambda source: save(source / "a.npy", rows(7)), ["--extractor", "../x"], "extractor must be a plain name"),
    "no source": (lambda source: None, ["--source", "none"], "none: no such folder"),
    "no manifest": (lambda source: None, ["--manifest", "none.csv"], "none.csv: cannot read the manifest"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_one_clear_line_and_code_2(
    source: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, options, message = BAD[case]
    prepare(source)
    manifest(tmp_path, "video,split,label,frames\na.mp4,train,1,100\n")
    assert command(tmp_path, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("xelvad: ")
    assert message in line
    assert not (tmp_path / "features").exists()
