"""Extraction on a Ray cluster: each actor is an `extract` of its own, whose networks stay, for the videos it is handed.

Paths are passed, never pixels; features go straight to the folder that all nodes see. The driver looks for what is to
do as any extraction does. Each actor takes the leases on its videos itself, so that other runs on the same folder, on
this cluster or elsewhere, keep off, and what they work on is waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import UserError
from ...extractors.weights import RANDOM
from ...leases import holder
from ..features.config import ExtractionConfig
from ..features.extraction import MOST_WORKERS, POLL_SECONDS, engines_of, extract_tasks
from ..features.extraction import extract as extract_here
from ..features.quarantine import stamp_of
from ..features.remote.address import FeaturesFolder
from ..features.tasks import ExtractionResult, Task, clear, of_shard, places_of
from ..support.progress import SILENT, Progress, Report
from ..videos.sources import VideoSource
from .actor import Elsewhere, Pulse
from .config import ClusterConfig
from .pool import Outcome, Pool, Resources
from .session import alive_nodes, session

if TYPE_CHECKING:
    from collections.abc import Iterator

HAND = 2  # videos for each of an actor's decoders, so that none is idle between two of them
CPUS = 2  # of an actor without a GPU


@dataclass(frozen=True)
class Found:
    """What came of a video on a node.

    Attributes:
        clips: that were read.
        is_new: its features were made now; else they were there.
        failed: why it cannot be read; None if it can.
        note: what a user should know of its features; None where that is nothing.
        is_busy: another process works on it.
    """

    clips: int = 0
    is_new: bool = False
    failed: str | None = None
    note: str | None = None
    is_busy: bool = False


def extract(
    sources: Sequence[VideoSource],
    folder: FeaturesFolder,
    config: ExtractionConfig,
    cluster: ClusterConfig,
    report: Report = SILENT,
) -> ExtractionResult:
    """Make the feature files of ``sources`` that are not there yet, here or on a cluster; as `features.extract`.

    On a cluster, a video during which its process died twice is set aside as well. One that no node sees is named, and
    not set aside.

    Args:
        sources: what `find_videos` found; all nodes must see them under the same paths.
        folder: the features folder, likewise.
        config: how.
        cluster: where.
        report: is told how far it is.

    Raises:
        UserError: as `features.extract`, there is no such cluster, or processes die on it whatever they do.
        OSError: as `features.extract`.
    """
    if not cluster.is_ray:
        return extract_here(sources, folder, config, report)
    if config.device.startswith("cuda:"):
        raise UserError(f"--device {config.device}: on a Ray cluster GPUs are handed out by Ray; say cuda")
    sources = [VideoSource(source.name, source.path.absolute()) for source in sources]
    folder = folder.absolute() if isinstance(folder, Path) else folder
    sources = of_shard(sources, config.shard)
    config = replace(config, weights=_everywhere(config.weights), shard=None)  # split once, here
    places = places_of(folder, config)
    clear(sources, places)
    result = ExtractionResult()
    tasks = result.left_of(sources, places)
    if tasks:
        with session(cluster, report):
            run = _Run(tasks, folder, config, cluster, result, report)
            try:
                run.run()
            finally:
                if run.deaths:
                    clear([task.source for task in tasks], places)
        for place in places:
            place.store.finish()
    return result


def _everywhere(weights: str | None) -> str | None:
    """Weights as they are called on all nodes: a file by its whole path."""
    return str(Path(weights).absolute()) if weights not in (None, RANDOM) and Path(weights or "").is_file() else weights


class _Run:
    """The driver of an extraction: hands out videos, adds up what comes of them."""

    def __init__(
        self,
        tasks: Sequence[Task],
        folder: FeaturesFolder,
        config: ExtractionConfig,
        cluster: ClusterConfig,
        result: ExtractionResult,
        report: Report,
    ) -> None:
        self.result, self.report, self.folder, self.cluster = result, report, folder, cluster
        self.tasks = {task.source.name: task for task in tasks}
        self.busy: list[Task] = []  # others work on them
        self.poison: list[tuple[Task, str]] = []  # to be set aside, once it is certain that anything works at all
        self.resources, self.config = _shares(config, cluster)
        self.works = self.waits = False
        self.deaths = 0

    def run(self) -> None:
        """Until nothing is left."""
        workers = self.config.workers or 1
        with (
            self.report.progress("extracting", len(self.tasks), "clips") as self.progress,
            Pool(
                partial(_Extractor, self.folder, self.config),
                self.resources,
                self.report,
                most=self.cluster.actors,
                hand=HAND * workers,
                found=self._found,
                advance=self.progress.advance,
            ) as pool,
        ):
            self.progress.start("on the cluster")
            for task in self.tasks.values():
                task.stamp = stamp_of(task.source)
            # Those that take longest come first: nobody is to wait for one that was begun last.
            largest_first = sorted(self.tasks.values(), key=lambda task: -(task.stamp or (0, 0))[0])
            pool.submit(task.source for task in largest_first)
            while pool.left or self.busy:
                for outcome in pool.wait(POLL_SECONDS):
                    self._take(outcome)
                self.deaths = pool.deaths
                pool.submit(self._free_again(pool))
        self._set_aside()

    def _take(self, outcome: Outcome[VideoSource, Found]) -> None:
        task, found = self.tasks[outcome.task.name], outcome.result
        if outcome.refused is not None:
            raise UserError(outcome.refused)
        if found is not None and found.is_busy:
            self.busy.append(task)
            return
        if found is None:
            self._lose(task, outcome)
        else:
            self._add(task.source, found)
            self.works = True
            self._set_aside()
        self.progress.finish(task.source.name, found.clips if found is not None else 0)

    def _add(self, source: VideoSource, found: Found) -> None:
        if found.note is not None:
            self.result.notes[source.name] = found.note
        if found.failed is not None:
            self.result.failed[source.name] = found.failed
            self.report.say(f"{source.name}: set aside")
        else:
            (self.result.extracted if found.is_new else self.result.current).append(source)

    def _lose(self, task: Task, outcome: Outcome[VideoSource, Found]) -> None:
        """No result: it kills whoever tries it, or no node sees it."""
        if outcome.lost is not None:
            reason = f"{task.source.path}: its process died or failed twice ({outcome.lost})"
            self.poison.append((task, reason))
        else:
            reason = f"{task.source.path}: {outcome.elsewhere}"
        self.result.failed[task.source.name] = reason
        self.report.say(f"{task.source.name}: given up")

    def _set_aside(self) -> None:
        """Put those down that kill; not where nothing works, and the reason is another."""
        if not self.works and len(self.poison) == len(self.tasks) > 1:
            return
        for task, reason in self.poison:
            for place in task.places:
                place.quarantine.add(task.source, reason, task.stamp)
        self.poison.clear()

    def _found(self, source: VideoSource) -> Found | None:
        """What came of a video whose actor died with it in hand: it may have been done before others were."""
        task = self.tasks[source.name]
        _look_again(task)
        if task.is_to_do():
            return None
        return Found(is_new=task.reason is None, failed=task.reason)

    def _free_again(self, pool: Pool[VideoSource, Found]) -> Iterator[VideoSource]:
        """The videos that others have let go of since, done or not."""
        if self.busy and not pool.left:
            if not self.waits:
                more = f" and {len(self.busy) - 1} more" if len(self.busy) > 1 else ""
                self.report.say(f"waiting for {self.busy[0].source.name}{more}: another process is at work there")
            self.waits = True
            time.sleep(max([POLL_SECONDS, *(place.store.poll_seconds for place in self.busy[0].places)]))
        held = [task for task in self.busy if _is_held(task)]
        free = [task for task in self.busy if task not in held]
        self.busy = held
        for task in free:
            _look_again(task)
            if task.is_to_do():
                yield task.source
            else:
                self.result.count(task)
                self.progress.finish(task.source.name, 0)


def _is_held(task: Task) -> bool:
    return any(holder(place.store.lease_on(task.source.name)) is not None for place in task.places)


def _look_again(task: Task) -> None:
    """What is known of a video's files at a URL is from a listing that was made before."""
    for place in task.places:
        place.store.refresh(task.source.name)


def _shares(config: ExtractionConfig, cluster: ClusterConfig) -> tuple[Resources, ExtractionConfig]:
    """What an actor takes of its node, and how it works there: by GPU where there are any."""
    nodes = list(alive_nodes().values())
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if config.device == "cuda" or (config.device == "auto" and with_gpu):
        share = min((int(node.get("CPU", 1) // node["GPU"]) for node in with_gpu), default=1)
        cpus = cluster.actor_cpus or max(1, min(share, MOST_WORKERS))
        return Resources(cpus, 1), replace(config, device="cuda", workers=config.workers or cpus)
    largest = max((int(node.get("CPU", 0)) for node in nodes), default=CPUS)
    return Resources(cluster.actor_cpus or max(1, min(CPUS, largest))), replace(config, device="cpu")


class _Extractor:
    """On a node: extracts the videos that it is handed, with networks that stay."""

    def __init__(self, folder: FeaturesFolder, config: ExtractionConfig) -> None:
        self.folder, self.config = folder, config
        self.places = places_of(folder, config)
        self.engines = engines_of(config)

    def __call__(self, sources: Sequence[VideoSource], pulse: Pulse) -> list[Found | Elsewhere]:
        """What came of each."""
        seen = {source.name for source in sources if source.path.exists()}
        result, counted = ExtractionResult(), _Counted(pulse)
        tasks = result.left_of([source for source in sources if source.name in seen], self.places)
        if tasks:
            extract_tasks(tasks, self.config, result, counted, self.engines, wait=False)
        extracted, current = ({source.name for source in them} for them in (result.extracted, result.current))

        def found(name: str) -> Found | Elsewhere:
            if name not in seen:
                return Elsewhere(f"no such file or folder on {os.uname().nodename}: all nodes must see the videos")
            return Found(
                counted.clips.get(name, 0),
                name in extracted,
                result.failed.get(name),
                result.notes.get(name),
                is_busy=name not in extracted | current | result.failed.keys(),
            )

        return [found(source.name) for source in sources]


class _Counted(Progress):
    """Report and progress in one, for an actor: counts the clips of each video, and beats."""

    def __init__(self, pulse: Pulse) -> None:
        super().__init__("extracting", 0, "clips")
        self.pulse = pulse
        self.clips: dict[str, int] = {}

    def say(self, message: str) -> None:
        """To the actor's log."""
        print(message, flush=True)

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        """Itself."""
        return self

    def advance(self, units: int = 1) -> None:
        """A clip has been read."""
        self.pulse.beat(units)

    def finish(self, name: str = "", units: int | None = None) -> None:
        """A video is done."""
        self.clips[name] = units or 0
