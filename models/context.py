"""Context: detectors that look at a clip together with its neighbours, by temporal convolution or attention.

Their scores hold for a clip within its video, so that videos are scored whole, `score` taking ``(…, T, F)``. XEL's bank
then keeps, in place of a single clip, the hardest clip *with its neighbourhood*: `Detector.context` consecutive clips,
whose score is the highest among them. All of them are normal, so that pushing down whichever is highest is as right as
pushing down the hardest itself. A whole video would be the more faithful row, but rows of unequal length do not stack,
and a bank of whole videos costs as much at every step as scoring the training set. Bags of as many segments as the
context, 32 as most of these papers have, are in the bank as a whole.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .bank import HardClip, Scorer, Videos
from .detector import LearningDetector, row_of

CONTEXT = 32  # clips: the segments of a bag in the papers


class ContextDetector(LearningDetector):
    """Base of the detectors whose scores depend on the clips beside a clip."""

    context = CONTEXT

    def score(self, features: Tensor) -> Tensor:
        """The clips of a video, of several, or of several crops, in order: ``(…, T, F) -> (…, T)`` in [0, 1]."""
        if not features.numel():
            return features.new_zeros(features.shape[:-1])
        videos = features.reshape(-1, *features.shape[-2:])  # (…, T, F) -> (B, T, F)
        return self.score_videos(videos).reshape(features.shape[:-1])

    @abstractmethod
    def score_videos(self, videos: Tensor) -> Tensor:
        """Videos of equal length, ``(B, T, F) -> (B, T)`` in [0, 1]; a video's scores do not depend on the others."""


def in_groups(
    forward: Callable[[Tensor], tuple[Tensor, ...]], clips: Tensor, lengths: Sequence[int]
) -> tuple[Tensor, ...]:
    """Take packed videos through a network that wants them side by side, those of equal length together.

    Nothing is padded, so that no clip that does not exist can enter a convolution, an attention or a mean.

    Args:
        forward: ``(B, T, F)`` to tensors that are ``(B, T, …)`` each.
        clips: ``(ΣT, F)``, the clips of all videos one after the other.
        lengths: T of each video.

    Returns:
        What ``forward`` gave, packed as the clips: ``(ΣT, …)`` each.
    """
    if min(lengths) == max(lengths):
        return tuple(each.flatten(0, 1) for each in forward(clips.reshape(len(lengths), -1, clips.shape[-1])))
    videos = clips.split(list(lengths))
    found: dict[int, tuple[Tensor, ...]] = {}
    for length in sorted(set(lengths)):
        numbers = [number for number, each in enumerate(lengths) if each == length]
        together = forward(torch.stack([videos[number] for number in numbers]))
        found |= {number: tuple(each[place] for each in together) for place, number in enumerate(numbers)}
    return tuple(map(torch.cat, zip(*(found[number] for number in range(len(videos))), strict=True)))


class Windows:
    """A context detector as XEL takes it: every row a clip with its neighbourhood.

    Args:
        detector: scores the clips of a row as if they were a video.
    """

    def __init__(self, detector: Scorer) -> None:
        self.detector = detector

    @property
    def training(self) -> bool:
        """Whether dropout and the like are on."""
        return self.detector.training

    def train(self, mode: bool = True) -> object:
        """Switch dropout and the like on or off."""
        return self.detector.train(mode)

    def score(self, features: Tensor) -> Tensor:
        """The highest score of each row, ``(…, W, F) -> (…)``."""
        return self.detector.score(features).amax(dim=-1)


def scorer_of_rows(detector: LearningDetector) -> Scorer:
    """What scores the rows of a bank for a detector: itself, or for one with context its `Windows`."""
    return Windows(detector) if detector.context else detector


def hardest_windows(detector: LearningDetector, videos: Videos) -> Iterator[HardClip]:
    """As `bank.hardest_clips`, for a detector with context: instances are ``(W, F)``, with W its context.

    The pieces of a video are scored as videos of their own: they hold hundreds of clips.

    Raises:
        ValueError: a video without clips.
    """
    for pieces in videos:
        best, first = None, 0
        for piece in pieces:
            if len(piece):
                crops = piece[None] if piece.ndim == 2 else piece.transpose(0, 1)  # (t, [crops,] F) -> (crops, t, F)
                scores = detector.score(crops)
                crop, clip = divmod(int(scores.argmax()), len(piece))
                if best is None or scores[crop, clip] > best.score:
                    row = row_of(crops[crop], clip, detector.context)
                    best = HardClip(row, torch.tensor(first + clip, device=piece.device), scores[crop, clip])
            first += len(piece)
        if best is None:
            raise ValueError("a video without clips has no hardest clip")
        yield best
