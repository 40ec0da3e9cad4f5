"""Official lists: text files with a video on each line."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...schema import shown
from .dataset import MAX_FRAMES
from .table import read_limited, text_of

LONGEST_LINE = 2000


def find_list(folder: Path, pattern: str) -> Path:
    """The file that matches ``pattern`` in ``folder`` or below.

    Raises:
        UserError: no such folder, no such file, or several.
    """
    if not folder.is_dir():
        raise UserError(f"--annotations {folder}: no such folder")
    found = sorted(folder.rglob(pattern))
    if len(found) != 1:
        what = ", ".join(map(str, found)) if found else "none"
        raise UserError(f"--annotations {folder}: should hold one {pattern}, but there is {what}")
    return found[0]


def lines_of(path: Path) -> list[tuple[str, str]]:
    """The lines of a list that are not empty, each with its place, such as ``list.txt, line 3``.

    Raises:
        UserError: not readable, not text, or empty.
    """
    text = text_of(path, read_limited(path, "the list"), "expected is text in UTF-8, a video on each line")
    lines = []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        where, stripped = f"{path}, line {number}", line.strip()
        if len(stripped) > LONGEST_LINE or not stripped.replace("\t", " ").isprintable():
            raise UserError(f"{where}: {shown(stripped)} is no line of a list: expected is a video on each")
        if stripped:
            lines.append((where, stripped))
    if not lines:
        raise UserError(f"{path}, line 1: the list is empty: expected is a video on each line")
    return lines


def frame_numbers(where: str, cells: Sequence[str]) -> list[int]:
    """Whole numbers, of frames, that a video may have, or −1.

    Raises:
        UserError: others; names the line.
    """
    for cell in cells:
        if not (re.fullmatch(r"-?[0-9]{1,19}", cell) and -1 <= int(cell) <= MAX_FRAMES):
            raise UserError(f"{where}: {shown(cell)} is no number of a frame, 0 to {MAX_FRAMES}")
    return [int(cell) for cell in cells]


def digest_of_files(paths: list[Path]) -> str:
    """SHA-256 of the contents of files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
