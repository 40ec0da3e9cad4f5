"""What lies in the features folder of an extractor, seen once and without opening anything.

Links are seen, never followed: what is behind one belongs to somebody else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ...errors import UserError
from ...schema import plain_name
from ..features.sidecar import Sidecar
from ..features.store import FeatureStore
from ..videos.sources import SYSTEM

ARRAY, SIDECAR = ".npy", ".json"
LISTED = 5  # names in an error message


@dataclass(frozen=True)
class File:
    """A file as it was seen.

    Attributes:
        path: where it lies.
        size: in bytes.
        modified: nanoseconds since 1970.
        inode: the number that it has on its disk; a file that takes its place has another.
        is_link: it is none, but leads to one.
    """

    path: Path
    size: int
    modified: int
    inode: int
    is_link: bool

    @classmethod
    def at(cls, path: Path) -> File | None:
        """The file or link at a path; None where there is neither.

        Raises:
            OSError: it cannot be looked at.
        """
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        kind = status.st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):
            return None
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, stat.S_ISLNK(kind))

    @property
    def is_as_seen(self) -> bool:
        """Whether the very same still lies there, unchanged."""
        return File.at(self.path) == self


@dataclass(frozen=True)
class Filed:
    """What lies under one name.

    Attributes:
        name: the path within the extractor's folder, without the suffix: a video's name, unless that was shortened.
        array: None where there is none.
        sidecar: None where there is none.
    """

    name: str
    array: File | None
    sidecar: File | None

    @classmethod
    def at(cls, store: FeatureStore, name: str) -> Filed:
        """What lies under a name now."""
        array = store.folder / f"{name}{ARRAY}"
        return cls(name, File.at(array), File.at(array.with_suffix(SIDECAR)))

    @property
    def files(self) -> tuple[File, ...]:
        """The sidecar first: as soon as it is gone, the array does not count."""
        return tuple(file for file in (self.sidecar, self.array) if file is not None)


@dataclass
class Filing:
    """All that lies in the folder of an extractor.

    Attributes:
        store: the folder.
        filed: by name, in order.
        folders: it, and all below it that are neither hidden, nor a system's, nor links.
        linked: folders that are links, which were not looked into.
    """

    store: FeatureStore
    filed: list[Filed] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, store: FeatureStore) -> Filing:
        """Look at a folder.

        Raises:
            OSError: it, or one below it, cannot be looked into.
        """
        filing, files = cls(store), dict[str, File]()
        for root, folders, names in os.walk(store.folder, onerror=_fail):
            folder = Path(root)
            filing.folders.append(folder)
            seen = sorted(name for name in folders if not name.startswith(".") and name.lower() not in SYSTEM)
            filing.linked += [folder / name for name in seen if (folder / name).is_symlink()]
            folders[:] = [name for name in seen if not (folder / name).is_symlink()]
            for name in names:
                file = File.at(folder / name) if name.endswith((ARRAY, SIDECAR)) else None
                if file is not None:
                    files[file.path.relative_to(store.folder).as_posix()] = file
        stems = sorted({name.removesuffix(ARRAY if name.endswith(ARRAY) else SIDECAR) for name in files})
        filing.filed = [Filed(stem, files.get(stem + ARRAY), files.get(stem + SIDECAR)) for stem in stems]
        return filing


def video_of(store: FeatureStore, name: str, sidecar: Sidecar) -> str:
    """The name of the video whose features lie under ``name``: that of its sidecar, unless they were moved since."""
    is_there = store.sidecar_path(sidecar.video) == store.sidecar_path(name)
    return sidecar.video if is_there else name


def stores_in(features: Path, extractors: Sequence[str]) -> list[FeatureStore]:
    """The features folders of some extractors, or of all that have one.

    Args:
        features: the folder that `xelvad extract` filled.
        extractors: their names; none for all.

    Raises:
        UserError: there is no such folder, or it holds nothing of an extractor that is named, or nothing at all.
        OSError: it cannot be looked into.
    """
    if not features.is_dir():
        raise UserError(f"{features}: no such folder")
    there = sorted(
        entry.name
        for entry in features.iterdir()
        if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM and entry.is_dir()
    )
    for name in extractors:
        if plain_name(name) is not None or name not in there:
            known = ", ".join(there[:LISTED]) or "nothing"
            raise UserError(f"{features}: holds no folder {name!r} of an extractor; there is {known}")
    names = list(dict.fromkeys(extractors)) or [name for name in there if _holds_features(features / name)]
    if not names:
        raise UserError(
            f"{features}: no features in the folders in it; it must be the one that `xelvad extract --features` filled"
        )
    return [FeatureStore(features, name) for name in names]


def _holds_features(folder: Path) -> bool:
    """Whether a folder, or one below it, holds an array beside a sidecar."""
    for _, _, names in os.walk(folder, onerror=_fail):
        held = set(names)
        if any(name.endswith(SIDECAR) and name.removesuffix(SIDECAR) + ARRAY in held for name in names):
            return True
    return False


def _fail(error: OSError) -> NoReturn:
    raise error
