"""XEL: cross-epoch learning, a plug-in for any weakly supervised detector.

Yu et al., "Cross-Epoch Learning for Weakly Supervised Anomaly Detection in Surveillance Videos", IEEE SPL 2021. The
hardest clip of every normal training video is kept in a bank from one epoch to the next. Those clips are known to be
normal, so their scores are pushed down (validation loss) and below those of the abnormal videos (dynamic margin loss).
Nothing here knows which detector it works with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OFFICIAL_MARGINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def validation_loss(bank_scores: Tensor) -> Tensor:
    """Pull the hard normal instances to their label, 0.

    Args:
        bank_scores: scores of the hard instance bank under the current weights, ``(M,)``, in [0, 1].

    Returns:
        Scalar, the mean absolute distance to 0.

    Source: Yu et al., IEEE SPL 2021, L_v.
    """
    return bank_scores.abs().mean()


def dynamic_margin_loss(abnormal_max: Tensor, bank_scores: Tensor, margin: float) -> Tensor:
    """Push the most abnormal clip of each abnormal video above every hard normal instance by ``margin``.

    Args:
        abnormal_max: highest clip score of each abnormal video, ``(B,)``, in [0, 1].
        bank_scores: scores of the hard instance bank under the current weights, ``(M,)``, in [0, 1].
        margin: ε of the paper, in (0, 1].

    Returns:
        Scalar, the mean hinge over the ``B × M`` pairs. Zero when every pair is separated by ``margin``.

    Source: Yu et al., IEEE SPL 2021, L_m.
    """
    return F.relu(margin - abnormal_max[:, None] + bank_scores[None, :]).mean()  # (B, M) -> ()


@dataclass(frozen=True)
class MarginSchedule:
    """When XEL sets in, and how its margin ε grows.

    Attributes:
        warmup: iterations before XEL sets in.
        step: iterations that each margin lasts; the last margin lasts for good.
        margins: the values of ε, in order. A fixed margin is a schedule of one.
    """

    warmup: int
    step: int
    margins: tuple[float, ...] = OFFICIAL_MARGINS

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.step < 1 or not self.margins or not all(0 < m <= 1 for m in self.margins):
            raise ValueError(f"a margin schedule needs warmup ≥ 0, step ≥ 1 and margins in (0, 1]: {self}")

    @classmethod
    def spread_over(
        cls, iterations: int, warmup_share: float = 0.15, margins: tuple[float, ...] = OFFICIAL_MARGINS
    ) -> MarginSchedule:
        """A warm-up of a share of all iterations, then each margin for an equal part of the rest."""
        warmup = round(warmup_share * iterations)
        return cls(warmup, max(1, -(-(iterations - warmup) // len(margins))), margins)

    def __call__(self, iteration: int) -> float | None:
        """ε at an iteration, counted from 0; None during the warm-up."""
        if iteration < self.warmup:
            return None
        return self.margins[min((iteration - self.warmup) // self.step, len(self.margins) - 1)]


class Scorer(Protocol):
    """All that XEL asks of a detector: a module that scores clips."""

    training: bool

    def score(self, features: Tensor) -> Tensor:
        """Clip features ``(…, F)`` to anomaly scores ``(…)`` in [0, 1]."""

    def train(self, mode: bool = True) -> object:
        """Switch dropout and the like on or off."""


@contextmanager
def evaluating(detector: Scorer) -> Iterator[None]:
    """Evaluation mode for the length of a block: what is scored there must not depend on dropout's dice."""
    was_training = detector.training
    detector.train(False)
    try:
        yield
    finally:
        detector.train(was_training)


class HardInstanceBank(nn.Module):
    """Ω: the input features of the clip that the detector finds most abnormal in every normal video, ``(M, F)``."""

    instances: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("instances", torch.empty(0))

    def __len__(self) -> int:
        return len(self.instances)

    @torch.no_grad()
    def refresh(self, detector: Scorer, normal_bags: Iterable[Tensor]) -> Tensor:
        """Replace all rows by the hardest clip of each normal video under the current weights.

        Args:
            detector: scores in evaluation mode; left in the mode it was in.
            normal_bags: batches ``(N, T, F)`` that hold every normal training video once.

        Returns:
            Which clip of each video was chosen, ``(M,)``, in the order of ``normal_bags``.
        """
        rows, chosen = [], []
        with evaluating(detector):
            for bags in normal_bags:
                hardest = detector.score(bags).argmax(dim=1)  # (N, T, F) -> (N, T) -> (N,)
                rows.append(bags[torch.arange(len(bags), device=bags.device), hardest])  # (N, F)
                chosen.append(hardest)
        self.instances = torch.cat(rows)
        return torch.cat(chosen)


class XEL(nn.Module):
    """Cross-epoch learning beside any detector's own training loop.

    Args:
        schedule: iteration -> margin ε, or None while XEL has not set in; usually a `MarginSchedule`.
        validation_weight: λ1 of the paper.
        margin_weight: λ2 of the paper.

    Example::

        xel = XEL(MarginSchedule.spread_over(iterations))
        for iteration in range(iterations):
            if iteration % iterations_per_epoch == 0:
                xel.bank.refresh(detector, normal_bags)
            loss, abnormal_scores = ...  # the detector's own
            loss = loss + sum(xel.terms(detector, abnormal_scores.amax(dim=1), iteration).values())
    """

    def __init__(
        self,
        schedule: Callable[[int], float | None],
        validation_weight: float = 1.0,
        margin_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.validation_weight, self.margin_weight = validation_weight, margin_weight
        self.bank = HardInstanceBank()

    def terms(self, detector: Scorer, abnormal_max: Tensor, iteration: int) -> dict[str, Tensor]:
        """What XEL adds to the detector's loss, weighted, by name; empty during the warm-up.

        The bank is scored under the current weights, with gradient and without dropout.

        Args:
            detector: the detector being trained.
            abnormal_max: highest clip score of each abnormal video of the batch, ``(B,)``, with gradient.
            iteration: counted from 0.

        Raises:
            RuntimeError: the warm-up is over and the bank was never filled.
        """
        margin = self.schedule(iteration)
        if margin is None:
            return {}
        if not len(self.bank):
            raise RuntimeError("the hard instance bank is empty: call bank.refresh before the warm-up ends")
        with evaluating(detector):
            bank_scores = detector.score(self.bank.instances)  # (M, F) -> (M,)
        return {
            "validation": self.validation_weight * validation_loss(bank_scores),
            "margin": self.margin_weight * dynamic_margin_loss(abnormal_max, bank_scores, margin),
        }
