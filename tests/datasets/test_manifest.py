"""The manifest: what it says is understood, and what contradicts itself is refused in one line with its place."""

from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.datasets import LabelledVideo, frame_truth, read_manifest, spans_of

SPLIT_HEADER = "video,split,label,frames,anomalous_frames_half_open\n"
FOLD_HEADER = "video,fold,label,frames,anomalous_frames_half_open\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_a_split_manifest_is_read(tmp_path: Path) -> None:
    text = SPLIT_HEADER + "a/b.mp4,train,1,,\nc.mp4,test,1,100,50-60 0-10\nd.mp4,test,0,,\n"
    dataset = read_manifest(written(tmp_path, text))
    assert dataset.videos == (
        LabelledVideo("a/b.mp4", "train", abnormal=True, frames=None, spans=None),
        LabelledVideo("c.mp4", "test", abnormal=True, frames=100, spans=((0, 10), (50, 60))),
        LabelledVideo("d.mp4", "test", abnormal=False, frames=None, spans=()),
    )
    assert dataset.path_of(dataset.videos[0]) == tmp_path / "a" / "b.mp4"
    assert [video.name for video in dataset.of("test")] == ["c.mp4", "d.mp4"]


@pytest.mark.parametrize("separator", [" ", ";", "; "])
def test_spans_may_be_separated_by_spaces_or_semicolons(tmp_path: Path, separator: str) -> None:
    text = SPLIT_HEADER + f"a.mp4,test,1,100,0-10{separator}10-20\n"
    assert read_manifest(written(tmp_path, text)).videos[0].spans == ((0, 10), (10, 20))


def test_a_spreadsheets_byte_order_mark_and_blanks_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufeffvideo,split,label\n a.mp4 , train , 1 \n".encode())
    assert read_manifest(path).videos[0] == LabelledVideo("a.mp4", "train", abnormal=True)


def test_the_named_fold_is_for_testing_and_all_others_for_training(tmp_path: Path) -> None:
    path = written(tmp_path, FOLD_HEADER + "a.mp4,one,1,,\nb.mp4,two,0,,\nc.mp4,three,0,,\n")
    assert [video.split for video in read_manifest(path, "two").videos] == ["train", "test", "train"]


@pytest.mark.parametrize(
    ("text", "test_fold", "message"),
    [
        ("", None, "names no videos"),
        (SPLIT_HEADER, None, "names no videos"),
        ("video,split\na.mp4,train\n", None, "no column label"),
        ("video,label\na.mp4,1\n", None, r"no column split \(or fold\)"),
        ("name,split,label\na.mp4,train,1\n", None, "no column video"),
        (SPLIT_HEADER + "a.mp4,validate,1,,\n", None, "line 2: split 'validate'"),
        (SPLIT_HEADER + "a.mp4,train,0,,\nb.mp4,train,yes,,\n", None, "line 3: label 'yes'"),
        (SPLIT_HEADER + "a.mp4,test,0,100,10-20\n", None, "line 2: label 0 .* contradicts"),
        (SPLIT_HEADER + "a.mp4,test,1,100,90-101\n", None, "line 2: span 90-101 is out of range of 100 frames"),
        (SPLIT_HEADER + "a.mp4,test,1,100,20-20\n", None, "out of range"),
        (SPLIT_HEADER + "a.mp4,test,1,100,10-30 20-40\n", None, "overlap"),
        (SPLIT_HEADER + "a.mp4,test,1,100,ten\n", None, "'ten' is not a span"),
        (SPLIT_HEADER + "a.mp4,test,1,many,\n", None, "frames 'many'"),
        (SPLIT_HEADER + "a.mp4,test,1,0,\n", None, "frames '0'"),
        (SPLIT_HEADER + "a.mp4,train,1,,\na.mp4,test,1,,\n", None, "a.mp4 is listed twice"),
        (SPLIT_HEADER + "../a.mp4,train,1,,\n", None, "relative to the manifest"),
        (SPLIT_HEADER + "/a.mp4,train,1,,\n", None, "relative to the manifest"),
        (SPLIT_HEADER + ",train,1,,\n", None, "relative to the manifest"),
        (SPLIT_HEADER + "a.mp4,train\n", None, "label ''"),
        (SPLIT_HEADER + "a.mp4,train,1,,\n", "one", "no column fold"),
        (FOLD_HEADER + "a.mp4,one,1,,\n", None, "say which one"),
        (FOLD_HEADER + "a.mp4,one,1,,\nb.mp4,two,0,,\n", "three", r"no fold 'three' \(--test_fold one \| two\)"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, text: str, test_fold: str | None, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        read_manifest(path, test_fold)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(tmp_path / "binary.csv")


def test_a_manifest_may_name_categories(tmp_path: Path) -> None:
    videos = read_manifest(
        written(tmp_path, "video,split,label,category\na.mp4,train,1,theft\nb.mp4,train,0,\n")
    ).videos
    assert [video.category for video in videos] == ["theft", None]


def test_frame_truth_is_the_spans() -> None:
    truth = frame_truth(LabelledVideo("a", "test", abnormal=True, frames=10, spans=((0, 2), (7, 10))), 10)
    np.testing.assert_array_equal(truth, [1, 1, 0, 0, 0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (LabelledVideo("a.mp4", "test", abnormal=True), "a.mp4: .* not annotated"),
        (LabelledVideo("a.mp4", "test", abnormal=True, frames=12, spans=((0, 2),)), "12 frames, but 10"),
        (LabelledVideo("a.mp4", "test", abnormal=True, spans=((5, 11),)), "5-11 run past the end"),
    ],
)
def test_truth_that_does_not_fit_the_video_is_an_error(video: LabelledVideo, message: str) -> None:
    with pytest.raises(UserError, match=message):
        frame_truth(video, 10)


@pytest.mark.parametrize(("frames", "expected"), [(4, [0, 1, 0, 1]), (5, [0, 1, 0, 1, 1]), (7, [0, 1, 0, 1, 1, 1, 0])])
def test_truth_that_is_known_to_be_overlong_ends_with_the_video(frames: int, expected: list[int]) -> None:
    video = LabelledVideo("a", "test", abnormal=True, spans=((1, 2), (3, 6)), overlong=True)
    np.testing.assert_array_equal(frame_truth(video, frames), expected)


def test_a_span_wholly_behind_the_end_is_an_error_even_where_overlong_is_known() -> None:
    video = LabelledVideo("a", "test", abnormal=True, spans=((1, 2), (3, 6)), overlong=True)
    with pytest.raises(UserError, match="3-6 run past the end at frame 3"):
        frame_truth(video, 3)


@pytest.mark.parametrize(
    ("truth", "spans"),
    [
        ([], ()),
        ([0, 0], ()),
        ([1, 1], ((0, 2),)),
        ([1, 0, 1, 1], ((0, 1), (2, 4))),
        ([0, 1, 1, 0, 1, 0], ((1, 3), (4, 5))),
    ],
)
def test_spans_are_the_stretches_of_the_truth(truth: list[int], spans: tuple[tuple[int, int], ...]) -> None:
    assert spans_of(np.array(truth, bool)) == spans
    video = LabelledVideo("a.mp4", "test", bool(spans), spans=spans)
    assert frame_truth(video, len(truth)).tolist() == truth
