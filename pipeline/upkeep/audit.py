"""The audit: a data set on disk against its lists, before anyone spends a day on it.

Only headers and the ends of files are read, and digests made only of files of equal size, so that thousands of videos
take seconds. ``deep`` decodes every video as well, which counts the frames that are really there.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from ...errors import UserError
from ...files import write_text
from ..datasets import Counts, Dataset, DatasetChoice, LabelledVideo, Location, any_fold, count, frame_truth, locate
from ..features.remote.address import FeaturesFolder
from ..features.remote.store import open_store
from ..features.store import Features, FeatureStore
from ..support.progress import SILENT, Report
from ..videos.identity import digest, stamp
from ..videos.probe import VideoError, is_cut_off
from ..videos.reader import open_video
from ..videos.sources import VideoSource, search
from ..videos.worker import Decoder
from .config import AuditConfig

READERS = 8  # files that are opened at once: disks and networks answer several questions as fast as one
SHORT_SIDE = 32  # pixels to which frames are scaled that are only counted
BLOCK = 64  # frames
RATE_TOLERANCE = 0.01  # 29.97 is 30

Kind = Literal[
    "list",  # not as published
    "missing",
    "unclear",  # which file is meant
    "extra",
    "duplicate",
    "unreadable",
    "cut off",
    "annotation",  # does not fit the video
    "frame rate",
    "features",
    "passed over",  # what lies among the videos and is none that can be read
    "overlong",  # an annotation that is known to run past the video's end: no trouble
    "decoded",  # what its decoder met of frames that are hidden or made up: no trouble either
]


HARMLESS = ("overlong", "decoded")


@dataclass(frozen=True)
class Finding:
    """Something about one video, or about the data set if ``video`` is empty."""

    kind: Kind
    video: str
    detail: str


@dataclass(frozen=True)
class VideoFacts:
    """What a video file says of itself, and what was seen of it.

    Attributes:
        frames: how many it has; None where only decoding could tell.
        frame_rate: frames per second; None of a folder of frames, which has none of its own.
    """

    frames: int | None
    frame_rate: float | None


@dataclass(frozen=True)
class Audit:
    """What an audit came to.

    Attributes:
        dataset: its name.
        listed: videos in the lists.
        official: videos in the published data set; None where it is not a published one.
        found: videos that lie where they were looked for; None where none were looked for.
        features: videos with features that can be read; None where none were looked for.
        frames: of all videos whose number of frames is known.
        unknown_frames: how many videos' number of frames only decoding could tell.
        anomalous_share: of the frames of all test videos, in [0, 1]; None where it is not known of every one.
        frame_rates: how many videos have which frame rate, in frames per second.
        troubles: what must be put right.
        notes: what should be known, and is as it should be.
    """

    dataset: str
    listed: Counts
    official: Counts | None
    found: Counts | None
    features: Counts | None
    frames: int
    unknown_frames: int
    anomalous_share: float | None
    frame_rates: dict[str, int]
    troubles: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def audit(
    choice: DatasetChoice,
    features: FeaturesFolder | None,
    config: AuditConfig,
    *,
    test_fold: str | None = None,
    report: Report = SILENT,
) -> Audit:
    """Compare a data set with its lists.

    Args:
        choice: the labels, and the folder with the videos. Without one, a manifest's videos are looked for in its own
            folder, unless ``features`` alone are to be audited.
        features: a features folder that is to be audited.
        config: what is looked at.
        test_fold: of a manifest with folds; any by default.
        report: is told how far it is.

    Raises:
        UserError: the labels cannot be read, or there are neither videos nor features.
    """
    fold = any_fold(choice.manifest) if choice.manifest is not None and test_fold is None else test_fold
    dataset = choice.labels(fold)
    folder = choice.videos
    if folder is None and features is None:
        if choice.manifest is None:
            raise UserError(
                "nothing to audit: --videos names the folder with the videos, --features that with features"
            )
        folder = choice.manifest.parent
    findings = list(_differences(dataset))
    facts: dict[str, VideoFacts] = {}
    lengths: dict[str, int] = {}
    found = of_features = None
    if folder is not None:
        location, wrong = _look_at_folder(dataset, folder)
        facts, unfit = _look_at_videos(dataset, location.found, config.deep, report)
        findings += wrong + unfit
        found = _count(dataset, location.found)
        lengths = {name: fact.frames for name, fact in facts.items() if fact.frames is not None}
    if features is not None:
        of_them, wrong = _look_at_features(dataset, open_store(features, config.extractor), lengths, report)
        findings += wrong
        of_features = _count(dataset, of_them)
        lengths = of_them | lengths
    rates = Counter(f"{fact.frame_rate:.2f}" for fact in facts.values() if fact.frame_rate is not None)
    return Audit(
        dataset=dataset.name,
        listed=count(dataset.videos),
        official=dataset.official.counts if dataset.official else None,
        found=found,
        features=of_features,
        frames=sum(lengths.values()),
        unknown_frames=len(facts.keys() - lengths.keys()),
        anomalous_share=_anomalous_share(dataset.of("test"), lengths),
        frame_rates=dict(rates.most_common()),
        troubles=tuple(finding for finding in findings if finding.kind not in HARMLESS),
        notes=tuple(finding for finding in findings if finding.kind in HARMLESS),
    )


def write_audit(audit: Audit, path: Path) -> None:
    """Write everything that was found, as JSON."""
    write_text(path, json.dumps(asdict(audit), indent=2, ensure_ascii=False) + "\n")


def _anomalous_share(videos: Sequence[LabelledVideo], lengths: Mapping[str, int]) -> float | None:
    try:
        truths = [frame_truth(video, lengths[video.name]) for video in videos]
    except (KeyError, UserError):  # a video that is not there or does not fit, each of which is a finding
        return None
    frames = sum(map(len, truths))
    return sum(int(truth.sum()) for truth in truths) / frames if frames else None


def _count(dataset: Dataset, names: Mapping[str, object]) -> Counts:
    return count([video for video in dataset.videos if video.name in names])


# --- lists and places ------------------------------------------------------------------------------------------------


def _differences(dataset: Dataset) -> Iterator[Finding]:
    """Where the lists are not those that were published."""
    if dataset.official is None:
        return
    listed, published = asdict(count(dataset.videos)), asdict(dataset.official.counts)
    for kind, number in published.items():
        if listed[kind] != number:
            yield Finding(
                "list", "", f"{kind.replace('_', ', ')}: {listed[kind]} in the lists, {number} were published"
            )


def _look_at_folder(dataset: Dataset, folder: Path) -> tuple[Location, list[Finding]]:
    """Find the videos, and see what is missing, twice there, or too many."""
    found = search([folder])
    location = locate([video.name for video in dataset.videos], found.videos)
    passed_over = [Finding("passed over", path, why) for path, why in found.passed_over.items()]
    return location, [*_misplaced(location), *_duplicates(found.videos, location), *passed_over]


def _misplaced(location: Location) -> Iterator[Finding]:
    for name in location.missing:
        yield Finding("missing", name, "not there")
    for name, paths in location.unclear.items():
        yield Finding("unclear", name, f"cannot be told from others of its name: {', '.join(map(str, paths))}")
    for source in location.extra:
        yield Finding("extra", source.name, "in no list")


def _duplicates(sources: Sequence[VideoSource], location: Location) -> Iterator[Finding]:
    """Files of the same content: digests are made only of those of equal size."""
    names = {path: name for name, path in location.found.items()}
    sizes: defaultdict[int, list[VideoSource]] = defaultdict(list)
    for source in sources:
        sizes[stamp(source.path)[0]].append(source)
    contents: defaultdict[str, list[VideoSource]] = defaultdict(list)
    for size, alike in sizes.items():
        for source in alike if size and len(alike) > 1 else []:
            contents[digest(source.path)].append(source)
    for alike in contents.values():
        if len(alike) > 1:
            first, *others = alike
            detail = f"the same content as {', '.join(source.name for source in others)}"
            yield Finding("duplicate", names.get(first.path, first.name), detail)


# --- videos ----------------------------------------------------------------------------------------------------------


def _look_at_videos(
    dataset: Dataset, paths: Mapping[str, Path], deep: bool, report: Report
) -> tuple[dict[str, VideoFacts], list[Finding]]:
    """Open every video, or decode it, and see whether it is whole and fits its annotation."""
    with ThreadPoolExecutor(READERS) as readers:
        looks = dict(zip(paths, readers.map(_open, paths, paths.values()), strict=True))
    if deep:
        looks |= _decode({name: path for name, path in paths.items() if looks[name][0] is not None}, looks, report)
    facts = {name: fact for name, (fact, _) in looks.items() if fact is not None}
    findings = [finding for _, finding in looks.values() if finding is not None]
    for video in dataset.videos:
        if video.name in facts:
            findings += _unfit(video, facts[video.name], dataset)
    return facts, findings


Look = tuple[VideoFacts | None, Finding | None]


def _open(name: str, path: Path) -> Look:
    """What a video's header says; nothing is decoded."""
    try:
        with open_video(path) as video:
            info = video.info
        cut_off = is_cut_off(path)
    except VideoError as error:
        return None, Finding("unreadable", name, str(error))
    facts = VideoFacts(info.declared_frames or None, None if path.is_dir() else info.frame_rate)
    if not cut_off:
        return facts, None
    promised = f"{info.declared_frames} frames" if info.declared_frames else "frames"
    return replace(facts, frames=None), Finding(
        "cut off", name, f"{path}: not all the {promised} of its header are there"
    )


def _decode(paths: Mapping[str, Path], opened: Mapping[str, Look], report: Report) -> dict[str, Look]:
    """Count the frames of videos that could be opened."""
    looks: dict[str, Look] = {}
    with Decoder() as decoder, report.progress("decoding", len(paths), "frames") as progress:
        for name, path in paths.items():
            progress.start(name)
            try:
                with decoder.read(path, SHORT_SIDE, BLOCK) as video:
                    declared = video.info.declared_frames
                    progress.expect(declared)
                    for block in video.blocks():
                        progress.advance(len(block.times))
                decoded, rate = video.summary.decoded_frames, None if path.is_dir() else video.info.frame_rate
                short = Finding("cut off", name, f"{path}: only {decoded} of {declared} frames can be decoded")
                looks[name] = VideoFacts(decoded, rate), short if decoded < declared else opened[name][1]
            except VideoError as error:
                looks[name] = None, Finding("unreadable", name, str(error))
            progress.finish()
    return looks


def _unfit(video: LabelledVideo, facts: VideoFacts, dataset: Dataset) -> Iterator[Finding]:
    """Where a video does not fit its annotation, or is not as published."""
    if facts.frames is not None:
        yield from _misfit(video, facts.frames)
    wanted = dataset.official.frame_rate if dataset.official else None
    if wanted and facts.frame_rate and abs(facts.frame_rate / wanted - 1) > RATE_TOLERANCE:
        detail = f"{facts.frame_rate:.2f} frames per second, published with {wanted:g}: annotated frames may not fit"
        yield Finding("frame rate", video.name, detail)


def _misfit(video: LabelledVideo, frames: int) -> Iterator[Finding]:
    """Where an annotation does not fit a video of ``frames`` frames."""
    needed = video if video.split == "test" else replace(video, spans=video.spans or ())  # training needs no spans
    try:
        frame_truth(needed, frames)
    except UserError as error:
        yield Finding("annotation", video.name, str(error))
        return
    end = max((end for _, end in video.spans or ()), default=0)
    if end > frames:
        yield Finding("overlong", video.name, f"annotated up to frame {end} of {frames}, cut off there as is known")


# --- features --------------------------------------------------------------------------------------------------------


def _look_at_features(
    dataset: Dataset, store: FeatureStore, seen: Mapping[str, int], report: Report
) -> tuple[dict[str, int], list[Finding]]:
    """The number of frames of every video with features that can be read, and what is wrong with features.

    Args:
        dataset: the labels.
        store: the features.
        seen: the number of frames of videos that were looked at.
        report: is told how far it is.
    """
    lengths: dict[str, int] = {}
    findings: list[Finding] = []
    filed: dict[str, str] = {}
    first: Features | None = None
    with report.progress("reading features", 1, "videos") as progress:
        progress.start(store.extractor, len(dataset.videos))
        for video in dataset.videos:
            try:
                place = store.find(video.name)
                if filed.setdefault(place, video.name) != video.name:
                    raise UserError(f"{place}: the features of {filed[place]} would be taken for it as well")
                features = store.read(place, first.sidecar.fingerprint if first else None)
                for _ in features.pieces():
                    pass  # looked at for NaN and infinite values
            except UserError as error:
                findings.append(Finding("features", video.name, str(error)))
                continue
            finally:
                progress.advance()
            first = first or features
            lengths[video.name] = frames = features.sidecar.frames
            findings += [Finding("features", video.name, detail) for detail in _unlike(features, first)]
            findings += [Finding("decoded", video.name, note) for note in features.sidecar.notes]
            if video.name not in seen:
                findings += _misfit(video, frames)
            elif seen[video.name] != frames and features.sidecar.declared_frames:  # else imported, of unknown length
                detail = f"made of {frames} frames, the video has {seen[video.name]}"
                findings.append(Finding("features", video.name, detail))
        progress.finish()
    return lengths, findings


def _unlike(features: Features, first: Features) -> Iterator[str]:
    """How features differ from the first ones, where all must be alike."""
    if features.shape[1:] != first.shape[1:]:
        yield f"{features.path}: {features.shape}, but {first.path} is {first.shape}"
    if features.sidecar.clipping != first.sidecar.clipping:
        yield f"{features.path}: made with {features.sidecar.clipping}, but {first.path} with {first.sidecar.clipping}"
