"""The hard instance bank: the clip of every normal video that the detector finds hardest to call normal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

SCREENED = 16  # rows of a video that are compared in float32 after a screening in bfloat16
ROWS = 32  # a screening takes a multiple of so many: oneDNN keeps memory for every number of rows it meets
COMPARED_VIDEOS = 16  # whose candidates are compared at once

T = TypeVar("T")


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
        found: list[tuple[Tensor, Tensor, Tensor]] = []  # of each video: its hardest clip, which one, its score
        # Around all of it, so that the weights are converted once.
        with evaluating(detector), torch.autocast("cpu", torch.bfloat16, enabled=_multiplies_bfloat16()):
            for videos in _grouped((_candidates(detector, pieces) for pieces in normal_videos), COMPARED_VIDEOS):
                found += _hardest(detector, videos)
        if not found:
            raise ValueError("there are no normal videos to fill the bank with")
        instances, clips, scores = map(torch.stack, zip(*found, strict=True))
        return self.replace(torch.arange(len(found)), instances, clips, scores)

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


def _grouped(videos: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` videos each; the last may be shorter."""
    while group := list(islice(videos, size)):
        yield group


def _candidates(detector: Scorer, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of a video that its hardest clip is among, of all crops: their features ``(n, F)``, their clips ``(n,)``.

    Within autocast these are the best by a screening in bfloat16, which costs half or a third, and the last few rows,
    which are not screened; else the best alone.
    """
    rows, clips, first = [], [], 0
    for piece in pieces:
        if not len(piece):
            continue
        flat = piece.flatten(0, -2)  # (t, F) or (t, crops, F) -> (n, F)
        screens = piece.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        whole = len(flat) - len(flat) % ROWS if screens else len(flat)
        best = torch.arange(whole, len(flat), device=flat.device)
        if whole:  # of equals the first
            order = detector.score(flat[:whole]).argsort(descending=True, stable=True)
            best = torch.cat([order[: SCREENED if screens else 1], best])
        rows.append(flat[best])
        clips.append(first + best // (len(flat) // len(piece)))
        first += len(piece)
    if not rows:
        raise ValueError("a video without clips has no hardest clip")
    return torch.cat(rows), torch.cat(clips)


def _hardest(detector: Scorer, candidates: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each video the candidate with the highest score: its features ``(F,)``, its clip ``()``, its score ``()``.

    All are scored at once: few rows at a time leave a processor idle.
    """
    lengths = [len(clips) for _, clips in candidates]
    with torch.autocast("cpu", enabled=False):
        scores = detector.score(torch.cat([rows for rows, _ in candidates])).split(lengths)
    for (rows, clips), video in zip(candidates, scores, strict=True):
        best = video.argmax()
        yield rows[best], clips[best], video[best]


@lru_cache(maxsize=1)
def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices, so that these are the faster ones."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
