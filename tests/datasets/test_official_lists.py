"""The readers of official lists: against the real lists, and against whatever may be wrong with them."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.datasets import (
    Counts,
    LabelledVideo,
    count,
    frame_truth,
    read_shanghaitech,
    read_ucf_crime,
    read_xd_violence,
)

# --- UCF-Crime -------------------------------------------------------------------------------------------------------

OVERLONG = ["Arson011", "Arson016", "Explosion033", "Fighting003", "Shooting015"]


def ucf_lists(folder: Path, test: str, train: str = "Abuse/Abuse001_x264.mp4") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "Anomaly_Train.txt").write_text(train + "\n")
    (folder / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").write_text(test + "\n")
    return folder


def test_the_official_split_of_ucf_crime(shared: Path) -> None:
    dataset = read_ucf_crime(shared / "ucf_crime")
    assert dataset.official is not None
    assert count(dataset.videos) == dataset.official.counts == Counts(800, 810, 150, 140)
    assert len(dataset.of("train")) == 1610
    assert len(dataset.of("test")) == 290
    assert [video.name.removesuffix("_x264") for video in dataset.videos if video.overlong] == OVERLONG
    assert len({video.category for video in dataset.videos if video.abnormal}) == 13
    assert {video.category for video in dataset.videos if not video.abnormal} == {None}


def test_the_truth_of_ucf_crime_is_that_of_its_lines(shared: Path) -> None:
    """Marked frame by frame with the lines as they are published: from 1 on, the last one included."""
    videos = {video.name: video for video in read_ucf_crime(shared / "ucf_crime").videos}
    lines = (shared / "ucf_crime" / "Temporal_Anomaly_Annotation.txt").read_text().splitlines()
    assert len(lines) == 290
    for line in lines:
        name, category, *numbers = line.split()
        video = videos[name.removesuffix(".mp4")]
        assert video.category == (None if category == "Normal" else category)
        first, last, second, second_last = map(int, numbers)
        frames = max(map(int, numbers)) + 100 if category != "Normal" else 100
        expected = [first <= frame <= last or second <= frame <= second_last for frame in range(1, frames + 1)]
        np.testing.assert_array_equal(frame_truth(video, frames), expected)
        if category == "Normal":
            continue
        shorter = max(last, second_last) - 1
        if video.overlong:
            np.testing.assert_array_equal(frame_truth(video, shorter), expected[:shorter])
        else:
            with pytest.raises(UserError, match="run past the end"):
                frame_truth(video, shorter)


@pytest.mark.parametrize(
    ("line", "frames", "spans"),
    [
        ("Arson011_x264.mp4  Arson  150  420  680  1267  ", None, ((149, 420), (679, 1267))),
        ("Arson011_x264.mp4 Arson 150 420 680 1267 1267", 1267, ((149, 420), (679, 1267))),
        ("Arson011_x264.mp4 Arson 1267 150 420 680 1266", 1267, ((149, 420), (679, 1266))),
        ("Arson011_x264 Arson 150 420 -1 -1 1267", 1267, ((149, 420),)),
        ("Arson/Arson011_x264.mp4 1267 150 420 -1 -1", 1267, ((149, 420),)),
        ("Arson/Arson011_x264.mp4|1267|[150, 420]", 1267, ((149, 420),)),
        ("Arson011_x264.mp4 Arson 150 150 -1 -1", None, ((149, 150),)),
        ("Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1", None, ()),
        ("Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4 2777 -1", 2777, ()),
        ("Normal_Videos_003_x264.mp4 Normal -1 -1 -1 -1 2777", 2777, ()),
    ],
)
def test_the_test_list_in_the_shapes_in_which_it_goes_around(
    tmp_path: Path, line: str, frames: int | None, spans: tuple[tuple[int, int], ...]
) -> None:
    (video,) = read_ucf_crime(ucf_lists(tmp_path, line)).of("test")
    abnormal = "Arson" in line
    name, category = ("Arson011_x264", "Arson") if abnormal else ("Normal_Videos_003_x264", None)
    assert video == LabelledVideo(name, "test", abnormal, frames, spans, category, overlong=abnormal)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Abuse028_x264.mp4 Abuse 240 165 -1 -1", "not first and last frames"),
        ("Abuse028_x264.mp4 Abuse 0 165 -1 -1", "counted from 1"),
        ("Abuse028_x264.mp4 Abuse 165 240 200 300", "in order"),
        ("Abuse028_x264.mp4 Abuse -1 -1 -1 -1", "contradicts the anomalous frames"),
        ("Abuse028_x264.mp4 Arson 165 240 -1 -1", "'Arson' is not the class of Abuse028_x264.mp4"),
        ("Abuse028_x264.mp4 Abuse some frames", "'Abuse some frames' is not the class"),
        ("Normal_Videos_003_x264.mp4 Normal 5 10 -1 -1", "is normal, which contradicts"),
        ("cat.mp4 Abuse 5 10 -1 -1", "'cat.mp4' does not begin with a class of UCF-Crime"),
    ],
)
def test_a_test_list_that_contradicts_itself(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_ucf_crime(ucf_lists(tmp_path, f"Arson007_x264.mp4 Arson 2250 5700 -1 -1\n\n{line}"))
    assert "Testing_Videos.txt, line 3: " in str(error.value)


def test_lists_are_found_below_the_folder_and_must_be_there_once(tmp_path: Path) -> None:
    line = "Arson007_x264.mp4 Arson 2250 5700 -1 -1"
    ucf_lists(tmp_path / "splits", line)
    assert len(read_ucf_crime(tmp_path).videos) == 2
    ucf_lists(tmp_path / "copy", line)
    with pytest.raises(UserError, match=r"should hold one Anomaly_Train.txt, but there is .*copy.*splits"):
        read_ucf_crime(tmp_path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_ucf_crime(tmp_path / "nowhere")
    with pytest.raises(UserError, match="Abuse001_x264 is listed twice"):
        read_ucf_crime(ucf_lists(tmp_path / "twice", line, "Abuse/Abuse001_x264.mp4\nAbuse001_x264.mp4"))
    with pytest.raises(UserError, match="the list is empty"):
        read_ucf_crime(ucf_lists(tmp_path / "empty", ""))


def test_the_digest_of_a_data_set_is_that_of_its_lists(tmp_path: Path) -> None:
    line = "Arson007_x264.mp4 Arson 2250 5700 -1 -1"
    folders = [ucf_lists(tmp_path / "a", line), ucf_lists(tmp_path / "b", line)]
    folders.append(ucf_lists(tmp_path / "c", line.replace("5700", "5701")))
    one, same, other = (read_ucf_crime(folder).digest for folder in folders)
    assert one == same != other
    assert len(one) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    "line",
    ["|", ",,[]", "..", "Abuse", "Abuse028_x264.mp4 Abuse 1 " + "9" * 5000, f"Abuse028_x264.mp4 Abuse 1 {10**12}",
     "Abuse028_x264.mp4 Abuse -5 165 -1 -1", "Abuse028_x264.mp4 Abuse ١ ٢", "Abuse028\0_x264.mp4 Abuse 1 2 -1 -1",
     "Abuse028_x264.mp4 Abuse 1 2 -1 -1\x1b", "Abuse028_x264.mp4 " + "Abuse " * 9999, "x" * 10**6, "\ud800"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["train", "test"])
def test_whatever_a_line_holds_it_is_read_or_refused_by_its_place(tmp_path: Path, line: str, kind: str) -> None:
    names = {"train": "Anomaly_Train.txt", "test": "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"}
    path = ucf_lists(tmp_path, "Arson007_x264.mp4 Arson 2250 5700 -1 -1") / names[kind]
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogatepass"))
    if (line, kind) == ("Abuse", "train"):
        assert len(read_ucf_crime(tmp_path).videos) == 3
        return
    with pytest.raises(UserError) as caught:
        read_ucf_crime(tmp_path)
    assert f"{path}, line 2: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_lists_in_other_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    path = ucf_lists(tmp_path, "Arson007_x264.mp4 Arson 2250 5700 -1 -1") / "Anomaly_Train.txt"
    path.write_bytes("Arson/Arson001_x264.mp4 é\n".encode(encoding))
    with pytest.raises(UserError, match=r"Anomaly_Train\.txt, line 1: .*expected is text in UTF-8"):
        read_ucf_crime(tmp_path)


# --- ShanghaiTech ----------------------------------------------------------------------------------------------------


def shanghai_lists(folder: Path, train: str = "01_001\n", test: str = "01_0014\n") -> Path:
    (folder / "SH_Train.txt").write_text(train)
    (folder / "SH_Test.txt").write_text(test)
    (folder / "test_frame_mask").mkdir()
    np.save(folder / "test_frame_mask" / "01_0014.npy", np.array([0, 1, 1, 0, 1], np.uint8))
    return folder


def test_the_re_split_of_shanghaitech(shared: Path) -> None:
    folder = shared / "shanghaitech"
    dataset = read_shanghaitech(folder)
    assert dataset.official is not None
    assert count(dataset.videos) == dataset.official.counts == Counts(175, 63, 155, 44)
    assert len(dataset.of("train")) == 238
    assert len(dataset.of("test")) == 199
    masks = {path.stem: np.load(path) for path in (folder / "test_frame_mask").iterdir()}
    assert len(masks) == 107
    marked = 0
    for video in dataset.videos:
        mask = masks.get(video.name, np.zeros(1000))
        assert video.frames == (len(mask) if video.name in masks else None)
        assert video.category == video.name[:2]
        truth = frame_truth(video, len(mask))
        np.testing.assert_array_equal(truth, mask)
        marked += int(truth.sum()) if video.abnormal else 0
    frames = sum(map(len, masks.values()))
    assert (marked, frames) == (sum(int(mask.sum()) for mask in masks.values()), 40791)
    assert round(100 * marked / frames, 2) == 42.48
    in_training = [video for video in dataset.of("train") if video.name in masks]
    assert len(in_training) == 63
    assert all(video.abnormal for video in in_training), "they were test videos once, and the only abnormal ones"


def test_a_mask_becomes_spans(tmp_path: Path) -> None:
    train, test = read_shanghaitech(shanghai_lists(tmp_path, "01_001.avi 0\n")).videos
    assert train == LabelledVideo("01_001", "train", abnormal=False, spans=(), category="01")
    assert test == LabelledVideo("01_0014", "test", abnormal=True, frames=5, spans=((1, 3), (4, 5)), category="01")


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((5, 2)),
        np.array([0, 2]),
        np.zeros(0),
        np.array([0.5]),
        np.array(["a"]),
        np.ones(5),
        np.ones(5, complex),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    shanghai_lists(tmp_path)
    np.save(tmp_path / "test_frame_mask" / "01_0014.npy", mask)
    with pytest.raises(UserError, match=r"01_0014\.npy: a mask is one 0 or 1 for each frame"):
        read_shanghaitech(tmp_path)
    (tmp_path / "test_frame_mask" / "01_0014.npy").write_bytes(b"mask")
    with pytest.raises(UserError, match=r"01_0014\.npy: not a mask"):
        read_shanghaitech(tmp_path)


class Trap:
    """Unpickled, it leaves a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_no_mask_is_unpickled(tmp_path: Path) -> None:
    path = shanghai_lists(tmp_path) / "test_frame_mask" / "01_0014.npy"
    trap = np.empty(1, object)
    trap[0] = Trap(tmp_path / "sprung")
    np.save(path, trap, allow_pickle=True)
    with pytest.raises(UserError, match=r"01_0014\.npy: not a mask"):
        read_shanghaitech(tmp_path)
    assert not (tmp_path / "sprung").exists()


def header_of(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"PK\x03\x04",
        *(header_of(text) for text in ["{", "(" * 5000, "1", "{'descr': 'O', 'fortran_order': False, 'shape': (1,)}",
          "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)}",
          "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}",
          "{'descr': '<Q9', 'fortran_order': 0, 'shape': 7}",
          "{'descr': '|u1', 'fortran_order': False, 'shape': ()}"]),
    ],
)  # fmt: skip
def test_a_mask_with_a_header_of_its_own_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    path = shanghai_lists(tmp_path) / "test_frame_mask" / "01_0014.npy"
    path.write_bytes(data + b"\1" * 7)
    with pytest.raises(UserError, match=r"01_0014\.npy: ") as caught:
        read_shanghaitech(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_archive_of_masks_is_refused(tmp_path: Path) -> None:
    path = shanghai_lists(tmp_path) / "test_frame_mask" / "01_0014.npy"
    with path.open("wb") as file:
        np.savez(file, np.ones(5, np.uint8))
    with pytest.raises(UserError, match=r"01_0014\.npy: not a mask"):
        read_shanghaitech(tmp_path)


@pytest.mark.parametrize("kind", ["?", "u1", ">i8"])
def test_masks_of_whole_numbers_are_read(tmp_path: Path, kind: str) -> None:
    shanghai_lists(tmp_path)
    np.save(tmp_path / "test_frame_mask" / "01_0014.npy", np.array([1, 0, 1], kind))
    assert read_shanghaitech(tmp_path).videos[1].spans == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "01_001",
            "01_0014 01_0015\n01_0016",
            r"SH_Test\.txt, line 2: 01_0016 was a test video, but there is no .*mask",
        ),
        ("01_001", "01_002", r"01_0014\.npy: a mask of a video that is in neither list"),
        ("01_0014", "01_0014", "01_0014 is listed twice"),
        ("monday", "01_0014", r"SH_Train\.txt, line 1: 'monday' is not a scene and a number"),
    ],
)
def test_lists_and_masks_that_do_not_fit(tmp_path: Path, train: str, test: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_shanghaitech(shanghai_lists(tmp_path, train, test))


# --- XD-Violence -----------------------------------------------------------------------------------------------------

XD_VIDEOS = [
    "1-1004/A.Film.2001__#00-01-45_00-02-50_label_A.mp4",
    "1-1004/v=abc__#1_label_B1-0-0.mp4",
    "test_videos/B.Film.1995__#01-11-55_01-12-40_label_G-B2-B6.mp4",
    "test_videos/v=def__#1_label_A.mp4",
]


def xd_videos(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder / "videos"


def test_the_labels_of_xd_violence_are_in_the_names(tmp_path: Path) -> None:
    (tmp_path / "annotations.txt").write_text("B.Film.1995__#01-11-55_01-12-40_label_G-B2-B6.mp4 3 9 20 30\n")
    dataset = read_xd_violence(xd_videos(tmp_path, *XD_VIDEOS), tmp_path)
    assert set(dataset.videos) == {
        LabelledVideo("A.Film.2001__#00-01-45_00-02-50_label_A", "train", abnormal=False, spans=()),
        LabelledVideo("v=abc__#1_label_B1-0-0", "train", abnormal=True, category="fighting"),
        LabelledVideo(
            "B.Film.1995__#01-11-55_01-12-40_label_G-B2-B6",
            "test",
            abnormal=True,
            spans=((3, 9), (20, 30)),
            category="explosion+shooting+car accident",
        ),
        LabelledVideo("v=def__#1_label_A", "test", abnormal=False, spans=()),
    }
    without = read_xd_violence(tmp_path / "videos")
    assert [video.spans for video in without.of("test") if video.abnormal] == [None]
    assert without.digest != dataset.digest


@pytest.mark.parametrize(
    ("name", "annotation", "message"),
    [
        ("a.mp4", "", "does not end in a label"),
        ("a_label_A-B1.mp4", "", "does not end in a label"),
        ("a_label_B3-0-0.mp4", "", "does not end in a label"),
        ("x/a_label_0.mp4", "", "does not end in a label"),
        ("train/a_label_G-0-0.mp4", "a_label_G-0-0 3 9", "no abnormal video in a folder with test in its name"),
        ("test/a_label_A.mp4", "a_label_A 3 9", "no abnormal video in a folder with test in its name"),
        ("test/a_label_G.mp4", "a_label_G 9 3", "line 1: a_label_G is not followed by pairs"),
        ("test/a_label_G.mp4", "a_label_G 9", "not followed by pairs"),
        ("test/a_label_G.mp4", "a_label_G three nine", "not followed by pairs"),
        ("test/a_label_G.mp4", "a_label_G -1 9", "line 1: a_label_G is not followed by pairs"),
        ("test/a_label_G.mp4", f"a_label_G 3 {10**12}", r"annotations\.txt, line 1: '1000000000000' is no number of a"),
        ("test/a_label_G.mp4", "a_label_G 3 " + "9" * 5000, r"annotations\.txt, line 1: "),
        (
            "test/a_label_G.mp4",
            "a_label_G 3 9\na_label_G.mp4 4 9",
            r"line 2: 'a_label_G.mp4' is annotated twice, .*line 1",
        ),
        ("test/a_label_G.mp4", "b 3 9", r"annotations\.txt, line 1: 'b' does not end in a label"),
        ("test/a_label_G.mp4", "a_label_G\0 3 9", r"annotations\.txt, line 1: zero bytes"),
    ],
)
def test_names_and_annotations_that_do_not_fit(tmp_path: Path, name: str, annotation: str, message: str) -> None:
    (tmp_path / "annotations.txt").write_text(annotation or "v_label_G 3 9")
    with pytest.raises(UserError, match=message):
        read_xd_violence(xd_videos(tmp_path, name), tmp_path)


def test_an_annotated_video_that_is_not_there_is_still_listed(tmp_path: Path) -> None:
    (tmp_path / "annotations.txt").write_text("gone_label_G-0-0 3 9\n")
    dataset = read_xd_violence(xd_videos(tmp_path, *XD_VIDEOS), tmp_path)
    assert dataset.videos[-1] == LabelledVideo("gone_label_G-0-0", "test", True, None, ((3, 9),), "explosion")


def test_the_manifest_of_real_videos_is_read(shared: Path) -> None:
    from xelvad.pipeline.datasets import any_fold, read_manifest

    path = shared / "cctv_montage" / "annotations.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    dataset = read_manifest(path, any_fold(path))
    assert [video.name for video in dataset.videos] == [row["video"] for row in rows]
    assert all(dataset.path_of(video).is_file() for video in dataset.videos)
