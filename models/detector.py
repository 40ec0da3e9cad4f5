"""What every detector is: a scorer of clips and the loss it learns from, on bags of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Bags:
    """A batch of abnormal and normal videos, each a bag of as many clips as it has.

    The clips of all videos lie one after the other, abnormal videos first, so that nothing is padded and nothing needs
    a mask: a clip that does not exist cannot enter a loss.

    Attributes:
        clips: ``(ΣT, F)``, the clips of all videos.
        abnormal: number of clips of each video that is known to hold an anomaly somewhere.
        normal: number of clips of each video that is known to hold none.

    Raises:
        ValueError: a video without clips, or numbers that do not add up to the rows of ``clips``.

    Example:
        >>> bags = Bags.pack(abnormal=[torch.rand(3, 8)], normal=[torch.rand(1, 8), torch.rand(5, 8)])
        >>> bags.abnormal, bags.normal, bags.clips.shape
        ((3,), (1, 5), torch.Size([9, 8]))
    """

    clips: Tensor
    abnormal: tuple[int, ...]
    normal: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = self.abnormal + self.normal
        if min(lengths, default=0) < 1 or sum(lengths) != len(self.clips):
            raise ValueError(f"{len(self.clips)} clips in videos of {list(lengths)}: each needs at least one")

    @classmethod
    def pack(cls, abnormal: Sequence[Tensor], normal: Sequence[Tensor]) -> Bags:
        """A batch of videos that are ``(T, F)`` each; T may differ from video to video."""
        return cls(torch.cat([*abnormal, *normal]), tuple(map(len, abnormal)), tuple(map(len, normal)))

    def to(self, device: torch.device | str) -> Bags:
        """The same bags on a device."""
        return Bags(self.clips.to(device), self.abnormal, self.normal)

    def split(self, values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What was computed for every clip, ``(ΣT, …)``, by video ``(T, …)``: of the abnormal, of the normal ones."""
        videos = values.split([*self.abnormal, *self.normal])
        return videos[: len(self.abnormal)], videos[len(self.abnormal) :]


@dataclass(frozen=True)
class DetectorLoss:
    """A detector's loss on a batch, and the scores it was computed from.

    Attributes:
        total: scalar, what is minimised.
        abnormal_scores: of each abnormal video, ``(T,)`` in [0, 1], with gradient.
        normal_scores: of each normal video, ``(T,)`` in [0, 1], with gradient.
        terms: the scalars that ``total`` is the sum of, by name, for the curves.
    """

    total: Tensor
    abnormal_scores: tuple[Tensor, ...]
    normal_scores: tuple[Tensor, ...]
    terms: dict[str, Tensor]

    @classmethod
    def of(
        cls, terms: dict[str, Tensor], abnormal_scores: tuple[Tensor, ...], normal_scores: tuple[Tensor, ...]
    ) -> DetectorLoss:
        """The loss that is the sum of ``terms``."""
        return cls(torch.stack(list(terms.values())).sum(), abnormal_scores, normal_scores, terms)


def side_by_side(scores: Sequence[Tensor], fill: float) -> Tensor:
    """Videos of any length as the rows of one tensor, with gradient: B times ``(T,)`` to ``(B, longest T)``.

    Sixty videos one by one cost more than the arithmetic of a small network. What is filled in must not enter a loss.
    """
    lengths = [len(video) for video in scores]
    if min(lengths) == max(lengths):
        return torch.stack(list(scores))
    counts = torch.tensor(lengths)[:, None]  # (B, 1)
    steps = torch.arange(max(lengths))  # (T,)
    laid_out = counts.cumsum(0) - counts + steps  # (B, T), where a clip is with all videos laid end to end
    places = torch.where(steps < counts, laid_out, sum(lengths))  # or that of what is filled in, behind the last
    joined = torch.cat([*scores, scores[0].new_full((1,), fill)])
    return joined[places.to(joined.device)]


def highest(scores: Sequence[Tensor]) -> Tensor:
    """The highest score of each video: B times ``(T,)`` to ``(B,)``, with gradient."""
    return side_by_side(scores, -torch.inf).amax(dim=1)


def row_of(clips: Tensor, clip: int, context: int = 0) -> Tensor:
    """A clip of a video as XEL's bank keeps it: ``(T, F)`` to ``(F,)``, or with its neighbourhood to ``(context, F)``.

    At an end of the video there are more neighbours on the other side; of a video that has fewer clips than the context
    each stands several times.
    """
    if not context:
        return clips[clip]
    if len(clips) < context:
        return clips[torch.arange(context, device=clips.device) * len(clips) // context]
    start = min(max(clip - context // 2, 0), len(clips) - context)
    return clips[start : start + context]


def hardest(clips: Sequence[Tensor], scores: Sequence[Tensor], context: int = 0) -> Tensor:
    """The features of the highest-scoring clip of each video: B times ``(T, F)`` and ``(T,)`` to ``(B, F)``.

    With a context, that of a detector which looks at neighbours, each clip comes with its own: ``(B, context, F)``.

    Example:
        >>> videos = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])]
        >>> hardest(videos, [torch.tensor([0.9, 0.1]), torch.tensor([0.5])])
        tensor([[1.],
                [3.]])
    """
    best = side_by_side(scores, -torch.inf).argmax(dim=1).tolist()  # of equals the first
    return torch.stack([row_of(video, place, context) for video, place in zip(clips, best, strict=True)])


class Detector(nn.Module, ABC):
    """Base of all detectors: they score clips, and are built from the feature dimension alone.

    Attributes:
        name: what users call it, in commands and files.
        title: what papers call it.
        context: how many clips with their order a score is computed from; 0 if from the clip alone. See `context`.
        feature_dim: F, numbers per clip.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    context: ClassVar[int] = 0
    feature_dim: int

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Clip features ``(…, F)`` to anomaly scores ``(…)`` in [0, 1]; with context, of ``(…, T, F)`` in order."""


class LearningDetector(Detector):
    """Base of the detectors that learn step by step, from a loss on batches of bags."""

    @abstractmethod
    def loss(self, bags: Bags) -> DetectorLoss:
        """The loss on a batch of bags, which holds at least one video of each kind."""
