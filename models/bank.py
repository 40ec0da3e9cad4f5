"""The hard instance bank: the clip of every normal video that the detector finds hardest to call normal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Scorer(Protocol):
    """All that XEL asks of a detector: a module that scores clips."""

    @property
    def training(self) -> bool:
        """Whether dropout and the like are on."""

    def score(self, features: Tensor) -> Tensor:
        """Clip features ``(…, F)`` to anomaly scores ``(…)`` in [0, 1]."""

    def train(self, mode: bool = True) -> object:
        """Switch dropout and the like on or off."""


@contextmanager
def evaluating(detector: Scorer) -> Iterator[None]:
    """Evaluation mode for the length of a block: what is scored there must not depend on dropout."""
    was_training = detector.training
    detector.train(False)
    try:
        yield
    finally:
        detector.train(was_training)


class HardClip(NamedTuple):
    """The hardest clip of a video: its features ``(F,)``, its number within the video ``()``, its score ``()``.

    For detectors with context the features are ``(W, F)``, with its neighbours'.
    """

    instance: Tensor
    clip: Tensor
    score: Tensor


Videos = Iterable[Iterable[Tensor]]
"""Videos in pieces of consecutive clips, ``(t, F)`` or ``(t, crops, F)``."""


def hardest_clips(detector: Scorer, videos: Videos) -> Iterator[HardClip]:
    """The clip of each video that scores highest; of equals the first. With crops, it is that of its best crop.

    Raises:
        ValueError: a video without clips.
    """
    for pieces in videos:
        best, first = None, 0
        for piece in pieces:
            rows = piece.flatten(0, -2)  # (t, F) or (t, crops, F) -> (n, F)
            if len(rows):
                score, row = detector.score(rows).max(dim=0)
                if best is None or score > best.score:
                    best = HardClip(rows[row], first + row // (len(rows) // len(piece)), score)
            first += len(piece)
        if best is None:
            raise ValueError("a video without clips has no hardest clip")
        yield best


class HardInstanceBank(nn.Module):
    """Ω: the input features of the hardest clip of every normal video, and which clips these are.

    Attributes:
        instances: ``(M, F)``, one row per normal video, in the order of `refresh`; ``(M, W, F)`` where the detector
            looks at neighbours, and a row is a clip with its own (see `context`).
        clips: ``(M,)`` int64, the number of the clip within its video; -1 in rows that were never filled.
        scores: ``(M,)`` in [0, 1], the clip's score when it was chosen; 0 in rows that were never filled.
        ages: ``(M,)`` int64, for how many refreshes in a row the same clip has been chosen.

    Example, with any module that has a method ``score``:
        >>> from xelvad import MIL
        >>> detector, bank = MIL(feature_dim=8), HardInstanceBank()
        >>> normal_videos = [torch.rand(clips, 8) for clips in (3, 1, 9)]
        >>> bank.refresh(detector, ([video] for video in normal_videos))  # all rows are new
        1.0
        >>> bank.instances.shape
        torch.Size([3, 8])
    """

    instances: Tensor
    clips: Tensor
    scores: Tensor
    ages: Tensor

    def __init__(self) -> None:
        super().__init__()
        none = torch.empty(0, dtype=torch.int64)
        self.restore({"instances": torch.empty(0, 0), "clips": none, "scores": torch.empty(0), "ages": none})

    @classmethod
    def constant(cls, rows: int, feature_dim: int, value: float = 0.5) -> HardInstanceBank:
        """A bank of equal features that belong to no clip, as the published script begins with."""
        bank = cls()
        bank.restore(
            {
                "instances": torch.full((rows, feature_dim), value),
                "clips": torch.full((rows,), -1),
                "scores": torch.zeros(rows),
                "ages": torch.zeros(rows, dtype=torch.int64),
            }
        )
        return bank

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` of another bank gave, of whatever size."""
        for name in ("instances", "clips", "scores", "ages"):
            self.register_buffer(name, state[name].clone())

    def __len__(self) -> int:
        return len(self.instances)

    @torch.no_grad()
    def refresh(
        self,
        detector: Scorer,
        normal_videos: Videos,
        find: Callable[[Scorer, Videos], Iterable[HardClip]] = hardest_clips,
    ) -> float:
        """Replace the rows by the hardest clip of each normal video under the current weights.

        Args:
            detector: scores in evaluation mode; left in the mode it was in.
            normal_videos: every normal training video once, always in the same order; each in pieces of consecutive
                clips, ``(t, F)`` or ``(t, crops, F)``, so that a long video need not be in memory as a whole. A bag
                that is one tensor is ``[bag]``.
            find: how the hardest clips are found; `screening.screened_hardest_clips` finds the same, faster, and
                `context.hardest_windows` finds them with their neighbours.

        Returns:
            Turnover: the share of the rows whose clip is another one than before.

        Raises:
            ValueError: no videos, a video without clips, or fewer rows before than there are videos.
        """
        with evaluating(detector):
            found = list(find(detector, normal_videos))
        if not found:
            raise ValueError("there are no normal videos to fill the bank with")
        instances, clips, scores = map(torch.stack, zip(*found, strict=True))
        return self.replace(torch.arange(len(found)), instances, clips, scores)

    @torch.no_grad()
    def replace(self, videos: Tensor, instances: Tensor, clips: Tensor, scores: Tensor) -> float:
        """Replace the rows of some videos; returns the share of these whose clip is another one than before.

        Args:
            videos: ``(n,)`` int64, whose rows; a bank without rows is filled with these.
            instances: ``(n, F)``, or ``(n, W, F)`` with neighbours.
            clips: ``(n,)`` int64, numbers of the clips within their videos.
            scores: ``(n,)`` in [0, 1].

        Raises:
            ValueError: a row that the bank does not have.
        """
        if not len(self):
            state = {"instances": instances, "clips": clips, "scores": scores.detach(), "ages": torch.ones_like(clips)}
            self.restore(state)
            return 1.0
        if int(videos.max()) >= len(self):
            raise ValueError(f"video {int(videos.max())} has no row in a bank of {len(self)}")
        changed = self.clips[videos] != clips
        self.ages[videos] = torch.where(changed, 1, self.ages[videos] + 1)
        self.instances[videos], self.clips[videos] = instances, clips
        self.scores[videos] = scores.detach()
        return float(changed.float().mean())
