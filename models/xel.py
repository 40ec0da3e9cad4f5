"""XEL: cross-epoch learning, a plug-in for any weakly supervised detector.

Yu et al., "Cross-Epoch Learning for Weakly Supervised Anomaly Detection in Surveillance Videos", IEEE SPL 2021. The
hardest clip of every normal training video is kept in a bank from one epoch to the next. Those clips are known to be
normal, so their scores are pushed down (validation loss) and below those of the abnormal videos (dynamic margin loss).
Nothing here knows which detector it works with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bank import HardInstanceBank, Scorer, evaluating

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

    Example:
        >>> schedule = MarginSchedule.spread_over(iterations=1000)  # a warm-up of 15 %
        >>> [schedule(iteration) for iteration in (0, 149, 150, 999)]
        [None, None, 0.5, 1.0]
    """

    warmup: int
    step: int
    margins: tuple[float, ...] = OFFICIAL_MARGINS

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.step < 1 or not self.margins or not all(0 < m <= 1 for m in self.margins):
            raise ValueError(f"a margin schedule needs warmup ≥ 0, step ≥ 1 and margins in (0, 1]: {self}")

    @classmethod
    def spread_over(
        cls,
        iterations: int,
        warmup_share: float = 0.15,
        margins: tuple[float, ...] = OFFICIAL_MARGINS,
        step_share: float | None = None,
    ) -> MarginSchedule:
        """A warm-up of a share of all iterations, then each margin for such a share, or an equal part of the rest."""
        warmup = round(warmup_share * iterations)
        step = -(-(iterations - warmup) // len(margins)) if step_share is None else round(step_share * iterations)
        return cls(warmup, max(1, step), margins)

    def __call__(self, iteration: int) -> float | None:
        """ε at an iteration, counted from 0; None during the warm-up."""
        if iteration < self.warmup:
            return None
        return self.margins[min((iteration - self.warmup) // self.step, len(self.margins) - 1)]


class XEL(nn.Module):
    """Cross-epoch learning beside any detector's own training loop.

    Args:
        schedule: iteration -> margin ε, or None while XEL has not set in; usually a `MarginSchedule`.
        validation_weight: λ1 of the paper.
        margin_weight: λ2 of the paper.
        dropout: leave dropout on while XEL compares, as the published script does.
        progressive: ours: multiply both losses by how far the abnormal clips stand above the bank, their mean scores'
            difference, without gradient; by 0 where they stand below. While the detector cannot tell them apart, the
            validation loss pulls all scores down alike, and the margin loss holds on to clips that happen to be
            highest: in full from the start, they undo what was learned. So they weigh as much as it tells apart.
        rows: ours: with how many rows of the bank a step compares, drawn anew at each; None for all. Both losses are
            means, so that theirs over drawn rows is the same in expectation, and a step costs no more with a thousand
            normal videos than with ten. Where a row is a clip with its neighbours, that is most of the cost.

    Raises:
        ValueError: rows that are not positive.

    Example, in a training loop of one's own:
        >>> from xelvad import MIL, Bags, hardest
        >>> normal = [torch.rand(clips, 8) for clips in (5, 2)]  # each (T, F)
        >>> abnormal = [torch.rand(clips, 8) for clips in (4, 9)]
        >>> detector, xel = MIL(feature_dim=8), XEL(MarginSchedule(warmup=2, step=1))
        >>> optimiser = torch.optim.Adam(detector.parameters())
        >>> for iteration in range(6):
        ...     if iteration >= 2 and iteration % 2 == 0:  # an epoch has two iterations
        ...         turnover = xel.bank.refresh(detector, ([video] for video in normal))
        ...     loss = detector.loss(Bags.pack(abnormal, normal))
        ...     terms = xel.terms(detector, hardest(abnormal, loss.abnormal_scores), iteration)
        ...     optimiser.zero_grad()
        ...     sum(terms.values(), loss.total).backward()
        ...     optimiser.step()
        >>> sorted(terms), len(xel.bank)
        (['margin', 'validation'], 2)
    """

    def __init__(
        self,
        schedule: Callable[[int], float | None],
        validation_weight: float = 1.0,
        margin_weight: float = 1.0,
        dropout: bool = False,
        progressive: bool = False,
        rows: int | None = None,
    ) -> None:
        super().__init__()
        if rows is not None and rows < 1:
            raise ValueError(f"XEL compares with at least one row of its bank at a step, not {rows}")
        self.schedule = schedule
        self.validation_weight, self.margin_weight = validation_weight, margin_weight
        self.dropout, self.progressive, self.rows = dropout, progressive, rows
        self.bank = HardInstanceBank()

    def terms(self, detector: Scorer, abnormal_clips: Tensor, iteration: int) -> dict[str, Tensor]:
        """What XEL adds to the detector's loss, weighted, by name; empty during the warm-up.

        Both sides of the margin are scored in one pass and one mode, with gradient. Were one scored with dropout and
        the other without, being high under dropout alone would satisfy both losses: a detector that is flat in use.

        Args:
            detector: the detector being trained; left in the mode it was in. One with context in its `Windows`.
            abnormal_clips: features of the highest-scoring clip of each abnormal video of the batch, ``(B, F)``, or
                ``(B, W, F)`` with its neighbours as the bank's rows are, as `hardest` gives them.
            iteration: counted from 0.

        Raises:
            RuntimeError: the warm-up is over and the bank was never filled.
        """
        margin = self.schedule(iteration)
        if margin is None:
            return {}
        if not len(self.bank):
            raise RuntimeError("the hard instance bank is empty: call bank.refresh before the warm-up ends")
        with nullcontext() if self.dropout else evaluating(detector):
            scores = detector.score(torch.cat([abnormal_clips, self._drawn()]))  # (B + M, F) -> (B + M,)
        abnormal_max, bank_scores = scores[: len(abnormal_clips)], scores[len(abnormal_clips) :]
        terms = {
            "validation": self.validation_weight * validation_loss(bank_scores),
            "margin": self.margin_weight * dynamic_margin_loss(abnormal_max, bank_scores, margin),
        }
        if self.progressive:
            apart = (abnormal_max.mean() - bank_scores.mean()).detach().clamp(min=0)
            terms = {name: apart * term for name, term in terms.items()}
        return terms

    def _drawn(self) -> Tensor:
        """The rows of the bank that a step compares with."""
        if self.rows is None or self.rows >= len(self.bank):
            return self.bank.instances
        drawn = torch.randperm(len(self.bank))[: self.rows]
        return self.bank.instances[drawn.to(self.bank.instances.device)]
