"""Garbage: what lies in a features folder and nobody needs; found first, and deleted only when that is asked for.

Nothing is taken that is not understood: arrays of another kind, files that are no sidecars, links and what is behind
them, whatever a process is at work on, and folders without a sidecar of their own extractor. Features that others made
are never among it, since nobody could make them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import UserError
from ...extractors import spec_of
from ...extractors.precision import fingerprint_of
from ...files import leftovers
from ...leases import beside, remove_if_stale, stale, try_acquire
from ..datasets import locate
from ..features.sidecar import Sidecar
from ..features.store import FeatureStore
from ..footage.calibration import DRAWN_FOOTAGE
from ..videos.sources import Search, VideoSource
from .config import GarbageConfig
from .filing import File, Filed, Filing, stores_in, video_of
from .work import is_at_work, is_young

Kind = Literal[
    "leftover",  # a temporary file of a process that is gone
    "lease",  # of a process that is gone
    "array without a sidecar",
    "sidecar without an array",
    "other fingerprint",
    "video is gone",
]
CANNOT = "cannot be looked into"  # of a folder that `search` passed over


@dataclass(frozen=True)
class Garbage:
    """Files that belong together and may go.

    Attributes:
        kind: why.
        files: in the order in which they go.
        filed: what they are; None where they are no features.
        detail: the other fingerprint.
    """

    kind: Kind
    files: tuple[File, ...]
    filed: Filed | None = None
    detail: str = ""

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.size for file in self.files)


@dataclass
class Heap:
    """What may go of one extractor.

    Attributes:
        store: its folder.
        garbage: in order.
        present: the fingerprint that its features would have now; None where that was not asked.
        kept: what looks as if it might go and was not understood, and why, a line each.
    """

    store: FeatureStore
    garbage: list[Garbage] = field(default_factory=list)
    present: str | None = None
    kept: list[str] = field(default_factory=list)


@dataclass
class Disposal:
    """What deleting came to.

    Attributes:
        files: how many were deleted.
        size: theirs, in bytes.
        kept: what was left alone because it has changed since it was found, a line each.
        failed: what could not be deleted, a line each.
    """

    files: int = 0
    size: int = 0
    kept: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def find_garbage(features: Path, config: GarbageConfig, videos: Search | None = None) -> list[Heap]:
    """What lies in a features folder and may go; nothing is changed.

    Args:
        features: the folder that `xelvad extract` filled.
        config: of which extractors, and which features.
        videos: what `search` found, if features of videos that are not among it are to go.

    Returns:
        What may go, by extractor.

    Raises:
        UserError: there are no features there, the extractor is unknown, its weights are not at hand, or it cannot be
            told which videos are gone.
        OSError: a folder cannot be looked into.
    """
    return [_heap(store, config, videos) for store in stores_in(features, config.extractor)]


def delete(heap: Heap) -> Disposal:
    """Delete what was found, and nothing else: what has changed since, or is being worked on, stays.

    Args:
        heap: what `find_garbage` found.

    Returns:
        What came of it; one that cannot be deleted does not stop the others.
    """
    result = Disposal()
    inside = heap.store.folder.resolve()
    for garbage in heap.garbage:
        first = garbage.files[0].path
        try:
            if not first.parent.resolve().is_relative_to(inside):
                why: str | None = "its folder has become a link"
            else:
                why = _delete(heap.store, garbage)
        except OSError as error:
            result.failed.append(f"{error.filename or first}: cannot be deleted ({error.strerror or error})")
            continue
        if why is None:
            result.files += len(garbage.files)
            result.size += garbage.size
        else:
            result.kept.append(f"{first}: {why}")
    return result


def _delete(store: FeatureStore, garbage: Garbage) -> str | None:
    """Delete files that belong together; says why they stay, or None."""
    if garbage.kind == "lease":
        return None if remove_if_stale(garbage.files[0].path) else "somebody holds it again"
    filed, lease = garbage.filed, None
    if filed is not None:
        lease = try_acquire(beside(store.array_path(filed.name)))
        if lease is None:
            return "another process is at work on it"
    with lease or nullcontext():
        if filed is None:
            is_as_found = all(file.is_as_seen for file in garbage.files)
        else:  # and what is not there must not have come
            is_as_found = Filed.at(store, filed.name) == filed
        if not is_as_found:
            return "it has changed since it was found"
        for file in garbage.files:
            file.path.unlink()
    return None


# --- finding ---------------------------------------------------------------------------------------------------------


def _heap(store: FeatureStore, config: GarbageConfig, videos: Search | None) -> Heap:
    heap = Heap(store)
    if store.folder.is_symlink():
        heap.kept.append(f"{store.folder}: a link, which is not followed; name the folder that it leads to")
        return heap
    filing = Filing.of(store)
    heap.kept += [f"{path}: a link, which is not followed" for path in filing.linked]
    if not any(_sidecar(filed, store.extractor) for filed in filing.filed):
        heap.kept.append(f"{store.folder}: nothing in it is known to be ours: there is no sidecar of {store.extractor}")
        return heap
    heap.garbage += _left(filing)
    whole = list(_orphans(filing, heap))
    if config.other_fingerprints:
        spec = spec_of(store.extractor)
        heap.present = fingerprint_of(spec, config.weights, config.precision, DRAWN_FOOTAGE)
    sidecars = _sidecars(whole, heap) if config.other_fingerprints or videos is not None else {}
    if config.other_fingerprints:
        others = [name for name, (_, sidecar) in sidecars.items() if sidecar.fingerprint != heap.present]
        for filed, sidecar in [sidecars.pop(name) for name in others]:
            heap.garbage.append(Garbage("other fingerprint", filed.files, filed, sidecar.fingerprint))
    if videos is not None:
        gone = _gone(store, {name: video_of(store, name, sidecar) for name, (_, sidecar) in sidecars.items()}, videos)
        heap.garbage += [Garbage("video is gone", sidecars[name][0].files, sidecars[name][0]) for name in gone]
    return heap


def _left(filing: Filing) -> Iterator[Garbage]:
    """What processes that were killed have left behind."""
    for folder in filing.folders:
        for path in leftovers(folder):
            file = File.at(path)
            if file is not None and not file.is_link:
                yield Garbage("leftover", (file,))
        for path in stale(folder):
            file = File.at(path)
            if file is not None and not file.is_link:
                yield Garbage("lease", (file,))


def _orphans(filing: Filing, heap: Heap) -> Iterator[Filed]:
    """Add halves of features to the heap; yields those that are whole."""
    store = filing.store
    for filed in filing.filed:
        if any(file.is_link for file in filed.files):
            heap.kept.append(f"{filed.files[-1].path}: a link, or beside one")
        elif len(filed.files) == 2:
            yield filed
        elif not _is_ours(store, filed):
            heap.kept.append(
                f"{filed.files[0].path}: no {'sidecar' if filed.array is None else 'feature file'} of ours"
            )
        elif is_at_work(store, filed):
            why = "it came within the last hour" if is_young(filed) else "a process is at work on it"
            heap.kept.append(f"{filed.files[0].path}: half of a feature file, but {why}")
        elif filed.array is None:
            heap.garbage.append(Garbage("sidecar without an array", filed.files, filed))
        else:
            heap.garbage.append(Garbage("array without a sidecar", filed.files, filed))


def _sidecars(whole: Sequence[Filed], heap: Heap) -> dict[str, tuple[Filed, Sidecar]]:
    """By name, features that we made, could make again, and nobody is at work on."""
    found = {}
    imported = 0
    for filed in whole:
        sidecar = _sidecar(filed, heap.store.extractor)
        if sidecar is None:
            heap.kept.append(f"{filed.files[0].path}: no sidecar of {heap.store.extractor}; xelvad verify says more")
        elif sidecar.is_imported:
            imported += 1
        elif not is_at_work(heap.store, filed):
            found[filed.name] = filed, sidecar
    if imported:
        heap.kept.append(f"{heap.store.folder}: {imported} imported feature files, which nobody could make again")
    return found


def _gone(store: FeatureStore, names: dict[str, str], videos: Search) -> list[str]:
    """The names of features whose videos are not there any more.

    Args:
        store: the features.
        names: of the videos, by that under which their features lie.
        videos: what was found. What was passed over is there, too.

    Raises:
        UserError: a folder could not be looked into, or not a single video is there.
    """
    closed = [path for path, reason in videos.passed_over.items() if reason.startswith(CANNOT)]
    if closed:
        raise UserError(f"{closed[0]}: {videos.passed_over[closed[0]]}: which videos are gone cannot be told")
    there = [*videos.videos, *(VideoSource(Path(path).as_posix(), Path(path)) for path in videos.passed_over)]
    missing = set(locate(names.values(), there).missing)
    if names and len(missing) == len(names):
        raise UserError(
            f"{store.folder}: not one of its {len(names)} videos, such as {next(iter(names.values()))}, is among "
            "--videos: is that the folder that was extracted? If they are all gone, delete the features folder"
        )
    return [name for name, video in names.items() if video in missing]


def _sidecar(filed: Filed, extractor: str) -> Sidecar | None:
    """The sidecar of features of an extractor; None where it is none, or not one of its own."""
    if filed.sidecar is None or filed.sidecar.is_link:
        return None
    try:
        sidecar = Sidecar.read(filed.sidecar.path)
    except UserError:
        return None
    return sidecar if sidecar.extractor == extractor else None


def _is_ours(store: FeatureStore, filed: Filed) -> bool:
    """Whether half of a feature file is such as we write: of the extractor, or a whole array of our kind."""
    if filed.array is None:
        return _sidecar(filed, store.extractor) is not None
    if store.array_path(filed.name) != filed.array.path:
        return False  # longer than any name of ours
    try:
        array = np.lib.format.open_memmap(filed.array.path, mode="r")  # never unpickles
    except (OSError, ValueError, EOFError, OverflowError):
        return False
    kind = array.dtype.str == "<f4" and array.ndim in (2, 3) and array.flags.c_contiguous
    return kind and filed.array.size == array.offset + array.nbytes
