"""The audit: silent where nothing is wrong, and every kind of planted trouble is found, by name."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import Counts, DatasetChoice, Official
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.upkeep.audit import Audit, audit
from xelvad.pipeline.upkeep.config import AuditConfig
from xelvad.pipeline.videos.clips import Clipping

from ..helpers.features import FEATURE_DIM, write_features
from ..helpers.footage import Footage

FRAMES = 60
PLACES = {  # of a small UCF-Crime, in the layout in which it is downloaded
    "Abuse001_x264": "Anomaly-Videos-Part-1/Abuse/Abuse001_x264.mp4",
    "Fighting004_x264": "Anomaly-Videos-Part-2/Fighting/Fighting004_x264.mp4",
    "Normal_Videos001_x264": "Training-Normal-Videos-Part-1/Normal_Videos001_x264.mp4",
    "Normal_Videos002_x264": "Training-Normal-Videos-Part-2/Normal_Videos002_x264.mp4",
    "Abuse028_x264": "Anomaly-Videos-Part-1/Abuse/Abuse028_x264.mp4",
    "Arson011_x264": "Anomaly-Videos-Part-1/Arson/Arson011_x264.mp4",
    "Normal_Videos_003_x264": "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4",
    "Normal_Videos_006_x264": "Testing_Normal_Videos_Anomaly/Normal_Videos_006_x264.mp4",
}
TEST_LIST = """\
Abuse028_x264.mp4  Abuse  11  40  -1  -1
Arson011_x264.mp4  Arson  11  20  31  72
Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1
Normal_Videos_006_x264.mp4  Normal  -1  -1  -1  -1
"""
OFFICIAL = Official(Counts(2, 2, 2, 2), frame_rate=30.0)
OVERLONG = ("overlong", "Arson011_x264")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, footage: Footage) -> Path:
    """Lists, videos and features with which nothing is wrong."""
    folder = tmp_path_factory.mktemp("ucf")
    lists = folder / "lists"
    lists.mkdir()
    (lists / "Anomaly_Train.txt").write_text("".join(f"{place}\n" for place in list(PLACES.values())[:4]))
    (lists / "Temporal_Anomaly_Annotation.txt").write_text(TEST_LIST)
    for number, place in enumerate(PLACES.values()):
        footage.video(folder / "videos" / place, FRAMES, rate=30, first=100 * number, faststart=True)
        write_features(folder / "features", place, features(number), FRAMES)
    return folder


@pytest.fixture
def ucf(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("xelvad.pipeline.datasets.ucf_crime.OFFICIAL", OFFICIAL)
    return Path(shutil.copytree(made, tmp_path / "ucf"))


def features(seed: int, clips: int = 4, dim: int = FEATURE_DIM) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(clips, dim)).astype(np.float32)


def looked_at(folder: Path, what: str = "videos", deep: bool = False) -> Audit:
    choice = DatasetChoice("ucf-crime", annotations=folder / "lists")
    if what == "videos":
        return audit(replace(choice, videos=folder / "videos"), None, AuditConfig(deep))
    return audit(choice, folder / "features", AuditConfig())


def kinds(audit: Audit) -> set[tuple[str, str]]:
    return {(finding.kind, finding.video) for finding in (*audit.troubles, *audit.notes)}


def video(folder: Path, name: str) -> Path:
    return folder / "videos" / PLACES[name]


@pytest.mark.parametrize("deep", [False, True])
def test_nothing_is_found_where_nothing_is_wrong(ucf: Path, deep: bool) -> None:
    result = looked_at(ucf, deep=deep)
    assert result.troubles == ()
    assert kinds(result) == {OVERLONG}
    assert "up to frame 72 of 60" in result.notes[0].detail
    assert result.listed == result.official == result.found == Counts(2, 2, 2, 2)
    assert (result.frames, result.unknown_frames, result.frame_rates) == (8 * FRAMES, 0, {"30.00": 8})
    assert result.anomalous_share == (30 + 10 + 30) / (4 * FRAMES)


def test_features_are_looked_at_alone_or_with_the_videos(ucf: Path) -> None:
    alone = looked_at(ucf, "features")
    assert alone.troubles == ()
    assert kinds(alone) == {OVERLONG}
    assert (alone.found, alone.features, alone.frames) == (None, Counts(2, 2, 2, 2), 8 * FRAMES)
    assert alone.anomalous_share == (30 + 10 + 30) / (4 * FRAMES)
    choice = DatasetChoice("ucf-crime", annotations=ucf / "lists", videos=ucf / "videos")
    both = audit(choice, ucf / "features", AuditConfig())
    assert both.troubles == ()
    assert both.found == both.features
    assert [finding.video for finding in both.notes] == [OVERLONG[1]]  # said once
    with pytest.raises(UserError, match="nothing to audit"):
        audit(replace(choice, videos=None), None, AuditConfig())


Plant = Callable[[Path, Footage], object]
EXTRA = "Normal_Videos_event/Normal_Videos_015_x264.mp4"
EVENT = "Normal_Videos_event/Normal_Videos_003_x264.mp4"


def cut(folder: Path, footage: Footage) -> None:
    path = video(folder, "Abuse001_x264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def same(folder: Path, footage: Footage) -> None:
    shutil.copy(video(folder, "Abuse001_x264"), video(folder, "Fighting004_x264"))


def shorter_list(folder: Path, footage: Footage) -> None:
    path = folder / "lists" / "Anomaly_Train.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def annotated_for(frames: int) -> Plant:
    def plant(folder: Path, footage: Footage) -> None:
        path = folder / "lists" / "Temporal_Anomaly_Annotation.txt"
        path.write_text(TEST_LIST.replace("11  40  -1  -1", f"11  40  -1  -1  {frames}"))

    return plant


TROUBLES: dict[str, tuple[Plant, set[tuple[str, str]]]] = {
    "missing": (lambda d, _: video(d, "Abuse001_x264").unlink(), {("missing", "Abuse001_x264")}),
    "extra": (lambda d, f: f.video(d / "videos" / EXTRA, 30, rate=30, first=1000), {("extra", EXTRA)}),
    "twice under one name": (
        lambda d, f: f.video(d / "videos" / EVENT, 30, rate=30, first=1000),
        {("unclear", "Normal_Videos_003_x264")},
    ),
    "one video under two names": (same, {("duplicate", "Abuse001_x264")}),
    "empty": (lambda d, _: video(d, "Abuse001_x264").write_bytes(b""), {("unreadable", "Abuse001_x264")}),
    "no video": (lambda d, _: video(d, "Abuse001_x264").write_text("404"), {("unreadable", "Abuse001_x264")}),
    "cut off": (cut, {("cut off", "Abuse001_x264")}),
    "shorter than annotated": (
        lambda d, f: f.video(video(d, "Abuse028_x264"), 39, rate=30),
        {("annotation", "Abuse028_x264")},
    ),
    "shorter than is known": (
        lambda d, f: f.video(video(d, "Arson011_x264"), 30, rate=30),
        {("annotation", "Arson011_x264")},
    ),
    "annotated for other frames": (annotated_for(59), {("annotation", "Abuse028_x264")}),
    "annotated for these frames": (annotated_for(60), set()),
    "another frame rate": (
        lambda d, f: f.video(video(d, "Abuse001_x264"), 50, rate=25),
        {("frame rate", "Abuse001_x264")},
    ),
    "another list": (shorter_list, {("list", ""), ("extra", PLACES["Abuse001_x264"])}),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_planted_trouble_is_found_and_nothing_else(ucf: Path, footage: Footage, trouble: str, deep: bool) -> None:
    plant, expected = TROUBLES[trouble]
    plant(ucf, footage)
    known = set() if ("annotation", OVERLONG[1]) in expected else {OVERLONG}
    assert kinds(looked_at(ucf, deep=deep)) == expected | known


def redone(place: str, clips: int = 4, dim: int = FEATURE_DIM, frames: int = FRAMES, **changes: object) -> Plant:
    def plant(folder: Path, footage: Footage) -> None:
        write_features(folder / "features", place, features(9, clips, dim), frames, **changes)

    return plant


def spoilt(value: float) -> Plant:
    def plant(folder: Path, footage: Footage) -> None:
        array = features(9)
        array[2, 3] = value
        np.save(array_path(folder), array)

    return plant


def array_path(folder: Path) -> Path:
    return FeatureStore(folder / "features", "i3d-rgb").array_path(PLACES["Abuse028_x264"])


FEATURE_TROUBLES: dict[str, tuple[Plant, str]] = {
    "missing": (lambda d, _: array_path(d).with_suffix(".json").unlink(), "no features in"),
    "without array": (lambda d, _: array_path(d).unlink(), "damaged feature file"),
    "truncated": (lambda d, _: array_path(d).write_bytes(array_path(d).read_bytes()[:-4]), "damaged feature file"),
    "too few clips": (lambda d, _: np.save(array_path(d), features(9, 3)), r"\(3, 16\), not float32 \(4, 16\)"),
    "not a number": (spoilt(np.nan), "holds NaN or infinite"),
    "infinite": (spoilt(np.inf), "holds NaN or infinite"),
    "another dimension": (redone(PLACES["Abuse028_x264"], dim=FEATURE_DIM + 1), r"\(4, 17\), but .* is \(4, 16\)"),
    "another tail": (redone(PLACES["Abuse028_x264"], 3, clipping=Clipping(16, "drop")), "made with .*drop.* but"),
    "other weights": (redone(PLACES["Abuse028_x264"], fingerprint="other"), "made by «other»"),
    "twice": (redone("copy/Abuse028_x264.mp4"), "could be any of Anomaly-Videos.*, copy"),
}


@pytest.mark.parametrize("trouble", FEATURE_TROUBLES)
def test_trouble_with_features_is_found_and_nothing_else(ucf: Path, footage: Footage, trouble: str) -> None:
    plant, message = FEATURE_TROUBLES[trouble]
    plant(ucf, footage)
    result = looked_at(ucf, "features")
    (found,) = result.troubles
    assert (found.kind, found.video) == ("features", "Abuse028_x264")
    assert re.search(message, found.detail), found.detail


def test_features_of_another_length_than_their_video(ucf: Path, footage: Footage) -> None:
    redone(PLACES["Abuse028_x264"], frames=FRAMES - 1)(ucf, footage)
    redone(PLACES["Abuse001_x264"], frames=FRAMES - 1, declared_frames=0)(ucf, footage)  # imported: a mere stand-in
    assert looked_at(ucf, "features").troubles == ()
    choice = DatasetChoice("ucf-crime", annotations=ucf / "lists", videos=ucf / "videos")
    (found,) = audit(choice, ucf / "features", AuditConfig()).troubles
    assert (found.kind, found.video, found.detail) == (
        "features",
        "Abuse028_x264",
        "made of 59 frames, the video has 60",
    )


def test_features_shorter_than_their_annotation(ucf: Path, footage: Footage) -> None:
    redone(PLACES["Abuse028_x264"], 3, frames=39)(ucf, footage)
    (found,) = looked_at(ucf, "features").troubles
    assert (found.kind, found.video) == ("annotation", "Abuse028_x264")
    assert "10-40 run past the end at frame 39" in found.detail


# --- other data sets -------------------------------------------------------------------------------------------------


def manifest(folder: Path, *rows: str) -> DatasetChoice:
    path = folder / "labels.csv"
    path.write_text("video,split,label,frames,anomalous_frames_half_open\n" + "".join(f"{row}\n" for row in rows))
    return DatasetChoice(manifest=path)


def test_frames_that_no_header_tells_are_counted_by_decoding(tmp_path: Path, footage: Footage) -> None:
    footage.video(tmp_path / "a.mkv", 50)
    footage.video(tmp_path / "b.mp4", 40, first=100)
    choice = manifest(tmp_path, "a.mkv,test,1,49,10-20", "b.mp4,train,0,40,")
    quick, deep = audit(choice, None, AuditConfig()), audit(choice, None, AuditConfig(deep=True))
    assert (quick.frames, quick.unknown_frames, quick.troubles) == (40, 1, ())
    assert (deep.frames, deep.unknown_frames) == (90, 0)
    assert kinds(deep) == {("annotation", "a.mkv")}


def test_damage_within_is_found_by_decoding(tmp_path: Path, footage: Footage) -> None:
    footage.folder(tmp_path / "a", 12)
    (tmp_path / "a" / "7.png").write_bytes(b"no picture")
    footage.folder(tmp_path / "b", 11)
    choice = manifest(tmp_path, "a,test,1,12,2-4", "b,test,0,11,")
    quick, deep = audit(choice, None, AuditConfig()), audit(choice, None, AuditConfig(deep=True))
    assert quick.troubles == ()
    assert (quick.frames, quick.frame_rates) == (23, {})  # a folder of frames has no rate of its own
    assert kinds(deep) == {("unreadable", "a")}
    assert "7.png" in deep.troubles[0].detail


def test_a_cut_off_video_is_counted_by_decoding(tmp_path: Path, footage: Footage) -> None:
    path = footage.video(tmp_path / "a.mp4", 200, faststart=True, keyframe_every=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (found,) = audit(manifest(tmp_path, "a.mp4,train,0,,"), None, AuditConfig(deep=True)).troubles
    assert found.kind == "cut off"
    assert "of 200 frames can be decoded" in found.detail


def test_masks_are_compared_with_their_frames(
    tmp_path: Path, footage: Footage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xelvad.pipeline.datasets.shanghaitech.OFFICIAL", Official(Counts(1, 1, 1, 1)))
    (tmp_path / "SH_Train.txt").write_text("01_001\n01_0014\n")
    (tmp_path / "SH_Test.txt").write_text("01_002\n01_0015\n")
    (tmp_path / "test_frame_mask").mkdir()
    for name, frames in ("01_0014", 11), ("01_0015", 12):
        np.save(tmp_path / "test_frame_mask" / f"{name}.npy", np.arange(frames) > 5)
        footage.folder(tmp_path / "testing" / "frames" / name, frames, suffix=".jpg")
    for number, name in enumerate(["01_001", "01_002"]):
        footage.video(tmp_path / "training" / "videos" / f"{name}.avi", 20 + number, codec="mpeg4", rate=24)
    choice = DatasetChoice("shanghaitech", annotations=tmp_path, videos=tmp_path)
    result = audit(choice, None, AuditConfig())
    assert result.troubles == result.notes == ()
    assert result.anomalous_share == 6 / (12 + 21)
    (tmp_path / "testing" / "frames" / "01_0014" / "10.jpg").unlink()
    (found,) = audit(choice, None, AuditConfig()).troubles
    assert (found.kind, found.video) == ("annotation", "01_0014")
    assert "annotated for 11 frames, but 10" in found.detail


def test_features_of_one_video_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    write_features(tmp_path / "features", "day/a.mp4", features(0), FRAMES)
    choice = manifest(tmp_path, "day/a.mp4,train,0,,", "a.mp4,train,0,,")
    (found,) = audit(choice, tmp_path / "features", AuditConfig()).troubles
    assert (found.kind, found.video) == ("features", "a.mp4")
    assert "the features of day/a.mp4 would be taken for it" in found.detail


def test_a_manifest_with_folds_is_audited_whole(shared: Path) -> None:
    result = audit(DatasetChoice(manifest=shared / "cctv_montage" / "annotations.csv"), None, AuditConfig())
    assert result.troubles == result.notes == ()
    assert result.found == result.listed == Counts(36, 39, 12, 13)
    assert result.official is None
    assert result.frame_rates == {"25.00": 100}


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_found(ucf: Path, footage: Footage, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "--dataset", "ucf-crime", "--annotations", f"{ucf}/lists", "--videos", f"{ucf}/videos"]
    assert main([*command, "--features", f"{ucf}/features"]) == 0
    printed = capsys.readouterr().out
    assert "nothing is wrong" in printed
    assert "note: Arson011_x264: annotated up to frame 72 of 60" in printed
    for name in list(PLACES)[:7]:
        video(ucf, name).unlink()
    assert main([*command, "--out", f"{ucf}/audit.json"]) == 1
    printed = capsys.readouterr().out
    assert "and 2 more" in printed
    assert "nothing is wrong" not in printed
    written = json.loads((ucf / "audit.json").read_text())
    assert [finding["video"] for finding in written["troubles"]] == list(PLACES)[:7]
    assert written["found"] == {"train_normal": 0, "train_abnormal": 0, "test_normal": 1, "test_abnormal": 0}


@pytest.mark.parametrize("more", [["--videos", "nowhere"], [], ["--manifest", "a.csv"], ["--test-fold", "one"]])
def test_a_wrong_request_is_code_2(ucf: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--dataset", "ucf-crime", "--annotations", f"{ucf}/lists", *more]) == 2
    assert capsys.readouterr().err.startswith("xelvad: ")
