"""The contact sheet: a run's hard instance bank as something to look at, one thumbnail for every clip in it.

The bank holds what the detector finds hardest to call normal, so it is the quickest way to see what a detector has, and
what it has not, understood. Rows are also written as CSV, for whoever wants to reckon with them.
"""

from __future__ import annotations

import csv
import functools
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ...errors import UserError
from ...files import write_bytes, write_text
from ..datasets import check_clear, locate
from ..scoring.runs import BankRow, read_bank, read_manifest_of_run
from ..support.progress import SILENT, Report
from ..videos.probe import VideoError
from ..videos.sources import find_videos
from ..videos.worker import Decoder
from .preview import Picture, pick_frames

TABLE = "bank.csv"
SHEET = "contact_sheet.jpg"
COLUMN_NAMES = ("rank", "video", "clip", "time", "score", "epochs")
MOST_TILES = 600  # on one sheet: more of them nobody would look at, and the picture would fill memory

# Pixels.
SCENE = (288, 216)  # room for a frame, 4:3 as most cameras had it
CAPTION = 94
GAP = 22  # between tiles, and around them all
HEADER = 102
PADDING = 12  # within a caption
COLUMNS = range(3, 8)  # the fewest, which leave room for the title, and the most

PAPER, CARD, BORDER, MAT = "#f3f4f6", "#ffffff", "#d3d7de", "#dfe3e8"
INK, GREY, TRACK, BAR = "#1b212b", "#626c7a", "#e8eaee", "#c8472f"


@dataclass(frozen=True)
class Scene:
    """One tile of the sheet.

    Attributes:
        row: of the bank.
        time: when the clip is, as `clip_times` puts it.
        picture: RGB ``(height, width, 3)``, the clip's middle frame; None if it cannot be had.
        trouble: why there is no picture, in a word or two.
    """

    row: BankRow
    time: str
    picture: Picture | None
    trouble: str = ""


@dataclass(frozen=True)
class Trouble:
    """Why a video has no picture: a word for its tiles, and the whole reason."""

    word: str
    reason: str


@dataclass(frozen=True)
class Title:
    """What stands above the tiles.

    Attributes:
        detector: as papers call it.
        run: name of the run's folder.
        rows: that the bank has.
        highest: score among them, at which bars are full.
    """

    detector: str
    run: str
    rows: int
    highest: float


@dataclass(frozen=True)
class ShownBank:
    """What there is to say about a bank.

    Attributes:
        table: cells under `COLUMN_NAMES` for each row that is shown, highest score first.
        notes: lines for people: what is not shown, and what was written.
        failed: by name of the video, why it has no picture on the contact sheet.
    """

    table: list[tuple[str, ...]]
    notes: list[str]
    failed: dict[str, str]


def show_bank(
    run: Path, videos: Sequence[Path] = (), out: Path | None = None, rows: int = 40, report: Report = SILENT
) -> ShownBank:
    """Look at the hard instance bank of a run; see `read_scenes` for how long its pictures take.

    Args:
        run: the run folder.
        videos: where the videos are (files, folders of frames, or folders of these); with any, ``contact_sheet.jpg``
            is made.
        out: folder for ``bank.csv``, which holds all rows, and the sheet; by default ``run/bank`` if there are
            ``videos``, else nothing is written.
        rows: how many of them are shown, at most; on a sheet there is room for `MOST_TILES`.
        report: is told how far it is.

    Raises:
        UserError: not a run, one without XEL or whose bank was never filled, no such number of rows can be shown, or
            as `find_sources`. A video that is missing or cannot be read is no error: its tiles say so.
    """
    if rows < 1:
        raise UserError(f"--rows must be at least 1, not {rows}")
    bank = read_bank(run)
    if not bank:
        raise UserError(f"{run}: its hard instance bank was never filled; train with more iterations")
    shown = bank[:rows]
    if videos and len(shown) > MOST_TILES:
        raise UserError(f"--rows {rows}: a contact sheet has room for {MOST_TILES} of the bank's {len(bank)} rows")
    notes = [f"and {len(bank) - rows} more; --rows {len(bank)} shows all"] if len(bank) > rows else []
    troubles: dict[str, Trouble] = {}
    sheet = None
    if videos:
        out = out or run / "bank"
        scenes, troubles = read_scenes(shown, find_sources(shown, videos), report)
        title = Title(read_manifest_of_run(run).name, run.resolve().name, len(bank), bank[0].score)
        sheet = draw_sheet(scenes, title)
    if out is not None:
        notes.append(f"bank: {write_table(bank, out)}")
    if sheet is not None and out is not None:
        notes.append(f"contact sheet: {write_sheet(sheet, out)}")
    return ShownBank(table_of(shown), notes, {name: trouble.reason for name, trouble in troubles.items()})


def table_of(rows: Sequence[BankRow]) -> list[tuple[str, ...]]:
    """Cells under `COLUMN_NAMES`."""
    return [
        (f"{rank}", row.video, f"{row.clip}", time, score_text(row.score), f"{row.epochs}")
        for rank, (row, time) in enumerate(zip(rows, clip_times(rows), strict=True), 1)
    ]


def clip_times(rows: Sequence[BankRow]) -> list[str]:
    """When each row's clip is, such as ``1:02.4 to 1:03.0``.

    A row knows when it begins. Where it ends follows from the frame rate up to there; a clip at the very beginning has
    no such rate, so the usual one of all rows stands in, marked "about".
    """
    usual = median([_pace(row) for row in rows if row.first_frame] or [math.nan])
    times = []
    for row in rows:
        pace = _pace(row) if row.first_frame else usual
        if math.isnan(pace):
            times.append(f"from {_clock(row.seconds)}")
            continue
        end = _clock(row.seconds + (row.end_frame - row.first_frame) * pace)
        times.append(f"{_clock(row.seconds)} to {'' if row.first_frame else 'about '}{end}")
    return times


def _pace(row: BankRow) -> float:
    """Seconds per frame before a row that does not begin with the first frame."""
    return row.seconds / row.first_frame


def _clock(seconds: float) -> str:
    minutes, tenths = divmod(round(10 * seconds), 600)
    return f"{minutes}:{tenths / 10:04.1f}"


def score_text(score: float) -> str:
    """A score in [0, 1], legible also where the detector is sure of itself and all scores are tiny."""
    return f"{score:.4f}" if score >= 0.001 or score == 0 else f"{score:.1e}"


def write_table(rows: Iterable[BankRow], out: Path) -> Path:
    """Write ``out/bank.csv``: a column for every field of `BankRow`, numbers in full; returns its path."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(BankRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(out / TABLE, text.getvalue())
    return out / TABLE


def write_sheet(sheet: Image.Image, out: Path) -> Path:
    """Write ``out/contact_sheet.jpg``; returns its path."""
    encoded = io.BytesIO()
    sheet.save(encoded, "JPEG", quality=90, optimize=True)
    write_bytes(out / SHEET, encoded.getvalue())
    return out / SHEET


def find_sources(rows: Iterable[BankRow], folders: Sequence[Path]) -> dict[str, Path]:
    """Where the videos of rows lie in ``folders``, by the name that the row has; one that is not there is left out.

    Raises:
        UserError: as `find_videos`, or a video that cannot be told from others: it would show wrong frames.
    """
    location = locate(dict.fromkeys(row.video for row in rows), find_videos(folders))
    check_clear(location)
    return location.found


def middle_frame(row: BankRow) -> int:
    """The frame that shows what a row is about; of a segment without frames of its own, one next to it."""
    return max(0, (row.first_frame + row.end_frame - 1) // 2)


def read_scenes(
    rows: Sequence[BankRow], paths: Mapping[str, Path], report: Report = SILENT
) -> tuple[list[Scene], dict[str, Trouble]]:
    """The middle frame of each row's clip. Every video is read once, and only as far as the last frame that is needed.

    Frames are numbered by counting, so time grows with the clips' positions: for one at the end of a nine-hour video,
    nine hours are decoded.

    Args:
        rows: of the bank.
        paths: of videos, by the names in ``rows``, as `find_sources` gives them.
        report: is told how far it is.

    Returns:
        One scene for each row, in order; and by name of the video, what kept pictures from being had.
    """
    wanted: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        wanted[row.video].add(middle_frame(row))
    pictures: dict[str, dict[int, Picture]] = {name: {} for name in wanted}
    troubles = {
        name: Trouble("video not found", f"{name}: not among the videos given") for name in wanted if name not in paths
    }
    with Decoder() as decoder, report.progress("reading", len(paths), "frames") as progress:
        for name, path in paths.items():
            progress.start(name, max(wanted[name]) + 1)
            try:
                pictures[name].update(pick_frames(path, wanted[name], decoder, advance=progress.advance))
            except VideoError as error:
                troubles[name] = Trouble("cannot be read", str(error))
            else:
                if beyond := wanted[name] - pictures[name].keys():
                    reason = f"ends before frame {min(beyond)}; is it the video that features were made of?"
                    troubles[name] = Trouble("video ends before", f"{path}: {reason}")
            progress.finish()
    scenes = []
    for row, time in zip(rows, clip_times(rows), strict=True):
        picture = pictures[row.video].get(middle_frame(row))
        scenes.append(Scene(row, time, picture, troubles[row.video].word if picture is None else ""))
    return scenes, troubles


def draw_sheet(scenes: Sequence[Scene], title: Title) -> Image.Image:
    """The sheet: a title, and a grid of tiles in the order of ``scenes``, one line after the other; RGB."""
    columns, lines = _grid(len(scenes))
    right, bottom = tile_corner(columns * lines - 1, len(scenes))
    sheet = Image.new("RGB", (right + SCENE[0] + GAP, bottom + SCENE[1] + CAPTION + GAP), PAPER)
    _draw_title(sheet, title, len(scenes))
    for number, scene in enumerate(scenes):
        sheet.paste(_tile(scene, number + 1, title.highest), tile_corner(number, len(scenes)))
    return sheet


def tile_corner(number: int, tiles: int) -> tuple[int, int]:
    """Where on a sheet of so many tiles the upper left corner of a tile is, ``(x, y)``; the picture begins there."""
    line, column = divmod(number, _grid(tiles)[0])
    return GAP + column * (SCENE[0] + GAP), HEADER + line * (SCENE[1] + CAPTION + GAP)


def _grid(tiles: int) -> tuple[int, int]:
    """Columns and lines, so that the sheet is a little wider than high while its columns suffice."""
    columns = min(max(math.ceil(math.sqrt(1.3 * tiles)), COLUMNS[0]), COLUMNS[-1])
    return columns, math.ceil(tiles / columns)


def _draw_title(sheet: Image.Image, title: Title, shown: int) -> None:
    draw, width = ImageDraw.Draw(sheet), sheet.width - 2 * GAP
    head = f"{title.detector}: the scenes this detector finds hardest to call normal"
    size = next((size for size in range(30, 16, -1) if _font(size).getlength(head) <= width), 16)
    draw.text((GAP, 48), head, INK, _font(size), anchor="ls")
    rows = f"All {shown} rows" if shown == title.rows else f"The highest {shown} of {title.rows} rows"
    text = f"{rows} of its hard instance bank. A full bar is the highest score, {score_text(title.highest)}. Run: "
    run = shorten(title.run, 17, round(width - _font(17).getlength(text)))
    draw.text((GAP, 78), text + run, GREY, _font(17), anchor="ls")


def _tile(scene: Scene, rank: int, highest: float) -> Image.Image:
    width, height = SCENE
    tile = Image.new("RGB", (width, height + CAPTION), CARD)
    draw = ImageDraw.Draw(tile)
    if scene.picture is not None:
        tile.paste(ImageOps.pad(Image.fromarray(scene.picture), SCENE, Image.Resampling.LANCZOS, MAT), (0, 0))
    else:
        draw.rectangle((0, 0, width - 1, height - 1), MAT)
        draw.text((width / 2, height / 2), scene.trouble, GREY, _font(18), anchor="mm")
    _draw_rank(draw, rank)
    left, right, row = PADDING, width - PADDING, scene.row
    draw.text((left, height + 12), shorten(row.video, 16, right - left), INK, _font(16))
    draw.text((left, height + 37), scene.time, GREY, _font(15))
    stayed = f"{row.epochs} epoch{'s' if row.epochs != 1 else ''}"
    draw.text((right, height + 37), stayed, GREY, _font(15), anchor="ra")
    middle, end = height + 73, right - 62
    full = round((end - left) * min(max(row.score / highest, 0), 1)) if highest > 0 else 0
    draw.rectangle((left, middle - 4, end - 1, middle + 3), TRACK)
    if full:
        draw.rectangle((left, middle - 4, left + full - 1, middle + 3), BAR)
    draw.text((right, middle), score_text(row.score), INK, _font(15), anchor="rm")
    draw.rectangle((0, 0, width - 1, height + CAPTION - 1), outline=BORDER)
    return tile


def _draw_rank(draw: ImageDraw.ImageDraw, rank: int) -> None:
    font = _font(14)
    width = max(24, round(font.getlength(f"{rank}")) + 12)
    draw.rectangle((0, 0, width, 23), CARD)
    draw.text((width / 2, 12), f"{rank}", INK, font, anchor="mm")


def shorten(text: str, size: int, width: int) -> str:
    """A text as it can be drawn at a font size in ``width`` pixels, cut at its left, between folders if possible.

    The font that is always at hand has no letters but ASCII's; others are drawn as question marks.
    """
    font = _font(size)
    text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    folders = [place for place, letter in enumerate(text) if letter == "/" and place]
    cuts = (f"…{text[place:]}" for place in [*folders, *range(1, len(text) + 1)])
    return next(line for line in (text, *cuts) if font.getlength(line) <= width or line == "…")


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
