"""Sources: where videos lie, files and folders of frames, and how each is named.

Folders are searched for everything that FFmpeg and Pillow read. What lies there and is passed over is said with the
reason, unless it cannot be meant: texts and tables, what belongs to a system, links to what is there already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


VIDEO_SUFFIXES = _set("""
    .264 .265 .266 .3g2 .3gp .amv .apng .asf .av1 .avc .avi .cavs .cine .dav .divx .dv .evo .f4v .flv .gif .gxf .h261
    .h263 .h264 .h265 .h266 .hevc .ifv .ivf .ivr .kux .lvf .lxf .m1v .m2p .m2t .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mod
    .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nsv .nut .nuv .obu .ogg .ogm .ogv .qt .rm .rmvb .smk .swf .tod .tp .trp
    .ts .ty .vc1 .vob .vro .vvc .webm .wmv .wtv .xmv .y4m
""")
FRAME_SUFFIXES = _set("""
    .bmp .dib .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pcx .pgm .png .pnm .ppm .ras .sgi .tga .tif .tiff .webp
""")
# Never a video, whoever put it beside one.
DOCUMENTS = _set("""
    .ass .bat .c .cfg .conf .cpp .css .csv .db .doc .docx .h .html .ini .ipynb .js .json .jsonl .log .m .mat .md .md5
    .nfo .npy .npz .parquet .pdf .pickle .pkl .properties .pt .pth .py .pyc .rst .rtf .safetensors .sh .sha1 .sha256
    .srt .sub .tex .toml .tsv .txt .url .vtt .xls .xlsx .xml .yaml .yml
""")
SOUND = _set(".aac .aif .aiff .flac .m4a .mka .mp3 .oga .opus .wav .wma")
AMONG_FRAMES = FRAME_SUFFIXES | DOCUMENTS | SOUND
# Folders and files that systems and network storage leave behind.
SYSTEM = {"@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
SYSTEM |= {"thumbs.db", "desktop.ini", "__pycache__"}
# How files of videos begin: for those whose name does not tell. Offset and bytes.
BEGINNINGS = (
    *(
        (0, start)
        for start in (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"GIF8", b"\x30\x26\xb2\x75", b"\x00\x00\x01\xba")
    ),
    *((0, start) for start in (b"\x00\x00\x01\xb3", b"DHAV", b"DKIF", b".RMF", b"\x06\x0e\x2b\x34\x02\x05\x01\x01")),
    *((4, start) for start in (b"ftyp", b"moov", b"mdat", b"wide")),
    (8, b"AVI "),
)
PACKET = 188  # bytes of MPEG transport streams, each of which begins with the same one


@dataclass(frozen=True)
class VideoSource:
    """Where a video lies, and the name under which everything made from it is filed."""

    name: str  # relative POSIX path, e.g. "Abuse/Abuse001_x264.mp4"
    path: Path  # a file, or a folder of frames


@dataclass
class Search:
    """What a search came to.

    Attributes:
        videos: in natural order within each path, each real file once.
        passed_over: by path, why it is not among them.
    """

    videos: list[VideoSource] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """A line for each reason, with how many were passed over for it and the first of them."""
        reasons: dict[str, list[str]] = {}
        for path, reason in self.passed_over.items():
            reasons.setdefault(reason, []).append(path)
        return [
            f"passed over: {printable(paths[0])}"
            + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
            + f" ({reason})"
            for reason, paths in reasons.items()
        ]


def printable(text: str) -> str:
    """A name as it may be shown: on one line, whatever it holds."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


def natural_key(path: Path) -> list[str | int]:
    """Sort key that puts ``frame_2.jpg`` before ``frame_10.jpg``."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", path.name)]


def is_frame_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that holds pictures, and neither videos nor further folders."""
    if not path.is_dir():
        return False
    entries = _entries(path)
    pictures = any(entry.suffix.lower() in FRAME_SUFFIXES for entry in entries)
    return pictures and not any(entry.is_dir() or entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries)


def find_videos(paths: Iterable[Path]) -> list[VideoSource]:
    """All videos at and below ``paths``, as `search`; what is passed over is not said.

    Raises:
        UserError: as `search`.
    """
    return search(paths).videos


def search(paths: Iterable[Path]) -> Search:
    """All videos at and below ``paths``, in natural order within each path.

    A video below a given folder is named by its path relative to that folder; a video given itself, by its file name.
    Links are followed, and each real file and folder comes once, by its own name rather than that of a link.

    Raises:
        UserError: a path does not exist or cannot be read, no video was found, or two would get the same name.
    """
    paths = list(paths)
    found: dict[str, VideoSource] = {}
    result = Search()
    seen: set[str] = set()
    for root in paths:
        if not root.exists():
            raise UserError(f"{printable(str(root))}: no such file or folder")
        try:
            at_root = [VideoSource(root.absolute().name, root)] if _is_one_video(root) else _below(root, result, seen)
        except PermissionError as error:
            raise UserError(f"{printable(str(root))}: no permission to look into it") from error
        for source in at_root:
            if not _is_utf8(source.name):
                result.passed_over[str(source.path)] = "its name is not UTF-8: rename it"
                continue
            other = found.setdefault(source.name, source)
            if other.path.resolve() != source.path.resolve():
                raise UserError(
                    f"{other.path} and {source.path} would both be named {source.name}: give a common folder"
                )
    result.videos = list(found.values())
    if not result.videos:
        where = ", ".join(map(str, paths)) or "an empty list of paths"
        raise UserError("; ".join([f"no videos found in {printable(where)}", *result.lines]))
    return result


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_one_video(path: Path) -> bool:
    return path.is_file() or is_frame_folder(path)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, but for what is hidden or belongs to a system."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM]


def _below(root: Path, result: Search, seen: set[str]) -> Iterator[VideoSource]:
    """The videos below a folder; what is reached by a link only after all that is reached without."""
    linked: list[Path] = []
    reached = list(_walk(root, result, seen, linked))
    while linked:
        entry = linked.pop(0)
        reached += _take(entry, result, seen, linked)
    for path in sorted(reached, key=lambda path: [natural_key(Path(part)) for part in path.relative_to(root).parts]):
        yield VideoSource(path.relative_to(root).as_posix(), path)


def _walk(folder: Path, result: Search, seen: set[str], linked: list[Path]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(_entries(folder), key=natural_key)
    except OSError as error:
        result.passed_over[str(folder)] = f"cannot be looked into: {error.strerror}"
        return
    for entry in entries:
        if entry.is_symlink():
            linked.append(entry)
        else:
            yield from _take(entry, result, seen, linked)


def _take(entry: Path, result: Search, seen: set[str], linked: list[Path]) -> Iterator[Path]:
    """An entry of a folder, if it is a video; or those below it, if it is a folder."""
    try:
        if entry.is_dir():
            if is_frame_folder(entry):
                for other in _entries(entry):
                    if other.suffix.lower() not in AMONG_FRAMES:
                        result.passed_over[str(other)] = "no picture that can be read, in a folder of frames"
                yield from _once(entry, seen)
            else:
                yield from _walk(entry, result, seen, linked)
            return
        reason = _why_not(entry)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if reason is None:
        yield from _once(entry, seen)
    elif reason:
        result.passed_over[str(entry)] = reason


def _once(path: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(path)
    if real not in seen:
        seen.add(real)
        yield path


def _why_not(path: Path) -> str | None:
    """Why a file is not taken for a video; None where it is, nothing where that needs no word."""
    suffix = path.suffix.lower()
    if not path.exists():
        return "a link to nothing"
    if suffix in VIDEO_SUFFIXES:
        return None
    if suffix in DOCUMENTS or suffix in SOUND or not path.is_file():
        return ""
    if suffix in FRAME_SUFFIXES:
        return "pictures beside videos or folders are no video: give them a folder of their own"
    if begins_like_a_video(path):
        return None
    return "neither a video nor a picture by its name or by how it begins"


def begins_like_a_video(path: Path) -> bool:
    """Whether a file begins as those of videos do.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(5 * PACKET)
    stream = len(start) == 5 * PACKET and set(start[::PACKET]) == {0x47}
    return stream or any(start[offset : offset + len(known)] == known for offset, known in BEGINNINGS)
