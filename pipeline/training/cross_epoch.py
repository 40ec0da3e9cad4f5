"""What XEL needs from epoch to epoch: when its bank is filled, refreshed, and its rows are replaced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models import XEL, Bags, DetectorLoss, HardInstanceBank, LearningDetector, hardest, highest
from ...models.bank import hardest_clips
from ...models.context import hardest_windows, scorer_of_rows
from ...models.detector import row_of
from ...models.screening import multiplies_bfloat16, screened_hardest_clips
from ..features.bags import TrainingVideos
from ..support.curves import CURVE_EVERY, Curves
from .batches import Batch
from .config import TrainingConfig
from .pace import Pace


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
        rows=settings.rows,
    )
    if quirks & {"constant-bank", "extra-rows"}:
        rows = max(abnormal, normal) if "extra-rows" in quirks else normal
        xel.bank = HardInstanceBank.constant(rows, feature_dim)
    return xel


class CrossEpoch:
    """XEL beside a training.

    Args:
        xel: the two losses and the bank.
        normal: the normal training videos, whose hardest clips are the bank.
        config: of the training.
    """

    def __init__(self, xel: XEL, normal: TrainingVideos, config: TrainingConfig) -> None:
        self.xel, self.normal, self.mode = xel, normal, config.xel.mode
        self.begins_constant = "constant-bank" in config.quirk_names

    @property
    def bank(self) -> HardInstanceBank:
        """The hard instance bank."""
        return self.xel.bank

    def refresh_if_due(self, detector: LearningDetector, iteration: int, new_epoch: bool, curves: Curves) -> None:
        """Before a step: choose the hardest clip of every normal video anew, if it is time to."""
        if not self._is_due(iteration, new_epoch):
            return
        device = self.bank.instances.device
        videos = ((torch.from_numpy(piece).to(device) for piece in pieces) for pieces in self.normal.all_pieces())
        if detector.context:
            turnover = self.bank.refresh(detector, videos, lambda _, videos: hardest_windows(detector, videos))
        else:
            screens = device.type == "cpu" and multiplies_bfloat16()
            turnover = self.bank.refresh(detector, videos, screened_hardest_clips if screens else hardest_clips)
        self._plot(turnover, iteration, curves)

    def terms(self, detector: LearningDetector, bags: Bags, loss: DetectorLoss, iteration: int) -> dict[str, Tensor]:
        """What XEL adds to the loss of a step, by name; empty during the warm-up."""
        clips, _ = bags.split(bags.clips)
        rows = hardest(clips, loss.abnormal_scores, detector.context)
        terms = self.xel.terms(scorer_of_rows(detector), rows, iteration)
        return {f"xel_{name}": value for name, value in terms.items()}

    def replace_rows(
        self, detector: LearningDetector, batch: Batch, bags: Bags, loss: DetectorLoss, iteration: int, curves: Curves
    ) -> None:
        """After a step of the batch-wise variant: the hardest clips of its normal videos enter the bank at once."""
        if self.mode != "batch" or not len(self.bank):
            return
        _, normal = bags.split(bags.clips)
        best = [int(scores.argmax()) for scores in loss.normal_scores]
        clips = [int(rows[row]) for rows, row in zip(batch.normal_rows, best, strict=True)]
        turnover = self.bank.replace(
            torch.from_numpy(batch.normal_videos),
            torch.stack([row_of(bag, row, detector.context) for bag, row in zip(normal, best, strict=True)]),
            torch.tensor(clips, device=bags.clips.device),
            highest(loss.normal_scores),
        )
        if iteration % CURVE_EVERY == 0:
            self._plot(turnover, iteration, curves)

    @property
    def state(self) -> dict[str, Any]:
        """To go on from."""
        return dict(self.bank.state_dict())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to where `state` was taken."""
        device = self.bank.instances.device
        self.bank.restore({name: value.to(device) for name, value in state.items()})

    def _is_due(self, iteration: int, new_epoch: bool) -> bool:
        if self.begins_constant:  # the published script: at the end of every epoch
            return new_epoch and iteration > 0 and self.mode == "epoch"
        if self.xel.schedule(iteration) is None:
            return False
        filled = len(self.bank) > 0 and bool(self.bank.clips[0] >= 0)
        return not filled or (new_epoch and self.mode == "epoch")

    def _plot(self, turnover: float, iteration: int, curves: Curves) -> None:
        curves.add_scalar("bank/turnover", turnover, iteration)
        curves.add_scalar("bank/mean_score", float(self.bank.scores.mean()), iteration)
        curves.add_scalar("bank/mean_age", float(self.bank.ages.float().mean()), iteration)
