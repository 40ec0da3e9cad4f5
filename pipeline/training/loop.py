"""The training loop: videos of both kinds in, a trained detector out. The same seed gives the same weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ...errors import UserError
from ...models import DETECTORS, SRF, XEL, Detector, HardInstanceBank, LearningDetector, hardest, highest
from ...models.products import fast_products
from ..features.bags import TrainingVideos
from ..scoring.inference import highest_scores
from ..scoring.learned import Separation
from ..support.console import Progress
from ..support.memory import keep_freed_memory
from .batches import Batch, Batches
from .checkpoints import check_identity, read_state, write_state
from .config import TrainingConfig
from .pace import Pace

CURVE_EVERY = 10  # iterations between two points of a TensorBoard curve
SMALL_STEP = 5e5  # numbers in the bags of a step
CHECKPOINT_SECONDS = 30.0  # of training that a crash can cost

Judge = Callable[[Detector], float]


@dataclass
class Best:
    """The weights at which a judge was most content."""

    value: float
    iteration: int
    weights: dict[str, Tensor]


@dataclass
class Fitted:
    """What a training gives.

    Attributes:
        detector: with the weights of the last iteration, in evaluation mode.
        bank: the hard instance bank, None without XEL.
        best: by judge, its best weights.
        history: by judge, the values at each evaluation, and the iterations after which they were taken.
        last_epoch: the mean of every loss term over the last epoch.
        iterations: how many there were; 0 where nothing was learned step by step.
    """

    detector: Detector
    bank: HardInstanceBank | None
    best: dict[str, Best] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    last_epoch: dict[str, float] = field(default_factory=dict)
    iterations: int = 0


def fit(
    abnormal: TrainingVideos,
    normal: TrainingVideos,
    config: TrainingConfig,
    folder: Path,
    *,
    judges: dict[str, Judge],
    identity: dict[str, Any],
    resume: bool = False,
) -> Fitted:
    """Train a detector, from the beginning or from where a training stopped; both give the same bits.

    Args:
        abnormal: videos known to hold an anomaly.
        normal: videos known to hold none.
        config: how.
        folder: of the run: its checkpoint and TensorBoard's events go there.
        judges: by name, functions that score the detector in evaluation mode on other videos; higher is better.
        identity: what must be the same for a training to go on.
        resume: go on from the checkpoint in ``folder``, if there is one.

    Raises:
        UserError: the checkpoint belongs to another training, or a feature file is damaged.
    """
    keep_freed_memory()  # before anything is computed, which starts threads
    with torch.random.fork_rng(), fast_products(), _few_threads(abnormal, normal, config):
        torch.manual_seed(config.seed)
        trainer = _Trainer(abnormal, normal, config, judges)
        identity = identity | {"judges": list(judges), "device": trainer.device.type}
        state = read_state(folder) if resume else None
        if state is not None:
            check_identity(folder, state["identity"], identity)
            trainer.restore(state)
        with SummaryWriter(str(folder / "tensorboard"), purge_step=trainer.iteration) as trainer.curves:
            trainer.run(folder, identity)
    trainer.fitted.detector.eval()
    return trainer.fitted


@contextmanager
def _few_threads(abnormal: TrainingVideos, normal: TrainingVideos, config: TrainingConfig) -> Iterator[None]:
    """One thread where a step is small: two gain nothing then, and on a busy machine they wait for each other.

    For ten times as long as they compute, on two cores of which one has other work.
    """
    before = torch.get_num_threads()
    clips = sum(np.mean([kind.length(video) for video in range(len(kind))]) for kind in (abnormal, normal))
    if clips * min(config.batch, max(len(abnormal), len(normal))) * normal.feature_dim < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_xel(config: TrainingConfig, pace: Pace, abnormal: int, normal: int, feature_dim: int) -> XEL | None:
    """XEL as configured, for so many training videos; None if it is off."""
    if config.xel.mode == "off":
        return None
    settings, quirks = config.xel, config.quirk_names
    xel = XEL(
        pace.margin,
        settings.validation_weight,
        settings.margin_weight,
        dropout="xel-dropout" in quirks,
        progressive=settings.progressive,
    )
    if quirks & {"constant-bank", "extra-rows"}:
        rows = max(abnormal, normal) if "extra-rows" in quirks else normal
        xel.bank = HardInstanceBank.constant(rows, feature_dim)
    return xel


def make_detector(config: TrainingConfig, feature_dim: int) -> LearningDetector:
    """A new detector as configured, with random weights.

    Raises:
        UserError: no such detector.
    """
    kind = DETECTORS.get(config.detector)
    if kind is None:
        raise UserError(f"there is no detector {config.detector!r}; known: {', '.join(DETECTORS)}")
    if kind is SRF:
        quirks = config.quirk_names
        return SRF(feature_dim, flip="no-flip" not in quirks, detached="detached-clusters" in quirks)
    detector = kind(feature_dim)
    assert isinstance(detector, LearningDetector)
    return detector


class _Trainer:
    """The training loop: it knows the detector's interface and XEL's, and neither's inside."""

    curves: SummaryWriter

    def __init__(
        self,
        abnormal: TrainingVideos,
        normal: TrainingVideos,
        config: TrainingConfig,
        judges: dict[str, Judge],
    ) -> None:
        self.config, self.abnormal, self.normal, self.judges = config, abnormal, normal, judges
        self.device = _device(config.device)
        self.detector = make_detector(config, normal.feature_dim).to(self.device)
        self.batches = Batches(abnormal, normal, config.batch, config.seed)
        self.optimiser = _optimiser(config, self.detector)
        self.pace = Pace(config, self.batches.per_epoch)
        self.xel = make_xel(config, self.pace, len(abnormal), len(normal), normal.feature_dim)
        if self.xel is not None:
            self.xel.to(self.device)
        self.fitted = Fitted(self.detector, self.xel.bank if self.xel is not None else None)
        self.iteration = 0  # the next one
        self.sums: dict[str, Tensor] = {}

    def run(self, folder: Path, identity: dict[str, Any]) -> None:
        saved = time.monotonic()
        with Progress("training", 1, "iterations") as progress:
            progress.start(folder.name, self.pace.total)
            progress.advance(self.iteration)
            for batch in self.batches.stream(self.iteration, self.pace.total):
                self._begin_epoch()
                self._step(batch)
                self.iteration += 1
                if self.pace.is_judged(self.iteration):
                    self._judge()
                progress.advance()
                over = self.iteration >= self.pace.total
                if time.monotonic() - saved > CHECKPOINT_SECONDS or over:
                    self.curves.flush()  # so that after a crash they go on where the checkpoint does
                    write_state(folder, self.state(identity))
                    saved = time.monotonic()
                if over:
                    break
            progress.finish()
        steps = (self.iteration - 1) % self.batches.per_epoch + 1
        self.fitted.last_epoch = {term: float(total) / steps for term, total in self.sums.items()}
        self.fitted.iterations = self.iteration

    def state(self, identity: dict[str, Any]) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        return {
            "identity": identity,
            "iteration": self.iteration,
            "pace": self.pace.state,
            "detector": self.detector.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "bank": dict(self.xel.bank.state_dict()) if self.xel is not None else {},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "sums": self.sums,
            "best": {name: vars(best) for name, best in self.fitted.best.items()},
            "history": self.fitted.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.iteration = state["iteration"]
        self.pace.restore(state["pace"])
        self.detector.load_state_dict(state["detector"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.xel is not None:
            self.xel.bank.restore({name: value.to(self.device) for name, value in state["bank"].items()})
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.sums = {term: value.to(self.device) for term, value in state["sums"].items()}
        self.fitted.best = {name: Best(**best) for name, best in state["best"].items()}
        self.fitted.history = state["history"]

    def _begin_epoch(self) -> None:
        first = self.iteration % self.batches.per_epoch == 0
        if first:
            self.sums = {}
        if self.xel is None or not self._refresh_is_due(first):
            return
        videos = ((torch.from_numpy(piece).to(self.device) for piece in pieces) for pieces in self.normal.all_pieces())
        turnover = self.xel.bank.refresh(self.detector, videos)
        self._plot_bank(turnover)

    def _refresh_is_due(self, first: bool) -> bool:
        assert self.xel is not None
        if "constant-bank" in self.config.quirk_names:  # the published script: at the end of every epoch
            return first and self.iteration > 0 and self.config.xel.mode == "epoch"
        if self.xel.schedule(self.iteration) is None:
            return False
        filled = len(self.xel.bank) > 0 and bool(self.xel.bank.clips[0] >= 0)
        return not filled or (first and self.config.xel.mode == "epoch")

    def _step(self, batch: Batch) -> None:
        self.detector.train()
        bags = batch.bags.to(self.device)
        loss = self.detector.loss(bags)
        terms, total = dict(loss.terms), loss.total
        if self.xel is not None:
            chosen = hardest(bags.split(bags.clips)[0], loss.abnormal_scores)
            extra = self.xel.terms(self.detector, chosen, self.iteration)
            terms |= {f"xel_{term}": value for term, value in extra.items()}
            total = sum(extra.values(), total)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        terms = {"total": total.detach()} | {term: value.detach() for term, value in terms.items()}
        for term, value in terms.items():
            self.sums[term] = self.sums[term] + value if term in self.sums else value
        if self.iteration % CURVE_EVERY == 0:
            self._plot(terms)
        if self.xel is not None and self.config.xel.mode == "batch":
            self._replace_rows(batch, bags.split(bags.clips)[1], loss.normal_scores)

    def _replace_rows(self, batch: Batch, normal: Sequence[Tensor], scores: Sequence[Tensor]) -> None:
        """The batch-wise variant: the hardest clips of this step's normal videos enter the bank at once."""
        assert self.xel is not None
        if not len(self.xel.bank):
            return
        hardest = [int(video.argmax()) for video in scores]
        clips = [int(rows[row]) for rows, row in zip(batch.normal_rows, hardest, strict=True)]
        turnover = self.xel.bank.replace(
            torch.from_numpy(batch.normal_videos),
            torch.stack([bag[row] for bag, row in zip(normal, hardest, strict=True)]),
            torch.tensor(clips, device=self.device),
            highest(scores),
        )
        if self.iteration % CURVE_EVERY == 0:
            self._plot_bank(turnover)

    def _judge(self) -> None:
        """Let the judges see the detector, and remember the weights that each liked best."""
        self.detector.eval()
        if self.pace.looks:
            separation = Separation.of(*(highest_scores(self.detector, kind) for kind in (self.abnormal, self.normal)))
            self.pace.look(self.iteration, separation.auc)
            self.curves.add_scalar("judged/training", separation.auc, self.iteration - 1)
        for name, judge in self.judges.items():
            value = judge(self.detector)
            self.fitted.history.setdefault(name, []).append(value)
            self.curves.add_scalar(f"judged/{name}", value, self.iteration - 1)
            best = self.fitted.best.get(name)
            if best is None or value >= best.value:  # of equals the later: it has learnt for longer
                weights = copy.deepcopy(self.detector.state_dict())
                self.fitted.best[name] = Best(value, self.iteration, dict(weights))
        self.fitted.history.setdefault("iteration", []).append(self.iteration)

    def _plot(self, terms: dict[str, Tensor]) -> None:
        for term, value in terms.items():
            self.curves.add_scalar(f"loss/{term}", float(value), self.iteration)
        if self.xel is None:
            return
        margin = self.xel.schedule(self.iteration)
        if margin is not None:
            self.curves.add_scalar("xel/margin", margin, self.iteration)

    def _plot_bank(self, turnover: float) -> None:
        assert self.xel is not None
        self.curves.add_scalar("bank/turnover", turnover, self.iteration)
        self.curves.add_scalar("bank/mean_score", float(self.xel.bank.scores.mean()), self.iteration)
        self.curves.add_scalar("bank/mean_age", float(self.xel.bank.ages.float().mean()), self.iteration)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch's ways of saying that it has no such device
        reason = str(error).split("\n")[0]
        raise UserError(f"--device {name}: not to be had here ({reason})") from error


def _optimiser(config: TrainingConfig, detector: LearningDetector) -> torch.optim.Optimizer:
    if config.optimiser == "adagrad":
        return torch.optim.Adagrad(
            detector.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.Adam(
        detector.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
        fused=True,
    )
