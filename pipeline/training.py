"""Training: feature files and video-level labels in, a run folder out. The same seed gives the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import UserError
from .bags import BagConfig, make_bag
from .cache import Features, FeatureStore
from .console import Progress
from .datasets import Dataset
from .runs import RunManifest, is_run, save_run

if TYPE_CHECKING:
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from ..models import XEL, Detector

CURVE_EVERY = 10  # iterations between two points of a TensorBoard curve


@dataclass(frozen=True)
class XELConfig:
    """Cross-epoch learning.

    Attributes:
        mode: "off", or "epoch" to refresh the hard instance bank once an epoch.
        validation_weight: λ1, weight of the validation loss.
        margin_weight: λ2, weight of the dynamic margin loss.
        warmup: share of the iterations before XEL sets in.
        margins: values of the margin ε, each for an equal part of the iterations after the warm-up.
    """

    mode: Literal["off", "epoch"] = "off"
    validation_weight: float = 1.0
    margin_weight: float = 1.0
    warmup: float = 0.15
    margins: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class TrainingConfig:
    """How a detector is trained.

    Attributes:
        detector: "mil".
        extractor: whose features to learn from.
        iterations: steps of the optimiser.
        batch: abnormal and normal videos each per step; at most as many as there are.
        learning_rate: of Adam.
        weight_decay: of Adam.
        seed: of the initial weights, the order of the videos and dropout.
        bags: how clips become bags.
        xel: cross-epoch learning.
    """

    detector: str = "mil"
    extractor: str = "i3d-rgb"
    iterations: int = 1000
    batch: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    seed: int = 0
    bags: BagConfig = field(default_factory=BagConfig)
    xel: XELConfig = field(default_factory=XELConfig)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.xel.warmup < 1:
            raise UserError(f"xel.warmup is a share of the iterations, in [0, 1), not {self.xel.warmup}")
        if not self.xel.margins or not all(0 < margin <= 1 for margin in self.xel.margins):
            raise UserError(f"xel.margins are numbers in (0, 1], not {self.xel.margins}")


@dataclass(frozen=True)
class TrainingData:
    """The bags of all training videos: ``(A, segments, F)`` and ``(N, segments, F)``."""

    abnormal: NDArray[np.float32]
    normal: NDArray[np.float32]
    first: Features  # any of them: all come from one extractor, cut into clips in one way
    digest: str


def train(dataset: Dataset, features: Path, out: Path, config: TrainingConfig) -> RunManifest:
    """Train a detector on the training videos of ``dataset`` and write the run folder ``out``.

    Args:
        dataset: its training videos and their labels; test videos and spans are not looked at.
        features: the features folder that `extract` filled.
        out: the run folder. It must not hold a run yet.
        config: how.

    Raises:
        UserError: missing or mixed features, no normal or no abnormal training video, or ``out`` is in use.
    """
    if is_run(out):
        raise UserError(f"{out}: holds a finished run already; choose another --out, or delete it")
    for unfinished in (out / "tensorboard").glob("events.out.tfevents.*"):
        unfinished.unlink()
    data = load_training_data(dataset, FeatureStore(features, config.extractor), config.bags)
    detector, metrics = fit(data, config, out / "tensorboard", name=out.name)
    sidecar = data.first.sidecar
    manifest = RunManifest(
        version=__version__,
        detector=config.detector,
        xel=config.xel.mode,
        feature_dim=sidecar.feature_dim,
        extractor=sidecar.extractor,
        fingerprint=sidecar.fingerprint,
        clipping=sidecar.clipping,
        bags=config.bags,
        seed=config.seed,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        features_digest=data.digest,
        training_videos=len(data.abnormal) + len(data.normal),
        torch_version=_torch_version(),
    )
    save_run(out, manifest, detector, _plain(asdict(config)), metrics)
    return manifest


def load_training_data(dataset: Dataset, store: FeatureStore, bags: BagConfig) -> TrainingData:
    """Read the features of all training videos as bags.

    Raises:
        UserError: missing features, features of different extractors or dimensions, or one of the labels is missing.
    """
    videos = dataset.of("train")
    counts = {label: sum(video.abnormal == label for video in videos) for label in (True, False)}
    if not all(counts.values()):
        raise UserError(
            f"{dataset.name}: {counts[True]} abnormal and {counts[False]} normal training videos: "
            "a detector learns from the difference and needs at least one of each"
        )
    made: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
    digest = hashlib.sha256()
    first: Features | None = None
    for video, features in zip(videos, store.read_all([video.name for video in videos]), strict=True):
        first = first or features
        if features.sidecar.clipping != first.sidecar.clipping:
            raise UserError(
                f"{video.name}: cut into clips by {features.sidecar.clipping}, others by {first.sidecar.clipping}"
            )
        made[video.abnormal].append(make_bag(features.array, bags))
        digest.update(f"{video.name}\t{features.sidecar.video_sha256}\t{features.sidecar.fingerprint}\n".encode())
    assert first is not None
    return TrainingData(np.stack(made[True]), np.stack(made[False]), first, digest.hexdigest())


def fit(data: TrainingData, config: TrainingConfig, curves: Path, name: str) -> tuple[Detector, dict[str, Any]]:
    """Train a new detector.

    Args:
        data: the bags.
        config: how.
        curves: folder for TensorBoard's events.
        name: shown in the progress display.

    Returns:
        The detector in evaluation mode, and the mean of every loss term over the last epoch.
    """
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from ..models import DETECTORS

    if config.detector not in DETECTORS:
        raise UserError(f"there is no detector {config.detector!r}; known: {', '.join(DETECTORS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        detector = DETECTORS[config.detector](data.abnormal.shape[-1])
        with SummaryWriter(str(curves)) as writer:
            metrics = _Trainer(detector, data, config, writer).run(name)
    return detector.eval(), metrics


class _Trainer:
    """The training loop: it knows the detector's interface and XEL's, and neither's inside."""

    def __init__(self, detector: Detector, data: TrainingData, config: TrainingConfig, writer: SummaryWriter) -> None:
        import torch

        self.detector, self.config, self.writer = detector, config, writer
        self.abnormal, self.normal = torch.from_numpy(data.abnormal), torch.from_numpy(data.normal)
        self.batches = Batches(len(data.abnormal), len(data.normal), config.batch, config.seed)
        self.optimiser = torch.optim.Adam(
            detector.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.xel = _make_xel(config)

    def run(self, name: str) -> dict[str, Any]:
        sums: dict[str, float] = {}
        iterations, per_epoch = self.config.iterations, self.batches.per_epoch
        with Progress("training", 1, "iterations") as progress:
            progress.start(name, iterations)
            for iteration in range(iterations):
                if iteration % per_epoch == 0:
                    sums = {}
                    self._refresh_bank()
                terms = self._step(iteration)
                for term, value in terms.items():
                    sums[term] = sums.get(term, 0.0) + float(value)
                if iteration % CURVE_EVERY == 0:
                    self._plot(terms, iteration)
                progress.advance()
            progress.finish()
        steps = (iterations - 1) % per_epoch + 1
        return {"iterations": iterations, "last_epoch": {term: total / steps for term, total in sums.items()}}

    def _step(self, iteration: int) -> dict[str, torch.Tensor]:
        from ..models import Bags

        abnormal, normal = self.batches.next()
        self.detector.train()
        loss = self.detector.loss(Bags(self.abnormal[abnormal], self.normal[normal]))
        terms = dict(loss.terms)
        total = loss.total
        if self.xel is not None:
            extra = self.xel.terms(self.detector, loss.abnormal_scores.amax(dim=1), iteration)
            terms |= {f"xel_{term}": value for term, value in extra.items()}
            total = sum(extra.values(), total)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        return {"total": total.detach()} | {term: value.detach() for term, value in terms.items()}

    def _refresh_bank(self) -> None:
        if self.xel is not None:
            self.xel.bank.refresh(self.detector, self.normal.split(self.config.batch))

    def _plot(self, terms: dict[str, torch.Tensor], iteration: int) -> None:
        for term, value in terms.items():
            self.writer.add_scalar(f"loss/{term}", value, iteration)
        margin = self.xel.schedule(iteration) if self.xel is not None else None
        if margin is not None:
            self.writer.add_scalar("xel/margin", margin, iteration)


class Batches:
    """Draws videos of both kinds: each kind shuffled anew whenever all of it has been drawn.

    Attributes:
        per_epoch: steps in which every video of the larger kind is drawn about once.
    """

    def __init__(self, abnormal: int, normal: int, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._streams = [_shuffled_for_ever(count, min(size, count), rng) for count in (abnormal, normal)]
        self.per_epoch = max(-(-count // min(size, count)) for count in (abnormal, normal))

    def next(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the abnormal and of the normal videos of the next step, none twice within a kind."""
        abnormal, normal = (next(stream) for stream in self._streams)
        return abnormal, normal


def _shuffled_for_ever(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches of ``size`` out of ``count``; a remainder that fills no batch waits for another shuffle."""
    while True:
        order = rng.permutation(count)
        yield from (order[start : start + size] for start in range(0, count - size + 1, size))


def _make_xel(config: TrainingConfig) -> XEL | None:
    from ..models import XEL, MarginSchedule

    if config.xel.mode == "off":
        return None
    schedule = MarginSchedule.spread_over(config.iterations, config.xel.warmup, config.xel.margins)
    return XEL(schedule, config.xel.validation_weight, config.xel.margin_weight)


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def _plain(value: Any) -> Any:
    """Tuples as lists: YAML's safe subset has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
