"""What papers have published, beside what runs achieve here, and which differences make that comparison unfair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError
from ..datasets import Dataset
from ..evaluation.config import EvaluationConfig
from ..evaluation.evaluation import Summary, evaluate_all, summarise
from ..features.remote.address import FeaturesFolder
from ..scoring.protocols import PROTOCOLS, FrameProtocol
from ..scoring.runs import RunManifest, identity_of, name_of, read_manifest_of_run, runs_in
from ..training.checkpoints import flat
from ..training.recipes import load_recipe
from ..training.train import plain
from ..videos.clips import Segments

FILE = Path(__file__).with_name("published.yaml")
PAPERS = ("xel",)
PUBLISHED_METRICS = ("auc", "far_normal", "tpr")  # of `FrameMetrics`, that papers give
# Of a configuration: what cannot change a result much, or has a reason of its own below.
NOT_SETTINGS = {"seed", "device", "evaluations", "follow_test", "validation", "extractor", "quirks"}


@dataclass(frozen=True)
class OfficialSet:
    """A data set as papers use it: its title, and how many videos its lists have."""

    title: str
    training_videos: int
    test_videos: int


@dataclass(frozen=True)
class PublishedRow:
    """One method with one kind of features.

    Attributes:
        method: as papers call it.
        reference: where the method is from.
        features: that it was measured with, in words.
        figures: by data set, then by name in `FrameMetrics`: per cent, as text with the digits that were printed.
        notes: by data set, what qualifies its figures.
        extractor: ours of the same features; None where there is none.
        detector: ours of the same method; None where there is none.
        xel: the mode of XEL, where there is a detector of ours.
    """

    method: str
    reference: str
    features: str
    figures: dict[str, dict[str, str]]
    notes: dict[str, str]
    extractor: str | None = None
    detector: str | None = None
    xel: str | None = None


@dataclass(frozen=True)
class Paper:
    """A table of published results: where it is from, how it was measured, its data sets by name, its rows."""

    source: str
    protocol: str
    data_sets: dict[str, OfficialSet]
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class ComparedRow:
    """A run beside what was published for the same method.

    Attributes:
        summary: what the run achieves here, over its seeds, with one choice of weights.
        name: its detector as papers call it.
        protocol: by which it was measured here.
        row: the published row; None where nothing was published for such a run on this data set.
        unfair: what else differs, of all the run's weights, and may explain a difference of figures.
    """

    summary: Summary
    name: str
    protocol: FrameProtocol
    row: PublishedRow | None
    unfair: tuple[str, ...]


def read_paper(name: str) -> Paper:
    """The published results that belong to a paper.

    Raises:
        UserError: there are none under this name.
    """
    if name not in PAPERS:
        raise UserError(f"there are no published results {name!r}; known: {', '.join(PAPERS)}")
    found = yaml.safe_load(FILE.read_text("utf-8"))[name]
    data_sets = {key: OfficialSet(**fields) for key, fields in found["data_sets"].items()}
    rows = tuple(_row(fields, data_sets) for fields in found["rows"])
    return Paper(found["source"], found["protocol"], data_sets, rows)


def data_set_of(paper: Paper, dataset: Dataset) -> str:
    """Which of a paper's data sets this is: that of its official lists, or a manifest in a folder of its name.

    Raises:
        UserError: none of them.
    """
    folder, _, manifest = dataset.name.partition("/")
    for key, official in paper.data_sets.items():
        if folder == (key if manifest else official.title):
            return key
    raise UserError(
        f"{dataset.name}: nothing is published on it, only on {', '.join(paper.data_sets)} (--dataset NAME, or a "
        "manifest in a folder of that name); xelvad compare sets runs side by side on any data"
    )


def set_beside(paper: Paper, folders: Sequence[Path], dataset: Dataset, features: FeaturesFolder) -> list[ComparedRow]:
    """Evaluate runs, with all weights that they have kept, and find what was published for each.

    Raises:
        UserError: as `data_set_of`, `protocol_of` and `evaluate_all`.
    """
    data_set = data_set_of(paper, dataset)
    first_of = {name_of(runs_in(folder)[0]): runs_in(folder)[0] for folder in folders}
    manifests = {name: read_manifest_of_run(folder) for name, folder in first_of.items()}
    protocol = protocol_of(manifests)
    summaries = summarise(evaluate_all(folders, dataset, features, EvaluationConfig(protocol=protocol.name)))
    found = []
    for summary in summaries:
        folder, manifest = first_of[summary.run], manifests[summary.run]
        row = row_of(paper, manifest, data_set)
        reasons: list[str] = []
        if row is not None:
            settings = identity_of(folder)["config"]
            reasons = [
                *differences_of_data(paper.data_sets[data_set], manifest, dataset),
                *differences_of_method(row, manifest),
                *differences_of_settings(f"{data_set}/{row.detector}{'+xel' * (row.xel != 'off')}", settings),
            ]
        found.append(ComparedRow(summary, manifest.name, protocol, row, tuple(reasons)))
    return found


def protocol_of(manifests: Mapping[str, RunManifest]) -> FrameProtocol:
    """The protocol by which papers measure such runs: complete clips, or, of imported segments, these.

    Raises:
        UserError: there are runs of both kinds.
    """
    of_segments = [name for name, manifest in manifests.items() if isinstance(manifest.clipping, Segments)]
    of_clips = [name for name in manifests if name not in of_segments]
    if of_segments and of_clips:
        raise UserError(
            f"{of_segments[0]} learnt from segments and {of_clips[0]} from clips, which are measured by different "
            "protocols: name the runs of one kind at a time"
        )
    return PROTOCOLS["mil" if of_segments else "xel"]


def row_of(paper: Paper, manifest: RunManifest, data_set: str) -> PublishedRow | None:
    """The row of a run's method: that of its features if there is one, else the first with figures on the data set."""
    rows = [
        row
        for row in paper.rows
        if (row.detector, row.xel) == (manifest.detector, manifest.xel) and data_set in row.figures
    ]
    return next((row for row in rows if row.extractor == manifest.extractor), rows[0] if rows else None)


def differences_of_data(official: OfficialSet, manifest: RunManifest, dataset: Dataset) -> list[str]:
    """What differs in the videos: of the lists, of the test, of the training."""
    test, reasons = len(dataset.of("test")), []
    if "/" in dataset.name:
        reasons.append(f"labels of a manifest of one's own ({dataset.name}), not of the official lists")
    if test != official.test_videos:
        reasons.append(f"{test} test videos, not {official.test_videos}")
    if manifest.dataset != dataset.name:
        reasons.append(f"learnt from {manifest.dataset}")
    if manifest.training_videos != official.training_videos:
        aside = f" ({manifest.validation_videos} more for validation)" if manifest.validation_videos else ""
        reasons.append(f"learnt from {manifest.training_videos} videos{aside}, not {official.training_videos}")
    return reasons


def differences_of_method(row: PublishedRow, manifest: RunManifest) -> list[str]:
    """What differs in features, protocol, and the published script's mistakes."""
    reasons = []
    if manifest.extractor != row.extractor:
        reasons.append(f"features of {manifest.extractor}, not {row.features}")
    if isinstance(manifest.clipping, Segments) and manifest.detector != "mil":
        reasons.append(f"{manifest.clipping.segments} segments a video, not clips of 16 frames")
    if manifest.quirks != "none":
        reasons.append(f"makes mistakes of the published script on purpose (quirks: {manifest.quirks})")
    elif (row.detector, row.xel) == ("srf", "epoch"):
        reasons.append("the published script makes mistakes that this run does not (--quirks official)")
    return reasons


def differences_of_settings(recipe: str, settings: dict[str, Any]) -> list[str]:
    """Which settings of a run are not those of the paper's recipe."""
    wanted, found = flat(plain(asdict(load_recipe(recipe)))), flat(settings)
    changed = [
        f"{name} {found.get(name)}, not {value}"
        for name, value in wanted.items()
        if name not in NOT_SETTINGS and found.get(name) != value
    ]
    return [f"settings other than those of recipe {recipe}: {'; '.join(changed)}"] if changed else []


def _row(fields: dict[str, Any], data_sets: dict[str, OfficialSet]) -> PublishedRow:
    rest = {key: value for key, value in fields.items() if key not in data_sets}
    figures = {key: dict(fields[key]) for key in data_sets if key in fields}
    notes = {key: rates.pop("note") for key, rates in figures.items() if "note" in rates}
    return PublishedRow(figures=figures, notes=notes, **rest)
