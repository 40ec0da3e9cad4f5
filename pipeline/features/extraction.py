"""Extraction: videos in, feature files out; resumes where it stopped, and a bad video costs only itself.

Every video is decoded once, whatever the number of extractors, and batches mix the clips of several videos.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...errors import UserError
from ...extractors import create_extractor, spec_of
from ...extractors.weights import digest_of
from ..support.memory import keep_freed_memory
from ..support.progress import SILENT, Report
from ..videos.clips import Clipping
from ..videos.sources import VideoSource
from ..videos.stillness import Stillness
from ..videos.stream import Clip, ClipReader, Closed, Failed, Opened, Prepare
from .config import ExtractionConfig
from .sidecar import Sidecar, Timeline
from .store import FeatureStore, FeatureWriter

if TYPE_CHECKING:
    from torch import Tensor

    from ...extractors import ExtractorSpec
    from ...extractors.runtimes import Engine

# What the decoder hands on at most. Every network looks at less, and four clips of it still fit into the shared memory
# that containers have.
LARGEST_SHORT_SIDE = 480
BATCH = {"cpu": 4, "cuda": 32}
MOST_WORKERS = 8  # a GPU is fed by as many decoders as there are cores, and hardly by more than these


@dataclass
class ExtractionResult:
    """What a run of `extract` came to."""

    extracted: list[VideoSource] = field(default_factory=list)
    current: list[VideoSource] = field(default_factory=list)  # were there already
    notes: dict[str, str] = field(default_factory=dict)  # name -> what a user should know of its features
    failed: dict[str, str] = field(default_factory=dict)  # name -> why it was set aside


def extract(
    sources: Sequence[VideoSource], folder: Path, config: ExtractionConfig, report: Report = SILENT
) -> ExtractionResult:
    """Make the feature files of ``sources`` that are not there yet.

    Videos that cannot be read are set aside, with the reason, and do not stop the others.

    Args:
        sources: what `find_videos` found.
        folder: the features folder; files go to ``folder/<extractor>/<name>.npy``.
        config: how.
        report: is told how far it is.

    Raises:
        UserError: unknown extractor or weights, or the folder holds features made otherwise.
    """
    specs = [spec_of(name) for name in config.extractor]
    lengths = {spec.clip_length for spec in specs}
    if len(lengths) > 1:
        raise UserError(f"{' and '.join(config.extractor)} take clips of different length: extract one by one")
    clipping = Clipping(lengths.pop(), config.tail)
    fingerprints = {spec.name: spec.fingerprint(digest_of(spec, config.weights)) for spec in specs}
    result = ExtractionResult()
    jobs: list[_Job] = []
    for source in sources:
        missing = []
        for spec in specs:
            store = FeatureStore(folder, spec.name)
            if store.is_current(source, fingerprints[spec.name], clipping, config.reuse_static):
                store.adopt(source)
            else:
                missing.append(spec)
        if missing:
            jobs.append(_Job(source, missing))
        else:
            result.current.append(source)
    if jobs:
        _Extraction(jobs, folder, clipping, config, result, report).run()
    return result


class _AbandonedError(Exception):
    """A video's files are not to be kept."""


@dataclass
class _Row:
    """A clip's features, from the moment that it is read."""

    job: _Job
    inputs: Tensor | None
    times: int = 1  # how many clips in a row have these features
    features: NDArray[np.float32] | None = None  # until computed; then the inputs are dropped


@dataclass
class _Job:
    """One video on its way."""

    source: VideoSource
    specs: list[ExtractorSpec]
    clips: int = 0
    waiting: int = 0  # rows that are not computed
    closed: Closed | None = None
    failed: bool = False
    reused: list[int] = field(default_factory=list)
    files: ExitStack = field(default_factory=ExitStack)
    writers: dict[str, FeatureWriter] = field(default_factory=dict)
    last: dict[str, _Row] = field(default_factory=dict)

    def finish(self) -> None:
        """All files are whole: put them in place, and keep nothing."""
        self.files.close()
        self.closed = None
        self.writers.clear()
        self.last.clear()

    def abandon(self) -> None:
        """Let what was written of this video vanish, unless it is finished."""
        with suppress(_AbandonedError), self.files:
            raise _AbandonedError

    def write(self, extractor: str, row: _Row) -> None:
        """Append the features of a row, as often as it stands for a clip."""
        assert row.features is not None
        self.writers[extractor].append(np.repeat(row.features[None], row.times, axis=0))


class _ClipBatches:
    """Runs one extractor over clips of all videos, in batches; one is under way while the next one gathers."""

    def __init__(self, engine: Engine, size: int) -> None:
        self.engine, self.size = engine, size
        self.rows: list[_Row] = []
        self.under_way: tuple[list[_Row], Tensor] | None = None

    def add(self, row: _Row) -> list[_Row]:
        """Take a row; returns those that have been computed since."""
        self.rows.append(row)
        return self.advance() if len(self.rows) == self.size else []

    def advance(self) -> list[_Row]:
        """Start with what has gathered, so that the device does not wait, and collect what was under way before."""
        started = None
        if self.rows:
            started = self.rows, self.engine.start([row.inputs for row in self.rows if row.inputs is not None])
            for row in self.rows:
                row.inputs = None
        computed, self.rows, self.under_way = self.under_way, [], started
        if computed is None:
            return []
        rows, features = computed
        for row, of_clip in zip(rows, self.engine.finish(features), strict=True):
            row.features = of_clip
        return rows


class _Extraction:
    """A run: events of the reader in, feature files out."""

    def __init__(
        self,
        jobs: list[_Job],
        folder: Path,
        clipping: Clipping,
        config: ExtractionConfig,
        result: ExtractionResult,
        report: Report,
    ) -> None:
        self.jobs, self.folder, self.clipping, self.config, self.result = jobs, folder, clipping, config, result
        self.batches = _start_engines(sorted({spec.name for job in jobs for spec in job.specs}), config, report)
        kind = next(iter(self.batches.values())).engine.device.type
        workers = config.workers or (1 if kind == "cpu" else min(os.cpu_count() or 1, MOST_WORKERS))
        self.progress = report.progress("extracting", len(jobs), "clips")
        sources = [job.source for job in jobs]
        self.reader = ClipReader(sources, clipping, LARGEST_SHORT_SIDE, self._prepare_for, workers)

    def run(self) -> None:
        """Make all feature files. What was being written when something goes wrong vanishes."""
        import torch

        threads = torch.get_num_threads()
        try:
            with self.progress, closing(self.reader.events()) as events:
                for event in events:
                    self._take(event)
                self._computed_all()
        finally:
            torch.set_num_threads(threads)  # the readers' single thread is not for those who come after
            for job in self.jobs:
                job.abandon()

    def _prepare_for(self, number: int) -> Prepare[dict[str, Tensor] | None]:
        """What a reader's thread does with each clip of a video: its inputs for every network, None for a still one."""
        import torch

        torch.set_num_threads(1)  # in this thread: a team of its own would wake up beside the network's
        specs = self.jobs[number].specs
        stillness = Stillness(self.config.reuse_static) if self.config.reuse_static else None

        def prepare(clip: NDArray[np.uint8]) -> dict[str, Tensor] | None:
            if stillness is not None and stillness.is_still(clip):
                return None
            return {spec.name: spec.preprocessing(clip[None])[0] for spec in specs}

        return prepare

    def _take(self, event: Opened | Clip[dict[str, Tensor] | None] | Closed | Failed) -> None:
        job = self.jobs[event.number]
        if isinstance(event, Opened):
            self._open(job, event)
        elif isinstance(event, Clip):
            self._add(job, event.prepared)
        elif isinstance(event, Closed):
            job.closed = event
            self._finish_if_done(job)
        else:
            self._fail(job, event)

    def _open(self, job: _Job, event: Opened) -> None:
        self.progress.start(job.source.name, self.clipping.count(event.info.declared_frames))
        for spec in job.specs:
            store = FeatureStore(self.folder, spec.name)
            file = store.write(job.source.name, spec.feature_dim, spec.crops)
            job.writers[spec.name] = job.files.enter_context(file)
            crop, size = spec.preprocessing.crop, (event.info.width, event.info.height)
            if min(size) < crop:
                small = f"{size[0]}x{size[1]} pixels, enlarged: {spec.name} looks at {crop}x{crop}"
                self._note(job, small)

    def _note(self, job: _Job, text: str) -> None:
        before = self.result.notes.get(job.source.name)
        self.result.notes[job.source.name] = f"{before}; {text}" if before else f"{job.source.path}: {text}"

    def _add(self, job: _Job, prepared: dict[str, Tensor] | None) -> None:
        if prepared is None:
            job.reused.append(job.clips)
        for spec in job.specs:
            name = spec.name
            if prepared is not None:
                job.last[name] = _Row(job, prepared[name])
                job.waiting += 1
                self._computed(name, self.batches[name].add(job.last[name]))
            elif job.last[name].features is None:
                job.last[name].times += 1
            else:
                job.last[name].times = 1
                job.write(name, job.last[name])
        job.clips += 1
        self.progress.advance()

    def _computed(self, extractor: str, rows: list[_Row]) -> None:
        for row in rows:
            if not row.job.failed:
                row.job.write(extractor, row)
                row.job.waiting -= 1
        for job in {id(row.job): row.job for row in rows}.values():
            self._finish_if_done(job)

    def _computed_all(self) -> None:
        for name, batches in self.batches.items():
            while batches.rows or batches.under_way:
                self._computed(name, batches.advance())

    def _finish_if_done(self, job: _Job) -> None:
        if job.closed is None or job.waiting:
            return
        end, (size, modified) = job.closed, job.closed.stamp
        for spec in job.specs:
            engine = self.batches[spec.name].engine
            job.writers[spec.name].finish(
                Sidecar(
                    video=job.source.name,
                    video_bytes=size,
                    video_modified=modified,
                    video_sha256=end.sha256,
                    frames=len(end.times),
                    declared_frames=end.summary.info.declared_frames,
                    salvaged_frames=end.summary.salvaged_frames,
                    timeline=Timeline.of(end.times, end.summary.info.frame_rate),
                    clipping=self.clipping,
                    extractor=spec.name,
                    fingerprint=engine.extractor.fingerprint,
                    feature_dim=spec.feature_dim,
                    decoder=end.summary.decoder,
                    version=__version__,
                    crops=spec.crops,
                    runtime=engine.description,
                    reuse_static=self.config.reuse_static,
                    reused=tuple(job.reused),
                )
            )
        job.finish()
        self.result.extracted.append(job.source)
        decoded, declared = end.summary.decoded_frames, end.summary.info.declared_frames
        if decoded < declared:
            self._note(job, f"only {decoded} of {declared} frames can be decoded")
        self.progress.finish(job.source.name, job.clips)

    def _fail(self, job: _Job, event: Failed) -> None:
        job.failed = True
        job.abandon()
        self.result.failed[job.source.name] = str(event.error)
        self.progress.say(f"{job.source.name}: set aside")
        self.progress.finish(job.source.name, job.clips)


def _start_engines(extractors: Sequence[str], config: ExtractionConfig, report: Report) -> dict[str, _ClipBatches]:
    from ...extractors.runtimes import Engine

    keep_freed_memory()  # before anything is computed, which starts threads
    started = {}
    for name in extractors:
        engine = Engine(create_extractor(name, config.weights), config.runtime, config.device)
        report.say(f"{name}: {engine.description}")
        started[name] = _ClipBatches(engine, config.batch or BATCH.get(engine.device.type, BATCH["cpu"]))
    return started
