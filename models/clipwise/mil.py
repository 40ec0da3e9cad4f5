"""MIL: the deep multiple instance ranking detector.

Sultani, Chen & Shah, "Real-World Anomaly Detection in Surveillance Videos", CVPR 2018. A video is a bag of segments;
the highest score of an abnormal bag should exceed the highest score of a normal bag by a margin of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detector import Bags, DetectorLoss, LearningDetector, highest
from .network import three_layer_scorer


def ranking_loss(abnormal_scores: Sequence[Tensor], normal_scores: Sequence[Tensor]) -> Tensor:
    """Hinge between the highest scores of every abnormal and every normal bag (eq. 4).

    Args:
        abnormal_scores: of each of A bags, ``(T,)`` in [0, 1].
        normal_scores: of each of N bags, ``(T,)`` in [0, 1].

    Returns:
        Scalar, the mean over the ``A × N`` pairs of bags.
    """
    return F.relu(1 - highest(abnormal_scores)[:, None] + highest(normal_scores)[None, :]).mean()  # (A, N) -> ()


def sparsity(scores: Sequence[Tensor]) -> Tensor:
    """Anomalies are rare: the sum of a bag's scores ``(T,)``, mean over bags (eq. 5, term 2)."""
    return torch.cat(list(scores)).sum() / len(scores)


def smoothness(scores: Sequence[Tensor]) -> Tensor:
    """Anomalies last: the squared steps between neighbours in a bag ``(T,)``, mean over bags (eq. 5, term 1)."""
    joined = torch.cat(list(scores))
    ends = torch.tensor([len(bag) for bag in scores]).cumsum(0)[:-1]
    within = torch.ones(len(joined) - 1, dtype=torch.bool)  # a step from one bag to the next is none
    within[ends - 1] = False
    return joined.diff()[within.to(joined.device)].square().sum() / len(scores)


class MIL(LearningDetector):
    """Ranks bags by their highest score.

    Args:
        feature_dim: F, 4096 for C3D, 1024 for I3D.
        dropout: behind the first and the second layer.
        sparsity_weight: λ of eq. 5, per unit of summed score of an abnormal bag.
        smoothness_weight: λ of eq. 5, per squared step of an abnormal bag.

    Example:
        >>> detector = MIL(feature_dim=1024).eval()
        >>> detector.score(torch.rand(5, 1024)).shape  # five clips
        torch.Size([5])
    """

    name, title = "mil", "MIL"

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.6,
        sparsity_weight: float = 8e-5,
        smoothness_weight: float = 8e-5,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.sparsity_weight, self.smoothness_weight = sparsity_weight, smoothness_weight
        self.scorer = three_layer_scorer(feature_dim, dropout)

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1]."""
        scores: Tensor = self.scorer(features).squeeze(-1)
        return scores

    def loss(self, bags: Bags) -> DetectorLoss:
        """Ranking loss with sparsity and smoothness on the abnormal bags (eq. 6; weight decay is the optimiser's)."""
        abnormal, normal = bags.split(self.score(bags.clips))
        terms = {
            "ranking": ranking_loss(abnormal, normal),
            "sparsity": self.sparsity_weight * sparsity(abnormal),
            "smoothness": self.smoothness_weight * smoothness(abnormal),
        }
        return DetectorLoss.of(terms, abnormal, normal)
