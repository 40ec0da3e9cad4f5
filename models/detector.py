"""What every detector is: a scorer of clips and the loss it learns from, on bags of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Bags:
    """A batch of abnormal and one of normal videos, each video a bag of clip features.

    Attributes:
        abnormal: ``(A, T, F)``, clips of videos that are known to hold an anomaly somewhere.
        normal: ``(N, T', F)``, clips of videos that are known to hold none.
    """

    abnormal: Tensor
    normal: Tensor


@dataclass(frozen=True)
class DetectorLoss:
    """A detector's loss on a batch, and the scores it was computed from.

    Attributes:
        total: scalar, what is minimised.
        abnormal_scores: ``(A, T)`` in [0, 1], with gradient.
        normal_scores: ``(N, T')`` in [0, 1], with gradient.
        terms: the scalars that ``total`` is made of, by name, for the curves.
    """

    total: Tensor
    abnormal_scores: Tensor
    normal_scores: Tensor
    terms: dict[str, Tensor]


class Detector(nn.Module, ABC):
    """Base of the detectors: subclasses define the two methods. All are built from the feature dimension alone."""

    feature_dim: int

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Clip features ``(…, F)`` to anomaly scores ``(…)`` in [0, 1]."""

    @abstractmethod
    def loss(self, bags: Bags) -> DetectorLoss:
        """The loss on a batch of bags."""
