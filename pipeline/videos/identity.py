"""Identity: a video is known by its size and the time of its last change, and where these differ, by its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds of a video file, or of a folder of frames."""
    if path.is_dir():
        stats = [file.stat() for file in path.iterdir() if file.is_file()]
        return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def digest(path: Path) -> str:
    """SHA-256 of a video file, or of a folder's pictures in the order of their names."""
    total = hashlib.sha256()
    for file in sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                total.update(block)
    return total.hexdigest()
