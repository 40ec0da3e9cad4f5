"""Names of videos: what is the same video in another folder layout.

Lists name ``Abuse001_x264.mp4`` or ``videos/a.mp4`` what lies as ``Anomaly-Videos-Part-1/Abuse/Abuse001_x264.mp4`` or
``a.mp4``. Two names mean the same video where one of them is the end of the other, folder by folder. The suffix of a
video counts only where both names have one, so that ``01_001`` is ``training/videos/01_001.avi``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from .sources import VIDEO_SUFFIXES


class NameIndex:
    """The names in one place, in which a video is found by a shorter or longer name of its own."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._alike: defaultdict[str, list[str]] = defaultdict(list)  # by file name without suffix
        for name in sorted(self._names):
            self._alike[_split(name)[0][-1]].append(name)

    def find(self, name: str) -> list[str]:
        """The names here that mean the video ``name``: itself, or else those that have most in common with it.

        Returns:
            Empty where there is none. More than one cannot be told apart: which is meant is not for us to guess.
        """
        if name in self._names:
            return [name]
        common = {other: _in_common(name, other) for other in self._alike.get(_split(name)[0][-1], [])}
        most = max(common.values(), default=0)
        return [other for other, parts in common.items() if parts == most and most]


def _in_common(name: str, other: str) -> int:
    """How many folders and files two names of one video share; 0 where they are not of one video."""
    (parts, suffix), (others, other_suffix) = _split(name), _split(other)
    shared = min(len(parts), len(others))
    same = parts[-shared:] == others[-shared:] and (suffix == other_suffix or not (suffix and other_suffix))
    return shared if same else 0


def _split(name: str) -> tuple[tuple[str, ...], str]:
    """Folders and the file's name without its suffix, and the suffix in lower case; empty where it is not a video's."""
    path = PurePosixPath(name)
    suffix = path.suffix if path.suffix.lower() in VIDEO_SUFFIXES else ""
    return (*path.parts[:-1], path.name.removesuffix(suffix)), suffix.lower()
