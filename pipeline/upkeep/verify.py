"""Verifying: whether every feature file is what was written, and of the video that it was made of.

Each sidecar is parsed, each array read as a whole, in pieces: header and size against the sidecar, every number finite,
and the digest that was taken when it was written. Files of before there were digests go without.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..datasets import locate
from ..features.sidecar import Sidecar
from ..features.store import Features, FeatureStore
from ..support.progress import SILENT, Progress, Report
from ..videos.identity import digest, stamp
from ..videos.sources import VideoSource
from .config import VerifyConfig
from .filing import ARRAY, LISTED, Filed, Filing, stores_in, video_of
from .work import is_at_work

PIECE_NUMBERS = 1 << 22  # 16 MiB at a time
LOOKS = 3  # at a file that changes while it is looked at


@dataclass
class Verification:
    """What verifying the features of an extractor came to.

    Attributes:
        extractor: its name.
        whole: files with which nothing is wrong; those of which the video is gone or another count as well.
        undigested: of these, how many have no digest of their features.
        at_work: names that a process is at work on just now, which were left alone.
        origins: how many files have which fingerprint.
        troubles: what is wrong, where, and what to do about it, a line each.
        videos: with videos to compare with, what came of that.
    """

    extractor: str
    whole: int = 0
    undigested: int = 0
    at_work: list[str] = field(default_factory=list)
    origins: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    videos: Comparison | None = None


@dataclass
class Comparison:
    """What comparing features with videos came to.

    Attributes:
        same: files whose video is the one that they were made of.
        imported: files that others made, which do not say of which bytes.
        without: videos that have no features.
    """

    same: int = 0
    imported: int = 0
    without: int = 0


@dataclass(frozen=True)
class _Made:
    """What a sidecar says of its video."""

    path: Path  # of the sidecar
    video: str
    stamp: tuple[int, int]
    sha256: str
    is_imported: bool


def verify(
    features: Path, config: VerifyConfig, videos: Sequence[VideoSource] | None = None, report: Report = SILENT
) -> list[Verification]:
    """Look at every feature file in a folder.

    Memory does not grow with the length of videos, and by some hundred bytes with each video.

    Args:
        features: the folder that `xelvad extract` filled.
        config: which extractors, and how thoroughly videos are compared.
        videos: what `find_videos` found, to compare with; None compares with none.
        report: is told how far it is.

    Returns:
        What came of it, by extractor.

    Raises:
        UserError: there are no features there.
        OSError: a folder cannot be looked into.
    """
    found = []
    for store in stores_in(features, config.extractor):
        result, made = Verification(store.extractor), list[_Made]()
        filing = Filing.of(store)
        result.troubles += [f"{path}: a link to a folder, which was not looked into" for path in filing.linked]
        with report.progress("verifying", len(filing.filed), "clips") as progress:
            for filed in filing.filed:
                progress.start(filed.name)
                _look(store, filed, result, made, progress)
                progress.finish()
        if videos is not None:
            result.videos = _compare(made, videos, config.deep, result.troubles, report)
        found.append(result)
    return found


def _look(store: FeatureStore, filed: Filed, result: Verification, made: list[_Made], progress: Progress) -> None:
    """Look at what lies under a name; again if it was exchanged meanwhile."""
    for _ in range(LOOKS):
        try:
            features = _checked(store, filed, progress)
        except UserError as error:
            trouble = str(error)
        except OSError as error:
            where = error.filename or store.array_path(filed.name)
            trouble = (
                f"{where}: cannot be read ({error.strerror or error}); mend the disk, or delete it and extract again"
            )
        else:
            result.whole += 1
            result.undigested += features.sidecar.features_sha256 is None
            result.origins[features.sidecar.fingerprint] += 1
            made.append(_made(store, filed.name, features.sidecar))
            return
        if is_at_work(store, filed):
            break
        now = Filed.at(store, filed.name)
        if now == filed:
            result.troubles.append(trouble)
            return
        filed = now
        if not filed.files:
            return  # taken away
    result.at_work.append(filed.name)


def _checked(store: FeatureStore, filed: Filed, progress: Progress) -> Features:
    """Features of which every number was looked at.

    Raises:
        UserError: says what is wrong with them, where, and what to do.
        OSError: they cannot be read.
    """
    gc = "delete it, as xelvad gc does, and extract the video again"
    if filed.sidecar is None:
        raise UserError(f"{store.folder / filed.name}{ARRAY}: has no sidecar, so it counts for nothing; {gc}")
    sidecar = Sidecar.read(filed.sidecar.path)
    if filed.array is None:
        raise UserError(f"{filed.sidecar.path}: the array beside it is gone; {gc}")
    features, total = store.read(filed.name), hashlib.sha256()
    progress.expect(features.clips)
    for piece in features.pieces(max(1, PIECE_NUMBERS // sidecar.feature_dim)):
        total.update(np.ascontiguousarray(piece, "<f4").data)
        progress.advance(len(piece))
    if features.sidecar.features_sha256 not in (None, total.hexdigest()):
        raise UserError(f"{features.path}: not the features that were written; delete it and extract the video again")
    return features


def _made(store: FeatureStore, name: str, sidecar: Sidecar) -> _Made:
    return _Made(
        path=store.sidecar_path(name),
        video=video_of(store, name, sidecar),
        stamp=(sidecar.video_bytes, sidecar.video_modified),
        sha256=sidecar.video_sha256,
        is_imported=sidecar.is_imported,
    )


def _compare(
    made: Sequence[_Made], videos: Sequence[VideoSource], deep: bool, troubles: list[str], report: Report
) -> Comparison:
    """Hold features against the videos of their names; adds what is wrong to ``troubles``."""
    location = locate([each.video for each in made], videos)
    result = Comparison(without=len(location.extra))
    with report.progress("comparing", len(made), "videos") as progress:
        for each in made:
            progress.start(each.video, 1)
            if each.is_imported:
                result.imported += 1
            elif each.video in location.found:
                trouble = _difference(each, location.found[each.video], deep)
                result.same += trouble is None
                troubles += [] if trouble is None else [f"{each.path}: {trouble}"]
            else:
                alike = ", ".join(map(str, location.unclear.get(each.video, [])[:LISTED]))
                gone = f"there is no video {each.video} any more; xelvad gc --videos removes features of such"
                unclear = (
                    f"{each.video} cannot be told from others of its name: {alike}; give the folder it was found in"
                )
                troubles.append(f"{each.path}: {unclear if alike else gone}")
            progress.advance()
            progress.finish()
    return result


def _difference(made: _Made, video: Path, deep: bool) -> str | None:
    """How a video differs from the one of its name that was extracted; None where it does not."""
    again = "xelvad extract makes its features again"
    try:
        (size, modified), (old_size, old_modified) = stamp(video), made.stamp
        if size != old_size:
            return f"{video} has changed since, from {old_size} to {size} bytes; {again}"
        if (deep or modified != old_modified) and digest(video) != made.sha256:
            return f"{video} has changed since, its digest is another; {again}"
    except OSError as error:
        return f"{video} cannot be read ({error.strerror or error}); mend that, and verify again"
    return None
