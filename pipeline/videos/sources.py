"""Sources: where videos lie, files and folders of frames, and how each is named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".dav", ".flv", ".h264", ".h265", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class VideoSource:
    """Where a video lies, and the name under which everything made from it is filed."""

    name: str  # relative POSIX path, e.g. "Abuse/Abuse001_x264.mp4"
    path: Path  # a file, or a folder of frames


def natural_key(path: Path) -> list[str | int]:
    """Sort key that puts ``frame_2.jpg`` before ``frame_10.jpg``."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", path.name)]


def is_frame_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that holds pictures, and neither videos nor further folders."""
    if not path.is_dir():
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    pictures = any(entry.suffix.lower() in FRAME_SUFFIXES for entry in entries)
    return pictures and not any(entry.is_dir() or entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries)


def find_videos(paths: Iterable[Path]) -> list[VideoSource]:
    """All videos at and below ``paths``, in natural order within each path.

    A video below a given folder is named by its path relative to that folder; a video given itself, by its file name.

    Raises:
        UserError: a path does not exist, no video was found, or two videos would get the same name.
    """
    paths = list(paths)
    found: dict[str, VideoSource] = {}
    for root in paths:
        if not root.exists():
            raise UserError(f"{root}: no such file or folder")
        for source in [VideoSource(root.absolute().name, root)] if _is_one_video(root) else _walk(root, root):
            other = found.setdefault(source.name, source)
            if other.path.resolve() != source.path.resolve():
                raise UserError(
                    f"{other.path} and {source.path} would both be named {source.name}: give a common folder"
                )
    if not found:
        raise UserError(f"no videos found in {', '.join(map(str, paths)) or 'an empty list of paths'}")
    return list(found.values())


def _is_one_video(path: Path) -> bool:
    return path.is_file() or is_frame_folder(path)


def _walk(folder: Path, root: Path) -> Iterator[VideoSource]:
    for entry in sorted(folder.iterdir(), key=natural_key):
        if entry.name.startswith("."):
            continue
        if is_frame_folder(entry) or (entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES):
            yield VideoSource(entry.relative_to(root).as_posix(), entry)
        elif entry.is_dir():
            yield from _walk(entry, root)
