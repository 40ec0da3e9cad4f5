"""The training loop: videos of both kinds in, a trained detector out. The same seed gives the same weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ...errors import UserError
from ...extractors.runtimes import choose_device
from ...models import DETECTORS, SRF, Detector, HardInstanceBank, LearningDetector, new_detector
from ..features.bags import TrainingVideos
from ..scoring.inference import highest_scores
from ..scoring.learned import Separation
from ..support.curves import CURVE_EVERY, Curves
from ..support.memory import keep_freed_memory
from ..support.progress import SILENT, Progress, Report
from ..support.threads import few_threads
from .batches import Batches
from .checkpoints import CheckpointWriter, check_identity, read_state
from .config import TrainingConfig
from .cross_epoch import CrossEpoch, make_xel
from .judges import Best, Judge, Judged
from .pace import Pace


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
    report: Report = SILENT,
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
        report: is told how far it is.

    Raises:
        UserError: the checkpoint belongs to another training, or a feature file is damaged.
    """
    keep_freed_memory()  # before anything is computed, which starts threads
    with torch.random.fork_rng(), few_threads(_size_of_a_step(abnormal, normal, config)):
        torch.manual_seed(config.seed)
        training = Training(abnormal, normal, config, judges)
        identity = identity | {"judges": list(judges), "device": training.device.type}
        state = read_state(folder) if resume else None
        if state is not None:
            check_identity(folder, state["identity"], identity)
            training.restore(state)
        with (
            SummaryWriter(str(folder / "tensorboard"), purge_step=training.iteration) as curves,
            report.progress("training", 1, "iterations") as progress,
        ):
            training.run(curves, progress, CheckpointWriter(folder, identity))
    return training.fitted()


class Training:
    """A training under way: all that changes from step to step. `run` is the loop.

    Attributes:
        iteration: how many steps were made.
    """

    def __init__(
        self, abnormal: TrainingVideos, normal: TrainingVideos, config: TrainingConfig, judges: dict[str, Judge]
    ) -> None:
        self.config, self.abnormal, self.normal = config, abnormal, normal
        self.device = choose_device(config.device)
        self.detector = make_detector(config, normal.feature_dim).to(self.device)
        self.optimiser = make_optimiser(config, self.detector)
        self.batches = Batches(abnormal, normal, config.batch, config.seed)
        self.pace = Pace(config, self.batches.per_epoch)
        xel = make_xel(config, self.pace, len(abnormal), len(normal), normal.feature_dim)
        self.xel = None if xel is None else CrossEpoch(xel.to(self.device), normal, config)
        self.judged = Judged(judges)
        self.iteration = 0
        self.sums: dict[str, Tensor] = {}  # of every loss term over the epoch so far

    def run(self, curves: Curves, progress: Progress, checkpoints: CheckpointWriter) -> None:
        """Make all steps that are left."""
        progress.start(checkpoints.folder.name, self.pace.total)
        progress.advance(self.iteration)
        for batch in self.batches.stream(self.iteration, self.pace.total):
            new_epoch = self.iteration % self.batches.per_epoch == 0
            if new_epoch:
                self.sums = {}
            if self.xel is not None:
                self.xel.refresh_if_due(self.detector, self.iteration, new_epoch, curves)

            self.detector.train()
            bags = batch.bags.to(self.device)
            loss = self.detector.loss(bags)
            terms, total = dict(loss.terms), loss.total
            if self.xel is not None:
                extra = self.xel.terms(self.detector, bags, loss, self.iteration)
                terms, total = terms | extra, sum(extra.values(), total)
            self.optimiser.zero_grad(set_to_none=True)
            total.backward()
            self.optimiser.step()

            self._note({"total": total} | terms, curves)
            if self.xel is not None:
                self.xel.replace_rows(self.detector, batch, bags, loss, self.iteration, curves)
            self.iteration += 1
            if self.pace.is_judged(self.iteration):
                self._judge(curves)
            progress.advance()
            over = self.iteration >= self.pace.total
            if checkpoints.is_due() or over:
                curves.flush()  # so that after a crash they go on where the checkpoint does
                checkpoints.write(self.state())
            if over:
                break
        progress.finish()

    def fitted(self) -> Fitted:
        """What came of it."""
        steps = (self.iteration - 1) % self.batches.per_epoch + 1
        return Fitted(
            self.detector.eval(),
            None if self.xel is None else self.xel.bank,
            self.judged.best,
            self.judged.history,
            {term: float(total) / steps for term, total in self.sums.items()},
            self.iteration,
        )

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        return {
            "iteration": self.iteration,
            "pace": self.pace.state,
            "detector": self.detector.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "bank": {} if self.xel is None else self.xel.state,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "sums": self.sums,
            "best": {name: vars(best) for name, best in self.judged.best.items()},
            "history": self.judged.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.iteration = state["iteration"]
        self.pace.restore(state["pace"])
        self.detector.load_state_dict(state["detector"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.xel is not None:
            self.xel.restore(state["bank"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.sums = {term: value.to(self.device) for term, value in state["sums"].items()}
        self.judged.best = {name: Best(**best) for name, best in state["best"].items()}
        self.judged.history = state["history"]

    def _note(self, terms: dict[str, Tensor], curves: Curves) -> None:
        """Add the losses of a step to those of its epoch, and now and then to the curves."""
        terms = {term: value.detach() for term, value in terms.items()}
        for term, value in terms.items():
            self.sums[term] = self.sums[term] + value if term in self.sums else value
        if self.iteration % CURVE_EVERY:
            return
        for term, value in terms.items():
            curves.add_scalar(f"loss/{term}", float(value), self.iteration)
        margin = None if self.xel is None else self.pace.margin(self.iteration)
        if margin is not None:
            curves.add_scalar("xel/margin", margin, self.iteration)

    def _judge(self, curves: Curves) -> None:
        self.detector.eval()
        if self.pace.looks:
            separation = Separation.of(*(highest_scores(self.detector, kind) for kind in (self.abnormal, self.normal)))
            self.pace.look(self.iteration, separation.auc)
            curves.add_scalar("judged/training", separation.auc, self.iteration - 1)
        for name, value in self.judged.look(self.detector, self.iteration).items():
            curves.add_scalar(f"judged/{name}", value, self.iteration - 1)


def _size_of_a_step(abnormal: TrainingVideos, normal: TrainingVideos, config: TrainingConfig) -> float:
    """How many numbers the bags of a step hold, about."""
    clips = sum(np.mean([kind.length(video) for video in range(len(kind))]) for kind in (abnormal, normal))
    return float(clips * min(config.batch, max(len(abnormal), len(normal))) * normal.feature_dim)


def make_detector(config: TrainingConfig, feature_dim: int) -> LearningDetector:
    """A new detector as configured, with random weights.

    Raises:
        UserError: no such detector, or it has no such option, or not of this value.
    """
    kind = DETECTORS.get(config.detector)
    if kind is None:
        raise UserError(f"there is no detector {config.detector!r}; known: {', '.join(DETECTORS)}")
    options: dict[str, Any] = dict(config.options)
    if kind is SRF:
        quirks = config.quirk_names
        options = {"flip": "no-flip" not in quirks, "detached": "detached-clusters" in quirks} | options
    try:
        detector = new_detector(config.detector, feature_dim, options)
    except (TypeError, ValueError) as error:  # of one that there is not, or of a value that is none or out of range
        raise UserError(f"options of {config.detector}: {error}") from error
    assert isinstance(detector, LearningDetector)
    return detector


def make_optimiser(config: TrainingConfig, detector: LearningDetector) -> torch.optim.Optimizer:
    """The optimiser as configured, for all weights of a detector."""
    if config.optimiser == "adagrad":
        # On GPUs most versions of PyTorch have no fused Adagrad, and fail at the first step.
        fused = all(weight.device.type == "cpu" for weight in detector.parameters())
        return torch.optim.Adagrad(
            detector.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
        )
    return torch.optim.Adam(
        detector.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
        fused=True,
    )
