"""The manifest: what it says is understood, and what contradicts itself is refused in one line with its place."""

from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import LabelledVideo, any_fold, frame_truth, read_manifest, spans_of

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


# --- tables as people make them --------------------------------------------------------------------------------------

GOOD = (
    "video,split,label,frames,anomalous_frames_half_open,category\na/b.mp4,train,1,,,theft\nc.mp4,test,1,100,50-60,\n"
)
SHORT = "video,split,label\na.mp4,train,1\n"


def test_a_comment_above_the_header_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Guards against what happened: a TypeError and exit code 3.
    path = written(tmp_path, "# made by hand, 2024\n" + SHORT)
    assert main(["audit", "--manifest", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"xelvad: {path}, line 1: a comment where the header should stand; expected is CSV in UTF-8 with a header such "
        "as video,split,label,frames,anomalous_frames_half_open,category\n"
    )


EXPECTED = "expected is CSV in UTF-8 with a header such as video,split,label,"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", f"line 1: the manifest names no videos and has no header; {EXPECTED}"),
        (b"\n\n  \n", f"line 1: the manifest names no videos and has no header; {EXPECTED}"),
        (b"video,split,label", "line 1: the manifest names no videos: a line for each is expected below its header"),
        (b"a.mp4,train,1\nb.mp4,test,0\n", "line 1: the manifest has no column video, label, split (or fold); it has"),
        (b"\n\nvideo;split;label\na;train;1", f"line 3: cells are separated by semicolons, not by commas; {EXPECTED}"),
        (b"video\tsplit\tlabel\na\ttrain\t1\n", "line 1: cells are separated by tabs, not by commas"),
        (b"video,split,label,video\na,train,1,b\n", "line 1: the column 'video' stands there twice"),
        (b"video,split,label\na.mp4,train,1,7\n", "line 2: 4 cells, but the header has 3"),
        (b"video,split,label\na, b.mp4,train,1\n", "line 2: 4 cells, but the header has 3: put a cell with a comma"),
        (b'video,split,label\n"a.mp4,train,1\nb.mp4,train,0\n', "line 2: unexpected end of data: is a quotation mark"),
        (b'video,split,label\n"a.mp4,train,1\n"b.mp4",train,0\n', "line 2: ',' expected after '\"': is a quotation"),
        (b'video,split,label\nx.mp4,train,1\n"a\nb.mp4",train,0\n', "line 3: a cell of several lines: is a quotation"),
        (b"video,split,label\na\0.mp4,train,1\n", "line 2: zero bytes, as of UTF-16 or of a file that is no text"),
        (b"video,split,label\na.mp4,train,1\n\xe4.mp4,train,1\n", "line 3: invalid continuation byte, not a CSV file"),
        (b"video,split,label\r\na.mp4,train,1\r\n\xff.mp4,train,1\r\n", "line 3: invalid start byte, not a CSV file"),
        (SHORT.encode("utf-16"), "line 1: this is UTF-16, not a CSV file in UTF-8"),
        (SHORT.encode("utf-16-le"), "line 1: zero bytes, as of UTF-16"),
        (SHORT.encode() + b"x" * 10**7 + b",train,1\n", "line 3: field larger than field limit"),
        (SHORT.encode() + b"x" * 10**5 + b",train,1\n", "line 3: video 'xxxx"),
        (SHORT.encode() + b"x" * 300 + b".mp4,train,1\n", "longer than a file's name may be"),
        (SHORT.encode() + b"b.mp4,train,2\n", "line 3: label '2' is neither 0 (normal) nor 1 (abnormal)"),
        (SHORT.encode() + b"b.mp4,train,normal\n", "line 3: label 'normal' is neither"),
        (SHORT.encode() + b"b.mp4,train\n", "line 3: label '' is neither"),
        (SHORT.encode() + b"\na.mp4,test,1\n", "line 4: a.mp4 is listed twice, before in "),
        (SHORT.encode() + b"../b.mp4,test,1\n", "line 3: video '../b.mp4' must be a path relative to"),
        (SHORT.encode() + b"x/../../b.mp4,test,1\n", "line 3: video 'x/../../b.mp4' must be a path relative to"),
        (SHORT.encode() + b"x\\..\\b.mp4,test,1\n", "must be a path relative to"),
        (SHORT.encode() + b"C:\\b.mp4,test,1\n", "must be a path relative to"),
        (SHORT.encode() + b".,test,1\n", "line 3: video '.' must be a path relative to"),
        (SHORT.encode() + b"b\x1b[31m.mp4,test,1\n", "line 3: video 'b\\x1b[31m.mp4' must be a path relative to"),
    ],
)  # fmt: skip
def test_a_table_of_another_shape_is_refused_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + 2 * len(str(path))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        *((f",{frames},", f"frames {frames!r} is not a positive number") for frames in ("-1", "0", "1.5", "1e3", "٣")),
        (f",{10**18},", "frames '1000000000000000000' is not a positive number, of 67108864 at most"),
        ("," + "9" * 5000 + ",", "is not a positive number"),
        (",100,-5-10", "'-5-10' is not a span"),
        (",100,30-20", "span 30-20 is out of range"),
        (",100,90-101", "span 90-101 is out of range of 100 frames"),
        (f",,5-{10**18}", f"span 5-{10**18} is out of range"),
        (",," + "9" * 5000 + "-" + "9" * 5001, "is out of range"),
        (",100,10-30 29-40", "the spans '10-30 29-40' overlap"),
        (",100,10–30", "'10–30' is not a span of frames such as 120-260"),
        (",100,10-30/40-50", "'10-30/40-50' is not a span"),
    ],
)
def test_impossible_frames_are_refused_with_their_line(tmp_path: Path, cells: str, message: str) -> None:
    path = written(tmp_path, SPLIT_HEADER + f"a.mp4,train,0,,\nb.mp4,test,1{cells}\n")
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    assert f"{path}, line 3: " in str(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_ends_of_lines_and_empty_rows_do_no_harm(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "labels.csv"
    rows = [
        "",
        " video , split,label,frames,,",
        '"a, b.mp4",train,1',
        ",,,",
        "",
        " c.mp4,test,0,12,,",
        '"d.mp4","test","1"',
    ]
    path.write_bytes((mark + end.join(rows)).encode())
    assert read_manifest(path).videos == (
        LabelledVideo("a, b.mp4", "train", abnormal=True),
        LabelledVideo("c.mp4", "test", abnormal=False, frames=12, spans=()),
        LabelledVideo("d.mp4", "test", abnormal=True),
    )
    path.write_bytes((mark + end.join([*rows, "x,train,7"])).encode())
    with pytest.raises(UserError, match="line 8: label '7'"):
        read_manifest(path)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_table_holds_it_is_read_or_refused_by_file(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "labels.csv"
    pieces = [
        b",",
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b";",
        b"-",
        b"..",
        b"/",
        b"#",
        b"9" * 30,
        b"\xe2\x80\xa8",
        b"video",
    ]
    read = 0
    for _ in range(300):
        data = bytearray(GOOD.encode())
        for _ in range(rng.integers(1, 5)):
            place, kind = int(rng.integers(len(data) + 1)), rng.integers(3)
            if kind == 0:
                data[place:place] = pieces[rng.integers(len(pieces))]
            elif kind == 1:
                del data[place : place + int(rng.integers(1, 9))]
            else:
                data[place : place + 1] = bytes([rng.integers(256)])
        path.write_bytes(data)
        try:
            assert read_manifest(path).videos
            message = ""
            read += 1
        except UserError as error:
            message = str(error)
        assert not message or message.startswith(str(path)), data
        assert "\n" not in message
        any_fold(path)
    assert 0 < read < 300


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
