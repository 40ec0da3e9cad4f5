"""Extraction: videos in, feature files out; resumes where it stopped, and a bad video costs only itself.

Every video is decoded once, whatever the number of extractors, and batches mix the clips of several videos. Several
processes may fill one folder, on one machine or on several: each takes a lease on a video before it reads it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...extractors import spec_of
from ...extractors.batching import ClipBatches
from ...extractors.engines import Engines
from ..footage.calibration import DRAWN_FOOTAGE
from ..support.behind import Behind
from ..support.memory import keep_freed_memory
from ..support.progress import SILENT, Report
from ..videos.sources import VideoSource
from ..videos.stillness import Stillness
from ..videos.stream import Clip, ClipReader, Closed, Failed, Opened, Prepare
from .config import ExtractionConfig
from .remote.address import FeaturesFolder
from .sidecar import Sidecar, Timeline
from .store import FeatureWriter
from .tasks import ExtractionResult, Task, clear, clipping_of, of_shard, places_of

if TYPE_CHECKING:
    from torch import Tensor


# What the decoder hands on at most. Every network looks at less, and four clips of it still fit into the shared memory
# that containers have.
LARGEST_SHORT_SIDE = 480
BATCH = {"cpu": 4, "cuda": 32}
MOST_WORKERS = 8  # a GPU is fed by as many decoders as there are cores, and hardly by more than these
POLL_SECONDS = 1.0  # between two looks at what other processes work on


def extract(
    sources: Sequence[VideoSource], folder: FeaturesFolder, config: ExtractionConfig, report: Report = SILENT
) -> ExtractionResult:
    """Make the feature files of ``sources`` that are not there yet.

    Videos that cannot be read are set aside, with the reason, and do not stop the others; the next run passes over them
    until they change, or `ExtractionConfig.retry`. What another process is working on is waited for, and made here if
    that process ends before it is done.

    Args:
        sources: what `find_videos` found: all of it, also where only a shard of it is to be done.
        folder: the features folder; files go to ``folder/<extractor>/<name>.npy``.
        config: how.
        report: is told how far it is.

    Raises:
        UserError: unknown extractor or weights, or the folder holds features made otherwise.
        OSError: the folder cannot be written to, or is full; what was finished is kept.
    """
    places = places_of(folder, config)
    sources = of_shard(sources, config.shard)
    clear(sources, places)
    result = ExtractionResult()
    tasks = result.left_of(sources, places)
    if tasks:
        extract_tasks(tasks, config, result, report)
        for place in places:
            place.store.finish()
    return result


def extract_tasks(
    tasks: Sequence[Task],
    config: ExtractionConfig,
    result: ExtractionResult,
    report: Report = SILENT,
    engines: Engines | None = None,
    *,
    wait: bool = True,
) -> None:
    """Make the feature files of tasks that are `to_do`; as `extract`.

    Args:
        tasks: at least one.
        config: how.
        result: takes in what comes of them.
        report: is told how far it is.
        engines: what was started before, of the same configuration.
        wait: for what other processes work on; else such tasks are left, neither settled nor in ``result``.
    """
    jobs = [_Job(task) for task in tasks]
    _Extraction(jobs, config, result, report, engines or engines_of(config), wait).run()


def engines_of(config: ExtractionConfig) -> Engines:
    """Engines as a configuration wants them; none is started."""
    return Engines(config.weights, config.runtime, config.device, config.precision, DRAWN_FOOTAGE)


class _AbandonedError(Exception):
    """A video's files are not to be kept."""


@dataclass
class _Row:
    """A clip's features, from the moment that it is read."""

    job: _Job
    times: int = 1  # how many clips in a row have these features
    features: NDArray[np.float32] | None = None  # None until computed


@dataclass(slots=True)
class _Job:
    """One video on its way; there may be many thousands, of which few are under way."""

    task: Task
    clips: int = 0
    waiting: int = 0  # rows that are not computed
    closed: Closed | None = None
    failed: bool = False
    reused: list[int] = field(default_factory=list)
    files: ExitStack | None = None  # once it is opened
    writers: dict[str, FeatureWriter] = field(default_factory=dict)
    last: dict[str, _Row] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The video's."""
        return self.task.source.name

    def finish(self) -> None:
        """All files are whole: put them in place, and keep nothing."""
        self.task.settled = True
        if self.files is not None:
            self.files.close()
        self.task.release()
        self.files = self.closed = None
        self.writers.clear()
        self.last.clear()

    def abandon(self) -> None:
        """Let what was written of this video vanish, unless it is finished."""
        with ExitStack() as stack:
            stack.callback(self.task.release)
            if self.files is not None:
                with suppress(_AbandonedError), self.files:
                    raise _AbandonedError

    def write(self, extractor: str, row: _Row) -> None:
        """Append the features of a row, as often as it stands for a clip."""
        assert row.features is not None
        self.writers[extractor].append(np.repeat(row.features[None], row.times, axis=0))


class _Extraction:
    """A run: events of the reader in, feature files out."""

    def __init__(
        self,
        jobs: list[_Job],
        config: ExtractionConfig,
        result: ExtractionResult,
        report: Report,
        engines: Engines,
        wait: bool,
    ) -> None:
        self.jobs, self.config, self.result, self.report, self.wait = jobs, config, result, report, wait
        self.clipping, self.engines = clipping_of(config), engines
        self.batches: dict[str, ClipBatches[_Row]] = {}  # empty until there is something to do
        self.elsewhere: deque[_Job] = deque()  # what others have finished, as the readers' threads find out

    def run(self) -> None:
        """Make all feature files. What was being written when something goes wrong vanishes."""
        with ExitStack() as stack:
            stack.callback(self._abandon)
            places = self.jobs[0].task.places
            self.kept: Behind[_Job] = stack.enter_context(Behind(max(place.store.uploads for place in places)))
            while (claims := self._left()) is not None:
                if not self.batches:
                    self._start(stack)
                self._extract(claims)

    def _abandon(self) -> None:
        with ExitStack() as stack:
            for job in self.jobs:
                if job.files is not None or job.task.leases:
                    stack.callback(job.abandon)

    def _left(self) -> Iterator[int] | None:
        """Numbers of jobs to do here, at least one, each taken when it is asked for; None once nothing is left.

        Waits while others work on all that is left.
        """
        waiting = False
        while (first := next(claims := self._claims(), None)) is None:
            left = [job.task for job in self.jobs if not job.task.settled]
            if not left or not self.wait:
                return None
            if not waiting:
                more = f" and {len(left) - 1} more" if len(left) > 1 else ""
                self.report.say(f"waiting for {left[0].source.name}{more}: another process is at work there")
            waiting = True
            time.sleep(max([POLL_SECONDS, *(place.store.poll_seconds for place in left[0].places)]))
        return chain([first], claims)

    def _claims(self) -> Iterator[int]:
        for number, job in enumerate(self.jobs):
            if job.task.settled:
                continue
            if job.task.claim():
                yield number
            elif job.task.settled:
                self.result.count(job.task)
                self.elsewhere.append(job)

    def _start(self, stack: ExitStack) -> None:
        import torch

        stack.callback(torch.set_num_threads, torch.get_num_threads())  # the readers' single thread is for them alone
        lacking = {place.name for job in self.jobs for place in job.task.places}
        keep_freed_memory()  # before anything is computed, which starts threads
        engines = self.engines.start(sorted(lacking), self.report.say)
        kind = next(iter(engines.values())).device.type
        size = self.config.batch or BATCH.get(kind, BATCH["cpu"])
        self.batches = {name: ClipBatches(engine, size) for name, engine in engines.items()}
        self.workers = self.config.workers or (1 if kind == "cpu" else min(os.cpu_count() or 1, MOST_WORKERS))
        self.progress = stack.enter_context(self.report.progress("extracting", len(self.jobs), "clips"))

    def _extract(self, claims: Iterator[int]) -> None:
        sources = [job.task.source for job in self.jobs]
        reader = ClipReader(
            sources,
            self.clipping,
            LARGEST_SHORT_SIDE,
            self._prepare_for,
            self.workers,
            claims,
            self.config.decoder_memory,
        )
        with closing(reader.events()) as events:
            for event in events:
                self._take(event)
                self._count_kept()
                while self.elsewhere:
                    self.progress.finish(self.elsewhere.popleft().name, 0)
            self._computed_all()
        self._count_kept(wait=True)

    def _prepare_for(self, number: int) -> Prepare[dict[str, Tensor] | None]:
        """What a reader's thread does with each clip of a video: its inputs for every network, None for a still one."""
        import torch

        torch.set_num_threads(1)  # in this thread: a team of its own would wake up beside the network's
        specs = [spec_of(place.name) for place in self.jobs[number].task.places]
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
        self.progress.start(job.name, self.clipping.count(event.info.declared_frames))
        job.files = ExitStack()
        for place in job.task.places:
            spec = spec_of(place.name)
            file = place.store.write(job.name, spec.feature_dim, spec.crops)
            job.writers[spec.name] = job.files.enter_context(file)
            crop, size = spec.preprocessing.crop, (event.info.width, event.info.height)
            if min(size) < crop:
                self._note(job, f"{size[0]}x{size[1]} pixels, enlarged: {spec.name} looks at {crop}x{crop}")

    def _note(self, job: _Job, text: str) -> None:
        before = self.result.notes.get(job.name)
        self.result.notes[job.name] = f"{before}; {text}" if before else f"{job.task.source.path}: {text}"

    def _add(self, job: _Job, prepared: dict[str, Tensor] | None) -> None:
        if prepared is None:
            job.reused.append(job.clips)
        for place in job.task.places:
            name = place.name
            if prepared is not None:
                job.last[name] = _Row(job)
                job.waiting += 1
                self._computed(name, self.batches[name].add(job.last[name], prepared[name]))
            elif job.last[name].features is None:
                job.last[name].times += 1
            else:
                job.last[name].times = 1
                job.write(name, job.last[name])
        job.clips += 1
        self.progress.advance()

    def _computed(self, extractor: str, computed: list[tuple[_Row, NDArray[np.float32]]]) -> None:
        for row, features in computed:
            row.features = features
            if not row.job.failed:
                row.job.write(extractor, row)
                row.job.waiting -= 1
        for job in {id(row.job): row.job for row, _ in computed}.values():
            self._finish_if_done(job)

    def _computed_all(self) -> None:
        for name, batches in self.batches.items():
            while len(batches):
                self._computed(name, batches.advance())

    def _finish_if_done(self, job: _Job) -> None:
        if job.closed is None or job.waiting:
            return
        end, (size, modified) = job.closed, job.closed.stamp
        for spec in (spec_of(place.name) for place in job.task.places):
            engine = self.batches[spec.name].engine
            job.writers[spec.name].finish(
                Sidecar(
                    video=job.name,
                    video_bytes=size,
                    video_modified=modified,
                    video_sha256=end.sha256,
                    frames=len(end.times),
                    declared_frames=end.summary.info.declared_frames,
                    salvaged_frames=end.summary.salvaged_frames,
                    timeline=Timeline.of(end.times, end.summary.info.frame_rate),
                    clipping=self.clipping,
                    extractor=spec.name,
                    fingerprint=engine.fingerprint,
                    feature_dim=spec.feature_dim,
                    decoder=end.summary.decoder,
                    version=__version__,
                    crops=spec.crops,
                    runtime=engine.description,
                    reuse_static=self.config.reuse_static,
                    reused=tuple(job.reused),
                    notes=end.summary.notes,
                )
            )
        decoded, declared = end.summary.decoded_frames, end.summary.info.declared_frames
        if decoded < declared:
            self._note(job, f"only {decoded} of {declared} frames can be decoded")
        for note in end.summary.notes:
            self._note(job, note)
        self.kept.give(job.finish, job)

    def _count_kept(self, wait: bool = False) -> None:
        for job in self.kept.done(wait):
            for place in job.task.places:
                place.quarantine.lift(job.name)
            self.result.extracted.append(job.task.source)
            self.progress.finish(job.name, job.clips)

    def _fail(self, job: _Job, event: Failed) -> None:
        job.failed = job.task.settled = True
        for place in job.task.places:
            place.quarantine.add(job.task.source, str(event.error), job.task.stamp)
        job.abandon()
        self.result.failed[job.name] = str(event.error)
        self.progress.say(f"{job.name}: set aside")
        self.progress.finish(job.name, job.clips)
