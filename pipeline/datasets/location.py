"""Where the videos of a data set lie, in whichever of the common folder layouts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..videos.names import NameIndex
from ..videos.sources import VideoSource

LISTED = 5  # names in an error message


@dataclass(frozen=True)
class Location:
    """Which video lies where; ``found``, ``missing`` and ``unclear`` together have every video once.

    Attributes:
        found: where a video lies, by name.
        missing: names of videos that are not there.
        unclear: names of videos that several could be meant by, or that another video would be read for as well.
        extra: what lies there and belongs to no video.
    """

    found: dict[str, Path]
    missing: list[str]
    unclear: dict[str, list[Path]]
    extra: list[VideoSource]


def locate(names: Iterable[str], sources: Sequence[VideoSource]) -> Location:
    """Find videos among ``sources``, which `find_videos` found, by `NameIndex`. What is named in full is no other."""
    paths = {source.name: source.path for source in sources}
    names = list(names)
    index = NameIndex(paths.keys() - names)
    candidates = {name: [name] if name in paths else index.find(name) for name in names}
    wanted_by: defaultdict[str, list[str]] = defaultdict(list)
    for name, sought in candidates.items():
        for source in sought:
            wanted_by[source].append(name)
    clear = {name: s[0] for name, s in candidates.items() if len(s) == 1 and len(wanted_by[s[0]]) == 1}
    return Location(
        found={name: paths[source] for name, source in clear.items()},
        missing=[name for name, sought in candidates.items() if not sought],
        unclear={
            name: [paths[s] for s in sought] for name, sought in candidates.items() if sought and name not in clear
        },
        extra=[source for source in sources if source.name not in wanted_by],
    )


def check_clear(location: Location) -> None:
    """Refuse a folder in which it cannot be told which video is which.

    Raises:
        UserError: names one such video and what it could be.
    """
    for name, paths in location.unclear.items():
        where = ", ".join(map(str, paths[:LISTED]))
        if len(paths) > 1:
            raise UserError(f"{name}: could be any of {where}; move the others away")
        sharing = [other for other, others in location.unclear.items() if paths[0] in others]
        raise UserError(
            f"{' and '.join(sharing[:LISTED])} would both be {where}: give each its own file, named in full"
        )
