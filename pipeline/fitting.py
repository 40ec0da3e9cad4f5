"""The training loop: bags of both kinds in, a trained detector out. The same seed gives the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..errors import UserError
from ..models import DETECTORS, XEL, Bags, Detector, MarginSchedule
from .console import Progress
from .settings import TrainingConfig

CURVE_EVERY = 10  # iterations between two points of a TensorBoard curve


def fit(
    abnormal: NDArray[np.float32], normal: NDArray[np.float32], config: TrainingConfig, curves: Path, name: str
) -> tuple[Detector, dict[str, Any]]:
    """Train a new detector.

    Args:
        abnormal: bags of abnormal videos, ``(A, segments, F)``.
        normal: bags of normal videos, ``(N, segments, F)``.
        config: how.
        curves: folder for TensorBoard's events.
        name: shown in the progress display.

    Returns:
        The detector in evaluation mode, and the mean of every loss term over the last epoch.
    """
    if config.detector not in DETECTORS:
        raise UserError(f"there is no detector {config.detector!r}; known: {', '.join(DETECTORS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        detector = DETECTORS[config.detector](abnormal.shape[-1])
        with SummaryWriter(str(curves)) as writer:
            metrics = _Trainer(detector, torch.from_numpy(abnormal), torch.from_numpy(normal), config, writer).run(name)
    return detector.eval(), metrics


class _Trainer:
    """The training loop: it knows the detector's interface and XEL's, and neither's inside."""

    def __init__(
        self, detector: Detector, abnormal: Tensor, normal: Tensor, config: TrainingConfig, writer: SummaryWriter
    ) -> None:
        self.detector, self.config, self.writer = detector, config, writer
        self.abnormal, self.normal = abnormal, normal
        self.batches = Batches(len(abnormal), len(normal), config.batch, config.seed)
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

    def _step(self, iteration: int) -> dict[str, Tensor]:
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

    def _plot(self, terms: dict[str, Tensor], iteration: int) -> None:
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
    if config.xel.mode == "off":
        return None
    schedule = MarginSchedule.spread_over(config.iterations, config.xel.warmup, config.xel.margins)
    return XEL(schedule, config.xel.validation_weight, config.xel.margin_weight)
