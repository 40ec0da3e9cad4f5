"""Official lists: text files with a video on each line."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...errors import UserError


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
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the list ({error})") from error
    lines = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(where, line) for where, line in lines if line]
    if not lines:
        raise UserError(f"{path}: the list is empty")
    return lines


def digest_of_files(paths: list[Path]) -> str:
    """SHA-256 of the contents of files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
