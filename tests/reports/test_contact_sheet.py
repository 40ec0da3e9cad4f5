"""The hard instance bank as a list, a table and a contact sheet, with frame numbers read back from the pictures."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageColor

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.reports import contact_sheet
from xelvad.pipeline.reports.contact_sheet import (
    CAPTION,
    MAT,
    SCENE,
    Title,
    clip_times,
    draw_sheet,
    find_sources,
    middle_frame,
    read_scenes,
    score_text,
    shorten,
    show_bank,
    tile_corner,
)
from xelvad.pipeline.reports.preview import BLOCK_SIZE, pick_frames
from xelvad.pipeline.scoring.runs import BankRow, RunManifest, read_bank
from xelvad.pipeline.videos.clips import Clipping, Segments
from xelvad.pipeline.videos.worker import DecodedVideo, Decoder

from ..helpers.features import write_dataset
from ..helpers.footage import LANDSCAPE, PORTRAIT, Footage

RATE = 25


def row_of(video: str, clip: int, cut: Clipping | Segments, frames: int, score: float, epochs: int = 2) -> BankRow:
    first, end = cut.frames_of(clip, frames)
    return BankRow(video, clip, first, end, first / RATE, score, epochs)


def write_run(folder: Path, rows: list[BankRow] | None, xel: str = "epoch") -> Path:
    """As much of a run folder as there is to look at its bank."""
    manifest = RunManifest(
        "0", "mil", xel, 16, "i3d-rgb", "f", Clipping(), BagConfig(), 0, "d", "", "", 4, 0, "", "2"
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    if rows is not None:
        (folder / "bank.json").write_text(json.dumps([asdict(row) for row in rows]))
    return folder


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, footage: Footage) -> SimpleNamespace:
    """Videos whose frames show their numbers, and a run whose bank holds clips and segments of them."""
    folder = tmp_path_factory.mktemp("bank")
    videos = folder / "videos"
    footage.video(videos / "cam1" / "wide.mp4", 150)
    footage.video(videos / "high.mp4", 90, PORTRAIT)
    footage.folder(videos / "frames", 40)
    clips, segments = Clipping(), Segments(32)
    rows = [
        row_of("cam1/wide.mp4", 5, clips, 150, 0.91),  # frames 80 to 96
        row_of("videos/high.mp4", 31, segments, 90, 0.9, epochs=1),  # 62 to 90, filed under its own folder's name
        row_of("cam1/wide.mp4", 9, clips, 150, 0.7),  # 144 to 150
        row_of("frames", 0, segments, 40, 0.6),  # 0 alone
        row_of("cam1/wide.mp4", 0, clips, 150, 0.05),
    ]
    return SimpleNamespace(
        folder=folder, videos=videos, rows=rows, numbers=[87, 75, 146, 0, 7], run=write_run(folder / "run", rows)
    )


def tile(sheet: Image.Image, number: int, tiles: int) -> np.ndarray:
    """A tile's picture ``(height, width, 3)``, without its caption."""
    x, y = tile_corner(number, tiles)
    return np.asarray(sheet.convert("RGB").crop((x, y, x + SCENE[0], y + SCENE[1])))


def unmatted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What a tile shows of a video of that size, without the bars that fit it in."""
    scale = min(SCENE[0] / size[0], SCENE[1] / size[1])
    width, height = round(size[0] * scale), round(size[1] * scale)
    left, top = (SCENE[0] - width) // 2, (SCENE[1] - height) // 2
    return picture[top : top + height, left : left + width]


def is_blank(picture: np.ndarray) -> bool:
    """Whether a tile is grey, but for the letters on it."""
    return bool(np.mean(np.abs(picture.astype(int) - ImageColor.getrgb(MAT)).max(axis=2) < 8) > 0.9)


# --- which frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "frames", "clip", "middle"),
    [
        (Clipping(), 100, 0, 7),
        (Clipping(), 100, 5, 87),
        (Clipping(), 100, 6, 97),  # 96 to 100: what pads it is no frame of the video
        (Clipping(tail="drop"), 100, 5, 89),  # 80 to 100
        (Clipping(1), 3, 2, 2),
        (Segments(32), 320, 3, 34),
        (Segments(32), 339, 31, 324),  # 310 to 339
        (Segments(32), 10, 0, 0),
        (Segments(32), 10, 31, 9),  # has no frame of its own, and begins behind the last one
    ],
)
def test_the_middle_frame_of_clips_and_segments(cut: Clipping | Segments, frames: int, clip: int, middle: int) -> None:
    assert middle_frame(row_of("a", clip, cut, frames, 0.5)) == middle < frames


def test_single_frames_of_a_video_are_those_asked_for(place: SimpleNamespace, footage: Footage) -> None:
    numbers = [0, BLOCK_SIZE - 1, BLOCK_SIZE, 140, 149, 150, 1000]
    with Decoder() as decoder:
        picked = list(pick_frames(place.videos / "cam1" / "wide.mp4", numbers, decoder))
    assert [number for number, _ in picked] == numbers[:5], "in order, and the video has no others"
    assert footage.indices([picture[None] for _, picture in picked]) == numbers[:5], "not overwritten by later ones"
    assert {picture.shape for _, picture in picked} == {(64, 128, 3)}, "small ones are not enlarged"


def test_nothing_is_decoded_behind_the_last_frame_wanted(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, frames = [], []
    original = DecodedVideo.blocks

    def counted(self: DecodedVideo):
        for block in original(self):
            blocks.append(block)
            yield block

    monkeypatch.setattr(DecodedVideo, "blocks", counted)
    with Decoder() as decoder:
        path = place.videos / "cam1" / "wide.mp4"
        assert len(list(pick_frames(path, {3, 40}, decoder, advance=lambda: frames.append(1)))) == 2
    assert (len(blocks), len(frames)) == (2, 41)


def test_scenes_show_the_middle_frames_and_every_video_is_read_once(
    place: SimpleNamespace, footage: Footage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = Decoder.read

    def counted(self: Decoder, path: Path, *rest: int):
        read.append(path.name)
        return original(self, path, *rest)

    monkeypatch.setattr(Decoder, "read", counted)
    scenes, troubles = read_scenes(place.rows, find_sources(place.rows, [place.videos]))
    assert read == ["wide.mp4", "high.mp4", "frames"]
    assert not troubles
    assert [scene.row for scene in scenes] == place.rows
    assert footage.indices([scene.picture[None] for scene in scenes]) == place.numbers


# --- which videos ---------------------------------------------------------------------------------------------------


def test_videos_are_found_without_leading_folders(tmp_path: Path) -> None:
    for name in ("a.mp4", "b/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["b/a.mp4", "x/y/a.mp4", "c.mp4", "b"]
    paths = find_sources([row_of(name, 0, Clipping(), 16, 0.5) for name in names], [tmp_path])
    assert paths == {"b/a.mp4": tmp_path / "b" / "a.mp4", "x/y/a.mp4": tmp_path / "a.mp4"}


def test_two_videos_never_show_the_frames_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    rows = [row_of(name, 0, Clipping(), 16, 0.5) for name in ("x/a.mp4", "y/a.mp4")]
    with pytest.raises(UserError, match=r"x/a\.mp4 and y/a\.mp4 would both be .*a\.mp4: give each its own file"):
        find_sources(rows, [tmp_path])


# --- the list -------------------------------------------------------------------------------------------------------


def test_times_are_minutes_seconds_and_tenths() -> None:
    def times(*rows: tuple[int, int, float]) -> list[str]:
        return clip_times([BankRow("a", 0, first, end, seconds, 0.5, 1) for first, end, seconds in rows])

    assert times((250, 266, 10.0)) == ["0:10.0 to 0:10.6"]
    assert times((1799, 1815, 59.96)) == ["1:00.0 to 1:00.5"], "not 0:60.0"
    assert times((972000, 972016, 32400.0)) == ["540:00.0 to 540:00.5"]
    assert times((0, 16, 0.0)) == ["from 0:00.0"], "nothing says how long its frames last"
    assert times((0, 50, 0.0), (100, 150, 10.0), (100, 150, 4.0), (100, 150, 8.0))[0] == "0:00.0 to about 0:04.0"
    assert times((9, 9, 0.9)) == ["0:00.9 to 0:00.9"]


def test_scores_stay_legible_where_all_are_tiny() -> None:
    assert [score_text(score) for score in (1.0, 0.87654, 0.0046, 0.00012345, 0.0)] == [
        "1.0000", "0.8765", "0.0046", "1.2e-04", "0.0000",
    ]  # fmt: skip


def test_the_list_is_cut_and_says_so_and_nothing_is_written(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(place.folder)
    assert main(["bank", str(place.run), "--rows", "2"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert [line.split("│")[1:4] for line in lines if "0.9" in line] == [
        [" 1    ", " cam1/wide.mp4   ", " 5    "],
        [" 2    ", " videos/high.mp4 ", " 31   "],
    ]
    assert "0:03.2 to 0:03.8" in out
    assert lines[-1] == "and 3 more; --rows 5 shows all"
    assert main(["bank", str(place.run)]) == 0
    assert " more" not in capsys.readouterr().out
    assert files_in(place.folder) == before


def test_names_are_never_taken_for_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [row_of("[red]x[/].mp4", 1, Clipping(), 32, 0.5)])
    assert main(["bank", str(run), "--out", str(tmp_path / "[b]")]) == 0
    out = capsys.readouterr().out
    assert "[red]x[/].mp4" in out
    assert f"bank: {tmp_path}/[b]/bank.csv" in out


def test_the_csv_file_has_all_rows_in_full(place: SimpleNamespace, tmp_path: Path) -> None:
    show_bank(place.run, out=tmp_path / "out", rows=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bank.csv"]
    with (tmp_path / "out" / "bank.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    types = {"video": str, "clip": int, "first_frame": int, "end_frame": int}
    types |= {"seconds": float, "score": float, "epochs": int}
    assert [BankRow(**{name: types[name](value) for name, value in row.items()}) for row in read] == place.rows


def test_the_bank_of_a_training_can_be_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path)
    run = tmp_path / "run"
    options = ["--manifest", str(tmp_path / "labels.csv"), "--features", str(tmp_path / "features")]
    assert main(["train", *options, "--out", str(run), "--iterations", "5", "--xel", "epoch"]) == 0
    rows = read_bank(run)
    capsys.readouterr()
    assert main(["bank", str(run)]) == 0
    listed = [line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if ".mp4" in line]
    assert listed == [row.video for row in rows] != []


# --- the sheet ------------------------------------------------------------------------------------------------------


def test_the_sheet_has_a_tile_for_every_row_with_the_right_frame(
    place: SimpleNamespace, footage: Footage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bank", str(place.run), "--videos", str(place.videos)]) == 0
    assert {path.name for path in (place.run / "bank").iterdir()} == {"bank.csv", "contact_sheet.jpg"}
    assert "contact sheet: " in capsys.readouterr().out
    sheet = Image.open(place.run / "bank" / "contact_sheet.jpg")
    pictures = [tile(sheet, number, 5) for number in range(5)]
    sizes = [LANDSCAPE, PORTRAIT, *[LANDSCAPE] * 3]
    shown = [unmatted(picture, size) for picture, size in zip(pictures, sizes, strict=True)]
    assert footage.indices([picture[None] for picture in shown]) == place.numbers
    bars = [pictures[0][-30:], pictures[1][40:, -80:]]  # below what is wide, beside what is high
    assert all(np.abs(bar.astype(int) - ImageColor.getrgb(MAT)).max() < 25 for bar in bars)


@pytest.mark.parametrize("tiles", [1, 2, 5, 24, 40, 600])
def test_tiles_are_evenly_spaced_and_all_on_the_sheet(tiles: int) -> None:
    corners = [tile_corner(number, tiles) for number in range(tiles)]
    assert len(set(corners)) == tiles
    for axis, size in ((0, SCENE[0]), (1, SCENE[1] + CAPTION)):
        steps = np.diff(sorted({corner[axis] for corner in corners}))
        assert len(set(steps.tolist())) <= 1
        assert np.all(steps > size)
    if tiles > 24:
        return
    scene = contact_sheet.Scene(row_of("a", 0, Clipping(), 16, 0.0), "from 0:00.0", None, "gone")
    sheet = draw_sheet([scene] * tiles, Title("AR-Net+XEL (batch-wise)", "r" * 300, tiles, 0.0))
    x, y = corners[-1]
    assert x + SCENE[0] < sheet.width
    assert y + SCENE[1] + CAPTION < sheet.height


def test_bars_are_scores_in_parts_of_the_highest(place: SimpleNamespace) -> None:
    scores = [0.004, 0.002, 0.0]
    scenes = [contact_sheet.Scene(row_of("a", 0, Clipping(), 16, score), "", None, "gone") for score in scores]
    sheet = np.asarray(draw_sheet(scenes, Title("MIL+XEL", "run", 3, scores[0]))).astype(int)
    coloured = np.abs(sheet - ImageColor.getrgb(contact_sheet.BAR)).max(axis=2) == 0
    lengths = [
        coloured[y + SCENE[1] : y + SCENE[1] + CAPTION, x : x + SCENE[0]].sum(axis=1).max()
        for x, y in (tile_corner(number, 3) for number in range(3))
    ]
    assert lengths[0] > 150
    assert lengths[1:] == [pytest.approx(lengths[0] / 2, abs=1), 0]


def test_a_video_without_pictures_gets_grey_tiles_and_is_listed(
    tmp_path: Path, footage: Footage, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    footage.video(videos / "good.mp4", 32)
    footage.video(videos / "short.mp4", 20)
    (videos / "broken.mp4").write_bytes(b"not a film")
    names = ["missing.mp4", "broken.mp4", "good.mp4", "short.mp4"]
    rows = [row_of(name, 1, Clipping(), 32, 0.9 - 0.1 * number) for number, name in enumerate(names)]
    rows.append(row_of("short.mp4", 0, Clipping(), 32, 0.1))
    run = write_run(tmp_path / "run", rows)
    assert main(["bank", str(run), "--videos", str(videos), "--out", str(tmp_path / "out")]) == 1
    aside = [line for line in capsys.readouterr().err.splitlines() if line.startswith("set aside: ")]
    assert len(aside) == 3
    for line, reason in zip(
        aside, ["missing.mp4: not among the", "broken.mp4: not a video", "short.mp4: ends before frame 23"], strict=True
    ):
        assert reason in line
    sheet = Image.open(tmp_path / "out" / "contact_sheet.jpg")
    pictures = [tile(sheet, number, 5) for number in range(5)]
    assert [is_blank(picture) for picture in pictures] == [True, True, False, True, False]
    assert footage.index_of(unmatted(pictures[2], LANDSCAPE)) == 23
    assert footage.index_of(unmatted(pictures[4], LANDSCAPE)) == 7, "what was read of a video is shown"


def test_names_are_cut_at_their_left_between_folders_if_possible() -> None:
    name = "ward/camera_12/2020-02-02_night_shift.mp4"
    assert shorten(name, 16, 1000) == name
    cuts = [shorten(name, 16, width) for width in range(330, 0, -10)]
    assert "…/camera_12/2020-02-02_night_shift.mp4" in cuts
    assert "…/2020-02-02_night_shift.mp4" in cuts
    assert "…night_shift.mp4" in cuts
    assert all(name.endswith(cut.removeprefix("…")) for cut in cuts)
    assert cuts[-1] == "…"
    assert shorten("Tür\n门.mp4", 16, 1000) == "T?r??.mp4"


# --- bad requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("none", "none: no such run folder"),
        ("videos", "videos: not a run folder"),
        ("off", "MIL was trained without XEL, so it has no hard instance bank"),
        ("unfilled", "unfilled: its hard instance bank was never filled"),
        ("damaged", "bank.json: damaged"),
        ("run --rows 0", "--rows must be at least 1, not 0"),
        ("run --videos none", "none: no such file or folder"),
        ("run --videos empty", "no videos found in"),
        ("large --rows 601 --videos videos", "has room for 600 of the bank's 700 rows"),
    ],
)
def test_a_bad_request_gets_one_line_and_code_2_and_nothing_is_written(
    tmp_path: Path, case: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = row_of("a.mp4", 0, Clipping(), 16, 0.5)
    write_run(Path("run"), [row])
    write_run(Path("off"), None, xel="off")
    write_run(Path("unfilled"), [])
    write_run(Path("large"), [row] * 700)
    (write_run(Path("damaged"), None) / "bank.json").write_text("[{}]")
    for folder in ("videos", "empty"):
        Path(folder).mkdir()
    Path("videos/a.mp4").touch()
    before = files_in(tmp_path)
    out = [] if case.startswith("run --videos") else ["--out", "out"]
    assert main(["bank", *case.split(), *out]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert files_in(tmp_path) == before
