"""The ablation: what each part of XEL is worth to each detector, over several seeds.

The grid is {detector} × {off, L_v, L_m, both} × {epoch, batch}, after the ablation of Yu et al., IEEE SPL 2021: L_v is
the validation loss, L_m the dynamic margin loss, epoch and batch say when the hard instance bank is refreshed. Off has
no mode. Every figure is that of the last iteration's weights, so that nothing is chosen on test data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...cluster.config import HERE, ClusterConfig
from ...datasets import Dataset, DatasetChoice, read_manifest
from ...features.remote.address import FeaturesFolder
from ...features.remote.store import open_store
from ...scoring.runs import (
    load_run,
    read_manifest_of_run,
    seed_folder,
    title_of,
)
from ...support.progress import SILENT, Report
from ...training.config import TrainingConfig
from ...training.recipes import GENERAL, detector_recipe, load_recipe, recipe_names
from ..trainings import (
    ALL_FOLDS,
    RUNS,
    Training,
    at_once,
    check_learn_from_features,
    check_test_videos,
    claim,
    folds_of,
    train_once,
)
from .config import AblationConfig

if TYPE_CHECKING:
    from ...evaluation.evaluation import Evaluation
    from ...evaluation.metrics import FrameMetrics

REQUEST = "ablation.json"  # what an interrupted ablation was asked for

Terms = Literal["off", "L_v", "L_m", "both"]
Mode = Literal["off", "epoch", "batch"]


@dataclass(frozen=True)
class Variant:
    """Which losses of XEL are on, and when its bank is refreshed."""

    terms: Terms
    mode: Mode

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return "off" if self.mode == "off" else f"{self.terms}-{self.mode}"


@dataclass(frozen=True)
class Configuration:
    """One cell of the grid, with the settings of its first seed."""

    detector: str
    variant: Variant
    training: TrainingConfig

    @property
    def label(self) -> str:
        """The configuration in words, such as ``SRF, L_v, epoch``."""
        words = [title_of(self.detector), self.variant.terms, self.variant.mode]
        return ", ".join(dict.fromkeys(words))


@dataclass(frozen=True)
class Outcome:
    """What one configuration achieves with one seed.

    Attributes:
        seed: of the training.
        metrics: over the frames of all test videos; of a cross-validation, over those of all folds together.
        fold_aucs: of a cross-validation, the AUC of each fold by its name, in [0, 1]; else empty.
    """

    seed: int
    metrics: FrameMetrics
    fold_aucs: dict[str, float]

    @property
    def mean_fold_auc(self) -> float | None:
        """The mean of the folds' AUCs, in [0, 1]; None without folds."""
        return float(np.mean(list(self.fold_aucs.values()))) if self.fold_aucs else None


@dataclass(frozen=True)
class Result:
    """One configuration with its outcomes, one for each seed."""

    configuration: Configuration
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Ablation:
    """A finished ablation: what was asked for, and the results in the order of the grid.

    Attributes:
        labels: the data set that was asked for.
        features: the features folder.
        out: where its runs lie.
        dataset: name of the data set.
        config: what was compared.
        results: one for each configuration.
        versions: of xelvad and torch that trained the runs.
    """

    labels: DatasetChoice
    features: FeaturesFolder
    out: Path
    dataset: str
    config: AblationConfig
    results: tuple[Result, ...]
    versions: tuple[str, ...]


def ablate(
    labels: DatasetChoice,
    features: FeaturesFolder,
    out: Path,
    config: AblationConfig,
    report: Report = SILENT,
    cluster: ClusterConfig = HERE,
) -> Ablation:
    """Train and evaluate the whole grid; what is finished is not trained again, what was interrupted goes on.

    Args:
        labels: a data set with annotated test videos.
        features: the features folder that `extract` filled.
        out: runs go to ``out/runs/<detector>/<variant>/seed-0`` and so on, with all folds to
            ``out/runs/<detector>/<variant>/<fold>/seed-0``.
        config: what is compared.
        report: is told how far it is.
        cluster: where the trainings are done.

    Raises:
        UserError: as `DatasetChoice.read`, `train` and `evaluate`; "all" folds where there are none; or ``out`` holds
            an ablation of other data or with other settings.
    """
    check_learn_from_features(config.detectors)
    manifest = labels.manifest if config.test_fold == ALL_FOLDS else None
    folds = folds_of(manifest) if manifest is not None else [config.test_fold]
    datasets = [labels.read(fold) for fold in folds]
    cells = grid(config)
    for extractor in dict.fromkeys(cell.training.extractor for cell in cells):
        for dataset in datasets:
            check_test_videos(dataset, open_store(features, extractor))
    open_to_more = ("detectors", "modes", "seeds", "workers")
    settings = {name: value for name, value in asdict(config).items() if name not in open_to_more}
    claim(out, REQUEST, {"labels": datasets[0].digest} | settings)
    if config.workers > 1 or cluster.is_ray:
        places = dict(zip(folds_of(manifest) if manifest is not None else [""], datasets, strict=True))
        trainings = _trainings(cells, places, features, out, config.seeds)
        at_once(train_once, trainings, config.workers, report, cluster=cluster)
    results = []
    for number, cell in enumerate(cells, start=1):
        report.say(f"configuration {number} of {len(cells)}: {cell.label}")
        folder = out / RUNS / cell.detector / cell.variant.folder
        if manifest is not None:
            outcomes = cross_validate(manifest, features, folder, cell.training, config.seeds, report)
        else:
            evaluations = train_and_evaluate(datasets[0], features, folder, cell.training, config.seeds, report)
            outcomes = [Outcome(seed, evaluation.metrics, {}) for seed, evaluation in evaluations.items()]
        results.append(Result(cell, tuple(outcomes)))
    return Ablation(labels, features, out, datasets[0].name, config, tuple(results), _versions(out, cells))


def grid(config: AblationConfig) -> list[Configuration]:
    """All configurations: for each detector off, then L_v, L_m and both in each mode."""
    terms: tuple[Terms, ...] = ("L_v", "L_m", "both")
    variants = [Variant("off", "off")]
    variants += [Variant(term, mode) for mode in ("epoch", "batch") if mode in config.modes for term in terms]
    return [
        Configuration(detector, variant, settings_of(detector, variant, config))
        for detector in dict.fromkeys(config.detectors)
        for variant in variants
    ]


def settings_of(detector: str, variant: Variant, config: AblationConfig) -> TrainingConfig:
    """A detector's recipe, changed in XEL and in what the ablation overrides."""
    recipe = detector_recipe(detector) if config.recipes == GENERAL else f"{config.recipes}/{detector}"
    base = replace(load_recipe(recipe), detector=detector)
    with_xel = f"{config.recipes}/{detector}+xel"
    xel = load_recipe(with_xel).xel if with_xel in recipe_names() else base.xel
    if variant.terms == "off":
        xel = replace(base.xel, mode="off")
    else:
        xel = replace(
            xel,
            mode=variant.mode,
            validation_weight=xel.validation_weight if variant.terms != "L_m" else 0.0,
            margin_weight=xel.margin_weight if variant.terms != "L_v" else 0.0,
        )
    overrides: dict[str, Any] = {name: getattr(config, name) for name in ("iterations", "extractor", "validation")}
    return replace(base, xel=xel, **{name: value for name, value in overrides.items() if value is not None})


def cross_validate(
    manifest: Path, features: FeaturesFolder, out: Path, config: TrainingConfig, seeds: int = 1, report: Report = SILENT
) -> list[Outcome]:
    """Test on every fold once, train on the others, and take the frames of all folds together.

    Single folds are small and can lie far apart, so that the AUC over all frames says more than that of any fold. Its
    scores come from different trainings, though, which need not agree on a scale: the mean of the folds' AUCs does not
    suffer from that, hence both.

    Args:
        manifest: the labels; it must have folds.
        features: the features folder.
        out: runs go to ``out/<fold>/seed-0`` and so on.
        config: how to train; its seed is the first.
        seeds: how many trainings of each fold.
        report: is told how far it is.

    Returns:
        One outcome for each seed.

    Raises:
        UserError: as `folds_of`, `read_manifest` and `train_and_evaluate`.
    """
    from ...evaluation.metrics import frame_metrics

    folds = folds_of(manifest)
    evaluations: dict[str, dict[int, Evaluation]] = {}
    for number, fold in enumerate(folds, start=1):
        report.say(f"fold {number} of {len(folds)}: {fold}")
        dataset = read_manifest(manifest, fold)
        evaluations[fold] = train_and_evaluate(dataset, features, out / fold, config, seeds, report)
    outcomes = []
    for seed in evaluations[folds[0]]:
        of_seed = {fold: evaluations[fold][seed] for fold in folds}
        pooled = frame_metrics([video for evaluation in of_seed.values() for video in evaluation.videos])
        aucs = {fold: auc for fold, each in of_seed.items() if (auc := each.metrics.auc) is not None}
        outcomes.append(Outcome(seed, pooled, aucs))
    return outcomes


def train_and_evaluate(
    dataset: Dataset, features: FeaturesFolder, out: Path, config: TrainingConfig, seeds: int, report: Report = SILENT
) -> dict[int, Evaluation]:
    """Train into ``out/seed-0`` and so on, whatever is not finished there, and evaluate the last iteration's weights.

    Raises:
        UserError: as `train` and `evaluate`, or a run in ``out`` is of another configuration or of other data.
    """
    from ...evaluation.evaluation import evaluate

    evaluations = {}
    for seed in range(config.seed, config.seed + seeds):
        training = Training(dataset, features, seed_folder(out, seed), replace(config, seed=seed))
        train_once(training, report)
        evaluations[seed] = evaluate(load_run(training.folder), dataset, features)
    return evaluations


def _trainings(
    cells: Sequence[Configuration], places: dict[str, Dataset], features: FeaturesFolder, out: Path, seeds: int
) -> list[Training]:
    """All trainings of the grid; ``places`` are the data sets by the folders of their folds."""
    return [
        Training(
            dataset,
            features,
            seed_folder(out / RUNS / cell.detector / cell.variant.folder / fold, seed),
            replace(cell.training, seed=seed),
        )
        for cell in cells
        for seed in range(cell.training.seed, cell.training.seed + seeds)
        for fold, dataset in places.items()
    ]


def _versions(out: Path, cells: Sequence[Configuration]) -> tuple[str, ...]:
    folders = [out / RUNS / cell.detector / cell.variant.folder for cell in cells]
    runs = [read_manifest_of_run(path.parent) for folder in folders for path in folder.rglob("manifest.json")]
    return tuple(sorted({f"xelvad {run.version}, torch {run.torch_version}" for run in runs}))
