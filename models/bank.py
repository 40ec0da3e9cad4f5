"""The hard instance bank: the clip of every normal video that the detector finds hardest to call normal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

SCREENED = 32  # rows that are compared in float32 after a screening in bfloat16


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
    """Ω: the input features of the hardest clip of every normal video, and which clips these are.

    Attributes:
        instances: ``(M, F)``, one row per normal video, in the order of `refresh`.
        clips: ``(M,)`` int64, the number of the clip within its video; -1 in rows that were never filled.
        scores: ``(M,)`` in [0, 1], the clip's score when it was chosen; 0 in rows that were never filled.
        ages: ``(M,)`` int64, for how many refreshes in a row the same clip has been chosen.
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
    def refresh(self, detector: Scorer, normal_videos: Iterable[Iterable[Tensor]]) -> float:
        """Replace the rows by the hardest clip of each normal video under the current weights.

        Args:
            detector: scores in evaluation mode; left in the mode it was in.
            normal_videos: every normal training video once, always in the same order; each in pieces of consecutive
                clips, ``(t, F)`` or ``(t, crops, F)``, so that a long video need not be in memory as a whole. A bag
                that is one tensor is ``[bag]``.

        Returns:
            Turnover: the share of the rows whose clip is another one than before.

        Raises:
            ValueError: no videos, a video without clips, or fewer rows before than there are videos.
        """
        with evaluating(detector), torch.autocast("cpu", torch.bfloat16, enabled=_multiplies_bfloat16()):
            hardest = [_hardest(detector, pieces) for pieces in normal_videos]
        if not hardest:
            raise ValueError("there are no normal videos to fill the bank with")
        clips = torch.tensor([clip for _, clip, _ in hardest], device=hardest[0][0].device)
        scores = torch.stack([score for _, _, score in hardest])
        return self.replace(torch.arange(len(hardest)), torch.stack([row for row, _, _ in hardest]), clips, scores)

    @torch.no_grad()
    def replace(self, videos: Tensor, instances: Tensor, clips: Tensor, scores: Tensor) -> float:
        """Replace the rows of some videos; returns the share of these whose clip is another one than before.

        Args:
            videos: ``(n,)`` int64, whose rows; a bank without rows is filled with these.
            instances: ``(n, F)``.
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


def _hardest(detector: Scorer, pieces: Iterable[Tensor]) -> tuple[Tensor, int, Tensor]:
    """The clip with the highest score, over all crops: its features ``(F,)``, its number, its score ``()``."""
    best: tuple[Tensor, int, Tensor] | None = None
    first = 0
    for piece in pieces:
        if not len(piece):
            continue
        rows = piece.flatten(0, -2)  # (t, F) or (t, crops, F) -> (n, F)
        row, score = _highest(detector, rows)
        if best is None or score > best[2]:
            best = rows[row].clone(), first + row * len(piece) // len(rows), score
        first += len(piece)
    if best is None:
        raise ValueError("a video without clips has no hardest clip")
    return best


def _highest(detector: Scorer, rows: Tensor) -> tuple[int, Tensor]:
    """The row ``(n, F)`` with the highest score, and that score ``()``.

    Within autocast, many rows are screened in bfloat16, which costs a third, and the best of them compared in float32.
    """
    candidates = None
    if torch.is_autocast_enabled("cpu") and rows.device.type == "cpu" and len(rows) > 2 * SCREENED:
        candidates = detector.score(rows).float().topk(SCREENED).indices
    with torch.autocast("cpu", enabled=False):
        scores = detector.score(rows if candidates is None else rows[candidates])
    best = int(scores.argmax())
    return (best if candidates is None else int(candidates[best])), scores[best]


@lru_cache(maxsize=1)
def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices, so that these are the faster ones."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
