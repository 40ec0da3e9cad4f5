"""What every frame-by-frame detector is: it learns normal videos, and a frame's error says how badly it fits them.

Nothing here knows labels or clips: grey pictures go in, one error for every frame comes out. Two monotone maps make a
score of it: `FramewiseDetector.scores_of` compares an error with those of normal videos and needs no other frame, which
is what cameras need; `irregularity` compares it with all others of its video, as papers do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ..detector import Detector

TYPICAL, RARE = 0.5, 0.99  # quantiles of the errors of normal frames that scores are measured by


def irregularity(errors: Tensor) -> Tensor:
    """The errors of a whole video ``(n,)`` to scores in [0, 1]: ``(e(t) − min e) / max e``, one minus the regularity.

    Source: Hasan et al., CVPR 2016, regularity score s(t). Their code divides by ``max e − min e``, by which even the
    most regular video has a frame that scores 1.
    """
    return (errors - errors.min()) / errors.max().clamp(min=torch.finfo(errors.dtype).tiny)


class FramewiseDetector(Detector):
    """Base of the frame-by-frame detectors. All that is learned lies in parameters and buffers of fixed shapes.

    A frame's error is the same to the bit in a whole video and in any part of it that begins at a multiple of `grid`
    and holds what the error depends on: every frame goes through the same operations, at the same place of tensors of
    the same shapes, however many come along with it.

    Attributes:
        before: how many frames before it a frame's error depends on.
        behind: how many frames behind it a frame's error depends on, which is also the delay of a camera's scores.
        grid: frames of which parts of a video that are looked at begin at multiples.
        levels: ``(2,)``, the median and the 99 % quantile of the errors of normal frames, from `calibrate`.
    """

    feature_dim = 1  # to all that follows, its error is the feature of a frame
    before: ClassVar[int]
    behind: ClassVar[int]
    grid: int = 1
    levels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor([0.0, 1.0]))

    @abstractmethod
    def frame_errors(self, frames: Tensor) -> Tensor:
        """Grey frames of a video, uint8 ``(n ≥ 1, H, W)``, to errors ``(n,)``, 0 or greater, without gradient."""

    def errors_in_blocks(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """`frame_errors` of a video of any length, to the bit, without holding all of it.

        Args:
            blocks: the frames of one video in order, uint8 ``(n, H, W)``; n may be anything. Each block is looked at
                together with the last ``before + behind`` frames or a few more, so blocks of 100 waste little.

        Yields:
            The errors of the next frames, of which there are all in the end; with a block those that enough frames
            stand behind.
        """
        held: Tensor | None = None
        known = 0  # frames of those held whose errors have been handed on
        for block in blocks:
            held = block if held is None else torch.cat([held, block])
            ready = len(held) - self.behind
            if ready <= known:
                continue
            yield self.frame_errors(held)[known:ready]
            cut = max(ready - self.before, 0) // self.grid * self.grid
            held, known = held[cut:].clone(), ready - cut  # a view would keep all frames that are done with
        if held is not None and len(held):
            yield self.frame_errors(held)[known:]

    def calibrate(self, errors: Tensor) -> None:
        """Lets scores be measured by the errors ``(n,)`` of normal frames, best of videos not learned from."""
        ordered = errors.sort().values
        for place, quantile in enumerate((TYPICAL, RARE)):
            self.levels[place] = ordered[round(quantile * (len(ordered) - 1))]

    def score(self, features: Tensor) -> Tensor:
        """Frames' errors as features, ``(…, 1)``, to scores ``(…)`` in [0, 1]: see `scores_of`."""
        return self.scores_of(features.squeeze(-1))

    def scores_of(self, errors: Tensor) -> Tensor:
        """Errors ``(…)`` to scores ``(…)`` in [0, 1], one by one: a strictly rising function of the error.

        ``½ (1 + z / (1 + |z|))`` with ``z`` the distance from the 99 % quantile of normal frames, in units of the
        distance of that from their median. So a median frame scores ¼, of normal frames one in a hundred more than ½,
        and unlike a quantile or a logistic function it still tells two very large errors apart.
        """
        typical, rare = self.levels
        distance = (errors - rare) / (rare - typical).clamp(min=torch.finfo(errors.dtype).eps)
        return 0.5 * (1 + distance / (1 + distance.abs()))
